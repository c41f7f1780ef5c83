/* real_f32.h -- float32 reading of a text that is written once for both reals.
 * T scalar, V vector of LANES, VI / VU same-width integers (VI is also the type of a comparison),
 * IT / UT their scalars, R(name) the name for this type, C(x) a constant of this type. */
#define T float
#define IT int32_t
#define UT uint32_t
#define V fbp_vf32
#define VI fbp_vi32
#define VU fbp_vu32
#define LANES FBP_F32_LANES
#define R(name) name##_f32
#define C(x) ((float)(x))
#define REAL_IS_F32 1
