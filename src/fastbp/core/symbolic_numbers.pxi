# Numbers of optimizers in a captured function: each remembers where it came from, so that a plan computes it anew at each call.

import builtins as builtin_functions
import math as builtin_math
import operator as builtin_operators

# What a node computes, in Python's own arithmetic: so the bits are those of the function.
cdef list NUMBER_OPERATORS = [getattr(builtin_operators, name) for name in
                              "add sub mul truediv floordiv mod pow lt le eq ne gt ge neg pos abs truth".split()]
cdef enum:
    NUMBER_ADD, NUMBER_SUB, NUMBER_MUL, NUMBER_DIV, NUMBER_FLOORDIV, NUMBER_MOD, NUMBER_POW
    NUMBER_LT, NUMBER_LE, NUMBER_EQ, NUMBER_NE, NUMBER_GT, NUMBER_GE
    NUMBER_NEG, NUMBER_POS, NUMBER_ABS, NUMBER_TRUTH
    NUMBER_CONSTANT, NUMBER_SOURCE

cdef dict UFUNC_OPERATORS = {"add": NUMBER_ADD, "subtract": NUMBER_SUB, "multiply": NUMBER_MUL, "divide": NUMBER_DIV}

# Where a number of an optimizer lies.
cdef enum:
    OF_GROUP, OF_STATE, OF_OPTIMIZER


@cython.final
@cython.binding(False)
cdef class NumberNode:
    """One number: a constant, one that lies in an optimizer, or what an operator makes of such."""

    cdef int op
    cdef NumberNode a, b
    cdef object value         # at capture; then at the latest call
    cdef object kind          # its type at capture
    cdef dict attributes      # of the optimizer
    cdef int room             # an option of a group, an entry of a parameter's state, or an attribute
    cdef object place, key    # number of the group, or parameter; name in its dict
    cdef Py_ssize_t element   # of a tuple, -1
    cdef bint used            # something in the plan depends on it

    cdef bint evaluate(self) except -1:
        """The value now; False where there is none, or one of another type."""
        cdef object found
        if self.op == NUMBER_CONSTANT:
            return True
        if self.op == NUMBER_SOURCE:
            found = dict_of(self.attributes, self.room, self.place)
            found = None if found is None else (<dict>found).get(self.key)
            if self.element >= 0:
                found = (<tuple>found)[self.element] if isinstance(found, tuple) and len(<tuple>found) > self.element else None
        else:
            try:
                found = NUMBER_OPERATORS[self.op](self.a.value) if self.b is None else NUMBER_OPERATORS[self.op](self.a.value, self.b.value)
            except ArithmeticError:
                return False  # the function will raise it
        self.value = found
        return builtin_type(found) is self.kind


cdef object dict_of(dict attributes, int room, object place):
    """The dict of a group, by its number, of a parameter's state, or of the optimizer; None where there is none."""
    cdef object found
    if room == OF_OPTIMIZER:
        return attributes
    if room == OF_STATE:
        state = attributes.get("state")
        found = state.get(place) if isinstance(state, dict) else None
        return found if isinstance(found, dict) else None
    groups = attributes.get("param_groups")
    if not isinstance(groups, list) or <Py_ssize_t>place >= len(<list>groups):
        return None
    found = (<list>groups)[place]
    return found if isinstance(found, dict) else None


cdef bint is_same_number(object a, object b) except -1:
    """Whether two numbers of one type have the same bits, but for NaNs, which are all the same."""
    if isinstance(a, float):
        return (a == b and builtin_math.copysign(1.0, a) == builtin_math.copysign(1.0, b)) or (a != a and b != b)
    return a == b


@cython.final
@cython.binding(False)
cdef class NumberInput:
    """A number where a plan reads it as an element: a 0-d tensor that is written before each run."""

    cdef NumberNode node
    cdef Tensor tensor

    cdef int begin(self) except -1:
        cdef fbp_tensor *t = self.tensor.node
        cdef object before = read_element(t.data, t.dtype)
        write_element(t.data, t.dtype, self.node.value)
        if before != read_element(t.data, t.dtype):
            t.storage.version += 1  # a derivative that is yet to run would read the new one
        return 0


@cython.final
@cython.binding(False)
cdef class NumberTape:
    """The numbers of one capture in the order in which they were made, and what Python decided on them."""

    cdef list nodes, inputs
    cdef list guards          # nodes whose value must be what it was
    cdef dict tensors         # inputs by node and dtype
    cdef bint open            # the capture is under way

    def __cinit__(self):
        self.nodes, self.inputs, self.guards, self.tensors, self.open = [], [], [], {}, True

    cdef NumberNode add(self, int op, NumberNode a, NumberNode b, object value):
        cdef NumberNode node = NumberNode.__new__(NumberNode)
        node.op, node.a, node.b, node.value, node.kind, node.element = op, a, b, value, builtin_type(value), -1
        self.nodes.append(node)
        return node

    cdef NumberNode source(self, dict attributes, int room, place, key, Py_ssize_t element, value):
        cdef NumberNode node = self.add(NUMBER_SOURCE, None, None, value)
        node.attributes, node.room, node.place, node.key, node.element = attributes, room, place, key, element
        return node

    cdef int close(self, list results) except -1:
        """The capture has ended; numbers that neither it nor `results` depend on are let go."""
        cdef NumberNode node
        cdef NumberInput input
        self.open = False
        for input in self.inputs:
            input.node.used = True
        for node, wanted in self.guards:
            node.used = True
        for one in results:
            if isinstance(one, SymbolicNumber):
                (<SymbolicNumber>one).node.used = True
        for node in reversed(self.nodes):
            if node.used and node.a is not None:
                node.a.used = True
                if node.b is not None:
                    node.b.used = True
        self.nodes = [one for one in self.nodes if (<NumberNode>one).used]
        return 0

    cdef Tensor tensor_of(self, NumberNode node, int code):
        """The 0-d tensor through which ops see a number."""
        cdef NumberInput input = self.tensors.get((id(node), code))
        cdef fbp_capture *capture
        if input is None:
            input = NumberInput.__new__(NumberInput)
            input.node = node
            capture = fbp_capture_pause()
            try:
                input.tensor = wrap(new_number(node.value, code))
            finally:
                fbp_capture_resume(capture)
            input.tensor.node.storage.captured = 0
            self.tensors[id(node), code] = input
            self.inputs.append(input)
        return input.tensor

    cdef bint evaluate(self) except -1:
        """All numbers as they are now; False where Python would decide otherwise than at capture."""
        cdef NumberNode node
        for node in self.nodes:
            if not node.evaluate():
                return False
        for node, wanted in self.guards:
            if not is_same_number(node.value, wanted):
                return False
        return True


@cython.binding(False)
cdef class SymbolicNumber:
    """A number of an optimizer while a function is captured: arithmetic on it is written down, a decision on it is guarded.

    After the capture it is the number that it was.
    """

    cdef NumberTape tape
    cdef NumberNode node

    cdef object fixed(self):
        """The number itself; later calls must find the same one."""
        if self.is_open():
            self.tape.guards.append((self.node, self.node.value))
        return self.node.value

    cdef bint is_open(self) noexcept:
        cdef Capture capture = current_capture()
        return self.tape.open and capture is not None and capture.tape is self.tape

    @property
    def __class__(self):
        return self.node.kind

    def __add__(self, other): return number_binary(NUMBER_ADD, self, other)
    def __radd__(self, other): return number_binary(NUMBER_ADD, other, self)
    def __sub__(self, other): return number_binary(NUMBER_SUB, self, other)
    def __rsub__(self, other): return number_binary(NUMBER_SUB, other, self)
    def __mul__(self, other): return number_binary(NUMBER_MUL, self, other)
    def __rmul__(self, other): return number_binary(NUMBER_MUL, other, self)
    def __truediv__(self, other): return number_binary(NUMBER_DIV, self, other)
    def __rtruediv__(self, other): return number_binary(NUMBER_DIV, other, self)
    def __floordiv__(self, other): return number_binary(NUMBER_FLOORDIV, self, other)
    def __rfloordiv__(self, other): return number_binary(NUMBER_FLOORDIV, other, self)
    def __mod__(self, other): return number_binary(NUMBER_MOD, self, other)
    def __rmod__(self, other): return number_binary(NUMBER_MOD, other, self)

    def __pow__(self, other, modulus):
        return number_binary(NUMBER_POW, self, other) if modulus is None else builtin_functions.pow(self.fixed(), other, modulus)

    def __rpow__(self, other, modulus):
        return number_binary(NUMBER_POW, other, self)

    def __array_ufunc__(self, function, method, *inputs, **options):
        """NumPy's numbers on the left multiply and add as Python's do; all else of NumPy takes the number itself."""
        cdef object op = UFUNC_OPERATORS.get(function.__name__)
        if op is not None and method == "__call__" and not options and builtin_all([isinstance(x, (SymbolicNumber, int, float)) for x in inputs]):
            return number_binary(op, inputs[0], inputs[1])
        return getattr(function, method)(*[fixed_number(x) for x in inputs], **options)

    def __neg__(self): return number_unary(NUMBER_NEG, self)
    def __pos__(self): return number_unary(NUMBER_POS, self)
    def __abs__(self): return number_unary(NUMBER_ABS, self)

    # Decisions: comparisons must come out as at capture, all else must find the same number.
    def __lt__(self, other): return number_decision(NUMBER_LT, self, other)
    def __le__(self, other): return number_decision(NUMBER_LE, self, other)
    def __eq__(self, other): return number_decision(NUMBER_EQ, self, other)
    def __ne__(self, other): return number_decision(NUMBER_NE, self, other)
    def __gt__(self, other): return number_decision(NUMBER_GT, self, other)
    def __ge__(self, other): return number_decision(NUMBER_GE, self, other)

    def __bool__(self):
        if not self.is_open():
            return bool(self.node.value)
        node = self.tape.add(NUMBER_TRUTH, self.node, None, bool(self.node.value))
        self.tape.guards.append((node, node.value))
        return node.value

    def __float__(self): return float(self.fixed())
    def __int__(self): return int(self.fixed())
    def __complex__(self): return complex(self.fixed())
    def __hash__(self): return hash(self.fixed())
    def __round__(self, *digits): return self.fixed().__round__(*digits)
    def __trunc__(self): return self.fixed().__trunc__()
    def __floor__(self): return builtin_math.floor(self.fixed())
    def __ceil__(self): return builtin_math.ceil(self.fixed())
    def __divmod__(self, other): return divmod(self.fixed(), other)
    def __rdivmod__(self, other): return divmod(other, self.fixed())
    def __format__(self, text): return format(self.fixed(), text)
    def __str__(self): return str(self.fixed())
    def __repr__(self): return repr(self.fixed())
    def __reduce__(self): return self.node.kind, (self.fixed(),)
    def __copy__(self): return self
    def __deepcopy__(self, memo): return self

    def __getattr__(self, name):
        getattr(self.node.value, name)  # what a number does not have decides nothing
        return getattr(self.fixed(), name)


@cython.final
@cython.binding(False)
cdef class SymbolicInteger(SymbolicNumber):
    """A whole `SymbolicNumber`, which may count and index: then later calls must find the same one."""

    def __index__(self): return self.fixed()
    def __and__(self, other): return fixed_number(self) & fixed_number(other)
    def __rand__(self, other): return fixed_number(other) & fixed_number(self)
    def __or__(self, other): return fixed_number(self) | fixed_number(other)
    def __ror__(self, other): return fixed_number(other) | fixed_number(self)
    def __lshift__(self, other): return fixed_number(self) << fixed_number(other)
    def __rshift__(self, other): return fixed_number(self) >> fixed_number(other)


cdef object number_of(NumberTape tape, NumberNode node):
    """The Python object for a node; what is neither int nor float is fixed."""
    cdef SymbolicNumber number
    if is_number(node.value) and isinstance(node.value, int):
        number = SymbolicInteger.__new__(SymbolicInteger)
    elif isinstance(node.value, float):
        number = SymbolicNumber.__new__(SymbolicNumber)
    else:
        tape.guards.append((node, node.value))
        return node.value
    number.tape, number.node = tape, node
    return number


cdef object fixed_number(object x):
    """x itself, or the number that a symbolic one is now, which later calls must find too."""
    return (<SymbolicNumber>x).fixed() if isinstance(x, SymbolicNumber) else x


cdef object number_now(object x):
    """x itself, or the number that a symbolic one is now; nothing is guarded."""
    return (<SymbolicNumber>x).node.value if isinstance(x, SymbolicNumber) else x


cdef NumberNode node_of(NumberTape tape, object x):
    if isinstance(x, SymbolicNumber):
        return (<SymbolicNumber>x).node
    return tape.add(NUMBER_CONSTANT, None, None, x)


cdef NumberTape tape_of(object a, object b):
    """The open tape of the operands, None: their plain numbers are meant."""
    cdef object x
    for x in (a, b):
        if isinstance(x, SymbolicNumber) and not (<SymbolicNumber>x).is_open():
            return None
    if isinstance(a, SymbolicNumber):
        return (<SymbolicNumber>a).tape if isinstance(b, (SymbolicNumber, int, float)) else None
    return (<SymbolicNumber>b).tape if isinstance(a, (int, float)) else None


cdef object number_binary(int op, object a, object b):
    cdef NumberTape tape
    cdef NumberNode x
    cdef NumberNode y
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return NotImplemented
    tape = tape_of(a, b)
    if tape is None:
        return NUMBER_OPERATORS[op](fixed_number(a), fixed_number(b))
    x, y = node_of(tape, a), node_of(tape, b)
    return number_of(tape, tape.add(op, x, y, NUMBER_OPERATORS[op](x.value, y.value)))


cdef object number_unary(int op, SymbolicNumber a):
    if not a.is_open():
        return NUMBER_OPERATORS[op](a.node.value)
    return number_of(a.tape, a.tape.add(op, a.node, None, NUMBER_OPERATORS[op](a.node.value)))


cdef object number_decision(int op, object a, object b):
    cdef NumberTape tape
    cdef NumberNode x
    cdef NumberNode y
    cdef NumberNode node
    if isinstance(b, Tensor):
        return NotImplemented
    tape = tape_of(a, b)
    if tape is None:
        return NUMBER_OPERATORS[op](fixed_number(a), fixed_number(b))
    x, y = node_of(tape, a), node_of(tape, b)
    node = tape.add(op, x, y, NUMBER_OPERATORS[op](x.value, y.value))
    tape.guards.append((node, node.value))
    return node.value


cdef fbp_tensor *symbolic_operand(SymbolicNumber x, int other) except NULL:
    """The core tensor for a symbolic number beside an operand of dtype `other`, as new_number() has it for a plain one."""
    if not x.is_open():
        return new_number(x.node.value, other)
    return fbp_retain(x.tape.tensor_of(x.node, other).node)
