"""Write the tables of the documentation that come from the code: `python docs/write_tables.py`.

A table is between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

from striate.data.images import FORMATS
from striate.transforms.augmentations import AUGMENTATIONS

HERE = Path(__file__).parent
PAGES = ("data.md", "transforms.md")
TABLES = {
    "formats": [("`DATA`", "format"), *((kind.example, kind.summary) for kind in FORMATS)],
    "augmentations": [
        ("`--augment`", "augmentation"),
        *((f"`{name}`", row.summary) for name, row in AUGMENTATIONS.items()),
    ],
}


def with_tables(text: str) -> str:
    """Return a page with its tables replaced by current ones."""

    def table(match: re.Match[str]) -> str:
        header, *rows = [f"| {' | '.join(row)} |" for row in TABLES[match[1]]]
        lines = "\n".join([header, "|---|---|", *rows])
        return f"<!-- table: {match[1]} -->\n{lines}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    """Write all pages."""
    for name in PAGES:
        page = HERE / name
        page.write_text(with_tables(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
