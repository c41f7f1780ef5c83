/* normalize.inl -- softmax and its kin for the real type in force (include after normalize_parts.inl). */

struct R(normalize_job) {
    int kind;
    T *y;            /* result */
    const T *x;      /* input; of a backward: saved output, or for logsumexp the input */
    const T *g;      /* cotangent */
    const T *result; /* logsumexp's saved output */
    int64_t n, inner;
    int64_t strips;  /* strips of LANES columns in a slab */
};

/* What is subtracted before exponentials of a log-sum-exp: the maximum, or 0 where that is infinite or NaN
 * (inf - inf would be NaN, and exp(+-inf) and exp(NaN) say what they should by themselves). */
FBP_INLINE V R(finite_or_zero)(V m) {
    const VI finite = R(m_abs)(m) < R(v_splat)(C(INFINITY));
    return R(v_select)(finite, m, (V){0});
}

/* ---- one row -------------------------------------------------------------- */

FBP_INLINE void R(softmax_row)(T *y, const T *x, int64_t n) {
    if (n <= LANES) {
        if (n == 0) return;
        V largest, e;
        const V sum = R(short_row_exp)(x, n, &largest, &e);
        R(v_store_upto)(y, e / sum, n);
        return;
    }
    const V sum = R(row_exp_sum)(true, y, x, n, R(row_max)(x, n));
    R(row_scale)(y, n, C(1) / sum);
}

FBP_INLINE void R(log_softmax_row)(T *y, const T *x, int64_t n) {
    if (n <= LANES) {
        if (n == 0) return;
        V largest, e;
        const V rest = R(m_log)(R(short_row_exp)(x, n, &largest, &e));
        R(v_store_upto)(y, (R(v_load_upto)(x, n, largest) - largest) - rest, n);
        return;
    }
    const V m = R(row_max)(x, n);
    const V rest = R(m_log)(R(row_exp_sum)(false, NULL, x, n, m));
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) R(v_store)(y + i, (R(v_load)(x + i) - m) - rest);
    if (LANES > 1 && i < n) R(v_store_first)(y + i, (R(v_load_first)(x + i, n - i) - m) - rest, n - i);
}

FBP_INLINE T R(logsumexp_row)(const T *x, int64_t n) {
    const V shift = R(finite_or_zero)(R(row_max)(x, n));
    return (R(m_log)(R(row_exp_sum)(false, NULL, x, n, shift)) + shift)[0];
}

/* Sum of a[n] (b NULL) or of a[n] * b[n], in every lane. */
FBP_INLINE V R(row_dot)(const T *a, const T *b, int64_t n) {
    V total[2] = {{0}};
    int64_t i = 0;
    while (i + 2 * LANES <= n) {
        V leaf[2] = {{0}};
        const int64_t whole = n - 2 * LANES, full = i + R(NORMAL_LEAF) * 2 * LANES - 1;
        for (const int64_t last = whole < full ? whole : full; i <= last; i += 2 * LANES)
            for (int k = 0; k < 2; k++) {
                const V v = R(v_load)(a + i + k * LANES);
                leaf[k] += b ? v * R(v_load)(b + i + k * LANES) : v;
            }
        for (int k = 0; k < 2; k++) total[k] += leaf[k];
    }
    for (; i < n; i += LANES) {
        const V v = R(v_load_upto)(a + i, n - i, (V){0});
        total[0] += b ? v * R(v_load_upto)(b + i, n - i, (V){0}) : v;
    }
    return R(v_fold_sum)(total[0] + total[1]);
}

FBP_INLINE void R(softmax_backward_row)(T *dx, const T *g, const T *y, int64_t n) {
    const V dot = R(row_dot)(g, y, n);
    for (int64_t i = 0; i < n; i += LANES) {
        const V slope = R(v_load_upto)(g + i, n - i, dot) - dot;
        R(v_store_upto)(dx + i, R(v_load_upto)(y + i, n - i, dot) * slope, n - i);
    }
}

FBP_INLINE void R(log_softmax_backward_row)(T *dx, const T *g, const T *y, int64_t n) {
    const V sum = R(row_dot)(g, NULL, n);
    for (int64_t i = 0; i < n; i += LANES) {
        const V share = R(m_exp)(R(v_load_upto)(y + i, n - i, sum)) * sum;
        R(v_store_upto)(dx + i, R(v_load_upto)(g + i, n - i, sum) - share, n - i);
    }
}

FBP_INLINE void R(logsumexp_backward_row)(T *dx, T g, T y, const T *x, int64_t n) {
    const V scale = R(v_splat)(g), shift = R(v_splat)(y);
    for (int64_t i = 0; i < n; i += LANES)
        R(v_store_upto)(dx + i, scale * R(m_exp)(R(v_load_upto)(x + i, n - i, shift) - shift), n - i);
}

/* Task: rows begin .. end-1. */
static void R(normalize_rows)(void *context, int64_t begin, int64_t end) {
    const struct R(normalize_job) *job = context;
    const int64_t n = job->n;
    T *const y = job->y;
    const T *const x = job->x, *const g = job->g;
    switch (job->kind) {
    case SOFTMAX:
        for (int64_t o = begin; o < end; o++) R(softmax_row)(y + o * n, x + o * n, n);
        break;
    case LOG_SOFTMAX:
        for (int64_t o = begin; o < end; o++) R(log_softmax_row)(y + o * n, x + o * n, n);
        break;
    case LOGSUMEXP:
        for (int64_t o = begin; o < end; o++) y[o] = R(logsumexp_row)(x + o * n, n);
        break;
    case SOFTMAX_BACKWARD:
        for (int64_t o = begin; o < end; o++) R(softmax_backward_row)(y + o * n, g + o * n, x + o * n, n);
        break;
    case LOG_SOFTMAX_BACKWARD:
        for (int64_t o = begin; o < end; o++) R(log_softmax_backward_row)(y + o * n, g + o * n, x + o * n, n);
        break;
    default:
        for (int64_t o = begin; o < end; o++)
            R(logsumexp_backward_row)(y + o * n, g[o], job->result[o], x + o * n, n);
    }
}

/* ---- one strip ------------------------------------------------------------ */

/* The forward kinds on `width` columns whose first elements are x and y (logsumexp: y[width]). */
FBP_INLINE void R(normalize_strip)(const int kind, T *y, const T *x, int64_t n, int64_t stride, int64_t width) {
    const V m = R(strip_max)(x, n, stride, width);
    if (kind == SOFTMAX) {
        const V sum = R(strip_exp_sum)(true, y, x, n, stride, width, m);
        R(strip_scale)(y, n, stride, width, C(1) / sum);
        return;
    }
    const V shift = kind == LOGSUMEXP ? R(finite_or_zero)(m) : m;
    const V rest = R(m_log)(R(strip_exp_sum)(false, NULL, x, n, stride, width, shift));
    if (kind == LOGSUMEXP) {
        R(v_store_upto)(y, rest + shift, width);
        return;
    }
    for (int64_t r = 0; r < n; r++)
        R(v_store_upto)(y + r * stride, (R(v_load_upto)(x + r * stride, width, m) - m) - rest, width);
}

/* The backward kinds; `result` is logsumexp's output, of which, as of its g, there is one row. */
FBP_INLINE void R(normalize_strip_backward)(const int kind, T *dx, const T *g, const T *x, const T *result, int64_t n,
                                            int64_t stride, int64_t width) {
    const V none = {0};
    if (kind == LOGSUMEXP_BACKWARD) {
        const V scale = R(v_load_upto)(g, width, none), shift = R(v_load_upto)(result, width, none);
        for (int64_t r = 0; r < n * stride; r += stride)
            R(v_store_upto)(dx + r, scale * R(m_exp)(R(v_load_upto)(x + r, width, none) - shift), width);
        return;
    }
    V sum = none;
    for (int64_t r = 0; r < n * stride; r += stride) {
        const V v = R(v_load_upto)(g + r, width, none);
        sum += kind == SOFTMAX_BACKWARD ? v * R(v_load_upto)(x + r, width, none) : v;
    }
    for (int64_t r = 0; r < n * stride; r += stride) {
        const V v = R(v_load_upto)(g + r, width, none), y = R(v_load_upto)(x + r, width, none);
        R(v_store_upto)(dx + r, kind == SOFTMAX_BACKWARD ? y * (v - sum) : v - R(m_exp)(y) * sum, width);
    }
}

/* Task: strips begin .. end-1, counted through all slabs. */
static void R(normalize_strips)(void *context, int64_t begin, int64_t end) {
    const struct R(normalize_job) *job = context;
    const int64_t n = job->n, stride = job->inner;
    for (int64_t task = begin; task < end; task++) {
        const int64_t o = task / job->strips, c = task % job->strips * LANES;
        const int64_t width = stride - c < LANES ? stride - c : LANES;
        const int64_t at = o * n * stride + c, reduced = o * stride + c;
        T *const y = job->y + at;
        const T *const x = job->x + at;
        switch (job->kind) {
        case SOFTMAX: R(normalize_strip)(SOFTMAX, y, x, n, stride, width); break;
        case LOG_SOFTMAX: R(normalize_strip)(LOG_SOFTMAX, y, x, n, stride, width); break;
        case LOGSUMEXP: R(normalize_strip)(LOGSUMEXP, job->y + reduced, x, n, stride, width); break;
        case SOFTMAX_BACKWARD:
            R(normalize_strip_backward)(SOFTMAX_BACKWARD, y, job->g + at, x, NULL, n, stride, width);
            break;
        case LOG_SOFTMAX_BACKWARD:
            R(normalize_strip_backward)(LOG_SOFTMAX_BACKWARD, y, job->g + at, x, NULL, n, stride, width);
            break;
        default:
            R(normalize_strip_backward)(LOGSUMEXP_BACKWARD, y, job->g + reduced, x, job->result + reduced, n, stride,
                                        width);
        }
    }
}

/* ---- members ---------------------------------------------------------------- */

static void R(normalize)(struct R(normalize_job) job, int64_t outer) {
    job.strips = (job.inner + LANES - 1) / LANES;
    const double work = (double)outer * (double)job.n * (double)job.inner * NORMALIZE_NANOSECONDS;
    if (job.inner == 1)
        fbp_split(outer, work, R(normalize_rows), &job);
    else
        fbp_split(outer * job.strips, work, R(normalize_strips), &job);
}

static void R(softmax)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {
    R(normalize)((struct R(normalize_job)){.kind = SOFTMAX, .y = y, .x = x, .n = n, .inner = inner}, outer);
}
static void R(log_softmax)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {
    R(normalize)((struct R(normalize_job)){.kind = LOG_SOFTMAX, .y = y, .x = x, .n = n, .inner = inner}, outer);
}
static void R(logsumexp)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner) {
    R(normalize)((struct R(normalize_job)){.kind = LOGSUMEXP, .y = y, .x = x, .n = n, .inner = inner}, outer);
}
static void R(softmax_backward)(void *dx, const void *g, const void *y, int64_t outer, int64_t n, int64_t inner) {
    R(normalize)((struct R(normalize_job)){.kind = SOFTMAX_BACKWARD, .y = dx, .x = y, .g = g, .n = n, .inner = inner}, outer);
}
static void R(log_softmax_backward)(void *dx, const void *g, const void *y, int64_t outer, int64_t n, int64_t inner) {
    R(normalize)((struct R(normalize_job)){.kind = LOG_SOFTMAX_BACKWARD, .y = dx, .x = y, .g = g, .n = n, .inner = inner},
                 outer);
}
static void R(logsumexp_backward)(void *dx, const void *g, const void *y, const void *x, int64_t outer, int64_t n,
                                  int64_t inner) {
    R(normalize)((struct R(normalize_job)){.kind = LOGSUMEXP_BACKWARD, .y = dx, .x = x, .g = g, .result = y, .n = n,
                                           .inner = inner}, outer);
}
