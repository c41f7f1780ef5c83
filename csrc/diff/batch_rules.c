/* batch_rules.c -- batching by class and attribute, and the rules of ops on shapes and of products. */
#include <string.h>

#include "base/memory.h"
#include "diff/batching.h"

fbp_status (*fbp_host_slow)(fbp_op op) = NULL;

/* ---- bringing operands into line ----------------------------------------------------------------------------------------- */

/* [size] and then x's shape from axis `from` on; returns how many. */
static int with_batch(const fbp_tensor *x, int from, int64_t size, int64_t *shape) {
    shape[0] = size;
    memcpy(shape + 1, fbp_shape(x) + from, (size_t)(x->ndim - from) * sizeof *shape);
    return x->ndim - from + 1;
}

static fbp_tensor *no_room(fbp_builder *g, const fbp_tensor *x) {
    return fbp_build_fail(g, fbp_fail(FBP_ERROR_RUNTIME, "vmap: a tensor of shape %s has no room for the batch beside %d dimensions; reshape() to "
                                                         "fewer", fbp_tensor_shape_text(x), FBP_MAX_NDIM));
}

fbp_tensor *fbp_batch_full(fbp_builder *g, fbp_tensor *x, bool batched, int64_t size) {
    int64_t shape[FBP_MAX_NDIM];
    if (!x || batched) return x;
    if (x->ndim == FBP_MAX_NDIM) return no_room(g, x);
    return fbp_build_expand(g, x, with_batch(x, 0, size, shape), shape);
}

fbp_tensor *fbp_batch_rank(fbp_builder *g, fbp_tensor *x, int ndim) {
    int64_t shape[FBP_MAX_NDIM];
    if (!x || x->ndim > ndim) return x;
    if (ndim >= FBP_MAX_NDIM) return no_room(g, x);
    const int new_axes = ndim + 1 - x->ndim;
    shape[0] = fbp_shape(x)[0];
    for (int i = 1; i <= new_axes; i++) shape[i] = 1;
    memcpy(shape + 1 + new_axes, fbp_shape(x) + 1, (size_t)(x->ndim - 1) * sizeof *shape);
    return fbp_build_reshape(g, x, ndim + 1, shape);
}

fbp_tensor *fbp_batch_trail(fbp_builder *g, fbp_tensor *x, int ndim) {
    int64_t shape[FBP_MAX_NDIM];
    if (!x) return NULL;
    shape[0] = x->numel;
    for (int i = 1; i < ndim; i++) shape[i] = 1;
    return fbp_build_reshape(g, x, ndim, shape);
}

/* ---- elementwise ops ------------------------------------------------------------------------------------------------------ */

/* They broadcast by themselves once batched examples have as many dimensions as the others. */
static fbp_tensor *batch_elementwise(fbp_builder *g, const fbp_call *call, const bool *batched) {
    fbp_tensor *inputs[3];
    int ndim = 0;
    for (int i = 0; i < call->count; i++)
        if (fbp_example_ndim(call, batched, i) > ndim) ndim = fbp_example_ndim(call, batched, i);
    for (int i = 0; i < call->count; i++) {
        inputs[i] = batched[i] ? fbp_batch_rank(g, call->inputs[i], ndim) : call->inputs[i];
        if (!inputs[i]) return NULL;
    }
    return fbp_build(g, call->op, call->count, inputs, call->attributes, call->attribute_bytes);
}

/* ---- ops whose attribute names axes ---------------------------------------------------------------------------------------- */

static void shift_slice(fbp_slice_attribute *slice, int64_t size) {
    memmove(slice->axis + 1, slice->axis, (size_t)slice->ndim * sizeof *slice->axis);
    slice->axis[0] = (struct fbp_slice_axis){0, 1, size, size};
    slice->dropped <<= 1;
    slice->ndim++;
}

/* The attribute of the same op over a batch; returns the bytes in use. */
static int shift_attribute(const fbp_call *call, int64_t size, fbp_any_attribute *to) {
    memset(to, 0, sizeof *to);
    if (call->attribute_bytes) memcpy(to, call->attributes, (size_t)call->attribute_bytes);
    switch (fbp_ops[call->op].attribute) {
        case FBP_ATTRIBUTE_OF_fbp_shape_attribute:
            memmove(to->shape.shape + 1, to->shape.shape, (size_t)to->shape.ndim * sizeof *to->shape.shape);
            to->shape.shape[0] = size;
            return FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, ++to->shape.ndim);
        case FBP_ATTRIBUTE_OF_fbp_permute_attribute:
            for (int i = to->permute.ndim++; i > 0; i--) to->permute.axes[i] = (uint8_t)(to->permute.axes[i - 1] + 1);
            to->permute.axes[0] = 0;
            return sizeof to->permute;
        case FBP_ATTRIBUTE_OF_fbp_slice_attribute:
            shift_slice(&to->slice, size);
            return FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, to->slice.ndim);
        case FBP_ATTRIBUTE_OF_fbp_diagonal_attribute: to->diagonal.first++, to->diagonal.second++; break;
        case FBP_ATTRIBUTE_OF_fbp_dim_attribute: to->dim.dim++; break;
        case FBP_ATTRIBUTE_OF_fbp_reduce_attribute: to->reduce.dims <<= 1; break;
        default: break;
    }
    return call->attribute_bytes;
}

/* All inputs in full; examples of no dimensions get one where the op works along an axis.  MemoryError for long lists. */
static fbp_tensor **full_inputs(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size, fbp_tensor **inside, int room) {
    const bool along = fbp_ops[call->op].attribute == FBP_ATTRIBUTE_OF_fbp_dim_attribute;
    fbp_tensor **inputs = inside;
    if (call->count > room && !(inputs = fbp_block_get((size_t)call->count * sizeof *inputs))) {
        fbp_build_fail(g, fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate a list of %d inputs", fbp_ops[call->op].name, call->count));
        return NULL;
    }
    for (int i = 0; i < call->count; i++) {
        inputs[i] = fbp_batch_full(g, call->inputs[i], batched[i], size);
        if (inputs[i] && along && inputs[i]->ndim == 1) inputs[i] = fbp_batch_trail(g, inputs[i], 2);
    }
    return inputs;
}

static fbp_tensor *batch_shifted(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    enum { INSIDE = 8 };
    fbp_tensor *inside[INSIDE], **inputs = full_inputs(g, call, batched, size, inside, INSIDE);
    fbp_any_attribute attribute;
    if (!inputs) return NULL;
    int bytes = shift_attribute(call, size, &attribute);
    fbp_tensor *result = fbp_build(g, call->op, call->count, inputs, bytes ? &attribute : NULL, bytes);
    if (inputs != inside) fbp_block_free(inputs, (size_t)call->count * sizeof *inputs);
    return result;
}

fbp_tensor *fbp_batch_build(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    const fbp_op_row *row = &fbp_ops[call->op];
    if (fbp_op_batch[call->op]) return fbp_op_batch[call->op](g, call, batched, size);
    if (row->class == FBP_CLASS_POINTWISE || row->class == FBP_CLASS_PREDICATE) return batch_elementwise(g, call, batched);
    return batch_shifted(g, call, batched, size);
}

/* ---- one after the other ------------------------------------------------------------------------------------------------------ */

/* Example k of a batched x. */
static fbp_tensor *example(fbp_builder *g, fbp_tensor *x, int64_t k) {
    fbp_slice_attribute slice = {.ndim = x->ndim, .dropped = 1};
    slice.axis[0] = (struct fbp_slice_axis){k, 1, 1, fbp_shape(x)[0]};
    for (int i = 1; i < x->ndim; i++) slice.axis[i] = (struct fbp_slice_axis){0, 1, fbp_shape(x)[i], fbp_shape(x)[i]};
    return fbp_build(g, FBP_OP_slice, 1, &x, &slice, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, x->ndim));
}

fbp_tensor *fbp_batch_loop(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    enum { INPUTS = 8 };
    fbp_tensor *inputs[INPUTS], **results, *whole = NULL;
    int64_t shape[FBP_MAX_NDIM];
    if (call->count > INPUTS || size > INT32_MAX || size < 1)
        return fbp_build_fail(g, fbp_fail(FBP_ERROR_RUNTIME, "%s: vmap has no rule for these inputs", fbp_ops[call->op].name));
    const fbp_status said = fbp_host_slow ? fbp_host_slow(call->op) : FBP_OK;
    if (said != FBP_OK) return fbp_build_fail(g, said);
    if (!(results = fbp_memory_get((size_t)size * sizeof *results)))
        return fbp_build_fail(g, fbp_fail(FBP_ERROR_MEMORY, "vmap: cannot allocate a list of %lld results", (long long)size));
    int64_t made = 0;
    for (; made < size && g->status == FBP_OK; made++) {
        for (int i = 0; i < call->count; i++) inputs[i] = batched[i] ? example(g, call->inputs[i], made) : call->inputs[i];
        fbp_tensor *one = fbp_build(g, call->op, call->count, inputs, call->attributes, call->attribute_bytes);
        results[made] = one ? fbp_build_reshape(g, one, with_batch(one, 0, 1, shape), shape) : NULL;
    }
    if (g->status == FBP_OK) whole = fbp_build(g, FBP_OP_cat, (int)made, results, &(fbp_dim_attribute){0, 0}, sizeof(fbp_dim_attribute));
    fbp_memory_free(results, (size_t)size * sizeof *results);
    return whole;
}

/* ---- shapes ---------------------------------------------------------------------------------------------------------------------- */

fbp_tensor *batch_expand(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    const fbp_shape_attribute *target = call->attributes;
    fbp_tensor *x = fbp_batch_rank(g, call->inputs[0], (int)target->ndim);
    const fbp_call ranked = {call->op, 1, &x, call->attributes, call->attribute_bytes};
    return x ? batch_shifted(g, &ranked, batched, size) : NULL;
}

/* Lists of one dimension and no elements are no parts of tensors of other dimensions. */
fbp_tensor *batch_cat(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    const size_t bytes = (size_t)call->count * (sizeof(fbp_tensor *) + sizeof(bool));
    fbp_tensor **inputs = fbp_block_get(bytes);
    if (!inputs) return fbp_build_fail(g, fbp_fail(FBP_ERROR_MEMORY, "cat: cannot allocate a list of %d inputs", call->count));
    bool *kept_batched = (bool *)(inputs + call->count), others = false;
    int kept = 0;
    for (int i = 0; i < call->count; i++) others |= fbp_example_ndim(call, batched, i) != 1;
    for (int i = 0; i < call->count; i++) {
        if (others && fbp_example_ndim(call, batched, i) == 1 && call->inputs[i]->numel == 0) continue;
        inputs[kept] = call->inputs[i];
        kept_batched[kept++] = batched[i];
    }
    const fbp_call rest = {call->op, kept, inputs, call->attributes, call->attribute_bytes};
    fbp_tensor *result = batch_shifted(g, &rest, kept_batched, size);
    fbp_block_free(inputs, bytes);
    return result;
}

/* It works on the last two axes, whatever stands before them; its attribute names none. */
fbp_tensor *batch_triangle(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    (void)batched, (void)size;
    return fbp_build(g, call->op, 1, call->inputs, call->attributes, call->attribute_bytes);
}

/* The same zeros in every example: a random op belongs to the function, not to the example. */
fbp_tensor *batch_dropout(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_tensor *x = call->inputs[0];
    (void)batched, (void)size;
    fbp_tensor *ones = fbp_build_full(g, (fbp_dtype)x->dtype, x->ndim - 1, fbp_shape(x) + 1, 1.0);
    fbp_tensor *mask = ones ? fbp_build(g, FBP_OP_dropout, 1, &ones, call->attributes, call->attribute_bytes) : NULL;
    return fbp_build2(g, FBP_OP_mul, x, mask);
}

/* Along one axis, or over all of an example. */
static fbp_tensor *batch_arg(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_tensor *x = call->inputs[0];
    const fbp_reduce_attribute *reduce = call->attributes;
    if (reduce->dims && !(reduce->dims & (reduce->dims - 1))) return batch_shifted(g, call, batched, size);
    const fbp_reduce_attribute flat = {.dims = 2u};
    x = fbp_build_reshape(g, x, 2, (const int64_t[]){size, size ? x->numel / size : 0});
    return x ? fbp_build(g, call->op, 1, &x, &flat, sizeof flat) : NULL;
}
fbp_tensor *batch_argmax(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) { return batch_arg(g, call, batched, size); }
fbp_tensor *batch_argmin(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) { return batch_arg(g, call, batched, size); }

/* ---- products ----------------------------------------------------------------------------------------------------------------------- */

static fbp_tensor *matmul(fbp_builder *g, fbp_tensor *a, fbp_tensor *b) { return fbp_build2(g, FBP_OP_matmul, a, b); }

/* x, whose examples are vectors or matrices, as matrices: a vector is a row on the left, a column on the right. */
static fbp_tensor *as_matrices(fbp_builder *g, fbp_tensor *x, bool batched, bool left) {
    if (!x || x->ndim - batched > 1) return x;
    const int64_t size = fbp_shape(x)[0], n = fbp_shape(x)[x->ndim - 1];
    const int64_t shape[3] = {batched ? size : 1, left ? 1 : n, left ? n : 1};
    return fbp_build_reshape(g, x, 2 + batched, batched ? shape : shape + 1);
}

/* Where only one side is batched, its examples often are the rows of one tall matrix, or the columns of a wide one, of which the rows of
 * the transpose are taken; else both become stacks of matrices with equally many dimensions, which broadcast. */
fbp_tensor *batch_matmul(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_tensor *a = call->inputs[0], *b = call->inputs[1];
    const int a_ndim = fbp_example_ndim(call, batched, 0), b_ndim = fbp_example_ndim(call, batched, 1);
    (void)size;
    if (!batched[1] && b_ndim <= 2) return matmul(g, a, b);
    if (!batched[0] && a_ndim <= 2 && (b_ndim == 1 || (b_ndim == 2 && fbp_shape(b)[2] == 1))) {
        if (b_ndim == 2) b = fbp_build_reshape(g, b, 2, fbp_shape(b));
        return b ? matmul(g, b, a_ndim == 2 ? fbp_build_transpose(g, a) : a) : NULL;
    }
    a = as_matrices(g, a, batched[0], true);
    b = as_matrices(g, b, batched[1], false);
    if (!a || !b) return NULL;
    int ndim = a->ndim - batched[0] > b->ndim - batched[1] ? a->ndim - batched[0] : b->ndim - batched[1];
    if (batched[0]) a = fbp_batch_rank(g, a, ndim);
    if (batched[1]) b = fbp_batch_rank(g, b, ndim);
    return matmul(g, a, b);
}

/* Solvers broadcast the axes before their matrices, as elementwise ops do all. */
fbp_tensor *batch_solve(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    (void)size;
    return batch_elementwise(g, call, batched);
}
fbp_tensor *batch_solve_triangular(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    return batch_solve(g, call, batched, size);
}

/* total + x, each perhaps batched, of examples of `ndim` dimensions. */
static fbp_tensor *add(fbp_builder *g, fbp_tensor *total, fbp_tensor *x, bool batched, int ndim) {
    return fbp_build2(g, FBP_OP_add, total, batched ? fbp_batch_rank(g, x, ndim) : x);
}

fbp_tensor *batch_addmm(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    const fbp_scalar_attribute *factor = call->attributes;
    const fbp_call product = {FBP_OP_matmul, 2, call->inputs + 1, NULL, 0};
    const bool any = batched[1] || batched[2];
    fbp_tensor *total = any ? batch_matmul(g, &product, batched + 1, size) : matmul(g, call->inputs[1], call->inputs[2]);
    fbp_tensor *input = call->inputs[0];
    if (factor->p[1] != 1.0) total = fbp_build_scale(g, total, factor->p[1]);
    if (factor->p[0] != 1.0) input = fbp_build_scale(g, input, factor->p[0]);
    return input ? add(g, total, input, batched[0], 2) : NULL;
}

fbp_tensor *batch_linear(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size) {
    fbp_tensor *x = call->inputs[0], *weight = call->inputs[1], *bias = call->count > 2 ? call->inputs[2] : NULL;
    const bool bias_batched = bias && batched[2];
    const int ndim = fbp_example_ndim(call, batched, 0);
    if (!batched[1] && !bias_batched) return fbp_build(g, FBP_OP_linear, call->count, call->inputs, NULL, 0);
    fbp_tensor *total;
    if (!batched[1]) {
        total = fbp_build(g, FBP_OP_linear, 3, (fbp_tensor *[]){x, weight, NULL}, NULL, 0);
    } else { /* [batch, in, out] with as many dimensions as x's examples */
        fbp_tensor *inputs[2] = {x, fbp_build_transpose(g, weight)};
        if (!inputs[1]) return NULL;
        total = batch_matmul(g, &(fbp_call){FBP_OP_matmul, 2, inputs, NULL, 0}, batched, size);
        if (total && ndim == 1) total = fbp_build_reshape(g, total, 2, (const int64_t[]){size, fbp_shape(total)[total->ndim - 1]});
    }
    return bias ? add(g, total, bias, bias_batched, ndim) : total;
}
