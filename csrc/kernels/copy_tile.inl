/* copy_tile.inl -- square transposes in registers, for 4- and 8-byte elements (none in the scalar set).
 *
 * A tile reads its rows in 16-byte halves, placed so that each later shuffle stays within a 16-byte lane: lane-crossing
 * shuffles are slow or absent below AVX-512.
 */

#if FBP_VECTOR_BYTES >= 32

typedef uint32_t tile_u32 __attribute__((vector_size(32)));
typedef uint64_t tile_u64 __attribute__((vector_size(32)));
typedef uint64_t tile_half __attribute__((vector_size(16)));
enum { TILE_U32 = 8, TILE_U64 = 4 };

/* Sixteen bytes of each of two rows in one vector (through registers: halves joined in memory would stall the load). */
FBP_INLINE tile_u64 tile_join(const char *low, const char *high) {
    tile_half a, b;
    memcpy(&a, low, sizeof a);
    memcpy(&b, high, sizeof b);
    return __builtin_shufflevector(a, b, 0, 1, 2, 3);
}

/* dst[i][j] = src[j][i], 8 x 8 elements of 4 bytes. */
FBP_INLINE void transpose_tile_u32(char *dst, int64_t d_row, const char *src, int64_t s_row) {
    for (int half = 0; half < 2; half++, src += 16, dst += 4 * d_row) {
        tile_u32 a[4], b[4];
        for (int i = 0; i < 4; i++) a[i] = (tile_u32)tile_join(src + i * s_row, src + (i + 4) * s_row);
        for (int i = 0; i < 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
            b[2 * i + 1] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
        }
        for (int i = 0; i < 2; i++) {
            tile_u64 low = __builtin_shufflevector((tile_u64)b[i], (tile_u64)b[i + 2], 0, 4, 2, 6);
            tile_u64 high = __builtin_shufflevector((tile_u64)b[i], (tile_u64)b[i + 2], 1, 5, 3, 7);
            memcpy(dst + (2 * i) * d_row, &low, 32);
            memcpy(dst + (2 * i + 1) * d_row, &high, 32);
        }
    }
}

/* dst[i][j] = src[j][i], 4 x 4 elements of 8 bytes. */
FBP_INLINE void transpose_tile_u64(char *dst, int64_t d_row, const char *src, int64_t s_row) {
    for (int half = 0; half < 2; half++, src += 16, dst += 2 * d_row) {
        tile_u64 a = tile_join(src, src + 2 * s_row), b = tile_join(src + s_row, src + 3 * s_row);
        tile_u64 low = __builtin_shufflevector(a, b, 0, 4, 2, 6), high = __builtin_shufflevector(a, b, 1, 5, 3, 7);
        memcpy(dst, &low, 32);
        memcpy(dst + d_row, &high, 32);
    }
}

#elif FBP_VECTOR_BYTES == 16

typedef uint32_t tile_u32 __attribute__((vector_size(16)));
typedef uint64_t tile_u64 __attribute__((vector_size(16)));
enum { TILE_U32 = 4, TILE_U64 = 2 };

/* dst[i][j] = src[j][i], 4 x 4 elements of 4 bytes. */
FBP_INLINE void transpose_tile_u32(char *dst, int64_t d_row, const char *src, int64_t s_row) {
    tile_u32 a[4], b[4];
    for (int i = 0; i < 4; i++) memcpy(&a[i], src + i * s_row, 16);
    for (int i = 0; i < 2; i++) {
        b[2 * i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 4, 1, 5);
        b[2 * i + 1] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 6, 3, 7);
    }
    for (int i = 0; i < 2; i++) {
        tile_u64 low = __builtin_shufflevector((tile_u64)b[i], (tile_u64)b[i + 2], 0, 2);
        tile_u64 high = __builtin_shufflevector((tile_u64)b[i], (tile_u64)b[i + 2], 1, 3);
        memcpy(dst + (2 * i) * d_row, &low, 16);
        memcpy(dst + (2 * i + 1) * d_row, &high, 16);
    }
}

/* dst[i][j] = src[j][i], 2 x 2 elements of 8 bytes. */
FBP_INLINE void transpose_tile_u64(char *dst, int64_t d_row, const char *src, int64_t s_row) {
    tile_u64 a, b;
    memcpy(&a, src, 16);
    memcpy(&b, src + s_row, 16);
    tile_u64 low = __builtin_shufflevector(a, b, 0, 2), high = __builtin_shufflevector(a, b, 1, 3);
    memcpy(dst, &low, 16);
    memcpy(dst + d_row, &high, 16);
}

#endif
