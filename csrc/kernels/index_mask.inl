/* index_mask.inl -- masks and constructors: the part of index.c that does not depend on the element type's text. */

/* ---- masks ---- */

enum { MASK_BLOCK = 256 };

/* Positions of the true ones among n <= MASK_BLOCK, rising; returns their count.  Without branches: every position is
 * written, the true ones are kept, hence the one place more. */
static int64_t block_positions(int64_t n, const uint8_t *mask, int32_t position[MASK_BLOCK + 1]) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        position[count] = (int32_t)i;
        count += mask[i];
    }
    return count;
}

static int64_t block_size(int64_t n, int64_t begin) { return n - begin < MASK_BLOCK ? n - begin : MASK_BLOCK; }

static int64_t count_true(int64_t n, const uint8_t *mask) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += mask[i];
    return count;
}

static void true_positions(int64_t n, const uint8_t *mask, int64_t *out) {
    int32_t position[MASK_BLOCK + 1];
    for (int64_t begin = 0; begin < n; begin += MASK_BLOCK) {
        const int64_t count = block_positions(block_size(n, begin), mask + begin, position);
        for (int64_t i = 0; i < count; i++) *out++ = begin + position[i];
    }
}

static void nonzero(int ndim, const int64_t *shape, const uint8_t *mask, int64_t *out) {
    int64_t at[FBP_INDEX_MAX_DIMS] = {0}, rows = 1;
    int32_t position[MASK_BLOCK + 1];
    if (ndim == 0) return; /* its multi-index has no entries */
    const int64_t line = shape[ndim - 1];
    for (int d = 0; d < ndim - 1; d++) rows *= shape[d];
    for (int64_t row = 0; row < rows; row++, mask += line) {
        for (int64_t begin = 0; begin < line; begin += MASK_BLOCK) {
            const int64_t count = block_positions(block_size(line, begin), mask + begin, position);
            for (int64_t i = 0; i < count; i++, out += ndim) {
                for (int d = 0; d < ndim - 1; d++) out[d] = at[d];
                out[ndim - 1] = begin + position[i];
            }
        }
        for (int d = ndim - 2; d >= 0; d--) {
            if (++at[d] < shape[d]) break;
            at[d] = 0;
        }
    }
}

typedef void (*move_fn)(int64_t count, const int32_t *position, void *dst, const void *src);

static int64_t masked_select(int element_size, int64_t n, const uint8_t *mask, void *dst, const void *src) {
    static const move_fn run[] = BY_SIZE(compress);
    const move_fn move = run[size_slot(element_size)];
    int32_t position[MASK_BLOCK + 1];
    int64_t done = 0;
    for (int64_t begin = 0; begin < n; begin += MASK_BLOCK) {
        const int64_t count = block_positions(block_size(n, begin), mask + begin, position);
        move(count, position, (char *)dst + done * element_size, (const char *)src + begin * element_size);
        done += count;
    }
    return done;
}

static int64_t masked_scatter(int element_size, int64_t n, const uint8_t *mask, void *dst, const void *src) {
    static const move_fn run[] = BY_SIZE(expand);
    const move_fn move = run[size_slot(element_size)];
    int32_t position[MASK_BLOCK + 1];
    int64_t done = 0;
    for (int64_t begin = 0; begin < n; begin += MASK_BLOCK) {
        const int64_t count = block_positions(block_size(n, begin), mask + begin, position);
        move(count, position, (char *)dst + begin * element_size, (const char *)src + done * element_size);
        done += count;
    }
    return done;
}

/* ---- constructors ---- */

static void one_hot(int64_t n, const int64_t *index, int64_t classes, int64_t *out) {
    if (n <= 0 || classes <= 0) return;
    memset(out, 0, (size_t)n * (size_t)classes * sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i * classes + index[i]] = 1;
}

static void arange_f32(int64_t n, double start, double step, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)(start + (double)i * step);
}

static void arange_f64(int64_t n, double start, double step, double *out) {
    for (int64_t i = 0; i < n; i++) out[i] = start + (double)i * step;
}

static void arange_i64(int64_t n, int64_t start, int64_t step, int64_t *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (int64_t)((uint64_t)start + (uint64_t)i * (uint64_t)step);
}

/* Point i of n: from the nearer end, so that both ends are exact and the points symmetric. */
FBP_INLINE double linspace_point(int64_t n, int64_t i, double start, double end, double step) {
    return i < n / 2 || n == 1 ? start + (double)i * step : end - (double)(n - 1 - i) * step;
}

static void linspace_f32(int64_t n, double start, double end, float *out) {
    const double step = n > 1 ? (end - start) / (double)(n - 1) : 0;
    for (int64_t i = 0; i < n; i++) out[i] = (float)linspace_point(n, i, start, end, step);
}

static void linspace_f64(int64_t n, double start, double end, double *out) {
    const double step = n > 1 ? (end - start) / (double)(n - 1) : 0;
    for (int64_t i = 0; i < n; i++) out[i] = linspace_point(n, i, start, end, step);
}

static void eye(fbp_dtype dtype, int64_t rows, int64_t cols, void *out) {
    const int size = fbp_dtype_size(dtype);
    const float one_f32 = 1;
    const double one_f64 = 1;
    const int64_t one = 1; /* little-endian: its leading bytes are the one of every integer type */
    const void *value = dtype == FBP_FLOAT32   ? (const void *)&one_f32
                        : dtype == FBP_FLOAT64 ? (const void *)&one_f64
                                               : &one;
    if (rows <= 0 || cols <= 0) return;
    memset(out, 0, (size_t)rows * (size_t)cols * (size_t)size);
    for (int64_t i = 0; i < rows && i < cols; i++) memcpy((char *)out + i * (cols + 1) * size, value, (size_t)size);
}

typedef void (*triangle_fn)(bool upper, int64_t rows, int64_t cols, int64_t diagonal, void *dst, const void *src);

static void triangle(int element_size, bool upper, int64_t batch, int64_t rows, int64_t cols, int64_t diagonal,
                     void *dst, const void *src) {
    static const triangle_fn run[] = BY_SIZE(triangle_matrix);
    const int64_t bytes = rows * cols * element_size;
    for (int64_t b = 0; b < batch && bytes > 0; b++)
        run[size_slot(element_size)](upper, rows, cols, diagonal, (char *)dst + b * bytes,
                                     (const char *)src + b * bytes);
}
