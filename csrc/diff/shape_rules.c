/* shape_rules.c -- transposes of the ops that move elements. */
#include <string.h>

#include "diff/rules.h"

fbp_tensor *transpose_reshape(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    const fbp_tensor *x = fbp_input(node, which);
    return fbp_build_reshape(g, cotangent, x->ndim, fbp_shape(x));
}

fbp_tensor *transpose_permute(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    const fbp_permute_attribute *forward = fbp_attributes(node);
    fbp_permute_attribute inverse = {.ndim = forward->ndim};
    (void)which;
    for (int i = 0; i < forward->ndim; i++) inverse.axes[forward->axes[i]] = (uint8_t)i;
    return fbp_build(g, FBP_OP_permute, 1, &cotangent, &inverse, sizeof inverse);
}

/* The transpose of repeating is summing: the fit that every rule's result gets. */
fbp_tensor *transpose_expand(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)g, (void)node, (void)which;
    return cotangent;
}

static fbp_tensor *with_own_attributes(fbp_builder *g, fbp_op op, const fbp_tensor *node, fbp_tensor *cotangent) {
    return fbp_build(g, op, 1, &cotangent, fbp_attributes(node), node->attribute_bytes);
}

fbp_tensor *transpose_slice(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)which;
    return with_own_attributes(g, FBP_OP_embed, node, cotangent);
}

fbp_tensor *transpose_embed(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)which;
    return with_own_attributes(g, FBP_OP_slice, node, cotangent);
}

/* What was overwritten gets zeros, what was written gets its slice. */
fbp_tensor *transpose_slice_assign(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    if (which == 1) return with_own_attributes(g, FBP_OP_slice, node, cotangent);
    const fbp_tensor *source = fbp_input(node, 1);
    fbp_tensor *zeros = fbp_build_full(g, (fbp_dtype)source->dtype, source->ndim, fbp_shape(source), 0.0);
    fbp_tensor *inputs[2] = {cotangent, zeros};
    return zeros ? fbp_build(g, FBP_OP_slice_assign, 2, inputs, fbp_attributes(node), node->attribute_bytes) : NULL;
}

fbp_tensor *transpose_diagonal(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)which;
    return with_own_attributes(g, FBP_OP_embed_diagonal, node, cotangent);
}

fbp_tensor *transpose_embed_diagonal(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)which;
    return with_own_attributes(g, FBP_OP_diagonal, node, cotangent);
}

fbp_tensor *transpose_copy(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)g, (void)node, (void)which;
    return cotangent;
}

fbp_tensor *transpose_cast(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return fbp_build_cast(g, cotangent, (fbp_dtype)fbp_input(node, which)->dtype);
}

/* Each input gets its own stretch of the cotangent. */
fbp_tensor *transpose_cat(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    int dim = ((const fbp_dim_attribute *)fbp_attributes(node))->dim;
    const fbp_tensor *x = fbp_input(node, which);
    int64_t start = 0;
    if (x->ndim == 1 && x->numel == 0) return fbp_build_full(g, (fbp_dtype)x->dtype, 1, fbp_shape(x), 0.0);
    for (int i = 0; i < which; i++)
        if (fbp_input(node, i)->ndim == node->ndim) start += fbp_shape(fbp_input(node, i))[dim];
    fbp_slice_attribute slice = {.ndim = node->ndim};
    for (int i = 0; i < node->ndim; i++)
        slice.axis[i] = (struct fbp_slice_axis){i == dim ? start : 0, 1, fbp_shape(x)[i], fbp_shape(node)[i]};
    return fbp_build(g, FBP_OP_slice, 1, &cotangent, &slice, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, node->ndim));
}
