/* chain.h -- running a fused chain: an interpreter over blocks of some hundred elements. */
#ifndef FBP_EXEC_CHAIN_H
#define FBP_EXEC_CHAIN_H

#include "plan/program.h"

/* All of it, shared among the threads where that pays.  MEMORY: nothing was computed. */
fbp_status fbp_chain_run(const fbp_program *program, const fbp_fused *fused);
#endif
