/* join.c -- products take over what happens to their results; cross entropy and its pull share one softmax.
 *
 *     C = A B; Z = tanh(C + ...)        one line: the chain runs on C while it is in the caches
 *     C = A B; D = D + C                C += A B
 */
#include <stdlib.h>
#include <string.h>

#include "plan/program.h"

/* ---- lines as products --------------------------------------------------------------------------------------------------------- */

static int64_t stride_of(const fbp_tensor *t, int from_end) { return fbp_strides(t)[t->ndim - 1 - from_end]; }
static int64_t size_of(const fbp_tensor *t, int from_end) { return fbp_shape(t)[t->ndim - 1 - from_end]; }

/* x's leading axes are the rows of one matrix. */
static bool is_matrix(const fbp_tensor *x) { return x->ndim == 2 || (x->ndim > 2 && fbp_is_contiguous(x)); }

static bool product_of(const fbp_program *p, const fbp_line *line, fbp_epilogue *product) {
    if (line->kind != FBP_LINE_OP) return false;
    const fbp_tensor *out = fbp_value_tensor(p, line->output);
    const bool addmm = line->op == FBP_OP_addmm, linear = line->op == FBP_OP_linear;
    if ((!addmm && !linear && line->op != FBP_OP_matmul) || !fbp_dtype_is_float((fbp_dtype)out->dtype) || out->numel == 0) return false;
    const int32_t a = line->inputs[addmm], b = line->inputs[1 + addmm], bias = addmm ? line->inputs[0] : linear ? line->inputs[2] : -1;
    const fbp_tensor *x = fbp_value_tensor(p, a), *y = fbp_value_tensor(p, b);
    if (!is_matrix(x) || y->ndim != 2 || !fbp_is_contiguous(out)) return false;
    *product = (fbp_epilogue){.n = size_of(out, 0), .k = size_of(x, 0), .a_row = stride_of(x, 1), .a_col = stride_of(x, 0),
                              .b_row = stride_of(y, linear ? 0 : 1), .b_col = stride_of(y, linear ? 1 : 0), .c_row = size_of(out, 0),
                              .a = a, .b = b, .c = line->output, .bias = bias, .alpha = 1.0};
    product->m = out->numel / product->n;
    if (product->k == 0) return false;
    if (bias < 0) return true;
    const fbp_tensor *v = fbp_value_tensor(p, bias);
    if (addmm) {
        const fbp_scalar_attribute *factor = line->attributes;
        if (factor->p[0] != 1.0) return false;
        product->alpha = factor->p[1];
        product->bias_row = v->ndim == 2 && fbp_shape(v)[0] != 1 ? fbp_strides(v)[0] : 0;
    }
    product->bias_col = v->ndim >= 1 && size_of(v, 0) != 1 ? stride_of(v, 0) : linear ? 1 : 0;
    return true;
}

/* ---- what follows a product -------------------------------------------------------------------------------------------------------- */

typedef struct joining {
    fbp_program *program;
    int32_t *written; /* per buffer: its line when written once, -1 when never, INT32_MAX when more than once */
    int32_t *readers; /* per buffer: lines that read it */
    int32_t *last;    /* per buffer: the last line that reads it */
    int32_t line;
} joining;

static void note(void *context, int32_t value, bool written) {
    joining *j = context;
    const int32_t buffer = j->program->values[value].buffer;
    if (written) {
        j->written[buffer] = j->written[buffer] == -1 || j->written[buffer] == j->line ? j->line : INT32_MAX;
    } else if (j->last[buffer] != j->line) {
        j->last[buffer] = j->line;
        j->readers[buffer]++;
    }
}

static bool is_fresh(const fbp_program *p, int32_t value) {
    const fbp_buffer *b = fbp_value_buffer(p, value);
    return b->writes == 1 && (b->kind == FBP_BUFFER_ARENA || b->kind == FBP_BUFFER_RESULT || b->kind == FBP_BUFFER_GRADIENT);
}

/* What a chain at line `chain_at` reads of a buffer stands there at line `at` already. */
static bool is_ready(const joining *j, int32_t buffer, int32_t at, int32_t chain_at) {
    return j->written[buffer] < at || (j->written[buffer] > chain_at && j->written[buffer] != INT32_MAX);
}

/* Whether a chain can run where the product does: all else that it reads is there, and it writes nothing that others look at before. */
static bool can_follow(const joining *j, const fbp_fused *fused, int32_t at, int32_t chain_at, int32_t c_buffer) {
    const fbp_program *p = j->program;
    bool reads_c = false;
    for (int32_t m = 0; m < fused->member_count; m++) {
        const fbp_member *member = &fused->members[m];
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) {
            const fbp_operand *o = &member->operand[k];
            if (o->value < 0 || o->look == FBP_LOOK_REGISTER) continue;
            const int32_t buffer = p->values[o->value].buffer;
            if (buffer == c_buffer) {
                if (o->look != FBP_LOOK_FULL) return false;
                reads_c = true;
            } else if (!is_ready(j, buffer, at, chain_at)) {
                bool own = false; /* stored by an earlier member of this same chain */
                for (int32_t e = 0; e < m; e++) own |= fused->members[e].stores && p->values[fused->members[e].output].buffer == buffer;
                if (!own) return false;
            }
        }
        if (member->stores && !is_fresh(p, member->output)) return false;
    }
    for (int32_t t = 0; t < fused->tail_count; t++)
        if (!is_fresh(p, fused->tails[t].output)) return false;
    return reads_c;
}

/* add(C, D) with D at its last use: C is summed into D's memory. */
static bool accumulates(const joining *j, fbp_epilogue *product, const fbp_fused *fused, int32_t at, int32_t chain_at) {
    fbp_program *p = j->program;
    const fbp_member *member = &fused->members[0];
    if (!fbp_value_may_regroup(p, member->output)) return false;
    if (fused->member_count != 1 || fused->tail_count || member->kind != FBP_LINE_OP || member->op != FBP_OP_add) return false;
    const int32_t c = p->values[product->c].buffer;
    const int which = p->values[member->operand[0].value].buffer == c ? 1 : 0;
    const fbp_operand *other = &member->operand[which];
    const int32_t d = p->values[other->value].buffer, out = p->values[member->output].buffer;
    if (member->operand[1 - which].value < 0 || p->values[member->operand[1 - which].value].buffer != c || d == c) return false;
    const int32_t operands[3] = {product->a, product->b, product->bias};
    for (int i = 0; i < 3; i++) /* the product must not write what it reads */
        if (operands[i] >= 0 && p->values[operands[i]].buffer == d) return false;
    if (other->look != FBP_LOOK_FULL || product->bias >= 0 || j->readers[c] != 1 ||
        !(is_ready(j, d, at, chain_at) || (out == d && j->written[d] == chain_at)))
        return false;
    for (int32_t i = at + 1; i < chain_at; i++)
        if (p->lines[i].kind != FBP_LINE_NONE && fbp_line_reads(p, &p->lines[i], d)) return false;
    if (p->buffers[c].kind != FBP_BUFFER_ARENA || p->buffers[c].keep) return false;
    if (out == d) { /* already in place: a gradient from outside */
        if (p->values[member->output].offset != p->values[other->value].offset) return false;
    } else {
        if (p->buffers[d].kind != FBP_BUFFER_ARENA || p->buffers[d].writes != 1 || p->buffers[d].keep || j->last[d] != chain_at ||
            !fbp_value_is_whole(p, other->value) || !is_fresh(p, member->output) || !fbp_value_is_whole(p, member->output))
            return false;
        fbp_program_merge(p, d, out, 0);
        if (j->written[d] >= 0) j->written[out] = INT32_MAX;
    }
    product->c = member->output;
    product->beta = 1.0;
    return true;
}

/* A chain that is computed again, which lines between keep from moving up to the product: there it would come too early. */
static bool waits(const fbp_program *p, const fbp_line *product, int32_t at, int32_t chain_at) {
    const int32_t again = p->lines[chain_at].again;
    if (!again || again == product->again) return false;
    for (int32_t i = at + 1; i < chain_at; i++)
        if (p->lines[i].kind != FBP_LINE_NONE && p->lines[i].again != again) return true;
    return false;
}

static fbp_status join_product(joining *j, int32_t at) {
    fbp_program *p = j->program;
    fbp_epilogue found;
    if (!product_of(p, &p->lines[at], &found)) return FBP_OK;
    fbp_epilogue *product = fbp_program_get(p, sizeof *product);
    if (!product) return FBP_ERROR_MEMORY;
    *product = found;
    fbp_line *line = &p->lines[at];
    const int32_t c = p->values[product->c].buffer;
    line->kind = FBP_LINE_PRODUCT;
    line->detail = product;
    if (!is_fresh(p, product->c) || !fbp_value_is_whole(p, product->c)) return FBP_OK;
    for (int32_t i = at + 1; i < p->line_count && i < at + 64; i++) {
        fbp_line *next = &p->lines[i];
        if (next->kind == FBP_LINE_NONE || !fbp_line_reads(p, next, c)) continue;
        if (next->kind != FBP_LINE_FUSED || waits(p, line, at, i)) continue;
        fbp_fused *fused = next->detail;
        if (accumulates(j, product, fused, at, i)) {
            line->output = product->c;
            next->kind = FBP_LINE_NONE;
            return FBP_OK;
        }
        if (fused->numel != product->m * product->n || !can_follow(j, fused, at, i, c)) continue;
        product->after = fused;
        next->kind = FBP_LINE_NONE;
        for (int32_t m = 0; m < fused->member_count; m++)
            if (fused->members[m].stores) j->written[p->values[fused->members[m].output].buffer] = at;
        for (int32_t t = 0; t < fused->tail_count; t++) j->written[p->values[fused->tails[t].output].buffer] = at;
        return FBP_OK;
    }
    return FBP_OK;
}

/* ---- cross entropy -------------------------------------------------------------------------------------------------------------------- */

static void join_loss(const joining *j, int32_t at) {
    fbp_program *p = j->program;
    fbp_line *loss = &p->lines[at];
    if (loss->kind != FBP_LINE_OP || loss->op != FBP_OP_cross_entropy || loss->count != 2) return;
    for (int32_t i = at + 1; i < p->line_count; i++) {
        fbp_line *pull = &p->lines[i];
        if (pull->kind != FBP_LINE_OP || pull->op != FBP_OP_cross_entropy_grad || pull->inputs[1] != loss->inputs[0] ||
            pull->inputs[2] != loss->inputs[1] || memcmp(pull->attributes, loss->attributes, (size_t)loss->attribute_bytes) != 0)
            continue;
        const int32_t cotangent = p->values[pull->inputs[0]].buffer, logits = p->values[loss->inputs[0]].buffer;
        if (!is_fresh(p, pull->output) || j->written[cotangent] >= at || j->written[logits] == INT32_MAX) return;
        int32_t *inputs = fbp_program_get(p, 3 * sizeof *inputs);
        if (!inputs) return; /* two lines serve as well */
        memcpy(inputs, (const int32_t[]){loss->inputs[0], loss->inputs[1], pull->inputs[0]}, 3 * sizeof *inputs);
        loss->kind = FBP_LINE_LOSS;
        loss->count = 3;
        loss->inputs = inputs;
        loss->output2 = pull->output;
        pull->kind = FBP_LINE_NONE;
        return;
    }
}

fbp_status fbp_program_join(fbp_program *program) {
    const size_t buffers = (size_t)program->buffer_count;
    int32_t *marks = malloc((3 * buffers + 1) * sizeof *marks);
    if (!marks) return fbp_fail(FBP_ERROR_MEMORY, "join: cannot allocate a list");
    joining j = {program, marks, marks + buffers, marks + 2 * buffers, 0};
    for (size_t i = 0; i < buffers; i++) {
        j.written[i] = j.last[i] = -1;
        j.readers[i] = 0;
    }
    for (j.line = 0; j.line < program->line_count; j.line++) fbp_line_touch(program, &program->lines[j.line], note, &j);
    fbp_status status = FBP_OK;
    for (int32_t i = 0; i < program->line_count && status == FBP_OK; i++) {
        status = join_product(&j, i);
        join_loss(&j, i);
    }
    free(marks);
    fbp_program_compact(program);
    fbp_program_count_writes(program);
    return status;
}
