/* math.inl -- elementary functions of whole vectors, for the real type in force.
 *
 *     #include "kernels/isa.h"
 *     #include "kernels/real_f32.h"        or real_f64.h, or first one and then the other
 *     #include "kernels/vector.inl"
 *     #include "kernels/math.inl"
 *     ... R(m_exp)(x) ...
 *     #include "kernels/real_end.h"
 *
 * Every function takes and returns vectors, is right for every input (NaN, infinities, zeros' signs, subnormal
 * numbers) and stays within the error bound that csrc/tests/test_math.c states and measures for it.  One text
 * serves all instruction sets; AVX-512 has its own exp and tanh, where lookups in registers pay.  Results may
 * differ in the last place between instruction sets, never between lanes, lengths or thread counts.
 *
 * How to read it: math_lanes.inl (lane operations), math_exp.inl (exp and its family), math_log.inl (log, pow),
 * math_trig.inl (sin ... atan2), math_erf.inl (erf, gelu); this file keeps what rounds, compares and divides.
 * docs/derivations/math-kernels.md derives each approximation.
 */
#ifndef FBP_KERNELS_MATH_COMMON
#define FBP_KERNELS_MATH_COMMON
#include <math.h>
#if defined(__clang__)
#define FBP_UNROLL _Pragma("unroll")
#else
#define FBP_UNROLL _Pragma("GCC unroll 32")
#endif
#endif

/* The format: sign bit, exponent's bias, and 1.5 * 2^mantissa, whose addition rounds to an integer that can
 * then be read off the low bits. */
#if REAL_IS_F32
#define MATH_SIGN ((uint32_t)0x80000000u)
#define MATH_MANTISSA_BITS 23
#define MATH_BIAS 127
#define MATH_TWO_TO_MANTISSA 8388608.0f
#define MATH_ROUNDER 12582912.0f
#define MATH_SPLITTER 4097.0f
#define MATH_SMALLEST_NORMAL 1.17549435e-38f
#define MATH_LARGEST 3.40282347e+38f
#define MATH_TINY 3e-8f /* below it e^x - 1 and log(1 + x) are x, to a quarter of the last place */
#else
#define MATH_SIGN ((uint64_t)0x8000000000000000u)
#define MATH_MANTISSA_BITS 52
#define MATH_BIAS 1023
#define MATH_TWO_TO_MANTISSA 4503599627370496.0
#define MATH_ROUNDER 6755399441055744.0
#define MATH_SPLITTER 134217729.0
#define MATH_SMALLEST_NORMAL 2.2250738585072014e-308
#define MATH_LARGEST 1.7976931348623157e+308
#define MATH_TINY 5e-17
#endif
#define MATH_INFINITY ((T)__builtin_inff())
#define MATH_NAN ((T)__builtin_nanf(""))

#include "math_lanes.inl"

/* -1, 0 or 1; 0 for NaN, as torch.sign. */
FBP_INLINE V R(m_sign)(V x) {
    V one = R(v_splat)(1);
    return (V)((VI)one & (x > 0)) - (V)((VI)one & (x < 0));
}

FBP_INLINE V R(m_floor)(V x) {
#if FBP_VECTOR_BYTES == 64
    return (V)LANE_OP(roundscale)(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif FBP_VECTOR_BYTES == 32
    return (V)LANE_OP(round)(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#else
    V near = R(m_round)(x);
    V down = near - (V)((VI)R(v_splat)(1) & (near > x));
    return R(m_copysign)(down, x); /* keeps -0; for x < 0 the floor is never positive */
#endif
}
FBP_INLINE V R(m_ceil)(V x) { return -R(m_floor)(-x); }
FBP_INLINE V R(m_trunc)(V x) {
#if FBP_VECTOR_BYTES == 64
    return (V)LANE_OP(roundscale)(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
#elif FBP_VECTOR_BYTES == 32
    return (V)LANE_OP(round)(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
#else
    return R(m_copysign)(R(m_floor)(R(m_abs)(x)), x);
#endif
}

/* The smaller, the larger; NaN where either is NaN (torch.minimum, torch.maximum). */
FBP_INLINE V R(m_min)(V a, V b) { return R(v_select)(a != a, a, R(m_lesser)(a, b)); }
FBP_INLINE V R(m_max)(V a, V b) { return R(v_select)(a != a, a, R(m_greater)(a, b)); }

FBP_INLINE V R(m_reciprocal)(V x) { return C(1) / x; }
FBP_INLINE V R(m_rsqrt)(V x) { return C(1) / R(m_sqrt)(x); }

/* x - y*trunc(x/y), exact, with x's sign (C's fmod). */
MATH_LANES_2(m_fmod_lanes, fmod)
FBP_INLINE V R(m_fmod)(V x, V y) {
#ifdef FBP_FUSED
    /* With |x/y| below 2^mantissa the rounded quotient is floor(x/y) or one more, and both the fused remainder
     * and its correction are exact.  Zeros, infinities and NaN fail the test and take the long way. */
    V a = R(m_abs)(x), b = R(m_abs)(y), ratio = a / b;
    if (!R(m_any)(~((ratio < MATH_TWO_TO_MANTISSA) & (b <= MATH_LARGEST) & (b >= MATH_SMALLEST_NORMAL)))) {
        V rest = R(m_fused)(-R(m_trunc)(ratio), b, a);
        rest += (V)((VI)b & (rest < 0));
        return R(m_copysign)(rest, x);
    }
#endif
    return R(m_fmod_lanes)(x, y);
}

/* As Python's %: the remainder takes y's sign (torch.remainder). */
FBP_INLINE V R(m_remainder)(V x, V y) {
    V rest = R(m_fmod)(x, y);
    VI wrong_side = (rest != 0) & ((rest < 0) != (y < 0));
    return rest + (V)((VI)y & wrong_side);
}

/* sqrt(x*x + y*y) without spurious overflow; infinite where either is. */
MATH_LANES_2(m_hypot_lanes, hypot)
FBP_INLINE V R(m_hypot)(V x, V y) {
    V a = R(m_abs)(x), b = R(m_abs)(y), larger = R(m_greater)(a, b);
    VI plain = (larger < C(REAL_IS_F32 ? 1e18 : 1e150)) & (larger > C(REAL_IS_F32 ? 1e-15 : 1e-140)) & (a == a);
    return MATH_MEND(R(m_sqrt)(a * a + b * b), ~plain, R(m_hypot_lanes)(x, y));
}

#include "math_exp.inl"
#include "math_log.inl"
#include "math_trig.inl"
#include "math_erf.inl"

#undef MATH_SIGN
#undef MATH_MANTISSA_BITS
#undef MATH_BIAS
#undef MATH_TWO_TO_MANTISSA
#undef MATH_ROUNDER
#undef MATH_SPLITTER
#undef MATH_SMALLEST_NORMAL
#undef MATH_LARGEST
#undef MATH_TINY
#undef MATH_INFINITY
#undef MATH_NAN
#undef MATH_POLYNOMIAL
#undef MATH_LANES_1
#undef MATH_MEND
#undef MATH_LANES_2
#undef FBP_LANE_OP
#undef LANE_OP
