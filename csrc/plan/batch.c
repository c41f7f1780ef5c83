/* batch.c -- runs of one-element lines become batched scalar programs (plan/scalars.h). */
#include <stdlib.h>
#include <string.h>

#include "plan/program.h"
#include "plan/scalars.h"

enum { RUN_LEAST = 64 /* lines: a shorter run is a chain's work */ };

typedef struct batching {
    fbp_program *program;
    int32_t *run_of;   /* per buffer: first line of the run whose line writes it, -1 */
    uint8_t *wanted;   /* per buffer: read outside of its run */
    int32_t *number;   /* per value: in the scalar program at hand, -1 */
    int32_t begin, end;
    int32_t line;
} batching;

static bool is_scalar(const fbp_program *p, const fbp_line *line, fbp_dtype wanted, fbp_dtype *dtype) {
    if (!fbp_line_fuses(p, line, dtype) || line->op == FBP_OP_where || fbp_ops[line->op].class != FBP_CLASS_POINTWISE) return false;
    if (wanted < FBP_DTYPE_COUNT && *dtype != wanted) return false;
    const fbp_buffer *b = fbp_value_buffer(p, line->output);
    if (fbp_value_tensor(p, line->output)->numel != 1 || b->kind != FBP_BUFFER_ARENA || b->writes != 1 || !fbp_value_is_whole(p, line->output))
        return false;
    for (int32_t i = 0; i < line->count; i++)
        if (line->inputs[i] >= 0 && fbp_value_tensor(p, line->inputs[i])->numel != 1) return false;
    return true;
}

static void note_read(void *context, int32_t value, bool written) {
    batching *b = context;
    const int32_t buffer = b->program->values[value].buffer;
    if (!written && b->run_of[buffer] >= 0 && (b->line < b->begin || b->line >= b->end || b->run_of[buffer] != b->begin)) b->wanted[buffer] = 1;
}

/* The number of what `value` looks at: one for each computed buffer, one for each given view. */
static int32_t number_of(batching *b, int32_t value, int32_t *count) {
    const fbp_program *p = b->program;
    const int32_t buffer = p->values[value].buffer;
    if (b->run_of[buffer] == b->begin && b->number[value] < 0) /* another view of something computed here */
        for (int32_t i = p->buffers[buffer].values; i >= 0; i = p->values[i].next)
            if (b->number[i] >= 0) b->number[value] = b->number[i];
    if (b->number[value] < 0) b->number[value] = (*count)++;
    return b->number[value];
}

static fbp_status make_detail(batching *b, const fbp_scalar_line *lines, int32_t value_count, const int32_t *value_of, fbp_dtype dtype,
                              fbp_line *made) {
    fbp_program *p = b->program;
    int32_t *lists = malloc((2 * (size_t)value_count + 1) * sizeof *lists), *wanted = lists, *inputs = lists + value_count;
    int32_t wanted_count = 0, input_count = 0;
    if (!lists) return fbp_fail(FBP_ERROR_MEMORY, "batch: cannot allocate a list");
    for (int32_t i = 0; i < value_count; i++) {
        const int32_t buffer = p->values[value_of[i]].buffer;
        if (b->run_of[buffer] != b->begin) inputs[input_count++] = i;
        else if (b->wanted[buffer] || p->buffers[buffer].keep) wanted[wanted_count++] = i;
    }
    fbp_scalar_detail *detail = fbp_program_get(p, sizeof *detail);
    int32_t *values = fbp_program_get(p, ((size_t)(input_count + wanted_count) + 1) * sizeof *values);
    int32_t *slots = fbp_program_get(p, ((size_t)(input_count + wanted_count) + 1) * sizeof *slots);
    fbp_status status = detail && values && slots ? fbp_scalars_make(dtype, value_count, b->end - b->begin, lines, wanted_count, wanted, &detail->scalars)
                                                  : FBP_ERROR_MEMORY;
    int32_t used = 0;
    for (int32_t i = 0; i < input_count && status == FBP_OK; i++) {
        slots[used] = fbp_scalars_slot(detail->scalars, inputs[i]);
        values[used] = value_of[inputs[i]];
        used += slots[used] >= 0;
    }
    for (int32_t i = 0; i < wanted_count && status == FBP_OK; i++, used++) {
        slots[used] = fbp_scalars_slot(detail->scalars, wanted[i]);
        values[used] = value_of[wanted[i]];
    }
    free(lists);
    FBP_TRY(status);
    detail->slots = slots;
    detail->lines = b->end - b->begin;
    const int64_t shape = fbp_scalars_slot_count(detail->scalars);
    fbp_layout layout;
    FBP_TRY(fbp_layout_contiguous(&layout, dtype, 1, &shape));
    const int32_t buffer = fbp_program_buffer_add(p, FBP_BUFFER_ARENA, shape * fbp_dtype_size(dtype));
    const int32_t array = buffer < 0 ? -1 : fbp_program_value_add(p, buffer, 0, &layout);
    *made = (fbp_line){.kind = FBP_LINE_SCALARS, .count = used, .output = array, .output2 = wanted_count, .slot = -1, .inputs = values, .detail = detail};
    return array < 0 ? FBP_ERROR_MEMORY : FBP_OK;
}

static fbp_status batch_run(batching *b, fbp_dtype dtype) {
    fbp_program *p = b->program;
    const int64_t count = b->end - b->begin;
    fbp_scalar_line *lines = calloc((size_t)count, sizeof *lines);
    int32_t *value_of = malloc(5 * (size_t)count * sizeof *value_of), value_count = 0;
    fbp_status status = lines && value_of ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "batch: cannot allocate a list");
    for (int64_t i = 0; i < count && status == FBP_OK; i++) {
        const fbp_line *line = &p->lines[b->begin + i];
        fbp_scalar_line *to = &lines[i];
        to->op = line->op;
        to->pull = line->kind == FBP_LINE_PULL ? (uint8_t)(1 + line->which) : 0;
        if (line->attribute_bytes) memcpy(to->parameters, line->attributes, sizeof to->parameters);
        for (int k = 0; k < 4; k++) {
            to->input[k] = k < line->count && line->inputs[k] >= 0 ? number_of(b, line->inputs[k], &value_count) : -1;
            if (to->input[k] >= 0) value_of[to->input[k]] = line->inputs[k];
        }
        to->output = number_of(b, line->output, &value_count);
        value_of[to->output] = line->output;
    }
    fbp_line made;
    if (status == FBP_OK) status = make_detail(b, lines, value_count, value_of, dtype, &made);
    free(lines);
    free(value_of);
    FBP_TRY(status);
    for (int32_t i = b->begin; i < b->end; i++) p->lines[i].kind = FBP_LINE_NONE;
    p->lines[b->begin] = made;
    return FBP_OK;
}

/* Mark what the run's lines write, then who reads it. */
static void survey(batching *b) {
    const fbp_program *p = b->program;
    for (int32_t i = b->begin; i < b->end; i++) b->run_of[p->values[p->lines[i].output].buffer] = b->begin;
    for (b->line = 0; b->line < p->line_count; b->line++) fbp_line_touch(p, &p->lines[b->line], note_read, b);
}

fbp_status fbp_program_batch(fbp_program *program) {
    const size_t buffers = (size_t)program->buffer_count, values = (size_t)program->value_count;
    batching b = {.program = program, .run_of = malloc((buffers + 1) * sizeof(int32_t)), .wanted = calloc(buffers + 1, 1),
                  .number = malloc((values + 1) * sizeof(int32_t))};
    fbp_status status = b.run_of && b.wanted && b.number ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "batch: cannot allocate a list");
    if (status == FBP_OK) {
        memset(b.run_of, -1, buffers * sizeof(int32_t));
        memset(b.number, -1, values * sizeof(int32_t));
    }
    for (int32_t i = 0; i < program->line_count && status == FBP_OK; i = b.end > i ? b.end : i + 1) {
        fbp_dtype dtype, same;
        b.begin = b.end = i;
        if (!is_scalar(program, &program->lines[i], FBP_DTYPE_COUNT, &dtype)) continue;
        while (b.end < program->line_count && is_scalar(program, &program->lines[b.end], dtype, &same)) b.end++;
        if (b.end - b.begin < RUN_LEAST) continue;
        survey(&b);
        memset(b.number, -1, values * sizeof(int32_t));
        status = batch_run(&b, dtype);
    }
    free(b.run_of);
    free(b.wanted);
    free(b.number);
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return status;
}
