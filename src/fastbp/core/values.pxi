# Tensors from numbers, nested sequences and arrays.

from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer


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
    if isinstance(value, SymbolicNumber):
        return leaf_code(fixed_number(value))
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
    if isinstance(value, (int, float, Tensor, SymbolicNumber)):
        return False
    return (hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, dict))
            and getattr(value, "ndim", 1) > 0)


cdef list items_of(object values):
    """The items of any sequence: as many as it says that it has, for it may never come to an end by itself."""
    return [values[i] for i in range(len(values))]


cdef int nested_code(object values, int depth) except -1:
    """dtype of nested sequences: the largest in promotion order; -2 for no values at all."""
    cdef int one, best = -2
    if depth > FBP_MAX_NDIM:
        raise ValueError(f"a tensor has at most {FBP_MAX_NDIM} dimensions")
    for value in values if isinstance(values, (list, tuple)) else items_of(values):
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
    cdef int64_t left = shape[level]
    if not isinstance(values, (list, tuple)):
        if not is_nested(values):
            raise TypeError("not a sequence")
        values = values.tolist() if hasattr(values, "tolist") else items_of(values)
    if len(values) != left:
        raise ValueError(f"expected sequence of length {shape[level]} at dim {level} (got {len(values)})")
    for value in values:
        left -= 1
        if left < 0:
            break
        if level + 1 < ndim:
            at = write_nested(value, level + 1, ndim, shape, at, code)
        else:
            write_checked(at, code, value)
            at += size
    if left != 0:  # asking an item for its number has changed the list
        raise ValueError(f"expected sequence of length {shape[level]} at dim {level} (it changed while it was read)")
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
    if isinstance(data, SymbolicNumber):
        return finish(from_number(fixed_number(data), code), requires_grad)
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
    if view.itemsize != fbp_dtype_size(<fbp_dtype><int>code):
        raise TypeError(f"a buffer whose elements of format {(<bytes>view.format).decode()!r} take {view.itemsize} bytes is not supported")
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


cdef fbp_tensor *over_array(object array) except NULL:
    """borrowed() for an ndarray; where that fails, the reason in PyTorch's words."""
    try:
        return borrowed(array)  # first: asking NumPy for a dtype's name takes longer than all the rest
    except (TypeError, ValueError, BufferError):
        supported_array(array)
        raise


cdef fbp_tensor *copied_array(object data, int code) except NULL:
    """A tensor with copies of an array's elements; code -1 keeps the dtype, another one is converted to by NumPy."""
    cdef fbp_tensor *over
    cdef fbp_tensor *made = NULL
    cdef fbp_status status
    cdef fbp_dtype_attribute attribute
    array = numpy().asarray(data)
    try:
        over = borrowed(array)
    except (TypeError, ValueError, BufferError):
        if code >= 0 and array.dtype.kind in "biuf" and (array.dtype.name not in DTYPE_BY_NAME or not array.dtype.isnative):
            array = array.astype(type_name(code))
        over = borrowed(supported_array(array).copy())
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
    return wrap(over_array(ndarray))


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
        if array.ndim:
            try:
                made = wrap(borrowed(array))
            except (TypeError, ValueError, BufferError):
                pass  # tensor() converts it, or says why not
            else:
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
