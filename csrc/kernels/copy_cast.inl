/* copy_cast.inl -- conversion between every pair of dtypes: one element rule per pair, one loop for all of them. */

/* C leaves a float that does not fit an integer undefined.  The value is replaced by the type's minimum first (what the
 * x86 instruction would give), which compiles to a compare and a blend; NaN fails both comparisons. */
FBP_INLINE int32_t i32_of_f64(double x) { return (int32_t)(x > -2147483649.0 && x < 2147483648.0 ? x : -2147483648.0); }
FBP_INLINE int32_t i32_of_f32(float x) { return (int32_t)(x >= -0x1p31f && x < 0x1p31f ? x : -0x1p31f); }
FBP_INLINE int64_t i64_of_f64(double x) { return (int64_t)(x >= -0x1p63 && x < 0x1p63 ? x : -0x1p63); }
FBP_INLINE int64_t i64_of_f32(float x) { return (int64_t)(x >= -0x1p63f && x < 0x1p63f ? x : -0x1p63f); }
FBP_INLINE uint8_t u8_of_f64(double x) { return (uint8_t)i64_of_f64(x); }
/* A float32 of magnitude 2^31 or more is a multiple of 256, so its low byte is 0, as is INT64_MIN's: the
 * int64 detour, which SSE2 and AVX2 cannot vectorise, is not needed. */
FBP_INLINE uint8_t u8_of_f32(float x) { return (uint8_t)(int32_t)(x > -0x1p31f && x < 0x1p31f ? x : 0.0f); }

#define CAST_LOOP(name, from_type, to_type, expression)                         \
    static void name(int64_t n, void *restrict dst, const void *restrict src) { \
        to_type *restrict d = dst;                                              \
        const from_type *restrict s = src;                                      \
        for (int64_t i = 0; i < n; i++) {                                       \
            const from_type x = s[i];                                           \
            d[i] = (to_type)(expression);                                       \
        }                                                                       \
    }

/* Integer sources: C's own conversions, which wrap. */
#define CAST_FROM_INTEGER(from, from_type)                       \
    CAST_LOOP(cast_##from##_to_bool, from_type, uint8_t, x != 0) \
    CAST_LOOP(cast_##from##_to_u8, from_type, uint8_t, x)        \
    CAST_LOOP(cast_##from##_to_i32, from_type, int32_t, x)       \
    CAST_LOOP(cast_##from##_to_i64, from_type, int64_t, x)       \
    CAST_LOOP(cast_##from##_to_f32, from_type, float, x)         \
    CAST_LOOP(cast_##from##_to_f64, from_type, double, x)

#define CAST_FROM_REAL(from, from_type)                                   \
    CAST_LOOP(cast_##from##_to_bool, from_type, uint8_t, x != 0)          \
    CAST_LOOP(cast_##from##_to_u8, from_type, uint8_t, u8_of_##from(x))   \
    CAST_LOOP(cast_##from##_to_i32, from_type, int32_t, i32_of_##from(x)) \
    CAST_LOOP(cast_##from##_to_i64, from_type, int64_t, i64_of_##from(x)) \
    CAST_LOOP(cast_##from##_to_f32, from_type, float, x)                  \
    CAST_LOOP(cast_##from##_to_f64, from_type, double, x)

CAST_FROM_INTEGER(u8, uint8_t) /* bool reads the same way: its byte is 0 or 1 */
CAST_FROM_INTEGER(i32, int32_t)
CAST_FROM_INTEGER(i64, int64_t)
CAST_FROM_REAL(f32, float)
CAST_FROM_REAL(f64, double)

typedef void (*cast_fn)(int64_t n, void *restrict dst, const void *restrict src);

#define CAST_ROW(from)                                                  \
    {cast_##from##_to_bool, cast_##from##_to_u8,  cast_##from##_to_i32, \
     cast_##from##_to_i64,  cast_##from##_to_f32, cast_##from##_to_f64}

/* [from][to], in the order of fbp_dtype. */
static const cast_fn cast_table[FBP_DTYPE_COUNT][FBP_DTYPE_COUNT] = {
    CAST_ROW(u8), CAST_ROW(u8), CAST_ROW(i32), CAST_ROW(i64), CAST_ROW(f32), CAST_ROW(f64),
};
