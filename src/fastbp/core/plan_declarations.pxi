# The core's programs, captures and plans, as Cython sees them.

cdef extern from "plan/program.h" nogil:
    ctypedef enum fbp_buffer_kind:
        FBP_BUFFER_ARENA
        FBP_BUFFER_INPUT
        FBP_BUFFER_STATE
        FBP_BUFFER_CONSTANT
        FBP_BUFFER_RESULT
        FBP_BUFFER_GRADIENT
    ctypedef enum fbp_line_kind:
        FBP_LINE_OP
        FBP_LINE_PULL
        FBP_LINE_WRITE
        FBP_LINE_UPDATE
    ctypedef struct fbp_buffer:
        fbp_storage *storage
        int64_t bytes, offset
        int32_t values, writes, first, last
        uint8_t kind, keep
    ctypedef struct fbp_value:
        fbp_tensor *tensor
        int64_t offset
        int32_t buffer, next
    ctypedef struct fbp_line:
        uint8_t kind, which
        uint16_t op
        int32_t count, output, output2, attribute_bytes, slot
        int32_t *inputs
        void *attributes
    ctypedef struct fbp_draw:
        void *generator
        uint64_t offset
    ctypedef struct fbp_budget:
        int64_t bytes
        double fraction
        int64_t without
        bint met
    ctypedef struct fbp_program:
        fbp_buffer *buffers
        fbp_value *values
        fbp_line *lines
        fbp_draw *draws
        int32_t buffer_count, value_count, line_count, draw_count
        int64_t arena_bytes
        uint8_t phase
        int32_t region
        fbp_budget budget
    ctypedef struct fbp_line_cost:
        double flops, bytes
    int32_t fbp_program_buffer(fbp_program *program, fbp_storage *storage)
    int32_t fbp_program_value(fbp_program *program, const fbp_tensor *t)
    int32_t fbp_program_buffer_add(fbp_program *program, fbp_buffer_kind kind, int64_t bytes)
    int32_t fbp_program_value_add(fbp_program *program, int32_t buffer, int64_t offset, const fbp_layout *layout)
    fbp_line *fbp_program_line_add(fbp_program *program, fbp_line_kind kind, int op, int32_t count, const void *attributes, int bytes)
    fbp_line_cost fbp_line_cost_of(const fbp_program *program, const fbp_line *line)
    void fbp_line_name(const fbp_program *program, const fbp_line *line, char *text, int length)
    bint fbp_line_is_again(const fbp_line *line)
    int32_t fbp_program_region_begin(fbp_program *program)
    fbp_status fbp_program_reduce(fbp_program *program)
    fbp_status fbp_program_fit_saved(fbp_program *program)
    fbp_status fbp_program_split(fbp_program *program, fbp_program **derivative, uint8_t *saved)
    fbp_status fbp_program_copy(const fbp_program *source, int phase, fbp_program **out)
    fbp_status fbp_program_drop_absent(fbp_program *program, const uint8_t *cotangents)
    cdef enum:
        FBP_COTANGENT_NONE
        FBP_COTANGENT_PRESENT
        FBP_COTANGENT_ABSENT
    void fbp_program_free(fbp_program *program)

cdef extern from "plan/program.h":
    ctypedef void (*fbp_touch_fn)(void *context, int32_t value, c_bool written) noexcept
    void fbp_line_touch(const fbp_program *program, const fbp_line *line, fbp_touch_fn visit, void *context)

cdef extern from "graph/walk.h" nogil:
    ctypedef struct fbp_node_list:
        fbp_tensor **nodes
        int64_t count
    fbp_status fbp_walk(int root_count, fbp_tensor *const *roots, bint grad_only, uint64_t oldest, fbp_node_list *list)
    int64_t fbp_walk_find(const fbp_node_list *list, const fbp_tensor *node)
    void fbp_walk_end(fbp_node_list *list)

cdef extern from "exec/backward.h" nogil:
    fbp_status fbp_gradient_accumulate(fbp_tensor *t, fbp_tensor *g, bint create_graph)
    fbp_tensor *fbp_gradient_get(const fbp_tensor *t)
    fbp_tensor **fbp_gradient_place(fbp_tensor *t)

cdef extern from "exec/capture.h" nogil:
    ctypedef struct fbp_leaf_change:
        fbp_tensor *leaf
        fbp_tensor *before
        fbp_tensor *after
        bint replaced_first, held
    ctypedef struct fbp_generator_change:
        fbp_generator *generator
        uint64_t blocks
    ctypedef struct fbp_capture "struct fbp_capture":
        fbp_program *program
        fbp_leaf_change *leaves
        fbp_generator_change *generators
        fbp_tensor **seen
        int32_t leaf_count, generator_count, seen_count
        bint failed
    fbp_status fbp_capture_begin(fbp_capture **out)
    fbp_capture *fbp_capture_pause()
    void fbp_capture_resume(fbp_capture *capture)
    void fbp_capture_free(fbp_capture *capture)
    fbp_status fbp_capture_tensor(const fbp_layout *layout, int edge_count, int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_capture_apply(fbp_capture *capture, const fbp_call *call, int which, const fbp_layout *layout, int edge_count,
                                 int attribute_bytes, fbp_tensor **out)
    fbp_status fbp_capture_write(fbp_capture *capture, fbp_tensor *target, fbp_tensor *source)
    fbp_status fbp_capture_update(fbp_capture *capture, int op, int count, fbp_tensor *const *tensors, int slot)
    fbp_status fbp_capture_gradient(fbp_capture *capture, fbp_tensor *leaf, bint replaced)
    fbp_status fbp_capture_draw(fbp_capture *capture, fbp_generator *generator, int64_t blocks, fbp_generator *place)
    void fbp_capture_see(fbp_capture *capture, fbp_tensor *t)

cdef extern from "exec/run.h" nogil:
    ctypedef union fbp_hyper_union:
        fbp_sgd sgd
        fbp_adam adam
    ctypedef struct fbp_update_slot:
        fbp_hyper_union hyper
        int32_t count
        int64_t *steps
        int64_t *strides
    ctypedef struct fbp_draw_slot:
        fbp_generator *generator
        uint64_t blocks
        fbp_generator place
    ctypedef struct fbp_plan:
        fbp_program *program
        fbp_update_slot *updates
        fbp_draw_slot *draws
        bint checked
    fbp_status fbp_plan_new(fbp_program *program, int update_count, int draw_count, fbp_plan **out)
    void fbp_plan_free(fbp_plan *plan)
    void fbp_plan_bind(fbp_plan *plan, int32_t buffer, char *base)
    fbp_status fbp_plan_run(fbp_plan *plan)
    fbp_status fbp_plan_run_timed(fbp_plan *plan, double *seconds)
    fbp_status fbp_plan_run_checked(fbp_plan *plan)
    int64_t fbp_plan_peak_bytes(const fbp_plan *plan)
    ctypedef struct fbp_batch_source:
        int32_t buffer
        const char *rows
        int64_t row_bytes
        char *batch
    ctypedef struct fbp_batch_result:
        int32_t buffer
        char *base
        int64_t bytes
    ctypedef struct fbp_pass:
        int64_t batch
        const void *order
        int source_count, result_count
        const fbp_batch_source *sources
        const fbp_batch_result *results
    fbp_status fbp_plan_pass(fbp_plan *plan, const fbp_pass *what, int64_t begin, int64_t end, int64_t *done)
