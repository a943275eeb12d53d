"""Deletion and insertion curves, their baselines and the verdict."""

import math

import numpy as np
import pytest
import torch

from striate.explain import faithfulness
from striate.explain.faithfulness import PASSES, blur, center_blob, measure, ranking

SIZE = 32


class Detector:
    """Its probability is the share of an object's texture that it sees, as an ideal classifier's would be."""

    def __init__(self, rows, columns):
        self.rows, self.columns, self.passes = rows, columns, 0
        self.texture = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def __call__(self, images):
        self.passes += len(images)
        part = (slice(None), slice(None), self.rows, self.columns)
        expected = self.texture[part]
        match = (images[part] * expected).sum(dim=(1, 2, 3)) / expected.square().sum()
        return match.clamp(0, 1)

    def map(self, cells=8):
        pixels = torch.zeros(SIZE, SIZE)
        pixels[self.rows, self.columns] = 1
        return torch.nn.functional.avg_pool2d(pixels[None, None], SIZE // cells)[0, 0]


CORNER = (slice(0, 12), slice(20, 32))


def test_the_right_map_is_better_than_the_baselines():
    detector = Detector(*CORNER)
    found = measure(detector, detector.texture, detector.map())
    assert detector.passes == PASSES <= 35
    assert found.passes
    assert found.verdict == "better than a blob in the center and than shuffled maps"
    assert found.deletion[0] == found.insertion[-1] == pytest.approx(1)
    assert found.deletion[-1] == 0


def test_the_verdict_flips_for_shuffled_maps():
    detector, outcomes = Detector(*CORNER), []
    for seed in range(100, 120):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        shuffled = detector.map().flatten()[order].view(8, 8)
        outcomes.append(measure(detector, detector.texture, shuffled).outcome)
    assert outcomes.count("better") <= 1


def test_a_map_beside_an_object_in_the_centre_loses_to_a_blob():
    detector = Detector(slice(10, 22), slice(10, 22))
    assert measure(detector, detector.texture, detector.map()).score > 0.5
    beside = torch.roll(detector.map(), 1, dims=1)
    found = measure(detector, detector.texture, beside)
    assert found.outcome == "center"
    assert found.verdict == "no better than a blob in the center"


def test_what_cannot_be_tested():
    constant = lambda images: torch.full((len(images),), 0.3)
    found = measure(constant, torch.randn(1, 3, SIZE, SIZE), torch.rand(4, 4))
    assert found.outcome == "untestable"
    assert "0.30 with the image and 0.30 without it" in found.verdict
    empty = measure(lambda images: images.mean(dim=(1, 2, 3)), torch.ones(1, 3, 9, 9), torch.zeros(3, 3))
    assert empty.verdict == "empty: nothing in the image speaks for the class"
    broken = lambda images: torch.full((len(images),), torch.nan)
    assert measure(broken, torch.randn(1, 3, SIZE, SIZE), torch.rand(4, 4)).outcome == "untestable"


def test_the_areas_are_those_of_the_curves():
    """A linear probability: the area under deletion and under insertion is one half, so the score is 0."""
    whole = lambda images: (images == 1).double().mean(dim=(1, 2, 3))
    # Deleted pixels are 0, and those that are not inserted are blurred; a checkerboard has no 1 after a blur.
    board = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2
    image = (2.0 * board - 1)[None, None]
    found = measure(whole, image, torch.ones(4, 4))
    fractions = np.array(found.fractions)
    np.testing.assert_allclose(found.deletion, 0.5 * (1 - fractions), atol=0.03)
    np.testing.assert_allclose(found.insertion, 0.5 * fractions, atol=0.03)
    assert abs(found.score) < 0.03


def test_deletion_hides_with_gray_and_insertion_starts_from_the_blurred_image():
    image, seen = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)), []
    values = torch.randperm(SIZE * SIZE, generator=torch.Generator().manual_seed(2)).view(SIZE, SIZE).float()

    def probability(images):
        seen.extend(images)
        return torch.full((len(images),), 0.3)

    measure(probability, image, values)
    expected = [image[0], torch.zeros_like(image[0]), blur(image)[0]]
    for fraction in (0.05, 0.2, 0.5):
        important = (values >= SIZE * SIZE - math.ceil(fraction * SIZE * SIZE)).expand(3, -1, -1)
        expected += [image[0].masked_fill(important, 0), blur(image)[0].where(~important, image[0])]
    for found, right in zip(seen, expected, strict=False):
        torch.testing.assert_close(found, right, rtol=0, atol=0)


def test_ranking_is_by_value_and_ties_are_smooth():
    values = torch.tensor([[0.1, 0.9], [0.5, -2.0]])
    assert ranking(values).tolist() == [[0.5, 0.0], [0.25, 0.75]]
    ties = ranking(torch.zeros(SIZE, SIZE)) < 0.5
    assert ties.sum() == SIZE * SIZE / 2
    borders = (ties[:, 1:] != ties[:, :-1]).sum() + (ties[1:] != ties[:-1]).sum()
    assert borders < 0.2 * 2 * SIZE * SIZE  # of all pairs of neighbors; at random, it would be half


def test_blur_keeps_the_mean_colour_and_removes_texture():
    image = torch.randn(1, 3, SIZE, SIZE) + torch.tensor([1.0, 2.0, 3.0])[None, :, None, None]
    soft = blur(image)
    assert soft.shape == image.shape
    torch.testing.assert_close(soft.mean(dim=(2, 3)), image.mean(dim=(2, 3)), rtol=0, atol=0.1)
    assert float((soft - soft.mean(dim=(2, 3), keepdim=True)).std()) < 0.35
    assert torch.allclose(blur(torch.ones(1, 3, 5, 7)), torch.ones(1, 3, 5, 7))


def test_the_blob_is_in_the_centre():
    blob = center_blob((9, 15))
    assert divmod(int(blob.argmax()), 15) == (4, 7)
    assert torch.allclose(blob, blob.flip(0, 1))
    assert faithfulness.PASSES == 3 + 5 * 2 * 3
