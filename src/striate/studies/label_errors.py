"""The table of suspected wrong labels that a cross-validation writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from striate.csv_file import write_csv
from striate.data.check.exclusion import LABEL_ERROR
from striate.files import probe
from striate.inference.evaluation import Evaluation
from striate.metrics.label_errors import doubt, suspected_labels

NAME = "label_errors.csv"
SEVERITY = "warning"
_COLUMNS = (
    "path", "kind", "severity", "class", "split", "detail", "group", "suggested", "gap", "label_probability",
)  # fmt: skip


def write_label_errors(folder: Path, evaluation: Evaluation) -> str:
    """Write the images whose label is probably wrong, the least probable ones first, as for `--exclude`.

    Its columns are those of `striate check --csv`, and three more: the class that the image seems to be of,
    by how much its probability is above that of the label, and the probability of the label.

    Args:
        folder: of the runs.
        evaluation: of the out-of-fold predictions: each image by a model that was not trained on it.

    Returns:
        A warning if so many are suspected that most of the labels are probably right; else nothing.
    """
    chances, classes = evaluation.probabilities, evaluation.classes
    which, others = suspected_labels(chances, evaluation.labels)
    rows: list[tuple[Any, ...]] = []
    for number, (i, other) in enumerate(zip(which.tolist(), others.tolist(), strict=True), 1):
        name, label = evaluation.names[i], evaluation.labels[i]
        path = name if probe(Path(name)) is None else str(Path(name).absolute())
        detail = f"seems to be {classes[other]} ({chances[i, other]:.0%} out of fold)"
        own, gap = f"{chances[i, label]:.6f}", f"{chances[i, other] - chances[i, label]:.6f}"
        rows.append(
            (path, LABEL_ERROR, SEVERITY, classes[label], "", detail, number, classes[other], gap, own)
        )
    write_csv(folder / NAME, rows, _COLUMNS)
    warning = doubt(len(rows), evaluation.n)
    return f"{folder / NAME}: {warning}" if warning else ""
