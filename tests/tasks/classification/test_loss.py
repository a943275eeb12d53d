"""The training loss against torch's, the formula of the focal loss, and soft labels."""

import math

import pytest
import torch
import torch.nn.functional as F

from striate.tasks.classification.loss import Criterion
from striate.transforms.mixing import MixUp

torch.manual_seed(0)
SCORES, LABELS = torch.randn(12, 4), torch.arange(12) % 4
WEIGHTS = torch.tensor([0.2, 0.5, 1.0, 4.0])


class Outputs(tuple):
    """Scores, and those of an auxiliary head."""

    loss_weights = (1.0, 0.3)


def focal(scores, distribution, gamma, weights):
    """Lin et al. 2017, equation 5, with the weight and the probability of each class, as plain loops."""
    total = 0.0
    for row, shares in zip(scores.tolist(), distribution.tolist(), strict=True):
        powers = [math.exp(score) for score in row]
        for score, share, weight in zip(powers, shares, weights.tolist(), strict=True):
            p = score / sum(powers)
            total -= share * weight * (1 - p) ** gamma * math.log(p)
    return total / len(scores)


def test_weights_and_smoothing_are_torchs():
    """Torch divides by the sum of the weights; here the mean is over images."""
    found, _ = Criterion(0.1, weights=WEIGHTS)(SCORES, LABELS)
    losses = F.cross_entropy(SCORES, LABELS, WEIGHTS, label_smoothing=0.1, reduction="none")
    assert found.item() == pytest.approx(losses.mean().item(), rel=1e-6)
    plain, _ = Criterion(0.1)(SCORES, LABELS)
    assert plain.item() == F.cross_entropy(SCORES, LABELS, label_smoothing=0.1).item()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_mixed_and_smoothed_labels_are_a_distribution(gamma, share):
    _, mixed = MixUp(num_classes=4)(torch.zeros(12, 1, 1, 1), LABELS)
    own = F.one_hot(LABELS, 4).float()
    mixed = share * own + (1 - share) * own.roll(1, 0)
    distribution = 0.9 * mixed + 0.1 / 4
    found, _ = Criterion(0.1, gamma, WEIGHTS)(SCORES, LABELS, share)
    assert found.item() == pytest.approx(focal(SCORES, distribution, gamma, WEIGHTS), rel=1e-5)


def test_certain_answers_have_finite_gradients():
    scores = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss, _ = Criterion(gamma=0.5)(scores, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(100)
    assert scores.grad.isfinite().all()


def test_auxiliary_heads_have_the_same_loss():
    output = Outputs((SCORES, SCORES * 2))
    found, answer = Criterion(gamma=2.0, weights=WEIGHTS)(output, LABELS)
    own = F.one_hot(LABELS, 4)
    expected = focal(SCORES, own, 2.0, WEIGHTS) + 0.3 * focal(SCORES * 2, own, 2.0, WEIGHTS)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert answer is SCORES
