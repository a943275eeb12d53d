"""Occlusion and RISE."""

import torch
from pretrained import build
from torch import nn

from striate.explain import Explainer
from striate.explain.perturbation import occlusion, random_masks, rise, windows
from striate.progress import Progress


def test_occlusion_against_a_loop_over_windows():
    network, _ = build("lenet", 16, num_classes=3)
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    found = occlusion(Explainer(network, (3, 16, 16)), image, 1, window=5, stride=3)
    with torch.no_grad():
        full = network.eval()(image).softmax(dim=1)[0, 1]
        total, count = torch.zeros(16, 16), torch.zeros(16, 16)
        for top in (0, 3, 6, 9, 12):  # the last window extends beyond the image
            for left in (0, 3, 6, 9, 12):
                hidden = image.clone()
                hidden[:, :, top : top + 5, left : left + 5] = 0
                fall = full - network(hidden).softmax(dim=1)[0, 1]
                total[top : top + 5, left : left + 5] += fall
                count[top : top + 5, left : left + 5] += 1
    torch.testing.assert_close(found, total / count)


class Counter(Progress):
    def __init__(self):
        self.done = 0

    def advance(self, done, **figures):
        self.done += done


def test_the_announced_passes_are_made():
    network, _ = build("lenet", 16, num_classes=3)
    counter = Counter()
    occlusion(Explainer(network, (3, 16, 16)), torch.randn(1, 3, 16, 16), 0, progress=counter)
    assert counter.done == windows(16, 16) == 14 * 14  # windows of 3 px, 1 px apart


class Corner(nn.Module):
    """Its probability says whether more than half of the upper right corner is light."""

    def forward(self, x):
        score = 20 * x[:, :, :8, -8:].mean(dim=(1, 2, 3)) - 10
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def test_rise_finds_the_corner_that_the_network_reads():
    image = torch.ones(1, 1, 28, 28)
    found = rise(Explainer(Corner(), (1, 28, 28)), image, 0, samples=400)
    inside = found[:8, -8:].mean()
    outside = (found.sum() - found[:8, -8:].sum()) / (28 * 28 - 64)
    assert inside > outside + 0.1
    assert 0.4 < float(outside) < 0.6  # the mean probability of all masks


def test_masks_are_smooth_and_half_of_them_is_shown():
    masks = random_masks(300, 40, 30, torch.Generator().manual_seed(0))
    assert masks.shape == (300, 40, 30)
    assert 0 <= float(masks.min()) < 0.01
    assert 0.99 < float(masks.max()) <= 1 + 1e-6
    assert abs(float(masks.mean()) - 0.5) < 0.02
    # Cells are 6 x 5 pixels, so neighbors differ by at most 1/5.
    assert float(masks.diff(dim=2).abs().max()) <= 0.2 + 1e-6
