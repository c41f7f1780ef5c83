# What a plan depends on in Python's own state: modules, classes, variables and hooks, compared with what they were at capture.

from cpython.bytes cimport PyBytes_Check
from cpython.complex cimport PyComplex_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_Check
from cpython.tuple cimport PyTuple_Check
from cpython.unicode cimport PyUnicode_Check

cdef extern from *:
    """
    static inline unsigned int fbp_type_version(PyObject *type) {
        return __atomic_load_n(&((PyTypeObject *)type)->tp_version_tag, __ATOMIC_RELAXED);
    }
    static inline PyObject *fbp_cell_get(PyObject *cell) { return PyCell_Get(cell); }
    static inline PyObject *fbp_cell_content(PyObject *cell) { return ((PyCellObject *)cell)->ob_ref; }
    """
    ctypedef struct PyObject
    unsigned int fbp_type_version(PyObject *type) noexcept    # another one after each change of a class or of its bases; 0: none given
    PyObject *fbp_cell_content(PyObject *cell) noexcept       # borrowed; NULL: the variable has no value
    PyObject *fbp_cell_get(PyObject *cell) except? NULL       # a new reference; NULL: the variable has no value
    PyObject *PyDict_GetItemWithError(PyObject *d, PyObject *key) except? NULL  # borrowed; NULL: there is none

# Moves with every change that the walk over modules and hooks would see.
cdef uint64_t world_now = 1


cdef inline void move_world() noexcept:
    global world_now
    world_now += 1


def world_moved():
    """Say that a module, its hooks or those of a tensor were changed: plans look at theirs again before they run."""
    move_world()


def world_version():
    """How often something was changed that plans look at."""
    return world_now


class RunEagerly(BaseException):
    """Raised inside of a capture or of `make_plan`: no plan can stand for this call, so that the function itself has to run.

    It passes every `except Exception` of the function that is captured; where that catches even this, the capture fails all the same.

    Parameters
    ----------
    reason : str
        Completes "compile: f runs eagerly from now on: ...".
    forever : bool, optional
        Give the function up at once, and not only when three calls running could not be planned. Default: False.
    """

    def __init__(self, reason, forever=False):
        BaseException.__init__(self, reason)
        self.reason, self.forever = reason, forever
        capture = current_capture()
        if capture is not None:
            capture.eager = self


# ---- values --------------------------------------------------------------------------------------------------------------

cdef object method_type = __import__("types").MethodType
cdef object cell_type = __import__("types").CellType


def same_value(a, b):
    """Whether code that reads `b` does what it does for `a`: one object, or equal plain values of one type.

    0.0 and -0.0 differ, a NaN is like any other, True is not 1.  Other objects are the same only as one object.
    """
    return is_same(a, b)


cdef enum:
    MOST_NESTED = 100  # tuples within tuples that are looked into: others count as changed


cdef inline bint is_same(object a, object b) except -1:
    return a is b or is_same_within(a, b, MOST_NESTED)


cdef bint is_same_within(object a, object b, int depth) except -1:
    cdef double x, y
    cdef Py_ssize_t i
    if a is b:
        return True
    if builtin_type(a) is not builtin_type(b):
        return False
    if PyFloat_Check(a):
        x, y = PyFloat_AS_DOUBLE(a), PyFloat_AS_DOUBLE(b)
        return memcmp(&x, &y, sizeof(double)) == 0 or (x != x and y != y)
    if PyLong_Check(a) or PyUnicode_Check(a) or PyBytes_Check(a):
        return a == b
    if PyComplex_Check(a):
        return is_same(a.real, b.real) and is_same(a.imag, b.imag)
    if PyTuple_Check(a):
        if len(<tuple>a) != len(<tuple>b) or depth == 0:
            return False
        for i in range(len(<tuple>a)):
            if not is_same_within((<tuple>a)[i], (<tuple>b)[i], depth - 1):
                return False
        return True
    if builtin_type(a) is method_type:
        return a.__self__ is b.__self__ and a.__func__ is b.__func__
    return False


cdef str value_text(object value):
    """A value for a message: plain ones as they are, functions by name, others by their type."""
    if value is Absent:
        return "absent"
    if value is None or PyFloat_Check(value) or PyLong_Check(value) or PyUnicode_Check(value) or PyTuple_Check(value):
        try:
            text = repr(value)
        except Exception:  # of an item, or nested too deeply
            text = ""
        if 0 < len(text) <= 60:
            return text
    name = getattr(value, "__qualname__", None)
    return name if PyUnicode_Check(name) else f"a {builtin_type(value).__name__}"


cdef tuple change_of(str what, object before, object now):
    """What has changed, and how, in words."""
    was, becomes = value_text(before), value_text(now)
    return (what, f"is now another object, {becomes}" if was == becomes else f"was {was} and is {becomes}")


class Absent:
    """Itself the value of a variable or an attribute that is not there."""


cdef object ANY = object()  # stands for a value that is not compared


cdef object held_value(PyObject *holder, PyObject *key):
    """What a cell (key NULL) or a dict holds, Absent where it holds nothing."""
    cdef PyObject *content
    if key != NULL:
        return (<dict>holder).get(<object>key, Absent)
    content = fbp_cell_get(holder)
    if content == NULL:
        return Absent
    value = <object>content
    Py_DECREF(value)
    return value


# ---- modules and classes -------------------------------------------------------------------------------------------------

cdef tuple REGISTRIES = ("_parameter_names", "_buffer_names", "_module_names")
cdef frozenset COMPARED_APART = frozenset((*REGISTRIES, "_hooks", "_calls_forward"))


cdef tuple tables_of(dict attributes):
    """The hooks of a module as dicts, in a fixed order of kinds; () where there never were any."""
    hooks = attributes.get("_hooks")
    return () if hooks is None else (hooks.forward_pre, hooks.forward, hooks.full_backward)


cdef tuple hooks_in(dict attributes):
    cdef tuple tables = tables_of(attributes)
    return tuple([tuple(table.values()) for table in tables]) if builtin_any(tables) else ()


@cython.final
@cython.binding(False)
cdef class ModuleGuard:
    """One module as it was: its attributes, the names of its parameters, buffers and children in order, its hooks.

    It holds the module's `__dict__` and not the module, which may own the plan.
    """

    cdef dict attributes
    cdef readonly str kind          # name of the module's class
    cdef tuple names, values        # attributes; ANY is a tensor of the captured function
    cdef Py_ssize_t size            # of `attributes`
    cdef tuple registered, items    # names of each kind; the registries' items
    cdef tuple hooks, tables
    cdef readonly bint partial      # some values are not compared

    def __cinit__(self, module):
        cdef dict attributes = module.__dict__
        self.attributes, self.kind, self.size = attributes, builtin_type(module).__name__, len(attributes)
        self.names = tuple([name for name in attributes if name not in COMPARED_APART])
        self.values = tuple([ANY if is_symbolic_tensor(attributes[name]) else attributes[name] for name in self.names])
        self.partial = ANY in [one for one in self.values if one is ANY]
        self.items = tuple([tuple((attributes.get(one) or {}).items()) for one in REGISTRIES])
        self.registered = tuple([tuple([name for name, _ in items]) for items in self.items])
        self.hooks = hooks_in(attributes)
        self.tables = tuple([dict(table) for table in tables_of(attributes)])

    cdef bint holds(self) except -1:
        """Whether the module is as it was."""
        cdef Py_ssize_t i
        cdef PyObject *now
        for i in range(len(self.names)):
            if self.values[i] is ANY:
                continue
            if FREE_THREADED:
                if not is_same(self.attributes.get(self.names[i], Absent), self.values[i]):
                    return False
                continue
            now = PyDict_GetItemWithError(<PyObject *>self.attributes, <PyObject *>self.names[i])
            if now == <PyObject *>self.values[i]:
                continue
            if now == NULL:
                return False
            found = <object>now  # held: comparing may run Python code
            if not is_same(found, self.values[i]):
                return False
        if len(self.attributes) != self.size and self.new_name() is not None:
            return False
        for i in range(3):
            registry = self.attributes.get(REGISTRIES[i])
            if (() if registry is None else tuple(registry)) != self.registered[i]:
                return False
        return (not self.hooks and "_hooks" not in self.attributes) or is_same(hooks_in(self.attributes), self.hooks)

    cdef object new_name(self):
        for name in self.attributes:
            if name not in COMPARED_APART and name not in self.names:
                return name
        return None

    def change(self):
        """What is not as it was, and how it is, in words; None where all is."""
        for name, value in zip(self.names, self.values):
            now = self.attributes.get(name, Absent)
            if value is not ANY and not is_same(now, value):
                return change_of(f"{name} of {self.kind}", value, now)
        name = self.new_name()
        if name is not None:
            return change_of(f"{name} of {self.kind}", Absent, self.attributes[name])
        for i, kind in enumerate(("parameters", "buffers", "children")):
            now = tuple(self.attributes.get(REGISTRIES[i]) or ())
            if now != self.registered[i]:
                return change_of(f"names of the {kind} of {self.kind}", self.registered[i], now)
        if not is_same(hooks_in(self.attributes), self.hooks):
            return (f"hooks of {self.kind}", "were added or taken away")
        return None

    def children(self):
        """The names of the children."""
        return self.registered[2]

    def symbolic_name(self):
        """A parameter, buffer or child that is a tensor of the captured function; None where there is none."""
        for names in self.registered:
            for name in names:
                if is_symbolic_tensor(self.attributes.get(name)):
                    return name
        return None

    def restore(self, bint everything):
        """Make the module what it was: parameters, buffers and children, or all that is compared."""
        registries = [self.attributes.get(one) for one in REGISTRIES]
        registered = {name for names in self.registered for name in names}
        added = {name for registry in registries for name in registry or ()} - registered
        for name in [one for one in self.attributes if one not in self.names and (one in added or (everything and one not in COMPARED_APART))]:
            del self.attributes[name]
        for name, value in zip(self.names, self.values):
            if value is not ANY and (everything or name in registered):
                self.attributes[name] = value
        for registry, items in zip(registries, self.items):
            refill(registry, items)
        if everything:
            tables = tables_of(self.attributes)
            for i in range(len(tables)):
                refill(tables[i], self.tables[i] if self.tables else {})
        move_world()


cdef bint is_symbolic_tensor(object value) except -1:
    return isinstance(value, Tensor) and (<Tensor>value).node.flags & FBP_SYMBOLIC != 0


cdef int refill(object table, object items) except -1:
    if table is not None:
        table.clear()
        table.update(items)
    return 0


@cython.final
@cython.binding(False)
cdef class ClassGuard:
    """Methods and plain attributes of some classes, which are the bases of one: all names but those of Python's protocols."""

    cdef readonly object kind
    cdef list classes, contents

    def __cinit__(self, kind, list classes not None):
        if not isinstance(kind, builtin_type):
            raise TypeError(f"expected a class, got {builtin_type(kind).__name__}")
        classes = list(classes)
        self.kind, self.classes = kind, classes
        self.contents = [content_of(one) for one in classes]

    def change(self):
        """What is not as it was, and how it is, in words; None where all is."""
        for one, content in zip(self.classes, self.contents):
            now = content_of(one)
            for name in {**content, **now}:
                if not is_same(content.get(name, Absent), now.get(name, Absent)):
                    return change_of(f"{name} of the class {one.__name__}", content.get(name, Absent), now.get(name, Absent))
        return None

    def restore(self):
        """Make the classes what they were."""
        for one, content in zip(self.classes, self.contents):
            now = content_of(one)
            for name in {**content, **now}:
                if name not in content:
                    delattr(one, name)
                elif name not in now or not is_same(content[name], now[name]):
                    setattr(one, name, content[name])


cdef dict content_of(object kind):
    return {name: value for name, value in vars(kind).items() if not name.startswith("__") or name == "__call__"}


# ---- variables -------------------------------------------------------------------------------------------------------------

@cython.final
@cython.binding(False)
cdef class Variable:
    """A place that code reads by name: a variable of an enclosing function, or an entry of a dict of globals or attributes."""

    cdef readonly object holder  # a cell (key None), or a dict
    cdef readonly object key, value
    cdef readonly str text

    def __cinit__(self, holder, key, str text not None):
        if not isinstance(holder, dict if key is not None else cell_type):
            raise TypeError(f"a variable lies in a dict under a key, or in a cell, not in a {builtin_type(holder).__name__}")
        self.holder, self.key, self.text = holder, key, text
        self.value = self.now()

    def now(self):
        """The value as it is now, Absent where there is none."""
        return held_value(<PyObject *>self.holder, NULL if self.key is None else <PyObject *>self.key)

    def change(self):
        """What is not as it was, and how it is, in words; None where all is."""
        now = self.now()
        return None if is_same(now, self.value) else change_of(self.text, self.value, now)

    def restore(self):
        """Give it the value that it had."""
        if is_same(self.now(), self.value):
            return
        if self.key is None:
            if self.value is Absent:
                del self.holder.cell_contents
            else:
                self.holder.cell_contents = self.value
        elif self.value is Absent:
            del self.holder[self.key]
        else:
            self.holder[self.key] = self.value


cdef tuple hangs_on(Tensor x):
    """The hooks of a tensor, and its attributes."""
    attributes = attributes_or_none(x)
    return (tensor_hooks(x), () if attributes is None else tuple(attributes.items()))


cdef struct variable_slot:  # borrowed from the Variable
    PyObject *holder
    PyObject *key    # NULL: the holder is a cell
    PyObject *value  # NULL: there is none


cdef struct class_slot:
    PyObject *kind       # borrowed from the ClassGuard
    unsigned int version # when it was last found as it was; 0: never


@cython.final
@cython.binding(False)
cdef class Guards:
    """All that must be in Python's state as it was at capture.

    Variables and classes are compared at each call, since nothing tells of their change; modules and hooks only when the
    world has moved since they were last found to hold.

    Parameters
    ----------
    modules : list of ModuleGuard
    classes : list of ClassGuard
    variables : list of Variable
    version : int
        `world_version()` when all this held.
    """

    cdef uint64_t version
    cdef list modules, classes, variables
    cdef list tensors        # (Tensor, what hangs_on() it)
    cdef variable_slot *slots
    cdef class_slot *class_slots
    cdef Py_ssize_t variable_count, class_count

    def __cinit__(self, list modules not None, list classes not None, list variables not None, uint64_t version):
        cdef Py_ssize_t i
        cdef Variable one
        modules, classes, variables = list(modules), list(classes), list(variables)  # the slots borrow from these
        for given, kind in ((modules, ModuleGuard), (classes, ClassGuard), (variables, Variable)):
            for x in given:
                if not isinstance(x, kind):
                    raise TypeError(f"expected {kind.__name__}, got {builtin_type(x).__name__}")
        self.modules, self.classes, self.variables, self.tensors, self.version = modules, classes, variables, [], version
        self.variable_count, self.class_count = len(variables), len(classes)
        self.slots = <variable_slot *>fbp_block_get((self.variable_count + 1) * sizeof(variable_slot))
        self.class_slots = <class_slot *>fbp_block_get((self.class_count + 1) * sizeof(class_slot))
        if self.slots == NULL or self.class_slots == NULL:
            raise MemoryError("cannot allocate the guards of a plan")
        for i in range(self.variable_count):
            one = <Variable>variables[i]
            self.slots[i].holder = <PyObject *>one.holder
            self.slots[i].key = NULL if one.key is None else <PyObject *>one.key
            self.slots[i].value = NULL if one.value is Absent else <PyObject *>one.value
        for i in range(self.class_count):
            self.class_slots[i] = class_slot(<PyObject *>(<ClassGuard>classes[i]).kind, 0)

    def __dealloc__(self):
        if self.slots != NULL:
            fbp_block_free(self.slots, (self.variable_count + 1) * sizeof(variable_slot))
        if self.class_slots != NULL:
            fbp_block_free(self.class_slots, (self.class_count + 1) * sizeof(class_slot))

    def watch_tensors(self, list tensors not None):
        """Hooks and attributes of tensors from outside belong to the plan, which has what they gave at capture."""
        for one in tensors:
            if not isinstance(one, Tensor):
                raise TypeError(f"expected Tensor, got {builtin_type(one).__name__}")
            self.tensors.append((one, hangs_on(<Tensor>one)))
            if (<Tensor>one).dict_given:
                self.version = 0

    cdef bint hold(self) except -1:
        """Whether all is as it was at capture."""
        cdef Py_ssize_t i
        cdef unsigned int version
        cdef PyObject *now
        cdef variable_slot *slot
        for i in range(self.variable_count):
            slot = &self.slots[i]
            if FREE_THREADED:
                if not is_same(held_value(slot.holder, slot.key), Absent if slot.value == NULL else <object>slot.value):
                    return False
                continue
            now = fbp_cell_content(slot.holder) if slot.key == NULL else PyDict_GetItemWithError(slot.holder, slot.key)
            if now == slot.value:
                continue
            if now == NULL or slot.value == NULL:
                return False
            found = <object>now  # held: comparing may run Python code
            if not is_same(found, <object>slot.value):
                return False
        for i in range(self.class_count):
            version = fbp_type_version(self.class_slots[i].kind)
            if (version == 0 or version != self.class_slots[i].version) and not self.class_holds(i):
                return False
        return self.version == world_now or self.walk()

    cdef bint class_holds(self, Py_ssize_t i) except -1:
        cdef ClassGuard guard = <ClassGuard>self.classes[i]
        getattr(guard.kind, "__call__", None)  # a look-up gives a class its number
        cdef unsigned int version = fbp_type_version(<PyObject *>guard.kind)
        if guard.change() is not None:
            return False
        self.class_slots[i].version = version
        return True

    cdef bint walk(self) except -1:
        """Modules and hooks one by one; where they hold, the version until which they do."""
        cdef uint64_t version = world_now
        for one in self.modules:
            if not (<ModuleGuard>one).holds():
                return False
        for tensor, hanging in self.tensors:
            if not is_same(hangs_on(<Tensor>tensor), hanging):
                return False
            if (<Tensor>tensor).dict_given:  # nothing tells of what is written into it
                version = 0
        self.version = version
        return True

    def changes(self):
        """All that is not as it was at capture, each as (what, how it is) in words."""
        found = [one.change() for one in [*self.variables, *self.classes, *self.modules]]
        for tensor, hanging in self.tensors:
            now = hangs_on(<Tensor>tensor)
            if not is_same(now[0], hanging[0]):
                found.append((f"hooks of a tensor of shape {tuple(tensor.shape)}", "were added or taken away"))
            if not is_same(now[1], hanging[1]):
                found.append((f"attributes of a tensor of shape {tuple(tensor.shape)}", "were added, changed or taken away"))
        return [change for change in found if change is not None]
