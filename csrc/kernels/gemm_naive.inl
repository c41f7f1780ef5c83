/* gemm_naive.inl -- the definition: one dot product for each element of C.
 *
 * This is the scalar set's product, kept plain because the tuned sets are compared with it.  The
 * remaining text of the family (gemm_tile.inl, gemm_pack.inl, gemm_vector.inl, gemm_blocks.inl) is for sets with vectors.
 */

/* Rows begin <= i < end of C. */
static void R(naive_rows)(void *context, int64_t begin, int64_t end) {
    const fbp_gemm *g = context;
    const T *A = g->a, *B = g->b, *bias = g->bias;
    const T alpha = (T)g->alpha, beta = (T)g->beta;
    const int64_t K = alpha == 0 ? 0 : g->k;
    for (int64_t i = begin; i < end; i++) {
        T *c = (T *)g->c + i * g->c_row;
        for (int64_t j = 0; j < g->n; j++) {
            T sum = 0;
            for (int64_t p = 0; p < K; p++) sum += A[i * g->a_row + p * g->a_col] * B[p * g->b_row + j * g->b_col];
            T value = alpha * sum;
            if (beta != 0) value += beta * c[j];
            if (bias) value += bias[i * g->bias_row + j * g->bias_col];
            c[j] = value;
        }
    }
    if (g->finish) g->finish(g->finish_context, (T *)g->c + begin * g->c_row, g->c_row, end - begin, g->n, begin, 0);
}

/* One product; see fbp_gemm_kernels. */
static fbp_status R(product)(const fbp_gemm *g) {
    if (g->m <= 0 || g->n <= 0) return FBP_OK;
    const double nanoseconds = 1.0 * (double)g->m * (double)g->n * (double)(g->k + 1);
    fbp_parallel(g->m, fbp_grain(g->m, nanoseconds), R(naive_rows), (void *)g);
    return FBP_OK;
}
