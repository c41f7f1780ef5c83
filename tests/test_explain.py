"""fastbp.explain: values, local derivatives, paths, uses, traces, costs; on worked examples and on random graphs."""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Tensor


def number(value: float) -> Tensor:
    return fastbp.tensor(value, dtype=fastbp.float64, requires_grad=True)


# ---- the worked examples of DESIGN.md ------------------------------------------------------------------------------


def test_product_of_sums_over_two_paths() -> None:
    """e = (a + b)(b + 1): de/db = 1*3 + 1*5."""
    a, b = number(3.0), number(2.0)
    e = fastbp.explain((a + b) * (b + 1), wrt={"a": a, "b": b})
    assert (e.graph.number(e.graph.root), e.derivative("a"), e.derivative("b")) == (15.0, 3.0, 8.0)
    assert (e.path_count("a"), e.path_count("b")) == (1, 2)
    assert [(p.nodes, p.factors, p.product, p.share) for p in e.paths("b")] == [
        (["b", "v2", "y"], [1.0, 5.0], 5.0, 0.625),
        (["b", "v1", "y"], [1.0, 3.0], 3.0, 0.375),
    ]
    assert [own for _, own in e.uses("b")] == [3.0, 5.0]


@pytest.mark.parametrize(("x", "y"), [(1.0, 2.0), (-0.5, 3.25), (7.0, -7.0)])
def test_square_of_a_sum(x: float, y: float) -> None:
    a, b = number(x), number(y)
    e = fastbp.explain((a + b) ** 2, [a, b])
    assert [e.derivative("x1"), e.derivative("x2")] == [2 * (x + y)] * 2


def test_price_with_tax() -> None:
    price, count, tax = number(100.0), number(2.0), number(1.1)
    e = fastbp.explain(price * count * tax, {"price": price, "count": count, "tax": tax})
    assert [e.derivative(name) for name in e.wrt] == [2.0 * 1.1, 100.0 * 1.1, 200.0]


def test_two_fruits_with_tax() -> None:
    apple, apples, orange, oranges, tax = (number(v) for v in (100.0, 2.0, 150.0, 3.0, 1.1))
    e = fastbp.explain((apple * apples + orange * oranges) * tax, [apple, apples, orange, oranges, tax])
    assert [e.derivative(x) for x in (apple, apples, orange, oranges, tax)] == [
        *(1.1 * 2.0, 1.1 * 100.0, 1.1 * 3.0, 1.1 * 150.0),
        650.0,
    ]


def test_product_with_an_upstream_derivative() -> None:
    """x * y at (10, 5) with 1.3 from above: 6.5 to x, 13 to y."""
    x, y = number(10.0), number(5.0)
    e = fastbp.explain(x * y, {"x": x, "y": y}, grad_output=1.3)
    assert (e.derivative("x"), e.derivative("y")) == (6.5, 13.0)
    assert [path.product for path in e.paths("x")] == [6.5]
    assert "5 * 1.3 from above" in str(e)


def test_one_variable_with_three_edges() -> None:
    """y = x exp(x * x): one variable, three uses, three paths, whose products are added."""
    x = number(1.0)
    e = fastbp.explain(x * fastbp.exp(x * x), {"x": x})
    assert e.graph.number(e.graph.root) == 2.718281828459045
    assert e.derivative() == 8.154845485377136
    assert [own for _, own in e.uses()] == [2.718281828459045] * 3
    assert sorted(path.use for path in e.paths()) == [1, 2, 3]
    assert "x is used 3 times" in str(e) and "x(3) -> y" in str(e)


def test_logarithm_product_and_sine() -> None:
    x1, x2 = number(2.0), number(5.0)
    e = fastbp.explain(fastbp.log(x1) + x1 * x2 - fastbp.sin(x2))
    assert e.graph.number(e.graph.root) == 11.652071455223084
    assert (e.derivative("x1"), e.derivative("x2")) == (5.5, 1.7163378145367738)


def test_sigmoid_neuron() -> None:
    w0, w1, w2, x0, x1 = (number(v) for v in (2.0, -3.0, -3.0, -1.0, -2.0))
    e = fastbp.explain(fastbp.sigmoid(w0 * x0 + w1 * x1 + w2), [w0, w1, w2])
    slope = 0.7310585786300049 * (1.0 - 0.7310585786300049)
    assert [e.derivative(w) for w in (w0, w1, w2)] == [-slope, -2.0 * slope, slope]


# ---- traces --------------------------------------------------------------------------------------------------------


def test_the_traces_are_those_of_the_survey() -> None:
    """Baydin et al. (2018), tables 2 and 3, for ln x1 + x1 x2 - sin x2 at (2, 5)."""
    x1, x2 = number(2.0), number(5.0)
    e = fastbp.explain(fastbp.log(x1) + x1 * x2 - fastbp.sin(x2))
    forward = e.forward_trace("x1")
    assert [(row.name, row.value) for row in forward.rows] == [
        *(("x1", 1.0), ("v1", 0.5), ("v2", 5.0), ("v3", 5.5)),
        ("y", 5.5),
    ]
    reverse = e.reverse_trace()
    found = {row.name: row.value for row in reverse.rows}
    assert [row.name for row in reverse.rows] == ["y", "v4", "v3", "v2", "v1", "x2", "x1"]
    assert found == {"y": 1, "v4": -1, "v3": 1, "v2": 1, "v1": 1, "x2": 2 - math.cos(5.0), "x1": 5.5}
    assert reverse.rows[-1].derivative == "dy/dx1"
    assert sorted(reverse.rows[-1].terms) == [(1.0, 0.5), (1.0, 5.0)]
    assert str(reverse).splitlines()[-1] == "  dy/dx1   = 1 * 5 + 1 * 0.5           = 5.5"


def test_costs_show_why_reverse_mode_wins_for_one_output() -> None:
    """n factors: each edge of the chain multiplies once in reverse mode, once an input behind it in forward mode."""
    n = 6
    xs = [number(float(i + 2)) for i in range(n)]
    y = xs[0]
    for x in xs[1:]:
        y = y * x
    costs = fastbp.explain(y, xs).costs()
    assert costs.sweeps == (n, 1)
    assert costs.reverse == 2 * (n - 1)  # two inputs to each of the n - 1 products
    assert costs.forward == {f"x{i + 1}": n - max(i, 1) for i in range(n)}  # products from the i-th input on


def test_sums_cost_no_multiplications_but_products_with_one_do() -> None:
    x = number(3.0)
    assert fastbp.explain(x + x - 2, x).costs().reverse == 0
    assert fastbp.explain(x * 1.0, x).costs().reverse == 1
    trace = fastbp.explain(x * 1.0 + x, x).forward_trace()
    assert (trace.multiplications, trace.steps) == (1, 3)


def test_forward_mode_wins_for_one_input_and_many_outputs() -> None:
    x = number(0.5)
    y = fastbp.cat([(x * k).reshape(1) for k in (2.0, 3.0, 5.0, 7.0)])
    costs = fastbp.explain(y, x).costs()
    assert costs.sweeps == (1, 4)
    assert 0 < costs.forward["x"] < costs.reverse


# ---- paths ---------------------------------------------------------------------------------------------------------


def test_a_chain_of_diamonds_has_two_to_the_n_paths() -> None:
    """200 diamonds: all paths are counted, the largest are listed."""
    x = number(1.0)
    y = x
    for _ in range(200):
        y = y * 0.5 + y * 0.25
    e = fastbp.explain(y, x, max_paths=3)
    assert e.path_count() == 2**200
    assert [path.product for path in e.paths()] == [0.5**200, 0.5**199 * 0.25, 0.5**199 * 0.25]
    assert math.isclose(e.derivative(), 0.75**200, rel_tol=1e-12)  # 200 roundings
    assert "about 1.607e+60 paths; x is used 2 times; the 3 largest:" in str(e)


def all_paths(e: fastbp.explanation.explained.Explanation, name: str) -> list[float]:
    """Every path's product, by plain recursion."""
    graph, x = e.graph, e.wrt[name].index

    def products(i: int) -> list[float]:
        if i == x:
            return [1.0]
        slopes = graph.slopes[i] or ()
        return [s * p for s, k in zip(slopes, graph.inputs[i], strict=False) if s is not None for p in products(k)]

    return products(graph.root)


UNARY: list[Callable[[Tensor], Tensor]] = [fastbp.sin, fastbp.tanh, fastbp.sigmoid, fastbp.square, fastbp.neg]
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [fastbp.add, fastbp.mul, fastbp.sub, fastbp.div]


def random_graph(seed: int, ops: int) -> tuple[Tensor, list[Tensor]]:
    """A graph of numbers over three inputs, all of which lead to the root."""
    draw = random.Random(seed)
    inputs = [number(draw.uniform(0.5, 1.5)) for _ in range(3)]
    nodes = list(inputs)
    for _ in range(ops):
        if draw.random() < 0.4:
            nodes.append(draw.choice(UNARY)(draw.choice(nodes)))
        else:
            one, other = draw.choice(nodes), draw.choice(nodes)
            function = draw.choice(BINARY)
            nodes.append(function(one, fastbp.sigmoid(other) + 0.5 if function is fastbp.div else other))
    return nodes[-1] + inputs[0] * inputs[1] * inputs[2], inputs


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), ops=st.integers(1, 12))
def test_the_sum_over_paths_is_the_gradient_on_random_graphs(seed: int, ops: int) -> None:
    y, inputs = random_graph(seed, ops)
    gradients = fastbp.autograd.grad(y, inputs, retain_graph=True)
    e = fastbp.explain(y, inputs, max_paths=5)
    for name, gradient in zip(e.wrt, gradients, strict=True):
        products = all_paths(e, name)
        # Sums of the same terms in another order: some roundings of the largest term each.
        bound = 1e-13 * len(products) * max(map(abs, products), default=0.0) + 1e-300
        assert abs(sum(products) - gradient.item()) <= bound
        # The rule of div divides, where an explanation multiplies by the local derivative 1 / b.
        assert abs(e.derivative(name) - gradient.item()) <= bound
        assert e.path_count(name) == len(products)
        listed = [abs(path.product) for path in e.paths(name)]
        best = sorted(map(abs, products), reverse=True)[:5]
        np.testing.assert_allclose(listed, best, rtol=1e-12)  # products in another order
        uses = [own for _, own in e.uses(name)]
        assert abs(sum(uses) - gradient.item()) <= bound
        trace = e.forward_trace(name)
        assert abs(trace.rows[-1].value - gradient.item()) <= bound


def test_intermediate_results_can_be_inputs() -> None:
    x = number(2.0)
    h = x * x
    e = fastbp.explain(h * h + x, {"h": h, "x": x})
    assert (e.derivative("h"), e.derivative("x")) == (8.0, 33.0)
    assert [path.nodes for path in e.paths("h")] == [["h", "v1", "y"], ["h", "v1", "y"]]
    alone = fastbp.explain(h * h + x, {"h": h})
    assert (alone.derivative("h"), alone.path_count("h")) == (8.0, 2)


def test_zero_and_nan_factors_are_ranked_last_and_first() -> None:
    x = number(0.0)
    e = fastbp.explain(x * x + fastbp.sqrt(x) * x + 3 * x, x, max_paths=10)
    products = [path.product for path in e.paths()]
    assert len(products) == e.path_count() == 5
    # sqrt'(0) is infinite, times 0 is no number; then the plain 3; then zeros.
    assert 3.0 in products and products[-1] == 0.0


# ---- tensors -------------------------------------------------------------------------------------------------------


def test_paths_of_tensors_add_up_to_the_gradient() -> None:
    fastbp.manual_seed(1)
    x = fastbp.randn(3, 4, dtype=fastbp.float64, requires_grad=True)
    w = fastbp.randn(4, 4, dtype=fastbp.float64, requires_grad=True)
    y = (fastbp.tanh(x @ w) * x + (x @ w @ w)).sum()
    expected = fastbp.autograd.grad(y, [x, w], retain_graph=True)
    e = fastbp.explain(y, {"x": x, "w": w})
    for name, gradient in zip(("x", "w"), expected, strict=True):
        paths = e.paths(name)
        assert len(paths) == e.path_count(name) == 3
        total = sum(path.product for path in paths)
        np.testing.assert_allclose(total, gradient.numpy(), rtol=1e-12, atol=1e-12)  # another order of sums
        np.testing.assert_allclose(e.derivative(name).numpy(), gradient.numpy(), rtol=1e-12, atol=1e-12)
        assert math.isclose(sum(path.share for path in paths), 1.0, rel_tol=1e-12)
        sizes = [float(np.linalg.norm(path.product)) for path in paths]
        assert sizes == sorted(sizes, reverse=True)
        uses = sum(own.numpy() for _, own in e.uses(name))
        np.testing.assert_allclose(uses, gradient.numpy(), rtol=1e-12, atol=1e-12)


def test_a_tensor_without_cotangent_has_its_jacobian_as_derivative() -> None:
    x = fastbp.tensor([0.5, 1.5], dtype=fastbp.float64, requires_grad=True)
    y = fastbp.cat([fastbp.sin(x), x.sum().reshape(1) * x])
    e = fastbp.explain(y, {"x": x})
    c = np.cos([0.5, 1.5])
    expected = [[c[0], 0], [0, c[1]], [0.5 + 2.0, 0.5], [1.5, 1.5 + 2.0]]
    np.testing.assert_allclose(e.derivative().numpy(), expected, rtol=1e-15)
    np.testing.assert_allclose(sum(path.product for path in e.paths()), expected, rtol=1e-15)
    with pytest.raises(RuntimeError, match=r"y has shape \(4,\); pass grad_output="):
        e.reverse_trace()
    given = fastbp.explain(y, {"x": x}, grad_output=fastbp.tensor([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(given.derivative().numpy(), np.array([1.0, 2, 3, 4]) @ expected, rtol=1e-15)


def test_too_many_paths_of_tensors_are_listed_in_order_and_that_is_said() -> None:
    x = fastbp.tensor([1.0, 2.0], requires_grad=True)
    y = x
    for _ in range(12):
        y = fastbp.sin(y) + fastbp.cos(y)
    e = fastbp.explain(y.sum(), {"x": x}, max_paths=4)
    assert e.path_count() == 2**12
    assert len(e.paths()) == 4 and not e.lists_largest()
    assert "the 4 first, not the largest" in str(e)


# ---- what explaining needs, and what it leaves alone ----------------------------------------------------------------


def test_explaining_changes_nothing() -> None:
    x = number(0.7)
    y = fastbp.sin(x) * x
    str(fastbp.explain(y))
    assert x.grad is None
    y.backward()
    assert x.grad.item() == math.cos(0.7) * 0.7 + math.sin(0.7)


def test_values_are_computed_again_where_they_were_not_kept() -> None:
    x = number(0.5)
    y = (x + 1) + (x + 2)  # neither the sums nor the numbers 1 and 2 are kept
    e = fastbp.explain(y, {"x": x})
    assert [node.name for node in e.nodes] == ["x", "v1", "v2", "y"]
    assert [e.graph.number(node.index) for node in e.nodes] == [0.5, None, None, 4.0]
    with fastbp.autograd.keep_values():
        y = (x + 1) + (x + 2)
    e = fastbp.explain(y, {"x": x})
    assert [node.value.item() for node in e.nodes] == [0.5, 1.5, 2.5, 4.0]
    h = fastbp.sin(x)
    e = fastbp.explain(fastbp.cos(h) + h, {"x": x})
    assert e.nodes[2].value.item() == math.cos(math.sin(0.5))


def test_values_that_backward_freed_are_computed_again_from_inputs() -> None:
    x, w = number(0.5), number(2.0)
    y = fastbp.sin(x * w) * x
    y.backward()
    e = fastbp.explain(y, {"x": x, "w": w})
    assert e.derivative("x") == pytest.approx(x.grad.item(), rel=1e-15)  # the values are made by the same kernels
    assert e.derivative("w") == pytest.approx(w.grad.item(), rel=1e-15)


def test_values_that_backward_freed_for_good_are_an_error_with_the_mend() -> None:
    x = number(0.5)
    y = fastbp.sin(x * number(2.0)) * x  # the factor 2 is held by the graph alone
    y.backward()
    with pytest.raises(RuntimeError, match=r"a backward\(\) has freed values.* mul .*retain_graph=True"):
        fastbp.explain(y, x)


def test_values_that_an_optimizer_changed_are_an_error_with_the_mend() -> None:
    w = number(0.5)
    y = fastbp.sin(w * w)
    y.backward(retain_graph=True)
    fastbp.optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"an in-place operation has changed values.*optimizer's step"):
        fastbp.explain(y, w)


def test_results_of_compiled_functions() -> None:
    function = fastbp.compile(lambda x, w: (fastbp.sin(x * w).sum(), x * w))
    x = fastbp.tensor([1.0, 2.0], dtype=fastbp.float64, requires_grad=True)
    w = fastbp.tensor([0.5, 0.7], dtype=fastbp.float64, requires_grad=True)
    one, other = function(x, w)
    y = one * other.sum()
    e = fastbp.explain(y, {"x": x, "w": w})
    assert "sin" in [node.op for node in e.nodes]
    for name, gradient in zip(("x", "w"), fastbp.autograd.grad(y, [x, w]), strict=True):
        np.testing.assert_allclose(e.derivative(name).numpy(), gradient.numpy(), rtol=1e-14)  # another order of sums
    with pytest.raises(RuntimeError, match=r"a backward\(\) has freed what a compiled function saved"):
        fastbp.explain(y, x)


def test_a_function_under_capture_is_refused() -> None:
    def function(x: Tensor) -> Tensor:
        y = x * x
        fastbp.explain(y, x)
        return y

    with pytest.raises(RuntimeError, match="being compiled"):
        fastbp.compile(function)(number(1.0))


def test_a_record_keeps_no_values_alive() -> None:
    x = fastbp.zeros(1 << 20, requires_grad=True)
    gc.collect()
    before = fastbp.memory_statistics()["live_bytes"]
    h = x + 1.0
    y = h.sum()
    e = fastbp.explain(y, {"x": x})
    del h
    assert fastbp.memory_statistics()["live_bytes"] - before < 1 << 20
    assert len(e.nodes) == 3


@pytest.mark.slow
def test_a_graph_of_200000_nodes_is_explained() -> None:
    x = number(0.7)
    y = x
    for _ in range(100_000):
        y = fastbp.sin(y) + x
    e = fastbp.explain(y, x)
    assert len(e.nodes) == 200_001
    assert e.path_count() == 100_001
    assert "not drawn" in e.to_dot()
    assert len(e.text()) < 50_000


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_a_mend() -> None:
    x = number(1.0)
    y = x * x
    with pytest.raises(TypeError, match="y must be a Tensor, got float"):
        fastbp.explain(1.0)
    with pytest.raises(RuntimeError, match=r"does not require grad.*requires_grad=True"):
        fastbp.explain(fastbp.ones(2) * 2)
    with pytest.raises(RuntimeError, match="does not have a grad_fn"):
        fastbp.explain(x)
    with pytest.raises(RuntimeError, match=r"wrt\['z'\], of shape \(\), is not in the graph"):
        fastbp.explain(y, {"z": number(2.0)})
    with pytest.raises(RuntimeError, match=r"wrt\[0\].*does not require grad"):
        fastbp.explain(x * fastbp.ones(()), [fastbp.ones(())])
    with pytest.raises(TypeError, match="wrt must be a Tensor, or a list or dict"):
        fastbp.explain(y, 3)
    with pytest.raises(TypeError, match=r"wrt\[1\] must be a Tensor"):
        fastbp.explain(y, [x, 3])
    with pytest.raises(ValueError, match="wrt is empty"):
        fastbp.explain(y, [])
    with pytest.raises(TypeError, match="names must be a dict or a Module"):
        fastbp.explain(y, x, names=["x"])
    with pytest.raises(TypeError, match="names maps strings to Tensors"):
        fastbp.explain(y, x, names={3: x})
    with pytest.raises(ValueError, match=r"'z', of shape .*, is not in the graph"):
        fastbp.explain(y, x, names={"z": number(1.0)})
    with pytest.raises(ValueError, match="two tensors are called 'a'"):
        fastbp.explain(y, {"a": x}, names={y: "a"})
    with pytest.raises(ValueError, match="max_paths must be a positive integer"):
        fastbp.explain(y, x, max_paths=0)
    with pytest.raises(RuntimeError, match=r"grad_output has shape \(2,\), y has shape \(\)"):
        fastbp.explain(y, x, grad_output=[1.0, 2.0])
    with pytest.raises(TypeError, match="model must be a Module"):
        fastbp.explain(y, x, model=3)
    e = fastbp.explain(x * number(2.0))
    with pytest.raises(ValueError, match="say which input: one of x1, x2"):
        e.derivative()
    with pytest.raises(KeyError, match="no input is called 'q'"):
        e.derivative("q")
    with pytest.raises(KeyError, match="not among the inputs"):
        e.derivative(number(1.0))


class ProductAndSum(fastbp.autograd.Function):
    """Two outputs of one rule."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, b)
        return a * b, a + 2 * b

    @staticmethod
    def backward(ctx: Any, by_product: Tensor, by_sum: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return by_product * b + by_sum, by_product * a + 2 * by_sum


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_function_with_several_outputs(shape: tuple[int, ...]) -> None:
    a, b = (fastbp.full(shape, x, dtype=fastbp.float64, requires_grad=True) for x in (2.0, 5.0))
    product, total = ProductAndSum.apply(a, b)
    y = (product * total).sum()
    told = fastbp.explain(y, {"a": a, "b": b})
    # y = ab (a + 2b), so dy/da = 2ab + 2bb and dy/db = aa + 4ab; one path through either output.
    for name, wanted in (("a", 70.0), ("b", 44.0)):
        assert np.array_equal(np.asarray(told.derivative(name)).reshape(shape), np.full(shape, wanted))
        assert told.path_count(name) == 2
    assert "the sum over 2 paths" in str(told)
    assert told.to_dot()
    y.backward()
    with pytest.raises(RuntimeError):
        str(fastbp.explain(y, {"a": a, "b": b}))


def test_function_on_the_result_of_a_compiled_function_is_refused_with_a_mend() -> None:
    a = number(2.0)
    product, _ = ProductAndSum.apply(fastbp.compile(fastbp.sin)(a), a)
    with pytest.raises(RuntimeError, match=r"call the function without fastbp\.compile"):
        fastbp.explain(product, a)
    assert fastbp.explain(ProductAndSum.apply(a.sin(), a)[0], a).path_count() == 2
