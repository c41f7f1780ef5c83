/* batch_index_rules.c -- indexing over a batch: an index of its own for each example becomes one into all of them. */
#include <string.h>

#include "diff/batching.h"

static int axis_of(const fbp_call *call) { return ((const fbp_dim_attribute *)call->attributes)->dim; }

/* ---- whole slices along an axis --------------------------------------------------------------------------------------------- */

/* An index [batch, n] (or [n]) repeated to the shape of x along all axes but `axis`, counted with the batch. */
static fbp_tensor *spread_index(fbp_builder *g, fbp_tensor *index, const fbp_tensor *x, int axis) {
    int64_t shape[FBP_MAX_NDIM], full[FBP_MAX_NDIM];
    if (!index) return NULL;
    const int64_t n = index->ndim > 1 ? fbp_shape(index)[1] : 1;
    for (int i = 0; i < x->ndim; i++) {
        shape[i] = i == 0 ? fbp_shape(index)[0] : i == axis ? n : 1;
        full[i] = i == axis ? n : fbp_shape(x)[i];
    }
    return fbp_build_expand(g, fbp_build_reshape(g, index, x->ndim, shape), x->ndim, full);
}

/* x (and src) in full, at least two dimensions. */
static fbp_tensor *full_axis(fbp_builder *g, fbp_tensor *x, bool batched, int64_t size) {
    x = fbp_batch_full(g, x, batched, size);
    return x && x->ndim == 1 ? fbp_batch_trail(g, x, 2) : x;
}

fbp_tensor *batch_index_select(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    const fbp_dim_attribute axis = {axis_of(call) + 1, 0};
    fbp_tensor *x = full_axis(g, call->inputs[0], batched[0], size), *index = call->inputs[1];
    if (!x) return NULL;
    if (!batched[1]) return fbp_build(g, FBP_OP_index_select, 2, (fbp_tensor *[]){x, index}, &axis, sizeof axis);
    index = spread_index(g, index, x, axis.dim);
    return index ? fbp_build(g, FBP_OP_gather, 2, (fbp_tensor *[]){x, index}, &axis, sizeof axis) : NULL;
}

fbp_tensor *batch_index_add(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    const fbp_dim_attribute axis = {axis_of(call) + 1, 0};
    fbp_tensor *inputs[3] = {full_axis(g, call->inputs[0], batched[0], size), call->inputs[1],
                             full_axis(g, call->inputs[2], batched[2], size)};
    if (!inputs[0] || !inputs[2]) return NULL;
    if (!batched[1]) return fbp_build(g, FBP_OP_index_add, 3, inputs, &axis, sizeof axis);
    inputs[1] = spread_index(g, inputs[1], inputs[2], axis.dim);
    return inputs[1] ? fbp_build(g, FBP_OP_scatter_add, 3, inputs, &axis, sizeof axis) : NULL;
}

/* ---- rows by position ------------------------------------------------------------------------------------------------------------ */

/* The attribute of the same op over a batch of tables, as one table of all their rows. */
static int shifted_take(const fbp_take_attribute *take, int64_t size, fbp_take_attribute *to) {
    *to = (fbp_take_attribute){.axes = take->axes + 1, .ndim = take->ndim + 1};
    to->shape[0] = size;
    memcpy(to->shape + 1, take->shape, (size_t)take->ndim * sizeof *take->shape);
    return FBP_ATTRIBUTE_BYTES(fbp_take_attribute, shape, to->ndim);
}

/* Positions within each example as positions within all: example b's rows begin at b * rows. */
static fbp_tensor *offset_positions(fbp_builder *g, fbp_tensor *positions, bool batched, const fbp_take_attribute *take, int64_t size) {
    fbp_source_attribute starts = {.dtype = FBP_INT64, .ndim = 1, .shape = {size}};
    int64_t rows = 1;
    for (int i = 0; i < take->axes; i++) rows *= take->shape[i];
    starts.integer[1] = rows;
    fbp_tensor *first = fbp_build(g, FBP_OP_arange, 0, NULL, &starts, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 1));
    return fbp_build2(g, FBP_OP_add, positions, fbp_batch_trail(g, first, positions->ndim + !batched));
}

/* A table that all examples share is read at all their positions at once. */
fbp_tensor *batch_take(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_take_attribute shifted;
    fbp_tensor *inputs[2] = {call->inputs[0], call->inputs[1]};
    if (!batched[0]) return fbp_build(g, FBP_OP_take, 2, inputs, call->attributes, call->attribute_bytes);
    int bytes = shifted_take(call->attributes, size, &shifted);
    inputs[1] = offset_positions(g, inputs[1], batched[1], call->attributes, size);
    return inputs[1] ? fbp_build(g, FBP_OP_take, 2, inputs, &shifted, bytes) : NULL;
}

static fbp_tensor *batch_written(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_take_attribute shifted;
    int bytes = shifted_take(call->attributes, size, &shifted);
    fbp_tensor *inputs[3] = {fbp_batch_full(g, call->inputs[0], batched[0], size),
                             offset_positions(g, call->inputs[1], batched[1], call->attributes, size),
                             fbp_batch_full(g, call->inputs[2], batched[2], size)};
    return inputs[0] && inputs[1] && inputs[2] ? fbp_build(g, call->op, 3, inputs, &shifted, bytes) : NULL;
}
fbp_tensor *batch_put(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) { return batch_written(g, call, batched, size); }
fbp_tensor *batch_put_add(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) { return batch_written(g, call, batched, size); }

/* Elementwise in the indices, which must have one shape. */
fbp_tensor *batch_positions(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_tensor *inputs[FBP_MAX_NDIM];
    for (int i = 0; i < call->count; i++)
        if (!(inputs[i] = fbp_batch_full(g, call->inputs[i], batched[i], size))) return NULL;
    return fbp_build(g, FBP_OP_positions, call->count, inputs, call->attributes, call->attribute_bytes);
}

/* ---- order, along the last axis ---------------------------------------------------------------------------------------------------- */

static fbp_tensor *batch_rows(fbp_builder *g, const fbp_call *call) {
    fbp_tensor *x = call->inputs[0]->ndim == 1 ? fbp_batch_trail(g, call->inputs[0], 2) : call->inputs[0];
    return x ? fbp_build(g, call->op, 1, &x, call->attributes, call->attribute_bytes) : NULL;
}
fbp_tensor *batch_argsort(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    (void)batched, (void)size;
    return batch_rows(g, call);
}
fbp_tensor *batch_topk(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    (void)batched, (void)size;
    return batch_rows(g, call);
}
fbp_tensor *batch_one_hot(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    (void)batched, (void)size;
    return fbp_build(g, call->op, 1, call->inputs, call->attributes, call->attribute_bytes);
}
