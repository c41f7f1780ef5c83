/* index_order.inl -- sort and topk: keys, the choice of a method, rows over threads. */

enum { KEY_BLOCK = 256 };

/* Bits of a float as an unsigned number of its order: a negative float's bits fall as it rises, so they are
 * complemented, and the others go above them; NaN above all, -0 as 0. */
FBP_INLINE uint32_t key_of_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t key = bits ^ ((uint32_t)-(int32_t)(bits >> 31) | 0x80000000u);
    return x != x ? UINT32_MAX : x == 0 ? 0x80000000u : key;
}
FBP_INLINE uint64_t key_of_f64(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t key = bits ^ ((uint64_t)-(int64_t)(bits >> 63) | 0x8000000000000000u);
    return x != x ? UINT64_MAX : x == 0 ? 0x8000000000000000u : key;
}

/* Keys of elements begin .. begin + n - 1 of the row: an unsigned number ordered as the element, n <= KEY_BLOCK. */
static void block_keys(const order_job *job, const char *row, int64_t begin, int64_t n, uint64_t *restrict key) {
    const uint64_t flip = job->flip;
#define KEYS(type, expression)                                 \
    do {                                                       \
        const type *restrict from = (const type *)row + begin; \
        for (int64_t i = 0; i < n; i++) {                      \
            const type x = from[i];                            \
            key[i] = (uint64_t)(expression) ^ flip;            \
        }                                                      \
    } while (0)
    if (job->dtype <= FBP_UINT8) KEYS(uint8_t, x);
    else if (job->dtype == FBP_INT32) KEYS(uint32_t, x ^ 0x80000000u);
    else if (job->dtype == FBP_INT64) KEYS(uint64_t, x ^ 0x8000000000000000u);
    else if (job->dtype == FBP_FLOAT32) KEYS(float, key_of_f32(x));
    else KEYS(double, key_of_f64(x));
#undef KEYS
}

/* Keys of 32 bits share a word with the position: one comparison orders both. */
#define ITEM uint64_t
#define E(name) name##_narrow
#define MAKE(key, position) ((key) << 32 | (uint64_t)(position))
#define KEY(item) ((item) >> 32)
#define POSITION(item) ((int64_t)((item) & 0xFFFFFFFFu))
#define BEFORE(a, b) ((a) < (b))
#define KEY_BYTES 4
#include "kernels/index_sort.inl"

typedef struct wide_item {
    uint64_t key;
    int64_t position;
} wide_item;

#define ITEM wide_item
#define E(name) name##_wide
#define MAKE(key, position) ((wide_item){key, position})
#define KEY(item) ((item).key)
#define POSITION(item) ((item).position)
#define BEFORE(a, b) ((a).key < (b).key)
#define KEY_BYTES 8
#include "kernels/index_sort.inl"

enum { FEW = 32 };

/* The k <= FEW first of a row: a sorted list of the best so far.  Most elements fail its last entry's test. */
static void order_few(const order_job *job, const char *row, int64_t *out) {
    uint64_t best[FEW], keys[KEY_BLOCK];
    int64_t held = 0;
    for (int64_t begin = 0; begin < job->n; begin += KEY_BLOCK) {
        const int64_t count = job->n - begin < KEY_BLOCK ? job->n - begin : KEY_BLOCK;
        block_keys(job, row, begin, count, keys);
        for (int64_t i = 0; i < count; i++) {
            const uint64_t key = keys[i];
            if (held == job->k && key >= best[held - 1]) continue; /* of equals the first stays */
            int64_t at = held < job->k ? held++ : held - 1;
            for (; at > 0 && key < best[at - 1]; at--) {
                best[at] = best[at - 1];
                out[at] = out[at - 1];
            }
            best[at] = key;
            out[at] = begin + i;
        }
    }
}

static void order_tasks(void *context, int64_t begin, int64_t end) {
    const order_job *job = context;
    const int size = fbp_dtype_size(job->dtype);
    const bool few = job->k <= FEW && job->k < job->n, wide = size == 8 || job->n > UINT32_MAX;
    void *work = NULL;
    int64_t *positions;
    if (few) {
        positions = fbp_scratch(FBP_SCRATCH_KERNEL, FEW * sizeof *positions);
    } else { /* 2 n items, then the positions */
        const size_t items = 2 * (size_t)job->n * (wide ? sizeof(wide_item) : sizeof(uint64_t));
        work = fbp_scratch(FBP_SCRATCH_KERNEL, items + (size_t)job->k * sizeof *positions);
        positions = work ? (int64_t *)((char *)work + items) : NULL;
    }
    if (!positions) {
        __atomic_store_n(job->failed, true, __ATOMIC_RELAXED);
        return;
    }
    for (int64_t r = begin; r < end; r++) {
        const char *row = job->src + r * job->n * size;
        int64_t *order = job->indices ? job->indices + r * job->k : positions;
        if (few) order_few(job, row, order);
        else if (wide) order_row_wide(job, row, order, work);
        else order_row_narrow(job, row, order, work);
        if (!job->values) continue;
        char *values = job->values + r * job->k * size;
        if (size == 1) load_line_1(job->k, order, (void *)(uintptr_t)row, 1, 0, values, 1);
        else if (size == 4) load_line_4(job->k, order, (void *)(uintptr_t)row, 1, 0, values, 1);
        else load_line_8(job->k, order, (void *)(uintptr_t)row, 1, 0, values, 1);
    }
}

static fbp_status topk(fbp_dtype dtype, int64_t rows, int64_t n, int64_t k, bool largest, const void *src, void *values,
                       int64_t *indices) {
    /* A narrow key is flipped in its own 32 bits only: the word's upper half. */
    const uint64_t all = fbp_dtype_size(dtype) == 8 ? UINT64_MAX : UINT32_MAX;
    bool failed = false;
    order_job job = {dtype, rows, n, k, largest ? all : 0, src, values, indices, &failed};
    if (rows <= 0 || k <= 0) return FBP_OK;
    const double steps = k <= FEW && k < n ? 1 : 2.5 * fbp_dtype_size(dtype) + 6;
    fbp_split(rows, (double)rows * (double)n * steps, order_tasks, &job);
    if (failed) return fbp_fail(FBP_ERROR_MEMORY, "sort: no working memory for rows of %lld elements", (long long)n);
    return FBP_OK;
}

static fbp_status sort(fbp_dtype dtype, int64_t rows, int64_t n, bool descending, const void *src, void *values,
                       int64_t *indices) {
    return topk(dtype, rows, n, n, descending, src, values, indices);
}
