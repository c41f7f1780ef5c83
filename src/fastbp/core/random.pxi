# Generators, random tensors and dropout.

cdef extern from "exec/generator.h" nogil:
    ctypedef struct fbp_generator:
        uint64_t seed
        uint64_t offset
    fbp_generator *fbp_generator_default()
    void fbp_generator_seed(fbp_generator *generator, uint64_t seed)
    void fbp_generator_set(fbp_generator *generator, fbp_generator place)
    fbp_generator fbp_generator_take(fbp_generator *generator, uint64_t blocks)
    uint64_t fbp_generator_entropy()


cdef int refuse_seeding() except -1:
    if fbp_mode_get().capture != NULL:
        raise RuntimeError("compile: a generator is seeded inside of the compiled function; each call goes on where the one before ended: "
                           "seed before the call")
    return 0


cdef int refuse_reading() except -1:
    """RunEagerly while a function is captured: what it reads of a generator is another number at each call."""
    if fbp_mode_get().capture != NULL:
        raise RunEagerly("it reads the seed or the state of a random generator", forever=True)
    return 0


@cython.binding(False)
cdef class Generator:
    """A source of random numbers with a state of its own: a seed, and how many blocks of numbers were drawn.

    Numbers are a function of seed and position (Philox4x32-10), the same on every machine and for any number of threads.
    Pass one as generator= to the random functions; without, they draw from `fastbp.default_generator`.

    Examples
    --------
    >>> g = fastbp.Generator().manual_seed(0)
    >>> a = fastbp.rand(3, generator=g)
    >>> bool((a == fastbp.rand(3, generator=g.manual_seed(0))).all())
    True
    """

    cdef fbp_generator own
    cdef fbp_generator *at
    cdef bint inner  # made while a function was captured

    def __cinit__(self, device=None):
        if device is not None:
            check_device(device)
        self.at = &self.own
        fbp_generator_seed(self.at, 67280421310721)
        self.inner = fbp_mode_get().capture != NULL

    @property
    def device(self):
        """Always the CPU."""
        return CPU

    def manual_seed(self, seed):
        """Start anew from this seed, -2**63 <= seed < 2**64; returns self."""
        refuse_seeding()
        fbp_generator_seed(self.at, seed_bits(seed))
        return self

    def seed(self):
        """Start anew from a seed of the operating system's entropy; returns the seed."""
        refuse_seeding()
        fbp_generator_seed(self.at, fbp_generator_entropy())
        return self.at.seed

    def initial_seed(self):
        """The seed."""
        refuse_reading()
        return self.at.seed

    def get_state(self):
        """Seed and position as a uint8 tensor of 16 elements."""
        refuse_reading()
        place = fbp_generator_take(self.at, 0)
        return tensor(list(int(place.seed).to_bytes(8, "little") + int(place.offset).to_bytes(8, "little")), dtype=uint8)

    def set_state(self, new_state):
        """Go back to where get_state() was called; returns self."""
        if not isinstance(new_state, Tensor) or new_state.numel() != 16 or new_state.dtype != uint8:
            raise TypeError("expected a state that get_state() returned: a uint8 tensor of 16 elements")
        refuse_seeding()
        state = bytes(new_state.tolist())
        fbp_generator_set(self.at, fbp_generator(int.from_bytes(state[:8], "little"), int.from_bytes(state[8:], "little")))
        return self

    def clone_state(self):
        """Another generator in the same state."""
        return Generator().set_state(self.get_state())

    def __reduce__(self):
        return make_generator, (self.get_state(),)


def make_generator(state):
    """A pickled generator."""
    return Generator().set_state(state)


cdef Generator make_default_generator():
    cdef Generator result = Generator()
    result.at = fbp_generator_default()
    return result


default_generator = make_default_generator()


cdef uint64_t seed_bits(object seed) except? 0xFFFFFFFFFFFFFFFF:
    seed = seed.__index__() if not isinstance(seed, float) else int(seed)
    if not -0x8000_0000_0000_0000 <= seed <= 0xFFFF_FFFF_FFFF_FFFF:
        raise ValueError("Overflow when unpacking long long")
    return seed & 0xFFFF_FFFF_FFFF_FFFF


def manual_seed(seed):
    """Start the default generator anew from this seed, -2**63 <= seed < 2**64; returns the generator."""
    return default_generator.manual_seed(seed)


def seed():
    """Start the default generator from a seed of the operating system's entropy; returns the seed."""
    return default_generator.seed()


def initial_seed():
    """Seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state():
    """State of the default generator, for set_rng_state()."""
    return default_generator.get_state()


def set_rng_state(new_state):
    """Put the default generator back into a state."""
    default_generator.set_state(new_state)


# ---- sources -----------------------------------------------------------------------------------------------------------------

cdef int place(fbp_source_attribute *source, int per_block, object generator) except -1:
    """Draw the blocks that the elements of `source` need, `per_block` in each; inside of a vmap perhaps for all examples."""
    cdef fbp_layout layout
    cdef fbp_generator drawn
    cdef int64_t blocks
    cdef fbp_generator *at = fbp_generator_default()
    if generator is not None:
        if not isinstance(generator, Generator):
            raise TypeError(f"expected a Generator, got {builtin_type(generator).__name__}")
        at = (<Generator>generator).at
    if fbp_mode_get().vmap_count:
        widen_source(source)
    check(fbp_layout_contiguous(&layout, <fbp_dtype>source.dtype, source.ndim, source.shape))
    blocks = layout.numel // per_block + (layout.numel % per_block != 0)
    if fbp_mode_get().capture != NULL:
        if generator is not None:
            hold_generator(generator)
        check(fbp_capture_draw(fbp_mode_get().capture, at, blocks, &drawn))
    else:
        drawn = fbp_generator_take(at, blocks)
    source.seed = drawn.seed
    source.offset = drawn.offset
    return 0


cdef int hold_generator(Generator generator) except -1:
    """The plan draws from it as long as there is the plan."""
    cdef Capture capture = current_capture()
    if generator.inner:
        raise RuntimeError("compile: a Generator is made inside of the compiled function, which would start anew at each call; make it outside")
    if not is_one_of(generator, capture.generators):
        capture.generators.append(generator)
    return 0


cdef int widen_source(fbp_source_attribute *source) except -1:
    """Room for the examples of each vmap that draws anew for them, the outermost first."""
    cdef const fbp_mode *mode = fbp_mode_get()
    cdef int i
    for i in range(mode.vmap_count - 1, -1, -1):
        if mode.vmaps[i].randomness == FBP_RANDOM_ERROR:
            check(fbp_random_check(FBP_OP_uniform))
        if mode.vmaps[i].randomness != FBP_RANDOM_DIFFERENT:
            continue
        if source.ndim == FBP_MAX_NDIM:
            raise RuntimeError(f"vmap: a tensor has at most {FBP_MAX_NDIM} dimensions")
        memmove(source.shape + 1, source.shape, source.ndim * sizeof(int64_t))
        source.shape[0] = mode.vmaps[i].size
        source.ndim += 1
    return 0


cdef object rebatch(object drawn):
    """What was drawn from a source that `place` has widened, as the examples see it."""
    cdef const fbp_mode *mode = fbp_mode_get()
    cdef int i
    for i in range(mode.vmap_count):
        if mode.vmaps[i].randomness == FBP_RANDOM_DIFFERENT:
            drawn = batch(drawn, mode.vmaps[i].level)
    return drawn


cdef object drawn_from(int op, fbp_source_attribute *source, object requires_grad):
    """The tensor of a random source after `place`."""
    if fbp_mode_get().vmap_count == 0:
        return from_source(op, source, requires_grad)
    drawn = rebatch(from_source(op, source, False))
    return drawn.requires_grad_() if requires_grad else drawn


cdef inline int per_block(int code) noexcept:
    """Elements that one Philox block of 128 bits gives: float64 takes 64 bits, float32 and coin flips 32."""
    return 2 if code == FBP_FLOAT64 else 4


cdef int expect_float(int op, int code) except -1:
    if code < FBP_FLOAT32:
        kind = LEGACY_NAMES[code].removesuffix("Tensor")
        raise NotImplementedError(f'"{fbp_ops[op].name.decode()}" not implemented for \'{kind}\'')
    return 0


cdef object random_floats(int op, fbp_source_attribute *source, double p0, double p1, object generator, object requires_grad):
    """uniform, normal or exponential."""
    expect_float(op, source.dtype)
    source.p[0] = p0
    source.p[1] = p1
    place(source, per_block(source.dtype), generator)
    return drawn_from(op, source, requires_grad)


cdef object sized_floats(int op, object sizes, object size, object dtype, object device, double p0, double p1, object generator,
                         object requires_grad):
    cdef fbp_source_attribute source
    begin_source(&source, code_or_default(dtype, device))
    source.ndim = read_sizes(sizes if size is None else (size,), source.shape)
    return random_floats(op, &source, p0, p1, generator, requires_grad)


cdef int shape_like(Tensor x, object dtype, object device, fbp_source_attribute *source) except -1:
    """Shape and dtype of x, the dtype unless another is given."""
    if device is not None:
        check_device(device)
    begin_source(source, x.node.dtype if dtype is None else dtype_code(dtype))
    source.ndim = x.node.ndim
    memcpy(source.shape, fbp_shape(x.node), x.node.ndim * sizeof(int64_t))
    return 0


cdef object floats_like(int op, object input, object dtype, object device, double p0, double p1, object requires_grad):
    cdef fbp_source_attribute source
    shape_like(tensor_argument("rand_like" if op == FBP_OP_uniform else "randn_like", input), dtype, device, &source)
    return random_floats(op, &source, p0, p1, None, requires_grad)


def rand(*sizes, size=None, generator=None, out=None, dtype=None, layout=None, device=None, requires_grad=False, pin_memory=False):
    """Uniform numbers in [0, 1).

    Parameters
    ----------
    *sizes : int
        The shape, as numbers or one sequence.
    generator : Generator, optional
        Default: default_generator.
    dtype : dtype, optional
        float32 or float64. Default: get_default_dtype().
    """
    return store(sized_floats(FBP_OP_uniform, sizes, size, dtype, device, 0.0, 1.0, generator, requires_grad), out)


def randn(*sizes, size=None, generator=None, out=None, dtype=None, layout=None, device=None, requires_grad=False, pin_memory=False):
    """Normal numbers of mean 0 and deviation 1; parameters as rand()."""
    return store(sized_floats(FBP_OP_normal, sizes, size, dtype, device, 0.0, 1.0, generator, requires_grad), out)


def rand_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """rand() of input's shape and, unless given, dtype."""
    return floats_like(FBP_OP_uniform, input, dtype, device, 0.0, 1.0, requires_grad)


def randn_like(input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """randn() of input's shape and, unless given, dtype."""
    return floats_like(FBP_OP_normal, input, dtype, device, 0.0, 1.0, requires_grad)


def normal(mean, std=1.0, size=None, *, generator=None, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """Normal numbers: of one mean and deviation in a shape `size`, or one for each element of tensors `mean`, `std`."""
    if not isinstance(std, Tensor) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if isinstance(mean, Tensor) or isinstance(std, Tensor):
        shape = broadcast_shapes(*[x.shape for x in (mean, std) if isinstance(x, Tensor)])
        like = mean if isinstance(mean, Tensor) else std
        with no_grad():
            if isinstance(std, Tensor) and not (<Tensor>std).node.storage.symbolic and std.numel() and std.min() < 0:
                raise RuntimeError("normal expects all elements of std >= 0.0")
            return store(randn(shape, generator=generator, dtype=like.dtype) * std + mean, out)
    if size is None:
        raise TypeError("normal() of numbers needs a size")
    return store(sized_floats(FBP_OP_normal, (tuple(size),), None, dtype, device, mean, std, generator, requires_grad), out)


cdef object random_integers(fbp_source_attribute *source, object low, object high, object generator, object requires_grad):
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    try:
        source.integer[0] = low
        source.integer[1] = high
    except OverflowError:
        raise RuntimeError(f"random_: the bounds {low} and {high} do not fit in 64 bits") from None
    place(source, 2, generator)
    return drawn_from(FBP_OP_randint, source, requires_grad)


def randint(low, high=None, size=None, *, generator=None, out=None, dtype=None, layout=None, device=None, requires_grad=False):
    """Integers in [low, high): randint(high, size) or randint(low, high, size).

    Parameters
    ----------
    low : int
        Default: 0.
    high : int
    size : sequence of int
    dtype : dtype, optional
        Default: int64.
    """
    cdef fbp_source_attribute source
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        raise TypeError("randint() needs a size: randint(high, size) or randint(low, high, size)")
    begin_source(&source, code_or_default(int64 if dtype is None else dtype, device))
    source.ndim = read_sizes((tuple(size),), source.shape)
    return store(random_integers(&source, plain_number(low), plain_number(high), generator, requires_grad), out)


def randint_like(input, low, high=None, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None):
    """randint() of input's shape and, unless given, dtype."""
    cdef fbp_source_attribute source
    shape_like(tensor_argument("randint_like", input), dtype, device, &source)
    return random_integers(&source, 0 if high is None else low, low if high is None else high, None, requires_grad)


def randperm(n, *, generator=None, out=None, dtype=None, layout=None, device=None, requires_grad=False, pin_memory=False):
    """0 to n - 1 in random order; int64 unless another dtype is given."""
    cdef fbp_source_attribute source
    if fbp_mode_get().vmap_count:  # a permutation for each example, where they are to differ
        return store(argsort(rand(n, generator=generator, dtype=float64)).to(int64 if dtype is None else dtype), out)
    begin_source(&source, code_or_default(int64 if dtype is None else dtype, device))
    source.ndim = read_sizes((n,), source.shape)
    place(&source, 2, generator)
    return store(from_source(FBP_OP_permutation, &source, requires_grad), out)


# ---- draws from given distributions ----------------------------------------------------------------------------------------------

cdef object coin_flips(Tensor like, object p, object generator):
    """1 with probability p (a number, or a tensor that broadcasts to like), else 0, of like's shape and dtype."""
    cdef fbp_source_attribute source
    if isinstance(p, Tensor):
        with no_grad():
            if not (<Tensor>p).node.storage.symbolic and p.numel() and not bool(((p >= 0) & (p <= 1)).all()):
                raise RuntimeError("bernoulli expects all probabilities to be in [0, 1]")
            wide = p if p.is_floating_point() else p.double()
            drawn = rand(tuple(like.shape), generator=generator, dtype=wide.dtype) < wide
            return cast(drawn, <fbp_dtype>like.node.dtype)
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    shape_like(like, None, None, &source)
    source.p[0] = p
    place(&source, 4, generator)
    return drawn_from(FBP_OP_bernoulli, &source, False)


def bernoulli(input, p=None, *, generator=None, out=None):
    """1 with the probability that each element of input names (or with probability p), else 0; of input's shape and dtype."""
    cdef Tensor x = tensor_argument("bernoulli", input)
    return store(coin_flips(x, x.detach() if p is None else p, generator), out)


def multinomial(input, num_samples, replacement=False, *, generator=None, out=None):
    """Indices drawn with probabilities proportional to input's last axis.

    Parameters
    ----------
    input : Tensor
        (n,) or (rows, n), floating, non-negative; each row needs a positive sum.
    num_samples : int
        Draws a row.
    replacement : bool
        Whether an index may be drawn again. Default: False.

    Returns
    -------
    Tensor
        (num_samples,) or (rows, num_samples), int64.
    """
    cdef Tensor like = tensor_argument("multinomial", input)
    if like.node.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    cdef int64_t n = fbp_shape(like.node)[like.node.ndim - 1]
    if not replacement and num_samples > n:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    with no_grad():
        weights = input.detach().double()
        if not bool((isfinite(weights) & (weights >= 0)).all()):
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        if not bool((weights.sum(-1) > 0).all()):
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        if not replacement:
            # The order in which exponential clocks of these rates ring (Efraimidis & Spirakis 2006).
            clocks = empty_like(weights).exponential_(generator=generator)
            return store(topk(weights / clocks, num_samples, -1)[1], out)
        array = numpy()
        sums = as_array(weights.reshape(-1, n).cumsum(-1))
        draws = as_array(rand(sums.shape[0], num_samples, dtype=float64, generator=generator))
        found = [array.searchsorted(row, drawn * row[n - 1], side="right") for row, drawn in zip(sums, draws)]
        # Rounding may carry a draw to the total: it belongs to the last index of positive weight.
        last = [array.searchsorted(row, row[n - 1], side="left") for row in sums]
        rows = array.minimum(array.stack(found), array.array(last)[:, None]).astype("int64")
        return store(from_numpy(rows).reshape(*input.shape[:input.ndim - 1], num_samples), out)


cdef object drawn_mask(fbp_source_attribute *source):
    """What dropout multiplies elements with inside of a vmap: drawn for each example, or once for all."""
    cdef fbp_source_attribute ones
    cdef fbp_tensor *out
    cdef Tensor one
    place(source, per_block(source.dtype), None)
    ones = source[0]
    ones.p[0] = 1.0
    one = from_source(FBP_OP_full, &ones, False)
    check(fbp_apply(FBP_OP_dropout, 1, &one.node, source, source_bytes(source.ndim), &out))
    return rebatch(wrap(out))


def dropout(input, p=0.5, training=True, inplace=False):
    """input with elements zeroed with probability p, the others divided by 1 - p; input itself when not training.

    Raises
    ------
    ValueError
        When p is not in [0, 1].
    """
    cdef fbp_source_attribute source
    cdef fbp_tensor *out
    cdef Tensor x
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    x = tensor_argument("dropout", input)
    if fbp_mode_get().capture == NULL:
        check(fbp_elements_check("dropout", x.node))
    shape_like(x, None, None, &source)
    source.p[0] = p
    if fbp_mode_get().vmap_count and not inplace:  # a mask of the innermost vmap's own, or of all its examples
        return binary(FBP_OP_mul, x, drawn_mask(&source))
    place(&source, per_block(source.dtype), None)
    if inplace:
        out = x.node
        check(fbp_apply_in_place(FBP_OP_dropout, 1, &out, &source, source_bytes(source.ndim), &x.node))
        return x
    check(fbp_apply(FBP_OP_dropout, 1, &x.node, &source, source_bytes(source.ndim), &out))
    return wrap(out)


cdef object fill_random(Tensor x, int op, double p0, double p1, object low, object high, int in_block, object generator):
    """Random numbers into x's own elements: straight from the source where x lies contiguous and has no history."""
    cdef fbp_source_attribute source
    if op in (FBP_OP_uniform, FBP_OP_normal, FBP_OP_exponential):
        expect_float(op, x.node.dtype)
    check(fbp_writable(fbp_ops[op].name, x.node))
    if fbp_mode_get().capture == NULL:
        check(fbp_elements_check(fbp_ops[op].name, x.node))
    shape_like(x, None, None, &source)
    source.p[0] = p0
    source.p[1] = p1
    source.integer[0] = low
    source.integer[1] = high
    place(&source, in_block, generator)
    if fbp_is_contiguous(x.node) and not (fbp_requires_grad(x.node) and fbp_mode_get().grad_enabled) and not fbp_mode_get().vmap_count:
        check(fbp_apply_out(op, 0, NULL, &source, source_bytes(source.ndim), x.node))
        return x
    return x.copy_(drawn_from(op, &source, False))
