"""The images of a run: opened, split, and read ahead while torch is being imported.

Importing torch takes longer than everything else before the first step, and nothing here waits for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from striate import bundle, models
from striate.csv_file import read_table, write_csv
from striate.data import DataSet, DecodedImages, Problem, Samples, first_problems
from striate.data.check import Finding, quick_check, quick_summary
from striate.data.images.tables import write_split
from striate.errors import DataError, DecodeError
from striate.files import probe
from striate.sections import Remark
from striate.tasks import data_table
from striate.tasks.classification.balance import epoch_order
from striate.tasks.classification.opening import open_splits
from striate.tasks.data_table import Source
from striate.transforms.multiband import count_bands
from striate.transforms.preprocess import Preprocess
from striate.weights.catalog import named

if TYPE_CHECKING:
    from striate.tasks.classification.config import ClassificationConfig

_PROBLEMS, SPLIT = "problems.csv", "split.csv"
_PROBLEM_COLUMNS = ("path", "reason")
_PIECE = 256  # plain PNG files that are read at once; about 5 ms
_PROBED = 64  # images of a torch Dataset that are read to see whether they have changed


class ImageData:
    """A run's images in their splits. Inside its context, the first images are read in the background.

    Args:
        config: of the run.
        run: the folder of the run that is being resumed; None for a new one.

    Attributes:
        dataset: with train, val and possibly test.
        notes: which data are left out.
        exclusion: what a table of problems left out; None without one.

    Raises:
        DataError, UsageError: nothing to train on.
    """

    def __init__(self, config: ClassificationConfig, run: Path | None = None) -> None:
        self.dataset, self.notes, self.exclusion = open_splits(config, run)
        self._config = config
        self._decoded: dict[tuple[Preprocess, bool], tuple[DecodedImages, DecodedImages]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._check: Future[tuple[Finding, ...]] | None = None

    def __enter__(self) -> ImageData:
        """Start to read the first batch, in one thread; more would slow down the import of torch.

        Plain PNG files are all read, because that does not.
        """
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._check = self._pool.submit(quick_check, self.dataset)
        preprocess = _expected_preprocess(self._config, self.dataset)
        if preprocess is not None:
            train, val = self.images(preprocess, self._config)
            if train.reusable and self.dataset.splits["train"].pixels is None:
                first = epoch_order(self._config, train.labels, 0)[0]
                for i in dict.fromkeys((first % len(train)).tolist()):
                    self._pool.submit(train.prefetch, i)
            for images in (train, val):
                for start in range(0, len(images) if images.reads_plain else 0, _PIECE):
                    self._pool.submit(images.read_plain, np.arange(start, min(start + _PIECE, len(images))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading."""
        self.stop()

    def stop(self) -> None:
        """Stop reading ahead; what has started is finished."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def images(
        self, preprocess: Preprocess, config: ClassificationConfig
    ) -> tuple[DecodedImages, DecodedImages]:
        """The images for training and validation, partly read already."""
        augmentation, _ = config.augmentation(preprocess, len(self.dataset.splits["train"]))
        uncropped = augmentation != "none"  # room for random crops
        if (preprocess, uncropped) not in self._decoded:
            train, val = (
                DecodedImages(
                    self.dataset.splits[name], preprocess, crop=not (uncropped and name == "train"),
                    cache=config.cache, root=self.dataset.root, progress=config.progress,
                )
                for name in ("train", "val")
            )  # fmt: skip
            self._decoded[preprocess, uncropped] = train, val
        return self._decoded[preprocess, uncropped]

    def findings(self) -> tuple[Finding, ...]:
        """What a quick check of the data found."""
        if self._check is None or self._check.cancelled():
            return quick_check(self.dataset)
        return self._check.result()

    def warnings(self) -> list[str]:
        """The most serious of it, in at most one line."""
        return quick_summary(self.dataset, self.findings())


def choose_preprocess(
    config: ClassificationConfig, dataset: DataSet, pretrained: Preprocess | None
) -> tuple[Preprocess, list[str]]:
    """The preprocessing of a run: that of its initial weights, unless the user says otherwise.

    Args:
        config: of the run.
        dataset: that it trains on.
        pretrained: the preprocessing of the initial weights, None for random ones.

    Returns:
        The preprocessing, and a note for each way in which it differs from that of the weights.
    """
    pixels, bands = dataset.splits["train"].pixels, _bands(dataset)
    own = config.own_preprocess(None if pixels is None else pixels.shape, bands)
    base = pretrained or config.made_for()
    if base is None:
        unknown = models.is_foreign(config.architecture) and config.imgsz is None
        assumed = f"{config.model} does not say for which images it was made: {own.summary} are assumed"
        return own, [f"{assumed} (--imgsz, --normalize and --channels change it)"] if unknown else []
    size = base if config.imgsz is None else own
    channels = config.channels or bands or base.channels
    source = base if config.normalize == "auto" else own
    mean, std = source.mean, source.std
    if len(mean) != channels:  # weights for RGB on images of other channels, or the other way round
        mean, std = (fmean(mean),) * channels, (fmean(std),) * channels
    chosen = dataclasses.replace(
        base, size=size.size, shorter_side=size.shorter_side, resize=size.resize, channels=channels,
        mean=mean, std=std, reducing_gap=own.reducing_gap,
    )  # fmt: skip
    if pretrained is None:
        return chosen, []
    notes = [
        (Remark if field == "size" else str)(
            f"the weights were trained with {field} {getattr(pretrained, field)}; "
            f"this run uses {getattr(chosen, field)}"
        )
        for field in ("size", "channels", "mean", "std", "resize")
        if getattr(chosen, field) != getattr(pretrained, field)
    ]
    return chosen, notes


def _bands(dataset: DataSet) -> int | None:
    """The channels of images that are neither grayscale nor RGB; None for others, and for unknown ones."""
    train = dataset.splits["train"]
    if train.pixels is not None:
        count = train.pixels.shape[3] if train.pixels.ndim == 4 else 1
    else:
        with contextlib.suppress(DecodeError):
            return count_bands(train.fetch(0))
        return None
    return None if count in (1, 3) else count


def require_enough(dataset: DataSet, train: DecodedImages, val: DecodedImages) -> None:
    """Refuse data of which too little is readable; reads no more files than needed to be sure."""
    classes = 0
    for label in range(len(dataset.classes)):
        own = train.labels[:, label] if dataset.is_multi_label else train.labels == label
        classes += train.any_readable(np.flatnonzero(own))
        if classes == 2:
            break
    if classes < 2 or not val.any_readable(np.arange(len(val))):
        what = (
            "val has no image left" if classes == 2 else f"only {classes} classes have training images left"
        )
        problems = train.problems + val.problems
        raise DataError(
            f"cannot train on {dataset.source!r}",
            f"{len(problems)} images cannot be read, and {what}: {first_problems(problems)}",
            "Repair or replace them",
        )


def write_inputs(folder: Path, dataset: DataSet) -> None:
    """Write split.csv, a table that `open_data` reads; an empty problems.csv; and the table of all files."""
    write_split(folder / SPLIT, dataset)
    write_problems(folder, ())
    data_table.write(folder, _sources(dataset))


def write_problems(folder: Path, problems: tuple[Problem, ...]) -> None:
    """List the unreadable images of a run in problems.csv."""
    rows = [(problem.path, problem.reason) for problem in problems]
    write_csv(folder / _PROBLEMS, rows, _PROBLEM_COLUMNS)


def read_problems(folder: Path) -> tuple[Problem, ...]:
    """The unreadable images that a run has listed; raises DataError if the list is damaged."""
    if probe(folder / _PROBLEMS) is None:
        return ()
    return tuple(Problem(*row) for _, row in read_table(folder / _PROBLEMS, _PROBLEM_COLUMNS))


def identity(dataset: DataSet) -> str:
    """Classes, splits, names and labels as one text; equal in all processes that see the same data."""
    parts = list(dataset.classes)
    for name, samples in dataset.splits.items():
        names = map(dataset.relative_name, samples.names)
        parts += [name, *names, ",".join(map(str, samples.labels.tolist()))]
    return "\0".join(parts)


def data_changes(folder: Path, dataset: DataSet) -> list[str]:
    """Sentences that say how a dataset differs from the one of a run.

    Raises:
        DataError: the table of its files is damaged.
    """
    return data_table.changes(folder, _sources(dataset))


def _expected_preprocess(config: ClassificationConfig, dataset: DataSet) -> Preprocess | None:
    """The preprocessing that the run will have; None if finding it out needs torch."""
    if config.budget and config.imgsz is None:
        return None  # the budget decides the image size
    if config.weights == "none":
        return choose_preprocess(config, dataset, None)[0]
    if models.is_foreign(config.architecture):
        return None
    with contextlib.suppress(DataError):  # unreadable weights are reported when they are opened
        if (entry := named(config.weights, config.architecture)) is not None:
            return choose_preprocess(config, dataset, entry.preprocess)[0]
        path = bundle.path_of(config.weights)
        if path.exists() and bundle.is_bundle(path):
            return choose_preprocess(config, dataset, bundle.describe(path).preprocess)[0]
    return None


def _sources(dataset: DataSet) -> Iterator[Source]:
    """Name of each image below its root; its split, class, and the state of its file or a checksum."""
    for split_name, samples in dataset.splits.items():
        texts = dataset.label_texts(samples)
        for i, (name, text) in enumerate(zip(samples.names, texts, strict=True)):
            row = (split_name, dataset.relative_name(name), text)
            if samples.pixels is not None:
                yield Source(*row, samples.pixels[i].nbytes, zlib.crc32(samples.pixels[i].tobytes()))
            elif (stamp := samples.stamp(i)) is not None or samples.store is None:
                yield Source.of(*row, stamp)  # problems.csv lists a file that cannot be looked at
            elif i in range(0, len(samples), max(1, len(samples) // _PROBED)):
                yield Source(*row, *_probe(samples, i))
            else:
                yield Source(*row)


def _probe(samples: Samples, i: int) -> tuple[int, int]:
    """Size and checksum of an item of a torch Dataset."""
    try:
        pixels = np.asarray(samples.fetch(i))
    except DecodeError:
        return -1, -1
    return pixels.nbytes, zlib.crc32(pixels.tobytes())
