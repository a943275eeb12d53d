"""The bound on a GPU's speed, by hand, and the estimate against published speeds."""

import pytest
import torch
from torch import nn

from striate import facts
from striate.anatomy import trace
from striate.anatomy.limits import A100, EFFICIENCY, RTX_3090, images_per_hour, seconds


def test_the_limit_is_the_roofline_layer_by_layer():
    """A convolution that arithmetic limits, and a norm that memory limits, by hand."""
    network = nn.Sequential(nn.Conv2d(512, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512)).eval()
    anatomy = trace(network, torch.empty(1, 512, 64, 64))
    macs, values = 512 * 512 * 9 * 64 * 64, 512 * 64 * 64
    forward = 2 * macs / A100.flops + 2 * 2 * values / A100.bandwidth
    assert seconds(anatomy, A100, training=False) == pytest.approx(forward)
    step = 20 * (512 * 512 * 9 + 2 * 512) / 256 / A100.bandwidth
    learning = 6 * macs / A100.flops + 5 * 2 * values / A100.bandwidth + step
    assert seconds(anatomy, A100, training=True) == pytest.approx(learning)


@pytest.mark.parametrize("model", facts.RTX_3090_IMAGES_PER_SECOND)
def test_the_estimate_is_within_a_factor_of_two_of_what_others_measured(model):
    anatomy = trace(model)
    for measured, training in zip(facts.RTX_3090_IMAGES_PER_SECOND[model], (True, False), strict=True):
        estimate = images_per_hour(anatomy, RTX_3090, training=training) / 3600
        assert 1 / 2 < measured / estimate < 2
        if training:
            assert measured < estimate / EFFICIENCY  # the limit
