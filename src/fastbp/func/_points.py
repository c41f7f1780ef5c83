"""What all derivatives of functions share: points to differentiate at, recorded runs, results without their traces.

A function is run on *lifted* arguments: fresh tensors of the same values, connected to what the arguments were computed
from, so that a derivative taken inside of another one is told apart from it by the tensor that is asked. Nothing else
marks the nesting: what was recorded is one graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor
from .._tree import LEAF, flatten, is_container, ordered_as, parts, unflatten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Argnums = int | tuple[int, ...]


def as_tensor(value: Any, what: str, error: type[Exception] = RuntimeError) -> Tensor:
    """A tensor or NumPy array as a tensor; `error` for anything else."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "__array_interface__"):
        return _core.as_tensor(value)
    raise error(f"{what} must be Tensors, got {type(value).__name__}")


def flatten_tensors(value: Any, what: str, error: type[Exception] = RuntimeError) -> tuple[Any, list[Tensor]]:
    """Structure and tensors of a value that holds tensors alone, one at least; `error` for other things."""
    if isinstance(value, Tensor):  # as most are
        return LEAF, [value]
    leaves: list[Any] = []
    structure = flatten(value, leaves)
    _refuse_others(structure, what, error)
    if not leaves:
        raise RuntimeError(f"{what}: expected at least one Tensor, got {value!r}")
    return structure, [as_tensor(one, what, error) for one in leaves]


def flatten_directions(value: Any, what: str, wanted: Any, like: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """The same of tangents or cotangents for `like`, which have the structure `wanted`: in the order of those.  NumPy's
    integers become the dtype they are for: SciPy asks linear operators for their dtype by a vector of int8."""
    if isinstance(value, Tensor):
        return LEAF, [value]
    leaves: list[Any] = []
    structure = flatten(ordered_as(value, wanted), leaves)
    if len(leaves) == len(like):
        pairs = zip(leaves, like, strict=True)
        leaves = [_core.as_tensor(one.astype(float)).to(x.dtype) if _is_integers(one) else one for one, x in pairs]
    return flatten_tensors(unflatten(structure, iter(leaves)), what)


def _is_integers(value: Any) -> bool:
    """Whether a leaf is a NumPy array of integers or bools."""
    return not isinstance(value, Tensor) and getattr(getattr(value, "dtype", None), "kind", "") in tuple("iub")


def _refuse_others(structure: Any, what: str, error: type[Exception]) -> None:
    if structure is LEAF:
        return
    if not is_container(structure):
        raise error(f"{what}: expected Tensors in lists, tuples and dicts, got {type(structure).__name__}")
    for one in parts(structure):
        _refuse_others(one, what, error)


def check_float(tensors: Sequence[Tensor], what: str) -> None:
    """RuntimeError unless all can be differentiated."""
    for one in tensors:
        if not one.is_floating_point():
            raise RuntimeError(f"{what}: only Tensors of floating point dtype can be differentiated, got {one.dtype!r}")


def check_argnums(argnums: Argnums, count: int, name: str) -> tuple[int, ...]:
    """Places of arguments, counted from the front."""
    given = argnums if isinstance(argnums, tuple) else (argnums,)
    if not given or any(isinstance(one, bool) or not isinstance(one, int) for one in given):
        raise RuntimeError(f"{name}: argnums must be an int or a non-empty tuple of ints, got {argnums!r}")
    places = tuple(one + count if one < 0 else one for one in given)
    for one, place in zip(given, places, strict=True):
        if not 0 <= place < count:
            raise RuntimeError(f"{name}: got argnum={one}, but only {count} positional inputs")
    if len(set(places)) != len(places):
        raise RuntimeError(f"{name}: argnums elements must be unique, got {argnums!r}")
    return places


FORWARD = ("jvp", "linearize", "jacfwd")


class Point:
    """Arguments of a function, of which some are lifted.

    Attributes
    ----------
    arguments : list
        To call the function with.
    leaves : list of Tensor
        The lifted tensors, in order.
    structures : list
        Structure of each differentiated argument.
    """

    def __init__(self, args: Sequence[Any], places: Sequence[int], name: str) -> None:
        self.arguments = list(args)
        self.leaves: list[Tensor] = []
        self.structures = []
        for place in places:
            error = RuntimeError if name in FORWARD else ValueError  # as PyTorch's
            structure, tensors = flatten_tensors(args[place], f"{name}: argument {place}", error)
            check_float(tensors, f"{name}: argument {place}")
            lifted = [_core.lift(one) for one in tensors]
            self.structures.append(structure)
            self.leaves += lifted
            self.arguments[place] = unflatten(structure, iter(lifted))

    def rebuild(self, tensors: Sequence[Any], single: bool) -> Any:
        """One entry a leaf in the structure of the differentiated arguments; of the only one when `single`."""
        rest = iter(tensors)
        results = tuple(unflatten(structure, rest) for structure in self.structures)
        return results[0] if single else results


class Run:
    """A function's run at a point: its outputs, recorded, and what was recorded besides.

    Parameters
    ----------
    function : callable
    point : Point
    kwargs : dict
    name : str
        Of the transform, for messages.
    has_aux : bool
        The function returns a pair, of which only the first is differentiated.
    keep : bool
        Record every value, for forward mode.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        point: Point,
        kwargs: dict[str, Any],
        name: str,
        has_aux: bool = False,
        keep: bool = False,
    ) -> None:
        enabled = _core.is_grad_enabled()
        try:
            with _core.recording(keep):
                value = function(*point.arguments, **kwargs)
        finally:
            _core.leave_point(point.leaves)
        aux = None
        if has_aux:
            if not isinstance(value, tuple) or len(value) != 2:
                raise RuntimeError(
                    f"{name}: output of the function should be a tuple: (output, aux) if has_aux is True, "
                    f"got {type(value).__name__}"
                )
            value, aux = value
        self.structure, self.outputs = flatten_tensors(value, f"{name}: the function's output")
        recorded = [one for one in self.outputs if one.requires_grad]
        self.create = bool(enabled and recorded and _core.reaches_others(recorded, point.leaves))
        self.aux = self.clean(aux)

    def is_recorded(self, *more: Sequence[Tensor]) -> bool:
        """Whether derivatives are recorded too: outputs, or tensors given besides, depend on more than the point."""
        if self.create or not _core.is_grad_enabled():
            return self.create
        return any(_core.is_recorded(one) for given in more for one in given)

    def clean(self, value: Any) -> Any:
        """Tensors in a value without what this run alone has recorded."""
        if self.create or value is None:
            return value
        if isinstance(value, Tensor):
            return _core.drop_history(value)
        leaves: list[Any] = []
        structure = flatten(value, leaves)
        return unflatten(
            structure, iter([_core.drop_history(one) if isinstance(one, Tensor) else one for one in leaves])
        )

    @property
    def value(self) -> Any:
        """What the function returned."""
        return self.clean(unflatten(self.structure, iter(self.outputs)))


def sweep(
    run: Run, outputs: Sequence[Tensor], leaves: Sequence[Tensor], cotangents: Sequence[Tensor | None], create: bool
) -> list[Tensor]:
    """Cotangents of the leaves; zeros where an output does not reach."""
    pairs = [(one, given) for one, given in zip(outputs, cotangents, strict=True) if one.requires_grad]
    if not pairs:
        return [_core.zeros_like(one).detach() for one in leaves]
    return list(
        _core.grad(
            [one for one, _ in pairs],
            list(leaves),
            [given for _, given in pairs],
            retain_graph=True,
            create_graph=create,
            materialize_grads=True,
        )
    )


def push(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor], tangents: Sequence[Tensor], create: bool
) -> list[Tensor | None]:
    """Tangents of outputs; None where no leaf reaches."""
    return list(_core.forward_gradient(outputs, leaves, tangents, create))


def check_alike(given: Sequence[Tensor], wanted: Sequence[Tensor], what: str, of: str) -> None:
    """RuntimeError unless shapes and dtypes agree one by one."""
    for one, like in zip(given, wanted, strict=True):
        if one.shape != like.shape or one.dtype is not like.dtype:
            raise RuntimeError(
                f"{what} of shape {tuple(one.shape)}, {one.dtype!r} for {of} of shape {tuple(like.shape)}, "
                f"{like.dtype!r}; "
                "they must agree"
            )
