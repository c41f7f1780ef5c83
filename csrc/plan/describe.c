/* describe.c -- names and costs of lines. */
#include <stdio.h>
#include <string.h>

#include "plan/program.h"

typedef struct writing {
    char *text;
    int length, used;
} writing;

/* `before` stands between it and what is there, unless that ends in a space. */
static void put(writing *w, const char *before, const char *name) {
    const bool joins = w->used && w->text[w->used - 1] != ' ';
    if (w->used < w->length) w->used += snprintf(w->text + w->used, (size_t)(w->length - w->used), "%s%s", joins ? before : "", name);
}

static void put_part(writing *w, const char *before, bool again, const char *name) {
    put(w, before, again ? "again " : name);
    if (again) put(w, "", name);
}

/* `all`: the line's name says already that all of it is computed again. */
static void put_chain(writing *w, const fbp_fused *fused, bool all) {
    for (int32_t m = 0; m < fused->member_count; m++) {
        const fbp_member *member = &fused->members[m];
        char name[64];
        snprintf(name, sizeof name, member->kind == FBP_LINE_PULL ? "d%s" : "%s", fbp_ops[member->op].name);
        put_part(w, "+", member->again && !all, name);
    }
    for (int32_t t = 0; t < fused->tail_count; t++) put(w, "+", fused->tails[t].mean ? "mean" : "sum");
}

static const fbp_fused *chain_of(const fbp_line *line) {
    return line->kind == FBP_LINE_FUSED ? line->detail : line->kind == FBP_LINE_PRODUCT ? ((const fbp_epilogue *)line->detail)->after : NULL;
}

bool fbp_line_is_again(const fbp_line *line) {
    const fbp_fused *fused = chain_of(line);
    for (int32_t m = 0; fused && m < fused->member_count; m++)
        if (fused->members[m].again) return true;
    return line->again > 0;
}

/* Whether all parts of a line are computed for the second time. */
static bool all_again(const fbp_line *line) {
    const fbp_fused *fused = chain_of(line);
    for (int32_t m = 0; fused && m < fused->member_count; m++)
        if (!fused->members[m].again) return false;
    return line->again > 0;
}

void fbp_line_name(const fbp_program *program, const fbp_line *line, char *text, int length) {
    writing w = {text, length, 0};
    const bool all = all_again(line);
    (void)program;
    text[0] = 0;
    if (all) put(&w, "", "again ");
    switch (line->kind) {
        case FBP_LINE_PULL: put(&w, "", "d"), put(&w, "", fbp_ops[line->op].name); break;
        case FBP_LINE_WRITE: put(&w, "", "write"); break;
        case FBP_LINE_FUSED: put_chain(&w, line->detail, all); break;
        case FBP_LINE_LOSS: put(&w, "", "cross_entropy+grad"); break;
        case FBP_LINE_SCALARS: put(&w, "", "scalars"); break;
        case FBP_LINE_PRODUCT: {
            const fbp_epilogue *product = line->detail;
            put_part(&w, "", line->again > 0 && !all, fbp_ops[line->op].name);
            if (product->beta != 0) put(&w, "+", "accumulate");
            if (product->after) put_chain(&w, product->after, all);
            break;
        }
        default: put(&w, "", fbp_ops[line->op].name);
    }
}

static double value_bytes(const fbp_program *p, int32_t value) {
    const fbp_tensor *t = fbp_value_tensor(p, value);
    const double all = (double)t->numel * fbp_dtype_size((fbp_dtype)t->dtype), buffer = (double)fbp_value_buffer(p, value)->bytes;
    return all < buffer ? all : buffer; /* repeated elements are read once */
}

static void add_bytes(void *context, int32_t value, bool written) {
    struct { const fbp_program *p; double bytes; } *sum = context;
    (void)written;
    sum->bytes += value_bytes(sum->p, value);
}

static double chain_flops(const fbp_fused *fused) { return (double)fused->numel * (fused->member_count + fused->tail_count); }

fbp_line_cost fbp_line_cost_of(const fbp_program *program, const fbp_line *line) {
    struct { const fbp_program *p; double bytes; } sum = {program, 0};
    fbp_line_cost cost = {0, 0};
    fbp_line_touch(program, line, add_bytes, &sum);
    cost.bytes = sum.bytes;
    if (line->kind == FBP_LINE_PRODUCT) {
        const fbp_epilogue *product = line->detail;
        cost.flops = 2.0 * (double)product->m * (double)product->n * (double)product->k;
        if (product->after) cost.flops += chain_flops(product->after);
    } else if (line->kind == FBP_LINE_FUSED) {
        cost.flops = chain_flops(line->detail);
    } else if (line->kind == FBP_LINE_UPDATE) {
        for (int32_t i = 0; i < line->count; i += FBP_UPDATE_PARTS) cost.flops += (line->op == FBP_OP_adam ? 12.0 : 4.0) * (double)fbp_value_tensor(program, line->inputs[i])->numel;
    } else if (line->kind == FBP_LINE_OP && (line->op == FBP_OP_matmul || line->op == FBP_OP_linear || line->op == FBP_OP_addmm)) {
        const fbp_tensor *a = fbp_value_tensor(program, line->inputs[line->op == FBP_OP_addmm]);
        cost.flops = 2.0 * (double)fbp_value_tensor(program, line->output)->numel * (double)fbp_shape(a)[a->ndim - 1];
    } else if (line->kind == FBP_LINE_SCALARS) {
        cost.flops = (double)((const fbp_scalar_detail *)line->detail)->lines;
    } else if (line->count && line->inputs[0] >= 0 && line->kind != FBP_LINE_WRITE) {
        cost.flops = (double)fbp_value_tensor(program, line->inputs[0])->numel;
    }
    return cost;
}
