/* split.c -- a program and its derivative become two: what the second reads of the first is saved between them. */

#include "plan/program.h"

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
        status = fbp_program_copy(program, phase, &parts[phase]);
        for (int32_t i = 0; i < program->buffer_count && status == FBP_OK; i++)
            if (saved[i]) parts[phase]->buffers[i].kind = phase ? FBP_BUFFER_INPUT : FBP_BUFFER_RESULT;
        if (status == FBP_OK) { /* what is saved is settled */
            parts[phase]->parent_count = 0;
            parts[phase]->budget = (fbp_budget){0};
        }
        for (int32_t i = 0; status == FBP_OK && i < parts[phase]->line_count; i++) parts[phase]->lines[i].region = 0;
    }
    if (status != FBP_OK) {
        fbp_program_free(parts[0]);
        fbp_program_free(parts[1]);
        return status;
    }
    fbp_program_replace(program, parts[0]);
    *derivative = parts[1];
    return FBP_OK;
}
