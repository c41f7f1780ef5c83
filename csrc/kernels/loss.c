/* loss.c -- the table of losses with class targets for one instruction set; the text stands in loss.inl. */
#include "kernels/loss.h"

#include <math.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/isa.h"
#include "kernels/split.h"

enum {
    LOSS_BATCH = 64,   /* positions whose losses are found together; a multiple of every set's lanes */
    LOSS_GROUPS = 128, /* most groups of batches, each with sums of its own */
    LOSS_FEW = 32,     /* most classes of rows that are turned into lanes; a multiple of every set's lanes */
};
#define LOSS_NANOSECONDS 1.0     /* a logit */
#define LOSS_FEW_NANOSECONDS 0.4 /* one of few classes */

/* Flat position of the first target that is neither a class nor to be ignored, or -1; then *counted is how many of the
 * targets are not to be ignored. */
static __attribute__((noinline)) int64_t loss_bad_target(const fbp_class_loss *a, int64_t *counted) {
    const int64_t positions = a->outer * a->inner, ignore_index = a->ignore_index;
    const int64_t *target = a->target;
    const uint64_t classes = (uint64_t)a->classes;
    int64_t count = 0, bad = 0;
    for (int64_t i = 0; i < positions; i++) { /* without an exit, so that it runs in vectors */
        count += target[i] != ignore_index;
        bad += (target[i] != ignore_index) & ((uint64_t)target[i] >= classes);
    }
    *counted = count;
    for (int64_t i = 0; bad != 0; i++)
        if ((uint64_t)target[i] >= classes && target[i] != ignore_index) return i;
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
    .cross_entropy_both = FOR_REALS(cross_entropy_both),
    .nll = FOR_REALS(nll),
    .nll_backward = FOR_REALS(nll_backward),
};
