/* absent.c -- the derivative of a function of several results, for a sweep that reaches only some of them.
 *
 * What a sweep does not reach it does not visit: no rule runs on zeros, which would make NaN of an infinite factor, and a leaf
 * that nothing reaches has no gradient.  So lines of phase 1 that depend on absent cotangents alone go.  Where both kinds meet in
 * a sum, the other summand is the result; elsewhere zeros stand in an absent operand's place.
 *
 * What depends on a cotangent is seen in what lines read.  What a user's rule or hook makes need not read its cotangent, or may
 * read several: it is captured with ties (fbp_line_is_tie) to those without which it would not have run.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/program.h"

/* What is known of a buffer at a line; FILLED: absent, but its memory holds what its parts have been given, and zeros. */
enum { UNWRITTEN, PLAIN, PRESENT, ABSENT, FILLED };

typedef struct dropping {
    fbp_program *program;
    uint8_t *states; /* per buffer, of the first `buffers`: those that are made here are constants */
    int32_t buffers;
} dropping;

static uint8_t state_of(const dropping *d, int32_t value) {
    const int32_t buffer = value < 0 ? -1 : d->program->values[value].buffer;
    return buffer < 0 || buffer >= d->buffers ? PLAIN : d->states[buffer];
}

static bool is_absent(const dropping *d, int32_t value) {
    const uint8_t state = state_of(d, value);
    return state == ABSENT || state == FILLED;
}

/* What a line's result is: present with one present input, absent where all inputs that depend on cotangents are. */
static uint8_t result_state(const dropping *d, const fbp_line *line) {
    uint8_t result = PLAIN;
    for (int32_t i = 0; i < line->count; i++) {
        const uint8_t state = state_of(d, line->inputs[i]);
        if (state == PRESENT) return PRESENT;
        if (state == ABSENT || state == FILLED) result = ABSENT;
    }
    return result;
}

/* ---- zeros -------------------------------------------------------------------------------------------------------------- */

/* A value of zeros of this layout, one element that is read many times; `negative`: -0, which added to x gives x whatever its sign. */
static fbp_status zeros_make(fbp_program *program, fbp_layout layout, bool negative, int32_t *value) {
    fbp_storage *storage;
    const int size = fbp_dtype_size((fbp_dtype)layout.dtype);
    const int32_t buffer = fbp_program_buffer_add(program, FBP_BUFFER_CONSTANT, size);
    if (buffer < 0) return FBP_ERROR_MEMORY;
    FBP_TRY(fbp_storage_new(size, &storage));
    program->buffers[buffer].storage = storage;
    memset(storage->data, 0, (size_t)size);
    if (negative && layout.dtype == FBP_FLOAT32) *(float *)storage->data = -0.0f;
    if (negative && layout.dtype == FBP_FLOAT64) *(double *)storage->data = -0.0;
    for (int i = 0; i < layout.ndim; i++) layout.strides[i] = 0;
    *value = fbp_program_value_add(program, buffer, 0, &layout);
    return *value < 0 ? FBP_ERROR_MEMORY : FBP_OK;
}

static fbp_status zeros_like(fbp_program *program, int32_t like, bool negative, int32_t *value) {
    fbp_layout layout;
    fbp_layout_of(fbp_value_tensor(program, like), &layout);
    return zeros_make(program, layout, negative, value);
}

/* A line that writes zeros into all of a buffer. */
static fbp_status fill(fbp_program *program, int32_t buffer) {
    fbp_layout layout;
    int32_t zeros;
    const int64_t bytes = program->buffers[buffer].bytes;
    FBP_TRY(fbp_layout_contiguous(&layout, FBP_UINT8, 1, &bytes));
    FBP_TRY(zeros_make(program, layout, false, &zeros));
    const int32_t target = fbp_program_value_add(program, buffer, 0, &layout);
    fbp_line *line = target < 0 ? NULL : fbp_program_line_add(program, FBP_LINE_WRITE, FBP_OP_copy, 1, NULL, 0);
    if (!line) return FBP_ERROR_MEMORY;
    line->inputs[0] = zeros;
    line->output = target;
    line->phase = 1;
    return FBP_OK;
}

/* ---- one line ----------------------------------------------------------------------------------------------------------- */

static bool is_same_type(const fbp_program *program, int32_t a, int32_t b) {
    const fbp_tensor *x = fbp_value_tensor(program, a), *y = fbp_value_tensor(program, b);
    return x->dtype == y->dtype && fbp_same_shape(x, y);
}

/* The line reads nothing that is absent: a sum with one summand is a copy of it, elsewhere zeros are read. */
static fbp_status mend_inputs(const dropping *d, fbp_line *line) {
    fbp_program *program = d->program;
    const bool is_sum = line->kind == FBP_LINE_OP && line->op == FBP_OP_add && line->count == 2;
    if (is_sum && (is_absent(d, line->inputs[0]) || is_absent(d, line->inputs[1]))) {
        const int32_t other = line->inputs[is_absent(d, line->inputs[0])];
        if (is_same_type(program, other, line->output)) {
            line->op = FBP_OP_copy;
            line->count = 1;
            line->inputs[0] = other;
            line->attributes = NULL;
            line->attribute_bytes = 0;
            return FBP_OK;
        }
    }
    if (fbp_line_is_tie(line)) line->count = 1;
    for (int32_t i = 0; i < line->count; i++)
        if (is_absent(d, line->inputs[i])) FBP_TRY(zeros_like(program, line->inputs[i], is_sum, &line->inputs[i]));
    return FBP_OK;
}

/* A line whose result is absent: gone, or zeros in a part of what others have written. */
static fbp_status drop(dropping *d, fbp_line *line) {
    fbp_program *program = d->program;
    const int32_t buffer = program->values[line->output].buffer;
    uint8_t *state = &d->states[buffer];
    if (program->buffers[buffer].kind != FBP_BUFFER_ARENA) { /* of the world: it stays as it is */
        line->kind = FBP_LINE_NONE;
        return FBP_OK;
    }
    if (*state == UNWRITTEN || *state == ABSENT || fbp_value_is_whole(program, line->output)) {
        line->kind = FBP_LINE_NONE;
        *state = ABSENT;
        return FBP_OK;
    }
    if (*state == PLAIN) *state = FILLED;
    int32_t zeros;
    FBP_TRY(zeros_like(program, line->output, false, &zeros));
    line->kind = FBP_LINE_WRITE;
    line->op = FBP_OP_copy;
    line->count = 1;
    line->inputs[0] = zeros;
    return FBP_OK;
}

/* Append what becomes of a line to the program. */
static fbp_status rewrite(dropping *d, const fbp_line *from) {
    fbp_program *program = d->program;
    fbp_line line = *from;
    const uint8_t result = line.phase == 1 ? result_state(d, &line) : PLAIN;
    if (line.output >= 0 && result == ABSENT) FBP_TRY(drop(d, &line));
    else if (line.phase == 1) FBP_TRY(mend_inputs(d, &line));
    if (line.kind == FBP_LINE_NONE) return FBP_OK;
    if (line.output >= 0 && result != ABSENT) {
        const int32_t buffer = program->values[line.output].buffer;
        uint8_t *state = &d->states[buffer];
        const bool whole = fbp_value_is_whole(program, line.output);
        if (!whole && *state == ABSENT) FBP_TRY(fill(program, buffer));
        if (result == PRESENT || whole || *state == UNWRITTEN) *state = result;
        else if (*state == ABSENT) *state = FILLED;
    }
    fbp_line *copy = fbp_program_line_add(program, FBP_LINE_OP, FBP_OP_copy, 0, NULL, 0);
    if (!copy) return FBP_ERROR_MEMORY;
    *copy = line;
    return FBP_OK;
}

static fbp_status rewrite_all(dropping *d) {
    fbp_program *program = d->program;
    const int32_t count = program->line_count;
    fbp_line *old = fbp_program_get(program, ((size_t)count + 1) * sizeof *old);
    if (!old) return FBP_ERROR_MEMORY;
    if (count) memcpy(old, program->lines, (size_t)count * sizeof *old);
    program->line_count = 0;
    for (int32_t i = 0; i < count; i++) FBP_TRY(rewrite(d, &old[i]));
    fbp_program_count_writes(program);
    for (int32_t i = 0; i < program->line_count; i++) { /* last, when states are no longer asked for */
        fbp_line *line = &program->lines[i];
        if (line->phase == 1 && line->kind == FBP_LINE_OP && line->op == FBP_OP_copy) fbp_line_forward(program, line, line->inputs[0]);
    }
    fbp_program_compact(program);
    return fbp_program_prune(program);
}

fbp_status fbp_program_drop_absent(fbp_program *program, const uint8_t *cotangents) {
    dropping d = {program, malloc((size_t)program->buffer_count + 1), program->buffer_count};
    if (!d.states) return fbp_fail(FBP_ERROR_MEMORY, "absent: cannot allocate a list");
    for (int32_t i = 0; i < d.buffers; i++)
        d.states[i] = cotangents[i] == FBP_COTANGENT_PRESENT  ? PRESENT
                      : cotangents[i] == FBP_COTANGENT_ABSENT ? ABSENT
                      : program->buffers[i].kind == FBP_BUFFER_ARENA ? UNWRITTEN
                                                                     : PLAIN;
    const fbp_status status = rewrite_all(&d);
    free(d.states);
    return status;
}
