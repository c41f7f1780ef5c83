/* update.h -- optimizer steps: parameters and their state, in place, in one pass over memory.
 *
 * The formulas are those of torch.optim.SGD and torch.optim.Adam / AdamW.  Every element is computed by itself, so
 * neither the number of threads nor the grouping of tensors changes a bit.  Arrays of one tensor must not overlap.
 * Tables are indexed by fbp_dtype and filled for float32 and float64, the type of all arrays of a call;
 * hyperparameters are double, combined in double and rounded once.
 */
#ifndef FBP_KERNELS_UPDATE_H
#define FBP_KERNELS_UPDATE_H

#include "base/dtype.h"

/* Per element, with g = grad, or -grad to maximize:
 *     g  = g + weight_decay * param
 *     b  = g on a buffer's first step, else momentum * b + (1 - dampening) * g    (with a buffer alone)
 *     g  = nesterov ? g + momentum * b : b                                        (likewise)
 *     param = param - lr * g */
typedef struct fbp_sgd {
    double lr, momentum, dampening, weight_decay;
    bool nesterov, maximize;
} fbp_sgd;

typedef struct fbp_sgd_tensor {
    int64_t n;              /* elements */
    void *param;
    const void *grad;
    void *momentum_buffer;  /* or NULL: plain descent */
    bool first_step;        /* the buffer holds nothing yet: it becomes a copy of g */
} fbp_sgd_tensor;

/* Per element at step t = 1, 2, ..., with g = grad, or -grad to maximize:
 *     decoupled:   param = param * (1 - lr * weight_decay)    (AdamW)
 *     otherwise:   g = g + weight_decay * param
 *     m = beta1 * m + (1 - beta1) * g
 *     v = beta2 * v + (1 - beta2) * g * g
 *     u = v, or with amsgrad: largest = max(largest, v), u = largest
 *     param = param - lr / (1 - beta1^t) * m / (sqrt(u) / sqrt(1 - beta2^t) + eps) */
typedef struct fbp_adam {
    double lr, beta1, beta2, eps, weight_decay;
    bool decoupled, maximize;
} fbp_adam;

typedef struct fbp_adam_tensor {
    int64_t n;              /* elements */
    void *param;
    const void *grad;
    void *exp_avg;          /* m */
    void *exp_avg_sq;       /* v */
    void *max_exp_avg_sq;   /* amsgrad's largest v, or NULL: no amsgrad */
    int64_t step;           /* t of this step: 1 for the first */
} fbp_adam_tensor;

typedef struct fbp_update_kernels {
    /* One step of every tensor; `tensors` is read only while the call runs. */
    void (*sgd_many[FBP_DTYPE_COUNT])(int64_t count, const fbp_sgd_tensor *tensors, const fbp_sgd *hyper);
    void (*adam_many[FBP_DTYPE_COUNT])(int64_t count, const fbp_adam_tensor *tensors, const fbp_adam *hyper);
} fbp_update_kernels;

#endif
