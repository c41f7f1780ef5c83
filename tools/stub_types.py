"""Types of the extension's parameters, results and attributes, for tools/generate_stub.py.

Names are looked up from the most particular to the least: "Tensor.max.dim", "max.dim", "dim".
"""

from __future__ import annotations


def by_name(groups: dict[str, str]) -> dict[str, str]:
    """Turn {type: "name name ..."} round: {name: type}."""
    return {name: kind for kind, names in groups.items() for name in names.split()}


HEADER = '''\
"""Types of the extension. Written by tools/generate_stub.py from the built module; change that, not this file."""

import builtins
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Any, Literal, NamedTuple, Protocol, Self, SupportsIndex, TypeVar, overload

import numpy as np

from .linalg._decompositions import OlderSVDResult as _OlderSVDResult
from .linalg._decompositions import QRResult as _QRResult
from .linalg._decompositions import SlogdetResult as _SlogdetResult

'''

# After the classes: names that stand for long types.
ALIASES = """
# Methods of Tensor are called bool, float, int and type, and hide Python's own within the class.
_bool = builtins.bool
_int = builtins.int
_float = builtins.float
_Number = builtins.bool | builtins.int | builtins.float
_Array = np.ndarray[Any, Any]
_Callable = TypeVar("_Callable", bound=Callable[..., Any])
_Subclass = TypeVar("_Subclass")
_dtype = dtype
_Device = device_type | builtins.str | builtins.int | None
_Shape = Sequence[builtins.int]
_Sizes = builtins.int | _Shape | Tensor
_Dims = builtins.int | Sequence[builtins.int]
_Operand = Tensor | _Array | _Number
_Tensors = Sequence[Tensor] | tuple[Tensor, ...]
_Item = SupportsIndex | slice | EllipsisType | Tensor | _Array | Sequence[Any] | None
_Key = _Item | tuple[_Item, ...]
_Node = tuple[builtins.str, tuple[builtins.int | None, ...], dict[builtins.str, Any], Tensor | None]
_Hook = Callable[[Tensor], Tensor | None]

class _HasArray(Protocol):
    def __array__(self) -> _Array: ...

_Data = Tensor | _Array | _Number | Sequence[Any] | _HasArray

"""

# Written out: what `inspect` cannot tell, or what has several signatures.
CLASSES = {
    "Absent": """\
class Absent: ...
""",
    "RunEagerly": """\
class RunEagerly(BaseException):
    reason: builtins.str
    forever: builtins.bool
    def __init__(self, reason: builtins.str, forever: builtins.bool = False) -> None: ...
""",
    "ModuleGuard": """\
class ModuleGuard:
    kind: builtins.str
    partial: builtins.bool
    def __init__(self, module: Any) -> None: ...
    def change(self) -> tuple[builtins.str, builtins.str] | None: ...
    def children(self) -> tuple[builtins.str, ...]: ...
    def restore(self, everything: builtins.bool) -> None: ...
    def symbolic_name(self) -> builtins.str | None: ...
""",
    "ClassGuard": """\
class ClassGuard:
    kind: type
    def __init__(self, kind: type, classes: list[type]) -> None: ...
    def change(self) -> tuple[builtins.str, builtins.str] | None: ...
    def restore(self) -> None: ...
""",
    "Variable": """\
class Variable:
    holder: Any
    key: Any
    value: Any
    text: builtins.str
    def __init__(self, holder: Any, key: Any, text: builtins.str) -> None: ...
    def now(self) -> Any: ...
    def change(self) -> tuple[builtins.str, builtins.str] | None: ...
    def restore(self) -> None: ...
""",
    "Guards": """\
class Guards:
    def __init__(
        self,
        modules: list[ModuleGuard],
        classes: list[ClassGuard],
        variables: list[Variable],
        version: builtins.int,
    ) -> None: ...
    def changes(self) -> list[tuple[builtins.str, builtins.str]]: ...
    def watch_tensors(self, tensors: list[Tensor]) -> None: ...
""",
    "Derivatives": """\
class Derivatives: ...
""",
    "OutsideView": """\
class OutsideView: ...
""",
    "BatchPass": """\
class BatchPass:
    def advance(self, begin: builtins.int, end: builtins.int) -> builtins.int: ...
    def results(self, count: builtins.int) -> list[Any]: ...
""",
    "Capture": """\
class Capture:
    given: list[Tensor]
    world: Any
    eager: RunEagerly | None
    updates: list[tuple[Any, builtins.int, Any, builtins.str]]
    backward_ran: builtins.bool
    def __enter__(self) -> Capture: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...
    def argument(self, given: Tensor) -> Tensor: ...
    def differentiate(
        self, outputs: list[Tensor], leaves: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor | None]]: ...
    def gradients(self) -> list[tuple[Tensor, builtins.int | None]]: ...
    def kept(self, known: list[Any]) -> list[Tensor]: ...
    def is_swept(self, output: Tensor) -> builtins.bool: ...
    def leaves(self, outputs: list[Tensor]) -> list[Tensor]: ...
    def on_failure(self, function: Callable[[], object]) -> None: ...
    def close_optimizers(self) -> None: ...
    def open_optimizer(
        self, optimizer: Any, symbolic: builtins.bool = False, state: builtins.bool = False
    ) -> None: ...
    def records(self) -> tuple[list[Any], list[Any], list[Any]]: ...
    def update(
        self,
        optimizer: Any,
        group_number: builtins.int,
        bucket: Any,
        gradients: list[Tensor],
        op: builtins.str,
    ) -> None: ...
    def value_of(self, t: Tensor) -> builtins.int: ...
""",
    "CompiledCall": """\
class CompiledCall:
    failures: builtins.int
    def __init__(self, owner: Any) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def drop(self) -> None: ...
""",
    "Plan": """\
class Plan:
    derivative: Plan | None
    saved_bytes: builtins.int
    budget_met: builtins.bool
    @property
    def peak_bytes(self) -> builtins.int: ...
    @property
    def peak_bytes_without(self) -> builtins.int | None: ...
    @property
    def saved_bytes_without(self) -> builtins.int | None: ...
    @property
    def may_pass(self) -> builtins.bool: ...
    @property
    def steps(self) -> list[dict[builtins.str, Any]]: ...
    def __len__(self) -> builtins.int: ...
    def fits(self, given: list[Tensor]) -> builtins.bool: ...
    def changes(self, given: list[Tensor]) -> list[tuple[builtins.str, builtins.str]] | None: ...
    def profile_run(self, given: list[Tensor], seconds: Any) -> None: ...
    def reads_apart(self, tensors: list[Tensor]) -> builtins.bool: ...
    def start_pass(
        self,
        tensors: list[Tensor],
        batches: list[Tensor],
        order: Tensor | None,
        size: builtins.int,
        count: builtins.int,
    ) -> BatchPass: ...
""",
    "HeldTensors": """\
class HeldTensors:
    def __init__(self, capacity: builtins.int) -> None: ...
""",
    "Sweep": """\
class Sweep(HostRule):
    def replay(self) -> list[Tensor]: ...
""",
    "GraphRecord": """\
class GraphRecord:
    def __init__(self, root: Tensor) -> None: ...
    def __len__(self) -> builtins.int: ...
    def find(self, x: Tensor) -> builtins.int: ...
    def facts(
        self,
    ) -> tuple[
        list[builtins.str],
        list[tuple[builtins.int | None, ...]],
        list[tuple[builtins.int, ...]],
        list[builtins.str],
        list[builtins.bool],
    ]: ...
    def attributes(self, i: builtins.int) -> dict[builtins.str, Any]: ...
    def state(self, i: builtins.int) -> builtins.str: ...
    def value(self, i: builtins.int) -> Tensor | None: ...
    def tensor(self, i: builtins.int) -> Tensor: ...
    def numbers(self) -> list[builtins.float | None]: ...
    def slopes(self, wanted: bytes | bytearray) -> list[tuple[builtins.float | None, ...] | None]: ...
    def pull(
        self, i: builtins.int, which: builtins.int, cotangent: Tensor, fit: builtins.bool = True
    ) -> Tensor | None: ...
    def apply(self, i: builtins.int, inputs: Sequence[Tensor | None], record: builtins.bool = False) -> Tensor: ...
    def revive(self, i: builtins.int, inputs: Sequence[Tensor | None]) -> Tensor: ...
    def rule(self, i: builtins.int) -> tuple[Any, builtins.int] | None: ...
""",
    "HostRule": """\
class HostRule: ...
""",
    "HostOutput": """\
class HostOutput(HostRule): ...
""",
    "HookTable": """\
class HookTable: ...
""",
    "PlanCheck": """\
class PlanCheck: ...
""",
    "Recompute": """\
class Recompute(HostRule): ...
""",
    "Replay": """\
class Replay: ...
""",
    "SavedTensor": """\
class SavedTensor:
    def __init__(self, x: Tensor, what: builtins.str) -> None: ...
    def unpack(self) -> Tensor: ...
""",
    "FunctionContext": """\
class FunctionContext(HostRule):
    needs_input_grad: tuple[builtins.bool, ...]
    @property
    def saved_tensors(self) -> tuple[Any, ...]: ...
    def save_for_backward(self, *tensors: Tensor | None) -> None: ...
    def save_for_forward(self, *tensors: Tensor | None) -> None: ...
    def mark_dirty(self, *args: Tensor) -> None: ...
    def mark_non_differentiable(self, *args: Tensor) -> None: ...
    def set_materialize_grads(self, value: builtins.bool) -> None: ...
    def __getattr__(self, name: builtins.str) -> Any: ...
    def __setattr__(self, name: builtins.str, value: Any) -> None: ...
""",
    "NumberInput": """\
class NumberInput: ...
""",
    "NumberNode": """\
class NumberNode: ...
""",
    "NumberTape": """\
class NumberTape: ...
""",
    "NumberWrite": """\
class NumberWrite: ...
""",
    "OptimizerBefore": """\
class OptimizerBefore:
    symbolic: builtins.bool
    state_read: builtins.bool
    def __init__(self, optimizer: Any) -> None: ...
""",
    "PlanNumbers": """\
class PlanNumbers: ...
""",
    "SymbolicInteger": """\
class SymbolicInteger(SymbolicNumber): ...
""",
    "SymbolicNumber": """\
class SymbolicNumber: ...
""",
    "SymbolicOptimizer": """\
class SymbolicOptimizer: ...
""",
    "OptimizerLink": """\
class OptimizerLink: ...
""",
    "StateSnapshot": """\
class StateSnapshot:
    state: dict[Any, dict[builtins.str, Any]]
    def __init__(self, state: dict[Any, dict[builtins.str, Any]]) -> None: ...
    def holds(self, state: dict[Any, dict[builtins.str, Any]]) -> builtins.bool: ...
""",
    "UpdateLink": """\
class UpdateLink: ...
""",
    "recomputed_region": """\
class recomputed_region:
    def __enter__(self) -> recomputed_region: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "paused_capture": """\
class paused_capture:
    def __enter__(self) -> paused_capture: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "dtype": """\
class dtype:
    @property
    def is_complex(self) -> builtins.bool: ...
    @property
    def is_floating_point(self) -> builtins.bool: ...
    @property
    def type(self) -> builtins.type[Any]: ...
    @property
    def is_signed(self) -> builtins.bool: ...
    @property
    def itemsize(self) -> builtins.int: ...
    @property
    def name(self) -> builtins.str: ...
    def __hash__(self) -> builtins.int: ...
    def __reduce__(self) -> Any: ...
""",
    "device_type": """\
class device_type:
    type: builtins.str
    index: builtins.int | None
    def __init__(self, type: builtins.str | device_type = "cpu", index: builtins.int | None = None) -> None: ...
    def __eq__(self, other: object) -> builtins.bool: ...
    def __hash__(self) -> builtins.int: ...
""",
    "Size": """\
class Size(tuple[builtins.int, ...]):
    def numel(self) -> builtins.int: ...
    def __add__(self, other: Any) -> Size: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> builtins.int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
""",
    "Generator": """\
class Generator:
    def __init__(self, device: _Device = None) -> None: ...
    @property
    def device(self) -> device_type: ...
    def clone_state(self) -> Generator: ...
    def get_state(self) -> Tensor: ...
    def initial_seed(self) -> builtins.int: ...
    def manual_seed(self, seed: builtins.int) -> Self: ...
    def seed(self) -> builtins.int: ...
    def set_state(self, new_state: Tensor) -> Self: ...
    def __reduce__(self) -> Any: ...
""",
    "GradFunction": """\
class GradFunction:
    @property
    def next_functions(self) -> tuple[tuple[GradFunction | None, builtins.int], ...]: ...
    @property
    def variable(self) -> Tensor: ...
    def name(self) -> builtins.str: ...
    def __eq__(self, other: object) -> builtins.bool: ...
    def __hash__(self) -> builtins.int: ...
""",
    "RemovableHandle": """\
class RemovableHandle:
    def __init__(self, hooks: dict[builtins.int, Any], key: builtins.int) -> None: ...
    def remove(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "Placed": "class Placed: ...\n",
    "Subscript": "class Subscript: ...\n",
    "grad_switch": """\
class grad_switch:
    def __call__(self, function: _Callable) -> _Callable: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "entered_switch": "class entered_switch(grad_switch): ...\n",
    "keep_values": """\
class keep_values:
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "recording": """\
class recording:
    def __init__(self, keep_values: builtins.bool = False) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "vmap_level": """\
class vmap_level:
    def __init__(self, size: builtins.int, randomness: builtins.str) -> None: ...
    def __enter__(self) -> builtins.int: ...
    def __exit__(self, *error: object) -> None: ...
""",
    "threads": """\
class threads:
    def __init__(self, count: builtins.int) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
""",
}

# Methods that the interpreter calls. Those of `object` that Tensor does not change are left out.
SPECIAL_BY_SIGNATURE = {
    "(self, other: _Operand) -> Tensor": (
        "add and floordiv mod mul or pow sub truediv xor matmul radd rand rfloordiv rmod rmul ror rpow rsub "
        "rtruediv rxor rmatmul"
    ),
    "(self, other: _Operand) -> Tensor:  # type: ignore[misc]": "ge gt le lt",
    "(self, other: _Operand) -> Tensor:  # type: ignore[override]": "eq ne",
    "(self, other: _Operand) -> Self": "iadd iand ifloordiv imod imul ior ipow isub itruediv ixor",
    "(self) -> Tensor": "abs neg pos invert",
}
SPECIAL = {
    **by_name(SPECIAL_BY_SIGNATURE),
    "array": "(self, dtype: Any = None, copy: _bool | None = None) -> _Array",
    "bool": "(self) -> _bool",
    "complex": "(self) -> complex",
    "contains": "(self, key: _Operand) -> _bool",
    "copy": "(self) -> Tensor",
    "deepcopy": "(self, memo: dict[_int, Any]) -> Self",
    "float": "(self) -> _float",
    "format": "(self, spec: builtins.str) -> builtins.str",
    "getitem": "(self, key: _Key) -> Tensor",
    "hash": "(self) -> _int",
    "index": "(self) -> _int",
    "init": "(self, *args: Any, **kwargs: Any) -> None",
    "int": "(self) -> _int",
    "iter": "(self) -> Iterator[Tensor]",
    "len": "(self) -> _int",
    "reduce": "(self) -> Any",
    "reduce_ex": "(self, protocol: SupportsIndex) -> Any",
    "repr": "(self) -> builtins.str",
    "round": "(self, ndigits: _int = 0) -> Tensor",
    "setitem": "(self, key: _Key, value: _Operand | Sequence[Any]) -> None",
    "setstate": "(self, state: Any) -> None",
    "dlpack": "(self, **options: Any) -> Any",
    "dlpack_device": "(self) -> tuple[_int, _int]",
}
# "buffer" and its release show from Python 3.12 on, of a protocol that the type checker needs not know.
PROTOCOL_LEFT_OUT = {"new", "doc", "module", "delitem", "setattr", "delattr", "array_priority", "dict", "weakref",
                     "reduce_cython", "setstate_cython", "pyx_vtable", "buffer", "release_buffer"}  # fmt: skip

ATTRIBUTES = {
    "T": "Tensor",
    "mT": "Tensor",
    "H": "Tensor",
    "mH": "Tensor",
    "_version": "_int",
    "data": "Tensor; settable: _Operand",
    "device": "device_type",
    "dtype": "_dtype",
    "grad": "Tensor | None; settable: Tensor | None",
    "grad_fn": "GradFunction | None",
    "is_leaf": "_bool",
    "itemsize": "_int",
    "layout": "builtins.str",
    "names": "tuple[None, ...]",
    "nbytes": "_int",
    "ndim": "_int",
    "output_nr": "_int",
    "real": "Tensor",
    "requires_grad": "_bool; settable: _bool",
    "retains_grad": "_bool",
    "shape": "Size",
}

PARAMETERS_BY_TYPE = {
    "_Operand": (
        "input input2 other target end value source src src_value values fill_value mat1 mat2 batch1 batch2 vec vec2 "
        "tensor tensor1 tensor2 condition mask index min max exponent test_elements elements sorted_sequence "
        "boundaries"
    ),
    "_Operand | None": "weight bias pos_weight weights",
    "_bool": (
        "keepdim largest sorted stable descending training inplace sparse_grad replacement non_blocking "
        "create_graph retain_grad materialize_grads equal_nan pin_memory requires_grad return_inverse "
        "upper some compute_uv "
        "return_counts accumulate log_target nesterov maximize decoupled first as_tuple force copy right "
        "out_int32 hard invert assume_unique"
    ),
    "_bool | None": "retain_graph allow_unused unbiased",
    "_int": (
        "dim dim0 dim1 dim2 start_dim end_dim offset diagonal chunks k num_classes num_samples decimals "
        "minlength count row col n length ignore_index steps seed low ndigits N"
    ),
    "_int | None": "m high",
    "_Number": (
        "rcond alpha beta rtol atol base lambd p delta negative_slope threshold min_val max_val lr momentum "
        "dampening weight_decay eps beta1 beta2 label_smoothing start step std mean"
    ),
    "_Tensors": "tensors",
    "Sequence[Tensor]": "params grads exp_avgs exp_avg_sqs",
}
PARAMETERS = {
    **by_name(PARAMETERS_BY_TYPE),
    "is_symbolic.x": "Tensor",
    "make_plan.source": "Capture",
    "with_gradients.params": "Sequence[Tensor]",
    "are_same_objects.a": "list[Any]",
    "are_same_objects.b": "list[Any]",
    "note_optimizer.optimizer": "Any",
    "note_optimizer.state": "builtins.bool",
    "steps_done.value": "Any",
    "sgd_step.states": "list[dict[builtins.str, Any]]",
    "adam_step.states": "list[dict[builtins.str, Any]]",
    "make_plan.function": "Any",
    "make_plan.memory_budget": "builtins.int | builtins.float | None",
    "largest_values.plan": "Plan",
    "largest_values.most": "builtins.int",
    "make_plan.outputs": "list[Any]",
    "make_plan.guards": "Guards | None",
    "hooks_of.x": "Tensor",
    "same_value.a": "Any",
    "same_value.b": "Any",
    "needs_eager_run.tensors": "Sequence[Tensor]",
    "max_exp_avg_sqs": "Sequence[Tensor] | None",
    "momentum_buffers": "Sequence[Tensor] | None",
    "approximate": "builtins.str",
    "axis": "_Dims | None",
    "buffer": "Any",
    "correction": "_Number | None",
    "data": "_Data",
    "obj": "_Data",
    "array": "_Array",
    "ndarray": "_Array",
    "device": "_Device",
    "dtype": "_dtype | None",
    "generator": "Generator | None",
    "gradient": "_Operand | None",
    "grad_tensors": "_Operand | Sequence[Tensor | None] | None",
    "grad_outputs": "Tensor | Sequence[Tensor | None] | None",
    "outputs": "Tensor | Sequence[Tensor]",
    "inputs": "Tensor | Sequence[Tensor] | None",
    "tangents": "Sequence[Tensor | None]",
    "hook": "_Hook",
    "indexing": "builtins.str",
    "indices": "Sequence[Tensor | None]",
    "layout": "Any",
    "memory_format": "Any",
    "mode": "_bool",
    "name": "builtins.str",
    "new_state": "Tensor",
    "orig_func": "_Callable",
    "out": "Tensor | None",
    "reduce": "builtins.str | None",
    "reduction": "builtins.str",
    "repeats": "_int | Tensor",
    "rounding_mode": "builtins.str | None",
    "shape": "_Shape",
    "shifts": "_Dims",
    "dims": "_Dims",
    "size": "_Sizes | None",
    "sizes": "_Shape",
    "split_size": "_Dims",
    "split_size_or_sections": "_Dims",
    "state": "Any",
    "destination": "_Dims",
    "_factorize.input": "Tensor",
    "_factorize.other": "Tensor | None",
    **dict.fromkeys((f"_factorize.{name}" for name in ("upper", "unit", "values", "complete", "lenient")), "_bool"),
    "Tensor.cross.dim": "_int | None",
    "_apply.inputs": "Sequence[Tensor | None]",
    "_apply.attributes": "dict[builtins.str, Any] | None",
    "_captured_costs.capture": "Capture",
    "_captured_costs.first": "_int",
    "_recorded_graph.outputs": "Sequence[Tensor]",
    "_attributes_of.x": "Tensor",
    "_before_collection.phase": "builtins.str",
    "_before_collection.info": "dict[builtins.str, _int]",
    # In particular functions, and in the method of the same name.
    "addmm.input": "_Operand",
    "all.dim": "_Dims | None",
    "any.dim": "_Dims | None",
    "amax.dim": "_Dims",
    "amin.dim": "_Dims",
    "aminmax.dim": "_int | None",
    "argmax.dim": "_int | None",
    "argmin.dim": "_int | None",
    "arange.start": "_Number",
    "arange.end": "_Number | None",
    "asarray.copy": "_bool | None",
    "backward.retain_graph": "_bool | None",
    "bernoulli.p": "_Number | Tensor | None",
    "bernoulli_.p": "_Number | Tensor",
    "broadcast_shapes.shapes": "_Shape | _int",
    "broadcast_tensors.tensors": "Tensor",
    "check_device.device": "_Device",
    "clamp.min": "_Operand | None",
    "clamp.max": "_Operand | None",
    "clamp_.min": "_Operand | None",
    "clamp_.max": "_Operand | None",
    "clip.min": "_Operand | None",
    "clip.max": "_Operand | None",
    "clip_.min": "_Operand | None",
    "clip_.max": "_Operand | None",
    "count_nonzero.dim": "_Dims | None",
    "eye.n": "_int",
    "frombuffer.dtype": "_dtype",
    "full.size": "_Sizes",
    "full.fill_value": "_Number",
    "full_like.fill_value": "_Number",
    "grad.inputs": "Tensor | Sequence[Tensor]",
    "index_fill.value": "_Number | Tensor",
    "linear.weight": "_Operand",
    "linspace.start": "_Number",
    "linspace.end": "_Number",
    "logspace.start": "_Number",
    "logspace.end": "_Number",
    "logsumexp.dim": "_Dims",
    "lerp.weight": "_Operand",
    "lerp_.weight": "_Operand",
    "make_generator.state": "Any",
    "apply_function.function": "Any",
    "apply_function.args": "tuple[Any, ...]",
    "forget_graph.outputs": "list[Tensor]",
    "forget_graph.since": "_int",
    "forget_graph.again": "Callable[[], list[Tensor]]",
    "set_anomaly.level": "_int",
    "register_post_accumulate_grad_hook.hook": "Callable[[Tensor], object]",
    "masked_fill.value": "_Number | Tensor",
    "max.dim": "_int | Tensor | None",
    "max.other": "_Operand | None",
    "min.dim": "_int | Tensor | None",
    "min.other": "_Operand | None",
    "mean.dim": "_Dims | None",
    "median.dim": "_int | None",
    "meshgrid.tensors": "Tensor | Sequence[Tensor]",
    "movedim.source": "_Dims",
    "nansum.dim": "_Dims | None",
    "narrow.start": "_int",
    "new_full.size": "_Sizes",
    "norm.dim": "_Dims | None",
    "norm.p": "_Number | builtins.str",
    "normal.mean": "_Number | Tensor",
    "normal.std": "_Number | Tensor",
    "prod.dim": "_int | None",
    "flip.dims": "_Dims",
    "randint.high": "_int | _Shape | None",
    "random_.bounds": "_int | None",
    "repeat_interleave.dim": "_int | None",
    "roll.dims": "_Dims | None",
    "rot90.dims": "_Shape",
    "scatter.src": "_Operand",
    "Tensor.scatter.src": "_Operand | None",
    "Tensor.scatter_.src": "_Operand | None",
    "Tensor.scatter.value": "_Number | None",
    "Tensor.scatter_.value": "_Number | None",
    "addcmul.value": "_Number",
    "drop_history.x": "Tensor",
    "level_of.x": "Tensor",
    "lift.x": "Tensor",
    "leave_point.points": "Sequence[Tensor]",
    "is_recorded.x": "Tensor",
    "unbatch.x": "Tensor",
    "reaches_others.outputs": "Sequence[Tensor]",
    "reaches_others.inputs": "Sequence[Tensor]",
    "batch.physical": "Tensor",
    "batch.level": "_int",
    "batch.batched": "_bool",
    "unbatch.level": "_int",
    "vmap_information.level": "_int",
    "forward_gradient.create_graph": "_bool",
    "is_grads_batched": "_bool",
    "addcdiv.value": "_Number",
    "addcmul_.value": "_Number",
    "addcdiv_.value": "_Number",
    "set_default_dtype.d": "_dtype",
    "size.dim": "_int | None",
    "softmax.dim": "_int | None",
    "split.tensor": "Tensor",
    "squeeze.dim": "_Dims | None",
    "squeeze_.dim": "_Dims | None",
    "std.dim": "_Dims | None",
    "std_mean.dim": "_Dims | None",
    "stride.dim": "_int | None",
    "sum.dim": "_Dims | None",
    "take_along_dim.dim": "_int | None",
    "take_along_dim.indices": "Tensor",
    "to.args": "Any",
    "type.dtype": "_dtype | builtins.str | None",
    "uniform_.low": "_Number",
    "uniform_.high": "_Number",
    "uniform_.bounds": "_Number",
    "unique.dim": "_int | None",
    "var.dim": "_Dims | None",
    "var_mean.dim": "_Dims | None",
    "where.input": "_Operand | None",
    "where.other": "_Operand | None",
    "Tensor.where.other": "_Operand",
    "_make_subclass.cls": "builtins.type[_Subclass]",
    "_make_subclass.data": "Tensor",
}
# *sizes and *shape take numbers or one sequence of them.
STARRED = {name: "_int | _Shape" for name in ("sizes", "shape", "dims")}

RETURNS_BY_TYPE = {
    "_bool": (
        "allclose capturing equal reaches_others is_recorded is_symbolic is_grad_enabled is_complex is_contiguous "
        "is_floating_point _is_borrowed is_same_size is_pinned"
    ),
    "_int": (
        "get_num_threads threads_refused initial_seed level_of vmap_depth seed data_ptr dim element_size ndimension "
        "nelement numel storage_offset get_device steps_done"
    ),
    "None": (
        "set_default_dtype slow_ops_forget leave_point set_isa set_num_threads set_rng_state sgd_step adam_step "
        "note_fork note_optimizer backward check_device retain_grad"
    ),
    "tuple[Tensor, ...]": ("broadcast_tensors chunk meshgrid split unbind atleast_nd hsplit vsplit tensor_split"),
    "builtins.str": "get_isa threads_runtime environment_problems",
    "tuple[Tensor, Tensor]": "std_mean var_mean",
}
RETURNS = {
    **by_name(RETURNS_BY_TYPE),
    "current_capture": "Capture | None",
    "with_gradients": "tuple[list[Tensor], list[Tensor]]",
    "are_same_objects": "builtins.bool",
    "Tensor.qr": "_QRResult",
    "Tensor.slogdet": "_SlogdetResult",
    "Tensor.svd": "_OlderSVDResult",
    "make_plan": "Plan",
    "hooks_of": "list[Any]",
    "same_value": "_bool",
    "needs_eager_run": "_bool",
    "world_version": "_int",
    "world_moved": "None",
    "largest_values": "list[tuple[builtins.int, builtins.str, tuple[builtins.int, ...], builtins.str]]",
    **{name: f"_{name}_result" for name in ("aminmax", "median", "sort", "topk")},
    "max": "Any",  # a tensor, or with dim= a named pair: told apart by the overloads
    "min": "Any",
    "atleast_1d": "Tensor",
    "atleast_2d": "Tensor",
    "available_isas": "list[builtins.str]",
    "broadcast_shapes": "Size",
    "cpu_information": "dict[builtins.str, Any]",
    "environment_variables": "list[dict[builtins.str, builtins.str]]",
    "forward_gradient": "tuple[Tensor | None, ...]",
    "unbatch": "tuple[Tensor, _bool]",
    "vmap_information": "tuple[_int, builtins.str]",
    "get_default_dtype": "_dtype",
    "grad": "tuple[Tensor, ...]",
    "_captured_costs": "list[tuple[_float, _float]]",
    "_recorded_graph": "tuple[list[_Node], list[_int]]",
    "_attributes_of": "dict[builtins.str, Any]",
    "_before_collection": "None",
    "make_generator": "Generator",
    "manual_seed": "Generator",
    "memory_statistics": "dict[builtins.str, _int]",
    "nonzero": "Any",
    "op_table": "list[dict[builtins.str, Any]]",
    "set_grad_enabled": "entered_switch",
    "no_grad": "grad_switch",
    "enable_grad": "grad_switch",
    "inference_mode": "grad_switch",
    "unique": "Any",
    "item": "Any",
    "tolist": "Any",
    "numpy": "_Array",
    "register_hook": "RemovableHandle",
    "register_post_accumulate_grad_hook": "RemovableHandle",
    "apply_function": "Any",
    "forget_graph": "list[Tensor]",
    "sequence_now": "_int",
    "anomaly_level": "_int",
    "set_anomaly": "None",
    "size": "Any",
    "stride": "Any",
    "type": "Any",
    "_make_subclass": "_Subclass",
    "where": "Any",
}
# Replaced by several signatures each; the function's first parameter is written {first}.
OVERLOADS = {
    **{
        name: [
            "({first}) -> Tensor",
            f"({{first}}, dim: _int, keepdim: _bool = False, *, axis: None = None) -> _{name}_result",
            "({first}, dim: Tensor) -> Tensor",
            "({first}, *, other: _Operand) -> Tensor",
            f"({{first}}, *, axis: _int, keepdim: _bool = False) -> _{name}_result",
        ]
        for name in ("max", "min")
    },
    "median": ["({first}) -> Tensor", "({first}, dim: _int, keepdim: _bool = False) -> _median_result"],
    **{
        name: ["(orig_func: None = None) -> grad_switch", "(orig_func: _Callable) -> _Callable"]
        for name in ("no_grad", "enable_grad")
    },
    "inference_mode": ["(mode: builtins.bool = True) -> grad_switch", "(mode: _Callable) -> _Callable"],
    "Tensor.size": ["({first}, dim: None = None) -> Size", "({first}, dim: _int) -> _int"],
    "Tensor.stride": ["({first}, dim: None = None) -> tuple[_int, ...]", "({first}, dim: _int) -> _int"],
    "Tensor.type": [
        "({first}, dtype: None = None) -> builtins.str",
        "({first}, dtype: _dtype | builtins.str) -> Tensor",
    ],
    "where": [
        "(condition: _Operand, input: None = None, other: None = None, *, out: None = None) -> tuple[Tensor, ...]",
        "(condition: _Operand, input: _Operand, other: _Operand, *, out: Tensor | None = None) -> Tensor",
    ],
    "Tensor.where": ["({first}, condition: _Operand, other: _Operand) -> Tensor"],
    "nonzero": [
        "({first}, *, out: Tensor | None = None, as_tuple: Literal[False] = False) -> Tensor",
        "({first}, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]",
    ],
    "Tensor.nonzero": [
        "({first}, *, as_tuple: Literal[False] = False) -> Tensor",
        "({first}, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]",
    ],
}
