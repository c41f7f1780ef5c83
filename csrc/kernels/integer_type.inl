/* integer_type.inl -- the loops of integer.c for one type: T, its unsigned UT, T_MIN, T_MAX, INVERT and IR(name) are set. */

/* x to the y; a negative exponent gives the truncated reciprocal, as in PyTorch. */
FBP_INLINE T IR(power)(T x, T y) {
    if (T_MIN < 0 && y < 0) return (T)(x == 1 ? 1 : x == (T)-1 ? ((y & 1) ? -1 : 1) : 0);
    T result = 1;
    for (; y > 0; y = (T)(y / 2)) {
        if (y & 1) result = MUL(result, x);
        x = MUL(x, x);
    }
    return result;
}
/* Division by -1 is negation: the machine's instruction traps on the smallest integer. */
FBP_INLINE T IR(modulo)(T x, T y) { return (T)(T_MIN < 0 && y == (T)-1 ? 0 : x % y); }
FBP_INLINE T IR(remainder)(T x, T y) {
    T rest = IR(modulo)(x, y);
    return (T)(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
}
FBP_INLINE T IR(floor_divide)(T x, T y) {
    if (T_MIN < 0 && y == (T)-1) return NEG(x);
    T quotient = (T)(x / y);
    return (T)(x % y != 0 && (x < 0) != (y < 0) ? quotient - 1 : quotient);
}
/* A parameter given as a double, held to the type's range. */
FBP_INLINE T IR(parameter)(double p) {
    return (T)(p <= (double)T_MIN ? T_MIN : p >= (double)T_MAX ? T_MAX : (T)p);
}

#define FORWARD(name, arity, text)                                                                              \
    static void IR(forward_##name)(int64_t n, void *out, const void *in_a, const void *in_b, const double *p) { \
        T *y = out;                                                                                             \
        const T *a = in_a, *b = in_b;                                                                           \
        const T P0 = IR(parameter)(p[0]), P1 = IR(parameter)(p[1]);                                             \
        (void)b, (void)P0, (void)P1;                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                       \
            const T A = a[i], B = arity > 1 ? b[i] : (T)0;                                                      \
            (void)B;                                                                                            \
            y[i] = (T)(text);                                                                                   \
        }                                                                                                       \
    }
#define POINTWISE1(name, kind, signature, forward, pull_a, lo, hi, doc) POINTWISE1_TEXT(name, kind, forward)
#define POINTWISE2(name, kind, signature, forward, pull_a, pull_b, lo, hi, doc) POINTWISE2_TEXT(name, kind, forward)
#include "ops/ops.def"

#undef FORWARD
#undef T
#undef UT
#undef T_MIN
#undef T_MAX
#undef INVERT
#undef IR
