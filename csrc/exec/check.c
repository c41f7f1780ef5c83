/* check.c -- FASTBP_CHECK=1: every line twice, on the kernels in force and on the scalar ones, and the first difference named. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exec/run.h"
#include "kernels/kernels.h"

/* What a line writes, each once, with room for it as it was before and as the first of the two runs left it. */
typedef struct written {
    const fbp_program *program;
    int32_t count, capacity;
    struct part { int32_t value; char *before, *first; int64_t bytes; } *parts;
    bool failed;
} written;

static void gather(void *context, int32_t value, bool is_written) {
    written *w = context;
    if (!is_written) return;
    const fbp_tensor *t = fbp_value_tensor(w->program, value);
    const fbp_buffer *b = fbp_value_buffer(w->program, value);
    for (int32_t i = 0; i < w->count; i++)
        if (w->parts[i].value == value) return;
    if (w->count == w->capacity) {
        int32_t capacity = w->capacity ? 2 * w->capacity : 8;
        struct part *larger = realloc(w->parts, (size_t)capacity * sizeof *larger);
        if (!larger) {
            w->failed = true;
            return;
        }
        w->parts = larger;
        w->capacity = capacity;
    }
    int64_t bytes = fbp_is_contiguous(t) ? t->numel * fbp_dtype_size((fbp_dtype)t->dtype) : b->bytes - w->program->values[value].offset;
    struct part part = {value, malloc((size_t)bytes + 1), malloc((size_t)bytes + 1), bytes};
    if (part.before && part.first) memcpy(part.before, t->data, (size_t)bytes);
    else w->failed = true;
    w->parts[w->count++] = part;
}

static void forget(written *w) {
    for (int32_t i = 0; i < w->count; i++) {
        free(w->parts[i].before);
        free(w->parts[i].first);
    }
    free(w->parts);
}

static double element(const char *data, int dtype, int64_t i) {
    switch (dtype) {
        case FBP_FLOAT32: return (double)((const float *)(const void *)data)[i];
        case FBP_FLOAT64: return ((const double *)(const void *)data)[i];
        case FBP_INT64: return (double)((const int64_t *)(const void *)data)[i];
        case FBP_INT32: return (double)((const int32_t *)(const void *)data)[i];
        default: return (double)((const uint8_t *)data)[i];
    }
}

/* Largest difference over what rounding may do: a line of up to some thousand terms, relative to the largest element. */
static double excess(const struct part *part, const fbp_tensor *t) {
    const double epsilon = t->dtype == FBP_FLOAT32 ? 0x1p-23 : t->dtype == FBP_FLOAT64 ? 0x1p-52 : 0;
    const int64_t n = part->bytes / fbp_dtype_size((fbp_dtype)t->dtype);
    double largest = 1, difference = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = element(part->first, t->dtype, i), b = element(t->data, t->dtype, i);
        if (isnan(a) && isnan(b)) continue;
        if (isinf(a) || isinf(b) || isnan(a) || isnan(b)) {
            if (!(a == b)) return INFINITY;
            continue;
        }
        if (fabs(b) > largest) largest = fabs(b);
        if (fabs(a - b) > difference) difference = fabs(a - b);
    }
    return difference == 0 ? 0 : difference / (4096 * epsilon * largest);
}

static fbp_status compare(const fbp_plan *plan, int32_t number, const written *w) {
    const fbp_program *p = plan->program;
    for (int32_t i = 0; i < w->count; i++) {
        const fbp_tensor *t = fbp_value_tensor(p, w->parts[i].value);
        double over = excess(&w->parts[i], t);
        if (over <= 1) continue;
        char name[96];
        fbp_line_name(p, &p->lines[number], name, sizeof name);
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: step %d of the plan, %s, gives %s %s by the kernels in force that differ from those of "
                        "the scalar kernels by %.3g of what is allowed", number, name, fbp_dtype_name((fbp_dtype)t->dtype), fbp_tensor_shape_text(t), over);
    }
    return FBP_OK;
}

static fbp_status check_step(fbp_plan *plan, int32_t number, written *w) {
    const fbp_program *p = plan->program;
    const fbp_step *step = &plan->steps[number];
    const char *isa = fbp_kernels->isa;
    fbp_line_touch(p, step->line, gather, w);
    if (w->failed) return fbp_fail(FBP_ERROR_MEMORY, "FASTBP_CHECK: cannot allocate copies");
    FBP_TRY(fbp_step_run(plan, step));
    for (int32_t i = 0; i < w->count; i++) {
        struct part *part = &w->parts[i];
        char *data = fbp_value_tensor(p, part->value)->data;
        memcpy(part->first, data, (size_t)part->bytes);
    }
    for (int32_t i = 0; i < w->count; i++) memcpy(fbp_value_tensor(p, w->parts[i].value)->data, w->parts[i].before, (size_t)w->parts[i].bytes);
    FBP_TRY(fbp_kernels_select("scalar"));
    fbp_status status = fbp_step_run(plan, step), back = fbp_kernels_select(isa);
    if (status == FBP_OK) status = compare(plan, number, w);
    for (int32_t i = 0; i < w->count; i++) memcpy(fbp_value_tensor(p, w->parts[i].value)->data, w->parts[i].first, (size_t)w->parts[i].bytes);
    return status != FBP_OK ? status : back;
}

fbp_status fbp_plan_run_checked(fbp_plan *plan) {
    fbp_plan_begin(plan);
    for (int32_t i = 0; i < plan->program->line_count; i++) {
        written w = {.program = plan->program};
        fbp_status status = check_step(plan, i, &w);
        forget(&w);
        FBP_TRY(status);
    }
    fbp_plan_end(plan);
    return FBP_OK;
}
