# The derivative of a compiled function: a plan of its own, which the reverse sweep runs.

# ---- the derivative of a compiled function --------------------------------------------------------------------------------------------

cdef int add_derivative(Plan plan, Capture source, list cotangents, list gradients, list leaves) except -1:
    """Split what was captured into the function and its derivative, and plan the latter."""
    cdef fbp_capture *capture = source.capture
    cdef fbp_program *program = capture.program
    cdef Plan outline
    cdef Derivatives derivatives
    cdef Py_ssize_t i
    reached = [i for i in range(len(leaves)) if gradients[i] is not None and not (<Tensor>leaves[i]).node.flags & FBP_POINT_LEFT]
    plan.edges = []
    for i in reached:
        places = [k for k, point in enumerate(plan.points) if point is leaves[i]]
        if not places and (<Tensor>leaves[i]).node.storage.symbolic:
            raise RunEagerly("it returns tensors that depend on a leaf which it made itself (requires_grad_() inside)")
        plan.edges.append(("argument", places[0]) if places else ("tensor", leaves[i]))
    outline = new_plan(cotangents + plan.symbols, cotangents + plan.points, [gradients[i] for i in reached], None)
    program.phase = 1
    for i in range(outline.input_count):
        outline.inputs[i] = real_buffer(program, (<Tensor>outline.symbols[i]).node)
    for i in range(outline.result_count):
        outline.results[i].buffer = write_to_new(program, FBP_BUFFER_RESULT, (<Tensor>gradients[reached[i]]).node)
        outline.results[i].like = layout_node((<Tensor>gradients[reached[i]]).node)
        outline.outputs.append(("result", None))
    program.phase = 0
    add_states(outline, source)
    if plan.check is not None:
        (<PlanCheck>plan.check).keep(program)
    check(fbp_program_reduce(program))
    check(fbp_program_fit_saved(program))
    plan.bytes_without, plan.budget_met = program.budget.without, program.budget.met
    derivatives = Derivatives.__new__(Derivatives)
    derivatives.outline, derivatives.count, derivatives.made = outline, len(cotangents), {}
    derivatives.generators = [<size_t>capture.generators[i].generator for i in range(capture.generator_count)]
    if len(cotangents) > 1:
        check(fbp_program_copy(program, -1, &derivatives.program))
        plan.derivatives = derivatives
    plan.derivative = derivatives.plan_of(program, ())
    plan.saved, plan.saved_bytes = plan.derivative.saved, derivatives.saved_bytes
    return 0


@cython.binding(False)
cdef class Derivatives:
    """What plans of a function's derivative are made of: one for all cotangents, and one for each set of them that a call leaves out.

    They read the same saved values, and none writes what is absent: a sweep that does not reach a result runs none of its rules.
    """

    cdef fbp_program *program      # the function and its derivative before they are split; NULL where there is one cotangent
    cdef Plan outline              # what the plans have in common, without lines
    cdef Py_ssize_t count          # of cotangents: the first inputs
    cdef list generators           # addresses
    cdef dict places               # where each saved buffer lies in the block; set by the first plan
    cdef int64_t saved_bytes
    cdef dict made                 # the latest plans, by numbers of the absent cotangents

    def __dealloc__(self):
        fbp_program_free(self.program)

    cdef Plan without(self, tuple absent):
        """The plan for calls that leave out these cotangents."""
        cdef fbp_program *program = NULL
        cdef Plan found = self.made.get(absent)
        if found is not None:
            return found
        check(fbp_program_copy(self.program, -1, &program))
        try:
            found = self.plan_of(program, absent)
        finally:
            fbp_program_free(program)
        if len(self.made) >= ABSENT_SETS_MOST:
            self.made.pop(next(iter(self.made)))
        self.made[absent] = found
        return found

    cdef Plan plan_of(self, fbp_program *program, tuple absent):
        """Take the derivative out of `program`, which becomes the function's part."""
        cdef fbp_program *second = NULL
        cdef Plan derivative = self.copied_outline()
        cdef bytearray marks = bytearray(program.buffer_count)
        cdef fbp_status status
        cdef Py_ssize_t i
        if self.count > 1:
            for i in range(self.count):
                marks[derivative.inputs[i]] = FBP_COTANGENT_ABSENT if i in absent else FBP_COTANGENT_PRESENT
            check(fbp_program_drop_absent(program, <uint8_t *>marks))
            marks = bytearray(program.buffer_count)
        check(fbp_program_split(program, &second, <uint8_t *>marks))
        try:
            self.take_saved(derivative, program, marks)
            self.take_places(derivative, second)
            status = fbp_plan_new(second, 0, 0, &derivative.plan)
            if status != FBP_OK:
                check(status)
        except BaseException:
            if derivative.plan == NULL:
                fbp_program_free(second)
            raise
        note_written(derivative)
        self.note_touched(derivative, absent)
        return derivative

    cdef Plan copied_outline(self):
        """A plan without lines of its own."""
        cdef Plan outline = self.outline
        cdef Plan made = new_plan(outline.symbols, outline.points, outline.outputs, None)
        cdef Py_ssize_t i
        made.outputs, made.state_tensors = outline.outputs, outline.state_tensors
        for i in range(made.input_count):
            made.inputs[i] = outline.inputs[i]
        for i in range(made.result_count):
            made.results[i] = result_slot(outline.results[i].buffer, fbp_retain(outline.results[i].like))
        made.state_bytes = outline.state_bytes
        made.states = <state_slot *>fbp_block_get(made.state_bytes)
        if made.states == NULL:
            raise MemoryError("cannot allocate a plan")
        for i in range(outline.state_count):
            made.states[i] = outline.states[i]
            fbp_retain(made.states[i].node)
            made.state_count += 1
        return made

    cdef int take_saved(self, Plan derivative, fbp_program *program, bytearray marks) except -1:
        """Where in the block it finds what the function saves: the first plan says what that is, the others read some of it."""
        cdef Py_ssize_t i
        cdef bint first = self.places is None
        if first:
            self.places = {}
        derivative.saved = []
        for i in range(len(marks)):
            if not marks[i]:
                continue
            if first:
                self.places[i] = self.saved_bytes
                self.saved_bytes += (program.buffers[i].bytes + 63) // 64 * 64
            elif i not in self.places:
                raise RuntimeError("compile: a derivative for some of the results reads a value that the function does not save; please report it")
            derivative.saved.append((i, self.places[i]))
        return 0

    cdef int take_places(self, Plan derivative, fbp_program *program) except -1:
        """Its random lines take up the numbers of the function's."""
        cdef Py_ssize_t i
        derivative.place_count = len(self.generators)
        derivative.places = <fbp_generator *>fbp_block_get((derivative.place_count + 1) * sizeof(fbp_generator))
        if derivative.places == NULL:
            raise MemoryError("compile: cannot allocate the places of random numbers")
        for i in range(program.draw_count):
            if <size_t>program.draws[i].generator in self.generators:
                program.draws[i].generator = &derivative.places[<Py_ssize_t>self.generators.index(<size_t>program.draws[i].generator)]
        return 0

    cdef int note_touched(self, Plan derivative, tuple absent) except -1:
        """Which gradients it makes, which arguments and state it reads."""
        cdef fbp_program *program = derivative.plan.program
        cdef bytearray written = bytearray(program.buffer_count)
        cdef bytearray touched = bytearray(program.buffer_count)
        cdef written_marks w = written_marks(program, <uint8_t *>written)
        cdef touched_marks t = touched_marks(program, <uint8_t *>touched)
        cdef Py_ssize_t i, given = derivative.input_count - self.count
        for i in range(program.line_count):
            fbp_line_touch(program, &program.lines[i], mark_written, &w)
            fbp_line_touch(program, &program.lines[i], mark_touched, &t)
        for i in range(derivative.result_count):
            if not written[derivative.results[i].buffer]:
                derivative.results[i].buffer = -1  # nothing reaches it
        derivative.watched = [i for i in range(given) if touched[derivative.inputs[self.count + i]]]
        derivative.watched += [given + i for i in range(derivative.state_count) if touched[derivative.states[i].buffer]]
        for i in absent:
            derivative.inputs[i] = -1
        return 0


cdef int ABSENT_SETS_MOST = 8


# ---- its run --------------------------------------------------------------------------------------------------------------------------

cdef struct held_tensor:
    fbp_tensor *node     # of an argument or a state when the function ran (held)
    uint32_t version     # of its elements then, after the function's own writes


@cython.final
@cython.binding(False)
cdef class HeldTensors:
    """The arguments of a call, then the plan's state, as they were when the function ran.

    A sweep holds it while it runs, though another thread's lets go of what the call saved.
    """

    cdef held_tensor *items
    cdef Py_ssize_t count, capacity

    def __cinit__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.items = <held_tensor *>fbp_block_get((capacity + 1) * sizeof(held_tensor))
        if self.items == NULL:
            raise MemoryError("cannot allocate what a derivative reads")

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.items != NULL:
            for i in range(self.count):
                fbp_release(self.items[i].node)
            fbp_block_free(self.items, (self.capacity + 1) * sizeof(held_tensor))

    cdef void add(self, fbp_tensor *node) noexcept:
        self.items[self.count].node = fbp_retain(node)
        self.count += 1


@cython.final
@cython.binding(False)
cdef class Sweep(HostRule):
    """One call of a function that was compiled with its derivative: what the reverse sweep needs of it."""

    cdef Plan plan
    cdef list given          # the arguments
    cdef Tensor block        # saved values
    cdef HeldTensors held    # None: let go of
    cdef list places
    cdef Replay replayed     # in check mode: the function's lines were run in it

    cdef void begin(self, Replay replay) noexcept:
        """The plan is bound, and about to run: hold what it runs on, since tensors may come to stand for other elements before backward()."""
        cdef Plan plan = self.plan
        cdef Py_ssize_t i
        self.replayed = replay
        for i in range(plan.input_count):
            self.held.add(plan.taken[i])
        for i in range(plan.state_count):
            self.held.add(plan.states[i].node)
        for i in range(len(plan.saved) if self.block is not None else 0):
            fbp_plan_bind(plan.plan, <int32_t>(<tuple>plan.saved[i])[0], self.block.node.data + <int64_t>(<tuple>plan.saved[i])[1])

    cdef int note_places(self) except -1:
        """The run is over: where its random numbers began."""
        cdef fbp_draw_slot *draws = self.plan.plan.draws
        cdef Py_ssize_t i
        for i in range(self.plan.derivative.place_count):
            self.places.append((draws[i].place.seed, draws[i].place.offset))
        return 0

    cdef bint is_unchanged(self):
        """Whether all that the function ran on is what it was, and found where it was."""
        cdef Py_ssize_t i, count = self.plan.input_count
        cdef HeldTensors held = self.held
        cdef fbp_tensor *now
        for i in range(held.count if held is not None else 0):
            now = (<Tensor>self.given[i]).node if i < count else (<Tensor>self.plan.state_tensors[i - count]).node
            if now != held.items[i].node or now.storage.version != held.items[i].version:
                return False
        return held is not None

    cdef int record(self, list made) except -1:
        """Give the results their history."""
        cdef Plan plan = self.plan
        cdef Py_ssize_t i
        for i in range(self.held.count):
            self.held.items[i].version = self.held.items[i].node.storage.version
        results = [made[i] for i in plan.differentiated]
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
        self.held = None
        self.replayed = None

    cdef list pull(self, list cotangents, bint create_graph):
        cdef tuple absent
        if create_graph or fbp_mode_get().capture != NULL or builtin_any([g is not None and fbp_is_batched((<Tensor>g).node) for g in cotangents]):
            return self.again(cotangents, create_graph, "create_graph=True" if create_graph else "a batch of cotangents (vmap, jacrev), or a capture,")
        absent = tuple([i for i, g in enumerate(cotangents) if g is None])
        if absent and self.plan.asks_absent:
            return self.again(cotangents, False, "a Function that asks which of its outputs are used (set_materialize_grads(False))")
        return self.sweep(cotangents, self.plan.derivatives.without(absent) if absent else self.plan.derivative)

    cdef list sweep(self, list cotangents, Plan derivative):
        """Run the derivative for these cotangents."""
        cdef Py_ssize_t i, k, count = self.plan.input_count, first = len(cotangents)
        # Another thread may sweep the same graph, and let go of what was saved.
        cdef HeldTensors held = self.held
        cdef Tensor block = self.block
        cdef Replay replayed = self.replayed
        cdef list made
        if held is None:
            raise RuntimeError("Trying to backward through the graph a second time: the values that a compiled function saved have been freed. "
                               "Specify retain_graph=True in the first backward() if you need to go through it again")
        pieces = [None if g is None else g.detach().contiguous() for g in cotangents]
        if not derivative.acquire():
            raise RuntimeError("compile: the backward of a compiled function is called by its own run")
        try:
            made = derivative.make_results()
            for k in derivative.watched:
                if held.items[k].node.storage.version != held.items[k].version:
                    raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation: an "
                                       "argument or a parameter of a compiled function changed between its call and backward()")
                i = k - count
                if i >= 0 and held.items[k].node != derivative.states[i].node and not derivative.follow(i, held.items[k].node):
                    raise RuntimeError("compile: a parameter of the function was replaced by one of another shape before backward()")
            for i, x in enumerate(self.places):
                derivative.places[i].seed, derivative.places[i].offset = x
            for buffer, at in derivative.saved:
                fbp_plan_bind(derivative.plan, buffer, block.node.data + <int64_t>at)
            for i in range(first):
                if derivative.inputs[i] >= 0:
                    fbp_plan_bind(derivative.plan, derivative.inputs[i], (<Tensor>pieces[i]).node.data)
            for i in range(count):  # as they were
                if derivative.inputs[first + i] >= 0:
                    fbp_plan_bind(derivative.plan, derivative.inputs[first + i], held.items[i].node.data)
            for i in range(derivative.result_count):
                if derivative.results[i].buffer >= 0:
                    fbp_plan_bind(derivative.plan, derivative.results[i].buffer, (<Tensor>made[i]).node.data)
            status = derivative.execute()
            if status != FBP_OK:
                raise_status(status)
        finally:
            derivative.release()
        if replayed is not None:
            self.compare(replayed, pieces, made)
        return made

    cdef int compare(self, Replay replay, list cotangents, list gradients) except -1:
        """FASTBP_CHECK: hold the gradients to the captured program."""
        cdef Plan derivative = self.plan.derivative
        cdef bytearray marks = bytearray(replay.owner.program.buffer_count)
        cdef Py_ssize_t i
        for i, g in enumerate(cotangents):
            marks[derivative.inputs[i]] = FBP_COTANGENT_ABSENT if g is None else FBP_COTANGENT_PRESENT
        if None in [None if g is None else 0 for g in cotangents]:
            replay = replay.without(<uint8_t *>marks)
        return replay.compare_derivative(derivative, cotangents, gradients)

    cdef list run_eagerly(self, str wanted):
        """The differentiated results with a graph of single operations."""
        cdef Py_ssize_t i
        cdef bint once = len(self.plan.written_inputs) > 0 or len(self.places) > 0
        for i in range(self.plan.state_count):
            once |= self.plan.states[i].written
        from fastbp import compiler
        if once:
            raise RuntimeError(f"compile: {wanted} through a compiled function that draws random numbers or writes in place is not "
                               "supported; call the function itself")
        if not self.is_unchanged():
            raise RuntimeError(f"compile: {wanted} through a compiled function runs it once more, and an argument or a parameter has changed "
                               "since its call; do it before they change, or call the function itself")
        with make_switch(self.plan.grad_enabled):
            results = compiler.call_flat(self.plan.function, self.given)
        return [results[i] for i in self.plan.differentiated]

    cdef list again(self, list cotangents, bint create_graph, str why):
        """The gradients from eager code: as tensors that can be differentiated, or for cotangents that no plan can take."""
        roots = self.run_eagerly(why)
        known = [(y, g) for y, g in zip(roots, cotangents) if g is not None]
        with make_switch(True):
            return run_backward([y for y, _ in known], [g for _, g in known], True, create_graph, self.edges(), False, True)

    cdef list push(self, list tangents):
        with keep_values():
            roots = self.run_eagerly("forward mode")
        return push_again(roots, self.edges(), tangents)

    def replay(self):
        """The differentiated results, computed eagerly once more and recorded with every value kept."""
        with keep_values():
            return self.run_eagerly("explain")


cdef int refuse_inner(Tensor x, str wanted, object roots) except -1:
    """RuntimeError where x is a result of a compiled call from which another one was computed, by which `wanted` would have to go.

    roots: of the sweep that is about to begin; None: any sweep may come.
    """
    cdef HostRule rule = rule_of(x.node)
    cdef HostOutput output
    cdef Sweep sweep
    if not isinstance(rule, HostOutput) or not isinstance((<HostOutput>rule).hub, Sweep):
        return 0
    output, sweep = <HostOutput>rule, <Sweep>(<HostOutput>rule).hub
    others = sweep.plan.depending[output.which]
    if not others or roots is not None and not reaches_output(roots, sweep, others):
        return 0
    raise RuntimeError(f"compile: {wanted} of a result of a compiled function from which another of its results was computed: the results of "
                       "one call are outputs of one node, and no gradient goes from one to another. Compute the gradient inside of the "
                       "compiled function, compute the other result from this one outside of it, or call the function itself")


cdef bint reaches_output(object roots, Sweep sweep, list numbers) except -1:
    """Whether a sweep from `roots` comes by one of these outputs of a call."""
    cdef fbp_node_list found
    cdef fbp_tensor **array = tensor_array(roots, len(roots))
    cdef int64_t i
    cdef bint result = False
    memset(&found, 0, sizeof(found))
    status = fbp_walk(<int>len(roots), array, True, 0, &found)
    for i in range(found.count):
        rule = rule_of(found.nodes[i])
        if isinstance(rule, HostOutput) and (<HostOutput>rule).hub is sweep and (<HostOutput>rule).which in numbers:
            result = True
    fbp_walk_end(&found)
    free_array(array, len(roots))
    check(status)
    return result


cdef Sweep new_sweep(Plan plan, list given):
    """Before the run: memory for what is saved."""
    cdef Sweep sweep = Sweep.__new__(Sweep)
    sweep.plan, sweep.given, sweep.places = plan, given, []
    sweep.held = HeldTensors.__new__(HeldTensors, plan.input_count + plan.state_count)
    if plan.saved:
        sweep.block = empty(plan.saved_bytes, dtype=uint8)
    return sweep
