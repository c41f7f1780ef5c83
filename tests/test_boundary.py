"""What comes in from Python is looked at: self, None, other types, instances that nobody made, objects that change."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import run_program

import fastbp
from fastbp import Tensor, _core, nn, optim

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "fastbp" / "core"
OWN_CLASS_STATEMENT = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement of Python's own
CLASSES = [
    kind
    for kind in vars(_core).values()
    if isinstance(kind, type) and kind.__module__ == "fastbp._core" and not kind.__flags__ & OWN_CLASS_STATEMENT
]
by_name = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def ones(*shape: int) -> Tensor:
    return fastbp.ones(*shape)


# ---- self -----------------------------------------------------------------------------------------------------------

WRONG_SELF = """
import fastbp
from fastbp import _core
generator = fastbp.Generator()
from test_boundary import CLASSES
for kind in CLASSES:
    for name, member in sorted(vars(kind).items()):
        if name == "__new__" or isinstance(member, staticmethod):
            continue
        doors = [getattr(member, one, None) for one in ("__get__", "__set__", "__delete__")]
        calls = [member] if callable(member) else [one for one in doors if one is not None]
        for call in calls:
            for wrong in (1.5, None, object(), fastbp.ones(2) if kind is not fastbp.Tensor else generator, kind):
                given = [(wrong,)] if callable(member) or call.__name__ != "__set__" else []
                for arguments in [*given, (wrong, 1.5), (wrong, 1.5, 1.5)]:
                    if not callable(member) and call.__name__ == "__get__" and (wrong is None or len(arguments) > 2):
                        continue  # of the class itself: the descriptor
                    try:
                        call(*arguments)
                    except TypeError as error:
                        text = str(error)
                        if not any(one in text for one in (name, call.__name__, kind.__name__, "argument")):
                            print(f"{kind.__name__}.{name} with {arguments!r}: {text}")
                    except BaseException as error:
                        print(f"{kind.__name__}.{name} with {arguments!r}: {type(error).__name__} {error}")
                    else:
                        print(f"{kind.__name__}.{name} with {arguments!r}: no exception")
print("done")
"""


def run(code: str) -> str:
    """Output of a program in a process of its own, which must not die."""
    return run_program(code, timeout=120)


def test_every_method_and_attribute_of_every_class_looks_at_self() -> None:
    allowed = ("SymbolicNumber.__class__",)
    lines = [line for line in run(WRONG_SELF).splitlines() if not line.startswith(allowed)]
    assert lines == ["done"]


@by_name
def test_methods_are_descriptors_of_the_interpreter_that_tell_their_signature(kind: type) -> None:
    kinds = ("method_descriptor", "wrapper_descriptor", "getset_descriptor", "member_descriptor", "staticmethod")
    for name, member in vars(kind).items():
        if name == "__new__" or not callable(member):
            continue
        assert type(member).__name__ in kinds, f"{kind.__name__}.{name} is a {type(member).__name__}"
        if not name.startswith("__"):
            parameters = inspect.signature(member).parameters
            assert parameters, f"{kind.__name__}.{name} has no signature"
            assert member.__doc__ != "None"


def test_methods_stay_what_they_are_to_tools() -> None:
    assert str(inspect.signature(Tensor.sum)) == "(self, /, dim=None, keepdim=False, *, dtype=None, axis=None)"
    assert pickle.loads(pickle.dumps(Tensor.add)) is Tensor.add
    assert [float(x) for x in map(Tensor.add, [ones()], [2.0])] == [3.0]
    assert Tensor.backward.__doc__ is not None and Tensor.backward.__doc__.startswith("Accumulate the derivatives")
    assert Tensor.backward.__name__ == "backward" and Tensor.backward.__qualname__ == "Tensor.backward"


# ---- instances that nobody made -------------------------------------------------------------------------------------


def use(made: object) -> None:
    """Look at everything that an object has; exceptions are answers."""
    for name in dir(made):
        try:
            member = getattr(made, name)
            if callable(member) and name not in ("__init_subclass__", "__enter__", "__exit__", "seed", "manual_seed"):
                member()
        except (Exception, _core.RunEagerly):
            pass


# Those whose instances need no arguments.
OPEN = [_core.Tensor, _core.Generator, _core.keep_values, _core.recording, _core.Capture, _core.paused_capture]
OPEN += [_core.recomputed_region, _core.NumberTape, _core.FunctionContext]
EMPTY_INSTANCES = """
import copy, pickle, fastbp
from fastbp import _core
from test_boundary import CLASSES, OPEN, use
fastbp.set_num_threads(1)
for kind in CLASSES:
    for make in (
        lambda: kind.__new__(kind),
        kind,
        lambda: object.__new__(kind),
        lambda: copy.copy(kind.__new__(kind)),
        lambda: pickle.loads(pickle.dumps(kind.__new__(kind))),
    ):
        try:
            made = make()
        except TypeError:
            continue
        use(made)
        assert kind in OPEN, kind
print("done")
"""


def test_no_class_gives_an_instance_that_nobody_made() -> None:
    assert run(EMPTY_INSTANCES).splitlines()[-1] == "done"


def test_internal_classes_say_that_they_make_no_instances() -> None:
    for kind in (_core.Plan, _core.dtype, _core.GradFunction, _core.HostRule, _core.SymbolicNumber):
        with pytest.raises(TypeError, match=f"cannot create 'fastbp._core.{kind.__name__}' instances"):
            kind.__new__(kind)
        with pytest.raises(TypeError, match="cannot create"):
            kind()


class Named(Tensor):
    """A subclass with arguments of its own."""

    def __init__(self, data: Any, name: str) -> None:
        super().__init__(data)
        self.name = name


def test_new_makes_an_empty_tensor_and_init_the_values() -> None:
    made = Tensor.__new__(Tensor)
    assert tuple(made.shape) == (0,) and made.dtype == fastbp.float32 and (made + 1).numel() == 0
    made.__init__([1.0, 2.0])  # type: ignore[misc]
    assert made.tolist() == [1.0, 2.0]
    Tensor.__init__(made, 5)
    assert made.tolist() == [1.0, 2.0]
    assert tuple(Tensor(2, 3).shape) == (2, 3) and tuple(Tensor().shape) == (0,)
    named = Named([1.0], "a")
    assert type(named) is Named and named.name == "a" and named.tolist() == [1.0]
    assert type(Named.__new__(Named)) is Named and Named.__new__(Named).numel() == 0
    parameter = nn.Parameter(ones(2))
    assert type(copy.deepcopy(parameter)) is nn.Parameter or type(copy.deepcopy(parameter)) is Tensor


def test_a_subclass_is_asked_for_where_one_is_made() -> None:
    for wrong in (1.5, None, int, object):
        with pytest.raises(TypeError, match="subclass of Tensor"):
            Tensor._make_subclass(wrong, ones(2))
    with pytest.raises(TypeError):
        Tensor._make_subclass(Tensor, None)


# ---- None and other types -------------------------------------------------------------------------------------------

NO_TENSOR: dict[str, tuple[Callable[[Any], Any], str]] = {
    "squeeze": (lambda x: fastbp.squeeze(x), "squeeze"),
    "flip": (lambda x: fastbp.flip(x, 0), "flip"),
    "topk": (lambda x: fastbp.topk(x, 1), "topk"),
    "tril": (lambda x: fastbp.tril(x), "tril"),
    "bincount": (lambda x: fastbp.bincount(x), "bincount"),
    "zeros_like": (lambda x: fastbp.zeros_like(x), "zeros_like"),
    "empty_like": (lambda x: fastbp.empty_like(x), "empty_like"),
    "rand_like": (lambda x: fastbp.rand_like(x), "rand_like"),
    "reshape": (lambda x: fastbp.reshape(x, (1,)), "reshape"),
    "permute": (lambda x: fastbp.permute(x, (0,)), "permute"),
    "transpose": (lambda x: fastbp.transpose(x, 0, 0), "transpose"),
    "t": (lambda x: fastbp.t(x), "t"),
    "movedim": (lambda x: fastbp.movedim(x, 0, 0), "movedim"),
    "unsqueeze": (lambda x: fastbp.unsqueeze(x, 0), "unsqueeze"),
    "flatten": (lambda x: fastbp.flatten(x), "flatten"),
    "unflatten": (lambda x: fastbp.unflatten(x, 0, (1,)), "unflatten"),
    "narrow": (lambda x: fastbp.narrow(x, 0, 0, 1), "narrow"),
    "select": (lambda x: fastbp.select(x, 0, 0), "select"),
    "split": (lambda x: fastbp.split(x, 1), "split"),
    "chunk": (lambda x: fastbp.chunk(x, 1), "chunk"),
    "unbind": (lambda x: fastbp.unbind(x), "unbind"),
    "hstack": (lambda x: fastbp.hstack([x]), "hstack"),
    "vstack": (lambda x: fastbp.vstack([x]), "vstack"),
    "cat": (lambda x: fastbp.cat([ones(1), x]), "cat"),
    "stack": (lambda x: fastbp.stack([x]), "stack"),
    "tile": (lambda x: fastbp.tile(x, (1,)), "tile"),
    "repeat_interleave": (lambda x: fastbp.repeat_interleave(x, 1), "repeat_interleave"),
    "diagonal": (lambda x: fastbp.diagonal(x), "diagonal"),
    "diag": (lambda x: fastbp.diag(x), "diag"),
    "trace": (lambda x: fastbp.trace(x), "trace"),
    "meshgrid": (lambda x: fastbp.meshgrid(x, x), "meshgrid"),
    "gather": (lambda x: fastbp.gather(x, 0, fastbp.tensor([0])), "gather"),
    "gather_index": (lambda x: fastbp.gather(ones(1), 0, x if x != 1.5 else None), "gather"),
    "index_select": (lambda x: fastbp.index_select(x, 0, fastbp.tensor([0])), "index_select"),
    "index_put": (lambda x: fastbp.index_put(x, (fastbp.tensor([0]),), ones(1)), "index_put"),
    "index_copy": (lambda x: ones(1).index_copy(0, fastbp.tensor([0]), x), "index_copy_"),
    "index_add": (lambda x: ones(1).index_add(0, fastbp.tensor([0]), x), "index_add"),
    "masked_fill": (lambda x: fastbp.masked_fill(x, ones(1) > 0, 0.0), "masked_fill"),
    "masked_scatter": (lambda x: ones(1).masked_scatter(ones(1) > 0, x), "masked_scatter_"),
    "take": (lambda x: fastbp.take(x, fastbp.tensor([0])), "take"),
    "sort": (lambda x: fastbp.sort(x), "sort"),
    "unique": (lambda x: fastbp.unique(x), "unique"),
    "roll": (lambda x: fastbp.roll(x, 1), "roll"),
    "rot90": (lambda x: fastbp.rot90(x), "rot90"),
    "sum": (lambda x: fastbp.sum(x), "sum"),
    "softmax": (lambda x: fastbp.softmax(x, 0), "softmax"),
    "exp": (lambda x: fastbp.exp(x), "exp"),
    "linear": (lambda x: fastbp.nn.functional.linear(ones(1), x), "linear"),
    "matmul_out": (lambda x: fastbp.matmul(ones(1, 1), ones(1, 1), out=x if x is not None else 1.5), "matmul"),
    "addmm": (lambda x: fastbp.addmm(ones(1), ones(1, 1), x), "addmm"),
    "equal": (lambda x: fastbp.equal(ones(1), x), "equal"),
    "isclose": (lambda x: fastbp.isclose(ones(1), x), "isclose"),
    "type_as": (lambda x: ones(1).type_as(x), "type_as"),
    "expand_as": (lambda x: ones(1).expand_as(x), "expand_as"),
    "view_as": (lambda x: ones(1).view_as(x), "view_as"),
    "reshape_as": (lambda x: ones(1).reshape_as(x), "reshape_as"),
    "set_": (lambda x: ones(1).set_(x), "set_"),
    "data": (lambda x: setattr(ones(1), "data", x), "data"),
    "kron": (lambda x: fastbp.kron(ones(1), x), "kron"),
    "cross": (lambda x: fastbp.cross(ones(3), x), "cross"),
    "inner": (lambda x: fastbp.inner(ones(3), x), "inner"),
    "tensordot": (lambda x: fastbp.tensordot(ones(3), x, 1), "tensordot"),
    "chain_matmul": (lambda x: fastbp.chain_matmul(ones(3, 3), x), "chain_matmul"),
    "multinomial": (lambda x: fastbp.multinomial(x, 1), "multinomial"),
    "numel": (lambda x: fastbp.numel(x), "numel"),
    "clamp": (lambda x: fastbp.clamp(x, 0.5), "clamp"),
}


@pytest.mark.parametrize("name", NO_TENSOR)
@pytest.mark.parametrize("wrong", [None, 1.5, "x"], ids=str)
def test_something_else_in_place_of_a_tensor_is_a_type_error_that_names_the_function(name: str, wrong: object) -> None:
    call, function = NO_TENSOR[name]
    with pytest.raises(TypeError, match=re.escape(function)):
        call(wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ones(1) + None,
        lambda: fastbp.add(ones(1), None),
        lambda: ones(1).mul_(None),
        lambda: ones(1).copy_(None),
        lambda: ones(1).__setitem__(0, None),
        lambda: fastbp.where(ones(1) > 0, None, ones(1)),
        lambda: fastbp.exp(ones(1), out=1.5),
        lambda: fastbp.add(ones(1), ones(1), out=1.5),
        lambda: fastbp.cat([ones(1)], out=1.5),
        lambda: ones(2, 3).sum(1.5),
        lambda: ones(2, 3).sum("x"),
        lambda: ones(2, 3).argmax((0, 1)),
        lambda: ones(2, 3).logsumexp(None),
        lambda: ones(2, 3).transpose(0, None),
        lambda: ones(2, 3).view(None),
        lambda: ones(2, 3).index_put_(None, ones(1)),
        lambda: ones(2, 3).scatter_(0, fastbp.tensor([[0]])),
    ],
)
def test_other_types_of_arguments_are_type_errors(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        call()


# ---- bad calls, as PyTorch answers them -----------------------------------------------------------------------------

scalar = fastbp.tensor(2.0)
BAD_CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "roll_surplus": (lambda: ones(2, 3).roll((1, 2), ()), RuntimeError, "shifts and dimensions must align"),
    "roll_nothing": (lambda: ones(2, 3).roll(()), RuntimeError, "`shifts` required"),
    "roll_too_few": (lambda: ones(2, 3).roll((1, 2), 0), RuntimeError, "align"),
    "roll_scalar": (lambda: scalar.roll(1, 0), IndexError, "roll"),
    "hstack_nothing": (lambda: fastbp.hstack([]), RuntimeError, "hstack"),
    "vstack_nothing": (lambda: fastbp.vstack([]), RuntimeError, "vstack"),
    "stack_nothing": (lambda: fastbp.stack(()), RuntimeError, "stack"),
    "cat_nothing": (lambda: fastbp.cat(()), ValueError, "cat"),
    "meshgrid_nothing": (lambda: fastbp.meshgrid(), RuntimeError, "meshgrid"),
    "meshgrid_matrix": (lambda: fastbp.meshgrid(ones(2, 2)), RuntimeError, "meshgrid"),
    "unflatten_nothing": (lambda: ones(3).unflatten(0, ()), RuntimeError, "unflatten"),
    "unflatten_sizes": (lambda: ones(6).unflatten(0, (2, 2)), RuntimeError, "unflatten"),
    "unflatten_guess": (lambda: ones(6).unflatten(0, (4, -1)), RuntimeError, "unflatten"),
    "unflatten_zero": (lambda: ones(6).unflatten(0, (0, -1)), RuntimeError, "unflatten"),
    "size_of_scalar": (lambda: scalar.size(0), IndexError, "size"),
    "stride_of_scalar": (lambda: scalar.stride(-1), IndexError, "stride"),
    "unbind_scalar": (lambda: scalar.unbind(), IndexError, "unbind"),
    "select_scalar": (lambda: scalar.select(0, 0), IndexError, "select"),
    "narrow_scalar": (lambda: scalar.narrow(0, 0, 1), RuntimeError, "narrow"),
    "split_scalar": (lambda: scalar.split(1), RuntimeError, "split"),
    "chunk_scalar": (lambda: scalar.chunk(1), RuntimeError, "chunk"),
    "split_negative": (lambda: ones(3).split([-1, 4]), RuntimeError, "split"),
    "narrow_negative": (lambda: ones(3).narrow(0, 0, -1), RuntimeError, "narrow"),
    "narrow_start": (lambda: ones(3).narrow(0, -4, 1), IndexError, "start"),
    "diag_embed_scalar": (lambda: fastbp.diag_embed(scalar), IndexError, "diag_embed"),
    "repeat_negative": (lambda: ones(1).repeat(-1), RuntimeError, "negative dimension"),
    "flip_twice": (lambda: scalar.flip(0, 0), RuntimeError, "multiple times"),
    "fliplr_vector": (lambda: fastbp.fliplr(ones(3)), RuntimeError, "2-d"),
    "flipud_scalar": (lambda: fastbp.flipud(scalar), RuntimeError, "1-d"),
    "rot90_one_dim": (lambda: fastbp.rot90(ones(2, 2), 1, (0,)), RuntimeError, "rotation dims"),
    "rot90_same_dim": (lambda: fastbp.rot90(ones(2, 2), 1, (0, -2)), RuntimeError, "different"),
    "rot90_vector": (lambda: fastbp.rot90(ones(2)), RuntimeError, "total dims"),
    "movedim_lengths": (lambda: ones(2, 3).movedim((0, 1), (0,)), RuntimeError, "movedim"),
    "movedim_twice": (lambda: ones(2, 3).movedim((0, 0), (0, 1)), RuntimeError, "movedim"),
    "clamp_nothing": (lambda: ones(1).clamp_(), RuntimeError, "clamp_"),
    "fill_vector": (lambda: ones(2).fill_(ones(2)), RuntimeError, "fill_"),
    "index_fill_vector": (lambda: ones(2).index_fill_(0, fastbp.tensor([0]), ones(1)), RuntimeError, "index_fill_"),
    "index_copy_axes": (lambda: ones(2, 3).index_copy(0, fastbp.tensor([0]), ones(3)), IndexError, "index_copy_"),
    "index_copy_rows": (lambda: ones(2, 3).index_copy(0, fastbp.tensor([0, 1]), ones(1, 3)), IndexError, "index_copy_"),
    "index_copy_sizes": (lambda: ones(2, 3).index_copy(0, fastbp.tensor([0]), ones(1, 1)), RuntimeError, "index_copy_"),
    "index_select_matrix": (lambda: ones(2, 3).index_select(0, fastbp.tensor([[0]])), IndexError, "index_select"),
    "index_put_nothing": (lambda: ones(2, 3).index_put_((), scalar), IndexError, "index_put_"),
    "pow_negative": (lambda: fastbp.tensor([2]).pow_(-1), RuntimeError, "negative integer powers"),
    "isclose_tolerance": (lambda: fastbp.isclose(ones(1), ones(1), rtol=-1.0), RuntimeError, "rtol"),
    "hardtanh_bounds": (lambda: fastbp.nn.functional.hardtanh(ones(1), 1.0, 0.0), ValueError, "min_val"),
    "chain_matmul_vector": (lambda: fastbp.chain_matmul(ones(2)), RuntimeError, "chain_matmul"),
    "data_deleted": (lambda: delattr(ones(1), "data"), RuntimeError, "data"),
    "requires_grad_deleted": (lambda: delattr(ones(1), "requires_grad"), RuntimeError, "requires_grad"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_get_pytorchs_exceptions(name: str) -> None:
    call, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        call()


def test_calls_that_look_bad_and_are_none() -> None:
    assert fastbp.arange(6.0).reshape(2, 3).roll(1, ()).tolist() == [[5, 0, 1], [2, 3, 4]]
    assert scalar.topk(0, 0).indices.tolist() == 0
    assert scalar.movedim(0, 0).item() == 2.0
    assert ones(0, 3).roll(1, 0).numel() == 0
    assert fastbp.tensor([1.0, 2.0]).narrow(0, -1, 1).tolist() == [2.0]
    assert fastbp.BoolTensor([True, False]).dtype == fastbp.bool


# ---- objects that lie, or change while they are read ----------------------------------------------------------------


class Integer(int):
    """A number that says of itself that it is within any bounds."""

    def _yes(self, other: object) -> bool:
        return True

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = _yes
    __hash__ = int.__hash__


class Growing:
    """A number that makes the list longer, or shorter, that holds it."""

    def __init__(self, holder: list[Any], more: bool) -> None:
        self.holder, self.more = holder, more

    def _act(self) -> None:
        if self.more:
            self.holder.extend([0] * 10_000)
        else:
            del self.holder[1:]

    def __index__(self) -> int:
        self._act()
        return 0

    def __float__(self) -> float:
        self._act()
        return 0.0


@pytest.mark.parametrize("more", [True, False])
def test_lists_that_change_while_they_are_read(more: bool) -> None:
    def changing(length: int = 3) -> list[Any]:
        values: list[Any] = []
        values.extend([Growing(values, more), *[0] * (length - 1)])
        return values

    calls: list[Callable[[], Any]] = [
        lambda: fastbp.tensor(changing()),
        lambda: fastbp.tensor(changing(), dtype=fastbp.float64),
        lambda: fastbp.tensor([changing(), [0, 0, 0]]),
        lambda: ones(1, 1, 1).permute(changing()),
        lambda: ones(1, 1, 1).expand(changing()),
        lambda: ones(1, 1, 1).reshape(changing()),
        lambda: fastbp.zeros(changing()),
        lambda: ones(3).roll(changing(), (0, 0, 0)),
        lambda: ones(3, 1, 1).sum(changing()),
        lambda: ones(3)[changing()],
        lambda: _core._apply("permute", [ones(1, 1, 1)], {"axes": changing()}),
        lambda: _core._apply("reshape", [ones(1, 1, 1)], {"shape": changing()}),
    ]
    for call in calls:
        with contextlib.suppress(ValueError, RuntimeError, IndexError, TypeError):
            call()


def test_numbers_are_taken_for_what_they_are() -> None:
    far = Integer(10**6)
    for call in (
        lambda: ones(3)[far],
        lambda: ones(3, 3)[0, far],
        lambda: ones(3).select(0, far),
        lambda: ones(3).narrow(0, far, 1),
        lambda: ones(3).narrow(0, 0, far),
        lambda: ones(3).split([far]),
        lambda: ones(3).topk(far),
        lambda: ones(3).sum(far),
        lambda: ones(3).diagonal(far),
        lambda: ones(3).__setitem__(far, 1.0),
    ):
        with pytest.raises((IndexError, RuntimeError)):
            call()


class Swapping:
    """An operand that gives the other one another memory before it is a number."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def __float__(self) -> float:
        self.target.data = fastbp.zeros(5)
        return 2.0


def test_an_operand_that_changes_the_other() -> None:
    x = ones(100_000)
    x.mul_(Swapping(x))
    assert x.tolist() == [0.0] * 5
    y = ones(100_000)
    with pytest.raises((RuntimeError, IndexError)):
        y[50_000] = Swapping(y)


class Endless:
    """A sequence that says that it has two items and gives one for every number."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> float:
        return 1.0


def test_a_sequence_that_never_ends_is_as_long_as_it_says() -> None:
    assert fastbp.tensor(Endless()).tolist() == [1.0, 1.0]


def test_lists_that_hold_themselves() -> None:
    loop: list[Any] = []
    loop.append(loop)
    calls = (lambda: fastbp.tensor(loop), lambda: fastbp.as_tensor(loop), lambda: ones(2)[loop], lambda: ones(2) + loop)
    for call in calls:
        with pytest.raises((ValueError, TypeError, RuntimeError, IndexError, RecursionError)):
            call()


class Raising:
    """An object all of whose protocols fail."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __len__(self) -> int:
        raise OverflowError

    def __getitem__(self, key: object) -> Any:
        raise MemoryError

    def __index__(self) -> int:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise ZeroDivisionError


def test_objects_whose_protocols_fail_pass_their_exceptions_on() -> None:
    for call in (
        lambda: fastbp.tensor(Raising()),
        lambda: fastbp.tensor([Raising()]),
        lambda: fastbp.zeros(Raising()),
        lambda: ones(2) + Raising(),
        lambda: ones(2)[Raising()],
        lambda: ones(2).sum(Raising()),
        lambda: ones(2).fill_(Raising()),
        lambda: ones(2).reshape(Raising()),
    ):
        with pytest.raises((KeyError, OverflowError, MemoryError, ZeroDivisionError, TypeError, RuntimeError)):
            call()


# ---- context managers out of order, internal doors ------------------------------------------------------------------


def test_context_managers_that_were_not_entered() -> None:
    threads = fastbp.get_num_threads()
    for make in (
        _core.keep_values,
        _core.recording,
        _core.paused_capture,
        _core.recomputed_region,
        lambda: _core.vmap_level(2, "same"),
        lambda: _core.threads(1),
        fastbp.no_grad,
        lambda: fastbp.set_grad_enabled(True),
        _core.Capture,
    ):
        manager = make()
        for _ in range(2):
            with contextlib.suppress(TypeError, AttributeError, IndexError, RuntimeError):
                manager.__exit__(None, None, None)
    assert fastbp.get_num_threads() == threads and fastbp.is_grad_enabled() and _core.vmap_depth() == 0
    assert (ones(2) * 2).tolist() == [2.0, 2.0]


def test_a_capture_that_has_not_begun_holds_no_program() -> None:
    capture = _core.Capture()
    for call in (
        lambda: capture.records(),
        lambda: capture.gradients(),
        lambda: capture.argument(ones(1)),
        lambda: capture.value_of(ones(1)),
        lambda: capture.differentiate([ones(1)], [ones(1)]),
        lambda: _core.make_plan(capture, None, [ones(1)]),
        lambda: _core._captured_costs(capture),
    ):
        with pytest.raises(RuntimeError, match="no program"):
            call()


def test_internal_functions_look_at_their_arguments() -> None:
    x = ones(2)
    for call in (
        lambda: _core.forward_gradient([1.5], [x], [x]),
        lambda: _core.forward_gradient([x], [None], [x]),
        lambda: _core.leave_point([None]),
        lambda: _core.reaches_others([1.5], [x]),
        lambda: _core.reaches_others([x], [None]),
        lambda: _core.forget_graph([None], 0, None),
        lambda: _core.Guards([1.5], [], [], 0),
        lambda: _core.Guards([], [None], [], 0),
        lambda: _core.Guards([], [], [x], 0),
        lambda: _core.Variable(1.5, None, "a"),
        lambda: _core.Variable(1.5, "k", "a"),
        lambda: _core.ClassGuard(1.5, []),
        lambda: _core.StateSnapshot(1.5),
        lambda: _core.sgd_step([x], [1.5], None, [], 0.1),
        lambda: _core.sgd_step([x], [x], [x], [None], 0.1),
        lambda: _core.adam_step([x], [x], [x], [None], None, [{"step": 1}], 0.1, 0.9, 0.9, 1e-8),
        lambda: _core.adam_step([x], [x], [x], [x], None, [None], 0.1, 0.9, 0.9, 1e-8),
        lambda: _core._recorded_graph([None]),
        lambda: _core.needs_eager_run([None]),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        _core.sgd_step([x], [x], [x], [], 0.1)
    with pytest.raises(ValueError):
        _core._apply("leaky_relu", [x], {"p": (1.0,) * 50})
    with pytest.raises(ValueError):
        _core.GraphRecord((ones(2).requires_grad_() * 2).sum()).revive(1, [x] * 50)
    for name, inputs in (("add", [x]), ("matmul", [x]), ("neg", []), ("linear", [x, None]), ("cat", [])):
        with pytest.raises(ValueError, match="missing"):
            _core._apply(name, inputs)
    for step, count in ((2**62, 5), (1, -1), (-(2**62), 3)):
        with pytest.raises(IndexError, match="out of bounds"):
            _core._apply("slice", [x], {"start": (0,), "step": (step,), "count": (count,), "size": (2,)})
    assert _core.unbatch(x, 0) == (x, False) or _core.unbatch(x, 0)[0] is x


def test_an_optimizer_whose_groups_were_replaced_by_something_else() -> None:
    for name, wrong in (("param_groups", ()), ("param_groups", 5), ("state", 5), ("state", [])):
        weight = nn.Parameter(ones(2))
        optimizer = optim.Adam([weight], lr=0.1)

        @fastbp.compile
        def step(weight: Any = weight, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            (weight * weight).sum().backward()
            optimizer.step()

        step()
        step()
        setattr(optimizer, name, wrong)
        with pytest.raises((TypeError, AttributeError, IndexError, KeyError, RuntimeError, ValueError)):
            step()
            optimizer.step()
            raise RuntimeError("it may also work")


def test_the_buffer_of_a_tensor_keeps_its_memory() -> None:
    x = ones(1000)
    view = memoryview(x)
    x.data = fastbp.zeros(3)
    del x
    assert view[999] == 1.0 and np.asarray(view).sum() == 1000.0


# ---- the list of what is not checked --------------------------------------------------------------------------------

SWITCH = re.compile(r"^\s*@cython\.(boundscheck|wraparound|nonecheck|cdivision|initializedcheck)\((\w+)\)")
DEFINITION = re.compile(r"^\s*(?:cdef|cpdef|def)\s[^(]*?(\w+)\(")


def unchecked() -> Iterator[tuple[str, str]]:
    """(function, switch) for each decorator in the sources that turns a check off."""
    for path in sorted(SOURCES.glob("*.pxi")):
        if path.name.startswith("generated_"):
            continue
        text = path.read_text()
        assert "cython: boundscheck" not in text and "cython.boundscheck(False):" not in text, path
        pending: list[str] = []
        for line in text.splitlines():
            if switch := SWITCH.match(line):
                pending.append(switch[1])
            elif pending and (definition := DEFINITION.match(line)):
                yield from ((definition[1], one) for one in pending)
                pending = []


def test_the_list_of_functions_without_checks_is_that_of_the_sources() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
    }
    listed, directives = values["UNCHECKED"], values["CYTHON_DIRECTIVES"]
    assert {name for name, _ in unchecked()} == set(listed)
    assert all(isinstance(reason, str) and len(reason) > 20 for reason in listed.values())
    assert directives["boundscheck"] and directives["wraparound"] and directives["nonecheck"]
    assert not directives["cdivision"]
