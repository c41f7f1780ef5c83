"""Random calls of everything that is public, most of them wrong: each must return, or raise an exception.

`targets` walks fastbp and names all that can be called, read or set; `arguments` has expressions of valid arguments and
`wrong` of wrong ones; `valid` finds calls that succeed; `generate` makes the program of a number from them, and `runner`
runs programs one after another. A program is a few lines of Python over the names of `helpers`; what is printed is what
ran. `tools/fuzz_calls.py` watches runners from outside, as they may die.
"""
