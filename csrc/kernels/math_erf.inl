/* math_erf.inl -- erf, erfc's scaled form, and the two gelus (part of math.inl). */

/* A polynomial that is the result and not a correction to it: c[0] is added last, with the only full rounding. */
FBP_INLINE V R(m_leading)(V x, const T *c, int n) { return x * R(m_polynomial)(x, c + 1, n - 1) + c[0]; }

/* erfcx(s) = e^(s^2) erfc(s) for s >= 0.7: (s + k) erfcx(s) is a tame function of t = (s - k)/(s + k), after
 * Shepherd and Laframboise (1981), and one reciprocal serves t and the factor. */
FBP_INLINE V R(m_erfcx)(V s) {
#if REAL_IS_F32
    const T k = 3;
    static const T c[] = {
        1.07400692f, -0.883394301f, 0.590227842f, -0.310472637f, 0.119536549f, -0.0267733354f, -0.00126750034f,
        0.00282784668f, -0.000413415255f};
#else
    const T k = 4;
    static const T c[] = {
        1.0959956610004911, -0.97654872908088186, 0.77320870226524385, -0.54085383131325016, 0.33085158787778757,
        -0.17401093723940617, 0.076381514912497464, -0.026370053348876248, 0.0061120556341904076,
        -0.00028095879032823899, -0.00045505262897027414, 0.00017681243174453651, -3.6350376564632412e-06,
        -1.8859693988231777e-05, 4.6930762538440922e-06, 1.4220414502704359e-06, -8.4225893634434047e-07,
        -7.348297484001497e-08, 1.1843521955194059e-07, 1.7568751214743347e-10, -1.1465885397270979e-08};
#endif
    V inverse = 1 / (s + k), t = (s - k) * inverse;
    return inverse * R(m_leading)(t, c, sizeof c / sizeof *c);
}

/* Up to 1 the odd series; beyond, 1 - erfc, whose error fades beside 1. */
FBP_INLINE V R(m_erf)(V x) {
#if REAL_IS_F32
    static const T c[] = {0.128379166f,  -0.376126289f,   0.11283619f,   -0.0268551745f,
                          0.00519084465f, -0.00080318359f, 7.92413048e-05f};
#else
    static const T c[] = {0.12837916709551256,     -0.37612638903183476,    0.11283791670943444,
                          -0.026866170643060263,   0.0052239776059880153,   -0.00085483259313358189,
                          0.00012055293795740693,  -1.4924718541803717e-05, 1.6447225849761147e-06,
                          -1.6207128498368588e-07, 1.3714787760196741e-08,  -7.7869489794105226e-10};
#endif
    V a = R(m_lesser)(R(v_splat)(C(REAL_IS_F32 ? 4.2 : 6.2)), R(m_abs)(x)), z = a * a, n;
    V near = a * MATH_POLYNOMIAL(z, c) + a;
    V p = R(m_exp_split)(-z, NULL, &n);
    V far = 1 - R(m_scale_normal)(p, n) * R(m_erfcx)(a);
    return R(m_copysign)(R(v_select)(a < 1, near, far), x);
}

/* a Q(a) e^(a^2/2) for a >= 1, Q(a) = erfc(a/sqrt 2)/2: between 0.26 and 0.4, in t = (a - k)/(a + k). */
FBP_INLINE V R(m_gelu_tail)(V a) {
#if REAL_IS_F32
    const T k = 4;
    static const T c[] = {
        0.377642572f, 0.0736942589f, -0.11037977f, 0.100307159f, -0.0630629435f, 0.0264351685f, -0.00549430447f,
        -0.000954730378f, 0.000804427604f};
#else
    const T k = 5;
    static const T c[] = {
        0.38459652487503149, 0.051905273430003014, -0.085038443460042412, 0.090886229649350017,
        -0.074256395250312426, 0.047950863731512985, -0.024161785957118632, 0.0089008450239629559,
        -0.0018956230310644027, -0.00012648526066078779, 0.00024276124459750691, -5.4568677300308771e-05,
        -1.6538736783588438e-05, 1.0328609541204828e-05, 5.9953467380172423e-07, -1.5463458050269409e-06,
        6.0018119038270242e-08, 2.2649745997937998e-07, -2.4449242302819593e-08, -2.6696962804355005e-08,
        5.6365632375021679e-09};
#endif
    V t = (a - k) / (a + k);
    return R(m_leading)(t, c, sizeof c / sizeof *c);
}

/* x Phi(x).  Up to 1 as x (1/2 + x P(x^2)); beyond as max(x, 0) - |x| Q(|x|), which keeps full relative accuracy on
 * the negative side down to the subnormal numbers: x^2 is carried in two parts, and 2^n comes last. */
FBP_INLINE V R(m_gelu)(V x) {
#if REAL_IS_F32
    static const T c[] = {
        0.398942292f, -0.0664905906f, 0.00997461285f, -0.00118927669f, 0.000116433999f, -8.72655892e-06f};
#else
    static const T c[] = {
        0.3989422804014327, -0.066490380066907259, 0.0099735570100746244, -0.0011873282158605051,
        0.00011543468965457709, -9.4446627941054775e-06, 6.6598235633195614e-07, -4.1242726693095296e-08,
        2.2852059087879347e-09, -1.1722014192298556e-10, 5.3275096228839213e-12};
#endif
    V a = R(m_lesser)(R(v_splat)(C(REAL_IS_F32 ? 15 : 39)), R(m_abs)(x));
    V square_low, square = R(m_two_product)(a, a, &square_low), n;
    V near = x * (x * R(m_leading)(square, c, sizeof c / sizeof *c) + C(0.5));
    V exponent_low = C(-0.5) * square_low, p = R(m_exp_split)(C(-0.5) * square, &exponent_low, &n);
    V tail = R(m_scale)(p * R(m_gelu_tail)(a), n);
    V far = R(v_select)(x > 0, x, R(v_splat)(C(-0.0))) - tail;
    return R(v_select)(a < 1, near, far);
}

/* The tanh form: x sigmoid(v), v = 2 sqrt(2/pi) (x + 0.044715 x^3), in two parts for the same reason. */
FBP_INLINE V R(m_gelu_tanh)(V x) {
#if REAL_IS_F32
    const T slope = 1.59576917f, slope_low = -4.53406805e-08f, cubic = 0.0713548139f, cubic_low = 2.39883247e-09f;
#else
    const T slope = 1.5957691216057308, slope_low = -9.9693088091109202e-17, cubic = 0.071354816272600249,
            cubic_low = -6.175149918155315e-19;
#endif
    V a = R(m_lesser)(R(v_splat)(C(REAL_IS_F32 ? 12 : 24)), R(m_abs)(x)), low, part_low, sum_low;
    V square = R(m_two_product)(a, a, &low);
    V scaled = R(m_two_product)(square, R(v_splat)(cubic), &part_low);
    V factor = R(m_two_sum)(scaled, R(v_splat)(slope), &sum_low);
    V factor_low = sum_low + (part_low + (low * cubic + (square * cubic_low + slope_low)));
    V v = R(m_two_product)(a, factor, &low), v_low = -(low + a * factor_low), n;
    V p = R(m_exp_split)(-v, &v_low, &n);
    V top = R(v_select)(x < 0, R(m_scale)(p * a, n), R(m_abs)(x));
    return R(m_flip)(top / (1 + R(m_scale)(p, n)), R(m_sign_bit)(x));
}
