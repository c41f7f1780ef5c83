/* tensor.c -- birth, sharing and death of tensors and storages. */
#include "graph/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

void (*fbp_host_release)(void *object) = NULL;
void (*fbp_host_forget)(const fbp_tensor *t) = NULL;
void (*fbp_host_let_go)(void *rule) = NULL;
void (*fbp_host_adopt)(void *handle, fbp_tensor *t) = NULL;
void (*fbp_host_part)(void *handle) = NULL;

/* ---- layouts --------------------------------------------------------------------------------- */

fbp_status fbp_layout_contiguous(fbp_layout *layout, fbp_dtype dtype, int ndim, const int64_t *shape) {
    if (ndim > FBP_MAX_NDIM)
        return fbp_fail(FBP_ERROR_RUNTIME, "a tensor has at most %d dimensions, got %d", FBP_MAX_NDIM, ndim);
    layout->dtype = (uint8_t)dtype;
    layout->ndim = (uint8_t)ndim;
    layout->offset = 0;
    /* The product of the non-zero sizes must fit, so that strides do too where some size is 0. */
    int64_t stride = 1, bytes;
    bool empty = false;
    for (int i = ndim - 1; i >= 0; i--) {
        int64_t size = shape[i];
        if (size < 0)
            return fbp_fail(FBP_ERROR_RUNTIME, "Trying to create tensor with negative dimension %lld: %s", (long long)size,
                            fbp_shape_text(ndim, shape));
        layout->shape[i] = size;
        layout->strides[i] = stride;
        if (size == 0) empty = true;
        else if (__builtin_mul_overflow(stride, size, &stride))
            return fbp_fail(FBP_ERROR_RUNTIME, "the number of elements of shape %s overflows", fbp_shape_text(ndim, shape));
    }
    if (__builtin_mul_overflow(stride, (int64_t)fbp_dtype_size(dtype), &bytes))
        return fbp_fail(FBP_ERROR_RUNTIME, "the number of bytes of shape %s, %s overflows", fbp_shape_text(ndim, shape),
                        fbp_dtype_name(dtype));
    layout->numel = empty ? 0 : stride;
    return FBP_OK;
}

bool fbp_layout_is_contiguous(const fbp_layout *layout) {
    int64_t expected = 1;
    if (layout->numel == 0) return true;
    for (int i = layout->ndim - 1; i >= 0; i--) {
        if (layout->shape[i] != 1 && layout->strides[i] != expected) return false;
        expected *= layout->shape[i];
    }
    return true;
}

/* ---- storages -------------------------------------------------------------------------------- */

static _Thread_local bool marks_storages;
static int32_t marking_threads; /* so that the others need not look */

void fbp_storage_mark(bool on) {
    if (marks_storages == on) return;
    marks_storages = on;
    marking_threads += on ? 1 : -1;
}

enum { INLINE_BYTES_MAX = 512 - (int)((sizeof(fbp_storage) + 15) & ~15) };

fbp_status fbp_storage_new(int64_t bytes, fbp_storage **out) {
    const size_t header = (sizeof(fbp_storage) + 15) & ~(size_t)15;
    bool inside = bytes <= INLINE_BYTES_MAX;
    size_t block_bytes = inside ? header + (size_t)bytes : header;
    fbp_storage *storage = fbp_block_get(block_bytes);
    void *data = NULL;
    if (storage) data = inside ? (char *)storage + header : fbp_memory_get((size_t)bytes);
    if (!data) {
        if (storage) fbp_block_free(storage, block_bytes);
        return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate %lld bytes", (long long)bytes);
    }
    *storage = (fbp_storage){.references = 1, .data = data, .bytes = bytes, .block_bytes = (uint32_t)block_bytes,
                             .captured = marking_threads && marks_storages};
    *out = storage;
    return FBP_OK;
}

fbp_status fbp_storage_symbolic(int64_t bytes, fbp_storage **out) {
    static char nowhere; /* a base for offsets; no kernel sees it */
    fbp_storage *storage = fbp_block_get(sizeof *storage);
    if (!storage) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a storage header");
    *storage = (fbp_storage){.references = 1, .data = &nowhere, .bytes = bytes, .block_bytes = sizeof *storage, .symbolic = FBP_STORAGE_PLANNED};
    *out = storage;
    return FBP_OK;
}

void fbp_storage_retain(fbp_storage *storage) { storage->references++; }

void fbp_storage_release(fbp_storage *storage) {
    if (--storage->references > 0) return;
    if (storage->release) storage->release(storage->owner);
    else if (!storage->symbolic && storage->bytes > INLINE_BYTES_MAX) fbp_memory_free(storage->data, (size_t)storage->bytes);
    fbp_block_free(storage, storage->block_bytes);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static size_t tensor_bytes(int ndim, uint32_t edge_count, int attribute_bytes) {
    return sizeof(fbp_tensor) + (size_t)ndim * 2 * sizeof(int64_t) + edge_count * sizeof(fbp_edge) + (size_t)attribute_bytes;
}

/* A node with room for everything and nothing but its counts and pointers set. */
static fbp_tensor *node_new(int ndim, int edge_count, int attribute_bytes, fbp_storage *storage, char *data) {
    static uint64_t sequence;
    size_t bytes = tensor_bytes(ndim, (uint32_t)edge_count, attribute_bytes);
    fbp_tensor *t = fbp_block_get(bytes);
    if (!t) {
        fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a node of %zu bytes", bytes);
        return NULL;
    }
    t->references = t->value_references = 1;
    t->sequence = ++sequence;
    t->storage = storage;
    t->data = data;
    t->autograd = NULL;
    t->handle = NULL;
    t->cotangent = NULL;
    t->op = 0;
    t->ndim = (uint8_t)ndim;
    t->attribute_bytes = (uint16_t)attribute_bytes;
    t->edge_count = (uint32_t)edge_count;
    t->version = storage ? storage->version : 0;
    for (fbp_edge *edge = fbp_edges(t), *end = edge + edge_count; edge < end; edge++) *edge = (fbp_edge){0};
    return t;
}

fbp_status fbp_tensor_new(const fbp_layout *layout, fbp_storage *storage, char *data, int edge_count, int attribute_bytes,
                          fbp_tensor **out) {
    int ndim = layout->ndim;
    fbp_tensor *t = node_new(ndim, edge_count, attribute_bytes, storage, data);
    if (!t) return FBP_ERROR_MEMORY;
    t->numel = layout->numel;
    t->dtype = layout->dtype;
    t->flags = (uint16_t)((fbp_layout_is_contiguous(layout) ? FBP_CONTIGUOUS : 0) | (storage && storage->symbolic ? FBP_SYMBOLIC : 0));
    for (int i = 0; i < ndim; i++) {
        t->dims[i] = layout->shape[i];
        t->dims[ndim + i] = layout->strides[i];
    }
    *out = t;
    return FBP_OK;
}

fbp_status fbp_tensor_like(const fbp_tensor *like, int edge_count, int attribute_bytes, fbp_tensor **out) {
    fbp_storage *storage;
    FBP_TRY(fbp_storage_new(like->numel * fbp_dtype_size((fbp_dtype)like->dtype), &storage));
    fbp_tensor *t = node_new(like->ndim, edge_count, attribute_bytes, storage, storage->data);
    if (!t) {
        fbp_storage_release(storage);
        return FBP_ERROR_MEMORY;
    }
    t->numel = like->numel;
    t->dtype = like->dtype;
    t->flags = FBP_CONTIGUOUS;
    for (int i = 0; i < 2 * like->ndim; i++) t->dims[i] = like->dims[i];
    *out = t;
    return FBP_OK;
}

fbp_status fbp_tensor_empty(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out) {
    fbp_storage *storage;
    FBP_TRY(fbp_storage_new(layout->numel * fbp_dtype_size(layout->dtype), &storage));
    fbp_status status = fbp_tensor_new(layout, storage, storage->data, edge_count, attribute_bytes, out);
    if (status != FBP_OK) fbp_storage_release(storage);
    return status;
}

fbp_status fbp_tensor_view(fbp_tensor *base, const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out) {
    char *data = base->data + layout->offset * fbp_dtype_size(base->dtype);
    FBP_TRY(fbp_tensor_new(layout, base->storage, data, edge_count, attribute_bytes, out));
    fbp_storage_retain(base->storage);
    (*out)->flags |= FBP_VIEW;
    return FBP_OK;
}

void fbp_layout_of(const fbp_tensor *t, fbp_layout *layout) {
    *layout = (fbp_layout){.dtype = t->dtype, .ndim = t->ndim, .numel = t->numel};
    memcpy(layout->shape, fbp_shape(t), t->ndim * sizeof(int64_t));
    memcpy(layout->strides, fbp_strides(t), t->ndim * sizeof(int64_t));
}

fbp_status fbp_tensor_detach(fbp_tensor *base, fbp_tensor **out) {
    fbp_layout layout;
    fbp_layout_of(base, &layout);
    return fbp_tensor_view(base, &layout, 0, 0, out);
}

fbp_status fbp_tensor_borrow(const fbp_layout *layout, void *data, int64_t bytes, bool read_only, void (*release)(void *),
                             void *owner, fbp_tensor **out) {
    fbp_storage *storage = fbp_block_get(sizeof *storage);
    if (!storage) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a storage header");
    *storage = (fbp_storage){.references = 1, .data = data, .bytes = bytes, .release = release, .owner = owner,
                             .block_bytes = sizeof *storage, .read_only = read_only};
    fbp_status status = fbp_tensor_new(layout, storage, data, 0, 0, out);
    if (status != FBP_OK) fbp_block_free(storage, sizeof *storage); /* the owner stays the caller's */
    return status;
}

/* The kept handle holds the node again, as any handle does, and nobody the handle. */
static void part_from_handle(fbp_tensor *t) {
    t->flags &= (uint16_t)~FBP_KEEPS_HANDLE;
    fbp_host_part(fbp_retain(t)->handle);
}

/* The same for a node without references: true where somebody has taken up the handle, and the node lives. */
static bool revived_by_handle(fbp_tensor *t) {
    t->cotangent = NULL;
    t->references = 1; /* ours, so that it does not go meanwhile */
    part_from_handle(t);
    return --t->references > 0;
}

void fbp_value_release(fbp_tensor *t) {
    if (--t->value_references > 0 || !t->storage) return;
    if (t->flags & FBP_KEEPS_HANDLE) { /* nobody can ask for the handle any more; the elements go with it */
        part_from_handle(t);
        return;
    }
    fbp_storage *storage = t->storage;
    if (storage->latest == t) {
        storage->latest = NULL;
        storage->latest_lost = 1;
    }
    t->storage = NULL;
    t->data = NULL;
    fbp_storage_release(storage);
}

/* Free one node whose references are gone; inputs left without references are chained onto *pending
 * through their `cotangent` field (free then), so that no chain of nodes costs stack. */
static void tensor_destroy(fbp_tensor *t, fbp_tensor **pending) {
    if (t->flags & FBP_KEEPS_HANDLE && revived_by_handle(t)) return;
    fbp_edge *edges = fbp_edges(t);
    for (uint32_t i = 0; i < t->edge_count; i++) {
        fbp_tensor *input = edges[i].tensor;
        if (!input) continue;
        if (edges[i].holds_value) fbp_value_release(input);
        if (--input->references == 0) {
            input->cotangent = *pending;
            *pending = input;
        }
    }
    if (t->storage) {
        t->value_references = 1;
        fbp_value_release(t);
    }
    if (t->autograd) {
        fbp_autograd *extra = t->autograd;
        if (extra->gradient) {
            fbp_tensor *gradient = extra->gradient;
            fbp_value_release(gradient);
            if (--gradient->references == 0) {
                gradient->cotangent = *pending;
                *pending = gradient;
            }
        }
        if (extra->hooks) fbp_host_release(extra->hooks);
        fbp_block_free(extra, sizeof *extra);
    }
    if (t->flags & FBP_LINE_NOTED) fbp_host_forget(t);
    if (t->flags & FBP_HOST_RULE) fbp_host_release(*(void **)fbp_attributes(t));
    fbp_block_free(t, tensor_bytes(t->ndim, t->edge_count, t->attribute_bytes));
}

void fbp_release(fbp_tensor *t) {
    fbp_value_release(t);
    if (--t->references > 0) return;
    fbp_tensor *pending = t;
    t->cotangent = NULL;
    while (pending) {
        fbp_tensor *next = pending;
        pending = next->cotangent;
        tensor_destroy(next, &pending);
    }
}

void fbp_edge_set(fbp_tensor *t, int i, fbp_tensor *input, bool holds_value) {
    fbp_edge *edge = &fbp_edges(t)[i];
    input->references++;
    if (holds_value) input->value_references++;
    edge->tensor = input;
    edge->version = input->storage ? input->storage->version : input->version;
    edge->holds_value = holds_value;
    t->flags |= input->flags & FBP_REACHES;
}

void fbp_saved_release(fbp_tensor *t) {
    fbp_edge *edges = fbp_edges(t);
    for (uint32_t i = 0; i < t->edge_count; i++)
        if (edges[i].holds_value) {
            edges[i].holds_value = 0;
            t->flags |= FBP_RELEASED;
            fbp_value_release(edges[i].tensor);
        }
    if (t->flags & FBP_HOST_RULE) {
        t->flags |= FBP_RELEASED;
        fbp_host_let_go(*(void **)fbp_attributes(t));
    }
    if (t->flags & FBP_HOLDS_OWN_VALUE) {
        t->flags = (uint16_t)((t->flags & ~FBP_HOLDS_OWN_VALUE) | FBP_RELEASED);
        fbp_value_release(t);
    }
}

fbp_autograd *fbp_autograd_get(fbp_tensor *t) {
    if (!t->autograd) {
        t->autograd = fbp_block_get(sizeof *t->autograd);
        if (t->autograd) *t->autograd = (fbp_autograd){0};
    }
    return t->autograd;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

const char *fbp_shape_text(int ndim, const int64_t *shape) {
    enum { RING = 6, LENGTH = 400 };
    static _Thread_local char ring[RING][LENGTH];
    static _Thread_local int turn;
    char *text = ring[turn = (turn + 1) % RING];
    int used = snprintf(text, LENGTH, "(");
    for (int i = 0; i < ndim && used < LENGTH - 24; i++)
        used += snprintf(text + used, (size_t)(LENGTH - used), i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(text + used, (size_t)(LENGTH - used), ndim == 1 ? ",)" : ")");
    return text;
}

bool fbp_broadcast(int *ndim, int64_t *shape, int other_ndim, const int64_t *other) {
    int n = *ndim > other_ndim ? *ndim : other_ndim;
    for (int i = 1; i <= n; i++) {
        int64_t a = i <= *ndim ? shape[*ndim - i] : 1, b = i <= other_ndim ? other[other_ndim - i] : 1;
        if (a != b && a != 1 && b != 1) return false;
    }
    int64_t result[FBP_MAX_NDIM];
    for (int i = 1; i <= n; i++) {
        int64_t a = i <= *ndim ? shape[*ndim - i] : 1, b = i <= other_ndim ? other[other_ndim - i] : 1;
        result[n - i] = a == 1 ? b : a;
    }
    memcpy(shape, result, (size_t)n * sizeof *shape);
    *ndim = n;
    return true;
}

fbp_status fbp_dim_wrap(const char *op, int64_t dim, int ndim, int *out) {
    int range = ndim ? ndim : 1; /* a 0-d tensor takes -1 and 0, as in PyTorch */
    if (dim < -range || dim >= range)
        return fbp_fail(FBP_ERROR_INDEX, "%s: Dimension out of range (expected to be in range of [%d, %d], but got %lld)", op, -range,
                        range - 1, (long long)dim);
    *out = (int)(dim < 0 ? dim + range : dim);
    return FBP_OK;
}
