/* shape_ops.c -- layouts of views, and the ops that move elements without computing. */
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"

static void copy_strided(int ndim, const int64_t *shape, int size, char *to, const int64_t *to_strides, const char *from,
                         const int64_t *from_strides) {
    int64_t to_bytes[FBP_MAX_NDIM], from_bytes[FBP_MAX_NDIM];
    for (int i = 0; i < ndim; i++) {
        to_bytes[i] = to_strides[i] * size;
        from_bytes[i] = from_strides[i] * size;
    }
    fbp_kernels->copy->strided(ndim, shape, size, to, to_bytes, from, from_bytes);
}

static void copy_all(fbp_tensor *to, const fbp_tensor *from) {
    copy_strided(from->ndim, fbp_shape(from), fbp_dtype_size(from->dtype), to->data, fbp_strides(to), from->data, fbp_strides(from));
}

/* ---- reshape ------------------------------------------------------------------------------------------------------------- */

/* Strides that show x under `shape` without moving elements; false when there are none.  Runs of axes that lie
 * evenly in memory are split and joined freely, others keep their borders (NumPy's attempt_nocopy_reshape). */
static bool view_strides(const fbp_tensor *x, int ndim, const int64_t *shape, int64_t *strides) {
    int64_t old_shape[FBP_MAX_NDIM], old_strides[FBP_MAX_NDIM];
    int old = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (fbp_shape(x)[i] == 1) continue;
        old_shape[old] = fbp_shape(x)[i];
        old_strides[old++] = fbp_strides(x)[i];
    }
    int from = 0, to = 0;
    while (from < old && to < ndim) {
        int from_end = from + 1, to_end = to + 1;
        int64_t from_size = old_shape[from], to_size = shape[to];
        while (from_size != to_size) {
            if (to_size < from_size) to_size *= shape[to_end++];
            else from_size *= old_shape[from_end++];
        }
        for (int i = from; i + 1 < from_end; i++)
            if (old_strides[i] != old_shape[i + 1] * old_strides[i + 1]) return false;
        int64_t stride = old_strides[from_end - 1];
        for (int i = to_end - 1; i >= to; i--) {
            strides[i] = stride;
            stride *= shape[i];
        }
        from = from_end;
        to = to_end;
    }
    for (; to < ndim; to++) strides[to] = 1; /* trailing axes of size 1 */
    return true;
}

fbp_status infer_reshape(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_shape_attribute *target = call->attributes;
    FBP_TRY(fbp_layout_contiguous(layout, x->dtype, (int)target->ndim, target->shape));
    if (layout->numel != x->numel)
        return fbp_fail(FBP_ERROR_RUNTIME, "reshape: shape %s is invalid for input of shape %s with %lld elements",
                        fbp_shape_text((int)target->ndim, target->shape), fbp_tensor_shape_text(x), (long long)x->numel);
    *is_view = fbp_is_contiguous(x) || x->numel == 0 || view_strides(x, layout->ndim, layout->shape, layout->strides);
    if (!*is_view) return fbp_layout_contiguous(layout, x->dtype, (int)target->ndim, target->shape);
    return FBP_OK;
}

fbp_status run_reshape(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    fbp_layout packed;
    FBP_TRY(fbp_layout_contiguous(&packed, x->dtype, x->ndim, fbp_shape(x)));
    copy_strided(x->ndim, fbp_shape(x), fbp_dtype_size(x->dtype), out->data, packed.strides, x->data, fbp_strides(x));
    return FBP_OK;
}

/* ---- permute, expand ------------------------------------------------------------------------------------------------------ */

static fbp_status no_run(const char *name) { return fbp_fail(FBP_ERROR_RUNTIME, "%s is a view and has nothing to run", name); }

fbp_status infer_permute(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_permute_attribute *order = call->attributes;
    uint32_t seen = 0;
    for (int i = 0; i < order->ndim; i++) {
        if (order->axes[i] < x->ndim) seen |= 1u << order->axes[i];
    }
    if (order->ndim != x->ndim || seen != (1u << x->ndim) - 1u)
        return fbp_fail(FBP_ERROR_RUNTIME, "permute: the axes must name each of the %d dimensions of shape %s once", x->ndim,
                        fbp_tensor_shape_text(x));
    *layout = (fbp_layout){.dtype = x->dtype, .ndim = x->ndim, .numel = x->numel};
    for (int i = 0; i < x->ndim; i++) {
        layout->shape[i] = fbp_shape(x)[order->axes[i]];
        layout->strides[i] = fbp_strides(x)[order->axes[i]];
    }
    *is_view = true;
    return FBP_OK;
}
fbp_status run_permute(const fbp_call *call, fbp_tensor *out) {
    (void)call, (void)out;
    return no_run("permute");
}

fbp_status infer_expand(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_shape_attribute *target = call->attributes;
    FBP_TRY(fbp_layout_contiguous(layout, x->dtype, (int)target->ndim, target->shape));
    int lead = (int)target->ndim - x->ndim;
    if (lead < 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "expand: the target shape %s has fewer dimensions than the input's %s",
                        fbp_shape_text((int)target->ndim, target->shape), fbp_tensor_shape_text(x));
    for (int i = 0; i < target->ndim; i++) {
        int64_t size = i < lead ? 1 : fbp_shape(x)[i - lead];
        if (size != 1 && size != target->shape[i])
            return fbp_fail(FBP_ERROR_RUNTIME, "expand: shape %s cannot be expanded to %s; only sizes of 1 can be repeated (dimension %d)",
                            fbp_tensor_shape_text(x), fbp_shape_text((int)target->ndim, target->shape), i);
        layout->strides[i] = size == 1 && target->shape[i] != 1 ? 0 : i < lead ? 0 : fbp_strides(x)[i - lead];
    }
    *is_view = true;
    return FBP_OK;
}
fbp_status run_expand(const fbp_call *call, fbp_tensor *out) {
    (void)call, (void)out;
    return no_run("expand");
}

/* ---- slices ------------------------------------------------------------------------------------------------------------------ */

/* Layout of the part that `slice` names of a tensor of the given strides; offset counts in elements. */
static fbp_status slice_layout(const char *op, fbp_dtype dtype, int ndim, const int64_t *shape, const int64_t *strides,
                               const fbp_slice_attribute *slice, fbp_layout *layout) {
    if (slice->ndim != ndim) return fbp_fail(FBP_ERROR_RUNTIME, "%s: a slice of %d axes for %d dimensions", op, slice->ndim, ndim);
    *layout = (fbp_layout){.dtype = (uint8_t)dtype, .numel = 1};
    for (int i = 0; i < ndim; i++) {
        const struct fbp_slice_axis *axis = &slice->axis[i];
        int64_t reach, last = axis->start;
        const bool far = __builtin_mul_overflow(axis->count - 1, axis->step, &reach) ||
                         __builtin_add_overflow(axis->start, reach, &last);
        if (axis->size != shape[i] || axis->count < 0 ||
            (axis->count > 0 && (far || axis->start < 0 || axis->start >= shape[i] || last < 0 || last >= shape[i])))
            return fbp_fail(FBP_ERROR_INDEX, "%s: elements %lld to %lld are out of bounds for dimension %d with size %lld", op,
                            (long long)axis->start, (long long)last, i, (long long)shape[i]);
        if (axis->count > 0) layout->offset += axis->start * strides[i];
        layout->numel *= axis->count;
        if (slice->dropped >> i & 1) continue;
        layout->shape[layout->ndim] = axis->count;
        layout->strides[layout->ndim++] = strides[i] * axis->step;
    }
    return FBP_OK;
}

fbp_status infer_slice(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    *is_view = true;
    return slice_layout("slice", (fbp_dtype)x->dtype, x->ndim, fbp_shape(x), fbp_strides(x), call->attributes, layout);
}
fbp_status run_slice(const fbp_call *call, fbp_tensor *out) {
    (void)call, (void)out;
    return no_run("slice");
}

fbp_status infer_embed(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_slice_attribute *slice = call->attributes;
    int64_t shape[FBP_MAX_NDIM];
    (void)is_view;
    for (int i = 0; i < slice->ndim; i++) shape[i] = slice->axis[i].size;
    return fbp_layout_contiguous(layout, (fbp_dtype)call->inputs[0]->dtype, slice->ndim, shape);
}

/* Write x into the part of `out` that `slice` names. */
static fbp_status write_part(fbp_tensor *out, const fbp_slice_attribute *slice, const fbp_tensor *x) {
    fbp_layout part;
    FBP_TRY(slice_layout("slice", (fbp_dtype)out->dtype, out->ndim, fbp_shape(out), fbp_strides(out), slice, &part));
    int size = fbp_dtype_size(out->dtype);
    copy_strided(part.ndim, part.shape, size, out->data + part.offset * size, part.strides, x->data, fbp_strides(x));
    return FBP_OK;
}

fbp_status run_embed(const fbp_call *call, fbp_tensor *out) {
    memset(out->data, 0, (size_t)(out->numel * fbp_dtype_size(out->dtype)));
    return write_part(out, call->attributes, call->inputs[0]);
}

fbp_status infer_slice_assign(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0], *source = call->inputs[1];
    fbp_layout part;
    (void)is_view;
    FBP_TRY(slice_layout("slice_assign", (fbp_dtype)x->dtype, x->ndim, fbp_shape(x), fbp_strides(x), call->attributes, &part));
    if (source->dtype != x->dtype || source->ndim != part.ndim ||
        memcmp(part.shape, fbp_shape(source), part.ndim * sizeof *part.shape) != 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "slice_assign: a value of shape %s, %s for a place of shape %s, %s", fbp_tensor_shape_text(source),
                        fbp_dtype_name((fbp_dtype)source->dtype), fbp_shape_text(part.ndim, part.shape),
                        fbp_dtype_name((fbp_dtype)x->dtype));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

fbp_status run_slice_assign(const fbp_call *call, fbp_tensor *out) {
    if (out->data != call->inputs[0]->data) copy_all(out, call->inputs[0]); /* equal: in place */
    return write_part(out, call->attributes, call->inputs[1]);
}

/* ---- diagonals ----------------------------------------------------------------------------------------------------------------- */

/* First element and length of a diagonal over axes with these sizes. */
static int64_t diagonal_length(const fbp_diagonal_attribute *d, int64_t *row, int64_t *column) {
    *row = d->offset < 0 ? -d->offset : 0;
    *column = d->offset > 0 ? d->offset : 0;
    int64_t rows = d->sizes[0] - *row, columns = d->sizes[1] - *column, length = rows < columns ? rows : columns;
    return length > 0 ? length : 0;
}

/* Layout of the diagonal of a tensor with these sizes and strides: its other axes, then the diagonal. */
static void diagonal_layout(fbp_dtype dtype, int ndim, const int64_t *shape, const int64_t *strides, const fbp_diagonal_attribute *d,
                            fbp_layout *layout) {
    int64_t row, column, length = diagonal_length(d, &row, &column);
    *layout = (fbp_layout){.dtype = (uint8_t)dtype, .ndim = (uint8_t)(ndim - 1), .numel = length};
    int at = 0;
    for (int i = 0; i < ndim; i++) {
        if (i == d->first || i == d->second) continue;
        layout->shape[at] = shape[i];
        layout->strides[at++] = strides[i];
        layout->numel *= shape[i];
    }
    layout->shape[at] = length;
    layout->strides[at] = strides[d->first] + strides[d->second];
    if (length) layout->offset = row * strides[d->first] + column * strides[d->second];
}

fbp_status infer_diagonal(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_diagonal_attribute *d = call->attributes;
    if (x->ndim < 2 || d->first == d->second || d->first < 0 || d->second < 0 || d->first >= x->ndim || d->second >= x->ndim)
        return fbp_fail(FBP_ERROR_RUNTIME, "diagonal: needs two different dimensions of an input of two or more, got %d and %d of shape %s",
                        d->first, d->second, fbp_tensor_shape_text(x));
    diagonal_layout((fbp_dtype)x->dtype, x->ndim, fbp_shape(x), fbp_strides(x), d, layout);
    *is_view = true;
    return FBP_OK;
}
fbp_status run_diagonal(const fbp_call *call, fbp_tensor *out) {
    (void)call, (void)out;
    return no_run("diagonal");
}

fbp_status infer_embed_diagonal(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_diagonal_attribute *d = call->attributes;
    int64_t shape[FBP_MAX_NDIM];
    (void)is_view;
    for (int i = 0, at = 0; i < x->ndim + 1 && i < FBP_MAX_NDIM; i++)
        shape[i] = i == d->first ? d->sizes[0] : i == d->second ? d->sizes[1] : fbp_shape(x)[at++];
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim + 1, shape);
}

fbp_status run_embed_diagonal(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    fbp_layout part;
    int size = fbp_dtype_size(out->dtype);
    memset(out->data, 0, (size_t)(out->numel * size));
    diagonal_layout((fbp_dtype)out->dtype, out->ndim, fbp_shape(out), fbp_strides(out), call->attributes, &part);
    copy_strided(part.ndim, part.shape, size, out->data + part.offset * size, part.strides, x->data, fbp_strides(x));
    return FBP_OK;
}

/* ---- copy, cast, cat --------------------------------------------------------------------------------------------------------------- */

fbp_status infer_copy(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    (void)is_view;
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}
fbp_status run_copy(const fbp_call *call, fbp_tensor *out) {
    copy_all(out, call->inputs[0]);
    return FBP_OK;
}

fbp_status infer_cast(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_dtype_attribute *target = call->attributes;
    (void)is_view;
    return fbp_layout_contiguous(layout, (fbp_dtype)target->dtype, x->ndim, fbp_shape(x));
}
fbp_status run_cast(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    fbp_kernels->copy->cast((fbp_dtype)x->dtype, (fbp_dtype)out->dtype, x->numel, out->data, x->data);
    return FBP_OK;
}

/* PyTorch's legacy: a 1-d tensor of no elements joins anything. */
static bool is_skipped(const fbp_tensor *x) { return x->ndim == 1 && x->numel == 0; }

fbp_status infer_cat(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_dim_attribute *attribute = call->attributes;
    const fbp_tensor *first = NULL;
    int64_t total = 0, shape[FBP_MAX_NDIM];
    (void)is_view;
    for (int i = 0; i < call->count; i++) {
        const fbp_tensor *x = call->inputs[i];
        if (is_skipped(x) && call->count > 1) continue;
        if (!first) first = x;
        bool fits = x->ndim == first->ndim && x->dtype == first->dtype;
        for (int d = 0; fits && d < x->ndim; d++) fits = d == attribute->dim || fbp_shape(x)[d] == fbp_shape(first)[d];
        if (!fits)
            return fbp_fail(FBP_ERROR_RUNTIME, "cat: Sizes of tensors must match except in dimension %d. Got %s, %s and %s, %s for tensor %d "
                            "in the list", attribute->dim, fbp_tensor_shape_text(first), fbp_dtype_name((fbp_dtype)first->dtype),
                            fbp_tensor_shape_text(x), fbp_dtype_name((fbp_dtype)x->dtype), i);
        if (x->ndim == 0) return fbp_fail(FBP_ERROR_RUNTIME, "cat: zero-dimensional tensor (at position %d) cannot be concatenated", i);
        total += fbp_shape(x)[attribute->dim];
    }
    if (!first) first = call->inputs[0];
    memcpy(shape, fbp_shape(first), first->ndim * sizeof *shape);
    if (attribute->dim < first->ndim) shape[attribute->dim] = total;
    return fbp_layout_contiguous(layout, (fbp_dtype)first->dtype, first->ndim, shape);
}

fbp_status run_cat(const fbp_call *call, fbp_tensor *out) {
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim, size = fbp_dtype_size(out->dtype);
    char *to = out->data;
    for (int i = 0; i < call->count; i++) {
        const fbp_tensor *x = call->inputs[i];
        if (is_skipped(x)) continue;
        copy_strided(x->ndim, fbp_shape(x), size, to, fbp_strides(out), x->data, fbp_strides(x));
        to += fbp_shape(x)[dim] * fbp_strides(out)[dim] * size;
    }
    return FBP_OK;
}
