# Which operation, and which line of the user's, first made a NaN or an infinity (exec/anomaly.h); the user's lines.

cdef dict ours = {}            # by file name: whether it belongs to this package
cdef dict recorded_lines = {}  # by sequence of a node that lives: (file, line) where it was recorded
cdef object get_frame = __import__("sys")._getframe
cdef object os_path = __import__("os").path
cdef object package_folder = os_path.dirname(os_path.abspath(__file__))


cdef bint is_ours(str filename):
    found = ours.get(filename)
    if found is None:
        folder = os_path.dirname(os_path.abspath(filename))
        found = ours[filename] = folder == package_folder or folder.startswith(package_folder + os_path.sep)
    return found


cdef object user_line():
    """(file, line) of the innermost frame outside of this package, None when there is none."""
    frame = get_frame()
    while frame is not None and is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


cdef str place_text(object line):
    """" at file:line, `text`", as far as it is known."""
    import linecache
    if line is None:
        return ""
    text = linecache.getline(line[0], line[1]).strip()
    return f" at {line[0]}:{line[1]}" + (f", `{text}`" if text else "")


cdef void note_line(const fbp_tensor *node) noexcept with gil:
    try:
        recorded_lines[node.sequence] = user_line()
        (<fbp_tensor *>node).flags |= FBP_LINE_NOTED
    except Exception:
        pass  # a line that is not known is not reported


cdef void forget_line(const fbp_tensor *node) noexcept with gil:
    recorded_lines.pop(node.sequence, None)


cdef str operands_text(list nodes):
    cdef fbp_tensor *x
    parts = []
    for address in nodes:
        x = <fbp_tensor *><size_t>address
        if x != NULL:
            parts.append(f"{shape_tuple(x)} {fbp_dtype_name(<fbp_dtype>x.dtype).decode()}")
    return ", ".join(parts) or "none"


cdef fbp_status report_anomaly(int op, int count, fbp_tensor *const *inputs, const fbp_tensor *made, const fbp_tensor *node) noexcept with gil:
    """The core's callback: the error for an operation that made a number that is not finite."""
    cdef double value = 0
    cdef int64_t at
    cdef int i
    cdef bint saved_finite = True
    try:
        at = fbp_not_finite(made, &value)
        while fbp_is_batched(made):
            made = fbp_batch_of(made).physical
        kind = "nan" if value != value else "inf" if value > 0 else "-inf"
        if node == NULL:
            text = (f"anomaly: {fbp_ops[op].name.decode()} returned {kind} values (the first is element {at} of {shape_tuple(made)}) from finite "
                    f"inputs {operands_text([<size_t>inputs[i] for i in range(count)])}{place_text(user_line())}")
        else:
            of_what = (f"a finite gradient of shape {shape_tuple(node)}" if inputs == NULL else "finite tangents of its inputs")
            grad_fn = make_grad_fn(<fbp_tensor *>node)
            of = [<size_t>fbp_input(node, i) for i in range(node.edge_count)]
            for i in range(node.edge_count):
                if fbp_edges(node)[i].holds_value and fbp_not_finite(fbp_input(node, i), &value) >= 0:
                    saved_finite = False
            if node.flags & FBP_HOLDS_OWN_VALUE and fbp_not_finite(node, &value) >= 0:
                saved_finite = False
            text = (f"anomaly: the derivative of {grad_fn.name().removesuffix('0').removesuffix('Backward')}, Function '{grad_fn.name()}', returned "
                    f"{kind} values (the first is element {at} of {shape_tuple(made)}) from {of_what}; the "
                    f"operation's inputs were {operands_text(of)}")
            if not saved_finite:
                text += ", and a value that it saved is not finite already: the forward made it"
            text += (f"; the operation ran{place_text(recorded_lines[node.sequence])}" if node.sequence in recorded_lines else
                     "; the operation ran outside of detect_anomaly(): run the forward within it, too, to see its line")
        return keep_error(RuntimeError(text))
    except BaseException as error:
        return keep_error(error)


fbp_host_anomaly = report_anomaly
fbp_host_line = note_line
fbp_host_forget = forget_line


def set_anomaly(int level):
    """0: off; 1: note the lines where operations are recorded; 2: look at results, too. Of this thread."""
    if not 0 <= level <= FBP_ANOMALY_CHECK:
        raise ValueError(f"set_anomaly: the level must be 0, 1 or 2, got {level}")
    fbp_mode_get().anomaly = level


def anomaly_level():
    """What set_anomaly() was given."""
    return fbp_mode_get().anomaly
