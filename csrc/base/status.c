/* status.c -- the per-thread message behind a status code. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[1024] = "";

fbp_status fbp_fail(fbp_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return status;
}

const char *fbp_message(void) { return message; }

fbp_status (*fbp_host_interrupted)(void) = NULL;

fbp_status fbp_interrupted(void) { return fbp_host_interrupted ? fbp_host_interrupted() : FBP_OK; }
