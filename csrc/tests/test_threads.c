/* test_threads.c -- what the team of threads owes the process that it lives in: how many work at once, refused threads,
 * hosts that end, signals, the end of the process.  (How work is split: test_base.c.)
 *
 *     test_threads --refused     runs where threads are refused; the test calls itself so
 *     test_threads --exit        ends while another thread is in a region; the test calls itself so
 *     test_threads --emulated    tests what qemu's user mode can run
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/threads.h"
#include "tests/expect.h"

static const char *own_path; /* of this program */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = true }; /* its own memory cannot be limited */
#else
enum { SANITIZED = false };
#endif

/* ---- how many at once ---- */

typedef struct crowd {
    atomic_int now, most; /* pieces at work, of all hosts */
    atomic_int done;      /* tasks */
    atomic_int regions;
    bool is_single; /* one host: each piece that runs has an index of its own */
    atomic_int indices[FBP_THREADS_MOST];
} crowd;

/* Pieces that count how many of them run, and last long enough to meet. */
static void crowd_in(void *context, int64_t begin, int64_t end) {
    crowd *c = context;
    int now = atomic_fetch_add(&c->now, 1) + 1, most = atomic_load(&c->most);
    while (now > most && !atomic_compare_exchange_weak(&c->most, &most, now)) continue;
    atomic_int *mine = &c->indices[fbp_thread_index()];
    if (c->is_single) CHECK(atomic_fetch_add(mine, 1) == 0);
    usleep(300);
    if (c->is_single) atomic_fetch_sub(mine, 1);
    atomic_fetch_sub(&c->now, 1);
    atomic_fetch_add(&c->done, (int)(end - begin));
}

enum { REGIONS = 100, PATIENCE = 10000, TASKS = 12, HOSTS = 2 };

/* Many regions; many more on a busy machine, where it takes until `wanted` pieces have met. */
static void crowd_together(crowd *c, int wanted) {
    for (int i = 0; i < REGIONS || (atomic_load(&c->most) < wanted && i < PATIENCE); i++) {
        fbp_parallel(TASKS, 1, crowd_in, c);
        atomic_fetch_add(&c->regions, 1);
    }
    CHECK(atomic_load(&c->most) >= wanted);
}

typedef struct host {
    crowd *shared;
    int wanted;
    atomic_int arrivals;
} host;

/* Wait until every host has been here for the `turn`th time. */
static void meet(host *own, int turn) {
    atomic_fetch_add(&own->arrivals, 1);
    while (atomic_load(&own->arrivals) < turn * HOSTS) usleep(100);
}

static void *work_as_host(void *context) {
    host *own = context;
    int *depth = fbp_host_enter();
    meet(own, 1); /* all hosts are at work before the first region, and until the last has ended */
    crowd_together(own->shared, own->wanted);
    meet(own, 2);
    fbp_host_leave(depth);
    return NULL;
}

/* The most pieces at once of two hosts that are at work all the time, with so many threads; `wanted` of them meet. */
static int most_at_once(int threads, int wanted) {
    crowd shared = {0};
    pthread_t hosts[HOSTS];
    host one = {.shared = &shared, .wanted = wanted};
    fbp_threads_set(threads);
    for (int i = 0; i < HOSTS; i++) CHECK(pthread_create(&hosts[i], NULL, work_as_host, &one) == 0);
    for (int i = 0; i < HOSTS; i++) pthread_join(hosts[i], NULL);
    CHECK(shared.done == shared.regions * TASKS);
    return shared.most;
}

/* Hosts at work together use no more threads than one alone may, and a host that is alone uses all. */
static void test_at_once(void) {
    CHECK(most_at_once(1, 2) == 2); /* each host is there with itself */
    CHECK(most_at_once(2, 2) == 2);
    CHECK(most_at_once(3, 3) == 3);
    CHECK(most_at_once(4, 4) == 4);
    crowd alone = {.is_single = true};
    fbp_threads_set(4);
    crowd_together(&alone, 4); /* nobody is counted who has left */
    CHECK(alone.most == 4 && alone.done == alone.regions * TASKS);
    int *depth = fbp_host_enter();
    fbp_host_enter(); /* nested: still one */
    alone.most = 0;
    crowd_together(&alone, 4);
    CHECK(alone.most == 4);
    fbp_host_leave(depth);
    fbp_host_leave(depth);
}

/* ---- the last piece ---- */

typedef struct pair {
    atomic_int begun; /* the helper's piece */
    int ended;
    int microseconds;
} pair;

/* The caller's piece waits until the helper's has begun, which lasts longer. */
static void outlast(void *context, int64_t begin, int64_t end) {
    pair *p = context;
    if (end - begin != 1) return; /* both in one piece */
    if (fbp_thread_index() == 0) {
        for (int turn = 0; turn < PATIENCE && !atomic_load(&p->begun); turn++) usleep(1000);
        return;
    }
    atomic_store(&p->begun, 1);
    if (p->microseconds) usleep((useconds_t)p->microseconds);
    p->ended = 1; /* no atomic: the region's end makes it visible */
}

/* A region ends after its last piece, whether the caller still watches for it or sleeps. */
static void test_last_piece(void) {
    static const int microseconds[] = {0, 1, 30, 100, 1000, 20000};
    fbp_threads_set(2);
    for (size_t i = 0; i < sizeof microseconds / sizeof *microseconds; i++)
        for (int turn = 0; turn < 20; turn++) {
            pair one = {.microseconds = microseconds[i]};
            fbp_parallel(2, 1, outlast, &one);
            CHECK(one.begun && one.ended);
        }
}

/* ---- hosts that end, signals ---- */

#if defined(__linux__)

/* Threads of this process that have the wanted number of signals blocked at least (0: all threads). */
static int count_threads(int least_blocked) {
    DIR *folder = opendir("/proc/self/task");
    int count = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        char path[300], line[256];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        int blocked = 0;
        while (file && fgets(line, sizeof line, file))
            if (strncmp(line, "SigBlk:", 7) == 0) blocked = __builtin_popcountll(strtoull(line + 7, NULL, 16));
        if (file) fclose(file);
        count += file && blocked >= least_blocked;
    }
    if (folder) closedir(folder);
    return count;
}

static void *visit_region(void *context) {
    fbp_parallel(TASKS, 1, crowd_in, context);
    return NULL;
}

/* Threads that had regions and ended leave no helpers of their own behind. */
static void test_ended_hosts(void) {
    crowd shared = {0};
    fbp_threads_set(3);
    visit_region(&shared);
    const int before = count_threads(0);
    for (int i = 0; i < 20; i++) {
        pthread_t one;
        CHECK(pthread_create(&one, NULL, visit_region, &shared) == 0);
        pthread_join(one, NULL);
    }
    for (int turn = 0; turn < 1000 && count_threads(0) > before; turn++) usleep(10000); /* they may take a moment to end */
    CHECK(count_threads(0) <= before);
    CHECK(shared.done == 21 * TASKS);
}

/* Helpers leave all signals to the host's threads, whose masks are as they were. */
static void test_signals(void) {
    enum { BLOCKABLE = 55 }; /* 64 but for two that cannot be, and those that C libraries keep for themselves */
    sigset_t before, after;
    crowd shared = {0};
    CHECK(count_threads(BLOCKABLE) >= 2); /* the helpers of this thread's team of three */
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    fbp_threads_set(7);
    visit_region(&shared);
    CHECK(count_threads(BLOCKABLE) >= 6);
    CHECK(count_threads(0) > count_threads(BLOCKABLE));
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int signal = 1; signal < 32; signal++) CHECK(sigismember(&before, signal) == sigismember(&after, signal));
}

/* ---- threads that the system refuses ---- */

/* This process's address space, in bytes. */
static size_t address_space(void) {
    char line[256];
    size_t kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) sscanf(line, "VmSize: %zu", &kilobytes);
    if (file) fclose(file);
    return kilobytes << 10;
}

/* Where the stacks of some threads fit in memory and more do not: every region is done, by fewer threads. */
static int run_refused(void) {
    enum { ASKED = 40, ROOM = 24 << 20 };
    crowd shared = {0};
    const struct rlimit space = {address_space() + ROOM, address_space() + ROOM};
    CHECK(setrlimit(RLIMIT_AS, &space) == 0);
    CHECK(fbp_threads_refused() == 0);
    fbp_threads_set(ASKED);
    fbp_parallel(ASKED, 1, crowd_in, &shared);
    const int count = fbp_threads_get();
    CHECK(shared.done == ASKED && count >= 1 && count < ASKED && fbp_threads_refused() == count);
    CHECK(shared.most <= count);
    fbp_threads_set(ASKED); /* for good */
    CHECK(fbp_threads_get() == count);
    fbp_threads_set(1);
    CHECK(fbp_threads_get() == 1 && fbp_threads_refused() == count);
    fbp_threads_set(count);
    for (int i = 0; i < 5; i++) fbp_parallel(ASKED, 1, crowd_in, &shared);
    CHECK(shared.done == 6 * ASKED && fbp_threads_get() <= count);
    return failures != 0;
}

#endif

/* ---- the end of the process ---- */

static void *work_for_ever(void *context) {
    for (;;) fbp_parallel(TASKS, 1, crowd_in, context);
    return NULL;
}

/* A thread that nobody waits for, as Python's daemons, is in a region when the process ends. */
static int run_exit(void) {
    static crowd shared;
    pthread_t daemon;
    alarm(60); /* a process that does not end dies, and fails the test */
    fbp_threads_set(3);
    fbp_parallel(TASKS, 1, crowd_in, &shared);
    if (pthread_create(&daemon, NULL, work_for_ever, &shared) != 0) return 1;
    while (shared.done < 10 * TASKS) usleep(1000);
    return 0;
}

/* The exit status of this program in another mode; -1 when a signal ended it. */
static int call_self(const char *mode) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execl(own_path, own_path, mode, (char *)NULL);
        _exit(255);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    own_path = arguments[0];
    if (strcmp(mode, "--exit") == 0) return run_exit();
    const bool emulated = strcmp(mode, "--emulated") == 0;
#if defined(__linux__)
    if (strcmp(mode, "--refused") == 0) return run_refused();
#endif
    test_at_once();
    test_last_piece();
#if defined(__linux__)
    if (!emulated) test_ended_hosts();
    if (!emulated) test_signals();
    if (!emulated && !SANITIZED) CHECK(call_self("--refused") == 0);
#endif
    if (!emulated) CHECK(call_self("--exit") == 0);
    if (failures) printf("test_threads: %d failures\n", failures);
    return failures != 0;
}
