"""The options of image classification, checked before any work starts; imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from striate import models
from striate.errors import DataError, UsageError
from striate.files import expanded
from striate.tasks.classification.options import (
    EPOCHS,
    ClassifierOptimization,
    ImageOptions,
    NetworkOptions,
)
from striate.training.config import RunConfig, dataset_name
from striate.training.options import current_names, option

if TYPE_CHECKING:
    from striate.tasks.classification.data import ImageData
    from striate.transforms.preprocess import Preprocess

AUTO_FEW_IMAGES, AUTO_MANY_EPOCHS = 10_000, 50  # with fewer images and so many epochs, `auto` is `strong`
AUTO_MANY_IMAGES = 5_000_000  # with so many, `auto` is `light`


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(ImageOptions, NetworkOptions, ClassifierOptimization, RunConfig):
    """One training run on images."""

    data: Any = dataclasses.field(kw_only=False)
    task: Literal["classification"] = option("classification", "Task", in_cli=False)
    FREE: ClassVar[tuple[str, ...]] = (*RunConfig.FREE, "exclude")  # a run has a copy of what it leaves out

    def __post_init__(self) -> None:
        """Open data that are objects in memory, which have no path; then check everything."""
        if isinstance(self.data, os.PathLike):
            object.__setattr__(self, "data", os.fspath(self.data))
        elif not isinstance(self.data, str):
            from striate.data import open_data  # imports NumPy

            object.__setattr__(self, "data", open_data(self.data))
        if isinstance(self.exclude, os.PathLike):
            object.__setattr__(self, "exclude", os.fspath(self.exclude))
        if not isinstance(self.model, str) and callable(self.model):
            name, arguments = models.path_of(self.model)
            if self.model_arguments:
                why, fix = "it is for an import path only", "Bind the arguments with functools.partial"
                raise UsageError(f"model_arguments with the object {name}", why, fix)
            object.__setattr__(self, "network", self.model)
            object.__setattr__(self, "model", name)
            object.__setattr__(self, "model_arguments", arguments or None)
        super().__post_init__()

    @property
    def architecture(self) -> str:
        """The name of the network, also if it was given as an object."""
        assert isinstance(self.model, str), "set at once"
        return self.model

    @property
    def permission(self) -> models.Permission:
        """What the caller allows beyond the networks of Striate."""
        return models.Permission(self.network, self.trust)

    @property
    def brings_weights(self) -> bool:
        """Whether the initial weights may be those that the network comes with."""
        return self.weights == "none" and models.is_custom(self.architecture)

    def check_together(self) -> None:
        """Refuse combinations that have no meaning."""
        row = models.describe(self.architecture)
        if self.classifier is not None and not models.is_foreign(self.architecture):
            what, why = f"--classifier with {self.model}", f"that of this network is {row.classifier}"
            raise UsageError(what, why, "Leave it out")
        if self.model_arguments and not models.is_custom(self.architecture):
            what = f"model_arguments with {self.model}"
            raise UsageError(what, "only the factory of an import path takes them", "Leave them out")
        self._require_weights_to_freeze()
        if self.group_column is not None and self.group_pattern is not None:
            why = "a group is read from one of them"
            raise UsageError("--group-column with --group-pattern", why, "Leave one of them out")
        if self.exclude_kinds and self.exclude is None:
            why = "there is no table of images to leave out"
            raise UsageError(f"--exclude-kinds {self.exclude_kinds}", why, "Give --exclude problems.csv")
        if 0 < self.reducing_gap < 1:
            raise UsageError(f"--reducing-gap {self.reducing_gap}", "it must be 0, or at least 1", "Use 2")
        if self.views and self.transfer == "all":
            raise UsageError(
                f"--views {self.views} with --transfer all", "no layers are frozen to cache the output of",
                "Use --transfer last, head or append",
            )  # fmt: skip
        if self.class_weights != "none" and self.sampler == "balanced":
            what = f"--class-weights {self.class_weights} with --sampler balanced"
            raise UsageError(what, "each of them balances the classes", "Give one of the two")
        if self.transfer == "head" and not row.head_replaceable:
            raise UsageError(
                f"--transfer head with {self.model}", "its output layer is fixed and cannot be replaced",
                "Use --transfer last",
            )  # fmt: skip
        if row.sizes == "one" and self.imgsz not in (None, row.input_size):
            raise UsageError(
                f"--imgsz {self.imgsz} with {self.model}", f"it reads {row.input_size}x{row.input_size} only",
                "Leave it out",
            )  # fmt: skip
        super().check_together()

    def _require_weights_to_freeze(self) -> None:
        """Refuse to freeze layers that would be random; raises UsageError."""
        frozen = (("--transfer", self.transfer, "all"), ("--unfreeze-every", self.unfreeze_every, 0))
        wanted = [f"{name} {value}" for name, value, none in frozen if value != none]
        if not wanted or self.brings_weights:
            return
        from striate.weights.catalog import PRETRAINED, has_default  # imports NumPy

        published = models.is_foreign(self.architecture) or has_default(self.architecture)
        why = "the frozen layers would be random"
        if self.weights == "none":
            fix = "Give --weights pretrained, or a file" if published else "Give a file or run as --weights"
            raise UsageError(f"{wanted[0]} without weights", why, f"{fix}, or leave {wanted[0]} out")
        if self.weights in PRETRAINED and not published:
            why = f"no ImageNet weights are published for it, and without weights {why}"
            fix = f"Give a file or run as --weights, or another --model, or leave {wanted[0]} out"
            raise UsageError(f"{wanted[0]} with {self.model}", why, fix)

    @contextlib.contextmanager
    def open_data(self, run: Path | None = None) -> Iterator[ImageData]:
        """Open the data, and decode the first batch in the background until the context ends.

        Args:
            run: the folder of the run that is being resumed, which knows what it has left out.

        Raises:
            DataError, UsageError: nothing to train on.
        """
        from striate.tasks.classification.data import ImageData

        with ImageData(self, run) as data:
            yield data

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the user gives. Who names an import path allows it, which a file cannot."""
        model = values.get("model")
        if not isinstance(model, str) or not models.is_foreign(model):
            return dict(values)
        return {**values, "trust": ",".join(filter(None, (values.get("trust"), model.partition(":")[0])))}

    @classmethod
    def from_user(cls, values: Mapping[str, Any]) -> tuple[ClassificationConfig, list[str]]:
        """Fill in the weights of transfer learning, the network they name, and the settings of a recipe."""
        from striate.weights.catalog import PRETRAINED  # imports NumPy

        known, notes = current_names(cls, values)
        model = known.get("model", models.DEFAULT)
        comes_with_weights = not isinstance(model, str) or models.is_custom(model)
        if "weights" not in known and known.get("transfer", "all") != "all" and not comes_with_weights:
            known["weights"] = PRETRAINED[0]
        if "model" not in known and (model := network_of(known.get("weights", "none"))):
            known["model"] = model
            if known["weights"] in PRETRAINED:
                notes.append(f"no --model: using {model}, whose weights are installed")
        if known.get("recipe") is not None:
            from striate.training import recipes

            data, model = known.pop("data"), known.pop("model", models.DEFAULT)
            model = model if isinstance(model, str) else models.path_of(model)[0]
            settings, message = recipes.apply(known.pop("recipe"), model, known)
            known = {"data": data, **settings}
            notes.append(message)
        return cls(**known), notes

    def repeats(self) -> Iterator[tuple[str, ClassificationConfig]]:
        """The runs of a cross-validation, or with several seeds: the name of each, and its configuration."""
        folds = range(1, (self.folds or 0) + 1) if self.fold is None else ()
        for name, config in super().repeats():
            if not folds:
                yield name, config
            for fold in folds:
                names = [name] if self.seeds > 1 else []
                yield "-".join((*names, f"fold-{fold}")), dataclasses.replace(config, fold=fold)

    def absolute(self) -> ClassificationConfig:
        """The same configuration with absolute paths."""
        from striate.data import absolute_source

        weights = str(Path(self.weights).absolute()) if Path(self.weights).exists() else self.weights
        exclude = None if self.exclude is None else str(expanded(self.exclude).absolute())
        return dataclasses.replace(self, data=absolute_source(self.source), weights=weights, exclude=exclude)

    @property
    def source(self) -> str:
        """Name of the data: a path, or a name."""
        return self.data if isinstance(self.data, str) else str(self.data.source)

    @property
    def run_name(self) -> str:
        """Name of the run folder."""
        from striate.data.images.in_memory import IN_MEMORY_SUFFIX

        return self.name or f"{dataset_name(self.source.removesuffix(IN_MEMORY_SUFFIX))}-{self.network_name}"

    @property
    def network_name(self) -> str:
        """The network's name without its library or module, as part of a file name."""
        return self.architecture.rpartition(":")[2]

    @property
    def epoch_limit(self) -> int | None:
        """The largest number of epochs; None if only the budget ends training."""
        return EPOCHS if self.epochs is None and self.budget is None else self.epochs

    @property
    def peak_lr(self) -> float:
        """The peak learning rate, with the optimizer's default filled in."""
        if self.lr is not None:
            return self.lr
        if self.opt == "sgd":
            return 0.1 * self.step_batch / 256  # Goyal et al. 2017, section 2.1
        if self.opt == "rmsprop":
            return 0.016 * self.step_batch / 256  # torchvision's reference for MobileNetV3: 0.064 for 1024
        if self.transfer in ("head", "append"):
            return 3e-3  # one layer: a lower loss than with 0.001 (docs/training.md)
        return 2e-3 if models.describe(self.architecture).input_size <= 64 else 1e-3

    @property
    def backbone_peak_lr(self) -> float:
        """The peak learning rate of pretrained layers."""
        if self.backbone_lr is not None:
            return self.backbone_lr
        return self.peak_lr / 10 if self.layer_decay == 1 else self.peak_lr

    def own_preprocess(self, pixels_shape: tuple[int, ...] | None, bands: int | None = None) -> Preprocess:
        """The preprocessing of a run with random initial weights.

        Args:
            pixels_shape: of images in memory, `[n, height, width(, channels)]`; None for files.
            bands: channels of images that are neither grayscale nor RGB.
        """
        # These import NumPy, which `--help` does not.
        from striate.transforms.preprocess import NORMALIZATIONS, Preprocess

        row = models.describe(self.architecture)
        size = self.imgsz or row.input_size
        channels = self.channels or bands or row.channels
        if pixels_shape is not None:
            side = max(pixels_shape[1:3])
            if self.imgsz is None and row.sizes != "one" and side <= 64 >= row.input_size:
                size = side if side >= 28 else row.input_size  # MNIST's 28 px are kept, 8 px are enlarged
            if self.channels is None and len(pixels_shape) == 3:
                channels = 1
        preprocess = Preprocess.for_size(size, channels, resize=self.resize, reducing_gap=self.reducing_gap)
        if self.normalize == "auto":
            return preprocess
        mean, std = NORMALIZATIONS[self.normalize]
        if channels == 3:
            return dataclasses.replace(preprocess, mean=mean, std=std)
        return dataclasses.replace(preprocess, mean=(fmean(mean),) * channels, std=(fmean(std),) * channels)

    def made_for(self) -> Preprocess | None:
        """The preprocessing that a network of another library was made for, if it says."""
        if not models.is_foreign(self.architecture):
            return None
        from striate.weights.libraries import preprocess_of

        return preprocess_of(self.architecture, self.network)

    def require_label_kind(self, multi_label: bool) -> None:
        """Refuse options that have no meaning for images with several classes, or only for those.

        Raises:
            UsageError: names the option.
        """
        monitors = ("top1", "map", "micro-f1", "macro-f1", "loss")  # top1 is the default, which becomes map
        if multi_label and self.monitor not in monitors:
            why, fix = "images have several classes", f"Use {', '.join(monitors[1:])}"
            raise UsageError(f"--monitor {self.monitor}", why, fix)
        if not multi_label and self.monitor in ("map", "micro-f1"):
            why, fix = (
                "it is for images with several classes",
                "Use top1, balanced-accuracy, macro-f1 or loss",
            )
            raise UsageError(f"--monitor {self.monitor}", why, fix)
        if multi_label and self.sampler == "balanced":
            why, fix = "images have several classes, which it cannot balance", "Use --class-weights balanced"
            raise UsageError("--sampler balanced", why, fix)

    def require_colours(self, channels: int) -> None:
        """Refuse augmentations that change colors, for images of bands whose colors are unknown.

        Raises:
            UsageError: names the option.
        """
        if channels in (1, 3):
            return
        needing = {"--augment strong": self.augment == "strong", "--lighting": self.lighting > 0}
        for flag in (name for name, given in needing.items() if given):
            why = f"it changes colors, so it needs RGB images; these have {channels} channels"
            raise UsageError(f"{flag} with {channels} channels", why, "Use --augment standard")

    def augmentation(self, preprocess: Preprocess, images: int) -> tuple[str | Callable[..., Any], str]:
        """The augmentation, and why `auto` chooses it (empty if the user chose it).

        Steiner et al. 2021 ("How to train your ViT?"), section 4: strong augmentation replaces missing images
        in long runs, and hurts in short runs and with millions of images.

        Args:
            preprocess: of the run.
            images: number of training images.
        """
        if self.augment != "auto":
            return self.augment, ""
        if preprocess.channels == 1:
            return "none", "grayscale images may be text, which must not be mirrored"
        if self.transfer in ("head", "append") and not (
            self.views or self.lighting or self.mixup or self.cutmix
        ):
            return "none", "frozen layers then run only once"
        if images >= AUTO_MANY_IMAGES:
            return "light", f"{images:,} images vary enough"
        epochs = 0 if self.budget else self.epoch_limit or 0
        is_rgb = preprocess.channels == 3  # the operations of `strong` need colors
        if is_rgb and images < AUTO_FEW_IMAGES and epochs >= AUTO_MANY_EPOCHS:
            return "strong", f"the network would overfit {images:,} images in {epochs} epochs"
        if max(preprocess.size) <= 64:
            return "light", "images of up to 64 px"
        return "standard", "images above 64 px"

    def augmentation_epoch(self, epoch: int) -> int:
        """The epoch whose augmentations are used: with `views`, they repeat."""
        return epoch % self.views if self.views else epoch

    def to_json(self) -> dict[str, Any]:
        """All options as plain values; a callable is saved by its name and must be given again to resume."""
        return {"task": self.task, "data": self.source, **super().to_json()}


def network_of(weights: str) -> str | None:
    """The network that initial weights belong to, if they say: a bundle, a run folder, a catalog name.

    For `pretrained` it is the first network whose weights an installed package contains; None without any.
    Needs no torch. An unreadable file returns None; opening it will report the error.
    """
    from striate.weights import installed
    from striate.weights.catalog import CATALOG, PRETRAINED

    if weights in CATALOG:
        return CATALOG[weights].architecture
    if weights in PRETRAINED:
        found = installed.first()
        return None if found is None else found.architecture
    if weights == "none":
        return None
    from striate import bundle

    with contextlib.suppress(DataError):
        return bundle.describe(bundle.path_of(weights)).architecture
    return None
