/* tensor.h -- the one structure of the engine: a value that knows how it came to be.
 *
 * A tensor is a node of the computational graph.  It has elements (a strided view into a shared
 * storage) and, where it was recorded, the op that made it, typed attributes of that op, and
 * edges to its inputs.  Eager execution, differentiation and capture all speak of this structure.
 *
 * Two counts govern its life:
 *   references        who points at the node at all: host handles, edges, temporaries.
 *                     At zero the node goes, and with it, without recursion, all it alone held.
 *   value_references  those among them that need its elements: handles, temporaries, and edges
 *                     whose derivative rule reads them.  At zero the storage goes, the node stays:
 *                     so `a + b` in a long chain keeps no array alive, only the shape of the graph.
 *
 * None of this is thread-safe: the host's lock (Python's GIL) covers it.
 */
#ifndef FBP_GRAPH_TENSOR_H
#define FBP_GRAPH_TENSOR_H

#include <stddef.h>

#include "base/dtype.h"
#include "base/status.h"

enum { FBP_MAX_NDIM = 16 };

/* What a storage's elements are. */
enum fbp_storage_kind {
    FBP_STORAGE_REAL,    /* in memory */
    FBP_STORAGE_PLANNED, /* none: it stands for memory of a plan that is being captured; `owner` is the plan's */
    FBP_STORAGE_BATCHED, /* none: it stands for a batch (graph/batched.h) */
};

/* Memory that tensors look into.  Small arrays lie right behind the header. */
typedef struct fbp_storage {
    int32_t references;
    uint32_t version;               /* grows with each in-place change */
    void *data;
    int64_t bytes;
    void (*release)(void *owner);   /* for borrowed memory: called once at the end; else NULL */
    void *owner;
    struct fbp_tensor *latest;      /* borrowed: newest node over the whole storage after an in-place change through a view */
    uint32_t block_bytes;           /* size of this header's block, inline data included */
    uint8_t read_only;              /* elements may not be written */
    uint8_t latest_lost;            /* there was a `latest`, and it is gone */
    uint8_t captured;               /* made while a capture was under way */
    uint8_t symbolic;               /* an fbp_storage_kind: whether there are elements */
} fbp_storage;

struct fbp_tensor;

/* An input of a recorded op. */
typedef struct fbp_edge {
    struct fbp_tensor *tensor;
    uint32_t version;     /* of the input's storage when the op ran */
    uint32_t holds_value; /* this edge counts in the input's value_references */
} fbp_edge;

/* What only few tensors have: leaves that collect a gradient, and tensors with hooks. */
typedef struct fbp_autograd {
    struct fbp_tensor *gradient; /* accumulated; NULL until the first backward */
    void *hooks;                 /* the host's object (tensor hooks, and those of leaves after accumulation), NULL when none */
    int32_t faced;               /* references to `hooks` that are this node's, where it is a face (graph/owned.h); else 0 */
} fbp_autograd;

enum fbp_tensor_flag {
    FBP_REQUIRES_GRAD = 1,   /* leaf: asked for by the user; else some input requires it */
    FBP_VIEW = 2,            /* looks into another tensor's storage through a recorded or unrecorded view op */
    FBP_NUMBER = 4,          /* came from a bare Python number: weakest in type promotion */
    FBP_RELEASED = 8,        /* backward has run and let go of saved values */
    FBP_RETAINS_GRAD = 16,   /* non-leaf that keeps its gradient */
    FBP_HOLDS_OWN_VALUE = 32,/* its rule reads its own output */
    FBP_CONTIGUOUS = 64,     /* row-major without gaps */
    FBP_VISITED = 128,       /* scratch mark of a walk over the graph */
    FBP_WANTED = 256,        /* scratch mark: a path leads from here to a requested input */
    FBP_SYMBOLIC = 2048,     /* its storage is symbolic: it has a shape but no elements */
    FBP_POINT_LEFT = 4096,   /* leaf at which a function was differentiated, whose run is over: of no account to others */
    FBP_LINE_NOTED = 8192,   /* the host knows the line that recorded it (anomaly mode), and is told when it is freed */
    FBP_REACHES = 1024,      /* objects of the host hang on it, or on what it was made from: the host's collector looks there */
    FBP_KEEPS_HANDLE = 16384,/* nothing but this node refers to its handle, whose reference it holds; the handle holds none to the node */
    FBP_HOST_RULE = 512,     /* no row of the op table made it: the host has the rule, its object is the first attribute (owned) */
};

typedef struct fbp_tensor {
    int32_t references;
    int32_t value_references;
    uint64_t sequence;            /* order of recording: inputs come before outputs */
    fbp_storage *storage;         /* NULL once no one needs the elements */
    char *data;                   /* first element */
    int64_t numel;
    fbp_autograd *autograd;       /* or NULL */
    void *handle;                 /* borrowed, but with FBP_KEEPS_HANDLE: the host's live wrapper, NULL when there is none */
    struct fbp_tensor *cotangent; /* owned, during a backward pass only */
    uint16_t op;                  /* fbp_op; FBP_OP_leaf when not recorded */
    uint8_t dtype;                /* fbp_dtype */
    uint8_t ndim;
    uint16_t flags;
    uint16_t attribute_bytes;
    uint32_t edge_count;
    uint32_t version;             /* of the storage when this value was made */
    int64_t dims[];               /* shape[ndim], strides[ndim] in elements, edges, attributes */
} fbp_tensor;

static inline int64_t *fbp_shape(const fbp_tensor *t) { return (int64_t *)t->dims; }
static inline int64_t *fbp_strides(const fbp_tensor *t) { return (int64_t *)t->dims + t->ndim; }
static inline fbp_edge *fbp_edges(const fbp_tensor *t) { return (fbp_edge *)(void *)(fbp_strides(t) + t->ndim); }
static inline void *fbp_attributes(const fbp_tensor *t) { return fbp_edges(t) + t->edge_count; }
static inline fbp_tensor *fbp_input(const fbp_tensor *t, int i) { return fbp_edges(t)[i].tensor; }
static inline bool fbp_requires_grad(const fbp_tensor *t) { return t->flags & FBP_REQUIRES_GRAD; }
static inline bool fbp_is_contiguous(const fbp_tensor *t) { return t->flags & FBP_CONTIGUOUS; }
static inline bool fbp_same_shape(const fbp_tensor *a, const fbp_tensor *b) {
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dims[i] != b->dims[i]) return false;
    return true;
}

/* Shape, strides and type of a tensor to be made. */
typedef struct fbp_layout {
    uint8_t dtype;
    uint8_t ndim;
    int64_t numel;
    int64_t shape[FBP_MAX_NDIM];
    int64_t strides[FBP_MAX_NDIM]; /* elements */
    int64_t offset;                /* elements from the base's first, for views */
} fbp_layout;

/* Fill a layout for a fresh row-major array.  ValueError/RuntimeError for negative or overflowing sizes, too many dimensions. */
fbp_status fbp_layout_contiguous(fbp_layout *layout, fbp_dtype dtype, int ndim, const int64_t *shape);
bool fbp_layout_is_contiguous(const fbp_layout *layout);
void fbp_layout_of(const fbp_tensor *t, fbp_layout *layout);

/* Room for edges and attributes is laid out with the node, once; both are filled by the caller. */
fbp_status fbp_tensor_new(const fbp_layout *layout, fbp_storage *storage, char *data, int edge_count,
                          int attribute_bytes, fbp_tensor **out);
/* A fresh array with its own uninitialised storage.  MemoryError leaves *out alone. */
fbp_status fbp_tensor_empty(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out);
/* A fresh contiguous array of `like`'s type and shape; `like` is contiguous. */
fbp_status fbp_tensor_like(const fbp_tensor *like, int edge_count, int attribute_bytes, fbp_tensor **out);
/* The same elements under another layout (offset relative to base's first element); not recorded. */
fbp_status fbp_tensor_view(fbp_tensor *base, const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out);
/* A second node over the same elements, without history: detach(). */
fbp_status fbp_tensor_detach(fbp_tensor *base, fbp_tensor **out);
/* Borrow host memory; `release(owner)` is called when the last view has gone (not on failure). */
fbp_status fbp_tensor_borrow(const fbp_layout *layout, void *data, int64_t bytes, bool read_only,
                             void (*release)(void *), void *owner, fbp_tensor **out);

fbp_status fbp_storage_new(int64_t bytes, fbp_storage **out);
/* What `captured` of storages will be that the calling thread makes from now on. */
void fbp_storage_mark(bool on);
/* A storage of so many bytes that are not there: `data` serves to tell offsets alone. */
fbp_status fbp_storage_symbolic(int64_t bytes, fbp_storage **out);
void fbp_storage_retain(fbp_storage *storage);
void fbp_storage_release(fbp_storage *storage);

/* Hold / let go of node and elements together (handles, temporaries). */
static inline fbp_tensor *fbp_retain(fbp_tensor *t) {
    t->references++;
    t->value_references++;
    return t;
}
void fbp_release(fbp_tensor *t);
/* Hold / let go of the elements alone. */
void fbp_value_release(fbp_tensor *t);
/* Point edge i of `t` at `input`. */
void fbp_edge_set(fbp_tensor *t, int i, fbp_tensor *input, bool holds_value);
/* Let go of saved values after backward; edges stay. */
void fbp_saved_release(fbp_tensor *t);
/* The rare extras, made on demand.  NULL when memory is out. */
fbp_autograd *fbp_autograd_get(fbp_tensor *t);

/* Callbacks into the binding, set once by it: drop an object hung on a node (hooks);
 * make a live wrapper stand for another tensor. */
extern void (*fbp_host_release)(void *object);
extern void (*fbp_host_let_go)(void *rule); /* of what the rule saved: it will not be asked again */
extern void (*fbp_host_forget)(const fbp_tensor *t); /* the line noted for a node */
extern void (*fbp_host_adopt)(void *handle, fbp_tensor *t);
extern void (*fbp_host_part)(void *handle); /* let go of a handle that a node kept; it holds the node again, until it dies */

/* "(2, 3)" into a ring of per-thread buffers, for messages. */
const char *fbp_shape_text(int ndim, const int64_t *shape);
static inline const char *fbp_tensor_shape_text(const fbp_tensor *t) { return fbp_shape_text(t->ndim, t->dims); }

/* Broadcast b's shape into (ndim, shape), as NumPy does.  False when they do not agree. */
bool fbp_broadcast(int *ndim, int64_t *shape, int other_ndim, const int64_t *other);
/* dim in [-ndim, ndim) -> [0, ndim); IndexError in PyTorch's words otherwise. */
fbp_status fbp_dim_wrap(const char *op, int64_t dim, int ndim, int *out);

#endif
