/* test_linalg.c -- factorizations from C: what is refused, a host that computes, one that fails, and none.
 *
 * The host here knows 2 x 2 matrices alone.  That the real one is right is a matter of tests/test_linalg.py.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "exec/apply.h"
#include "exec/backward.h"
#include "kernels/kernels.h"
#include "ops/linalg.h"
#include "tests/expect.h"

/* ---- tensors and hosts ---- */

static fbp_tensor *counting(fbp_dtype dtype, int ndim, const int64_t *shape) {
    fbp_layout layout;
    fbp_tensor *t = NULL;
    if (fbp_layout_contiguous(&layout, dtype, ndim, shape) != FBP_OK || fbp_tensor_empty(&layout, 0, 0, &t) != FBP_OK) exit(1);
    if (dtype == FBP_FLOAT64)
        for (int64_t i = 0; i < t->numel; i++) ((double *)t->data)[i] = (double)(i + 1);
    return t;
}

/* det and cofactors of 2 x 2 matrices of any strides. */
static fbp_status small_host(const fbp_call *call, fbp_tensor *out) {
    const fbp_tensor *a = call->inputs[0];
    const int64_t *stride = fbp_strides(a);
    const double *x = (const double *)(const void *)a->data;
    const double p = x[0], q = x[stride[1]], r = x[stride[0]], s = x[stride[0] + stride[1]];
    double *y = (double *)(void *)out->data;
    if (call->op == FBP_OP_det) {
        y[0] = p * s - q * r;
        return FBP_OK;
    }
    if (call->op != FBP_OP_cofactor) return fbp_fail(FBP_ERROR_NOT_IMPLEMENTED, "this host knows determinants alone");
    y[0] = s, y[1] = -r, y[2] = -q, y[3] = p;
    return FBP_OK;
}

static fbp_status failing_host(const fbp_call *call, fbp_tensor *out) {
    (void)call, (void)out;
    return FBP_ERROR_CALLBACK;
}

static int64_t live_blocks(void) { return fbp_memory_statistics().live_blocks; }

static fbp_status apply1(fbp_op op, fbp_tensor *a, fbp_tensor **out) { return fbp_apply(op, 1, &a, NULL, 0, out); }

/* ---- tests ---- */

static void test_refusals(void) {
    const int64_t square[] = {2, 2}, wide[] = {2, 3}, batch[] = {4, 2, 2}, other[] = {3, 2, 1};
    static const fbp_op squares[] = {FBP_OP_inverse, FBP_OP_cholesky, FBP_OP_eigh, FBP_OP_det, FBP_OP_slogdet, FBP_OP_cofactor};
    static const fbp_op any[] = {FBP_OP_qr, FBP_OP_svd, FBP_OP_pinv};
    fbp_tensor *a = counting(FBP_FLOAT64, 2, square), *b = counting(FBP_FLOAT64, 2, wide), *v = counting(FBP_FLOAT64, 1, square);
    fbp_tensor *i = counting(FBP_INT64, 2, square), *f = counting(FBP_FLOAT32, 2, square), *many = counting(FBP_FLOAT64, 3, batch);
    fbp_tensor *others = counting(FBP_FLOAT64, 3, other), *out;
    const int64_t before = live_blocks();
    for (size_t k = 0; k < sizeof squares / sizeof *squares; k++) {
        CHECK(apply1(squares[k], b, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "2 by 3"), "%s", fbp_message());
        CHECK(apply1(squares[k], v, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "at least 2 dimensions"), "%s", fbp_message());
        CHECK(apply1(squares[k], i, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "int64"), "%s", fbp_message());
    }
    for (size_t k = 0; k < sizeof any / sizeof *any; k++)
        CHECK(apply1(any[k], v, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "(2,)"), "%s", fbp_message());
    for (int k = 0; k < 2; k++) {
        const fbp_op op = k ? FBP_OP_solve : FBP_OP_solve_triangular;
        CHECK(fbp_apply(op, 2, (fbp_tensor *[]){a, f}, NULL, 0, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "float64 and float32"),
              "%s", fbp_message());
        CHECK(fbp_apply(op, 2, (fbp_tensor *[]){many, others}, NULL, 0, &out) == FBP_ERROR_RUNTIME && strstr(fbp_message(), "broadcast"),
              "%s", fbp_message());
        CHECK(fbp_apply(op, 2, (fbp_tensor *[]){a, v}, NULL, 0, &out) == FBP_ERROR_RUNTIME, "%s", fbp_message());
    }
    CHECK(live_blocks() == before, "a refusal leaves nothing behind");
    fbp_tensor *all[] = {a, b, v, i, f, many, others};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) fbp_release(all[k]);
}

static void test_hosts(void) {
    const int64_t square[] = {2, 2};
    fbp_tensor *a = counting(FBP_FLOAT64, 2, square), *y;
    a->flags |= FBP_REQUIRES_GRAD;
    const int64_t before = live_blocks();
    fbp_host_linear_algebra = NULL;
    CHECK(apply1(FBP_OP_det, a, &y) == FBP_ERROR_NOT_IMPLEMENTED && strstr(fbp_message(), "det: no host"), "%s", fbp_message());
    fbp_host_linear_algebra = failing_host;
    CHECK(apply1(FBP_OP_det, a, &y) == FBP_ERROR_CALLBACK, "the host holds the exception");
    CHECK(live_blocks() == before, "a failure leaves nothing behind");
    fbp_host_linear_algebra = small_host;
    if (apply1(FBP_OP_det, a, &y) != FBP_OK) {
        CHECK(false, "%s", fbp_message());
        return;
    }
    CHECK(y->ndim == 0 && *(double *)(void *)y->data == -2.0, "1 * 4 - 2 * 3");
    fbp_backward_request request = {.root_count = 1, .roots = &y, .accumulate = true, .retain_graph = true};
    fbp_host_linear_algebra = failing_host;
    CHECK(fbp_backward(&request) == FBP_ERROR_CALLBACK && (!a->autograd || !a->autograd->gradient), "no gradient of a sweep that failed");
    fbp_host_linear_algebra = small_host;
    CHECK(fbp_backward(&request) == FBP_OK, "%s", fbp_message());
    const double expected[4] = {4, -3, -2, 1};
    CHECK(a->autograd && memcmp(a->autograd->gradient->data, expected, sizeof expected) == 0, "the cofactors of 1 2, 3 4");
    fbp_host_linear_algebra = NULL;
    fbp_release(y);
    fbp_release(a);
}

/* An operand of any strides goes to the host as it is. */
static void test_strides(void) {
    const int64_t square[] = {2, 2};
    const fbp_permute_attribute turn = {.ndim = 2, .axes = {1, 0}};
    fbp_tensor *a = counting(FBP_FLOAT64, 2, square), *turned, *y;
    fbp_host_linear_algebra = small_host;
    CHECK(fbp_apply(FBP_OP_permute, 1, &a, &turn, sizeof turn, &turned) == FBP_OK && apply1(FBP_OP_cofactor, turned, &y) == FBP_OK, "%s",
          fbp_message());
    const double expected[4] = {4, -2, -3, 1};
    CHECK(memcmp(y->data, expected, sizeof expected) == 0, "the cofactors of 1 3, 2 4");
    fbp_host_linear_algebra = NULL;
    fbp_release(y);
    fbp_release(turned);
    fbp_release(a);
}

int main(void) {
    fbp_kernels_init();
    const int64_t before = live_blocks();
    test_refusals();
    test_hosts();
    test_strides();
    CHECK(live_blocks() == before, "%lld blocks are kept", (long long)(live_blocks() - before));
    printf("test_linalg: %d failures\n", failures);
    return failures != 0;
}
