"""Fixtures and helpers for all tests: shared material, small generated data, one trained run."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
from PIL import Image
from text_runs import reversed_words, text_lines, text_run  # noqa: F401 - fixtures of all tests

from striate.progress import Progress

# The same examples in each run, however long they take.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]

COLORS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


class Messages(Progress):
    """A progress that collects messages."""

    def __init__(self):
        self.infos, self.warnings = [], []

    def info(self, message):
        self.infos.append(message)

    def warn(self, message):
        self.warnings.append(message)


class CrashError(Exception):
    """Stands for the death of the process: nothing handles it."""


@contextlib.contextmanager
def crash_after(step: int):
    """Raise CrashError after a step of training, once its checkpoint (if it has one) is written."""
    from striate.training.checkpointer import Checkpointer

    after_step = Checkpointer.after_step

    def crashing(checkpointer):
        after_step(checkpointer)
        if checkpointer._state.step == step:
            raise CrashError

    with mock.patch.object(Checkpointer, "after_step", crashing), pytest.raises(CrashError):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference numbers that developers have and users do not."""
    folder = Path(os.environ.get("STRIATE_SHARED", ROOT / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the shared material, which is not at {folder} (STRIATE_SHARED names it)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory):
    """Run tests with one thread, and with their own caches instead of the user's.

    Sums that are split differently round differently, and two test processes with two threads each wait for
    each other.
    """
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for the processes that tests start
        caches = tmp_path_factory.mktemp("caches")
        patch.setenv("XDG_CACHE_HOME", str(caches))
        patch.setenv("TORCH_HOME", str(caches / "torch"))
        yield


def make_images(folder: Path, count: int, color: tuple[int, int, int], *, size=(40, 36), seed=0) -> None:
    """Noisy images of one color, as PNG files."""
    rng = np.random.default_rng([seed, *color])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = rng.normal(0, 40, (size[1], size[0], 3))
        Image.fromarray(np.clip(noise + color, 0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")


@pytest.fixture(scope="session")
def colors(tmp_path_factory) -> Path:
    """`root/<class>/` with three classes of twenty images, in a folder with a name that is not ASCII."""
    root = tmp_path_factory.mktemp("data") / "颜色 couleurs"
    for name, color in COLORS.items():
        make_images(root / name, 20, color)
    return root


@pytest.fixture(scope="session")
def few_colors(tmp_path_factory) -> Path:
    """Three classes of twelve images."""
    root = tmp_path_factory.mktemp("few") / "data"
    for name, color in COLORS.items():
        make_images(root / name, 12, color)
    return root


@pytest.fixture(scope="session")
def uninterrupted(few_colors, tmp_path_factory):
    """The outcome of the run of `exact_resume.start` if nothing interrupts it."""
    from exact_resume import outcome, start

    return outcome(start(few_colors, tmp_path_factory.mktemp("whole")).folder)


@pytest.fixture
def two_threads():
    """Use two threads instead of the one that tests have otherwise."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def run(colors, tmp_path_factory):
    """A finished run with its report: a LeNet trained on the colors."""
    import striate

    out = tmp_path_factory.mktemp("runs")
    return striate.train(colors, model="lenet", epochs=3, batch=8, out=str(out), name="colors", test=0.2)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One Chromium for all tests that drive pages."""
    from browser import CHROMIUM, Browser

    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


class Warm:
    """Runs command lines in separate processes, which warm_process.py forks; one at a time."""

    def __init__(self, process):
        self._process = process

    def start(self, *arguments, after=None, threads=1, stdout=os.devnull, stderr=os.devnull) -> int:
        """Start a command line; returns its process id.

        `after` seconds later it is killed; a stream that is None is closed.
        """
        order = {"arguments": [str(a) for a in arguments], "after": after, "threads": threads}
        streams = {"stdout": stdout and str(stdout), "stderr": stderr and str(stderr)}
        print(json.dumps(order | streams), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Wait for it; returns its exit code, or minus the signal."""
        return int(self._process.stdout.readline())

    def run(self, *arguments, **options) -> int:
        """Start a command line and wait for it."""
        self.start(*arguments, **options)
        return self.end()


@pytest.fixture(scope="session")
def warm():
    """Processes that start without the seconds that loading PyTorch takes."""
    program = [sys.executable, Path(__file__).with_name("warm_process.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Warm(process)
