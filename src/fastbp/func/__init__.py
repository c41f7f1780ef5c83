"""fastbp.func: functions of functions, under torch.func's names.

Each takes a function of tensors and returns another: its derivative, its Jacobian, the same over a batch. They nest in any
order, run inside of `fastbp.compile` and around compiled functions, and take and give tensors in lists, tuples,
dicts and named tuples.
"""

from .derivatives import grad, grad_and_value, hvp, jvp, linearize, vjp
from .jacobians import hessian, jacfwd, jacrev
from .state import functional_call, stack_module_state
from .vectorize import vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "stack_module_state",
    "vjp",
    "vmap",
]
