/* fuse.c -- elementwise lines of one shape become chains that run in blocks.
 *
 * A chain is computed a block of elements at a time: what one member makes the next finds in a register, which stays in the first-level
 * cache, and what no one else reads never reaches memory.  A line joins an earlier chain by moving up to it, when all that it reads is
 * there, or takes the chain down to itself, when no one has read the chain's results yet.  Sums and means of a member, whole or by
 * rows, ride along.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/program.h"

enum { OPEN_MOST = 8, ROW_SUM_MOST = 512, SMALL_BYTES = 1 << 14 };

/* A chain in the making. */
typedef struct chain {
    fbp_fused *fused;
    int32_t position;  /* of the line that it stands at */
    int32_t line;      /* number of its line in the new list */
    int32_t again;     /* what its first member, computed for the second time, is computed with; 0: for the first */
} chain;

typedef struct fusing {
    fbp_program *program;
    int32_t *written;  /* per buffer: position of the last write, -1 */
    int32_t *read;     /* per buffer: position of the last read by anyone */
    int32_t *maker;    /* per buffer: number of the chain (in `chains`) whose member writes it, -1 */
    uint8_t *outside;  /* per buffer: read by something else than its own chain */
    chain *chains;
    int32_t count;
    fbp_line *list;    /* the new lines, at the positions that they stand at */
    int32_t at;        /* position of the line in hand */
} fusing;

/* ---- may a line join? ------------------------------------------------------------------------------------------------------- */

static bool fits(const fbp_fused *f, const fbp_tensor *out) {
    return f->ndim == out->ndim && f->numel == out->numel && memcmp(f->shape, fbp_shape(out), (size_t)f->ndim * sizeof(int64_t)) == 0;
}

/* The latest member of a chain that makes just what `value` looks at, -1. */
static int32_t made_at(const fusing *f, int32_t number, int32_t value) {
    const fbp_fused *fused = f->chains[number].fused;
    const fbp_value *v = &f->program->values[value];
    for (int32_t m = fused->member_count - 1; m >= 0; m--) {
        const fbp_value *made = &f->program->values[fused->members[m].output];
        if (made->buffer == v->buffer) return made->offset == v->offset && made->tensor->dtype == v->tensor->dtype ? m : -1;
    }
    return -1;
}

/* The operands' looks, in the chain's terms; false where one cannot be. */
static bool looks(const fusing *f, int32_t number, const fbp_line *line, uint8_t *look, int64_t *inner) {
    const fbp_program *p = f->program;
    const fbp_tensor *out = fbp_value_tensor(p, line->output);
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0) continue;
        int64_t run = 0;
        look[i] = (uint8_t)fbp_look_at(fbp_value_tensor(p, line->inputs[i]), out->ndim, fbp_shape(out), out->numel, &run);
        if (look[i] == FBP_LOOK_NONE) return false;
        if (number >= 0 && f->maker[p->values[line->inputs[i]].buffer] == number &&
            (look[i] != FBP_LOOK_FULL || made_at(f, number, line->inputs[i]) < 0))
            return false;
        if (look[i] == FBP_LOOK_ROW || look[i] == FBP_LOOK_COLUMN) {
            if (*inner && *inner != run) return false;
            *inner = run;
        }
    }
    return true;
}

/* Only buffers written once, by one line, can be moved freely. */
static bool is_plain(const fbp_program *p, int32_t value) {
    const fbp_buffer *b = fbp_value_buffer(p, value);
    return b->writes == 1 && fbp_value_is_whole(p, value);
}

static bool writes_elsewhere(const fusing *f, const fbp_line *line) {
    const fbp_buffer *b = fbp_value_buffer(f->program, line->output);
    return !is_plain(f->program, line->output) || (b->kind == FBP_BUFFER_STATE) || b->kind == FBP_BUFFER_INPUT;
}

/* What the chain reads of the memory that the line writes, it reads element by element, where it is written. */
static bool agrees(const fusing *f, int32_t number, const fbp_line *line) {
    const fbp_fused *fused = f->chains[number].fused;
    const fbp_value *out = &f->program->values[line->output];
    for (int32_t m = 0; m < fused->member_count; m++)
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) {
            const fbp_operand *o = &fused->members[m].operand[k];
            if (o->value >= 0 && f->program->values[o->value].buffer == out->buffer &&
                (o->look != FBP_LOOK_FULL || f->program->values[o->value].offset != out->offset || o->dtype != out->tensor->dtype))
                return false;
        }
    for (int32_t t = 0; t < fused->tail_count; t++) /* a sum reads a block of it after all members */
        if (f->program->values[fused->members[fused->tails[t].member].output].buffer == out->buffer) return false;
    return true;
}

/* The line can be computed where chain `number` stands. */
static bool can_rise(const fusing *f, int32_t number, const fbp_line *line) {
    const int32_t position = f->chains[number].position;
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0) continue;
        const int32_t buffer = f->program->values[line->inputs[i]].buffer;
        if (f->maker[buffer] != number && f->written[buffer] > position) return false;
    }
    const int32_t buffer = f->program->values[line->output].buffer;
    return !writes_elsewhere(f, line) || (f->written[buffer] <= position && f->read[buffer] <= position);
}

/* The chain can be computed where the line stands. */
static bool can_sink(const fusing *f, int32_t number) {
    const chain *c = &f->chains[number];
    const fbp_program *p = f->program;
    if (c->fused->tail_count) return false;
    for (int32_t m = 0; m < c->fused->member_count; m++) {
        const fbp_member *member = &c->fused->members[m];
        const int32_t made = p->values[member->output].buffer;
        if (!is_plain(p, member->output) || p->buffers[made].kind == FBP_BUFFER_STATE || p->buffers[made].kind == FBP_BUFFER_INPUT ||
            f->outside[made])
            return false;
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++)
            if (member->operand[k].value >= 0 && f->maker[p->values[member->operand[k].value].buffer] != number &&
                f->written[p->values[member->operand[k].value].buffer] > c->position)
                return false;
    }
    return true;
}

/* Reason enough to share a loop: the line reads what the chain makes or reads, or all is small. */
static bool is_related(const fusing *f, int32_t number, const fbp_line *line) {
    const fbp_program *p = f->program;
    const fbp_fused *fused = f->chains[number].fused;
    if (fused->numel * 8 <= SMALL_BYTES) return true;
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0) continue;
        const int32_t buffer = p->values[line->inputs[i]].buffer;
        if (f->maker[buffer] == number) return true;
        for (int32_t m = 0; m < fused->member_count; m++)
            for (int k = 0; k < FBP_MEMBER_OPERANDS; k++)
                if (fused->members[m].operand[k].value >= 0 && p->values[fused->members[m].operand[k].value].buffer == buffer &&
                    fused->members[m].operand[k].look == FBP_LOOK_FULL)
                    return true;
    }
    return false;
}

/* ---- joining ----------------------------------------------------------------------------------------------------------------- */

static void note_reads(fusing *f, const fbp_line *line, int32_t number, int32_t position) {
    for (int32_t i = 0; i < line->count; i++) {
        if (line->inputs[i] < 0) continue;
        const int32_t buffer = f->program->values[line->inputs[i]].buffer;
        if (f->read[buffer] < position) f->read[buffer] = position;
        if (f->maker[buffer] != number) f->outside[buffer] = 1;
    }
}

/* An operand that is repeated gets the stage of its value. */
static void stage(fbp_fused *fused, fbp_operand *operand) {
    if (operand->value < 0 || (operand->look != FBP_LOOK_SCALAR && operand->look != FBP_LOOK_ROW && operand->look != FBP_LOOK_COLUMN)) return;
    int32_t k = 0;
    while (k < fused->stage_count && fused->stages[k].value != operand->value) k++;
    if (k == fused->stage_count) fused->stages[fused->stage_count++] = *operand;
    operand->place = (int16_t)k;
}

static fbp_status add_member(fusing *f, int32_t number, const fbp_line *line, fbp_dtype dtype, const uint8_t *look, int64_t inner) {
    chain *c = &f->chains[number];
    fbp_fused *fused = c->fused;
    fbp_member *member = &fused->members[fused->member_count++];
    *member = (fbp_member){.kind = line->kind, .which = line->which, .op = line->op, .dtype = (uint8_t)dtype, .output = line->output, .place = -1,
                          .again = line->again > 0};
    if (line->attribute_bytes) memcpy(member->parameters, line->attributes, sizeof member->parameters);
    for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) {
        const int32_t value = k < line->count ? line->inputs[k] : -1;
        member->operand[k] = (fbp_operand){.value = value, .place = -1, .look = value < 0 ? (uint8_t)FBP_LOOK_NONE : look[k]};
        if (value >= 0) member->operand[k].dtype = fbp_value_tensor(f->program, value)->dtype;
    }
    if (inner) {
        fused->inner = inner;
        fused->has_rows = 1;
    }
    if (fbp_dtype_size(dtype) > fbp_dtype_size((fbp_dtype)fused->dtype)) fused->dtype = (uint8_t)dtype;
    fused->nanoseconds += (double)fused->numel * (fbp_ops[line->op].kind == FBP_KIND_F ? 0.3 : 0.1);
    for (int k = 0; k < line->count; k++) stage(fused, &member->operand[k]);
    note_reads(f, line, number, c->position);
    const int32_t buffer = f->program->values[line->output].buffer;
    f->written[buffer] = c->position;
    f->maker[buffer] = number;
    return FBP_OK;
}

static void sink(fusing *f, int32_t number) {
    chain *c = &f->chains[number];
    f->list[f->at] = f->list[c->position];
    f->list[c->position].kind = FBP_LINE_NONE;
    c->position = f->at;
    for (int32_t m = 0; m < c->fused->member_count; m++) {
        const fbp_member *member = &c->fused->members[m];
        f->written[f->program->values[member->output].buffer] = f->at;
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++)
            if (member->operand[k].value >= 0) f->read[f->program->values[member->operand[k].value].buffer] = f->at;
    }
}

static fbp_status open_chain(fusing *f, const fbp_line *line, fbp_dtype dtype) {
    const fbp_tensor *out = fbp_value_tensor(f->program, line->output);
    fbp_fused *fused = fbp_program_get(f->program, sizeof *fused);
    fbp_member *members = fbp_program_get(f->program, FBP_FUSED_MOST * sizeof *members);
    if (!fused || !members) return FBP_ERROR_MEMORY;
    *fused = (fbp_fused){.numel = out->numel, .inner = out->numel, .members = members, .dtype = (uint8_t)dtype, .ndim = out->ndim};
    memcpy(fused->shape, fbp_shape(out), out->ndim * sizeof(int64_t));
    f->chains[f->count] = (chain){fused, f->at, f->at, line->again};
    f->list[f->at] = (fbp_line){.kind = FBP_LINE_FUSED, .output = -1, .output2 = -1, .slot = -1, .inputs = line->inputs, .detail = fused,
                                .again = line->again};
    f->count++;
    return FBP_OK;
}

static fbp_status place_line(fusing *f, const fbp_line *line, fbp_dtype dtype) {
    uint8_t look[FBP_MEMBER_OPERANDS] = {0};
    const fbp_tensor *out = fbp_value_tensor(f->program, line->output);
    int64_t inner;
    for (int32_t k = f->count - 1; k >= 0 && k >= f->count - OPEN_MOST; k--) {
        const fbp_fused *fused = f->chains[k].fused;
        if (!fits(fused, out) || fused->member_count == FBP_FUSED_MOST || fused->stage_count > FBP_STAGES_MOST - FBP_MEMBER_OPERANDS || !is_related(f, k, line) || !agrees(f, k, line))
            continue;
        inner = fused->has_rows ? fused->inner : 0;
        if (!looks(f, k, line, look, &inner)) continue;
        /* What is computed again waits until it is needed: moving up to the originals would undo it. */
        const bool waits = line->again && f->chains[k].again != line->again;
        if (!waits && can_rise(f, k, line)) return add_member(f, k, line, dtype, look, inner);
        if (can_sink(f, k)) {
            sink(f, k);
            return add_member(f, k, line, dtype, look, inner);
        }
    }
    inner = 0;
    if (!looks(f, -1, line, look, &inner)) { /* two different inner lengths: legalize let each pass by itself */
        f->list[f->at] = *line;
        return FBP_OK;
    }
    FBP_TRY(open_chain(f, line, dtype));
    return add_member(f, f->count - 1, line, dtype, look, inner);
}

/* ---- sums ---------------------------------------------------------------------------------------------------------------------- */

/* A sum or mean over all, or over the last axes, of what a chain makes; true when it rides along. */
static bool add_tail(fusing *f, const fbp_line *line) {
    const fbp_program *p = f->program;
    if (line->kind != FBP_LINE_OP || (line->op != FBP_OP_sum && line->op != FBP_OP_mean) || !is_plain(p, line->output)) return false;
    if (!fbp_value_may_regroup(p, line->output)) return false;
    const fbp_tensor *x = fbp_value_tensor(p, line->inputs[0]);
    const int32_t number = f->maker[p->values[line->inputs[0]].buffer];
    const fbp_reduce_attribute *reduce = line->attributes;
    if (number < 0 || !fbp_dtype_is_float((fbp_dtype)x->dtype) || x->dtype != fbp_value_tensor(p, line->output)->dtype ||
        !fbp_value_is_whole(p, line->inputs[0]) || x->numel == 0)
        return false;
    fbp_fused *fused = f->chains[number].fused;
    int64_t inner = 1;
    int axis = x->ndim - 1;
    for (; axis >= 0 && (reduce->dims >> axis & 1); axis--) inner *= fbp_shape(x)[axis];
    for (; axis >= 0; axis--)
        if (reduce->dims >> axis & 1) return false;
    const bool rows = inner != x->numel;
    if (fused->tail_count == 4 || fused->numel != x->numel || !can_rise(f, number, line)) return false;
    if (line->again && f->chains[number].again != line->again) return false;
    if (rows && (inner > ROW_SUM_MOST || inner < 1 || (fused->has_rows && fused->inner != inner))) return false;
    const int16_t member = (int16_t)made_at(f, number, line->inputs[0]);
    if (member < 0) return false;
    if (rows) {
        fused->has_rows = 1;
        fused->inner = inner;
    }
    fused->tails[fused->tail_count++] = (fbp_tail){line->output, member, line->op == FBP_OP_mean, rows};
    f->written[p->values[line->output].buffer] = f->at; /* complete when the chain is: no member of it may read it */
    return true;
}

/* ---- the pass --------------------------------------------------------------------------------------------------------------------- */

typedef struct touched {
    fusing *f;
} touched;

static void note_other(void *context, int32_t value, bool written) {
    fusing *f = ((touched *)context)->f;
    const int32_t buffer = f->program->values[value].buffer;
    if (written) {
        f->written[buffer] = f->at;
        f->maker[buffer] = -1; /* what a chain had made of it is no longer what is there */
    } else {
        f->read[buffer] = f->at;
        f->outside[buffer] = 1;
    }
}

/* Which members' elements are wanted in memory, and registers for the others. */
static void settle(const fusing *f, int32_t number) {
    const fbp_program *p = f->program;
    fbp_fused *fused = f->chains[number].fused;
    int32_t last_use[FBP_FUSED_MOST], holder[FBP_REGISTERS_MOST];
    for (int32_t r = 0; r < FBP_REGISTERS_MOST; r++) holder[r] = -1;
    for (int32_t m = 0; m < fused->member_count; m++) {
        fbp_member *member = &fused->members[m];
        const fbp_buffer *b = fbp_value_buffer(p, member->output);
        last_use[m] = -1;
        member->stores = b->kind != FBP_BUFFER_ARENA || b->keep || b->writes != 1 || f->outside[p->values[member->output].buffer];
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) {
            fbp_operand *o = &member->operand[k];
            if (o->look != FBP_LOOK_FULL) continue;
            o->place = -1;
            if (o->value < 0 || f->maker[p->values[o->value].buffer] != number) continue;
            int32_t made = m - 1; /* the latest earlier member that writes this buffer */
            while (made >= 0 && p->values[fused->members[made].output].buffer != p->values[o->value].buffer) made--;
            if (made < 0) continue;
            o->place = (int16_t)made; /* of a member; a register below */
            last_use[made] = m;
        }
    }
    for (int32_t t = 0; t < fused->tail_count; t++) last_use[fused->tails[t].member] = FBP_FUSED_MOST;
    for (int32_t m = 0; m < fused->member_count; m++) {
        fbp_member *member = &fused->members[m];
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) {
            fbp_operand *o = &member->operand[k];
            if (o->look != FBP_LOOK_FULL) continue;
            if (o->place >= 0) o->place = fused->members[o->place].place;
            if (o->place >= 0) o->look = FBP_LOOK_REGISTER; /* else it was stored and is read from there */
        }
        /* A register whose last reader is this very member may take its result: kernels allow that. */
        for (int32_t r = 0; r < FBP_REGISTERS_MOST && !member->stores && member->place < 0; r++) {
            if (holder[r] >= 0 && last_use[holder[r]] > m) continue;
            if (holder[r] >= 0 && last_use[holder[r]] == m &&
                fbp_value_tensor(p, fused->members[holder[r]].output)->dtype != fbp_value_tensor(p, member->output)->dtype)
                continue;
            holder[r] = m;
            member->place = (int16_t)r;
            if (r >= fused->register_count) fused->register_count = r + 1;
        }
        if (member->place < 0) member->stores = 1; /* also when registers ran out */
    }
}

fbp_status fbp_program_fuse(fbp_program *program) {
    const int32_t buffers = program->buffer_count, lines = program->line_count;
    int32_t *marks = malloc((3 * (size_t)buffers + 1) * sizeof *marks);
    uint8_t *outside = calloc((size_t)buffers + 1, 1);
    chain *chains = malloc(((size_t)lines + 1) * sizeof *chains);
    fusing f = {program, marks, marks + buffers, marks + 2 * (size_t)buffers, outside, chains, 0, NULL, 0};
    fbp_line *list = malloc(((size_t)lines + 1) * sizeof *list);
    fbp_status status = marks && outside && chains && list ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "fuse: cannot allocate a list");
    if (status == FBP_OK) memset(marks, -1, 3 * (size_t)buffers * sizeof *marks);
    f.list = list;
    for (f.at = 0; f.at < lines && status == FBP_OK; f.at++) {
        const fbp_line line = program->lines[f.at];
        fbp_dtype dtype;
        list[f.at].kind = FBP_LINE_NONE;
        const bool empty = line.output >= 0 && fbp_value_tensor(program, line.output)->numel == 0;
        if (!empty && fbp_line_fuses(program, &line, &dtype)) {
            status = place_line(&f, &line, dtype);
            if (list[f.at].kind == FBP_LINE_FUSED || list[f.at].kind == FBP_LINE_NONE) continue;
        } else if (add_tail(&f, &line)) {
            continue;
        }
        list[f.at] = line;
        touched t = {&f};
        fbp_line_touch(program, &line, note_other, &t);
    }
    for (int32_t k = 0; k < f.count && status == FBP_OK; k++) settle(&f, k);
    if (status == FBP_OK && lines) memcpy(program->lines, list, (size_t)lines * sizeof *list);
    free(marks);
    free(outside);
    free(chains);
    free(list);
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return status;
}
