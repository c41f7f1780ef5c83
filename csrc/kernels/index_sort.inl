/* index_sort.inl -- stable sorting of (key, position) items.
 *
 * Every dtype is mapped to an unsigned key of the same order (NaN last, -0 equal to 0; complemented to sort downwards),
 * so one unsigned comparison serves all.  The includer defines ITEM, E(name), MAKE(key, position), KEY(item),
 * POSITION(item), BEFORE(a, b) and KEY_BYTES.
 */

/* Runs of up to RUN items by insertion, then merged in doubling widths; returns which of the two buffers holds the
 * result. */
static ITEM *E(merge_sort)(ITEM *items, ITEM *spare, int64_t n) {
    enum { RUN = 16 };
    for (int64_t begin = 0; begin < n; begin += RUN) {
        const int64_t end = begin + RUN < n ? begin + RUN : n;
        for (int64_t i = begin + 1; i < end; i++) {
            const ITEM item = items[i];
            int64_t at = i;
            for (; at > begin && BEFORE(item, items[at - 1]); at--) items[at] = items[at - 1];
            items[at] = item;
        }
    }
    for (int64_t width = RUN; width < n; width *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * width) {
            const int64_t middle = begin + width < n ? begin + width : n, end = middle + width < n ? middle + width : n;
            int64_t left = begin, right = middle;
            for (int64_t at = begin; at < end; at++) {
                /* on equal keys the left one, which came first */
                const bool take_right = left >= middle || (right < end && BEFORE(items[right], items[left]));
                spare[at] = take_right ? items[right++] : items[left++];
            }
        }
        ITEM *swap = items;
        items = spare;
        spare = swap;
    }
    return items;
}

/* Byte by byte from the least significant; bytes that all keys share are skipped.  Stable because each pass is. */
static ITEM *E(radix_sort)(ITEM *items, ITEM *spare, int64_t n) {
    for (int byte = 0; byte < KEY_BYTES; byte++) {
        int64_t start[256] = {0}, sum = 0;
        for (int64_t i = 0; i < n; i++) start[(KEY(items[i]) >> (8 * byte)) & 255]++;
        if (start[(KEY(items[0]) >> (8 * byte)) & 255] == n) continue;
        for (int digit = 0; digit < 256; digit++) {
            const int64_t count = start[digit];
            start[digit] = sum;
            sum += count;
        }
        for (int64_t i = 0; i < n; i++) spare[start[(KEY(items[i]) >> (8 * byte)) & 255]++] = items[i];
        ITEM *swap = items;
        items = spare;
        spare = swap;
    }
    return items;
}

/* Positions of the first k of the n keys of `row` in order, to `out`.  `work` holds 2 n items. */
static void E(order_row)(const order_job *job, const char *row, int64_t *out, void *work) {
    enum { RADIX_FROM = 24 * KEY_BYTES }; /* below, clearing the counters costs more than comparing */
    ITEM *items = work;
    uint64_t keys[KEY_BLOCK];
    for (int64_t begin = 0; begin < job->n; begin += KEY_BLOCK) {
        const int64_t count = job->n - begin < KEY_BLOCK ? job->n - begin : KEY_BLOCK;
        block_keys(job, row, begin, count, keys);
        for (int64_t i = 0; i < count; i++) items[begin + i] = MAKE(keys[i], begin + i);
    }
    items = job->n >= RADIX_FROM ? E(radix_sort)(items, items + job->n, job->n)
                                 : E(merge_sort)(items, items + job->n, job->n);
    for (int64_t i = 0; i < job->k; i++) out[i] = POSITION(items[i]);
}

#undef ITEM
#undef E
#undef MAKE
#undef KEY
#undef POSITION
#undef BEFORE
#undef KEY_BYTES
