# The derivative of a compiled function: a plan of its own, which the reverse sweep runs.

# ---- the derivative of a compiled function --------------------------------------------------------------------------------------------

cdef int add_derivative(Plan plan, Capture source, list cotangents, list gradients, list leaves) except -1:
    """Split what was captured into the function and its derivative, and plan the latter."""
    cdef fbp_capture *capture = source.capture
    cdef fbp_program *program = capture.program
    cdef fbp_program *second = NULL
    cdef Plan derivative
    cdef Py_ssize_t i
    cdef int64_t at = 0
    reached = [i for i in range(len(leaves)) if gradients[i] is not None]
    plan.edges = []
    for i in reached:
        places = [k for k, symbol in enumerate(plan.symbols) if symbol is leaves[i]]
        if not places and (<Tensor>leaves[i]).node.storage.symbolic:
            raise RuntimeError("compile: the function returns tensors that depend on a leaf which it made itself (requires_grad_() inside); "
                               "pass that tensor in as an argument")
        plan.edges.append(("argument", places[0]) if places else ("tensor", leaves[i]))
    derivative = new_plan(cotangents + plan.symbols, [gradients[i] for i in reached], [])
    program.phase = 1
    for i in range(derivative.input_count):
        derivative.inputs[i] = real_buffer(program, (<Tensor>derivative.symbols[i]).node)
    for i in range(derivative.result_count):
        derivative.results[i].buffer = write_to_new(program, FBP_BUFFER_RESULT, (<Tensor>gradients[reached[i]]).node)
        derivative.results[i].like = layout_node((<Tensor>gradients[reached[i]]).node)
        derivative.outputs.append(("result", None))
    program.phase = 0
    add_states(derivative, capture, program)
    check(fbp_program_reduce(program))
    cdef bytearray marks = bytearray(program.buffer_count)
    check(fbp_program_split(program, &second, <uint8_t *>marks))
    plan.saved = []
    for i in range(program.buffer_count):
        if marks[i]:
            plan.saved.append((i, at))
            at += (program.buffers[i].bytes + 63) // 64 * 64
    plan.saved_bytes = at
    # Its random lines take up the numbers of the function's.
    derivative.place_count = capture.generator_count
    derivative.places = <fbp_generator *>fbp_block_get((derivative.place_count + 1) * sizeof(fbp_generator))
    for i in range(second.draw_count):
        for k in range(capture.generator_count):
            if second.draws[i].generator == capture.generators[k].generator:
                second.draws[i].generator = &derivative.places[k]
    status = fbp_plan_new(second, 0, 0, &derivative.plan)
    if status != FBP_OK:
        fbp_program_free(second)
        check(status)
    note_written(derivative)
    plan.derivative = derivative
    return 0


@cython.final
cdef class Sweep:
    """One call of a function that was compiled with its derivative: what the reverse sweep needs of it."""

    cdef Plan plan
    cdef list given          # the arguments
    cdef list gradients      # of the present sweep, by edge
    cdef Tensor block        # saved values
    cdef fbp_tensor *cotangent  # that `gradients` belong to (held)
    cdef list versions       # of arguments and state when the function ran
    cdef list places
    cdef list results        # layouts of the differentiated results
    cdef list pieces         # offsets in elements of the results in a shared node, None for a single one
    cdef object sizes

    def __dealloc__(self):
        if self.cotangent != NULL:
            fbp_release(self.cotangent)

    cdef list read_versions(self):
        cdef Py_ssize_t i
        cdef Plan derivative = self.plan.derivative
        cdef list versions = [(<Tensor>x).node.storage.version for x in self.given]
        for i in range(derivative.state_count):
            versions.append((<Tensor>derivative.state_tensors[i]).node.storage.version)
        return versions

    cdef int record(self, list made) except -1:
        """Give the results their history."""
        cdef Plan plan = self.plan
        cdef list edges = []
        cdef fbp_tensor *node
        cdef fbp_tensor **inputs
        cdef Tensor flat, first
        self.versions = self.read_versions()  # after the function's own writes
        for kind, x in plan.edges:
            edges.append(self.given[x] if kind == "argument" else x)
        results = [made[i] for i in plan.differentiated]
        first = results[0]
        self.sizes = [x.numel() for x in results]
        if len(results) > 1:
            for x in results:
                if x.dtype is not first.dtype:
                    raise RuntimeError("compile: results that require grad must have one dtype; cast them in the function, or return them "
                                       "from two functions")
            with make_switch(False):
                flat = cat([x.reshape(-1) for x in results])
        else:
            flat = first
        inputs = tensor_array(edges, len(edges))
        Py_INCREF(self)
        status = fbp_host_node(<void *>self, <int>len(edges), inputs, flat.node, &node)
        free_array(inputs, len(edges))
        if status != FBP_OK:
            Py_DECREF(self)
            raise_status(status)
        whole = wrap(node)
        if len(results) == 1:
            made[plan.differentiated[0]] = whole
            return 0
        start = 0
        for i, x, size in zip(plan.differentiated, results, self.sizes):
            made[i] = whole[start:start + size].reshape(x.shape).clone()  # no views of one another
            start += size
        return 0

    cdef int sweep(self, fbp_tensor *cotangent) except -1:
        """Run the derivative for this cotangent."""
        cdef Plan plan = self.plan, derivative = self.plan.derivative
        cdef Py_ssize_t i
        cdef Tensor whole
        if self.read_versions() != self.versions:
            raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation: an argument "
                               "or a parameter of a compiled function changed between its call and backward()")
        whole = wrap(fbp_retain(cotangent))
        whole = whole.detach().contiguous()
        pieces = [whole] if len(self.sizes) == 1 else list(whole.reshape(-1).split(self.sizes))
        derivative.acquire()
        try:
            for i in range(derivative.state_count):
                state = <Tensor>derivative.state_tensors[i]
                if (<Tensor>state).node != derivative.states[i].node and not derivative.follow(i, (<Tensor>state).node):
                    raise RuntimeError("compile: a parameter of the function was replaced by one of another shape before backward()")
            for i, x in enumerate(self.places):
                derivative.places[i].seed, derivative.places[i].offset = x
            for buffer, at in plan.saved:
                fbp_plan_bind(derivative.plan, buffer, self.block.node.data + <int64_t>at)
            self.gradients = derivative.prepare(pieces + self.given)
            status = derivative.execute()
            if status != FBP_OK:
                raise_status(status)
        finally:
            derivative.release()
        if self.cotangent != NULL:
            fbp_release(self.cotangent)
        self.cotangent = fbp_retain(cotangent)
        return 0

    def again(self, cotangent):
        """The gradients as tensors that can be differentiated: the function is run eagerly once more."""
        from fastbp import compiler
        if self.plan.written_inputs or self.places:
            raise RuntimeError("compile: create_graph=True through a compiled function that draws random numbers or writes in place is not "
                               "supported; call the function itself")
        edges = [self.given[x] if kind == "argument" else x for kind, x in self.plan.edges]
        pieces = [cotangent] if len(self.sizes) == 1 else list(cotangent.reshape(-1).split(self.sizes))
        with make_switch(True):
            results = compiler.call_flat(self.plan.function, self.given)
            roots = [results[i] for i in self.plan.differentiated]
            pieces = [piece.reshape(root.shape) for piece, root in zip(pieces, roots)]
            return list(grad(roots, edges, pieces, create_graph=True, allow_unused=True))

    def replay(self):
        """The value of the node that this belongs to, computed eagerly once more and recorded with every value kept."""
        from fastbp import compiler
        if self.plan.written_inputs or self.places:
            raise RuntimeError("explain: a compiled function that draws random numbers or writes in place cannot be run again for its graph; "
                               "explain a result of the function itself")
        if self.read_versions() != self.versions:
            raise RuntimeError("explain: an argument or a parameter of the compiled function has changed since its call; explain its result "
                               "before the parameters are updated")
        with make_switch(True), keep_values():
            results = compiler.call_flat(self.plan.function, self.given)
            roots = [results[i] for i in self.plan.differentiated]
            return roots[0] if len(roots) == 1 else cat([root.reshape(-1) for root in roots])


cdef Sweep begin_sweep(Plan plan, list given):
    """Before the run: memory for what is saved, and where random numbers begin."""
    cdef Sweep sweep = Sweep.__new__(Sweep)
    cdef Py_ssize_t i
    sweep.plan, sweep.given = plan, given
    if plan.saved:
        sweep.block = empty(plan.saved_bytes, dtype=uint8)
        for buffer, at in plan.saved:
            fbp_plan_bind(plan.plan, buffer, sweep.block.node.data + <int64_t>at)
    sweep.places = []
    for i in range(plan.derivative.place_count):
        sweep.places.append((plan.plan.draws[i].generator.seed, plan.plan.draws[i].generator.offset))
    return sweep


cdef fbp_status pull_compiled(void *object, int which, fbp_tensor *cotangent, bint create_graph, bint last, fbp_tensor **out) noexcept with gil:
    """The core's callback: the cotangent of one input of a compiled function."""
    global pending_error
    cdef Sweep sweep
    try:
        sweep = <Sweep>object
        if create_graph:
            if sweep.cotangent != cotangent:
                sweep.gradients = sweep.again(wrap(fbp_retain(cotangent)))
                if sweep.cotangent != NULL:
                    fbp_release(sweep.cotangent)
                sweep.cotangent = fbp_retain(cotangent)
        elif sweep.cotangent != cotangent:
            sweep.sweep(cotangent)
        gradient = sweep.gradients[which]
        out[0] = fbp_retain((<Tensor>gradient).node) if gradient is not None else NULL
        sweep.gradients[which] = None  # its only holder is the sweep now, which may then add in place
        if last:
            fbp_release(sweep.cotangent)
            sweep.cotangent = NULL
            sweep.gradients = None
        return FBP_OK
    except BaseException as error:
        pending_error = error
        return FBP_ERROR_CALLBACK


fbp_host_pull = pull_compiled
