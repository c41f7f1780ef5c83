/* owned.c -- counts the references to each node that are found on the way. */
#include "graph/owned.h"

#include <stdlib.h>

/* A node with several references, of which some were found. */
typedef struct counted {
    fbp_tensor *node;
    int32_t found;
    uint32_t walk; /* the entry is free where this is another number */
} counted;

/* Memory of walks, which only grows, so that a walk that was possible is possible again. */
typedef struct workspace {
    fbp_tensor **pending; /* owned, and not gone through */
    size_t pending_count, pending_size;
    counted *table; /* by node; a power of two, at most half full */
    fbp_tensor **met; /* those in the table, in the order in which they were found; half the table's size */
    size_t table_count, table_size;
    uint32_t number; /* of the present walk */
} workspace;

static size_t place_of(const workspace *work, const counted *table, size_t size, const fbp_tensor *node) {
    size_t at = ((uintptr_t)node >> 4) * (size_t)0x9e3779b97f4a7c15u >> 16 & (size - 1);
    while (table[at].walk == work->number && table[at].node != node) at = (at + 1) & (size - 1);
    return at;
}

static bool table_grow(workspace *work) {
    const size_t size = work->table_size ? 2 * work->table_size : 64;
    fbp_tensor **met = realloc(work->met, size / 2 * sizeof *met);
    if (!met) return false;
    work->met = met;
    counted *larger = calloc(size, sizeof *larger);
    if (!larger) return false;
    for (size_t i = 0; i < work->table_size; i++)
        if (work->table[i].walk == work->number) larger[place_of(work, larger, size, work->table[i].node)] = work->table[i];
    free(work->table);
    work->table = larger;
    work->table_size = size;
    return true;
}

/* One more reference to a node was found.  1 when that were all, -1 without memory. */
static int count_reference(workspace *work, fbp_tensor *node) {
    if (node->references == 1) return 1;
    if (2 * (work->table_count + 1) > work->table_size && !table_grow(work)) return -1;
    counted *entry = &work->table[place_of(work, work->table, work->table_size, node)];
    if (entry->walk != work->number) {
        *entry = (counted){.node = node, .walk = work->number};
        work->met[work->table_count++] = node;
    }
    return ++entry->found == node->references;
}

static bool pending_add(workspace *work, fbp_tensor *node) {
    if (work->pending_count == work->pending_size) {
        const size_t size = work->pending_size ? 2 * work->pending_size : 64;
        fbp_tensor **larger = realloc(work->pending, size * sizeof *larger);
        if (!larger) return false;
        work->pending = larger;
        work->pending_size = size;
    }
    work->pending[work->pending_count++] = node;
    return true;
}

/* A reference to `node` by what is owned.  -1 without memory, else what a callback returned. */
static int take(workspace *work, fbp_tensor *node, const fbp_owned_visit *visit) {
    if (!node || !(node->flags & FBP_REACHES)) return 0;
    if (fbp_has_face(node)) return visit->faced(visit->context, node);
    if (node->autograd && node->autograd->hooks) return visit->shared ? visit->shared(visit->context, node) : 0;
    const int all = count_reference(work, node);
    return all <= 0 ? all : pending_add(work, node) ? 0 : -1;
}

static int go_through(workspace *work, const fbp_owned_visit *visit) {
    int result = 0;
    while (work->pending_count && result == 0) {
        fbp_tensor *node = work->pending[--work->pending_count];
        result = visit->owned(visit->context, node);
        if (result == 0 && node->autograd) result = take(work, node->autograd->gradient, visit);
        for (uint32_t i = 0; i < node->edge_count && result == 0; i++) result = take(work, fbp_input(node, (int)i), visit);
    }
    return result;
}

int fbp_owned_walk(fbp_tensor *root, bool whole, const fbp_owned_visit *visit) {
    static workspace collecting, preparing; /* each under the host's lock; faces are prepared while a collection may begin */
    workspace *work = visit->shared ? &preparing : &collecting;
    work->pending_count = work->table_count = 0;
    if (++work->number == 0) { /* stale entries would look fresh */
        for (size_t i = 0; i < work->table_size; i++) work->table[i].walk = 0;
        work->number = 1;
    }
    int result = !whole ? take(work, root, visit) : pending_add(work, root) ? 0 : -1;
    if (result == 0) result = go_through(work, visit);
    for (size_t i = 0; i < work->table_count && result == 0 && visit->shared; i++)
        if (work->table[place_of(work, work->table, work->table_size, work->met[i])].found < work->met[i]->references)
            result = visit->shared(visit->context, work->met[i]);
    return result < 0 ? 0 : result;
}
