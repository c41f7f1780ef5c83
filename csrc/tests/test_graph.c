/* test_graph.c -- nodes, storages and sweeps from C: what is computed, what is counted, and that a failure changes nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "exec/apply.h"
#include "exec/backward.h"
#include "graph/owned.h"
#include "kernels/kernels.h"
#include "tests/expect.h"

/* ---- making tensors ---- */

/* 1, 2, 3 ... in this shape. */
static fbp_tensor *counting(int ndim, const int64_t *shape) {
    fbp_layout layout;
    fbp_tensor *t = NULL;
    if (fbp_layout_contiguous(&layout, FBP_FLOAT64, ndim, shape) != FBP_OK || fbp_tensor_empty(&layout, 0, 0, &t) != FBP_OK) {
        printf("no memory: %s\n", fbp_message());
        exit(1);
    }
    for (int64_t i = 0; i < t->numel; i++) ((double *)t->data)[i] = (double)(i + 1);
    return t;
}

static fbp_tensor *leaf(int64_t n) {
    fbp_tensor *t = counting(1, &n);
    t->flags |= FBP_REQUIRES_GRAD;
    return t;
}

/* op(a, b), or op(a) where b is NULL; ends the program on failure. */
static fbp_tensor *apply(fbp_op op, fbp_tensor *a, fbp_tensor *b, const void *attributes, int bytes) {
    fbp_tensor *inputs[2] = {a, b}, *out = NULL;
    if (fbp_apply(op, b ? 2 : 1, inputs, attributes, bytes, &out) != FBP_OK) {
        printf("%s: %s\n", fbp_ops[op].name, fbp_message());
        exit(1);
    }
    return out;
}

static fbp_tensor *sum(fbp_tensor *t) {
    const fbp_reduce_attribute all = {.dims = (1u << t->ndim) - 1};
    return apply(FBP_OP_sum, t, NULL, &all, sizeof all);
}

static fbp_tensor *reshaped(fbp_tensor *t, int64_t rows, int64_t columns) {
    const fbp_shape_attribute shape = {.ndim = 2, .shape = {rows, columns}};
    return apply(FBP_OP_reshape, t, NULL, &shape, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, 2));
}

static fbp_status sweep(fbp_tensor *root, bool retain) {
    const fbp_backward_request request = {.root_count = 1, .roots = &root, .retain_graph = retain};
    return fbp_backward(&request);
}

static double at(const fbp_tensor *t, int64_t i) { return ((const double *)t->data)[i]; }
static double gradient_at(const fbp_tensor *t, int64_t i) { return at(t->autograd->gradient, i); }

static int64_t live_blocks(void) { return fbp_memory_statistics().live_blocks; }

/* ---- shapes ---- */

static void test_broadcast(void) {
    static const struct { int n; int64_t a[3]; int m; int64_t b[3]; int expected; int64_t shape[3]; } cases[] = {
        {2, {2, 3}, 1, {3}, 2, {2, 3}},          {2, {2, 1}, 2, {1, 3}, 2, {2, 3}}, {0, {0}, 2, {4, 5}, 2, {4, 5}},
        {3, {2, 1, 4}, 2, {3, 1}, 3, {2, 3, 4}}, {1, {0}, 1, {1}, 1, {0}},          {2, {2, 3}, 1, {2}, -1, {0}},
        {1, {0}, 1, {2}, -1, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t shape[FBP_MAX_NDIM] = {0};
        int ndim = cases[i].n;
        memcpy(shape, cases[i].a, sizeof cases[i].a);
        const bool agree = fbp_broadcast(&ndim, shape, cases[i].m, cases[i].b);
        CHECK(agree == (cases[i].expected >= 0), "case %zu", i);
        if (!agree) continue;
        CHECK(ndim == cases[i].expected && memcmp(shape, cases[i].shape, (size_t)ndim * sizeof *shape) == 0, "case %zu: %s", i,
              fbp_shape_text(ndim, shape));
    }
}

static void test_layouts(void) {
    fbp_layout layout;
    const int64_t shape[] = {2, 0, 3}, negative[] = {2, -1}, huge[] = {INT64_MAX / 2, 4, 0}, bytes[] = {INT64_MAX / 4};
    int64_t many[FBP_MAX_NDIM + 1];
    for (int i = 0; i <= FBP_MAX_NDIM; i++) many[i] = 1;
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT32, 3, shape) == FBP_OK && layout.numel == 0, "an axis of nothing");
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT32, 0, NULL) == FBP_OK && layout.numel == 1, "no axes");
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT32, 2, negative) != FBP_OK, "negative size");
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT32, 3, huge) != FBP_OK, "elements overflow");
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT64, 1, bytes) != FBP_OK, "bytes overflow");
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT32, FBP_MAX_NDIM + 1, many) != FBP_OK, "too many axes");
    int dim = -1;
    CHECK(fbp_dim_wrap("sum", -2, 2, &dim) == FBP_OK && dim == 0, "%d", dim);
    CHECK(fbp_dim_wrap("sum", 2, 2, &dim) == FBP_ERROR_INDEX && strstr(fbp_message(), "sum") && dim == 0, "%s", fbp_message());
}

static void test_views(void) {
    fbp_tensor *x = leaf(6), *matrix = reshaped(x, 2, 3);
    const fbp_permute_attribute turn = {.ndim = 2, .axes = {1, 0}};
    fbp_tensor *turned = apply(FBP_OP_permute, matrix, NULL, &turn, sizeof turn);
    CHECK(matrix->storage == x->storage && turned->storage == x->storage, "views share the storage");
    CHECK(x->storage->references == 3, "%d references", x->storage->references);
    CHECK(!fbp_is_contiguous(turned) && fbp_strides(turned)[0] == 1 && fbp_strides(turned)[1] == 3, "strides");
    fbp_tensor *flat = reshaped(turned, 1, 6);
    CHECK(flat->storage != x->storage && at(flat, 1) == 4, "a reshape that must copy: %g", at(flat, 1));
    fbp_release(matrix);
    CHECK(matrix->storage == NULL, "a node that only its views hold has no elements");
    fbp_tensor *square = apply(FBP_OP_mul, flat, flat, NULL, 0), *loss = sum(square);
    CHECK(sweep(loss, false) == FBP_OK, "%s", fbp_message());
    for (int i = 0; i < 6; i++) CHECK(gradient_at(x, i) == 2.0 * (i + 1), "gradient %d: %g", i, gradient_at(x, i));
    fbp_tensor *const all[] = {x, turned, flat, square, loss};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fbp_release(all[i]);
}

/* ---- counts ---- */

static void test_values_that_no_rule_reads(void) {
    fbp_tensor *x = leaf(3), *a = apply(FBP_OP_add, x, x, NULL, 0), *b = apply(FBP_OP_add, a, x, NULL, 0);
    fbp_tensor *c = apply(FBP_OP_mul, b, b, NULL, 0), *e = apply(FBP_OP_exp, c, NULL, NULL, 0), *loss = sum(e);
    fbp_release(a);
    CHECK(a->storage == NULL, "add reads nothing");
    fbp_release(b);
    CHECK(b->storage != NULL, "mul reads its inputs");
    fbp_release(c);
    CHECK(c->storage == NULL, "exp reads its output, not its input");
    fbp_release(e);
    CHECK(e->storage != NULL, "exp reads its output");
    CHECK(sweep(loss, false) == FBP_OK, "%s", fbp_message());
    CHECK(b->storage == NULL && e->storage == NULL, "what was saved is let go of");
    CHECK(fabs(gradient_at(x, 0) - 18 * exp(9)) < 1e-9 * exp(9), "%g", gradient_at(x, 0));
    CHECK(sweep(loss, false) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "second time"), "%s", fbp_message());
    fbp_release(loss);
    fbp_release(x);
}

static void test_retain(void) {
    fbp_tensor *x = leaf(1), *y = apply(FBP_OP_mul, x, x, NULL, 0);
    CHECK(sweep(y, true) == FBP_OK && sweep(y, false) == FBP_OK, "%s", fbp_message());
    CHECK(gradient_at(x, 0) == 4, "%g", gradient_at(x, 0));
    fbp_release(y);
    fbp_release(x);
}

/* As many nodes as no stack could hold frames of. */
static void test_long_chain(int length) {
    fbp_tensor *x = leaf(1), *y = fbp_retain(x);
    const int64_t before = live_blocks();
    for (int i = 0; i < length; i++) {
        fbp_tensor *next = apply(FBP_OP_add, y, x, NULL, 0);
        fbp_release(y);
        y = next;
    }
    CHECK(live_blocks() - before <= length + 2, "%lld blocks for %d nodes", (long long)(live_blocks() - before), length);
    CHECK(at(y, 0) == length + 1, "%g", at(y, 0));
    CHECK(sweep(y, false) == FBP_OK && gradient_at(x, 0) == length + 1, "%g", gradient_at(x, 0));
    fbp_release(y);
    fbp_release(x);
}

/* A node that many others point at goes with the last of them. */
static void test_shared_nodes(void) {
    fbp_tensor *x = leaf(2), *shared = apply(FBP_OP_mul, x, x, NULL, 0), *users[8];
    for (int i = 0; i < 8; i++) users[i] = apply(FBP_OP_mul, shared, x, NULL, 0);
    CHECK(shared->references == 9, "%d", shared->references);
    fbp_release(shared);
    for (int i = 0; i < 8; i++) {
        CHECK(shared->references == 8 - i && shared->storage, "%d", shared->references);
        fbp_release(users[i]);
    }
    CHECK(x->references == 1 && x->value_references == 1, "%d %d", x->references, x->value_references);
    fbp_release(x);
}

static int releases;
static void count_release(void *owner) { *(int *)owner += 1; }

static void test_borrowed_memory(void) {
    double memory[3] = {1, 2, 3};
    fbp_layout layout;
    const int64_t n = 3;
    fbp_tensor *x = NULL, *view;
    releases = 0;
    CHECK(fbp_layout_contiguous(&layout, FBP_FLOAT64, 1, &n) == FBP_OK, "layout");
    CHECK(fbp_tensor_borrow(&layout, memory, sizeof memory, true, count_release, &releases, &x) == FBP_OK, "%s", fbp_message());
    CHECK(fbp_tensor_detach(x, &view) == FBP_OK, "%s", fbp_message());
    CHECK(fbp_writable("add", x) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "read-only"), "%s", fbp_message());
    fbp_tensor *inputs[2] = {view, view};
    CHECK(fbp_apply_in_place(FBP_OP_add, 2, inputs, NULL, 0, &view) == FBP_ERROR_RUNTIME && memory[0] == 1, "%g", memory[0]);
    fbp_release(x);
    CHECK(releases == 0, "a view still looks into it");
    fbp_release(view);
    CHECK(releases == 1, "%d", releases);
}

/* ---- failures ---- */

static void test_failures_change_nothing(void) {
    const int64_t shape[] = {2, 3};
    fbp_tensor *x = leaf(2), *matrix = counting(2, shape), *untouched = x, *out = untouched;
    fbp_tensor *inputs[2] = {x, matrix};
    const int64_t before = live_blocks();
    CHECK(fbp_apply(FBP_OP_add, 2, inputs, NULL, 0, &out) == FBP_ERROR_RUNTIME && out == untouched, "shapes: %s", fbp_message());
    const fbp_shape_attribute seven = {.ndim = 1, .shape = {7}};
    CHECK(fbp_apply(FBP_OP_reshape, 1, inputs, &seven, FBP_ATTRIBUTE_BYTES(fbp_shape_attribute, shape, 1), &out) != FBP_OK &&
              out == untouched, "reshape: %s", fbp_message());
    const fbp_source_attribute huge = {.dtype = FBP_FLOAT64, .ndim = 1, .shape = {(int64_t)1 << 50}};
    CHECK(fbp_apply(FBP_OP_full, 0, NULL, &huge, FBP_ATTRIBUTE_BYTES(fbp_source_attribute, shape, 1), &out) == FBP_ERROR_MEMORY &&
              out == untouched, "memory: %s", fbp_message());
    fbp_tensor *target = matrix, *wrong[2] = {matrix, x};
    CHECK(fbp_apply_in_place(FBP_OP_add, 2, wrong, NULL, 0, &target) == FBP_ERROR_RUNTIME && target == matrix, "%s", fbp_message());
    CHECK(matrix->storage->version == 0 && at(matrix, 5) == 6, "version %u", matrix->storage->version);
    target = x;
    CHECK(fbp_apply_in_place(FBP_OP_neg, 1, &target, NULL, 0, &target) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "leaf") &&
              at(x, 0) == 1, "%s", fbp_message());
    CHECK(sweep(matrix, false) == FBP_ERROR_RUNTIME && sweep(x, false) == FBP_ERROR_RUNTIME, "%s", fbp_message());
    CHECK(x->references == 1 && matrix->references == 1 && x->cotangent == NULL, "%d %d", x->references, matrix->references);
    CHECK(live_blocks() == before, "%lld blocks", (long long)(live_blocks() - before));
    fbp_release(x);
    fbp_release(matrix);
}

static void test_changed_values(void) {
    fbp_tensor *x = leaf(2), *zero = counting(0, NULL), *y = apply(FBP_OP_add, x, zero, NULL, 0);
    fbp_tensor *square = apply(FBP_OP_mul, y, y, NULL, 0), *loss = sum(square), *detached;
    CHECK(fbp_tensor_detach(y, &detached) == FBP_OK, "%s", fbp_message());
    fbp_tensor *inputs[2] = {detached, zero};
    CHECK(fbp_apply_in_place(FBP_OP_add, 2, inputs, NULL, 0, &detached) == FBP_OK && at(y, 0) == 3, "%s", fbp_message());
    CHECK(sweep(loss, false) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "modified by an inplace operation") &&
              strstr(fbp_message(), "mul"), "%s", fbp_message());
    CHECK(!x->autograd || !x->autograd->gradient, "no gradient was left");
    CHECK(!square->cotangent && !loss->cotangent && !y->cotangent && !x->cotangent, "no scratch was left");
    fbp_tensor *const all[] = {x, zero, y, square, loss, detached};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fbp_release(all[i]);
}

/* ---- what one holder owns ---- */

enum { SEEN_MAX = 16 };
typedef struct seen {
    fbp_tensor *owned[SEEN_MAX], *faced[SEEN_MAX], *shared[SEEN_MAX];
    int owned_count, faced_count, shared_count;
} seen;

static int see_owned(void *context, fbp_tensor *node) {
    seen *s = context;
    s->owned[s->owned_count++] = node;
    return 0;
}

static int see_face(void *context, fbp_tensor *node) {
    seen *s = context;
    s->faced[s->faced_count++] = node;
    return 0;
}

static int see_shared(void *context, fbp_tensor *node) {
    seen *s = context;
    s->shared[s->shared_count++] = node;
    return 0;
}

static seen walk(fbp_tensor *root, bool whole, bool shared) {
    seen s = {0};
    const fbp_owned_visit visit = {see_owned, see_face, shared ? see_shared : NULL, &s};
    CHECK(fbp_owned_walk(root, whole, &visit) == 0, "the walk ended early");
    return s;
}

static void test_owned(void) {
    static int face;
    fbp_tensor *x = leaf(3), *plain = leaf(3);
    x->flags |= FBP_REACHES;
    fbp_tensor *h = apply(FBP_OP_add, x, plain, NULL, 0), *a = apply(FBP_OP_exp, h, NULL, NULL, 0), *y = apply(FBP_OP_mul, a, h, NULL, 0);
    CHECK(h->flags & FBP_REACHES && y->flags & FBP_REACHES && !(plain->flags & FBP_REACHES), "the flag goes from inputs to results");
    fbp_release(x);
    fbp_release(a);
    seen s = walk(y, false, true);
    CHECK(s.owned_count == 2 && s.owned[0] == y && s.owned[1] == a && s.shared_count == 1 && s.shared[0] == h, "h has a holder of its own");
    s = walk(h, false, true);
    CHECK(s.owned_count == 0 && s.shared_count == 1, "h is not its holder's alone");
    fbp_autograd_get(h)->hooks = &face;
    CHECK(walk(y, false, true).shared_count == 2 && walk(y, false, false).faced_count == 0, "a face that is out of date is not shown");
    h->autograd->faced = h->references;
    s = walk(y, false, true);
    CHECK(s.faced_count == 2 && s.faced[0] == h && s.owned_count == 2 && s.shared_count == 0, "a face is shown once a reference");
    s = walk(h, true, false);
    CHECK(s.owned_count == 2 && s.owned[0] == h && s.owned[1] == x, "a face shows what lies behind, where flags are");
    h->autograd->hooks = NULL;
    fbp_release(h);
    s = walk(y, false, true);
    CHECK(s.owned_count == 4 && s.shared_count == 0, "a diamond is owned once all ways to it are found");
    fbp_release(y);
    fbp_release(plain);
}

static fbp_tensor *kept, *taken_up;

/* The host's: the handle is gone, unless somebody has taken it up. */
static void part(void *handle) {
    (void)handle;
    if (taken_up) return;
    kept->handle = NULL;
    fbp_release(kept);
}

static void test_kept_handles(void) {
    void (*const before)(void *) = fbp_host_part;
    fbp_host_part = part;
    for (int revived = 0; revived < 2; revived++) {
        fbp_tensor *x = leaf(3), *y = apply(FBP_OP_mul, x, x, NULL, 0);
        kept = x;
        taken_up = revived ? x : NULL;
        x->handle = &kept; /* the node keeps it: the handle's references go */
        x->flags |= FBP_KEEPS_HANDLE;
        x->references--, x->value_references--;
        fbp_release(y);
        if (!revived) continue; /* main() counts the blocks */
        CHECK(x->references == 1 && x->value_references == 1 && at(x, 2) == 3 && !(x->flags & FBP_KEEPS_HANDLE), "the handle has it again");
        fbp_release(x);
    }
    fbp_host_part = before;
}

int main(void) {
    fbp_kernels_init();
    void (*const tests[])(void) = {
        test_broadcast, test_layouts, test_views, test_values_that_no_rule_reads, test_retain, test_shared_nodes,
        test_borrowed_memory, test_failures_change_nothing, test_changed_values, test_owned, test_kept_handles,
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        const fbp_memory_stats before = fbp_memory_statistics();
        tests[i]();
        const fbp_memory_stats after = fbp_memory_statistics();
        CHECK(before.live_blocks == after.live_blocks && before.live_bytes == after.live_bytes, "test %zu keeps %lld blocks, %lld bytes", i,
              (long long)(after.live_blocks - before.live_blocks), (long long)(after.live_bytes - before.live_bytes));
    }
    const int64_t before = live_blocks();
    test_long_chain(300000);
    CHECK(live_blocks() == before, "the chain keeps %lld blocks", (long long)(live_blocks() - before));
    printf("test_graph: %d failures\n", failures);
    return failures != 0;
}
