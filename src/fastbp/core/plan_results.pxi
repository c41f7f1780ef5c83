# Compiled steps: what a call returns. Most results are computed into memory of their own; others are, at each call, what they were at
# capture: an object from outside, an argument, a view of an argument or of a tensor from outside or of another result, the gradient of a leaf.

@cython.final
@cython.binding(False)
cdef class OutsideView:
    """A view of an argument, of a tensor from outside or of another result, made anew at each call: by the view operations that were
    recorded, else by layout."""

    cdef Py_ssize_t argument     # -1: of `base`
    cdef Tensor base
    cdef list operations         # (op, attributes as bytes), first to last; None: nothing was recorded
    cdef fbp_layout layout       # then, with the offset from the base's first element

    cdef object make(self, list given):
        return self.make_of(<Tensor>given[self.argument] if self.argument >= 0 else self.base)

    cdef object make_of(self, Tensor base):
        cdef fbp_tensor *made
        cdef fbp_tensor *at
        cdef const char *attributes
        if self.operations is None:
            check(fbp_tensor_view(base.node, &self.layout, 0, 0, &made))
            return wrap(made)
        at = fbp_retain(base.node)
        before = switch_recording(True)  # as it was where the function made the view
        try:
            for op, stored in self.operations:
                attributes = stored
                status = fbp_apply(op, 1, &at, attributes, <int>len(stored), &made)
                fbp_release(at)
                check(status)
                at = made
        finally:
            switch_back(before)
        return wrap(at)


cdef list recorded_views(const fbp_tensor *t, const fbp_tensor *base):
    """The view operations that lead from `base` to t; None where something else was recorded between them."""
    operations = []
    while t != base:
        if t.flags & FBP_RETAINS_GRAD or has_hooks(t):
            raise RunEagerly("it registers a hook, or calls retain_grad(), on a view of memory from outside that it returns")
        if t.edge_count != 1 or not fbp_ops[t.op].view:
            return None
        operations.append((t.op, (<const char *>fbp_attributes(t))[:t.attribute_bytes]))
        t = fbp_input(t, 0)
    operations.reverse()
    return operations


cdef bint looks_outside(Capture source, Tensor x) noexcept:
    """Whether x looks into the memory of an argument, or of a tensor from outside."""
    cdef int32_t buffer
    if not x.node.storage.symbolic:
        return not x.node.storage.captured
    buffer = fbp_program_buffer(source.capture.program, x.node.storage)
    return buffer >= 0 and source.capture.program.buffers[buffer].kind == FBP_BUFFER_INPUT


cdef OutsideView outside_view(Py_ssize_t argument, Tensor base, const fbp_tensor *start, Tensor x):
    """x as a view that can be made anew: of an argument, whose symbol's node was `start`, or of a tensor from outside."""
    cdef OutsideView view = OutsideView.__new__(OutsideView)
    view.argument, view.base = argument, base
    if fbp_requires_grad(x.node):
        view.operations = recorded_views(x.node, start)
        if view.operations is None:
            raise RunEagerly("it returns a view, which requires grad, of memory from outside that it has written")
        return view
    fbp_layout_of(x.node, &view.layout)
    view.layout.offset = (x.node.data - start.data) // fbp_dtype_size(<fbp_dtype>x.node.dtype)
    return view


cdef Py_ssize_t base_among(list outputs, Py_ssize_t i) except -2:
    """The oldest other output whose elements, packed as they lie, are those at which output i looks; -1 where there is none."""
    cdef Tensor x = <Tensor>outputs[i]
    cdef Py_ssize_t k, found = -1
    cdef fbp_tensor *t
    cdef char *low
    cdef char *high
    reach_of(x.node, &low, &high)
    for k, other in enumerate(outputs):
        if other is x or not isinstance(other, Tensor):
            continue
        t = (<Tensor>other).node
        if t.storage == x.node.storage and t.sequence < x.node.sequence and fbp_is_contiguous(t) and t.data <= low and \
                high <= t.data + t.numel * fbp_dtype_size(<fbp_dtype>t.dtype) and \
                (found < 0 or t.sequence < (<Tensor>outputs[found]).node.sequence):
            found = k
    return -1 if found < 0 or (fbp_requires_grad(x.node) and recorded_views(x.node, (<Tensor>outputs[found]).node) is None) else found


cdef int refuse_used_views(Capture source, list outputs, list roots) except -1:
    """RunEagerly where a result was computed from another one that is a view of outside memory, and requires grad: no gradient would go there."""
    for x in outputs:
        if isinstance(x, Tensor) and fbp_requires_grad((<Tensor>x).node) and looks_outside(source, <Tensor>x) and \
                (<Tensor>x).node.sequence > source.begin and not is_one_of(x, source.arguments) and source.depending([x, *roots])[0]:
            raise RunEagerly("it returns a view, which requires grad, of memory from outside, and something that is computed from that view")
    return 0


cdef tuple outside_entry(Plan plan, Capture source, object x):
    """How x comes about where it is not computed by the plan; None where it is."""
    cdef Tensor t
    cdef Py_ssize_t k
    if not isinstance(x, Tensor):
        return ("object", x)
    t = <Tensor>x
    if not looks_outside(source, t):
        return None
    for k, symbol in enumerate(plan.symbols):
        if symbol is x:
            return ("argument", k)
    if t.node.storage.symbolic:
        for k in range(plan.input_count):
            if (<Tensor>plan.symbols[k]).node.storage == t.node.storage:
                return ("view", outside_view(k, None, (<Tensor>plan.symbols[k]).node, t))
    if t.node.sequence <= source.begin or is_one_of(x, plan.state_tensors):
        return ("object", x)
    for k in range(plan.state_count):
        if plan.states[k].node.storage == t.node.storage:
            return ("view", outside_view(-1, <Tensor>plan.state_tensors[k], plan.states[k].node, t))
    return ("object", x)  # over an array that the function itself has wrapped


cdef tuple result_entry(Plan plan, Capture source, list outputs, Py_ssize_t i):
    """How output i comes about."""
    cdef Tensor x
    cdef Py_ssize_t k, slot = 0
    cdef fbp_leaf_change *change
    for k in range(i if isinstance(outputs[i], Tensor) else 0):
        if outputs[k] is outputs[i]:
            return ("same", k)
    if isinstance(outputs[i], Tensor) and i < plan.returned:
        x = <Tensor>outputs[i]
        for k in range(source.capture.leaf_count):
            change = &source.capture.leaves[k]
            argument = source.argument_of(change.leaf)
            if is_inner(change.leaf) and (argument < 0 or (<Tensor>plan.symbols[argument]).node.edge_count):
                continue
            if change.after == x.node:
                return ("gradient", slot)
            if change.before == x.node:
                plan.returned_before.append(slot)
                return ("gradient before", slot)
            if change.before != NULL and change.before.storage == x.node.storage:
                raise RunEagerly("it returns a view of a gradient that was there before the call")
            slot += 1
    outside = outside_entry(plan, source, outputs[i])
    if outside is not None:
        return outside
    x = <Tensor>outputs[i]
    base = base_among(outputs[:plan.returned], i) if i < plan.returned and x.node.storage.symbolic else -1
    if base >= 0:
        return ("part", (base, outside_view(-1, None, (<Tensor>outputs[base]).node, x)))
    plan.results[i].buffer = write_to_new(source.capture.program, FBP_BUFFER_RESULT, x.node)
    plan.results[i].like = layout_node(x.node)
    return ("result", None)
