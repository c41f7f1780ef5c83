/* matmul_rules.c -- the two transposes of each product. */
#include <string.h>

#include "diff/rules.h"

static fbp_tensor *matmul(fbp_builder *g, fbp_tensor *a, fbp_tensor *b) { return fbp_build2(g, FBP_OP_matmul, a, b); }

/* x with a new axis of size 1 at `axis` counted from the end (0: last). */
static fbp_tensor *unsqueeze(fbp_builder *g, fbp_tensor *x, int from_end) {
    if (!x) return NULL;
    int64_t shape[FBP_MAX_NDIM];
    int at = x->ndim - from_end;
    memcpy(shape, fbp_shape(x), (size_t)at * sizeof *shape);
    shape[at] = 1;
    memcpy(shape + at + 1, fbp_shape(x) + at, (size_t)from_end * sizeof *shape);
    return fbp_build_reshape(g, x, x->ndim + 1, shape);
}

/* Y = A B:  dA = dY B^T,  dB = A^T dY.  Vectors are matrices of one row or column; the fit that every rule's
 * result gets sums broadcast batches, and reshapes a vector's matrix back. */
fbp_tensor *transpose_matmul(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    fbp_tensor *a = fbp_input(node, 0), *b = fbp_input(node, 1), *dy = cotangent;
    bool a_vector = a->ndim == 1, b_vector = b->ndim == 1;
    if (b_vector) dy = unsqueeze(g, dy, 0);
    if (a_vector) dy = unsqueeze(g, dy, 1);
    fbp_tensor *result;
    if (which == 0) {
        result = matmul(g, dy, b_vector ? unsqueeze(g, b, 1) : fbp_build_transpose(g, b));
        if (result && a_vector) { /* [..., 1, k]: a vector has no row axis to keep */
            int64_t shape[FBP_MAX_NDIM];
            memcpy(shape, fbp_shape(result), result->ndim * sizeof *shape);
            shape[result->ndim - 2] = shape[result->ndim - 1];
            result = fbp_build_reshape(g, result, result->ndim - 1, shape);
        }
        return result;
    }
    result = matmul(g, a_vector ? unsqueeze(g, a, 0) : fbp_build_transpose(g, a), dy);
    return result && b_vector ? fbp_build_reshape(g, result, result->ndim - 1, fbp_shape(result)) : result;
}

fbp_tensor *vjp_addmm(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    const fbp_scalar_attribute *factor = fbp_attributes(node);
    if (which == 0) return factor->p[0] == 1.0 ? cotangent : fbp_build_scale(g, cotangent, factor->p[0]);
    fbp_tensor *part = which == 1 ? matmul(g, cotangent, fbp_build_transpose(g, fbp_input(node, 2)))
                                  : matmul(g, fbp_build_transpose(g, fbp_input(node, 1)), cotangent);
    return factor->p[1] == 1.0 ? part : fbp_build_scale(g, part, factor->p[1]);
}

static fbp_tensor *plus(fbp_builder *g, fbp_tensor *total, fbp_tensor *part) {
    return total ? fbp_build2(g, FBP_OP_add, total, part) : part;
}

fbp_tensor *jvp_addmm(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    const fbp_scalar_attribute *factor = fbp_attributes(node);
    fbp_tensor *total = NULL;
    if (tangents[1]) total = plus(g, total, fbp_build_scale(g, matmul(g, tangents[1], fbp_input(node, 2)), factor->p[1]));
    if (tangents[2]) total = plus(g, total, fbp_build_scale(g, matmul(g, fbp_input(node, 1), tangents[2]), factor->p[1]));
    if (tangents[0]) total = plus(g, total, fbp_build_scale(g, tangents[0], factor->p[0]));
    return fbp_build_fit(g, total, node->ndim, fbp_shape(node));
}

/* x as [rows, its last axis]. */
static fbp_tensor *as_rows(fbp_builder *g, fbp_tensor *x) {
    if (!x || x->ndim == 2) return x;
    int64_t last = fbp_shape(x)[x->ndim - 1];
    const int64_t shape[2] = {last ? x->numel / last : 0, last};
    return fbp_build_reshape(g, x, 2, shape);
}

/* Y = X W^T + b:  dX = dY W,  dW = dY^T X,  db = the sum of dY's rows. */
fbp_tensor *vjp_linear(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    fbp_tensor *x = fbp_input(node, 0), *weight = fbp_input(node, 1);
    if (which == 0) return matmul(g, cotangent, weight);
    fbp_tensor *dy = as_rows(g, cotangent);
    if (which == 1) return matmul(g, fbp_build_transpose(g, dy), as_rows(g, x));
    return fbp_build_sum(g, dy, 1u, false);
}

fbp_tensor *jvp_linear(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    fbp_tensor *total = NULL;
    if (tangents[0]) total = matmul(g, tangents[0], fbp_build_transpose(g, fbp_input(node, 1)));
    if (tangents[1]) total = plus(g, total, matmul(g, fbp_input(node, 0), fbp_build_transpose(g, tangents[1])));
    if (node->edge_count > 2 && tangents[2]) total = plus(g, total, tangents[2]);
    return fbp_build_fit(g, total, node->ndim, fbp_shape(node));
}
