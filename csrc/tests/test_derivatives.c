/* test_derivatives.c -- vmap, forward mode, fused pulls and sweeps within sweeps from C: what they compute, what they refuse, and that
 * neither leaves a trace in the nodes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "exec/backward.h"
#include "exec/batched.h"
#include "exec/forward.h"
#include "exec/pull.h"
#include "kernels/kernels.h"
#include "ops/linalg.h"
#include "tests/expect.h"

#define CHECK_OK(call) CHECK((call) == FBP_OK, "%s", fbp_message())
#define SHAPE(...) (const int64_t[]){__VA_ARGS__}
#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

enum { BATCH = 3 };
/* Sums of at most a dozen terms below 4 in another order or by another instruction. */
static const double ROUNDING = 1e-13;

static void demand(fbp_status status, const char *what) {
    if (status == FBP_OK) return;
    printf("%s: %s\n", what, fbp_message());
    exit(1);
}

/* Numbers in (0.1, 1), other ones at each call; small integers where the type is no float. */
static fbp_tensor *fresh(fbp_dtype dtype, int ndim, const int64_t *shape, int64_t below) {
    static uint32_t state = 12345;
    fbp_layout layout;
    fbp_tensor *t = NULL;
    demand(fbp_layout_contiguous(&layout, dtype, ndim, shape) || fbp_tensor_empty(&layout, 0, 0, &t), "fresh");
    for (int64_t i = 0; i < t->numel; i++) {
        state = state * 1664525u + 1013904223u;
        const double number = 0.1 + 0.9 * ((state >> 8) / 16777216.0);
        if (dtype == FBP_FLOAT64) ((double *)t->data)[i] = number;
        else ((int64_t *)t->data)[i] = (int64_t)(state >> 8) % below;
    }
    return t;
}

static fbp_tensor *real(int ndim, const int64_t *shape) { return fresh(FBP_FLOAT64, ndim, shape, 0); }

static fbp_tensor *leaf(int ndim, const int64_t *shape) {
    fbp_tensor *t = real(ndim, shape);
    t->flags |= FBP_REQUIRES_GRAD;
    return t;
}

/* op(a, b), or op(a) where b is NULL; ends the program on failure. */
static fbp_tensor *apply(fbp_op op, fbp_tensor *a, fbp_tensor *b, const void *attributes, int bytes) {
    fbp_tensor *inputs[2] = {a, b}, *out = NULL;
    demand(fbp_apply(op, b ? 2 : 1, inputs, attributes, bytes, &out), fbp_ops[op].name);
    return out;
}
#define APPLY(op, a, b) apply(FBP_OP_##op, a, b, NULL, 0)

static fbp_tensor *sum(fbp_tensor *t) {
    const fbp_reduce_attribute all = {.dims = (1u << t->ndim) - 1};
    return apply(FBP_OP_sum, t, NULL, &all, sizeof all);
}

static fbp_tensor *batched(fbp_tensor *physical, uint64_t level) {
    fbp_tensor *out = NULL;
    demand(fbp_batched_new(physical, level, true, 0, 0, &out), "batched");
    return out;
}
static fbp_tensor *behind(const fbp_tensor *t) { return fbp_batch_of(t)->physical; }

/* Element i in row-major order, whatever the strides and the type. */
static double at(const fbp_tensor *t, int64_t i) {
    int64_t offset = 0;
    for (int axis = t->ndim - 1; axis >= 0; i /= fbp_shape(t)[axis--]) offset += i % fbp_shape(t)[axis] * fbp_strides(t)[axis];
    if (t->dtype == FBP_INT64) return (double)((const int64_t *)t->data)[offset];
    return t->dtype == FBP_FLOAT32 ? ((const float *)t->data)[offset] : ((const double *)t->data)[offset];
}

static double dot(const fbp_tensor *a, const fbp_tensor *b) {
    double total = 0;
    for (int64_t i = 0; i < a->numel; i++) total += at(a, i) * at(b, i);
    return total;
}

static void release_all(int count, fbp_tensor *const *tensors) {
    for (int i = 0; i < count; i++)
        if (tensors[i]) fbp_release(tensors[i]);
}
#define RELEASE(...) release_all(COUNT(((fbp_tensor *[]){__VA_ARGS__})), (fbp_tensor *[]){__VA_ARGS__})

/* A sweep from one root for the cotangents of some inputs. */
static fbp_status pull(fbp_tensor *root, fbp_tensor *cotangent, int count, fbp_tensor *const *inputs, bool create_graph, fbp_tensor **results) {
    for (int i = 0; i < count; i++) results[i] = NULL;
    const fbp_backward_request request = {.root_count = 1, .roots = &root, .cotangents = &cotangent, .retain_graph = true,
                                          .create_graph = create_graph, .input_count = count, .inputs = inputs, .results = results};
    return fbp_backward(&request);
}

static fbp_status push(fbp_tensor *output, int count, fbp_tensor *const *inputs, fbp_tensor *const *tangents, bool create_graph, fbp_tensor **result) {
    const fbp_forward_request request = {1, &output, count, inputs, tangents, create_graph, result};
    return fbp_forward_gradient(&request);
}

static bool clean(int count, fbp_tensor *const *nodes) {
    const fbp_mode *mode = fbp_mode_get();
    bool good = mode->grad_enabled && mode->quiet_level == UINT64_MAX && !mode->vmap_count;
    for (int i = 0; i < count; i++) good &= !nodes[i] || (!nodes[i]->cotangent && !(nodes[i]->flags & (FBP_VISITED | FBP_WANTED)));
    return good;
}
#define CHECK_CLEAN(...) CHECK(clean(COUNT(((fbp_tensor *[]){__VA_ARGS__})), (fbp_tensor *[]){__VA_ARGS__}), "scratch is left")

/* ---- an op over a batch is the op on each example ---- */

typedef struct batch_case {
    fbp_op op;
    int count;
    struct { fbp_dtype dtype; int ndim; int64_t shape[3], below; } input[2];
    int bytes;
    fbp_any_attribute attribute;
} batch_case;

static const batch_case batch_cases[] = {
    {FBP_OP_matmul, 2, {{FBP_FLOAT64, 2, {2, 4}, 0}, {FBP_FLOAT64, 2, {4, 3}, 0}}, 0, {{{0}}}},
    {FBP_OP_copy, 1, {{FBP_FLOAT64, 2, {2, 3}, 0}}, 0, {{{0}}}},
    {FBP_OP_add, 2, {{FBP_FLOAT64, 1, {3}, 0}, {FBP_FLOAT64, 2, {2, 3}, 0}}, 0, {{{0}}}},
    {FBP_OP_clamp, 1, {{FBP_FLOAT64, 2, {2, 5}, 0}}, sizeof(fbp_scalar_attribute), {.scalar = {{0.3, 0.7}}}},
    {FBP_OP_cast, 1, {{FBP_FLOAT64, 1, {4}, 0}}, sizeof(fbp_dtype_attribute), {.dtype = {FBP_FLOAT32}}},
    {FBP_OP_reshape, 1, {{FBP_FLOAT64, 2, {2, 3}, 0}}, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, 2), {.shape = {2, {3, 2}}}},
    {FBP_OP_expand, 1, {{FBP_FLOAT64, 1, {3}, 0}}, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, 2), {.shape = {2, {2, 3}}}},
    {FBP_OP_permute, 1, {{FBP_FLOAT64, 2, {2, 3}, 0}}, sizeof(fbp_permute_attribute), {.permute = {2, {1, 0}, 0}}},
    {FBP_OP_slice, 1, {{FBP_FLOAT64, 2, {3, 5}, 0}}, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, 2), {.slice = {2, 1, {{2, 1, 1, 3}, {1, 2, 2, 5}}}}},
    {FBP_OP_diagonal, 1, {{FBP_FLOAT64, 2, {3, 4}, 0}}, sizeof(fbp_diagonal_attribute), {.diagonal = {0, 1, 1, {3, 4}}}},
    {FBP_OP_cumsum, 1, {{FBP_FLOAT64, 2, {2, 4}, 0}}, sizeof(fbp_dim_attribute), {.dim = {1, 1}}},
    {FBP_OP_cat, 2, {{FBP_FLOAT64, 2, {2, 3}, 0}, {FBP_FLOAT64, 2, {1, 3}, 0}}, sizeof(fbp_dim_attribute), {.dim = {0, 0}}},
    {FBP_OP_gather, 2, {{FBP_FLOAT64, 2, {4, 3}, 0}, {FBP_INT64, 2, {2, 3}, 4}}, sizeof(fbp_dim_attribute), {.dim = {0, 0}}},
    {FBP_OP_sum, 1, {{FBP_FLOAT64, 2, {3, 4}, 0}}, sizeof(fbp_reduce_attribute), {.reduce = {.dims = 1}}},
    {FBP_OP_amax, 1, {{FBP_FLOAT64, 2, {3, 4}, 0}}, sizeof(fbp_reduce_attribute), {.reduce = {.dims = 2, .keepdim = 1}}},
    {FBP_OP_argmax, 1, {{FBP_FLOAT64, 2, {3, 4}, 0}}, sizeof(fbp_reduce_attribute), {.reduce = {.dims = 2}}},
    {FBP_OP_take, 2, {{FBP_FLOAT64, 2, {4, 2}, 0}, {FBP_INT64, 1, {3}, 4}}, FBP_ATTRIBUTE_BYTES(fbp_take_attribute, shape, 2), {.take = {1, 2, {4, 2}}}},
    {FBP_OP_det, 1, {{FBP_FLOAT64, 2, {2, 2}, 0}}, sizeof(fbp_matrix_attribute), {.matrix = {0}}},
    {FBP_OP_cross_entropy, 2, {{FBP_FLOAT64, 2, {2, 4}, 0}, {FBP_INT64, 1, {2}, 4}}, sizeof(fbp_loss_attribute), {.loss = {.ignore_index = -100, .reduction = 1}}},
    {FBP_OP_dropout, 1, {{FBP_FLOAT64, 2, {3, 4}, 0}}, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 0), {.source = {.seed = 7, .p = {0.5}}}},
};

/* The host of factorizations: determinants of 2 x 2 matrices. */
static fbp_status determinants(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *a = call->inputs[0];
    for (int64_t i = 0; i < out->numel; i++)
        ((double *)out->data)[i] = at(a, 4 * i) * at(a, 4 * i + 3) - at(a, 4 * i + 1) * at(a, 4 * i + 2);
    return FBP_OK;
}

/* Example k of a physical tensor, as a view. */
static fbp_tensor *example(fbp_tensor *physical, int64_t k) {
    fbp_slice_attribute slice = {.ndim = physical->ndim, .dropped = 1};
    for (int i = 0; i < physical->ndim; i++) slice.axis[i] = (struct fbp_slice_axis){0, 1, fbp_shape(physical)[i], fbp_shape(physical)[i]};
    slice.axis[0].start = k;
    slice.axis[0].count = 1;
    return apply(FBP_OP_slice, physical, NULL, &slice, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, slice.ndim));
}

static void compare_examples(const batch_case *c, fbp_tensor *const *physical, int which, const fbp_tensor *result) {
    const char *name = fbp_ops[c->op].name;
    for (int64_t k = 0; k < BATCH; k++) {
        fbp_tensor *inputs[2], *one = NULL;
        for (int i = 0; i < c->count; i++) inputs[i] = which >> i & 1 ? example(physical[i], k) : fbp_retain(physical[i]);
        demand(fbp_apply(c->op, c->count, inputs, c->bytes ? &c->attribute : NULL, c->bytes, &one), name);
        const bool alike = result->numel == BATCH * one->numel && result->ndim == one->ndim + 1 && result->dtype == one->dtype;
        CHECK(alike, "%s, inputs %d batched: %s over a batch, %s alone", name, which, fbp_tensor_shape_text(result), fbp_tensor_shape_text(one));
        for (int64_t i = 0; alike && i < one->numel; i++)
            CHECK(fabs(at(result, k * one->numel + i) - at(one, i)) <= ROUNDING, "%s, inputs %d batched, example %d, element %d: %g, alone %g", name,
                  which, (int)k, (int)i, at(result, k * one->numel + i), at(one, i));
        release_all(c->count, inputs);
        fbp_release(one);
    }
}

static void run_batch_case(const batch_case *c, int which) {
    fbp_tensor *physical[2], *inputs[2], *out = NULL;
    uint64_t level;
    CHECK_OK(fbp_vmap_begin(BATCH, FBP_RANDOM_SAME, &level));
    for (int i = 0; i < c->count; i++) {
        const bool own = which >> i & 1;
        int64_t shape[4] = {BATCH};
        memcpy(shape + own, c->input[i].shape, sizeof c->input[i].shape);
        physical[i] = fresh(c->input[i].dtype, c->input[i].ndim + own, shape, c->input[i].below);
        inputs[i] = own ? batched(physical[i], level) : fbp_retain(physical[i]);
    }
    const fbp_status status = fbp_apply(c->op, c->count, inputs, c->bytes ? &c->attribute : NULL, c->bytes, &out);
    CHECK(status == FBP_OK, "%s: %s", fbp_ops[c->op].name, fbp_message());
    fbp_vmap_end();
    if (status == FBP_OK) {
        CHECK(fbp_is_batched(out) && fbp_batch_of(out)->batched && fbp_level(out) == level, "%s", fbp_ops[c->op].name);
        compare_examples(c, physical, which, behind(out));
        fbp_release(out);
    }
    release_all(c->count, inputs);
    release_all(c->count, physical);
}

static void test_batched_apply(void) {
    bool seen[FBP_ATTRIBUTE_OF_fbp_source_attribute + 1] = {0};
    fbp_host_linear_algebra = determinants;
    for (int i = 0; i < COUNT(batch_cases); i++) {
        seen[fbp_ops[batch_cases[i].op].attribute] = true;
        for (int which = 1; which < 1 << batch_cases[i].count; which++) run_batch_case(&batch_cases[i], which);
    }
    fbp_host_linear_algebra = NULL;
    for (int kind = 0; kind < COUNT(seen); kind++) CHECK(seen[kind], "attribute kind %d has no case", kind);
}

/* ---- levels ---- */

static void test_nested_levels(void) {
    uint64_t outer, inner;
    fbp_tensor *a = real(1, SHAPE(2)), *b = real(1, SHAPE(4)), *same;
    CHECK_OK(fbp_vmap_begin(2, FBP_RANDOM_ERROR, &outer));
    fbp_tensor *x = batched(a, outer);
    CHECK_OK(fbp_vmap_begin(4, FBP_RANDOM_ERROR, &inner));
    CHECK(inner > outer && fbp_vmap_top()->level == inner && fbp_vmap_top()->size == 4, "the innermost one");
    fbp_tensor *y = batched(b, inner), *product = APPLY(mul, x, y);
    CHECK(fbp_level(product) == inner && product->ndim == 0 && fbp_level(behind(product)) == outer, "level %d", (int)fbp_level(product));
    CHECK_OK(fbp_batched_new(x, inner, false, 0, 0, &same));
    fbp_tensor *square = APPLY(mul, same, same);
    CHECK(fbp_level(square) == inner && !fbp_batch_of(square)->batched && fbp_level(behind(square)) == outer, "the same in all examples");
    fbp_vmap_end();
    const fbp_tensor *elements = behind(behind(product));
    for (int i = 0; i < 2; i++) {
        CHECK(at(behind(behind(square)), i) == at(a, i) * at(a, i), "%g", at(behind(behind(square)), i));
        for (int j = 0; j < 4; j++) CHECK(at(elements, 4 * i + j) == at(a, i) * at(b, j), "%d %d: %g", i, j, at(elements, 4 * i + j));
    }
    fbp_tensor *inputs[2] = {x, product}, *out = NULL;
    CHECK(fbp_apply(FBP_OP_mul, 2, inputs, NULL, 0, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "has ended") && !out, "%s", fbp_message());
    fbp_vmap_end();
    CHECK(fbp_level_check("mul", x) == FBP_ERROR_RUNTIME && !fbp_vmap_top(), "%s", fbp_message());
    RELEASE(a, b, x, y, product, same, square);
}

static void test_depth(void) {
    uint64_t level = 0, refused = 0;
    for (int i = 0; i < FBP_VMAP_DEPTH_MAX; i++) CHECK_OK(fbp_vmap_begin(1, FBP_RANDOM_ERROR, &level));
    CHECK(fbp_vmap_begin(1, FBP_RANDOM_ERROR, &refused) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "nested") && !refused, "%s", fbp_message());
    CHECK(fbp_vmap_top()->level == level && fbp_mode_get()->vmap_count == FBP_VMAP_DEPTH_MAX, "%d under way", fbp_mode_get()->vmap_count);
    for (int i = 0; i < FBP_VMAP_DEPTH_MAX; i++) fbp_vmap_end();
    CHECK_CLEAN(NULL);
}

static void test_refusals(void) {
    uint64_t level;
    fbp_tensor *a = real(2, SHAPE(2, 3)), *number = real(0, NULL), *plain = real(1, SHAPE(3)), *out = NULL;
    const double before = at(a, 0), plain_before = at(plain, 0);
    CHECK_OK(fbp_vmap_begin(2, FBP_RANDOM_ERROR, &level));
    CHECK(fbp_batched_new(number, level, true, 0, 0, &out) == FBP_ERROR_VALUE && !out, "%s", fbp_message());
    fbp_tensor *x = batched(a, level), *target = x, *both[2] = {x, x}, *into[2] = {plain, x};
    CHECK(fbp_apply_in_place(FBP_OP_mul, 2, both, NULL, 0, &target) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "x.mul()") && target == x &&
              at(a, 0) == before, "%s", fbp_message());
    target = plain;
    CHECK(fbp_apply_in_place(FBP_OP_mul, 2, into, NULL, 0, &target) == FBP_ERROR_RUNTIME && target == plain && at(plain, 0) == plain_before,
          "a batched operand of an in-place op: %s", fbp_message());
    CHECK(fbp_apply_out(FBP_OP_exp, 1, &x, NULL, 0, plain) == FBP_ERROR_RUNTIME && at(plain, 0) == plain_before, "out=: %s", fbp_message());
    CHECK(fbp_apply(FBP_OP_nonzero, 1, &x, NULL, 0, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "depends on values") && !out, "%s", fbp_message());
    const fbp_source_attribute half = {.p = {0.5}};
    CHECK(fbp_apply(FBP_OP_dropout, 1, &x, &half, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 0), &out) == FBP_ERROR_RUNTIME &&
              strstr(fbp_message(), "randomness") && !out, "%s", fbp_message());
    fbp_vmap_end();
    RELEASE(a, number, plain, x);
}

/* ---- forward mode ---- */

/* tanh(x @ w) * x0 / (1 + square(b)), where b is broadcast and x0 used twice: fused kernels, built rules, sums of parts. */
static fbp_tensor *model(fbp_tensor *x, fbp_tensor *w, fbp_tensor *b) {
    fbp_tensor *product = APPLY(matmul, x, w), *bent = APPLY(tanh, product, NULL), *scaled = APPLY(mul, bent, x);
    fbp_tensor *square = APPLY(square, b, NULL), *exponential = APPLY(exp, square, NULL), *out = APPLY(div, scaled, exponential);
    RELEASE(product, bent, scaled, square, exponential);
    return out;
}

static void test_dot_products(bool create_graph) {
    fbp_tensor *inputs[3] = {leaf(2, SHAPE(2, 3)), leaf(2, SHAPE(3, 3)), leaf(1, SHAPE(3))}, *tangents[3], *cotangents[3], *Ju = NULL;
    fbp_mode_get()->keep_values = true;
    fbp_tensor *y = model(inputs[0], inputs[1], inputs[2]), *v = real(2, SHAPE(2, 3));
    fbp_mode_get()->keep_values = false;
    for (int i = 0; i < 3; i++) tangents[i] = real(inputs[i]->ndim, fbp_shape(inputs[i]));
    CHECK_OK(push(y, 3, inputs, tangents, create_graph, &Ju));
    CHECK_OK(pull(y, v, 3, inputs, create_graph, cotangents));
    CHECK(fbp_requires_grad(Ju) == create_graph && fbp_requires_grad(cotangents[0]) == create_graph, "recorded %d", fbp_requires_grad(Ju));
    double there = dot(v, Ju), back = 0;
    for (int i = 0; i < 3; i++) back += dot(cotangents[i], tangents[i]);
    CHECK(fabs(there - back) <= ROUNDING, "<v, J u> = %.17g, <J'v, u> = %.17g", there, back);
    CHECK(fabs(there) > 0.01, "a vanishing product compares nothing");
    CHECK_CLEAN(y, fbp_input(y, 0), fbp_input(y, 1), inputs[0], inputs[1], inputs[2]);
    for (int i = 0; i < 3; i++) RELEASE(inputs[i], tangents[i], cotangents[i]);
    RELEASE(y, v, Ju);
}

static void test_forward(void) {
    test_dot_products(false);
    test_dot_products(true);
    fbp_tensor *x = leaf(1, SHAPE(4)), *other = leaf(1, SHAPE(4)), *u = real(1, SHAPE(4)), *results[2];
    fbp_mode_get()->keep_values = true;
    fbp_tensor *sine = APPLY(sin, x, NULL), *y = APPLY(mul, sine, x), *apart = APPLY(exp, other, NULL), *outputs[2] = {y, apart};
    fbp_mode_get()->keep_values = false;
    const fbp_forward_request request = {2, outputs, 1, &x, &u, false, results};
    CHECK_OK(fbp_forward_gradient(&request));
    CHECK(results[1] == NULL, "an output that no input reaches");
    for (int i = 0; i < 4; i++) {
        const double exact = (cos(at(x, i)) * at(x, i) + sin(at(x, i))) * at(u, i);
        CHECK(fabs(at(results[0], i) - exact) <= ROUNDING, "%g, %g", at(results[0], i), exact);
    }
    RELEASE(x, other, u, sine, y, apart, results[0]);
}

static void test_forward_failures(void) {
    fbp_tensor *x = leaf(1, SHAPE(4)), *u = real(1, SHAPE(4)), *wrong = real(1, SHAPE(3)), *result = x, *detached;
    fbp_tensor *b = APPLY(add, x, x), *c = APPLY(mul, b, b), *e = APPLY(sin, c, NULL), *y = APPLY(add, e, e); /* of e, no value is kept */
    fbp_tensor *z = APPLY(square, y, NULL), *s = sum(z);
    const int64_t blocks = fbp_memory_statistics().live_blocks;
    CHECK(push(s, 1, &x, &wrong, false, &result) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "(3,)") && !result, "%s", fbp_message());
    CHECK_CLEAN(x, b, c, e, y, z, s);
    CHECK_OK(fbp_tensor_detach(c, &detached));
    fbp_tensor *pair[2] = {detached, u};
    CHECK_OK(fbp_apply_in_place(FBP_OP_mul, 2, pair, NULL, 0, &detached));
    CHECK(push(s, 1, &x, &u, false, &result) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "modified by an inplace") && !result, "%s", fbp_message());
    CHECK_CLEAN(x, b, c, e, y, z, s);
    fbp_release(detached);
    CHECK(fbp_memory_statistics().live_blocks == blocks, "%d blocks more", (int)(fbp_memory_statistics().live_blocks - blocks));
    RELEASE(e, c, b, y, z, s);

    b = APPLY(tanh, x, NULL);
    c = APPLY(add, b, x);
    e = APPLY(sub, c, x);
    y = APPLY(exp, e, NULL);
    fbp_release(e); /* its value goes: exp reads its output alone */
    CHECK_OK(push(y, 1, &x, &u, false, &result)); /* and so does its forward rule */
    for (int i = 0; i < 4; i++) {
        const double t = tanh(at(x, i)), exact = exp(t) * (1 - t * t) * at(u, i);
        CHECK(fabs(at(result, i) - exact) <= ROUNDING, "%g, %g", at(result, i), exact);
    }
    const fbp_dim_attribute along = {0, 0};
    fbp_tensor *soft = apply(FBP_OP_softmax, c, NULL, &along, sizeof along), *nothing = NULL;
    fbp_release(c); /* its value goes: softmax reads its output alone */
    CHECK(push(soft, 1, &x, &u, false, &nothing) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "keep_values") && !nothing, "%s", fbp_message());
    CHECK_CLEAN(x, b, c, soft);
    RELEASE(x, u, wrong, b, y, soft, result);
}

/* ---- fused pulls over operands of several lengths ---- */

/* Element of t, broadcast to the row-major element i of this shape. */
static double spread_at(const fbp_tensor *t, int ndim, const int64_t *shape, int64_t i) {
    int64_t offset = 0;
    for (int axis = ndim - 1; axis >= 0; i /= shape[axis--]) {
        const int own = axis - ndim + t->ndim;
        if (own >= 0 && fbp_shape(t)[own] != 1) offset += i % shape[axis] * fbp_strides(t)[own];
    }
    return ((const double *)t->data)[offset];
}

/* The pull of (a - b)^2 for input `which`, 2 g (a - b) or its negative, from g of the node's shape. */
static void check_pull(fbp_tensor *a, fbp_tensor *b, int which) {
    fbp_tensor *node = APPLY(squared_error, a, b), *g = real(node->ndim, fbp_shape(node)), *out = NULL;
    fbp_status status = FBP_OK;
    CHECK(!fbp_pull_fused(node, which, g, false, &out, &status) && !out, "what is recorded is not fused");
    fbp_mode_get()->grad_enabled = false;
    CHECK(fbp_pull_fused(node, which, g, false, &out, &status) && status == FBP_OK, "%s, %s", fbp_tensor_shape_text(a), fbp_tensor_shape_text(b));
    fbp_mode_get()->grad_enabled = true;
    CHECK(out && fbp_same_shape(out, node) && !out->edge_count, "shape %s", out ? fbp_tensor_shape_text(out) : "none");
    for (int64_t i = 0; out && i < out->numel; i++) {
        const double difference = spread_at(a, node->ndim, fbp_shape(node), i) - spread_at(b, node->ndim, fbp_shape(node), i);
        const double exact = at(g, i) * (2 * (which ? -difference : difference));
        CHECK(fabs(at(out, i) - exact) <= ROUNDING, "%s, %s, element %d: %g, %g", fbp_tensor_shape_text(a), fbp_tensor_shape_text(b), (int)i, at(out, i), exact);
    }
    RELEASE(node, g, out);
}

static void test_periods(void) {
    static const struct { int ndim; int64_t shape[4]; } shapes[] = {
        {3, {2, 3, 70}}, {1, {70}}, {2, {3, 70}}, {2, {1, 70}}, {3, {2, 1, 70}}, {3, {2, 3, 1}}, {0, {0}}, {4, {1, 1, 3, 70}},
    };
    for (int i = 0; i < COUNT(shapes); i++)
        for (int j = 0; j < COUNT(shapes); j++) {
            fbp_tensor *a = leaf(shapes[i].ndim, shapes[i].shape), *b = leaf(shapes[j].ndim, shapes[j].shape);
            check_pull(a, b, 0);
            check_pull(a, b, 1);
            RELEASE(a, b);
        }
    const fbp_permute_attribute turn = {.ndim = 2, .axes = {1, 0}};
    fbp_tensor *base = leaf(2, SHAPE(70, 3)), *turned = apply(FBP_OP_permute, base, NULL, &turn, sizeof turn), *b = leaf(1, SHAPE(70));
    check_pull(turned, b, 0);
    check_pull(b, turned, 0);
    RELEASE(base, turned, b);
}

/* A node of one vmap's examples, pulled by a batch of cotangents of another: g has both batches, a one, b none. */
static void test_periods_of_batches(void) {
    uint64_t outer, inner;
    fbp_tensor *pa = leaf(2, SHAPE(BATCH, 70)), *b = leaf(1, SHAPE(70)), *pg = real(3, SHAPE(BATCH, 2, 70)), *out = NULL;
    fbp_status status = FBP_OK;
    CHECK_OK(fbp_vmap_begin(BATCH, FBP_RANDOM_ERROR, &outer));
    CHECK_OK(fbp_vmap_begin(2, FBP_RANDOM_ERROR, &inner));
    fbp_tensor *a = batched(pa, outer), *g1 = batched(pg, outer), *g = batched(g1, inner), *node = NULL;
    a->flags |= FBP_REQUIRES_GRAD;
    node = APPLY(squared_error, a, b);
    /* While the level below is recorded, no fused kernel may serve. */
    CHECK(!fbp_pull_fused(node, 0, g, false, &out, &status) && !out, "a recorded operand");
    fbp_mode_get()->grad_enabled = false;
    CHECK(fbp_pull_fused(node, 0, g, false, &out, &status) && status == FBP_OK && fbp_level(out) == inner, "%s", fbp_message());
    fbp_mode_get()->grad_enabled = true;
    const fbp_tensor *elements = behind(behind(out));
    for (int64_t i = 0; i < pg->numel; i++) {
        const double exact = at(pg, i) * 2 * (at(pa, i / 140 * 70 + i % 70) - at(b, i % 70));
        CHECK(fabs(at(elements, i) - exact) <= ROUNDING, "element %d: %g, %g", (int)i, at(elements, i), exact);
    }
    for (int i = 0; i < 2; i++) fbp_vmap_end();
    RELEASE(pa, b, pg, a, g1, g, node, out);
}

/* ---- sweeps and levels ---- */

/* All rows of a Jacobian from one sweep, whose cotangents are a batch: of y = tanh(W x), (1 - y^2) W. */
static void test_batch_of_cotangents(void) {
    uint64_t level;
    fbp_tensor *x = leaf(1, SHAPE(3)), *w = real(2, SHAPE(2, 3)), *product = APPLY(matmul, w, x), *y = APPLY(tanh, product, NULL);
    fbp_tensor *rows = real(2, SHAPE(2, 2)), *result;
    for (int i = 0; i < 4; i++) ((double *)rows->data)[i] = i % 3 == 0;
    CHECK_OK(fbp_vmap_begin(2, FBP_RANDOM_ERROR, &level));
    fbp_tensor *v = batched(rows, level);
    CHECK_OK(pull(y, v, 1, &x, false, &result));
    CHECK(fbp_level(result) == level && fbp_same_shape(result, x) && !fbp_requires_grad(behind(result)), "%s", fbp_tensor_shape_text(result));
    const fbp_backward_request leaves = {.root_count = 1, .roots = &y, .cotangents = &v, .retain_graph = true};
    CHECK(fbp_backward(&leaves) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "no place in a .grad") && (!x->autograd || !x->autograd->gradient),
          "%s", fbp_message());
    fbp_vmap_end();
    for (int i = 0; i < 6; i++) {
        const double exact = (1 - at(y, i / 3) * at(y, i / 3)) * at(w, i);
        CHECK(fabs(at(behind(result), i) - exact) <= ROUNDING, "%d: %g, %g", i, at(behind(result), i), exact);
    }
    CHECK_CLEAN(x, product, y);
    RELEASE(x, w, product, y, rows, v, result);
}

/* Inside of a vmap over a recorded x a sweep that is not recorded: so on its own level alone. */
static void test_quiet_levels(void) {
    uint64_t level;
    fbp_tensor *x = leaf(1, SHAPE(4)), *point, *gradient, *second;
    CHECK_OK(fbp_vmap_begin(4, FBP_RANDOM_ERROR, &level));
    fbp_tensor *one = batched(x, level);
    CHECK_OK(fbp_lift(one, &point));
    fbp_tensor *square = APPLY(mul, point, point), *cube = APPLY(mul, square, point);
    CHECK(fbp_requires_grad(cube) && fbp_requires_grad(behind(cube)), "recorded on both levels");
    CHECK_OK(pull(cube, NULL, 1, &point, false, &gradient));
    CHECK(!fbp_requires_grad(gradient) && fbp_requires_grad(behind(gradient)), "quiet on the sweep's level, recorded behind it");
    fbp_vmap_end();
    fbp_tensor *physical = behind(gradient), *total = sum(physical);
    CHECK_OK(pull(total, NULL, 1, &x, false, &second));
    for (int i = 0; i < 4; i++) {
        CHECK(fabs(at(physical, i) - 3 * at(x, i) * at(x, i)) <= ROUNDING, "3 x^2 at %g: %g", at(x, i), at(physical, i));
        CHECK(fabs(at(second, i) - 6 * at(x, i)) <= ROUNDING, "6 x at %g: %g", at(x, i), at(second, i));
    }
    CHECK_CLEAN(x, point, square, cube, physical, total);
    RELEASE(x, point, gradient, second, one, square, cube, total);
}

static void test_lift(void) {
    uint64_t level;
    fbp_tensor *plain = real(1, SHAPE(2)), *x = leaf(1, SHAPE(2)), *point, *alias, *inside;
    CHECK_OK(fbp_lift(plain, &point));
    CHECK(fbp_requires_grad(point) && !point->edge_count && point->storage == plain->storage && !fbp_requires_grad(plain), "a leaf of its own");
    fbp_mode_get()->grad_enabled = false;
    CHECK_OK(fbp_lift(x, &alias));
    CHECK(!fbp_mode_get()->grad_enabled, "the mode is what it was");
    fbp_mode_get()->grad_enabled = true;
    CHECK(alias->edge_count == 1 && fbp_input(alias, 0) == x && alias->storage == x->storage && fbp_requires_grad(alias), "recorded whatever the mode");
    CHECK_OK(fbp_vmap_begin(5, FBP_RANDOM_ERROR, &level));
    CHECK_OK(fbp_lift(x, &inside));
    CHECK(fbp_level(inside) == level && !fbp_batch_of(inside)->batched && behind(inside) == x && fbp_requires_grad(inside) && !inside->edge_count,
          "a leaf of the vmap's level");
    fbp_vmap_end();
    RELEASE(plain, x, point, alias, inside);
}

/* ---- one edge, and sweeps within sweeps ---- */

static void test_edges(void) {
    fbp_tensor *a = leaf(1, SHAPE(3)), *b = leaf(2, SHAPE(2, 3)), *node = APPLY(mul, a, b), *g = real(2, SHAPE(2, 3)), *fit, *full, *other, *detached;
    CHECK_OK(fbp_edge_pull(node, 0, g, true, &fit));
    CHECK_OK(fbp_edge_pull(node, 0, g, false, &full));
    CHECK_OK(fbp_edge_pull(node, 1, g, true, &other));
    CHECK(fbp_same_shape(fit, a) && fbp_same_shape(full, node) && !fbp_requires_grad(fit) && !fbp_requires_grad(full), "%s", fbp_tensor_shape_text(fit));
    for (int i = 0; i < 6; i++) {
        CHECK(at(full, i) == at(g, i) * at(b, i) && at(other, i) == at(g, i) * at(a, i % 3), "%d", i);
        CHECK(fabs(at(fit, i % 3) - at(full, i % 3) - at(full, i % 3 + 3)) <= ROUNDING, "%d", i);
    }
    CHECK_OK(fbp_tensor_detach(b, &detached));
    fbp_tensor *pair[2] = {detached, g}, *none = a;
    CHECK_OK(fbp_apply_in_place(FBP_OP_mul, 2, pair, NULL, 0, &detached));
    CHECK(fbp_edge_pull(node, 0, g, true, &none) == FBP_ERROR_RUNTIME && !none && strstr(fbp_message(), "inplace"), "%s", fbp_message());
    fbp_saved_release(node);
    CHECK(fbp_edge_pull(node, 0, g, true, &none) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "second time"), "%s", fbp_message());
    RELEASE(a, b, node, g, fit, full, other, detached);
}

/* What a hook does: passes of its own over the graph that is being swept, by way of `inner`'s nodes. */
static struct inner { fbp_tensor *root, *inputs[2], *tangent, *reverse[2], *forward; int calls; } inner;

static fbp_status inner_passes(void *hooks, fbp_tensor *g, fbp_tensor **replaced) {
    (void)hooks, (void)g, (void)replaced;
    if (inner.calls++) return FBP_OK; /* a hook of the inner sweep itself */
    FBP_TRY(pull(inner.root, NULL, 2, inner.inputs, false, inner.reverse));
    return push(inner.root, 1, inner.inputs, &inner.tangent, false, &inner.forward);
}

/* y = sum(x^3 exp(b)) with a hook at x^2: neither the sweep for x, or for all leaves, nor the hook's passes may notice the other's marks and
 * cotangents.  The outer sweep for x leaves b out, the inner one wants both. */
static void test_passes_within_passes(bool with_inputs) {
    fbp_tensor *x = leaf(1, SHAPE(3)), *b = leaf(1, SHAPE(3)), *result = NULL;
    fbp_mode_get()->keep_values = true;
    fbp_tensor *square = APPLY(mul, x, x), *cube = APPLY(mul, square, x), *bent = APPLY(exp, b, NULL);
    fbp_tensor *scaled = APPLY(mul, cube, bent), *root = sum(scaled);
    fbp_mode_get()->keep_values = false;
    fbp_host_hook = inner_passes;
    fbp_autograd_get(square)->hooks = &inner;
    inner = (struct inner){.root = root, .inputs = {x, b}, .tangent = real(1, SHAPE(3))};
    const fbp_backward_request request = {.root_count = 1, .roots = &root, .retain_graph = true, .input_count = with_inputs, .inputs = &x,
                                          .results = &result};
    CHECK_OK(fbp_backward(&request));
    CHECK(inner.calls == 2 && inner.forward && inner.reverse[0] && inner.reverse[1], "%d calls of the hook", inner.calls);
    const fbp_tensor *outer = with_inputs ? result : x->autograd->gradient;
    double along = 0;
    for (int i = 0; outer && i < 3; i++) {
        const double exact = 3 * at(x, i) * at(x, i) * exp(at(b, i));
        along += exact * at(inner.tangent, i);
        CHECK(fabs(at(outer, i) - exact) <= ROUNDING, "the outer sweep: %g, %g", at(outer, i), exact);
        if (inner.reverse[0]) CHECK(fabs(at(inner.reverse[0], i) - exact) <= ROUNDING, "the inner sweep: %g, %g", at(inner.reverse[0], i), exact);
        if (inner.reverse[1]) CHECK(fabs(at(inner.reverse[1], i) - at(scaled, i)) <= ROUNDING, "b: %g, %g", at(inner.reverse[1], i), at(scaled, i));
    }
    if (inner.forward) CHECK(fabs(at(inner.forward, 0) - along) <= ROUNDING, "the forward pass: %g, %g", at(inner.forward, 0), along);
    CHECK_CLEAN(x, b, square, cube, bent, scaled, root);
    square->autograd->hooks = NULL;
    fbp_host_hook = NULL;
    RELEASE(x, b, square, cube, bent, scaled, root, result, inner.tangent, inner.reverse[0], inner.reverse[1], inner.forward);
}
static void test_hooks(void) {
    test_passes_within_passes(false);
    test_passes_within_passes(true);
}

/* A sweep that ends at its inputs does not even mark what lies behind them. */
static fbp_tensor *behind_input;
static bool marked_behind;
static fbp_status look_behind(void *hooks, fbp_tensor *g, fbp_tensor **replaced) {
    (void)hooks, (void)g, (void)replaced;
    marked_behind = behind_input->flags & (FBP_VISITED | FBP_WANTED);
    return FBP_OK;
}

static void test_ends(void) {
    fbp_tensor *oldest = leaf(1, SHAPE(3)), *p = leaf(1, SHAPE(3)), *q = APPLY(exp, p, NULL), *x = APPLY(sin, q, NULL), *y = APPLY(mul, x, oldest);
    fbp_tensor *root = sum(y), *inputs[2] = {x, oldest}, *results[2] = {0};
    fbp_host_hook = look_behind;
    fbp_autograd_get(y)->hooks = behind_input = q;
    marked_behind = true;
    const fbp_backward_request request = {.root_count = 1, .roots = &root, .input_count = 2, .inputs = inputs, .results = results, .ends_there = true};
    CHECK_OK(fbp_backward(&request));
    CHECK(!marked_behind && at(results[0], 1) == at(oldest, 1), "q is marked");
    CHECK_CLEAN(oldest, p, q, x, y, root);
    y->autograd->hooks = NULL;
    fbp_host_hook = NULL;
    RELEASE(oldest, p, q, x, y, root, results[0], results[1]);
}

int main(void) {
    fbp_kernels_init();
    void (*const tests[])(void) = {
        test_batched_apply, test_nested_levels, test_depth, test_refusals, test_forward, test_forward_failures, test_periods,
        test_periods_of_batches, test_batch_of_cotangents, test_quiet_levels, test_lift, test_edges, test_hooks, test_ends,
    };
    for (int i = 0; i < COUNT(tests); i++) {
        const fbp_memory_stats before = fbp_memory_statistics();
        tests[i]();
        const fbp_memory_stats after = fbp_memory_statistics();
        const int64_t blocks = after.live_blocks - before.live_blocks, bytes = after.live_bytes - before.live_bytes;
        CHECK(!blocks && !bytes, "test %d keeps %lld blocks, %lld bytes", i, (long long)blocks, (long long)bytes);
        CHECK_CLEAN(NULL);
    }
    printf("test_derivatives: %d failures\n", failures);
    return failures != 0;
}
