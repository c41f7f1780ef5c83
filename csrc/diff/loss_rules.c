/* loss_rules.c -- derivatives of the losses over classes.
 *
 * With q the (weighted, smoothed) one-hot target of a position, Q its sum and p = softmax(x):
 *     loss = -<q, log_softmax(x)>      dloss/dx = Q p - q      d2loss/dx2 = Q (diag(p) - p p')
 * nll_loss is the linear map -<q, .> and nll_grad its transpose; docs/derivations/losses.md has the rest.
 */
#include "diff/rules.h"

#define SUB(x, y) fbp_build2(g, FBP_OP_sub, x, y)
#define MUL(x, y) fbp_build2(g, FBP_OP_mul, x, y)
#define ADD(x, y) fbp_build2(g, FBP_OP_add, x, y)
#define LOSS ((const fbp_loss_attribute *)fbp_attributes(node))

static int32_t class_axis(const fbp_tensor *x) { return x->ndim == 1 ? 0 : 1; }

static fbp_tensor *weight_of(const fbp_tensor *node) { return node->edge_count > 2 ? fbp_input(node, 2) : NULL; }

/* op(a, target, weight or nothing) for values of x's shape. */
static fbp_tensor *nll(fbp_builder *g, fbp_op op, const fbp_loss_attribute *loss, int64_t classes, fbp_tensor *a, fbp_tensor *target,
                       fbp_tensor *weight) {
    fbp_loss_attribute attribute = *loss;
    attribute.classes = op == FBP_OP_nll_grad ? (int32_t)classes : 0;
    return a ? fbp_build(g, op, weight ? 3 : 2, (fbp_tensor *[]){a, target, weight}, &attribute, sizeof attribute) : NULL;
}

static fbp_tensor *along_classes(fbp_builder *g, fbp_op op, int count, fbp_tensor *const *inputs) {
    for (int i = 0; i < count; i++)
        if (!inputs[i]) return NULL;
    const fbp_dim_attribute axis = {class_axis(inputs[0]), 0};
    return fbp_build(g, op, count, inputs, &axis, sizeof axis);
}

static fbp_tensor *sum_classes(fbp_builder *g, fbp_tensor *x) {
    return x ? fbp_build_sum(g, x, 1u << class_axis(x), true) : NULL;
}

static fbp_tensor *softmax(fbp_builder *g, fbp_tensor *x) { return along_classes(g, FBP_OP_softmax, 1, &x); }

/* The tangent of log_softmax(x) for the tangent t of x. */
static fbp_tensor *log_softmax_push(fbp_builder *g, fbp_tensor *x, fbp_tensor *t) {
    return SUB(t, sum_classes(g, MUL(softmax(g, x), t)));
}

static fbp_tensor *no_weight_rule(fbp_builder *g, const fbp_tensor *node) {
    return fbp_build_fail(g, fbp_fail(FBP_ERROR_RUNTIME, "%s: the derivative for 'weight' is not implemented; pass weight.detach()",
                                      fbp_ops[node->op].name));
}

/* ---- cross_entropy ----------------------------------------------------------------------------------------------- */

fbp_tensor *vjp_cross_entropy(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    fbp_tensor *x = fbp_input(node, 0), *target = fbp_input(node, 1), *weight = weight_of(node);
    if (which == 2) return no_weight_rule(g, node);
    if (!weight)
        return fbp_build(g, FBP_OP_cross_entropy_grad, 3, (fbp_tensor *[]){cotangent, x, target}, LOSS, node->attribute_bytes);
    fbp_tensor *pulled = nll(g, FBP_OP_nll_grad, LOSS, fbp_shape(x)[class_axis(x)], cotangent, target, weight);
    return along_classes(g, FBP_OP_log_softmax_grad, 2, (fbp_tensor *[]){pulled, along_classes(g, FBP_OP_log_softmax, 1, &x)});
}

fbp_tensor *jvp_cross_entropy(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    if (node->edge_count > 2 && tangents[2]) return no_weight_rule(g, node);
    fbp_tensor *push = log_softmax_push(g, fbp_input(node, 0), tangents[0]);
    return nll(g, FBP_OP_nll_loss, LOSS, 0, push, fbp_input(node, 1), weight_of(node));
}

/* dy Q H c with H = diag(p) - p p', which is symmetric: pull and push of cross_entropy_grad in the logits.
 * nll_grad gives -dy q, so its sum over the classes is -dy Q. */
static fbp_tensor *curvature(fbp_builder *g, const fbp_tensor *node, fbp_tensor *c) {
    fbp_tensor *dy = fbp_input(node, 0), *x = fbp_input(node, 1), *target = fbp_input(node, 2);
    fbp_tensor *scale = sum_classes(g, nll(g, FBP_OP_nll_grad, LOSS, fbp_shape(x)[class_axis(x)], dy, target, NULL));
    fbp_tensor *product = along_classes(g, FBP_OP_softmax_grad, 2, (fbp_tensor *[]){c, softmax(g, x)});
    return MUL(fbp_build1(g, FBP_OP_neg, scale), product);
}

fbp_tensor *vjp_cross_entropy_grad(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    if (which == 1) return curvature(g, node, cotangent);
    fbp_tensor *push = log_softmax_push(g, fbp_input(node, 1), cotangent);
    return nll(g, FBP_OP_nll_loss, LOSS, 0, push, fbp_input(node, 2), NULL);
}

fbp_tensor *jvp_cross_entropy_grad(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    fbp_tensor *inputs[3] = {tangents[0], fbp_input(node, 1), fbp_input(node, 2)};
    fbp_tensor *total = tangents[1] ? curvature(g, node, tangents[1]) : NULL;
    if (!tangents[0]) return total;
    fbp_tensor *part = fbp_build(g, FBP_OP_cross_entropy_grad, 3, inputs, LOSS, node->attribute_bytes);
    return total ? ADD(total, part) : part;
}

/* ---- nll_loss ---------------------------------------------------------------------------------------------------- */

fbp_tensor *vjp_nll_loss(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    const fbp_tensor *x = fbp_input(node, 0);
    if (which == 2) return no_weight_rule(g, node);
    return nll(g, FBP_OP_nll_grad, LOSS, fbp_shape(x)[class_axis(x)], cotangent, fbp_input(node, 1), weight_of(node));
}

fbp_tensor *jvp_nll_loss(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    if (node->edge_count > 2 && tangents[2]) return no_weight_rule(g, node);
    return nll(g, FBP_OP_nll_loss, LOSS, 0, tangents[0], fbp_input(node, 1), weight_of(node));
}

fbp_tensor *vjp_nll_grad(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent) {
    if (which == 2) return no_weight_rule(g, node);
    return nll(g, FBP_OP_nll_loss, LOSS, 0, cotangent, fbp_input(node, 1), weight_of(node));
}

fbp_tensor *jvp_nll_grad(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents) {
    if (node->edge_count > 2 && tangents[2]) return no_weight_rule(g, node);
    return nll(g, FBP_OP_nll_grad, LOSS, LOSS->classes, tangents[0], fbp_input(node, 1), weight_of(node));
}
