# The Tensor class: identity, attributes, conversion, operators.  Families of methods stand in files of their own.

cdef struct exported_buffer:
    fbp_storage *storage
    Py_ssize_t dims[32]  # shape[ndim], strides[ndim]; FBP_MAX_NDIM is 16

cdef object deep_copy = __import__("copy").deepcopy


@cython.binding(False)
cdef class Tensor:
    """An n-dimensional array that can remember how it was computed, with PyTorch's methods and semantics.

    Make tensors with `fastbp.tensor`, `zeros`, `randn`, `from_numpy` and the like; `Tensor(2, 3)` is PyTorch's old
    constructor of an uninitialised array of the default dtype, `Tensor([1, 2])` of one with these values.
    """

    cdef fbp_tensor *node
    cdef object __weakref__
    cdef dict __dict__      # NULL until there is an attribute
    cdef uint32_t place     # among the handles that have joined the collector, from 1; 0: it has not (core/garbage.pxi)
    cdef uint8_t searched   # the attributes, for tensors behind them
    cdef uint8_t dict_given # to Python code, which may write into it unseen

    def __init__(self, *sizes):
        cdef Tensor made
        if self.node.handle != NULL:  # __new__ leaves it open, for subclasses that never come here
            return
        if len(sizes) == 1 and not isinstance(sizes[0], int):
            made = tensor(sizes[0], dtype=get_default_dtype()) if not isinstance(sizes[0], Tensor) else sizes[0].detach()
        else:
            made = empty(*sizes) if sizes else empty(0)
        replace_node(self, fbp_retain(made.node))

    def __dealloc__(self):
        if self.place:
            leave_collector(self)
        if self.node != NULL:
            if self.node.handle == <void *>self:
                self.node.handle = NULL
            fbp_release(self.node)

    def __setattr__(self, name, value):
        if fbp_mode_get().capture != NULL:
            refuse_attribute(self, name)
        PyObject_GenericSetAttr(self, name, value)
        if attributes_of(<PyObject *>self)[0] != NULL:
            attributes_changed(self, value)

    def __delattr__(self, name):
        if fbp_mode_get().capture != NULL:
            refuse_attribute(self, name)
        delete_attribute(self, name, NULL)
        move_world()

    @staticmethod
    def _make_subclass(cls, Tensor data not None, bint requires_grad=False):
        """An instance of a subclass over data's elements, without history (nn.Parameter)."""
        cdef Tensor result = bare_handle(cls)
        check(fbp_tensor_detach(data.node, &result.node))
        watch_handle(<void *>result)
        result.node.handle = <void *>result
        if not (data.node.flags & FBP_VIEW) or data.node.edge_count == 0:
            result.node.flags &= ~FBP_VIEW
        if requires_grad:
            result.requires_grad = True
        return result

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def shape(self):
        """Sizes as a tuple; `size()` is the same."""
        note_outside(self.node)
        return Size(shape_tuple(self.node))

    def size(self, dim=None):
        """Sizes, or the size along one dimension."""
        note_outside(self.node)
        return Size(shape_tuple(self.node)) if dim is None else fbp_shape(self.node)[axis_of("size", dim, self.node)]

    @property
    def ndim(self):
        """Number of dimensions."""
        note_outside(self.node)
        return self.node.ndim

    def dim(self):
        """Number of dimensions."""
        note_outside(self.node)
        return self.node.ndim

    ndimension = dim

    def numel(self):
        """Number of elements."""
        note_outside(self.node)
        return self.node.numel

    nelement = numel

    def element_size(self):
        """Bytes an element takes."""
        return fbp_dtype_size(<fbp_dtype>self.node.dtype)

    @property
    def itemsize(self):
        """Bytes an element takes."""
        return fbp_dtype_size(<fbp_dtype>self.node.dtype)

    @property
    def nbytes(self):
        """Bytes that the elements take."""
        return self.node.numel * fbp_dtype_size(<fbp_dtype>self.node.dtype)

    def stride(self, dim=None):
        """Steps between neighbours along each dimension, in elements."""
        note_outside(self.node)
        if dim is not None:
            return fbp_strides(self.node)[axis_of("stride", dim, self.node)]
        return tuple([fbp_strides(self.node)[i] for i in range(self.node.ndim)])

    def storage_offset(self):
        """Elements between the start of the storage and the first element."""
        return (self.node.data - <char *>self.node.storage.data) // fbp_dtype_size(<fbp_dtype>self.node.dtype)

    def data_ptr(self):
        """Address of the first element."""
        return <size_t>self.node.data

    def is_contiguous(self):
        """Whether the elements lie in row-major order without gaps."""
        note_outside(self.node)
        return bool(fbp_is_contiguous(self.node))

    @property
    def dtype(self):
        """Type of the elements."""
        note_outside(self.node)
        return DTYPES[self.node.dtype]

    def is_floating_point(self):
        """Whether the dtype is float32 or float64."""
        return bool(fbp_dtype_is_float(<fbp_dtype>self.node.dtype))

    def is_complex(self):
        """Always False: there are no complex dtypes."""
        return False

    @property
    def device(self):
        """Always the CPU."""
        return CPU

    is_cuda = False
    is_sparse = False
    is_quantized = False

    @property
    def _version(self):
        """Number of in-place changes of the elements; views share it."""
        return self.node.storage.version

    # ---- history -------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self):
        """Whether operations on this tensor are recorded; settable on leaves."""
        note_outside(self.node)
        return bool(fbp_requires_grad(self.node))

    @requires_grad.setter
    def requires_grad(self, bint value):
        if self.node.edge_count and not value:
            raise RuntimeError("you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
                               "a subgraph that doesn't require differentiation use var_no_grad = var.detach().")
        if value and not fbp_dtype_is_float(<fbp_dtype>self.node.dtype):
            raise RuntimeError(f"only Tensors of floating point dtype can require gradients, this one is {self.dtype!r}")
        if value:
            self.node.flags |= FBP_REQUIRES_GRAD
        else:
            self.node.flags &= ~FBP_REQUIRES_GRAD

    @requires_grad.deleter
    def requires_grad(self):
        raise RuntimeError("requires_grad must be a bool")

    def requires_grad_(self, requires_grad=True):
        """Set requires_grad and return self."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self):
        """Whether this was made by the user rather than by a recorded operation."""
        return self.node.edge_count == 0

    @property
    def grad_fn(self):
        """The recorded operation that made this tensor, None for leaves."""
        return None if self.node.edge_count == 0 else make_grad_fn(self.node)

    @property
    def grad(self):
        """Accumulated gradient, or None; assigning None clears it."""
        if fbp_mode_get().capture != NULL:  # what the function finds there, the plan depends on
            check(fbp_capture_gradient(fbp_mode_get().capture, self.node, False))
        cdef fbp_tensor *found = fbp_gradient_get(self.node)
        return None if found == NULL else wrap(fbp_retain(found))

    @grad.setter
    def grad(self, value):
        cdef fbp_tensor *old
        cdef fbp_tensor **place
        if value is None:
            if self.node.autograd == NULL and fbp_mode_get().capture == NULL:
                return
        elif not isinstance(value, Tensor):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}")
        elif not fbp_same_shape((<Tensor>value).node, self.node) or (<Tensor>value).node.dtype != self.node.dtype:
            raise RuntimeError(f"assigned grad has data of a different size or type: {tuple(value.shape)} {value.dtype!r} for a tensor of "
                               f"{tuple(self.shape)} {self.dtype!r}")
        if fbp_mode_get().capture != NULL:
            check(fbp_capture_gradient(fbp_mode_get().capture, self.node, True))
        place = fbp_gradient_place(self.node)
        if place == NULL:
            raise MemoryError("cannot allocate a gradient")
        old = place[0]
        place[0] = fbp_retain((<Tensor>value).node) if value is not None else NULL
        if old != NULL:
            fbp_release(old)

    @grad.deleter
    def grad(self):
        self.grad = None

    def retain_grad(self):
        """Have backward() keep this non-leaf's gradient in `.grad`."""
        if not fbp_requires_grad(self.node):
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self.node.edge_count:
            refuse_inner(self, "retain_grad()", None)
            self.node.flags |= FBP_RETAINS_GRAD

    @property
    def retains_grad(self):
        """Whether retain_grad() was asked for."""
        return bool(self.node.flags & FBP_RETAINS_GRAD)

    def register_hook(self, hook):
        """Call `hook(gradient)` whenever backward() has this tensor's gradient; what it returns, unless None, replaces it.

        Returns a handle whose remove() takes the hook away.
        """
        if not fbp_requires_grad(self.node):
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        refuse_inner(self, "register_hook()", None)
        return add_hook(self, hook, False)

    def register_post_accumulate_grad_hook(self, hook):
        """Call `hook(self)` whenever backward() has added to this leaf's `.grad`; what it returns is ignored.

        Returns a handle whose remove() takes the hook away.
        """
        if not fbp_requires_grad(self.node):
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self.node.edge_count:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        return add_hook(self, hook, True)

    def backward(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
        """Accumulate the derivatives of this tensor into the `.grad` of the leaves it was computed from.

        Parameters
        ----------
        gradient : Tensor, optional
            Cotangent, of this tensor's shape. Default: 1, for a tensor of one element.
        retain_graph : bool, optional
            Keep saved values, so that backward() can be called again. Default: as `create_graph`.
        create_graph : bool, optional
            Record the pass itself, for higher derivatives. Default: False.
        inputs : Tensor or sequence of Tensor, optional
            Accumulate into these alone. Default: all leaves.

        Raises
        ------
        RuntimeError
            Without `gradient` on more than one element; a second time without retain_graph; when a saved value was
            changed in place (the message names the op).

        Examples
        --------
        >>> x = fastbp.tensor(3.0, requires_grad=True)
        >>> (x * x).backward()
        >>> x.grad
        tensor(6.)
        """
        run_backward((self,), (gradient,), create_graph if retain_graph is None else retain_graph, create_graph, inputs)

    def detach(self):
        """The same elements without history."""
        cdef fbp_tensor *out
        note_outside(self.node)
        if fbp_is_batched(self.node):
            return detach_batched(self)
        check(fbp_tensor_detach(self.node, &out))
        return wrap(out)

    def detach_(self):
        """Forget the history of this tensor itself."""
        cdef fbp_tensor *out
        if self.node.edge_count and self.node.flags & FBP_VIEW:
            raise RuntimeError("Can't detach views in-place. Use detach() instead")
        if self.node.edge_count == 0:
            self.node.flags &= ~FBP_REQUIRES_GRAD
            return self
        check(fbp_tensor_detach(self.node, &out))
        replace_node(self, out)
        return self

    @property
    def data(self):
        """The same elements without history; assigning makes this tensor stand for other elements."""
        return self.detach()

    @data.setter
    def data(self, given):
        cdef Tensor value = tensor_argument("data", given, "value")
        cdef fbp_tensor *out
        cdef fbp_autograd *extra = self.node.autograd
        if fbp_mode_get().capture != NULL:  # the tensor stays, so its elements change
            if not fbp_same_shape(value.node, self.node) or value.node.dtype != self.node.dtype:
                raise RuntimeError(f"compile: .data = of another shape or dtype ({shape_tuple(value.node)} {value.dtype!r} for "
                                   f"{shape_tuple(self.node)} {self.dtype!r}) inside of the compiled function; do it outside")
            self.detach().copy_(value.detach())
            return
        check(fbp_tensor_detach(value.node, &out))
        out.flags = (out.flags & ~FBP_VIEW) | (self.node.flags & FBP_REQUIRES_GRAD)
        out.autograd = extra
        self.node.autograd = NULL
        move_hooks(self.node, out)
        replace_node(self, out)

    @data.deleter
    def data(self):
        raise RuntimeError("Deleting tensor data is not allowed. Delete tensor instead!")

    # ---- values ---------------------------------------------------------------------------------------------------

    def item(self):
        """The value of a tensor of one element, as a Python number."""
        if self.node.numel != 1:
            raise RuntimeError(f"a Tensor with {self.node.numel} elements cannot be converted to Scalar")
        need_value(self.node, "item()")
        return read_element(self.node.data, self.node.dtype)

    def tolist(self):
        """Nested lists of Python numbers (a number for 0-d)."""
        return self.item() if self.node.ndim == 0 else nested_list(self)

    def numpy(self, *, force=False):
        """A NumPy array over the same memory.

        Raises
        ------
        RuntimeError
            When the tensor requires grad, unless `force`.
        """
        if fbp_requires_grad(self.node) and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return as_array(self)

    def __array__(self, dtype=None, copy=None):
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError("a copy is needed to change the dtype")
            return array.astype(dtype)
        return array.copy() if copy else array

    __array_priority__ = 1000

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef fbp_tensor *t = self.node
        cdef int i, size = fbp_dtype_size(<fbp_dtype>t.dtype)
        need_value(t, "numpy()")
        if fbp_requires_grad(t):  # NumPy then asks __array__, which says what to do
            raise BufferError("the tensor requires grad; use tensor.detach()")
        if flags & PyBUF_WRITABLE and t.storage.read_only:
            raise BufferError("the memory of this tensor is read-only")
        if not (flags & PyBUF_STRIDES == PyBUF_STRIDES) and not fbp_is_contiguous(t):
            raise BufferError("the tensor is not contiguous and the consumer asks for a flat buffer")
        cdef exported_buffer *held = <exported_buffer *>fbp_block_get(sizeof(exported_buffer))
        if held == NULL:
            raise MemoryError("cannot allocate a buffer description")
        held.storage = t.storage
        fbp_storage_retain(t.storage)
        for i in range(t.ndim):
            held.dims[i] = fbp_shape(t)[i]
            held.dims[t.ndim + i] = fbp_strides(t)[i] * size
        view.buf = t.data
        view.obj = self
        view.len = t.numel * size
        view.itemsize = size
        view.readonly = t.storage.read_only
        view.ndim = t.ndim
        view.format = <char *>(<dtype>DTYPES[t.dtype]).format if flags & PyBUF_FORMAT else NULL
        view.shape = held.dims
        view.strides = held.dims + t.ndim
        view.suboffsets = NULL
        view.internal = held

    def __releasebuffer__(self, Py_buffer *view):
        cdef exported_buffer *held = <exported_buffer *>view.internal
        fbp_storage_release(held.storage)
        fbp_block_free(held, sizeof(exported_buffer))

    def __bool__(self):
        if self.node.numel != 1:
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous" if self.node.numel
                               else "Boolean value of Tensor with no values is ambiguous")
        need_value(self.node, "bool()")
        return bool(read_element(self.node.data, self.node.dtype))

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        if fbp_dtype_is_float(<fbp_dtype>self.node.dtype) or self.node.numel != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __complex__(self):
        return complex(self.item())

    def __round__(self, ndigits=0):
        return self.round(decimals=ndigits or 0)

    def __format__(self, spec):
        if not isinstance(spec, str):
            raise TypeError(f"__format__() argument must be str, not {builtin_type(spec).__name__}")
        if self.node.ndim == 0 and spec:
            return format(self.item(), spec)
        return object.__format__(self, spec)

    def __repr__(self):
        if fbp_is_batched(self.node):
            return batched_repr(self)
        if self.node.storage.symbolic:
            return f"tensor(symbolic, shape={shape_tuple(self.node)}, dtype={DTYPES[self.node.dtype]!r})"
        return format_repr(self)

    def __len__(self):
        if self.node.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return fbp_shape(self.node)[0]

    def __hash__(self):
        return <Py_hash_t>(<size_t><void *>self >> 4)

    def __reduce__(self):
        made_of = (as_array(self.detach()).copy(), bool(fbp_requires_grad(self.node) and self.node.edge_count == 0))
        attributes = attributes_or_none(self)
        return (rebuild, made_of) if attributes is None else (rebuild, made_of, attributes)

    def __copy__(self):
        copied = self.detach().requires_grad_(self.requires_grad) if self.node.edge_count == 0 else self.detach()
        attributes = attributes_or_none(self)
        if attributes is not None:
            copied.__dict__.update(attributes)
        return copied

    def __deepcopy__(self, memo):
        found = memo.get(id(self))
        if found is None:
            if self.node.edge_count:
                raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment")
            found = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = found
            if self.grad is not None:
                found.grad = deep_copy(self.grad.detach() if self.grad.grad_fn is not None else self.grad, memo)
            attributes = attributes_or_none(self)
            if attributes is not None:
                found.__dict__.update(deep_copy(attributes, memo))
        return found

    # ---- operators ---------------------------------------------------------------------------------------------------

    def __add__(self, other):
        return binary(FBP_OP_add, self, other) if is_operand(other) else NotImplemented

    def __radd__(self, other):
        return binary(FBP_OP_add, other, self) if is_operand(other) else NotImplemented

    def __iadd__(self, other):
        return binary_in_place(FBP_OP_add, self, other, 0.0, 0.0)

    def __sub__(self, other):
        return binary(FBP_OP_sub, self, other) if is_operand(other) else NotImplemented

    def __rsub__(self, other):
        return binary(FBP_OP_sub, other, self) if is_operand(other) else NotImplemented

    def __isub__(self, other):
        return binary_in_place(FBP_OP_sub, self, other, 0.0, 0.0)

    def __mul__(self, other):
        return binary(FBP_OP_mul, self, other) if is_operand(other) else NotImplemented

    def __rmul__(self, other):
        return binary(FBP_OP_mul, other, self) if is_operand(other) else NotImplemented

    def __imul__(self, other):
        return binary_in_place(FBP_OP_mul, self, other, 0.0, 0.0)

    def __truediv__(self, other):
        return binary(FBP_OP_div, self, other) if is_operand(other) else NotImplemented

    def __rtruediv__(self, other):
        return binary(FBP_OP_div, other, self) if is_operand(other) else NotImplemented

    def __itruediv__(self, other):
        return binary_in_place(FBP_OP_div, self, other, 0.0, 0.0)

    def __floordiv__(self, other):
        return binary(FBP_OP_floor_divide, self, other) if is_operand(other) else NotImplemented

    def __rfloordiv__(self, other):
        return binary(FBP_OP_floor_divide, other, self) if is_operand(other) else NotImplemented

    def __ifloordiv__(self, other):
        return binary_in_place(FBP_OP_floor_divide, self, other, 0.0, 0.0)

    def __mod__(self, other):
        return binary(FBP_OP_remainder, self, other) if is_operand(other) else NotImplemented

    def __rmod__(self, other):
        return binary(FBP_OP_remainder, other, self) if is_operand(other) else NotImplemented

    def __imod__(self, other):
        return binary_in_place(FBP_OP_remainder, self, other, 0.0, 0.0)

    def __pow__(self, other, modulo):
        return power(self, other) if is_operand(other) else NotImplemented

    def __rpow__(self, other, modulo):
        return binary(FBP_OP_pow, other, self) if is_operand(other) else NotImplemented

    def __ipow__(self, other):
        return binary_in_place(FBP_OP_pow, self, other, 0.0, 0.0)

    def __matmul__(self, other):
        return binary(FBP_OP_matmul, self, other) if is_operand(other) else NotImplemented

    def __rmatmul__(self, other):
        return binary(FBP_OP_matmul, other, self) if is_operand(other) else NotImplemented

    def __and__(self, other):
        return binary(FBP_OP_bitwise_and, self, other) if is_operand(other) else NotImplemented

    def __rand__(self, other):
        return binary(FBP_OP_bitwise_and, other, self) if is_operand(other) else NotImplemented

    def __iand__(self, other):
        return binary_in_place(FBP_OP_bitwise_and, self, other, 0.0, 0.0)

    def __or__(self, other):
        return binary(FBP_OP_bitwise_or, self, other) if is_operand(other) else NotImplemented

    def __ror__(self, other):
        return binary(FBP_OP_bitwise_or, other, self) if is_operand(other) else NotImplemented

    def __ior__(self, other):
        return binary_in_place(FBP_OP_bitwise_or, self, other, 0.0, 0.0)

    def __xor__(self, other):
        return binary(FBP_OP_bitwise_xor, self, other) if is_operand(other) else NotImplemented

    def __rxor__(self, other):
        return binary(FBP_OP_bitwise_xor, other, self) if is_operand(other) else NotImplemented

    def __ixor__(self, other):
        return binary_in_place(FBP_OP_bitwise_xor, self, other, 0.0, 0.0)

    def __neg__(self):
        return unary(FBP_OP_neg, self)

    def __pos__(self):
        return self

    def __abs__(self):
        return unary(FBP_OP_abs, self)

    def __invert__(self):
        return unary(FBP_OP_bitwise_not, self)

    def __eq__(self, other):
        return binary(FBP_OP_eq, self, other) if is_operand(other) else NotImplemented

    def __ne__(self, other):
        return binary(FBP_OP_ne, self, other) if is_operand(other) else NotImplemented

    def __lt__(self, other):
        return binary(FBP_OP_lt, self, other) if is_operand(other) else NotImplemented

    def __le__(self, other):
        return binary(FBP_OP_le, self, other) if is_operand(other) else NotImplemented

    def __gt__(self, other):
        return binary(FBP_OP_gt, self, other) if is_operand(other) else NotImplemented

    def __ge__(self, other):
        return binary(FBP_OP_ge, self, other) if is_operand(other) else NotImplemented

    include "generated_methods.pxi"
    include "shape_methods.pxi"
    include "reduction_methods.pxi"
    include "indexing_methods.pxi"
    include "creation_methods.pxi"
    include "matrix_methods.pxi"
