/* batching.h -- what batching rules are made of: the same op over many examples at once.
 *
 * A rule sees a call whose inputs have, where batched[i], the examples as their first axis, and builds (diff/rules.h) a
 * tensor that has them as its first axis too.  Most ops need no rule: elementwise ones broadcast, and an op whose
 * attribute names axes names them one further.
 */
#ifndef FBP_DIFF_BATCHING_H
#define FBP_DIFF_BATCHING_H

#include "diff/rules.h"

/* The call over the batch, by the op's own rule or by its class. */
fbp_tensor *fbp_batch_build(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size);

/* Dimensions of one example of input i. */
static inline int fbp_example_ndim(const fbp_call *call, const bool *batched, int i) { return call->inputs[i]->ndim - batched[i]; }
/* x with the batch as first axis, repeated without copying where it is not batched. */
fbp_tensor *fbp_batch_full(fbp_builder *g, fbp_tensor *x, bool batched, int64_t size);
/* A batched x whose examples have `ndim` dimensions, the new ones first and of size 1. */
fbp_tensor *fbp_batch_rank(fbp_builder *g, fbp_tensor *x, int ndim);
/* x of shape [batch] as [batch, 1, ..., 1] with `ndim` dimensions. */
fbp_tensor *fbp_batch_trail(fbp_builder *g, fbp_tensor *x, int ndim);
/* The op over one example after the other, for inputs that its rule does not know; fbp_host_slow is told of it. */
fbp_tensor *fbp_batch_loop(fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size);

/* Called when an op runs once an example; the host says so to its user, once an op.  CALLBACK: the user has made an error of it.  NULL
 * until the binding sets it. */
extern fbp_status (*fbp_host_slow)(fbp_op op);

#endif
