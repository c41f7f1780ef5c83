/* loss.c -- the table of losses with class targets for one instruction set; the text stands in loss.inl. */
#include "kernels/loss.h"

#include <math.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/isa.h"
#include "kernels/split.h"

enum {
    LOSS_BATCH = 64,   /* positions whose losses are found together */
    LOSS_GROUPS = 128, /* most groups of batches, each with sums of its own */
};
#define LOSS_NANOSECONDS 1.0 /* a logit */

/* Flat position of the first target that is neither a class nor to be ignored, or -1. */
static int64_t loss_bad_target(const fbp_class_loss *a) {
    const int64_t positions = a->outer * a->inner;
    for (int64_t i = 0; i < positions; i++)
        if ((uint64_t)a->target[i] >= (uint64_t)a->classes && a->target[i] != a->ignore_index) return i;
    return -1;
}

#include "kernels/real_f32.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/normalize_parts.inl"
#include "kernels/loss.inl"
#include "kernels/real_end.h"

#include "kernels/real_f64.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/normalize_parts.inl"
#include "kernels/loss.inl"
#include "kernels/real_end.h"

#define FOR_REALS(name) {[FBP_FLOAT32] = name##_f32, [FBP_FLOAT64] = name##_f64}

const fbp_loss_kernels FBP_ISA_SYMBOL(fbp_loss_kernels) = {
    .cross_entropy = FOR_REALS(cross_entropy),
    .cross_entropy_backward = FOR_REALS(cross_entropy_backward),
    .nll = FOR_REALS(nll),
    .nll_backward = FOR_REALS(nll_backward),
};
