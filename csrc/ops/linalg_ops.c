/* linalg_ops.c -- dense factorizations: shapes and refusals here, numbers from the host.
 *
 * LAPACK is not written again: the host (NumPy has it) computes on arrays over the same memory.  An op has one result, so that
 * derivatives, capture and plans need nothing special; parts are packed along the rows, with equal columns:
 *
 *   eigh   A (n, n)            -> [values (1, n); vectors (n, n)]
 *   svd    A (m, n), k = min   -> [S (1, k); U (m, k); V (n, k)],  A = U diag(S) V^T
 *   qr     A (m, n)            -> [Q (m, k); R^T (n, k)],  k = min, or m for the complete form
 *   slogdet                    -> (sign, log|det|) along a new last axis
 *
 * Leading axes are a batch everywhere.  What the host must fulfil beside the mathematics: the largest component of each
 * eigenvector and left singular vector is positive (the first one within a tenth of the largest), singular values fall, eigenvalues
 * rise, and Q R is LAPACK's Householder form; so results do not hang on which LAPACK the host has.
 */
#include <string.h>

#include "ops/linalg.h"
#include "ops/op.h"

fbp_status (*fbp_host_linear_algebra)(const fbp_call *call, fbp_tensor *out) = NULL;

static const fbp_matrix_attribute *attribute_of(const fbp_call *call) {
    static const fbp_matrix_attribute none;
    return call->attribute_bytes ? call->attributes : &none;
}

static fbp_status on_host(const fbp_call *call, fbp_tensor *out) {
    if (!fbp_host_linear_algebra)
        return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "%s: no host has been set that computes it", fbp_ops[call->op].name);
    return fbp_host_linear_algebra(call, out);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static fbp_status check_matrix(const char *name, const fbp_tensor *x) {
    if (!fbp_dtype_is_float((fbp_dtype)x->dtype))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: Expected a floating point tensor as input. Got %s, of shape %s; cast it with .to(fastbp.float64)",
                        name, fbp_dtype_name((fbp_dtype)x->dtype), fbp_tensor_shape_text(x));
    if (x->ndim < 2)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: The input tensor A must have at least 2 dimensions, got shape %s", name, fbp_tensor_shape_text(x));
    return FBP_OK;
}

static fbp_status check_square(const char *name, const fbp_tensor *x) {
    FBP_TRY(check_matrix(name, x));
    const int64_t rows = fbp_shape(x)[x->ndim - 2], columns = fbp_shape(x)[x->ndim - 1];
    if (rows != columns)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: A must be batches of square matrices, but they are %lld by %lld matrices (shape %s)", name,
                        (long long)rows, (long long)columns, fbp_tensor_shape_text(x));
    return FBP_OK;
}

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

/* x's batch with matrices of these sizes. */
static fbp_status matrices(fbp_layout *layout, const fbp_tensor *x, int64_t rows, int64_t columns) {
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(x), x->ndim * sizeof *shape);
    shape[x->ndim - 2] = rows;
    shape[x->ndim - 1] = columns;
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, shape);
}

static fbp_status infer_square(const char *name, const fbp_call *call, fbp_layout *layout) {
    const fbp_tensor *a = call->inputs[0];
    FBP_TRY(check_square(name, a));
    return fbp_layout_contiguous(layout, (fbp_dtype)a->dtype, a->ndim, fbp_shape(a));
}

static int64_t rows_of(const fbp_tensor *x) { return fbp_shape(x)[x->ndim - 2]; }
static int64_t columns_of(const fbp_tensor *x) { return fbp_shape(x)[x->ndim - 1]; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

fbp_status infer_inverse(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_square("linalg.inv", call, layout);
}

fbp_status infer_cholesky(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_square("linalg.cholesky", call, layout);
}

fbp_status infer_cofactor(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_square("cofactor", call, layout);
}

/* A X = B, batches broadcast. */
static fbp_status infer_system(const char *name, const fbp_call *call, fbp_layout *layout) {
    const fbp_tensor *a = call->inputs[0], *b = call->inputs[1];
    FBP_TRY(check_square(name, a));
    FBP_TRY(check_matrix(name, b));
    if (a->dtype != b->dtype)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: Expected A and B to have the same dtype, but found %s and %s; cast one with .to()", name,
                        fbp_dtype_name((fbp_dtype)a->dtype), fbp_dtype_name((fbp_dtype)b->dtype));
    if (rows_of(a) != rows_of(b))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: Incompatible shapes of A and B for the equation AX = B: A is %s, B is %s (B needs %lld rows)", name,
                        fbp_tensor_shape_text(a), fbp_tensor_shape_text(b), (long long)rows_of(a));
    int ndim = a->ndim - 2;
    int64_t shape[FBP_MAX_NDIM + 2];
    memcpy(shape, fbp_shape(a), (size_t)ndim * sizeof *shape);
    if (!fbp_broadcast(&ndim, shape, b->ndim - 2, fbp_shape(b)))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: The batch dimensions of A, %s, and B, %s, cannot be broadcast together", name,
                        fbp_tensor_shape_text(a), fbp_tensor_shape_text(b));
    shape[ndim++] = rows_of(b);
    shape[ndim++] = columns_of(b);
    return fbp_layout_contiguous(layout, (fbp_dtype)a->dtype, ndim, shape);
}

fbp_status infer_solve(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_system("linalg.solve", call, layout);
}

fbp_status infer_solve_triangular(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_system("linalg.solve_triangular", call, layout);
}

fbp_status infer_eigh(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0];
    const int64_t vectors = attribute_of(call)->values ? 0 : 1;
    (void)is_view;
    FBP_TRY(check_square("linalg.eigh", a));
    return matrices(layout, a, 1 + vectors * rows_of(a), columns_of(a));
}

fbp_status infer_svd(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0];
    const int64_t vectors = attribute_of(call)->values ? 0 : 1;
    (void)is_view;
    FBP_TRY(check_matrix("linalg.svd", a));
    return matrices(layout, a, 1 + vectors * (rows_of(a) + columns_of(a)), least(rows_of(a), columns_of(a)));
}

fbp_status infer_qr(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0];
    (void)is_view;
    FBP_TRY(check_matrix("linalg.qr", a));
    const int64_t rank = attribute_of(call)->complete ? rows_of(a) : least(rows_of(a), columns_of(a));
    return matrices(layout, a, rows_of(a) + columns_of(a), rank);
}

fbp_status infer_pinv(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0];
    (void)is_view;
    FBP_TRY(check_matrix("linalg.pinv", a));
    return matrices(layout, a, columns_of(a), rows_of(a));
}

fbp_status infer_det(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0];
    (void)is_view;
    FBP_TRY(check_square("linalg.det", a));
    return fbp_layout_contiguous(layout, (fbp_dtype)a->dtype, a->ndim - 2, fbp_shape(a));
}

fbp_status infer_slogdet(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0];
    int64_t shape[FBP_MAX_NDIM];
    (void)is_view;
    FBP_TRY(check_square("linalg.slogdet", a));
    memcpy(shape, fbp_shape(a), (size_t)(a->ndim - 2) * sizeof *shape);
    shape[a->ndim - 2] = 2;
    return fbp_layout_contiguous(layout, (fbp_dtype)a->dtype, a->ndim - 1, shape);
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

fbp_status run_inverse(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_solve(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_solve_triangular(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_cholesky(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_eigh(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_svd(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_qr(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_pinv(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_det(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_cofactor(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
fbp_status run_slogdet(const fbp_call *call, fbp_tensor *out) { return on_host(call, out); }
