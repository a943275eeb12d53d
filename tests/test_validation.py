"""Plain values are checked against type annotations, and the message names the field."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from striate.errors import DataError
from striate.validation import InvalidValueError, require, require_fields, shown


@dataclasses.dataclass
class Inner:
    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5,)


@dataclasses.dataclass
class Outer:
    name: str
    inner: Inner | None
    kind: Literal["a", 1] = "a"
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


GOOD = {"name": "x", "inner": {"size": [1, 2]}}


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int), (3, float), (2.5, float), (True, bool), ("", str), (None, None), (None, int | None),
        ([1, 2], tuple[int, ...]), ((1, "a"), tuple[int, str]), ({"a": [1.5]}, dict[str, list[float]]),
        ("all", Literal["all", "none"]), ({"a": [None, {"b": "c"}]}, Any), (-(2**63) + 1, int),
    ],
)  # fmt: skip
def test_values_that_fit(value, hint):
    require(value, hint, "x")


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "x is True, not a whole number"),
        (1, bool, "x is 1, not true or false"),
        (1.0, int, "x is 1.0, not a whole number"),
        (2**63, int, "not a whole number"),
        (10**400, float, "x is 1000"),
        (math.nan, float, "x is nan, not a finite number"),
        (math.inf, Any, "x is inf, not a finite number"),
        (None, str, "x is null, not text"),
        ("1", int | None, "x is '1', not a whole number or null"),
        ([1, "2"], tuple[int, ...], "x[1] is '2', not a whole number"),
        ([1, "2"], tuple[int, ...] | None, "x[1] is '2', not a whole number"),
        ([1], tuple[int, int], "x is [1], not a list of 2"),
        ("ab", tuple[str, ...], "x is 'ab', not a list"),
        ({"a": {"b": math.inf}}, Any, "x.a.b is inf"),
        ({1: 2}, dict[str, int], "not an object"),
        (1, Literal["1"], "x is 1, not '1'"),
        (True, Literal[1], "x is True, not 1"),
        (True, Path, "x is True, not another kind"),
        ("f", Callable[[], None], "not another kind"),
        ("a" * 100, int, f"x is '{'a' * 59}..., not a whole number"),
    ],
)
def test_values_that_do_not(value, hint, message):
    with pytest.raises(InvalidValueError) as caught:
        require(value, hint, "x")
    assert message in str(caught.value)


def test_nesting_is_limited():
    value: list[Any] = []
    for _ in range(2000):
        value = [value]
    with pytest.raises(InvalidValueError, match="nested less deeply"):
        require(value, Any, "x")
    assert shown(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": 1}, "it.other is unknown"),
        ({"name": 1}, "it.name is 1, not text"),
        ({"inner": {}}, "it.inner.size is missing"),
        ({"inner": {"size": [1, 2], "mean": [None]}}, "it.inner.mean[0] is null"),
        ({"inner": {"size": [1, 2], "a\nb": 1}}, r"it.inner.a\nb is unknown"),
        ({"kind": "b"}, "it.kind is 'b', not 'a' or 1"),
    ],
)
def test_fields_of_a_dataclass(change, message):
    require_fields(GOOD, Outer, "it")
    with pytest.raises(DataError) as caught:
        require_fields({**GOOD, **change}, Outer, "it")
    assert message in str(caught.value)


def test_missing_fields():
    with pytest.raises(InvalidValueError, match=r"^name is missing"):
        require_fields({"inner": None}, Outer, "")
    require_fields({"inner": None}, Outer, "", optional=["name"])
    with pytest.raises(InvalidValueError, match=r"it is \[\], not an object"):
        require_fields([], Outer, "")
