/* integer.c -- the op table read over int64, int32, uint8 and bool, and its predicates over every type.
 *
 * Plain loops that the compiler vectorises.  Arithmetic wraps, as in PyTorch and NumPy; division by zero
 * has been refused above.  A bool result of arithmetic is normalised to 0 or 1 by the caller.
 */
#include <math.h>
#include <stdint.h>

#include "kernels/isa.h"
#include "kernels/pointwise.h"

/* One text serves signed and unsigned types: for the latter "x < 0" is never true, on purpose. */
#pragma GCC diagnostic ignored "-Wtype-limits"

#define ADD(x, y) ((T)((UT)(x) + (UT)(y)))
#define SUB(x, y) ((T)((UT)(x) - (UT)(y)))
#define MUL(x, y) ((T)((UT)(x) * (UT)(y)))
#define NEG(x) ((T)(0 - (UT)(x)))
#define ABS(x) ((x) < 0 ? NEG(x) : (x))
#define SIGN(x) ((T)(((x) > 0) - ((x) < 0)))
#define SQUARE(x) MUL(x, x)
#define FLOOR(x) (x)
#define CEIL(x) (x)
#define ROUND(x) (x)
#define TRUNC(x) (x)
#define MIN(x, y) ((x) < (y) ? (x) : (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))
#define ZERO ((T)0)
#define POW(x, y) IR(power)(x, y)
#define FLOOR_DIVIDE(x, y) IR(floor_divide)(x, y)
#define FMOD(x, y) IR(modulo)(x, y)
#define REMAINDER(x, y) IR(remainder)(x, y)
#define BITNOT(x) (INVERT(x))
#define BITAND(x, y) ((T)((x) & (y)))
#define BITOR(x, y) ((T)((x) | (y)))
#define BITXOR(x, y) ((T)((x) ^ (y)))

#define FORWARD_F(name, arity, text)
#define FORWARD_N(name, arity, text) FORWARD(name, arity, text)
#define FORWARD_I(name, arity, text) FORWARD(name, arity, text)
#define POINTWISE1_TEXT(name, kind, forward) FORWARD_##kind(name, 1, forward)
#define POINTWISE2_TEXT(name, kind, forward) FORWARD_##kind(name, 2, forward)

#define T uint8_t
#define UT uint8_t
#define T_MIN 0
#define T_MAX UINT8_MAX
#define INVERT(x) ((T)((x) == 0))
#define IR(name) name##_bool
#include "kernels/integer_type.inl"
#define T uint8_t
#define UT uint8_t
#define T_MIN 0
#define T_MAX UINT8_MAX
#define INVERT(x) ((T)~(x))
#define IR(name) name##_u8
#include "kernels/integer_type.inl"
#define T int32_t
#define UT uint32_t
#define T_MIN INT32_MIN
#define T_MAX INT32_MAX
#define INVERT(x) (~(x))
#define IR(name) name##_i32
#include "kernels/integer_type.inl"
#define T int64_t
#define UT uint64_t
#define T_MIN INT64_MIN
#define T_MAX INT64_MAX
#define INVERT(x) (~(x))
#define IR(name) name##_i64
#include "kernels/integer_type.inl"

/* ---- predicates: every type, one byte out; magnitudes and bounds are compared as doubles ---------------------------- */

#undef ABS
#undef ZERO
#define ABS(x) (fabs((double)(x)))
#define NUM(x) ((double)(x))
#define ZERO 0
#define EQ(x, y) ((x) == (y))
#define NE(x, y) ((x) != (y))
#define LT(x, y) ((x) < (y))
#define LE(x, y) ((x) <= (y))
#define GT(x, y) ((x) > (y))
#define GE(x, y) ((x) >= (y))
#define AND(x, y) ((x) & (y))
#define OR(x, y) ((x) | (y))
#define XOR(x, y) ((x) ^ (y))

#define PREDICATE_LOOP(name, suffix, type, text)                                                                         \
    static void predicate_##name##_##suffix(int64_t n, void *out, const void *in_a, const void *in_b, const double *p) { \
        uint8_t *y = out;                                                                                                \
        const type *a = in_a, *b = in_b;                                                                                 \
        (void)p, (void)b;                                                                                                \
        for (int64_t i = 0; i < n; i++) y[i] = (uint8_t)(text);                                                          \
    }
#define PREDICATE_LOOPS(name, text)                                                                              \
    PREDICATE_LOOP(name, bool, uint8_t, text) PREDICATE_LOOP(name, u8, uint8_t, text)                            \
    PREDICATE_LOOP(name, i32, int32_t, text) PREDICATE_LOOP(name, i64, int64_t, text)                            \
    PREDICATE_LOOP(name, f32, float, text) PREDICATE_LOOP(name, f64, double, text)
#define A (a[i])
#define B (b[i])
#define PREDICATE1(name, signature, forward, doc) PREDICATE_LOOPS(name, forward)
#define PREDICATE2(name, signature, forward, doc) PREDICATE_LOOPS(name, forward)
#include "ops/ops.def"
#undef A
#undef B

/* ---- selection, by element size --------------------------------------------------------------------------------------- */

#define WHERE_LOOP(suffix, type)                                                                                        \
    static void where_##suffix(int64_t n, void *out, const uint8_t *condition, const void *in_a, const void *in_b) {    \
        type *y = out;                                                                                                  \
        const type *a = in_a, *b = in_b;                                                                                \
        for (int64_t i = 0; i < n; i++) y[i] = condition[i] ? a[i] : b[i];                                              \
    }
WHERE_LOOP(1, uint8_t)
WHERE_LOOP(4, uint32_t)
WHERE_LOOP(8, uint64_t)

#define ROW(name) [FBP_OP_##name] = {forward_##name##_bool, forward_##name##_u8, forward_##name##_i32, forward_##name##_i64},
#define ROW_F(name)
#define ROW_N(name) ROW(name)
#define ROW_I(name) ROW(name)
#define PREDICATE_ROW(name)                                                                                    \
    [FBP_OP_##name] = {predicate_##name##_bool, predicate_##name##_u8,  predicate_##name##_i32,                \
                       predicate_##name##_i64,  predicate_##name##_f32, predicate_##name##_f64},

const fbp_integer_kernels FBP_ISA_SYMBOL(fbp_integer_kernels) = {
    .forward = {
#define POINTWISE1(name, kind, ...) ROW_##kind(name)
#define POINTWISE2(name, kind, ...) ROW_##kind(name)
#define PREDICATE1(name, ...) PREDICATE_ROW(name)
#define PREDICATE2(name, ...) PREDICATE_ROW(name)
#include "ops/ops.def"
    },
    .where = {where_1, where_4, where_8},
};
