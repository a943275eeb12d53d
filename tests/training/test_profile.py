"""The phases that `--profile` measures."""

import contextlib
import time

import pytest
import torch

import striate
from striate.training.profile import OFF, PHASES, Profile, shares


def test_phases_and_waiting_times_are_counted():
    def slowly():
        for item in range(3):
            time.sleep(0.02)
            yield item

    profile = Profile(torch.device("cpu"))
    profile.start()
    assert list(profile.each("waiting for data", slowly())) == [0, 1, 2]
    with profile.phase("forward"):
        time.sleep(0.05)
    with contextlib.suppress(ZeroDivisionError), profile.phase("backward"):
        time.sleep(0.01)
        raise ZeroDivisionError
    time.sleep(0.03)
    profile.stop()
    least = {"waiting for data": 0.06, "forward": 0.05, "backward": 0.01, "other": 0.03}
    assert profile.seconds.keys() == least.keys()
    for name, seconds in least.items():
        assert seconds <= profile.seconds[name] < seconds + 0.1
    rows = shares(profile.seconds)
    assert [name for name, _, _ in rows] == [name for name in PHASES if name in least]
    assert sum(share for _, _, share in rows) == pytest.approx(1)


def test_without_profile_nothing_is_counted():
    items = [1, 2]
    assert OFF.each("waiting for data", items) is items
    with OFF.phase("forward"):
        pass
    OFF.start()
    OFF.stop()
    assert not OFF.seconds


def test_a_profiled_run_reports_it(colors, tmp_path):
    run = striate.train(colors, model="lenet", epochs=2, profile=True, out=str(tmp_path))
    profile = run.to_json()["profile"]
    assert set(profile) == set(PHASES) - {"frozen layers"}
    assert 0 < sum(profile.values()) <= run.training.seconds
    page = run.report.read_text("utf-8")
    assert "Training time" in page
    assert "waiting for data" in page
