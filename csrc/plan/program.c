/* program.c -- the lists of a captured computation. */
#include "plan/program.h"

#include <stdlib.h>
#include <string.h>

#include "plan/scalars.h"

struct fbp_pool_chunk {
    fbp_pool_chunk *next;
    size_t used, size;
    _Alignas(16) char memory[];
};

void *fbp_program_get(fbp_program *program, size_t bytes) {
    enum { CHUNK = 1 << 15 };
    bytes = (bytes + 15) & ~(size_t)15;
    fbp_pool_chunk *chunk = program->pool;
    if (!chunk || chunk->size - chunk->used < bytes) {
        size_t size = bytes > CHUNK ? bytes : CHUNK;
        chunk = calloc(1, sizeof *chunk + size);
        if (!chunk) {
            fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan's lists");
            return NULL;
        }
        chunk->size = size;
        chunk->next = program->pool;
        program->pool = chunk;
    }
    void *memory = chunk->memory + chunk->used;
    chunk->used += bytes;
    return memory;
}

fbp_status fbp_program_new(fbp_program **out) {
    *out = calloc(1, sizeof **out);
    return *out ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan");
}

void fbp_program_free(fbp_program *program) {
    if (!program) return;
    for (int32_t i = 0; i < program->line_count; i++)
        if (program->lines[i].kind == FBP_LINE_SCALARS) fbp_scalars_free(((fbp_scalar_detail *)program->lines[i].detail)->scalars);
    for (int32_t i = 0; i < program->value_count; i++) fbp_release(program->values[i].tensor);
    for (int32_t i = 0; i < program->buffer_count; i++)
        if (program->buffers[i].storage) fbp_storage_release(program->buffers[i].storage);
    while (program->pool) {
        fbp_pool_chunk *next = program->pool->next;
        free(program->pool);
        program->pool = next;
    }
    free(program->buffers);
    free(program->values);
    free(program->lines);
    free(program->draws);
    free(program->parents);
    free(program->real);
    free(program);
}

bool fbp_list_grow(void **list, int32_t count, int32_t *capacity, size_t size) {
    if (count < *capacity) return true;
    int32_t wanted = *capacity ? 2 * *capacity : 16;
    void *larger = realloc(*list, (size_t)wanted * size);
    if (!larger) {
        fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan's lists");
        return false;
    }
    *list = larger;
    *capacity = wanted;
    return true;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------- */

int32_t fbp_program_buffer_add(fbp_program *program, fbp_buffer_kind kind, int64_t bytes) {
    if (!fbp_list_grow((void **)&program->buffers, program->buffer_count, &program->buffer_capacity, sizeof *program->buffers)) return -1;
    program->buffers[program->buffer_count] =
        (fbp_buffer){.bytes = bytes, .offset = -1, .values = -1, .first = -1, .last = -1, .kind = (uint8_t)kind};
    return program->buffer_count++;
}

static size_t storage_hash(const fbp_storage *storage, int32_t capacity) {
    return ((size_t)storage >> 4) * 0x9e3779b97f4a7c15u >> 20 & (size_t)(capacity - 1);
}

static bool real_insert(fbp_program *program, int32_t buffer) {
    if (2 * (program->real_count + 1) > program->real_capacity) {
        int32_t capacity = program->real_capacity ? 2 * program->real_capacity : 64, *old = program->real;
        int32_t *table = malloc((size_t)capacity * sizeof *table);
        if (!table) return false;
        memset(table, -1, (size_t)capacity * sizeof *table);
        for (int32_t i = 0; i < program->real_capacity; i++) {
            if (old[i] < 0) continue;
            size_t at = storage_hash(program->buffers[old[i]].storage, capacity);
            while (table[at] >= 0) at = (at + 1) & (size_t)(capacity - 1);
            table[at] = old[i];
        }
        free(old);
        program->real = table;
        program->real_capacity = capacity;
    }
    size_t at = storage_hash(program->buffers[buffer].storage, program->real_capacity);
    while (program->real[at] >= 0) at = (at + 1) & (size_t)(program->real_capacity - 1);
    program->real[at] = buffer;
    program->real_count++;
    return true;
}

int32_t fbp_program_buffer(fbp_program *program, fbp_storage *storage) {
    int32_t found = -1;
    if (storage->symbolic) {
        found = (int32_t)(intptr_t)storage->owner - 1;
        if (found >= 0) return found;
    } else if (program->real_capacity) {
        size_t at = storage_hash(storage, program->real_capacity);
        for (; (found = program->real[at]) >= 0; at = (at + 1) & (size_t)(program->real_capacity - 1))
            if (program->buffers[found].storage == storage) return found;
    }
    found = fbp_program_buffer_add(program, storage->symbolic ? FBP_BUFFER_ARENA : FBP_BUFFER_STATE, storage->bytes);
    if (found < 0) return -1;
    fbp_storage_retain(storage);
    program->buffers[found].storage = storage;
    if (storage->symbolic) storage->owner = (void *)(intptr_t)(found + 1);
    else if (!real_insert(program, found)) return -1;
    return found;
}

void fbp_program_merge(fbp_program *program, int32_t from, int32_t to, int64_t offset) {
    int32_t last = -1;
    for (int32_t i = program->buffers[from].values; i >= 0; i = program->values[i].next) {
        program->values[i].buffer = to;
        program->values[i].offset += offset;
        last = i;
    }
    if (last < 0) return;
    program->values[last].next = program->buffers[to].values;
    program->buffers[to].values = program->buffers[from].values;
    program->buffers[from].values = -1;
    program->buffers[to].keep |= program->buffers[from].keep;
}

/* ---- values -------------------------------------------------------------------------------------------------------- */

static bool same_view(const fbp_tensor *t, const fbp_layout *layout) {
    return t->dtype == layout->dtype && t->ndim == layout->ndim &&
           memcmp(fbp_shape(t), layout->shape, t->ndim * sizeof(int64_t)) == 0 &&
           memcmp(fbp_strides(t), layout->strides, t->ndim * sizeof(int64_t)) == 0;
}

/* An axis of size 1 may have any stride, since no step is ever taken along it.  Values have the one that a packed array would have
 * there, so that whoever takes the stride of several axes from one of them (the rows of a product) finds it. */
static fbp_layout settle_strides(const fbp_layout *layout) {
    fbp_layout settled = *layout;
    int64_t packed = 1;
    for (int i = layout->ndim - 1; i >= 0; i--) {
        if (layout->shape[i] == 1) settled.strides[i] = packed;
        packed = layout->shape[i] * settled.strides[i];
    }
    return settled;
}

int32_t fbp_program_value_add(fbp_program *program, int32_t buffer, int64_t offset, const fbp_layout *given) {
    const fbp_layout settled = settle_strides(given), *layout = &settled;
    for (int32_t i = program->buffers[buffer].values; i >= 0; i = program->values[i].next)
        if (program->values[i].offset == offset && same_view(program->values[i].tensor, layout)) return i;
    if (!fbp_list_grow((void **)&program->values, program->value_count, &program->value_capacity, sizeof *program->values)) return -1;
    fbp_tensor *tensor;
    if (fbp_tensor_new(layout, NULL, NULL, 0, 0, &tensor) != FBP_OK) return -1;
    program->values[program->value_count] = (fbp_value){tensor, offset, buffer, program->buffers[buffer].values, FBP_ORDER_FREE};
    return program->buffers[buffer].values = program->value_count++;
}

int32_t fbp_program_value(fbp_program *program, const fbp_tensor *t) {
    int32_t buffer = fbp_program_buffer(program, t->storage);
    if (buffer < 0) return -1;
    fbp_layout layout;
    fbp_layout_of(t, &layout);
    int32_t value = fbp_program_value_add(program, buffer, t->data - (char *)t->storage->data, &layout);
    if (value >= 0) program->values[value].tensor->flags |= t->flags & FBP_NUMBER;
    return value;
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

fbp_line *fbp_program_line_add(fbp_program *program, fbp_line_kind kind, fbp_op op, int32_t count, const void *attributes,
                               int attribute_bytes) {
    if (!fbp_list_grow((void **)&program->lines, program->line_count, &program->line_capacity, sizeof *program->lines)) return NULL;
    int32_t *inputs = fbp_program_get(program, (size_t)(count + 1) * sizeof *inputs);
    void *stored = attribute_bytes ? fbp_program_get(program, (size_t)attribute_bytes) : NULL;
    if (!inputs || (attribute_bytes && !stored)) return NULL;
    if (attribute_bytes) memcpy(stored, attributes, (size_t)attribute_bytes);
    for (int32_t i = 0; i < count; i++) inputs[i] = -1;
    fbp_line *line = &program->lines[program->line_count++];
    *line = (fbp_line){.kind = (uint8_t)kind, .op = (uint16_t)op, .count = count, .output = -1, .output2 = -1,
                       .attribute_bytes = attribute_bytes, .slot = -1, .inputs = inputs, .attributes = stored,
                       .phase = program->phase, .sweep = program->sweep > 0, .region = program->region};
    return line;
}

int32_t fbp_program_region_begin(fbp_program *program) {
    for (int32_t needed = program->parent_count ? 1 : 2; needed; needed--) { /* number 0 is no region */
        if (!fbp_list_grow((void **)&program->parents, program->parent_count, &program->parent_capacity, sizeof *program->parents)) return -1;
        program->parents[program->parent_count++] = program->region;
    }
    return program->region = program->parent_count - 1;
}

void fbp_program_compact(fbp_program *program) {
    int32_t kept = 0;
    for (int32_t i = 0; i < program->line_count; i++)
        if (program->lines[i].kind != FBP_LINE_NONE) program->lines[kept++] = program->lines[i];
    program->line_count = kept;
}

static void touch_fused(const fbp_fused *fused, fbp_touch_fn visit, void *context) {
    for (int32_t i = 0; i < fused->member_count; i++) {
        const fbp_member *member = &fused->members[i];
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++)
            if (member->operand[k].look != FBP_LOOK_REGISTER && member->operand[k].value >= 0)
                visit(context, member->operand[k].value, false);
        if (member->stores) visit(context, member->output, true);
    }
    for (int32_t i = 0; i < fused->tail_count; i++) visit(context, fused->tails[i].output, true);
}

void fbp_line_touch(const fbp_program *program, const fbp_line *line, fbp_touch_fn visit, void *context) {
    (void)program;
    const int32_t reads = line->kind == FBP_LINE_SCALARS ? line->count - line->output2 : line->count;
    for (int32_t i = 0; i < reads; i++)
        if (line->inputs[i] >= 0) visit(context, line->inputs[i], false);
    if (line->kind == FBP_LINE_UPDATE)
        for (int32_t i = 0; i < line->count; i++)
            if (line->inputs[i] >= 0 && i % FBP_UPDATE_PARTS != FBP_UPDATE_GRAD) visit(context, line->inputs[i], true);
    for (int32_t i = reads; i < line->count; i++) visit(context, line->inputs[i], true);
    if (line->kind == FBP_LINE_FUSED) touch_fused(line->detail, visit, context);
    if (line->kind == FBP_LINE_PRODUCT) {
        const fbp_epilogue *product = line->detail;
        if (product->beta != 0) visit(context, product->c, false);
        visit(context, product->c, true);
        if (product->after) touch_fused(product->after, visit, context);
        return;
    }
    if (line->output >= 0) visit(context, line->output, true);
    if (line->output2 >= 0 && line->kind == FBP_LINE_LOSS) visit(context, line->output2, true);
}

typedef struct question {
    const fbp_program *program;
    int32_t buffer;
    bool reads, writes;
} question;

static void ask(void *context, int32_t value, bool written) {
    question *q = context;
    if (q->program->values[value].buffer != q->buffer) return;
    if (written) q->writes = true;
    else q->reads = true;
}

bool fbp_line_reads(const fbp_program *program, const fbp_line *line, int32_t buffer) {
    question q = {program, buffer, false, false};
    fbp_line_touch(program, line, ask, &q);
    return q.reads;
}

bool fbp_line_writes(const fbp_program *program, const fbp_line *line, int32_t buffer) {
    question q = {program, buffer, false, false};
    fbp_line_touch(program, line, ask, &q);
    return q.writes;
}

static void count_write(void *context, int32_t value, bool written) {
    fbp_program *program = context;
    if (written) program->buffers[program->values[value].buffer].writes++;
}

void fbp_program_count_writes(fbp_program *program) {
    for (int32_t i = 0; i < program->buffer_count; i++) program->buffers[i].writes = 0;
    for (int32_t i = 0; i < program->line_count; i++) fbp_line_touch(program, &program->lines[i], count_write, program);
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------- */

static fbp_status copy_part(const fbp_program *from, int phase, fbp_program *to) {
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
        to->values[value].order = v->order;
        to->values[value].tensor->flags = v->tensor->flags & (uint16_t)~FBP_KEEPS_HANDLE;
    }
    for (int32_t i = 0; i < from->line_count; i++) {
        const fbp_line *line = &from->lines[i];
        if (phase >= 0 && line->phase != phase) continue;
        fbp_line *copy = fbp_program_line_add(to, (fbp_line_kind)line->kind, (fbp_op)line->op, line->count, line->attributes, line->attribute_bytes);
        if (!copy) return FBP_ERROR_MEMORY;
        memcpy(copy->inputs, line->inputs, (size_t)line->count * sizeof *copy->inputs);
        copy->which = line->which;
        copy->output = line->output;
        copy->slot = line->slot;
        copy->phase = line->phase;
        copy->sweep = line->sweep;
        copy->region = line->region;
        copy->again = line->again;
    }
    to->draws = malloc(((size_t)from->draw_count + 1) * sizeof *to->draws);
    if (!to->draws) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan's lists");
    if (from->draw_count) memcpy(to->draws, from->draws, (size_t)from->draw_count * sizeof *to->draws);
    to->draw_count = to->draw_capacity = from->draw_count;
    to->parents = malloc(((size_t)from->parent_count + 1) * sizeof *to->parents);
    if (!to->parents) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan's lists");
    if (from->parent_count) memcpy(to->parents, from->parents, (size_t)from->parent_count * sizeof *to->parents);
    to->parent_count = to->parent_capacity = from->parent_count;
    to->again_count = from->again_count;
    to->budget = from->budget;
    return FBP_OK;
}

fbp_status fbp_program_copy(const fbp_program *from, int phase, fbp_program **out) {
    FBP_TRY(fbp_program_new(out));
    fbp_status status = copy_part(from, phase, *out);
    if (status == FBP_OK) return FBP_OK;
    fbp_program_free(*out);
    *out = NULL;
    return status;
}

void fbp_program_replace(fbp_program *program, fbp_program *other) {
    const fbp_program old = *program;
    *program = *other;
    *other = old;
    fbp_program_free(other);
}
