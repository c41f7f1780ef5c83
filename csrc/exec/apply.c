/* apply.c -- one op, now: cast the inputs, infer the result's layout, compute, record. */
#include "exec/apply.h"

#include <string.h>

#include "base/memory.h"
#include "exec/anomaly.h"
#include "exec/batched.h"
#include "exec/capture.h"
#include "exec/views.h"
#include "kernels/kernels.h"

enum {
    INPUTS_INSIDE = 8,
    PLAIN_MAX = 16384 /* elements: above it, threads and not overhead matter */
};

fbp_mode *fbp_mode_get(void) {
    static _Thread_local fbp_mode mode = {.grad_enabled = true, .quiet_level = UINT64_MAX};
    return &mode;
}

/* ---- moving elements ------------------------------------------------------------------------------------------------- */

static void byte_strides(const fbp_tensor *t, int64_t *strides) {
    for (int i = 0; i < t->ndim; i++) strides[i] = fbp_strides(t)[i] * fbp_dtype_size(t->dtype);
}

void fbp_elements_copy(fbp_tensor *target, const fbp_tensor *source) {
    int64_t to[FBP_MAX_NDIM], from[FBP_MAX_NDIM];
    byte_strides(target, to);
    byte_strides(source, from);
    fbp_kernels->copy->strided(target->ndim, fbp_shape(target), fbp_dtype_size(target->dtype), target->data, to, source->data, from);
}

fbp_status fbp_contiguous_copy(fbp_tensor *x, fbp_tensor **out) {
    fbp_layout layout;
    FBP_TRY(fbp_layout_contiguous(&layout, x->dtype, x->ndim, fbp_shape(x)));
    fbp_capture *capture = fbp_mode_get()->capture;
    const fbp_call copy = {FBP_OP_copy, 1, &x, NULL, 0};
    if (capture) return fbp_capture_apply(capture, &copy, -1, &layout, 0, 0, out);
    FBP_TRY(fbp_tensor_empty(&layout, 0, 0, out));
    fbp_elements_copy(*out, x);
    return FBP_OK;
}

/* ---- inputs as the op wants them --------------------------------------------------------------------------------------- */

/* The inputs of one call, some of them replaced by casts or regenerated views, which it owns. */
typedef struct prepared {
    fbp_tensor **inputs, **owned; /* an input may be replaced twice: refreshed, then cast */
    int owned_count;
    size_t block_bytes;           /* of the block behind both, 0 when they lie inside */
    fbp_tensor *inside[3 * INPUTS_INSIDE];
} prepared;

static fbp_status prepared_begin(const fbp_call *call, prepared *p) {
    size_t count = (size_t)call->count;
    p->inputs = p->inside;
    if (count > INPUTS_INSIDE) {
        p->block_bytes = 3 * count * sizeof *p->inputs;
        p->inputs = fbp_block_get(p->block_bytes);
        if (!p->inputs) {
            p->block_bytes = 0;
            return fbp_fail(FBP_ERROR_MEMORY, "%s: cannot allocate a list of %d inputs", fbp_ops[call->op].name, call->count);
        }
    }
    p->owned = p->inputs + count;
    memcpy(p->inputs, call->inputs, count * sizeof *p->inputs);
    return FBP_OK;
}

static void prepared_end(prepared *p) {
    for (int i = 0; i < p->owned_count; i++) fbp_release(p->owned[i]);
    if (p->block_bytes) fbp_block_free(p->inputs, p->block_bytes);
}

/* Inputs of elementwise ops are cast to the type that the op computes in; each cast is an op of its own, so that it
 * is differentiated like any other. */
static fbp_status prepare_casts(const fbp_call *call, prepared *p) {
    fbp_dtype dtype = (fbp_dtype)call->inputs[0]->dtype;
    bool uniform = call->op != FBP_OP_where;
    for (int i = 1; i < call->count; i++) uniform &= call->inputs[i]->dtype == dtype;
    const fbp_op_row *row = &fbp_ops[call->op];
    if (uniform && (row->kind == FBP_KIND_N ? dtype != FBP_BOOL || row->class == FBP_CLASS_PREDICATE
                                            : row->kind == FBP_KIND_F && fbp_dtype_is_float(dtype)))
        return FBP_OK;
    FBP_TRY(fbp_compute_dtype(call, &dtype));
    const fbp_dtype_attribute attribute = {dtype};
    const fbp_dtype_attribute condition = {FBP_BOOL};
    for (int i = 0; i < call->count; i++) {
        const fbp_dtype_attribute *wanted = call->op == FBP_OP_where && i == 0 ? &condition : &attribute;
        if (p->inputs[i]->dtype == wanted->dtype) continue;
        fbp_tensor *cast;
        FBP_TRY(fbp_apply(FBP_OP_cast, 1, &p->inputs[i], wanted, sizeof *wanted, &cast));
        cast->flags |= p->inputs[i]->flags & FBP_NUMBER;
        p->inputs[i] = p->owned[p->owned_count++] = cast;
    }
    return FBP_OK;
}

/* A view whose base was changed in place through another door takes its history from the newest base. */
static fbp_status prepare_views(int count, prepared *p) {
    for (int i = 0; i < count; i++) {
        fbp_tensor *x = p->inputs[i];
        if (!x || !fbp_view_is_stale(x)) continue;
        fbp_tensor *fresh;
        FBP_TRY(fbp_view_refresh(x, &fresh));
        p->inputs[i] = p->owned[p->owned_count++] = fresh;
    }
    return FBP_OK;
}

static bool any_stale(int count, fbp_tensor *const *inputs) {
    for (int i = 0; i < count; i++)
        if (inputs[i] && fbp_view_is_stale(inputs[i])) return true;
    return false;
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

static bool all_contiguous(const fbp_call *call) {
    for (int i = 0; i < call->count; i++)
        if (call->inputs[i] && !fbp_is_contiguous(call->inputs[i])) return false;
    return true;
}

/* Run the row's kernel; rows that want contiguous inputs get copies of those that are not. */
static fbp_status run(const fbp_call *call, fbp_tensor *out) {
    const fbp_op_row *row = &fbp_ops[call->op];
    if (all_contiguous(call) || fbp_op_strided[call->op]) return row->run(call, out);
    if (call->count > INPUTS_INSIDE)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: more than %d inputs, of which some are not contiguous", row->name, INPUTS_INSIDE);
    fbp_tensor *inputs[INPUTS_INSIDE], *owned[INPUTS_INSIDE];
    int owned_count = 0;
    fbp_status status = FBP_OK;
    for (int i = 0; i < call->count && status == FBP_OK; i++) {
        inputs[i] = call->inputs[i];
        if (!inputs[i] || fbp_is_contiguous(inputs[i])) continue;
        status = fbp_contiguous_copy(inputs[i], &inputs[i]);
        if (status == FBP_OK) owned[owned_count++] = inputs[i];
    }
    if (status == FBP_OK) {
        fbp_call contiguous = *call;
        contiguous.inputs = inputs;
        status = row->run(&contiguous, out);
    }
    while (owned_count) fbp_release(owned[--owned_count]);
    return status;
}

/* ---- recording ----------------------------------------------------------------------------------------------------------- */

/* Of a batched call, only tensors of its own level count: others are differentiated behind it. */
bool fbp_wants_record(const fbp_call *call, const fbp_mode *mode, uint64_t level) {
    if (!mode->grad_enabled || !fbp_ops[call->op].vjp || mode->quiet_level <= level) return false;
    for (int i = 0; i < call->count; i++)
        if (call->inputs[i] && fbp_requires_grad(call->inputs[i]) && (!level || fbp_level(call->inputs[i]) == level)) return true;
    return false;
}

static bool wants_record(const fbp_call *call, const fbp_mode *mode) { return fbp_wants_record(call, mode, 0); }

/* Which of A, B, C, Y the rules of those inputs that require a gradient read. */
static int saved_values(const fbp_call *call, const fbp_mode *mode) {
    const fbp_op_row *row = &fbp_ops[call->op];
    if (mode->keep_values) return NEED_A | NEED_B | NEED_C | NEED_Y;
    int needs = 0;
    for (int i = 0; i < call->count && i < 3; i++)
        if (call->inputs[i] && fbp_requires_grad(call->inputs[i])) needs |= row->needs[i];
    return needs;
}

void fbp_record(const fbp_call *call, const fbp_mode *mode, fbp_tensor *out) {
    int needs = saved_values(call, mode);
    for (int i = 0; i < call->count; i++) {
        if (!call->inputs[i]) continue;
        fbp_edge_set(out, i, call->inputs[i], i < 3 ? needs >> i & 1 : mode->keep_values);
    }
    if (call->attribute_bytes) memcpy(fbp_attributes(out), call->attributes, (size_t)call->attribute_bytes);
    if (needs & NEED_Y) {
        out->value_references++;
        out->flags |= FBP_HOLDS_OWN_VALUE;
    }
    out->flags |= FBP_REQUIRES_GRAD;
    out->op = (uint16_t)call->op;
}

static fbp_status apply_prepared(const fbp_call *call, fbp_tensor **out) {
    const fbp_op_row *row = &fbp_ops[call->op];
    const fbp_mode *mode = fbp_mode_get();
    fbp_layout layout;
    bool is_view = false;
    if (mode->vmap_count) {
        FBP_TRY(fbp_random_check(call->op));
        if (fbp_level_of(call->count, call->inputs)) return fbp_batched_apply(call, out);
    }
    if (mode->capture && fbp_op_value_shaped[call->op])
        return fbp_fail(FBP_ERROR_RUNTIME, "compile: the shape of %s's result (of an index by a bool mask, too) depends on values; "
                                           "use where() with both branches, or multiply by the mask", row->name);
    FBP_TRY(row->infer(call, &layout, &is_view));
    bool recorded = fbp_dtype_is_float(layout.dtype) && wants_record(call, mode);
    int edges = recorded ? call->count : 0, attribute_bytes = recorded ? call->attribute_bytes : 0;
    fbp_tensor *result;
    if (is_view) {
        fbp_tensor *base = call->inputs[0];
        if (mode->capture && !base->storage->symbolic && !base->storage->captured) fbp_capture_see(mode->capture, base);
        FBP_TRY(fbp_tensor_view(base, &layout, edges, attribute_bytes, &result));
    } else if (mode->capture) {
        FBP_TRY(fbp_capture_apply(mode->capture, call, -1, &layout, edges, attribute_bytes, &result));
    } else {
        FBP_TRY(fbp_tensor_empty(&layout, edges, attribute_bytes, &result));
        fbp_status status = run(call, result);
        if (status != FBP_OK) {
            fbp_release(result);
            return status;
        }
    }
    if (recorded) fbp_record(call, mode, result);
    *out = result;
    return FBP_OK;
}

fbp_status fbp_elements_check(const char *op, const fbp_tensor *t) {
    if (!(t->flags & FBP_SYMBOLIC)) return FBP_OK;
    if (fbp_is_batched(t)) return fbp_level_check(op, t);
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: a tensor of shape %s was made while a function was compiled and has no values; return it from the "
                                       "function to use it outside", op, fbp_tensor_shape_text(t));
}

/* A tensor of a capture that has ended has no elements, nor has one of a vmap; those of a capture under way are its own to check. */
static fbp_status elements_check(const fbp_call *call, const fbp_mode *mode) {
    for (int i = 0; i < call->count; i++) {
        const fbp_tensor *t = call->inputs[i];
        if (t && (t->flags & FBP_SYMBOLIC) && (fbp_is_batched(t) || !mode->capture)) FBP_TRY(fbp_elements_check(fbp_ops[call->op].name, t));
    }
    return FBP_OK;
}

/* The inputs of `call` made ready; `*ready` then stands for it, and `p` must be ended whatever is returned. */
static fbp_status prepare(const fbp_call *call, prepared *p, fbp_call *ready) {
    p->owned_count = 0;
    p->block_bytes = 0;
    *ready = *call;
    const fbp_op_row *row = &fbp_ops[call->op];
    bool elementwise = row->class == FBP_CLASS_POINTWISE || row->class == FBP_CLASS_PREDICATE;
    FBP_TRY(elements_check(call, fbp_mode_get()));
    bool stale = any_stale(call->count, call->inputs);
    if (!elementwise && !stale) return FBP_OK;
    FBP_TRY(prepared_begin(call, p));
    ready->inputs = p->inputs;
    if (stale) FBP_TRY(prepare_views(call->count, p));
    return elementwise ? prepare_casts(call, p) : FBP_OK;
}

/* The path of most eager calls: an elementwise floating op on plain arrays of one shape and type. */
static bool is_plain(const fbp_call *call) {
    const fbp_op_row *row = &fbp_ops[call->op];
    if (row->class != FBP_CLASS_POINTWISE || row->kind == FBP_KIND_I || call->count > 2) return false;
    const fbp_tensor *a = call->inputs[0], *b = call->inputs[call->count - 1];
    return fbp_dtype_is_float((fbp_dtype)a->dtype) && a->dtype == b->dtype && (a->flags & b->flags & FBP_CONTIGUOUS) &&
           !((a->flags | b->flags) & (FBP_VIEW | FBP_SYMBOLIC)) && fbp_same_shape(a, b) && a->numel <= PLAIN_MAX;
}

static fbp_status apply_plain(const fbp_call *call, const fbp_mode *mode, fbp_tensor **out) {
    static const double no_parameters[2] = {0, 0};
    const fbp_tensor *a = call->inputs[0], *b = call->inputs[call->count - 1];
    bool recorded = wants_record(call, mode);
    fbp_tensor *result;
    FBP_TRY(fbp_tensor_like(a, recorded ? call->count : 0, recorded ? call->attribute_bytes : 0, &result));
    fbp_kernels->pointwise->forward[call->op][a->dtype - FBP_FLOAT32](a->numel, result->data, a->data, b->data,
                                                                      call->attributes ? call->attributes : no_parameters);
    if (recorded) fbp_record(call, mode, result);
    *out = result;
    return FBP_OK;
}

fbp_status fbp_apply(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes, fbp_tensor **out) {
    const fbp_call call = {op, count, inputs, attributes, attribute_bytes};
    if (is_plain(&call)) {
        const fbp_mode *mode = fbp_mode_get();
        if (!mode->capture && !mode->anomaly) return apply_plain(&call, mode, out);
    }
    prepared p;
    fbp_call ready;
    const fbp_mode *mode = fbp_mode_get();
    const bool holds = mode->anomaly || mode->vmap_count; /* the host is asked on the way, and handles may come to stand for other nodes */
    for (int i = 0; holds && i < count; i++)
        if (inputs[i]) fbp_retain(inputs[i]);
    fbp_status status = prepare(&call, &p, &ready);
    if (status == FBP_OK) status = apply_prepared(&ready, out);
    if (status == FBP_OK && mode->anomaly) {
        status = fbp_anomaly_made(&ready, !fbp_ops[op].view && fbp_anomaly_watches(&ready), *out);
        if (status != FBP_OK) fbp_release(*out);
    }
    prepared_end(&p);
    for (int i = 0; holds && i < count; i++)
        if (inputs[i]) fbp_release(inputs[i]);
    return status;
}

fbp_status fbp_apply_out(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes, fbp_tensor *out) {
    const fbp_call call = {op, count, inputs, attributes, attribute_bytes};
    const char *name = fbp_ops[op].name;
    fbp_layout layout;
    bool is_view = false, records = fbp_mode_get()->grad_enabled;
    const fbp_call written = {op, 1, &out, NULL, 0};
    FBP_TRY(fbp_unbatched_check(op, count, inputs));
    FBP_TRY(fbp_unbatched_check(op, 1, &out));
    FBP_TRY(elements_check(&call, fbp_mode_get()));
    FBP_TRY(elements_check(&written, fbp_mode_get()));
    FBP_TRY(fbp_ops[op].infer(&call, &layout, &is_view));
    if (layout.dtype != out->dtype || layout.ndim != out->ndim || memcmp(layout.shape, fbp_shape(out), out->ndim * sizeof(int64_t)) != 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: out= has shape %s, %s, the result %s, %s", name, fbp_tensor_shape_text(out),
                        fbp_dtype_name((fbp_dtype)out->dtype), fbp_shape_text(layout.ndim, layout.shape),
                        fbp_dtype_name((fbp_dtype)layout.dtype));
    if (!fbp_is_contiguous(out) || out->storage->read_only)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s: out= must be contiguous and writable", name);
    for (int i = 0; i < count; i++) {
        bool same = fbp_ops[op].class == FBP_CLASS_POINTWISE && inputs[i]->data == out->data && fbp_same_shape(inputs[i], out) &&
                    fbp_is_contiguous(inputs[i]); /* elementwise kernels may write where they read */
        if (inputs[i]->storage == out->storage && !same) return fbp_fail(FBP_ERROR_RUNTIME, "%s: out= shares memory with an input", name);
        if (records && (fbp_requires_grad(inputs[i]) || fbp_requires_grad(out)))
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: functions with out=... arguments don't support automatic differentiation, but one of the "
                                               "arguments requires grad.", name);
    }
    fbp_capture *capture = fbp_mode_get()->capture;
    if (capture) {
        fbp_tensor *result;
        FBP_TRY(fbp_capture_apply(capture, &call, -1, &layout, 0, 0, &result));
        fbp_status status = fbp_capture_write(capture, out, result);
        fbp_release(result);
        FBP_TRY(status);
    } else {
        const bool watched = fbp_anomaly_watches(&call);
        FBP_TRY(run(&call, out));
        out->storage->version++; /* whatever was written */
        return watched ? fbp_anomaly_made(&call, true, out) : FBP_OK;
    }
    out->storage->version++;
    return FBP_OK;
}

/* ---- in place -------------------------------------------------------------------------------------------------------------- */

fbp_status fbp_writable(const char *op, const fbp_tensor *t) {
    if (t->storage->read_only)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s_: the memory of this tensor is read-only (it came from a read-only array); clone() it first", op);
    const fbp_tensor *owner = t;
    while ((owner->flags & FBP_VIEW) && owner->edge_count && fbp_ops[owner->op].view) owner = fbp_input(owner, 0);
    if (fbp_requires_grad(owner) && owner->edge_count == 0 && fbp_mode_get()->grad_enabled)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s_: a %sleaf Variable that requires grad is being used in an in-place operation; "
                                           "work under no_grad(), or on a clone()", op, owner == t ? "" : "view of a ");
    for (int i = 0; i < t->ndim; i++)
        if (fbp_strides(t)[i] == 0 && fbp_shape(t)[i] > 1)
            return fbp_fail(FBP_ERROR_RUNTIME, "%s_: more than one element of the written-to tensor of shape %s refers to a single "
                                               "memory location; clone() it first", op, fbp_tensor_shape_text(t));
    return FBP_OK;
}

/* Whether an input looks into the target's storage other than exactly as the target does: then it must be read before the write. */
static bool overlaps(const fbp_call *call, const fbp_tensor *target) {
    for (int i = 0; i < call->count; i++) {
        const fbp_tensor *x = call->inputs[i];
        if (!x || x == target || x->storage != target->storage) continue;
        if (x->data != target->data || !fbp_same_shape(x, target) ||
            memcmp(fbp_strides(x), fbp_strides(target), x->ndim * sizeof(int64_t)) != 0)
            return true;
    }
    return false;
}

/* Whether a slice is all of its tensor. */
static bool is_whole(const fbp_slice_attribute *slice) {
    for (int i = 0; i < slice->ndim; i++)
        if (slice->dropped || slice->axis[i].step != 1 || slice->axis[i].count != slice->axis[i].size) return false;
    return true;
}

/* The same as lines of a program: the result by itself, cast where needed, then the write. */
static fbp_status write_captured(fbp_capture *capture, const fbp_call *call, const fbp_layout *layout, fbp_tensor *target) {
    fbp_tensor *result, *cast;
    if (call->op == FBP_OP_slice_assign && is_whole(call->attributes) && call->inputs[1]->dtype == target->dtype &&
        call->inputs[1]->storage != target->storage)
        return fbp_capture_write(capture, target, call->inputs[1]);
    FBP_TRY(fbp_capture_apply(capture, call, -1, layout, 0, 0, &result));
    fbp_status status = FBP_OK;
    if (result->dtype != target->dtype) {
        const fbp_dtype_attribute dtype = {target->dtype};
        status = fbp_apply(FBP_OP_cast, 1, &result, &dtype, sizeof dtype, &cast);
        fbp_release(result);
        FBP_TRY(status);
        result = cast;
    }
    status = fbp_capture_write(capture, target, result);
    fbp_release(result);
    return status;
}

/* Compute into target's own elements. */
static fbp_status write(const fbp_call *call, const fbp_layout *layout, fbp_tensor *target) {
    const fbp_op_row *row = &fbp_ops[call->op];
    fbp_capture *capture = fbp_mode_get()->capture;
    if (capture) return write_captured(capture, call, layout, target);
    bool able = row->class == FBP_CLASS_POINTWISE ? fbp_is_contiguous(target)
                                                  : fbp_op_overwrites[call->op] && (fbp_op_strided[call->op] || all_contiguous(call));
    if (able && layout->dtype == target->dtype && !overlaps(call, target)) return row->run(call, target);
    fbp_tensor *result;
    FBP_TRY(fbp_tensor_empty(layout, 0, 0, &result));
    fbp_status status = run(call, result);
    if (status == FBP_OK && result->dtype != target->dtype) {
        fbp_layout converted = *layout;
        fbp_tensor *cast;
        converted.dtype = target->dtype;
        status = fbp_tensor_empty(&converted, 0, 0, &cast);
        if (status == FBP_OK) {
            fbp_kernels->copy->cast((fbp_dtype)result->dtype, (fbp_dtype)target->dtype, result->numel, cast->data, result->data);
            fbp_release(result);
            result = cast;
        }
    }
    if (status == FBP_OK) fbp_elements_copy(target, result);
    fbp_release(result);
    return status;
}

static fbp_status write_check(const fbp_call *call, const fbp_layout *layout, const fbp_tensor *target) {
    const char *name = fbp_ops[call->op].name;
    if (layout->ndim != target->ndim || memcmp(layout->shape, fbp_shape(target), layout->ndim * sizeof *layout->shape) != 0)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s_: output with shape %s doesn't match the broadcast shape %s", name,
                        fbp_tensor_shape_text(target), fbp_shape_text(layout->ndim, layout->shape));
    bool to_float = fbp_dtype_is_float((fbp_dtype)target->dtype), from_float = fbp_dtype_is_float((fbp_dtype)layout->dtype);
    if ((from_float && !to_float) || (target->dtype == FBP_BOOL && layout->dtype != FBP_BOOL))
        return fbp_fail(FBP_ERROR_RUNTIME, "%s_: result type %s can't be cast to the desired output type %s", name,
                        fbp_dtype_name((fbp_dtype)layout->dtype), fbp_dtype_name((fbp_dtype)target->dtype));
    return FBP_OK;
}

/* Values that the rule reads and the write is about to destroy are saved as copies, recorded like any op. */
static fbp_status save_overwritten(const fbp_call *call, const fbp_mode *mode, const fbp_tensor *target, fbp_tensor **inputs,
                                   fbp_tensor **owned, int *owned_count) {
    int needs = saved_values(call, mode);
    for (int i = 0; i < call->count && i < 3; i++) {
        if (!(needs >> i & 1) || !inputs[i] || inputs[i]->storage != target->storage) continue;
        FBP_TRY(fbp_apply(FBP_OP_copy, 1, &inputs[i], NULL, 0, &owned[*owned_count]));
        inputs[i] = owned[(*owned_count)++];
    }
    return FBP_OK;
}

/* The recorded form: a new node over target's elements, which the handle in *target_at then stands for. */
static fbp_status in_place_recorded(const fbp_call *call, const fbp_layout *layout, fbp_tensor *target, fbp_tensor **target_at) {
    const fbp_mode *mode = fbp_mode_get();
    fbp_tensor *inputs[INPUTS_INSIDE], *owned[3], *result = NULL;
    int owned_count = 0;
    fbp_call saved = *call;
    fbp_layout own;
    FBP_TRY(fbp_view_rebase_check(fbp_ops[call->op].name, target));
    if (mode->capture && !target->storage->symbolic && !target->storage->captured)
        return fbp_fail(FBP_ERROR_RUNTIME, "compile: %s_: a value that requires grad is written into a tensor from outside of the function; "
                                           "write value.detach(), or return the value", fbp_ops[call->op].name);
    memcpy(inputs, call->inputs, (size_t)call->count * sizeof *inputs);
    saved.inputs = inputs;
    fbp_layout_of(target, &own);
    fbp_status status = save_overwritten(call, mode, target, inputs, owned, &owned_count);
    if (status == FBP_OK) status = fbp_tensor_view(target, &own, call->count, call->attribute_bytes, &result);
    if (status == FBP_OK) {
        result->flags = (uint16_t)((result->flags & ~FBP_VIEW) | (target->flags & FBP_VIEW));
        fbp_record(&saved, mode, result); /* edges remember the version before the write, the node the one after */
        status = write(call, layout, target);
    }
    while (owned_count) fbp_release(owned[--owned_count]);
    if (status != FBP_OK) {
        if (result) fbp_release(result);
        return status;
    }
    result->version = ++target->storage->version;
    return fbp_view_rebase(target, result, target_at);
}

static fbp_status in_place_prepared(const fbp_call *call, fbp_tensor **target_at) {
    const fbp_op_row *row = &fbp_ops[call->op];
    const fbp_mode *mode = fbp_mode_get();
    fbp_tensor *target = *target_at;
    fbp_layout layout;
    bool is_view = false;
    FBP_TRY(fbp_writable(row->name, target));
    FBP_TRY(row->infer(call, &layout, &is_view));
    FBP_TRY(write_check(call, &layout, target));
    bool recorded = fbp_dtype_is_float((fbp_dtype)target->dtype) && wants_record(call, mode);
    bool watched = fbp_anomaly_watches(call);
    if (recorded) {
        FBP_TRY(in_place_recorded(call, &layout, target, target_at));
    } else {
        FBP_TRY(write(call, &layout, target));
        target->storage->version++;
    }
    return mode->anomaly ? fbp_anomaly_made(call, watched, *target_at) : FBP_OK;
}

fbp_status fbp_apply_in_place(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes,
                              fbp_tensor **target) {
    fbp_tensor *current[INPUTS_INSIDE];
    fbp_call call = {op, count, current, attributes, attribute_bytes};
    prepared p;
    fbp_call ready;
    FBP_TRY(fbp_unbatched_check(op, count, inputs));
    if (count > INPUTS_INSIDE) return fbp_fail(FBP_ERROR_RUNTIME, "%s_: more than %d inputs", fbp_ops[op].name, INPUTS_INSIDE);
    memcpy(current, inputs, (size_t)count * sizeof *current);
    if (fbp_view_is_stale(*target)) {
        fbp_tensor *fresh;
        FBP_TRY(fbp_view_refresh(*target, &fresh));
        fbp_view_adopt(*target, fresh, target);
        current[0] = fresh;
    }
    fbp_status status = prepare(&call, &p, &ready);
    if (status == FBP_OK) status = in_place_prepared(&ready, target);
    prepared_end(&p);
    return status;
}

/* `source` cast to `like`'s type and repeated to a shape, as recorded ops; *out is new. */
static fbp_status fitted(const char *op, fbp_tensor *source, const fbp_tensor *like, int ndim, const int64_t *shape, fbp_tensor **out) {
    fbp_tensor *cast = fbp_retain(source);
    if (source->dtype != like->dtype) {
        const fbp_dtype_attribute dtype = {like->dtype};
        fbp_release(cast);
        FBP_TRY(fbp_apply(FBP_OP_cast, 1, &source, &dtype, sizeof dtype, &cast));
    }
    fbp_shape_attribute target = {.ndim = ndim};
    memcpy(target.shape, shape, (size_t)ndim * sizeof *shape);
    /* Leading axes of size 1 that the place lacks are dropped, as NumPy's assignment does. */
    fbp_status status = FBP_OK;
    if (cast->ndim > ndim) {
        int lead = cast->ndim - ndim;
        fbp_shape_attribute dropped = {.ndim = ndim};
        memcpy(dropped.shape, fbp_shape(cast) + lead, (size_t)ndim * sizeof *shape);
        fbp_tensor *flat;
        status = fbp_apply(FBP_OP_reshape, 1, &cast, &dropped, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, ndim), &flat);
        if (status == FBP_OK) {
            fbp_release(cast);
            cast = flat;
        }
    }
    if (status == FBP_OK)
        status = fbp_apply(FBP_OP_expand, 1, &cast, &target, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, ndim), out);
    fbp_release(cast);
    if (status == FBP_ERROR_RUNTIME)
        status = fbp_fail(FBP_ERROR_RUNTIME, "%s: the expanded size of the tensor %s must match the value's shape %s", op,
                          fbp_shape_text(ndim, shape), fbp_tensor_shape_text(source));
    return status;
}

fbp_status fbp_assign(fbp_tensor **target, const fbp_slice_attribute *slice, fbp_tensor *source) {
    int64_t shape[FBP_MAX_NDIM];
    int ndim = 0;
    for (int i = 0; i < slice->ndim; i++)
        if (!(slice->dropped >> i & 1)) shape[ndim++] = slice->axis[i].count;
    fbp_tensor *value;
    FBP_TRY(fitted("slice assignment", source, *target, ndim, shape, &value));
    fbp_tensor *inputs[2] = {*target, value};
    fbp_status status = fbp_apply_in_place(FBP_OP_slice_assign, 2, inputs, slice,
                                           FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, slice->ndim), target);
    fbp_release(value);
    return status;
}

fbp_status fbp_copy_in_place(fbp_tensor **target, fbp_tensor *source) {
    fbp_slice_attribute whole = {.ndim = (*target)->ndim};
    for (int i = 0; i < whole.ndim; i++) {
        int64_t size = fbp_shape(*target)[i];
        whole.axis[i] = (struct fbp_slice_axis){0, 1, size, size};
    }
    return fbp_assign(target, &whole, source);
}
