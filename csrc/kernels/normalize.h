/* normalize.h -- softmax, log-softmax and log-sum-exp along one axis, and their derivatives.
 *
 * All see their arrays as [outer][n][inner], contiguous, and work along the middle axis; inner == 1 is the row form.
 * y may be the same memory as x (dx as g or y); any other overlap is not allowed.  Tables are indexed by fbp_dtype,
 * filled for float32 and float64.  The axis' maximum is subtracted before any exponential, so nothing overflows
 * for finite x; NaN makes its whole row NaN.
 */
#ifndef FBP_KERNELS_NORMALIZE_H
#define FBP_KERNELS_NORMALIZE_H

#include "base/dtype.h"

typedef struct fbp_normalize_kernels {
    /* y = exp(x) / sum exp(x).  A row whose maximum is infinite (either sign) becomes NaN, as in PyTorch. */
    void (*softmax[FBP_DTYPE_COUNT])(void *y, const void *x, int64_t outer, int64_t n, int64_t inner);
    /* y = x - log sum exp(x). */
    void (*log_softmax[FBP_DTYPE_COUNT])(void *y, const void *x, int64_t outer, int64_t n, int64_t inner);
    /* y[outer][inner] = log sum exp(x); -inf where n == 0 or all x are -inf, inf where one is. */
    void (*logsumexp[FBP_DTYPE_COUNT])(void *y, const void *x, int64_t outer, int64_t n, int64_t inner);
    /* From y = softmax(x) and its cotangent g:  dx = y * (g - sum g*y). */
    void (*softmax_backward[FBP_DTYPE_COUNT])(void *dx, const void *g, const void *y, int64_t outer, int64_t n,
                                              int64_t inner);
    /* From y = log_softmax(x) and its cotangent g:  dx = g - exp(y) * sum g. */
    void (*log_softmax_backward[FBP_DTYPE_COUNT])(void *dx, const void *g, const void *y, int64_t outer, int64_t n,
                                                  int64_t inner);
    /* From x, y = logsumexp(x) and its cotangent g, both [outer][inner]:  dx = g * exp(x - y). */
    void (*logsumexp_backward[FBP_DTYPE_COUNT])(void *dx, const void *g, const void *y, const void *x, int64_t outer,
                                                int64_t n, int64_t inner);
} fbp_normalize_kernels;

#endif
