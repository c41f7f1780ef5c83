/* per-isa */
/* test_update.c -- optimizer steps against PyTorch's formulas written out in double, step by step.
 *
 * State is compared after each step, from the state that the kernel itself left: so the tolerance is one step's rounding
 * (some units in the last place of the largest term), not the sum of many.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "kernels/isa.h"
#include "kernels/update.h"

extern const fbp_update_kernels FBP_ISA_SYMBOL(fbp_update_kernels);
static const fbp_update_kernels *kernels = &FBP_ISA_SYMBOL(fbp_update_kernels);

static int failures;
static void fail(const char *what, fbp_dtype d, int64_t n, int variant, int64_t i) {
    if (failures++ < 20)
        printf("FAIL %s %s n=%lld variant=%d element %lld\n", what, fbp_dtype_name(d), (long long)n, variant, (long long)i);
}

static uint64_t random_state = 7;
static double random_unit(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (double)(random_state >> 32) / 4294967296.0;
}

static double at(fbp_dtype d, const void *x, int64_t i) {
    return d == FBP_FLOAT32 ? ((const float *)x)[i] : ((const double *)x)[i];
}
static void put(fbp_dtype d, void *x, int64_t i, double v) {
    if (d == FBP_FLOAT32)
        ((float *)x)[i] = (float)v;
    else
        ((double *)x)[i] = v;
}

/* An array between two guards. */
enum { GUARD = 64, SENTINEL = 0x5A };
static void *guarded_new(fbp_dtype d, int64_t n, double low, double high) {
    const int64_t bytes = n * fbp_dtype_size(d);
    char *p = malloc(bytes + 2 * GUARD);
    memset(p, SENTINEL, bytes + 2 * GUARD);
    for (int64_t i = 0; i < n; i++) put(d, p + GUARD, i, low + (high - low) * random_unit());
    return p + GUARD;
}
static void guarded_free(void *x, fbp_dtype d, int64_t n, int variant) {
    char *p = (char *)x - GUARD;
    const int64_t bytes = n * fbp_dtype_size(d);
    for (int i = 0; i < GUARD; i++)
        if (p[i] != SENTINEL || p[GUARD + bytes + i] != SENTINEL) {
            fail("wrote outside", d, n, variant, i);
            break;
        }
    free(p);
}

static bool near(fbp_dtype d, double got, double want, double size) {
    if (isnan(want)) return isnan(got);
    if (isinf(want)) return got == want;
    return fabs(got - want) <= 4 * (d == FBP_FLOAT32 ? FLT_EPSILON : DBL_EPSILON) * size + 1e-44;
}

/* ---- SGD ------------------------------------------------------------------ */

static fbp_sgd sgd_variant(int variant) {
    return (fbp_sgd){.lr = 0.05, .momentum = variant & 1 ? 0.9 : 0, .dampening = variant & 2 ? 0.3 : 0,
                     .weight_decay = variant & 4 ? 0.02 : 0, .nesterov = variant & 8, .maximize = variant & 16};
}

static void check_sgd(fbp_dtype d, int64_t n, int variant) {
    const fbp_sgd h = sgd_variant(variant);
    void *param = guarded_new(d, n, -2, 2), *buffer = guarded_new(d, n, NAN, NAN);
    double *p = malloc((n + 1) * sizeof *p), *b = malloc((n + 1) * sizeof *b);
    for (int step = 1; step <= 3; step++) {
        void *grad = guarded_new(d, n, -1, 1);
        for (int64_t i = 0; i < n; i++) p[i] = at(d, param, i), b[i] = at(d, buffer, i);
        const fbp_sgd_tensor t = {n, param, grad, h.momentum != 0 ? buffer : NULL, step == 1};
        kernels->sgd_many[d](1, &t, &h);
        for (int64_t i = 0; i < n; i++) {
            double g = (h.maximize ? -1 : 1) * at(d, grad, i) + h.weight_decay * p[i];
            if (h.momentum != 0) {
                b[i] = step == 1 ? g : h.momentum * b[i] + (1 - h.dampening) * g;
                g = h.nesterov ? g + h.momentum * b[i] : b[i];
                if (!near(d, at(d, buffer, i), b[i], 4)) fail("sgd buffer", d, n, variant, i);
            }
            if (!near(d, at(d, param, i), p[i] - h.lr * g, fabs(p[i]) + 1)) fail("sgd param", d, n, variant, i);
        }
        guarded_free(grad, d, n, variant);
    }
    guarded_free(param, d, n, variant);
    guarded_free(buffer, d, n, variant);
    free(p);
    free(b);
}

/* ---- Adam ----------------------------------------------------------------- */

static fbp_adam adam_variant(int variant) {
    return (fbp_adam){.lr = 1e-2, .beta1 = variant & 16 ? 0 : 0.9, .beta2 = 0.999, .eps = 1e-8,
                      .weight_decay = variant & 3 ? 0.1 : 0, .decoupled = (variant & 3) == 2, .maximize = variant & 4};
}

static void check_adam(fbp_dtype d, int64_t n, int variant) {
    const fbp_adam h = adam_variant(variant);
    const bool amsgrad = variant & 8;
    void *param = guarded_new(d, n, -2, 2), *m = guarded_new(d, n, 0, 0), *v = guarded_new(d, n, 0, 0);
    void *top = guarded_new(d, n, 0, 0);
    double *old = malloc((4 * n + 1) * sizeof *old);
    for (int step = 1; step <= 4; step++) {
        void *grad = guarded_new(d, n, -1 / (double)step, 1 / (double)step);
        for (int64_t i = 0; i < n; i++) {
            old[4 * i] = at(d, param, i), old[4 * i + 1] = at(d, m, i);
            old[4 * i + 2] = at(d, v, i), old[4 * i + 3] = at(d, top, i);
        }
        const fbp_adam_tensor t = {n, param, grad, m, v, amsgrad ? top : NULL, step};
        kernels->adam_many[d](1, &t, &h);
        for (int64_t i = 0; i < n; i++) {
            double p = old[4 * i], g = (h.maximize ? -1 : 1) * at(d, grad, i);
            if (h.decoupled)
                p *= 1 - h.lr * h.weight_decay;
            else
                g += h.weight_decay * p;
            const double want_m = h.beta1 * old[4 * i + 1] + (1 - h.beta1) * g;
            const double want_v = h.beta2 * old[4 * i + 2] + (1 - h.beta2) * g * g;
            const double u = amsgrad ? fmax(old[4 * i + 3], want_v) : want_v;
            const double denominator = sqrt(u) / sqrt(1 - pow(h.beta2, step)) + h.eps;
            const double change = h.lr / (1 - pow(h.beta1, step)) * want_m / denominator;
            if (!near(d, at(d, m, i), want_m, 2)) fail("adam m", d, n, variant, i);
            /* g itself may be the difference of gradient and decay */
            const double v_size = want_v + (1 - h.beta2) * fabs(g);
            if (!near(d, at(d, v, i), want_v, v_size)) fail("adam v", d, n, variant, i);
            if (amsgrad && !near(d, at(d, top, i), u, u + v_size)) fail("adam top", d, n, variant, i);
            /* m cancels: its error, relative to the gradients' size, passes through the quotient */
            const double size = fabs(p) + h.lr * 40;
            if (!near(d, at(d, param, i), p - change, size)) fail("adam param", d, n, variant, i);
        }
        guarded_free(grad, d, n, variant);
    }
    guarded_free(param, d, n, variant);
    guarded_free(m, d, n, variant);
    guarded_free(v, d, n, variant);
    guarded_free(top, d, n, variant);
    free(old);
}

/* ---- many tensors, threads --------------------------------------------------- */

enum { TENSORS = 7 };

/* One call over many tensors gives the bits of one call each, for any number of threads. */
static void check_many(fbp_dtype d) {
    static const int64_t sizes[TENSORS] = {33, 0, 4096, 20000, 1, 4097, 9};
    fbp_adam_tensor adam[TENSORS], adam_alone[TENSORS];
    fbp_sgd_tensor sgd[TENSORS], sgd_alone[TENSORS];
    const fbp_adam adam_hyper = adam_variant(1);
    const fbp_sgd sgd_hyper = sgd_variant(1 | 4 | 8);
    static const int threads[] = {1, 2, 3, 7};
    for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
        fbp_threads_set(threads[k]);
        for (int i = 0; i < TENSORS; i++) {
            const int64_t n = sizes[i];
            void *a[10];
            for (int j = 0; j < 5; j++) {
                a[j] = guarded_new(d, n, 0, 1);
                a[j + 5] = guarded_new(d, n, 0, 0);
                memcpy(a[j + 5], a[j], n * fbp_dtype_size(d));
            }
            adam[i] = (fbp_adam_tensor){n, a[0], a[1], a[2], a[3], NULL, i + 1};
            adam_alone[i] = (fbp_adam_tensor){n, a[5], a[6], a[7], a[8], NULL, i + 1};
            sgd[i] = (fbp_sgd_tensor){n, a[0], a[1], a[4], i == 0};
            sgd_alone[i] = (fbp_sgd_tensor){n, a[5], a[6], a[9], i == 0};
        }
        kernels->adam_many[d](TENSORS, adam, &adam_hyper);
        kernels->sgd_many[d](TENSORS, sgd, &sgd_hyper);
        fbp_threads_set(1);
        for (int i = 0; i < TENSORS; i++) {
            const int64_t n = sizes[i], bytes = n * fbp_dtype_size(d);
            kernels->adam_many[d](1, &adam_alone[i], &adam_hyper);
            kernels->sgd_many[d](1, &sgd_alone[i], &sgd_hyper);
            void *const together[] = {adam[i].param, (void *)adam[i].grad, adam[i].exp_avg, adam[i].exp_avg_sq,
                                      sgd[i].momentum_buffer};
            void *const alone[] = {adam_alone[i].param, (void *)adam_alone[i].grad, adam_alone[i].exp_avg,
                                   adam_alone[i].exp_avg_sq, sgd_alone[i].momentum_buffer};
            for (int j = 0; j < 5; j++) {
                if (memcmp(together[j], alone[j], bytes) != 0) fail("many differs from one", d, n, threads[k], j);
                guarded_free(together[j], d, n, threads[k]);
                guarded_free(alone[j], d, n, threads[k]);
            }
        }
    }
    kernels->adam_many[d](0, NULL, &adam_hyper);
    kernels->sgd_many[d](0, NULL, &sgd_hyper);
}

int main(void) {
    static const int64_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100};
    for (fbp_dtype d = FBP_FLOAT32; d <= FBP_FLOAT64; d++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int variant = 0; variant < 32; variant++) {
                check_sgd(d, sizes[i], variant);
                check_adam(d, sizes[i], variant);
            }
        check_many(d);
    }
    printf("test_update: %d failures\n", failures);
    return failures != 0;
}
