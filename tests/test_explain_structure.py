"""fastbp.explain on tensors: structures of Jacobians, layers of nets, pictures, and fastbp.summary."""

from __future__ import annotations

import re
import shutil
import sys
from typing import Any

import numpy as np
import pytest
from cases import FLOATS, POINTWISE, ROWS, Case, draw, elementwise_operands, function, parameters
from structural_cases import STRUCTURAL

import fastbp
import fastbp.nn.functional as F
from fastbp import Tensor, nn
from fastbp.explanation import local as local_module
from fastbp.explanation.graph import Edge
from fastbp.explanation.local import Jacobian

Numbers = np.ndarray[Any, Any]


def leaf(array: Any) -> Tensor:
    made = fastbp.tensor(np.asarray(array))
    return made.requires_grad_() if made.is_floating_point() else made


def one_edge(y: Tensor, x: Tensor) -> Edge:
    """The one edge between an op and its input."""
    edges = [edge for edge in fastbp.explain(y, {"x": x}).edges if edge.source.name == "x"]
    assert len(edges) == 1
    return edges[0]


# ---- structures ----------------------------------------------------------------------------------------------------


def at_most_one(matrix: Numbers, axis: int) -> bool:
    return bool((np.count_nonzero(matrix, axis=axis) <= 1).all())


def is_diagonal(matrix: Numbers) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.count_nonzero(matrix - np.diag(np.diag(matrix))) == 0


def fits(kind: str, matrix: Numbers) -> bool:
    """Whether a matrix has the structure that `kind` names."""
    rows, columns = matrix.shape
    if kind == "zero":
        return not matrix.any()
    if kind == "identity":
        return rows == columns and bool((matrix == np.eye(rows)).all())
    if kind == "scaled identity":
        return is_diagonal(matrix) and np.ptp(np.diag(matrix)) == 0
    if kind == "diagonal":
        return is_diagonal(matrix) and np.ptp(np.diag(matrix)) > 0
    if kind == "permutation":
        return rows == columns and at_most_one(matrix, 0) and at_most_one(matrix, 1) and bool(matrix.any(axis=1).all())
    if kind == "selection":
        some_left = at_most_one(matrix, 0) or not matrix.any(axis=0).all()
        return at_most_one(matrix, 1) and not is_diagonal(matrix) and some_left
    if kind == "broadcast":
        return at_most_one(matrix, 1) and rows > columns
    if kind == "sum":
        return bool((np.count_nonzero(matrix, axis=0) == 1).all()) and not at_most_one(matrix, 1)
    return kind in ("row", "column", "dense", "kronecker", "block diagonal")


def check_edge(edge: Edge) -> None:
    """The structure that an edge names is that of its Jacobian, and the most particular one."""
    matrix, found = edge.jacobian().numpy(), edge.local
    if isinstance(found, float):
        assert matrix.shape == (1, 1) and matrix[0, 0] == found
        return
    assert isinstance(found, Jacobian)
    assert found.shape == matrix.shape
    assert fits(found.kind, matrix), (found, matrix)
    simple = next((kind for kind in ("zero", "identity", "scaled identity", "diagonal") if fits(kind, matrix)), None)
    if simple is not None and found.kind not in ("kronecker", "block diagonal") and "not written out" not in found.text:
        assert found.kind == simple, (found, matrix)
    assert found.multiplications <= matrix.size
    if found.kind in ("diagonal", "row"):
        assert found.multiplications == matrix.shape[1]


def smooth_cases() -> list[Case]:
    return [case for case in STRUCTURAL if case.smooth and set(FLOATS) & set(case.dtypes) and case.operands]


@pytest.mark.parametrize("case", smooth_cases(), ids=str)
def test_structures_of_structural_rows(case: Case) -> None:
    dtype = "float64" if "float64" in case.dtypes else "float32"
    arrays = draw(case.operands, dtype)
    inputs = [fastbp.tensor(a) if o.constant else leaf(a) for o, a in zip(case.operands, arrays, strict=True)]
    y = case.call(*inputs)
    if not isinstance(y, Tensor) or not y.requires_grad or y.is_leaf:
        pytest.skip("not differentiable")
    for edge in fastbp.explain(y).edges:
        check_edge(edge)


@pytest.mark.parametrize("name", [name for name in POINTWISE if ROWS[name]["kind"] != "I"])
def test_structures_of_elementwise_rows(name: str) -> None:
    for keywords in parameters(name, smooth=True):
        arrays = elementwise_operands(name, "float64", (2, 3), smooth=True)
        y = function(name)(*[leaf(array) for array in arrays], **keywords)
        for edge in fastbp.explain(y).edges:
            assert edge.local.kind in ("zero", "identity", "scaled identity", "diagonal")
            check_edge(edge)
        if len(arrays) > 1:  # a row, and a number, that are broadcast
            for part in (np.s_[:1], np.s_[:1, :1]):
                y = function(name)(*[leaf(array) for array in arrays[:-1]], leaf(arrays[-1][part]), **keywords)
                for edge in fastbp.explain(y).edges:
                    check_edge(edge)


def test_a_wrong_structure_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above objects to a structure that is not that of the matrix."""
    x = leaf([1.0, 2.0, 3.0])
    edge = one_edge(fastbp.sin(x), x)
    check_edge(edge)
    edge._graph._locals.clear()
    planted = Jacobian("identity", 3, 3, "I3", 0)
    monkeypatch.setattr(local_module, "find_structure", lambda *_: planted)
    with pytest.raises(AssertionError):
        check_edge(edge)


@pytest.mark.parametrize(
    ("call", "shape", "kind", "text"),
    [
        (lambda x: x + 1.0, (3,), "identity", "I3"),
        (lambda x: -x, (3,), "scaled identity", "-I3"),
        (lambda x: 2.5 * x, (3,), "scaled identity", "2.5 I3"),
        (lambda x: x * fastbp.tensor([1.0, 2.0], dtype=fastbp.float64), (2,), "diagonal", "diag(1, 2)"),
        (lambda x: fastbp.floor(x), (3,), "zero", "0 (3 x 3)"),
        (lambda x: x.sum(), (3,), "sum", "row of 3 ones"),
        (lambda x: x.mean(), (4,), "sum", "row of 4 x 0.25"),
        (lambda x: x.sum(0), (2, 3), "sum", "sum (3 x 6)"),
        (lambda x: x.expand(3), (1,), "broadcast", "column of 3 ones"),
        (lambda x: x + fastbp.zeros(2, 3, dtype=fastbp.float64), (3,), "broadcast", "broadcast (6 x 3)"),
        (lambda x: x.t().clone().t(), (2, 3), "permutation", "permutation of 6"),
        (lambda x: x[1:], (3,), "selection", "selection of 2 of 3"),
        (lambda x: x.reshape(6), (2, 3), "identity", "I6"),
        (lambda x: fastbp.triu(x), (2, 2), "diagonal", "diag(1, 1, 0, 1)"),
        (lambda x: fastbp.softmax(x, -1), (4, 3), "block diagonal", "4 diagonal blocks of 3 x 3"),
        (lambda x: fastbp.cumsum(x, 0), (2,), "dense", "[1, 0; 1, 1]"),
        (lambda x: fastbp.norm(x), (2,), "row", "row (0.6, 0.8)"),
    ],
)
def test_structures_have_names(call: Any, shape: tuple[int, ...], kind: str, text: str) -> None:
    x = leaf(np.array([3.0, 4.0]) if kind == "row" else np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape))
    edge = one_edge(call(x), x)
    assert (edge.local.kind, str(edge.local)) == (kind, text)


def test_products_are_kronecker_products() -> None:
    """Row-major: vec(A B) = (I (x) B^T) vec(A) = (A (x) I) vec(B); linear's weight in the order of the outputs."""
    a, b, w = (leaf(np.random.default_rng(n).standard_normal(s)) for n, s in enumerate([(3, 4), (4, 2), (2, 4)]))
    e = fastbp.explain(a @ b, {"A": a, "B": b})
    by_a, by_b = e.edges
    assert str(by_a.local) == "I3 ⊗ Bᵀ (6 x 12)" and str(by_b.local) == "A ⊗ I2 (6 x 8)"
    np.testing.assert_array_equal(by_a.jacobian().numpy(), np.kron(np.eye(3), b.detach().numpy().T))
    np.testing.assert_array_equal(by_b.jacobian().numpy(), np.kron(a.detach().numpy(), np.eye(2)))
    assert by_a.local.multiplications == by_b.local.multiplications == 3 * 4 * 2
    bias = leaf(np.zeros(2))
    e = fastbp.explain(F.linear(a, w, bias), {"A": a, "W": w, "b": bias})
    by_a, by_w, by_bias = e.edges
    assert [str(edge.local) for edge in e.edges] == ["I3 ⊗ W (6 x 12)", "I2 ⊗ A (6 x 8)", "broadcast (6 x 2)"]
    np.testing.assert_array_equal(by_a.jacobian().numpy(), np.kron(np.eye(3), w.detach().numpy()))
    by_columns = by_w.jacobian().numpy().reshape(3, 2, 8).transpose(1, 0, 2).reshape(6, 8)
    np.testing.assert_array_equal(by_columns, np.kron(np.eye(2), a.detach().numpy()))
    np.testing.assert_array_equal(by_bias.jacobian().numpy(), np.tile(np.eye(2), (3, 1)))


def test_large_jacobians_are_named_and_not_written_out() -> None:
    x = leaf(np.linspace(0.0, 1.0, 5000))
    edge = one_edge(fastbp.softmax(x, 0), x)
    assert str(edge.local) == "dense (5000 x 5000, not written out)"
    with pytest.raises(ValueError, match=r"5000 x 5000 numbers, more than 2\*\*24; look at its structure"):
        edge.jacobian()
    assert one_edge(fastbp.sin(x), x).local.kind == "diagonal"


# ---- layers --------------------------------------------------------------------------------------------------------


def net() -> tuple[nn.Module, Tensor, Tensor]:
    fastbp.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()
    return model, fastbp.randn(7, 4, dtype=fastbp.float64), fastbp.randn(7, 3, dtype=fastbp.float64)


def recursion(model: nn.Module, x: Numbers, target: Numbers) -> list[dict[str, Numbers]]:
    """The classical recursion for that net and the loss sum((y - t)^2) / 2, in NumPy."""
    layers = [m for m in model if isinstance(m, nn.Linear)]
    weights, biases = [m.weight.detach().numpy() for m in layers], [m.bias.detach().numpy() for m in layers]
    a0 = x
    a1 = np.tanh(a0 @ weights[0].T + biases[0])
    a2 = 1 / (1 + np.exp(-(a1 @ weights[1].T + biases[1])))
    delta3 = a2 @ weights[2].T + biases[2] - target
    delta2 = (delta3 @ weights[2]) * a2 * (1 - a2)
    delta1 = (delta2 @ weights[1]) * (1 - a1**2)
    return [
        {"delta": d, "weight_gradient": d.T @ a, "bias_gradient": d.sum(0), "back": d @ w}
        for d, a, w in zip((delta1, delta2, delta3), (a0, a1, a2), weights, strict=True)
    ]


def test_layers_are_those_of_the_classical_recursion() -> None:
    model, x, target = net()
    loss = ((model(x) - target) ** 2).sum() / 2
    e = fastbp.explain(loss, model=model)
    layers = e.layers()
    assert [(one.name, one.inputs, one.outputs) for one in layers] == [("0", 4, 6), ("2", 6, 5), ("4", 5, 3)]
    assert [one.activation for one in layers] == [("tanh",), ("sigmoid",), ("sub", "square", "sum", "div")]
    for layer, expected in zip(layers, recursion(model, x.numpy(), target.numpy()), strict=True):
        for part, numbers in expected.items():
            np.testing.assert_allclose(getattr(layer, part), numbers, rtol=1e-10, atol=1e-12)  # another order of sums
        assert layer.difference < 1e-13  # the same products, from the graph
    loss.backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(e.derivative(name).numpy(), parameter.grad.numpy(), rtol=1e-12, atol=1e-14)
    text = str(e)
    assert "2: 6 -> 5" in text and "from 4's step back, through sigmoid" in text


def test_layers_of_products_written_by_hand() -> None:
    """x @ W + b, a weight on the left, and a weight that is used twice."""
    random = np.random.default_rng(0)
    x, w, b = (leaf(random.standard_normal(s)) for s in ((5, 3), (3, 3), (3,)))
    h = fastbp.tanh(x.detach() @ w + b)
    loss = (h @ w).sum()
    first, second = fastbp.explain(loss, {"w": w, "b": b}).layers()
    assert max(first.difference, second.difference) < 1e-13  # the same products; the sum of both uses of w
    assert (first.bias, second.bias, first.activation) == ("b", "", ("tanh",))
    gradient = fastbp.autograd.grad(loss, w)[0].numpy()
    np.testing.assert_allclose(first.weight_gradient + second.weight_gradient, gradient, rtol=1e-12)
    v = leaf(random.standard_normal((2, 3)))
    loss = fastbp.sin(v @ x.detach().t()).sum()
    (layer,) = fastbp.explain(loss, {"v": v}).layers()
    np.testing.assert_allclose(layer.weight_gradient, fastbp.autograd.grad(loss, v)[0].numpy(), rtol=1e-12)
    assert layer.difference < 1e-13


def test_layers_of_transposed_weights() -> None:
    """x @ W.T + b, as PyTorch's users write it; a square W, whose shape does not tell."""
    random = np.random.default_rng(0)
    x, w1, b, w2 = (leaf(random.standard_normal(s)) for s in ((5, 3), (4, 3), (4,), (4, 4)))
    loss = fastbp.sin(fastbp.tanh(x.detach() @ w1.T + b) @ w2.t()).sum()
    layers = fastbp.explain(loss, {"w1": w1, "b": b, "w2": w2}).layers()
    assert [(one.name, one.bias, one.inputs, one.outputs) for one in layers] == [("w1", "b", 3, 4), ("w2", "", 4, 4)]
    for layer, gradient in zip(layers, fastbp.autograd.grad(loss, [w1, w2]), strict=True):
        np.testing.assert_allclose(layer.weight_gradient, gradient.numpy(), rtol=1e-12)
        assert layer.difference < 1e-13
    untouched = fastbp.sin((x.detach() @ w1.T) @ w2.permute(0, 1)).sum()  # a permutation that transposes nothing
    assert [one.name for one in fastbp.explain(untouched, {"w1": w1, "w2": w2}).layers()] == ["w1"]


def test_layers_of_a_recurrent_net_share_their_weights() -> None:
    fastbp.manual_seed(0)
    W, U = (fastbp.randn(4, n, dtype=fastbp.float64).requires_grad_() for n in (4, 3))
    h = fastbp.zeros(2, 4, dtype=fastbp.float64)
    for x in fastbp.randn(3, 2, 3, dtype=fastbp.float64):
        h = fastbp.tanh(F.linear(x, U) + F.linear(h, W))
    loss = (h * h).sum()
    e = fastbp.explain(loss, {"W": W, "U": U})
    assert (e.path_count("W"), len(e.uses("W"))) == (2 * (1 + 1 + 1), 3)  # h * h reads h twice
    layers = [layer for layer in e.layers() if layer.name == "W"]
    assert [layer.after for layer in layers] == ["W", "W", "y"]
    assert [layer.is_first for layer in layers] == [True, False, False]
    gradient = fastbp.autograd.grad(loss, W, retain_graph=True)[0].numpy()
    np.testing.assert_allclose(sum(layer.weight_gradient for layer in layers), gradient, rtol=1e-11)
    assert max(layer.difference for layer in e.layers()) < 1e-13
    assert "from W's step back, through add, tanh" in str(e)


def test_a_wrong_recursion_shows_as_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, target = net()
    e = fastbp.explain(((model(x) - target) ** 2).sum(), model=model)
    adjoints = dict(e.adjoints())
    weight = e.wrt["2.weight"].index
    adjoints[weight] = adjoints[weight] * 1.01
    monkeypatch.setattr(e, "_adjoints", adjoints)
    assert max(layer.difference for layer in e.layers()) > 1e-3


# ---- pictures ------------------------------------------------------------------------------------------------------


def small() -> fastbp.explanation.explained.Explanation:
    a, b = leaf(3.0), leaf(2.0)
    return fastbp.explain((a + b) * (b + 1), {"a": a, "b": b}, names={"e <>": a})


def test_the_picture_as_text() -> None:
    a, b = leaf(3.0), leaf(2.0)
    y = (a + b) * (b + 1)
    dot = fastbp.explain(y, {"a": a, "b": b}, names={"e": y}).to_dot()
    assert 'n0 [label=<<b>a&#160;</b>=&#160;3<br/><font color="#b3261e">de/da&#160;=&#160;3</font>>' in dot
    assert "<b>e&#160;</b>=&#160;v1 * v2<br/>=&#160;15" in dot
    edges = re.findall(r'n(\d) -> n(\d) \[label=" ([^"]*) "\]', dot)
    assert edges == [
        *(("0", "2", "1"), ("1", "2", "b(1): 1"), ("1", "4", "b(2): 1")),
        *(("2", "5", "3"), ("4", "5", "5")),
    ]
    assert 'c4_1 [label="1"' in dot  # the number of the sum, which the sum does not keep, is found again


def test_names_are_escaped() -> None:
    a = leaf(3.0)
    dot = fastbp.explain(a * a, {'<"&>': a}).to_dot()
    assert "<b>&lt;&quot;&amp;&gt;&#160;</b>" in dot


def test_long_graphs_are_capped_with_a_note() -> None:
    x = leaf(0.5)
    y = x
    for _ in range(100):
        y = fastbp.sin(y)
    e = fastbp.explain(y, {"x": x})
    assert "<b>41 of 101 nodes are not drawn: those farthest from y</b>" in e.to_dot()
    assert e.to_dot().count("fillcolor") < 70
    assert "not drawn" not in e.to_dot(max_nodes=101)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_the_picture_is_drawn(tmp_path: Any) -> None:
    pytest.importorskip("graphviz")
    e = small()
    svg = e.to_svg(str(tmp_path / "e.svg"))
    assert svg == (tmp_path / "e.svg").read_text() == e._repr_svg_()
    assert svg.count('class="node"') == 6 and svg.count('class="edge"') == 6


def test_pictures_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    e = small()
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match=r"pip install fastbp\[viz\]"):
        e.to_svg()
    assert e._repr_svg_() is None
    monkeypatch.undo()
    pytest.importorskip("graphviz")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="apt install graphviz"):
        e.to_svg()


# ---- summary -------------------------------------------------------------------------------------------------------


def test_a_summary_counts_parameters_flops_and_bytes() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    s = fastbp.summary(model, fastbp.zeros(8, 64))
    assert [(row.name, row.kind, row.shapes, row.parameters) for row in s.rows] == [
        ("0", "Linear", [(8, 32)], 64 * 32 + 32),
        ("1", "ReLU", [(8, 32)], 0),
        ("2", "Linear", [(8, 10)], 32 * 10 + 10),
    ]
    assert [row.flops for row in s.rows] == [2 * 8 * 64 * 32, 8 * 32, 2 * 8 * 32 * 10]
    assert s.rows[0].bytes == 4 * (8 * 64 + 64 * 32 + 32 + 8 * 32)
    assert (s.parameters, s.trainable, s.parameter_bytes) == (2410, 2410, 9640)
    assert (s.flops, s.bytes) == (sum(row.flops for row in s.rows), sum(row.bytes for row in s.rows))
    assert str(s).splitlines()[2].split() == ["0", "Linear", "(8,", "32)", "2,080", "32.77", "k", "11.39", "k"]


def test_a_summary_leaves_the_model_alone_and_takes_any_arguments() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.drop = nn.Dropout(0.5)
            self.scale = nn.Parameter(fastbp.ones(3))

        def forward(self, x: Tensor, *, index: Tensor) -> Tensor:
            return self.layer(self.drop(self.layer(x)))[index] * self.scale

    model = Twice()
    model.scale.requires_grad_(False)
    state = fastbp.get_rng_state()
    s = fastbp.summary(model, np.zeros((4, 3), np.float32), index=fastbp.tensor([0, 1]))
    assert [(row.name, row.parameters) for row in s.rows] == [
        *(("layer", 12), ("drop", 0), ("layer", 0)),
        ("(code between layers)", 3),
    ]
    assert (s.parameters, s.trainable) == (15, 12)
    assert "3 are frozen" in str(s)
    assert (fastbp.get_rng_state() == state).all()
    called = []
    model.layer.register_forward_hook(lambda *_: called.append(1))
    model(fastbp.zeros(4, 3), index=fastbp.tensor([0]))
    assert len(called) == 2 and len(s.rows) == 4  # the summary's own hooks are gone
    with pytest.raises(TypeError, match="model must be a Module"):
        fastbp.summary(lambda x: x, fastbp.zeros(1))
