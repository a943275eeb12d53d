"""A bundle keeps weights and words to the bit, opens without pickle, and damage is told."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors import safe_open

from striate import bundle, models, tensor_file
from striate.bundle import Description
from striate.errors import BundleError, DataError, StriateWarning, UsageError
from striate.inference.classifier import load
from striate.models import seq2seq
from striate.transforms.preprocess import Preprocess

DESCRIPTION = Description(
    task="classification",
    architecture="lenet",
    arguments={"num_classes": 3, "in_channels": 3, "input_size": [32, 32]},
    classes=("猫", "dog", 'a class, with "quotes"'),
    preprocess=Preprocess.for_size(32),
    metrics={"val_top1": 0.5},
    provenance={"data": "pets"},
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return models.build("lenet", num_classes=3)


@pytest.fixture
def path(tmp_path, network):
    bundle.write(tmp_path / "m.safetensors", network, DESCRIPTION)
    return tmp_path / "m.safetensors"


def test_round_trip(path, network):
    description, state = bundle.read(path)
    assert description == DESCRIPTION
    assert list(state) == sorted(network.state_dict()) or set(state) == set(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)


def test_any_safetensors_reader_can_open_it(path, network):
    arrays = safetensors.numpy.load_file(path)
    assert np.array_equal(arrays["fc3.bias"], network.fc3.bias.detach().numpy())
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["striate"])["classes"][0] == "猫"


def test_inspect_needs_no_torch(path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from striate import bundle\n"
        f"found = bundle.inspect({str(path)!r})\n"
        "assert 'numpy' in sys.modules and found.description.classes[1] == 'dog', found\n"
        "print(found.weights_sha256, found.values)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [bundle.inspect(path).weights_sha256, "62006".replace("62006", str(61326 + 85))]


def test_describe_reads_the_header_only(path, monkeypatch):
    """Not the weights, whose digest takes seconds for a large network."""
    monkeypatch.setattr("hashlib.sha256", lambda *_: pytest.fail("the weights are hashed"))
    assert bundle.describe(path) == DESCRIPTION
    monkeypatch.undo()
    assert bundle.inspect(path).description == DESCRIPTION


def test_the_digest_is_of_the_weights_alone(path, network, tmp_path):
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} F32 {list(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert bundle.inspect(path).weights_sha256 == digest.hexdigest()
    bundle.write(tmp_path / "n.safetensors", network, dataclasses.replace(DESCRIPTION, metrics={}))
    assert bundle.inspect(tmp_path / "n.safetensors").weights_sha256 == digest.hexdigest()
    with torch.no_grad():
        network.fc3.bias[0] += 1e-7
    bundle.write(tmp_path / "n.safetensors", network, DESCRIPTION)
    assert bundle.inspect(tmp_path / "n.safetensors").weights_sha256 != digest.hexdigest()


def test_wrappers_leave_no_prefix(tmp_path, network):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    bundle.write(tmp_path / "w.safetensors", Wrapper(network), DESCRIPTION)
    assert set(bundle.inspect(tmp_path / "w.safetensors").tensors) == set(network.state_dict())


def test_metrics_are_added_without_touching_the_weights(path):
    before = bundle.inspect(path)
    bundle.add_metrics(path, {"test": {"top1": 0.75}})
    after = bundle.inspect(path)
    assert after.description.metrics == {"val_top1": 0.5, "test": {"top1": 0.75}}
    assert after.weights_sha256 == before.weights_sha256
    assert bundle.read(path)[0].metrics == after.description.metrics


@pytest.mark.parametrize("cut", [0, 5, 100, 5000, -1])
def test_cut_files_are_told(path, cut):
    path.write_bytes(path.read_bytes()[:cut])
    for function in (bundle.describe, bundle.inspect, bundle.read):
        with pytest.raises(BundleError, match=r"damaged|no safetensors header"):
            function(path)


def test_files_of_others_are_told(path, tmp_path):
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, other)
    with pytest.raises(BundleError, match="without Striate's description"):
        bundle.inspect(other)
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(BundleError, match="no safetensors header"):
        bundle.inspect(tmp_path / "x.pth")
    with pytest.raises(BundleError, match="no such file"):
        bundle.inspect(tmp_path / "absent.safetensors")


def test_a_newer_format_asks_for_an_upgrade(path, network, monkeypatch):
    monkeypatch.setattr("striate.bundle.description._FIRST_FORMAT", 9)
    bundle.write(path, network, DESCRIPTION)
    monkeypatch.undo()
    with pytest.raises(BundleError, match="Upgrade"):
        bundle.inspect(path)


def test_a_bundle_has_the_oldest_format_that_holds_it(path):
    """Earlier versions open what they know, and ask for an upgrade instead of decoding other pixels."""
    description = bundle.describe(path)
    assert description.to_json()["format"] == 1
    assert "reducing_gap" not in description.to_json()["preprocess"]
    preprocess = dataclasses.replace(description.preprocess, reducing_gap=2.0)
    for thresholds, gap, expected in ((None, True, 3), ((0.5,) * 3, False, 2), ((0.5,) * 3, True, 3)):
        changed = dataclasses.replace(
            description, thresholds=thresholds, preprocess=preprocess if gap else description.preprocess
        )
        values = json.loads(json.dumps(changed.to_json()))
        assert values["format"] == expected
        assert bundle.Description.from_json(values) == changed


def test_a_failed_write_leaves_the_old_file(path, network, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(
        "os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(DataError, match="no space left"):
        bundle.write(path, network, DESCRIPTION)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"]


def test_a_network_gets_its_tensors_without_being_initialized():
    """Also the buffers that are not saved: each module that has some computes them in `constants`."""
    torch.manual_seed(0)
    plain = models.build("lenet5")
    network = bundle.with_tensors(lambda: models.build("lenet5"), plain.state_dict())
    assert next(network.parameters()).data_ptr() == next(plain.parameters()).data_ptr()
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(network(images), plain(images))
    half = {name: tensor.half() for name, tensor in plain.state_dict().items()}
    assert {t.dtype for t in bundle.with_tensors(lambda: models.build("lenet5"), half).parameters()} == {
        torch.float32
    }
    with torch.device("meta"):
        for name in (
            "alexnet",
            "googlenet",
            "lenet5",
            "mobilenet_v3_small",
            "resnet20",
            "vgg11",
            "vit_ti_16",
        ):
            for module in models.build(name).modules():
                constants = getattr(module, "constants", dict)()
                assert module._non_persistent_buffers_set == constants.keys(), name


def test_weights_stay_when_their_file_is_overwritten(tmp_path):
    path = tmp_path / "x.safetensors"
    network = models.build("lenet", num_classes=3)
    bundle.write(path, network, Description("classification", "lenet", {}, ("a", "b", "c"), Preprocess()))
    _, state = bundle.read(path)
    with path.open("r+b") as file:  # as `cp` does
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"classes": ["a"] * 3}, "classes has 'a' twice"),
        ({"classes": [str(i) for i in range(1000)]}, "classes has 1,000 names, but the network has 3 scores"),
        ({"classes": ["a", "b"]}, "classes has 2 names, but the network has 3 scores"),
        ({"classes": ["a", "b", "\ud800"]}, "classes has a name that is not valid text"),
        ({"classes": "abc"}, "classes is 'abc', not a list"),
        ({"preprocess.mean": [0.5, 0.5, math.nan]}, r"preprocess.mean\[2\] is null, not a finite number"),
        ({"preprocess.std": [0.5, 0.5, math.inf]}, r"preprocess.std\[2\] is null, not a finite number"),
        ({"preprocess.size": [1e9, 1e9]}, r"preprocess.size\[0\] is 1000000000.0, not a whole number"),
        ({"preprocess.size": [10**9, 10**9], "preprocess.shorter_side": 10**9}, "at most 8,192 pixels"),
        ({"preprocess.channels": 1}, "preprocess"),
        ({"preprocess.size": [28, 28]}, r"preprocess.size: \(28, 28\), but its network has \(32, 32\)"),
        ({"preprocess": None}, "preprocess is null, not an object"),
        ({"arguments.num_classes": 3.0}, "num_classes = 3.0: it must be a whole number"),
        ({"arguments.dropout": 1.5}, "unexpected keyword argument 'dropout'"),
        ({"arguments.input_size": [10**9, 10**9]}, "it must be from 1 to 16,384"),
        ({"architecture": "lenett"}, "unknown model 'lenett': did you mean lenet"),
        ({"metrics": []}, r"metrics is \[\], not an object"),
        ({"format": 1.5}, "format is 1.5, not a whole number"),
        ({"colour": 1}, "colour is unknown"),
        ({"task": None}, "task is null, not text"),
    ],
)
def test_a_description_that_cannot_be_right_names_the_field(path, change, why):
    header, content = tensor_file.read_header(path, ""), path.read_bytes()
    values = json.loads(header.metadata["striate"])
    for name, value in change.items():
        at, _, key = name.rpartition(".")
        (values[at] if at else values)[key] = value
    text = json.dumps(values)
    path.write_bytes(tensor_file.header_bytes(header.table, {"striate": text}) + content[header.start :])
    with pytest.raises(BundleError, match=why):
        load(path, "cpu")


def test_a_bundle_without_checksums_is_noted_once(path, monkeypatch):
    header, content = tensor_file.read_header(path, ""), path.read_bytes()
    metadata = {"striate": header.metadata["striate"]}
    path.write_bytes(tensor_file.header_bytes(header.table, metadata) + content[header.start :])
    monkeypatch.setattr(bundle, "_noted", False)
    with pytest.warns(StriateWarning, match="has no checksums"):
        first = bundle.read(path)
    assert bundle.read(path)[0] == first[0]  # silent


def test_arguments_that_no_network_can_have():
    build_text = partial(seq2seq.build, "text_to_text", source_vocab=9, target_vocab=9, width=8, heads=2)
    for arguments, why in (
        ({"dropout": 1.5}, "dropout = 1.5: it must be from 0 to 1"),
        ({"depth": 2**31}, "depth = 2147483648: it must be from 0 to 1,000"),
        ({"max_length": 2**31}, "max_length = 2147483648: it must be from 1 to 1,048,576"),
        ({"positions": 3}, "positions = 3: it must be text"),
    ):
        with pytest.raises(UsageError, match=why):
            build_text(**arguments)
