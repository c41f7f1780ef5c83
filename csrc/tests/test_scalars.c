/* test_scalars.c -- batched scalar programs against their lines run one by one through the same kernels: equal bits, on
 * every instruction set that runs here.
 *
 *     test_scalars          checks
 *     test_scalars --time   prints what a node of some large programs costs, instead
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "exec/scalars.h"
#include "kernels/kernels.h"

static int failures;
static long checks;

#define CHECK(condition, ...)                                                                     \
    do {                                                                                          \
        checks++;                                                                                 \
        if (!(condition) && failures++ < 20) {                                                    \
            printf("%s:%d: [%s] %s: ", __FILE__, __LINE__, fbp_kernels->isa, #condition);         \
            printf(__VA_ARGS__);                                                                  \
            printf("\n");                                                                         \
        }                                                                                         \
    } while (0)

static uint64_t state = 0x9E3779B97F4A7C15u;
static uint64_t any_bits(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static int32_t any_below(int32_t n) { return (int32_t)(any_bits() % (uint64_t)n); }

static void *memory_or_exit(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) {
        puts("no memory");
        exit(1);
    }
    return memory;
}

/* ---- programs ---- */

/* Lines that grow; values 0 .. given-1 come from outside, each line computes the next. */
typedef struct program {
    int32_t given, line_count, room, wanted_count;
    fbp_scalar_line *lines;
    int32_t *wanted; /* room for given + room */
} program;

static program program_new(int32_t given, int32_t room) {
    return (program){.given = given, .room = room, .lines = memory_or_exit((size_t)room * sizeof(fbp_scalar_line)),
                     .wanted = memory_or_exit((size_t)(given + room) * sizeof(int32_t))};
}

static void program_free(program *p) {
    free(p->lines);
    free(p->wanted);
}

static int32_t value_count(const program *p) { return p->given + p->line_count; }

/* Add a line; returns the value that it computes. */
static int32_t line(program *p, fbp_op op, int pull, int32_t a, int32_t b, int32_t c, int32_t d) {
    if (p->line_count == p->room) {
        puts("a test's program outgrew its room");
        exit(1);
    }
    const int32_t output = value_count(p);
    p->lines[p->line_count++] = (fbp_scalar_line){.op = (uint16_t)op, .pull = (uint8_t)pull, .input = {a, b, c, d}, .output = output};
    return output;
}
static int32_t binary(program *p, fbp_op op, int32_t a, int32_t b) { return line(p, op, 0, a, b, -1, -1); }
static int32_t unary(program *p, fbp_op op, int32_t a) { return line(p, op, 0, a, -1, -1, -1); }
static void want(program *p, int32_t value) { p->wanted[p->wanted_count++] = value; }

static double number(const void *values, fbp_dtype dtype, int64_t i) {
    return dtype == FBP_FLOAT32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
}
static void set_number(void *values, fbp_dtype dtype, int64_t i, double x) {
    if (dtype == FBP_FLOAT32)
        ((float *)values)[i] = (float)x;
    else
        ((double *)values)[i] = x;
}

/* Every line by itself, a kernel call of one element each, into `values` by their own numbers. */
static void run_lines(const program *p, fbp_dtype dtype, char *values) {
    const size_t size = (size_t)fbp_dtype_size(dtype);
    const int real = dtype == FBP_FLOAT64;
    for (int32_t i = 0; i < p->line_count; i++) {
        const fbp_scalar_line *line = &p->lines[i];
        const char *in[4];
        for (int k = 0; k < 4; k++) in[k] = line->input[k] < 0 ? NULL : values + (size_t)line->input[k] * size;
        char *y = values + (size_t)line->output * size;
        if (line->pull)
            fbp_kernels->pointwise->pull[line->op][line->pull - 1][real](1, y, in[0], in[1], in[2], in[3], line->parameters);
        else
            fbp_kernels->pointwise->forward[line->op][real](1, y, in[0], in[1], line->parameters);
    }
}

/* Equal bits, or NaN both: of two NaNs' bits nothing is promised. */
static bool same_bits(const char *a, const char *b, fbp_dtype dtype) {
    if (memcmp(a, b, (size_t)fbp_dtype_size(dtype)) == 0) return true;
    return isnan(number(a, dtype, 0)) && isnan(number(b, dtype, 0));
}

enum { GUARD = 16 }; /* elements behind the array of values that no step may touch */

/* Plan and run the program on given values in [low, high], compare all that is wanted with the lines run one by one. */
static void compare(const program *p, fbp_dtype dtype, double low, double high, const char *name) {
    const size_t size = (size_t)fbp_dtype_size(dtype);
    char *expected = memory_or_exit((size_t)value_count(p) * size);
    for (int32_t v = 0; v < p->given; v++)
        set_number(expected, dtype, v, low + (high - low) * (double)(any_bits() >> 11) * 0x1p-53);
    run_lines(p, dtype, expected);
    fbp_scalars *made = NULL;
    const fbp_status status =
        fbp_scalars_make(dtype, value_count(p), p->line_count, p->lines, p->wanted_count, p->wanted, &made);
    CHECK(status == FBP_OK, "%s: %s", name, fbp_message());
    if (status != FBP_OK) {
        free(expected);
        return;
    }
    const size_t slots = (size_t)fbp_scalars_slot_count(made);
    char *values = memory_or_exit((slots + GUARD) * size);
    memset(values, 0xA5, (slots + GUARD) * size);
    for (int32_t v = 0; v < p->given; v++) {
        const int32_t slot = fbp_scalars_slot(made, v);
        if (slot >= 0) memcpy(values + (size_t)slot * size, expected + (size_t)v * size, size);
    }
    for (int run = 0; run < 2; run++) { /* the second finds the first one's values */
        fbp_scalars_run(made, values);
        for (int32_t i = 0; i < p->wanted_count; i++) {
            const int32_t v = p->wanted[i], slot = fbp_scalars_slot(made, v);
            CHECK(slot >= 0 && (size_t)slot < slots, "%s: wanted value %d has slot %d", name, v, slot);
            if (slot < 0) continue;
            CHECK(same_bits(values + (size_t)slot * size, expected + (size_t)v * size, dtype), "%s: %s value %d of %d: %a, expected %a",
                  name, fbp_dtype_name(dtype), v, value_count(p), number(values, dtype, slot), number(expected, dtype, v));
        }
    }
    for (size_t i = slots * size; i < (slots + GUARD) * size; i++) CHECK((uint8_t)values[i] == 0xA5, "%s: wrote behind the values", name);
    fbp_scalars_free(made);
    free(values);
    free(expected);
}

static void compare_both(const program *p, const char *name) {
    compare(p, FBP_FLOAT32, -2, 2, name);
    compare(p, FBP_FLOAT64, -2, 2, name);
}

/* Steps of the planned program. */
static int64_t steps_of(const program *p) {
    fbp_scalars *made = NULL;
    CHECK(fbp_scalars_make(FBP_FLOAT64, value_count(p), p->line_count, p->lines, p->wanted_count, p->wanted, &made) == FBP_OK, "%s",
          fbp_message());
    const int64_t steps = made ? made->step_count : -1;
    fbp_scalars_free(made);
    return steps;
}

/* ---- random programs ---- */

/* A line of any row and pull; inputs from the last `near` values, so that small `near` makes deep programs. */
static void any_line(program *p, int32_t near) {
    const int32_t count = value_count(p), least = count > near ? count - near : 0;
    int32_t in[4];
    for (int k = 0; k < 4; k++) in[k] = any_below(4) == 0 ? any_below(count) : least + any_below(count - least);
    const int32_t dice = any_below(10);
    if (dice < 4) { /* mostly arithmetic, as programs are */
        static const fbp_op ops[] = {FBP_OP_add, FBP_OP_sub, FBP_OP_mul};
        binary(p, ops[any_below(3)], in[0], in[1]);
        return;
    }
    int op;
    do op = any_below(FBP_OP_COUNT);
    while (!fbp_kernels->pointwise->forward[op][0]);
    const int arity = fbp_ops[op].arity, which = any_below(arity + 1);
    if (which == 0)
        line(p, (fbp_op)op, 0, in[0], arity > 1 ? in[1] : -1, -1, -1);
    else
        line(p, (fbp_op)op, which, in[0], in[1], arity > 1 ? in[2] : -1, in[3]);
    double *parameters = p->lines[p->line_count - 1].parameters;
    parameters[0] = any_below(3) == 0 ? 0.25 : 0.5;
    parameters[1] = any_below(3) == 0 ? 1.0 : 1.5;
}

/* A sum of `length` values taken one by one, on either side of the sum. */
static void any_chain(program *p, int32_t length) {
    int32_t sum = any_below(value_count(p));
    const int32_t among = value_count(p);
    for (int32_t i = 0; i < length; i++) {
        const int32_t term = any_below(among);
        sum = any_below(2) ? binary(p, FBP_OP_add, sum, term) : binary(p, FBP_OP_add, term, sum);
        if (any_below(40) == 0) want(p, sum);
        if (any_below(60) == 0) unary(p, FBP_OP_neg, sum); /* a reader that, wanted or not, comes in the middle */
    }
}

static void test_random(int count, int32_t most_lines) {
    for (int i = 0; i < count; i++) {
        const int32_t lines = 1 + any_below(most_lines), near = 1 + any_below(any_below(2) ? 8 : 400);
        program p = program_new(1 + any_below(40), lines + 400);
        while (p.line_count < lines)
            if (any_below(60) == 0)
                any_chain(&p, 1 + any_below(150));
            else
                any_line(&p, near);
        const int32_t rarity = 1 + any_below(30);
        for (int32_t v = 0; v < value_count(&p) && p.wanted_count < p.given + p.room; v++)
            if (any_below(rarity) == 0) want(&p, v);
        compare_both(&p, "random");
        program_free(&p);
    }
}

/* Wide levels of one op each, so that steps are longer than a piece, in place and through lists. */
static void test_wide(void) {
    for (int op = 0; op < FBP_OP_COUNT; op++) {
        if (!fbp_kernels->pointwise->forward[op][0]) continue;
        enum { WIDTH = 1300 };
        program p = program_new(64, 8 * WIDTH);
        const int arity = fbp_ops[op].arity;
        int32_t rows[6];
        for (int row = 0; row < 6; row++) {
            rows[row] = value_count(&p);
            for (int32_t i = 0; i < WIDTH; i++) {
                const int32_t near = row ? rows[row - 1] + i : any_below(64), other = row > 2 ? rows[row - 2] + WIDTH - 1 - i : 3;
                const int32_t odd = any_below(64);
                int32_t v;
                if (row % 3 == 0) v = line(&p, (fbp_op)op, 0, near, arity > 1 ? odd : -1, -1, -1);
                else if (row % 3 == 1) v = line(&p, (fbp_op)op, 1, near, other, arity > 1 ? odd : -1, other);
                else v = line(&p, (fbp_op)op, arity, other, near, arity > 1 ? 5 : -1, odd);
                p.lines[p.line_count - 1].parameters[0] = 0.5;
                p.lines[p.line_count - 1].parameters[1] = 1.5;
                want(&p, v);
            }
        }
        compare_both(&p, fbp_ops[op].name);
        program_free(&p);
    }
}

/* Operands that were made in order are read in place, whatever order their readers come in. */
static void test_in_place(void) {
    enum { WIDTH = 200 };
    program p = program_new(2 * WIDTH, 8 * WIDTH);
    const int32_t products = value_count(&p);
    for (int32_t i = 0; i < WIDTH; i++) binary(&p, FBP_OP_mul, i, WIDTH + i);
    for (int32_t i = WIDTH - 1; i >= 0; i--) { /* a scattered operand on either side, two readers each */
        want(&p, binary(&p, FBP_OP_mul, products + i, 7 * i % WIDTH));
        want(&p, binary(&p, FBP_OP_mul, 3 * i % WIDTH, products + i));
        want(&p, binary(&p, FBP_OP_sub, 5, products + i));
        want(&p, unary(&p, FBP_OP_exp, products + i));
    }
    compare_both(&p, "in place");
    fbp_scalars *made = NULL;
    CHECK(fbp_scalars_make(FBP_FLOAT64, value_count(&p), p.line_count, p.lines, p.wanted_count, p.wanted, &made) == FBP_OK, "%s",
          fbp_message());
    if (!made) return;
    CHECK(made->step_count == 5, "%lld steps", (long long)made->step_count);
    for (int64_t i = 0; i < made->step_count; i++) {
        const fbp_scalar_step *step = &made->steps[i];
        const fbp_scalar_mode a = fbp_scalar_mode_of(step, 0), b = fbp_scalar_mode_of(step, 1);
        if (step->kind == FBP_SCALAR_MUL)
            CHECK(a == FBP_SCALAR_CONTIGUOUS && b == (i == 0 ? FBP_SCALAR_CONTIGUOUS : FBP_SCALAR_LISTED), "modes %d %d", a, b);
        if (step->kind == FBP_SCALAR_SUB) CHECK(a == FBP_SCALAR_BROADCAST && b == FBP_SCALAR_CONTIGUOUS, "modes %d %d", a, b);
        if (step->op == FBP_OP_exp) CHECK(a == FBP_SCALAR_CONTIGUOUS && b == FBP_SCALAR_UNREAD, "modes %d %d", a, b);
    }
    fbp_scalars_free(made);
    want(&p, binary(&p, FBP_OP_mul, products + WIDTH - 1, 0)); /* one has a reader more: nothing may get lost */
    compare_both(&p, "readers of another number");
    program_free(&p);
}

/* ---- chains ---- */

/* Folds of many lengths on one level: lanes in full, lanes that repeat, what is left of the longer ones. */
static void test_folds(void) {
    for (int32_t folds = 1; folds <= 19; folds++)
        for (int spread = 0; spread < 3; spread++) {
            program p = program_new(100, 20000);
            for (int32_t f = 0; f < folds; f++) {
                const int32_t length = spread == 0 ? 37 : spread == 1 ? 20 + f : 1 + f * f;
                int32_t sum = any_below(100);
                for (int32_t i = 0; i < length; i++) {
                    const int32_t term = any_below(100);
                    sum = any_below(2) ? binary(&p, FBP_OP_add, sum, term) : binary(&p, FBP_OP_add, term, sum);
                }
                want(&p, sum);
            }
            compare_both(&p, "folds");
            program_free(&p);
        }
}

/* A long sum is one step, and its partial sums are gone; those that are wanted or read again are kept, and the order of
 * terms is the lines' order: rounding tells. */
static void test_partial_sums(void) {
    program p = program_new(2, 1000);
    int32_t sum = 0, sums[300];
    for (int i = 0; i < 300; i++) sums[i] = sum = binary(&p, FBP_OP_add, sum, 1);
    want(&p, sum);
    CHECK(steps_of(&p) == 1, "%lld steps", (long long)steps_of(&p));
    compare_both(&p, "one chain");
    fbp_scalars *made = NULL;
    CHECK(fbp_scalars_make(FBP_FLOAT64, value_count(&p), p.line_count, p.lines, 1, &sum, &made) == FBP_OK, "%s", fbp_message());
    if (made) CHECK(fbp_scalars_slot(made, sums[10]) == -1 && fbp_scalars_slot_count(made) == 3, "a partial sum has a slot");
    fbp_scalars_free(made);
    want(&p, sums[100]);
    want(&p, sums[200]);
    CHECK(steps_of(&p) == 3, "%lld steps", (long long)steps_of(&p));
    compare_both(&p, "wanted partial sums");
    want(&p, unary(&p, FBP_OP_neg, sums[150]));
    CHECK(steps_of(&p) == 5, "%lld steps", (long long)steps_of(&p));
    compare_both(&p, "partial sum that is read twice");
    want(&p, binary(&p, FBP_OP_add, sum, sum));
    compare_both(&p, "a sum added to itself");
    program_free(&p);

    p = program_new(4, 200); /* two chains meet: the longer goes on, the other is a term */
    int32_t a = 0, b = 1;
    for (int i = 0; i < 60; i++) a = binary(&p, FBP_OP_add, a, 2);
    for (int i = 0; i < 40; i++) b = binary(&p, FBP_OP_add, 3, b);
    want(&p, binary(&p, FBP_OP_add, b, a));
    CHECK(fbp_scalars_make(FBP_FLOAT64, value_count(&p), p.line_count, p.lines, 1, p.wanted, &made) == FBP_OK, "%s", fbp_message());
    if (made) CHECK(made->step_count == 2 && made->steps[1].count == 61, "%lld steps", (long long)made->step_count);
    fbp_scalars_free(made);
    compare_both(&p, "chains that meet");
    program_free(&p);
}

/* ---- small and odd programs ---- */

static void test_small(void) {
    program p = program_new(3, 10);
    compare_both(&p, "empty");
    want(&p, 1);
    compare_both(&p, "a given value that is wanted");
    CHECK(steps_of(&p) == 0, "steps for nothing");
    program_free(&p);

    for (int op = 0; op < FBP_OP_COUNT; op++) {
        if (!fbp_kernels->pointwise->forward[op][0]) continue;
        for (int pull = 0; pull <= fbp_ops[op].arity; pull++)
            for (int repeat = 0; repeat < 3; repeat++) {
                p = program_new(4, 1);
                want(&p, line(&p, (fbp_op)op, pull, 0, 1, 2, 3));
                p.lines[0].parameters[0] = 0.5, p.lines[0].parameters[1] = 1.5;
                compare_both(&p, fbp_ops[op].name);
                program_free(&p);
            }
    }

    p = program_new(2, 10); /* a cotangent handed on is its value under another name; lines that lead nowhere are dropped */
    const int32_t passed = line(&p, FBP_OP_add, 2, 0, -1, -1, -1), again = line(&p, FBP_OP_sub, 1, passed, -1, -1, -1);
    const int32_t sum = binary(&p, FBP_OP_add, again, 1);
    binary(&p, FBP_OP_mul, sum, again);
    want(&p, sum);
    want(&p, again);
    want(&p, passed);
    want(&p, sum);
    CHECK(steps_of(&p) == 1, "%lld steps", (long long)steps_of(&p));
    compare_both(&p, "handed on");
    program_free(&p);

    p = program_new(3, 400); /* lines of one op with other parameters do not share a step */
    for (int i = 0; i < 300; i++) {
        const int32_t v = unary(&p, FBP_OP_clamp, i % 3);
        p.lines[v - 3].parameters[0] = -0.5 * (i % 2), p.lines[v - 3].parameters[1] = 0.25 + 0.25 * (i % 4);
        want(&p, v);
    }
    CHECK(steps_of(&p) == 4, "%lld steps", (long long)steps_of(&p));
    compare_both(&p, "parameters");
    program_free(&p);
}

/* Infinities, NaN, zeros of either sign and subnormal numbers go through sums and products as through the kernels. */
static void test_special(void) {
    program p = program_new(12, 4000);
    for (int32_t a = 0; a < 12; a++)
        for (int32_t b = 0; b < 12; b++)
            for (int k = 0; k < 3; k++) want(&p, binary(&p, k == 0 ? FBP_OP_add : k == 1 ? FBP_OP_sub : FBP_OP_mul, a, b));
    for (int32_t a = 0; a < 12; a++) {
        int32_t sum = a;
        for (int i = 0; i < 9; i++) sum = binary(&p, FBP_OP_add, sum, a < 8 ? (a + i) % 8 : a);
        want(&p, sum);
    }
    static const double special[] = {0.0, -0.0, 1e-310, -1e-310, 1e-42, 1e300, 1.0, -1.0, INFINITY, -INFINITY, NAN, 3e38};
    for (int real = 0; real < 2; real++) {
        const fbp_dtype dtype = real ? FBP_FLOAT64 : FBP_FLOAT32;
        const size_t size = (size_t)fbp_dtype_size(dtype);
        char *expected = memory_or_exit((size_t)value_count(&p) * size), *values = memory_or_exit((size_t)value_count(&p) * size);
        fbp_scalars *made = NULL;
        CHECK(fbp_scalars_make(dtype, value_count(&p), p.line_count, p.lines, p.wanted_count, p.wanted, &made) == FBP_OK, "make");
        if (!made) exit(1);
        for (int32_t v = 0; v < 12; v++) {
            set_number(expected, dtype, v, special[v]);
            set_number(values, dtype, fbp_scalars_slot(made, v), special[v]);
        }
        run_lines(&p, dtype, expected);
        fbp_scalars_run(made, values);
        for (int32_t i = 0; i < p.wanted_count; i++) {
            const int32_t slot = fbp_scalars_slot(made, p.wanted[i]);
            CHECK(same_bits(values + (size_t)slot * size, expected + (size_t)p.wanted[i] * size, dtype),
                  "special value %d: %g, expected %g", p.wanted[i], number(values, dtype, slot), number(expected, dtype, p.wanted[i]));
        }
        fbp_scalars_free(made);
        free(values);
        free(expected);
    }
    program_free(&p);
}

/* ---- failures ---- */

static void expect_failure(fbp_dtype dtype, int32_t values, int64_t count, const fbp_scalar_line *lines, int32_t wanted,
                           fbp_status expected, const char *words) {
    fbp_scalars *made = (fbp_scalars *)&failures;
    const int64_t before = fbp_memory_statistics().live_bytes;
    const fbp_status status = fbp_scalars_make(dtype, values, count, lines, 1, &wanted, &made);
    CHECK(status == expected && made == NULL && strstr(fbp_message(), words), "status %d, %s; expected %s", status, fbp_message(), words);
    CHECK(fbp_memory_statistics().live_bytes == before, "%s: memory is lost", words);
}

static void test_failures(void) {
    const fbp_scalar_line good = {.op = FBP_OP_add, .input = {0, 1, -1, -1}, .output = 2};
    fbp_scalar_line lines[2] = {good, good};
    expect_failure(FBP_INT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "int64");
    expect_failure(FBP_FLOAT64, 3, 1, lines, 3, FBP_ERROR_VALUE, "no value 3");
    expect_failure(FBP_FLOAT64, 3, 1, lines, -1, FBP_ERROR_VALUE, "no value -1");
    expect_failure(FBP_FLOAT64, 3, 2, lines, 2, FBP_ERROR_VALUE, "computed before");
    expect_failure(FBP_FLOAT64, 3, 4, lines, 2, FBP_ERROR_VALUE, "4 lines for 3 values");
    expect_failure(FBP_FLOAT64, -1, 0, lines, 2, FBP_ERROR_VALUE, "-1 values");
    lines[0].input[1] = 3;
    expect_failure(FBP_FLOAT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "operand 1");
    lines[0].input[1] = -1;
    expect_failure(FBP_FLOAT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "operand 1");
    lines[0] = good, lines[0].output = 3;
    expect_failure(FBP_FLOAT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "no value 3");
    lines[0] = good, lines[1].output = 1;
    expect_failure(FBP_FLOAT64, 3, 2, lines, 2, FBP_ERROR_VALUE, "value 1 was read");
    lines[0].input[0] = 2;
    expect_failure(FBP_FLOAT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "value 2 was read");
    lines[0] = good, lines[0].pull = 3;
    expect_failure(FBP_FLOAT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "add has no input 2");
    static const int without[] = {FBP_OP_where, FBP_OP_bitwise_and, FBP_OP_eq, FBP_OP_sum, FBP_OP_COUNT, FBP_OP_leaf};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        lines[0] = good, lines[0].op = (uint16_t)without[i];
        expect_failure(FBP_FLOAT64, 3, 1, lines, 2, FBP_ERROR_VALUE, "no floating kernel");
    }
    /* No machine here has the memory that this many lines take; the lines themselves are not looked at. */
    expect_failure(FBP_FLOAT64, INT32_MAX, 1 << 29, lines, 2, FBP_ERROR_MEMORY, "no memory");
}

/* ---- the workload of the benchmark ---- */

/* s = w[0]; s += tanh(w[a] * w[b] + w[c]) * w[d] for many blocks, and the gradient with respect to the 16 w's as a reverse
 * sweep writes it.  Wants s and the gradient. */
static program scalar_graph(int32_t blocks) {
    enum { LEAVES = 16, ONE = LEAVES };
    program p = program_new(LEAVES + 1, 14 * blocks + LEAVES);
    int32_t s = 0;
    for (int32_t k = 0; k < blocks; k++) {
        const int32_t product = binary(&p, FBP_OP_mul, k % 16, (3 * k + 1) % 16);
        const int32_t inner = binary(&p, FBP_OP_add, product, (5 * k + 2) % 16), y = unary(&p, FBP_OP_tanh, inner);
        s = binary(&p, FBP_OP_add, s, binary(&p, FBP_OP_mul, y, (7 * k + 3) % 16));
    }
    int32_t gradient[LEAVES];
    for (int i = 0; i < LEAVES; i++) gradient[i] = -1;
#define ACCUMULATE(leaf, value)                                                                                    \
    do {                                                                                                           \
        const int32_t to = (leaf), what = (value);                                                                 \
        gradient[to] = gradient[to] < 0 ? what : binary(&p, FBP_OP_add, gradient[to], what);                       \
    } while (0)
    for (int32_t k = blocks - 1; k >= 0; k--) {
        const int32_t a = k % 16, b = (3 * k + 1) % 16, c = (5 * k + 2) % 16, d = (7 * k + 3) % 16;
        const int32_t first = LEAVES + 1 + 5 * k, y = first + 2;
        const int32_t cotangent = line(&p, FBP_OP_mul, 1, ONE, -1, d, -1);
        ACCUMULATE(d, line(&p, FBP_OP_mul, 2, ONE, y, -1, -1));
        const int32_t inner = line(&p, FBP_OP_tanh, 1, cotangent, -1, -1, y);
        ACCUMULATE(c, inner);
        ACCUMULATE(a, line(&p, FBP_OP_mul, 1, inner, -1, b, -1));
        ACCUMULATE(b, line(&p, FBP_OP_mul, 2, inner, a, -1, -1));
    }
    ACCUMULATE(0, ONE);
    want(&p, s);
    for (int i = 0; i < LEAVES; i++) want(&p, gradient[i] < 0 ? ONE : gradient[i]);
    return p;
}

static void test_scalar_graph(void) {
    for (int32_t blocks = 1; blocks <= 4000; blocks = 7 * blocks / 2) {
        program p = scalar_graph(blocks);
        compare_both(&p, "scalar graph");
        if (blocks > 100) CHECK(steps_of(&p) < 80, "%lld steps for %d lines", (long long)steps_of(&p), p.line_count);
        program_free(&p);
    }
}

/* x = sin(x) * w, again and again: no two lines can share a step. */
static program sequential(int32_t length, bool sine) {
    program p = program_new(2, 2 * length);
    int32_t x = 0;
    for (int32_t i = 0; i < length; i++) {
        x = sine ? unary(&p, FBP_OP_sin, x) : binary(&p, FBP_OP_sub, x, 1);
        x = binary(&p, FBP_OP_mul, x, 1);
    }
    want(&p, x);
    return p;
}

/* ---- times ---- */

static double now(void) {
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* One line: least time to plan and to run, and the latter a node and a line. */
static void print_time(const program *p, fbp_dtype dtype, double nodes, const char *name) {
    double best_plan = INFINITY, best_run = INFINITY;
    fbp_scalars *made = NULL;
    for (int i = 0; i < 10; i++) {
        fbp_scalars_free(made);
        const double begin = now();
        if (fbp_scalars_make(dtype, value_count(p), p->line_count, p->lines, p->wanted_count, p->wanted, &made) != FBP_OK) {
            printf("%s: %s\n", name, fbp_message());
            return;
        }
        best_plan = fmin(best_plan, now() - begin);
    }
    const size_t bytes = (size_t)fbp_scalars_slot_count(made) * (size_t)fbp_dtype_size(dtype);
    char *values = fbp_memory_get(bytes);
    if (!values) exit(1);
    memset(values, 0, bytes);
    for (int32_t v = 0; v < p->given; v++)
        if (fbp_scalars_slot(made, v) >= 0) set_number(values, dtype, fbp_scalars_slot(made, v), 0.3 + 0.01 * v);
    for (int i = 0; i < 100; i++) {
        const double begin = now();
        fbp_scalars_run(made, values);
        best_run = fmin(best_run, now() - begin);
    }
    printf("%-8s %s %-22s %9d lines %8lld steps, planned in %7.2f ms, run in %9.1f us: %6.2f ns a node, %5.2f a line\n", fbp_kernels->isa,
           fbp_dtype_name(dtype), name, p->line_count, (long long)made->step_count, 1e3 * best_plan, 1e6 * best_run,
           1e9 * best_run / nodes, 1e9 * best_run / p->line_count);
    fbp_memory_free(values, bytes);
    fbp_scalars_free(made);
}

static void print_times(void) {
    static const int32_t blocks[] = {400, 20000, 200000};
    for (int i = 0; i < 3; i++) {
        program p = scalar_graph(blocks[i]);
        print_time(&p, FBP_FLOAT64, 5.0 * blocks[i], "scalar_graph");
        if (i == 1) print_time(&p, FBP_FLOAT32, 5.0 * blocks[i], "scalar_graph");
        program_free(&p);
    }
    for (int sine = 0; sine < 2; sine++) {
        program p = sequential(50000, sine);
        print_time(&p, FBP_FLOAT64, 1e5, sine ? "x = sin(x) * w" : "x = (x - w) * w");
        program_free(&p);
    }
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    const bool emulated = strcmp(mode, "--emulated") == 0, time = strcmp(mode, "--time") == 0;
    fbp_kernels_init();
    const char *isa;
    for (int i = 0; (isa = fbp_kernels_available(i)); i++) {
        if (fbp_kernels_select(isa) != FBP_OK) return 1;
        if (time) {
            print_times();
            continue;
        }
        const int64_t before = fbp_memory_statistics().live_bytes;
        test_small();
        test_special();
        test_folds();
        test_partial_sums();
        test_failures();
        test_wide();
        test_in_place();
        test_scalar_graph();
        test_random(emulated ? 20 : 150, 3000);
        test_random(emulated ? 50 : 1500, 60);
        CHECK(fbp_memory_statistics().live_bytes == before, "memory is lost");
        program p = sequential(500, true);
        compare_both(&p, "sequential");
        program_free(&p);
    }
    if (!time) printf("test_scalars: %ld checks, %d failures\n", checks, failures);
    return failures != 0;
}
