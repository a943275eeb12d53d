"""Max-pooling of LeNet: torch's values and gradients to the bit."""

import copy

import pytest
import torch
import torch.nn.functional as F

from striate import models
from striate.kernels import pooling, prepare
from striate.kernels.folding import Tracer
from striate.models import lenet

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 6, 24, 24), (2, 16, 8, 10)])
def test_values_and_gradients_are_those_of_torch(shape):
    torch.manual_seed(0)
    plain = torch.randn(shape)
    # Many equal values, all equal ones, zeros of both signs, infinities.
    for x in (plain, plain.round(), plain.relu(), torch.ones(shape), -0.0 * plain, plain / 0):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        expected, found = F.max_pool2d(a, 2), pooling.max_pool(b)
        assert pooling.pays(b)
        assert torch.equal(found, expected)
        gradient = torch.randn_like(expected)
        expected.backward(gradient)
        found.backward(gradient)
        assert torch.equal(b.grad, a.grad)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 3, 7, 8), torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(1, 1, 1024, 1026),
        torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),
    ],
    ids=["odd", "float64", "large", "channels last"],
)  # fmt: skip
def test_torch_pools_everything_else(x):
    assert not pooling.pays(x)
    assert torch.equal(pooling.max_pool(x), F.max_pool2d(x, 2))


def test_a_prepared_lenet_trains_as_the_plain_one():
    torch.manual_seed(0)
    plain = models.build("lenet", num_classes=5, in_channels=1, input_size=28)
    fast = prepare(copy.deepcopy(plain), CPU, training=True)
    assert (type(plain), type(fast)) == (lenet.LeNet, pooling.LeNet)
    assert type(prepare(copy.deepcopy(plain), CPU, training=False)) is lenet.LeNet
    x, labels = torch.rand(8, 1, 28, 28), torch.arange(8) % 5
    for network in (plain, fast):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(network(x), labels).backward()
            optimizer.step()
    for name, value in plain.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value)


def test_graphs_of_a_prepared_lenet():
    plain = models.build("lenet", num_classes=5, in_channels=1, input_size=28)
    fast = prepare(plain, CPU, training=True).eval()
    x = torch.rand(2, 1, 28, 28)
    expected = fast(x)
    graph = torch.fx.GraphModule(fast, Tracer().trace(fast))
    assert torch.equal(graph(x), expected)
    assert "max_pool2d" in graph.code
    assert torch.equal(torch.export.export(fast, (x,)).module()(x), expected)
