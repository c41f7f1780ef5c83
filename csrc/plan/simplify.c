/* simplify.c -- lines whose result is one of their inputs: copies, casts to the same type, x * 1, x / 1, x - 0.
 *
 * Only what is exact for every float, NaN and signed zero included: x + 0 is not (it turns -0 into 0).
 */
#include "plan/program.h"

/* Whether `value` is a constant whose one element is `wanted`. */
static bool is_number(const fbp_program *program, int32_t value, double wanted) {
    if (value < 0) return false;
    const fbp_value *v = &program->values[value];
    const fbp_buffer *b = &program->buffers[v->buffer];
    const int size = fbp_dtype_size((fbp_dtype)v->tensor->dtype);
    if (b->kind != FBP_BUFFER_CONSTANT || b->writes || b->bytes != size) return false;
    return v->tensor->dtype == FBP_FLOAT32   ? (double)*(const float *)b->storage->data == wanted
           : v->tensor->dtype == FBP_FLOAT64 ? *(const double *)b->storage->data == wanted
                                             : false;
}

/* The input that the line's result equals, -1 when there is none. */
static int32_t same_as(const fbp_program *program, const fbp_line *line) {
    const int32_t *in = line->inputs;
    if (line->kind == FBP_LINE_PULL) {
        if (line->op == FBP_OP_mul && is_number(program, in[0], 1.0)) return in[line->which == 0 ? 2 : 1];
        if (line->op == FBP_OP_mul && is_number(program, in[line->which == 0 ? 2 : 1], 1.0)) return in[0];
        return -1;
    }
    if (line->kind != FBP_LINE_OP || fbp_line_is_tie(line)) return -1;
    switch (line->op) {
        case FBP_OP_copy: case FBP_OP_cast: return in[0];
        case FBP_OP_mul: return is_number(program, in[1], 1.0) ? in[0] : is_number(program, in[0], 1.0) ? in[1] : -1;
        case FBP_OP_div: return is_number(program, in[1], 1.0) ? in[0] : -1;
        case FBP_OP_sub: return is_number(program, in[1], 0.0) ? in[0] : -1;
        default: return -1;
    }
}

bool fbp_line_forward(fbp_program *program, fbp_line *line, int32_t source) {
    const fbp_tensor *from = fbp_value_tensor(program, source), *to = fbp_value_tensor(program, line->output);
    const fbp_buffer *a = fbp_value_buffer(program, source), *b = fbp_value_buffer(program, line->output);
    /* Neither may be written again, or one would see the other's change. */
    const bool quiet = b->kind == FBP_BUFFER_ARENA && b->writes == 1 && a->writes <= (a->kind == FBP_BUFFER_ARENA ? 1 : 0);
    if (!quiet || from->dtype != to->dtype || !fbp_same_shape(from, to) || !fbp_is_contiguous(from) || !fbp_value_is_whole(program, line->output))
        return false;
    fbp_program_merge(program, program->values[line->output].buffer, program->values[source].buffer, program->values[source].offset);
    line->kind = FBP_LINE_NONE;
    return true;
}

fbp_status fbp_program_simplify(fbp_program *program) {
    for (int32_t i = 0; i < program->line_count; i++) {
        const int32_t source = same_as(program, &program->lines[i]);
        if (source >= 0) fbp_line_forward(program, &program->lines[i], source);
    }
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return FBP_OK;
}
