/* random.c -- Philox and its transforms for one instruction set; the contracts are in random.h.
 *
 * Work goes in buffers of BUFFER_BLOCKS blocks that stay in the first-level cache: Philox fills four planes of words
 * (word w of block b at [w][b], so that vectors run over blocks), a transform turns planes into results, the results
 * are written in block order.  A buffer is a task; buffers are independent.
 */
#include "kernels/random.h"

#include "base/threads.h"
#include "kernels/isa.h"

#if FBP_VECTOR_BYTES && defined(__SSE2__)
#include <immintrin.h>
#elif FBP_VECTOR_BYTES && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

enum { BUFFER_BLOCKS = 256, ROUND_UP = 16 /* blocks: a multiple of every set's vectors */ };

typedef struct planes {
    _Alignas(64) uint32_t word[4][BUFFER_BLOCKS];
} planes;

typedef struct random_job random_job;

struct random_job {
    fbp_random_position at;
    int64_t n;        /* elements wanted */
    int per_block;    /* elements a block gives */
    int element_size; /* bytes of an element of out */
    char *out;
    /* One of the two.  buffer: `blocks` whole blocks of elements to out, which has room for a full buffer.  apply:
     * exactly `count` elements from `first` on, one per word. */
    void (*buffer)(const random_job *job, const planes *from, int blocks, void *out);
    void (*apply)(const random_job *job, const uint32_t *words, int64_t first, int64_t count);
    double a, b;       /* the transform's parameters; a float32 passes through unchanged */
    int64_t low;       /* of integers */
    uint64_t span;     /* of integers: high - low */
    uint32_t limit;    /* a word <= limit counts as true ... */
    uint32_t possible; /* ... unless this is 0 */
    const void *x;     /* of dropout */
    void *y;
    double nanoseconds; /* rough cost of an element */
};

/* ---- Philox4x32-10 ---- */

/* The low halves of a's lanes times m, in full.  GCC does not see from (uint64_t)(uint32_t)a * m that half a
 * multiplication does, hence the intrinsics: measured on a Zen 5 with GCC 12, they make the whole generator 2.7 to
 * 3 times as fast on SSE2 and AVX2, and 1.3 times on AVX-512. */
FBP_INLINE fbp_vu64 multiply_wide(fbp_vu64 a, uint32_t m) {
#if FBP_VECTOR_BYTES == 64
    return (fbp_vu64)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((long long)m));
#elif FBP_VECTOR_BYTES == 32
    return (fbp_vu64)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)m));
#elif FBP_VECTOR_BYTES == 16 && defined(__SSE2__)
    return (fbp_vu64)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x((long long)m));
#elif FBP_VECTOR_BYTES == 16 && defined(__ARM_NEON)
    return (fbp_vu64)vmull_n_u32(vmovn_u64((uint64x2_t)a), m);
#else
    return (a & 0xFFFFFFFFu) * m;
#endif
}

typedef uint32_t word_vector __attribute__((vector_size(FBP_F64_LANES * 4)));

/* Words of `blocks` blocks from position `at` on; rounded up to ROUND_UP.  Words travel in 64-bit lanes; what gathers
 * in the upper halves is ignored by the multiplications and cut off at the end. */
static void philox(planes *out, fbp_random_position at, int blocks) {
    enum { CHAINS = 2 }; /* independent vectors in flight hide the multiplication's latency */
    fbp_vu64 lane_numbers = {0};
    for (int lane = 1; lane < FBP_F64_LANES; lane++) lane_numbers[lane] = (uint64_t)lane;
    for (int b = 0; b < blocks; b += CHAINS * FBP_F64_LANES) {
        fbp_vu64 c[CHAINS][4];
        for (int i = 0; i < CHAINS; i++) {
            c[i][0] = lane_numbers + (at.block + (uint64_t)(b + i * FBP_F64_LANES));
            c[i][1] = c[i][0] >> 32;
            c[i][2] = (fbp_vu64){0} + at.stream;
            c[i][3] = (fbp_vu64){0} + (at.stream >> 32);
        }
        uint32_t key0 = (uint32_t)at.seed, key1 = (uint32_t)(at.seed >> 32);
        for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
            for (int i = 0; i < CHAINS; i++) {
                const fbp_vu64 p0 = multiply_wide(c[i][0], 0xD2511F53u), p1 = multiply_wide(c[i][2], 0xCD9E8D57u);
                c[i][0] = (p1 >> 32) ^ c[i][1] ^ (uint64_t)key0;
                c[i][2] = (p0 >> 32) ^ c[i][3] ^ (uint64_t)key1;
                c[i][1] = p1;
                c[i][3] = p0;
            }
        }
        for (int i = 0; i < CHAINS; i++)
            for (int w = 0; w < 4; w++) {
                const word_vector words = __builtin_convertvector(c[i][w], word_vector);
                memcpy(&out->word[w][b + i * FBP_F64_LANES], &words, sizeof words);
            }
    }
}

/* Words in block order: out[4 * b + w]. */
static void interleave_words(const planes *restrict from, int blocks, uint32_t *restrict out) {
    for (int b = 0; b < blocks; b++)
        for (int w = 0; w < 4; w++) out[4 * b + w] = from->word[w][b];
}

/* ---- running a job ---- */

static void random_tasks(void *context, int64_t begin, int64_t end) {
    const random_job *job = context;
    const int64_t per_task = (int64_t)BUFFER_BLOCKS * job->per_block;
    planes words;
    _Alignas(64) char spare[4 * BUFFER_BLOCKS * 8]; /* a full buffer of anything */
    for (int64_t task = begin; task < end; task++) {
        const int64_t first = task * per_task, count = job->n - first < per_task ? job->n - first : per_task;
        const int64_t needed = (count + job->per_block - 1) / job->per_block;
        const int blocks = (int)((needed + ROUND_UP - 1) / ROUND_UP * ROUND_UP);
        fbp_random_position at = job->at;
        at.block += (uint64_t)(task * BUFFER_BLOCKS);
        philox(&words, at, blocks);
        if (job->apply) {
            interleave_words(&words, blocks, (uint32_t *)spare);
            job->apply(job, (const uint32_t *)spare, first, count);
        } else if (count == per_task) {
            job->buffer(job, &words, blocks, job->out + first * job->element_size);
        } else {
            job->buffer(job, &words, blocks, spare);
            memcpy(job->out + first * job->element_size, spare, (size_t)(count * job->element_size));
        }
    }
}

/* Run `job`; the blocks it used. */
static int64_t run(random_job *job) {
    if (job->n <= 0) return 0;
    const int64_t blocks = (job->n + job->per_block - 1) / job->per_block,
                  tasks = (blocks + BUFFER_BLOCKS - 1) / BUFFER_BLOCKS;
    if (tasks == 1) random_tasks(job, 0, 1);
    else fbp_parallel(tasks, fbp_grain(tasks, (double)job->n * job->nanoseconds), random_tasks, job);
    return blocks;
}

/* A word w counts as true when w < probability * 2^32, written so that 2^32 and 0 fit. */
static void set_probability(random_job *job, double probability) {
    const double scaled = probability * 0x1p32 + 0.5;
    const uint64_t bound = scaled >= 0x1p32 ? (uint64_t)1 << 32 : scaled >= 1 ? (uint64_t)scaled : 0;
    job->possible = bound > 0;
    job->limit = (uint32_t)(bound - (bound > 0));
}

/* ---- words, masks, integers ---- */

static void words_buffer(const random_job *job, const planes *from, int blocks, void *out) {
    (void)job;
    interleave_words(from, blocks, out);
}

static int64_t words(fbp_random_position at, int64_t n_blocks, uint32_t *out) {
    return run(&(random_job){.at = at,
                             .n = 4 * n_blocks,
                             .per_block = 4,
                             .buffer = words_buffer,
                             .out = (char *)out,
                             .element_size = 4,
                             .nanoseconds = 0.5});
}

static void bernoulli_apply(const random_job *job, const uint32_t *words, int64_t first, int64_t count) {
    uint8_t *restrict out = (uint8_t *)job->out + first;
    const uint32_t limit = job->limit, possible = job->possible;
    for (int64_t i = 0; i < count; i++) out[i] = (words[i] <= limit) & possible;
}

static int64_t bernoulli(fbp_random_position at, int64_t n, double probability, uint8_t *out) {
    random_job job = {.at = at,
                      .n = n,
                      .per_block = 4,
                      .apply = bernoulli_apply,
                      .out = (char *)out,
                      .element_size = 1,
                      .nanoseconds = 0.6};
    set_probability(&job, probability);
    return run(&job);
}

/* Pair `which` (0 or 1) of block b as 64 bits, the first word on top. */
static inline uint64_t pair_bits(const planes *from, int which, int b) {
    return (uint64_t)from->word[2 * which][b] << 32 | from->word[2 * which + 1][b];
}

/* floor(x * span / 2^64): x scaled to [0, span). */
static inline uint64_t scale_to(uint64_t x, uint64_t span) {
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)x * span >> 64);
}

static void integers_buffer(const random_job *job, const planes *from, int blocks, void *out) {
    int64_t *result = out;
    for (int b = 0; b < blocks; b++)
        for (int which = 0; which < 2; which++)
            result[2 * b + which] = (int64_t)((uint64_t)job->low + scale_to(pair_bits(from, which, b), job->span));
}

static int64_t integers(fbp_random_position at, int64_t n, int64_t low, int64_t high, int64_t *out) {
    return run(&(random_job){.at = at,
                             .n = n,
                             .per_block = 2,
                             .buffer = integers_buffer,
                             .out = (char *)out,
                             .element_size = 8,
                             .low = low,
                             .span = (uint64_t)high - (uint64_t)low,
                             .nanoseconds = 1.5});
}

static int64_t permutation(fbp_random_position at, int64_t n, int64_t *out) {
    planes words;
    for (int64_t i = 0; i < n; i++) out[i] = i;
    int64_t step = 0; /* two steps a block; step s settles place n - 1 - s */
    for (int64_t place = n - 1; place > 0; place--, step++) {
        const int64_t in_buffer = step % (2 * BUFFER_BLOCKS);
        if (in_buffer == 0) {
            fbp_random_position here = at;
            here.block += (uint64_t)(step / 2);
            const int64_t needed = (place + 1) / 2;
            philox(&words, here, needed < BUFFER_BLOCKS ? (int)needed : BUFFER_BLOCKS);
        }
        const uint64_t bits = pair_bits(&words, (int)(in_buffer % 2), (int)(in_buffer / 2));
        const int64_t other = (int64_t)scale_to(bits, (uint64_t)place + 1), moved = out[place];
        out[place] = out[other];
        out[other] = moved;
    }
    return (step + 1) / 2;
}

/* ---- float32 and float64 ---- */

#define PER_BLOCK 4
#include "kernels/real_f32.h"
#include "kernels/vector.inl"
FBP_INLINE float square_root_f32(float x) { return __builtin_sqrtf(x); }
FBP_INLINE fbp_vu32 bits_f32(const planes *from, int which, int b) {
    fbp_vu32 v;
    memcpy(&v, &from->word[which][b], sizeof v);
    return v;
}
#include "kernels/random_real.inl"
#include "kernels/real_end.h"
#undef PER_BLOCK

#define PER_BLOCK 2
#include "kernels/real_f64.h"
#include "kernels/vector.inl"
FBP_INLINE double square_root_f64(double x) { return __builtin_sqrt(x); }
FBP_INLINE fbp_vu64 bits_f64(const planes *from, int which, int b) {
    word_vector first, second;
    memcpy(&first, &from->word[2 * which][b], sizeof first);
    memcpy(&second, &from->word[2 * which + 1][b], sizeof second);
    return __builtin_convertvector(first, fbp_vu64) << 32 | __builtin_convertvector(second, fbp_vu64);
}
#include "kernels/random_real.inl"
#include "kernels/real_end.h"
#undef PER_BLOCK

const fbp_random_kernels FBP_ISA_SYMBOL(fbp_random_kernels) = {
    .words = words,
    .uniform_f32 = uniform_f32,
    .uniform_f64 = uniform_f64,
    .normal_f32 = normal_f32,
    .normal_f64 = normal_f64,
    .exponential_f32 = exponential_f32,
    .exponential_f64 = exponential_f64,
    .integers = integers,
    .bernoulli = bernoulli,
    .dropout_f32 = dropout_f32,
    .dropout_f64 = dropout_f64,
    .permutation = permutation,
};
