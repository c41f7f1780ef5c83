/* batched.h -- vmap: ops on tensors that stand for a batch run once, on the physical tensors behind. */
#ifndef FBP_EXEC_BATCHED_H
#define FBP_EXEC_BATCHED_H

#include "exec/apply.h"
#include "graph/batched.h"

/* What random ops do inside of a vmap. */
typedef enum fbp_randomness { FBP_RANDOM_ERROR, FBP_RANDOM_SAME, FBP_RANDOM_DIFFERENT } fbp_randomness;

/* Begin a vmap over `size` examples on the calling thread; *level names it.  RuntimeError when too many are nested. */
fbp_status fbp_vmap_begin(int64_t size, fbp_randomness randomness, uint64_t *level);
/* End the innermost one: its batched tensors are of no further use. */
void fbp_vmap_end(void);
/* The innermost, NULL when there is none. */
const fbp_vmap *fbp_vmap_top(void);

/* One call, of which some inputs are batched. */
fbp_status fbp_batched_apply(const fbp_call *call, fbp_tensor **out);
/* RuntimeError where the vmap of a batched tensor is not under way (any more). */
fbp_status fbp_level_check(const char *op, const fbp_tensor *t);
/* RuntimeError where one of an in-place op's operands is batched. */
fbp_status fbp_unbatched_check(fbp_op op, int count, fbp_tensor *const *inputs);
/* RuntimeError for a random op inside of a vmap that asks for it. */
fbp_status fbp_random_check(fbp_op op);

/* A tensor with x's value by which functions of it can be differentiated, apart from what x itself depends on: a leaf of the
 * innermost level, or, where x requires a gradient on that level, an alias of x. */
fbp_status fbp_lift(fbp_tensor *x, fbp_tensor **out);

#endif
