# The C core as Cython sees it: csrc/'s headers, one block a header.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memcpy, memmove, memset

cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"  # in callbacks, whose C type must be exact; elsewhere bint does

cdef extern from "base/status.h" nogil:
    ctypedef enum fbp_status:
        FBP_OK
        FBP_ERROR_VALUE
        FBP_ERROR_TYPE
        FBP_ERROR_INDEX
        FBP_ERROR_RUNTIME
        FBP_ERROR_MEMORY
        FBP_ERROR_NOT_IMPLEMENTED
        FBP_ERROR_CALLBACK
    fbp_status fbp_fail(fbp_status status, const char *format, ...)
    const char *fbp_message()

cdef extern from "base/dtype.h" nogil:
    ctypedef enum fbp_dtype:
        FBP_BOOL
        FBP_UINT8
        FBP_INT32
        FBP_INT64
        FBP_FLOAT32
        FBP_FLOAT64
    int fbp_dtype_size(fbp_dtype dtype)
    bint fbp_dtype_is_float(fbp_dtype dtype)
    const char *fbp_dtype_name(fbp_dtype dtype)

cdef extern from "base/memory.h" nogil:
    ctypedef struct fbp_memory_stats:
        int64_t allocations, live_bytes, peak_bytes, live_blocks, slab_bytes
    fbp_memory_stats fbp_memory_statistics()
    void *fbp_block_get(size_t bytes)
    void fbp_block_free(void *block, size_t bytes)

cdef extern from "base/threads.h" nogil:
    int fbp_threads_get()
    void fbp_threads_set(int count)
    int fbp_threads_refused()
    const char *fbp_threads_runtime()

cdef extern from "base/environment.h" nogil:
    ctypedef struct fbp_environment:
        const char *problems
        int debug
        bint check
    ctypedef struct fbp_environment_row:
        const char *name
        const char *meaning
        const char *values
        const char *default_value
    const fbp_environment *fbp_environment_get()
    const fbp_environment_row *fbp_environment_row_get(int index)

cdef extern from "base/cpu.h" nogil:
    ctypedef struct fbp_cpu:
        const char *brand
        int cores
        int64_t l1_bytes, l2_bytes, l3_bytes
    const fbp_cpu *fbp_cpu_get()
    int fbp_cpu_usable()

cdef extern from "graph/tensor.h" nogil:
    enum: FBP_MAX_NDIM
    enum: FBP_HOST_RULE
    enum: FBP_REACHES
    enum: FBP_KEEPS_HANDLE
    enum: FBP_LINE_NOTED
    enum: FBP_SYMBOLIC
    ctypedef struct fbp_storage:
        int32_t references
        uint32_t version
        void *data
        int64_t bytes
        void (*release)(void *owner) noexcept
        uint8_t read_only, latest_lost, captured, symbolic
    ctypedef struct fbp_edge:
        fbp_tensor *tensor
        uint32_t version
        uint32_t holds_value
    ctypedef struct fbp_autograd:
        fbp_tensor *gradient
        void *hooks
        int32_t faced
    enum:
        FBP_REQUIRES_GRAD
        FBP_VIEW
        FBP_NUMBER
        FBP_RELEASED
        FBP_RETAINS_GRAD
        FBP_POINT_LEFT
        FBP_HOLDS_OWN_VALUE
        FBP_CONTIGUOUS
    ctypedef struct fbp_tensor:
        int32_t references
        int32_t value_references
        uint64_t sequence
        fbp_storage *storage
        char *data
        int64_t numel
        fbp_autograd *autograd
        void *handle
        fbp_tensor *cotangent
        uint16_t op
        uint8_t dtype
        uint8_t ndim
        uint16_t flags
        uint16_t attribute_bytes
        uint32_t edge_count
        uint32_t version
    ctypedef struct fbp_layout:
        uint8_t dtype
        uint8_t ndim
        int64_t numel
        int64_t *shape
        int64_t *strides
        int64_t offset
    int64_t *fbp_shape(const fbp_tensor *t)
    int64_t *fbp_strides(const fbp_tensor *t)
    fbp_edge *fbp_edges(const fbp_tensor *t)
    void *fbp_attributes(const fbp_tensor *t)
    fbp_tensor *fbp_input(const fbp_tensor *t, int i)
    bint fbp_requires_grad(const fbp_tensor *t)
    bint fbp_is_contiguous(const fbp_tensor *t)
    bint fbp_same_shape(const fbp_tensor *a, const fbp_tensor *b)
    fbp_status fbp_layout_contiguous(fbp_layout *layout, fbp_dtype dtype, int ndim, const int64_t *shape)
    void fbp_layout_of(const fbp_tensor *t, fbp_layout *layout)
    fbp_status fbp_tensor_new(const fbp_layout *layout, fbp_storage *storage, char *data, int edge_count, int attribute_bytes,
                              fbp_tensor **out)
    fbp_status fbp_tensor_like(const fbp_tensor *like, int edge_count, int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_tensor_empty(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_tensor_view(fbp_tensor *base, const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_tensor_detach(fbp_tensor *base, fbp_tensor **out)
    fbp_status fbp_tensor_borrow(const fbp_layout *layout, void *data, int64_t bytes, bint read_only,
                                 void (*release)(void *) noexcept, void *owner, fbp_tensor **out)
    void fbp_storage_retain(fbp_storage *storage)
    void fbp_storage_release(fbp_storage *storage)
    fbp_tensor *fbp_retain(fbp_tensor *t)
    void fbp_release(fbp_tensor *t)
    fbp_autograd *fbp_autograd_get(fbp_tensor *t)
    const char *fbp_shape_text(int ndim, const int64_t *shape)
    bint fbp_broadcast(int *ndim, int64_t *shape, int other_ndim, const int64_t *other)
    fbp_status fbp_dim_wrap(const char *op, int64_t dim, int ndim, int *out)
    void (*fbp_host_release)(void *object) noexcept
    void (*fbp_host_let_go)(void *rule) noexcept
    void (*fbp_host_forget)(const fbp_tensor *t) noexcept
    void (*fbp_host_adopt)(void *handle, fbp_tensor *t) noexcept
    void (*fbp_host_part)(void *handle) noexcept

cdef extern from "graph/owned.h" nogil:
    ctypedef struct fbp_owned_visit:
        int (*owned)(void *context, fbp_tensor *node) noexcept
        int (*faced)(void *context, fbp_tensor *node) noexcept
        int (*shared)(void *context, fbp_tensor *node) noexcept
        void *context
    int fbp_owned_walk(fbp_tensor *root, bint whole, const fbp_owned_visit *visit)

cdef extern from "ops/attributes.h" nogil:
    ctypedef struct fbp_scalar_attribute:
        double *p
    ctypedef struct fbp_dtype_attribute:
        int64_t dtype
    ctypedef struct fbp_shape_attribute:
        int64_t ndim
        int64_t *shape
    ctypedef struct fbp_permute_attribute:
        int32_t ndim, padding
        uint8_t *axes
    ctypedef struct fbp_slice_axis "struct fbp_slice_axis":
        int64_t start, step, count, size
    ctypedef struct fbp_slice_attribute:
        int32_t ndim
        uint32_t dropped
        fbp_slice_axis *axis
    ctypedef struct fbp_diagonal_attribute:
        int32_t first, second
        int64_t offset
        int64_t *sizes
    ctypedef struct fbp_dim_attribute:
        int32_t dim, flag
    ctypedef struct fbp_reduce_attribute:
        uint32_t dims, keepdim
        double p
    ctypedef struct fbp_take_attribute:
        int64_t axes, ndim
        int64_t *shape
    ctypedef struct fbp_matrix_attribute:
        int32_t upper, unit, values, complete, lenient, padding
        double atol, rtol
    ctypedef struct fbp_loss_attribute:
        int64_t ignore_index
        double label_smoothing
        int32_t reduction, classes
    ctypedef struct fbp_source_attribute:
        uint64_t seed, offset
        double *p
        int64_t *integer
        int32_t dtype, ndim
        int64_t *shape

# Bytes in use of attributes whose last array is filled to `n`.
cdef inline int shape_bytes(int n) noexcept: return <int>(sizeof(int64_t) * (1 + n))
cdef inline int slice_bytes(int n) noexcept: return <int>(8 + sizeof(fbp_slice_axis) * n)

cdef extern from "ops/op.h" nogil:
    ctypedef enum fbp_op_class:
        FBP_CLASS_LEAF
        FBP_CLASS_POINTWISE
        FBP_CLASS_PREDICATE
        FBP_CLASS_LINEAR
        FBP_CLASS_BILINEAR
        FBP_CLASS_GENERAL
        FBP_CLASS_NODIFF
        FBP_CLASS_UPDATE
    ctypedef struct fbp_op_row:
        const char *name
        const char *doc
        const char *signature
        int op_class "class"
        int kind
        int arity
        bint view
        uint8_t *needs
        double lo, hi
        void *infer
        void *run
        void *vjp
        void *jvp
        int attribute
    const fbp_op_row *fbp_ops
    ctypedef void (*fbp_batch_fn)()
    const fbp_batch_fn *fbp_op_batch
    const bint *fbp_op_value_shaped
    const bint *fbp_op_third_optional
    fbp_dtype fbp_default_dtype()
    fbp_status fbp_default_dtype_set(fbp_dtype dtype)

cdef extern from "exec/apply.h" nogil:
    ctypedef struct fbp_capture "struct fbp_capture"
    ctypedef struct fbp_vmap:
        uint64_t level
        int64_t size
        int randomness
    ctypedef struct fbp_mode:
        bint grad_enabled
        fbp_capture *capture
        uint8_t anomaly
        bint keep_values
        uint64_t quiet_level
        int vmap_count
        fbp_vmap *vmaps
    fbp_mode *fbp_mode_get()
    fbp_status fbp_apply(int op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_apply_out(int op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes, fbp_tensor *out)
    fbp_status fbp_apply_in_place(int op, int count, fbp_tensor *const *inputs, const void *attributes, int attribute_bytes,
                                  fbp_tensor **target)
    fbp_status fbp_assign(fbp_tensor **target, const fbp_slice_attribute *slice, fbp_tensor *source)
    fbp_status fbp_copy_in_place(fbp_tensor **target, fbp_tensor *source)
    fbp_status fbp_writable(const char *op, const fbp_tensor *t)
    fbp_status fbp_elements_check(const char *op, const fbp_tensor *t)
    fbp_status fbp_contiguous_copy(fbp_tensor *x, fbp_tensor **out)
    void fbp_elements_copy(fbp_tensor *target, const fbp_tensor *source)

cdef extern from "exec/anomaly.h" nogil:
    enum: FBP_ANOMALY_CHECK
    int64_t fbp_not_finite(const fbp_tensor *t, double *value)
    fbp_status (*fbp_host_anomaly)(int op, int count, fbp_tensor *const *inputs, const fbp_tensor *made, const fbp_tensor *node) noexcept
    void (*fbp_host_line)(const fbp_tensor *node) noexcept

cdef extern from "exec/backward.h" nogil:
    ctypedef struct fbp_backward_request:
        int root_count
        fbp_tensor *const *roots
        fbp_tensor *const *cotangents
        bint retain_graph
        bint create_graph
        int input_count
        fbp_tensor *const *inputs
        fbp_tensor **results
        bint ends_there, accumulate
    fbp_status fbp_backward(const fbp_backward_request *request)
    fbp_status fbp_edge_pull(fbp_tensor *node, int which, fbp_tensor *g, bint fit, fbp_tensor **out)
    fbp_status (*fbp_host_hook)(void *hooks, fbp_tensor *g, fbp_tensor **replaced) noexcept with gil
    fbp_status (*fbp_host_accumulated)(void *hooks, fbp_tensor *leaf) noexcept
    fbp_status (*fbp_host_interrupted)() noexcept with gil
    fbp_status (*fbp_host_pull)(void *object, int which, fbp_tensor *cotangent, c_bool create_graph, c_bool last, fbp_tensor **out) noexcept
    fbp_status fbp_host_node(void *object, int count, fbp_tensor *const *inputs, fbp_tensor *value, fbp_tensor **out)

cdef extern from "exec/forward.h" nogil:
    ctypedef struct fbp_forward_request:
        int output_count
        fbp_tensor *const *outputs
        int input_count
        fbp_tensor *const *inputs
        fbp_tensor *const *tangents
        bint create_graph
        fbp_tensor **results
    fbp_status fbp_forward_gradient(const fbp_forward_request *request)
    fbp_status (*fbp_host_push)(void *object, int count, fbp_tensor *const *tangents, fbp_tensor **out) noexcept

cdef extern from "graph/batched.h" nogil:
    ctypedef struct fbp_batch:
        fbp_tensor *physical
        uint64_t level
        bint batched
    bint fbp_is_batched(const fbp_tensor *t)
    const fbp_batch *fbp_batch_of(const fbp_tensor *t)
    uint64_t fbp_level(const fbp_tensor *t)
    fbp_status fbp_batched_new(fbp_tensor *physical, uint64_t level, bint batched, int edge_count, int attribute_bytes, fbp_tensor **out)

cdef extern from "exec/batched.h" nogil:
    ctypedef enum fbp_randomness:
        FBP_RANDOM_ERROR
        FBP_RANDOM_SAME
        FBP_RANDOM_DIFFERENT
    fbp_status fbp_vmap_begin(int64_t size, fbp_randomness randomness, uint64_t *level)
    void fbp_vmap_end()
    fbp_status fbp_level_check(const char *op, const fbp_tensor *t)
    fbp_status fbp_random_check(fbp_op op)
    fbp_status fbp_lift(fbp_tensor *x, fbp_tensor **out)

cdef extern from "diff/batching.h" nogil:
    fbp_status (*fbp_host_slow)(fbp_op op) noexcept with gil

cdef extern from "exec/views.h" nogil:
    bint fbp_view_is_stale(const fbp_tensor *t)
    fbp_status fbp_view_refresh(fbp_tensor *t, fbp_tensor **out)
    void fbp_view_adopt(fbp_tensor *origin, fbp_tensor *to, fbp_tensor **at)
    fbp_status fbp_view_rebase_check(const char *op, const fbp_tensor *target)
    fbp_status fbp_view_rebase(fbp_tensor *target, fbp_tensor *result, fbp_tensor **target_at)

cdef extern from "exec/update.h" nogil:
    ctypedef struct fbp_sgd:
        double lr, momentum, dampening, weight_decay
        bint nesterov, maximize
    ctypedef struct fbp_adam:
        double lr, beta1, beta2, eps, weight_decay
        bint decoupled, maximize
    ctypedef struct fbp_update_item:
        fbp_tensor *param
        fbp_tensor *grad
        fbp_tensor **state
        int64_t step
    fbp_status fbp_sgd_step(int64_t count, const fbp_update_item *items, const fbp_sgd *hyper)
    fbp_status fbp_adam_step(int64_t count, const fbp_update_item *items, const fbp_adam *hyper)

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct fbp_kernel_set:
        const char *isa
    const fbp_kernel_set *fbp_kernels
    void fbp_kernels_init()
    fbp_status fbp_kernels_select(const char *isa)
    const char *fbp_kernels_available(int i)
