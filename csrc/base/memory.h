/* memory.h -- aligned memory, small-block cache and the count of allocations. */
#ifndef FBP_BASE_MEMORY_H
#define FBP_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

enum { FBP_ALIGNMENT = 64 }; /* a cache line, and the widest vector */

/* `bytes` of uninitialised memory aligned to FBP_ALIGNMENT, NULL when there is none.  A request
 * that exceeds what the process could ever get fails at once, it does not overcommit. */
void *fbp_memory_get(size_t bytes);
void fbp_memory_free(void *memory, size_t bytes);

/* Small structures (tensors, edges): up to 512 bytes come from free lists by size class, larger ones from fbp_memory_get.
 * Not thread-safe: the host's lock (the GIL) covers them.  16-byte aligned. */
void *fbp_block_get(size_t bytes);
void fbp_block_free(void *block, size_t bytes);

/* Working memory of the calling thread, at least `bytes`, aligned; contents are lost at the next
 * call with the same slot.  Kept and reused, so that steady state allocates nothing.  NULL when there is none. */
enum { FBP_SCRATCH_GEMM_A, FBP_SCRATCH_GEMM_B, FBP_SCRATCH_KERNEL, FBP_SCRATCH_OP, FBP_SCRATCH_CHAIN, FBP_SCRATCH_SUMS, FBP_SCRATCH_SLOTS };
void *fbp_scratch(int slot, size_t bytes);

/* Statistics since the process began: allocations asked of the system, bytes now live, their peak. */
typedef struct fbp_memory_stats {
    int64_t allocations, live_bytes, peak_bytes, live_blocks;
    int64_t slab_bytes; /* of the slabs that blocks are carved from: small tensors and all nodes */
} fbp_memory_stats;
fbp_memory_stats fbp_memory_statistics(void);

#endif
