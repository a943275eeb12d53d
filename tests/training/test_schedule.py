"""The learning rate and the order of the images, as formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.training.schedule import batches, learning_rate


def rates(total, **how):
    return [learning_rate(step, total=total, peak=0.4, **how) for step in range(total)]


def test_cosine():
    expected = [0.2 * (1 + math.cos(math.pi * t / 50)) for t in range(50)]
    assert rates(50) == pytest.approx(expected)


def test_step_falls_at_half_and_three_quarters():
    assert rates(64, kind="step") == pytest.approx([0.4] * 32 + [0.04] * 16 + [0.004] * 16)


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_warm_up_is_linear_and_ends_at_the_peak(kind):
    values = rates(100, kind=kind, warmup=0.1)
    assert values[:10] == pytest.approx([0.04 * (i + 1) for i in range(10)])
    assert max(values) == pytest.approx(0.4)
    assert values[10] == pytest.approx(0.4)


@given(st.integers(1, 300), st.sampled_from(["cosine", "step", "constant"]), st.floats(0, 0.5))
def test_rates_are_positive_and_never_above_the_peak(total, kind, warmup):
    assert all(0 <= rate <= 0.4 * (1 + 1e-12) for rate in rates(total, kind=kind, warmup=warmup))


@given(st.integers(2, 300), st.integers(1, 70), st.integers(0, 9), st.integers(0, 9))
def test_each_image_once_and_no_batch_of_one(count, size, seed, epoch):
    parts = batches(count, size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert all(len(part) <= size + 1 for part in parts)
    if size > 1:
        assert min(len(part) for part in parts) > 1


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(batches(100, 10, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_milestones_and_gamma_are_those_of_torchs_scheduler():
    """90 epochs, a tenth after 30 and 60 (torchvision's references); 0.97 each 3 of them."""
    from torch import nn, optim

    from striate.training.config import TrainConfig
    from striate.training.schedule import rate_at

    for options, theirs in (
        ({"milestones": "1/3", "gamma": 0.1}, lambda o: optim.lr_scheduler.StepLR(o, 30, 0.1)),
        ({"milestones": "1/30", "gamma": 0.97}, lambda o: optim.lr_scheduler.StepLR(o, 3, 0.97)),
        ({"milestones": "0.2,0.9", "gamma": 0.5}, lambda o: optim.lr_scheduler.MultiStepLR(o, [18, 81], 0.5)),
    ):
        config = TrainConfig(data="x", opt="sgd", lr=0.2, sched="step", warmup=0.0, **options)
        optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
        scheduler = theirs(optimizer)
        for epoch in range(90):
            assert rate_at(config, epoch, 90) == pytest.approx(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
