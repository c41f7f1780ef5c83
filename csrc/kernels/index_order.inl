/* index_order.inl -- sort and topk: keys, the choice of a method, rows over threads. */

/* An unsigned number ordered as element i of a row: NaN above all, -0 equal to 0. */
FBP_INLINE uint64_t key_of(fbp_dtype dtype, const char *row, int64_t i) {
    if (dtype <= FBP_UINT8) return ((const uint8_t *)row)[i];
    if (dtype == FBP_INT32) return ((const uint32_t *)row)[i] ^ 0x80000000u;
    if (dtype == FBP_INT64) return ((const uint64_t *)row)[i] ^ 0x8000000000000000u;
    if (dtype == FBP_FLOAT32) {
        const float x = ((const float *)row)[i];
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        if (x == 0) bits = 0;
        /* a negative float's bits fall as it rises: complement them; the others go above them */
        return x != x ? UINT32_MAX : bits >> 31 ? ~bits : bits | 0x80000000u;
    }
    const double x = ((const double *)row)[i];
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x == 0) bits = 0;
    return x != x ? UINT64_MAX : bits >> 63 ? ~bits : bits | 0x8000000000000000u;
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
    uint64_t best[FEW];
    int64_t held = 0;
    for (int64_t i = 0; i < job->n; i++) {
        const uint64_t key = key_of(job->dtype, row, i) ^ job->flip;
        if (held == job->k && key >= best[held - 1]) continue; /* of equals the first stays */
        int64_t at = held < job->k ? held++ : held - 1;
        for (; at > 0 && key < best[at - 1]; at--) {
            best[at] = best[at - 1];
            out[at] = out[at - 1];
        }
        best[at] = key;
        out[at] = i;
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

static fbp_status topk(fbp_dtype dtype, int64_t rows, int64_t n, int64_t k, bool largest, const void *src, void *values, int64_t *indices) {
    /* A narrow key is flipped in its own 32 bits only: the word's upper half. */
    const uint64_t all = fbp_dtype_size(dtype) == 8 ? UINT64_MAX : UINT32_MAX;
    bool failed = false;
    order_job job = {dtype, rows, n, k, largest ? all : 0, src, values, indices, &failed};
    if (rows <= 0 || k <= 0) return FBP_OK;
    const double steps = k <= FEW && k < n ? 2 : n < 1024 ? 20 : 4.0 * fbp_dtype_size(dtype);
    fbp_split(rows, (double)rows * (double)n * steps, order_tasks, &job);
    if (failed) return fbp_fail(FBP_ERROR_MEMORY, "sort: no working memory for rows of %lld elements", (long long)n);
    return FBP_OK;
}

static fbp_status sort(fbp_dtype dtype, int64_t rows, int64_t n, bool descending, const void *src, void *values, int64_t *indices) {
    return topk(dtype, rows, n, n, descending, src, values, indices);
}
