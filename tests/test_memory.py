"""The memory that is left, under the limits of the machine, a container and `ulimit -v`."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from striate import memory
from striate.errors import ResourceError


def test_the_machine_limits_the_memory():
    """MemAvailable is below MemTotal, and above what is free."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
    assert 0 < memory.available() <= kib["MemTotal"] * 1024


def test_a_limit_of_the_process_counts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "from striate import memory; print(memory.available())"
    )
    left = int(subprocess.check_output([sys.executable, "-c", code]))
    assert (1 << 30) * 0.5 < left < 1 << 30
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "memory.max": "1000", "memory.current": "400",
                "memory.stat": "inactive_file 90\nactive_file 60",
            },
            750,
        ),
        ({"memory.max": "1000", "memory.current": "400", "memory.stat": "active_file 5000"}, 1000),
        ({"memory.max": "max", "memory.current": "400", "memory.stat": ""}, None),
        (
            {
                "memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "500",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 7",
            },
            407,
        ),
    ],
)  # fmt: skip
def test_a_container_limits_the_memory(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = memory.available()
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    left = memory.available()
    assert left == expected if expected is not None else abs(left - whole) < 1 << 30


def test_what_cannot_fit_is_refused_with_the_estimate(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2_000_000_000)
    memory.require(2e9, "x", "y")
    with pytest.raises(ResourceError) as found:
        memory.require(336e9, "the network", "Use a smaller --width")
    assert str(found.value) == (
        "out of memory for the network: it needs at least 336.0 GB, and 2.0 GB are available. "
        "Use a smaller --width"
    )
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.require(1e30, "x", "y")
