"""Files of others: the shapes that scripts give them, the ways they break, and none of their code."""

import argparse
import collections
import datetime
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoint_files import FORMATS, same, saved, tagged, tensors
from torch import nn

from striate.errors import BundleError, UsageError
from striate.weights.checkpoints import read


@pytest.mark.parametrize("kind", FORMATS)
def test_a_plain_state_dict(tmp_path, kind):
    found = read(saved(tmp_path / "w.pth", tensors(), kind))
    assert same(found.state, tensors())
    assert found.notes == ()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "name", ["state_dict", "model", "model_ema", "model_state_dict", "net", "ema", "gen"]
)
def test_nested_among_what_training_scripts_keep(tmp_path, kind, name):
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 12,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, data="flowers"),
        "best_acc1": np.float64(76.1),
        "best_loss": np.float32(0.5),
        "scaler": None,
        name: tensors(),
    }
    found = read(saved(tmp_path / "w.pth", content, kind))
    assert same(found.state, tensors())
    assert found.notes == (f"weights taken from {name!r}",)


@pytest.mark.parametrize("kind", FORMATS)
def test_objects_beside_the_weights_are_ignored(tmp_path, kind):
    content = {
        "state_dict": tensors(), "where": Path("x"), "when": datetime.date(2020, 1, 1),
        "kind": torch.optim.SGD, "counts": collections.Counter("aab"),
    }  # fmt: skip
    if kind == "zip":  # the earlier format saves the source of modules
        content["network"] = nn.Linear(2, 2)
    found = read(saved(tmp_path / "w.pth", content, kind))
    assert same(found.state, tensors())
    path = f"{type(Path()).__module__}.PosixPath"  # pathlib._local in Python 3.13
    assert f"ignored objects that are no weights: {path}, datetime.date" in found.notes[1]


def test_a_module_in_a_dict_is_refused_with_its_way_out(tmp_path):
    with pytest.raises(BundleError, match=r"refused: .*Linear.*weights_only=False\)\['model'\]\.state_dict"):
        read(saved(tmp_path / "w.pth", {"epoch": 1, "model": nn.Linear(2, 2)}))


def test_weights_deep_in_a_file(tmp_path):
    path = saved(tmp_path / "w.pth", {"trainer": {"best": {"weights": tensors()}}})
    assert same(read(path).state, tensors())
    assert read(path).notes == ("weights taken from 'trainer.best.weights'",)


def test_a_part_can_be_what_names_start_with(tmp_path):
    both = {f"module.encoder_q.{k}": v for k, v in tensors().items()}
    both |= {f"module.encoder_k.{k}": v + 1 for k, v in tensors().items()}
    path = saved(tmp_path / "w.pth", {"state_dict": both})
    for part, added in (("encoder_q", 0), ("encoder_k", 1)):
        found = read(path, part=part)
        assert same(found.state, {k: v + added for k, v in tensors().items()})


def test_averaged_weights_beside_the_others(tmp_path):
    averaged = {f"module.{k}": v + 1 for k, v in tensors().items()} | {"n_averaged": torch.tensor(5)}
    path = saved(tmp_path / "w.pth", {"model": tensors(), "model_ema": averaged})
    found = read(path)
    assert same(found.state, tensors())
    assert "weights under model_ema (--part selects them)" in found.notes[1]
    found = read(path, part="model_ema")
    assert same(found.state, {k: v + 1 for k, v in tensors().items()})
    assert "ignored n_averaged: not a weight" in found.notes
    with pytest.raises(UsageError, match=r"no weights under 'student' .* it has model, model_ema"):
        read(path, part="student")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.module."]
)
def test_wrappers_prefixes(tmp_path, prefix):
    path = saved(tmp_path / "w.pth", {prefix + name: tensor for name, tensor in tensors().items()})
    assert same(read(path).state, tensors())


def test_only_what_stands_before_all_names_is_a_prefix(tmp_path):
    state = {"model.weight": torch.ones(2), "head.weight": torch.ones(2)}
    assert same(read(saved(tmp_path / "w.pth", state)).state, state)


def test_a_part_that_was_compiled(tmp_path):
    state = {"conv1.weight": torch.ones(2), "layer1._orig_mod.0.weight": torch.ones(3)}
    assert list(read(saved(tmp_path / "w.pth", state)).state) == ["conv1.weight", "layer1.0.weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    found = read(saved(tmp_path / "w.pth", tensors(dtype)))
    expected = {k: v.float() if v.is_floating_point() else v for k, v in tensors(dtype).items()}
    assert same(found.state, expected)
    assert found.notes == (f"converted from {str(dtype)[6:]} to float32",)


def test_parameters_and_counters_of_operations(tmp_path):
    state = {"a.weight": nn.Parameter(torch.ones(2)), "a.total_ops": torch.zeros(1, dtype=torch.float64)}
    found = read(saved(tmp_path / "w.pth", state))
    assert list(found.state) == ["a.weight"]
    assert not found.state["a.weight"].requires_grad
    assert found.notes == ("ignored a.total_ops: not a weight",)


def test_a_bare_safetensors_file_of_others(tmp_path):
    safetensors.torch.save_file(tensors(torch.float16), tmp_path / "w.bin", metadata={"format": "pt"})
    found = read(tmp_path / "w.bin")  # by its content, whatever the name
    assert {k: v.dtype for k, v in found.state.items()} == {k: v.dtype for k, v in tensors().items()}


@pytest.mark.parametrize("kind", FORMATS)
def test_saved_on_a_gpu_that_this_machine_lacks(tmp_path, kind):
    path = tagged(tmp_path / "w.pth", kind)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
            torch.load(path, weights_only=True)
    assert same(read(path).state, tensors())


class Mischief:
    """Unpickling it would make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_module_is_refused_with_the_way_out(tmp_path, kind):
    path = saved(tmp_path / "w.pth", nn.Sequential(nn.Linear(2, 2)), kind)
    with pytest.raises(BundleError, match=r"refused: .*torch\.nn\.modules\.container\.Sequential") as caught:
        read(path)
    assert "torch.save(torch.load('w.pth', weights_only=False).state_dict(), 'weights.pth')" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [*FORMATS, "pickle"])
def test_nothing_of_the_files_code_runs(tmp_path, kind):
    folder = tmp_path / "made"
    path = tmp_path / "w.pth"
    content = {"state_dict": tensors(), "extra": Mischief(folder)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Mischief(folder)))
    else:
        saved(path, content, kind)
    with pytest.raises(BundleError, match=r"refused|damaged or no checkpoint"):
        read(path)
    assert not folder.exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.2])
def test_cut_short(tmp_path, kind, share):
    path = saved(tmp_path / "w.pth", tensors(), kind)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BundleError, match="is truncated"):
        read(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_anywhere_is_an_error_of_ours(tmp_path, kind):
    path = saved(tmp_path / "w.pth", {"a.weight": torch.ones(3), "b.weight": torch.ones(2, 2)}, kind)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(BundleError):
            read(path)


def test_a_damaged_or_cut_safetensors_file(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(BundleError, match="damaged or truncated"):
        read(path)


def test_a_torchscript_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit's own, of 2.13
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(BundleError, match="is a TorchScript program"):
        read(tmp_path / "w.pt")


def other_zip():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("photo.txt"), "hello")
    return content.getvalue()


OTHERS = [
    (b"", "it starts with nothing: it is empty"),
    (other_zip(), "a zip archive without a checkpoint"),
    (b"\x80\x02nonsense", "damaged or no checkpoint"),
]


@pytest.mark.parametrize(("content", "why"), OTHERS)
def test_files_that_are_no_checkpoints(tmp_path, content, why):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read(tmp_path / "w.pth")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([torch.ones(2)], "it holds a list, not a dict"),
        (torch.ones(2), "it holds a Tensor, not a dict"),
        ({}, "it holds nothing"),
        ({"epoch": 3}, "it holds epoch"),
        ({"generator": tensors(), "critic": tensors()}, "Choose one with --part: generator, critic"),
    ],
)
def test_checkpoints_without_weights(tmp_path, content, why):
    with pytest.raises(BundleError) as caught:
        read(saved(tmp_path / "w.pth", content))
    assert why in str(caught.value)


def test_tensors_that_are_not_dense(tmp_path):
    with pytest.raises(BundleError, match=r"a\.weight is sparse, quantized or complex"):
        read(saved(tmp_path / "w.pth", {"a.weight": torch.eye(2).to_sparse()}))


def test_absent_and_folder(tmp_path):
    with pytest.raises(BundleError, match="no such file"):
        read(tmp_path / "absent.pth")
    with pytest.raises(BundleError, match="cannot open"):
        read(tmp_path)


def test_the_shared_broken_file_is_refused(shared):
    with pytest.raises(BundleError, match=r"is truncated.* Copy or download it again"):
        read(shared / "data" / "weights_broken" / "resnet18-f37072fd.truncated.pth")
