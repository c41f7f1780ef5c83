"""What the programs are written with: tensors, arrays and objects, most of them such as no caller should hand over.

A reproducer carries this file along, so that it needs nothing but fastbp and NumPy.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import copy
import gc
import io
import math
import operator
import pickle
import types
import weakref
from typing import Any

import numpy as np

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, func, linalg, nn, optim
from fastbp.utils import data

USED = (collections, contextlib, copy, gc, io, math, operator, types, weakref, F, func, linalg, data)


def T(shape: Any, dtype: str = "float32", low: float = -2, high: float = 2, grad: bool = False) -> fastbp.Tensor:
    """A tensor of numbers that are the same at each call."""
    count = math.prod(shape)
    steps = (np.arange(count) * 0.6180339887 + 0.25) % 1.0
    if dtype == "bool":
        array: Any = steps < 0.5
    elif dtype.startswith("float"):
        array = low + steps * (high - low)
    else:
        array = np.floor(max(low, 0) + steps * (high - max(low, 0)))
    made = fastbp.tensor(np.asarray(array).reshape(shape).astype(dtype))
    return made.requires_grad_() if grad else made


def A(shape: Any, dtype: str = "float32") -> Any:
    """An array of numbers that are the same at each call."""
    count = math.prod(shape)
    return ((np.arange(count) * 5 + 3) % 7).reshape(shape).astype(dtype)


def swapped(x: Any) -> Any:
    return x.astype(x.dtype.newbyteorder())


def unaligned(x: Any) -> Any:
    """The same numbers, one byte off."""
    memory = np.zeros(x.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(x.tobytes(), np.uint8)
    return memory[1:].view(x.dtype).reshape(x.shape)


def frozen(x: Any) -> Any:
    x.flags.writeable = False
    return x


def records(count: int) -> Any:
    return np.zeros(count, [("a", "f4"), ("b", "i8")])


class OwnTensor(fastbp.Tensor):
    pass


class OwnParameter(nn.Parameter):
    pass


class OwnArray(np.ndarray[Any, Any]):
    pass


class OwnInt(int):
    pass


class OwnFloat(float):
    pass


class OwnStr(str):
    pass


class OwnList(list[Any]):
    pass


class OwnTuple(tuple[Any, ...]):
    pass


class OwnDict(dict[Any, Any]):
    pass


class OwnModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.weight = nn.Parameter(T((3,)))

    def forward(self, x: Any, *rest: Any) -> Any:
        return self.inner(x) * self.weight


def own(kind: Any, value: Any) -> Any:
    """Of a subclass."""
    if issubclass(kind, np.ndarray):
        return np.asarray(value).view(kind)
    return kind(value)


class Raising:
    """Every question is answered with an exception."""

    def __init__(self, kind: type[BaseException] = ValueError) -> None:
        object.__setattr__(self, "kind", kind)

    def refuse(self, *args: Any, **options: Any) -> Any:
        raise object.__getattribute__(self, "kind")("refused")

    __index__ = __int__ = __float__ = __bool__ = __len__ = __getitem__ = __iter__ = __call__ = refuse
    __array__ = __eq__ = __hash__ = __lt__ = __contains__ = __getattr__ = __repr__ = __str__ = refuse  # type: ignore[assignment]
    __setattr__ = __delattr__ = __add__ = __radd__ = __mul__ = __rmul__ = __enter__ = __next__ = refuse  # type: ignore[assignment]
    __buffer__ = __dlpack__ = __fspath__ = __reduce_ex__ = __complex__ = keys = items = refuse  # type: ignore[assignment]


class Lying:
    """Every question is answered, and no answer fits the others."""

    shape = (-3, 2**40)
    ndim = -1
    dtype = "float32"
    requires_grad = "perhaps"
    data = None
    __array_interface__ = types.MappingProxyType(
        {"shape": (2**40,), "typestr": "<f4", "data": (0, False), "version": 3}
    )

    def __len__(self) -> int:
        return 5

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and key > 7:
            raise IndexError(key)
        return self

    def __iter__(self) -> Any:
        return iter([self, None, 2**62])

    def __index__(self) -> int:
        return 2**62

    def __int__(self) -> int:
        return -(2**70)

    def __float__(self) -> float:
        return math.nan

    def __eq__(self, other: object) -> Any:
        return "yes"

    def __hash__(self) -> int:
        return 1

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.array([self, None], dtype=object)

    def keys(self) -> Any:
        return [self, 3, "params"]

    def size(self, *args: Any) -> Any:
        return 2**62


class Acting:
    """Does something meanwhile, whenever it is asked for its value."""

    def __init__(self, action: Any, value: Any = 1) -> None:
        self.action, self.value = action, value

    def act(self) -> Any:
        with contextlib.suppress(Exception):
            self.action()
        return self.value

    def __index__(self) -> int:
        return operator.index(self.act())

    def __int__(self) -> int:
        return int(self.act())

    def __float__(self) -> float:
        return float(self.act())

    def __bool__(self) -> bool:
        return bool(self.act())

    def __len__(self) -> int:
        self.act()
        return 2

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and key > 3:
            raise IndexError(key)
        return self.act()

    def __iter__(self) -> Any:
        for _ in range(3):
            yield self.act()

    def __eq__(self, other: object) -> bool:
        self.act()
        return True

    def __hash__(self) -> int:
        self.act()
        return 3

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.act()
        return args[0] if args else self.value

    def __array__(self, *args: Any, **options: Any) -> Any:
        self.act()
        return np.ones(3, "f4")

    def __repr__(self) -> str:
        self.act()
        return "acting"

    def __del__(self) -> None:
        self.act()


def rebound(x: Any) -> None:
    """The tensor has other memory, shape and dtype from now on."""
    x.data = fastbp.zeros(1, dtype=fastbp.float64)


def resized(x: Any) -> None:
    """The array has fewer elements from now on."""
    x.resize((1,), refcheck=False)


def itself() -> list[Any]:
    """A list that contains itself."""
    made: list[Any] = []
    made.append(made)
    return made


def deep(depth: int = 100_000) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def closed() -> Any:
    """A generator that is over."""
    made = (one for one in [1, 2])
    made.close()
    return made


def non_leaf(shape: Any = (2, 3)) -> fastbp.Tensor:
    return T(shape, grad=True) * 2


def freed(shape: Any = (2, 3)) -> fastbp.Tensor:
    """The graph behind it is gone."""
    made = T(shape, grad=True).exp() * 2
    made.sum().backward()
    return made


def leaked(level: int = 1) -> fastbp.Tensor:
    """A batched tensor outside of its vmap."""
    kept: list[Any] = []

    def keep(x: Any) -> Any:
        kept.append(x)
        return x * 1

    mapped = func.vmap(keep)
    for _ in range(level - 1):
        mapped = func.vmap(mapped)
    mapped(T((2, 3, 4)))
    return kept[0]


def leaked_gradient() -> fastbp.Tensor:
    """What a function saw within func.grad, outside of it."""
    kept: list[Any] = []

    def keep(x: Any) -> Any:
        kept.append(x * x)
        return kept[0].sum()

    func.grad(keep)(T((2, 3)))
    return kept[0]


def symbolic() -> fastbp.Tensor:
    """A symbolic tensor outside of its capture."""
    kept: list[Any] = []

    def keep(x: Any) -> Any:
        if not kept:
            kept.append(x * 2)
        return (x * 3).sum()

    with contextlib.suppress(Exception):
        fastbp.compile(keep)(T((2, 3)))
    return kept[0]


def expanded(shape: Any = (3, 4)) -> fastbp.Tensor:
    return fastbp.ones(*(1 for _ in shape)).expand(*shape)


def step_function(model: Any, optimizer: Any) -> Any:
    """A training step."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def compiled_step() -> Any:
    """A compiled training step that has a plan."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    made = fastbp.compile(step_function(model, optim.Adam(model.parameters())))
    made(T((2, 3)), T((2, 2)))
    return made


def a_plan() -> Any:
    return compiled_step().plan


def a_loader() -> Any:
    return data.DataLoader(data.TensorDataset(T((4, 3)), T((4, 2))), batch_size=2)


def optimizer_of(kind: Any) -> Any:
    """An optimizer that has made a step."""
    model = nn.Linear(3, 2)
    made = kind(model.parameters(), lr=0.1)
    model(T((2, 3))).sum().backward()
    made.step()
    return made


class OwnFunction(fastbp.autograd.Function):
    """A function whose methods return what they are told to."""

    forward_result: Any = None
    backward_result: Any = None

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        ctx.save_for_backward(*(one for one in args if isinstance(one, fastbp.Tensor)))
        return OwnFunction.forward_result if OwnFunction.forward_result is not None else args[0] * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return OwnFunction.backward_result if OwnFunction.backward_result is not None else grads[0]


def function_of(forward: Any, backward: Any, setup: Any = None) -> Any:
    """A Function of these methods."""
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    if setup is not None:
        methods["setup_context"] = staticmethod(setup)
    return type("Made", (fastbp.autograd.Function,), methods)


def a_context() -> Any:
    """The context of a Function whose graph has run."""
    kept: list[Any] = []

    def forward(ctx: Any, x: Any) -> Any:
        kept.append(ctx)
        ctx.save_for_backward(x)
        return x * 2

    function_of(forward, lambda ctx, g: g).apply(T((3,), grad=True))
    return kept[0]


def a_capture() -> Any:
    """A capture that is over."""
    with _core.Capture() as made:
        made.argument(T((2, 3))) * 2
    return made


def a_symbolic_number() -> Any:
    """A symbolic number outside of its capture."""
    kept: list[Any] = []
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters())
    scheduled = optimizer.step

    def step(x: Any) -> Any:
        model(x).sum().backward()
        scheduled()
        kept.extend(one["step"] for one in optimizer.state.values())
        kept.append(optimizer.param_groups[0]["lr"])

    with contextlib.suppress(Exception):
        fastbp.compile(step)(T((2, 3)))
    return kept[0]


class Anything:
    """In place of every class and function of fastbp's."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class WithoutOurs(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return Anything if module.startswith("fastbp") else super().find_class(module, name)


def has_system_error(error: BaseException | None) -> bool:
    """Whether a SystemError is this exception or stands behind it."""
    for _ in range(5):
        if isinstance(error, SystemError):
            return True
        error = None if error is None else error.__cause__ or error.__context__
    return False


def loads(pickled: bytes) -> Any:
    """What a pickle makes; a SystemError that it raises without fastbp, too, is Python's or NumPy's own."""
    try:
        return pickle.loads(pickled)
    except Exception as error:
        found = error
    if has_system_error(found):
        try:
            WithoutOurs(io.BytesIO(pickled)).load()
        except Exception as error:
            if has_system_error(error):
                found = ValueError("not fastbp's")
    raise found


def swap_bytes(pickled: bytes, edits: Any) -> bytes:
    """A pickle with some bytes replaced."""
    made = bytearray(pickled)
    for place, byte in edits:
        made[place % len(made)] = byte
    return bytes(made)


class Rebuild:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, args: Any, state: Any = None) -> None:
        self.told = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.told


def rebuilt(function: Any, args: Any, state: Any = None) -> Any:
    """What a pickle makes that calls this function with these arguments."""
    return pickle.loads(pickle.dumps(Rebuild(function, args, state)))


def called(function: Any, args: Any, state: Any = None) -> Any:
    """As `rebuilt`, of arguments that cannot be pickled."""
    made = function(*args)
    if state is not None:
        if hasattr(made, "__setstate__"):
            made.__setstate__(state)
        else:
            made.__dict__.update(state)
    return made


def with_result(r: Any) -> None:
    """Enter and leave what came out."""
    with r:
        T((2, 3)) * 2


def consume(value: Any, depth: int = 0) -> None:
    """Use what came out: whatever a call returns must be sound."""
    if depth > 2:
        return
    if isinstance(value, fastbp.Tensor):
        with contextlib.suppress(Exception):
            repr(value)
        with contextlib.suppress(Exception):
            value.detach().numpy().tobytes()
        with contextlib.suppress(Exception):
            value.clone().sum().backward()
        with contextlib.suppress(Exception):
            copy.deepcopy(value)
        return
    if isinstance(value, (list, tuple, set, frozenset)):
        for one in list(value)[:3]:
            consume(one, depth + 1)
        return
    if isinstance(value, dict):
        for one in list(value.values())[:3]:
            consume(one, depth + 1)
        return
    if isinstance(value, types.GeneratorType) or type(value).__name__.endswith("iterator"):
        with contextlib.suppress(Exception):
            for number, one in enumerate(value):
                consume(one, depth + 1)
                if number == 2:
                    break
        return
    if type(value).__module__.startswith("fastbp"):
        for use in (builtins.repr, builtins.str, builtins.hash, builtins.bool, builtins.dir, pickle.dumps):
            with contextlib.suppress(Exception):
                use(value)
        with contextlib.suppress(Exception):
            value == value  # noqa: B015
