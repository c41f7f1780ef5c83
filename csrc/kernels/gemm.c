/* gemm.c -- the dense matrix product for one instruction set: sizes of tiles and blocks, and the table.
 *
 * gemm_tile.inl     microkernels: a tile of C in registers
 * gemm_pack.inl     copies of A and B that suit them
 * gemm_vector.inl   matrix times vector
 * gemm_blocks.inl   loops over blocks, threads, one product
 * gemm_naive.inl    all of that for the scalar set: the definition
 * gemm_batch.inl    many products
 */
#include "kernels/gemm.h"

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/isa.h"

/* Rough speeds, for fbp_grain alone: multiply-adds per nanosecond of one core, and the size from which
 * a product of a batch has work for all threads by itself. */
#define GEMM_WORK_PER_NS (FBP_VECTOR_BYTES > 0 ? 3.0 * FBP_VECTOR_BYTES / (double)sizeof(T) : 1.0)
#define GEMM_BATCH_WORK 4e6

#if FBP_VECTOR_BYTES > 0

#if defined(__AVX2__)
#include <immintrin.h> /* masked loads and stores */
#endif

/* Before a loop of constant length over registers; before one that must stay a loop. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* loops of one turn vanish before they can be unrolled */
#define GEMM_UNROLLED _Pragma("clang loop unroll(full)")
#define GEMM_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define GEMM_UNROLLED _Pragma("GCC unroll 16")
#define GEMM_ROLLED _Pragma("GCC unroll 1")
#endif

/* Tiles: M(rows, vectors) for each shape whose accumulators, one row of B and a broadcast of A fit the registers.
 * Products of at most GEMM_ROWS_8 rows use panels 8 vectors wide, of at most GEMM_ROWS_4 rows 4, others 2. */
#define GEMM_TILES_8(M, rows) M(rows, 5) M(rows, 6) M(rows, 7) M(rows, 8)
#define GEMM_TILES_4(M, rows) M(rows, 3) M(rows, 4)
#define GEMM_TILES_2(M, rows) M(rows, 1) M(rows, 2)
#if defined(__AVX512F__) || defined(__aarch64__)
enum { GEMM_REGISTERS = 32, GEMM_ROWS = 14, GEMM_ROWS_4 = 6, GEMM_ROWS_8 = 3, GEMM_VECTORS = 8 };
#define GEMM_TILES(M)                                                                                              \
    GEMM_TILES_2(M, 1) GEMM_TILES_2(M, 2) GEMM_TILES_2(M, 3) GEMM_TILES_2(M, 4) GEMM_TILES_2(M, 5)                 \
    GEMM_TILES_2(M, 6) GEMM_TILES_2(M, 7) GEMM_TILES_2(M, 8) GEMM_TILES_2(M, 9) GEMM_TILES_2(M, 10)                \
    GEMM_TILES_2(M, 11) GEMM_TILES_2(M, 12) GEMM_TILES_2(M, 13) GEMM_TILES_2(M, 14)                                \
    GEMM_TILES_4(M, 1) GEMM_TILES_4(M, 2) GEMM_TILES_4(M, 3) GEMM_TILES_4(M, 4) GEMM_TILES_4(M, 5) GEMM_TILES_4(M, 6) \
    GEMM_TILES_8(M, 1) GEMM_TILES_8(M, 2) GEMM_TILES_8(M, 3)
#define GEMM_FETCHING_TILES(M) M(8) M(9) M(10) M(11) M(12) M(13) M(14)
#else
enum { GEMM_REGISTERS = 16, GEMM_ROWS = 6, GEMM_ROWS_4 = 3, GEMM_ROWS_8 = 1, GEMM_VECTORS = 8 };
#define GEMM_TILES(M)                                                                                              \
    GEMM_TILES_2(M, 1) GEMM_TILES_2(M, 2) GEMM_TILES_2(M, 3) GEMM_TILES_2(M, 4) GEMM_TILES_2(M, 5) GEMM_TILES_2(M, 6) \
    GEMM_TILES_4(M, 1) GEMM_TILES_4(M, 2) GEMM_TILES_4(M, 3) GEMM_TILES_8(M, 1)
#define GEMM_FETCHING_TILES(M) M(4) M(5) M(6)
#endif

/* Blocks, for an L1 of 32..48 KiB and an L2 of 512 KiB or more; the measurements were taken with 48 KiB and 1 MiB. */
enum {
    GEMM_TERM_BYTES = 2 << 10,      /* of one row of A in a block of K: a tile of A then fits L1 */
    GEMM_CHUNK_BYTES = 640 << 10,   /* a chunk of A: what L2 keeps beside the panels and C */
    GEMM_KEPT_BYTES = 4 << 20,      /* copies of B that one thread keeps */
    GEMM_DIRECT_BYTES = 1 << 20,    /* an operand up to this size is read in place; a larger C is fetched ahead */
    GEMM_PACK_ROWS = 128,           /* fewer rows than this do not repay a copy of contiguous rows of B */
    GEMM_PACK_COLUMNS = 64,         /* fewer columns than this do not repay a copy of A */
    GEMM_TRANSPOSING_ROWS = 160,    /* with more rows, transposing a panel costs little and full tiles are worth more */
    GEMM_FETCH_MOST = 64,           /* pairs of lines that a tile fetches at most */
    GEMM_FETCH_TERMS = 64,          /* shorter sums leave no time to fetch */
    GEMM_SMALL_WORK = 32 * 32 * 32, /* multiply-adds below which no blocking is worth a thought */
    GEMM_STREAM_BYTES = 512 << 10,  /* a matrix above this meets a vector row by row, not in tiles */
    GEMM_SERIAL_BYTES = 64 << 10,   /* matrix-vector products below this never ask for threads */
};
#define GEMM_BYTES_PER_NS 20.0 /* of a matrix read once: rough, for fbp_grain alone */
#define GEMM_SERIAL_NS 2000.0  /* less work never asks for threads */

/* Shuffles within 16-byte pieces of two vectors, as index lists of __builtin_shufflevector: LOW32(a, b) of
 * a0 a1 a2 a3 and b0 b1 b2 b3 is a0 b0 a1 b1; LOW64 is the same for halves. */
#if FBP_VECTOR_BYTES == 16
#define GEMM_LOW32 0, 4, 1, 5
#define GEMM_HIGH32 2, 6, 3, 7
#define GEMM_LOW64 0, 2
#define GEMM_HIGH64 1, 3
#elif FBP_VECTOR_BYTES == 32
#define GEMM_LOW32 0, 8, 1, 9, 4, 12, 5, 13
#define GEMM_HIGH32 2, 10, 3, 11, 6, 14, 7, 15
#define GEMM_LOW64 0, 4, 2, 6
#define GEMM_HIGH64 1, 5, 3, 7
#else
#define GEMM_LOW32 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define GEMM_HIGH32 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define GEMM_LOW64 0, 8, 2, 10, 4, 12, 6, 14
#define GEMM_HIGH64 1, 9, 3, 11, 5, 13, 7, 15
#endif

#endif /* FBP_VECTOR_BYTES > 0 */

#include "kernels/real_f32.h"
#if FBP_VECTOR_BYTES > 0
#include "kernels/vector.inl"
#include "kernels/gemm_tile.inl"
#include "kernels/gemm_pack.inl"
#include "kernels/gemm_vector.inl"
#include "kernels/gemm_blocks.inl"
#else
#include "kernels/gemm_naive.inl"
#endif
#include "kernels/gemm_batch.inl"
#include "kernels/real_end.h"

#include "kernels/real_f64.h"
#if FBP_VECTOR_BYTES > 0
#include "kernels/vector.inl"
#include "kernels/gemm_tile.inl"
#include "kernels/gemm_pack.inl"
#include "kernels/gemm_vector.inl"
#include "kernels/gemm_blocks.inl"
#else
#include "kernels/gemm_naive.inl"
#endif
#include "kernels/gemm_batch.inl"
#include "kernels/real_end.h"

const fbp_gemm_kernels FBP_ISA_SYMBOL(fbp_gemm_kernels) = {
    .f32 = product_f32, .f64 = product_f64, .batch_f32 = batch_f32, .batch_f64 = batch_f64};
