/* place.c -- where in the arena each buffer lies: lifetimes, best fit among what is free, results over inputs that end with them. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "plan/program.h"

typedef struct gap { int64_t offset, bytes; } gap;

typedef struct placing {
    fbp_program *program;
    gap *gaps;             /* free stretches, by offset, never adjacent */
    int32_t gap_count, line;
    int32_t *dying;        /* per line: first of the buffers whose last use it is, -1 */
    int32_t *next;         /* per buffer: next in that list */
    uint8_t *handed_on;    /* per buffer: its memory is another's now */
} placing;

static int64_t rounded(int64_t bytes) { return bytes > 0 ? (bytes + FBP_ALIGNMENT - 1) / FBP_ALIGNMENT * FBP_ALIGNMENT : FBP_ALIGNMENT; }

static int64_t take(placing *pl, int64_t bytes) {
    int32_t best = -1;
    for (int32_t i = 0; i < pl->gap_count; i++)
        if (pl->gaps[i].bytes >= bytes && (best < 0 || pl->gaps[i].bytes < pl->gaps[best].bytes)) best = i;
    if (best < 0) {
        /* A gap at the end grows. */
        int64_t offset = pl->program->arena_bytes;
        if (pl->gap_count && pl->gaps[pl->gap_count - 1].offset + pl->gaps[pl->gap_count - 1].bytes == offset)
            offset = pl->gaps[--pl->gap_count].offset;
        pl->program->arena_bytes = offset + bytes;
        return offset;
    }
    const int64_t offset = pl->gaps[best].offset;
    pl->gaps[best].offset += bytes;
    pl->gaps[best].bytes -= bytes;
    if (pl->gaps[best].bytes == 0) {
        pl->gap_count--;
        memmove(pl->gaps + best, pl->gaps + best + 1, (size_t)(pl->gap_count - best) * sizeof *pl->gaps);
    }
    return offset;
}

static void give_back(placing *pl, int64_t offset, int64_t bytes) {
    int32_t at = 0;
    while (at < pl->gap_count && pl->gaps[at].offset < offset) at++;
    const bool joins_before = at > 0 && pl->gaps[at - 1].offset + pl->gaps[at - 1].bytes == offset;
    const bool joins_after = at < pl->gap_count && offset + bytes == pl->gaps[at].offset;
    if (joins_before && joins_after) {
        pl->gaps[at - 1].bytes += bytes + pl->gaps[at].bytes;
        pl->gap_count--;
        memmove(pl->gaps + at, pl->gaps + at + 1, (size_t)(pl->gap_count - at) * sizeof *pl->gaps);
    } else if (joins_before) {
        pl->gaps[at - 1].bytes += bytes;
    } else if (joins_after) {
        pl->gaps[at].offset = offset;
        pl->gaps[at].bytes += bytes;
    } else {
        memmove(pl->gaps + at + 1, pl->gaps + at, (size_t)(pl->gap_count - at) * sizeof *pl->gaps);
        pl->gaps[at] = (gap){offset, bytes};
        pl->gap_count++;
    }
}

/* ---- results over inputs -------------------------------------------------------------------------------------------------- */

/* Every read of `buffer` in the chain is of single elements of the result's size, and none comes after member `writer` has stored its block. */
static bool reads_before(const fbp_program *p, const fbp_fused *fused, int32_t buffer, int32_t writer) {
    const fbp_tensor *result = fbp_value_tensor(p, fused->members[writer].output);
    for (int32_t m = 0; m < fused->member_count; m++)
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) {
            const fbp_operand *o = &fused->members[m].operand[k];
            if (o->value < 0 || o->look == FBP_LOOK_REGISTER || p->values[o->value].buffer != buffer) continue;
            if (fbp_dtype_size((fbp_dtype)o->dtype) != fbp_dtype_size((fbp_dtype)result->dtype)) return false;
            if (o->look != FBP_LOOK_FULL || m > writer || !fbp_value_is_whole(p, o->value)) return false;
        }
    return true;
}

static const fbp_fused *chain_of(const fbp_line *line) {
    return line->kind == FBP_LINE_FUSED ? line->detail : line->kind == FBP_LINE_PRODUCT ? ((const fbp_epilogue *)line->detail)->after : NULL;
}

/* A buffer whose memory member `writer` may write over: it ends with this line (or is the product's own C, seen by no one else). */
static int32_t find_donor(const placing *pl, const fbp_line *line, const fbp_fused *fused, int32_t writer, const fbp_buffer *target) {
    const fbp_program *p = pl->program;
    for (int32_t b = pl->dying[pl->line]; b >= 0; b = pl->next[b]) {
        const fbp_buffer *donor = &p->buffers[b];
        if (donor == target || donor->offset < 0 || pl->handed_on[b] || rounded(donor->bytes) != rounded(target->bytes)) continue;
        if (line->kind == FBP_LINE_PRODUCT) {
            const fbp_epilogue *product = line->detail;
            const int32_t operands[3] = {product->a, product->b, product->bias};
            bool is_operand = false;
            for (int i = 0; i < 3; i++) is_operand |= operands[i] >= 0 && p->values[operands[i]].buffer == b;
            if (is_operand) continue;
        }
        bool used = false;
        for (int32_t m = 0; m <= writer; m++)
            for (int k = 0; k < FBP_MEMBER_OPERANDS; k++)
                used |= fused->members[m].operand[k].value >= 0 && p->values[fused->members[m].operand[k].value].buffer == b;
        for (int32_t m = 0; m < fused->member_count; m++) /* one that the chain itself stores is no donor */
            if (fused->members[m].stores && p->values[fused->members[m].output].buffer == b) used = false;
        if (used && reads_before(p, fused, b, writer)) return b;
    }
    return -1;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------------------- */

static void note_use(void *context, int32_t value, bool written) {
    placing *pl = context;
    fbp_buffer *b = fbp_value_buffer(pl->program, value);
    (void)written;
    if (b->first < 0) b->first = pl->line;
    b->last = pl->line;
}

static void allocate(void *context, int32_t value, bool written) {
    placing *pl = context;
    fbp_buffer *b = fbp_value_buffer(pl->program, value);
    if (written && b->kind == FBP_BUFFER_ARENA && b->offset < 0) b->offset = take(pl, rounded(b->bytes));
}

static void place_line(placing *pl) {
    fbp_program *p = pl->program;
    const fbp_line *line = &p->lines[pl->line];
    const fbp_fused *fused = chain_of(line);
    if (line->kind == FBP_LINE_PRODUCT) allocate(pl, ((const fbp_epilogue *)line->detail)->c, true);
    for (int32_t m = 0; fused && m < fused->member_count; m++) {
        const fbp_member *member = &fused->members[m];
        fbp_buffer *b = fbp_value_buffer(p, member->output);
        if (!member->stores || b->kind != FBP_BUFFER_ARENA || b->offset >= 0 || b->writes != 1 || !fbp_value_is_whole(p, member->output)) continue;
        const int32_t donor = find_donor(pl, line, fused, m, b);
        if (donor < 0) continue;
        b->offset = p->buffers[donor].offset;
        pl->handed_on[donor] = 1;
    }
    fbp_line_touch(p, line, allocate, pl);
    for (int32_t b = pl->dying[pl->line]; b >= 0; b = pl->next[b])
        if (p->buffers[b].offset >= 0 && !pl->handed_on[b]) give_back(pl, p->buffers[b].offset, rounded(p->buffers[b].bytes));
}

fbp_status fbp_program_place(fbp_program *program) {
    const size_t buffers = (size_t)program->buffer_count, lines = (size_t)program->line_count;
    placing pl = {.program = program, .gaps = malloc((buffers + 2) * sizeof(gap)), .dying = malloc((lines + 1) * sizeof(int32_t)),
                  .next = malloc((buffers + 1) * sizeof(int32_t)), .handed_on = calloc(buffers + 1, 1)};
    fbp_status status = pl.gaps && pl.dying && pl.next && pl.handed_on ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "place: cannot allocate a list");
    if (status == FBP_OK) {
        program->arena_bytes = 0;
        for (size_t i = 0; i < buffers; i++) program->buffers[i].first = program->buffers[i].last = -1, program->buffers[i].offset = -1;
        for (size_t i = 0; i < lines; i++) pl.dying[i] = -1;
        for (pl.line = 0; pl.line < program->line_count; pl.line++) fbp_line_touch(program, &program->lines[pl.line], note_use, &pl);
        for (size_t i = 0; i < buffers; i++) {
            const fbp_buffer *b = &program->buffers[i];
            if (b->kind != FBP_BUFFER_ARENA || b->last < 0) continue;
            pl.next[i] = pl.dying[b->last];
            pl.dying[b->last] = (int32_t)i;
        }
        for (pl.line = 0; pl.line < program->line_count; pl.line++) place_line(&pl);
    }
    free(pl.gaps);
    free(pl.dying);
    free(pl.next);
    free(pl.handed_on);
    return status;
}
