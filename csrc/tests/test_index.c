/* test_index.c -- the indexing kernels of every set against one-element-at-a-time loops, bit for bit, on one thread and
 * on three. */
#include "kernels/index.h"

#include <math.h>

#include "base/memory.h"
#include "test_sets.inl"

DECLARE_SETS(index);

static const fbp_index_kernels *k; /* the set under test */

/* ---- cases ---- */

/* n elements of `dtype`; real ones include what rounds, so that an addition in another order shows. */
static void any_elements(fbp_dtype dtype, int64_t n, void *out) {
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)any_in(-1000000, 1000000) / 997;
        if (dtype == FBP_BOOL) ((uint8_t *)out)[i] = any_bits() >> 20 & 1;
        else if (dtype == FBP_UINT8) ((uint8_t *)out)[i] = (uint8_t)(any_bits() >> 20);
        else if (dtype == FBP_INT32) ((uint32_t *)out)[i] = (uint32_t)any_bits();
        else if (dtype == FBP_INT64) ((uint64_t *)out)[i] = any_bits();
        else if (dtype == FBP_FLOAT32) ((float *)out)[i] = (float)x;
        else ((double *)out)[i] = x;
    }
}

/* *to += *from, as index.h says. */
static void add_element(fbp_dtype dtype, void *to, const void *from) {
    switch (dtype) {
        case FBP_BOOL: *(uint8_t *)to |= *(const uint8_t *)from; break;
        case FBP_UINT8: *(uint8_t *)to = (uint8_t)(*(uint8_t *)to + *(const uint8_t *)from); break;
        case FBP_INT32: *(uint32_t *)to += *(const uint32_t *)from; break;
        case FBP_INT64: *(uint64_t *)to += *(const uint64_t *)from; break;
        case FBP_FLOAT32: *(float *)to += *(const float *)from; break;
        default: *(double *)to += *(const double *)from;
    }
}

static fbp_dtype any_dtype(void) { return (fbp_dtype)any_in(0, FBP_DTYPE_COUNT - 1); }

static int64_t *any_indices(int64_t n, int64_t extent) {
    int64_t *index = guarded_new(n * 8);
    for (int64_t i = 0; i < n; i++) index[i] = any_in(0, extent - 1);
    return index;
}

/* ---- indices ---- */

static void test_indices(int64_t n) {
    const int64_t extent = any_in(1, 9);
    int64_t *index = guarded_new(n * 8), *second = guarded_new(n * 8), *out = guarded_new(n * 8);
    for (int64_t i = 0; i < n; i++) {
        index[i] = any_in(-extent, extent - 1);
        second[i] = any_in(-3, 2);
    }
    CHECK(k->check_indices(n, index, extent) == -1, "n %lld", (long long)n);
    k->normalise_indices(n, out, index, extent);
    for (int64_t i = 0; i < n; i++) CHECK(out[i] == (index[i] + extent) % extent, "normalise %lld", (long long)i);
    const int64_t *arrays[2] = {index, second}, extents[2] = {extent, 3}, strides[2] = {5, -7};
    int bad_array = -1;
    CHECK(k->linear_offsets(2, arrays, extents, strides, n, out, &bad_array) == -1, "n %lld", (long long)n);
    for (int64_t i = 0; i < n; i++)
        CHECK(out[i] == (index[i] + extent) % extent * 5 - (second[i] + 3) % 3 * 7, "offset %lld", (long long)i);
    if (n > 0) {
        const int64_t at = any_in(0, n - 1), later = any_in(at, n - 1);
        second[later] = any_in(0, 1) ? 3 : -4;
        second[at] = any_in(0, 1) ? INT64_MAX : INT64_MIN;
        CHECK(k->check_indices(n, second, 3) == at, "first bad of %lld", (long long)n);
        CHECK(k->linear_offsets(2, arrays, extents, strides, n, out, &bad_array) == at && bad_array == 1,
              "bad array %d", bad_array);
    }
    guarded_free(index, n * 8);
    guarded_free(second, n * 8);
    guarded_free(out, n * 8);
}

/* ---- gather and scatter ---- */

enum { GATHER, SCATTER, SCATTER_ADD };

/* The definition: walk the index tensor in order. */
static void frame_reference(int what, fbp_dtype dtype, const fbp_index_frame *frame, const int64_t *index, char *data,
                            char *other, const int64_t *other_strides) {
    const int size = fbp_dtype_size(dtype);
    int64_t total = 1;
    for (int d = 0; d < frame->ndim; d++) total *= frame->shape[d];
    for (int64_t i = 0; i < total; i++) {
        int64_t rest = i, in_data = 0, in_other = 0;
        for (int d = frame->ndim - 1; d >= 0; d--) {
            const int64_t at = rest % frame->shape[d];
            rest /= frame->shape[d];
            in_data += (d == frame->dim ? index[i] : at) * frame->data_strides[d];
            in_other += at * (other_strides ? other_strides[d] : 0);
        }
        if (what == GATHER) memcpy(other + i * size, data + in_data * size, (size_t)size);
        else if (what == SCATTER) memcpy(data + in_data * size, other + in_other * size, (size_t)size);
        else add_element(dtype, data + in_data * size, other + in_other * size);
    }
}

static void test_frame(int what, int ndim, const int64_t *given) {
    const fbp_dtype dtype = any_dtype();
    const int size = fbp_dtype_size(dtype), dim = (int)any_in(0, ndim - 1);
    int64_t extent[4], shape[4], strides[4], other_strides[4], data_n = 1, index_n = 1, other_n = 1, data_from = 0;
    const bool repeat = what != GATHER && any_in(0, 3) == 0; /* a single value, or a src larger than the index */
    for (int d = ndim - 1; d >= 0; d--) {
        extent[d] = given && d != dim ? given[d]
                                      : any_in(1, given      ? 5
                                                  : ndim < 3 ? 70
                                                             : 9); /* many indices for few places */
        shape[d] = given ? given[d] : any_in(0, 25) == 0 ? 0 : d == dim ? any_in(1, 12) : any_in(1, extent[d]);
        strides[d] = data_n;
        other_strides[d] = repeat ? 0 : other_n;
        data_n *= extent[d];
        index_n *= shape[d];
        if (!repeat) other_n *= shape[d] > 0 ? shape[d] + (what == GATHER ? 0 : any_in(0, 1)) : 1;
    }
    if (ndim > 1 && any_in(0, 2) == 0) { /* the data transposed in memory: what matters is that strides are heeded */
        strides[ndim - 1] = data_n / extent[ndim - 1];
        for (int d = ndim - 2; d >= 0; d--) strides[d] = d == ndim - 2 ? 1 : strides[d + 1] * extent[d + 1];
    }
    for (int d = 0; d < ndim; d++)
        if (any_in(0, 4) == 0) {
            data_from += strides[d] * (extent[d] - 1);
            strides[d] = -strides[d];
        }
    if (what == GATHER) other_n = index_n;
    char *data = guarded_new(data_n * size), *want_data = guarded_new(data_n * size);
    char *other = guarded_new(other_n * size), *want_other = guarded_new(other_n * size);
    int64_t *index = any_indices(index_n, extent[dim]);
    const fbp_index_frame frame = {ndim, dim, shape, strides};
    any_elements(dtype, data_n, data);
    any_elements(dtype, other_n, other);
    memcpy(want_data, data, (size_t)(data_n * size));
    memcpy(want_other, other, (size_t)(other_n * size));
    char *from = data + data_from * size, *want_from = want_data + data_from * size;
    frame_reference(what, dtype, &frame, index, want_from, want_other, other_strides);
    if (what == GATHER) k->gather(size, &frame, index, other, from);
    else if (what == SCATTER) k->scatter(size, &frame, index, from, other, other_strides);
    else k->scatter_add(dtype, &frame, index, from, other, other_strides);
    CHECK(!memcmp(data, want_data, (size_t)(data_n * size)) && !memcmp(other, want_other, (size_t)(other_n * size)),
          "kind %d, %s, ndim %d, dim %d, index %lld x ..", what, fbp_dtype_name(dtype), ndim, dim, (long long)shape[0]);
    guarded_free(data, data_n * size);
    guarded_free(want_data, data_n * size);
    guarded_free(other, other_n * size);
    guarded_free(want_other, other_n * size);
    guarded_free(index, index_n * 8);
}

/* ---- slices and rows ---- */

static void test_slices(int64_t outer, int64_t extent, int64_t inner, int64_t n) {
    const fbp_dtype dtype = any_dtype();
    const int size = fbp_dtype_size(dtype);
    const int64_t whole = outer * extent * inner, part = outer * n * inner, row = inner * size;
    char *data = guarded_new(whole * size), *want = guarded_new(whole * size), *slices = guarded_new(part * size);
    int64_t *index = any_indices(n, extent);
    any_elements(dtype, whole, data);
    k->index_select(size, outer, extent, inner, n, index, slices, data);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t j = 0; j < n; j++)
            CHECK(!memcmp(slices + (o * n + j) * row, data + (o * extent + index[j]) * row, (size_t)row),
                  "index_select %lld", (long long)j);
    any_elements(dtype, part, slices);
    memcpy(want, data, (size_t)(whole * size));
    for (int64_t o = 0; o < outer; o++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t c = 0; c < inner; c++)
                add_element(dtype, want + (o * extent + index[j]) * row + c * size,
                            slices + (o * n + j) * row + c * size);
    k->index_add(dtype, outer, extent, inner, n, index, data, slices);
    CHECK(!memcmp(data, want, (size_t)(whole * size)), "index_add %s %lld x %lld x %lld by %lld", fbp_dtype_name(dtype),
          (long long)outer, (long long)extent, (long long)inner, (long long)n);
    guarded_free(data, whole * size);
    guarded_free(want, whole * size);
    guarded_free(slices, part * size);
    guarded_free(index, n * 8);
}

static void test_rows(int64_t places, int64_t row, int64_t n) {
    const fbp_dtype dtype = any_dtype();
    const int size = fbp_dtype_size(dtype);
    const int64_t whole = places * row, bytes = row * size, src_stride = any_in(0, 3) ? row : 0;
    char *data = guarded_new(whole * size), *want = guarded_new(whole * size), *rows = guarded_new(n * bytes);
    int64_t *offsets = any_indices(n, places);
    for (int64_t i = 0; i < n; i++) offsets[i] *= row;
    any_elements(dtype, whole, data);
    k->take_rows(size, n, offsets, row, rows, data);
    for (int64_t i = 0; i < n; i++)
        CHECK(!memcmp(rows + i * bytes, data + offsets[i] * size, (size_t)bytes), "take_rows %lld", (long long)i);
    any_elements(dtype, n * row, rows);
    memcpy(want, data, (size_t)(whole * size));
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < row; c++)
            add_element(dtype, want + (offsets[i] + c) * size, rows + (i * src_stride + c) * size);
    k->add_rows(dtype, n, offsets, row, data, whole, rows, src_stride);
    CHECK(!memcmp(data, want, (size_t)(whole * size)), "add_rows %s, row %lld, n %lld", fbp_dtype_name(dtype),
          (long long)row, (long long)n);
    for (int64_t i = 0; i < n; i++) memcpy(want + offsets[i] * size, rows + i * src_stride * size, (size_t)bytes);
    k->put_rows(size, n, offsets, row, data, whole, rows, src_stride);
    CHECK(!memcmp(data, want, (size_t)(whole * size)), "put_rows %s, row %lld, n %lld", fbp_dtype_name(dtype),
          (long long)row, (long long)n);
    guarded_free(data, whole * size);
    guarded_free(want, whole * size);
    guarded_free(rows, n * bytes);
    guarded_free(offsets, n * 8);
}

/* ---- masks ---- */

static void test_masks(int64_t n, int density) {
    const fbp_dtype dtype = any_dtype();
    const int size = fbp_dtype_size(dtype);
    uint8_t *mask = guarded_new(n);
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += mask[i] = any_in(0, 3) < density;
    CHECK(k->count_true(n, mask) == count, "count_true of %lld", (long long)n);
    int64_t *positions = guarded_new(count * 8);
    char *all = guarded_new(n * size), *back = guarded_new(n * size), *some = guarded_new(count * size);
    k->true_positions(n, mask, positions);
    any_elements(dtype, n, all);
    memset(back, 0, (size_t)(n * size));
    CHECK(k->masked_select(size, n, mask, some, all) == count, "masked_select");
    CHECK(k->masked_scatter(size, n, mask, back, some) == count, "masked_scatter");
    static const char zero[8];
    for (int64_t i = 0, seen = 0; i < n; i++) {
        CHECK(!memcmp(back + i * size, mask[i] ? all + i * size : zero, (size_t)size), "there and back %lld",
              (long long)i);
        if (mask[i]) CHECK(positions[seen] == i, "position %lld", (long long)seen);
        seen += mask[i];
    }
    guarded_free(mask, n);
    guarded_free(positions, count * 8);
    guarded_free(all, n * size);
    guarded_free(back, n * size);
    guarded_free(some, count * size);
}

static void test_nonzero(int ndim) {
    int64_t shape[4], n = 1;
    for (int d = 0; d < ndim; d++) n *= shape[d] = any_in(0, 20) == 0 ? 0 : any_in(1, 9);
    uint8_t *mask = guarded_new(n);
    for (int64_t i = 0; i < n; i++) mask[i] = any_bits() >> 33 & 1;
    const int64_t count = k->count_true(n, mask);
    int64_t *out = guarded_new(count * ndim * 8), *row = out;
    k->nonzero(ndim, shape, mask, out);
    for (int64_t i = 0; i < n && ndim > 0; i++) {
        if (!mask[i]) continue;
        int64_t linear = 0;
        for (int d = 0; d < ndim; d++) linear = linear * shape[d] + row[d];
        CHECK(linear == i, "nonzero %lld", (long long)i);
        row += ndim;
    }
    guarded_free(mask, n);
    guarded_free(out, count * ndim * 8);
}

/* ---- constructors ---- */

static void test_constructors(int64_t n) {
    const int64_t classes = any_in(1, 9);
    int64_t *index = any_indices(n, classes), *hot = guarded_new(n * classes * 8), *whole = guarded_new(n * 8);
    float *f32 = guarded_new(n * 4);
    double *f64 = guarded_new(n * 8);
    k->one_hot(n, index, classes, hot);
    for (int64_t i = 0; i < n * classes; i++)
        CHECK(hot[i] == (i % classes == index[i / classes]), "one_hot %lld", (long long)i);
    k->arange_i64(n, -5, 3, whole);
    k->arange_f32(n, 0.1, 0.3, f32);
    k->arange_f64(n, 0.5, 0.25, f64);
    for (int64_t i = 0; i < n; i++) {
        CHECK(whole[i] == 3 * i - 5 && f64[i] == 0.5 + 0.25 * (double)i, "arange %lld", (long long)i);
        CHECK(fabs(f32[i] - (0.1 + 0.3 * (double)i)) <= 1e-7 * (1 + 0.3 * (double)i), "arange_f32 %lld", (long long)i);
    }
    k->linspace_f32(n, -1, 7, f32);
    k->linspace_f64(n, -1, 7, f64);
    for (int64_t i = 0; i < n; i++) {
        const double want = n == 1 ? -1 : -1 + 8 * (double)i / (double)(n - 1);
        CHECK(fabs(f64[i] - want) < 1e-14 && fabs(f32[i] - want) < 1e-6, "linspace %lld of %lld", (long long)i,
              (long long)n);
    }
    if (n > 1) CHECK(f32[0] == -1 && f32[n - 1] == 7 && f64[0] == -1 && f64[n - 1] == 7, "linspace's ends");
    guarded_free(index, n * 8);
    guarded_free(hot, n * classes * 8);
    guarded_free(whole, n * 8);
    guarded_free(f32, n * 4);
    guarded_free(f64, n * 8);
}

static void test_matrices(int64_t rows, int64_t cols) {
    static const char zero[8];
    for (fbp_dtype dtype = 0; dtype < FBP_DTYPE_COUNT; dtype++) {
        const int size = fbp_dtype_size(dtype);
        const int64_t bytes = rows * cols * size, batch = any_in(0, 3);
        char *identity = guarded_new(bytes), *src = guarded_new(batch * bytes), *dst = guarded_new(batch * bytes);
        k->eye(dtype, rows, cols, identity);
        for (int64_t i = 0; i < rows * cols; i++) {
            const bool one = i / cols == i % cols;
            const char *p = identity + i * size;
            const double got = dtype <= FBP_UINT8     ? *(const uint8_t *)p
                               : dtype == FBP_INT32   ? *(const int32_t *)p
                               : dtype == FBP_INT64   ? (double)*(const int64_t *)p
                               : dtype == FBP_FLOAT32 ? (double)*(const float *)p
                                                      : *(const double *)p;
            CHECK(got == one, "eye %s %lld", fbp_dtype_name(dtype), (long long)i);
        }
        any_elements(dtype, batch * rows * cols, src);
        for (int64_t diagonal = -rows - 2; diagonal <= cols + 2; diagonal++)
            for (int upper = 0; upper < 2; upper++) {
                k->triangle(size, upper, batch, rows, cols, diagonal, dst, src);
                for (int64_t i = 0; i < batch * rows * cols; i++) {
                    const int64_t past = i % cols - i / cols % rows;
                    const bool keep = upper ? past >= diagonal : past <= diagonal;
                    CHECK(!memcmp(dst + i * size, keep ? src + i * size : zero, (size_t)size), "triangle %lld",
                          (long long)i);
                }
            }
        guarded_free(identity, bytes);
        guarded_free(src, batch * bytes);
        guarded_free(dst, batch * bytes);
    }
}

/* ---- order ---- */

/* Sorted before?  In the order of index.h, equal elements by position. */
static bool before(fbp_dtype dtype, const char *row, int64_t a, int64_t b, bool descending) {
    const int size = fbp_dtype_size(dtype);
    int order;
    if (fbp_dtype_is_float(dtype)) {
        const double x = size == 4 ? (double)((const float *)row)[a] : ((const double *)row)[a];
        const double y = size == 4 ? (double)((const float *)row)[b] : ((const double *)row)[b];
        order = isnan(x) || isnan(y) ? !!isnan(x) - !!isnan(y) : (x > y) - (x < y);
    } else {
        const int64_t x = size == 1   ? ((const uint8_t *)row)[a]
                          : size == 4 ? ((const int32_t *)row)[a]
                                      : ((const int64_t *)row)[a];
        const int64_t y = size == 1   ? ((const uint8_t *)row)[b]
                          : size == 4 ? ((const int32_t *)row)[b]
                                      : ((const int64_t *)row)[b];
        order = (x > y) - (x < y);
    }
    if (descending) order = -order;
    return order < 0 || (order == 0 && a < b);
}

/* count = how many of each row: n for sort. */
static void test_order(fbp_dtype dtype, int64_t rows, int64_t n, int64_t count) {
    static const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1.0f, -1.0f, 1e-45f};
    const int size = fbp_dtype_size(dtype);
    const bool descending = any_in(0, 1);
    char *src = guarded_new(rows * n * size), *values = guarded_new(rows * count * size);
    int64_t *indices = guarded_new(rows * count * 8);
    any_elements(dtype, rows * n, src);
    for (int64_t i = 0; i < rows * n; i++) { /* many equals, and what is special */
        const float x = special[any_in(0, 8)];
        if (any_in(0, 2)) continue;
        if (dtype == FBP_FLOAT32) ((float *)src)[i] = x;
        else if (dtype == FBP_FLOAT64) ((double *)src)[i] = (double)x;
        else if (dtype == FBP_INT32) ((int32_t *)src)[i] = (int32_t)any_in(-2, 2);
        else if (dtype == FBP_INT64) ((int64_t *)src)[i] = any_in(-2, 2);
    }
    const fbp_status status = count == n ? k->sort(dtype, rows, n, descending, src, values, indices)
                                         : k->topk(dtype, rows, n, count, descending, src, values, indices);
    CHECK(status == FBP_OK, "status %d", status);
    uint8_t *taken = calloc((size_t)n + 1, 1);
    for (int64_t r = 0; r < rows; r++) {
        const char *row = src + r * n * size;
        const int64_t *order = indices + r * count;
        memset(taken, 0, (size_t)n + 1);
        for (int64_t i = 0; i < count; i++) {
            const bool inside = order[i] >= 0 && order[i] < n;
            CHECK(inside, "index %lld", (long long)order[i]);
            if (!inside) continue;
            taken[order[i]] = 1;
            CHECK(i == 0 || before(dtype, row, order[i - 1], order[i], descending), "%s of %lld: order at %lld",
                  fbp_dtype_name(dtype), (long long)n, (long long)i);
            CHECK(!memcmp(values + (r * count + i) * size, row + order[i] * size, (size_t)size), "value %lld",
                  (long long)i);
        }
        for (int64_t i = 0; i < n && count > 0;
             i++) /* what was left out comes later: with strict order above, all are distinct */
            CHECK(taken[i] || before(dtype, row, order[count - 1], i, descending), "%lld of %lld: left out %lld",
                  (long long)count, (long long)n, (long long)i);
    }
    int64_t *alone = guarded_new(rows * count * 8);
    k->topk(dtype, rows, n, count, descending, src, NULL, alone);
    CHECK(!memcmp(alone, indices, (size_t)(rows * count * 8)), "indices without values");
    char *values_alone = guarded_new(rows * count * size);
    k->topk(dtype, rows, n, count, descending, src, values_alone, NULL);
    CHECK(!memcmp(values_alone, values, (size_t)(rows * count * size)), "values without indices");
    free(taken);
    guarded_free(src, rows * n * size);
    guarded_free(values, rows * count * size);
    guarded_free(values_alone, rows * count * size);
    guarded_free(indices, rows * count * 8);
    guarded_free(alone, rows * count * 8);
}

static void test_orders(void) {
    for (fbp_dtype dtype = 0; dtype < FBP_DTYPE_COUNT; dtype++) {
        for (int64_t n = 0; n <= 70; n++) {
            test_order(dtype, any_in(0, 3), n, n);
            test_order(dtype, any_in(1, 3), n, any_in(0, n));
        }
        test_order(dtype, 30, 1023, 1023);
        test_order(dtype, 3, 5000, 5000);
        test_order(dtype, 3, 5000, 5);
        test_order(dtype, 3, 5000, 500);
    }
}

int main(void) {
    static const int64_t large[3][3] = {{40, 50, 90}, {1, 2, 90000}, {60000, 1, 4}};
    for (current_set = 0; current_set < set_count(); current_set++) {
        k = sets[current_set];
        for (int threads = 1; threads <= 3; threads += 2) {
            fbp_threads_set(threads);
            for (int64_t n = 0; n <= 70; n++) test_indices(n);
            test_indices(5000);
            for (int what = GATHER; what <= SCATTER_ADD; what++) {
                for (int round = 0; round < 600; round++) test_frame(what, (int)any_in(1, 4), NULL);
                for (int round = 0; round < 18; round++) test_frame(what, 3, large[round % 3]);
            }
            for (int round = 0; round < 400; round++)
                test_slices(any_in(0, 4), any_in(1, 12), any_in(0, 70), any_in(0, 30));
            for (int round = 0; round < 400; round++)
                test_rows(any_in(1, 12), any_in(0, 1) ? 1 : any_in(0, 70), any_in(0, 70));
            for (int round = 0; round < 4; round++) {
                test_slices(1, 50, 70, 20000); /* enough work for threads to share it out */
                test_slices(9, 50, 1, 8000);
                test_rows(40, 64, 20000);
                test_rows(2, 64, 20000);
            }
            for (int64_t n = 0; n <= 70; n++) {
                for (int density = 0; density <= 4; density++) test_masks(n, density);
                test_constructors(n);
            }
            for (int density = 0; density <= 4; density++) test_masks(5000, density);
            for (int round = 0; round < 200; round++) test_nonzero((int)any_in(0, 4));
            for (int round = 0; round < 20; round++) test_matrices(any_in(1, 9), any_in(1, 9));
            test_matrices(0, 3);
            test_orders();
        }
    }
    return report("test_index");
}
