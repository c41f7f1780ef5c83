/* update.c -- the table of optimizer steps for one instruction set; the text stands in update.inl. */
#include "kernels/update.h"

#include <math.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/isa.h"
#include "kernels/split.h"

enum { UPDATE_CHUNK = 4096 };            /* elements that one thread takes at least */
#define UPDATE_NANOSECONDS_PER_BYTE 0.08 /* of a parameter, its gradient and state included */

#include "kernels/real_f32.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/update.inl"
#include "kernels/real_end.h"

#include "kernels/real_f64.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/update.inl"
#include "kernels/real_end.h"

#define FOR_REALS(name) {[FBP_FLOAT32] = name##_f32, [FBP_FLOAT64] = name##_f64}

const fbp_update_kernels FBP_ISA_SYMBOL(fbp_update_kernels) = {
    .sgd_many = FOR_REALS(sgd_many),
    .adam_many = FOR_REALS(adam_many),
};
