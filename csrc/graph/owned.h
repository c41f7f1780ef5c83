/* owned.h -- what one holder of a node alone keeps alive: how the host's collector of cycles sees through the graph.
 *
 * The collector knows the host's objects and counts the references among them; nodes in between are hidden from it.  A
 * holder of a node (a handle, a saved tensor) therefore shows it the objects that hang on nodes which it alone owns:
 * those of which each reference was found on the way from the holder.  Whatever has another holder stays out of sight,
 * and what is out of sight is kept.
 *
 *     y (handle) -> mul -> add -> x       All are y's.  With a second handle on `add`, `mul` alone is.
 *
 * Where several holders own a node together, it has a *face*: a host's object that stands for the node itself, with as
 * many references to it as the node has (fbp_autograd.faced).  Each holder shows the face once for each reference, and
 * the face shows what lies behind.  The counts are set before a collection; where they no longer agree, nobody shows
 * the face, which keeps it and all behind it.
 *
 * Only nodes flagged FBP_REACHES are looked at: those on which objects hang, and what was made from them.
 */
#ifndef FBP_GRAPH_OWNED_H
#define FBP_GRAPH_OWNED_H

#include "graph/tensor.h"

/* What a walk calls.  Neither may change the graph; what is not 0 ends the walk, which returns it. */
typedef struct fbp_owned_visit {
    int (*owned)(void *context, fbp_tensor *node);  /* the holder's alone: what hangs on it, but for its inputs and gradient */
    int (*faced)(void *context, fbp_tensor *node);  /* one reference to a node with a face */
    int (*shared)(void *context, fbp_tensor *node); /* a node that others hold as well, or whose face is out of date; may be NULL */
    void *context;
} fbp_owned_visit;

/* Whether a node's face stands for all that refer to it. */
static inline bool fbp_has_face(const fbp_tensor *t) { return t->autograd && t->autograd->hooks && t->autograd->faced == t->references; }

/* Walk over what a holder of `root` owns, who has one reference to it; with `whole`, all of them.  The same graph is walked in the same
 * order; where memory runs out the walk ends, and a later one gets at least as far. */
int fbp_owned_walk(fbp_tensor *root, bool whole, const fbp_owned_visit *visit);

#endif
