/* batch_loss_rules.c -- losses over classes for a batch of examples, each with positions of its own.
 *
 * The positions of all examples are those of one large input, without reduction; what the reduction does is then done for
 * each example: its sum, or its sum over the weight of its positions that count.
 */
#include <string.h>

#include "diff/batching.h"
#include "kernels/loss.h"

/* One call, its parts in full and flat: examples and their first axis are one axis. */
typedef struct flat_loss {
    fbp_tensor *target;   /* [batch * N, d...] or [batch] */
    fbp_tensor *weight;   /* [classes] or NULL */
    int64_t size;         /* of the batch */
    int64_t positions;    /* of one example */
    fbp_loss_attribute none, own; /* the attribute without reduction, and as it was */
} flat_loss;

/* x [batch, N, rest] as [batch * N, rest]; [batch] stays. */
static fbp_tensor *flatten(fbp_builder *g, fbp_tensor *x) {
    if (!x || x->ndim == 1) return x;
    int64_t shape[FBP_MAX_NDIM] = {fbp_shape(x)[0] * fbp_shape(x)[1]};
    memcpy(shape + 1, fbp_shape(x) + 2, (size_t)(x->ndim - 2) * sizeof *shape);
    return fbp_build_reshape(g, x, x->ndim - 1, shape);
}

/* `target` is the input of that number; an input with one dimension of classes has one position. */
static flat_loss flat_of(fbp_builder *g, const fbp_call *call, const bool *batched, int target, int weight, int64_t size) {
    flat_loss f = {.weight = weight < call->count ? call->inputs[weight] : NULL, .size = size,
                   .own = *(const fbp_loss_attribute *)call->attributes};
    f.none = f.own;
    f.none.reduction = FBP_REDUCTION_NONE;
    f.target = flatten(g, fbp_batch_full(g, call->inputs[target], batched[target], size));
    if (f.target) f.positions = size ? f.target->numel / size : 0;
    return f;
}

/* Weight of the positions that count, for each example: [batch]. */
static fbp_tensor *total_weight(fbp_builder *g, const flat_loss *f, fbp_dtype dtype) {
    fbp_tensor *ignored = fbp_build_number(g, f->target, (double)f->own.ignore_index);
    fbp_tensor *counted = fbp_build2(g, FBP_OP_ne, f->target, ignored), *share = counted ? fbp_build_cast(g, counted, dtype) : NULL;
    if (f->weight) {
        fbp_tensor *known = fbp_build3(g, FBP_OP_where, counted, f->target, fbp_build_number(g, f->target, 0.0));
        fbp_tensor *flat = known ? fbp_build_reshape(g, known, 1, (const int64_t[]){f->target->numel}) : NULL;
        const fbp_dim_attribute axis = {0, 0};
        fbp_tensor *weights = flat ? fbp_build(g, FBP_OP_index_select, 2, (fbp_tensor *[]){f->weight, flat}, &axis, sizeof axis) : NULL;
        share = fbp_build2(g, FBP_OP_mul, share, weights ? fbp_build_reshape(g, weights, f->target->ndim, fbp_shape(f->target)) : NULL);
    }
    return share ? fbp_build_sum(g, fbp_build_reshape(g, share, 2, (const int64_t[]){f->size, f->positions}), 2u, false) : NULL;
}

/* What each example's loss is, from the losses of all positions. */
static fbp_tensor *reduce(fbp_builder *g, const flat_loss *f, fbp_tensor *losses) {
    if (!losses || f->own.reduction == FBP_REDUCTION_NONE) return losses;
    fbp_tensor *total = fbp_build_sum(g, fbp_build_reshape(g, losses, 2, (const int64_t[]){f->size, f->positions}), 2u, false);
    if (f->own.reduction == FBP_REDUCTION_SUM || !total) return total;
    return fbp_build2(g, FBP_OP_div, total, total_weight(g, f, (fbp_dtype)total->dtype));
}

/* The cotangents of all positions' losses, in the target's shape, from those of the examples' losses. */
static fbp_tensor *spread(fbp_builder *g, const flat_loss *f, fbp_tensor *cotangent) {
    if (!cotangent) return NULL;
    if (f->own.reduction != FBP_REDUCTION_NONE) {
        cotangent = fbp_build_reshape(g, cotangent, 1, &f->size);
        if (f->own.reduction == FBP_REDUCTION_MEAN && cotangent)
            cotangent = fbp_build2(g, FBP_OP_div, cotangent, total_weight(g, f, (fbp_dtype)cotangent->dtype));
        cotangent = fbp_build_reshape(g, cotangent, 2, (const int64_t[]){f->size, 1});
        cotangent = fbp_build_expand(g, cotangent, 2, (const int64_t[]){f->size, f->positions});
    }
    return fbp_build_reshape(g, cotangent, f->target->ndim, fbp_shape(f->target));
}

/* op(a, target, weight) over all positions. */
static fbp_tensor *run_flat(fbp_builder *g, fbp_op op, const flat_loss *f, fbp_tensor *a) {
    fbp_tensor *inputs[3] = {a, f->target, f->weight};
    return a && f->target ? fbp_build(g, op, f->weight ? 3 : 2, inputs, &f->none, sizeof f->none) : NULL;
}

static bool weight_varies(const fbp_call *call, const bool *batched) { return call->count > 2 && call->inputs[2] && batched[2]; }

/* Input `which` in full and flat, as the target is; examples of classes alone stay [batch, classes]. */
static fbp_tensor *logits_of(fbp_builder *g, const fbp_call *call, const bool *batched, int which, const flat_loss *f) {
    fbp_tensor *x = fbp_batch_full(g, call->inputs[which], batched[which], f->size);
    return x && x->ndim > 2 ? flatten(g, x) : x;
}

static fbp_tensor *batch_loss(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    if (weight_varies(call, batched)) return fbp_batch_loop(g, call, batched, size);
    flat_loss f = flat_of(g, call, batched, 1, 2, size);
    return f.target ? reduce(g, &f, run_flat(g, call->op, &f, logits_of(g, call, batched, 0, &f))) : NULL;
}
fbp_tensor *batch_cross_entropy(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    return batch_loss(g, call, batched, size);
}
fbp_tensor *batch_nll_loss(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    return batch_loss(g, call, batched, size);
}

fbp_tensor *batch_nll_grad(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    if (weight_varies(call, batched)) return fbp_batch_loop(g, call, batched, size);
    flat_loss f = flat_of(g, call, batched, 1, 2, size);
    if (!f.target) return NULL;
    return run_flat(g, FBP_OP_nll_grad, &f, spread(g, &f, fbp_batch_full(g, call->inputs[0], batched[0], size)));
}

fbp_tensor *batch_cross_entropy_grad(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    flat_loss f = flat_of(g, call, batched, 2, 3, size);
    if (!f.target) return NULL;
    fbp_tensor *inputs[3] = {spread(g, &f, fbp_batch_full(g, call->inputs[0], batched[0], size)), logits_of(g, call, batched, 1, &f), f.target};
    return inputs[0] && inputs[1] ? fbp_build(g, FBP_OP_cross_entropy_grad, 3, inputs, &f.none, sizeof f.none) : NULL;
}
