/* prune.c -- drop lines whose results no one needs. */
#include <stdlib.h>

#include "plan/program.h"

typedef struct need {
    fbp_program *program;
    uint8_t *wanted; /* per buffer */
    bool needed;     /* the line at hand */
} need;

static void note_write(void *context, int32_t value, bool written) {
    need *n = context;
    const int32_t buffer = n->program->values[value].buffer;
    const fbp_buffer *b = &n->program->buffers[buffer];
    if (written && (n->wanted[buffer] || b->keep || (b->kind != FBP_BUFFER_ARENA && b->kind != FBP_BUFFER_CONSTANT))) n->needed = true;
}

static void note_read(void *context, int32_t value, bool written) {
    need *n = context;
    if (!written) n->wanted[n->program->values[value].buffer] = 1;
}

fbp_status fbp_program_prune(fbp_program *program) {
    need n = {program, calloc((size_t)program->buffer_count + 1, 1), false};
    if (!n.wanted) return fbp_fail(FBP_ERROR_MEMORY, "prune: cannot allocate a list");
    for (int32_t i = program->line_count - 1; i >= 0; i--) {
        fbp_line *line = &program->lines[i];
        n.needed = false;
        fbp_line_touch(program, line, note_write, &n);
        if (n.needed) fbp_line_touch(program, line, note_read, &n);
        else line->kind = FBP_LINE_NONE;
    }
    free(n.wanted);
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return FBP_OK;
}
