/* peak.c -- the arithmetic peak of one core: independent chains of fused multiply-adds that stay in registers.
 *
 * The number of chains covers latency times throughput (4 cycles, 2 units) with some to spare, and still fits
 * 16 registers.  Built with -O2 -march=native -ffp-contract=fast, for this machine only. */

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

enum { CHAINS = 12, STEPS = 1000 };

/* Defines peak_<type>_flops(), the operations of one repetition, and peak_<type>(repetitions), which does them and
 * returns a number that depends on all of them.  x <- x * 0.999 + 0.001 stays near 1: no overflow, no denormals. */
#define DEFINE_PEAK(type)                                                                                     \
    typedef type type##_vector __attribute__((vector_size(VECTOR_BYTES)));                                    \
    double peak_##type##_flops(void) {                                                                        \
        return 2.0 * STEPS * CHAINS * (VECTOR_BYTES / (int)sizeof(type));                                     \
    }                                                                                                         \
    double peak_##type(long repetitions) {                                                                    \
        type##_vector x[CHAINS], shrink = {0}, grow = {0};                                                    \
        shrink += (type)0.999;                                                                                \
        grow += (type)0.001;                                                                                  \
        for (int i = 0; i < CHAINS; i++) x[i] = shrink + (type)i;                                             \
        for (long step = 0; step < repetitions * STEPS; step++) {                                             \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) x[i] = x[i] * shrink + grow;            \
        }                                                                                                     \
        double total = 0;                                                                                     \
        for (int i = 0; i < CHAINS; i++) total += (double)x[i][0];                                            \
        return total;                                                                                         \
    }

DEFINE_PEAK(float)
DEFINE_PEAK(double)
