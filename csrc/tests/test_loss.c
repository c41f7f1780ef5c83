/* per-isa */
/* test_loss.c -- softmax and its kin, cross entropy and negative log-likelihood, against long double.
 *
 * Bounds: an exponential or logarithm of the kernels errs by a few units in the last place, a sum of n terms by its
 * tree's depth; 16 + log2(n) epsilons of the largest intermediate cover both.  Bits must not depend on threads.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/isa.h"
#include "kernels/loss.h"
#include "kernels/normalize.h"

extern const fbp_normalize_kernels FBP_ISA_SYMBOL(fbp_normalize_kernels);
extern const fbp_loss_kernels FBP_ISA_SYMBOL(fbp_loss_kernels);
static const fbp_normalize_kernels *normal = &FBP_ISA_SYMBOL(fbp_normalize_kernels);
static const fbp_loss_kernels *losses = &FBP_ISA_SYMBOL(fbp_loss_kernels);

typedef struct shape {
    int64_t outer, n, inner;
} shape;

static int failures;
static void fail(const char *what, fbp_dtype d, shape s, int variant, int64_t i, long double got, long double want) {
    if (failures++ < 20)
        printf("FAIL %s %s [%lld][%lld][%lld] variant %d at %lld: %.17Lg, expected %.17Lg\n", what, fbp_dtype_name(d),
               (long long)s.outer, (long long)s.n, (long long)s.inner, variant, (long long)i, got, want);
}

static uint64_t random_state = 3;
static uint64_t random_bits(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return random_state >> 32;
}
static double random_unit(void) { return (double)random_bits() / 4294967296.0; }

static long double at(fbp_dtype d, const void *x, int64_t i) {
    return d == FBP_FLOAT32 ? ((const float *)x)[i] : ((const double *)x)[i];
}
static void put(fbp_dtype d, void *x, int64_t i, double v) {
    if (d == FBP_FLOAT32)
        ((float *)x)[i] = (float)v;
    else
        ((double *)x)[i] = v;
}

enum { GUARD = 64, SENTINEL = 0x5A };
static void *guarded_new(fbp_dtype d, int64_t n) {
    const int64_t bytes = n * fbp_dtype_size(d);
    char *p = malloc(bytes + 2 * GUARD);
    memset(p, SENTINEL, bytes + 2 * GUARD);
    return p + GUARD;
}
static void *random_new(fbp_dtype d, int64_t n, double centre, double spread) {
    void *x = guarded_new(d, n);
    for (int64_t i = 0; i < n; i++) put(d, x, i, centre + spread * (2 * random_unit() - 1));
    return x;
}
static void guarded_free(void *x, fbp_dtype d, int64_t n, shape s) {
    char *p = (char *)x - GUARD;
    const int64_t bytes = n * fbp_dtype_size(d);
    for (int i = 0; i < GUARD; i++)
        if (p[i] != SENTINEL || p[GUARD + bytes + i] != SENTINEL) {
            fail("wrote outside", d, s, 0, i, 0, 0);
            break;
        }
    free(p);
}

static bool near(fbp_dtype d, long double got, long double want, long double size, int64_t n) {
    if (isnan(want)) return isnan(got);
    if (isinf(want)) return got == want;
    const long double epsilon = d == FBP_FLOAT32 ? FLT_EPSILON : DBL_EPSILON;
    return fabsl(got - want) <= (16 + log2l((long double)n + 1)) * epsilon * size + (d == FBP_FLOAT32 ? 1e-37L : 1e-300L);
}

/* ---- softmax and its kin ---------------------------------------------------- */

/* log sum exp of the n elements that lie `inner` apart from place `first`; also the largest. */
static long double log_sum(fbp_dtype d, const void *x, int64_t first, shape s, long double *largest) {
    long double m = -INFINITY, sum = 0;
    bool nan = false;
    for (int64_t r = 0; r < s.n; r++) {
        const long double v = at(d, x, first + r * s.inner);
        nan = nan || isnan(v);
        if (v > m) m = v;
    }
    *largest = nan ? NAN : m;
    if (nan) return NAN;
    if (isinf(m)) return m;
    for (int64_t r = 0; r < s.n; r++) sum += expl(at(d, x, first + r * s.inner) - m);
    return m + logl(sum);
}

/* Forward results of one row or column. */
static void check_forward(fbp_dtype d, shape s, int64_t position, const void *x, const void *soft, const void *log_soft,
                          const void *lse, int variant) {
    const int64_t first = position / s.inner * s.n * s.inner + position % s.inner;
    long double largest;
    const long double total = log_sum(d, x, first, s, &largest);
    const bool broken = isnan(total) || isinf(largest); /* then softmax is NaN throughout */
    if (!near(d, at(d, lse, position), total, fabsl(total) + 1, s.n))
        fail("logsumexp", d, s, variant, position, at(d, lse, position), total);
    for (int64_t r = 0; r < s.n; r++) {
        const int64_t i = first + r * s.inner;
        const long double v = at(d, x, i), want = broken ? NAN : v - total, p = broken ? NAN : expl(want);
        /* the subtraction's rounding, relative to the distance from the maximum, becomes the exponential's */
        if (!near(d, at(d, soft, i), p, p > 0 ? p * (1 + fabsl(v - largest)) : 0, s.n)) fail("softmax", d, s, variant, i, at(d, soft, i), p);
        if (!near(d, at(d, log_soft, i), want, fabsl(want) + 1, s.n) && !(isinf(v) && v < 0 && !broken && isinf((double)at(d, log_soft, i))))
            fail("log_softmax", d, s, variant, i, at(d, log_soft, i), want);
    }
}

static void check_backward(fbp_dtype d, shape s, int64_t position, const void *x, const void *g, const void *soft,
                           const void *log_soft, const void *lse, const void *const results[3]) {
    const int64_t first = position / s.inner * s.n * s.inner + position % s.inner;
    long double dot = 0, sum = 0, size = 0;
    for (int64_t r = 0; r < s.n; r++) {
        const int64_t i = first + r * s.inner;
        dot += at(d, g, i) * at(d, soft, i);
        sum += at(d, g, i);
        size += fabsl(at(d, g, i));
    }
    for (int64_t r = 0; r < s.n; r++) {
        const int64_t i = first + r * s.inner;
        const long double y = at(d, soft, i), gi = at(d, g, i);
        const long double soft_want = y * (gi - dot), log_want = gi - expl(at(d, log_soft, i)) * sum;
        const long double lse_want = at(d, g, position) * expl(at(d, x, i) - at(d, lse, position));
        const long double p = expl(at(d, log_soft, i)), distance = 1 + fabsl(at(d, x, i) - at(d, lse, position));
        if (!near(d, at(d, results[0], i), soft_want, y * 2, s.n))
            fail("softmax_backward", d, s, 0, i, at(d, results[0], i), soft_want);
        if (!near(d, at(d, results[1], i), log_want, fabsl(gi) + p * size, s.n))
            fail("log_softmax_backward", d, s, 0, i, at(d, results[1], i), log_want);
        if (!near(d, at(d, results[2], i), lse_want, fabsl(lse_want) * distance, s.n))
            fail("logsumexp_backward", d, s, 0, i, at(d, results[2], i), lse_want);
    }
}

enum { MODERATE, FAR_OFF, WIDE, INFINITE, VARIANTS };

static void *logits_new(fbp_dtype d, int64_t count, int variant) {
    void *x = random_new(d, count, variant == FAR_OFF ? 3000 : 0, variant == WIDE ? 60 : 4);
    static const double special[4] = {-INFINITY, -INFINITY, NAN, INFINITY};
    for (int64_t i = 0; variant == INFINITE && i < count; i++)
        if (random_bits() % 8 == 0) put(d, x, i, special[random_bits() % 32 < 28 ? 0 : random_bits() % 4]);
    return x;
}

static void check_normalize(fbp_dtype d, shape s, int variant) {
    const int64_t count = s.outer * s.n * s.inner, reduced = s.outer * s.inner;
    void *x = logits_new(d, count, variant), *g = random_new(d, count + reduced, 0, 1);
    void *first[6] = {0};
    static const int threads[] = {1, 2, 3, 7};
    for (int t = 0; t < (count > 5000 ? 4 : 1); t++) {
        void *y[6];
        const int64_t sizes[6] = {count, count, reduced, count, count, count};
        for (int k = 0; k < 6; k++) y[k] = guarded_new(d, sizes[k]);
        fbp_threads_set(threads[t]);
        normal->softmax[d](y[0], x, s.outer, s.n, s.inner);
        normal->log_softmax[d](y[1], x, s.outer, s.n, s.inner);
        normal->logsumexp[d](y[2], x, s.outer, s.n, s.inner);
        normal->softmax_backward[d](y[3], g, y[0], s.outer, s.n, s.inner);
        normal->log_softmax_backward[d](y[4], g, y[1], s.outer, s.n, s.inner);
        normal->logsumexp_backward[d](y[5], g, y[2], x, s.outer, s.n, s.inner);
        fbp_threads_set(1);
        for (int64_t i = 0; t == 0 && i < reduced; i++) {
            check_forward(d, s, i, x, y[0], y[1], y[2], variant);
            if (variant != INFINITE) check_backward(d, s, i, x, g, y[0], y[1], y[2], (const void *const *)&y[3]);
        }
        for (int k = 0; k < 6; k++) {
            if (t == 0) {
                first[k] = malloc(sizes[k] * 8 + 1);
                memcpy(first[k], y[k], sizes[k] * fbp_dtype_size(d));
            } else if (memcmp(first[k], y[k], sizes[k] * fbp_dtype_size(d)) != 0) {
                fail("bits differ by threads", d, s, variant, k, threads[t], 1);
            }
            guarded_free(y[k], d, sizes[k], s);
        }
    }
    normal->softmax[d](x, x, s.outer, s.n, s.inner); /* in place */
    if (memcmp(x, first[0], count * fbp_dtype_size(d)) != 0) fail("softmax in place", d, s, variant, 0, 0, 0);
    for (int k = 0; k < 6; k++) free(first[k]);
    guarded_free(x, d, count, s);
    guarded_free(g, d, count + reduced, s);
}

/* ---- losses ------------------------------------------------------------------- */

/* Expected losses and derivatives, from the formula in loss.h; arrays of long double are the caller's. */
static void expect_loss(fbp_dtype d, const fbp_class_loss *a, const void *x, bool nll, const void *dloss,
                        long double *loss, long double *total, long double *dx) {
    const shape s = {a->outer, a->classes, a->inner};
    const int64_t positions = s.outer * s.inner;
    const long double smoothing = nll ? 0 : a->label_smoothing;
    long double weight_sum = 0, sum = 0;
    *total = 0;
    for (int64_t c = 0; c < s.n; c++) weight_sum += a->weight ? at(d, a->weight, c) : 1;
    for (int64_t i = 0; i < positions; i++) {
        const int64_t t = a->target[i];
        if (t != a->ignore_index) *total += a->weight ? at(d, a->weight, t) : 1;
    }
    for (int64_t i = 0; i < positions; i++) {
        const int64_t t = a->target[i], first = i / s.inner * s.n * s.inner + i % s.inner;
        const bool ignored = t == a->ignore_index;
        long double largest, even = 0;
        const long double rest = nll ? 0 : log_sum(d, x, first, s, &largest);
        const long double w = ignored ? 0 : a->weight ? at(d, a->weight, t) : 1;
        const long double scale = (a->reduction == FBP_REDUCTION_MEAN ? 1 / *total : 1) *
                                  at(d, dloss, a->reduction == FBP_REDUCTION_NONE ? i : 0);
        for (int64_t c = 0; c < s.n; c++) {
            const int64_t place = first + c * s.inner;
            const long double wc = a->weight ? at(d, a->weight, c) : 1, log_p = at(d, x, place) - rest;
            even -= wc * log_p;
            const long double pull = nll ? 0 : (1 - smoothing) * w + smoothing / s.n * weight_sum;
            const long double own = c == t ? (1 - smoothing) * w : 0;
            dx[place] = ignored ? 0 : scale * ((pull != 0 ? pull * expl(log_p) : 0) - smoothing / s.n * wc - own);
        }
        const long double value = ignored ? 0 : (1 - smoothing) * w * (rest - at(d, x, first + t * s.inner)) +
                                                    (smoothing != 0 ? smoothing / s.n * even : 0);
        if (a->reduction == FBP_REDUCTION_NONE) loss[i] = value;
        sum += value;
    }
    if (a->reduction == FBP_REDUCTION_SUM) loss[0] = sum;
    if (a->reduction == FBP_REDUCTION_MEAN) loss[0] = sum / *total;
}

enum { WEIGHTED = 1, SMOOTH = 2, IGNORING = 4, NLL = 8, ALL_IGNORED = 16, LOSS_VARIANTS = 32 };

/* One forward and backward pass into fresh arrays. */
static void run_loss(fbp_dtype d, const fbp_class_loss *a, int variant, const void *x, const void *dloss, void *loss,
                     void *total, void *softmax, void *dx) {
    if (variant & NLL) {
        if (losses->nll[d](loss, total, x, a) != -1) failures++;
        losses->nll_backward[d](dx, dloss, total, a);
        return;
    }
    if (losses->cross_entropy[d](loss, total, softmax, x, a) != -1) failures++;
    losses->cross_entropy_backward[d](dx, dloss, total, softmax, a);
}

/* Loss and derivative in one call have the bits of two calls, into fresh memory and in place.  The logits end where
 * their memory ends, so that a sanitizer sees what is read behind them. */
static void check_both(fbp_dtype d, shape s, const fbp_class_loss *a, const void *x, const void *dloss,
                       const void *loss, const void *dx) {
    const int64_t count = s.outer * s.n * s.inner, bytes = fbp_dtype_size(d);
    const int64_t results = a->reduction == FBP_REDUCTION_NONE ? s.outer * s.inner : 1;
    void *got_loss = guarded_new(d, results), *got = guarded_new(d, count);
    void *exact = malloc(count > 0 ? count * bytes : 1);
    memcpy(exact, x, count * bytes);
    for (int in_place = 0; in_place < 2; in_place++) {
        if (in_place) memcpy(got, x, count * bytes);
        memset(got_loss, 0, results * bytes);
        if (losses->cross_entropy_both[d](got_loss, got, dloss, in_place ? got : exact, a) != -1) failures++;
        if (memcmp(got_loss, loss, results * bytes) != 0) fail("loss of both", d, s, in_place, 0, 0, 0);
        if (memcmp(got, dx, count * bytes) != 0) fail("derivative of both", d, s, in_place, 0, 0, 0);
    }
    free(exact);
    guarded_free(got_loss, d, results, s);
    guarded_free(got, d, count, s);
}

static void check_loss(fbp_dtype d, shape s, int variant, fbp_reduction reduction) {
    const int64_t positions = s.outer * s.inner, count = positions * s.n, bytes = fbp_dtype_size(d);
    const int64_t results = reduction == FBP_REDUCTION_NONE ? positions : 1;
    int64_t *target = malloc((positions + 1) * sizeof *target);
    for (int64_t i = 0; i < positions; i++) {
        target[i] = (int64_t)(random_bits() % (uint64_t)s.n);
        if ((variant & ALL_IGNORED) || ((variant & IGNORING) && random_bits() % 4 == 0)) target[i] = -100;
    }
    void *x = random_new(d, count, variant & NLL ? -3 : 1000, 3), *weight = random_new(d, s.n, 1, 0.9);
    void *dloss = random_new(d, results, 1, 0.5);
    const fbp_class_loss a = {s.outer, s.n, s.inner, target, variant & WEIGHTED ? weight : NULL, -100,
                              variant & SMOOTH ? 0.1 : 0, reduction};
    long double *want_loss = malloc((results + 1) * sizeof *want_loss), *want_dx = malloc((count + 1) * sizeof *want_dx), total;
    expect_loss(d, &a, x, variant & NLL, dloss, want_loss, &total, want_dx);
    static const int threads[] = {1, 2, 3, 7};
    void *first_dx = malloc(count * bytes + 1), *first_loss = malloc(results * bytes + 1);
    for (int t = 0; t < (count > 5000 ? 4 : 1); t++) {
        void *loss = guarded_new(d, results), *got_total = guarded_new(d, 1), *softmax = guarded_new(d, count);
        void *dx = guarded_new(d, count), *quiet = guarded_new(d, results);
        fbp_threads_set(threads[t]);
        run_loss(d, &a, variant, x, dloss, loss, got_total, softmax, dx);
        fbp_threads_set(1);
        if (t == 0) {
            memcpy(first_dx, dx, count * bytes);
            memcpy(first_loss, loss, results * bytes);
            if (!near(d, at(d, got_total, 0), total, total, positions))
                fail("total weight", d, s, variant, reduction, at(d, got_total, 0), total);
            for (int64_t i = 0; i < results; i++)
                if (!near(d, at(d, loss, i), want_loss[i], fabsl(want_loss[i]) + 1, s.n))
                    fail("loss", d, s, variant, i, at(d, loss, i), want_loss[i]);
            const long double scale = reduction == FBP_REDUCTION_MEAN && total > 0 ? 1 / total : 1;
            for (int64_t i = 0; i < count; i++) /* terms of size scale * w, of which the difference is taken */
                if (!near(d, at(d, dx, i), want_dx[i], scale * 4, s.n))
                    fail("derivative", d, s, variant, i, at(d, dx, i), want_dx[i]);
        } else if (memcmp(first_dx, dx, count * bytes) != 0 || memcmp(first_loss, loss, results * bytes) != 0) {
            fail("bits differ by threads", d, s, variant, threads[t], 0, 0);
        }
        if (!(variant & NLL)) { /* without softmax; and in the memory of others */
            losses->cross_entropy[d](quiet, got_total, NULL, x, &a);
            if (memcmp(quiet, loss, results * bytes) != 0) fail("loss without softmax", d, s, variant, 0, 0, 0);
            memcpy(dx, x, count * bytes);
            losses->cross_entropy[d](quiet, got_total, dx, dx, &a);
            losses->cross_entropy_backward[d](dx, dloss, got_total, dx, &a);
            if (memcmp(quiet, loss, results * bytes) != 0 || memcmp(dx, first_dx, count * bytes) != 0)
                fail("in place", d, s, variant, 0, 0, 0);
            check_both(d, s, &a, x, dloss, loss, first_dx);
        }
        guarded_free(loss, d, results, s);
        guarded_free(quiet, d, results, s);
        guarded_free(got_total, d, 1, s);
        guarded_free(softmax, d, count, s);
        guarded_free(dx, d, count, s);
    }
    guarded_free(x, d, count, s);
    guarded_free(weight, d, s.n, s);
    guarded_free(dloss, d, results, s);
    free(target), free(want_loss), free(want_dx), free(first_dx), free(first_loss);
}

/* Rows that hold NaN, +inf or nothing but -inf: loss and derivatives are NaN, unless the row is ignored; the others are
 * as ever, with an infinite loss where the target's logit is -inf. */
static void check_infinite(fbp_dtype d, int64_t rows, int64_t classes) {
    const shape s = {rows, classes, 1};
    const int64_t count = rows * classes;
    void *x = logits_new(d, count, INFINITE), *dloss = random_new(d, rows, 1, 0.5), *loss = guarded_new(d, rows);
    void *total = guarded_new(d, 1), *softmax = guarded_new(d, count), *dx = guarded_new(d, count);
    int64_t *target = malloc((size_t)rows * sizeof *target);
    for (int64_t i = 0; i < rows; i++)
        target[i] = random_bits() % 4 ? (int64_t)(random_bits() % (uint64_t)classes) : -100;
    const fbp_class_loss a = {rows, classes, 1, target, NULL, -100, 0, FBP_REDUCTION_NONE};
    run_loss(d, &a, 0, x, dloss, loss, total, softmax, dx);
    for (int64_t i = 0; i < rows; i++) {
        long double largest;
        const long double rest = log_sum(d, x, i * classes, s, &largest), g = at(d, dloss, i);
        const bool ignored = target[i] == -100, broken = isnan(rest) || isinf(rest);
        const long double value = ignored ? 0 : broken ? NAN : rest - at(d, x, i * classes + target[i]);
        if (!near(d, at(d, loss, i), value, fabsl(value) + 1, classes))
            fail("infinite loss", d, s, 0, i, at(d, loss, i), value);
        for (int64_t c = i * classes; c < (i + 1) * classes; c++) {
            const long double p = broken ? NAN : expl(at(d, x, c) - rest);
            const long double want = ignored ? 0 : g * (p - (c - i * classes == target[i]));
            if (!near(d, at(d, dx, c), want, 4, classes))
                fail("infinite derivative", d, s, 0, c, at(d, dx, c), want);
        }
    }
    check_both(d, s, &a, x, dloss, loss, dx);
    guarded_free(x, d, count, s);
    guarded_free(dloss, d, rows, s);
    guarded_free(loss, d, rows, s);
    guarded_free(total, d, 1, s);
    guarded_free(softmax, d, count, s);
    guarded_free(dx, d, count, s);
    free(target);
}

/* Rows of few classes lie in lanes: every number of classes and of rows up to where tiles, batches and the way itself
 * change.  Emulated, some of the rows. */
static void test_few_classes(fbp_dtype d, bool emulated) {
    static const int variants[] = {0, IGNORING, 0, ALL_IGNORED, IGNORING};
    int k = 0;
    for (int64_t classes = 1; classes <= 40; classes++) {
        for (int64_t rows = 1; rows <= 70; rows += emulated ? 1 + (int64_t)(random_bits() % 12) : 1, k++)
            check_loss(d, (shape){rows, classes, 1}, variants[k % 5], (fbp_reduction)(k % 3));
        for (int reduction = 0; reduction < 3; reduction++)
            check_loss(d, (shape){classes % 4 ? 131 : 5003 / classes + 70, classes, 1}, IGNORING,
                       (fbp_reduction)reduction);
        check_infinite(d, 150, classes);
    }
    check_loss(d, (shape){20000, 4, 1}, IGNORING, FBP_REDUCTION_MEAN);
}

/* A wrong target is found before anything is written, among rows in lanes too. */
static void test_bad_target_of_few(void) {
    for (int64_t classes = 1; classes <= 40; classes += 3)
        for (int64_t rows = 1; rows <= 70; rows += 23)
            for (int64_t bad = 0; bad < rows; bad += 1 + rows / 3) {
                double x[70 * 40] = {0}, dx[70 * 40] = {7}, loss[70] = {7}, total = 5, dloss[70] = {1};
                int64_t target[70] = {0};
                target[bad] = bad % 2 ? classes : -1 - bad;
                if (classes % 2 && bad + 1 < rows) target[bad + 1] = INT64_MAX;
                const shape s = {rows, classes, 1};
                const fbp_class_loss a = {rows, classes, 1, target, NULL, -100, 0, (fbp_reduction)(rows % 3)};
                const int64_t first = losses->cross_entropy[FBP_FLOAT64](loss, &total, dx, x, &a);
                const int64_t second = losses->cross_entropy_both[FBP_FLOAT64](loss, dx, dloss, x, &a);
                if (first != bad || second != bad) fail("bad target of few", FBP_FLOAT64, s, 0, bad, first, second);
                if (total != 5 || loss[0] != 7 || dx[0] != 7)
                    fail("wrote in spite of a bad target", FBP_FLOAT64, s, 1, bad, 0, 0);
            }
}

/* A wrong target is found before anything is written. */
static void test_bad_target(void) {
    const shape s = {3, 4, 2};
    float x[24] = {0}, loss[6], total = 5, softmax[24], before[24];
    memset(softmax, SENTINEL, sizeof softmax);
    memset(loss, SENTINEL, sizeof loss);
    memcpy(before, softmax, sizeof before);
    static const int64_t bad[] = {4, -1, INT64_MIN, INT64_MAX};
    for (int k = 0; k < 4; k++) {
        const int64_t target[6] = {0, 3, -100, 2, bad[k], 9};
        const fbp_class_loss a = {s.outer, s.n, s.inner, target, NULL, -100, 0, FBP_REDUCTION_NONE};
        const int64_t first = losses->cross_entropy[FBP_FLOAT32](loss, &total, softmax, x, &a);
        const int64_t second = losses->nll[FBP_FLOAT32](loss, &total, x, &a);
        if (first != 4 || second != 4) fail("bad target", FBP_FLOAT32, s, k, 4, first, 4);
        if (total != 5 || memcmp(softmax, before, sizeof before) != 0 || memcmp(loss, before, sizeof loss) != 0)
            fail("wrote in spite of a bad target", FBP_FLOAT32, s, k, 0, 0, 0);
    }
}

int main(int count, char **words) {
    const bool emulated = count > 1 && strcmp(words[1], "--emulated") == 0;
    static const int64_t lengths[] = {1, 2, 3, 5, 8, 10, 16, 17, 33, 65, 130, 400};
    static const int64_t inners[] = {1, 3, 17, 38};
    for (fbp_dtype d = FBP_FLOAT32; d <= FBP_FLOAT64; d++) {
        for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
            for (size_t i = 0; i < sizeof inners / sizeof *inners; i++) {
                const shape s = {3, lengths[n], inners[i]};
                for (int variant = 0; variant < VARIANTS; variant++) check_normalize(d, s, variant);
                for (int k = 0; k < 4 && lengths[n] < 130; k++)
                    check_loss(d, s, (int)(random_bits() % LOSS_VARIANTS), (fbp_reduction)(random_bits() % 3));
            }
        for (int variant = 0; variant < LOSS_VARIANTS; variant++)
            for (int reduction = 0; reduction < 3; reduction++) {
                check_loss(d, (shape){7, 10, 1}, variant, (fbp_reduction)reduction);
                check_loss(d, (shape){2, 5, 3}, variant, (fbp_reduction)reduction);
                check_loss(d, (shape){1030, 10, 1}, variant, (fbp_reduction)reduction);
                check_loss(d, (shape){3, 10, 301}, variant, (fbp_reduction)reduction);
            }
        test_few_classes(d, emulated);
        check_normalize(d, (shape){0, 5, 3}, MODERATE);
        check_normalize(d, (shape){4, 0, 1}, MODERATE);
        check_normalize(d, (shape){4, 0, 3}, MODERATE);
        check_normalize(d, (shape){2, 20001, 1}, MODERATE);
        check_normalize(d, (shape){500, 70, 1}, WIDE);
        check_loss(d, (shape){0, 4, 1}, 0, FBP_REDUCTION_MEAN);
        check_loss(d, (shape){0, 4, 1}, 0, FBP_REDUCTION_NONE);
    }
    test_bad_target();
    test_bad_target_of_few();
    printf("test_loss: %d failures\n", failures);
    return failures != 0;
}
