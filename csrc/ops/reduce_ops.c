/* reduce_ops.c -- layouts of reductions, running sums and softmax, and how arbitrary axes are brought to the kernels' form.
 *
 * Kernels see x[outer][n][inner].  A mask of reduced axes falls into runs of adjacent ones; sums and their like are
 * taken run by run, innermost first, so that nothing is moved; what cannot be taken in parts has its reduced axes copied
 * to the end when they are not adjacent.  The kernels of gradients (softmax_grad and so on) stand with their ops.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

/* Shape of x with the masked axes dropped, or kept with size 1. */
static fbp_status reduced_layout(const fbp_call *call, const fbp_tensor *x, fbp_dtype dtype, fbp_layout *layout) {
    const fbp_reduce_attribute *reduce = call->attributes;
    int64_t shape[FBP_MAX_NDIM];
    int ndim = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (!(reduce->dims >> i & 1)) shape[ndim++] = fbp_shape(x)[i];
        else if (reduce->keepdim) shape[ndim++] = 1;
    }
    return fbp_layout_contiguous(layout, dtype, ndim, shape);
}

static fbp_status float_check(const fbp_call *call) {
    fbp_dtype dtype = (fbp_dtype)call->inputs[0]->dtype;
    if (fbp_dtype_is_float(dtype)) return FBP_OK;
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: the input dtype must be a floating point type, got %s; cast it with .float() first",
                    fbp_ops[call->op].name, fbp_dtype_name(dtype));
}

static fbp_status same_dtype_check(const fbp_call *call) {
    FBP_TRY(float_check(call));
    for (int i = 1; i < call->count; i++)
        if (call->inputs[i]->dtype != call->inputs[0]->dtype)
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: expected inputs of the same dtype, but got %s and %s", fbp_ops[call->op].name,
                            fbp_dtype_name((fbp_dtype)call->inputs[0]->dtype), fbp_dtype_name((fbp_dtype)call->inputs[i]->dtype));
    return FBP_OK;
}

/* An extreme needs something to choose from, unless there is no result either. */
static fbp_status choice_check(const fbp_call *call, const fbp_layout *layout) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_reduce_attribute *reduce = call->attributes;
    if (layout->numel == 0 || x->numel > 0) return FBP_OK;
    uint32_t all = (1u << x->ndim) - 1u;
    if (x->ndim == 1 || (reduce->dims & all) == all)
        return fbp_fail(FBP_ERROR_INDEX, "%s(): Expected reduction dim to have non-zero size, but the input of shape %s has no elements",
                        fbp_ops[call->op].name, fbp_tensor_shape_text(x));
    int dim = 0;
    while (!(reduce->dims >> dim & 1) || fbp_shape(x)[dim] != 0) dim++;
    return fbp_fail(FBP_ERROR_INDEX, "%s(): Expected reduction dim %d to have non-zero size; the input has shape %s",
                    fbp_ops[call->op].name, dim, fbp_tensor_shape_text(x));
}

/* ---- from axes to stages ----------------------------------------------------------------------------------------- */

typedef struct fold { int64_t outer, n, inner; } fold;

enum { MAX_STAGES = FBP_MAX_NDIM / 2 };

/* One fold a run of adjacent reduced axes, innermost first, each over what the ones before leave; axes of size 1
 * belong to any run.  At least one, so that a reduction over nothing has n = 1. */
static int fold_stages(const fbp_tensor *x, uint32_t dims, fold *stages) {
    int64_t sizes[FBP_MAX_NDIM];
    bool reduced[FBP_MAX_NDIM];
    int runs = 0, count = 0;
    for (int i = 0; i < x->ndim; i++) {
        bool is_reduced = dims >> i & 1;
        if (fbp_shape(x)[i] == 1) continue;
        if (runs && reduced[runs - 1] == is_reduced) {
            sizes[runs - 1] *= fbp_shape(x)[i];
        } else {
            sizes[runs] = fbp_shape(x)[i];
            reduced[runs++] = is_reduced;
        }
    }
    int64_t inner = 1;
    for (int run = runs - 1; run >= 0; run--) {
        if (!reduced[run]) {
            inner *= sizes[run];
            continue;
        }
        int64_t outer = 1;
        for (int i = 0; i < run; i++) outer *= sizes[i];
        stages[count++] = (fold){outer, sizes[run], inner};
    }
    if (!count) stages[count++] = (fold){x->numel, 1, 1};
    return count;
}

static size_t padded(int64_t bytes) { return ((size_t)bytes + FBP_ALIGNMENT - 1) / FBP_ALIGNMENT * FBP_ALIGNMENT; }

/* Working memory of one run; MemoryError when there is none. */
static fbp_status scratch_get(const char *op, size_t bytes, char **out) {
    *out = fbp_scratch(FBP_SCRATCH_OP, bytes ? bytes : 1);
    if (*out) return FBP_OK;
    return fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate %lld bytes of working memory", op, (long long)bytes);
}

typedef void (*power_fn)(void *y, const void *x, int64_t outer, int64_t n, int64_t inner, double power);

/* A reduction that may be taken in parts: `first` over elements (or `power` with p), `rest` over what it gave. */
typedef struct parts {
    fbp_reduce_fn first, rest;
    power_fn power;
    double p;
} parts;

/* Reduce x into y, elements of `size` bytes, stage by stage. */
static fbp_status run_parts(const fbp_call *call, const parts *how, void *y, int size) {
    const fbp_tensor *x = call->inputs[0];
    fold stages[MAX_STAGES];
    int count = fold_stages(x, ((const fbp_reduce_attribute *)call->attributes)->dims, stages);
    if (!how->first && !how->power)
        return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "%s is not implemented for %s", fbp_ops[call->op].name,
                        fbp_dtype_name((fbp_dtype)x->dtype));
    char *scratch = NULL;
    size_t bytes = 0;
    for (int i = 0; i + 1 < count; i++) bytes += padded(stages[i].outer * stages[i].inner * size);
    if (count > 1) FBP_TRY(scratch_get(fbp_ops[call->op].name, bytes, &scratch));
    const void *from = x->data;
    for (int i = 0; i < count; i++) {
        const fold s = stages[i];
        void *to = i + 1 < count ? scratch : y;
        if (i == 0 && how->power) how->power(to, from, s.outer, s.n, s.inner, how->p);
        else (i == 0 ? how->first : how->rest)(to, from, s.outer, s.n, s.inner);
        from = to;
        if (scratch) scratch += padded(s.outer * s.inner * size);
    }
    return FBP_OK;
}

static fbp_status run_table(const fbp_call *call, fbp_tensor *out, const fbp_reduce_fn *table) {
    const parts how = {.first = table[call->inputs[0]->dtype], .rest = table[out->dtype]};
    return run_parts(call, &how, out->data, fbp_dtype_size((fbp_dtype)out->dtype));
}

/* ---- one fold, moving axes where it must ------------------------------------------------------------------------- */

/* Copy between x's own order and the one with the masked axes last, both contiguous. */
static void reorder(const fbp_tensor *x, uint32_t dims, char *to, const char *from, bool back) {
    int size = fbp_dtype_size((fbp_dtype)x->dtype), at = 0;
    int64_t shape[FBP_MAX_NDIM], own[FBP_MAX_NDIM], moved[FBP_MAX_NDIM], step = size;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->ndim; i++) {
            if ((int)(dims >> i & 1) != pass) continue;
            shape[at] = fbp_shape(x)[i];
            own[at] = size;
            for (int j = i + 1; j < x->ndim; j++) own[at] *= fbp_shape(x)[j];
            at++;
        }
    for (int i = x->ndim - 1; i >= 0; i--) {
        moved[i] = step;
        step *= shape[i];
    }
    fbp_kernels->copy->strided(x->ndim, shape, size, to, back ? own : moved, from, back ? moved : own);
}

/* x as one fold. */
typedef struct single {
    fold at;
    bool is_moved;
    const char *x;  /* elements in the fold's order */
    char *spare;    /* room that was asked for */
    char *result;   /* where an array shaped as x goes before single_end; out's own memory when nothing is moved */
} single;

/* `room` bytes are to spare; `out` is given where the result has x's shape. */
static fbp_status single_begin(const fbp_call *call, const fbp_tensor *x, uint32_t dims, size_t room, fbp_tensor *out, single *s) {
    fold stages[MAX_STAGES];
    char *scratch = NULL;
    size_t bytes = padded(x->numel * fbp_dtype_size((fbp_dtype)x->dtype));
    int count = fold_stages(x, dims, stages);
    *s = (single){.at = stages[0], .is_moved = count > 1, .x = x->data, .result = out ? out->data : NULL};
    if (s->is_moved || room) FBP_TRY(scratch_get(fbp_ops[call->op].name, room + (s->is_moved ? 2 * bytes : 0), &scratch));
    s->spare = scratch;
    if (!s->is_moved) return FBP_OK;
    s->at = (fold){1, 1, 1};
    for (int i = 0; i < x->ndim; i++) *(dims >> i & 1 ? &s->at.n : &s->at.outer) *= fbp_shape(x)[i];
    reorder(x, dims, scratch + room, x->data, false);
    s->x = scratch + room;
    s->result = scratch + room + bytes;
    return FBP_OK;
}

static void single_end(const single *s, uint32_t dims, fbp_tensor *out) {
    if (s->is_moved) reorder(out, dims, out->data, s->result, true);
}

/* ---- sums, products, extremes ------------------------------------------------------------------------------------ */

static fbp_dtype sum_dtype(const fbp_tensor *x) { return fbp_dtype_is_float((fbp_dtype)x->dtype) ? (fbp_dtype)x->dtype : FBP_INT64; }

static fbp_status infer_exact(const fbp_call *call, fbp_layout *layout) {
    return reduced_layout(call, call->inputs[0], sum_dtype(call->inputs[0]), layout);
}
static fbp_status infer_float(const fbp_call *call, fbp_layout *layout) {
    FBP_TRY(float_check(call));
    return reduced_layout(call, call->inputs[0], (fbp_dtype)call->inputs[0]->dtype, layout);
}
static fbp_status infer_extreme(const fbp_call *call, fbp_layout *layout) {
    FBP_TRY(reduced_layout(call, call->inputs[0], (fbp_dtype)call->inputs[0]->dtype, layout));
    return choice_check(call, layout);
}
static fbp_status infer_place(const fbp_call *call, fbp_layout *layout) {
    FBP_TRY(reduced_layout(call, call->inputs[0], FBP_INT64, layout));
    return choice_check(call, layout);
}
static fbp_status infer_truth(const fbp_call *call, fbp_layout *layout) {
    return reduced_layout(call, call->inputs[0], FBP_BOOL, layout);
}

#define INFER(name, how)                                                                  \
    fbp_status infer_##name(const fbp_call *call, fbp_layout *layout, bool *is_view) {    \
        (void)is_view;                                                                    \
        return how(call, layout);                                                         \
    }
#define REDUCTION(name, how, table)                                  \
    INFER(name, how)                                                 \
    fbp_status run_##name(const fbp_call *call, fbp_tensor *out) {   \
        return run_table(call, out, fbp_kernels->reduce->table);     \
    }
REDUCTION(sum, infer_exact, sum)
REDUCTION(prod, infer_exact, product)
REDUCTION(mean, infer_float, mean)
REDUCTION(amax, infer_extreme, max)
REDUCTION(amin, infer_extreme, min)

/* any, all: the first stage turns elements into bools, which the rest reduces. */
REDUCTION(any, infer_truth, any)
REDUCTION(all, infer_truth, all)

typedef void (*place_fn)(void *values, int64_t *indices, const void *x, int64_t outer, int64_t n, int64_t inner);

static fbp_status run_place(const fbp_call *call, fbp_tensor *out, const place_fn *table) {
    const fbp_tensor *x = call->inputs[0];
    single s;
    if (!table[x->dtype])
        return fbp_fail(FBP_ERROR_RUNTIME, "%s(): does not support %s input", fbp_ops[call->op].name, fbp_dtype_name((fbp_dtype)x->dtype));
    if (out->numel == 0) return FBP_OK;
    FBP_TRY(single_begin(call, x, ((const fbp_reduce_attribute *)call->attributes)->dims, 0, NULL, &s));
    table[x->dtype](NULL, (int64_t *)(void *)out->data, s.x, s.at.outer, s.at.n, s.at.inner);
    return FBP_OK;
}
INFER(argmax, infer_place)
INFER(argmin, infer_place)
fbp_status run_argmax(const fbp_call *call, fbp_tensor *out) { return run_place(call, out, fbp_kernels->reduce->arg_max); }
fbp_status run_argmin(const fbp_call *call, fbp_tensor *out) { return run_place(call, out, fbp_kernels->reduce->arg_min); }

/* ---- moments and norms ------------------------------------------------------------------------------------------- */

INFER(var, infer_float)
fbp_status run_var(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_reduce_attribute *reduce = call->attributes;
    single s;
    size_t room = padded(out->numel * fbp_dtype_size((fbp_dtype)out->dtype)); /* the means, which no one asked for */
    FBP_TRY(single_begin(call, x, reduce->dims, room, NULL, &s));
    fbp_kernels->reduce->variance[x->dtype](out->data, s.spare, s.x, s.at.outer, s.at.n, s.at.inner, reduce->p);
    return FBP_OK;
}

/* y = y ** exponent in place, in double: results of a reduction are few. */
static void raise_to(fbp_tensor *y, double exponent) {
    float *f32 = (float *)(void *)y->data;
    double *f64 = (double *)(void *)y->data;
    for (int64_t i = 0; i < y->numel; i++) {
        double value = y->dtype == FBP_FLOAT32 ? (double)f32[i] : f64[i];
        value = exponent == 0.5 ? sqrt(value) : pow(value, exponent);
        if (y->dtype == FBP_FLOAT32) f32[i] = (float)value;
        else f64[i] = value;
    }
}

INFER(std, infer_float)
fbp_status run_std(const fbp_call *call, fbp_tensor *out) {
    FBP_TRY(run_var(call, out));
    raise_to(out, 0.5);
    return FBP_OK;
}

fbp_status infer_norm(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const double p = ((const fbp_reduce_attribute *)call->attributes)->p;
    const fbp_tensor *x = call->inputs[0];
    (void)is_view;
    FBP_TRY(infer_float(call, layout));
    if (x->numel == 0 && layout->numel > 0 && (p < 0 || isinf(p)))
        return fbp_fail(FBP_ERROR_RUNTIME, "norm: cannot compute the %g norm of an input of shape %s over an empty dimension because the "
                        "operation does not have an identity", p, fbp_tensor_shape_text(x));
    return FBP_OK;
}

/* How many elements are not zero, in the type of `out`. */
static fbp_status run_count(const fbp_call *call, fbp_tensor *out) {
    const fbp_reduce_kernels *k = fbp_kernels->reduce;
    const parts how = {.first = k->count_nonzero[out->dtype], .rest = k->sum[FBP_INT64]};
    int64_t *counts = fbp_memory_get((size_t)(out->numel + 1) * sizeof *counts);
    if (!counts) return fbp_fail(FBP_ERROR_MEMORY, "norm: cannot allocate %lld counts", (long long)out->numel);
    fbp_status status = run_parts(call, &how, counts, sizeof *counts);
    if (status == FBP_OK) fbp_kernels->copy->cast(FBP_INT64, (fbp_dtype)out->dtype, out->numel, out->data, counts);
    fbp_memory_free(counts, (size_t)(out->numel + 1) * sizeof *counts);
    return status;
}

fbp_status run_norm(const fbp_call *call, fbp_tensor *out) {
    const fbp_reduce_kernels *k = fbp_kernels->reduce;
    const double p = ((const fbp_reduce_attribute *)call->attributes)->p;
    const int d = out->dtype;
    if (p == 0) return run_count(call, out);
    parts how = {.rest = k->sum[d]};
    if (isinf(p)) how = p > 0 ? (parts){.first = k->max_abs[d], .rest = k->max[d]} : (parts){.first = k->min_abs[d], .rest = k->min[d]};
    else if (p == 1) how.first = k->sum_abs[d];
    else if (p == 2) how.first = k->sum_squares[d];
    else how.power = k->sum_power[d], how.p = p;
    FBP_TRY(run_parts(call, &how, out->data, fbp_dtype_size((fbp_dtype)d)));
    if (!isinf(p) && p != 1) raise_to(out, 1.0 / p);
    return FBP_OK;
}

/* ---- along one axis ---------------------------------------------------------------------------------------------- */

/* [outer][n][inner] about the axis that the attribute names; a number is an axis of one element.  However many rows of
 * nothing there are, none is to be gone through. */
static fold axis_fold(const fbp_call *call, const fbp_tensor *x) {
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    fold f = {1, 1, 1};
    for (int i = 0; i < x->ndim; i++) *(i < dim ? &f.outer : i == dim ? &f.n : &f.inner) *= fbp_shape(x)[i];
    if (!x->numel) f.outer = 0;
    return f;
}

static fbp_status axis_check(const fbp_call *call) {
    const fbp_tensor *x = call->inputs[0];
    int dim = ((const fbp_dim_attribute *)call->attributes)->dim;
    if (dim >= 0 && dim < (x->ndim ? x->ndim : 1)) return FBP_OK;
    return fbp_dim_wrap(fbp_ops[call->op].name, x->ndim + 1, x->ndim, &dim);
}

fbp_status infer_cumsum(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    (void)is_view;
    FBP_TRY(axis_check(call));
    return fbp_layout_contiguous(layout, sum_dtype(x), x->ndim, fbp_shape(x));
}

fbp_status run_cumsum(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fold f = axis_fold(call, x);
    const void *from = x->data;
    if (x->dtype != out->dtype) { /* the kernel may work in place: so convert into the result first */
        fbp_kernels->copy->cast((fbp_dtype)x->dtype, (fbp_dtype)out->dtype, x->numel, out->data, x->data);
        from = out->data;
    }
    fbp_kernels->reduce->cumulative_sum[out->dtype](out->data, from, f.outer, f.n, f.inner,
                                                    ((const fbp_dim_attribute *)call->attributes)->flag);
    return FBP_OK;
}

/* Result shaped as inputs[0]; further inputs (softmax_grad's y) must be so too. */
static fbp_status infer_axis(const fbp_call *call, fbp_layout *layout) {
    const fbp_tensor *x = call->inputs[0];
    FBP_TRY(same_dtype_check(call));
    FBP_TRY(axis_check(call));
    if (call->count > 1 && !fbp_same_shape(x, call->inputs[1]))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: the shapes %s and %s differ", fbp_ops[call->op].name, fbp_tensor_shape_text(x),
                        fbp_tensor_shape_text(call->inputs[1]));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

INFER(softmax, infer_axis)
INFER(log_softmax, infer_axis)
INFER(softmax_grad, infer_axis)
INFER(log_softmax_grad, infer_axis)

fbp_status run_softmax(const fbp_call *call, fbp_tensor *out) {
    const fold f = axis_fold(call, out);
    fbp_kernels->normalize->softmax[out->dtype](out->data, call->inputs[0]->data, f.outer, f.n, f.inner);
    return FBP_OK;
}
fbp_status run_log_softmax(const fbp_call *call, fbp_tensor *out) {
    const fold f = axis_fold(call, out);
    fbp_kernels->normalize->log_softmax[out->dtype](out->data, call->inputs[0]->data, f.outer, f.n, f.inner);
    return FBP_OK;
}
fbp_status run_softmax_grad(const fbp_call *call, fbp_tensor *out) {
    const fold f = axis_fold(call, out);
    fbp_kernels->normalize->softmax_backward[out->dtype](out->data, call->inputs[0]->data, call->inputs[1]->data, f.outer, f.n, f.inner);
    return FBP_OK;
}
fbp_status run_log_softmax_grad(const fbp_call *call, fbp_tensor *out) {
    const fold f = axis_fold(call, out);
    fbp_kernels->normalize->log_softmax_backward[out->dtype](out->data, call->inputs[0]->data, call->inputs[1]->data, f.outer, f.n,
                                                             f.inner);
    return FBP_OK;
}

/* log sum exp over several runs of axes is that of the partial ones. */
INFER(logsumexp, infer_float)
fbp_status run_logsumexp(const fbp_call *call, fbp_tensor *out) {
    const parts how = {.first = fbp_kernels->normalize->logsumexp[out->dtype], .rest = fbp_kernels->normalize->logsumexp[out->dtype]};
    return run_parts(call, &how, out->data, fbp_dtype_size((fbp_dtype)out->dtype));
}

/* ---- gradients of reductions that have a kernel of their own ----------------------------------------------------- */

/* Inputs: the cotangent g (shaped as the reduction's result), ..., last the reduction's input, whose shape the result has. */
static fbp_status infer_pulled(const fbp_call *call, fbp_layout *layout) {
    const fbp_tensor *g = call->inputs[0], *x = call->inputs[call->count - 1];
    FBP_TRY(same_dtype_check(call));
    FBP_TRY(reduced_layout(call, x, (fbp_dtype)x->dtype, layout));
    for (int i = 0; i + 1 < call->count; i++)
        if (call->inputs[i]->numel != layout->numel)
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: shape %s is not that of the reduction of shape %s", fbp_ops[call->op].name,
                            fbp_tensor_shape_text(g), fbp_tensor_shape_text(x));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}
INFER(prod_grad, infer_pulled)
INFER(extreme_grad, infer_pulled)

/* dx[i] = g * (product of all before i) * (product of all behind): no division, so zeros are no exception.
 * Rows on their own, since loops over an inner extent of 1 would cost more than they do. */
#define PRODUCT_PULL(type)                                                                                             \
    static void product_pull_row_##type(type *dx, type g, const type *before, const type *behind, int64_t n) {         \
        if (n == 1) dx[0] = g;                                                                                         \
        if (n < 2) return;                                                                                             \
        const int64_t last = n - 1;                                                                                    \
        dx[0] = g * behind[1];                                                                                         \
        _Pragma("omp simd")                                                                                            \
        for (int64_t i = 1; i < last; i++) dx[i] = g * (before[i - 1] * behind[i + 1]);                                \
        dx[last] = g * before[last - 1];                                                                               \
    }                                                                                                                  \
    static void product_pull_##type(type *dx, const type *g, const type *before, const type *behind, fold f) {         \
        for (int64_t o = 0; o < f.outer; o++)                                                                          \
            for (int64_t i = 0; i < f.n; i++) {                                                                        \
                const type *left = before + (i ? -f.inner : 0), *right = behind + (i + 1 < f.n ? f.inner : 0);         \
                for (int64_t j = 0; j < f.inner; j++)                                                                  \
                    dx[j] = g[o * f.inner + j] * ((i ? left[j] : 1) * (i + 1 < f.n ? right[j] : 1));                   \
                dx += f.inner, before += f.inner, behind += f.inner;                                                   \
            }                                                                                                          \
    }                                                                                                                  \
    static void product_pull_any_##type(void *dx, const void *g, const void *before, const void *behind, fold f) {     \
        if (f.inner != 1) product_pull_##type(dx, g, before, behind, f);                                               \
        else                                                                                                           \
            for (int64_t o = 0; o < f.outer; o++)                                                                      \
                product_pull_row_##type((type *)dx + o * f.n, ((const type *)g)[o], (const type *)before + o * f.n,    \
                                        (const type *)behind + o * f.n, f.n);                                          \
    }
PRODUCT_PULL(float)
PRODUCT_PULL(double)

fbp_status run_prod_grad(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *g = call->inputs[0], *x = call->inputs[1];
    const uint32_t dims = ((const fbp_reduce_attribute *)call->attributes)->dims;
    const size_t bytes = padded(x->numel * fbp_dtype_size((fbp_dtype)x->dtype));
    single s;
    FBP_TRY(single_begin(call, x, dims, 2 * bytes, out, &s));
    char *before = s.spare, *behind = s.spare + bytes;
    fbp_kernels->reduce->cumulative_product[x->dtype](before, s.x, s.at.outer, s.at.n, s.at.inner, false);
    fbp_kernels->reduce->cumulative_product[x->dtype](behind, s.x, s.at.outer, s.at.n, s.at.inner, true);
    (x->dtype == FBP_FLOAT32 ? product_pull_any_float : product_pull_any_double)(s.result, g->data, before, behind, s.at);
    single_end(&s, dims, out);
    return FBP_OK;
}

/* dx = g / (number of ties) where x is the extreme y, else 0.  Nothing equals NaN: then all of the fibre is NaN. */
#define EXTREME_PULL(type, counter)                                                                                    \
    static void extreme_pull_row_##type(type *dx, type g, type y, const type *x, int64_t n) {                          \
        counter ties = 0; /* as wide as the elements, so that comparing vectorises */                                  \
        _Pragma("omp simd reduction(+ : ties)")                                                                        \
        for (int64_t i = 0; i < n; i++) ties += x[i] == y;                                                             \
        const type share = ties ? g / (type)ties : (type)NAN, rest = ties ? 0 : share;                                 \
        _Pragma("omp simd")                                                                                            \
        for (int64_t i = 0; i < n; i++) dx[i] = x[i] == y ? share : rest;                                              \
    }                                                                                                                  \
    static void extreme_pull_##type(type *dx, const type *g, const type *y, const type *x, type *share, fold f) {      \
        for (int64_t o = 0; o < f.outer; o++, g += f.inner, y += f.inner) {                                            \
            for (int64_t j = 0; j < f.inner; j++) share[j] = 0;                                                        \
            for (int64_t i = 0; i < f.n; i++)                                                                          \
                for (int64_t j = 0; j < f.inner; j++) share[j] += x[i * f.inner + j] == y[j];                          \
            for (int64_t j = 0; j < f.inner; j++) share[j] = share[j] > 0 ? g[j] / share[j] : (type)NAN;               \
            for (int64_t i = 0; i < f.n; i++, dx += f.inner, x += f.inner)                                             \
                for (int64_t j = 0; j < f.inner; j++) dx[j] = x[j] == y[j] || share[j] != share[j] ? share[j] : 0;     \
        }                                                                                                              \
    }                                                                                                                  \
    static void extreme_pull_any_##type(void *dx, const void *g, const void *y, const void *x, void *share, fold f) {  \
        if (f.inner != 1) extreme_pull_##type(dx, g, y, x, share, f);                                                  \
        else                                                                                                           \
            for (int64_t o = 0; o < f.outer; o++)                                                                      \
                extreme_pull_row_##type((type *)dx + o * f.n, ((const type *)g)[o], ((const type *)y)[o],              \
                                        (const type *)x + o * f.n, f.n);                                               \
    }
EXTREME_PULL(float, uint32_t)
EXTREME_PULL(double, uint64_t)

fbp_status run_extreme_grad(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *g = call->inputs[0], *y = call->inputs[1], *x = call->inputs[2];
    const uint32_t dims = ((const fbp_reduce_attribute *)call->attributes)->dims;
    single s;
    FBP_TRY(single_begin(call, x, dims, padded((y->numel + 1) * fbp_dtype_size((fbp_dtype)x->dtype)), out, &s));
    (x->dtype == FBP_FLOAT32 ? extreme_pull_any_float : extreme_pull_any_double)(s.result, g->data, y->data, s.x, s.spare, s.at);
    single_end(&s, dims, out);
    return FBP_OK;
}
