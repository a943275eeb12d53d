"""The model randomization test."""

import pytest
import torch
from pretrained import build
from scipy.stats import spearmanr

from striate.explain.randomization import LIMIT, Randomization, randomized, rank_correlation


def test_rank_correlation_is_spearmans():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(6, 7, generator=generator).relu()
    b = (a + torch.randn(6, 7, generator=generator)).clamp(min=0.3)  # with ties
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.flatten(), b.flatten()).statistic)
    assert rank_correlation(a, 2 * a + 1) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, torch.zeros(6, 7)) == 0


def test_random_weights_have_the_same_values_in_another_order():
    network, _ = build("resnet20", 32, num_classes=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(1, 3, 32, 32)
    random = randomized(network.eval(), image)
    for name, value in network.named_parameters():
        other = random.get_parameter(name)
        assert torch.equal(value.flatten().sort().values, other.flatten().sort().values)
        assert value.numel() < 20 or value.std() == 0 or not torch.equal(value, other), name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part.training for part in random.modules())
    # Without new statistics of BatchNorm, the scores of such a network would be out of all proportion.
    with torch.no_grad():
        scale = float(random(image).abs().max() / network(image).abs().max())
        noise = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        first = random.conv1(image + image.std() * noise)
    assert 0.01 < scale < 100
    means, deviations = first.mean(dim=(0, 2, 3)), first.std(dim=(0, 2, 3))
    assert float(((random.bn1.running_mean - means) / deviations).abs().max()) < 0.1
    torch.testing.assert_close(random.bn1.running_var.sqrt(), deviations, rtol=0.1, atol=0)


def test_the_verdict():
    assert Randomization(0.1).passes
    assert Randomization(0.1).verdict == "depends on the weights (rank correlation 0.10 with random ones)"
    assert not Randomization(LIMIT).passes
    assert Randomization(0.9).verdict.startswith("hardly depends on the weights")
