/* table.c -- ops.def read as an array of rows. */
#include "ops/needs.h"
#include "ops/op.h"

#define PULL_NEEDS1(name) {FBP_NEEDS_##name##_a}
#define PULL_NEEDS2(name) {FBP_NEEDS_##name##_a, FBP_NEEDS_##name##_b}
#define PULL_NEEDS3(name) {FBP_NEEDS_##name##_a, FBP_NEEDS_##name##_b, FBP_NEEDS_##name##_c}
/* A pull that reads "G" hands the cotangent on unchanged. */
#define IS_G(text) (sizeof #text == sizeof "G")
#define POINTWISE_ROW(name_, kind_, signature_, arity_, lo_, hi_, doc_, ...)                                     \
    [FBP_OP_##name_] = {.name = #name_, .doc = doc_, .signature = signature_, .class = FBP_CLASS_POINTWISE,      \
                        .kind = FBP_KIND_##kind_, .arity = arity_, .needs = PULL_NEEDS##arity_(name_), .lo = lo_, .hi = hi_, \
                        .passes_on = {__VA_ARGS__},                                                             \
                        .attribute = FBP_ATTRIBUTE_OF_fbp_scalar_attribute,                                                     \
                        .infer = fbp_infer_pointwise, .run = fbp_run_pointwise, .vjp = vjp_##name_, .jvp = jvp_##name_},
#define PREDICATE_ROW(name_, signature_, arity_, doc_)                                                           \
    [FBP_OP_##name_] = {.name = #name_, .doc = doc_, .signature = signature_, .class = FBP_CLASS_PREDICATE,      \
                        .kind = FBP_KIND_N, .arity = arity_, .lo = -2.0, .hi = 2.0, .infer = fbp_infer_pointwise, \
                        .run = fbp_run_pointwise, .attribute = FBP_ATTRIBUTE_OF_fbp_scalar_attribute},
#define STRUCTURAL_ROW(name_, class_, arity_, attributes_, view_, a, b, c, vjp_, jvp_, doc_)                      \
    [FBP_OP_##name_] = {.name = #name_, .doc = doc_, .signature = "", .class = FBP_CLASS_##class_, .arity = arity_, \
                        .view = view_, .needs = {a, b, c}, .lo = 0.2, .hi = 2.0, .infer = infer_##name_,         \
                        .run = run_##name_, .vjp = vjp_, .jvp = jvp_, .attribute = FBP_ATTRIBUTE_OF_##attributes_},

const fbp_op_row fbp_ops[FBP_OP_COUNT] = {
    [FBP_OP_leaf] = {.name = "leaf", .doc = "A value given from outside.", .signature = ""},
#define POINTWISE1(name, kind, signature, forward, pull_a, lo, hi, doc) POINTWISE_ROW(name, kind, signature, 1, lo, hi, doc, IS_G(pull_a))
#define POINTWISE2(name, kind, signature, forward, pull_a, pull_b, lo, hi, doc) \
    POINTWISE_ROW(name, kind, signature, 2, lo, hi, doc, IS_G(pull_a), IS_G(pull_b))
#define POINTWISE3(name, kind, signature, forward, pull_a, pull_b, pull_c, lo, hi, doc) \
    POINTWISE_ROW(name, kind, signature, 3, lo, hi, doc, false)
#define PREDICATE1(name, signature, forward, doc) PREDICATE_ROW(name, signature, 1, doc)
#define PREDICATE2(name, signature, forward, doc) PREDICATE_ROW(name, signature, 2, doc)
#define LINEAR(name, arity, attributes, a, b, c, doc) \
    STRUCTURAL_ROW(name, LINEAR, arity, attributes, false, a, b, c, transpose_##name, NULL, doc)
#define VIEW(name, attributes, doc) STRUCTURAL_ROW(name, LINEAR, 1, attributes, true, 0, 0, 0, transpose_##name, NULL, doc)
#define BILINEAR(name, arity, attributes, a, b, c, doc) \
    STRUCTURAL_ROW(name, BILINEAR, arity, attributes, false, a, b, c, transpose_##name, NULL, doc)
#define GENERAL(name, arity, attributes, a, b, c, doc) \
    STRUCTURAL_ROW(name, GENERAL, arity, attributes, false, a, b, c, vjp_##name, jvp_##name, doc)
#define NODIFF(name, arity, attributes, doc) STRUCTURAL_ROW(name, NODIFF, arity, attributes, false, 0, 0, 0, NULL, NULL, doc)
#define UPDATE(name_, doc_) [FBP_OP_##name_] = {.name = #name_, .doc = doc_, .signature = "", .class = FBP_CLASS_UPDATE, .arity = -1},
#include "ops/ops.def"
};

const bool fbp_op_strided[FBP_OP_COUNT] = {
#define POINTWISE1(name, ...) [FBP_OP_##name] = true,
#define POINTWISE2(name, ...) [FBP_OP_##name] = true,
#define POINTWISE3(name, ...) [FBP_OP_##name] = true,
#define PREDICATE1(name, ...) [FBP_OP_##name] = true,
#define PREDICATE2(name, ...) [FBP_OP_##name] = true,
#define VIEW(name, ...) [FBP_OP_##name] = true,
#define STRIDED(name) [FBP_OP_##name] = true,
#include "ops/ops.def"
};

const bool fbp_op_random[FBP_OP_COUNT] = {
#define RANDOM(name) [FBP_OP_##name] = true,
#include "ops/ops.def"
};

const bool fbp_op_overwrites[FBP_OP_COUNT] = {
#define OVERWRITES(name) [FBP_OP_##name] = true,
#include "ops/ops.def"
};

const fbp_batch_fn fbp_op_batch[FBP_OP_COUNT] = {
#define BATCH(name) [FBP_OP_##name] = batch_##name,
#include "ops/ops.def"
};

const bool fbp_op_value_shaped[FBP_OP_COUNT] = {
#define VALUE_SHAPED(name) [FBP_OP_##name] = true,
#include "ops/ops.def"
};

const bool fbp_op_third_optional[FBP_OP_COUNT] = {
#define THIRD_OPTIONAL(name) [FBP_OP_##name] = true,
#include "ops/ops.def"
};
