"""RMSprop as in TensorFlow, with which MobileNetV3 was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class RMSprop(torch.optim.Optimizer):
    """Tieleman and Hinton 2012, as in TensorFlow 1's `RMSPropOptimizer`.

    With gradient g, to which weight decay adds its share of the weight w:

        s = decay s + (1 - decay) g^2        from s = 1
        m = momentum m + lr g / sqrt(s + epsilon)
        w = w - m

    PyTorch's RMSprop starts from s = 0, adds epsilon outside the root, and applies the current learning rate
    to the whole momentum. The default epsilon is from MnasNet's code (Tan et al. 2019), on which MobileNetV3
    builds. torchvision uses its root, 0.0316, because PyTorch adds it outside the root.

    Args:
        parameters: tensors, or groups of them with their own options.
        lr: learning rate.
        momentum: share of the last step that is added to this one.
        decay: share of the old mean square in the new one.
        epsilon: added to the mean square.
        weight_decay: share of the weight that is added to the gradient.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        decay: float = 0.9,
        epsilon: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "decay": decay, "epsilon": epsilon, "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no losses here
        """Update every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients: Any = [p.grad for p in weights]
            squares, momenta = ([self._state(p, name) for p in weights] for name in ("square", "momentum"))
            if group["weight_decay"]:
                gradients = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_addcdiv_(momenta, gradients, roots, value=group["lr"])
            torch._foreach_sub_(weights, momenta)

    def _state(self, weight: torch.Tensor, name: str) -> torch.Tensor:
        """The mean square or the momentum of a weight."""
        state = self.state[weight]
        if name not in state:
            state[name] = torch.ones_like(weight) if name == "square" else torch.zeros_like(weight)
        kept: torch.Tensor = state[name]
        return kept
