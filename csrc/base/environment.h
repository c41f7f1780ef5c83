/* environment.h -- every environment variable that fastbp reads, parsed in one place, once.
 *
 * A malformed value is not fatal: the default holds and `problems` says what was wrong, so that
 * fastbp.show_config() can tell the user.
 */
#ifndef FBP_BASE_ENVIRONMENT_H
#define FBP_BASE_ENVIRONMENT_H

#include <stdbool.h>

typedef struct fbp_environment {
    char isa[16];        /* FASTBP_ISA: instruction set to use, "" = the best that runs here */
    int num_threads;     /* FASTBP_NUM_THREADS: most threads to use, 0 = no limit from it */
    int omp_num_threads; /* OMP_NUM_THREADS: likewise; of a list, the first number */
    int debug;           /* FASTBP_DEBUG: 0..4, each level adds to the last */
    bool check;          /* FASTBP_CHECK: hold plans to their programs on other memory, and to the scalar kernels */
    char problems[512];  /* one line per malformed variable, "" when there is none */
} fbp_environment;

/* One row of the table of variables, for listings and for the test that compares it with the docs. */
typedef struct fbp_environment_row {
    const char *name;          /* FASTBP_ISA ... */
    const char *meaning;       /* one sentence */
    const char *values;        /* what may stand in it, for people */
    const char *default_value; /* what holds without it, for people */
} fbp_environment_row;

/* The process's environment as it was at the first call; never NULL, the same pointer ever after. */
const fbp_environment *fbp_environment_get(void);

/* Row `index` of the table, NULL past its end: for (int i = 0; (row = fbp_environment_row_get(i)); i++). */
const fbp_environment_row *fbp_environment_row_get(int index);

/* Parse variables that `lookup` answers for (NULL = not set), as getenv does; fills all of
 * `environment`.  fbp_environment_get is this with getenv; tests bring their own. */
void fbp_environment_parse(fbp_environment *environment, const char *(*lookup)(const char *name));

#endif
