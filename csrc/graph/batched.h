/* batched.h -- tensors that stand for a whole batch of themselves: what a function sees inside vmap.
 *
 * A batched tensor has the shape of one example and no elements; behind it lies a physical tensor with the batch as its
 * first axis, or, where every example has the same value, without that axis.  Levels number the vmaps that are under
 * way, inner ones higher; the physical tensor belongs to a lower level (0: it has elements), so that vmaps nest.
 *
 * A batched tensor is a node like any other: it may require a gradient and be recorded, with edges to tensors of its own level,
 * while the ops on the physical tensors behind are recorded or not by themselves.  So derivatives inside of vmap and
 * derivatives of vmap are told apart by the node that is asked.
 */
#ifndef FBP_GRAPH_BATCHED_H
#define FBP_GRAPH_BATCHED_H

#include "graph/tensor.h"

typedef struct fbp_batch {
    fbp_tensor *physical; /* held */
    uint64_t level;       /* of the vmap, > the level of `physical` */
    bool batched;         /* physical's first axis is the batch */
} fbp_batch;

static inline bool fbp_is_batched(const fbp_tensor *t) {
    return (t->flags & FBP_SYMBOLIC) && t->storage && t->storage->symbolic == FBP_STORAGE_BATCHED;
}
/* What lies behind a batched tensor. */
static inline const fbp_batch *fbp_batch_of(const fbp_tensor *t) { return t->storage->owner; }
/* 0 for a tensor that is not batched. */
static inline uint64_t fbp_level(const fbp_tensor *t) { return fbp_is_batched(t) ? fbp_batch_of(t)->level : 0; }
/* The highest among operands, absent ones NULL. */
uint64_t fbp_level_of(int count, fbp_tensor *const *tensors);

/* A batched tensor over `physical`, which it holds; ValueError where `batched` and there is no axis. */
fbp_status fbp_batched_new(fbp_tensor *physical, uint64_t level, bool batched, int edge_count, int attribute_bytes, fbp_tensor **out);

#endif
