/* split.h -- when a kernel hands its work to the threads. */
#ifndef FBP_KERNELS_SPLIT_H
#define FBP_KERNELS_SPLIT_H

#include "base/threads.h"

/* Below this much work of one core not even the question is worth asking. */
#define FBP_ALONE_NANOSECONDS 4000.0

/* Run `count` equal tasks that together take about `nanoseconds` of one core: here, or shared among threads. */
static inline void fbp_split(int64_t count, double nanoseconds, fbp_task_fn run, void *context) {
    if (nanoseconds < FBP_ALONE_NANOSECONDS)
        run(context, 0, count);
    else
        fbp_parallel(count, fbp_grain(count, nanoseconds), run, context);
}

#endif
