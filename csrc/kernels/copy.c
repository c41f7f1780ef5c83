/* copy.c -- strided copies, casts and fills for one instruction set; the contracts are in copy.h.
 *
 * A strided copy is planned in two steps.  simplify() turns the layout into the fewest dimensions that describe it,
 * ordered by destination stride.  choose_cell() then takes two of them, the columns (innermost in the destination) and
 * the rows, as the `cell` that an element text of copy_element.inl copies, and leaves the others to a counter.
 *
 * Worked example, NCHW -> NHWC in float32: shape (N, H, W, C), dst contiguous, src strides 4*(C*H*W, W, 1, H*W).
 * H and W merge; the source is contiguous along them and the destination along C: N cells of a (H*W) x C transpose.
 */
#include "kernels/copy.h"

#include "base/threads.h"
#include "kernels/isa.h"

typedef struct copy_cell copy_cell;
typedef void (*cell_fn)(const copy_cell *cell, int64_t rows, int64_t cols, char *dst, const char *src);

struct copy_cell {
    cell_fn run;
    int64_t rows, cols;             /* its extent */
    int64_t d_row, d_col;           /* destination strides in bytes */
    int64_t s_row, s_col;           /* source strides in bytes */
    int64_t row_block, col_block;   /* the piece that one task copies */
    int64_t row_blocks, col_blocks; /* how many of them */
    int element_size;
};

/* A layout after simplification: dimensions from outermost to innermost in the destination, every size > 1. */
typedef struct copy_layout {
    int ndim;
    int64_t size[FBP_COPY_MAX_DIMS], d[FBP_COPY_MAX_DIMS], s[FBP_COPY_MAX_DIMS];
    char *dst;
    const char *src;
} copy_layout;

#include "kernels/copy_cast.inl"
#include "kernels/copy_tile.inl"

#define U uint8_t
#define E(name) name##_u8
#include "kernels/copy_element.inl"
#undef U
#undef E

#define U uint32_t
#define E(name) name##_u32
#if FBP_VECTOR_BYTES
#define TILE TILE_U32
#endif
#include "kernels/copy_element.inl"
#undef U
#undef E
#undef TILE

#define U uint64_t
#define E(name) name##_u64
#if FBP_VECTOR_BYTES
#define TILE TILE_U64
#endif
#include "kernels/copy_element.inl"
#undef U
#undef E
#undef TILE

/* One task's share of plain bytes: large enough to amortise the call, small enough to balance. */
enum { CHUNK_BYTES = 1 << 16 };

/* Rough cost of moving one byte, from which the number of threads is decided. */
static const double NANOSECONDS_PER_BYTE = 0.06;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- rows of bytes ---- */

/* memcpy for rows whose call would cost more than their bytes: 1..64 bytes by two overlapping halves. */
FBP_INLINE void copy_small(char *dst, const char *src, int64_t bytes) {
#define TWO_ENDS(width)                             \
    do {                                            \
        char head[width], tail[width];              \
        memcpy(head, src, width);                   \
        memcpy(tail, src + bytes - (width), width); \
        memcpy(dst, head, width);                   \
        memcpy(dst + bytes - (width), tail, width); \
    } while (0)
    if (bytes >= 32) TWO_ENDS(32);
    else if (bytes >= 16) TWO_ENDS(16);
    else if (bytes >= 8) TWO_ENDS(8);
    else if (bytes >= 4) TWO_ENDS(4);
    else
        for (int64_t i = 0; i < bytes; i++) dst[i] = src[i];
#undef TWO_ENDS
}

/* Both sides contiguous along the columns. */
static void copy_rows(const copy_cell *cell, int64_t rows, int64_t cols, char *dst, const char *src) {
    const int64_t bytes = cols * cell->element_size;
    for (int64_t r = 0; r < rows; r++, dst += cell->d_row, src += cell->s_row) {
        if (bytes <= 64) copy_small(dst, src, bytes);
        else memcpy(dst, src, (size_t)bytes);
    }
}

/* ---- planning ---- */

/* Fill `layout` from the caller's description; false when there is nothing to copy. */
static bool simplify(copy_layout *layout, int ndim, const int64_t *shape, char *dst, const int64_t *dst_strides,
                     const char *src, const int64_t *src_strides) {
    int count = 0;
    for (int i = 0; i < ndim; i++) {
        int64_t size = shape[i], d = dst_strides[i], s = src_strides[i];
        if (size == 0) return false;
        if (size == 1) continue;
        if (d < 0) { /* walk this dimension the other way round on both sides */
            dst += (size - 1) * d;
            src += (size - 1) * s;
            d = -d;
            s = -s;
        }
        /* Insert by falling destination stride; equal ones keep their order. */
        int at = count++;
        for (; at > 0 && layout->d[at - 1] < d; at--) {
            layout->size[at] = layout->size[at - 1];
            layout->d[at] = layout->d[at - 1];
            layout->s[at] = layout->s[at - 1];
        }
        layout->size[at] = size;
        layout->d[at] = d;
        layout->s[at] = s;
    }
    /* Merge a dimension into its outer neighbour where stepping the neighbour equals running past its end. */
    int last = 0;
    for (int i = 1; i < count; i++) {
        if (layout->d[last] == layout->d[i] * layout->size[i] && layout->s[last] == layout->s[i] * layout->size[i]) {
            layout->size[last] *= layout->size[i];
        } else {
            layout->size[++last] = layout->size[i];
        }
        layout->d[last] = layout->d[i];
        layout->s[last] = layout->s[i];
    }
    layout->ndim = count == 0 ? 0 : last + 1;
    layout->dst = dst;
    layout->src = src;
    return true;
}

/* Remove dimension `at` and return what it was through the pointers. */
static void take_dimension(copy_layout *layout, int at, int64_t *size, int64_t *d, int64_t *s) {
    *size = layout->size[at];
    *d = layout->d[at];
    *s = layout->s[at];
    layout->ndim--;
    for (int i = at; i < layout->ndim; i++) {
        layout->size[i] = layout->size[i + 1];
        layout->d[i] = layout->d[i + 1];
        layout->s[i] = layout->s[i + 1];
    }
}

/* Take the columns and the rows out of `layout` and choose the text that copies them. */
static void choose_cell(copy_cell *cell, copy_layout *layout, int element_size) {
    static const cell_fn fill[3] = {copy_fill_u8, copy_fill_u32, copy_fill_u64};
    static const cell_fn general[3] = {copy_general_u8, copy_general_u32, copy_general_u64};
    static const cell_fn transpose[3] = {copy_transpose_u8, copy_transpose_u32, copy_transpose_u64};
    const int64_t size = element_size;
    const int which = size == 1 ? 0 : size == 4 ? 1 : 2;

    *cell = (copy_cell){.rows = 1, .cols = 1, .d_col = size, .s_col = size, .element_size = element_size};
    if (layout->ndim > 0) take_dimension(layout, layout->ndim - 1, &cell->cols, &cell->d_col, &cell->s_col);
    if (layout->ndim > 0) {
        int rows_at = layout->ndim - 1;
        if (cell->s_col != size && cell->s_col != 0)
            for (int i = 0; i < layout->ndim; i++)
                if (layout->s[i] == size) rows_at = i;
        take_dimension(layout, rows_at, &cell->rows, &cell->d_row, &cell->s_row);
    }
    cell->col_block = CHUNK_BYTES / size;
    if (cell->d_col != size) cell->run = general[which];
    else if (cell->s_col == size) cell->run = copy_rows;
    else if (cell->s_col == 0) cell->run = fill[which];
    else if (cell->s_row == size) cell->run = transpose[which];
    else cell->run = general[which];
    /* A transpose reads one page per column: few columns at a time keep the pages in the translation buffer. */
    if (cell->run == transpose[which]) cell->col_block = 256;
    if (cell->col_block > cell->cols) cell->col_block = cell->cols;
    cell->row_block = CHUNK_BYTES / size / cell->col_block;
    if (cell->row_block > cell->rows) cell->row_block = cell->rows;
    cell->row_blocks = ceil_div(cell->rows, cell->row_block);
    cell->col_blocks = ceil_div(cell->cols, cell->col_block);
}

/* ---- running ---- */

typedef struct copy_job {
    copy_cell cell;
    copy_layout outer; /* the dimensions that are not in the cell */
} copy_job;

/* Tasks number the cell's blocks within the outer dimensions' positions. */
static void copy_tasks(void *context, int64_t begin, int64_t end) {
    const copy_job *job = context;
    const copy_cell *cell = &job->cell;
    const copy_layout *outer = &job->outer;
    const int64_t per_cell = cell->row_blocks * cell->col_blocks;
    int64_t at[FBP_COPY_MAX_DIMS], position = begin / per_cell, block = begin % per_cell;
    char *dst = outer->dst;
    const char *src = outer->src;
    for (int i = outer->ndim - 1; i >= 0; i--) {
        at[i] = position % outer->size[i];
        position /= outer->size[i];
        dst += at[i] * outer->d[i];
        src += at[i] * outer->s[i];
    }
    for (int64_t task = begin; task < end; task++) {
        if (per_cell == 1) {
            cell->run(cell, cell->rows, cell->cols, dst, src);
        } else {
            const int64_t r = block / cell->col_blocks * cell->row_block,
                          c = block % cell->col_blocks * cell->col_block;
            const int64_t rows = cell->rows - r, cols = cell->cols - c;
            cell->run(cell, rows < cell->row_block ? rows : cell->row_block,
                      cols < cell->col_block ? cols : cell->col_block, dst + r * cell->d_row + c * cell->d_col,
                      src + r * cell->s_row + c * cell->s_col);
        }
        if (++block < per_cell) continue;
        block = 0;
        for (int i = outer->ndim - 1; i >= 0; i--) { /* count on, carrying */
            dst += outer->d[i];
            src += outer->s[i];
            if (++at[i] < outer->size[i]) break;
            dst -= outer->size[i] * outer->d[i];
            src -= outer->size[i] * outer->s[i];
            at[i] = 0;
        }
    }
}

static void strided(int ndim, const int64_t *shape, int element_size, void *dst, const int64_t *dst_strides,
                    const void *src, const int64_t *src_strides) {
    copy_job job;
    if (!simplify(&job.outer, ndim, shape, dst, dst_strides, src, src_strides)) return;
    choose_cell(&job.cell, &job.outer, element_size);
    int64_t tasks = job.cell.row_blocks * job.cell.col_blocks, bytes = job.cell.rows * job.cell.cols * element_size;
    for (int i = 0; i < job.outer.ndim; i++) {
        tasks *= job.outer.size[i];
        bytes *= job.outer.size[i];
    }
    if (tasks == 1 || bytes <= CHUNK_BYTES) copy_tasks(&job, 0, tasks);
    else fbp_parallel(tasks, fbp_grain(tasks, (double)bytes * NANOSECONDS_PER_BYTE), copy_tasks, &job);
}

/* ---- contiguous: cast, fill ---- */

typedef struct flat_job {
    int64_t n;
    char *dst;
    const char *src;        /* a value's address for a fill */
    cast_fn cast;           /* NULL for a fill */
    int dst_size, src_size; /* bytes of an element */
} flat_job;

enum { FLAT_CHUNK = 1 << 14 }; /* elements of one task */

static void fill_block(int64_t n, int element_size, char *dst, const void *value) {
    if (element_size == 1) memset(dst, *(const uint8_t *)value, (size_t)n);
    else if (element_size == 4) fill_row_u32(n, dst, get_u32(value));
    else fill_row_u64(n, dst, get_u64(value));
}

static void flat_tasks(void *context, int64_t begin, int64_t end) {
    const flat_job *job = context;
    const int64_t first = begin * FLAT_CHUNK, last = end * FLAT_CHUNK < job->n ? end * FLAT_CHUNK : job->n;
    char *dst = job->dst + first * job->dst_size;
    if (job->cast) job->cast(last - first, dst, job->src + first * job->src_size);
    else fill_block(last - first, job->dst_size, dst, job->src);
}

static void flat_run(flat_job *job) {
    const int64_t tasks = ceil_div(job->n, FLAT_CHUNK);
    if (tasks <= 1) {
        flat_tasks(job, 0, tasks);
        return;
    }
    const double bytes = (double)job->n * (job->dst_size + (job->cast ? job->src_size : 0));
    fbp_parallel(tasks, fbp_grain(tasks, bytes * NANOSECONDS_PER_BYTE), flat_tasks, job);
}

static void cast(fbp_dtype from, fbp_dtype to, int64_t n, void *dst, const void *src) {
    const int64_t size = fbp_dtype_size(from);
    if (from == to || (from == FBP_BOOL && to == FBP_UINT8)) { /* the same bytes */
        if (n) strided(1, &n, (int)size, dst, &size, src, &size);
        return;
    }
    flat_run(&(flat_job){n, dst, src, cast_table[from][to], fbp_dtype_size(to), (int)size});
}

static void fill(int64_t n, int element_size, void *dst, const void *value) {
    flat_run(&(flat_job){n, dst, value, NULL, element_size, 0});
}

/* ---- blocks ---- */

static void gather_block(int64_t n, int element_size, void *dst, const void *src, int64_t stride_bytes) {
    if (n <= 0) return;
    if (stride_bytes == element_size) memcpy(dst, src, (size_t)(n * element_size));
    else if (stride_bytes == 0) fill_block(n, element_size, dst, src);
    else if (element_size == 4) gather_row_u32(n, dst, src, stride_bytes);
    else if (element_size == 8) gather_row_u64(n, dst, src, stride_bytes);
    else gather_row_u8(n, dst, src, stride_bytes);
}

static void scatter_block(int64_t n, int element_size, void *dst, int64_t stride_bytes, const void *src) {
    if (n <= 0) return;
    if (stride_bytes == element_size) memcpy(dst, src, (size_t)(n * element_size));
    else if (element_size == 4) scatter_row_u32(n, dst, stride_bytes, src);
    else if (element_size == 8) scatter_row_u64(n, dst, stride_bytes, src);
    else scatter_row_u8(n, dst, stride_bytes, src);
}

const fbp_copy_kernels FBP_ISA_SYMBOL(fbp_copy_kernels) = {
    .strided = strided,
    .cast = cast,
    .gather_block = gather_block,
    .scatter_block = scatter_block,
    .fill = fill,
};
