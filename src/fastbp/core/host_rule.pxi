# Nodes whose derivative rules are in Python: compiled functions, autograd.Function, checkpoints.
#
# A rule with one output is one node. With several there is a hub, which has the inputs and the rule, and over each output's elements a
# light node whose only input is the hub. What passes between them is a token, a tensor without elements that carries a list: in the
# reverse sweep the outputs put their cotangents into it, so that the hub is visited once, after all of them; in forward mode the hub is
# visited first and they take their tangents from it. The list lives as long as the pass.

@cython.binding(False)
cdef class HostRule:
    """What stands in a node in place of an op: subclasses answer pull and push."""

    cdef fbp_tensor *node        # borrowed; NULL once it has gone
    cdef bint is_hub
    cdef Py_ssize_t output_count
    cdef fbp_tensor *cotangent   # that `gradients` belong to (held)
    cdef list gradients          # of the present sweep, by edge

    def __dealloc__(self):
        if self.cotangent != NULL:
            fbp_release(self.cotangent)

    cdef str name(self):
        """PyTorch's name of the function."""
        raise NotImplementedError

    cdef list pull(self, list cotangents, bint create_graph):
        """A new list of gradients, one an edge (None: zero), from cotangents of the outputs (None: zero)."""
        raise NotImplementedError

    cdef list push(self, list tangents):
        """Tangents of the outputs (None: zero) from those of the edges (None: zero)."""
        raise NotImplementedError

    cdef void let_go(self) noexcept:
        """Backward has run, or the node goes: drop what was saved."""
        self.gradients = None

    cdef void forsaken(self) noexcept:
        """The node is being destroyed."""
        self.node = NULL
        self.let_go()

    cdef list attach(self, list edges, list values):
        """Tensors over the elements of `values` whose history is this rule, with the tensors `edges` as its inputs."""
        cdef Tensor hub
        self.output_count = len(values)
        if len(values) == 1:
            self.node = new_host_node(self, edges, <Tensor>values[0])
            return [wrap(self.node)]
        self.is_hub = True
        self.node = new_host_node(self, edges, wrap(new_token(None)))
        hub = wrap(self.node)  # until the outputs hold it
        return [self.output(i, <Tensor>value) for i, value in enumerate(values)]

    cdef Tensor output(self, Py_ssize_t which, Tensor value):
        """One of several outputs, over these elements."""
        cdef HostOutput rule = HostOutput.__new__(HostOutput)
        cdef Tensor made
        rule.hub, rule.which = self, which
        made = wrap(new_host_node(rule, [wrap(fbp_retain(self.node))], value))
        rule.node = made.node
        return made

    cdef int pull_edge(self, int which, fbp_tensor *cotangent, bint create_graph, bint last, fbp_tensor **out) except -1:
        """What the reverse sweep asks: the gradient of one edge. The first question of a sweep computes all."""
        if self.cotangent != cotangent:
            cotangents = token_list(cotangent) if self.is_hub else [wrap(fbp_retain(cotangent))]
            gradients = self.pull(cotangents, create_graph)
            self.answer(cotangent, gradients)
        gradient = self.gradients[which]
        out[0] = fbp_retain((<Tensor>gradient).node) if gradient is not None else NULL
        self.gradients[which] = None  # its only holder is the sweep now, which may then add in place
        if last:
            self.answer(NULL, None)
        return 0

    cdef void answer(self, fbp_tensor *cotangent, list gradients) noexcept:
        """These are what the next questions for this cotangent get; another thread's sweep may ask in between, and both ask again."""
        cdef fbp_tensor *before = self.cotangent
        held = self.gradients
        self.cotangent, self.gradients = fbp_retain(cotangent) if cotangent != NULL else NULL, gradients
        if before != NULL:
            fbp_release(before)

    cdef int push_edges(self, list tangents, fbp_tensor **out) except -1:
        """What forward mode asks."""
        results = self.push(tangents)
        if self.is_hub:
            out[0] = new_token(results)
        elif results[0] is not None:
            out[0] = fbp_retain((<Tensor>results[0]).node)
        return 0


@cython.final
@cython.binding(False)
cdef class HostOutput(HostRule):
    """One of several outputs of a rule."""

    cdef HostRule hub
    cdef Py_ssize_t which

    cdef str name(self):
        return self.hub.name()

    cdef int pull_edge(self, int which, fbp_tensor *cotangent, bint create_graph, bint last, fbp_tensor **out) except -1:
        cdef HostRule hub = self.hub
        cdef fbp_tensor *token = hub.node.cotangent
        if token == NULL:
            token = out[0] = new_token([None] * hub.output_count)
        found = token_list(token)
        g = wrap(fbp_retain(cotangent))
        found[self.which] = g if found[self.which] is None else found[self.which] + g
        return 0

    cdef int push_edges(self, list tangents, fbp_tensor **out) except -1:
        tangent = token_list((<Tensor>tangents[0]).node)[self.which]
        if tangent is not None:
            out[0] = fbp_retain((<Tensor>tangent).node)
        return 0


cdef fbp_tensor *new_token(list carried) except NULL:
    """A tensor without elements, even while a function is captured; the list hangs where a node has its hooks."""
    cdef fbp_layout layout
    cdef fbp_tensor *token
    cdef int64_t none = 0
    check(fbp_layout_contiguous(&layout, FBP_FLOAT32, 1, &none))
    check(fbp_tensor_empty(&layout, 0, 0, &token))
    if carried is not None:
        if fbp_autograd_get(token) == NULL:
            fbp_release(token)
            raise MemoryError("cannot allocate a list of cotangents")
        Py_INCREF(carried)
        token.autograd.hooks = <void *>carried
    return token


cdef list token_list(const fbp_tensor *token):
    return <list>token.autograd.hooks


cdef fbp_tensor *new_host_node(HostRule rule, list edges, Tensor value) except NULL:
    cdef fbp_tensor *node
    cdef fbp_tensor **inputs = tensor_array(edges, len(edges))
    cdef Py_ssize_t i, n = len(edges)
    Py_INCREF(rule)
    status = fbp_host_node(<void *>rule, <int>n, inputs, value.node, &node)
    free_array(inputs, n)
    if status != FBP_OK:
        Py_DECREF(rule)
        raise_status(status)
    for i in range(n):
        if (<Tensor>edges[i]).node.storage == node.storage:
            node.flags |= FBP_VIEW
    if fbp_mode_get().anomaly:
        note_line(node)
    return node


cdef HostRule rule_of(fbp_tensor *node):
    """A node's rule, None where an op made it."""
    if not node.flags & FBP_HOST_RULE:
        return None
    return <HostRule>(<void **>fbp_attributes(node))[0]


cdef bint is_output(fbp_tensor *node):
    return isinstance(rule_of(node), HostOutput)


cdef Py_ssize_t output_number(fbp_tensor *node):
    """Which output of its function a node is."""
    rule = None if node == NULL else rule_of(node)
    return (<HostOutput>rule).which if isinstance(rule, HostOutput) else 0


cdef list push_again(list roots, list edges, list tangents):
    """Tangents of a function that was run again, from those that forward mode has for its inputs."""
    known = [(x, t) for x, t in zip(edges, tangents) if t is not None]
    return list(forward_gradient(roots, [x for x, _ in known], [t for _, t in known]))


cdef fbp_status pull_host(void *object, int which, fbp_tensor *cotangent, c_bool create_graph, c_bool last,
                          fbp_tensor **out) noexcept with gil:
    try:
        (<HostRule>object).pull_edge(which, cotangent, create_graph, last, out)
        return FBP_OK
    except BaseException as error:
        return keep_error(error)


cdef fbp_status push_host(void *object, int count, fbp_tensor *const *tangents, fbp_tensor **out) noexcept with gil:
    try:
        given = [wrap(fbp_retain(<fbp_tensor *>tangents[i])) if tangents[i] != NULL else None for i in range(count)]
        (<HostRule>object).push_edges(given, out)
        return FBP_OK
    except BaseException as error:
        return keep_error(error)


cdef void let_go_host(void *rule) noexcept with gil:
    (<HostRule>rule).let_go()


fbp_host_pull = pull_host
fbp_host_push = push_host
fbp_host_let_go = let_go_host
