"""What a training run is told, checked before any work starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from striate import models
from striate.errors import DataError, UsageError, unknown_name
from striate.transforms import augmentations

if TYPE_CHECKING:
    from striate.data import DataSet
    from striate.transforms.preprocess import Preprocess

OPTIMIZERS = ("adamw", "sgd", "rmsprop")
SCHEDULES = ("cosine", "step", "constant")
AUGMENTATIONS = ("auto", *augmentations.AUGMENTATIONS)
FEW_IMAGES, MANY_EPOCHS = 10_000, 50  # with so few images and so many epochs, `auto` changes them strongly
MANY_IMAGES = 5_000_000  # from here on lightly, whatever their size
RESIZES = ("crop", "squash", "letterbox")
TRANSFERS = ("all", "last", "head", "append")
NORMALIZES = ("auto", "imagenet", "half", "vgg")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: as for `striate.data.open_data`: a path or a name; or an opened `DataSet`.
        model: a key of `striate.models.MODELS`.
        weights: where the weights come from: `none` for fresh ones; `imagenet`, or a name of `striate weights
            list`, for official ones; a bundle, a `.pth` or a `.safetensors` file.
        transfer: what trains: all of it; the last stages or blocks; the head, a new classifier; append, one
            more layer on top of the whole network. The rest is frozen, buffers too.
        last_layers: how many stages or blocks `last` trains, the classifier among them.
        backbone_lr: peak rate of what came with the weights; None for a tenth of `lr`.
        epochs: passes over the training images.
        budget: time for all of it, such as 90s, 10m or 1h30m: the schedule follows the clock rather than
            `epochs`, and where `imgsz` is None the size of the images is chosen by it; None for no limit.
        batch: images for one step.
        imgsz: side of the square input in pixels; None for the network's own (for small images of one
            size in memory: theirs).
        channels: 3 (RGB) or 1 (grayscale); None for what the network and the images want.
        resize: how images are brought to the input's shape: crop, squash or letterbox.
        normalize: imagenet (mean and std), half (0.5 and 0.5), vgg (the means subtracted from 0-255); auto
            for what the weights were trained with, else imagenet, or half for grayscale.
        augment: random changes of the training images: none, shift, light, scale, standard, strong; auto
            takes none for grayscale, and where a head alone trains (without `views`, `lighting`, `mixup`,
            `cutmix`); strong for under 10,000 images in 50 epochs or more; light up to 64 px, or from five
            million images on; else standard. Or a callable of yours, torchvision's or
            albumentations', that takes and gives one image.
        views: how many changes of each training image there are, the first of them coming again after so many
            epochs: what is frozen then computes once for each; 0 for new ones in every epoch.
        lighting: standard deviation of AlexNet's changes of the light's intensity and colour; 0 for none.
        mixup: alpha of MixUp, which blends the images of a batch and their labels; 0 for none.
        cutmix: alpha of CutMix, which pastes rectangles of them; 0 for none. With both, each batch takes one.
        recipe: name of the recipe that other fields were taken from (`striate.training.recipes`): a note of
            it, which sets none of them.
        opt: adamw, sgd, or rmsprop (as TensorFlow has it).
        momentum: of sgd and rmsprop, 0 to under 1.
        nesterov: look ahead along the momentum, for sgd.
        lr: peak learning rate; None for 0.001 (adamw; 0.002 for networks of up to
            64 px), or for each 256 images of a batch 0.1 (sgd) or 0.016 (rmsprop).
        layer_decay: what the rate is multiplied with from each layer to the one before it, above 0 to 1 (Bao
            et al. 2021); below 1 it takes the place of a tenth for the backbone.
        sched: cosine (to zero), step (times `gamma` at each milestone), constant.
        milestones: for `step`, shares of the run: 0.5,0.75 (He et al. 2016), or 1/75 for each 75th part.
        gamma: for `step`, above 0 to 1.
        warmup: share of all steps over which the rate rises from zero, 0 to 0.5.
        weight_decay: not applied to biases, norms and positions; None for 0.01 (adamw), 0.0001 (sgd) or
            0.00001 (rmsprop).
        dropout: rate of all dropout layers, 0 to under 1; None for the network's own.
        drop_path: chance of the last residual block to be left out, linear over depth, 0 to under 1.
        label_smoothing: share of the label spread over all classes (Szegedy et al. 2016), 0 to under 1.
        grad_clip: largest norm of the gradient; 0 for no limit.
        accumulate: parts in which a step's batch goes through the network, their gradients summed, where the
            memory does not take it at once.
        sync_bn: where several processes train, let BatchNorm's statistics be those of the whole batch rather
            than of each process's share.
        ema: decay of the moving average of the weights that is measured and kept; 0 for none.
        amp: mixed precision; None where the device has it.
        compile: let torch.compile make kernels for the network; takes a minute or more before the first step.
        patience: epochs without a better one before the run stops; 0 for never.
        val: share of the images that chooses the best epoch, where the data have no val split.
        test: share held out for the last measurement, where the data come in one piece.
        seed: of weights, order, augmentation and division.
        device: auto, cpu, cuda, cuda:1, mps.
        workers: threads that decode; None for as many as there are processors.
        save_every: steps from one saved state to the next; 0 for one every minute and at the ends of epochs.
        rollbacks: how often a loss that is not finite sets the run back to its last saved state, with half
            the learning rate, before it stops the run.
        profile: measure where the time goes.
        cache: keep the decoded images in the user's cache folder for the next run.
        name: of the run's folder; None for data and model.
        out: folder that the run's folder is put into.
    """

    data: str | DataSet
    model: str = "resnet18"
    weights: str = "none"
    transfer: str = "all"
    last_layers: int = 2
    backbone_lr: float | None = None
    epochs: int = 20
    budget: str | None = None
    batch: int = 64
    imgsz: int | None = None
    channels: Literal[1, 3] | None = None
    resize: Literal["crop", "squash", "letterbox"] = "crop"
    normalize: str = "auto"
    augment: str | Callable[..., Any] = "auto"
    views: int = 0
    lighting: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    recipe: str | None = None
    opt: str = "adamw"
    momentum: float = 0.9
    nesterov: bool = False
    lr: float | None = None
    layer_decay: float = 1.0
    sched: str = "cosine"
    milestones: str = "0.5,0.75"
    gamma: float = 0.1
    warmup: float = 0.05
    weight_decay: float | None = None
    dropout: float | None = None
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    grad_clip: float = 0.0
    accumulate: int = 1
    sync_bn: bool = False
    ema: float = 0.0
    amp: bool | None = None
    compile: bool = False
    patience: int = 0
    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    save_every: int = 0
    rollbacks: int = 0
    profile: bool = False
    cache: bool = True
    name: str | None = None
    out: str = "runs"

    def __post_init__(self) -> None:
        """Refuse what cannot be; raises UsageError."""
        models.describe(self.model)
        for field, known in (
            ("opt", OPTIMIZERS), ("sched", SCHEDULES), ("augment", AUGMENTATIONS), ("resize", RESIZES),
            ("transfer", TRANSFERS), ("normalize", NORMALIZES),
        ):  # fmt: skip
            if getattr(self, field) not in known and not (field == "augment" and callable(self.augment)):
                raise unknown_name(field, str(getattr(self, field)), known)
        _at_least(self, 1, "epochs", "batch", "imgsz", "workers", "last_layers", "accumulate")
        _at_least(self, 0, "patience", "seed", "grad_clip", "weight_decay", "save_every", "rollbacks")
        _at_least(self, 0, "mixup", "cutmix", "views", "lighting")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"{self.channels} channels", "images are grayscale (1) or RGB (3)")
        for field in ("lr", "backbone_lr"):
            rate = getattr(self, field)
            if rate is not None and not rate > 0:
                raise UsageError(f"{field} = {rate}", "it must be above 0", "Leave it out for the default")
        for field, top in (
            ("warmup", 0.5), ("label_smoothing", 1.0), ("ema", 1.0), ("val", 0.5), ("test", 0.5),
            ("momentum", 1.0), ("dropout", 1.0), ("drop_path", 1.0),
        ):  # fmt: skip
            value = getattr(self, field)
            if value is not None and (not 0 <= value <= top or value == 1):
                raise UsageError(f"{field} = {value}", f"it must be from 0 to {top:g}")
        for field in ("gamma", "layer_decay"):
            if not 0 < getattr(self, field) <= 1:
                raise UsageError(f"{field} = {getattr(self, field)}", "it must be above 0 and at most 1")
        if self.nesterov and (self.opt != "sgd" or not self.momentum):
            raise UsageError(
                "--nesterov", "it is a way of sgd with momentum", "Use --opt sgd, or leave it out"
            )
        _ = self.drops
        if self.transfer != "all" and self.weights == "none":
            raise UsageError(
                f"--transfer {self.transfer} without weights",
                "what is frozen would be random",
                "Give --weights",
            )
        if self.views and self.transfer == "all":
            raise UsageError(
                f"--views {self.views} with --transfer all",
                "nothing is frozen that would compute once for them",
                "Use --transfer last, head or append",
            )
        if self.transfer == "head" and self.model == "lenet5":
            raise UsageError(
                "--transfer head with lenet5", "its output compares with fixed codes", "Use --transfer last"
            )
        if self.budget is not None and not self.budget_seconds > 0:
            raise UsageError(f"--budget {self.budget}", "it must be more than nothing", "Give such as 10m")
        if self.val == 0:
            raise UsageError("val = 0", "without held-out images there is no best epoch", "Use 0.1")
        if self.name is not None and (self.name in ("", ".", "..") or PurePath(self.name).name != self.name):
            raise UsageError(
                f"--name {self.name!r}", "it is the name of one folder", "Use --out for its place"
            )
        one = models.MODELS[self.model].input_size
        if models.MODELS[self.model].sizes == "one" and self.imgsz not in (None, one):
            raise UsageError(
                f"--imgsz {self.imgsz} with {self.model}", f"it reads {one}x{one} only", "Leave it out"
            )

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; raises UsageError where it cannot be read."""
        return seconds_of(self.budget or "")

    @property
    def peak_rate(self) -> float:
        """The largest learning rate of the run."""
        if self.lr is not None:
            return self.lr
        if self.opt == "sgd":
            return 0.1 * self.batch / 256  # Goyal et al. 2017, section 2.1
        if self.opt == "rmsprop":
            return 0.016 * self.batch / 256  # torchvision's reference for MobileNetV3: 0.064 for 1024
        return 2e-3 if models.MODELS[self.model].input_size <= 64 else 1e-3

    @property
    def backbone_rate(self) -> float:
        """The largest learning rate of what came with the weights."""
        if self.backbone_lr is not None:
            return self.backbone_lr
        return self.peak_rate / 10 if self.layer_decay == 1 else self.peak_rate

    @property
    def drops(self) -> tuple[float, ...]:
        """The milestones as shares of the run; raises UsageError where they cannot be read."""
        try:
            first, *others = self.milestones.split(",")
            if first.startswith("1/") and not others:
                parts = int(first.removeprefix("1/"))
                return tuple(place / parts for place in range(1, parts))
            shares = tuple(float(share) for share in (first, *others))
        except (ValueError, AttributeError):
            shares = ()
        if not shares or any(not 0 < share < 1 for share in shares):
            raise UsageError(
                f"--milestones {self.milestones}",
                "they are shares of the run",
                "Give such as 0.5,0.75, or 1/75",
            )
        return shares

    @property
    def decay(self) -> float:
        """The weight decay of the run."""
        if self.weight_decay is not None:
            return self.weight_decay
        return {"adamw": 0.01, "sgd": 1e-4, "rmsprop": 1e-5}[self.opt]

    def preprocess(self, pixels_shape: tuple[int, ...] | None) -> Preprocess:
        """The contract of this run.

        Args:
            pixels_shape: of the images in memory, `[n, height, width]` or `[n, height, width, 3]`; None
                for files.
        """
        # These need NumPy, which `--help` does not.
        from striate.transforms.preprocess import NORMALIZATIONS, Preprocess

        architecture = models.MODELS[self.model]
        size = self.imgsz or architecture.input_size
        channels = self.channels or architecture.channels
        if pixels_shape is not None:
            own = max(pixels_shape[1:3])
            if self.imgsz is None and architecture.sizes != "one" and own <= 64 >= architecture.input_size:
                size = own if own >= 28 else architecture.input_size  # MNIST's 28 as they are; 8 enlarged
            if self.channels is None and len(pixels_shape) == 3:
                channels = 1
        preprocess = Preprocess.for_size(size, channels, resize=self.resize)
        if self.normalize == "auto":
            return preprocess
        mean, std = NORMALIZATIONS[self.normalize]
        if channels == 1:
            return dataclasses.replace(preprocess, mean=(fmean(mean),), std=(fmean(std),))
        return dataclasses.replace(preprocess, mean=mean, std=std)

    def augmentation(self, preprocess: Preprocess, images: int) -> str | Callable[..., Any]:
        """The recipe of this run, by name, or the user's own.

        Args:
            preprocess: the contract of the run.
            images: how many it trains on.
        """
        if self.augment != "auto":
            return self.augment
        return self._suited(preprocess, images)[0]

    def why_augmented(self, preprocess: Preprocess, images: int) -> str:
        """Why `auto` takes the recipe that it takes, in a few words; empty where the user named one."""
        return self._suited(preprocess, images)[1] if self.augment == "auto" else ""

    def _suited(self, preprocess: Preprocess, images: int) -> tuple[str, str]:
        """What `auto` takes, and why. Steiner et al. 2021 ("How to train your ViT?"), section 4, on numbers.

        They find that strong changes stand in for missing images where training goes on for long, and do harm
        in short runs and on images by the million.
        """
        if preprocess.channels == 1:
            return "none", "grayscale may be writing, which is not to be mirrored"
        if self.transfer in ("head", "append") and not self._changes_anyway:
            return "none", "what is frozen computes once"
        if images >= MANY_IMAGES:
            return "light", f"{images:,} images vary enough"
        if images < FEW_IMAGES and self.epochs >= MANY_EPOCHS and not self.budget:
            return "strong", f"{images:,} images, each seen {self.epochs} times, could be learnt by heart"
        if max(preprocess.size) <= 64:
            return "light", "images of up to 64 px"
        return "standard", "images beyond 64 px"

    @property
    def _changes_anyway(self) -> bool:
        return bool(self.views or self.lighting or self.mixup or self.cutmix)

    @property
    def source(self) -> str:
        """What the data are called: their path or name."""
        return self.data if isinstance(self.data, str) else self.data.source

    def change_of(self, epoch: int) -> int:
        """Which change of each image an epoch is shown, both counting from 0."""
        return epoch % self.views if self.views else epoch

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values; a callable is told by its name, and must be given again to resume."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["data"] = self.source
        if not isinstance(self.augment, str):
            kind = self.augment if hasattr(self.augment, "__qualname__") else type(self.augment)
            values["augment"] = f"{kind.__module__}.{kind.__qualname__}"
        return values


_WHOLE = (
    "epochs", "batch", "imgsz", "workers", "seed", "patience", "accumulate", "save_every", "rollbacks",
    "views",
)  # fmt: skip


def seconds_of(budget: str) -> float:
    """A time such as 90s, 10m or 1h30m in seconds; raises UsageError where it is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms]?)", budget)
    if "".join(number + unit for number, unit in parts) != budget or not parts:
        raise UsageError(f"--budget {budget!r}", "that is no time", "Give such as 90s, 10m or 1h30m")
    return sum(float(number) * {"h": 3600, "m": 60, "s": 1, "": 1}[unit] for number, unit in parts)


def implied_model(weights: str) -> str | None:
    """The network that weights are of, where they say: a bundle, a run's folder, a name of the catalog.

    Needs no torch. A file that cannot be read says nothing here; opening it will.
    """
    from striate.weights.catalog import CATALOG

    if weights in CATALOG:
        return CATALOG[weights].architecture
    if weights in ("none", "imagenet"):
        return None
    from striate import bundle

    try:
        return bundle.inspect(bundle.path_of(weights)).description.architecture
    except DataError:
        return None


def _at_least(config: TrainConfig, least: int, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if value is not None and not isinstance(value, (int, float)):
            raise UsageError(f"{field} = {value!r}", "it must be a number")
        if isinstance(value, float) and field in _WHOLE:
            raise UsageError(f"{field} = {value!r}", "it must be a whole number")
        if value is not None and not value >= least:
            raise UsageError(
                f"--{field.replace('_', '-')} {value}",
                f"it must be at least {least}",
                "Leave it out for the default",
            )
