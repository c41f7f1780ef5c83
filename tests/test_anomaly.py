"""Anomaly mode names the operation and the user's line that first made a NaN or an infinity, and nothing else."""

from __future__ import annotations

import linecache
import re
import tracemalloc
from typing import Any

import pytest

import fastbp
from fastbp import Tensor, autograd, func

INF = float("inf")


@pytest.fixture(autouse=True)
def mode_is_left_off() -> Any:
    yield
    assert not autograd.is_anomaly_enabled()


def leaf(*values: float) -> Tensor:
    return fastbp.tensor(list(values), dtype=fastbp.float32, requires_grad=True)


def reported(error: pytest.ExceptionInfo[RuntimeError]) -> tuple[str, str]:
    """The message, and the source text of the line that it names."""
    message = str(error.value)
    place = re.search(r" at (\S+):(\d+), `(.*)`", message)
    assert place is not None and place[1] == __file__, message
    text = linecache.getline(place[1], int(place[2])).strip()
    assert text == place[3]
    return message, text


FORWARD = [
    ("log", lambda x: (x - 2).log(), "nan", "(2,) float32"),
    ("div", lambda x: x / 0, "inf", "(2,) float32, () float32"),
    ("exp", lambda x: (x * 1000).exp(), "inf", "(2,) float32"),
    ("log", lambda x: (x.detach() - 1).log_(), "-inf", "(2,) float32"),
    ("matmul", lambda x: (x * 1e38) @ (x * 1e38), "inf", "(2,) float32, (2,) float32"),
    ("mean", lambda x: x[:0].mean(), "nan", "(0,) float32"),
    ("sqrt", lambda x: (-x).expand(3, 2).T.sqrt(), "nan", "(2, 3) float32"),
]


@pytest.mark.parametrize(("op", "function", "kind", "inputs"), FORWARD, ids=[f"{row[0]} {row[2]}" for row in FORWARD])
def test_forward(op: str, function: Any, kind: str, inputs: str) -> None:
    x = leaf(1, 2)
    function(x)
    with autograd.detect_anomaly(), pytest.raises(RuntimeError) as error:
        function(x)
    message, text = reported(error)
    assert message.startswith(f"anomaly: {op} returned {kind} values (the first is element ")
    assert f"from finite inputs {inputs} at " in message and "lambda x: " in text


QUIET = [
    lambda x: fastbp.tensor(INF) + x,
    lambda x: fastbp.full((2,), INF) * 0,
    lambda x: x.clamp(min=0, max=INF),
    lambda x: x.masked_fill(x > 1, -INF).softmax(0),
    lambda x: fastbp.where(x > 1, x, fastbp.tensor(float("nan"))),
    lambda x: fastbp.zeros(2).fill_(INF),
    lambda x: fastbp.full((2,), INF)[1:].reshape(1, 1).T,
    lambda x: (x.detach() * 1).copy_(fastbp.full((2,), INF)),
    lambda x: x.sum().backward(),
    lambda x: fastbp.full((3,), INF).requires_grad_().sum().backward(),
]


@pytest.mark.parametrize("number", range(len(QUIET)))
def test_what_is_told_to_be_infinite_is_not_reported(number: int) -> None:
    with autograd.detect_anomaly():
        QUIET[number](leaf(1, 2))


def test_backward_names_the_line_of_the_forward() -> None:
    x = leaf(0, 1)
    with autograd.detect_anomaly():
        root = x.sqrt()
        with pytest.raises(RuntimeError) as error:
            root.sum().backward()
    message, text = reported(error)
    begin = "anomaly: the derivative of Sqrt, Function 'SqrtBackward0', returned inf values (the first is element 0 of "
    assert message.startswith(begin)
    assert text == "root = x.sqrt()" and "inputs were (2,) float32" in message


@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_of_a_graph_from_outside_says_so(create_graph: bool) -> None:
    y = leaf(0, 1).sqrt().sum()
    message = r"derivative of Sqrt, .*ran outside of detect_anomaly"
    with autograd.detect_anomaly(), pytest.raises(RuntimeError, match=message):
        y.backward(create_graph=create_graph)


def test_a_value_that_was_not_finite_before_is_said() -> None:
    y = (leaf(100, 1)).exp().sum()
    with autograd.detect_anomaly(), pytest.raises(RuntimeError, match="a value that it saved is not finite already"):
        y.backward()


def test_the_first_operation_is_named_not_what_follows() -> None:
    x = leaf(0, 1)
    with autograd.detect_anomaly():
        y = (x * 2).sqrt().exp().sum() * 3
        with pytest.raises(RuntimeError, match="derivative of Sqrt"):
            y.backward()


def test_lines_may_be_noted_without_looking() -> None:
    x = leaf(0, 1)
    with autograd.detect_anomaly(check_nan=False):
        assert autograd.is_anomaly_enabled()
        y = x.log()
        z = x.sqrt()
    assert y.tolist()[0] == -INF
    with autograd.detect_anomaly(), pytest.raises(RuntimeError) as error:
        z.sum().backward()
    assert reported(error)[1] == "z = x.sqrt()"


def test_custom_functions_and_checkpoints() -> None:
    class Bad(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g / 0

    class Worse(Bad):
        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return fastbp.full((2,), INF)

    x = leaf(0, 1)
    with autograd.detect_anomaly():
        with pytest.raises(RuntimeError) as error:
            Bad.apply(x).sum().backward()
        assert reported(error)[1] == "return g / 0"
        with pytest.raises(RuntimeError, match="derivative of Worse") as error:
            Worse.apply(x).sum().backward()
        assert "Worse.apply(x)" in reported(error)[1]
        y = fastbp.utils.checkpoint.checkpoint(lambda x: x.sqrt() * 2, x)
        with pytest.raises(RuntimeError, match="derivative of Sqrt"):
            y.sum().backward()


def test_compiled_functions_run_eagerly_meanwhile() -> None:
    calls: list[int] = []

    @fastbp.compile
    def function(x: Tensor) -> Tensor:
        calls.append(1)
        return x.log()

    x = fastbp.tensor([0.0, 1.0])
    assert function(x).tolist() == [-INF, 0]
    assert function(x).tolist() == [-INF, 0] and len(calls) == 1
    with autograd.detect_anomaly(), pytest.raises(RuntimeError) as error:
        function(x)
    assert reported(error)[1] == "return x.log()" and len(calls) == 2


def test_switching() -> None:
    autograd.set_detect_anomaly(True)
    assert autograd.is_anomaly_enabled()
    with autograd.set_detect_anomaly(False):
        fastbp.tensor(0.0).log()
    assert autograd.is_anomaly_enabled()
    autograd.set_detect_anomaly(False)
    with pytest.raises(KeyError), autograd.detect_anomaly():
        raise KeyError
    for call in (autograd.set_detect_anomaly, autograd.detect_anomaly):
        with pytest.raises(TypeError, match="bool"):
            call("yes")  # type: ignore[arg-type]


def test_a_failed_operation_leaves_its_operands_as_they_were() -> None:
    x = leaf(0, 1)
    with autograd.detect_anomaly():
        with pytest.raises(RuntimeError):
            x.log()
        y = (x + 1).log().sum()
        y.backward()
    assert x.grad.tolist() == [1, 0.5]


def blows_up(z: Tensor) -> Tensor:
    """Finite, and its derivative, in either mode, is not."""
    return (z - z).sqrt().sum()


class Doubled(autograd.Function):
    """Twice its argument, with a forward rule that returns an infinity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return fastbp.full((3,), INF)


ONE, ROWS = fastbp.ones(3), fastbp.ones(2, 3)
TANGENTS = {
    "jvp": ("Sqrt", lambda: func.jvp(blows_up, (ONE,), (ONE,))),
    "jacfwd": ("Sqrt", lambda: func.jacfwd(blows_up)(ONE)),
    "vmap of jvp": ("Sqrt", lambda: func.vmap(lambda row: func.jvp(blows_up, (row,), (row,))[1])(ROWS)),
    "jvp of jvp": (
        "Pow",
        lambda: func.jvp(lambda z: func.jvp(lambda q: (q - 1) ** 1.5, (z,), (ONE,))[1], (ONE,), (ONE,)),
    ),
    "hessian": ("Pow", lambda: func.hessian(lambda z: ((z - 1).abs() ** 1.5).sum())(ONE)),
    "custom rule": ("Doubled", lambda: func.jvp(Doubled.apply, (ONE,), (ONE,))),
}


@pytest.mark.parametrize("case", TANGENTS)
def test_forward_mode(case: str) -> None:
    name, differentiate = TANGENTS[case]
    differentiate()
    with autograd.detect_anomaly(), pytest.raises(RuntimeError) as error:
        differentiate()
    message, _ = reported(error)
    assert f"the derivative of {name}, " in message and "from finite tangents of its inputs" in message


def test_forward_mode_is_quiet_where_tangents_are_not_finite_already() -> None:
    with autograd.detect_anomaly():
        assert func.jvp(fastbp.sin, (ONE,), (fastbp.full((3,), INF),))[1].isinf().all()
        func.hessian(lambda z: (z.sin() * z.max()).sum())(ONE)


BATCHES = {
    "vmap of grad": lambda: func.vmap(func.grad(blows_up))(ROWS),
    "jacrev": lambda: func.jacrev(lambda z: (z - z).sqrt())(ONE),
    "is_grads_batched": lambda: (
        lambda x: autograd.grad((x * 0).sqrt(), x, grad_outputs=fastbp.eye(2), is_grads_batched=True)
    )(leaf(1, 2)),
}


@pytest.mark.parametrize("case", BATCHES)
def test_backward_of_a_whole_batch(case: str) -> None:
    BATCHES[case]()
    with autograd.detect_anomaly(), pytest.raises(RuntimeError) as error:
        BATCHES[case]()
    message, _ = reported(error)
    assert "the derivative of Sqrt, " in message and "returned inf values" in message
    assert "from a finite gradient" in message


def test_lines_are_forgotten_with_their_nodes() -> None:
    x = leaf(1, 2)

    def allocated(repetitions: int) -> int:
        tracemalloc.start()
        with autograd.detect_anomaly():
            for _ in range(repetitions):
                (x * x).sum().backward()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size

    allocated(10)
    # Two nodes a repetition; a line that stayed would take over 100 bytes each, 200 kB in all.
    assert allocated(1000) < 20_000
