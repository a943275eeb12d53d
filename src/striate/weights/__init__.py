"""Weights from anywhere: torchvision's by name, files of others by their shapes, and back out again.

`open_weights` is what training calls, `import_weights` and `export_weights` are the commands; all of them go
through `opened`, so that a file means the same everywhere.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import striate
from striate import bundle, models
from striate.bundle import Description
from striate.errors import BundleError, UsageError, unknown_name
from striate.files import write_atomic
from striate.progress import SILENT, Progress
from striate.transforms.preprocess import Preprocess
from striate.weights.catalog import CATALOG, Weights, default, find, imagenet_classes, official

if TYPE_CHECKING:
    from torch import Tensor, nn

    from striate.weights.fitting import Fit

__all__ = [
    "CATALOG", "Overrides", "default", "export_weights", "find", "import_weights", "open_weights",
]  # fmt: skip


@dataclass(frozen=True)
class Overrides:
    """What a user knows of a file that it does not say itself; None leaves it to the file or the usual.

    Attributes:
        classes: a name for each score.
        mean: subtracted from each channel of images scaled to 0-1.
        std: divides each channel after that.
        imgsz: height and width of the network's input, in pixels.
        part: where in a nested file the weights are, as `model_ema`.
    """

    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    imgsz: int | None = None
    part: str | None = None


def open_weights(
    source: str, architecture: str, progress: Progress = SILENT
) -> tuple[Description, dict[str, Tensor]]:
    """Weights for a network, wherever they are.

    Args:
        source: `imagenet` for the architecture's usual official weights, a name of the catalog such as
            `resnet50.v1`, a bundle or a run's folder, a `.pth` or a `.safetensors` file of others.
        architecture: what they must be for.
        progress: is told of a download, and of what is assumed about a file that does not say.

    Returns:
        What is known of them (`provenance["notes"]` says what was assumed), and the tensors on the CPU
        under our names, as the network of `description.arguments` has them.

    Raises:
        UsageError: no such file or name, or the weights of another architecture.
        BundleError: a file that is damaged or holds no weights for it.
        DataError: a download that failed.
    """
    models.describe(architecture)
    if source == "imagenet" or source in CATALOG:
        entry = default(architecture) if source == "imagenet" else CATALOG[source]
        _require(architecture, entry.architecture, source)
        return _downloaded(entry, progress)
    path = bundle.path_of(source)
    if not path.exists():
        names = [name for name, weights in CATALOG.items() if weights.architecture == architecture]
        near = unknown_name("weights", source, ["imagenet", *names]).why
        why = f"no such file; {near}" if near.startswith("did you") else "no such file"
        raise UsageError(
            f"cannot start from {source!r}",
            why,
            "Give imagenet, a name of `striate weights list`, a bundle, or a .pth file",
        )
    if bundle.is_bundle(path):
        description, state = bundle.read(path)
        _require(architecture, description.architecture, source)
        return description, state
    description, state = opened(path, architecture)
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
    """Make a bundle of weights that others wrote.

    Args:
        file: `.pth` of either format, or `.safetensors`; nothing in it is run.
        out: the bundle; beside the file, with the ending `.safetensors`, if None.
        model: the architecture; the one that the shapes fit if None.
        classes: a name for each score; ImageNet's where there are 1000 of them, else numbers, if None.
        mean: of the preprocessing; ImageNet's if None.
        std: of the preprocessing; ImageNet's if None.
        imgsz: side of the network's input in pixels; what the weights were made for if None.
        part: where in a nested file the weights are.

    Returns:
        The bundle's path and what it says of itself.

    Raises:
        UsageError: another architecture, or values that contradict the weights.
        BundleError: damaged, a pickled module, or weights of no network of ours.
        DataError: the bundle cannot be written.
    """
    path = Path(file)
    if model is not None:
        models.describe(model)
    if bundle.is_bundle(path):
        raise UsageError(f"{str(path)!r} is a bundle already", "it needs no import", "Use it as it is")
    target = Path(out) if out is not None else path.with_suffix(".safetensors")
    if target.exists() and path.exists() and target.samefile(path):
        raise UsageError(f"cannot import {str(path)!r} onto itself", "the file would be lost", "Give --out")
    if out is None and target.exists():
        raise UsageError(
            f"{str(target)!r} is there already", "an import does not replace it unasked", "Give --out"
        )
    overrides = Overrides(
        classes=None if classes is None else tuple(classes),
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        imgsz=imgsz,
        part=part,
    )
    description, state = opened(path, model, overrides)
    bundle.write(target, _filled(description, state), description)
    return target, description


def export_weights(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[str]:
    """Write a bundle's weights as a plain state dict that `torch.load` and torchvision read.

    Args:
        source: a bundle, or a run's folder.
        out: the `.pth` file; written aside, then renamed.

    Returns:
        The keys, in the order of the network.

    Raises:
        BundleError: no bundle, or one that does not fit its architecture.
        DataError: the file cannot be written.
    """
    import torch

    path = bundle.path_of(source)
    if Path(out).exists() and path.exists() and Path(out).samefile(path):
        raise UsageError(f"cannot export {str(path)!r} onto itself", "the bundle would be lost", "Give --out")
    description, state = bundle.read(path)
    ordered = {
        name: tensor.clone() for name, tensor in _filled(description, state).state_dict().items()
    }  # clones, since the file's tensors may share one block of memory, which torch.save would write whole
    content = io.BytesIO()
    torch.save(ordered, content)
    write_atomic(Path(out), content.getvalue())
    return list(ordered)


def opened(
    path: Path, architecture: str | None, overrides: Overrides | None = None
) -> tuple[Description, dict[str, Tensor]]:
    """Read a file of others, and find out what it is for.

    Args:
        path: `.pth` or `.safetensors`.
        architecture: what it must be for; whatever it fits if None.
        overrides: what the user knows of it.

    Returns:
        As `open_weights`.

    Raises:
        UsageError: another architecture, or values that contradict the weights.
        BundleError: damaged, a pickled module, or weights of no network of ours.
    """
    from striate.weights import checkpoints, keys
    from striate.weights.download import sha256
    from striate.weights.fitting import fitted, recognised, with_counters

    overrides = overrides or Overrides()
    checkpoint = checkpoints.read(path, overrides.part)
    named, notes = keys.translated(checkpoint.state)
    notes = [*checkpoint.notes, *notes]
    fit = recognised(named, str(path)) if architecture is None else fitted(architecture, named, str(path))
    state = with_counters(fit.network, named)
    if len(state) > len(named):
        notes.append("BatchNorm's counters of batches are not in the file: set to 0")
    digest = sha256(path)
    known = official(digest)
    if known is not None and known.architecture == fit.architecture:
        notes.append(f"this is torchvision's {known.name}")
    else:
        known = None
    arguments = _sized(fit, overrides.imgsz, state, notes)
    description = Description(
        task="classification",
        architecture=fit.architecture,
        arguments=arguments,
        classes=_classes(fit, overrides.classes, known, notes),
        preprocess=_preprocess(fit, arguments, overrides, known, notes),
        provenance=_provenance(path.name, digest, known, notes),
    )
    return description, state


def _downloaded(entry: Weights, progress: Progress) -> tuple[Description, dict[str, Tensor]]:
    from striate.weights.download import get

    return opened(get(entry, progress), entry.architecture)


def _require(wanted: str, found: str, source: str) -> None:
    if wanted != found:
        raise UsageError(
            f"cannot start {wanted} from {source!r}", f"it holds a {found}", f"Use --model {found}"
        )


def _filled(description: Description, state: dict[str, Tensor]) -> nn.Module:
    """The network with these tensors, made without memory of its own."""
    import torch

    with torch.device("meta"):
        network = models.build(description.architecture, **description.arguments)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise BundleError(
            f"the weights do not fit {description.architecture}",
            " ".join(str(error).split()),
            "The bundle was written by another version",
        ) from error
    return network


def _sized(fit: Fit, imgsz: int | None, state: dict[str, Tensor], notes: list[str]) -> dict[str, Any]:
    """The network's arguments, for the size that the user wants; a ViT's positions follow it."""
    arguments = dict(fit.arguments)
    if imgsz is None or models.describe(fit.architecture).sizes == "any":
        return arguments
    own = _size(fit.architecture, arguments)
    if own == (imgsz, imgsz):
        return arguments
    file = models.describe(fit.architecture).file
    if file == "vit":
        from striate.models.vit import interpolate_positions

        patch = state["conv_proj.weight"].shape[2]
        arguments["input_size"] = [imgsz, imgsz]
        models.build(fit.architecture, **arguments)  # refuses a size that the patches do not tile
        key = "encoder.pos_embedding"
        state[key] = interpolate_positions(state[key], (imgsz // patch, imgsz // patch))
        notes.append(f"positions interpolated from {own[0]} px to {imgsz} px")
        return arguments
    if file == "lenet" and 0 <= imgsz - own[0] < 4:  # two pools round down: four sizes leave the same
        arguments["input_size"] = [imgsz, imgsz]
        return arguments
    raise UsageError(f"--imgsz {imgsz}", f"these weights are for images of {own[0]} px", "Leave --imgsz out")


def _size(architecture: str, arguments: dict[str, Any]) -> tuple[int, int]:
    """Height and width of what a network reads."""
    usual = models.describe(architecture).input_size
    height, width = arguments.get("input_size", (usual, usual))
    return height, width


def _classes(
    fit: Fit, given: tuple[str, ...] | None, known: Weights | None, notes: list[str]
) -> tuple[str, ...]:
    count = fit.arguments["num_classes"]
    if given is not None:
        if len(given) != count or len(set(given)) != count:
            why = f"the weights have {count} scores" if len(given) != count else "a name is there twice"
            raise UsageError(f"--classes with {len(given)} names", why, "Give one name for each score")
        return given
    if count == 1000:
        if known is None:
            notes.append("class names are not in the file: ImageNet's are assumed for its 1000 scores")
        return imagenet_classes()
    notes.append(f"class names are not in the file: numbered 0 to {count - 1} (--classes names them)")
    return tuple(str(number) for number in range(count))


def _preprocess(
    fit: Fit, arguments: dict[str, Any], overrides: Overrides, known: Weights | None, notes: list[str]
) -> Preprocess:
    channels = fit.arguments["in_channels"]
    if channels not in (1, 3):
        raise UsageError(
            f"weights for images of {channels} channels", "Striate reads grayscale (1) and RGB (3)"
        )
    if known is not None:
        pre = known.preprocess
    else:
        height, width = _size(fit.architecture, arguments)
        pre = Preprocess.for_size(max(height, width), channels)
        if overrides.mean is None or overrides.std is None:
            whose = "mean 0.5, std 0.5" if channels == 1 else "ImageNet's mean and standard deviation"
            notes.append(f"preprocessing is not in the file: {whose} assumed (--mean and --std change it)")
    if overrides.imgsz is not None:
        usual = Preprocess.for_size(overrides.imgsz)
        pre = dataclasses.replace(pre, size=usual.size, shorter_side=usual.shorter_side)
    return dataclasses.replace(
        pre,
        mean=_each(overrides.mean, channels) or pre.mean,
        std=_each(overrides.std, channels) or pre.std,
    )


def _each(values: tuple[float, ...] | None, channels: Literal[1, 3]) -> tuple[float, ...] | None:
    """One value stands for all channels."""
    return values * channels if values is not None and len(values) == 1 else values


def _provenance(name: str, digest: str, known: Weights | None, notes: list[str]) -> dict[str, Any]:
    import torch

    published: dict[str, Any] = {}
    if known is not None:
        figures = known.to_json()
        published = {"weights": known.name, "published": {key: figures[key] for key in ("top1", "top5")}}
    return {
        "striate": striate.__version__,
        "torch": torch.__version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "imported_from": name,
        "sha256": digest,
        **published,
        "notes": notes,
    }
