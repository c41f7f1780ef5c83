# Functions whose graph is not kept: the reverse sweep runs them again. utils/checkpoint.py is the public side.

@cython.final
@cython.binding(False)
cdef class Recompute(HostRule):
    """The rule of a function that can be run again with the same result."""

    cdef object again   # () -> list of outputs, in the order in which they were attached

    cdef str name(self):
        return "CheckpointBackward"

    cdef void let_go(self) noexcept:
        HostRule.let_go(self)
        self.again = None

    cdef list inputs(self):
        return [wrap(fbp_retain(fbp_input(self.node, i))) for i in range(self.node.edge_count)]

    cdef list pull(self, list cotangents, bint create_graph):
        with make_switch(True):
            outputs = self.again()
        known = [(y, g) for y, g in zip(backward_list(outputs, "outputs of a function that is run again"), cotangents) if g is not None and y.requires_grad]
        if not known:
            return [None] * self.node.edge_count
        return run_backward([y for y, _ in known], [g for _, g in known], create_graph, create_graph, self.inputs(), False, True)

    cdef list push(self, list tangents):
        with make_switch(True), keep_values():
            outputs = self.again()
        return push_again(outputs, self.inputs(), tangents)


def sequence_now():
    """A number below those of all nodes that will be recorded, and above those of all that were."""
    cdef fbp_tensor *t = new_token(None)
    cdef uint64_t now = t.sequence
    fbp_release(t)
    return now


cdef list reached_from(list outputs, uint64_t since):
    """Tensors older than `since` that require grad and from which `outputs` were computed by younger nodes."""
    cdef fbp_tensor *node
    cdef fbp_tensor *input
    cdef Py_ssize_t i
    cdef list pending = [<size_t>(<Tensor>y).node for y in outputs]
    cdef set met = set(pending)
    found = []
    while pending:
        node = <fbp_tensor *><size_t>pending.pop()
        for i in range(node.edge_count):
            input = fbp_input(node, i)
            if input == NULL or not fbp_requires_grad(input) or <size_t>input in met:
                continue
            met.add(<size_t>input)
            if input.sequence <= since:
                found.append(input.sequence)
                found.append(wrap(fbp_retain(input)))
            else:
                pending.append(<size_t>input)
    order = sorted(zip(found[::2], found[1::2]), key=lambda pair: pair[0])
    return [x for _, x in order]


def forget_graph(list outputs not None, uint64_t since, again):
    """Outputs without what was recorded between them and tensors older than `since`; the derivative runs `again()`.

    Parameters
    ----------
    outputs : list of Tensor
        Those that do not require grad, or are older, are returned as they are.
    since : int
        From `sequence_now()`, before the function ran.
    again : callable
        Returns the outputs anew, with a graph.

    Returns
    -------
    list of Tensor
    """
    cdef Recompute rule = Recompute.__new__(Recompute)
    outputs = backward_list(outputs, "outputs")
    places = [i for i, y in enumerate(outputs) if fbp_requires_grad((<Tensor>y).node) and (<Tensor>y).node.sequence > since
              and (<Tensor>y).node.edge_count]
    chosen = [outputs[i] for i in places]
    edges = reached_from(chosen, since)
    result = list(outputs)
    if not edges:
        return result

    def rerun():
        fresh = again()
        return [fresh[i] for i in places]

    rule.again = rerun
    for i, y in zip(places, rule.attach(edges, chosen)):
        result[i] = y
    return result
