"""Freed memory is reused without new pages from the operating system."""

import subprocess
import sys

import pytest

from striate.kernels import allocator

# Page faults while memory of 40 MB is allocated, written and freed over and over.
FAULTS = """
import resource, sys, torch
from striate.kernels import prepare
if sys.argv[1] == "keep":
    prepare(torch.nn.Identity(), torch.device("cpu"), training=False)
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(10_000_000).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(how):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_a_step_on_the_cpu_gets_the_memory_of_the_step_before():
    if not allocator.keep():
        pytest.skip("this C library is not glibc")
    kept = faults("keep")
    assert kept < 100
    assert 10 * kept < faults("as malloc has it")  # 100,000 of 4 KB, or 200 of 2 MB


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep.__wrapped__() is False
