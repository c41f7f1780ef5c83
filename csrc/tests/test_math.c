/* test_math.c -- measures the vector functions of kernels/math.inl against the C library in wider arithmetic.
 *
 * Compile once per instruction set with the kernel flags (-DFBP_ISA=... -DFBP_VECTOR_BYTES=...), link -lm, run.
 * Prints one line per function and type: largest error in units in the last place of the correctly rounded
 * result, where it happened, and the bound; returns 1 when a bound is exceeded, a special value is wrong, or a
 * lane's result depends on its neighbours.  float32 is judged by double, float64 by the 80-bit long double.
 *
 * It does not test speed, nor the kernels that call these functions.
 */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/isa.h"
/* the text under test, for both types */
#include "kernels/real_f32.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/real_end.h"
#include "kernels/real_f64.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/real_end.h"

typedef long double wide;
enum { BLOCK = 1024 };

/* ---- the functions, with their references ------------------------------------------------------------- */

static wide reference_sign(wide x) { return (wide)((x > 0) - (x < 0)); }
static wide reference_rsqrt(wide x) { return 1 / sqrtl(x); }
static wide reference_reciprocal(wide x) { return 1 / x; }
static wide reference_sigmoid(wide x) { return 1 / (1 + expl(-x)); }
static wide reference_softplus(wide x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }
static wide reference_log_sigmoid(wide x) { return -reference_softplus(-x); }
/* The limit at -infinity is -0, where the product would be NaN. */
static wide reference_gelu(wide x) {
    return x == -INFINITY ? -0.0L : x * 0.5L * erfcl(-x * 0.707106781186547524400844362104849039L);
}
static wide reference_gelu_tanh(wide x) {
    wide v = 1.595769121605730711759784239737L * (x + 0.044715L * x * x * x);
    return x == -INFINITY ? -0.0L : x > 0 ? x / (1 + expl(-v)) : x * expl(v) / (1 + expl(v));
}
static wide reference_min(wide a, wide b) { return a != a || b != b ? (wide)NAN : a < b ? a : b; }
static wide reference_max(wide a, wide b) { return a != a || b != b ? (wide)NAN : a > b ? a : b; }
static wide reference_remainder(wide a, wide b) {
    wide rest = fmodl(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
/* double versions of the same, which judge float32 faster */
#define DOUBLE_1(name) \
    static double reference_d_##name(double x) { return (double)reference_##name((wide)x); }
DOUBLE_1(sign)
DOUBLE_1(rsqrt)
DOUBLE_1(reciprocal)
static double reference_d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double reference_d_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }
static double reference_d_log_sigmoid(double x) { return -reference_d_softplus(-x); }
static double reference_d_gelu(double x) { return x == -INFINITY ? -0.0 : x * 0.5 * erfc(-x * 0.70710678118654752); }
static double reference_d_gelu_tanh(double x) {
    double v = 1.5957691216057308 * (x + 0.044715 * x * x * x);
    return x == -INFINITY ? -0.0 : x > 0 ? x / (1 + exp(-v)) : x * exp(v) / (1 + exp(v));
}

/* ONE(name, double reference, wide reference, bound f32, bound f64, span of ordinary arguments, sample every
 * n-th of all 2^32 float32 patterns). Bound 0 means bit for bit. */
#define UNARY(ONE)                                                                                   \
    ONE(abs, fabs, fabsl, 0, 0, 10, 4999)                                                            \
    ONE(sign, reference_d_sign, reference_sign, 0, 0, 10, 4999)                                      \
    ONE(floor, floor, floorl, 0, 0, 10, 4999)                                                        \
    ONE(ceil, ceil, ceill, 0, 0, 10, 4999)                                                           \
    ONE(round, rint, rintl, 0, 0, 10, 4999)                                                          \
    ONE(trunc, trunc, truncl, 0, 0, 10, 4999)                                                        \
    ONE(sqrt, sqrt, sqrtl, 0.5, 0.501, 100, 4999)                                                    \
    ONE(rsqrt, reference_d_rsqrt, reference_rsqrt, 2, 2, 100, 4999)                                  \
    ONE(reciprocal, reference_d_reciprocal, reference_reciprocal, 0.51, 0.51, 100, 4999)             \
    ONE(exp, exp, expl, 2, 2, 90, 97)                                                                \
    ONE(exp2, exp2, exp2l, 2, 2, 130, 1999)                                                          \
    ONE(expm1, expm1, expm1l, 3, 3, 10, 1999)                                                        \
    ONE(log, log, logl, 2, 2, 100, 1999)                                                             \
    ONE(log1p, log1p, log1pl, 2, 2, 10, 1999)                                                        \
    ONE(log2, log2, log2l, 2, 2, 100, 1999)                                                          \
    ONE(log10, log10, log10l, 2, 2, 100, 1999)                                                       \
    ONE(sin, sin, sinl, 2, 2, 1000, 1999)                                                            \
    ONE(cos, cos, cosl, 2, 2, 1000, 1999)                                                            \
    ONE(tan, tan, tanl, 4, 4, 1000, 1999)                                                            \
    ONE(asin, asin, asinl, 3, 3, 1, 1999)                                                            \
    ONE(acos, acos, acosl, 3, 3, 1, 1999)                                                            \
    ONE(atan, atan, atanl, 3, 3, 10, 1999)                                                           \
    ONE(sinh, sinh, sinhl, 3, 3, 90, 1999)                                                           \
    ONE(cosh, cosh, coshl, 3, 3, 90, 1999)                                                           \
    ONE(tanh, tanh, tanhl, 2, 2, 10, 97)                                                             \
    ONE(sigmoid, reference_d_sigmoid, reference_sigmoid, 2, 2.5, 100, 97)                            \
    ONE(softplus, reference_d_softplus, reference_softplus, 3, 3, 50, 1999)                          \
    ONE(log_sigmoid, reference_d_log_sigmoid, reference_log_sigmoid, 3, 3, 50, 1999)                 \
    ONE(erf, erf, erfl, 2, 2, 6, 1999)                                                               \
    ONE(gelu, reference_d_gelu, reference_gelu, 4, 4, 15, 97)                                        \
    ONE(gelu_tanh, reference_d_gelu_tanh, reference_gelu_tanh, 4, 4, 12, 997)

/* TWO(name, double reference, wide reference, bound f32, bound f64, span) */
#define BINARY(TWO)                                                \
    TWO(min, reference_d_min, reference_min, 0, 0, 10)             \
    TWO(max, reference_d_max, reference_max, 0, 0, 10)             \
    TWO(fmod, fmod, fmodl, 0, 0, 1000)                             \
    TWO(remainder, reference_d_remainder, reference_remainder, 0.51, 0.51, 1000) \
    TWO(pow, pow, powl, 1, 2, 20)                                  \
    TWO(atan2, atan2, atan2l, 3, 3, 10)                            \
    TWO(hypot, hypot, hypotl, 2, 2, 10)

static double reference_d_min(double a, double b) { return (double)reference_min(a, b); }
static double reference_d_max(double a, double b) { return (double)reference_max(a, b); }
static double reference_d_remainder(double a, double b) { return (double)reference_remainder(a, b); }

/* Kernels over BLOCK elements, one per function and type. */
#define RUN_1(name, type, lanes)                                                                        \
    static void run_##name##_##type(const void *a, const void *b, void *y) {                            \
        (void)b;                                                                                        \
        for (int i = 0; i < BLOCK; i += lanes) {                                                        \
            fbp_v##type v;                                                                              \
            memcpy(&v, (const char *)a + (size_t)i * sizeof v[0], sizeof v);                            \
            v = m_##name##_##type(v);                                                                   \
            memcpy((char *)y + (size_t)i * sizeof v[0], &v, sizeof v);                                  \
        }                                                                                               \
    }
#define RUN_2(name, type, lanes)                                                                        \
    static void run_##name##_##type(const void *a, const void *b, void *y) {                            \
        for (int i = 0; i < BLOCK; i += lanes) {                                                        \
            fbp_v##type v, w;                                                                           \
            memcpy(&v, (const char *)a + (size_t)i * sizeof v[0], sizeof v);                            \
            memcpy(&w, (const char *)b + (size_t)i * sizeof v[0], sizeof w);                            \
            v = m_##name##_##type(v, w);                                                                \
            memcpy((char *)y + (size_t)i * sizeof v[0], &v, sizeof v);                                  \
        }                                                                                               \
    }
#define ONE(name, d, l, b32, b64, span, step) RUN_1(name, f32, FBP_F32_LANES) RUN_1(name, f64, FBP_F64_LANES)
#define TWO(name, d, l, b32, b64, span) RUN_2(name, f32, FBP_F32_LANES) RUN_2(name, f64, FBP_F64_LANES)
UNARY(ONE)
BINARY(TWO)
#undef ONE
#undef TWO

typedef void (*run_fn)(const void *, const void *, void *);
typedef struct function {
    const char *name;
    run_fn run_f32, run_f64;
    double (*double_1)(double);
    double (*double_2)(double, double);
    wide (*wide_1)(wide);
    wide (*wide_2)(wide, wide);
    double bound_f32, bound_f64, span;
    uint32_t step;
} function;
static const function functions[] = {
#define ONE(name, d, l, b32, b64, span, step) \
    {#name, run_##name##_f32, run_##name##_f64, d, NULL, l, NULL, b32, b64, span, step},
#define TWO(name, d, l, b32, b64, span) \
    {#name, run_##name##_f32, run_##name##_f64, NULL, d, NULL, l, b32, b64, span, 0},
    UNARY(ONE) BINARY(TWO)
#undef ONE
#undef TWO
};

/* ---- judging ------------------------------------------------------------------------------------------- */

typedef struct verdict {
    double worst, at_a, at_b;
    int64_t wrong; /* NaN for a number, a wrong sign of zero, ... */
    double wrong_a, wrong_b, wrong_got, wrong_want;
} verdict;

static void note_wrong(verdict *v, double a, double b, double got, double want) {
    if (v->wrong++ == 0) v->wrong_a = a, v->wrong_b = b, v->wrong_got = got, v->wrong_want = want;
}

/* One result against its reference, for a format with `bits` of mantissa and exponents from `lowest`;
 * infinity is taken for the power of two after the largest number. */
static void judge(verdict *v, double a, double b, double got, wide want, int bits, int lowest, bool zero_sign) {
    wide beyond = ldexpl(1, 2 - lowest);
    if (want != want || got != got) {
        if ((want != want) != (got != got)) note_wrong(v, a, b, got, (double)want);
        return;
    }
    if (want == 0) {
        bool sign_wrong = zero_sign && !signbit(got) != !signbit(want);
        if (got != 0 || sign_wrong) note_wrong(v, a, b, got, (double)want);
        return;
    }
    if (isinf(got) && (isinf(want) || fabsl(want) >= beyond) && (got > 0) == (want > 0)) return;
    wide seen = isinf(got) ? copysignl(beyond, got) : (wide)got;
    if (fabsl(want) > beyond) want = copysignl(beyond, want);
    int exponent = ilogbl(want);
    if (exponent < lowest) exponent = lowest;
    double error = (double)(fabsl(seen - want) / ldexpl(1, exponent - bits));
    if (error > v->worst) v->worst = error, v->at_a = a, v->at_b = b;
}

static void judge_block_f32(const function *f, verdict *v, const float *a, const float *b) {
    float y[BLOCK];
    f->run_f32(a, b, y);
    for (int i = 0; i < BLOCK; i++) {
        double want = f->double_1 ? f->double_1(a[i]) : f->double_2(a[i], b[i]);
        /* the common case, without ldexp: an ordinary number within a quarter of a unit needs no closer look */
        double error = fabs(y[i] - want);
        if (error <= fabs(want) * 1e-8 && fabs(want) > 1e-37) continue;
        judge(v, a[i], b[i], y[i], want, 23, -126, f->double_1 != NULL);
    }
}
static void judge_block_f64(const function *f, verdict *v, const double *a, const double *b) {
    double y[BLOCK];
    f->run_f64(a, b, y);
    for (int i = 0; i < BLOCK; i++) {
        wide want = f->wide_1 ? f->wide_1(a[i]) : f->wide_2(a[i], b[i]);
        judge(v, a[i], b[i], y[i], want, 52, -1022, f->wide_1 != NULL);
    }
}

/* ---- arguments ----------------------------------------------------------------------------------------- */

static uint64_t random_state = 0x9e3779b97f4a7c15u;
static uint64_t random_bits(void) { /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1du;
}
static double random_unit(void) { return (double)(random_bits() >> 11) * 0x1p-53; }
static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Every kind of argument in turn: uniform over the span, near zero, near one, any bit pattern. */
static double random_argument(int kind, double span, bool is_f32) {
    switch (kind & 3) {
    case 0: return (2 * random_unit() - 1) * span;
    case 1: return (2 * random_unit() - 1) * exp2(-40 * random_unit());
    case 2: return 1 + (2 * random_unit() - 1) * exp2(-12 * random_unit());
    default: return is_f32 ? float_of((uint32_t)random_bits()) : double_of(random_bits());
    }
}

static const double special_values[] = {
    0.0, 1.0, 2.0, 3.0, 0.5, 1.5, 2.5, 0.25, 0.75, 4.0, 100.0, 1e-3, 1e-10, 1e-20, 0x1p-149, 0x1p-140, 0x1p-126,
    0x1p-127, 0x1.fffffcp-127, 0x1p-1074, 0x1p-1022, 0x1.fffffffffffffp+1023, 0x1.fffffep+127, 0x1p127, 0x1p23,
    0x1p24, 8388609.0, 16777217.0, 0x1p52, 0x1p53, 0x1p53 + 2, 1e5, 1e6, 1e8, 1e10, 1e22, 1e30, 1e300, 88.72283,
    88.722839, 88.73, 89.4159, 89.416, 87.3365, 103.97, 103.9721, 104.1, 149.0, 150.0, 128.0, 127.99999,
    709.782712893384, 709.79, 710.4758600739439, 745.13, 745.14, 708.4, 1023.9999999, 1024.0, 1074.0, 1075.0,
    0.55, 0.5500001, 9.0109, 9.011, 13.5, 14.2, 37.5, 38.5, 1.5707963267948966, 3.141592653589793,
    0.7853981633974483, 6.283185307179586, 5.92, 3.92, 0.70710678, 1.41421356, 0.41421356, 7.0, 5.0, 0.1};
enum { SPECIALS = sizeof special_values / sizeof *special_values * 2 + 4 };
static double special_value(int i) {
    const int listed = (int)(sizeof special_values / sizeof *special_values);
    if (i < 2 * listed) return i & 1 ? -special_values[i / 2] : special_values[i / 2];
    const double rest[] = {INFINITY, -INFINITY, NAN, -NAN};
    return rest[i - 2 * listed];
}

/* ---- the sweeps ---------------------------------------------------------------------------------------- */

static void sweep_f32(const function *f, verdict *v) {
    static float a[BLOCK], b[BLOCK];
    if (f->step) { /* bit patterns from end to end */
        uint64_t bits = 0;
        while (bits <= UINT32_MAX) {
            for (int i = 0; i < BLOCK; i++, bits += f->step) a[i] = float_of((uint32_t)bits);
            judge_block_f32(f, v, a, a);
        }
    }
    for (int round = 0; round < 600; round++) {
        for (int i = 0; i < BLOCK; i++) {
            a[i] = (float)random_argument(i, f->span, true);
            b[i] = (float)random_argument(i >> 2, f->span, true);
        }
        judge_block_f32(f, v, a, b);
    }
}
static void sweep_f64(const function *f, verdict *v) {
    static double a[BLOCK], b[BLOCK];
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < BLOCK; i++) {
            a[i] = random_argument(i, f->span, false);
            b[i] = random_argument(i >> 2, f->span, false);
        }
        judge_block_f64(f, v, a, b);
    }
}

/* All special values, for two arguments all pairs. */
static void specials(const function *f, verdict *v32, verdict *v64) {
    static float a[BLOCK], b[BLOCK];
    static double c[BLOCK], d[BLOCK];
    for (int j = 0; j < (f->double_1 ? 1 : SPECIALS); j++) {
        for (int i = 0; i < BLOCK; i++) {
            c[i] = special_value(i % SPECIALS), d[i] = special_value(j);
            a[i] = (float)c[i], b[i] = (float)d[i];
        }
        judge_block_f32(f, v32, a, b);
        judge_block_f64(f, v64, c, d);
    }
}

/* A lane must not see its neighbours: the same arguments among special values give the same bits. */
static int64_t count_neighbour_effects(const function *f) {
    static float a[2][BLOCK], b[2][BLOCK], y[2][BLOCK];
    static double c[2][BLOCK], d[2][BLOCK], z[2][BLOCK];
    int64_t differ = 0;
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < BLOCK; i++) {
            c[0][i] = c[1][i] = (2 * random_unit() - 1) * f->span;
            d[0][i] = d[1][i] = (2 * random_unit() - 1) * f->span;
            if (i % 3 != round % 3) c[1][i] = special_value((i + 7 * round) % SPECIALS);
            for (int k = 0; k < 2; k++) a[k][i] = (float)c[k][i], b[k][i] = (float)d[k][i];
        }
        for (int k = 0; k < 2; k++) f->run_f32(a[k], b[k], y[k]), f->run_f64(c[k], d[k], z[k]);
        for (int i = 0; i < BLOCK; i++)
            if (i % 3 == round % 3)
                differ += memcmp(&y[0][i], &y[1][i], sizeof(float)) || memcmp(&z[0][i], &z[1][i], sizeof(double));
    }
    return differ;
}

/* Prints a line; returns 1 for a failure. */
static int report(const char *name, const char *type, const verdict *v, double bound) {
    bool bad = v->worst > bound || v->wrong;
    printf("%-12s %s  %8.3f ulp at %-12.9g %-10.6g bound %5.2f%s\n", name, type, v->worst, v->at_a, v->at_b, bound,
           bad ? "  FAILED" : "");
    if (v->wrong)
        printf("    %lld wrong outright, first %.17g %.17g: got %.9g, want %.9g\n", (long long)v->wrong, v->wrong_a,
               v->wrong_b, v->wrong_got, v->wrong_want);
    return bad;
}

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* Arguments: names of functions to test; none means all. */
int main(int count, char **names) {
    int failures = 0;
    printf("kernels/math.inl, instruction set %s\n", STRING(FBP_ISA));
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const function *f = &functions[i];
        bool wanted = count < 2;
        for (int k = 1; k < count; k++) wanted |= strcmp(names[k], f->name) == 0;
        if (!wanted) continue;
        verdict v32 = {0}, v64 = {0};
        specials(f, &v32, &v64);
        sweep_f32(f, &v32);
        sweep_f64(f, &v64);
        failures += report(f->name, "f32", &v32, f->bound_f32);
        failures += report(f->name, "f64", &v64, f->bound_f64);
        int64_t differ = count_neighbour_effects(f);
        if (differ) printf("%-12s %lld lanes see their neighbours  FAILED\n", f->name, (long long)differ);
        failures += differ != 0;
    }
    printf(failures ? "%d FAILED\n" : "%d failures: all within bounds\n", failures);
    return failures != 0;
}
