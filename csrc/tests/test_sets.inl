/* test_sets.inl -- what test_copy, test_index and test_random share: the kernel sets this machine can run, a small
 * generator for cases, guarded buffers and failure counting. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"

/* DECLARE_SETS(copy) declares the tables of fbp_copy_kernels and defines `sets`, of which set_count() can run here. */
#if defined(__x86_64__)
#define DECLARE_SETS(family)                                                                                           \
    extern const fbp_##family##_kernels fbp_##family##_kernels_scalar, fbp_##family##_kernels_sse2,                    \
        fbp_##family##_kernels_avx2, fbp_##family##_kernels_avx512;                                                    \
    static const fbp_##family##_kernels *const sets[] = {&fbp_##family##_kernels_scalar, &fbp_##family##_kernels_sse2, \
                                                         &fbp_##family##_kernels_avx2, &fbp_##family##_kernels_avx512}
static const char *const set_names[] = {"scalar", "sse2", "avx2", "avx512"};
static int set_count(void) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 2;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return avx512 ? 4 : 3;
}
#elif defined(__aarch64__)
#define DECLARE_SETS(family)                                                                        \
    extern const fbp_##family##_kernels fbp_##family##_kernels_scalar, fbp_##family##_kernels_neon; \
    static const fbp_##family##_kernels *const sets[] = {&fbp_##family##_kernels_scalar, &fbp_##family##_kernels_neon}
static const char *const set_names[] = {"scalar", "neon"};
static int set_count(void) { return 2; }
#else
#define DECLARE_SETS(family)                                           \
    extern const fbp_##family##_kernels fbp_##family##_kernels_scalar; \
    static const fbp_##family##_kernels *const sets[] = {&fbp_##family##_kernels_scalar}
static const char *const set_names[] = {"scalar"};
static int set_count(void) { return 1; }
#endif

static int current_set; /* index into sets, for messages */
static int failures;
static long checks;

/* Count a check; report the first twenty that fail. */
#define CHECK(condition, ...)                                                                            \
    do {                                                                                                 \
        checks++;                                                                                        \
        if (!(condition) && ++failures <= 20) {                                                          \
            fprintf(stderr, "%s:%d: [%s] %s: ", __FILE__, __LINE__, set_names[current_set], #condition); \
            fprintf(stderr, __VA_ARGS__);                                                                \
            fputc('\n', stderr);                                                                         \
        }                                                                                                \
    } while (0)

/* Print the verdict; the value for main to return. */
static inline int report(const char *name) {
    printf("%s: %ld checks on %d kernel sets, %d failures\n", name, checks, set_count(), failures);
    return failures != 0;
}

static uint64_t case_state = 0x9E3779B97F4A7C15u;
static inline uint64_t any_bits(void) {
    case_state ^= case_state << 13;
    case_state ^= case_state >> 7;
    case_state ^= case_state << 17;
    return case_state;
}
/* An integer in [low, high]. */
static inline int64_t any_in(int64_t low, int64_t high) {
    return low + (int64_t)(any_bits() % (uint64_t)(high - low + 1));
}
static inline void any_fill(void *buffer, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++) ((uint8_t *)buffer)[i] = (uint8_t)(any_bits() >> 11);
}

/* Buffers stand between two guards that no kernel may touch. */
enum { GUARD = 64, GUARD_BYTE = 0xA5 };

static inline void *guarded_new(int64_t bytes) {
    uint8_t *memory = malloc((size_t)(bytes + 2 * GUARD));
    if (!memory) {
        fputs("no memory\n", stderr);
        exit(1);
    }
    memset(memory, GUARD_BYTE, (size_t)(bytes + 2 * GUARD));
    return memory + GUARD;
}

/* Check the guards and free. */
static inline void guarded_free(void *buffer, int64_t bytes) {
    const uint8_t *memory = (uint8_t *)buffer - GUARD;
    bool intact = true;
    for (int64_t i = 0; i < GUARD; i++) intact &= memory[i] == GUARD_BYTE && memory[GUARD + bytes + i] == GUARD_BYTE;
    CHECK(intact, "wrote outside a buffer of %lld bytes", (long long)bytes);
    free((uint8_t *)buffer - GUARD);
}
