def __getitem__(self, index):
    return get_item(self, index)

def __setitem__(self, index, value):
    set_item(self, index, value)

def __iter__(self):
    if self.node.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(self, 0))

def __contains__(self, element):
    if not isinstance(element, (Tensor, int, float)):
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {builtin_type(element)}.")
    return bool(binary(FBP_OP_eq, self, element).any())

# ---- by index

def gather(self, dim, index, *, sparse_grad=False):
    """Elements at `index` along an axis."""
    return gather(self, dim, index)

def scatter(self, dim, index, src=None, *, value=None, reduce=None):
    """This with src (a tensor or a number) put at `index` along an axis."""
    return scatter(self, dim, index, scattered(src, value), reduce=reduce)

def scatter_(self, dim, index, src=None, *, value=None, reduce=None):
    """In-place scatter()."""
    cdef int at = wrap_dim("scatter_", dim, self.node.ndim)
    cdef Tensor places = index_tensor("scatter_", index)
    return indexed_in_place(scatter_op(reduce), self, at, places, scatter_source("scatter_", self, places, scattered(src, value)))

def scatter_add(self, dim, index, src):
    """This with src added at `index` along an axis."""
    return scatter(self, dim, index, src, reduce="add")

def scatter_add_(self, dim, index, src):
    """In-place scatter_add()."""
    return self.scatter_(dim, index, src, reduce="add")

def index_select(self, dim, index):
    """Slices along an axis, in the order of index."""
    return index_select(self, dim, index)

def index_add(self, dim, index, source, *, alpha=1):
    """This with alpha times slices of source added at `index` along an axis."""
    return index_add(self, dim, index, source, alpha=alpha)

def index_add_(self, dim, index, source, *, alpha=1):
    """In-place index_add()."""
    return indexed_in_place(FBP_OP_index_add, self, wrap_dim("index_add_", dim, self.node.ndim), index_vector("index_add_", index),
                            scaled(tensor_argument("index_add_", source, "source"), alpha))

def index_fill(self, dim, index, value):
    """This with a number at `index` along an axis."""
    return index_fill(self, dim, index, value)

def index_fill_(self, dim, index, value):
    """In-place index_fill()."""
    if isinstance(value, Tensor) and (<Tensor>value).node.ndim:
        raise RuntimeError(f"index_fill_ only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s).")
    set_item(self, axis_subscript(self, dim, index), value)
    return self

def index_copy(self, dim, index, source):
    """This with slices of source put at `index` along an axis."""
    return index_copy(self, dim, index, source)

def index_copy_(self, dim, index, source):
    """In-place index_copy()."""
    check_copied(self, wrap_dim("index_copy_", dim, self.node.ndim), index_vector("index_copy_", index),
                 tensor_argument("index_copy_", source, "source"))
    set_item(self, axis_subscript(self, dim, index), source)
    return self

def index_put(self, indices, values, accumulate=False):
    """This with values put (or added) where a tuple of index tensors says."""
    return index_put(self, indices, values, accumulate)

def index_put_(self, indices, values, accumulate=False):
    """self[indices] = values, or self[indices] += values counting every repeated index."""
    if not isinstance(indices, (tuple, list)):
        raise TypeError(f"index_put_(): argument 'indices' must be tuple of Tensors, not {builtin_type(indices).__name__}")
    cdef Subscript s = read_subscript(self, tuple([slice(None) if index is None else index for index in indices]))
    if not s.arrays:
        raise IndexError("index_put_(): at least one of the indices must be a Tensor")
    write_placed(FBP_OP_put_add if accumulate else FBP_OP_put, self, s, values)
    return self

def take(self, index):
    """Elements of the flattened tensor."""
    return take(self, index)

def take_along_dim(self, indices, dim=None):
    """gather() that broadcasts and takes negative indices."""
    return take_along_dim(self, indices, dim)

# ---- by mask

def nonzero(self, *, as_tuple=False):
    """Indices of the non-zero elements."""
    return nonzero(self, as_tuple=as_tuple)

def argwhere(self):
    """Indices of the non-zero elements, one row each."""
    return nonzero(self)

def masked_select(self, mask):
    """A vector of the elements where the mask holds."""
    return masked_select(self, mask)

def masked_fill(self, mask, value):
    """This with a number where the mask holds."""
    return filled(self, mask, value)

def masked_fill_(self, mask, value):
    """In-place masked_fill()."""
    return self.copy_(filled(self, mask, value))

def masked_scatter(self, mask, source):
    """This with the next elements of source where the mask holds."""
    return masked_scatter(self, mask, source)

def masked_scatter_(self, mask, source):
    """In-place masked_scatter()."""
    cdef Tensor wide = bool_mask("masked_scatter_", mask).expand(shape_tuple(self.node))
    cdef Tensor places = nonzero(wide.reshape(-1)).reshape(-1)
    cdef Tensor values = ravel(tensor_argument("masked_scatter_", source, "source"))
    if values.node.dtype != self.node.dtype:
        raise RuntimeError("masked_scatter: expected self and source to have same dtypes")
    if places.node.numel > values.node.numel:
        raise RuntimeError("Number of elements of source < number of ones in mask")
    write_positions(FBP_OP_put, self, places, self.node.ndim, sliced(values, 0, 0, places.node.numel, 1, False))
    return self

# ---- order

def sort(self, dim=-1, descending=False, stable=False):
    """An axis in order: a pair (values, indices)."""
    return sort(self, dim, descending, stable)

def argsort(self, dim=-1, descending=False, stable=False):
    """Indices that put an axis in order."""
    return argsort(self, dim, descending, stable)

def msort(self):
    """The first axis in order."""
    return msort(self)

def topk(self, k, dim=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements of an axis: a pair (values, indices)."""
    return topk(self, k, dim, largest, sorted)

def unique(self, sorted=True, return_inverse=False, return_counts=False, dim=None):
    """The different elements in order."""
    return unique(self, sorted, return_inverse, return_counts, dim)

# ---- rearrangements and counts

def flip(self, *dims):
    """A copy with axes reversed."""
    return flip(self, *dims)

def fliplr(self):
    """A copy with the second axis reversed."""
    return fliplr(self)

def flipud(self):
    """A copy with the first axis reversed."""
    return flipud(self)

def roll(self, shifts, dims=None):
    """Elements moved along axes, those that fall off coming in at the other end."""
    return roll(self, shifts, dims)

def tril(self, diagonal=0):
    """The lower triangle of the last two axes."""
    return triangular(self, diagonal, False)

def triu(self, diagonal=0):
    """The upper triangle of the last two axes."""
    return triangular(self, diagonal, True)

def tril_(self, diagonal=0):
    """In-place tril()."""
    return self.copy_(triangular(self, diagonal, False))

def triu_(self, diagonal=0):
    """In-place triu()."""
    return self.copy_(triangular(self, diagonal, True))

def bincount(self, weights=None, minlength=0):
    """How often each non-negative integer occurs."""
    return bincount(self, weights, minlength)
