/* walk.h -- the nodes that others depend on, in the order of recording. */
#ifndef FBP_GRAPH_WALK_H
#define FBP_GRAPH_WALK_H

#include "graph/tensor.h"

/* Borrowed nodes, by number. */
typedef struct fbp_node_list {
    fbp_tensor **nodes;
    int64_t count, capacity;
} fbp_node_list;

/* Fill a zeroed list with the roots and all on which they depend, inputs before outputs; with `grad_only`, through inputs
 * that require a gradient alone.  Nodes recorded before number `oldest` are left out, and with them all that they depend
 * on: what leads to a tensor is younger than the tensor.  The same for nodes that are flagged FBP_VISITED beforehand; no other flag is
 * left, so that walks may happen within anything.  Whatever is returned, the list must be ended. */
fbp_status fbp_walk(int root_count, fbp_tensor *const *roots, bool grad_only, uint64_t oldest, fbp_node_list *list);
/* The number of the oldest of some tensors, for `oldest`. */
uint64_t fbp_walk_oldest(int count, fbp_tensor *const *tensors);
/* Where a node stands in the list, -1 where it does not. */
int64_t fbp_walk_find(const fbp_node_list *list, const fbp_tensor *node);
/* Free the list. */
void fbp_walk_end(fbp_node_list *list);

#endif
