"""What a run does before torch is there, and what it leaves alone until its first step is made."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import COLORS, make_images

from striate import bundle
from striate.training import ahead, session
from striate.training.ahead import Ahead
from striate.training.config import TrainConfig
from striate.transforms import preprocess


@pytest.fixture
def decoded(monkeypatch):
    """How often each file has been decoded."""
    times = Counter()

    def counted(decoder):
        def wrapper(source, *arguments, **options):
            times[str(source)] += 1
            return decoder(source, *arguments, **options)

        return wrapper

    for name in ("decode", "open_image"):
        monkeypatch.setattr(preprocess, name, counted(getattr(preprocess, name)))
    return times


def config_of(data, tmp_path, **options):
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path / "runs"), **options}
    return TrainConfig(data=str(data), **options)


@pytest.mark.parametrize("options", [{}, {"imgsz": 80}])
def test_no_file_is_decoded_twice_and_the_weights_are_the_same(
    options, colors, tmp_path, monkeypatch, decoded
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("striate.data.images.decoded._SETTLED", 0)  # the files of this test are new
    run = ahead.train(config_of(colors, tmp_path, **options))
    kept = [name for split in ("train", "val") for name in run.dataset.splits[split].names]
    assert decoded == Counter(kept)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    other = session.train(config_of(colors, tmp_path, **options))
    assert bundle.inspect(run.last).weights_sha256 == bundle.inspect(other.last).weights_sha256


def test_what_was_read_ahead_is_what_the_run_asks_for(colors, tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = config_of(colors, tmp_path)
    opened = Ahead(config)
    train, _ = opened.images(config.preprocess(None), config)
    assert not decoded
    with opened:
        pass  # what is under way is finished, what is not is left
    once = Counter(decoded)
    out = np.empty((len(train), *train.shape), np.uint8)
    assert train.read(np.arange(len(train)), out).all()
    assert all(decoded[name] == 1 for name in train.names)
    assert once <= decoded


def test_an_unreadable_file_is_named_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, color in COLORS.items():
        make_images(tmp_path / "data" / name, 6, color)
    (tmp_path / "data" / "red" / "bad.png").write_bytes(b"no image")
    run = ahead.train(config_of(tmp_path / "data", tmp_path, val=0.2, test=0))
    assert [problem.path for problem in run.problems] == [str(tmp_path / "data" / "red" / "bad.png")]


def test_the_first_step_comes_before_anything_else_that_is_heavy(colors, tmp_path):
    """Data are opened and read without torch; no matplotlib, scikit-learn, nor torch's compiler."""
    code = f"""
import sys
import striate
from striate.progress import Progress
from striate.training.ahead import Ahead
from striate.training.config import TrainConfig

with Ahead(TrainConfig(data={str(colors)!r}, model="lenet", out={str(tmp_path)!r})) as opened:
    opened.remarks()
assert "torch" not in sys.modules

class FirstStep(Progress):
    def advance(self, done, **figures):
        print(*sorted({{name.split(".")[0] for name in sys.modules}}), "torch._dynamo" in sys.modules)
        raise KeyboardInterrupt

try:
    striate.train({str(colors)!r}, progress=FirstStep(), model="lenet", epochs=1, out={str(tmp_path)!r})
except KeyboardInterrupt:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *loaded, compiler = done.stdout.split("\n")[0].split()
    assert "torch" in loaded, done.stderr
    assert not {"matplotlib", "sklearn", "scipy", "jinja2", "rich", "sympy"} & set(loaded)
    assert compiler == "False"
