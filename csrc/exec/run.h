/* run.h -- a planned program with memory under it: what a compiled call runs.
 *
 * Running needs no lock of the host's and allocates nothing.  Between runs the host, under its lock, points buffers of the outside
 * (arguments, state, results, gradients) at their memory, and sets the numbers that may differ from call to call: hyperparameters
 * and places in random sequences.  One run of one plan at a time: that is the host's to see to.
 */
#ifndef FBP_EXEC_RUN_H
#define FBP_EXEC_RUN_H

#include "exec/generator.h"
#include "kernels/update.h"
#include "plan/program.h"

/* Numbers of one UPDATE line. */
typedef struct fbp_update_slot {
    union { fbp_sgd sgd; fbp_adam adam; } hyper;
    int32_t count;      /* parameters of the line */
    int64_t *steps;     /* [count]: steps that each has done before the line in the next run, those of earlier lines included */
    int64_t *strides;   /* [count]: steps that a run adds: lines of one optimizer that update it */
} fbp_update_slot;

/* A generator that the plan draws from, and how many blocks a run takes: at its beginning, since others draw from it meanwhile. */
typedef struct fbp_draw_slot {
    fbp_generator *generator;
    uint64_t blocks;
    fbp_generator place;      /* where the latest run began */
} fbp_draw_slot;

typedef struct fbp_step {
    const fbp_line *line;
    fbp_tensor **inputs;      /* of OP, WRITE, LOSS lines */
    fbp_tensor *output;
    void *tensors;            /* UPDATE: fbp_sgd_tensor[] or fbp_adam_tensor[], one list a type */
    int32_t counts[2];        /* of float32 and float64 among them */
    int32_t *order;           /* UPDATE: which of the line's parameters each of `tensors` is */
} fbp_step;

typedef struct fbp_plan {
    fbp_program *program;
    fbp_step *steps;
    char *arena;
    size_t arena_bytes;
    fbp_update_slot *updates;
    fbp_draw_slot *draws;
    int32_t update_count, draw_count;
    bool checked;             /* fbp_plan_pass runs fbp_plan_run_checked */
    uint8_t *listed;          /* per buffer: an UPDATE line names its address in a list */
    bool moved;               /* one of these was bound since the lists were made */
} fbp_plan;

/* Plan a captured program, take it over, and put memory under it.  On failure the program stays the caller's. */
fbp_status fbp_plan_new(fbp_program *program, int update_count, int draw_count, fbp_plan **out);
void fbp_plan_free(fbp_plan *plan);
/* The elements of `buffer` begin at `base` from now on. */
void fbp_plan_bind(fbp_plan *plan, int32_t buffer, char *base);
/* Before the first line of a run: the numbers that differ from run to run, places in random sequences among them; after the last: steps. */
void fbp_plan_begin(fbp_plan *plan);
void fbp_plan_end(fbp_plan *plan);
/* Once through.  A failing line's status: lines before it have run. */
fbp_status fbp_plan_run(fbp_plan *plan);
/* The same, adding each line's seconds to seconds[line_count]. */
fbp_status fbp_plan_run_timed(fbp_plan *plan, double *seconds);
/* One line by itself. */
fbp_status fbp_step_run(fbp_plan *plan, const fbp_step *step);
/* The same, with every line computed on the scalar kernels as well: RUNTIME names the first that differs (addresses and strides are
 * those of the plan both times; replay.h has its own). */
fbp_status fbp_plan_run_checked(fbp_plan *plan);
/* Most bytes that the plan's own memory takes. */
int64_t fbp_plan_peak_bytes(const fbp_plan *plan);

/* ---- many runs ---- */

/* An argument that is a batch of rows of a larger array. */
typedef struct fbp_batch_source {
    int32_t buffer;
    const char *rows;         /* contiguous rows */
    int64_t row_bytes;
    char *batch;              /* room for one batch, used where `order` picks rows */
} fbp_batch_source;

/* A result that goes to a place of its own at each run. */
typedef struct fbp_batch_result {
    int32_t buffer;
    char *base;
    int64_t bytes;
} fbp_batch_result;

typedef struct fbp_pass {
    int64_t batch;            /* rows a run */
    const void *order;        /* int64 numbers of the rows, NULL: as they lie */
    int source_count, result_count;
    const fbp_batch_source *sources;
    const fbp_batch_result *results;
} fbp_pass;

/* Runs begin <= i < end of a pass. *done counts those that are complete. */
fbp_status fbp_plan_pass(fbp_plan *plan, const fbp_pass *pass, int64_t begin, int64_t end, int64_t *done);

#endif
