/* gemm_batch.inl -- many products of one shape. */

typedef struct R(batch_call) {
    const fbp_gemm_batch *products;
    bool failed; /* every writer writes true */
} R(batch_call);

/* Products begin <= index < end, one after the other. */
static void R(batch_range)(void *context, int64_t begin, int64_t end) {
    R(batch_call) *call = context;
    const fbp_gemm_batch *s = call->products;
    fbp_gemm g = s->first;
    for (int64_t index = begin; index < end; index++) {
        g.a = (const T *)s->first.a + index * s->a_step;
        g.b = (const T *)s->first.b + index * s->b_step;
        g.c = (T *)s->first.c + index * s->c_step;
        g.bias = s->first.bias ? (const T *)s->first.bias + index * s->bias_step : NULL;
        if (R(product)(&g) != FBP_OK) __atomic_store_n(&call->failed, true, __ATOMIC_RELAXED);
    }
}

/* See fbp_gemm_kernels.  Products with many tiles take the threads one after the other, small ones side by side
 * (a product inside a task runs on its thread alone); either way each has its one order of summation. */
static fbp_status R(batch)(const fbp_gemm_batch *products) {
    const fbp_gemm *g = &products->first;
    const int64_t count = products->count;
    if (count <= 0 || g->m <= 0 || g->n <= 0) return FBP_OK;
    /* one B for all, A and C that continue from product to product: one tall product */
    const bool stacked = products->b_step == 0 && products->a_step == g->m * g->a_row &&
                         products->c_step == g->m * g->c_row && !g->finish &&
                         (!g->bias || products->bias_step == g->m * g->bias_row);
    if (stacked) {
        fbp_gemm tall = *g;
        tall.m *= count;
        return R(product)(&tall);
    }
    R(batch_call) call = {.products = products, .failed = false};
    const double work = (double)g->m * (double)g->n * (double)(g->k + 1);
    if (count == 1 || work > GEMM_BATCH_WORK) {
        R(batch_range)(&call, 0, count);
    } else {
        const double nanoseconds = (double)count * (30.0 + work / GEMM_WORK_PER_NS);
        fbp_parallel(count, fbp_grain(count, nanoseconds), R(batch_range), &call);
    }
    return call.failed ? FBP_ERROR_MEMORY : FBP_OK;
}
