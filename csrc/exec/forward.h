/* forward.h -- forward mode over a recorded graph. */
#ifndef FBP_EXEC_FORWARD_H
#define FBP_EXEC_FORWARD_H

#include "ops/op.h"

typedef struct fbp_forward_request {
    int output_count;
    fbp_tensor *const *outputs;
    int input_count;
    fbp_tensor *const *inputs;
    fbp_tensor *const *tangents; /* inputs[j] moves along tangents[j], of its shape and type */
    bool create_graph;           /* record the pass itself, so that its results can be differentiated */
    fbp_tensor **results;        /* the tangent of each output, the caller's; NULL where no input reaches it */
} fbp_forward_request;

/* One pass in the order of recording.  The graph must have been recorded with fbp_mode.keep_values, since rules read every
 * value.  RuntimeError where one of them was given up or overwritten; no scratch is left then. */
fbp_status fbp_forward_gradient(const fbp_forward_request *request);

/* Nodes whose rule the host has (FBP_HOST_RULE): the node's tangent, NULL for zero, from those of its inputs (NULL: zero), of which at
 * least one is there.  Set once by the binding. */
extern fbp_status (*fbp_host_push)(void *object, int count, fbp_tensor *const *tangents, fbp_tensor **out);

#endif
