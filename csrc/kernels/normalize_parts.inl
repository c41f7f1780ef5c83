/* normalize_parts.inl -- the passes that softmax and the losses on logits share, for the real type in force
 * (include after lanes.inl and math.inl).
 *
 * A row is n contiguous elements; four vectors run side by side.  A strip is up to LANES neighbouring columns of
 * [n][stride]: each lane is a row of its own.  Sums of exponentials are taken in two levels, like those of
 * reduce_fold.inl.
 */

enum { R(NORMAL_LEAF) = 32 }; /* additions in a row before a running total takes over */

/* Largest of x[n] in every lane; -inf for n == 0; NaN where there is one. */
FBP_INLINE V R(row_max)(const T *x, int64_t n) {
    const V lowest = R(v_splat)(C(-INFINITY));
    if (n <= LANES) return n > 0 ? R(v_fold_max)(R(v_load_upto)(x, n, lowest)) : lowest;
    V best[4] = {lowest, lowest, lowest, lowest};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) best[k] = R(m_max)(best[k], R(v_load)(x + i + k * LANES));
    for (; i + LANES <= n; i += LANES) best[0] = R(m_max)(best[0], R(v_load)(x + i));
    if (i < n) best[1] = R(m_max)(best[1], R(v_load)(x + n - LANES)); /* overlaps what was seen: no harm to a maximum */
    return R(v_fold_max)(R(m_max)(R(m_max)(best[0], best[1]), R(m_max)(best[2], best[3])));
}

/* Sum of exp(x - shift) over x[n] in every lane; the exponentials go to e[n] when `keep`. */
FBP_INLINE V R(row_exp_sum)(const bool keep, T *e, const T *x, int64_t n, V shift) {
    V total[4] = {{0}};
    int64_t i = 0;
    while (i + 4 * LANES <= n) {
        V leaf[4] = {{0}};
        const int64_t whole = n - 4 * LANES, full = i + R(NORMAL_LEAF) * 4 * LANES - 1;
        for (const int64_t last = whole < full ? whole : full; i <= last; i += 4 * LANES)
            for (int k = 0; k < 4; k++) {
                const V v = R(m_exp)(R(v_load)(x + i + k * LANES) - shift);
                if (keep) R(v_store)(e + i + k * LANES, v);
                leaf[k] += v;
            }
        for (int k = 0; k < 4; k++) total[k] += leaf[k];
    }
    for (; i + LANES <= n; i += LANES) {
        const V v = R(m_exp)(R(v_load)(x + i) - shift);
        if (keep) R(v_store)(e + i, v);
        total[0] += v;
    }
    if (LANES > 1 && i < n) {
        const V v = R(m_exp)(R(v_load_first)(x + i, n - i) - shift);
        if (keep) R(v_store_first)(e + i, v, n - i);
        total[1] += R(v_select)(R(v_first)(n - i), v, (V){0});
    }
    return R(v_fold_sum)((total[0] + total[1]) + (total[2] + total[3]));
}

/* A row of n = 1 .. LANES elements, which stays in one register: sum of exp(x - max) in every lane, the maximum likewise
 * in *largest, and the exponentials in *e (0 in spare lanes). */
FBP_INLINE V R(short_row_exp)(const T *x, int64_t n, V *largest, V *e) {
    const V v = R(v_load_upto)(x, n, R(v_splat)(C(-INFINITY)));
    *largest = R(v_fold_max)(v);
    *e = R(m_exp)(v - *largest);
    if (n < LANES) *e = R(v_select)(R(v_first)(n), *e, (V){0}); /* -inf - -inf is NaN in the spare lanes */
    return R(v_fold_sum)(*e);
}

/* y[n] *= factor. */
FBP_INLINE void R(row_scale)(T *y, int64_t n, V factor) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) R(v_store)(y + i, R(v_load)(y + i) * factor);
    if (LANES > 1 && i < n) R(v_store_first)(y + i, R(v_load_first)(y + i, n - i) * factor, n - i);
}

/* Lane by lane along n rows of a strip of `width` columns (1 .. LANES): the maximum. */
FBP_INLINE V R(strip_max)(const T *x, int64_t n, int64_t stride, int64_t width) {
    V best = R(v_splat)(C(-INFINITY));
    for (int64_t r = 0; r < n; r++) best = R(m_max)(best, R(v_load_upto)(x + r * stride, width, best));
    return best;
}

/* ... and the sum of exp(x - shift); lanes beyond `width` hold nothing of use. */
FBP_INLINE V R(strip_exp_sum)(const bool keep, T *e, const T *x, int64_t n, int64_t stride, int64_t width, V shift) {
    V total = {0};
    for (int64_t r = 0; r < n;) {
        V leaf = {0};
        for (const int64_t end = n - r < R(NORMAL_LEAF) ? n : r + R(NORMAL_LEAF); r < end; r++) {
            const V v = R(m_exp)(R(v_load_upto)(x + r * stride, width, shift) - shift);
            if (keep) R(v_store_upto)(e + r * stride, v, width);
            leaf += v;
        }
        total += leaf;
    }
    return total;
}

FBP_INLINE void R(strip_scale)(T *y, int64_t n, int64_t stride, int64_t width, V factor) {
    for (int64_t r = 0; r < n; r++)
        R(v_store_upto)(y + r * stride, R(v_load_upto)(y + r * stride, width, factor) * factor, width);
}
