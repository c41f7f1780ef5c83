# What Python's collector of cycles sees of tensors: attributes, hooks and rules, through the nodes between them.
#
# A tensor is born untracked, and costs the collector nothing. It joins when the first object that could lead back to it is hung on it, or
# when its node was made from one on which objects hang (FBP_REACHES). csrc/graph/owned.h says what a tensor shows the collector, and
# what a face is: here it is a node's HookTable. docs/architecture.md, "Cycles", tells the whole, and what is not collected.

cdef extern from *:
    """
    /* Handles of the type itself that are free: as blocks of the collector, which are dear to get. */
    enum { FBP_FREE_HANDLES_MOST = 512, FBP_HANDLE_BYTES = 4 * sizeof(void *), FBP_HANDLE_END = sizeof(PyObject) + FBP_HANDLE_BYTES }; /* of the members */
    #ifdef Py_GIL_DISABLED
    static inline PyObject *fbp_handle_get(PyTypeObject *type) {
        PyObject *o = _PyObject_GC_New(type);
        if (o) memset((char *)o + sizeof(PyObject), 0, FBP_HANDLE_BYTES);
        return o;
    }
    static inline void fbp_handle_free(void *o) { PyObject_GC_Del(o); }
    enum { FBP_MAY_SEARCH = 0 }; /* other threads would change what is looked through */
    #else
    enum { FBP_MAY_SEARCH = 1 };
    static PyObject *fbp_free_handles[FBP_FREE_HANDLES_MOST];
    static int fbp_free_handle_count;
    static inline PyObject *fbp_handle_get(PyTypeObject *type) {
        PyObject *o;
        if (fbp_free_handle_count) {
            o = fbp_free_handles[--fbp_free_handle_count];
            _Py_NewReference(o);
        } else if (!(o = _PyObject_GC_New(type))) return NULL;
        memset((char *)o + sizeof(PyObject), 0, FBP_HANDLE_BYTES);
        return o;
    }
    static inline void fbp_handle_free(void *o) {
        if (fbp_free_handle_count < FBP_FREE_HANDLES_MOST) fbp_free_handles[fbp_free_handle_count++] = o;
        else PyObject_GC_Del(o);
    }
    #endif
    /* The type's property of this name. */
    static PyGetSetDef *fbp_property_of(PyTypeObject *type, const char *name) {
        PyGetSetDef *found = type->tp_getset;
        while (found->name && strcmp(found->name, name)) found++;
        return found;
    }
    """
    int delete_attribute "PyObject_GenericSetAttr"(object o, object name, PyObject *value) except -1  # NULL
    ctypedef int (*visitproc)(PyObject *, void *) noexcept
    ctypedef int (*traverseproc)(PyObject *, visitproc, void *) noexcept
    ctypedef int (*inquiry)(PyObject *) noexcept
    ctypedef void (*destructor)(PyObject *) noexcept
    ctypedef void (*release_of_memory "freefunc")(void *) noexcept
    ctypedef object (*allocfunc)(TypeSlots *, Py_ssize_t)
    ctypedef object (*newfunc)(TypeSlots *, PyObject *, PyObject *)
    ctypedef PyObject *(*getter)(PyObject *, void *) noexcept
    ctypedef int (*setter)(PyObject *, PyObject *, void *) noexcept
    ctypedef struct TypeSlots "PyTypeObject":
        Py_ssize_t tp_basicsize, tp_dictoffset
        traverseproc tp_traverse
        inquiry tp_clear
        destructor tp_dealloc
        allocfunc tp_alloc
        newfunc tp_new
        void *tp_vectorcall
        const char *tp_name
        release_of_memory tp_free
    ctypedef struct PyGetSetDef:
        getter get
        setter set
    enum: FBP_MAY_SEARCH
    enum: FBP_HANDLE_END
    object new_of_type "fbp_handle_get"(TypeSlots *type)
    void fbp_handle_free(void *o) noexcept
    PyGetSetDef *fbp_property_of(TypeSlots *type, const char *name) noexcept
    TypeSlots *type_of "Py_TYPE"(PyObject *o) noexcept
    void set_references "Py_SET_REFCNT"(PyObject *o, Py_ssize_t count) noexcept
    void hold_object "Py_INCREF"(PyObject *o) noexcept
    void drop_object "Py_DECREF"(PyObject *o) noexcept
    bint is_collectable "PyObject_IS_GC"(PyObject *o) noexcept
    bint is_type "PyType_Check"(PyObject *o) noexcept
    bint is_module "PyModule_Check"(PyObject *o) noexcept
    bint is_function "PyFunction_Check"(PyObject *o) noexcept
    PyObject *closure_of "PyFunction_GET_CLOSURE"(PyObject *f) noexcept
    PyObject *defaults_of "PyFunction_GET_DEFAULTS"(PyObject *f) noexcept
    bint is_tracked "PyObject_GC_IsTracked"(PyObject *o) noexcept
    void track "PyObject_GC_Track"(PyObject *o) noexcept
    PyObject *generic_dict "PyObject_GenericGetDict"(PyObject *o, void *context) noexcept
    int generic_set_dict "PyObject_GenericSetDict"(PyObject *o, PyObject *value, void *context) noexcept
    void PyObject_ClearWeakRefs(PyObject *o) noexcept
    int disable_collector "PyGC_Disable"() noexcept
    int enable_collector "PyGC_Enable"() noexcept
    Py_ssize_t dict_size "PyDict_Size"(PyObject *d) noexcept
    bint PyDict_Check(object o) noexcept
    void PyDict_Clear(object d) noexcept
    int PyDict_Update(object d, object other) except -1


cdef inline PyObject **attributes_of(PyObject *o) noexcept:
    """Where a tensor has its `__dict__`, which lies third among its members."""
    return <PyObject **>&(<Tensor>o).node + 2


cdef inline bint has_attributes(Tensor x) noexcept:
    cdef PyObject *attributes = attributes_of(<PyObject *>x)[0]
    return attributes != NULL and dict_size(attributes) > 0


cdef object attributes_or_none(Tensor x):
    """A tensor's `__dict__`, where there is something in it."""
    return <object>attributes_of(<PyObject *>x)[0] if has_attributes(x) else None


def _attributes_of(Tensor x not None):
    """A copy of a tensor's attributes, which makes it no `__dict__`."""
    attributes = attributes_or_none(x)
    return {} if attributes is None else dict(attributes)


cdef int refuse_attribute(Tensor x, object name) except -1:
    """RunEagerly where a function that is captured sets an attribute that no plan would set again; its properties it may set."""
    if not hasattr(builtin_type(x), name):
        raise RunEagerly(f"it sets or deletes an attribute of a tensor ({name})")
    return 0


# ---- joining -----------------------------------------------------------------------------------------------------------

# The handles that have joined, borrowed; each knows its place, counted from 1.
cdef PyObject **joined = NULL
cdef uint32_t joined_count = 0, joined_size = 0
cdef bint called_back = False  # by the collector, before it begins


cdef int join_collector(Tensor x) except -1:
    """Show a tensor to the collector."""
    global joined, joined_count, joined_size
    if not is_tracked(<PyObject *>x):
        track(<PyObject *>x)
    if x.place:
        return 0
    if joined_count == joined_size:
        size = builtin_max(64, 2 * joined_size)
        larger = <PyObject **>realloc(joined, size * sizeof(PyObject *))
        if larger == NULL:
            raise MemoryError("cannot allocate a list of tensors for the collector")
        joined, joined_size = larger, size
    joined[joined_count] = <PyObject *>x
    joined_count += 1
    x.place = joined_count
    if not called_back:
        call_back()
    return 0


cdef int call_back() except -1:
    global called_back
    called_back = True
    import gc
    gc.callbacks.append(_before_collection)
    return 0


cdef void leave_collector(Tensor x) noexcept:
    """The tensor goes; the last one takes its place."""
    global joined_count
    cdef PyObject *last
    joined_count -= 1
    last = joined[joined_count]
    joined[x.place - 1] = last
    (<Tensor>last).place = x.place
    x.place = 0


cdef int attributes_changed(Tensor x, object value) except -1:
    """Something was hung on a tensor as an attribute."""
    x.searched = False
    move_world()
    if not x.place and is_collectable(<PyObject *>value):
        join_collector(x)
    return 0


cdef PyObject *get_dict(PyObject *o, void *context) except NULL:
    """`__dict__`: made when it is asked for; what will be put into it, nobody sees."""
    cdef PyObject *result
    with cython.critical_section(core_section):  # slots are not entered by themselves (tools/sections.py)
        refuse_dict()
        result = generic_dict(o, context)
        if result != NULL:
            dict_given_away(<Tensor>o)
    return result


cdef int set_dict(PyObject *o, PyObject *value, void *context) except -1:
    cdef PyObject *held
    with cython.critical_section(core_section):
        refuse_dict()
        dict_given_away(<Tensor>o)
        held = attributes_of(o)[0]
        if FREE_THREADED and held != NULL and value != NULL:  # another thread may be looking into the present one
            return fill_dict(<object>held, <object>value)
        return generic_set_dict(o, value, context)


cdef int fill_dict(object held, object value) except -1:
    """Have a dict hold what another one holds."""
    if not PyDict_Check(value):
        raise TypeError("__dict__ must be set to a dictionary")
    if held is not value:
        PyDict_Clear(held)
        PyDict_Update(held, value)
    return 0


cdef int refuse_dict() except -1:
    """RunEagerly where a function that is captured asks for a tensor's attributes as a dict: it may write into it."""
    if fbp_mode_get().capture != NULL:
        raise RunEagerly("it reads or binds the __dict__ of a tensor")
    return 0


cdef void dict_given_away(Tensor x) noexcept:
    x.searched, x.dict_given = False, True
    move_world()
    if not is_tracked(<PyObject *>x):
        track(<PyObject *>x)


# ---- what a handle and a face show -------------------------------------------------------------------------------------------

cdef struct visitor:
    visitproc visit
    void *argument


cdef int show_hanging(void *context, fbp_tensor *node) noexcept:
    """What hangs on a node besides its hooks."""
    cdef visitor *v = <visitor *>context
    cdef int result = 0
    if node.flags & FBP_HOST_RULE:
        result = v.visit((<PyObject **>fbp_attributes(node))[0], v.argument)
    if result == 0 and node.flags & FBP_KEEPS_HANDLE:
        result = v.visit(<PyObject *>node.handle, v.argument)
    return result


cdef int show_face(void *context, fbp_tensor *node) noexcept:
    cdef visitor *v = <visitor *>context
    return v.visit(<PyObject *>node.autograd.hooks, v.argument)


cdef int show_owned(fbp_tensor *node, bint whole, visitproc visit, void *argument) noexcept:
    """Show what a holder of one reference to a node owns; `whole`: of all references."""
    cdef visitor v
    cdef fbp_owned_visit walk
    v.visit, v.argument = visit, argument
    walk.owned, walk.faced, walk.shared, walk.context = show_hanging, show_face, NULL, &v
    return fbp_owned_walk(node, whole, &walk)


cdef bint is_kept(PyObject *o) noexcept:
    """Whether a node holds the handle, and not the handle the node."""
    cdef fbp_tensor *node = (<Tensor>o).node
    return node != NULL and node.flags & FBP_KEEPS_HANDLE and node.handle == <void *>o


cdef int traverse_tensor(PyObject *o, visitproc visit, void *argument) noexcept:
    cdef int result = 0
    if attributes_of(o)[0] != NULL:
        result = visit(attributes_of(o)[0], argument)
    if result == 0 and (<Tensor>o).node != NULL and not is_kept(o):
        result = show_owned((<Tensor>o).node, False, visit, argument)
    return result


cdef int traverse_saved(PyObject *o, visitproc visit, void *argument) noexcept:
    cdef int result = plain_traverse_saved(o, visit, argument)
    if result == 0 and (<SavedTensor>o).node != NULL:
        result = show_owned((<SavedTensor>o).node, False, visit, argument)
    return result


cdef int traverse_hooks(PyObject *o, visitproc visit, void *argument) noexcept:
    cdef int result = plain_traverse_hooks(o, visit, argument)
    if result == 0 and (<HookTable>o).node != NULL:
        result = show_owned((<HookTable>o).node, True, visit, argument)
    return result


# ---- a handle that is kept -----------------------------------------------------------------------------------------------------

cdef bint fell_asleep(PyObject *o) noexcept:
    """A tensor with attributes that Python has let go, and whose elements others need and may ask for: its node keeps it."""
    cdef fbp_tensor *node = (<Tensor>o).node
    if node == NULL or node.handle != <void *>o or node.value_references < 2 or node.references < 2 or node.storage == NULL:
        return False
    if dict_size(attributes_of(o)[0]) == 0 or node.flags & FBP_SYMBOLIC:
        return False
    set_references(o, 1)
    node.references -= 1
    node.value_references -= 1
    node.flags |= FBP_KEEPS_HANDLE
    if is_tracked(o) and not (<Tensor>o).searched:
        (<Tensor>o).searched = True
        node.flags |= FBP_REACHES
        join_those_behind(attributes_of(o)[0], 0)
    return True


cdef object wake(fbp_tensor *t):
    """The handle that a node keeps, for Python again; the caller's reference to the node becomes the handle's."""
    cdef Tensor result = <Tensor>t.handle
    t.flags &= ~FBP_KEEPS_HANDLE
    drop_object(<PyObject *>result)
    return result


cdef void part_from_handle(void *handle) noexcept with gil:
    drop_object(<PyObject *>handle)


fbp_host_part = part_from_handle


cdef Tensor new_handle():
    """A tensor without a node. Cython's own tp_new would make a dict for each."""
    return <Tensor>new_of_type(tensor_type)


cdef object new_of_class(TypeSlots *type, PyObject *arguments, PyObject *keywords):
    return type.tp_alloc(type, 0)


cdef object new_tensor(TypeSlots *type, Py_ssize_t items):
    return new_of_type(type)


cdef void dealloc_tensor(PyObject *o) noexcept:
    cdef PyObject *attributes = attributes_of(o)[0]
    cdef fbp_tensor *node = (<Tensor>o).node
    if attributes == NULL:
        # The member before has the weak references. Without the lock, Cython's __dealloc__ enters the section for what follows.
        if FREE_THREADED or type_of(o) != tensor_type or (attributes_of(o) - 1)[0] != NULL or is_tracked(o):
            plain_dealloc(o)
            return
        if node != NULL:
            if node.handle == <void *>o:
                node.handle = NULL
            fbp_release(node)
        fbp_handle_free(o)
        return
    if not FREE_THREADED and type_of(o) == tensor_type and fell_asleep(o):  # without the lock, forget_handle has asked
        return
    attributes_of(o)[0] = NULL
    plain_dealloc(o)
    drop_object(attributes)


cdef bint forget_handle(void *handle) noexcept:
    """No reference to a tensor is left: whether its node keeps it; otherwise the core does not point at it any more."""
    cdef PyObject *o = <PyObject *>handle
    cdef fbp_tensor *node = (<Tensor>o).node
    if attributes_of(o)[0] != NULL and type_of(o) == tensor_type and fell_asleep(o):
        return True
    if node != NULL and node.handle == handle:
        node.handle = NULL
    return False


# ---- tensors that were made before an object was hung on what they were made from ------------------------------------------------

cdef enum:
    SEARCHED_MOST = 4096    # objects, before a collection
    SEARCHED_AT_ONCE = 256  # when one is hung

# Objects met on the way from what hangs on tensors, borrowed, and where each stands, from 1, by its address.
cdef struct search:
    PyObject *found[SEARCHED_MOST]
    uint16_t places[2 * SEARCHED_MOST]
    int count, most

cdef search behind


cdef int note_found(PyObject *o, void *context) noexcept:
    """Remember an object, once. 1 when there is no more room."""
    cdef size_t at = <size_t>o // 16 * <size_t>0x9e3779b97f4a7c15 >> 40 & (2 * SEARCHED_MOST - 1)
    if o == NULL or not is_collectable(o) or is_type(o) or is_module(o):
        return 0
    while behind.places[at]:
        if behind.found[behind.places[at] - 1] == o:
            return 0
        at = (at + 1) & (2 * SEARCHED_MOST - 1)
    if behind.count == behind.most:
        return 1
    behind.found[behind.count] = o
    behind.count += 1
    behind.places[at] = behind.count
    return 0


cdef void search_begin(int most) noexcept:
    memset(behind.places, 0, sizeof(behind.places))
    behind.count, behind.most = 0, most


cdef int search_end(uint64_t oldest) except -1:
    """Have the tensors join to which those objects lead, and mark their ways to nodes with objects that are younger than `oldest`."""
    cdef PyObject *at
    cdef list tensors = []
    cdef int i = 0
    while i < behind.count:
        at = behind.found[i]
        i += 1
        if is_function(at):  # its globals are not its own
            note_found(closure_of(at), NULL)
            note_found(defaults_of(at), NULL)
            continue
        if isinstance(<object>at, Tensor):
            tensors.append(<object>at)
        if type_of(at).tp_traverse != NULL and type_of(at).tp_traverse(at, note_found, NULL):
            break
    behind.count = behind.most = 0  # what is met from now on is not searched: the places are of those above
    for x in tensors:  # not before: the objects met are borrowed, and joining may run other code
        join_collector(<Tensor>x)
    return mark_ways([x for x in tensors if (<Tensor>x).node != NULL], oldest)


cdef int join_those_behind(PyObject *o, uint64_t oldest) noexcept:
    """Have the tensors join to which an object leads by few steps."""
    if not FBP_MAY_SEARCH:
        return 0
    search_begin(SEARCHED_AT_ONCE)
    note_found(o, NULL)
    try:
        search_end(oldest)
    except MemoryError:
        pass  # some cycles are not collected
    return 0


cdef int mark_ways(list tensors, uint64_t oldest) except -1:
    """Flag the nodes from which those on which objects hang are reached."""
    cdef fbp_node_list found
    cdef fbp_tensor *node
    cdef fbp_tensor *input
    cdef fbp_tensor **roots = tensor_array(tensors, len(tensors))
    cdef int64_t i
    cdef uint32_t edge
    memset(&found, 0, sizeof(found))
    status = fbp_walk(<int>len(tensors), roots, False, oldest, &found)
    for i in range(found.count):
        node = found.nodes[i]
        if node.autograd != NULL and node.autograd.gradient != NULL:
            node.flags |= node.autograd.gradient.flags & FBP_REACHES
        for edge in range(node.edge_count):
            input = fbp_input(node, edge)
            if input != NULL:
                node.flags |= input.flags & FBP_REACHES
    fbp_walk_end(&found)
    free_array(roots, len(tensors))
    return check(status)


# ---- before a collection -------------------------------------------------------------------------------------------------------------

cdef uint32_t collection = 0   # number of the present one
cdef double credit = 0         # collections of younger generations since the last look, against the tensors to look at


cdef int note_hanging(void *context, fbp_tensor *node) noexcept:
    """What hangs on a node may lead to tensors that have not joined."""
    if node.flags & FBP_HOST_RULE and isinstance(rule_of(node), FunctionContext):
        note_found((<PyObject **>fbp_attributes(node))[0], NULL)
    if node.flags & FBP_KEEPS_HANDLE:
        note_found(<PyObject *>node.handle, NULL)
    return 0


cdef int note_face(void *context, fbp_tensor *node) noexcept:
    """Bring a face up to date, and have it looked through."""
    try:
        settle_face(node, <list>context)
        return 0
    except BaseException:
        return 1


cdef int settle_face(fbp_tensor *node, list pending) except -1:
    """Give a node with several holders a face, with as many references to it as to the node."""
    cdef fbp_autograd *extra = fbp_autograd_get(node)
    cdef HookTable table
    cdef Tensor handle
    if extra == NULL:
        return 0
    if node.handle != NULL and not node.flags & FBP_KEEPS_HANDLE and hold_handle(node.handle):
        handle = <Tensor>node.handle
        drop_handle(node.handle)
        join_collector(handle)  # made before anything was hung there
    if extra.hooks == NULL:
        if node.references == 1:
            return 0
        new_hook_table(node)
    if extra.faced == 0:  # a list of cotangents
        return 0
    table = <HookTable>extra.hooks
    while extra.faced < node.references:
        Py_INCREF(table)
        extra.faced += 1
    while extra.faced > node.references:
        Py_DECREF(table)
        extra.faced -= 1
    if table.collection != collection:
        table.collection = collection
        pending.append(table)
    return 0


cdef int settle_faces() except -1:
    """Look at all that the tensors which have joined own together."""
    global collection
    cdef list pending = []
    cdef fbp_owned_visit walk
    cdef HookTable table
    cdef fbp_tensor *node
    cdef uint32_t i = 0
    collection += 1
    walk.owned, walk.faced, walk.shared, walk.context = note_hanging, note_face, note_face, <void *>pending
    while i < joined_count:  # more may join meanwhile
        node = (<Tensor>joined[i]).node
        i += 1
        if node == NULL or not node.flags & FBP_REACHES or is_kept(joined[i - 1]):
            continue
        settle_face(node, pending)
        fbp_owned_walk(node, False, &walk)
    while pending:
        table = pending.pop()
        note_found(<PyObject *>table.before, NULL)
        note_found(<PyObject *>table.after, NULL)
        if table.node != NULL:
            fbp_owned_walk(table.node, True, &walk)
    return 0


def _before_collection(phase, info):
    """What Python calls before and after each collection of cycles."""
    global credit
    if phase != "start" or info["generation"] == 0:
        return
    credit += 1000
    if info["generation"] == 2 or credit > joined_count:
        credit = 0
        enabled = disable_collector()  # where this is called by others, too
        try:
            search_begin(SEARCHED_MOST)
            settle_faces()
            if FBP_MAY_SEARCH and behind.count:
                search_end(0)
                settle_faces()
        finally:
            if enabled:
                enable_collector()


# ---- the slots ----------------------------------------------------------------------------------------------------------------------

cdef object one_tensor = Tensor.__new__(Tensor)
cdef TypeSlots *tensor_type = <TypeSlots *>Tensor
cdef destructor plain_dealloc = tensor_type.tp_dealloc
cdef traverseproc plain_traverse_saved = (<TypeSlots *>SavedTensor).tp_traverse
cdef traverseproc plain_traverse_hooks = (<TypeSlots *>HookTable).tp_traverse

if tensor_type.tp_basicsize != FBP_HANDLE_END or tensor_type.tp_dictoffset != <char *>attributes_of(<PyObject *>one_tensor) - <char *><PyObject *>one_tensor:
    raise SystemError("fastbp: a tensor's members lie elsewhere than core/garbage.pxi has them")
one_tensor = None

# Nothing clears a tensor: each cycle leads through a dict, which is cleared by itself, and what finalizers may still come by is sound.
tensor_type.tp_traverse, tensor_type.tp_clear, tensor_type.tp_dealloc = traverse_tensor, NULL, dealloc_tensor
tensor_type.tp_alloc, tensor_type.tp_free, tensor_type.tp_new = new_tensor, fbp_handle_free, new_of_class
own_handles(core_section, Tensor, forget_handle)
fbp_property_of(tensor_type, b"__dict__").get = <getter>get_dict
fbp_property_of(tensor_type, b"__dict__").set = <setter>set_dict
(<TypeSlots *>SavedTensor).tp_traverse = traverse_saved
(<TypeSlots *>HookTable).tp_traverse = traverse_hooks
