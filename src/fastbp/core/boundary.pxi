# Where Python comes in by ways that no signature guards: instances of the core's classes, and what passes of plans read.
#
# Inside of the module instances are made by their types' own functions, directly. A call from outside, of a class or of its `__new__`,
# goes through the type's slots, which are set here: an empty Tensor, where PyTorch gives one; else a TypeError, but for those classes
# whose `__cinit__` makes a sound object of any arguments.

# Classes of which Python code may make instances.
cdef tuple OPEN_CLASSES = (
    Generator, Capture, CompiledCall, FunctionContext, GraphRecord, ModuleGuard, ClassGuard, Variable, Guards, StateSnapshot, keep_values,
    recording, vmap_level, paused_capture, recomputed_region, threads, SavedTensor, NumberTape, OptimizerBefore)
cdef newfunc make_handle = NULL  # the Tensor type's own


cdef object refuse_instance(TypeSlots *type, PyObject *args, PyObject *keywords):
    raise TypeError(f"cannot create '{type.tp_name.decode()}' instances")


cdef object open_handle(TypeSlots *type, PyObject *args, PyObject *keywords):
    """Tensor.__new__: a tensor of no elements, until `__init__` gives it others."""
    cdef Tensor made
    cdef int64_t none = 0
    with cython.critical_section(core_section):  # slots are not entered by themselves (tools/sections.py)
        made = make_handle(type, <PyObject *>(), NULL)
        made.node = new_array(fbp_default_dtype(), 1, &none)
    return made


cdef Tensor bare_handle(object kind):
    """A handle of a subclass of Tensor that stands for nothing yet: the caller gives it a node at once."""
    if not isinstance(kind, builtin_type) or not issubclass(kind, Tensor):
        raise TypeError(f"expected a subclass of Tensor, got {kind!r}")
    return make_handle(<TypeSlots *>kind, <PyObject *>(), NULL)


cdef int guard_instances() except -1:
    """Set the slots, once all classes are there."""
    global make_handle
    cdef TypeSlots *type
    for kind in list(globals().values()):
        if not isinstance(kind, builtin_type) or kind.__flags__ & 1 << 9 or kind.__module__ != __name__ or kind in OPEN_CLASSES:
            continue  # 1 << 9: made by a class statement of Python's own
        type = <TypeSlots *>kind
        type.tp_vectorcall = NULL
        if kind is Tensor:
            make_handle, type.tp_new = type.tp_new, open_handle
        else:
            type.tp_new = refuse_instance
    return 0


guard_instances()


# ---- passes of plans -------------------------------------------------------------------------------------------------------------

cdef Tensor check_pass(Plan plan, list tensors, list batches, object order, int64_t size, int64_t count):
    """What a pass reads must lie in the tensors that it is given: a copy of `order`, which nobody else can change, or None."""
    cdef Tensor x, batch, numbers = None
    cdef int64_t rows = -1, i
    tensors, batches = backward_list(tensors, "rows"), backward_list(batches, "batches")
    if len(tensors) != plan.input_count or size < 0 or count < 0 or not plan.accepts(batches):
        raise ValueError("epoch: the plan does not run on these batches")
    for x, batch in zip(tensors, batches):
        if (x.node.ndim != batch.node.ndim or x.node.ndim == 0 or x.node.dtype != batch.node.dtype or not fbp_is_contiguous(x.node)
                or fbp_shape(batch.node)[0] != size or not fbp_is_contiguous(batch.node) or x.node.storage.symbolic
                or memcmp(fbp_shape(x.node) + 1, fbp_shape(batch.node) + 1, (x.node.ndim - 1) * sizeof(int64_t)) != 0):
            raise ValueError(f"epoch: rows of a tensor of shape {shape_tuple(x.node)} do not make batches of shape {shape_tuple(batch.node)}")
        rows = fbp_shape(x.node)[0] if rows < 0 else builtin_min(rows, fbp_shape(x.node)[0])
    if order is None:
        if rows >= 0 and count > 0 and size > rows // count:
            raise IndexError(f"epoch: {count} batches of {size} rows of {rows}")
        return None
    numbers = index_tensor("epoch", order).detach().clone()
    if numbers.node.ndim != 1 or (count > 0 and size > numbers.node.numel // count):
        raise IndexError(f"epoch: {count} batches of {size} rows by {numbers.node.numel} numbers")
    for i in range(numbers.node.numel if rows >= 0 else 0):
        if not 0 <= (<int64_t *>numbers.node.data)[i] < rows:
            raise IndexError(f"epoch: sample number {(<int64_t *>numbers.node.data)[i]} is out of bounds for a data set of {rows} samples")
    return numbers
