# The one critical section of the module (PEP 703), for builds of Python without the lock; docs/threads.md.
#
# tools/sections.py puts every function that can be entered from outside into it, in such builds only. Like the lock, it is
# let go wherever a thread detaches: in `with nogil`, in blocking calls, in pauses for the garbage collector.
#
# What the lock gives besides: an object whose last reference has gone is freed before anything else happens. Without it the
# thread that frees a Tensor first waits for the section, and meanwhile others may meet the pointer in `fbp_tensor.handle`:
# they take a reference only where there still is one (hold_handle), and the pointer goes before the object does (forget_handle).

cdef extern from *:
    """
    #ifndef Py_GIL_DISABLED
    #define FBP_FREE_THREADED 0
    #define fbp_handle_hold(handle) 1 /* under the lock, what a handle points at is alive */
    #define fbp_handle_drop(handle) ((void)0)
    #define fbp_handle_watch(handle) ((void)0)
    #define fbp_handle_own(section, type, forget) ((void)(section), (void)(type), (void)(forget))
    #else
    #define FBP_FREE_THREADED 1
    #if PY_VERSION_HEX < 0x030E0000
    /* 3.14 lets a section be entered again while it is the innermost one; 3.13 would let it go and wait for itself, and
     * other threads could come in between. */
    static inline void fbp_section_begin(PyCriticalSection *section, PyObject *of) {
        uintptr_t top = PyThreadState_GetUnchecked()->critical_section; /* its lowest bits: suspended; of two objects */
        if (top != 0 && (top & 3) == 0 && ((PyCriticalSection *)top)->_cs_mutex == &of->ob_mutex) section->_cs_mutex = NULL;
        else PyCriticalSection_Begin(section, of);
    }
    static inline void fbp_section_end(PyCriticalSection *section) {
        if (section->_cs_mutex != NULL) PyCriticalSection_End(section);
    }
    #define PyCriticalSection_Begin fbp_section_begin
    #define PyCriticalSection_End fbp_section_end

    /* What 3.14 has as PyUnstable_TryIncRef and PyUnstable_EnableTryIncRef, on the fields of 3.13's objects. */
    static int fbp_handle_hold(void *handle) {
        PyObject *o = (PyObject *)handle;
        uint32_t local = _Py_atomic_load_uint32_relaxed(&o->ob_ref_local) + 1;
        if (local == 0) return 1; /* immortal */
        if (_Py_IsOwnedByCurrentThread(o)) {
            _Py_atomic_store_uint32_relaxed(&o->ob_ref_local, local);
            return 1;
        }
        Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&o->ob_ref_shared);
        do {
            if (shared == 0 || shared == _Py_REF_MERGED) return 0;
        } while (!_Py_atomic_compare_exchange_ssize(&o->ob_ref_shared, &shared, shared + (1 << _Py_REF_SHARED_SHIFT)));
        return 1;
    }
    static void fbp_handle_watch(void *handle) {
        PyObject *o = (PyObject *)handle;
        Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&o->ob_ref_shared);
        do {
            if ((shared & _Py_REF_SHARED_FLAG_MASK) != 0) return;
        } while (!_Py_atomic_compare_exchange_ssize(&o->ob_ref_shared, &shared, shared | _Py_REF_MAYBE_WEAKREF));
    }
    #else
    #define fbp_handle_hold(handle) PyUnstable_TryIncRef((PyObject *)(handle))
    #define fbp_handle_watch(handle) PyUnstable_EnableTryIncRef((PyObject *)(handle))
    #endif
    #define fbp_handle_drop(handle) Py_DECREF((PyObject *)(handle))

    static PyObject *fbp_section;                /* core_section; held for as long as the process lives */
    static int (*fbp_tensor_forget)(void *tensor); /* whether the object lives on */
    static destructor fbp_tensor_free;           /* Cython's, which counts the object up and down again around __dealloc__ */

    static void fbp_tensor_dealloc(PyObject *tensor) {
        PyCriticalSection section;
        /* A collection may come while this thread waits: it would find an object without references, and free it too. */
        int tracked = PyObject_GC_IsTracked(tensor);
        if (tracked) PyObject_GC_UnTrack(tensor);
        PyCriticalSection_Begin(&section, fbp_section);
        if (tracked) PyObject_GC_Track(tensor);
        int lives_on = fbp_tensor_forget(tensor);
        if (tracked && !lives_on) PyObject_GC_UnTrack(tensor);
        PyCriticalSection_End(&section);
        if (!lives_on) fbp_tensor_free(tensor);
    }
    static void fbp_handle_own(PyObject *section, PyObject *type, int (*forget)(void *)) {
        Py_INCREF(section);
        fbp_section = section;
        fbp_tensor_forget = forget;
        fbp_tensor_free = ((PyTypeObject *)type)->tp_dealloc;
        ((PyTypeObject *)type)->tp_dealloc = fbp_tensor_dealloc;
    }
    #endif
    """
    enum: FREE_THREADED "FBP_FREE_THREADED"  # dicts and cells of the user's change at any time: borrowed references are no good
    bint hold_handle "fbp_handle_hold"(void *handle) noexcept    # take a reference, unless the last one has gone; with the lock: none is needed
    void drop_handle "fbp_handle_drop"(void *handle) noexcept    # give it back
    void watch_handle "fbp_handle_watch"(void *handle) noexcept  # before a pointer that counts no reference is kept
    void own_handles "fbp_handle_own"(object section, object type, bint (*forget)(void *) noexcept) noexcept

cdef list core_section = []
