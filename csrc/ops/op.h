/* op.h -- what a row of the op table becomes. */
#ifndef FBP_OPS_OP_H
#define FBP_OPS_OP_H

#include "graph/tensor.h"
#include "ops/attributes.h"

typedef enum fbp_op {
    FBP_OP_leaf = 0,
#define POINTWISE1(name, ...) FBP_OP_##name,
#define POINTWISE2(name, ...) FBP_OP_##name,
#define POINTWISE3(name, ...) FBP_OP_##name,
#define PREDICATE1(name, ...) FBP_OP_##name,
#define PREDICATE2(name, ...) FBP_OP_##name,
#define LINEAR(name, ...) FBP_OP_##name,
#define VIEW(name, ...) FBP_OP_##name,
#define BILINEAR(name, ...) FBP_OP_##name,
#define GENERAL(name, ...) FBP_OP_##name,
#define NODIFF(name, ...) FBP_OP_##name,
#define UPDATE(name, ...) FBP_OP_##name,
#include "ops/ops.def"
    FBP_OP_COUNT
} fbp_op;

typedef enum fbp_op_class {
    FBP_CLASS_LEAF, FBP_CLASS_POINTWISE, FBP_CLASS_PREDICATE, FBP_CLASS_LINEAR, FBP_CLASS_BILINEAR, FBP_CLASS_GENERAL,
    FBP_CLASS_NODIFF, FBP_CLASS_UPDATE,
} fbp_op_class;

typedef enum fbp_op_kind { FBP_KIND_NONE, FBP_KIND_F, FBP_KIND_N, FBP_KIND_I } fbp_op_kind;

/* Values that a derivative rule reads. */
enum { NEED_A = 1, NEED_B = 2, NEED_C = 4, NEED_Y = 8 };

/* One application: what infer and run see. */
typedef struct fbp_call {
    fbp_op op;
    int count;
    fbp_tensor *const *inputs; /* absent optional inputs are NULL */
    const void *attributes;
    int attribute_bytes;
} fbp_call;

/* Shape, type and strides of the result from those of the inputs; the place where bad input is refused.
 * `*is_view` is false on entry; a VIEW op sets it where the result shares inputs[0]'s elements
 * (layout->offset then counts from its first element). */
typedef fbp_status (*fbp_infer_fn)(const fbp_call *call, fbp_layout *layout, bool *is_view);
/* Compute the elements of `out` (fresh, contiguous).  Inputs are contiguous but for
 * rows in fbp_op_strided. */
typedef fbp_status (*fbp_run_fn)(const fbp_call *call, fbp_tensor *out);

struct fbp_builder;
/* The cotangent of input `which` (or, jvp, the tangent of the output), built as graph nodes; NULL on failure (see fbp_builder). */
typedef fbp_tensor *(*fbp_vjp_fn)(struct fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent);
typedef fbp_tensor *(*fbp_jvp_fn)(struct fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents);

/* The call over a batch of examples: inputs[i] has them as a new first axis where batched[i] (some are), and so has the
 * result, whose further axes may be shaped otherwise than the example's; NULL on failure. */
typedef fbp_tensor *(*fbp_batch_fn)(struct fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size);

typedef struct fbp_op_row {
    const char *name;
    const char *doc;
    const char *signature;
    fbp_op_class class;
    fbp_op_kind kind;
    int arity;              /* -1: any number */
    bool view;
    uint8_t needs[3];       /* per differentiable input */
    bool passes_on[2];      /* pointwise: the cotangent reaches input i unchanged */
    double lo, hi;          /* smooth domain of a pointwise op */
    fbp_infer_fn infer;
    fbp_run_fn run;
    fbp_vjp_fn vjp;
    fbp_jvp_fn jvp;         /* NULL for linear ops: the op itself */
    fbp_attribute_kind attribute;
} fbp_op_row;

extern const fbp_op_row fbp_ops[FBP_OP_COUNT];
extern const bool fbp_op_strided[FBP_OP_COUNT];    /* run_ reads inputs of any strides */
extern const bool fbp_op_random[FBP_OP_COUNT];     /* a function of blocks drawn from a generator */
extern const fbp_batch_fn fbp_op_batch[FBP_OP_COUNT]; /* batching rules of their own; NULL: by class and attribute */
extern const bool fbp_op_value_shaped[FBP_OP_COUNT]; /* the shape of the result depends on values */
extern const bool fbp_op_third_optional[FBP_OP_COUNT]; /* two inputs, and a third that may be absent */
extern const bool fbp_op_overwrites[FBP_OP_COUNT]; /* run_ may be given its first input's elements to write into */

/* Hand-written parts of structural rows, by name. */
#define FBP_DECLARE_RUN(name)                                                          \
    fbp_status infer_##name(const fbp_call *call, fbp_layout *layout, bool *is_view);  \
    fbp_status run_##name(const fbp_call *call, fbp_tensor *out);
#define FBP_DECLARE_TRANSPOSE(name) \
    fbp_tensor *transpose_##name(struct fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent);
#define FBP_DECLARE_RULES(name)                                                                                 \
    fbp_tensor *vjp_##name(struct fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *cotangent);    \
    fbp_tensor *jvp_##name(struct fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents);
#define LINEAR(name, ...) FBP_DECLARE_RUN(name) FBP_DECLARE_TRANSPOSE(name)
#define VIEW(name, ...) FBP_DECLARE_RUN(name) FBP_DECLARE_TRANSPOSE(name)
#define BILINEAR(name, ...) FBP_DECLARE_RUN(name) FBP_DECLARE_TRANSPOSE(name)
#define GENERAL(name, ...) FBP_DECLARE_RUN(name) FBP_DECLARE_RULES(name)
#define NODIFF(name, ...) FBP_DECLARE_RUN(name)
#define POINTWISE1(name, ...) FBP_DECLARE_RULES(name)
#define POINTWISE2(name, ...) FBP_DECLARE_RULES(name)
#define POINTWISE3(name, ...) FBP_DECLARE_RULES(name)
#define BATCH(name) fbp_tensor *batch_##name(struct fbp_builder *g, const fbp_call *call, const bool *batched, int64_t size);
#include "ops/ops.def"

/* Shared by all pointwise and predicate rows. */
fbp_status fbp_infer_pointwise(const fbp_call *call, fbp_layout *layout, bool *is_view);
fbp_status fbp_run_pointwise(const fbp_call *call, fbp_tensor *out);
/* Cross entropy (without class weights) and its pull for the cotangent `g` of the loss, from one softmax. */
fbp_status fbp_run_cross_entropy_both(const fbp_call *call, const fbp_tensor *g, fbp_tensor *loss, fbp_tensor *gradient);
/* Type in which a pointwise call computes: inputs of other types are cast to it first (exec/apply.c). */
fbp_status fbp_compute_dtype(const fbp_call *call, fbp_dtype *dtype);

fbp_dtype fbp_default_dtype(void);
fbp_status fbp_default_dtype_set(fbp_dtype dtype);

#endif
