# Compiled steps, first part: a function is run once with symbolic tensors, which asks the core to write down what it does.

# ---- what a function may not ask for ----------------------------------------------------------------------------------------

cdef int refuse_value(const fbp_tensor *t, str wanted) except -1:
    """RuntimeError that names the user's line which asks a symbolic tensor for its value."""
    place = place_text(user_line())
    if fbp_is_batched(t):
        if fbp_level_check(wanted.encode(), t) != FBP_OK:
            check(FBP_ERROR_RUNTIME)
        raise RuntimeError(f"vmap: the value of a tensor is asked for by {wanted}{place}; inside of vmap a tensor stands for a whole batch of "
                           "values. Return the tensor and look at it outside, or choose between values with fastbp.where()")
    raise RuntimeError(f"compile: the value of a tensor is asked for by {wanted}{place}; while a function is captured its tensors have no "
                       "values. Return the tensor and look at it outside, choose between values with fastbp.where(), or leave "
                       "this part out of the compiled function")


cdef inline int need_value(const fbp_tensor *t, str wanted) except -1:
    if t.storage != NULL and t.storage.symbolic:
        refuse_value(t, wanted)
    return 0


def is_symbolic(Tensor x not None):
    """Whether x has a shape but no elements: it belongs to a function that was captured."""
    return bool(x.node.flags & FBP_SYMBOLIC)


def capturing():
    """Whether this thread captures a function now: tensors then have no values."""
    return fbp_mode_get().capture != NULL


cdef int note_outside(fbp_tensor *t) except -1:
    """A tensor from outside that the function asks about, or that a view is about to hide: the plan must notice when it is another."""
    cdef fbp_capture *capture = fbp_mode_get().capture
    if capture != NULL and t.storage != NULL and not t.storage.symbolic and not t.storage.captured:
        fbp_capture_see(capture, t)
    return 0


# ---- capture ------------------------------------------------------------------------------------------------------------------

@cython.binding(False)
cdef class Capture:
    """One run of a function with symbolic tensors; `plan()` makes the plan of what it did.

    A context manager: where the block fails, everything is as it was before.
    """

    cdef fbp_capture *capture
    cdef readonly list given  # the arguments
    cdef list arguments   # the symbolic tensors that the function sees in their place, one for one that is given twice
    cdef list points      # where gradients of arguments arrive: itself; behind one that has a history, a leaf
    cdef list sequences   # of the arguments' nodes, which writes that are recorded replace
    cdef uint64_t begin   # nodes made by the function are younger
    cdef readonly list updates  # (optimizer, number of the group, bucket, "adam" or "sgd")
    cdef dict optimizers  # by id: each that the function steps or looks at, as it was before
    cdef NumberTape tape
    cdef PlanNumbers numbers
    cdef bint ended, closed  # the function has; nothing more is noted about optimizers
    cdef list undo        # what a failure must call
    cdef list handles     # weak references to the Python tensors that were made for it
    cdef list hooked      # (tensor, hooks, key): hooks that the function has registered on arguments and tensors from outside
    cdef list generators  # Python's, of those that the function draws from: the plan holds them
    cdef public object world  # _guards.World: what the function reads besides its arguments
    cdef public object eager  # the RunEagerly that was raised, if one was
    cdef public bint backward_ran
    cdef bint releases    # one of these sweeps did not retain the graph
    cdef bint grad_enabled        # when it began, as the two that follow
    cdef int default_dtype, threads
    cdef bint asks_absent         # a rule of several outputs is told which of its cotangents are absent
    cdef bint ties                # a sweep is captured from several results, of which a call may use some

    def __cinit__(self):
        self.given, self.arguments, self.points, self.sequences = [], [], [], []
        self.updates = []
        self.optimizers = {}
        self.tape = NumberTape()
        self.undo = []
        self.handles = []
        self.generators = []
        self.hooked = []

    cdef fbp_program *program(self) except NULL:
        """What is written down; RuntimeError before the block is entered, and once a plan has taken it."""
        if self.capture == NULL or self.capture.program == NULL:
            raise RuntimeError("compile: this capture holds no program: it has not begun, or its plan was made")
        return self.capture.program

    def __enter__(self):
        if self.capture != NULL:
            raise RuntimeError("compile: a capture cannot be entered twice; make a new one")
        self.grad_enabled = fbp_mode_get().grad_enabled
        self.default_dtype, self.threads = fbp_default_dtype(), fbp_threads_get()
        self.begin = sequence_now()
        check(fbp_capture_begin(&self.capture))
        current_captures.append(self)
        return self

    def __exit__(self, kind, error, trace):
        if self.capture == NULL:
            raise RuntimeError("compile: a capture that was not entered is left")
        self.finish()
        if isinstance(error, RunEagerly):
            self.eager = error
        if kind is not None:
            for function in reversed(self.undo):
                function()
        if kind is None or self.eager is not None:  # a run sets what the function leaves behind, or the function itself
            fbp_mode_get().grad_enabled = self.grad_enabled
        if self.eager is not None:
            check(fbp_default_dtype_set(<fbp_dtype>self.default_dtype))
            if fbp_threads_get() != self.threads:
                set_num_threads(self.threads)
        self.undo, self.world, self.eager = [], None, None  # which hold the capture, and modules
        if kind is not None:
            if self.tape.nodes and not self.ended and issubclass(kind, (TypeError, AttributeError)):
                # Something does not take a symbolic number; if the function is wrong it will say so itself.
                raise RunEagerly(f"it uses the numbers of an optimizer in a way that cannot be captured ({error})") from error

    cdef int finish(self) except -1:
        """No more lines: operations run for real again."""
        if self in current_captures:
            current_captures.remove(self)
            fbp_capture_pause()  # for good
            if not self.closed:
                self.closed, self.tape.open = True, False
                restore_optimizers(self.optimizers)

    def __dealloc__(self):
        if self.capture != NULL:
            fbp_capture_free(self.capture)

    def argument(self, Tensor given not None):
        """A symbolic tensor in place of an argument; the same one where an argument that requires grad is given twice."""
        cdef Tensor point, symbol
        cdef fbp_tensor *alias
        cdef fbp_tensor *gradient
        self.program()
        need_argument(given)
        if fbp_requires_grad(given.node):
            for k, other in enumerate(self.given):
                if other is given:
                    return self.add_argument(given, self.arguments[k], self.points[k])
        point = symbol = self.symbol(given)
        if given.node.edge_count:
            check(fbp_lift(point.node, &alias))
            alias.flags &= ~FBP_VIEW  # it may be written in place, as what has a history may
            symbol = wrap(alias)
        elif given.node.autograd != NULL and given.node.autograd.gradient != NULL:
            gradient = given.node.autograd.gradient
            if fbp_autograd_get(point.node) == NULL:
                raise MemoryError("cannot allocate a gradient")
            point.node.autograd.gradient = fbp_retain(gradient)
        return self.add_argument(given, symbol, point)

    cdef Tensor add_argument(self, Tensor given, Tensor symbol, Tensor point):
        self.given.append(given)
        self.arguments.append(symbol)
        self.points.append(point)
        self.sequences.append(symbol.node.sequence)
        return symbol

    cdef Tensor symbol(self, Tensor given):
        """A symbolic leaf of the layout of a tensor, over memory that each call brings."""
        cdef fbp_layout layout
        cdef fbp_tensor *made
        cdef int32_t value
        cdef char *low
        cdef char *high
        fbp_layout_of(given.node, &layout)
        check(fbp_capture_tensor(&layout, 0, 0, &made))
        # Strided arguments look into a longer piece of memory.
        reach_of(given.node, &low, &high)
        made.storage.bytes = high - low
        made.storage.read_only = given.node.storage.read_only
        made.flags |= given.node.flags & FBP_REQUIRES_GRAD
        value = fbp_program_value(self.capture.program, made)
        if value < 0:
            fbp_release(made)
            raise MemoryError("cannot allocate an argument of the plan")
        self.capture.program.buffers[self.capture.program.values[value].buffer].kind = FBP_BUFFER_INPUT
        return wrap(made)

    cdef int refuse_recorded_writes(self) except -1:
        """RunEagerly where the function has written values that require grad into an argument: its history would have to go on."""
        cdef Py_ssize_t k
        for k in range(len(self.arguments)):
            if (<Tensor>self.arguments[k]).node.sequence != self.sequences[k]:
                raise RunEagerly(f"it writes values that require grad into tensor argument {k}, whose history goes on after the call")
            if (<Tensor>self.arguments[k]).node.flags & FBP_RETAINS_GRAD:
                raise RunEagerly(f"it calls retain_grad() on tensor argument {k}")
        return 0

    cdef int refuse_hooks(self) except -1:
        """RunEagerly where the function leaves hooks on what is there after the call; the hooks of this run are gone."""
        left = [(x, hooks, key) for x, hooks, key in self.hooked if key in hooks]
        for x, hooks, key in left:
            hooks.pop(key)
        if left:
            raise RunEagerly("it registers a hook on an argument or a tensor from outside, which stays there")
        return 0

    cdef int refuse_shared_gradients(self) except -1:
        """RunEagerly where gradients arrive in one place by two ways: a leaf that is an argument and known to the function besides, or
        two leaves with one gradient tensor."""
        cdef fbp_leaf_change *leaves = self.capture.leaves
        cdef fbp_tensor *seen
        cdef int32_t i, k
        cdef Py_ssize_t argument
        for i in range(self.capture.leaf_count):
            argument = self.argument_of(leaves[i].leaf)
            for k in range(self.capture.leaf_count):
                if argument >= 0 and leaves[k].leaf == (<Tensor>self.given[argument]).node:
                    raise RunEagerly(f"tensor argument {argument} is a leaf that it knows besides, and collects gradients")
                if k < i and leaves[i].before != NULL and leaves[k].before != NULL and leaves[i].before.storage == leaves[k].before.storage:
                    raise RunEagerly("two leaves have one tensor as their gradient")
            for k in range(self.capture.seen_count if leaves[i].before != NULL else 0):
                seen = self.capture.seen[k]
                if seen != leaves[i].before and seen.storage == leaves[i].before.storage and seen.sequence <= self.begin:
                    raise RunEagerly("a gradient looks into the memory of a tensor that it reads besides")
        return 0

    cdef Py_ssize_t argument_of(self, const fbp_tensor *point) noexcept:
        """Which argument's gradients arrive at a leaf, -1: none's."""
        cdef Py_ssize_t k
        for k in range(len(self.points)):
            if (<Tensor>self.points[k]).node == point:
                return k
        return -1

    def records(self):
        """The captured program as plain data, before it is planned: the definition of what the plan has to do.

        Returns
        -------
        buffers : list of (str, int, Tensor or None)
            Kind ("arena", "input", "state", "constant", ...), bytes, and the elements as they are now where they are real.
        values : list of (int, int, tuple, tuple, str)
            Buffer, offset of the first element in bytes, shape, strides in elements, dtype.
        lines : list of (str, str, int, tuple, int, dict, int)
            Kind ("op", "pull", "write", "update"), op, which input a pull is for, values read (None: left out), value written
            (-1: none), attributes, slot: the number of an update among `updates`.  Random ops have the generator's own seed, and
            the place where they draw if the plan is the next to run.
        """
        cdef fbp_program *program = self.program()
        cdef fbp_buffer *b
        cdef fbp_value *v
        cdef fbp_line *line
        cdef const fbp_generator *generator
        cdef fbp_layout layout
        cdef fbp_tensor *view
        cdef Py_ssize_t i, k
        cdef int64_t size
        kinds = ("arena", "input", "state", "constant", "result", "gradient")
        buffers, values, lines = [], [], []
        for i in range(program.buffer_count):
            b = &program.buffers[i]
            held = None
            if b.storage != NULL and not b.storage.symbolic:
                size = b.bytes
                check(fbp_layout_contiguous(&layout, FBP_UINT8, 1, &size))
                check(fbp_tensor_new(&layout, b.storage, <char *>b.storage.data, 0, 0, &view))
                fbp_storage_retain(b.storage)
                held = wrap(view)
            buffers.append((kinds[b.kind], b.bytes, held))
        for i in range(program.value_count):
            v = &program.values[i]
            values.append((v.buffer, v.offset, shape_tuple(v.tensor), tuple([fbp_strides(v.tensor)[k] for k in range(v.tensor.ndim)]),
                           (<dtype>DTYPES[v.tensor.dtype]).name))
        for i in range(program.line_count):
            line = &program.lines[i]
            attributes = attributes_read(line.op, line.attributes, line.attribute_bytes) if line.kind < 2 else {}
            if line.kind == FBP_LINE_OP and line.slot >= 0:
                generator = <const fbp_generator *>program.draws[line.slot].generator
                attributes["seed"], attributes["offset"] = generator.seed, generator.offset + program.draws[line.slot].offset
            lines.append((("op", "pull", "write", "update")[line.kind], fbp_ops[<int>line.op].name.decode(), line.which,
                          tuple([line.inputs[k] if line.inputs[k] >= 0 else None for k in range(line.count)]), line.output,
                          attributes, line.slot))
        return buffers, values, lines

    def gradients(self):
        """What has become of gradients so far; to be asked before the capture ends.

        Returns
        -------
        list of (Tensor, int or None)
            Arguments, and leaves from outside, whose gradient the function has used or changed, and the value that it is now.
        """
        cdef fbp_tensor *leaf
        cdef fbp_tensor *now
        cdef int32_t i
        self.program()
        result = []
        for i in range(self.capture.leaf_count):
            leaf = self.capture.leaves[i].leaf
            if leaf.storage == NULL or leaf.storage.captured:
                continue
            held = wrap(fbp_retain(leaf))
            if leaf.storage.symbolic and self.argument_of(leaf) < 0:
                continue
            now = self.capture.leaves[i].after
            result.append((held, fbp_program_value(self.capture.program, now) if now != NULL else None))
        return result

    def value_of(self, Tensor t not None):
        """The number of the value that a tensor of the capture looks at."""
        return fbp_program_value(self.program(), t.node)

    def differentiate(self, outputs, leaves):
        """Append the reverse sweep from `outputs`; returns symbolic cotangents, and the leaves' gradients (None: not reached)."""
        self.program().phase = 1
        outputs, leaves = backward_list(outputs, "outputs"), backward_list(leaves, "leaves")
        if not leaves:
            raise RunEagerly("it returns tensors that require grad, and no one holds the leaves behind them")
        cotangents = [self.symbol(x.detach().contiguous()) for x in outputs]
        self.ties = len(outputs) > 1
        try:
            return cotangents, run_backward(outputs, cotangents, True, False, leaves, False, True)
        finally:
            self.ties = False

    def is_swept(self, Tensor output not None):
        """Whether a reverse sweep within the function has let go of values behind `output`."""
        cdef fbp_node_list found
        cdef int64_t i
        cdef bint swept = False
        memset(&found, 0, sizeof(found))
        status = fbp_walk(1, &output.node, True, 0, &found)
        for i in range(found.count):
            swept |= (found.nodes[i].flags & FBP_RELEASED) != 0
        fbp_walk_end(&found)
        check(status)
        return swept

    def depending(self, outputs):
        """For each of `outputs`, the numbers of the others that were computed from it."""
        cdef fbp_node_list found
        cdef Py_ssize_t i, k
        outputs = backward_list(outputs, "outputs")
        result = [[] for _ in outputs]
        for k in range(len(outputs)):
            memset(&found, 0, sizeof(found))
            status = fbp_walk(1, &(<Tensor>outputs[k]).node, True, 0, &found)
            for i in range(len(outputs)):
                if i != k and fbp_walk_find(&found, (<Tensor>outputs[i]).node) >= 0:
                    result[i].append(k)
            fbp_walk_end(&found)
            check(status)
        return result

    def leaves(self, outputs):
        """The leaves that require grad behind `outputs`; those without elements are no one's, and no one sees their gradients."""
        cdef fbp_node_list found
        outputs = backward_list(outputs, "outputs")
        cdef fbp_tensor **roots = tensor_array(outputs, len(outputs))
        cdef int64_t i
        memset(&found, 0, sizeof(found))
        status = fbp_walk(<int>len(outputs), roots, True, 0, &found)
        result = []
        for i in range(found.count):
            if found.nodes[i].edge_count == 0 and fbp_requires_grad(found.nodes[i]) and found.nodes[i].storage != NULL:
                result.append(wrap(fbp_retain(found.nodes[i])))
        fbp_walk_end(&found)
        free_array(roots, len(outputs))
        check(status)
        return result

    def open_optimizer(self, optimizer, bint symbolic=False, bint state=False):
        """Note an optimizer's state and groups; the end of the capture puts them back, and runs of the plan move them on.

        Parameters
        ----------
        symbolic : bool
            Numbers in them are symbolic from now on: the function looks at the groups, or at the state.
        state : bool
            It looks at the state.
        """
        cdef OptimizerBefore before = self.optimizers.get(id(optimizer))
        if self.closed:
            return
        if before is None:
            before = self.optimizers[id(optimizer)] = OptimizerBefore(optimizer)
        if symbolic:
            before.make_symbolic(self.tape)
        if state:
            before.state_read = True

    def close_optimizers(self):
        """The function has ended: its optimizers are as before, and what it leaves in them is written by each run."""
        self.ended = True
        if not self.closed:
            options = [one for step in self.updates for value in step[2].options.values()
                       for one in (value if isinstance(value, tuple) else (value,))]
            self.numbers = plan_numbers(self.optimizers, self.tape, options)
            self.closed = True

    def update(self, optimizer, group_number, bucket, gradients, str op):
        """An optimizer's step over a bucket of parameters, with the group's options as they will be at each call."""
        cdef Py_ssize_t i, k, n = len(bucket.params)
        cdef list lists = [list(one) for one in (bucket.params, gradients, *bucket.buffers)]
        self.program()
        if len(lists) > 5 or builtin_any([len(one) != n for one in lists]):
            raise ValueError(f"{op}: at most five lists of {n} tensors")
        cdef fbp_tensor **tensors = tensor_array([None] * (5 * n), 5 * n)
        cdef OptimizerBefore before = self.optimizers[id(optimizer)]
        try:
            for k, one in enumerate(lists):
                for i in range(n):
                    tensors[5 * i + k] = fbp_retain((<Tensor?>one[i]).node)
                    if not fbp_is_contiguous(tensors[5 * i + k]) or tensors[5 * i + k].dtype != tensors[5 * i].dtype or \
                            not fbp_same_shape(tensors[5 * i + k], tensors[5 * i]):
                        raise RuntimeError(f"compile: {op}: parameter {i}, its gradient and its state must be contiguous and of one shape and dtype")
            check(fbp_capture_update(self.capture, FBP_OP_adam if op == "adam" else FBP_OP_sgd, <int>n, tensors, <int>len(self.updates)))
        finally:
            free_array(tensors, 5 * n)
        self.updates.append((optimizer, group_number, bucket, op))
        # A further step in the function finds what this one leaves.
        before.note_step(bucket, op == "adam")
        bucket.options = before.changed_options(group_number)
        bool(bucket.options.get(optimizer._layout_option))  # what the step's state was chosen by is a decision
        bucket.enter(op == "adam")

    def kept(self, known):
        """Tensors of the capture that are still there, but for the `known`."""
        names = {id(x) for x in [*known, *self.points]}
        return [x for x in [handle() for handle in self.handles] if x is not None and id(x) not in names and is_symbolic(x)]

    def on_failure(self, function):
        """Call `function()` if the capture fails."""
        self.undo.append(function)


cdef int note_sweep(bint retains) except -1:
    """A function that is captured calls backward()."""
    cdef Capture capture = current_capture()
    capture.backward_ran = True
    capture.releases |= not retains
    return 0


cdef int note_hooked(Tensor x, dict hooks, object key) except -1:
    """A hook was registered: should the tensor outlive the function that is captured, the hook would too."""
    cdef Capture capture = current_capture() if fbp_mode_get().capture != NULL else None
    if capture is not None and (not x.node.storage.symbolic or is_one_of(x, capture.arguments)):
        capture.hooked.append((x, hooks, key))
    return 0


cdef list current_captures = []
cdef object weak_reference = __import__("weakref").ref


cdef int note_symbolic(Tensor made) except -1:
    cdef Capture capture = current_capture()
    if capture is not None:
        capture.handles.append(weak_reference(made))
    return 0


def current_capture():
    """This thread's capture, None when there is none."""
    cdef Capture one
    for one in current_captures:
        if one.capture == fbp_mode_get().capture and one.capture != NULL:
            return one
    return None


cdef Tensor tied(Tensor value, list cotangents):
    """`value`, which a user's rule or hook made in the sweep of a function's derivative, as one that goes with `cotangents` (None: absent).

    What such code computes need not depend on the cotangents that it was called for, yet without them it is not called.
    """
    cdef Capture capture = current_capture()
    cdef fbp_layout layout
    cdef fbp_call call
    cdef fbp_tensor *made
    cdef fbp_status status
    others = [g for g in cotangents if g is not None and g is not value]
    if capture is None or not capture.ties or not others:
        return value
    check(fbp_layout_contiguous(&layout, <fbp_dtype>value.node.dtype, value.node.ndim, fbp_shape(value.node)))
    call.op, call.count, call.attributes, call.attribute_bytes = FBP_OP_copy, <int>len(others) + 1, NULL, 0
    call.inputs = tensor_array([value] + others, call.count)
    status = fbp_capture_apply(capture.capture, &call, -1, &layout, 0, 0, &made)
    free_array(<fbp_tensor **>call.inputs, call.count)
    check(status)
    return wrap(made)


cdef int note_asks_absent() except -1:
    cdef Capture capture = current_capture()
    if capture is not None:
        capture.asks_absent |= capture.ties
    return 0


@cython.binding(False)
cdef class paused_capture:
    """Context manager: operations run for real within it, though a function is being captured."""

    cdef Capture held  # None: nothing was captured

    def __enter__(self):
        self.held = current_capture()
        fbp_capture_pause()
        return self

    def __exit__(self, *error):
        if self.held is not None and self.held in current_captures:
            fbp_capture_resume(self.held.capture)
        self.held = None


cdef void reach_of(const fbp_tensor *t, char **low, char **high) noexcept:
    """Addresses of the first byte that a tensor looks at, and of the one after the last; equal where it has no elements."""
    cdef int64_t step, size = fbp_dtype_size(<fbp_dtype>t.dtype)
    cdef int i
    low[0] = high[0] = t.data
    if fbp_is_contiguous(t):
        high[0] += t.numel * size
        return
    if t.numel == 0:
        return
    high[0] += size
    for i in range(t.ndim):
        step = (fbp_shape(t)[i] - 1) * fbp_strides(t)[i] * size
        if step > 0:
            high[0] += step
        else:
            low[0] += step


cdef inline bint touches(char *low, char *high, const fbp_tensor *t) noexcept:
    """Whether a tensor looks at some of the bytes low <= x < high."""
    cdef char *other_low
    cdef char *other_high
    reach_of(t, &other_low, &other_high)
    return low < other_high and other_low < high


cdef inline bint share_memory(const fbp_tensor *a, const fbp_tensor *b) noexcept:
    cdef char *low
    cdef char *high
    reach_of(a, &low, &high)
    return touches(low, high, b)
