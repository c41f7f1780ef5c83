/* test_copy.c -- the copy kernels of every set against one-element-at-a-time loops. */
#include "kernels/copy.h"

#include <math.h>

#include "test_sets.inl"

DECLARE_SETS(copy);

/* dst[i] = src[i], the definition. */
static void strided_reference(int ndim, const int64_t *shape, int size, char *dst, const int64_t *d, const char *src,
                              const int64_t *s) {
    if (ndim == 0) {
        memcpy(dst, src, (size_t)size);
        return;
    }
    for (int64_t i = 0; i < shape[0]; i++)
        strided_reference(ndim - 1, shape + 1, size, dst + i * d[0], d + 1, src + i * s[0], s + 1);
}

/* Strides of a random dense layout of `shape`: dimensions in a random memory order, some reversed, some with
 * gaps, and, if allowed, some broadcast.  Returns the bytes spanned; *origin is the offset of the first element. */
static int64_t any_layout(int ndim, const int64_t *shape, int size, bool broadcast, int64_t *strides, int64_t *origin) {
    int order[FBP_COPY_MAX_DIMS];
    for (int i = 0; i < ndim; i++) order[i] = i;
    if (any_in(0, 3))
        for (int i = ndim - 1; i > 0; i--) {
            const int j = (int)any_in(0, i), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
    const bool plain = any_in(0, 1);
    int64_t span = size;
    *origin = 0;
    for (int i = ndim - 1; i >= 0; i--) {
        const int d = order[i];
        strides[d] = span;
        if (broadcast && any_in(0, 4) == 0) {
            strides[d] = 0;
            continue;
        }
        if (!plain && any_in(0, 5) == 0) strides[d] += size * any_in(1, 2);
        span = strides[d] * (shape[d] > 0 ? shape[d] : 1);
        if (!plain && any_in(0, 4) == 0) {
            *origin += strides[d] * (shape[d] > 0 ? shape[d] - 1 : 0);
            strides[d] = -strides[d];
        }
    }
    return span;
}

/* One random case, or one of the given shape. */
static void test_strided(const fbp_copy_kernels *k, int ndim, const int64_t *given) {
    static const int sizes[] = {1, 4, 8};
    const int size = sizes[any_in(0, 2)];
    int64_t shape[FBP_COPY_MAX_DIMS], d[FBP_COPY_MAX_DIMS], s[FBP_COPY_MAX_DIMS], d0, s0, room = 6000;
    for (int i = 0; i < ndim; i++) {
        shape[i] = given ? given[i] : any_in(0, 60) == 0 ? 0 : any_in(1, room < 70 ? room : 70);
        if (!given && ndim > 4) shape[i] = shape[i] > 3 ? shape[i] % 4 : shape[i];
        if (!given && shape[i]) room = room / shape[i] > 0 ? room / shape[i] : 1;
    }
    const int64_t d_bytes = any_layout(ndim, shape, size, false, d, &d0);
    const int64_t s_bytes = any_layout(ndim, shape, size, true, s, &s0);
    char *src = guarded_new(s_bytes), *got = guarded_new(d_bytes), *want = guarded_new(d_bytes);
    any_fill(src, s_bytes);
    memset(got, 0x5C, (size_t)d_bytes); /* gaps must stay */
    memset(want, 0x5C, (size_t)d_bytes);
    k->strided(ndim, shape, size, got + d0, d, src + s0, s);
    strided_reference(ndim, shape, size, want + d0, d, src + s0, s);
    CHECK(!memcmp(got, want, (size_t)d_bytes), "strided, ndim %d, size %d, shape %lld x %lld", ndim, size,
          ndim ? (long long)shape[0] : 1, ndim > 1 ? (long long)shape[1] : 1);
    guarded_free(src, s_bytes);
    guarded_free(got, d_bytes);
    guarded_free(want, d_bytes);
}

/* Every 2-D transpose to 37 x 37, which meets each tile's edges. */
static void test_transposes(const fbp_copy_kernels *k, int size) {
    for (int64_t rows = 1; rows <= 37; rows++)
        for (int64_t cols = 1; cols <= 37; cols++) {
            const int64_t bytes = rows * cols * size, shape[2] = {rows, cols};
            const int64_t d[2] = {cols * size, size}, s[2] = {size, rows * size};
            char *src = guarded_new(bytes), *got = guarded_new(bytes), *want = guarded_new(bytes);
            any_fill(src, bytes);
            k->strided(2, shape, size, got, d, src, s);
            strided_reference(2, shape, size, want, d, src, s);
            CHECK(!memcmp(got, want, (size_t)bytes), "transpose %lld x %lld", (long long)rows, (long long)cols);
            guarded_free(src, bytes);
            guarded_free(got, bytes);
            guarded_free(want, bytes);
        }
}

static void test_blocks(const fbp_copy_kernels *k, int size, int64_t n) {
    for (int64_t step = -3; step <= 3; step++) {
        const int64_t stride = step * size, span = (llabs(stride) * (n > 0 ? n - 1 : 0)) + size, bytes = n * size;
        const int64_t origin = step < 0 ? span - size : 0;
        char *wide = guarded_new(span), *block = guarded_new(bytes), *back = guarded_new(span);
        any_fill(wide, span);
        k->gather_block(n, size, block, wide + origin, stride);
        for (int64_t i = 0; i < n; i++)
            CHECK(!memcmp(block + i * size, wide + origin + i * stride, (size_t)size), "gather_block %lld",
                  (long long)i);
        if (step != 0) {
            memset(back, 0x5C, (size_t)span);
            k->scatter_block(n, size, back + origin, stride, block);
            for (int64_t i = 0; i < n; i++)
                CHECK(!memcmp(block + i * size, back + origin + i * stride, (size_t)size), "scatter_block %lld",
                      (long long)i);
        }
        guarded_free(wide, span);
        guarded_free(block, bytes);
        guarded_free(back, span);
    }
    char *filled = guarded_new(n * size), value[8];
    any_fill(value, 8);
    k->fill(n, size, filled, value);
    for (int64_t i = 0; i < n; i++) CHECK(!memcmp(filled + i * size, value, (size_t)size), "fill %lld", (long long)i);
    guarded_free(filled, n * size);
}

/* ---- casts ---- */

/* What copy.h promises, on one element held as the widest type that keeps it: long double keeps int64 and double. */
static void cast_reference(fbp_dtype from, fbp_dtype to, void *dst, const void *src) {
    long double x = 0;
    if (from <= FBP_UINT8) x = *(const uint8_t *)src;
    else if (from == FBP_INT32) x = *(const int32_t *)src;
    else if (from == FBP_INT64) x = *(const int64_t *)src;
    else if (from == FBP_FLOAT32) x = *(const float *)src;
    else x = *(const double *)src;
    const bool real = fbp_dtype_is_float(from);
    int64_t whole = INT64_MIN;
    if (from == FBP_INT64) memcpy(&whole, src, 8);
    else if (x > -0x1p63L && x < 0x1p63L) whole = (int64_t)x;
    if (to == FBP_BOOL) *(uint8_t *)dst = x != 0;
    else if (to == FBP_UINT8) *(uint8_t *)dst = (uint8_t)whole;
    else if (to == FBP_INT64) *(int64_t *)dst = whole;
    else if (to == FBP_FLOAT32) *(float *)dst = (float)x;
    else if (to == FBP_FLOAT64) *(double *)dst = (double)x;
    else *(int32_t *)dst = real && (whole < INT32_MIN || whole > INT32_MAX) ? INT32_MIN : (int32_t)(uint32_t)whole;
}

/* n elements of `dtype`: ordinary values and the edges of every integer type. */
static void any_elements(fbp_dtype dtype, int64_t n, void *out) {
    static const double edges[] = {0.0,
                                   -0.0,
                                   0.5,
                                   -0.9,
                                   1.9,
                                   255,
                                   256,
                                   -1,
                                   300.7,
                                   2147483647.0,
                                   2147483648.0,
                                   -2147483648.0,
                                   -2147483648.5,
                                   -2147483649.0,
                                   4294967295.0,
                                   4294967296.0,
                                   9.2233720368547758e18,
                                   -9.2233720368547758e18,
                                   9e18,
                                   -9e18,
                                   1e30,
                                   -1e30,
                                   INFINITY,
                                   -INFINITY,
                                   NAN,
                                   1e-45,
                                   16777217.0,
                                   3000000000.0,
                                   -3000000123.0};
    const int64_t edge_count = (int64_t)(sizeof edges / sizeof *edges);
    for (int64_t i = 0; i < n; i++) {
        const double x = any_in(0, 1) ? edges[any_in(0, edge_count - 1)]
                                      : (double)(int64_t)any_bits() / (double)(1ull << any_in(0, 63));
        if (dtype == FBP_BOOL) ((uint8_t *)out)[i] = any_bits() & 1;
        else if (dtype == FBP_UINT8) ((uint8_t *)out)[i] = (uint8_t)any_bits();
        else if (dtype == FBP_INT32) ((int32_t *)out)[i] = (int32_t)(any_bits() >> any_in(0, 63));
        else if (dtype == FBP_INT64) ((int64_t *)out)[i] = (int64_t)(any_bits() << any_in(0, 63)) >> any_in(0, 63);
        else if (dtype == FBP_FLOAT32) ((float *)out)[i] = (float)x;
        else ((double *)out)[i] = x;
    }
}

/* Bitwise, except that any NaN equals any NaN. */
static bool same_element(fbp_dtype dtype, const char *a, const char *b) {
    if (dtype == FBP_FLOAT32 && isnan(*(const float *)a)) return isnan(*(const float *)b);
    if (dtype == FBP_FLOAT64 && isnan(*(const double *)a)) return isnan(*(const double *)b);
    return !memcmp(a, b, (size_t)fbp_dtype_size(dtype));
}

static void test_cast(const fbp_copy_kernels *k, fbp_dtype from, fbp_dtype to, int64_t n) {
    const int from_size = fbp_dtype_size(from), to_size = fbp_dtype_size(to);
    char *src = guarded_new(n * from_size), *got = guarded_new(n * to_size), want[8];
    any_elements(from, n, src);
    k->cast(from, to, n, got, src);
    for (int64_t i = 0; i < n; i++) {
        cast_reference(from, to, want, src + i * from_size);
        CHECK(same_element(to, want, got + i * to_size), "cast %s -> %s, element %lld of %lld", fbp_dtype_name(from),
              fbp_dtype_name(to), (long long)i, (long long)n);
    }
    guarded_free(src, n * from_size);
    guarded_free(got, n * to_size);
}

int main(void) {
    static const int64_t large[][3] = {{1, 700, 901}, {3, 300, 517},  {400, 7, 130},
                                       {260, 3, 3},   {2, 1, 300000}, {65, 70, 90}};
    for (current_set = 0; current_set < set_count(); current_set++) {
        const fbp_copy_kernels *k = sets[current_set];
        fbp_threads_set(2);
        for (int round = 0; round < 2500; round++) test_strided(k, (int)any_in(0, 5), NULL);
        for (int round = 0; round < 100; round++) test_strided(k, (int)any_in(6, FBP_COPY_MAX_DIMS), NULL);
        for (int round = 0; round < 48; round++) test_strided(k, 3, large[round % 6]);
        for (int size = 1; size <= 8; size = size == 1 ? 4 : size * 2) {
            test_transposes(k, size);
            for (int64_t n = 0; n <= 70; n++) test_blocks(k, size, n);
            test_blocks(k, size, 50001);
        }
        for (fbp_dtype from = 0; from < FBP_DTYPE_COUNT; from++)
            for (fbp_dtype to = 0; to < FBP_DTYPE_COUNT; to++) {
                for (int64_t n = 0; n <= 70; n++) test_cast(k, from, to, n);
                test_cast(k, from, to, 70001);
            }
    }
    return report("test_copy");
}
