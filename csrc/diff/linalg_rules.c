/* linalg_rules.c -- derivatives of the factorizations.
 *
 * Every rule is made of products and of the same factorizations, so that it is differentiated again for higher orders.
 * docs/derivations/linear-algebra.md has the mathematics and its sources.  Capitals are matrices, G is the cotangent; a
 * row is (..., 1, n), so that it scales columns by broadcasting.
 */
#include <string.h>

#include "diff/rules.h"

#define A_ fbp_input(node, 0)
#define Y_ ((fbp_tensor *)node)
#define ADD(x, y) fbp_build2(g, FBP_OP_add, x, y)
#define SUB(x, y) fbp_build2(g, FBP_OP_sub, x, y)
#define MUL(x, y) fbp_build2(g, FBP_OP_mul, x, y)
#define DIV(x, y) fbp_build2(g, FBP_OP_div, x, y)
#define NEG(x) fbp_build1(g, FBP_OP_neg, x)
#define HALF(x) fbp_build_scale(g, x, 0.5)
#define T(x) fbp_build_transpose(g, x)
#define PRODUCT(x, y) fbp_build2(g, FBP_OP_matmul, x, y)
#define PRODUCT3(x, y, z) PRODUCT(PRODUCT(x, y), z)
#define LOWER(x, offset) triangle(g, x, offset, false)
#define UPPER(x, offset) triangle(g, x, offset, true)

#define PULL(name) fbp_tensor *vjp_##name(fbp_builder *g, const fbp_tensor *node, int which, fbp_tensor *G)
#define PUSH(name) fbp_tensor *jvp_##name(fbp_builder *g, const fbp_tensor *node, fbp_tensor *const *tangents)

/* ---- words ------------------------------------------------------------------------------------------------------- */

static const fbp_matrix_attribute *attribute_of(const fbp_tensor *node) {
    static const fbp_matrix_attribute none;
    return node->attribute_bytes ? fbp_attributes(node) : &none;
}

static fbp_tensor *triangle(fbp_builder *g, fbp_tensor *x, int offset, bool upper) {
    const fbp_dim_attribute attribute = {offset, upper};
    return x ? fbp_build(g, FBP_OP_triangle, 1, &x, &attribute, sizeof attribute) : NULL;
}

/* x without its diagonal: exact zeros there. */
static fbp_tensor *off_diagonal(fbp_builder *g, fbp_tensor *x) { return ADD(LOWER(x, -1), UPPER(x, 1)); }

/* The lower triangle with half of the diagonal: X = half + half^T for symmetric X. */
static fbp_tensor *half_triangle(fbp_builder *g, fbp_tensor *x) { return HALF(ADD(LOWER(x, 0), LOWER(x, -1))); }

static fbp_tensor *symmetric(fbp_builder *g, fbp_tensor *x) { return HALF(ADD(x, T(x))); }

/* Rows start .. start + count - 1 of each matrix. */
static fbp_tensor *rows(fbp_builder *g, fbp_tensor *x, int64_t start, int64_t count) {
    if (!x) return NULL;
    fbp_slice_attribute slice = {.ndim = x->ndim};
    for (int i = 0; i < x->ndim; i++) slice.axis[i] = (struct fbp_slice_axis){0, 1, fbp_shape(x)[i], fbp_shape(x)[i]};
    slice.axis[x->ndim - 2].start = start;
    slice.axis[x->ndim - 2].count = count;
    return fbp_build(g, FBP_OP_slice, 1, &x, &slice, FBP_ATTRIBUTE_BYTES(fbp_slice_attribute, axis, x->ndim));
}

static fbp_tensor *stack_rows(fbp_builder *g, int count, fbp_tensor *const *parts) {
    for (int i = 0; i < count; i++)
        if (!parts[i]) return NULL;
    const fbp_dim_attribute axis = {parts[0]->ndim - 2, 0};
    return fbp_build(g, FBP_OP_cat, count, parts, &axis, sizeof axis);
}

/* Sum over the rows: (..., m, n) to (..., 1, n). */
static fbp_tensor *sum_rows(fbp_builder *g, fbp_tensor *x) { return x ? fbp_build_sum(g, x, 1u << (x->ndim - 2), true) : NULL; }

static fbp_tensor *sum_matrix(fbp_builder *g, fbp_tensor *x) { return x ? fbp_build_sum(g, x, 3u << (x->ndim - 2), false) : NULL; }

/* x, one number a matrix, as (..., 1, 1). */
static fbp_tensor *as_matrices(fbp_builder *g, fbp_tensor *x) {
    if (!x) return NULL;
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(x), x->ndim * sizeof *shape);
    shape[x->ndim] = shape[x->ndim + 1] = 1;
    return fbp_build_reshape(g, x, x->ndim + 2, shape);
}

/* x / y, and 0 for 0/0, to every order: degenerate values do no harm to what does not depend on them. */
static fbp_tensor *quotient(fbp_builder *g, fbp_tensor *x, fbp_tensor *y) {
    fbp_tensor *zero = fbp_build_number(g, x, 0), *one = fbp_build_number(g, x, 1);
    fbp_tensor *both = fbp_build2(g, FBP_OP_logical_and, fbp_build2(g, FBP_OP_eq, x, zero), fbp_build2(g, FBP_OP_eq, y, zero));
    return fbp_build3(g, FBP_OP_where, both, zero, DIV(x, fbp_build3(g, FBP_OP_where, both, one, y)));
}

/* The same op with these attributes over other inputs. */
static fbp_tensor *factor(fbp_builder *g, fbp_op op, fbp_tensor *x, const fbp_matrix_attribute *attribute) {
    return x ? fbp_build(g, op, 1, &x, attribute, sizeof *attribute) : NULL;
}

/* ---- inverse, solve ---------------------------------------------------------------------------------------------- */

PULL(inverse) {
    fbp_tensor *turned = T(Y_);
    (void)which;
    return NEG(PRODUCT3(turned, G, turned));
}
PUSH(inverse) { return tangents[0] ? NEG(PRODUCT3(Y_, tangents[0], Y_)) : NULL; }

/* X = A^-1 B:  dB = A^-T G,  dA = -dB X^T. */
PULL(solve) {
    fbp_tensor *db = fbp_build2(g, FBP_OP_solve, T(A_), G);
    return which == 1 ? db : NEG(PRODUCT(db, T(Y_)));
}
PUSH(solve) {
    fbp_tensor *dx = tangents[1];
    if (tangents[0]) {
        fbp_tensor *moved = PRODUCT(tangents[0], Y_);
        dx = dx ? SUB(dx, moved) : NEG(moved);
    }
    return dx ? fbp_build2(g, FBP_OP_solve, A_, dx) : NULL;
}

static fbp_tensor *solve_triangular(fbp_builder *g, fbp_tensor *a, fbp_tensor *b, bool upper, bool unit) {
    const fbp_matrix_attribute attribute = {.upper = upper, .unit = unit};
    return a && b ? fbp_build(g, FBP_OP_solve_triangular, 2, (fbp_tensor *[]){a, b}, &attribute, sizeof attribute) : NULL;
}

/* The part of x that solve_triangular reads. */
static fbp_tensor *read_triangle(fbp_builder *g, const fbp_tensor *node, fbp_tensor *x) {
    const fbp_matrix_attribute *how = attribute_of(node);
    return how->upper ? UPPER(x, how->unit ? 1 : 0) : LOWER(x, how->unit ? -1 : 0);
}

PULL(solve_triangular) {
    const fbp_matrix_attribute *how = attribute_of(node);
    fbp_tensor *db = solve_triangular(g, T(A_), G, !how->upper, how->unit);
    return which == 1 ? db : read_triangle(g, node, NEG(PRODUCT(db, T(Y_))));
}
PUSH(solve_triangular) {
    const fbp_matrix_attribute *how = attribute_of(node);
    fbp_tensor *dx = tangents[1];
    if (tangents[0]) {
        fbp_tensor *moved = PRODUCT(read_triangle(g, node, tangents[0]), Y_);
        dx = dx ? SUB(dx, moved) : NEG(moved);
    }
    return dx ? solve_triangular(g, A_, dx, how->upper, how->unit) : NULL;
}

/* ---- cholesky ---------------------------------------------------------------------------------------------------- */

/* L^-T X L^-1, by two triangular solves. */
static fbp_tensor *whiten(fbp_builder *g, fbp_tensor *l, fbp_tensor *x) {
    fbp_tensor *turned = T(l), *left = solve_triangular(g, turned, x, true, false);
    return T(solve_triangular(g, turned, T(left), true, false));
}

PULL(cholesky) {
    fbp_tensor *l = Y_;
    (void)which;
    return symmetric(g, whiten(g, l, half_triangle(g, PRODUCT(T(l), G))));
}
PUSH(cholesky) {
    fbp_tensor *l = Y_;
    if (!tangents[0]) return NULL;
    fbp_tensor *left = solve_triangular(g, l, symmetric(g, tangents[0]), false, false);
    return PRODUCT(l, half_triangle(g, T(solve_triangular(g, l, T(left), false, false))));
}

/* ---- qr ---------------------------------------------------------------------------------------------------------- */

typedef struct qr_parts { int64_t m, n, k; fbp_tensor *q, *r; } qr_parts; /* of [Q; R^T] or of a cotangent in its place */

static fbp_status qr_take(fbp_builder *g, const fbp_tensor *node, fbp_tensor *packed, qr_parts *parts) {
    const fbp_tensor *a = A_;
    parts->m = fbp_shape(a)[a->ndim - 2];
    parts->n = fbp_shape(a)[a->ndim - 1];
    parts->k = fbp_shape(node)[node->ndim - 1];
    if (parts->k > parts->n)
        return fbp_fail(FBP_ERROR_RUNTIME, "linalg.qr: the QR decomposition is not differentiable when mode='complete' and nrows > ncols, as for "
                                           "shape %s; use mode='reduced'", fbp_tensor_shape_text(a));
    parts->q = rows(g, packed, 0, parts->m);
    parts->r = T(rows(g, packed, parts->m, parts->n));
    return g->status;
}

/* The first k columns of x, or those behind. */
static fbp_tensor *columns(fbp_builder *g, fbp_tensor *x, int64_t start, int64_t count) { return T(rows(g, T(x), start, count)); }

/* A wide matrix is [A1 A2]: A1 = Q R1, R2 = Q^T A2. */
PULL(qr) {
    qr_parts y, dy;
    (void)which;
    fbp_status status = qr_take(g, node, Y_, &y);
    if (status == FBP_OK) status = qr_take(g, node, G, &dy);
    if (status != FBP_OK) return fbp_build_fail(g, status);
    fbp_tensor *r = y.r, *dr = dy.r, *dq = dy.q, *tail = NULL;
    if (y.n > y.k) {
        fbp_tensor *r2 = columns(g, r, y.k, y.n - y.k), *dr2 = columns(g, dr, y.k, y.n - y.k);
        dq = ADD(dq, PRODUCT3(y.q, r2, T(dr2)));
        tail = PRODUCT(y.q, dr2);
        r = columns(g, r, 0, y.k);
        dr = columns(g, dr, 0, y.k);
    }
    fbp_tensor *m = UPPER(SUB(PRODUCT(dr, T(r)), PRODUCT(T(y.q), dq)), 0);
    fbp_tensor *sum = ADD(dq, PRODUCT(y.q, ADD(m, T(UPPER(m, 1)))));
    fbp_tensor *da = T(solve_triangular(g, r, T(sum), true, false)); /* sum R^-T */
    return tail ? T(stack_rows(g, 2, (fbp_tensor *[]){T(da), T(tail)})) : da;
}

PUSH(qr) {
    qr_parts y;
    if (!tangents[0]) return NULL;
    fbp_status status = qr_take(g, node, Y_, &y);
    if (status != FBP_OK) return fbp_build_fail(g, status);
    fbp_tensor *r = y.r, *da = tangents[0], *turned = T(y.q);
    if (y.n > y.k) {
        r = columns(g, r, 0, y.k);
        da = columns(g, da, 0, y.k);
    }
    fbp_tensor *scaled = T(solve_triangular(g, T(r), T(da), false, false)); /* dA R^-1 */
    fbp_tensor *c = PRODUCT(turned, scaled), *low = LOWER(c, -1), *turn = SUB(low, T(low));
    fbp_tensor *dq = ADD(PRODUCT(y.q, SUB(turn, c)), scaled), *dr = PRODUCT(SUB(c, turn), r);
    if (y.n > y.k) {
        fbp_tensor *a2 = PRODUCT(y.q, columns(g, y.r, y.k, y.n - y.k)), *da2 = columns(g, tangents[0], y.k, y.n - y.k);
        fbp_tensor *dr2 = ADD(PRODUCT(T(dq), a2), PRODUCT(turned, da2));
        return stack_rows(g, 3, (fbp_tensor *[]){dq, T(dr), T(dr2)});
    }
    return stack_rows(g, 2, (fbp_tensor *[]){dq, T(dr)});
}

/* ---- eigh -------------------------------------------------------------------------------------------------------- */

/* The packed result with vectors: the node's own, or computed where it has the values alone. */
static fbp_tensor *with_vectors(fbp_builder *g, const fbp_tensor *node) {
    const fbp_matrix_attribute all = {0};
    return attribute_of(node)->values ? factor(g, (fbp_op)node->op, A_, &all) : Y_;
}

/* A^T = A, A V = V diag(w):  dA = V (diag(dw) + skew(V^T dV) / (w_j - w_i)) V^T. */
PULL(eigh) {
    const int64_t n = fbp_shape(node)[node->ndim - 1];
    fbp_tensor *y = with_vectors(g, node), *w = rows(g, y, 0, 1), *v = rows(g, y, 1, n), *turned = T(v);
    fbp_tensor *inner = MUL(v, rows(g, G, 0, 1));
    (void)which;
    if (!attribute_of(node)->values) {
        fbp_tensor *x = PRODUCT(turned, rows(g, G, 1, n));
        inner = ADD(inner, PRODUCT(v, quotient(g, HALF(SUB(x, T(x))), SUB(w, T(w)))));
    }
    return PRODUCT(inner, turned);
}

PUSH(eigh) {
    if (!tangents[0]) return NULL;
    const int64_t n = fbp_shape(node)[node->ndim - 1];
    fbp_tensor *y = with_vectors(g, node), *w = rows(g, y, 0, 1), *v = rows(g, y, 1, n);
    fbp_tensor *moved = PRODUCT(symmetric(g, tangents[0]), v), *dw = sum_rows(g, MUL(v, moved));
    if (attribute_of(node)->values) return dw;
    fbp_tensor *turn = quotient(g, off_diagonal(g, PRODUCT(T(v), moved)), SUB(w, T(w)));
    return stack_rows(g, 2, (fbp_tensor *[]){dw, PRODUCT(v, turn)});
}

/* ---- svd --------------------------------------------------------------------------------------------------------- */

typedef struct svd_parts { int64_t m, n, k; fbp_tensor *s, *u, *v; } svd_parts;

static svd_parts svd_take(fbp_builder *g, const fbp_tensor *node, fbp_tensor *packed) {
    const fbp_tensor *a = A_;
    svd_parts y = {.m = fbp_shape(a)[a->ndim - 2], .n = fbp_shape(a)[a->ndim - 1], .k = fbp_shape(node)[node->ndim - 1]};
    y.s = rows(g, packed, 0, 1);
    y.u = rows(g, packed, 1, y.m);
    y.v = rows(g, packed, 1 + y.m, y.n);
    return y;
}

/* s_j^2 - s_i^2, as a product that keeps the digits of close values. */
static fbp_tensor *gaps(fbp_builder *g, fbp_tensor *s) {
    fbp_tensor *column = T(s);
    return MUL(SUB(s, column), ADD(s, column));
}

/* x - Q Q^T x: what of x lies outside of the space of Q's columns. */
static fbp_tensor *outside(fbp_builder *g, fbp_tensor *q, fbp_tensor *x) { return SUB(x, PRODUCT(q, PRODUCT(T(q), x))); }

PULL(svd) {
    svd_parts y = svd_take(g, node, with_vectors(g, node));
    fbp_tensor *s = y.s, *turned = T(y.v);
    (void)which;
    if (attribute_of(node)->values) return PRODUCT(MUL(y.u, G), turned);
    svd_parts dy = svd_take(g, node, G);
    fbp_tensor *xu = PRODUCT(T(y.u), dy.u), *xv = PRODUCT(turned, dy.v), *gap = gaps(g, s);
    fbp_tensor *inner = MUL(quotient(g, SUB(xu, T(xu)), gap), s);
    inner = ADD(inner, MUL(quotient(g, SUB(xv, T(xv)), gap), T(s)));
    fbp_tensor *left = ADD(MUL(y.u, dy.s), PRODUCT(y.u, inner));
    if (y.m > y.k) left = ADD(left, quotient(g, outside(g, y.u, dy.u), s));
    fbp_tensor *da = PRODUCT(left, turned);
    if (y.n > y.k) da = ADD(da, PRODUCT(y.u, T(quotient(g, outside(g, y.v, dy.v), s))));
    return da;
}

PUSH(svd) {
    if (!tangents[0]) return NULL;
    svd_parts y = svd_take(g, node, with_vectors(g, node));
    fbp_tensor *s = y.s, *moved = PRODUCT(tangents[0], y.v), *ds = sum_rows(g, MUL(y.u, moved));
    if (attribute_of(node)->values) return ds;
    fbp_tensor *p = off_diagonal(g, PRODUCT(T(y.u), moved)), *turned = T(p), *column = T(s), *gap = gaps(g, s);
    fbp_tensor *du = PRODUCT(y.u, quotient(g, ADD(MUL(p, s), MUL(turned, column)), gap));
    fbp_tensor *dv = PRODUCT(y.v, quotient(g, ADD(MUL(p, column), MUL(turned, s)), gap));
    if (y.m > y.k) du = ADD(du, quotient(g, outside(g, y.u, moved), s));
    if (y.n > y.k) dv = ADD(dv, quotient(g, outside(g, y.v, PRODUCT(T(tangents[0]), y.u)), s));
    return stack_rows(g, 3, (fbp_tensor *[]){ds, du, dv});
}

/* ---- pinv -------------------------------------------------------------------------------------------------------- */

/* Golub & Pereyra 1973, for matrices whose rank does not change:
 * dP = -P dA P + P P^T dA^T (I - A P) + (I - P A) dA^T P^T P. */
PUSH(pinv) {
    if (!tangents[0]) return NULL;
    fbp_tensor *a = A_, *p = Y_, *da = tangents[0], *turned = T(p), *da_turned = T(da);
    fbp_tensor *right = PRODUCT3(p, turned, da_turned), *left = PRODUCT3(da_turned, turned, p);
    fbp_tensor *total = SUB(right, PRODUCT3(right, a, p));
    total = ADD(total, SUB(left, PRODUCT(p, PRODUCT(a, left))));
    return SUB(total, PRODUCT3(p, da, p));
}

PULL(pinv) {
    fbp_tensor *a = A_, *p = Y_, *turned = T(p), *dp = T(G);
    (void)which;
    fbp_tensor *right = PRODUCT3(dp, p, turned), *left = PRODUCT3(turned, p, dp);
    fbp_tensor *total = SUB(right, PRODUCT(a, PRODUCT(p, right)));
    total = ADD(total, SUB(left, PRODUCT(PRODUCT(left, p), a)));
    return SUB(total, PRODUCT3(turned, G, turned));
}

/* ---- determinants ------------------------------------------------------------------------------------------------ */

PULL(det) {
    (void)which;
    return MUL(as_matrices(g, G), fbp_build1(g, FBP_OP_cofactor, A_));
}
PUSH(det) { return tangents[0] ? sum_matrix(g, MUL(fbp_build1(g, FBP_OP_cofactor, A_), tangents[0])) : NULL; }

/* A^-T: NaN where A is singular, as log|det| has no derivative there. */
static fbp_tensor *inverse_turned(fbp_builder *g, fbp_tensor *a) {
    const fbp_matrix_attribute lenient = {.lenient = 1};
    return T(factor(g, FBP_OP_inverse, a, &lenient));
}

/* (sign, log|det|): the sign does not change. */
PULL(slogdet) {
    int64_t shape[FBP_MAX_NDIM];
    (void)which;
    memcpy(shape, fbp_shape(G), G->ndim * sizeof *shape);
    shape[G->ndim] = 1;
    return MUL(rows(g, fbp_build_reshape(g, G, G->ndim + 1, shape), 1, 1), inverse_turned(g, A_));
}
PUSH(slogdet) {
    if (!tangents[0]) return NULL;
    fbp_tensor *change = sum_matrix(g, MUL(inverse_turned(g, A_), tangents[0]));
    if (!change) return NULL;
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(change), change->ndim * sizeof *shape);
    shape[change->ndim] = 1;
    fbp_tensor *parts[2] = {fbp_build_full(g, (fbp_dtype)change->dtype, change->ndim + 1, shape, 0.0),
                            fbp_build_reshape(g, change, change->ndim + 1, shape)};
    const fbp_dim_attribute last = {change->ndim, 0};
    return parts[0] && parts[1] ? fbp_build(g, FBP_OP_cat, 2, parts, &last, sizeof last) : NULL;
}

/* n x n, true where row and column agree. */
static fbp_tensor *identity_mask(fbp_builder *g, int64_t n) {
    const fbp_source_attribute count = {.p = {0.0, 1.0}, .integer = {0, 1}, .dtype = FBP_INT64, .ndim = 1, .shape = {n}};
    fbp_tensor *row = fbp_build(g, FBP_OP_arange, 0, NULL, &count, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 1));
    return fbp_build2(g, FBP_OP_eq, fbp_build_reshape(g, row, 2, (const int64_t[]){n, 1}), row);
}

/* P[i][j] = the product of all s but s_i and s_j, 0 on the diagonal. */
static fbp_tensor *products_without_two(fbp_builder *g, fbp_tensor *s) {
    if (!s) return NULL;
    if (s->ndim == FBP_MAX_NDIM)
        return fbp_build_fail(g, fbp_fail(FBP_ERROR_RUNTIME, "linalg.det: the second derivative takes one axis more than the %d there may be",
                                          FBP_MAX_NDIM));
    const int64_t n = fbp_shape(s)[s->ndim - 1];
    int64_t shape[FBP_MAX_NDIM];
    memcpy(shape, fbp_shape(s), s->ndim * sizeof *shape);
    shape[s->ndim] = n;
    shape[s->ndim - 1] = 1;
    fbp_tensor *same = identity_mask(g, n);
    fbp_tensor *dropped = fbp_build2(g, FBP_OP_logical_or, fbp_build_reshape(g, same, 3, (const int64_t[]){n, 1, n}),
                                     fbp_build_reshape(g, same, 3, (const int64_t[]){1, n, n}));
    fbp_tensor *factors = fbp_build3(g, FBP_OP_where, dropped, fbp_build_number(g, s, 1), fbp_build_reshape(g, s, s->ndim + 1, shape));
    const fbp_reduce_attribute last = {.dims = 1u << s->ndim};
    return factors ? off_diagonal(g, fbp_build(g, FBP_OP_prod, 1, &factors, &last, sizeof last)) : NULL;
}

/* The derivative of the cofactors along H, symmetric in the two: pull and push alike.  In the bases of A = U diag(s) V^T it
 * divides by nothing, so that it holds for singular matrices. */
static fbp_tensor *cofactor_along(fbp_builder *g, const fbp_tensor *node, fbp_tensor *h) {
    const fbp_matrix_attribute all = {0};
    const int64_t n = fbp_shape(node)[node->ndim - 1];
    fbp_tensor *y = factor(g, FBP_OP_svd, A_, &all), *u = rows(g, y, 1, n), *v = rows(g, y, 1 + n, n);
    fbp_tensor *p = products_without_two(g, rows(g, y, 0, 1));
    fbp_tensor *sign = as_matrices(g, MUL(fbp_build1(g, FBP_OP_det, u), fbp_build1(g, FBP_OP_det, v)));
    fbp_tensor *moved = PRODUCT(h, v), *t = PRODUCT(T(u), moved), *row = sum_rows(g, MUL(u, moved));
    fbp_tensor *inner = SUB(MUL(u, PRODUCT(row, p)), PRODUCT(u, MUL(p, T(t))));
    return MUL(sign, PRODUCT(inner, T(v)));
}

PULL(cofactor) {
    (void)which;
    return cofactor_along(g, node, G);
}
PUSH(cofactor) { return tangents[0] ? cofactor_along(g, node, tangents[0]) : NULL; }
