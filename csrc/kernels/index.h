/* index.h -- gather, scatter, rows by number, masks, small constructors and sorting.
 *
 * Indices are int64, contiguous, validated and made non-negative by check_indices + normalise_indices (or
 * linear_offsets, which does both): no other member looks at their range.
 * Strides are in ELEMENTS.  Moves go by element size (1, 4 or 8 bytes), additions by dtype; integers wrap, bool adds as
 * "or".  Where several indices name one place, they take effect in the order of the index tensor along the indexed
 * dimension, whatever the number of threads: additions have one fixed order, of assignments the last wins.
 * dst and src never overlap.
 */
#ifndef FBP_KERNELS_INDEX_H
#define FBP_KERNELS_INDEX_H

#include "base/dtype.h"
#include "base/status.h"

enum { FBP_INDEX_MAX_DIMS = 16 };

/* How torch.gather and torch.scatter lay an index tensor over a data tensor.  The index tensor is contiguous with
 * `shape`; element `at` of it belongs to data element (at[0], .., index[at] in place of at[dim], .., at[ndim-1]).
 * shape[d] may be smaller than the data's extent for d != dim, and anything for d == dim; the data's extents are not
 * needed. */
typedef struct fbp_index_frame {
    int ndim; /* >= 1, <= FBP_INDEX_MAX_DIMS; a 0-d tensor is passed as 1-d of size 1 */
    int dim;
    const int64_t *shape;        /* of the index tensor */
    const int64_t *data_strides; /* of the data tensor: gather's source, scatter's destination */
} fbp_index_frame;

typedef struct fbp_index_kernels {
    /* ---- indices ---- */

    /* Position of the first of n indices outside [-extent, extent), -1 when there is none. */
    int64_t (*check_indices)(int64_t n, const int64_t *index, int64_t extent);

    /* out[i] = index[i], plus extent where negative.  out may be index. */
    void (*normalise_indices)(int64_t n, int64_t *out, const int64_t *index, int64_t extent);

    /* out[i] = sum over a of index[a][i] * strides[a], negative indices counted from extents[a]: the element
     * offsets that `k` index arrays of n elements each (already broadcast to one shape) name.  Returns -1, or the first
     * bad position with its array in *bad_array (then `out` is undefined).  k == 0 gives zeros. */
    int64_t (*linear_offsets)(int k, const int64_t *const *index, const int64_t *extents, const int64_t *strides,
                              int64_t n, int64_t *out, int *bad_array);

    /* ---- torch.gather and its relatives ---- */

    /* dst (contiguous, the frame's shape) = the data elements that the index names. */
    void (*gather)(int element_size, const fbp_index_frame *frame, const int64_t *index, void *dst, const void *data);

    /* The data elements that the index names = src, of which the leading frame->shape part is read by src_strides (0
     * for a single value). */
    void (*scatter)(int element_size, const fbp_index_frame *frame, const int64_t *index, void *data, const void *src,
                    const int64_t *src_strides);

    /* The same, adding: the adjoint of gather. */
    void (*scatter_add)(fbp_dtype dtype, const fbp_index_frame *frame, const int64_t *index, void *data,
                        const void *src, const int64_t *src_strides);

    /* ---- slices along one dimension, contiguous tensors as [outer][extent][inner] ---- */

    /* dst[o][j][:] = src[o][index[j]][:], dst is [outer][n][inner]. */
    void (*index_select)(int element_size, int64_t outer, int64_t extent, int64_t inner, int64_t n,
                         const int64_t *index, void *dst, const void *src);

    /* dst[o][index[j]][:] += src[o][j][:], dst is [outer][extent][inner]: the adjoint of index_select, and of
     * embedding. */
    void (*index_add)(fbp_dtype dtype, int64_t outer, int64_t extent, int64_t inner, int64_t n, const int64_t *index,
                      void *dst, const void *src);

    /* ---- rows by element offset (advanced indexing) ---- */

    /* A row is row_elements contiguous elements; any two rows that offsets name are the same or disjoint. */

    /* dst[i][:] = src[offsets[i] ..], dst is [n][row_elements]. */
    void (*take_rows)(int element_size, int64_t n, const int64_t *offsets, int64_t row_elements, void *dst,
                      const void *src);

    /* dst[offsets[i] ..] = src[i][:], rows of src src_row_stride elements apart (0 repeats one row); offsets lie in
     * [0, dst_elements). */
    void (*put_rows)(int element_size, int64_t n, const int64_t *offsets, int64_t row_elements, void *dst,
                     int64_t dst_elements, const void *src, int64_t src_row_stride);

    /* dst[offsets[i] ..] += src[i][:], otherwise as put_rows. */
    void (*add_rows)(fbp_dtype dtype, int64_t n, const int64_t *offsets, int64_t row_elements, void *dst,
                     int64_t dst_elements, const void *src, int64_t src_row_stride);

    /* ---- masks: bool, one byte, 0 or 1 ---- */

    /* How many of n are true. */
    int64_t (*count_true)(int64_t n, const uint8_t *mask);

    /* Positions of the true elements, rising, to out[count_true]. */
    void (*true_positions)(int64_t n, const uint8_t *mask, int64_t *out);

    /* The multi-indices of the true elements of a contiguous mask, to out[count_true][ndim]. */
    void (*nonzero)(int ndim, const int64_t *shape, const uint8_t *mask, int64_t *out);

    /* dst = the elements of src (contiguous) where the mask is true; returns how many. */
    int64_t (*masked_select)(int element_size, int64_t n, const uint8_t *mask, void *dst, const void *src);

    /* dst[i] = the next element of src where the mask is true, other elements stay; returns how many were taken.  The
     * adjoint of masked_select, over zeros. */
    int64_t (*masked_scatter)(int element_size, int64_t n, const uint8_t *mask, void *dst, const void *src);

    /* ---- constructors ---- */

    /* out[i][c] = (c == index[i]), out is [n][classes]. */
    void (*one_hot)(int64_t n, const int64_t *index, int64_t classes, int64_t *out);

    /* out[i] = start + i * step; float32 is computed in double and rounded once, integers wrap. */
    void (*arange_f32)(int64_t n, double start, double step, float *out);
    void (*arange_f64)(int64_t n, double start, double step, double *out);
    void (*arange_i64)(int64_t n, int64_t start, int64_t step, int64_t *out);

    /* n points from start to end, both included, the second half counted back from the end.  n == 1 gives start. */
    void (*linspace_f32)(int64_t n, double start, double end, float *out);
    void (*linspace_f64)(int64_t n, double start, double end, double *out);

    /* rows x cols, ones on the main diagonal, zeros elsewhere. */
    void (*eye)(fbp_dtype dtype, int64_t rows, int64_t cols, void *out);

    /* torch.tril (upper false) or torch.triu of `batch` contiguous rows x cols matrices: elements with
     * col - row <= diagonal (>= for upper) are copied, the others zero. */
    void (*triangle)(int element_size, bool upper, int64_t batch, int64_t rows, int64_t cols, int64_t diagonal,
                     void *dst, const void *src);

    /* ---- order, along the last of two dimensions; NaN is the largest value, as in PyTorch ---- */

    /* Each of `rows` rows of n sorted, equal elements in their first order.  `values` [rows][n] and `indices` [rows][n]
     * may each be NULL.  FBP_ERROR_MEMORY when working memory runs out (the outputs are then undefined). */
    fbp_status (*sort)(fbp_dtype dtype, int64_t rows, int64_t n, bool descending, const void *src, void *values,
                       int64_t *indices);

    /* The k <= n largest (or smallest) of each row, best first, of equals the first; outputs [rows][k], errors as
     * sort's. */
    fbp_status (*topk)(fbp_dtype dtype, int64_t rows, int64_t n, int64_t k, bool largest, const void *src, void *values,
                       int64_t *indices);
} fbp_index_kernels;

#endif
