"""benchmarks/gpu.py, rehearsed on the CPU, so that it works on a GPU at the first attempt."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    yield gpu
    for name in ("gpu", "gpu_learning", "in_memory", "rates"):
        sys.modules.pop(name, None)


def rehearse(gpu, out, *argv):
    code = gpu.main(["--device", "cpu", "--quick", "--out", str(out), *argv])
    (path,) = out.glob("*_cpu_gpu.json")
    return code, json.loads(path.read_text())["parts"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_message_is_printed(gpu, capsys):
    assert gpu.main([]) == 0
    assert capsys.readouterr().out.startswith("no GPU")


def test_a_rehearsal_of_the_quick_parts(gpu, tmp_path, capsys):
    only = "logits,augmentation,copies,throughput"
    code, parts = rehearse(gpu, tmp_path, "--only", only, "--models", "lenet")
    assert code == 0
    assert [part["state"] for part in parts.values()] == ["ok", "ok", "skipped", "ok"]
    assert parts["logits"]["relative_error"]["lenet"] < 1e-6
    assert all(value > 0 for value in parts["throughput"]["lenet"].values())
    assert parts["augmentation"]["standard 32"]["largest"] == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"results in {next(tmp_path.iterdir())}"


def test_a_failed_check_is_reported_and_the_others_run(gpu, tmp_path, monkeypatch, capsys):
    real = gpu.logits
    calls = []

    def wrong(network, *args):
        calls.append(network)
        scores, which = real(network, *args)
        return scores + len(calls), which

    monkeypatch.setattr(gpu, "logits", wrong)
    code, parts = rehearse(gpu, tmp_path, "--only", "logits,copies", "--models", "lenet")
    assert code == 1
    assert (parts["logits"]["state"], parts["copies"]["state"]) == ("failed", "skipped")
    assert "scores differ" in parts["logits"]["error"]


@pytest.mark.slow
def test_the_whole_rehearsal(gpu, tmp_path):
    code, parts = rehearse(gpu, tmp_path)
    assert code == 0
    assert list(parts) == list(gpu.PARTS)
    assert parts["resume"]["resumed_is_exact"]
    assert parts["resume_seq2seq"]["resumed_is_exact"]
    assert parts["two_processes"]["relative_error"] < 1e-10
