# What ties a plan to the optimizers that it steps: their options and counts go in before a run, state comes out after it.

cdef struct stepped_param:
    int32_t place      # of its entry in the snapshot, -1: it has none
    bint missing       # some of its state is not in the optimizer's yet: the run that succeeds enters it
    int64_t done       # steps before the next run; of an optimizer that counts none, whether there is state


@cython.final
@cython.binding(False)
cdef class OptimizerLink:
    """One optimizer that a plan steps, and the state that the plan is bound to."""

    cdef object optimizer
    cdef dict attributes
    cdef StateSnapshot snapshot  # None: the state must be looked at
    cdef Py_ssize_t group_count
    cdef bint counts             # "step" in the state counts the steps
    cdef list params, names, tensors  # a parameter each: names of its state, and the tensors that the plan is bound to
    cdef dict numbers            # of the parameters, by id
    cdef stepped_param *stepped
    cdef Py_ssize_t capacity
    cdef bint lacking            # something is missing
    cdef bint failed             # a run has: what is missing may have been written to

    def __dealloc__(self):
        if self.stepped != NULL:
            fbp_block_free(self.stepped, self.capacity * sizeof(stepped_param))

    cdef int32_t number_of(self, object param, tuple names, list tensors) except -1:
        """The number of a parameter, which is entered where it is new."""
        cdef object number = self.numbers.get(id(param))
        cdef stepped_param *larger
        if number is None:
            number = self.numbers[id(param)] = len(self.params)
            self.params.append(param)
            self.names.append(())
            self.tensors.append([])
            if len(self.params) > self.capacity:
                larger = <stepped_param *>fbp_block_get((2 * len(self.params) + 8) * sizeof(stepped_param))
                if larger == NULL:
                    raise MemoryError("cannot allocate a plan's list of parameters")
                if self.stepped != NULL:
                    memcpy(larger, self.stepped, self.capacity * sizeof(stepped_param))
                    fbp_block_free(self.stepped, self.capacity * sizeof(stepped_param))
                self.stepped, self.capacity = larger, 2 * len(self.params) + 8
            self.stepped[<int>number] = stepped_param(-1, True, 0)
        if len(names) > len(<tuple>self.names[number]):
            self.names[number], self.tensors[number] = names, tensors
        return number

    cdef bint is_current(self, Plan plan) except -1:
        """Whether the plan stands for the optimizer's groups and state as they are now; replaced tensors are bound."""
        cdef Py_ssize_t i
        cdef stepped_param *one
        if len(<list?>self.attributes["param_groups"]) != self.group_count:
            return False
        if self.snapshot is None or self.failed or not self.snapshot.holds(self.attributes["state"]):
            if not self.adopt(plan):
                return False
        if self.counts:
            for i in range(len(self.params)):
                one = &self.stepped[i]
                one.done = self.snapshot.entries[one.place].step if one.place >= 0 else 0
        return True

    cdef bint adopt(self, Plan plan) except -1:
        """Look at the state by its names: bind the plan to what is there, and to zeros where there is nothing."""
        cdef object state = self.attributes["state"]
        cdef Py_ssize_t i, k
        cdef bint there
        cdef list bound
        self.snapshot = None
        self.lacking = False
        for i in range(len(self.params)):
            entry, bound = state.get(self.params[i]), <list>self.tensors[i]
            self.stepped[i].done = 0
            there = True
            for k in range(len(bound)):
                found = None if entry is None else entry.get((<tuple>self.names[i])[k])
                if found is None:
                    there = False
                    if self.stepped[i].missing and not self.failed:
                        continue  # zeros that no run has seen
                    found = zeros_like(self.params[i])
                if found is not bound[k]:
                    if not isinstance(found, Tensor) or not rebind(plan, self, bound[k], found):
                        return False
                    bound[k] = found
            self.stepped[i].missing = not there
            self.lacking |= not there
            if there and not self.counts:
                self.stepped[i].done = 1
        self.failed = False
        self.snapshot = StateSnapshot(state)
        places = {id(one[0]): k for k, one in enumerate(self.snapshot.held)}
        for i in range(len(self.params)):
            self.stepped[i].place = places.get(id(self.params[i]), -1)
        return self.snapshot.holds(state)

    cdef int settle(self) except -1:
        """Step counts and fresh state, as the eager step leaves them."""
        cdef object state = self.attributes["state"]
        cdef int64_t written = -1
        cdef object number = None
        cdef stepped_param *one
        cdef Py_ssize_t i, k
        if not self.counts and not self.lacking:
            return 0
        for i in range(len(self.params)):
            one = &self.stepped[i]
            if self.counts and one.done != written:
                number, written = one.done, one.done
            if one.place >= 0 and self.snapshot is not None:
                entry = <object>self.snapshot.entries[one.place].entry
            elif self.counts or self.names[i]:
                entry = <dict?>state[self.params[i]]
            else:
                continue
            if self.counts:
                (<dict?>entry)[STEP] = number
            if one.missing:
                for k in range(len(<tuple>self.names[i])):
                    (<dict?>entry)[(<tuple>self.names[i])[k]] = (<list>self.tensors[i])[k]
                one.missing = False
        if self.lacking:
            self.snapshot = None
        return 0


cdef bint rebind(Plan plan, OptimizerLink owner, Tensor old, Tensor new) except -1:
    """Bind the plan to `new` in place of a state tensor; False where other parts of the plan see the old one, or where it does not fit."""
    cdef fbp_program *program = plan.plan.program
    cdef Py_ssize_t i, k, found = -1
    cdef bytearray marks = bytearray(program.buffer_count)
    cdef touched_marks touched = touched_marks(program, <uint8_t *>marks)
    cdef OptimizerLink other
    for i in range(plan.state_count):
        if plan.state_tensors[i] is old:
            found = i
        elif share_memory(new.node, plan.states[i].node):
            return False
    if found < 0 or not fbp_is_contiguous(new.node) or (new.node.flags ^ plan.states[found].flags) & FBP_REQUIRES_GRAD:
        return False
    for i in range(program.line_count):
        if program.lines[i].kind != FBP_LINE_UPDATE:
            fbp_line_touch(program, &program.lines[i], mark_touched, &touched)
    if marks[plan.states[found].buffer]:
        return False
    for kind, value in plan.outputs:
        if value is old:
            return False
    for other in plan.optimizers:
        for i in range(len(other.params)):
            for k, one in enumerate(<list>other.tensors[i]):
                if one is old and other is not owner:
                    return False
    if not plan.follow(found, new.node):
        return False
    plan.state_tensors[found] = new
    return True


cdef struct touched_marks:
    fbp_program *program
    uint8_t *marks


cdef void mark_touched(void *context, int32_t value, c_bool written) noexcept:
    cdef touched_marks *touched = <touched_marks *>context
    touched.marks[touched.program.values[value].buffer] = 1


cdef struct line_param:
    int32_t number     # among the optimizer's
    int64_t earlier    # steps of it by earlier lines of a run


@cython.final
@cython.binding(False)
cdef class UpdateLink:
    """One UPDATE line: the group whose options it takes, and which of its optimizer's parameters it steps."""

    cdef OptimizerLink owner
    cdef Py_ssize_t group_number
    cdef object group
    cdef list params           # of the whole group
    cdef line_param *line      # the line's parameters
    cdef Py_ssize_t count
    cdef dict options          # those that the function itself sets before the step
    cdef bint adam, has_layout

    def __dealloc__(self):
        if self.line != NULL:
            fbp_block_free(self.line, (self.count + 1) * sizeof(line_param))

    cdef bint is_current(self) except -1:
        """Whether the group has the same parameters and layout as at capture."""
        cdef list now
        cdef Py_ssize_t i
        cdef list groups = <list?>self.owner.attributes["param_groups"]
        if self.group_number >= len(groups):
            return False
        self.group = groups[self.group_number]
        now = <list?>self.group["params"]
        if len(now) != len(self.params):
            return False
        for i in range(len(now)):
            if now[i] is not self.params[i]:
                return False
        layout = "amsgrad" if self.adam else "momentum"
        return layout in self.options or bool(self.group[layout]) == self.has_layout

    cdef int begin(self, fbp_update_slot *slot) except -1:
        """The group's options and its parameters' steps as they are now."""
        cdef Py_ssize_t i
        self.read_options(slot)
        if self.adam or self.has_layout:
            for i in range(self.count):
                slot.steps[i] = self.owner.stepped[self.line[i].number].done + self.line[i].earlier
        return 0

    cdef int read_options(self, fbp_update_slot *slot) except -1:
        cdef object group = self.group
        if self.options:
            group = {**group, **{key: options_now(value) for key, value in self.options.items()}}
        if self.adam:
            beta1, beta2 = group["betas"]
            slot.hyper.adam.lr = group["lr"]
            slot.hyper.adam.beta1 = beta1
            slot.hyper.adam.beta2 = beta2
            slot.hyper.adam.eps = group["eps"]
            slot.hyper.adam.weight_decay = group["weight_decay"]
            slot.hyper.adam.maximize = group["maximize"]
            slot.hyper.adam.decoupled = group["decoupled_weight_decay"]
        else:
            slot.hyper.sgd.lr = group["lr"]
            slot.hyper.sgd.momentum = group["momentum"]
            slot.hyper.sgd.dampening = group["dampening"]
            slot.hyper.sgd.weight_decay = group["weight_decay"]
            slot.hyper.sgd.nesterov = group["nesterov"]
            slot.hyper.sgd.maximize = group["maximize"]
        return 0

    cdef int settle(self, const fbp_update_slot *slot) except -1:
        """How many steps the parameters have done, from the counts that a run has moved on."""
        cdef Py_ssize_t i
        if self.owner.counts or self.owner.lacking:
            for i in range(self.count):
                self.owner.stepped[self.line[i].number].done = slot.steps[i] - self.line[i].earlier
        return 0


cdef object options_now(object value):
    """An option, or a tuple of such, as the plan's numbers are now."""
    return tuple([number_now(one) for one in value]) if isinstance(value, tuple) else number_now(value)


cdef OptimizerLink new_optimizer_link(optimizer, bint counts):
    cdef OptimizerLink link = OptimizerLink.__new__(OptimizerLink)
    link.optimizer, link.attributes, link.counts = optimizer, optimizer.__dict__, counts
    link.params, link.names, link.tensors, link.numbers = [], [], [], {}
    link.group_count = len(link.attributes["param_groups"])
    return link


cdef int add_updates(Plan plan, list updates) except -1:
    """A link for each UPDATE line, in their order, and one for each optimizer behind them."""
    cdef UpdateLink link
    cdef OptimizerLink owner
    cdef dict owners = {}, counted = {}
    for optimizer, group_number, bucket, op in updates:
        owner = owners.get(id(optimizer))
        if owner is None:
            owner = owners[id(optimizer)] = new_optimizer_link(optimizer, op == "adam")
            plan.optimizers.append(owner)
        link = UpdateLink.__new__(UpdateLink)
        link.owner, link.group_number, link.adam = owner, group_number, op == "adam"
        link.group = (<list?>owner.attributes["param_groups"])[group_number]
        link.params, link.options, link.count = list(link.group["params"]), bucket.options, len(bucket.params)
        link.line = <line_param *>fbp_block_get((link.count + 1) * sizeof(line_param))
        if link.line == NULL:
            raise MemoryError("cannot allocate a plan's list of parameters")
        link.has_layout = len(bucket.names) > (2 if link.adam else 0)
        for i, param in enumerate(bucket.params):
            number = owner.number_of(param, bucket.names, [one[i] for one in bucket.buffers])
            link.line[<Py_ssize_t>i] = line_param(number, counted.get((id(owner), number), 0))
            if owner.counts or bucket.names:
                counted[id(owner), number] = link.line[<Py_ssize_t>i].earlier + 1
        plan.updates.append(link)
    return 0


cdef int adopt_optimizers(Plan plan) except -1:
    """Ready a plan that was just made for its first run."""
    cdef UpdateLink link
    cdef OptimizerLink owner
    cdef Py_ssize_t i, k
    cdef dict last = {}
    for i in range(len(plan.updates)):
        link = <UpdateLink>plan.updates[i]
        for k in range(link.count):
            last[id(link.owner), link.line[k].number] = link.line[k].earlier + 1
    for i in range(len(plan.updates)):
        link = <UpdateLink>plan.updates[i]
        for k in range(link.count):
            plan.plan.updates[i].strides[k] = last[id(link.owner), link.line[k].number]
        for value in link.group.values():
            for k in range(plan.state_count):
                if plan.states[k].written and isinstance(value, Tensor) and share_memory((<Tensor>value).node, plan.states[k].node):
                    raise RunEagerly("it writes into a tensor that is an option of an optimizer")  # options are read before the run
    for owner in plan.optimizers:
        if not owner.is_current(plan):
            raise RuntimeError("compile: the optimizer's state changed while its step was captured")
    return 0
