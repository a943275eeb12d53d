"""The start of a run on images: initial weights, the memory layout of the network, and images in splits."""

import pytest
import torch
from conftest import COLORS, Messages, make_images

from striate import bundle, models
from striate.api import run_training
from striate.errors import UsageError
from striate.kernels import prepare
from striate.tasks.classification.config import ClassificationConfig


def run(data, tmp_path, progress=None, **options):
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path / "runs"), **options}
    return run_training(ClassificationConfig(str(data), progress=progress or Messages(), **options))


def test_training_starts_from_a_bundle(colors, tmp_path):
    first = run(colors, tmp_path, epochs=2)
    messages = Messages()
    run(colors, tmp_path, messages, weights=str(first.best), lr=1e-12)
    assert any("10 of 10 tensors loaded" in line for line in messages.infos)
    for name, color in list(COLORS.items())[:2]:
        make_images(tmp_path / "two" / name, 5, color)
    messages = Messages()
    second = run(tmp_path / "two", tmp_path, messages, weights=str(first.best), lr=1e-12)
    assert any("initialized at random: fc3.weight, fc3.bias" in line for line in messages.infos)
    _, old = bundle.read(first.best)
    _, new = bundle.read(second.last)
    assert torch.allclose(old["conv1.weight"], new["conv1.weight"], atol=1e-9)
    with pytest.raises(UsageError, match="it holds a lenet"):
        run(colors, tmp_path, model="resnet20", weights=str(first.best))
    with pytest.raises(UsageError, match="no such file"):
        run(colors, tmp_path, weights="imagenett")


def test_wide_convolutions_train_with_channels_last_but_bundles_are_contiguous(colors, tmp_path):
    """The memory layout does not change what is written."""
    done = run(colors, tmp_path, model="resnet20", imgsz=32, epochs=1)
    _, written = bundle.read(done.last)
    assert all(value.is_contiguous() for value in written.values())
    network = prepare(
        models.build("resnet20", **done.description.arguments), torch.device("cpu"), training=True
    )
    wide = network.layer1[0].conv1.weight
    assert wide.is_contiguous(memory_format=torch.channels_last)
    assert not wide.is_contiguous()
    network.load_state_dict(written)
    plain = models.build("resnet20", **done.description.arguments)
    plain.load_state_dict(written)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)
    narrow = prepare(models.build("lenet"), torch.device("cpu"), training=True)
    assert all(value.is_contiguous() for value in narrow.state_dict().values())
