"""JSON is RFC 8259's: no NaN, no infinity, no lone surrogates; and everything that is written passes here."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from striate import strict_json

SOURCE = Path(__file__).parents[1] / "src" / "striate"
# These compute a digest, or send a message to another process: no JSON leaves the program.
INTERNAL = {
    "data/images/cache.py", "data/text/tokens.py", "tasks/seq2seq/task.py", "training/checkpoint.py",
    "training/distributed.py",
}  # fmt: skip


def strictly(text):
    """Parse as RFC 8259 allows."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_become_null():
    value = {"a": math.nan, "b": [math.inf, 1.5, (np.float64("nan"), 2)], "c": {"d": -math.inf}, "e": None}
    expected = {"a": None, "b": [None, 1.5, [None, 2]], "c": {"d": None}, "e": None}
    assert strictly(strict_json.dumps(value)) == expected
    assert strictly(strict_json.dumps({math.nan: 1})) == {"nan": 1}


@pytest.mark.parametrize("value", [{"名": [1, 2.5, True, None, "a\n"]}, [], "x", {"deep": [[[{"k": 0.1}]]]}])
def test_other_values_are_those_of_python(value):
    for indent in (None, 2):
        assert strict_json.dumps(value, indent=indent) == json.dumps(value, indent=indent, ensure_ascii=False)


def test_names_that_are_not_utf_8_are_escaped():
    text = strict_json.dumps({"caf\udce9": math.nan})
    assert text.encode("utf-8") == b'{"caf\\udce9": null}'


def test_everything_passes_through_one_place():
    """No other module calls `json.dump`, `json.dumps` or `JSONEncoder`."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        calls = set(re.findall(r"\bjson\.(dumps?|JSONEncoder)\b", path.read_text("utf-8")))
        assert not calls or name in {"strict_json.py", *INTERNAL}, f"{name} calls json.{calls}"
