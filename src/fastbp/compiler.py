"""fastbp.compile: a function of tensors, run once to learn what it does, and from then on as one planned call into C.

The first call with arguments of given shapes runs the function with symbolic tensors: every operation, also those of
`backward()` and of `optimizer.step()`, is written down instead of computed. The planner makes a plan of it, and this
call and all further ones run the plan. See docs/compile.md.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from typing import TYPE_CHECKING

from . import _core
from ._arguments import Containers, as_tensors, describe, key_of
from ._budget import checked_budget, warn_of_budget
from ._core import RunEagerly, Tensor
from ._guards import World, check_kept, check_objects, name_of, warn_of_variables
from ._plans import PLANS_MOST, Entries, Entry, difference
from ._tree import flatten, unflatten
from ._variables import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Plan
    from .utils.data import DataLoader

# Calls running that have no plan for one and the same reason: then the function is not compiled any more.
FAILURES_MOST = 3

# ------------------------------------------------------------------------------------------- one compiled function


def call_flat(made_of: tuple[Callable[..., Any], Any], tensors: list[Tensor]) -> list[Any]:
    """Call a function, given with the structure of its arguments, eagerly; returns the tensors of its result."""
    function, structure = made_of
    args, kwargs = unflatten(structure, iter(tensors))
    results: list[Any] = []
    flatten(function(*args, **kwargs), results)
    return results


class Compiled:
    """What `fastbp.compile` returns: call it like the function.

    Attributes
    ----------
    plan : Plan
        The plan of the latest call; `print()` it. None before the first call, and where the latest ran eagerly.
    """

    def __init__(self, function: Callable[..., Any], memory_budget: int | float | None = None) -> None:
        self._function = function
        self._memory_budget = memory_budget
        self._entries = Entries()
        self._latest: Entry | None = None
        self._warned = False
        self._warned_of_variables = False
        self._reason = ""  # why the latest call that had no plan ran eagerly
        self._eager = False  # all calls do
        self._failing = ""  # what the latest of `_calls.failures` was about
        self._bound: dict[int, Compiled] = {}  # of methods, by their instance
        self._calls = _core.CompiledCall(self)
        functools.update_wrapper(self, function if hasattr(function, "__name__") else type(function), updated=())

    # ---------------------------------------------------------------------------------------- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._calls(*args, **kwargs)

    def __reduce__(self) -> Any:
        """Copies and pickles are compiled functions of their own, without plans."""
        return (Compiled, (self._function, self._memory_budget))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """A compiled method belongs to its instance, as its plans do."""
        if instance is None:
            return self
        bound = self._bound.get(id(instance))
        if bound is None:
            bound = Compiled(_bound_method(self._function, instance, self._bound), self._memory_budget)
            bound = self._bound.setdefault(id(instance), bound)  # one for all threads
        return BoundCompiled(instance, bound)

    def __getattr__(self, name: str) -> Any:
        """What the function or module has besides: `compile(model).parameters()`."""
        if name.startswith("__") or name == "_function":
            raise AttributeError(name)
        return getattr(self._function, name)

    @property
    def plan(self) -> Plan | None:
        """The plan of the latest call."""
        latest = self._latest  # another thread may replace it
        return None if latest is None else latest.plan

    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Entry, list[Tensor]] | None:
        """The entry for these arguments, captured now where there is none, and their tensors; None: run eagerly."""
        if self._eager:
            return None
        leaves: list[Any] = []
        structure = flatten((args, kwargs), leaves)
        tensors = as_tensors(leaves)
        if _core.needs_eager_run(tensors):
            self._without_plan("hooks and attributes of an argument belong to each call")
            return None
        key = key_of(structure)
        entries = self._entries.of(key)
        for entry in entries:
            if entry.plan.fits(tensors):
                self._entries.use(key)
                self._latest = entry
                self._calls.failures = 0
                return entry, tensors
        change = self._change(entries, tensors)
        if change is not None and self._fails(change[0]):
            self._give_up(
                f"{FAILURES_MOST} calls running found another state than plans were made for ({' '.join(change)})"
            )
            return None
        try:
            entry = self._capture(key, structure, tensors)
        except RunEagerly as wish:
            if wish.forever or (change is None and self._fails("capture")):
                self._give_up(wish.reason)
            else:
                self._without_plan(wish.reason)
            return None
        if change is None:
            self._calls.failures = 0
        self._remember(entry)
        return entry, tensors

    def _fails(self, what: str) -> bool:
        """Count a call that has no plan because of this; whether it is one too many running."""
        self._calls.failures = self._calls.failures + 1 if what == self._failing else 1
        self._failing = what
        return self._calls.failures >= FAILURES_MOST

    def _change(self, entries: list[Entry], tensors: list[Tensor]) -> tuple[str, str] | None:
        """What keeps the plan that is nearest to fitting from it; None where none is for these arguments."""
        found = (entry.plan.changes(tensors) for entry in reversed(entries))
        changes = min((one for one in found if one is not None), key=len, default=[])
        return changes[0] if changes else None

    def _without_plan(self, reason: str) -> None:
        """This call runs the function itself."""
        self._reason = reason
        self._latest = None
        self._calls.drop()

    def _give_up(self, reason: str) -> None:
        """This call and all further ones run the function itself."""
        self._without_plan(reason)
        self._eager = True
        self._entries.clear()
        warnings.warn(f"compile: {name_of(self._function)} runs eagerly from now on: {reason}", stacklevel=4)

    def _run_eagerly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function itself, with tensors in place of arrays as its plans have them."""
        leaves: list[Any] = []
        structure = flatten((args, kwargs), leaves)
        if all(isinstance(one, Tensor) for one in leaves):
            return self._function(*args, **kwargs)
        tensors = as_tensors(leaves)
        own_args, own_kwargs = unflatten(structure, iter(tensors))
        given = Containers((own_args, own_kwargs))
        try:
            return self._function(*own_args, **own_kwargs)
        finally:
            given.hand_back((args, kwargs), dict(zip(map(id, tensors), leaves, strict=True)))

    def _remember(self, entry: Entry) -> None:
        dropped = self._entries.add(entry)
        self._latest = entry
        if dropped is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"compile: {name_of(self._function)} was captured for more than {PLANS_MOST} different calls, and "
                f"old plans are dropped; {difference(dropped, entry)}. Each new one costs a capture: keep shapes and "
                "static arguments few (pad the last batch, or pass numbers as tensors)",
                stacklevel=4,
            )

    def _capture(self, key: Any, structure: Any, tensors: list[Tensor]) -> Entry:
        capture = _core.Capture()
        with capture, World(self._function, capture, *unflatten(structure, iter(tensors))) as world:
            symbols = [capture.argument(one) for one in tensors]
            args, kwargs = unflatten(structure, iter(symbols))
            containers = Containers((args, kwargs))
            value = self._function(*args, **kwargs)
            containers.check()
            results: list[Any] = []
            result = flatten(value, results)
            check_objects(result)
            del value, args, kwargs, containers
            if capture.eager is not None:  # the function has caught it
                raise capture.eager
            capture.close_optimizers()
            guards = world.guards()
            check_kept(self._function, capture, [*symbols, *results])
            plan = _core.make_plan(capture, (self._function, structure), results, guards, self._memory_budget)
        if world.unwatched and not self._warned_of_variables:
            self._warned_of_variables = True
            warn_of_variables(self._function, world.unwatched)
        if not plan.budget_met:
            warn_of_budget(name_of(self._function), plan, self._memory_budget)
        arguments = [describe(one) for one in tensors]
        return Entry(key, structure, arguments, plan, result)

    # ---------------------------------------------------------------------------------------- whole passes

    def epoch(self, loader: DataLoader, *, progress: bool = False) -> Any:
        """Run over a whole pass of a DataLoader of in-memory tensors, in C.

        Parameters
        ----------
        loader : DataLoader
            Over a `TensorDataset` (or a `Subset` of one); shuffling, and a last batch that is smaller, are as when it
            is iterated. The function is called with each batch's tensors as its arguments.
        progress : bool, optional
            Show a progress bar (needs `tqdm`: ``pip install fastbp[progress]``). Default: False.

        Returns
        -------
        What the function returns, with each tensor stacked over the batches along a new first dimension; where the
        last, smaller batch has results of another shape, a list of tensors instead.

        Raises
        ------
        RuntimeError
            When the function returns tensors that require grad, without having called `backward()`.
        TypeError
            When the loader cannot be read by whole batches (its own collate_fn, sampler or data set): iterate it and
            call the compiled function.
        KeyboardInterrupt
            Between two batches: the steps that were done are done.

        Notes
        -----
        Where the function runs eagerly, writes into a batch, returns a part of it or collects gradients in it, the pass
        goes through calls, one a batch.
        """
        from ._epoch import run_epoch

        return run_epoch(self, loader, progress)

    def profile(self, *args: Any, repeat: int = 100, **kwargs: Any) -> Any:
        """Time each step of the plan for these arguments.

        Parameters
        ----------
        *args, **kwargs
            As for a call; its effects happen `repeat` times, and three times more to warm up.
        repeat : int, optional
            Calls to average over. Default: 100.

        Returns
        -------
        Profile
            Prints as a table: time, calls, flops, bytes, GFLOP/s, GB/s, and the share of the roofline, which is
            measured once on this machine. `rows` has the figures.

        Raises
        ------
        RuntimeError
            When the function runs eagerly; the message says why.
        """
        from ._profile import profile_plan

        found = self._find(args, kwargs)
        if found is None:
            raise RuntimeError(f"profile: {name_of(self._function)} has no plan, since it runs eagerly: {self._reason}")
        entry, tensors = found
        return profile_plan(entry.plan, tensors, repeat)


def _bound_method(function: Callable[..., Any], instance: Any, bound: dict[int, Compiled]) -> Callable[..., Any]:
    """The method of an instance, which it does not keep alive; its entry in `bound` goes with it."""
    try:
        reference = weakref.ref(instance)
        weakref.finalize(instance, bound.pop, id(instance), None)
    except TypeError:  # an object without weak references is kept
        return function.__get__(instance)  # type: ignore[no-any-return]
    return WeakMethod(function, reference)


class BoundCompiled:
    """A compiled method and its instance; everything else is the `Compiled`'s."""

    __slots__ = ("__self__", "_compiled")

    def __init__(self, instance: Any, compiled: Compiled) -> None:
        self.__self__ = instance
        self._compiled = compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled._calls(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)


# ------------------------------------------------------------------------------------------- the public function


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = True,
    dynamic: bool | None = None,
    backend: str = "fastbp",
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
    memory_budget: int | float | None = None,
) -> Any:
    """Compile a function of tensors, such as a whole training step, or a module.

    The first call with arguments of given shapes, dtypes and static values runs the function once with symbolic tensors
    and plans what it did; this call and further ones run the plan: one call into C, without Python's lock and without
    allocating. Parameters, optimizer state, buffers, gradients and random generators are written where eager code has
    them, so that eager code and `state_dict` always see them. Options and state of the optimizer may change between
    calls.

    What the function reads by name from modules, variables, attributes and classes is compared with the capture at each
    call; where it differs, the call captures anew. Where no plan can stand for a call, as when the function itself
    changes what is compared, the function runs eagerly; after three such calls running it does so from then on, with a
    warning. Other side effects of Python happen once, at capture.

    Parameters
    ----------
    model : callable
        Any function over tensors, NumPy arrays and static Python values, also inside lists, tuples and dicts; closures
        over modules and optimizers; a method; a Module. Without it, a decorator is returned.
    fullgraph, dynamic, backend, mode, options
        Accepted for PyTorch's sake; no effect.
    disable : bool, optional
        Return the function as it is. Default: False.
    memory_budget : int or float, optional
        The most memory that the plan may take for itself (`plan.peak_bytes`): bytes, or, as a float in (0, 1], a share
        of what it takes without a budget. Values are then given up and computed again in the backward, the cheapest
        first, until it fits; results have the same bits. For a function that is compiled with its derivative it is
        about what a call keeps for it (`plan.saved_bytes`). A budget that cannot be met warns. Default: None, nothing
        is computed twice.

    Returns
    -------
    Compiled
        Called like the function. Has `plan`, `epoch(loader)` and `profile(...)`. Computed results are new, packed
        tensors at each call; arguments, tensors from outside, views of these, and gradients are returned as such. A
        function that returns tensors that require grad, without having called `backward()`, is compiled together with
        its derivative and takes part in the eager graph; no gradient goes from one of its results to another. After
        `backward()` inside, results have no history.

    Raises
    ------
    RuntimeError
        At a call that captures, when the function asks for the value of a tensor (`item()`, `if loss > 0`); the message
        names the line.
    TypeError, ValueError
        When `memory_budget` is neither a positive int nor a float in (0, 1].

    Examples
    --------
    >>> model = fastbp.nn.Linear(3, 1)
    >>> optimizer = fastbp.optim.SGD(model.parameters(), lr=0.1)
    >>> @fastbp.compile
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = fastbp.nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = fastbp.ones(5, 3), fastbp.zeros(5, 1)
    >>> first, second = step(x, y), step(x, y)
    >>> bool(second < first)
    True
    """
    memory_budget = checked_budget(memory_budget)
    if model is None:
        return functools.partial(compile, disable=disable, memory_budget=memory_budget)
    if not callable(model):
        raise TypeError(f"compile: expected a function or a Module, got {type(model).__name__}")
    if disable:
        return model
    if isinstance(model, BoundCompiled):
        return model if memory_budget is None else Compiled(model._compiled._function, memory_budget)
    if isinstance(model, Compiled):
        return model if memory_budget is None else Compiled(model._function, memory_budget)
    return Compiled(model, memory_budget)
