/* anomaly.c -- looks for numbers that are not finite. */
#include "exec/anomaly.h"

#include <math.h>

#include "exec/apply.h"
#include "graph/batched.h"

fbp_status (*fbp_host_anomaly)(int op, int count, fbp_tensor *const *inputs, const fbp_tensor *made, const fbp_tensor *node) = NULL;
void (*fbp_host_line)(const fbp_tensor *node) = NULL;

static double element(const fbp_tensor *t, int64_t at) {
    return t->dtype == FBP_FLOAT32 ? (double)((const float *)(const void *)t->data)[at] : ((const double *)(const void *)t->data)[at];
}

int64_t fbp_not_finite(const fbp_tensor *t, double *value) {
    while (fbp_is_batched(t)) t = fbp_batch_of(t)->physical;
    if (!fbp_dtype_is_float((fbp_dtype)t->dtype) || !t->storage || t->storage->symbolic) return -1;
    int64_t index[FBP_MAX_NDIM] = {0}, at = 0;
    for (int64_t i = 0; i < t->numel; i++) {
        *value = element(t, at);
        if (!isfinite(*value)) return i;
        for (int axis = t->ndim - 1; axis >= 0; axis--) { /* the next element, as an odometer counts */
            at += fbp_strides(t)[axis];
            if (++index[axis] < fbp_shape(t)[axis]) break;
            at -= index[axis] * fbp_strides(t)[axis];
            index[axis] = 0;
        }
    }
    return -1;
}

/* An infinite bound or fill value is an input like any other. */
static bool parameters_are_finite(const fbp_call *call) {
    if (fbp_ops[call->op].class != FBP_CLASS_POINTWISE || call->attribute_bytes != (int)sizeof(fbp_scalar_attribute)) return true;
    const fbp_scalar_attribute *attribute = call->attributes;
    return isfinite(attribute->p[0]) && isfinite(attribute->p[1]);
}

bool fbp_anomaly_watches(const fbp_call *call) {
    const fbp_mode *mode = fbp_mode_get();
    double value;
    if (mode->anomaly != FBP_ANOMALY_CHECK || mode->capture || call->count == 0 || !parameters_are_finite(call)) return false;
    for (int i = 0; i < call->count; i++)
        if (call->inputs[i] && fbp_not_finite(call->inputs[i], &value) >= 0) return false;
    return true;
}

fbp_status fbp_anomaly_made(const fbp_call *call, bool watched, const fbp_tensor *out) {
    double value;
    if (out->edge_count && fbp_host_line) fbp_host_line(out);
    if (!watched || fbp_not_finite(out, &value) < 0) return FBP_OK;
    return fbp_host_anomaly((int)call->op, call->count, call->inputs, out, NULL);
}
