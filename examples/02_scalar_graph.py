"""Backpropagation on a graph of numbers: e = (a + b) * (b + 1) at a = 3, b = 2.

Run it with ``python examples/02_scalar_graph.py``.

b reaches e over two paths, so its derivative is a sum of two products:

    de/da = de/dc * dc/da                  = (b + 1) * 1               = 3
    de/db = de/dc * dc/db + de/dd * dd/db  = (b + 1) * 1 + (a + b) * 1 = 3 + 5 = 8
"""

import fastbp

a = fastbp.tensor(3.0, requires_grad=True)
b = fastbp.tensor(2.0, requires_grad=True)

c = a + b
d = b + 1
e = c * d

# backward() keeps gradients of leaves only, unless asked for the others'.
c.retain_grad()
d.retain_grad()
e.backward()

print(f"c = a + b = {c.item():g}, d = b + 1 = {d.item():g}, e = c * d = {e.item():g}")
print(f"de/dc = {c.grad.item():g}, de/dd = {d.grad.item():g}")
print(f"de/da = {a.grad.item():g}")
print(f"de/db = {b.grad.item():g}")
