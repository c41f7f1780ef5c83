/* pull.h -- the fused derivative kernels of elementwise ops, wherever operands lie as they want them.
 *
 * A row's pull text is linear in the cotangent and its Jacobian diagonal, so one kernel serves the reverse sweep, with a
 * cotangent of the output, and the forward sweep, with a tangent of the input.
 */
#ifndef FBP_EXEC_PULL_H
#define FBP_EXEC_PULL_H

#include "ops/op.h"

/* *out = what `g`, of the node's shape, becomes on its way between the node and its input `which`, not recorded.  False where
 * there is no such kernel for these operands: the rule's graph-building text does then.  `reuse` allows the result to
 * take g's own memory. */
bool fbp_pull_fused(const fbp_tensor *node, int which, fbp_tensor *g, bool reuse, fbp_tensor **out, fbp_status *status);

/* No one else can see these elements: they may be overwritten. */
bool fbp_is_exclusive(const fbp_tensor *t);

#endif
