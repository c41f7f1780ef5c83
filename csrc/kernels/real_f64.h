/* real_f64.h -- float64 reading of a text that is written once for both reals; see real_f32.h. */
#define T double
#define IT int64_t
#define UT uint64_t
#define V fbp_vf64
#define VI fbp_vi64
#define VU fbp_vu64
#define LANES FBP_F64_LANES
#define R(name) name##_f64
#define C(x) ((double)(x))
#define REAL_IS_F32 0
