# Compiled steps, fourth part: the memory of a plan, and the regions whose values are computed again.

@cython.final
@cython.binding(False)
cdef class recomputed_region:
    """Context manager: what is computed within it while a function is captured is not kept for a reverse sweep, which computes it again.

    Of the values that lines within the block make, those stay that are read after it by anything else than a reverse sweep; the sweep
    computes the others again, from these and from what came in.  Random numbers are the same ones, and tensors that the block writes are
    written once.  Blocks may be nested: an inner one is recomputed again when the outer one was.  Outside of a capture it does nothing.

    Examples
    --------
    >>> @fastbp.compile
    ... def step(x):
    ...     with fastbp._core.recomputed_region():
    ...         y = x.tanh().sin()
    ...     y.sum().backward()
    >>> step(fastbp.ones(3, requires_grad=True))
    """

    cdef fbp_program *program
    cdef int32_t before

    def __enter__(self):
        cdef fbp_capture *capture = fbp_mode_get().capture
        if self.program != NULL:
            raise RuntimeError("recomputed_region: it has been entered already; make a new one for each block")
        if capture != NULL:
            self.before = capture.program.region
            if fbp_program_region_begin(capture.program) < 0:
                raise MemoryError("recomputed_region: cannot allocate a region of the plan")
            self.program = capture.program
        return self

    def __exit__(self, *error):
        cdef fbp_capture *capture = fbp_mode_get().capture
        if self.program != NULL and capture != NULL and capture.program == self.program:
            self.program.region = self.before
        self.program = NULL


cdef tuple describe_buffer(fbp_program *program, int32_t buffer):
    """(bytes, dtype, shape, name of the step) of what first writes a buffer."""
    cdef int32_t i
    cdef char name[256]
    for i in range(program.line_count):
        written = []
        fbp_line_touch(program, &program.lines[i], list_written, <void *>written)
        for value in written:
            if program.values[<int32_t>value].buffer == buffer:
                t = program.values[<int32_t>value].tensor
                fbp_line_name(program, &program.lines[i], name, sizeof(name))
                return (program.buffers[buffer].bytes, (<dtype>DTYPES[t.dtype]).name, shape_tuple(t), name.decode())
    return (program.buffers[buffer].bytes, "", (), "")


def largest_values(Plan plan not None, int most=3):
    """What takes most memory: of the arena at the step where it is fullest, or of what is saved for the derivative where there is one.

    Returns
    -------
    list of (int, str, tuple, str)
        Bytes, dtype, shape, and name of the step that computes it; the largest first.
    """
    cdef fbp_program *program = plan.plan.program
    cdef fbp_buffer *b
    cdef int32_t i, k
    if plan.derivative is not None:
        buffers = [buffer for buffer, _ in plan.saved]
    else:
        change = [0] * (program.line_count + 1)
        for i in range(program.buffer_count):
            b = &program.buffers[i]
            if b.kind == FBP_BUFFER_ARENA and b.offset >= 0:
                change[b.first] += b.bytes
                change[b.last + 1] -= b.bytes
        for k in range(program.line_count):
            change[k + 1] += change[k]
        fullest = change.index(builtin_max(change))
        buffers = []
        for i in range(program.buffer_count):
            b = &program.buffers[i]
            if b.kind == FBP_BUFFER_ARENA and b.offset >= 0 and b.first <= fullest <= b.last:
                buffers.append(i)
    buffers.sort(key=lambda buffer: -program.buffers[<int32_t>buffer].bytes)
    return [describe_buffer(program, buffer) for buffer in buffers[:most]]
