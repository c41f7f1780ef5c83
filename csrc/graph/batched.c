/* batched.c -- the nodes that vmap shows to a function. */
#include "graph/batched.h"

#include <string.h>

#include "base/memory.h"

uint64_t fbp_level_of(int count, fbp_tensor *const *tensors) {
    uint64_t highest = 0;
    for (int i = 0; i < count; i++) {
        uint64_t level = tensors[i] ? fbp_level(tensors[i]) : 0;
        if (level > highest) highest = level;
    }
    return highest;
}

static void batch_release(void *owner) {
    fbp_batch *batch = owner;
    fbp_release(batch->physical);
    fbp_block_free(batch, sizeof *batch);
}

fbp_status fbp_batched_new(fbp_tensor *physical, uint64_t level, bool batched, int edge_count, int attribute_bytes, fbp_tensor **out) {
    fbp_layout layout;
    fbp_storage *storage;
    if (batched && physical->ndim == 0) return fbp_fail(FBP_ERROR_VALUE, "vmap: a tensor of no dimensions has no batch");
    FBP_TRY(fbp_layout_contiguous(&layout, (fbp_dtype)physical->dtype, physical->ndim - batched, fbp_shape(physical) + batched));
    fbp_batch *batch = fbp_block_get(sizeof *batch);
    if (!batch) return fbp_fail(FBP_ERROR_MEMORY, "vmap: cannot allocate a batched tensor");
    fbp_status status = fbp_storage_symbolic(layout.numel * fbp_dtype_size((fbp_dtype)layout.dtype), &storage);
    if (status != FBP_OK) {
        fbp_block_free(batch, sizeof *batch);
        return status;
    }
    *batch = (fbp_batch){fbp_retain(physical), level, batched};
    storage->symbolic = FBP_STORAGE_BATCHED;
    storage->owner = batch;
    storage->release = batch_release;
    status = fbp_tensor_new(&layout, storage, storage->data, edge_count, attribute_bytes, out);
    if (status != FBP_OK) {
        fbp_storage_release(storage);
        return status;
    }
    (*out)->flags |= physical->flags & FBP_NUMBER;
    return FBP_OK;
}
