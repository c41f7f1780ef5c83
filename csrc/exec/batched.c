/* batched.c -- the levels of vmap, and the application of ops to batched tensors. */
#include "exec/batched.h"

#include <string.h>

#include "base/memory.h"
#include "diff/batching.h"

/* ---- levels -------------------------------------------------------------------------------------------------------------- */

fbp_status fbp_vmap_begin(int64_t size, fbp_randomness randomness, uint64_t *level) {
    static uint64_t last;
    fbp_mode *mode = fbp_mode_get();
    if (mode->vmap_count == FBP_VMAP_DEPTH_MAX)
        return fbp_fail(FBP_ERROR_RUNTIME, "vmap: more than %d are nested", FBP_VMAP_DEPTH_MAX);
    *level = ++last;
    mode->vmaps[mode->vmap_count++] = (fbp_vmap){*level, size, randomness};
    return FBP_OK;
}

void fbp_vmap_end(void) { fbp_mode_get()->vmap_count--; }

const fbp_vmap *fbp_vmap_top(void) {
    const fbp_mode *mode = fbp_mode_get();
    return mode->vmap_count ? &mode->vmaps[mode->vmap_count - 1] : NULL;
}

static const fbp_vmap *vmap_of(uint64_t level) {
    const fbp_mode *mode = fbp_mode_get();
    for (int i = mode->vmap_count - 1; i >= 0; i--)
        if (mode->vmaps[i].level == level) return &mode->vmaps[i];
    return NULL;
}

fbp_status fbp_level_check(const char *op, const fbp_tensor *t) {
    if (vmap_of(fbp_batch_of(t)->level)) return FBP_OK;
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: a tensor of shape %s belongs to a vmap that has ended, and has no values; return it from the "
                                       "function to use it outside", op, fbp_tensor_shape_text(t));
}

fbp_status fbp_unbatched_check(fbp_op op, int count, fbp_tensor *const *inputs) {
    if (!fbp_level_of(count, inputs)) return FBP_OK;
    const char *name = fbp_ops[op].name, *target = fbp_tensor_shape_text(inputs[0]);
    if (fbp_ops[op].class != FBP_CLASS_POINTWISE)
        return fbp_fail(FBP_ERROR_RUNTIME, "vmap: %s: in-place operations on batched tensors are not supported (target %s); make a new "
                                           "tensor with where(), cat() or stack()", name, target);
    return fbp_fail(FBP_ERROR_RUNTIME, "vmap: %s_: in-place operations on batched tensors are not supported (target %s); use "
                                       "x.%s() for x.%s_()", name, target, name, name);
}

fbp_status fbp_random_check(fbp_op op) {
    const fbp_mode *mode = fbp_mode_get();
    if (!fbp_op_random[op]) return FBP_OK;
    for (int i = 0; i < mode->vmap_count; i++)
        if (mode->vmaps[i].randomness == FBP_RANDOM_ERROR)
            return fbp_fail(FBP_ERROR_RUNTIME, "vmap: called random operation %s while in randomness error mode. Please either use the 'same' or "
                                               "'different' randomness flags on vmap or perform the randomness operation out of vmap", fbp_ops[op].name);
    return FBP_OK;
}

/* ---- applying ------------------------------------------------------------------------------------------------------------- */

/* The operands of one level: what lies behind those that belong to it, the others as they are. */
typedef struct operands {
    fbp_tensor **inputs;
    bool *batched, any;
    size_t bytes; /* of the block behind both, 0 when they lie inside */
    fbp_tensor *inside[8];
    bool flags_inside[8];
} operands;

static fbp_status operands_begin(const fbp_call *call, uint64_t level, operands *o) {
    const size_t count = (size_t)call->count;
    *o = (operands){.inputs = o->inside, .batched = o->flags_inside};
    if (count > sizeof o->inside / sizeof *o->inside) {
        o->bytes = count * (sizeof *o->inputs + sizeof *o->batched);
        if (!(o->inputs = fbp_block_get(o->bytes))) {
            o->bytes = 0;
            return fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate a list of %d inputs", fbp_ops[call->op].name, call->count);
        }
        o->batched = (bool *)(o->inputs + count);
    }
    for (size_t i = 0; i < count; i++) {
        fbp_tensor *x = call->inputs[i];
        const bool own = x && fbp_level(x) == level;
        o->inputs[i] = own ? fbp_batch_of(x)->physical : x;
        o->batched[i] = own && fbp_batch_of(x)->batched;
        o->any |= o->batched[i];
    }
    return FBP_OK;
}

static void operands_end(operands *o) {
    if (o->bytes) fbp_block_free(o->inputs, o->bytes);
}

/* The result in the shape of [size] and `layout`, with `batched`, or of `layout` alone. */
static fbp_tensor *in_shape(fbp_builder *g, fbp_tensor *x, const fbp_layout *layout, bool batched, int64_t size) {
    int64_t shape[FBP_MAX_NDIM] = {size};
    if (!x || !batched) return x;
    memcpy(shape + 1, layout->shape, layout->ndim * sizeof *shape);
    if (x->ndim == layout->ndim + 1 && memcmp(fbp_shape(x), shape, x->ndim * sizeof *shape) == 0) return x;
    return fbp_build_reshape(g, x, layout->ndim + 1, shape);
}

fbp_status fbp_batched_apply(const fbp_call *call, fbp_tensor **out) {
    const uint64_t level = fbp_level_of(call->count, call->inputs);
    const fbp_vmap *vmap = vmap_of(level);
    const fbp_mode *mode = fbp_mode_get();
    fbp_layout layout;
    operands o;
    bool is_view = false;
    if (fbp_op_value_shaped[call->op])
        return fbp_fail(FBP_ERROR_RUNTIME, "vmap: the shape of %s's result (of an index by a bool mask, too) depends on values and would differ "
                                           "from example to example; use where() with both branches", fbp_ops[call->op].name);
    FBP_TRY(fbp_ops[call->op].infer(call, &layout, &is_view));
    FBP_TRY(operands_begin(call, level, &o));
    if (o.any && layout.ndim == FBP_MAX_NDIM) { /* rules have no room for the batch beside it */
        operands_end(&o);
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: vmap over tensors of %d dimensions; the most is %d, reshape() to fewer", fbp_ops[call->op].name,
                        FBP_MAX_NDIM, FBP_MAX_NDIM - 1);
    }
    fbp_builder g;
    fbp_builder_begin(&g, fbp_apply);
    const fbp_call physical = {call->op, call->count, o.inputs, call->attributes, call->attribute_bytes};
    fbp_tensor *result = o.any ? fbp_batch_build(&g, &physical, o.batched, vmap->size)
                               : fbp_build(&g, call->op, call->count, o.inputs, call->attributes, call->attribute_bytes);
    result = in_shape(&g, result, &layout, o.any, vmap->size);
    fbp_status status = g.status;
    if (status == FBP_OK) {
        const bool recorded = fbp_dtype_is_float((fbp_dtype)layout.dtype) && fbp_wants_record(call, mode, level);
        status = fbp_batched_new(result, level, o.any, recorded ? call->count : 0, recorded ? call->attribute_bytes : 0, out);
        if (status == FBP_OK && recorded) fbp_record(call, mode, *out);
    }
    fbp_builder_end(&g);
    operands_end(&o);
    return status;
}

/* ---- points of differentiation ------------------------------------------------------------------------------------------------ */

/* The same elements, recorded whatever the mode. */
static fbp_status alias(fbp_tensor *x, fbp_tensor **out) {
    fbp_mode *mode = fbp_mode_get();
    const fbp_mode before = *mode;
    fbp_shape_attribute shape = {.ndim = x->ndim};
    memcpy(shape.shape, fbp_shape(x), x->ndim * sizeof *shape.shape);
    mode->grad_enabled = true;
    mode->quiet_level = UINT64_MAX;
    fbp_status status = fbp_apply(FBP_OP_reshape, 1, &x, &shape, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, x->ndim), out);
    mode->grad_enabled = before.grad_enabled;
    mode->quiet_level = before.quiet_level;
    return status;
}

fbp_status fbp_lift(fbp_tensor *x, fbp_tensor **out) {
    const uint64_t top = fbp_vmap_top() ? fbp_vmap_top()->level : 0, level = fbp_level(x);
    if (level == top && fbp_requires_grad(x)) return alias(x, out);
    if (level == top) FBP_TRY(fbp_tensor_detach(x, out));
    else FBP_TRY(fbp_batched_new(x, top, false, 0, 0, out));
    (*out)->flags |= FBP_REQUIRES_GRAD;
    return FBP_OK;
}
