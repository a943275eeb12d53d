"""What all tests share: where the shared material is, small data made on the spot, one trained run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

COLORS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference numbers that developers have and users do not."""
    folder = Path(os.environ.get("STRIATE_SHARED", ROOT / ".." / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the shared material, which is not at {folder} (STRIATE_SHARED names it)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory):
    """What the tests have of the machine: one thread, and caches of their own, not the user's.

    One thread, because sums split differently round differently, and because two test processes that keep
    two threads each wait for each other.
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
    """Noisy images of one colour, as PNG files."""
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
def run(colors, tmp_path_factory):
    """A LeNet that has learnt the colours: a finished run with its report."""
    import striate

    out = tmp_path_factory.mktemp("runs")
    return striate.train(colors, model="lenet", epochs=3, batch=8, out=str(out), name="colors", test=0.2)


class Warm:
    """Runs command lines in processes of their own, which warm_process.py forks; one at a time."""

    def __init__(self, process):
        self._process = process

    def start(self, *arguments, after=None, threads=1, stdout=os.devnull, stderr=os.devnull) -> int:
        """Starts a command line, killed `after` so many seconds; answers its process id. None closes."""
        order = {"arguments": [str(a) for a in arguments], "after": after, "threads": threads}
        streams = {"stdout": stdout and str(stdout), "stderr": stderr and str(stderr)}
        print(json.dumps(order | streams), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Waits for it; answers its exit code, or minus the signal."""
        return int(self._process.stdout.readline())

    def run(self, *arguments, **options) -> int:
        """Both."""
        self.start(*arguments, **options)
        return self.end()


@pytest.fixture(scope="session")
def warm():
    """Processes without the seconds in which each would load PyTorch."""
    program = [sys.executable, Path(__file__).with_name("warm_process.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Warm(process)
