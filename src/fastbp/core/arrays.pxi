# Between NumPy and tensors, printing, and changes of a handle's node.

cdef object numpy_module = None


cdef object numpy():
    """The NumPy module, imported at the first use."""
    global numpy_module
    if numpy_module is None:
        import numpy as module
        numpy_module = module
    return numpy_module


cdef object as_array(Tensor x):
    """A NumPy array over x's memory; of no elements, a fresh one."""
    need_value(x.node, "numpy()")
    if x.node.numel == 0:
        return numpy().empty(shape_tuple(x.node), (<dtype>DTYPES[x.node.dtype]).name)
    return numpy().asarray(memoryview(x.detach() if fbp_requires_grad(x.node) else x))


ctypedef fused element:
    uint8_t
    int32_t
    int64_t
    float
    double


cdef list vector_list(const element[:] values):
    """The elements of one axis, of any stride, as Python numbers."""
    cdef Py_ssize_t i
    cdef list found = []
    for i in range(values.shape[0]):
        found.append(values[i])
        look_now_and_then(i)
    return found


cdef list nested_list(Tensor x):
    """Nested lists of an n-dimensional tensor's elements, read through typed memoryviews of its own buffer."""
    need_value(x.node, "tolist()")
    if fbp_requires_grad(x.node):
        x = x.detach()
    cdef fbp_tensor *t = x.node
    if t.ndim > 1:
        return [nested_list(part) for part in unbind(x)]
    if t.dtype == FBP_FLOAT32:
        return vector_list[float](x)
    if t.dtype == FBP_FLOAT64:
        return vector_list[double](x)
    if t.dtype == FBP_INT64:
        return vector_list[int64_t](x)
    if t.dtype == FBP_INT32:
        return vector_list[int32_t](x)
    if t.dtype == FBP_UINT8:
        return vector_list[uint8_t](x)
    return [value != 0 for value in vector_list[uint8_t](cast(x, FBP_UINT8))]


cdef object format_repr(Tensor x):
    from fastbp import _format
    name = None if x.node.edge_count == 0 else make_grad_fn(x.node).name()
    return _format.format_tensor(as_array(x), shape_tuple(x.node), (<dtype>DTYPES[x.node.dtype]).name, bool(fbp_requires_grad(x.node)), name,
                                 (<dtype>DTYPES[fbp_default_dtype()]).name)


def rebuild(array, requires_grad):
    """A tensor from a pickled array, copied: the pickle's own memory need not be aligned."""
    return from_numpy(numpy().array(array)).requires_grad_(requires_grad)


cdef int replace_node(Tensor x, fbp_tensor *fresh) except -1:
    """Make the handle x stand for `fresh`, whose reference is taken over."""
    cdef fbp_tensor *old = x.node
    if fresh.handle != NULL and fresh.handle != <void *>x:
        (<Tensor>fresh.handle).node = fresh  # it has a wrapper of its own already; x becomes a second one
    if old.handle == <void *>x:
        old.handle = NULL
    x.node = fresh
    watch_handle(<void *>x)
    fresh.handle = <void *>x
    fbp_release(old)
    if fresh.flags & FBP_REACHES:
        join_collector(x)
    return 0


cdef object reshape_in_place(Tensor x, Tensor viewed):
    """x stands for a view of itself from now on."""
    if fbp_requires_grad(x.node) and x.node.edge_count == 0 and fbp_mode_get().grad_enabled:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    cdef fbp_tensor *out
    if viewed is x:
        return x
    out = fbp_retain(viewed.node)
    viewed.node.handle = NULL
    replace_node(x, out)
    return x


cdef object cat_repeat(Tensor x, list times):
    """repeat() by joining copies, for shapes of many axes."""
    for dim, n in enumerate(times):
        x = cat([x] * n, dim) if n else sliced(x, dim, 0, 0, 1, False)
    return x
