/* reduce.c -- the table of reductions for one instruction set; the texts stand in reduce_*.inl. */
#include "kernels/reduce.h"

#include <math.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/isa.h"
#include "kernels/split.h"

/* Folds of floats (reduce_fold.inl). */
enum {
    FOLD_SUM,
    FOLD_SQUARES,
    FOLD_ABS,
    FOLD_POWER,
    FOLD_DEVIATION, /* sum of squared differences from a given centre */
    FOLD_PRODUCT,
    FOLD_MAX,
    FOLD_MIN,
    FOLD_MAX_ABS,
    FOLD_MIN_ABS,
};
enum {
    FOLD_LEAF = 32,         /* joins in a row before a running total takes over */
    FOLD_CHUNK = 16384,     /* elements of a row */
    FOLD_CHUNK_ROWS = 1024, /* rows of a block of columns */
    FOLD_SEGMENTS = 64,     /* most parts of one row or column that threads may share */
    FOLD_STACK = 48,        /* binary digits of the number of chunks in a segment */
    FOLD_WIDTH = 8,         /* vectors in a block of columns */
    ARG_ROWS = 64,          /* rows whose extremes are found before their places are */
};
#define FOLD_NANOSECONDS_PER_BYTE 0.03 /* one core, from its second cache */

#include "kernels/real_f32.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/reduce_fold.inl"
#include "kernels/reduce_arg.inl"
#include "kernels/reduce_real.inl"
#include "kernels/real_end.h"

#include "kernels/real_f64.h"
#include "kernels/vector.inl"
#include "kernels/math.inl"
#include "kernels/lanes.inl"
#include "kernels/reduce_fold.inl"
#include "kernels/reduce_arg.inl"
#include "kernels/reduce_real.inl"
#include "kernels/real_end.h"

/* Order-free reductions (reduce_exact.inl). */
enum { EXACT_SUM, EXACT_PRODUCT, EXACT_MAX, EXACT_MIN, EXACT_COUNT, EXACT_ANY, EXACT_ALL };
enum { EXACT_PIECE = 1024, EXACT_COLUMNS = 64 };
#define EXACT_NANOSECONDS 0.2 /* an element */

#define ELEMENT uint8_t /* bool too: its bytes are 0 and 1 */
#define E(name) name##_u8
#define ELEMENT_IS_INTEGER 1
#define ELEMENT_MIN 0
#define ELEMENT_MAX UINT8_MAX
#include "kernels/reduce_exact.inl"

#define ELEMENT int32_t
#define E(name) name##_i32
#define ELEMENT_IS_INTEGER 1
#define ELEMENT_MIN INT32_MIN
#define ELEMENT_MAX INT32_MAX
#include "kernels/reduce_exact.inl"

#define ELEMENT int64_t
#define E(name) name##_i64
#define ELEMENT_IS_INTEGER 1
#define ELEMENT_MIN INT64_MIN
#define ELEMENT_MAX INT64_MAX
#include "kernels/reduce_exact.inl"

#define ELEMENT float
#define E(name) name##_f32
#define ELEMENT_IS_INTEGER 0
#include "kernels/reduce_exact.inl"

#define ELEMENT double
#define E(name) name##_f64
#define ELEMENT_IS_INTEGER 0
#include "kernels/reduce_exact.inl"

/* Running sums and products (reduce_cumulate.inl). */
enum { CUMULATE_COLUMNS = 64 };

#define ELEMENT float
#define WIDER double
#define E(name) name##_f32
#include "kernels/reduce_cumulate.inl"

#define ELEMENT double
#define WIDER double
#define E(name) name##_f64
#include "kernels/reduce_cumulate.inl"

#define ELEMENT int64_t
#define WIDER uint64_t
#define E(name) name##_i64
#include "kernels/reduce_cumulate.inl"

#define FOR_REALS(name) {[FBP_FLOAT32] = name##_f32, [FBP_FLOAT64] = name##_f64}
#define FOR_SIGNED_64(name) {[FBP_INT64] = name##_i64, [FBP_FLOAT32] = name##_f32, [FBP_FLOAT64] = name##_f64}
#define FOR_ALL(name)                                                                                          \
    {[FBP_BOOL] = name##_u8, [FBP_UINT8] = name##_u8, [FBP_INT32] = name##_i32, [FBP_INT64] = name##_i64,    \
     [FBP_FLOAT32] = name##_f32, [FBP_FLOAT64] = name##_f64}

const fbp_reduce_kernels FBP_ISA_SYMBOL(fbp_reduce_kernels) = {
    .sum = FOR_ALL(sum),
    .product = FOR_ALL(product),
    .mean = FOR_REALS(mean),
    .max = FOR_ALL(max),
    .min = FOR_ALL(min),
    .any = FOR_ALL(any),
    .all = FOR_ALL(all),
    .count_nonzero = FOR_ALL(count_nonzero),
    .sum_squares = FOR_REALS(sum_squares),
    .sum_abs = FOR_REALS(sum_abs),
    .max_abs = FOR_REALS(max_abs),
    .min_abs = FOR_REALS(min_abs),
    .sum_power = FOR_REALS(sum_power),
    .arg_max = FOR_ALL(arg_max),
    .arg_min = FOR_ALL(arg_min),
    .variance = FOR_REALS(variance),
    .cumulative_sum = FOR_SIGNED_64(cumulative_sum),
    .cumulative_product = FOR_SIGNED_64(cumulative_product),
};
