# Losses; nn.functional has the same names with PyTorch's deprecated arguments and warnings around them.

cdef int reduction_code(object reduction) except -1:
    """fbp_reduction for "none", "mean" or "sum"; ValueError for anything else."""
    if reduction == "mean":
        return 1
    if reduction == "sum":
        return 2
    if reduction == "none":
        return 0
    raise ValueError(f"{reduction} is not a valid value for reduction; use 'mean', 'sum' or 'none'")


cdef object reduced_loss(object loss, int reduction):
    """Elementwise losses as `reduction` wants them."""
    cdef Tensor x = loss
    if reduction == 0:
        return loss
    return reduce_mask(FBP_OP_mean if reduction == 1 else FBP_OP_sum, x, ((<uint32_t>1) << x.node.ndim) - 1, False, 0.0)


def mse_loss(input, target, *, reduction="mean"):
    """(input - target)**2.

    Parameters
    ----------
    input, target : Tensor
        Shapes that broadcast.
    reduction : {"mean", "sum", "none"}, optional
        A number, or with "none" each element. Default: "mean".

    Raises
    ------
    ValueError
        For another reduction.

    Examples
    --------
    >>> fastbp.nn.functional.mse_loss(fastbp.tensor([1., 2.]), fastbp.tensor([1., 4.]))
    tensor(2.)
    """
    cdef int how = reduction_code(reduction)
    return reduced_loss(binary(FBP_OP_squared_error, input, target), how)


def l1_loss(input, target, *, reduction="mean"):
    """|input - target|, reduced as `mse_loss`."""
    cdef int how = reduction_code(reduction)
    return reduced_loss(binary(FBP_OP_absolute_error, input, target), how)


def smooth_l1_loss(input, target, *, reduction="mean", double beta=1.0):
    """With d = input - target: d**2 / (2 beta) where |d| < beta, else |d| - beta/2 (Girshick 2015); reduced as `mse_loss`.

    Raises
    ------
    RuntimeError
        When beta is negative.
    """
    cdef int how = reduction_code(reduction)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}")
    if beta == 0:
        return reduced_loss(binary(FBP_OP_absolute_error, input, target), how)
    return reduced_loss(binary_with(FBP_OP_smooth_absolute_error, input, target, beta, 0.0), how)


def huber_loss(input, target, *, reduction="mean", double delta=1.0):
    """With d = input - target: d**2 / 2 where |d| <= delta, else delta (|d| - delta/2) (Huber 1964); reduced as `mse_loss`.

    Raises
    ------
    RuntimeError
        When delta is not positive.
    """
    cdef int how = reduction_code(reduction)
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, got {delta}")
    return reduced_loss(binary_with(FBP_OP_huber_error, input, target, delta, 0.0), how)


# ---- binary entropies -----------------------------------------------------------------------------------------------------

cdef int probability_check(Tensor x, Tensor loss, int how) except -1:
    """RuntimeError where x leaves [0, 1].  A number of a loss that is not NaN has met no such element, so only others look."""
    cdef object low, high
    if loss.node.storage.symbolic or (how != 0 and not read_is_nan(loss.node)) or x.node.numel == 0:
        return 0
    x = x.detach()
    low = reduce_mask(FBP_OP_amin, x, ((<uint32_t>1) << x.node.ndim) - 1, False, 0.0).item()
    high = reduce_mask(FBP_OP_amax, x, ((<uint32_t>1) << x.node.ndim) - 1, False, 0.0).item()
    if not (low >= 0 and high <= 1):
        raise RuntimeError("binary_cross_entropy: all elements of input should be between 0 and 1, but they reach from "
                           f"{low} to {high}; for logits use binary_cross_entropy_with_logits")
    return 0


cdef inline bint read_is_nan(const fbp_tensor *t) noexcept:
    cdef double value = (<float *>t.data)[0] if t.dtype == FBP_FLOAT32 else (<double *>t.data)[0]
    return value != value


def binary_cross_entropy(input, target, *, weight=None, reduction="mean"):
    """-(target log(input) + (1 - target) log(1 - input)), the logarithms limited to >= -100.

    Parameters
    ----------
    input : Tensor
        Probabilities.
    target : Tensor
        Of input's shape.
    weight : Tensor, optional
        A factor for each element; broadcasts.
    reduction : {"mean", "sum", "none"}, optional
        Default: "mean".

    Raises
    ------
    RuntimeError
        When an element of input is outside [0, 1].
    """
    cdef int how = reduction_code(reduction)
    loss = binary(FBP_OP_binary_entropy, input, target)
    if weight is not None:
        loss = binary(FBP_OP_mul, loss, weight)
    loss = reduced_loss(loss, how)
    if isinstance(input, Tensor):
        probability_check(input, loss, how)
    return loss


def binary_cross_entropy_with_logits(input, target, *, weight=None, reduction="mean", pos_weight=None):
    """`binary_cross_entropy` of sigmoid(input), without overflow.

    Parameters
    ----------
    input : Tensor
        Logits.
    target : Tensor
        Of input's shape.
    weight : Tensor, optional
        A factor for each element; broadcasts.
    reduction : {"mean", "sum", "none"}, optional
        Default: "mean".
    pos_weight : Tensor, optional
        Factor of the part that target weighs; broadcasts.
    """
    cdef int how = reduction_code(reduction)
    if pos_weight is None:
        loss = binary(FBP_OP_binary_entropy_with_logits, input, target)
    else:  # (1 - y) x + (1 + (w - 1) y) softplus(-x), softplus(-x) = -log_sigmoid(x)
        factor = 1 + (pos_weight - 1) * target
        loss = (1 - target) * input - factor * unary(FBP_OP_log_sigmoid, input)
    if weight is not None:
        loss = binary(FBP_OP_mul, loss, weight)
    return reduced_loss(loss, how)


# ---- losses over classes ----------------------------------------------------------------------------------------------------

cdef object class_loss(fbp_op op, Tensor x, Tensor target, Tensor weight, int64_t ignore_index, int how, double smoothing):
    cdef fbp_loss_attribute attribute
    cdef fbp_tensor *inputs[3]
    cdef fbp_tensor *out
    memset(&attribute, 0, sizeof(attribute))
    attribute.ignore_index = ignore_index
    attribute.label_smoothing = smoothing
    attribute.reduction = how
    inputs[0] = x.node
    inputs[1] = target.node
    inputs[2] = NULL if weight is None else weight.node
    check(fbp_apply(op, 2 if weight is None else 3, inputs, &attribute, sizeof(attribute), &out))
    return wrap(out)


def nll_loss(input, target, *, weight=None, ignore_index=-100, reduction="mean"):
    """-weight[t] * input[n, t] for log-probabilities and classes t.

    Parameters
    ----------
    input : Tensor
        Log-probabilities: (C,), (N, C) or (N, C, d1, ...).
    target : Tensor
        Classes, int64: (), (N,) or (N, d1, ...).
    weight : Tensor, optional
        A factor per class, (C,).
    ignore_index : int, optional
        Targets equal to it count nothing. Default: -100.
    reduction : {"mean", "sum", "none"}, optional
        The mean is over the sum of the weights that counted. Default: "mean".

    Raises
    ------
    IndexError
        When a target is no class.
    ValueError
        When the batch sizes differ.
    RuntimeError
        When target is not int64, or shapes or dtypes do not fit.
    """
    return class_loss(FBP_OP_nll_loss, as_input(FBP_OP_nll_loss, input), as_input(FBP_OP_nll_loss, target), weight, ignore_index,
                      reduction_code(reduction), 0.0)


cdef object probability_entropy(Tensor x, Tensor target, object weight, int how, double smoothing):
    """Cross entropy where the target holds a probability for each class."""
    cdef int at = 0 if x.node.ndim == 1 else 1
    cdef int64_t classes = fbp_shape(x.node)[at]
    cdef object wanted = target, terms
    if smoothing != 0:
        wanted = wanted * (1.0 - smoothing) + smoothing / classes
    terms = binary(FBP_OP_mul, along_axis(FBP_OP_log_softmax, x, at, False, None), wanted)
    if weight is not None:
        terms = terms * weight.reshape([-1] + [1] * (x.node.ndim - 1 - at))
    if how == 0:
        return -reduce_mask(FBP_OP_sum, terms, (<uint32_t>1) << at, False, 0.0)
    total = reduce_mask(FBP_OP_sum, terms, ((<uint32_t>1) << x.node.ndim) - 1, False, 0.0)
    return total * (-1.0 if how == 2 else -1.0 * classes / x.node.numel if x.node.numel else float("nan"))


def cross_entropy(input, target, *, weight=None, ignore_index=-100, reduction="mean", double label_smoothing=0.0):
    """Negative log-likelihood of softmax(input).

    Parameters
    ----------
    input : Tensor
        Logits: (C,), (N, C) or (N, C, d1, ...).
    target : Tensor
        Classes, int64: (), (N,) or (N, d1, ...); or probabilities of classes, of input's shape and a floating type.
    weight : Tensor, optional
        A factor per class, (C,).
    ignore_index : int, optional
        Classes equal to it count nothing. Default: -100.
    reduction : {"mean", "sum", "none"}, optional
        The mean over classes is weighted, as in `nll_loss`; over probabilities it is over positions. Default: "mean".
    label_smoothing : float, optional
        Share of the target's probability that is spread evenly over all classes (Szegedy et al. 2016). Default: 0.

    Raises
    ------
    IndexError
        When a target is no class.
    ValueError
        When the batch sizes differ.
    RuntimeError
        When shapes or dtypes do not fit, or label_smoothing is outside [0, 1].

    Examples
    --------
    >>> fastbp.nn.functional.cross_entropy(fastbp.zeros(1, 2), fastbp.tensor([1]))
    tensor(0.6931)
    """
    cdef Tensor x = as_input(FBP_OP_cross_entropy, input), t = as_input(FBP_OP_cross_entropy, target)
    cdef int how = reduction_code(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if x.node.ndim and fbp_same_shape(x.node, t.node):
        if fbp_dtype_is_float(<fbp_dtype>t.node.dtype):
            return probability_entropy(x, t, weight, how, label_smoothing)
        if x.node.ndim > 1:
            raise RuntimeError("cross_entropy: Expected floating point type for target with class probabilities, got "
                               f"{target.dtype!r}; class indices have the shape of input without its dimension 1")
    return class_loss(FBP_OP_cross_entropy, x, t, weight, ignore_index, how, label_smoothing)


def kl_div(input, target, *, reduction="mean", log_target=False):
    """Kullback-Leibler divergence target (log(target) - input), for `input` in logarithms.

    Parameters
    ----------
    input : Tensor
        Log-probabilities.
    target : Tensor
        Probabilities, or their logarithms with log_target=True.
    reduction : {"mean", "batchmean", "sum", "none"}, optional
        "batchmean" is the sum over the size of the first axis, which is the divergence's definition. Default: "mean",
        over all elements, as in PyTorch.
    log_target : bool, optional
        Default: False.
    """
    cdef bint per_batch = reduction == "batchmean"
    cdef int how = 2 if per_batch else reduction_code(reduction)
    if log_target:
        loss = target.exp() * (target - input)
    else:  # target log(target) is 0 at 0, and so is its derivative there
        positive = target > 0
        loss = target * (where(positive, target, 1.0).log() - input)
    loss = reduced_loss(loss, how)
    return loss / input.shape[0] if per_batch and input.ndim else loss
