/* reduce_cumulate.inl -- running sums and products along the middle axis.
 *
 * Read once per element type with  ELEMENT  the C type,  WIDER  the accumulator's, and  E(name)  the name for it.
 */

struct E(cumulate_job) {
    bool product, reverse;
    ELEMENT *y;
    const ELEMENT *x;
    int64_t n, inner;
    int64_t blocks; /* blocks of CUMULATE_COLUMNS columns in a slab */
};

/* A block of columns of one slab, in a direction: rows advance by `stride`, which may be negative.  `stride` alone
 * says the order: the first row is where x and y point. */
FBP_INLINE void E(cumulate_block)(const bool product, ELEMENT *y, const ELEMENT *x, int64_t n, int64_t stride,
                                  const int64_t width) {
    WIDER total[CUMULATE_COLUMNS];
    for (int64_t k = 0; k < width; k++) total[k] = product ? 1 : 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t k = 0; k < width; k++) {
            const int64_t at = r * stride + k;
            total[k] = product ? total[k] * (WIDER)x[at] : total[k] + (WIDER)x[at];
            y[at] = (ELEMENT)total[k];
        }
}

/* Task: blocks of columns begin .. end-1, counted through all slabs. */
static void E(cumulate_task)(void *context, int64_t begin, int64_t end) {
    const struct E(cumulate_job) *job = context;
    const int64_t n = job->n, inner = job->inner;
    for (int64_t task = begin; task < end; task++) {
        const int64_t c = task % job->blocks * CUMULATE_COLUMNS;
        const int64_t width = inner - c < CUMULATE_COLUMNS ? inner - c : CUMULATE_COLUMNS;
        const int64_t first = task / job->blocks * n * inner + c + (job->reverse ? (n - 1) * inner : 0);
        const int64_t stride = job->reverse ? -inner : inner;
        ELEMENT *y = job->y + first;
        const ELEMENT *x = job->x + first;
        if (width == 1) /* rows: a constant width keeps the total in a register */
            job->product ? E(cumulate_block)(true, y, x, n, stride, 1) : E(cumulate_block)(false, y, x, n, stride, 1);
        else if (job->product)
            E(cumulate_block)(true, y, x, n, stride, width);
        else
            E(cumulate_block)(false, y, x, n, stride, width);
    }
}

static void E(cumulate)(bool product, void *y, const void *x, int64_t outer, int64_t n, int64_t inner, bool reverse) {
    if (n == 0) return;
    struct E(cumulate_job) job = {product, reverse, y, x, n, inner, (inner + CUMULATE_COLUMNS - 1) / CUMULATE_COLUMNS};
    fbp_split(outer * job.blocks, (double)outer * (double)n * (double)inner, E(cumulate_task), &job);
}
static void E(cumulative_sum)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner, bool reverse) {
    E(cumulate)(false, y, x, outer, n, inner, reverse);
}
static void E(cumulative_product)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner, bool reverse) {
    E(cumulate)(true, y, x, outer, n, inner, reverse);
}
#undef ELEMENT
#undef WIDER
#undef E
