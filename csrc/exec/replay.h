/* replay.h -- a captured program run as it was captured, on memory of its own: the other side of FASTBP_CHECK=1.
 *
 * A plan is judged by what its passes did not touch.  The program is copied before the first pass; a replay has memory of its own for
 * each buffer, and the host fills those of the outside by looking at its tensors anew at each call, so that no address of the plan is
 * shared.  Each line computes from contiguous copies of its operands into a fresh array, so that no stride of the plan is shared, nor
 * any that the program has for itself.  What is shared are the rows' run_ functions and the kernels in force.
 *
 * So both sides have the same bits, but for what a plan sums in another order (docs/compile.md): sums that ride along in chains,
 * products that are added to what is there, products of one column.  The bound of fbp_elements_compare is for these.
 */
#ifndef FBP_EXEC_REPLAY_H
#define FBP_EXEC_REPLAY_H

#include "exec/run.h"

typedef struct fbp_replay {
    const fbp_program *program; /* the caller's, which must outlive the replay; only read */
    char **memory;              /* of each buffer: where its first byte would be */
    struct fbp_extent { int64_t low, high; } *extents; /* bytes of it that are there: strides may be negative, so low may be, too */
    double *scales;             /* of each buffer: the largest element that what stands there came from by adding */
    fbp_generator *places;      /* of each draw: seed and block */
    fbp_update_slot *updates;   /* numbers of each UPDATE line; `steps` and `strides` are not used */
    int64_t **steps;            /* of each UPDATE line: what each parameter had done before it; the caller's */
    int32_t update_count;
} fbp_replay;

/* A copy of a captured program for replays: with constants of its own, and without the storages of others. */
fbp_status fbp_replay_program(const fbp_program *captured, fbp_program **out);

/* Memory for one call.  Constants and places in random sequences are as they are now; all other memory is NaN until it is filled. */
fbp_status fbp_replay_new(const fbp_program *program, int32_t update_count, fbp_replay **out);
void fbp_replay_free(fbp_replay *replay);
/* The elements of t, and what lies between them, stand `offset` bytes into `buffer`.  RUNTIME where they have no room there. */
fbp_status fbp_replay_fill(fbp_replay *replay, int32_t buffer, int64_t offset, const fbp_tensor *t);
/* The elements of `value` are those of t, which may lie otherwise; NULL: zeros.  RUNTIME where t has another shape or type. */
fbp_status fbp_replay_set(fbp_replay *replay, int32_t value, const fbp_tensor *t);
/* The lines of one phase in the order of capture. */
fbp_status fbp_replay_run(fbp_replay *replay, int phase);
/* Hold `found` to what stands `offset` bytes into `buffer`, laid out as `like` (NULL: row by row).  RUNTIME, naming `what`, where a
 * shape, a type or an element differs. */
fbp_status fbp_replay_compare(const fbp_replay *replay, int32_t buffer, int64_t offset, const fbp_tensor *like, const fbp_tensor *found,
                              const char *what);
/* The same for a value of the program. */
fbp_status fbp_replay_compare_value(const fbp_replay *replay, int32_t value, const fbp_tensor *found, const char *what);

/* ---- comparing (check.c) -------------------------------------------------------------------------------------------------- */

typedef struct fbp_discrepancy {
    double difference; /* largest; inf where one side is not finite, or integers differ */
    double allowed;    /* 0 for integers */
} fbp_discrepancy;

/* Largest absolute value of an element; those that are not finite do not count. */
double fbp_tensor_largest(const fbp_tensor *t);
/* Two arrays of n elements.  Floats may differ by 4096 roundings of `scale` or of their largest element; NaN equals NaN. */
fbp_discrepancy fbp_elements_compare(int dtype, int64_t n, const char *a, const char *b, double scale);

#endif
