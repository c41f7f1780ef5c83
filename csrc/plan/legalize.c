/* legalize.c -- copies where a kernel wants its inputs contiguous, and what can be fused.
 *
 * Views cost nothing until a kernel meets one that it cannot walk.
 */
#include <string.h>

#include "plan/program.h"

/* Strides of x under the result's shape; false where x does not broadcast to it. */
static bool strides_under(const fbp_tensor *x, int ndim, const int64_t *shape, int64_t *strides) {
    const int lead = ndim - x->ndim;
    for (int i = 0; i < ndim; i++) {
        const int own = i - lead;
        if (own >= 0 && fbp_shape(x)[own] != shape[i] && fbp_shape(x)[own] != 1) return false;
        strides[i] = own < 0 || fbp_shape(x)[own] == 1 ? 0 : fbp_strides(x)[own];
    }
    return lead >= 0;
}

fbp_look fbp_look_at(const fbp_tensor *x, int ndim, const int64_t *shape, int64_t numel, int64_t *inner) {
    int64_t strides[FBP_MAX_NDIM];
    if (x->numel == numel && fbp_is_contiguous(x)) return FBP_LOOK_FULL;
    if (!strides_under(x, ndim, shape, strides)) return FBP_LOOK_NONE;
    /* From the last axis: contiguous for a while, then repeated; or repeated, then contiguous. */
    int64_t run = 1, step = 1;
    int axis = ndim - 1;
    while (axis >= 0 && (shape[axis] == 1 || strides[axis] == 0)) run *= shape[axis--];
    const bool column = run > 1;
    if (axis < 0) return FBP_LOOK_SCALAR;
    if (!column)
        for (; axis >= 0 && (shape[axis] == 1 || strides[axis] == run); axis--) run *= shape[axis];
    for (int i = axis; i >= 0; i--) {
        if (shape[i] == 1) continue;
        if (strides[i] != (column ? step : 0)) return FBP_LOOK_NONE;
        step *= shape[i];
    }
    *inner = run;
    return column ? FBP_LOOK_COLUMN : FBP_LOOK_ROW;
}

bool fbp_line_fuses(const fbp_program *program, const fbp_line *line, fbp_dtype *dtype) {
    if (line->kind == FBP_LINE_PULL) {
        *dtype = (fbp_dtype)fbp_value_tensor(program, line->output)->dtype;
        return true;
    }
    if (line->kind != FBP_LINE_OP) return false;
    const fbp_op_row *row = &fbp_ops[line->op];
    const fbp_dtype out = (fbp_dtype)fbp_value_tensor(program, line->output)->dtype;
    if (line->op == FBP_OP_where) {
        *dtype = out;
        return fbp_dtype_is_float(out);
    }
    if (row->class == FBP_CLASS_POINTWISE && row->arity <= 2 && row->kind != FBP_KIND_I) {
        *dtype = out;
        return fbp_dtype_is_float(out);
    }
    if (row->class == FBP_CLASS_PREDICATE) {
        *dtype = (fbp_dtype)fbp_value_tensor(program, line->inputs[0])->dtype;
        return fbp_dtype_is_float(*dtype);
    }
    return false;
}

/* Whether an earlier operand repeats in pieces of another length than `inner`.  A chain walks one length alone, and a
 * pull, unlike an op, has no other way to run. */
static bool repeats_otherwise(const fbp_program *program, const fbp_line *line, int32_t i, int64_t inner) {
    const fbp_tensor *out = fbp_value_tensor(program, line->output);
    for (int32_t k = 0; k < i; k++) {
        int64_t other;
        if (line->inputs[k] < 0) continue;
        const fbp_look look = fbp_look_at(fbp_value_tensor(program, line->inputs[k]), out->ndim, fbp_shape(out), out->numel, &other);
        if ((look == FBP_LOOK_ROW || look == FBP_LOOK_COLUMN) && other != inner) return true;
    }
    return false;
}

static bool wants_copy(const fbp_program *program, const fbp_line *line, int32_t i) {
    const fbp_tensor *x = fbp_value_tensor(program, line->inputs[i]), *out = line->output < 0 ? NULL : fbp_value_tensor(program, line->output);
    fbp_dtype dtype;
    int64_t inner;
    if (fbp_line_fuses(program, line, &dtype)) {
        const fbp_look look = fbp_look_at(x, out->ndim, fbp_shape(out), out->numel, &inner);
        if (line->kind == FBP_LINE_PULL && (look == FBP_LOOK_ROW || look == FBP_LOOK_COLUMN) && repeats_otherwise(program, line, i, inner))
            return true;
        return look == FBP_LOOK_NONE;
    }
    return line->kind == FBP_LINE_OP && !fbp_op_strided[line->op] && !fbp_is_contiguous(x);
}

/* A contiguous copy of input i, in the output's shape where the line is elementwise; the line reads it from now on. */
static fbp_status insert_copy(fbp_program *program, fbp_line *line, int32_t i) {
    const fbp_tensor *x = fbp_value_tensor(program, line->inputs[i]);
    fbp_layout layout, seen;
    fbp_dtype dtype;
    int32_t source = line->inputs[i];
    if (fbp_line_fuses(program, line, &dtype)) {
        const fbp_tensor *out = fbp_value_tensor(program, line->output);
        FBP_TRY(fbp_layout_contiguous(&layout, (fbp_dtype)x->dtype, out->ndim, fbp_shape(out)));
        seen = layout;
        strides_under(x, out->ndim, fbp_shape(out), seen.strides);
        source = fbp_program_value_add(program, program->values[source].buffer, program->values[source].offset, &seen);
    } else {
        FBP_TRY(fbp_layout_contiguous(&layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x)));
    }
    const int32_t buffer = source < 0 ? -1 : fbp_program_buffer_add(program, FBP_BUFFER_ARENA, layout.numel * fbp_dtype_size((fbp_dtype)layout.dtype));
    const int32_t made = buffer < 0 ? -1 : fbp_program_value_add(program, buffer, 0, &layout);
    const fbp_line reader = *line; /* the list may move */
    fbp_line *copy = made < 0 ? NULL : fbp_program_line_add(program, FBP_LINE_OP, FBP_OP_copy, 1, NULL, 0);
    if (!copy) return FBP_ERROR_MEMORY;
    copy->inputs[0] = source;
    copy->output = made;
    copy->phase = reader.phase;
    copy->sweep = reader.sweep;
    copy->region = reader.region;
    program->buffers[buffer].writes = 1;
    reader.inputs[i] = made;
    return FBP_OK;
}

fbp_status fbp_program_legalize(fbp_program *program) {
    const int32_t count = program->line_count;
    fbp_line *old = fbp_program_get(program, ((size_t)count + 1) * sizeof *old);
    if (!old) return FBP_ERROR_MEMORY;
    if (count) memcpy(old, program->lines, (size_t)count * sizeof *old);
    program->line_count = 0;
    for (int32_t n = 0; n < count; n++) {
        fbp_line *line = &old[n];
        for (int32_t i = 0; i < line->count; i++)
            if (line->inputs[i] >= 0 && wants_copy(program, line, i)) FBP_TRY(insert_copy(program, line, i));
        fbp_line *again = fbp_program_line_add(program, (fbp_line_kind)line->kind, (fbp_op)line->op, 0, NULL, 0);
        if (!again) return FBP_ERROR_MEMORY;
        *again = *line;
    }
    return FBP_OK;
}
