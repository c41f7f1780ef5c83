# The recorded graph as plain data, and any row of the op table by name: what fastbp.testing looks through.

cdef extern from *:
    """
    #define FBP_NAME_OF(name) #name,
    static const char *const fbp_attribute_names[] = {FBP_ATTRIBUTE_KINDS(FBP_NAME_OF)}; /* by fbp_attribute_kind */
    """
    const char *const *fbp_attribute_names

cdef extern from "ops/attributes.h":
    ctypedef union any_attribute "fbp_any_attribute":
        fbp_scalar_attribute scalar
        fbp_dtype_attribute dtype
        fbp_shape_attribute shape
        fbp_permute_attribute permute
        fbp_slice_attribute slice
        fbp_diagonal_attribute diagonal
        fbp_dim_attribute dim
        fbp_reduce_attribute reduce
        fbp_take_attribute take
        fbp_loss_attribute loss
        fbp_matrix_attribute matrix
        fbp_source_attribute source


cdef str attribute_struct(int op):
    """Name of an op's attributes without the fbp_..._attribute about it."""
    return fbp_attribute_names[fbp_ops[op].attribute].decode()


cdef tuple bits(uint32_t mask):
    return tuple([i for i in range(32) if mask >> i & 1])


cdef uint32_t bit_mask(object places) except? 0xFFFFFFFF:
    cdef uint32_t mask = 0
    for place in places:
        mask |= <uint32_t>1 << <int>place
    return mask


cdef dict attributes_read(int op, const void *stored, int size):
    """Attributes as a dict: fields of the struct by name, arrays as tuples, bit masks as tuples of the places set."""
    cdef any_attribute a
    cdef str kind = attribute_struct(op)
    if size == 0:
        return {}
    memcpy(&a, stored, size)
    if kind == "scalar":
        return {"p": (a.scalar.p[0], a.scalar.p[1])}
    if kind == "dtype":
        return {"dtype": fbp_dtype_name(<fbp_dtype>a.dtype.dtype).decode()}
    if kind == "shape":
        return {"shape": tuple([a.shape.shape[i] for i in range(a.shape.ndim)])}
    if kind == "permute":
        return {"axes": tuple([a.permute.axes[i] for i in range(a.permute.ndim)])}
    if kind == "slice":
        axes = range(a.slice.ndim)
        return {"start": tuple([a.slice.axis[i].start for i in axes]), "step": tuple([a.slice.axis[i].step for i in axes]),
                "count": tuple([a.slice.axis[i].count for i in axes]), "size": tuple([a.slice.axis[i].size for i in axes]),
                "dropped": bits(a.slice.dropped)}
    if kind == "diagonal":
        return {"first": a.diagonal.first, "second": a.diagonal.second, "offset": a.diagonal.offset,
                "sizes": (a.diagonal.sizes[0], a.diagonal.sizes[1])}
    if kind == "dim":
        return {"dim": a.dim.dim, "flag": a.dim.flag}
    if kind == "reduce":
        return {"dims": bits(a.reduce.dims), "keepdim": bool(a.reduce.keepdim), "p": a.reduce.p}
    if kind == "take":
        return {"axes": a.take.axes, "shape": tuple([a.take.shape[i] for i in range(a.take.ndim)])}
    if kind == "matrix":
        return {"upper": bool(a.matrix.upper), "unit": bool(a.matrix.unit), "values": bool(a.matrix.values),
                "complete": bool(a.matrix.complete), "lenient": bool(a.matrix.lenient), "atol": a.matrix.atol, "rtol": a.matrix.rtol}
    if kind == "loss":
        return {"ignore_index": a.loss.ignore_index, "label_smoothing": a.loss.label_smoothing,
                "reduction": ("none", "mean", "sum")[a.loss.reduction], "classes": a.loss.classes}
    if kind == "source":
        return {"seed": a.source.seed, "offset": a.source.offset, "p": (a.source.p[0], a.source.p[1]),
                "integer": (a.source.integer[0], a.source.integer[1]), "dtype": fbp_dtype_name(<fbp_dtype>a.source.dtype).decode(),
                "shape": tuple([a.source.shape[i] for i in range(a.source.ndim)])}
    return {}


cdef int sizes_write(object sizes, int64_t *array) except -1:
    """Sizes into an array of FBP_MAX_NDIM; returns how many."""
    sizes = tuple(sizes)  # what follows may run Python code, which could change a list
    if len(sizes) > FBP_MAX_NDIM:
        raise ValueError(f"at most {FBP_MAX_NDIM} dimensions, got {len(sizes)}")
    for i in range(len(sizes)):
        array[i] = sizes[i]
    return <int>len(sizes)


cdef tuple padded(object numbers):
    """Two numbers, those that are left out 0."""
    cdef tuple two = (*numbers, 0, 0)
    if len(two) > 4:
        raise ValueError(f"at most two numbers, got {len(two) - 2}")
    return two[:2]


cdef int attributes_write(int op, dict given, any_attribute *a) except -1:
    """The opposite of attributes_read(): fields that are left out are 0.  Returns the bytes in use."""
    cdef str kind = attribute_struct(op)
    cdef int n
    memset(a, 0, sizeof(any_attribute))
    if kind == "scalar":
        a.scalar.p[0], a.scalar.p[1] = padded(given.get("p", ()))
        return sizeof(fbp_scalar_attribute)
    if kind == "dtype":
        a.dtype.dtype = dtype_code(given["dtype"])
        return sizeof(fbp_dtype_attribute)
    if kind == "shape":
        a.shape.ndim = n = sizes_write(given["shape"], a.shape.shape)
        return shape_bytes(n)
    if kind == "permute":
        axes = tuple(given["axes"])
        if len(axes) > FBP_MAX_NDIM:
            raise ValueError(f"at most {FBP_MAX_NDIM} dimensions, got {len(axes)}")
        a.permute.ndim = <int32_t>len(axes)
        for i, axis in enumerate(axes):
            a.permute.axes[i] = axis
        return sizeof(fbp_permute_attribute)
    if kind == "slice":
        if len(given["size"]) > FBP_MAX_NDIM:
            raise ValueError(f"at most {FBP_MAX_NDIM} dimensions, got {len(given['size'])}")
        a.slice.ndim = n = <int>len(given["size"])
        a.slice.dropped = bit_mask(given.get("dropped", ()))
        for i in range(n):
            a.slice.axis[i].start = given["start"][i]
            a.slice.axis[i].step = given["step"][i]
            a.slice.axis[i].count = given["count"][i]
            a.slice.axis[i].size = given["size"][i]
        return slice_bytes(n)
    if kind == "diagonal":
        a.diagonal.first, a.diagonal.second, a.diagonal.offset = given["first"], given["second"], given.get("offset", 0)
        a.diagonal.sizes[0], a.diagonal.sizes[1] = given["sizes"]
        return sizeof(fbp_diagonal_attribute)
    if kind == "dim":
        a.dim.dim, a.dim.flag = given.get("dim", 0), given.get("flag", 0)
        return sizeof(fbp_dim_attribute)
    if kind == "reduce":
        a.reduce.dims, a.reduce.keepdim, a.reduce.p = bit_mask(given["dims"]), given.get("keepdim", False), given.get("p", 0.0)
        return sizeof(fbp_reduce_attribute)
    if kind == "take":
        a.take.axes = given.get("axes", 1)
        a.take.ndim = sizes_write(given["shape"], a.take.shape)
        return sizeof(fbp_take_attribute)
    if kind == "matrix":
        a.matrix.upper, a.matrix.unit, a.matrix.values = given.get("upper", 0), given.get("unit", 0), given.get("values", 0)
        a.matrix.complete, a.matrix.lenient = given.get("complete", 0), given.get("lenient", 0)
        a.matrix.atol, a.matrix.rtol = given.get("atol", 0.0), given.get("rtol", 0.0)
        return sizeof(fbp_matrix_attribute)
    if kind == "loss":
        a.loss.ignore_index, a.loss.label_smoothing = given.get("ignore_index", -100), given.get("label_smoothing", 0.0)
        a.loss.reduction, a.loss.classes = ("none", "mean", "sum").index(given["reduction"]), given.get("classes", 0)
        return sizeof(fbp_loss_attribute)
    if kind == "source":
        a.source.seed, a.source.offset = given.get("seed", 0), given.get("offset", 0)
        a.source.p[0], a.source.p[1] = padded(given.get("p", ()))
        a.source.integer[0], a.source.integer[1] = padded(given.get("integer", ()))
        a.source.dtype = dtype_code(given.get("dtype", "float32"))
        a.source.ndim = sizes_write(given["shape"], a.source.shape)
        return sizeof(fbp_source_attribute)
    return 0


def _apply(name, inputs, attributes=None):
    """Any row of the op table: the door to rows that have no public function of their own.  For tests, and for passes that ask an op what it does.

    Parameters
    ----------
    name : str
        The row's name.
    inputs : sequence of (Tensor or None)
        None where an optional one is left out.
    attributes : dict, optional
        Fields of the row's attributes as `_recorded_graph` shows them; those left out are 0.

    Raises
    ------
    KeyError
        When there is no such row, or an attribute that has no default is missing.
    NotImplementedError
        For rows outside differentiation, which are not applied to tensors.
    """
    cdef any_attribute attribute
    cdef fbp_tensor **operands
    cdef fbp_tensor *out
    cdef fbp_status status
    cdef int op = 1, count, size
    inputs = tuple(inputs)
    count = <int>len(inputs)
    while op < FBP_OP_COUNT and fbp_ops[op].name.decode() != name:
        op += 1
    if op == FBP_OP_COUNT:
        raise KeyError(f"the op table has no row {name!r}")
    if fbp_ops[op].run == NULL:
        raise NotImplementedError(f"{name} is not applied to tensors")
    if fbp_ops[op].arity >= 0 and count > fbp_ops[op].arity:
        raise ValueError(f"{name}: {count} inputs are too many")
    needed = inputs[:2] if fbp_op_third_optional[op] else inputs
    least = 2 if fbp_op_third_optional[op] else 1 if fbp_ops[op].arity < 0 else fbp_ops[op].arity
    if len(needed) < least or builtin_any([x is None for x in needed]):
        raise ValueError(f"{name}: inputs are missing")
    size = attributes_write(op, attributes or {}, &attribute)
    operands = tensor_array(inputs, count)
    status = fbp_apply(<fbp_op>op, count, operands, <void *>&attribute if size else NULL, size, &out)
    free_array(operands, count)
    check(status)
    return wrap(out)


def _recorded_graph(outputs):
    """The recorded nodes behind tensors, each after its inputs.

    Parameters
    ----------
    outputs : sequence of Tensor

    Returns
    -------
    nodes : list of (str, tuple, dict, Tensor or None)
        Op ("leaf" where nothing was recorded), positions of the inputs in this list (None: left out), attributes, and the value;
        None in its place where the node gave it up or an in-place op has overwritten it.
    positions : list of int
        Where the outputs are.
    """
    cdef fbp_tensor *node
    cdef fbp_tensor *input
    found = {}
    outputs = list(outputs)
    pending = [<size_t>(<Tensor?>x).node for x in outputs]
    while pending:
        address = pending.pop()
        if address in found:
            continue
        node = <fbp_tensor *><size_t>address
        inputs = []
        for i in range(node.edge_count):
            input = fbp_input(node, i)
            inputs.append(<size_t>input if input != NULL else None)
            if input != NULL:
                pending.append(<size_t>input)
        found[address] = inputs
    keys = [(len(found[at]) > 0, (<fbp_tensor *><size_t>at).sequence, i, at) for i, at in enumerate(found)]
    order = [key[3] for key in sorted(keys)]
    position = {address: i for i, address in enumerate(order)}
    nodes = []
    for address in order:
        node = <fbp_tensor *><size_t>address
        name = "leaf" if node.edge_count == 0 else "custom" if node.flags & FBP_HOST_RULE else fbp_ops[<int>node.op].name.decode()
        valid = node.storage != NULL and (node.edge_count == 0 or node.version == node.storage.version)
        attributes = attributes_read(node.op, fbp_attributes(node), node.attribute_bytes) if node.edge_count else {}
        nodes.append((name, tuple([None if i is None else position[i] for i in found[address]]), attributes,
                      wrap(fbp_retain(node)) if valid else None))
    return nodes, [position[<size_t>(<Tensor?>x).node] for x in outputs]
