/* anomaly.h -- which operation first made a NaN or an infinity out of finite numbers.
 *
 * While fbp_mode.anomaly is FBP_ANOMALY_CHECK, results of ops, and what derivative rules return, are looked at element by element;
 * nothing is asked of ops whose inputs are not finite already, of views, and of sources, which were told what to make.
 */
#ifndef FBP_EXEC_ANOMALY_H
#define FBP_EXEC_ANOMALY_H

#include "ops/op.h"

enum fbp_anomaly_level {
    FBP_ANOMALY_OFF,
    FBP_ANOMALY_LINES, /* the host notes where nodes are recorded */
    FBP_ANOMALY_CHECK, /* and results are looked at */
};

/* Position, in row-major order, of the first element that is not finite, and its value; -1 when there is none (types without
 * such values, elements that are not there).  Of a tensor inside of vmap, the elements of all examples are looked at. */
int64_t fbp_not_finite(const fbp_tensor *t, double *value);

/* Whether a call is to be looked at: checking is on, it runs now, and its inputs are finite. */
bool fbp_anomaly_watches(const fbp_call *call);
/* A call has made `out`: note where, if it was recorded; where it is watched, the host's error if `out` is not finite. */
fbp_status fbp_anomaly_made(const fbp_call *call, bool watched, const fbp_tensor *out);

/* The host's part, set once by the binding.  Composes the error: `made` is not finite; it came from op(inputs), or, with `node`, from the
 * derivative rule of that node: in forward mode `inputs` are the tangents that it read, in reverse mode there are none. */
extern fbp_status (*fbp_host_anomaly)(int op, int count, fbp_tensor *const *inputs, const fbp_tensor *made, const fbp_tensor *node);
/* Notes the user's present line for a node that was just recorded; the node is marked FBP_LINE_NOTED, and fbp_host_forget drops the
 * line when it is freed. */
extern void (*fbp_host_line)(const fbp_tensor *node);

#endif
