/* test_absent.c -- derivatives of several results, for sweeps that reach some of them: as the sweep from these alone.
 *
 * Random functions of two leaves with four results: for each set of results that are not used, the pass is held to the eager
 * sweep from the others, gradients that are not there included.  What lines write in parts is built by hand.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "exec/apply.h"
#include "exec/backward.h"
#include "exec/capture.h"
#include "exec/run.h"
#include "kernels/kernels.h"
#include "tests/expect.h"

enum { STEPS = 12, RESULTS = 4, LEAVES = 2, N = 5 };

static uint32_t random_state;
static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

static fbp_tensor *matrix(bool requires_grad) {
    const int64_t shape[2] = {N, N};
    fbp_layout layout;
    fbp_tensor *t;
    must(fbp_layout_contiguous(&layout, FBP_FLOAT64, 2, shape));
    must(fbp_tensor_empty(&layout, 0, 0, &t));
    for (int64_t i = 0; i < t->numel; i++) ((double *)t->data)[i] = (double)draw(2000) / 1000.0 - 1.0;
    if (requires_grad) t->flags |= FBP_REQUIRES_GRAD;
    return t;
}

static fbp_tensor *apply(fbp_op op, int count, fbp_tensor *a, fbp_tensor *b, const void *attributes, int bytes) {
    fbp_tensor *inputs[2] = {a, b}, *out;
    must(fbp_apply(op, count, inputs, attributes, bytes, &out));
    return out;
}

typedef struct step {
    uint32_t kind, a, b;
} step;

/* a with b's lower rows in place of its own. */
static fbp_tensor *written(fbp_tensor *a, fbp_tensor *b) {
    const fbp_slice_attribute slice = {.ndim = 2, .axis = {{1, 1, N - 1, N}, {0, 1, N, N}}};
    fbp_tensor *copy = apply(FBP_OP_copy, 1, a, NULL, NULL, 0);
    fbp_tensor *part = apply(FBP_OP_slice, 1, b, NULL, &slice, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, 2));
    must(fbp_assign(&copy, &slice, part));
    fbp_release(part);
    return copy;
}

static fbp_tensor *run_step(const step *s, fbp_tensor *a, fbp_tensor *b) {
    static const fbp_op unary[] = {FBP_OP_tanh, FBP_OP_sigmoid, FBP_OP_neg, FBP_OP_sin};
    static const fbp_op binary[] = {FBP_OP_add, FBP_OP_mul, FBP_OP_sub, FBP_OP_maximum};
    if (s->kind < 3) return apply(unary[s->kind], 1, a, NULL, NULL, 0);
    if (s->kind < 7) return apply(binary[s->kind - 3], 2, a, b, NULL, 0);
    if (s->kind == 7) return written(a, b);
    fbp_tensor *product = apply(FBP_OP_matmul, 2, a, b, NULL, 0), *small = apply(FBP_OP_tanh, 1, product, NULL, NULL, 0);
    fbp_release(product);
    return small;
}

/* The function's results: the last of what the steps make of x and the leaves. */
static void run_function(const step *steps, fbp_tensor *x, fbp_tensor **leaves, fbp_tensor **results) {
    fbp_tensor *pool[3 + STEPS] = {fbp_retain(x), fbp_retain(leaves[0]), fbp_retain(leaves[1])};
    for (uint32_t i = 0; i < STEPS; i++) pool[3 + i] = run_step(&steps[i], pool[steps[i].a % (3 + i)], pool[steps[i].b % (3 + i)]);
    for (int i = 0; i < RESULTS; i++) results[i] = apply(FBP_OP_mul, 2, pool[3 + STEPS - 1 - 2 * i], leaves[i % LEAVES], NULL, 0);
    for (int i = 0; i < 3 + STEPS; i++) fbp_release(pool[i]);
}

/* Gradients by the sweep from the results of `mask`; NULL where it does not come. */
static void sweep(uint32_t mask, fbp_tensor **results, fbp_tensor **cotangents, fbp_tensor **leaves, fbp_tensor **gradients) {
    fbp_tensor *roots[RESULTS], *seeds[RESULTS];
    int count = 0;
    for (int i = 0; i < RESULTS; i++) {
        if (!(mask >> i & 1)) continue;
        roots[count] = results[i];
        seeds[count++] = cotangents[i];
    }
    for (int i = 0; i < LEAVES; i++) gradients[i] = NULL;
    const fbp_backward_request request = {.root_count = count, .roots = roots, .cotangents = seeds, .retain_graph = true, .input_count = LEAVES,
                                          .inputs = leaves, .results = gradients};
    must(fbp_backward(&request));
}

/* ---- captured ------------------------------------------------------------------------------------------------------------- */

typedef struct captured {
    fbp_program *program; /* reduced, both phases */
    int32_t x, cotangents[RESULTS], gradients[LEAVES];
} captured;

static fbp_tensor *symbol_of(fbp_program *program, const fbp_tensor *like, int32_t *buffer) {
    fbp_layout layout;
    fbp_tensor *made;
    fbp_layout_of(like, &layout);
    must(fbp_capture_tensor(&layout, 0, 0, &made));
    *buffer = fbp_program_buffer(program, made->storage);
    program->buffers[*buffer].kind = FBP_BUFFER_INPUT;
    return made;
}

static int32_t result_buffer(fbp_program *program, const fbp_tensor *t) {
    fbp_layout layout;
    const int32_t value = fbp_program_value(program, t);
    must(fbp_layout_contiguous(&layout, (fbp_dtype)t->dtype, t->ndim, fbp_shape(t)));
    const int32_t buffer = fbp_program_buffer_add(program, FBP_BUFFER_RESULT, t->numel * 8);
    const int32_t target = fbp_program_value_add(program, buffer, 0, &layout);
    fbp_line *line = fbp_program_line_add(program, FBP_LINE_WRITE, FBP_OP_copy, 1, NULL, 0);
    line->inputs[0] = value;
    line->output = target;
    return buffer;
}

static captured capture_function(const step *steps, fbp_tensor *x, fbp_tensor **leaves, fbp_tensor **cotangents) {
    captured made;
    fbp_capture *capture;
    fbp_tensor *results[RESULTS], *seeds[RESULTS], *gradients[LEAVES];
    must(fbp_capture_begin(&capture));
    fbp_tensor *symbol = symbol_of(capture->program, x, &made.x);
    run_function(steps, symbol, leaves, results);
    capture->program->phase = 1;
    for (int i = 0; i < RESULTS; i++) seeds[i] = symbol_of(capture->program, cotangents[i], &made.cotangents[i]);
    sweep((1u << RESULTS) - 1, results, seeds, leaves, gradients);
    for (int i = 0; i < LEAVES; i++) made.gradients[i] = result_buffer(capture->program, gradients[i]);
    fbp_capture_pause();
    made.program = capture->program;
    capture->program = NULL;
    for (int i = 0; i < RESULTS; i++) {
        fbp_release(results[i]);
        fbp_release(seeds[i]);
    }
    for (int i = 0; i < LEAVES; i++) fbp_release(gradients[i]);
    fbp_release(symbol);
    fbp_capture_free(capture);
    must(fbp_program_reduce(made.program));
    return made;
}

static bool writes(const fbp_program *program, int32_t buffer) {
    for (int32_t i = 0; i < program->line_count; i++)
        if (fbp_line_writes(program, &program->lines[i], buffer)) return true;
    return false;
}

static fbp_program *without(const captured *c, uint32_t mask) {
    fbp_program *program;
    must(fbp_program_copy(c->program, -1, &program));
    uint8_t *marks = calloc((size_t)program->buffer_count + 1, 1);
    for (int i = 0; i < RESULTS; i++) marks[c->cotangents[i]] = mask >> i & 1 ? FBP_COTANGENT_PRESENT : FBP_COTANGENT_ABSENT;
    must(fbp_program_drop_absent(program, marks));
    free(marks);
    must(fbp_program_verify(program, "absent"));
    for (int i = 0; i < RESULTS; i++)
        for (int32_t k = 0; k < program->line_count && !(mask >> i & 1); k++)
            CHECK(!fbp_line_reads(program, &program->lines[k], c->cotangents[i]), "mask %u: an absent cotangent is read", mask);
    return program;
}

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= 1e-12 * fmax(1, fabs(b)); }

static int absent_gradients, dropped_lines;

static void test_mask(uint32_t seed, uint32_t mask, const captured *c, fbp_tensor *x, fbp_tensor **cotangents, fbp_tensor **wanted) {
    double memory[LEAVES][N * N];
    fbp_plan *plan;
    fbp_program *program = without(c, mask);
    dropped_lines += c->program->line_count - program->line_count;
    for (int i = 0; i < LEAVES; i++) {
        CHECK(writes(program, c->gradients[i]) == (wanted[i] != NULL), "seed %u, mask %u: gradient %d", seed, mask, i);
        absent_gradients += wanted[i] == NULL;
    }
    must(fbp_plan_new(program, 0, 0, &plan));
    fbp_plan_bind(plan, c->x, x->data);
    for (int i = 0; i < RESULTS; i++)
        if (mask >> i & 1) fbp_plan_bind(plan, c->cotangents[i], cotangents[i]->data);
    for (int i = 0; i < LEAVES; i++) fbp_plan_bind(plan, c->gradients[i], (char *)memory[i]);
    must(fbp_plan_run(plan));
    for (int i = 0; i < LEAVES; i++) {
        if (!wanted[i]) continue;
        fbp_tensor *flat;
        must(fbp_contiguous_copy(wanted[i], &flat));
        for (int k = 0; k < N * N; k++)
            CHECK(same(memory[i][k], ((double *)flat->data)[k]), "seed %u, mask %u, gradient %d: %g, wanted %g", seed, mask, i, memory[i][k],
                  ((double *)flat->data)[k]);
        fbp_release(flat);
    }
    fbp_plan_free(plan);
}

/* What a part reads of the function's values is some of what the derivative as a whole reads. */
static void test_saved(uint32_t seed, const captured *c) {
    uint8_t saved[2][4096];
    for (uint32_t mask = (1u << RESULTS) - 1; mask >= 1; mask--) {
        fbp_program *program = without(c, mask), *second;
        uint8_t *marks = saved[mask != (1u << RESULTS) - 1];
        if (program->buffer_count > 4096) exit(1);
        memset(marks, 0, 4096);
        must(fbp_program_split(program, &second, marks));
        for (int i = 0; i < 4096; i++) CHECK(!saved[1][i] || saved[0][i] || marks == saved[0], "seed %u, mask %u: buffer %d is not saved", seed, mask, i);
        fbp_program_free(program);
        fbp_program_free(second);
    }
}

static void test_function(uint32_t seed) {
    step steps[STEPS];
    fbp_tensor *leaves[LEAVES], *cotangents[RESULTS], *results[RESULTS], *gradients[LEAVES];
    random_state = seed * 2654435761u;
    for (int i = 0; i < STEPS; i++) steps[i] = (step){draw(9), draw(1000), draw(1000)};
    fbp_tensor *x = matrix(false);
    for (int i = 0; i < LEAVES; i++) leaves[i] = matrix(true);
    for (int i = 0; i < RESULTS; i++) cotangents[i] = matrix(false);
    if (seed % 2) ((double *)x->data)[draw(N * N)] = INFINITY; /* times zero it is NaN */
    const captured c = capture_function(steps, x, leaves, cotangents);
    run_function(steps, x, leaves, results);
    for (uint32_t mask = 1; mask < 1u << RESULTS; mask++) {
        sweep(mask, results, cotangents, leaves, gradients);
        test_mask(seed, mask, &c, x, cotangents, gradients);
        for (int i = 0; i < LEAVES; i++)
            if (gradients[i]) fbp_release(gradients[i]);
    }
    test_saved(seed, &c);
    fbp_program_free(c.program);
    for (int i = 0; i < RESULTS; i++) fbp_release(results[i]);
    for (int i = 0; i < RESULTS; i++) fbp_release(cotangents[i]);
    for (int i = 0; i < LEAVES; i++) fbp_release(leaves[i]);
    fbp_release(x);
}

/* ---- written in parts ------------------------------------------------------------------------------------------------------- */

static void add_line(fbp_program *program, fbp_line_kind kind, fbp_op op, int32_t a, int32_t b, int32_t output) {
    fbp_line *line = fbp_program_line_add(program, kind, op, b < 0 ? 1 : 2, NULL, 0);
    line->inputs[0] = a;
    if (b >= 0) line->inputs[1] = b;
    line->output = output;
}

/* Two halves of an arena buffer are written from two cotangents, over numbers of the function if `filled`; the result is a copy of it. */
static void test_parts(bool filled, uint32_t mask) {
    double inputs[3][4] = {{1, 2, 0, 0}, {3, 4, 0, 0}, {5, 6, 7, 8}}, out[4] = {-1, -1, -1, -1};
    const int64_t sizes[2] = {2, 4};
    fbp_layout half, whole;
    fbp_program *program;
    fbp_plan *plan;
    int32_t buffers[5], values[7];
    must(fbp_program_new(&program));
    must(fbp_layout_contiguous(&half, FBP_FLOAT64, 1, &sizes[0]));
    must(fbp_layout_contiguous(&whole, FBP_FLOAT64, 1, &sizes[1]));
    for (int i = 0; i < 5; i++)
        buffers[i] = fbp_program_buffer_add(program, i < 3 ? FBP_BUFFER_INPUT : i == 3 ? FBP_BUFFER_ARENA : FBP_BUFFER_RESULT, i < 2 ? 16 : 32);
    for (int i = 0; i < 5; i++) values[i] = fbp_program_value_add(program, buffers[i], 0, i < 2 ? &half : &whole);
    for (int i = 0; i < 2; i++) values[5 + i] = fbp_program_value_add(program, buffers[3], 16 * i, &half);
    if (filled) add_line(program, FBP_LINE_WRITE, FBP_OP_copy, values[2], -1, values[3]);
    program->phase = 1;
    for (int i = 0; i < 2; i++) add_line(program, FBP_LINE_WRITE, FBP_OP_copy, values[i], -1, values[5 + i]);
    add_line(program, FBP_LINE_WRITE, FBP_OP_copy, values[3], -1, values[4]);
    fbp_program_count_writes(program);
    uint8_t marks[5] = {mask & 1 ? FBP_COTANGENT_PRESENT : FBP_COTANGENT_ABSENT, mask & 2 ? FBP_COTANGENT_PRESENT : FBP_COTANGENT_ABSENT};
    must(fbp_program_drop_absent(program, marks));
    must(fbp_program_verify(program, "absent"));
    must(fbp_plan_new(program, 0, 0, &plan));
    for (int i = 0; i < 3; i++) fbp_plan_bind(plan, buffers[i], (char *)inputs[i]);
    fbp_plan_bind(plan, buffers[4], (char *)out);
    must(fbp_plan_run(plan));
    for (int i = 0; i < 4; i++) {
        const double wanted = !mask ? -1 : mask >> (i / 2) & 1 ? inputs[i / 2][i % 2] : 0;
        CHECK(out[i] == wanted, "filled %d, mask %u, element %d: %g, wanted %g", filled, mask, i, out[i], wanted);
    }
    fbp_plan_free(plan);
}

/* What need not read its cotangent goes with it all the same, and with both of two; zeros stand for one of them. */
static void test_ties(uint32_t mask) {
    double inputs[3][2] = {{1, 2}, {3, 4}, {5, 6}}, out[2][2] = {{-1, -1}, {-1, -1}};
    const int64_t size = 2;
    fbp_layout layout;
    fbp_program *program;
    fbp_plan *plan;
    int32_t buffers[7], values[7];
    must(fbp_program_new(&program));
    must(fbp_layout_contiguous(&layout, FBP_FLOAT64, 1, &size));
    for (int i = 0; i < 7; i++) {
        buffers[i] = fbp_program_buffer_add(program, i < 3 ? FBP_BUFFER_INPUT : i < 5 ? FBP_BUFFER_ARENA : FBP_BUFFER_RESULT, 16);
        values[i] = fbp_program_value_add(program, buffers[i], 0, &layout);
    }
    program->phase = 1;
    add_line(program, FBP_LINE_OP, FBP_OP_copy, values[2], values[0], values[3]); /* a number of the function, with the first */
    add_line(program, FBP_LINE_OP, FBP_OP_copy, values[0], values[1], values[4]); /* the first, with the second */
    for (int i = 0; i < 2; i++) add_line(program, FBP_LINE_WRITE, FBP_OP_copy, values[3 + i], -1, values[5 + i]);
    fbp_program_count_writes(program);
    must(fbp_program_reduce(program));
    uint8_t marks[7] = {mask & 1 ? FBP_COTANGENT_PRESENT : FBP_COTANGENT_ABSENT, mask & 2 ? FBP_COTANGENT_PRESENT : FBP_COTANGENT_ABSENT};
    must(fbp_program_drop_absent(program, marks));
    for (int32_t i = 0; i < program->line_count; i++) CHECK(!fbp_line_is_tie(&program->lines[i]), "mask %u: a tie stays", mask);
    must(fbp_plan_new(program, 0, 0, &plan));
    for (int i = 0; i < 3; i++) fbp_plan_bind(plan, buffers[i], (char *)inputs[i]);
    for (int i = 0; i < 2; i++) fbp_plan_bind(plan, buffers[5 + i], (char *)out[i]);
    must(fbp_plan_run(plan));
    for (int i = 0; i < 2; i++) {
        CHECK(out[0][i] == (mask & 1 ? inputs[2][i] : -1), "mask %u: %g", mask, out[0][i]);
        CHECK(out[1][i] == (mask & 1 ? inputs[0][i] : mask ? 0 : -1), "mask %u: %g", mask, out[1][i]);
    }
    fbp_plan_free(plan);
}

int main(void) {
    fbp_kernels_init();
    const int64_t before = fbp_memory_statistics().live_blocks;
    for (uint32_t mask = 0; mask < 4; mask++) {
        test_parts(false, mask);
        test_parts(true, mask);
        test_ties(mask);
    }
    for (uint32_t seed = 1; seed <= 120; seed++) test_function(seed);
    CHECK(fbp_memory_statistics().live_blocks == before, "blocks: %lld before, %lld after", (long long)before,
          (long long)fbp_memory_statistics().live_blocks);
    CHECK(absent_gradients >= 50 && dropped_lines >= 2000, "the pass hardly does anything: %d gradients, %d lines", absent_gradients, dropped_lines);
    if (failures) printf("%d failures\n", failures);
    else printf("test_absent: all passed\n");
    return failures != 0;
}
