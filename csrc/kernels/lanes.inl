/* lanes.inl -- the first n lanes alone, and folds across the lanes of one vector
 * (include after real_f32.h or real_f64.h, vector.inl and math.inl).
 *
 * Nothing here touches memory beyond lane n; n is in 1 .. LANES-1 unless a function says more.
 */

/* Lane numbers 0, 1, 2, ... */
FBP_INLINE VI R(v_iota)(void) {
    static const IT number[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    VI v;
    memcpy(&v, number, sizeof v);
    return v;
}

/* All bits set in lanes 0 .. n-1. */
FBP_INLINE VI R(v_first)(int64_t n) { return R(v_iota)() < (VI){0} + (IT)n; }

/* Lanes 0 .. n-1 from p, the others zero. */
FBP_INLINE V R(v_load_first)(const T *p, int64_t n) {
#if defined(__AVX512VL__) && REAL_IS_F32
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined(__AVX512VL__)
    return (V)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#elif defined(__AVX2__) && REAL_IS_F32
    return (V)_mm256_maskload_ps(p, (__m256i)R(v_first)(n));
#elif defined(__AVX2__)
    return (V)_mm256_maskload_pd(p, (__m256i)R(v_first)(n));
#else
    V v = {0};
    for (int i = 0; i < LANES - 1; i++)
        if (i < n) v[i] = p[i];
    return v;
#endif
}

/* Lanes 0 .. n-1 from p, the others from `fill`. */
FBP_INLINE V R(v_load_filled)(const T *p, int64_t n, V fill) {
    return R(v_select)(R(v_first)(n), R(v_load_first)(p, n), fill);
}

/* Lanes 0 .. n-1 to p; elements behind them are not touched. */
FBP_INLINE void R(v_store_first)(T *p, V v, int64_t n) {
#if defined(__AVX512VL__) && REAL_IS_F32
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined(__AVX512VL__)
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif defined(__AVX2__) && REAL_IS_F32
    _mm256_maskstore_ps(p, (__m256i)R(v_first)(n), (__m256)v);
#elif defined(__AVX2__)
    _mm256_maskstore_pd(p, (__m256i)R(v_first)(n), (__m256d)v);
#else
    for (int i = 0; i < LANES - 1; i++)
        if (i < n) p[i] = v[i];
#endif
}

/* n in 1 .. LANES: the same, whole vectors in one move. */
FBP_INLINE V R(v_load_upto)(const T *p, int64_t n, V fill) {
    return n >= LANES ? R(v_load)(p) : R(v_load_filled)(p, n, fill);
}
FBP_INLINE void R(v_store_upto)(T *p, V v, int64_t n) {
    if (n >= LANES)
        R(v_store)(p, v);
    else
        R(v_store_first)(p, v, n);
}

/* Exchange lanes whose numbers differ by 8, 4, 2, 1: the steps of a fold in which every lane ends with the result,
 * always in the same order. */
#if LANES == 16
#define FOLD_STEPS(v, JOIN)                                                                                        \
    v = JOIN(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));              \
    v = JOIN(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));              \
    v = JOIN(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));              \
    v = JOIN(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))
#elif LANES == 8
#define FOLD_STEPS(v, JOIN)                                                  \
    v = JOIN(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));      \
    v = JOIN(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));      \
    v = JOIN(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6))
#elif LANES == 4
#define FOLD_STEPS(v, JOIN)                                      \
    v = JOIN(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));      \
    v = JOIN(v, __builtin_shufflevector(v, v, 1, 0, 3, 2))
#elif LANES == 2
#define FOLD_STEPS(v, JOIN) v = JOIN(v, __builtin_shufflevector(v, v, 1, 0))
#else
#define FOLD_STEPS(v, JOIN) (void)0
#endif
#define LANE_ADD(a, b) ((a) + (b))
#define LANE_MULTIPLY(a, b) ((a) * (b))

/* Sum, product, maximum and minimum of a vector's lanes, in every lane. */
FBP_INLINE V R(v_fold_sum)(V v) {
    FOLD_STEPS(v, LANE_ADD);
    return v;
}
FBP_INLINE V R(v_fold_product)(V v) {
    FOLD_STEPS(v, LANE_MULTIPLY);
    return v;
}
FBP_INLINE V R(v_fold_max)(V v) {
    FOLD_STEPS(v, R(m_max));
    return v;
}
FBP_INLINE V R(v_fold_min)(V v) {
    FOLD_STEPS(v, R(m_min));
    return v;
}
#undef FOLD_STEPS
#undef LANE_ADD
#undef LANE_MULTIPLY
