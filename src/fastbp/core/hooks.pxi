# Hooks of tensors: on a gradient before it goes on, and on a leaf after its gradient was accumulated.

@cython.final
@cython.no_gc_clear  # the dicts are cleared by themselves
@cython.binding(False)
cdef class HookTable:
    """The hooks of one tensor, by number, in the order of their registration."""

    cdef dict before       # called with the gradient; what they return replaces it
    cdef dict after        # called with the leaf
    cdef fbp_tensor *node  # borrowed; NULL once it has gone
    cdef uint32_t collection  # the last one for which this face was brought up to date


cdef HookTable new_hook_table(fbp_tensor *node):
    """The table of a node that has none; the node holds it. Its fbp_autograd must be there."""
    cdef HookTable table = HookTable.__new__(HookTable)
    table.before, table.after, table.node = {}, {}, node
    Py_INCREF(table)
    node.autograd.hooks = <void *>table
    node.autograd.faced = 1
    return table


cdef void release_hooks(HookTable table) noexcept:
    """The node goes."""
    cdef int32_t count = table.node.autograd.faced
    table.node = NULL
    while count:
        count -= 1
        Py_DECREF(table)


cdef void move_hooks(fbp_tensor *before, fbp_tensor *node) noexcept:
    """A node has taken over the fbp_autograd of another."""
    node.flags |= before.flags & FBP_REACHES
    if node.autograd != NULL and node.autograd.hooks != NULL:
        (<HookTable>node.autograd.hooks).node = node


cdef fbp_status call_hooks(void *hooks, fbp_tensor *g, fbp_tensor **replaced) noexcept with gil:
    """The core's callback: run a tensor's hooks on its gradient, in order."""
    cdef Tensor current
    if not (<HookTable>hooks).before:
        return FBP_OK
    try:
        current = wrap(fbp_retain(g))
        changed = False
        for hook in list((<HookTable>hooks).before.values()):
            result = hook(current)
            if result is None:
                continue
            if not isinstance(result, Tensor):
                raise TypeError(f"expected a hook to return None or a Tensor, but got {builtin_type(result).__name__}")
            if not fbp_same_shape((<Tensor>result).node, g):
                raise RuntimeError(f"a hook must return a gradient of shape {shape_tuple(g)}, got {shape_tuple((<Tensor>result).node)}")
            current = result
            changed = True
        if changed:
            if fbp_mode_get().capture != NULL:
                current = tied(current, [wrap(fbp_retain(g))])
            replaced[0] = fbp_retain(current.node)
        return FBP_OK
    except BaseException as error:
        return keep_error(error)


cdef fbp_status call_accumulated(void *hooks, fbp_tensor *leaf) noexcept with gil:
    """The core's callback: a leaf has its gradient."""
    try:
        for hook in list((<HookTable>hooks).after.values()):
            hook(wrap(fbp_retain(leaf)))
        return FBP_OK
    except BaseException as error:
        return keep_error(error)


cdef fbp_status look_at_signals() noexcept with gil:
    """The core's callback, now and then in what may last: Ctrl-C, in the main thread."""
    try:
        PyErr_CheckSignals()
        return FBP_OK
    except BaseException as error:
        return keep_error(error)


fbp_host_interrupted = look_at_signals
fbp_host_hook = call_hooks
fbp_host_accumulated = call_accumulated


class RemovableHandle:
    """What register_hook() returns: remove() takes the hook away."""

    def __init__(self, hooks, key):
        self.hooks = hooks
        self.id = key

    def remove(self):
        """Take the hook away; twice does no harm."""
        if self.hooks.pop(self.id, None) is not None:
            world_moved()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.remove()


cdef object hook_count = 0


cdef object add_hook(Tensor x, object hook, bint after):
    global hook_count
    cdef fbp_autograd *extra = fbp_autograd_get(x.node)
    cdef HookTable table
    if extra == NULL:
        raise MemoryError("cannot allocate a hook")
    if extra.hooks == NULL:
        new_hook_table(x.node)
    x.node.flags |= FBP_REACHES
    join_collector(x)
    if x.node.references > 1:  # there may be results already
        join_those_behind(<PyObject *>hook, x.node.sequence)
    table = <HookTable>extra.hooks
    hooks = table.after if after else table.before
    hook_count += 1
    hooks[hook_count] = hook
    note_hooked(x, hooks, hook_count)
    move_world()
    return RemovableHandle(hooks, hook_count)


cdef bint has_hooks(const fbp_tensor *t) noexcept:
    return t.autograd != NULL and t.autograd.hooks != NULL and \
        (len((<HookTable>t.autograd.hooks).before) > 0 or len((<HookTable>t.autograd.hooks).after) > 0)


cdef tuple tensor_hooks(Tensor x):
    """The hooks of a tensor, of both kinds, in the order in which they run."""
    if not has_hooks(x.node):
        return ()
    table = <HookTable>x.node.autograd.hooks
    return (tuple((<HookTable>table).before.values()), tuple((<HookTable>table).after.values()))


def hooks_of(Tensor x not None):
    """All hooks of a tensor, in a list."""
    return [hook for hooks in tensor_hooks(x) for hook in hooks]
