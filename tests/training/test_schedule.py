"""Learning rates as formulas, the order of the samples, and a time budget that follows the clock."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.metrics import ClassificationMetrics
from striate.training.distributed import SINGLE
from striate.training.schedule import (
    START_AND_REPORT,
    EpochSchedule,
    EvaluationCost,
    LRSchedule,
    TimeBudget,
    shuffled_batches,
    split_evenly,
)


def rates(total, **options):
    return [LRSchedule(0.4, **options).at(step, total) for step in range(total)]


def test_cosine_decay():
    expected = [0.2 * (1 + math.cos(math.pi * t / 50)) for t in range(50)]
    assert rates(50) == pytest.approx(expected)


def test_step_decay_at_half_and_three_quarters():
    assert rates(64, kind="step") == pytest.approx([0.4] * 32 + [0.04] * 16 + [0.004] * 16)


def test_inverse_square_root_decay():
    """Vaswani et al. 2017, equation 3: min(step^-0.5, step * warmup^-1.5), scaled to the peak."""
    expected = [0.4 * 10**0.5 * min(t**-0.5, t * 10**-1.5) for t in range(1, 101)]
    assert rates(100, kind="inverse-sqrt", warmup=0.1) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cosine", "step", "constant", "inverse-sqrt"])
def test_warm_up_is_linear_and_ends_at_the_peak(kind):
    values = rates(100, kind=kind, warmup=0.1)
    assert values[:10] == pytest.approx([0.04 * (i + 1) for i in range(10)])
    assert max(values) == pytest.approx(0.4)
    if kind != "inverse-sqrt":  # which decays from the first step after it
        assert values[10] == pytest.approx(0.4)


@given(
    st.integers(1, 300), st.sampled_from(["cosine", "step", "constant", "inverse-sqrt"]), st.floats(0, 0.5)
)
def test_rates_are_positive_and_never_above_the_peak(total, kind, warmup):
    assert all(0 <= rate <= 0.4 * (1 + 1e-12) for rate in rates(total, kind=kind, warmup=warmup))


@given(st.integers(2, 300), st.integers(1, 70), st.integers(0, 9), st.integers(0, 9))
def test_batches_hold_each_image_once_and_never_one_image_alone(count, size, seed, epoch):
    batches = shuffled_batches(count, size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(count))
    assert all(len(batch) <= size + 1 for batch in batches)
    if size > 1:
        assert min(len(batch) for batch in batches) > 1


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(shuffled_batches(100, 10, seed=seed, epoch=epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (7, [3, 4]), (3, [3]), (2, [2]), (1, [1])])
def test_an_even_split_has_no_single_image(count, sizes):
    assert [len(np.arange(count)[part]) for part in split_evenly(count, 2)] == sizes


def test_milestones_and_gamma_decay_as_torchs_schedulers():
    """90 epochs, a tenth after 30 and 60 (torchvision's references); 0.97 every 3 epochs."""
    for options, scheduler_of in (
        ({"milestones": "1/3", "gamma": 0.1}, lambda o: optim.lr_scheduler.StepLR(o, 30, 0.1)),
        ({"milestones": "1/30", "gamma": 0.97}, lambda o: optim.lr_scheduler.StepLR(o, 3, 0.97)),
        ({"milestones": "0.2,0.9", "gamma": 0.5}, lambda o: optim.lr_scheduler.MultiStepLR(o, [18, 81], 0.5)),
    ):
        config = ClassificationConfig("x", opt="sgd", lr=0.2, sched="step", warmup=0.0, **options)
        schedule = LRSchedule(config.peak_lr, config.sched, 0.0, config.milestone_shares, config.gamma)
        optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
        scheduler = scheduler_of(optimizer)
        for epoch in range(90):
            assert schedule.at(epoch, 90) == pytest.approx(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()


class Clock:
    """Time that passes as the test says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class State:
    """As much of a training state as a schedule reads."""

    def __init__(self, clock):
        self.step, self.training_since, self.rows, self.totals = 0, 0.0, [], self
        self.clock, self.since = clock, 0.0

    @property
    def seconds(self):
        return self.clock.now - self.since


def row(epoch, step, seconds=0.0):
    return ClassificationMetrics(epoch, step, 0, 0, 0, 0, 0, seconds, 0)


def test_the_time_left_is_that_of_the_remaining_steps():
    schedule, state = EpochSchedule(4, 10, LRSchedule(1.0)), State(Clock())
    assert (schedule.steps, schedule.ended(state), schedule.should_evaluate(state)) == (40, False, True)
    state.step, state.rows = 20, [row(1, 10, 3.0), row(2, 20, 5.0)]
    assert schedule.seconds_left(state) == pytest.approx(8.0)
    state.step = 40
    assert schedule.ended(state)


LR = LRSchedule(1.0, warmup=0.05)


def walk(step_seconds, validation, val=100, test=50, read=0.01, epochs=None):
    """Epochs of ten steps until 100 s end; (time, rate) of each step, times of evaluations, the end."""
    clock = Clock()
    clock.now = 7.0  # spent on opening the images
    cost, state = EvaluationCost(val, test, read), State(clock)
    budget = TimeBudget(100, 10, LR, clock, cost, SINGLE, epochs, steps_per_epoch=10)
    state.since = clock.now
    rates, evaluated = [], []
    while True:
        rates.append((clock.now, budget.lr(state)))
        clock.now += step_seconds
        state.step += 1
        if budget.ended(state):
            return rates, evaluated, clock.now
        if state.step % 10 == 0 and budget.should_evaluate(state):
            clock.now += validation
            evaluated.append(clock.now)
            state.rows.append(row(len(state.rows) + 1, state.step))
            state.since = clock.now


@pytest.mark.parametrize(("step", "validation"), [(0.1, 0.5), (0.5, 2.0), (1.0, 2.0)])
def test_the_rate_follows_the_clock_and_ends_near_zero(step, validation):
    rates, evaluated, ended = walk(step, validation)
    assert evaluated
    reserve = START_AND_REPORT + 1.25 * (validation + 50 * (validation / 100 + 0.01))
    assert ended <= 100 - reserve + 1e-9
    assert ended > 100 - reserve - 2 * step
    assert rates[-1][1] < 0.01
    since = rates[0][0]
    late = [(now, rate) for now, rate in rates if evaluated[0] < now]
    for now, rate in late:  # once an evaluation was measured, the end is fixed
        share = (now - since) / (100 - reserve - since)
        assert rate == pytest.approx(LR.at(share * 1e4, 1e4))


def test_epochs_limit_a_budget_and_the_budget_limits_epochs():
    """Whichever comes first ends training, and the learning rate has decayed by then."""
    free, _, _ = walk(0.5, 2.0)
    few, _, ended = walk(0.5, 2.0, epochs=5)
    assert len(few) == 50
    assert ended < 40
    assert [rate for _, rate in few] == pytest.approx([LR.at(step / 50 * 1e4, 1e4) for step in range(50)])
    many, _, _ = walk(0.5, 2.0, epochs=1000)
    assert many == free


def test_the_time_left_is_that_of_the_nearer_limit():
    clock = Clock()
    state, cost = State(clock), EvaluationCost(0, 0)
    budget = TimeBudget(100, 10, LR, clock, cost, SINGLE, epochs=4, steps_per_epoch=10)
    state.step, state.rows = 20, [row(1, 10, 3.0), row(2, 20, 5.0)]
    assert budget.epochs == 4
    assert budget.seconds_left(state) == pytest.approx(8.0)
    clock.now = 90.0
    assert budget.seconds_left(state) == pytest.approx(100 - START_AND_REPORT - 90.0)


def test_evaluation_takes_a_small_share_of_the_budget():
    _, evaluated, ended = walk(0.05, 3.0)
    assert len(evaluated) >= 1
    assert 3.0 * (len(evaluated) - 1) <= 0.1 * ended


def test_the_time_of_evaluation_is_estimated_from_a_step_and_from_the_frozen_layers():
    """Per image 0.4 of a training step, or the time that the frozen layers are known to take."""
    clock = Clock()
    for sample_seconds, final in ((0.0, 50 * 0.4 * 0.02), (0.3, 50 * 0.3)):
        clock.now = 0.0
        cost = EvaluationCost(100, 50, sample_seconds=sample_seconds)
        budget, state = TimeBudget(100, 10, LR, clock, cost, SINGLE), State(clock)
        budget.lr(state)
        clock.now += 0.2
        budget.ended(state)
        validation = 0.4 * 0.02 * 100
        expected = 100 - START_AND_REPORT - 1.25 * (validation + final) - clock.now
        assert budget.seconds_left(state) == pytest.approx(expected)
