/* memory.c -- three allocators behind one header.
 *
 *   arrays   power-of-two-and-quarters size classes, cached so that a training step that frees and
 *            asks for the same sizes again costs a list pop and no page faults;
 *   blocks   16-byte size classes carved from 64 KiB slabs; a slab that empties goes back to the system;
 *   scratch  per-thread, grow-only.
 */
#define _POSIX_C_SOURCE 200809L
#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static _Atomic int64_t allocations, live_bytes, peak_bytes, live_blocks;

static void count_live(int64_t delta) {
    int64_t live = atomic_fetch_add_explicit(&live_bytes, delta, memory_order_relaxed) + delta;
    if (live > atomic_load_explicit(&peak_bytes, memory_order_relaxed))
        atomic_store_explicit(&peak_bytes, live, memory_order_relaxed);
}

/* All the memory the machine has: a request above it fails at once instead of overcommitting. */
static size_t memory_limit(void) {
    static size_t limit;
    if (!limit) {
        long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
        limit = pages > 0 && size > 0 ? (size_t)pages * (size_t)size : SIZE_MAX / 2;
    }
    return limit;
}

static void *system_get(size_t bytes, size_t alignment) {
    if (bytes > memory_limit()) return NULL;
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    void *memory = NULL;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

/* ---- arrays ---------------------------------------------------------------------------------- */

enum { CLASS_COUNT = 100, CACHED_MAX_BYTES = 32 << 20, CACHE_LIMIT_BYTES = 256 << 20 };

typedef struct free_array { struct free_array *next; } free_array;
static free_array *array_cache[CLASS_COUNT];
static size_t cached_bytes;

/* Round up to 64 * {4, 5, 6, 7} * 2^k; *class is its index.  Waste is at most a fifth. */
static size_t array_class(size_t bytes, int *class) {
    size_t lines = (bytes + FBP_ALIGNMENT - 1) / FBP_ALIGNMENT;
    if (lines < 4) lines = 4;
    int shift = 0;
    while ((lines >> shift) > 7) shift++;
    size_t quarter = lines >> shift;
    if ((quarter << shift) < lines) quarter++;
    if (quarter == 8) {
        quarter = 4;
        shift++;
    }
    *class = shift * 4 + (int)quarter - 4;
    return (quarter << shift) * FBP_ALIGNMENT;
}

void *fbp_memory_get(size_t bytes) {
    if (bytes > CACHED_MAX_BYTES) {
        size_t rounded = (bytes + FBP_ALIGNMENT - 1) & ~(size_t)(FBP_ALIGNMENT - 1);
        void *memory = rounded < bytes ? NULL : system_get(rounded, FBP_ALIGNMENT);
        if (memory) count_live((int64_t)bytes);
        return memory;
    }
    int class;
    size_t rounded = array_class(bytes, &class);
    free_array *array = array_cache[class];
    if (array) {
        array_cache[class] = array->next;
        cached_bytes -= rounded;
    } else {
        array = system_get(rounded, FBP_ALIGNMENT);
    }
    if (array) count_live((int64_t)bytes);
    return array;
}

void fbp_memory_free(void *memory, size_t bytes) {
    if (!memory) return;
    count_live(-(int64_t)bytes);
    if (bytes <= CACHED_MAX_BYTES) {
        int class;
        size_t rounded = array_class(bytes, &class);
        if (cached_bytes + rounded <= CACHE_LIMIT_BYTES) {
            free_array *array = memory;
            array->next = array_cache[class];
            array_cache[class] = array;
            cached_bytes += rounded;
            return;
        }
    }
    free(memory);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

enum { SLAB_BYTES = 1 << 16, BLOCK_STEP = 16, BLOCK_MAX = 512, BLOCK_CLASSES = BLOCK_MAX / BLOCK_STEP, EMPTY_SLABS_KEPT = 32 };

typedef struct free_block { struct free_block *next; } free_block;

typedef struct slab {
    struct slab *next, *previous; /* in its class's list of slabs with room */
    free_block *free;             /* blocks given back */
    uint32_t used, carved;        /* blocks out; blocks ever handed out */
    uint32_t capacity, class;
    uint32_t listed;
} slab;

enum { SLAB_HEADER = (sizeof(slab) + 63) & ~63 };

static slab *slabs_with_room[BLOCK_CLASSES];
static slab *empty_slabs;
static int empty_slab_count;

static void slab_list(slab *s) {
    s->next = slabs_with_room[s->class];
    s->previous = NULL;
    if (s->next) s->next->previous = s;
    slabs_with_room[s->class] = s;
    s->listed = 1;
}

static void slab_unlist(slab *s) {
    if (s->previous) s->previous->next = s->next;
    else slabs_with_room[s->class] = s->next;
    if (s->next) s->next->previous = s->previous;
    s->listed = 0;
}

static slab *slab_new(uint32_t class) {
    slab *s = empty_slabs;
    if (s) {
        empty_slabs = s->next;
        empty_slab_count--;
    } else if (!(s = system_get(SLAB_BYTES, SLAB_BYTES))) {
        return NULL;
    }
    s->free = NULL;
    s->used = s->carved = 0;
    s->class = class;
    s->capacity = (SLAB_BYTES - SLAB_HEADER) / ((class + 1) * BLOCK_STEP);
    slab_list(s);
    return s;
}

/* An emptied slab is kept for the next class that needs one, or goes back to the system. */
static void slab_empty(slab *s) {
    slab_unlist(s);
    if (empty_slab_count < EMPTY_SLABS_KEPT) {
        s->next = empty_slabs;
        empty_slabs = s;
        empty_slab_count++;
    } else {
        free(s);
    }
}

void *fbp_block_get(size_t bytes) {
    if (bytes > BLOCK_MAX) {
        void *memory = fbp_memory_get(bytes);
        if (memory) atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
        return memory;
    }
    uint32_t class = bytes ? (uint32_t)((bytes - 1) / BLOCK_STEP) : 0;
    slab *s = slabs_with_room[class];
    if (!s && !(s = slab_new(class))) return NULL;
    void *block;
    if (s->free) {
        block = s->free;
        s->free = s->free->next;
    } else {
        block = (char *)s + SLAB_HEADER + (size_t)s->carved++ * (class + 1) * BLOCK_STEP;
    }
    if (++s->used == s->capacity) slab_unlist(s);
    /* A plain load and store: blocks are under the host's lock, the atomic is for readers. */
    atomic_store_explicit(&live_blocks, atomic_load_explicit(&live_blocks, memory_order_relaxed) + 1, memory_order_relaxed);
    return block;
}

void fbp_block_free(void *block, size_t bytes) {
    if (!block) return;
    atomic_store_explicit(&live_blocks, atomic_load_explicit(&live_blocks, memory_order_relaxed) - 1, memory_order_relaxed);
    if (bytes > BLOCK_MAX) {
        fbp_memory_free(block, bytes);
        return;
    }
    slab *s = (slab *)((uintptr_t)block & ~(uintptr_t)(SLAB_BYTES - 1));
    ((free_block *)block)->next = s->free;
    s->free = block;
    s->used--;
    if (!s->listed) slab_list(s);
    else if (s->used == 0 && (s->next || s->previous)) slab_empty(s);
}

/* ---- scratch --------------------------------------------------------------------------------- */

void *fbp_scratch(int slot, size_t bytes) {
    static _Thread_local struct { void *memory; size_t bytes; } scratch[FBP_SCRATCH_SLOTS];
    if (scratch[slot].bytes >= bytes && scratch[slot].memory) return scratch[slot].memory;
    size_t wanted = bytes < 4096 ? 4096 : bytes;
    void *memory = system_get(wanted, FBP_ALIGNMENT);
    if (!memory) return NULL;
    free(scratch[slot].memory);
    scratch[slot].memory = memory;
    scratch[slot].bytes = wanted;
    return memory;
}

fbp_memory_stats fbp_memory_statistics(void) {
    return (fbp_memory_stats){allocations, live_bytes, peak_bytes, live_blocks};
}
