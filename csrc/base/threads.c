/* threads.c -- the splitting of work over a team of threads: who gets it, how many threads, how large the pieces are.
 *
 * How a region runs.  The team's threads claim contiguous pieces from a counter until none is left, so that a piece
 * whose thread is late is done by another; which thread runs which piece changes no result (threads.h).  This is
 * also why nothing depends on how many threads really come.
 *
 * Who runs it.  There is one door: a region inside a region, and one that another host thread opens meanwhile, runs
 * on its caller alone; whoever finds the door shut does not wait.  Hosts that are at work (in a plan's run, or in a
 * region) are counted, and a region takes what they leave of fbp_threads_get(): all together never use more.
 *
 * A forked child stays on one thread: its parent's threads are not there, and gcc's OpenMP would wait for them for ever.
 *
 * The threads themselves are OpenMP's or a pool of our own: team.h.
 */
#include "base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/cpu.h"
#include "base/environment.h"
#include "base/team.h"

/* Least work of a piece.  Measured by `test_base --time` (docs/threads.md has the table; two virtual cores of a Zen 5,
 * median of 1000 regions, of 200 where the team slept): an empty region costs its caller 0.6 us while the team watches
 * and 14 to 35 us when it sleeps.  Two pieces of 20 us take a sleeping team about 50 us, one thread 40, a watching team
 * 21.  So at this size the split that opens a burst of regions costs little, and every later one halves the time. */
static const double PIECE_NANOSECONDS = 20000;

static atomic_flag door = ATOMIC_FLAG_INIT; /* set while a region runs */

atomic_int fbp_hosts_at_work;
_Thread_local int fbp_host_depth;

int fbp_thread_index(void) { return fbp_team_index; }

/* ---- the number of threads ---- */

static atomic_int limit;                         /* threads to use; 0 = not asked yet */
static atomic_int ceiling = FBP_THREADS_MOST;    /* the limit's own limit; it only goes down */
static atomic_int refused;                       /* fbp_threads_refused() */

/* Make `*value` at most `count`. */
static void lower(atomic_int *value, int count) {
    int now = atomic_load(value);
    while (now > count && !atomic_compare_exchange_weak(value, &now, count)) continue;
}

static int below_ceiling(int count) {
    int most = atomic_load(&ceiling);
    return count < 1 ? 1 : count > most ? most : count;
}

/* The default, unless someone was faster. */
static int set_default_limit(void) {
    const fbp_environment *environment = fbp_environment_get();
    int count = fbp_cpu_usable(), unset = 0;
    if (environment->omp_num_threads && environment->omp_num_threads < count) count = environment->omp_num_threads;
    if (environment->num_threads && environment->num_threads < count) count = environment->num_threads;
    atomic_compare_exchange_strong(&limit, &unset, below_ceiling(count));
    return atomic_load(&limit);
}

int fbp_threads_get(void) {
    int count = atomic_load_explicit(&limit, memory_order_relaxed);
    return count > 0 ? count : set_default_limit();
}

void fbp_threads_set(int count) {
    atomic_store(&limit, below_ceiling(count));
    lower(&limit, atomic_load(&ceiling)); /* which may just have come down */
}

int fbp_threads_refused(void) { return atomic_load(&refused); }

/* No more than `count` threads from now on, for the system refused another. */
static void stay_below(int count) {
    atomic_store(&refused, count);
    lower(&ceiling, count);
    lower(&limit, count);
}

/* ---- fork ---- */

/* The one thread of a child works alone for good, so that whatever its parent's other threads held is never asked for. */
static void stay_alone(void) {
    atomic_store(&ceiling, 1);
    atomic_store(&limit, 1);
    atomic_store(&fbp_hosts_at_work, fbp_host_depth > 0);
}

/* At load, not at the first region: the parent's threads may be another library's, on the same OpenMP runtime. */
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, stay_alone); }

/* ---- the door ---- */

int64_t fbp_grain(int64_t count, double nanoseconds) {
    if (count <= 1) return 1;
    if (!(nanoseconds >= 2 * PIECE_NANOSECONDS)) return count; /* also when it is not a number */
    double grain = (double)count * PIECE_NANOSECONDS / nanoseconds;
    return grain < 1 ? 1 : (int64_t)grain;
}

/* The threads that a region of this host's may use: all but those of the other hosts at work. */
static int threads_left(int threads) {
    int others = atomic_load_explicit(&fbp_hosts_at_work, memory_order_relaxed) - 1;
    return others > 0 ? threads - others : threads;
}

/* Run the region on a team; false, and nothing done, when there is none for this caller. */
static bool run_shared(fbp_region *work, int threads) {
    int most = threads_left(threads); /* pieces: a team has all its threads (team_openmp.c), but no more can work */
    if (most < 2 || fbp_team_is_inside_other()) return false;
    if (atomic_flag_test_and_set_explicit(&door, memory_order_acquire)) return false;
    int ready = fbp_team_grow(threads);
    if (ready < threads) stay_below(ready);
    if (most > ready) most = ready;
    if (work->pieces > most) work->pieces = most;
    if (most > 1) fbp_team_run(work, ready);
    atomic_flag_clear_explicit(&door, memory_order_release);
    return most > 1;
}

void fbp_parallel(int64_t count, int64_t grain, fbp_task_fn run, void *context) {
    if (count <= 0) return;
    int64_t most = count / (grain > 1 ? grain : 1);
    int threads = most < 2 ? 1 : fbp_threads_get();
    if (threads < 2 || fbp_team_index > 0) { /* a helper is no host */
        run(context, 0, count);
        return;
    }
    fbp_region work = {.run = run, .context = context, .count = count, .pieces = most < threads ? (int)most : threads};
    int *depth = fbp_host_enter();
    if (!run_shared(&work, threads)) run(context, 0, count);
    fbp_host_leave(depth);
}
