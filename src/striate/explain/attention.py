"""Explanations of Vision Transformers from the attention between their tokens.

A is a layer's attention, averaged over its heads, `[tokens, tokens]`; row i says where token i looks. The map
is the row of the class token, or the mean of all rows in a network without one, without the columns of tokens
that are not patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from striate.errors import UsageError
from striate.explain.explainer import Explainer


def attention_rollout(explainer: Explainer, image: Tensor, target: int) -> Tensor:
    """Attention rollout: the product of the attentions of all layers, each with its shortcut.

    R = A_L ... A_2 A_1 with A_l = 0.5 W_l + 0.5 I (Abnar, Zuidema 2020, "Quantifying Attention Flow in
    Transformers", ACL, arXiv:2005.00928, section 3). It is the same for all classes.

    Args:
        explainer: of the network.
        image: `[1, channels, height, width]`, as the network reads it.
        target: number of the class, which has no effect.

    Returns:
        float32 `[rows, columns]` of patches, at least 0.

    Raises:
        UsageError: the network has no attention over patches.
    """
    layers, _ = explainer.attention(image)
    total = torch.eye(layers[0].shape[1], dtype=torch.float64)
    identity = total.clone()
    for weights in layers:
        total = (0.5 * weights.double().mean(dim=0) + 0.5 * identity) @ total
    return _map_of(explainer, total)


def relevance(explainer: Explainer, image: Tensor, target: int) -> Tensor:
    """Relevance propagated through the attentions, weighted by the gradients of the score.

    R starts as I; in each layer R <- R + A R with A = E_h[(dy / dW * W)^+] (Chefer, Gur, Wolf 2021, "Generic
    Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV,
    arXiv:2103.15679, equations 5 and 6, and section 3.4 on the class token).

    Args, returns, raises: as `attention_rollout`; here the class has an effect.
    """
    layers, gradients = explainer.attention(image, target)
    total = torch.eye(layers[0].shape[1], dtype=torch.float64)
    for weights, gradient in zip(layers, gradients, strict=True):
        total = total + (gradient * weights).relu().double().mean(dim=0) @ total
    return _map_of(explainer, total - torch.eye(len(total), dtype=total.dtype))


def _map_of(explainer: Explainer, total: Tensor) -> Tensor:
    """The map of a matrix `[tokens, tokens]`."""
    location = explainer.location
    rows, columns = location.grid
    extra = len(total) - rows * columns
    if not location.has_tokens or extra != location.extra:
        why = "its attention is not over the patches of the image"
        raise UsageError("no map of the attention", why, "Use grad-cam, or another method")
    row = total[0] if extra else total.mean(dim=0)
    return row[extra:].reshape(rows, columns).float()
