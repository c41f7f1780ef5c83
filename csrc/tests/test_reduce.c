/* per-isa */
/* test_reduce.c -- reductions against plain loops in long double and int64.
 *
 * Floats: |result - exact| <= tolerance * epsilon * (sum of the terms' magnitudes); the tolerance is 4 + log2(n), which
 * plain sequential float addition misses from some ten thousand elements on.  All else is compared exactly.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/isa.h"
#include "kernels/reduce.h"

extern const fbp_reduce_kernels FBP_ISA_SYMBOL(fbp_reduce_kernels);
static const fbp_reduce_kernels *kernels = &FBP_ISA_SYMBOL(fbp_reduce_kernels);

static int failures;

enum { GUARD = 64, SENTINEL = 0x5A };

/* Heap memory of exactly `bytes` between two guards; reads behind inputs are the sanitizer's to find. */
static void *guarded_new(int64_t bytes) {
    char *p = malloc(bytes + 2 * GUARD);
    memset(p, SENTINEL, bytes + 2 * GUARD);
    return p + GUARD;
}
static bool guarded_free(void *memory, int64_t bytes) {
    char *p = (char *)memory - GUARD;
    bool whole = true;
    for (int i = 0; i < GUARD; i++) whole = whole && p[i] == SENTINEL && p[GUARD + bytes + i] == SENTINEL;
    free(p);
    return whole;
}

static uint64_t random_state = 1;
static uint64_t random_bits(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return random_state >> 16;
}
static double random_unit(void) { return (double)(random_bits() & 0xFFFFFFFF) / 4294967296.0; }

static long double real_at(fbp_dtype dtype, const void *x, int64_t i) {
    return dtype == FBP_FLOAT32 ? ((const float *)x)[i] : ((const double *)x)[i];
}
static int64_t integer_at(fbp_dtype dtype, const void *x, int64_t i) {
    switch (dtype) {
    case FBP_BOOL:
    case FBP_UINT8: return ((const uint8_t *)x)[i];
    case FBP_INT32: return ((const int32_t *)x)[i];
    default: return ((const int64_t *)x)[i];
    }
}

/* What the elements look like. */
enum { PLAIN, OFFSET, TIES, SPECIAL, FILLS };
static const char *const fill_name[FILLS] = {"plain", "offset", "ties", "special"};

static double fill_value(int fill) {
    const double u = random_unit() * 2 - 1;
    switch (fill) {
    case OFFSET: return 100 + u;
    case TIES: return (double)(random_bits() % 3) - 1;
    case SPECIAL: {
        static const double special[6] = {NAN, INFINITY, -INFINITY, -0.0, 0.0, 1e30};
        const uint64_t pick = random_bits() % 64;
        return pick < 6 ? special[pick] : u;
    }
    default: return u;
    }
}

static void *make_input(fbp_dtype dtype, int64_t count, int fill) {
    void *x = malloc(count * fbp_dtype_size(dtype) + 1);
    for (int64_t i = 0; i < count; i++) switch (dtype) {
        case FBP_BOOL: ((uint8_t *)x)[i] = random_bits() % 4 == 0; break;
        case FBP_UINT8: ((uint8_t *)x)[i] = (uint8_t)(fill == TIES ? random_bits() % 3 : random_bits()); break;
        case FBP_INT32: ((int32_t *)x)[i] = (int32_t)(fill == TIES ? random_bits() % 3 : random_bits()); break;
        case FBP_INT64:
            ((int64_t *)x)[i] = (int64_t)(fill == TIES ? random_bits() % 3 : random_bits() * random_bits());
            break;
        case FBP_FLOAT32: ((float *)x)[i] = (float)fill_value(fill); break;
        default: ((double *)x)[i] = fill_value(fill); break;
        }
    return x;
}

typedef struct shape {
    int64_t outer, n, inner;
} shape;

/* What is called: one of the members with its extra arguments. */
enum op { SUM, PRODUCT, MEAN, MAX, MIN, ANY, ALL, COUNT, SQUARES, ABS, MAX_ABS, MIN_ABS, POWER, VARIANCE, ARG_MAX, ARG_MIN,
          CUMSUM, CUMPROD, CUMSUM_REVERSE, CUMPROD_REVERSE, OPS };
static const char *const op_name[OPS] = {"sum", "product", "mean", "max", "min", "any", "all", "count_nonzero",
    "sum_squares", "sum_abs", "max_abs", "min_abs", "sum_power", "variance", "arg_max", "arg_min", "cumulative_sum",
    "cumulative_product", "cumulative_sum reversed", "cumulative_product reversed"};

static const double POWER_USED = 2.5, CORRECTION_USED = 1;

/* Run an op; false when the table has none for this type.  `second`: means, or indices. */
static bool run(enum op op, fbp_dtype d, void *y, void *second, const void *x, shape s) {
    const fbp_reduce_kernels *k = kernels;
    fbp_reduce_fn const *const plain[] = {k->sum, k->product, k->mean, k->max, k->min, k->any, k->all, k->count_nonzero,
                                          k->sum_squares, k->sum_abs, k->max_abs, k->min_abs};
    if (op <= MIN_ABS) {
        if (!plain[op][d]) return false;
        plain[op][d](y, x, s.outer, s.n, s.inner);
        return true;
    }
#define CALL(member, ...)                  \
    do {                                   \
        if (!k->member[d]) return false;   \
        k->member[d](__VA_ARGS__);         \
        return true;                       \
    } while (0)
    switch (op) {
    case POWER: CALL(sum_power, y, x, s.outer, s.n, s.inner, POWER_USED);
    case VARIANCE: CALL(variance, y, second, x, s.outer, s.n, s.inner, CORRECTION_USED);
    case ARG_MAX: CALL(arg_max, y, second, x, s.outer, s.n, s.inner);
    case ARG_MIN: CALL(arg_min, y, second, x, s.outer, s.n, s.inner);
    case CUMSUM: CALL(cumulative_sum, y, x, s.outer, s.n, s.inner, false);
    case CUMPROD: CALL(cumulative_product, y, x, s.outer, s.n, s.inner, false);
    case CUMSUM_REVERSE: CALL(cumulative_sum, y, x, s.outer, s.n, s.inner, true);
    default: CALL(cumulative_product, y, x, s.outer, s.n, s.inner, true);
    }
}

static fbp_dtype result_type(enum op op, fbp_dtype d) {
    if (op == ANY || op == ALL) return FBP_BOOL;
    if (op == COUNT || ((op == SUM || op == PRODUCT) && !fbp_dtype_is_float(d))) return FBP_INT64;
    return d;
}

static bool same(long double a, long double b) { return a == b || (isnan(a) && isnan(b)); }
static bool near(fbp_dtype d, long double got, long double want, long double size, int64_t n) {
    const long double largest = d == FBP_FLOAT32 ? FLT_MAX : DBL_MAX;
    if (isnan(want) || isinf(want) || fabsl(want) > largest) /* overflow of a partial sum may also give NaN there */
        return isnan(want) ? isnan(got) : (isinf(got) && (got > 0) == (want > 0)) || !isfinite((double)size);
    if (size > largest / 4) return true; /* whether a partial sum overflowed hangs on the order */
    const long double epsilon = d == FBP_FLOAT32 ? FLT_EPSILON : DBL_EPSILON;
    return fabsl(got - want) <= (4 + log2l((long double)n + 1)) * epsilon * size + (d == FBP_FLOAT32 ? 1e-44L : 0);
}

/* One float result: place i of y against the column of n elements at x[first + r*inner]. */
static bool check_real(enum op op, fbp_dtype d, const void *y, const void *second, int64_t i, const void *x,
                       int64_t first, shape s) {
    long double sum = 0, size = 0, product = 1, range = 0, extreme = op == MIN || op == ARG_MIN ? INFINITY : -INFINITY;
    int64_t count = 0, place = 0;
    if (op == MAX_ABS) extreme = 0;
    if (op == MIN_ABS) extreme = INFINITY;
    const bool low = op == MIN || op == ARG_MIN || op == MIN_ABS;
    for (int64_t r = 0; r < s.n; r++) {
        long double v = real_at(d, x, first + r * s.inner);
        count += v != 0;
        if (op == MAX_ABS || op == MIN_ABS || op == ABS) v = fabsl(v);
        if (op == SQUARES) v = v * v;
        if (op == POWER) v = powl(fabsl(v), POWER_USED);
        sum += v, size += fabsl(v), product *= v;
        range += op == PRODUCT && isfinite((double)v) && v != 0 ? fabsl(logl(fabsl(v))) : 0;
        if (isnan(extreme)) continue;
        if (isnan(v) || (low ? v < extreme : v > extreme)) extreme = v, place = r;
    }
    const long double got = op == ANY || op == ALL || op == COUNT ? 0 : real_at(d, y, i);
    switch (op) {
    case SUM:
    case ABS:
    case SQUARES: return near(d, got, sum, size, s.n);
    case POWER: return near(d, got, sum, size * 2, s.n); /* the power itself is not exact */
    case MEAN: return near(d, got, sum / s.n, size / s.n, s.n);
    case PRODUCT: /* where a partial product may leave float32's range, the order decides what comes out */
        return range > 80 || near(d, got, product, fabsl(product) * s.n, s.n);
    case ANY: return ((const uint8_t *)y)[i] == (count > 0);
    case ALL: return ((const uint8_t *)y)[i] == (count == s.n);
    case COUNT: return ((const int64_t *)y)[i] == count;
    case VARIANCE: {
        const long double mean = sum / s.n, freedom = s.n > CORRECTION_USED ? s.n - CORRECTION_USED : 0;
        long double m2 = 0;
        for (int64_t r = 0; r < s.n; r++) m2 += powl(real_at(d, x, first + r * s.inner) - mean, 2);
        if (freedom == 0 && isfinite((double)sum)) return !isfinite((double)got) && isnan(got) == isnan(m2 / freedom);
        /* an error e in the mean adds n*e*e */
        const long double slip = size / s.n * (d == FBP_FLOAT32 ? FLT_EPSILON : DBL_EPSILON) * 8;
        return near(d, real_at(d, second, i), mean, size / s.n, s.n) &&
               (near(d, got, m2 / freedom, 4 * m2 / freedom, s.n) || fabsl(got - m2 / freedom) <= 4 * slip * slip);
    }
    case ARG_MAX:
    case ARG_MIN: return same(got, extreme) && ((const int64_t *)second)[i] == place;
    default: return same(got, extreme);
    }
}

static bool check_integer(enum op op, fbp_dtype d, const void *y, const void *second, int64_t i, const void *x,
                          int64_t first, shape s) {
    uint64_t sum = 0, product = 1;
    int64_t largest = INT64_MIN, smallest = INT64_MAX, count = 0, at_largest = 0, at_smallest = 0;
    for (int64_t r = 0; r < s.n; r++) {
        const int64_t v = integer_at(d, x, first + r * s.inner);
        sum += (uint64_t)v, product *= (uint64_t)v, count += v != 0;
        if (v > largest) largest = v, at_largest = r;
        if (v < smallest) smallest = v, at_smallest = r;
    }
    switch (op) {
    case SUM: return ((const int64_t *)y)[i] == (int64_t)sum;
    case PRODUCT: return ((const int64_t *)y)[i] == (int64_t)product;
    case MAX: return integer_at(d, y, i) == largest;
    case MIN: return integer_at(d, y, i) == smallest;
    case ANY: return ((const uint8_t *)y)[i] == (count > 0);
    case ALL: return ((const uint8_t *)y)[i] == (count == s.n);
    case COUNT: return ((const int64_t *)y)[i] == count;
    case ARG_MAX: return integer_at(d, y, i) == largest && ((const int64_t *)second)[i] == at_largest;
    default: return integer_at(d, y, i) == smallest && ((const int64_t *)second)[i] == at_smallest;
    }
}

/* A running sum or product along one column. */
static bool check_running(enum op op, fbp_dtype d, const void *y, const void *x, int64_t first, shape s) {
    const bool reverse = op == CUMSUM_REVERSE || op == CUMPROD_REVERSE, product = op == CUMPROD || op == CUMPROD_REVERSE;
    uint64_t exact = product;
    long double total = product, size = 0;
    for (int64_t r = 0; r < s.n; r++) {
        const int64_t at = first + (reverse ? s.n - 1 - r : r) * s.inner;
        if (d == FBP_INT64) {
            const uint64_t v = (uint64_t)((const int64_t *)x)[at];
            exact = product ? exact * v : exact + v;
            if ((uint64_t)((const int64_t *)y)[at] != exact) return false;
            continue;
        }
        const long double v = real_at(d, x, at);
        total = product ? total * v : total + v;
        size += fabsl(v);
        /* float64 runs in plain order, so its error may grow with the length */
        const long double bound = (product ? fabsl(total) : size) * (d == FBP_FLOAT64 ? r + 1 : 1);
        if (product && fabsl(total) < 1e-30L) return true;
        if (!near(d, real_at(d, y, at), total, bound, 1)) return false;
    }
    return true;
}

static void fail(enum op op, fbp_dtype d, shape s, int fill, const char *what, int64_t i) {
    if (failures++ < 20)
        printf("FAIL %s %s [%lld][%lld][%lld] %s: %s at %lld\n", op_name[op], fbp_dtype_name(d), (long long)s.outer,
               (long long)s.n, (long long)s.inner, fill_name[fill], what, (long long)i);
}

static void check(enum op op, fbp_dtype d, shape s, int fill) {
    const bool running = op >= CUMSUM, extreme = op == MAX || op == MIN || op == ARG_MAX || op == ARG_MIN || op == MIN_ABS;
    if (extreme && s.n == 0) return;
    const int64_t count = s.outer * s.n * s.inner, results = running ? count : s.outer * s.inner;
    const int64_t bytes = results * fbp_dtype_size(result_type(op, d)), second_bytes = results * 8;
    void *x = make_input(d, count, fill), *first_y = NULL;
    static const int threads[] = {1, 2, 3, 7};
    const int tries = count > 20000 ? 4 : 1;
    for (int t = 0; t < tries; t++) {
        fbp_threads_set(threads[t]);
        void *y = guarded_new(bytes), *second = guarded_new(second_bytes);
        const bool ran = run(op, d, y, second, x, s);
        for (int64_t i = 0; ran && t == 0 && i < s.outer * s.inner; i++) {
            const int64_t first = i / s.inner * s.n * s.inner + i % s.inner;
            const bool good = running                 ? check_running(op, d, y, x, first, s)
                              : fbp_dtype_is_float(d) ? check_real(op, d, y, second, i, x, first, s)
                                                      : check_integer(op, d, y, second, i, x, first, s);
            if (!good) {
                fail(op, d, s, fill, "wrong result", i);
                break;
            }
        }
        if (ran && t > 0 && memcmp(y, first_y, bytes) != 0) fail(op, d, s, fill, "bits differ by threads", threads[t]);
        if (ran && t == 0) {
            first_y = malloc(bytes + 1);
            memcpy(first_y, y, bytes);
        }
        if (!guarded_free(y, bytes) | !guarded_free(second, second_bytes)) fail(op, d, s, fill, "wrote outside", t);
        if (!ran) break;
    }
    fbp_threads_set(1);
    free(first_y);
    free(x);
}

static void check_all(shape s, int fill) {
    for (int d = 0; d < FBP_DTYPE_COUNT; d++)
        for (int op = 0; op < OPS; op++) check(op, d, s, fill);
}

/* Lanes, leaves and blocks with every kind of remainder. */
static void test_shapes(void) {
    static const int64_t inners[] = {1, 2, 7, 16, 33, 128, 201};
    static const int64_t lengths[] = {0, 1, 2, 3, 5, 8, 15, 17, 33, 71, 130};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
        for (size_t i = 0; i < sizeof inners / sizeof *inners; i++)
            for (int fill = 0; fill < FILLS; fill++)
                if (inners[i] == 1 || (n + i + fill) % 2 == 0) check_all((shape){2, lengths[n], inners[i]}, fill);
    check_all((shape){0, 5, 3}, PLAIN);
    check_all((shape){2, 5, 0}, PLAIN);
}

/* Chunks, segments and shared segments. */
static void test_large(void) {
    static const shape shapes[] = {{1, 2500, 1}, {2, 16385, 1}, {1, 100001, 1}, {3, 70000, 1}, {700, 130, 1}, {1, 1025, 5},
                                   {1, 30001, 3}, {1, 3001, 150}, {90, 70, 19}, {2, 2100, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_all(shapes[i], OFFSET);
        check_all(shapes[i], TIES);
    }
    check(SUM, FBP_FLOAT32, (shape){1, 3000001, 1}, OFFSET);
    check(SUM, FBP_FLOAT32, (shape){1, 150001, 18}, OFFSET);
}

/* Rules with no tolerance: NaN first wins, zero extents, running sums in place. */
static void test_rules(void) {
    const float nan_first[5] = {1, NAN, 9, NAN, 2};
    float value = 0;
    int64_t index = -1;
    kernels->arg_max[FBP_FLOAT32](&value, &index, nan_first, 1, 5, 1);
    if (index != 1 || !isnan(value)) fail(ARG_MAX, FBP_FLOAT32, (shape){1, 5, 1}, SPECIAL, "first NaN", index);
    kernels->arg_min[FBP_FLOAT32](NULL, &index, nan_first, 1, 5, 1);
    if (index != 1) fail(ARG_MIN, FBP_FLOAT32, (shape){1, 5, 1}, SPECIAL, "first NaN", index);
    double in_place[4] = {1, 2, 3, 4};
    kernels->cumulative_sum[FBP_FLOAT64](in_place, in_place, 1, 4, 1, true);
    if (in_place[0] != 10 || in_place[3] != 4) fail(CUMSUM_REVERSE, FBP_FLOAT64, (shape){1, 4, 1}, PLAIN, "in place", 0);
    double mean = 0, variance = 0;
    kernels->variance[FBP_FLOAT64](&variance, &mean, in_place, 1, 0, 1, 1);
    if (!isnan(mean) || !isnan(variance)) fail(VARIANCE, FBP_FLOAT64, (shape){1, 0, 1}, PLAIN, "of nothing", 0);
}

int main(void) {
    test_shapes();
    test_large();
    test_rules();
    printf("test_reduce: %d failures\n", failures);
    return failures != 0;
}
