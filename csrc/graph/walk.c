/* walk.c -- gathers a graph breadth first, then sorts: nodes are numbered as they are recorded. */
#include "graph/walk.h"

#include <stdlib.h>

static fbp_status add(fbp_node_list *list, fbp_tensor *node) {
    if (node->flags & FBP_VISITED) return FBP_OK;
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 256;
        fbp_tensor **larger = realloc(list->nodes, (size_t)capacity * sizeof *larger);
        if (!larger) return fbp_fail(FBP_ERROR_MEMORY, "cannot allocate a list of %lld nodes", (long long)capacity);
        list->nodes = larger;
        list->capacity = capacity;
    }
    node->flags |= FBP_VISITED;
    list->nodes[list->count++] = node;
    return FBP_OK;
}

static int by_sequence(const void *a, const void *b) {
    uint64_t x = (*(fbp_tensor *const *)a)->sequence, y = (*(fbp_tensor *const *)b)->sequence;
    return (x > y) - (x < y);
}

static fbp_status gather(int root_count, fbp_tensor *const *roots, bool grad_only, uint64_t oldest, fbp_node_list *list) {
    for (int i = 0; i < root_count; i++) FBP_TRY(add(list, roots[i]));
    for (int64_t at = 0; at < list->count; at++) {
        const fbp_tensor *node = list->nodes[at];
        for (uint32_t i = 0; i < node->edge_count; i++) {
            fbp_tensor *input = fbp_input(node, (int)i);
            if (input && input->sequence >= oldest && (!grad_only || fbp_requires_grad(input))) FBP_TRY(add(list, input));
        }
    }
    return FBP_OK;
}

fbp_status fbp_walk(int root_count, fbp_tensor *const *roots, bool grad_only, uint64_t oldest, fbp_node_list *list) {
    const fbp_status status = gather(root_count, roots, grad_only, oldest, list);
    for (int64_t i = 0; i < list->count; i++) list->nodes[i]->flags &= (uint16_t)~FBP_VISITED;
    if (list->count) qsort(list->nodes, (size_t)list->count, sizeof *list->nodes, by_sequence);
    return status;
}

int64_t fbp_walk_find(const fbp_node_list *list, const fbp_tensor *node) {
    int64_t low = 0, high = list->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (list->nodes[middle]->sequence < node->sequence) low = middle + 1;
        else high = middle;
    }
    return low < list->count && list->nodes[low] == node ? low : -1;
}

uint64_t fbp_walk_oldest(int count, fbp_tensor *const *tensors) {
    uint64_t oldest = UINT64_MAX;
    for (int i = 0; i < count; i++)
        if (tensors[i]->sequence < oldest) oldest = tensors[i]->sequence;
    return oldest;
}

void fbp_walk_end(fbp_node_list *list) {
    free(list->nodes);
    *list = (fbp_node_list){0};
}
