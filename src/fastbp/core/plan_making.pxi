# Compiled steps, third part: from a capture to a plan, and the call that finds it.

# ---- from a capture to a plan -----------------------------------------------------------------------------------------------------

cdef int32_t real_buffer(fbp_program *program, fbp_tensor *t) except -2:
    cdef int32_t buffer = fbp_program_buffer(program, t.storage)
    if buffer < 0:
        raise MemoryError("cannot allocate a buffer of the plan")
    return buffer


cdef int32_t write_to_new(fbp_program *program, fbp_buffer_kind kind, fbp_tensor *source) except -1:
    """A buffer of `kind` that the program fills with a contiguous copy of `source` at its end."""
    cdef fbp_layout layout
    cdef int32_t buffer, target, value = fbp_program_value(program, source)
    cdef fbp_line *line
    check(fbp_layout_contiguous(&layout, <fbp_dtype>source.dtype, source.ndim, fbp_shape(source)))
    buffer = fbp_program_buffer_add(program, kind, source.numel * fbp_dtype_size(<fbp_dtype>source.dtype))
    target = fbp_program_value_add(program, buffer, 0, &layout) if buffer >= 0 else -1
    line = fbp_program_line_add(program, FBP_LINE_WRITE, FBP_OP_copy, 1, NULL, 0) if target >= 0 and value >= 0 else NULL
    if line == NULL:
        raise MemoryError("cannot allocate a result of the plan")
    line.inputs[0] = value
    line.output = target
    return buffer


cdef Plan new_plan(list symbols, list points, list outputs, Guards guards):
    cdef Plan plan = Plan.__new__(Plan)
    cdef Py_ssize_t i
    plan.symbols, plan.points, plan.guards = symbols, points, guards
    plan.updates, plan.optimizers, plan.outputs, plan.returned_before = [], [], [], []
    plan.state_tensors, plan.leaf_tensors, plan.grad_finals, plan.written_inputs, plan.argument_gradients = [], [], [], [], []
    plan.threads, plan.default_dtype = fbp_threads_get(), fbp_default_dtype()
    plan.grad_enabled = plan.grad_after = fbp_mode_get().grad_enabled
    plan.check_mode = fbp_environment_get().check
    plan.bytes_without, plan.budget_met = -1, True
    plan.input_count, plan.result_count, plan.returned = len(symbols), len(outputs), len(outputs)
    plan.inputs = <int32_t *>fbp_block_get((plan.input_count + 1) * sizeof(int32_t))
    plan.results = <result_slot *>fbp_block_get((plan.result_count + 1) * sizeof(result_slot))
    plan.taken = <fbp_tensor **>fbp_block_get((plan.input_count + 1) * sizeof(fbp_tensor *))
    if plan.inputs == NULL or plan.results == NULL or plan.taken == NULL:
        raise MemoryError("cannot allocate a plan")
    for i in range(plan.result_count):
        plan.results[i] = result_slot(-1, NULL)
    return plan


cdef int add_states(Plan plan, Capture source) except -1:
    """State that lives outside, with the tensors through which it is found."""
    cdef fbp_capture *capture = source.capture
    cdef Py_ssize_t i
    plan.state_bytes = (capture.seen_count + 1) * sizeof(state_slot)
    plan.states = <state_slot *>fbp_block_get(plan.state_bytes)
    if plan.states == NULL:
        raise MemoryError("cannot allocate a plan")
    for i in range(capture.seen_count):
        t = capture.seen[i]
        if is_old_gradient(source, t) or is_inner_view(source, t):  # found through its leaf at each call, or through what it looks into
            continue
        plan.states[plan.state_count] = state_slot(fbp_retain(t), t.flags, real_buffer(capture.program, t), False)
        plan.state_tensors.append(wrap(fbp_retain(t)))
        plan.state_count += 1
    return 0


def make_plan(Capture source not None, function, list outputs not None, Guards guards=None, memory_budget=None):
    """The plan of what a capture did: one, or with that of the derivative where outputs require grad and nothing was swept.

    Parameters
    ----------
    outputs : list
        What the function returned, flat: tensors and other objects.
    guards : Guards, optional
        What must be as it is in Python's state at each call. Default: None, nothing.
    memory_budget : int or float, optional
        Bytes, or a share of the bytes without a budget, of the arena; of what is saved where there is a derivative.
    """
    cdef fbp_capture *capture = source.capture
    cdef fbp_program *program = source.program()
    cdef Plan plan
    cdef fbp_leaf_change *change
    cdef Py_ssize_t i, k
    if [x for x in outputs if isinstance(x, Tensor) and fbp_is_batched((<Tensor>x).node)]:
        raise RunEagerly("it returns a tensor of a vmap")
    source.refuse_hooks()
    source.refuse_recorded_writes()
    source.refuse_shared_gradients()
    source.close_optimizers()
    symbols = list(source.arguments)
    differentiated = []
    cotangents = gradients = leaves = None
    inner_leaves = []
    if not source.backward_ran:  # whether recording was on outside of the function, or is now, is no matter: eager results have history, too
        differentiated = [i for i, x in enumerate(outputs) if is_computed_with_grad(x) and not is_one_of(x, outputs[:i])
                          and not looks_outside(source, x) and not source.is_swept(x) and base_among(outputs, i) < 0]
        inner_leaves = [i for i in differentiated if (<Tensor>outputs[i]).node.edge_count == 0]
        differentiated = [i for i in differentiated if i not in inner_leaves]
    if differentiated:
        roots = [outputs[i] for i in differentiated]
        refuse_used_views(source, outputs, roots)
        depending = source.depending(roots)
        leaves = source.leaves(roots)
        cotangents, gradients = source.differentiate(roots, leaves)
        program.phase = 0
    source.finish()
    if capture.failed:
        raise MemoryError("cannot allocate the lists of a capture")

    # What arrives at an argument that has a history goes on from there after the run: a result of its own.
    outputs = list(outputs)
    returned = len(outputs)
    argument_gradients = []
    for i in range(capture.leaf_count):
        change = &capture.leaves[i]
        k = source.argument_of(change.leaf)
        if k >= 0 and change.after != NULL and (<Tensor>symbols[k]).node.edge_count:
            argument_gradients.append((k, len(outputs)))
            outputs.append(wrap(fbp_retain(change.after)))

    if isinstance(memory_budget, float):
        program.budget.fraction = memory_budget
    elif memory_budget is not None:
        program.budget.bytes = memory_budget
    plan = new_plan(symbols, list(source.points), outputs, guards)
    plan.returned, plan.argument_gradients, plan.function = returned, argument_gradients, function
    plan.grad_enabled = source.grad_enabled
    plan.inner_leaves = inner_leaves
    add_updates(plan, source.updates)
    plan.generators, plan.retains = source.generators, not source.releases
    plan.numbers = source.numbers
    for i in range(plan.input_count):
        plan.inputs[i] = real_buffer(program, (<Tensor>symbols[i]).node)
    plan.leaf_bytes = (capture.leaf_count + 1) * sizeof(leaf_slot)
    plan.leaves = <leaf_slot *>fbp_block_get(plan.leaf_bytes)
    if plan.leaves == NULL:
        raise MemoryError("cannot allocate a plan")
    add_states(plan, source)
    for i in range(capture.leaf_count):
        k = source.argument_of(capture.leaves[i].leaf)
        if not is_inner(capture.leaves[i].leaf) or (k >= 0 and not (<Tensor>symbols[k]).node.edge_count):
            add_leaf(plan, source, &capture.leaves[i], k)
    for i, x in enumerate(outputs):
        plan.outputs.append(result_entry(plan, source, outputs, i))
    if plan.check_mode:
        plan.check = make_check(plan, source, outputs)
    if guards is not None:
        guards.watch_tensors(plan.state_tensors + [x for x in plan.leaf_tensors if x is not None])
    if differentiated:
        plan.differentiated, plan.depending, plan.asks_absent = differentiated, depending, source.asks_absent
        add_derivative(plan, source, cotangents, gradients, leaves)
    elif plan.check is not None:
        (<PlanCheck>plan.check).keep(program)
    check(fbp_plan_new(program, <int>len(plan.updates), capture.generator_count, &plan.plan))
    capture.program = NULL
    for i in range(capture.generator_count):
        plan.plan.draws[i] = fbp_draw_slot(capture.generators[i].generator, capture.generators[i].blocks, fbp_generator(0, 0))
    plan.plan.checked = plan.check_mode
    if plan.derivative is None:
        plan.bytes_without, plan.budget_met = plan.plan.program.budget.without, plan.plan.program.budget.met
    note_written(plan)
    adopt_optimizers(plan)
    plan.leaves_more = bool(plan.written_inputs or plan.grad_finals or plan.updates or plan.optimizers) or plan.numbers is not None
    plan.is_plain = plan.derivative is None and plan.check is None and plan.grad_after == plan.grad_enabled and \
        not (plan.returned_before or plan.inner_leaves or plan.argument_gradients)
    for i in range(plan.result_count):
        plan.is_plain &= plan.results[i].buffer >= 0
    return plan


cdef bint is_computed_with_grad(object x) except -1:
    return isinstance(x, Tensor) and (<Tensor>x).node.storage.symbolic and fbp_requires_grad((<Tensor>x).node)


cdef bint is_one_of(object x, list symbols) except -1:
    for one in symbols:
        if one is x:
            return True
    return False


cdef fbp_tensor *layout_node(fbp_tensor *t) except NULL:
    """A node of t's shape and type, contiguous, without elements."""
    cdef fbp_layout layout
    cdef fbp_tensor *made
    check(fbp_layout_contiguous(&layout, <fbp_dtype>t.dtype, t.ndim, fbp_shape(t)))
    check(fbp_tensor_new(&layout, NULL, NULL, 0, 0, &made))
    return made


cdef fbp_tensor *empty_like_node(fbp_tensor *t) except NULL:
    cdef fbp_layout layout
    cdef fbp_tensor *made
    check(fbp_layout_contiguous(&layout, <fbp_dtype>t.dtype, t.ndim, fbp_shape(t)))
    check(fbp_tensor_empty(&layout, 0, 0, &made))
    return made


cdef bint is_inner(fbp_tensor *leaf) noexcept:
    """Whether a leaf is the function's own: symbolic, perhaps with no one left to see its elements."""
    return leaf.storage == NULL or leaf.storage.symbolic or leaf.storage.captured


cdef bint is_inner_view(Capture source, const fbp_tensor *t) noexcept:
    """Whether the function itself made t, as a view of a tensor from outside."""
    cdef int32_t i
    for i in range(source.capture.seen_count if t.sequence > source.begin else 0):
        if source.capture.seen[i].sequence <= source.begin and source.capture.seen[i].storage == t.storage:
            return True
    return False


cdef bint is_old_gradient(Capture source, fbp_tensor *t) noexcept:
    cdef fbp_leaf_change *change
    cdef int32_t i
    for i in range(source.capture.leaf_count):
        change = &source.capture.leaves[i]
        if change.before != NULL and change.before.storage == t.storage and (not is_inner(change.leaf) or source.argument_of(change.leaf) >= 0):
            return True
    return False


cdef int add_leaf(Plan plan, Capture source, fbp_leaf_change *change, Py_ssize_t argument) except -1:
    """What a call does to the gradient of a leaf, and what it expects of it before; `argument`: which one the leaf is, -1 for none."""
    cdef fbp_program *program = source.capture.program
    cdef leaf_slot slot = leaf_slot(argument, NULL, NULL, -1, -1, 0, NULL, NULL, 0, 0, 0, 0)
    cdef fbp_layout layout
    if not change.replaced_first:
        slot.needs = 1 if change.before == NULL else 2
        if change.before != NULL:
            slot.old = real_buffer(program, change.before)
            slot.old_offset = change.before.data - <char *>change.before.storage.data
            slot.old_sequence = change.before.sequence if change.held else 0
    if change.after == NULL:
        slot.gradient = -2
    elif change.after != change.before or change.replaced_first:
        outside = outside_entry(plan, source, wrap(fbp_retain(change.after)))
        if outside is None:
            slot.gradient = write_to_new(program, FBP_BUFFER_GRADIENT, change.after)
            slot.count, slot.dtype = change.after.numel, change.after.dtype
        else:
            plan.grad_finals.append((plan.leaf_count, outside))
    if slot.old >= 0:
        fbp_layout_of(change.before, &layout)
        check(fbp_tensor_new(&layout, NULL, NULL, 0, 0, &slot.old_like))
    plan.leaves[plan.leaf_count] = slot
    plan.leaf_tensors.append(wrap(fbp_retain(change.leaf)) if argument < 0 else None)
    plan.collects |= argument >= 0
    plan.cautious |= slot.old >= 0
    plan.leaf_count += 1
    return 0


cdef struct written_marks:
    fbp_program *program
    uint8_t *marks


cdef void mark_written(void *context, int32_t value, c_bool written) noexcept:
    cdef written_marks *w = <written_marks *>context
    if written:
        w.marks[w.program.values[value].buffer] = 1


cdef int note_written(Plan plan) except -1:
    """Which state and arguments a run changes."""
    cdef fbp_program *program = plan.plan.program
    cdef bytearray marks = bytearray(program.buffer_count)
    cdef written_marks w = written_marks(program, <uint8_t *>marks)
    cdef Py_ssize_t i, k
    for i in range(program.line_count):
        fbp_line_touch(program, &program.lines[i], mark_written, &w)
    for i in range(plan.state_count):
        plan.states[i].written = w.marks[plan.states[i].buffer]
        if plan.states[i].written and plan.states[i].node.storage.read_only:
            raise RuntimeError("compile: the function writes into a tensor whose memory is read-only; clone() it first")
    for i in range(plan.input_count):
        if w.marks[plan.inputs[i]]:
            plan.written_inputs.append(i)
            if (<Tensor>plan.symbols[i]).node.storage.read_only:
                raise RuntimeError("compile: the function writes into an argument whose memory is read-only; clone() it first")
    plan.cautious |= len(plan.written_inputs) > 0 or plan.collects or len(plan.argument_gradients) > 0
    for i in range(plan.state_count):
        if not plan.states[i].written:
            continue
        plan.cautious = True
        for k in range(plan.state_count):
            if plan.states[k].buffer != plan.states[i].buffer and share_memory(plan.states[i].node, plan.states[k].node):
                raise RuntimeError("compile: two tensors from outside of the function, which writes one of them, look into the same memory "
                                   "as separate storages (two from_numpy() of one array, say); make one a view of the other")
    return 0


@cython.binding(False)
cdef class CompiledCall:
    """The call of a compiled function: at once into the latest plan where the arguments are tensors that it fits."""

    cdef object owner
    cdef object latest       # its _Entry
    cdef Plan plan
    cdef object result       # structure of what the function returns
    cdef object rebuild      # _tree.unflatten
    cdef object leaf         # _tree.LEAF
    cdef bint flat           # the arguments are tensors alone, by position
    cdef bint single         # the result is one tensor
    cdef public int failures # calls running that no plan fitted because what it depends on had changed, or that none could be made for

    def __cinit__(self, owner):
        import weakref
        from fastbp._tree import LEAF, unflatten
        self.owner, self.rebuild, self.leaf = weakref.ref(owner), unflatten, LEAF

    cdef int adopt(self, object entry) except -1:
        args, kwargs = entry.structure
        before = self.latest  # what it holds goes when all is set
        flat = not kwargs and builtin_all([one is self.leaf for one in args])
        self.latest, self.plan, self.result, self.flat, self.single = entry, entry.plan, entry.result, flat, entry.result is self.leaf
        return 0

    def drop(self):
        """The latest call had no plan."""
        self.latest = self.plan = None

    def __call__(self, *args, **kwargs):
        cdef list given
        cdef list made
        cdef Plan plan
        cdef object result
        cdef bint single
        cdef verdict found = UNFIT
        cdef const fbp_mode *mode = fbp_mode_get()
        # Within another capture, a vmap, forward mode or anomaly mode, the function is part of what is under way.
        if mode.capture != NULL or mode.vmap_count or mode.keep_values or mode.anomaly:
            return self.owner()._function(*args, **kwargs)
        # Other threads may call the same function, and adopt another plan at any time: what this call runs it has for itself.
        plan, result, single = self.plan, self.result, self.single
        if plan is not None and self.flat and not kwargs:
            given = list(args)
            for one in given:
                if not isinstance(one, Tensor):
                    break
            else:
                made = plan.attempt(given, False, &found)
                if found == RAN:
                    self.failures = 0
                    return made[0] if single else self.rebuild(result, iter(made))
                if found == OVERLAPS:
                    self.failures = 0
        for _ in range(FITS_MOST if found == UNFIT else 0):
            entry_and_given = self.owner()._find(args, kwargs)
            if entry_and_given is None:
                break
            entry, given = entry_and_given
            if entry is not self.latest:
                self.adopt(entry)
            plan, result = entry.plan, entry.result
            made = plan.attempt(given, True, &found)
            if found == RAN:
                return made[0] if result is self.leaf else self.rebuild(result, iter(made))
            if found != UNFIT:
                break
        return self.owner()._run_eagerly(args, kwargs)


# Plans for one call, of which other threads make unfit one after the other what they are tied to.
cdef int FITS_MOST = 8


def needs_eager_run(list tensors not None):
    """Whether the function itself has to run on these arguments: one has hooks or attributes, whose effects belong to each call.

    Raises
    ------
    RuntimeError
        Where one was kept from a capture and has no values.
    """
    cdef Tensor x
    cdef bint found = False
    for x in backward_list(tensors, "arguments"):
        need_argument(x)
        found |= has_hooks(x.node) or has_attributes(x)
    return found


cdef int need_argument(Tensor x) except -1:
    """RuntimeError for a tensor without elements: of a vmap, or kept from a capture."""
    if not x.node.flags & FBP_SYMBOLIC:
        return 0
    if fbp_is_batched(x.node):
        refuse_value(x.node, "a compiled function")
    raise RuntimeError(f"compile: a tensor of shape {shape_tuple(x.node)} was made while another function was compiled and has no values; "
                       "return it from that function to use it elsewhere")
