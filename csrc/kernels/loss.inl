/* loss.inl -- cross entropy and negative log-likelihood for the real type in force (include after normalize_parts.inl).
 *
 * Positions are taken in batches of at most LOSS_BATCH neighbours: rows for inner == 1, columns of one slab else.  A
 * group is a fixed run of batches whose losses are added into one pair of doubles; groups are what threads share.
 */

/* One call; groups write only what is their own. */
struct R(loss_job) {
    const fbp_class_loss *a;
    const T *x;               /* logits, or log-probabilities for nll */
    T *softmax;               /* or NULL */
    T *loss;                  /* for reduction none: [outer][inner]; else NULL */
    bool logits;              /* cross entropy, not nll */
    bool few;                 /* rows of few classes in the plain case: a row in each lane */
    double smoothing;         /* 0 for nll */
    double weight_sum;        /* over classes; read only with smoothing */
    int64_t slab_batches;     /* batches in a slab (all rows are one slab for inner == 1) */
    int64_t batches, group;   /* in all, and in a group */
    double *sums;             /* per group: loss, weight */
    T *dx;                    /* backward, or both at once: result, */
    const T *dloss;           /* cotangent, */
    double scale;             /* and its factor: 1, or 1/total weight for mean */
};

/* Positions of a batch: k = 0 .. count-1 is flat position `first` + k and its class c is element
 * base + k*step + c*stride of x. */
struct R(loss_batch) {
    int64_t first, count, base, step, stride;
};

/* What is known of a batch's positions before their losses; shift and rest have room for a whole last vector. */
struct R(loss_parts) {
    T shift[LOSS_BATCH + LANES];  /* largest logit; 0 for nll */
    T rest[LOSS_BATCH + LANES];   /* (log) sum exp(x - shift); 0 for nll */
    T chosen[LOSS_BATCH];         /* x of the target */
    double drop[LOSS_BATCH];      /* loss_drop, with smoothing alone */
};

static struct R(loss_batch) R(loss_batch_at)(const struct R(loss_job) *job, int64_t batch) {
    const int64_t inner = job->a->inner, classes = job->a->classes;
    struct R(loss_batch) b;
    const int64_t slab = batch / job->slab_batches, begin = batch % job->slab_batches * LOSS_BATCH;
    const int64_t slab_size = inner == 1 ? job->a->outer : inner;
    b.count = slab_size - begin < LOSS_BATCH ? slab_size - begin : LOSS_BATCH;
    b.first = slab * slab_size + begin;
    b.base = inner == 1 ? begin * classes : slab * classes * inner + begin;
    b.step = inner == 1 ? classes : 1;
    b.stride = inner;
    return b;
}

/* Weights of the targets of positions first .. first + count-1, 0 for ignored ones. */
static __attribute__((noinline)) void R(loss_weights)(const fbp_class_loss *a, int64_t first, int64_t count,
                                                      double *weight) {
    const int64_t *target = a->target + first;
    const T *w = a->weight;
    if (w)
        for (int64_t k = 0; k < count; k++) weight[k] = target[k] == a->ignore_index ? 0 : (double)w[target[k]];
    else
        for (int64_t k = 0; k < count; k++) weight[k] = target[k] != a->ignore_index;
}

/* sum over c of w[c] * (shift - x[c]) of one position: of terms >= 0, so nothing cancels. */
static double R(loss_drop)(const struct R(loss_job) *job, const T *x, int64_t stride, T shift) {
    const T *w = job->a->weight;
    double sum = 0;
    for (int64_t c = 0; c < job->a->classes; c++)
        sum += (w ? (double)w[c] : 1.0) * ((double)shift - (double)x[c * stride]);
    return sum;
}

/* Position k of a batch for inner == 1.  softmax may lie where x does: it is written last. */
FBP_INLINE void R(loss_row)(const struct R(loss_job) *job, const struct R(loss_batch) *b, int64_t k,
                            struct R(loss_parts) *parts) {
    const int64_t classes = job->a->classes, at = b->base + k * b->step;
    const T *x = job->x + at;
    if (classes <= LANES && job->smoothing == 0) {
        V largest, e;
        const V sum = R(short_row_exp)(x, classes, &largest, &e);
        if (job->softmax) R(v_store_upto)(job->softmax + at, e / sum, classes);
        parts->shift[k] = largest[0];
        parts->rest[k] = sum[0];
        return;
    }
    const V m = R(row_max)(x, classes);
    parts->shift[k] = m[0];
    if (job->smoothing != 0) parts->drop[k] = R(loss_drop)(job, x, 1, m[0]);
    if (!job->softmax) {
        parts->rest[k] = R(row_exp_sum)(false, NULL, x, classes, m)[0];
        return;
    }
    const V sum = R(row_exp_sum)(true, job->softmax + at, x, classes, m);
    R(row_scale)(job->softmax + at, classes, C(1) / sum);
    parts->rest[k] = sum[0];
}

/* Positions k .. k+LANES-1 (or to the batch's end) for inner > 1. */
FBP_INLINE void R(loss_strip)(const struct R(loss_job) *job, const struct R(loss_batch) *b, int64_t k,
                              struct R(loss_parts) *parts) {
    const int64_t classes = job->a->classes, stride = b->stride;
    const int64_t width = b->count - k < LANES ? b->count - k : LANES;
    const T *x = job->x + b->base + k;
    const V m = R(strip_max)(x, classes, stride, width);
    R(v_store)(parts->shift + k, m);
    if (job->smoothing != 0)
        for (int64_t i = 0; i < width; i++) parts->drop[k + i] = R(loss_drop)(job, x + i, stride, parts->shift[k + i]);
    if (!job->softmax) {
        R(v_store)(parts->rest + k, R(strip_exp_sum)(false, NULL, x, classes, stride, width, m));
        return;
    }
    T *p = job->softmax + b->base + k;
    const V sum = R(strip_exp_sum)(true, p, x, classes, stride, width, m);
    R(strip_scale)(p, classes, stride, width, C(1) / sum);
    R(v_store)(parts->rest + k, sum);
}

/* Losses of one batch; returns their sum and, in *weight, the sum of their weights. */
static double R(loss_of_batch)(const struct R(loss_job) *job, int64_t batch, double *weight) {
    const fbp_class_loss *a = job->a;
    const struct R(loss_batch) b = R(loss_batch_at)(job, batch);
    struct R(loss_parts) parts;
    const int64_t *target = a->target + b.first;
    double sum = 0;
    memset(parts.shift, 0, sizeof parts.shift);
    memset(parts.rest, 0, sizeof parts.rest);
    for (int64_t k = 0; k < b.count; k++) /* before softmax may overwrite it */
        parts.chosen[k] = target[k] == a->ignore_index ? 0 : job->x[b.base + k * b.step + target[k] * b.stride];
    if (job->logits) {
        if (b.stride == 1)
            for (int64_t k = 0; k < b.count; k++) R(loss_row)(job, &b, k, &parts);
        else
            for (int64_t k = 0; k < b.count; k += LANES) R(loss_strip)(job, &b, k, &parts);
        for (int64_t k = 0; k < b.count; k += LANES) /* one log for many positions */
            R(v_store)(parts.rest + k, R(m_log)(R(v_load)(parts.rest + k)));
    }
    double weights[LOSS_BATCH];
    R(loss_weights)(a, b.first, b.count, weights);
    for (int64_t k = 0; k < b.count; k++) {
        const double w = weights[k], rest = parts.rest[k], shift = parts.shift[k];
        double value = w * (rest + (shift - (double)parts.chosen[k]));
        if (job->smoothing != 0) {
            const double even = job->weight_sum * rest + parts.drop[k];
            value = (1 - job->smoothing) * value + job->smoothing / (double)a->classes * even;
        }
        if (target[k] == a->ignore_index) value = 0;
        if (job->loss) job->loss[b.first + k] = (T)value;
        sum += value;
        *weight += w;
    }
    return sum;
}

/* ---- few classes -------------------------------------------------------- */

/* A short row would leave most lanes idle and be folded across them twice.  So rows of few classes are turned until
 * each lane holds a row: then maximum, sum and logarithm are plain operations on vectors.  Where several rows fit into
 * one vector they are turned together: a tile is LANES vectors of `per` rows; lane j holds rows j*per .. j*per + per-1,
 * and the tile gives `per` groups, each of every per-th row.  Each step runs over all of a batch before the next, so
 * that the processor has independent groups at hand. */
enum { R(FEW_GROUPS) = LOSS_BATCH / LANES };

struct R(few_batch) {
    int64_t classes, rows;
    int64_t per;            /* rows side by side: 2^bits; 1 where a row needs more than a vector, and for none */
    int64_t groups;         /* of LANES rows, of which the last may be missing */
    IT target[LOSS_BATCH];  /* [groups][LANES]: a class, or -1 for ignored and for missing rows */
    V shift[R(FEW_GROUPS)]; /* largest logit */
    V chosen[R(FEW_GROUPS)];                    /* logit of the target */
    V sum[R(FEW_GROUPS)];                       /* of exp(x - shift) */
    V column[R(FEW_GROUPS) * LOSS_FEW + LANES]; /* [groups][classes], and room for a turn's spare columns */
};

/* r[j] lane i <-> r[i] lane j.  Step d joins vectors d apart.  Steps within 16 bytes, and steps that move 16 bytes
 * whole, come in the forms that are one cheap instruction.  Two such steps d and 2d leave half the vectors in each
 * other's places; TURN_SWAP puts them right, and being done by the compiler costs nothing. */
#define TURN_STEP(d, LOW, HIGH)                                  \
    FBP_UNROLL for (int i = 0; i < LANES; i++) if (!(i & (d))) { \
        const V a = r[i], b = r[i + (d)];                        \
        r[i] = __builtin_shufflevector(a, b, LOW);               \
        r[i + (d)] = __builtin_shufflevector(a, b, HIGH);        \
    }
#define TURN_SWAP(d)                                                           \
    FBP_UNROLL for (int i = 0; i < LANES; i++) if ((i & (3 * (d))) == (d)) {   \
        const V a = r[i];                                                      \
        r[i] = r[i + (d)];                                                     \
        r[i + (d)] = a;                                                        \
    }
#define TURN_MASK(...) __VA_ARGS__
FBP_INLINE void R(few_turn)(V *r) {
#if LANES == 16
    TURN_STEP(1, TURN_MASK(0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29),
              TURN_MASK(2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31))
    TURN_STEP(2, TURN_MASK(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
              TURN_MASK(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    TURN_STEP(4, TURN_MASK(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
              TURN_MASK(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    TURN_STEP(8, TURN_MASK(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
              TURN_MASK(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
    TURN_SWAP(1)
    TURN_SWAP(4)
#elif LANES == 8 && REAL_IS_F32
    TURN_STEP(1, TURN_MASK(0, 8, 1, 9, 4, 12, 5, 13), TURN_MASK(2, 10, 3, 11, 6, 14, 7, 15))
    TURN_STEP(2, TURN_MASK(0, 1, 8, 9, 4, 5, 12, 13), TURN_MASK(2, 3, 10, 11, 6, 7, 14, 15))
    TURN_STEP(4, TURN_MASK(0, 1, 2, 3, 8, 9, 10, 11), TURN_MASK(4, 5, 6, 7, 12, 13, 14, 15))
    TURN_SWAP(1)
#elif LANES == 8
    TURN_STEP(1, TURN_MASK(0, 8, 2, 10, 4, 12, 6, 14), TURN_MASK(1, 9, 3, 11, 5, 13, 7, 15))
    TURN_STEP(2, TURN_MASK(0, 1, 2, 3, 8, 9, 10, 11), TURN_MASK(4, 5, 6, 7, 12, 13, 14, 15))
    TURN_STEP(4, TURN_MASK(0, 1, 4, 5, 8, 9, 12, 13), TURN_MASK(2, 3, 6, 7, 10, 11, 14, 15))
    TURN_SWAP(2)
#elif LANES == 4 && REAL_IS_F32
    TURN_STEP(1, TURN_MASK(0, 4, 1, 5), TURN_MASK(2, 6, 3, 7))
    TURN_STEP(2, TURN_MASK(0, 1, 4, 5), TURN_MASK(2, 3, 6, 7))
    TURN_SWAP(1)
#elif LANES == 4
    TURN_STEP(1, TURN_MASK(0, 4, 2, 6), TURN_MASK(1, 5, 3, 7))
    TURN_STEP(2, TURN_MASK(0, 1, 4, 5), TURN_MASK(2, 3, 6, 7))
#elif LANES == 2
    TURN_STEP(1, TURN_MASK(0, 2), TURN_MASK(1, 3))
#else
    (void)r;
#endif
}
#undef TURN_STEP
#undef TURN_SWAP
#undef TURN_MASK

/* Lay out rows first .. first + rows-1 and read their targets. */
FBP_INLINE void R(few_begin)(struct R(few_batch) *few, const fbp_class_loss *a, int64_t first, int64_t rows) {
    const int64_t *target = a->target + first;
    int bits = 0;
    if (a->reduction != FBP_REDUCTION_NONE) /* then what belongs to each row keeps the rows' order */
        while (2 * a->classes << bits <= LANES && LANES << bits < rows) bits++;
    const int64_t per = 1 << bits, groups = (((rows - 1) / LANES >> bits) + 1) << bits;
    few->classes = a->classes;
    few->rows = rows;
    few->per = per;
    few->groups = groups;
    IT natural[LOSS_BATCH], *into = per == 1 ? few->target : natural; /* in the rows' own order */
    for (int64_t r = 0; r < rows; r++) into[r] = target[r] == a->ignore_index ? -1 : (IT)target[r];
    for (int64_t r = rows; r < groups * LANES; r++) into[r] = -1;
    for (int64_t g = 0; per > 1 && g < groups; g++) {
        const IT *from = natural + (g >> bits << bits) * LANES + (g & (per - 1));
        for (int64_t j = 0; j < LANES; j++) few->target[g * LANES + j] = from[j << bits];
    }
}

/* Targets of group g. */
FBP_INLINE VI R(few_target)(const struct R(few_batch) *few, int64_t g) {
    VI target;
    memcpy(&target, few->target + g * LANES, sizeof target);
    return target;
}

/* Turn one tile: columns c .. c+LANES-1 of rows `width` elements apart, `elements` of them in all, at x.  A vector may
 * read on into the next row, never behind the last.  A call, for among other loops it would lack registers. */
static __attribute__((noinline)) void R(few_load_tile)(V *column, const T *x, int64_t width, int64_t elements) {
    V r[LANES];
    const int64_t last = (LANES - 1) * width;
    if (elements > last && elements >= last - width + LANES) { /* all but the last vector are whole */
        FBP_UNROLL for (int j = 0; j < LANES - 1; j++) r[j] = R(v_load)(x + j * width);
        r[LANES - 1] = R(v_load_upto)(x + last, elements - last, (V){0});
    } else {
        for (int64_t j = 0, left = elements; j < LANES; j++, left -= width)
            column[j] = left > 0 ? R(v_load_upto)(x + j * width, left, (V){0}) : (V){0};
        FBP_UNROLL for (int j = 0; j < LANES; j++) r[j] = column[j];
    }
    R(few_turn)(r);
    FBP_UNROLL for (int j = 0; j < LANES; j++) column[j] = r[j];
}

/* The reverse.  A vector that ends behind its row spoils the beginning of the next, which must be stored later. */
static __attribute__((noinline)) void R(few_store_tile)(T *y, V *column, int64_t width, int64_t elements) {
    V r[LANES];
    const int64_t last = (LANES - 1) * width;
    FBP_UNROLL for (int j = 0; j < LANES; j++) r[j] = column[j];
    R(few_turn)(r);
    if (elements > last && elements >= last - width + LANES) {
        FBP_UNROLL for (int j = 0; j < LANES - 1; j++) R(v_store)(y + j * width, r[j]);
        R(v_store_upto)(y + last, r[LANES - 1], elements - last);
    } else {
        V spare[LANES];
        FBP_UNROLL for (int j = 0; j < LANES; j++) spare[j] = r[j];
        for (int64_t j = 0, left = elements; j < LANES && left > 0; j++, left -= width)
            R(v_store_upto)(y + j * width, spare[j], left);
    }
}

/* Columns from the rows at x. */
FBP_INLINE void R(few_load)(struct R(few_batch) *few, const T *x) {
    const int64_t width = few->per * few->classes, tile = LANES * width, all = few->rows * few->classes;
    V *column = few->column;
    for (int64_t at = 0; at < all; at += tile, column += width)
        for (int64_t c = 0; c < width; c += LANES)
            R(few_load_tile)(column + c, x + at + c, width, (all - at < tile ? all - at : tile) - c);
}

/* Columns to the rows at y: a row's end before its beginning, which the row above may spoil. */
FBP_INLINE void R(few_store)(struct R(few_batch) *few, T *y) {
    const int64_t width = few->per * few->classes, tile = LANES * width, all = few->rows * few->classes;
    V *column = few->column;
    for (int64_t at = 0; at < all; at += tile, column += width)
        for (int64_t c = (width - 1) / LANES * LANES; c >= 0; c -= LANES)
            R(few_store_tile)(y + at + c, column + c, width, (all - at < tile ? all - at : tile) - c);
}

/* Columns become exp(x - shift), and their sums are taken.  A NaN may get lost among the maxima, never in a sum. */
FBP_INLINE void R(few_exp)(struct R(few_batch) *few) {
    const int64_t classes = few->classes;
    for (int64_t g = 0; g < few->groups; g++) {
        const V *x = few->column + g * classes;
        V shift = x[0];
        for (int64_t c = 1; c < classes; c++) shift = R(m_greater)(shift, x[c]);
        few->shift[g] = shift;
    }
    for (int64_t g = 0; g < few->groups; g++) {
        const VI target = R(few_target)(few, g);
        V *x = few->column + g * classes, chosen = {0}, sum = {0}, shift = few->shift[g];
        for (int64_t c = 0; c < classes; c++) {
            const V e = R(m_exp)(x[c] - shift);
            chosen = R(v_select)(target == (IT)c, x[c], chosen);
            x[c] = e;
            sum += e;
        }
        few->chosen[g] = chosen;
        few->sum[g] = sum;
    }
}

/* Sum of the rows' losses, which go to `loss` too unless that is NULL. */
FBP_INLINE double R(few_losses)(const struct R(few_batch) *few, T *loss) {
    fbp_vf64 sum[LANES / FBP_F64_LANES] = {{0}};
    double lane[LANES];
    for (int64_t g = 0; g < few->groups; g++) {
        const VI counts = R(few_target)(few, g) >= 0; /* what does not count is 0 + (0 - 0) */
        T rest[LANES], shift[LANES], chosen[LANES];
        double value[LANES];
        R(v_store)(rest, R(m_log)(R(v_select)(counts, few->sum[g], R(v_splat)(1))));
        R(v_store)(shift, (V)((VI)few->shift[g] & counts));
        R(v_store)(chosen, (V)((VI)few->chosen[g] & counts));
        for (int j = 0; j < LANES; j++) value[j] = (double)rest[j] + ((double)shift[j] - (double)chosen[j]);
        for (int k = 0; k < LANES / FBP_F64_LANES; k++) {
            fbp_vf64 part;
            memcpy(&part, value + k * FBP_F64_LANES, sizeof part);
            sum[k] += part;
        }
        if (loss) {
            for (int j = 0; j < LANES; j++) rest[j] = (T)value[j];
            R(v_store_upto)(loss + g * LANES, R(v_load)(rest), few->rows - g * LANES);
        }
    }
    memcpy(lane, sum, sizeof lane);
    FBP_UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        FBP_UNROLL for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
}

/* Columns from exponentials to softmax. */
FBP_INLINE void R(few_scale)(struct R(few_batch) *few) {
    for (int64_t g = 0; g < few->groups; g++) {
        V *x = few->column + g * few->classes;
        const V inverse = C(1) / few->sum[g];
        for (int64_t c = 0; c < few->classes; c++) x[c] *= inverse;
    }
}

/* Columns from softmax to derivatives; rows begin at flat position `first`.  p is a rounded number here, and p - 1 is
 * exact or nearly so: the bits are those of few_backward_batch. */
FBP_INLINE void R(few_derivative)(const struct R(loss_job) *job, struct R(few_batch) *few, int64_t first) {
    const bool each = job->a->reduction == FBP_REDUCTION_NONE;
    V pull = R(v_splat)(each ? 0 : (T)(job->scale * (double)job->dloss[0]));
    for (int64_t g = 0; g < few->groups; g++) {
        const VI target = R(few_target)(few, g);
        V *x = few->column + g * few->classes;
        if (each) pull = R(v_load_upto)(job->dloss + first + g * LANES, few->rows - g * LANES, pull);
        for (int64_t c = 0; c < few->classes; c++) {
            const V own = R(v_select)(target == (IT)c, R(v_splat)(1), (V){0});
            x[c] = (V)((VI)((x[c] - own) * pull) & (target >= 0));
        }
    }
}

/* Losses of one batch and, as asked for, its softmax or derivatives; returns the losses' sum. */
static double R(few_loss_of_batch)(const struct R(loss_job) *job, int64_t batch) {
    const struct R(loss_batch) b = R(loss_batch_at)(job, batch);
    struct R(few_batch) few;
    R(few_begin)(&few, job->a, b.first, b.count);
    R(few_load)(&few, job->x + b.base);
    R(few_exp)(&few);
    const double sum = R(few_losses)(&few, job->loss ? job->loss + b.first : NULL);
    if (!job->dx && !job->softmax) return sum;
    R(few_scale)(&few);
    if (job->dx) R(few_derivative)(job, &few, b.first);
    R(few_store)(&few, (job->dx ? job->dx : job->softmax) + b.base);
    return sum;
}

/* ---- forward ------------------------------------------------------------ */

/* Task: groups begin .. end-1. */
static void R(loss_groups)(void *context, int64_t begin, int64_t end) {
    const struct R(loss_job) *job = context;
    for (int64_t g = begin; g < end; g++) {
        const int64_t last = (g + 1) * job->group < job->batches ? (g + 1) * job->group : job->batches;
        double loss = 0, weight = 0;
        for (int64_t batch = g * job->group; batch < last; batch++) {
            double batch_weight = 0;
            loss += LANES > 1 && job->few ? R(few_loss_of_batch)(job, batch)
                                          : R(loss_of_batch)(job, batch, &batch_weight);
            weight += batch_weight;
        }
        job->sums[2 * g] = loss;
        job->sums[2 * g + 1] = weight;
    }
}

/* Whether cross entropy takes these a row in each lane; the scalar set stays the plain reference. */
static bool R(loss_is_few)(const fbp_class_loss *a) {
    if (LANES == 1 || a->inner != 1 || a->classes < 1 || a->classes > LOSS_FEW) return false;
    return !a->weight && a->label_smoothing == 0;
}

/* Fill in what follows from the arguments. */
static void R(loss_plan)(struct R(loss_job) *job) {
    const fbp_class_loss *a = job->a;
    const int64_t slab = a->inner == 1 ? a->outer : a->inner;
    job->slab_batches = (slab + LOSS_BATCH - 1) / LOSS_BATCH;
    job->batches = a->inner == 1 ? job->slab_batches : a->outer * job->slab_batches;
    job->group = (job->batches + LOSS_GROUPS - 1) / LOSS_GROUPS;
    job->few = job->logits && R(loss_is_few)(a);
    if (job->smoothing == 0) return;
    job->weight_sum = 0;
    for (int64_t c = 0; c < a->classes; c++) job->weight_sum += a->weight ? (double)((const T *)a->weight)[c] : 1.0;
}

/* What the job's work takes one core. */
static double R(loss_nanoseconds)(const struct R(loss_job) *job) {
    const double positions = (double)job->a->outer * (double)job->a->inner;
    if (!job->logits) return positions * LOSS_NANOSECONDS;
    return positions * (double)job->a->classes * (job->few ? LOSS_FEW_NANOSECONDS : LOSS_NANOSECONDS);
}

/* The factor of cotangents where positions weigh total_weight together. */
static double R(loss_scale)(const fbp_class_loss *a, T total_weight) {
    return a->reduction == FBP_REDUCTION_MEAN ? 1 / (double)total_weight : 1.0;
}

static int64_t R(loss_forward)(struct R(loss_job) job, T *loss, T *total_weight) {
    const fbp_class_loss *a = job.a;
    int64_t counted;
    const int64_t bad = loss_bad_target(a, &counted);
    if (bad >= 0) return bad;
    double sums[2 * LOSS_GROUPS], value = 0, weight = 0;
    job.sums = sums;
    job.loss = a->reduction == FBP_REDUCTION_NONE ? loss : NULL;
    R(loss_plan)(&job);
    job.scale = R(loss_scale)(a, (T)counted); /* read only where all weights are 1 */
    const int64_t groups = job.batches > 0 ? (job.batches + job.group - 1) / job.group : 0;
    fbp_split(groups, R(loss_nanoseconds)(&job), R(loss_groups), &job);
    for (int64_t g = 0; g < groups; g++) {
        value += sums[2 * g];
        weight += sums[2 * g + 1];
    }
    if (job.few) weight = (double)counted;
    *total_weight = (T)weight;
    if (a->reduction == FBP_REDUCTION_SUM) *loss = (T)value;
    if (a->reduction == FBP_REDUCTION_MEAN) *loss = (T)(value / weight);
    return -1;
}

static int64_t R(cross_entropy)(void *loss, void *total_weight, void *softmax, const void *logits,
                                const fbp_class_loss *arguments) {
    return R(loss_forward)((struct R(loss_job)){.a = arguments, .x = logits, .softmax = softmax, .logits = true,
                                                .smoothing = arguments->label_smoothing}, loss, total_weight);
}

static int64_t R(nll)(void *loss, void *total_weight, const void *log_probabilities, const fbp_class_loss *arguments) {
    return R(loss_forward)((struct R(loss_job)){.a = arguments, .x = log_probabilities}, loss, total_weight);
}

/* ---- backward ----------------------------------------------------------- */

/* One row: dx[c] = pull * p[c] - push * w[c] - (c == target) * own. */
FBP_INLINE void R(loss_row_backward)(T *dx, const T *p, const T *w, int64_t classes, int64_t target, V pull, V push,
                                     V own) {
    const V one = R(v_splat)(1);
    VI lane = R(v_iota)() - (IT)target; /* 0 at the target; class counts fit the lanes' integers */
    for (int64_t c = 0; c < classes; c += LANES, lane += LANES) {
        const int64_t left = classes - c;
        const V weight = w ? R(v_load_upto)(w + c, left, one) : one;
        const V base = R(v_load_upto)(p + c, left, one) * pull - weight * push;
        R(v_store_upto)(dx + c, R(v_select)(lane == 0, base - own, base), left);
    }
}

static __attribute__((noinline)) void R(loss_zero)(const struct R(loss_job) *job, const struct R(loss_batch) *b,
                                                   int64_t k) {
    T *dx = job->dx + b->base + k * b->step;
    for (int64_t c = 0; c < job->a->classes; c++) dx[c * b->stride] = 0;
}

/* One batch of cross entropy.  For a position with cotangent g:
 *     d/dx[c] = g * ((1-s) w[t] + s/classes * sum w) * p[c]  -  g * s/classes * w[c]  -  (c == t) * g * (1-s) w[t]. */
static void R(cross_entropy_backward_batch)(const struct R(loss_job) *job, const struct R(loss_batch) *b) {
    const fbp_class_loss *a = job->a;
    const T *w = a->weight;
    const bool each = a->reduction == FBP_REDUCTION_NONE;
    const double share = job->smoothing / (double)a->classes, even = share != 0 ? share * job->weight_sum : 0;
    T pull[LOSS_BATCH], push[LOSS_BATCH], own[LOSS_BATCH];
    double weights[LOSS_BATCH], g[LOSS_BATCH];
    R(loss_weights)(a, b->first, b->count, weights);
    for (int64_t k = b->count; k < LOSS_BATCH; k++) weights[k] = g[k] = 0;
    for (int64_t k = 0; each && k < b->count; k++) g[k] = job->scale * (double)job->dloss[b->first + k];
    for (int64_t k = 0; !each && k < LOSS_BATCH; k++) g[k] = job->scale * (double)job->dloss[0];
    for (int64_t k = 0; k < LOSS_BATCH; k++) { /* all of them: a fixed count makes short code */
        own[k] = (T)(g[k] * (weights[k] * (1 - job->smoothing)));
        pull[k] = (T)(g[k] * (weights[k] * (1 - job->smoothing) + even));
        push[k] = (T)(g[k] * share);
    }
    const int64_t *target = a->target + b->first;
    if (b->stride == 1) {
        for (int64_t k = 0; k < b->count; k++) {
            const int64_t at = b->base + k * b->step;
            if (target[k] == a->ignore_index)
                R(loss_zero)(job, b, k);
            else
                R(loss_row_backward)(job->dx + at, job->softmax + at, w, a->classes, target[k], R(v_splat)(pull[k]),
                                     R(v_splat)(push[k]), R(v_splat)(own[k]));
        }
        return;
    }
    for (int64_t c = 0; c < a->classes; c++) {
        const V weight = R(v_splat)(w ? w[c] : 1);
        for (int64_t k = 0; k < b->count; k += LANES) {
            const int64_t at = b->base + c * b->stride + k, left = b->count - k;
            const V p = R(v_load_upto)(job->softmax + at, left, weight);
            R(v_store_upto)(job->dx + at, p * R(v_load)(pull + k) - weight * R(v_load)(push + k), left);
        }
    }
    T *dx = job->dx + b->base;
    const int64_t ignore_index = a->ignore_index, stride = b->stride;
    for (int64_t k = 0; k < b->count; k++) { /* columns: the step is 1 */
        if (target[k] == ignore_index)
            R(loss_zero)(job, b, k);
        else
            dx[k + target[k] * stride] -= own[k];
    }
}

/* y[n] = x[n] * factor; y may be x. */
FBP_INLINE void R(few_scaled)(T *y, const T *x, int64_t n, V factor) {
    for (int64_t i = 0; i < n; i += LANES)
        R(v_store_upto)(y + i, R(v_load_upto)(x + i, n - i, factor) * factor, n - i);
}

/* One batch of few classes: p * pull but at the targets, whose (p - 1) * pull is put by meanwhile. */
static void R(few_backward_batch)(const struct R(loss_job) *job, const struct R(loss_batch) *b) {
    const int64_t classes = job->a->classes, ignore_index = job->a->ignore_index, *target = job->a->target + b->first;
    const bool each = job->a->reduction == FBP_REDUCTION_NONE;
    const T *p = job->softmax + b->base, *dloss = job->dloss + (each ? b->first : 0);
    T *dx = job->dx + b->base;
    const T pull = each ? 0 : (T)(job->scale * (double)*dloss);
    struct {
        int64_t place; /* in dx */
        T value;
    } own[LOSS_BATCH];
    for (int64_t k = 0; k < b->count; k++) {
        own[k].place = k * classes + (target[k] == ignore_index ? 0 : target[k]);
        own[k].value = (p[own[k].place] - 1) * (each ? dloss[k] : pull);
    }
    const int64_t runs = each ? b->count : 1, run = (each ? 1 : b->count) * classes; /* of one factor */
    for (int64_t k = 0; k < runs; k++)
        R(few_scaled)(dx + k * run, p + k * run, run, R(v_splat)(each ? dloss[k] : pull));
    for (int64_t k = 0; k < b->count; k++) {
        if (target[k] == ignore_index)
            memset(dx + k * classes, 0, (size_t)classes * sizeof *dx);
        else
            dx[own[k].place] = own[k].value;
    }
}

static void R(nll_backward_batch)(const struct R(loss_job) *job, const struct R(loss_batch) *b) {
    const fbp_class_loss *a = job->a;
    double weights[LOSS_BATCH];
    R(loss_weights)(a, b->first, b->count, weights);
    for (int64_t k = 0; k < b->count; k++) {
        const int64_t t = a->target[b->first + k];
        R(loss_zero)(job, b, k);
        if (t == a->ignore_index) continue;
        const double g = job->scale * (double)job->dloss[a->reduction == FBP_REDUCTION_NONE ? b->first + k : 0];
        job->dx[b->base + k * b->step + t * b->stride] = (T)(-g * weights[k]);
    }
}

/* Task: batches begin .. end-1. */
static void R(loss_backward_batches)(void *context, int64_t begin, int64_t end) {
    const struct R(loss_job) *job = context;
    for (int64_t batch = begin; batch < end; batch++) {
        const struct R(loss_batch) b = R(loss_batch_at)(job, batch);
        if (LANES > 1 && job->few)
            R(few_backward_batch)(job, &b);
        else if (job->logits)
            R(cross_entropy_backward_batch)(job, &b);
        else
            R(nll_backward_batch)(job, &b);
    }
}

static void R(loss_backward)(struct R(loss_job) job, const T *total_weight) {
    R(loss_plan)(&job);
    job.scale = R(loss_scale)(job.a, *total_weight);
    const double elements = (double)job.a->outer * (double)job.a->inner * (double)job.a->classes;
    fbp_split(job.batches, elements * LOSS_NANOSECONDS / 4, R(loss_backward_batches), &job);
}

static void R(cross_entropy_backward)(void *dlogits, const void *dloss, const void *total_weight, const void *softmax,
                                      const fbp_class_loss *arguments) {
    R(loss_backward)((struct R(loss_job)){.a = arguments, .softmax = (T *)softmax, .dx = dlogits, .dloss = dloss,
                                          .logits = true, .smoothing = arguments->label_smoothing}, total_weight);
}

static int64_t R(cross_entropy_both)(void *loss, void *dlogits, const void *dloss, const void *logits,
                                     const fbp_class_loss *arguments) {
    struct R(loss_job) job = {.a = arguments, .x = logits, .logits = true, .smoothing = arguments->label_smoothing};
    const bool few = R(loss_is_few)(arguments);
    T total_weight;
    if (few) {
        job.dx = dlogits;
        job.dloss = dloss;
    } else {
        job.softmax = dlogits;
    }
    const int64_t bad = R(loss_forward)(job, loss, &total_weight);
    if (bad < 0 && !few) R(cross_entropy_backward)(dlogits, dloss, &total_weight, dlogits, arguments);
    return bad;
}

static void R(nll_backward)(void *dx, const void *dloss, const void *total_weight, const fbp_class_loss *arguments) {
    R(loss_backward)((struct R(loss_job)){.a = arguments, .dx = dx, .dloss = dloss}, total_weight);
}
