# Compiled steps, second part: the plan that runs in a function's place, and the state of the world that it runs on.

from cpython.pythread cimport PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock

cdef extern from "pythread.h":
    int PY_LOCK_ACQUIRED
    int PY_LOCK_INTR
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil

# ---- plans ---------------------------------------------------------------------------------------------------------------------

cdef struct state_slot:
    fbp_tensor *node     # that the wrapper stood for when it was bound (held)
    uint16_t flags       # of it at capture
    int32_t buffer
    bint written

cdef struct leaf_slot:
    Py_ssize_t argument  # that the leaf is; -1: a tensor from outside
    fbp_tensor *fresh    # held during a run: memory for the gradient, the leaf's own when the run has succeeded
    fbp_storage *bound_storage  # held during a run: of the gradient that it reads or writes, which other threads may drop
    int32_t gradient     # buffer of the gradient after the call; -1: as it is, -2: none
    int32_t old          # buffer of the gradient that the call reads, -1
    int needs            # 0: no matter; 1: must be None before; 2: must be a tensor
    char *bound          # what `gradient` is bound to
    fbp_tensor *old_like # layout of the gradient that the call reads (held)
    int64_t old_offset   # of its first element in its buffer
    int64_t count        # elements of `gradient`
    int dtype
    uint64_t old_sequence # of its node where it must be the very tensor, since others hold it; 0: any will do

cdef struct result_slot:
    int32_t buffer       # -1: not a tensor that the plan computes
    fbp_tensor *like     # its layout

cdef enum verdict:
    RAN
    FAILED
    UNFIT     # the arguments or the world are not those that the plan was made for
    OVERLAPS  # arguments lie in each other or in what the plan writes: only the function itself is right
    NESTED    # this thread is in the middle of a run of the plan, which has called Python

# Forks of which this process is the child: a lock that was taken before the latest one has no holder here.
cdef int forks_seen = 0


def note_fork():
    """This process is the child of a fork."""
    global forks_seen
    forks_seen += 1


__import__("os").register_at_fork(after_in_child=note_fork)


cdef inline bint is_laid_out_as(const fbp_tensor *t, const fbp_tensor *like) noexcept:
    return t.dtype == like.dtype and t.ndim == like.ndim and memcmp(fbp_shape(t), fbp_shape(like), 2 * t.ndim * sizeof(int64_t)) == 0


@cython.final
@cython.binding(False)
cdef class Plan:
    """What a compiled function runs: a list of steps over one arena.

    `print(step.plan)` shows a line a step: operation, shape of the result, bytes read and written, floating-point operations, offset of the
    result in the arena.

    Attributes
    ----------
    peak_bytes : int
        Memory that the plan itself takes: the arena.  Parameters, gradients and results are not in it.
    peak_bytes_without : int or None
        What it would be if nothing were computed again; None where there is neither a memory budget nor a region of checkpointing, or where
        these are about `saved_bytes`.
    saved_bytes : int
        What a call keeps until its backward, where the function is compiled with its derivative.
    saved_bytes_without : int or None
        The same if nothing were computed again; None as above.
    budget_met : bool
        Whether the memory budget, if there is one, was met.
    """

    cdef fbp_plan *plan
    cdef state_slot *states
    cdef leaf_slot *leaves
    cdef result_slot *results
    cdef int32_t *inputs
    cdef fbp_tensor **taken       # the arguments' nodes in a run (held): handles may come to stand for others meanwhile
    cdef bint is_taken
    cdef Py_ssize_t state_count, leaf_count, result_count, input_count, state_bytes, leaf_bytes
    cdef list state_tensors, leaf_tensors, symbols, updates, optimizers, outputs, grad_finals, written_inputs
    cdef Guards guards            # of Python's state; None: there are none
    cdef list points              # where gradients of the arguments arrived in the capture (Capture.points)
    cdef list argument_gradients  # (argument, result): what goes on to the history of an argument that has one
    cdef bint is_plain            # results are computed, and nothing else but its state is to be seen to
    cdef bint leaves_more         # than state and gradients: settle_more()
    cdef bint retains             # these sweeps keep the graph of their arguments
    cdef bint collects            # gradients of leaves among the arguments
    cdef bint cautious            # a call looks whether its arguments lie apart from what the plan writes, and from each other
    cdef list generators          # held: that the plan draws from
    cdef list returned_before     # slots of leaves whose gradient as it was before the call is returned
    cdef PlanNumbers numbers      # None: the function looks at no optimizer's numbers
    cdef Py_ssize_t returned      # results that are the function's own
    # Held from the look at the world until all is written back; then everything else here that changes is the holder's.  Whoever waits
    # for it lets go of the interpreter's lock, so its holder may take that.
    cdef PyThread_type_lock lock
    cdef unsigned long holder     # number of the thread that has the lock, 0: none
    cdef int holder_fork          # forks_seen when it took it
    cdef int threads, default_dtype
    cdef bint grad_enabled, grad_after, check_mode  # recording when the function begins, and when it has run
    cdef object check    # PlanCheck in check mode, else None
    # Of a function that is compiled with its derivative:
    cdef readonly Plan derivative      # its inputs are the cotangents, then the arguments; its results the gradients of `edges`
    cdef list edges                    # what is differentiated: ("argument", number) or ("tensor", Tensor)
    cdef list differentiated           # which results require grad
    cdef list depending                # by differentiated result: those, by their number among them, that were computed from it
    cdef bint asks_absent              # a user's rule decides what to do where a result is not used: then the function runs again
    cdef list inner_leaves             # results that require grad without a history
    cdef list saved                    # (buffer, offset in the block that is saved); of a derivative: those that it reads
    cdef Derivatives derivatives       # what others are made of, for calls of which some results are not used; or None
    cdef readonly int64_t saved_bytes
    cdef int64_t bytes_without         # of the arena, or, with a derivative, of what is saved; -1: unknown
    cdef readonly bint budget_met
    cdef object function
    # Of a derivative:
    cdef fbp_generator *places         # where the function's random numbers began
    cdef Py_ssize_t place_count
    cdef list watched                  # which arguments, and after them which state, it reads

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("cannot allocate a lock")

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.lock != NULL:
            PyThread_free_lock(self.lock)
        fbp_plan_free(self.plan)
        if self.states != NULL:
            for i in range(self.state_count):
                fbp_release(self.states[i].node)
            fbp_block_free(self.states, self.state_bytes)
        if self.leaves != NULL:
            for i in range(self.leaf_count):
                if self.leaves[i].old_like != NULL:
                    fbp_release(self.leaves[i].old_like)
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
        if self.taken != NULL:
            fbp_block_free(self.taken, (self.input_count + 1) * sizeof(fbp_tensor *))

    @property
    def peak_bytes(self):
        """Bytes of the arena."""
        return fbp_plan_peak_bytes(self.plan)

    @property
    def peak_bytes_without(self):
        """Bytes of the arena without recomputation, None where it is not known."""
        return self.bytes_without if self.bytes_without >= 0 and self.derivative is None else None

    @property
    def saved_bytes_without(self):
        """Bytes saved for the derivative without recomputation, None where it is not known."""
        return self.bytes_without if self.bytes_without >= 0 and self.derivative is not None else None

    @property
    def steps(self):
        """The steps as dicts: name, shape, dtype, offset (None outside of the arena), bytes, flops, again (computed a second time)."""
        cdef fbp_program *program = self.plan.program
        cdef int32_t i
        cdef char name[256]
        cdef fbp_line_cost cost
        result = []
        for i in range(program.line_count):
            fbp_line_name(program, &program.lines[i], name, sizeof(name))
            cost = fbp_line_cost_of(program, &program.lines[i])
            entry = {"name": name.decode(), "shape": None, "dtype": None, "offset": None, "bytes": cost.bytes, "flops": cost.flops,
                     "again": bool(fbp_line_is_again(&program.lines[i]))}
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
        from fastbp._plan_text import format_plan
        return format_plan(self)

    # ---- whether it fits --------------------------------------------------------------------------------------------------

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef bint accepts(self, list given) except -1:
        """Whether the arguments and the world are those that the plan was made for."""
        cdef Py_ssize_t i, k
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
                    memcmp(fbp_shape(a), fbp_shape(b), 2 * a.ndim * sizeof(int64_t)) != 0 or a.storage.read_only > b.storage.read_only or \
                    a.storage.symbolic or (a.autograd != NULL and a.autograd.hooks != NULL and has_hooks(a)) or has_attributes(<Tensor>given[i]):
                return False
            if fbp_requires_grad(a):  # what is computed on is told from what is not, and one tensor from two
                if (a.edge_count == 0) != (b.edge_count == 0):
                    return False
                for k in range(i):
                    if (given[k] is given[i]) != (self.symbols[k] is self.symbols[i]):
                        return False
        return True

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef fbp_tensor *leaf(self, Py_ssize_t i, list given) noexcept:
        """The leaf of slot i at this call."""
        if self.leaves[i].argument >= 0:
            return self.argument(self.leaves[i].argument, given)
        return (<Tensor>self.leaf_tensors[i]).node

    cdef bint is_current(self, list given) except -1:
        """Whether modules, optimizers and gradients are as at capture; STATE buffers follow tensors that moved.  For who has the lock."""
        return self.world_holds() and self.memory_holds(given)

    cdef bint world_holds(self) except -1:
        """Whether modules and optimizers are as at capture: Python's objects, the look at which may run anything."""
        if self.guards is not None and not self.guards.hold():
            return False
        if self.numbers is not None and not self.numbers.is_current():
            return False
        for entry in self.optimizers:
            if not (<OptimizerLink>entry).is_current(self):
                return False
        for entry in self.updates:
            if not (<UpdateLink>entry).is_current():
                return False
        return True

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef bint memory_holds(self, list given) except -1:
        """Whether state and gradients are as at capture.  From here until all is bound and held nothing runs that could change them."""
        cdef Py_ssize_t i
        cdef Tensor wrapper
        cdef fbp_tensor *leaf
        cdef fbp_tensor *gradient
        for i in range(self.state_count):
            wrapper = <Tensor>self.state_tensors[i]
            if (wrapper.node.flags ^ self.states[i].flags) & FBP_REQUIRES_GRAD or \
                    (wrapper.node != self.states[i].node and not self.follow(i, wrapper.node)):
                return False
        for i in range(self.leaf_count):
            if self.leaves[i].needs:
                leaf = self.leaf(i, given)
                gradient = leaf.autograd.gradient if leaf.autograd != NULL else NULL
                if (gradient != NULL) != (self.leaves[i].needs == 2):
                    return False
                if gradient != NULL and (not is_laid_out_as(gradient, self.leaves[i].old_like) or gradient.storage.symbolic
                                         or gradient.storage.read_only or fbp_requires_grad(gradient)
                                         or (self.leaves[i].old_sequence and gradient.sequence != self.leaves[i].old_sequence)):
                    return False
        return True

    def fits(self, list given not None):
        """Whether the plan can run now with these arguments."""
        given = backward_list(given, "arguments")
        if not self.accepts(given) or not self.acquire():
            return False
        try:
            return self.is_current(given)
        finally:
            self.release()

    def changes(self, list given not None):
        """What keeps the plan from running with arguments that it was made for, each as (what, how it is) in words; None for other arguments.

        Empty where the reason is one that leads to a few plans and no more: gradients that are None or not.
        """
        given = backward_list(given, "arguments")
        if not self.accepts(given) or not self.acquire():
            return None
        try:
            return self.changes_now()
        finally:
            self.release()

    cdef list changes_now(self):
        found = [] if self.guards is None else self.guards.changes()
        if self.numbers is not None and not self.numbers.is_current():
            found.append(("a number of an optimizer on which the function decides", "is another"))
        for entry in self.optimizers:
            if not (<OptimizerLink>entry).is_current(self):
                found.append((f"parameters or state of {builtin_type((<OptimizerLink>entry).optimizer).__name__}", "are others"))
        return found

    cdef bint overlaps(self, list given) except -1:
        """Whether an argument shares memory with what the plan writes, is a leaf that the plan knows by another way too, or has retain_grad():
        then only the function itself is right."""
        cdef Py_ssize_t i, k
        cdef fbp_tensor *a
        cdef char *low
        cdef char *high
        for i in range(self.input_count):
            a = self.argument(i, given)
            if a.flags & FBP_RETAINS_GRAD:
                return True
            reach_of(a, &low, &high)
            for k in range(self.state_count):
                if self.states[k].written and touches(low, high, self.states[k].node):
                    return True
        for i in self.written_inputs:
            for k in range(self.input_count):
                if self.symbols[k] is not self.symbols[i] and share_memory(self.argument(i, given), self.argument(k, given)):
                    return True
            for k in range(self.state_count):
                if share_memory(self.argument(i, given), self.states[k].node):
                    return True
        for i in range(self.leaf_count):
            if self.leaves[i].old < 0:
                continue
            a = gradient_of(self.leaf(i, given))
            for k in range(self.input_count if a != NULL else 0):
                if share_memory(a, self.argument(k, given)):
                    return True
        for i in range(self.leaf_count if self.collects else 0):
            for k in range(i):
                if (self.leaves[i].argument >= 0 or self.leaves[k].argument >= 0) and self.leaf(i, given) == self.leaf(k, given):
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
        if self.plan.program.buffers[self.states[i].buffer].values >= 0:  # else nothing in it is computed with
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

    cdef fbp_tensor *argument(self, Py_ssize_t i, list given) noexcept:
        """Argument i of this call."""
        return self.taken[i] if self.is_taken else (<Tensor>given[i]).node

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef void take(self, list given) noexcept:
        """Hold the arguments as they are now; the run is about these."""
        cdef Py_ssize_t i
        for i in range(self.input_count):
            self.taken[i] = fbp_retain((<Tensor>given[i]).node)
        self.is_taken = True

    cdef void let_go(self) noexcept:
        """The run is over: no more is held than the plan itself needs."""
        cdef Py_ssize_t i
        cdef fbp_storage *held
        if self.is_taken:
            self.is_taken = False
            for i in range(self.input_count):
                fbp_release(self.taken[i])
        for i in range(self.leaf_count):
            held = self.leaves[i].bound_storage
            if held != NULL:
                self.leaves[i].bound_storage = NULL
                fbp_storage_release(held)

    cdef void bind_inputs(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.input_count):
            if self.inputs[i] >= 0:
                fbp_plan_bind(self.plan, self.inputs[i], self.taken[i].data)

    cdef int bind_gradients(self, list given) except -1:
        """Memory for the gradients that will be there after the call: that of the present ones where no one else looks at it."""
        cdef Py_ssize_t i
        cdef fbp_tensor *gradient
        cdef fbp_tensor *leaf
        for i in range(self.leaf_count):
            leaf = self.leaf(i, given)
            gradient = leaf.autograd.gradient if leaf.autograd != NULL else NULL
            if self.leaves[i].old >= 0 and gradient != NULL:
                fbp_plan_bind(self.plan, self.leaves[i].old, gradient.data - self.leaves[i].old_offset)
                self.hold_gradient(i, gradient)
            if self.leaves[i].gradient < 0:
                continue
            if gradient == NULL or self.leaves[i].old >= 0 or gradient.references != 1 or gradient.storage.references != 1 or gradient.edge_count or \
                    gradient.storage.release != NULL or not fbp_is_contiguous(gradient) or fbp_requires_grad(gradient) or \
                    gradient.storage.symbolic or gradient.numel != self.leaves[i].count or gradient.dtype != self.leaves[i].dtype:
                if fbp_autograd_get(leaf) == NULL:
                    raise MemoryError("cannot allocate a gradient")
                if leaf.numel != self.leaves[i].count or leaf.dtype != self.leaves[i].dtype:
                    raise RuntimeError(f"compile: a leaf has become one of shape {shape_tuple(leaf)}, and its gradient is planned for another")
                gradient = self.leaves[i].fresh = empty_like_node(leaf)
            else:
                self.hold_gradient(i, gradient)
            if gradient.data != self.leaves[i].bound:
                fbp_plan_bind(self.plan, self.leaves[i].gradient, gradient.data)
                self.leaves[i].bound = gradient.data
        return 0

    cdef inline void hold_gradient(self, Py_ssize_t i, fbp_tensor *gradient) noexcept:
        fbp_storage_retain(gradient.storage)
        self.leaves[i].bound_storage = gradient.storage

    cdef int fail(self, list given, bint began) except -1:
        """After a run that failed: gradients that were to be overwritten are gone, as after zero_grad(); others are as before, and all are
        where it had not begun."""
        cdef Py_ssize_t i
        cdef fbp_tensor *leaf
        cdef fbp_tensor *gradient
        for i in range(self.leaf_count):
            if self.leaves[i].fresh != NULL:
                gradient = self.leaves[i].fresh
                self.leaves[i].fresh = NULL
                self.leaves[i].bound = NULL
                fbp_release(gradient)
            elif began and self.leaves[i].bound_storage != NULL and self.leaves[i].gradient >= 0:
                leaf = self.leaf(i, given)
                gradient = gradient_of(leaf)
                if gradient != NULL and gradient.storage == self.leaves[i].bound_storage:
                    leaf.autograd.gradient = NULL
                    fbp_release(gradient)
        for entry in self.optimizers if began else ():
            (<OptimizerLink>entry).failed = True
        return 0

    cdef int settle(self, list given) except -1:
        """After a run: versions of what was written, gradients that are gone, step counts."""
        cdef Py_ssize_t i
        cdef fbp_autograd *extra
        cdef fbp_tensor *gradient
        for i in range(self.state_count):
            if self.states[i].written:
                self.states[i].node.storage.version += 1
        for i in range(self.leaf_count):
            if self.leaves[i].fresh != NULL:
                self.settle_fresh(i, self.leaf(i, given))
            extra = self.leaf(i, given).autograd
            if extra == NULL or extra.gradient == NULL:
                continue
            if self.leaves[i].gradient == -2:
                gradient = extra.gradient
                extra.gradient = NULL
                fbp_release(gradient)
            elif self.leaves[i].gradient >= 0 or self.leaves[i].old >= 0:
                extra.gradient.storage.version += 1
        if self.leaves_more:
            self.settle_more(given)
        return 0

    cdef int settle_fresh(self, Py_ssize_t i, fbp_tensor *leaf) except -1:
        """The leaf's gradient is a new one; another thread may have made the leaf stand for other elements meanwhile."""
        cdef fbp_tensor *fresh = self.leaves[i].fresh
        cdef fbp_tensor *before
        cdef fbp_autograd *extra = fbp_autograd_get(leaf)
        self.leaves[i].fresh = NULL
        if extra == NULL or fresh.dtype != leaf.dtype or not fbp_same_shape(fresh, leaf):
            fbp_release(fresh)
            if extra == NULL:
                raise MemoryError("cannot allocate a gradient")
            return 0
        before = extra.gradient
        extra.gradient = fresh
        if before != NULL:
            fbp_release(before)
        return 0

    cdef int settle_more(self, list given) except -1:
        """What few plans leave behind: written arguments, gradients from outside, optimizers."""
        cdef Py_ssize_t i
        for i in self.written_inputs:
            self.taken[i].storage.version += 1
        for i, final in self.grad_finals:
            wrap(fbp_retain(self.leaf(i, given))).grad = self.outside_output(final, given)
        for i in range(len(self.updates)):
            (<UpdateLink>self.updates[i]).settle(&self.plan.updates[i])
        for entry in self.optimizers:
            (<OptimizerLink>entry).settle()
        if self.numbers is not None:
            self.numbers.settle()
        return 0

    cdef fbp_status execute(self) except *:
        cdef fbp_status status
        if self.check_mode:
            return fbp_plan_run_checked(self.plan)
        with nogil:
            status = fbp_plan_run(self.plan)
        return status

    cdef bint acquire(self) except -1:
        """One run at a time: others wait, without the interpreter's lock.  False for who has it already, within what a run has called."""
        if not PyThread_acquire_lock(self.lock, 0):
            if self.holder_fork != forks_seen:
                self.free_of_parent()
            elif self.holder == <unsigned long>PyThread_get_thread_ident():
                return False
            self.wait()
        self.holder, self.holder_fork = <unsigned long>PyThread_get_thread_ident(), forks_seen
        return True

    cdef int wait(self) except -1:
        cdef int got = PY_LOCK_INTR
        while got != PY_LOCK_ACQUIRED:
            with nogil:
                got = PyThread_acquire_lock_timed(self.lock, -1, 1)
            if got == PY_LOCK_INTR:
                PyErr_CheckSignals()
        return 0

    cdef int free_of_parent(self) except -1:
        """In a child of a fork: the thread that had the lock is the parent's, and what it held is held for ever."""
        cdef PyThread_type_lock lock = PyThread_allocate_lock()
        if lock == NULL:
            raise MemoryError("cannot allocate a lock")
        self.lock, self.is_taken = lock, False
        for i in range(self.leaf_count):
            self.leaves[i].fresh, self.leaves[i].bound_storage = NULL, NULL
        return 0

    cdef void release(self) noexcept:
        self.holder = 0
        PyThread_release_lock(self.lock)

    cdef int prepare_numbers(self) except -1:
        """Hyperparameters as they are now."""
        cdef Py_ssize_t i
        if self.leaves_more:
            if self.numbers is not None:
                self.numbers.begin()
            for i in range(len(self.updates)):
                (<UpdateLink>self.updates[i]).begin(&self.plan.updates[i])
        return 0

    cdef list make_results(self):
        """New tensors for what the plan computes, None for what it does not."""
        cdef Py_ssize_t i
        cdef fbp_tensor *made
        cdef list made_results = []
        for i in range(self.result_count):
            if self.results[i].buffer < 0:
                made_results.append(None)
                continue
            check(fbp_tensor_like(self.results[i].like, 0, 0, &made))
            made_results.append(wrap(made))
        return made_results

    cdef int bind(self, list given, list made) except -1:
        """Arguments, gradients and results, as they are now."""
        cdef Py_ssize_t i
        self.bind_inputs()
        if self.leaf_count:
            self.bind_gradients(given)
        for i in range(self.result_count if made is not None else 0):
            if self.results[i].buffer >= 0:
                fbp_plan_bind(self.plan, self.results[i].buffer, (<Tensor>made[i]).node.data)
        return 0

    cdef list attempt(self, list given, bint known, verdict *found):
        """One call: the outputs in order, where *found is RAN; else why the plan cannot stand for it, and nothing has happened.

        known: this thread has just found that the plan fits, or made it.
        """
        cdef list made
        cdef fbp_status status
        cdef Sweep sweep = None
        cdef Replay replay = None
        cdef dict before = None
        cdef bint began = False
        if not self.acquire():
            found[0] = NESTED
            return None
        found[0] = FAILED
        try:
            if not self.accepts(given):
                found[0] = UNFIT
                return None
            self.take(given)
            if not known and not self.world_holds():
                found[0] = UNFIT
                return None
            self.prepare_numbers()
            made = self.make_results()
            if not self.is_plain:
                if self.derivative is not None:
                    sweep = new_sweep(self, given)
                if self.returned_before:
                    before = {i: wrap(fbp_retain(self.leaf(i, given))).grad for i in self.returned_before}
                if self.check is not None:
                    replay = (<PlanCheck>self.check).begin(self, given)
            if not self.memory_holds(given):
                found[0] = UNFIT
                return None
            if self.cautious and self.overlaps(given):
                found[0] = OVERLAPS
                return None
            self.bind(given, made)
            if sweep is not None:
                sweep.begin(replay)
            began = True
            status = self.execute()
            if status != FBP_OK:
                raise_status(status)
            if sweep is not None:
                sweep.note_places()
            self.settle(given)
            found[0] = RAN
        finally:
            self.leave(given, found[0] == FAILED, began)
        if sweep is not None:
            sweep.record(made)
        return made if self.is_plain else self.finish(given, made, before, replay)

    cdef int leave(self, list given, bint failed, bint began) except -1:
        """The run is over, or has not begun: others may have the plan."""
        if failed:
            self.fail(given, began)
        self.let_go()
        self.release()
        return 0

    cdef list finish(self, list given, list made, dict before, Replay replay):
        """The outputs that the run did not compute, and what a call does after its run."""
        cdef Py_ssize_t i
        for i in range(self.result_count):
            if self.results[i].buffer < 0:
                kind, value = self.outputs[i]
                if kind not in ("same", "part"):
                    made[i] = before[value] if kind == "gradient before" else self.outside_output(self.outputs[i], given)
        for i in range(self.result_count):
            if self.results[i].buffer < 0:
                kind, value = self.outputs[i]
                if kind == "same":
                    made[i] = made[value]
                elif kind == "part":
                    made[i] = (<OutsideView>value[1]).make_of(<Tensor>made[<Py_ssize_t>value[0]])
        if self.inner_leaves:
            for i in self.inner_leaves:
                (<Tensor>made[i]).node.flags |= FBP_REQUIRES_GRAD
        if self.grad_after != self.grad_enabled:
            fbp_mode_get().grad_enabled = self.grad_after
        if replay is not None:
            (<PlanCheck>self.check).finish(self, replay, given, made)
        if self.argument_gradients:
            for i, k in self.argument_gradients:
                run_backward([given[i]], [made[k]], self.retains, False, None)
            del made[self.returned:]
        return made

    cdef object outside_output(self, tuple output, list given):
        """A result, or a gradient, that the plan does not compute: an object, an argument, a view of memory from outside, a gradient."""
        kind, value = output
        if kind == "argument":
            return given[value]
        if kind == "view":
            return (<OutsideView>value).make(given)
        if kind == "gradient":
            return wrap(fbp_retain(self.leaf(value, given))).grad
        return value

    @property
    def may_pass(self):
        """Whether a pass may bring each batch in the same memory: nothing of an argument is changed, or seen after the call; and whether all
        that a call does is done by the run."""
        if self.argument_gradients or self.collects or self.written_inputs or self.grad_after != self.grad_enabled:
            return False
        outside = self.outputs + [final for _, final in self.grad_finals]
        return builtin_all([kind == "result" or (kind == "object" and not isinstance(value, Tensor)) for kind, value in outside])

    def reads_apart(self, list tensors not None):
        """Whether no run writes into these tensors: then rows of them are the same whenever they are read."""
        tensors = backward_list(tensors, "arguments")
        if len(tensors) != self.input_count:
            raise ValueError(f"a plan of {self.input_count} arguments is asked about {len(tensors)}")
        return not self.overlaps(tensors)

    cdef bint undoes_itself(self) noexcept:
        """Whether a run leaves gradients for which the plan must be bound anew, or which want another plan."""
        cdef Py_ssize_t i
        cdef leaf_slot *leaf
        for i in range(self.leaf_count):
            leaf = &self.leaves[i]
            if (leaf.needs == 1 and leaf.gradient >= 0) or (leaf.needs == 2 and leaf.gradient != -1):
                return True
        return len(self.grad_finals) > 0

    def start_pass(self, list tensors not None, list batches not None, order, int64_t size, int64_t count):
        """Ready a BatchPass: `count` runs on `size` rows each of `tensors`, in the order of `order` (None: as they lie)."""
        cdef BatchPass run = BatchPass.__new__(BatchPass)
        cdef Py_ssize_t i, n, used = 0
        cdef Tensor stacked
        if self.derivative is not None:
            raise RuntimeError("epoch: the function returns tensors that require grad without having called backward(); return "
                               "loss.detach(), or run it under no_grad()")
        # Handles of its own, which no one makes stand for other elements while it runs, and an order that no one changes.
        tensors, batches = [(<Tensor?>x).detach() for x in tensors], [(<Tensor?>x).detach() for x in batches]
        order = check_pass(self, tensors, batches, order, size, count)
        run.plan, run.tensors, run.given, run.order, run.count = self, tensors, batches, order, count
        n = self.input_count
        run.one_by_one = self.check is not None or (self.numbers is not None and self.numbers.changes) or self.undoes_itself()
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

    def profile_run(self, list given not None, seconds):
        """One call, adding each step's seconds to an array('d')."""
        cdef double[::1] times = seconds
        cdef fbp_status status
        cdef list made
        cdef Sweep sweep = None
        cdef bint began = False, done = False
        given = backward_list(given, "arguments")
        if times.shape[0] < len(self):
            raise ValueError(f"profile: {times.shape[0]} places for the seconds of {len(self)} steps")
        if not self.acquire():
            raise RuntimeError("profile: the function is called by its own run")
        try:
            if not self.accepts(given):
                raise RuntimeError("profile: the plan was made for other arguments")
            self.take(given)
            if not self.world_holds():
                raise RuntimeError("profile: modules or optimizers changed while it was timed")
            self.prepare_numbers()
            made = self.make_results()  # held: the run writes into them, as into what a sweep would need
            if self.derivative is not None:
                sweep = new_sweep(self, given)
            if not self.memory_holds(given):
                raise RuntimeError("profile: tensors or gradients changed while it was timed")
            if self.cautious and self.overlaps(given):
                raise RuntimeError("profile: arguments share memory with each other or with what the function writes; calls with these run "
                                   "the function itself, which has no steps to time")
            self.bind(given, made)
            if sweep is not None:
                sweep.begin(None)
            began = True
            with nogil:
                status = fbp_plan_run_timed(self.plan, &times[0])
            if status != FBP_OK:
                raise_status(status)
            self.settle(given)
            done = True
        finally:
            self.leave(given, not done, began)
