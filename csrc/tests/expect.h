/* expect.h -- expectations of the tests: a failing one is told with its place and text, and fails the program at its end.
 *
 *     CHECK(count == 3);
 *     CHECK(count == 3, "of shape %s: %d", text, count);
 *     must(fbp_tensor_empty(&layout, 0, 0, &t));       what cannot be gone on without
 */
#ifndef FBP_TESTS_EXPECT_H
#define FBP_TESTS_EXPECT_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"

static int failures;

/* Count a failure, and print the first twenty. */
__attribute__((format(printf, 4, 5))) static inline void count_failure(const char *file, int line, const char *condition,
                                                                       const char *format, ...) {
    if (failures++ >= 20) return;
    va_list arguments;
    va_start(arguments, format);
    printf("%s:%d: expected %s:", file, line, condition);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

#define CHECK(condition, ...)                                                             \
    do {                                                                                  \
        if (!(condition)) count_failure(__FILE__, __LINE__, #condition, " " __VA_ARGS__); \
    } while (0)

/* End the program where a call that the test rests on has failed. */
static inline void must(fbp_status status) {
    if (status == FBP_OK) return;
    printf("%s\n", fbp_message());
    exit(1);
}

#endif
