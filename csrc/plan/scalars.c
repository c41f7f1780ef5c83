/* scalars.c -- sorts scalar lines into steps over many elements, in five passes over one piece of working memory:
 *
 *     check    the lines are a program: kernels exist, inputs come before outputs
 *     rewrite  cotangents handed on unchanged become another name of their value; mul's pulls become mul
 *     live     count the readers of each value, from the wanted ones back
 *     chains   link additions whose partial sum the next alone reads
 *     levels   longest path to each line; a chain counts as one line
 *     emit     level by level, sort lines of one kind by where their operands stand, number their results, write steps
 */
#include "plan/scalars.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"

enum {
    OPERANDS = 4,
    LEAST_CHAIN = 4,   /* additions that make a fold; fewer are cheaper side by side with their like */
    LEAST_SEGMENT = 64 /* lines that are worth a step of their own, so that an operand is read in place */
};

/* A line as the passes see it. */
typedef struct node {
    int32_t input[OPERANDS]; /* -1: not read */
    int32_t output;
    int32_t previous;        /* addition whose sum this one continues, -1 */
    int32_t length;          /* additions of the chain up to here; 0 when this is no addition */
    int32_t level;           /* within a chain, of its terms so far */
    uint32_t group;          /* hash of what lines of one step have in common */
    uint16_t op;
    uint8_t kind;            /* fbp_scalar_kind */
    bool live;
    bool claimed;            /* a later addition of a chain computes it on the way */
} node;

/* A value. */
typedef struct value {
    int32_t name;     /* the value itself, or the one whose elements it shares */
    int32_t producer; /* line; GIVEN or READ */
    int32_t readers;  /* lines and wishes */
    int32_t level;    /* first level that may read it */
    int32_t slot;     /* -1: none yet */
    int32_t source;   /* step that computed it; -1 given */
} value;

enum { GIVEN = -1, READ = -2 /* given, and some line has read it */ };

/* A line of a level, to be sorted. */
typedef struct item {
    uint64_t key;
    int32_t line;
} item;

typedef struct planner {
    const fbp_scalar_line *lines;
    const fbp_pointwise_kernels *kernels;
    int real; /* 0 float32, 1 float64 */
    int32_t line_count, value_count, slot_count, level_count;
    node *nodes;
    value *values;
    item *items, *spare;   /* lines in the order of their levels; room to merge in */
    int32_t *level_begins; /* where each level begins in items */
    fbp_scalar_step *steps;
    double (*parameters)[2];
    int32_t *slots;
    int64_t step_count, slot_list_count, parameter_count;
} planner;

/* ---- check and rewrite ---- */

static fbp_status check_line(const planner *p, int32_t i) {
    const fbp_scalar_line *line = &p->lines[i];
    const int inputs = line->op < FBP_OP_COUNT ? fbp_ops[line->op].arity : 0;
    if (line->op >= FBP_OP_COUNT || !p->kernels->forward[line->op][p->real])
        return fbp_fail(FBP_ERROR_VALUE, "line %d: no floating kernel for op %d", i, line->op);
    if (line->pull > inputs || (line->pull && !p->kernels->pull[line->op][line->pull - 1][p->real]))
        return fbp_fail(FBP_ERROR_VALUE, "line %d: %s has no input %d to pull to", i, fbp_ops[line->op].name, line->pull - 1);
    if (line->output < 0 || line->output >= p->value_count)
        return fbp_fail(FBP_ERROR_VALUE, "line %d: no value %d", i, line->output);
    return FBP_OK;
}

/* Operands that the line's rule reads, as bits. */
static int operands_read(const fbp_scalar_line *line) {
    const fbp_op_row *row = &fbp_ops[line->op];
    if (line->pull == 0) return (1 << row->arity) - 1;
    const int needs = row->needs[line->pull - 1];
    return 1 | (needs & NEED_A ? 2 : 0) | (needs & NEED_B ? 4 : 0) | (needs & NEED_Y ? 8 : 0);
}

static uint64_t mixed(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

/* Kind, operands and group of a line whose operands have been found. */
static void classify(const fbp_scalar_line *line, node *node) {
    node->op = line->op;
    node->kind = (uint8_t)(line->pull ? FBP_SCALAR_PULL_A + line->pull - 1 : FBP_SCALAR_FORWARD);
    if (line->op == FBP_OP_mul && line->pull) { /* G * B or G * A, as mul multiplies */
        const int other = line->pull == 1 ? 2 : 1;
        node->input[1] = node->input[other];
        node->input[2] = -1;
        node->kind = FBP_SCALAR_MUL;
    } else if (!line->pull) {
        if (line->op == FBP_OP_add) node->kind = FBP_SCALAR_ADD;
        if (line->op == FBP_OP_sub) node->kind = FBP_SCALAR_SUB;
        if (line->op == FBP_OP_mul) node->kind = FBP_SCALAR_MUL;
    }
    uint64_t words[2];
    memcpy(words, line->parameters, sizeof words);
    uint64_t hash = mixed(0, (uint64_t)node->kind << 16 | node->op);
    if (node->kind >= FBP_SCALAR_FORWARD) hash = mixed(mixed(hash, words[0]), words[1]);
    node->group = (uint32_t)hash;
}

static fbp_status check_and_rewrite(planner *p) {
    for (int32_t v = 0; v < p->value_count; v++)
        p->values[v] = (value){.name = v, .producer = GIVEN, .slot = -1, .source = -1};
    for (int32_t i = 0; i < p->line_count; i++) {
        const fbp_scalar_line *line = &p->lines[i];
        FBP_TRY(check_line(p, i));
        node *node = &p->nodes[i];
        *node = (struct node){.output = line->output, .previous = -1};
        const int read = operands_read(line);
        for (int k = 0; k < OPERANDS; k++) {
            node->input[k] = -1;
            if (!(read >> k & 1)) continue;
            const int32_t v = line->input[k];
            if (v < 0 || v >= p->value_count) return fbp_fail(FBP_ERROR_VALUE, "line %d: operand %d is no value", i, k);
            if (p->values[v].producer == GIVEN) p->values[v].producer = READ;
            node->input[k] = p->values[v].name;
        }
        value *output = &p->values[line->output];
        if (output->producer != GIVEN)
            return fbp_fail(FBP_ERROR_VALUE, "line %d: value %d was %s before", i, line->output,
                            output->producer == READ ? "read" : "computed");
        output->producer = i;
        classify(line, node);
        if (line->pull && fbp_ops[line->op].passes_on[line->pull - 1]) output->name = node->input[0];
    }
    return FBP_OK;
}

/* ---- live, chains, levels ---- */

static fbp_status count_readers(planner *p, int32_t wanted_count, const int32_t *wanted) {
    for (int32_t i = 0; i < wanted_count; i++) {
        if (wanted[i] < 0 || wanted[i] >= p->value_count) return fbp_fail(FBP_ERROR_VALUE, "no value %d to want", wanted[i]);
        p->values[p->values[wanted[i]].name].readers++;
    }
    for (int32_t i = p->line_count - 1; i >= 0; i--) {
        node *node = &p->nodes[i];
        node->live = p->values[node->output].readers > 0; /* those with another name have none */
        for (int k = 0; k < OPERANDS && node->live; k++)
            if (node->input[k] >= 0) p->values[node->input[k]].readers++;
    }
    return FBP_OK;
}

/* The addition whose sum is v, where one line alone reads it, else -1. */
static int32_t partial_sum(const planner *p, int32_t v) {
    const value *value = &p->values[v];
    return value->producer >= 0 && value->readers == 1 && p->nodes[value->producer].length > 0 ? value->producer : -1;
}

/* Link each addition to the one that it continues, the longer of two; then undo chains that are too short. */
static void find_chains(planner *p) {
    for (int32_t i = 0; i < p->line_count; i++) {
        node *node = &p->nodes[i];
        if (!node->live || node->kind != FBP_SCALAR_ADD) continue;
        const int32_t a = partial_sum(p, node->input[0]), b = partial_sum(p, node->input[1]);
        node->previous = a < 0 || (b >= 0 && p->nodes[b].length > p->nodes[a].length) ? b : a;
        node->length = 1;
        if (node->previous < 0) continue;
        node->length += p->nodes[node->previous].length;
        p->nodes[node->previous].claimed = true;
    }
    for (int32_t i = 0; i < p->line_count; i++) {
        node *node = &p->nodes[i];
        if (node->length == 0 || node->length >= LEAST_CHAIN || node->claimed) continue;
        for (int32_t k = i, next; k >= 0; k = next) {
            next = p->nodes[k].previous;
            p->nodes[k].previous = -1;
            p->nodes[k].length = 1;
            p->nodes[k].claimed = false;
        }
    }
}

static bool is_fold(const node *node) { return node->length >= LEAST_CHAIN; }

/* Operand that an addition of a chain adds to the sum so far. */
static int32_t added_term(const planner *p, const node *node) {
    return node->input[p->nodes[node->previous].output == node->input[0]];
}

/* Levels of lines and values, and the lines that steps are made of in the order of their levels. */
static void find_levels(planner *p) {
    memset(p->level_begins, 0, ((size_t)p->line_count + 2) * sizeof *p->level_begins);
    for (int32_t i = 0; i < p->line_count; i++) {
        node *node = &p->nodes[i];
        if (!node->live) continue;
        for (int k = 0; k < OPERANDS; k++) /* a partial sum's level is 0, and what its terms wait for stands in its node */
            if (node->input[k] >= 0 && p->values[node->input[k]].level > node->level) node->level = p->values[node->input[k]].level;
        if (node->previous >= 0 && p->nodes[node->previous].level > node->level) node->level = p->nodes[node->previous].level;
        if (node->claimed) continue;
        p->values[node->output].level = node->level + 1;
        if (node->level >= p->level_count) p->level_count = node->level + 1;
        p->level_begins[node->level + 1]++;
    }
    for (int32_t l = 0; l < p->level_count; l++) p->level_begins[l + 1] += p->level_begins[l];
    for (int32_t i = 0; i < p->line_count; i++) {
        const node *node = &p->nodes[i];
        if (node->live && !node->claimed) p->items[p->level_begins[node->level]++].line = i;
    }
    for (int32_t l = p->level_count; l > 0; l--) p->level_begins[l] = p->level_begins[l - 1]; /* each had moved to its end */
    p->level_begins[0] = 0;
}

/* ---- sorting ---- */

/* Stable merge sort; cheap where the items are in order, or nearly. */
static void sort_items(item *items, item *spare, int64_t n) {
    enum { RUN = 12 };
    for (int64_t begin = 0; begin < n; begin += RUN) {
        const int64_t end = begin + RUN < n ? begin + RUN : n;
        for (int64_t i = begin + 1; i < end; i++) {
            const item moved = items[i];
            int64_t k = i;
            for (; k > begin && items[k - 1].key > moved.key; k--) items[k] = items[k - 1];
            items[k] = moved;
        }
    }
    for (int64_t run = RUN; run < n; run *= 2)
        for (int64_t begin = 0; begin + run < n; begin += 2 * run) {
            const int64_t middle = begin + run, end = middle + run < n ? middle + run : n;
            if (items[middle - 1].key <= items[middle].key) continue;
            memcpy(spare, items + begin, (size_t)run * sizeof *spare);
            int64_t a = 0, b = middle, to = begin;
            while (a < run && b < end) items[to++] = items[b].key < spare[a].key ? items[b++] : spare[a++];
            while (a < run) items[to++] = spare[a++];
        }
}

/* Key of a line whose operands' slots are known: its group, then the slot of the operand that was computed last, so
 * that at least this one is read in order; lines that read given values alone keep the order they came in.
 * Sums and products get that operand first. */
static uint64_t sort_key(const planner *p, node *node) {
    if (is_fold(node)) return (uint64_t)(uint32_t)(INT32_MAX - node->length); /* folds first (group 0), long ones first */
    int latest = 0;
    for (int k = 1; k < OPERANDS; k++)
        if (node->input[k] >= 0 && p->values[node->input[k]].slot > p->values[node->input[latest]].slot) latest = k;
    const value *value = &p->values[node->input[latest]];
    if (latest == 1 && (node->kind == FBP_SCALAR_ADD || node->kind == FBP_SCALAR_MUL)) {
        node->input[1] = node->input[0];
        node->input[0] = (int32_t)(value - p->values);
    }
    return (uint64_t)node->group << 32 | (value->source < 0 ? 0 : (uint32_t)value->slot + 1);
}

/* ---- emit ---- */

static void give_slot(planner *p, int32_t v) { p->values[v].slot = p->slot_count++; }

static fbp_scalar_step *new_step(planner *p, fbp_scalar_kind kind, int32_t count) {
    fbp_scalar_step *step = &p->steps[p->step_count++];
    *step = (fbp_scalar_step){.kind = (uint8_t)kind, .count = count, .output = p->slot_count};
    return step;
}

/* Number of the pair of parameters, which is often that of the step before. */
static uint32_t parameters_number(planner *p, const double *parameters) {
    if (memcmp(p->parameters[p->parameter_count - 1], parameters, sizeof *p->parameters) != 0)
        memcpy(p->parameters[p->parameter_count++], parameters, sizeof *p->parameters);
    return (uint32_t)(p->parameter_count - 1);
}

static int32_t operand_slot(const planner *p, const item *item, int k) {
    return p->values[p->nodes[item->line].input[k]].slot;
}

/* How the lines' operand k stands: fills its mode and place, and writes the list when it takes one. */
static void place_operand(planner *p, fbp_scalar_step *step, const item *items, int32_t n, int k) {
    const int32_t first = operand_slot(p, items, k), stride = n > 1 ? operand_slot(p, items + 1, k) - first : 1;
    fbp_scalar_mode mode = stride == 1 ? FBP_SCALAR_CONTIGUOUS : stride == 0 ? FBP_SCALAR_BROADCAST : FBP_SCALAR_LISTED;
    for (int32_t i = 1; i < n && mode != FBP_SCALAR_LISTED; i++)
        if (operand_slot(p, items + i, k) != first + i * stride) mode = FBP_SCALAR_LISTED;
    step->modes |= (uint8_t)(mode << 2 * k);
    step->operand[k] = (uint32_t)first;
    if (mode != FBP_SCALAR_LISTED) return;
    step->operand[k] = (uint32_t)p->slot_list_count;
    for (int32_t i = 0; i < n; i++) p->slots[p->slot_list_count++] = operand_slot(p, items + i, k);
}

/* One step for n lines of one level and group. */
static void emit_lines(planner *p, const item *items, int32_t n) {
    const node *node = &p->nodes[items->line];
    fbp_scalar_step *step = new_step(p, node->kind, n);
    step->op = node->op;
    if (node->kind >= FBP_SCALAR_FORWARD) step->parameters = parameters_number(p, p->lines[items->line].parameters);
    for (int k = 0; k < OPERANDS; k++)
        if (node->input[k] >= 0) place_operand(p, step, items, n, k);
    for (int32_t i = 0; i < n; i++) {
        const int32_t v = p->nodes[items[i].line].output;
        p->values[v].source = (int32_t)p->step_count;
        give_slot(p, v);
    }
}

/* The slots of a fold's terms in order, length + 1 of them, into every stride-th place from `to` while they are among the
 * first `count`, the others one behind the other to `rest`. */
static void list_terms(const planner *p, int32_t line, int32_t *to, int32_t stride, int32_t count, int32_t *rest) {
    for (const node *node = &p->nodes[line];; node = &p->nodes[node->previous]) {
        const bool last = node->previous < 0;
        const int32_t terms[2] = {last ? node->input[1] : added_term(p, node), node->input[0]};
        for (int k = 0, place = node->length; k < (last ? 2 : 1); k++, place--)
            *(place < count ? to + (int64_t)place * stride : rest + (place - count)) = p->values[terms[k]].slot;
        if (last) return;
    }
}

/* One fold by itself, or what is left of it behind its first `shared` terms, whose sum is in its slot already. */
static void emit_fold_rest(planner *p, int32_t output, int32_t shared, uint32_t list, int32_t left) {
    if (left == 0) return;
    fbp_scalar_step *step = new_step(p, FBP_SCALAR_FOLD, shared ? left : left - 1);
    step->output = output;
    step->operand[0] = (uint32_t)(shared ? output : p->slots[list]);
    step->operand[1] = shared ? list : list + 1;
}

/* Up to eight folds, longest first: side by side as far as the shortest of them goes, what is left of each by itself.
 * Lanes without a fold repeat the first one's terms into slots that nothing reads. */
static void emit_fold_lanes(planner *p, const item *items, int32_t n) {
    const int32_t width = n == 1 ? 1 : n <= 4 ? 4 : 8;
    const int32_t shared = width > 1 ? p->nodes[items[n - 1].line].length + 1 : 0; /* terms, the first ones included */
    const uint32_t together = (uint32_t)p->slot_list_count;
    const int32_t output = p->slot_count;
    if (width > 1) {
        new_step(p, width == 4 ? FBP_SCALAR_FOLDS_4 : FBP_SCALAR_FOLDS_8, shared - 1)->operand[1] = together;
        p->slot_list_count += (int64_t)shared * width;
    }
    p->slot_count += width;
    for (int32_t i = 0; i < n; i++) {
        const node *node = &p->nodes[items[i].line];
        const int32_t left = node->length + 1 - shared;
        const uint32_t rest = (uint32_t)p->slot_list_count;
        list_terms(p, items[i].line, p->slots + together + i, width, shared, p->slots + rest);
        p->slot_list_count += left;
        p->values[node->output].slot = output + i;
        p->values[node->output].source = (int32_t)p->step_count;
        emit_fold_rest(p, output + i, shared, rest, left);
    }
    for (int32_t i = n; i < width; i++)
        for (int32_t t = 0; t < shared; t++) p->slots[together + (int64_t)t * width + i] = p->slots[together + (int64_t)t * width];
}

/* Folds, longest first: those of similar length side by side. */
static void emit_folds(planner *p, const item *items, int32_t n) {
    for (int32_t begin = 0, end; begin < n; begin = end) {
        const int32_t longest = p->nodes[items[begin].line].length;
        for (end = begin + 1; end < n && end < begin + 8 && p->nodes[items[end].line].length >= longest / 2;) end++;
        emit_fold_lanes(p, items + begin, end - begin);
    }
}

/* Whether two lines of a level may share a step. */
static bool same_group(const planner *p, const item *a, const item *b) {
    const node *x = &p->nodes[a->line], *y = &p->nodes[b->line];
    if (is_fold(x) || is_fold(y)) return is_fold(x) && is_fold(y);
    return x->kind == y->kind && x->op == y->op &&
           (x->kind < FBP_SCALAR_FORWARD ||
            memcmp(p->lines[a->line].parameters, p->lines[b->line].parameters, sizeof p->lines->parameters) == 0);
}

/* Step that computed the operand by which the line was sorted; -1 where all are given. */
static int32_t sorted_source(const planner *p, const item *item) {
    int32_t source = -1;
    const node *node = &p->nodes[item->line];
    for (int k = 0; k < OPERANDS; k++)
        if (node->input[k] >= 0 && p->values[node->input[k]].source > source) source = p->values[node->input[k]].source;
    return source;
}

/* Where each operand that the lines are sorted by has the same number of readers (a product's two pulls share their
 * cotangent), put the first reader of every one before all second ones, and so on: it is then read in place by each of
 * these parts.  Returns how many parts there are. */
static int32_t separate_readers(planner *p, item *items, int32_t n) {
    int32_t readers = 1;
    while (readers < n && items[readers].key == items[0].key) readers++;
    const int32_t part = n / readers;
    if (readers == 1 || n % readers != 0 || part < LEAST_SEGMENT) return 1;
    for (int32_t i = 0; i < n; i++) {
        if (items[i].key != items[i - i % readers].key) return 1;
        p->spare[i % readers * part + i / readers] = items[i];
    }
    memcpy(items, p->spare, (size_t)n * sizeof *items);
    return readers;
}

/* Lines of one level and group: a step for every run of many whose sorted operands come from one step, so that these are
 * read in place; one for the few in between. */
static void emit_group(planner *p, item *items, int32_t n) {
    int32_t done = 0;
    for (int32_t begin = 0, end; begin < n; begin = end) {
        const int32_t source = sorted_source(p, items + begin);
        for (end = begin + 1; end < n && sorted_source(p, items + end) == source;) end++;
        if (end - begin < LEAST_SEGMENT) continue;
        if (begin > done) emit_lines(p, items + done, begin - done);
        const int32_t part = (end - begin) / separate_readers(p, items + begin, end - begin);
        for (; begin < end; begin += part) emit_lines(p, items + begin, part);
        done = end;
    }
    if (n > done) emit_lines(p, items + done, n - done);
}

static void emit(planner *p) {
    memset(p->parameters[0], 0, sizeof *p->parameters);
    p->parameter_count = 1;
    for (int32_t v = 0; v < p->value_count; v++)
        if (p->values[v].producer < 0 && p->values[v].readers > 0) give_slot(p, v);
    for (int32_t level = 0; level < p->level_count; level++) {
        item *items = p->items + p->level_begins[level];
        const int32_t n = p->level_begins[level + 1] - p->level_begins[level];
        for (int32_t i = 0; i < n; i++) items[i].key = sort_key(p, &p->nodes[items[i].line]);
        sort_items(items, p->spare, n);
        for (int32_t begin = 0, end; begin < n; begin = end) {
            for (end = begin + 1; end < n && same_group(p, items + begin, items + end);) end++;
            if (is_fold(&p->nodes[items[begin].line]))
                emit_folds(p, items + begin, end - begin);
            else
                emit_group(p, items + begin, end - begin);
        }
    }
}

/* ---- memory ---- */

/* Hand out `count` elements of `size` bytes from `*next` on, aligned to a cache line; a NULL `*next` only counts. */
static void *carve(char **next, size_t *bytes, size_t count, size_t size) {
    const size_t rounded = (count * size + FBP_ALIGNMENT - 1) / FBP_ALIGNMENT * FBP_ALIGNMENT;
    void *piece = *next;
    if (*next) *next += rounded;
    *bytes += rounded;
    return piece;
}

/* Lay out the working memory from `memory`, or with NULL say how much it is.  A line makes at most one step, lists at
 * most four slots and brings one pair of parameters; a chain of n additions makes two steps and lists at most 2 (n + 1) slots. */
static size_t carve_planner(planner *p, char *memory) {
    size_t bytes = 0;
    const size_t lines = (size_t)p->line_count, values = (size_t)p->value_count;
    p->nodes = carve(&memory, &bytes, lines, sizeof *p->nodes);
    p->values = carve(&memory, &bytes, values, sizeof *p->values);
    p->items = carve(&memory, &bytes, lines, sizeof *p->items);
    p->spare = carve(&memory, &bytes, lines, sizeof *p->spare);
    p->level_begins = carve(&memory, &bytes, lines + 2, sizeof *p->level_begins);
    p->steps = carve(&memory, &bytes, lines, sizeof *p->steps);
    p->parameters = carve(&memory, &bytes, lines + 1, sizeof *p->parameters);
    p->slots = carve(&memory, &bytes, lines * OPERANDS, sizeof *p->slots);
    return bytes;
}

/* The same of the program, whose counts are now known. */
static size_t carve_program(const planner *p, char *memory) {
    size_t bytes = 0;
    fbp_scalars *program = carve(&memory, &bytes, 1, sizeof *program);
    double (*parameters)[2] = carve(&memory, &bytes, (size_t)p->parameter_count, sizeof *parameters);
    fbp_scalar_step *steps = carve(&memory, &bytes, (size_t)p->step_count, sizeof *steps);
    int32_t *slots = carve(&memory, &bytes, (size_t)p->slot_list_count, sizeof *slots);
    int32_t *slot_of_value = carve(&memory, &bytes, (size_t)p->value_count, sizeof *slot_of_value);
    if (!memory) return bytes;
    memcpy(parameters, p->parameters, (size_t)p->parameter_count * sizeof *parameters);
    memcpy(steps, p->steps, (size_t)p->step_count * sizeof *steps);
    memcpy(slots, p->slots, (size_t)p->slot_list_count * sizeof *slots);
    for (int32_t v = 0; v < p->value_count; v++) slot_of_value[v] = p->values[p->values[v].name].slot;
    *program = (fbp_scalars){
        .dtype = p->real ? FBP_FLOAT64 : FBP_FLOAT32, .value_count = p->value_count, .slot_count = p->slot_count,
        .step_count = p->step_count, .bytes = (int64_t)bytes, .parameters = (const double (*)[2])parameters,
        .steps = steps, .slots = slots, .slot_of_value = slot_of_value,
    };
    return bytes;
}

static fbp_status make(planner *p, int32_t wanted_count, const int32_t *wanted, fbp_scalars **out) {
    FBP_TRY(check_and_rewrite(p));
    FBP_TRY(count_readers(p, wanted_count, wanted));
    find_chains(p);
    find_levels(p);
    emit(p);
    const size_t bytes = carve_program(p, NULL);
    char *memory = fbp_memory_get(bytes);
    if (!memory) return fbp_fail(FBP_ERROR_MEMORY, "no memory for a plan of %zu bytes", bytes);
    carve_program(p, memory);
    *out = (fbp_scalars *)memory;
    return FBP_OK;
}

fbp_status fbp_scalars_make(fbp_dtype dtype, int32_t value_count, int64_t line_count, const fbp_scalar_line *lines,
                            int32_t wanted_count, const int32_t *wanted, fbp_scalars **out) {
    *out = NULL;
    if (!fbp_dtype_is_float(dtype)) return fbp_fail(FBP_ERROR_VALUE, "no scalar programs of %s", fbp_dtype_name(dtype));
    if (value_count < 0 || line_count < 0 || wanted_count < 0 || line_count > value_count ||
        line_count > (int64_t)(UINT32_MAX / OPERANDS)) /* places in the lists are 32 bits wide */
        return fbp_fail(FBP_ERROR_VALUE, "%lld lines for %d values", (long long)line_count, value_count);
    planner p = {.lines = lines, .kernels = fbp_kernels->pointwise, .real = dtype == FBP_FLOAT64,
                 .line_count = (int32_t)line_count, .value_count = value_count};
    const size_t bytes = carve_planner(&p, NULL);
    char *memory = fbp_memory_get(bytes);
    if (!memory) return fbp_fail(FBP_ERROR_MEMORY, "no memory to plan %lld lines", (long long)line_count);
    carve_planner(&p, memory);
    const fbp_status status = make(&p, wanted_count, wanted, out);
    fbp_memory_free(memory, bytes);
    return status;
}

void fbp_scalars_free(fbp_scalars *program) {
    if (program) fbp_memory_free(program, (size_t)program->bytes);
}

int32_t fbp_scalars_slot(const fbp_scalars *program, int32_t value) {
    return value >= 0 && value < program->value_count ? program->slot_of_value[value] : -1;
}

int64_t fbp_scalars_slot_count(const fbp_scalars *program) { return program->slot_count; }
