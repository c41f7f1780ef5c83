# Arithmetic and products whose Python signature says more than their row of the op table.

cdef object scaled(object x, object factor):
    return binary(FBP_OP_mul, x, factor) if isinstance(factor, Tensor) or factor != 1 else x


def add(input, other, *, alpha=1, out=None):
    """input + alpha * other."""
    return store(binary(FBP_OP_add, input, scaled(other, alpha)), out)


def sub(input, other, *, alpha=1, out=None):
    """input - alpha * other."""
    return store(binary(FBP_OP_sub, input, scaled(other, alpha)), out)


def div(input, other, *, rounding_mode=None, out=None):
    """input / other; rounding_mode "trunc" or "floor" rounds the quotient (and keeps integers integers)."""
    if rounding_mode is None:
        return store(binary(FBP_OP_div, input, other), out)
    other = fixed_number(other)
    if rounding_mode == "floor":
        return store(binary(FBP_OP_floor_divide, input, other), out)
    if rounding_mode != "trunc":
        raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'")
    if isinstance(input, Tensor) and not input.is_floating_point() and not (isinstance(other, float) or
                                                                          (isinstance(other, Tensor) and other.is_floating_point())):
        return store(binary(FBP_OP_floor_divide, input - binary(FBP_OP_fmod, input, other), other), out)
    return store(unary(FBP_OP_trunc, binary(FBP_OP_div, input, other)), out)


cdef object power(object base, object exponent):
    """base ** exponent; the exponents that have an op of their own use it."""
    exponent = fixed_number(exponent) if isinstance(base, Tensor) else exponent
    if isinstance(base, Tensor) and isinstance(exponent, (int, float)):
        if exponent == 2:
            return unary(FBP_OP_square, base)
        if exponent == 3:
            return binary(FBP_OP_mul, unary(FBP_OP_square, base), base)
        if exponent == 0.5:
            return unary(FBP_OP_sqrt, base)
        if fbp_dtype_is_float(<fbp_dtype>(<Tensor>base).node.dtype):
            if exponent == -1:
                return unary(FBP_OP_reciprocal, base)
            if exponent == -0.5:
                return unary(FBP_OP_rsqrt, base)
        elif isinstance(exponent, int) and exponent < 0:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
    return binary(FBP_OP_pow, base, exponent)


def pow(input, exponent, *, out=None):
    """input to the power exponent."""
    return store(power(input, exponent), out)


def clamp(input, min=None, max=None, *, out=None):
    """Limited to [min, max]: numbers, or tensors that broadcast.

    Raises
    ------
    RuntimeError
        When neither bound is given.
    """
    min, max = fixed_number(min), fixed_number(max)
    if min is None and max is None:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        if min is not None:
            input = binary(FBP_OP_maximum, input, min)
        return store(input if max is None else binary(FBP_OP_minimum, input, max), out)
    if (isinstance(min, float) or isinstance(max, float)) and not fbp_dtype_is_float(<fbp_dtype>tensor_argument("clamp", input).node.dtype):
        input = cast(input, fbp_default_dtype())
    return store(unary_with(FBP_OP_clamp, input, -INFINITY if min is None else min, INFINITY if max is None else max), out)


clip = clamp


def round(input, *, decimals=0, out=None):
    """Nearest integer, halves to even; or to so many decimals."""
    if decimals == 0:
        return store(unary(FBP_OP_round, input), out)
    factor = 10.0 ** decimals
    return store(unary(FBP_OP_round, input * factor) / factor, out)


def gelu(input, approximate="none"):
    """input * Phi(input), Phi the normal distribution function; approximate="tanh" for the tanh formula (Hendrycks & Gimpel 2016)."""
    if approximate == "none":
        return unary(FBP_OP_gelu, input)
    if approximate == "tanh":
        return unary(FBP_OP_gelu_tanh, input)
    raise RuntimeError(f"approximate argument must be either none or tanh, got {approximate!r}")


def where(condition, input=None, other=None, *, out=None):
    """input where condition holds, else other; with the condition alone, the indices where it holds."""
    cdef fbp_tensor *inputs[3]
    cdef fbp_tensor *result
    cdef int i
    if input is None and other is None:
        return nonzero(tensor_argument("where", condition, "condition"), as_tuple=True)
    inputs[0] = inputs[1] = inputs[2] = NULL
    try:
        inputs[0] = operand(condition, FBP_BOOL, b"where")
        if inputs[0].dtype != FBP_BOOL and inputs[0].dtype != FBP_UINT8:
            raise RuntimeError(f"where expected condition to be a boolean tensor, but got a tensor with dtype {DTYPES[inputs[0].dtype]!r}")
        inputs[1] = operand(input, (<Tensor>other).node.dtype if isinstance(other, Tensor) else -1, b"where")
        inputs[2] = operand(other, inputs[1].dtype if isinstance(input, Tensor) else -1, b"where")
        check(fbp_apply(FBP_OP_where, 3, inputs, NULL, 0, &result))
    finally:
        for i in range(3):
            if inputs[i] != NULL:
                fbp_release(inputs[i])
    return store(wrap(result), out)


# ---- products -----------------------------------------------------------------------------------------------------------

def matmul(input, other, *, out=None):
    """Matrix product with NumPy's rules for vectors and batches.

    Parameters
    ----------
    input, other : Tensor
        (..., m, k) and (..., k, n); one axis makes a vector.  One dtype.
    out : Tensor, optional
        Contiguous result to write.

    Raises
    ------
    RuntimeError
        When the inner sizes or the dtypes differ.
    """
    cdef fbp_tensor *inputs[2]
    if out is None:
        return binary(FBP_OP_matmul, input, other)
    inputs[0] = tensor_argument("matmul", input).node
    inputs[1] = tensor_argument("matmul", other, "other").node
    check(fbp_apply_out(FBP_OP_matmul, 2, inputs, NULL, 0, tensor_argument("matmul", out, "out").node))
    return out


cdef int expect_dims(str op, object x, int ndim) except -1:
    if tensor_argument(op, x).node.ndim != ndim:
        raise RuntimeError(f"{op}: expected a {ndim}-D tensor, got shape {tuple(x.shape)}")
    return 0


def mm(input, mat2, *, out=None):
    """Product of two matrices."""
    expect_dims("mm", input, 2)
    expect_dims("mm", mat2, 2)
    return matmul(input, mat2, out=out)


def bmm(input, mat2, *, out=None):
    """Products of two equal batches of matrices."""
    expect_dims("bmm", input, 3)
    expect_dims("bmm", mat2, 3)
    if input.shape[0] != mat2.shape[0]:
        raise RuntimeError(f"bmm: batch sizes differ: {tuple(input.shape)} and {tuple(mat2.shape)}")
    return matmul(input, mat2, out=out)


def mv(input, vec, *, out=None):
    """Matrix times vector."""
    expect_dims("mv", input, 2)
    expect_dims("mv", vec, 1)
    return store(binary(FBP_OP_matmul, input, vec), out)


def dot(input, tensor, *, out=None):
    """Inner product of two vectors."""
    expect_dims("dot", input, 1)
    expect_dims("dot", tensor, 1)
    return store(binary(FBP_OP_matmul, input, tensor), out)


vdot = dot  # real numbers are their own conjugates


def outer(input, vec2, *, out=None):
    """Outer product of two vectors: (n,) and (m,) to (n, m)."""
    expect_dims("outer", input, 1)
    expect_dims("outer", vec2, 1)
    return store(binary(FBP_OP_mul, unsqueeze(input, 1), vec2), out)


ger = outer


def addmm(input, mat1, mat2, *, beta=1, alpha=1, out=None):
    """beta * input + alpha * (mat1 @ mat2); input broadcasts."""
    cdef fbp_scalar_attribute attribute
    cdef fbp_tensor *inputs[3]
    cdef fbp_tensor *result
    attribute.p[0] = beta
    attribute.p[1] = alpha
    inputs[0] = tensor_argument("addmm", input).node
    inputs[1] = tensor_argument("addmm", mat1, "mat1").node
    inputs[2] = tensor_argument("addmm", mat2, "mat2").node
    check(fbp_apply(FBP_OP_addmm, 3, inputs, &attribute, sizeof(attribute), &result))
    return store(wrap(result), out)


def baddbmm(input, batch1, batch2, *, beta=1, alpha=1):
    """beta * input + alpha * (batch1 @ batch2), for batches of matrices."""
    return scaled(input, beta) + scaled(bmm(batch1, batch2), alpha)


def linear(input, weight, bias=None):
    """input @ weight.T + bias.

    Parameters
    ----------
    input : Tensor
        (..., in_features).
    weight : Tensor
        (out_features, in_features).
    bias : Tensor, optional
        (out_features,).

    Raises
    ------
    RuntimeError
        When sizes or dtypes disagree.
    """
    cdef fbp_tensor *inputs[3]
    cdef fbp_tensor *out
    inputs[0] = tensor_argument("linear", input).node
    inputs[1] = tensor_argument("linear", weight, "weight").node
    inputs[2] = tensor_argument("linear", bias, "bias").node if bias is not None else NULL
    check(fbp_apply(FBP_OP_linear, 3, inputs, NULL, 0, &out))
    return wrap(out)


# ---- comparison ------------------------------------------------------------------------------------------------------------

def equal(input, other):
    """Whether shape and every element agree."""
    return (fbp_same_shape(tensor_argument("equal", input).node, tensor_argument("equal", other, "other").node)
            and bool((input == other).all()))


def isclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Where |input - other| <= atol + rtol * |other|, or both are equal (infinities), or, on request, NaN."""
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose(): rtol and atol must be greater than or equal to zero, but got {rtol} and {atol}")
    a, b = tensor_argument("isclose", input).detach(), tensor_argument("isclose", other, "other").detach()
    if not a.is_floating_point():
        a, b = a.double(), b.double()
    near = (a == b) | (isfinite(b) & ((a - b).abs() <= atol + rtol * b.abs()))
    return near | (isnan(a) & isnan(b)) if equal_nan else near


def allclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Whether isclose() holds everywhere."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())
