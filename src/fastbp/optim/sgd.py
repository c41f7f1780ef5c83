"""SGD: gradient descent, with momentum and weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .optimizer import Bucket, Optimizer, refuse_differentiable, require_at_least_zero

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._core import Tensor

_sgd_step = _core.sgd_step


class SGD(Optimizer):
    """Stochastic gradient descent.

    With g the gradient plus ``weight_decay`` times the parameter, and b the momentum buffer (g itself at first)::

        b = momentum * b + (1 - dampening) * g
        parameter -= lr * (g + momentum * b  if nesterov else  b)

    Parameters
    ----------
    params : iterable
        As in `Optimizer`.
    lr : float, optional
        Learning rate. Default: 1e-3.
    momentum, dampening, weight_decay : float, optional
        Default: 0.
    nesterov : bool, optional
        Needs a momentum and no dampening. Default: False.
    maximize : bool, optional
        Whether to ascend instead. Default: False.
    foreach, fused : bool, optional
        Accepted for PyTorch's sake; no effect.
    differentiable : bool, optional
        Only False is supported.

    Raises
    ------
    ValueError
        For options outside their domain.

    Examples
    --------
    >>> model = fastbp.nn.Linear(3, 1)
    >>> optimizer = fastbp.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> optimizer.zero_grad()
    >>> model(fastbp.ones(5, 3)).square().mean().backward()
    >>> optimizer.step()
    """

    _layout_option = "momentum"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse_differentiable(differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        require_at_least_zero("learning rate", group["lr"])
        require_at_least_zero("momentum value", group["momentum"])
        require_at_least_zero("weight_decay value", group["weight_decay"])
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def _gather(self, group: dict[str, Any], params: list[Tensor]) -> Bucket:
        if group["momentum"] == 0:
            # No entry is made in the state, as in PyTorch.
            return Bucket(params, [], (), ())
        states = [self.state[parameter] for parameter in params]
        # Fresh ones are kept out of the state until the step that fills them has succeeded.
        found = [state.get("momentum_buffer") for state in states]
        buffers = [_core.zeros_like(p) if one is None else one for p, one in zip(params, found, strict=True)]
        return Bucket(params, states, ("momentum_buffer",), (buffers,))

    def _update(self, group: dict[str, Any], bucket: Bucket, gradients: list[Tensor]) -> None:
        _sgd_step(
            bucket.params,
            gradients,
            bucket.buffers[0] if bucket.buffers else None,
            bucket.states,
            group["lr"],
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            group["maximize"],
        )

    def _capture_update(self, capture: Any, number: int, bucket: Bucket, gradients: list[Tensor]) -> None:
        capture.update(self, number, bucket, gradients, "sgd")
