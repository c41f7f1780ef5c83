/* status.h -- how the core says that something went wrong.
 *
 * Every fallible call returns a status; the text that goes with it stands in a
 * per-thread buffer until the next failure.  The core never prints or aborts.
 */
#ifndef FBP_BASE_STATUS_H
#define FBP_BASE_STATUS_H

typedef enum fbp_status {
    FBP_OK = 0,
    FBP_ERROR_VALUE,           /* Python ValueError */
    FBP_ERROR_TYPE,            /* Python TypeError */
    FBP_ERROR_INDEX,           /* Python IndexError */
    FBP_ERROR_RUNTIME,         /* Python RuntimeError: most of PyTorch's own errors */
    FBP_ERROR_MEMORY,          /* Python MemoryError */
    FBP_ERROR_NOT_IMPLEMENTED, /* Python NotImplementedError */
    FBP_ERROR_CALLBACK,        /* a host callback failed; the host holds the exception */
} fbp_status;

/* Store a printf-style message for this thread and return `status`, so that
 * `return fbp_fail(FBP_ERROR_VALUE, ...)` reads as one step. */
fbp_status fbp_fail(fbp_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3), cold))
#endif
    ;

/* Message of this thread's last failure; never NULL, valid until the next one. */
const char *fbp_message(void);

/* Set by the host: the status of an interruption (Ctrl-C), FBP_OK where there is none. */
extern fbp_status (*fbp_host_interrupted)(void);
/* To be asked now and then by what may last, under the host's lock.  Anything of the host's may run in it. */
fbp_status fbp_interrupted(void);

/* Hand a failure upwards. */
#define FBP_TRY(expression)                              \
    do {                                                 \
        fbp_status fbp_try_status = (expression);        \
        if (fbp_try_status != FBP_OK) return fbp_try_status; \
    } while (0)

#endif
