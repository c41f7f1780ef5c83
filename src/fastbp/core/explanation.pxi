# A recorded graph by numbers, edge by edge: what fastbp.explanation is made from.

@cython.final
@cython.binding(False)
cdef class GraphRecord:
    """The recorded graph behind one tensor: nodes by number, inputs before outputs.

    It holds the nodes, and of values no more than the nodes do: explaining a graph changes nothing about it.
    """

    cdef fbp_tensor **nodes
    cdef Py_ssize_t size
    cdef dict places           # address of a node -> its number
    cdef bytearray overwritten # values that an in-place op changed after they were read
    cdef list replaced         # nodes that revive() put others in place of: held, so that their addresses stay taken

    def __cinit__(self, Tensor root not None):
        cdef fbp_node_list found
        cdef Py_ssize_t i
        self.places = {}
        self.replaced = []
        memset(&found, 0, sizeof(found))
        status = fbp_walk(1, &root.node, False, 0, &found)
        if status == FBP_OK:
            self.nodes = <fbp_tensor **>fbp_block_get(found.count * sizeof(fbp_tensor *))
            if self.nodes != NULL:
                self.size = found.count
                for i in range(self.size):
                    self.nodes[i] = found.nodes[i]
                    self.nodes[i].references += 1
        fbp_walk_end(&found)
        check(status)
        if self.nodes == NULL:
            raise MemoryError("cannot allocate a list of nodes")
        self.overwritten = bytearray(self.size)
        for i in range(self.size):
            self.places[<size_t>self.nodes[i]] = i
        self.compare_versions()

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.size):
            drop_node(self.nodes[i])
        if self.nodes != NULL:
            fbp_block_free(self.nodes, self.size * sizeof(fbp_tensor *))

    cdef int compare_versions(self) except -1:
        """Mark values that are no longer what the op that read them saw."""
        cdef Py_ssize_t i
        cdef uint32_t k
        cdef fbp_edge *edges
        for i in range(self.size):
            edges = fbp_edges(self.nodes[i])
            for k in range(self.nodes[i].edge_count):
                if edges[k].tensor != NULL and edges[k].tensor.storage != NULL and edges[k].version != edges[k].tensor.storage.version:
                    self.overwritten[self.places[<size_t>edges[k].tensor]] = 1
        return 0

    def __len__(self):
        return self.size

    def find(self, Tensor x not None):
        """Number of a tensor's node, -1 where it is not in the graph."""
        return self.places.get(<size_t>x.node, -1)

    def facts(self):
        """What each node is.

        Returns
        -------
        ops : list of str
            "leaf" where nothing was recorded, and of what the outputs of a function share; "custom" where the rule is not in
            the op table.
        inputs : list of tuple
            Numbers of the inputs, None where an optional one was left out.
        shapes : list of tuple
        dtypes : list of str
        required : list of bool
            Whether derivatives by the node are recorded.
        """
        cdef Py_ssize_t i
        cdef uint32_t k
        cdef fbp_tensor *node
        cdef fbp_tensor *source
        names = [fbp_ops[<int>op].name.decode() for op in range(FBP_OP_COUNT)]
        ops, inputs, shapes, dtypes, required = [], [], [], [], []
        for i in range(self.size):
            node = self.nodes[i]
            source = self.reader(node)
            if node.edge_count == 0 or (rule_of(node) is not None and rule_of(node).is_hub):
                ops.append("leaf")
                inputs.append(())
            else:
                ops.append("custom" if node.flags & FBP_HOST_RULE else names[node.op])
                inputs.append(tuple([self.places[<size_t>fbp_input(source, k)] if fbp_input(source, k) != NULL else None
                                     for k in range(source.edge_count)]))
            shapes.append(shape_tuple(node))
            dtypes.append((<dtype>DTYPES[node.dtype]).name)
            required.append(bool(fbp_requires_grad(node)))
        return ops, inputs, shapes, dtypes, required

    def attributes(self, Py_ssize_t i):
        """The op's attributes, as `_recorded_graph` gives them."""
        cdef fbp_tensor *node = self.at(i)
        if node.edge_count == 0 or node.flags & FBP_HOST_RULE:
            return {}
        return attributes_read(node.op, fbp_attributes(node), node.attribute_bytes)

    def state(self, Py_ssize_t i):
        """Whether the node's rule can be used: "intact", "released" by a sweep, "overwritten", or "symbolic" (captured)."""
        cdef fbp_tensor *node = self.at(i)
        cdef fbp_edge *edges = fbp_edges(node)
        cdef uint32_t k
        if node.flags & FBP_SYMBOLIC:
            return "symbolic"
        if node.flags & FBP_RELEASED:
            return "released"
        for k in range(node.edge_count):
            if edges[k].holds_value and edges[k].tensor.storage != NULL and edges[k].version != edges[k].tensor.storage.version:
                return "overwritten"
        if node.flags & FBP_HOLDS_OWN_VALUE and node.version != node.storage.version:
            return "overwritten"
        return "intact"

    def value(self, Py_ssize_t i):
        """The node's value without history, over the same memory; None where it was given up, overwritten or captured."""
        cdef fbp_tensor *plain
        if not self.has_value(self.at(i), i):
            return None
        check(fbp_tensor_detach(self.nodes[i], &plain))
        return wrap(plain)

    def tensor(self, Py_ssize_t i):
        """The node itself as a tensor, history included; RuntimeError where its value was given up."""
        if not self.has_value(self.at(i), i):
            raise RuntimeError(f"explain: the value of node {i}, of shape {shape_tuple(self.nodes[i])}, was not kept; record under "
                               "`with fastbp.autograd.keep_values():`")
        return wrap(fbp_retain(self.nodes[i]))

    def numbers(self):
        """The values of nodes of one element; None for others and where there is no value."""
        cdef Py_ssize_t i
        cdef fbp_tensor *node
        result = []
        for i in range(self.size):
            node = self.nodes[i]
            result.append(read_element(node.data, node.dtype) if node.numel == 1 and self.has_value(node, i) else None)
        return result

    def slopes(self, const uint8_t[:] wanted):
        """Local derivatives of the edges between wanted nodes of one element each, by the op table's own rules.

        Parameters
        ----------
        wanted : bytes-like
            One byte a node.

        Returns
        -------
        list
            For each node None, or a tuple with a number or None for each input.
        """
        cdef Py_ssize_t i, to
        cdef uint32_t k
        cdef fbp_tensor *node
        cdef fbp_tensor *source
        cdef fbp_tensor *input
        cdef fbp_tensor *part
        cdef Tensor one = None
        result = []
        for i in range(self.size):
            node = self.nodes[i]
            if not wanted[i] or node.edge_count == 0 or node.numel != 1:
                result.append(None)
                continue
            if one is None or one.node.dtype != node.dtype or not fbp_same_shape(one.node, node):
                one = ones(shape_tuple(node), dtype=DTYPES[node.dtype])
            numbers = []
            source = self.reader(node)
            for k in range(source.edge_count):
                input = fbp_input(source, k)
                if input == NULL or input.numel != 1 or not fbp_requires_grad(input) or not wanted[<Py_ssize_t>self.places[<size_t>input]]:
                    numbers.append(None)
                    continue
                self.pull_edge(node, <int>k, one, True, &part)
                if part == NULL:
                    numbers.append(0.0)
                    continue
                numbers.append(read_element(part.data, part.dtype))
                fbp_release(part)
            result.append(tuple(numbers))
        return result

    def pull(self, Py_ssize_t i, int which, Tensor cotangent not None, bint fit=True):
        """What a cotangent of node i contributes to its input `which`: that one edge's transposed Jacobian times it.

        Parameters
        ----------
        fit : bool
            In the input's shape; else an elementwise op's is left as it was before the sum over what was broadcast.

        Returns
        -------
        Tensor or None
            None where the rule has nothing to contribute.
        """
        cdef fbp_tensor *node = self.at(i)
        cdef fbp_tensor *source = self.reader(node)
        cdef fbp_tensor *part
        if which < 0 or which >= <int>source.edge_count or fbp_input(source, which) == NULL:
            raise IndexError(f"node {i} has no input {which}")
        if not fbp_same_shape(cotangent.node, node) or cotangent.node.dtype != node.dtype:
            raise RuntimeError(f"pull: a cotangent of shape {shape_tuple(cotangent.node)} for a node of shape {shape_tuple(node)}")
        self.pull_edge(node, which, cotangent, fit, &part)
        return wrap(part) if part != NULL else None

    def apply(self, Py_ssize_t i, inputs, bint record=False):
        """Node i's op with its attributes on other inputs; recorded, and with every value kept, on request."""
        cdef fbp_tensor *node = self.at(i)
        cdef fbp_tensor *out
        cdef list operands = list(inputs)
        cdef fbp_tensor **array
        if node.edge_count == 0 or node.flags & FBP_HOST_RULE or len(operands) != <Py_ssize_t>node.edge_count:
            raise ValueError(f"node {i} is no op of {len(operands)} inputs")
        array = tensor_array(operands, len(operands))
        with make_switch(record), keep_values():
            status = fbp_apply(<fbp_op>node.op, <int>node.edge_count, array, fbp_attributes(node) if node.attribute_bytes else NULL,
                               node.attribute_bytes, &out)
        free_array(array, len(operands))
        check(status)
        return wrap(out)

    def revive(self, Py_ssize_t i, inputs):
        """Stand a node with the same op and inputs of these values in place of node i, whose saved values are gone."""
        cdef fbp_tensor *node = self.at(i)
        cdef Tensor fresh
        cdef list operands = []
        given = list(inputs)
        if len(given) != <Py_ssize_t>node.edge_count:
            raise ValueError(f"node {i} is no op of {len(given)} inputs")
        for k, x in enumerate(given):
            copy = x.detach() if x is not None else None
            if copy is not None and fbp_requires_grad(fbp_input(node, k)):
                copy.requires_grad_()
            operands.append(copy)
        fresh = self.apply(i, operands, True)
        for k in range(len(operands)):
            if operands[k] is not None:
                self.places[<size_t>(<Tensor>operands[k]).node] = self.places[<size_t>fbp_input(node, k)]
        fresh.node.references += 1
        self.nodes[i] = fresh.node
        self.places[<size_t>fresh.node] = i
        self.overwritten[i] = 0
        self.replaced.append(make_grad_fn(node))
        drop_node(node)
        return fresh.detach()

    def rule(self, Py_ssize_t i):
        """The rule of a "custom" node and which of its outputs the node is (-1: none, but what they share); None when it was released."""
        cdef fbp_tensor *node = self.at(i)
        cdef HostRule rule = rule_of(node)
        if rule is None or node.flags & FBP_RELEASED:
            return None
        if isinstance(rule, HostOutput):
            return (None if (<HostOutput>rule).hub.node.flags & FBP_RELEASED else ((<HostOutput>rule).hub, (<HostOutput>rule).which))
        return rule, -1 if rule.is_hub else 0

    cdef fbp_tensor *reader(self, fbp_tensor *node) except NULL:
        """The node with the inputs of `node`: itself, or the function's of which it is one of several outputs.

        An output's edge leads to what all outputs share, which has no value and no derivative to show.
        """
        rule = rule_of(node)
        return (<HostOutput>rule).hub.node if isinstance(rule, HostOutput) else node

    cdef int pull_edge(self, fbp_tensor *node, int which, Tensor cotangent, bint fit, fbp_tensor **out) except -1:
        """fbp_edge_pull(), of one of several outputs through the function's own rule."""
        cdef HostRule hub
        rule = rule_of(node)
        if not isinstance(rule, HostOutput):
            check(fbp_edge_pull(node, which, cotangent.node, fit, out))
            return 0
        hub = (<HostOutput>rule).hub
        if hub.node.flags & FBP_RELEASED:
            raise RuntimeError(f"explain: backward() has let go of what {hub.name()} saved; explain before it, or specify retain_graph=True")
        cotangents = [None] * hub.output_count
        cotangents[(<HostOutput>rule).which] = cotangent
        gradient = hub.pull(cotangents, False)[which]
        out[0] = fbp_retain((<Tensor>gradient).node) if gradient is not None else NULL
        return 0

    cdef fbp_tensor *at(self, Py_ssize_t i) except NULL:
        if i < 0 or i >= self.size:
            raise IndexError(f"the graph has {self.size} nodes, no node {i}")
        return self.nodes[i]

    cdef bint has_value(self, fbp_tensor *node, Py_ssize_t i) noexcept:
        return (node.storage != NULL and not node.storage.symbolic and not (<uint8_t *>self.overwritten)[i]
                and (node.edge_count == 0 or node.version == node.storage.version))


cdef void drop_node(fbp_tensor *node) noexcept:
    """Give back a reference that did not count for the elements."""
    node.value_references += 1
    fbp_release(node)


def _captured_costs(Capture capture not None, Py_ssize_t first=0):
    """Flops and bytes of the lines captured so far, from line `first` on, as a plan's `steps` count them."""
    cdef fbp_program *program = capture.program()
    cdef fbp_line_cost cost
    cdef Py_ssize_t i
    if first < 0:
        raise IndexError(f"lines are numbered from 0, not {first}")
    result = []
    for i in range(first, program.line_count):
        cost = fbp_line_cost_of(program, &program.lines[i])
        result.append((cost.flops, cost.bytes))
    return result
