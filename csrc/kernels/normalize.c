/* normalize.c -- the table of softmax and its kin for one instruction set; the texts stand in normalize*.inl. */
#include "kernels/normalize.h"

#include <math.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/isa.h"
#include "kernels/split.h"

enum { SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX_BACKWARD, LOG_SOFTMAX_BACKWARD, LOGSUMEXP_BACKWARD };
#define NORMALIZE_NANOSECONDS 0.7 /* an element */

#include "kernels/real_f32.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/normalize_parts.inl"
#include "kernels/normalize.inl"
#include "kernels/real_end.h"

#include "kernels/real_f64.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/normalize_parts.inl"
#include "kernels/normalize.inl"
#include "kernels/real_end.h"

#define FOR_REALS(name) {[FBP_FLOAT32] = name##_f32, [FBP_FLOAT64] = name##_f64}

const fbp_normalize_kernels FBP_ISA_SYMBOL(fbp_normalize_kernels) = {
    .softmax = FOR_REALS(softmax),
    .log_softmax = FOR_REALS(log_softmax),
    .logsumexp = FOR_REALS(logsumexp),
    .softmax_backward = FOR_REALS(softmax_backward),
    .log_softmax_backward = FOR_REALS(log_softmax_backward),
    .logsumexp_backward = FOR_REALS(logsumexp_backward),
};
