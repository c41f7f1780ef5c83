# Conversions between Python and the core: errors, types, wrappers, operands.

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident

cdef class Tensor  # core/tensor.pxi
cdef class HookTable  # core/hooks.pxi
cdef class HostRule  # core/host_rule.pxi
cdef class SymbolicNumber  # core/symbolic_numbers.pxi

cdef dict STATUS_ERRORS = {
    FBP_ERROR_VALUE: ValueError,
    FBP_ERROR_TYPE: TypeError,
    FBP_ERROR_INDEX: IndexError,
    FBP_ERROR_RUNTIME: RuntimeError,
    FBP_ERROR_MEMORY: MemoryError,
    FBP_ERROR_NOT_IMPLEMENTED: NotImplementedError,
}

# Exceptions raised by Python callbacks inside the core wait here until the core has returned: by thread, the latest last, since what is
# freed on the way out may call the core, and fail in it.
cdef dict pending_errors = {}


cdef fbp_status keep_error(object error) noexcept:
    """What a callback that has failed returns."""
    pending_errors.setdefault(PyThread_get_thread_ident(), []).append(error)
    return FBP_ERROR_CALLBACK


cdef int raise_status(fbp_status status) except -1:
    """Raise the Python exception for a failed call."""
    cdef list waiting
    if status == FBP_ERROR_CALLBACK:
        waiting = pending_errors.get(PyThread_get_thread_ident())
        if waiting:
            error = waiting.pop()
            if not waiting:
                pending_errors.pop(PyThread_get_thread_ident(), None)
            raise error
    raise STATUS_ERRORS.get(status, RuntimeError)(fbp_message().decode("utf-8", "replace"))


cdef inline int look_now_and_then(int64_t turn) except -1:
    """Once in a loop that arguments may make endless: Ctrl-C is seen every 1024 turns."""
    if turn & 1023 == 1023:
        PyErr_CheckSignals()
    return 0


cdef inline int check(fbp_status status) except -1:
    if status != FBP_OK:
        raise_status(status)
    return 0


# ---- element types ------------------------------------------------------------------------------------------------

@cython.final
@cython.binding(False)
cdef class dtype:
    """Type of a tensor's elements: one of `fastbp.float32`, `float64`, `int64`, `int32`, `uint8`, `bool`.

    Examples
    --------
    >>> fastbp.zeros(2).dtype
    fastbp.float32
    """

    cdef fbp_dtype code
    cdef readonly str name
    cdef readonly int itemsize
    cdef bytes format  # of the buffer protocol

    @property
    def is_floating_point(self):
        """Whether this is float32 or float64."""
        return bool(fbp_dtype_is_float(self.code))

    @property
    def type(self):
        """NumPy's scalar type of such elements: SciPy makes numbers of results by it."""
        import numpy
        return numpy.dtype(self.name).type

    @property
    def is_signed(self):
        """Whether negative values can be held."""
        return self.code >= FBP_INT32

    @property
    def is_complex(self):
        """Always False: there are no complex types."""
        return False

    def __repr__(self):
        return "fastbp." + self.name

    def __reduce__(self):
        return self.name

    def __hash__(self):
        return hash(self.name)


cdef dtype make_dtype(fbp_dtype code, bytes format):
    cdef dtype result = dtype.__new__(dtype)
    result.code = code
    result.name = fbp_dtype_name(code).decode()
    result.itemsize = fbp_dtype_size(code)
    result.format = format
    return result


cdef list DTYPES = [make_dtype(<fbp_dtype>code, format) for code, format in enumerate((b"?", b"B", b"i", b"q", b"f", b"d"))]
bool_, uint8, int32, int64, float32, float64 = DTYPES
cdef dict DTYPE_BY_NAME = {d.name: d for d in DTYPES}
DTYPE_BY_NAME.update(float=float64, int=int64, double=float64, long=int64, half=None)


cdef fbp_dtype dtype_code(object given) except *:
    """Core code of a dtype given as fastbp dtype, Python type, NumPy dtype or name; TypeError otherwise."""
    if type(given) is dtype:
        return (<dtype>given).code
    if given is float:
        return FBP_FLOAT64
    if given is int:
        return FBP_INT64
    if given is bool:
        return FBP_BOOL
    name = getattr(given, "name", None) or getattr(given, "__name__", None) or str(given)
    found = DTYPE_BY_NAME.get(name)
    if found is None:
        raise TypeError(f"{given!r} is not a dtype that fastbp has; use one of {', '.join(map(repr, DTYPES))}")
    return (<dtype>found).code


# ---- wrappers ------------------------------------------------------------------------------------------------------

cdef inline object wrap(fbp_tensor *t):
    """The Python tensor for `t`, whose reference is taken over."""
    cdef Tensor result
    if t.handle != NULL:
        if t.flags & FBP_KEEPS_HANDLE:
            return wake(t)
        if hold_handle(t.handle):
            result = <Tensor>t.handle
            drop_handle(t.handle)
            fbp_release(t)
            return result
    result = new_handle()
    result.node = t
    watch_handle(<void *>result)
    t.handle = <void *>result
    if t.flags & (FBP_SYMBOLIC | FBP_REACHES):
        if t.flags & FBP_REACHES:
            join_collector(result)
        if t.flags & FBP_SYMBOLIC:
            note_symbolic(result)
    return result


cdef void adopt_handle(void *handle, fbp_tensor *t) noexcept with gil:
    """Make a live wrapper stand for another node (after an in-place write through a view)."""
    cdef Tensor wrapper
    cdef fbp_tensor *old
    cdef bint kept
    if not hold_handle(handle):
        return
    wrapper = <Tensor>handle
    drop_handle(handle)
    old = wrapper.node
    kept = old.flags & FBP_KEEPS_HANDLE and old.handle == handle
    if old.handle == handle:
        old.handle = NULL
    wrapper.node = fbp_retain(t)
    t.handle = handle
    if t.flags & FBP_REACHES:
        join_or_not(wrapper)
    if kept:  # the reference that `old` has to it goes, and not one that it has to `old`
        old.flags &= ~FBP_KEEPS_HANDLE
        Py_DECREF(wrapper)
    else:
        fbp_release(old)


cdef void join_or_not(Tensor x) noexcept:
    """join_collector() where there is nobody to tell of a lack of memory."""
    try:
        join_collector(x)
    except MemoryError:
        pass


cdef void release_object(void *held) noexcept with gil:
    if isinstance(<object>held, HookTable):
        release_hooks(<HookTable>held)
        return
    if isinstance(<object>held, HostRule):
        (<HostRule>held).forsaken()
    Py_DECREF(<object>held)


fbp_host_adopt = adopt_handle
fbp_host_release = release_object


# ---- operands --------------------------------------------------------------------------------------------------------

cdef int refuse_operand(str op, object x, str name) except -1:
    raise TypeError(f"{op}(): argument '{name}' must be Tensor, not {type(x).__name__}")


cdef inline Tensor tensor_argument(str op, object x, str name="input"):
    """An argument that must be a tensor: None, numbers and the like are TypeErrors that name the function and the argument."""
    if not isinstance(x, Tensor):
        refuse_operand(op, x, name)
    return <Tensor>x


cdef fbp_tensor *new_number(object value, int other) except NULL:
    """A 0-d tensor for a bare Python number beside an operand of dtype `other` (-1: none): it takes no part in type promotion."""
    cdef fbp_layout layout
    cdef fbp_tensor *t
    cdef int code
    if isinstance(value, bool):
        code = other if other >= 0 else FBP_BOOL
    elif isinstance(value, int):
        code = other if other > FBP_BOOL else FBP_INT64
    else:
        code = other if other >= FBP_FLOAT32 else fbp_default_dtype()
    check(fbp_layout_contiguous(&layout, <fbp_dtype>code, 0, NULL))
    check(fbp_tensor_empty(&layout, 0, 0, &t))
    try:
        write_element(t.data, code, value)
    except BaseException:
        fbp_release(t)
        raise
    t.flags |= FBP_NUMBER
    return t


cdef int write_element(char *at, int code, object value) except -1:
    """Store a Python number in an element of a type."""
    if code == FBP_FLOAT32:
        (<float *>at)[0] = <double>value
    elif code == FBP_FLOAT64:
        (<double *>at)[0] = value
    elif code == FBP_INT64:
        (<int64_t *>at)[0] = int(value)
    elif code == FBP_INT32:
        (<int32_t *>at)[0] = int(value)
    elif code == FBP_UINT8:
        (<uint8_t *>at)[0] = int(value) & 0xFF
    else:
        (<uint8_t *>at)[0] = 1 if value else 0
    return 0


cdef object read_element(const char *at, int code):
    if code == FBP_FLOAT32:
        return <double>(<float *>at)[0]
    if code == FBP_FLOAT64:
        return (<double *>at)[0]
    if code == FBP_INT64:
        return (<int64_t *>at)[0]
    if code == FBP_INT32:
        return (<int32_t *>at)[0]
    if code == FBP_UINT8:
        return (<uint8_t *>at)[0]
    return (<uint8_t *>at)[0] != 0


cdef fbp_tensor *operand(object x, int other, const char *op) except NULL:
    """A new reference to the core tensor for an operand of `op`: a tensor, a number, an array, or nested lists of numbers."""
    if isinstance(x, Tensor):
        return fbp_retain((<Tensor>x).node)
    if isinstance(x, (int, float)):
        return new_number(x, other)
    if isinstance(x, SymbolicNumber):
        return symbolic_operand(<SymbolicNumber>x, other)
    if hasattr(x, "__array__") or isinstance(x, (list, tuple)):
        return fbp_retain((<Tensor?>as_tensor(x)).node)
    if hasattr(x, "__float__"):
        return new_number(float(x), other)
    raise TypeError(f"{op.decode()}(): expected a tensor, a number or an array, got {type(x).__name__}")


cdef inline bint is_operand(object x):
    """Whether a binary operator should try; otherwise Python asks the other side."""
    return isinstance(x, (Tensor, int, float, SymbolicNumber)) or hasattr(x, "__array__") or hasattr(x, "__float__")


cdef object unary(fbp_op op, object a):
    cdef fbp_tensor *out
    cdef fbp_tensor *x
    if isinstance(a, Tensor):
        check(fbp_apply(op, 1, &(<Tensor>a).node, NULL, 0, &out))
        return wrap(out)
    raise TypeError(f"{fbp_ops[<int>op].name.decode()}(): argument 'input' must be Tensor, not {type(a).__name__}")


cdef object unary_with(fbp_op op, object a, double p0, double p1):
    cdef fbp_scalar_attribute attribute
    cdef fbp_tensor *out
    if not isinstance(a, Tensor):
        raise TypeError(f"{fbp_ops[<int>op].name.decode()}(): argument 'input' must be Tensor, not {type(a).__name__}")
    attribute.p[0] = p0
    attribute.p[1] = p1
    check(fbp_apply(op, 1, &(<Tensor>a).node, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object binary_any(fbp_op op, object a, object b, const fbp_scalar_attribute *attribute):
    """binary() where an operand is not a tensor yet."""
    cdef fbp_tensor *inputs[2]
    cdef fbp_tensor *out = NULL
    cdef fbp_status status
    inputs[0] = operand(a, (<Tensor>b).node.dtype if isinstance(b, Tensor) else -1, fbp_ops[<int>op].name)
    try:
        inputs[1] = operand(b, inputs[0].dtype if isinstance(a, Tensor) else -1, fbp_ops[<int>op].name)
    except BaseException:
        fbp_release(inputs[0])
        raise
    status = fbp_apply(op, 2, inputs, attribute, sizeof(fbp_scalar_attribute) if attribute != NULL else 0, &out)
    fbp_release(inputs[0])
    fbp_release(inputs[1])
    check(status)
    return wrap(out)


cdef object binary(fbp_op op, object a, object b):
    cdef fbp_tensor *inputs[2]
    cdef fbp_tensor *out
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        inputs[0] = (<Tensor>a).node
        inputs[1] = (<Tensor>b).node
        check(fbp_apply(op, 2, inputs, NULL, 0, &out))
        return wrap(out)
    return binary_any(op, a, b, NULL)


cdef object binary_with(fbp_op op, object a, object b, double p0, double p1):
    cdef fbp_scalar_attribute attribute
    attribute.p[0] = p0
    attribute.p[1] = p1
    return binary_any(op, a, b, &attribute)


cdef object unary_in_place(fbp_op op, Tensor a, double p0, double p1):
    cdef fbp_scalar_attribute attribute
    cdef fbp_tensor *input = a.node
    attribute.p[0] = p0
    attribute.p[1] = p1
    check(fbp_apply_in_place(op, 1, &input, &attribute, sizeof(attribute), &a.node))
    if a.node.flags & FBP_REACHES:
        join_collector(a)
    return a


cdef object binary_in_place(fbp_op op, Tensor a, object b, double p0, double p1):
    cdef fbp_scalar_attribute attribute
    cdef fbp_tensor *inputs[2]
    cdef fbp_status status
    attribute.p[0] = p0
    attribute.p[1] = p1
    inputs[1] = operand(b, a.node.dtype, fbp_ops[<int>op].name)  # may run Python code, which could give `a` another node
    inputs[0] = a.node
    status = fbp_apply_in_place(op, 2, inputs, &attribute, sizeof(attribute), &a.node)
    fbp_release(inputs[1])
    check(status)
    if a.node.flags & FBP_REACHES:
        join_collector(a)
    return a


cdef object store(object result, object out):
    """`result`, or `out` with the result's elements where an out= argument was given."""
    if out is None:
        return result
    if not isinstance(out, Tensor):
        raise TypeError(f"argument 'out' must be Tensor, not {type(out).__name__}")
    return (<Tensor>out).copy_(result)


cdef bint writes_directly(object x, object out):
    """Whether an elementwise op on x may compute in out's memory: floats of out's type."""
    return (isinstance(x, Tensor) and isinstance(out, Tensor) and (<Tensor>x).node.dtype == (<Tensor>out).node.dtype
            and fbp_dtype_is_float(<fbp_dtype>(<Tensor>x).node.dtype))


cdef object unary_out(fbp_op op, object a, object out):
    if not writes_directly(a, out) or fbp_ops[<int>op].op_class != FBP_CLASS_POINTWISE:
        return store(unary(op, a), out)
    check(fbp_apply_out(op, 1, &(<Tensor>a).node, NULL, 0, (<Tensor>out).node))
    return out


cdef object binary_out(fbp_op op, object a, object b, object out):
    cdef fbp_tensor *inputs[2]
    if not writes_directly(a, out) or not writes_directly(b, out) or fbp_ops[<int>op].op_class != FBP_CLASS_POINTWISE:
        return store(binary(op, a, b), out)
    inputs[0] = (<Tensor>a).node
    inputs[1] = (<Tensor>b).node
    check(fbp_apply_out(op, 2, inputs, NULL, 0, (<Tensor>out).node))
    return out


cdef inline bint is_differentiated(const fbp_tensor *t) noexcept:
    """Whether a tensor requires grad, or what lies behind it inside of a vmap."""
    while not fbp_requires_grad(t) and fbp_is_batched(t):
        t = fbp_batch_of(t).physical
    return fbp_requires_grad(t)


# ---- shapes and dims ---------------------------------------------------------------------------------------------------

cdef int read_sizes(object sizes, int64_t *shape) except -1:
    """Sizes given as one sequence or as numbers, f((2, 3)) or f(2, 3), into shape[]; returns how many."""
    cdef int ndim = 0
    if len(sizes) == 1 and not isinstance(sizes[0], int):
        if sizes[0] is None:
            raise TypeError("sizes must be integers, not None")
        if isinstance(sizes[0], Tensor) and (<Tensor>sizes[0]).node.ndim == 0:
            sizes = (int(sizes[0]),)
        elif hasattr(sizes[0], "__index__") and not isinstance(sizes[0], (tuple, list, Tensor)):
            sizes = (sizes[0].__index__(),)
        else:
            sizes = tuple(sizes[0])
    sizes = tuple(sizes)  # a list could change while its items are asked for their numbers
    if len(sizes) > FBP_MAX_NDIM:
        raise RuntimeError(f"a tensor has at most {FBP_MAX_NDIM} dimensions, got {len(sizes)}")
    for size in sizes:
        if not isinstance(size, int):
            try:
                size = size.__index__()
            except (AttributeError, TypeError):
                raise TypeError(f"sizes must be integers, got {type(size).__name__}: {size!r}") from None
        try:
            shape[ndim] = size
        except OverflowError:
            raise RuntimeError(f"the size {size} does not fit in 64 bits") from None
        ndim += 1
    return ndim


cdef int refuse_dim(str op, object dim) except -1:
    raise TypeError(f"{op}(): argument 'dim' must be int, not {type(dim).__name__}")


cdef int wrap_dim(str op, object dim, int ndim) except -1:
    cdef int result
    if not isinstance(dim, int):
        if isinstance(dim, float) or not hasattr(dim, "__index__"):
            refuse_dim(op, dim)
        dim = dim.__index__()
    check(fbp_dim_wrap(op.encode(), dim, ndim, &result))
    return result


cdef int axis_of(str op, object dim, const fbp_tensor *t) except -1:
    """wrap_dim() where there must be an axis: a 0-d tensor has none."""
    if t.ndim == 0:
        raise IndexError(f"{op}(): dimension specified as {dim} but tensor has no dimensions")
    return wrap_dim(op, dim, t.ndim)


cdef uint32_t dims_mask(str op, object dim, int ndim) except? 0xFFFFFFFF:
    """Bit mask of axes given as None (all), a number or a sequence of numbers."""
    cdef uint32_t mask = 0, every = ((<uint32_t>1) << ndim) - 1
    cdef int at
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return every
    for one in dim if isinstance(dim, (tuple, list)) else (dim,):
        at = wrap_dim(op, one, ndim)
        if mask >> at & 1:
            raise RuntimeError(f"{op}: dim {at} appears multiple times in the list of dims")
        mask |= (<uint32_t>1) << at
    return mask & every


cdef inline tuple shape_tuple(const fbp_tensor *t):
    return tuple([fbp_shape(t)[i] for i in range(t.ndim)])
