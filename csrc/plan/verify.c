/* verify.c -- is this still a program?  Run after each pass when FASTBP_DEBUG >= 1, and by the tests. */
#include <stdlib.h>

#include "plan/program.h"

typedef struct verifying {
    const fbp_program *program;
    const char *pass;
    uint8_t *written; /* per buffer */
    int32_t line;
    int stage;        /* 0: reads, 1: writes */
    fbp_status status;
} verifying;

static fbp_status complain(verifying *v, const char *what, int32_t number) {
    char name[96] = "";
    if (v->line < v->program->line_count) fbp_line_name(v->program, &v->program->lines[v->line], name, sizeof name);
    if (v->status == FBP_OK) v->status = fbp_fail(FBP_ERROR_RUNTIME, "plan, after %s: line %d (%s): %s %d", v->pass, v->line, name, what, number);
    return v->status;
}

static void look(void *context, int32_t value, bool written) {
    verifying *v = context;
    const fbp_program *p = v->program;
    if (value < 0 || value >= p->value_count) {
        complain(v, "there is no value", value);
        return;
    }
    const fbp_value *at = &p->values[value];
    const fbp_buffer *b = &p->buffers[at->buffer];
    const int64_t bytes = at->tensor->numel * fbp_dtype_size((fbp_dtype)at->tensor->dtype);
    if (at->offset < 0 || (fbp_is_contiguous(at->tensor) && at->offset + bytes > b->bytes)) complain(v, "outside of its buffer is value", value);
    if (written && b->kind == FBP_BUFFER_CONSTANT) complain(v, "a constant is written: value", value);
    if (written && v->stage == 1) v->written[at->buffer] = 1;
    if (!written && v->stage == 0 && b->kind == FBP_BUFFER_ARENA && !v->written[at->buffer]) {
        /* a chain's member may read what an earlier member of the same line stores */
        if (!fbp_line_writes(p, &p->lines[v->line], at->buffer)) complain(v, "read before it is written: value", value);
    }
}

/* Buffers that live at one time lie apart, unless one takes over the other's memory in the line where it ends. */
static void check_arena(verifying *v) {
    const fbp_program *p = v->program;
    for (int32_t i = 0; i < p->buffer_count; i++) {
        const fbp_buffer *a = &p->buffers[i];
        if (a->kind != FBP_BUFFER_ARENA || a->first < 0 || a->offset < 0) continue;
        if (a->offset + a->bytes > p->arena_bytes) complain(v, "beyond the arena is buffer", i);
        for (int32_t k = i + 1; k < p->buffer_count; k++) {
            const fbp_buffer *b = &p->buffers[k];
            if (b->kind != FBP_BUFFER_ARENA || b->first < 0 || b->offset < 0) continue;
            const bool apart = a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
            if (!apart && a->first < b->last && b->first < a->last) complain(v, "shares memory with another that lives: buffer", i);
        }
    }
}

fbp_status fbp_program_verify(const fbp_program *program, const char *pass) {
    verifying v = {program, pass, calloc((size_t)program->buffer_count + 1, 1), 0, 0, FBP_OK};
    if (!v.written) return fbp_fail(FBP_ERROR_MEMORY, "verify: cannot allocate a list");
    for (v.line = 0; v.line < program->line_count; v.line++)
        for (v.stage = 0; v.stage < 2; v.stage++) fbp_line_touch(program, &program->lines[v.line], look, &v);
    if (program->arena_bytes) check_arena(&v);
    free(v.written);
    return v.status;
}
