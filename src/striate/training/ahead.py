"""What a run needs before torch: its data are opened, and the first images decode while torch is loaded.

Loading torch takes longer than all else that comes before a first step; nothing of this waits for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from striate import bundle
from striate.data import DataSet, DecodedImages, SplitPlan, open_data
from striate.data.check import quick_check
from striate.data.images import split
from striate.errors import DataError
from striate.kernels import preload
from striate.progress import SILENT, Progress
from striate.training.config import TrainConfig
from striate.training.schedule import batches
from striate.transforms.preprocess import Preprocess
from striate.weights.catalog import CATALOG, default

if TYPE_CHECKING:
    from striate.training.folder import TrainedRun


def train(config: TrainConfig, progress: Progress = SILENT) -> TrainedRun:
    """`striate.training.session.train`, which tells what is returned and raised, while torch is loaded."""
    preload.load_libraries()
    with Ahead(config, progress) as ahead:
        with _without_collector():
            from striate.training import session
        return session.train(config, progress, ahead=ahead)


class Ahead:
    """A run's data; while this is entered, its first images are being read.

    Args:
        config: of the run.
        progress: is told if the cache cannot be used.

    Attributes:
        dataset: divided.
        notes: what was passed over.

    Raises:
        DataError, UsageError: nothing there to train on.
    """

    def __init__(self, config: TrainConfig, progress: Progress = SILENT) -> None:
        self.dataset, self.notes = _divided(config)
        self._config, self._progress = config, progress
        self._decoded: dict[tuple[Preprocess, bool], tuple[DecodedImages, DecodedImages]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._remarks: Future[list[str]] | None = None

    def __enter__(self) -> Ahead:
        """Begin to read the first batch, in a thread; more of either would keep torch from being loaded."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._remarks = self._pool.submit(quick_check, self.dataset)
        preprocess = _foreseen(self._config, self.dataset)
        if preprocess is not None:
            train, _ = self.images(preprocess, self._config)
            if train.reusable and self.dataset.splits["train"].pixels is None:
                order = batches(len(train), self._config.batch, seed=self._config.seed, epoch=0)
                for i in order[0].tolist():
                    self._pool.submit(train.prefetch, i)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading."""
        self.stop()

    def images(self, preprocess: Preprocess, config: TrainConfig) -> tuple[DecodedImages, DecodedImages]:
        """The images to train and to validate with, as far as they are read by now."""
        margin = (
            config.augmentation(preprocess, len(self.dataset.splits["train"])) != "none"
        )  # room for random crops
        if (preprocess, margin) not in self._decoded:
            train, val = (
                DecodedImages(
                    self.dataset.splits[name], preprocess, crop=not (margin and name == "train"),
                    cache=config.cache, root=self.dataset.root, progress=self._progress,
                )
                for name in ("train", "val")
            )  # fmt: skip
            self._decoded[preprocess, margin] = train, val
        return self._decoded[preprocess, margin]

    def remarks(self) -> list[str]:
        """What a quick check of the data has to say."""
        return quick_check(self.dataset) if self._remarks is None else self._remarks.result()

    def stop(self) -> None:
        """Read no further; what is under way is finished."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def contract(
    config: TrainConfig, dataset: DataSet, theirs: Preprocess | None, notes: list[str]
) -> Preprocess:
    """The contract of a run: that of its weights, unless the user says otherwise, which is remarked on.

    Args:
        config: of the run.
        dataset: that it trains on.
        theirs: the contract of the weights that it starts from, None for fresh ones.
        notes: where remarks are added.
    """
    pixels = dataset.splits["train"].pixels
    own = config.preprocess(None if pixels is None else pixels.shape)
    if theirs is None:
        return own
    size = theirs if config.imgsz is None else own
    channels = config.channels or theirs.channels
    mean, std = (theirs.mean, theirs.std) if config.normalize == "auto" else (own.mean, own.std)
    if len(mean) != channels:  # weights for RGB that are to read grayscale, or the other way round
        mean, std = (fmean(mean),) * channels, (fmean(std),) * channels
    chosen = dataclasses.replace(
        theirs, size=size.size, shorter_side=size.shorter_side, resize=size.resize, channels=channels,
        mean=mean, std=std,
    )  # fmt: skip
    for field in ("size", "channels", "mean", "std", "resize"):
        if getattr(chosen, field) != getattr(theirs, field):
            notes.append(
                f"the weights were trained with {field} {getattr(theirs, field)}; "
                f"this run uses {getattr(chosen, field)}"
            )
    return chosen


def _foreseen(config: TrainConfig, dataset: DataSet) -> Preprocess | None:
    """The contract that a run is going to have, as far as it can be told without torch."""
    if config.budget and config.imgsz is None:
        return None  # the time decides the size of the images
    if config.weights == "none":
        return contract(config, dataset, None, [])
    with contextlib.suppress(DataError):  # of weights that cannot be read, opening them will tell
        if config.weights == "imagenet" or config.weights in CATALOG:
            entry = CATALOG.get(config.weights) or default(config.model)
            return contract(config, dataset, entry.preprocess, [])
        path = bundle.path_of(config.weights)
        if path.exists() and bundle.is_bundle(path):
            return contract(config, dataset, bundle.inspect(path).description.preprocess, [])
    return None


def _divided(config: TrainConfig) -> tuple[DataSet, list[str]]:
    """The data in train, val and maybe test, with the classes of train; and what was passed over."""
    found = open_data(config.data)
    dataset = split(found, SplitPlan(config.val, config.test, config.seed))
    notes = list(dataset.notes)
    if "val" not in dataset.splits or not len(dataset.splits["train"]):
        raise DataError(
            f"cannot train on {config.source!r}",
            f"with {sum(map(len, found.splits.values()))} images none is left to choose the best epoch by",
            "Give each class at least three images, or make a val folder",
        )
    known = np.unique(dataset.splits["train"].labels)
    dataset, left_out = dataset.with_classes(tuple(dataset.classes[i] for i in known))
    notes += [
        f"class {name!r} has no training images: its {count} others are left out"
        for name, count in left_out.items()
    ]
    if len(dataset.classes) < 2:
        raise DataError(
            f"cannot train on {config.source!r}",
            "; ".join((f"it has one class, {dataset.classes[0]!r}", *notes)),
            "A classifier needs two: add a folder with images of what it is not",
        )
    return dataset, notes


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Load torch without looking for garbage in what it is made of, now or later: a tenth of the time."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # else the first look afterwards would be at all of it
        gc.enable()
