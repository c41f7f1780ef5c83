/* dispatch.c -- gathers the kernel tables of every compiled instruction set and picks one. */
#include <string.h>

#include "base/cpu.h"
#include "base/environment.h"
#include "kernels/kernels.h"

const fbp_kernel_set *fbp_kernels = NULL;

#define DECLARE(isa)                                             \
    extern const fbp_pointwise_kernels fbp_pointwise_kernels_##isa; \
    extern const fbp_integer_kernels fbp_integer_kernels_##isa;  \
    extern const fbp_reduce_kernels fbp_reduce_kernels_##isa;    \
    extern const fbp_normalize_kernels fbp_normalize_kernels_##isa; \
    extern const fbp_loss_kernels fbp_loss_kernels_##isa;        \
    extern const fbp_update_kernels fbp_update_kernels_##isa;    \
    extern const fbp_copy_kernels fbp_copy_kernels_##isa;        \
    extern const fbp_index_kernels fbp_index_kernels_##isa;      \
    extern const fbp_random_kernels fbp_random_kernels_##isa;    \
    extern const fbp_gemm_kernels fbp_gemm_kernels_##isa;
#define SET(isa)                                                                                           \
    {#isa, &fbp_pointwise_kernels_##isa, &fbp_integer_kernels_##isa, &fbp_reduce_kernels_##isa,            \
     &fbp_normalize_kernels_##isa, &fbp_loss_kernels_##isa, &fbp_update_kernels_##isa, &fbp_copy_kernels_##isa, \
     &fbp_index_kernels_##isa, &fbp_random_kernels_##isa, &fbp_gemm_kernels_##isa},

/* From the plainest to the widest. */
#ifdef FBP_HAVE_ISA_scalar
DECLARE(scalar)
#endif
#ifdef FBP_HAVE_ISA_sse2
DECLARE(sse2)
#endif
#ifdef FBP_HAVE_ISA_neon
DECLARE(neon)
#endif
#ifdef FBP_HAVE_ISA_avx2
DECLARE(avx2)
#endif
#ifdef FBP_HAVE_ISA_avx512
DECLARE(avx512)
#endif

static const fbp_kernel_set sets[] = {
#ifdef FBP_HAVE_ISA_scalar
    SET(scalar)
#endif
#ifdef FBP_HAVE_ISA_sse2
    SET(sse2)
#endif
#ifdef FBP_HAVE_ISA_neon
    SET(neon)
#endif
#ifdef FBP_HAVE_ISA_avx2
    SET(avx2)
#endif
#ifdef FBP_HAVE_ISA_avx512
    SET(avx512)
#endif
};

enum { SET_COUNT = sizeof sets / sizeof *sets };

fbp_status fbp_kernels_select(const char *isa) {
    for (int i = 0; i < SET_COUNT; i++) {
        if (strcmp(sets[i].isa, isa) != 0) continue;
        if (!fbp_cpu_has_isa(isa)) return fbp_fail(FBP_ERROR_VALUE, "this CPU does not run the instruction set '%s'", isa);
        fbp_kernels = &sets[i];
        return FBP_OK;
    }
    return fbp_fail(FBP_ERROR_VALUE, "no kernels are compiled for the instruction set '%s'", isa);
}

void fbp_kernels_init(void) {
    const char *wanted = fbp_environment_get()->isa;
    if (*wanted && fbp_kernels_select(wanted) == FBP_OK) return;
    for (int i = 0; i < SET_COUNT; i++)
        if (fbp_cpu_has_isa(sets[i].isa)) fbp_kernels = &sets[i];
}

const char *fbp_kernels_available(int i) {
    for (int k = 0; k < SET_COUNT; k++)
        if (fbp_cpu_has_isa(sets[k].isa) && i-- == 0) return sets[k].isa;
    return NULL;
}
