/* reduce_real.inl -- the table's members for floats, each a fold (include after reduce_fold.inl). */

#define FOLD_MEMBER(name, kind)                                                               \
    static void R(name)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {    \
        R(fold)(kind, y, x, outer, n, inner, NULL, 0);                                        \
    }
FOLD_MEMBER(sum, FOLD_SUM)
FOLD_MEMBER(product, FOLD_PRODUCT)
FOLD_MEMBER(max, FOLD_MAX)
FOLD_MEMBER(min, FOLD_MIN)
FOLD_MEMBER(sum_squares, FOLD_SQUARES)
FOLD_MEMBER(sum_abs, FOLD_ABS)
FOLD_MEMBER(max_abs, FOLD_MAX_ABS)
FOLD_MEMBER(min_abs, FOLD_MIN_ABS)
#undef FOLD_MEMBER

static void R(sum_power)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner, double power) {
    R(fold)(FOLD_POWER, y, x, outer, n, inner, NULL, power);
}

static void R(mean)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {
    T *const mean = y;
    R(fold)(FOLD_SUM, mean, x, outer, n, inner, NULL, 0);
    for (int64_t i = 0; i < outer * inner; i++) mean[i] /= (T)n;
}

/* The second pass takes differences from the mean, so that a large mean does not cancel the digits of the spread. */
static void R(variance)(void *variance, void *mean, const void *x, int64_t outer, int64_t n, int64_t inner,
                        double correction) {
    T *const v = variance, *const m = mean;
    const int64_t count = outer * inner;
    const double freedom = (double)n > correction ? (double)n - correction : 0.0;
    R(mean)(m, x, outer, n, inner);
    R(fold)(FOLD_DEVIATION, v, x, outer, n, inner, m, 0);
    for (int64_t i = 0; i < count; i++) v[i] /= (T)freedom;
}
