"""The description of a model, in the header of its bundle."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from striate import models, strict_json
from striate.bundle.calibration import Calibration
from striate.errors import BundleError
from striate.transforms.preprocess import Preprocess
from striate.validation import InvalidValueError, is_text, require_fields, shown

FORMAT = 3  # the newest that is read; docs/compatibility.md has the policy
# Each bundle has the oldest format that holds it, so that earlier versions read what they know.
_FIRST_FORMAT, _THRESHOLDS_FORMAT, _REDUCING_GAP_FORMAT = 1, 2, 3
# The keys of a file's metadata, and the fields that are not in the first of them.
DESCRIPTION, CALIBRATION, UNKNOWN = "striate", "striate.calibration", "striate.unknown"
_APART = ("calibration", "unknown")
_MOST_TOKENS = 10**9  # in a text, far more than any network reads


@dataclass(frozen=True)
class Description:
    """The header of a bundle.

    Attributes:
        task: `classification` or `seq2seq`.
        architecture: a key of `striate.models.MODELS`, or a name as in `striate.models.references`; for
            `seq2seq` a key of `striate.models.seq2seq.SEQUENCE_MODELS`.
        arguments: the arguments that the network was built with; of a network that Striate does not define,
            the fields of `striate.models.references.Reference`.
        classes: a name for each score, in the order of the scores; empty for `seq2seq`.
        preprocess: how an image becomes the network's input; None if the model reads text.
        metrics: measured on held-out data.
        provenance: versions, data, seed, date.
        calibration: of a classifier's probabilities; None if it is not calibrated.
        unknown: features of training images (`UnknownInputs.encode`), decoded only where they are used; empty
            if there are none.
        thresholds: for images with several classes, the probability from which on each class is predicted;
            None for images with one class.
        text: for `seq2seq`, the tokenizers and settings that `striate.inference.translator` needs; else None.
    """

    task: str
    architecture: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess | None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] | None = None
    calibration: Calibration | None = None
    unknown: str = field(default="", repr=False)
    thresholds: tuple[float, ...] | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether images have any number of classes instead of one."""
        return self.thresholds is not None

    @property
    def image_preprocess(self) -> Preprocess:
        """The preprocessing of a model that reads images.

        Raises:
            BundleError: the model reads text.
        """
        if self.preprocess is None:
            raise BundleError(f"a {self.architecture} reads no images", "it was trained on text")
        return self.preprocess

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without what earlier versions do not know."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _APART}
        values |= {"classes": list(self.classes)}
        values |= {"preprocess": self.preprocess.to_json() if self.preprocess else None}
        if self.text is None:  # image bundles keep the keys they had before seq2seq existed
            del values["text"]
        if self.thresholds is None:
            del values["thresholds"]
        else:
            values["thresholds"] = list(self.thresholds)
        return {"format": self._format, **values}

    @property
    def _format(self) -> int:
        """The oldest format that holds this description."""
        if self.preprocess is not None and self.preprocess.reducing_gap:
            return _REDUCING_GAP_FORMAT
        return _FIRST_FORMAT if self.thresholds is None else _THRESHOLDS_FORMAT

    def metadata(self) -> dict[str, str]:
        """The entries of a file's metadata, texts by key. Earlier versions ignore all but the first."""
        calibration = None if self.calibration is None else self.calibration.to_json()
        return {
            DESCRIPTION: strict_json.dumps(self.to_json()),
            **({CALIBRATION: strict_json.dumps(calibration)} if calibration else {}),
            **({UNKNOWN: self.unknown} if self.unknown else {}),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Description:
        """The inverse of `metadata`; raises ValueError, InvalidValueError or UsageError as `from_json`."""
        found = cls.from_json(strict_json.loads(metadata[DESCRIPTION]))
        found = dataclasses.replace(found, unknown=metadata.get(UNKNOWN, ""))
        if CALIBRATION not in metadata:
            return found
        calibration = Calibration.from_json(strict_json.loads(metadata[CALIBRATION]))
        return dataclasses.replace(found, calibration=calibration)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Description:
        """The inverse of `to_json`.

        Raises:
            InvalidValueError, UsageError: the values are not a description; the message names the field.
        """
        if isinstance(values, Mapping):
            values = {key: value for key, value in values.items() if key != "format"}
        require_fields(values, cls, "")
        preprocess = values["preprocess"]
        values["preprocess"] = None if preprocess is None else Preprocess.from_json(preprocess)
        if values.get("thresholds") is not None:
            values["thresholds"] = tuple(values["thresholds"])
        found = cls(**{**values, "classes": tuple(values["classes"])})
        found._require_consistent()
        return found

    def _require_consistent(self) -> None:
        """Check the class names and the channels against the arguments of the network, and `text`.

        Raises:
            InvalidValueError: they contradict each other.
        """
        if self.text is not None:
            self._require_fitting_text()
        for name in ("task", "architecture"):
            if not getattr(self, name).isprintable():
                raise InvalidValueError(name, getattr(self, name), "a name")
        if models.is_foreign(self.architecture):
            models.interface(self.architecture, self.arguments)
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise InvalidValueError("classes", why=f"has {shown(twice[0])} twice")
        if not all(map(is_text, self.classes)):
            raise InvalidValueError("classes", why="has a name that is not valid text")
        if self.task == "classification" and self.preprocess is None:
            raise InvalidValueError("preprocess", None, "an object")
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            why = f"has {len(self.thresholds):,} numbers for {len(self.classes):,} classes"
            raise InvalidValueError("thresholds", why=why)
        arguments = self.arguments
        scores = arguments.get("append", arguments.get("num_classes"))
        if self.task == "classification" and scores is not None and scores != len(self.classes):
            why = f"has {len(self.classes):,} names, but the network has {shown(scores)} scores"
            raise InvalidValueError("classes", why=why)
        own = None if self.preprocess is None else self.preprocess.channels
        if own is not None and arguments.get("in_channels", own) != own:
            why = f"is {own}, but the network reads {shown(arguments['in_channels'])} channels"
            raise InvalidValueError("preprocess.channels", why=why)

    def _require_fitting_text(self) -> None:
        """Check what a model that generates text must say; raises InvalidValueError."""
        require_fields(self.text, _Text, "text")
        text = self.text or {}
        if (text["source"] is None) == (self.preprocess is None):
            why = "must be null for a model that reads images, and only then"
            raise InvalidValueError("text.source", why=why)
        for name in ("ratio", "longest"):
            if not 0 <= text[name] <= _MOST_TOKENS:
                raise InvalidValueError(f"text.{name}", text[name], f"from 0 to {_MOST_TOKENS:,}")


@dataclass(frozen=True)
class _Tokens:
    """A tokenizer in a description, as `striate.data.text.tokens.Tokenizer.to_json` writes it."""

    kind: Literal["characters", "words", "bytes", "sentencepiece"]
    vocabulary: tuple[str, ...]
    model: str


@dataclass(frozen=True)
class _Counts:
    """Numbers of token ids."""

    source: int
    target: int


@dataclass(frozen=True)
class _Columns:
    """Columns of a table of pairs."""

    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Text:
    """The types of `Description.text`."""

    source: _Tokens | None
    target: _Tokens
    ids: _Counts
    digests: tuple[str, ...]
    ratio: float
    longest: int
    columns: _Columns = _Columns()
