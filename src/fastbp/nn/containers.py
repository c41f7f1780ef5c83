"""Containers: Sequential, ModuleList, ModuleDict and ParameterList."""

from __future__ import annotations

from operator import index as as_index
from typing import TYPE_CHECKING

from .._core import Tensor
from .module import Module, _indent, _watchers, format_module
from .parameter import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any


class _NumberedModules(Module):
    """Modules in order, the attribute names being "0", "1", ...: what Sequential and ModuleList share."""

    def _all(self) -> list[Module]:
        attributes = self.__dict__
        return [attributes[name] for name in self._module_names]

    def _replace_all(self, modules: Iterable[Module]) -> None:
        """Make `modules` the whole content, numbered from 0; checks them before anything changes."""
        modules = list(modules)
        for module in modules:
            if not isinstance(module, Module):
                raise TypeError(f"{type(module).__name__} is not a Module subclass")
        for name in list(self._module_names):
            delattr(self, name)
        for position, module in enumerate(modules):
            self.register_module(str(position), module)

    def _name_at(self, index: int) -> str:
        """The attribute name of an element, which need not be its number in a Sequential made from a dictionary."""
        names = list(self._module_names)
        position = as_index(index)
        if not -len(names) <= position < len(names):
            raise IndexError(f"index {index} is out of range")
        return names[position]

    def __len__(self) -> int:
        for watch in _watchers:
            watch(self)
        return len(self._module_names)

    def __iter__(self) -> Iterator[Module]:
        for watch in _watchers:
            watch(self)
        return iter(self._all())

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name_at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        modules = self._all()
        if not isinstance(index, slice):
            self._name_at(index)  # Raises where the index is out of range.
        del modules[index]
        self._replace_all(modules)

    def append(self, module: Module) -> _NumberedModules:
        """Add `module` at the end; return self."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _NumberedModules:
        """Add all of `modules` at the end; return self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> _NumberedModules:
        """Put `module` before position `index`; return self."""
        modules = self._all()
        modules.insert(index, module)
        self._replace_all(modules)
        return self

    def pop(self, index: int) -> Module:
        """Take out and return the module at `index`."""
        module: Module = self.__dict__[self._name_at(index)]
        del self[index]
        return module

    def __iadd__(self, other: Iterable[Module]) -> _NumberedModules:
        return self.extend(other)


class Sequential(_NumberedModules):
    """Modules applied one after the other.

    Parameters
    ----------
    *modules : Module
        In the order of application; or one dictionary from names to modules.

    Raises
    ------
    TypeError
        When an argument is not a Module.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> model[0]
    Linear(in_features=2, out_features=3, bias=True)
    >>> len(model[:2])
    2
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], dict):
            for name, module in modules[0].items():
                self.register_module(name, module)
        else:
            self._replace_all(modules)

    def forward(self, input: Any) -> Any:
        """Apply the modules in order, each to the last one's output."""
        attributes = self.__dict__
        for name in self._module_names:
            module = attributes[name]
            input = module.forward(input) if module._calls_forward else module(input)
        return input

    def __getitem__(self, index: int | slice) -> Module:
        for watch in _watchers:
            watch(self)
        if isinstance(index, slice):
            return type(self)({name: self.__dict__[name] for name in list(self._module_names)[index]})
        module: Module = self.__dict__[self._name_at(index)]
        return module

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(f"add operator supports only objects of Sequential class, but {type(other)} is given.")
        return Sequential(*self, *other)


class ModuleList(_NumberedModules):
    """A list of modules that are registered as children; its forward is for the owner to write.

    Parameters
    ----------
    modules : iterable of Module, optional
        The first content.

    Examples
    --------
    >>> layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    >>> layers
    ModuleList(
      (0-2): 3 x Linear(in_features=4, out_features=4, bias=True)
    )
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self._replace_all(modules)

    def __getitem__(self, index: int | slice) -> Module:
        for watch in _watchers:
            watch(self)
        if isinstance(index, slice):
            return type(self)(self._all()[index])
        module: Module = self.__dict__[self._name_at(index)]
        return module

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        # Neighbours that print alike are shown once, with their number.
        runs: list[list[Any]] = []  # [first, last, text]
        for position, module in enumerate(self._all()):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1][1] = position
            else:
                runs.append([position, position, text])
        if not runs:
            return f"{self._get_name()}()"
        lines = []
        for first, last, text in runs:
            if first == last:
                lines.append(f"({first}): {_indent(text)}")
            else:
                lines.append(f"({first}-{last}): {last - first + 1} x {_indent(text)}")
        return format_module(self._get_name(), [], lines)


class ModuleDict(Module):
    """A dictionary of modules that are registered as children, in order of insertion.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of pairs, optional
        The first content.

    Examples
    --------
    >>> heads = nn.ModuleDict({"policy": nn.Linear(8, 2), "value": nn.Linear(8, 1)})
    >>> heads["value"].out_features
    1
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        for watch in _watchers:
            watch(self)
        if key not in self._module_names:
            raise KeyError(key)
        module: Module = self.__dict__[key]
        return module

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        if key not in self._module_names:
            raise KeyError(key)
        delattr(self, key)

    def __len__(self) -> int:
        for watch in _watchers:
            watch(self)
        return len(self._module_names)

    def __iter__(self) -> Iterator[str]:
        for watch in _watchers:
            watch(self)
        return iter(self._module_names)

    def __contains__(self, key: str) -> bool:
        for watch in _watchers:
            watch(self)
        return key in self._module_names

    def keys(self) -> Iterable[str]:
        """The names."""
        for watch in _watchers:
            watch(self)
        return self._module_names.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        for watch in _watchers:
            watch(self)
        return [self.__dict__[key] for key in self._module_names]

    def items(self) -> Iterable[tuple[str, Module]]:
        """The (name, module) pairs."""
        for watch in _watchers:
            watch(self)
        return [(key, self.__dict__[key]) for key in self._module_names]

    def pop(self, key: str) -> Module:
        """Take out and return the module named `key`; raises KeyError where there is none."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Take out all modules."""
        for key in list(self._module_names):
            delattr(self, key)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules from a mapping or from pairs."""
        for key, module in dict(modules).items():
            self[key] = module


class ParameterList(Module):
    """A list of parameters that are registered with the module.

    Parameters
    ----------
    values : iterable of Tensor, optional
        The first content; plain tensors become Parameters.
    """

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def _name_at(self, index: int) -> str:
        size = len(self)
        position = as_index(index)
        if not -size <= position < size:
            raise IndexError(f"index {index} is out of range")
        return str(position % size)

    def __len__(self) -> int:
        for watch in _watchers:
            watch(self)
        return len(self._parameter_names)

    def __iter__(self) -> Iterator[Parameter]:
        for watch in _watchers:
            watch(self)
        return iter([self.__dict__[name] for name in self._parameter_names])

    def __getitem__(self, index: int | slice) -> Parameter | ParameterList:
        for watch in _watchers:
            watch(self)
        if isinstance(index, slice):
            return ParameterList(list(self)[index])
        parameter: Parameter = self.__dict__[self._name_at(index)]
        return parameter

    def __setitem__(self, index: int, value: Tensor) -> None:
        setattr(self, self._name_at(index), _as_parameter(value))

    def append(self, value: Tensor) -> ParameterList:
        """Add a parameter at the end; return self."""
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable[Tensor]) -> ParameterList:
        """Add all of `values` at the end; return self."""
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, other: Iterable[Tensor]) -> ParameterList:
        return self.extend(other)

    def __repr__(self) -> str:
        lines = []
        for position, parameter in enumerate(self):
            size = "x".join(str(length) for length in parameter.shape)
            lines.append(f"({position}): Parameter containing: [{parameter.dtype} of size {size}]")
        return format_module(self._get_name(), [], lines) if lines else f"{self._get_name()}()"


def _as_parameter(value: Tensor) -> Parameter:
    if isinstance(value, Parameter):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(f"a ParameterList holds tensors, but got {type(value).__name__}")
    return Parameter(value)
