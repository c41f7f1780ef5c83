/* team.h -- what threads.c asks of the threads themselves; private to base.
 *
 * Two files answer, and a build takes one of them (tools/core_build.py, --threads): team_openmp.c and team_pool.c.
 * threads.c keeps the door: these functions are called by one host thread at a time, the one that holds it.
 */
#ifndef FBP_BASE_TEAM_H
#define FBP_BASE_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/threads.h"

/* What a team works on; constant but for `next`. */
typedef struct fbp_region {
    fbp_task_fn run;
    void *context;
    int64_t count;
    int pieces;
    atomic_int next; /* first piece that nobody has claimed */
} fbp_region;

/* First task of piece `piece`: sizes differ by one at most. */
static inline int64_t fbp_piece_begin(const fbp_region *work, int piece) {
    int64_t size = work->count / work->pieces, longer = work->count % work->pieces;
    return piece * size + (piece < longer ? piece : longer);
}

/* Claim and run pieces until none is left. */
static inline void fbp_run_pieces(fbp_region *work) {
    for (;;) {
        int piece = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed);
        if (piece >= work->pieces) return;
        work->run(work->context, fbp_piece_begin(work, piece), fbp_piece_begin(work, piece + 1));
    }
}

/* Make ready for regions of `threads` of them, the caller's counted.  Returns how many there can be: fewer when the
 * system refused to start one. */
int fbp_team_grow(int threads);

/* Run the region, of 2 to `threads` pieces, on a team that fbp_team_grow made for `threads`; the caller is one of them.
 * Returns when all pieces are done, and what they wrote is visible to the caller. */
void fbp_team_run(fbp_region *work, int threads);

/* Whether the caller stands in a parallel region of another library's, which has threads enough. */
bool fbp_team_is_inside_other(void);

/* The index of the calling thread in its team (fbp_thread_index). */
extern FBP_HIDDEN _Thread_local int fbp_team_index;

#endif
