/* memory.c -- three allocators behind one header.
 *
 *   arrays   power-of-two-and-quarters size classes, cached so that a training step that frees and
 *            asks for the same sizes again costs a list pop and no page faults;
 *   blocks   16-byte size classes carved from 64 KiB slabs of 2 MiB regions; a region that empties goes back to the system;
 *   scratch  per-thread, grow-only.
 *
 * Caches hide a use after free from AddressSanitizer: what was given back is soon somebody else's.  FBP_MEMORY_CACHES=0,
 * which the sanitized builds set, asks the system for every array and block, and for no byte more than is wanted.
 */
#define _DEFAULT_SOURCE /* posix_memalign, madvise */
#include "base/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef FBP_MEMORY_CACHES
#define FBP_MEMORY_CACHES 1
#endif

static _Atomic int64_t allocations, live_bytes, peak_bytes, live_blocks, slab_bytes;

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

enum { HUGE_PAGE = 1 << 21 };

/* Large pieces lie on huge pages where the system gives them: one fault, and one entry of the address cache, instead of 512. */
static void *system_get(size_t bytes, size_t alignment) {
    if (bytes > memory_limit()) return NULL;
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    void *memory = NULL;
    if (bytes >= 2 * (size_t)HUGE_PAGE) alignment = HUGE_PAGE;
    if (posix_memalign(&memory, alignment, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (alignment == HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE); /* advice: nothing depends on its being taken */
#endif
    return memory;
}

/* ---- arrays ---------------------------------------------------------------------------------- */

enum { CLASS_COUNT = 100, CACHED_MAX_BYTES = 32 << 20, CACHE_LIMIT_BYTES = 256 << 20 };

typedef struct free_array { struct free_array *next; } free_array;
static free_array *array_cache[CLASS_COUNT];
static size_t cached_bytes;

/* Plans run without the host's lock, so the cache has one of its own; it is held for a list push or pop. */
static atomic_flag cache_lock = ATOMIC_FLAG_INIT;
static inline void cache_acquire(void) {
    while (atomic_flag_test_and_set_explicit(&cache_lock, memory_order_acquire)) continue;
}
static inline void cache_release(void) { atomic_flag_clear_explicit(&cache_lock, memory_order_release); }

/* A process that forks while another thread is at the cache would hand its child a lock that no one there can open. */
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(cache_acquire, cache_release, cache_release); }

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

/* Whether an array of so many bytes comes from the cache and goes back to it. */
static inline bool is_cached(size_t bytes) { return FBP_MEMORY_CACHES && bytes <= CACHED_MAX_BYTES; }

void *fbp_memory_get(size_t bytes) {
    if (!is_cached(bytes)) {
        const size_t step = FBP_MEMORY_CACHES ? FBP_ALIGNMENT : 1;
        size_t rounded = bytes ? (bytes + step - 1) / step * step : step;
        void *memory = rounded < bytes ? NULL : system_get(rounded, FBP_ALIGNMENT);
        if (memory) count_live((int64_t)bytes);
        return memory;
    }
    int class;
    size_t rounded = array_class(bytes, &class);
    cache_acquire();
    free_array *array = array_cache[class];
    if (array) {
        array_cache[class] = array->next;
        cached_bytes -= rounded;
    }
    cache_release();
    if (!array) array = system_get(rounded, FBP_ALIGNMENT);
    if (array) count_live((int64_t)bytes);
    return array;
}

void fbp_memory_free(void *memory, size_t bytes) {
    if (!memory) return;
    count_live(-(int64_t)bytes);
    if (is_cached(bytes)) {
        int class;
        size_t rounded = array_class(bytes, &class);
        cache_acquire();
        const bool kept = cached_bytes + rounded <= CACHE_LIMIT_BYTES;
        if (kept) {
            free_array *array = memory;
            array->next = array_cache[class];
            array_cache[class] = array;
            cached_bytes += rounded;
        }
        cache_release();
        if (kept) return;
    }
    free(memory);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

enum {
    REGION_BYTES = HUGE_PAGE,
    SLAB_BYTES = 1 << 16,
    REGION_SLABS = REGION_BYTES / SLAB_BYTES,
    BLOCK_STEP = 16,
    BLOCK_MAX = 512,
    BLOCK_CLASSES = BLOCK_MAX / BLOCK_STEP,
    IDLE_REGIONS_KEPT = 4
};

typedef struct free_block { struct free_block *next; } free_block;

/* Part of a region that serves one class; its header lies at its start. */
typedef struct slab {
    struct slab *next, *previous; /* in its class's list of slabs with room, or its region's list of empty ones */
    free_block *free;             /* blocks given back */
    uint32_t used, carved;        /* blocks out; blocks ever handed out */
    uint32_t capacity, class;
    uint32_t listed;
} slab;

/* What the system is asked for, aligned to its size; the description lies behind the first slab's header. */
typedef struct region {
    struct region *next, *previous; /* in the list of regions with empty slabs */
    slab *empty;
    uint32_t used, carved;          /* slabs in use; slabs ever used */
    uint32_t listed;
} region;

enum { SLAB_HEADER = 64, REGION_HEADER = 64 };
_Static_assert(sizeof(slab) <= SLAB_HEADER && sizeof(region) <= REGION_HEADER, "headers have outgrown their room");

static slab *slabs_with_room[BLOCK_CLASSES];
static region *regions_with_slabs;
static int idle_regions;

static region *region_of(const void *inside) {
    return (region *)(((uintptr_t)inside & ~(uintptr_t)(REGION_BYTES - 1)) + SLAB_HEADER);
}

static void region_list(region *r) {
    r->next = regions_with_slabs;
    r->previous = NULL;
    if (r->next) r->next->previous = r;
    regions_with_slabs = r;
    r->listed = 1;
}

static void region_unlist(region *r) {
    if (r->previous) r->previous->next = r->next;
    else regions_with_slabs = r->next;
    if (r->next) r->next->previous = r->previous;
    r->listed = 0;
}

static region *region_new(void) {
    char *memory = system_get(REGION_BYTES, REGION_BYTES);
    if (!memory) return NULL;
    region *r = (region *)(memory + SLAB_HEADER);
    *r = (region){0};
    region_list(r);
    idle_regions++;
    return r;
}

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
    region *r = regions_with_slabs;
    if (!r && !(r = region_new())) return NULL;
    slab *s = r->empty;
    if (s) r->empty = s->next;
    else s = (slab *)((char *)r - SLAB_HEADER + (size_t)r->carved++ * SLAB_BYTES);
    if (r->used++ == 0) idle_regions--;
    atomic_fetch_add_explicit(&slab_bytes, SLAB_BYTES, memory_order_relaxed);
    if (!r->empty && r->carved == REGION_SLABS) region_unlist(r);
    s->free = NULL;
    s->used = s->carved = 0;
    s->class = class;
    s->capacity = (SLAB_BYTES - SLAB_HEADER - REGION_HEADER) / ((class + 1) * BLOCK_STEP);
    slab_list(s);
    return s;
}

/* An emptied slab serves the next class that asks; a region of empty slabs goes back to the system, but for a few. */
static void slab_empty(slab *s) {
    region *r = region_of(s);
    slab_unlist(s);
    atomic_fetch_sub_explicit(&slab_bytes, SLAB_BYTES, memory_order_relaxed);
    s->next = r->empty;
    r->empty = s;
    if (!r->listed) region_list(r);
    if (--r->used > 0) return;
    if (idle_regions < IDLE_REGIONS_KEPT) {
        idle_regions++;
        return;
    }
    region_unlist(r);
    free((char *)r - SLAB_HEADER);
}

/* Whether a block of so many bytes is carved from a slab. */
static inline bool is_carved(size_t bytes) { return FBP_MEMORY_CACHES && bytes <= BLOCK_MAX; }

void *fbp_block_get(size_t bytes) {
    if (!is_carved(bytes)) {
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
        block = (char *)s + SLAB_HEADER + REGION_HEADER + (size_t)s->carved++ * (class + 1) * BLOCK_STEP;
    }
    if (++s->used == s->capacity) slab_unlist(s);
    /* A plain load and store: blocks are under the host's lock, the atomic is for readers. */
    atomic_store_explicit(&live_blocks, atomic_load_explicit(&live_blocks, memory_order_relaxed) + 1, memory_order_relaxed);
    return block;
}

void fbp_block_free(void *block, size_t bytes) {
    if (!block) return;
    atomic_store_explicit(&live_blocks, atomic_load_explicit(&live_blocks, memory_order_relaxed) - 1, memory_order_relaxed);
    if (!is_carved(bytes)) {
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

typedef struct thread_scratch { void *memory[FBP_SCRATCH_SLOTS]; size_t bytes[FBP_SCRATCH_SLOTS]; } thread_scratch;

static pthread_key_t scratch_key; /* its destructor frees a thread's scratch when the thread ends */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *held) {
    thread_scratch *scratch = held;
    for (int slot = 0; slot < FBP_SCRATCH_SLOTS; slot++) free(scratch->memory[slot]);
    free(scratch);
}

static void scratch_key_make(void) { pthread_key_create(&scratch_key, scratch_free); }

void *fbp_scratch(int slot, size_t bytes) {
    static _Thread_local thread_scratch *scratch;
    if (scratch && scratch->memory[slot] && scratch->bytes[slot] >= bytes) return scratch->memory[slot];
    if (!scratch) {
        pthread_once(&scratch_once, scratch_key_make);
        scratch = calloc(1, sizeof *scratch);
        if (!scratch) return NULL;
        pthread_setspecific(scratch_key, scratch);
    }
    size_t wanted = bytes < 4096 ? 4096 : bytes;
    void *memory = system_get(wanted, FBP_ALIGNMENT);
    if (!memory) return NULL;
    free(scratch->memory[slot]);
    scratch->memory[slot] = memory;
    scratch->bytes[slot] = wanted;
    return memory;
}

fbp_memory_stats fbp_memory_statistics(void) {
    return (fbp_memory_stats){allocations, live_bytes, peak_bytes, live_blocks, slab_bytes};
}
