# autograd.Function: rules that users write. The class itself is in fastbp/autograd/function.py.

@cython.final
@cython.binding(False)
cdef class SavedTensor:
    """A tensor as it is now: its elements and its history, though its handle may come to stand for something else."""

    cdef fbp_tensor *node  # held
    cdef uint32_t version
    cdef object what       # for the message: whose it is

    def __cinit__(self, Tensor x not None, str what):
        self.node = fbp_retain(x.node)
        self.version = x.node.storage.version
        self.what = what

    def __dealloc__(self):
        if self.node != NULL:
            fbp_release(self.node)

    def unpack(self):
        """The tensor; RuntimeError when its elements have changed."""
        check_version(self.node, self.node.storage.version, self.version, self.what)
        return wrap(fbp_retain(self.node))


cdef int check_version(fbp_tensor *node, uint32_t now, uint32_t expected, object what) except -1:
    if now != expected:
        raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace operation: "
                           f"{fbp_dtype_name(<fbp_dtype>node.dtype).decode()} {shape_tuple(node)}, saved by {what}, is at version {now}; "
                           f"expected version {expected} instead. Hint: clone() it before it is changed, or change it after backward()")
    return 0


@cython.binding(False)
cdef class FunctionContext(HostRule):
    """The `ctx` of a Function: what forward() leaves for backward() and jvp(). Any attribute may be set on it.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        Whether each argument of forward() requires grad: backward() may return None for the others.
    saved_tensors : tuple of Tensor or None
        What `save_for_backward` was given; in jvp(), what `save_for_forward` was given where it was called.
    """

    cdef dict __dict__
    cdef object __weakref__
    cdef object function            # the user's class
    cdef public tuple needs_input_grad
    cdef object to_save, to_save_forward, dirty, not_differentiable  # as given by forward()
    cdef list saved, saved_forward  # SavedTensor, number of an output, or None
    cdef list kept_outputs          # of several: SavedTensor of their bare elements, by output
    cdef list edge_of               # by argument: its edge, -1 where it is no floating tensor
    cdef list likes                 # by output: (shape, dtype), None where it is no tensor
    cdef list slots                 # by output: its number among those that are differentiated, -1
    cdef uint32_t version           # of the single output
    cdef bint materialize, pushing, finished, freed

    def __cinit__(self):
        self.materialize = True

    # ---- what forward() calls ----

    def save_for_backward(self, *tensors):
        """Keep tensors (or None) for backward(), as `saved_tensors`; inputs, outputs and intermediate ones. Call it once.

        A change in place between now and backward() is noticed. Other values are kept as attributes of ctx.
        """
        self.to_save = checked_tensors(tensors, "save_for_backward can only save variables")

    def save_for_forward(self, *tensors):
        """Keep tensors (or None) for jvp(), as `saved_tensors`."""
        self.to_save_forward = checked_tensors(tensors, "save_for_forward can only save variables")

    def mark_dirty(self, *args):
        """Say which inputs forward() changes in place; each must be returned."""
        self.dirty = checked_tensors(args, "mark_dirty can only mark variables")

    def mark_non_differentiable(self, *args):
        """Say which outputs have no derivative: they do not require grad. Outputs that are not floating have none anyway."""
        self.not_differentiable = checked_tensors(args, "mark_non_differentiable can only mark variables")

    def set_materialize_grads(self, bint value):
        """Whether zeros stand for gradients and tangents that are not there (the default), or None."""
        self.materialize = value

    @property
    def saved_tensors(self):
        if not self.finished:
            return tuple(self.to_save or ())
        if self.freed:
            raise RuntimeError("Trying to backward through the graph a second time (or directly access saved tensors after they have already "
                               "been freed). Specify retain_graph=True in the first backward() if you need to go through it again")
        found = self.saved_forward if self.pushing and self.saved_forward is not None else self.saved
        return tuple([self.unpacked(x) for x in found])

    cdef object unpacked(self, object x):
        cdef fbp_tensor *node
        if x is None or isinstance(x, SavedTensor):
            return None if x is None else (<SavedTensor>x).unpack()
        if self.is_hub:  # an output may have gone: another one like it
            bare = (<SavedTensor>self.kept_outputs[x]).unpack()
            return self.output(x, bare) if fbp_mode_get().grad_enabled and self.node != NULL else bare
        if self.node == NULL:
            raise RuntimeError(f"the output that {self.function.__name__} saved has gone")
        check_version(self.node, self.node.storage.version, self.version, f"{self.function.__name__}, its output,")
        return wrap(fbp_retain(self.node))

    # ---- after forward() ----

    cdef int keep(self, list outputs) except -1:
        """Turn what forward() saved into what neither changes unnoticed nor keeps itself alive. `outputs`: the differentiated ones."""
        cdef fbp_tensor *bare
        cdef Tensor made
        self.saved = [self.kept(x, outputs) for x in self.to_save or ()]
        self.saved_forward = None if self.to_save_forward is None else [self.kept(x, outputs) for x in self.to_save_forward]
        self.to_save = self.to_save_forward = self.dirty = self.not_differentiable = None
        self.finished = True
        used = {x for x in self.saved + (self.saved_forward or []) if isinstance(x, int)}
        if self.is_hub:
            self.kept_outputs = [None] * len(outputs)
            for i in used:
                check(fbp_tensor_detach((<Tensor>outputs[i]).node, &bare))
                bare.flags &= ~FBP_VIEW
                self.kept_outputs[i] = SavedTensor(wrap(bare), f"{self.function.__name__}, its output {i},")
        elif used and not self.node.flags & FBP_HOLDS_OWN_VALUE:
            self.version = self.node.storage.version
            self.node.value_references += 1
            self.node.flags |= FBP_HOLDS_OWN_VALUE
        return 0

    cdef object kept(self, object x, list outputs):
        for i, output in enumerate(outputs):
            if x is output:
                return i
        return None if x is None else SavedTensor(x, self.function.__name__)

    cdef void let_go(self) noexcept:
        HostRule.let_go(self)
        self.freed = True
        self.saved = self.saved_forward = self.kept_outputs = None

    cdef str name(self):
        return self.function.__name__ + "Backward"

    # ---- derivatives ----

    cdef list pull(self, list cotangents, bint create_graph):
        cdef list given = []
        cdef list found
        cdef bint captured = fbp_mode_get().capture != NULL
        if captured and self.is_hub and not self.materialize:
            note_asks_absent()
        for slot, like in zip(self.slots, self.likes):
            g = cotangents[slot] if slot >= 0 else None
            if captured and g is not None:  # zeros, where it is absent and another is not
                g = tied(g, cotangents)
            if g is None and like is not None and self.materialize:
                g = zeros(like[0], dtype=like[1])
            given.append(g)
        found = self.checked_gradients(self.function._backward_of()(self, *given))
        return [None if g is None else tied(g, cotangents) for g in found] if captured else found

    cdef list checked_gradients(self, object found):
        """By edge, in the inputs' shapes and dtypes."""
        cdef fbp_tensor *input
        cdef Py_ssize_t i, n = len(self.edge_of)
        cdef list result
        given = list(found) if isinstance(found, tuple) else [found]
        while len(given) > n and given[len(given) - 1] is None:
            given.pop()
        if len(given) != n:
            raise RuntimeError(f"function {self.name()} returned an incorrect number of gradients (expected {n}, got {len(given)})")
        result = [None] * self.node.edge_count
        for i, (edge, g) in enumerate(zip(self.edge_of, given)):
            if g is None:
                continue
            if edge < 0:
                raise RuntimeError(f"function {self.name()} returned a gradient different than None at position {i + 1}, but the corresponding "
                                   "forward input was not a Variable")
            if not isinstance(g, Tensor):
                raise RuntimeError(f"function {self.name()} returned a gradient at position {i + 1} that is no tensor: expected Variable or None "
                                   f"(got {builtin_type(g).__name__})")
            input = fbp_input(self.node, edge)
            if fbp_requires_grad(input):
                result[edge] = fitted_to(g, shape_tuple(input), DTYPES[input.dtype], f"Function {self.name()} returned an invalid gradient at "
                                         f"index {i}")
        return result

    cdef list push(self, list tangents):
        cdef fbp_tensor *input
        cdef list given = []
        for edge in self.edge_of:
            t = tangents[edge] if edge >= 0 else None
            if t is None and edge >= 0 and self.materialize:
                input = fbp_input(self.node, edge)
                t = zeros(shape_tuple(input), dtype=DTYPES[input.dtype])
            given.append(t)
        self.pushing = True
        try:
            found = self.function.jvp(self, *given)
        finally:
            self.pushing = False
        found = list(found) if isinstance(found, tuple) else [found]
        if len(found) != len(self.likes):
            raise RuntimeError(f"function {self.name()}: jvp returned an incorrect number of tangents (expected {len(self.likes)}, got "
                               f"{len(found)})")
        result = [None] * self.output_count
        for i, (t, slot, like) in enumerate(zip(found, self.slots, self.likes)):
            if t is None or slot < 0:
                continue
            if not isinstance(t, Tensor):
                raise TypeError(f"function {self.name()}: jvp returned a tangent at index {i} that is no tensor: expected Tensor or None (got "
                                f"{builtin_type(t).__name__})")
            result[slot] = fitted_to(t, like[0], like[1], f"Function {self.name()}: jvp returned an invalid tangent at index {i}", False)
        return result


cdef object checked_tensors(tuple given, str message):
    for i, x in enumerate(given):
        if x is not None and not isinstance(x, Tensor):
            raise TypeError(f"{message}, but argument {i} is of type {builtin_type(x).__name__}")
    return given


cdef object fitted_to(object g, tuple shape, dtype, str what, bint may_sum=True):
    """g in this shape, summed where it was broadcast, and dtype."""
    found = tuple(g.shape)
    if found != shape:
        lead = len(found) - len(shape)
        fits = may_sum and lead >= 0 and builtin_all([a == b or a == 1 for a, b in zip(shape, found[lead:])])
        if not fits:
            raise RuntimeError(f"{what} - got {list(found)} but expected shape compatible with {list(shape)}")
        dims = list(range(lead)) + [lead + i for i, a in enumerate(shape) if a == 1 and found[lead + i] != 1]
        g = g.sum(dims).reshape(shape)
    return g if g.dtype is dtype else g.to(dtype)


# ---- a call -------------------------------------------------------------------------------------------------------------------

def apply_function(function, tuple args not None, values=None):
    """Call a Function: its forward() unrecorded, then a node with its rules over what that returned, or over `values` in its place."""
    cdef FunctionContext ctx = FunctionContext.__new__(FunctionContext)
    cdef bint recorded = False
    ctx.function = function
    for x in args:
        if isinstance(x, Tensor):
            refresh_view(<Tensor>x)
            recorded |= fbp_requires_grad((<Tensor>x).node)
    recorded &= fbp_mode_get().grad_enabled
    ctx.needs_input_grad = tuple([isinstance(x, Tensor) and x.requires_grad for x in args])
    edges = record_edges(ctx, args)
    with make_switch(False):
        returned = function._forward_of(ctx, args)
    returned = returned if values is None else values
    outputs = list(returned) if isinstance(returned, tuple) else [returned]
    outputs = finish_function(ctx, args, edges, outputs, recorded)
    return tuple(outputs) if isinstance(returned, tuple) else outputs[0]


cdef int refresh_view(Tensor x) except -1:
    """A view whose base has a new history takes its own from there."""
    cdef fbp_tensor *fresh
    if fbp_view_is_stale(x.node):
        check(fbp_view_refresh(x.node, &fresh))
        fbp_view_adopt(x.node, fresh, &x.node)
    return 0


cdef list record_edges(FunctionContext ctx, tuple args):
    """The floating tensors among the arguments: the inputs of the node."""
    cdef list edges = []
    ctx.edge_of = []
    for x in args:
        if isinstance(x, Tensor) and fbp_dtype_is_float(<fbp_dtype>(<Tensor>x).node.dtype):
            ctx.edge_of.append(len(edges))
            edges.append(x)
        else:
            ctx.edge_of.append(-1)
    return edges


cdef bint is_among(object x, object others):
    for one in others or ():
        if one is x:
            return True
    return False


cdef list finish_function(FunctionContext ctx, tuple args, list edges, list outputs, bint recorded):
    """Give the outputs their history, where one is wanted."""
    cdef list values = [], places = []
    cdef str name = ctx.function.__name__
    for x in ctx.dirty or ():
        if not is_among(x, outputs):
            raise RuntimeError("Some elements marked as dirty during the forward method were not returned as output. The inputs that are "
                               "modified inplace must all be outputs of the Function.")
    if recorded and not builtin_any([isinstance(y, Tensor) for y in outputs]):
        raise TypeError(f"{name}.forward: expected Tensor or tuple of Tensor (got {builtin_type(outputs[0]).__name__}) for return value 0"
                        if outputs else f"{name}.forward: expected Tensor or tuple of Tensor (got an empty tuple)")
    ctx.likes = [(tuple(y.shape), y.dtype) if isinstance(y, Tensor) else None for y in outputs]
    ctx.slots = []
    for i, y in enumerate(outputs):
        ctx.slots.append(-1)
        if not isinstance(y, Tensor) or is_among(y, ctx.dirty):
            pass
        elif is_among(y, args) or is_among(y, outputs[:i]) or y.requires_grad:
            outputs[i] = y.detach()  # a handle of its own
        if recorded and isinstance(y, Tensor) and y.is_floating_point() and not is_among(y, ctx.not_differentiable):
            ctx.slots[i] = len(values)
            values.append(outputs[i])
            places.append(i)
    if not values:
        return outputs
    with make_switch(True):
        for y in values:
            if is_among(y, ctx.dirty):
                check(fbp_writable(name.encode(), (<Tensor>y).node))
                check(fbp_view_rebase_check(name.encode(), (<Tensor>y).node))
        for y, made in zip(values, ctx.attach(edges, values)):
            take_history(<Tensor>y, <Tensor>made, is_among(y, ctx.dirty))
    ctx.keep(values)
    return outputs


cdef int take_history(Tensor y, Tensor made, bint dirty) except -1:
    """Have the handle y stand for the node behind `made`."""
    cdef fbp_tensor *node = fbp_retain(made.node)
    if not dirty:
        adopt_handle(<void *>y, node)
        fbp_release(node)
        return 0
    node.flags &= ~FBP_VIEW
    check(fbp_view_rebase(y.node, node, &y.node))
    return 0
