"""The report section about accuracy under corruptions."""

from __future__ import annotations

import numpy as np

from striate.charts import Bars, ImageGrid
from striate.inference.evaluation_record import Evaluation
from striate.inference.robustness import Robustness
from striate.sections import Cell, Column, Estimate, Phrase, Section, Table, Text
from striate.transforms.corruptions import CORRUPTIONS, corrupt


def robustness_section(evaluation: Evaluation, found: Robustness) -> Section:
    """The accuracy under each corruption, with one image as an example of all of them."""
    columns = (
        Column(Phrase("corruption")),
        *(Column(Phrase("severity {severity}", severity=severity), ".1%") for severity in found.severities),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (Phrase(corruption.label), *(Estimate(result.top1, *result.top1_ci) for result in found.of(name)))
        for name, corruption in CORRUPTIONS.items()
    )
    bars = Bars(
        Phrase("accuracy"),
        tuple(
            (Phrase(corruption.label), float(np.mean([result.top1 for result in found.of(name)])), found.n)
            for name, corruption in CORRUPTIONS.items()
        ),
        Phrase("corruption"), Phrase("images"), alt="Mean accuracy under each corruption",
    )  # fmt: skip
    note = Phrase(
        "The 15 corruptions of ImageNet-C (Hendrycks and Dietterich 2019), on {n:,} of the images. Their "
        "accuracy is {clean:.1%} without corruptions and {mean:.1%} ({low:.1%} to {high:.1%}) on average "
        "under them.",
        n=found.n, clean=found.clean_top1, mean=found.mean_top1, low=found.mean_top1_ci[0],
        high=found.mean_top1_ci[1],
    )  # fmt: skip
    severity = found.severities[len(found.severities) // 2]
    example = Phrase("An image under each of them at severity {severity}:", severity=severity)
    blocks = (bars, Table(columns, rows), Text(example, secondary=True), _example(evaluation, severity))
    return Section(Phrase("Robustness"), blocks, note)


def _example(evaluation: Evaluation, severity: int) -> ImageGrid:
    image = np.asarray(evaluation.images[0])
    captions = ((Phrase("original"),), *((Phrase(corruption.label),) for corruption in CORRUPTIONS.values()))
    pictures = (image, *(corrupt(image, name, severity) for name in CORRUPTIONS))
    return ImageGrid(pictures, captions, alt="An image under each corruption", file="corruptions")
