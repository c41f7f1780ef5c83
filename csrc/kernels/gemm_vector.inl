/* gemm_vector.inl -- matrix times vector: y[n] = alpha x[k] B[k,n] + beta y + bias, both layouts of B.
 *
 * Every element of B is used once, so the time is that of reading B: no copies, B's rows (or columns) are
 * walked in the order they lie in memory, and threads split the outputs.
 */

/* The product as this file sees it: one row of x; y and bias advance by y_step and bias_step. */
typedef struct R(vector_call) {
    const T *x;
    int64_t x_step;
    const T *b;
    int64_t b_row, b_col;
    int64_t n, k;
    T *y;
    int64_t y_step;
    const T *bias;
    int64_t bias_step;
    T alpha, beta;
} R(vector_call);

/* Sum of the lanes, by halves. */
FBP_INLINE T R(sum_lanes)(V v) {
    typedef T half __attribute__((vector_size(16)));
    typedef int64_t two __attribute__((vector_size(16)));
#if FBP_VECTOR_BYTES == 64
    typedef T wide __attribute__((vector_size(32)));
    const wide w = (wide)__builtin_shufflevector((fbp_vi64)v, (fbp_vi64)v, 0, 1, 2, 3) +
                   (wide)__builtin_shufflevector((fbp_vi64)v, (fbp_vi64)v, 4, 5, 6, 7);
#else
    const V w = v;
#endif
#if FBP_VECTOR_BYTES >= 32
    typedef int64_t four __attribute__((vector_size(32)));
    half h = (half)__builtin_shufflevector((four)w, (four)w, 0, 1) + (half)__builtin_shufflevector((four)w, (four)w, 2, 3);
#else
    half h = w;
#endif
    h += (half)__builtin_shufflevector((two)h, (two)h, 1, 0);
    return REAL_IS_F32 ? h[0] + h[1] : h[0];
}

/* -- B's columns are contiguous: dot products ------------------------------------------------------------- */

enum { R(dot_sums) = GEMM_REGISTERS == 32 ? 4 : 2 }; /* independent sums per column: latency of multiply-add */

/* out[c] = x . column c, `columns` of them at a time.  An output's sum is the same for any `columns`. */
FBP_INLINE void R(dots)(int columns, const T *x, const T *b, int64_t b_col, int64_t k, T *out) {
    enum { SUMS = R(dot_sums) };
    V acc[4][SUMS];
    int64_t p = 0;
GEMM_UNROLLED
    for (int c = 0; c < columns; c++)
GEMM_UNROLLED
        for (int s = 0; s < SUMS; s++) acc[c][s] = (V){0};
    for (; p + SUMS * LANES <= k; p += SUMS * LANES) {
GEMM_UNROLLED
        for (int s = 0; s < SUMS; s++) {
            const V xs = R(v_load)(x + p + s * LANES);
GEMM_UNROLLED
            for (int c = 0; c < columns; c++) acc[c][s] += xs * R(v_load)(b + c * b_col + p + s * LANES);
        }
    }
    for (; p + LANES <= k; p += LANES) {
        const V xs = R(v_load)(x + p);
GEMM_UNROLLED
        for (int c = 0; c < columns; c++) acc[c][0] += xs * R(v_load)(b + c * b_col + p);
    }
    if (p < k) {
        const R(lanes) mask = R(lanes_first)(k - p);
        const V xs = R(load_lanes)(x + p, mask);
GEMM_UNROLLED
        for (int c = 0; c < columns; c++) acc[c][1] += xs * R(load_lanes)(b + c * b_col + p, mask);
    }
GEMM_UNROLLED
    for (int c = 0; c < columns; c++) {
        V sum = acc[c][0] + acc[c][1];
        if (SUMS == 4) sum += acc[c][2 % SUMS] + acc[c][3 % SUMS];
        out[c] = R(sum_lanes)(sum);
    }
}

/* Outputs begin <= j < end. */
static void R(dot_range)(void *context, int64_t begin, int64_t end) {
    const R(vector_call) *v = context;
    for (int64_t j = begin; j < end;) {
        const T *b = v->b + j * v->b_col;
        const int columns = end - j >= 4 ? 4 : 1;
        T out[4];
        if (columns == 4) R(dots)(4, v->x, b, v->b_col, v->k, out);
        else R(dots)(1, v->x, b, v->b_col, v->k, out);
        for (int c = 0; c < columns; c++, j++) {
            T value = v->alpha * out[c];
            if (v->beta != 0) value += v->beta * v->y[j * v->y_step];
            if (v->bias) value += v->bias[j * v->bias_step];
            v->y[j * v->y_step] = value;
        }
    }
}

/* -- B's rows are contiguous: sums of rows --------------------------------------------------------------- */

/* y[j] += sum of `rows` rows of B weighted by w. */
FBP_INLINE void R(add_rows)(int rows, const T *w, const T *b, int64_t b_row, int64_t n, T *y) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        V sum = w[0] * R(v_load)(b + j);
GEMM_UNROLLED
        for (int r = 1; r < rows; r++) sum += w[r] * R(v_load)(b + r * b_row + j);
        R(v_store)(y + j, R(v_load)(y + j) + sum);
    }
    if (j < n) {
        const R(lanes) mask = R(lanes_first)(n - j);
        V sum = w[0] * R(load_lanes)(b + j, mask);
GEMM_UNROLLED
        for (int r = 1; r < rows; r++) sum += w[r] * R(load_lanes)(b + r * b_row + j, mask);
        R(store_lanes)(y + j, R(load_lanes)(y + j, mask) + sum, mask);
    }
}

enum { R(vector_block) = 512 }; /* outputs of a task: y stays in L1 while the rows of B stream past */

/* Blocks begin <= block < end of outputs. */
static void R(row_range)(void *context, int64_t begin, int64_t end) {
    const R(vector_call) *v = context;
    for (int64_t first = begin * R(vector_block); first < end * R(vector_block) && first < v->n; first += R(vector_block)) {
        const int64_t n = v->n - first < R(vector_block) ? v->n - first : R(vector_block);
        T *y = v->y + first;
        const T *b = v->b + first;
        for (int64_t j = 0; j < n; j++) {
            const T before = v->beta != 0 ? v->beta * y[j] : 0;
            y[j] = v->bias ? before + v->bias[(first + j) * v->bias_step] : before;
        }
        int64_t p = 0;
        T w[8];
        for (; p + 8 <= v->k; p += 8, b += 8 * v->b_row) {
            for (int r = 0; r < 8; r++) w[r] = v->alpha * v->x[(p + r) * v->x_step];
            R(add_rows)(8, w, b, v->b_row, n, y);
        }
        for (; p < v->k; p++, b += v->b_row) {
            w[0] = v->alpha * v->x[p * v->x_step];
            R(add_rows)(1, w, b, v->b_row, n, y);
        }
    }
}

/* -- choice --------------------------------------------------------------------------------------------- */

/* Run the product if it is one of matrix and vector that suits this file; *done says whether it was. */
static fbp_status R(vector_product)(const fbp_gemm *g, bool *done) {
    const bool row = g->m == 1; /* else n == 1: the transposed product is one of a row */
    R(vector_call) v = {
        .x = row ? g->a : g->b, .x_step = row ? g->a_col : g->b_row,
        .b = row ? g->b : g->a, .b_row = row ? g->b_row : g->a_col, .b_col = row ? g->b_col : g->a_row,
        .n = row ? g->n : g->m, .k = g->k,
        .y = g->c, .y_step = row ? 1 : g->c_row,
        .bias = g->bias, .bias_step = row ? g->bias_col : g->bias_row,
        .alpha = (T)g->alpha, .beta = (T)g->beta,
    };
    const double bytes = (double)v.n * (double)v.k * (double)sizeof(T);
    *done = true;
    if (v.b_row == 1 && (v.k > 1 || v.b_col != 1)) {
        if (v.x_step != 1) {
            T *x = fbp_scratch(FBP_SCRATCH_GEMM_A, (size_t)v.k * sizeof(T));
            if (!x) return FBP_ERROR_MEMORY;
            for (int64_t p = 0; p < v.k; p++) x[p] = v.x[p * v.x_step];
            v.x = x;
        }
        if (bytes < GEMM_SERIAL_BYTES) R(dot_range)(&v, 0, v.n);
        else fbp_parallel(v.n, fbp_grain(v.n, bytes / GEMM_BYTES_PER_NS), R(dot_range), &v);
    } else if (v.b_col == 1 && v.y_step == 1 && (!row || bytes > GEMM_STREAM_BYTES)) {
        /* a row times a matrix in the cache is left to the tiles, which keep the sums in registers */
        const int64_t blocks = (v.n + R(vector_block) - 1) / R(vector_block);
        if (bytes < GEMM_SERIAL_BYTES) R(row_range)(&v, 0, blocks);
        else fbp_parallel(blocks, fbp_grain(blocks, bytes / GEMM_BYTES_PER_NS), R(row_range), &v);
    } else {
        *done = false;
        return FBP_OK;
    }
    if (g->finish) g->finish(g->finish_context, g->c, g->c_row, g->m, g->n, 0, 0);
    return FBP_OK;
}
