"""Random training programs: each is run eagerly and compiled, from equal worlds, and all that can be seen is compared.

`generate` makes the program of a seed, `observe` runs and compares one, `minimise` makes a failing one short, and
`parts` has the modules, optimizers and numbers that programs are made of. A program is the text of one Python function,
`program(wrap, see)`: what is printed is what ran.
"""
