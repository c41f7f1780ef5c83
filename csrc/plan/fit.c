/* fit.c -- a plan within a budget of memory: recompute.c chooses by an estimate, what it comes to is seen by shaping a copy.
 *
 * The bits stay those of the plan without a budget: that one is made first, and how it adds up (fbp_value.order) binds the others.
 */
#include <stdlib.h>

#include "plan/program.h"

enum { TRIALS_MOST = 10 };

/* ---- in which order a shaped program adds ------------------------------------------------------------------------------------------ */

typedef struct ordering {
    const fbp_program *program;
    int64_t *order; /* per value */
} ordering;

static void note_written(void *context, int32_t value, bool written) {
    ordering *o = context;
    if (written && o->order[value] == FBP_ORDER_ABSENT) o->order[value] = FBP_ORDER_ALONE;
}

static void note_chain(ordering *o, const fbp_fused *fused) {
    for (int32_t t = 0; t < fused->tail_count; t++) /* sums of rows have the bits of eager code */
        o->order[fused->tails[t].output] =
            fused->tails[t].rows ? FBP_ORDER_FREE : FBP_ORDER_CHAIN + 2 * (fused->has_rows ? fused->inner : 0) + (fused->dtype == FBP_FLOAT64);
}

/* Per value; NULL: no memory.  The caller frees it. */
static int64_t *orders_of(const fbp_program *shaped) {
    ordering o = {shaped, malloc(((size_t)shaped->value_count + 1) * sizeof(int64_t))};
    if (!o.order) return NULL;
    for (int32_t i = 0; i < shaped->value_count; i++) o.order[i] = FBP_ORDER_ABSENT;
    for (int32_t i = 0; i < shaped->line_count; i++) {
        const fbp_line *line = &shaped->lines[i];
        if (line->kind == FBP_LINE_FUSED) note_chain(&o, line->detail);
        if (line->kind == FBP_LINE_PRODUCT) {
            const fbp_epilogue *product = line->detail;
            if (product->beta != 0) o.order[product->c] = FBP_ORDER_ONTO;
            if (product->after) note_chain(&o, product->after);
        }
        fbp_line_touch(shaped, line, note_written, &o);
    }
    return o.order;
}

/* ---- trials ---------------------------------------------------------------------------------------------------------------------------- */

/* Shape a copy of `program`: the arena that it comes to; *agrees: it adds in the order that is demanded, unless NULL.  `orders`, unless
 * NULL, takes that order (to be freed). */
static fbp_status try_out(const fbp_program *program, int64_t *arena, bool *agrees, int64_t **orders) {
    fbp_program *trial;
    FBP_TRY(fbp_program_copy(program, -1, &trial));
    fbp_status status = fbp_program_shape(trial);
    int64_t *found = status == FBP_OK ? orders_of(trial) : NULL;
    if (status == FBP_OK && !found) status = fbp_fail(FBP_ERROR_MEMORY, "fit: cannot allocate a list");
    if (status == FBP_OK) {
        *arena = trial->arena_bytes;
        if (agrees) *agrees = true;
        for (int32_t i = 0; agrees && i < trial->value_count; i++) {
            const int64_t wanted = trial->values[i].order;
            if (wanted != FBP_ORDER_FREE && found[i] != FBP_ORDER_ABSENT && found[i] != wanted) *agrees = false;
        }
    }
    if (status == FBP_OK && orders) *orders = found;
    else free(found);
    fbp_program_free(trial);
    return status;
}

/* The plan without recomputation: its arena, and its order for all that follow. */
static fbp_status take_measure(fbp_program *program) {
    int64_t *orders;
    FBP_TRY(try_out(program, &program->budget.without, NULL, &orders));
    for (int32_t i = 0; i < program->value_count; i++) program->values[i].order = orders[i] == FBP_ORDER_ABSENT ? FBP_ORDER_ALONE : orders[i];
    free(orders);
    return FBP_OK;
}

static int64_t budget_of(const fbp_budget *budget, int64_t without) {
    return budget->fraction > 0 ? (int64_t)(budget->fraction * (double)without) : budget->bytes;
}

/* The program with values given up so that it takes at most `budget` bytes, where it takes `arena` now; the nearest to it that was found. */
static fbp_status search(fbp_program *program, int64_t arena, int64_t budget) {
    fbp_program *best = NULL;
    int64_t best_arena = arena, target = INT64_MAX, reached, low = 0, high = INT64_MAX; /* estimates: not reached, reached */
    fbp_status status = FBP_OK;
    for (int k = 0; k < TRIALS_MOST && best_arena > budget && status == FBP_OK; k++) {
        fbp_program *next;
        fbp_recompute request = {.target = target};
        bool agrees = false;
        status = fbp_program_copy(program, -1, &next);
        if (status != FBP_OK) break;
        status = fbp_program_recompute(next, &request);
        if (status == FBP_OK) status = try_out(next, &reached, &agrees, NULL);
        if (status == FBP_OK && agrees && reached < best_arena) {
            fbp_program_free(best);
            best = next;
            best_arena = reached;
        } else {
            fbp_program_free(next);
        }
        if (status != FBP_OK) break;
        if (k == 0) high = request.before;
        else if (request.after > target) low = target;
        else high = target;
        /* What the estimate does not see (what chains keep in registers, gaps) stays about the same. */
        target = k == 0 ? request.before - (arena - budget) : high - (reached > budget ? reached - budget : 0) - high / 64;
        if (k > 0 && low == 0 && target < high / 2) target = high / 2;
        if (target <= low || (k == 0 && target < high / 4)) target = low + (high - low) / 2;
        if (high - low <= high / 32) break; /* as far as it goes */
    }
    if (status != FBP_OK) fbp_program_free(best);
    FBP_TRY(status);
    if (best) fbp_program_replace(program, best);
    program->budget.met = best_arena <= budget;
    return FBP_OK;
}

fbp_status fbp_program_fit(fbp_program *program) {
    fbp_budget *budget = &program->budget;
    const bool limited = budget->bytes > 0 || budget->fraction > 0;
    budget->met = true;
    if (!limited && program->parent_count == 0) {
        budget->without = -1;
        return FBP_OK;
    }
    FBP_TRY(take_measure(program));
    int64_t arena = budget->without;
    if (program->parent_count) {
        fbp_recompute regions = {.target = INT64_MAX};
        FBP_TRY(fbp_program_recompute(program, &regions));
        program->parent_count = 0; /* done with */
        FBP_TRY(try_out(program, &arena, NULL, NULL));
    }
    return limited ? search(program, arena, budget_of(&program->budget, program->budget.without)) : FBP_OK;
}

/* ---- what is saved for a derivative --------------------------------------------------------------------------------------------------- */

/* All lines of the function, then those of its derivative. */
static fbp_status part_phases(fbp_program *program) {
    fbp_line *all = fbp_program_get(program, ((size_t)program->line_count + 1) * sizeof *all);
    if (!all) return FBP_ERROR_MEMORY;
    int32_t count = 0;
    for (uint8_t phase = 0; phase < 2; phase++)
        for (int32_t i = 0; i < program->line_count; i++)
            if (program->lines[i].phase == phase) all[count++] = program->lines[i];
    for (int32_t i = 0; i < count; i++) program->lines[i] = all[i];
    return FBP_OK;
}

fbp_status fbp_program_fit_saved(fbp_program *program) {
    const fbp_budget *budget = &program->budget;
    const bool limited = budget->bytes > 0 || budget->fraction > 0;
    program->budget.met = true;
    program->budget.without = -1;
    if (!limited && program->parent_count == 0) return FBP_OK;
    FBP_TRY(part_phases(program));
    fbp_program *measured;
    fbp_recompute request = {.target = INT64_MAX, .saved = true};
    FBP_TRY(fbp_program_copy(program, -1, &measured));
    measured->parent_count = 0;
    const fbp_status status = fbp_program_recompute(measured, &request);
    fbp_program_free(measured);
    FBP_TRY(status);
    program->budget.without = request.before;
    request.target = limited ? budget_of(budget, request.before) : INT64_MAX;
    request.saved = true;
    FBP_TRY(fbp_program_recompute(program, &request));
    program->budget.met = request.after <= request.target;
    return FBP_OK;
}
