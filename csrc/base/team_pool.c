/* team_pool.c -- a team of our own: POSIX threads that sleep between regions; needs C11 and POSIX alone.
 *
 * One pool serves all hosts in turn, since the door lets in one region at a time.  It grows to the most threads that a
 * region asked for and never shrinks: who is not needed sleeps.
 *
 * A region opens seats.  A helper that sees an open seat takes it, works, and says that it has finished; the caller works
 * too, then closes the seats that nobody took and waits for the taken ones.  So it waits for nobody who merely wakes
 * late.  `seats` is one word, and whoever takes a seat has done so in the region that is open at that instant, whatever
 * it read before: it reads the region only then.
 *
 * Helpers, and a caller whose helpers work longer, watch for about as long as a sleeping team takes to get going
 * (docs/threads.md), then sleep.  Whoever may sleep says so before it looks for the last time, and whoever changes what
 * it looks at asks for sleepers afterwards, both in the one order of sequentially consistent operations: one of the two
 * sees the other.
 *
 * Helpers are never joined, also not when the process ends: they sleep, or work in the region of a thread that is ended
 * with them.  They block all signals, which are for the host's threads.
 */
#define _POSIX_C_SOURCE 200809L
#include "base/team.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

enum {
    SEAT_TAKEN = 1 << 16,      /* seats: open ones in the lower half, taken ones in the upper */
    SEATS_OPEN = SEAT_TAKEN - 1,
    WATCH_NANOSECONDS = 30000,
    WATCH_TURNS = 16,          /* looks between two looks at the clock */
    STACK_BYTES = 4 << 20,     /* some systems give threads half a megabyte, or less */
};

static fbp_region region;      /* what the team works on; written while no seat is open or taken */
static atomic_int seats;
static atomic_int finished;    /* helpers that have left their seats */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER, left = PTHREAD_COND_INITIALIZER;
static atomic_int sleepers;          /* helpers that wait for `opened` or are about to */
static atomic_bool caller_sleeps;    /* the caller waits for `left` or is about to */

static int helper_count; /* changed under the door */

_Thread_local int fbp_team_index;

const char *fbp_threads_runtime(void) { return "a pool of POSIX threads"; }

bool fbp_team_is_inside_other(void) { return false; }

/* ---- watching ---- */

/* Tell the processor that this thread waits for another. */
static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static bool is_seat_open(int unused) {
    (void)unused;
    return atomic_load(&seats) & SEATS_OPEN;
}

static bool have_finished(int helpers) { return atomic_load(&finished) == helpers; }

/* Look until there is something to see, for a short while; whether there was. */
static bool watch(bool (*sees)(int), int argument) {
    int64_t end = 0;
    do {
        for (int turn = 0; turn < WATCH_TURNS; turn++) {
            if (sees(argument)) return true;
            pause_briefly();
        }
        if (!end) end = nanoseconds_now() + WATCH_NANOSECONDS;
    } while (nanoseconds_now() < end);
    return false;
}

/* ---- helpers ---- */

static void wait_for_seat(void) {
    if (watch(is_seat_open, 0)) return;
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&sleepers, 1);
    while (!is_seat_open(0)) pthread_cond_wait(&opened, &lock);
    atomic_fetch_sub(&sleepers, 1);
    pthread_mutex_unlock(&lock);
}

/* Take an open seat, if there is one; its number (1, 2, ...) or 0. */
static int take_seat(void) {
    int now = atomic_load(&seats);
    while (now & SEATS_OPEN)
        if (atomic_compare_exchange_weak(&seats, &now, now - 1 + SEAT_TAKEN)) return now / SEAT_TAKEN + 1;
    return 0;
}

static void leave_seat(void) {
    atomic_fetch_add(&finished, 1);
    if (!atomic_load(&caller_sleeps)) return;
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&left);
    pthread_mutex_unlock(&lock);
}

static void *help(void *unused) {
    (void)unused;
    for (;;) {
        wait_for_seat();
        fbp_team_index = take_seat();
        if (!fbp_team_index) continue;
        fbp_run_pieces(&region);
        leave_seat();
    }
    return NULL;
}

/* Start one more helper; whether the system let us. */
static bool start_helper(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the helper's mask is that of its creator */
    const bool started = pthread_create(&thread, &attributes, help, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

/* ---- regions ---- */

int fbp_team_grow(int threads) {
    while (helper_count < threads - 1 && start_helper()) helper_count++;
    return helper_count < threads - 1 ? helper_count + 1 : threads;
}

/* Open so many seats, and wake as many sleepers. */
static void open_seats(int count) {
    atomic_store(&finished, 0);
    atomic_store(&seats, count);
    if (!atomic_load(&sleepers)) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) pthread_cond_signal(&opened);
    pthread_mutex_unlock(&lock);
}

/* Close the seats that are open still; wait until the taken ones are left. */
static void close_seats(void) {
    const int taken = atomic_exchange(&seats, 0) / SEAT_TAKEN;
    if (watch(have_finished, taken)) return;
    pthread_mutex_lock(&lock);
    atomic_store(&caller_sleeps, true);
    while (!have_finished(taken)) pthread_cond_wait(&left, &lock);
    atomic_store(&caller_sleeps, false);
    pthread_mutex_unlock(&lock);
}

void fbp_team_run(fbp_region *work, int threads) {
    (void)threads;
    region.run = work->run;
    region.context = work->context;
    region.count = work->count;
    region.pieces = work->pieces;
    atomic_store_explicit(&region.next, 0, memory_order_relaxed);
    open_seats(work->pieces - 1);
    fbp_run_pieces(&region);
    close_seats();
}
