/* scalars.h -- runs batched scalar programs (plan/scalars.h). */
#ifndef FBP_EXEC_SCALARS_H
#define FBP_EXEC_SCALARS_H

#include "plan/scalars.h"

/* Compute every value of the program from the given ones.  `values`: fbp_scalars_slot_count elements of the program's
 * type, best aligned to a cache line, whose given slots hold their values; those are left as they are, all others are written.
 * Uses the kernels in force (fbp_kernels), one thread, no memory but 16 KiB of stack, and no lock: the same program
 * may run on several threads at once over arrays of their own. */
void fbp_scalars_run(const fbp_scalars *program, void *values);

#endif
