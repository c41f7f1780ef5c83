# Tensors from sizes, and ranges; from values in values.pxi, random ones in random.pxi.

from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact

cdef extern from "graph/tensor.h" nogil:
    ctypedef struct borrowed_storage "fbp_storage":
        void *release


# ---- numbers for the core ---------------------------------------------------------------------------------------------

cdef fbp_tensor *new_array(int code, int ndim, const int64_t *shape) except NULL:
    """An uninitialised array."""
    cdef fbp_layout layout
    cdef fbp_tensor *made
    check(fbp_layout_contiguous(&layout, <fbp_dtype>code, ndim, shape))
    check(fbp_tensor_empty(&layout, 0, 0, &made))
    return made


cdef inline str type_name(int code):
    return fbp_dtype_name(<fbp_dtype>code).decode()


cdef object finish(fbp_tensor *made, object requires_grad):
    """The wrapper of a fresh leaf, whose reference is taken over."""
    if requires_grad:
        if not fbp_dtype_is_float(<fbp_dtype>made.dtype):
            fbp_release(made)
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
        made.flags |= FBP_REQUIRES_GRAD
    return wrap(made)


cdef inline int code_or_default(object dtype, object device) except -1:
    """Core code of a dtype= argument; the device= argument beside it must be the CPU."""
    if device is not None:
        check_device(device)
    return fbp_default_dtype() if dtype is None else dtype_code(dtype)


cdef inline int source_bytes(int ndim) noexcept:
    return <int>(sizeof(fbp_source_attribute) - (FBP_MAX_NDIM - ndim) * sizeof(int64_t))


cdef inline void begin_source(fbp_source_attribute *source, int code) noexcept:
    """Everything zero but the dtype; the shape is left open."""
    memset(source, 0, sizeof(fbp_source_attribute) - FBP_MAX_NDIM * sizeof(int64_t))
    source.dtype = code


cdef object from_source(int op, fbp_source_attribute *source, object requires_grad):
    """The tensor that a source op makes of its attribute."""
    cdef fbp_tensor *made
    check(fbp_apply(op, 0, NULL, source, source_bytes(source.ndim), &made))
    return finish(made, requires_grad)


cdef object set_number(fbp_source_attribute *source, object value):
    """The value of `full`: integers exactly."""
    source.integer[0] = 0
    try:
        source.p[0] = value
    except OverflowError:
        raise RuntimeError(f"value cannot be converted to type {type_name(source.dtype)} without overflow") from None
    if not fbp_dtype_is_float(<fbp_dtype>source.dtype):
        if value != value or value - value != 0:
            raise RuntimeError(f"value cannot be converted to type {type_name(source.dtype)} without overflow")
        try:
            source.integer[0] = int(value)
        except OverflowError:
            raise RuntimeError("value cannot be converted to type int64 without overflow") from None


cdef object constant(object sizes, object size, object value, int code, object requires_grad):
    """full() for sizes given one way or the other."""
    cdef fbp_source_attribute source
    begin_source(&source, code)
    source.ndim = read_sizes(sizes if size is None else (size,), source.shape)
    set_number(&source, value)
    return from_source(FBP_OP_full, &source, requires_grad)


cdef object constant_like(Tensor x, object value, object dtype, object device, object requires_grad):
    cdef fbp_source_attribute source
    if device is not None:
        check_device(device)
    begin_source(&source, x.node.dtype if dtype is None else dtype_code(dtype))
    source.ndim = x.node.ndim
    memcpy(source.shape, fbp_shape(x.node), x.node.ndim * sizeof(int64_t))
    set_number(&source, value)
    return from_source(FBP_OP_full, &source, requires_grad)


# ---- default type --------------------------------------------------------------------------------------------------------

def get_default_dtype():
    """The dtype of tensors made from Python floats: float32 unless set otherwise."""
    return DTYPES[fbp_default_dtype()]


def set_default_dtype(d):
    """Make float32 or float64 the dtype of tensors made from Python floats.

    Raises
    ------
    TypeError
        For a dtype that is not floating.
    """
    check(fbp_default_dtype_set(dtype_code(d)))


# ---- sizes ----------------------------------------------------------------------------------------------------------------

def zeros(*sizes, size=None, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """Zeros.

    Parameters
    ----------
    *sizes : int
        The shape, as numbers or one sequence.
    dtype : dtype, optional
        Default: get_default_dtype().
    requires_grad : bool
        Record what is computed from it. Default: False.

    Raises
    ------
    RuntimeError
        For negative sizes, or sizes whose product overflows.
    MemoryError
        When there is not so much memory.

    Examples
    --------
    >>> fastbp.zeros(2, 2)
    tensor([[0., 0.],
            [0., 0.]])
    """
    return store(constant(sizes, size, 0, code_or_default(dtype, device), requires_grad), out)


def ones(*sizes, size=None, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """Ones; parameters as zeros()."""
    return store(constant(sizes, size, 1, code_or_default(dtype, device), requires_grad), out)


def empty(*sizes, size=None, out=None, dtype=None, layout=None, device=None, requires_grad=False, pin_memory=False, memory_format=None):
    """Uninitialised memory; parameters as zeros()."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int ndim = read_sizes(sizes if size is None else (size,), shape)
    return store(finish(new_array(code_or_default(dtype, device), ndim, shape), requires_grad), out)


def full(size, fill_value, *, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """One number everywhere.

    Parameters
    ----------
    size : sequence of int
    fill_value : number or 0-d Tensor
    dtype : dtype, optional
        Default: that of the number, as tensor() would choose.
    """
    cdef int code
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    code = code_or_default(dtype, device)
    if dtype is None:
        code = leaf_code(fill_value)
    return store(constant((size,) if isinstance(size, int) else (tuple(size),), None, fill_value, code, requires_grad), out)


def zeros_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """Zeros of input's shape and, unless given, dtype."""
    return constant_like(tensor_argument("zeros_like", input), 0, dtype, device, requires_grad)


def ones_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """Ones of input's shape and, unless given, dtype."""
    return constant_like(tensor_argument("ones_like", input), 1, dtype, device, requires_grad)


def full_like(input, fill_value, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """One number everywhere, in input's shape and, unless given, dtype."""
    return constant_like(tensor_argument("full_like", input), fill_value.item() if isinstance(fill_value, Tensor) else fill_value, dtype, device, requires_grad)


def empty_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """Uninitialised memory of input's shape and, unless given, dtype."""
    cdef fbp_tensor *like = tensor_argument("empty_like", input).node
    if device is not None:
        check_device(device)
    return finish(new_array(like.dtype if dtype is None else dtype_code(dtype), like.ndim, fbp_shape(like)), requires_grad)


# ---- ranges --------------------------------------------------------------------------------------------------------------------

cdef object plain_number(object value):
    """Bounds may be numbers or tensors and arrays of one element."""
    if isinstance(value, SymbolicNumber):
        return fixed_number(value)
    return value.item() if hasattr(value, "item") else value


def arange(start, end=None, step=1, *, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """start, start + step, ... up to but without end; arange(end) starts at 0.

    Parameters
    ----------
    start, end, step : number
    dtype : dtype, optional
        Default: int64 when all are integers, else get_default_dtype().

    Raises
    ------
    RuntimeError
        For a step of 0, or of the wrong sign; for bounds that are not finite.

    Examples
    --------
    >>> fastbp.arange(1, 7, 2)
    tensor([1, 3, 5])
    """
    cdef fbp_source_attribute source
    if end is None:
        start, end = 0, start
    start, end, step = plain_number(start), plain_number(end), plain_number(step)
    whole = isinstance(start, int) and isinstance(end, int) and isinstance(step, int)
    begin_source(&source, code_or_default(int64 if dtype is None and whole else dtype, device))
    if step == 0:
        raise RuntimeError("step must be nonzero")
    span = end - start
    if span - span != 0:
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (span > 0) != (step > 0) and span != 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    if source.dtype == FBP_BOOL:
        raise NotImplementedError('"arange_cpu" not implemented for \'Bool\'')
    if source.dtype < FBP_FLOAT32:
        start, end, step = int(start), int(end), int(step) or int(step > 0) - int(step < 0)
        span, whole = end - start, True
    count = -(-span // step) if whole else -int((-span / step) // 1)
    try:
        source.integer[0], source.integer[1] = (start, step) if source.dtype < FBP_FLOAT32 else (0, 0)
        source.shape[0] = count
    except OverflowError:
        raise RuntimeError(f"invalid size, possible overflow: {start} -> {end} by {step}") from None
    source.p[0], source.p[1], source.ndim = start, step, 1
    return store(from_source(FBP_OP_arange, &source, requires_grad), out)


def linspace(start, end, steps, *, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """`steps` evenly spaced numbers from start to end, both included."""
    cdef fbp_source_attribute source
    cdef int code = code_or_default(dtype, device)
    begin_source(&source, code if code >= FBP_FLOAT32 else FBP_FLOAT64)
    source.p[0], source.p[1] = plain_number(start), plain_number(end)
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    source.ndim = read_sizes((steps,), source.shape)
    if code >= FBP_FLOAT32:
        return store(from_source(FBP_OP_linspace, &source, requires_grad), out)
    return store(cast(from_source(FBP_OP_linspace, &source, requires_grad), <fbp_dtype>code), out)


def logspace(start, end, steps, base=10.0, *, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """`steps` numbers from base**start to base**end, evenly spaced in the exponent."""
    powers = cast(pow(base, linspace(start, end, steps, dtype=float64)), <fbp_dtype>code_or_default(dtype, device))
    return store(powers.requires_grad_() if requires_grad else powers, out)


def eye(n, m=None, *, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """A matrix of n rows and m columns (default n) with ones on the main diagonal, zeros elsewhere."""
    cdef fbp_source_attribute source
    for size, name in ((n, "n"), (m, "m")):
        if size is not None and size < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {size}")
    begin_source(&source, code_or_default(dtype, device))
    source.ndim = read_sizes((n, n if m is None else m), source.shape)
    return store(from_source(FBP_OP_eye, &source, requires_grad), out)


include "values.pxi"
include "random.pxi"
