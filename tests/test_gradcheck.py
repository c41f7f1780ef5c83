"""gradcheck and gradgradcheck accept right derivatives, object to planted wrong ones, refuse what they cannot judge."""

from __future__ import annotations

from typing import Any

import pytest

import fastbp
from fastbp import Tensor, autograd
from fastbp.autograd import GradcheckError, gradcheck, gradgradcheck


def reals(*shape: int) -> Tensor:
    return (fastbp.rand(*shape, dtype=fastbp.float64) + 0.5).requires_grad_()


FAST = pytest.mark.parametrize("fast_mode", [False, True])


@FAST
@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x.exp() * y,
        lambda x, y: (x @ y.T, x.sum(), x.argmax()),
        lambda x, y: (x * y, x.floor(), y.detach() > 1),
        lambda x, y: x[:, 1:] * y[:, :2].T.reshape(2, 2),
    ],
)
def test_right_derivatives_pass(function: Any, fast_mode: bool) -> None:
    inputs = (reals(2, 3), reals(2, 3))
    assert gradcheck(function, inputs, fast_mode=fast_mode, check_forward_ad=True)
    assert gradgradcheck(lambda x, y: function(x, y)[0] * x.sum(), inputs, fast_mode=fast_mode, check_fwd_over_rev=True)


def planted(backward: Any = None, jvp: Any = None) -> Any:
    """The square, with wrong rules where they are given."""

    class Square(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * g if backward is None else backward(x, g)

        @staticmethod
        def jvp(ctx: Any, t: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * t if jvp is None else jvp(x, t)

    return Square.apply


@FAST
def test_a_right_function_passes(fast_mode: bool) -> None:
    assert gradcheck(planted(), reals(3), fast_mode=fast_mode, check_forward_ad=True)
    assert gradgradcheck(planted(), reals(3), fast_mode=fast_mode)


FAULTS = {
    "factor": (lambda x, g: 2.01 * x * g, "Jacobian mismatch for output 0 with respect to input 0,\nnumerical:"),
    "sign": (lambda x, g: -2 * x * g, "Jacobian mismatch"),
    "none": (lambda x, g: None, "Jacobian mismatch"),
    "elsewhere": (lambda x, g: 2 * x * g.flip(0), "Jacobian mismatch"),
}


@FAST
@pytest.mark.parametrize("name", FAULTS)
def test_wrong_backwards_are_found(name: str, fast_mode: bool) -> None:
    fault, message = FAULTS[name]
    with pytest.raises(GradcheckError, match=message):
        gradcheck(planted(fault), reals(3), fast_mode=fast_mode)
    assert gradcheck(planted(fault), reals(3), fast_mode=fast_mode, raise_exception=False) is False


@FAST
def test_wrong_tangents_are_found(fast_mode: bool) -> None:
    function = planted(jvp=lambda x, t: 3 * x * t)
    assert gradcheck(function, reals(3), fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="Jacobian computed with forward mode mismatch for output 0 with"):
        gradcheck(function, reals(3), fast_mode=fast_mode, check_forward_ad=True)


@FAST
def test_wrong_second_derivatives_are_found(fast_mode: bool) -> None:
    function = planted(lambda x, g: 2 * x.detach() * g)
    assert gradcheck(function, reals(3), fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradgradcheck(function, reals(3), fast_mode=fast_mode)


def test_a_backward_that_changes_from_sweep_to_sweep_is_found() -> None:
    drift = iter(range(1000))
    function = planted(lambda x, g: 2 * x * g + g * 1e-9 * next(drift))
    with pytest.raises(GradcheckError, match="Backward is not reentrant"):
        gradcheck(function, reals(3))
    assert gradcheck(function, reals(3), nondet_tol=1e-5)


def test_a_backward_that_is_no_multiple_is_found() -> None:
    with pytest.raises(GradcheckError, match="backward not multiplied by grad_output"):
        gradcheck(planted(lambda x, g: 2 * x * g + 1e-7), reals(3))


def test_a_gradient_that_is_not_recorded_is_found() -> None:
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradcheck(lambda x: x.detach() * 2, reals(3))


def test_closures_see_the_moved_input_and_get_it_back() -> None:
    x = reals(3)
    before = x.tolist()
    assert gradcheck(lambda y: x * y, (x,))
    assert x.tolist() == before


def test_inputs_that_are_strided_empty_scalar_or_no_tensors() -> None:
    base = reals(3, 4)
    assert gradcheck(lambda x, k: x**k, (base.detach().T[1:].requires_grad_(), 3))
    assert gradcheck(lambda x: x * 2, fastbp.zeros(0, 3, dtype=fastbp.float64).requires_grad_())
    assert gradcheck(lambda x: x.exp(), fastbp.tensor(0.5, dtype=fastbp.float64).requires_grad_())
    assert gradgradcheck(lambda x: x**3, base, gen_non_contig_grad_outputs=True)
    assert gradgradcheck(lambda x: x**3, base, fastbp.ones_like(base).requires_grad_())


def test_what_cannot_be_judged() -> None:
    x = reals(3)
    with pytest.raises(ValueError, match="gradcheck expects at least one input tensor to require gradient"):
        gradcheck(lambda x: x * 2, (x.detach(),))
    with pytest.raises(ValueError, match="at least one of check_forward_ad or check_backward_ad"):
        gradcheck(lambda x: x * 2, (x,), check_backward_ad=False)
    with pytest.raises(ValueError, match="returns no floating tensor"):
        gradcheck(lambda x: 5, (x,))
    with pytest.raises(ValueError, match="no output depends on an input"):
        gradgradcheck(lambda x: x.detach() * 2, (x,))
    with pytest.raises(RuntimeError, match="The 0th input has a dimension with stride 0"):
        gradcheck(lambda x: x * 2, (x.detach().expand(2, 3).requires_grad_(),))
    with pytest.warns(UserWarning, match="Input #0 requires gradient and is not a double precision floating point"):
        gradcheck(lambda x: x * 2, (fastbp.ones(2, requires_grad=True),), eps=1e-2)
