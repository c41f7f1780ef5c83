/* fold.c -- compute now what does not depend on the call.
 *
 * A `full` becomes one element seen with strides of 0, whatever its size; other lines over constants are run once, where their
 * result is small enough to be worth keeping.
 */
#include <string.h>

#include "kernels/kernels.h"
#include "plan/program.h"

enum { FOLD_BYTES_MOST = 1 << 18 };

/* A constant of this layout in place of the buffer's memory; *storage is the buffer's from now on. */
static fbp_status make_constant(fbp_program *program, int32_t buffer, int64_t bytes) {
    fbp_storage *storage;
    fbp_buffer *b = &program->buffers[buffer];
    FBP_TRY(fbp_storage_new(bytes, &storage));
    if (b->storage) fbp_storage_release(b->storage);
    b->storage = storage;
    b->kind = FBP_BUFFER_CONSTANT;
    b->bytes = bytes;
    b->writes = 0;
    return FBP_OK;
}

static void bind_constant(const fbp_program *program, int32_t value) {
    const fbp_value *v = &program->values[value];
    const fbp_buffer *b = &program->buffers[v->buffer];
    if (b->kind == FBP_BUFFER_CONSTANT) v->tensor->data = (char *)b->storage->data + v->offset;
}

static fbp_status fold_full(fbp_program *program, fbp_line *line) {
    const fbp_value *output = &program->values[line->output];
    const int32_t buffer = output->buffer;
    const int64_t shape = 1;
    fbp_source_attribute source = *(const fbp_source_attribute *)line->attributes;
    const int size = fbp_dtype_size((fbp_dtype)source.dtype);
    fbp_layout layout;
    fbp_tensor *one;
    FBP_TRY(fbp_layout_contiguous(&layout, (fbp_dtype)source.dtype, 1, &shape));
    FBP_TRY(make_constant(program, buffer, size));
    FBP_TRY(fbp_tensor_new(&layout, NULL, program->buffers[buffer].storage->data, 0, 0, &one));
    source.ndim = 1;
    source.shape[0] = 1;
    const fbp_call call = {FBP_OP_full, 0, NULL, &source, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 1)};
    fbp_status status = fbp_ops[FBP_OP_full].run(&call, one);
    fbp_release(one);
    for (int32_t i = program->buffers[buffer].values; i >= 0; i = program->values[i].next) {
        fbp_value *v = &program->values[i];
        memset(fbp_strides(v->tensor), 0, v->tensor->ndim * sizeof(int64_t));
        if (v->tensor->numel > 1) v->tensor->flags &= (uint16_t)~FBP_CONTIGUOUS;
        v->offset = 0;
    }
    line->kind = FBP_LINE_NONE;
    return status;
}

static bool is_foldable(const fbp_program *program, const fbp_line *line) {
    if (line->kind != FBP_LINE_OP || fbp_op_random[line->op] || line->count > 8) return false;
    const fbp_buffer *out = fbp_value_buffer(program, line->output);
    if (out->kind != FBP_BUFFER_ARENA || out->writes != 1 || !fbp_value_is_whole(program, line->output)) return false;
    if (line->op == FBP_OP_full) return true;
    if (out->bytes > FOLD_BYTES_MOST) return false;
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0) continue;
        const fbp_buffer *in = fbp_value_buffer(program, line->inputs[i]);
        if (in->kind != FBP_BUFFER_CONSTANT || in->writes) return false;
        if (!fbp_op_strided[line->op] && !fbp_is_contiguous(fbp_value_tensor(program, line->inputs[i]))) return false;
    }
    return true;
}

fbp_status fbp_program_fold(fbp_program *program) {
    fbp_tensor *inputs[8];
    for (int32_t i = 0; i < program->line_count; i++) {
        fbp_line *line = &program->lines[i];
        if (!is_foldable(program, line)) continue;
        if (line->op == FBP_OP_full) {
            FBP_TRY(fold_full(program, line));
            continue;
        }
        const int32_t buffer = program->values[line->output].buffer;
        for (int32_t k = 0; k < line->count; k++) {
            if (line->inputs[k] >= 0) bind_constant(program, line->inputs[k]);
            inputs[k] = line->inputs[k] >= 0 ? fbp_value_tensor(program, line->inputs[k]) : NULL;
        }
        FBP_TRY(make_constant(program, buffer, program->buffers[buffer].bytes));
        bind_constant(program, line->output);
        const fbp_call call = {(fbp_op)line->op, line->count, inputs, line->attributes, line->attribute_bytes};
        FBP_TRY(fbp_ops[line->op].run(&call, fbp_value_tensor(program, line->output)));
        line->kind = FBP_LINE_NONE;
    }
    fbp_program_compact(program);
    return FBP_OK;
}
