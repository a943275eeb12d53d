"""What all tests share: where the shared material is, small data made on the spot, one trained run."""

import os
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
def _threads():
    """Two threads, whatever the machine has: sums split differently round differently."""
    import torch

    torch.set_num_threads(2)


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
