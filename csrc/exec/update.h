/* update.h -- optimizer steps over lists of tensors: one call, all or nothing. */
#ifndef FBP_EXEC_UPDATE_H
#define FBP_EXEC_UPDATE_H

#include "graph/tensor.h"
#include "kernels/update.h"

/* Parameter, gradient and state of one tensor; absent state is NULL. */
typedef struct fbp_update_item {
    fbp_tensor *param, *grad;
    fbp_tensor *state[3];  /* sgd: momentum buffer; adam: exp_avg, exp_avg_sq, max_exp_avg_sq */
    int64_t step;          /* adam: number of this step, from 1; sgd: 1 on the buffer's first */
} fbp_update_item;

/* Every tensor of an item must be writable (grad: readable), contiguous, and of the parameter's floating type and size; where one is not, an
 * error names it and nothing has changed.  Versions of what was written grow, so that a graph that saved it notices. */
fbp_status fbp_sgd_step(int64_t count, const fbp_update_item *items, const fbp_sgd *hyper);
fbp_status fbp_adam_step(int64_t count, const fbp_update_item *items, const fbp_adam *hyper);

#endif
