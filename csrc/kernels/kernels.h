/* kernels.h -- the context table: which compiled kernels run here. */
#ifndef FBP_KERNELS_KERNELS_H
#define FBP_KERNELS_KERNELS_H

#include "kernels/copy.h"
#include "kernels/gemm.h"
#include "kernels/index.h"
#include "kernels/loss.h"
#include "kernels/normalize.h"
#include "kernels/pointwise.h"
#include "kernels/random.h"
#include "kernels/reduce.h"
#include "kernels/update.h"

/* One instruction set's kernels, a table a family. */
typedef struct fbp_kernel_set {
    const char *isa;
    const fbp_pointwise_kernels *pointwise;
    const fbp_integer_kernels *integer;
    const fbp_reduce_kernels *reduce;
    const fbp_normalize_kernels *normalize;
    const fbp_loss_kernels *loss;
    const fbp_update_kernels *update;
    const fbp_copy_kernels *copy;
    const fbp_index_kernels *index;
    const fbp_random_kernels *random;
    const fbp_gemm_kernels *gemm;
} fbp_kernel_set;

/* The set in force; chosen at load by CPU features, or FASTBP_ISA. */
extern const fbp_kernel_set *fbp_kernels;

/* Choose the best set that this machine runs, or the one the environment names. */
void fbp_kernels_init(void);
/* Use the set of this name.  ValueError when it is not compiled in or the CPU lacks it: then nothing changes. */
fbp_status fbp_kernels_select(const char *isa);
/* Name of the i-th set that runs here, best last; NULL past the end. */
const char *fbp_kernels_available(int i);

#endif
