/* gemm.h -- the dense matrix product: C[M,N] = alpha A[M,K] B[K,N] + beta C, float32 and float64.
 *
 * One description serves every form.  A and B carry both strides, so a transpose is a swap of strides:
 *
 *     forward   Y[b,o]  = X[b,i]   W[o,i]^T + bias[o]    b_row = 1, b_col = i; bias_row = 0, bias_col = 1
 *     backward  dX[b,i] = dY[b,o]  W[o,i]                plain
 *               dW[o,i] += dY[b,o]^T X[b,i]              a_row = 1, a_col = o; beta = 1
 *
 * Each element of C is summed over K in one order that depends on the shapes and strides alone: threads
 * share out tiles of C, never a sum, so any number of threads gives the same bits.
 */
#ifndef FBP_KERNELS_GEMM_H
#define FBP_KERNELS_GEMM_H

#include <stdint.h>

#include "base/status.h"

/* Called on a block of C that is final (product, beta and bias done) while it is still in the cache: `rows` x `columns`
 * elements from `c` on, rows `c_row` elements apart, whose first element is C[row, column].  The blocks
 * tile C exactly once; their number and shapes are no promise, and several threads may call at a time. */
typedef void (*fbp_gemm_finish)(void *context, void *c, int64_t c_row, int64_t rows, int64_t columns, int64_t row,
                                int64_t column);

typedef struct fbp_gemm {
    int64_t m, n, k;            /* C is m x n, summed over k; any may be 0 */
    const void *a;              /* A[i,p] = a[i * a_row + p * a_col]; strides in elements, any sign */
    int64_t a_row, a_col;
    const void *b;              /* B[p,j] = b[p * b_row + j * b_col] */
    int64_t b_row, b_col;
    void *c;                    /* C[i,j] = c[i * c_row + j]; must not overlap A, B or bias */
    int64_t c_row;              /* >= n; the gap between rows is never touched */
    double alpha, beta;         /* alpha == 0 or k == 0 reads neither A nor B, beta == 0 does not read C */
    const void *bias;           /* NULL, or bias[i * bias_row + j * bias_col] is added to C[i,j]; stride 0 broadcasts */
    int64_t bias_row, bias_col;
    fbp_gemm_finish finish;     /* NULL, or the epilogue on finished blocks of C */
    void *finish_context;       /* handed to finish */
} fbp_gemm;

/* `count` products of one shape; the pointers of `first` advance by these element steps (0: shared). */
typedef struct fbp_gemm_batch {
    fbp_gemm first;
    int64_t count;
    int64_t a_step, b_step, c_step, bias_step; /* the C's must not overlap one another */
} fbp_gemm_batch;

/* Every member returns FBP_OK, or FBP_ERROR_MEMORY where working memory could not be had: C is then partly written. */
typedef struct fbp_gemm_kernels {
    fbp_status (*f32)(const fbp_gemm *product);              /* one product of float32; alpha and beta are rounded to it */
    fbp_status (*f64)(const fbp_gemm *product);              /* the same in float64 */
    fbp_status (*batch_f32)(const fbp_gemm_batch *products); /* threads share the products while these are small */
    fbp_status (*batch_f64)(const fbp_gemm_batch *products); /* the same in float64 */
} fbp_gemm_kernels;

extern const fbp_gemm_kernels fbp_gemm_kernels_scalar, fbp_gemm_kernels_sse2, fbp_gemm_kernels_avx2,
    fbp_gemm_kernels_avx512, fbp_gemm_kernels_neon;

#endif
