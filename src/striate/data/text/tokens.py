"""From text to token ids and back; the one owner of the special ids and of begin and end.

A tokenizer is a JSON-able value that lies in the bundle beside the weights: its ids are rows of the network's
embedding, so that weights without their tokenizer say nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from striate.errors import BundleError, DataError, UsageError, unknown_name

PAD, BOS, EOS, UNK = 0, 1, 2, 3
NUM_SPECIALS = 4  # ids below are no text
KINDS = ("characters", "words", "bytes", "sentencepiece")
_STRANGE = "\N{REPLACEMENT CHARACTER}"  # what an unknown id is written as


def normalize_text(text: str) -> str:
    """Text in Unicode's composed form (NFC): what looks alike has the same tokens."""
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Tokenizer:
    """How text becomes ids.

    Attributes:
        kind: `characters`; `words`, which spaces separate (phonemes, too); `bytes` of UTF-8, which know no
            unknown text; `sentencepiece`.
        vocabulary: of characters and words, the text of each id from `SPECIALS` on; else empty.
        model: of sentencepiece, its model file in base64; else empty.
    """

    kind: str
    vocabulary: tuple[str, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; raises UsageError."""
        if self.kind not in KINDS:
            raise unknown_name("kind of tokens", self.kind, KINDS)
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise UsageError("a vocabulary names a token twice", "an id would have two meanings")

    def __len__(self) -> int:
        """How many ids there are, special ones among them."""
        if self.kind == "bytes":
            return NUM_SPECIALS + 256
        if self.kind == "sentencepiece":
            return int(self._pieces.get_piece_size())
        return NUM_SPECIALS + len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without begin and end."""
        text = normalize_text(text)
        if self.kind == "bytes":
            return [NUM_SPECIALS + byte for byte in text.encode("utf-8", "surrogateescape")]
        if self.kind == "sentencepiece":
            return list(self._pieces.encode(text))
        parts = text.split() if self.kind == "words" else text
        return [self._ids.get(part, UNK) for part in parts]

    def source(self, text: str) -> list[int]:
        """The ids that an encoder reads: those of the text, and END, so that there is always one."""
        return [*self.encode(text), EOS]

    def target(self, text: str) -> list[int]:
        """The ids that a decoder learns: BEGIN, those of the text, END."""
        return [BOS, *self.encode(text), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, up to the first END; of the other special ids only UNKNOWN is visible."""
        kept: list[int] = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                kept.append(int(i))
        if self.kind == "bytes":
            raw = b"".join(
                bytes([i - NUM_SPECIALS]) if i >= NUM_SPECIALS else _STRANGE.encode() for i in kept
            )
            return raw.decode("utf-8", "replace")
        if self.kind == "sentencepiece":
            text = "".join(_STRANGE if i == UNK else self._pieces.id_to_piece(i) for i in kept)
            return text.replace("▁", " ").removeprefix(" ")
        return (" " if self.kind == "words" else "").join(self.id_to_token(i) for i in kept)

    def id_to_token(self, i: int) -> str:
        """How one id is shown in a picture or a table."""
        if i < NUM_SPECIALS:
            return ("<pad>", "<begin>", "<end>", _STRANGE)[i]
        if self.kind == "bytes":
            byte = i - NUM_SPECIALS
            return chr(byte) if 32 < byte < 127 else f"{byte:02x}"
        if self.kind == "sentencepiece":
            return str(self._pieces.id_to_piece(i))
        return self.vocabulary[i - NUM_SPECIALS]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "vocabulary": list(self.vocabulary), "model": self.model}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tokenizer:
        """The inverse of `to_json`; raises UsageError for what cannot be."""
        return cls(values["kind"], tuple(values["vocabulary"]), values["model"])

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides what an id means."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.vocabulary, NUM_SPECIALS)}

    @cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=base64.b64decode(self.model))


def train_tokenizer(texts: Sequence[str], kind: str, size: int = 8000) -> Tokenizer:
    """Make a tokenizer from training text.

    Args:
        texts: of the training data only.
        kind: one of `KINDS`.
        size: most ids, the special ones among them; `characters` and `words` keep the most frequent,
            `bytes` has always the same.

    Raises:
        UsageError: an unknown kind; sentencepiece is not installed.
        DataError: there is no text to learn from.
    """
    if kind == "sentencepiece":
        return Tokenizer(kind, model=_learn_pieces([normalize_text(text) for text in texts], size))
    if kind == "bytes":
        return Tokenizer(kind)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalize_text(text).split() if kind == "words" else normalize_text(text))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return Tokenizer(kind, tuple(ranked[: size - NUM_SPECIALS]))


def suggest_kind(texts: Sequence[str]) -> str:
    """A kind of tokens that suits a text.

    Characters for single words, numbers, dates; words where spaces separate short symbols, such as phonemes;
    sentencepiece for sentences, or words where it is not installed.
    """
    some = texts[:: max(1, len(texts) // 2000)]
    parts = [text.split() for text in some]
    count = sum(map(len, parts))
    if count < 2 * len(some):  # mostly one word each
        return "characters"
    kinds = len({part for words in parts for part in words})
    if sum(len(part) for words in parts for part in words) <= 3 * count and kinds < 200:
        return "words"
    if count < 5 * len(some):
        return "characters"
    try:
        _sentencepiece()
    except UsageError:
        return "words"
    return "sentencepiece"


def check_tokenizers(
    source: Tokenizer | None, target: Tokenizer, shapes: dict[str, int], digests: Sequence[str], where: str
) -> None:
    """Refuse tokenizers that are not those the weights learnt with.

    Args:
        source: what the encoder reads with; None for images.
        target: what the decoder writes with.
        shapes: rows of the embeddings, under `source` and `target`.
        digests: of the tokenizers at the time of training, as written down then.
        where: the file, for the message.

    Raises:
        BundleError: another number of ids, or ids with other meanings.
    """
    for name, tokenizer in (("source", source), ("target", target)):
        if tokenizer is not None and shapes[name] != len(tokenizer):
            raise BundleError(
                f"cannot use {where!r}",
                f"its {name} tokenizer has {len(tokenizer):,} ids, its weights {shapes[name]:,}",
                "The two are of different runs: take the bundle as training wrote it",
            )
    if list(digests) != [t.digest for t in (source, target) if t is not None]:
        raise BundleError(
            f"cannot use {where!r}",
            "its vocabulary is not the one that its weights learnt",
            "The two are of different runs: take the bundle as training wrote it",
        )


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise UsageError(
            "sentencepiece is not installed", "its tokens need it", "pip install 'striate[text]'"
        ) from error
    return sentencepiece


def _learn_pieces(texts: list[str], size: int) -> str:
    if not any(text.strip() for text in texts):
        raise DataError("no text to learn tokens from", "every line is empty")
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, model_type="unigram", vocab_size=size,
            hard_vocab_limit=False,  # a small text has fewer pieces than asked for
            character_coverage=1.0, normalization_rule_name="nfkc", num_threads=1,
            pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        raise DataError(
            f"cannot learn {size:,} sentence pieces", " ".join(str(error).split()), "Use --tokens characters"
        ) from error
    return base64.b64encode(model.getvalue()).decode()
