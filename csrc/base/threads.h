/* threads.h -- the one door to OpenMP.
 *
 * Nothing else in the core mentions OpenMP.  Work is handed over as a count of
 * independent tasks; which thread runs which task must never change a result:
 * a task writes only what is its own, and no sum crosses tasks.
 */
#ifndef FBP_BASE_THREADS_H
#define FBP_BASE_THREADS_H

#include <stdint.h>

/* Run tasks begin <= i < end.  `context` is the caller's. */
typedef void (*fbp_task_fn)(void *context, int64_t begin, int64_t end);

/* Call `run` over [0, count) in contiguous pieces of at least `grain` tasks, on as many threads
 * as that allows (one thread: a plain call).  Returns when all is done.  Inside a
 * parallel region, and in a forked child, it runs on the calling thread. */
void fbp_parallel(int64_t count, int64_t grain, fbp_task_fn run, void *context);

/* Tasks for which the whole of `work` (in rough nanoseconds of one core) is worth waking
 * threads: the grain to hand to fbp_parallel for `count` equal tasks. */
int64_t fbp_grain(int64_t count, double nanoseconds);

/* Threads the next fbp_parallel may use; default = min(affinity, cgroup CPU quota,
 * OMP_NUM_THREADS, FASTBP_NUM_THREADS). */
int fbp_threads_get(void);
void fbp_threads_set(int count);
/* 0 on the calling thread outside a region, else the index within the region; < fbp_threads_get(). */
int fbp_thread_index(void);

#endif
