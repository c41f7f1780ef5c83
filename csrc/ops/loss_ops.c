/* loss_ops.c -- losses over classes: logits or log-probabilities [C], [N, C] or [N, C, d...] and class indices.
 *
 * The public nll_loss has no label smoothing; the row honours it nevertheless, because with q the
 * smoothed and weighted one-hot target, cross_entropy is <-q, log_softmax(x)>: so derivatives of cross_entropy of every
 * order are said with nll_loss and nll_grad.
 */
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"

/* ---- checks and layouts ------------------------------------------------------------------------------------------ */

static int class_axis(int ndim) { return ndim == 1 ? 0 : 1; }

static fbp_status input_check(const char *op, const fbp_tensor *x) {
    if (!fbp_dtype_is_float((fbp_dtype)x->dtype))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: the input must be of a floating point type, got %s; cast it with .float()", op,
                        fbp_dtype_name((fbp_dtype)x->dtype));
    if (x->ndim == 0) return fbp_fail(FBP_ERROR_RUNTIME, "%s: the input needs a dimension of classes, got a 0-d tensor", op);
    return FBP_OK;
}

/* Torch's name of a type, for a message that people search for. */
static const char *scalar_name(fbp_dtype dtype) {
    static const char *const name[FBP_DTYPE_COUNT] = {"Bool", "Byte", "Int", "Long", "Float", "Double"};
    return name[dtype];
}

static fbp_status target_check(const char *op, const fbp_tensor *target) {
    if (target->dtype == FBP_INT64) return FBP_OK;
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: expected scalar type Long but found %s; class indices are int64: cast the target with .long()",
                    op, scalar_name((fbp_dtype)target->dtype));
}

/* `target` must name a class for each position of x. */
static fbp_status shapes_check(const char *op, const fbp_tensor *x, const fbp_tensor *target) {
    if (x->ndim == 1) {
        if (target->ndim == 0 || (target->ndim == 1 && target->numel == 1)) return FBP_OK;
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: an input of shape %s wants one class index, got a target of shape %s", op,
                        fbp_tensor_shape_text(x), fbp_tensor_shape_text(target));
    }
    if (target->ndim != x->ndim - 1)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: an input of shape %s wants a target of %d dimension(s) of class indices, got shape %s", op,
                        fbp_tensor_shape_text(x), x->ndim - 1, fbp_tensor_shape_text(target));
    if (fbp_shape(target)[0] != fbp_shape(x)[0])
        return fbp_fail(FBP_ERROR_VALUE, "%s: Expected input batch_size (%lld) to match target batch_size (%lld).", op,
                        (long long)fbp_shape(x)[0], (long long)fbp_shape(target)[0]);
    for (int i = 1; i < target->ndim; i++)
        if (fbp_shape(target)[i] != fbp_shape(x)[i + 1])
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: an input of shape %s does not fit a target of shape %s", op, fbp_tensor_shape_text(x),
                            fbp_tensor_shape_text(target));
    return FBP_OK;
}

/* `weight` may be NULL. */
static fbp_status weight_check(const char *op, const fbp_tensor *weight, int64_t classes, fbp_dtype dtype) {
    if (!weight) return FBP_OK;
    if (weight->ndim != 1 || weight->numel != classes)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: weight tensor should be defined either for all %lld classes or no classes but got weight "
                        "tensor of shape: %s", op, (long long)classes, fbp_tensor_shape_text(weight));
    if (weight->dtype != dtype)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: expected scalar type %s but found %s for the class weights", op, scalar_name(dtype),
                        scalar_name((fbp_dtype)weight->dtype));
    return FBP_OK;
}

static fbp_tensor *weight_of(const fbp_call *call) { return call->count > 2 ? call->inputs[2] : NULL; }

static fbp_status infer_loss(const fbp_call *call, fbp_layout *layout) {
    const char *op = fbp_ops[call->op].name;
    const fbp_tensor *x = call->inputs[0], *target = call->inputs[1];
    const fbp_loss_attribute *loss = call->attributes;
    FBP_TRY(input_check(op, x));
    FBP_TRY(target_check(op, target));
    FBP_TRY(shapes_check(op, x, target));
    FBP_TRY(weight_check(op, weight_of(call), fbp_shape(x)[class_axis(x->ndim)], (fbp_dtype)x->dtype));
    bool each = loss->reduction == FBP_REDUCTION_NONE && x->ndim > 1;
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, each ? target->ndim : 0, fbp_shape(target));
}

fbp_status infer_cross_entropy(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_loss(call, layout);
}
fbp_status infer_nll_loss(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_loss(call, layout);
}

/* Inputs: cotangent of the loss, target, weight or none. */
fbp_status infer_nll_grad(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *g = call->inputs[0], *target = call->inputs[1];
    const fbp_loss_attribute *loss = call->attributes;
    int64_t shape[FBP_MAX_NDIM] = {0};
    (void)is_view;
    FBP_TRY(target_check("nll_grad", target));
    FBP_TRY(weight_check("nll_grad", weight_of(call), loss->classes, (fbp_dtype)g->dtype));
    if (target->ndim + 1 > FBP_MAX_NDIM || g->numel != (loss->reduction == FBP_REDUCTION_NONE ? target->numel : 1))
        return fbp_fail(FBP_ERROR_RUNTIME, "nll_grad: a cotangent of shape %s for a target of shape %s", fbp_tensor_shape_text(g),
                        fbp_tensor_shape_text(target));
    if (target->ndim == 0) {
        shape[0] = loss->classes;
        return fbp_layout_contiguous(layout, (fbp_dtype)g->dtype, 1, shape);
    }
    shape[0] = fbp_shape(target)[0];
    shape[1] = loss->classes;
    memcpy(shape + 2, fbp_shape(target) + 1, (size_t)(target->ndim - 1) * sizeof *shape);
    return fbp_layout_contiguous(layout, (fbp_dtype)g->dtype, target->ndim + 1, shape);
}

/* Inputs: cotangent of the loss, logits, target. */
fbp_status infer_cross_entropy_grad(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const char *op = "cross_entropy_grad";
    const fbp_tensor *g = call->inputs[0], *x = call->inputs[1], *target = call->inputs[2];
    const fbp_loss_attribute *loss = call->attributes;
    (void)is_view;
    FBP_TRY(input_check(op, x));
    FBP_TRY(target_check(op, target));
    FBP_TRY(shapes_check(op, x, target));
    if (g->dtype != x->dtype || g->numel != (loss->reduction == FBP_REDUCTION_NONE ? target->numel : 1))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: a cotangent of shape %s, %s for logits of shape %s, %s", op, fbp_tensor_shape_text(g),
                        fbp_dtype_name((fbp_dtype)g->dtype), fbp_tensor_shape_text(x), fbp_dtype_name((fbp_dtype)x->dtype));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* What the kernels want to know, for an array of this shape. */
static fbp_class_loss loss_arguments(const fbp_call *call, int ndim, const int64_t *shape, const fbp_tensor *target, const fbp_tensor *weight) {
    const fbp_loss_attribute *loss = call->attributes;
    int axis = class_axis(ndim);
    fbp_class_loss a = {.outer = 1, .classes = shape[axis], .inner = 1, .target = (const int64_t *)(const void *)target->data,
                        .weight = weight ? weight->data : NULL, .ignore_index = loss->ignore_index,
                        .label_smoothing = loss->label_smoothing, .reduction = (fbp_reduction)loss->reduction};
    for (int i = 0; i < ndim; i++)
        if (i != axis) *(i < axis ? &a.outer : &a.inner) *= shape[i];
    return a;
}

/* The first target that is no class: IndexError. */
static fbp_status out_of_bounds(const fbp_call *call, const fbp_class_loss *a, int64_t position) {
    return fbp_fail(FBP_ERROR_INDEX, "Target %lld is out of bounds. %s: each target must be a class in [0, %lld) or ignore_index (%lld); "
                    "this one is at flat position %lld", (long long)a->target[position], fbp_ops[call->op].name, (long long)a->classes,
                    (long long)a->ignore_index, (long long)position);
}

fbp_status run_cross_entropy(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_class_loss a = loss_arguments(call, x->ndim, fbp_shape(x), call->inputs[1], weight_of(call));
    double total;
    int64_t bad = fbp_kernels->loss->cross_entropy[x->dtype](out->data, &total, NULL, x->data, &a);
    return bad < 0 ? FBP_OK : out_of_bounds(call, &a, bad);
}

/* Softmax is computed anew, straight into the result: an exponential costs no more than saving it would. */
fbp_status run_cross_entropy_grad(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *g = call->inputs[0], *x = call->inputs[1];
    const fbp_class_loss a = loss_arguments(call, x->ndim, fbp_shape(x), call->inputs[2], NULL);
    fbp_class_loss forward = a;
    double loss, total;
    if (forward.reduction == FBP_REDUCTION_NONE) forward.reduction = FBP_REDUCTION_SUM; /* one number, which no one reads */
    int64_t bad = fbp_kernels->loss->cross_entropy[x->dtype](&loss, &total, out->data, x->data, &forward);
    if (bad >= 0) return out_of_bounds(call, &a, bad);
    fbp_kernels->loss->cross_entropy_backward[x->dtype](out->data, g->data, &total, out->data, &a);
    return FBP_OK;
}

fbp_status fbp_run_cross_entropy_both(const fbp_call *call, const fbp_tensor *g, fbp_tensor *loss, fbp_tensor *gradient) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_class_loss a = loss_arguments(call, x->ndim, fbp_shape(x), call->inputs[1], NULL);
    int64_t bad = fbp_kernels->loss->cross_entropy_both[x->dtype](loss->data, gradient->data, g->data, x->data, &a);
    return bad < 0 ? FBP_OK : out_of_bounds(call, &a, bad);
}

static double element(const void *data, fbp_dtype dtype, int64_t i) {
    return dtype == FBP_FLOAT32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void element_set(void *data, fbp_dtype dtype, int64_t i, double value) {
    if (dtype == FBP_FLOAT32) ((float *)data)[i] = (float)value;
    else ((double *)data)[i] = value;
}

/* Weight of a class; total of those that count. */
static double class_weight(const fbp_class_loss *a, fbp_dtype dtype, int64_t c) { return a->weight ? element(a->weight, dtype, c) : 1.0; }

static double total_weight(const fbp_class_loss *a, fbp_dtype dtype) {
    double total = 0;
    for (int64_t i = 0; i < a->outer * a->inner; i++)
        if (a->target[i] != a->ignore_index) total += class_weight(a, dtype, a->target[i]);
    return total;
}

/* -(s / C) sum over c of w[c] x[c] at a position. */
static double smooth_part(const fbp_class_loss *a, fbp_dtype dtype, const void *x, int64_t position) {
    const int64_t base = position / a->inner * a->classes * a->inner + position % a->inner;
    double sum = 0;
    for (int64_t c = 0; c < a->classes; c++) sum -= class_weight(a, dtype, c) * element(x, dtype, base + c * a->inner);
    return sum * a->label_smoothing / (double)a->classes;
}

/* loss = (1 - s) loss + smooth part: for higher derivatives of smoothed cross entropies alone, so a plain loop. */
static void smooth_loss(const fbp_class_loss *a, fbp_dtype dtype, const void *x, void *loss) {
    const double keep = 1.0 - a->label_smoothing;
    double sum = 0;
    for (int64_t i = 0; i < a->outer * a->inner; i++) {
        double part = a->target[i] == a->ignore_index ? 0.0 : smooth_part(a, dtype, x, i);
        sum += part;
        if (a->reduction == FBP_REDUCTION_NONE) element_set(loss, dtype, i, keep * element(loss, dtype, i) + part);
    }
    if (a->reduction == FBP_REDUCTION_MEAN) sum /= total_weight(a, dtype);
    if (a->reduction != FBP_REDUCTION_NONE) element_set(loss, dtype, 0, keep * element(loss, dtype, 0) + sum);
}

fbp_status run_nll_loss(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_class_loss a = loss_arguments(call, x->ndim, fbp_shape(x), call->inputs[1], weight_of(call));
    double total;
    int64_t bad = fbp_kernels->loss->nll[x->dtype](out->data, &total, x->data, &a);
    if (bad >= 0) return out_of_bounds(call, &a, bad);
    if (a.label_smoothing != 0) smooth_loss(&a, (fbp_dtype)x->dtype, x->data, out->data);
    return FBP_OK;
}

/* dx = (1 - s) dx - g (s / C) w[c] at every class of the positions that count. */
static void smooth_grad(const fbp_class_loss *a, fbp_dtype dtype, const void *g, double scale, void *dx) {
    const double share = a->label_smoothing / (double)a->classes * scale, keep = 1.0 - a->label_smoothing;
    for (int64_t i = 0; i < a->outer * a->inner; i++) {
        if (a->target[i] == a->ignore_index) continue;
        const int64_t base = i / a->inner * a->classes * a->inner + i % a->inner;
        const double pulled = share * element(g, dtype, a->reduction == FBP_REDUCTION_NONE ? i : 0);
        for (int64_t c = 0; c < a->classes; c++) {
            const int64_t at = base + c * a->inner;
            element_set(dx, dtype, at, keep * element(dx, dtype, at) - pulled * class_weight(a, dtype, c));
        }
    }
}

fbp_status run_nll_grad(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *g = call->inputs[0];
    const fbp_dtype dtype = (fbp_dtype)g->dtype;
    const fbp_class_loss a = loss_arguments(call, out->ndim, fbp_shape(out), call->inputs[1], weight_of(call));
    for (int64_t i = 0; i < a.outer * a.inner; i++)
        if (a.target[i] != a.ignore_index && (a.target[i] < 0 || a.target[i] >= a.classes)) return out_of_bounds(call, &a, i);
    double total_f64 = a.reduction == FBP_REDUCTION_MEAN ? total_weight(&a, dtype) : 1.0;
    float total_f32 = (float)total_f64;
    fbp_kernels->loss->nll_backward[dtype](out->data, g->data, dtype == FBP_FLOAT32 ? (void *)&total_f32 : (void *)&total_f64, &a);
    if (a.label_smoothing != 0) smooth_grad(&a, dtype, g->data, 1.0 / total_f64, out->data);
    return FBP_OK;
}
