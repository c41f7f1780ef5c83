/* index_ops.c -- reading and writing by index: layouts, refusals and the calls of kernels/index.h.
 *
 * Index tensors are int64.  Every op looks at its whole index before it writes an element, so that a bad one leaves all
 * as it was.  Only `positions` counts negative numbers from the end, as x[...] does; the named functions (gather,
 * index_select, ...) refuse them, as PyTorch does.
 *
 * Ops that change input 0 copy it to the output first, unless both are the same memory: then they work in place.
 */
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"

/* A 0-d tensor takes part as one axis of size 1. */
typedef struct extents {
    int ndim;
    int64_t shape[FBP_MAX_NDIM], strides[FBP_MAX_NDIM]; /* contiguous */
    int64_t outer, inner;                               /* elements before and after `dim` */
} extents;

static extents extents_of(const fbp_tensor *t, int dim) {
    extents e = {.ndim = t->ndim ? t->ndim : 1, .shape = {1}, .outer = 1, .inner = 1};
    for (int i = 0; i < t->ndim; i++) e.shape[i] = fbp_shape(t)[i];
    int64_t stride = 1;
    for (int i = e.ndim - 1; i >= 0; i--) {
        e.strides[i] = stride;
        stride *= e.shape[i];
        if (i < dim) e.outer *= e.shape[i];
        if (i > dim) e.inner *= e.shape[i];
    }
    return e;
}

static int64_t product(int from, int to, const int64_t *shape) {
    int64_t n = 1;
    for (int i = from; i < to; i++) n *= shape[i];
    return n;
}

static fbp_status expect_index(const char *op, const fbp_tensor *index) {
    if (index->dtype == FBP_INT64) return FBP_OK;
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: Expected dtype int64 for index, got %s", op, fbp_dtype_name((fbp_dtype)index->dtype));
}

static fbp_status expect_same_dtype(const char *op, const fbp_tensor *x, const fbp_tensor *source) {
    if (x->dtype == source->dtype) return FBP_OK;
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: Expected self.dtype to be equal to src.dtype, got %s and %s", op,
                    fbp_dtype_name((fbp_dtype)x->dtype), fbp_dtype_name((fbp_dtype)source->dtype));
}

static fbp_status out_of_bounds(int64_t index, int dim, int64_t extent) {
    return fbp_fail(FBP_ERROR_INDEX, "index %lld is out of bounds for dimension %d with size %lld", (long long)index, dim, (long long)extent);
}

/* Every index lies in [0, extent). */
static fbp_status check_indices(const fbp_tensor *index, int dim, int64_t extent) {
    const int64_t *at = (const int64_t *)(const void *)index->data;
    for (int64_t i = 0; i < index->numel; i++)
        if ((uint64_t)at[i] >= (uint64_t)extent) return out_of_bounds(at[i], dim, extent);
    return FBP_OK;
}

/* The output starts as a copy of input 0 (contiguous). */
static void begin_with(const fbp_tensor *x, fbp_tensor *out) {
    const int64_t size = fbp_dtype_size((fbp_dtype)x->dtype);
    if (out->data != x->data && x->numel) fbp_kernels->copy->strided(1, &x->numel, (int)size, out->data, &size, x->data, &size);
}

/* ---- gather, scatter, scatter_add ------------------------------------------------------------------------------------------ */

/* index lies within x except along dim. */
static fbp_status expect_within(const char *op, const fbp_tensor *x, const fbp_tensor *index, int dim) {
    FBP_TRY(expect_index(op, index));
    extents outer = extents_of(x, dim), inner = extents_of(index, dim);
    bool fits = outer.ndim == inner.ndim;
    if (!fits)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: Index tensor must have the same number of dimensions as input tensor, got %d and %d", op,
                        index->ndim, x->ndim);
    for (int i = 0; i < outer.ndim && index->numel; i++) fits &= i == dim || inner.shape[i] <= outer.shape[i];
    if (!fits)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: Expected index %s to be no larger than self %s apart from dimension %d", op,
                        fbp_tensor_shape_text(index), fbp_tensor_shape_text(x), dim);
    return FBP_OK;
}

fbp_status infer_gather(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1];
    const fbp_dim_attribute *attribute = call->attributes;
    (void)is_view;
    FBP_TRY(expect_within("gather", x, index, attribute->dim));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, index->ndim, fbp_shape(index));
}

fbp_status run_gather(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1];
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    extents data = extents_of(x, dim), shape = extents_of(index, dim);
    FBP_TRY(check_indices(index, dim, data.shape[dim]));
    const fbp_index_frame frame = {data.ndim, dim, shape.shape, data.strides};
    fbp_kernels->index->gather(fbp_dtype_size((fbp_dtype)x->dtype), &frame, (const int64_t *)(const void *)index->data, out->data, x->data);
    return FBP_OK;
}

static fbp_status infer_scattered(const char *op, const fbp_call *call, fbp_layout *layout) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1], *source = call->inputs[2];
    FBP_TRY(expect_within(op, x, index, ((const fbp_dim_attribute *)call->attributes)->dim));
    FBP_TRY(expect_same_dtype(op, x, source));
    if (!fbp_same_shape(index, source))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: Expected index %s and src %s of one shape", op, fbp_tensor_shape_text(index),
                        fbp_tensor_shape_text(source));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

static fbp_status run_scattered(const fbp_call *call, fbp_tensor *out, bool add) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1], *source = call->inputs[2];
    const int64_t *at = (const int64_t *)(const void *)index->data;
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    extents data = extents_of(x, dim), shape = extents_of(index, dim);
    FBP_TRY(check_indices(index, dim, data.shape[dim]));
    begin_with(x, out);
    const fbp_index_frame frame = {data.ndim, dim, shape.shape, data.strides};
    if (add) fbp_kernels->index->scatter_add((fbp_dtype)x->dtype, &frame, at, out->data, source->data, shape.strides);
    else fbp_kernels->index->scatter(fbp_dtype_size((fbp_dtype)x->dtype), &frame, at, out->data, source->data, shape.strides);
    return FBP_OK;
}

fbp_status infer_scatter(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_scattered("scatter", call, layout);
}
fbp_status run_scatter(const fbp_call *call, fbp_tensor *out) { return run_scattered(call, out, false); }

fbp_status infer_scatter_add(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_scattered("scatter_add", call, layout);
}
fbp_status run_scatter_add(const fbp_call *call, fbp_tensor *out) { return run_scattered(call, out, true); }

/* ---- whole slices along an axis --------------------------------------------------------------------------------------------- */

static fbp_status expect_vector(const char *op, const fbp_tensor *index) {
    FBP_TRY(expect_index(op, index));
    if (index->ndim <= 1) return FBP_OK;
    return fbp_fail(FBP_ERROR_INDEX, "%s(): Index is supposed to be a vector, got shape %s", op, fbp_tensor_shape_text(index));
}

fbp_status infer_index_select(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1];
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    (void)is_view;
    FBP_TRY(expect_vector("index_select", index));
    extents selected = extents_of(x, dim);
    selected.shape[dim] = index->numel;
    if (x->ndim == 0 && index->numel != 1)
        return fbp_fail(FBP_ERROR_INDEX, "index_select(): Index to scalar can have only 1 value, got %lld value(s)", (long long)index->numel);
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, selected.shape);
}

fbp_status run_index_select(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1];
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    extents e = extents_of(x, dim);
    FBP_TRY(check_indices(index, dim, e.shape[dim]));
    if (out->numel)
        fbp_kernels->index->index_select(fbp_dtype_size((fbp_dtype)x->dtype), e.outer, e.shape[dim], e.inner, index->numel,
                                         (const int64_t *)(const void *)index->data, out->data, x->data);
    return FBP_OK;
}

fbp_status infer_index_add(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1], *source = call->inputs[2];
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    (void)is_view;
    FBP_TRY(expect_vector("index_add", index));
    FBP_TRY(expect_same_dtype("index_add", x, source));
    extents e = extents_of(x, dim), given = extents_of(source, dim);
    bool fits = e.ndim == given.ndim && given.shape[dim] == index->numel;
    for (int i = 0; i < e.ndim && fits; i++) fits = i == dim || given.shape[i] == e.shape[i];
    if (!fits)
        return fbp_fail(FBP_ERROR_RUNTIME, "index_add: source of shape %s does not match input of shape %s with %lld indices along dim %d",
                        fbp_tensor_shape_text(source), fbp_tensor_shape_text(x), (long long)index->numel, dim);
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

fbp_status run_index_add(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0], *index = call->inputs[1], *source = call->inputs[2];
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    extents e = extents_of(x, dim);
    FBP_TRY(check_indices(index, dim, e.shape[dim]));
    begin_with(x, out);
    if (source->numel)
        fbp_kernels->index->index_add((fbp_dtype)x->dtype, e.outer, e.shape[dim], e.inner, index->numel,
                                      (const int64_t *)(const void *)index->data, out->data, source->data);
    return FBP_OK;
}

/* ---- rows by position -------------------------------------------------------------------------------------------------------- */

/* Checks x against the attribute; *rows and *width are what its leading and its other axes multiply to. */
static fbp_status row_sizes(const char *op, const fbp_call *call, int64_t *rows, int64_t *width) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_take_attribute *take = call->attributes;
    FBP_TRY(expect_index(op, call->inputs[1]));
    if (take->ndim != x->ndim || take->axes < 0 || take->axes > x->ndim ||
        memcmp(take->shape, fbp_shape(x), (size_t)x->ndim * sizeof *take->shape) != 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: the attribute does not describe an input of shape %s", op, fbp_tensor_shape_text(x));
    *rows = product(0, (int)take->axes, take->shape);
    *width = product((int)take->axes, x->ndim, take->shape);
    return FBP_OK;
}

/* Shape of the rows that the positions name: theirs, then the axes of a row. */
static fbp_status taken_shape(const char *op, const fbp_call *call, int *ndim, int64_t *shape) {
    const fbp_tensor *x = call->inputs[0], *positions = call->inputs[1];
    const fbp_take_attribute *take = call->attributes;
    *ndim = positions->ndim + x->ndim - (int)take->axes;
    if (*ndim > FBP_MAX_NDIM)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: the result would have %d dimensions, the most is %d", op, *ndim, FBP_MAX_NDIM);
    memcpy(shape, fbp_shape(positions), positions->ndim * sizeof *shape);
    memcpy(shape + positions->ndim, fbp_shape(x) + take->axes, (size_t)(x->ndim - take->axes) * sizeof *shape);
    return FBP_OK;
}

fbp_status infer_take(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    int64_t rows, width, shape[FBP_MAX_NDIM];
    int ndim;
    (void)is_view;
    FBP_TRY(row_sizes("take", call, &rows, &width));
    FBP_TRY(taken_shape("take", call, &ndim, shape));
    return fbp_layout_contiguous(layout, (fbp_dtype)call->inputs[0]->dtype, ndim, shape);
}

static fbp_status infer_written(const char *op, const fbp_call *call, fbp_layout *layout) {
    const fbp_tensor *x = call->inputs[0], *source = call->inputs[2];
    int64_t rows, width, shape[FBP_MAX_NDIM];
    int ndim;
    FBP_TRY(row_sizes(op, call, &rows, &width));
    FBP_TRY(taken_shape(op, call, &ndim, shape));
    FBP_TRY(expect_same_dtype(op, x, source));
    if (source->ndim != ndim || memcmp(fbp_shape(source), shape, (size_t)ndim * sizeof *shape) != 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: shape mismatch: value tensor of shape %s cannot be broadcast to indexing result of shape %s",
                        op, fbp_tensor_shape_text(source), fbp_shape_text(ndim, shape));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

fbp_status infer_put(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_written("put", call, layout);
}
fbp_status infer_put_add(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return infer_written("put_add", call, layout);
}

typedef enum row_move { TAKE, PUT, PUT_ADD } row_move;

static fbp_status run_rows(const char *op, const fbp_call *call, fbp_tensor *out, row_move move) {
    const fbp_tensor *x = call->inputs[0], *positions = call->inputs[1];
    int64_t rows, width, n = positions->numel;
    FBP_TRY(row_sizes(op, call, &rows, &width));
    FBP_TRY(check_indices(positions, 0, rows));
    if (move != TAKE) begin_with(x, out);
    if (n == 0 || width == 0) return FBP_OK;
    const int64_t *at = (const int64_t *)(const void *)positions->data;
    int64_t *offsets = NULL;
    if (width != 1) { /* elements from rows; of single elements they are the same */
        if (!(offsets = fbp_memory_get((size_t)n * sizeof *offsets)))
            return fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate %lld offsets", op, (long long)n);
        for (int64_t i = 0; i < n; i++) offsets[i] = at[i] * width;
        at = offsets;
    }
    int size = fbp_dtype_size((fbp_dtype)x->dtype);
    if (move == TAKE) fbp_kernels->index->take_rows(size, n, at, width, out->data, x->data);
    else if (move == PUT) fbp_kernels->index->put_rows(size, n, at, width, out->data, x->numel, call->inputs[2]->data, width);
    else fbp_kernels->index->add_rows((fbp_dtype)x->dtype, n, at, width, out->data, x->numel, call->inputs[2]->data, width);
    if (offsets) fbp_memory_free(offsets, (size_t)n * sizeof *offsets);
    return FBP_OK;
}

fbp_status run_take(const fbp_call *call, fbp_tensor *out) { return run_rows("take", call, out, TAKE); }
fbp_status run_put(const fbp_call *call, fbp_tensor *out) { return run_rows("put", call, out, PUT); }
fbp_status run_put_add(const fbp_call *call, fbp_tensor *out) { return run_rows("put_add", call, out, PUT_ADD); }

/* Inputs: one index tensor an axis, of one shape.  attribute: `shape` are the sizes of those axes, `axes` is the number
 * of the first, for messages. */
fbp_status infer_positions(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_take_attribute *take = call->attributes;
    (void)is_view;
    if (call->count < 1 || take->ndim != call->count)
        return fbp_fail(FBP_ERROR_RUNTIME, "positions: %d index tensors for %lld axes", call->count, (long long)take->ndim);
    for (int i = 0; i < call->count; i++) {
        FBP_TRY(expect_index("positions", call->inputs[i]));
        if (!fbp_same_shape(call->inputs[i], call->inputs[0]))
            return fbp_fail(FBP_ERROR_INDEX, "positions: index tensors of shapes %s and %s", fbp_tensor_shape_text(call->inputs[0]),
                            fbp_tensor_shape_text(call->inputs[i]));
    }
    return fbp_layout_contiguous(layout, FBP_INT64, call->inputs[0]->ndim, fbp_shape(call->inputs[0]));
}

fbp_status run_positions(const fbp_call *call, fbp_tensor *out) {
    const fbp_take_attribute *take = call->attributes;
    const int64_t *index[FBP_MAX_NDIM];
    int64_t strides[FBP_MAX_NDIM], stride = 1;
    int bad_array;
    for (int i = call->count - 1; i >= 0; i--) {
        index[i] = (const int64_t *)(const void *)call->inputs[i]->data;
        strides[i] = stride;
        stride *= take->shape[i];
    }
    int64_t bad = fbp_kernels->index->linear_offsets(call->count, index, take->shape, strides, out->numel,
                                                     (int64_t *)(void *)out->data, &bad_array);
    return bad < 0 ? FBP_OK : out_of_bounds(index[bad_array][bad], (int)take->axes + bad_array, take->shape[bad_array]);
}

/* ---- masks and order --------------------------------------------------------------------------------------------------------- */

fbp_status infer_nonzero(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    (void)is_view;
    if (x->dtype != FBP_BOOL || !fbp_is_contiguous(x))
        return fbp_fail(FBP_ERROR_RUNTIME, "nonzero: expected a contiguous bool tensor, got %s", fbp_dtype_name((fbp_dtype)x->dtype));
    int64_t shape[2] = {fbp_kernels->index->count_true(x->numel, (const uint8_t *)x->data), x->ndim};
    return fbp_layout_contiguous(layout, FBP_INT64, 2, shape);
}

fbp_status run_nonzero(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const uint8_t *mask = (const uint8_t *)x->data;
    int64_t *to = (int64_t *)(void *)out->data;
    if (!out->numel) return FBP_OK;
    if (x->ndim == 1) fbp_kernels->index->true_positions(x->numel, mask, to);
    else fbp_kernels->index->nonzero(x->ndim, fbp_shape(x), mask, to);
    return FBP_OK;
}

/* Rows and their length of a tensor whose last axis is put in order. */
static int64_t row_length(const fbp_tensor *x) { return x->ndim ? fbp_shape(x)[x->ndim - 1] : 1; }
static int64_t row_count(const fbp_tensor *x) { return product(0, x->ndim - 1, fbp_shape(x)); }

fbp_status infer_argsort(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    return fbp_layout_contiguous(layout, FBP_INT64, call->inputs[0]->ndim, fbp_shape(call->inputs[0]));
}

fbp_status run_argsort(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_dim_attribute *attribute = call->attributes;
    if (!x->numel) return FBP_OK;
    return fbp_kernels->index->sort((fbp_dtype)x->dtype, row_count(x), row_length(x), attribute->flag, x->data, NULL,
                                    (int64_t *)(void *)out->data);
}

fbp_status infer_topk(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    int64_t k = ((const fbp_dim_attribute *)call->attributes)->dim, shape[FBP_MAX_NDIM];
    (void)is_view;
    if (k < 0 || k > row_length(x))
        return fbp_fail(FBP_ERROR_RUNTIME, "topk: selected index k = %lld out of range for an axis of size %lld", (long long)k,
                        (long long)row_length(x));
    memcpy(shape, fbp_shape(x), x->ndim * sizeof *shape);
    if (x->ndim) shape[x->ndim - 1] = k;
    return fbp_layout_contiguous(layout, FBP_INT64, x->ndim, shape);
}

fbp_status run_topk(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_dim_attribute *attribute = call->attributes;
    if (!out->numel) return FBP_OK;
    return fbp_kernels->index->topk((fbp_dtype)x->dtype, row_count(x), row_length(x), attribute->dim, attribute->flag, x->data, NULL,
                                    (int64_t *)(void *)out->data);
}

fbp_status infer_one_hot(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    int64_t shape[FBP_MAX_NDIM];
    (void)is_view;
    FBP_TRY(expect_index("one_hot", x));
    if (x->ndim == FBP_MAX_NDIM) return fbp_fail(FBP_ERROR_RUNTIME, "one_hot: a tensor has at most %d dimensions", FBP_MAX_NDIM);
    memcpy(shape, fbp_shape(x), x->ndim * sizeof *shape);
    shape[x->ndim] = ((const fbp_dim_attribute *)call->attributes)->dim;
    return fbp_layout_contiguous(layout, FBP_INT64, x->ndim + 1, shape);
}

fbp_status run_one_hot(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    int64_t classes = ((const fbp_dim_attribute *)call->attributes)->dim;
    const int64_t *at = (const int64_t *)(const void *)x->data;
    for (int64_t i = 0; i < x->numel; i++)
        if ((uint64_t)at[i] >= (uint64_t)classes)
            return fbp_fail(FBP_ERROR_RUNTIME, "one_hot: Class values must be smaller than num_classes and non-negative, got %lld for %lld",
                            (long long)at[i], (long long)classes);
    fbp_kernels->index->one_hot(x->numel, at, classes, (int64_t *)(void *)out->data);
    return FBP_OK;
}

/* ---- triangle ------------------------------------------------------------------------------------------------------------------ */

fbp_status infer_triangle(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    (void)is_view;
    if (x->ndim < 2) return fbp_fail(FBP_ERROR_RUNTIME, "tril, triu: input tensor must have at least 2 dimensions, got %d", x->ndim);
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

fbp_status run_triangle(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_dim_attribute *attribute = call->attributes;
    const int64_t *shape = fbp_shape(x);
    if (x->numel)
        fbp_kernels->index->triangle(fbp_dtype_size((fbp_dtype)x->dtype), attribute->flag, product(0, x->ndim - 2, shape),
                                     shape[x->ndim - 2], shape[x->ndim - 1], attribute->dim, out->data, x->data);
    return FBP_OK;
}
