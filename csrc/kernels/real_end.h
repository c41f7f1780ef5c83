/* real_end.h -- ends the reading begun by real_f32.h or real_f64.h. */
#undef T
#undef IT
#undef UT
#undef V
#undef VI
#undef VU
#undef LANES
#undef R
#undef C
#undef REAL_IS_F32
