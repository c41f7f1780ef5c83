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
    reached = [i for i in range(len(leaves)) if gradients[i] is not None and not (<Tensor>leaves[i]).node.flags & FBP_POINT_LEFT]
    plan.edges = []
    for i in reached:
        places = [k for k, point in enumerate(plan.points) if point is leaves[i]]
        if not places and (<Tensor>leaves[i]).node.storage.symbolic:
            raise RuntimeError("compile: the function returns tensors that depend on a leaf which it made itself (requires_grad_() inside); "
                               "pass that tensor in as an argument")
        plan.edges.append(("argument", places[0]) if places else ("tensor", leaves[i]))
    derivative = new_plan(cotangents + plan.symbols, cotangents + plan.points, [gradients[i] for i in reached], None)
    program.phase = 1
    for i in range(derivative.input_count):
        derivative.inputs[i] = real_buffer(program, (<Tensor>derivative.symbols[i]).node)
    for i in range(derivative.result_count):
        derivative.results[i].buffer = write_to_new(program, FBP_BUFFER_RESULT, (<Tensor>gradients[reached[i]]).node)
        derivative.results[i].like = layout_node((<Tensor>gradients[reached[i]]).node)
        derivative.outputs.append(("result", None))
    program.phase = 0
    add_states(derivative, source)
    if plan.check is not None:
        (<PlanCheck>plan.check).keep(program)
    check(fbp_program_reduce(program))
    check(fbp_program_fit_saved(program))
    plan.bytes_without, plan.budget_met = program.budget.without, program.budget.met
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
    if derivative.places == NULL:
        fbp_program_free(second)
        raise MemoryError("compile: cannot allocate the places of random numbers")
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
cdef class Sweep(HostRule):
    """One call of a function that was compiled with its derivative: what the reverse sweep needs of it."""

    cdef Plan plan
    cdef list given          # the arguments
    cdef Tensor block        # saved values
    cdef list versions       # of arguments and state when the function ran
    cdef list places
    cdef list likes          # shapes and dtypes of the differentiated results
    cdef Replay replayed     # in check mode: the function's lines were run in it

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
        self.versions = self.read_versions()  # after the function's own writes
        results = [made[i] for i in plan.differentiated]
        self.likes = [(tuple(x.shape), x.dtype) for x in results]
        for i, x in zip(plan.differentiated, self.attach(self.edges(), results)):
            made[i] = x
        return 0

    cdef list edges(self):
        return [self.given[x] if kind == "argument" else x for kind, x in self.plan.edges]

    cdef str name(self):
        return "CompiledBackward0"

    cdef void let_go(self) noexcept:
        HostRule.let_go(self)
        self.block = None
        self.given = None
        self.replayed = None

    cdef list whole(self, list cotangents):
        """With zeros where a result has no cotangent."""
        return [zeros(like[0], dtype=like[1]) if g is None else g for g, like in zip(cotangents, self.likes)]

    cdef list pull(self, list cotangents, bint create_graph):
        cotangents = self.whole(cotangents)
        if create_graph or builtin_any([fbp_is_batched((<Tensor>g).node) for g in cotangents]):
            return self.again(cotangents, create_graph)
        return self.sweep(cotangents)

    cdef list sweep(self, list cotangents):
        """Run the derivative for these cotangents."""
        cdef Plan plan = self.plan, derivative = self.plan.derivative
        cdef Py_ssize_t i
        if self.read_versions() != self.versions:
            raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation: an argument "
                               "or a parameter of a compiled function changed between its call and backward()")
        pieces = [g.detach().contiguous() for g in cotangents]
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
            gradients = derivative.prepare(pieces + self.given)
            status = derivative.execute()
            if status != FBP_OK:
                raise_status(status)
        finally:
            derivative.release()
        if self.replayed is not None:
            self.replayed.compare_derivative(derivative, pieces, gradients)
        return gradients

    cdef list run_eagerly(self, str wanted):
        """The differentiated results with a graph of single operations."""
        from fastbp import compiler
        if self.plan.written_inputs or self.places:
            raise RuntimeError(f"compile: {wanted} through a compiled function that draws random numbers or writes in place is not "
                               "supported; call the function itself")
        with make_switch(True):
            results = compiler.call_flat(self.plan.function, self.given)
        return [results[i] for i in self.plan.differentiated]

    cdef list again(self, list cotangents, bint create_graph):
        """The gradients as tensors that can be differentiated, or for cotangents that are a batch."""
        roots = self.run_eagerly("create_graph=True" if create_graph else "a batch of cotangents (vmap, jacrev)")
        with make_switch(True):
            return run_backward(roots, cotangents, True, create_graph, self.edges(), False, True)

    cdef list push(self, list tangents):
        with keep_values():
            roots = self.run_eagerly("forward mode")
        return push_again(roots, self.edges(), tangents)

    def replay(self):
        """The differentiated results, computed eagerly once more and recorded with every value kept."""
        if self.read_versions() != self.versions:
            raise RuntimeError("explain: an argument or a parameter of the compiled function has changed since its call; explain its result "
                               "before the parameters are updated")
        with keep_values():
            return self.run_eagerly("explain")


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
