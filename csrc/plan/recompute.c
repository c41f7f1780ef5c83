/* recompute.c -- values given up after their early uses and computed again before the late ones, so that less lives at one time.
 *
 *     %1 = tanh %0                      %1 = tanh %0
 *     %2 = matmul %1, %w                %2 = matmul %1, %w
 *     ... the rest of the forward ...   ...                        %1 is not there
 *     %8 = matmul %7, %1                %9 = tanh %0               (again)
 *                                  =>   %8 = matmul %7, %9
 *
 * A decision is one number a buffer, its split: lines beyond it read a clone, which is made right before the first of them, with all
 * else that was given up and that the clone needs.  A clone serves all later readers.  From the decisions follows the schedule, and
 * from the schedule what lives when; so a decision is judged by the schedule with it, and nothing changes until all are taken.
 *
 * Only what one line makes of inputs that are as they were is computed again: no updates, no writes, nothing that is written twice.
 * Where an input has changed by then, the reader keeps the original: that is never wrong, it only takes memory.  A random line draws
 * from a place (seed, offset) and not from a state, so that its clone has the same numbers.
 *
 * What is given up: everything that was made in a region and is read outside of it by the reverse sweep alone; and then, one at a
 * time, the value that saves most for its cost while more lives than the target, with products left alone until nothing else helps.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "plan/program.h"

enum { KEPT = INT32_MAX, CANDIDATES_MOST = 24, CLOSURE_MOST = 64, DEPTH_MOST = 32 };

typedef struct access {
    int32_t buffer;
    bool written;
} access;

/* A line of the schedule: the original, or, where it makes a clone, one that is run again before line `anchor`. */
typedef struct entry {
    int32_t line, anchor;
    bool again;
} entry;

typedef struct recomputing {
    fbp_program *program;
    int32_t lines, buffers, boundary; /* boundary: the first line of the second phase, or -1: all lines count */
    int32_t *start;       /* per line: its first access; one more at the end */
    access *accesses;
    int64_t *bytes;       /* per buffer: in the arena */
    double *seconds;      /* per line: rough time */
    uint8_t *heavy;       /* per line: a product */
    int32_t *maker;       /* per buffer: the line that can make it again, -1 */
    int32_t *until;       /* per buffer: the first line after which it cannot: an input is written there */
    int32_t *split;       /* per buffer, KEPT or the last line that reads the original */
    int32_t *owner;       /* per buffer: for whose sake it was given up; its own where it was chosen, -1: by a region */
    int32_t *chosen;      /* buffers that were chosen, in this order */
    int32_t chosen_count;
    entry *schedule;
    int32_t count;
    uint8_t *made;        /* per buffer: its clone stands in the schedule */
    int32_t *first, *last;/* per buffer, then per clone: entries */
    int32_t *read;        /* per buffer: the last line that touches the original, itself or for the clones before it */
    int64_t *living;      /* per entry: bytes */
    int32_t *stack, *given; /* work lists */
    int32_t given_count;
    int64_t peak, target;
    int32_t peak_at;
} recomputing;

/* ---- facts ------------------------------------------------------------------------------------------------------------------- */

static void note(void *context, int32_t value, bool written) {
    recomputing *r = context;
    if (r->accesses) r->accesses[r->count] = (access){r->program->values[value].buffer, written};
    r->count++;
}

/* Rough time of a line: a core's products and its memory, of which only the proportion matters. */
static double seconds_of(const fbp_program *p, const fbp_line *line, bool *heavy) {
    const fbp_line_cost cost = fbp_line_cost_of(p, line);
    double flops = cost.flops;
    *heavy = line->kind == FBP_LINE_OP && (line->op == FBP_OP_matmul || line->op == FBP_OP_linear || line->op == FBP_OP_addmm ||
                                           fbp_ops[line->op].class == FBP_CLASS_BILINEAR);
    if (*heavy) {
        const fbp_tensor *a = fbp_value_tensor(p, line->inputs[line->op == FBP_OP_addmm]);
        if (a->ndim) flops = 2.0 * (double)fbp_value_tensor(p, line->output)->numel * (double)fbp_shape(a)[a->ndim - 1];
    }
    return 1e-7 + flops / 50e9 + cost.bytes / 20e9;
}

static bool can_repeat(const fbp_program *p, const fbp_line *line) {
    if ((line->kind != FBP_LINE_OP && line->kind != FBP_LINE_PULL) || line->output < 0) return false;
    const fbp_buffer *b = fbp_value_buffer(p, line->output);
    return b->kind == FBP_BUFFER_ARENA && b->writes == 1 && !b->keep && fbp_value_is_whole(p, line->output);
}

static void find_makers(recomputing *r) {
    const fbp_program *p = r->program;
    int32_t *next_write = r->stack; /* per buffer, after the line in hand */
    for (int32_t b = 0; b < r->buffers; b++) r->maker[b] = -1, next_write[b] = r->lines;
    for (int32_t i = r->lines - 1; i >= 0; i--) {
        bool heavy;
        r->seconds[i] = seconds_of(p, &p->lines[i], &heavy);
        r->heavy[i] = heavy;
        if (can_repeat(p, &p->lines[i])) {
            const int32_t made = p->values[p->lines[i].output].buffer;
            r->maker[made] = i;
            r->until[made] = r->lines;
            for (int32_t k = r->start[i]; k < r->start[i + 1]; k++)
                if (!r->accesses[k].written && next_write[r->accesses[k].buffer] < r->until[made]) r->until[made] = next_write[r->accesses[k].buffer];
        }
        for (int32_t k = r->start[i]; k < r->start[i + 1]; k++)
            if (r->accesses[k].written) next_write[r->accesses[k].buffer] = i;
    }
}

static fbp_status begin(recomputing *r) {
    fbp_program *p = r->program;
    const size_t lines = (size_t)p->line_count, buffers = (size_t)p->buffer_count, entries = lines + buffers;
    r->lines = p->line_count;
    r->buffers = p->buffer_count;
    for (int32_t i = 0; i < p->line_count; i++) fbp_line_touch(p, &p->lines[i], note, r);
    r->accesses = malloc(((size_t)r->count + 1) * sizeof *r->accesses);
    r->start = malloc((lines + 1) * sizeof *r->start);
    r->bytes = malloc((buffers + 1) * sizeof *r->bytes);
    r->seconds = malloc((lines + 1) * sizeof *r->seconds);
    r->heavy = malloc(lines + 1);
    r->maker = malloc((buffers + 1) * sizeof(int32_t));
    r->until = malloc((buffers + 1) * sizeof(int32_t));
    r->split = malloc((buffers + 1) * sizeof(int32_t));
    r->owner = malloc((buffers + 1) * sizeof(int32_t));
    r->chosen = malloc((buffers + 1) * sizeof(int32_t));
    r->schedule = malloc((entries + 1) * sizeof *r->schedule);
    r->made = malloc(buffers + 1);
    r->first = malloc((2 * buffers + 1) * sizeof(int32_t));
    r->last = malloc((2 * buffers + 1) * sizeof(int32_t));
    r->living = malloc((entries + 2) * sizeof *r->living);
    r->read = malloc((buffers + 1) * sizeof(int32_t));
    r->stack = malloc((buffers + 1) * sizeof(int32_t));
    r->given = malloc((buffers + 1) * sizeof(int32_t));
    if (!r->accesses || !r->start || !r->bytes || !r->seconds || !r->heavy || !r->maker || !r->until || !r->split || !r->owner ||
        !r->chosen || !r->schedule || !r->made || !r->first || !r->last || !r->living || !r->read || !r->stack || !r->given)
        return fbp_fail(FBP_ERROR_MEMORY, "recompute: cannot allocate a list");
    r->count = 0;
    for (int32_t i = 0; i < p->line_count; i++) {
        r->start[i] = r->count;
        fbp_line_touch(p, &p->lines[i], note, r);
    }
    r->start[p->line_count] = r->count;
    for (size_t b = 0; b < buffers; b++) {
        const int64_t bytes = p->buffers[b].bytes;
        r->bytes[b] = p->buffers[b].kind == FBP_BUFFER_ARENA ? (bytes > 0 ? (bytes + FBP_ALIGNMENT - 1) / FBP_ALIGNMENT * FBP_ALIGNMENT : FBP_ALIGNMENT) : 0;
        r->split[b] = KEPT;
        r->owner[b] = -1;
    }
    find_makers(r);
    return FBP_OK;
}

static void end(recomputing *r) {
    void *lists[] = {r->accesses, r->start, r->bytes, r->seconds, r->heavy, r->maker, r->until, r->split, r->owner,
                     r->chosen, r->schedule, r->made, r->first, r->last, r->living, r->read, r->stack, r->given};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]);
}

/* ---- from decisions to a schedule ---------------------------------------------------------------------------------------------- */

/* Number of the memory that a line at `anchor` finds buffer b in: its own, or beyond all buffers, its clone's. */
static int32_t found_in(const recomputing *r, int32_t b, int32_t anchor) { return r->split[b] < anchor && r->made[b] ? b + r->buffers : b; }

static void live(recomputing *r, int32_t memory) {
    if (r->first[memory] < 0) r->first[memory] = r->count;
    r->last[memory] = r->count;
}

static void append(recomputing *r, int32_t line, int32_t anchor, bool again) {
    for (int32_t k = r->start[line]; k < r->start[line + 1]; k++) {
        const access a = r->accesses[k];
        live(r, a.written ? a.buffer + (again ? r->buffers : 0) : found_in(r, a.buffer, anchor));
    }
    r->schedule[r->count++] = (entry){line, anchor, again};
}

static int by_number(const void *a, const void *b) { return *(const int32_t *)a < *(const int32_t *)b ? -1 : *(const int32_t *)a > *(const int32_t *)b; }

/* The clones that line `anchor` is the first to need, and those that they need, in the order of the originals. */
static void append_clones(recomputing *r, int32_t anchor) {
    int32_t found = 0, looked = -1;
    for (int32_t line = anchor;;) {
        for (int32_t k = r->start[line]; k < r->start[line + 1]; k++) {
            const int32_t b = r->accesses[k].buffer;
            if (r->accesses[k].written || r->split[b] >= anchor || r->made[b] || anchor > r->until[b]) continue;
            r->made[b] = 1;
            r->stack[found++] = r->maker[b];
        }
        if (++looked >= found) break;
        line = r->stack[looked];
    }
    if (found > 1) qsort(r->stack, (size_t)found, sizeof *r->stack, by_number);
    for (int32_t i = 0; i < found; i++) append(r, r->stack[i], anchor, true);
}

/* An elementwise line writes over an input of the same size that ends there: place.c and chains see to it. */
static void hand_on(recomputing *r, int32_t at) {
    const fbp_program *p = r->program;
    const entry *e = &r->schedule[at];
    const fbp_line *line = &p->lines[e->line];
    fbp_dtype dtype;
    if (line->output < 0 || !fbp_line_fuses(p, line, &dtype)) return;
    const int64_t bytes = r->bytes[p->values[line->output].buffer];
    for (int32_t k = r->start[e->line]; k < r->start[e->line + 1]; k++) {
        if (r->accesses[k].written || r->bytes[r->accesses[k].buffer] != bytes) continue;
        const int32_t memory = found_in(r, r->accesses[k].buffer, e->anchor);
        if (r->last[memory] != at || r->first[memory] >= at) continue;
        r->last[memory] = at - 1;
        return;
    }
}

/* How far, and for how long, what lives is beyond the target; the peak is left in *r. */
static double excess(recomputing *r) {
    double sum = 0;
    r->peak = 0;
    r->peak_at = -1;
    for (int32_t e = 0; e < r->count; e++) {
        const bool counts = r->boundary < 0 || r->schedule[e].anchor == r->boundary;
        if (!counts) continue;
        if (r->living[e] > r->peak) r->peak = r->living[e], r->peak_at = e;
        if (r->living[e] > r->target) sum += (double)(r->living[e] - r->target);
        if (r->boundary >= 0) break;
    }
    return sum;
}

static double schedule(recomputing *r) {
    r->count = 0;
    memset(r->made, 0, (size_t)r->buffers);
    for (int32_t b = 0; b < 2 * r->buffers; b++) r->first[b] = r->last[b] = -1;
    for (int32_t i = 0; i < r->lines; i++) {
        append_clones(r, i);
        append(r, i, i, false);
    }
    for (int32_t b = 0; b < r->buffers; b++) r->read[b] = r->last[b] < 0 ? -1 : r->schedule[r->last[b]].anchor;
    if (r->boundary < 0)
        for (int32_t e = 0; e < r->count; e++) hand_on(r, e);
    memset(r->living, 0, ((size_t)r->count + 1) * sizeof *r->living);
    for (int32_t b = 0; b < 2 * r->buffers; b++) {
        if (r->first[b] < 0) continue;
        const int64_t bytes = r->bytes[b % r->buffers];
        /* At the boundary only what comes across counts: made before its first entry, which may be a clone's. */
        r->living[r->first[b] + (r->boundary >= 0)] += bytes;
        if (r->last[b] >= r->first[b] + (r->boundary >= 0)) r->living[r->last[b] + 1] -= bytes;
        else r->living[r->first[b] + (r->boundary >= 0)] -= bytes;
    }
    for (int32_t e = 1; e < r->count; e++) r->living[e] += r->living[e - 1];
    return excess(r);
}

/* ---- decisions ------------------------------------------------------------------------------------------------------------------- */

static void take_back(recomputing *r, int32_t from) {
    while (r->given_count > from) r->split[r->given[--r->given_count]] = KEPT;
}

/* Give up b, needed again at line `needed`, and of what it is made of that which is gone by then and cannot be kept for less.  Appends to
 * r->given; false where that leads too far. */
static bool give_up(recomputing *r, int32_t b, int32_t split, int32_t needed, bool heavy, double *seconds) {
    const int32_t from = r->given_count;
    const int64_t bytes = r->bytes[b];
    r->split[b] = split;
    r->owner[b] = b;
    r->given[r->given_count++] = b;
    *seconds = 0;
    for (int32_t looked = from; looked < r->given_count; looked++) {
        const int32_t line = r->maker[r->given[looked]];
        *seconds += r->seconds[line];
        for (int32_t k = r->start[line]; k < r->start[line + 1]; k++) {
            const int32_t x = r->accesses[k].buffer;
            if (r->accesses[k].written || !r->bytes[x] || r->split[x] != KEPT || r->maker[x] < 0) continue;
            const int32_t last = r->read[x];
            if (last >= needed || r->until[x] < needed || 4 * r->bytes[x] <= bytes || (!heavy && r->heavy[r->maker[x]])) continue;
            if (r->given_count - from == CLOSURE_MOST) return false;
            r->split[x] = last;
            r->owner[x] = b;
            r->given[r->given_count++] = x;
        }
    }
    return true;
}

typedef struct candidate {
    int32_t buffer, split, needed;
    double score;
} candidate;

static int by_score(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->buffer < y->buffer ? -1 : 1;
}

/* What lives at the peak without being used there: how long its absence would help, for the time to make it again.
 * None without memory: the program then stays as it is, and the budget is not met. */
static int32_t gather(const recomputing *r, bool heavy, candidate *list) {
    const int32_t at = r->schedule[r->peak_at].anchor;
    int32_t *before = malloc((2 * (size_t)r->buffers + (size_t)r->count + 2) * sizeof *before), count = 0;
    if (!before) return 0;
    int32_t *after = before + r->buffers;
    int32_t *over = after + r->buffers; /* per entry: how many up to it live beyond the target */
    for (int32_t b = 0; b < r->buffers; b++) before[b] = after[b] = -1;
    over[0] = 0;
    for (int32_t e = 0; e < r->count; e++) {
        const entry *now = &r->schedule[e];
        over[e + 1] = over[e] + (r->living[e] > r->target);
        const bool early = r->boundary >= 0 ? now->anchor < r->boundary : now->anchor <= at;
        for (int32_t k = r->start[now->line]; k < r->start[now->line + 1]; k++) {
            const int32_t b = r->accesses[k].buffer;
            if (now->again && r->accesses[k].written) continue;
            if (early) before[b] = e;
            else if (after[b] < 0) after[b] = e;
        }
    }
    for (int32_t b = 0; b < r->buffers; b++) {
        const int32_t line = r->maker[b];
        if (line < 0 || r->split[b] != KEPT || before[b] < 0 || after[b] < 0 || (!heavy && r->heavy[line]) || 512 * r->bytes[b] < r->peak) continue;
        const int32_t split = r->schedule[before[b]].anchor, needed = r->schedule[after[b]].anchor;
        if (r->until[b] < needed || (r->boundary < 0 && split == at)) continue;
        const double helps = r->boundary >= 0 ? 1 : over[after[b]] - over[before[b] + 1];
        if (helps > 0) list[count++] = (candidate){b, r->boundary >= 0 ? r->boundary - 1 : split, needed, (double)r->bytes[b] * helps / r->seconds[line]};
    }
    free(before);
    qsort(list, (size_t)count, sizeof *list, by_score);
    return count;
}

/* Take the best decision, if one helps; *now is the excess before and after. */
static bool improve(recomputing *r, bool heavy, candidate *list, double *now) {
    const int32_t found = gather(r, heavy, list), base = r->given_count;
    const int32_t most = r->lines < 2000 ? CANDIDATES_MOST : CANDIDATES_MOST / 3;
    int32_t best = -1;
    double best_rate = 0, seconds;
    for (int32_t i = 0; i < found && i < most; i++) {
        const candidate *c = &list[i];
        if (give_up(r, c->buffer, c->split, c->needed, heavy, &seconds)) {
            const double gain = *now - schedule(r), rate = gain / seconds;
            /* An exchange of one value for another of its size is none. */
            if (gain >= 0.25 * fmin(c->score * r->seconds[r->maker[c->buffer]], *now) && rate > best_rate) best = i, best_rate = rate;
        }
        take_back(r, base);
        schedule(r); /* where things stand is what the next is judged by */
    }
    if (best < 0) return false;
    r->chosen[r->chosen_count++] = list[best].buffer;
    give_up(r, list[best].buffer, list[best].split, list[best].needed, heavy, &seconds);
    *now = schedule(r);
    return true;
}

/* What the decision for `b` costs. */
static double seconds_for(const recomputing *r, int32_t b) {
    double seconds = 0;
    for (int32_t k = 0; k < r->given_count; k++)
        if (r->owner[r->given[k]] == b && r->split[r->given[k]] != KEPT) seconds += r->seconds[r->maker[r->given[k]]];
    return seconds;
}

/* Keep after all what turned out not to be needed, the dearest first. */
static fbp_status reconsider(recomputing *r) {
    int32_t *before = malloc(((size_t)r->given_count + 1) * sizeof *before);
    if (!before) return fbp_fail(FBP_ERROR_MEMORY, "recompute: cannot allocate a list");
    r->target = r->peak > r->target ? r->peak : r->target;
    for (int32_t round = 0; round < r->chosen_count; round++) {
        int32_t dearest = -1;
        double most = -1;
        for (int32_t i = 0; i < r->chosen_count; i++) {
            const double seconds = r->chosen[i] < 0 ? -1 : seconds_for(r, r->chosen[i]);
            if (seconds > most) most = seconds, dearest = i;
        }
        for (int32_t k = 0; k < r->given_count; k++) {
            before[k] = r->split[r->given[k]];
            if (r->owner[r->given[k]] == r->chosen[dearest]) r->split[r->given[k]] = KEPT;
        }
        if (schedule(r) > 0)
            for (int32_t k = 0; k < r->given_count; k++) r->split[r->given[k]] = before[k];
        r->chosen[dearest] = -1;
    }
    free(before);
    return FBP_OK;
}

static fbp_status choose(recomputing *r) {
    candidate *list = malloc(((size_t)r->buffers + 1) * sizeof *list);
    if (!list) return fbp_fail(FBP_ERROR_MEMORY, "recompute: cannot allocate a list");
    double now = schedule(r);
    for (int heavy = 0; heavy < 2; heavy++)
        while (now > 0 && improve(r, heavy, list, &now)) {}
    free(list);
    return reconsider(r);
}

/* ---- regions ------------------------------------------------------------------------------------------------------------------- */

static int32_t outermost(const fbp_program *p, int32_t region) {
    while (region > 0 && p->parents[region] > 0) region = p->parents[region];
    return region;
}

/* Give up what regions made and only the reverse sweep reads outside of them. */
static bool give_up_regions(recomputing *r) {
    const fbp_program *p = r->program;
    uint8_t *late = r->made; /* 1: the sweep reads it; 2: so does something else */
    bool some = false;
    memset(late, 0, (size_t)r->buffers);
    for (int32_t i = 0; i < r->lines; i++)
        for (int32_t k = r->start[i]; k < r->start[i + 1]; k++) {
            const int32_t b = r->accesses[k].buffer, maker = r->maker[b];
            if (maker < 0 || p->lines[maker].region <= 0) continue;
            const bool inside = outermost(p, p->lines[i].region) == outermost(p, p->lines[maker].region);
            if (inside) r->first[b] = i;
            else late[b] |= p->lines[i].sweep ? 1 : 2;
        }
    for (int32_t b = 0; b < r->buffers; b++) {
        if (r->maker[b] < 0 || p->lines[r->maker[b]].region <= 0 || (late[b] & 2)) continue;
        r->split[b] = r->boundary >= 0 ? r->boundary - 1 : r->first[b];
        some |= late[b] != 0;
    }
    return some;
}

/* ---- the schedule as lines ------------------------------------------------------------------------------------------------------- */

/* The region of a clone: what was the outermost has done its work. */
static int32_t inner_region(fbp_program *p, int32_t region, int32_t *fresh) {
    if (region <= 0 || p->parents[region] <= 0) return 0;
    if (fresh[region]) return fresh[region];
    const int32_t around = inner_region(p, p->parents[region], fresh), before = p->region;
    p->region = around;
    const int32_t made = fbp_program_region_begin(p);
    p->region = before;
    return fresh[region] = made;
}

/* The value in a clone's buffer that looks as `value` does in its own. */
static int32_t twin(fbp_program *p, int32_t value, int32_t buffer) {
    fbp_layout layout;
    fbp_layout_of(p->values[value].tensor, &layout);
    const int32_t made = fbp_program_value_add(p, buffer, p->values[value].offset, &layout);
    if (made < 0) return -1;
    p->values[made].tensor->flags |= p->values[value].tensor->flags & FBP_NUMBER;
    p->values[made].order = p->values[value].order;
    return made;
}

static fbp_status write_entry(recomputing *r, const fbp_line *old, const entry *e, int32_t *fresh) {
    fbp_program *p = r->program;
    const fbp_line *from = &old[e->line];
    int32_t *clones = r->first; /* per buffer: that of its clone, -1 */
    fbp_line *line = fbp_program_line_add(p, (fbp_line_kind)from->kind, (fbp_op)from->op, from->count, from->attributes,
                                          e->again ? from->attribute_bytes : 0);
    if (!line) return FBP_ERROR_MEMORY;
    int32_t *inputs = line->inputs; /* a list of its own: clones to come look at the old one */
    void *attributes = e->again ? line->attributes : from->attributes;
    *line = *from;
    line->inputs = inputs;
    line->attributes = attributes;
    memcpy(inputs, from->inputs, (size_t)from->count * sizeof *inputs);
    if (e->again) {
        line->phase = old[e->anchor].phase;
        line->sweep = 0;
        line->region = inner_region(p, from->region, fresh);
        line->again = p->again_count;
        if (line->region < 0) return FBP_ERROR_MEMORY;
    }
    for (int32_t i = 0; i < from->count; i++) {
        if (inputs[i] < 0) continue;
        const int32_t b = p->values[inputs[i]].buffer;
        if (r->split[b] >= e->anchor || clones[b] < 0) continue;
        inputs[i] = twin(p, inputs[i], clones[b]);
        if (inputs[i] < 0) return FBP_ERROR_MEMORY;
    }
    if (!e->again) return FBP_OK;
    const int32_t b = p->values[from->output].buffer, number = p->line_count - 1;
    clones[b] = fbp_program_buffer_add(p, FBP_BUFFER_ARENA, p->buffers[b].bytes);
    const int32_t output = clones[b] < 0 ? -1 : twin(p, from->output, clones[b]);
    p->lines[number].output = output;
    return output < 0 ? FBP_ERROR_MEMORY : FBP_OK;
}

static fbp_status write_schedule(recomputing *r) {
    fbp_program *p = r->program;
    const size_t regions = (size_t)p->parent_count;
    fbp_line *old = fbp_program_get(p, ((size_t)r->lines + 1) * sizeof *old);
    int32_t *fresh = calloc(regions + 1, sizeof *fresh);
    fbp_status status = old && fresh ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "recompute: cannot allocate a list");
    if (status == FBP_OK) {
        memcpy(old, p->lines, (size_t)r->lines * sizeof *old);
        for (int32_t b = 0; b < r->buffers; b++) r->first[b] = -1;
        p->line_count = 0;
    }
    int32_t anchor = -1;
    for (int32_t i = 0; i < r->count && status == FBP_OK; i++) {
        const entry *e = &r->schedule[i];
        if (e->again && e->anchor != anchor) p->again_count++; /* those that are run again together */
        if (e->again) anchor = e->anchor;
        status = write_entry(r, old, e, fresh);
    }
    free(fresh);
    FBP_TRY(status);
    fbp_program_count_writes(p);
    return fbp_program_prune(p);
}

/* ---- the pass ---------------------------------------------------------------------------------------------------------------------- */

/* Where the second phase begins, when what is saved for it is what counts. */
static int32_t boundary_of(const fbp_program *p, bool saved) {
    for (int32_t i = 0; saved && i < p->line_count; i++)
        if (p->lines[i].phase == 1) return i;
    return -1;
}

/* One round over the program as it stands: for the regions that are outermost, or for the target.  *some: lines were added. */
static fbp_status run_round(fbp_program *program, fbp_recompute *request, bool regions, bool *some) {
    recomputing r = {.program = program, .boundary = boundary_of(program, request->saved), .target = request->target};
    fbp_status status = begin(&r);
    *some = false;
    if (status == FBP_OK && regions) {
        *some = give_up_regions(&r);
        if (*some) schedule(&r);
        *some = *some && r.count > r.lines;
    } else if (status == FBP_OK) {
        schedule(&r);
        request->before = r.peak;
        status = choose(&r);
        if (status == FBP_OK) schedule(&r);
        request->after = r.peak;
        *some = status == FBP_OK && r.count > r.lines;
    }
    if (status == FBP_OK && *some) status = write_schedule(&r);
    end(&r);
    return status;
}

fbp_status fbp_program_recompute(fbp_program *program, fbp_recompute *request) {
    bool some = program->parent_count > 0;
    if (request->saved && boundary_of(program, true) < 0) request->saved = false;
    if (program->line_count == 0) return FBP_OK;
    for (int depth = 0; some && depth < DEPTH_MOST; depth++) FBP_TRY(run_round(program, request, true, &some));
    return run_round(program, request, false, &some);
}
