"""The tables of the documentation are those of the code."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "write_tables.py"))


@pytest.mark.parametrize("name", SCRIPT["PAGES"])
def test_the_tables_are_current(name):
    text = (DOCS / name).read_text("utf-8")
    assert "<!-- table: " in text
    assert SCRIPT["with_tables"](text) == text, "run python docs/write_tables.py"
