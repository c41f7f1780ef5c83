/* rules.h -- how derivative rules are written: expressions that build graph nodes.
 *
 * A rule never computes a number.  It calls the words below, each of which applies an op; whether that runs
 * at once, is recorded for a higher derivative, or both, is the business of `apply`.  Words may be
 * nested freely: what they make belongs to the builder until it is ended, NULL marks a failure
 * and passes through every further word, so that only the end of a rule needs to look.
 */
#ifndef FBP_DIFF_RULES_H
#define FBP_DIFF_RULES_H

#include "ops/op.h"

typedef fbp_status (*fbp_apply_fn)(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes,
                                   int attribute_bytes, fbp_tensor **out);

typedef struct fbp_builder {
    fbp_apply_fn apply;
    fbp_status status;          /* the first failure */
    int count, capacity;
    fbp_tensor **temporaries;   /* owned until the end */
    fbp_tensor *inside[24];     /* room for them without allocation */
} fbp_builder;

void fbp_builder_begin(fbp_builder *g, fbp_apply_fn apply);
/* Release everything built; what is to outlive this must have been retained. */
void fbp_builder_end(fbp_builder *g);

/* op over inputs; attributes may be NULL.  NULL on failure or when a (non-optional) input is NULL. */
fbp_tensor *fbp_build(fbp_builder *g, fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes);
/* Hand a failure of other code to the builder; returns NULL. */
fbp_tensor *fbp_build_fail(fbp_builder *g, fbp_status status);
/* Put a tensor under the builder's ownership. */
fbp_tensor *fbp_build_own(fbp_builder *g, fbp_tensor *t);

/* A 0-d constant of `like`'s type (a bare number: it takes part in no type promotion). */
fbp_tensor *fbp_build_number(fbp_builder *g, const fbp_tensor *like, double value);
fbp_tensor *fbp_build_full(fbp_builder *g, fbp_dtype dtype, int ndim, const int64_t *shape, double value);

/* Shorthand for ops that rules use much. */
fbp_tensor *fbp_build1(fbp_builder *g, fbp_op op, fbp_tensor *a);
fbp_tensor *fbp_build2(fbp_builder *g, fbp_op op, fbp_tensor *a, fbp_tensor *b);
fbp_tensor *fbp_build3(fbp_builder *g, fbp_op op, fbp_tensor *a, fbp_tensor *b, fbp_tensor *c);
fbp_tensor *fbp_build_scale(fbp_builder *g, fbp_tensor *x, double factor);
fbp_tensor *fbp_build_cast(fbp_builder *g, fbp_tensor *x, fbp_dtype dtype);
fbp_tensor *fbp_build_reshape(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape);
fbp_tensor *fbp_build_expand(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape);
/* Swap the last two axes. */
fbp_tensor *fbp_build_transpose(fbp_builder *g, fbp_tensor *x);
fbp_tensor *fbp_build_sum(fbp_builder *g, fbp_tensor *x, uint32_t dims, bool keepdim);
/* Sum or repeat x to a shape that broadcasts to it or from it: the one place where a cotangent meets a broadcast input. */
fbp_tensor *fbp_build_fit(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape);
/* x with the axes that a reduction dropped put back as size 1: `shape` is the reduction's input shape. */
fbp_tensor *fbp_build_unreduce(fbp_builder *g, fbp_tensor *x, int ndim, const int64_t *shape, const fbp_reduce_attribute *reduce);

/* The cotangent of input `which` of a recorded node, in the input's shape. */
fbp_tensor *fbp_node_vjp(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent);
/* The tangent of a recorded node from those of its inputs (NULL: zero); NULL with status OK means zero. */
fbp_tensor *fbp_node_jvp(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents);

#endif
