# Optimizers while a function is captured: their numbers are symbolic, and the end of the capture puts everything back.

@cython.final
@cython.binding(False)
cdef class NumberWrite:
    """A number that the function leaves in a group or in a parameter's state, by each call anew."""

    cdef dict attributes
    cdef int room
    cdef object place, key
    cdef object value  # may be symbolic

    cdef int settle(self) except -1:
        cdef object target = dict_of(self.attributes, self.room, self.place)
        if target is not None:
            (<dict>target)[self.key] = number_now(self.value)
        return 0


@cython.final
@cython.binding(False)
cdef class OptimizerBefore:
    """State, groups and attributes of an optimizer when a capture met it first, and what has become of them."""

    cdef object optimizer        # held, so that its id stays taken
    cdef dict attributes, own    # own: attributes that a subclass has beside the base class's
    cdef object state
    cdef list groups, entries, group_list
    cdef readonly bint symbolic, state_read  # its numbers are symbolic; the function has looked at its state
    cdef dict placed             # symbolic numbers by the id of their dict and their key
    cdef dict stepped            # by the id of a parameter: the tensors of its state that the core's steps write, by name
    cdef dict counts             # steps that they have counted, likewise

    def __cinit__(self, optimizer):
        self.optimizer, self.attributes = optimizer, optimizer.__dict__
        self.state, self.group_list = self.attributes["state"], self.attributes["param_groups"]
        self.entries = [(param, entry, dict(entry)) for param, entry in self.state.items()]
        self.groups = [(group, dict(group)) for group in self.group_list]
        self.own = own_attributes(self.attributes)
        self.placed, self.stepped, self.counts = {}, {}, {}

    # ---- numbers that remember where they came from ----

    cdef int make_symbolic(self, NumberTape tape) except -1:
        if self.symbolic:
            return 0
        self.symbolic = True
        for number, (group, before) in enumerate(self.groups):
            for key, value in before.items():
                if key != "params" and group.get(key) is value:
                    self.place(tape, group, OF_GROUP, number, key, value)
        for param, entry, before in self.entries:
            for key, value in before.items():
                if entry.get(key) is value:
                    self.place(tape, entry, OF_STATE, param, key, value)
                elif key == STEP and id(param) in self.counts:
                    self.place(tape, entry, OF_STATE, param, key, value)
                    entry[key] = entry[key] + self.counts[id(param)]
                    self.placed[id(entry), key] = entry[key]
        for key, value in self.own.items():
            if self.attributes.get(key) is value:
                self.place(tape, self.attributes, OF_OPTIMIZER, None, key, value)
        return 0

    cdef int place(self, NumberTape tape, object target, int room, object place, object key, object value) except -1:
        """A symbolic number in place of a plain one; symbolic elements in place of a tuple's."""
        cdef object made
        if builtin_type(value) is tuple:
            made = tuple([self.symbol(tape, room, place, key, i, one) for i, one in enumerate(value)])
        else:
            made = self.symbol(tape, room, place, key, -1, value)
        if made is not value:
            target[key] = self.placed[id(target), key] = made
        return 0

    cdef object symbol(self, NumberTape tape, int room, object place, object key, Py_ssize_t element, object value):
        if not is_number(value):
            return value
        return number_of(tape, tape.source(self.attributes, room, place, key, element, value))

    cdef object expected(self, object target, dict before, object key):
        """What stands in a dict if the function has not touched it."""
        return self.placed.get((id(target), key), before.get(key, RunEagerly))

    cdef dict changed_options(self, Py_ssize_t number):
        """The options of a group that the function has set."""
        group, before = self.groups[number]
        return {key: value for key, value in group.items() if value is not self.expected(group, before, key)}

    # ---- what the function has done ----

    cdef int note_step(self, object bucket, bint counted) except -1:
        """The core steps the bucket's parameters; a step count that is not its own is the function's doing."""
        cdef dict before = {id(param): one for param, entry, one in self.entries}
        for i, param in enumerate(bucket.params):
            written = self.stepped.setdefault(id(param), {})
            for name, buffers in zip(bucket.names, bucket.buffers):
                present = before.get(id(param), {}).get(name)
                if buffers[i] is not written.setdefault(name, buffers[i] if present is None else present):
                    raise RunEagerly("it replaces state of an optimizer that it steps")
            if not counted:
                continue
            done = self.counts.get(id(param), 0)
            start = before.get(id(param), {}).get(STEP, 0)
            if step_number(number_now(bucket.states[i][STEP])) != step_number(start) + done:
                raise RunEagerly("it sets the step count of an optimizer that it steps")
            self.counts[id(param)] = done + 1
        return 0

    cdef list writes(self):
        """The numbers that the function leaves; RunEagerly where it does more than that."""
        cdef list made = []
        cdef dict known = {}
        if self.attributes["state"] is not self.state or self.attributes["param_groups"] is not self.group_list or \
                len(self.group_list) != len(self.groups):
            raise RunEagerly("it replaces the state or the groups of an optimizer")
        for number, (group, before) in enumerate(self.groups):
            if self.group_list[number] is not group or not before.keys() <= group.keys():
                raise RunEagerly("it replaces or removes entries of an optimizer's groups")
            self.compare(made, group, before, OF_GROUP, number)
        for param, entry, before in self.entries:
            known[id(param)] = True
            if self.state.get(param) is not entry or not before.keys() <= entry.keys():
                raise RunEagerly("it removes entries of an optimizer's state")
            self.compare(made, entry, before, OF_STATE, param)
        for param, entry in self.state.items():
            if id(param) in known:
                continue
            if id(param) not in self.stepped or not entry:
                raise RunEagerly("it adds entries to an optimizer's state")
            known[id(param)] = True
            self.compare(made, entry, {}, OF_STATE, param)
        if not self.own.keys() <= self.attributes.keys():
            raise RunEagerly("it removes an attribute of an optimizer")
        self.compare(made, own_attributes(self.attributes), self.own, OF_OPTIMIZER, None)
        for number, written in self.stepped.items():
            if number not in known and (written or number in self.counts):
                raise RunEagerly("it removes entries of an optimizer's state")
        return made

    cdef int compare(self, list made, object target, dict before, int room, object place) except -1:
        cdef NumberWrite write
        cdef dict written = self.stepped.get(id(place), {}) if room == OF_STATE else {}
        cdef bint counted = room == OF_STATE and id(place) in self.counts
        for key, value in target.items():
            if value is self.expected(self.attributes if room == OF_OPTIMIZER else target, before, key) or \
                    (key in written and written[key] is value):
                continue
            if counted and key == STEP:
                if step_number(number_now(value)) != step_number(before.get(STEP, 0)) + self.counts[id(place)]:
                    raise RunEagerly("it sets the step count of an optimizer that it steps")
                continue
            if not (value is None or isinstance(value, (SymbolicNumber, int, float, str))) or (key in before and isinstance(before[key], Tensor)):
                raise RunEagerly(f"it assigns a {builtin_type(value).__name__} to {key!r} of an optimizer's {('group', 'state', 'attributes')[room]}")
            if room == OF_STATE and key not in before:
                raise RunEagerly("it adds entries to an optimizer's state")
            write = NumberWrite.__new__(NumberWrite)
            write.attributes, write.room, write.place, write.key, write.value = self.attributes, room, place, key, value
            made.append(write)
        return 0

    cdef int restore(self) except -1:
        self.attributes["state"], self.attributes["param_groups"] = self.state, self.group_list
        self.state.clear()
        for param, entry, before in self.entries:
            self.state[param] = entry
            entry.clear()
            entry.update(before)
        self.group_list[:] = [group for group, before in self.groups]
        for group, before in self.groups:
            group.clear()
            group.update(before)
        for key in own_attributes(self.attributes):
            if key not in self.own:
                del self.attributes[key]
        self.attributes.update(self.own)
        return 0


cdef dict own_attributes(dict attributes):
    """The attributes of an optimizer that are a subclass's."""
    return {key: value for key, value in attributes.items() if key not in ("state", "param_groups", "defaults", "_gathered", "_snapshot")}


cdef int restore_optimizers(dict optimizers) except -1:
    """As they were before the capture: its steps have only been written down."""
    cdef OptimizerBefore before
    for before in optimizers.values():
        before.restore()
    return 0


def note_optimizer(optimizer, bint state):
    """A function that is captured looks at an optimizer's groups, or at its state."""
    cdef Capture capture = current_capture()
    if capture is not None:
        capture.open_optimizer(optimizer, True, state)


def steps_done(value):
    """A count of steps as it is now: a number, a 0-d tensor or a symbolic number."""
    return step_number(number_now(value))


# ---- in the plan --------------------------------------------------------------------------------------------------------------------

@cython.final
@cython.binding(False)
cdef class SymbolicOptimizer:
    """An optimizer whose numbers a plan reads: what else is in its groups and state must stay."""

    cdef dict attributes
    cdef list groups             # (number of options, parameters, [(key, value that is no number)]) each
    cdef Py_ssize_t attribute_count
    cdef list plain              # [(name, value that is no number)]
    cdef StateSnapshot snapshot  # None: the function has not looked at the state

    cdef bint is_current(self) except -1:
        cdef list groups = <list?>self.attributes["param_groups"]
        cdef Py_ssize_t i
        cdef dict group
        cdef list params
        cdef list now
        if len(groups) != len(self.groups) or len(self.attributes) != self.attribute_count or not are_same(self.attributes, self.plain):
            return False
        for i in range(len(groups)):
            size, params, plain = <tuple>self.groups[i]
            group, now = groups[i], groups[i]["params"]
            if len(group) != size or len(now) != len(params):
                return False
            for k in range(len(params)):
                if now[k] is not params[k]:
                    return False
            if not are_same(group, plain):
                return False
        return self.snapshot is None or self.snapshot.holds(self.attributes["state"])


cdef bint are_same(dict now, list wanted) except -1:
    """Whether these entries of a dict are what they were: the same objects, or equal strings or tuples."""
    for key, value in wanted:
        found = now.get(key, RunEagerly)
        if found is not value and not (builtin_type(found) is builtin_type(value) and builtin_type(found) in (str, tuple) and found == value):
            return False
    return True


cdef list without_numbers(dict given):
    """Entries that are guarded as they are: all but the parameters and what is symbolic."""
    return [(key, value) for key, value in given.items() if key != "params" and not is_number_like(value)]


@cython.final
@cython.binding(False)
cdef class PlanNumbers:
    """The numbers of optimizers in a plan: evaluated before a run, written back after it."""

    cdef NumberTape tape
    cdef list optimizers, changes

    cdef bint is_current(self) except -1:
        cdef SymbolicOptimizer one
        for one in self.optimizers:
            if not one.is_current():
                return False
        return self.tape.evaluate()

    cdef int begin(self) except -1:
        cdef NumberInput input
        # A run in another thread may have moved on what it leaves since the check.
        if self.changes and not self.tape.evaluate():
            raise RuntimeError("compile: two threads step one optimizer whose numbers decide what the function does; let one of them do it")
        for input in self.tape.inputs:
            input.begin()
        return 0

    cdef int settle(self) except -1:
        cdef NumberWrite write
        for write in self.changes:
            write.settle()
        return 0


cdef PlanNumbers plan_numbers(dict optimizers, NumberTape tape, list options):
    """What a plan has to do with the numbers that its function read; None where it read none.  `options`: of its optimizers' steps."""
    cdef PlanNumbers numbers = PlanNumbers.__new__(PlanNumbers)
    cdef OptimizerBefore before
    cdef SymbolicOptimizer one
    numbers.tape, numbers.optimizers, numbers.changes = tape, [], []
    for before in optimizers.values():
        numbers.changes += before.writes()
    restore_optimizers(optimizers)
    for before in optimizers.values():
        if not before.symbolic:
            continue
        one = SymbolicOptimizer.__new__(SymbolicOptimizer)
        one.attributes = before.attributes
        one.attribute_count, one.plain = len(before.attributes), without_numbers(before.own)
        one.groups = [(len(group), list(group["params"]), without_numbers(group)) for group in before.group_list]
        one.snapshot = StateSnapshot(before.state) if before.state_read else None
        numbers.optimizers.append(one)
    tape.close([(<NumberWrite>change).value for change in numbers.changes] + options)
    return numbers if numbers.optimizers or numbers.changes else None


cdef bint is_number_like(object value) except -1:
    """Whether an option is guarded as a symbolic number, if at all."""
    if builtin_type(value) is tuple:
        return builtin_all([is_number_like(one) for one in value])
    return is_number(value)
