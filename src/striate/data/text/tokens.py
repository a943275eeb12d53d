"""Tokenizers: text to token ids and back, and the special ids PAD, BOS, EOS and UNK.

A tokenizer is stored as JSON in the bundle, together with the weights: its ids are the rows of the embedding.
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
from itertools import takewhile
from typing import Any

from striate.errors import BundleError, DataError, UsageError, unknown_name
from striate.printable import first_few

PAD, BOS, EOS, UNK = 0, 1, 2, 3
NUM_SPECIALS = 4  # special ids come first
NEVER_GENERATED = (PAD, BOS, UNK)  # no text contains them; generation ends with EOS
KINDS = ("characters", "words", "bytes", "sentencepiece")
_UNK_TEXT = "\N{REPLACEMENT CHARACTER}"  # text of UNK


def normalize_text(text: str) -> str:
    """Normalize text to Unicode's composed form (NFC), so that equal-looking text has equal tokens."""
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Tokenizer:
    """Maps text to ids and ids to text.

    Attributes:
        kind: `characters`; `words`, separated by spaces (also for phonemes); `bytes` of UTF-8, without
            unknown tokens; `sentencepiece`.
        vocabulary: for characters and words, the token of each id from `NUM_SPECIALS` on; else empty.
        model: for sentencepiece, its model file in base64; else empty.
    """

    kind: str
    vocabulary: tuple[str, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        """Check kind and vocabulary; raises UsageError."""
        if self.kind not in KINDS:
            raise unknown_name("kind of tokens", self.kind, KINDS)
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise UsageError("duplicate token in a vocabulary", "each token must have one id")

    def __len__(self) -> int:
        """Vocabulary size, special ids included."""
        if self.kind == "bytes":
            return NUM_SPECIALS + 256
        if self.kind == "sentencepiece":
            return int(self._pieces.get_piece_size())
        return NUM_SPECIALS + len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without BOS and EOS."""
        text = normalize_text(text)
        if self.kind == "bytes":
            return [NUM_SPECIALS + byte for byte in text.encode("utf-8", "surrogateescape")]
        if self.kind == "sentencepiece":
            return list(self._pieces.encode(text))
        parts = text.split() if self.kind == "words" else text
        return [self._ids.get(part, UNK) for part in parts]

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the characters (or words, for `words`) of a text that have no id, each once."""
        text = normalize_text(text)
        if self.kind == "bytes":
            return ()
        if self.kind == "sentencepiece":
            pieces = zip(self._pieces.encode(text), self._pieces.encode(text, out_type=str), strict=True)
            parts: Iterable[str] = "".join(piece for i, piece in pieces if i == UNK).replace("▁", "")
        else:
            parts = (p for p in (text.split() if self.kind == "words" else text) if p not in self._ids)
        return tuple(dict.fromkeys(parts))

    def encode_source(self, text: str) -> list[int]:
        """Return the encoder input: the ids of the text and EOS, so that it is never empty."""
        return [*self.encode(text), EOS]

    def encode_target(self, text: str) -> list[int]:
        """Return the decoder sequence: BOS, the ids of the text, EOS."""
        return [BOS, *self.encode(text), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids up to the first EOS. PAD and BOS are skipped."""
        kept = [int(i) for i in takewhile(lambda i: i != EOS, ids) if i not in (PAD, BOS)]
        if self.kind == "bytes":
            raw = (_UNK_TEXT.encode() if i < NUM_SPECIALS else bytes([i - NUM_SPECIALS]) for i in kept)
            return b"".join(raw).decode("utf-8", "replace")
        if self.kind == "sentencepiece":
            text = "".join(_UNK_TEXT if i == UNK else self._pieces.id_to_piece(i) for i in kept)
            return text.replace("▁", " ").removeprefix(" ")
        return (" " if self.kind == "words" else "").join(self.id_to_token(i) for i in kept)

    def id_to_token(self, i: int) -> str:
        """Return a printable form of one id, for figures and tables."""
        if i < NUM_SPECIALS:
            return ("<pad>", "<begin>", "<end>", _UNK_TEXT)[i]
        if self.kind == "bytes":
            byte = i - NUM_SPECIALS
            return chr(byte) if 32 < byte < 127 else f"{byte:02x}"
        if self.kind == "sentencepiece":
            return str(self._pieces.id_to_piece(i))
        return self.vocabulary[i - NUM_SPECIALS]

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {"kind": self.kind, "vocabulary": list(self.vocabulary), "model": self.model}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tokenizer:
        """Create from `to_json` values; raises UsageError."""
        return cls(values["kind"], tuple(values["vocabulary"]), values["model"])

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the ids."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.vocabulary, NUM_SPECIALS)}

    @cached_property
    def _pieces(self) -> Any:
        try:
            return _sentencepiece().SentencePieceProcessor(model_proto=base64.b64decode(self.model))
        except (ValueError, RuntimeError) as error:
            why = f"sentencepiece cannot read its model ({' '.join(str(error).split())[:100]})"
            raise BundleError("a tokenizer is damaged", why, "Use the bundle as training wrote it") from error


def train_tokenizer(texts: Sequence[str], kind: str, size: int = 8000) -> Tokenizer:
    """Train a tokenizer on the training text.

    Args:
        texts: of the training split only.
        kind: one of `KINDS`.
        size: maximum vocabulary size, special ids included; `characters` and `words` keep the most frequent
            tokens, `bytes` ignores it.

    Raises:
        UsageError: unknown kind, or sentencepiece is not installed.
        DataError: the text is empty.
    """
    if kind == "sentencepiece":
        return Tokenizer(kind, model=_train_pieces([normalize_text(text) for text in texts], size))
    if kind == "bytes":
        return Tokenizer(kind)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalize_text(text).split() if kind == "words" else normalize_text(text))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return Tokenizer(kind, tuple(ranked[: size - NUM_SPECIALS]))


def suggest_kind(texts: Sequence[str]) -> str:
    """Choose a kind of tokens for a text.

    Characters for single words, numbers and dates; words for short symbols separated by spaces, such as
    phonemes; sentencepiece for sentences, or words if it is not installed.
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
    """Check that tokenizers belong to the weights.

    Args:
        source: tokenizer of the encoder; None for images.
        target: tokenizer of the decoder.
        shapes: number of embedding rows, by `source` and `target`.
        digests: of the tokenizers in training, as the bundle states them.
        where: the file, for the message.

    Raises:
        BundleError: the vocabulary size or the ids differ.
    """
    why = ""
    for name, tokenizer in (("source", source), ("target", target)):
        if tokenizer is not None and shapes[name] != len(tokenizer):
            why = f"its {name} tokenizer has {len(tokenizer):,} ids, but its weights have {shapes[name]:,}"
    if not why and list(digests) != [t.digest for t in (source, target) if t is not None]:
        why = "its vocabulary differs from the one that its weights were trained with"
    if why:
        fix = "Tokenizer and weights are from different runs: use the bundle as training wrote it"
        raise BundleError(f"cannot use {where!r}", why, fix)


def shown_unknown(parts: Iterable[str], most: int = 10) -> str:
    """Unknown characters or words, each once, as a short list."""
    return first_few([repr(part) for part in dict.fromkeys(parts)], most)


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        fix = "pip install 'striate[text]'"
        raise UsageError("cannot use sentencepiece", "it is not installed", fix) from error
    return sentencepiece


def _train_pieces(texts: list[str], size: int) -> str:
    if not any(text.strip() for text in texts):
        raise DataError("cannot train a tokenizer", "every line of text is empty")
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, model_type="unigram", vocab_size=size,
            hard_vocab_limit=False,  # a small text has fewer pieces than requested
            # So that decoded text equals what was encoded; nfkc would split ligatures and fractions.
            normalization_rule_name="identity", remove_extra_whitespaces=False,
            character_coverage=1.0, num_threads=1,
            pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        what, why = f"cannot train {size:,} sentencepiece tokens", " ".join(str(error).split())
        raise DataError(what, why, "Use --tokenizer characters") from error
    return base64.b64encode(model.getvalue()).decode()
