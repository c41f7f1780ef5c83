/* test_plan.c -- random programs, eager and planned: the same numbers, the program verified after every pass, nothing leaked.
 *
 * A program is a list of steps over a pool of tensors.  It is run at once, and captured, planned and run; both end with the
 * gradients of two parameters.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "exec/apply.h"
#include "exec/backward.h"
#include "exec/capture.h"
#include "exec/replay.h"
#include "kernels/kernels.h"
#include "tests/expect.h"

enum { POOL = 24, STEPS = 14, RESULTS = 3 };

static uint32_t random_state;
static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

static fbp_tensor *matrix(int64_t rows, int64_t columns, bool requires_grad) {
    const int64_t shape[2] = {rows, columns};
    fbp_layout layout;
    fbp_tensor *t;
    must(fbp_layout_contiguous(&layout, FBP_FLOAT64, 2, shape));
    must(fbp_tensor_empty(&layout, 0, 0, &t));
    for (int64_t i = 0; i < t->numel; i++) ((double *)t->data)[i] = (double)draw(2000) / 1000.0 - 1.0;
    if (requires_grad) t->flags |= FBP_REQUIRES_GRAD;
    return t;
}

/* ---- programs -------------------------------------------------------------------------------------------------------------- */

typedef struct step {
    uint32_t kind, a, b, c;
} step;

typedef struct pool {
    fbp_tensor *tensors[POOL];
    int count;
} pool;

static void keep(pool *p, fbp_tensor *t) {
    if (p->count < POOL) p->tensors[p->count++] = t;
    else fbp_release(t);
}

static fbp_tensor *apply(fbp_op op, int count, fbp_tensor *a, fbp_tensor *b, fbp_tensor *c, const void *attributes, int bytes) {
    fbp_tensor *inputs[3] = {a, b, c}, *out;
    must(fbp_apply(op, count, inputs, attributes, bytes, &out));
    return out;
}

static bool is_square(const fbp_tensor *t, int64_t n) { return t->ndim == 2 && fbp_shape(t)[0] == n && fbp_shape(t)[1] == n; }

static void run_reduction(pool *p, const step *s, fbp_tensor *a) {
    const fbp_reduce_attribute rows = {.dims = 2, .keepdim = 1}, columns = {.dims = 1, .keepdim = 1}, all = {.dims = 3, .keepdim = 1};
    const fbp_reduce_attribute *which[3] = {&rows, &columns, &all};
    keep(p, apply(s->b % 2 ? FBP_OP_sum : FBP_OP_mean, 1, a, NULL, NULL, which[s->c % 3], sizeof rows));
}

/* A part of a fresh copy of `a` is replaced by b's. */
static void run_write(pool *p, fbp_tensor *a, fbp_tensor *b, int64_t n) {
    fbp_slice_attribute slice = {.ndim = 2, .axis = {{1, 1, n - 1, n}, {0, 1, n, n}}};
    fbp_tensor *copy = apply(FBP_OP_copy, 1, a, NULL, NULL, NULL, 0);
    fbp_tensor *part = apply(FBP_OP_slice, 1, b, NULL, NULL, &slice, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, 2));
    must(fbp_assign(&copy, &slice, part));
    fbp_release(part);
    keep(p, copy);
}

/* The rows of `a` as a sequence of one step each, (n, 1, n), whose middle axis has a stride that no packed array has there; times b. */
static void run_sequence(pool *p, fbp_tensor *a, fbp_tensor *b, int64_t n) {
    const fbp_shape_attribute apart = {.ndim = 3, .shape = {1, n, n}}, square = {.ndim = 2, .shape = {n, n}};
    const fbp_permute_attribute turn = {.ndim = 3, .axes = {1, 0, 2}};
    fbp_tensor *batch = apply(FBP_OP_reshape, 1, a, NULL, NULL, &apart, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, 3));
    fbp_tensor *rows = apply(FBP_OP_permute, 1, batch, NULL, NULL, &turn, sizeof turn);
    fbp_tensor *product = apply(FBP_OP_matmul, 2, rows, b, NULL, NULL, 0);
    fbp_tensor *small = apply(FBP_OP_tanh, 1, product, NULL, NULL, NULL, 0);
    keep(p, apply(FBP_OP_reshape, 1, small, NULL, NULL, &square, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, 2)));
    fbp_release(small);
    fbp_release(product);
    fbp_release(rows);
    fbp_release(batch);
}

static void run_step(pool *p, const step *s, int64_t n) {
    static const fbp_op unary[] = {FBP_OP_tanh, FBP_OP_sigmoid, FBP_OP_relu, FBP_OP_neg, FBP_OP_square, FBP_OP_sin};
    static const fbp_op binary[] = {FBP_OP_add, FBP_OP_mul, FBP_OP_sub, FBP_OP_maximum};
    fbp_tensor *a = p->tensors[s->a % (uint32_t)p->count], *b = p->tensors[s->b % (uint32_t)p->count];
    switch (s->kind) {
        case 0: case 1: keep(p, apply(unary[s->c % 6], 1, a, NULL, NULL, NULL, 0)); break;
        case 2: case 3: keep(p, apply(binary[s->c % 4], 2, a, b, NULL, NULL, 0)); break;
        case 4: {
            if (!is_square(a, n) || !is_square(b, n)) break;
            fbp_tensor *product = apply(FBP_OP_matmul, 2, a, b, NULL, NULL, 0);
            keep(p, apply(FBP_OP_tanh, 1, product, NULL, NULL, NULL, 0)); /* keeps numbers small */
            fbp_release(product);
            break;
        }
        case 5: run_reduction(p, s, a); break;
        case 6: {
            const fbp_permute_attribute turn = {.ndim = 2, .axes = {1, 0}};
            keep(p, apply(FBP_OP_permute, 1, a, NULL, NULL, &turn, sizeof turn));
            break;
        }
        case 7: { /* in place, on a copy */
            fbp_tensor *copy = apply(FBP_OP_copy, 1, a, NULL, NULL, NULL, 0), *inputs[2] = {copy, b};
            if (fbp_same_shape(a, b) || b->numel == 1) must(fbp_apply_in_place(s->c % 2 ? FBP_OP_add : FBP_OP_mul, 2, inputs, NULL, 0, &copy));
            keep(p, copy);
            break;
        }
        case 8: {
            fbp_tensor *mask = apply(FBP_OP_gt, 2, a, b, NULL, NULL, 0);
            keep(p, apply(FBP_OP_where, 3, mask, a, b, NULL, 0));
            fbp_release(mask);
            break;
        }
        case 9:
            if (is_square(a, n) && is_square(b, n)) run_sequence(p, a, b, n);
            break;
        default:
            if (is_square(a, n) && is_square(b, n)) run_write(p, a, b, n);
    }
}

/* The program's results: its last tensors, and the gradients of leaves[0..2) of the sum of the last one. */
static void run_program(const step *steps, int64_t n, fbp_tensor *x, fbp_tensor **leaves, fbp_tensor **results, fbp_tensor **gradients) {
    const fbp_reduce_attribute all = {.dims = 3};
    pool p = {.tensors = {fbp_retain(x), fbp_retain(leaves[0]), fbp_retain(leaves[1])}, .count = 3};
    for (int i = 0; i < STEPS; i++) run_step(&p, &steps[i], n);
    fbp_tensor *total = apply(FBP_OP_sum, 1, p.tensors[p.count - 1], NULL, NULL, &all, sizeof all);
    for (int i = 1; i < p.count - 1; i++) { /* all that was made counts */
        fbp_tensor *part = apply(FBP_OP_mean, 1, p.tensors[i], NULL, NULL, &all, sizeof all);
        fbp_tensor *sum = apply(FBP_OP_add, 2, total, part, NULL, NULL, 0);
        fbp_release(total);
        fbp_release(part);
        total = sum;
    }
    for (int i = 0; i < RESULTS - 1; i++) results[i] = fbp_retain(p.tensors[p.count - 1 - i]);
    results[RESULTS - 1] = fbp_retain(total);
    const fbp_backward_request request = {.root_count = 1, .roots = &total, .retain_graph = true, .input_count = 2, .inputs = leaves, .results = gradients};
    must(fbp_backward(&request));
    fbp_release(total);
    for (int i = 0; i < p.count; i++) fbp_release(p.tensors[i]);
}

/* ---- planned ----------------------------------------------------------------------------------------------------------------- */

/* A RESULT buffer that the program fills with `t`. */
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

static void compare(const char *what, const fbp_tensor *wanted, const double *found, int64_t n, uint32_t seed) {
    double largest = 1;
    fbp_tensor *flat;
    must(fbp_contiguous_copy((fbp_tensor *)wanted, &flat));
    const double *w = (const double *)flat->data;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(w[i]));
    for (int64_t i = 0; i < n; i++) CHECK(fabs(w[i] - found[i]) <= 1e-11 * largest, "seed %u, %s: %g, wanted %g at %lld", seed, what, found[i], w[i], (long long)i);
    fbp_release(flat);
}

/* A program, captured and planned, with memory for its results. */
typedef struct planned {
    fbp_plan *plan;
    double *memory[RESULTS + 2];
    int64_t numel[RESULTS + 2];
    int32_t input, leaves[2], buffers[RESULTS + 2];
    fbp_program *captured; /* as it was before the passes */
} planned;

static planned make_plan(const step *steps, int64_t n, fbp_tensor *x, fbp_tensor **leaves, fbp_budget budget) {
    planned made = {0};
    fbp_tensor *captured[RESULTS + 2] = {0}, *symbol;
    fbp_layout layout;
    fbp_capture *capture;
    must(fbp_capture_begin(&capture));
    fbp_layout_of(x, &layout);
    must(fbp_capture_tensor(&layout, 0, 0, &symbol));
    fbp_program *program = capture->program;
    program->budget = budget;
    made.input = fbp_program_buffer(program, symbol->storage);
    program->buffers[made.input].kind = FBP_BUFFER_INPUT;
    run_program(steps, n, symbol, leaves, captured, captured + RESULTS);
    int32_t *buffers = made.buffers;
    for (int i = 0; i < 2; i++) made.leaves[i] = fbp_program_buffer(program, leaves[i]->storage);
    for (int i = 0; i < RESULTS + 2; i++) {
        buffers[i] = captured[i] ? result_buffer(program, captured[i]) : -1;
        made.numel[i] = captured[i] ? captured[i]->numel : 0;
        if (captured[i]) made.memory[i] = malloc((size_t)captured[i]->numel * sizeof(double));
        if (captured[i]) fbp_release(captured[i]);
    }
    fbp_release(symbol);
    fbp_capture_pause();
    must(fbp_program_verify(program, "capture"));
    must(fbp_replay_program(program, &made.captured));
    must(fbp_plan_new(program, 0, 0, &made.plan));
    must(fbp_program_verify(made.plan->program, "place"));
    capture->program = NULL;
    fbp_capture_free(capture);
    for (int i = 0; i < RESULTS + 2; i++)
        if (buffers[i] >= 0) fbp_plan_bind(made.plan, buffers[i], (char *)made.memory[i]);
    return made;
}

static void drop_plan(planned *made) {
    fbp_plan_free(made->plan);
    fbp_program_free(made->captured);
    for (int i = 0; i < RESULTS + 2; i++) free(made->memory[i]);
}

static void keep_memory(void *owner) { (void)owner; }

/* What the plan left behind is what its lines give one by one. */
static void check_replay(uint32_t seed, const planned *made, const fbp_tensor *x, fbp_tensor **leaves, fbp_tensor *const *results) {
    fbp_replay *replay;
    must(fbp_replay_new(made->captured, 0, &replay));
    must(fbp_replay_fill(replay, made->input, 0, x));
    for (int i = 0; i < 2; i++) must(fbp_replay_fill(replay, made->leaves[i], 0, leaves[i]));
    must(fbp_replay_run(replay, 0));
    for (int i = 0; i < RESULTS + 2; i++) {
        if (!made->memory[i]) continue;
        fbp_layout layout;
        fbp_tensor *found;
        must(fbp_layout_contiguous(&layout, FBP_FLOAT64, results[i]->ndim, fbp_shape(results[i])));
        must(fbp_tensor_borrow(&layout, made->memory[i], made->numel[i] * 8, false, keep_memory, NULL, &found));
        CHECK(fbp_replay_compare(replay, made->buffers[i], 0, NULL, found, "result") == FBP_OK, "seed %u, %d: %s", seed, i, fbp_message());
        ((double *)found->data)[0] += 1e-6 * fmax(1, fbp_tensor_largest(found));
        if (isfinite(((double *)found->data)[0]))
            CHECK(fbp_replay_compare(replay, made->buffers[i], 0, NULL, found, "result") != FBP_OK, "seed %u, %d: a wrong element", seed, i);
        fbp_release(found);
    }
    fbp_replay_free(replay);
}

static int smaller_plans, repeated_lines;

/* Within any budget: the bits of the plan without one, and never more memory. */
static void test_budgets(uint32_t seed, const step *steps, int64_t n, fbp_tensor *x, fbp_tensor **leaves, const planned *free_plan) {
    const fbp_budget budgets[] = {{.fraction = 0.8}, {.fraction = 0.5}, {.bytes = 1}};
    for (int k = 0; k < 3; k++) {
        planned made = make_plan(steps, n, x, leaves, budgets[k]);
        const int64_t free_bytes = fbp_plan_peak_bytes(free_plan->plan), bytes = fbp_plan_peak_bytes(made.plan);
        const fbp_budget *budget = &made.plan->program->budget;
        CHECK(budget->without == free_bytes, "seed %u: %lld without a budget, %lld said", seed, (long long)free_bytes, (long long)budget->without);
        CHECK(bytes <= free_bytes, "seed %u: %lld bytes, %lld without a budget", seed, (long long)bytes, (long long)free_bytes);
        CHECK(budget->met == (bytes <= (k == 2 ? 1 : (int64_t)(budgets[k].fraction * (double)free_bytes))), "seed %u: budget %d", seed, k);
        smaller_plans += bytes < free_bytes;
        for (int32_t i = 0; i < made.plan->program->line_count; i++) repeated_lines += fbp_line_is_again(&made.plan->program->lines[i]);
        fbp_plan_bind(made.plan, made.input, x->data);
        must(fbp_plan_run(made.plan));
        for (int i = 0; i < RESULTS + 2; i++)
            CHECK(memcmp(made.memory[i] ? made.memory[i] : made.memory[0], free_plan->memory[i] ? free_plan->memory[i] : made.memory[0],
                         (size_t)made.numel[i] * sizeof(double)) == 0, "seed %u, budget %d: other bits in result %d", seed, k, i);
        drop_plan(&made);
    }
}

static void test_program(uint32_t seed, int64_t n) {
    random_state = seed;
    step steps[STEPS];
    for (int i = 0; i < STEPS; i++) steps[i] = (step){draw(11), draw(1000), draw(1000), draw(1000)};
    fbp_tensor *x = matrix(n, n, false), *leaves[2] = {matrix(n, n, true), matrix(1, n, true)};
    fbp_tensor *results[RESULTS + 2];
    planned made = make_plan(steps, n, x, leaves, (fbp_budget){0});
    for (int turn = 0; turn < 2; turn++) {
        for (int64_t i = 0; i < x->numel; i++) ((double *)x->data)[i] *= 0.75;
        run_program(steps, n, x, leaves, results, results + RESULTS);
        fbp_plan_bind(made.plan, made.input, x->data);
        must(turn ? fbp_plan_run_checked(made.plan) : fbp_plan_run(made.plan));
        for (int i = 0; i < RESULTS + 2; i++) {
            CHECK((results[i] != NULL) == (made.memory[i] != NULL), "seed %u: result %d", seed, i);
            if (results[i] && made.memory[i]) compare(i < RESULTS ? "result" : "gradient", results[i], made.memory[i], results[i]->numel, seed);
        }
        check_replay(seed, &made, x, leaves, results);
        for (int i = 0; i < RESULTS + 2; i++)
            if (results[i]) fbp_release(results[i]);
    }
    must(fbp_plan_run(made.plan)); /* the checked run was on other kernels */
    test_budgets(seed, steps, n, x, leaves, &made);
    drop_plan(&made);
    fbp_release(x);
    fbp_release(leaves[0]);
    fbp_release(leaves[1]);
}

/* A program that is none is told apart: a read before the write, an arena with two tenants. */
static void test_verify(void) {
    fbp_program *program;
    fbp_layout layout;
    const int64_t shape = 4;
    must(fbp_program_new(&program));
    must(fbp_layout_contiguous(&layout, FBP_FLOAT64, 1, &shape));
    int32_t values[3];
    for (int i = 0; i < 3; i++) values[i] = fbp_program_value_add(program, fbp_program_buffer_add(program, FBP_BUFFER_ARENA, 32), 0, &layout);
    for (int i = 0; i < 2; i++) {
        fbp_line *line = fbp_program_line_add(program, FBP_LINE_OP, FBP_OP_neg, 1, NULL, 0);
        line->inputs[0] = values[i];
        line->output = values[i + 1];
    }
    CHECK(fbp_program_verify(program, "test") == FBP_ERROR_RUNTIME, "a read before the write");
    program->buffers[0].kind = FBP_BUFFER_INPUT;
    CHECK(fbp_program_verify(program, "test") == FBP_OK, "%s", fbp_message());
    program->arena_bytes = 64;
    program->buffers[1] = (fbp_buffer){.bytes = 32, .offset = 0, .values = values[1], .first = 0, .last = 2, .writes = 1};
    program->buffers[2] = (fbp_buffer){.bytes = 32, .offset = 16, .values = values[2], .first = 1, .last = 3, .writes = 1};
    CHECK(fbp_program_verify(program, "test") == FBP_ERROR_RUNTIME, "two tenants of one place");
    program->lines[1].output = 99;
    CHECK(fbp_program_verify(program, "test") == FBP_ERROR_RUNTIME, "a value that is none");
    program->lines[1].output = values[2];
    fbp_program_free(program);
}

int main(void) {
    fbp_kernels_init();
    test_verify();
    const int64_t before = fbp_memory_statistics().live_blocks;
    for (uint32_t seed = 1; seed <= 300; seed++) test_program(seed, seed % 5 == 0 ? 40 : 6);
    CHECK(fbp_memory_statistics().live_blocks == before, "blocks: %lld before, %lld after", (long long)before,
          (long long)fbp_memory_statistics().live_blocks);
    CHECK(smaller_plans >= 200 && repeated_lines >= 800, "budgets hardly do anything: %d smaller plans, %d repeated lines", smaller_plans, repeated_lines);
    if (failures) printf("%d failures\n", failures);
    else printf("test_plan: all passed\n");
    return failures != 0;
}
