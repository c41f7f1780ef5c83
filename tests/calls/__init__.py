"""Random calls of everything that is public, most of them wrong: each must return, or raise an exception.

`targets` walks fastbp and names all that can be called, read or set; `arguments` has expressions of valid arguments,
`wrong` of wrong ones; `valid` finds calls that succeed, and starts with those of `seeds`; `generate` makes the program
of a number from them, or one of `scenarios` or `pickles`; `runner` runs programs in children that may die. A program is
a few lines of Python over the names of `helpers`; what is printed is what ran.
"""
