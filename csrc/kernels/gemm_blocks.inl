/* gemm_blocks.inl -- the loops round the microkernels, and the entries of the table.
 *
 *     for each block of K                    its length depends on the shapes alone
 *       for each chunk of rows of A          that stays in L2; copied if its rows collide in the caches
 *         for each panel of columns of B     that stays in L1; copied if its rows are not contiguous or lie far apart
 *           for each tile of rows            registers
 *
 * A panel of B is copied just before its first use: copying costs a few per cent of the arithmetic.  While there is
 * one chunk of A, each copy overwrites the one before and never leaves the near caches; further chunks use kept copies.
 * Tasks for threads are (block of columns, tile of rows): see R(block_range).
 */

typedef struct R(plan) {
    const fbp_gemm *g;
    int64_t row_tiles, tile_rows, longer_tiles; /* tiles have tile_rows rows, the first longer_tiles of them one more */
    int64_t panel;                              /* columns of a panel */
    int64_t column_blocks, block_columns;       /* tasks along N, a multiple of panel */
    int64_t k_block;                            /* terms summed before C is touched */
    int64_t chunk_tiles;                        /* row tiles of a chunk */
    int64_t a_tile;                             /* elements of a copied tile of A */
    bool pack_a, pack_b, fetch;
    bool transposing;                           /* the first tile of a panel transposes it (R(tile_transposing)) */
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
    plan->panel = (M <= GEMM_ROWS_8 ? 8 : M <= GEMM_ROWS_4 ? 4 : 2) * LANES;
    plan->pack_b = g->b_col != 1;
    plan->pack_a = plan->fetch = false;
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
    plan->transposing = g->b_col != 1 && g->b_row == 1 && M >= R(transposing_least) && M <= GEMM_TRANSPOSING_ROWS &&
                         N >= plan->panel;
    const int64_t rows_most = plan->transposing ? (int64_t)R(transposing_most) : GEMM_ROWS;
#else
    plan->transposing = false;
    const int64_t rows_most = GEMM_ROWS;
#endif
    plan->row_tiles = (M + rows_most - 1) / rows_most;
    plan->tile_rows = M / plan->row_tiles;
    plan->longer_tiles = M - plan->row_tiles * plan->tile_rows;
    if (plan->tile_rows < 8) plan->transposing = false; /* 13..15 rows: two tiles of fewer than 8 */
    plan->k_block = K;
    plan->chunk_tiles = plan->row_tiles;
    plan->column_blocks = 1;
    plan->block_columns = N;
    const int64_t k_most = GEMM_TERM_BYTES / (int64_t)sizeof(T);
    if (M * N * K <= GEMM_SMALL_WORK && K <= k_most) return; /* one task, all in the caches: save the divisions */

    if (M * K * (int64_t)sizeof(T) > GEMM_DIRECT_BYTES && N >= GEMM_PACK_COLUMNS) plan->pack_a = true;
    if (K * N * (int64_t)sizeof(T) > GEMM_DIRECT_BYTES && M >= GEMM_PACK_ROWS) plan->pack_b = true;
    plan->fetch = M * N * (int64_t)sizeof(T) > GEMM_DIRECT_BYTES && K >= GEMM_FETCH_TERMS;
    const int64_t k_limit = plan->pack_b || plan->pack_a ? k_most : 2 * k_most;
    if (K > k_limit) {
        const int64_t blocks = (K + k_most - 1) / k_most;
        plan->k_block = ((K + blocks - 1) / blocks + 3) / 4 * 4;
    }
    plan->a_tile = plan->k_block * R(tile_width);
    const int64_t tiles_most = GEMM_CHUNK_BYTES / (plan->a_tile * (int64_t)sizeof(T)) + 1;
    const int64_t chunks = (plan->row_tiles + tiles_most - 1) / tiles_most;
    plan->chunk_tiles = (plan->row_tiles + chunks - 1) / chunks;
    /* few tiles of rows: cut the columns too, so that there are tasks for several threads */
    if (plan->row_tiles < 16) {
        const int64_t panels = (N + plan->panel - 1) / plan->panel, wanted = 16 / plan->row_tiles;
        const int64_t block_panels = (panels + wanted - 1) / wanted;
        plan->block_columns = block_panels * plan->panel;
    }
    const int64_t kept_columns = GEMM_KEPT_BYTES / (plan->k_block * (int64_t)sizeof(T)) / plan->panel * plan->panel;
    if (plan->pack_b && plan->block_columns > kept_columns) plan->block_columns = kept_columns > 0 ? kept_columns : plan->panel;
    plan->column_blocks = (N + plan->block_columns - 1) / plan->block_columns;
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

/* The places that the tiles of a panel fetch while they sum: C's rows before the tile is stored, and, each tile a part,
 * what the next panel is made from. */
typedef struct R(fetch_list) {
    const char *at[GEMM_FETCH_MOST];
    int64_t count;
} R(fetch_list);

/* Add what `count` runs of `length` contiguous elements, `step` apart, take. */
FBP_INLINE void R(fetch_add)(R(fetch_list) *list, const T *from, int64_t step, int64_t count, int64_t length) {
    for (int64_t i = 0; i < count; i++, from += step)
        for (int64_t p = 0; p < length && list->count < GEMM_FETCH_MOST; p += 128 / (int64_t)sizeof(T))
            list->at[list->count++] = (const char *)(from + p);
}

/* The panel in hand: columns j .. j + columns of B, terms p .. p + t->k. */
typedef struct R(panel_call) {
    int64_t p, j, columns;
    const T *bias;       /* NULL unless this is the last block of K */
    const T *transpose;  /* NULL, or where the first tile transposes the panel from */
    const T *next;       /* NULL, or the source of the panel after this, to be fetched meanwhile: */
    int64_t next_step, next_runs, next_length; /* contiguous runs of it */
} R(panel_call);

/* The panel against the row tiles first <= tile < end, whose A is at a_copy (tile `first` of a copied chunk) or in place. */
static void R(panel_run)(const R(plan) *plan, const R(panel_call) *panel, R(tile_call) *t, const T *a_copy, int64_t first,
                         int64_t end) {
    const fbp_gemm *g = plan->g;
    const int64_t vectors = (panel->columns + LANES - 1) / LANES, part = panel->columns % LANES;
    int64_t i = R(tile_begin)(plan, first), fetched = 0;
    const int64_t fetch_runs = panel->next ? (panel->next_runs + (end - first) - 1) / (end - first) : 0;
    t->part = part ? part : LANES;
    for (int64_t tile = first; tile < end; tile++) {
        const int64_t rows = plan->tile_rows + (tile < plan->longer_tiles);
        t->a = a_copy ? a_copy + (tile - first) * plan->a_tile : (const T *)g->a + i * g->a_row + panel->p * g->a_col;
        t->c = (T *)g->c + i * g->c_row + panel->j;
        t->bias = panel->bias ? panel->bias + i * g->bias_row + panel->j * g->bias_col : NULL;
        R(tile_fn) run = R(tiles)[part != 0][rows][vectors];
        R(fetch_list) list;
        if (plan->fetch && !part && vectors == 2 && R(fetching_tiles)[rows]) {
            const int64_t runs = panel->next_runs - fetched < fetch_runs ? panel->next_runs - fetched : fetch_runs;
            list.count = 0;
            R(fetch_add)(&list, t->c, g->c_row, rows, panel->columns);
            if (panel->next)
                R(fetch_add)(&list, panel->next + fetched * panel->next_step, panel->next_step, runs, panel->next_length);
            fetched += runs;
            t->fetch = list.at;
            t->fetch_end = list.at + list.count;
            run = R(fetching_tiles)[rows];
        }
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
        if (panel->transpose && tile == first) R(transposing_tiles)[rows](t, panel->transpose, g->b_col);
        else
#endif
            run(t);
        i += rows;
    }
}

/* Name what the panel after this one is to be made from or, if its copy is kept, that copy. */
static void R(panel_next)(R(panel_call) *panel, const R(plan) *plan, int64_t columns, int64_t k, const T *kept) {
    const fbp_gemm *g = plan->g;
    panel->next = NULL;
    if (columns <= 0 || (!kept && g->b_col != 1 && g->b_row != 1)) return;
    panel->next = kept ? kept : (const T *)g->b + panel->p * g->b_row + (panel->j + panel->columns) * g->b_col;
    panel->next_step = kept ? plan->panel : g->b_col == 1 ? g->b_row : g->b_col;
    panel->next_runs = kept || g->b_col == 1 ? k : columns;
    panel->next_length = kept || g->b_col == 1 ? columns : k;
}

/* A block of C on its way: row tiles first <= tile < end, columns j_begin <= j < j_end. */
typedef struct R(block_call) {
    const R(plan) *plan;
    int64_t first, end, j_begin, j_end;
    T *a_copy, *b_copy; /* NULL: in place */
    int64_t b_keep;     /* elements from one panel's copy to the next; 0: each overwrites the one before */
} R(block_call);

/* The row tiles chunk <= tile < chunk_end against all panels, for the terms from p on. */
static void R(chunk_run)(const R(block_call) *block, R(tile_call) *t, int64_t chunk, int64_t chunk_end, int64_t p) {
    const R(plan) *plan = block->plan;
    const fbp_gemm *g = plan->g;
    const int64_t i_begin = R(tile_begin)(plan, chunk), i_end = R(tile_begin)(plan, chunk_end);
    const bool last = p + plan->k_block >= g->k, copied = chunk > block->first && block->b_keep;
    for (int64_t tile = chunk; block->a_copy && tile < chunk_end; tile++) {
        const int64_t i = R(tile_begin)(plan, tile);
        R(pack_b)(block->a_copy + (tile - chunk) * plan->a_tile, R(tile_width), (const T *)g->a + i * g->a_row + p * g->a_col,
                  g->a_col, g->a_row, R(tile_begin)(plan, tile + 1) - i, t->k);
    }
    T *copy = block->b_copy;
    for (int64_t j = block->j_begin; j < block->j_end; j += plan->panel, copy += block->b_keep) {
        const int64_t rest = block->j_end - j, columns = rest < plan->panel ? rest : plan->panel;
        R(panel_call) panel = {.p = p, .j = j, .columns = columns};
        if (last && (g->bias_col == 0 || g->bias_col == 1)) panel.bias = g->bias;
        if (plan->fetch)
            R(panel_next)(&panel, plan, rest - columns < plan->panel ? rest - columns : plan->panel, t->k,
                          copied ? copy + block->b_keep : NULL);
        t->b = (const T *)g->b + p * g->b_row + j * g->b_col;
        if (copy) {
            if (plan->transposing && columns == plan->panel && !copied) panel.transpose = t->b;
            else if (!copied) R(pack_b)(copy, plan->panel, t->b, g->b_row, g->b_col, columns, t->k);
            t->b = copy;
        }
        R(panel_run)(plan, &panel, t, block->a_copy, chunk, chunk_end);
        if (last) R(block_finish)(g, i_begin, i_end - i_begin, j, columns);
    }
}

/* Row tiles first <= tile < end against columns j_begin <= j < j_end.  False: no memory. */
static bool R(block_run)(const R(plan) *plan, int64_t first, int64_t end, int64_t j_begin, int64_t j_end) {
    const fbp_gemm *g = plan->g;
    R(block_call) block = {.plan = plan, .first = first, .end = end, .j_begin = j_begin, .j_end = j_end};
    if (plan->pack_a) {
        const int64_t tiles = end - first < plan->chunk_tiles ? end - first : plan->chunk_tiles;
        block.a_copy = fbp_scratch(FBP_SCRATCH_GEMM_A, (size_t)(tiles * plan->a_tile) * sizeof(T));
        if (!block.a_copy) return false;
    }
    if (plan->pack_b) {
        const int64_t copy = plan->k_block * plan->panel, panels = (j_end - j_begin + plan->panel - 1) / plan->panel;
        if (end - first > plan->chunk_tiles) block.b_keep = copy; /* further chunks of rows use the copies again */
        block.b_copy = fbp_scratch(FBP_SCRATCH_GEMM_B, (size_t)(block.b_keep ? panels * copy : copy) * sizeof(T));
        if (!block.b_copy) return false;
    }
    R(tile_call) t = {.a_row = plan->pack_a ? 1 : g->a_row, .a_col = plan->pack_a ? R(tile_width) : g->a_col,
                      .b_row = plan->pack_b ? plan->panel : g->b_row, .c_row = g->c_row,
                      .alpha = (T)g->alpha, .beta = (T)g->beta, .bias_row = g->bias_row, .bias_col = g->bias_col};
    for (int64_t p = 0; p < g->k; p += plan->k_block, t.beta = 1) {
        t.k = g->k - p < plan->k_block ? g->k - p : plan->k_block;
        for (int64_t chunk = first; chunk < end; chunk += plan->chunk_tiles)
            R(chunk_run)(&block, &t, chunk, end - chunk < plan->chunk_tiles ? end : chunk + plan->chunk_tiles, p);
    }
    return true;
}

/* Tasks begin <= task < end; task = column block * row_tiles + row tile, so that a thread's run of tasks is
 * runs of row tiles, each of which shares one copy of each panel. */
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
