/* copy_element.inl -- the two-dimensional copies for one element size.
 *
 * The includer defines U (unsigned integer of that size) and E(name).  All take `rows` x `cols` elements, byte strides
 * d_row/d_col and s_row/s_col, and read and write through memcpy because foreign memory may be unaligned.
 */

FBP_INLINE U E(get)(const char *p) {
    U x;
    memcpy(&x, p, sizeof x);
    return x;
}
FBP_INLINE void E(put)(char *p, U x) { memcpy(p, &x, sizeof x); }

/* n contiguous elements of one value. */
static void E(fill_row)(int64_t n, char *dst, U x) {
    for (int64_t i = 0; i < n; i++) E(put)(dst + i * (int64_t)sizeof(U), x);
}

/* n elements, destination contiguous. */
static void E(gather_row)(int64_t n, char *dst, const char *src, int64_t stride) {
    for (int64_t i = 0; i < n; i++) E(put)(dst + i * (int64_t)sizeof(U), E(get)(src + i * stride));
}

/* n elements, source contiguous. */
static void E(scatter_row)(int64_t n, char *dst, int64_t stride, const char *src) {
    for (int64_t i = 0; i < n; i++) E(put)(dst + i * stride, E(get)(src + i * (int64_t)sizeof(U)));
}

/* Destination rows contiguous, one source element per row. */
static void E(copy_fill)(const copy_cell *cell, int64_t rows, int64_t cols, char *dst, const char *src) {
    for (int64_t r = 0; r < rows; r++) E(fill_row)(cols, dst + r * cell->d_row, E(get)(src + r * cell->s_row));
}

/* No structure to use; the destination's own order, because a scattered store costs more than a scattered load. */
static void E(copy_general)(const copy_cell *cell, int64_t rows, int64_t cols, char *dst, const char *src) {
    const int64_t d_col = cell->d_col, s_col = cell->s_col;
    for (int64_t r = 0; r < rows; r++, dst += cell->d_row, src += cell->s_row) {
        if (d_col == (int64_t)sizeof(U)) {
            E(gather_row)(cols, dst, src, s_col);
        } else {
            for (int64_t c = 0; c < cols; c++) E(put)(dst + c * d_col, E(get)(src + c * s_col));
        }
    }
}

#ifdef TILE
/* One whole patch by way of a packed copy: each source line is read to its end before the next group, each destination
 * line written in one go, so that strides of a power of two, whose lines all compete for the same few places
 * in the cache, cost no more than others. */
static void E(transpose_patch)(char *dst, int64_t d_row, const char *src, int64_t s_col) {
    enum { SIZE = sizeof(U), PATCH = 64 / sizeof(U) };
    _Alignas(64) char packed[PATCH * 64];
    for (int c = 0; c < PATCH; c += TILE)
        for (int r = 0; r < PATCH; r += TILE)
            E(transpose_tile)(packed + r * 64 + c * SIZE, 64, src + c * s_col + r * SIZE, s_col);
    for (int r = 0; r < PATCH; r++) memcpy(dst + r * d_row, packed + r * 64, 64);
}
#endif

/* Destination contiguous along columns, source contiguous along rows.  Square patches of a cache line a side keep every
 * line that is touched in the first-level cache until it is used up. */
static void E(copy_transpose)(const copy_cell *cell, int64_t rows, int64_t cols, char *dst, const char *src) {
    enum { SIZE = sizeof(U), PATCH = 64 / sizeof(U) };
    const int64_t d_row = cell->d_row, s_col = cell->s_col;
    for (int64_t r0 = 0; r0 < rows; r0 += PATCH) {
        const int64_t r1 = r0 + PATCH < rows ? r0 + PATCH : rows;
        for (int64_t c0 = 0; c0 < cols; c0 += PATCH) {
            const int64_t c1 = c0 + PATCH < cols ? c0 + PATCH : cols;
#ifdef TILE
            if (r1 - r0 == PATCH && c1 - c0 == PATCH) {
                E(transpose_patch)(dst + r0 * d_row + c0 * SIZE, d_row, src + c0 * s_col + r0 * SIZE, s_col);
                continue;
            }
#endif
            for (int64_t r = r0; r < r1; r++)
                for (int64_t c = c0; c < c1; c++)
                    E(put)(dst + r * d_row + c * SIZE, E(get)(src + c * s_col + r * SIZE));
        }
    }
}
