# vmap: batched tensors, and the points at which functions are differentiated.

cdef dict RANDOMNESS = {"error": FBP_RANDOM_ERROR, "same": FBP_RANDOM_SAME, "different": FBP_RANDOM_DIFFERENT}


@cython.binding(False)
cdef class vmap_level:
    """Context manager: a vmap over `size` examples; its value is the level's number."""

    cdef int64_t size
    cdef int randomness, entered

    def __cinit__(self, int64_t size, str randomness not None):
        if randomness not in RANDOMNESS:
            raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
        self.size, self.randomness = size, RANDOMNESS[randomness]

    def __enter__(self):
        cdef uint64_t level
        check(fbp_vmap_begin(self.size, <fbp_randomness>self.randomness, &level))
        self.entered += 1
        return level

    def __exit__(self, *error):
        if self.entered > 0 and fbp_mode_get().vmap_count > 0:  # each level ends once, on the thread that began it
            self.entered -= 1
            fbp_vmap_end()


def batch(Tensor physical not None, uint64_t level, bint batched=True):
    """The tensor that stands for a batch: `physical` has it as first axis, or one value serves all examples."""
    cdef fbp_tensor *out
    check(fbp_batched_new(physical.node, level, batched, 0, 0, &out))
    return wrap(out)


def unbatch(Tensor x not None, uint64_t level):
    """What lies behind a tensor of this level, and whether the batch is its first axis; other tensors as they are."""
    if fbp_level(x.node) != level or not fbp_is_batched(x.node):
        return x, False
    return wrap(fbp_retain(<fbp_tensor *>fbp_batch_of(x.node).physical)), bool(fbp_batch_of(x.node).batched)


def level_of(Tensor x not None):
    """The level of the vmap that a tensor belongs to, 0 for none."""
    return fbp_level(x.node)


def vmap_information(uint64_t level):
    """Size of the batch and randomness of a vmap that is under way."""
    cdef const fbp_mode *mode = fbp_mode_get()
    cdef int i
    for i in range(mode.vmap_count):
        if mode.vmaps[i].level == level:
            return mode.vmaps[i].size, ("error", "same", "different")[mode.vmaps[i].randomness]
    raise RuntimeError("vmap: a tensor of a vmap that has ended is used; return it from the function to use it outside")


def vmap_depth():
    """How many vmaps are under way on this thread."""
    return fbp_mode_get().vmap_count


def lift(Tensor x not None):
    """A tensor of x's value to differentiate by: what x itself depends on is told apart, and connected."""
    cdef fbp_tensor *out
    note_outside(x.node)
    check(fbp_lift(x.node, &out))
    return wrap(out)


def leave_point(points):
    """The run of a function on these lifted tensors is over: what depends on nothing else depends on nothing outside."""
    for x in backward_list(points, "points"):
        if (<Tensor>x).node.edge_count == 0:
            (<Tensor>x).node.flags |= FBP_POINT_LEFT


def is_recorded(Tensor x not None):
    """Whether derivatives by what x was computed from can be asked for, be it behind a batched tensor."""
    return is_differentiated(x.node)


def drop_history(Tensor x not None):
    """x without what was recorded of it on its own level; histories behind a batched tensor stay."""
    cdef fbp_tensor *out
    if not fbp_requires_grad(x.node):
        return x
    note_outside(x.node)
    check(fbp_tensor_detach(x.node, &out))
    return wrap(out)


def reaches_others(outputs, inputs):
    """Whether outputs depend on leaves that require grad other than `inputs`, or on what came before these.

    Points of runs that are over (`leave_point`) do not count.
    """
    cdef fbp_node_list found
    cdef fbp_tensor *node
    outputs = backward_list(outputs, "outputs")
    known = set([<size_t>(<Tensor>x).node for x in backward_list(inputs, "inputs")])
    cdef Py_ssize_t i, n = len(outputs)
    cdef fbp_tensor **roots = tensor_array(outputs, n)
    cdef uint64_t level = 0
    memset(&found, 0, sizeof(found))
    for i in range(n):
        level = builtin_max(level, fbp_level(roots[i]))
    status = fbp_walk(<int>n, roots, True, 0, &found)
    others = False
    if status == FBP_OK:
        for i in range(found.count):
            node = found.nodes[i]
            if (node.edge_count == 0 and fbp_requires_grad(node) and not node.flags & FBP_POINT_LEFT and <size_t>node not in known
                    and node_level(node) == level):
                others = True
                break
    fbp_walk_end(&found)
    free_array(roots, n)
    check(status)
    return others


cdef inline uint64_t node_level(const fbp_tensor *t) noexcept:
    """The level of a node that may have given up its value: leaves of a vmap are held, and so are theirs."""
    return fbp_level(t) if t.storage != NULL else 0


cdef object detach_batched(Tensor x):
    """Without history on any level."""
    cdef const fbp_batch *what = fbp_batch_of(x.node)
    behind = wrap(fbp_retain(<fbp_tensor *>what.physical)).detach()
    return batch(behind, what.level, what.batched)


cdef object batched_repr(Tensor x):
    cdef const fbp_batch *what = fbp_batch_of(x.node)
    behind = wrap(fbp_retain(<fbp_tensor *>what.physical))
    return f"BatchedTensor(lvl={what.level}, bdim={0 if what.batched else None}, value={behind!r})"


# ---- ops that no rule batches ----------------------------------------------------------------------------------------------------

cdef set slow_ops = set()


def slow_ops_forget():
    """Say it again from now on: for tests."""
    slow_ops.clear()


cdef fbp_status say_slow(fbp_op op) noexcept with gil:
    """The core's callback: an op runs once an example; where warnings are errors, this one is."""
    name = fbp_ops[<int>op].name.decode()
    if name in slow_ops:
        return FBP_OK
    import warnings
    try:
        warnings.warn(f"vmap: {name} has no batching rule for these inputs and runs once for each example (this is said once)",
                      RuntimeWarning, stacklevel=2)
    except BaseException as error:
        return keep_error(error)
    slow_ops.add(name)
    return FBP_OK


fbp_host_slow = say_slow
