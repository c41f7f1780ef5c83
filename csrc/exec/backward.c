/* backward.c -- reverse topological traversal.
 *
 * Nodes are numbered as they are recorded, and an input is always older than its output: so a heap that
 * yields the youngest node with a pending cotangent visits every node once, after all its consumers, with no
 * counting pass before.  For a chain the heap holds one or two nodes.
 */
#include "exec/backward.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "diff/rules.h"
#include "exec/anomaly.h"
#include "exec/apply.h"
#include "exec/capture.h"
#include "exec/pull.h"
#include "graph/batched.h"
#include "graph/walk.h"
#include "kernels/kernels.h"

fbp_status (*fbp_host_hook)(void *hooks, fbp_tensor *g, fbp_tensor **replaced) = NULL;
fbp_status (*fbp_host_accumulated)(void *hooks, fbp_tensor *leaf) = NULL;
fbp_status (*fbp_host_pull)(void *object, int which, fbp_tensor *cotangent, bool create_graph, bool last, fbp_tensor **out) = NULL;

fbp_status fbp_host_node(void *object, int count, fbp_tensor *const *inputs, fbp_tensor *value, fbp_tensor **out) {
    fbp_layout layout;
    fbp_layout_of(value, &layout);
    FBP_TRY(fbp_tensor_new(&layout, value->storage, value->data, count, sizeof object, out));
    fbp_storage_retain(value->storage);
    memcpy(fbp_attributes(*out), &object, sizeof object);
    (*out)->flags |= FBP_HOST_RULE | FBP_REQUIRES_GRAD | FBP_REACHES;
    for (int i = 0; i < count; i++) fbp_edge_set(*out, i, inputs[i], false);
    return FBP_OK;
}

/* ---- sweeps under way ---------------------------------------------------------------------------------------------------- */

/* Somebody reads what this node has saved: no sweep of another thread, or within a hook, lets go of it meanwhile. */
typedef struct reader {
    const fbp_tensor *node; /* NULL: none at the moment */
    struct reader *next;
} reader;

enum {
    INSIDE = 32,                  /* nodes of a heap that needs no memory of its own */
    WORK_BETWEEN_LOOKS = 1 << 12, /* between two looks at signals */
};

typedef struct pass {
    const fbp_backward_request *request;
    fbp_tensor **heap;  /* each holds a reference: a hook may drop the user's last one */
    fbp_tensor **aside; /* cotangents of heap[] while another pass has its own on the nodes; the second half of the same block */
    int count, capacity;
    int64_t work;              /* since the latest look at signals */
    const fbp_tensor *watched; /* the node whose rule runs, where what it returns must be finite */
    fbp_node_list list;        /* with request->inputs: nodes that carry this pass's marks; alive as long as the roots are */
    reader reads;
    fbp_tensor *inside[2 * INSIDE];
} pass;

/* Cotangents and marks lie on the nodes, and several sweeps may be under way over one graph: within hooks, and in threads, which take turns
 * whenever Python runs (hooks, rules, what is freed).  One has its own on the nodes at a time, and each looks whether it is the one before
 * it uses them.  All this is under the host's lock. */
static pass *installed;
static reader *readers;

static void mark(const pass *p);
static void unmark(const pass *p);

static void put_aside(pass *p) {
    for (int i = 0; i < p->count; i++) {
        p->aside[i] = p->heap[i]->cotangent;
        p->heap[i]->cotangent = NULL;
    }
    if (p->request->input_count) unmark(p);
}

static void take_over(pass *p) {
    if (installed) put_aside(installed);
    for (int i = 0; i < p->count; i++) p->heap[i]->cotangent = p->aside[i];
    if (p->request->input_count) mark(p);
    installed = p;
}

static inline void install(pass *p) {
    if (installed != p) take_over(p);
}

static void reader_add(reader *r) {
    r->next = readers;
    readers = r;
}

static void reader_remove(reader *r) {
    reader **at = &readers;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
}

/* Let go of what the node of `own` has saved, unless another reader is at it. */
static void saved_release(const reader *own, fbp_tensor *node) {
    for (const reader *r = readers; r; r = r->next)
        if (r != own && r->node == node) return;
    fbp_saved_release(node);
}

/* ---- the heap of nodes with a pending cotangent -------------------------------------------------------------------------- */

static fbp_status heap_push(pass *p, fbp_tensor *node) {
    if (p->count == p->capacity) {
        size_t bytes = 2 * (size_t)p->capacity * sizeof *p->heap;
        fbp_tensor **larger = fbp_block_get(2 * bytes);
        if (!larger) return fbp_fail(FBP_ERROR_MEMORY, "backward: cannot allocate the list of pending nodes");
        memcpy(larger, p->heap, bytes / 2);
        if (p->heap != p->inside) fbp_block_free(p->heap, bytes);
        p->heap = larger;
        p->capacity *= 2;
        p->aside = larger + p->capacity;
    }
    node->references++;
    int at = p->count++;
    for (; at > 0 && p->heap[(at - 1) / 2]->sequence < node->sequence; at = (at - 1) / 2) p->heap[at] = p->heap[(at - 1) / 2];
    p->heap[at] = node;
    return FBP_OK;
}

static fbp_tensor *heap_pop(pass *p) {
    fbp_tensor *top = p->heap[0], *last = p->heap[--p->count];
    int at = 0;
    for (int child; (child = 2 * at + 1) < p->count; at = child) {
        if (child + 1 < p->count && p->heap[child + 1]->sequence > p->heap[child]->sequence) child++;
        if (p->heap[child]->sequence < last->sequence) break;
        p->heap[at] = p->heap[child];
    }
    p->heap[at] = last;
    return top;
}

/* Give back the reference that the heap held, without touching the elements' count. */
static void node_release(fbp_tensor *node) {
    node->value_references++;
    fbp_release(node);
}

/* ---- sums of cotangents ----------------------------------------------------------------------------------------------------- */

/* target += g, both contiguous and of one shape and type. */
static void add_into(fbp_tensor *target, const fbp_tensor *g) {
    static const double no_parameters[2] = {0, 0};
    fbp_kernels->pointwise->forward[FBP_OP_add][target->dtype - FBP_FLOAT32](target->numel, target->data, target->data, g->data,
                                                                             no_parameters);
}

/* Add `part` (owned by the caller) to node's pending cotangent. */
static fbp_status cotangent_add(pass *p, fbp_tensor *node, fbp_tensor *part) {
    double value;
    if (p->watched && fbp_not_finite(part, &value) >= 0) return fbp_host_anomaly(p->watched->op, 0, NULL, part, p->watched);
    install(p);
    if (!node->cotangent) {
        FBP_TRY(heap_push(p, node));
        node->cotangent = fbp_retain(part);
        return FBP_OK;
    }
    fbp_tensor *total = node->cotangent;
    if (!p->request->create_graph && !total->storage->symbolic && !part->storage->symbolic && fbp_is_exclusive(total) && fbp_is_contiguous(part)) {
        add_into(total, part);
        return FBP_OK;
    }
    fbp_tensor *inputs[2] = {total, part}, *sum;
    FBP_TRY(fbp_apply(FBP_OP_add, 2, inputs, NULL, 0, &sum));
    install(p);
    node->cotangent = sum;
    fbp_release(total);
    return FBP_OK;
}

/* target += g, of one shape and type and in any layout, unrecorded: whoever holds a gradient sees it grow. */
static fbp_status add_in_place(fbp_tensor *target, fbp_tensor *g) {
    if (fbp_is_contiguous(target) && fbp_is_contiguous(g)) {
        add_into(target, g);
        target->storage->version++;
        return FBP_OK;
    }
    fbp_mode *mode = fbp_mode_get();
    const bool grad_enabled = mode->grad_enabled;
    fbp_tensor *inputs[2] = {target, g};
    mode->grad_enabled = false;
    const fbp_status status = fbp_apply_in_place(FBP_OP_add, 2, inputs, NULL, 0, &target);
    mode->grad_enabled = grad_enabled;
    return status;
}

/* t's gradient is `fresh`, which is taken over. */
static fbp_status gradient_set(fbp_tensor *t, fbp_tensor *fresh) {
    fbp_tensor **place = fbp_gradient_place(t);
    if (!place) {
        fbp_release(fresh);
        return fbp_fail(FBP_ERROR_MEMORY, "backward: cannot allocate a gradient");
    }
    fbp_tensor *old = *place;
    *place = fresh;
    if (old) fbp_release(old);
    return FBP_OK;
}

/* t.grad += g where there is one already: in its elements where that can be, else as another tensor. */
static fbp_status gradient_add(fbp_tensor *t, fbp_tensor *old, fbp_tensor *g, bool create_graph, fbp_capture *capture) {
    const bool able = !create_graph && old->dtype == g->dtype && fbp_same_shape(old, g) && !fbp_requires_grad(old) &&
                      fbp_writable("backward", old) == FBP_OK;
    const bool stays = able && capture && fbp_capture_is_seen(capture, old); /* the same tensor */
    fbp_tensor *inputs[2] = {old, g}, *sum;
    fbp_retain(old); /* who has it besides may drop it */
    fbp_status status;
    if (able && !capture && !old->storage->symbolic && !g->storage->symbolic) {
        status = add_in_place(old, g);
    } else {
        status = fbp_apply(FBP_OP_add, 2, inputs, NULL, 0, &sum);
        if (status == FBP_OK && stays) {
            status = fbp_capture_write(capture, old, sum);
            fbp_release(sum);
        } else if (status == FBP_OK) {
            status = gradient_set(t, sum);
        }
    }
    fbp_release(old);
    return status;
}

fbp_status fbp_gradient_accumulate(fbp_tensor *t, fbp_tensor *g, bool create_graph) {
    if (fbp_level(g) > fbp_level(t))
        return fbp_fail(FBP_ERROR_RUNTIME, "backward(): a gradient of shape %s inside of vmap has no place in a .grad outside of it; use "
                                           "func.grad or autograd.grad, and return the gradient", fbp_tensor_shape_text(g));
    fbp_capture *capture = fbp_capture_get();
    if (capture) FBP_TRY(fbp_capture_gradient(capture, t, false));
    fbp_tensor *old = fbp_gradient_get(t), *fresh;
    if (old) return gradient_add(t, old, g, create_graph, capture);
    if (create_graph || fbp_is_exclusive(g)) fresh = fbp_retain(g);
    else FBP_TRY(fbp_contiguous_copy(g, &fresh));
    return gradient_set(t, fresh);
}

/* ---- one node ------------------------------------------------------------------------------------------------------------------ */

static fbp_status version_error(const fbp_tensor *node, const fbp_tensor *t, uint32_t now, uint32_t expected, const char *role) {
    return fbp_fail(FBP_ERROR_RUNTIME,
                    "one of the variables needed for gradient computation has been modified by an inplace operation: %s %s, %s of %s, "
                    "is at version %u; expected version %u instead. Hint: clone() it before it is changed, or change it after backward()",
                    fbp_dtype_name((fbp_dtype)t->dtype), fbp_tensor_shape_text(t), role, fbp_ops[node->op].name, now, expected);
}

/* What the rule will read must be there and be what it was. */
static fbp_status saved_check(const fbp_tensor *node) {
    if (node->flags & FBP_RELEASED)
        return fbp_fail(FBP_ERROR_RUNTIME,
                        "Trying to backward through the graph a second time: the values that %s saved have been freed. Specify "
                        "retain_graph=True in the first backward() if you need to go through it again",
                        node->flags & FBP_HOST_RULE ? "a compiled or custom function" : fbp_ops[node->op].name);
    /* Values may be held for other reasons (fbp_mode.keep_values): only those that a rule reads matter. */
    const fbp_edge *edges = fbp_edges(node);
    int needs = 0;
    for (uint32_t i = 0; i < node->edge_count && i < 3; i++)
        if (edges[i].tensor && fbp_requires_grad(edges[i].tensor)) needs |= fbp_ops[node->op].needs[i];
    for (uint32_t i = 0; i < node->edge_count && i < 3; i++)
        if ((needs >> i & 1) && edges[i].holds_value && edges[i].version != edges[i].tensor->storage->version)
            return version_error(node, edges[i].tensor, edges[i].tensor->storage->version, edges[i].version, "an input");
    if ((needs & NEED_Y) && (node->flags & FBP_HOLDS_OWN_VALUE) && node->version != node->storage->version)
        return version_error(node, node, node->storage->version, node->version, "the output");
    return FBP_OK;
}

/* *out = what the op's rule builds for input `which`, in that input's shape or, elementwise and without `fit`, before the sum over what was
 * broadcast; NULL where it has none.  Nothing else holds it, so that it may be written into. */
static fbp_status pull_built(fbp_tensor *node, int which, fbp_tensor *g, bool fit, fbp_tensor **out) {
    const fbp_op_row *row = &fbp_ops[node->op];
    fbp_builder builder;
    fbp_builder_begin(&builder, fbp_apply);
    fbp_tensor *part = fit || row->class != FBP_CLASS_POINTWISE ? fbp_node_vjp(&builder, node, which, g) : row->vjp(&builder, node, which, g);
    const fbp_status status = builder.status;
    *out = part && status == FBP_OK ? fbp_retain(part) : NULL;
    fbp_builder_end(&builder);
    return status;
}

/* Send the cotangent of `node` on to input `which`.  `last`: no other input will read g. */
static fbp_status propagate(pass *p, fbp_tensor *node, int which, fbp_tensor *g, bool last) {
    fbp_tensor *input = fbp_input(node, which), *part = NULL;
    fbp_status status = FBP_OK;
    if (node->flags & FBP_HOST_RULE) {
        install(p); /* outputs of a rule look at the cotangent of their hub */
        FBP_TRY(fbp_host_pull(*(void **)fbp_attributes(node), which, g, p->request->create_graph, last, &part));
        if (part) {
            status = cotangent_add(p, input, part);
            fbp_release(part);
        }
        return status;
    }
    if (fbp_ops[node->op].class == FBP_CLASS_POINTWISE && which < 2 && fbp_ops[node->op].passes_on[which] && fbp_same_shape(input, g))
        return cotangent_add(p, input, g);
    if (!p->request->create_graph && fbp_same_shape(input, node) && fbp_pull_fused(node, which, g, last, &part, &status)) {
        if (status != FBP_OK) return status;
        status = cotangent_add(p, input, part);
        fbp_release(part);
        return status;
    }
    FBP_TRY(pull_built(node, which, g, true, &part));
    if (!part) return FBP_OK;
    status = cotangent_add(p, input, part);
    fbp_release(part);
    return status;
}

fbp_status fbp_edge_pull(fbp_tensor *node, int which, fbp_tensor *g, bool fit, fbp_tensor **out) {
    fbp_mode *mode = fbp_mode_get();
    const bool grad_enabled = mode->grad_enabled;
    fbp_status status;
    *out = NULL;
    FBP_TRY(saved_check(node));
    if (node->flags & FBP_HOST_RULE) return fbp_host_pull(*(void **)fbp_attributes(node), which, g, false, true, out);
    reader reads = {.node = node};
    reader_add(&reads);
    mode->grad_enabled = false;
    if (!fbp_same_shape(fbp_input(node, which), node) || !fbp_pull_fused(node, which, g, false, out, &status))
        status = pull_built(node, which, g, fit, out);
    mode->grad_enabled = grad_enabled;
    reader_remove(&reads);
    return status;
}

/* A point at which a transform has differentiated takes no gradient from sweeps that do not ask for it: nobody could see it, and a plan
 * would take it for state that changes from call to call. */
static bool is_wanted(pass *p, const fbp_tensor *t) {
    if (p->request->input_count) install(p);
    return fbp_requires_grad(t) && (p->request->input_count ? t->flags & FBP_WANTED : !(t->flags & FBP_POINT_LEFT));
}

/* Where the node is one of the requested inputs, hand out its cotangent. */
static fbp_status deliver(const pass *p, fbp_tensor *node, fbp_tensor *g) {
    const fbp_backward_request *request = p->request;
    for (int i = 0; i < request->input_count; i++) {
        if (request->inputs[i] != node) continue;
        if (request->accumulate) return fbp_gradient_accumulate(node, g, request->create_graph);
        request->results[i] = fbp_retain(g);
    }
    return FBP_OK;
}

/* The fused elementwise kernels want a contiguous cotangent: one that a reduction spread over an axis is written out once. */
static fbp_status make_flat(const fbp_tensor *node, fbp_tensor **g) {
    if (fbp_ops[node->op].class != FBP_CLASS_POINTWISE || fbp_is_contiguous(*g) || (*g)->storage->symbolic) return FBP_OK;
    fbp_tensor *flat;
    FBP_TRY(fbp_contiguous_copy(*g, &flat));
    fbp_release(*g);
    *g = flat;
    return FBP_OK;
}

static bool is_input(const fbp_backward_request *request, const fbp_tensor *node) {
    for (int i = 0; i < request->input_count; i++)
        if (request->inputs[i] == node) return true;
    return false;
}

/* The last input to which the sweep goes on; -1 at a requested input with nothing wanted behind it, which is then left as it is. */
static int last_wanted(pass *p, const fbp_tensor *node) {
    int i = (int)node->edge_count - 1;
    while (i >= 0 && !(fbp_input(node, i) && is_wanted(p, fbp_input(node, i)))) i--;
    return i;
}

/* While anomalies are looked for: what the rule of `node` makes of a finite cotangent must be finite.  The rule is judged as a whole and
 * not op by op, but for the host's, whose ops have lines of their own.  Returns the mode to go back to. */
static uint8_t watch(pass *p, const fbp_tensor *node, const fbp_tensor *g) {
    fbp_mode *mode = fbp_mode_get();
    const uint8_t before = mode->anomaly;
    double value;
    if (before != FBP_ANOMALY_CHECK || mode->capture) return before;
    if (fbp_not_finite(g, &value) < 0) p->watched = node;
    if (!(node->flags & FBP_HOST_RULE)) mode->anomaly = FBP_ANOMALY_LINES;
    return before;
}

static fbp_status visit(pass *p, fbp_tensor *node) {
    const fbp_backward_request *request = p->request;
    fbp_tensor *g = node->cotangent;
    fbp_status status = FBP_OK;
    int last;
    node->cotangent = NULL;
    if (request->ends_there && is_input(request, node)) {
        status = deliver(p, node, g);
        fbp_release(g);
        return status;
    }
    if (node->autograd && node->autograd->hooks) {
        fbp_tensor *replaced = NULL;
        status = fbp_host_hook(node->autograd->hooks, g, &replaced);
        if (replaced) {
            fbp_release(g);
            g = replaced;
        }
    }
    if (status == FBP_OK && request->input_count) status = deliver(p, node, g);
    if (status == FBP_OK && (node->flags & FBP_RETAINS_GRAD)) status = fbp_gradient_accumulate(node, g, true);
    if (status == FBP_OK && node->edge_count == 0) {
        if (request->input_count == 0) status = fbp_gradient_accumulate(node, g, request->create_graph);
        if (status == FBP_OK && node->autograd && node->autograd->hooks && (request->input_count == 0 || request->accumulate))
            status = fbp_host_accumulated(node->autograd->hooks, node);
    } else if (status == FBP_OK && (last = last_wanted(p, node)) >= 0 && (status = saved_check(node)) == FBP_OK) {
        p->reads.node = node;
        if (!request->create_graph) status = make_flat(node, &g);
        uint8_t anomaly = watch(p, node, g);
        for (int i = 0; i <= last && status == FBP_OK; i++)
            if (fbp_input(node, i) && is_wanted(p, fbp_input(node, i))) status = propagate(p, node, i, g, i == last);
        fbp_mode_get()->anomaly = anomaly;
        p->watched = NULL;
        p->reads.node = NULL;
        if (!request->retain_graph && status == FBP_OK) saved_release(&p->reads, node);
    }
    fbp_release(g);
    return status;
}

/* ---- which nodes lead to the requested inputs -------------------------------------------------------------------------------------- */

/* Mark the nodes of p->list from which a requested input can be reached. */
static void mark(const pass *p) {
    const fbp_backward_request *request = p->request;
    for (int i = 0; i < request->input_count; i++) request->inputs[i]->flags |= FBP_WANTED;
    for (int64_t at = 0; at < p->list.count; at++) {
        fbp_tensor *node = p->list.nodes[at];
        for (uint32_t i = 0; i < node->edge_count; i++)
            if (fbp_input(node, (int)i) && (fbp_input(node, (int)i)->flags & FBP_WANTED)) node->flags |= FBP_WANTED;
    }
}

static void unmark(const pass *p) {
    for (int64_t i = 0; i < p->list.count; i++) p->list.nodes[i]->flags &= (uint16_t)~FBP_WANTED;
    for (int i = 0; i < p->request->input_count; i++) p->request->inputs[i]->flags &= (uint16_t)~FBP_WANTED;
}

/* All nodes of a pass with requested inputs, marked. */
static fbp_status marks_begin(pass *p) {
    const fbp_backward_request *request = p->request;
    for (int i = 0; i < request->input_count && request->ends_there; i++) request->inputs[i]->flags |= FBP_VISITED; /* no way past them */
    fbp_status status = fbp_walk(request->root_count, request->roots, true, fbp_walk_oldest(request->input_count, request->inputs), &p->list);
    for (int i = 0; i < request->input_count; i++) request->inputs[i]->flags &= (uint16_t)~FBP_VISITED;
    if (status == FBP_OK) mark(p);
    return status;
}

/* ---- the sweep ------------------------------------------------------------------------------------------------------------------------ */

static fbp_status seed(pass *p, int i) {
    fbp_tensor *root = p->request->roots[i], *cotangent = p->request->cotangents ? p->request->cotangents[i] : NULL;
    if (!fbp_requires_grad(root))
        return fbp_fail(FBP_ERROR_RUNTIME, "element %d of tensors does not require grad and does not have a grad_fn", i);
    if (cotangent) {
        if (!fbp_same_shape(cotangent, root))
            return fbp_fail(FBP_ERROR_RUNTIME, "Mismatch in shape: grad_output[%d] has a shape of %s and output[%d] has a shape of %s.", i,
                            fbp_tensor_shape_text(cotangent), i, fbp_tensor_shape_text(root));
        if (cotangent->dtype != root->dtype)
            return fbp_fail(FBP_ERROR_RUNTIME, "backward: the gradient is %s, the output %s; cast it first",
                            fbp_dtype_name((fbp_dtype)cotangent->dtype), fbp_dtype_name((fbp_dtype)root->dtype));
        return cotangent_add(p, root, cotangent);
    }
    if (root->numel != 1)
        return fbp_fail(FBP_ERROR_RUNTIME, "grad can be implicitly created only for scalar outputs; this one has shape %s: pass gradient=",
                        fbp_tensor_shape_text(root));
    fbp_source_attribute one = {.p = {1.0}, .dtype = root->dtype, .ndim = root->ndim};
    memcpy(one.shape, fbp_shape(root), root->ndim * sizeof(int64_t));
    FBP_TRY(fbp_apply(FBP_OP_full, 0, NULL, &one, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, root->ndim), &cotangent));
    fbp_status status = cotangent_add(p, root, cotangent);
    fbp_release(cotangent);
    return status;
}

static void pass_begin(pass *p, const fbp_backward_request *request) {
    p->request = request;
    p->heap = p->inside;
    p->aside = p->inside + INSIDE;
    p->capacity = INSIDE;
    reader_add(&p->reads);
    install(p);
}

/* No scratch is left, whatever has happened. */
static void pass_end(pass *p) {
    while (p->count) { /* after a failure: cotangents that were still pending */
        install(p);
        fbp_tensor *node = p->heap[--p->count], *cotangent = node->cotangent;
        node->cotangent = NULL;
        fbp_release(cotangent);
        node_release(node);
    }
    install(p);
    if (p->request->input_count) unmark(p);
    installed = NULL;
    reader_remove(&p->reads);
    fbp_walk_end(&p->list);
    if (p->heap != p->inside) fbp_block_free(p->heap, 2 * (size_t)p->capacity * sizeof *p->heap);
}

/* Signals are looked at now and then: a sweep may last. */
static fbp_status look(pass *p, const fbp_tensor *node) {
    p->work += 1 + node->numel / 1024;
    if (p->work < WORK_BETWEEN_LOOKS) return FBP_OK;
    p->work = 0;
    return fbp_interrupted();
}

static fbp_status sweep(pass *p) {
    const fbp_backward_request *request = p->request;
    fbp_status status = request->input_count ? marks_begin(p) : FBP_OK;
    for (int i = 0; i < request->root_count && status == FBP_OK; i++) status = seed(p, i);
    while (p->count && status == FBP_OK) {
        install(p);
        fbp_tensor *node = heap_pop(p);
        status = visit(p, node);
        if (status == FBP_OK) status = look(p, node);
        node_release(node);
    }
    return status;
}

fbp_status fbp_backward(const fbp_backward_request *request) {
    pass p = {0};
    fbp_mode *mode = fbp_mode_get();
    const bool grad_enabled = mode->grad_enabled;
    const uint64_t quiet_level = mode->quiet_level, level = fbp_level_of(request->root_count, request->roots);
    fbp_program *program = mode->capture ? mode->capture->program : NULL;
    pass_begin(&p, request);
    /* A sweep that is not recorded is so on its own level: what lies behind batched tensors belongs to others. */
    if (request->create_graph) mode->quiet_level = UINT64_MAX;
    else if (level > 0 && level < quiet_level) mode->quiet_level = level;
    mode->grad_enabled = request->create_graph || (level > 0 && grad_enabled);
    if (program) program->sweep++;
    const fbp_status status = sweep(&p);
    mode->grad_enabled = grad_enabled;
    mode->quiet_level = quiet_level;
    if (program) program->sweep--;
    pass_end(&p);
    return status;
}
