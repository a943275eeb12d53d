"""What a sequence-to-sequence run is told, and what it chooses for the data where it is told nothing."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from striate.errors import UsageError, unknown_name
from striate.models import MODELS
from striate.training.config import seconds_of

SCHEDULES = ("cosine", "inverse-sqrt", "noam", "constant")
POSITIONS = ("sinusoidal", "learned", "none")
ENCODERS = ("columns", "patches")


def is_run_on_pairs(folder: str | os.PathLike[str]) -> bool:
    """Whether a run's folder is of `striate seq2seq train`."""
    try:
        values = yaml.safe_load((Path(folder).expanduser() / "config.yaml").read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and "target_tokens" in values


@dataclass(frozen=True)
class Preset:
    """A network and how it learns, for data of a size.

    Attributes:
        pairs: of the training data, up to which it is chosen.
        width: of a token's vector.
        depth: layers of the encoder, and as many of the decoder.
        heads: of the attentions.
        hidden: width between the feed-forward layers.
        dropout: in the layers.
        batch: tokens of a step.
        lr: peak learning rate.
        epochs: passes over the data, where there is no budget.
    """

    pairs: float
    width: int
    depth: int
    heads: int
    hidden: int
    dropout: float
    batch: int
    lr: float
    epochs: int


PRESETS: dict[str, Preset] = {
    "tiny": Preset(3_000, 128, 2, 4, 256, 0.2, 1_000, 2e-3, 60),
    "small": Preset(100_000, 192, 3, 4, 384, 0.1, 3_000, 1.5e-3, 25),
    "base": Preset(1_000_000, 256, 3, 4, 1024, 0.1, 6_000, 1e-3, 10),
    "large": Preset(float("inf"), 512, 6, 8, 2048, 0.1, 25_000, 7e-4, 10),
}


@dataclass(frozen=True)
class SeqConfig:
    """One run on pairs. A field that is 0 or None by default is chosen for the data; `filled` says what.

    Attributes:
        data: one or two paths, as for `striate.data.text.pairs.open_pairs`.
        languages: endings of source and target in a folder of parallel files.
        tokens: kind of both sides' tokens: characters, words, bytes, sentencepiece.
        source_tokens: kind of the source's, where it is another.
        target_tokens: kind of the target's, where it is another.
        vocab: most ids of words or sentence pieces.
        joint: one vocabulary, and one embedding, for both sides.
        model: a key of `PRESETS`.
        width: of a token's vector.
        depth: layers of the encoder.
        decoder_depth: layers of the decoder; None for as many.
        heads: of the attentions; divides the width.
        hidden: width between the feed-forward layers.
        dropout: 0 to under 1.
        positions: sinusoidal, learned or none.
        encoder: of images: columns, patches, or a network of `striate.models.MODELS`.
        encoder_channels: of the first convolution of columns, twice as many in each of the next three, or of
            patches; 0 for an eighth of the width, or the width.
        encoder_from: a classifier's bundle that the encoder of images starts from.
        height: of images, in pixels.
        max_width: of images of a line, in pixels; what is wider is squashed.
        channels: 1 for grayscale, 3 for RGB.
        epochs: passes over the pairs.
        budget: time for all of it, such as 6m, in place of epochs; the schedule follows the clock.
        batch: tokens of a step, source, target and padding.
        lr: peak learning rate; for noam, what the paper's rate is multiplied with.
        sched: cosine (to zero); inverse-sqrt, which falls with the square root of the step; noam, the same
            with the peak of Vaswani et al. 2017, (width * warm-up steps)^-0.5; constant.
        warmup: over which the rate rises: below 1 a share of all steps, from 1 on so many.
        weight_decay: not on biases, norms and positions.
        label_smoothing: share of the target spread over all tokens.
        grad_clip: largest norm of the gradient; 0 for no limit.
        average: so many of the last epochs' weights are averaged at the end, and kept where that is better;
            0 for none.
        accumulate: parts of a batch, where the memory does not take it at once.
        amp: mixed precision; None where the device has it.
        patience: epochs without a better one before the run stops; 0 for never.
        val: share of the pairs that chooses the best epoch, where the data have no val split.
        test: share for the last measurement, where the data come in one piece.
        samples: answers that are shown after each epoch.
        check: first see whether the network can learn 32 examples by heart.
        seed: of weights, order and division.
        device: auto, cpu, cuda, cuda:1, mps.
        workers: threads that decode; None for as many as there are processors.
        save_every: steps from one saved state to the next; 0 for a minute.
        rollbacks: how often a loss that is not finite sets the run back.
        name: of the run's folder.
        out: folder that the run's folder is put into.
    """

    data: tuple[str, ...]
    languages: tuple[str, str] | None = None
    tokens: str | None = None
    source_tokens: str | None = None
    target_tokens: str | None = None
    vocab: int = 8_000
    joint: bool | None = None
    model: str | None = None
    width: int = 0
    depth: int = 0
    decoder_depth: int | None = None
    heads: int = 0
    hidden: int = 0
    dropout: float | None = None
    positions: str = "sinusoidal"
    encoder: str = "columns"
    encoder_channels: int = 0
    encoder_from: str | None = None
    height: int = 32
    max_width: int = 512
    channels: int = 1
    epochs: int = 0
    budget: str | None = None
    batch: int = 0
    lr: float = 0.0
    sched: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    grad_clip: float = 1.0
    average: int = 5
    accumulate: int = 1
    amp: bool | None = None
    patience: int = 0
    val: float = 0.1
    test: float = 0.1
    samples: int = 3
    check: bool = False
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    save_every: int = 0
    rollbacks: int = 0
    name: str | None = None
    out: str = "runs"

    def __post_init__(self) -> None:
        """Refuse what cannot be; raises UsageError."""
        for field, known in (
            ("model", PRESETS), ("sched", SCHEDULES), ("positions", POSITIONS),
            ("encoder", (*ENCODERS, *MODELS)),
        ):  # fmt: skip
            value = getattr(self, field)
            if value is not None and value not in known:
                raise unknown_name(field, str(value), known)
        if given := {self.tokens, self.source_tokens, self.target_tokens} - {None}:
            from striate.data.text.tokens import KINDS  # brings NumPy, which `--help` does not need

            for kind in given - set(KINDS):
                raise unknown_name("kind of tokens", str(kind), KINDS)
        for field in ("vocab", "decoder_depth", "height", "max_width", "accumulate", "workers"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise UsageError(f"{field} = {value}", "it must be at least 1")
        for field in (
            "width", "depth", "heads", "hidden", "encoder_channels", "epochs", "batch", "lr", "warmup",
            "weight_decay", "grad_clip", "average", "patience", "samples", "seed", "save_every", "rollbacks",
        ):  # fmt: skip
            if getattr(self, field) < 0:
                raise UsageError(f"{field} = {getattr(self, field)}", "it must be at least 0")
        for field, top in (("dropout", 1.0), ("label_smoothing", 1.0), ("val", 0.5), ("test", 0.5)):
            value = getattr(self, field)
            if value is not None and (not 0 <= value <= top or value == 1):
                raise UsageError(f"{field} = {value}", f"it must be from 0 to {top:g}")
        if self.channels not in (1, 3):
            raise UsageError(f"{self.channels} channels", "images are grayscale (1) or RGB (3)")
        if self.val == 0:
            raise UsageError("val = 0", "without held-out pairs there is no best epoch", "Use 0.1")
        if self.budget is not None:
            if not self.budget_seconds > 0:
                raise UsageError(f"--budget {self.budget}", "it must be more than nothing", "Give such as 6m")
            if self.warmup >= 1 or self.sched == "noam":
                raise UsageError(
                    f"--warmup {self.warmup:g} with --sched {self.sched} and --budget",
                    "how many steps the time is worth is not known before",
                    "Give the warm-up as a share, such as 0.1, and another schedule than noam",
                )
        if self.name is not None and (self.name in ("", ".", "..") or PurePath(self.name).name != self.name):
            raise UsageError(
                f"--name {self.name!r}", "it is the name of one folder", "Use --out for its place"
            )

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; raises UsageError where it cannot be read."""
        return seconds_of(self.budget or "")

    @property
    def peak_rate(self) -> float:
        """The largest learning rate of the run, for noam its factor; of a configuration that is filled."""
        return self.lr

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SeqConfig:
        """The inverse of `to_json`; raises TypeError or UsageError for what cannot be."""
        given: dict[str, Any] = {**values, "data": tuple(values["data"])}
        if given.get("languages") is not None:
            given["languages"] = tuple(given["languages"])
        return cls(**given)


def filled(config: SeqConfig, pairs: int) -> SeqConfig:
    """The configuration with a value for whatever hangs on the size of the data.

    Args:
        config: as the user gave it.
        pairs: of the training data.
    """
    name = config.model or next(name for name, preset in PRESETS.items() if pairs <= preset.pairs)
    preset = PRESETS[name]
    chosen = {
        field: getattr(config, field) or getattr(preset, field)
        for field in ("width", "depth", "heads", "hidden", "batch", "epochs")
    }
    dropout = preset.dropout if config.dropout is None else config.dropout
    lr = config.lr or (1.0 if config.sched == "noam" else preset.lr)
    return dataclasses.replace(config, model=name, dropout=dropout, lr=lr, **chosen)


@dataclass(frozen=True)
class Rates:
    """A schedule in numbers; `learning_rate` takes them.

    Attributes:
        peak_rate: the largest rate that is reached.
        sched: as `learning_rate` calls it.
        warmup: share of all steps.
        warning: what is wrong with it, None if nothing.
    """

    peak_rate: float
    sched: str
    warmup: float
    warning: str | None = None


def rates(config: SeqConfig, steps: int | None) -> Rates:
    """The schedule of a configuration.

    Args:
        config: filled.
        steps: of the whole run; None where the clock decides.
    """
    if steps is None:
        return Rates(config.lr, config.sched, config.warmup)
    rising = config.warmup if config.warmup >= 1 else max(1.0, round(config.warmup * steps))
    peak = config.lr * (config.width * rising) ** -0.5 if config.sched == "noam" else config.lr
    sched = "inverse-sqrt" if config.sched == "noam" else config.sched
    if rising <= steps / 2:
        return Rates(peak, sched, rising / steps)
    return Rates(
        peak * min(1.0, steps / rising),  # what is reached of it
        sched,
        min(1.0, rising / steps),
        f"the learning rate rises for {rising:,.0f} of {steps:,} steps: most of the run is warm-up "
        "(more --epochs, a smaller --batch, or --warmup 0.1)",
    )
