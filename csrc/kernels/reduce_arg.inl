/* reduce_arg.inl -- where the largest or smallest element stands, for the real type in force
 * (include after reduce_fold.inl).
 *
 * Rows: the extreme first, as a fold, then a search for its first place, which ends at once when found.
 * Columns: each lane carries its best element and that element's row.
 */

/* First place of `value` in x[n]; of the first NaN if value is NaN.  It must occur. */
static int64_t R(arg_find)(const T *x, int64_t n, T value) {
    enum { BLOCK = 64 };
    const bool nan = value != value;
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        int hit = 0;
        if (nan)
            for (int j = 0; j < BLOCK; j++) hit |= x[i + j] != x[i + j];
        else
            for (int j = 0; j < BLOCK; j++) hit |= x[i + j] == value;
        if (hit) break;
    }
    while (nan ? x[i] == x[i] : x[i] != value) i++;
    return i;
}

/* What the tasks of one call share. */
struct R(arg_job) {
    bool largest;
    T *values;        /* or NULL */
    int64_t *indices;
    const T *x;
    int64_t outer, n, inner;
    int64_t blocks;   /* blocks of 4 vectors of columns in a slab */
};

/* Task: batches of ARG_ROWS rows begin .. end-1. */
static void R(arg_rows)(void *context, int64_t begin, int64_t end) {
    const struct R(arg_job) *job = context;
    const int64_t n = job->n;
    for (int64_t batch = begin; batch < end; batch++) {
        T local[ARG_ROWS];
        const int64_t o = batch * ARG_ROWS, rows = job->outer - o < ARG_ROWS ? job->outer - o : ARG_ROWS;
        R(fold)(job->largest ? FOLD_MAX : FOLD_MIN, local, job->x + o * n, rows, n, 1, NULL, 0);
        for (int64_t r = 0; r < rows; r++) job->indices[o + r] = R(arg_find)(job->x + (o + r) * n, n, local[r]);
        if (job->values) memcpy(job->values + o, local, rows * sizeof(T));
    }
}

/* WIDTH vectors of columns, or `part` < LANES columns: x is their first row. */
FBP_INLINE void R(arg_block)(const bool largest, const int WIDTH, T *values, int64_t *indices, const T *x, int64_t n,
                             int64_t stride, int64_t part) {
    const int64_t piece = INT64_C(1) << 30; /* rows whose numbers fit the lanes' integers */
    V best[4];
    for (int k = 0; k < WIDTH; k++) best[k] = part ? R(v_load_first)(x, part) : R(v_load)(x + k * LANES);
    const int64_t columns = part ? part : WIDTH * LANES;
    for (int64_t c = 0; c < columns; c++) indices[c] = 0;
    for (int64_t begin = 0; begin < n; begin += piece) {
        const int64_t rows = n - begin < piece ? n - begin : piece;
        VI place[4], row = {0};
        for (int k = 0; k < WIDTH; k++) place[k] = (VI){0} - 1; /* -1: the best stands in an earlier piece */
        for (int64_t r = 0; r < rows; r++, row += 1)
            for (int k = 0; k < WIDTH; k++) {
                const T *at = x + (begin + r) * stride + k * LANES;
                const V v = part ? R(v_load_first)(at, part) : R(v_load)(at);
                /* a first NaN beats any number and nothing beats it */
                const VI better = (largest ? v > best[k] : v < best[k]) | ((v != v) & (best[k] == best[k]));
                best[k] = R(v_select)(better, v, best[k]);
                place[k] = (better & row) | (~better & place[k]);
            }
        for (int64_t c = 0; c < columns; c++) {
            const IT p = place[c / LANES][c % LANES];
            if (p >= 0) indices[c] = begin + p;
        }
    }
    if (!values) return;
    for (int k = 0; k < WIDTH; k++) R(v_store_upto)(values + k * LANES, best[k], part ? part : LANES);
}

/* Task: blocks of columns begin .. end-1, counted through all slabs. */
static void R(arg_columns)(void *context, int64_t begin, int64_t end) {
    const struct R(arg_job) *job = context;
    const int64_t wide = 4 * LANES;
    for (int64_t task = begin; task < end; task++) {
        const int64_t o = task / job->blocks, first = task % job->blocks * wide;
        const int64_t last = first + wide < job->inner ? first + wide : job->inner;
        for (int64_t c = first; c < last;) {
            const T *x = job->x + o * job->n * job->inner + c;
            int64_t *indices = job->indices + o * job->inner + c;
            T *values = job->values ? job->values + o * job->inner + c : NULL;
            const int64_t left = last - c;
#define ARG_BLOCK(WIDTH, part)                                                                             \
    (job->largest ? R(arg_block)(true, WIDTH, values, indices, x, job->n, job->inner, part)                \
                  : R(arg_block)(false, WIDTH, values, indices, x, job->n, job->inner, part))
            if (left >= wide)
                ARG_BLOCK(4, 0);
            else if (left >= LANES)
                ARG_BLOCK(1, 0);
            else
                ARG_BLOCK(1, left);
#undef ARG_BLOCK
            c += left >= wide ? wide : left >= LANES ? LANES : left;
        }
    }
}

static void R(arg)(bool largest, T *values, int64_t *indices, const T *x, int64_t outer, int64_t n, int64_t inner) {
    struct R(arg_job) job = {largest, values, indices, x, outer, n, inner, (inner + 4 * LANES - 1) / (4 * LANES)};
    const double work = (double)outer * (double)n * (double)inner * sizeof(T) * FOLD_NANOSECONDS_PER_BYTE * 2;
    const int64_t batches = (outer + ARG_ROWS - 1) / ARG_ROWS;
    if (inner != 1)
        fbp_split(outer * job.blocks, work, R(arg_columns), &job);
    else if (batches == 1) /* the fold shares long rows itself */
        R(arg_rows)(&job, 0, 1);
    else
        fbp_split(batches, work, R(arg_rows), &job);
}

static void R(arg_max)(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n, int64_t inner) {
    R(arg)(true, values, indices, x, outer, n, inner);
}
static void R(arg_min)(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n, int64_t inner) {
    R(arg)(false, values, indices, x, outer, n, inner);
}
