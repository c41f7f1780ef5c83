/* dtype.h -- element types, in promotion order: the larger of two wins. */
#ifndef FBP_BASE_DTYPE_H
#define FBP_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum fbp_dtype {
    FBP_BOOL = 0, /* one byte, 0 or 1 */
    FBP_UINT8,
    FBP_INT32,
    FBP_INT64,
    FBP_FLOAT32,
    FBP_FLOAT64,
    FBP_DTYPE_COUNT
} fbp_dtype;

static inline int fbp_dtype_size(fbp_dtype dtype) {
    static const uint8_t size[FBP_DTYPE_COUNT] = {1, 1, 4, 8, 4, 8};
    return size[dtype];
}

static inline bool fbp_dtype_is_float(fbp_dtype dtype) { return dtype >= FBP_FLOAT32; }

/* "float32", "int64", ...: the name NumPy and PyTorch give it. */
static inline const char *fbp_dtype_name(fbp_dtype dtype) {
    static const char *const name[FBP_DTYPE_COUNT] = {"bool", "uint8", "int32", "int64", "float32", "float64"};
    return (unsigned)dtype < FBP_DTYPE_COUNT ? name[dtype] : "invalid";
}

#endif
