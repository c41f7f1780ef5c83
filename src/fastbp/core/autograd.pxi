# Recording on and off, the reverse sweep, hooks, grad_fn.

cdef tuple switch_recording(bint wanted):
    """Record or not, and what was in force before; asked for within a sweep, it holds on every level."""
    cdef fbp_mode *mode = fbp_mode_get()
    before = (mode.grad_enabled, mode.quiet_level)
    mode.grad_enabled = wanted
    if wanted:
        mode.quiet_level = <uint64_t>-1
    return before


cdef int switch_back(tuple before) except -1:
    fbp_mode_get().grad_enabled, fbp_mode_get().quiet_level = before
    return 0


@cython.binding(False)
cdef class grad_switch:
    """Context manager and decorator that sets whether operations are recorded: what no_grad() and its relatives return."""

    cdef bint wanted
    cdef list before

    def __enter__(self):
        if self.before is None:
            self.before = []
        self.before.append(switch_recording(self.wanted))
        return self

    def __exit__(self, *error):
        switch_back(self.before.pop())

    def __call__(self, function):
        wanted = bool(self.wanted)

        @cython.binding(True)
        def wrapper(*args, **kwargs):
            before = switch_recording(wanted)
            try:
                return function(*args, **kwargs)
            finally:
                switch_back(before)

        @cython.binding(True)
        def generator_wrapper(*args, **kwargs):
            generator = function(*args, **kwargs)
            while True:
                with make_switch(wanted):
                    try:
                        value = next(generator)
                    except StopIteration as stop:
                        return stop.value
                yield value

        chosen = generator_wrapper if is_generator_function(function) else wrapper
        copy_identity(function, chosen)
        return chosen


cdef grad_switch make_switch(bint wanted):
    cdef grad_switch result = grad_switch.__new__(grad_switch)
    result.wanted = wanted
    return result


def no_grad(orig_func=None):
    """Within it, nothing is recorded: results do not require grad.  A context manager and a decorator.

    Examples
    --------
    >>> x = fastbp.ones(2, requires_grad=True)
    >>> with fastbp.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    return make_switch(False) if orig_func is None else make_switch(False)(orig_func)


def inference_mode(mode=True):
    """no_grad() under its PyTorch name for inference; inference_mode(False) changes nothing."""
    if not isinstance(mode, bool):
        return make_switch(False)(mode)
    return make_switch(fbp_mode_get().grad_enabled and not mode)


def enable_grad(orig_func=None):
    """Within it, operations are recorded, even inside no_grad().  A context manager and a decorator."""
    return make_switch(True) if orig_func is None else make_switch(True)(orig_func)


def set_grad_enabled(bint mode):
    """Record operations or not, from now on; as a context manager, until its end."""
    cdef grad_switch result = entered_switch.__new__(entered_switch)
    result.wanted = mode
    result.before = [switch_recording(mode)]
    return result


@cython.binding(False)
cdef class entered_switch(grad_switch):
    """A switch that was thrown when it was made."""

    def __enter__(self):
        return self


def is_grad_enabled():
    """Whether operations are recorded now, on this thread."""
    return bool(fbp_mode_get().grad_enabled)


cdef bint is_generator_function(function):
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & 0x20)


cdef copy_identity(function, wrapper):
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        try:
            setattr(wrapper, name, getattr(function, name))
        except (AttributeError, TypeError):
            pass
    try:
        wrapper.__wrapped__ = function
    except AttributeError:
        pass


# ---- the reverse sweep -------------------------------------------------------------------------------------------------------

cdef list backward_list(object tensors, str what):
    if isinstance(tensors, Tensor):
        return [tensors]
    result = list(tensors)
    for x in result:
        if not isinstance(x, Tensor):
            raise TypeError(f"{what} must be Tensors, got {builtin_type(x).__name__}")
    return result


cdef fbp_tensor **tensor_array(object tensors, Py_ssize_t n) except NULL:
    """Core tensors of a list (None: NULL), held, in a block for free_array(): handles may come to stand for others meanwhile."""
    cdef Py_ssize_t i
    cdef fbp_tensor **array
    for i in range(n):
        if tensors[i] is not None and not isinstance(tensors[i], Tensor):
            raise TypeError(f"expected Tensors, got {builtin_type(tensors[i]).__name__}")
    array = <fbp_tensor **>fbp_block_get((n + 1) * sizeof(fbp_tensor *))
    if array == NULL:
        raise MemoryError("cannot allocate a list of tensors")
    for i in range(n):
        array[i] = fbp_retain((<Tensor>tensors[i]).node) if tensors[i] is not None else NULL
    return array


cdef void free_array(fbp_tensor **array, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    if array != NULL:
        for i in range(n):
            if array[i] != NULL:
                fbp_release(array[i])
        fbp_block_free(array, (n + 1) * sizeof(fbp_tensor *))


cdef object take_from(fbp_tensor **array, Py_ssize_t i):
    """What a call has left in an array, None for nothing."""
    cdef fbp_tensor *found = array[i]
    array[i] = NULL
    return wrap(found) if found != NULL else None


cdef list run_backward(object roots, object gradients, bint retain_graph, bint create_graph, object inputs, bint accumulate=True,
                       bint ends_there=False):
    """One sweep; with inputs and not accumulate, their gradients (None where not reached)."""
    cdef fbp_backward_request request
    cdef Py_ssize_t i, n = len(roots), m = 0
    cdef fbp_status status
    cdef fbp_tensor *root
    if accumulate and fbp_mode_get().vmap_count and [x for x in roots if fbp_is_batched((<Tensor>x).node)]:
        raise RuntimeError("backward() called inside of vmap: a gradient of each example has no place in a .grad outside of it; use "
                           "func.grad or autograd.grad inside, or return the tensor and call backward() outside")
    if fbp_mode_get().capture != NULL and accumulate:
        note_sweep(retain_graph or create_graph)
    if n == 1 and inputs is None and gradients[0] is None:  # loss.backward(): no lists to make
        root = (<Tensor>roots[0]).node
        request = fbp_backward_request(1, &root, NULL, retain_graph, create_graph, 0, NULL, NULL, False, True)
        check(fbp_backward(&request))
        return None
    if inputs is not None:
        inputs = backward_list(inputs, "inputs")
        m = len(inputs)
        if m == 0:
            raise RuntimeError("`inputs` argument to backward() or grad() cannot be empty.")
        for x in inputs:
            if not x.requires_grad:
                raise RuntimeError("One of the differentiated Tensors does not require grad")
            if not ends_there:
                refuse_inner(x, "the gradient", roots)
    cotangents = [as_cotangent(roots[i], gradients[i]) for i in range(n)]
    request = fbp_backward_request(<int>n, NULL, NULL, retain_graph, create_graph, <int>m, NULL, NULL, ends_there, accumulate)
    request.roots = tensor_array(roots, n)
    request.cotangents = tensor_array(cotangents, n)
    if m:
        request.inputs = tensor_array(inputs, m)
        request.results = tensor_array([None] * m, m)
    status = fbp_backward(&request)
    found = []
    for i in range(m):
        found.append(take_from(request.results, i))
    free_array(<fbp_tensor **>request.roots, n)
    free_array(<fbp_tensor **>request.cotangents, n)
    if m:
        free_array(<fbp_tensor **>request.inputs, m)
        free_array(request.results, m)
    check(status)
    return found


cdef object as_cotangent(Tensor root, object given):
    if given is None or isinstance(given, Tensor):
        return given
    return tensor(given, dtype=root.dtype)


def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None):
    """Accumulate the derivatives of several tensors into the `.grad` of leaves, in one sweep (torch.autograd.backward)."""
    roots = backward_list(tensors, "tensors")
    gradients = [None] * len(roots) if grad_tensors is None else [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors)
    if len(gradients) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(gradients)} gradients")
    run_backward(roots, gradients, create_graph if retain_graph is None else retain_graph, create_graph, inputs)


def grad(outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, allow_unused=None, is_grads_batched=False,
         materialize_grads=False):
    """Derivatives of outputs by inputs, returned and not accumulated (torch.autograd.grad).

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
    grad_outputs : Tensor or sequence, optional
        Cotangents of the outputs.  Default: 1 for outputs of one element.
    retain_graph : bool, optional
        Keep saved values.  Default: as `create_graph`.
    create_graph : bool, optional
        Record the sweep, so that results can be differentiated.  Default: False.
    allow_unused : bool, optional
        Give None for inputs that outputs do not depend on, instead of raising.  Default: `materialize_grads`.
    is_grads_batched : bool, optional
        Each of `grad_outputs` has a batch of cotangents as first dimension; one sweep gives the gradients of all, with the
        batch first.  Default: False.
    materialize_grads : bool, optional
        Give zeros instead of None.  Default: False.

    Returns
    -------
    tuple of Tensor
        One an input, of its shape.

    Raises
    ------
    RuntimeError
        For unused inputs, and as `Tensor.backward`.

    Examples
    --------
    >>> x = fastbp.tensor(2.0, requires_grad=True)
    >>> fastbp.autograd.grad(x ** 3, x)
    (tensor(12.),)
    """
    roots = backward_list(outputs, "outputs")
    wanted = backward_list(inputs, "inputs")
    gradients = [None] * len(roots) if grad_outputs is None else [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    if len(gradients) != len(roots):
        raise RuntimeError(f"got {len(roots)} outputs and {len(gradients)} grad_outputs")
    retain = create_graph if retain_graph is None else retain_graph
    if is_grads_batched:
        found = batched_gradients(roots, gradients, retain, create_graph, wanted)
    else:
        found = run_backward(roots, gradients, retain, create_graph, wanted, False)
    if allow_unused is None:
        allow_unused = materialize_grads
    if not allow_unused and None in [None if g is None else 0 for g in found]:
        raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this "
                           "is the desired behavior.")
    if materialize_grads:
        rows = (len(gradients[0]),) if is_grads_batched else ()
        found = [zeros(rows + tuple(x.shape), dtype=x.dtype) if g is None else g for g, x in zip(found, wanted)]
    return tuple(found)


cdef list batched_gradients(list roots, list gradients, bint retain, bint create_graph, list wanted):
    """One sweep for a batch of cotangents."""
    sizes = {len(g) if isinstance(g, Tensor) and g.ndim else None for g in gradients}
    if None in sizes or len(sizes) != 1:
        raise RuntimeError("is_grads_batched=True: each of grad_outputs must be a Tensor with the batch as first dimension, of one size")
    size = sizes.pop()
    with vmap_level(size, "same") as level:
        found = run_backward(roots, [batch(g, level) for g in gradients], retain, create_graph, wanted, False)
        pairs = [None if g is None else unbatch(g, level) for g in found]
    return [None if pair is None else pair[0] if pair[1] else pair[0].expand(size, *pair[0].shape) for pair in pairs]


def forward_gradient(outputs, inputs, tangents, create_graph=True):
    """Tangents of recorded outputs from tangents of inputs: the jvp rules, over a graph recorded with `keep_values()`.

    Parameters
    ----------
    outputs, inputs, tangents : sequence of Tensor
        A tangent an input, of its shape.
    create_graph : bool, optional
        Record the pass, so that its results can be differentiated. Default: True.

    Returns
    -------
    tuple of Tensor
        One an output; None where no input reaches it.
    """
    roots, wanted, given = backward_list(outputs, "outputs"), backward_list(inputs, "inputs"), backward_list(tangents, "tangents")
    if len(given) != len(wanted):
        raise RuntimeError(f"got {len(wanted)} inputs and {len(given)} tangents")
    cdef fbp_forward_request request
    cdef Py_ssize_t i, n = len(roots), m = len(wanted)
    cdef fbp_status status
    request = fbp_forward_request(<int>n, NULL, <int>m, NULL, NULL, create_graph, NULL)
    request.outputs = tensor_array(roots, n)
    request.inputs = tensor_array(wanted, m)
    request.tangents = tensor_array(given, m)
    request.results = tensor_array([None] * n, n)
    status = fbp_forward_gradient(&request)
    found = tuple([take_from(request.results, i) for i in range(n)]) if status == FBP_OK else None
    free_array(<fbp_tensor **>request.outputs, n)
    free_array(<fbp_tensor **>request.inputs, m)
    free_array(<fbp_tensor **>request.tangents, m)
    free_array(request.results, n)
    check(status)
    return found


@cython.binding(False)
cdef class keep_values:
    """Context manager: recorded nodes hold every value, so that the graph can be replayed, explained or pushed forward."""

    cdef bint before

    def __enter__(self):
        self.before = fbp_mode_get().keep_values
        fbp_mode_get().keep_values = True
        return self

    def __exit__(self, *error):
        fbp_mode_get().keep_values = self.before


@cython.binding(False)
cdef class recording:
    """Context manager: operations are recorded, whatever is under way; with `keep_values` they hold every value."""

    cdef bint keep, keep_before
    cdef tuple before

    def __cinit__(self, bint keep_values=False):
        self.keep = keep_values

    def __enter__(self):
        cdef fbp_mode *mode = fbp_mode_get()
        self.keep_before = mode.keep_values
        self.before = switch_recording(True)
        mode.keep_values = self.keep or mode.keep_values
        return self

    def __exit__(self, *error):
        switch_back(self.before)
        fbp_mode_get().keep_values = self.keep_before


# ---- grad_fn ---------------------------------------------------------------------------------------------------------------------

@cython.binding(False)
cdef class GradFunction:
    """The recorded operation behind a tensor: its name and the operations before it.

    `name()` is PyTorch's, such as MulBackward0; `next_functions` are (function, output number) pairs, None for inputs that do
    not require grad; leaves are AccumulateGrad, whose `variable` is the leaf.
    """

    cdef fbp_tensor *node

    def __dealloc__(self):
        if self.node != NULL:
            self.node.value_references += 1
            fbp_release(self.node)

    def name(self):
        """PyTorch's name of the operation."""
        if self.node.edge_count == 0:
            return "AccumulateGrad"
        if self.node.flags & FBP_HOST_RULE:
            return (<HostRule>(<void **>fbp_attributes(self.node))[0]).name()
        return "".join([part.capitalize() for part in fbp_ops[<int>self.node.op].name.decode().split("_")]) + "Backward0"

    @property
    def next_functions(self):
        """Operations that made the inputs."""
        result = []
        for i in range(self.node.edge_count):
            input = fbp_input(self.node, i)
            result.append((make_grad_fn(input) if input != NULL and fbp_requires_grad(input) else None, output_number(input)))
        return tuple(result)

    @property
    def variable(self):
        """The leaf, of AccumulateGrad."""
        if self.node.edge_count or self.node.storage == NULL:
            raise AttributeError("only AccumulateGrad has a variable")
        return wrap(fbp_retain(self.node))

    def __eq__(self, other):
        return isinstance(other, GradFunction) and (<GradFunction>other).node == self.node

    def __hash__(self):
        return <Py_hash_t><size_t>self.node

    def __repr__(self):
        return f"<{self.name()}>"


cdef object make_grad_fn(fbp_tensor *node):
    """The function behind a node; of one output among several, that of all."""
    cdef GradFunction result = GradFunction.__new__(GradFunction)
    if is_output(node):
        node = fbp_input(node, 0)
    node.references += 1
    result.node = node
    return result
