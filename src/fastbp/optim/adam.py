"""Adam and AdamW: steps scaled by running means of the gradient and of its square."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .optimizer import Bucket, Optimizer, refuse_differentiable, require_at_least_zero

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._core import Tensor

_adam_step = _core.adam_step


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    With g the gradient (plus ``weight_decay`` times the parameter), t the number of the step, all elementwise::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        parameter -= lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    Parameters
    ----------
    params : iterable
        As in `Optimizer`.
    lr : float, optional
        Learning rate. Default: 1e-3.
    betas : (float, float), optional
        Decay of the running means m and v. Default: (0.9, 0.999).
    eps : float, optional
        Default: 1e-8.
    weight_decay : float, optional
        Default: 0.
    amsgrad : bool, optional
        Whether to divide by the greatest v so far (Reddi et al. 2018). Default: False.
    maximize : bool, optional
        Whether to ascend instead. Default: False.
    decoupled_weight_decay : bool, optional
        Whether to shrink the parameters by ``lr * weight_decay`` instead of changing g, as `AdamW`. Default: False.
    foreach, capturable, fused : bool, optional
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
    >>> optimizer = fastbp.optim.Adam(model.parameters(), lr=1e-3)
    >>> optimizer.zero_grad()
    >>> model(fastbp.ones(5, 3)).square().mean().backward()
    >>> optimizer.step()
    """

    _layout_option = "amsgrad"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refuse_differentiable(differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        require_at_least_zero("learning rate", group["lr"])
        require_at_least_zero("epsilon value", group["eps"])
        require_at_least_zero("weight_decay value", group["weight_decay"])
        for position, beta in enumerate(group["betas"]):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {position}: {beta}")

    def _gather(self, group: dict[str, Any], params: list[Tensor]) -> Bucket:
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")
        states = [self.state[parameter] for parameter in params]
        for parameter, state in zip(params, states, strict=True):
            state.setdefault("step", 0)
            for name in names:
                if state.get(name) is None:
                    state[name] = _core.zeros_like(parameter)
        return Bucket(params, states, names, tuple([state[name] for state in states] for name in names))

    def _update(self, group: dict[str, Any], bucket: Bucket, gradients: list[Tensor]) -> None:
        means, square_means, *greatest_square_means = bucket.buffers
        beta1, beta2 = group["betas"]
        _adam_step(
            bucket.params,
            gradients,
            means,
            square_means,
            greatest_square_means[0] if greatest_square_means else None,
            bucket.states,
            group["lr"],
            beta1,
            beta2,
            group["eps"],
            group["weight_decay"],
            group["maximize"],
            group["decoupled_weight_decay"],
        )

    def _capture_update(self, capture: Any, number: int, bucket: Bucket, gradients: list[Tensor]) -> None:
        capture.update(self, number, bucket, gradients, "adam")


class AdamW(Adam):
    """`Adam` with decoupled weight decay (Loshchilov and Hutter 2019).

    Before each update the parameters are multiplied by ``1 - lr * weight_decay``; the gradient is left alone.
    Arguments as `Adam`, but ``weight_decay`` is 0.01 by default.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
