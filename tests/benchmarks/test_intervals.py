"""docs/detection.md states the coverage of the intervals that the results file has."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks/results/2026-11-26_x86_64_2cpu_intervals.json").read_text())
PAGE = (ROOT / "docs" / "detection.md").read_text("utf-8")


def test_the_page_states_the_measured_coverage():
    for row in RECORD["rows"]:
        shares = [row[of][kind]["contains"] for of in ("ap", "difference") for kind in ("bca", "percentile")]
        cells = [str(row["images"]), *(f"{100 * share:.1f} %" for share in shares)]
        assert f"| {' | '.join(cells)} |" in PAGE
        # The correction of the bias counts: percentiles miss the AP more often.
        assert row["ap"]["bca"]["contains"] > row["ap"]["percentile"]["contains"] + 0.03
        assert row["ap"]["bca"]["contains"] > 0.9
