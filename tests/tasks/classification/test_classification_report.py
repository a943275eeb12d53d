"""The records that image classification contributes to a report."""

import dataclasses

import numpy as np
import pytest
from random_evaluation import random_evaluation

from striate.data import Problem
from striate.metrics.classification import wilson_interval
from striate.sections import Estimate, Table
from striate.tasks.classification import run_sections
from striate.tasks.classification.report import reliability, report, sections, worst_mistakes


def headings(found):
    return [section.heading for section in found]


def test_sections_of_a_run(run):
    found = sections(run.evaluation, run.training)
    assert headings(found) == [
        "Errors",
        "Per-class metrics",
        "Calibration",
        "Training curves",
        "Augmented training batch",
        "Data",
        "Network",
    ]
    curves = found[3].blocks[0]
    assert (curves.epochs, curves.best_epoch) == ((1, 2, 3), run.training.best_epoch)
    assert curves.panels[1].lines[1].values == tuple(row.val_top1 for row in run.training.epochs)
    assert curves.panels[2].lines[0].values == tuple(row.lr for row in run.training.epochs)
    assert curves.panels[3].lines[0].values == tuple(row.images_per_second for row in run.training.epochs)
    batch = found[4].blocks[0]
    assert len(batch.images) == len(batch.captions) == 8
    assert batch.images[0].dtype == np.uint8
    assert headings(sections(run.evaluation)) == [*headings(found)[:3], "Data"]


def test_the_parts_of_the_network(run):
    network = run.training.task.setup.network
    section = sections(run.evaluation, run.training)[-1]
    total = sum(p.numel() for p in network.parameters())
    rows = section.blocks[0].rows
    assert sum(row[2] for row in rows) == total
    assert f"{total:,} parameters" in section.note
    assert [row[0] for row in rows] == [name for name, _ in network.named_children()]
    assert all(row[4] in (None, 1.0) for row in rows)


def test_numbers_stay_numbers():
    record = random_evaluation("abcdef")
    content = report(record, model="some where/m.safetensors")
    top1, baseline, top5, balanced, mean_f1, mcc, ece = content.cards
    assert baseline.value == max(np.bincount(record.labels)) / record.n
    assert (top1.value, top1.interval, top5.value) == (record.top1, record.top1_ci, record.top5)
    assert (mean_f1.value, ece.value) == (record.metrics["macro_f1"], record.ece)
    assert (balanced.value, mcc.value) == (record.metrics["balanced_accuracy"], record.metrics["mcc"])
    table, average, _ = next(s for s in content.sections if s.heading == "Per-class metrics").blocks
    assert [row[0] for row in average.rows] == ["macro average", "weighted average"]
    assert average.rows[0][3] == pytest.approx(record.metrics["balanced_accuracy"], abs=1e-12)
    score = record.per_class[2]
    called = int((record.predicted == 2).sum())
    intervals = (wilson_interval(score.precision, called), wilson_interval(score.recall, score.support))
    assert table.rows[2] == (
        score.name, score.support, Estimate(score.precision, *intervals[0]),
        Estimate(score.recall, *intervals[1]), score.f1,
    )  # fmt: skip
    assert content.title == "m.safetensors on data"
    assert content.commands[0] == "striate predict 'some where/m.safetensors' PHOTO.jpg"
    assert len(report(random_evaluation("abc"), model="m").cards) == 6  # no top-5 among three classes


def test_warnings_name_classes_that_do_not_match():
    record = dataclasses.replace(
        random_evaluation("ab"), notes=("careful",), missing_classes=("b",), extra_classes={"z": 3}
    )
    assert report(record, model="m").warnings == (
        "careful",
        "No test images of: b",
        "The model does not know the class 'z': its 3 images were not evaluated",
    )


def test_unreadable_images_are_listed_up_to_a_limit():
    problems = tuple(Problem(f"{i}.png", "empty") for i in range(run_sections._MAX_PROBLEMS + 7))
    found = sections(dataclasses.replace(random_evaluation("ab"), problems=problems))[-1]
    table, more = found.blocks
    assert found.heading == "Unreadable images (207)"
    assert isinstance(table, Table)
    assert table.rows[1] == ("1.png", "empty")
    assert (len(table.rows), more.text) == (200, "and 7 more")


def test_no_mistakes_no_images():
    record = random_evaluation("ab")
    perfect = dataclasses.replace(record, probabilities=np.eye(2)[record.labels])
    assert worst_mistakes(perfect) is None
    section = next(s for s in sections(perfect) if s.heading == "Errors")
    assert section.note == "None: all 60 test images are right."
    assert section.blocks[1].worst is None


def test_the_worst_mistakes_come_first():
    record = random_evaluation("abc")
    grid = worst_mistakes(record)
    confidence = record.probabilities.max(axis=1)
    wrong = np.flatnonzero(record.predicted != record.labels)
    worst = wrong[np.argmax(confidence[wrong])]
    predicted, true = "abc"[record.predicted[worst]], "abc"[record.labels[worst]]
    assert grid.captions[0] == (f"{predicted} {confidence[worst]:.0%}", f"is {true}")
    assert (grid.images[0] == record.images[worst]).all()
    assert len(grid.images) == min(24, len(wrong))


def test_bins_of_the_reliability_diagram():
    record = random_evaluation("ab", n=500)
    found = reliability(record)
    confidence = record.probabilities.max(axis=1)
    for item in found.bins:
        inside = (confidence > item.low) & (confidence <= item.high)
        assert item.count == inside.sum()
        if item.count:
            assert item.accuracy == pytest.approx((record.predicted == record.labels)[inside].mean())
        else:
            assert item.accuracy is None
    assert sum(item.count for item in found.bins) == 500
