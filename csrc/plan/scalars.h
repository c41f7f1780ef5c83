/* scalars.h -- programs of one-element pointwise instructions, batched.
 *
 * A captured program over 0-d tensors may have 100,000s of instructions of one element each; a kernel call for each would
 * cost many times the arithmetic.  fbp_scalars_make sorts such lines into few steps over many elements:
 *
 *     v4 = mul v0 v1      v5 = mul v2 v3      v6 = add v4 v5      v7 = add v6 v0      v8 = add v7 v1  ...
 *       level 0: one step multiplies v4 and v5, whose slots are neighbours
 *       level 1: v6, v7, v8 ... are partial sums with one reader each: one ordered fold over (v4, v5, v0, v1, ...)
 *
 * A step's lines share op, pull and parameters and read nothing of each other (they have one level: the length of the
 * longest path to them).  Its results are neighbours in the renumbered array of values; its operands are read in place where
 * they happen to be neighbours too, through a list of slots otherwise.  exec/scalars.h runs the steps.
 *
 * Every element is computed by the kernel of its op, by a single addition, subtraction or multiplication of its own, or as
 * a term of a sum taken strictly in the order of its lines: results are those of running the lines one by one, bit for bit.
 * (Which of two NaNs a sum or product of both returns is left open, as it is by the kernels.) */
#ifndef FBP_PLAN_SCALARS_H
#define FBP_PLAN_SCALARS_H

#include "base/dtype.h"
#include "base/status.h"
#include "ops/op.h"

/* One instruction.  Values are numbered from 0; each is the output of at most one line. */
typedef struct fbp_scalar_line {
    uint16_t op;      /* a pointwise row of the op table that has floating kernels */
    uint8_t pull;     /* 0: the op itself; 1 + which: its pull of input `which`, whose inputs are g, a, b, y */
    int32_t input[4]; /* values: a, b, or g, a, b, y; those that the rule does not read may be anything, -1 best */
    int32_t output;
    double parameters[2]; /* lines share a step only when these agree: zeros where the row has none */
} fbp_scalar_line;

typedef enum fbp_scalar_kind {
    FBP_SCALAR_ADD,     /* forward rows with loops of their own come first, folds last */
    FBP_SCALAR_SUB,
    FBP_SCALAR_MUL,
    FBP_SCALAR_FORWARD, /* any row, by its kernel */
    FBP_SCALAR_PULL_A,
    FBP_SCALAR_PULL_B,
    FBP_SCALAR_FOLD,    /* the value in slot operand[0], then `count` listed terms added one by one */
    FBP_SCALAR_FOLDS_4, /* so many folds side by side: a first term and `count` more of each, listed a term of each at a time */
    FBP_SCALAR_FOLDS_8,
} fbp_scalar_kind;

/* How a step finds an operand's elements. */
typedef enum fbp_scalar_mode {
    FBP_SCALAR_UNREAD,     /* the op does not read it */
    FBP_SCALAR_CONTIGUOUS, /* operand: slot of the first */
    FBP_SCALAR_BROADCAST,  /* operand: the one slot */
    FBP_SCALAR_LISTED,     /* operand: where in `slots` the list begins */
} fbp_scalar_mode;

typedef struct fbp_scalar_step {
    uint8_t kind;
    uint8_t modes;       /* fbp_scalar_mode of operand i in bits 2i, 2i+1 */
    uint16_t op;
    int32_t count;       /* elements, or terms of a fold */
    int32_t output;      /* slot of the first result; the others follow */
    uint32_t parameters; /* which pair of numbers */
    uint32_t operand[4]; /* a, b or g, a, b, y; of folds [1] the list */
} fbp_scalar_step;

static inline fbp_scalar_mode fbp_scalar_mode_of(const fbp_scalar_step *step, int operand) {
    return (fbp_scalar_mode)(step->modes >> 2 * operand & 3);
}

/* A program; immutable once made, all of it in one piece of memory. */
typedef struct fbp_scalars {
    fbp_dtype dtype;
    int32_t value_count, slot_count;
    int64_t step_count, bytes;          /* bytes: of this piece of memory */
    const double (*parameters)[2];
    const fbp_scalar_step *steps;       /* in the order to run them */
    const int32_t *slots;               /* the lists of operands */
    const int32_t *slot_of_value;
} fbp_scalars;

/* Plan `lines`, which stand in an order where inputs come before outputs; values that no line computes are given from
 * outside.  `wanted`: values that must be readable after a run; lines that lead to none of them are dropped.
 * O(n log n) in the lines.  ValueError for another dtype than float32 and float64, a row without a kernel, a value out of
 * range, computed twice or read before it is computed; MemoryError.  On failure *out is NULL.
 * The host's lock must be held, as for fbp_memory_get. */
fbp_status fbp_scalars_make(fbp_dtype dtype, int32_t value_count, int64_t line_count, const fbp_scalar_line *lines,
                            int32_t wanted_count, const int32_t *wanted, fbp_scalars **out);
/* NULL is allowed. */
void fbp_scalars_free(fbp_scalars *program);

/* Where in the array of values a given value is expected and a wanted one is found; -1 when nothing reads it, or it is
 * a partial result that is not kept.  Two wanted values may share a slot. */
int32_t fbp_scalars_slot(const fbp_scalars *program, int32_t value);
/* Elements of the array of values. */
int64_t fbp_scalars_slot_count(const fbp_scalars *program);

#endif
