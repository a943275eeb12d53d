"""Weights of classes and balanced epochs, against their formulas; and exact resume with them."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import COLORS, make_images
from exact_resume import outcome, start, start_and_crash
from sklearn.utils.class_weight import compute_class_weight
from tiny_training import CPU

from striate.api import resume_training
from striate.data import InMemoryImages
from striate.errors import UsageError
from striate.tasks.classification.balance import balanced_batches, class_weights, stream_repeated
from striate.tasks.classification.config import ClassificationConfig

COUNTS = np.array([150, 30, 8])
LABELS = np.repeat(np.arange(3), COUNTS)


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert class_weights("balanced", COUNTS, 0.999, 188) == pytest.approx(expected, rel=1e-14)
    assert class_weights("none", COUNTS, 0.999, 188) is None


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.9999])
def test_effective_weights_follow_cui(beta):
    """Equation 2 as written; the ratios are those of the paper, the mean over images is 1."""
    effective = np.array([(1 - beta**n) / (1 - beta) for n in COUNTS.tolist()])
    weights = class_weights("effective", COUNTS, beta, 188)
    assert weights / weights[0] == pytest.approx(effective[0] / effective, rel=1e-9)
    assert (weights @ COUNTS) / COUNTS.sum() == pytest.approx(1, rel=1e-12)


def test_effective_weights_lie_between_equal_and_balanced_ones():
    assert class_weights("effective", COUNTS, 0.0, 188) == pytest.approx(np.ones(3), rel=1e-14)
    nearly_one = class_weights("effective", COUNTS, 1 - 1e-12, 188)
    assert nearly_one == pytest.approx(class_weights("balanced", COUNTS, 0, 188), rel=1e-6)


def test_a_balanced_epoch_has_as_many_samples_of_each_class():
    n = len(LABELS)
    batches = balanced_batches(LABELS, 25, seed=3, epoch=1)
    samples = np.concatenate(batches)
    assert [len(batch) for batch in batches] == [25] * 7 + [13]
    counts = Counter(LABELS[samples % n].tolist())
    assert sorted(counts.values()) == [62, 63, 63]
    assert len(set(samples.tolist())) == n  # each repetition of an image is another sample
    repeated = Counter((samples % n).tolist())
    assert max(repeated[i] for i in range(150)) == 1  # a part of the large class, no image twice
    assert {repeated[i] for i in range(180, 188)} == {7, 8}  # the small class, each about as often
    assert np.array_equal(samples, np.concatenate(balanced_batches(LABELS, 25, seed=3, epoch=1)))
    assert not np.array_equal(samples, np.concatenate(balanced_batches(LABELS, 25, seed=3, epoch=2)))
    assert not np.array_equal(samples, np.concatenate(balanced_batches(LABELS, 25, seed=4, epoch=1)))


class Torn(InMemoryImages):
    """Image 1 cannot be read."""

    def read(self, which, out):
        return super().read(which, out) & (which != 1)


def test_repetitions_of_an_unreadable_image_are_left_out():
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None] + np.zeros((4, 2, 2, 1), np.uint8)
    images = Torn(pixels, np.array([0, 0, 1, 1]), ("x",) * 4, ())
    order = [np.array([5, 2, 6]), np.array([0, 9, 3])]
    batches = list(stream_repeated(images, order, CPU, workers=1))
    assert [batch.samples.tolist() for batch in batches] == [[2, 6], [0, 3]]
    assert [batch.pixels[:, 0, 0, 0].tolist() for batch in batches] == [[2, 2], [0, 3]]
    assert [(batch.requested, batch.labels.tolist()) for batch in batches] == [(3, [1, 1]), (3, [0, 1])]


OPTIONS = {
    "sampler": {"sampler": "balanced", "loss": "focal", "micro_batches": 2},
    "weights": {"class_weights": "effective", "mixup": 0.2, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_run_with_balanced_classes_resumes_exactly(tmp_path, kind):
    data, options = tmp_path / "data", {"epochs": 2, "name": "run", **OPTIONS[kind]}
    for count, (name, color) in zip((14, 6, 3), COLORS.items(), strict=False):
        make_images(data / name, count, color)
    whole = start(data, tmp_path / "whole", **options)
    folder = start_and_crash(data, tmp_path, 3, **options)
    torch.manual_seed(99)
    resume_training(folder)
    assert outcome(folder) == outcome(whole.folder)


def test_classes_are_not_balanced_twice():
    with pytest.raises(UsageError, match="each of them balances the classes"):
        ClassificationConfig("x", class_weights="balanced", sampler="balanced")
