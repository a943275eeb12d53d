"""Splitting a network before its first trainable step."""

import pytest
import torch
from torch import fx, nn

from striate import models
from striate.training import transfer
from striate.training.splitting import split_at_trainable


def steps(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_module"]


def frozen(name, mode="head", last=1, **arguments):
    network = models.build(name, num_classes=3, **arguments)
    transfer.freeze(network, mode, last, models.MODELS[name].classifier)
    transfer.training_mode(network)
    return network


@pytest.mark.parametrize(
    ("name", "last", "expected"),
    [
        ("resnet18", 1, ["fc"]),
        ("resnet18", 2, ["layer4", "avgpool", "fc"]),
        ("googlenet", 1, ["dropout", "fc"]),  # dropout is random in each epoch
        ("mobilenet_v3_small", 1, ["classifier.2", "classifier.3"]),
        ("vit_ti_16", 2, ["encoder.layers.encoder_layer_11", "encoder.ln", "heads"]),
    ],
)
def test_the_split_is_before_the_first_step_whose_output_changes(name, last, expected):
    arguments = {"auxiliary": False} if name == "googlenet" else {}
    parts = split_at_trainable(frozen(name, "last", last, **arguments))
    assert steps(parts.trainable) == expected
    assert not any(p.requires_grad for p in parts.frozen.parameters())


def test_the_two_parts_in_sequence_are_the_network():
    torch.manual_seed(0)
    network = frozen("lenet", "last", 2)
    parts = split_at_trainable(network)
    images = torch.randn(5, 3, 32, 32)
    rest = fx.GraphModule(network, parts.trainable)
    assert torch.equal(rest(parts.frozen(images)), network(images))
    with torch.no_grad():
        network.fc3.bias += 1  # the layers are the network's own, not copies
    assert torch.equal(rest(parts.frozen(images)), network(images))


class Fork(nn.Module):
    """Two tensors pass from the frozen layers to the trainable ones."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.three(self.one(x) + self.two(self.one(x).sin()))


class Fickle(Fork):
    """Its steps depend on the input."""

    def forward(self, x):
        return self.three(self.one(x) if x.sum() > 0 else x)


@pytest.mark.parametrize(("network", "trained"), [(Fork(), "two"), (Fickle(), "three"), (Fork(), "one")])
def test_networks_that_cannot_be_split(network, trained):
    network.requires_grad_(False)
    network.get_submodule(trained).requires_grad_(True)
    assert split_at_trainable(network) is None
