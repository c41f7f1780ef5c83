/* views.h -- histories of tensors that share elements.
 *
 * A recorded view knows its base.  Writing through a view, where the write is recorded, gives the base a new history too:
 * "the base with this part replaced"; the base's handle, and the view's, move to the new nodes.  Other views of the same
 * storage learn of it the next time they are used.
 */
#ifndef FBP_EXEC_VIEWS_H
#define FBP_EXEC_VIEWS_H

#include "ops/op.h"

/* Whether a recorded view's elements were given a new history since it was made. */
static inline bool fbp_view_is_stale(const fbp_tensor *t) {
    return (t->flags & FBP_VIEW) && t->edge_count && t->storage && t->version != t->storage->version &&
           (t->storage->latest ? t->storage->latest != t : t->storage->latest_lost);
}
/* The same view, taken from the newest base.  RuntimeError when that base's history is gone. */
fbp_status fbp_view_refresh(fbp_tensor *t, fbp_tensor **out);

/* The wrapper and the reference in *at that stood for `from` now stand for `to`, whose reference is handed over. */
void fbp_view_adopt(fbp_tensor *from, fbp_tensor *to, fbp_tensor **at);

/* Whether a recorded write to `target` can be told to all who share its elements. */
fbp_status fbp_view_rebase_check(const char *op, const fbp_tensor *target);
/* `result` is the new node over target's elements (its reference is taken over).  Rebuilds the bases above
 * and moves target's reference and handle in *target_at to the new view. */
fbp_status fbp_view_rebase(fbp_tensor *target, fbp_tensor *result, fbp_tensor **target_at);

#endif
