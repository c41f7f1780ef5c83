/* test_gemm.c -- every set of product kernels that this machine can run, against a plain loop in long double.
 *
 *     test_gemm            all cases
 *     test_gemm 4711       case 4711 alone, on every set
 *
 * A case is a number: it seeds everything about the product.  Checked are
 *   - the values: |error| <= (k + 8) eps (|alpha| sum |a b| + |beta c| + |bias|), the bound of a sum of k products in any order;
 *   - beta == 0 does not read C (it holds NaN), gaps between the rows of A and B are not read (they hold NaN);
 *   - the gaps between the rows of C and the space before and after it keep their bits;
 *   - the epilogue sees each element of C exactly once;
 *   - 1, 2, 3 and 7 threads give the same bits.
 */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/gemm.h"

enum { SMALL_CASES = 6000, LARGE_CASES = 60, BATCH_CASES = 300, GUARD = 64 };

typedef struct kernel_set {
    const char *name;
    const fbp_gemm_kernels *kernels;
    bool available;
} kernel_set;

/* -- random numbers: splitmix64 --------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_bits(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static int64_t random_below(int64_t n) { return (int64_t)(random_bits() % (uint64_t)n); }
static double random_real(void) { return (double)(random_bits() >> 11) * 0x1p-52 - 1.0; }

/* -- arrays of either type --------------------------------------------------------------------------------- */

static double get(const void *array, bool f64, int64_t i) {
    return f64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}
static void set(void *array, bool f64, int64_t i, double value) {
    if (f64) ((double *)array)[i] = value;
    else ((float *)array)[i] = (float)value;
}

/* Exactly `count` elements (so that a sanitizer sees a read past the end), all `value`. */
static void *filled(bool f64, int64_t count, double value) {
    void *array = malloc((size_t)(count > 0 ? count : 1) * (f64 ? 8 : 4));
    if (!array) {
        fprintf(stderr, "test_gemm: out of memory\n");
        exit(2);
    }
    for (int64_t i = 0; i < count; i++) set(array, f64, i, value);
    return array;
}

/* A rows x columns matrix of random numbers with random strides; what lies between its elements is NaN. */
static void *matrix(bool f64, int64_t rows, int64_t columns, int64_t *row, int64_t *column) {
    const int64_t gap = random_below(2) ? random_below(5) : 0;
    switch (random_below(5)) {
    case 0:
    case 1: *column = 1, *row = columns + gap; break; /* plain */
    case 2:
    case 3: *row = 1, *column = rows + gap; break; /* transposed */
    default: *column = 2 + gap, *row = *column * columns + 1; break; /* neither is contiguous */
    }
    const int64_t count = rows && columns ? (rows - 1) * *row + (columns - 1) * *column + 1 : 0;
    void *array = filled(f64, count, NAN);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) set(array, f64, i * *row + j * *column, random_real());
    return array;
}

/* -- one case ----------------------------------------------------------------------------------------------- */

typedef struct gemm_case {
    bool f64;
    fbp_gemm_batch s;
    int64_t c_count;     /* elements of the array that holds the C's, guards included */
    void *a, *b, *c, *bias, *before; /* c is the result, before its copy from before the product */
    unsigned char *seen; /* times the epilogue saw each element, NULL without one */
} gemm_case;

/* The epilogue: halve and count. */
static void halve(void *context, void *c, int64_t c_row, int64_t rows, int64_t columns, int64_t row, int64_t column) {
    gemm_case *x = context;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            set(c, x->f64, i * c_row + j, 0.5 * get(c, x->f64, i * c_row + j));
            x->seen[(row + i) * x->s.first.n + column + j]++;
        }
}

static int64_t random_size(bool large) {
    static const int64_t interesting[] = {1, 2, 4, 8, 10, 14, 15, 16, 28, 31, 32, 33, 48, 64};
    if (random_below(3) == 0) return interesting[random_below((int64_t)(sizeof interesting / sizeof *interesting))];
    return large ? 1 + random_below(random_below(4) ? 300 : 1500) : random_below(71);
}

static void case_make(gemm_case *x, int64_t number) {
    memset(x, 0, sizeof *x);
    random_state = (uint64_t)number * 1000003u;
    const bool large = number >= SMALL_CASES && number < SMALL_CASES + LARGE_CASES;
    const bool batch = number >= SMALL_CASES + LARGE_CASES;
    static const double factors[] = {1, 1, 1, 0, -1, 0.5, 1.75};
    fbp_gemm *g = &x->s.first;
    x->f64 = random_below(2);
    g->m = random_size(large), g->n = random_size(large), g->k = random_size(large);
    x->s.count = batch ? random_below(9) : 1;
    g->alpha = factors[random_below(7)];
    g->beta = random_below(2) ? 0 : factors[random_below(7)];
    /* one matrix after another, or one for all: stack them as rows of one tall matrix */
    const bool share_a = batch && random_below(4) == 0, share_b = batch && random_below(3) == 0;
    const int64_t count = x->s.count;
    g->a = x->a = matrix(x->f64, (share_a ? 1 : count) * g->m, g->k, &g->a_row, &g->a_col);
    g->b = x->b = matrix(x->f64, (share_b ? 1 : count) * g->k, g->n, &g->b_row, &g->b_col);
    x->s.a_step = share_a ? 0 : g->m * g->a_row;
    x->s.b_step = share_b ? 0 : g->k * g->b_row;
    g->c_row = g->n + (random_below(2) ? random_below(5) : 0);
    x->s.c_step = g->m * g->c_row + (batch && random_below(2) ? 3 : 0);
    if (random_below(2)) {
        x->bias = matrix(x->f64, count * g->m, g->n, &g->bias_row, &g->bias_col);
        x->s.bias_step = g->m * g->bias_row;
        if (random_below(3)) g->bias_row = 0, x->s.bias_step = 0;
        if (random_below(3) == 0) g->bias_col = 0;
        g->bias = x->bias;
    }
    if (!batch && random_below(3) == 0) {
        x->seen = calloc((size_t)(g->m * g->n + 1), 1);
        g->finish = halve;
        g->finish_context = x;
    }
    x->c_count = count * x->s.c_step + 2 * GUARD;
    x->before = filled(x->f64, x->c_count, 12345.0);
    for (int64_t q = 0; q < count; q++)
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++)
                set(x->before, x->f64, GUARD + q * x->s.c_step + i * g->c_row + j, g->beta == 0 ? NAN : random_real());
    x->c = filled(x->f64, x->c_count, 0);
    g->c = (char *)x->c + GUARD * (x->f64 ? 8 : 4);
}

static void case_free(gemm_case *x) {
    free(x->a), free(x->b), free(x->c), free(x->bias), free(x->before), free(x->seen);
}

static fbp_status case_run(gemm_case *x, const fbp_gemm_kernels *kernels) {
    memcpy(x->c, x->before, (size_t)x->c_count * (x->f64 ? 8 : 4));
    if (x->seen) memset(x->seen, 0, (size_t)(x->s.first.m * x->s.first.n));
    if (x->s.count != 1) return (x->f64 ? kernels->batch_f64 : kernels->batch_f32)(&x->s);
    return (x->f64 ? kernels->f64 : kernels->f32)(&x->s.first);
}

/* What C[i,j] of product q must be, and by how much it may be off. */
static long double expected(const gemm_case *x, int64_t q, int64_t i, int64_t j, long double *bound) {
    const fbp_gemm *g = &x->s.first;
    long double sum = 0, size = 0;
    for (int64_t p = 0; p < g->k && g->alpha != 0; p++) {
        const long double term = (long double)get(x->a, x->f64, q * x->s.a_step + i * g->a_row + p * g->a_col) *
                                 get(x->b, x->f64, q * x->s.b_step + p * g->b_row + j * g->b_col);
        sum += term, size += fabsl(term);
    }
    sum *= g->alpha, size *= fabs(g->alpha);
    if (g->beta != 0) {
        const long double term = g->beta * (long double)get(x->before, x->f64, GUARD + q * x->s.c_step + i * g->c_row + j);
        sum += term, size += fabsl(term);
    }
    if (g->bias) {
        const double term = get(x->bias, x->f64, q * x->s.bias_step + i * g->bias_row + j * g->bias_col);
        sum += term, size += fabs(term);
    }
    *bound = (long double)(g->k + 8) * (x->f64 ? DBL_EPSILON : FLT_EPSILON) * size;
    return g->finish ? sum / 2 : sum;
}

static bool fail(const kernel_set *set, const gemm_case *x, int64_t number, const char *what) {
    const fbp_gemm *g = &x->s.first;
    printf("FAILED %s %s: %s\n  m %lld n %lld k %lld, strides a %lld %lld b %lld %lld c %lld bias %lld %lld,"
           " alpha %g beta %g, %s bias, %s epilogue, %lld products\n  rerun: test_gemm %lld\n",
           set->name, x->f64 ? "float64" : "float32", what, (long long)g->m, (long long)g->n, (long long)g->k,
           (long long)g->a_row, (long long)g->a_col, (long long)g->b_row, (long long)g->b_col, (long long)g->c_row,
           (long long)g->bias_row, (long long)g->bias_col, g->alpha, g->beta, g->bias ? "with" : "no",
           g->finish ? "with" : "no", (long long)x->s.count, (long long)number);
    return false;
}

/* Values, gaps, guards and the epilogue's coverage of the result in x->c. */
static bool case_check(const kernel_set *set, const gemm_case *x, int64_t number) {
    const fbp_gemm *g = &x->s.first;
    const int64_t bytes = x->f64 ? 8 : 4;
    for (int64_t at = 0; at < x->c_count; at++) {
        const int64_t inside = at - GUARD, q = x->s.c_step ? inside / x->s.c_step : 0, rest = inside - q * x->s.c_step;
        const int64_t i = g->c_row ? rest / g->c_row : 0, j = rest - i * g->c_row;
        if (inside < 0 || q >= x->s.count || i >= g->m || j >= g->n) {
            if (memcmp((char *)x->c + at * bytes, (char *)x->before + at * bytes, (size_t)bytes))
                return fail(set, x, number, "wrote outside C");
            continue;
        }
        if (g->m * g->n > 20000 && (at * 7919) % 97) continue; /* large: a sample of the elements */
        long double bound;
        const long double value = expected(x, q, i, j, &bound), error = fabsl(get(x->c, x->f64, at) - value);
        if (!(error <= bound)) {
            printf("  C[%lld][%lld,%lld] = %.17g, expected %.17Lg, error %.3Lg > %.3Lg\n", (long long)q, (long long)i,
                   (long long)j, get(x->c, x->f64, at), value, error, bound);
            return fail(set, x, number, "wrong value");
        }
    }
    for (int64_t i = 0; x->seen && i < g->m * g->n; i++)
        if (x->seen[i] != 1) return fail(set, x, number, "epilogue did not see each element once");
    return true;
}

static bool case_test(const kernel_set *set, int64_t number) {
    gemm_case x;
    case_make(&x, number);
    fbp_threads_set(1);
    bool good = case_run(&x, set->kernels) == FBP_OK ? case_check(set, &x, number) : fail(set, &x, number, "status");
    /* only products with work for several threads are split, so small ones are not run again */
    if (good && number >= SMALL_CASES) {
        const size_t bytes = (size_t)x.c_count * (x.f64 ? 8 : 4);
        void *one = malloc(bytes);
        if (one) memcpy(one, x.c, bytes);
        static const int threads[] = {2, 3, 7};
        for (int t = 0; good && t < 3; t++) {
            fbp_threads_set(threads[t]);
            if (!one || case_run(&x, set->kernels) != FBP_OK || memcmp(one, x.c, bytes))
                good = fail(set, &x, number, "other bits with other threads");
        }
        fbp_threads_set(1);
        free(one);
    }
    case_free(&x);
    return good;
}

int main(int argc, char **argv) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    const kernel_set sets[] = {{"scalar", &fbp_gemm_kernels_scalar, true},
                               {"sse2", &fbp_gemm_kernels_sse2, true},
                               {"avx2", &fbp_gemm_kernels_avx2, avx2},
                               {"avx512", &fbp_gemm_kernels_avx512, avx512}};
#elif defined(__aarch64__)
    const kernel_set sets[] = {{"scalar", &fbp_gemm_kernels_scalar, true}, {"neon", &fbp_gemm_kernels_neon, true}};
#else
    const kernel_set sets[] = {{"scalar", &fbp_gemm_kernels_scalar, true}};
#endif
    const int64_t cases = SMALL_CASES + LARGE_CASES + BATCH_CASES, only = argc > 1 ? atoll(argv[1]) : -1;
    int failures = 0;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (!sets[s].available) {
            printf("gemm %s: not on this machine\n", sets[s].name);
            continue;
        }
        int bad = 0;
        for (int64_t number = only >= 0 ? only : 0; number < (only >= 0 ? only + 1 : cases) && bad < 5; number++)
            bad += !case_test(&sets[s], number);
        printf("gemm %s: %s\n", sets[s].name, bad ? "FAILED" : "passed");
        failures += bad;
    }
    return failures != 0;
}
