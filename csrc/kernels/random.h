/* random.h -- random numbers by counter: Philox4x32-10.
 *
 * J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
 * A block is four 32-bit words, a pure function of a 64-bit key (the seed) and a 128-bit counter (here the block's
 * number in the low half, a stream's number in the high half).  There is no state to carry from one number to the next,
 * so element i of a call is a function of (seed, stream, block + i / per_block) alone: any split over threads or
 * vectors gives the same numbers, and so does every instruction set, bit for bit: the transforms use + - * / and sqrt
 * only (correctly rounded everywhere), and random.c is compiled with -ffp-contract=off.
 *
 * Every call returns the number of blocks it used.  The caller advances its generator by that, never by anything else:
 *     at.block += kernels->normal_f32(at, n, 0, 1, out);
 */
#ifndef FBP_KERNELS_RANDOM_H
#define FBP_KERNELS_RANDOM_H

#include <stdint.h>

/* Where in the universe of random blocks a call begins. */
typedef struct fbp_random_position {
    uint64_t seed;   /* the key */
    uint64_t stream; /* high half of the counter: independent streams of one seed */
    uint64_t block;  /* low half of the counter: the next unused block (wraps at 2^64) */
} fbp_random_position;

typedef struct fbp_random_kernels {
    /* The raw words of n blocks, four to a block.  Returns n. */
    int64_t (*words)(fbp_random_position at, int64_t n_blocks, uint32_t *out);

    /* Uniform in [low, high): low + u * (high - low), which rounding may carry up to `high` when |low| is large against
     * high - low.  Four a block for float32 (24 random bits), two for float64 (53 bits). */
    int64_t (*uniform_f32)(fbp_random_position at, int64_t n, float low, float high, float *out);
    int64_t (*uniform_f64)(fbp_random_position at, int64_t n, double low, double high, double *out);

    /* Normal with this mean and deviation, by Box and Muller.  Four a block for float32 (never beyond 6.6 deviations),
     * two for float64 (8.6). */
    int64_t (*normal_f32)(fbp_random_position at, int64_t n, float mean, float deviation, float *out);
    int64_t (*normal_f64)(fbp_random_position at, int64_t n, double mean, double deviation, double *out);

    /* Exponential with this rate (mean 1 / rate), never infinite: -log(u) / rate, u in (0, 1].  Four / two a block. */
    int64_t (*exponential_f32)(fbp_random_position at, int64_t n, float rate, float *out);
    int64_t (*exponential_f64)(fbp_random_position at, int64_t n, double rate, double *out);

    /* Integers in [low, high), low < high, any span to 2^64 - 1; two a block.  A value's probability is off by at most
     * 2^-64. */
    int64_t (*integers)(fbp_random_position at, int64_t n, int64_t low, int64_t high, int64_t *out);

    /* out[i] = 1 with this probability (in [0, 1], to within 2^-32), else 0; four a block. */
    int64_t (*bernoulli)(fbp_random_position at, int64_t n, double probability, uint8_t *out);

    /* Dropout with probability p in [0, 1] of dropping: mask[i] = kept, y[i] = x[i] * (kept ? 1 / (1 - p) : 0), so that
     * the derivative dy/dx is mask / (1 - p).  The mask is that of bernoulli(1 - p); p == 1 drops all.  y may be x.
     * Four a block. */
    int64_t (*dropout_f32)(fbp_random_position at, int64_t n, double p, const float *x, float *y, uint8_t *mask);
    int64_t (*dropout_f64)(fbp_random_position at, int64_t n, double p, const double *x, double *y, uint8_t *mask);

    /* A permutation of 0 .. n-1 (Fisher and Yates), two steps a block.  Serial: each step depends on the one before. */
    int64_t (*permutation)(fbp_random_position at, int64_t n, int64_t *out);
} fbp_random_kernels;

#endif
