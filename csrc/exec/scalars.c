/* scalars.c -- the loops behind the steps of a batched scalar program.
 *
 * Additions, subtractions and multiplications are nearly all that a reverse sweep adds to a program: their loops read
 * scattered operands and compute in one pass.  Other rows go through their vector kernels, a piece of operands at a time
 * that stays in the first-level cache.
 */
#include "exec/scalars.h"

#include "kernels/kernels.h"

enum { PIECE = 512 /* elements */, OPERANDS = 4 };

/* ---- loops of one type ---- */

/* Where an operand of a loop stands: element i is values[list[i]], or values[first + i * stride] when there is no list. */
typedef struct operand {
    const int32_t *list;
    uint32_t first;
    int stride;
} operand;

/* y[i] = a[i] op b[i] for each way in which the operands may stand; y is none of them. */
#define DEFINE_ARITHMETIC(name, T, op)                                                                   \
    static void name(int64_t n, T *restrict y, const T *restrict values, operand a, operand b) {         \
        const T *first_a = values + a.first, *first_b = values + b.first;                                \
        if (a.list && b.list)                                                                            \
            for (int64_t i = 0; i < n; i++) y[i] = values[a.list[i]] op values[b.list[i]];               \
        else if (a.list)                                                                                 \
            for (int64_t i = 0; i < n; i++) y[i] = values[a.list[i]] op first_b[i * b.stride];           \
        else if (b.list)                                                                                 \
            for (int64_t i = 0; i < n; i++) y[i] = first_a[i * a.stride] op values[b.list[i]];           \
        else                                                                                             \
            for (int64_t i = 0; i < n; i++) y[i] = first_a[i * a.stride] op first_b[i * b.stride];       \
    }

/* fold: `sum` and then the listed terms, in order.
 * folds_4, folds_8: so many at once; an addition waits for the one before it, so that a fold alone uses a fraction of the adder. */
#define DEFINE_FOLDS(fold, folds_4, folds_8, T)                                                          \
    static T fold(int64_t n, T sum, const T *values, const int32_t *list) {                              \
        for (int64_t i = 0; i < n; i++) sum += values[list[i]];                                          \
        return sum;                                                                                      \
    }                                                                                                    \
    static void folds_4(int64_t n, T *y, const T *values, const int32_t *list) {                         \
        T s0 = values[list[0]], s1 = values[list[1]], s2 = values[list[2]], s3 = values[list[3]];        \
        for (int64_t i = 0; i < n; i++) {                                                                \
            list += 4;                                                                                   \
            s0 += values[list[0]], s1 += values[list[1]], s2 += values[list[2]], s3 += values[list[3]];  \
        }                                                                                                \
        y[0] = s0, y[1] = s1, y[2] = s2, y[3] = s3;                                                      \
    }                                                                                                    \
    static void folds_8(int64_t n, T *y, const T *values, const int32_t *list) {                         \
        T s0 = values[list[0]], s1 = values[list[1]], s2 = values[list[2]], s3 = values[list[3]];        \
        T s4 = values[list[4]], s5 = values[list[5]], s6 = values[list[6]], s7 = values[list[7]];        \
        for (int64_t i = 0; i < n; i++) {                                                                \
            list += 8;                                                                                   \
            s0 += values[list[0]], s1 += values[list[1]], s2 += values[list[2]], s3 += values[list[3]];  \
            s4 += values[list[4]], s5 += values[list[5]], s6 += values[list[6]], s7 += values[list[7]];  \
        }                                                                                                \
        y[0] = s0, y[1] = s1, y[2] = s2, y[3] = s3, y[4] = s4, y[5] = s5, y[6] = s6, y[7] = s7;          \
    }

/* to[i] = values[list[i]], or values[slot] everywhere. */
#define DEFINE_COLLECT(listed, broadcast, T)                                                             \
    static void listed(int64_t n, void *to, const void *values, const int32_t *list) {                   \
        T *y = to;                                                                                       \
        for (int64_t i = 0; i < n; i++) y[i] = ((const T *)values)[list[i]];                             \
    }                                                                                                    \
    static void broadcast(int64_t n, void *to, const void *values, uint32_t slot) {                      \
        T *y = to, x = ((const T *)values)[slot];                                                        \
        for (int64_t i = 0; i < n; i++) y[i] = x;                                                        \
    }

#define DEFINE_LOOPS(T, real)                              \
    DEFINE_ARITHMETIC(add_##real, T, +)                    \
    DEFINE_ARITHMETIC(subtract_##real, T, -)               \
    DEFINE_ARITHMETIC(multiply_##real, T, *)               \
    DEFINE_FOLDS(fold_##real, folds_4_##real, folds_8_##real, T) \
    DEFINE_COLLECT(listed_##real, broadcast_##real, T)
DEFINE_LOOPS(float, f32)
DEFINE_LOOPS(double, f64)

/* ---- rows by their kernels; elements are bytes here, the kernels know their type ---- */

/* The step's kernel over n elements; in: a, b or g, a, b, y. */
static inline void call_kernel(const fbp_scalars *program, const fbp_scalar_step *step, int64_t n, char *y,
                               const char *const *in) {
    const fbp_pointwise_kernels *kernels = fbp_kernels->pointwise;
    const int real = program->dtype == FBP_FLOAT64;
    const double *p = program->parameters[step->parameters];
    if (step->kind == FBP_SCALAR_FORWARD)
        kernels->forward[step->op][real](n, y, in[0], in[1], p);
    else
        kernels->pull[step->op][step->kind - FBP_SCALAR_PULL_A][real](n, y, in[0], in[1], in[2], in[3], p);
}

/* One element, its operands in place. */
static void run_one(const fbp_scalars *program, const fbp_scalar_step *step, char *values, size_t size) {
    const char *in[OPERANDS];
    for (int k = 0; k < OPERANDS; k++)
        in[k] = fbp_scalar_mode_of(step, k) == FBP_SCALAR_UNREAD ? NULL : values + step->operand[k] * size;
    call_kernel(program, step, 1, values + (size_t)step->output * size, in);
}

/* Many: operands that are neighbours in place, at once when all are; the others are collected a piece at a time. */
static void run_many(const fbp_scalars *program, const fbp_scalar_step *step, char *values, size_t size) {
    double pieces[OPERANDS][PIECE] __attribute__((aligned(64)));
    const char *in[OPERANDS] = {0};
    const int32_t *list[OPERANDS] = {0};
    size_t advance[OPERANDS] = {0};
    int64_t piece = step->count;
    for (int k = 0; k < OPERANDS; k++) {
        const fbp_scalar_mode mode = fbp_scalar_mode_of(step, k);
        if (mode == FBP_SCALAR_UNREAD) continue;
        if (mode == FBP_SCALAR_CONTIGUOUS) {
            in[k] = values + step->operand[k] * size;
            advance[k] = size;
            continue;
        }
        in[k] = (const char *)pieces[k];
        if (piece > PIECE) piece = PIECE;
        if (mode == FBP_SCALAR_LISTED)
            list[k] = program->slots + step->operand[k];
        else
            (size == sizeof(float) ? broadcast_f32 : broadcast_f64)(piece, pieces[k], values, step->operand[k]);
    }
    char *y = values + (size_t)step->output * size;
    for (int64_t i = 0; i < step->count; i += piece) {
        const int64_t n = step->count - i < piece ? step->count - i : piece;
        for (int k = 0; k < OPERANDS; k++)
            if (list[k]) (size == sizeof(float) ? listed_f32 : listed_f64)(n, pieces[k], values, list[k] + i);
        call_kernel(program, step, n, y + (size_t)i * size, in);
        for (int k = 0; k < OPERANDS; k++)
            if (advance[k]) in[k] += advance[k] * (size_t)n;
    }
}

/* ---- programs ---- */

static inline operand operand_of(const fbp_scalars *program, const fbp_scalar_step *step, int k) {
    const fbp_scalar_mode mode = fbp_scalar_mode_of(step, k);
    if (mode == FBP_SCALAR_LISTED) return (operand){.list = program->slots + step->operand[k]};
    return (operand){.first = step->operand[k], .stride = mode == FBP_SCALAR_CONTIGUOUS};
}

#define RUN_ARITHMETIC(loop, op)                                                                         \
    if (step->count == 1)                                                                                \
        *y = values[step->operand[0]] op values[step->operand[1]];                                       \
    else                                                                                                 \
        loop(step->count, y, values, operand_of(program, step, 0), operand_of(program, step, 1));        \
    break;

#define LIST (program->slots + step->operand[1])
#define DEFINE_RUN(T, real)                                                                                             \
    static void run_##real(const fbp_scalars *program, T *values) {                                                     \
        const fbp_scalar_step *end = program->steps + program->step_count;                                              \
        for (const fbp_scalar_step *step = program->steps; step < end; step++) {                                        \
            T *y = values + step->output;                                                                               \
            switch (step->kind) {                                                                                       \
            case FBP_SCALAR_ADD: RUN_ARITHMETIC(add_##real, +)                                                          \
            case FBP_SCALAR_SUB: RUN_ARITHMETIC(subtract_##real, -)                                                     \
            case FBP_SCALAR_MUL: RUN_ARITHMETIC(multiply_##real, *)                                                     \
            case FBP_SCALAR_FOLD: *y = fold_##real(step->count, values[step->operand[0]], values, LIST); break;         \
            case FBP_SCALAR_FOLDS_4: folds_4_##real(step->count, y, values, LIST); break;                               \
            case FBP_SCALAR_FOLDS_8: folds_8_##real(step->count, y, values, LIST); break;                               \
            default: (step->count == 1 ? run_one : run_many)(program, step, (char *)values, sizeof(T));                 \
            }                                                                                                           \
        }                                                                                                               \
    }
DEFINE_RUN(float, f32)
DEFINE_RUN(double, f64)

void fbp_scalars_run(const fbp_scalars *program, void *values) {
    if (program->dtype == FBP_FLOAT32)
        run_f32(program, values);
    else
        run_f64(program, values);
}
