"""torch's libraries, loaded before torch."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is done elsewhere")
def test_the_libraries_are_those_that_torch_then_finds():
    """They are mapped without torch, torch maps no second copy of them and computes with them.

    A build for CUDA has more libraries of the same folder, which torch adds.
    """
    code = """
import sys
from pathlib import Path
from striate.kernels.preload import load_libraries

def mapped():
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in maps if "libtorch_cpu" in line or "libc10" in line}

load_libraries().join()
before = mapped()
assert "torch" not in sys.modules and before, before
import torch
after = mapped()
assert before <= after and len({Path(path).name for path in after}) == len(after), after
assert float(torch.ones(3, 3) @ torch.ones(3) @ torch.ones(3)) == 9
assert load_libraries() is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
