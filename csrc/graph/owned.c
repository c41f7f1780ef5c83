/* owned.c -- counts the references to each node that are found on the way. */
#include "graph/owned.h"

#include <stdlib.h>

/* A node with several references, of which some were found. */
typedef struct counted {
    fbp_tensor *node;
    int32_t found;
    uint32_t walk; /* the entry is free where this is another number */
} counted;

/* Memory of the walks, which only grows, so that a walk that was possible is possible again.  The host's lock covers it. */
static struct {
    fbp_tensor **pending; /* owned, and not gone through */
    size_t pending_count, pending_size;
    counted *table; /* by node; a power of two, at most half full */
    size_t table_count, table_size;
    uint32_t number; /* of the present walk */
} work;

static size_t place_of(const counted *table, size_t size, const fbp_tensor *node) {
    size_t at = ((uintptr_t)node >> 4) * (size_t)0x9e3779b97f4a7c15u >> 16 & (size - 1);
    while (table[at].walk == work.number && table[at].node != node) at = (at + 1) & (size - 1);
    return at;
}

static bool table_grow(void) {
    const size_t size = work.table_size ? 2 * work.table_size : 64;
    counted *larger = calloc(size, sizeof *larger);
    if (!larger) return false;
    for (size_t i = 0; i < work.table_size; i++)
        if (work.table[i].walk == work.number) larger[place_of(larger, size, work.table[i].node)] = work.table[i];
    free(work.table);
    work.table = larger;
    work.table_size = size;
    return true;
}

/* One more reference to a node was found.  1 when that were all, -1 without memory. */
static int count_reference(fbp_tensor *node) {
    if (node->references == 1) return 1;
    if (2 * (work.table_count + 1) > work.table_size && !table_grow()) return -1;
    counted *entry = &work.table[place_of(work.table, work.table_size, node)];
    if (entry->walk != work.number) {
        *entry = (counted){.node = node, .walk = work.number};
        work.table_count++;
    }
    return ++entry->found == node->references;
}

static bool pending_add(fbp_tensor *node) {
    if (work.pending_count == work.pending_size) {
        const size_t size = work.pending_size ? 2 * work.pending_size : 64;
        fbp_tensor **larger = realloc(work.pending, size * sizeof *larger);
        if (!larger) return false;
        work.pending = larger;
        work.pending_size = size;
    }
    work.pending[work.pending_count++] = node;
    return true;
}

/* A reference to `node` by what is owned.  -1 without memory, else what a callback returned. */
static int take(fbp_tensor *node, const fbp_owned_visit *visit) {
    if (!node || !(node->flags & FBP_REACHES)) return 0;
    if (fbp_has_face(node)) return visit->faced(visit->context, node);
    if (node->autograd && node->autograd->hooks) return visit->shared ? visit->shared(visit->context, node) : 0;
    const int all = count_reference(node);
    return all <= 0 ? all : pending_add(node) ? 0 : -1;
}

static int go_through(const fbp_owned_visit *visit) {
    int result = 0;
    while (work.pending_count && result == 0) {
        fbp_tensor *node = work.pending[--work.pending_count];
        result = visit->owned(visit->context, node);
        if (result == 0 && node->autograd) result = take(node->autograd->gradient, visit);
        for (uint32_t i = 0; i < node->edge_count && result == 0; i++) result = take(fbp_input(node, (int)i), visit);
    }
    return result;
}

int fbp_owned_walk(fbp_tensor *root, bool whole, const fbp_owned_visit *visit) {
    work.pending_count = work.table_count = 0;
    if (++work.number == 0) { /* stale entries would look fresh */
        for (size_t i = 0; i < work.table_size; i++) work.table[i].walk = 0;
        work.number = 1;
    }
    int result = !whole ? take(root, visit) : pending_add(root) ? 0 : -1;
    if (result == 0) result = go_through(visit);
    for (size_t i = 0; i < work.table_size && result == 0 && visit->shared; i++)
        if (work.table[i].walk == work.number && work.table[i].found < work.table[i].node->references)
            result = visit->shared(visit->context, work.table[i].node);
    return result < 0 ? 0 : result;
}
