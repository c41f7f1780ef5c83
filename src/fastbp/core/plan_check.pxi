# FASTBP_CHECK=1: each call of a plan against the captured program, run on memory of its own that is filled from the world as it is at the call.

cdef extern from "exec/replay.h" nogil:
    ctypedef struct fbp_discrepancy:
        double difference, allowed
    fbp_discrepancy fbp_elements_compare(int dtype, int64_t n, const char *a, const char *b, double scale)
    ctypedef struct fbp_replay:
        char **memory
        double *scales
        fbp_generator *places
        fbp_update_slot *updates
        int64_t **steps
    fbp_status fbp_replay_program(const fbp_program *captured, fbp_program **out)
    fbp_status fbp_replay_new(const fbp_program *program, int32_t update_count, fbp_replay **out)
    void fbp_replay_free(fbp_replay *replay)
    fbp_status fbp_replay_fill(fbp_replay *replay, int32_t buffer, int64_t offset, const fbp_tensor *t)
    fbp_status fbp_replay_set(fbp_replay *replay, int32_t value, const fbp_tensor *t)
    fbp_status fbp_replay_compare(const fbp_replay *replay, int32_t buffer, int64_t offset, const fbp_tensor *like, const fbp_tensor *found,
                                  const char *what)
    fbp_status fbp_replay_compare_value(const fbp_replay *replay, int32_t value, const fbp_tensor *found, const char *what)

cdef extern from "exec/replay.h":
    fbp_status fbp_replay_run(fbp_replay *replay, int phase)

# Inputs of an UPDATE line a parameter: it, its gradient, and the state of these names.
cdef dict UPDATE_STATE = {"adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), "sgd": ("momentum_buffer",)}


@cython.final
@cython.binding(False)
cdef class Replay:
    """One call, computed line by line on memory of its own."""

    cdef fbp_replay *replay
    cdef PlanCheck owner   # whose program it runs
    cdef list given
    cdef list steps        # arrays of int64 under replay.steps
    cdef dict done         # (id of optimizer, id of parameter) -> (optimizer, parameter, kind, steps after the call, values of its state)

    def __dealloc__(self):
        fbp_replay_free(self.replay)

    cdef int compare_derivative(self, Plan derivative, list cotangents, list gradients) except -1:
        """Run the derivative for these cotangents, on the values of this call, and hold what the plan gave to it."""
        cdef Py_ssize_t i
        for i in range(len(cotangents)):
            if cotangents[i] is not None:
                check(fbp_replay_fill(self.replay, derivative.inputs[i], 0, (<Tensor>cotangents[i]).node))
        check(fbp_replay_run(self.replay, 1))
        for i in range(derivative.result_count):
            if gradients[i] is not None:
                check(fbp_replay_compare(self.replay, derivative.results[i].buffer, 0, derivative.results[i].like, (<Tensor>gradients[i]).node,
                                         f"gradient {i} of a compiled function's derivative".encode()))
        return 0

    cdef Replay without(self, const uint8_t *cotangents):
        """The same call with a derivative that leaves out the absent ones among its cotangents (fbp_program_drop_absent)."""
        cdef Replay made = Replay.__new__(Replay)
        cdef PlanCheck owner = PlanCheck.__new__(PlanCheck)
        cdef fbp_program *program = self.owner.program
        cdef Py_ssize_t i
        made.owner = owner
        check(fbp_program_copy(program, -1, &owner.program))
        check(fbp_program_drop_absent(owner.program, cotangents))
        check(fbp_replay_new(owner.program, 0, &made.replay))
        for i in range(program.buffer_count):
            if program.buffers[i].bytes > 0:
                memcpy(made.replay.memory[i], self.replay.memory[i], program.buffers[i].bytes)
            made.replay.scales[i] = self.replay.scales[i]
        for i in range(program.draw_count):
            made.replay.places[i] = self.replay.places[i]
        return made


@cython.final
@cython.binding(False)
cdef class PlanCheck:
    """What a plan's calls are held to: the program before its first pass, and where in it the world's tensors stand."""

    cdef fbp_program *program
    cdef list updates      # an UPDATE line each: (optimizer, parameters, "adam" or "sgd")
    cdef list states       # a state of the plan each: its offset in its buffer
    cdef list gradients    # (number of a leaf, buffer, offset): gradients that were there before the call
    cdef list views        # (number of an output, buffer, offset): views of outside memory that the function made

    def __dealloc__(self):
        fbp_program_free(self.program)

    cdef int keep(self, const fbp_program *captured) except -1:
        """To be called when all lines are there and no pass has run."""
        check(fbp_replay_program(captured, &self.program))
        return 0

    # ---- before a run --------------------------------------------------------------------------------------------------------

    cdef Replay begin(self, Plan plan, list given):
        """Look at the world and compute what the call must come to; the plan must not have run yet."""
        cdef Replay made = Replay.__new__(Replay)
        cdef Py_ssize_t i
        cdef fbp_tensor *gradient
        made.owner, made.given, made.steps, made.done = self, given, [], {}
        if plan.numbers is not None:
            plan.numbers.begin()
        check(fbp_replay_new(self.program, <int32_t>len(self.updates), &made.replay))
        for i in range(plan.input_count):
            if plan.inputs[i] >= 0:
                check(fbp_replay_fill(made.replay, plan.inputs[i], 0, (<Tensor>given[i]).node))
        for i, offset in enumerate(self.states):
            check(fbp_replay_fill(made.replay, plan.states[i].buffer, offset, (<Tensor>plan.state_tensors[i]).node))
        for i, buffer, offset in self.gradients:
            gradient = gradient_of(plan.leaf(i, given))
            if gradient != NULL:
                check(fbp_replay_fill(made.replay, buffer, offset, gradient))
        for i in range(len(self.updates)):
            self.begin_update(plan, made, i)
        check(fbp_replay_run(made.replay, 0))
        return made

    cdef fbp_line *update_line(self, Py_ssize_t slot) except NULL:
        cdef Py_ssize_t i
        for i in range(self.program.line_count):
            if self.program.lines[i].kind == FBP_LINE_UPDATE and self.program.lines[i].slot == slot:
                return &self.program.lines[i]
        raise RuntimeError("FASTBP_CHECK: an optimizer's step has no line")

    cdef int begin_update(self, Plan plan, Replay made, Py_ssize_t slot) except -1:
        """One UPDATE line: its numbers, and the state of its parameters, from the optimizer's own dicts."""
        cdef fbp_line *line = self.update_line(slot)
        cdef int64_t[::1] steps
        optimizer, params, kind = self.updates[slot]
        made.steps.append(array_of_int64(len(params)))
        steps = made.steps[len(made.steps) - 1]
        made.replay.steps[slot] = &steps[0]
        (<UpdateLink>plan.updates[slot]).read_options(&made.replay.updates[slot])
        for i, parameter in enumerate(params):
            entry = optimizer.state.get(parameter)
            values = []
            for k, name in enumerate(UPDATE_STATE[kind]):
                value = line.inputs[5 * <Py_ssize_t>i + 2 + <Py_ssize_t>k]
                if value >= 0:
                    values.append((name, value))
            key = (id(optimizer), id(parameter))
            if key in made.done:
                before = made.done[key][3]
            else:
                before = steps_before(entry, kind)
                for name, value in values:
                    stands = entry.get(name) if entry is not None else None
                    check(fbp_replay_set(made.replay, value, (<Tensor?>stands).node if stands is not None else NULL))
            steps[i] = before
            made.done[key] = (optimizer, parameter, kind, before + 1, values)
        return 0

    # ---- after a run ------------------------------------------------------------------------------------------------------------

    cdef int finish(self, Plan plan, Replay replay, list given, list made) except -1:
        """Hold all that is seen after the call to the replay: RuntimeError names the first that differs."""
        cdef Py_ssize_t i
        for i in range(plan.result_count):
            if plan.results[i].buffer >= 0:
                check(fbp_replay_compare(replay.replay, plan.results[i].buffer, 0, plan.results[i].like, (<Tensor>made[i]).node,
                                         f"result {i}".encode()))
        for i, buffer, offset in self.views:
            if made[i] is not None:
                check(fbp_replay_compare(replay.replay, buffer, offset, (<Tensor>made[i]).node, (<Tensor>made[i]).node,
                                         f"result {i}, a view of a tensor from outside".encode()))
        for i in range(plan.input_count):
            if plan.inputs[i] >= 0:
                check(fbp_replay_compare(replay.replay, plan.inputs[i], 0, (<Tensor>given[i]).node, (<Tensor>given[i]).node,
                                         f"argument {i}, as it is after the call".encode()))
        for i, offset in enumerate(self.states):
            check(fbp_replay_compare(replay.replay, plan.states[i].buffer, offset, (<Tensor>plan.state_tensors[i]).node,
                                     (<Tensor>plan.state_tensors[i]).node, f"state {i}, a tensor from outside".encode()))
        self.compare_gradients(plan, replay, given)
        self.compare_updates(replay)
        return 0

    cdef int compare_gradients(self, Plan plan, Replay replay, list given) except -1:
        cdef Py_ssize_t i
        cdef fbp_tensor *gradient
        accumulated = {i: (buffer, offset) for i, buffer, offset in self.gradients}
        for i in range(plan.leaf_count):
            gradient = gradient_of(plan.leaf(i, given))
            what = f"the gradient of leaf {i}"
            if (gradient != NULL) != (plan.leaves[i].gradient >= 0) and plan.leaves[i].gradient != -1:
                raise RuntimeError(f"FASTBP_CHECK: {what} is {'None' if gradient == NULL else 'a tensor'}, and not after the function")
            if gradient == NULL:
                continue
            if plan.leaves[i].gradient >= 0:
                check(fbp_replay_compare(replay.replay, plan.leaves[i].gradient, 0, NULL, gradient, what.encode()))
            elif plan.leaves[i].old >= 0 and i in accumulated:
                buffer, offset = accumulated[i]
                check(fbp_replay_compare(replay.replay, buffer, offset, gradient, gradient, what.encode()))
        return 0

    cdef int compare_updates(self, Replay replay) except -1:
        for optimizer, parameter, kind, steps, values in replay.done.values():
            entry = optimizer.state.get(parameter)
            what = f"of a parameter of shape {tuple(parameter.shape)} in the state of {type(optimizer).__name__}"
            if kind == "adam" and (entry is None or step_number(entry.get("step", 0)) != steps):
                raise RuntimeError(f"FASTBP_CHECK: 'step' {what} is {None if entry is None else entry.get('step')}; the function gives {steps}")
            for name, value in values:
                stands = entry.get(name) if entry is not None else None
                if not isinstance(stands, Tensor):
                    raise RuntimeError(f"FASTBP_CHECK: {name!r} {what} is not there after the call")
                check(fbp_replay_compare_value(replay.replay, value, (<Tensor>stands).node, f"{name!r} {what}".encode()))
        return 0


cdef inline fbp_tensor *gradient_of(const fbp_tensor *leaf) noexcept:
    return leaf.autograd.gradient if leaf.autograd != NULL else NULL


cdef object array_of_int64(Py_ssize_t count):
    from array import array
    return array("q", bytes(8 * (count + 1)))


cdef object steps_before(entry, str kind):
    """How many steps a parameter has done, as the eager step reads it from the state."""
    if entry is None:
        return 0
    if kind == "adam":
        return step_number(entry.get("step", 0))
    return 0 if entry.get("momentum_buffer") is None else 1


cdef int32_t outside_buffer(const fbp_program *program, const fbp_storage *storage) noexcept:
    """The STATE buffer of a storage, -1 where the program has none."""
    cdef int32_t i
    for i in range(program.buffer_count):
        if program.buffers[i].storage == storage and program.buffers[i].kind == FBP_BUFFER_STATE:
            return i
    return -1


cdef PlanCheck make_check(Plan plan, Capture source, list outputs):
    """The check of a plan that is being made; `keep` must still be called."""
    cdef PlanCheck made = PlanCheck.__new__(PlanCheck)
    cdef fbp_program *program = source.capture.program
    cdef fbp_tensor *t
    cdef Py_ssize_t i
    cdef int32_t buffer
    made.updates = [(optimizer, list(bucket.params), kind) for optimizer, _, bucket, kind in source.updates]
    outside = {plan.states[i].buffer for i in range(plan.state_count)}
    made.states = [plan.states[i].node.data - <char *>plan.states[i].node.storage.data for i in range(plan.state_count)]
    made.gradients = []
    for i in range(plan.leaf_count):
        t = gradient_of(plan.leaf(i, source.given))
        buffer = outside_buffer(program, t.storage) if t != NULL else -1
        if buffer >= 0:
            made.gradients.append((i, buffer, t.data - <char *>t.storage.data))
    made.views = []
    for i, x in enumerate(outputs):
        if not isinstance(x, Tensor) or plan.results[i].buffer >= 0:
            continue
        t = (<Tensor>x).node
        buffer = outside_buffer(program, t.storage) if t.storage != NULL else -1
        if t.sequence > source.begin and buffer in outside:
            made.views.append((i, buffer, t.data - <char *>t.storage.data))
    return made
