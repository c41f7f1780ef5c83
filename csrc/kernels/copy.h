/* copy.h -- moving elements without computing: strided copies, casts, fills.
 *
 * What it is: every "same values, other layout or other dtype" step of the library; reshape, transpose,
 * cat, split, expand, contiguous(), pad's interior and the pointwise driver's staging all end here.
 * What it is not: it checks nothing.  Shapes, bounds and overlap were settled above.
 *
 * Strides here are in BYTES (the only family for which this holds), so that one text serves every dtype of a size
 * and views into foreign memory need no common element grid.  Element sizes are 1, 4 and 8.
 */
#ifndef FBP_KERNELS_COPY_H
#define FBP_KERNELS_COPY_H

#include "base/dtype.h"

enum { FBP_COPY_MAX_DIMS = 16 };

typedef struct fbp_copy_kernels {
    /* dst[i] = src[i] for every multi-index i of `shape`.  Strides are bytes, one per dimension, of any sign; a source
     * stride of 0 broadcasts; no two multi-indices may name the same destination element.  ndim <= FBP_COPY_MAX_DIMS,
     * ndim 0 copies one element, a size of 0 copies nothing.  dst and src must not overlap.
     * The layout is simplified first (unit dimensions dropped, the rest ordered by destination stride and
     * merged), then runs as one of: memcpy, rows of memcpy, row fills, blocked transposes, single elements. */
    void (*strided)(int ndim, const int64_t *shape, int element_size, void *dst, const int64_t *dst_strides,
                    const void *src, const int64_t *src_strides);

    /* dst[i] = (to)src[i], both contiguous, not overlapping.
     * float -> int truncates toward zero; NaN and what does not fit give INT32_MIN / INT64_MIN;
     * float -> uint8 is float -> int64 -> uint8; int -> narrower int wraps; anything -> bool is x != 0 (NaN is true).
     */
    void (*cast)(fbp_dtype from, fbp_dtype to, int64_t n, void *dst, const void *src);

    /* dst[i] (contiguous) = element at src + i * stride_bytes; any sign, 0 repeats.  Never threaded: made for the
     * blocks of some hundred elements in which a pointwise chain is run. */
    void (*gather_block)(int64_t n, int element_size, void *dst, const void *src, int64_t stride_bytes);

    /* Element at dst + i * stride_bytes = src[i] (contiguous); stride not 0.  Never threaded. */
    void (*scatter_block)(int64_t n, int element_size, void *dst, int64_t stride_bytes, const void *src);

    /* dst[i] = *value, contiguous.  Strided fills are `strided` with source strides of 0. */
    void (*fill)(int64_t n, int element_size, void *dst, const void *value);
} fbp_copy_kernels;

#endif
