/* pull.c -- choosing between the fused kernel, a line of a program, and, for batches, one of them on what lies behind. */
#include "exec/pull.h"

#include <string.h>

#include "exec/apply.h"
#include "exec/capture.h"
#include "graph/batched.h"
#include "kernels/kernels.h"

enum { G, A, B, Y, OPERANDS }; /* in the order of a pull line's inputs */
enum { PERIOD_MIN = 64 };      /* elements: shorter pieces are not worth a call of a kernel */

/* One pull; operands that the kernel does not read are NULL. */
typedef struct pull {
    fbp_op op;
    int which;
    const void *attributes;
    int attribute_bytes;
    fbp_tensor *operand[OPERANDS];
} pull;

bool fbp_is_exclusive(const fbp_tensor *t) {
    return t->references == 1 && t->storage->references == 1 && fbp_is_contiguous(t) && !t->edge_count && !t->storage->release;
}

static void run_kernel(const pull *p, int64_t n, char *out, const char *const *data) {
    static const double no_parameters[2] = {0, 0};
    fbp_kernels->pointwise->pull[p->op][p->which][p->operand[G]->dtype - FBP_FLOAT32](n, out, data[G], data[A], data[B], data[Y],
                                                                                      p->attribute_bytes ? p->attributes : no_parameters);
}

/* ---- operands with elements -------------------------------------------------------------------------------------------------- */

/* The shape of all operands together; false where they do not broadcast or differ in type. */
static bool common_layout(const pull *p, fbp_layout *layout, fbp_status *status) {
    int ndim = p->operand[G]->ndim;
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(p->operand[G]), (size_t)ndim * sizeof *shape);
    for (int i = A; i < OPERANDS; i++) {
        const fbp_tensor *x = p->operand[i];
        if (!x) continue;
        if (x->dtype != p->operand[G]->dtype || !fbp_broadcast(&ndim, shape, x->ndim, fbp_shape(x))) return false;
    }
    *status = fbp_layout_contiguous(layout, (fbp_dtype)p->operand[G]->dtype, ndim, shape);
    return true;
}

/* As a line of a program, where operands may be broadcast but the cotangent has the output's shape. */
static fbp_status pull_captured(fbp_capture *capture, const pull *p, const fbp_layout *layout, fbp_tensor **out) {
    fbp_tensor *inputs[OPERANDS], *full = NULL;
    memcpy(inputs, p->operand, sizeof inputs);
    if (inputs[G]->ndim != layout->ndim || memcmp(fbp_shape(inputs[G]), layout->shape, layout->ndim * sizeof(int64_t)) != 0) {
        fbp_shape_attribute shape = {.ndim = layout->ndim};
        memcpy(shape.shape, layout->shape, layout->ndim * sizeof(int64_t));
        FBP_TRY(fbp_apply(FBP_OP_expand, 1, &inputs[G], &shape, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, layout->ndim), &full));
        inputs[G] = full;
    }
    const fbp_call call = {p->op, OPERANDS, inputs, p->attribute_bytes ? p->attributes : NULL, p->attribute_bytes};
    fbp_status status = fbp_capture_apply(capture, &call, p->which, layout, 0, 0, out);
    if (full) fbp_release(full);
    return status;
}

/* How many elements of x lie behind one another before they are read again: all, or those of its last axes where
 * the ones before are not there.  0 where x lies otherwise. */
static int64_t period(const fbp_tensor *x, const fbp_layout *layout) {
    if (!fbp_is_contiguous(x)) return 0;
    int axis = 0;
    while (axis < x->ndim && fbp_shape(x)[axis] == 1) axis++;
    for (int i = axis; i < x->ndim; i++)
        if (fbp_shape(x)[i] != layout->shape[i + layout->ndim - x->ndim]) return 0;
    return x->numel;
}

/* A contiguous copy of x in the whole shape. */
static fbp_status spread(fbp_tensor *x, const fbp_layout *layout, fbp_tensor **out) {
    fbp_shape_attribute shape = {.ndim = layout->ndim};
    fbp_tensor *view;
    memcpy(shape.shape, layout->shape, layout->ndim * sizeof(int64_t));
    FBP_TRY(fbp_apply(FBP_OP_expand, 1, &x, &shape, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, layout->ndim), &view));
    fbp_status status = fbp_contiguous_copy(view, out);
    fbp_release(view);
    return status;
}

/* Run over the shortest period of the operands, again and again; those that lie otherwise are written out first. */
static fbp_status pull_broadcast(const pull *p, const fbp_layout *layout, fbp_tensor **out) {
    fbp_tensor *owned[OPERANDS] = {0};
    const fbp_tensor *operand[OPERANDS];
    int64_t periods[OPERANDS] = {0}, block = layout->numel;
    fbp_status status = FBP_OK;
    for (int i = 0; i < OPERANDS && status == FBP_OK; i++) {
        if (!(operand[i] = p->operand[i])) continue;
        periods[i] = period(p->operand[i], layout);
        if (periods[i] < PERIOD_MIN && periods[i] < layout->numel) {
            status = spread(p->operand[i], layout, &owned[i]);
            operand[i] = owned[i];
            periods[i] = layout->numel;
        }
        if (periods[i] < block) block = periods[i];
    }
    if (status == FBP_OK) status = fbp_tensor_empty(layout, 0, 0, out);
    const int size = fbp_dtype_size((fbp_dtype)layout->dtype);
    for (int64_t at = 0; status == FBP_OK && at < layout->numel; at += block) {
        const char *data[OPERANDS] = {0};
        for (int i = 0; i < OPERANDS; i++)
            if (operand[i]) data[i] = operand[i]->data + at % periods[i] * size;
        run_kernel(p, block, (*out)->data + at * size, data);
    }
    for (int i = 0; i < OPERANDS; i++)
        if (owned[i]) fbp_release(owned[i]);
    return status;
}

static bool is_flat(const fbp_tensor *x, const fbp_tensor *g) {
    return !x || (x->numel == g->numel && fbp_is_contiguous(x) && x->dtype == g->dtype && x->ndim == g->ndim);
}

/* The usual case: all operands contiguous and of one shape. */
static fbp_status pull_flat(const pull *p, bool reuse, fbp_tensor **out) {
    fbp_tensor *g = p->operand[G];
    const char *data[OPERANDS];
    for (int i = 0; i < OPERANDS; i++) data[i] = p->operand[i] ? p->operand[i]->data : NULL;
    if (reuse && fbp_is_exclusive(g)) *out = fbp_retain(g);
    else FBP_TRY(fbp_tensor_like(g, 0, 0, out));
    run_kernel(p, g->numel, (*out)->data, data);
    return FBP_OK;
}

/* ---- batched operands ---------------------------------------------------------------------------------------------------------- */

static bool pull_operands(const pull *p, bool reuse, fbp_tensor **out, fbp_status *status);

/* The operand behind a batched one, with room for more dimensions of its examples; *made is to be released. */
static fbp_status behind(fbp_tensor *x, int ndim, fbp_tensor **out, fbp_tensor **made) {
    const fbp_batch *batch = fbp_batch_of(x);
    fbp_tensor *physical = batch->physical;
    *out = physical;
    if (!batch->batched || x->ndim >= ndim) return FBP_OK;
    fbp_shape_attribute shape = {.ndim = ndim + 1, .shape = {fbp_shape(physical)[0]}};
    for (int i = 0; i < ndim; i++) shape.shape[1 + i] = i < ndim - x->ndim ? 1 : fbp_shape(x)[i - (ndim - x->ndim)];
    FBP_TRY(fbp_apply(FBP_OP_reshape, 1, &physical, &shape, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, ndim + 1), made));
    *out = *made;
    return FBP_OK;
}

static bool pull_batched(const pull *p, uint64_t level, fbp_tensor **out, fbp_status *status) {
    pull inner = *p;
    fbp_tensor *made[OPERANDS] = {0}, *result;
    bool any = false, able = true;
    int ndim = 0;
    for (int i = 0; i < OPERANDS; i++)
        if (p->operand[i] && p->operand[i]->ndim > ndim) ndim = p->operand[i]->ndim;
    for (int i = 0; i < OPERANDS && *status == FBP_OK; i++) {
        if (!p->operand[i] || fbp_level(p->operand[i]) != level) continue;
        any |= fbp_batch_of(p->operand[i])->batched;
        *status = behind(p->operand[i], ndim, &inner.operand[i], &made[i]);
    }
    if (*status == FBP_OK) able = pull_operands(&inner, false, &result, status);
    if (able && *status == FBP_OK) {
        *status = fbp_batched_new(result, level, any, 0, 0, out);
        fbp_release(result);
    }
    for (int i = 0; i < OPERANDS; i++)
        if (made[i]) fbp_release(made[i]);
    return able;
}

/* A recorded operand, on a level that is recorded now, wants ops that are recorded too. */
static bool wants_record(const pull *p) {
    const fbp_mode *mode = fbp_mode_get();
    if (!mode->grad_enabled) return false;
    for (int i = 0; i < OPERANDS; i++)
        if (p->operand[i] && fbp_requires_grad(p->operand[i]) && fbp_level(p->operand[i]) < mode->quiet_level) return true;
    return false;
}

static bool pull_operands(const pull *p, bool reuse, fbp_tensor **out, fbp_status *status) {
    fbp_capture *capture = fbp_capture_get();
    fbp_layout layout;
    if (wants_record(p)) return false;
    const uint64_t level = fbp_level_of(OPERANDS, p->operand);
    if (level) return pull_batched(p, level, out, status);
    fbp_tensor *g = p->operand[G];
    if (!capture && fbp_is_contiguous(g) && is_flat(p->operand[A], g) && is_flat(p->operand[B], g) && is_flat(p->operand[Y], g)) {
        *status = pull_flat(p, reuse, out);
        return true;
    }
    if (!common_layout(p, &layout, status)) return false;
    if (*status == FBP_OK) *status = capture ? pull_captured(capture, p, &layout, out) : pull_broadcast(p, &layout, out);
    return true;
}

bool fbp_pull_fused(const fbp_tensor *node, int which, fbp_tensor *g, bool reuse, fbp_tensor **out, fbp_status *status) {
    const fbp_op_row *row = &fbp_ops[node->op];
    *status = FBP_OK;
    if (row->class != FBP_CLASS_POINTWISE || row->arity > 2 || !fbp_same_shape(g, node) || g->dtype != node->dtype) return false;
    if (!fbp_kernels->pointwise->pull[node->op][which][node->dtype - FBP_FLOAT32]) return false;
    const int needs = row->needs[which];
    const pull p = {(fbp_op)node->op, which, fbp_attributes(node), node->attribute_bytes,
                    {g, needs & NEED_A ? fbp_input(node, 0) : NULL, needs & NEED_B ? fbp_input(node, 1) : NULL,
                     needs & NEED_Y ? (fbp_tensor *)node : NULL}};
    return pull_operands(&p, reuse, out, status);
}
