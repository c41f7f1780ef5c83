/* loss.h -- cross entropy of logits and negative log-likelihood with class indices, and their derivatives.
 *
 * Inputs are [outer][classes][inner], contiguous: inner == 1 for [N][C], inner == D for [N][C][D].  A position is a pair
 * (outer, inner); targets and unreduced losses are [outer][inner].  With p = softmax of a position's logits, target t,
 * class weights w (1 where none are given) and smoothing s, a position's loss is PyTorch's
 *
 *     (1 - s) * w[t] * -log p[t]  +  s / classes * sum over c of w[c] * -log p[c]
 *
 * and 0 where t == ignore_index.  "mean" divides the sum by the total of w[t] over positions not ignored (nothing left:
 * NaN).  Sums over positions run in double over batches fixed by the shape; results do not depend on the thread count.
 * Tables are indexed by fbp_dtype, filled for float32 and float64, which is the type T of all void pointers here.
 */
#ifndef FBP_KERNELS_LOSS_H
#define FBP_KERNELS_LOSS_H

#include "base/dtype.h"

typedef enum fbp_reduction { FBP_REDUCTION_NONE, FBP_REDUCTION_MEAN, FBP_REDUCTION_SUM } fbp_reduction;

/* What forward and backward of one loss share. */
typedef struct fbp_class_loss {
    int64_t outer, classes, inner;
    const int64_t *target;    /* [outer][inner] */
    const void *weight;       /* T[classes], or NULL */
    int64_t ignore_index;     /* target of positions that do not count; -100 by PyTorch's default */
    double label_smoothing;   /* 0 .. 1; cross entropy alone, nll does not read it */
    fbp_reduction reduction;
} fbp_class_loss;

typedef struct fbp_loss_kernels {
    /* Write loss (T[outer][inner] for none, else one T), total_weight (one T) and, unless NULL, softmax (shaped as the
     * logits), which backward needs; softmax may be the logits' memory.  Returns -1; or, before anything is written, the
     * flat position of the first target that is neither a class nor ignore_index. */
    int64_t (*cross_entropy[FBP_DTYPE_COUNT])(void *loss, void *total_weight, void *softmax, const void *logits,
                                              const fbp_class_loss *arguments);
    /* Write dlogits from what forward wrote and dloss, the loss's cotangent (shaped as the loss).  dlogits may be
     * softmax's memory.  Ignored positions get zeros whatever their logits were. */
    void (*cross_entropy_backward[FBP_DTYPE_COUNT])(void *dlogits, const void *dloss, const void *total_weight,
                                                    const void *softmax, const fbp_class_loss *arguments);
    /* Both at once, for a cotangent known before: write loss and dlogits, which may be the logits' memory, to the same
     * bits as the two calls above.  Returns as cross_entropy does. */
    int64_t (*cross_entropy_both[FBP_DTYPE_COUNT])(void *loss, void *dlogits, const void *dloss, const void *logits,
                                                   const fbp_class_loss *arguments);
    /* cross_entropy on log-probabilities: loss w[t] * -x[t].  Returns as it does. */
    int64_t (*nll[FBP_DTYPE_COUNT])(void *loss, void *total_weight, const void *log_probabilities,
                                    const fbp_class_loss *arguments);
    /* Write dx: zero but at the targets. */
    void (*nll_backward[FBP_DTYPE_COUNT])(void *dx, const void *dloss, const void *total_weight,
                                          const fbp_class_loss *arguments);
} fbp_loss_kernels;

#endif
