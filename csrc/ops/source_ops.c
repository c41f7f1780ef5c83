/* source_ops.c -- tensors out of nothing: constants, ranges, random numbers.
 *
 * A source's attribute says all about it, random sources included: (seed, offset) is a place in the universe of Philox
 * blocks (kernels/random.h), so that running a node twice gives the same numbers.  Who makes a random node draws
 * its blocks from a generator first (exec/generator.h).
 */
#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"
#include "ops/op.h"

/* Shape and type stand in the attribute. */
static fbp_status infer_source(const fbp_call *call, fbp_layout *layout) {
    const fbp_source_attribute *source = call->attributes;
    if ((unsigned)source->dtype >= FBP_DTYPE_COUNT)
        return fbp_fail(FBP_ERROR_TYPE, "%s: %d is not a dtype", fbp_ops[call->op].name, source->dtype);
    return fbp_layout_contiguous(layout, (fbp_dtype)source->dtype, source->ndim, source->shape);
}

static fbp_status infer_float_source(const fbp_call *call, fbp_layout *layout) {
    const fbp_source_attribute *source = call->attributes;
    FBP_TRY(infer_source(call, layout));
    if (!fbp_dtype_is_float(layout->dtype))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: expected a floating point dtype, got %s", fbp_ops[call->op].name,
                        fbp_dtype_name((fbp_dtype)source->dtype));
    return FBP_OK;
}

#define INFER_SOURCE(name, kind)                                                        \
    fbp_status infer_##name(const fbp_call *call, fbp_layout *layout, bool *is_view) {  \
        (void)is_view;                                                                  \
        return infer_##kind(call, layout);                                              \
    }
INFER_SOURCE(full, source)
INFER_SOURCE(arange, source)
INFER_SOURCE(linspace, float_source)
INFER_SOURCE(eye, source)
INFER_SOURCE(uniform, float_source)
INFER_SOURCE(normal, float_source)
INFER_SOURCE(exponential, float_source)
INFER_SOURCE(randint, source)
INFER_SOURCE(permutation, source)
INFER_SOURCE(bernoulli, source)

#define F32(t) ((float *)(void *)(t)->data)
#define F64(t) ((double *)(void *)(t)->data)
#define I64(t) ((int64_t *)(void *)(t)->data)

/* Have `fill` write out's elements as type `made`, through memory of that type where out has another. */
typedef void (*fill_fn)(const fbp_source_attribute *source, int64_t n, void *to);

static fbp_status filled_as(const fbp_call *call, fbp_tensor *out, fbp_dtype made, fill_fn fill) {
    if (out->dtype == made || out->numel == 0) {
        fill(call->attributes, out->numel, out->data);
        return FBP_OK;
    }
    size_t bytes = (size_t)out->numel * (size_t)fbp_dtype_size(made);
    void *to = fbp_memory_get(bytes);
    if (!to) return fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate %zu bytes", fbp_ops[call->op].name, bytes);
    fill(call->attributes, out->numel, to);
    fbp_kernels->copy->cast(made, (fbp_dtype)out->dtype, out->numel, out->data, to);
    fbp_memory_free(to, bytes);
    return FBP_OK;
}

/* ---- constants and ranges ----------------------------------------------------------------------------------------------------- */

/* One element of `dtype`: integers that a double cannot hold come in integer[0]. */
static void write_number(const fbp_source_attribute *source, fbp_dtype dtype, void *to) {
    double value = source->p[0];
    int64_t whole = source->integer[0] ? source->integer[0] : (int64_t)value;
    switch (dtype) {
        case FBP_FLOAT32: memcpy(to, &(float){(float)value}, sizeof(float)); break;
        case FBP_FLOAT64: memcpy(to, &value, sizeof value); break;
        case FBP_INT64: memcpy(to, &whole, sizeof whole); break;
        case FBP_INT32: memcpy(to, &(int32_t){(int32_t)whole}, sizeof(int32_t)); break;
        case FBP_UINT8: *(uint8_t *)to = (uint8_t)whole; break;
        default: *(uint8_t *)to = value != 0 || whole != 0;
    }
}

fbp_status run_full(const fbp_call *call, fbp_tensor *out) {
    uint64_t element[1];
    write_number(call->attributes, (fbp_dtype)out->dtype, element);
    if (out->numel == 1) memcpy(out->data, element, (size_t)fbp_dtype_size((fbp_dtype)out->dtype));
    else if (out->numel) fbp_kernels->copy->fill(out->numel, fbp_dtype_size((fbp_dtype)out->dtype), out->data, element);
    return FBP_OK;
}

static void fill_range(const fbp_source_attribute *source, int64_t n, void *to) {
    fbp_kernels->index->arange_i64(n, source->integer[0], source->integer[1], to);
}

fbp_status run_arange(const fbp_call *call, fbp_tensor *out) {
    const fbp_source_attribute *source = call->attributes;
    if (out->dtype == FBP_FLOAT32) fbp_kernels->index->arange_f32(out->numel, source->p[0], source->p[1], F32(out));
    else if (out->dtype == FBP_FLOAT64) fbp_kernels->index->arange_f64(out->numel, source->p[0], source->p[1], F64(out));
    else return filled_as(call, out, FBP_INT64, fill_range);
    return FBP_OK;
}

fbp_status run_linspace(const fbp_call *call, fbp_tensor *out) {
    const fbp_source_attribute *source = call->attributes;
    if (out->dtype == FBP_FLOAT32) fbp_kernels->index->linspace_f32(out->numel, source->p[0], source->p[1], F32(out));
    else fbp_kernels->index->linspace_f64(out->numel, source->p[0], source->p[1], F64(out));
    return FBP_OK;
}

fbp_status run_eye(const fbp_call *call, fbp_tensor *out) {
    const fbp_source_attribute *source = call->attributes;
    if (source->ndim != 2) return fbp_fail(FBP_ERROR_RUNTIME, "eye: makes a matrix, not %d dimensions", source->ndim);
    if (out->numel) fbp_kernels->index->eye((fbp_dtype)out->dtype, source->shape[0], source->shape[1], out->data);
    return FBP_OK;
}

/* ---- random numbers -------------------------------------------------------------------------------------------------------------- */

static fbp_random_position position_of(const fbp_source_attribute *source) {
    return (fbp_random_position){.seed = source->seed, .block = source->offset};
}

fbp_status run_uniform(const fbp_call *call, fbp_tensor *out) {
    const fbp_source_attribute *source = call->attributes;
    fbp_random_position at = position_of(source);
    if (out->dtype == FBP_FLOAT32)
        fbp_kernels->random->uniform_f32(at, out->numel, (float)source->p[0], (float)source->p[1], F32(out));
    else fbp_kernels->random->uniform_f64(at, out->numel, source->p[0], source->p[1], F64(out));
    return FBP_OK;
}

fbp_status run_normal(const fbp_call *call, fbp_tensor *out) {
    const fbp_source_attribute *source = call->attributes;
    fbp_random_position at = position_of(source);
    if (out->dtype == FBP_FLOAT32)
        fbp_kernels->random->normal_f32(at, out->numel, (float)source->p[0], (float)source->p[1], F32(out));
    else fbp_kernels->random->normal_f64(at, out->numel, source->p[0], source->p[1], F64(out));
    return FBP_OK;
}

fbp_status run_exponential(const fbp_call *call, fbp_tensor *out) {
    const fbp_source_attribute *source = call->attributes;
    fbp_random_position at = position_of(source);
    if (out->dtype == FBP_FLOAT32) fbp_kernels->random->exponential_f32(at, out->numel, (float)source->p[0], F32(out));
    else fbp_kernels->random->exponential_f64(at, out->numel, source->p[0], F64(out));
    return FBP_OK;
}

static void fill_integers(const fbp_source_attribute *source, int64_t n, void *to) {
    fbp_kernels->random->integers(position_of(source), n, source->integer[0], source->integer[1], to);
}
fbp_status run_randint(const fbp_call *call, fbp_tensor *out) { return filled_as(call, out, FBP_INT64, fill_integers); }

static void fill_permutation(const fbp_source_attribute *source, int64_t n, void *to) {
    fbp_kernels->random->permutation(position_of(source), n, to);
}
fbp_status run_permutation(const fbp_call *call, fbp_tensor *out) { return filled_as(call, out, FBP_INT64, fill_permutation); }

static void fill_bernoulli(const fbp_source_attribute *source, int64_t n, void *to) {
    fbp_kernels->random->bernoulli(position_of(source), n, source->p[0], to);
}
fbp_status run_bernoulli(const fbp_call *call, fbp_tensor *out) { return filled_as(call, out, FBP_BOOL, fill_bernoulli); }

/* ---- dropout: a diagonal matrix of random zeros, made anew from (seed, offset) wherever it is applied ------------------------------ */

fbp_status infer_dropout(const fbp_call *call, fbp_layout *layout, bool *is_view) {
    const fbp_tensor *x = call->inputs[0];
    (void)is_view;
    if (!fbp_dtype_is_float((fbp_dtype)x->dtype))
        return fbp_fail(FBP_ERROR_RUNTIME, "dropout: expected a floating point dtype, got %s", fbp_dtype_name((fbp_dtype)x->dtype));
    return fbp_layout_contiguous(layout, (fbp_dtype)x->dtype, x->ndim, fbp_shape(x));
}

fbp_status run_dropout(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *x = call->inputs[0];
    const fbp_source_attribute *source = call->attributes;
    if (!x->numel) return FBP_OK;
    uint8_t *mask = fbp_memory_get((size_t)x->numel); /* the kernel's by-product: the rule needs none */
    if (!mask) return fbp_fail(FBP_ERROR_MEMORY, "dropout: cannot allocate a mask of %lld bytes", (long long)x->numel);
    fbp_random_position at = position_of(source);
    if (x->dtype == FBP_FLOAT32) fbp_kernels->random->dropout_f32(at, x->numel, source->p[0], F32(x), F32(out), mask);
    else fbp_kernels->random->dropout_f64(at, x->numel, source->p[0], F64(x), F64(out), mask);
    fbp_memory_free(mask, (size_t)x->numel);
    return FBP_OK;
}
