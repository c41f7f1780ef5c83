/* forward.c -- pushes tangents from inputs to outputs, in the order of recording.
 *
 * Tangents wait in a list of the pass's own, not in the nodes: a rule of the host may run sweeps and passes over the same nodes, and a
 * hook within a sweep may run a pass.
 */
#include "exec/forward.h"

#include <stdlib.h>

#include "diff/rules.h"
#include "exec/anomaly.h"
#include "exec/apply.h"
#include "exec/pull.h"
#include "graph/batched.h"
#include "graph/walk.h"

fbp_status (*fbp_host_push)(void *object, int count, fbp_tensor *const *tangents, fbp_tensor **out) = NULL;

static fbp_status push_host(const fbp_tensor *node, fbp_tensor *const *tangents, fbp_tensor **out) {
    if (node->flags & FBP_RELEASED)
        return fbp_fail(FBP_ERROR_RUNTIME, "forward mode: the values that a compiled or custom function saved have been freed by backward(); "
                                           "specify retain_graph=True there");
    return fbp_host_push(*(void **)fbp_attributes(node), (int)node->edge_count, tangents, out);
}

/* Values that the node's rule reads, for the inputs that have a tangent. */
static int needs_of(const fbp_tensor *node, fbp_tensor *const *tangents) {
    const fbp_op_row *row = &fbp_ops[node->op];
    int needs = 0;
    if (row->class == FBP_CLASS_GENERAL) return NEED_A | NEED_B | NEED_C | NEED_Y;
    for (uint32_t i = 0; i < node->edge_count && i < 3; i++)
        if (tangents[i]) needs |= row->needs[i];
    return needs;
}

/* They must be there, and be what they were. */
static fbp_status values_check(const fbp_tensor *node, fbp_tensor *const *tangents) {
    const fbp_edge *edges = fbp_edges(node);
    const int needs = needs_of(node, tangents);
    const char *name = fbp_ops[node->op].name;
    for (uint32_t i = 0; i < node->edge_count && i < 3; i++) {
        const fbp_tensor *x = edges[i].tensor;
        if (!(needs >> i & 1) || !x) continue;
        if (!x->storage)
            return fbp_fail(FBP_ERROR_RUNTIME, "forward mode: the graph did not keep an input of %s, of shape %s; record it under "
                                               "autograd.keep_values()", name, fbp_tensor_shape_text(x));
        if (edges[i].version != x->storage->version)
            return fbp_fail(FBP_ERROR_RUNTIME, "forward mode: an input of %s, of shape %s, has been modified by an inplace operation since; use "
                                               "the operation that returns a new tensor", name, fbp_tensor_shape_text(x));
    }
    if ((needs & NEED_Y) && node->storage && node->version != node->storage->version && fbp_ops[node->op].class == FBP_CLASS_POINTWISE)
        return fbp_fail(FBP_ERROR_RUNTIME, "forward mode: the output of %s, of shape %s, has been modified by an inplace operation since; use the "
                                           "operation that returns a new tensor", name, fbp_tensor_shape_text(node));
    return FBP_OK;
}

/* total += part, both owned; consumed. */
static fbp_status add_part(fbp_tensor **total, fbp_tensor *part) {
    if (!*total) {
        *total = part;
        return FBP_OK;
    }
    fbp_tensor *inputs[2] = {*total, part};
    fbp_status status = fbp_apply(FBP_OP_add, 2, inputs, NULL, 0, total);
    if (status != FBP_OK) *total = NULL;
    fbp_release(inputs[0]);
    fbp_release(part);
    return status;
}

/* An elementwise node by its fused kernels.  False: not applicable, nothing made. */
static bool push_fused(const fbp_tensor *node, fbp_tensor *const *tangents, fbp_tensor **out, fbp_status *status) {
    const fbp_op_row *row = &fbp_ops[node->op];
    bool able = row->class == FBP_CLASS_POINTWISE && row->arity <= 2;
    *status = FBP_OK;
    *out = NULL;
    for (uint32_t i = 0; i < node->edge_count && able && *status == FBP_OK; i++) {
        fbp_tensor *part;
        if (!tangents[i]) continue;
        able = fbp_same_shape(tangents[i], node);
        if (able && row->passes_on[i]) part = fbp_retain(tangents[i]);
        else able = able && fbp_pull_fused(node, (int)i, tangents[i], false, &part, status);
        if (able && *status == FBP_OK) *status = add_part(out, part);
    }
    if ((!able || *status != FBP_OK) && *out) {
        fbp_release(*out);
        *out = NULL;
    }
    return able;
}

/* The tangent of a node that a rule builds. */
static fbp_status push_built(const fbp_tensor *node, fbp_tensor *const *tangents, fbp_tensor **out) {
    fbp_builder g;
    fbp_builder_begin(&g, fbp_apply);
    fbp_tensor *tangent = fbp_node_jvp(&g, node, tangents);
    fbp_status status = g.status;
    *out = tangent && status == FBP_OK ? fbp_retain(tangent) : NULL;
    fbp_builder_end(&g);
    return status;
}

/* The tangent of one node from those of its inputs, by whichever rule it has. */
static fbp_status push_ruled(const fbp_forward_request *request, const fbp_tensor *node, fbp_tensor *const *tangents, fbp_tensor **out) {
    fbp_status status;
    FBP_TRY(values_check(node, tangents));
    if (node->flags & FBP_HOST_RULE) return push_host(node, tangents, out);
    if (!request->create_graph && push_fused(node, tangents, out, &status)) return status;
    return push_built(node, tangents, out);
}

static bool all_finite(uint32_t count, fbp_tensor *const *tensors) {
    double value;
    for (uint32_t i = 0; i < count; i++)
        if (tensors[i] && fbp_not_finite(tensors[i], &value) >= 0) return false;
    return true;
}

/* The same while anomalies are looked for: what a rule makes of finite tangents must be finite.  As in reverse mode, rules are judged as a
 * whole, but for the host's, whose ops have lines of their own. */
static fbp_status push_watched(const fbp_forward_request *request, const fbp_tensor *node, fbp_tensor *const *tangents, fbp_tensor **out) {
    fbp_mode *mode = fbp_mode_get();
    const uint8_t before = mode->anomaly;
    const bool watched = before == FBP_ANOMALY_CHECK && !mode->capture && all_finite(node->edge_count, tangents);
    if (!(node->flags & FBP_HOST_RULE) && before == FBP_ANOMALY_CHECK) mode->anomaly = FBP_ANOMALY_LINES;
    fbp_status status = push_ruled(request, node, tangents, out);
    mode->anomaly = before;
    if (status == FBP_OK && watched && *out && !all_finite(1, out)) {
        status = fbp_host_anomaly(node->op, (int)node->edge_count, tangents, *out, node);
        fbp_release(*out);
        *out = NULL;
    }
    return status;
}

typedef struct forward_pass {
    const fbp_forward_request *request;
    fbp_node_list list;
    fbp_tensor **tangents; /* of each node, owned; NULL: none (yet) */
} forward_pass;

static fbp_tensor *tangent_of(const forward_pass *p, const fbp_tensor *node) {
    const int64_t at = node ? fbp_walk_find(&p->list, node) : -1;
    return at < 0 ? NULL : p->tangents[at];
}

/* The tangent of the node at this place from those of its inputs. */
static fbp_status push(forward_pass *p, int64_t at) {
    fbp_tensor *node = p->list.nodes[at];
    enum { INSIDE = 16 };
    fbp_tensor *inside[INSIDE], **tangents = inside, *tangent = NULL;
    bool any = false;
    if (node->edge_count > INSIDE && !(tangents = malloc(node->edge_count * sizeof *tangents)))
        return fbp_fail(FBP_ERROR_MEMORY, "forward mode: cannot allocate a list of tangents");
    for (uint32_t i = 0; i < node->edge_count; i++) {
        tangents[i] = tangent_of(p, fbp_input(node, (int)i));
        any |= tangents[i] != NULL;
    }
    fbp_status status = FBP_OK;
    if (any && fbp_mode_get()->anomaly) status = push_watched(p->request, node, tangents, &tangent);
    else if (any) status = push_ruled(p->request, node, tangents, &tangent);
    if (tangents != inside) free(tangents);
    if (status == FBP_OK) p->tangents[at] = tangent;
    return status;
}

/* Inputs on which no output depends are not in the list, and of no account. */
static fbp_status seed(forward_pass *p) {
    const fbp_forward_request *request = p->request;
    for (int i = 0; i < request->input_count; i++) {
        fbp_tensor *input = request->inputs[i], *tangent = request->tangents[i];
        if (!fbp_same_shape(input, tangent) || input->dtype != tangent->dtype)
            return fbp_fail(FBP_ERROR_RUNTIME, "forward mode: a tangent of shape %s, %s for an input of shape %s, %s", fbp_tensor_shape_text(tangent),
                            fbp_dtype_name((fbp_dtype)tangent->dtype), fbp_tensor_shape_text(input), fbp_dtype_name((fbp_dtype)input->dtype));
        const int64_t at = fbp_walk_find(&p->list, input);
        if (at >= 0 && !p->tangents[at]) p->tangents[at] = fbp_retain(tangent);
    }
    return FBP_OK;
}

static fbp_status pass_begin(forward_pass *p) {
    const fbp_forward_request *request = p->request;
    const uint64_t oldest = fbp_walk_oldest(request->input_count, request->inputs);
    FBP_TRY(fbp_walk(request->output_count, request->outputs, false, oldest, &p->list));
    p->tangents = calloc((size_t)p->list.count + 1, sizeof *p->tangents);
    if (!p->tangents) return fbp_fail(FBP_ERROR_MEMORY, "forward mode: cannot allocate a list of %lld tangents", (long long)p->list.count);
    return seed(p);
}

static void pass_end(forward_pass *p) {
    for (int64_t at = 0; p->tangents && at < p->list.count; at++)
        if (p->tangents[at]) fbp_release(p->tangents[at]);
    free(p->tangents);
    fbp_walk_end(&p->list);
}

fbp_status fbp_forward_gradient(const fbp_forward_request *request) {
    forward_pass p = {.request = request};
    fbp_mode *mode = fbp_mode_get();
    const bool grad_enabled = mode->grad_enabled;
    const uint64_t quiet_level = mode->quiet_level, level = fbp_level_of(request->output_count, request->outputs);
    if (request->create_graph) mode->quiet_level = UINT64_MAX;
    else if (level > 0 && level < quiet_level) mode->quiet_level = level;
    mode->grad_enabled = request->create_graph || (level > 0 && grad_enabled);
    fbp_status status = pass_begin(&p);
    for (int64_t at = 0; at < p.list.count && status == FBP_OK; at++)
        if (p.list.nodes[at]->edge_count && !p.tangents[at]) status = push(&p, at);
    for (int i = 0; i < request->output_count; i++) {
        fbp_tensor *tangent = status == FBP_OK ? tangent_of(&p, request->outputs[i]) : NULL;
        request->results[i] = tangent ? fbp_retain(tangent) : NULL;
    }
    pass_end(&p);
    mode->grad_enabled = grad_enabled;
    mode->quiet_level = quiet_level;
    return status;
}
