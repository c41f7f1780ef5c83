/* gemm_pack.inl -- copies of parts of A and B laid out for the tiles.
 *
 * B: a panel of up to `width` columns (a multiple of LANES), panel[p * width + j], read as contiguous rows.
 * A: a tile of rows is packed as if it were a panel of A's transpose, copy[p * tile_width + i]: one stream for
 *    the core to prefetch, whatever A's strides are.
 * Lanes past a panel's last column hold anything: tiles never read them into C.
 */

/* -- transposition -------------------------------------------------------------------------------------- */

/* A vector of 16-byte pieces, piece q from address from + q * quad. */
FBP_INLINE V R(pieces)(const char *from, int64_t quad) {
#if FBP_VECTOR_BYTES == 64
    /* masked broadcasts: a load each, and no shuffle */
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)from));
    v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128((const void *)(from + quad)));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00, _mm_loadu_si128((const void *)(from + 2 * quad)));
    v = _mm512_mask_broadcast_i32x4(v, 0xf000, _mm_loadu_si128((const void *)(from + 3 * quad)));
    return (V)v;
#else
    typedef int64_t piece __attribute__((vector_size(16)));
    piece q0;
    memcpy(&q0, from, 16);
#if FBP_VECTOR_BYTES == 16
    (void)quad;
    return (V)q0;
#else
    piece q1;
    memcpy(&q1, from + quad, 16);
    return (V)__builtin_shufflevector(q0, q1, 0, 1, 2, 3);
#endif
#endif
}

/* Transpose within the 16-byte pieces of 16 / sizeof(T) vectors: piece q of out[r] = element r of piece q of each. */
FBP_INLINE void R(transpose_pieces)(V *out, const V *in) {
#if REAL_IS_F32
    const fbp_vi64 low01 = (fbp_vi64)__builtin_shufflevector(in[0], in[1], GEMM_LOW32);
    const fbp_vi64 high01 = (fbp_vi64)__builtin_shufflevector(in[0], in[1], GEMM_HIGH32);
    const fbp_vi64 low23 = (fbp_vi64)__builtin_shufflevector(in[2], in[3], GEMM_LOW32);
    const fbp_vi64 high23 = (fbp_vi64)__builtin_shufflevector(in[2], in[3], GEMM_HIGH32);
    out[0] = (V)__builtin_shufflevector(low01, low23, GEMM_LOW64);
    out[1] = (V)__builtin_shufflevector(low01, low23, GEMM_HIGH64);
    out[2] = (V)__builtin_shufflevector(high01, high23, GEMM_LOW64);
    out[3] = (V)__builtin_shufflevector(high01, high23, GEMM_HIGH64);
#else
    out[0] = __builtin_shufflevector(in[0], in[1], GEMM_LOW64);
    out[1] = __builtin_shufflevector(in[0], in[1], GEMM_HIGH64);
#endif
}

/* LANES rows, `step` bytes apart, x 16 bytes of each become 16 / sizeof(T) vectors over the rows: to[p * width + lane] =
 * row[lane][p].  Gathering 16-byte pieces by loads leaves only shuffles within 16 bytes. */
FBP_INLINE void R(transpose_unit)(T *to, int64_t width, const char *from, int64_t step) {
    enum { UNIT = 16 / (int)sizeof(T) };
    V in[UNIT], out[UNIT];
GEMM_UNROLLED
    for (int r = 0; r < UNIT; r++) in[r] = R(pieces)(from + r * step, UNIT * step);
    R(transpose_pieces)(out, in);
GEMM_UNROLLED
    for (int r = 0; r < UNIT; r++) R(v_store)(to + r * width, out[r]);
}

#if FBP_VECTOR_BYTES == 64
/* The same for 32 bytes of each row: half the loads, for eight more shuffles. */
FBP_INLINE void R(transpose_wide_unit)(T *to, int64_t width, const char *from, int64_t step) {
    enum { QUARTER = LANES / 4 };
    V low[QUARTER], high[QUARTER], out[2][QUARTER]; /* vectors of two rows a quarter apart: rows of the low, the high half */
GEMM_UNROLLED
    for (int r = 0; r < QUARTER; r++) {
        const char *row = from + r * step;
        low[r] = (V)_mm512_mask_broadcast_i64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)row)), 0xf0,
                                                _mm256_loadu_si256((const void *)(row + QUARTER * step)));
        row += 2 * QUARTER * step;
        high[r] = (V)_mm512_mask_broadcast_i64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)row)), 0xf0,
                                                 _mm256_loadu_si256((const void *)(row + QUARTER * step)));
    }
    R(transpose_pieces)(out[0], low);
    R(transpose_pieces)(out[1], high);
GEMM_UNROLLED
    for (int r = 0; r < QUARTER; r++) {
        const fbp_vi64 a = (fbp_vi64)out[0][r], b = (fbp_vi64)out[1][r];
        R(v_store)(to + r * width, (V)__builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13));
        R(v_store)(to + (r + QUARTER) * width, (V)__builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15));
    }
}
#endif

/* to[p * width + lane] = from[lane * step + p] for lane < LANES, p < k. */
static void R(transpose_lanes)(T *to, int64_t width, const T *from, int64_t step, int64_t k) {
    enum { UNIT = 16 / (int)sizeof(T) };
    const int64_t bytes = step * (int64_t)sizeof(T);
    int64_t p = 0;
    if (k < UNIT) {
        for (int64_t i = 0; i < LANES; i++)
            for (p = 0; p < k; p++) to[p * width + i] = from[i * step + p];
        return;
    }
#if FBP_VECTOR_BYTES == 64
    for (; p + 2 * UNIT <= k; p += 2 * UNIT) R(transpose_wide_unit)(to + p * width, width, (const char *)(from + p), bytes);
#endif
    for (; p + UNIT <= k; p += UNIT) R(transpose_unit)(to + p * width, width, (const char *)(from + p), bytes);
    /* the rest overlaps the unit before */
    if (k % UNIT) R(transpose_unit)(to + (k - UNIT) * width, width, (const char *)(from + k - UNIT), bytes);
}

/* The same for lane < count < LANES. */
static void R(transpose_part)(T *to, int64_t width, const T *from, int64_t step, int64_t count, int64_t k) {
    T rows[LANES][LANES];
    const int64_t whole = k / LANES * LANES;
    for (int64_t p = 0; p < whole; p += LANES) {
        for (int64_t i = 0; i < count; i++) R(v_store)(rows[i], R(v_load)(from + i * step + p));
        for (int64_t i = count; i < LANES; i++) R(v_store)(rows[i], (V){0});
        R(transpose_lanes)(to + p * width, width, rows[0], LANES, LANES);
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t p = whole; p < k; p++) to[p * width + i] = from[i * step + p];
}

/* Rows of a copied tile of A: GEMM_ROWS rounded up to whole vectors. */
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
        int64_t j = 0;
        for (; j + LANES <= columns; j += LANES) R(transpose_lanes)(panel + j, width, b + j * b_col, b_col, k);
        if (j < columns) R(transpose_part)(panel + j, width, b + j * b_col, b_col, columns - j, k);
    } else {
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < columns; j++) panel[p * width + j] = b[p * b_row + j * b_col];
    }
}

/* -- a tile that transposes its panel as it goes ---------------------------------------------------------- */

#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
/* Fill t->b, a panel of two whole vectors of columns, from B's columns at `from`, b_col apart, each contiguous over k;
 * and compute a tile of `rows` rows.  The out-of-order core runs the transposition beside the multiply-adds:
 * by itself it would cost 5..20% of a small product.  (In float64 there is less to gain, and none was measured.) */
FBP_INLINE void R(tile_transposing)(int rows, const R(tile_call) *t, const T *from, int64_t b_col) {
    enum { WIDTH = 2 * LANES, UNIT = 32 / (int)sizeof(T) };
    V acc[GEMM_ROWS][GEMM_VECTORS];
    R(rows_of_a) a;
    T *panel = (T *)t->b;
    const int64_t bytes = b_col * (int64_t)sizeof(T), k = t->k, whole = k / UNIT * UNIT;
    if (whole < k) {
        R(transpose_lanes)(panel + whole * WIDTH, WIDTH, from + whole, b_col, k - whole);
        R(transpose_lanes)(panel + whole * WIDTH + LANES, WIDTH, from + whole + LANES * b_col, b_col, k - whole);
    }
    R(rows_begin)(rows, &a, t);
    R(tile_clear)(rows, 2, acc);
    for (int64_t p = 0; p < k;) {
        const int64_t end = p < whole ? p + UNIT : k;
        if (p < whole) {
            R(transpose_wide_unit)(panel, WIDTH, (const char *)(from + p), bytes);
            R(transpose_wide_unit)(panel + LANES, WIDTH, (const char *)(from + p + LANES * b_col), bytes);
        }
GEMM_ROLLED
        for (; p < end; p++, panel += WIDTH) {
            const V row[2] = {R(v_load)(panel), R(v_load)(panel + LANES)};
            R(tile_step)(rows, 2, &a, row, acc);
        }
    }
    R(tile_store)(rows, 2, 0, R(lanes_first)(1), t, acc);
}

/* Rows that fill the multiply-add units and leave registers for the transposition: 8..11. */
#define GEMM_TRANSPOSING(M) M(8) M(9) M(10) M(11)
enum { R(transposing_least) = 8, R(transposing_most) = 11 };
#define GEMM_TILE(m) \
    static void R(tile_transposing_##m)(const R(tile_call) * t, const T *from, int64_t b_col) { \
        R(tile_transposing)(m, t, from, b_col);                                                 \
    }
GEMM_TRANSPOSING(GEMM_TILE)
#undef GEMM_TILE

static void (*const R(transposing_tiles)[])(const R(tile_call) *t, const T *from, int64_t b_col) = {
#define GEMM_TILE(m) [m] = R(tile_transposing_##m),
    GEMM_TRANSPOSING(GEMM_TILE)
#undef GEMM_TILE
};
#undef GEMM_TRANSPOSING
#endif
