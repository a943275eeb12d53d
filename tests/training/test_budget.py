"""A time in place of epochs: the size it chooses, the rate that follows the clock, the end in time."""

import time

import numpy as np
import pytest
from conftest import COLORS, make_images
from hypothesis import given
from hypothesis import strategies as st

from striate.data import Samples
from striate.errors import UsageError
from striate.training import budget
from striate.training.budget import AROUND, SIZES, Budget, enough_passes, image_size, reading_seconds
from striate.training.config import TrainConfig
from striate.training.schedule import learning_rate
from striate.training.session import resume, train
from striate.training.tally import EpochResult
from striate.transforms.preprocess import Preprocess


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2m5s", 125)],
)
def test_times_are_read(text, seconds):
    assert TrainConfig(data="x", budget=text).budget_seconds == seconds


@pytest.mark.parametrize("text", ["", "m", "ten", "10x", "-5m", "10 m", "0s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="--budget"):
        TrainConfig(data="x", budget=text)


@given(st.floats(1e-7, 1e-4), st.floats(20, 5000), st.integers(10, 20_000), st.integers(10, 5000))
def test_the_size_is_the_largest_that_leaves_time_for_enough_passes(step, seconds, train_images, held_out):
    passes = enough_passes(train_images, weights=False)

    def needed(size):
        return step * size**2 * (passes * train_images + 0.4 * held_out) / 0.9 + AROUND

    size = image_size(step, seconds, train_images, held_out, passes)
    assert size in SIZES
    fitting = [s for s in SIZES if needed(s) <= seconds * (1 + 1e-9)]
    assert size == max(fitting, default=64) or needed(size) == pytest.approx(seconds)


class Clock:
    """Time that passes as the test says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Run:
    """As much of a state as a pace looks at."""

    def __init__(self, clock):
        self.step, self.learning_since, self.rows, self.tally = 0, 0.0, [], self
        self.clock, self.since = clock, 0.0

    @property
    def seconds(self):
        return self.clock.now - self.since


def walk(step_seconds, validation, total="100s", val=100, last=50, reading=0.01):
    """Steps of an epoch of ten until the pace ends it; (time, rate) of each, and the times of validations."""
    clock = Clock()
    clock.now = 7.0  # reading the images
    config = TrainConfig(data="x", budget=total, batch=10, lr=1.0)
    pace, state = Budget(config, clock, val, last, reading), Run(clock)
    state.since = clock.now
    rates, measured = [], []
    while True:
        rates.append((clock.now, pace.rate(state)))
        clock.now += step_seconds
        state.step += 1
        if pace.ended(state):
            return rates, measured, clock.now
        if state.step % 10 == 0 and pace.measures(state):
            clock.now += validation
            measured.append(clock.now)
            state.rows.append(EpochResult(len(state.rows) + 1, state.step, 0, 0, 0, 0, 0, 0, 0))
            state.since = clock.now


@pytest.mark.parametrize(("step", "validation"), [(0.1, 0.5), (0.5, 2.0), (1.0, 2.0)])
def test_the_rate_follows_the_clock_and_ends_near_zero(step, validation):
    rates, measured, ended = walk(step, validation)
    assert measured
    reserve = AROUND + 1.25 * (validation + 50 * (validation / 100 + 0.01))
    assert ended <= 100 - reserve + 1e-9
    assert ended > 100 - reserve - 2 * step
    assert rates[-1][1] < 0.01
    since = rates[0][0]
    late = [(now, rate) for now, rate in rates if measured[0] < now]
    for now, rate in late:  # once a validation was measured, the end stands
        share = (now - since) / (100 - reserve - since)
        assert rate == pytest.approx(learning_rate(share * 1e4, total=1e4, peak=1.0, warmup=0.05))


def test_measuring_takes_a_small_share():
    _, measured, ended = walk(0.05, 3.0)
    assert len(measured) >= 1
    assert 3.0 * (len(measured) - 1) <= 0.1 * ended


def test_reading_is_timed(tmp_path):
    make_images(tmp_path / "red", 4, COLORS["red"])
    (tmp_path / "red" / "001.png").write_bytes(b"no image")
    files = tuple(str(path) for path in sorted((tmp_path / "red").iterdir()))
    samples = Samples(files, np.zeros(4, np.int64))
    assert 0 < reading_seconds(samples, Preprocess.for_size(32), 2) < 1
    in_memory = Samples(files, np.zeros(4, np.int64), np.zeros((4, 8, 8), np.uint8))
    assert reading_seconds(in_memory, Preprocess.for_size(32), 2) == 0


def test_a_run_ends_in_time_and_resumes(colors, tmp_path, monkeypatch):
    """A budget of four seconds, of which none is set aside for loading and reporting."""
    monkeypatch.setattr(budget, "AROUND", 0.5)
    started = time.perf_counter()
    config = TrainConfig(data=str(colors), model="lenet", batch=8, budget="4s", out=str(tmp_path), name="run")
    done = train(config)
    assert time.perf_counter() - started < 4.5  # the machine may be busy with other tests
    assert done.epochs[-1].lr < 0.1 * config.peak_rate
    assert done.epochs[-1].epoch > 5
    assert done.seconds > 2
    again = resume(tmp_path / "run")
    assert again.epochs == done.epochs


def test_the_size_is_chosen_where_the_user_has_not(colors, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "AROUND", 0.5)
    monkeypatch.setattr(budget, "step_seconds", lambda *args: 1e-7)
    said = train(TrainConfig(data=str(colors), model="resnet18", batch=8, budget="2s", out=str(tmp_path)))
    assert said.config.imgsz == 64
