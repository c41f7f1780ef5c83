/* team_openmp.c -- a team of OpenMP's threads; the one file compiled with -fopenmp.
 *
 * What OpenMP's runtimes leave to their users, and how it is met here:
 * - A runtime that cannot start a thread ends the process.  So before a team grows, as many plain threads are started,
 *   all alive at once, and joined.
 * - A team that shrinks ends its surplus threads, and one that grows starts them anew.  So the team always has all its
 *   threads, however few work.
 * - Each host thread has a team of its own, which ends with it.
 * - Threads watch for the next region before they sleep; how long is set before the runtime loads (docs/threads.md).
 */
#define _GNU_SOURCE /* syscall */
#include "base/team.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

_Thread_local int fbp_team_index;

static _Thread_local int team_size = 1; /* threads of this host's team, the host's own counted */

#define TEXT_OF(number) #number
#define TEXT(macro) TEXT_OF(macro)

const char *fbp_threads_runtime(void) { return "OpenMP " TEXT(_OPENMP); }

bool fbp_team_is_inside_other(void) { return omp_in_parallel(); }

/* ---- a trial ---- */

/* Threads that stay until all of them are there. */
typedef struct trial {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool is_over;
} trial;

typedef struct trial_thread {
    trial *owner;
    pthread_t thread;
    long id; /* the system's, on Linux */
} trial_thread;

static void *stay(void *context) {
    trial_thread *own = context;
#if defined(__linux__)
    own->id = syscall(SYS_gettid);
#endif
    pthread_mutex_lock(&own->owner->lock);
    while (!own->owner->is_over) pthread_cond_wait(&own->owner->over, &own->owner->lock);
    pthread_mutex_unlock(&own->owner->lock);
    return NULL;
}

/* Join, and wait until the system has counted the thread out as well: joined threads may still stand in its books, and
 * the runtime's would be refused in their place.  (A number that another thread has got by now ends the wait late.) */
static void join_wholly(trial_thread *one) {
    pthread_join(one->thread, NULL);
#if defined(__linux__)
    for (int turn = 0; turn < 10000 && syscall(SYS_tgkill, (long)getpid(), one->id, 0) == 0; turn++) sched_yield();
#endif
}

/* How many threads the system lets us have, the caller's counted, up to `threads`. */
static int try_threads(int threads) {
    trial_thread started[FBP_THREADS_MOST];
    trial common = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER};
    int count = 0;
    for (; count < threads - 1; count++) {
        started[count] = (trial_thread){.owner = &common};
        if (pthread_create(&started[count].thread, NULL, stay, &started[count]) != 0) break;
    }
    pthread_mutex_lock(&common.lock);
    common.is_over = true;
    pthread_cond_broadcast(&common.over);
    pthread_mutex_unlock(&common.lock);
    for (int i = 0; i < count; i++) join_wholly(&started[i]);
    pthread_cond_destroy(&common.over);
    pthread_mutex_destroy(&common.lock);
    return count + 1;
}

/* ---- the team ---- */

int fbp_team_grow(int threads) { return threads > team_size ? try_threads(threads) : threads; }

/* OpenMP's barriers at the team's start and end make the caller's writes visible to the tasks, and theirs to the caller.
 * Threads that the runtime starts inherit a mask of all signals: those are for the host. */
void fbp_team_run(fbp_region *work, int threads) {
    const bool grows = threads > team_size;
    sigset_t all, before;
    sigfillset(&all);
    if (grows) pthread_sigmask(SIG_SETMASK, &all, &before);
#pragma omp parallel num_threads(threads)
    {
        fbp_team_index = omp_get_thread_num();
        if (fbp_team_index == 0 && grows) pthread_sigmask(SIG_SETMASK, &before, NULL);
        fbp_run_pieces(work);
        fbp_team_index = 0; /* a helper may come to run serial code of ours in somebody else's region */
    }
    team_size = threads;
}
