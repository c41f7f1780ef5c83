# Where Python comes in by ways that no signature guards: making instances of the core's classes.
#
# Inside of the module instances are made by their types' own functions, directly. A call from outside, of a class or of its `__new__`,
# goes through the type's slots, which are set here: an empty Tensor, where PyTorch gives one; else a TypeError, but for those classes
# whose `__cinit__` makes a sound object of any arguments.

cdef extern from "Python.h":
    ctypedef object (*newfunc)(PyTypeObject *type, PyObject *args, PyObject *keywords)
    ctypedef struct PyTypeObject:
        newfunc make "tp_new"
        void *call "tp_vectorcall"
        const char *name "tp_name"

# Classes of which Python code may make instances.
cdef tuple OPEN_CLASSES = (
    Generator, Capture, CompiledCall, FunctionContext, GraphRecord, ModuleGuard, ClassGuard, Variable, Guards, StateSnapshot, keep_values,
    recording, vmap_level, paused_capture, recomputed_region, threads, SavedTensor, NumberTape, OptimizerBefore)
cdef newfunc make_handle = NULL  # the Tensor type's own


cdef object refuse_instance(PyTypeObject *type, PyObject *args, PyObject *keywords):
    raise TypeError(f"cannot create '{type.name.decode()}' instances")


cdef object open_handle(PyTypeObject *type, PyObject *args, PyObject *keywords):
    """Tensor.__new__: a tensor of no elements, until `__init__` gives it others."""
    cdef Tensor made = make_handle(type, <PyObject *>(), NULL)
    cdef int64_t none = 0
    made.node = new_array(fbp_default_dtype(), 1, &none)
    return made


cdef Tensor bare_handle(object kind):
    """A handle of a subclass of Tensor that stands for nothing yet: the caller gives it a node at once."""
    if not isinstance(kind, builtin_type) or not issubclass(kind, Tensor):
        raise TypeError(f"expected a subclass of Tensor, got {kind!r}")
    return make_handle(<PyTypeObject *>kind, <PyObject *>(), NULL)


cdef int guard_instances() except -1:
    """Set the slots, once all classes are there."""
    global make_handle
    cdef PyTypeObject *type
    for kind in list(globals().values()):
        if not isinstance(kind, builtin_type) or kind.__flags__ & 1 << 9 or kind.__module__ != __name__ or kind in OPEN_CLASSES:
            continue  # 1 << 9: made by a class statement of Python's own
        type = <PyTypeObject *>kind
        type.call = NULL
        if kind is Tensor:
            make_handle = type.make
            type.make = open_handle
        else:
            type.make = refuse_instance
    return 0


guard_instances()
