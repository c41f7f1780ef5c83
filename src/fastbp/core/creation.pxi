# Tensors from values, arrays and sizes.

from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
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
    return constant_like(input, 0, dtype, device, requires_grad)


def ones_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """Ones of input's shape and, unless given, dtype."""
    return constant_like(input, 1, dtype, device, requires_grad)


def full_like(input, fill_value, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """One number everywhere, in input's shape and, unless given, dtype."""
    return constant_like(input, fill_value.item() if isinstance(fill_value, Tensor) else fill_value, dtype, device, requires_grad)


def empty_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """Uninitialised memory of input's shape and, unless given, dtype."""
    cdef fbp_tensor *like = (<Tensor?>input).node
    if device is not None:
        check_device(device)
    return finish(new_array(like.dtype if dtype is None else dtype_code(dtype), like.ndim, fbp_shape(like)), requires_grad)


# ---- values ----------------------------------------------------------------------------------------------------------------

cdef int leaf_code(object value) except -1:
    """dtype of one value: a number, a 0-d tensor, a NumPy scalar or array."""
    if PyFloat_CheckExact(value):
        return fbp_default_dtype()
    if PyLong_CheckExact(value):
        return FBP_INT64
    if isinstance(value, bool):
        return FBP_BOOL
    if isinstance(value, Tensor):
        return (<Tensor>value).node.dtype
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        return dtype_code(supported_array(value).dtype)
    if isinstance(value, float):
        return fbp_default_dtype()
    if isinstance(value, int) or (hasattr(value, "__index__") and not isinstance(value, builtin_type)):
        return FBP_INT64
    if isinstance(value, complex):
        raise TypeError("fastbp has no complex dtype; keep real and imaginary parts as two tensors")
    raise RuntimeError(f"Could not infer dtype of {builtin_type(value).__name__}")


cdef inline bint is_nested(object value):
    """Whether this is a level of nesting rather than a number."""
    if isinstance(value, (list, tuple)):
        return True
    if isinstance(value, (int, float, Tensor)):
        return False
    return (hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, dict))
            and getattr(value, "ndim", 1) > 0)


cdef int nested_code(object values, int depth) except -1:
    """dtype of nested sequences: the largest in promotion order; -2 for no values at all."""
    cdef int one, best = -2
    if depth > FBP_MAX_NDIM:
        raise ValueError(f"a tensor has at most {FBP_MAX_NDIM} dimensions")
    for value in values:
        if isinstance(value, str):
            raise ValueError("too many dimensions 'str'")
        if is_nested(value) and not hasattr(value, "dtype"):
            one = nested_code(value, depth + 1)
        else:
            one = leaf_code(value)
        if one > best:
            best = one
    return best


cdef char *write_nested(object values, int level, int ndim, const int64_t *shape, char *at, int code) except NULL:
    """Store one level of nested sequences from `at` on; returns the place behind."""
    cdef int size = fbp_dtype_size(<fbp_dtype>code)
    if not isinstance(values, (list, tuple)):
        if not is_nested(values):
            raise TypeError("not a sequence")
        values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) != shape[level]:
        raise ValueError(f"expected sequence of length {shape[level]} at dim {level} (got {len(values)})")
    if level + 1 < ndim:
        for value in values:
            at = write_nested(value, level + 1, ndim, shape, at, code)
        return at
    for value in values:
        write_checked(at, code, value)
        at += size
    return at


cdef int write_checked(char *at, int code, object value) except -1:
    """write_element() with PyTorch's words for what cannot be stored."""
    if PyFloat_CheckExact(value) and code >= FBP_FLOAT32:
        return write_element(at, code, value)
    if isinstance(value, Tensor):
        if (<Tensor>value).node.numel != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        value = value.item()
    elif isinstance(value, (list, tuple)):
        raise TypeError(f"'{builtin_type(value).__name__}' object cannot be interpreted as an integer")
    try:
        if code == FBP_UINT8 and not -256 < value < 256:
            raise OverflowError
        return write_element(at, code, value)
    except OverflowError:
        pass
    except ValueError:
        if value == value:
            raise
    raise RuntimeError(f"value cannot be converted to type {type_name(code)} without overflow")


cdef fbp_tensor *from_nested(object data, int code) except NULL:
    """A tensor of nested sequences; code -1 infers the dtype."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int ndim = 0, found
    cdef fbp_tensor *made
    cdef bint inferred = code < 0
    level = data
    found = nested_code(data, 1)
    if code < 0:
        code = found if found >= 0 else fbp_default_dtype()
    while is_nested(level):
        if ndim == FBP_MAX_NDIM:
            raise ValueError(f"a tensor has at most {FBP_MAX_NDIM} dimensions")
        shape[ndim] = len(level)
        ndim += 1
        if shape[ndim - 1] == 0:
            break
        level = level[0]
    made = new_array(code, ndim, shape)
    try:
        write_nested(data, 0, ndim, shape, made.data, code)
    except BaseException as error:
        fbp_release(made)
        if inferred and isinstance(error, RuntimeError):
            raise ValueError("Overflow when unpacking long long") from None
        raise
    return made


cdef fbp_tensor *from_number(object value, int code) except NULL:
    """A 0-d tensor; code -1 infers the dtype."""
    cdef int found = leaf_code(value)
    cdef fbp_tensor *made = new_array(found if code < 0 else code, 0, NULL)
    try:
        write_checked(made.data, made.dtype, value)
    except BaseException as error:
        fbp_release(made)
        if code < 0 and isinstance(error, RuntimeError):
            raise ValueError("Overflow when unpacking long long") from None
        raise
    return made


def tensor(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False):
    """A fresh tensor holding copies of these values.

    Parameters
    ----------
    data : number, nested sequences of numbers, array or Tensor
    dtype : dtype, optional
        Default: the array's or tensor's own; int64 for Python ints, bool for bools, get_default_dtype() once there is a float.
    requires_grad : bool
        Record what is computed from it. Default: False.

    Raises
    ------
    ValueError
        For ragged sequences.
    TypeError
        For arrays of types that fastbp lacks; the message names the mend.
    RuntimeError
        For values that do not fit in the dtype.

    Examples
    --------
    >>> fastbp.tensor([[1, 2], [3, 4]]).dtype
    fastbp.int64
    """
    cdef int code = -1
    cdef fbp_tensor *made
    if dtype is not None:
        code = dtype_code(dtype)
    if device is not None:
        check_device(device)
    if PyFloat_CheckExact(data) or PyLong_CheckExact(data) or isinstance(data, bool):
        return finish(from_number(data, code), requires_grad)
    if isinstance(data, Tensor):
        copied = data.detach().clone()
        made = fbp_retain((<Tensor>(copied if code < 0 else cast(copied, <fbp_dtype>code))).node)
        return finish(made, requires_grad)
    if hasattr(data, "__array__"):
        return finish(copied_array(data, code), requires_grad)
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{builtin_type(data).__name__}'")
    return finish(from_nested(data, code) if is_nested(data) else from_number(data, code), requires_grad)


# ---- arrays: the buffer protocol ------------------------------------------------------------------------------------------------

cdef dict BUFFER_CODES = {b"?": FBP_BOOL, b"B": FBP_UINT8, b"i": FBP_INT32, b"l": FBP_INT64 if sizeof(long) == 8 else FBP_INT32,
                          b"q": FBP_INT64, b"f": FBP_FLOAT32, b"d": FBP_FLOAT64}


cdef object supported_array(object array):
    """`array` as an ndarray of a dtype that tensors have, in native byte order."""
    module = numpy()
    array = module.asarray(array)
    kind = array.dtype
    if not kind.isnative:
        raise ValueError("given numpy array has byte order different from the native byte order. Conversion between byte orders is "
                         "currently not supported; use array.astype(array.dtype.newbyteorder('='))")
    if kind.name not in DTYPE_BY_NAME:
        mends = {"f": "float32", "i": "int32" if kind.itemsize < 4 else "int64", "u": "int32" if kind.itemsize < 4 else "int64"}
        mend = f"; use array.astype(numpy.{mends[kind.kind]})" if kind.kind in mends else ""
        raise TypeError(f"can't convert np.ndarray of type numpy.{kind.name if kind.kind != 'O' else 'object_'}. The only supported "
                        f"types are: float64, float32, int64, int32, uint8, and bool{mend}")
    return array


cdef void release_buffer(void *owner) noexcept with gil:
    PyBuffer_Release(<Py_buffer *>owner)
    fbp_block_free(owner, sizeof(Py_buffer))


cdef int buffer_layout(const Py_buffer *view, fbp_layout *layout) except -1:
    """Shape, strides and type of a buffer, in the core's terms."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int i
    code = BUFFER_CODES.get((<bytes>view.format).lstrip(b"@=") if view.format != NULL else b"B")
    if code is None:
        raise TypeError(f"a buffer of format {(<bytes>view.format).decode()!r} is of no dtype that fastbp has")
    if view.ndim > FBP_MAX_NDIM:
        raise ValueError(f"a tensor has at most {FBP_MAX_NDIM} dimensions, the array has {view.ndim}")
    for i in range(view.ndim):
        shape[i] = view.shape[i]
    check(fbp_layout_contiguous(layout, <fbp_dtype><int>code, view.ndim, shape))
    if <size_t>view.buf % view.itemsize:
        raise ValueError("the array's elements are not aligned in memory; use array.copy()")
    for i in range(view.ndim):
        if view.strides[i] % view.itemsize and view.shape[i] > 1:
            raise ValueError("given numpy array strides not a multiple of the element byte size; use array.copy()")
        layout.strides[i] = view.strides[i] // view.itemsize
    return 0


cdef fbp_tensor *borrowed(object holder) except NULL:
    """A tensor over the memory of an object that exports a buffer; it keeps the object alive."""
    cdef fbp_layout layout
    cdef fbp_tensor *made
    cdef Py_buffer *view = <Py_buffer *>fbp_block_get(sizeof(Py_buffer))
    if view == NULL:
        raise MemoryError("cannot allocate a buffer description")
    try:
        try:
            PyObject_GetBuffer(holder, view, PyBUF_FORMAT | PyBUF_STRIDES | PyBUF_WRITABLE)
        except (BufferError, ValueError):
            PyObject_GetBuffer(holder, view, PyBUF_FORMAT | PyBUF_STRIDES)
    except BaseException:
        fbp_block_free(view, sizeof(Py_buffer))
        raise
    try:
        buffer_layout(view, &layout)
        if view.len == 0:
            made = new_array(layout.dtype, layout.ndim, layout.shape)
            release_buffer(view)
            return made
        check(fbp_tensor_borrow(&layout, view.buf, view.len, view.readonly, release_buffer, view, &made))
    except BaseException:
        release_buffer(view)
        raise
    return made


cdef fbp_tensor *copied_array(object data, int code) except NULL:
    """A tensor with copies of an array's elements; code -1 keeps the dtype, another one is converted to by NumPy."""
    cdef fbp_tensor *over
    cdef fbp_tensor *made = NULL
    cdef fbp_status status
    cdef fbp_dtype_attribute attribute
    array = numpy().asarray(data)
    if code >= 0 and array.dtype.kind in "biuf" and (array.dtype.name not in DTYPE_BY_NAME or not array.dtype.isnative):
        array = array.astype(type_name(code))
    over = borrowed(numpy().require(supported_array(array), requirements="A"))
    if code < 0 or code == over.dtype:
        status = fbp_contiguous_copy(over, &made)
    else:
        attribute.dtype = code
        status = fbp_apply(FBP_OP_cast, 1, &over, &attribute, sizeof(attribute), &made)
    fbp_release(over)
    check(status)
    return made


def from_numpy(ndarray):
    """A tensor over an array's memory: changes of one show in the other.

    Read-only arrays give tensors that cannot be changed in place; negative strides are kept.

    Raises
    ------
    TypeError
        When this is no array, or one of a dtype that fastbp lacks; the message names the mend.
    ValueError
        For another byte order than the machine's, and for unaligned elements.
    """
    if not isinstance(ndarray, numpy().ndarray):
        raise TypeError(f"expected np.ndarray (got {builtin_type(ndarray).__name__})")
    return wrap(borrowed(supported_array(ndarray)))


def frombuffer(buffer, *, dtype, count=-1, offset=0, requires_grad=False):
    """A vector over the memory of any object with the buffer protocol; see from_numpy()."""
    made = from_numpy(numpy().frombuffer(buffer, type_name(dtype_code(dtype)), count, offset))
    return made.requires_grad_() if requires_grad else made


def as_tensor(data, dtype=None, device=None):
    """`data` as a tensor, copied only where needed: tensors of that dtype stay themselves, arrays share their memory."""
    cdef Tensor made
    if device is not None:
        check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else cast(data, dtype_code(dtype))
    if hasattr(data, "__array__"):
        array = numpy().asarray(data)
        if array.ndim and array.dtype.isnative and array.dtype.name in DTYPE_BY_NAME and array.flags.aligned:
            made = from_numpy(array)
            return made if dtype is None else cast(made, dtype_code(dtype))
    return tensor(data, dtype=dtype)


def asarray(obj, *, dtype=None, device=None, copy=None, requires_grad=False):
    """as_tensor(); copy=True copies in any case, copy=False raises ValueError where a copy would be needed."""
    made = as_tensor(obj, dtype, device)
    if copy and (made is obj or hasattr(obj, "__array__")):
        made = made.detach().clone()
    elif copy is False and made is not obj and not (made._is_borrowed()):
        raise ValueError("cannot alias memory of this object")
    if requires_grad and not made.requires_grad:
        made = made.detach().requires_grad_()
    return made


# ---- ranges --------------------------------------------------------------------------------------------------------------------

cdef object plain_number(object value):
    """Bounds may be numbers or tensors and arrays of one element."""
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


include "random.pxi"
