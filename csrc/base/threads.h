/* threads.h -- the one door to threads, which are OpenMP's or a pool of our own (docs/threads.md).
 *
 * Nothing else in the core opens a parallel region.  Work is handed over as a count of independent tasks;
 * which thread runs which task must never change a result: a task writes only what is its own,
 * and no sum crosses tasks.
 *
 *     static void scale(void *context, int64_t begin, int64_t end) {
 *         double *x = context;
 *         for (int64_t i = begin; i < end; i++) x[i] *= 2;
 *     }
 *     fbp_parallel(n, fbp_grain(n, 0.3 * n), scale, x);
 */
#ifndef FBP_BASE_THREADS_H
#define FBP_BASE_THREADS_H

#include <stdatomic.h>
#include <stdint.h>

/* Run tasks begin <= i < end.  `context` is the caller's. */
typedef void (*fbp_task_fn)(void *context, int64_t begin, int64_t end);

/* Call `run` over [0, count) in contiguous pieces of at least `grain` tasks, each index once, in at most
 * fbp_threads_get() pieces (one piece: a plain call).  Returns when all is done; what the tasks
 * wrote is then visible to the caller.  One call at a time is shared out: a call made meanwhile, by a
 * task of the first, by another thread of the host or (where the threads are OpenMP's) in an OpenMP region of the
 * host's, runs as one piece on the thread that makes it.  While other threads of the host are at work (fbp_host_enter),
 * each of them takes one from the threads that a call gets.  Calls nothing when count <= 0; a grain below 1 counts as 1. */
void fbp_parallel(int64_t count, int64_t grain, fbp_task_fn run, void *context);

/* The grain to hand to fbp_parallel for `count` equal tasks which together take about `nanoseconds`
 * on one core: pieces are worth the cost of waking a thread.  At least 1; `count` when no split pays. */
int64_t fbp_grain(int64_t count, double nanoseconds);

/* Threads the next fbp_parallel may use; default = min(affinity, cgroup CPU quota,
 * OMP_NUM_THREADS, FASTBP_NUM_THREADS).  Always 1 in a forked child. */
int fbp_threads_get(void);
/* Counts below 1 count as 1, those above FBP_THREADS_MOST as that.  Never more than what fbp_threads_refused() says, and
 * without effect in a forked child. */
void fbp_threads_set(int count);
enum { FBP_THREADS_MOST = 256 };

/* How many threads there were when the system refused to start another, which is the most there will be from then on;
 * 0 when it never did. */
int fbp_threads_refused(void);

/* 0 on the calling thread, else the index of the helper that runs the piece; < fbp_threads_get(), and
 * no two pieces of one fbp_parallel that run at once have the same. */
int fbp_thread_index(void);

/* What runs the threads, for people: "OpenMP 201511" (its standard's date) or "a pool of POSIX threads". */
const char *fbp_threads_runtime(void);

/* Between these the calling thread is at work, so that the regions of other threads leave it a core.  For what may last,
 * such as a plan's run; they nest, and fbp_parallel needs none around it.  What the first returns is for the second. */
static inline int *fbp_host_enter(void);
static inline void fbp_host_leave(int *depth);

/* ---- for these two ---- */

#define FBP_HIDDEN __attribute__((visibility("hidden"))) /* read without a detour in the extension */
extern FBP_HIDDEN atomic_int fbp_hosts_at_work;
extern FBP_HIDDEN _Thread_local int fbp_host_depth;

static inline int *fbp_host_enter(void) {
    int *depth = &fbp_host_depth;
    if ((*depth)++ == 0) atomic_fetch_add_explicit(&fbp_hosts_at_work, 1, memory_order_relaxed);
    return depth;
}

static inline void fbp_host_leave(int *depth) {
    if (--*depth == 0) atomic_fetch_sub_explicit(&fbp_hosts_at_work, 1, memory_order_relaxed);
}

#endif
