/* reduce.h -- sums, products, extremes, moments and running sums along one axis.
 *
 * Every reduction of a contiguous array is brought to one form by its caller:
 *
 *     x[outer][n][inner]  ->  y[outer][inner]
 *
 * inner == 1 reduces rows, outer == 1 columns; any other axis is the middle one.  Extents may be 0: with n == 0 each
 * result is the reduction's identity (sum 0, product 1, any false, all true); extremes of nothing must have been
 * rejected above.  Outputs must not overlap inputs, unless a member says so.
 *
 * Floats are summed (and multiplied) in a tree whose shape follows from n and inner alone: at most 32 additions in a row
 * within a leaf, a bounded number within a chunk, a binary tree above; the error grows with log n, and no result
 * depends on the number of threads.
 *
 * Tables are indexed by fbp_dtype; a NULL stands where an op has no meaning for a type.
 */
#ifndef FBP_KERNELS_REDUCE_H
#define FBP_KERNELS_REDUCE_H

#include "base/dtype.h"

/* y and x by the table's dtype and the member's contract; y is written whole. */
typedef void (*fbp_reduce_fn)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner);

typedef struct fbp_reduce_kernels {
    /* Same type for floats; bool and integers -> int64, exact modulo 2**64. */
    fbp_reduce_fn sum[FBP_DTYPE_COUNT];
    fbp_reduce_fn product[FBP_DTYPE_COUNT];
    /* Floats alone, same type: sum / n; NaN where n == 0. */
    fbp_reduce_fn mean[FBP_DTYPE_COUNT];
    /* Same type; NaN when there is one. */
    fbp_reduce_fn max[FBP_DTYPE_COUNT];
    fbp_reduce_fn min[FBP_DTYPE_COUNT];
    /* -> bool; NaN counts as true. */
    fbp_reduce_fn any[FBP_DTYPE_COUNT];
    fbp_reduce_fn all[FBP_DTYPE_COUNT];
    /* -> int64; NaN is not zero. */
    fbp_reduce_fn count_nonzero[FBP_DTYPE_COUNT];

    /* Floats alone, same type: sum of x*x, sum of |x|, largest |x|, smallest |x|. */
    fbp_reduce_fn sum_squares[FBP_DTYPE_COUNT];
    fbp_reduce_fn sum_abs[FBP_DTYPE_COUNT];
    fbp_reduce_fn max_abs[FBP_DTYPE_COUNT];
    fbp_reduce_fn min_abs[FBP_DTYPE_COUNT];
    /* Floats alone: sum of |x|**power, for any power. */
    void (*sum_power[FBP_DTYPE_COUNT])(void *y, const void *x, int64_t outer, int64_t n, int64_t inner, double power);

    /* Where the extreme stands along the middle axis: the first such place; the first NaN where there is one.
     * `values` (the extremes, of x's type) may be NULL.  n > 0. */
    void (*arg_max[FBP_DTYPE_COUNT])(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n,
                                     int64_t inner);
    void (*arg_min[FBP_DTYPE_COUNT])(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n,
                                     int64_t inner);

    /* Floats alone, in two passes: mean, then sum of squared deviations from it / max(n - correction, 0).
     * Nothing to average gives NaN, as 0/0 does; n <= correction gives NaN or infinity. */
    void (*variance[FBP_DTYPE_COUNT])(void *variance, void *mean, const void *x, int64_t outer, int64_t n,
                                      int64_t inner, double correction);

    /* Running sum / product along the middle axis, y of x's shape (y == x is allowed); reverse: from the end.
     * float32, float64 and int64 (modulo 2**64); float32 is accumulated in float64. */
    void (*cumulative_sum[FBP_DTYPE_COUNT])(void *y, const void *x, int64_t outer, int64_t n, int64_t inner,
                                            bool reverse);
    void (*cumulative_product[FBP_DTYPE_COUNT])(void *y, const void *x, int64_t outer, int64_t n, int64_t inner,
                                                bool reverse);
} fbp_reduce_kernels;

#endif
