/* chain.h -- running a fused chain: an interpreter over blocks of some hundred elements. */
#ifndef FBP_EXEC_CHAIN_H
#define FBP_EXEC_CHAIN_H

#include "plan/program.h"

/* All of it, shared among the threads where that pays.  MEMORY: nothing was computed. */
fbp_status fbp_chain_run(const fbp_program *program, const fbp_fused *fused);
/* Elements begin <= i < begin + count of a chain without rows and tails, on the calling thread. */
void fbp_chain_run_part(const fbp_program *program, const fbp_fused *fused, int64_t begin, int64_t count);

#endif
