/* index_store.inl -- the loops that write where an index points, once for assignment and once for each kind of
 * addition.
 *
 * The includer defines T (element), E(name) and PUT(place, x): `place = x` or an addition.  Calls with several indices
 * for one place take effect in index order.
 */

/* data[index[k] * along + k * step] <- other[k * other_step] for k < n. */
static void E(store_line)(int64_t n, const int64_t *index, void *data, int64_t along, int64_t step, void *other,
                          int64_t other_step) {
    T *to = data;
    const T *from = other;
    if (step == 0 && along == 1) {
        for (int64_t k = 0; k < n; k++) PUT(to[index[k]], from[k * other_step]);
        return;
    }
    for (int64_t k = 0; k < n; k++) PUT(to[index[k] * along + k * step], from[k * other_step]);
}

/* Rows of `row` elements at dst + place[i] * scale <- src + i * src_stride, for those i whose place lies in [low,
 * high). */
static void E(store_rows)(const row_job *job, int64_t low, int64_t high, char *dst, const char *src) {
    const int64_t row = job->row, scale = job->scale, src_stride = job->src_stride, *place = job->place;
    for (int64_t i = 0; i < job->n; i++) {
        if ((uint64_t)(place[i] - low) >= (uint64_t)(high - low)) continue;
        T *restrict to = (T *)dst + place[i] * scale;
        const T *restrict from = (const T *)src + i * src_stride;
        if (row == 1) { /* without the set-up of a vector loop */
            PUT(*to, *from);
            continue;
        }
        for (int64_t c = 0; c < row; c++) PUT(to[c], from[c]);
    }
}

#undef T
#undef E
#undef PUT
