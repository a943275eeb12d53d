"""The optimizers, and the groups of parameters that share a learning rate and weight decay."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from striate.training.config import Optimization
from striate.training.rmsprop import RMSprop
from striate.training.transfer import stages

_FUSED = ("cpu", "cuda")  # devices on which the fused implementation is faster


class _Light(torch.optim.Optimizer):
    """torch's methods without the wrappers that import torch's compiler (2 s) at the first call.

    The wrappers keep `torch.compile` out of these methods; here only the network is compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class SGD(_Light, torch.optim.SGD):
    """torch.optim.SGD, to the bit."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class AdamW(_Light, torch.optim.AdamW):
    """torch.optim.AdamW, to the bit."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(
    groups: Sequence[Mapping[str, Any]], options: Optimization, adam: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """SGD, AdamW or RMSprop.

    Args:
        groups: `params`, `weight_decay`, and `lr_scale`, the group's share of the learning rate.
        options: which optimizer, and its momentum.
        adam: settings of AdamW, if not torch's.
    """
    parameters = [dict(group) for group in groups]
    lr = 1e-3  # a placeholder: every step sets the scheduled rate
    if options.opt == "rmsprop":
        return RMSprop(parameters, lr=lr, momentum=options.momentum)
    fused = all(p.device.type in _FUSED for group in groups for p in group["params"])
    if options.opt == "sgd":
        return SGD(parameters, lr=lr, momentum=options.momentum, nesterov=options.nesterov, fused=fused)
    return AdamW(parameters, lr=lr, fused=fused, **adam)


def parameter_groups(
    network: nn.Module,
    weight_decay: float,
    lr_scales: Mapping[str, float],
    not_decayed: Container[str] = (),
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of one learning rate and one weight decay.

    Biases and the scales of norms are vectors; decaying them does not regularize (Goyal et al. 2017,
    section 5.1; He et al. 2019, "Bag of Tricks", section 3.1).

    Args:
        network: its parameters that require gradients are grouped.
        weight_decay: of matrices and kernels.
        lr_scales: the share of the learning rate of each parameter, by name.
        not_decayed: names of matrices without weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, scale in lr_scales.items():
        parameter = network.get_parameter(name)
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 and name not in not_decayed else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (scale, decay), parameters in groups.items()
    ]


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """Layer-wise learning rate decay: each parameter's share of the rate, `decay` times less for each stage.

    Stages are those of `transfer.stages`. The last one has the full rate, with the network's `final_norm`; a
    ViT's class token and positions belong to the first stage, the patches (Bao et al. 2021, arXiv:2106.08254,
    and their code; He et al. 2022, arXiv:2111.06377, table 9).
    """
    names = [name for name, _ in network.named_parameters()]
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    layers = stages(network)
    depth = {module: place for place, layer in enumerate(layers) for module in layer}
    norm = getattr(network, "final_norm", "")
    depth[norm if isinstance(norm, str) else ""] = len(layers) - 1
    scales = {}
    for name in names:
        place = max((depth[module] for module in depth if name.startswith(f"{module}.")), default=0)
        scales[name] = decay ** (len(layers) - 1 - place)
    return scales
