"""Preprocessing and weights of networks that Striate does not define: from timm, torchvision, or a file.

timm keeps the preprocessing of a network's weights in its `pretrained_cfg` (earlier `default_cfg`),
torchvision in the transforms of its weights. Their own functions download the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from striate import bundle
from striate.bundle import Description
from striate.errors import DataError, StriateError, UsageError
from striate.files import probe, why_missing
from striate.models import references
from striate.progress import Progress
from striate.transforms.preprocess import INTERPOLATIONS, Preprocess
from striate.weights.catalog import PRETRAINED, imagenet_classes

if TYPE_CHECKING:
    from torch import Tensor


def preprocess_of(name: str, network: Any = None) -> Preprocess | None:
    """The preprocessing that a network was made for, as its library says; None if nothing is known.

    Args:
        name: as in `striate.models.references`.
        network: the network, if the caller gives it as an object.

    Raises:
        UsageError: the library is not installed, or does not know the name.
    """
    kind, own = references.kind_of(name), name.partition(":")[2]
    if network is not None or kind not in references.LIBRARIES:
        cfg = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None)
        return _from_timm(cfg) if isinstance(cfg, Mapping) else None
    if kind == references.TIMM:
        with references.installed("timm") as timm:
            references.require_known(name, timm.list_models())
            cfg = timm.get_pretrained_cfg(own)
            return None if cfg is None else _from_timm(cfg.to_dict())
    with references.installed("torchvision") as torchvision:
        references.require_known(name, torchvision.models.list_models(module=torchvision.models))
        weights = torchvision.models.get_model_weights(own)
        return _from_torchvision(weights.DEFAULT.transforms()) if len(weights) else None


def open_foreign(
    source: str, name: str, network: Any, progress: Progress
) -> tuple[Description, dict[str, Tensor]]:
    """Load initial weights for a network that Striate does not define.

    Args:
        source: `imagenet` or `pretrained` for those of its library; a bundle, a run folder, or a `.pth` or
            `.safetensors` file with the network's own keys.
        name: of the network.
        network: as for `preprocess_of`.
        progress: receives a line per assumption.

    Returns:
        As `striate.weights.open_weights`; a file that is no bundle has no classes.

    Raises:
        UsageError: no such file, or the weights of another network.
        BundleError: the file is damaged or holds no weights.
        DataError: the library cannot download them.
    """
    if source in PRETRAINED:
        return _published(name, source)
    path = bundle.path_of(source)
    if probe(path) is None:
        fix = "Give pretrained, a bundle, or a .pth file with the network's own keys"
        raise UsageError(f"cannot start from {source!r}", *why_missing(path, fix, PRETRAINED))
    if bundle.is_bundle(path):
        description, state = bundle.read(path)
        if description.architecture != name:
            what, why = f"cannot start {name} from {source!r}", f"it holds a {description.architecture}"
            raise UsageError(what, why, f"Use --model {description.architecture}")
        return description, state
    from striate.weights import checkpoints

    checkpoint = checkpoints.read(path)
    for note in checkpoint.notes:
        progress.info(f"{path.name}: {note}")
    return _description(name, (), preprocess_of(name, network) or Preprocess()), checkpoint.state


def _published(name: str, source: str) -> tuple[Description, dict[str, Tensor]]:
    """The weights that a library publishes for a network, with its classifier."""
    kind, own = references.kind_of(name), name.partition(":")[2]
    if kind not in references.LIBRARIES:
        raise UsageError(
            f"--weights {source} with {name}", "only networks of Striate, timm and torchvision have them",
            "Give a file, or leave --weights out for the weights that the network comes with",
        )  # fmt: skip
    preprocess = preprocess_of(name) or Preprocess()
    try:
        with references.installed(kind) as library:
            if kind == references.TIMM:
                network = library.create_model(own, pretrained=True)
            else:
                network = library.models.get_model(own, weights="DEFAULT")
    except StriateError:
        raise
    except Exception as error:  # of the library, the network or the Hub
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        fix = "Check the connection, or give a file as --weights; `--weights none` starts at random"
        raise DataError(f"cannot get the weights of {name} from {kind}", why, fix) from error
    state = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    scores = getattr(network, "num_classes", 1000)
    return _description(name, imagenet_classes() if scores == 1000 else (), preprocess), state


def _description(name: str, classes: tuple[str, ...], preprocess: Preprocess) -> Description:
    """The description of initial weights; they are only used, never written."""
    arguments: dict[str, Any] = {"num_classes": len(classes)} if classes else {}
    return Description("classification", name, arguments, classes, preprocess, provenance={"notes": []})


def _from_timm(cfg: Mapping[str, Any]) -> Preprocess | None:
    """The preprocessing of timm's evaluation; None if the configuration lacks it."""
    try:
        channels, height, width = cfg["input_size"]
        mode, share = cfg.get("crop_mode") or "center", cfg.get("crop_pct") or 0.875
        interpolation = cfg.get("interpolation") or "bilinear"
        return Preprocess(
            size=(height, width),
            resize="squash" if mode == "squash" else "crop",
            shorter_side=max(height, width, int(max(height, width) / share)),
            interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
            channels=channels,
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
        )
    except (KeyError, TypeError, ValueError, UsageError):
        return None


def _from_torchvision(preset: Any) -> Preprocess:
    """The preprocessing of a classification preset of torchvision."""
    size, shorter = preset.crop_size[0], preset.resize_size[0]
    return Preprocess(
        size=(size, size), shorter_side=max(size, shorter), interpolation=preset.interpolation.value,
        mean=tuple(preset.mean), std=tuple(preset.std),
    )  # fmt: skip
