/* math_lanes.inl -- the handful of lane operations that C's vector types cannot spell (part of math.inl).
 *
 * Each has a form for AVX-512, AVX2, SSE2 and NEON and a form of plain C for the one-lane set.
 * FBP_FUSED is defined where a*b + c with one rounding is an instruction.
 */
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FBP_FUSED 1
#endif

/* LANE_OP(max)(...) is the x86 intrinsic of this width and type; LANE_OP is undefined where there is none. */
#if FBP_VECTOR_BYTES == 64
#define LANE_OP(op) FBP_LANE_OP(_mm512_, op)
#elif FBP_VECTOR_BYTES == 32
#define LANE_OP(op) FBP_LANE_OP(_mm256_, op)
#elif FBP_VECTOR_BYTES == 16 && defined(__SSE2__)
#define LANE_OP(op) FBP_LANE_OP(_mm_, op)
#endif
#if REAL_IS_F32
#define FBP_LANE_OP(prefix, op) prefix##op##_ps
#else
#define FBP_LANE_OP(prefix, op) prefix##op##_pd
#endif

/* Is any lane of a comparison's result set? */
FBP_INLINE int R(m_any)(VI mask) {
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
    return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif FBP_VECTOR_BYTES == 64
    return _mm512_movepi64_mask((__m512i)mask) != 0;
#elif defined(LANE_OP)
    return LANE_OP(movemask)((V)mask) != 0;
#else
    IT any = 0;
    for (int i = 0; i < LANES; i++) any |= mask[i];
    /* Hides where `any` comes from: gcc 12's value ranges take a one-lane mask for 0 or 1, not 0 or -1, in code that
     * a branch on it guards. */
    if (LANES == 1) __asm__("" : "+r"(any));
    return any != 0;
#endif
}

/* Is low <= x <= high in every lane?  False where x is NaN. */
FBP_INLINE int R(m_all_within)(V x, T low, T high) {
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
    __mmask16 above = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(low), _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(above, (__m512)x, _mm512_set1_ps(high), _CMP_LE_OQ) == 0xffff;
#elif FBP_VECTOR_BYTES == 64
    __mmask8 above = _mm512_cmp_pd_mask((__m512d)x, _mm512_set1_pd(low), _CMP_GE_OQ);
    return _mm512_mask_cmp_pd_mask(above, (__m512d)x, _mm512_set1_pd(high), _CMP_LE_OQ) == 0xff;
#else
    return !R(m_any)(~((x >= low) & (x <= high)));
#endif
}

/* `yes` where s is negative, `no` where it is positive; either where it is zero or NaN. */
FBP_INLINE V R(m_select_negative)(V s, V yes, V no) {
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
    return (V)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)s), (__m512)no, (__m512)yes);
#elif FBP_VECTOR_BYTES == 64
    return (V)_mm512_mask_blend_pd(_mm512_movepi64_mask((__m512i)s), (__m512d)no, (__m512d)yes);
#elif FBP_VECTOR_BYTES == 32
    return (V)LANE_OP(blendv)(no, yes, s);
#else
    return R(v_select)(s < 0, yes, no);
#endif
}

#ifdef FBP_FUSED
/* a*b + c with one rounding, for the places where exactness rests on it; elsewhere plain a*b + c lets the
 * compiler contract as it likes. */
FBP_INLINE V R(m_fused)(V a, V b, V c) {
#if defined(LANE_OP)
    return (V)LANE_OP(fmadd)(a, b, c);
#elif LANES > 1 && REAL_IS_F32
    return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif LANES > 1
    return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return (V){(T)(REAL_IS_F32 ? __builtin_fmaf((float)a[0], (float)b[0], (float)c[0])
                               : __builtin_fma((double)a[0], (double)b[0], (double)c[0]))};
#endif
}
#endif

/* x - n*c, with one rounding where fused arithmetic exists. */
FBP_INLINE V R(m_less_product)(V x, V n, T c) {
#ifdef FBP_FUSED
    return R(m_fused)(n, R(v_splat)(-c), x);
#else
    return x - n * c;
#endif
}

/* a < b ? a : b and a > b ? a : b: where either is NaN the second operand, b, comes back. */
FBP_INLINE V R(m_lesser)(V a, V b) {
#if defined(LANE_OP)
    return (V)LANE_OP(min)(a, b);
#else
    return R(v_select)(a < b, a, b);
#endif
}
FBP_INLINE V R(m_greater)(V a, V b) {
#if defined(LANE_OP)
    return (V)LANE_OP(max)(a, b);
#else
    return R(v_select)(a > b, a, b);
#endif
}

FBP_INLINE V R(m_sqrt)(V x) {
#if defined(LANE_OP)
    return (V)LANE_OP(sqrt)(x);
#else
    V y;
    for (int i = 0; i < LANES; i++)
        y[i] = REAL_IS_F32 ? (T)__builtin_sqrtf((float)x[i]) : (T)__builtin_sqrt((double)x[i]);
    return y;
#endif
}

/* 1/x to 2^-14 at least, for positive normal x. */
FBP_INLINE V R(m_inverse_estimate)(V x) {
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
    return (V)_mm512_rcp14_ps((__m512)x);
#else
    return C(1) / x;
#endif
}

FBP_INLINE V R(m_sign_bit)(V x) { return (V)((VU)x & MATH_SIGN); }
FBP_INLINE V R(m_abs)(V x) { return (V)((VU)x & ~MATH_SIGN); }
/* Flip the sign of x in the lanes where s carries a sign bit (s holds nothing else). */
FBP_INLINE V R(m_flip)(V x, V s) { return (V)((VU)x ^ (VU)s); }
/* |x| with the sign of s. */
FBP_INLINE V R(m_copysign)(V x, V s) { return (V)(((VU)x & ~MATH_SIGN) | ((VU)s & MATH_SIGN)); }

/* To the nearest integer, ties to even (torch.round); any size, NaN and -0 kept. */
FBP_INLINE V R(m_round)(V x) {
#if FBP_VECTOR_BYTES == 64
    return (V)LANE_OP(roundscale)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif FBP_VECTOR_BYTES == 32
    return (V)LANE_OP(round)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__) && LANES > 1 && REAL_IS_F32
    return (V)vrndnq_f32((float32x4_t)x);
#elif defined(__aarch64__) && LANES > 1
    return (V)vrndnq_f64((float64x2_t)x);
#else
    /* Adding 2^mantissa to |x| leaves no room for a fraction; larger |x| have none. */
    V a = R(m_abs)(x), shifted = (a + MATH_TWO_TO_MANTISSA) - MATH_TWO_TO_MANTISSA;
    return R(m_copysign)(R(v_select)(a < MATH_TWO_TO_MANTISSA, shifted, a), x);
#endif
}

/* p * 2^n for an integral n that leaves 2^n a normal number. */
FBP_INLINE V R(m_power_of_two)(V n) { return (V)((VU)(n + (MATH_ROUNDER + MATH_BIAS)) << MATH_MANTISSA_BITS); }

/* Exact product: a*b = *high + *low, barring overflow and underflow. */
FBP_INLINE V R(m_two_product)(V a, V b, V *low) {
    V high = a * b;
#ifdef FBP_FUSED
    *low = R(m_fused)(a, b, -high);
#else
    /* Dekker (1971): halves of half the bits, whose products are exact. */
    V a_scaled = a * MATH_SPLITTER, b_scaled = b * MATH_SPLITTER;
    V a_high = a_scaled - (a_scaled - a), b_high = b_scaled - (b_scaled - b);
    V a_low = a - a_high, b_low = b - b_high;
    *low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low;
#endif
    return high;
}

/* Exact sum: a + b = result + *low (Knuth). */
FBP_INLINE V R(m_two_sum)(V a, V b, V *low) {
    V sum = a + b, b_seen = sum - a;
    *low = (a - (sum - b_seen)) + (b - b_seen);
    return sum;
}

/* c[0] + c[1] x + ... + c[n-1] x^(n-1); n is a compile-time constant.  Horner's rule in x^4 over groups of four
 * terms: two more products than Horner's in x, and a third of its chain of waiting. */
FBP_INLINE V R(m_polynomial)(V x, const T *c, int n) {
    V x2 = x * x, x4 = x2 * x2, p = R(v_splat)(0);
    const int groups = (n + 3) / 4;
    FBP_UNROLL
    for (int g = groups - 1; g >= 0; g--) {
        const T *k = c + 4 * g;
        const int terms = g == groups - 1 ? n - 4 * g : 4;
        V group = R(v_splat)(k[0]);
        if (terms == 2) group = x * k[1] + k[0];
        if (terms == 3) group = x2 * k[2] + (x * k[1] + k[0]);
        if (terms == 4) group = x2 * (x * k[3] + k[2]) + (x * k[1] + k[0]);
        p = g == groups - 1 ? group : p * x4 + group;
    }
    return p;
}
#define MATH_POLYNOMIAL(x, table) R(m_polynomial)((x), (table), (int)(sizeof(table) / sizeof(*(table))))

/* A rare case, one lane at a time through the C library (float32 in double): never inlined, so that it
 * costs the common path no registers. */
#define MATH_LANES_1(name, function)                                          \
    static __attribute__((noinline, cold, unused)) V R(name)(V x) {           \
        V y;                                                                  \
        for (int i = 0; i < LANES; i++) y[i] = (T)function((double)x[i]);     \
        return y;                                                             \
    }
#define MATH_LANES_2(name, function)                                                         \
    static __attribute__((noinline, cold, unused)) V R(name)(V a, V b) {                     \
        V y;                                                                                 \
        for (int i = 0; i < LANES; i++) y[i] = (T)function((double)a[i], (double)b[i]);      \
        return y;                                                                            \
    }

/* `y`, with the lanes of `special` taken from `otherwise`, which is evaluated only when there are any.  A lane's
 * result never depends on its neighbours: how work is cut into vectors must not show. */
#define MATH_MEND(y, special, otherwise) \
    (__builtin_expect(R(m_any)(special), 0) ? R(v_select)((special), (otherwise), (y)) : (y))
