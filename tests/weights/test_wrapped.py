"""Weights of a network inside a larger module."""

import pytest
import torch

from striate import models
from striate.errors import BundleError
from striate.weights import import_weights, open_weights
from striate.weights.wrapped import take_network


def network():
    torch.manual_seed(0)
    return models.build("lenet", num_classes=3).state_dict()


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def features(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc3.")}


@pytest.mark.parametrize("prefix", ["backbone.", "encoder_q.", "model.net.", "a.b.c.d.", "vit."])
@pytest.mark.parametrize("beside", [{}, {"criterion.weight": torch.ones(3), "acc.total": torch.ones(())}])
def test_what_the_names_start_with_is_removed(prefix, beside):
    found, notes = take_network(prefixed(network(), prefix) | beside)
    assert list(found) == list(network())
    assert notes[0] == f"weights taken from the tensors whose names start with {prefix!r}"
    assert notes[1:] == (["ignored criterion.weight, acc.total: not of this network"] if beside else [])


def test_a_networks_own_names_and_unknown_ones_stay():
    for state in (network(), {"a.b.weight": torch.ones(3, 3)}):
        assert take_network(state) == (state, [])


def test_of_several_the_first_that_is_no_average():
    student = prefixed(network(), "student.")
    teacher = {name: tensor + 1 for name, tensor in prefixed(network(), "teacher.").items()}
    found, notes = take_network(teacher | student)
    assert all(torch.equal(found[name], tensor) for name, tensor in network().items())
    assert notes[1] == "the file also has weights under teacher (--part selects them)"


def test_one_linear_layer_beside_the_features_is_the_classifier():
    state = prefixed(features(network()), "backbone.")
    state |= {"head.weight": network()["fc3.weight"], "head.bias": network()["fc3.bias"]}
    found, notes = take_network(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in network().items())
    assert notes[1] == "head, next to the network, is used as its classifier fc3"


def test_features_alone_can_be_trained_on(tmp_path):
    """The next step that the error names works."""
    torch.save(prefixed(features(network()), "encoder.") | {"queue": torch.ones(2)}, tmp_path / "f.pth")
    command = "striate train DATA --model lenet --weights FILE --transfer head"
    with pytest.raises(BundleError, match=f"holds features only.*{command}"):
        import_weights(tmp_path / "f.pth", model="lenet")
    description, state = open_weights(str(tmp_path / "f.pth"), "lenet")
    assert description.classes == ()
    assert list(state) == list(features(network()))


def test_names_of_transformers(tmp_path):
    state = {"resnet.embedder.embedder.convolution.weight": torch.ones(64, 3, 7, 7)}
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(BundleError, match="names of Hugging Face transformers"):
        import_weights(tmp_path / "t.pth")


@pytest.mark.parametrize(
    "name", ["lenet_lightning_criterion.ckpt", "lenet_model_state_dict.pth", "lenet_with_path.pth"]
)
def test_shared_files(name, shared, tmp_path):
    _, description = import_weights(shared / "cases" / name, tmp_path / "out.safetensors")
    assert (description.architecture, description.arguments["num_classes"]) == ("lenet", 3)
