/* merge.c -- one line for all that compute the same: a table of what was computed, by op, attributes and inputs.
 *
 * An input is known by its value and by how often its buffer had been written when the line ran.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/program.h"

typedef struct table {
    const fbp_program *program;
    int32_t *lines;      /* open addressing; -1: free */
    uint32_t *versions;  /* per buffer: writes so far */
    uint32_t **seen;     /* per line in the table: the versions of its inputs */
    int32_t *alias;      /* per value: an older one that looks at the same elements, -1: none known */
    size_t mask;
} table;

static bool same_look(const fbp_value *v, const fbp_value *w) {
    const fbp_tensor *a = v->tensor, *b = w->tensor;
    return v->offset == w->offset && a->dtype == b->dtype && fbp_same_shape(a, b) &&
           memcmp(fbp_strides(a), fbp_strides(b), a->ndim * sizeof(int64_t)) == 0;
}

/* The value of a buffer that looks at the same elements as `value`, another than it; -1 when there is none. */
static int32_t equal_in(const fbp_program *p, int32_t buffer, int32_t value) {
    for (int32_t i = p->buffers[buffer].values; i >= 0; i = p->values[i].next)
        if (i != value && same_look(&p->values[i], &p->values[value])) return i;
    return -1;
}

/* One value for all that look at the same elements: other passes' merges may have left two in a buffer. */
static int32_t canonical(table *t, int32_t value) {
    while (t->alias[value] >= 0) value = t->alias[value];
    const int32_t other = equal_in(t->program, t->program->values[value].buffer, value);
    if (other < 0 || other > value) return value;
    return t->alias[value] = other;
}

/* The values of `from` are values of `to` from now on; those that `to` has already are dropped for its own, so that its list stays
 * short however many lines compute the same. */
static void merge_values(fbp_program *p, table *t, int32_t from, int32_t to) {
    for (int32_t i = p->buffers[from].values, next; i >= 0; i = next) {
        next = p->values[i].next;
        t->alias[i] = equal_in(p, to, i);
        p->values[i].buffer = to;
        if (t->alias[i] >= 0) continue;
        p->values[i].next = p->buffers[to].values;
        p->buffers[to].values = i;
    }
    p->buffers[from].values = -1;
    p->buffers[to].keep |= p->buffers[from].keep;
}

static size_t mix(size_t hash, size_t value) { return (hash ^ value) * 0x9e3779b97f4a7c15u + (hash >> 29); }

static size_t line_hash(const table *t, const fbp_line *line) {
    size_t hash = mix((size_t)line->op << 8 | line->kind << 4 | line->which, (size_t)line->count);
    for (int32_t i = 0; i < line->count; i++) {
        hash = mix(hash, (size_t)line->inputs[i]);
        if (line->inputs[i] >= 0) hash = mix(hash, t->versions[t->program->values[line->inputs[i]].buffer]);
    }
    for (int i = 0; i < line->attribute_bytes; i++) hash = mix(hash, ((const unsigned char *)line->attributes)[i]);
    return hash ^ hash >> 32;
}

static bool same_line(const table *t, const fbp_line *a, const fbp_line *b, const uint32_t *seen) {
    if (a->kind != b->kind || a->op != b->op || a->which != b->which || a->count != b->count || a->attribute_bytes != b->attribute_bytes ||
        (a->attribute_bytes && memcmp(a->attributes, b->attributes, (size_t)a->attribute_bytes) != 0))
        return false;
    for (int32_t i = 0; i < a->count; i++) {
        if (a->inputs[i] != b->inputs[i]) return false;
        if (b->inputs[i] >= 0 && t->versions[t->program->values[b->inputs[i]].buffer] != seen[i]) return false;
    }
    return true;
}

static void count_write(void *context, int32_t value, bool written) {
    table *t = context;
    if (written) t->versions[t->program->values[value].buffer]++;
}

static bool is_mergeable(const fbp_program *program, const fbp_line *line) {
    if ((line->kind != FBP_LINE_OP && line->kind != FBP_LINE_PULL) || fbp_op_random[line->op]) return false;
    const fbp_buffer *out = fbp_value_buffer(program, line->output);
    return out->kind == FBP_BUFFER_ARENA && out->writes == 1 && fbp_value_is_whole(program, line->output);
}

/* The line's equal, if the table has it; else the line is entered. */
static fbp_status look_up(table *t, fbp_program *program, int32_t number, int32_t *equal) {
    const fbp_line *line = &program->lines[number];
    size_t at = line_hash(t, line) & t->mask;
    for (; t->lines[at] >= 0; at = (at + 1) & t->mask)
        if (same_line(t, &program->lines[t->lines[at]], line, t->seen[t->lines[at]])) {
            *equal = t->lines[at];
            return FBP_OK;
        }
    uint32_t *seen = fbp_program_get(program, (size_t)(line->count + 1) * sizeof *seen);
    if (!seen) return FBP_ERROR_MEMORY;
    for (int32_t i = 0; i < line->count; i++)
        if (line->inputs[i] >= 0) seen[i] = t->versions[program->values[line->inputs[i]].buffer];
    t->seen[number] = seen;
    t->lines[at] = number;
    return FBP_OK;
}

static fbp_status merge_lines(fbp_program *program, table *t) {
    for (int32_t i = 0; i < program->line_count; i++) {
        fbp_line *line = &program->lines[i];
        for (int32_t k = 0; k < line->count; k++)
            if (line->inputs[k] >= 0) line->inputs[k] = canonical(t, line->inputs[k]);
        int32_t equal = -1;
        if (is_mergeable(program, line)) FBP_TRY(look_up(t, program, i, &equal));
        if (equal >= 0) {
            merge_values(program, t, program->values[line->output].buffer, program->values[program->lines[equal].output].buffer);
            line->kind = FBP_LINE_NONE;
        } else {
            fbp_line_touch(program, line, count_write, t);
        }
    }
    return FBP_OK;
}

fbp_status fbp_program_merge_equal(fbp_program *program) {
    size_t capacity = 64;
    while (capacity < 2 * (size_t)program->line_count) capacity *= 2;
    table t = {program, malloc(capacity * sizeof(int32_t)), calloc((size_t)program->buffer_count + 1, sizeof(uint32_t)),
               calloc((size_t)program->line_count + 1, sizeof(uint32_t *)), malloc(((size_t)program->value_count + 1) * sizeof(int32_t)),
               capacity - 1};
    fbp_status status = t.lines && t.versions && t.seen && t.alias ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "merge: cannot allocate a table");
    if (status == FBP_OK) {
        memset(t.lines, -1, capacity * sizeof(int32_t));
        memset(t.alias, -1, (size_t)program->value_count * sizeof(int32_t));
        status = merge_lines(program, &t);
    }
    free(t.lines);
    free(t.versions);
    free(t.seen);
    free(t.alias);
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return status;
}
