/* gemm_blocks.inl -- the loops round the microkernels, and the entries of the table.
 *
 *     for each block of K                    its length depends on the shapes alone
 *       for each chunk of rows of A          that stays in L2; copied if its rows collide in the caches
 *         for each panel of columns of B     that stays in L1; copied if not contiguous, or too long a way apart
 *           for each tile of rows            registers
 *
 * A panel of B is copied just before its use, into one buffer that never leaves L1: copying costs a few
 * per cent of the arithmetic even when each chunk of A copies anew, and no L2 is spent on it.
 * Tasks for threads are (block of columns, tile of rows): see R(block_range).
 */

typedef struct R(plan) {
    const fbp_gemm *g;
    int64_t row_tiles, tile_rows, longer_tiles; /* tiles have tile_rows rows, the first longer_tiles of them one more */
    int64_t panel;                              /* columns of a panel */
    int64_t column_blocks, block_columns;       /* tasks along N, a multiple of panel */
    int64_t k_block;                            /* terms summed before C is touched */
    int64_t chunk_tiles;                        /* row tiles of a chunk */
    int64_t a_stride;                           /* of copied rows of A */
    bool pack_a, pack_b;
    bool failed;                                /* some task had no memory; every writer writes true */
} R(plan);

FBP_INLINE int64_t R(tile_begin)(const R(plan) *plan, int64_t tile) {
    return tile * plan->tile_rows + (tile < plan->longer_tiles ? tile : plan->longer_tiles);
}

/* How to cut this product up: from its shapes and strides alone. */
static void R(plan_make)(R(plan) *plan, const fbp_gemm *g) {
    const int64_t M = g->m, N = g->n, K = g->k;
    plan->g = g;
    plan->failed = false;
    plan->row_tiles = (M + GEMM_ROWS - 1) / GEMM_ROWS;
    plan->tile_rows = M / plan->row_tiles;
    plan->longer_tiles = M - plan->row_tiles * plan->tile_rows;
    plan->panel = (M <= GEMM_ROWS_8 ? 8 : M <= GEMM_ROWS_4 ? 4 : 2) * LANES;
    plan->pack_b = g->b_col != 1;
    plan->pack_a = false;
    plan->k_block = K;
    plan->chunk_tiles = plan->row_tiles;
    plan->column_blocks = 1;
    plan->block_columns = N;
    if (M * N * K <= GEMM_SMALL_WORK && !plan->pack_b) return; /* one task, everything in the caches */

    const int64_t k_most = GEMM_PANEL_BYTES / (int64_t)(2 * LANES * sizeof(T));
    const int64_t direct_bytes = GEMM_DIRECT_BYTES;
    const int64_t a_bytes = M * K * (int64_t)sizeof(T), b_bytes = K * N * (int64_t)sizeof(T);
    if (b_bytes > direct_bytes && M >= GEMM_PACK_ROWS) plan->pack_b = true;
    if (a_bytes > direct_bytes / 2 && N >= GEMM_PACK_COLUMNS) plan->pack_a = true;
    const int64_t k_limit = plan->pack_b || plan->pack_a ? k_most : 2 * k_most;
    if (K > k_limit) {
        const int64_t blocks = (K + k_most - 1) / k_most;
        plan->k_block = ((K + blocks - 1) / blocks + 3) / 4 * 4;
    }
    plan->a_stride = (plan->k_block + LANES - 1) / LANES * LANES + 64 / (int64_t)sizeof(T);
    const int64_t tile_bytes = GEMM_ROWS * plan->k_block * (int64_t)sizeof(T);
    plan->chunk_tiles = GEMM_CHUNK_BYTES / tile_bytes > 1 ? GEMM_CHUNK_BYTES / tile_bytes : 1;
    /* few tiles of rows: cut the columns too, so that there are tasks for several threads */
    if (plan->row_tiles < 16) {
        const int64_t panels = (N + plan->panel - 1) / plan->panel, wanted = 16 / plan->row_tiles;
        const int64_t block_panels = (panels + wanted - 1) / wanted;
        plan->block_columns = block_panels * plan->panel;
        plan->column_blocks = (N + plan->block_columns - 1) / plan->block_columns;
    }
}

/* bias of a column stride that tiles do not know, and the caller's epilogue, on a finished block of C. */
static void R(block_finish)(const fbp_gemm *g, int64_t i, int64_t rows, int64_t j, int64_t columns) {
    T *c = (T *)g->c + i * g->c_row + j;
    if (g->bias && g->bias_col != 0 && g->bias_col != 1) {
        const T *bias = (const T *)g->bias + i * g->bias_row + j * g->bias_col;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t s = 0; s < columns; s++) c[r * g->c_row + s] += bias[r * g->bias_row + s * g->bias_col];
    }
    if (g->finish) g->finish(g->finish_context, c, g->c_row, rows, columns, i, j);
}

/* One panel of columns j .. j + columns against the row tiles first <= tile < end, whose A is at a (tile
 * `first` of a copied chunk) or in place. */
FBP_INLINE void R(panel_run)(const R(plan) *plan, R(tile_call) *t, const T *a_copy, int64_t first, int64_t end,
                             int64_t p, int64_t j, int64_t columns, const T *bias) {
    const fbp_gemm *g = plan->g;
    const int64_t vectors = (columns + LANES - 1) / LANES;
    const int part = columns % LANES != 0;
    const R(tile_fn) longer = R(tiles)[part][plan->tile_rows + (plan->longer_tiles > 0)][vectors];
    const R(tile_fn) shorter = R(tiles)[part][plan->tile_rows][vectors];
    int64_t i = R(tile_begin)(plan, first);
    t->part = part ? columns % LANES : LANES;
    for (int64_t tile = first; tile < end; tile++) {
        t->a = a_copy ? a_copy + (tile - first) * R(tile_width) * plan->a_stride
                      : (const T *)g->a + i * g->a_row + p * g->a_col;
        t->c = (T *)g->c + i * g->c_row + j;
        t->bias = bias ? bias + i * g->bias_row + j * g->bias_col : NULL;
        if (tile < plan->longer_tiles) longer(t), i += plan->tile_rows + 1;
        else shorter(t), i += plan->tile_rows;
    }
}

/* Row tiles first <= tile < end against columns j_begin <= j < j_end.  False: no memory. */
static bool R(block_run)(const R(plan) *plan, int64_t first, int64_t end, int64_t j_begin, int64_t j_end) {
    const fbp_gemm *g = plan->g;
    T *a_copy = NULL, *b_copy = NULL;
    if (plan->pack_a) {
        const int64_t tiles = end - first < plan->chunk_tiles ? end - first : plan->chunk_tiles;
        a_copy = fbp_scratch(FBP_SCRATCH_GEMM_A, (size_t)(tiles * R(tile_width) * plan->a_stride) * sizeof(T));
        if (!a_copy) return false;
    }
    if (plan->pack_b) {
        b_copy = fbp_scratch(FBP_SCRATCH_GEMM_B, (size_t)(plan->k_block * plan->panel) * sizeof(T));
        if (!b_copy) return false;
    }
    R(tile_call) t = {.a_row = g->a_row, .a_col = g->a_col, .b_row = plan->pack_b ? plan->panel : g->b_row,
                      .c_row = g->c_row, .alpha = (T)g->alpha, .beta = (T)g->beta,
                      .bias_row = g->bias_row, .bias_col = g->bias_col};
    for (int64_t p = 0; p < g->k; p += plan->k_block, t.beta = 1) {
        const bool last = p + plan->k_block >= g->k;
        const T *bias = last && (g->bias_col == 0 || g->bias_col == 1) ? g->bias : NULL;
        t.k = last ? g->k - p : plan->k_block;
        for (int64_t chunk = first; chunk < end; chunk += plan->chunk_tiles) {
            const int64_t chunk_end = end - chunk < plan->chunk_tiles ? end : chunk + plan->chunk_tiles;
            const int64_t i_begin = R(tile_begin)(plan, chunk), i_end = R(tile_begin)(plan, chunk_end);
            for (int64_t tile = chunk; a_copy && tile < chunk_end; tile++) {
                const int64_t i = R(tile_begin)(plan, tile);
                R(pack_a)(a_copy + (tile - chunk) * R(tile_width) * plan->a_stride, plan->a_stride,
                          (const T *)g->a + i * g->a_row + p * g->a_col, g->a_row, g->a_col,
                          R(tile_begin)(plan, tile + 1) - i, t.k, &t.a_row, &t.a_col);
            }
            for (int64_t j = j_begin; j < j_end; j += plan->panel) {
                const int64_t columns = j_end - j < plan->panel ? j_end - j : plan->panel;
                t.b = (const T *)g->b + p * g->b_row + j * g->b_col;
                if (b_copy) {
                    R(pack_b)(b_copy, plan->panel, t.b, g->b_row, g->b_col, columns, t.k);
                    t.b = b_copy;
                }
                R(panel_run)(plan, &t, a_copy, chunk, chunk_end, p, j, columns, bias);
                if (last) R(block_finish)(g, i_begin, i_end - i_begin, j, columns);
            }
        }
    }
    return true;
}

/* Tasks begin <= task < end; task = column block * row_tiles + row tile, so that a thread's run of tasks is
 * whole runs of row tiles, which share one copy of each panel. */
static void R(block_range)(void *context, int64_t begin, int64_t end) {
    R(plan) *plan = context;
    while (begin < end) {
        const int64_t block = begin / plan->row_tiles, first = begin - block * plan->row_tiles;
        const int64_t tiles = end - begin < plan->row_tiles - first ? end - begin : plan->row_tiles - first;
        const int64_t j = block * plan->block_columns;
        const int64_t j_end = plan->g->n - j < plan->block_columns ? plan->g->n : j + plan->block_columns;
        if (!R(block_run)(plan, first, first + tiles, j, j_end)) __atomic_store_n(&plan->failed, true, __ATOMIC_RELAXED);
        begin += tiles;
    }
}

/* C = beta C + bias: what is left of a product without terms. */
static void R(scale)(const fbp_gemm *g) {
    const T beta = (T)g->beta, *bias = g->bias;
    for (int64_t i = 0; i < g->m; i++) {
        T *c = (T *)g->c + i * g->c_row;
        for (int64_t j = 0; j < g->n; j++) {
            const T before = beta != 0 ? beta * c[j] : 0;
            c[j] = bias ? before + bias[i * g->bias_row + j * g->bias_col] : before;
        }
    }
    if (g->finish) g->finish(g->finish_context, g->c, g->c_row, g->m, g->n, 0, 0);
}

/* One product; see fbp_gemm_kernels. */
static fbp_status R(product)(const fbp_gemm *g) {
    if (g->m <= 0 || g->n <= 0) return FBP_OK;
    if (g->k <= 0 || (T)g->alpha == 0) {
        R(scale)(g);
        return FBP_OK;
    }
    if (g->m == 1 || g->n == 1) {
        bool done;
        FBP_TRY(R(vector_product)(g, &done));
        if (done) return FBP_OK;
    }
    R(plan) plan;
    R(plan_make)(&plan, g);
    const int64_t tasks = plan.column_blocks * plan.row_tiles;
    const double nanoseconds = (double)g->m * (double)g->n * (double)g->k / GEMM_WORK_PER_NS;
    if (nanoseconds < GEMM_SERIAL_NS) R(block_range)(&plan, 0, tasks);
    else fbp_parallel(tasks, fbp_grain(tasks, nanoseconds), R(block_range), &plan);
    return plan.failed ? FBP_ERROR_MEMORY : FBP_OK;
}
