/* plan.c -- the passes in their order. */
#include <string.h>

#include "base/environment.h"
#include "plan/program.h"

typedef struct pass {
    const char *name;
    fbp_status (*run)(fbp_program *program);
} pass;

/* What is computed; then, how. */
static const pass reducing[] = {
    {"prune", fbp_program_prune},       {"fold", fbp_program_fold},         {"merge", fbp_program_merge_equal},
    {"simplify", fbp_program_simplify}, {"merge", fbp_program_merge_equal}, {NULL, NULL},
};
static const pass settling[] = {
    {"direct", fbp_program_direct}, {"prune", fbp_program_prune}, {"legalize", fbp_program_legalize}, {"fit", fbp_program_fit}, {NULL, NULL},
};
static const pass shaping[] = {
    {"batch", fbp_program_batch}, {"fuse", fbp_program_fuse}, {"join", fbp_program_join}, {"place", fbp_program_place}, {NULL, NULL},
};

static fbp_status run_passes(fbp_program *program, const pass *passes) {
    const bool verify = fbp_environment_get()->debug >= 1;
    for (; passes->name; passes++) {
        FBP_TRY(fbp_interrupted());
        FBP_TRY(passes->run(program));
        if (verify) FBP_TRY(fbp_program_verify(program, passes->name));
    }
    return FBP_OK;
}

/* Constants that the function writes are copied first, at each call. */
static fbp_status thaw(fbp_program *program) {
    const int32_t buffers = program->buffer_count, lines = program->line_count;
    for (int32_t i = 0; i < buffers; i++) {
        if (program->buffers[i].kind != FBP_BUFFER_CONSTANT || !program->buffers[i].writes) continue;
        const int64_t bytes = program->buffers[i].bytes;
        fbp_layout layout;
        FBP_TRY(fbp_layout_contiguous(&layout, FBP_UINT8, 1, &bytes));
        const int32_t frozen = fbp_program_buffer_add(program, FBP_BUFFER_CONSTANT, bytes);
        const int32_t from = frozen < 0 ? -1 : fbp_program_value_add(program, frozen, 0, &layout);
        const int32_t to = from < 0 ? -1 : fbp_program_value_add(program, i, 0, &layout);
        fbp_line *line = to < 0 ? NULL : fbp_program_line_add(program, FBP_LINE_WRITE, FBP_OP_copy, 1, NULL, 0);
        if (!line) return FBP_ERROR_MEMORY;
        line->inputs[0] = from;
        line->output = to;
        program->buffers[frozen].storage = program->buffers[i].storage;
        program->buffers[i].storage = NULL;
        program->buffers[i].kind = FBP_BUFFER_ARENA;
    }
    /* The copies come first. */
    const int32_t added = program->line_count - lines;
    if (!added) return FBP_OK; /* a program of no lines has no list, either */
    fbp_line *all = fbp_program_get(program, ((size_t)program->line_count + 1) * sizeof *all);
    if (!all) return FBP_ERROR_MEMORY;
    memcpy(all, program->lines + lines, (size_t)added * sizeof *all);
    memcpy(all + added, program->lines, (size_t)lines * sizeof *all);
    memcpy(program->lines, all, (size_t)program->line_count * sizeof *all);
    return FBP_OK;
}

fbp_status fbp_program_reduce(fbp_program *program) {
    fbp_program_count_writes(program);
    FBP_TRY(thaw(program));
    fbp_program_count_writes(program);
    return run_passes(program, reducing);
}

fbp_status fbp_program_shape(fbp_program *program) { return run_passes(program, shaping); }

fbp_status fbp_program_plan(fbp_program *program) {
    FBP_TRY(fbp_program_reduce(program));
    FBP_TRY(run_passes(program, settling));
    return fbp_program_shape(program);
}
