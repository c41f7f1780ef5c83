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
    double smoothing;         /* 0 for nll */
    double weight_sum;        /* over classes; read only with smoothing */
    int64_t slab_batches;     /* batches in a slab (all rows are one slab for inner == 1) */
    int64_t batches, group;   /* in all, and in a group */
    double *sums;             /* per group: loss, weight */
    T *dx;                    /* backward: result, */
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

/* Weight of a position's target, 0 for ignored ones. */
FBP_INLINE double R(loss_weight)(const fbp_class_loss *a, int64_t position) {
    const int64_t t = a->target[position];
    if (t == a->ignore_index) return 0;
    return a->weight ? (double)((const T *)a->weight)[t] : 1.0;
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
    for (int64_t k = 0; k < b.count; k++) {
        const double w = R(loss_weight)(a, b.first + k);
        const double rest = parts.rest[k], shift = parts.shift[k];
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

/* Task: groups begin .. end-1. */
static void R(loss_groups)(void *context, int64_t begin, int64_t end) {
    const struct R(loss_job) *job = context;
    for (int64_t g = begin; g < end; g++) {
        const int64_t last = (g + 1) * job->group < job->batches ? (g + 1) * job->group : job->batches;
        double loss = 0, weight = 0;
        for (int64_t batch = g * job->group; batch < last; batch++) {
            double batch_weight = 0;
            loss += R(loss_of_batch)(job, batch, &batch_weight);
            weight += batch_weight;
        }
        job->sums[2 * g] = loss;
        job->sums[2 * g + 1] = weight;
    }
}

/* Fill in what follows from the arguments' shape. */
static void R(loss_plan)(struct R(loss_job) *job) {
    const fbp_class_loss *a = job->a;
    const int64_t slab = a->inner == 1 ? a->outer : a->inner;
    job->slab_batches = (slab + LOSS_BATCH - 1) / LOSS_BATCH;
    job->batches = a->inner == 1 ? job->slab_batches : a->outer * job->slab_batches;
    job->group = (job->batches + LOSS_GROUPS - 1) / LOSS_GROUPS;
    if (job->smoothing == 0) return;
    job->weight_sum = 0;
    for (int64_t c = 0; c < a->classes; c++) job->weight_sum += a->weight ? (double)((const T *)a->weight)[c] : 1.0;
}

static int64_t R(loss_forward)(struct R(loss_job) job, T *loss, T *total_weight) {
    const fbp_class_loss *a = job.a;
    const int64_t bad = loss_bad_target(a);
    if (bad >= 0) return bad;
    double sums[2 * LOSS_GROUPS], value = 0, weight = 0;
    job.sums = sums;
    job.loss = a->reduction == FBP_REDUCTION_NONE ? loss : NULL;
    R(loss_plan)(&job);
    const int64_t groups = job.batches > 0 ? (job.batches + job.group - 1) / job.group : 0;
    const double elements = (double)a->outer * (double)a->inner * (double)(job.logits ? a->classes : 1);
    fbp_split(groups, elements * LOSS_NANOSECONDS, R(loss_groups), &job);
    for (int64_t g = 0; g < groups; g++) {
        value += sums[2 * g];
        weight += sums[2 * g + 1];
    }
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

static void R(loss_zero)(const struct R(loss_job) *job, const struct R(loss_batch) *b, int64_t k) {
    T *dx = job->dx + b->base + k * b->step;
    for (int64_t c = 0; c < job->a->classes; c++) dx[c * b->stride] = 0;
}

/* One batch of cross entropy.  For a position with cotangent g:
 *     d/dx[c] = g * ((1-s) w[t] + s/classes * sum w) * p[c]  -  g * s/classes * w[c]  -  (c == t) * g * (1-s) w[t]. */
static void R(cross_entropy_backward_batch)(const struct R(loss_job) *job, const struct R(loss_batch) *b) {
    const fbp_class_loss *a = job->a;
    const T *w = a->weight;
    T pull[LOSS_BATCH + LANES] = {0}, push[LOSS_BATCH + LANES] = {0}, own[LOSS_BATCH];
    const double share = job->smoothing / (double)a->classes;
    for (int64_t k = 0; k < b->count; k++) {
        const double target_weight = R(loss_weight)(a, b->first + k) * (1 - job->smoothing);
        const double g = job->scale * (double)job->dloss[a->reduction == FBP_REDUCTION_NONE ? b->first + k : 0];
        own[k] = (T)(g * target_weight);
        pull[k] = (T)(g * (target_weight + (share != 0 ? share * job->weight_sum : 0)));
        push[k] = (T)(g * share);
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
    for (int64_t k = 0; k < b->count; k++) {
        if (target[k] == a->ignore_index)
            R(loss_zero)(job, b, k);
        else
            job->dx[b->base + k * b->step + target[k] * b->stride] -= own[k];
    }
}

static void R(nll_backward_batch)(const struct R(loss_job) *job, const struct R(loss_batch) *b) {
    const fbp_class_loss *a = job->a;
    for (int64_t k = 0; k < b->count; k++) {
        const int64_t t = a->target[b->first + k];
        R(loss_zero)(job, b, k);
        if (t == a->ignore_index) continue;
        const double g = job->scale * (double)job->dloss[a->reduction == FBP_REDUCTION_NONE ? b->first + k : 0];
        job->dx[b->base + k * b->step + t * b->stride] = (T)(-g * R(loss_weight)(a, b->first + k));
    }
}

/* Task: batches begin .. end-1. */
static void R(loss_backward_batches)(void *context, int64_t begin, int64_t end) {
    const struct R(loss_job) *job = context;
    for (int64_t batch = begin; batch < end; batch++) {
        const struct R(loss_batch) b = R(loss_batch_at)(job, batch);
        if (job->logits)
            R(cross_entropy_backward_batch)(job, &b);
        else
            R(nll_backward_batch)(job, &b);
    }
}

static void R(loss_backward)(struct R(loss_job) job, const T *total_weight) {
    const fbp_class_loss *a = job.a;
    job.scale = a->reduction == FBP_REDUCTION_MEAN ? 1 / (double)*total_weight : 1.0;
    R(loss_plan)(&job);
    const double elements = (double)a->outer * (double)a->inner * (double)a->classes;
    fbp_split(job.batches, elements * LOSS_NANOSECONDS / 4, R(loss_backward_batches), &job);
}

static void R(cross_entropy_backward)(void *dlogits, const void *dloss, const void *total_weight, const void *softmax,
                                      const fbp_class_loss *arguments) {
    R(loss_backward)((struct R(loss_job)){.a = arguments, .softmax = (T *)softmax, .dx = dlogits, .dloss = dloss,
                                          .logits = true, .smoothing = arguments->label_smoothing}, total_weight);
}

static void R(nll_backward)(void *dx, const void *dloss, const void *total_weight, const fbp_class_loss *arguments) {
    R(loss_backward)((struct R(loss_job)){.a = arguments, .dx = dx, .dloss = dloss}, total_weight);
}
