/* direct.c -- compute a result where it is wanted: a WRITE goes when the line that made its source can write the target itself.
 *
 *     %5 = mul %running, 0.9            %running = mul %running, 0.9
 *     %running <- %5             =>
 */
#include <stdlib.h>

#include "plan/program.h"

typedef struct access {
    int32_t line, next;
    bool written;
} access;

/* Who touches each buffer: lists, in no order. */
typedef struct accesses {
    const fbp_program *program;
    access *all;
    int32_t *first; /* per buffer, -1 */
    int32_t count, capacity, line;
} accesses;

static void note(void *context, int32_t value, bool written) {
    accesses *a = context;
    const int32_t buffer = a->program->values[value].buffer;
    if (a->count < a->capacity) {
        a->all[a->count] = (access){a->line, a->first[buffer], written};
        a->first[buffer] = a->count;
    }
    a->count++;
}

static void gather(accesses *a) {
    a->count = 0;
    for (int32_t i = 0; i < a->program->buffer_count; i++) a->first[i] = -1;
    for (a->line = 0; a->line < a->program->line_count; a->line++) fbp_line_touch(a->program, &a->program->lines[a->line], note, a);
}

/* The line that makes the source may write `target` while it reads it: elementwise, each element where it is read. */
static bool works_in_place(const fbp_program *program, const fbp_line *line, int32_t target) {
    const bool elementwise = line->kind == FBP_LINE_PULL || (line->kind == FBP_LINE_OP && fbp_ops[line->op].class == FBP_CLASS_POINTWISE);
    const fbp_value *t = &program->values[target];
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0 || program->values[line->inputs[i]].buffer != t->buffer) continue;
        const fbp_value *v = &program->values[line->inputs[i]];
        if (!elementwise || v->offset != t->offset || v->tensor->numel != t->tensor->numel || v->tensor->dtype != t->tensor->dtype ||
            !fbp_is_contiguous(v->tensor))
            return false;
    }
    return true;
}

static bool can_direct(const accesses *a, int32_t number, int32_t *maker) {
    const fbp_program *p = a->program;
    const fbp_line *line = &p->lines[number];
    const int32_t source = p->values[line->inputs[0]].buffer, target = p->values[line->output].buffer;
    const fbp_buffer *s = &p->buffers[source];
    const fbp_tensor *to = fbp_value_tensor(p, line->output);
    if (s->kind != FBP_BUFFER_ARENA || s->writes != 1 || s->keep || source == target || !fbp_is_contiguous(to) ||
        !fbp_value_is_whole(p, line->inputs[0]))
        return false;
    int32_t last_read = number;
    *maker = -1;
    for (int32_t i = a->first[source]; i >= 0; i = a->all[i].next) {
        if (a->all[i].written) *maker = a->all[i].line;
        else if (a->all[i].line > last_read) last_read = a->all[i].line;
    }
    if (*maker < 0) return false;
    const fbp_line *made = &p->lines[*maker];
    if ((made->kind != FBP_LINE_OP && made->kind != FBP_LINE_PULL) || !works_in_place(p, made, line->output)) return false;
    for (int32_t i = a->first[target]; i >= 0; i = a->all[i].next) {
        if (a->all[i].line > *maker && a->all[i].line < number) return false;
        if (a->all[i].written && a->all[i].line > number && a->all[i].line <= last_read) return false;
    }
    return true;
}

fbp_status fbp_program_direct(fbp_program *program) {
    accesses a = {.program = program, .first = malloc(((size_t)program->buffer_count + 1) * sizeof(int32_t))};
    fbp_status status = FBP_OK;
    if (!a.first) status = fbp_fail(FBP_ERROR_MEMORY, "direct: cannot allocate a list");
    if (status == FBP_OK) {
        gather(&a); /* to count */
        a.capacity = a.count;
        a.all = malloc(((size_t)a.capacity + 1) * sizeof *a.all);
        if (!a.all) status = fbp_fail(FBP_ERROR_MEMORY, "direct: cannot allocate a list");
    }
    if (status == FBP_OK) gather(&a);
    for (int32_t i = 0; i < program->line_count && status == FBP_OK; i++) {
        fbp_line *line = &program->lines[i];
        int32_t maker;
        if (line->kind != FBP_LINE_WRITE || !can_direct(&a, i, &maker)) continue;
        const int32_t source = program->values[line->inputs[0]].buffer, target = program->values[line->output].buffer;
        fbp_program_merge(program, source, target, program->values[line->output].offset);
        line->kind = FBP_LINE_NONE;
        for (int32_t k = a.first[source], next; k >= 0; k = next) { /* its accesses are the target's from now on */
            next = a.all[k].next;
            a.all[k].next = a.first[target];
            a.first[target] = k;
        }
        a.first[source] = -1;
    }
    free(a.first);
    free(a.all);
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return status;
}
