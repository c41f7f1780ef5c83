def view(self, *shape):
    """The same elements under another shape, without copying; or, given a dtype of the same size, reinterpreted."""
    return reshaped(self, shape, True)

def reshape(self, *shape):
    """The same elements under another shape; a view where strides allow."""
    return reshaped(self, shape, False)

def view_as(self, other):
    """view() to other's shape."""
    return reshaped(self, (tensor_argument("view_as", other, "other").shape,), True)

def reshape_as(self, other):
    """reshape() to other's shape."""
    return reshaped(self, (tensor_argument("reshape_as", other, "other").shape,), False)

def permute(self, *dims):
    """Axes in another order, as a view."""
    return permuted(self, dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)

def transpose(self, dim0, dim1):
    """Two axes swapped, as a view."""
    return transposed(self, dim0, dim1)

swapaxes = swapdims = transpose

def t(self):
    """A matrix transposed, as a view; vectors and scalars as they are."""
    if self.node.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {self.node.ndim}D")
    return self if self.node.ndim < 2 else transposed(self, 0, 1)

@property
def T(self):
    """All axes reversed, as a view."""
    return permuted(self, range(self.node.ndim - 1, -1, -1))

@property
def mT(self):
    """The last two axes swapped, as a view."""
    return transposed(self, -2, -1)

def movedim(self, source, destination):
    """Axes moved to other positions, the others in their old order."""
    return movedim(self, source, destination)

def expand(self, *sizes):
    """Axes of size 1, and new leading ones, repeated without copying; -1 keeps a size."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int i, ndim = read_sizes(sizes, shape), lead = ndim - self.node.ndim
    for i in range(ndim):
        if shape[i] == -1:
            if i < lead:
                raise RuntimeError(f"expand: the size -1 is not allowed in a leading, non-existing dimension {i}")
            shape[i] = fbp_shape(self.node)[i - lead]
    return as_shape(FBP_OP_expand, self, ndim, shape)

def expand_as(self, other):
    """expand() to other's shape."""
    cdef fbp_tensor *like = tensor_argument("expand_as", other, "other").node
    return as_shape(FBP_OP_expand, self, like.ndim, fbp_shape(like))

def broadcast_to(self, *shape):
    """expand()."""
    return self.expand(*shape)

def squeeze(self, dim=None):
    """Without axes of size 1: all of them, or those named."""
    return squeeze(self, dim)

def unsqueeze(self, dim):
    """With a new axis of size 1."""
    return unsqueeze(self, dim)

def flatten(self, start_dim=0, end_dim=-1):
    """Axes start_dim to end_dim as one."""
    return flatten(self, start_dim, end_dim)

def ravel(self):
    """One axis."""
    return reshaped(self, (-1,), False)

def unflatten(self, dim, sizes):
    """One axis as several."""
    return unflatten(self, dim, sizes)

def repeat(self, *sizes):
    """The whole repeated along every axis, copied."""
    cdef int64_t times[FBP_MAX_NDIM]
    cdef int i, ndim = read_sizes(sizes, times), lead = ndim - self.node.ndim
    if lead < 0:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    for i in range(ndim):
        if times[i] < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {times[i]}: repeat() of {shape_tuple(self.node)}")
    old = (1,) * lead + shape_tuple(self.node)
    spread, wide = [], []
    for i in range(ndim):
        spread += [1, old[i]]
        wide += [times[i], old[i]]
    return self.reshape(spread).expand(wide).reshape([old[i] * times[i] for i in range(ndim)]) if ndim <= FBP_MAX_NDIM // 2 else \
        cat_repeat(self.reshape(old), [times[i] for i in range(ndim)])

def tile(self, *dims):
    """repeat() whose missing leading repeats are 1."""
    return tile(self, dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)

def repeat_interleave(self, repeats, dim=None):
    """Each element repeated on its place."""
    return repeat_interleave(self, repeats, dim)

def contiguous(self, memory_format=None):
    """This tensor when it is contiguous, else a copy that is."""
    return self if fbp_is_contiguous(self.node) else unary(FBP_OP_copy, self)

def clone(self, *, memory_format=None):
    """A contiguous copy that takes part in differentiation."""
    return unary(FBP_OP_copy, self)

def narrow(self, dim, start, length):
    """`length` elements of an axis from `start` on, as a view."""
    return narrow(self, dim, start, length)

def select(self, dim, index):
    """One element of an axis, which goes away; a view."""
    return select(self, dim, index)

def split(self, split_size, dim=0):
    """Views of an axis cut into pieces of a size, or of the sizes listed."""
    return split(self, split_size, dim)

def chunk(self, chunks, dim=0):
    """Views of an axis cut into at most `chunks` equal pieces."""
    return chunk(self, chunks, dim)

def unbind(self, dim=0):
    """Views of every element of an axis."""
    return unbind(self, dim)

def diagonal(self, offset=0, dim1=0, dim2=1):
    """Elements on a diagonal of two axes; a view."""
    return diagonal(self, offset, dim1, dim2)

def diag(self, diagonal=0):
    """The diagonal of a matrix, or a matrix with this diagonal."""
    return diag(self, diagonal)

def trace(self):
    """Sum of the main diagonal of a matrix."""
    return trace(self)

# ---- types and devices

def to(self, *args, dtype=None, device=None, non_blocking=False, copy=False, memory_format=None):
    """This tensor in another dtype: to(dtype), to(other), to("cpu"); itself where nothing changes, unless `copy`."""
    cdef Tensor result = self
    for given in args:
        if isinstance(given, Tensor):
            dtype = given.dtype
        elif isinstance(given, (str, device_type)) and str(given) not in DTYPE_BY_NAME:
            device = given
        elif not isinstance(given, bool) and given is not None:
            dtype = given
    if device is not None:
        check_device(device)
    if dtype is not None:
        result = cast(self, dtype_code(dtype))
    return unary(FBP_OP_copy, result) if copy and result is self else result

def type(self, dtype=None):
    """The dtype's legacy name, or this tensor in another dtype."""
    if dtype is None:
        return "fastbp." + LEGACY_NAMES[self.node.dtype]
    return cast(self, dtype_code(dtype))

def type_as(self, other):
    """This tensor in other's dtype."""
    return cast(self, <fbp_dtype>tensor_argument("type_as", other, "other").node.dtype)

def float(self):
    """This tensor as float32."""
    return cast(self, FBP_FLOAT32)

def double(self):
    """This tensor as float64."""
    return cast(self, FBP_FLOAT64)

def long(self):
    """This tensor as int64."""
    return cast(self, FBP_INT64)

def int(self):
    """This tensor as int32."""
    return cast(self, FBP_INT32)

def byte(self):
    """This tensor as uint8."""
    return cast(self, FBP_UINT8)

def bool(self):
    """This tensor as bool."""
    return cast(self, FBP_BOOL)

def cpu(self):
    """This tensor: it is on the CPU."""
    return self

def cuda(self, device=None, non_blocking=False):
    """Raises: there is only the CPU."""
    check_device("cuda")

def pin_memory(self):
    """This tensor: there is no other memory."""
    return self

def share_memory_(self):
    """This tensor: threads share memory as it is."""
    return self

# ---- writing

def copy_(self, src, non_blocking=False):
    """Take over src's elements, broadcast and converted; returns self."""
    cdef fbp_tensor *source = operand(src, self.node.dtype, b"copy_")
    cdef fbp_status status = fbp_copy_in_place(&self.node, source)
    fbp_release(source)
    check(status)
    return self

def fill_(self, value):
    """Set every element to a number, or to a tensor's of no dimensions; returns self."""
    if isinstance(value, Tensor) and (<Tensor>value).node.ndim:
        raise RuntimeError(f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions.")
    return self.copy_(value)

def zero_(self):
    """Set every element to 0; returns self."""
    return self.copy_(0)

def set_(self, source):
    """Stand for source's elements; returns self."""
    self.data = tensor_argument("set_", source, "source")
    return self

def resize_(self, *sizes):
    """Give this tensor a shape; elements beyond the old ones are undefined.  Returns self."""
    cdef int64_t shape[FBP_MAX_NDIM]
    cdef int ndim = read_sizes(sizes, shape)
    fresh = empty(tuple([shape[i] for i in range(ndim)]), dtype=self.dtype)
    kept = builtin_min(fresh.numel(), self.numel())
    fresh.view(-1)[:kept] = self.detach().reshape(-1)[:kept]
    self.data = fresh
    return self

def unsqueeze_(self, dim):
    """unsqueeze() in place."""
    return reshape_in_place(self, unsqueeze(self, dim))

def squeeze_(self, dim=None):
    """squeeze() in place."""
    return reshape_in_place(self, squeeze(self, dim))

def t_(self):
    """t() in place."""
    return reshape_in_place(self, self.t())

def transpose_(self, dim0, dim1):
    """transpose() in place."""
    return reshape_in_place(self, transposed(self, dim0, dim1))

# ---- arithmetic whose PyTorch signature says more than the op's row

def add(self, other, *, alpha=1):
    """self + alpha * other."""
    return add(self, other, alpha=alpha)

def add_(self, other, *, alpha=1):
    """In-place add()."""
    return binary_in_place(FBP_OP_add, self, scaled(other, alpha), 0.0, 0.0)

def sub(self, other, *, alpha=1):
    """self - alpha * other."""
    return sub(self, other, alpha=alpha)

def sub_(self, other, *, alpha=1):
    """In-place sub()."""
    return binary_in_place(FBP_OP_sub, self, scaled(other, alpha), 0.0, 0.0)

def div(self, other, *, rounding_mode=None):
    """self / other; rounding_mode "trunc" or "floor" rounds the quotient."""
    return div(self, other, rounding_mode=rounding_mode)

def div_(self, other, *, rounding_mode=None):
    """In-place div()."""
    if rounding_mode is None:
        return binary_in_place(FBP_OP_div, self, other, 0.0, 0.0)
    return self.copy_(div(self, other, rounding_mode=rounding_mode))

def pow(self, exponent):
    """self to the power exponent."""
    return power(self, exponent)

def pow_(self, exponent):
    """In-place pow()."""
    if isinstance(exponent, int) and exponent < 0 and not fbp_dtype_is_float(<fbp_dtype>self.node.dtype):
        raise RuntimeError("Integers to negative integer powers are not allowed.")
    return binary_in_place(FBP_OP_pow, self, exponent, 0.0, 0.0)

def clamp(self, min=None, max=None):
    """Limited to [min, max]."""
    return clamp(self, min, max)

def clamp_(self, min=None, max=None):
    """In-place clamp()."""
    if min is None and max is None:
        raise RuntimeError("clamp_: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return self.copy_(clamp(self, min, max))
    return unary_in_place(FBP_OP_clamp, self, -INFINITY if min is None else min, INFINITY if max is None else max)

def clip(self, min=None, max=None):
    """Limited to [min, max]."""
    return clamp(self, min, max)

def clip_(self, min=None, max=None):
    """In-place clip()."""
    return self.clamp_(min, max)

def clamp_min(self, min):
    """At least min."""
    return clamp(self, min)

def clamp_max(self, max):
    """At most max."""
    return clamp(self, None, max)

def round(self, *, decimals=0):
    """Nearest integer, halves to even; or to so many decimals."""
    return round(self, decimals=decimals)

def round_(self):
    """In-place round()."""
    return unary_in_place(FBP_OP_round, self, 0.0, 0.0)

def where(self, condition, other):
    """self where condition holds, else other."""
    return where(condition, self, other)

def addcmul(self, tensor1, tensor2, *, value=1):
    """self + value * tensor1 * tensor2."""
    return self + scaled(binary(FBP_OP_mul, tensor1, tensor2), value)

def addcmul_(self, tensor1, tensor2, *, value=1):
    """In-place addcmul()."""
    return binary_in_place(FBP_OP_add, self, scaled(binary(FBP_OP_mul, tensor1, tensor2), value), 0.0, 0.0)

def addcdiv(self, tensor1, tensor2, *, value=1):
    """self + value * tensor1 / tensor2."""
    return self + scaled(binary(FBP_OP_div, tensor1, tensor2), value)

def addcdiv_(self, tensor1, tensor2, *, value=1):
    """In-place addcdiv()."""
    return binary_in_place(FBP_OP_add, self, scaled(binary(FBP_OP_div, tensor1, tensor2), value), 0.0, 0.0)

def lerp(self, end, weight):
    """self + weight * (end - self)."""
    return self + (end - self) * weight

def lerp_(self, end, weight):
    """In-place lerp()."""
    return binary_in_place(FBP_OP_add, self, (end - self) * weight, 0.0, 0.0)

# ---- products

def matmul(self, other):
    """Matrix product with NumPy's rules for vectors and batches."""
    return matmul(self, other)

def mm(self, mat2):
    """Product of two matrices."""
    return mm(self, mat2)

def bmm(self, mat2):
    """Products of two equal batches of matrices."""
    return bmm(self, mat2)

def mv(self, vec):
    """Matrix times vector."""
    return mv(self, vec)

def dot(self, other):
    """Inner product of two vectors."""
    return dot(self, other)

def outer(self, vec2):
    """Outer product of two vectors."""
    return outer(self, vec2)

def addmm(self, mat1, mat2, *, beta=1, alpha=1):
    """beta * self + alpha * (mat1 @ mat2)."""
    return addmm(self, mat1, mat2, beta=beta, alpha=alpha)

def equal(self, other):
    """Whether shape and every element agree."""
    return equal(self, other)

def allclose(self, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Whether every element agrees to |a - b| <= atol + rtol |b|."""
    return allclose(self, other, rtol, atol, equal_nan)
