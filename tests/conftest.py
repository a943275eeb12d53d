"""What all tests share: where the shared material is, and one thread for torch."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
