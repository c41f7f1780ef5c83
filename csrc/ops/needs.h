/* needs.h -- the texts of ops.def read as "which values does this rule need saved?".
 *
 * Every word is the union of its arguments, A, B, C, Y are bits: so each text is a constant
 * expression, FBP_NEEDS_<op>_<input>, and a rule and what is saved for it cannot drift apart.
 */
#ifndef FBP_OPS_NEEDS_H
#define FBP_OPS_NEEDS_H

#define A 1
#define B 2
#define C 4
#define Y 8
#define G 0
#define P0 0
#define P1 0
#define ONE 0
#define ZERO 0
#define NUM(x) 0
#define NEED1(x) (x)
#define NEED2(x, y) ((x) | (y))
#define NEG NEED1
#define ABS NEED1
#define SIGN NEED1
#define SQUARE NEED1
#define SQRT NEED1
#define RSQRT NEED1
#define RECIPROCAL NEED1
#define EXP NEED1
#define EXPM1 NEED1
#define LOG NEED1
#define LOG1P NEED1
#define LOG2 NEED1
#define SIN NEED1
#define COS NEED1
#define TAN NEED1
#define SINH NEED1
#define COSH NEED1
#define TANH NEED1
#define SIGMOID NEED1
#define SOFTPLUS NEED1
#define ERF NEED1
#define TRUNC NEED1
#define ADD NEED2
#define SUB NEED2
#define MUL NEED2
#define DIV NEED2
#define POW NEED2
#define FLOOR_DIVIDE NEED2
#define MIN NEED2
#define MAX NEED2
#define AND NEED2
#define EQ NEED2
#define LT NEED2
#define LE NEED2
#define GT NEED2
#define GE NEED2
#define WHERE(x, y, z) ((x) | (y) | (z))

enum fbp_needs {
#define POINTWISE1(name, kind, signature, forward, pull_a, lo, hi, doc) FBP_NEEDS_##name##_a = (pull_a),
#define POINTWISE2(name, kind, signature, forward, pull_a, pull_b, lo, hi, doc) \
    FBP_NEEDS_##name##_a = (pull_a), FBP_NEEDS_##name##_b = (pull_b),
#define POINTWISE3(name, kind, signature, forward, pull_a, pull_b, pull_c, lo, hi, doc) \
    FBP_NEEDS_##name##_a = (pull_a), FBP_NEEDS_##name##_b = (pull_b), FBP_NEEDS_##name##_c = (pull_c),
#include "ops/ops.def"
};

#undef A
#undef B
#undef C
#undef Y
#undef G
#undef P0
#undef P1
#undef ONE
#undef ZERO
#undef NUM
#undef NEG
#undef ABS
#undef SIGN
#undef SQUARE
#undef SQRT
#undef RSQRT
#undef RECIPROCAL
#undef EXP
#undef EXPM1
#undef LOG
#undef LOG1P
#undef LOG2
#undef SIN
#undef COS
#undef TAN
#undef SINH
#undef COSH
#undef TANH
#undef SIGMOID
#undef SOFTPLUS
#undef ERF
#undef TRUNC
#undef ADD
#undef SUB
#undef MUL
#undef DIV
#undef POW
#undef FLOOR_DIVIDE
#undef MIN
#undef MAX
#undef AND
#undef EQ
#undef LT
#undef LE
#undef GT
#undef GE
#undef WHERE
#undef NEED1
#undef NEED2

#endif
