"""What moves the weights, and their moving average."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from striate.training.config import TrainConfig
from striate.training.rmsprop import RMSprop
from striate.training.transfer import units

_FUSED = ("cpu", "cuda")  # devices on which one pass over all weights is the quicker one


class _Light(torch.optim.Optimizer):
    """torch's own methods without the wrappers that load its compiler, 2 s, when they are first called.

    The wrappers keep `torch.compile` out of the methods; nothing here is compiled but the network.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class SGD(_Light, torch.optim.SGD):
    """torch.optim.SGD, to the bit."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class AdamW(_Light, torch.optim.AdamW):
    """torch.optim.AdamW, to the bit."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(network: nn.Module, config: TrainConfig, head: str | None = None) -> torch.optim.Optimizer:
    """SGD, AdamW or RMSprop over what trains, with weight decay on matrices and kernels only.

    Biases and the scales of norms are vectors; decaying them does not regularise (Goyal et al. 2017,
    section 5.1; He et al. 2019, "Bag of Tricks", section 3.1). A ViT's class token and positions are added
    and do not multiply either (Touvron et al. 2021's code).
    """
    backbone = config.backbone_rate / config.peak_rate if head is not None else 1.0
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, share in layer_shares(network, config.layer_decay).items():
        parameter = network.get_parameter(name)
        if parameter.requires_grad:
            if not (head is not None and name.startswith(f"{head}.")):
                share *= backbone
            added = name.endswith(("class_token", "pos_embedding"))
            decay = config.decay if parameter.ndim > 1 and not added else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    groups_of: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "share": share}
        for (share, decay), parameters in groups.items()
    ]
    fused = all(p.device.type in _FUSED for group in groups_of for p in group["params"])
    if config.opt == "sgd":
        return SGD(
            groups_of, lr=config.peak_rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    if config.opt == "rmsprop":
        return RMSprop(groups_of, lr=config.peak_rate, momentum=config.momentum)
    return AdamW(groups_of, lr=config.peak_rate, fused=fused)


def layer_shares(network: nn.Module, decay: float) -> dict[str, float]:
    """The share of the rate that each parameter gets: `decay` times less for each layer towards the input.

    Layers are the stages and blocks of `transfer.units`. The last one has the whole rate, a ViT's last norm
    with it; its class token and positions go with the first layer below the blocks, that of the patches
    (Bao et al. 2021, arXiv:2106.08254, and their code; He et al. 2022, arXiv:2111.06377, table 9).
    """
    names = [name for name, _ in network.named_parameters()]
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    layers = units(network)
    depth = {module: place for place, layer in enumerate(layers) for module in layer}
    depth["encoder.ln"] = len(layers) - 1
    shares = {}
    for name in names:
        place = max((depth[module] for module in depth if name.startswith(f"{module}.")), default=0)
        shares[name] = decay ** (len(layers) - 1 - place)
    return shares


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers, whose memory grows with the run.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the random start is forgotten soon
    (as TensorFlow's ExponentialMovingAverage has it). Counters are copied.
    """

    def mix(old: torch.Tensor, new: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        if not old.is_floating_point():
            return new
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return torch.lerp(new, old, kept)

    return AveragedModel(network, avg_fn=mix, use_buffers=True)
