"""Names of the same tensors elsewhere: timm's networks, and torchvision's own of earlier versions.

timm's resnets have torchvision's names. Its other names follow from how its modules are called: see each
function.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

# timm's MobileNetV3 was trained with PyTorch's default epsilon in BatchNorm; torchvision's and ours is the
# paper's code's 0.001.
_TIMM_EPSILON, _OUR_EPSILON = 1e-5, 1e-3


def translated(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Give tensors the names that Striate's networks have for them.

    Args:
        state: name -> tensor, in torchvision's or timm's naming.

    Returns:
        The same tensors under our names, changed only where a note says so, and those notes. Names that are
        not known stay, so that the comparison with a network can show them.
    """
    if "conv_stem.weight" in state and any(name.startswith("blocks.") for name in state):
        state = _mobilenet_v3(state)
        note = "timm's MobileNetV3: the gain of each BatchNorm is adapted from epsilon 1e-5 to 1e-3"
        return _other_epsilon(state), ["names translated from timm's", note]
    if "patch_embed.proj.weight" in state:
        return {_vit(name): tensor for name, tensor in state.items()}, ["names translated from timm's"]
    if "pre_logits.fc1.weight" in state:
        return _vgg(state), ["names translated from timm's"]
    if any(".mlp.linear_1." in name for name in state):
        return {_old_vit(name): tensor for name, tensor in state.items()}, []
    return state, []


def _vgg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """VGG: timm computes the fully connected layers as convolutions, which take images of any size."""
    places = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
    ours = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        flat = tensor.flatten(1) if layer in places and kind == "weight" else tensor
        ours[f"{places.get(layer, layer)}.{kind}"] = flat
    return ours


_VIT = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^head\.", "heads.head."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"(_\d+)\.norm([12])\.", r"\1.ln_\2."),
    (r"(_\d+)\.attn\.qkv\.", r"\1.self_attention.in_proj_"),
    (r"(_\d+)\.attn\.proj\.", r"\1.self_attention.out_proj."),
    (r"(_\d+)\.mlp\.fc1\.", r"\1.mlp.0."),
    (r"(_\d+)\.mlp\.fc2\.", r"\1.mlp.3."),
)


def _vit(name: str) -> str:
    """ViT and DeiT of timm; queries, keys and values lie one after the other in both."""
    for theirs, ours in _VIT:
        name = re.sub(theirs, ours, name)
    return name


def _old_vit(name: str) -> str:
    """ViTs of torchvision before 0.13, where the feed-forward layers had names; its loader takes both."""
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


# The layers of timm's three kinds of blocks, in the order in which ours are numbered; an se may come between.
_DEPTHWISE = (("conv_dw", "bn1"), ("se",), ("conv_pw", "bn2"))
_INVERTED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("se",), ("conv_pwl", "bn3"))
_SQUEEZE = {"se.conv_reduce": "fc1", "se.conv_expand": "fc2"}


def _mobilenet_v3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV3: timm counts stages and blocks within them, torchvision all blocks in a row."""
    places = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    places |= {"conv_head": "classifier.0", "classifier": "classifier.3"}
    layers: dict[tuple[int, int], set[str]] = {}
    for name in state:
        if found := re.match(r"blocks\.(\d+)\.(\d+)\.(.+)\.\w+$", name):
            layers.setdefault((int(found[1]), int(found[2])), set()).add(found[3])
    for number, (stage, index) in enumerate(sorted(layers), start=1):
        theirs, ours = f"blocks.{stage}.{index}", f"features.{number}"
        inside = layers[stage, index]
        if "conv" in inside:  # the last, a plain convolution
            places |= {f"{theirs}.conv": f"{ours}.0", f"{theirs}.bn1": f"{ours}.1"}
            continue
        rows = _INVERTED if "conv_pwl" in inside else _DEPTHWISE
        there = [row for row in rows if row != ("se",) or "se.conv_reduce" in inside]
        for position, row in enumerate(there):
            if row == ("se",):
                squeeze = {f"{theirs}.{a}": f"{ours}.block.{position}.{b}" for a, b in _SQUEEZE.items()}
                places |= squeeze
            else:
                places |= {f"{theirs}.{name}": f"{ours}.block.{position}.{i}" for i, name in enumerate(row)}
    renamed = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        flat = tensor.flatten(1) if name == "conv_head.weight" else tensor
        renamed[f"{places.get(layer, layer)}.{kind}"] = flat
    return renamed


def _other_epsilon(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function with our epsilon: gain / sqrt(variance + epsilon) stays what it was."""
    changed = dict(state)
    for name, variance in state.items():
        layer = name.removesuffix(".running_var")
        if layer != name and f"{layer}.weight" in state:
            factor = torch.sqrt((variance.double() + _OUR_EPSILON) / (variance.double() + _TIMM_EPSILON))
            gain = state[f"{layer}.weight"]
            changed[f"{layer}.weight"] = (gain.double() * factor).to(gain.dtype)
    return changed
