/* random_real.inl -- transforms of random words to one real type (between real_f32.h / real_f64.h and real_end.h).
 *
 * log, sin and cos are Taylor series on reduced arguments, written with + - * / alone in one fixed order, so that all
 * instruction sets agree to the bit.  The arguments are reduced so far that the series needs no fitted coefficients.
 */

/* log(u) for u in (0, 1], normal: u = m * 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh(s), s = (m-1)/(m+1), so
 * |s| < 0.1716 and the first term left out is below a tenth of an ulp. */
FBP_INLINE V R(log_unit)(V u) {
#if REAL_IS_F32
    enum { MANTISSA = 23 };
    const IT half_root = 0x3F3504F3; /* bits of sqrt(1/2) */
    const T coefficient[] = {1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3};
#else
    enum { MANTISSA = 52 };
    const IT half_root = 0x3FE6A09E667F3BCD;
    const T coefficient[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                             1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};
#endif
    const VI past = (VI)u - half_root; /* exponent relative to sqrt(1/2) in the high bits: floor(log2(u / sqrt(1/2))) */
    const VI exponent = past >> MANTISSA;
    const V m = (V)((VI)u - (VI)((VU)exponent << MANTISSA));
    const V s = (m - C(1)) / (m + C(1)), square = s * s;
    V series = R(v_splat)(coefficient[0]);
    for (unsigned i = 1; i < sizeof coefficient / sizeof *coefficient; i++) series = series * square + coefficient[i];
    const V log_m = C(2) * (s + s * (square * series));
    /* |exponent| <= 64, so a plain conversion would do, but AVX2 and SSE2 have none from int64: add it to the low bits
     * of 1.5 * 2^MANTISSA and take that away again. */
    const T magic = C(3) * (T)((UT)1 << (MANTISSA - 1));
    const V e = (V)((VI)R(v_splat)(magic) + exponent) - magic;
    /* ln 2 in two pieces, the first short enough that e * it is exact. */
#if REAL_IS_F32
    return e * C(0x1.62ep-1) + (log_m + e * C(0x1.0bfbe8e7bcd5ep-15));
#else
    return e * C(0x1.62e42fefa38p-1) + (log_m + e * C(0x1.ef35793c7673p-45));
#endif
}

/* sin and cos of x, |x| <= pi/4 (and a rounding). */
FBP_INLINE V R(sin_eighth)(V x) {
#if REAL_IS_F32
    const T coefficient[] = {1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6};
#else
    const T coefficient[] = {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800,
                             1.0 / 362880,          -1.0 / 5040,          1.0 / 120,        -1.0 / 6};
#endif
    const V square = x * x;
    V series = R(v_splat)(coefficient[0]);
    for (unsigned i = 1; i < sizeof coefficient / sizeof *coefficient; i++) series = series * square + coefficient[i];
    return x + x * (square * series);
}
FBP_INLINE V R(cos_eighth)(V x) {
#if REAL_IS_F32
    const T coefficient[] = {-1.0f / 3628800, 1.0f / 40320, -1.0f / 720, 1.0f / 24, -0.5f};
#else
    const T coefficient[] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800,
                             1.0 / 40320,          -1.0 / 720,         1.0 / 24,        -0.5};
#endif
    const V square = x * x;
    V series = R(v_splat)(coefficient[0]);
    for (unsigned i = 1; i < sizeof coefficient / sizeof *coefficient; i++) series = series * square + coefficient[i];
    return C(1) + square * series;
}

/* ---- words to reals: LANES words (float32) or word pairs (float64) at a time ---- */

#if REAL_IS_F32

/* [0, 1), a multiple of 2^-24. */
FBP_INLINE V unit_f32(VU bits) { return __builtin_convertvector((VI)(bits >> 8), V) * C(0x1p-24); }

/* (0, 1], fine near 0, where the logarithm is steep. */
FBP_INLINE V positive_unit_f32(VU bits) { return (__builtin_convertvector((VI)(bits >> 1), V) + C(1)) * C(0x1p-31); }

/* [-1/2, 1/2) from the low 30 bits: the place within a quarter turn. */
FBP_INLINE V centred_f32(VU bits) { return __builtin_convertvector((VI)(bits << 2), V) * C(0x1p-32); }

#else

/* x < 2^53 as a double, exactly, on sets without that conversion: each half is planted in the low mantissa bits of a
 * power of two, which is taken away again. */
FBP_INLINE V exact_f64(VU x) {
    const V high = (V)((x >> 32) | 0x4530000000000000u);        /* 2^84 + (x >> 32) * 2^32 */
    const V low = (V)((x & 0xFFFFFFFFu) | 0x4330000000000000u); /* 2^52 + low word */
    return (high - 0x1.00000001p84) + low;
}
FBP_INLINE V unit_f64(VU bits) { return exact_f64(bits >> 11) * C(0x1p-53); }
FBP_INLINE V positive_unit_f64(VU bits) { return (exact_f64(bits >> 11) + C(1)) * C(0x1p-53); }

/* [-1/2, 1/2) from the low 62 bits. */
FBP_INLINE V centred_f64(VU bits) { return exact_f64((bits << 2) >> 11) * C(0x1p-53) - C(0.5); }

#endif

/* ---- planes of results ----
 * results[w][b] is element w of block b.  The passes over whole planes are plain loops, which the compiler vectorises.
 */

typedef T R(results)[PER_BLOCK][BUFFER_BLOCKS];

/* Block order: out[b * PER_BLOCK + w]. */
static void R(interleave)(const T (*restrict from)[BUFFER_BLOCKS], int blocks, T *restrict out) {
    for (int b = 0; b < blocks; b++)
        for (int w = 0; w < PER_BLOCK; w++) out[b * PER_BLOCK + w] = from[w][b];
}

static void R(uniform_buffer)(const random_job *job, const planes *from, int blocks, void *out) {
    const T low = (T)job->a, width = (T)job->b - (T)job->a;
    R(results) result;
    for (int w = 0; w < PER_BLOCK; w++)
        for (int b = 0; b < blocks; b += LANES) R(v_store)(&result[w][b], low + R(unit)(R(bits)(from, w, b)) * width);
    R(interleave)((const T(*)[BUFFER_BLOCKS])result, blocks, out);
}

static void R(exponential_buffer)(const random_job *job, const planes *from, int blocks, void *out) {
    const T rate = (T)job->a;
    R(results) result;
    for (int w = 0; w < PER_BLOCK; w++)
        for (int b = 0; b < blocks; b += LANES) /* 0 - log, so that log 1 gives 0 and not -0 */
            R(v_store)(&result[w][b], (C(0) - R(log_unit)(R(positive_unit)(R(bits)(from, w, b)))) / rate);
    R(interleave)((const T(*)[BUFFER_BLOCKS])result, blocks, out);
}

/* Box and Muller: radius sqrt(-2 log u) from the even bits of a block, angle from the odd ones.  The angle is a quarter
 * turn chosen by the top two bits plus pi/2 times a centred fraction: a whole turn uniformly, the series' argument
 * within pi/4. */
static void R(normal_buffer)(const random_job *job, const planes *from, int blocks, void *out) {
    const T mean = (T)job->a, deviation = (T)job->b;
    R(results) result;
    for (int w = 0; w < PER_BLOCK; w += 2) {
        T *radius = result[w], *other = result[w + 1];
        for (int b = 0; b < blocks; b += LANES)
            R(v_store)(radius + b, C(-2) * R(log_unit)(R(positive_unit)(R(bits)(from, w, b))));
        for (int b = 0; b < blocks; b++) radius[b] = R(square_root)(radius[b]);
        for (int b = 0; b < blocks; b += LANES) {
            const VU bits = R(bits)(from, w + 1, b), quarter = bits >> (8 * sizeof(T) - 2);
            const V x = R(centred)(bits) * C(1.5707963267948966), sine = R(sin_eighth)(x), cosine = R(cos_eighth)(x);
            /* (c, s), (-s, c), (-c, -s), (s, -c) for quarters 0 to 3; a sign is flipped by its bit. */
            const VI swap = (VI)((quarter & 1) == 1);
            const VU flip_first = ((quarter ^ (quarter >> 1)) & 1) << (8 * sizeof(T) - 1);
            const VU flip_second = (quarter >> 1) << (8 * sizeof(T) - 1);
            const V first = (V)((VU)R(v_select)(swap, sine, cosine) ^ flip_first);
            const V second = (V)((VU)R(v_select)(swap, cosine, sine) ^ flip_second);
            const V r = R(v_load)(radius + b);
            R(v_store)(radius + b, mean + deviation * (r * first));
            R(v_store)(other + b, mean + deviation * (r * second));
        }
    }
    R(interleave)((const T(*)[BUFFER_BLOCKS])result, blocks, out);
}

/* ---- the calls ---- */

static int64_t R(uniform)(fbp_random_position at, int64_t n, T low, T high, T *out) {
    return run(&(random_job){.at = at,
                             .n = n,
                             .per_block = PER_BLOCK,
                             .buffer = R(uniform_buffer),
                             .out = (char *)out,
                             .element_size = sizeof(T),
                             .a = low,
                             .b = high,
                             .nanoseconds = 0.6});
}

static int64_t R(normal)(fbp_random_position at, int64_t n, T mean, T deviation, T *out) {
    return run(&(random_job){.at = at,
                             .n = n,
                             .per_block = PER_BLOCK,
                             .buffer = R(normal_buffer),
                             .out = (char *)out,
                             .element_size = sizeof(T),
                             .a = mean,
                             .b = deviation,
                             .nanoseconds = 2});
}

static int64_t R(exponential)(fbp_random_position at, int64_t n, T rate, T *out) {
    return run(&(random_job){.at = at,
                             .n = n,
                             .per_block = PER_BLOCK,
                             .buffer = R(exponential_buffer),
                             .out = (char *)out,
                             .element_size = sizeof(T),
                             .a = rate,
                             .nanoseconds = 1.5});
}

/* y = x * mask * scale for the words of one buffer, in block order. */
static void R(dropout_apply)(const random_job *job, const uint32_t *restrict words, int64_t first, int64_t count) {
    const T *x = (const T *)job->x + first;
    T *y = (T *)job->y + first;
    uint8_t *restrict mask = (uint8_t *)job->out + first;
    const uint32_t limit = job->limit, possible = job->possible;
    const T scale = (T)job->a;
    for (int64_t i = 0; i < count; i++) mask[i] = (words[i] <= limit) & possible;
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * ((words[i] <= limit) & possible ? scale : C(0));
}

static int64_t R(dropout)(fbp_random_position at, int64_t n, double p, const T *x, T *y, uint8_t *mask) {
    random_job job = {.at = at,
                      .n = n,
                      .per_block = 4,
                      .apply = R(dropout_apply),
                      .out = (char *)mask,
                      .element_size = 1,
                      .x = x,
                      .y = y,
                      .a = p < 1 ? 1 / (1 - p) : 0,
                      .nanoseconds = 0.8};
    set_probability(&job, 1 - p);
    return run(&job);
}
