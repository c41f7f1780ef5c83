def sum(self, dim=None, keepdim=False, *, dtype=None, axis=None):
    """Sum over axes; see `fastbp.sum`."""
    return reduce_axes(FBP_OP_sum, self, dim if axis is None else axis, keepdim, 0.0, dtype)

def mean(self, dim=None, keepdim=False, *, dtype=None, axis=None):
    """Arithmetic mean over axes; see `fastbp.mean`."""
    return reduce_axes(FBP_OP_mean, self, dim if axis is None else axis, keepdim, 0.0, dtype)

def prod(self, dim=None, keepdim=False, *, dtype=None, axis=None):
    """Product over axes; see `fastbp.prod`."""
    return reduce_axes(FBP_OP_prod, self, dim if axis is None else axis, keepdim, 0.0, dtype)

def nansum(self, dim=None, keepdim=False, *, dtype=None):
    """Sum over axes in which NaN counts as 0."""
    return nansum(self, dim, keepdim, dtype=dtype)

def count_nonzero(self, dim=None):
    """How many elements are not 0."""
    return count_nonzero(self, dim)

def cumsum(self, dim, *, dtype=None):
    """Running sum along an axis."""
    return along_axis(FBP_OP_cumsum, self, dim, False, dtype)

def any(self, dim=None, keepdim=False, *, axis=None):
    """Whether some element is not 0."""
    return reduce_axes(FBP_OP_any, self, dim if axis is None else axis, keepdim, 0.0, None)

def all(self, dim=None, keepdim=False, *, axis=None):
    """Whether no element is 0."""
    return reduce_axes(FBP_OP_all, self, dim if axis is None else axis, keepdim, 0.0, None)

def max(self, dim=None, keepdim=False, *, other=None, axis=None):
    """Largest value; see `fastbp.max`."""
    return extreme_of(FBP_OP_argmax, FBP_OP_amax, FBP_OP_maximum, self,
                      other if other is not None else dim if axis is None else axis, keepdim, _max_result)

def min(self, dim=None, keepdim=False, *, other=None, axis=None):
    """Smallest value; see `fastbp.min`."""
    return extreme_of(FBP_OP_argmin, FBP_OP_amin, FBP_OP_minimum, self,
                      other if other is not None else dim if axis is None else axis, keepdim, _min_result)

def amax(self, dim=(), keepdim=False, *, axis=None):
    """Largest value over axes; ties share the derivative evenly."""
    return extreme_over(FBP_OP_amax, self, dim if axis is None else axis, keepdim)

def amin(self, dim=(), keepdim=False, *, axis=None):
    """Smallest value over axes; ties share the derivative evenly."""
    return extreme_over(FBP_OP_amin, self, dim if axis is None else axis, keepdim)

def aminmax(self, *, dim=None, keepdim=False):
    """Smallest and largest value as a named tuple (min, max)."""
    return aminmax(self, dim=dim, keepdim=keepdim)

def argmax(self, dim=None, keepdim=False, *, axis=None):
    """Index of the first largest value along an axis, or in the flattened tensor."""
    return place_over(FBP_OP_argmax, self, dim if axis is None else axis, keepdim)

def argmin(self, dim=None, keepdim=False, *, axis=None):
    """Index of the first smallest value along an axis, or in the flattened tensor."""
    return place_over(FBP_OP_argmin, self, dim if axis is None else axis, keepdim)

def median(self, dim=None, keepdim=False):
    """The element in the middle of the sorted ones; see `fastbp.median`."""
    return median(self, dim, keepdim)

def var(self, dim=None, unbiased=None, keepdim=False, *, correction=None, axis=None):
    """Variance over axes; see `fastbp.var`."""
    return moment(FBP_OP_var, self, dim if axis is None else axis, unbiased, keepdim, correction)

def std(self, dim=None, unbiased=None, keepdim=False, *, correction=None, axis=None):
    """Standard deviation over axes; see `fastbp.std`."""
    return moment(FBP_OP_std, self, dim if axis is None else axis, unbiased, keepdim, correction)

def norm(self, p="fro", dim=None, keepdim=False, dtype=None):
    """p-norm over axes; see `fastbp.norm`."""
    return norm(self, p, dim, keepdim, dtype=dtype)

def logsumexp(self, dim, keepdim=False):
    """log(sum(exp(input))) over axes, without overflow."""
    return logsumexp(self, dim, keepdim)

def softmax(self, dim, dtype=None):
    """exp(input) over its sum along an axis."""
    return along_axis(FBP_OP_softmax, self, dim, False, dtype)

def log_softmax(self, dim, dtype=None):
    """The logarithm of softmax."""
    return along_axis(FBP_OP_log_softmax, self, dim, False, dtype)
