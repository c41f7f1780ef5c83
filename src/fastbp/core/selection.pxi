# gather and its relatives, masks, order, and what is made of them.

_sort_result = _namedtuple("sort", ("values", "indices"))
_topk_result = _namedtuple("topk", ("values", "indices"))


cdef Tensor array_argument(str op, object given, str name):
    """An argument that may be a tensor, an array, a number or nested sequences of numbers."""
    if isinstance(given, Tensor):
        return <Tensor>given
    if not isinstance(given, (int, list, tuple)) and not hasattr(given, "__array__"):
        refuse_operand(op, given, name)
    return as_tensor(given)


cdef Tensor index_vector(str op, object index):
    """index_tensor() for ops along one axis."""
    cdef Tensor given = array_argument(op, index, "index")
    if given.node.ndim > 1:
        raise IndexError(f"{op}(): Index is supposed to be a vector, but got {given.node.ndim} dimensions")
    return index_tensor(op, given)


cdef Tensor index_tensor(str op, object index):
    """An index argument as an int64 tensor."""
    cdef Tensor result = array_argument(op, index, "index")
    if result.node.dtype == FBP_INT64:
        return result
    if result.node.dtype == FBP_BOOL or result.node.dtype >= FBP_FLOAT32:
        raise RuntimeError(f"{op}(): Expected dtype int64 for index")
    return cast(result, FBP_INT64)


cdef Tensor indexed(int op, Tensor x, int dim, Tensor index, Tensor source):
    """An op of (x, index[, source]) along an axis."""
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *inputs[3]
    cdef fbp_tensor *out
    attribute.dim, attribute.flag = dim, 0
    inputs[0], inputs[1] = x.node, index.node
    if source is not None:
        inputs[2] = source.node
    check(fbp_apply(op, 3 if source is not None else 2, inputs, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object indexed_in_place(int op, Tensor x, int dim, Tensor index, Tensor source):
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *inputs[3]
    attribute.dim, attribute.flag = dim, 0
    inputs[0], inputs[1], inputs[2] = x.node, index.node, source.node
    check(fbp_apply_in_place(op, 3, inputs, &attribute, sizeof(attribute), &x.node))
    return x


cdef Tensor scatter_source(str op, Tensor x, Tensor index, object src):
    """What is scattered, in index's shape: a number everywhere, or the leading part of a larger tensor."""
    cdef int i
    cdef Tensor source
    if not isinstance(src, Tensor):
        return full_like(index, src, dtype=x.dtype)
    source = src
    if source.node.ndim != index.node.ndim:
        raise RuntimeError(f"{op}(): Index tensor must have the same number of dimensions as src tensor")
    for i in range(index.node.ndim):
        if fbp_shape(index.node)[i] > fbp_shape(source.node)[i]:
            raise RuntimeError(f"{op}(): Expected index {list(index.shape)} to be no larger than src {list(source.shape)}")
        if fbp_shape(index.node)[i] < fbp_shape(source.node)[i]:
            source = sliced(source, i, 0, fbp_shape(index.node)[i], 1, False)
    return source


cdef object scattered(object src, object value):
    """What scatter() is given: `src`, or a number under the keyword `value`."""
    if src is None and value is None:
        raise TypeError("scatter(): missing argument 'src' or 'value'")
    return value if src is None else src


cdef int scatter_op(object reduce) except -1:
    if reduce is None:
        return FBP_OP_scatter
    if reduce == "add":
        return FBP_OP_scatter_add
    raise NotImplementedError(f"scatter: reduce={reduce!r} is not supported; use 'add' or none")


def gather(input, dim, index, *, sparse_grad=False, out=None):
    """Elements of input at `index` along an axis: out[i][j] = input[index[i][j]][j] for dim 0.

    Parameters
    ----------
    input : Tensor
    dim : int
    index : Tensor
        int64, of input's number of dimensions, no larger than input apart from `dim`; from 0 up.

    Raises
    ------
    IndexError
        When an index is out of bounds.
    """
    cdef int at = wrap_dim("gather", dim, tensor_argument("gather", input).node.ndim)
    return store(indexed(FBP_OP_gather, input, at, index_tensor("gather", index), None), out)


def scatter(input, dim, index, src, *, reduce=None):
    """input with src (a tensor or a number) put at `index` along an axis; reduce="add" adds.  See gather().

    Of several sources for one place the last along `dim` stays; its gradient then goes to all of them, as in PyTorch.
    """
    cdef int at = wrap_dim("scatter", dim, tensor_argument("scatter", input).node.ndim)
    cdef Tensor places = index_tensor("scatter", index)
    return indexed(scatter_op(reduce), input, at, places, scatter_source("scatter", input, places, src))


def scatter_add(input, dim, index, src):
    """input with src added at `index` along an axis.  See gather()."""
    return scatter(input, dim, index, src, reduce="add")


def index_select(input, dim, index, *, out=None):
    """Slices of input along an axis, in the order of a vector of int64 indices, from 0 up."""
    cdef int at = wrap_dim("index_select", dim, tensor_argument("index_select", input).node.ndim)
    return store(indexed(FBP_OP_index_select, input, at, index_vector("index_select", index), None), out)


def index_add(input, dim, index, source, *, alpha=1):
    """input with alpha times slices of source added at `index` along an axis."""
    cdef int at = wrap_dim("index_add", dim, tensor_argument("index_add", input).node.ndim)
    return indexed(FBP_OP_index_add, input, at, index_vector("index_add", index),
                   scaled(tensor_argument("index_add", source, "source"), alpha))


cdef tuple axis_subscript(Tensor x, object dim, object index):
    return (slice(None),) * wrap_dim("index", dim, x.node.ndim) + (index_vector("index", index),)


cdef int check_copied(Tensor x, int at, Tensor index, Tensor source) except -1:
    """index_copy() broadcasts nothing: a slice of `source` for each index, of x's other sizes and dtype."""
    cdef int i
    if source.node.dtype != x.node.dtype:
        raise RuntimeError(f"index_copy_(): self and source expected to have the same dtype, but got (self) {x.dtype!r} and (source) "
                           f"{source.dtype!r}")
    if source.node.ndim != x.node.ndim and source.node.ndim != 0 and x.node.ndim != 0:
        raise IndexError("index_copy_(): When source and destination are not scalars, their dimensionality must match. Source "
                         f"dimensionality ({source.node.ndim}), destination dimensionality ({x.node.ndim})")
    if (fbp_shape(source.node)[at] if source.node.ndim else 1) != index.node.numel:
        raise IndexError(f"index_copy_(): Number of indices ({index.node.numel}) should be equal to source.size(dim)")
    for i in range(x.node.ndim if source.node.ndim == x.node.ndim else 0):
        if i != at and fbp_shape(source.node)[i] != fbp_shape(x.node)[i]:
            raise RuntimeError(f"index_copy_(): Source/destination tensor must have same slice shapes, got {list(source.shape)} for "
                               f"{list(x.shape)}")
    return 0


def index_fill(input, dim, index, value):
    """input with a number at `index` along an axis."""
    return tensor_argument("index_fill", input).clone().index_fill_(dim, index, value)


def index_copy(input, dim, index, source):
    """input with slices of source put at `index` along an axis."""
    return tensor_argument("index_copy", input).clone().index_copy_(dim, index, source)


def index_put(input, indices, values, accumulate=False):
    """input with values put (or added) where a tuple of index tensors says."""
    return tensor_argument("index_put", input).clone().index_put_(indices, values, accumulate)


cdef Tensor from_front(Tensor index, int axis, int64_t size):
    """Negative indices counted from the end."""
    return positions_of([index], axis, &size)


def take(input, index):
    """Elements of the flattened input; negative indices count from the end."""
    cdef Tensor x = ravel(tensor_argument("take", input))
    return take_leading(x, from_front(index_tensor("take", index), 0, x.node.numel), 1)


def take_along_dim(input, indices, dim=None, *, out=None):
    """gather() that broadcasts and takes negative indices, as numpy.take_along_axis; flattened without dim."""
    cdef int at
    cdef Tensor x = tensor_argument("take_along_dim", input), index = index_tensor("take_along_dim", indices)
    if dim is None:
        x, index = ravel(x), ravel(index)
        dim = 0
    at = wrap_dim("take_along_dim", dim, x.node.ndim)
    if x.node.ndim != index.node.ndim:
        raise RuntimeError("torch.take_along_dim(): input and indices should have the same number of dimensions")
    shape = broadcast_shapes(x.shape[:at] + (1,) + x.shape[at + 1:], index.shape[:at] + (1,) + index.shape[at + 1:])
    wide = x.expand(shape[:at] + (x.shape[at],) + shape[at + 1:])
    index = index.expand(shape[:at] + (index.shape[at],) + shape[at + 1:])
    return store(indexed(FBP_OP_gather, wide, at, from_front(index, at, fbp_shape((<Tensor>wide).node)[at]), None), out)


# ---- masks ----------------------------------------------------------------------------------------------------------------------

cdef Tensor bool_mask(str op, object mask):
    cdef Tensor result = array_argument(op, mask, "mask")
    if result.node.dtype != FBP_BOOL and result.node.dtype != FBP_UINT8:
        raise RuntimeError(f"{op}: expected a mask of dtype bool, got {result.dtype!r}")
    return cast(result, FBP_BOOL)


def nonzero(input, *, out=None, as_tuple=False):
    """Indices of the non-zero elements, (count, ndim) int64 in row-major order; as_tuple: a vector an axis, fit for x[...]."""
    cdef fbp_tensor *found
    cdef Tensor x = input if isinstance(input, Tensor) else as_tensor(input)
    if as_tuple and x.node.ndim == 0:
        x = reshaped(x, (1,), False)
    x = cast(x.detach(), FBP_BOOL).contiguous()
    check(fbp_apply(FBP_OP_nonzero, 1, &x.node, NULL, 0, &found))
    return unbind(wrap(found), 1) if as_tuple else store(wrap(found), out)


def argwhere(input):
    """Indices of the non-zero elements, one row each."""
    return nonzero(input)


def masked_select(input, mask, *, out=None):
    """A vector of the elements where the mask (which broadcasts) holds."""
    x, wide = broadcast_tensors(tensor_argument("masked_select", input), bool_mask("masked_select", mask))
    return store(get_item(x, wide), out)


cdef Tensor filled(Tensor x, object mask, object value):
    """x where the mask does not hold, else the number (of x's dtype)."""
    if isinstance(value, Tensor) and value.ndim:
        raise RuntimeError(f"masked_fill only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s).")
    return where(bool_mask("masked_fill", mask), value_for(value, x), x)


def masked_fill(input, mask, value):
    """input with a number where the mask (which broadcasts) holds."""
    return filled(tensor_argument("masked_fill", input), mask, value)


def masked_scatter(input, mask, source):
    """input with the next elements of source where the mask (which broadcasts) holds."""
    return tensor_argument("masked_scatter", input).clone().masked_scatter_(mask, source)


# ---- order ------------------------------------------------------------------------------------------------------------------------

cdef Tensor ordered(int op, Tensor x, int dim, int count, bint flag):
    """argsort or topk along any axis."""
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *out
    cdef int last = x.node.ndim - 1
    cdef Tensor moved = transposed(x, dim, last) if dim < last else x
    attribute.dim, attribute.flag = count, flag
    check(fbp_apply(op, 1, &moved.node, &attribute, sizeof(attribute), &out))
    return transposed(wrap(out), dim, last) if dim < last else wrap(out)


def argsort(input, dim=-1, descending=False, stable=False):
    """Indices that put an axis in order; equal elements keep their order, NaN is the largest."""
    cdef int at = wrap_dim("argsort", dim, tensor_argument("argsort", input).node.ndim)
    return ordered(FBP_OP_argsort, input, at, 0, descending)


def sort(input, dim=-1, descending=False, stable=False):
    """An axis in order: a pair (values, indices), see argsort()."""
    cdef int at = wrap_dim("sort", dim, tensor_argument("sort", input).node.ndim)
    indices = ordered(FBP_OP_argsort, input, at, 0, descending)
    return _sort_result(indexed(FBP_OP_gather, input, at, indices, None), indices)


def msort(input):
    """The first axis in order."""
    return sort(tensor_argument("msort", input), 0)[0]


def topk(input, k, dim=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements of an axis, best first: a pair (values, indices).

    Raises
    ------
    RuntimeError
        When the axis has fewer than k elements.
    """
    cdef Tensor x = tensor_argument("topk", input)
    cdef int at = wrap_dim("topk", dim, x.node.ndim)
    if not 0 <= k <= (fbp_shape(x.node)[at] if x.node.ndim else 1):
        raise RuntimeError("selected index k out of range")
    indices = ordered(FBP_OP_topk, x, at, k if x.node.ndim else 1, largest)  # of a number there is the number, whatever k
    return _topk_result(indexed(FBP_OP_gather, x, at, indices, None), indices)


def unique(input, sorted=True, return_inverse=False, return_counts=False, dim=None):
    """The different elements in order (or, with dim, the different slices); on request, for each element of input the place
    among them, and how often each occurs."""
    cdef Tensor x = tensor_argument("unique", input)
    found = numpy().unique(as_array(x.detach().contiguous()), False, return_inverse, return_counts, axis=dim)
    if not (return_inverse or return_counts):
        return tensor(found)
    parts = [tensor(part) for part in found]
    if return_inverse and dim is None:
        parts[1] = parts[1].reshape(input.shape)
    return tuple(parts)


# ---- rearrangements --------------------------------------------------------------------------------------------------------------

def flip(input, *dims):
    """A copy with axes reversed."""
    cdef Tensor x = tensor_argument("flip", input)
    cdef fbp_slice_attribute attribute
    cdef fbp_tensor *out
    cdef int i
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    cdef uint32_t mask = dims_mask("flip", dims, x.node.ndim) if dims else 0
    attribute.ndim, attribute.dropped = x.node.ndim, 0
    for i in range(x.node.ndim):
        size = fbp_shape(x.node)[i]
        attribute.axis[i] = fbp_slice_axis(size - 1, -1, size, size) if mask >> i & 1 and size else fbp_slice_axis(0, 1, size, size)
    check(fbp_apply(FBP_OP_slice, 1, &x.node, &attribute, slice_bytes(x.node.ndim), &out))
    return unary(FBP_OP_copy, wrap(out))


def fliplr(input):
    """A copy with the second axis reversed."""
    if tensor_argument("fliplr", input).node.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input):
    """A copy with the first axis reversed."""
    if tensor_argument("flipud", input).node.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, 0)


def roll(input, shifts, dims=None):
    """Elements moved along axes, those that fall off coming in at the other end; flattened without dims.

    Raises
    ------
    RuntimeError
        When there are not as many shifts as dims, or none at all.
    """
    cdef Tensor x = tensor_argument("roll", input), result = x
    cdef int at
    moves = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    axes = () if dims is None else tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    if not moves:
        raise RuntimeError("`shifts` required")
    if not axes and len(moves) == 1:
        return reshaped(roll(ravel(x), moves, 0), (shape_tuple(x.node),), False)
    if len(moves) != len(axes):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(moves)}, dims:{len(axes)}")
    if x.node.numel == 0:
        return x.clone()
    for shift, dim in zip(moves, axes):
        at = axis_of("roll", dim, x.node)
        size = fbp_shape(x.node)[at]
        back = (size - shift % size) % size if size > 0 else 0
        if back:
            result = cat([sliced(result, at, back, size - back, 1, False), sliced(result, at, 0, back, 1, False)], at)
    return result.clone() if result is x else result


def rot90(input, k=1, dims=(0, 1)):
    """Turned by k quarter turns in the plane of two axes, from the first towards the second."""
    cdef Tensor x = tensor_argument("rot90", input)
    if not isinstance(dims, (tuple, list)) or len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {dims!r}")
    if x.node.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {x.node.ndim}")
    first, second = dims
    if wrap_dim("rot90", first, x.node.ndim) == wrap_dim("rot90", second, x.node.ndim):
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {first} and dim1 = {second}")
    if k % 4 == 0:
        return x.clone()
    if k % 4 == 2:
        return flip(input, first, second)
    return flip(input, second).transpose(first, second) if k % 4 == 1 else flip(input.transpose(first, second), second)


cdef object triangular(Tensor x, int64_t diagonal, bint upper):
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *out
    attribute.dim = <int32_t>builtin_max(builtin_min(diagonal, 0x7FFF_FFFF), -0x7FFF_FFFF)
    attribute.flag = upper
    check(fbp_apply(FBP_OP_triangle, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


def tril(input, diagonal=0, *, out=None):
    """The lower triangle of the last two axes, zeros above; diagonal shifts the border up."""
    return store(triangular(tensor_argument("tril", input), diagonal, False), out)


def triu(input, diagonal=0, *, out=None):
    """The upper triangle of the last two axes, zeros below; diagonal shifts the border up."""
    return store(triangular(tensor_argument("triu", input), diagonal, True), out)


def tril_indices(row, col, offset=0):
    """Row and column numbers of a lower triangle, (2, count) int64."""
    return nonzero(tril(ones(row, col, dtype=bool_), offset)).t().contiguous()


def triu_indices(row, col, offset=0):
    """Row and column numbers of an upper triangle, (2, count) int64."""
    return nonzero(triu(ones(row, col, dtype=bool_), offset)).t().contiguous()


# ---- counts ------------------------------------------------------------------------------------------------------------------------

def one_hot(tensor, num_classes=-1):
    """A new last axis with a one where the input says, zeros elsewhere; int64.

    Parameters
    ----------
    tensor : Tensor
        int64, from 0 up.
    num_classes : int
        Default: one more than the largest.
    """
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *out
    cdef Tensor x = index_tensor("one_hot", tensor)
    if not x.node.storage.symbolic and x.node.numel and int(x.min()) < 0:
        raise RuntimeError("Class values must be non-negative.")
    if num_classes == -1:
        if x.node.numel == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = int(x.max()) + 1
    if num_classes < 1 and x.node.numel == 0:
        raise RuntimeError("num_classes should be positive")
    if not x.node.storage.symbolic and x.node.numel and int(x.max()) >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    attribute.dim, attribute.flag = num_classes, 0
    check(fbp_apply(FBP_OP_one_hot, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


def bincount(input, weights=None, minlength=0):
    """How often each non-negative integer of a vector occurs, int64; or the sum of their weights (float64 unless float32)."""
    cdef Tensor x = tensor_argument("bincount", input)
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if x.node.ndim != 1 or x.node.dtype >= FBP_FLOAT32 or x.node.dtype == FBP_BOOL or (x.node.numel and int(x.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    size = builtin_max(int(x.max()) + 1 if x.node.numel else 0, minlength)
    if weights is None:
        weights = ones(x.node.numel, dtype=int64)
    elif not fbp_same_shape(tensor_argument("bincount", weights, "weights").node, x.node):
        raise RuntimeError("weights should be 1-d and have the same length as input")
    elif weights.dtype is not float32:
        weights = cast(weights.detach(), FBP_FLOAT64)
    return scatter_add(zeros(size, dtype=weights.dtype), 0, x, weights.detach())
