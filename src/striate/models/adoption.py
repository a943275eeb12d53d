"""Find out how a network that Striate does not define fits a task: its classifier and first convolution."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from striate.errors import StriateError, UsageError, environment_error
from striate.models import foreign
from striate.models.references import NOTHING, Permission, Reference


@dataclass(frozen=True)
class Adopted:
    """A network that fits the classes and the images.

    Attributes:
        network: on the CPU, in training mode.
        reference: how to build it again.
        notes: what was replaced.
        has_new_classifier: whether its classifier was replaced.
    """

    network: nn.Module
    reference: Reference
    notes: tuple[str, ...]
    has_new_classifier: bool


def adopt(name: str, wanted: Reference, permission: Permission = NOTHING) -> Adopted:
    """Build a network, run it once on an image of zeros, and fit it to the classes and the channels.

    Args:
        name: as in `striate.models.references`.
        wanted: classes, channels and size; `classifier` if the user names it. `num_classes` of 0 keeps the
            network's own number.
        permission: of the caller.

    Raises:
        TrustError, UsageError: as `foreign.build`; or it reads other images, has no scores, or no classifier
            that could be replaced.
    """
    asked = replace(wanted, num_classes=wanted.num_classes or 1000)
    made = foreign.make(name, asked, permission)
    if any(map(nn.parameter.is_lazy, made.parameters())):
        why, fix = "their shapes are unknown until they have run", "Use layers with all of their sizes"
        raise UsageError(f"{name} has lazy layers", why, fix)
    convolution = next((m for m in made.modules() if isinstance(m, nn.Conv2d) and m.groups == 1), None)
    reads = wanted.in_channels if convolution is None else convolution.in_channels
    scores, ran = _run(name, made, reads, wanted.input_size)
    convolutions = [n for n in ran if isinstance(made.get_submodule(n), nn.Conv2d)]
    first = next((n for n in convolutions if made.get_submodule(n).in_channels == reads), "")
    classifier = wanted.classifier or _own_classifier(made) or _last(made, ran, scores)
    if wanted.classifier:
        _require_scores(made, classifier, scores)
    reference = replace(
        wanted, num_classes=wanted.num_classes or scores, classifier=classifier, first_conv=first
    )
    if scores != reference.num_classes and not classifier:
        what = f"{name} has {scores} scores for {reference.num_classes} classes"
        raise UsageError(what, "its last layer was not found", "Name it with --classifier")
    channels = foreign.fit_channels(made, first, wanted.in_channels)
    before = foreign.fit_classes(made, classifier, reference.num_classes)
    notes = []
    if channels is not None:
        notes.append(
            f"{first}, for {channels} channels, is adapted to {wanted.in_channels}: the mean over its input "
            "channels, scaled"
        )
    if before is not None:
        notes.append(f"{classifier}, for {before} classes, is replaced by one for {reference.num_classes}")
    after = (
        scores if channels is before is None else _run(name, made, wanted.in_channels, wanted.input_size)[0]
    )
    if after != reference.num_classes:
        why = f"it gives {after} scores for {reference.num_classes} classes"
        raise UsageError(f"--classifier {classifier} of {name}", why, "Name the layer that gives the scores")
    made.stage_containers = foreign.stage_containers(made, classifier)  # type: ignore[assignment]
    return Adopted(made.train(), reference, tuple(notes), before is not None)


def _run(name: str, network: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, list[str]]:
    """The number of scores for an image of zeros, and the layers that could be a classifier, as they ran."""
    ran: list[str] = []
    image = torch.zeros(1, channels, *size)
    with _recorded(network, ran), torch.no_grad():
        try:
            output = network.eval()(image)
        except StriateError:
            raise
        except Exception as error:  # a forward may do anything
            if (failed := environment_error(error)) is not None:
                raise failed from error
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            shape = "x".join(map(str, image.shape[1:]))
            fix = "Choose a size with --imgsz, or the number of channels with --channels"
            raise UsageError(f"{name} cannot read images of {shape}", why, fix) from error
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        is_tensor = isinstance(output, Tensor)
        shown = f"a tensor of shape {list(output.shape)}" if is_tensor else f"a {type(output).__name__}"
        fix = "Wrap it in a module that returns the scores alone"
        raise UsageError(f"{name} returns {shown}", "a classifier returns scores [batch, classes]", fix)
    return output.shape[1], ran


@contextlib.contextmanager
def _recorded(network: nn.Module, ran: list[str]) -> Iterator[None]:
    """Append the name of each linear layer and convolution as it runs."""
    hooks = [
        layer.register_forward_hook(lambda _, __, ___, name=name: ran.append(name))
        for name, layer in network.named_modules()
        if foreign.outputs_of(layer) is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _own_classifier(network: nn.Module) -> str:
    """The layer that a network of timm says is its classifier; empty if it says nothing."""
    get = getattr(network, "get_classifier", None)
    if not callable(get):
        return ""
    try:
        found = get()
    except Exception:  # not timm's method
        return ""
    layer = found[0] if isinstance(found, tuple) and found else found
    names = [name for name, module in network.named_modules() if module is layer and name]
    return names[0] if names and foreign.outputs_of(network.get_submodule(names[0])) is not None else ""


def _require_scores(network: nn.Module, classifier: str, scores: int) -> None:
    """Check that the layer that the user names gives the scores; raises UsageError."""
    count = foreign.outputs_of(foreign.layer_of(network, classifier))
    if count != scores:
        has = "it is no linear layer or convolution" if count is None else f"it has {count} outputs"
        why, fix = f"{has}; the network has {scores} scores", "Name the layer that gives the scores"
        raise UsageError(f"--classifier {classifier}", why, fix)


def _last(network: nn.Module, ran: list[str], scores: int) -> str:
    """The last layer that ran and has so many outputs; empty if there is none."""
    fits = [name for name in ran if foreign.outputs_of(network.get_submodule(name)) == scores]
    return fits[-1] if fits else ""
