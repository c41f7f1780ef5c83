/* forward.h -- forward mode over a recorded graph. */
#ifndef FBP_EXEC_FORWARD_H
#define FBP_EXEC_FORWARD_H

#include "ops/op.h"

/* results[i] = the tangent of outputs[i] when inputs[j] move along tangents[j]; NULL where none reaches it.  Results are
 * the caller's.  The graph must have been recorded with fbp_mode.keep_values, since jvp rules read every value. */
fbp_status fbp_forward_gradient(int output_count, fbp_tensor *const *outputs, int input_count, fbp_tensor *const *inputs,
                                fbp_tensor *const *tangents, fbp_tensor **results);

#endif
