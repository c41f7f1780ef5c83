/* reduce_fold.inl -- folds of float elements: y = join over r of map(x[o][r][i]), for the real type in force.
 *
 * One text for nine reductions: a fold's number (FOLD_SUM ...) picks map and join, and is a constant wherever speed counts.
 * The order of joins depends on n and inner alone:
 *   chunk    up to FOLD_CHUNK elements of a row, or FOLD_CHUNK_ROWS rows of a block of columns: vectors run in
 *            parallel, and after every FOLD_LEAF joins a running total takes them over;
 *   segment  consecutive chunks, joined as a binary tree;
 *   whole    at most FOLD_SEGMENTS segments, joined as a binary tree; they are what threads may share.
 */

/* One call of fold(); tasks read it, and write only to y and to their own part of `partial`. */
struct R(fold_job) {
    int kind;
    T power;                    /* FOLD_POWER's exponent */
    T *y;
    const T *x;
    const T *centre;            /* FOLD_DEVIATION's means, shaped as y; else NULL */
    int64_t outer, n, inner;
    int64_t segment, segments;  /* elements (rows of columns) of a segment, and how many there are */
    int64_t blocks;             /* blocks of columns in a slab */
    int64_t at;                 /* slab now at work, when threads share segments */
    int64_t column;             /* columns now at work: the first, ... */
    int64_t part;               /* ... their number if less than a vector, else 0, ... */
    int width;                  /* ... and how many vectors they fill */
    double work;                /* nanoseconds of one core for what the threads share */
    V *partial;                 /* segments' results, `width` vectors each */
};

/* ---- what differs between folds ---------------------------------------- */

FBP_INLINE T R(fold_identity)(int kind) {
    switch (kind) {
    case FOLD_PRODUCT: return C(1);
    case FOLD_MAX: return C(-INFINITY);
    case FOLD_MIN:
    case FOLD_MIN_ABS: return C(INFINITY);
    default: return C(0); /* sums, and the largest |x| */
    }
}

/* |x|**p.  Out of line: the text of a power is long. */
static __attribute__((noinline)) void R(fold_power)(V *x, T p) {
    *x = R(m_pow)(R(m_abs)(*x), R(v_splat)(p));
}

/* `centre` is the mean for FOLD_DEVIATION, `power` the exponent for FOLD_POWER. */
FBP_INLINE V R(fold_map)(int kind, V x, V centre, T power) {
    switch (kind) {
    case FOLD_SQUARES: return x * x;
    case FOLD_DEVIATION: return (x - centre) * (x - centre);
    case FOLD_ABS:
    case FOLD_MAX_ABS:
    case FOLD_MIN_ABS: return R(m_abs)(x);
    case FOLD_POWER: R(fold_power)(&x, power); return x;
    default: return x;
    }
}

FBP_INLINE V R(fold_join)(int kind, V a, V b) {
    switch (kind) {
    case FOLD_PRODUCT: return a * b;
    case FOLD_MAX:
    case FOLD_MAX_ABS: return R(m_max)(a, b);
    case FOLD_MIN:
    case FOLD_MIN_ABS: return R(m_min)(a, b);
    default: return a + b;
    }
}

FBP_INLINE V R(fold_lanes)(int kind, V v) {
    switch (kind) {
    case FOLD_PRODUCT: return R(v_fold_product)(v);
    case FOLD_MAX:
    case FOLD_MAX_ABS: return R(v_fold_max)(v);
    case FOLD_MIN:
    case FOLD_MIN_ABS: return R(v_fold_min)(v);
    default: return R(v_fold_sum)(v);
    }
}

/* Run `call` with the constant that equals `kind`, so that each fold gets loops of its own. */
#define FOLD_SPECIALISE(kind, call)                          \
    switch (kind) {                                          \
    case FOLD_SUM: { enum { FOLD = FOLD_SUM }; call; } break;             \
    case FOLD_SQUARES: { enum { FOLD = FOLD_SQUARES }; call; } break;     \
    case FOLD_ABS: { enum { FOLD = FOLD_ABS }; call; } break;             \
    case FOLD_POWER: { enum { FOLD = FOLD_POWER }; call; } break;         \
    case FOLD_DEVIATION: { enum { FOLD = FOLD_DEVIATION }; call; } break; \
    case FOLD_PRODUCT: { enum { FOLD = FOLD_PRODUCT }; call; } break;     \
    case FOLD_MAX: { enum { FOLD = FOLD_MAX }; call; } break;             \
    case FOLD_MIN: { enum { FOLD = FOLD_MIN }; call; } break;             \
    case FOLD_MAX_ABS: { enum { FOLD = FOLD_MAX_ABS }; call; } break;     \
    default: { enum { FOLD = FOLD_MIN_ABS }; call; } break;               \
    }

/* ---- trees -------------------------------------------------------------- */

/* Join count items of `width` vectors each in place, neighbours first; the result is the first item. */
static void R(fold_tree)(int kind, V *items, int64_t count, int width) {
    while (count > 1) {
        const int64_t pairs = count / 2;
        for (int64_t i = 0; i < pairs; i++)
            for (int k = 0; k < width; k++)
                items[i * width + k] = R(fold_join)(kind, items[2 * i * width + k], items[(2 * i + 1) * width + k]);
        if (count & 1) memmove(items + pairs * width, items + (count - 1) * width, width * sizeof(V));
        count = pairs + (count & 1);
    }
}

/* Add item number `index` of a sequence to a stack of subtrees: like carrying in binary counting, equal subtrees
 * are joined as soon as both exist.  Returns the stack's new height. */
static int R(fold_push)(int kind, V *stack, int height, const V *item, int width, int64_t index) {
    memcpy(stack + height * width, item, width * sizeof(V));
    height++;
    for (; index & 1; index >>= 1, height--)
        for (int k = 0; k < width; k++) {
            V *left = &stack[(height - 2) * width + k];
            *left = R(fold_join)(kind, *left, stack[(height - 1) * width + k]);
        }
    return height;
}

/* Join what is left on the stack; the result is its first item. */
static void R(fold_collapse)(int kind, V *stack, int height, int width) {
    for (; height > 1; height--)
        for (int k = 0; k < width; k++) {
            V *left = &stack[(height - 2) * width + k];
            *left = R(fold_join)(kind, *left, stack[(height - 1) * width + k]);
        }
}

/* ---- rows ----------------------------------------------------------------- */

/* Fold of n contiguous elements, in every lane. */
FBP_INLINE V R(fold_chunk_body)(const int kind, const T *x, int64_t n, T centre, T power) {
    const V middle = R(v_splat)(centre);
    const V identity = R(v_splat)(R(fold_identity)(kind));
    V total[4] = {identity, identity, identity, identity};
    int64_t i = 0;
    while (i + 4 * LANES <= n) {
        V leaf[4];
        for (int k = 0; k < 4; k++) leaf[k] = R(fold_map)(kind, R(v_load)(x + i + k * LANES), middle, power);
        i += 4 * LANES;
        const int64_t whole = n - 4 * LANES, full = i + (FOLD_LEAF - 1) * 4 * LANES - 1;
        for (const int64_t last = whole < full ? whole : full; i <= last; i += 4 * LANES)
            for (int k = 0; k < 4; k++)
                leaf[k] = R(fold_join)(kind, leaf[k],
                                       R(fold_map)(kind, R(v_load)(x + i + k * LANES), middle, power));
        for (int k = 0; k < 4; k++) total[k] = R(fold_join)(kind, total[k], leaf[k]);
    }
    for (; i + LANES <= n; i += LANES)
        total[0] = R(fold_join)(kind, total[0], R(fold_map)(kind, R(v_load)(x + i), middle, power));
    if (LANES > 1 && i < n) { /* lanes behind the end keep their total */
        const V more = R(fold_join)(kind, total[1], R(fold_map)(kind, R(v_load_first)(x + i, n - i), middle, power));
        total[1] = R(v_select)(R(v_first)(n - i), more, total[1]);
    }
    const V left = R(fold_join)(kind, total[0], total[1]), right = R(fold_join)(kind, total[2], total[3]);
    return R(fold_lanes)(kind, R(fold_join)(kind, left, right));
}

static V R(fold_chunk)(const struct R(fold_job) *job, const T *x, int64_t n, T centre) {
    FOLD_SPECIALISE(job->kind, return R(fold_chunk_body)(FOLD, x, n, centre, job->power))
    __builtin_unreachable();
}

/* Fold of elements begin .. end-1 of row o, begin at a chunk's border. */
static V R(fold_row_segment)(const struct R(fold_job) *job, int64_t o, int64_t begin, int64_t end) {
    const T *x = job->x + o * job->n;
    const T centre = job->centre ? job->centre[o] : 0;
    if (end - begin <= FOLD_CHUNK) return R(fold_chunk)(job, x + begin, end - begin, centre);
    V stack[FOLD_STACK];
    int height = 0;
    for (int64_t i = begin, index = 0; i < end; i += FOLD_CHUNK, index++) {
        const V item = R(fold_chunk)(job, x + i, end - i < FOLD_CHUNK ? end - i : FOLD_CHUNK, centre);
        height = R(fold_push)(job->kind, stack, height, &item, 1, index);
    }
    R(fold_collapse)(job->kind, stack, height, 1);
    return stack[0];
}

/* Task: segments begin .. end-1 of row job->at. */
static void R(fold_row_segments)(void *context, int64_t begin, int64_t end) {
    const struct R(fold_job) *job = context;
    for (int64_t s = begin; s < end; s++) {
        const int64_t first = s * job->segment;
        const int64_t last = first + job->segment < job->n ? first + job->segment : job->n;
        job->partial[s] = R(fold_row_segment)(job, job->at, first, last);
    }
}

/* Task: rows begin .. end-1, each as a whole. */
static void R(fold_rows)(void *context, int64_t begin, int64_t end) {
    const struct R(fold_job) *job = context;
    if (job->n <= FOLD_CHUNK && !job->centre) {
        FOLD_SPECIALISE(job->kind, for (int64_t o = begin; o < end; o++) job->y[o] =
                                       R(fold_chunk_body)(FOLD, job->x + o * job->n, job->n, 0, job->power)[0])
        return;
    }
    V partial[FOLD_SEGMENTS];
    struct R(fold_job) mine = *job;
    mine.partial = partial;
    for (int64_t o = begin; o < end; o++) {
        mine.at = o;
        R(fold_row_segments)(&mine, 0, mine.segments);
        R(fold_tree)(mine.kind, partial, mine.segments, 1);
        mine.y[o] = partial[0][0];
    }
}

/* ---- columns ---------------------------------------------------------------- */

/* Fold of `rows` rows of a block of columns that is WIDTH vectors wide, or of part < LANES columns (WIDTH == 1);
 * rows lie `stride` apart.  Narrow blocks run WAYS rows side by side to hide the latency of a join. */
FBP_INLINE void R(fold_block_body)(const int kind, const int WIDTH, const int WAYS, V *out, const T *x, int64_t rows,
                                   int64_t stride, int64_t part, const T *centres, T power) {
    const V identity = R(v_splat)(R(fold_identity)(kind));
    V total[FOLD_WIDTH], centre[FOLD_WIDTH];
    for (int k = 0; k < WIDTH; k++)
        centre[k] = kind != FOLD_DEVIATION ? identity
                    : part                 ? R(v_load_first)(centres, part)
                                           : R(v_load)(centres + k * LANES);
    for (int k = 0; k < FOLD_WIDTH; k++) total[k] = identity;
#define FOLD_LOAD(row, k)                                                                                     \
    R(fold_map)(kind, part ? R(v_load_first)(x + (row) * stride, part) : R(v_load)(x + (row) * stride + (k) * LANES), \
                centre[k], power)
    int64_t r = 0;
    while (r + WAYS <= rows) {
        V leaf[FOLD_WIDTH];
        for (int w = 0; w < WAYS; w++)
            for (int k = 0; k < WIDTH; k++) leaf[w * WIDTH + k] = FOLD_LOAD(r + w, k);
        r += WAYS;
        const int64_t whole = rows - WAYS, full = r + (FOLD_LEAF - 1) * WAYS - 1;
        for (const int64_t last = whole < full ? whole : full; r <= last; r += WAYS)
            for (int w = 0; w < WAYS; w++)
                for (int k = 0; k < WIDTH; k++)
                    leaf[w * WIDTH + k] = R(fold_join)(kind, leaf[w * WIDTH + k], FOLD_LOAD(r + w, k));
        for (int k = 0; k < WAYS * WIDTH; k++) total[k] = R(fold_join)(kind, total[k], leaf[k]);
    }
    for (; r < rows; r++)
        for (int k = 0; k < WIDTH; k++) total[k] = R(fold_join)(kind, total[k], FOLD_LOAD(r, k));
#undef FOLD_LOAD
    for (int half = WAYS / 2; half > 0; half /= 2)
        for (int k = 0; k < half * WIDTH; k++) total[k] = R(fold_join)(kind, total[k], total[half * WIDTH + k]);
    for (int k = 0; k < WIDTH; k++) out[k] = total[k];
}

static void R(fold_block)(const struct R(fold_job) *job, int width, V *out, const T *x, int64_t rows, int64_t part,
                          const T *centre) {
    const int64_t stride = job->inner;
    const T power = job->power;
    if (part)
        FOLD_SPECIALISE(job->kind, R(fold_block_body)(FOLD, 1, 4, out, x, rows, stride, part, centre, power))
    else if (width == 8)
        FOLD_SPECIALISE(job->kind, R(fold_block_body)(FOLD, 8, 1, out, x, rows, stride, 0, centre, power))
    else if (width == 4)
        FOLD_SPECIALISE(job->kind, R(fold_block_body)(FOLD, 4, 2, out, x, rows, stride, 0, centre, power))
    else
        FOLD_SPECIALISE(job->kind, R(fold_block_body)(FOLD, 1, 4, out, x, rows, stride, 0, centre, power))
}

/* Fold rows begin .. end-1 of `width` vectors of columns from column c of slab o on; begin at a chunk's border. */
static void R(fold_column_segment)(const struct R(fold_job) *job, int64_t o, int64_t c, int width, int64_t part,
                                   V *out, int64_t begin, int64_t end) {
    const T *x = job->x + o * job->n * job->inner + c;
    const T *centre = job->centre ? job->centre + o * job->inner + c : NULL;
    if (end - begin <= FOLD_CHUNK_ROWS) {
        R(fold_block)(job, width, out, x + begin * job->inner, end - begin, part, centre);
        return;
    }
    V stack[FOLD_STACK * FOLD_WIDTH];
    int height = 0;
    for (int64_t r = begin, index = 0; r < end; r += FOLD_CHUNK_ROWS, index++) {
        V item[FOLD_WIDTH];
        const int64_t rows = end - r < FOLD_CHUNK_ROWS ? end - r : FOLD_CHUNK_ROWS;
        R(fold_block)(job, width, item, x + r * job->inner, rows, part, centre);
        height = R(fold_push)(job->kind, stack, height, item, width, index);
    }
    R(fold_collapse)(job->kind, stack, height, width);
    for (int k = 0; k < width; k++) out[k] = stack[k];
}

/* Task: segments begin .. end-1 of the columns that the job stands at. */
static void R(fold_column_segments)(void *context, int64_t begin, int64_t end) {
    const struct R(fold_job) *job = context;
    for (int64_t s = begin; s < end; s++) {
        const int64_t first = s * job->segment;
        const int64_t last = first + job->segment < job->n ? first + job->segment : job->n;
        R(fold_column_segment)(job, job->at, job->column, job->width, job->part, job->partial + s * job->width, first, last);
    }
}

/* Columns of one piece, `left` of them to go: 8, 4 or 1 vectors, or less than one.  Sets *part. */
FBP_INLINE int R(fold_piece)(int64_t left, int64_t *part) {
    *part = left < LANES ? left : 0;
    return left >= 8 * LANES ? 8 : left >= 4 * LANES ? 4 : 1;
}

FBP_INLINE void R(fold_put)(T *y, const V *result, int width, int64_t part) {
    for (int k = 0; k < width; k++) R(v_store_upto)(y + k * LANES, result[k], part ? part : LANES);
}

/* Task: blocks of columns begin .. end-1, counted through all slabs, each in one segment. */
static void R(fold_columns)(void *context, int64_t begin, int64_t end) {
    const struct R(fold_job) *job = context;
    for (int64_t task = begin; task < end; task++) {
        const int64_t o = task / job->blocks, first = task % job->blocks * FOLD_WIDTH * LANES;
        const int64_t last = first + FOLD_WIDTH * LANES < job->inner ? first + FOLD_WIDTH * LANES : job->inner;
        int64_t part;
        for (int64_t c = first; c < last;) {
            V result[FOLD_WIDTH];
            const int width = R(fold_piece)(last - c, &part);
            R(fold_column_segment)(job, o, c, width, part, result, 0, job->n);
            R(fold_put)(job->y + o * job->inner + c, result, width, part);
            c += part ? part : width * LANES;
        }
    }
}

/* The same for columns of several segments, which the threads share when `share` is set. */
static void R(fold_long_columns)(const struct R(fold_job) *job, int64_t begin, int64_t end, bool share) {
    V partial[FOLD_SEGMENTS * FOLD_WIDTH];
    struct R(fold_job) mine = *job;
    mine.partial = partial;
    for (int64_t task = begin; task < end; task++) {
        mine.at = task / job->blocks;
        mine.column = task % job->blocks * FOLD_WIDTH * LANES;
        const int64_t last = mine.column + FOLD_WIDTH * LANES < job->inner ? mine.column + FOLD_WIDTH * LANES : job->inner;
        while (mine.column < last) {
            mine.width = R(fold_piece)(last - mine.column, &mine.part);
            const int64_t grain = share ? fbp_grain(mine.segments, mine.work) : mine.segments;
            fbp_parallel(mine.segments, grain, R(fold_column_segments), &mine);
            R(fold_tree)(mine.kind, partial, mine.segments, mine.width);
            R(fold_put)(mine.y + mine.at * mine.inner + mine.column, partial, mine.width, mine.part);
            mine.column += mine.part ? mine.part : mine.width * LANES;
        }
    }
}

/* Task: as fold_columns, for columns of several segments. */
static void R(fold_long_columns_task)(void *context, int64_t begin, int64_t end) {
    R(fold_long_columns)(context, begin, end, false);
}

/* ---- the whole ------------------------------------------------------------- */

/* y[outer][inner] = fold of x[outer][n][inner]; centre is NULL or shaped as y. */
static void R(fold)(int kind, T *y, const T *x, int64_t outer, int64_t n, int64_t inner, const T *centre, double power) {
    struct R(fold_job) job = {.kind = kind, .y = y, .x = x, .centre = centre, .power = (T)power,
                              .outer = outer, .n = n, .inner = inner};
    const int64_t chunk = inner == 1 ? FOLD_CHUNK : FOLD_CHUNK_ROWS;
    const int64_t chunks = n > 0 ? (n + chunk - 1) / chunk : 1;
    job.segment = (chunks + FOLD_SEGMENTS - 1) / FOLD_SEGMENTS * chunk;
    job.segments = n > 0 ? (n + job.segment - 1) / job.segment : 1;
    job.blocks = (inner + FOLD_WIDTH * LANES - 1) / (FOLD_WIDTH * LANES);
    const int64_t tasks = inner == 1 ? outer : outer * job.blocks;
    const fbp_task_fn run = inner == 1 ? R(fold_rows) : job.segments > 1 ? R(fold_long_columns_task) : R(fold_columns);
    const double work = (double)outer * (double)n * (double)inner * sizeof(T) * FOLD_NANOSECONDS_PER_BYTE;
    if (work < FBP_ALONE_NANOSECONDS || tasks >= FOLD_SEGMENTS || job.segments < 4) {
        fbp_split(tasks, work, run, &job);
        return;
    }
    job.work = work / (double)tasks;
    if (inner == 1) { /* few long rows: threads share each */
        V partial[FOLD_SEGMENTS];
        job.partial = partial;
        for (job.at = 0; job.at < outer; job.at++) {
            fbp_parallel(job.segments, fbp_grain(job.segments, job.work), R(fold_row_segments), &job);
            R(fold_tree)(kind, partial, job.segments, 1);
            y[job.at] = partial[0][0];
        }
    } else {
        R(fold_long_columns)(&job, 0, tasks, true);
    }
}
