/* pointwise_rules.c -- the pull texts of ops.def read as graph-building code, for both modes.
 *
 * vjp: the text with G the cotangent.  jvp: a diagonal Jacobian is its own transpose, so the sum
 * over the inputs of the same text with G the input's tangent.
 */
#include "diff/rules.h"

#define NUM(x) fbp_build_number(g, G, x)
#define ONE NUM(1)
#define ZERO NUM(0)
#define NEG(x) fbp_build1(g, FBP_OP_neg, x)
#define ABS(x) fbp_build1(g, FBP_OP_abs, x)
#define SIGN(x) fbp_build1(g, FBP_OP_sign, x)
#define SQUARE(x) fbp_build1(g, FBP_OP_square, x)
#define RSQRT(x) fbp_build1(g, FBP_OP_rsqrt, x)
#define EXP(x) fbp_build1(g, FBP_OP_exp, x)
#define LOG(x) fbp_build1(g, FBP_OP_log, x)
#define LOG1P(x) fbp_build1(g, FBP_OP_log1p, x)
#define SIN(x) fbp_build1(g, FBP_OP_sin, x)
#define COS(x) fbp_build1(g, FBP_OP_cos, x)
#define SINH(x) fbp_build1(g, FBP_OP_sinh, x)
#define COSH(x) fbp_build1(g, FBP_OP_cosh, x)
#define TANH(x) fbp_build1(g, FBP_OP_tanh, x)
#define SIGMOID(x) fbp_build1(g, FBP_OP_sigmoid, x)
#define SOFTPLUS(x) softplus(g, x)
#define ERF(x) fbp_build1(g, FBP_OP_erf, x)
#define TRUNC(x) fbp_build1(g, FBP_OP_trunc, x)
#define ADD(x, y) fbp_build2(g, FBP_OP_add, x, y)
#define SUB(x, y) fbp_build2(g, FBP_OP_sub, x, y)
#define MUL(x, y) fbp_build2(g, FBP_OP_mul, x, y)
#define DIV(x, y) fbp_build2(g, FBP_OP_div, x, y)
#define POW(x, y) fbp_build2(g, FBP_OP_pow, x, y)
#define FLOOR_DIVIDE(x, y) fbp_build2(g, FBP_OP_floor_divide, x, y)
#define MIN(x, y) fbp_build2(g, FBP_OP_minimum, x, y)
#define MAX(x, y) fbp_build2(g, FBP_OP_maximum, x, y)
#define EQ(x, y) fbp_build2(g, FBP_OP_eq, x, y)
#define LT(x, y) fbp_build2(g, FBP_OP_lt, x, y)
#define LE(x, y) fbp_build2(g, FBP_OP_le, x, y)
#define GT(x, y) fbp_build2(g, FBP_OP_gt, x, y)
#define GE(x, y) fbp_build2(g, FBP_OP_ge, x, y)
#define AND(x, y) fbp_build2(g, FBP_OP_logical_and, x, y)
#define WHERE(mask, x, y) fbp_build3(g, FBP_OP_where, mask, x, y)
#define P0 fbp_build_number(g, G, parameter(node, 0))
#define P1 fbp_build_number(g, G, parameter(node, 1))

/* With the identity from where float64 cannot tell it from log(1 + exp(x)). */
static inline fbp_tensor *softplus(fbp_builder *g, fbp_tensor *x) {
    const fbp_scalar_attribute beta_threshold = {{1.0, 40.0}};
    return fbp_build(g, FBP_OP_softplus, 1, &x, &beta_threshold, sizeof beta_threshold);
}

static inline double parameter(const fbp_tensor *node, int i) {
    return ((const fbp_scalar_attribute *)fbp_attributes(node))->p[i];
}

#define A fbp_input(node, 0)
#define B fbp_input(node, 1)
#define C fbp_input(node, 2)
#define Y ((fbp_tensor *)node)

#define PULL(name, input, text)                                                                       \
    static fbp_tensor *pull_##name##_##input(fbp_builder *g, const fbp_tensor *node, fbp_tensor *G) { \
        (void)g, (void)node;                                                                          \
        return text;                                                                                  \
    }

/* Sum of the contributions of those inputs that have a tangent. */
static fbp_tensor *push(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents, int count,
                        fbp_tensor *(*const *pull)(fbp_builder *, const fbp_tensor *, fbp_tensor *)) {
    fbp_tensor *total = NULL;
    for (int i = 0; i < count; i++) {
        if (!tangents[i]) continue;
        fbp_tensor *part = fbp_build_fit(g, pull[i](g, node, tangents[i]), node->ndim, fbp_shape(node));
        total = total ? fbp_build2(g, FBP_OP_add, total, part) : part;
    }
    return total;
}

#define RULES(name, count, ...)                                                                                       \
    static fbp_tensor *(*const pulls_##name[])(fbp_builder *, const fbp_tensor *, fbp_tensor *) = {__VA_ARGS__};      \
    fbp_tensor *vjp_##name(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {                \
        return pulls_##name[which](g, node, cotangent);                                                               \
    }                                                                                                                 \
    fbp_tensor *jvp_##name(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {                     \
        return push(g, node, tangents, count, pulls_##name);                                                          \
    }

#define POINTWISE1(name, kind, signature, forward, pull_a, lo, hi, doc) \
    PULL(name, a, pull_a) RULES(name, 1, pull_##name##_a)
#define POINTWISE2(name, kind, signature, forward, pull_a, pull_b, lo, hi, doc) \
    PULL(name, a, pull_a) PULL(name, b, pull_b) RULES(name, 2, pull_##name##_a, pull_##name##_b)
#define POINTWISE3(name, kind, signature, forward, pull_a, pull_b, pull_c, lo, hi, doc) \
    PULL(name, a, pull_a) PULL(name, b, pull_b) PULL(name, c, pull_c)                   \
    RULES(name, 3, pull_##name##_a, pull_##name##_b, pull_##name##_c)
#include "ops/ops.def"
