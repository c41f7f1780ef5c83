/* index.c -- indexing, masks, small constructors and sorting for one instruction set; the contracts are in index.h.
 *
 * These loops are bound by memory and by unpredictable addresses, not by arithmetic; what there is to gain is in few
 * instructions per element, contiguous inner loops and threads.  Moves have a text per element size
 * (index_element.inl), stores a text per kind of store (index_store.inl), sorting one per item (index_sort.inl).
 */
#include "kernels/index.h"

#include "base/memory.h"
#include "kernels/isa.h"
#include "kernels/split.h"

/* Rough cost of an element that is moved or added through an index, from which the number of threads is decided. */
static const double NANOSECONDS_PER_ELEMENT = 0.7;

typedef void (*line_fn)(int64_t n, const int64_t *index, void *data, int64_t along, int64_t step, void *other,
                        int64_t other_step);

/* `n` rows of `row` elements at place[i] * scale in one tensor and at i * src_stride in the other. */
typedef struct row_job row_job;
typedef void (*row_fn)(const row_job *job, int64_t low, int64_t high, char *dst, const char *src);

struct row_job {
    row_fn run;
    int64_t n, row, scale, src_stride;
    const int64_t *place;
    char *dst;
    const char *src;
    int64_t places;               /* all values of `place` are below this */
    int64_t segments;             /* parts of [0, places), a task each */
    int64_t dst_outer, src_outer; /* bytes from one outer position to the next */
};

/* Sorting: see order_rows. */
typedef struct order_job {
    fbp_dtype dtype;
    int64_t rows, n, k;
    uint64_t flip; /* all ones to sort downwards */
    const char *src;
    char *values;
    int64_t *indices;
    bool *failed;
} order_job;

#define T uint8_t
#define E(name) name##_1
#include "kernels/index_element.inl"
#define T uint32_t
#define E(name) name##_4
#include "kernels/index_element.inl"
#define T uint64_t
#define E(name) name##_8
#include "kernels/index_element.inl"

#define PUT(place, x) ((place) = (x))
#define T uint8_t
#define E(name) name##_1
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) = (x))
#define T uint32_t
#define E(name) name##_4
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) = (x))
#define T uint64_t
#define E(name) name##_8
#include "kernels/index_store.inl"

/* Integers add as unsigned, which wraps where signed addition would be undefined. */
#define PUT(place, x) ((place) |= (x))
#define T uint8_t
#define E(name) name##_add_bool
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) = (uint8_t)((place) + (x)))
#define T uint8_t
#define E(name) name##_add_u8
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) += (x))
#define T uint32_t
#define E(name) name##_add_i32
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) += (x))
#define T uint64_t
#define E(name) name##_add_i64
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) += (x))
#define T float
#define E(name) name##_add_f32
#include "kernels/index_store.inl"
#define PUT(place, x) ((place) += (x))
#define T double
#define E(name) name##_add_f64
#include "kernels/index_store.inl"

/* A text for each element size, a text for each dtype. */
#define BY_SIZE(name) {name##_1, name##_4, name##_8}
#define BY_DTYPE(name) {name##_bool, name##_u8, name##_i32, name##_i64, name##_f32, name##_f64}
static int size_slot(int element_size) { return element_size == 1 ? 0 : element_size == 4 ? 1 : 2; }

/* ---- indices ---- */

static int64_t check_indices(int64_t n, const int64_t *index, int64_t extent) {
    enum { STRETCH = 512 }; /* looked at without branches; only a bad one is searched */
    for (int64_t begin = 0; begin < n; begin += STRETCH) {
        const int64_t end = begin + STRETCH < n ? begin + STRETCH : n;
        int64_t bad = 0;
        for (int64_t i = begin; i < end; i++) bad |= (index[i] < -extent) | (index[i] >= extent);
        for (int64_t i = begin; bad && i < end; i++)
            if (index[i] < -extent || index[i] >= extent) return i;
    }
    return -1;
}

static void normalise_indices(int64_t n, int64_t *out, const int64_t *index, int64_t extent) {
    for (int64_t i = 0; i < n; i++) out[i] = index[i] + (extent & (index[i] >> 63));
}

static int64_t linear_offsets(int k, const int64_t *const *index, const int64_t *extents, const int64_t *strides,
                              int64_t n, int64_t *out, int *bad_array) {
    if (n > 0) memset(out, 0, (size_t)n * sizeof *out);
    for (int a = 0; a < k; a++) {
        const int64_t *restrict from = index[a], extent = extents[a], stride = strides[a];
        const int64_t bad = check_indices(n, from, extent);
        if (bad >= 0) {
            *bad_array = a;
            return bad;
        }
        for (int64_t i = 0; i < n; i++) out[i] += (from[i] + (extent & (from[i] >> 63))) * stride;
    }
    return -1;
}

/* ---- gather, scatter ---- */

/* A frame made ready: unit dimensions dropped; the last other one is the `line` on which a line_fn works.  In an
 * ordered walk (stores) the indexed dimension, if it is not the line itself, is looped over inside a task, so that all
 * that can meet in one place is done by one thread in index order; otherwise it counts among the outer dimensions. */
typedef struct frame_walk {
    line_fn run;
    int element_size;
    int ndim; /* outer dimensions: independent of each other */
    int64_t size[FBP_INDEX_MAX_DIMS], index_stride[FBP_INDEX_MAX_DIMS];
    int64_t data_stride[FBP_INDEX_MAX_DIMS], other_stride[FBP_INDEX_MAX_DIMS];
    int64_t serial, serial_index, serial_other; /* the inner loop of an ordered walk; 1 when there is none */
    int64_t line, line_data, line_other;
    int64_t chunk, chunks; /* pieces of a line, where it may be cut */
    int64_t along;         /* the data's stride of the indexed dimension */
    const int64_t *index;
    char *data, *other;
} frame_walk;

/* Set up all but run and pointers; the number of tasks, 0 when nothing is indexed. */
static int64_t walk_make(frame_walk *walk, const fbp_index_frame *frame, const int64_t *other_strides, bool ordered) {
    int64_t index_strides[FBP_INDEX_MAX_DIMS], stride = 1, tasks = 1;
    int line_dim = -1;
    for (int d = frame->ndim - 1; d >= 0; d--) {
        if (frame->shape[d] == 0) return 0;
        index_strides[d] = stride;
        stride *= frame->shape[d];
        if (line_dim < 0 && frame->shape[d] > 1) line_dim = d;
    }
    walk->ndim = 0;
    walk->serial = walk->line = 1;
    walk->serial_index = walk->serial_other = walk->line_data = walk->line_other = 0;
    walk->along = frame->data_strides[frame->dim];
    for (int d = 0; d < frame->ndim; d++) {
        const int64_t data_stride = d == frame->dim ? 0 : frame->data_strides[d];
        const int64_t other_stride = other_strides ? other_strides[d] : index_strides[d];
        if (frame->shape[d] == 1) continue;
        if (d == line_dim) {
            walk->line = frame->shape[d];
            walk->line_data = data_stride;
            walk->line_other = other_stride;
        } else if (d == frame->dim && ordered) {
            walk->serial = frame->shape[d];
            walk->serial_index = index_strides[d];
            walk->serial_other = other_stride;
        } else {
            const int at = walk->ndim++;
            walk->size[at] = frame->shape[d];
            walk->index_stride[at] = index_strides[d];
            walk->data_stride[at] = data_stride;
            walk->other_stride[at] = other_stride;
            tasks *= frame->shape[d];
        }
    }
    const bool may_cut = !ordered || line_dim != frame->dim;
    /* In an ordered walk across the line all the columns' destinations are in play: few columns keep them in the cache.
     */
    const int64_t chunk = ordered ? 64 : 1024;
    walk->chunk = may_cut && walk->line > chunk ? chunk : walk->line;
    walk->chunks = (walk->line + walk->chunk - 1) / walk->chunk;
    return tasks * walk->chunks;
}

/* Tasks number the chunks within the outer positions. */
static void walk_tasks(void *context, int64_t begin, int64_t end) {
    const frame_walk *walk = context;
    int64_t at[FBP_INDEX_MAX_DIMS], position = begin / walk->chunks, chunk = begin % walk->chunks;
    int64_t index = 0, data = 0, other = 0; /* element offsets of the outer position */
    for (int i = walk->ndim - 1; i >= 0; i--) {
        at[i] = position % walk->size[i];
        position /= walk->size[i];
        index += at[i] * walk->index_stride[i];
        data += at[i] * walk->data_stride[i];
        other += at[i] * walk->other_stride[i];
    }
    for (int64_t task = begin; task < end; task++) {
        const int64_t first = chunk * walk->chunk,
                      n = walk->line - first < walk->chunk ? walk->line - first : walk->chunk;
        for (int64_t j = 0; j < walk->serial; j++)
            walk->run(n, walk->index + index + j * walk->serial_index + first,
                      walk->data + (data + first * walk->line_data) * walk->element_size, walk->along, walk->line_data,
                      walk->other + (other + j * walk->serial_other + first * walk->line_other) * walk->element_size,
                      walk->line_other);
        if (++chunk < walk->chunks) continue;
        chunk = 0;
        for (int i = walk->ndim - 1; i >= 0; i--) { /* count on, carrying */
            index += walk->index_stride[i];
            data += walk->data_stride[i];
            other += walk->other_stride[i];
            if (++at[i] < walk->size[i]) break;
            index -= walk->size[i] * walk->index_stride[i];
            data -= walk->size[i] * walk->data_stride[i];
            other -= walk->size[i] * walk->other_stride[i];
            at[i] = 0;
        }
    }
}

static void walk_run(line_fn run, int element_size, const fbp_index_frame *frame, const int64_t *index, void *data,
                     void *other, const int64_t *other_strides, bool ordered) {
    frame_walk walk;
    const int64_t tasks = walk_make(&walk, frame, other_strides, ordered);
    if (tasks == 0) return;
    walk.run = run;
    walk.element_size = element_size;
    walk.index = index;
    walk.data = data;
    walk.other = other;
    const double elements = (double)tasks * (double)walk.chunk * (double)walk.serial;
    fbp_split(tasks, elements * NANOSECONDS_PER_ELEMENT, walk_tasks, &walk);
}

static void gather(int element_size, const fbp_index_frame *frame, const int64_t *index, void *dst, const void *data) {
    static const line_fn run[] = BY_SIZE(load_line);
    /* load_line only reads its data; the cast lets loads and stores share one walk */
    walk_run(run[size_slot(element_size)], element_size, frame, index, (void *)(uintptr_t)data, dst, NULL, false);
}

static void scatter(int element_size, const fbp_index_frame *frame, const int64_t *index, void *data, const void *src,
                    const int64_t *src_strides) {
    static const line_fn run[] = BY_SIZE(store_line);
    walk_run(run[size_slot(element_size)], element_size, frame, index, data, (void *)(uintptr_t)src, src_strides, true);
}

static void scatter_add(fbp_dtype dtype, const fbp_index_frame *frame, const int64_t *index, void *data,
                        const void *src, const int64_t *src_strides) {
    static const line_fn run[FBP_DTYPE_COUNT] = BY_DTYPE(store_line_add);
    walk_run(run[dtype], fbp_dtype_size(dtype), frame, index, data, (void *)(uintptr_t)src, src_strides, true);
}

/* ---- rows ---- */

static const row_fn load_rows[] = BY_SIZE(load_rows);
static const row_fn store_rows[] = BY_SIZE(store_rows);
static const row_fn store_rows_add[FBP_DTYPE_COUNT] = BY_DTYPE(store_rows_add);

/* Loading: rows are independent; a task is one row of one outer position. */
static void load_tasks(void *context, int64_t begin, int64_t end) {
    const row_job *job = context;
    while (begin < end) {
        const int64_t outer = begin / job->n, first = begin % job->n;
        const int64_t last = first + (end - begin) < job->n ? first + (end - begin) : job->n;
        job->run(job, first, last, job->dst + outer * job->dst_outer, job->src + outer * job->src_outer);
        begin += last - first;
    }
}

/* Storing: rows may meet, so a task owns a segment of the destination and goes through all indices for it: each place
 * sees its rows in index order, however many segments there are. */
static void store_tasks(void *context, int64_t begin, int64_t end) {
    const row_job *job = context;
    for (int64_t task = begin; task < end; task++) {
        const int64_t outer = task / job->segments, segment = task % job->segments;
        const int64_t low = job->places / job->segments * segment;
        const int64_t high = segment + 1 == job->segments ? job->places : job->places / job->segments * (segment + 1);
        job->run(job, low, high, job->dst + outer * job->dst_outer, job->src + outer * job->src_outer);
    }
}

static void store_run(row_job *job, int64_t outer) {
    if (job->n <= 0 || job->row <= 0) return;
    const double nanoseconds = (double)outer * (double)job->n * (1 + (double)job->row * 0.1);
    const int threads = fbp_threads_get();
    job->segments = 1;
    /* Reading all indices once more for each segment pays when rows are long or the calls few. */
    if (outer < threads && nanoseconds > 100000 && job->row >= 8)
        job->segments = threads < job->places ? threads : job->places;
    fbp_split(outer * job->segments, nanoseconds, store_tasks, job);
}

static void index_select(int element_size, int64_t outer, int64_t extent, int64_t inner, int64_t n,
                         const int64_t *index, void *dst, const void *src) {
    if (outer <= 0 || n <= 0 || inner <= 0) return;
    row_job job = {.run = load_rows[size_slot(element_size)],
                   .n = n,
                   .row = inner,
                   .scale = inner,
                   .place = index,
                   .dst = dst,
                   .src = src,
                   .dst_outer = n * inner * element_size,
                   .src_outer = extent * inner * element_size};
    fbp_split(outer * n, (double)outer * (double)n * (1 + (double)inner * 0.1), load_tasks, &job);
}

static void index_add(fbp_dtype dtype, int64_t outer, int64_t extent, int64_t inner, int64_t n, const int64_t *index,
                      void *dst, const void *src) {
    const int64_t size = fbp_dtype_size(dtype);
    store_run(&(row_job){.run = store_rows_add[dtype],
                         .n = n,
                         .row = inner,
                         .scale = inner,
                         .src_stride = inner,
                         .place = index,
                         .dst = dst,
                         .src = src,
                         .places = extent,
                         .dst_outer = extent * inner * size,
                         .src_outer = n * inner * size},
              outer);
}

static void take_rows(int element_size, int64_t n, const int64_t *offsets, int64_t row_elements, void *dst,
                      const void *src) {
    if (n <= 0 || row_elements <= 0) return;
    row_job job = {.run = load_rows[size_slot(element_size)],
                   .n = n,
                   .row = row_elements,
                   .scale = 1,
                   .place = offsets,
                   .dst = dst,
                   .src = src};
    fbp_split(n, (double)n * (1 + (double)row_elements * 0.1), load_tasks, &job);
}

static void put_rows(int element_size, int64_t n, const int64_t *offsets, int64_t row_elements, void *dst,
                     int64_t dst_elements, const void *src, int64_t src_row_stride) {
    store_run(&(row_job){.run = store_rows[size_slot(element_size)],
                         .n = n,
                         .row = row_elements,
                         .scale = 1,
                         .src_stride = src_row_stride,
                         .place = offsets,
                         .dst = dst,
                         .src = src,
                         .places = dst_elements},
              1);
}

static void add_rows(fbp_dtype dtype, int64_t n, const int64_t *offsets, int64_t row_elements, void *dst,
                     int64_t dst_elements, const void *src, int64_t src_row_stride) {
    store_run(&(row_job){.run = store_rows_add[dtype],
                         .n = n,
                         .row = row_elements,
                         .scale = 1,
                         .src_stride = src_row_stride,
                         .place = offsets,
                         .dst = dst,
                         .src = src,
                         .places = dst_elements},
              1);
}

#include "kernels/index_mask.inl"
#include "kernels/index_order.inl"

const fbp_index_kernels FBP_ISA_SYMBOL(fbp_index_kernels) = {
    .check_indices = check_indices,
    .normalise_indices = normalise_indices,
    .linear_offsets = linear_offsets,
    .gather = gather,
    .scatter = scatter,
    .scatter_add = scatter_add,
    .index_select = index_select,
    .index_add = index_add,
    .take_rows = take_rows,
    .put_rows = put_rows,
    .add_rows = add_rows,
    .count_true = count_true,
    .true_positions = true_positions,
    .nonzero = nonzero,
    .masked_select = masked_select,
    .masked_scatter = masked_scatter,
    .one_hot = one_hot,
    .arange_f32 = arange_f32,
    .arange_f64 = arange_f64,
    .arange_i64 = arange_i64,
    .linspace_f32 = linspace_f32,
    .linspace_f64 = linspace_f64,
    .eye = eye,
    .triangle = triangle,
    .sort = sort,
    .topk = topk,
};
