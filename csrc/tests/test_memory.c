/* test_memory.c -- arrays and blocks: sizes, reuse, counts, and a process that forks while other threads are at the cache.
 *
 *     test_memory --emulated   tests what qemu's user mode can run
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "tests/expect.h"

/* Every byte that was asked for can be written, pieces are aligned and apart, and the counts come back to where they were. */
static void test_pieces(void *(*get)(size_t), void (*give)(void *, size_t), size_t alignment) {
    static const size_t sizes[] = {0, 1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 4096, 5000, 1 << 20, 33 << 20};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    const fbp_memory_stats before = fbp_memory_statistics();
    unsigned char *pieces[COUNT];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            pieces[i] = get(sizes[i]);
            CHECK(pieces[i] && (uintptr_t)pieces[i] % alignment == 0);
            memset(pieces[i], i + 1, sizes[i]);
        }
        for (int i = 0; i < COUNT; i++)
            CHECK(!sizes[i] || (pieces[i][0] == i + 1 && pieces[i][sizes[i] - 1] == i + 1));
        for (int i = 0; i < COUNT; i++) give(pieces[i], sizes[i]);
    }
    const fbp_memory_stats after = fbp_memory_statistics();
    CHECK(after.live_bytes == before.live_bytes && after.live_blocks == before.live_blocks);
}

static void test_limits(void) {
    CHECK(fbp_memory_get(SIZE_MAX) == NULL);
    CHECK(fbp_memory_get(SIZE_MAX - 63) == NULL);
    CHECK(fbp_memory_get((size_t)1 << 60) == NULL);
    fbp_memory_free(NULL, 100);
    fbp_block_free(NULL, 100);
}

static atomic_bool ended;

static void *hammer(void *unused) {
    (void)unused;
    while (!atomic_load(&ended)) fbp_memory_free(fbp_memory_get(4096), 4096);
    return NULL;
}

/* The child of a fork finds the cache open, whatever the parent's other threads were doing. */
static void test_fork(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, hammer, NULL) == 0);
    int stuck = 0;
    for (int i = 0; i < 300; i++) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(5);
            fbp_memory_free(fbp_memory_get(4096), 4096);
            _exit(0);
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        if (status != 0) stuck++;
        if (stuck) break;
    }
    CHECK(stuck == 0);
    atomic_store(&ended, true);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

int main(int count, char **arguments) {
    const bool emulated = count > 1 && strcmp(arguments[1], "--emulated") == 0;
    test_pieces(fbp_memory_get, fbp_memory_free, FBP_ALIGNMENT);
    test_pieces(fbp_block_get, fbp_block_free, 16);
    test_limits();
    if (!emulated) test_fork();
    if (failures) printf("test_memory: %d failures\n", failures);
    return failures != 0;
}
