/* index_element.inl -- reading through indices and masks, for one element size.
 *
 * The includer defines T (an unsigned integer of that size) and E(name).
 */

/* other[k] = data[index[k] * along + k * step] for k < n. */
static void E(load_line)(int64_t n, const int64_t *index, void *data, int64_t along, int64_t step, void *other,
                         int64_t other_step) {
    const T *from = data;
    T *restrict to = other;
    (void)other_step; /* gather's destination is contiguous */
    if (step == 0 && along == 1) {
        for (int64_t k = 0; k < n; k++) to[k] = from[index[k]];
        return;
    }
    for (int64_t k = 0; k < n; k++) to[k] = from[index[k] * along + k * step];
}

/* Rows first .. last-1 of dst [n][row] from src + place[i] * scale. */
static void E(load_rows)(const row_job *job, int64_t first, int64_t last, char *dst, const char *src) {
    const int64_t row = job->row, scale = job->scale, *place = job->place;
    const size_t bytes = (size_t)row * sizeof(T);
    for (int64_t i = first; i < last; i++) {
        T *restrict to = (T *)dst + i * row;
        const T *restrict from = (const T *)src + place[i] * scale;
        if (row == 1) *to = *from;
        else if (bytes > 256) memcpy(to, from, bytes);
        else
            for (int64_t c = 0; c < row; c++) to[c] = from[c];
    }
}

/* The elements of src at `count` positions. */
static void E(compress)(int64_t count, const int32_t *position, void *dst, const void *src) {
    T *restrict to = dst;
    const T *restrict from = src;
    for (int64_t i = 0; i < count; i++) to[i] = from[position[i]];
}
static void E(expand)(int64_t count, const int32_t *position, void *dst, const void *src) {
    T *restrict to = dst;
    const T *restrict from = src;
    for (int64_t i = 0; i < count; i++) to[position[i]] = from[i];
}

/* The part of one matrix that torch.tril or torch.triu keeps, zeros elsewhere. */
static void E(triangle_matrix)(bool upper, int64_t rows, int64_t cols, int64_t diagonal, void *dst, const void *src) {
    T *restrict to = dst;
    const T *restrict from = src;
    for (int64_t r = 0; r < rows; r++, to += cols, from += cols) {
        int64_t border = r + diagonal + (upper ? 0 : 1); /* the first column of the right part */
        border = border < 0 ? 0 : border > cols ? cols : border;
        const size_t left = (size_t)border * sizeof(T), right = (size_t)(cols - border) * sizeof(T);
        if (upper) {
            memset(to, 0, left);
            memcpy(to + border, from + border, right);
        } else {
            memcpy(to, from, left);
            memset(to + border, 0, right);
        }
    }
}

#undef T
#undef E
