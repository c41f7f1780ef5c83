/* threads.c -- the splitting of work over OpenMP's threads.
 *
 * How a region runs.  The team's threads claim contiguous pieces from a counter until none is left, so that a piece
 * whose thread is late is done by another; which thread runs which piece changes no result (threads.h).  This is
 * also why nothing depends on the size of the team that OpenMP really grants.
 *
 * What OpenMP's runtimes leave to their users, and how it is met here:
 * - A region inside a region, and one that another host thread opens meanwhile, runs on its caller alone: one
 *   door, and whoever finds it shut does not wait.
 * - gcc's runtime does not survive fork: a child's first region would wait for ever for threads that only its
 *   parent has.  A forked child therefore stays on one thread.
 * - A team that shrinks ends its surplus threads, and one that grows starts them anew.  So the team always has
 *   fbp_threads_get() threads, however few pieces there are.
 * - Threads watch for the next region before they sleep; how long is set before the runtime loads
 *   (docs/threads.md).
 *
 * This is the one file compiled with -fopenmp.  Without it (compilers that have no OpenMP) everything runs serially.
 */
#include "base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/cpu.h"
#include "base/environment.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* Least work of a piece.  Measured by `test_base --time` (docs/threads.md has the table; two virtual cores of a Zen 5,
 * median of 1000 regions, of 200 where the team slept): an empty region costs its caller 0.6 us while the team watches
 * and 14 to 35 us when it sleeps.  Two pieces of 20 us take a sleeping team about 50 us, one thread 40, a watching team
 * 21.  So at this size the split that opens a burst of regions costs little, and every later one halves the time. */
static const double PIECE_NANOSECONDS = 20000;

static atomic_int limit; /* threads to use; 0 = not asked yet */
static pthread_once_t limit_once = PTHREAD_ONCE_INIT;

/* ---- the team ---- */

#ifdef _OPENMP

static atomic_bool forked;                  /* this process is a forked child */
static atomic_flag door = ATOMIC_FLAG_INIT; /* set while a region runs */
static _Thread_local int thread_index;

/* What a team works on; constant but for `next`. */
typedef struct region {
    fbp_task_fn run;
    void *context;
    int64_t count;
    int pieces;
    atomic_int next; /* first piece that nobody has claimed */
} region;

/* First task of piece `piece`: sizes differ by one at most. */
static inline int64_t piece_begin(const region *work, int piece) {
    int64_t size = work->count / work->pieces, longer = work->count % work->pieces;
    return piece * size + (piece < longer ? piece : longer);
}

/* Claim and run pieces until none is left. */
static void run_pieces(region *work) {
    for (;;) {
        int piece = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed);
        if (piece >= work->pieces) return;
        work->run(work->context, piece_begin(work, piece), piece_begin(work, piece + 1));
    }
}

/* The region on a team of up to `threads`; the caller holds the door.  OpenMP's barriers at the team's start and end
 * make the caller's writes visible to the tasks, and theirs to the caller. */
static void run_team(region *work, int threads) {
#pragma omp parallel num_threads(threads)
    {
        thread_index = omp_get_thread_num();
        run_pieces(work);
        thread_index = 0; /* a helper may come to run serial code of ours in somebody else's region */
    }
}

static void mark_forked(void) { atomic_store(&forked, true); }

/* At load, not at the first region: the parent's threads may be another library's, on this same runtime. */
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, mark_forked); }

/* Whether this process may have more than one thread of OpenMP's. */
static inline bool has_threads(void) { return !atomic_load_explicit(&forked, memory_order_relaxed); }

#define TEXT_OF(number) #number
#define TEXT(macro) TEXT_OF(macro)

const char *fbp_threads_runtime(void) { return "OpenMP " TEXT(_OPENMP); }

int fbp_thread_index(void) { return thread_index; }

#else

static inline bool has_threads(void) { return false; }
const char *fbp_threads_runtime(void) { return "serial"; }
int fbp_thread_index(void) { return 0; }

#endif

/* ---- the number of threads ---- */

static void set_default_limit(void) {
    const fbp_environment *environment = fbp_environment_get();
    int count = fbp_cpu_usable();
    if (environment->omp_num_threads && environment->omp_num_threads < count) count = environment->omp_num_threads;
    if (environment->num_threads && environment->num_threads < count) count = environment->num_threads;
    atomic_store(&limit, count < FBP_THREADS_MOST ? count : FBP_THREADS_MOST);
}

int fbp_threads_get(void) {
    if (!has_threads()) return 1;
    int count = atomic_load_explicit(&limit, memory_order_relaxed);
    if (count > 0) return count;
    pthread_once(&limit_once, set_default_limit);
    return atomic_load_explicit(&limit, memory_order_relaxed);
}

void fbp_threads_set(int count) {
    pthread_once(&limit_once, set_default_limit);
    atomic_store(&limit, count < 1 ? 1 : count > FBP_THREADS_MOST ? FBP_THREADS_MOST : count);
}

/* ---- the door ---- */

int64_t fbp_grain(int64_t count, double nanoseconds) {
    if (count <= 1) return 1;
    if (!(nanoseconds >= 2 * PIECE_NANOSECONDS)) return count; /* also when it is not a number */
    double grain = (double)count * PIECE_NANOSECONDS / nanoseconds;
    return grain < 1 ? 1 : (int64_t)grain;
}

void fbp_parallel(int64_t count, int64_t grain, fbp_task_fn run, void *context) {
    if (count <= 0) return;
#ifdef _OPENMP
    int64_t most = count / (grain > 1 ? grain : 1);
    int threads = most < 2 ? 1 : fbp_threads_get();
    /* omp_in_parallel: a host may call from inside a region of its own. */
    if (threads > 1 && !omp_in_parallel() && !atomic_flag_test_and_set(&door)) {
        region work = {.run = run, .context = context, .count = count, .pieces = most < threads ? (int)most : threads};
        run_team(&work, threads);
        atomic_flag_clear(&door);
        return;
    }
#else
    (void)grain;
#endif
    run(context, 0, count);
}
