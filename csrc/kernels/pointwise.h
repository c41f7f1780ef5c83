/* pointwise.h -- elementwise kernels over contiguous arrays, one per row of the op table. */
#ifndef FBP_KERNELS_POINTWISE_H
#define FBP_KERNELS_POINTWISE_H

#include "ops/op.h"

/* y[i] = op(a[i], b[i]); b is ignored by ops of one input.  p holds the row's parameters P0, P1 and is never NULL.
 * y may be a or b itself, never overlap otherwise. */
typedef void (*fbp_forward_fn)(int64_t n, void *y, const void *a, const void *b, const double *p);
/* gx[i] = what cotangent g[i] contributes to one input; pointers that the rule does not need may be NULL. gx may be g. */
typedef void (*fbp_pull_fn)(int64_t n, void *gx, const void *g, const void *a, const void *b, const void *y, const double *p);

/* Floating kernels; entries of other rows are NULL.  Last index 0: float32, 1: float64. */
typedef struct fbp_pointwise_kernels {
    fbp_forward_fn forward[FBP_OP_COUNT][2];
    fbp_pull_fn pull[FBP_OP_COUNT][2 /* input */][2];
} fbp_pointwise_kernels;

/* Kernels of the other types, and predicates of every type (their y is one byte, 0 or 1). */
typedef struct fbp_integer_kernels {
    fbp_forward_fn forward[FBP_OP_COUNT][FBP_DTYPE_COUNT];
    /* y[i] = condition[i] ? a[i] : b[i] for elements of 1, 4, 8 bytes (index 0, 1, 2). */
    void (*where[3])(int64_t n, void *y, const uint8_t *condition, const void *a, const void *b);
} fbp_integer_kernels;

#endif
