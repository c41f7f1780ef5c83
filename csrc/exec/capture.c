/* capture.c -- ops become lines. */
#include "exec/capture.h"

#include <stdlib.h>
#include <string.h>

#include "exec/apply.h"

/* ---- tables of tensors: they lie in the capture, not in the tensors, since other threads may capture them at the same time ---- */

typedef const fbp_tensor *(*entry_fn)(const fbp_capture *capture, int32_t i);

static const fbp_tensor *seen_at(const fbp_capture *capture, int32_t i) { return capture->seen[i]; }
static const fbp_tensor *leaf_at(const fbp_capture *capture, int32_t i) { return capture->leaves[i].leaf; }

/* Where a tensor's number stands in a hash table, or would stand; the table has room. */
static int32_t *table_place(int32_t *table, int32_t size, const fbp_tensor *t, entry_fn entry, const fbp_capture *capture) {
    const size_t mask = (size_t)size - 1;
    size_t at = (size_t)t / sizeof(void *) * 0x9e3779b97f4a7c15u >> 20 & mask;
    while (table[at] >= 0 && entry(capture, table[at]) != t) at = (at + 1) & mask;
    return &table[at];
}

/* Room for one more than `count`. */
static bool table_grow(int32_t **table, int32_t *size, int32_t count, entry_fn entry, const fbp_capture *capture) {
    if (2 * (count + 1) <= *size) return true;
    const int32_t larger = *size ? 2 * *size : 64;
    int32_t *made = malloc((size_t)larger * sizeof *made);
    if (!made) return false;
    free(*table);
    *table = made;
    *size = larger;
    memset(made, -1, (size_t)larger * sizeof *made);
    for (int32_t i = 0; i < count; i++) *table_place(made, larger, entry(capture, i), entry, capture) = i;
    return true;
}

/* ---- beginning and end ---- */

fbp_status fbp_capture_begin(fbp_capture **out) {
    fbp_mode *mode = fbp_mode_get();
    if (mode->capture)
        return fbp_fail(FBP_ERROR_RUNTIME, "compile: a capture is under way on this thread; call the function itself instead of its compiled form");
    fbp_capture *capture = calloc(1, sizeof *capture);
    if (!capture) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a capture");
    fbp_status status = fbp_program_new(&capture->program);
    if (status != FBP_OK) {
        free(capture);
        return status;
    }
    fbp_capture_resume(capture);
    *out = capture;
    return FBP_OK;
}

fbp_capture *fbp_capture_get(void) { return fbp_mode_get()->capture; }

fbp_capture *fbp_capture_pause(void) {
    fbp_mode *mode = fbp_mode_get();
    fbp_capture *capture = mode->capture;
    mode->capture = NULL;
    fbp_storage_mark(false);
    return capture;
}

void fbp_capture_resume(fbp_capture *capture) {
    fbp_mode_get()->capture = capture;
    fbp_storage_mark(capture != NULL);
}

void fbp_capture_free(fbp_capture *capture) {
    if (!capture) return;
    for (int32_t i = 0; i < capture->leaf_count; i++) {
        fbp_release(capture->leaves[i].leaf);
        if (capture->leaves[i].before) fbp_release(capture->leaves[i].before);
        if (capture->leaves[i].after) fbp_release(capture->leaves[i].after);
    }
    for (int32_t i = 0; i < capture->seen_count; i++) fbp_release(capture->seen[i]);
    free(capture->seen);
    free(capture->seen_table);
    free(capture->leaves);
    free(capture->leaf_table);
    free(capture->generators);
    fbp_program_free(capture->program);
    free(capture);
}

fbp_status fbp_capture_tensor(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out) {
    fbp_storage *storage;
    FBP_TRY(fbp_storage_symbolic(layout->numel * fbp_dtype_size((fbp_dtype)layout->dtype), &storage));
    fbp_status status = fbp_tensor_new(layout, storage, storage->data, edge_count, attribute_bytes, out);
    if (status != FBP_OK) fbp_storage_release(storage);
    return status;
}

/* A symbolic tensor of an earlier capture, or of another thread's, has no place in this program. */
static fbp_status own_check(const fbp_capture *capture, const fbp_tensor *t) {
    const fbp_storage *storage = t->storage;
    const intptr_t buffer = storage->symbolic ? (intptr_t)storage->owner - 1 : -1;
    if (buffer < 0 || (buffer < capture->program->buffer_count && capture->program->buffers[buffer].storage == storage)) return FBP_OK;
    return fbp_fail(FBP_ERROR_RUNTIME, "compile: a tensor of shape %s was made while another function was compiled and has no values; return "
                                       "it from that function to use it elsewhere", fbp_tensor_shape_text(t));
}

/* The value behind an operand; real tensors made during the capture are constants. */
static fbp_status operand_value(fbp_capture *capture, fbp_tensor *t, int32_t *value) {
    FBP_TRY(own_check(capture, t));
    *value = fbp_program_value(capture->program, t);
    if (*value < 0) return FBP_ERROR_MEMORY;
    fbp_buffer *buffer = fbp_value_buffer(capture->program, *value);
    if (buffer->kind != FBP_BUFFER_STATE) return FBP_OK;
    if (t->storage->captured) buffer->kind = FBP_BUFFER_CONSTANT;
    else fbp_capture_see(capture, t);
    return FBP_OK;
}

/* Which draw a random line's attribute came from: the generator with its seed. */
static int draw_of(fbp_capture *capture, const fbp_source_attribute *source) {
    fbp_program *program = capture->program;
    for (int32_t i = 0; i < capture->generator_count; i++) {
        if (capture->generators[i].mark != source->seed) continue;
        if (!fbp_list_grow((void **)&program->draws, program->draw_count, &program->draw_capacity, sizeof *program->draws)) return -1;
        program->draws[program->draw_count] = (fbp_draw){capture->generators[i].generator, source->offset};
        return program->draw_count++;
    }
    return -1;
}

/* The line of a call, without its output. */
static fbp_status line_of(fbp_capture *capture, const fbp_call *call, int which, fbp_line **line) {
    fbp_program *program = capture->program;
    int32_t inputs[8], *list = inputs;
    fbp_status status = FBP_OK;
    if (call->count > 8 && !(list = malloc((size_t)call->count * sizeof *list)))
        return fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate a line of the plan", fbp_ops[call->op].name);
    for (int i = 0; i < call->count && status == FBP_OK; i++) {
        list[i] = -1;
        if (call->inputs[i]) status = operand_value(capture, call->inputs[i], &list[i]);
    }
    if (status == FBP_OK) {
        *line = fbp_program_line_add(program, which < 0 ? FBP_LINE_OP : FBP_LINE_PULL, call->op, call->count, call->attributes,
                                     call->attribute_bytes);
        if (!*line) status = FBP_ERROR_MEMORY;
    }
    if (status == FBP_OK) {
        memcpy((*line)->inputs, list, (size_t)call->count * sizeof *list);
        if (which >= 0) (*line)->which = (uint8_t)which;
    }
    if (list != inputs) free(list);
    return status;
}

fbp_status fbp_capture_apply(fbp_capture *capture, const fbp_call *call, int which, const fbp_layout *layout, int edge_count,
                             int attribute_bytes, fbp_tensor **out) {
    fbp_tensor *result;
    fbp_line *line;
    FBP_TRY(line_of(capture, call, which, &line));
    if (which < 0 && fbp_op_random[call->op]) {
        line->slot = draw_of(capture, call->attributes);
        if (line->slot < 0) return fbp_fail(FBP_ERROR_RUNTIME, "compile: %s uses random numbers whose place is not known: drawn outside of the function, or after manual_seed() in it; "
                                           "seed before the call", fbp_ops[call->op].name);
    }
    FBP_TRY(fbp_capture_tensor(layout, edge_count, attribute_bytes, &result));
    int32_t value = fbp_program_value(capture->program, result);
    if (value < 0) {
        fbp_release(result);
        return FBP_ERROR_MEMORY;
    }
    line->output = value;
    *out = result;
    return FBP_OK;
}

fbp_status fbp_capture_write(fbp_capture *capture, fbp_tensor *target, fbp_tensor *source) {
    int32_t from, to;
    FBP_TRY(operand_value(capture, source, &from));
    FBP_TRY(operand_value(capture, target, &to));
    fbp_line *line = fbp_program_line_add(capture->program, FBP_LINE_WRITE, FBP_OP_copy, 1, NULL, 0);
    if (!line) return FBP_ERROR_MEMORY;
    line->inputs[0] = from;
    line->output = to;
    return FBP_OK;
}

fbp_status fbp_capture_update(fbp_capture *capture, fbp_op op, int count, fbp_tensor *const *tensors, int slot) {
    const fbp_call call = {op, FBP_UPDATE_PARTS * count, tensors, NULL, 0};
    fbp_line *line;
    FBP_TRY(line_of(capture, &call, -1, &line));
    line->kind = FBP_LINE_UPDATE;
    line->slot = slot;
    return FBP_OK;
}

/* What the capture knows of a leaf's gradient, NULL where it does not know the leaf. */
static fbp_leaf_change *change_of(const fbp_capture *capture, const fbp_tensor *leaf) {
    if (!capture->leaf_table_size) return NULL;
    const int32_t i = *table_place(capture->leaf_table, capture->leaf_table_size, leaf, leaf_at, capture);
    return i < 0 ? NULL : &capture->leaves[i];
}

fbp_status fbp_capture_gradient(fbp_capture *capture, fbp_tensor *leaf, bool replaced) {
    if (change_of(capture, leaf)) return FBP_OK;
    if (!table_grow(&capture->leaf_table, &capture->leaf_table_size, capture->leaf_count, leaf_at, capture) ||
        !fbp_list_grow((void **)&capture->leaves, capture->leaf_count, &capture->leaf_capacity, sizeof *capture->leaves)) {
        capture->failed = true;
        return fbp_fail(FBP_ERROR_MEMORY, "backward: cannot allocate a list of gradients");
    }
    fbp_tensor *before = leaf->autograd ? leaf->autograd->gradient : NULL;
    *table_place(capture->leaf_table, capture->leaf_table_size, leaf, leaf_at, capture) = capture->leaf_count;
    capture->leaves[capture->leaf_count++] =
        (fbp_leaf_change){.leaf = fbp_retain(leaf), .before = before ? fbp_retain(before) : NULL, .after = before ? fbp_retain(before) : NULL,
                          .replaced_first = replaced, .held = before && before->handle};
    return FBP_OK;
}

fbp_tensor *fbp_gradient_get(const fbp_tensor *t) {
    const fbp_capture *capture = fbp_mode_get()->capture;
    const fbp_leaf_change *change = capture ? change_of(capture, t) : NULL;
    return change ? change->after : t->autograd ? t->autograd->gradient : NULL;
}

fbp_tensor **fbp_gradient_place(fbp_tensor *t) {
    fbp_capture *capture = fbp_mode_get()->capture;
    if (capture) {
        fbp_leaf_change *change = change_of(capture, t);
        return change ? &change->after : NULL;
    }
    fbp_autograd *extra = fbp_autograd_get(t);
    return extra ? &extra->gradient : NULL;
}

bool fbp_capture_is_seen(const fbp_capture *capture, const fbp_tensor *gradient) {
    enum { OWN = 2 }; /* references of a storage: its tensor's, and the program's */
    const fbp_storage *storage = gradient->storage;
    if (!storage->symbolic || gradient->handle || gradient->references > 1 || storage->references > OWN) return true;
    const intptr_t buffer = (intptr_t)storage->owner - 1;
    return buffer >= 0 && capture->program->buffers[buffer].kind != FBP_BUFFER_ARENA;
}

void fbp_capture_see(fbp_capture *capture, fbp_tensor *t) {
    if (!table_grow(&capture->seen_table, &capture->seen_table_size, capture->seen_count, seen_at, capture)) {
        capture->failed = true;
        return;
    }
    int32_t *place = table_place(capture->seen_table, capture->seen_table_size, t, seen_at, capture);
    if (*place >= 0) return;
    if (!fbp_list_grow((void **)&capture->seen, capture->seen_count, &capture->seen_capacity, sizeof *capture->seen)) {
        capture->failed = true;
        return;
    }
    if (fbp_program_buffer(capture->program, t->storage) < 0) capture->failed = true;
    *place = capture->seen_count;
    capture->seen[capture->seen_count++] = fbp_retain(t);
}

fbp_status fbp_capture_draw(fbp_capture *capture, fbp_generator *generator, int64_t blocks, fbp_generator *place) {
    static uint64_t marks = 0x6a09e667f3bcc908u;
    int32_t i = 0;
    while (i < capture->generator_count && capture->generators[i].generator != generator) i++;
    if (i == capture->generator_count) {
        if (!fbp_list_grow((void **)&capture->generators, capture->generator_count, &capture->generator_capacity, sizeof *capture->generators))
            return FBP_ERROR_MEMORY;
        capture->generators[capture->generator_count++] = (fbp_generator_change){generator, ++marks, 0};
    }
    fbp_generator_change *change = &capture->generators[i];
    *place = (fbp_generator){change->mark, change->blocks};
    change->blocks += (uint64_t)blocks;
    return FBP_OK;
}
