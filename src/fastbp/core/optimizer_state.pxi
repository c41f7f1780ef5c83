# Optimizers' state as plain dicts that anyone may edit: a snapshot that is compared by pointers, and numbers read and written.

from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_AsLongLong, PyLong_Check, PyLong_CheckExact
from cpython.ref cimport PyObject

# On borrowed pointers: no reference is counted for a look.
cdef extern from "Python.h":
    bint next_item "PyDict_Next"(PyObject *mapping, Py_ssize_t *place, PyObject **key, PyObject **value)
    Py_ssize_t size_of_dict "PyDict_Size"(PyObject *mapping)

cdef str STEP = "step"


cdef int64_t step_number(object value) except? -1:
    """A count of steps, given as a number or as a 0-d tensor (as PyTorch keeps it)."""
    return value if isinstance(value, int) else int(float(value))


cdef inline bint is_number(object value):
    """Whether this is an int or a float (of NumPy's too), and no bool."""
    return PyFloat_Check(value) or (PyLong_Check(value) and not PyBool_Check(value))


cdef struct state_item:
    PyObject *key
    PyObject *value    # NULL: a number, which changes from step to step
    bint counts        # key is "step"

cdef struct state_entry:
    PyObject *param
    PyObject *entry
    Py_ssize_t first, count  # its items
    int64_t step             # value of "step" when it was last compared, 0 where there is none


@cython.final
@cython.binding(False)
cdef class StateSnapshot:
    """Which parameters, entries and tensors an optimizer's state consists of; numbers in it may change.

    Parameters
    ----------
    state : dict
        From parameters to dicts.
    """

    cdef readonly object state
    cdef list held           # what the pointers below stand for: while it is held no other object has its address
    cdef state_entry *entries
    cdef state_item *items
    cdef Py_ssize_t entry_count, item_count

    def __cinit__(self, state):
        cdef Py_ssize_t i = 0, k = 0
        if not isinstance(state, dict) or not builtin_all([isinstance(entry, dict) for entry in state.values()]):
            raise TypeError("an optimizer's state must be a dict from parameters to dicts")
        self.state = state
        self.held = [(param, entry, list(entry.items())) for param, entry in state.items()]
        self.entry_count = len(self.held)
        for param, entry, items in self.held:
            self.item_count += len(items)
        self.entries = <state_entry *>fbp_block_get((self.entry_count + 1) * sizeof(state_entry))
        self.items = <state_item *>fbp_block_get((self.item_count + 1) * sizeof(state_item))
        if self.entries == NULL or self.items == NULL:
            raise MemoryError("cannot allocate a snapshot of an optimizer's state")
        for param, entry, items in self.held:
            self.entries[i] = state_entry(<PyObject *>param, <PyObject *>entry, k, len(items), 0)
            for pair in items:
                key, value = <tuple>pair
                self.items[k] = state_item(<PyObject *>key, <PyObject *>value, isinstance(key, str) and key == STEP)
                if self.items[k].counts or is_number(value):
                    self.items[k].value = NULL
                k += 1
            i += 1

    def __dealloc__(self):
        if self.entries != NULL:
            fbp_block_free(self.entries, (self.entry_count + 1) * sizeof(state_entry))
        if self.items != NULL:
            fbp_block_free(self.items, (self.item_count + 1) * sizeof(state_item))

    cpdef bint holds(self, state) except -1:
        """Whether `state` is the dict of the snapshot and has the same entries with the same tensors; reads the counts of steps.

        Where others may edit the dicts meanwhile, each is looked at as it was at one moment.
        """
        cdef Py_ssize_t at = 0, place, i, k
        cdef PyObject *key = NULL
        cdef PyObject *value = NULL
        cdef PyObject *inside
        cdef state_entry *entry
        cdef state_item *item
        cdef dict looked, moment
        if state is not self.state:
            return False
        looked = (<dict>state).copy() if FREE_THREADED else <dict>state
        if size_of_dict(<PyObject *>looked) != self.entry_count:
            return False
        for i in range(self.entry_count):
            entry = &self.entries[i]
            if not next_item(<PyObject *>looked, &at, &key, &value) or key != entry.param or value != entry.entry:
                return False
            inside = value
            if FREE_THREADED:
                moment = (<dict>value).copy()
                inside = <PyObject *>moment
            if size_of_dict(inside) != entry.count:
                return False
            item = &self.items[entry.first]
            place = 0
            for k in range(entry.count):
                if not next_item(inside, &place, &key, &value) or key != item.key:
                    return False
                if item.counts:
                    entry.step = PyLong_AsLongLong(<object>value) if PyLong_CheckExact(<object>value) else step_number(<object>value)
                elif item.value != NULL:
                    if value != item.value:
                        return False
                elif not is_number(<object>value):
                    return False
                item += 1
        return True


def with_gradients(params):
    """Those of `params` that have a gradient, in a list of their own, and the gradients."""
    cdef list found = [], gradients = []
    for param in params:
        gradient = param.grad
        if gradient is not None:
            found.append(param)
            gradients.append(gradient)
    return found, gradients


def are_same_objects(list a, list b):
    """Whether two lists hold the same objects."""
    cdef Py_ssize_t i
    if len(a) != len(b):
        return False
    for i in range(len(a)):
        if a[i] is not b[i]:
            return False
    return True


# ---- eager steps --------------------------------------------------------------------------------------------------------------------

cdef fbp_update_item *update_items(Py_ssize_t n) except NULL:
    cdef fbp_update_item *items = <fbp_update_item *>fbp_block_get((n + 1) * sizeof(fbp_update_item))
    if items == NULL:
        raise MemoryError("cannot allocate the list of parameters")
    return items


cdef int check_lengths(Py_ssize_t n, tuple lists) except -1:
    for one in lists:
        if one is not None and len(one) != n:
            raise ValueError(f"{n} parameters with a list of {len(one)}")
        if one is not None:
            for x in one:
                if not isinstance(x, Tensor):
                    raise TypeError(f"expected Tensors, got {builtin_type(x).__name__}")
    return 0


cdef int check_states(Py_ssize_t n, list states) except -1:
    if states is not None and len(states) != n:
        raise ValueError(f"{n} parameters with a list of {len(states)}")
    for one in states or ():
        if not isinstance(one, dict):
            raise TypeError(f"the state of a parameter must be a dict, not {builtin_type(one).__name__}")
    return 0


def sgd_step(list params not None, list grads not None, list momentum_buffers, list states, double lr, double momentum=0.0, double dampening=0.0,
             double weight_decay=0.0, bint nesterov=False, bint maximize=False):
    """One step of SGD for every parameter, in place and in one call; nothing changes when something is wrong.

    Parameters
    ----------
    params, grads : list of Tensor
        Contiguous, floating, of one shape and dtype pairwise.
    momentum_buffers : list of Tensor or None
        Changed in place; None without momentum.
    states : list of dict
        The parameters' state, empty without momentum. Where "momentum_buffer" is missing, the buffer becomes a copy of the
        gradient and is entered there.
    """
    cdef Py_ssize_t i, n = len(params)
    cdef fbp_sgd hyper = fbp_sgd(lr, momentum, dampening, weight_decay, nesterov, maximize)
    cdef bint first = False
    check_lengths(n, (params, grads, momentum_buffers))
    check_states(n, states if momentum_buffers is not None else None)
    cdef fbp_update_item *items = update_items(n)
    for i in range(n):
        items[i].param = (<Tensor>params[i]).node
        items[i].grad = (<Tensor>grads[i]).node
        items[i].state[0] = items[i].state[1] = items[i].state[2] = NULL
        items[i].step = 2
        if momentum_buffers is not None:
            items[i].state[0] = (<Tensor>momentum_buffers[i]).node
            if (<dict>states[i]).get("momentum_buffer") is None:
                items[i].step = 1
                first = True
    status = fbp_sgd_step(n, items, &hyper)
    fbp_block_free(items, (n + 1) * sizeof(fbp_update_item))
    check(status)
    if first:
        for i in range(n):
            (<dict?>states[i])["momentum_buffer"] = momentum_buffers[i]


def adam_step(list params not None, list grads not None, list exp_avgs not None, list exp_avg_sqs not None, list max_exp_avg_sqs,
              list states not None, double lr, double beta1,
              double beta2, double eps, double weight_decay=0.0, bint maximize=False, bint decoupled=False):
    """One step of Adam (decoupled: AdamW) for every parameter, in place and in one call; nothing changes when something is wrong.

    Parameters
    ----------
    params, grads, exp_avgs, exp_avg_sqs : list of Tensor
        Contiguous, floating, of one shape and dtype each.
    max_exp_avg_sqs : list of Tensor or None
        AMSGrad's state; None without.
    states : list of dict
        The parameters' state, whose "step" is the number of steps before this one, and one more afterwards.
    """
    cdef Py_ssize_t i, n = len(params)
    cdef int64_t step, written = -1
    cdef object number = None
    cdef fbp_adam hyper = fbp_adam(lr, beta1, beta2, eps, weight_decay, decoupled, maximize)
    check_states(n, states)
    cdef list numbers = [None] * n
    for i in range(n):
        step = step_number((<dict?>states[i])[STEP]) + 1
        if step != written:
            number, written = step, step
        numbers[i] = number
    check_lengths(n, (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs))  # after the numbers, whose reading may run Python code
    cdef fbp_update_item *items = update_items(n)
    for i in range(n):
        items[i].param = (<Tensor>params[i]).node
        items[i].grad = (<Tensor>grads[i]).node
        items[i].state[0] = (<Tensor>exp_avgs[i]).node
        items[i].state[1] = (<Tensor>exp_avg_sqs[i]).node
        items[i].state[2] = (<Tensor>max_exp_avg_sqs[i]).node if max_exp_avg_sqs is not None else NULL
        items[i].step = numbers[i]
    status = fbp_adam_step(n, items, &hyper)
    fbp_block_free(items, (n + 1) * sizeof(fbp_update_item))
    check(status)
    for i in range(n):
        (<dict?>states[i])[STEP] = numbers[i]
