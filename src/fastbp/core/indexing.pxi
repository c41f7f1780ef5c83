# Tensor.__getitem__ and __setitem__.
#
# A subscript is read once into a `Subscript`: a slice of x's axes (one view op), new axes of size 1 (a reshape), and
# index arrays, each over one axis of what these two give (a mask over several).  Index arrays become int64 positions
# over the axes they stand on, taken together; `take` and `index_select` read there, `put` and `put_add` write there.

cdef str BAD_INDEX = "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})"


@cython.binding(False)
cdef class Subscript:
    """x[...] taken apart."""

    cdef fbp_slice_attribute slice
    cdef bint whole          # the slice leaves all as it is
    cdef bint widened        # there are new axes
    cdef int64_t shape[FBP_MAX_NDIM]   # after slicing, new axes included
    cdef int ndim
    cdef list arrays         # of (first axis, number of axes, index tensor: int64, or bool for masks)


cdef object as_index(object item):
    """An index array as a tensor: int64, or bool for masks."""
    cdef Tensor result
    if isinstance(item, Tensor):
        result = item
    else:
        try:
            result = as_tensor(item) if hasattr(item, "__array__") else tensor(item)
        except (TypeError, ValueError, RuntimeError) as error:
            if hasattr(item, "dtype") and item.dtype.kind in "iu":
                return tensor(item, dtype=int64)
            raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors ({error})") from None
        if result.node.numel == 0 and not hasattr(item, "dtype"):
            return result.long()
        if result.node.dtype == FBP_UINT8:
            return cast(result, FBP_INT64)  # NumPy's uint8 are numbers, only PyTorch's are masks
    if result.node.dtype == FBP_UINT8:
        import warnings
        warnings.warn("indexing with dtype uint8 is deprecated, please use a dtype bool instead.", UserWarning, stacklevel=2)
        return cast(result, FBP_BOOL)
    if result.node.dtype >= FBP_FLOAT32:
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return result if result.node.dtype == FBP_BOOL else cast(result, FBP_INT64)


cdef inline int64_t bounded(object index, int dim, int64_t size) except -1:
    """A number as an index of an axis, counted from the end when negative."""
    cdef int64_t at
    try:
        at = index  # what a subclass of int says of itself is not asked
    except OverflowError:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {size}") from None
    if not -size <= at < size:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {size}")
    return at if at >= 0 else at + size


cdef int read_slice(slice item, int64_t size, fbp_slice_axis *axis) except -1:
    """A Python slice of an axis."""
    cdef int64_t start, stop, step
    if item.start is None and item.stop is None and item.step is None:
        axis[0] = fbp_slice_axis(0, 1, size, size)
        return 0
    try:
        begin, end, stride = item.indices(size)
    except TypeError:
        raise TypeError("slice indices must be integers or None or have an __index__ method") from None
    if stride < 0:
        raise ValueError("step must be greater than zero")
    start, stop, step = begin, end, builtin_min(stride, 0x7FFF_FFFF_FFFF_FFFF)
    axis[0] = fbp_slice_axis(start, step, 0 if stop <= start else (stop - start - 1) // step + 1, size)
    if axis.count <= 1:
        axis.step = 1  # a step that leads nowhere must not overflow a stride
    return 0


cdef bint is_scalar_index(object item):
    """Whether this selects one element of an axis: an int, an integer NumPy scalar, a 0-d integer tensor or array.

    Inside of a vmap a 0-d tensor is another number in each example: an index array of no dimensions.
    """
    if isinstance(item, Tensor):
        return ((<Tensor>item).node.ndim == 0 and FBP_UINT8 < (<Tensor>item).node.dtype < FBP_FLOAT32
                and not fbp_is_batched((<Tensor>item).node))
    return hasattr(item, "__index__") and (not hasattr(item, "ndim") or (item.ndim == 0 and item.dtype.kind in "iu"))


cdef list classified(object index):
    """The items of a subscript with arrays made tensors; bool scalars stay Python bools."""
    cdef list items = []
    for item in index if isinstance(index, tuple) else (index,):
        if item is None or item is Ellipsis or isinstance(item, (int, slice)):
            items.append(item)
        elif isinstance(item, (float, complex, str, bytes)):
            raise IndexError(BAD_INDEX.format(builtin_type(item).__name__))
        elif is_scalar_index(item):
            items.append(item.__index__())
        elif isinstance(item, (Tensor, list, tuple, range)) or hasattr(item, "__array__"):
            item = as_index(item)
            items.append(bool(item) if item.ndim == 0 and item.dtype is bool_ else item)
        else:
            raise IndexError(BAD_INDEX.format(builtin_type(item).__name__))
    return items


cdef int consumed(object item) except -1:
    """Axes of x that an item stands for."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and (<Tensor>item).node.dtype == FBP_BOOL:
        return (<Tensor>item).node.ndim
    return 1


cdef int keep_axis(Subscript s, int64_t count) except -1:
    if s.ndim == FBP_MAX_NDIM:
        raise IndexError(f"the result would have more than {FBP_MAX_NDIM} dimensions")
    s.shape[s.ndim] = count
    s.ndim += 1
    return 0


cdef int read_array(Subscript s, int axis, Tensor item, const int64_t *sizes) except -1:
    """An index array standing on x's axis `axis` on, the slice there being whole."""
    cdef int i, count = item.node.ndim if item.node.dtype == FBP_BOOL else 1
    if item.node.dtype == FBP_BOOL:
        for i in range(count):
            if fbp_shape(item.node)[i] != sizes[axis + i]:
                raise IndexError(f"The shape of the mask {list(item.shape)} at index {i} does not match the shape of the indexed tensor "
                                 f"at index {axis + i}, which is {sizes[axis + i]}")
    s.arrays.append((s.ndim, count, item))
    for i in range(count):
        keep_axis(s, sizes[axis + i])
    return 0


cdef Subscript read_subscript(Tensor x, object index):
    cdef Subscript s = Subscript.__new__(Subscript)
    cdef list items = classified(index)
    cdef int axis = 0, i, used = 0
    cdef int64_t at
    cdef const int64_t *sizes = fbp_shape(x.node)
    cdef fbp_slice_axis *entry
    s.whole = True
    s.arrays = []
    s.slice.ndim = x.node.ndim
    for item in items:
        used += consumed(item)
    if used > x.node.ndim:
        if x.node.ndim == 0:
            raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim tensor to a number")
        raise IndexError(f"too many indices for tensor of dimension {x.node.ndim}")
    for i in range(x.node.ndim):
        s.slice.axis[i] = fbp_slice_axis(0, 1, sizes[i], sizes[i])
    for item in items:
        entry = &s.slice.axis[axis]
        if item is Ellipsis:
            for i in range(x.node.ndim - used):
                keep_axis(s, sizes[axis + i])
            axis += x.node.ndim - used
            used = x.node.ndim  # a second one stands for nothing
        elif item is None or isinstance(item, bool):
            s.widened = True
            if item is not None:
                s.arrays.append((s.ndim, 1, tensor([0] if item else [], dtype=int64)))
            keep_axis(s, 1)
        elif isinstance(item, slice):
            read_slice(item, sizes[axis], entry)
            s.whole = s.whole and entry.count == entry.size and entry.step == 1
            keep_axis(s, entry.count)
            axis += 1
        elif isinstance(item, Tensor):
            read_array(s, axis, item, sizes)
            axis += consumed(item)
        else:
            at = bounded(item, axis, sizes[axis])
            entry[0] = fbp_slice_axis(at, 1, 1, sizes[axis])
            s.slice.dropped |= <uint32_t>1 << axis
            s.whole = False
            axis += 1
    for i in range(axis, x.node.ndim):
        keep_axis(s, sizes[i])
    return s


cdef Tensor basic_part(Tensor x, Subscript s):
    """The view that slices, numbers and new axes make of x; x itself where they change nothing."""
    cdef fbp_tensor *out
    if not s.whole:
        check(fbp_apply(FBP_OP_slice, 1, &x.node, &s.slice, slice_bytes(s.slice.ndim), &out))
        x = wrap(out)
    return as_shape(FBP_OP_reshape, x, s.ndim, s.shape) if s.widened else x


# ---- index arrays ----------------------------------------------------------------------------------------------------------------

cdef Tensor positions_of(list indices, int first, const int64_t *sizes):
    """Row-major positions over the axes first, first + 1, ... of these sizes, which int64 tensors of one shape index."""
    cdef fbp_take_attribute attribute
    attribute.axes = first
    attribute.ndim = len(indices)
    memcpy(attribute.shape, sizes, len(indices) * sizeof(int64_t))
    indices = [x if fbp_is_contiguous((<Tensor>x).node) else x.contiguous() for x in indices]
    return apply_list(FBP_OP_positions, indices, &attribute, <int>(sizeof(int64_t) * (2 + len(indices))))


cdef list broadcast_indices(list indices):
    """Index tensors repeated to their common shape."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int ndim = 0
    for x in indices:
        if not fbp_broadcast(&ndim, shape, (<Tensor>x).node.ndim, fbp_shape((<Tensor>x).node)):
            raise IndexError("shape mismatch: indexing tensors could not be broadcast together with shapes "
                             + ", ".join([str(list(y.shape)) for y in indices]))
    return [as_shape(FBP_OP_expand, x, ndim, shape) for x in indices]


@cython.binding(False)
cdef class Placed:
    """Index arrays made one: `positions` over `count` axes from `first` on, once the axes stand in `order` (None: as they are)."""

    cdef Tensor positions
    cdef int first, count
    cdef list order


cdef Placed placed(Subscript s):
    """The index arrays of a subscript, checked and put together."""
    cdef Placed p = Placed.__new__(Placed)
    cdef list indices = [], axes = []
    cdef int64_t sizes[FBP_MAX_NDIM]
    cdef int i, first, count
    if len(s.arrays) == 1 and (<Tensor>s.arrays[0][2]).node.dtype == FBP_BOOL:
        p.first, p.count, mask = s.arrays[0]
        p.positions = nonzero(mask.reshape(-1)).reshape(-1)
        return p
    for first, count, index in s.arrays:
        if (<Tensor>index).node.dtype == FBP_BOOL:
            found = nonzero(index)
            for i in range(count):
                indices.append(sliced(found, 1, i, 1, 1, True))
                axes.append(first + i)
        else:
            indices.append(index)
            axes.append(first)
    if len(indices) > 1:
        indices = broadcast_indices(indices)
    p.first, p.count = axes[0], len(axes)
    if axes[len(axes) - 1] - axes[0] == len(axes) - 1:
        p.positions = positions_of(indices, p.first, s.shape + p.first)
        return p
    # Separated by whole axes: they go to the front, as NumPy does.  Each is checked under its own axis' number first.
    for i, axis in enumerate(axes):
        indices[i] = positions_of([indices[i]], axis, s.shape + <int>axis)
        sizes[i] = s.shape[<int>axis]
    p.first = 0
    p.order = axes + [i for i in range(s.ndim) if i not in axes]
    p.positions = positions_of(indices, 0, sizes)
    return p


cdef void fill_take(fbp_take_attribute *attribute, int axes, const fbp_tensor *x):
    attribute.axes = axes
    attribute.ndim = x.ndim
    memcpy(attribute.shape, fbp_shape(x), x.ndim * sizeof(int64_t))


cdef inline int take_bytes(int ndim) noexcept:
    return <int>(sizeof(int64_t) * (2 + ndim))


cdef Tensor take_leading(Tensor x, Tensor positions, int axes):
    """x's rows over its first axes."""
    cdef fbp_take_attribute attribute
    cdef fbp_tensor *inputs[2]
    cdef fbp_tensor *out
    fill_take(&attribute, axes, x.node)
    inputs[0], inputs[1] = x.node, positions.node
    check(fbp_apply(FBP_OP_take, 2, inputs, &attribute, take_bytes(x.node.ndim), &out))
    return wrap(out)


cdef tuple result_shape(Subscript s, Placed p):
    """Sizes of x[...]: the positions' in place of the axes they stand on."""
    if p.order is not None:
        return shape_tuple(p.positions.node) + tuple([s.shape[<int>i] for i in p.order[p.count:]])
    return (tuple([s.shape[i] for i in range(p.first)]) + shape_tuple(p.positions.node)
            + tuple([s.shape[i] for i in range(p.first + p.count, s.ndim)]))


cdef Tensor take_placed(Tensor base, Subscript s, Placed p):
    cdef tuple shape
    if p.order is not None:
        return take_leading(permuted(base, p.order), p.positions, p.count)
    if p.first == 0:
        return take_leading(base, p.positions, p.count)
    shape = result_shape(s, p)
    if p.count > 1:
        base = reshaped(base, shape_tuple(base.node)[:p.first] + (builtin_product(base, p.first, p.count),)
                        + shape_tuple(base.node)[p.first + p.count:], False)
    picked = indexed(FBP_OP_index_select, base, p.first, p.positions if p.positions.node.ndim == 1 else p.positions.reshape(-1), None)
    return picked if p.positions.node.ndim == 1 else reshaped(picked, (shape,), False)


cdef int64_t builtin_product(Tensor x, int first, int count):
    cdef int64_t product = 1
    cdef int i
    for i in range(first, first + count):
        product *= fbp_shape(x.node)[i]
    return product


cdef object get_item(Tensor x, object index):
    """x[index]."""
    cdef Subscript s
    cdef fbp_slice_axis axis
    cdef int64_t at
    if x.node.ndim:
        if PyLong_CheckExact(index):
            return sliced(x, 0, bounded(index, 0, fbp_shape(x.node)[0]), 1, 1, True)
        if isinstance(index, slice):
            read_slice(index, fbp_shape(x.node)[0], &axis)
            return sliced(x, 0, axis.start, axis.count, axis.step, False)
    s = read_subscript(x, index)
    if s.arrays:
        return take_placed(basic_part(x, s), s, placed(s))
    if s.whole and not s.widened:  # x[...]: another tensor over the same elements
        return as_shape(FBP_OP_reshape, x, s.ndim, s.shape)
    return basic_part(x, s)


# ---- writing ---------------------------------------------------------------------------------------------------------------------

cdef Tensor value_for(object value, Tensor x):
    """What is written, as a tensor of x's dtype."""
    cdef Tensor result = wrap(operand(value, x.node.dtype, b"index_put"))
    return cast(result, <fbp_dtype>x.node.dtype)


cdef Tensor broadcast_value(Tensor value, tuple shape):
    """Repeated to a shape; leading axes of size 1 that it lacks are dropped."""
    cdef int64_t sizes[FBP_MAX_NDIM]
    cdef int ndim = read_sizes((shape,), sizes)
    given = shape_tuple(value.node)
    while len(given) > ndim and given[0] == 1:
        given = given[1:]
    try:
        if len(given) < value.node.ndim:
            value = reshaped(value, (given,), False)
        return as_shape(FBP_OP_expand, value, ndim, sizes)
    except RuntimeError:
        raise RuntimeError(f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing result of shape "
                           f"{list(shape)}") from None


cdef int write_positions(int op, Tensor x, Tensor positions, int axes, Tensor value) except -1:
    """put or put_add into x's own elements."""
    cdef fbp_take_attribute attribute
    cdef fbp_tensor *inputs[3]
    fill_take(&attribute, axes, x.node)
    inputs[0], inputs[1], inputs[2] = x.node, positions.node, value.node
    check(fbp_apply_in_place(op, 3, inputs, &attribute, take_bytes(x.node.ndim), &x.node))
    return 0


cdef int write_placed(int op, Tensor x, Subscript s, object value) except -1:
    """x[...] = value, or += for put_add, where index arrays take part."""
    cdef Placed p
    cdef Tensor source, view
    check(fbp_writable("index_put", x.node))
    p = placed(s)
    shape = result_shape(s, p)
    source = broadcast_value(value_for(value, x), shape)
    if s.whole and not s.widened and p.order is None and p.first == 0:
        return write_positions(op, x, p.positions, p.count, source)
    if fbp_mode_get().grad_enabled and (fbp_requires_grad(x.node) or fbp_requires_grad(source.node)):
        # Recorded: one op on x itself, at the positions of single elements.
        numbers = reshaped(arange(x.node.numel), (shape_tuple(x.node),), False)
        return write_positions(op, x, take_placed(basic_part(numbers, s), s, p), x.node.ndim, source)
    view = basic_part(x, s)
    if p.order is not None:
        view = permuted(view, p.order)
    elif p.first:
        # The written axes to the front, in view and value alike.
        axes = list(range(p.first, p.first + p.count))
        view = permuted(view, axes + [i for i in range(s.ndim) if i not in axes])
        axes = list(range(p.first, p.first + p.positions.node.ndim))
        source = permuted(source, axes + [i for i in range(source.node.ndim) if i not in axes])
    return write_positions(op, view, p.positions, p.count, source)


cdef int set_item(Tensor x, object index, object value) except -1:
    """x[index] = value."""
    cdef Subscript s
    cdef fbp_tensor *source
    cdef fbp_status status
    if fbp_mode_get().capture != NULL and isinstance(index, Tensor) and (<Tensor>index).node.dtype == FBP_BOOL and \
            fbp_same_shape((<Tensor>index).node, x.node) and (not isinstance(value, Tensor) or (<Tensor>value).node.numel == 1):
        x.copy_(where(index, value, x))  # how many places there are depends on values; this does not
        return 0
    s = read_subscript(x, index)
    if s.arrays:
        return write_placed(FBP_OP_put, x, s, value)
    if s.widened and isinstance(value, Tensor) and value.ndim:
        # The place has no axis for each None: the value loses its own.
        value = broadcast_value(value, tuple([s.shape[i] for i in range(s.ndim)]))
        value = reshaped(value, (tuple([s.slice.axis[i].count for i in range(s.slice.ndim) if not s.slice.dropped >> i & 1]),), False)
    source = operand(value, x.node.dtype, b"__setitem__")
    status = fbp_assign(&x.node, &s.slice, source)
    fbp_release(source)
    check(status)
    return 0


include "selection.pxi"
