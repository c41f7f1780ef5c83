# Views, copies, joins and splits.

cdef object as_shape(fbp_op op, Tensor x, int ndim, const int64_t *shape):
    """reshape or expand to sizes that are all known."""
    cdef fbp_shape_attribute attribute
    cdef fbp_tensor *out
    attribute.ndim = ndim
    memcpy(attribute.shape, shape, ndim * sizeof(int64_t))
    check(fbp_apply(op, 1, &x.node, &attribute, shape_bytes(ndim), &out))
    return wrap(out)


cdef object reshaped(Tensor x, object sizes, bint view_only):
    """reshape()/view(): one size may be -1."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int64_t known = 1
    cdef int i, unknown = -1, ndim = read_sizes(sizes, shape)
    cdef Tensor result
    for i in range(ndim):
        if shape[i] == -1:
            if unknown >= 0:
                raise RuntimeError("only one dimension can be inferred")
            unknown = i
        else:
            known *= shape[i]
    if unknown >= 0:
        if known == 0 or x.node.numel % known:
            if known == 0 and x.node.numel == 0:
                raise RuntimeError(f"cannot reshape tensor of 0 elements into shape {tuple(sizes)!r} because the unspecified dimension "
                                   "size -1 can be any value and is ambiguous")
            raise RuntimeError(f"shape '{[shape[i] for i in range(ndim)]}' is invalid for input of size {x.node.numel}")
        shape[unknown] = x.node.numel // known
    result = as_shape(FBP_OP_reshape, x, ndim, shape)
    if view_only and not (result.node.flags & FBP_VIEW) and not fbp_is_batched(result.node):  # what lies behind may be copied
        raise RuntimeError("view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
                           "contiguous subspaces). Use .reshape(...) instead.")
    return result


cdef object permuted(Tensor x, object axes):
    cdef fbp_permute_attribute attribute
    cdef fbp_tensor *out
    cdef int i
    axes = tuple(axes)  # a list could change while its items are asked for their numbers
    if len(axes) != x.node.ndim:
        raise RuntimeError("permute: number of dimensions in the tensor input does not match the length of the desired ordering of "
                           f"dimensions, {x.node.ndim} is not equal to {len(axes)}")
    attribute.ndim = x.node.ndim
    attribute.padding = 0
    memset(attribute.axes, 0, FBP_MAX_NDIM)
    for i, axis in enumerate(axes):
        attribute.axes[i] = wrap_dim("permute", axis, x.node.ndim)
    check(fbp_apply(FBP_OP_permute, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object transposed(Tensor x, object dim0, object dim1):
    cdef int a = wrap_dim("transpose", dim0, x.node.ndim), b = wrap_dim("transpose", dim1, x.node.ndim)
    cdef list axes = list(range(x.node.ndim))
    if x.node.ndim:
        axes[a], axes[b] = axes[b], axes[a]
    return permuted(x, axes)


cdef object sliced(Tensor x, int dim, int64_t start, int64_t count, int64_t step, bint drop):
    """`count` elements of one axis from `start` on; the others whole."""
    cdef fbp_slice_attribute attribute
    cdef fbp_tensor *out
    cdef int i
    attribute.ndim = x.node.ndim
    attribute.dropped = (<uint32_t>1 << dim) if drop else 0
    for i in range(x.node.ndim):
        attribute.axis[i] = fbp_slice_axis(0, 1, fbp_shape(x.node)[i], fbp_shape(x.node)[i])
    attribute.axis[dim].start = start
    attribute.axis[dim].step = step
    attribute.axis[dim].count = count
    check(fbp_apply(FBP_OP_slice, 1, &x.node, &attribute, slice_bytes(x.node.ndim), &out))
    return wrap(out)


cdef object cast(Tensor x, fbp_dtype code):
    """x itself when it has that dtype."""
    cdef fbp_dtype_attribute attribute
    cdef fbp_tensor *out
    if x.node.dtype == code:
        return x
    attribute.dtype = code
    check(fbp_apply(FBP_OP_cast, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object apply_list(fbp_op op, list tensors, const void *attribute, int attribute_bytes):
    """One op over any number of tensors."""
    cdef Py_ssize_t i, n = len(tensors)
    cdef fbp_tensor *out
    cdef fbp_status status
    cdef fbp_tensor **inputs = <fbp_tensor **>fbp_block_get(n * sizeof(fbp_tensor *))
    if inputs == NULL:
        raise MemoryError("cannot allocate a list of inputs")
    for i in range(n):
        inputs[i] = (<Tensor>tensors[i]).node
    status = fbp_apply(op, <int>n, inputs, attribute, attribute_bytes, &out)
    fbp_block_free(inputs, n * sizeof(fbp_tensor *))
    check(status)
    return wrap(out)


def reshape(input, shape):
    """The same elements in row-major order under another shape; one size may be -1."""
    return reshaped(tensor_argument("reshape", input), (shape,), False)


def permute(input, dims):
    """Axes in another order, as a view."""
    return permuted(tensor_argument("permute", input), tuple(dims))


def transpose(input, dim0, dim1):
    """Two axes swapped, as a view."""
    return transposed(tensor_argument("transpose", input), dim0, dim1)


def t(input):
    """A matrix transposed, as a view; vectors and scalars as they are."""
    return tensor_argument("t", input).t()


def movedim(input, source, destination):
    """Axes moved to other positions, the others in their old order."""
    ndim = tensor_argument("movedim", input).node.ndim
    source = [wrap_dim("movedim", d, ndim) for d in (source if isinstance(source, (tuple, list)) else (source,))]
    destination = [wrap_dim("movedim", d, ndim) for d in (destination if isinstance(destination, (tuple, list)) else (destination,))]
    if len(source) != len(destination):
        raise RuntimeError(f"movedim: Invalid source or destination dims: source ({source} dims) should contain the same number of dims as "
                           f"destination ({destination} dims)")
    if len(set(source)) != len(source) or len(set(destination)) != len(destination):
        raise RuntimeError(f"movedim: repeated dim in source ({source}) or destination ({destination})")
    if ndim == 0:
        return reshaped(input, ((),), False)
    order = [d for d in range(ndim) if d not in source]
    for to, origin in sorted(zip(destination, source)):
        order.insert(to, origin)
    return permuted(input, order)


def squeeze(input, dim=None):
    """Without axes of size 1: all of them, or those named."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef Tensor x = tensor_argument("squeeze", input)
    cdef uint32_t mask = dims_mask("squeeze", dim, x.node.ndim) if dim is not None else 0xFFFF
    cdef int i, ndim = 0
    for i in range(x.node.ndim):
        if fbp_shape(x.node)[i] != 1 or not (mask >> i & 1):
            shape[ndim] = fbp_shape(x.node)[i]
            ndim += 1
    return as_shape(FBP_OP_reshape, x, ndim, shape)


def unsqueeze(input, dim):
    """With a new axis of size 1."""
    cdef int64_t shape[FBP_MAX_NDIM + 1]
    cdef Tensor x = tensor_argument("unsqueeze", input)
    cdef int i, at = wrap_dim("unsqueeze", dim, x.node.ndim + 1)
    if x.node.ndim == FBP_MAX_NDIM:
        raise RuntimeError(f"a tensor has at most {FBP_MAX_NDIM} dimensions")
    for i in range(x.node.ndim):
        shape[i + (i >= at)] = fbp_shape(x.node)[i]
    shape[at] = 1
    return as_shape(FBP_OP_reshape, x, x.node.ndim + 1, shape)


def flatten(input, start_dim=0, end_dim=-1):
    """Axes start_dim to end_dim as one."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef Tensor x = tensor_argument("flatten", input)
    cdef int i, start = wrap_dim("flatten", start_dim, x.node.ndim), end = wrap_dim("flatten", end_dim, x.node.ndim), ndim = 0
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if x.node.ndim == 0:
        shape[0] = 1
        return as_shape(FBP_OP_reshape, x, 1, shape)
    for i in range(x.node.ndim):
        if start < i <= end:
            shape[ndim - 1] *= fbp_shape(x.node)[i]
        else:
            shape[ndim] = fbp_shape(x.node)[i]
            ndim += 1
    return as_shape(FBP_OP_reshape, x, ndim, shape)


def ravel(input):
    """One axis."""
    return reshaped(tensor_argument("ravel", input), (-1,), False)


def unflatten(input, dim, sizes):
    """One axis as several."""
    cdef Tensor x = tensor_argument("unflatten", input)
    if isinstance(sizes, (tuple, list)) and not sizes:
        raise RuntimeError("unflatten(): sizes must be non-empty")
    cdef int at = wrap_dim("unflatten", dim, x.node.ndim)
    if x.node.ndim == 0:
        raise IndexError("unflatten(): a 0-d tensor has no dimension to unflatten")
    return reshaped(x, resolve_unflatten(shape_tuple(x.node), at, tuple(sizes)), False)


cdef tuple resolve_unflatten(tuple shape, int at, tuple sizes):
    """The shape with `sizes` in place of axis `at`; one of them may be -1."""
    if sizes.count(-1) > 1:
        raise RuntimeError("only one dimension can be inferred")
    known = 1
    for size in sizes:
        known *= size if size != -1 else 1
    wrong = f"unflatten(): provided sizes {list(sizes)} don't multiply up to the size of dim {at} ({shape[at]}) in the input tensor"
    if -1 in sizes and (known == 0 or shape[at] % known):
        raise RuntimeError(wrong)
    sizes = tuple([shape[at] // known if size == -1 else size for size in sizes])
    known = 1
    for size in sizes:
        known *= size
    if known != shape[at]:
        raise RuntimeError(wrong)
    return shape[:at] + sizes + shape[at + 1:]


def broadcast_to(input, shape):
    """Repeated to a shape without copying."""
    return tensor_argument("broadcast_to", input).expand(shape)


def broadcast_tensors(*tensors):
    """All repeated to their common shape."""
    shape = broadcast_shapes(*[shape_tuple(tensor_argument("broadcast_tensors", x, "tensors").node) for x in tensors])
    return tuple([x.expand(shape) for x in tensors])


def broadcast_shapes(*shapes):
    """The shape to which all broadcast."""
    cdef int64_t result[FBP_MAX_NDIM]
    cdef int64_t other[FBP_MAX_NDIM]
    cdef int ndim = 0, other_ndim
    for shape in shapes:
        other_ndim = read_sizes((shape,), other)
        if not fbp_broadcast(&ndim, result, other_ndim, other):
            raise RuntimeError(f"shapes cannot be broadcast together: {', '.join(str(tuple(s)) for s in shapes)}")
    return Size([result[i] for i in range(ndim)])


def clone(input, *, memory_format=None):
    """A contiguous copy that takes part in differentiation."""
    return unary(FBP_OP_copy, input)


def narrow(input, dim, start, length):
    """`length` elements of an axis from `start` on, as a view."""
    cdef Tensor x = tensor_argument("narrow", input)
    cdef int at = wrap_dim("narrow", dim, x.node.ndim)
    if x.node.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    size = fbp_shape(x.node)[at]
    start, length = int(start), length.__index__()
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -size <= start <= size:
        raise IndexError(f"start out of range (expected to be in range of [{-size}, {size}], but got {start})")
    if start < 0:
        start += size
    if start + length > size:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    return sliced(x, at, start, length, 1, False)


def select(input, dim, index):
    """One element of an axis, which goes away; a view."""
    cdef Tensor x = tensor_argument("select", input)
    cdef int at = wrap_dim("select", dim, x.node.ndim)
    if x.node.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    size = fbp_shape(x.node)[at]
    if not -size <= index < size:
        raise IndexError(f"select(): index {index} out of range for tensor of size {list(shape_tuple(x.node))} at dimension {dim}")
    return sliced(x, at, index + size if index < 0 else index, 1, 1, True)


def split(tensor, split_size_or_sections, dim=0):
    """Views of an axis cut into pieces of a size, or of the sizes listed."""
    cdef Tensor x = tensor_argument("split", tensor, "tensor")
    cdef int at = wrap_dim("split", dim, x.node.ndim)
    if x.node.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    size = fbp_shape(x.node)[at]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step < 0 or (step == 0 and size):
            raise RuntimeError(f"split expects split_size be positive, but got split_size={step}")
        sizes = [] if size else [0]
        for begin in range(0, size, step or 1):
            sizes.append(builtin_min(step, size - begin))
            look_now_and_then(len(sizes))
    else:
        sizes = list(split_size_or_sections)
        for step in sizes:
            if step < 0:
                raise RuntimeError(f"split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={sizes}")
        if builtin_sum(sizes) != size:
            raise RuntimeError(f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at dimension {at}), "
                               f"but got split_sizes={sizes}")
    pieces, begin = [], 0
    for piece in sizes:
        pieces.append(sliced(x, at, begin, piece, 1, False))
        begin += piece
        look_now_and_then(len(pieces))
    return tuple(pieces)


def chunk(input, chunks, dim=0):
    """Views of an axis cut into at most `chunks` equal pieces, the last perhaps smaller."""
    cdef Tensor x = tensor_argument("chunk", input)
    if x.node.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    size = fbp_shape(x.node)[wrap_dim("chunk", dim, x.node.ndim)]
    return split(x, builtin_max(1, -(-size // chunks)), dim)


def unbind(input, dim=0):
    """Views of every element of an axis."""
    cdef Tensor x = tensor_argument("unbind", input)
    cdef int at = axis_of("unbind", dim, x.node)
    cdef list found = []
    cdef int64_t i
    note_outside(x.node)
    for i in range(fbp_shape(x.node)[at]):
        found.append(sliced(x, at, i, 1, 1, True))
        look_now_and_then(i)
    return tuple(found)


cdef list listed_tensors(str op, object tensors, object error=RuntimeError):
    """A list of its own of the tensors in a sequence that must not be empty: `error`."""
    if not isinstance(tensors, (list, tuple, Tensor)) and not hasattr(tensors, "__iter__"):
        raise TypeError(f"{op}(): argument 'tensors' must be tuple of Tensors, not {type(tensors).__name__}")
    cdef list result = list(tensors)
    if not result:
        raise error(f"{op}(): expected a non-empty list of Tensors")
    for i, x in enumerate(result):
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}(): expected Tensor as element {i} in argument 0, but got {type(x).__name__}")
    return result


cdef list same_dtype(object tensors, str op):
    """The tensors of a list, cast to their common dtype."""
    cdef list result = listed_tensors(op, tensors, ValueError if op == "cat" else RuntimeError)
    cdef int best = -1
    for x in result:
        if (<Tensor>x).node.dtype > best:
            best = (<Tensor>x).node.dtype
    return [cast(x, <fbp_dtype>best) for x in result]


def cat(tensors, dim=0, *, out=None):
    """Tensors one behind the other along an axis.

    Raises
    ------
    RuntimeError
        When other sizes differ, or the list is empty.
    """
    cdef fbp_dim_attribute attribute
    cdef list parts = same_dtype(tensors, "cat")
    ndim = 1
    for x in parts:
        if (<Tensor>x).node.ndim != 1 or (<Tensor>x).node.numel:
            ndim = (<Tensor>x).node.ndim
    attribute.dim = wrap_dim("cat", dim, ndim)
    attribute.flag = 0
    return store(apply_list(FBP_OP_cat, parts, &attribute, sizeof(attribute)), out)


concat = concatenate = cat


def stack(tensors, dim=0, *, out=None):
    """Tensors of one shape along a new axis."""
    cdef list parts = same_dtype(tensors, "stack")
    for i, x in enumerate(parts):
        if not fbp_same_shape((<Tensor>x).node, (<Tensor>parts[0]).node):
            raise RuntimeError(f"stack expects each tensor to be equal size, but got {list(parts[0].shape)} at entry 0 and "
                               f"{list(x.shape)} at entry {i}")
    at = wrap_dim("stack", dim, parts[0].ndim + 1)
    return cat([unsqueeze(x, at) for x in parts], at, out=out)


def hstack(tensors):
    """Side by side: along the second axis, of vectors along the first."""
    parts = [atleast_1d(x) for x in listed_tensors("hstack", tensors)]
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors):
    """One above the other."""
    return cat([atleast_2d(x) for x in listed_tensors("vstack", tensors)], 0)


def tile(input, dims):
    """The whole repeated along every axis; missing leading repeats are 1."""
    cdef Tensor x = tensor_argument("tile", input)
    dims = tuple(dims)
    return x.repeat((1,) * (x.node.ndim - len(dims)) + dims)


def repeat_interleave(input, repeats, dim=None):
    """Each element repeated on its place: `repeats` times, or as often as a tensor says."""
    cdef Tensor x = tensor_argument("repeat_interleave", input)
    if dim is None:
        x, dim = ravel(x), 0
    size = fbp_shape(x.node)[wrap_dim("repeat_interleave", dim, x.node.ndim)] if x.node.ndim else 1
    counts = repeats.tolist() if isinstance(repeats, Tensor) else repeats
    if isinstance(counts, (list, tuple)) and len(counts) == 1:
        counts = counts[0]
    return index_select(x, dim, repeated_places(counts, size))


cdef Tensor repeated_places(object counts, int64_t size):
    """The numbers 0 .. size - 1, each `counts` times, or as often as its entry in `counts` says."""
    cdef bint one = not isinstance(counts, (list, tuple))
    cdef int64_t i, n = 0
    cdef int64_t *at
    cdef int64_t *end
    if not one and len(counts) != size:
        raise RuntimeError(f"repeats must have the same size as input along dim, but got repeats.size(0) = {len(counts)} and input.size(0) = {size}")
    cdef list times = []  # plain numbers: what is added up is what is written
    total = 0
    for count in (counts,) if one else counts:
        n = count
        if n < 0:
            raise RuntimeError("repeats can not be negative")
        times.append(n)
        total += <object>n * size if one else <object>n
    if total > 0x7FFF_FFFF_FFFF_FFFF:
        raise RuntimeError(f"repeat_interleave: a result of {total} elements is too large")
    cdef Tensor places = empty((total,), dtype=int64)  # before the loop: what cannot be had ends here
    at = <int64_t *>places.node.data
    for i in range(size):
        if not one:
            n = times[i]
        end = at + n
        while at < end:
            at[0] = i
            at += 1
    return places


def diagonal(input, offset=0, dim1=0, dim2=1):
    """Elements on a diagonal of two axes, as a new last axis; a view."""
    cdef fbp_diagonal_attribute attribute
    cdef Tensor x = tensor_argument("diagonal", input)
    cdef int64_t shift = offset
    cdef fbp_tensor *out
    attribute.first = wrap_dim("diagonal", dim1, x.node.ndim)
    attribute.second = wrap_dim("diagonal", dim2, x.node.ndim)
    attribute.offset = builtin_max(builtin_min(shift, <int64_t>1 << 62), -(<int64_t>1 << 62))  # beyond, there is nothing, and no -offset
    attribute.sizes[0] = fbp_shape(x.node)[attribute.first] if x.node.ndim else 0
    attribute.sizes[1] = fbp_shape(x.node)[attribute.second] if x.node.ndim else 0
    check(fbp_apply(FBP_OP_diagonal, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


def diag_embed(input, offset=0, dim1=-2, dim2=-1):
    """Zeros with the last axis on a diagonal of two new axes."""
    cdef fbp_diagonal_attribute attribute
    cdef Tensor x = tensor_argument("diag_embed", input)
    cdef fbp_tensor *out
    cdef int ndim = x.node.ndim + 1
    if x.node.ndim == 0:
        raise IndexError("diag_embed(): a 0-d tensor has no dimension to put on a diagonal")
    size = fbp_shape(x.node)[x.node.ndim - 1] + builtin_abs(offset)
    attribute.first = wrap_dim("diag_embed", dim1, ndim)
    attribute.second = wrap_dim("diag_embed", dim2, ndim)
    if attribute.first == attribute.second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    attribute.offset = offset
    attribute.sizes[0] = attribute.sizes[1] = size
    check(fbp_apply(FBP_OP_embed_diagonal, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


def diag(input, diagonal=0):
    """The diagonal of a matrix, or a matrix with this diagonal."""
    cdef Tensor x = tensor_argument("diag", input)
    if x.node.ndim == 1:
        return diag_embed(x, diagonal)
    if x.node.ndim != 2:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {x.node.ndim}D")
    return x.diagonal(diagonal).clone()


def trace(input):
    """Sum of the main diagonal of a matrix."""
    if tensor_argument("trace", input).node.ndim != 2:
        raise RuntimeError("trace: expected a matrix")
    return diagonal(input).sum()


def atleast_1d(input):
    """At least one axis."""
    return input.reshape(1) if tensor_argument("atleast_1d", input).node.ndim == 0 else input


def atleast_2d(input):
    """At least two axes."""
    return input.reshape(1, -1) if tensor_argument("atleast_2d", input).node.ndim < 2 else input


def meshgrid(*tensors, indexing="ij"):
    """Grids of coordinates from vectors of them; indexing "ij" or "xy"."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    if not tensors:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    for x in tensors:
        if tensor_argument("meshgrid", x, "tensors").node.ndim > 1:
            raise RuntimeError(f"meshgrid(): Expected 0D or 1D tensor in the tensor list but got one of shape {tuple(x.shape)}")
    if indexing == "xy" and len(tensors) > 1:
        grids = meshgrid(tensors[1], tensors[0], *tensors[2:])
        return tuple([g.transpose(0, 1) for g in (grids[1], grids[0], *grids[2:])])
    sizes = tuple([x.numel() for x in tensors])
    count = len(sizes)
    return tuple([x.reshape((1,) * i + (sizes[i],) + (1,) * (count - i - 1)).expand(sizes) for i, x in enumerate(tensors)])
