/* reduce_exact.inl -- reductions whose result does not depend on any order: those of bool and integers, and any, all
 * and count_nonzero of every type.
 *
 * Read once per element type with  ELEMENT  the C type,  E(name)  the name for it,  and for bool and integers
 * ELEMENT_IS_INTEGER 1  with  ELEMENT_MIN / ELEMENT_MAX  its range.  Accumulators are int64 throughout (sums and
 * products modulo 2**64).
 */

struct E(exact_job) {
    int kind;
    void *y;
    const ELEMENT *x;
    int64_t outer, n, inner;
    int64_t blocks; /* blocks of EXACT_COLUMNS columns in a slab */
};

FBP_INLINE int64_t E(exact_identity)(int kind) {
    switch (kind) {
    case EXACT_PRODUCT:
    case EXACT_ALL: return 1;
#if ELEMENT_IS_INTEGER
    case EXACT_MAX: return ELEMENT_MIN;
    case EXACT_MIN: return ELEMENT_MAX;
#endif
    default: return 0;
    }
}

FBP_INLINE int64_t E(exact_join)(const int kind, int64_t so_far, ELEMENT x) {
    switch (kind) {
#if ELEMENT_IS_INTEGER
    case EXACT_SUM: return (int64_t)((uint64_t)so_far + (uint64_t)x);
    case EXACT_PRODUCT: return (int64_t)((uint64_t)so_far * (uint64_t)x);
    case EXACT_MAX: return x > so_far ? x : so_far;
    case EXACT_MIN: return x < so_far ? x : so_far;
#endif
    case EXACT_COUNT: return so_far + (x != 0);
    case EXACT_ANY: return so_far | (x != 0);
    default: return so_far & (x != 0); /* EXACT_ALL */
    }
}

/* Write a result at place i of y: int64 for sums, products and counts, one byte for any and all, else the element type. */
FBP_INLINE void E(exact_put)(const int kind, void *y, int64_t i, int64_t value) {
    switch (kind) {
    case EXACT_SUM:
    case EXACT_PRODUCT:
    case EXACT_COUNT: ((int64_t *)y)[i] = value; break;
    case EXACT_MAX:
    case EXACT_MIN: ((ELEMENT *)y)[i] = (ELEMENT)value; break;
    default: ((uint8_t *)y)[i] = (uint8_t)value;
    }
}

FBP_INLINE int64_t E(exact_row)(const int kind, const ELEMENT *x, int64_t n) {
    int64_t value = E(exact_identity)(kind);
    for (int64_t i = 0; i < n; i += EXACT_PIECE) { /* any and all may stop after a piece */
        const int64_t end = n - i < EXACT_PIECE ? n : i + EXACT_PIECE;
        for (int64_t j = i; j < end; j++) value = E(exact_join)(kind, value, x[j]);
        if ((kind == EXACT_ANY && value) || (kind == EXACT_ALL && !value)) break;
    }
    return value;
}

FBP_INLINE void E(exact_rows)(const int kind, const struct E(exact_job) *job, int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; o++)
        E(exact_put)(kind, job->y, o, E(exact_row)(kind, job->x + o * job->n, job->n));
}

FBP_INLINE void E(exact_columns)(const int kind, const struct E(exact_job) *job, int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
        const int64_t o = task / job->blocks, c = task % job->blocks * EXACT_COLUMNS;
        const int64_t width = job->inner - c < EXACT_COLUMNS ? job->inner - c : EXACT_COLUMNS;
        const ELEMENT *x = job->x + o * job->n * job->inner + c;
        int64_t value[EXACT_COLUMNS];
        for (int64_t k = 0; k < width; k++) value[k] = E(exact_identity)(kind);
        for (int64_t r = 0; r < job->n; r++, x += job->inner)
            for (int64_t k = 0; k < width; k++) value[k] = E(exact_join)(kind, value[k], x[k]);
        for (int64_t k = 0; k < width; k++) E(exact_put)(kind, job->y, o * job->inner + c + k, value[k]);
    }
}

/* Task: rows, or blocks of columns counted through all slabs, begin .. end-1. */
static void E(exact_task)(void *context, int64_t begin, int64_t end) {
    const struct E(exact_job) *job = context;
#define EXACT_CASE(KIND)                                                                               \
    case KIND:                                                                                         \
        if (job->inner == 1)                                                                           \
            E(exact_rows)(KIND, job, begin, end);                                                      \
        else                                                                                           \
            E(exact_columns)(KIND, job, begin, end);                                                   \
        break;
    switch (job->kind) {
#if ELEMENT_IS_INTEGER
        EXACT_CASE(EXACT_SUM)
        EXACT_CASE(EXACT_PRODUCT)
        EXACT_CASE(EXACT_MAX)
        EXACT_CASE(EXACT_MIN)
#endif
        EXACT_CASE(EXACT_COUNT)
        EXACT_CASE(EXACT_ANY)
        EXACT_CASE(EXACT_ALL)
    default: break;
    }
#undef EXACT_CASE
}

static void E(exact)(int kind, void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {
    struct E(exact_job) job = {kind, y, x, outer, n, inner, (inner + EXACT_COLUMNS - 1) / EXACT_COLUMNS};
    const double work = (double)outer * (double)n * (double)inner * EXACT_NANOSECONDS;
    fbp_split(inner == 1 ? outer : outer * job.blocks, work, E(exact_task), &job);
}

#define EXACT_MEMBER(name, kind)                                                                  \
    static void E(name)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {        \
        E(exact)(kind, y, x, outer, n, inner);                                                    \
    }
EXACT_MEMBER(any, EXACT_ANY)
EXACT_MEMBER(all, EXACT_ALL)
EXACT_MEMBER(count_nonzero, EXACT_COUNT)
#if ELEMENT_IS_INTEGER
EXACT_MEMBER(sum, EXACT_SUM)
EXACT_MEMBER(product, EXACT_PRODUCT)
EXACT_MEMBER(max, EXACT_MAX)
EXACT_MEMBER(min, EXACT_MIN)

/* Place of the first largest or smallest element of each column of x[n][inner], or of a row. */
static void E(exact_arg_slab)(bool largest, ELEMENT *values, int64_t *indices, const ELEMENT *x, int64_t n,
                              int64_t inner) {
    for (int64_t c = 0; c < inner; c += EXACT_COLUMNS) {
        const int64_t width = inner - c < EXACT_COLUMNS ? inner - c : EXACT_COLUMNS;
        ELEMENT best[EXACT_COLUMNS];
        for (int64_t k = 0; k < width; k++) {
            best[k] = x[c + k];
            indices[c + k] = 0;
        }
        for (int64_t r = 1; r < n; r++)
            for (int64_t k = 0; k < width; k++) {
                const ELEMENT v = x[r * inner + c + k];
                if (largest ? v > best[k] : v < best[k]) {
                    best[k] = v;
                    indices[c + k] = r;
                }
            }
        if (values) memcpy(values + c, best, width * sizeof(ELEMENT));
    }
}
static void E(arg_max)(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n, int64_t inner) {
    for (int64_t o = 0; o < outer; o++)
        E(exact_arg_slab)(true, values ? (ELEMENT *)values + o * inner : NULL, indices + o * inner,
                          (const ELEMENT *)x + o * n * inner, n, inner);
}
static void E(arg_min)(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n, int64_t inner) {
    for (int64_t o = 0; o < outer; o++)
        E(exact_arg_slab)(false, values ? (ELEMENT *)values + o * inner : NULL, indices + o * inner,
                          (const ELEMENT *)x + o * n * inner, n, inner);
}
#endif
#undef EXACT_MEMBER
#undef ELEMENT
#undef E
#undef ELEMENT_IS_INTEGER
#undef ELEMENT_MIN
#undef ELEMENT_MAX
