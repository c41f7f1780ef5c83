# Factorizations: the core's callback into NumPy, and the one door from Python to their rows.

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    enum: PyBUF_READ
    enum: PyBUF_WRITE

cdef extern from "ops/op.h" nogil:
    ctypedef struct fbp_call:
        fbp_op op
        int count
        fbp_tensor **inputs
        const void *attributes
        int attribute_bytes

cdef extern from "ops/linalg.h" nogil:
    fbp_status (*fbp_host_linear_algebra)(const fbp_call *call, fbp_tensor *out) noexcept with gil


cdef object memory_array(const fbp_tensor *t, int access):
    """A NumPy array over the elements of a tensor that a line of a plan may own: it must not outlive the line."""
    cdef Py_ssize_t size = fbp_dtype_size(<fbp_dtype>t.dtype), low = 0, high = 0, reach
    name = (<dtype>DTYPES[t.dtype]).name
    if t.numel == 0:
        return numpy().empty(shape_tuple(t), name)
    for i in range(t.ndim):
        reach = (fbp_shape(t)[i] - 1) * fbp_strides(t)[i] * size
        if reach < 0:
            low += reach
        else:
            high += reach
    return numpy().ndarray(shape_tuple(t), name, PyMemoryView_FromMemory(t.data + low, high - low + size, access), -low,
                           tuple([fbp_strides(t)[i] * size for i in range(t.ndim)]))


cdef object lapack = None


cdef fbp_status call_lapack(const fbp_call *call, fbp_tensor *out) noexcept with gil:
    """The core's callback: compute a factorization with NumPy.  An exception waits (keep_error)."""
    global lapack
    cdef fbp_matrix_attribute none
    cdef int i
    for i in range(call.count):  # while NumPy runs, other threads may make handles stand for other elements
        fbp_retain(call.inputs[i])
    fbp_retain(out)
    memset(&none, 0, sizeof(none))
    try:
        if lapack is None:
            from fastbp.linalg import _lapack
            lapack = _lapack.compute
        given = None  # the usual case: all of them 0
        if call.attribute_bytes and memcmp(call.attributes, &none, sizeof(none)) != 0:
            given = attributes_read(<int>call.op, call.attributes, call.attribute_bytes)
        lapack(fbp_ops[<int>call.op].name.decode(), [memory_array(call.inputs[i], PyBUF_READ) for i in range(call.count)],
               memory_array(out, PyBUF_WRITE), given)
        return FBP_OK
    except BaseException as error:
        return keep_error(error)
    finally:
        for i in range(call.count):
            fbp_release(call.inputs[i])
        fbp_release(out)


fbp_host_linear_algebra = call_lapack

cdef dict FACTORIZATIONS = {name: op for name, op in (
    ("inverse", FBP_OP_inverse), ("solve", FBP_OP_solve), ("solve_triangular", FBP_OP_solve_triangular), ("cholesky", FBP_OP_cholesky),
    ("qr", FBP_OP_qr), ("eigh", FBP_OP_eigh), ("svd", FBP_OP_svd), ("pinv", FBP_OP_pinv), ("det", FBP_OP_det), ("slogdet", FBP_OP_slogdet))}


def _factorize(name, input, other=None, *, upper=False, unit=False, values=False, complete=False, lenient=False, atol=0.0, rtol=0.0):
    """Apply a row of csrc/ops/linalg_ops.c, whose result is packed as its head says.  What fastbp.linalg is made of."""
    cdef fbp_matrix_attribute attribute
    cdef fbp_tensor *inputs[2]
    cdef fbp_tensor *out
    cdef int count = 1
    if not isinstance(input, Tensor) or not (other is None or isinstance(other, Tensor)):
        wrong = other if isinstance(input, Tensor) else input
        raise TypeError(f"linalg.{name}(): argument must be Tensor, not {builtin_type(wrong).__name__}")
    memset(&attribute, 0, sizeof(attribute))
    attribute.upper, attribute.unit, attribute.values = bool(upper), bool(unit), bool(values)
    attribute.complete, attribute.lenient, attribute.atol, attribute.rtol = bool(complete), bool(lenient), atol, rtol
    inputs[0] = (<Tensor>input).node
    if other is not None:
        inputs[1] = (<Tensor>other).node
        count = 2
    check(fbp_apply(<fbp_op><int>FACTORIZATIONS[name], count, inputs, &attribute, sizeof(attribute), &out))
    return wrap(out)
