/* check.c -- FASTBP_CHECK=1: every step twice, on the kernels in force and on the scalar ones, and the first difference named.
 *
 * Both runs have the plan's addresses and strides: what is wrong in those is replay.h's to find.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exec/replay.h"
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

double fbp_elements_largest(int dtype, int64_t n, const char *data) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double one = fabs(element(data, dtype, i));
        if (one > largest && !isinf(one)) largest = one;
    }
    return largest;
}

fbp_discrepancy fbp_elements_compare(int dtype, int64_t n, const char *a, const char *b, double scale) {
    /* Sums over up to some thousand terms may be taken in another order. */
    const double epsilon = dtype == FBP_FLOAT32 ? 0x1p-23 : dtype == FBP_FLOAT64 ? 0x1p-52 : 0;
    fbp_discrepancy d = {0, 0};
    if (epsilon == 0) {
        if (memcmp(a, b, (size_t)(n * fbp_dtype_size((fbp_dtype)dtype))) != 0) d.difference = INFINITY;
        return d;
    }
    for (int64_t i = 0; i < n; i++) {
        const double x = element(a, dtype, i), y = element(b, dtype, i);
        if (x == y || (isnan(x) && isnan(y))) continue;
        const double difference = fabs(x - y);
        d.difference = isnan(difference) ? INFINITY : fmax(d.difference, difference);
    }
    d.allowed = 4096 * epsilon * fmax(scale, fmax(fbp_elements_largest(dtype, n, a), fbp_elements_largest(dtype, n, b)));
    return d;
}

/* Of the scalar kernels and those in force: other orders of sums in each line, of terms that are not seen here, hence at least of 1. */
static fbp_status compare(const fbp_plan *plan, int32_t number, const written *w) {
    const fbp_program *p = plan->program;
    for (int32_t i = 0; i < w->count; i++) {
        const struct part *part = &w->parts[i];
        const fbp_tensor *t = fbp_value_tensor(p, part->value);
        const fbp_discrepancy d = fbp_elements_compare(t->dtype, part->bytes / fbp_dtype_size((fbp_dtype)t->dtype), part->first, t->data, 1);
        if (d.difference <= d.allowed) continue;
        char name[96];
        fbp_line_name(p, &p->lines[number], name, sizeof name);
        return fbp_fail(FBP_ERROR_RUNTIME, "FASTBP_CHECK: step %d of the plan, %s, gives %s %s by the kernels in force that differ from those of "
                        "the scalar kernels by %.3g; %.3g is allowed", number, name, fbp_dtype_name((fbp_dtype)t->dtype), fbp_tensor_shape_text(t),
                        d.difference, d.allowed);
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
