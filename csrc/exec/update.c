/* update.c -- checks before, versions after, one kernel call per type between. */
#include "exec/update.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"

enum { STATES = 3 };

static fbp_status item_check(const char *op, int64_t i, const fbp_update_item *item) {
    const fbp_tensor *param = item->param;
    const fbp_tensor *all[2 + STATES] = {param, item->grad, item->state[0], item->state[1], item->state[2]};
    static const char *const role[2 + STATES] = {"parameter", "gradient", "first state", "second state", "third state"};
    for (int k = 0; k < 2 + STATES; k++) {
        const fbp_tensor *t = all[k];
        if (!t) continue;
        if (t->dtype != param->dtype || !fbp_dtype_is_float((fbp_dtype)t->dtype) || !fbp_same_shape(t, param))
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: the %s of parameter %lld is %s %s, the parameter %s %s; they must agree and be floating", op,
                            role[k], (long long)i, fbp_dtype_name((fbp_dtype)t->dtype), fbp_tensor_shape_text(t),
                            fbp_dtype_name((fbp_dtype)param->dtype), fbp_tensor_shape_text(param));
        if (!fbp_is_contiguous(t))
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: the %s of parameter %lld is not contiguous; use .contiguous()", op, role[k], (long long)i);
        if (k != 1 && t->storage->read_only)
            return fbp_fail(FBP_ERROR_RUNTIME, "%s: the memory of the %s of parameter %lld is read-only", op, role[k], (long long)i);
    }
    return FBP_OK;
}

static fbp_status check_all(const char *op, int64_t count, const fbp_update_item *items) {
    for (int64_t i = 0; i < count; i++) FBP_TRY(item_check(op, i, &items[i]));
    return FBP_OK;
}

static void *data_of(const fbp_tensor *t) { return t ? t->data : NULL; }

static void written(const fbp_update_item *item) {
    item->param->storage->version++;
    for (int k = 0; k < STATES; k++)
        if (item->state[k]) item->state[k]->storage->version++;
}

/* Room for `count` kernel descriptions of `bytes` each. */
static fbp_status room(size_t count, size_t bytes, void **list) {
    *list = fbp_scratch(FBP_SCRATCH_OP, count * bytes);
    return *list ? FBP_OK : fbp_fail(FBP_ERROR_MEMORY, "cannot allocate the list of %zu parameters", count);
}

fbp_status fbp_sgd_step(int64_t count, const fbp_update_item *items, const fbp_sgd *hyper) {
    void *memory;
    FBP_TRY(check_all("sgd", count, items));
    FBP_TRY(room((size_t)count, sizeof(fbp_sgd_tensor), &memory));
    fbp_sgd_tensor *list = memory;
    for (fbp_dtype dtype = FBP_FLOAT32; dtype <= FBP_FLOAT64; dtype++) {
        int64_t used = 0;
        for (int64_t i = 0; i < count; i++)
            if (items[i].param->dtype == dtype)
                list[used++] = (fbp_sgd_tensor){items[i].param->numel, items[i].param->data, items[i].grad->data,
                                                data_of(items[i].state[0]), items[i].step == 1};
        if (used) fbp_kernels->update->sgd_many[dtype](used, list, hyper);
    }
    for (int64_t i = 0; i < count; i++) written(&items[i]);
    return FBP_OK;
}

fbp_status fbp_adam_step(int64_t count, const fbp_update_item *items, const fbp_adam *hyper) {
    void *memory;
    FBP_TRY(check_all("adam", count, items));
    FBP_TRY(room((size_t)count, sizeof(fbp_adam_tensor), &memory));
    fbp_adam_tensor *list = memory;
    for (fbp_dtype dtype = FBP_FLOAT32; dtype <= FBP_FLOAT64; dtype++) {
        int64_t used = 0;
        for (int64_t i = 0; i < count; i++)
            if (items[i].param->dtype == dtype)
                list[used++] = (fbp_adam_tensor){items[i].param->numel, items[i].param->data, items[i].grad->data, items[i].state[0]->data,
                                                 items[i].state[1]->data, data_of(items[i].state[2]), items[i].step};
        if (used) fbp_kernels->update->adam_many[dtype](used, list, hyper);
    }
    for (int64_t i = 0; i < count; i++) written(&items[i]);
    return FBP_OK;
}
