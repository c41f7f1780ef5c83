# Facts about the engine: devices, threads, kernels, memory, the op table; optimizer steps.

class Size(tuple):
    """A shape: a tuple that can also count its elements."""

    __slots__ = ()

    def numel(self):
        """Product of the sizes."""
        product = 1
        for size in self:
            product *= size
        return product

    def __repr__(self):
        return f"fastbp.Size({list(self)})"

    def __getitem__(self, index):
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other):
        return Size(tuple.__add__(self, tuple(other)))


class device_type:
    """Where a tensor lives: always the CPU."""

    __slots__ = ("type", "index")

    def __init__(self, type="cpu", index=None):
        name, _, number = str(type).partition(":")
        self.type = name
        self.index = int(number) if number else index

    def __repr__(self):
        return f"device(type='{self.type}')" if self.index is None else f"device(type='{self.type}', index={self.index})"

    def __str__(self):
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other):
        return isinstance(other, device_type) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self):
        return hash((self.type, self.index))


CPU = device_type()
cdef list LEGACY_NAMES = ["BoolTensor", "ByteTensor", "IntTensor", "LongTensor", "FloatTensor", "DoubleTensor"]


def check_device(device):
    """Raise RuntimeError unless `device` is the CPU."""
    name = str(device).partition(":")[0]
    if name != "cpu":
        raise RuntimeError(f"fastbp computes on the CPU; the device {str(device)!r} does not exist")


def set_num_threads(int count):
    """Use at most this many threads from now on.

    Raises
    ------
    RuntimeError
        When `count` is not positive.
    """
    if count <= 0:
        raise RuntimeError("set_num_threads expects a positive integer")
    fbp_threads_set(count)


def get_num_threads():
    """Threads that operations may use.  Default: the least of affinity, container CPU quota, OMP_NUM_THREADS, FASTBP_NUM_THREADS."""
    return fbp_threads_get()


def threads_runtime():
    """What runs the threads: "OpenMP" with its version, or "a pool of POSIX threads"."""
    return fbp_threads_runtime().decode()


def threads_refused():
    """How many threads there were when the system refused to start another: from then on the most there are. 0 when it never did."""
    return fbp_threads_refused()


@cython.binding(False)
cdef class threads:
    """Context manager: at most `count` threads within it."""

    cdef int count, before

    def __cinit__(self, int count):
        if count <= 0:
            raise RuntimeError("threads expects a positive integer")
        self.count = count

    def __enter__(self):
        self.before = fbp_threads_get()
        fbp_threads_set(self.count)
        return self

    def __exit__(self, *error):
        if self.before > 0:
            fbp_threads_set(self.before)


def set_isa(str name not None):
    """Use the kernels of this instruction set ("scalar", "sse2", "avx2", "avx512", "neon"); ValueError when they do not run here."""
    check(fbp_kernels_select(name.encode()))


def get_isa():
    """Instruction set of the kernels in use."""
    return fbp_kernels.isa.decode()


def available_isas():
    """Instruction sets whose kernels run on this machine, the best last."""
    result = []
    while fbp_kernels_available(len(result)) != NULL:
        result.append(fbp_kernels_available(len(result)).decode())
    return result


def memory_statistics():
    """Counts of the core's allocator: allocations asked of the system, live and peak bytes of arrays, live blocks (small tensors and
    nodes) and the bytes of the slabs that hold them."""
    cdef fbp_memory_stats stats = fbp_memory_statistics()
    return {"allocations": stats.allocations, "live_bytes": stats.live_bytes, "peak_bytes": stats.peak_bytes,
            "live_blocks": stats.live_blocks, "slab_bytes": stats.slab_bytes}


def cpu_information():
    """What the core found out about the machine."""
    cdef const fbp_cpu *cpu = fbp_cpu_get()
    return {"brand": cpu.brand.decode(), "cores": cpu.cores, "usable": fbp_cpu_usable(), "l1_bytes": cpu.l1_bytes,
            "l2_bytes": cpu.l2_bytes, "l3_bytes": cpu.l3_bytes}


def environment_variables():
    """Every environment variable that fastbp reads, as dicts of name, meaning, values, default."""
    result, i = [], 0
    while fbp_environment_row_get(i) != NULL:
        row = fbp_environment_row_get(i)
        result.append({"name": row.name.decode(), "meaning": row.meaning.decode(), "values": row.values.decode(),
                       "default": row.default_value.decode()})
        i += 1
    return result


def environment_problems():
    """What was wrong with values found in the environment, a line each; "" when nothing was."""
    return fbp_environment_get().problems.decode()


def op_table():
    """Every row of csrc/ops/ops.def, as dicts of name, class, kind, arity, domain, doc and which rules and properties it has."""
    classes = ("leaf", "pointwise", "predicate", "linear", "bilinear", "general", "nodiff", "update")
    kinds = ("", "F", "N", "I")
    result = []
    for op in range(1, FBP_OP_COUNT):
        row = &fbp_ops[<int>op]
        result.append({"name": row.name.decode(), "class": classes[row.op_class], "kind": kinds[row.kind], "arity": row.arity,
                       "view": bool(row.view), "domain": (row.lo, row.hi), "doc": row.doc.decode(), "signature": row.signature.decode(),
                       "vjp": row.vjp != NULL, "jvp": row.jvp != NULL or row.op_class in (FBP_CLASS_LINEAR, FBP_CLASS_BILINEAR),
                       "needs": tuple([row.needs[i] for i in range(3)]), "batch_rule": fbp_op_batch[op] != NULL,
                       "value_shaped": bool(fbp_op_value_shaped[op])})
    return result
