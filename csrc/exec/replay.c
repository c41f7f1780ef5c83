/* replay.c -- lines one by one, each from copies of its operands. */
#include "exec/replay.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

static const char *const no_memory = "FASTBP_CHECK: cannot allocate the memory of a replay";

/* ---- the program -------------------------------------------------------------------------------------------------------- */

fbp_status fbp_replay_program(const fbp_program *captured, fbp_program **out) {
    fbp_program *program;
    FBP_TRY(fbp_program_copy(captured, -1, &program));
    fbp_status status = FBP_OK;
    for (int32_t i = 0; i < program->buffer_count && status == FBP_OK; i++) {
        fbp_buffer *b = &program->buffers[i];
        fbp_storage *given = b->storage, *own = NULL;
        if (b->kind == FBP_BUFFER_CONSTANT && given) status = fbp_storage_new(b->bytes, &own);
        if (own) memcpy(own->data, given->data, (size_t)b->bytes);
        b->storage = own;
        if (given) fbp_storage_release(given);
    }
    if (status != FBP_OK) fbp_program_free(program);
    else *out = program;
    return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

/* Bytes from the first element to the lowest, and to the end of the highest. */
static struct fbp_extent extent_of(const fbp_tensor *t) {
    const int64_t size = fbp_dtype_size((fbp_dtype)t->dtype);
    struct fbp_extent e = {0, t->numel ? size : 0};
    for (int i = 0; i < t->ndim && t->numel; i++) {
        const int64_t reach = (fbp_shape(t)[i] - 1) * fbp_strides(t)[i] * size;
        if (reach < 0) e.low += reach;
        else e.high += reach;
    }
    return e;
}

static fbp_status get_memory(fbp_replay *r) {
    const fbp_program *p = r->program;
    for (int32_t i = 0; i < p->buffer_count; i++) r->extents[i].high = p->buffers[i].bytes;
    for (int32_t i = 0; i < p->value_count; i++) {
        const fbp_value *v = &p->values[i];
        const struct fbp_extent one = extent_of(v->tensor);
        struct fbp_extent *all = &r->extents[v->buffer];
        if (v->offset + one.low < all->low) all->low = v->offset + one.low;
        if (v->offset + one.high > all->high) all->high = v->offset + one.high;
    }
    for (int32_t i = 0; i < p->buffer_count; i++) {
        const fbp_buffer *b = &p->buffers[i];
        const size_t bytes = (size_t)(r->extents[i].high - r->extents[i].low);
        char *memory = malloc(bytes + 1);
        if (!memory) return fbp_fail(FBP_ERROR_MEMORY, "%s", no_memory);
        memset(memory, 0xff, bytes + 1); /* a NaN of either type */
        r->memory[i] = memory - r->extents[i].low;
        if (b->kind == FBP_BUFFER_CONSTANT && b->storage) memcpy(r->memory[i], b->storage->data, (size_t)b->bytes);
    }
    return FBP_OK;
}

fbp_status fbp_replay_new(const fbp_program *program, int32_t update_count, fbp_replay **out) {
    fbp_replay *r = calloc(1, sizeof *r);
    if (!r) return fbp_fail(FBP_ERROR_MEMORY, "%s", no_memory);
    r->program = program;
    r->update_count = update_count;
    r->memory = calloc((size_t)program->buffer_count + 1, sizeof *r->memory);
    r->extents = calloc((size_t)program->buffer_count + 1, sizeof *r->extents);
    r->scales = calloc((size_t)program->buffer_count + 1, sizeof *r->scales);
    r->places = calloc((size_t)program->draw_count + 1, sizeof *r->places);
    r->updates = calloc((size_t)update_count + 1, sizeof *r->updates);
    r->steps = calloc((size_t)update_count + 1, sizeof *r->steps);
    const bool complete = r->memory && r->extents && r->scales && r->places && r->updates && r->steps;
    const fbp_status status = complete ? get_memory(r) : fbp_fail(FBP_ERROR_MEMORY, "%s", no_memory);
    if (status != FBP_OK) {
        fbp_replay_free(r);
        return status;
    }
    for (int32_t i = 0; i < program->draw_count; i++) {
        const fbp_generator place = fbp_generator_take(program->draws[i].generator, 0);
        r->places[i] = (fbp_generator){place.seed, place.offset + program->draws[i].offset};
    }
    *out = r;
    return FBP_OK;
}

void fbp_replay_free(fbp_replay *replay) {
    if (!replay) return;
    for (int32_t i = 0; replay->memory && i < replay->program->buffer_count; i++)
        if (replay->memory[i]) free(replay->memory[i] + replay->extents[i].low);
    free(replay->memory);
    free(replay->extents);
    free(replay->scales);
    free(replay->places);
    free(replay->updates);
    free(replay->steps);
    free(replay);
}

static void strided_copy(const fbp_tensor *shape, char *to, const int64_t *to_strides, const char *from, const int64_t *from_strides) {
    const int size = fbp_dtype_size((fbp_dtype)shape->dtype);
    int64_t to_bytes[FBP_MAX_NDIM], from_bytes[FBP_MAX_NDIM];
    for (int i = 0; i < shape->ndim; i++) {
        to_bytes[i] = to_strides[i] * size;
        from_bytes[i] = from_strides[i] * size;
    }
    if (shape->numel) fbp_kernels->copy->strided(shape->ndim, fbp_shape(shape), size, to, to_bytes, from, from_bytes);
}

static void grow_scale(fbp_replay *r, int32_t buffer, double scale) {
    if (scale > r->scales[buffer]) r->scales[buffer] = scale;
}

static bool has_room(const fbp_replay *r, int32_t buffer, int64_t offset, const fbp_tensor *t) {
    const struct fbp_extent e = extent_of(t);
    return offset + e.low >= r->extents[buffer].low && offset + e.high <= r->extents[buffer].high;
}

fbp_status fbp_replay_fill(fbp_replay *replay, int32_t buffer, int64_t offset, const fbp_tensor *t) {
    const struct fbp_extent e = extent_of(t);
    if (!has_room(replay, buffer, offset, t))
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: a tensor of shape %s does not fit the memory that was captured for it",
                        fbp_tensor_shape_text(t));
    memcpy(replay->memory[buffer] + offset + e.low, t->data + e.low, (size_t)(e.high - e.low));
    grow_scale(replay, buffer, fbp_tensor_largest(t));
    return FBP_OK;
}

static char *address(const fbp_replay *r, int32_t value) {
    return r->memory[r->program->values[value].buffer] + r->program->values[value].offset;
}

static bool same_kind(const fbp_tensor *a, const fbp_tensor *b) { return a->dtype == b->dtype && fbp_same_shape(a, b); }

fbp_status fbp_replay_set(fbp_replay *replay, int32_t value, const fbp_tensor *t) {
    const fbp_tensor *like = fbp_value_tensor(replay->program, value);
    if (!t) {
        if (!fbp_is_contiguous(like)) return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: zeros for a value that is not contiguous");
        memset(address(replay, value), 0, (size_t)(like->numel * fbp_dtype_size((fbp_dtype)like->dtype)));
        return FBP_OK;
    }
    if (!same_kind(like, t))
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: %s %s where %s %s was captured", fbp_dtype_name((fbp_dtype)t->dtype),
                        fbp_tensor_shape_text(t), fbp_dtype_name((fbp_dtype)like->dtype), fbp_tensor_shape_text(like));
    strided_copy(t, address(replay, value), fbp_strides(like), t->data, fbp_strides(t));
    return FBP_OK;
}

/* ---- operands ----------------------------------------------------------------------------------------------------------------- */

/* A contiguous array of the value's type in this shape, uninitialised. */
static fbp_status make(const fbp_tensor *value, const fbp_tensor *shape, fbp_tensor **out) {
    fbp_layout layout;
    FBP_TRY(fbp_layout_contiguous(&layout, (fbp_dtype)value->dtype, shape->ndim, fbp_shape(shape)));
    FBP_TRY(fbp_tensor_empty(&layout, 0, 0, out));
    (*out)->flags |= value->flags & FBP_NUMBER;
    return FBP_OK;
}

/* A contiguous copy of a value, repeated to the shape of `full` (NULL: its own). */
static fbp_status take(const fbp_replay *r, int32_t value, const fbp_tensor *full, fbp_tensor **out) {
    const fbp_tensor *t = fbp_value_tensor(r->program, value);
    int64_t strides[FBP_MAX_NDIM];
    if (!full) full = t;
    const int before = full->ndim - t->ndim;
    if (before < 0) return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: an operand of shape %s for a result of shape %s", fbp_tensor_shape_text(t),
                                    fbp_tensor_shape_text(full));
    for (int i = 0; i < full->ndim; i++)
        strides[i] = i < before || (fbp_shape(t)[i - before] == 1 && fbp_shape(full)[i] != 1) ? 0 : fbp_strides(t)[i - before];
    FBP_TRY(make(t, full, out));
    strided_copy(*out, (*out)->data, fbp_strides(*out), address(r, value), strides);
    return FBP_OK;
}

static void put(fbp_replay *r, int32_t value, const fbp_tensor *from) {
    const fbp_tensor *to = fbp_value_tensor(r->program, value);
    strided_copy(from, address(r, value), fbp_strides(to), from->data, fbp_strides(from));
    grow_scale(r, r->program->values[value].buffer, fbp_tensor_largest(from));
}

static void drop(int32_t count, fbp_tensor **tensors) {
    for (int32_t i = 0; i < count; i++)
        if (tensors[i]) fbp_release(tensors[i]);
    free(tensors);
}

/* ---- kinds of lines ------------------------------------------------------------------------------------------------------------ */

static fbp_status run_op(const fbp_replay *r, const fbp_line *line, fbp_tensor **inputs, fbp_tensor *out) {
    void *attributes = NULL;
    fbp_call call = {(fbp_op)line->op, line->count, inputs, line->attributes, line->attribute_bytes};
    if (line->slot >= 0) { /* a random op: its place in the sequence as the call found it */
        if (!(attributes = malloc((size_t)line->attribute_bytes))) return fbp_fail(FBP_ERROR_MEMORY, "%s", no_memory);
        memcpy(attributes, line->attributes, (size_t)line->attribute_bytes);
        ((fbp_source_attribute *)attributes)->seed = r->places[line->slot].seed;
        ((fbp_source_attribute *)attributes)->offset = r->places[line->slot].offset;
        call.attributes = attributes;
    }
    const fbp_status status = fbp_ops[line->op].run(&call, out);
    free(attributes);
    return status;
}

static fbp_status run_pull(const fbp_line *line, fbp_tensor **inputs, fbp_tensor *out) {
    static const double no_parameters[2] = {0, 0};
    const void *in[4];
    for (int i = 0; i < 4; i++) in[i] = i < line->count && inputs[i] ? inputs[i]->data : NULL;
    fbp_kernels->pointwise->pull[line->op][line->which][out->dtype - FBP_FLOAT32](out->numel, out->data, in[0], in[1], in[2], in[3],
                                                                                  line->attributes ? line->attributes : no_parameters);
    return FBP_OK;
}

/* One parameter with its gradient and state by itself. */
static fbp_status run_update(const fbp_replay *r, const fbp_line *line, int32_t number, fbp_tensor **t) {
    const fbp_update_slot *slot = &r->updates[line->slot];
    const int64_t done = r->steps[line->slot][number];
    void *state[3];
    for (int k = 0; k < 3; k++) state[k] = t[2 + k] ? t[2 + k]->data : NULL;
    if (line->op == FBP_OP_sgd) {
        const fbp_sgd_tensor one = {t[0]->numel, t[0]->data, t[1]->data, state[0], done == 0};
        fbp_kernels->update->sgd_many[t[0]->dtype](1, &one, &slot->hyper.sgd);
    } else {
        const fbp_adam_tensor one = {t[0]->numel, t[0]->data, t[1]->data, state[0], state[1], state[2], done + 1};
        fbp_kernels->update->adam_many[t[0]->dtype](1, &one, &slot->hyper.adam);
    }
    return FBP_OK;
}

static fbp_status replay_update(fbp_replay *r, const fbp_line *line) {
    if (line->slot < 0 || line->slot >= r->update_count || !r->steps[line->slot])
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: an update without its numbers");
    for (int32_t i = 0; i < line->count; i += FBP_UPDATE_PARTS) {
        const int32_t *values = &line->inputs[i];
        fbp_tensor **t = calloc(FBP_UPDATE_PARTS, sizeof *t);
        fbp_status status = t ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "%s", no_memory);
        for (int k = 0; k < FBP_UPDATE_PARTS && status == FBP_OK; k++)
            if (values[k] >= 0) status = take(r, values[k], NULL, &t[k]);
        if (status == FBP_OK) status = run_update(r, line, i / FBP_UPDATE_PARTS, t);
        for (int k = 0; k < FBP_UPDATE_PARTS && status == FBP_OK; k++)
            if (values[k] >= 0 && k != FBP_UPDATE_GRAD) put(r, values[k], t[k]);
        if (t) drop(FBP_UPDATE_PARTS, t);
        FBP_TRY(status);
    }
    return FBP_OK;
}

/* Sums may cancel, and are then as wrong as their terms are: their buffer is judged by these. */
static bool is_sum(const fbp_line *line) {
    if (line->kind == FBP_LINE_WRITE) return true;
    if (line->kind != FBP_LINE_OP) return false;
    return fbp_ops[line->op].class == FBP_CLASS_LINEAR || fbp_ops[line->op].class == FBP_CLASS_BILINEAR || line->op == FBP_OP_add ||
           line->op == FBP_OP_sub;
}

static void note_scale(fbp_replay *r, const fbp_line *line) {
    double scale = 0;
    if (!is_sum(line)) return;
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0) continue;
        const double one = r->scales[r->program->values[line->inputs[i]].buffer];
        if (fbp_ops[line->op].class == FBP_CLASS_BILINEAR && i == 1) scale *= one;
        else if (one > scale) scale = one;
    }
    grow_scale(r, r->program->values[line->output].buffer, scale);
}

static fbp_status replay_line(fbp_replay *r, const fbp_line *line) {
    if (line->kind == FBP_LINE_UPDATE) return replay_update(r, line);
    if (line->kind != FBP_LINE_OP && line->kind != FBP_LINE_PULL && line->kind != FBP_LINE_WRITE)
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: a replay knows no lines of kind %d (op %s)", line->kind, fbp_ops[line->op].name);
    const fbp_tensor *like = fbp_value_tensor(r->program, line->output);
    fbp_tensor **t = calloc((size_t)line->count + 1, sizeof *t); /* the inputs, and the output */
    if (!t) return fbp_fail(FBP_ERROR_MEMORY, "%s", no_memory);
    fbp_status status = FBP_OK;
    for (int32_t i = 0; i < line->count && status == FBP_OK; i++)
        if (line->inputs[i] >= 0) status = take(r, line->inputs[i], line->kind == FBP_LINE_OP ? NULL : like, &t[i]);
    if (line->kind == FBP_LINE_WRITE) {
        if (status == FBP_OK) put(r, line->output, t[0]);
    } else {
        if (status == FBP_OK) status = make(like, like, &t[line->count]);
        if (status == FBP_OK) status = line->kind == FBP_LINE_OP ? run_op(r, line, t, t[line->count]) : run_pull(line, t, t[line->count]);
        if (status == FBP_OK) put(r, line->output, t[line->count]);
    }
    if (status == FBP_OK) note_scale(r, line);
    drop(line->count + 1, t);
    return status;
}

fbp_status fbp_replay_run(fbp_replay *replay, int phase) {
    for (int32_t i = 0; i < replay->program->line_count; i++)
        if (replay->program->lines[i].phase == phase) FBP_TRY(replay_line(replay, &replay->program->lines[i]));
    return FBP_OK;
}

/* ---- comparing ---------------------------------------------------------------------------------------------------------------- */

/* `found` against the elements at `wanted`; row-major copies of both are compared. */
static fbp_status compare_elements(const fbp_tensor *found, const char *wanted, const int64_t *strides, double scale, const char *what) {
    fbp_tensor *a, *b;
    FBP_TRY(make(found, found, &a));
    fbp_status status = make(found, found, &b);
    if (status == FBP_OK) {
        strided_copy(found, a->data, fbp_strides(a), wanted, strides);
        strided_copy(found, b->data, fbp_strides(b), found->data, fbp_strides(found));
        const fbp_discrepancy d = fbp_elements_compare(found->dtype, found->numel, a->data, b->data, scale);
        if (d.difference > d.allowed)
            status = fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: %s, %s %s, differs by %.3g from what the function's operations give one by one "
                              "on memory of their own; %.3g is allowed", what, fbp_dtype_name((fbp_dtype)found->dtype),
                              fbp_tensor_shape_text(found), d.difference, d.allowed);
        fbp_release(b);
    }
    fbp_release(a);
    return status;
}

fbp_status fbp_replay_compare(const fbp_replay *replay, int32_t buffer, int64_t offset, const fbp_tensor *like, const fbp_tensor *found,
                              const char *what) {
    fbp_layout layout;
    if (like && !same_kind(like, found))
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: %s is %s %s; the function gives %s %s", what, fbp_dtype_name((fbp_dtype)found->dtype),
                        fbp_tensor_shape_text(found), fbp_dtype_name((fbp_dtype)like->dtype), fbp_tensor_shape_text(like));
    if (like) fbp_layout_of(like, &layout);
    else FBP_TRY(fbp_layout_contiguous(&layout, (fbp_dtype)found->dtype, found->ndim, fbp_shape(found)));
    fbp_tensor *place;
    FBP_TRY(fbp_tensor_new(&layout, NULL, NULL, 0, 0, &place));
    fbp_status status = FBP_OK;
    if (!has_room(replay, buffer, offset, place))
        status = fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: %s has the shape %s, which is more than the function gives", what,
                          fbp_tensor_shape_text(found));
    else status = compare_elements(found, replay->memory[buffer] + offset, fbp_strides(place), replay->scales[buffer], what);
    fbp_release(place);
    return status;
}

fbp_status fbp_replay_compare_value(const fbp_replay *replay, int32_t value, const fbp_tensor *found, const char *what) {
    const fbp_value *v = &replay->program->values[value];
    return fbp_replay_compare(replay, v->buffer, v->offset, v->tensor, found, what);
}
