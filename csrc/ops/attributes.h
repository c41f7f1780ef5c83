/* attributes.h -- the typed parameters of ops.  A node stores only the bytes that its op uses. */
#ifndef FBP_OPS_ATTRIBUTES_H
#define FBP_OPS_ATTRIBUTES_H

#include "graph/tensor.h"

typedef struct fbp_no_attribute { char unused; } fbp_no_attribute;

/* P0, P1 of a pointwise row; beta, alpha of addmm. */
typedef struct fbp_scalar_attribute { double p[2]; } fbp_scalar_attribute;

typedef struct fbp_dtype_attribute { int64_t dtype; } fbp_dtype_attribute;

/* Target shape, sizes all known (no -1). */
typedef struct fbp_shape_attribute {
    int64_t ndim;
    int64_t shape[FBP_MAX_NDIM];
} fbp_shape_attribute;

typedef struct fbp_permute_attribute {
    int32_t ndim;
    uint8_t axes[FBP_MAX_NDIM]; /* output axis i is input axis axes[i] */
    int32_t padding;
} fbp_permute_attribute;

/* One entry an axis of the larger tensor (slice's input, embed's output). */
typedef struct fbp_slice_attribute {
    int32_t ndim;
    uint32_t dropped; /* bit i: axis i was indexed by one number and is absent in the smaller tensor */
    struct fbp_slice_axis { int64_t start, step, count, size; } axis[FBP_MAX_NDIM];
} fbp_slice_attribute;

typedef struct fbp_diagonal_attribute {
    int32_t first, second;      /* axes of the larger tensor */
    int64_t offset;             /* above the main diagonal */
    int64_t sizes[2];           /* of those axes */
} fbp_diagonal_attribute;

/* cumsum: flag = reversed; triangle: dim = diagonal offset, flag = upper; argsort: flag = descending. */
typedef struct fbp_dim_attribute { int32_t dim, flag; } fbp_dim_attribute;

typedef struct fbp_reduce_attribute {
    uint32_t dims;   /* bit i: axis i is reduced; arg reductions reduce one axis, or all */
    uint32_t keepdim;
    double p;        /* norm: order; var: correction */
} fbp_reduce_attribute;

/* The first `axes` axes of the larger tensor are one axis of `rows` rows. */
typedef struct fbp_take_attribute {
    int64_t axes, ndim;
    int64_t shape[FBP_MAX_NDIM]; /* of the larger tensor */
} fbp_take_attribute;

/* Of the rows in ops/linalg_ops.c; no field holds an axis, matrices are the last two. */
typedef struct fbp_matrix_attribute {
    int32_t upper;      /* solve_triangular: A's upper triangle is read, else the lower one */
    int32_t unit;       /* solve_triangular: A's diagonal counts as ones */
    int32_t values;     /* eigh, svd: values alone, no vectors */
    int32_t complete;   /* qr: Q is square */
    int32_t lenient;    /* inverse: NaN for a singular matrix, and no error */
    int32_t padding;
    double atol, rtol;  /* pinv: singular values up to max(atol, rtol * largest) count as 0 */
} fbp_matrix_attribute;

typedef struct fbp_loss_attribute {
    int64_t ignore_index;
    double label_smoothing;
    int32_t reduction; /* fbp_reduction of kernels/loss.h */
    int32_t classes;   /* nll_grad alone, whose inputs do not tell */
} fbp_loss_attribute;

typedef struct fbp_source_attribute {
    uint64_t seed, offset;       /* random sources: key and first block of the counter */
    double p[2];                 /* value | start, step | low, high | mean, std | probability */
    int64_t integer[2];          /* exact bounds of integer sources */
    int32_t dtype, ndim;
    int64_t shape[FBP_MAX_NDIM];
} fbp_source_attribute;

/* Their names, without the fbp_..._attribute about them. */
#define FBP_ATTRIBUTE_KINDS(KIND) \
    KIND(no) KIND(scalar) KIND(dtype) KIND(shape) KIND(permute) KIND(slice) KIND(diagonal) KIND(dim) KIND(reduce) KIND(take) \
    KIND(matrix) KIND(loss) KIND(source)

/* Which of these an op has: FBP_ATTRIBUTE_OF_ and the name of the struct. */
#define FBP_KIND_OF(name) FBP_ATTRIBUTE_OF_fbp_##name##_attribute,
typedef enum fbp_attribute_kind { FBP_ATTRIBUTE_KINDS(FBP_KIND_OF) } fbp_attribute_kind;
#undef FBP_KIND_OF

/* Room for the attributes of any op. */
typedef union fbp_any_attribute {
    fbp_scalar_attribute scalar;
    fbp_dtype_attribute dtype;
    fbp_shape_attribute shape;
    fbp_permute_attribute permute;
    fbp_slice_attribute slice;
    fbp_diagonal_attribute diagonal;
    fbp_dim_attribute dim;
    fbp_reduce_attribute reduce;
    fbp_take_attribute take;
    fbp_matrix_attribute matrix;
    fbp_loss_attribute loss;
    fbp_source_attribute source;
} fbp_any_attribute;

/* Bytes to store of a variable-length attribute with n used entries. */
#define FBP_ATTRIBUTE_BYTES(type, array, n) ((int)(offsetof(type, array) + (size_t)(n) * sizeof(((type *)0)->array[0])))

#endif
