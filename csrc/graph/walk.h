/* walk.h -- the nodes that others depend on, in the order of recording. */
#ifndef FBP_GRAPH_WALK_H
#define FBP_GRAPH_WALK_H

#include "graph/tensor.h"

/* Borrowed nodes, each flagged FBP_VISITED until the list is ended. */
typedef struct fbp_node_list {
    fbp_tensor **nodes;
    int64_t count, capacity;
} fbp_node_list;

/* Fill a zeroed list with the roots and all on which they depend, inputs before outputs; with `grad_only`, through inputs
 * that require a gradient alone.  Whatever is returned, the list must be ended. */
fbp_status fbp_walk(int root_count, fbp_tensor *const *roots, bool grad_only, fbp_node_list *list);
/* Take the marks away and free the list. */
void fbp_walk_end(fbp_node_list *list);

#endif
