"""The options of sequence to sequence, and the presets for data of different sizes; imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from striate.files import expanded
from striate.models import MODELS
from striate.training.config import MAX_COUNT, MAX_SIDE, DataOptions, Optimization, RunConfig
from striate.training.options import Options, option, override

if TYPE_CHECKING:
    from striate.data.text.columns import ColumnSelection
    from striate.data.text.pairs import PairSet

# Equal to `striate.data.text.tokens.KINDS`; importing that module would load NumPy.
TOKENIZERS = ("characters", "words", "bytes", "sentencepiece")
POSITIONS = ("sinusoidal", "learned", "none")
MONITORS = ("bleu", "similarity", "exact", "accuracy", "error", "loss")
IMAGE_ENCODERS = ("columns", "patches")
# Options that have no effect with sources of the other kind.
_FOR_IMAGES = ("height", "max_width", "channels", "encoder", "encoder_channels", "encoder_from")
_FOR_TEXT = ("source_tokenizer", "shared_vocab")
ENCODERS = (*IMAGE_ENCODERS, *MODELS)


@dataclass(frozen=True)
class Preset:
    """A network and its training, for data of a certain size.

    Attributes:
        pairs: the largest number of training pairs for which it is chosen.
        width: of a token's vector.
        depth: layers of the encoder, and of the decoder.
        heads: attention heads.
        hidden: width of the feed-forward layers.
        dropout: rate.
        word_dropout: rate.
        batch: tokens per step.
        lr: peak learning rate.
        epochs: passes over the data, without a budget.
        steps: fewest optimizer steps: small data are passed over more often, up to `MAX_EPOCHS` times.
    """

    pairs: float
    width: int
    depth: int
    heads: int
    hidden: int
    dropout: float
    word_dropout: float
    batch: int
    lr: float
    epochs: int
    steps: int

    def enough_epochs(self, steps_per_epoch: int) -> int:
        """The number of passes that makes enough steps."""
        return max(self.epochs, min(MAX_EPOCHS, math.ceil(self.steps / steps_per_epoch)))


PRESETS: dict[str, Preset] = {
    "tiny": Preset(3_000, 128, 2, 4, 256, 0.2, 0.0, 1_000, 2e-3, 60, 2_000),
    "small": Preset(100_000, 192, 3, 4, 384, 0.1, 0.0, 3_000, 1.5e-3, 25, 2_000),
    "base": Preset(1_000_000, 256, 3, 4, 1024, 0.1, 0.0, 6_000, 1e-3, 10, 0),
    "large": Preset(float("inf"), 512, 6, 8, 2048, 0.1, 0.0, 25_000, 7e-4, 10, 0),
}
# Of `tiny` with up to 1,000 pairs. Together they lead to fewer errors on 800 pairs, but not on 3,000:
# benchmarks/seq2seq_small.py.
FEW = 1_000
FEW_PAIRS = {"dropout": 0.3, "word_dropout": 0.2, "batch": 300, "steps": 5_000}
MAX_WIDTH = 65_536  # dimensions of a layer
MAX_DEPTH = 1000  # layers
MAX_EPOCHS = 400  # of a preset; a few dozen pairs are memorized long before


def preset_for(name: str, pairs: int) -> Preset:
    """A preset; that of `tiny` changes evenly from `FEW_PAIRS` at 1,000 pairs to its own values at 3,000.

    Args:
        name: in `PRESETS`.
        pairs: number of training pairs.
    """
    preset = PRESETS[name]
    if name != "tiny":
        return preset
    share = min(1.0, max(0.0, (preset.pairs - pairs) / (preset.pairs - FEW)))
    values: dict[str, Any] = {}
    for field, few in FEW_PAIRS.items():
        own = getattr(preset, field)
        value = own + share * (few - own)
        values[field] = round(value) if isinstance(own, int) else round(value, 3)
    return dataclasses.replace(preset, **values)


_BY_PRESET = "based on the number of training pairs"


@dataclass(frozen=True, kw_only=True)
class PairOptions(DataOptions):
    """How text is split into tokens, and how images of text are read."""

    languages: tuple[str, str] | None = option(
        None, "File extensions of source and target in a folder of parallel files, such as en and de",
        in_cli=False,
    )  # fmt: skip
    source_columns: str | None = option(
        None, "Columns of a table that make up the source, joined by spaces: names or numbers, such as 1,3",
        unset="the column source, else the first",
    )  # fmt: skip
    target_columns: str | None = option(
        None, "Columns that make up the target, joined by spaces", unset="the column target, else the next",
    )  # fmt: skip
    reference_columns: str | None = option(
        None, "Columns that are further correct targets; `all` for all other columns", unset="none",
    )  # fmt: skip
    tokenizer: str | None = option(
        None, "Tokenizer", choices=TOKENIZERS, unset="chosen from the text", old_names=("tokens",)
    )  # fmt: skip
    source_tokenizer: str | None = option(
        None, "Tokenizer of the source, if different", choices=TOKENIZERS, old_names=("source_tokens",)
    )
    target_tokenizer: str | None = option(
        None, "Tokenizer of the target, if different", choices=TOKENIZERS, old_names=("target_tokens",)
    )
    vocab_size: int = option(
        8_000,
        "Maximum vocabulary size, for words and sentencepiece",
        minimum=1,
        maximum=10_000_000,
        old_names=("vocab",),
    )
    shared_vocab: bool | None = option(
        None, "One vocabulary and embedding for both sides", flags=("--shared-vocab/--no-shared-vocab",),
        unset="with sentencepiece", old_names=("joint",),
    )  # fmt: skip
    height: int = option(
        32,
        "Height of images in pixels",
        minimum=1,
        maximum=MAX_SIDE,
        flags=("--imgsz", "--height"),
        needs=("encoder_from", (None,)),
    )
    max_width: int = option(
        512,
        "Maximum image width in pixels; wider images are shrunk to it",
        minimum=1,
        maximum=65_536,
        needs=("encoder_from", (None,)),
    )
    channels: Literal[1, 3] = option(1, "Input channels: 1 for grayscale, 3 for RGB")


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(Options):
    """The size of the Transformer, and what encodes images."""

    PANEL: ClassVar[str] = "Model"

    model: str | None = option(
        None, "Preset", choices=tuple(PRESETS), flags=("--model", "-m"), unset=_BY_PRESET
    )
    width: int | None = option(
        None, "Embedding dimension (d_model)", minimum=1, maximum=MAX_WIDTH, unset="the preset's"
    )
    depth: int | None = option(None, "Encoder layers", minimum=1, maximum=MAX_DEPTH, unset="the preset's")
    decoder_depth: int | None = option(
        None, "Decoder layers", minimum=1, maximum=MAX_DEPTH, unset="as many as encoder layers"
    )
    heads: int | None = option(
        None,
        "Attention heads; their number must divide --width",
        minimum=1,
        maximum=MAX_WIDTH,
        unset="the preset's",
    )
    hidden: int | None = option(
        None, "Feed-forward dimension (d_ff)", minimum=1, maximum=16 * MAX_WIDTH, unset="the preset's"
    )
    positions: str = option("sinusoidal", "Positional encoding", choices=POSITIONS)
    encoder: str = option(
        "columns", "Image encoder: columns (convolutions, one position per four columns), patches (ViT), "
        "or the name of a classification network", choices="striate.tasks.seq2seq.config:ENCODERS",
    )  # fmt: skip
    encoder_channels: int | None = option(
        None, "Channels of the encoder's first convolution", minimum=1, maximum=MAX_WIDTH,
        unset="columns: width/8; patches: width", needs=("encoder", IMAGE_ENCODERS),
    )  # fmt: skip
    encoder_from: str | None = option(None, "Initialize the image encoder from this classifier's bundle")


@dataclass(frozen=True, kw_only=True)
class Seq2SeqOptimization(Optimization):
    """Optimization with the defaults of sequence to sequence (Vaswani et al. 2017, section 5)."""

    epochs: int | None = override(Optimization, "epochs", None, unset="the preset's; no limit with --budget")
    batch: int | None = override(
        Optimization, "batch", None, help="Tokens per batch: source + target + padding", unset="the preset's"
    )
    lr: float | None = override(
        Optimization, "lr", None, unset="the preset's",
        help="Peak learning rate; for noam, the factor on the schedule of Vaswani et al. 2017",
    )  # fmt: skip
    dropout: float | None = override(Optimization, "dropout", None, unset="the preset's")
    word_dropout: float | None = option(
        None, "Word dropout: fraction of the target's tokens that the decoder does not see in training",
        minimum=0, below=1, unset="the preset's",
    )  # fmt: skip
    warmup: float = override(Optimization, "warmup", 0.1)
    weight_decay: float | None = override(
        Optimization, "weight_decay", 0.01,
        help="Weight decay, not applied to biases, normalization layers or embeddings",
    )  # fmt: skip
    label_smoothing: float = override(Optimization, "label_smoothing", 0.1)
    grad_clip: float = override(Optimization, "grad_clip", 1.0)
    monitor: str | None = override(
        Optimization, "monitor", None, choices=MONITORS, unset="bleu for sentences, else similarity"
    )
    average: int = override(Optimization, "average", 5)
    sanity_check: bool = option(
        False, "First check that the network can overfit 32 examples", old_names=("check",)
    )


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig(PairOptions, TransformerOptions, Seq2SeqOptimization, RunConfig):
    """One training run on pairs of texts, or of images and text."""

    PANEL: ClassVar[str] = "Run"
    data: Any = dataclasses.field(kw_only=False)
    samples: int = option(3, "Number of translations to print after each epoch", minimum=0, maximum=MAX_COUNT)
    task: Literal["seq2seq"] = option("seq2seq", "Task", in_cli=False)

    def __post_init__(self) -> None:
        """Accept one path; then check everything."""
        paths = (self.data,) if isinstance(self.data, (str, os.PathLike)) else self.data
        object.__setattr__(self, "data", tuple(os.fspath(path) for path in paths))
        super().__post_init__()

    @contextlib.contextmanager
    def open_data(self, run: Path | None = None) -> Iterator[PairSet]:
        """Open the pairs and split them; images are decoded later.

        Raises:
            DataError, UsageError: nothing to train on.
        """
        from striate.data.text.pairs import open_pairs, split_pairs

        found = open_pairs(*self.data, languages=self.languages, columns=self.columns)
        pairs: PairSet = split_pairs(found, val=self.val, test=self.test, seed=self.seed)
        notes = [*self.unused_shares(found.splits), *self._unused(found.kind == "images")]
        yield dataclasses.replace(pairs, notes=(*pairs.notes, *notes))

    def _unused(self, images: bool) -> list[str]:
        """Notes about options that have no effect with these sources."""
        names, sources = (_FOR_TEXT, "images") if images else (_FOR_IMAGES, "text")
        notes = [f"{shown} has no effect: the sources are {sources}" for shown in self.changed(names)]
        if self.tokenizer and self.target_tokenizer and (images or self.source_tokenizer):
            notes.append(f"--tokenizer {self.tokenizer} has no effect: each side has its own tokenizer")
        return notes

    @property
    def columns(self) -> ColumnSelection:
        """The columns of tables that are used; raises UsageError if they cannot be read."""
        from striate.data.text.columns import ColumnSelection

        return ColumnSelection.of(self.source_columns, self.target_columns, self.reference_columns)

    @property
    def source(self) -> str:
        """Name of the data."""
        return " ".join(self.data)

    @property
    def run_name(self) -> str:
        """Name of the run folder."""
        return self.name or f"{Path(self.data[0]).absolute().name.split('.')[0]}-{self.model}"

    @property
    def is_named(self) -> bool:
        """Whether the name of the run folder is known; by default it contains the preset for the data."""
        return self.name is not None or self.model is not None

    def absolute(self) -> Seq2SeqConfig:
        """The same configuration with absolute paths."""

        def absolute(path: str) -> str:
            return str(expanded(path).absolute())

        encoder = None if self.encoder_from is None else absolute(self.encoder_from)
        return dataclasses.replace(self, data=tuple(map(absolute, self.data)), encoder_from=encoder)

    def filled_in(self, pairs: int) -> Seq2SeqConfig:
        """The configuration with the defaults of a preset, except for the number of epochs.

        Args:
            pairs: number of training pairs.
        """
        name = self.model or next(name for name, preset in PRESETS.items() if pairs <= preset.pairs)
        preset = preset_for(name, pairs)
        names = ("width", "depth", "heads", "hidden", "dropout", "word_dropout", "batch")
        chosen = {n: getattr(preset, n) if getattr(self, n) is None else getattr(self, n) for n in names}
        lr = self.lr or (1.0 if self.sched == "noam" else preset.lr)
        return dataclasses.replace(self, model=name, lr=lr, **chosen)

    def with_epochs(self, pairs: int, steps_per_epoch: int) -> Seq2SeqConfig:
        """The filled in configuration with the preset's number of epochs.

        A budget is the only limit, unless the user gives epochs too.

        Args:
            pairs: number of training pairs.
            steps_per_epoch: number of batches per pass over the data, in optimizer steps.
        """
        if self.epochs is not None or self.budget is not None:
            return self
        assert self.model is not None, "filled in"
        return dataclasses.replace(self, epochs=preset_for(self.model, pairs).enough_epochs(steps_per_epoch))

    def to_json(self) -> dict[str, Any]:
        """All options as plain values."""
        return {"task": self.task, "data": list(self.data), **super().to_json()}
