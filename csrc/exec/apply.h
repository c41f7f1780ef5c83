/* apply.h -- eager execution: infer, run, record. */
#ifndef FBP_EXEC_APPLY_H
#define FBP_EXEC_APPLY_H

#include "ops/op.h"

enum { FBP_VMAP_DEPTH_MAX = 32 };

/* A vmap under way (exec/batched.h). */
typedef struct fbp_vmap {
    uint64_t level;
    int64_t size;      /* of the batch */
    int randomness;    /* fbp_randomness */
} fbp_vmap;

/* What the calling thread wants of ops. */
typedef struct fbp_mode {
    bool grad_enabled; /* record ops on tensors that require a gradient */
    struct fbp_capture *capture; /* ops become lines of its program; NULL: they run */
    uint8_t anomaly;   /* fbp_anomaly_level */
    bool keep_values;  /* recorded nodes hold every input and output: for replay, explanation and forward mode */
    uint64_t quiet_level; /* ops of this level (graph/batched.h) and above are not recorded: a sweep over that level runs */
    int vmap_count;
    fbp_vmap vmaps[FBP_VMAP_DEPTH_MAX]; /* the outermost first */
} fbp_mode;
fbp_mode *fbp_mode_get(void);

/* Whether a call of such a level on these inputs is recorded. */
bool fbp_wants_record(const fbp_call *call, const fbp_mode *mode, uint64_t level);
/* Edges, attributes and flags of a freshly made node with room for them. */
void fbp_record(const fbp_call *call, const fbp_mode *mode, fbp_tensor *out);

/* out = op(inputs): checks, allocates, computes, and records a node where a gradient may be wanted.  On failure nothing was made
 * and nothing changed.  `attributes` is the op's struct, of which `attribute_bytes` are in use. */
fbp_status fbp_apply(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes, fbp_tensor **out);

/* The same into the elements of `out`, which must have the result's shape and type and lie contiguous; nothing is recorded. */
fbp_status fbp_apply_out(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes, fbp_tensor *out);

/* *target = op(*target, inputs[1..]) in its own storage, as PyTorch's op_(): inputs[0] must be *target.  Where the op is recorded,
 * *target is replaced by a new node over the same storage and the caller's handle follows it. */
fbp_status fbp_apply_in_place(fbp_op op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes,
                              fbp_tensor **target);
/* *target's elements = source, broadcast and cast: target.copy_(source). */
fbp_status fbp_copy_in_place(fbp_tensor **target, fbp_tensor *source);
/* The part of *target that `slice` names = source, cast and repeated as needed: target[...] = source. */
fbp_status fbp_assign(fbp_tensor **target, const fbp_slice_attribute *slice, fbp_tensor *source);
/* Whether `t` has elements: RuntimeError for one that was kept from a capture, or from a vmap. */
fbp_status fbp_elements_check(const char *op, const fbp_tensor *t);
/* Whether `t` may be written: RuntimeError for read-only memory, a leaf that requires grad (when recording), expanded memory. */
fbp_status fbp_writable(const char *op, const fbp_tensor *t);

/* Plain element movement, not recorded.  `out` is fresh and owned by the caller. */
fbp_status fbp_contiguous_copy(fbp_tensor *x, fbp_tensor **out);
/* target (any strides) = source of the same shape and type. */
void fbp_elements_copy(fbp_tensor *target, const fbp_tensor *source);

#endif
