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
    double read;  /* the largest element that it reads */
    bool failed;
} written;

static void gather(void *context, int32_t value, bool is_written) {
    written *w = context;
    if (!is_written) {
        w->read = fmax(w->read, fbp_tensor_largest(fbp_value_tensor(w->program, value)));
        return;
    }
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

double fbp_tensor_largest(const fbp_tensor *t) {
    int64_t at[FBP_MAX_NDIM] = {0}, offset = 0;
    double largest = 0;
    for (int64_t i = 0; i < t->numel; i++) {
        const double one = fabs(element(t->data, t->dtype, offset));
        if (one > largest && !isinf(one)) largest = one;
        for (int axis = t->ndim - 1; axis >= 0; axis--) { /* the next element */
            offset += fbp_strides(t)[axis];
            if (++at[axis] < fbp_shape(t)[axis]) break;
            offset -= fbp_shape(t)[axis] * fbp_strides(t)[axis];
            at[axis] = 0;
        }
    }
    return largest;
}

/* 4096 roundings are what sums over up to some thousand terms may differ by in another order. */
fbp_discrepancy fbp_elements_compare(int dtype, int64_t n, const char *a, const char *b, double scale) {
    const double epsilon = dtype == FBP_FLOAT32 ? 0x1p-23 : dtype == FBP_FLOAT64 ? 0x1p-52 : 0;
    fbp_discrepancy d = {0, 0};
    if (epsilon == 0) {
        if (memcmp(a, b, (size_t)(n * fbp_dtype_size((fbp_dtype)dtype))) != 0) d.difference = INFINITY;
        return d;
    }
    for (int64_t i = 0; i < n; i++) {
        const double x = element(a, dtype, i), y = element(b, dtype, i);
        if (!isinf(x)) scale = fmax(scale, fabs(x)); /* fmax leaves a NaN out */
        if (!isinf(y)) scale = fmax(scale, fabs(y));
        if (x == y || (isnan(x) && isnan(y))) continue;
        const double difference = fabs(x - y);
        d.difference = isnan(difference) ? INFINITY : fmax(d.difference, difference);
    }
    d.allowed = 4096 * epsilon * scale;
    return d;
}

/* At least this large a part's largest element is taken to be.  Sums may cancel, and are then as far apart as roundings of their terms,
 * which are among what the step reads.  The terms of a sum that rides along in a chain differ, too, since both runs have kernels of
 * their own for them: n of them leave about sqrt(n) roundings. */
static double scale_of(const fbp_line *line, int32_t value, double read) {
    const fbp_epilogue *product = line->kind == FBP_LINE_PRODUCT ? line->detail : NULL;
    const fbp_fused *fused = product ? product->after : line->kind == FBP_LINE_FUSED ? line->detail : NULL;
    for (int32_t i = 0; fused && i < fused->tail_count; i++)
        if (fused->tails[i].output == value)
            return fmax(1, read) * sqrt((double)(fused->tails[i].rows ? fused->inner : fused->numel));
    return line->kind == FBP_LINE_OP && fbp_ops[line->op].class == FBP_CLASS_LINEAR ? fmax(1, read) : 1;
}

static fbp_status compare(const fbp_plan *plan, int32_t number, const written *w) {
    const fbp_program *p = plan->program;
    for (int32_t i = 0; i < w->count; i++) {
        const struct part *part = &w->parts[i];
        const fbp_tensor *t = fbp_value_tensor(p, part->value);
        const fbp_discrepancy d = fbp_elements_compare(t->dtype, part->bytes / fbp_dtype_size((fbp_dtype)t->dtype), part->first, t->data,
                                                       scale_of(&p->lines[number], part->value, w->read));
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
