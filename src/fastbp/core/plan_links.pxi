# What a plan's runs are tied to: batches of a pass, optimizers.

@cython.final
cdef class BatchPass:
    """Many runs of one plan, each on a batch of rows of larger tensors; results go to one stacked tensor each."""

    cdef Plan plan
    cdef list tensors, batches, made, given
    cdef Tensor order
    cdef readonly int64_t most  # runs at a time: one where each is checked
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
        cdef Replay replay = None
        plan.acquire()
        try:
            if not plan.is_current():
                return False
            if plan.check is not None and begin < end:
                replay = (<PlanCheck>plan.check).begin(plan, self.rows_of(begin))
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
        if replay is not None:
            (<PlanCheck>plan.check).finish(plan, replay, replay.given, [None if x is None else x[begin] for x in self.made])
        return True

    cdef list rows_of(self, int64_t i):
        """The arguments of run i, gathered apart from how the pass does it."""
        cdef int64_t size = self.what.batch
        if self.order is None:
            return [(<Tensor>x).detach()[i * size:(i + 1) * size].contiguous() for x in self.tensors]
        chosen = self.order[i * size:(i + 1) * size]
        return [(<Tensor>x).detach()[chosen].contiguous() for x in self.tensors]

    def results(self, count):
        """The results of the first `count` runs, stacked; what is no tensor, as the function returned it."""
        return [self.plan.outputs[i][1] if x is None else x[:count] for i, x in enumerate(self.made[:self.plan.returned])]


cdef inline bint share_memory(const fbp_tensor *a, const fbp_tensor *b) noexcept:
    return a.data < b.data + span_bytes(b) and b.data < a.data + span_bytes(a)


cdef void list_written(void *context, int32_t value, c_bool written) noexcept:
    if written:
        (<list>context).append(value)


# ---- optimizers' numbers --------------------------------------------------------------------------------------------------------

@cython.final
cdef class UpdateLink:
    """One UPDATE line and the optimizer behind it: its numbers go in before a run, its step counts come out after."""

    cdef object optimizer, state
    cdef dict group, attributes
    cdef list params, states
    cdef object first  # parameter of the bucket
    cdef tuple buffers
    cdef Py_ssize_t state_size, group_count
    cdef bint adam, has_layout
    cdef int64_t earlier, all  # lines before this one, and in all, that step the same parameters

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
            slot.step = <int64_t>(<dict>self.states[0])["step"] + self.earlier
        else:
            slot.hyper.sgd.lr = group["lr"]
            slot.hyper.sgd.momentum = group["momentum"]
            slot.hyper.sgd.dampening = group["dampening"]
            slot.hyper.sgd.weight_decay = group["weight_decay"]
            slot.hyper.sgd.nesterov = group["nesterov"]
            slot.hyper.sgd.maximize = group["maximize"]
            slot.step = self.earlier + (0 if self.states and (<dict>self.states[0]).get("momentum_buffer") is None else 1)
        slot.stride = self.all
        return 0

    cdef int settle(self, int64_t step) except -1:
        """Step counts and fresh state, as the eager step leaves them."""
        cdef Py_ssize_t i
        if self.earlier + 1 != self.all:
            return 0  # the last line's count is that of all
        if self.adam:
            count = step - self.earlier  # a run has added `all` to what stood before this line
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
    link.first = bucket.params[0]
    link.has_layout = bucket.buffers[2 if link.adam else 0] is not None
    return link


cdef list make_links(list updates):
    """A link for each UPDATE line, in their order."""
    cdef list links = [make_link(optimizer, group, bucket, op) for optimizer, group, bucket, op in updates]
    cdef UpdateLink link, other
    for link in links:
        for other in links:
            if other.params and link.optimizer is other.optimizer and other.group is link.group and other.first is link.first:
                if other is link:
                    link.earlier = link.all
                link.all += 1
    return links
