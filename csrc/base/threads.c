/* threads.c -- a pool of helper threads, and the splitting of work over them.
 *
 * Why not OpenMP's own pool: it stays in a busy loop for milliseconds after each region unless an
 * environment variable forbids it before the library loads (and then each region costs a system
 * call), it hangs a forked child, and it waits for every helper, even one whose core is taken.
 *
 * How a region runs.  The caller writes the region's description and publishes a ticket; the ticket
 * counts pieces out.  Caller and helpers claim pieces until none is left; a piece whose helper was
 * slow to wake is simply done by somebody else, so that a region is hardly ever slower than
 * a plain loop.  The caller then waits for pieces that others have begun.
 *
 * A ticket is  region number (32 bits) | pieces (16) | next piece (16).  A helper that claimed a piece by
 * compare-and-swap knows that the region is alive, for the caller leaves only after the last
 * claimed piece is done; so it reads the description only then, and no helper can meet a
 * stale one.
 *
 * A helper without work watches the ticket for WATCH_NANOSECONDS, since regions come in bursts,
 * then sleeps on its own condition variable: an idle pool costs nothing.
 */
#define _GNU_SOURCE
#include "base/threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "base/cpu.h"
#include "base/environment.h"

enum {
    WATCH_NANOSECONDS = 50000, /* as long as waking a sleeper takes (below): watching never costs more than twice the best */
    STACK_BYTES = 4 << 20,     /* some C libraries give 128 KiB, too little for kernels' blocks */
    CACHE_LINE = 64,
};

/* Least work of a piece.  Measured on two virtual cores of a Zen 5, with empty pieces and with pieces of
 * 10 us to 1 ms, median of 200 to 20000 regions: handing a region over costs its caller 0.2 us while helpers
 * watch and 10 us when they sleep (the wake-up leaves the virtual machine), and a sleeper starts about 50 us
 * later.  A late helper loses nothing, since the caller goes on with the next piece; so the hand-over is what
 * a piece has to be worth, and twice that leaves room for caches that are cold on another core. */
static const double PIECE_NANOSECONDS = 20000;

typedef struct helper {
    _Alignas(CACHE_LINE) pthread_mutex_t lock; /* guards `asleep` for `wake` */
    pthread_cond_t wake;
    atomic_bool asleep;
    int index; /* 1, 2, ...: the number that fbp_thread_index gives in it */
} helper;

static struct {
    _Alignas(CACHE_LINE) atomic_uint_fast64_t ticket;
    _Alignas(CACHE_LINE) atomic_int unfinished; /* pieces of the region that are not done */
    atomic_bool caller_asleep;
    pthread_mutex_t lock; /* guards `done` */
    pthread_cond_t done;
    pthread_mutex_t door; /* held while a region runs, by its caller */

    /* The region's description, constant while its ticket is current. */
    _Alignas(CACHE_LINE) fbp_task_fn run;
    void *context;
    int64_t count;
    int pieces;

    int helpers; /* running; changes under `door` only */
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
    .door = PTHREAD_MUTEX_INITIALIZER,
};
static helper helpers[FBP_THREADS_MOST]; /* [0] is unused: the caller has no slot */

static atomic_int limit; /* threads to use */
static pthread_once_t limit_once = PTHREAD_ONCE_INIT;
static _Thread_local int thread_index;

/* ---- small tools ---- */

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` is a no-op on most cores; isb waits about as long as x86's pause */
#endif
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline uint32_t ticket_pieces(uint64_t ticket) { return (uint32_t)(ticket >> 16) & 0xffff; }
static inline uint32_t ticket_next(uint64_t ticket) { return (uint32_t)ticket & 0xffff; }

/* Whether the helper `index` may claim a piece on this ticket.  Region of n pieces: helpers 1 .. n-1 only, so
 * that an index stays below the count of threads in force. */
static inline bool ticket_has_work(uint64_t ticket, int index) {
    return ticket_next(ticket) < ticket_pieces(ticket) && (uint32_t)index < ticket_pieces(ticket);
}

/* First task of piece `piece` when `count` tasks are cut in `pieces` parts whose sizes differ by one at most. */
static inline int64_t piece_begin(int64_t count, int pieces, int piece) {
    int64_t size = count / pieces, longer = count % pieces;
    return piece * size + (piece < longer ? piece : longer);
}

/* ---- the region ---- */

/* Claim and run pieces of the current region until none is left for this thread. */
static void run_pieces(int index) {
    uint64_t ticket = atomic_load(&pool.ticket);
    while (ticket_has_work(ticket, index)) {
        /* On failure `ticket` is read anew, which may even be the next region's: as good. */
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket + 1)) continue;
        int piece = (int)ticket_next(ticket);
        pool.run(pool.context, piece_begin(pool.count, pool.pieces, piece),
                 piece_begin(pool.count, pool.pieces, piece + 1));
        if (atomic_fetch_sub(&pool.unfinished, 1) == 1 && atomic_load(&pool.caller_asleep)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
        ticket = atomic_load(&pool.ticket);
    }
}

/* Until the pieces that helpers have begun are done: watch for a while, then sleep. */
static void wait_unfinished(void) {
    int64_t start = now();
    for (int turn = 1; atomic_load(&pool.unfinished) > 0; turn++) {
        relax();
        if (turn % 16 == 0 && now() - start > WATCH_NANOSECONDS) break;
    }
    if (atomic_load(&pool.unfinished) == 0) return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.caller_asleep, true); /* before the look below: the last finisher looks in the other order */
    while (atomic_load(&pool.unfinished) > 0) pthread_cond_wait(&pool.done, &pool.lock);
    atomic_store(&pool.caller_asleep, false);
    pthread_mutex_unlock(&pool.lock);
}

/* Wake the helper if it sleeps. */
static void wake_helper(helper *one) {
    if (!atomic_load(&one->asleep)) return;
    pthread_mutex_lock(&one->lock);
    atomic_store(&one->asleep, false);
    pthread_cond_signal(&one->wake);
    pthread_mutex_unlock(&one->lock);
}

/* ---- the helpers ---- */

/* Watch the ticket for a while; true when there is work for this helper. */
static bool watch(int index) {
    int64_t start = now();
    for (int turn = 1;; turn++) {
        if (ticket_has_work(atomic_load_explicit(&pool.ticket, memory_order_relaxed), index)) return true;
        relax();
        if (turn % 16 == 0 && now() - start > WATCH_NANOSECONDS) return false;
    }
}

static void sleep_until_woken(helper *self) {
    pthread_mutex_lock(&self->lock);
    /* Say so first, look once more after: a caller publishes first and looks for sleepers after, so
     * one of the two sees the other (both accesses are sequentially consistent). */
    atomic_store(&self->asleep, true);
    if (ticket_has_work(atomic_load(&pool.ticket), self->index)) atomic_store(&self->asleep, false);
    while (atomic_load(&self->asleep)) pthread_cond_wait(&self->wake, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

/* A helper's life; it ends with the process. */
static void *helper_main(void *argument) {
    helper *self = argument;
    thread_index = self->index;
    for (;;) {
        if (!watch(self->index)) sleep_until_woken(self);
        run_pieces(self->index);
    }
    return NULL;
}

/* Start helper `index`; false when the system gives no thread.  Signals are for the host's own
 * threads: a helper is born with all of them blocked. */
static bool start_helper(int index) {
    helper *self = &helpers[index];
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    self->index = index;
    atomic_store(&self->asleep, false);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->wake, NULL);
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&thread, &attributes, helper_main, self) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
#if defined(__linux__)
    char name[16];
    snprintf(name, sizeof name, "fastbp-%hd", (short)index);
    if (started) pthread_setname_np(thread, name);
#endif
    return started;
}

/* ---- the number of threads ---- */

/* In the child only the forking thread lives.  Forget the helpers and whatever state another
 * thread's region was in; the child works alone until it asks for threads. */
static void forget_pool(void) {
    pool.helpers = 0;
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.caller_asleep, false);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_mutex_init(&pool.door, NULL);
    pthread_cond_init(&pool.done, NULL);
    atomic_store(&limit, 1);
}

static void set_default_limit(void) {
    const fbp_environment *environment = fbp_environment_get();
    int count = fbp_cpu_usable();
    if (environment->omp_num_threads && environment->omp_num_threads < count) count = environment->omp_num_threads;
    if (environment->num_threads && environment->num_threads < count) count = environment->num_threads;
    atomic_store(&limit, count < FBP_THREADS_MOST ? count : FBP_THREADS_MOST);
    pthread_atfork(NULL, NULL, forget_pool);
}

int fbp_threads_get(void) {
    int count = atomic_load_explicit(&limit, memory_order_relaxed);
    if (count > 0) return count;
    pthread_once(&limit_once, set_default_limit);
    return atomic_load_explicit(&limit, memory_order_relaxed);
}

void fbp_threads_set(int count) {
    pthread_once(&limit_once, set_default_limit);
    atomic_store(&limit, count < 1 ? 1 : count > FBP_THREADS_MOST ? FBP_THREADS_MOST : count);
}

int fbp_thread_index(void) { return thread_index; }

/* ---- the door ---- */

int64_t fbp_grain(int64_t count, double nanoseconds) {
    if (count <= 1) return 1;
    if (!(nanoseconds >= 2 * PIECE_NANOSECONDS)) return count; /* also when it is not a number */
    double grain = (double)count * PIECE_NANOSECONDS / nanoseconds;
    return grain < 1 ? 1 : (int64_t)grain;
}

/* Publish the region to the helpers and take part in it; the caller holds the door. */
static void run_region(int64_t count, int pieces, fbp_task_fn run, void *context) {
    uint64_t region = (atomic_load_explicit(&pool.ticket, memory_order_relaxed) >> 32) + 1;
    pool.run = run;
    pool.context = context;
    pool.count = count;
    pool.pieces = pieces;
    atomic_store(&pool.unfinished, pieces);
    atomic_store(&pool.ticket, region << 32 | (uint64_t)pieces << 16);
    for (int index = 1; index < pieces; index++) wake_helper(&helpers[index]);
    run_pieces(0);
    wait_unfinished();
}

void fbp_parallel(int64_t count, int64_t grain, fbp_task_fn run, void *context) {
    if (count <= 0) return;
    int64_t most = count / (grain > 1 ? grain : 1);
    int threads = most < 2 ? 1 : fbp_threads_get();
    int pieces = most < threads ? (int)most : threads;
    /* The door is shut inside a region too, on its caller as on its helpers: nesting needs no case of its own. */
    if (pieces < 2 || pthread_mutex_trylock(&pool.door) != 0) {
        run(context, 0, count);
        return;
    }
    while (pool.helpers < pieces - 1 && start_helper(pool.helpers + 1)) pool.helpers++;
    if (pieces > pool.helpers + 1) pieces = pool.helpers + 1;
    if (pieces > 1)
        run_region(count, pieces, run, context);
    else
        run(context, 0, count);
    pthread_mutex_unlock(&pool.door);
}
