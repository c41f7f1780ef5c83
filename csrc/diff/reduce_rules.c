/* reduce_rules.c -- derivatives of reductions, running sums and softmax.
 *
 * Every result of a reduction depends on its own fibre of the input alone.  So the Jacobian's rows do not overlap: pulling
 * back a cotangent of ones gives all of them at once, and the push-forward of a tangent is
 * the sum, over each fibre, of the tangent times that pull.  docs/derivations/reductions.md has the mathematics.
 */
#include <math.h>
#include <string.h>

#include "diff/rules.h"

#define X fbp_input(node, 0)
#define Y ((fbp_tensor *)node)
#define NUM(x) fbp_build_number(g, X, x)
#define NEG(x) fbp_build1(g, FBP_OP_neg, x)
#define ABS(x) fbp_build1(g, FBP_OP_abs, x)
#define SIGN(x) fbp_build1(g, FBP_OP_sign, x)
#define EXP(x) fbp_build1(g, FBP_OP_exp, x)
#define ADD(x, y) fbp_build2(g, FBP_OP_add, x, y)
#define SUB(x, y) fbp_build2(g, FBP_OP_sub, x, y)
#define MUL(x, y) fbp_build2(g, FBP_OP_mul, x, y)
#define DIV(x, y) fbp_build2(g, FBP_OP_div, x, y)
#define POW(x, y) fbp_build2(g, FBP_OP_pow, x, y)
#define EQ(x, y) fbp_build2(g, FBP_OP_eq, x, y)
#define WHERE(mask, x, y) fbp_build3(g, FBP_OP_where, mask, x, y)
#define REDUCE ((const fbp_reduce_attribute *)fbp_attributes(node))
#define AXIS ((const fbp_dim_attribute *)fbp_attributes(node))

#define PULL(name) fbp_tensor *vjp_##name(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *dy)
#define PUSH(name) fbp_tensor *jvp_##name(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents)
#define TRANSPOSE(name) fbp_tensor *transpose_##name(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *dy)

/* A reduction's result (or cotangent) in a shape that broadcasts against x. */
static fbp_tensor *unreduce(fbp_builder *g, const fbp_tensor *x, const fbp_tensor *node, fbp_tensor *y) {
    const uint32_t dims = REDUCE->dims;
    if ((dims & (dims + 1)) == 0) return y; /* leading axes: what is left broadcasts as it is */
    return fbp_build_unreduce(g, y, x->ndim, fbp_shape(x), REDUCE);
}

static fbp_tensor *with_attributes(fbp_builder *g, fbp_op op, int count, fbp_tensor *const *inputs, const fbp_tensor *node) {
    for (int i = 0; i < count; i++)
        if (!inputs[i]) return NULL;
    return fbp_build(g, op, count, inputs, fbp_attributes(node), node->attribute_bytes);
}

static fbp_tensor *ones_like(fbp_builder *g, const fbp_tensor *x) {
    return fbp_build_full(g, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x), 1.0);
}

/* A derivative that is zero everywhere is said so where a result may depend on nothing else. */
static fbp_tensor *zeros_like(fbp_builder *g, const fbp_tensor *x) {
    return fbp_build_full(g, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x), 0.0);
}

/* Elements in one fibre of x. */
static double fibre_size(const fbp_tensor *x, const fbp_reduce_attribute *reduce) {
    double n = 1;
    for (int i = 0; i < x->ndim; i++)
        if (reduce->dims >> i & 1) n *= (double)fbp_shape(x)[i];
    return n;
}

/* Sum over each fibre, in the shape of the reduction's result. */
static fbp_tensor *sum_fibres(fbp_builder *g, fbp_tensor *x, const fbp_reduce_attribute *reduce) {
    return fbp_build_sum(g, x, x ? reduce->dims & ((1u << x->ndim) - 1u) : 0, reduce->keepdim);
}

/* The push-forward of a reduction from its pull-back; see the head of this file. */
static fbp_tensor *push_reduction(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    if (!tangents[0]) return NULL;
    fbp_tensor *ones = ones_like(g, node);
    fbp_tensor *rows = ones ? fbp_ops[node->op].vjp(g, node, 0, ones) : NULL;
    return sum_fibres(g, MUL(tangents[0], rows), REDUCE);
}
#define PUSH_FROM_PULL(name) \
    PUSH(name) { return push_reduction(g, node, tangents); }

/* ---- linear ones ------------------------------------------------------------------------------------------------- */

/* The fit that every rule's result gets repeats it along the reduced axes. */
TRANSPOSE(sum) {
    (void)which;
    return unreduce(g, X, node, dy);
}

TRANSPOSE(mean) {
    (void)which;
    return unreduce(g, X, node, fbp_build_scale(g, dy, 1.0 / fibre_size(X, REDUCE)));
}

/* Element i enters all sums from i on: the transpose sums from the other end. */
TRANSPOSE(cumsum) {
    const fbp_dim_attribute reversed = {AXIS->dim, !AXIS->flag};
    (void)which;
    return fbp_build(g, FBP_OP_cumsum, 1, &dy, &reversed, sizeof reversed);
}

/* ---- product ----------------------------------------------------------------------------------------------------- */

PULL(prod) {
    (void)which;
    return with_attributes(g, FBP_OP_prod_grad, 2, (fbp_tensor *[]){dy, X}, node);
}
PUSH_FROM_PULL(prod)

/* Axes of x in an order with the reduced ones last; `inverse` undoes it. */
static fbp_permute_attribute fibres_last(const fbp_tensor *x, uint32_t dims, fbp_permute_attribute *inverse) {
    fbp_permute_attribute order = {.ndim = x->ndim};
    int at = 0;
    inverse->ndim = x->ndim;
    inverse->padding = 0;
    for (uint32_t pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->ndim; i++)
            if ((dims >> i & 1u) == pass) {
                inverse->axes[i] = (uint8_t)at;
                order.axes[at++] = (uint8_t)i;
            }
    return order;
}

/* mask[i][k] = (i == k). */
static fbp_tensor *diagonal_mask(fbp_builder *g, int64_t n) {
    const fbp_source_attribute count = {.p = {0.0, 1.0}, .integer = {0, 1}, .dtype = FBP_FLOAT64, .ndim = 1, .shape = {n}};
    fbp_tensor *row = fbp_build(g, FBP_OP_arange, 0, NULL, &count, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 1));
    return EQ(fbp_build_reshape(g, row, 2, (const int64_t[]){n, 1}), row);
}

/* sum over i of c[i] * dy * (product of all x but i and k), for each k: symmetric in i and k, so both the pull and the push
 * of prod_grad in x.  Row i of a matrix holds x with element i replaced by 1; the products of
 * its elements but one are prod_grad again, so that every further derivative exists too. */
static fbp_tensor *product_curvature(fbp_builder *g, const fbp_tensor *node, fbp_tensor *c) {
    fbp_tensor *dy = fbp_input(node, 0), *x = fbp_input(node, 1);
    fbp_permute_attribute inverse, order = fibres_last(x, REDUCE->dims, &inverse);
    const int64_t n = (int64_t)fibre_size(x, REDUCE), kept = n ? x->numel / n : 0;
    const fbp_reduce_attribute last = {.dims = 1u << 2, .keepdim = 1}, middle = {.dims = 1u << 1};
    const int64_t rows[3] = {kept, 1, n}, columns[3] = {kept, n, 1}, square[3] = {kept, n, n};
    int64_t moved[FBP_MAX_NDIM];
    for (int i = 0; i < x->ndim; i++) moved[i] = fbp_shape(x)[order.axes[i]];
    if (!c || n == 0) return c;
    fbp_tensor *flat_x = fbp_build_reshape(g, fbp_build(g, FBP_OP_permute, 1, &x, &order, sizeof order), 3, rows);
    fbp_tensor *flat_c = fbp_build_reshape(g, fbp_build(g, FBP_OP_permute, 1, &c, &order, sizeof order), 3, columns);
    fbp_tensor *weight = MUL(flat_c, fbp_build_reshape(g, dy, 3, (const int64_t[]){kept, 1, 1}));
    fbp_tensor *diagonal = diagonal_mask(g, n);
    fbp_tensor *inputs[2] = {weight, fbp_build_expand(g, WHERE(diagonal, NUM(1), flat_x), 3, square)};
    if (!inputs[0] || !inputs[1]) return NULL;
    fbp_tensor *others = fbp_build(g, FBP_OP_prod_grad, 2, inputs, &last, sizeof last);
    fbp_tensor *result = sum_fibres(g, WHERE(diagonal, NUM(0), others), &middle);
    result = fbp_build_reshape(g, result, x->ndim, moved);
    return result ? fbp_build(g, FBP_OP_permute, 1, &result, &inverse, sizeof inverse) : NULL;
}

PULL(prod_grad) {
    fbp_tensor *x = fbp_input(node, 1);
    if (which == 1) return product_curvature(g, node, dy);
    fbp_tensor *ones = ones_like(g, fbp_input(node, 0));
    fbp_tensor *rows = with_attributes(g, FBP_OP_prod_grad, 2, (fbp_tensor *[]){ones, x}, node);
    return sum_fibres(g, MUL(dy, rows), REDUCE);
}
PUSH(prod_grad) {
    fbp_tensor *total = tangents[1] ? product_curvature(g, node, tangents[1]) : NULL;
    if (!tangents[0]) return total;
    fbp_tensor *part = with_attributes(g, FBP_OP_prod_grad, 2, (fbp_tensor *[]){tangents[0], fbp_input(node, 1)}, node);
    return total ? ADD(total, part) : part;
}

/* ---- extremes ---------------------------------------------------------------------------------------------------- */

PULL(amax) {
    (void)which;
    return with_attributes(g, FBP_OP_extreme_grad, 3, (fbp_tensor *[]){dy, Y, X}, node);
}
PULL(amin) { return vjp_amax(g, node, which, dy); }
PUSH_FROM_PULL(amax)
PUSH_FROM_PULL(amin)

/* Linear in the cotangent; where the extreme stands does not change under small changes: no derivative there. */
PULL(extreme_grad) {
    if (which == 1) return NULL;
    if (which == 2) return zeros_like(g, fbp_input(node, 2));
    fbp_tensor *ones = ones_like(g, fbp_input(node, 0));
    fbp_tensor *shares = with_attributes(g, FBP_OP_extreme_grad, 3, (fbp_tensor *[]){ones, fbp_input(node, 1), fbp_input(node, 2)}, node);
    return sum_fibres(g, MUL(dy, shares), REDUCE);
}
PUSH(extreme_grad) {
    if (!tangents[0]) return NULL;
    return with_attributes(g, FBP_OP_extreme_grad, 3, (fbp_tensor *[]){tangents[0], fbp_input(node, 1), fbp_input(node, 2)}, node);
}

/* ---- moments, norms ---------------------------------------------------------------------------------------------- */

/* 2 / (n - correction) * (x - mean) * dy; the deviations sum to zero, so the mean's own part vanishes. */
static fbp_tensor *variance_pull(fbp_builder *g, const fbp_tensor *node, fbp_tensor *dy) {
    const fbp_reduce_attribute keep = {.dims = REDUCE->dims, .keepdim = 1};
    fbp_tensor *x = X, *mean = fbp_build(g, FBP_OP_mean, 1, &x, &keep, sizeof keep);
    double freedom = fibre_size(x, REDUCE) - REDUCE->p;
    return MUL(SUB(x, mean), unreduce(g, x, node, fbp_build_scale(g, dy, 2.0 / (freedom > 0 ? freedom : 0.0))));
}

PULL(var) {
    (void)which;
    return variance_pull(g, node, dy);
}
PUSH_FROM_PULL(var)

/* a / b, and 0 where b is 0, to every order: no 0/0 arises on the way. */
static fbp_tensor *divide_or_zero(fbp_builder *g, const fbp_tensor *node, fbp_tensor *a, fbp_tensor *b) {
    fbp_tensor *is_zero = EQ(b, NUM(0));
    return WHERE(is_zero, NUM(0), DIV(a, WHERE(is_zero, NUM(1), b)));
}

PULL(std) {
    (void)which;
    return variance_pull(g, node, fbp_build_scale(g, divide_or_zero(g, node, dy, Y), 0.5));
}
PUSH_FROM_PULL(std)

/* d|x|_p/dx = sign(x) (|x| / |x|_p)**(p - 1); 0 where x is 0. */
static fbp_tensor *power_pull(fbp_builder *g, const fbp_tensor *node, fbp_tensor *dy, double p) {
    fbp_tensor *y = unreduce(g, X, node, Y), *size = ABS(X);
    fbp_tensor *safe_y = WHERE(EQ(y, NUM(0)), NUM(1), y), *safe_x = WHERE(EQ(size, NUM(0)), NUM(1), size);
    return MUL(MUL(SIGN(X), POW(DIV(safe_x, safe_y), NUM(p - 1.0))), unreduce(g, X, node, dy));
}

PULL(norm) {
    const double p = REDUCE->p;
    (void)which;
    if (p == 0) return zeros_like(g, X);
    if (p == 2) return MUL(X, unreduce(g, X, node, divide_or_zero(g, node, dy, Y)));
    if (p == 1) return MUL(SIGN(X), unreduce(g, X, node, dy));
    if (!isinf(p)) return power_pull(g, node, dy, p);
    return MUL(SIGN(X), with_attributes(g, FBP_OP_extreme_grad, 3, (fbp_tensor *[]){dy, Y, ABS(X)}, node));
}
PUSH_FROM_PULL(norm)

/* ---- exponential families ---------------------------------------------------------------------------------------- */

PULL(logsumexp) {
    (void)which;
    return MUL(unreduce(g, X, node, dy), EXP(SUB(X, unreduce(g, X, node, Y))));
}
PUSH_FROM_PULL(logsumexp)

/* Sum along the attribute's axis, kept; a number has none. */
static fbp_tensor *sum_axis(fbp_builder *g, const fbp_tensor *node, fbp_tensor *x) {
    return fbp_build_sum(g, x, node->ndim ? 1u << AXIS->dim : 0, true);
}

static fbp_tensor *add_to(fbp_builder *g, fbp_tensor *total, fbp_tensor *part) { return total ? ADD(total, part) : part; }

/* The Jacobian diag(y) - y y' is its own transpose. */
PULL(softmax) {
    (void)which;
    return with_attributes(g, FBP_OP_softmax_grad, 2, (fbp_tensor *[]){dy, Y}, node);
}
PUSH(softmax) {
    return tangents[0] ? with_attributes(g, FBP_OP_softmax_grad, 2, (fbp_tensor *[]){tangents[0], Y}, node) : NULL;
}

PULL(log_softmax) {
    (void)which;
    return with_attributes(g, FBP_OP_log_softmax_grad, 2, (fbp_tensor *[]){dy, Y}, node);
}
PUSH(log_softmax) {
    if (!tangents[0]) return NULL;
    return SUB(tangents[0], sum_axis(g, node, MUL(EXP(Y), tangents[0])));
}

/* f(a, y) = y (a - sum a y). */
PULL(softmax_grad) {
    fbp_tensor *a = fbp_input(node, 0), *y = fbp_input(node, 1);
    if (which == 0) return with_attributes(g, FBP_OP_softmax_grad, 2, (fbp_tensor *[]){dy, y}, node);
    return SUB(MUL(dy, SUB(a, sum_axis(g, node, MUL(a, y)))), MUL(a, sum_axis(g, node, MUL(dy, y))));
}
PUSH(softmax_grad) {
    fbp_tensor *a = fbp_input(node, 0), *y = fbp_input(node, 1), *dy = tangents[1], *total = NULL;
    if (dy) total = SUB(MUL(dy, SUB(a, sum_axis(g, node, MUL(a, y)))), MUL(y, sum_axis(g, node, MUL(a, dy))));
    if (!tangents[0]) return total;
    return add_to(g, total, with_attributes(g, FBP_OP_softmax_grad, 2, (fbp_tensor *[]){tangents[0], y}, node));
}

/* f(a, y) = a - exp(y) sum a. */
PULL(log_softmax_grad) {
    fbp_tensor *a = fbp_input(node, 0), *p = EXP(fbp_input(node, 1));
    if (which == 0) return SUB(dy, sum_axis(g, node, MUL(p, dy)));
    return NEG(MUL(MUL(dy, p), sum_axis(g, node, a)));
}
PUSH(log_softmax_grad) {
    fbp_tensor *a = fbp_input(node, 0), *y = fbp_input(node, 1), *total = NULL;
    if (tangents[1]) total = NEG(MUL(MUL(tangents[1], EXP(y)), sum_axis(g, node, a)));
    if (!tangents[0]) return total;
    return add_to(g, total, with_attributes(g, FBP_OP_log_softmax_grad, 2, (fbp_tensor *[]){tangents[0], y}, node));
}
