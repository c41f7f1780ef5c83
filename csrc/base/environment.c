/* environment.c -- the table of variables and the parser of each; nothing else in the core calls getenv. */
#include "base/environment.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 4096, MOST_DEBUG = 4 };

/* A variable's row and its parser, which returns false, and leaves the default, on a malformed text. */
typedef struct variable {
    fbp_environment_row row;
    bool (*parse)(const char *text, fbp_environment *environment);
} variable;

/* A whole number in [least, most]; `list` also accepts ",..." after it, as OMP_NUM_THREADS=4,2 has. */
static bool parse_int(const char *text, int least, int most, bool list, int *value) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || errno != 0 || number < least || number > most) return false;
    end += strspn(end, " \t");
    if (*end != '\0' && !(list && *end == ',')) return false;
    *value = (int)number;
    return true;
}

static bool parse_isa(const char *text, fbp_environment *environment) {
    static const char *const names[] = {"scalar", "sse2", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        snprintf(environment->isa, sizeof environment->isa, "%s", text);
        return true;
    }
    return false;
}

static bool parse_num_threads(const char *text, fbp_environment *environment) {
    return parse_int(text, 1, MOST_THREADS, false, &environment->num_threads);
}

static bool parse_omp_num_threads(const char *text, fbp_environment *environment) {
    return parse_int(text, 1, MOST_THREADS, true, &environment->omp_num_threads);
}

static bool parse_debug(const char *text, fbp_environment *environment) {
    return parse_int(text, 0, MOST_DEBUG, false, &environment->debug);
}

static bool parse_check(const char *text, fbp_environment *environment) {
    int value = 0;
    if (!parse_int(text, 0, 1, false, &value)) return false;
    environment->check = value != 0;
    return true;
}

static const variable variables[] = {
    {{"FASTBP_ISA", "The instruction set whose kernels run.", "scalar, sse2, avx2, avx512 or neon",
      "the best that this processor has"},
     parse_isa},
    {{"FASTBP_NUM_THREADS", "The most threads that fastbp uses by default.", "1 to 4096",
      "no limit beyond affinity, CPU quota and OMP_NUM_THREADS"},
     parse_num_threads},
    {{"OMP_NUM_THREADS", "The same limit, as other numerical libraries read it.", "1 to 4096; of a list, the first",
      "no limit"},
     parse_omp_num_threads},
    {{"FASTBP_DEBUG", "Checks of the library on itself: from 1 on, the program of a compiled step is verified after each pass of the planner.", "0 to 4", "0"}, parse_debug},
    {{"FASTBP_CHECK", "Hold each call of a compiled plan to its operations one by one, on other memory, and its steps to the scalar kernels.", "0 or 1", "0"},
     parse_check},
};
enum { VARIABLE_COUNT = sizeof variables / sizeof *variables };

/* Append one line on a malformed value; what does not fit is cut. */
static void note_problem(fbp_environment *environment, const fbp_environment_row *row, const char *text) {
    size_t used = strlen(environment->problems);
    snprintf(environment->problems + used, sizeof environment->problems - used, "%s%s=%.32s ignored: it takes %s",
             used ? "\n" : "", row->name, text, row->values);
}

void fbp_environment_parse(fbp_environment *environment, const char *(*lookup)(const char *name)) {
    memset(environment, 0, sizeof *environment);
    for (int i = 0; i < VARIABLE_COUNT; i++) {
        const char *text = lookup(variables[i].row.name);
        if (!text || !*text) continue; /* set to nothing counts as not set, as for OpenMP */
        if (!variables[i].parse(text, environment)) note_problem(environment, &variables[i].row, text);
    }
}

static fbp_environment process_environment;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;

static const char *lookup_process(const char *name) { return getenv(name); }

static void parse_process(void) { fbp_environment_parse(&process_environment, lookup_process); }

const fbp_environment *fbp_environment_get(void) {
    pthread_once(&process_once, parse_process);
    return &process_environment;
}

const fbp_environment_row *fbp_environment_row_get(int index) {
    return index >= 0 && index < VARIABLE_COUNT ? &variables[index].row : NULL;
}
