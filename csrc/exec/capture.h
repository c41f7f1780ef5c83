/* capture.h -- running a function once to learn what it does.
 *
 * While a thread captures, ops compute nothing: they infer, record for differentiation as ever, make symbolic tensors, and
 * append a line to a program.  What ops would have written in place is appended as a WRITE.  Whoever asks for a value
 * finds fbp_storage.symbolic set and refuses.  What becomes of gradients is the capture's own: other threads see those of
 * the leaves as they were, and so does everybody after its end or its failure; generators are not touched.
 */
#ifndef FBP_EXEC_CAPTURE_H
#define FBP_EXEC_CAPTURE_H

#include "exec/generator.h"
#include "plan/program.h"

/* What became of the gradient of one leaf from outside. */
typedef struct fbp_leaf_change {
    fbp_tensor *leaf;     /* held */
    fbp_tensor *before;   /* its gradient when the capture began (held), NULL: none */
    fbp_tensor *after;    /* and as the function leaves it (held), NULL: none */
    bool replaced_first;  /* the function set the gradient before it used it */
    bool held;            /* the host had a handle of `before`, by which the function may know it, too */
} fbp_leaf_change;

/* What the function draws of a generator, which itself stands still: other threads draw from it meanwhile. */
typedef struct fbp_generator_change {
    fbp_generator *generator;
    uint64_t mark;        /* in place of its seed in what is drawn, unlike any seed of a generator: by it a line tells where it draws */
    uint64_t blocks;      /* drawn so far */
} fbp_generator_change;

typedef struct fbp_capture {
    fbp_program *program;
    fbp_leaf_change *leaves;
    fbp_generator_change *generators;
    fbp_tensor **seen;    /* tensors from outside, held: the first that was met of each storage, and those that views hid */
    int32_t *seen_table;  /* hash table of numbers in `seen`, -1: free */
    int32_t *leaf_table;  /* the same for `leaves` */
    int32_t leaf_count, leaf_capacity, generator_count, generator_capacity, seen_count, seen_capacity, seen_table_size, leaf_table_size;
    bool failed;          /* a list could not grow where no status can be returned */
} fbp_capture;

/* Begin on the calling thread; one capture at a time. */
fbp_status fbp_capture_begin(fbp_capture **out);
/* Ops run for real again until the end of the pause (optimizers make their state so); a capture ends by one that stays. */
fbp_capture *fbp_capture_pause(void);
void fbp_capture_resume(fbp_capture *capture);
/* Frees everything, the program too unless it was taken out (set to NULL). */
void fbp_capture_free(fbp_capture *capture);

/* The calling thread's capture, NULL when there is none or it is paused. */
fbp_capture *fbp_capture_get(void);
/* A fresh symbolic tensor. */
fbp_status fbp_capture_tensor(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out);
/* A symbolic tensor of this layout, made by the call; `which` < 0: the op itself, else the pull of that input. */
fbp_status fbp_capture_apply(fbp_capture *capture, const fbp_call *call, int which, const fbp_layout *layout, int edge_count,
                             int attribute_bytes, fbp_tensor **out);
/* target's elements = source's. */
fbp_status fbp_capture_write(fbp_capture *capture, fbp_tensor *target, fbp_tensor *source);
/* An optimizer's step over tensors[5 * count]: param, grad, state[3] each, absent ones NULL; `slot` names its numbers. */
fbp_status fbp_capture_update(fbp_capture *capture, fbp_op op, int count, fbp_tensor *const *tensors, int slot);
/* Before the gradient of `leaf` is looked at or changes: from then on the capture has its own. */
fbp_status fbp_capture_gradient(fbp_capture *capture, fbp_tensor *leaf, bool replaced);
/* Whether anyone but its leaf sees a gradient: it is from outside, an argument's memory, or held by the function. */
bool fbp_capture_is_seen(const fbp_capture *capture, const fbp_tensor *gradient);
/* A tensor from outside whose elements the program may come to read. */
void fbp_capture_see(fbp_capture *capture, fbp_tensor *t);
/* Reserve `blocks` blocks (>= 0) of a generator for each call; *place is the generator's mark, and the first of them. */
fbp_status fbp_capture_draw(fbp_capture *capture, fbp_generator *generator, int64_t blocks, fbp_generator *place);

#endif
