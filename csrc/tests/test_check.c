/* test_check.c -- what FASTBP_CHECK=1 must find: plans that are corrupted on purpose, against a replay of what was captured.
 *
 * One program has all kinds of lines: dropout, a product with bias and tanh, a write into state, an optimizer's step whose gradient
 * is an argument, and a result.  Sound plans are held to replays by test_plan.c as well, over random programs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "exec/apply.h"
#include "exec/capture.h"
#include "exec/replay.h"
#include "kernels/kernels.h"
#include "tests/expect.h"

enum { N = 6, STATE = 4 }; /* every matrix is (N, N) */

static fbp_tensor *matrix(double phase) {
    const int64_t shape[2] = {N, N};
    fbp_layout layout;
    fbp_tensor *t;
    must(fbp_layout_contiguous(&layout, FBP_FLOAT64, 2, shape));
    must(fbp_tensor_empty(&layout, 0, 0, &t));
    for (int64_t i = 0; i < t->numel; i++) ((double *)t->data)[i] = 0.5 * sin(phase + 1.7 * (double)i) + 0.1;
    return t;
}

static fbp_tensor *apply(fbp_op op, fbp_tensor *a, fbp_tensor *b, fbp_tensor *c, int count, const void *attributes, int bytes) {
    fbp_tensor *inputs[3] = {a, b, c}, *out;
    must(fbp_apply(op, count, inputs, attributes, bytes, &out));
    return out;
}

/* ---- the program ------------------------------------------------------------------------------------------------------------ */

/* state[0]: weight; [1]: a running mean; [2]: a parameter; [3]: its momentum. */
typedef struct world {
    fbp_program *captured;
    fbp_plan *plan;
    fbp_tensor *x, *gradient, *result, *state[STATE], *before[STATE];
    int32_t x_buffer, gradient_buffer, result_buffer, state_buffers[STATE];
    int64_t steps[1];
} world;

static fbp_tensor *argument(fbp_capture *capture, const fbp_tensor *given, int32_t *buffer) {
    fbp_layout layout;
    fbp_tensor *symbol;
    fbp_layout_of(given, &layout);
    must(fbp_capture_tensor(&layout, 0, 0, &symbol));
    *buffer = fbp_program_buffer(capture->program, symbol->storage);
    capture->program->buffers[*buffer].kind = FBP_BUFFER_INPUT;
    return symbol;
}

static fbp_tensor *dropped(fbp_capture *capture, fbp_tensor *x) {
    fbp_generator place;
    must(fbp_capture_draw(capture, fbp_generator_default(), (x->numel + 3) / 4 + 1, &place));
    const fbp_source_attribute source = {.seed = place.seed, .offset = place.offset, .p = {0.25}};
    return apply(FBP_OP_dropout, x, NULL, NULL, 1, &source, (int)offsetof(fbp_source_attribute, shape));
}

static void capture_lines(world *w, fbp_capture *capture) {
    fbp_program *program = capture->program;
    fbp_tensor *x = argument(capture, w->x, &w->x_buffer), *gradient = argument(capture, w->gradient, &w->gradient_buffer);
    fbp_tensor *noisy = dropped(capture, x), *product = apply(FBP_OP_matmul, noisy, w->state[0], NULL, 2, NULL, 0);
    fbp_tensor *y = apply(FBP_OP_tanh, product, NULL, NULL, 1, NULL, 0);
    fbp_tensor *mean = apply(FBP_OP_add, w->state[1], y, NULL, 2, NULL, 0), *result = apply(FBP_OP_mul, mean, y, NULL, 2, NULL, 0);
    must(fbp_capture_write(capture, w->state[1], mean));
    fbp_tensor *parts[FBP_UPDATE_PARTS] = {w->state[2], gradient, w->state[3], NULL, NULL};
    must(fbp_capture_update(capture, FBP_OP_sgd, 1, parts, 0));
    fbp_layout layout;
    must(fbp_layout_contiguous(&layout, FBP_FLOAT64, 2, fbp_shape(result)));
    const int32_t from = fbp_program_value(program, result);
    w->result_buffer = fbp_program_buffer_add(program, FBP_BUFFER_RESULT, result->numel * 8);
    const int32_t to = fbp_program_value_add(program, w->result_buffer, 0, &layout);
    fbp_line *line = fbp_program_line_add(program, FBP_LINE_WRITE, FBP_OP_copy, 1, NULL, 0);
    line->inputs[0] = from;
    line->output = to;
    for (int i = 0; i < STATE; i++) w->state_buffers[i] = fbp_program_buffer(program, w->state[i]->storage);
    fbp_tensor *made[] = {x, gradient, noisy, product, y, mean, result};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) fbp_release(made[i]);
}

static world make_world(void) {
    world w = {.x = matrix(0), .gradient = matrix(1), .result = matrix(2)};
    fbp_capture *capture;
    for (int i = 0; i < STATE; i++) {
        w.state[i] = matrix(3 + i);
        w.before[i] = matrix(3 + i);
    }
    must(fbp_capture_begin(&capture));
    capture_lines(&w, capture);
    fbp_capture_pause();
    must(fbp_replay_program(capture->program, &w.captured));
    must(fbp_plan_new(capture->program, 1, 1, &w.plan));
    w.plan->draws[0] = (fbp_draw_slot){.generator = capture->generators[0].generator, .blocks = capture->generators[0].blocks};
    capture->program = NULL;
    fbp_capture_free(capture);
    fbp_plan_bind(w.plan, w.x_buffer, w.x->data);
    fbp_plan_bind(w.plan, w.gradient_buffer, w.gradient->data);
    fbp_plan_bind(w.plan, w.result_buffer, w.result->data);
    w.plan->updates[0].hyper.sgd = (fbp_sgd){.lr = 0.1, .momentum = 0.9};
    w.plan->updates[0].steps[0] = 1; /* not the first: the momentum counts */
    return w;
}

static void drop_world(world *w) {
    fbp_plan_free(w->plan);
    fbp_program_free(w->captured);
    fbp_release(w->x);
    fbp_release(w->gradient);
    fbp_release(w->result);
    for (int i = 0; i < STATE; i++) {
        fbp_release(w->state[i]);
        fbp_release(w->before[i]);
    }
}

/* ---- a checked call ------------------------------------------------------------------------------------------------------------ */

/* The plan runs once; what is left behind is held to a replay of what was there before. */
static fbp_status call(world *w) {
    static const char *const names[STATE] = {"weight", "running mean", "parameter", "momentum"};
    fbp_replay *replay;
    must(fbp_replay_new(w->captured, 1, &replay));
    w->steps[0] = 1;
    replay->steps[0] = w->steps;
    replay->updates[0].hyper.sgd = (fbp_sgd){.lr = 0.1, .momentum = 0.9};
    must(fbp_replay_fill(replay, w->x_buffer, 0, w->x));
    must(fbp_replay_fill(replay, w->gradient_buffer, 0, w->gradient));
    for (int i = 0; i < STATE; i++) must(fbp_replay_fill(replay, w->state_buffers[i], 0, w->state[i]));
    must(fbp_replay_run(replay, 0));
    must(fbp_plan_run_checked(w->plan)); /* the steps by themselves are sound, whatever they are given */
    fbp_status status = fbp_replay_compare(replay, w->result_buffer, 0, NULL, w->result, "result");
    for (int i = 0; i < STATE && status == FBP_OK; i++)
        status = fbp_replay_compare(replay, w->state_buffers[i], 0, w->state[i], w->state[i], names[i]);
    fbp_replay_free(replay);
    return status;
}

static const fbp_line *find_line(const world *w, fbp_line_kind kind) {
    const fbp_program *p = w->plan->program;
    for (int32_t i = 0; i < p->line_count; i++)
        if (p->lines[i].kind == kind) return &p->lines[i];
    printf("the plan has no line of kind %d\n", kind);
    exit(1);
}

static void expect(world *w, const char *fault, const char *named) {
    const fbp_status status = call(w);
    CHECK(status == FBP_ERROR_RUNTIME && strstr(fbp_message(), named), "%s: status %d, %s", fault, status, status ? fbp_message() : "nothing found");
    drop_world(w);
}

/* ---- faults -------------------------------------------------------------------------------------------------------------------- */

static void test_sound(void) {
    world w = make_world();
    for (int i = 0; i < 4; i++) {
        const fbp_status status = call(&w);
        CHECK(status == FBP_OK, "call %d: %s", i, fbp_message());
    }
    drop_world(&w);
}

/* A product that walks its left operand by other strides, as one would that took them from the wrong axes. */
static void test_strides(void) {
    world w = make_world();
    fbp_epilogue *e = find_line(&w, FBP_LINE_PRODUCT)->detail;
    CHECK(e->a_row == N && e->a_col == 1, "strides %lld, %lld", (long long)e->a_row, (long long)e->a_col);
    e->a_row = 1;
    e->a_col = N;
    expect(&w, "turned operand", "result");
}

static void test_epilogue(void) {
    world w = make_world();
    fbp_epilogue *e = find_line(&w, FBP_LINE_PRODUCT)->detail;
    e->c_row = 0; /* every row over the first */
    expect(&w, "rows of the product", "result");
}

/* The gradient lies in an argument, which is elsewhere at the second call; the update's list still has the first one's address. */
static void test_stale_list(void) {
    world w = make_world();
    CHECK(call(&w) == FBP_OK, "first call: %s", fbp_message());
    fbp_tensor *other = matrix(20);
    fbp_plan_bind(w.plan, w.gradient_buffer, other->data);
    w.plan->moved = false;
    fbp_tensor *first = w.gradient;
    w.gradient = other;
    expect(&w, "stale list of an update", "parameter");
    fbp_release(first);
}

static void test_wrong_memory(void) {
    world w = make_world();
    fbp_plan_bind(w.plan, w.x_buffer, w.before[0]->data);
    expect(&w, "an argument of another call", "result");
    w = make_world();
    fbp_plan_bind(w.plan, w.state_buffers[1], w.before[1]->data);
    expect(&w, "state that was replaced", "running mean");
    w = make_world();
    fbp_tensor *elsewhere = matrix(9);
    fbp_plan_bind(w.plan, w.result_buffer, elsewhere->data);
    expect(&w, "a result that is elsewhere", "result");
    fbp_release(elsewhere);
}

static void test_numbers(void) {
    world w = make_world();
    w.plan->updates[0].hyper.sgd.lr = 0.11;
    expect(&w, "another learning rate", "parameter");
    w = make_world();
    w.plan->updates[0].steps[0] = 0;
    expect(&w, "momentum taken for fresh", "parameter");
    w = make_world();
    w.plan->program->draws[0].offset += 3;
    expect(&w, "another place in the random sequence", "result");
}

/* A line that was dropped, as by a pass that thinks that no one reads it. */
static void test_dropped_line(void) {
    world w = make_world();
    const fbp_line *update = find_line(&w, FBP_LINE_UPDATE);
    fbp_program *p = w.plan->program;
    const int32_t at = (int32_t)(update - p->lines);
    memmove(&p->lines[at], &p->lines[at + 1], (size_t)(p->line_count - at - 1) * sizeof *p->lines);
    memmove(&w.plan->steps[at], &w.plan->steps[at + 1], (size_t)(p->line_count - at - 1) * sizeof *w.plan->steps);
    p->line_count--;
    for (int32_t i = at; i < p->line_count; i++) w.plan->steps[i].line = &p->lines[i];
    expect(&w, "an update that was dropped", "parameter");
}

/* Lines that a capture does not make are refused by name, as are tensors that have no room. */
static void test_refusals(void) {
    world w = make_world();
    fbp_replay *replay;
    for (int32_t i = 0; i < w.captured->line_count; i++)
        if (w.captured->lines[i].op == FBP_OP_tanh) w.captured->lines[i].kind = FBP_LINE_LOSS;
    must(fbp_replay_new(w.captured, 1, &replay));
    CHECK(fbp_replay_run(replay, 0) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "tanh"), "a kind that is not known: %s", fbp_message());
    CHECK(fbp_replay_fill(replay, w.x_buffer, 8, w.x) == FBP_ERROR_RUNTIME, "a fill beyond the end");
    CHECK(fbp_replay_compare(replay, w.x_buffer, 8, NULL, w.x, "x") == FBP_ERROR_RUNTIME, "a comparison beyond the end");
    fbp_replay_free(replay);
    drop_world(&w);
}

/* What counts as different. */
static void test_compare(void) {
    const double a[4] = {1e3, NAN, INFINITY, 1}, b[4] = {1e3, NAN, INFINITY, 1 + 1e-11}, c[4] = {1e3, NAN, -INFINITY, 1}, e[4] = {1e3, 0, INFINITY, 1};
    const int64_t i = (int64_t)1 << 60, k = i + 1;
    fbp_discrepancy d = fbp_elements_compare(FBP_FLOAT64, 4, (const char *)a, (const char *)b, 0);
    CHECK(d.difference > 0 && d.difference <= d.allowed, "roundings: %g of %g", d.difference, d.allowed);
    d = fbp_elements_compare(FBP_FLOAT64, 1, (const char *)&a[3], (const char *)&b[3], 0);
    CHECK(d.difference > d.allowed, "roundings of a small number: %g of %g", d.difference, d.allowed);
    d = fbp_elements_compare(FBP_FLOAT64, 4, (const char *)a, (const char *)c, 0);
    CHECK(d.difference > d.allowed, "infinities");
    d = fbp_elements_compare(FBP_FLOAT64, 4, (const char *)a, (const char *)e, 0);
    CHECK(d.difference > d.allowed, "a NaN");
    d = fbp_elements_compare(FBP_INT64, 1, (const char *)&i, (const char *)&k, 0);
    CHECK(d.difference > d.allowed, "integers that no double tells apart");
}

int main(void) {
    fbp_kernels_init();
    fbp_generator_seed(fbp_generator_default(), 1);
    test_compare();
    const int64_t before = fbp_memory_statistics().live_blocks;
    test_sound();
    test_strides();
    test_epilogue();
    test_stale_list();
    test_wrong_memory();
    test_numbers();
    test_dropped_line();
    test_refusals();
    CHECK(fbp_memory_statistics().live_blocks == before, "blocks: %lld before, %lld after", (long long)before,
          (long long)fbp_memory_statistics().live_blocks);
    if (failures) printf("%d failures\n", failures);
    else printf("test_check: all passed\n");
    return failures != 0;
}
