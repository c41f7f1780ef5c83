/* matmul_ops.c -- dense products: every form is strides handed to one kernel. */
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"

static fbp_status float_check(const char *op, const fbp_tensor *a, const fbp_tensor *b) {
    if (a->dtype != b->dtype)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: expected inputs of the same dtype, but got: %s and %s; cast one with .to()", op,
                        fbp_dtype_name((fbp_dtype)a->dtype), fbp_dtype_name((fbp_dtype)b->dtype));
    return FBP_OK;
}

static fbp_status product(fbp_dtype dtype, const fbp_gemm *gemm) {
    return dtype == FBP_FLOAT32 ? fbp_kernels->gemm->f32(gemm) : fbp_kernels->gemm->f64(gemm);
}

/* ---- matmul ---------------------------------------------------------------------------------------------------------------- */

/* Row and column strides of the matrix in x's last axes; a vector is a row (left) or a column (right). */
typedef struct matrix { int64_t rows, columns, row_stride, column_stride; int batch_ndim; } matrix;

static matrix matrix_of(const fbp_tensor *x, bool left) {
    const int64_t *shape = fbp_shape(x), *strides = fbp_strides(x);
    int n = x->ndim;
    if (n == 1) return left ? (matrix){1, shape[0], 0, strides[0], 0} : (matrix){shape[0], 1, strides[0], 0, 0};
    return (matrix){shape[n - 2], shape[n - 1], strides[n - 2], strides[n - 1], n - 2};
}

fbp_status infer_matmul(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *a = call->inputs[0], *b = call->inputs[1];
    (void)is_view;
    if (a->ndim == 0 || b->ndim == 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "matmul: both arguments need to be at least 1D, but they are %dD and %dD", a->ndim, b->ndim);
    FBP_TRY(float_check("matmul", a, b));
    matrix left = matrix_of(a, true), right = matrix_of(b, false);
    if (left.columns != right.rows)
        return fbp_fail(FBP_ERROR_RUNTIME, "matmul: mat1 and mat2 shapes cannot be multiplied (%s and %s): the last axis of the first "
                        "must equal the last but one of the second", fbp_tensor_shape_text(a), fbp_tensor_shape_text(b));
    int ndim = left.batch_ndim;
    int64_t shape[FBP_MAX_NDIM + 2];
    memcpy(shape, fbp_shape(a), (size_t)ndim * sizeof *shape);
    if (!fbp_broadcast(&ndim, shape, right.batch_ndim, fbp_shape(b)))
        return fbp_fail(FBP_ERROR_RUNTIME, "matmul: the batch dimensions of %s and %s cannot be broadcast together", fbp_tensor_shape_text(a),
                        fbp_tensor_shape_text(b));
    if (a->ndim > 1) shape[ndim++] = left.rows;
    if (b->ndim > 1) shape[ndim++] = right.columns;
    return fbp_layout_contiguous(layout, (fbp_dtype)a->dtype, ndim, shape);
}

/* Integer products are rare: a plain loop over one matrix pair. */
#define INTEGER_PRODUCT(type, unsigned_type)                                                                     \
    static void product_##type(const fbp_gemm *p) {                                                              \
        const type *a = p->a, *b = p->b;                                                                         \
        type *c = p->c;                                                                                          \
        for (int64_t i = 0; i < p->m; i++)                                                                       \
            for (int64_t j = 0; j < p->n; j++) {                                                                 \
                unsigned_type sum = 0;                                                                           \
                for (int64_t k = 0; k < p->k; k++)                                                               \
                    sum += (unsigned_type)a[i * p->a_row + k * p->a_col] * (unsigned_type)b[k * p->b_row + j * p->b_col]; \
                c[i * p->c_row + j] = (type)sum;                                                                 \
            }                                                                                                    \
    }
INTEGER_PRODUCT(int64_t, uint64_t)
INTEGER_PRODUCT(int32_t, uint32_t)
INTEGER_PRODUCT(uint8_t, uint32_t)

static fbp_status product_any(fbp_dtype dtype, const fbp_gemm *gemm) {
    switch (dtype) {
        case FBP_FLOAT32: case FBP_FLOAT64: return product(dtype, gemm);
        case FBP_INT64: product_int64_t(gemm); return FBP_OK;
        case FBP_INT32: product_int32_t(gemm); return FBP_OK;
        case FBP_UINT8: product_uint8_t(gemm); return FBP_OK;
        default: return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "matmul is not implemented for %s", fbp_dtype_name(dtype));
    }
}

/* Strides of x's batch axes under the broadcast batch shape. */
static void batch_strides(const fbp_tensor *x, int own, int ndim, int64_t *strides) {
    for (int i = 0; i < ndim; i++) {
        int axis = i - (ndim - own);
        strides[i] = axis < 0 || fbp_shape(x)[axis] == 1 ? 0 : fbp_strides(x)[axis];
    }
}

/* All of a's batch are rows of one tall matrix, and b is shared: one product does. */
static bool is_tall(const fbp_tensor *a, const matrix *left, const matrix *right, int ndim) {
    if (ndim == 0 || right->batch_ndim != 0 || left->batch_ndim != ndim) return false;
    int64_t expected = left->row_stride * left->rows;
    for (int i = ndim - 1; i >= 0; i--) {
        if (fbp_shape(a)[i] != 1 && fbp_strides(a)[i] != expected) return false;
        expected *= fbp_shape(a)[i];
    }
    return true;
}

fbp_status run_matmul(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *a = call->inputs[0], *b = call->inputs[1];
    matrix left = matrix_of(a, true), right = matrix_of(b, false);
    fbp_dtype dtype = (fbp_dtype)a->dtype;
    int ndim = left.batch_ndim > right.batch_ndim ? left.batch_ndim : right.batch_ndim, size = fbp_dtype_size(dtype);
    fbp_gemm gemm = {.m = left.rows, .n = right.columns, .k = left.columns, .a = a->data, .a_row = left.row_stride,
                     .a_col = left.column_stride, .b = b->data, .b_row = right.row_stride, .b_col = right.column_stride,
                     .c = out->data, .c_row = right.columns, .alpha = 1.0};
    if (out->numel == 0) return FBP_OK;
    if (is_tall(a, &left, &right, ndim)) {
        gemm.m = out->numel / gemm.n;
        ndim = 0;
    }
    if (ndim == 0) return product_any(dtype, &gemm);
    int64_t a_step[FBP_MAX_NDIM], b_step[FBP_MAX_NDIM], index[FBP_MAX_NDIM] = {0}, count = out->numel / (gemm.m * gemm.n);
    batch_strides(a, left.batch_ndim, ndim, a_step);
    batch_strides(b, right.batch_ndim, ndim, b_step);
    if (ndim == 1 && fbp_dtype_is_float(dtype)) {
        const fbp_gemm_batch batch = {gemm, count, a_step[0], b_step[0], gemm.m * gemm.n, 0};
        return dtype == FBP_FLOAT32 ? fbp_kernels->gemm->batch_f32(&batch) : fbp_kernels->gemm->batch_f64(&batch);
    }
    for (int64_t i = 0; i < count; i++) {
        FBP_TRY(product_any(dtype, &gemm));
        gemm.c = (char *)gemm.c + gemm.m * gemm.n * size;
        for (int d = ndim - 1; d >= 0; d--) {
            gemm.a = (const char *)gemm.a + a_step[d] * size;
            gemm.b = (const char *)gemm.b + b_step[d] * size;
            if (++index[d] < fbp_shape(out)[d]) break;
            gemm.a = (const char *)gemm.a - a_step[d] * size * index[d];
            gemm.b = (const char *)gemm.b - b_step[d] * size * index[d];
            index[d] = 0;
        }
    }
    return FBP_OK;
}

/* ---- addmm, linear ------------------------------------------------------------------------------------------------------------ */

fbp_status infer_addmm(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *input = call->inputs[0], *a = call->inputs[1], *b = call->inputs[2];
    (void)is_view;
    if (a->ndim != 2 || b->ndim != 2 || fbp_shape(a)[1] != fbp_shape(b)[0])
        return fbp_fail(FBP_ERROR_RUNTIME, "addmm: mat1 and mat2 shapes cannot be multiplied (%s and %s)", fbp_tensor_shape_text(a),
                        fbp_tensor_shape_text(b));
    FBP_TRY(float_check("addmm", a, b));
    FBP_TRY(float_check("addmm", input, a));
    if (!fbp_dtype_is_float((fbp_dtype)a->dtype))
        return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "addmm is not implemented for %s", fbp_dtype_name((fbp_dtype)a->dtype));
    int64_t shape[FBP_MAX_NDIM] = {fbp_shape(a)[0], fbp_shape(b)[1]};
    int ndim = 2;
    if (!fbp_broadcast(&ndim, shape, input->ndim, fbp_shape(input)) || ndim != 2 || shape[0] != fbp_shape(a)[0] || shape[1] != fbp_shape(b)[1])
        return fbp_fail(FBP_ERROR_RUNTIME, "addmm: the input of shape %s cannot be expanded to (%lld, %lld)", fbp_tensor_shape_text(input),
                        (long long)fbp_shape(a)[0], (long long)fbp_shape(b)[1]);
    return fbp_layout_contiguous(layout, (fbp_dtype)a->dtype, 2, shape);
}

fbp_status run_addmm(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *input = call->inputs[0], *a = call->inputs[1], *b = call->inputs[2];
    const fbp_scalar_attribute *factor = call->attributes;
    fbp_gemm gemm = {.m = fbp_shape(a)[0], .n = fbp_shape(b)[1], .k = fbp_shape(a)[1], .a = a->data, .a_row = fbp_strides(a)[0],
                     .a_col = fbp_strides(a)[1], .b = b->data, .b_row = fbp_strides(b)[0], .b_col = fbp_strides(b)[1],
                     .c = out->data, .c_row = fbp_shape(b)[1], .alpha = factor->p[1]};
    int64_t row = input->ndim == 2 && fbp_shape(input)[0] != 1 ? fbp_strides(input)[0] : 0;
    int64_t column = input->ndim >= 1 && fbp_shape(input)[input->ndim - 1] != 1 ? fbp_strides(input)[input->ndim - 1] : 0;
    if (factor->p[0] == 1.0) { /* the sum happens while the tile is in registers */
        gemm.bias = input->data;
        gemm.bias_row = row;
        gemm.bias_col = column;
    } else {
        const int64_t to[2] = {gemm.c_row * fbp_dtype_size(out->dtype), fbp_dtype_size(out->dtype)};
        const int64_t from[2] = {row * to[1], column * to[1]};
        fbp_kernels->copy->strided(2, fbp_shape(out), (int)to[1], out->data, to, input->data, from);
        gemm.beta = factor->p[0];
    }
    return product((fbp_dtype)out->dtype, &gemm);
}

fbp_status infer_linear(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0], *weight = call->inputs[1], *bias = call->inputs[2];
    (void)is_view;
    if (weight->ndim != 2 || x->ndim == 0 || fbp_shape(x)[x->ndim - 1] != fbp_shape(weight)[1])
        return fbp_fail(FBP_ERROR_RUNTIME, "linear: mat1 and mat2 shapes cannot be multiplied (input %s and weight %s): the input's last axis "
                        "must equal the weight's last", fbp_tensor_shape_text(x), fbp_tensor_shape_text(weight));
    FBP_TRY(float_check("linear", x, weight));
    if (!fbp_dtype_is_float((fbp_dtype)x->dtype))
        return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "linear is not implemented for %s", fbp_dtype_name((fbp_dtype)x->dtype));
    if (bias) {
        FBP_TRY(float_check("linear", x, bias));
        if (bias->ndim != 1 || fbp_shape(bias)[0] != fbp_shape(weight)[0])
            return fbp_fail(FBP_ERROR_RUNTIME, "linear: a bias of shape %s for a weight of shape %s; expected (%lld,)", fbp_tensor_shape_text(bias),
                            fbp_tensor_shape_text(weight), (long long)fbp_shape(weight)[0]);
    }
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(x), x->ndim * sizeof *shape);
    shape[x->ndim - 1] = fbp_shape(weight)[0];
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, shape);
}

fbp_status run_linear(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0], *weight = call->inputs[1], *bias = call->inputs[2];
    int64_t k = fbp_shape(weight)[1], n = fbp_shape(weight)[0];
    if (out->numel == 0) return FBP_OK;
    fbp_gemm gemm = {.m = out->numel / n, .n = n, .k = k, .a = x->data, .a_row = k, .a_col = 1,
                     .b = weight->data, .b_row = fbp_strides(weight)[1], .b_col = fbp_strides(weight)[0],
                     .c = out->data, .c_row = n, .alpha = 1.0};
    if (bias) {
        gemm.bias = bias->data;
        gemm.bias_col = fbp_strides(bias)[0];
    }
    if (x->ndim == 2) {
        gemm.a_row = fbp_strides(x)[0];
        gemm.a_col = fbp_strides(x)[1];
    } else if (x->ndim == 1) {
        gemm.a_col = fbp_strides(x)[0];
    } else if (!fbp_is_contiguous(x)) {
        int size = fbp_dtype_size(x->dtype);
        int64_t from[FBP_MAX_NDIM], to[FBP_MAX_NDIM], step = size;
        char *copy = fbp_memory_get((size_t)(x->numel * size));
        if (!copy) return fbp_fail(FBP_ERROR_MEMORY, "linear: cannot allocate a contiguous input of shape %s", fbp_tensor_shape_text(x));
        for (int i = x->ndim - 1; i >= 0; i--) {
            from[i] = fbp_strides(x)[i] * size;
            to[i] = step;
            step *= fbp_shape(x)[i];
        }
        fbp_kernels->copy->strided(x->ndim, fbp_shape(x), size, copy, to, x->data, from);
        gemm.a = copy;
        fbp_status status = product((fbp_dtype)x->dtype, &gemm);
        fbp_memory_free(copy, (size_t)(x->numel * size));
        return status;
    }
    return product((fbp_dtype)out->dtype, &gemm);
}
