"""Plain state dicts, for torch.load."""

import pytest
import torch

from striate import bundle
from striate.bundle import Description
from striate.errors import WriteError
from striate.exporters import export
from striate.inference.classifier import load
from striate.models import build
from striate.transforms.preprocess import Preprocess


def test_the_state_dict_has_the_weights_of_the_bundle(tmp_path):
    """BatchNorm included, which prediction folds into the convolutions."""
    torch.manual_seed(0)
    network = build("resnet20", num_classes=2)
    for name, value in network.state_dict().items():
        if "running" in name:
            value.add_(torch.rand_like(value))
    description = Description(
        "classification", "resnet20", {"num_classes": 2}, ("a", "b"), Preprocess.for_size(32)
    )
    bundle.write(tmp_path / "model.safetensors", network, description)
    classifier = load(tmp_path / "model.safetensors", "cpu")
    parity = export(classifier, tmp_path / "model.pth", "state-dict")
    written = torch.load(tmp_path / "model.pth", weights_only=True)
    assert written.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(written[name], value), name
    assert (parity.equal, parity.max_difference < 1e-6) == (parity.n, True)
    assert parity.notes == (f"All {len(written)} tensors are equal bit for bit.",)
    build("resnet20", num_classes=2).load_state_dict(written)
    with pytest.raises(WriteError, match="it exists"):
        export(classifier, tmp_path / "model.pth", "state-dict")
