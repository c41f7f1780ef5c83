/* index_rules.c -- transposes of indexing: what is read by index is written by index on the way back, and the other way round.
 * docs/derivations/indexing.md has the mathematics.
 */
#include <string.h>

#include "diff/rules.h"

/* op(x, index, src) with the node's attributes and its index. */
static fbp_tensor *indexed3(fbp_builder *g, fbp_op op, const fbp_tensor *node, fbp_tensor *x, fbp_tensor *src) {
    if (!x || !src) return NULL;
    return fbp_build(g, op, 3, (fbp_tensor *[]){x, fbp_input(node, 1), src}, fbp_attributes(node), node->attribute_bytes);
}

static fbp_tensor *indexed2(fbp_builder *g, fbp_op op, const fbp_tensor *node, fbp_tensor *x) {
    return fbp_build(g, op, 2, (fbp_tensor *[]){x, fbp_input(node, 1)}, fbp_attributes(node), node->attribute_bytes);
}

static fbp_tensor *zeros_like_input(fbp_builder *g, const fbp_tensor *node, int which) {
    const fbp_tensor *x = fbp_input(node, which);
    return fbp_build_full(g, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x), 0.0);
}

fbp_tensor *transpose_gather(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return indexed3(g, FBP_OP_scatter_add, node, zeros_like_input(g, node, which), cotangent);
}

fbp_tensor *transpose_scatter_add(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return which == 0 ? cotangent : indexed2(g, FBP_OP_gather, node, cotangent);
}

/* What was overwritten gets zeros. */
fbp_tensor *transpose_scatter(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    if (which == 0) return indexed3(g, FBP_OP_scatter, node, cotangent, zeros_like_input(g, node, 2));
    return indexed2(g, FBP_OP_gather, node, cotangent);
}

fbp_tensor *transpose_index_select(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return indexed3(g, FBP_OP_index_add, node, zeros_like_input(g, node, which), cotangent);
}

fbp_tensor *transpose_index_add(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return which == 0 ? cotangent : indexed2(g, FBP_OP_index_select, node, cotangent);
}

fbp_tensor *transpose_take(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return indexed3(g, FBP_OP_put_add, node, zeros_like_input(g, node, which), cotangent);
}

fbp_tensor *transpose_put(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    if (which == 0) return indexed3(g, FBP_OP_put, node, cotangent, zeros_like_input(g, node, 2));
    return indexed2(g, FBP_OP_take, node, cotangent);
}

fbp_tensor *transpose_put_add(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    return which == 0 ? cotangent : indexed2(g, FBP_OP_take, node, cotangent);
}

/* Zeroing elements is a diagonal map, hence its own transpose: so is a triangle, and dropout of the same random numbers. */
static fbp_tensor *itself(fbp_builder *g, const fbp_tensor *node, fbp_tensor *cotangent) {
    return fbp_build(g, (fbp_op)node->op, 1, &cotangent, fbp_attributes(node), node->attribute_bytes);
}

fbp_tensor *transpose_triangle(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)which;
    return itself(g, node, cotangent);
}

fbp_tensor *transpose_dropout(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    (void)which;
    return itself(g, node, cotangent);
}
