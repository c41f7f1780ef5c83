/* builder.c -- the words in which derivative rules are written. */
#include <string.h>

#include "base/memory.h"
#include "diff/rules.h"

void fbp_builder_begin(fbp_builder *g, fbp_apply_fn apply) {
    g->apply = apply;
    g->status = FBP_OK;
    g->count = 0;
    g->capacity = sizeof g->inside / sizeof *g->inside;
    g->temporaries = g->inside;
}

void fbp_builder_end(fbp_builder *g) {
    for (int i = g->count - 1; i >= 0; i--) fbp_release(g->temporaries[i]);
    if (g->temporaries != g->inside) fbp_block_free(g->temporaries, (size_t)g->capacity * sizeof *g->temporaries);
    g->count = 0;
    g->temporaries = g->inside;
}

fbp_tensor *fbp_build_fail(fbp_builder *g, fbp_status status) {
    if (g->status == FBP_OK) g->status = status;
    return NULL;
}

fbp_tensor *fbp_build_own(fbp_builder *g, fbp_tensor *t) {
    if (g->count == g->capacity) {
        size_t bytes = (size_t)g->capacity * sizeof *g->temporaries;
        fbp_tensor **larger = fbp_block_get(2 * bytes);
        if (!larger) {
            fbp_release(t);
            return fbp_build_fail(g, fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a list of temporaries"));
        }
        memcpy(larger, g->temporaries, bytes);
        if (g->temporaries != g->inside) fbp_block_free(g->temporaries, bytes);
        g->temporaries = larger;
        g->capacity *= 2;
    }
    return g->temporaries[g->count++] = t;
}

fbp_tensor *fbp_build(fbp_builder *g, fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes) {
    if (g->status != FBP_OK) return NULL;
    fbp_tensor *out;
    fbp_status status = g->apply(op, count, inputs, attributes, attribute_bytes, &out);
    return status == FBP_OK ? fbp_build_own(g, out) : fbp_build_fail(g, status);
}

fbp_tensor *fbp_build1(fbp_builder *g, fbp_op op, fbp_tensor *a) {
    return a ? fbp_build(g, op, 1, &a, NULL, 0) : NULL;
}

fbp_tensor *fbp_build2(fbp_builder *g, fbp_op op, fbp_tensor *a, fbp_tensor *b) {
    return a && b ? fbp_build(g, op, 2, (fbp_tensor *[]){a, b}, NULL, 0) : NULL;
}

fbp_tensor *fbp_build3(fbp_builder *g, fbp_op op, fbp_tensor *a, fbp_tensor *b, fbp_tensor *c) {
    return a && b && c ? fbp_build(g, op, 3, (fbp_tensor *[]){a, b, c}, NULL, 0) : NULL;
}

fbp_tensor *fbp_build_full(fbp_builder *g, fbp_dtype dtype, int ndim, const int64_t *shape, double value) {
    fbp_source_attribute source = {.p = {value}, .dtype = (int32_t)dtype, .ndim = ndim};
    memcpy(source.shape, shape, (size_t)ndim * sizeof *shape);
    return fbp_build(g, FBP_OP_full, 0, NULL, &source, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, ndim));
}

fbp_tensor *fbp_build_number(fbp_builder *g, const fbp_tensor *like, double value) {
    if (!like) return NULL;
    fbp_tensor *number = fbp_build_full(g, like->dtype, 0, like->dims, value);
    if (number) number->flags |= FBP_NUMBER;
    return number;
}

fbp_tensor *fbp_build_scale(fbp_builder *g, fbp_tensor *x, double factor) {
    return fbp_build2(g, FBP_OP_mul, x, fbp_build_number(g, x, factor));
}

fbp_tensor *fbp_build_cast(fbp_builder *g, fbp_tensor *x, fbp_dtype dtype) {
    if (!x || x->dtype == dtype) return x;
    const fbp_dtype_attribute attribute = {dtype};
    return fbp_build(g, FBP_OP_cast, 1, &x, &attribute, sizeof attribute);
}

static fbp_tensor *build_shaped(fbp_builder *g, fbp_op op, fbp_tensor *x, int ndim, const int64_t *shape) {
    if (!x) return NULL;
    fbp_shape_attribute attribute = {.ndim = ndim};
    memcpy(attribute.shape, shape, (size_t)ndim * sizeof *shape);
    return fbp_build(g, op, 1, &x, &attribute, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, ndim));
}

fbp_tensor *fbp_build_reshape(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape) {
    return build_shaped(g, FBP_OP_reshape, x, ndim, shape);
}

fbp_tensor *fbp_build_expand(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape) {
    return build_shaped(g, FBP_OP_expand, x, ndim, shape);
}

fbp_tensor *fbp_build_transpose(fbp_builder *g, fbp_tensor *x) {
    if (!x) return NULL;
    fbp_permute_attribute attribute = {.ndim = x->ndim};
    for (int i = 0; i < x->ndim; i++) attribute.axes[i] = (uint8_t)i;
    attribute.axes[x->ndim - 1] = (uint8_t)(x->ndim - 2);
    attribute.axes[x->ndim - 2] = (uint8_t)(x->ndim - 1);
    return fbp_build(g, FBP_OP_permute, 1, &x, &attribute, sizeof attribute);
}

/* The shape of x with the masked axes dropped, or kept with size 1; returns how many.  *all_single: they have size 1 now. */
static int reduced_shape(const fbp_tensor *x, uint32_t dims, bool keepdim, int64_t *shape, bool *all_single) {
    int ndim = 0;
    *all_single = true;
    for (int i = 0; i < x->ndim; i++) {
        const bool reduced = dims >> i & 1;
        if (reduced && fbp_shape(x)[i] != 1) *all_single = false;
        if (!reduced || keepdim) shape[ndim++] = reduced ? 1 : fbp_shape(x)[i];
    }
    return ndim;
}

fbp_tensor *fbp_build_sum(fbp_builder *g, fbp_tensor *x, uint32_t dims, bool keepdim) {
    int64_t shape[FBP_MAX_NDIM];
    bool all_single;
    if (!x || !dims) return x;
    const int ndim = reduced_shape(x, dims, keepdim, shape, &all_single);
    if (all_single) return keepdim ? x : fbp_build_reshape(g, x, ndim, shape);
    const fbp_reduce_attribute attribute = {.dims = dims, .keepdim = keepdim};
    return fbp_build(g, FBP_OP_sum, 1, &x, &attribute, sizeof attribute);
}

fbp_tensor *fbp_build_fit(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape) {
    if (!x) return NULL;
    if (x->ndim == ndim && memcmp(fbp_shape(x), shape, (size_t)ndim * sizeof *shape) == 0) return x;
    /* Axes that the target lacks are summed away, axes where it has size 1 are summed but kept. */
    uint32_t lacking = 0, single = 0;
    int lead = x->ndim - ndim;
    for (int i = 0; i < x->ndim; i++) {
        if (i < lead) lacking |= 1u << i;
        else if (shape[i - lead] == 1 && fbp_shape(x)[i] != 1) single |= 1u << i;
    }
    if (lacking) {
        x = fbp_build_sum(g, x, lacking | single, false);
        if (single) x = fbp_build_reshape(g, x, ndim, shape);
    } else {
        x = fbp_build_sum(g, x, single, true);
    }
    if (x && (x->ndim != ndim || memcmp(fbp_shape(x), shape, (size_t)ndim * sizeof *shape) != 0))
        x = fbp_build_expand(g, x, ndim, shape);
    return x;
}

fbp_tensor *fbp_build_unreduce(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape, const fbp_reduce_attribute *reduce) {
    if (!x || x->ndim == ndim) return x;
    int64_t kept[FBP_MAX_NDIM];
    for (int i = 0; i < ndim; i++) kept[i] = (reduce->dims >> i & 1) ? 1 : shape[i];
    return fbp_build_reshape(g, x, ndim, kept);
}

/* ---- the rule of one recorded node ----------------------------------------------------------------------------------- */

fbp_tensor *fbp_node_vjp(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    const fbp_op_row *row = &fbp_ops[node->op];
    const fbp_tensor *input = fbp_input(node, which);
    if (!row->vjp)
        return fbp_build_fail(g, fbp_fail(FBP_ERROR_RUNTIME, "the derivative of %s is not defined", row->name));
    return fbp_build_fit(g, row->vjp(g, node, which, cotangent), input->ndim, fbp_shape(input));
}

/* A linear op is its own derivative, in every differentiable input at once; a missing tangent is a zero one.
 * Inputs that are not differentiable (integer indices) go in as they are. */
static fbp_tensor *linear_jvp(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    enum { INSIDE = 32 };
    fbp_tensor *inside[INSIDE] = {0}, **inputs = inside;
    int count = (int)node->edge_count;
    if (count > INSIDE && !(inputs = fbp_block_get((size_t)count * sizeof *inputs)))
        return fbp_build_fail(g, fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a list of tangents"));
    for (int i = 0; i < count; i++) {
        fbp_tensor *input = fbp_input(node, i);
        inputs[i] = tangents[i] ? tangents[i]
                    : fbp_dtype_is_float(input->dtype)
                        ? fbp_build_full(g, input->dtype, input->ndim, fbp_shape(input), 0.0)
                        : input;
    }
    fbp_tensor *result = fbp_build(g, node->op, count, inputs, fbp_attributes(node), node->attribute_bytes);
    if (inputs != inside) fbp_block_free(inputs, (size_t)count * sizeof *inputs);
    return result;
}

/* Product rule: the op with one input replaced by its tangent, summed. */
static fbp_tensor *bilinear_jvp(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    fbp_tensor *total = NULL;
    for (int i = 0; i < 2; i++) {
        if (!tangents[i]) continue;
        fbp_tensor *inputs[2] = {fbp_input(node, 0), fbp_input(node, 1)};
        inputs[i] = tangents[i];
        fbp_tensor *part = fbp_build(g, node->op, 2, inputs, fbp_attributes(node), node->attribute_bytes);
        total = total ? fbp_build2(g, FBP_OP_add, total, part) : part;
    }
    return total;
}

fbp_tensor *fbp_node_jvp(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    const fbp_op_row *row = &fbp_ops[node->op];
    bool any = false;
    for (uint32_t i = 0; i < node->edge_count; i++) any |= tangents[i] != NULL;
    if (!any || row->class == FBP_CLASS_NODIFF || row->class == FBP_CLASS_PREDICATE) return NULL;
    if (row->class == FBP_CLASS_LINEAR) return linear_jvp(g, node, tangents);
    if (row->class == FBP_CLASS_BILINEAR) return bilinear_jvp(g, node, tangents);
    if (!row->jvp) return fbp_build_fail(g, fbp_fail(FBP_ERROR_RUNTIME, "%s has no forward-mode rule", row->name));
    return row->jvp(g, node, tangents);
}
