/* backward.h -- the reverse sweep over a recorded graph. */
#ifndef FBP_EXEC_BACKWARD_H
#define FBP_EXEC_BACKWARD_H

#include "ops/op.h"

typedef struct fbp_backward_request {
    int root_count;
    fbp_tensor *const *roots;
    fbp_tensor *const *cotangents;  /* one a root; NULL entries: 1 for a root of one element */
    bool retain_graph;              /* keep saved values for another pass */
    bool create_graph;              /* record the pass itself, so that its results can be differentiated */
    int input_count;                /* 0: accumulate into the .grad of every leaf reached */
    fbp_tensor *const *inputs;      /* else: their cotangents alone are wanted, in results[] (owned by the caller; NULL: not reached) */
    fbp_tensor **results;
    bool ends_there;                /* `inputs` are independent of each other: the sweep ends at them, and their hooks do not run, since */
                                    /* their cotangents go on elsewhere */
    bool accumulate;                /* with inputs: add into their .grad instead of results */
} fbp_backward_request;

/* One sweep in reverse topological order.  On failure leaves that were not reached yet keep their gradients, and no scratch is left.
 * The caller holds roots and inputs.  Sweeps of several threads over one graph may be under way, the host's lock going to and fro. */
fbp_status fbp_backward(const fbp_backward_request *request);

/* Tensor hooks live in the host: `g` may be replaced.  Set once by the binding. */
extern fbp_status (*fbp_host_hook)(void *hooks, fbp_tensor *g, fbp_tensor **replaced);

/* Hooks of a leaf after its gradient was accumulated, of the same object. */
extern fbp_status (*fbp_host_accumulated)(void *hooks, fbp_tensor *leaf);

/* Nodes whose rule the host has (FBP_HOST_RULE): the cotangent of input `which`, NULL for none, for the node's own; `last`: no
 * other input of this sweep will ask.  Set once by the binding. */
extern fbp_status (*fbp_host_pull)(void *object, int which, fbp_tensor *cotangent, bool create_graph, bool last, fbp_tensor **out);
/* A node of that kind over the elements of `value`; the reference to `object` is taken over when it succeeds. */
fbp_status fbp_host_node(void *object, int count, fbp_tensor *const *inputs, fbp_tensor *value, fbp_tensor **out);

/* One edge of a sweep by itself, not recorded: what cotangent `g` of a node contributes to its input `which`, fresh in *out (NULL: a
 * host rule has none).  With `fit` in the input's shape; without, an elementwise op's is left in the node's shape (or one that
 * broadcasts to it), before the sum over what was broadcast.  RuntimeError when saved values are gone or changed. */
fbp_status fbp_edge_pull(fbp_tensor *node, int which, fbp_tensor *g, bool fit, fbp_tensor **out);

/* t's gradient as the calling thread sees it, NULL for none: within a capture, what the function makes of it is its own (capture.h). */
fbp_tensor *fbp_gradient_get(const fbp_tensor *t);
/* Where it stands; NULL when memory is out.  A capture must know the leaf (fbp_capture_gradient). */
fbp_tensor **fbp_gradient_place(fbp_tensor *t);
/* t.grad += g (t.grad = g when there is none), as a leaf does it at the end of a sweep. */
fbp_status fbp_gradient_accumulate(fbp_tensor *t, fbp_tensor *g, bool create_graph);

#endif
