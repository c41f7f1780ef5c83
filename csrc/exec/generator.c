/* generator.c -- seeds and counters. */
#define _POSIX_C_SOURCE 200809L
#include "exec/generator.h"

#include <stdio.h>
#include <time.h>

/* PyTorch's default seed, so that a program that seeds nothing is repeatable. */
static fbp_generator default_generator = {.seed = 67280421310721u};

fbp_generator *fbp_generator_default(void) { return &default_generator; }

void fbp_generator_set(fbp_generator *generator, fbp_generator place) {
    __atomic_store_n(&generator->seed, place.seed, __ATOMIC_RELAXED);
    __atomic_store_n(&generator->offset, place.offset, __ATOMIC_RELAXED);
}

void fbp_generator_seed(fbp_generator *generator, uint64_t seed) { fbp_generator_set(generator, (fbp_generator){seed, 0}); }

fbp_generator fbp_generator_take(fbp_generator *generator, uint64_t blocks) {
    const uint64_t seed = __atomic_load_n(&generator->seed, __ATOMIC_RELAXED);
    return (fbp_generator){seed, __atomic_fetch_add(&generator->offset, blocks, __ATOMIC_RELAXED)};
}

uint64_t fbp_generator_draw(fbp_generator *generator, int64_t blocks) { return fbp_generator_take(generator, (uint64_t)blocks).offset; }

uint64_t fbp_generator_entropy(void) {
    uint64_t seed = 0;
    FILE *source = fopen("/dev/urandom", "rb");
    size_t got = source ? fread(&seed, sizeof seed, 1, source) : 0;
    if (source) fclose(source);
    if (got == 1) return seed;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
}
