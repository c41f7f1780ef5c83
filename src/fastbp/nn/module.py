"""Module: the base class of all layers and models.

Parameters, buffers and child modules are ordinary attributes, kept in the instance's ``__dict__``: reading
``self.weight`` is a plain attribute look-up. A module remembers besides only which attribute names are of which kind
(`_parameter_names`, `_buffer_names`, `_module_names`), so that the two can never disagree.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor
from .hooks import ModuleHooks, RemovableHandle, call_with_hooks
from .parameter import Parameter
from .state import IncompatibleKeys, load_state, state_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

# While fastbp.compile captures a function, it wants to know of the modules that are called, read as containers or about
# to be changed; with True as a second argument, of those that are made.
_watchers: list[Callable[..., None]] = []
_world_moved = _core.world_moved  # plans look at modules again before they run


class Module:
    """Base class of layers and models: assign parameters and modules to attributes and define ``forward``.

    Attributes
    ----------
    training : bool
        True after `train()` (and at first), False after `eval()`; read by layers such as Dropout.

    Examples
    --------
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(4, 8)
    ...         self.output = nn.Linear(8, 1)
    ...
    ...     def forward(self, x):
    ...         return self.output(self.hidden(x).tanh())
    >>> Net()(fastbp.zeros(3, 4)).shape
    fastbp.Size([3, 1])
    """

    # Class-level, so that the check in __call__ needs no instance attribute; set by the first hook's registration.
    _hooks: ModuleHooks | None = None
    # Whether calling the module is calling its forward, so that a container may do the latter at once: no hook is
    # registered and the class has no __call__ of its own.
    _calls_forward: bool = True
    training: bool
    # Attribute names of each kind in order of registration; a buffer's value is its persistence, the others' None.
    _parameter_names: dict[str, None]
    _buffer_names: dict[str, bool]
    _module_names: dict[str, None]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            cls._calls_forward = False

    def __init__(self) -> None:
        # Past __setattr__, which reads them.
        set_plain = object.__setattr__
        set_plain(self, "_parameter_names", {})
        set_plain(self, "_buffer_names", {})
        set_plain(self, "_module_names", {})
        set_plain(self, "training", True)
        for watch in _watchers:
            watch(self, True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's output; every subclass defines it.

        Raises
        ------
        NotImplementedError
            When the subclass does not.
        """
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for watch in _watchers:
            watch(self)
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return call_with_hooks(self, self._hooks, args, kwargs)

    # ------------------------------------------------------------------------------------------- registration

    @property
    def _parameters(self) -> Mapping[str, Parameter | None]:
        """The parameters by name, as PyTorch shows them; read-only, for writing use setattr."""
        return self._registered(self._parameter_names)

    @property
    def _buffers(self) -> Mapping[str, Tensor | None]:
        """The buffers by name; read-only."""
        return self._registered(self._buffer_names)

    @property
    def _modules(self) -> Mapping[str, Module | None]:
        """The child modules by name; read-only."""
        return self._registered(self._module_names)

    def _registered(self, names: dict[str, Any]) -> Mapping[str, Any]:
        for watch in _watchers:
            watch(self)
        # A proxy, so that a write, which would be lost, raises instead.
        attributes = self.__dict__
        return MappingProxyType({name: attributes[name] for name in names})

    if TYPE_CHECKING:
        # Parameters, buffers and children are set at run time; `model[0].weight` may be any of them.
        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None:
        for watch in _watchers:
            watch(self)
        if isinstance(value, Parameter):
            self._require_initialised("parameters")
            self._forget(name, self._parameter_names)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._require_initialised("module")
            self._forget(name, self._module_names)
            self.register_module(name, value)
        elif "_parameter_names" not in self.__dict__:
            object.__setattr__(self, name, value)
            _world_moved()
        else:
            # A name that is taken keeps its kind: only None or a value of that kind may replace it.
            if value is not None:
                if name in self._parameter_names:
                    raise TypeError(
                        f"cannot assign '{type(value).__name__}' as parameter '{name}' (nn.Parameter or None expected)"
                    )
                if name in self._module_names:
                    raise TypeError(
                        f"cannot assign '{type(value).__name__}' as child module '{name}' (nn.Module or None expected)"
                    )
                if name in self._buffer_names and not isinstance(value, Tensor):
                    raise TypeError(
                        f"cannot assign '{type(value).__name__}' as buffer '{name}' (Tensor or None expected)"
                    )
            object.__setattr__(self, name, value)
            _world_moved()

    def __delattr__(self, name: str) -> None:
        for watch in _watchers:
            watch(self)
        object.__delattr__(self, name)
        for names in self._registries():
            names.pop(name, None)
        _world_moved()

    def _registries(self) -> tuple[dict[str, Any], ...]:
        return self._parameter_names, self._buffer_names, self._module_names

    def _require_initialised(self, what: str) -> None:
        if "_parameter_names" not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")

    def _forget(self, name: str, unless_in: dict[str, Any]) -> None:
        """Free an attribute name for another kind of value; a name already in `unless_in` stays."""
        if name in unless_in:
            return
        self.__dict__.pop(name, None)
        for names in self._registries():
            names.pop(name, None)

    def _check_name(self, kind: str, name: str, names: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in names and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under an attribute name; None reserves the name.

        Raises
        ------
        AttributeError
            Before ``super().__init__()`` was called.
        KeyError
            When the name is empty, has a dot or belongs to another attribute.
        TypeError
            When `param` is not a `Parameter` or None.
        """
        self._require_initialised("parameters")
        self._check_name("parameter", name, self._parameter_names)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        for watch in _watchers:
            watch(self)
        self._parameter_names[name] = None
        object.__setattr__(self, name, param)
        _world_moved()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the module's state but is not trained, such as a running mean.

        Parameters
        ----------
        name : str
            The attribute's name.
        tensor : Tensor or None
            The buffer; None reserves the name and is left out of `state_dict`.
        persistent : bool, optional
            Whether `state_dict` includes it. Default: True.

        Raises
        ------
        AttributeError, KeyError, TypeError
            As `register_parameter`.
        """
        self._require_initialised("buffer")
        self._check_name("buffer", name, self._buffer_names)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (Tensor or None required)"
            )
        for watch in _watchers:
            watch(self)
        self._buffer_names[name] = persistent
        object.__setattr__(self, name, tensor)
        _world_moved()

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a child module under an attribute name; raises as `register_parameter`."""
        self._require_initialised("module")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, self._module_names)
        for watch in _watchers:
            watch(self)
        self._module_names[name] = None
        object.__setattr__(self, name, module)
        _world_moved()

    add_module = register_module

    # ------------------------------------------------------------------------------------------- walking

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) of the direct children, each module once."""
        for watch in _watchers:
            watch(self)
        seen = set()
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct children, each once."""
        for _, module in self.named_children():
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) of this module and all below it, parents first.

        Parameters
        ----------
        memo : set of Module, optional
            Modules to leave out; those met are added.
        prefix : str, optional
            Put before each name. Default: empty.
        remove_duplicate : bool, optional
            Whether a module used twice is met once. Default: True.
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        for watch in _watchers:
            watch(self)
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def _named_tensors(
        self, kind: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        for watch in _watchers:
            watch(self)
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        seen = set()
        for path, module in modules:
            for name in getattr(module, kind):
                tensor = module.__dict__[name]
                if tensor is None or id(tensor) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(tensor))
                yield f"{path}.{name}" if path else name, tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter); with ``recurse=False`` only this module's own."""
        return self._named_tensors("_parameter_names", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once; what an optimizer is made from."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer); with ``recurse=False`` only this module's own."""
        return self._named_tensors("_buffer_names", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module with the dotted name `target` ("" is this one); raises AttributeError where there is none."""
        for watch in _watchers:
            watch(self)
        module = self
        for name in target.split(".") if target else ():
            if name not in module._module_names:
                raise AttributeError(f"{module._get_name()} has no child module `{name}`")
            module = module.__dict__[name]
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with the dotted name `target`; raises AttributeError where there is none."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module._parameter_names:
            raise AttributeError(f"{module._get_name()} has no parameter `{name}`")
        parameter: Parameter = module.__dict__[name]
        return parameter

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with the dotted name `target`; raises AttributeError where there is none."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module._buffer_names:
            raise AttributeError(f"{module._get_name()} has no buffer `{name}`")
        buffer: Tensor = module.__dict__[name]
        return buffer

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call `fn` on every module below and then on this one (for initialising weights); return self."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ------------------------------------------------------------------------------------------- state

    def state_dict(
        self, destination: dict[str, Tensor] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Tensor]:
        """The parameters and persistent buffers by dotted name; they share memory with the module.

        Parameters
        ----------
        destination : dict, optional
            Filled and returned; by default a new dictionary.
        prefix : str, optional
            Put before each name. Default: empty.
        keep_vars : bool, optional
            Whether the tensors stay attached to the graph. Default: False.
        """
        for watch in _watchers:
            watch(self)
        destination = {} if destination is None else destination
        for name, owner, attribute in state_places(self, prefix):
            tensor = owner.__dict__[attribute]
            destination[name] = tensor if keep_vars else tensor.detach()
        return destination

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy parameters and buffers from `state_dict` into the module; all of them or, on an error, none.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or array
            As from `state_dict`; NumPy arrays and what NumPy can read, such as PyTorch's CPU tensors, are taken too.
        strict : bool, optional
            Whether a missing or unexpected name is an error. Default: True.
        assign : bool, optional
            Whether to take over the given tensors, keeping their dtype, instead of copying. Default: False.

        Returns
        -------
        named tuple
            ``missing_keys`` and ``unexpected_keys``, lists of names.

        Raises
        ------
        RuntimeError
            When shapes differ or, with `strict`, names do; the module is as before.
        """
        return load_state(self, state_dict, strict, assign)

    # ------------------------------------------------------------------------------------------- mode and dtype

    def train(self, mode: bool = True) -> Module:
        """Set this module and all below to training (or, with False, evaluation) behaviour; return self."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Module:
        """Set this module and all below to evaluation behaviour; return self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Set whether all parameters require a gradient (False freezes the module); return self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the parameters' gradients, or with ``set_to_none=False`` fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    def to(self, *args: Any, **kwargs: Any) -> Module:
        """Convert floating-point parameters and buffers to a dtype, in place; return self.

        Takes what `Tensor.to` takes: a dtype, a device (only the CPU exists), a tensor whose dtype is meant, or a
        device and a dtype. Parameters keep their identity, so an optimizer made before stays valid.
        """
        # One conversion of an empty tensor checks the arguments before anything changes.
        probes = [_core.empty(0, dtype=dtype).to(*args, **kwargs).dtype for dtype in (_core.float32, _core.float64)]
        if probes[0] != probes[1]:
            return self  # Both dtypes came back as they were: only a device was named.
        if probes[0] not in (_core.float32, _core.float64):
            raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got desired dtype={probes[0]}")
        return self._convert(probes[0])

    def _convert(self, dtype: Any) -> Module:
        for _, tensor in [*self.named_parameters(), *self.named_buffers()]:
            if tensor.is_floating_point() and tensor.dtype != dtype:
                gradient = tensor.grad
                tensor.grad = None
                tensor.data = tensor.detach().to(dtype)
                if gradient is not None:
                    tensor.grad = gradient.detach().to(dtype)
        return self

    def float(self) -> Module:
        """Convert floating-point parameters and buffers to float32; return self."""
        return self._convert(_core.float32)

    def double(self) -> Module:
        """Convert floating-point parameters and buffers to float64; return self."""
        return self._convert(_core.float64)

    def cpu(self) -> Module:
        """Return self: the CPU is the only device."""
        return self

    # ------------------------------------------------------------------------------------------- hooks

    def _own_hooks(self) -> ModuleHooks:
        for watch in _watchers:
            watch(self)
        hooks = self._hooks
        if hooks is None:
            hooks = ModuleHooks()
            object.__setattr__(self, "_hooks", hooks)
            object.__setattr__(self, "_calls_forward", False)
        return hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Run ``hook(module, args)`` before each forward; what it returns other than None replaces the arguments.

        With `with_kwargs` it is ``hook(module, args, kwargs)`` and may return (args, kwargs); with `prepend` it runs
        before the hooks already registered.
        """
        return ModuleHooks.add(self._own_hooks().forward_pre, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Run ``hook(module, args, output)`` after each forward; what it returns other than None replaces the output.

        With `with_kwargs` it is ``hook(module, args, kwargs, output)``; with `always_call` it runs, with None as the
        output, even if the forward raised.
        """
        return ModuleHooks.add(self._own_hooks().forward, (hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Run ``hook(module, grad_input, grad_output)`` when the gradients by the module's inputs are known.

        Both are tuples with one entry per positional input and per output, None for what is not a tensor that
        requires a gradient. Of a module with one such input the hook may return a new ``grad_input``.
        """
        return ModuleHooks.add(self._own_hooks().full_backward, hook, prepend)

    # ------------------------------------------------------------------------------------------- printing

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What `repr` shows in the parentheses; subclasses may define it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [f"({name}): {_indent(repr(self.__dict__[name]))}" for name in self._module_names]
        return format_module(self._get_name(), extra_lines, child_lines)


def format_module(name: str, extra_lines: list[str], child_lines: list[str]) -> str:
    """The text of a module: on one line if it has no children and one line of its own, else one line for each."""
    if not child_lines and len(extra_lines) <= 1:
        return f"{name}({''.join(extra_lines)})"
    return f"{name}(\n  " + "\n  ".join(extra_lines + child_lines) + "\n)"


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")
