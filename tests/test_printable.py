"""Control characters of names in what is printed: one line, and nothing that a terminal acts on."""

import json
import unicodedata

from striate import strict_json
from striate.data import Problem, left_out
from striate.printable import counted, escaped


def test_control_characters_are_escaped_and_others_stay():
    for code in [*range(0x2100), 0xFEFF, 0x1F600]:
        char = chr(code)
        unsafe = (
            unicodedata.category(char) == "Cc"
            or char in "\u2028\u2029"
            or unicodedata.bidirectional(char)
            in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
        )
        unsafe |= char in "\u061c\u200e\u200f"  # marks of direction
        assert (escaped(char) != char) == unsafe, hex(code)
        if unsafe:
            assert escaped(char).encode("ascii").decode("unicode_escape") == char
    assert escaped("cat\n\x1b[2J.png") == r"cat\n\x1b[2J.png"
    assert escaped(r"C:\new") == r"C:\new"


def test_json_has_no_control_characters():
    value = {"a\x7f\x9b\u2028\u202e": ["\x1b", "\n", "\x85", "é", "猫", "\u200b"]}
    for indent in (None, 2):
        text = strict_json.dumps(value, indent=indent)
        assert json.loads(text) == value
        assert "é" in text
        assert all(c == "\n" or (escaped(c) == c) for c in text)


def test_numbers_with_their_nouns():
    assert [counted(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    problems = (Problem("a", "empty"), Problem("b", "damaged"))
    assert left_out(problems[:1]) == "1 image cannot be read and is left out: a (empty)"
    assert left_out(problems) == "2 images cannot be read and are left out: a (empty); b (damaged)"
