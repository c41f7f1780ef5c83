# Compiled steps: capture of a function, and the plan that runs in its place.

cdef extern from "plan/program.h" nogil:
    ctypedef enum fbp_buffer_kind:
        FBP_BUFFER_ARENA
        FBP_BUFFER_INPUT
        FBP_BUFFER_STATE
        FBP_BUFFER_CONSTANT
        FBP_BUFFER_RESULT
        FBP_BUFFER_GRADIENT
    ctypedef enum fbp_line_kind:
        FBP_LINE_OP
        FBP_LINE_PULL
        FBP_LINE_WRITE
        FBP_LINE_UPDATE
    ctypedef struct fbp_buffer:
        fbp_storage *storage
        int64_t bytes, offset
        int32_t values, writes
        uint8_t kind, keep
    ctypedef struct fbp_value:
        fbp_tensor *tensor
        int64_t offset
        int32_t buffer, next
    ctypedef struct fbp_line:
        uint8_t kind, which
        uint16_t op
        int32_t count, output, output2, attribute_bytes, slot
        int32_t *inputs
        void *attributes
    ctypedef struct fbp_draw:
        void *generator
        uint64_t offset
    ctypedef struct fbp_program:
        fbp_buffer *buffers
        fbp_value *values
        fbp_line *lines
        fbp_draw *draws
        int32_t buffer_count, value_count, line_count, draw_count
        int64_t arena_bytes
        uint8_t phase
    ctypedef struct fbp_line_cost:
        double flops, bytes
    int32_t fbp_program_buffer(fbp_program *program, fbp_storage *storage)
    int32_t fbp_program_value(fbp_program *program, const fbp_tensor *t)
    int32_t fbp_program_buffer_add(fbp_program *program, fbp_buffer_kind kind, int64_t bytes)
    int32_t fbp_program_value_add(fbp_program *program, int32_t buffer, int64_t offset, const fbp_layout *layout)
    fbp_line *fbp_program_line_add(fbp_program *program, fbp_line_kind kind, int op, int32_t count, const void *attributes, int bytes)
    fbp_line_cost fbp_line_cost_of(const fbp_program *program, const fbp_line *line)
    void fbp_line_name(const fbp_program *program, const fbp_line *line, char *text, int length)
    fbp_status fbp_program_reduce(fbp_program *program)
    fbp_status fbp_program_split(fbp_program *program, fbp_program **derivative, uint8_t *saved)
    void fbp_program_free(fbp_program *program)

cdef extern from "plan/program.h":
    ctypedef void (*fbp_touch_fn)(void *context, int32_t value, bint written) noexcept
    void fbp_line_touch(const fbp_program *program, const fbp_line *line, fbp_touch_fn visit, void *context)

cdef extern from "graph/walk.h" nogil:
    ctypedef struct fbp_node_list:
        fbp_tensor **nodes
        int64_t count
    fbp_status fbp_walk(int root_count, fbp_tensor *const *roots, bint grad_only, fbp_node_list *list)
    void fbp_walk_end(fbp_node_list *list)

cdef extern from "exec/backward.h" nogil:
    fbp_status (*fbp_host_pull)(void *object, int which, fbp_tensor *cotangent, bint create_graph, bint last, fbp_tensor **out) noexcept
    fbp_status fbp_host_node(void *object, int count, fbp_tensor *const *inputs, fbp_tensor *value, fbp_tensor **out)
    fbp_status fbp_gradient_accumulate(fbp_tensor *t, fbp_tensor *g, bint create_graph)

cdef extern from "exec/capture.h" nogil:
    ctypedef struct fbp_leaf_change:
        fbp_tensor *leaf
        fbp_tensor *before
        fbp_tensor *after
        bint replaced_first
    ctypedef struct fbp_generator_change:
        fbp_generator *generator
        fbp_generator before
        uint64_t blocks
    ctypedef struct fbp_capture "struct fbp_capture":
        fbp_program *program
        fbp_leaf_change *leaves
        fbp_generator_change *generators
        fbp_tensor **seen
        int32_t leaf_count, generator_count, seen_count
        bint failed
    fbp_status fbp_capture_begin(fbp_capture **out)
    fbp_capture *fbp_capture_pause()
    void fbp_capture_resume(fbp_capture *capture)
    void fbp_capture_end(fbp_capture *capture)
    void fbp_capture_free(fbp_capture *capture)
    fbp_status fbp_capture_tensor(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_capture_write(fbp_capture *capture, fbp_tensor *target, fbp_tensor *source)
    fbp_status fbp_capture_update(fbp_capture *capture, int op, int count, fbp_tensor *const *tensors, int slot)
    void fbp_capture_gradient(fbp_capture *capture, fbp_tensor *leaf, bint replaced)
    void fbp_capture_draw(fbp_capture *capture, fbp_generator *generator)
    void fbp_capture_see(fbp_capture *capture, fbp_tensor *t)

cdef extern from "exec/run.h" nogil:
    ctypedef union fbp_hyper_union:
        fbp_sgd sgd
        fbp_adam adam
    ctypedef struct fbp_update_slot:
        fbp_hyper_union hyper
        int64_t step
    ctypedef struct fbp_draw_slot:
        fbp_generator *generator
        uint64_t blocks
    ctypedef struct fbp_plan:
        fbp_program *program
        fbp_update_slot *updates
        fbp_draw_slot *draws
    fbp_status fbp_plan_new(fbp_program *program, int update_count, int draw_count, fbp_plan **out)
    void fbp_plan_free(fbp_plan *plan)
    void fbp_plan_bind(fbp_plan *plan, int32_t buffer, char *base)
    fbp_status fbp_plan_run(fbp_plan *plan)
    fbp_status fbp_plan_run_timed(fbp_plan *plan, double *seconds)
    fbp_status fbp_plan_run_checked(fbp_plan *plan)
    int64_t fbp_plan_peak_bytes(const fbp_plan *plan)
    ctypedef struct fbp_batch_source:
        int32_t buffer
        const char *rows
        int64_t row_bytes
        char *batch
    ctypedef struct fbp_batch_result:
        int32_t buffer
        char *base
        int64_t bytes
    ctypedef struct fbp_pass:
        int64_t batch
        const void *order
        int source_count, result_count
        const fbp_batch_source *sources
        const fbp_batch_result *results
    fbp_status fbp_plan_pass(fbp_plan *plan, const fbp_pass *what, int64_t begin, int64_t end, int64_t *done)


# ---- what a function may not ask for ----------------------------------------------------------------------------------------

cdef int refuse_value(str wanted) except -1:
    """RuntimeError that names the user's line which asks a symbolic tensor for its value."""
    import linecache
    import os
    import sys
    package = os.path.dirname(__file__)
    frame = sys._getframe()
    while frame is not None and os.path.dirname(os.path.abspath(frame.f_code.co_filename)).startswith(package):
        frame = frame.f_back
    place = ""
    if frame is not None:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        place = f" at {frame.f_code.co_filename}:{frame.f_lineno}" + (f", `{text}`" if text else "")
    raise RuntimeError(f"compile: the value of a tensor is asked for by {wanted}{place}; while a function is captured its tensors have no "
                       "values. Return the tensor and look at it outside, choose between values with fastbp.where(), or leave "
                       "this part out of the compiled function")


cdef inline int need_value(const fbp_tensor *t, str wanted) except -1:
    if t.storage != NULL and t.storage.symbolic:
        refuse_value(wanted)
    return 0


def capturing():
    """Whether this thread captures a function now: tensors then have no values."""
    return fbp_mode_get().capture != NULL


cdef int note_outside(fbp_tensor *t) except -1:
    """A tensor from outside that a view is about to hide: the plan must notice when its elements are replaced."""
    cdef fbp_capture *capture = fbp_mode_get().capture
    if capture != NULL and not t.storage.symbolic:
        fbp_capture_see(capture, t)
    return 0


# ---- capture ------------------------------------------------------------------------------------------------------------------

cdef class Capture:
    """One run of a function with symbolic tensors; `plan()` makes the plan of what it did.

    A context manager: where the block fails, everything is as it was before.
    """

    cdef fbp_capture *capture
    cdef list arguments   # symbolic tensors
    cdef list updates     # (optimizer, group, bucket, "adam" or "sgd")
    cdef list undo        # what a failure must call
    cdef readonly list modules
    cdef public bint backward_ran

    def __cinit__(self):
        self.arguments = []
        self.updates = []
        self.undo = []
        self.modules = []

    def __enter__(self):
        check(fbp_capture_begin(&self.capture))
        current_captures.append(self)
        return self

    def __exit__(self, kind, error, trace):
        self.finish()
        if kind is not None:
            for function in reversed(self.undo):
                function()

    cdef void finish(self):
        """No more lines: operations run for real again."""
        if self in current_captures:
            current_captures.remove(self)
            fbp_capture_end(self.capture)

    def __dealloc__(self):
        if self.capture != NULL:
            fbp_capture_free(self.capture)

    def argument(self, Tensor given not None):
        """A symbolic tensor in place of an argument."""
        cdef fbp_layout layout
        cdef fbp_tensor *made
        fbp_layout_of(given.node, &layout)
        check(fbp_capture_tensor(&layout, 0, 0, &made))
        # Strided arguments look into a longer piece of memory.
        made.storage.bytes = span_bytes(given.node)
        made.storage.read_only = given.node.storage.read_only
        made.flags |= given.node.flags & FBP_REQUIRES_GRAD
        cdef int32_t value = fbp_program_value(self.capture.program, made)
        if value < 0:
            fbp_release(made)
            raise MemoryError("cannot allocate an argument of the plan")
        self.capture.program.buffers[self.capture.program.values[value].buffer].kind = FBP_BUFFER_INPUT
        symbol = wrap(made)
        self.arguments.append(symbol)
        return symbol

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
            (-1: none), attributes, slot.
        """
        cdef fbp_program *program = self.capture.program
        cdef fbp_buffer *b
        cdef fbp_value *v
        cdef fbp_line *line
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
            lines.append((("op", "pull", "write", "update")[line.kind], fbp_ops[<int>line.op].name.decode(), line.which,
                          tuple([line.inputs[k] if line.inputs[k] >= 0 else None for k in range(line.count)]), line.output,
                          attributes_read(line.op, line.attributes, line.attribute_bytes) if line.kind < 2 else {}, line.slot))
        return buffers, values, lines

    def value_of(self, Tensor t not None):
        """The number of the value that a tensor of the capture looks at."""
        return fbp_program_value(self.capture.program, t.node)

    def differentiate(self, outputs, leaves):
        """Append the reverse sweep from `outputs`; returns symbolic cotangents, and the leaves' gradients (None: not reached)."""
        self.capture.program.phase = 1
        cotangents = [self.argument(x.detach().contiguous()) for x in outputs]
        return cotangents, run_backward(outputs, cotangents, False, False, leaves, False)

    def is_swept(self, Tensor output not None):
        """Whether a reverse sweep within the function has let go of values behind `output`."""
        cdef fbp_node_list found
        cdef int64_t i
        cdef bint swept = False
        memset(&found, 0, sizeof(found))
        status = fbp_walk(1, &output.node, True, &found)
        for i in range(found.count):
            swept |= (found.nodes[i].flags & FBP_RELEASED) != 0
        fbp_walk_end(&found)
        check(status)
        return swept

    def leaves(self, outputs):
        """The leaves that require grad behind `outputs`."""
        cdef fbp_node_list found
        cdef fbp_tensor **roots = tensor_array(outputs, len(outputs))
        cdef int64_t i
        memset(&found, 0, sizeof(found))
        status = fbp_walk(<int>len(outputs), roots, True, &found)
        result = []
        for i in range(found.count):
            if found.nodes[i].edge_count == 0 and fbp_requires_grad(found.nodes[i]):
                result.append(wrap(fbp_retain(found.nodes[i])))
        fbp_walk_end(&found)
        free_array(roots, len(outputs))
        check(status)
        return result

    def update(self, optimizer, group, bucket, gradients, str op, state_lists):
        """An optimizer's step over a bucket of parameters, with the group's options as they will be at each call."""
        cdef Py_ssize_t i, k, n = len(bucket.params)
        cdef fbp_tensor **tensors = tensor_array([None] * (5 * n), 5 * n)
        cdef list lists = [bucket.params, gradients, *state_lists]
        try:
            for k, one in enumerate(lists):
                if one is None:
                    continue
                for i in range(n):
                    tensors[5 * i + k] = (<Tensor?>one[i]).node
                    if not fbp_is_contiguous(tensors[5 * i + k]) or tensors[5 * i + k].dtype != (<Tensor>bucket.params[i]).node.dtype:
                        raise RuntimeError(f"compile: {op}: parameter {i}, its gradient and its state must be contiguous and of one dtype")
            check(fbp_capture_update(self.capture, FBP_OP_adam if op == "adam" else FBP_OP_sgd, <int>n, tensors, <int>len(self.updates)))
        finally:
            free_array(tensors, 5 * n)
        self.updates.append((optimizer, group, bucket, op))

    def on_failure(self, function):
        """Call `function()` if the capture fails."""
        self.undo.append(function)


cdef list current_captures = []


def current_capture():
    """This thread's capture, None when there is none."""
    cdef Capture one
    for one in current_captures:
        if one.capture == fbp_mode_get().capture and one.capture != NULL:
            return one
    return None


cdef class paused_capture:
    """Context manager: operations run for real within it, though a function is being captured."""

    cdef fbp_capture *capture

    def __enter__(self):
        self.capture = fbp_capture_pause()
        return self

    def __exit__(self, *error):
        fbp_capture_resume(self.capture)


cdef int64_t span_bytes(const fbp_tensor *t) noexcept:
    """Bytes from a tensor's first element to its last, both included (strides are not negative)."""
    cdef int64_t span = 1
    cdef int i
    if t.numel == 0:
        return 0
    for i in range(t.ndim):
        span += (fbp_shape(t)[i] - 1) * fbp_strides(t)[i]
    return span * fbp_dtype_size(<fbp_dtype>t.dtype)


# ---- plans ---------------------------------------------------------------------------------------------------------------------

cdef struct state_slot:
    fbp_tensor *node     # that the wrapper stood for when it was bound (held)
    uint16_t flags       # of it at capture
    int32_t buffer
    bint written

cdef struct leaf_slot:
    fbp_tensor *fresh    # held during a run: memory for the gradient, the leaf's own when the run has succeeded
    int32_t gradient     # buffer of the gradient after the call; -1: as it is, -2: none
    int32_t old          # buffer of the gradient that the call reads, -1
    int needs            # 0: no matter; 1: must be None before; 2: must be a tensor
    char *bound          # what `gradient` and `old` are bound to
    char *old_bound

cdef struct result_slot:
    int32_t buffer       # -1: not a tensor that the plan computes
    fbp_tensor *like     # its layout


@cython.final
cdef class Plan:
    """What a compiled function runs: a list of steps over one arena.

    `print(step.plan)` shows a line a step: operation, shape of the result, bytes read and written, floating-point operations, offset of the
    result in the arena.

    Attributes
    ----------
    peak_bytes : int
        Memory that the plan itself takes: the arena.  Parameters, gradients and results are not in it.
    """

    cdef fbp_plan *plan
    cdef state_slot *states
    cdef leaf_slot *leaves
    cdef result_slot *results
    cdef int32_t *inputs
    cdef Py_ssize_t state_count, leaf_count, result_count, input_count, state_bytes, leaf_bytes
    cdef bint writes  # arguments or state: then arguments must lie apart from what is written
    cdef list state_tensors, leaf_tensors, symbols, updates, guards, outputs, grad_finals, written_inputs
    cdef list argument_gradients  # (argument, result): what leaves among the arguments collect
    cdef Py_ssize_t returned      # results that are the function's own
    cdef object mutex
    cdef int threads, default_dtype
    cdef bint busy, grad_enabled, check_mode
    # Of a function that is compiled with its derivative:
    cdef readonly Plan derivative      # its inputs are the cotangents, then the arguments; its results the gradients of `edges`
    cdef list edges                    # what is differentiated: ("argument", number) or ("tensor", Tensor)
    cdef list differentiated           # which results require grad
    cdef list saved                    # (buffer, offset in the block that is saved)
    cdef int64_t saved_bytes
    cdef object function
    cdef fbp_generator *places         # of a derivative: where the function's random numbers began
    cdef Py_ssize_t place_count

    def __dealloc__(self):
        cdef Py_ssize_t i
        fbp_plan_free(self.plan)
        if self.states != NULL:
            for i in range(self.state_count):
                fbp_release(self.states[i].node)
            fbp_block_free(self.states, self.state_bytes)
        if self.leaves != NULL:
            fbp_block_free(self.leaves, self.leaf_bytes)
        if self.results != NULL:
            for i in range(self.result_count):
                if self.results[i].like != NULL:
                    fbp_release(self.results[i].like)
            fbp_block_free(self.results, (self.result_count + 1) * sizeof(result_slot))
        if self.places != NULL:
            fbp_block_free(self.places, (self.place_count + 1) * sizeof(fbp_generator))
        if self.inputs != NULL:
            fbp_block_free(self.inputs, (self.input_count + 1) * sizeof(int32_t))

    @property
    def peak_bytes(self):
        """Bytes of the arena."""
        return fbp_plan_peak_bytes(self.plan)

    @property
    def steps(self):
        """The steps as dicts: name, shape, dtype, offset (None outside of the arena), bytes, flops."""
        cdef fbp_program *program = self.plan.program
        cdef int32_t i
        cdef char name[256]
        cdef fbp_line_cost cost
        result = []
        for i in range(program.line_count):
            fbp_line_name(program, &program.lines[i], name, sizeof(name))
            cost = fbp_line_cost_of(program, &program.lines[i])
            entry = {"name": name.decode(), "shape": None, "dtype": None, "offset": None, "bytes": cost.bytes, "flops": cost.flops}
            written = []
            fbp_line_touch(program, &program.lines[i], list_written, <void *>written)
            if written:
                t = program.values[<int32_t>written[0]].tensor
                buffer = program.values[<int32_t>written[0]].buffer
                entry["shape"] = shape_tuple(t)
                entry["dtype"] = (<dtype>DTYPES[t.dtype]).name
                if program.buffers[<int32_t>buffer].kind == FBP_BUFFER_ARENA:
                    entry["offset"] = program.buffers[<int32_t>buffer].offset + program.values[<int32_t>written[0]].offset
            result.append(entry)
        return result

    def __len__(self):
        return self.plan.program.line_count

    def __repr__(self):
        from fastbp import compiler
        return compiler.format_plan(self)

    # ---- whether it fits --------------------------------------------------------------------------------------------------

    cdef bint accepts(self, list given) except -1:
        """Whether the arguments and the world are those that the plan was made for."""
        cdef Py_ssize_t i
        cdef fbp_tensor *a
        cdef fbp_tensor *b
        cdef fbp_mode *mode = fbp_mode_get()
        if len(given) != self.input_count or mode.grad_enabled != self.grad_enabled or fbp_threads_get() != self.threads \
                or fbp_default_dtype() != self.default_dtype:
            return False
        for i in range(self.input_count):
            a = (<Tensor>given[i]).node
            b = (<Tensor>self.symbols[i]).node
            if a.dtype != b.dtype or a.ndim != b.ndim or (a.flags ^ b.flags) & FBP_REQUIRES_GRAD or \
                    memcmp(fbp_shape(a), fbp_shape(b), 2 * a.ndim * sizeof(int64_t)) != 0 or a.storage.read_only > b.storage.read_only:
                return False
        return True

    cdef bint is_current(self) except -1:
        """Whether modules, optimizers and gradients are as at capture; STATE buffers follow tensors that moved."""
        cdef Py_ssize_t i
        cdef Tensor wrapper
        cdef fbp_tensor *gradient
        for entry in self.guards:
            if (<dict>(<tuple>entry)[0]).get((<tuple>entry)[1]) is not (<tuple>entry)[2]:
                return False
        for entry in self.updates:
            if not (<UpdateLink>entry).is_current():
                return False
        for i in range(self.state_count):
            wrapper = <Tensor>self.state_tensors[i]
            if (wrapper.node.flags ^ self.states[i].flags) & FBP_REQUIRES_GRAD or \
                    (wrapper.node != self.states[i].node and not self.follow(i, wrapper.node)):
                return False
        for i in range(self.leaf_count):
            if self.leaves[i].needs:
                wrapper = <Tensor>self.leaf_tensors[i]
                gradient = wrapper.node.autograd.gradient if wrapper.node.autograd != NULL else NULL
                if (gradient != NULL) != (self.leaves[i].needs == 2):
                    return False
                if gradient != NULL and (not fbp_is_contiguous(gradient) or gradient.storage.read_only or fbp_requires_grad(gradient)):
                    return False
        return True

    def fits(self, list given):
        """Whether the plan can run now with these arguments."""
        return self.accepts(given) and self.is_current()

    cdef bint overlaps(self, list given) except -1:
        """Whether an argument shares memory with what the plan writes: then only the function itself is right."""
        cdef Py_ssize_t i, k
        cdef fbp_tensor *a
        if not self.writes:
            return False
        for i in range(self.input_count):
            a = (<Tensor>given[i]).node
            for k in range(self.state_count):
                if self.states[k].written and share_memory(a, self.states[k].node):
                    return True
        for i in self.written_inputs:
            for k in range(self.input_count):
                if k != i and share_memory((<Tensor>given[i]).node, (<Tensor>given[k]).node):
                    return True
            for k in range(self.state_count):
                if share_memory((<Tensor>given[i]).node, self.states[k].node):
                    return True
        return False

    cdef bint follow(self, Py_ssize_t i, fbp_tensor *node) except -1:
        """The tensor behind state i stands for other elements now."""
        cdef fbp_tensor *old = self.states[i].node
        cdef int64_t moved
        cdef Py_ssize_t k
        for k in range(self.state_count):  # another tensor looks into the same memory, and has not moved
            if k != i and self.states[k].buffer == self.states[i].buffer:
                return False
        if node.dtype != old.dtype or node.ndim != old.ndim or memcmp(fbp_shape(node), fbp_shape(old), 2 * node.ndim * sizeof(int64_t)) != 0 \
                or node.storage.symbolic or (node.storage.read_only and self.states[i].written):
            return False
        moved = node.data - old.data
        fbp_plan_bind(self.plan, self.states[i].buffer, self.base_of(self.states[i].buffer) + moved)
        fbp_retain(node)
        fbp_release(old)
        self.states[i].node = node
        return True

    cdef char *base_of(self, int32_t buffer) noexcept:
        cdef fbp_program *program = self.plan.program
        cdef int32_t value = program.buffers[buffer].values
        return program.values[value].tensor.data - program.values[value].offset

    # ---- running ------------------------------------------------------------------------------------------------------------

    cdef int bind_inputs(self, list given) except -1:
        cdef Py_ssize_t i
        for i in range(self.input_count):
            if self.inputs[i] >= 0:
                fbp_plan_bind(self.plan, self.inputs[i], (<Tensor>given[i]).node.data)
        return 0

    cdef int bind_gradients(self) except -1:
        """Memory for the gradients that will be there after the call: that of the present ones where no one else looks at it."""
        cdef Py_ssize_t i
        cdef fbp_tensor *gradient
        cdef fbp_tensor *leaf
        for i in range(self.leaf_count):
            leaf = (<Tensor>self.leaf_tensors[i]).node
            gradient = leaf.autograd.gradient if leaf.autograd != NULL else NULL
            if self.leaves[i].old >= 0 and gradient != NULL and gradient.data != self.leaves[i].old_bound:
                fbp_plan_bind(self.plan, self.leaves[i].old, gradient.data)
                self.leaves[i].old_bound = gradient.data
            if self.leaves[i].gradient < 0:
                continue
            if gradient == NULL or self.leaves[i].old >= 0 or gradient.references != 1 or gradient.storage.references != 1 or gradient.edge_count or \
                    gradient.storage.release != NULL or not fbp_is_contiguous(gradient) or fbp_requires_grad(gradient):
                if fbp_autograd_get(leaf) == NULL:
                    raise MemoryError("cannot allocate a gradient")
                gradient = self.leaves[i].fresh = empty_like_node(leaf)
            if gradient.data != self.leaves[i].bound:
                fbp_plan_bind(self.plan, self.leaves[i].gradient, gradient.data)
                self.leaves[i].bound = gradient.data
        return 0

    cdef int drop_gradients(self) except -1:
        """After a run that failed: gradients that were to be overwritten are gone, as after zero_grad(); others are as before."""
        cdef Py_ssize_t i
        for i in range(self.leaf_count):
            if self.leaves[i].fresh != NULL:
                fbp_release(self.leaves[i].fresh)
                self.leaves[i].fresh = NULL
            elif self.leaves[i].gradient >= 0:
                self.leaf_tensors[i].grad = None
        return 0

    cdef int settle(self, list given) except -1:
        """After a run: versions of what was written, gradients that are gone, step counts."""
        cdef Py_ssize_t i
        cdef fbp_autograd *extra
        cdef fbp_tensor *gradient
        for i in range(self.state_count):
            if self.states[i].written:
                self.states[i].node.storage.version += 1
        for i in self.written_inputs:
            (<Tensor>given[i]).node.storage.version += 1
        for i in range(self.leaf_count):
            extra = (<Tensor>self.leaf_tensors[i]).node.autograd
            if self.leaves[i].fresh != NULL:
                gradient = extra.gradient
                extra.gradient = self.leaves[i].fresh
                self.leaves[i].fresh = NULL
                if gradient != NULL:
                    fbp_release(gradient)
            if extra == NULL or extra.gradient == NULL:
                continue
            if self.leaves[i].gradient == -2:
                gradient = extra.gradient
                extra.gradient = NULL
                fbp_release(gradient)
            elif self.leaves[i].gradient >= 0 or self.leaves[i].old >= 0:
                extra.gradient.storage.version += 1
        for i, final in self.grad_finals:
            (<Tensor>self.leaf_tensors[i]).grad = final
        for i in range(len(self.updates)):
            (<UpdateLink>self.updates[i]).settle(self.plan.updates[i].step)
        return 0

    cdef fbp_status execute(self) except *:
        cdef fbp_status status
        if self.check_mode:
            return fbp_plan_run_checked(self.plan)
        with nogil:
            status = fbp_plan_run(self.plan)
        return status

    cdef int acquire(self) except -1:
        """One run at a time: others wait, without the interpreter's lock."""
        while self.busy:
            if self.mutex is None:
                import threading
                self.mutex = threading.Condition()
            with self.mutex:
                if self.busy:
                    self.mutex.wait(0.05)
        self.busy = True
        return 0

    cdef void release(self) noexcept:
        self.busy = False

    cdef int prepare_state(self, list given) except -1:
        """Arguments, gradients and hyperparameters as they are now."""
        cdef Py_ssize_t i
        self.bind_inputs(given)
        if self.leaf_count:
            self.bind_gradients()
        for i in range(len(self.updates)):
            (<UpdateLink>self.updates[i]).begin(&self.plan.updates[i])
        return 0

    cdef list prepare(self, list given):
        """All that must be set before a run; the result tensors."""
        cdef Py_ssize_t i
        cdef fbp_tensor *made
        cdef list made_results = []
        self.prepare_state(given)
        for i in range(self.result_count):
            if self.results[i].buffer < 0:
                made_results.append(None)
                continue
            check(fbp_tensor_like(self.results[i].like, 0, 0, &made))
            fbp_plan_bind(self.plan, self.results[i].buffer, made.data)
            made_results.append(wrap(made))
        return made_results

    cdef list run(self, list given):
        """One call: the outputs in order."""
        cdef list made
        cdef fbp_status status
        cdef Py_ssize_t i
        cdef Sweep sweep = None
        self.acquire()
        try:
            made = self.prepare(given)
            if self.derivative is not None:
                sweep = begin_sweep(self, given)
            status = self.execute()
            if status != FBP_OK:
                self.drop_gradients()
                raise_status(status)
            self.settle(given)
        finally:
            self.release()
        if sweep is not None:
            sweep.record(made)
        for i in range(self.result_count):
            if self.results[i].buffer < 0:
                kind, value = self.outputs[i]
                made[i] = given[value] if kind == "argument" else value
        if self.argument_gradients:
            for i, k in self.argument_gradients:
                if (<Tensor>given[i]).node.edge_count:  # computed before the call: the sweep goes on
                    run_backward([given[i]], [made[k]], False, False, None)
                else:
                    check(fbp_gradient_accumulate((<Tensor>given[i]).node, (<Tensor>made[k]).node, False))
            del made[self.returned:]
        return made

    def start_pass(self, list tensors, list batches, order, int64_t size, int64_t count):
        """Ready a BatchPass: `count` runs on `size` rows each of `tensors`, in the order of `order` (None: as they lie)."""
        cdef BatchPass run = BatchPass.__new__(BatchPass)
        cdef Py_ssize_t i, n = len(tensors), used = 0
        cdef Tensor stacked
        if self.derivative is not None:
            raise RuntimeError("epoch: the function returns tensors that require grad without having called backward(); return "
                               "loss.detach(), or run it under no_grad()")
        if self.argument_gradients or self.written_inputs:
            raise RuntimeError("epoch: the function changes its arguments or their gradients; the batches of a pass are only read")
        run.plan, run.tensors, run.batches, run.given, run.order = self, tensors, batches, batches, order
        run.source_bytes = (n + 1) * sizeof(fbp_batch_source)
        run.target_bytes = (self.result_count + 1) * sizeof(fbp_batch_result)
        run.sources = <fbp_batch_source *>fbp_block_get(run.source_bytes)
        run.targets = <fbp_batch_result *>fbp_block_get(run.target_bytes)
        if run.sources == NULL or run.targets == NULL:
            raise MemoryError("cannot allocate a pass")
        for i in range(n):
            x, batch = <Tensor>tensors[i], <Tensor>batches[i]
            run.sources[i] = fbp_batch_source(self.inputs[i], (<Tensor>x).node.data,
                                              (<Tensor>x).node.numel // builtin_max(1, x.shape[0]) * x.element_size(), (<Tensor>batch).node.data)
        run.made = []
        for i in range(self.result_count):
            if self.results[i].buffer < 0:
                kind, value = self.outputs[i]
                if kind == "argument":
                    raise RuntimeError("epoch: the function returns an argument; return a copy (clone()) of it")
                run.made.append(None)
                continue
            stacked = empty((count, *shape_tuple(self.results[i].like)), dtype=DTYPES[self.results[i].like.dtype])
            run.targets[used] = fbp_batch_result(self.results[i].buffer, stacked.node.data, stacked.node.numel // builtin_max(1, count) * stacked.element_size())
            run.made.append(stacked)
            used += 1
        run.what = fbp_pass(size, NULL, <int>n, <int>used, run.sources, run.targets)
        if run.order is not None:
            run.what.order = run.order.node.data
        return run

    def profile_run(self, list given, seconds):
        """One call, adding each step's seconds to an array('d')."""
        cdef double[::1] times = seconds
        cdef fbp_status status
        cdef list made
        cdef Sweep sweep = None
        self.acquire()
        try:
            made = self.prepare(given)  # held: the run writes into them, as into what a sweep would need
            if self.derivative is not None:
                sweep = begin_sweep(self, given)
            with nogil:
                status = fbp_plan_run_timed(self.plan, &times[0])
            if status != FBP_OK:
                self.drop_gradients()
                raise_status(status)
            self.settle(given)
        finally:
            self.release()


@cython.final
cdef class BatchPass:
    """Many runs of one plan, each on a batch of rows of larger tensors; results go to one stacked tensor each."""

    cdef Plan plan
    cdef list tensors, batches, made, given
    cdef Tensor order
    cdef fbp_pass what
    cdef fbp_batch_source *sources
    cdef fbp_batch_result *targets
    cdef Py_ssize_t source_bytes, target_bytes

    def __dealloc__(self):
        if self.sources != NULL:
            fbp_block_free(self.sources, self.source_bytes)
        if self.targets != NULL:
            fbp_block_free(self.targets, self.target_bytes)

    def advance(self, int64_t begin, int64_t end):
        """Runs begin <= i < end; False, and nothing is done, where the plan does not fit the world any more."""
        cdef Plan plan = self.plan
        cdef fbp_status status
        cdef int64_t done = 0
        cdef Py_ssize_t i
        plan.acquire()
        try:
            if not plan.is_current():
                return False
            plan.prepare_state(self.given)
            with nogil:
                status = fbp_plan_pass(plan.plan, &self.what, begin, end, &done)
            if done:
                plan.settle(self.given)
            if status != FBP_OK:
                plan.drop_gradients()
                raise_status(status)
        finally:
            plan.release()
        return True

    def results(self, count):
        """The results of the first `count` runs, stacked; what is no tensor, as the function returned it."""
        return [self.plan.outputs[i][1] if x is None else x[:count] for i, x in enumerate(self.made[:self.plan.returned])]


cdef inline bint share_memory(const fbp_tensor *a, const fbp_tensor *b) noexcept:
    return a.data < b.data + span_bytes(b) and b.data < a.data + span_bytes(a)


cdef void list_written(void *context, int32_t value, bint written) noexcept:
    if written:
        (<list>context).append(value)


# ---- optimizers' numbers --------------------------------------------------------------------------------------------------------

@cython.final
cdef class UpdateLink:
    """One UPDATE line and the optimizer behind it: its numbers go in before a run, its step counts come out after."""

    cdef object optimizer, state
    cdef dict group, attributes
    cdef list params, groups, states
    cdef tuple buffers
    cdef Py_ssize_t state_size, group_count
    cdef bint adam, has_layout

    cdef bint is_current(self) except -1:
        """Whether the optimizer has the same parameters and state as at capture."""
        cdef list now = <list>self.group["params"]
        cdef Py_ssize_t i
        if self.attributes["state"] is not self.state or len(self.state) != self.state_size or \
                len(<list>self.attributes["param_groups"]) != self.group_count or len(now) != len(self.params):
            return False
        for i in range(len(now)):
            if now[i] is not self.params[i]:
                return False
        if self.adam:
            step = (<dict>self.states[0])["step"]
            for entry in self.states:
                other = (<dict>entry)["step"]
                if other is not step and other != step:
                    return False
            return bool(self.group["amsgrad"]) == self.has_layout
        return bool(self.group["momentum"]) == self.has_layout

    cdef int begin(self, fbp_update_slot *slot) except -1:
        """The group's options as they are now."""
        cdef dict group = self.group
        cdef tuple betas
        if self.adam:
            betas = tuple(group["betas"])
            slot.hyper.adam.lr = group["lr"]
            slot.hyper.adam.beta1 = betas[0]
            slot.hyper.adam.beta2 = betas[1]
            slot.hyper.adam.eps = group["eps"]
            slot.hyper.adam.weight_decay = group["weight_decay"]
            slot.hyper.adam.maximize = group["maximize"]
            slot.hyper.adam.decoupled = group["decoupled_weight_decay"]
            slot.step = (<dict>self.states[0])["step"]
        else:
            slot.hyper.sgd.lr = group["lr"]
            slot.hyper.sgd.momentum = group["momentum"]
            slot.hyper.sgd.dampening = group["dampening"]
            slot.hyper.sgd.weight_decay = group["weight_decay"]
            slot.hyper.sgd.nesterov = group["nesterov"]
            slot.hyper.sgd.maximize = group["maximize"]
            slot.step = 0 if self.states and (<dict>self.states[0]).get("momentum_buffer") is None else 1
        return 0

    cdef int settle(self, int64_t step) except -1:
        """Step counts and fresh state, as the eager step leaves them."""
        cdef Py_ssize_t i
        if self.adam:
            count = step
            for i in range(len(self.states)):
                (<dict>self.states[i])["step"] = count
        elif self.states and (<dict>self.states[0]).get("momentum_buffer") is None:
            for i in range(len(self.states)):
                (<dict>self.states[i])["momentum_buffer"] = self.buffers[0][i]
        return 0


cdef UpdateLink make_link(optimizer, group, bucket, op):
    cdef UpdateLink link = UpdateLink.__new__(UpdateLink)
    link.optimizer, link.group, link.attributes = optimizer, group, optimizer.__dict__
    link.params, link.states, link.buffers = list(group["params"]), list(bucket.states), tuple(bucket.buffers)
    link.state, link.state_size, link.group_count = optimizer.state, len(optimizer.state), len(optimizer.param_groups)
    link.adam = op == "adam"
    link.has_layout = bucket.buffers[2 if link.adam else 0] is not None
    return link


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


cdef Plan new_plan(list symbols, list outputs, list guards):
    cdef Plan plan = Plan.__new__(Plan)
    cdef Py_ssize_t i
    plan.symbols, plan.guards = symbols, guards
    plan.updates, plan.outputs = [], []
    plan.state_tensors, plan.leaf_tensors, plan.grad_finals, plan.written_inputs, plan.argument_gradients = [], [], [], [], []
    plan.threads, plan.default_dtype, plan.grad_enabled = fbp_threads_get(), fbp_default_dtype(), fbp_mode_get().grad_enabled
    plan.check_mode = fbp_environment_get().check
    plan.input_count, plan.result_count, plan.returned = len(symbols), len(outputs), len(outputs)
    plan.inputs = <int32_t *>fbp_block_get((plan.input_count + 1) * sizeof(int32_t))
    plan.results = <result_slot *>fbp_block_get((plan.result_count + 1) * sizeof(result_slot))
    if plan.inputs == NULL or plan.results == NULL:
        raise MemoryError("cannot allocate a plan")
    for i in range(plan.result_count):
        plan.results[i] = result_slot(-1, NULL)
    return plan


cdef int add_states(Plan plan, fbp_capture *capture, fbp_program *program) except -1:
    """State that lives outside, with the tensors through which it is found."""
    cdef Py_ssize_t i
    plan.state_bytes = (capture.seen_count + 1) * sizeof(state_slot)
    plan.states = <state_slot *>fbp_block_get(plan.state_bytes)
    if plan.states == NULL:
        raise MemoryError("cannot allocate a plan")
    for i in range(capture.seen_count):
        t = capture.seen[i]
        if is_old_gradient(capture, t):  # found through its leaf at each call
            continue
        plan.states[plan.state_count] = state_slot(fbp_retain(t), t.flags, real_buffer(program, t), False)
        plan.state_tensors.append(wrap(fbp_retain(t)))
        plan.state_count += 1
    return 0


def make_plan(Capture source not None, function, list outputs, list guards):
    """The plan of what a capture did: one, or with that of the derivative where outputs require grad and nothing was swept.

    Parameters
    ----------
    outputs : list
        What the function returned, flat: tensors and other objects.
    guards : list of (dict, str, object)
        Entries that must be the same objects at each call.
    """
    cdef fbp_capture *capture = source.capture
    cdef fbp_program *program = capture.program
    cdef Plan plan
    cdef fbp_leaf_change *change
    cdef Py_ssize_t i, count
    symbols = list(source.arguments)
    differentiated = []
    cotangents = gradients = leaves = None
    if fbp_mode_get().grad_enabled and not source.backward_ran:
        differentiated = [i for i, x in enumerate(outputs) if is_computed_with_grad(x) and not is_one_of(x, symbols)
                          and not source.is_swept(x)]
    if differentiated:
        roots = [outputs[i] for i in differentiated]
        leaves = source.leaves(roots)
        cotangents, gradients = source.differentiate(roots, leaves)
        program.phase = 0
    source.finish()
    if capture.failed:
        raise MemoryError("cannot allocate the lists of a capture")

    # Arguments that are leaves collect gradients as results of their own.
    outputs = list(outputs)
    returned = len(outputs)
    argument_gradients = []
    for i in range(capture.leaf_count):
        change = &capture.leaves[i]
        if is_inner(change.leaf) and change.after != NULL:
            for k, symbol in enumerate(symbols):
                if (<Tensor>symbol).node == change.leaf:
                    argument_gradients.append((k, len(outputs)))
                    outputs.append(wrap(fbp_retain(change.after)))

    plan = new_plan(symbols, outputs, guards)
    plan.returned, plan.argument_gradients, plan.function = returned, argument_gradients, function
    plan.updates = [make_link(update[0], update[1], update[2], update[3]) for update in source.updates]
    for i in range(plan.input_count):
        plan.inputs[i] = real_buffer(program, (<Tensor>symbols[i]).node)
    for i, x in enumerate(outputs):
        plan.outputs.append(result_entry(plan, program, i, x))
    plan.leaf_bytes = (capture.leaf_count + 1) * sizeof(leaf_slot)
    plan.leaves = <leaf_slot *>fbp_block_get(plan.leaf_bytes)
    if plan.leaves == NULL:
        raise MemoryError("cannot allocate a plan")
    for i in range(capture.leaf_count):
        if not is_inner(capture.leaves[i].leaf):
            add_leaf(plan, program, &capture.leaves[i])
    add_states(plan, capture, program)
    if differentiated:
        plan.differentiated = differentiated
        add_derivative(plan, source, cotangents, gradients, leaves)
    check(fbp_plan_new(program, <int>len(plan.updates), capture.generator_count, &plan.plan))
    capture.program = NULL
    for i in range(capture.generator_count):
        plan.plan.draws[i] = fbp_draw_slot(capture.generators[i].generator, capture.generators[i].blocks)
    note_written(plan)
    return plan


cdef bint is_computed_with_grad(object x) except -1:
    return isinstance(x, Tensor) and (<Tensor>x).node.storage.symbolic and fbp_requires_grad((<Tensor>x).node)


cdef bint is_one_of(object x, list symbols) except -1:
    for one in symbols:
        if one is x:
            return True
    return False


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
            made[i] = whole[start:start + size].reshape(x.shape)
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


cdef bint is_old_gradient(fbp_capture *capture, fbp_tensor *t) noexcept:
    cdef int32_t i
    for i in range(capture.leaf_count):
        if capture.leaves[i].before != NULL and capture.leaves[i].before.storage == t.storage and not is_inner(capture.leaves[i].leaf):
            return True
    return False


cdef int add_leaf(Plan plan, fbp_program *program, fbp_leaf_change *change) except -1:
    """What a call does to the gradient of a leaf from outside, and what it expects of it before."""
    cdef leaf_slot slot = leaf_slot(NULL, -1, -1, 0, NULL, NULL)
    if not change.replaced_first:
        slot.needs = 1 if change.before == NULL else 2
        if change.before != NULL:
            slot.old = real_buffer(program, change.before)
            slot.old_bound = change.before.data
    if change.after == NULL:
        slot.gradient = -2
    elif change.after != change.before:
        if change.after.storage.symbolic or change.after.storage.captured:
            slot.gradient = write_to_new(program, FBP_BUFFER_GRADIENT, change.after)
        else:
            plan.grad_finals.append((plan.leaf_count, wrap(fbp_retain(change.after))))
    plan.leaves[plan.leaf_count] = slot
    plan.leaf_tensors.append(wrap(fbp_retain(change.leaf)))
    plan.leaf_count += 1
    return 0


cdef struct written_marks:
    fbp_program *program
    uint8_t *marks


cdef void mark_written(void *context, int32_t value, bint written) noexcept:
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
    plan.writes = len(plan.written_inputs) > 0
    for i in range(plan.state_count):
        if not plan.states[i].written:
            continue
        plan.writes = True
        for k in range(plan.state_count):
            if plan.states[k].buffer != plan.states[i].buffer and share_memory(plan.states[i].node, plan.states[k].node):
                raise RuntimeError("compile: two tensors from outside of the function, which writes one of them, look into the same memory "
                                   "as separate storages (two from_numpy() of one array, say); make one a view of the other")
    return 0


cdef object result_entry(Plan plan, fbp_program *program, Py_ssize_t i, object x):
    """How output i comes about: computed, an argument, or an object from outside."""
    cdef fbp_tensor *t
    if not isinstance(x, Tensor):
        return ("object", x)
    t = (<Tensor>x).node
    if not t.storage.symbolic and not t.storage.captured:
        return ("object", x)
    for k, symbol in enumerate(plan.symbols):
        if symbol is x:
            return ("argument", k)
    plan.results[i].buffer = write_to_new(program, FBP_BUFFER_RESULT, t)
    plan.results[i].like = layout_node(t)
    return ("result", None)


cdef class CompiledCall:
    """The call of a compiled function: at once into the latest plan where the arguments are tensors that it fits."""

    cdef object owner
    cdef object latest       # its _Entry
    cdef Plan plan
    cdef object result       # structure of what the function returns
    cdef bint flat           # the arguments are tensors alone, by position
    cdef bint single         # the result is one tensor

    def __cinit__(self, owner):
        import weakref
        self.owner = weakref.ref(owner)

    cdef int adopt(self, object entry) except -1:
        from fastbp.compiler import LEAF
        self.latest = entry
        self.plan = entry.plan
        self.result = entry.result
        args, kwargs = entry.structure
        self.flat = not kwargs and builtin_all([one is LEAF for one in args])
        self.single = entry.result is LEAF
        return 0

    def __call__(self, *args, **kwargs):
        cdef list given
        cdef list made
        if fbp_mode_get().capture != NULL:
            return self.owner()._function(*args, **kwargs)
        given = None
        if self.plan is not None and self.flat and not kwargs:
            given = list(args)
            for one in given:
                if not isinstance(one, Tensor):
                    given = None
                    break
            if given is not None and not (self.plan.accepts(given) and self.plan.is_current()):
                given = None
        if given is None:
            entry, given = self.owner()._find(args, kwargs)
            if entry is not self.latest:
                self.adopt(entry)
        if self.plan.writes and self.plan.overlaps(given):
            return self.owner()._function(*args, **kwargs)
        made = self.plan.run(given)
        if self.single:
            return made[0]
        from fastbp.compiler import unflatten
        return unflatten(self.result, iter(made))

