/* test_base.c -- status, environment, processor, control groups, and the splitting of work over threads.
 *
 *     test_base --time       prints what a region costs and what idle threads use, instead (docs/threads.md)
 *     test_base --count      exits with the default number of threads; the test calls itself so
 *     test_base --emulated   tests what qemu's user mode can run
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/environment.h"
#include "base/status.h"
#include "base/threads.h"
#include "tests/expect.h"

static bool emulated;         /* --emulated: under qemu's user mode, which cannot start itself again */
static bool pooled;           /* the threads are our own pool's, not OpenMP's */
static const char *own_path;  /* of this program */

/* ---- status ---- */

static fbp_status fail_deep(int depth) {
    if (depth == 0) return fbp_fail(FBP_ERROR_INDEX, "index %d of %s", 7, "here");
    FBP_TRY(fail_deep(depth - 1));
    return FBP_OK;
}

static void *message_of_other_thread(void *unused) {
    (void)unused;
    fbp_fail(FBP_ERROR_VALUE, "other");
    return NULL;
}

static void test_status(void) {
    CHECK(fbp_message() != NULL);
    CHECK(fail_deep(3) == FBP_ERROR_INDEX);
    CHECK(strcmp(fbp_message(), "index 7 of here") == 0);

    pthread_t other;
    CHECK(pthread_create(&other, NULL, message_of_other_thread, NULL) == 0);
    pthread_join(other, NULL);
    CHECK(strcmp(fbp_message(), "index 7 of here") == 0); /* a thread's message is its own */

    char huge[5000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    CHECK(fbp_fail(FBP_ERROR_MEMORY, "%s", huge) == FBP_ERROR_MEMORY);
    CHECK(strncmp(fbp_message(), huge, strlen(fbp_message())) == 0); /* cut, not overrun */
}

/* ---- environment ---- */

static const char *const *given; /* name, value, name, value, ..., NULL */

static const char *lookup_given(const char *name) {
    for (const char *const *pair = given; *pair; pair += 2)
        if (strcmp(pair[0], name) == 0) return pair[1];
    return NULL;
}

static fbp_environment parse(const char *const *pairs) {
    fbp_environment environment;
    memset(&environment, 0xab, sizeof environment); /* parse fills all of it */
    given = pairs;
    fbp_environment_parse(&environment, lookup_given);
    return environment;
}

static void test_environment(void) {
    fbp_environment e = parse((const char *const[]){NULL});
    CHECK(e.isa[0] == '\0' && e.num_threads == 0 && e.omp_num_threads == 0 && e.debug == 0 && !e.check);
    CHECK(e.problems[0] == '\0');

    e = parse((const char *const[]){"FASTBP_ISA", "avx2", "FASTBP_NUM_THREADS", "3", "OMP_NUM_THREADS", "8,4",
                                    "FASTBP_DEBUG", "4", "FASTBP_CHECK", "1", NULL});
    CHECK(strcmp(e.isa, "avx2") == 0 && e.num_threads == 3 && e.omp_num_threads == 8 && e.debug == 4 && e.check);
    CHECK(e.problems[0] == '\0');

    /* Malformed: the default holds and each variable is named. */
    e = parse((const char *const[]){"FASTBP_ISA", "AVX", "FASTBP_NUM_THREADS", "0", "OMP_NUM_THREADS", "many",
                                    "FASTBP_DEBUG", "5", "FASTBP_CHECK", "yes", NULL});
    CHECK(e.isa[0] == '\0' && e.num_threads == 0 && e.omp_num_threads == 0 && e.debug == 0 && !e.check);
    for (int i = 0; fbp_environment_row_get(i); i++) CHECK(strstr(e.problems, fbp_environment_row_get(i)->name));

    static const char *const bad_numbers[] = {"-1", "1.5", "3,2", "99999999999999999999", " ", "2x", "0x2"};
    for (size_t i = 0; i < sizeof bad_numbers / sizeof *bad_numbers; i++) {
        e = parse((const char *const[]){"FASTBP_NUM_THREADS", bad_numbers[i], NULL});
        CHECK(e.num_threads == 0 && strstr(e.problems, "FASTBP_NUM_THREADS"));
    }
    e = parse((const char *const[]){"FASTBP_NUM_THREADS", "", "FASTBP_CHECK", "", NULL});
    CHECK(e.problems[0] == '\0'); /* empty counts as not set */
    e = parse((const char *const[]){"FASTBP_NUM_THREADS", " 2 ", NULL});
    CHECK(e.num_threads == 2);

    int rows = 0;
    for (const fbp_environment_row *row; (row = fbp_environment_row_get(rows)); rows++)
        CHECK(row->name && row->meaning && row->values && row->default_value);
    CHECK(rows == 5 && fbp_environment_row_get(-1) == NULL);
    CHECK(fbp_environment_get() == fbp_environment_get());
}

/* ---- processor and quota ---- */

static void test_cpu(void) {
    const fbp_cpu *cpu = fbp_cpu_get();
    CHECK(cpu->brand[0] != '\0' && cpu->cores >= 1 && cpu->line_bytes >= 16);
    CHECK(cpu->l1_bytes >= 0 && cpu->l2_bytes >= 0 && cpu->l3_bytes >= 0);
    CHECK(fbp_cpu_has_isa("scalar") && !fbp_cpu_has_isa("nonesuch") && !fbp_cpu_has_isa("") && !fbp_cpu_has_isa(NULL));
#if defined(__x86_64__)
    CHECK(fbp_cpu_has_isa("sse2") && !fbp_cpu_has_isa("neon"));
    CHECK(!cpu->has_avx512 || cpu->has_avx2);
#elif defined(__aarch64__)
    CHECK(fbp_cpu_has_isa("neon") && !fbp_cpu_has_isa("sse2"));
#endif
    CHECK(fbp_cpu_usable() >= 1);
}

static char scratch[64]; /* a folder of this run */

/* Write `text` to the file `name` below the scratch folder, making the folders on the way. */
static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    for (char *slash = path + strlen(scratch) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    if (!file) return;
    fputs(text, file);
    fclose(file);
}

static int quota(const char *membership) {
    char path[128];
    put("membership", membership);
    snprintf(path, sizeof path, "%s/membership", scratch);
    return fbp_cpu_quota(path, scratch);
}

static void test_quota(void) {
    snprintf(scratch, sizeof scratch, "%s", "/tmp/fastbp-test-XXXXXX");
    if (!mkdtemp(scratch)) {
        CHECK(!"a temporary folder");
        return;
    }
    put("a/b/cpu.max", "max 100000\n");
    CHECK(quota("0::/a/b\n") == 0);
    put("a/cpu.max", "250000 100000\n");
    CHECK(quota("0::/a/b\n") == 3);           /* the parent's, rounded up */
    CHECK(quota("0::/elsewhere\n") == 0);
    put("cpu.max", "50000 100000\n");
    CHECK(quota("0::/elsewhere/deep\n") == 1); /* the host's path, unseen in a container: the root counts */
    CHECK(quota("0::/a/b\n") == 1);
    put("cpu.max", "200000 100000\n");
    CHECK(quota("0::/a/b\n") == 2);
    put("cpu.max", "nonsense");
    put("cpu,cpuacct/job/cpu.cfs_quota_us", "150000\n");
    put("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    CHECK(quota("5:cpuset:/\n4:cpu,cpuacct:/job\n0::/elsewhere\n") == 2);
    put("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    CHECK(quota("4:cpu,cpuacct:/job\n") == 0);
    put("cpuset/cpu.cfs_quota_us", "100000\n");
    put("cpuset/cpu.cfs_period_us", "100000\n");
    CHECK(quota("5:cpuset:/\n") == 0); /* not a quota's controller */
    CHECK(quota("no colons\n\n::\n") == 0);
    CHECK(fbp_cpu_quota("/nonexistent", "/nonexistent") == 0);

    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", scratch);
    CHECK(system(command) == 0);
}

/* ---- threads ---- */

enum { MOST_COUNT = 5000 };

typedef struct cover {
    atomic_int visits[MOST_COUNT];
    atomic_int pieces;
    atomic_int narrow; /* pieces below the grain, or with an impossible thread index */
    int64_t grain;
    int threads;
} cover;

static void visit(void *context, int64_t begin, int64_t end) {
    cover *c = context;
    atomic_fetch_add(&c->pieces, 1);
    int index = fbp_thread_index();
    if (end - begin < c->grain || index < 0 || index >= c->threads) atomic_fetch_add(&c->narrow, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&c->visits[i], 1);
}

/* Each index of [0, count) is visited exactly once, in wide enough pieces, by no more of them than threads. */
static void check_cover(cover *c, int64_t count, int64_t grain, int threads) {
    fbp_threads_set(threads);
    memset(c, 0, sizeof *c);
    c->threads = threads;
    c->grain = grain < count ? grain : count;
    fbp_parallel(count, grain, visit, c);
    bool once = true;
    for (int64_t i = 0; i < MOST_COUNT; i++) once = once && c->visits[i] == (i < count);
    if (!once || c->narrow || c->pieces > threads || (count > 0 && c->pieces < 1)) {
        failures++;
        printf("split of %lld by grain %lld over %d threads: %s, %d pieces, %d too narrow\n", (long long)count,
               (long long)grain, threads, once ? "complete" : "INCOMPLETE", c->pieces, c->narrow);
    }
}

static void test_split(void) {
    static const int64_t counts[] = {0, 1, 2, 3, 5, 7, 8, 31, 64, 100, 1023, MOST_COUNT};
    static const int64_t grains[] = {INT64_MIN, 0, 1, 2, 3, 10, 64, 2500, MOST_COUNT, INT64_MAX};
    static const int threads[] = {1, 2, 3, 4, 7, 16};
    cover *c = malloc(sizeof *c);
    if (!c) return;
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++)
        for (size_t g = 0; g < sizeof grains / sizeof *grains; g++)
            for (size_t n = 0; n < sizeof counts / sizeof *counts; n++)
                check_cover(c, counts[n], grains[g], threads[t]);
    for (int i = 0; i < 2000; i++) check_cover(c, 1 + i % 97, 1, 1 + i % 5); /* in quick succession: the team watches */
    memset(c, 0, sizeof *c);
    fbp_parallel(-5, 1, visit, c);
    CHECK(c->pieces == 0);
    free(c);
}

static void check_set(int count, int expected) {
    fbp_threads_set(count);
    CHECK(fbp_threads_get() == expected);
}

static void test_counts(void) {
    CHECK(pooled || strncmp(fbp_threads_runtime(), "OpenMP 20", 9) == 0);
    CHECK(fbp_threads_refused() == 0);
    check_set(0, 1);
    check_set(-3, 1);
    check_set(1 << 30, FBP_THREADS_MOST);
    check_set(2, 2);
    CHECK(fbp_thread_index() == 0);

    CHECK(fbp_grain(0, 1e9) == 1 && fbp_grain(-1, 1e9) == 1 && fbp_grain(1, 1e9) == 1);
    CHECK(fbp_grain(1000, 0) == 1000 && fbp_grain(1000, -1) == 1000 && fbp_grain(1000, NAN) == 1000);
    CHECK(fbp_grain(1000, 1000) == 1000);    /* a microsecond's work stays on one core */
    CHECK(fbp_grain(1000, INFINITY) == 1);
    CHECK(fbp_grain(1000, 1e6) <= 500);      /* a millisecond's is shared */
    CHECK(fbp_grain(INT64_MAX, 1e30) >= 1);
}

static void outer(void *context, int64_t begin, int64_t end) {
    int outer_index = fbp_thread_index();
    for (int64_t i = begin; i < end; i++) {
        cover *c = (cover *)context + i;
        c->grain = 1;
        c->threads = FBP_THREADS_MOST;
        fbp_parallel(100, 1, visit, c);
        if (fbp_thread_index() != outer_index) atomic_fetch_add(&c->narrow, 1);
    }
}

/* A region inside a region is one piece on the thread that asks. */
static void test_nested(void) {
    enum { OUTER = 8 };
    cover *c = calloc(OUTER, sizeof *c);
    if (!c) return;
    fbp_threads_set(4);
    fbp_parallel(OUTER, 1, outer, c);
    for (int i = 0; i < OUTER; i++) {
        CHECK(c[i].pieces == 1 && c[i].narrow == 0);
        for (int k = 0; k < 100; k++) CHECK(c[i].visits[k] == 1);
    }
    free(c);
}

/* Another library's region of OpenMP: each of its threads that calls gets one piece, done by itself. */
static void test_foreign(void) {
    if (pooled) return; /* the pool asks no other runtime, and this file is compiled without OpenMP */
    enum { TEAM = 2 };
    cover *c = calloc(TEAM, sizeof *c);
    if (!c) return;
    fbp_threads_set(4);
#pragma omp parallel for num_threads(TEAM)
    for (int i = 0; i < TEAM; i++) {
        c[i].grain = 100;
        c[i].threads = 1; /* so that the only index is 0 */
        fbp_parallel(100, 1, visit, &c[i]);
    }
    for (int i = 0; i < TEAM; i++) CHECK(c[i].pieces == 1 && c[i].narrow == 0 && c[i].visits[99] == 1);
    free(c);
}

static void *run_many(void *context) {
    for (int i = 0; i < 500; i++) {
        cover *c = context;
        memset(c, 0, sizeof *c);
        c->grain = 1;
        c->threads = FBP_THREADS_MOST;
        fbp_parallel(50, 1, visit, c);
        for (int k = 0; k < 50; k++)
            if (c->visits[k] != 1) return context;
    }
    return NULL;
}

/* Several host threads at once: one has a team, the others work alone. */
static void test_hosts(void) {
    enum { HOSTS = 4 };
    pthread_t hosts[HOSTS];
    cover *c = calloc(HOSTS, sizeof *c);
    if (!c) return;
    fbp_threads_set(3);
    for (int i = 0; i < HOSTS; i++) CHECK(pthread_create(&hosts[i], NULL, run_many, &c[i]) == 0);
    for (int i = 0; i < HOSTS; i++) {
        void *failed = NULL;
        pthread_join(hosts[i], &failed);
        CHECK(failed == NULL);
    }
    free(c);
}

/* Two pieces that each wait for the other to begin: they can only meet on two threads. */
static void meet(void *context, int64_t begin, int64_t end) {
    atomic_int *arrived = context;
    if (end - begin != 1) return; /* both in one piece */
    atomic_fetch_add(arrived, 1);
    for (int turn = 0; turn < 10000 && atomic_load(arrived) % 2 != 0; turn++) usleep(1000);
    if (atomic_load(arrived) % 2 != 0) atomic_store(arrived, -1000); /* nobody came */
}

static void check_two_threads(void) {
    atomic_int arrived = 0;
    fbp_threads_set(2);
    fbp_parallel(2, 1, meet, &arrived);
    CHECK(atomic_load(&arrived) == 2);
}

/* Fork; the child must get along on its one thread, whatever it asks for, and so must its own child. */
static void check_child(cover *c, int generations) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        alarm(60); /* a child that hangs dies, and fails the test */
        CHECK(fbp_threads_get() == 1);
        fbp_threads_set(4);
        CHECK(fbp_threads_get() == 1);
        memset(c, 0, sizeof *c);
        c->threads = 1;
        c->grain = 1000;
        fbp_parallel(1000, 1, visit, c);
        CHECK(c->pieces == 1 && c->narrow == 0 && c->visits[0] == 1 && c->visits[999] == 1);
        if (generations > 1) check_child(c, generations - 1);
        fflush(stdout);
        _exit(failures ? 1 : 0);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Right after the parent used its threads, and in the middle of a region of another host thread. */
static void test_fork(void) {
    cover *c = calloc(2, sizeof *c);
    if (!c) return;
    check_cover(c, 1000, 1, 4);
    check_two_threads();
    check_child(c, 2);
    check_two_threads(); /* the parent's team is as it was */

    pthread_t host;
    fbp_threads_set(3);
    CHECK(pthread_create(&host, NULL, run_many, &c[1]) == 0);
    for (int i = 0; i < 5; i++) check_child(c, 1);
    pthread_join(host, NULL);
    free(c);
}

/* The default number of threads of a process with this variable (NULL = none) on the first `cores` of this one's cores
 * (0 = all); the environment holds no other limit. */
static int default_count(const char *name, const char *value, int cores) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        unsetenv("OMP_NUM_THREADS");
        unsetenv("FASTBP_NUM_THREADS");
        if (name) setenv(name, value, 1);
#if defined(__linux__)
        cpu_set_t set;
        int kept = 0;
        if (cores > 0 && sched_getaffinity(0, sizeof set, &set) == 0) {
            for (int core = 0; core < CPU_SETSIZE; core++)
                if (CPU_ISSET(core, &set) && kept++ >= cores) CPU_CLR(core, &set);
            sched_setaffinity(0, sizeof set, &set);
        }
#endif
        execl(own_path, own_path, "--count", (char *)NULL);
        _exit(255);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* The default is the least of the four limits. */
static void test_default(void) {
    int usable = fbp_cpu_usable();
    int all = usable < FBP_THREADS_MOST ? usable : FBP_THREADS_MOST;
    CHECK(default_count(NULL, NULL, 0) == all);
    CHECK(default_count("FASTBP_NUM_THREADS", "1", 0) == 1);
    CHECK(default_count("OMP_NUM_THREADS", "1,1", 0) == 1);
    CHECK(default_count("FASTBP_NUM_THREADS", "4000", 0) == all); /* a limit, not a wish */
    CHECK(default_count("OMP_NUM_THREADS", "4000", 0) == all);
#if defined(__linux__)
    CHECK(default_count("FASTBP_NUM_THREADS", "4000", 1) == 1);
#endif
}

static double seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- what a region costs ---- */

/* Pieces that keep a core busy for so many seconds each. */
static void keep_busy(void *context, int64_t begin, int64_t end) {
    const double *piece = context;
    double until = seconds(CLOCK_MONOTONIC) + *piece * (double)(end - begin);
    while (*piece > 0 && seconds(CLOCK_MONOTONIC) < until) continue;
}

/* Seconds that each of `count` regions, of `piece` seconds for each of two threads, takes its caller; each begins `gap`
 * seconds after the last ended, in which the caller works (it reads the clock) or sleeps. */
static void time_regions(double *taken, int count, double piece, double gap, bool asleep) {
    for (int i = 0; i < count; i++) {
        double ready = seconds(CLOCK_MONOTONIC) + gap;
        if (asleep) usleep((useconds_t)(gap * 1e6));
        while (seconds(CLOCK_MONOTONIC) < ready) continue;
        double start = seconds(CLOCK_MONOTONIC);
        fbp_parallel(2, 1, keep_busy, &piece);
        taken[i] = seconds(CLOCK_MONOTONIC) - start;
    }
}

/* Processor seconds per second while a region runs every 10 ms: what watching costs a process that mostly sleeps. */
static double idle_share(int count) {
    double taken[1000];
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID), start = seconds(CLOCK_MONOTONIC);
    time_regions(taken, count, 0, 0.0099, true);
    return (seconds(CLOCK_PROCESS_CPUTIME_ID) - used) / (seconds(CLOCK_MONOTONIC) - start);
}

/* Threads watch briefly: a process that works seldom uses little.  gcc's runtime left to itself fails this, with 0.4 of
 * a core; tools/core_build.py sets for the tests what the package sets for its users. */
static void test_idle(void) {
    if (!pooled && !getenv("GOMP_SPINCOUNT")) return;
    fbp_threads_set(2);
    double taken[1];
    time_regions(taken, 1, 0, 0, false);
    CHECK(idle_share(50) < 0.1);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One line: quartile and median of the regions' times, in microseconds. */
static void print_times(int count, double piece, double gap, bool asleep) {
    double taken[1000];
    time_regions(taken, count, piece, gap, asleep);
    qsort(taken, (size_t)count, sizeof *taken, compare_doubles);
    printf("%4.0f us of work, %4.0f us after the last, caller %s %8.1f %8.1f us\n", 2e6 * piece, 1e6 * gap,
           asleep ? "asleep" : "busy  ", 1e6 * taken[count / 4], 1e6 * taken[count / 2]);
}

static void print_costs(void) {
    static const double gaps[] = {0, 10e-6, 20e-6, 40e-6, 100e-6, 5e-3};
    static const double pieces[] = {0, 10e-6, 20e-6, 40e-6, 80e-6};
    const char *spins = getenv("GOMP_SPINCOUNT");
    fbp_threads_set(2);
    printf("%s", fbp_threads_runtime());
    if (!pooled) printf(", GOMP_SPINCOUNT %s", spins ? spins : "not set");
    printf("; quartile and median\n");
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) print_times(gaps[i] < 1e-3 ? 1000 : 200, 0, gaps[i], false);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) print_times(1000, pieces[i], 0, false);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) print_times(200, pieces[i], 5e-3, true);
    printf("%.1f %% of a core used by an empty region each 10 ms\n", 100 * idle_share(200));
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    own_path = arguments[0];
    emulated = strcmp(mode, "--emulated") == 0;
    pooled = strcmp(fbp_threads_runtime(), "a pool of POSIX threads") == 0;
    if (strcmp(mode, "--count") == 0) return fbp_threads_get();
    if (strcmp(mode, "--time") == 0) {
        print_costs();
        return 0;
    }
    test_status();
    test_environment();
    test_cpu();
    test_quota();
    test_split();
    test_counts();
    test_nested();
    test_foreign();
    test_hosts();
    test_fork();
    if (!emulated) test_default();
    if (!emulated) test_idle();
    if (failures) printf("test_base: %d failures\n", failures);
    return failures != 0;
}
