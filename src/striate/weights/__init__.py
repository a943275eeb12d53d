"""Pretrained weights: published ones by name, and files of other libraries by their shapes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate import bundle, models
from striate.bundle import Description
from striate.errors import UsageError
from striate.files import expanded, probe, why_missing
from striate.progress import AUTO, Progress
from striate.weights.catalog import CATALOG, PRETRAINED, default, find, named

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CATALOG", "default", "find", "import_weights", "open_weights"]


def open_weights(
    source: str, architecture: str, progress: Progress = AUTO, network: Any = None
) -> tuple[Description, dict[str, Tensor]]:
    """Load weights for a network from the catalog, a bundle or a foreign file.

    Args:
        source: `pretrained` or `imagenet` for the network's default weights, a name of the catalog such as
            `resnet50.v1`, a bundle, a run folder, or a `.pth` or `.safetensors` file of another library.
        architecture: the network they must fit.
        progress: receives download updates, and one line per assumption about a foreign file.
        network: a network that Striate does not define, if the caller gives it as an object.

    Returns:
        The description (`provenance["notes"]` lists the assumptions), and the tensors on the CPU, with the
        keys of the network that `description.arguments` builds. A foreign file may have no classifier; then
        there are no classes either.

    Raises:
        UsageError: no such file or name, the weights of another network, or of a package that is not
            installed.
        BundleError: the file is damaged or holds no weights for the network.
        DataError: the download failed.
    """
    models.describe(architecture)
    if models.is_foreign(architecture):
        from striate.weights.libraries import open_foreign

        return open_foreign(source, architecture, network, progress)
    if (entry := named(source, architecture)) is not None:
        _require(architecture, entry.architecture, source)
        from striate.weights.download import get
        from striate.weights.foreign import read_foreign

        path = get(entry, progress)
        progress.info(f"{entry.name}: ImageNet weights from {entry.source}, {entry.license} license")
        return read_foreign(path, entry.architecture)
    path = bundle.path_of(source)
    if probe(path) is None:
        names = [name for name, weights in CATALOG.items() if weights.architecture == architecture]
        fix = "Give pretrained, a name of `striate weights list`, a bundle, or a .pth file"
        raise UsageError(f"cannot start from {source!r}", *why_missing(path, fix, [*PRETRAINED, *names]))
    if bundle.is_bundle(path):
        description, state = bundle.read(path)
        _require(architecture, description.architecture, source)
        return description, state
    from striate.weights.foreign import read_foreign

    description, state = read_foreign(path, architecture, features=True)
    for note in description.provenance["notes"]:
        progress.info(f"{path.name}: {note}")
    return description, state


def import_weights(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    imgsz: int | None = None,
    part: str | None = None,
) -> tuple[Path, Description]:
    """Convert weights from another library to a bundle. No code in the file is executed.

    Args:
        file: `.pth` in either format, or `.safetensors`.
        out: the bundle; by default next to the file, with the suffix `.safetensors`.
        model: the network; by default the one that the shapes fit.
        classes: a name for each score; by default ImageNet's for 1000 scores, else numbers.
        mean: of the preprocessing; by default ImageNet's.
        std: of the preprocessing; by default ImageNet's.
        imgsz: side of the network's input in pixels; by default the size of the weights.
        part: key of the weights in a nested file.

    Returns:
        The bundle's path and its description.

    Raises:
        UsageError: the weights of another network, or values that contradict the weights.
        BundleError: a damaged file, a pickled module, or weights of no network of Striate.
        DataError: the bundle cannot be written.
    """
    path = expanded(file)
    if model is not None:
        require_own(model)
    if bundle.is_bundle(path):
        raise UsageError(f"{str(path)!r} is a bundle already", "it needs no import", "Use it directly")
    target = expanded(out) if out is not None else path.with_suffix(".safetensors")
    before = probe(target)
    if before is not None and probe(path) is not None and target.samefile(path):
        raise UsageError(f"cannot import {str(path)!r} onto itself", "the file would be lost", "Give --out")
    if out is None and before is not None:
        raise UsageError(
            f"{str(target)!r} exists already", "an import overwrites only what --out names", "Give --out"
        )
    from striate.weights.foreign import Overrides, read_foreign

    description, state = read_foreign(path, model, Overrides(classes, mean, std, imgsz, part))
    bundle.write(target, _build(description, state), description)
    return target, description


def require_own(model: str) -> None:
    """Check that a network is one of Striate's; raises UsageError."""
    models.describe(model)
    if models.is_foreign(model):
        why = "only weights of Striate's networks become a model file by themselves"
        raise UsageError(f"--model {model}", why, "Use the file as it is: striate train DATA --weights FILE")


def _require(wanted: str, found: str, source: str) -> None:
    if wanted != found:
        raise UsageError(
            f"cannot start {wanted} from {source!r}", f"it holds a {found}", f"Use --model {found}"
        )


def _build(description: Description, state: dict[str, Tensor]) -> nn.Module:
    """The network with these tensors; nothing is copied."""
    make = partial(models.build, description.architecture, **description.arguments)
    with bundle.must_fit("the file", description.architecture):
        return bundle.with_tensors(make, state)
