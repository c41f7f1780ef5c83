/* linalg.h -- the host's part in factorizations. */
#ifndef FBP_OPS_LINALG_H
#define FBP_OPS_LINALG_H

#include "ops/op.h"

/* Set once by the binding: compute a row of ops/linalg_ops.c into `out` (contiguous); inputs have any strides.  Called from
 * wherever lines run, with the host's lock or without.  CALLBACK: the host holds the exception, such as that of a singular matrix. */
extern fbp_status (*fbp_host_linear_algebra)(const fbp_call *call, fbp_tensor *out);

#endif
