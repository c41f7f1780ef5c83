/* gemm_pack.inl -- copies of parts of A and B laid out for the tiles.
 *
 * B: a panel of up to `width` columns (a multiple of LANES), panel[p * width + j], read as contiguous rows.
 * A: a tile of rows, copied as it lies so that rows do not fall on one another's cache sets:
 *    along K where A's rows are contiguous, else along the rows.
 * Lanes past a panel's last column hold anything: tiles never read them into C.
 */

/* -- transposition -------------------------------------------------------------------------------------- */

/* A vector of 16-byte pieces, piece q of it from row q * (rows apart by 16 / sizeof(T)); see gemm_transpose_unit. */
FBP_INLINE V R(pieces)(const T *const row[LANES], int first, int64_t p) {
    typedef int64_t piece __attribute__((vector_size(16)));
    enum { STEP = 16 / (int)sizeof(T) };
    piece q0;
    memcpy(&q0, row[first] + p, 16);
#if FBP_VECTOR_BYTES == 16
    return (V)q0;
#else
    piece q1;
    memcpy(&q1, row[first + STEP] + p, 16);
#if FBP_VECTOR_BYTES == 32
    return (V)__builtin_shufflevector(q0, q1, 0, 1, 2, 3);
#else
    piece q2, q3;
    memcpy(&q2, row[first + 2 * STEP] + p, 16);
    memcpy(&q3, row[first + 3 * STEP] + p, 16);
    return (V)__builtin_shufflevector(__builtin_shufflevector(q0, q1, 0, 1, 2, 3),
                                      __builtin_shufflevector(q2, q3, 0, 1, 2, 3), 0, 1, 2, 3, 4, 5, 6, 7);
#endif
#endif
}

/* LANES rows x STEP consecutive p (16 bytes) become STEP vectors over the rows, `width` apart: to[p * width + lane] =
 * row[lane][p].  Gathering 16-byte pieces by loads leaves only shuffles within 16 bytes. */
FBP_INLINE void R(transpose_unit)(T *to, int64_t width, const T *const row[LANES], int64_t p) {
#if REAL_IS_F32
    const V r0 = R(pieces)(row, 0, p), r1 = R(pieces)(row, 1, p), r2 = R(pieces)(row, 2, p), r3 = R(pieces)(row, 3, p);
    const fbp_vi64 low01 = (fbp_vi64)__builtin_shufflevector(r0, r1, GEMM_LOW32);
    const fbp_vi64 high01 = (fbp_vi64)__builtin_shufflevector(r0, r1, GEMM_HIGH32);
    const fbp_vi64 low23 = (fbp_vi64)__builtin_shufflevector(r2, r3, GEMM_LOW32);
    const fbp_vi64 high23 = (fbp_vi64)__builtin_shufflevector(r2, r3, GEMM_HIGH32);
    R(v_store)(to, (V)__builtin_shufflevector(low01, low23, GEMM_LOW64));
    R(v_store)(to + width, (V)__builtin_shufflevector(low01, low23, GEMM_HIGH64));
    R(v_store)(to + 2 * width, (V)__builtin_shufflevector(high01, high23, GEMM_LOW64));
    R(v_store)(to + 3 * width, (V)__builtin_shufflevector(high01, high23, GEMM_HIGH64));
#else
    const V r0 = R(pieces)(row, 0, p), r1 = R(pieces)(row, 1, p);
    R(v_store)(to, __builtin_shufflevector(r0, r1, GEMM_LOW64));
    R(v_store)(to + width, __builtin_shufflevector(r0, r1, GEMM_HIGH64));
#endif
}

/* to[p * width + lane] = from[lane * step + p] for lane < count <= LANES, p < k. */
static void R(transpose_lanes)(T *to, int64_t width, const T *from, int64_t step, int64_t count, int64_t k) {
    enum { STEP = 16 / (int)sizeof(T) };
    const T *row[LANES];
    /* missing rows repeat the last one: what they leave in the panel is never used */
    for (int64_t i = 0; i < LANES; i++) row[i] = from + (i < count ? i : count - 1) * step;
    if (k < STEP) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t p = 0; p < k; p++) to[p * width + i] = row[i][p];
        return;
    }
    for (int64_t p = 0; p + STEP <= k; p += STEP) R(transpose_unit)(to + p * width, width, row, p);
    if (k % STEP) R(transpose_unit)(to + (k - STEP) * width, width, row, k - STEP); /* overlaps the one before */
}

/* Columns of a copied tile of A whose rows run fastest: GEMM_ROWS rounded up to whole vectors. */
enum { R(tile_width) = (GEMM_ROWS + LANES - 1) / LANES * LANES };

/* -- panels of B, tiles of A ---------------------------------------------------------------------------- */

/* panel[p * width + j] = b[p * b_row + j * b_col] for p < k, j < columns <= width. */
static void R(pack_b)(T *panel, int64_t width, const T *b, int64_t b_row, int64_t b_col, int64_t columns, int64_t k) {
    if (b_col == 1) {
        const int64_t whole = columns / LANES * LANES, part = columns - whole;
        const R(lanes) mask = R(lanes_first)(part ? part : 1);
        for (int64_t p = 0; p < k; p++, b += b_row, panel += width) {
            for (int64_t j = 0; j < whole; j += LANES) R(v_store)(panel + j, R(v_load)(b + j));
            if (part) R(v_store)(panel + whole, R(load_lanes)(b + whole, mask));
        }
    } else if (b_row == 1) {
        for (int64_t j = 0; j < columns; j += LANES)
            R(transpose_lanes)(panel + j, width, b + j * b_col, b_col, columns - j < LANES ? columns - j : LANES, k);
    } else {
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < columns; j++) panel[p * width + j] = b[p * b_row + j * b_col];
    }
}

/* Copy a tile of A for k terms and say how to read the copy: *to_row, *to_col are its strides.  Rows that are contiguous
 * are copied as they lie; only their distance changes, from what may be a multiple of 4096 bytes (all rows
 * in one set of the L1 cache) to `stride`, which is not. */
static void R(pack_a)(T *to, int64_t stride, const T *a, int64_t a_row, int64_t a_col, int64_t rows, int64_t k,
                      int64_t *to_row, int64_t *to_col) {
    if (a_col != 1) {
        *to_row = 1;
        *to_col = R(tile_width);
        R(pack_b)(to, R(tile_width), a, a_col, a_row, rows, k);
        return;
    }
    *to_row = stride;
    *to_col = 1;
    const int64_t whole = k / LANES * LANES, part = k - whole;
    const R(lanes) mask = R(lanes_first)(part ? part : 1);
    for (int64_t i = 0; i < rows; i++, a += a_row, to += stride) {
        for (int64_t p = 0; p < whole; p += LANES) R(v_store)(to + p, R(v_load)(a + p));
        if (part) R(v_store)(to + whole, R(load_lanes)(a + whole, mask));
    }
}
