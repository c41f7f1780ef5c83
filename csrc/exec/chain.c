/* chain.c -- members one after the other over a block, blocks one after the other over the arrays.
 *
 * A block holds FBP_BLOCK_BYTES of the widest type: registers and what is read and written meanwhile stay in the first-level cache.
 * Where operands repeat by rows, blocks are whole rows, or pieces of one.  Every element, and every block's sum, is computed by one
 * thread in one way, so results do not depend on their number.
 */
#include "exec/chain.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "kernels/split.h"

enum { INSIDE = 6 /* registers and stages that the stack has room for */ };

typedef struct chain_job {
    const fbp_program *program;
    const fbp_fused *fused;
    int64_t block, blocks, pieces; /* elements of a block; blocks; pieces of a row where one is longer than a block */
    int64_t end;                   /* one past the last element */
    char *sums[4];                 /* of each tail over everything: a partial sum a block */
    bool failed;
} chain_job;

static void call_member(const fbp_member *m, int64_t n, void *out, const void *const *in) {
    const double *p = m->parameters;
    if (m->kind == FBP_LINE_PULL) {
        fbp_kernels->pointwise->pull[m->op][m->which][m->dtype - FBP_FLOAT32](n, out, in[0], in[1], in[2], in[3], p);
    } else if (m->op == FBP_OP_where) {
        const int size = fbp_dtype_size((fbp_dtype)m->dtype);
        fbp_kernels->integer->where[size == 1 ? 0 : size == 4 ? 1 : 2](n, out, in[0], in[1], in[2]);
    } else if (fbp_ops[m->op].class == FBP_CLASS_PREDICATE) {
        fbp_kernels->integer->forward[m->op][m->dtype](n, out, in[0], in[1], p);
    } else {
        fbp_kernels->pointwise->forward[m->op][m->dtype - FBP_FLOAT32](n, out, in[0], in[1], p);
    }
}

/* First element and length of a block. */
static int64_t block_range(const chain_job *job, int64_t b, int64_t *n) {
    const int64_t inner = job->fused->inner;
    if (job->pieces) {
        const int64_t row = b / job->pieces, at = b % job->pieces * job->block;
        *n = inner - at < job->block ? inner - at : job->block;
        return row * inner + at;
    }
    const int64_t begin = b * job->block;
    *n = job->end - begin < job->block ? job->end - begin : job->block;
    return begin;
}

static char *data_of(const fbp_program *p, int32_t value) { return p->values[value].tensor->data; }

/* Stages that are the same for every block. */
static void fill_stages(const chain_job *job, char *stages) {
    const fbp_fused *f = job->fused;
    const int64_t most = job->end < job->block ? job->end : job->block;
    for (int32_t k = 0; k < f->stage_count; k++) {
        const fbp_operand *o = &f->stages[k];
        const int size = fbp_dtype_size((fbp_dtype)o->dtype);
        char *to = stages + (int64_t)k * FBP_BLOCK_BYTES;
        if (o->look == FBP_LOOK_SCALAR) fbp_kernels->copy->fill(most, size, to, data_of(job->program, o->value));
        if (o->look == FBP_LOOK_ROW && !job->pieces)
            for (int64_t at = 0; at < most; at += f->inner) memcpy(to + at * size, data_of(job->program, o->value), (size_t)(f->inner * size));
    }
}

/* Stages of kept reductions: each row's element along it. */
static void fill_columns(const chain_job *job, char *stages, int64_t begin, int64_t n) {
    const fbp_fused *f = job->fused;
    for (int32_t k = 0; k < f->stage_count; k++) {
        const fbp_operand *o = &f->stages[k];
        if (o->look != FBP_LOOK_COLUMN) continue;
        const int size = fbp_dtype_size((fbp_dtype)o->dtype);
        const char *from = data_of(job->program, o->value) + begin / f->inner * size;
        char *to = stages + (int64_t)k * FBP_BLOCK_BYTES;
        if (job->pieces) fbp_kernels->copy->fill(n, size, to, from);
        else
            for (int64_t at = 0; at < n; at += f->inner, from += size) fbp_kernels->copy->fill(f->inner, size, to + at * size, from);
    }
}

static const void *operand_at(const chain_job *job, const fbp_operand *o, int64_t begin, const char *registers, const char *stages) {
    if (o->value < 0) return NULL;
    const int size = fbp_dtype_size((fbp_dtype)o->dtype);
    switch (o->look) {
        case FBP_LOOK_REGISTER: return registers + (int64_t)o->place * FBP_BLOCK_BYTES;
        case FBP_LOOK_FULL: return data_of(job->program, o->value) + begin * size;
        case FBP_LOOK_ROW:
            if (job->pieces) return data_of(job->program, o->value) + begin % job->fused->inner * size;
            return stages + (int64_t)o->place * FBP_BLOCK_BYTES;
        default: return stages + (int64_t)o->place * FBP_BLOCK_BYTES;
    }
}

static char *member_at(const chain_job *job, const fbp_member *m, int64_t begin, char *registers) {
    if (m->place >= 0) return registers + (int64_t)m->place * FBP_BLOCK_BYTES;
    const fbp_tensor *out = fbp_value_tensor(job->program, m->output);
    return out->data + begin * fbp_dtype_size((fbp_dtype)out->dtype);
}

static void run_tails(const chain_job *job, int64_t b, int64_t begin, int64_t n, char *registers) {
    const fbp_fused *f = job->fused;
    for (int32_t t = 0; t < f->tail_count; t++) {
        const fbp_tail *tail = &f->tails[t];
        const fbp_tensor *out = fbp_value_tensor(job->program, tail->output);
        const int size = fbp_dtype_size((fbp_dtype)out->dtype);
        const char *x = member_at(job, &f->members[tail->member], begin, registers);
        if (tail->rows)
            (tail->mean ? fbp_kernels->reduce->mean : fbp_kernels->reduce->sum)[out->dtype](out->data + begin / f->inner * size, x, n / f->inner,
                                                                                            f->inner, 1);
        else if (job->blocks == 1) (tail->mean ? fbp_kernels->reduce->mean : fbp_kernels->reduce->sum)[out->dtype](out->data, x, 1, n, 1);
        else fbp_kernels->reduce->sum[out->dtype](job->sums[t] + b * size, x, 1, n, 1);
    }
}

static void run_blocks(void *context, int64_t begin_block, int64_t end_block) {
    chain_job *job = context;
    const fbp_fused *f = job->fused;
    _Alignas(FBP_ALIGNMENT) char inside[INSIDE * FBP_BLOCK_BYTES];
    const int32_t needed = f->register_count + f->stage_count;
    char *registers = needed <= INSIDE ? inside : fbp_scratch(FBP_SCRATCH_CHAIN, (size_t)needed * FBP_BLOCK_BYTES);
    if (!registers) {
        __atomic_store_n(&job->failed, true, __ATOMIC_RELAXED);
        return;
    }
    char *stages = registers + (int64_t)f->register_count * FBP_BLOCK_BYTES;
    if (f->stage_count) fill_stages(job, stages);
    for (int64_t b = begin_block; b < end_block; b++) {
        int64_t n, begin = block_range(job, b, &n);
        if (f->has_rows && f->stage_count) fill_columns(job, stages, begin, n);
        for (int32_t m = 0; m < f->member_count; m++) {
            const fbp_member *member = &f->members[m];
            const void *in[FBP_MEMBER_OPERANDS];
            for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) in[k] = operand_at(job, &member->operand[k], begin, registers, stages);
            call_member(member, n, member_at(job, member, begin, registers), in);
        }
        if (f->tail_count) run_tails(job, b, begin, n, registers);
    }
}

static chain_job make_job(const fbp_program *program, const fbp_fused *f) {
    const int64_t most = FBP_BLOCK_BYTES / fbp_dtype_size((fbp_dtype)f->dtype);
    chain_job job = {.program = program, .fused = f, .block = most, .end = f->numel};
    if (f->has_rows && f->inner > most) {
        job.pieces = (f->inner + most - 1) / most;
        job.blocks = f->numel / f->inner * job.pieces;
        return job;
    }
    if (f->has_rows) job.block = most / f->inner * f->inner;
    job.blocks = (f->numel + job.block - 1) / job.block;
    return job;
}

/* Sums of blocks into the results. */
static void finish_tails(const chain_job *job) {
    const fbp_fused *f = job->fused;
    for (int32_t t = 0; t < f->tail_count && job->blocks > 1; t++) {
        const fbp_tensor *out = fbp_value_tensor(job->program, f->tails[t].output);
        if (f->tails[t].rows) continue;
        fbp_kernels->reduce->sum[out->dtype](out->data, job->sums[t], 1, job->blocks, 1);
        if (!f->tails[t].mean) continue;
        if (out->dtype == FBP_FLOAT32) *(float *)(void *)out->data /= (float)f->numel;
        else *(double *)(void *)out->data /= (double)f->numel;
    }
}

fbp_status fbp_chain_run(const fbp_program *program, const fbp_fused *f) {
    if (f->member_count == 1 && !f->tail_count && !f->stage_count && f->numel <= FBP_BLOCK_BYTES) { /* one kernel call */
        const fbp_member *m = &f->members[0];
        const void *in[FBP_MEMBER_OPERANDS];
        for (int k = 0; k < FBP_MEMBER_OPERANDS; k++) in[k] = m->operand[k].value < 0 ? NULL : data_of(program, m->operand[k].value);
        call_member(m, f->numel, data_of(program, m->output), in);
        return FBP_OK;
    }
    chain_job job = make_job(program, f);
    if (f->tail_count && job.blocks > 1) {
        const size_t bytes = ((size_t)job.blocks * sizeof(double) + FBP_ALIGNMENT - 1) / FBP_ALIGNMENT * FBP_ALIGNMENT;
        char *sums = fbp_scratch(FBP_SCRATCH_SUMS, 4 * bytes);
        if (!sums) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate the sums of %lld blocks", (long long)job.blocks);
        for (int t = 0; t < 4; t++) job.sums[t] = sums + (size_t)t * bytes;
    }
    fbp_split(job.blocks, f->nanoseconds, run_blocks, &job);
    if (job.failed) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate %d registers of a chain", f->register_count);
    finish_tails(&job);
    return FBP_OK;
}
