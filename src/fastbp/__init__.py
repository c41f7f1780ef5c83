"""fastbp: PyTorch's API for training on CPUs, without PyTorch's weight.

    import fastbp
    from fastbp import nn, optim
    import fastbp.nn.functional as F

Tensors, gradients, modules and optimizers have PyTorch's names and semantics; an ordinary training script runs after
its import lines change. The arithmetic is a C core compiled for several instruction sets, chosen when it loads.
"""

from __future__ import annotations

import builtins as _builtins
import os as _os
from contextlib import AbstractContextManager as _AbstractContextManager
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

__version__ = "0.1.0"


def _load_core() -> None:
    """Import the extension with OpenMP told to stop watching for work soon after a parallel region.

    libgomp and libomp read these variables once, when they load; left alone, libgomp keeps cores busy for milliseconds
    (docs/threads.md has the measurements). What the user has set stands.
    """
    watch = {"GOMP_SPINCOUNT": "1000" if _os.uname().machine == "x86_64" else "30000", "KMP_BLOCKTIME": "0"}
    ours = not _builtins.any(name in _os.environ for name in (*watch, "OMP_WAIT_POLICY"))
    if ours:
        _os.environ.update(watch)
    try:
        from . import _core  # noqa: F401
    finally:
        if ours:
            for name in watch:
                del _os.environ[name]


_load_core()

from . import _core as _core  # noqa: E402
from ._core import *  # noqa: E402, F403
from ._core import Tensor, bool_, float32, float64, int32, int64, uint8  # noqa: E402
from .explanation import explain as explain  # noqa: E402
from .explanation import summary as summary  # noqa: E402

# PyTorch's other names of the dtypes; they hide Python's own in this namespace, as they do in PyTorch's.
float = float32
double = float64
long = int64
int = int32
bool = bool_

device = _core.device_type

# PyTorch's other names of functions.
absolute = _core.abs
negative = _core.neg
multiply = _core.mul
subtract = _core.sub
divide = true_divide = _core.div
greater = _core.gt
greater_equal = _core.ge
less = _core.lt
less_equal = _core.le
not_equal = _core.ne
arcsin = _core.asin
arccos = _core.acos
arctan = _core.atan
fix = _core.trunc
swapaxes = _core.transpose

pi = 3.141592653589793
e = 2.718281828459045
inf = _builtins.float("inf")
nan = _builtins.float("nan")
newaxis = None

strided = "strided"
contiguous_format = "contiguous_format"
preserve_format = "preserve_format"

_SUBMODULES = frozenset(
    ("autograd", "compiler", "datasets", "func", "linalg", "nn", "optim", "reference", "testing", "utils")
)


def is_tensor(obj: object) -> _builtins.bool:
    """Whether `obj` is a tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> _builtins.bool:
    """Whether the tensor's dtype is float32 or float64."""
    return Tensor.is_floating_point(input)


def numel(input: Tensor) -> _builtins.int:
    """Number of elements."""
    return Tensor.numel(input)


def FloatTensor(*args: object) -> Tensor:
    """PyTorch's old constructor of a float32 tensor, from sizes or from values."""
    return _legacy(float32, args)


def DoubleTensor(*args: object) -> Tensor:
    """PyTorch's old constructor of a float64 tensor, from sizes or from values."""
    return _legacy(float64, args)


def LongTensor(*args: object) -> Tensor:
    """PyTorch's old constructor of an int64 tensor, from sizes or from values."""
    return _legacy(int64, args)


def IntTensor(*args: object) -> Tensor:
    """PyTorch's old constructor of an int32 tensor, from sizes or from values."""
    return _legacy(int32, args)


def ByteTensor(*args: object) -> Tensor:
    """PyTorch's old constructor of a uint8 tensor, from sizes or from values."""
    return _legacy(uint8, args)


def BoolTensor(*args: object) -> Tensor:
    """PyTorch's old constructor of a bool tensor, from sizes or from values."""
    return _legacy(_core.bool_, args)


def _legacy(dtype: _core.dtype, args: tuple[_Any, ...]) -> Tensor:
    if len(args) == 1 and not isinstance(args[0], _builtins.int):
        return _core.tensor(args[0], dtype=dtype)
    return _core.empty(*(args or (0,)), dtype=dtype)


def set_printoptions(**options: _Any) -> None:
    """Change how tensors are printed: precision, threshold, edgeitems, linewidth, profile, sci_mode, as in PyTorch."""
    from . import _format

    _format.set_printoptions(**options)


def get_printoptions() -> dict[str, _Any]:
    """The printing options, as keyword arguments of `set_printoptions`."""
    from . import _format

    return _format.get_printoptions()


def printoptions(**options: _Any) -> _AbstractContextManager[None]:
    """Context manager: `set_printoptions` with these arguments, undone at its end."""
    from . import _format

    return _format.printoptions(**options)


def vmap(
    func: _Any, in_dims: _Any = 0, out_dims: _Any = 0, randomness: str = "error", *, chunk_size: _Any = None
) -> _Any:
    """A function of one example over a batch: see `fastbp.func.vmap`."""
    from .func import vmap

    return vmap(func, in_dims, out_dims, randomness, chunk_size=chunk_size)


def compile(model: _Any = None, **options: _Any) -> _Any:
    """Compile a function of tensors, such as a whole training step, or a module: see `fastbp.compiler.compile`."""
    from . import compiler

    return compiler.compile(model, **options)


def show_config() -> str:
    """What runs here and why: version, kernels, threads, CPU, environment variables, as text.

    Examples
    --------
    >>> print(fastbp.show_config())  # doctest: +ELLIPSIS
    fastbp 0.1.0
    ...
    """
    cpu = _core.cpu_information()
    refused = _core.threads_refused()
    lines = [
        f"fastbp {__version__}",
        f"kernels      {_core.get_isa()} (this CPU also runs: {', '.join(_core.available_isas()[:-1])})",
        f"threads      {_core.get_num_threads()} of {cpu['usable']} usable cores, {cpu['cores']} in the machine, "
        f"by {_core.threads_runtime()}"
        + (f"; no more than {refused}, for the system refused to start another" if refused else ""),
        f"CPU          {cpu['brand']}, L1 {cpu['l1_bytes'] >> 10} KiB, L2 {cpu['l2_bytes'] >> 10} KiB, "
        f"L3 {cpu['l3_bytes'] >> 10} KiB",
        f"default type {_core.get_default_dtype()!r}",
    ]
    for row in _core.environment_variables():
        lines.append(f"{row['name']:<20} {_os.environ.get(row['name'], '(not set)')}: {row['meaning']}")
    problems = _core.environment_problems()
    return "\n".join(lines + ([f"problems     {problems}"] if problems else []))


if _TYPE_CHECKING:
    from . import autograd as autograd
    from . import compiler as compiler
    from . import datasets as datasets
    from . import func as func
    from . import linalg as linalg
    from . import nn as nn
    from . import optim as optim
    from . import reference as reference
    from . import testing as testing
    from . import utils as utils
    from ._matrices import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        """Import submodules and functions of matrices at their first use, so that `import fastbp` stays quick."""
        from importlib import import_module

        if name in _SUBMODULES:
            return import_module("." + name, __name__)
        matrices = import_module("._matrices", __name__)
        if name in matrices.__all__:
            return globals().setdefault(name, getattr(matrices, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from ._matrices import __all__ as matrices

    return sorted({*globals(), *_SUBMODULES, *matrices})


# The names that `from ._core import *` brings are public, but for what only this package needs.
_PRIVATE = """rebuild GraphRecord forward_gradient check_device adam_step sgd_step device_type bool_ make_generator
BatchPass Capture CompiledCall HeldTensors Plan PlanCheck Replay Sweep UpdateLink capturing note_fork current_capture
is_symbolic make_plan paused_capture
NumberInput NumberNode NumberTape NumberWrite OptimizerBefore OptimizerLink PlanNumbers RunEagerly StateSnapshot
SymbolicInteger SymbolicNumber SymbolicOptimizer note_optimizer steps_done with_gradients are_same_objects
batch unbatch level_of lift drop_history leave_point is_recorded reaches_others recording slow_ops_forget vmap_depth
vmap_information vmap_level
HostRule HostOutput HookTable Recompute SavedTensor FunctionContext apply_function sequence_now forget_graph
set_anomaly anomaly_level"""
for _name in [*_PRIVATE.split(), *(_name for _name in dir(_core) if _name.startswith("builtin_"))]:
    globals().pop(_name, None)
del _name
