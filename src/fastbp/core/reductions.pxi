# Sums, means, extremes, moments, norms, softmax and running sums over axes.

from collections import namedtuple as _namedtuple

_max_result = _namedtuple("max", ("values", "indices"))
_min_result = _namedtuple("min", ("values", "indices"))
_median_result = _namedtuple("median", ("values", "indices"))
_aminmax_result = _namedtuple("aminmax", ("min", "max"))


cdef inline Tensor as_input(fbp_op op, object x):
    """x as a tensor: itself, or from an array."""
    if isinstance(x, Tensor):
        return <Tensor>x
    if hasattr(x, "__array__"):
        return as_tensor(x)
    raise TypeError(f"{fbp_ops[<int>op].name.decode()}(): argument 'input' must be Tensor, not {builtin_type(x).__name__}")


cdef inline uint32_t axes_mask(fbp_op op, object dim, const fbp_tensor *t) except? 0xFFFFFFFF:
    """dims_mask() with the two usual cases in front."""
    cdef long at
    if dim is None:
        return ((<uint32_t>1) << t.ndim) - 1
    if builtin_type(dim) is int:
        at = dim
        if at < 0:
            at += t.ndim
        if 0 <= at < t.ndim:
            return (<uint32_t>1) << at
    return dims_mask(fbp_ops[<int>op].name.decode(), dim, t.ndim)


cdef object reduce_mask(fbp_op op, Tensor x, uint32_t mask, bint keepdim, double p):
    cdef fbp_reduce_attribute attribute
    cdef fbp_tensor *out
    attribute.dims = mask
    attribute.keepdim = keepdim
    attribute.p = p
    check(fbp_apply(op, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object reduce_axes(fbp_op op, object input, object dim, bint keepdim, double p, object dtype):
    """A reduction over axes given as None, a number or a sequence, of the input cast to `dtype` first."""
    cdef Tensor x = as_input(op, input)
    if dtype is not None:
        x = cast(x, dtype_code(dtype))
    return reduce_mask(op, x, axes_mask(op, dim, x.node), keepdim, p)


cdef object along_axis(fbp_op op, object input, object dim, bint flag, object dtype):
    """An op whose attribute is one axis, with a flag."""
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *out
    cdef Tensor x = as_input(op, input)
    if dtype is not None:
        x = cast(x, dtype_code(dtype))
    attribute.dim = wrap_dim(fbp_ops[<int>op].name.decode(), dim, x.node.ndim)
    attribute.flag = flag
    check(fbp_apply(op, 1, &x.node, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object gather_axis(Tensor x, int dim, Tensor index):
    cdef fbp_dim_attribute attribute
    cdef fbp_tensor *inputs[2]
    cdef fbp_tensor *out
    inputs[0] = x.node
    inputs[1] = index.node
    attribute.dim = dim
    attribute.flag = 0
    check(fbp_apply(FBP_OP_gather, 2, inputs, &attribute, sizeof(attribute), &out))
    return wrap(out)


cdef object without_axis(Tensor x, int dim):
    """x, where axis `dim` has size 1, without it."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int i, ndim = 0
    for i in range(x.node.ndim):
        if i != dim:
            shape[ndim] = fbp_shape(x.node)[i]
            ndim += 1
    return as_shape(FBP_OP_reshape, x, ndim, shape)


# ---- extremes -------------------------------------------------------------------------------------------------------

cdef object extreme_along(fbp_op place, fbp_op extreme, Tensor x, object dim, bint keepdim, object result):
    """Values and indices along one axis; the derivative goes to the element that the index names."""
    cdef uint32_t mask = axes_mask(extreme, dim, x.node)
    cdef int at = 0
    if isinstance(dim, (tuple, list)):
        raise TypeError(f"max(), min(): dim must be one int where indices are returned, got {dim!r}; amax() and amin() take several")
    indices = reduce_mask(place, x, mask, keepdim, 0.0)
    if x.node.ndim == 0 or not (fbp_mode_get().grad_enabled and is_differentiated(x.node)):
        return result(reduce_mask(extreme, x, mask, keepdim, 0.0), indices)
    while not (mask >> at & 1):
        at += 1
    if keepdim:
        return result(gather_axis(x, at, indices), indices)
    kept = indices.unsqueeze(at)
    return result(without_axis(gather_axis(x, at, kept), at), indices)


cdef object extreme_over(fbp_op extreme, object input, object dim, bint keepdim):
    """amax() and amin(), where nothing to choose from is told as PyTorch does."""
    cdef Tensor x = as_input(extreme, input)
    if x.node.numel == 0 and (dim is None or dim == ()):
        raise RuntimeError(f"{fbp_ops[<int>extreme].name.decode()}(): Expected reduction dim to be specified for input.numel() == 0. "
                           "Specify the reduction dim with the 'dim' argument.")
    return reduce_mask(extreme, x, axes_mask(extreme, dim, x.node), keepdim, 0.0)


cdef object extreme_of(fbp_op place, fbp_op extreme, fbp_op between, object input, object dim, bint keepdim, object result):
    """max() and min() in their three forms: of everything, along an axis, of two tensors."""
    cdef Tensor x = as_input(extreme, input)
    if dim is None:
        return extreme_over(extreme, x, (), False)
    if isinstance(dim, Tensor):
        return binary(between, x, dim)
    return extreme_along(place, extreme, x, dim, keepdim, result)


def max(input, dim=None, keepdim=False, *, other=None, axis=None):
    """Largest value: of all elements, along an axis, or of two tensors elementwise.

    Parameters
    ----------
    input : Tensor
    dim : int or Tensor, optional
        An axis: then the result is a named tuple (values, indices), indices int64, of the first largest elements, to
        which alone the derivative goes.  A tensor: then `maximum(input, dim)`.  Default: one value of all elements, whose
        derivative is shared evenly by ties.
    keepdim : bool, optional
        Keep the axis with size 1. Default: False.

    Raises
    ------
    IndexError
        When there is nothing to choose from.

    Examples
    --------
    >>> fastbp.max(fastbp.tensor([[1., 5.], [7., 2.]]), 1).indices
    tensor([1, 0])
    """
    return extreme_of(FBP_OP_argmax, FBP_OP_amax, FBP_OP_maximum, input,
                      other if other is not None else dim if axis is None else axis, keepdim, _max_result)


def min(input, dim=None, keepdim=False, *, other=None, axis=None):
    """Smallest value: of all elements, along an axis, or of two tensors elementwise; as `max`."""
    return extreme_of(FBP_OP_argmin, FBP_OP_amin, FBP_OP_minimum, input,
                      other if other is not None else dim if axis is None else axis, keepdim, _min_result)


def amax(input, dim=(), keepdim=False, *, axis=None):
    """Largest value over one axis, several, or (default) all; ties share the derivative evenly."""
    return extreme_over(FBP_OP_amax, input, dim if axis is None else axis, keepdim)


def amin(input, dim=(), keepdim=False, *, axis=None):
    """Smallest value over one axis, several, or (default) all; ties share the derivative evenly."""
    return extreme_over(FBP_OP_amin, input, dim if axis is None else axis, keepdim)


def aminmax(input, *, dim=None, keepdim=False):
    """Smallest and largest value as a named tuple (min, max)."""
    return _aminmax_result(reduce_axes(FBP_OP_amin, input, dim, keepdim, 0.0, None),
                           reduce_axes(FBP_OP_amax, input, dim, keepdim, 0.0, None))


cdef object place_over(fbp_op op, object input, object dim, bint keepdim):
    """argmax() and argmin(): along one axis, or over all."""
    if isinstance(dim, (tuple, list)):
        refuse_dim(fbp_ops[<int>op].name.decode(), dim)
    return reduce_axes(op, input, dim, keepdim, 0.0, None)


def argmax(input, dim=None, keepdim=False, *, axis=None):
    """Index (int64) of the first largest value along an axis, or (default) in the flattened tensor; a NaN is largest."""
    return place_over(FBP_OP_argmax, input, dim if axis is None else axis, keepdim)


def argmin(input, dim=None, keepdim=False, *, axis=None):
    """Index (int64) of the first smallest value along an axis, or (default) in the flattened tensor; a NaN is smallest."""
    return place_over(FBP_OP_argmin, input, dim if axis is None else axis, keepdim)


def median(input, dim=None, keepdim=False):
    """The element in the middle of the sorted ones (the lower of two); a NaN where there is one.

    Parameters
    ----------
    input : Tensor
    dim : int, optional
        An axis: then the result is a named tuple (values, indices). Default: of all elements, one value.
    keepdim : bool, optional
        Keep the axis with size 1. Default: False.
    """
    cdef Tensor x = as_input(FBP_OP_argsort, input), moved
    cdef int at
    if dim is None:
        moved = reshaped(x, (-1,), False)
        return median(moved, 0).values
    at = wrap_dim("median", dim, x.node.ndim)
    if x.node.ndim == 0:
        return _median_result(x.clone(), reduce_mask(FBP_OP_argmin, x, 0, False, 0.0))
    moved = transposed(x, at, -1)
    size = fbp_shape(moved.node)[moved.node.ndim - 1]
    if size == 0:
        raise IndexError(f"median(): Expected reduction dim {at} to have non-zero size.")
    order = along_axis(FBP_OP_argsort, moved.detach(), -1, False, None)
    indices = sliced(order, moved.node.ndim - 1, (size - 1) // 2, 1, 1, False)
    if fbp_dtype_is_float(<fbp_dtype>x.node.dtype):  # argmax finds the first NaN, which sorting puts last
        first = reduce_mask(FBP_OP_argmax, moved, (<uint32_t>1) << (moved.node.ndim - 1), True, 0.0)
        found = gather_axis(moved.detach(), moved.node.ndim - 1, first)
        indices = where(unary(FBP_OP_isnan, found), first, indices)
    values = transposed(gather_axis(moved, moved.node.ndim - 1, indices), at, -1)
    indices = transposed(indices, at, -1)
    if not keepdim:
        values, indices = without_axis(values, at), without_axis(indices, at)
    return _median_result(values, indices)


# ---- sums -------------------------------------------------------------------------------------------------------------

def sum(input, dim=None, keepdim=False, *, dtype=None, axis=None):
    """Sum over axes.

    Parameters
    ----------
    input : Tensor
        Bool and integers are summed as int64.
    dim : int or sequence of int, optional
        Axes that are reduced. Default: all.
    keepdim : bool, optional
        Keep reduced axes with size 1. Default: False.
    dtype : dtype, optional
        Cast the input to it first.

    Raises
    ------
    IndexError
        When an axis is out of range.
    RuntimeError
        When an axis is named twice.

    Examples
    --------
    >>> fastbp.sum(fastbp.ones(2, 3), 1)
    tensor([3., 3.])
    """
    return reduce_axes(FBP_OP_sum, input, dim if axis is None else axis, keepdim, 0.0, dtype)


def mean(input, dim=None, keepdim=False, *, dtype=None, axis=None):
    """Arithmetic mean over axes; parameters as of `sum`.

    Raises
    ------
    RuntimeError
        For bool and integers, which have no mean of their own type: give `dtype`.
    """
    return reduce_axes(FBP_OP_mean, input, dim if axis is None else axis, keepdim, 0.0, dtype)


def prod(input, dim=None, keepdim=False, *, dtype=None, axis=None):
    """Product over axes; parameters as of `sum`.  The derivative is exact where elements are 0."""
    return reduce_axes(FBP_OP_prod, input, dim if axis is None else axis, keepdim, 0.0, dtype)


def nansum(input, dim=None, keepdim=False, *, dtype=None):
    """Sum over axes in which NaN counts as 0."""
    cdef Tensor x = as_input(FBP_OP_sum, input)
    if fbp_dtype_is_float(<fbp_dtype>x.node.dtype):
        x = where(unary(FBP_OP_isnan, x), 0.0, x)
    return reduce_axes(FBP_OP_sum, x, dim, keepdim, 0.0, dtype)


def count_nonzero(input, dim=None):
    """How many elements are not 0, as int64, over axes or (default) in all; NaN is not 0."""
    return reduce_axes(FBP_OP_sum, binary(FBP_OP_ne, as_input(FBP_OP_sum, input), 0), dim, False, 0.0, None)


def cumsum(input, dim, *, dtype=None):
    """Running sum along an axis; bool and integers give int64."""
    return along_axis(FBP_OP_cumsum, input, dim, False, dtype)


def any(input, dim=None, keepdim=False, *, axis=None):
    """Whether some element is not 0, over axes or (default) all of them, as bool."""
    return reduce_axes(FBP_OP_any, input, dim if axis is None else axis, keepdim, 0.0, None)


def all(input, dim=None, keepdim=False, *, axis=None):
    """Whether no element is 0, over axes or (default) all of them, as bool."""
    return reduce_axes(FBP_OP_all, input, dim if axis is None else axis, keepdim, 0.0, None)


# ---- moments and norms ---------------------------------------------------------------------------------------------------

cdef object moment(fbp_op op, object input, object dim, object unbiased, bint keepdim, object correction):
    """var() and std() by any of PyTorch's signatures: (unbiased), (dim, unbiased, keepdim), (dim, correction=, keepdim=)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    elif unbiased is not None:
        raise TypeError(f"{fbp_ops[<int>op].name.decode()}(): give unbiased or correction, not both")
    return reduce_axes(op, input, dim, keepdim, correction, None)


def var(input, dim=None, unbiased=None, keepdim=False, *, correction=None, axis=None):
    """Variance over axes: the sum of squared deviations from the mean, over n - correction.

    Parameters
    ----------
    input : Tensor
        float32 or float64.
    dim : int or sequence of int, optional
        Axes that are reduced. Default: all.
    unbiased : bool, optional
        PyTorch's older way to say correction=1 (True) or 0.
    keepdim : bool, optional
        Keep reduced axes with size 1. Default: False.
    correction : float, optional
        Default: 1, which makes the variance of a sample unbiased (Bessel).

    Raises
    ------
    RuntimeError
        For bool and integers.
    """
    return moment(FBP_OP_var, input, dim if axis is None else axis, unbiased, keepdim, correction)


def std(input, dim=None, unbiased=None, keepdim=False, *, correction=None, axis=None):
    """Square root of the variance; parameters as of `var`.  Its derivative is taken as 0 where it is 0."""
    return moment(FBP_OP_std, input, dim if axis is None else axis, unbiased, keepdim, correction)


cdef inline object mean_beside(object input, object dim, bint keepdim):
    return reduce_axes(FBP_OP_mean, input, None if isinstance(dim, bool) else dim, keepdim, 0.0, None)


def var_mean(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The pair (var, mean)."""
    return moment(FBP_OP_var, input, dim, unbiased, keepdim, correction), mean_beside(input, dim, keepdim)


def std_mean(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The pair (std, mean)."""
    return moment(FBP_OP_std, input, dim, unbiased, keepdim, correction), mean_beside(input, dim, keepdim)


def norm(input, p="fro", dim=None, keepdim=False, *, dtype=None):
    """(sum |x|**p)**(1/p) over axes.

    Parameters
    ----------
    input : Tensor
        float32 or float64.
    p : float, "fro" or "nuc", optional
        The order; "fro" (default) is 2, inf and -inf are the largest and smallest |x|, 0 counts the non-zero elements; "nuc" is the sum
        of a matrix's singular values.
    dim : int or sequence of int, optional
        Axes that are reduced. Default: all.
    keepdim : bool, optional
        Keep reduced axes with size 1. Default: False.
    dtype : dtype, optional
        Cast the input to it first.

    Raises
    ------
    RuntimeError
        For bool and integers, and for negative and infinite orders of nothing.
    """
    cdef double order = 2.0
    if p == "nuc":
        from fastbp import linalg
        return linalg.matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if p is not None and p != "fro":
        if isinstance(p, str):
            raise RuntimeError(f"norm: p must be a number, 'fro' or 'nuc', got {p!r}")
        order = p
    return reduce_axes(FBP_OP_norm, input, dim, keepdim, order, dtype)


# ---- exponential families -----------------------------------------------------------------------------------------------

def logsumexp(input, dim, keepdim=False):
    """log(sum(exp(input))) over one axis or several, without overflow."""
    if dim is None:
        refuse_dim("logsumexp", dim)
    return reduce_axes(FBP_OP_logsumexp, input, dim, keepdim, 0.0, None)


def softmax(input, dim, *, dtype=None):
    """exp(input) over its sum along an axis, without overflow; `dtype` casts the input first."""
    return along_axis(FBP_OP_softmax, input, dim, False, dtype)


def log_softmax(input, dim, *, dtype=None):
    """The logarithm of `softmax`, without underflow; `dtype` casts the input first."""
    return along_axis(FBP_OP_log_softmax, input, dim, False, dtype)
