/* split.c -- a program and its derivative become two: what the second reads of the first is saved between them. */
#include <stdlib.h>
#include <string.h>

#include "plan/program.h"

/* The buffers, values and draws of `from`, and its lines of one phase. */
static fbp_status copy_part(const fbp_program *from, uint8_t phase, fbp_program *to) {
    for (int32_t i = 0; i < from->buffer_count; i++) {
        const fbp_buffer *b = &from->buffers[i];
        if (fbp_program_buffer_add(to, (fbp_buffer_kind)b->kind, b->bytes) < 0) return FBP_ERROR_MEMORY;
        to->buffers[i] = *b;
        to->buffers[i].values = -1;
        if (b->storage) fbp_storage_retain(b->storage);
    }
    for (int32_t i = 0; i < from->value_count; i++) { /* in their order, so that numbers stay */
        const fbp_value *v = &from->values[i];
        fbp_layout layout;
        fbp_layout_of(v->tensor, &layout);
        const int32_t head = to->buffers[v->buffer].values;
        to->buffers[v->buffer].values = -1; /* equal values keep numbers of their own */
        const int32_t value = fbp_program_value_add(to, v->buffer, v->offset, &layout);
        if (value < 0) return FBP_ERROR_MEMORY;
        to->values[value].next = head;
        to->values[value].tensor->flags = v->tensor->flags;
    }
    for (int32_t i = 0; i < from->line_count; i++) {
        const fbp_line *line = &from->lines[i];
        if (line->phase != phase) continue;
        fbp_line *copy = fbp_program_line_add(to, (fbp_line_kind)line->kind, (fbp_op)line->op, line->count, line->attributes, line->attribute_bytes);
        if (!copy) return FBP_ERROR_MEMORY;
        memcpy(copy->inputs, line->inputs, (size_t)line->count * sizeof *copy->inputs);
        copy->which = line->which;
        copy->output = line->output;
        copy->slot = line->slot;
    }
    to->draws = malloc(((size_t)from->draw_count + 1) * sizeof *to->draws);
    if (!to->draws) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan's lists");
    memcpy(to->draws, from->draws, (size_t)from->draw_count * sizeof *to->draws);
    to->draw_count = to->draw_capacity = from->draw_count;
    return FBP_OK;
}

typedef struct crossing {
    const fbp_program *program;
    uint8_t *marks; /* per buffer: 1 written in phase 0, 2 read in phase 1 */
    uint8_t phase;
} crossing;

static void note(void *context, int32_t value, bool written) {
    crossing *c = context;
    uint8_t *mark = &c->marks[c->program->values[value].buffer];
    if (c->phase == 0 && written) *mark |= 1;
    if (c->phase == 1 && !written) *mark |= 2;
}

fbp_status fbp_program_split(fbp_program *program, fbp_program **derivative, uint8_t *saved) {
    fbp_program *parts[2] = {NULL, NULL};
    fbp_status status = FBP_OK;
    crossing c = {program, saved, 0};
    for (int32_t i = 0; i < program->line_count; i++) {
        c.phase = program->lines[i].phase;
        fbp_line_touch(program, &program->lines[i], note, &c);
    }
    for (int32_t i = 0; i < program->buffer_count; i++) saved[i] = saved[i] == 3 && program->buffers[i].kind == FBP_BUFFER_ARENA;
    for (uint8_t phase = 0; phase < 2 && status == FBP_OK; phase++) {
        status = fbp_program_new(&parts[phase]);
        if (status == FBP_OK) status = copy_part(program, phase, parts[phase]);
        for (int32_t i = 0; i < program->buffer_count && status == FBP_OK; i++)
            if (saved[i]) parts[phase]->buffers[i].kind = phase ? FBP_BUFFER_INPUT : FBP_BUFFER_RESULT;
    }
    if (status != FBP_OK) {
        fbp_program_free(parts[0]);
        fbp_program_free(parts[1]);
        return status;
    }
    /* `program` becomes its own first part. */
    fbp_program whole = *program;
    *program = *parts[0];
    *parts[0] = whole;
    fbp_program_free(parts[0]);
    *derivative = parts[1];
    return FBP_OK;
}
