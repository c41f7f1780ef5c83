/* test_random.c -- Philox against its published vectors, every transform against long double arithmetic from the same
 * words, every set against the scalar one bit for bit, every way of cutting a call against the whole, and the laws of
 * the numbers. */
#include "kernels/random.h"

#include <math.h>

#include "test_sets.inl"

DECLARE_SETS(random);

enum { LARGE = 40000, VERY_LARGE = 300004, KINDS = 11 };

/* Every kernel as one call on raw output, so that a property is tested once for all: elements of `size` bytes,
 * `per_block` of them. */
static const struct kind {
    const char *name;
    int size, per_block;
} kinds[KINDS] = {{"words", 4, 4},      {"uniform_f32", 4, 4},     {"uniform_f64", 8, 2},     {"normal_f32", 4, 4},
                  {"normal_f64", 8, 2}, {"exponential_f32", 4, 4}, {"exponential_f64", 8, 2}, {"integers", 8, 2},
                  {"bernoulli", 1, 4},  {"dropout_f32", 4, 4},     {"dropout_f64", 8, 4}};

static float ones_f32[VERY_LARGE], values_f32[LARGE];
static double ones_f64[VERY_LARGE];
static uint8_t spare_mask[VERY_LARGE];

static int64_t draw(const fbp_random_kernels *k, int kind, fbp_random_position at, int64_t n, void *out) {
    switch (kind) {
        case 0: return k->words(at, n / 4, out);
        case 1: return k->uniform_f32(at, n, -2.5f, 7.1f, out);
        case 2: return k->uniform_f64(at, n, -2.5, 7.1, out);
        case 3: return k->normal_f32(at, n, 0.3f, 1.7f, out);
        case 4: return k->normal_f64(at, n, 0.3, 1.7, out);
        case 5: return k->exponential_f32(at, n, 0.7f, out);
        case 6: return k->exponential_f64(at, n, 0.7, out);
        case 7: return k->integers(at, n, -1000, 123456789012, out);
        case 8: return k->bernoulli(at, n, 0.3, out);
        case 9: return k->dropout_f32(at, n, 0.3, ones_f32, out, spare_mask);
        default: return k->dropout_f64(at, n, 0.3, ones_f64, out, spare_mask);
    }
}

static fbp_random_position any_position(void) {
    return (fbp_random_position){any_bits(), any_in(0, 2) ? 0 : any_bits(), any_bits() >> any_in(0, 63)};
}

/* Known answers from the authors' own test vectors (Random123, kat_vectors, philox4x32 10). */
static void test_known_answers(const fbp_random_kernels *k) {
    static const struct {
        fbp_random_position at;
        uint32_t want[4];
    } known[] = {
        {{0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{UINT64_MAX, UINT64_MAX, UINT64_MAX}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t got[4];
        CHECK(k->words(known[i].at, 1, got) == 1, "blocks used");
        CHECK(!memcmp(got, known[i].want, sizeof got), "vector %d: %08x %08x %08x %08x", i, got[0], got[1], got[2],
              got[3]);
    }
}

/* n elements: same bits as the scalar set's, guards intact, the promised blocks. */
static void test_same_bits(const fbp_random_kernels *k, int kind, int64_t n) {
    const int64_t bytes = n * kinds[kind].size;
    const fbp_random_position at = any_position();
    void *got = guarded_new(bytes), *want = guarded_new(bytes);
    fbp_threads_set(1);
    draw(sets[0], kind, at, n, want);
    for (int threads = 1; threads <= 3; threads += 2) {
        fbp_threads_set(threads);
        memset(got, 0x5C, (size_t)bytes);
        const int64_t used = draw(k, kind, at, n, got);
        CHECK(used == (n + kinds[kind].per_block - 1) / kinds[kind].per_block, "%s used %lld blocks for %lld",
              kinds[kind].name, (long long)used, (long long)n);
        CHECK(!memcmp(got, want, (size_t)bytes), "%s differs from scalar, n %lld, %d threads", kinds[kind].name,
              (long long)n, threads);
    }
    guarded_free(got, bytes);
    guarded_free(want, bytes);
}

/* Cut at any block, the numbers stay. */
static void test_chunks(const fbp_random_kernels *k, int kind) {
    enum { TOTAL = 5000 };
    static char whole[TOTAL * 8], pieces[TOTAL * 8];
    const int size = kinds[kind].size;
    const fbp_random_position start = any_position();
    fbp_random_position at = start;
    draw(k, kind, start, TOTAL, whole);
    for (int64_t done = 0; done < TOTAL;) {
        int64_t n = any_in(1, 900) * 4;
        if (n > TOTAL - done) n = TOTAL - done;
        at.block += (uint64_t)draw(k, kind, at, n, pieces + done * size);
        done += n;
    }
    CHECK(!memcmp(whole, pieces, (size_t)(TOTAL * size)), "%s depends on where it is cut", kinds[kind].name);
}

/* The transforms against their definitions on the raw words, in long double; returns the largest error, relative to
 * max(1, |value|), through `worst`. */
static void worse(long double got, long double want, long double *worst) {
    const long double error = fabsl(got - want) / (fabsl(want) > 1 ? fabsl(want) : 1);
    if (!(error <= *worst)) *worst = error;
}

static void test_definitions(const fbp_random_kernels *k) {
    enum { BLOCKS = 5000 };
    static uint32_t word[BLOCKS * 4];
    static float f32[BLOCKS * 4];
    static double f64[BLOCKS * 2];
    static int64_t whole[BLOCKS * 2];
    static uint8_t mask[BLOCKS * 4];
    const long double turn = 6.283185307179586476925L;
    const fbp_random_position at = any_position();
    k->words(at, BLOCKS, word);
    long double worst = 0;

    k->uniform_f32(at, BLOCKS * 4, 0, 1, f32);
    k->bernoulli(at, BLOCKS * 4, 0.25, mask);
    for (int i = 0; i < BLOCKS * 4; i++) {
        CHECK(f32[i] == (float)(word[i] >> 8) * 0x1p-24f, "uniform_f32 %d", i);
        CHECK(mask[i] == (word[i] < 0x40000000u), "bernoulli %d", i);
    }
    k->uniform_f64(at, BLOCKS * 2, 0, 1, f64);
    k->integers(at, BLOCKS * 2, 0, INT64_MAX, whole);
    for (int i = 0; i < BLOCKS * 2; i++) {
        const uint64_t bits = (uint64_t)word[2 * i] << 32 | word[2 * i + 1];
        CHECK(f64[i] == (double)(bits >> 11) * 0x1p-53, "uniform_f64 %d", i);
        CHECK(llabs(whole[i] - (int64_t)(bits >> 1)) <= 1, "integers %d", i);
    }
    k->exponential_f32(at, BLOCKS * 4, 2, f32);
    for (int i = 0; i < BLOCKS * 4; i++)
        worse(f32[i], -logl(((float)(int32_t)(word[i] >> 1) + 1.0f) * 0x1p-31L) / 2, &worst);
    CHECK(worst < 0x1p-23L, "exponential_f32 is off by %Lg",
          worst); /* two roundings of the series, one of the division */
    k->exponential_f64(at, BLOCKS * 2, 2, f64);
    worst = 0;
    for (int i = 0; i < BLOCKS * 2; i++) {
        const uint64_t bits = (uint64_t)word[2 * i] << 32 | word[2 * i + 1];
        worse(f64[i], -logl(((long double)(bits >> 11) + 1) * 0x1p-53L) / 2, &worst);
    }
    CHECK(worst < 0x1p-52L, "exponential_f64 is off by %Lg", worst);

    k->normal_f32(at, BLOCKS * 4, 0, 1, f32);
    worst = 0;
    for (int i = 0; i < BLOCKS * 4; i += 2) {
        const long double radius = sqrtl(-2 * logl(((float)(int32_t)(word[i] >> 1) + 1.0f) * 0x1p-31L));
        const long double angle = turn / 4 * ((word[i + 1] >> 30) + (int32_t)(word[i + 1] << 2) * 0x1p-32L);
        worse(f32[i], radius * cosl(angle), &worst);
        worse(f32[i + 1], radius * sinl(angle), &worst);
    }
    CHECK(worst < 0x1p-20L, "normal_f32 is off by %Lg", worst); /* radius to 6.6: its ulp is 2^-21 */
    k->normal_f64(at, BLOCKS * 2, 0, 1, f64);
    worst = 0;
    for (int i = 0; i < BLOCKS; i++) {
        const uint64_t a = (uint64_t)word[4 * i] << 32 | word[4 * i + 1],
                       b = (uint64_t)word[4 * i + 2] << 32 | word[4 * i + 3];
        const long double radius = sqrtl(-2 * logl(((long double)(a >> 11) + 1) * 0x1p-53L));
        const long double angle = turn / 4 * ((b >> 62) + ((b << 2) >> 11) * 0x1p-53L - 0.5L);
        worse(f64[2 * i], radius * cosl(angle), &worst);
        worse(f64[2 * i + 1], radius * sinl(angle), &worst);
    }
    CHECK(worst < 0x1p-49L, "normal_f64 is off by %Lg", worst);
}

/* The numbers themselves, as hashes of the first 1000 elements: they are a promise to users across machines, compilers
 * and versions.  If a change of this table is meant, the changelog must say so. */
static void test_pinned(const fbp_random_kernels *k) {
    static const uint64_t pinned[KINDS] = {0xe3318a164ec83f34u, 0x545cdc615b094767u, 0x7bf82bef27fe6902u,
                                           0x6fb65009da9c0a34u, 0x75ff909dfd173170u, 0xfd7ab47d4d6fd6a2u,
                                           0x73eccc7c0cd0b271u, 0x51d1640459dcee18u, 0xb7076831970bab73u,
                                           0x230da5a165c7a505u, 0x99499985206b61e5u};
    static uint8_t out[8 * 1000];
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t hash = 14695981039346656037u; /* FNV-1a */
        draw(k, kind, (fbp_random_position){42, 0, 7}, 1000, out);
        for (int i = 0; i < 1000 * kinds[kind].size; i++) hash = (hash ^ out[i]) * 1099511628211u;
        CHECK(hash == pinned[kind], "%s: 0x%016llxu", kinds[kind].name, (unsigned long long)hash);
    }
}

static int compare_f64(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double law_uniform(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
static double law_normal(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
static double law_exponential(double x) { return x < 0 ? 0 : 1 - exp(-x); }

/* Kolmogorov and Smirnov: sqrt(n) * D exceeds 2.2 once in 8000 samples; the seeds are fixed, so this passes always or
 * never. */
static void test_law(double *x, int64_t n, double (*law)(double), const char *name) {
    qsort(x, (size_t)n, sizeof *x, compare_f64);
    double distance = 0;
    for (int64_t i = 0; i < n; i++) {
        const double p = law(x[i]);
        distance = fmax(distance, fmax(p - (double)i / (double)n, (double)(i + 1) / (double)n - p));
    }
    CHECK(distance * sqrt((double)n) < 2.2, "%s: sqrt(n) D = %g", name, distance * sqrt((double)n));
}

static void test_laws(const fbp_random_kernels *k) {
    static float f32[LARGE];
    static double f64[LARGE];
    static int64_t whole[LARGE];
    const fbp_random_position at = {20260101, 0, 77};
    double sum = 0, square = 0, cube = 0, product = 0, fourth = 0;
    k->normal_f64(at, LARGE, 0, 1, f64);
    for (int i = 0; i < LARGE; i++) {
        sum += f64[i];
        square += f64[i] * f64[i];
        cube += pow(f64[i], 3);
        fourth += pow(f64[i], 4);
        product += f64[i] * f64[(i + 1) % LARGE];
    }
    /* five standard errors: 5 / sqrt(n) times sqrt of the variance of x, x^2, x^3, x^4, x y: 1, 2, 15, 96, 1 */
    const double error = 5 / sqrt(LARGE);
    CHECK(fabs(sum / LARGE) < error && fabs(square / LARGE - 1) < error * sqrt(2) &&
              fabs(cube / LARGE) < error * sqrt(15) && fabs(fourth / LARGE - 3) < error * sqrt(96) &&
              fabs(product / LARGE) < error,
          "normal_f64 moments %g %g %g %g, neighbours %g", sum / LARGE, square / LARGE, cube / LARGE, fourth / LARGE,
          product / LARGE);
    test_law(f64, LARGE, law_normal, "normal_f64");
    k->normal_f32(at, LARGE, 3, 0.5f, f32);
    for (int i = 0; i < LARGE; i++) f64[i] = ((double)f32[i] - 3) * 2;
    test_law(f64, LARGE, law_normal, "normal_f32");
    k->uniform_f32(at, LARGE, -4, 4, f32);
    for (int i = 0; i < LARGE; i++) f64[i] = ((double)f32[i] + 4) / 8;
    test_law(f64, LARGE, law_uniform, "uniform_f32");
    k->uniform_f64(at, LARGE, 0, 1, f64);
    test_law(f64, LARGE, law_uniform, "uniform_f64");
    k->exponential_f32(at, LARGE, 4, f32);
    for (int i = 0; i < LARGE; i++) f64[i] = (double)f32[i] * 4;
    test_law(f64, LARGE, law_exponential, "exponential_f32");
    k->exponential_f64(at, LARGE, 1, f64);
    test_law(f64, LARGE, law_exponential, "exponential_f64");

    int64_t count[10] = {0};
    k->integers(at, LARGE, -3, 7, whole);
    for (int i = 0; i < LARGE; i++) {
        CHECK(whole[i] >= -3 && whole[i] < 7, "integer %lld", (long long)whole[i]);
        if (whole[i] >= -3 && whole[i] < 7) count[whole[i] + 3]++;
    }
    for (int i = 0; i < 10; i++)
        CHECK(llabs(count[i] - LARGE / 10) < 300, "integer %d drawn %lld times", i - 3, (long long)count[i]); /* 5 sd */
    k->integers(at, LARGE, INT64_MIN, INT64_MAX, whole);
    int64_t negative = 0;
    for (int i = 0; i < LARGE; i++) negative += whole[i] < 0;
    CHECK(llabs(negative - LARGE / 2) < 500, "%lld of %d negative", (long long)negative, LARGE);
}

static void test_masks(const fbp_random_kernels *k) {
    static uint8_t mask[LARGE], same[LARGE];
    static float y[LARGE];
    static const double probabilities[] = {0, 1, 0.5, 0.1, 0.999};
    for (int p = 0; p < 5; p++) {
        const double drop = probabilities[p];
        const fbp_random_position at = any_position();
        int64_t kept = 0, wrong = 0;
        k->dropout_f32(at, LARGE, drop, values_f32, y, mask);
        k->bernoulli(at, LARGE, 1 - drop, same);
        for (int i = 0; i < LARGE; i++) {
            kept += mask[i];
            wrong += y[i] != (mask[i] ? values_f32[i] * (float)(1 / (1 - drop)) : 0.0f);
        }
        CHECK(wrong == 0, "dropout %g: %lld wrong products", drop, (long long)wrong);
        CHECK(!memcmp(mask, same, LARGE), "dropout %g is not bernoulli", drop);
        CHECK(fabs((double)kept - LARGE * (1 - drop)) <= 5 * sqrt(LARGE * drop * (1 - drop)), "dropout %g kept %lld",
              drop, (long long)kept);
    }
}

static void test_permutation(const fbp_random_kernels *k, int64_t n) {
    const fbp_random_position at = any_position();
    int64_t *got = guarded_new(n * 8), *want = guarded_new(n * 8);
    uint8_t *seen = calloc((size_t)n + 1, 1);
    const int64_t used = k->permutation(at, n, got);
    CHECK(used == n / 2, "permutation of %lld used %lld", (long long)n, (long long)used);
    sets[0]->permutation(at, n, want);
    CHECK(!memcmp(got, want, (size_t)(n * 8)), "permutation of %lld differs from scalar", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        CHECK(got[i] >= 0 && got[i] < n && !seen[got[i]], "permutation of %lld: %lld", (long long)n, (long long)got[i]);
        if (got[i] >= 0 && got[i] < n) seen[got[i]] = 1;
    }
    free(seen);
    guarded_free(got, n * 8);
    guarded_free(want, n * 8);
}

/* All 24 orders of four things come up equally often. */
static void test_permutation_law(const fbp_random_kernels *k) {
    int count[256] = {0}, orders = 0;
    fbp_random_position at = {5, 0, 0};
    for (int i = 0; i < 24000; i++) {
        int64_t p[4];
        at.block += (uint64_t)k->permutation(at, 4, p);
        count[p[0] | p[1] << 2 | p[2] << 4 | p[3] << 6]++;
    }
    for (int i = 0; i < 256; i++) {
        orders += count[i] > 0;
        CHECK(count[i] == 0 || abs(count[i] - 1000) < 155, "order %02x came %d times", i, count[i]); /* 5 sd */
    }
    CHECK(orders == 24, "%d orders", orders);
}

int main(void) {
    for (int i = 0; i < VERY_LARGE; i++) ones_f64[i] = ones_f32[i] = 1;
    for (int i = 0; i < LARGE; i++) values_f32[i] = (float)(i % 7) + 0.25f;
    for (current_set = 0; current_set < set_count(); current_set++) {
        const fbp_random_kernels *k = sets[current_set];
        test_known_answers(k);
        for (int kind = 0; kind < KINDS; kind++) {
            const int step = kind == 0 ? 4 : 1; /* words come in whole blocks */
            for (int64_t n = 0; n <= 72; n += step) test_same_bits(k, kind, n);
            for (int64_t n = 1020; n <= 1028; n += step) test_same_bits(k, kind, n);
            test_same_bits(k, kind, VERY_LARGE); /* enough work for threads to share it out */
            test_chunks(k, kind);
        }
        test_pinned(k);
        test_definitions(k);
        test_laws(k);
        test_masks(k);
        for (int64_t n = 0; n <= 70; n++) test_permutation(k, n);
        test_permutation(k, 3001);
        test_permutation_law(k);
    }
    return report("test_random");
}
