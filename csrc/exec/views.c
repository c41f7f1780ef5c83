/* views.c -- keeping the histories of shared elements true after recorded in-place writes. */
#include "exec/views.h"

#include <string.h>

#include "exec/apply.h"

enum { DEPTH_MAX = 32 };

static bool is_recorded_view(const fbp_tensor *t) { return (t->flags & FBP_VIEW) && t->edge_count && fbp_ops[t->op].view; }

/* The chain from a view (chain[0]) up to the tensor that owns the elements; -1 when it is too long. */
static int view_chain(const fbp_tensor *t, const fbp_tensor **chain) {
    int depth = 0;
    for (chain[0] = t; is_recorded_view(t); chain[++depth] = t = fbp_input(t, 0))
        if (depth == DEPTH_MAX - 1) return -1;
    return depth;
}

/* Take the views chain[depth-1] .. chain[0] again, from another root.  `root` is the caller's; *out is new. */
static fbp_status replay(fbp_tensor *root, const fbp_tensor **chain, int depth, fbp_tensor **out) {
    fbp_tensor *at = fbp_retain(root);
    for (int k = depth - 1; k >= 0; k--) {
        fbp_tensor *next;
        fbp_status status = fbp_apply((fbp_op)chain[k]->op, 1, &at, fbp_attributes(chain[k]), chain[k]->attribute_bytes, &next);
        fbp_release(at);
        if (status != FBP_OK) return status;
        at = next;
    }
    *out = at;
    return FBP_OK;
}

/* What a custom function returned over elements of its inputs has one history, and the inputs another. */
static fbp_status custom_view_error(const char *op, const fbp_tensor *t) {
    return fbp_fail(FBP_ERROR_RUNTIME, "%s: an output of shape %s of a custom Function is a view and is being modified inplace: it shares its "
                                       "elements with an input (a view, or the input returned as it was); clone() it in the Function",
                    op, fbp_tensor_shape_text(t));
}

fbp_status fbp_view_refresh(fbp_tensor *t, fbp_tensor **out) {
    const fbp_tensor *chain[DEPTH_MAX];
    if (t->flags & FBP_HOST_RULE) return custom_view_error("an operation", t);
    int depth = view_chain(t, chain);
    if (depth < 0 || !t->storage->latest)
        return fbp_fail(FBP_ERROR_RUNTIME, "a view of shape %s is used whose elements were changed in place through another tensor "
                                           "that no longer exists; take the view again from its base", fbp_tensor_shape_text(t));
    return replay(t->storage->latest, chain, depth, out);
}

fbp_status fbp_view_rebase_check(const char *op, const fbp_tensor *target) {
    const fbp_tensor *chain[DEPTH_MAX];
    if (!(target->flags & FBP_VIEW)) return FBP_OK;
    if (target->flags & FBP_HOST_RULE) return custom_view_error(op, target);
    if (!target->edge_count && target->storage->references > 1)
        return fbp_fail(FBP_ERROR_RUNTIME, "%s_: writing a value that requires grad through a view of a tensor that does not record "
                                           "history; write base[...] = value instead", op);
    int depth = view_chain(target, chain);
    for (int k = 0; k < depth; k++)
        if (chain[k]->op != FBP_OP_slice && chain[k]->op != FBP_OP_reshape && chain[k]->op != FBP_OP_permute)
            return fbp_fail(FBP_ERROR_RUNTIME, "%s_: a recorded in-place write through %s is not supported; clone() the view first", op,
                            fbp_ops[chain[k]->op].name);
    return depth < 0 ? fbp_fail(FBP_ERROR_RUNTIME, "%s_: more than %d views of one another", op, DEPTH_MAX) : FBP_OK;
}

/* First element of chain[k].  Between the view that is written and the owner, nodes may have given up their value, and their
 * pointer with it: `y.view(2, 2)[0]` leaves no one who holds the first view.  Only a slice begins elsewhere than its base. */
static char *first_element(const fbp_tensor **chain, int k, int depth) {
    char *data = chain[depth]->data;
    for (int i = depth - 1; i >= k; i--) {
        if (chain[i]->op != FBP_OP_slice) continue;
        const fbp_slice_attribute *slice = fbp_attributes(chain[i]);
        for (int axis = 0; axis < slice->ndim; axis++)
            data += slice->axis[axis].start * fbp_strides(chain[i + 1])[axis] * fbp_dtype_size((fbp_dtype)chain[i]->dtype);
    }
    return data;
}

/* "base with this slice replaced by `part`", over the base's own elements, at `data` in `storage`, which already hold it. */
static fbp_status sliced_base(const fbp_tensor *view, fbp_tensor *base, fbp_storage *storage, char *data, fbp_tensor *part,
                              fbp_tensor **out) {
    fbp_layout layout;
    fbp_layout_of(base, &layout);
    FBP_TRY(fbp_tensor_new(&layout, storage, data, 2, view->attribute_bytes, out));
    fbp_storage_retain(storage);
    fbp_tensor *node = *out;
    node->flags = (uint16_t)(node->flags | (base->flags & FBP_VIEW) | FBP_REQUIRES_GRAD);
    node->op = FBP_OP_slice_assign;
    fbp_edge_set(node, 0, base, false);
    fbp_edge_set(node, 1, part, false);
    memcpy(fbp_attributes(node), fbp_attributes(view), view->attribute_bytes);
    return FBP_OK;
}

/* The base of chain[k] as it is once the view's elements have the history of `part`. */
static fbp_status rebuilt_base(const fbp_tensor **chain, int k, int depth, fbp_tensor *part, fbp_tensor **out) {
    const fbp_tensor *view = chain[k];
    fbp_tensor *base = (fbp_tensor *)chain[k + 1];
    if (view->op == FBP_OP_slice)
        return sliced_base(view, base, chain[depth]->storage, first_element(chain, k + 1, depth), part, out);
    if (view->op == FBP_OP_reshape) {
        fbp_shape_attribute shape = {.ndim = base->ndim};
        memcpy(shape.shape, fbp_shape(base), base->ndim * sizeof(int64_t));
        return fbp_apply(FBP_OP_reshape, 1, &part, &shape, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, base->ndim), out);
    }
    const fbp_permute_attribute *forward = fbp_attributes(view);
    fbp_permute_attribute inverse = {.ndim = forward->ndim};
    for (int i = 0; i < forward->ndim; i++) inverse.axes[forward->axes[i]] = (uint8_t)i;
    return fbp_apply(FBP_OP_permute, 1, &part, &inverse, sizeof inverse, out);
}

void fbp_view_adopt(fbp_tensor *from, fbp_tensor *to, fbp_tensor **at) {
    to->handle = from->handle;
    from->handle = NULL;
    *at = to;
    fbp_release(from);
}

fbp_status fbp_view_rebase(fbp_tensor *target, fbp_tensor *result, fbp_tensor **target_at) {
    const fbp_tensor *chain[DEPTH_MAX];
    int depth = view_chain(target, chain);
    fbp_storage *storage = result->storage;
    if (depth == 0 || chain[depth]->storage != storage) { /* the owner itself, or a view whose owner no one can see any more */
        if (depth == 0) storage->latest = result;
        else storage->latest_lost = 1;
        fbp_view_adopt(target, result, target_at);
        return FBP_OK;
    }
    fbp_tensor *part = result, *root = NULL, *view;
    for (int k = 0; k < depth; k++) {
        fbp_status status = rebuilt_base(chain, k, depth, part, &root);
        fbp_release(part);
        FBP_TRY(status);
        part = root;
    }
    root->flags &= (uint16_t)~FBP_VIEW; /* it owns the elements, though a reshape or a permutation made it */
    storage->latest = root;
    fbp_status status = replay(root, chain, depth, &view);
    if (status == FBP_OK) {
        void *handle = chain[depth]->handle;
        if (handle) fbp_host_adopt(handle, root);
        fbp_view_adopt(target, view, target_at);
    }
    fbp_release(root);
    return status;
}
