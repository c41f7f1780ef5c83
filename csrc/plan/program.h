/* program.h -- a captured computation: lines over values over buffers.
 *
 *     line     one op applied: inputs and output are values            %3 = tanh %2
 *     value    a strided look into a buffer; views are values alone, they cost no line
 *     buffer   memory: of the caller (arguments, state, constants) or of the plan's arena
 *
 * Lines stand in the order in which they were captured, which is always a right order to run them in.  Most buffers are
 * written by one line; those that in-place ops, optimizers or a user's state write again are `writes > 1` or not in the
 * arena, and every pass that moves or drops lines looks at fbp_buffer.writes before it does.
 *
 * Passes (one file each, named by its verb) take a program and change it in place; fbp_program_verify tells
 * after each whether it is still one.  Everything here is made at capture time, under the host's lock.
 */
#ifndef FBP_PLAN_PROGRAM_H
#define FBP_PLAN_PROGRAM_H

#include "ops/op.h"

typedef enum fbp_line_kind {
    FBP_LINE_OP,      /* the row's run_ */
    FBP_LINE_PULL,    /* what a cotangent contributes to input `which` of an elementwise op: inputs are cotangent, a, b, y */
    FBP_LINE_WRITE,   /* output's elements, which others may hold, = the input's (same shape and type) */
    FBP_LINE_UPDATE,  /* an optimizer's step: inputs are five a parameter: param, grad, state[3] */
    FBP_LINE_FUSED,   /* a chain of elementwise lines, and sums of them, in blocks that stay in cache */
    FBP_LINE_PRODUCT, /* a matrix product with what happens to its result while it is at hand */
    FBP_LINE_LOSS,    /* cross entropy and its pull from one softmax; outputs: loss, gradient */
    FBP_LINE_SCALARS, /* many one-element lines, in batches */
    FBP_LINE_NONE,    /* dropped; gone after fbp_program_compact */
} fbp_line_kind;

typedef enum fbp_buffer_kind {
    FBP_BUFFER_ARENA,    /* the plan's own, free before its first and after its last line */
    FBP_BUFFER_INPUT,    /* an argument: other memory at each call */
    FBP_BUFFER_STATE,    /* elements of a tensor from outside that outlive the call: parameters, buffers, optimizer state */
    FBP_BUFFER_CONSTANT, /* made at capture, never written */
    FBP_BUFFER_RESULT,   /* fresh memory of the caller at each call: what is returned */
    FBP_BUFFER_GRADIENT, /* the memory of a leaf's .grad after the call */
} fbp_buffer_kind;

typedef struct fbp_buffer {
    fbp_storage *storage; /* held: the real one behind STATE and CONSTANT; during capture the symbolic one of others */
    int64_t bytes;
    int64_t offset;       /* in the arena; -1 until placed */
    int32_t values;       /* first of the list of values in it, -1 */
    int32_t writes;       /* lines that write it */
    int32_t first, last;  /* lines of its first write and of its last use (place.c) */
    uint8_t kind;
    uint8_t keep;         /* read from outside after the run, whatever its kind */
} fbp_buffer;

typedef struct fbp_value {
    fbp_tensor *tensor;   /* shape, strides, type; `data` is set when the buffer's memory is known */
    int64_t offset;       /* bytes from the buffer's first to the first element */
    int32_t buffer;
    int32_t next;         /* in the buffer's list, -1 at its end */
    int64_t order;        /* how the elements must be added up, so that they have the bits of another plan */
} fbp_value;

/* What a line is joined with decides in which order it adds.  FREE: as it comes; ALONE: as eager code does; ONTO: a product that is added to
 * what is there; from CHAIN on: a whole sum that rides along in a chain, of whose type and rows the blocks are that it is taken over. */
enum { FBP_ORDER_FREE, FBP_ORDER_ALONE, FBP_ORDER_ONTO, FBP_ORDER_ABSENT, FBP_ORDER_CHAIN };

/* Inputs of an UPDATE line a parameter, and which of them is only read. */
enum { FBP_UPDATE_PARTS = 5, FBP_UPDATE_GRAD = 1 };

typedef struct fbp_line {
    uint8_t kind;
    uint8_t which;        /* PULL: the input that it is for */
    uint8_t phase;        /* 1: of the derivative that is planned apart from the function (fbp_program_split) */
    uint8_t sweep;        /* 1: captured in a reverse sweep */
    uint16_t op;
    int32_t count;        /* inputs */
    int32_t output;       /* value; -1 where there is none (UPDATE) */
    int32_t output2;      /* LOSS: the gradient; SCALARS: how many of the inputs, the last ones, are outputs; else -1 */
    int32_t attribute_bytes;
    int32_t slot;         /* UPDATE: number of its hyperparameters; random ops: number of their draw; else -1 */
    int32_t region;       /* innermost of fbp_program.parents in which it was captured; 0: none */
    int32_t again;        /* recompute.c: > 0: computed a second time, with others of that number; FUSED: its first member is */
    int32_t *inputs;      /* values; -1: an absent optional input */
    void *attributes;
    void *detail;         /* FUSED, PRODUCT: fbp_fused; PRODUCT: fbp_epilogue; SCALARS: fbp_scalar_detail */
} fbp_line;

/* A place in the world's random numbers: blocks drawn from a generator, counted from where it stands when the call begins. */
typedef struct fbp_draw {
    void *generator;
    uint64_t offset;
} fbp_draw;

/* What a plan may take, and what became of it (fit.c). */
typedef struct fbp_budget {
    int64_t bytes;        /* of the arena (of what is saved, where the derivative is planned apart); 0: no budget */
    double fraction;      /* the budget as a share of the bytes without one; 0: `bytes` holds */
    int64_t without;      /* out: bytes without recomputation; -1: no budget and no region, so nothing was compared */
    bool met;             /* out */
} fbp_budget;

typedef struct fbp_pool_chunk fbp_pool_chunk;

typedef struct fbp_program {
    fbp_buffer *buffers;
    fbp_value *values;
    fbp_line *lines;
    fbp_draw *draws;
    int32_t buffer_count, buffer_capacity, value_count, value_capacity, line_count, line_capacity, draw_count, draw_capacity;
    int32_t *real;        /* hash table: buffers of real storages */
    int32_t real_capacity, real_count;
    int64_t arena_bytes;
    uint8_t phase;        /* of the lines that are being added, as are: */
    uint8_t sweep;
    int32_t region;
    int32_t *parents;     /* per region: the one around it, 0: none; parents[0] is no region's */
    int32_t parent_count, parent_capacity;
    int32_t again_count;
    fbp_budget budget;
    fbp_pool_chunk *pool; /* memory of lines' lists; freed with the program */
} fbp_program;

fbp_status fbp_program_new(fbp_program **out);
void fbp_program_free(fbp_program *program);
/* Zeroed memory that lives as long as the program; NULL when there is none. */
void *fbp_program_get(fbp_program *program, size_t bytes);

/* Room for one more element of a list made by malloc; false (with the message set): no memory, nothing has changed. */
bool fbp_list_grow(void **list, int32_t count, int32_t *capacity, size_t size);
/* The buffer of a storage: its own since capture, or (real ones) a STATE buffer made now. -1: no memory. */
int32_t fbp_program_buffer(fbp_program *program, fbp_storage *storage);
/* A buffer without a storage. -1: no memory. */
int32_t fbp_program_buffer_add(fbp_program *program, fbp_buffer_kind kind, int64_t bytes);
/* The value that looks at what `t` looks at. -1: no memory. */
int32_t fbp_program_value(fbp_program *program, const fbp_tensor *t);
/* A value of this layout at `offset` bytes into a buffer, axes of size 1 with the stride of a packed array; an equal one is used
 * again. -1: no memory. */
int32_t fbp_program_value_add(fbp_program *program, int32_t buffer, int64_t offset, const fbp_layout *layout);
/* Append a line with room for `count` inputs (all -1); NULL: no memory. */
fbp_line *fbp_program_line_add(fbp_program *program, fbp_line_kind kind, fbp_op op, int32_t count, const void *attributes, int attribute_bytes);
/* Lines that are added from now on belong to a new region within the present one; its number, -1: no memory.  Leave it by setting
 * program->region to what it was. */
int32_t fbp_program_region_begin(fbp_program *program);
/* The buffers, values and draws of `from` under their numbers, and its lines of one phase (-1: of all), which must not be shaped yet. */
fbp_status fbp_program_copy(const fbp_program *from, int phase, fbp_program **out);
/* `program` becomes what `other` is, which is freed. */
void fbp_program_replace(fbp_program *program, fbp_program *other);
/* All values of `from` become values of `to`, `offset` bytes further. */
void fbp_program_merge(fbp_program *program, int32_t from, int32_t to, int64_t offset);
/* Drop the NONE lines. */
void fbp_program_compact(fbp_program *program);
static inline bool fbp_value_may_regroup(const fbp_program *p, int32_t value) { return p->values[value].order != FBP_ORDER_ALONE; }
/* Count each buffer's writes anew. */
void fbp_program_count_writes(fbp_program *program);

/* A tie: a copy of its first input that stands or falls with the others, which are not read (absent.c). */
static inline bool fbp_line_is_tie(const fbp_line *line) { return line->kind == FBP_LINE_OP && line->op == FBP_OP_copy && line->count > 1; }
static inline fbp_tensor *fbp_value_tensor(const fbp_program *p, int32_t value) { return p->values[value].tensor; }
static inline fbp_buffer *fbp_value_buffer(const fbp_program *p, int32_t value) { return &p->buffers[p->values[value].buffer]; }
/* Whether a value is all of its buffer, in order. */
static inline bool fbp_value_is_whole(const fbp_program *p, int32_t value) {
    const fbp_tensor *t = p->values[value].tensor;
    return p->values[value].offset == 0 && fbp_is_contiguous(t) &&
           t->numel * fbp_dtype_size((fbp_dtype)t->dtype) == p->buffers[p->values[value].buffer].bytes;
}

/* Calls of `visit(context, value, written)` for each value that a line touches, those of its parts included. */
typedef void (*fbp_touch_fn)(void *context, int32_t value, bool written);
void fbp_line_touch(const fbp_program *program, const fbp_line *line, fbp_touch_fn visit, void *context);
bool fbp_line_reads(const fbp_program *program, const fbp_line *line, int32_t buffer);
bool fbp_line_writes(const fbp_program *program, const fbp_line *line, int32_t buffer);

/* ---- parts of lines -------------------------------------------------------------------------------------------------- */

/* How a member of a fused chain sees an operand, beside the chain's own shape. */
typedef enum fbp_look {
    FBP_LOOK_REGISTER, /* what an earlier member made, still at hand */
    FBP_LOOK_FULL,     /* an element each */
    FBP_LOOK_SCALAR,   /* one element for all */
    FBP_LOOK_ROW,      /* the same `inner` elements for each outer index (a bias) */
    FBP_LOOK_COLUMN,   /* one element for each run of `inner` (a kept reduction) */
    FBP_LOOK_NONE,
} fbp_look;

typedef struct fbp_operand {
    int32_t value;   /* -1: not read */
    int16_t place;   /* REGISTER: its number; SCALAR, ROW, COLUMN: of the stage that repeats its elements; else -1 */
    uint8_t look;
    uint8_t dtype;
} fbp_operand;

enum { FBP_MEMBER_OPERANDS = 4, FBP_FUSED_MOST = 48, FBP_REGISTERS_MOST = 24, FBP_STAGES_MOST = 16, FBP_BLOCK_BYTES = 4096 };

/* One step of a chain. */
typedef struct fbp_member {
    uint8_t kind;             /* FBP_LINE_OP or FBP_LINE_PULL */
    uint8_t which;
    uint16_t op;
    uint8_t dtype;            /* of the kernel */
    uint8_t stores;           /* its elements are wanted in memory */
    uint8_t again;            /* computed a second time */
    int16_t place;            /* the register it makes; -1: straight into memory */
    int32_t output;           /* value */
    double parameters[2];
    fbp_operand operand[FBP_MEMBER_OPERANDS];
} fbp_member;

/* A sum or mean of what a member makes: of all of it, or of each run of `inner` elements. */
typedef struct fbp_tail {
    int32_t output;
    int16_t member;
    uint8_t mean, rows;
} fbp_tail;

typedef struct fbp_fused {
    int64_t numel, inner;    /* inner: length of rows where ROW or COLUMN operands or sums of rows occur, else numel */
    int32_t member_count, tail_count, register_count, stage_count;
    uint8_t dtype;           /* widest type, for the size of registers */
    uint8_t has_rows;
    fbp_member *members;
    fbp_tail tails[4];
    fbp_operand stages[FBP_STAGES_MOST]; /* operands that are repeated for a block before kernels see them */
    double nanoseconds;      /* rough work, for the grain */
    int64_t shape[FBP_MAX_NDIM];
    int ndim;
} fbp_fused;

/* A batched scalar program: the line's inputs are the values that it is given and then, `output2` of them, those it hands out; its
 * output is the array that it works in. */
typedef struct fbp_scalar_detail {
    struct fbp_scalars *scalars;
    const int32_t *slots;    /* in that array, an input each */
    int64_t lines;           /* that it stands for */
} fbp_scalar_detail;

/* What a product is: op(A) op(B) as strides, taken from its operands' views. */
typedef struct fbp_epilogue {
    int64_t m, n, k, a_row, a_col, b_row, b_col, bias_row, bias_col, c_row;
    int32_t a, b, c, bias;   /* values; bias -1: none */
    double alpha, beta;
    fbp_fused *after;        /* elementwise work on C, or NULL */
    bool turned;             /* computed as its transpose (exec/run.c) */
} fbp_epilogue;

/* How x is seen by an elementwise result of this shape; for ROW and COLUMN *inner is the length of their runs. */
fbp_look fbp_look_at(const fbp_tensor *x, int ndim, const int64_t *shape, int64_t numel, int64_t *inner);
/* Whether a line can be a member of a fused chain, and of which type its kernel is. */
bool fbp_line_fuses(const fbp_program *program, const fbp_line *line, fbp_dtype *dtype);

/* ---- passes ---------------------------------------------------------------------------------------------------------- */

fbp_status fbp_program_prune(fbp_program *program);     /* lines that no one needs */
fbp_status fbp_program_fold(fbp_program *program);      /* lines over constants, computed now */
fbp_status fbp_program_merge_equal(fbp_program *program); /* lines that compute the same */
fbp_status fbp_program_simplify(fbp_program *program);  /* x * 1 and its like */
/* Readers of the line's result read `source`, which it equals, where neither is written again; false: the line stays. */
bool fbp_line_forward(fbp_program *program, fbp_line *line, int32_t source);
fbp_status fbp_program_direct(fbp_program *program);    /* results computed where they are wanted */
fbp_status fbp_program_legalize(fbp_program *program);  /* copies where a kernel wants contiguous inputs */
/* Values given up after their early uses and computed again before the late ones (recompute.c). */
typedef struct fbp_recompute {
    int64_t target;       /* bytes that may live at one time; INT64_MAX: only what regions demand */
    bool saved;           /* count what lives between the phases, instead of what lives anywhere */
    int64_t before, after; /* out: the most bytes that live at one time, as estimated from the lines */
} fbp_recompute;
fbp_status fbp_program_recompute(fbp_program *program, fbp_recompute *request);
/* Bring a program that is reduced, and not shaped yet, within its budget and do as its regions say; the budget's results are filled in. */
fbp_status fbp_program_fit(fbp_program *program);
/* The same for what is saved between a function and its derivative, before fbp_program_split. */
fbp_status fbp_program_fit_saved(fbp_program *program);
fbp_status fbp_program_batch(fbp_program *program);     /* runs of one-element lines */
fbp_status fbp_program_fuse(fbp_program *program);      /* elementwise chains */
fbp_status fbp_program_join(fbp_program *program);      /* products with their epilogues, losses with their pulls */
fbp_status fbp_program_place(fbp_program *program);     /* offsets in the arena */
/* RUNTIME, naming the line, when the program is none: values out of range, reads before writes, overlapping arena buffers. */
fbp_status fbp_program_verify(const fbp_program *program, const char *pass);
/* What lines compute, before they are shaped for running: prune, fold, merge, simplify. */
fbp_status fbp_program_reduce(fbp_program *program);
/* Which buffers are cotangents, for fbp_program_drop_absent. */
enum { FBP_COTANGENT_NONE, FBP_COTANGENT_PRESENT, FBP_COTANGENT_ABSENT };
/* Lines of phase 1 without what depends on absent cotangents alone, and without ties: what a sweep computes that reaches some of the results. */
fbp_status fbp_program_drop_absent(fbp_program *program, const uint8_t *cotangents);
/* The lines of phase 1 become a program of their own, with the same numbers of buffers and values; saved[buffer] is set
 * where it reads what the first part computes: a RESULT of the first and an INPUT of the second. */
fbp_status fbp_program_split(fbp_program *program, fbp_program **derivative, uint8_t *saved);
/* The passes that shape lines for running: batch, fuse, join, place. */
fbp_status fbp_program_shape(fbp_program *program);
/* All of them in their order. */
fbp_status fbp_program_plan(fbp_program *program);

/* ---- facts for people ------------------------------------------------------------------------------------------------ */

typedef struct fbp_line_cost { double flops, bytes; } fbp_line_cost;
fbp_line_cost fbp_line_cost_of(const fbp_program *program, const fbp_line *line);
/* Whether some of it is computed for the second time. */
bool fbp_line_is_again(const fbp_line *line);
/* "linear+tanh" and the like, into text[length]; what is computed for the second time has "again" before it. */
void fbp_line_name(const fbp_program *program, const fbp_line *line, char *text, int length);

#endif
