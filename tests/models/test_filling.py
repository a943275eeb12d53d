"""A network gets the tensors of a file only if they fit, which is known before memory is allocated."""

import resource

import pytest
import torch
from torch import nn

from striate import models
from striate.errors import UsageError
from striate.models.filling import fill, require_fit, without_memory


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
