# What a plan's runs are tied to: batches of a pass, optimizers.

@cython.final
@cython.binding(False)
cdef class BatchPass:
    """Many runs of one plan, each on a batch of rows of larger tensors; results go to one stacked tensor each."""

    cdef Plan plan
    cdef list tensors, made, given
    cdef Tensor order
    cdef bint one_by_one  # each run is looked at, or what it leaves decides on the next: gradients, an optimizer's numbers
    cdef fbp_pass what
    cdef fbp_batch_source *sources
    cdef fbp_batch_result *targets
    cdef Py_ssize_t source_bytes, target_bytes
    cdef int64_t count    # of runs

    def __dealloc__(self):
        if self.sources != NULL:
            fbp_block_free(self.sources, self.source_bytes)
        if self.targets != NULL:
            fbp_block_free(self.targets, self.target_bytes)

    def advance(self, int64_t begin, int64_t end):
        """Runs begin <= i < end, or the first of them; how many: none where the plan does not fit the world any more."""
        cdef Plan plan = self.plan
        cdef fbp_status status
        cdef int64_t done = 0
        cdef Replay replay = None
        cdef bint began = False
        if not 0 <= begin < end <= self.count:
            raise ValueError(f"expected 0 <= begin < end <= {self.count}, got {begin} and {end}")
        if not plan.acquire():
            raise RuntimeError("epoch: the function is called by its own run")
        status = FBP_ERROR_RUNTIME
        try:
            plan.take(self.given)
            if not plan.world_holds():
                return 0
            if self.one_by_one:
                end = begin + 1
            plan.prepare_numbers()
            if plan.check is not None:
                replay = (<PlanCheck>plan.check).begin(plan, self.rows_of(begin))
            if not plan.memory_holds(self.given):
                return 0
            plan.bind(self.given, None)
            began = True
            with nogil:
                status = fbp_plan_pass(plan.plan, &self.what, begin, end, &done)
            if done:
                plan.settle(self.given)
            if status != FBP_OK:
                raise_status(status)
        finally:
            plan.leave(self.given, not began or status != FBP_OK, began)
        if replay is not None:
            (<PlanCheck>plan.check).finish(plan, replay, replay.given, [None if x is None else x[begin] for x in self.made])
        return done

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


cdef void list_written(void *context, int32_t value, c_bool written) noexcept:
    if written:
        (<list>context).append(value)
