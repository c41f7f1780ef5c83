/* update.inl -- one optimizer step for the real type in force (include after lanes.inl and math.inl). */

/* ---- SGD ------------------------------------------------------------------ */

struct R(sgd_job) {
    int64_t count;
    const fbp_sgd_tensor *tensors;
    const fbp_sgd *hyper;
};

/* Numbers that a step shares, in vectors. */
struct R(sgd_numbers) {
    V sign, decay, keep, take, lr;
    bool nesterov, ready;
};

/* Elements i .. i+left-1 (at most a vector) of one tensor; the flags are constants where this is called. */
FBP_INLINE void R(sgd_vector)(const bool decay, const bool momentum, const bool first, const fbp_sgd_tensor *t,
                              const struct R(sgd_numbers) *c, int64_t i, int64_t left) {
    const V p = R(v_load_upto)((const T *)t->param + i, left, c->sign);
    V g = R(v_load_upto)((const T *)t->grad + i, left, c->sign) * c->sign;
    if (decay) g += c->decay * p;
    if (momentum) {
        T *const buffer = (T *)t->momentum_buffer + i;
        const V b = first ? g : c->keep * R(v_load_upto)(buffer, left, c->sign) + c->take * g;
        R(v_store_upto)(buffer, b, left);
        g = c->nesterov ? g + c->keep * b : b;
    }
    R(v_store_upto)((T *)t->param + i, p - c->lr * g, left);
}

static void R(sgd_prepare)(struct R(sgd_numbers) *c, const fbp_sgd *h) {
    c->sign = R(v_splat)(h->maximize ? -1 : 1);
    c->decay = R(v_splat)((T)h->weight_decay);
    c->keep = R(v_splat)((T)h->momentum);
    c->take = R(v_splat)((T)(1 - h->dampening));
    c->lr = R(v_splat)((T)h->lr);
    c->nesterov = h->nesterov;
    c->ready = true;
}

FBP_INLINE void R(sgd_piece)(const bool decay, const bool momentum, const bool first, const fbp_sgd_tensor *tensor,
                             const struct R(sgd_numbers) *numbers, int64_t begin, int64_t end) {
    const struct R(sgd_numbers) c = *numbers; /* copies that no store can change */
    const fbp_sgd_tensor t = *tensor;
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) R(sgd_vector)(decay, momentum, first, &t, &c, i, LANES);
    if (i < end) R(sgd_vector)(decay, momentum, first, &t, &c, i, end - i);
}

/* *c is ready from the first tensor on: nothing in it depends on the tensor. */
static void R(sgd_tensor)(const struct R(sgd_job) *job, struct R(sgd_numbers) *c, int64_t index, int64_t begin,
                          int64_t end) {
    const fbp_sgd_tensor *t = &job->tensors[index];
    const fbp_sgd *h = job->hyper;
    if (!c->ready) R(sgd_prepare)(c, h);
    const bool decay = h->weight_decay != 0;
#define SGD_PIECE(momentum, first)                                         \
    (decay ? R(sgd_piece)(true, momentum, first, t, c, begin, end)         \
           : R(sgd_piece)(false, momentum, first, t, c, begin, end))
    if (!t->momentum_buffer)
        SGD_PIECE(false, false);
    else if (t->first_step)
        SGD_PIECE(true, true);
    else
        SGD_PIECE(true, false);
#undef SGD_PIECE
}

/* ---- Adam ----------------------------------------------------------------- */

struct R(adam_job) {
    int64_t count;
    const fbp_adam_tensor *tensors;
    const fbp_adam *hyper;
};

/* Numbers that one tensor's step shares, in vectors. */
struct R(adam_numbers) {
    V sign, shrink, decay, beta1, rest1, beta2, rest2, step_size, root_scale, eps;
    int64_t step; /* for which they hold; 0: for none */
};

static void R(adam_prepare)(struct R(adam_numbers) *c, const fbp_adam *h, int64_t step) {
    const double correction1 = 1 - pow(h->beta1, (double)step), correction2 = 1 - pow(h->beta2, (double)step);
    c->step = step;
    c->sign = R(v_splat)(h->maximize ? -1 : 1);
    c->shrink = R(v_splat)((T)(h->decoupled ? 1 - h->lr * h->weight_decay : 1));
    c->decay = R(v_splat)((T)h->weight_decay);
    c->beta1 = R(v_splat)((T)h->beta1);
    c->rest1 = R(v_splat)((T)(1 - h->beta1));
    c->beta2 = R(v_splat)((T)h->beta2);
    c->rest2 = R(v_splat)((T)(1 - h->beta2));
    c->step_size = R(v_splat)((T)(h->lr / correction1));
    c->root_scale = R(v_splat)((T)(1 / sqrt(correction2)));
    c->eps = R(v_splat)((T)h->eps);
}

/* Elements i .. i+left-1 (at most a vector) of one tensor; the flags are constants where this is called. */
FBP_INLINE void R(adam_vector)(const bool decay, const bool amsgrad, const fbp_adam_tensor *t,
                               const struct R(adam_numbers) *c, int64_t i, int64_t left) {
    T *const param = (T *)t->param + i, *const exp_avg = (T *)t->exp_avg + i;
    T *const exp_avg_sq = (T *)t->exp_avg_sq + i, *const largest = (T *)t->max_exp_avg_sq + (amsgrad ? i : 0);
    const V p = R(v_load_upto)(param, left, c->eps);
    V g = R(v_load_upto)((const T *)t->grad + i, left, c->eps) * c->sign;
    if (decay) g += c->decay * p;
    const V m = c->beta1 * R(v_load_upto)(exp_avg, left, c->eps) + c->rest1 * g;
    const V v = c->beta2 * R(v_load_upto)(exp_avg_sq, left, c->eps) + c->rest2 * g * g;
    R(v_store_upto)(exp_avg, m, left);
    R(v_store_upto)(exp_avg_sq, v, left);
    V u = v;
    if (amsgrad) {
        u = R(m_max)(R(v_load_upto)(largest, left, c->eps), v);
        R(v_store_upto)(largest, u, left);
    }
    const V denominator = R(m_sqrt)(u) * c->root_scale + c->eps;
    R(v_store_upto)(param, p * c->shrink - c->step_size * m / denominator, left);
}

FBP_INLINE void R(adam_piece)(const bool decay, const bool amsgrad, const fbp_adam_tensor *tensor,
                              const struct R(adam_numbers) *numbers, int64_t begin, int64_t end) {
    const struct R(adam_numbers) c = *numbers; /* copies that no store can change */
    const fbp_adam_tensor t = *tensor;
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) R(adam_vector)(decay, amsgrad, &t, &c, i, LANES);
    if (i < end) R(adam_vector)(decay, amsgrad, &t, &c, i, end - i);
}

/* *c holds the numbers of c->step; two powers are worth as much as a hundred elements, and neighbours agree. */
static void R(adam_tensor)(const struct R(adam_job) *job, struct R(adam_numbers) *c, int64_t index, int64_t begin,
                           int64_t end) {
    const fbp_adam_tensor *t = &job->tensors[index];
    const bool decay = job->hyper->weight_decay != 0 && !job->hyper->decoupled;
    if (t->step != c->step) R(adam_prepare)(c, job->hyper, t->step);
    if (t->max_exp_avg_sq)
        decay ? R(adam_piece)(true, true, t, c, begin, end) : R(adam_piece)(false, true, t, c, begin, end);
    else
        decay ? R(adam_piece)(true, false, t, c, begin, end) : R(adam_piece)(false, false, t, c, begin, end);
}

/* ---- many tensors --------------------------------------------------------- */

/* Chunks of UPDATE_CHUNK elements are counted through all tensors; a task finds the tensor that its first chunk lies
 * in by walking the list, and then works through neighbours in pieces as long as they come. */
#define UPDATE_TASK(name)                                                                              \
    static void R(name##_chunks)(void *context, int64_t begin, int64_t end) {                          \
        const struct R(name##_job) *job = context;                                                     \
        struct R(name##_numbers) numbers = {0};                                                        \
        int64_t first = 0; /* number of tensor i's first chunk */                                      \
        for (int64_t i = 0; i < job->count && first < end; i++) {                                      \
            const int64_t n = job->tensors[i].n, chunks = (n + UPDATE_CHUNK - 1) / UPDATE_CHUNK;       \
            const int64_t from = begin > first ? begin - first : 0;                                    \
            const int64_t to = end - first < chunks ? end - first : chunks;                            \
            const int64_t last = to * UPDATE_CHUNK < n ? to * UPDATE_CHUNK : n;                        \
            if (from < to) R(name##_tensor)(job, &numbers, i, from * UPDATE_CHUNK, last);                        \
            first += chunks;                                                                           \
        }                                                                                              \
    }                                                                                                  \
    static void R(name##_many)(int64_t count, const fbp_##name##_tensor *tensors, const fbp_##name *hyper) { \
        struct R(name##_job) job = {count, tensors, hyper};                                            \
        int64_t chunks = 0, elements = 0;                                                              \
        for (int64_t i = 0; i < count; i++) {                                                          \
            chunks += (tensors[i].n + UPDATE_CHUNK - 1) / UPDATE_CHUNK;                                \
            elements += tensors[i].n;                                                                  \
        }                                                                                              \
        fbp_split(chunks, (double)elements * sizeof(T) * UPDATE_NANOSECONDS_PER_BYTE, R(name##_chunks), &job); \
    }
UPDATE_TASK(sgd)
UPDATE_TASK(adam)
#undef UPDATE_TASK
