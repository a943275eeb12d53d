"""The encoding of member names in zip and tar archives that do not say it.

A zip marks names that are UTF-8. Other programs write the encoding of the system they run on: GBK in China,
Shift-JIS in Japan, code page 437 in the West, and often UTF-8 without the mark. A tar says nothing unless it
has PAX headers. All names of an archive have one encoding, so it is guessed from all of them together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from striate.printable import first_few

_MIN_SCORE = 0.7  # mean weight of the characters beyond ASCII
_MIN_HANGUL = 6  # so many by chance are unlikely: 25 of 40 first bytes of common Chinese stand for hangul too
_MANY = 8  # characters that are not valid UTF-8 by chance


class _Encoding(NamedTuple):
    """A multi-byte encoding.

    Attributes:
        codec: its name in Python.
        name: for messages.
        weight: how common a character is, given with its bytes: 1 for the first level of the character set,
            which holds the common ones, 0.5 for the second, 0 for others.
    """

    codec: str
    name: str
    weight: Callable[[str, bytes], float]


def _is_kana(char: str) -> bool:
    return "\u3041" <= char <= "\u30ff"


def _gb2312(char: str, raw: bytes) -> float:
    if len(raw) != 2 or raw[1] < 0xA1:
        return 0.0
    return 1.0 if 0xB0 <= raw[0] <= 0xD7 else 0.5 * (0xD8 <= raw[0] <= 0xF7)


def _shift_jis(char: str, raw: bytes) -> float:
    code = int.from_bytes(raw, "big")
    return 1.0 if _is_kana(char) or 0x889F <= code <= 0x9872 else 0.5 * (0x989F <= code <= 0xEAA4)


def _big5(char: str, raw: bytes) -> float:
    return 1.0 if 0xA4 <= raw[0] <= 0xC6 else 0.5 * (0xC9 <= raw[0] <= 0xF9)


def _euc_kr(char: str, raw: bytes) -> float:
    return 1.0 if "\uac00" <= char <= "\ud7a3" else 0.0


def _euc_jp(char: str, raw: bytes) -> float:
    return 1.0 if _is_kana(char) or 0xB0 <= raw[0] <= 0xCF else 0.5 * (0xD0 <= raw[0] <= 0xF4)


# Of equal scores the first one counts.
_MULTI_BYTE = (
    _Encoding("gb18030", "GBK", _gb2312),
    _Encoding("cp932", "Shift-JIS", _shift_jis),
    _Encoding("cp950", "Big5", _big5),
    _Encoding("cp949", "EUC-KR", _euc_kr),
    _Encoding("euc_jp", "EUC-JP", _euc_jp),
)
_SINGLE_BYTE = {"cp437": "LATIN", "cp1252": "LATIN", "cp866": "CYRILLIC", "cp1251": "CYRILLIC"}


def decode_names(names: Sequence[bytes], default: str) -> tuple[list[str], str]:
    """Decode the names of an archive's members.

    Args:
        names: the bytes of those names whose encoding the archive does not say.
        default: the codec for names whose encoding is not recognized.

    Returns:
        The names; and a note that shows some of them, or "" if there is no doubt about the encoding.
    """
    odd = sorted({part for name in names if not name.isascii() for part in name.split(b"/")})
    odd = [part for part in odd if not part.isascii()]
    if not odd:
        return [name.decode("ascii") for name in names], ""
    codec, certain = _guess(odd)
    if codec == "utf-8" and certain:
        return [name.decode() for name in names], ""
    decoded = [name.decode(codec or default, "surrogateescape") for name in names]
    shown = [part.decode(codec or default, "surrogateescape") for part in odd]
    title = next((e.name for e in _MULTI_BYTE if e.codec == codec), (codec or default).upper())
    unknown = "" if codec else " and the encoding is not recognized"
    note = (
        f"the archive does not say how its names are encoded{unknown}; read as {title}: "
        f"{first_few(list(map(repr, shown)), 5)}. If they are wrong, pack it again with UTF-8 names"
    )
    return decoded, note


def _guess(parts: Sequence[bytes]) -> tuple[str, bool]:
    """Return the codec of names that are not ASCII, and whether it is certain; "" if it is not recognized."""
    scores = {encoding.codec: _score(parts, encoding) for encoding in _MULTI_BYTE}
    best = max(scores, key=lambda codec: scores[codec])
    texts = _decoded(parts, "utf-8")
    if texts is not None:
        odd = [char for text in texts for char in text if not char.isascii()]
        # A character of GBK is valid UTF-8 by chance, but not many in a row, and none with three bytes.
        certain = scores[best] < _MIN_SCORE or max(odd) >= "\u0800" or len(odd) >= _MANY
        if certain or all(map(_is_plausible, texts)):
            return "utf-8", certain
    if scores["cp949"] == 1 and sum(map(len, _decoded(parts, "cp949") or ())) >= _MIN_HANGUL:
        return "cp949", False
    for codec in ("cp932", "euc_jp"):  # Chinese has no kana
        if scores[codec] >= _MIN_SCORE and any(
            _is_kana(c) for text in _decoded(parts, codec) or () for c in text
        ):
            return codec, False
    if scores[best] >= _MIN_SCORE:
        return best, False
    return next((codec for codec in _SINGLE_BYTE if _fits(parts, codec)), ""), False


def _decoded(parts: Sequence[bytes], codec: str) -> list[str] | None:
    """Decode names; None if one of them is not valid."""
    try:
        return [part.decode(codec) for part in parts]
    except UnicodeDecodeError:
        return None


def _score(parts: Sequence[bytes], encoding: _Encoding) -> float:
    """Return the mean weight of the characters beyond ASCII; 0 if a name is not valid."""
    weights = []
    for text in _decoded(parts, encoding.codec) or ():
        for before, char, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
            if not char.isascii():
                raw = char.encode(encoding.codec, "replace")
                # In Western names, an accented letter and the letter after it look like one character.
                is_pair = len(raw) == 2 and raw[1] < 0x80
                inside_word = any(one.isascii() and one.isalpha() for one in (before, after))
                weights.append(0.0 if is_pair and inside_word else encoding.weight(char, raw))
    return fmean(weights) if weights else 0.0


def _is_plausible(text: str) -> bool:
    """Return whether text looks like words, each in one script; of Latin words, some letters are ASCII."""
    for word in re.findall(r"[^\W\d_]+", text):
        scripts = {_script(char) for char in word}
        is_latin = scripts == {"LATIN"} and any(map(str.isascii, word))
        is_other = len(scripts) == 1 and len(word) > 1 and scripts.isdisjoint({"LATIN", ""})
        if not (word.isascii() or is_latin or is_other):
            return False
    return all(char.isascii() or char.isalpha() for char in text)


def _script(char: str) -> str:
    """Return the script of a letter that is common today; empty for others."""
    if char < "\u0180" or "\u0370" <= char < "\u0460" or "\u0590" <= char < "\u0600":
        return unicodedata.name(char, "").split(" ")[0]
    return ""


def _fits(parts: Sequence[bytes], codec: str) -> bool:
    """Return whether names consist of letters of the script of a single-byte encoding."""
    texts, script = _decoded(parts, codec), _SINGLE_BYTE[codec]
    if texts is None:
        return False
    letters = [char for text in texts for char in text if char.isalpha()]
    odd = [char for text in texts for char in text if not char.isascii()]
    fits = all(unicodedata.name(char, "").startswith(f"{script} ") for char in odd)
    # Words with accents consist mostly of plain letters, and Russian words of none.
    return fits and (2 * len(odd) <= len(letters)) == (script == "LATIN")
