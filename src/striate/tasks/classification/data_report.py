"""The section of a report about the data: findings of the quick check, suspected label errors."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from shlex import quote

from striate.data.check import Finding, Item
from striate.data.check.records import KINDS
from striate.inference.evaluation import Evaluation
from striate.inference.multi_label_evaluation import MultiLabelEvaluation
from striate.metrics.label_errors import suspected_labels
from striate.sections import Block, Column, Phrase, Section, Table, Text

_MAX_SUSPECTED, _EXAMPLES = 24, 3


def data_section(
    evaluation: Evaluation | MultiLabelEvaluation, findings: Sequence[Finding] | None = None
) -> Section:
    """What is known about the data after training or an evaluation.

    Args:
        evaluation: on held-out images.
        findings: of the quick check of all splits; None if there was none.
    """
    blocks: list[Block] = [] if findings is None else [_findings(findings)]
    blocks += _suspected(evaluation) if isinstance(evaluation, Evaluation) else []
    note = Phrase(
        "`striate check {data}` also finds near duplicates, and damaged, blurred, dark or blank images.",
        data=quote(evaluation.data),
    )
    return Section(Phrase("Data"), tuple(blocks), note)


def _findings(findings: Sequence[Finding]) -> Table | Text:
    if not findings:
        return Text(Phrase("No equal files in two splits or classes, no similar or small classes."))
    columns = (
        Column(Phrase("severity")), Column(Phrase("finding"), messages=True),
        Column(Phrase("number"), ",d"), Column(Phrase("examples")), Column(Phrase("advice"), messages=True),
    )  # fmt: skip
    rows = tuple((Phrase(f.severity), f.title, len(f.groups), _examples(f), f.advice) for f in findings)
    return Table(columns, rows)


def _examples(finding: Finding) -> str:
    """The first groups, each with the names that it consists of."""
    if KINDS[finding.kind].about == "images":
        groups = [" = ".join(map(_file_name, group[:_EXAMPLES])) for group in finding.groups[:_EXAMPLES]]
        return "; ".join(groups)
    items = [_detailed(item) for item in finding.items[:_EXAMPLES]]
    return functools.reduce(lambda one, other: Phrase("{one}; {other}", one=one, other=other), items)


def _file_name(item: Item) -> str:
    """The split, the class and the name of an image's file."""
    return "/".join(filter(None, (item.split, item.label, os.path.basename(item.path))))  # noqa: PTH119 - a name


def _detailed(item: Item) -> str:
    if repr(item.path) in item.detail:  # which names it already
        return item.detail
    return Phrase("{name} ({detail})", name=item.path, detail=item.detail) if item.detail else item.path


def _suspected(evaluation: Evaluation) -> list[Block]:
    which, classes = suspected_labels(evaluation.probabilities, evaluation.labels)
    if not len(which):
        return [Text(Phrase("No suspected label errors among the {what}.", what=Phrase(evaluation.what)))]
    columns = (
        Column(Phrase("file")), Column(Phrase("label")), Column(Phrase("its probability"), ".1%"),
        Column(Phrase("seems to be")), Column(Phrase("probability"), ".1%"),
    )  # fmt: skip
    names, chances = evaluation.classes, evaluation.probabilities
    rows = tuple(
        (evaluation.names[i], names[evaluation.labels[i]], float(chances[i, evaluation.labels[i]]), names[k],
         float(chances[i, k]))
        for i, k in zip(which[:_MAX_SUSPECTED].tolist(), classes[:_MAX_SUSPECTED].tolist(), strict=True)
    )  # fmt: skip
    text = Phrase(
        "Suspected label errors: {count:,} of {n:,} {what}. The model is as sure of another class as it "
        "usually is with images of that class. The less accurate the model, the more of these are its own "
        "errors.",
        count=len(which), n=evaluation.n, what=Phrase(evaluation.what),
    )  # fmt: skip
    return [Text(text), Table(columns, rows)]
