/* pointwise_real.inl -- the loops of pointwise.c for one real type; REAL_HEADER names it. */
#include REAL_HEADER
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"

FBP_INLINE V R(square)(V x) { return x * x; }

/* floor(a / b) as Python has it: exact where the quotient rounds across an integer; a / 0 is an infinity or NaN. */
FBP_INLINE V R(floor_divide)(V a, V b) {
    V rest = R(m_fmod)(a, b), quotient = (a - rest) / b;
    VI below = (VI)(rest != NUM(0)) & ((VI)(rest < NUM(0)) ^ (VI)(b < NUM(0)));
    V floored = R(m_floor)(quotient - R(v_select)(below, NUM(1), NUM(0)) + NUM(0.25));
    return R(v_select)((VI)(b == NUM(0)), a / b, floored);
}

#define FORWARD(name, arity, text)                                                                                      \
    static void R(forward_##name)(int64_t n, void *out, const void *in_a, const void *in_b, const double *p) {          \
        T *y = out;                                                                                                     \
        const T *a = in_a, *b = in_b;                                                                                   \
        const V P0 = NUM(p[0]), P1 = NUM(p[1]);                                                                         \
        V A, B = {0};                                                                                                   \
        (void)b, (void)B, (void)P0, (void)P1;                                                                           \
        int64_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES) {                                                                            \
            A = R(v_load)(a + i);                                                                                       \
            if (arity > 1) B = R(v_load)(b + i);                                                                        \
            R(v_store)(y + i, text);                                                                                    \
        }                                                                                                               \
        if (i < n) {                                                                                                    \
            A = R(v_load_first)(a + i, n - i);                                                                           \
            if (arity > 1) B = R(v_load_first)(b + i, n - i);                                                            \
            R(v_store_first)(y + i, text, n - i);                                                                        \
        }                                                                                                               \
    }

#define PULL_LOAD(load, ...)                                              \
    G = R(load)(g + i __VA_ARGS__);                                       \
    if (needs & NEED_A) A = R(load)(a + i __VA_ARGS__);                   \
    if (needs & NEED_B) B = R(load)(b + i __VA_ARGS__);                   \
    if (needs & NEED_Y) Y = R(load)(y + i __VA_ARGS__);

#define PULL(name, input, text)                                                                                         \
    static void R(pull_##name##_##input)(int64_t n, void *out, const void *in_g, const void *in_a, const void *in_b,    \
                                         const void *in_y, const double *p) {                                           \
        enum { needs = FBP_NEEDS_##name##_##input };                                                                    \
        T *gx = out;                                                                                                    \
        const T *g = in_g, *a = in_a, *b = in_b, *y = in_y;                                                             \
        const V P0 = NUM(p[0]), P1 = NUM(p[1]);                                                                         \
        V G, A = {0}, B = {0}, Y = {0};                                                                                 \
        (void)a, (void)b, (void)y, (void)A, (void)B, (void)Y, (void)P0, (void)P1;                                       \
        int64_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES) {                                                                            \
            PULL_LOAD(v_load)                                                                                           \
            R(v_store)(gx + i, text);                                                                                   \
        }                                                                                                               \
        if (i < n) {                                                                                                    \
            PULL_LOAD(v_load_first, , n - i)                                                                             \
            R(v_store_first)(gx + i, text, n - i);                                                                       \
        }                                                                                                               \
        (void)G;                                                                                                        \
    }

#define POINTWISE1(name, kind, signature, forward, pull_a, lo, hi, doc) POINTWISE1_TEXTS(name, kind, forward, pull_a)
#define POINTWISE2(name, kind, signature, forward, pull_a, pull_b, lo, hi, doc) \
    POINTWISE2_TEXTS(name, kind, forward, pull_a, pull_b)
#include "ops/ops.def"

#undef FORWARD
#undef PULL
#undef PULL_LOAD
#include "kernels/real_end.h"
