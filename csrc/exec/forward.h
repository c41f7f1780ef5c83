/* forward.h -- forward mode over a recorded graph. */
#ifndef FBP_EXEC_FORWARD_H
#define FBP_EXEC_FORWARD_H

#include "ops/op.h"

/* results[i] = the tangent of outputs[i] when inputs[j] move along tangents[j]; NULL where none reaches it.  Results are
 * the caller's.  The graph must have been recorded with fbp_mode.keep_values, since jvp rules read every value. */
fbp_status fbp_forward_gradient(int output_count, fbp_tensor *const *outputs, int input_count, fbp_tensor *const *inputs,
                                fbp_tensor *const *tangents, fbp_tensor **results);

/* Nodes whose rule the host has (FBP_HOST_RULE): the node's tangent, NULL for zero, from those of its inputs (NULL: zero), of which at
 * least one is there.  Set once by the binding. */
extern fbp_status (*fbp_host_push)(void *object, int count, fbp_tensor *const *tangents, fbp_tensor **out);

#endif
