"""A network gets the tensors of a file only if they fit, which is known before memory is allocated."""

import resource

import pytest
import torch
from torch import nn

from striate import models
from striate.errors import UsageError
from striate.models.filling import fill, rebuilt, require_fit, without_memory
from striate.models.references import Permission


def types_of(state):
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}


def test_a_network_without_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = without_memory(lambda: models.build("vgg16", num_classes=10**6), 32)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # 16 GB otherwise


def test_more_parameters_than_the_file_has_tensors():
    with pytest.raises(UsageError, match="it has 3, too few for this one"):
        without_memory(lambda: nn.Sequential(*(nn.Linear(1, 1) for _ in range(10**9))), 3)
    nn.Linear(1, 1)  # elsewhere parameters are not counted


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weight": torch.ones(2, 3)}, r"weight is \[2, 3\], not \[3, 2\]"),
        ({"weight": None}, "it lacks weight"),
        ({"more": torch.ones(1)}, "more is not of this network"),
        ({"weight": torch.ones(3, 2, dtype=torch.int64)}, r"weight is torch\.int64, not torch\.float32"),
    ],
)
def test_tensors_that_do_not_fit(change, why):
    state = {"weight": torch.ones(3, 2), "bias": torch.ones(3)} | change
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    with pytest.raises(UsageError, match=why):
        require_fit(without_memory(lambda: nn.Linear(2, 3), 2), types_of(state))


def test_halves_become_floats():
    state = {"weight": torch.full((3, 2), 0.5, dtype=torch.bfloat16), "bias": torch.ones(3).double()}
    network = without_memory(lambda: nn.Linear(2, 3), 2)
    require_fit(network, types_of(state))
    assert fill(network, state)(torch.ones(1, 2)).tolist() == [[2.0, 2.0, 2.0]]


def test_constants_that_are_too_large():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Buffer(torch.empty(10**9), persistent=False)

    with pytest.raises(UsageError, match=r"its constants take 4\.0 GB"):
        require_fit(without_memory(Table, 0), {})


class Foreign(nn.Module):
    """Keeps a constant that is not saved and a plain tensor, and reads a value while it is built."""

    def __init__(self, reads=True):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor([2.0, 3.0]), persistent=False)
        self.shift = torch.arange(2.0)
        self.rate = torch.linspace(0, 1, 3)[1].item() if reads else 0.5

    def forward(self, x):
        return self.layer(x) * self.scale + self.shift * self.rate


def test_networks_of_other_origin_are_built_with_what_they_compute_themselves():
    torch.manual_seed(0)
    original, images = Foreign(), torch.randn(4, 2)
    random = torch.random.get_rng_state()
    outline = without_memory(Foreign, 2, own=False)  # reading a value fails without memory
    require_fit(outline, types_of(original.state_dict()))
    arguments = {"num_classes": 2, "in_channels": 1, "input_size": [2, 2]}
    by_name = without_memory(
        lambda: models.build("object:Foreign", permission=Permission(Foreign), **arguments), 2, own=False
    )
    require_fit(by_name, types_of(original.state_dict()))
    assert without_memory(lambda: Foreign(reads=False), 2, own=False).layer.weight.is_meta
    again = rebuilt(Foreign, original.state_dict())
    assert torch.equal(again(images), original(images))
    assert torch.equal(torch.random.get_rng_state(), random), "the caller's random numbers do not change"
    with pytest.raises(RuntimeError):
        without_memory(Foreign, 2)


def test_networks_of_other_origin_with_too_many_parameters_are_not_built_with_memory():
    places = []

    def make():
        layer = nn.Linear(1, 1)
        places.append(layer.weight.device.type)
        return nn.Sequential(*(nn.Linear(1, 1) for _ in range(50)))

    with pytest.raises(UsageError, match="its tensors are of another network"):
        without_memory(make, 2, own=False)
    assert places == ["meta"]
