/* pointwise.c -- shapes, types and the loop over operands for every elementwise row.
 *
 * Kernels see contiguous arrays only.  An operand of another layout is either walked row by row (long
 * inner rows), or staged: a contiguous copy in its broadcast shape is made first.
 */
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "ops/op.h"

enum { OPERANDS = 3, STAGE_BYTES = 4096, ROW_MIN = 64 };

static fbp_dtype default_dtype = FBP_FLOAT32;

fbp_dtype fbp_default_dtype(void) { return default_dtype; }

fbp_status fbp_default_dtype_set(fbp_dtype dtype) {
    if (!fbp_dtype_is_float(dtype))
        return fbp_fail(FBP_ERROR_TYPE, "only floating-point types are supported as the default type, got %s", fbp_dtype_name(dtype));
    default_dtype = dtype;
    return FBP_OK;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* The type of a stronger category joined with a weaker one's: only a higher kind (float over integer over
 * bool) lets the weaker change it.  -1 is "no operand of this category". */
static int join_categories(int stronger, int weaker) {
    if (stronger < 0) return weaker;
    if (weaker < 0 || fbp_dtype_is_float((fbp_dtype)stronger)) return stronger;
    if (stronger == FBP_BOOL || fbp_dtype_is_float((fbp_dtype)weaker)) return weaker > stronger ? weaker : stronger;
    return stronger;
}

fbp_status fbp_compute_dtype(const fbp_call *call, fbp_dtype *dtype) {
    const fbp_op_row *row = &fbp_ops[call->op];
    /* PyTorch's three categories: arrays, 0-d tensors, bare numbers. */
    int category[3] = {-1, -1, -1};
    for (int i = call->op == FBP_OP_where; i < call->count; i++) {
        const fbp_tensor *x = call->inputs[i];
        int *best = &category[x->flags & FBP_NUMBER ? 2 : x->ndim == 0 ? 1 : 0];
        if ((int)x->dtype > *best) *best = x->dtype;
    }
    int result = join_categories(category[0], join_categories(category[1], category[2]));
    if (row->kind == FBP_KIND_F && !fbp_dtype_is_float((fbp_dtype)result)) result = default_dtype;
    if (row->kind == FBP_KIND_I && fbp_dtype_is_float((fbp_dtype)result))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: only integer and bool tensors have bits, got %s", row->name,
                        fbp_dtype_name((fbp_dtype)result));
    if (result == FBP_BOOL && (call->op == FBP_OP_sub || call->op == FBP_OP_neg))
        return fbp_fail(FBP_ERROR_RUNTIME,
                        "%s: not supported for bool tensors; use logical_not() or bitwise_xor() instead", row->name);
    *dtype = (fbp_dtype)result;
    return FBP_OK;
}

fbp_status fbp_infer_pointwise(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    (void)is_view;
    const fbp_op_row *row = &fbp_ops[call->op];
    const fbp_tensor *first = call->inputs[0];
    int ndim = first->ndim;
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(first), (size_t)ndim * sizeof *shape);
    for (int i = 1; i < call->count; i++) {
        const fbp_tensor *x = call->inputs[i];
        if (fbp_same_shape(x, first)) continue;
        if (!fbp_broadcast(&ndim, shape, x->ndim, fbp_shape(x)))
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: shapes %s and %s cannot be broadcast together; sizes must agree or be 1", row->name,
                            fbp_shape_text(ndim, shape), fbp_tensor_shape_text(x));
    }
    fbp_dtype dtype = call->inputs[call->op == FBP_OP_where ? 1 : 0]->dtype; /* inputs were cast to one type above */
    return fbp_layout_contiguous(layout, row->class == FBP_CLASS_PREDICATE ? FBP_BOOL : dtype, ndim, shape);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* One elementwise job over contiguous operands. */
typedef struct elementwise {
    const fbp_op_row *row;
    fbp_forward_fn forward; /* NULL for where */
    void (*where)(int64_t, void *, const uint8_t *, const void *, const void *);
    const double *parameters;
    char *out;
    const char *operand[OPERANDS];
    int out_size, size[OPERANDS]; /* of an element */
    bool normalise_bool;
} elementwise;

static void run_range(void *context, int64_t begin, int64_t end) {
    const elementwise *job = context;
    int64_t n = end - begin;
    char *out = job->out + begin * job->out_size;
    const char *operand[OPERANDS];
    for (int i = 0; i < OPERANDS; i++) operand[i] = job->operand[i] ? job->operand[i] + begin * job->size[i] : NULL;
    if (job->where) job->where(n, out, (const uint8_t *)operand[0], operand[1], operand[2]);
    else job->forward(n, out, operand[0], operand[1], job->parameters);
    if (job->normalise_bool)
        for (int64_t i = 0; i < n; i++) out[i] = out[i] != 0;
}

/* Rough cost of an element on one core, for the decision to use threads. */
static double nanoseconds_per_element(const fbp_op_row *row) { return row->kind == FBP_KIND_F ? 0.3 : 0.1; }

static void run_contiguous(elementwise *job, int64_t n) {
    if (n < 16384) run_range(job, 0, n);
    else fbp_parallel(n, fbp_grain(n, (double)n * nanoseconds_per_element(job->row)), run_range, job);
}

/* Strides of x read under the broadcast shape of out, in elements. */
static void broadcast_strides(const fbp_tensor *x, const fbp_tensor *out, int64_t *strides) {
    int lead = out->ndim - x->ndim;
    for (int i = 0; i < out->ndim; i++)
        strides[i] = i < lead || fbp_shape(x)[i - lead] == 1 ? 0 : fbp_strides(x)[i - lead];
}

/* A contiguous copy of x in out's shape.  Small ones go to the caller's buffer, larger ones to `memory`. */
static fbp_status stage(const fbp_tensor *x, const fbp_tensor *out, char *buffer, char **memory, const char **operand) {
    int size = fbp_dtype_size(x->dtype);
    int64_t bytes = out->numel * size, source[FBP_MAX_NDIM], target[FBP_MAX_NDIM], step = size;
    char *copy = buffer;
    if (bytes > STAGE_BYTES && !(copy = *memory = fbp_memory_get((size_t)bytes)))
        return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate %lld bytes to broadcast an operand", (long long)bytes);
    if (x->numel == 1) {
        fbp_kernels->copy->fill(out->numel, size, copy, x->data);
    } else {
        broadcast_strides(x, out, source);
        for (int i = out->ndim - 1; i >= 0; i--) {
            source[i] *= size;
            target[i] = step;
            step *= fbp_shape(out)[i];
        }
        fbp_kernels->copy->strided(out->ndim, fbp_shape(out), size, copy, target, x->data, source);
    }
    *operand = copy;
    return FBP_OK;
}

/* out is [rows][n]; x is [n], the same for each row (a bias), and the row is long enough to pay a call. */
static bool is_row_broadcast(const fbp_tensor *x, const fbp_tensor *out) {
    if (!fbp_is_contiguous(x) || x->ndim > out->ndim || x->numel < ROW_MIN) return false;
    for (int i = 1; i <= out->ndim; i++) {
        int64_t mine = i <= x->ndim ? fbp_shape(x)[x->ndim - i] : 1, other = fbp_shape(out)[out->ndim - i];
        if (mine == other) continue;
        for (; i <= x->ndim; i++)
            if (fbp_shape(x)[x->ndim - i] != 1) return false;
        return true;
    }
    return true;
}

static fbp_status division_check(const fbp_call *call) {
    if (call->op != FBP_OP_floor_divide && call->op != FBP_OP_fmod && call->op != FBP_OP_remainder) return FBP_OK;
    const fbp_tensor *divisor = call->inputs[1];
    int size = fbp_dtype_size(divisor->dtype);
    int64_t index[FBP_MAX_NDIM] = {0}, zero = 0;
    const char *at = divisor->data;
    for (int64_t i = 0; i < divisor->numel; i++) {
        if (memcmp(at, &zero, (size_t)size) == 0) return fbp_fail(FBP_ERROR_RUNTIME, "ZeroDivisionError: %s by an integer 0", fbp_ops[call->op].name);
        for (int d = divisor->ndim - 1; d >= 0; d--) {
            at += fbp_strides(divisor)[d] * size;
            if (++index[d] < fbp_shape(divisor)[d]) break;
            at -= fbp_strides(divisor)[d] * size * fbp_shape(divisor)[d];
            index[d] = 0;
        }
    }
    return FBP_OK;
}

/* The kernel for the inputs' type into `job`; NotImplementedError names op and type where there is none. */
static fbp_status choose_kernel(const fbp_call *call, elementwise *job) {
    static const double no_parameters[2] = {0, 0};
    fbp_dtype dtype = (fbp_dtype)call->inputs[call->op == FBP_OP_where ? 1 : 0]->dtype;
    int size = fbp_dtype_size(dtype);
    job->parameters = call->attributes ? call->attributes : no_parameters;
    job->size[0] = job->size[1] = job->size[2] = size;
    job->normalise_bool = false;
    job->where = NULL;
    if (call->op == FBP_OP_where) {
        job->size[0] = 1;
        job->where = fbp_kernels->integer->where[size == 1 ? 0 : size == 4 ? 1 : 2];
        return FBP_OK;
    }
    if (fbp_dtype_is_float(dtype) && job->row->class == FBP_CLASS_POINTWISE)
        job->forward = fbp_kernels->pointwise->forward[call->op][dtype - FBP_FLOAT32];
    else {
        job->forward = fbp_kernels->integer->forward[call->op][dtype];
        job->normalise_bool = dtype == FBP_BOOL && job->row->class == FBP_CLASS_POINTWISE;
        FBP_TRY(fbp_dtype_is_float(dtype) ? FBP_OK : division_check(call));
    }
    if (!job->forward)
        return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "%s is not implemented for %s", job->row->name, fbp_dtype_name(dtype));
    return FBP_OK;
}

fbp_status fbp_run_pointwise(const fbp_call *call, fbp_tensor *out) {
    elementwise job = {.row = &fbp_ops[call->op], .out = out->data, .out_size = fbp_dtype_size(out->dtype)};
    FBP_TRY(choose_kernel(call, &job));
    int64_t row_length = out->numel;
    int plain = 0;
    for (int i = 0; i < call->count; i++) {
        const fbp_tensor *x = call->inputs[i];
        if (x->numel == out->numel && fbp_is_contiguous(x)) {
            job.operand[i] = x->data;
            plain++;
        }
    }
    if (plain == call->count) {
        run_contiguous(&job, out->numel);
        return FBP_OK;
    }
    if (out->numel == 0) return FBP_OK;

    /* One operand repeated for every row: no copy, a kernel call a row. */
    for (int i = 0; i < call->count && call->count == 2 && plain == 1; i++) {
        const fbp_tensor *x = call->inputs[i];
        if (job.operand[i] || !is_row_broadcast(x, out)) continue;
        row_length = x->numel;
        job.operand[i] = x->data;
        for (int64_t r = 0; r < out->numel / row_length; r++) {
            run_range(&job, 0, row_length);
            job.out += row_length * job.out_size;
            job.operand[1 - i] += row_length * job.size[1 - i];
        }
        return FBP_OK;
    }

    _Alignas(FBP_ALIGNMENT) char buffer[OPERANDS][STAGE_BYTES];
    char *memory[OPERANDS] = {0};
    fbp_status status = FBP_OK;
    for (int i = 0; i < call->count && status == FBP_OK; i++)
        if (!job.operand[i]) status = stage(call->inputs[i], out, buffer[i], &memory[i], &job.operand[i]);
    if (status == FBP_OK) run_contiguous(&job, out->numel);
    for (int i = 0; i < call->count; i++)
        if (memory[i]) fbp_memory_free(memory[i], (size_t)(out->numel * fbp_dtype_size(call->inputs[i]->dtype)));
    return status;
}
