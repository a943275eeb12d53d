"""A network prepared for explanations: scores, feature maps and gradients, without a trace left in it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from striate.anatomy.tracing import restored
from striate.device import standard_settings
from striate.errors import LayoutError, UsageError
from striate.explain.attention_weights import AttentionRecorder
from striate.explain.cam import grad_cam
from striate.explain.forward import Forward, Split
from striate.explain.location import Location, locate
from striate.explain.splitting import Shape, split
from striate.kernels.folding import fold

_PIXELS = 32 * 224 * 224  # of the images in a batch, without gradients; a quarter of it with them


class Explainer:
    """Computes what the methods of `METHODS` need from a network.

    The network is left unchanged: its modes, gradients and `requires_grad` are as before, also after an
    error, and it has no hooks. All parameters may be frozen. It runs in evaluation mode.

    Attributes:
        network: reads images `[batch, channels, height, width]` and returns scores `[batch, classes]`.
        shape: channels, height and width of its images.

    Args:
        network: on any device.
        shape: of the images.
        folded: explain a copy of the network with folded convolutions, which is faster; later changes of the
            network then have no effect.
        temperature: the scores are divided by it before the softmax.
        multi_label: whether images have several classes, so that each probability is a sigmoid.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        *,
        folded: bool = False,
        temperature: float = 1.0,
        multi_label: bool = False,
    ) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False) if folded else network
        self.shape, self._folded, self.temperature = shape, folded, temperature
        self.multi_label = multi_label
        self._locations: dict[bool, tuple[Location, Tensor]] = {}
        self._splits: dict[bool, Split] = {}

    @property
    def location(self) -> Location:
        """Where the last feature maps are; raises UsageError as `locate`."""
        return self.location_of(fine=False)

    def location_of(self, *, fine: bool) -> Location:
        """The same; with `fine`, of the last maps of twice the resolution, if there are some."""
        return self._located(fine)[0]

    @property
    def _at_once(self) -> int:
        return max(1, _PIXELS // (self.shape[1] * self.shape[2]))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @cached_property
    def _noise(self) -> Tensor:
        """One image of noise, of the network's type and on its device."""
        like = next(self.network.parameters(), torch.empty(0))
        return torch.randn((1, *self.shape), generator=torch.Generator().manual_seed(0)).to(like)

    def _located(self, fine: bool) -> tuple[Location, Tensor]:
        if fine not in self._locations:
            with self.unchanged():
                self._locations[fine] = locate(self.network, self._noise, fine=fine)
        return self._locations[fine]

    def _split(self, fine: bool) -> Split:
        if fine not in self._splits:
            location, result = self._located(fine)
            with self.unchanged():
                self._splits[fine] = split(self.network, self._noise, location, result, self._folded)
        return self._splits[fine]

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which the network is in evaluation mode; on exit it is as it was."""
        with standard_settings(), contextlib.ExitStack() as stack:
            if not self._folded:  # of a copy there is nothing to restore
                stack.enter_context(restored(self.network.modules()))
                for part in self.network.modules():
                    part.training = False
            yield

    def scores(self, images: Tensor) -> Tensor:
        """Scores `[batch, classes]`, without gradients; any number of images, in batches.

        Raises:
            LayoutError: the images have another shape.
        """
        self._check(images)
        with self.unchanged(), torch.no_grad():
            return torch.cat([self._forward(part) for part in _parts(images, self._at_once)])

    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the scores divided by the temperature, or their sigmoid, `[batch, classes]`."""
        return self.to_probabilities(self.scores(images))

    def to_probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities of scores `[batch, classes]`, as of `probabilities`."""
        if self.multi_label:
            return scores.float().sigmoid()
        return (scores.float() / self.temperature).softmax(dim=1)

    @cached_property
    def _forward(self) -> Callable[[Tensor], Tensor]:
        """From images to scores."""
        if not self._folded:
            return self.network
        try:
            return self._split(fine=False).scores
        except UsageError:  # no feature maps
            return fold(self.network, self.shape)

    def forward(self, images: Tensor, *, fine: bool = False) -> Forward:
        """One pass that gives the scores, the last feature maps, and then the gradients of scores for them.

        Args:
            images: `[batch, channels, height, width]`.
            fine: take the last maps of twice the resolution instead, if there are some.

        Raises:
            UsageError: the network has no feature maps.
            LayoutError: the images have another shape.
        """
        self._check(images)
        # With a folded network, contexts would take a noticeable part of the time; `compute` has them.
        with torch.enable_grad() if self._folded else self.unchanged():
            return self._split(fine)(images)

    @standard_settings()
    def scores_and_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `[batch, classes]` and Grad-CAM's maps of the most probable classes, from one pass.

        Raises:
            UsageError, LayoutError: as `forward`.
        """
        forward = self.forward(images)
        return forward.scores, grad_cam(forward, forward.scores.argmax(dim=1).tolist())

    def gradients(self, images: Tensor, target: int) -> Tensor:
        """Gradient of one class's score with respect to each image, the shape of `images`."""
        self._check(images)
        with self.unchanged():
            parts: list[Tensor] = []
            for part in _parts(images, max(1, self._at_once // 4)):
                x = part.detach().clone().requires_grad_()
                scores = self.network(x.clone())  # a layer in place must not change a leaf
                parts += torch.autograd.grad(scores[:, target].sum(), x)
            return torch.cat(parts)

    def attention(self, image: Tensor, target: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """The attention weights of one image, layer by layer, and the gradients of a score.

        Args:
            image: `[1, channels, height, width]`.
            target: the class of the score; None for no gradients.

        Returns:
            Two lists of `[heads, tokens, tokens]` on the CPU; the second is empty without gradients.

        Raises:
            UsageError: the network has no attention layers.
        """
        self._check(image)
        with self.unchanged():
            x = image.detach().clone().requires_grad_()
            with AttentionRecorder() as recorder:
                scores = self.network(x.clone())
            weights = recorder.self_attention(type(self.network).__name__)
            found = () if target is None else torch.autograd.grad(scores[0, target], weights)
            return [part.detach()[0].cpu() for part in weights], [part[0].cpu() for part in found]

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            why = f"this explainer was made for [batch, {', '.join(map(str, self.shape))}]"
            raise LayoutError(f"images of shape {list(images.shape)}", why, "Make another Explainer for them")


def _parts(images: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield images[start : start + size]
