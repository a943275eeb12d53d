"""docs/networks.md: its table is counted again, its examples run."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from striate.models import MODELS, build

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d.]+) ([MG]) \| (\d+) \| ([^|]+) \|", PAGE, re.MULTILINE)
SIZES = {"any": "any", "`input_size`": "argument", "this only": "one"}


def macs(name, size):
    if name == "resnet1202":  # too deep to run in a default test; each of the n blocks costs the same
        by_n = {n: macs(f"resnet{6 * n + 2}", size) for n in (3, 5)}
        return by_n[3] + (200 - 3) * (by_n[5] - by_n[3]) // 2
    arguments = {"auxiliary": False} if name.startswith("googlenet") else {}
    with torch.device("meta"):
        network = build(name, **arguments).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, MODELS[name].channels, size, size, device="meta"))
    return counter.get_total_flops() // 2


def test_every_network_has_a_row():
    assert [row[0] for row in ROWS] == list(MODELS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_what_is_counted(row):
    name, parameters, number, unit, size, sizes = row
    arguments = {"auxiliary": False} if name.startswith("googlenet") else {}
    with torch.device("meta"):
        network = build(name, **arguments)
    assert sum(p.numel() for p in network.parameters()) == int(parameters.replace(",", ""))
    assert (MODELS[name].input_size, MODELS[name].sizes) == (int(size), SIZES[sizes])
    scale = {"M": 1e6, "G": 1e9}[unit]
    step = 10.0 ** -len(number.partition(".")[2]) * scale
    assert abs(macs(name, int(size)) - float(number) * scale) <= step / 2


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 6
    names = {}
    for block in blocks:
        exec(compile(block, "docs/networks.md", "exec"), names)
    assert names["loss"].requires_grad
    assert names["larger"].grid == (18, 24)
