/* math_log.inl -- log, log1p, log2, log10, softplus, log_sigmoid and pow (part of math.inl).
 *
 * x = 2^k (1 + f) with 1 + f between sqrt(1/2) and sqrt(2).  With s = f/(2 + f), log(1 + f) = 2 atanh(s), of
 * which 2s = f - s f is taken apart as f - f^2/2 + s f^2/2, because f is exact and the rest is small beside it.
 */

/* (2 atanh(s) - 2 s) / s for z = s^2. */
FBP_INLINE V R(m_log_tail)(V z) {
#if REAL_IS_F32
    static const T c[] = {0.666666627f, 0.400008529f, 0.28509891f, 0.240343064f};
#else
    static const T c[] = {0.66666666666667351, 0.39999999999409891, 0.2857142874348409, 0.2222219845628628,
                          0.18183570653500494, 0.15313881970648943, 0.14797704225305339};
#endif
    return z * MATH_POLYNOMIAL(z, c);
}

/* k and f as above, for positive normal x. */
FBP_INLINE V R(m_log_split)(V x, V *k) {
    const VU root_half = (VU)R(v_splat)(C(0.70710678118654752)), one = (VU)R(v_splat)(1);
    /* Shifts the binade's border from 1 to sqrt(1/2); then the exponent is made a real by writing it into the
     * mantissa of 2^mantissa. */
    VU bits = (VU)x + (one - root_half);
    *k = (V)((bits >> MATH_MANTISSA_BITS) | (VU)R(v_splat)(MATH_TWO_TO_MANTISSA)) - (MATH_TWO_TO_MANTISSA + MATH_BIAS);
    return (V)((bits & (((UT)1 << MATH_MANTISSA_BITS) - 1)) + root_half) - 1;
}

/* k log(2) + log(1 + f) + low. */
FBP_INLINE V R(m_log_join)(V k, V f, V low) {
    /* high has 16 (32) bits, so k * high is exact */
    const T high = REAL_IS_F32 ? C(0.693145751953125) : C(0.69314718036912382);
    const T rest = REAL_IS_F32 ? C(1.42860682e-06) : C(1.9082149292705877e-10);
    V s = f / (f + 2), half_square = C(0.5) * f * f;
    V small = s * (half_square + R(m_log_tail)(s * s)) + (k * rest + low);
    return k * high - ((half_square - small) - f);
}

/* What a logarithm is outside the positive normal numbers, given `y`, the result for x scaled. */
FBP_INLINE V R(m_log_special)(V x, V y) {
    y = R(v_select)(x == MATH_INFINITY, x, y);
    y = R(v_select)(x == 0, R(v_splat)(-MATH_INFINITY), y);
    return R(v_select)(x >= 0, y, R(v_splat)(MATH_NAN));
}

/* Brings subnormal x into the normal range; *shift is the power of two to take off the exponent again. */
FBP_INLINE V R(m_log_scale_up)(V x, V *shift) {
    VI low = x < MATH_SMALLEST_NORMAL;
    *shift = (V)((VI)R(v_splat)(C(MATH_MANTISSA_BITS)) & low);
    return R(v_select)(low, x * MATH_TWO_TO_MANTISSA, x);
}

FBP_INLINE V R(m_log)(V x) {
    V k, f, shift = R(v_splat)(0);
    if (__builtin_expect(!R(m_all_within)(x, MATH_SMALLEST_NORMAL, MATH_LARGEST), 0)) {
        f = R(m_log_split)(R(m_log_scale_up)(x, &shift), &k);
        return R(m_log_special)(x, R(m_log_join)(k - shift, f, R(v_splat)(0)));
    }
    f = R(m_log_split)(x, &k);
    return R(m_log_join)(k, f, R(v_splat)(0));
}

/* log(u), u = 1 + x rounded, plus what the rounding lost: its derivative 1/u times the error. */
FBP_INLINE V R(m_log1p)(V x) {
    V u = x + 1, k, f = R(m_log_split)(u, &k);
    V lost = R(v_select)(u > 2, 1 - (u - x), x - (u - 1)) / u;
    VI reduced = k != 0; /* where k is 0, x itself is f without any error */
    V y = R(m_log_join)(k, R(v_select)(reduced, f, x), (V)((VI)lost & reduced));
    y = R(v_select)(R(m_abs)(x) < MATH_TINY, x, y);
    if (__builtin_expect(R(m_all_within)(x, C(-1) + C(REAL_IS_F32 ? 0x1p-24 : 0x1p-53), MATH_LARGEST), 1)) return y;
    VI special = ~((x > -1) & (x <= MATH_LARGEST));
    return R(v_select)(special, R(m_log_special)(u, x), y);
}

/* k * unit + log(1 + f) * inverse for another base: unit = log_b(2), inverse = 1/log(b), both in two parts of
 * which the first has few bits.  log(1 + f) is kept in two parts as well. */
FBP_INLINE V R(m_log_join_base)(V k, V f, T unit_high, T unit_low, T inverse_high, T inverse_low) {
    const UT keep = REAL_IS_F32 ? ~(UT)0xfff : ~(UT)0xffffffff;
    V s = f / (f + 2), half_square = C(0.5) * f * f;
    V high = (V)((VU)(f - half_square) & keep);
    V low = ((f - high) - half_square) + s * (half_square + R(m_log_tail)(s * s));
    V y = high * inverse_high, base = k * unit_high, sum = base + y;
    y = (base - sum) + y; /* |base| >= |y| or base is 0 */
    return sum + (y + (k * unit_low + ((low + high) * inverse_low + low * inverse_high)));
}
FBP_INLINE V R(m_log_base)(V x, T unit_high, T unit_low, T inverse_high, T inverse_low) {
    V k, shift = R(v_splat)(0), scaled = x;
    const int rare = !R(m_all_within)(x, MATH_SMALLEST_NORMAL, MATH_LARGEST);
    if (__builtin_expect(rare, 0)) scaled = R(m_log_scale_up)(x, &shift);
    V f = R(m_log_split)(scaled, &k);
    V y = R(m_log_join_base)(k - shift, f, unit_high, unit_low, inverse_high, inverse_low);
    return __builtin_expect(rare, 0) ? R(m_log_special)(x, y) : y;
}
FBP_INLINE V R(m_log2)(V x) {
#if REAL_IS_F32
    return m_log_base_f32(x, 1, 0, 1.4423828125f, 0.000312228389f);
#else
    return m_log_base_f64(x, 1, 0, 1.4426950407214463, 1.6751713164886512e-10);
#endif
}
FBP_INLINE V R(m_log10)(V x) {
#if REAL_IS_F32
    return m_log_base_f32(x, 0.301025390625f, 4.60503898e-06f, 0.4342041015625f, 9.03803408e-05f);
#else
    return m_log_base_f64(x, 0.30102999554947019, 1.1451100898021838e-10, 0.43429448187816888, 2.5082946711645275e-11);
#endif
}

/* log(1 + e^x) and log(sigmoid(x)) = -softplus(-x): the larger part is x itself or nothing, the other log(1 + e) with
 * 0 <= e <= 1, which is m_log1p without its exceptions. */
FBP_INLINE V R(m_softplus)(V x) {
    V e = R(m_exp)((V)((VU)x | MATH_SIGN)), u = e + 1, k, f = R(m_log_split)(u, &k);
    VI whole = k == 0; /* then e itself is f without any error */
    V lost = (V)((VI)(e - (u - 1)) & ~whole) * C(0.5); /* 1/u is near 1/2 enough there */
    return R(m_greater)(R(v_splat)(0), x) + R(m_log_join)(k, R(v_select)(whole, e, f), lost);
}
FBP_INLINE V R(m_log_sigmoid)(V x) { return -R(m_softplus)(-x); }

MATH_LANES_2(m_pow_lanes, pow)

#if REAL_IS_F32
/* float32 vectors worked in double, in as many parts as the registers need. */
enum { FBP_DOUBLE_PARTS = FBP_F32_LANES / FBP_F64_LANES };
typedef float fbp_vf32_part __attribute__((vector_size(FBP_F64_LANES * 4)));

FBP_INLINE fbp_vf64 m_to_double(const fbp_vf32 *x, int part) {
    fbp_vf32_part piece;
    memcpy(&piece, (const char *)x + part * (int)sizeof piece, sizeof piece);
    return __builtin_convertvector(piece, fbp_vf64);
}
FBP_INLINE void m_from_double(fbp_vf32 *y, int part, fbp_vf64 value) {
    fbp_vf32_part piece = __builtin_convertvector(value, fbp_vf32_part);
    memcpy((char *)y + part * (int)sizeof piece, &piece, sizeof piece);
}

/* a^b for positive finite a, to about 2^-40, as doubles: overflow and underflow are left to the conversion. */
FBP_INLINE fbp_vf64 m_pow_double(fbp_vf64 a, fbp_vf64 b) {
    static const double log_tail[] = {2.0, 0.66666666666586583, 0.40000000052597501, 0.28571417075223676,
                                      0.22223375701697026, 0.18123508448370976, 0.16821482182447323};
    static const double exp_tail[] = {1.0, 1.0, 0.5, 0.16666666666666688, 0.041666666666511441, 0.008333333333313802,
                                      0.0013888888947925203, 0.00019841269903871943, 2.4801489091101951e-05};
    const fbp_vu64 zero = {0}, root_half = zero + 0x3fe6a09e667f3bcdu;
    fbp_vu64 bits = (fbp_vu64)a + (0x3ff0000000000000u - root_half);
    fbp_vf64 k = (fbp_vf64)((bits >> 52) | 0x4330000000000000u) - (4503599627370496.0 + 1023);
    fbp_vf64 f = (fbp_vf64)((bits & 0xfffffffffffffu) + root_half) - 1.0, s = f / (f + 2.0), z = s * s;
    fbp_vf64 p = z * 0 + log_tail[6];
    FBP_UNROLL
    for (int i = 5; i >= 0; i--) p = p * z + log_tail[i];
    /* t = b log2(a), cut to where the result has surely become 0 or infinity in float32 */
    fbp_vf64 t = b * (k + s * p * 1.4426950408889634);
    fbp_vi64 above = t > 160.0, below = t < -160.0;
    t = (fbp_vf64)(~(above | below) & (fbp_vi64)t) + (fbp_vf64)(above & (fbp_vi64)(z * 0 + 160.0)) -
        (fbp_vf64)(below & (fbp_vi64)(z * 0 + 160.0));
    fbp_vf64 shifted = t + 6755399441055744.0, r = (t - (shifted - 6755399441055744.0)) * 0.69314718055994531;
    fbp_vf64 e = z * 0 + exp_tail[8];
    FBP_UNROLL
    for (int i = 7; i >= 0; i--) e = e * r + exp_tail[i];
    return e * (fbp_vf64)((fbp_vu64)(shifted + 1023.0) << 52);
}

/* |x|^y for x > 0 normal or subnormal (a double holds either) and finite y. */
FBP_INLINE V m_pow_positive(V a, V y) {
    V result;
    for (int part = 0; part < FBP_DOUBLE_PARTS; part++)
        m_from_double(&result, part, m_pow_double(m_to_double(&a, part), m_to_double(&y, part)));
    return result;
}
#endif

/* x^y as C's pow.  A negative base wants an integral exponent and takes its sign from its parity. */
FBP_INLINE V R(m_pow)(V x, V y) {
#if REAL_IS_F32
    V a = m_abs_f32(x);
    VI plain = (a > 0) & (a <= MATH_LARGEST) & (m_abs_f32(y) <= MATH_LARGEST);
    V power = m_pow_positive(a, y);
    VI negative = x < 0;
    if (m_any_f32(negative)) {
        V half = y * 0.5f;
        VI whole = m_round_f32(y) == y, odd = whole & (m_round_f32(half) != half);
        power = m_flip_f32(power, m_sign_bit_f32((V)(odd & negative)));
        power = v_select_f32(whole | ~negative, power, v_splat_f32(MATH_NAN));
    }
    return MATH_MEND(power, ~plain, m_pow_lanes_f32(x, y));
#else
    return m_pow_lanes_f64(x, y);
#endif
}
