/* gemm_tile.inl -- the microkernels: a tile of C held in registers while K runs.
 *
 * A tile is `rows` x `vectors` accumulators.  For each p it loads `vectors` vectors of B's row and, for each row,
 * broadcasts one element of A.  A is read in place through both strides, so that the plain and the
 * transposed form are one text; B's rows must be contiguous (gemm_pack.inl sees to that).
 * Shapes: 28 accumulators where there are 32 vector registers, 12 where there are 16;
 * short tiles are wide, so that enough independent sums hide the latency of multiply-add.
 */

/* What a tile is given; filled once per block, then stepped by the loops of gemm_blocks.inl. */
typedef struct R(tile_call) {
    const T *a;              /* A[first row, first p] */
    int64_t a_row, a_col;
    const T *b;              /* B[first p, first column], contiguous along columns */
    int64_t b_row;
    int64_t k;               /* terms to sum, > 0 */
    T *c;                    /* C[first row, first column] */
    int64_t c_row;
    int64_t part;            /* valid lanes of the last vector, 1..LANES (part tiles only) */
    T alpha, beta;
    const T *bias;           /* NULL or bias[first row, first column] */
    int64_t bias_row, bias_col; /* bias_col is 0 or 1 */
    const char *const *fetch;   /* fetching tiles: places whose next 128 bytes are to be brought to L2 meanwhile, */
    const char *const *fetch_end; /* up to here */
} R(tile_call);

/* -- the last vector of a row, of which only `count` lanes exist ------------------------------------------ */

#if defined(__AVX512F__) && REAL_IS_F32
typedef __mmask16 R(lanes);
FBP_INLINE R(lanes) R(lanes_first)(int64_t count) { return (__mmask16)((1u << count) - 1u); }
FBP_INLINE V R(load_lanes)(const T *p, R(lanes) mask) { return (V)_mm512_maskz_loadu_ps(mask, p); }
FBP_INLINE void R(store_lanes)(T *p, V v, R(lanes) mask) { _mm512_mask_storeu_ps(p, mask, (__m512)v); }
#elif defined(__AVX512F__)
typedef __mmask8 R(lanes);
FBP_INLINE R(lanes) R(lanes_first)(int64_t count) { return (__mmask8)((1u << count) - 1u); }
FBP_INLINE V R(load_lanes)(const T *p, R(lanes) mask) { return (V)_mm512_maskz_loadu_pd(mask, p); }
FBP_INLINE void R(store_lanes)(T *p, V v, R(lanes) mask) { _mm512_mask_storeu_pd(p, mask, (__m512d)v); }
#elif defined(__AVX2__) && REAL_IS_F32
typedef VI R(lanes);
FBP_INLINE R(lanes) R(lanes_first)(int64_t count) { return (VI){0, 1, 2, 3, 4, 5, 6, 7} < (IT)count; }
FBP_INLINE V R(load_lanes)(const T *p, R(lanes) mask) { return (V)_mm256_maskload_ps(p, (__m256i)mask); }
FBP_INLINE void R(store_lanes)(T *p, V v, R(lanes) mask) { _mm256_maskstore_ps(p, (__m256i)mask, (__m256)v); }
#elif defined(__AVX2__)
typedef VI R(lanes);
FBP_INLINE R(lanes) R(lanes_first)(int64_t count) { return (VI){0, 1, 2, 3} < (IT)count; }
FBP_INLINE V R(load_lanes)(const T *p, R(lanes) mask) { return (V)_mm256_maskload_pd(p, (__m256i)mask); }
FBP_INLINE void R(store_lanes)(T *p, V v, R(lanes) mask) { _mm256_maskstore_pd(p, (__m256i)mask, (__m256d)v); }
#else /* four lanes at most: at most three scalar moves */
typedef int64_t R(lanes);
FBP_INLINE R(lanes) R(lanes_first)(int64_t count) { return count; }
FBP_INLINE V R(load_lanes)(const T *p, R(lanes) count) {
    V v = {p[0]};
    if (LANES > 1 && count > 1) v[1 % LANES] = p[1];
    if (LANES > 2 && count > 2) v[2 % LANES] = p[2];
    if (LANES > 3 && count > 3) v[3 % LANES] = p[3];
    return v;
}
FBP_INLINE void R(store_lanes)(T *p, V v, R(lanes) count) {
    p[0] = v[0];
    if (LANES > 1 && count > 1) p[1] = v[1 % LANES];
    if (LANES > 2 && count > 2) p[2] = v[2 % LANES];
    if (LANES > 3 && count > 3) p[3] = v[3 % LANES];
}
#endif

/* Vector j of `vectors`; the last is partial in a part tile. */
FBP_INLINE V R(tile_load)(const T *p, int j, int vectors, int part, R(lanes) mask) {
    return part && j == vectors - 1 ? R(load_lanes)(p + j * LANES, mask) : R(v_load)(p + j * LANES);
}

/* Where a tile reads A.  Rows are reached from every third one by +0, +1, +2 strides: x86 addresses have those for
 * free, so a tile of 14 rows steps five pointers and not fourteen.  Strides are in bytes. */
typedef struct R(rows_of_a) {
    const char *at[(GEMM_ROWS + 2) / 3];
    int64_t row, col;
} R(rows_of_a);

FBP_INLINE void R(rows_begin)(int rows, R(rows_of_a) *a, const R(tile_call) *t) {
    a->row = t->a_row * (int64_t)sizeof(T);
    a->col = t->a_col * (int64_t)sizeof(T);
    __asm__("" : "+r"(a->col)); /* opaque, lest the compiler write a second loop for contiguous rows, no faster */
GEMM_UNROLLED
    for (int i = 0; i < rows; i += 3) a->at[i / 3] = (const char *)t->a + i * a->row;
}

/* acc += the outer product of A's next column and a row of B; step A. */
FBP_INLINE void R(tile_step)(int rows, int vectors, R(rows_of_a) *a, const V *row_of_b, V acc[GEMM_ROWS][GEMM_VECTORS]) {
GEMM_UNROLLED
    for (int i = 0; i < rows; i++) {
        const T x = *(const T *)(a->at[i / 3] + (i % 3) * a->row);
GEMM_UNROLLED
        for (int j = 0; j < vectors; j++) acc[i][j] += x * row_of_b[j];
    }
GEMM_UNROLLED
    for (int i = 0; i < rows; i += 3) a->at[i / 3] += a->col;
}

FBP_INLINE void R(tile_clear)(int rows, int vectors, V acc[GEMM_ROWS][GEMM_VECTORS]) {
GEMM_UNROLLED
    for (int i = 0; i < rows; i++)
GEMM_UNROLLED
        for (int j = 0; j < vectors; j++) acc[i][j] = (V){0};
}

/* acc = A B over this call's k. */
FBP_INLINE void R(tile_sum)(int rows, int vectors, int part, R(lanes) mask, const R(tile_call) *t,
                            V acc[GEMM_ROWS][GEMM_VECTORS]) {
    R(rows_of_a) a;
    const T *b = t->b;
    R(rows_begin)(rows, &a, t);
    R(tile_clear)(rows, vectors, acc);
    for (int64_t p = t->k; p > 0; p--, b += t->b_row) {
        V row[GEMM_VECTORS];
GEMM_UNROLLED
        for (int j = 0; j < vectors; j++) row[j] = R(tile_load)(b, j, vectors, part, mask);
        R(tile_step)(rows, vectors, &a, row, acc);
    }
}

/* The same for two whole vectors, with two lines fetched every few terms: all of them at once would fill the
 * core's queue of misses, and the tile would wait behind it. */
FBP_INLINE void R(tile_sum_fetching)(int rows, const R(tile_call) *t, V acc[GEMM_ROWS][GEMM_VECTORS]) {
    enum { EVERY = 8 };
    R(rows_of_a) a;
    const T *b = t->b;
    const char *const *fetch = t->fetch;
    R(rows_begin)(rows, &a, t);
    R(tile_clear)(rows, 2, acc);
    for (int64_t p = t->k; p > 0; p--, b += t->b_row) {
        const V row[2] = {R(v_load)(b), R(v_load)(b + LANES)};
        R(tile_step)(rows, 2, &a, row, acc);
        if (p % EVERY == 0 && fetch < t->fetch_end) {
            __builtin_prefetch(*fetch, 0, 2);
            __builtin_prefetch(*fetch + 64, 0, 2);
            fetch++;
        }
    }
}

/* C = alpha acc + beta C + bias. */
FBP_INLINE void R(tile_store)(int rows, int vectors, int part, R(lanes) mask, const R(tile_call) *t,
                              V acc[GEMM_ROWS][GEMM_VECTORS]) {
    const T alpha = t->alpha, beta = t->beta;
    if (alpha != 1) {
GEMM_UNROLLED
        for (int i = 0; i < rows; i++)
GEMM_UNROLLED
            for (int j = 0; j < vectors; j++) acc[i][j] *= alpha;
    }
    if (beta != 0) {
        const T *c = t->c;
GEMM_UNROLLED
        for (int i = 0; i < rows; i++, c += t->c_row)
GEMM_UNROLLED
            for (int j = 0; j < vectors; j++) acc[i][j] += beta * R(tile_load)(c, j, vectors, part, mask);
    }
    if (t->bias) {
        const T *bias = t->bias;
        if (t->bias_col) {
GEMM_UNROLLED
            for (int i = 0; i < rows; i++, bias += t->bias_row)
GEMM_UNROLLED
                for (int j = 0; j < vectors; j++) acc[i][j] += R(tile_load)(bias, j, vectors, part, mask);
        } else {
GEMM_UNROLLED
            for (int i = 0; i < rows; i++, bias += t->bias_row)
GEMM_UNROLLED
                for (int j = 0; j < vectors; j++) acc[i][j] += *bias;
        }
    }
    T *c = t->c;
GEMM_UNROLLED
    for (int i = 0; i < rows; i++, c += t->c_row)
GEMM_UNROLLED
        for (int j = 0; j < vectors; j++) {
            if (part && j == vectors - 1) R(store_lanes)(c + j * LANES, acc[i][j], mask);
            else R(v_store)(c + j * LANES, acc[i][j]);
        }
}

FBP_INLINE void R(tile)(int rows, int vectors, int part, const R(tile_call) *t) {
    V acc[GEMM_ROWS][GEMM_VECTORS];
    const R(lanes) mask = R(lanes_first)(part ? t->part : 1);
    R(tile_sum)(rows, vectors, part, mask, t, acc);
    R(tile_store)(rows, vectors, part, mask, t, acc);
}

FBP_INLINE void R(tile_fetching)(int rows, const R(tile_call) *t) {
    V acc[GEMM_ROWS][GEMM_VECTORS];
    R(tile_sum_fetching)(rows, t, acc);
    R(tile_store)(rows, 2, 0, R(lanes_first)(1), t, acc);
}

/* -- one function per shape, and the table of them ------------------------------------------------------- */

typedef void (*R(tile_fn))(const R(tile_call) *t);

#define GEMM_TILE(m, v)                                                                      \
    static void R(tile_##m##x##v)(const R(tile_call) * t) { R(tile)(m, v, 0, t); }           \
    static void R(tile_part_##m##x##v)(const R(tile_call) * t) { R(tile)(m, v, 1, t); }
GEMM_TILES(GEMM_TILE)
#undef GEMM_TILE

/* [part][rows][vectors]; NULL where that many accumulators do not fit the registers. */
static const R(tile_fn) R(tiles)[2][GEMM_ROWS + 1][GEMM_VECTORS + 1] = {
#define GEMM_TILE(m, v) [0][m][v] = R(tile_##m##x##v), [1][m][v] = R(tile_part_##m##x##v),
    GEMM_TILES(GEMM_TILE)
#undef GEMM_TILE
};

/* [rows], two whole vectors wide. */
#define GEMM_TILE(m) \
    static void R(tile_fetching_##m)(const R(tile_call) * t) { R(tile_fetching)(m, t); }
GEMM_FETCHING_TILES(GEMM_TILE)
#undef GEMM_TILE
static const R(tile_fn) R(fetching_tiles)[GEMM_ROWS + 1] = {
#define GEMM_TILE(m) [m] = R(tile_fetching_##m),
    GEMM_FETCHING_TILES(GEMM_TILE)
#undef GEMM_TILE
};
