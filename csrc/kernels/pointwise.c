/* pointwise.c -- the op table read as float32 and float64 vector code: forward kernels and
 * fused cotangent kernels (one pass, no temporaries).
 */
#include "kernels/pointwise.h"

#include <math.h>

#include "kernels/isa.h"
#include "ops/needs.h"

#define NUM(x) R(v_splat)((T)(x))
#define ONE NUM(1)
#define ZERO NUM(0)
#define NEG(x) (-(x))
#define ABS(x) R(m_abs)(x)
#define SIGN(x) R(m_sign)(x)
#define SQUARE(x) R(square)(x)
#define SQRT(x) R(m_sqrt)(x)
#define RSQRT(x) R(m_rsqrt)(x)
#define RECIPROCAL(x) R(m_reciprocal)(x)
#define EXP(x) R(m_exp)(x)
#define EXPM1(x) R(m_expm1)(x)
#define LOG(x) R(m_log)(x)
#define LOG1P(x) R(m_log1p)(x)
#define LOG2(x) R(m_log2)(x)
#define SIN(x) R(m_sin)(x)
#define COS(x) R(m_cos)(x)
#define TAN(x) R(m_tan)(x)
#define ASIN(x) R(m_asin)(x)
#define ACOS(x) R(m_acos)(x)
#define ATAN(x) R(m_atan)(x)
#define SINH(x) R(m_sinh)(x)
#define COSH(x) R(m_cosh)(x)
#define TANH(x) R(m_tanh)(x)
#define SIGMOID(x) R(m_sigmoid)(x)
#define SOFTPLUS(x) R(m_softplus)(x)
#define ERF(x) R(m_erf)(x)
#define GELU(x) R(m_gelu)(x)
#define GELU_TANH(x) R(m_gelu_tanh)(x)
#define FLOOR(x) R(m_floor)(x)
#define CEIL(x) R(m_ceil)(x)
#define ROUND(x) R(m_round)(x)
#define TRUNC(x) R(m_trunc)(x)
#define ADD(x, y) ((x) + (y))
#define SUB(x, y) ((x) - (y))
#define MUL(x, y) ((x) * (y))
#define DIV(x, y) ((x) / (y))
#define POW(x, y) R(m_pow)(x, y)
#define FLOOR_DIVIDE(x, y) R(floor_divide)(x, y)
#define FMOD(x, y) R(m_fmod)(x, y)
#define REMAINDER(x, y) R(m_remainder)(x, y)
#define MIN(x, y) R(m_min)(x, y)
#define MAX(x, y) R(m_max)(x, y)
#define EQ(x, y) ((VI)((x) == (y)))
#define LT(x, y) ((VI)((x) < (y)))
#define LE(x, y) ((VI)((x) <= (y)))
#define GT(x, y) ((VI)((x) > (y)))
#define GE(x, y) ((VI)((x) >= (y)))
#define AND(x, y) ((x) & (y))
#define WHERE(mask, x, y) R(v_select)(mask, x, y)

/* Rows of kind I have no floating kernels. */
#define FORWARD_F(name, arity, text) FORWARD(name, arity, text)
#define FORWARD_N(name, arity, text) FORWARD(name, arity, text)
#define FORWARD_I(name, arity, text)
#define PULL_F(name, input, text) PULL(name, input, text)
#define PULL_N(name, input, text) PULL(name, input, text)
#define PULL_I(name, input, text)
#define POINTWISE1_TEXTS(name, kind, forward, pull_a) FORWARD_##kind(name, 1, forward) PULL_##kind(name, a, pull_a)
#define POINTWISE2_TEXTS(name, kind, forward, pull_a, pull_b) \
    FORWARD_##kind(name, 2, forward) PULL_##kind(name, a, pull_a) PULL_##kind(name, b, pull_b)

#define REAL_HEADER "kernels/real_f32.h"
#include "kernels/pointwise_real.inl"
#undef REAL_HEADER
#define REAL_HEADER "kernels/real_f64.h"
#include "kernels/pointwise_real.inl"
#undef REAL_HEADER

#define ENTRY_F(name, input) ENTRY(name, input)
#define ENTRY_N(name, input) ENTRY(name, input)
#define ENTRY_I(name, input)

const fbp_pointwise_kernels FBP_ISA_SYMBOL(fbp_pointwise_kernels) = {
    .forward = {
#define ENTRY(name, input) [FBP_OP_##name] = {forward_##name##_f32, forward_##name##_f64},
#define POINTWISE1(name, kind, ...) ENTRY_##kind(name, )
#define POINTWISE2(name, kind, ...) ENTRY_##kind(name, )
#include "ops/ops.def"
#undef ENTRY
    },
    .pull = {
#define ENTRY(name, input) {pull_##name##_##input##_f32, pull_##name##_##input##_f64},
#define POINTWISE1(name, kind, ...) [FBP_OP_##name] = {ENTRY_##kind(name, a)},
#define POINTWISE2(name, kind, ...) [FBP_OP_##name] = {ENTRY_##kind(name, a) ENTRY_##kind(name, b)},
#include "ops/ops.def"
#undef ENTRY
    },
};
