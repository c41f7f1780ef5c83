/* math_trig.inl -- sin, cos, tan, asin, acos, atan, atan2 (part of math.inl).
 *
 * sin, cos and tan take off n quarter turns with pi/2 in three parts (Cody and Waite).  n * first part is exact
 * when fused, or has few enough bits; float32 without fused arithmetic reduces in double.  Beyond TRIG_LIMIT the
 * parts no longer suffice and lanes go through the C library.
 */
#if defined(FBP_FUSED)
#define TRIG_LIMIT C(REAL_IS_F32 ? 1e5 : 1e8)
#else
#define TRIG_LIMIT C(1e6)
#endif

MATH_LANES_1(m_sin_lanes, sin)
MATH_LANES_1(m_cos_lanes, cos)
MATH_LANES_1(m_tan_lanes, tan)
MATH_LANES_2(m_atan2_lanes, atan2)

/* a - n pi/2 for the nearest integer n and 0 <= a <= TRIG_LIMIT; the low bits of *quarters are n's. */
FBP_INLINE V R(m_reduce)(V a, VU *quarters) {
    V shifted = a * C(0.63661977236758138) + MATH_ROUNDER, n = shifted - MATH_ROUNDER;
    *quarters = (VU)shifted;
#if defined(FBP_FUSED) && REAL_IS_F32
    V r = m_less_product_f32(m_less_product_f32(a, n, 1.57079637f), n, -4.37113883e-08f);
    return m_less_product_f32(r, n, -1.71512451e-15f);
#elif defined(FBP_FUSED)
    V r = m_less_product_f64(m_less_product_f64(a, n, 1.5707963267948966), n, 6.123233995736766e-17);
    return m_less_product_f64(r, n, -1.4973849048591698e-33);
#elif REAL_IS_F32
    V result;
    for (int part = 0; part < FBP_DOUBLE_PARTS; part++) {
        fbp_vf64 turns = m_to_double(&n, part), r = m_to_double(&a, part) - turns * 1.5707963267341256;
        m_from_double(&result, part, r - turns * 6.0771005065061922e-11);
    }
    return result;
#else
    /* 33-bit parts: n times one is exact; the errors of the differences are collected. */
    V first = a - n * 1.5707963267341256, low, lower;
    V second = m_two_sum_f64(first, n * -6.077100506303966e-11, &low);
    V third = m_two_sum_f64(second, n * -2.0222662487111665e-21, &lower);
    return third + (low + (lower - n * 8.4784276603688996e-32));
#endif
}

/* sin and cos for |r| <= pi/4. */
FBP_INLINE V R(m_sin_near)(V r) {
#if REAL_IS_F32
    static const T c[] = {-0.166666672f, 0.00833337288f, -0.000198502603f, 2.8036643e-06f};
#else
    static const T c[] = {-0.1666666666666663, 0.0083333333333218164, -0.00019841269829319041, 2.755731351825994e-06,
                          -2.505073027560236e-08, 1.5895145068354665e-10};
#endif
    V z = r * r;
    return r * z * MATH_POLYNOMIAL(z, c) + r;
}
FBP_INLINE V R(m_cos_near)(V r) {
#if REAL_IS_F32
    static const T c[] = {0.0416666456f, -0.00138873083f, 2.44320272e-05f};
#else
    static const T c[] = {0.041666666666666595, -0.0013888888888873318, 2.4801587288963787e-05, -2.755731419833704e-07,
                          2.0875701788556188e-09, -1.135850810065687e-11};
#endif
    V z = r * r, half = C(0.5) * z, most = 1 - half;
    return most + (((1 - most) - half) + z * z * MATH_POLYNOMIAL(z, c));
}

/* The bit of n that says whether sine and cosine change places, and the one that says whether the sign changes. */
FBP_INLINE VI R(m_quarter_is_odd)(VU quarters) { return (VI)(quarters & 1) != 0; }
FBP_INLINE V R(m_quarter_sign)(VU quarters) { return (V)((quarters >> 1) << (int)(sizeof(T) * 8 - 1)); }

FBP_INLINE V R(m_sin)(V x) {
    V a = R(m_abs)(x);
    VU quarters;
    V r = R(m_reduce)(a, &quarters);
    V y = R(v_select)(R(m_quarter_is_odd)(quarters), R(m_cos_near)(r), R(m_sin_near)(r));
    y = R(m_flip)(R(m_flip)(y, R(m_quarter_sign)(quarters)), R(m_sign_bit)(x));
    return MATH_MEND(y, ~(a <= TRIG_LIMIT), R(m_sin_lanes)(x));
}

FBP_INLINE V R(m_cos)(V x) {
    V a = R(m_abs)(x);
    VU quarters;
    V r = R(m_reduce)(a, &quarters);
    V y = R(v_select)(R(m_quarter_is_odd)(quarters), R(m_sin_near)(r), R(m_cos_near)(r));
    y = R(m_flip)(y, R(m_quarter_sign)(quarters + 1)); /* cos x = sin(x + a quarter) */
    return MATH_MEND(y, ~(a <= TRIG_LIMIT), R(m_cos_lanes)(x));
}

FBP_INLINE V R(m_tan)(V x) {
    V a = R(m_abs)(x);
    VU quarters;
    V r = R(m_reduce)(a, &quarters), sine = R(m_sin_near)(r), cosine = R(m_cos_near)(r);
    VI odd = R(m_quarter_is_odd)(quarters);
    V y = R(v_select)(odd, -cosine, sine) / R(v_select)(odd, sine, cosine);
    return MATH_MEND(R(m_flip)(y, R(m_sign_bit)(x)), ~(a <= TRIG_LIMIT), R(m_tan_lanes)(x));
}

/* asin(s) for 0 <= s <= 1/2 with z = s*s. */
FBP_INLINE V R(m_asin_near)(V s, V z) {
#if REAL_IS_F32
    static const T c[] = {0.166666597f, 0.0750051811f, 0.0445145629f, 0.0318261571f, 0.0143730529f, 0.0376040079f};
#else
    static const T c[] = {0.16666666666665375,   0.075000000003447365,  0.044642856822106558, 0.030381959388314304,
                          0.022371752135584219,  0.017359792415466216,  0.013884383774684921, 0.01217471826572886,
                          0.0065045001019341563, 0.019591650552859292,  -0.016322477503978274, 0.031978814623929368};
#endif
    return s * z * MATH_POLYNOMIAL(z, c) + s;
}

/* pi/2 - x, with what pi/2 leaves over. */
FBP_INLINE V R(m_quarter_turn_minus)(V x) {
    return C(1.5707963267948966) - (x - (REAL_IS_F32 ? C(-4.37113883e-08) : C(6.123233995736766e-17)));
}

/* Above 1/2: asin(a) = pi/2 - 2 asin(sqrt((1 - a)/2)). */
FBP_INLINE V R(m_asin)(V x) {
    V a = R(m_abs)(x);
    VI far = a > C(0.5);
    V z = R(v_select)(far, C(0.5) * (1 - a), a * a), s = R(v_select)(far, R(m_sqrt)(z), a), y = R(m_asin_near)(s, z);
    return R(m_copysign)(R(v_select)(far, R(m_quarter_turn_minus)(y + y), y), x);
}

FBP_INLINE V R(m_acos)(V x) {
    V a = R(m_abs)(x);
    VI far = a > C(0.5);
    V z = R(v_select)(far, C(0.5) * (1 - a), a * a), s = R(v_select)(far, R(m_sqrt)(z), a), y = R(m_asin_near)(s, z);
    V near = R(m_quarter_turn_minus)(R(m_flip)(y, R(m_sign_bit)(x)));
    V behind = R(m_quarter_turn_minus)(y), twice = y + y; /* pi - 2y = 2 (pi/2 - y) */
    return R(v_select)(far, R(v_select)(x < 0, behind + behind, twice), near);
}

/* atan(opposite/adjacent) for 0 <= opposite <= adjacent; above tan(pi/8) through (o - a)/(o + a) and pi/4. */
FBP_INLINE V R(m_atan_ratio)(V opposite, V adjacent) {
#if REAL_IS_F32
    static const T c[] = {-0.333333164f, 0.19998531f, -0.14244464f, 0.105997264f, -0.0609139986f};
#else
    static const T c[] = {-0.33333333333333198,  0.19999999999953766,  -0.14285714280211831, 0.11111110784120912,
                          -0.090908977742218802, 0.076920604673028928, -0.066631064707171742, 0.05847903737037189,
                          -0.050393556909522297, 0.038065509830922099, -0.01790788221111338};
#endif
    VI far = opposite > adjacent * C(0.41421356237309505);
    V s = R(v_select)(far, opposite - adjacent, opposite) / R(v_select)(far, opposite + adjacent, adjacent), z = s * s;
    V y = s * z * MATH_POLYNOMIAL(z, c) + s;
    const T low = REAL_IS_F32 ? C(-2.18556941e-08) : C(3.061616997868383e-17);
    return R(v_select)(far, C(0.78539816339744831) + (y + low), y);
}

FBP_INLINE V R(m_atan)(V x) {
    V a = R(m_abs)(x), one = R(v_splat)(1);
    VI steep = a > 1;
    V y = R(m_atan_ratio)(R(v_select)(steep, one, a), R(v_select)(steep, a, one));
    return R(m_copysign)(R(v_select)(steep, R(m_quarter_turn_minus)(y), y), x);
}

/* The angle of the point (x, y), as C's atan2. */
FBP_INLINE V R(m_atan2)(V y, V x) {
    V a = R(m_abs)(x), b = R(m_abs)(y);
    VI steep = b > a;
    V larger = R(v_select)(steep, b, a);
    VI plain = (larger < MATH_LARGEST / 4) & (larger >= MATH_SMALLEST_NORMAL) & (a == a);
    V angle = R(m_atan_ratio)(R(v_select)(steep, a, b), larger);
    /* Left of the y axis pi - angle is pi/2 - (angle - pi/2); steep lanes measure from the y axis instead. */
    const T pi_low = REAL_IS_F32 ? C(-8.74227766e-08) : C(1.2246467991473532e-16);
    V left = C(3.1415926535897931) - (angle - pi_low);
    V toward = R(m_flip)(angle, R(m_sign_bit)(x));
    V result = R(v_select)(steep, R(m_quarter_turn_minus)(toward), R(v_select)(x < 0, left, angle));
    /* x = -0 lies left as well, but then |y| > |x| or both are zero, which went through the library */
    return MATH_MEND(R(m_copysign)(result, y), ~plain, R(m_atan2_lanes)(y, x));
}

#undef TRIG_LIMIT
