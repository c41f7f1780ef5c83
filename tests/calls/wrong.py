"""Expressions of arguments that are wrong nearly everywhere. `{t}` is a tensor, `{l}` a list and `{a}` an array that
the call has besides."""

from __future__ import annotations

from random import Random

HUGE = [
    "2**31", "2**31 - 1", "2**32", "2**45", "2**62", "2**63", "2**63 - 1", "-1", "-2**63", "-2**63 - 1", "2**64", "10**30",
    "-2**31", "-17", "17", "16", "10**7", "2**20",
]  # fmt: skip
PLAIN = [
    "None", "'a'", "''", "'a\\0b'", "'\\ud800'", "'mean'", "b'bytes'", "bytearray(8)", "1", "0", "1.5", "True", "1j", "...",
    "math.nan", "math.inf", "-math.inf", "1e308", "object()", "int", "fastbp.Tensor", "nn.Linear", "print", "slice(None)",
    "slice(2**62, None, 2**62)", "slice('a', 2)", "NotImplemented", "NotImplemented", "range(3)", "range(2**40)", "fastbp", "fastbp.float32",
    "np.float32(2)", "np.int64(2)", "np.bool_(True)", "np.dtype('f4')", "memoryview(b'abcd')", "{'a': 1}", "{1, 2}", "frozenset()",
    "len", "super", "type", "open", "collections.deque([1, 2])", "io.BytesIO(b'abc')",
]  # fmt: skip
CONTAINERS = [
    "()", "[]", "{}", "(1,)", "[1, 2]", "(1, 2, 3)", "[None]", "(None, None)", "[[1, 2], [3]]", "[T((2, 3)), None]",
    "[T((2, 3)), 1]", "[T((2, 3)), T((3,))]", "[T((2, 3))] * 3", "(T((2, 3)),) * 17", "['a']", "[0] * 16", "[1] * 17", "[1] * 1000",
    "[2**62, 2**62]", "[2**31, 2**31]", "[-1, -1]", "[math.nan]", "(slice(None),) * 17", "(None,) * 17", "itself()", "[itself()]",
    "deep()", "deep(30)", "closed()", "(x for x in [1, 2])", "iter([T((2, 3))])", "iter([])", "{1: T((3,))}", "{'params': [T((3,))]}",
    "[{'params': [T((3,), grad=True)]}]", "[object()]", "[[]]", "[[[]], []]", "(Lying(), Lying())", "[Raising()]", "[Acting(gc.collect)]",
    "zip([1], [2])", "map(int, '12')", "np.array([1, 2])", "(2, 3, Acting({l}.clear, 1))", "[Acting({l}.clear, 1), 2, 3]",
]  # fmt: skip
OWN = [
    "own(OwnTensor, T((2, 3)))", "own(OwnParameter, T((2, 3)))", "own(OwnArray, A((2, 3)))", "own(OwnInt, 1)", "own(OwnInt, 2**62)",
    "own(OwnFloat, 1.5)", "own(OwnStr, 'mean')", "own(OwnList, [T((2, 3))])", "own(OwnTuple, (1, 2))", "own(OwnDict, {'a': 1})",
    "T((2, 3)).as_subclass(OwnTensor)", "OwnTensor()", "fastbp.Size((2, 3))", "OwnModule()",
]  # fmt: skip
TENSORS = [
    "T(())", "T((0,))", "T((0, 3))", "T((1,))", "T((1,) * 16)", "T((2, 3), 'int64')", "T((2, 3), 'bool')", "T((2, 3), 'uint8')",
    "T((2, 3), 'float64')", "T((2, 3), 'int32', -5, 5)", "T((2, 3)) * math.nan", "T((2, 3)) * math.inf", "T((2, 3), grad=True)",
    "non_leaf()", "freed()", "leaked()", "leaked(2)", "leaked_gradient()", "symbolic()", "expanded()", "expanded((3, 2**40))",
    "T((4, 4)).t()", "T((5, 40))[:, ::7]", "T((6,))[2:2]", "T((3, 3))[1]", "fastbp.full((2,), 2**62)", "fastbp.full((2, 3), -1)",
    "fastbp.full((2, 3), 100)", "fastbp.full((3,), -2**63)", "fastbp.empty(0, 2**40)", "fastbp.zeros(3, 0, 2**60)", "T((2000, 50))",
    "fastbp.from_numpy(A((3, 3)))", "fastbp.from_numpy(A((6,)))[::2]", "T((2, 3)).detach()", "T((2, 3)).data", "nn.Parameter(T((2, 3)))",
    "fastbp.Tensor.__new__(fastbp.Tensor)", "T((2, 3), grad=True).requires_grad_(False)", "T((1, 1)).expand(3, 5)",
    "fastbp.empty(0, 2**31, 2**31)",
]  # fmt: skip
ARRAYS = [
    "A((2, 3))", "A(())", "A((0, 3))", "A((1,) * 17)", "A((1,) * 32)", "A((6,))[::-1]", "A((6, 6))[::2, ::-3]", "A((2, 3)).T",
    "frozen(A((2, 3)))", "np.broadcast_to(A((3,)), (4, 3))", "np.array([1, None])", "np.array([T((2,)), 'a', None], dtype=object)",
    "np.empty(3, dtype=object)", "records(3)", "A((2, 3), 'f2')", "A((2, 3), 'c8')", "A((2, 3), '>f4')", "A((2, 3), '>i8')",
    "A((2, 3), 'u2')", "A((2, 3), 'i1')", "A((2, 3), 'g')", "A((3,), 'M8[s]')", "np.array(['a', 'b'])", "np.array([b'a'])",
    "unaligned(A((2, 3)))", "swapped(A((2, 3)))", "np.ma.masked_array(A((3,)), [1, 0, 1])", "np.asmatrix(A((2, 3)))",
    "np.lib.stride_tricks.as_strided(A((4,)), (3, 3), (4, 4))", "np.lib.stride_tricks.as_strided(A((4,)), (2**40,), (0,))",
    "np.array(2**62)", "A((2, 3), 'bool')", "A((2, 3), 'V4')", "np.float16(1)", "np.str_('a')", "np.void(b'abcd')", "np.datetime64('now')",
    "memoryview(A((2, 3)))", "memoryview(A((2, 3)))[::2]",
]  # fmt: skip
HOSTILE = [
    "Raising()", "Raising(MemoryError)", "Raising(SystemError) if 0 else Raising(KeyError)", "Raising(StopIteration)", "Raising(AttributeError)",
    "Raising(TypeError)", "Raising(IndexError)", "Raising(RecursionError)", "Lying()", "Acting({l}.clear)", "Acting({l}.clear, 2)",
    "Acting(lambda: rebound({t}))", "Acting(lambda: rebound({t}), 1.5)", "Acting(lambda: resized({a}))", "Acting({t}.requires_grad_)",
    "Acting(lambda: delattr({t}, 'grad'))", "Acting(lambda: {t}.add_(1), True)", "Acting(gc.collect)", "Acting(lambda: {t}.backward())",
    "Acting(lambda: {l}.append(None), 0)", "Acting(lambda: {l}.extend([1] * 10000), 0)", "Acting(lambda: {t}.unsqueeze_(0), 0)",
    "Acting(lambda: {t}.sum().backward(), 0)", "Acting(lambda: fastbp.manual_seed(1), 0)", "Acting(lambda: {l}.__delitem__(0), T((2, 3)))",
    "[Acting(lambda: rebound({t}), 1), 2.5]", "[1, Acting({l}.clear), 2]", "Acting(lambda: {t}.detach_(), 0)",
    "lambda *a, **k: rebound({t})", "lambda *a, **k: {l}.clear()", "lambda *a, **k: a[0]", "lambda *a, **k: None", "lambda *a, **k: 1 / 0",
    "lambda *a, **k: T((7,))", "lambda *a, **k: [a, k]", "lambda *a, **k: symbolic()", "lambda *a, **k: leaked()",
]  # fmt: skip
ALIASES = ["{t}", "{t}", "{t}.t() if {t}.ndim == 2 else {t}", "{t}[0:1] if {t}.ndim else {t}", "{t}.detach()", "{t}.grad", "[{t}, {t}]",
           "({t}, {t})", "{l}", "{a}", "fastbp.from_numpy({a})", "{t}.view(-1) if {t}.is_contiguous() else {t}", "{t}.data"]  # fmt: skip

KINDS = [(HUGE, 14), (PLAIN, 18), (CONTAINERS, 16), (OWN, 5), (TENSORS, 18), (ARRAYS, 10), (HOSTILE, 12), (ALIASES, 7)]
LISTS = [one for one, _ in KINDS]
WEIGHTS = [weight for _, weight in KINDS]


def wrong(random: Random) -> str:
    """Anything."""
    return random.choice(random.choices(LISTS, WEIGHTS)[0])
