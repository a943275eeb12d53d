"""Figures show the numbers of their records."""

import numpy as np
import pytest

from striate import charts
from striate.report import figures


def confusion(classes):
    counts = np.random.default_rng(0).integers(0, 3, (classes, classes))
    names = tuple(f"class {i}" for i in range(classes))
    return charts.ConfusionMatrix(names, counts, alt="")


BLOCKS = [
    charts.Curves((1,), (charts.Panel("Loss", (charts.Line("train", (0.5,)),)),), 1, alt=""),
    charts.ConfusionMatrix(("$a", "$b$"), np.eye(2, dtype=int), alt=""),
    charts.Reliability((charts.Bin(0, 0.5, 0, None), charts.Bin(0.5, 1, 3, 1.0)), 0.2, alt=""),
    charts.ImageGrid((np.zeros((4, 4, 1), np.uint8),) * 7, (("$x$", "猫"),) * 7, alt=""),
    charts.AttentionMap((" ", "$"), ("a", "$b$", "<end>"), np.ones((3, 2)), alt=""),
    charts.ImageAttention(np.zeros((8, 16, 1), np.uint8), ("a", "b"), np.ones((2, 1, 4)), alt=""),
    charts.PrecisionRecall((("$x$", np.array([0.5, 1]), np.array([1, 0.5])),), alt=""),
    charts.PrecisionRecall((), alt=""),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_every_figure_can_be_drawn(block):
    assert figures.png(figures.draw(block)).startswith(b"\x89PNG")


def test_an_unknown_record_is_an_error():
    with pytest.raises(NotImplementedError, match="no drawing for Figure"):
        figures.draw(charts.Figure(alt=""))


@pytest.mark.parametrize("classes", [2, 41])
def test_confusion_of_few_and_many_classes(classes):
    block = confusion(classes)
    axes = figures.draw(block).axes[0]
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    expected = {tuple(map(int, c)): int(block.counts[tuple(c)]) for c in np.argwhere(block.counts)}
    assert shown == (expected if classes <= figures.MAX_CLASS_NAMES else {})


def test_curves_have_their_values_and_mark_the_best_epoch():
    lines = (charts.Line("train", (3.0, 2.0)), charts.Line("val", (4.0, 1.0)))
    panels = (charts.Panel("Loss", lines), charts.Panel("Accuracy", lines[:1], share=True))
    left, right = figures.draw(charts.Curves((1, 2), panels, 2, alt="")).axes
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [[3, 2], [4, 1]]
    assert [line.get_label() for line in left.lines] == ["train", "val", "best: epoch 2"]
    assert (left.get_ylim()[0], left.get_title(loc="left"), len(right.lines)) == (0, "Loss", 2)


def test_captions_of_a_grid():
    image = np.zeros((4, 4, 3), np.uint8)
    axes = figures.draw(charts.ImageGrid((image,), (("a" * 30, "is $b"),), alt="")).axes[0]
    assert axes.get_title() == "a" * 17 + "…\nis \\$b"
