/* math_exp.inl -- exp, exp2, expm1, sinh, cosh, tanh and sigmoid (part of math.inl).
 *
 * The core writes e^x = p * 2^n with |log p| small, in two pieces so that a caller may multiply p by a factor
 * before 2^n makes it overflow or subnormal: nothing is rounded twice.
 */

/* log(2) = high + low; where products are not fused, n * high must be exact. */
#if REAL_IS_F32 && defined(FBP_FUSED)
#define EXP_LN2_HIGH 0.693147182f
#define EXP_LN2_LOW (-1.9046543e-09f)
#elif REAL_IS_F32
#define EXP_LN2_HIGH 0.693145751953125f /* 16 bits */
#define EXP_LN2_LOW 1.42860682e-06f
#elif defined(FBP_FUSED)
#define EXP_LN2_HIGH 0.69314718055994529
#define EXP_LN2_LOW 2.3190468138462996e-17
#else
#define EXP_LN2_HIGH 0.69314718036912382 /* 32 bits */
#define EXP_LN2_LOW 1.9082149292705877e-10
#endif
#define EXP_LOG2_E C(1.4426950408889634)
/* Where e^x has certainly become 0 or infinity, also when a caller halves it or multiplies by 40. */
#define EXP_LOWEST C(REAL_IS_F32 ? -110 : -755)
#define EXP_HIGHEST C(REAL_IS_F32 ? 92 : 713)

/* (e^r - 1 - r) / r^2 for |r| <= log(2)/2. */
FBP_INLINE V R(m_exp_tail)(V r) {
#if REAL_IS_F32
    static const T c[] = {0.5f, 0.166665182f, 0.0416664369f, 0.00836895872f, 0.00139375008f};
#else
    static const T c[] = {0.50000000000000133,    0.16666666666666688,    0.041666666666511441,  0.008333333333313802,
                          0.0013888888947925203,  0.00019841269903871943, 2.4801489091101951e-05, 2.755722786196637e-06,
                          2.7631561223652341e-07, 2.5114325724270242e-08};
#endif
    return MATH_POLYNOMIAL(r, c);
}

/* x = n log(2) + result for EXP_LOWEST <= x <= EXP_HIGHEST or so. */
FBP_INLINE V R(m_exp_reduce)(V x, V *n) {
    *n = (x * EXP_LOG2_E + MATH_ROUNDER) - MATH_ROUNDER;
    return R(m_less_product)(R(m_less_product)(x, *n, EXP_LN2_HIGH), *n, EXP_LN2_LOW);
}

/* The same, with *power = 2^(n + shift), which must be normal: the rounding constant carries the exponent's bias, so
 * that n need only be shifted into its place. */
FBP_INLINE V R(m_exp_reduce_power)(V x, T shift, V *power) {
    const T rounder = MATH_ROUNDER + (MATH_BIAS + shift);
    V shifted = x * EXP_LOG2_E + rounder, n = shifted - rounder;
    *power = (V)((VU)shifted << MATH_MANTISSA_BITS);
    return R(m_less_product)(R(m_less_product)(x, n, EXP_LN2_HIGH), n, EXP_LN2_LOW);
}

#if FBP_VECTOR_BYTES == 64
/* AVX-512: n goes in sixteenths.  `shifted` is n plus a constant that leaves 16 n in the low bits; the last four
 * choose 2^(j/16) from registers, and |r| <= log(2)/32 wants a polynomial of low degree only.  Where x was out
 * of range r is nonsense: it is held down here, and n brings the infinity, the zero or the NaN. */
FBP_INLINE V R(m_exp_lookup)(V r, V shifted) {
#if REAL_IS_F32
    static const T table[16] = {1, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f, 1.29683959f,
                                1.35425556f, 1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f, 1.68179286f,
                                1.75625217f, 1.8340081f, 1.91520655f};
    static const T c[] = {1, 0.500016212f, 0.166670248f};
    V power = (V)_mm512_permutexvar_ps((__m512i)shifted, _mm512_loadu_ps(table));
#else
    static const T table[16] = {1, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916, 1.189207115002721,
                                1.241857812073484, 1.2968395546510096, 1.3542555469368927, 1.4142135623730951,
                                1.4768261459394993, 1.5422108254079407, 1.6104903319492543, 1.681792830507429,
                                1.7562521603732995, 1.8340080864093424, 1.9152065613971474};
    static const T c[] = {1, 0.50000000000000056, 0.1666666666440649, 0.041666666659730948, 0.0083334722536029249,
                          0.0013889127831699906};
    V power = (V)_mm512_permutex2var_pd(_mm512_loadu_pd(table), (__m512i)shifted, _mm512_loadu_pd(table + 8));
#endif
    r = (V)LANE_OP(range)(r, R(v_splat)(C(0.03)), 2); /* the smaller magnitude, r's sign; the bound for NaN */
    return power + (power * r) * MATH_POLYNOMIAL(r, c);
}
#endif

/* e^(x + *x_low) = result * 2^(*n) for any x; *x_low is a correction, below 0.001 in size and finite, or absent
 * (NULL).  *n is for m_scale: with AVX-512 it is a multiple of 1/16 whose floor is the exponent. */
FBP_INLINE V R(m_exp_split)(V x, const V *x_low, V *n) {
#if FBP_VECTOR_BYTES == 64
    V shifted = x * EXP_LOG2_E + MATH_ROUNDER / 16;
    *n = shifted - MATH_ROUNDER / 16;
    V r = R(m_less_product)(R(m_less_product)(x, *n, EXP_LN2_HIGH), *n, EXP_LN2_LOW);
    if (x_low) r += *x_low;
    return R(m_exp_lookup)(r, shifted);
#else
    V bounded = R(m_lesser)(R(v_splat)(EXP_HIGHEST), R(m_greater)(R(v_splat)(EXP_LOWEST), x));
    V r = R(m_exp_reduce)(bounded, n);
    if (x_low) r += *x_low;
    return r * r * R(m_exp_tail)(r) + r + 1;
#endif
}

/* p * 2^n for any n of m_exp_split plus an integer: overflows to infinity, rounds once to a subnormal number. */
FBP_INLINE V R(m_scale)(V p, V n) {
#if FBP_VECTOR_BYTES == 64
    return (V)LANE_OP(scalef)(p, n);
#else
    V half = (n * C(0.5) + MATH_ROUNDER) - MATH_ROUNDER;
    return p * R(m_power_of_two)(half) * R(m_power_of_two)(n - half);
#endif
}

/* The same where 2^n is sure to be normal. */
FBP_INLINE V R(m_scale_normal)(V p, V n) {
#if FBP_VECTOR_BYTES == 64
    return R(m_scale)(p, n);
#else
    return p * R(m_power_of_two)(n);
#endif
}

FBP_INLINE V R(m_exp)(V x) {
    V n, p = R(m_exp_split)(x, NULL, &n);
    return R(m_scale)(p, n);
}

FBP_INLINE V R(m_exp2)(V x) {
#if FBP_VECTOR_BYTES == 64
    V shifted = x + MATH_ROUNDER / 16, n = shifted - MATH_ROUNDER / 16;
    return R(m_scale)(R(m_exp_lookup)((x - n) * C(0.69314718055994531), shifted), n);
#else
    V bounded = R(m_lesser)(R(v_splat)(C(MATH_BIAS + 2)), x);
    bounded = R(m_greater)(R(v_splat)(C(-MATH_BIAS - MATH_MANTISSA_BITS - 2)), bounded);
    V n = (bounded + MATH_ROUNDER) - MATH_ROUNDER, r = (bounded - n) * C(0.69314718055994531);
    return R(m_scale)(r * r * R(m_exp_tail)(r) + r + 1, n);
#endif
}

/* e^x / 2 for x >= 0, where e^x itself may overflow. */
FBP_INLINE V R(m_exp_half)(V x) {
    V n, p = R(m_exp_split)(x, NULL, &n);
    return R(m_scale)(p, n - 1);
}

/* With em = e^r - 1: e^x - 1 = 2^n em + (2^n - 1), computed at half size so that n may reach the largest exponent
 * plus one.  Below the lower bound the result rounds to -1. */
FBP_INLINE V R(m_expm1)(V x) {
    V bounded = R(m_lesser)(R(v_splat)(C(REAL_IS_F32 ? 89 : 710)), x);
    bounded = R(m_greater)(R(v_splat)(C(REAL_IS_F32 ? -18 : -39)), bounded);
    V power, r = R(m_exp_reduce_power)(bounded, -1, &power), em = r * r * R(m_exp_tail)(r) + r;
    V y = C(2) * (power * em + (power - C(0.5)));
    return R(v_select)(R(m_abs)(x) < MATH_TINY, x, y);
}

/* Near 0 by its odd series, else e^x/2 - e^-x/2. */
FBP_INLINE V R(m_sinh)(V x) {
#if REAL_IS_F32
    static const T c[] = {0.166666672f, 0.00833331607f, 0.0001984142f, 2.79153824e-06f};
#else
    static const T c[] = {0.16666666666666666,    0.0083333333333335188,  0.00019841269841133549,
                          2.7557319273633598e-06, 2.5052098436588756e-08, 1.6060161063658551e-10,
                          7.5811360601777051e-13, 4.4209830966063288e-15};
#endif
    V a = R(m_abs)(x), z = a * a, half = R(m_exp_half)(a);
    V near = a * z * MATH_POLYNOMIAL(z, c) + a, far = half - C(0.25) / half;
    return R(m_copysign)(R(v_select)(a < 1, near, far), x);
}

FBP_INLINE V R(m_cosh)(V x) {
    V half = R(m_exp_half)(R(m_abs)(x));
    return half + C(0.25) / half;
}

#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
/* Coefficient k of segment i at [k][i]: tanh(start + d) = c0 + c1 d + ... + c4 d^4.  The segments are the 32
 * intervals of y = |x| + 0.625 that share exponent and three bits of mantissa, so they widen away from 0; i is
 * the five bits above the others, and y without the others is the start.  At the end tanh has rounded to 1. */
static const float fbp_tanh_coefficients[5][32] = {
    {0.879826665f, 0.925346255f, 0.954045296f, 0.971872747f, 0.982845008f, 0.98955977f, 0.993654609f, 0.99614656f,
     0.997660995f, 0.999138892f, 0.999683142f, 0.999883413f, 0.999957085f, 0.999984205f, 0.999994218f, 0.999997854f,
     0.999999225f, 0.999999881f, 0.0f, 0.0624187477f, 0.124352999f, 0.185333207f, 0.244918659f, 0.302709728f,
     0.3583574f, 0.462117165f, 0.554599702f, 0.635148942f, 0.703905582f, 0.761594176f, 0.809301078f, 0.848283648f},
    {0.225907817f, 0.143731803f, 0.0897944123f, 0.0554621816f, 0.0340159498f, 0.0207698345f, 0.012651491f,
     0.00769031374f, 0.00467041647f, 0.00172067562f, 0.000633021409f, 0.000233174374f, 8.6431246e-05f,
     3.19951396e-05f, 1.09853772e-05f, 4.54853307e-06f, 1.4187749e-06f, 3.77051009e-07f, 1.0f, 0.996103585f,
     0.984536827f, 0.965649962f, 0.940015435f, 0.908366978f, 0.871579945f, 0.786447644f, 0.69242233f, 0.596587956f,
     0.504520118f, 0.419972867f, 0.345031351f, 0.280414194f},
    {-0.198825195f, -0.13294521f, -0.085592486f, -0.0538587905f, -0.0334165581f, -0.0205171909f, -0.0125764078f,
     -0.00763140712f, -0.00462391367f, -0.00170585071f, -0.000625863904f, -0.00023216175f, -9.00967207e-05f,
     -3.4582441e-05f, -7.02849047e-06f, -6.26431574e-06f, -9.72208795e-07f, -1.19944502e-06f, 6.07136099e-06f,
     -0.0621448532f, -0.122447893f, -0.178863898f, -0.230254427f, -0.274977297f, -0.312337756f, -0.363462865f,
     -0.384157687f, -0.379035562f, -0.355270386f, -0.319841504f, -0.279244423f, -0.237864301f},
    {0.100279279f, 0.0746335164f, 0.0510413982f, 0.0333633162f, 0.0212189872f, 0.0130693465f, 0.00821233261f,
     0.00484353816f, 0.00286560785f, 0.00105938339f, 0.00038416902f, 0.000146331033f, 6.63822211e-05f,
     2.82718083e-05f, -4.86146382e-06f, 8.07210654e-06f, 1.10097297e-07f, 2.0725945e-06f, -0.333916783f, -0.32936424f,
     -0.313058883f, -0.291316062f, -0.256655216f, -0.219587758f, -0.178629145f, -0.0931729749f, -0.0152463932f,
     0.0441670492f, 0.0842675045f, 0.104257636f, 0.111570835f, 0.108514585f},
    {-0.0250065178f, -0.0233019982f, -0.0177025236f, -0.012390119f, -0.00826046709f, -0.00498680444f, -0.0033916242f,
     -0.00175982609f, -0.000953011622f, -0.000353136391f, -0.000124671176f, -5.02900839e-05f, -2.96941762e-05f,
     -1.43596535e-05f, 8.33617923e-06f, -5.73206535e-06f, 1.13048351e-07f, -1.14207614e-06f, 0.0160271619f,
     0.0618905127f, 0.091168344f, 0.140398592f, 0.143927321f, 0.162130281f, 0.169686466f, 0.154381916f, 0.117565937f,
     0.0792040974f, 0.0412659682f, 0.0171448365f, -0.00439200876f, -0.0165232234f}};
#define TANH_OFFSET 0.625f
#define TANH_END 9.0109f

FBP_INLINE V m_tanh_lookup(const float *table, __m512i segment) {
    return (V)_mm512_permutex2var_ps(_mm512_loadu_ps(table), segment, _mm512_loadu_ps(table + 16));
}
#endif

FBP_INLINE V R(m_tanh)(V x) {
#if FBP_VECTOR_BYTES == 64 && REAL_IS_F32
    V a = m_lesser_f32(v_splat_f32(TANH_END), m_abs_f32(x)), y = a + TANH_OFFSET;
    __m512i segment = _mm512_srli_epi32((__m512i)y, 20); /* the lookup takes the low five bits */
    V d = a - ((V)((VU)y & 0xfff00000u) - TANH_OFFSET);
    V p = m_tanh_lookup(fbp_tanh_coefficients[4], segment);
    FBP_UNROLL
    for (int k = 3; k >= 0; k--) p = p * d + m_tanh_lookup(fbp_tanh_coefficients[k], segment);
    return (V)((VU)p | (VU)m_sign_bit_f32(x)); /* p has no sign of its own */
#else
    /* Up to 0.55 the odd series; beyond, 2/(e^2x + 1) is at most 1/2 and its error fades in 1 - ... */
#if REAL_IS_F32
    static const T c[] = {-0.333333164f, 0.133325577f, -0.0538498424f, 0.0210628137f, -0.00626290496f};
#else
    static const T c[] = {-0.33333333333333298,  0.13333333333326611,  -0.053968253963761384,  0.021869488385940314,
                          -0.0088632326028473003, 0.0035920920395181265, -0.0014555428519815784, 0.00058844425098986543,
                          -0.00023338023507391708, 8.3313436373356944e-05, -1.9492128475628393e-05};
#endif
    V a = R(m_abs)(x), z = a * a, near = a * z * MATH_POLYNOMIAL(z, c) + a;
    V bounded = R(m_lesser)(R(v_splat)(C(REAL_IS_F32 ? 10 : 20)), a);
    V n, p = R(m_exp_split)(bounded + bounded, NULL, &n);
    V far = 1 - 2 / (R(m_scale_normal)(p, n) + 1);
    return R(m_copysign)(R(v_select)(a < C(0.55), near, far), x);
#endif
}

/* 1 / (1 + e^-x).  With e^-|x| = S (1 + v), S = 2^n, it is 1/d with d = (1 + S) + S v, or (S + S v)/d for negative x.
 * 1 + S and S v are exact but the two sums are not, and their roundings alone can amount to two units: so the
 * quotient is mended with what is left of the exact sums.  Far out to the left the result is e^x. */
FBP_INLINE V R(m_sigmoid)(V x) {
    const T end = C(REAL_IS_F32 ? -70 : -690);
    V power, r = R(m_exp_reduce_power)(R(m_greater)(R(v_splat)(end), (V)((VU)x | MATH_SIGN)), 0, &power);
    V change = power * (r * r * R(m_exp_tail)(r) + r);
    V top = R(m_select_negative)(x, power, R(v_splat)(1)), top_change = R(m_select_negative)(x, change, R(v_splat)(0));
    V one_and_power = 1 + power, d = one_and_power + change;
#ifdef FBP_FUSED
    V inverse = R(m_inverse_estimate)(d), y = (top + top_change) * inverse;
    V left = R(m_fused)(-y, one_and_power, top) + R(m_fused)(-y, change, top_change);
    y = y + inverse * left;
#else
    V whole = top + top_change, y = whole / d;
    V left = ((top - whole) + top_change) - y * ((one_and_power - d) + change);
    y = y + left / d;
#endif
    if (__builtin_expect(R(m_all_within)(x, end, MATH_INFINITY), 1)) return y;
    return R(v_select)(x < end, R(m_exp)(x), y);
}

#undef EXP_LN2_HIGH
#undef EXP_LN2_LOW
#undef EXP_LOG2_E
#undef EXP_LOWEST
#undef EXP_HIGHEST
#undef TANH_OFFSET
#undef TANH_END
