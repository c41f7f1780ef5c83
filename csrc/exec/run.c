/* run.c -- lines into kernel calls. */
#define _POSIX_C_SOURCE 200809L
#include "exec/run.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/threads.h"
#include "exec/chain.h"
#include "exec/scalars.h"
#include "kernels/kernels.h"

/* ---- making ---------------------------------------------------------------------------------------------------------------- */

/* Whether a product runs as its transpose, whose rows are long. */
static void choose_form(fbp_epilogue *e) {
    enum { NARROW = 8, TALL = 16 };
    e->turned = e->n <= NARROW && e->m >= TALL && e->a_row == 1 && e->k > 1 && e->bias < 0 && e->beta == 0;
}

static fbp_status make_step(fbp_plan *plan, int32_t number) {
    fbp_program *p = plan->program;
    const fbp_line *line = &p->lines[number];
    fbp_step *step = &plan->steps[number];
    step->line = line;
    step->output = line->output >= 0 ? fbp_value_tensor(p, line->output) : NULL;
    step->inputs = fbp_program_get(p, ((size_t)line->count + 1) * sizeof *step->inputs);
    if (!step->inputs) return FBP_ERROR_MEMORY;
    for (int32_t i = 0; i < line->count; i++) step->inputs[i] = line->inputs[i] >= 0 ? fbp_value_tensor(p, line->inputs[i]) : NULL;
    if (line->kind == FBP_LINE_PRODUCT) choose_form(line->detail);
    if (line->kind != FBP_LINE_UPDATE) return FBP_OK;
    for (int32_t i = 0; i < line->count; i++)
        if (line->inputs[i] >= 0) plan->listed[p->values[line->inputs[i]].buffer] = 1;
    const size_t count = (size_t)line->count / FBP_UPDATE_PARTS;
    fbp_update_slot *slot = &plan->updates[line->slot];
    step->tensors = fbp_program_get(p, (count + 1) * sizeof(fbp_adam_tensor));
    step->order = fbp_program_get(p, (count + 1) * sizeof *step->order);
    slot->steps = fbp_program_get(p, (2 * count + 1) * sizeof *slot->steps);
    if (!step->tensors || !step->order || !slot->steps) return FBP_ERROR_MEMORY;
    slot->strides = slot->steps + count;
    slot->count = (int32_t)count;
    return FBP_OK;
}

fbp_status fbp_plan_new(fbp_program *program, int update_count, int draw_count, fbp_plan **out) {
    FBP_TRY(fbp_program_plan(program));
    fbp_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan");
    plan->steps = calloc((size_t)program->line_count + 1, sizeof *plan->steps);
    plan->updates = calloc((size_t)update_count + 1, sizeof *plan->updates);
    plan->draws = calloc((size_t)draw_count + 1, sizeof *plan->draws);
    plan->listed = calloc((size_t)program->buffer_count + 1, sizeof *plan->listed);
    plan->arena_bytes = (size_t)program->arena_bytes;
    plan->arena = fbp_memory_get(plan->arena_bytes);
    plan->update_count = update_count;
    plan->draw_count = draw_count;
    plan->moved = true;
    plan->program = program;
    fbp_status status = plan->steps && plan->updates && plan->draws && plan->listed && plan->arena
                            ? FBP_OK
                            : fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a plan's arena of %lld bytes", (long long)program->arena_bytes);
    for (int32_t i = 0; i < program->line_count && status == FBP_OK; i++) status = make_step(plan, i);
    if (status != FBP_OK) {
        plan->program = NULL;
        fbp_plan_free(plan);
        return status;
    }
    for (int32_t i = 0; i < program->buffer_count; i++) {
        const fbp_buffer *b = &program->buffers[i];
        if (b->kind == FBP_BUFFER_ARENA && b->offset >= 0) fbp_plan_bind(plan, i, plan->arena + b->offset);
        else if (b->kind == FBP_BUFFER_CONSTANT || b->kind == FBP_BUFFER_STATE) fbp_plan_bind(plan, i, b->storage->data);
    }
    *out = plan;
    return FBP_OK;
}

void fbp_plan_free(fbp_plan *plan) {
    if (!plan) return;
    fbp_memory_free(plan->arena, plan->arena_bytes);
    fbp_program_free(plan->program);
    free(plan->steps);
    free(plan->updates);
    free(plan->draws);
    free(plan->listed);
    free(plan);
}

void fbp_plan_bind(fbp_plan *plan, int32_t buffer, char *base) {
    const fbp_program *p = plan->program;
    for (int32_t i = p->buffers[buffer].values; i >= 0; i = p->values[i].next) p->values[i].tensor->data = base + p->values[i].offset;
    if (plan->listed[buffer]) plan->moved = true;
}

int64_t fbp_plan_peak_bytes(const fbp_plan *plan) { return plan->program->arena_bytes; }

/* ---- kinds of lines ---------------------------------------------------------------------------------------------------------- */

static void write_elements(const fbp_tensor *to, const fbp_tensor *from) {
    int64_t to_strides[FBP_MAX_NDIM], from_strides[FBP_MAX_NDIM];
    const int size = fbp_dtype_size((fbp_dtype)to->dtype);
    if (fbp_is_contiguous(to) && fbp_is_contiguous(from)) {
        if (to->data != from->data) memcpy(to->data, from->data, (size_t)(to->numel * size));
        return;
    }
    for (int i = 0; i < to->ndim; i++) {
        to_strides[i] = fbp_strides(to)[i] * size;
        from_strides[i] = fbp_strides(from)[i] * size;
    }
    fbp_kernels->copy->strided(to->ndim, fbp_shape(to), size, to->data, to_strides, from->data, from_strides);
}

/* A tall product of few columns as its transpose, whose rows fill the vectors; then turned back.  False: no memory. */
static bool run_turned(const fbp_epilogue *e, const fbp_gemm *gemm, bool is_f32, fbp_status *status) {
    const int64_t size = is_f32 ? 4 : 8, shape[2] = {e->m, e->n}, to[2] = {e->c_row * size, size}, from[2] = {size, e->m * size};
    char *turned = fbp_scratch(FBP_SCRATCH_SUMS, (size_t)(e->m * e->n * size));
    if (!turned) return false;
    const fbp_gemm other = {.m = e->n, .n = e->m, .k = e->k, .a = gemm->b, .a_row = e->b_col, .a_col = e->b_row, .b = gemm->a,
                            .b_row = e->a_col, .b_col = e->a_row, .c = turned, .c_row = e->m, .alpha = e->alpha};
    *status = is_f32 ? fbp_kernels->gemm->f32(&other) : fbp_kernels->gemm->f64(&other);
    fbp_kernels->copy->strided(2, shape, (int)size, gemm->c, to, turned, from);
    return true;
}

static fbp_status run_product(const fbp_plan *plan, const fbp_line *line) {
    const fbp_epilogue *e = line->detail;
    const fbp_program *p = plan->program;
    const fbp_tensor *a = fbp_value_tensor(p, e->a), *b = fbp_value_tensor(p, e->b), *c = fbp_value_tensor(p, e->c);
    const fbp_gemm gemm = {.m = e->m, .n = e->n, .k = e->k, .a = a->data, .a_row = e->a_row, .a_col = e->a_col, .b = b->data,
                           .b_row = e->b_row, .b_col = e->b_col, .c = c->data, .c_row = e->c_row, .alpha = e->alpha, .beta = e->beta,
                           .bias = e->bias >= 0 ? fbp_value_tensor(p, e->bias)->data : NULL, .bias_row = e->bias_row, .bias_col = e->bias_col};
    const bool is_f32 = c->dtype == FBP_FLOAT32;
    fbp_status status = FBP_OK;
    if (e->turned && run_turned(e, &gemm, is_f32, &status)) return status != FBP_OK || !e->after ? status : fbp_chain_run(p, e->after);
    FBP_TRY(is_f32 ? fbp_kernels->gemm->f32(&gemm) : fbp_kernels->gemm->f64(&gemm));
    return e->after ? fbp_chain_run(p, e->after) : FBP_OK;
}

/* The update kernels' lists, from where the tensors lie now. */
static void list_tensors(fbp_step *step) {
    const fbp_line *line = step->line;
    int32_t at = 0;
    for (int which = 0; which < 2; which++) {
        const int32_t first = at;
        for (int32_t i = 0; i < line->count; i += FBP_UPDATE_PARTS) {
            fbp_tensor **t = &step->inputs[i];
            if (t[0]->dtype != FBP_FLOAT32 + which) continue;
            step->order[at] = i / FBP_UPDATE_PARTS;
            void *state[3];
            for (int k = 0; k < 3; k++) state[k] = t[2 + k] ? t[2 + k]->data : NULL;
            if (line->op == FBP_OP_sgd)
                ((fbp_sgd_tensor *)step->tensors)[at++] = (fbp_sgd_tensor){t[0]->numel, t[0]->data, t[1]->data, state[0], false};
            else
                ((fbp_adam_tensor *)step->tensors)[at++] =
                    (fbp_adam_tensor){t[0]->numel, t[0]->data, t[1]->data, state[0], state[1], state[2], 0};
        }
        step->counts[which] = at - first;
    }
}

static void run_update(fbp_plan *plan, const fbp_step *step) {
    const fbp_update_slot *slot = &plan->updates[step->line->slot];
    int32_t at = 0;
    for (int which = 0; which < 2; which++) {
        const int32_t count = step->counts[which], *order = step->order + at;
        const int dtype = FBP_FLOAT32 + which;
        if (!count) continue;
        if (step->line->op == FBP_OP_sgd) {
            fbp_sgd_tensor *list = (fbp_sgd_tensor *)step->tensors + at;
            for (int32_t i = 0; i < count; i++) list[i].first_step = slot->steps[order[i]] == 0;
            fbp_kernels->update->sgd_many[dtype](count, list, &slot->hyper.sgd);
        } else {
            fbp_adam_tensor *list = (fbp_adam_tensor *)step->tensors + at;
            for (int32_t i = 0; i < count; i++) list[i].step = slot->steps[order[i]] + 1;
            fbp_kernels->update->adam_many[dtype](count, list, &slot->hyper.adam);
        }
        at += count;
    }
}

static fbp_status run_loss(const fbp_plan *plan, const fbp_step *step) {
    const fbp_line *line = step->line;
    fbp_tensor *inputs[3] = {step->inputs[0], step->inputs[1], step->inputs[2]};
    const fbp_call call = {FBP_OP_cross_entropy, 2, inputs, line->attributes, line->attribute_bytes};
    return fbp_run_cross_entropy_both(&call, step->inputs[2], step->output, fbp_value_tensor(plan->program, line->output2));
}

static fbp_status run_pull(const fbp_step *step) {
    const fbp_line *line = step->line;
    static const double no_parameters[2] = {0, 0};
    const void *in[4];
    for (int i = 0; i < 4; i++) in[i] = i < line->count && step->inputs[i] ? step->inputs[i]->data : NULL;
    fbp_kernels->pointwise->pull[line->op][line->which][step->output->dtype - FBP_FLOAT32](
        step->output->numel, step->output->data, in[0], in[1], in[2], in[3], line->attributes ? line->attributes : no_parameters);
    return FBP_OK;
}

static fbp_status run_scalars(const fbp_step *step) {
    const fbp_line *line = step->line;
    const fbp_scalar_detail *detail = line->detail;
    const size_t size = (size_t)fbp_dtype_size((fbp_dtype)step->output->dtype);
    const int32_t given = line->count - line->output2;
    for (int32_t i = 0; i < given; i++) memcpy(step->output->data + (size_t)detail->slots[i] * size, step->inputs[i]->data, size);
    fbp_scalars_run(detail->scalars, step->output->data);
    for (int32_t i = given; i < line->count; i++) memcpy(step->inputs[i]->data, step->output->data + (size_t)detail->slots[i] * size, size);
    return FBP_OK;
}

fbp_status fbp_step_run(fbp_plan *plan, const fbp_step *step) {
    const fbp_line *line = step->line;
    switch (line->kind) {
        case FBP_LINE_PRODUCT: return run_product(plan, line);
        case FBP_LINE_FUSED: return fbp_chain_run(plan->program, line->detail);
        case FBP_LINE_LOSS: return run_loss(plan, step);
        case FBP_LINE_PULL: return run_pull(step);
        case FBP_LINE_WRITE: write_elements(step->output, step->inputs[0]); return FBP_OK;
        case FBP_LINE_UPDATE: run_update(plan, step); return FBP_OK;
        case FBP_LINE_SCALARS: return run_scalars(step);
        default: {
            const fbp_call call = {(fbp_op)line->op, line->count, step->inputs, line->attributes, line->attribute_bytes};
            return fbp_ops[line->op].run(&call, step->output);
        }
    }
}

/* ---- runs -------------------------------------------------------------------------------------------------------------------- */

/* Numbers that differ from run to run. */
void fbp_plan_begin(fbp_plan *plan) {
    fbp_program *p = plan->program;
    if (plan->moved) {
        for (int32_t i = 0; i < p->line_count; i++)
            if (p->lines[i].kind == FBP_LINE_UPDATE) list_tensors(&plan->steps[i]);
        plan->moved = false;
    }
    for (int32_t i = 0; i < plan->draw_count; i++) plan->draws[i].place = fbp_generator_take(plan->draws[i].generator, plan->draws[i].blocks);
    for (int32_t i = 0; p->draw_count && i < p->line_count; i++) {
        const fbp_line *line = &p->lines[i];
        if (line->kind != FBP_LINE_OP || line->slot < 0) continue;
        const fbp_draw *draw = &p->draws[line->slot];
        const fbp_generator *place = draw->generator; /* of a derivative: the place itself */
        for (int32_t k = 0; k < plan->draw_count; k++)
            if (plan->draws[k].generator == draw->generator) place = &plan->draws[k].place;
        fbp_source_attribute *source = line->attributes;
        source->seed = place->seed;
        source->offset = place->offset + draw->offset;
    }
}

void fbp_plan_end(fbp_plan *plan) {
    for (int32_t i = 0; i < plan->update_count; i++) {
        const fbp_update_slot *slot = &plan->updates[i];
        for (int32_t k = 0; k < slot->count; k++) slot->steps[k] += slot->strides[k];
    }
}

static fbp_status run_steps(fbp_plan *plan) {
    fbp_plan_begin(plan);
    const fbp_step *step = plan->steps, *end = step + plan->program->line_count;
    for (; step < end; step++) FBP_TRY(fbp_step_run(plan, step));
    fbp_plan_end(plan);
    return FBP_OK;
}

fbp_status fbp_plan_run(fbp_plan *plan) {
    int *depth = fbp_host_enter();
    const fbp_status status = run_steps(plan);
    fbp_host_leave(depth);
    return status;
}

fbp_status fbp_plan_run_timed(fbp_plan *plan, double *seconds) {
    fbp_plan_begin(plan);
    for (int32_t i = 0; i < plan->program->line_count; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        FBP_TRY(fbp_step_run(plan, &plan->steps[i]));
        clock_gettime(CLOCK_MONOTONIC, &after);
        seconds[i] += (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
    }
    fbp_plan_end(plan);
    return FBP_OK;
}

/* ---- many runs ---------------------------------------------------------------------------------------------------------------- */

static void bind_batch(fbp_plan *plan, const fbp_pass *pass, int64_t i) {
    for (int s = 0; s < pass->source_count; s++) {
        const fbp_batch_source *source = &pass->sources[s];
        if (!pass->order) {
            fbp_plan_bind(plan, source->buffer, (char *)(uintptr_t)source->rows + i * pass->batch * source->row_bytes);
            continue;
        }
        const int64_t *order = (const int64_t *)pass->order + i * pass->batch;
        const size_t bytes = (size_t)source->row_bytes;
        for (int64_t r = 0; r < pass->batch; r++) memcpy(source->batch + (size_t)r * bytes, source->rows + (size_t)order[r] * bytes, bytes);
        fbp_plan_bind(plan, source->buffer, source->batch);
    }
    for (int r = 0; r < pass->result_count; r++)
        fbp_plan_bind(plan, pass->results[r].buffer, pass->results[r].base + i * pass->results[r].bytes);
}

fbp_status fbp_plan_pass(fbp_plan *plan, const fbp_pass *pass, int64_t begin, int64_t end, int64_t *done) {
    int *depth = fbp_host_enter(); /* between its runs as well */
    fbp_status status = FBP_OK;
    for (int64_t i = begin; i < end && status == FBP_OK; i++) {
        bind_batch(plan, pass, i);
        status = plan->checked ? fbp_plan_run_checked(plan) : fbp_plan_run(plan);
        if (status == FBP_OK) ++*done;
    }
    fbp_host_leave(depth);
    return status;
}
