"""Optimizer: parameter groups, state and their saved form; what SGD, Adam and AdamW share.

A step is one call into the core for each parameter group. The lists that the call takes are gathered once and kept
in a `Bucket`; each step only reads the gradients and checks that parameters and state are still the same.
"""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from functools import wraps
from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class Bucket:
    """The parameters of one group that have a gradient, with the lists which its core call takes.

    Attributes
    ----------
    params : list of Tensor
        The parameters.
    states : list of dict
        Their entries in ``optimizer.state``; none where the optimizer keeps no state.
    names : tuple of str
        Names of the state tensors, in the order of the core call.
    buffers : tuple of list
        The state tensors by name, a list over the parameters each. They may be in no entry yet.
    steps : list of int
        In a captured function: how many steps each parameter has done before this one.
    options : dict
        In a captured function: the options that the function itself has set before the step.
    """

    __slots__ = ("buffers", "names", "options", "params", "states", "steps")

    def __init__(
        self, params: list[Tensor], states: list[dict[str, Any]], names: tuple[str, ...], buffers: tuple[Any, ...]
    ) -> None:
        self.params = params
        self.states = states
        self.names = names
        self.buffers = buffers
        self.steps: list[int] = []
        self.options: dict[str, Any] = {}

    def enter(self, counted: bool) -> None:
        """Leave the state as the step does, while it is captured: tensors in their entries, counts one further."""
        self.steps = [
            _core.steps_done(state["step"]) if counted else int(state.get(self.names[0]) is not None)
            for state in self.states
        ]
        for i, state in enumerate(self.states):
            if counted:  # a number may be symbolic, and stays so
                state["step"] = (self.steps[i] if isinstance(state["step"], Tensor) else state["step"]) + 1
            for name, buffers in zip(self.names, self.buffers, strict=True):
                state[name] = buffers[i]


class _Gathered:
    """The bucket of one group, and the truth of the option with which it was made."""

    __slots__ = ("bucket", "layout")

    def __init__(self, layout: bool, bucket: Bucket) -> None:
        self.layout = layout
        self.bucket = bucket


class Optimizer:
    """Base class of all optimizers.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor) or of dict
        What to optimize. Dictionaries define groups: "params" holds the tensors, other keys that group's options.
    defaults : dict
        The options for groups that do not set them.

    Attributes
    ----------
    param_groups : list of dict
        The groups; options such as "lr" may be changed between steps.
    state : dict
        From a parameter to its state, a dict with tensors such as a momentum buffer. All of it may be edited between
        steps: what is there is used, and what is missing starts anew.
    defaults : dict
        As given.

    Raises
    ------
    TypeError
        When `params` is a tensor or holds something that is not one.
    ValueError
        When it is empty, or a parameter is not a leaf or occurs in two groups.
    """

    # The option upon whose truth the buckets' lists depend.
    _layout_option = "lr"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "step" in vars(cls):
            cls.step = _noted(vars(cls)["step"])  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}"
            )
        self.defaults = defaults
        self.state = defaultdict(dict)
        self.param_groups = []
        self._gathered: dict[int, _Gathered] = {}
        self._snapshot: Any = None  # of the state that the buckets hold
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # Groups and state lie in __dict__ under their names. A function that is captured finds symbolic numbers in them,
    # which a plan reads at each call.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups; options such as "lr" may be changed between steps."""
        if _core.capturing():
            _core.note_optimizer(self, False)
        return self.__dict__["param_groups"]  # type: ignore[no-any-return]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if _core.capturing() and "param_groups" in self.__dict__:
            _core.note_optimizer(self, False)
        self.__dict__["param_groups"] = groups

    @property
    def state(self) -> defaultdict[Tensor, dict[str, Any]]:
        """From a parameter to its state."""
        if _core.capturing():
            _core.note_optimizer(self, True)
        return self.__dict__["state"]  # type: ignore[no-any-return]

    @state.setter
    def state(self, state: defaultdict[Tensor, dict[str, Any]]) -> None:
        if _core.capturing() and "state" in self.__dict__:
            _core.note_optimizer(self, True)
        self.__dict__["state"] = state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, a dictionary with "params" and any options; for parameters that are thawed during training.

        Raises
        ------
        TypeError, ValueError
            As the constructor; the groups are as before.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, "
                "but the ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and isinstance(params[0], tuple):
            group["param_names"] = [name for name, _ in params]
            params = [parameter for _, parameter in params]
        for parameter in params:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(parameter).__name__}"
                )
            if not parameter.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        known = {id(parameter) for other in self.param_groups for parameter in other["params"]}
        if any(id(parameter) in known for parameter in params):
            raise ValueError("some parameters appear in more than one parameter group")
        if len({id(parameter) for parameter in params}) != len(params):
            raise ValueError("optimizer contains a parameter group with duplicate parameters")
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        group["params"] = params
        self._check_options(group)
        self.param_groups.append(group)

    def _check_options(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options outside their domain; for subclasses."""

    # ------------------------------------------------------------------------------------------- stepping

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew and returns the loss; called first, with gradients enabled.

        Returns
        -------
        The closure's result, None without one.
        """
        loss = None
        if closure is not None:
            with _core.enable_grad():
                loss = closure()
        capture = _core.current_capture() if _core.capturing() else None
        if capture is not None:
            self._capture_step(capture)
            return loss
        snapshot = self._snapshot
        if snapshot is None or not snapshot.holds(self.__dict__["state"]):
            self._gathered.clear()
            self._snapshot = None
        for group in self.__dict__["param_groups"]:
            params, gradients = _core.with_gradients(group["params"])
            if not params:
                continue
            gathered = self._gathered.get(id(group))
            layout = bool(group[self._layout_option])
            if (
                gathered is None
                or gathered.layout is not layout
                or not _core.are_same_objects(gathered.bucket.params, params)
            ):
                gathered = _Gathered(layout, self._gather(group, params))
                self._gathered[id(group)] = gathered
                self._snapshot = None
            self._update(group, gathered.bucket, gradients)
        if self._snapshot is None:
            self._snapshot = _core.StateSnapshot(self.__dict__["state"])
        return loss

    def _capture_step(self, capture: Any) -> None:
        """Write the step into a captured function; state is made for real, and put back at the end of the capture."""
        self._require_own_update()
        capture.open_optimizer(self)
        for number, group in enumerate(self.__dict__["param_groups"]):
            params, gradients = _core.with_gradients(group["params"])
            if params:
                with _core.paused_capture():
                    bucket = self._gather(group, params)
                self._capture_update(capture, number, bucket, gradients)

    def _require_own_update(self) -> None:
        """Raise NotImplementedError where a subclass has an `_update` but not its compiled form, `_capture_update`."""
        for one in type(self).__mro__:
            if "_capture_update" in vars(one):
                return
            if "_update" in vars(one):
                raise NotImplementedError(
                    f"compile: {type(self).__name__} has an update of its own, which has no compiled form; "
                    "call its step() outside of the compiled function"
                )

    def _capture_update(self, capture: Any, number: int, bucket: Bucket, gradients: list[Tensor]) -> None:
        """Enter the core call of `_update` for group `number` into a captured step; for subclasses."""
        raise NotImplementedError(
            f"compile: {type(self).__name__} has no compiled update; call its step() outside of the compiled function"
        )

    def _gather(self, group: dict[str, Any], params: list[Tensor]) -> Bucket:
        """Create missing state, and gather what one core call for `params` takes; for subclasses."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no update: override step(), or _gather() and _update()"
        )

    def _update(self, group: dict[str, Any], bucket: Bucket, gradients: list[Tensor]) -> None:
        """Do the core call for one bucket, with the group's options as they are now; for subclasses."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the parameters' gradients, or with ``set_to_none=False`` fill them with zeros."""
        for group in self.__dict__["param_groups"]:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.detach_().zero_()

    # ------------------------------------------------------------------------------------------- saving

    def state_dict(self) -> dict[str, Any]:
        """State and options as PyTorch lays them out.

        Returns
        -------
        dict
            "state" maps a parameter's number (counted through all groups) to its state, whose tensors share memory
            with the optimizer's; "param_groups" lists the groups with numbers in place of the parameters.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                numbers[id(parameter)] = len(numbers)
            options = {name: value for name, value in group.items() if name != "params"}
            groups.append({**options, "params": [numbers[id(parameter)] for parameter in group["params"]]})
        state = {
            numbers[id(parameter)]: {name: _saved(name, value) for name, value in entry.items()}
            for parameter, entry in self.state.items()
            if id(parameter) in numbers
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a copy of what `state_dict` returned, here or in PyTorch.

        Raises
        ------
        ValueError
            When the groups differ in number or size; the optimizer is as before.
        RuntimeError
            When the shape of a state tensor is not its parameter's; the optimizer is as before.
        """
        saved_groups = state_dict["param_groups"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(saved_groups, self.param_groups, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )

        parameter_of: dict[Any, Tensor] = {}
        groups = []
        for saved, group in zip(saved_groups, self.param_groups, strict=True):
            parameter_of.update(zip(saved["params"], group["params"], strict=True))
            loaded = {name: deepcopy(value) for name, value in saved.items() if name != "params"}
            loaded = {**{name: value for name, value in self.defaults.items() if name not in loaded}, **loaded}
            groups.append({**loaded, "params": group["params"]})
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for number, entry in state_dict["state"].items():
            parameter = parameter_of.get(number)
            if parameter is None:
                raise ValueError(f"loaded state dict has state for parameter {number}, which no group contains")
            state[parameter] = {name: _loaded(name, value, parameter) for name, value in entry.items()}
        self.param_groups, self.state = groups, state
        self._gathered = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_gathered": {}, "_snapshot": None}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join(lines) + "\n)"


def _noted(step: Callable[..., Any]) -> Callable[..., Any]:
    """A subclass's own `step`: while a function is captured, it finds symbolic numbers in the optimizer."""

    @wraps(step)
    def noted(self: Optimizer, *args: Any, **options: Any) -> Any:
        if _core.capturing():
            _core.note_optimizer(self, False)
        return step(self, *args, **options)

    return noted


def require_at_least_zero(name: str, value: float) -> None:
    """Raise ValueError where an option is negative or not a number; `name` is how the message calls it."""
    if not value >= 0.0:
        raise ValueError(f"Invalid {name}: {value}")


def refuse_differentiable(differentiable: bool) -> None:
    """Raise NotImplementedError for PyTorch's option to differentiate through the update."""
    if differentiable:
        raise NotImplementedError(
            "differentiable=True is not supported: the update changes parameters in place, outside the graph; "
            "write it with tensor operations on the result of fastbp.autograd.grad(..., create_graph=True) instead"
        )


def _saved(name: str, value: Any) -> Any:
    # The step count is a plain number here and a float32 scalar in PyTorch's files.
    return (
        _core.tensor(float(value), dtype=_core.float32) if name == "step" and not isinstance(value, Tensor) else value
    )


def _loaded(name: str, value: Any, parameter: Tensor) -> Any:
    """A copy of one saved value, a tensor in the parameter's dtype; arrays are taken too, the step is a number."""
    if name == "step":
        return int(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if not isinstance(value, Tensor):
        import numpy

        value = _core.from_numpy(numpy.array(value, order="C"))
    if tuple(value.shape) != tuple(parameter.shape):
        raise RuntimeError(
            f"loaded {name} has shape {tuple(value.shape)}, but its parameter has {tuple(parameter.shape)}"
        )
    return value.detach().to(parameter.dtype).clone()
