"""The columns that make up source, target and references."""

import pytest

from striate.data.text.columns import (
    Column,
    ColumnSelection,
    Places,
    find_places,
    has_header,
    merged,
    unused_note,
)
from striate.errors import UsageError

HEADER = ["lemma", "form", "features"]


@pytest.mark.parametrize(
    ("header", "selection", "places"),
    [
        (None, {}, Places((0,), (1,))),
        (None, {"source": "1,3"}, Places((0, 2), (1,))),
        (None, {"source": 2}, Places((1,), (0,))),
        (None, {"target": "1"}, Places((1,), (0,))),
        (None, {"references": "3,4"}, Places((0,), (1,), (2, 3))),
        (None, {"references": "all"}, Places((0,), (1,), None)),
        (HEADER, {"source": ["Lemma", "features"]}, Places((0, 2), (1,))),
        (HEADER, {"source": "features", "target": "1, form"}, Places((2,), (0, 1))),
        (["target", "x", "source"], {}, Places((2,), (0,))),
    ],
)
def test_places(header, selection, places):
    assert find_places(header, ColumnSelection.of(**selection), "a.tsv") == places


@pytest.mark.parametrize(
    ("header", "selection", "message"),
    [
        (None, {"source": "0"}, "numbered from 1"),
        (None, {"source": "1,,2"}, "a column is empty"),
        (None, {"source": "1,1"}, "column '1' is given twice"),
        (HEADER, {"source": "lemma", "target": "1"}, "a column of a.tsv has two uses"),
        (
            HEADER,
            {"source": "lema"},
            "cannot find column 'lema' in 'a.tsv'.*: lemma, form",
        ),
        (HEADER, {"source": "4"}, "cannot find column '4' in 'a.tsv': its first line has 3"),
    ],
)
def test_columns_that_cannot_be(header, selection, message):
    with pytest.raises(UsageError, match=message):
        find_places(header, ColumnSelection.of(**selection), "a.tsv")


def test_a_header_has_the_names_asked_for_or_the_usual_ones():
    named, numbered = ColumnSelection.of(source="lemma,3"), ColumnSelection.of(source="1,3")
    assert has_header(HEADER, named)
    assert not has_header(HEADER, numbered)
    assert has_header(["Source", "Target"], numbered)
    assert not has_header(["source", "Quelle"], numbered)  # a pair of a dictionary


def test_texts_of_a_row():
    places = Places((0, 2), (1,), None)
    assert places.texts(["run", "ran", "V;PST", "", "runned"]) == ("run V;PST", ("ran", "", "runned"))
    assert places.texts(["run", "ran", ""]) == ("run", ("ran",))
    assert Places((0,), (1,), (2, 3)).texts(["a", "b", "c"]) == ("a", ("b", "c"))


def test_columns_of_several_files_count_together():
    columns = merged([Column("x", "unused", 2), Column("y", "source", 1), Column("x", "unused", 3)])
    assert columns == (Column("x", "unused", 5), Column("y", "source", 1))
    assert unused_note(columns).startswith("not used: x (5 lines)")
    assert unused_note(columns[1:]) == ""
