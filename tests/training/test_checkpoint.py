"""Checkpoint files: two are kept, damaged ones are skipped, other formats are converted or refused."""

import json

import pytest
import torch
from conftest import Messages
from exact_resume import outcome, start_and_crash

from striate.api import resume_training
from striate.errors import DataError, UsageError
from striate.training import checkpoint

VALUES = {"step": 7, "finished": False, "rate": 0.5}


@pytest.mark.parametrize("harm", ["a bit", "the end"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(few_colors, uninterrupted, tmp_path, harm):
    folder = start_and_crash(few_colors, tmp_path, 7)
    before, newest = sorted(folder.glob("state/0*.safetensors"))
    content = bytearray(newest.read_bytes())
    if harm == "a bit":
        content[len(content) // 2] ^= 1
    else:
        del content[-1000:]
    newest.write_bytes(content)
    messages = Messages()
    resume_training(folder, messages)
    assert f"{newest} is damaged" in messages.warnings[0]
    assert "resuming from the checkpoint before it" in messages.warnings[0]
    assert f"at step {int(before.stem)}, in epoch" in messages.infos[0]
    assert outcome(folder) == uninterrupted


def test_without_an_intact_checkpoint_there_is_nothing_to_resume(few_colors, tmp_path):
    folder = start_and_crash(few_colors, tmp_path, 5)
    for path in folder.glob("state/0*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot resume .* is damaged.* is damaged"):
        resume_training(folder)


def test_two_checkpoints_are_kept_and_a_small_one_of_a_finished_run(few_colors, uninterrupted, tmp_path):
    folder = start_and_crash(few_colors, tmp_path, 7)
    assert [int(path.stem) for path in sorted(folder.glob("state/0*"))] == [4, 6]
    (folder / ".best.safetensors.1.part").write_bytes(b"half")
    resume_training(folder)
    (state,) = folder.glob("state/0*")
    assert state.stat().st_size < 10_000
    assert not list(folder.rglob("*.part"))
    messages = Messages()
    again = resume_training(folder, messages)
    assert "is finished: there is nothing left to train" in messages.infos[0]
    assert (len(again.epochs), outcome(folder)) == (3, uninterrupted)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.int64,
        torch.float32,
        torch.int32,
        torch.float16,
        torch.bfloat16,
        torch.int16,
        torch.uint8,
        torch.int8,
        torch.bool,
    ],
)
def test_tensors_of_every_type_and_shape_are_read_as_written(dtype, tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = ((), (3,), (0, 2), (2, 3, 4))
    tensors = {
        f"{i}": torch.randint(0, 2, shape, generator=generator).to(dtype) for i, shape in enumerate(shapes)
    }
    tensors["strided"] = torch.randn(4, 5, 2, 3, generator=generator).contiguous(
        memory_format=torch.channels_last
    )
    checkpoint.write(tmp_path, tensors, VALUES, {"config": {}})
    found, damaged = checkpoint.newest(tmp_path)
    assert (found.values, found.facts, damaged) == (VALUES, {"config": {}}, [])
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_a_checkpoint_is_a_safetensors_file(tmp_path):
    from safetensors.torch import load_file

    checkpoint.write(tmp_path, {"a": torch.arange(3), "b": torch.ones(2, 2).half()}, VALUES, {})
    tensors = load_file(tmp_path / "state" / "000000000007.safetensors")
    assert tensors["a"].tolist() == [0, 1, 2]
    assert tensors["b"].dtype == torch.float16


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path, monkeypatch):
    """It is not damaged: it stays, although an older one could be read."""
    checkpoint.write(tmp_path, {}, VALUES, {})
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    checkpoint.write(tmp_path, {}, {**VALUES, "step": VALUES["step"] + 1}, {})
    monkeypatch.undo()
    files = sorted((tmp_path / "state").iterdir())
    with pytest.raises(UsageError, match="a newer Striate wrote it"):
        checkpoint.newest(tmp_path)
    assert len(files) == 2
    assert sorted((tmp_path / "state").iterdir()) == files


def test_values_of_format_1_have_new_names(tmp_path, monkeypatch):
    """As the old version wrote them; `accumulate` was the number of parts that a batch was split into."""
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    values = {
        "step": 3, "rate": 0.1, "rate_share": 0.5, "parts": 4, "learning_since": 2.0, "finished": False,
        "tally": {"loss": 1.5, "hits": 6, "count": 9, "seconds": 0.5},
    }  # fmt: skip
    facts = {
        "config": {"model": "lenet", "accumulate": 4}, "given": {"accumulate": 2}, "head": "fc3",
        "circumstances": {"threads": 1}, "description": None,
    }  # fmt: skip
    tensors = {
        "network.a": torch.ones(1),
        "average.module.a": torch.zeros(1),
        "optimizer.0.step": torch.ones(()),
    }
    checkpoint.write(tmp_path, tensors, values, facts)
    monkeypatch.undo()
    found, _ = checkpoint.newest(tmp_path)
    assert found.values == {
        "step": 3, "lr": 0.1, "lr_scale": 0.5, "micro_batches": 4, "training_since": 2.0, "finished": False,
        "totals": {"loss": 1.5, "correct": 6, "count": 9, "seconds": 0.5},
    }  # fmt: skip
    common = {"task": "classification", "accumulate": 1}
    assert json.loads(json.dumps(found.facts)) == {
        "config": {"model": "lenet", "micro_batches": 4, **common}, "given": {"micro_batches": 2, **common},
        "setup": {"head": "fc3"}, "environment": {"threads": 1}, "description": None,
    }  # fmt: skip
    assert found.tensors.keys() == {"network.a", "ema.module.a", "optimizer.0.step"}
    assert checkpoint.finished(tmp_path) is None
