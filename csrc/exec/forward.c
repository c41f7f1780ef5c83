/* forward.c -- pushes tangents from inputs to outputs, in the order of recording.
 *
 * Tangents wait in the nodes' `cotangent` field, which no reverse sweep uses meanwhile.
 */
#include "exec/forward.h"

#include <stdlib.h>

#include "diff/rules.h"
#include "exec/apply.h"
#include "graph/walk.h"

fbp_status (*fbp_host_push)(void *object, int count, fbp_tensor *const *tangents, fbp_tensor **out) = NULL;

static fbp_status push_host(fbp_tensor *node, fbp_tensor *const *tangents) {
    bool any = false;
    for (uint32_t i = 0; i < node->edge_count; i++) any |= tangents[i] != NULL;
    if (!any) return FBP_OK;
    if (node->flags & FBP_RELEASED)
        return fbp_fail(FBP_ERROR_RUNTIME, "forward mode: the values that a compiled or custom function saved have been freed by backward(); "
                                           "specify retain_graph=True there");
    return fbp_host_push(*(void **)fbp_attributes(node), (int)node->edge_count, tangents, &node->cotangent);
}

static fbp_status push_op(fbp_tensor *node, fbp_tensor *const *tangents) {
    fbp_builder g;
    fbp_builder_begin(&g, fbp_apply);
    fbp_tensor *tangent = fbp_node_jvp(&g, node, tangents);
    fbp_status status = g.status;
    if (tangent && status == FBP_OK) node->cotangent = fbp_retain(tangent);
    fbp_builder_end(&g);
    return status;
}

/* The tangent of one node from those that wait in its inputs. */
static fbp_status push(fbp_tensor *node) {
    enum { INSIDE = 16 };
    fbp_tensor *inside[INSIDE], **tangents = inside;
    if (node->edge_count > INSIDE && !(tangents = malloc(node->edge_count * sizeof *tangents)))
        return fbp_fail(FBP_ERROR_MEMORY, "forward mode: cannot allocate a list of tangents");
    for (uint32_t i = 0; i < node->edge_count; i++) tangents[i] = fbp_input(node, (int)i) ? fbp_input(node, (int)i)->cotangent : NULL;
    fbp_status status = node->flags & FBP_HOST_RULE ? push_host(node, tangents) : push_op(node, tangents);
    if (tangents != inside) free(tangents);
    return status;
}

fbp_status fbp_forward_gradient(int output_count, fbp_tensor *const *outputs, int input_count, fbp_tensor *const *inputs,
                                fbp_tensor *const *tangents, fbp_tensor **results) {
    fbp_node_list list = {0};
    fbp_status status = fbp_walk(output_count, outputs, false, &list);
    for (int i = 0; i < input_count && status == FBP_OK; i++) {
        if (!fbp_same_shape(inputs[i], tangents[i]) || inputs[i]->dtype != tangents[i]->dtype)
            status = fbp_fail(FBP_ERROR_RUNTIME, "forward mode: a tangent of shape %s, %s for an input of shape %s, %s",
                              fbp_tensor_shape_text(tangents[i]), fbp_dtype_name((fbp_dtype)tangents[i]->dtype),
                              fbp_tensor_shape_text(inputs[i]), fbp_dtype_name((fbp_dtype)inputs[i]->dtype));
        else if (inputs[i]->flags & FBP_VISITED && !inputs[i]->cotangent) inputs[i]->cotangent = fbp_retain(tangents[i]);
    }
    for (int64_t at = 0; at < list.count && status == FBP_OK; at++)
        if (list.nodes[at]->edge_count && !list.nodes[at]->cotangent) status = push(list.nodes[at]);
    for (int i = 0; i < output_count; i++)
        results[i] = status == FBP_OK && outputs[i]->cotangent ? fbp_retain(outputs[i]->cotangent) : NULL;
    for (int64_t at = 0; at < list.count; at++) {
        fbp_tensor *node = list.nodes[at];
        if (node->cotangent) fbp_release(node->cotangent);
        node->cotangent = NULL;
    }
    fbp_walk_end(&list);
    return status;
}
