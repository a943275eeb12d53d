"""Parameters and MACs, including nine known mistakes of layer counters."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate.anatomy import trace
from striate.errors import UsageError
from striate.models import MODELS


def rows(anatomy, kind):
    return [layer for layer in anatomy.layers if layer.type == kind]


# The nine mistakes.


def test_a_linear_layer_called_four_times_has_its_parameters_once_and_its_macs_four_times():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x):
            return self.fc(self.fc(self.fc(self.fc(x))))

    anatomy = trace(Net(), torch.empty(2, 16))
    assert anatomy.total_params == sum(layer.params for layer in anatomy.layers) == 16 * 16 + 16
    assert [layer.macs for layer in anatomy.layers] == [2 * 16 * 16] * 4
    assert [layer.shared for layer in anatomy.layers] == [False, True, True, True]


def test_tied_weights_count_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(100, 8)
            self.head = nn.Linear(8, 100, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    anatomy = trace(Net(), torch.zeros(1, 5, dtype=torch.int64))
    assert anatomy.total_params == sum(layer.params for layer in anatomy.layers) == 800
    assert anatomy.macs == 5 * 8 * 100
    assert anatomy.layers[-1].shared


def test_one_relu_used_three_times_is_three_layers():
    relu = nn.ReLU()
    anatomy = trace(
        nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Conv2d(4, 4, 3), relu), size=16
    )
    assert [layer.output[2] for layer in rows(anatomy, "ReLU")] == [14, 12, 10]
    assert [layer.rf for layer in rows(anatomy, "ReLU")] == [(3, 3), (5, 5), (7, 7)]


def test_a_transposed_convolution_multiplies_each_input_value():
    net = nn.ConvTranspose2d(6, 8, (3, 2), stride=(2, 3), padding=1, output_padding=(1, 0), groups=2)
    x = torch.empty(2, 6, 5, 7)
    (layer,) = trace(net, x).layers
    assert layer.output == tuple(net(x).shape)
    assert layer.macs == 2 * 6 * 5 * 7 * (8 // 2) * 3 * 2
    assert layer.params == 6 * (8 // 2) * 3 * 2 + 8


@pytest.mark.parametrize("groups", [1, 2, 12])
def test_grouped_and_depthwise_convolutions_see_their_group_only(groups):
    net = nn.Conv2d(12, 24, 3, stride=2, padding=1, groups=groups)
    (layer,) = trace(net, torch.empty(1, 12, 9, 11)).layers
    assert layer.macs == 24 * 5 * 6 * (12 // groups) * 9
    assert layer.params == 24 * (12 // groups) * 9 + 24
    assert layer.groups == groups


def test_functional_convolutions_are_seen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 3, 5, 3))
            self.other = nn.Parameter(torch.zeros(2, 4, 1, 1))

        def forward(self, x):
            return F.conv2d(F.relu(F.conv2d(x, self.weight, padding=(2, 1))), self.other).flatten(1) * 2

    anatomy = trace(Net(), size=(10, 12))
    first, second = rows(anatomy, "conv2d")
    assert (first.kernel, first.rf, first.params) == ((5, 3), (5, 3), 4 * 3 * 15)
    assert (first.macs, second.macs) == (4 * 120 * 45, 2 * 120 * 4)
    assert anatomy.total_params == sum(layer.params for layer in anatomy.layers)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_counts_in_full_also_in_inference(need_weights):
    width, tokens, batch = 32, 10, 2

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = nn.MultiheadAttention(width, 4, batch_first=True)

        def forward(self, x):
            return self.mha(x, x, x, need_weights=need_weights)[0]

    net = Net().eval()
    with torch.no_grad():
        anatomy = trace(net, torch.empty(batch, tokens, width))
    (layer,) = anatomy.layers
    projections = 4 * batch * tokens * width * width
    scores_and_sums = 2 * batch * tokens * tokens * width
    assert anatomy.macs == projections + scores_and_sums
    assert layer.params == anatomy.total_params == 4 * (width * width + width)
    assert not anatomy.uncounted
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: {"out": a, "more": [b]},
        lambda a, b: (a, (b,)),
        lambda a, b: SimpleNamespace(out=a) and (a, b),
    ],
)
def test_outputs_of_any_shape(wrap):
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return wrap(y, y.mean(dim=(2, 3)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Part()

        def forward(self, x):
            out = self.part(x)
            return out if isinstance(out, dict) else {"result": out, "name": "text", "none": None}

    anatomy = trace(Net(), size=8)
    assert anatomy.outputs == ((1, 4, 6, 6), (1, 4))
    assert anatomy.macs == 4 * 36 * 27


def test_a_module_that_raises_is_restored():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.seen = []

        def forward(self, x):
            self.cache = self.fc(x)
            self.seen.append(x)
            self.fc.weight = nn.Parameter(torch.zeros(3, 3))
            raise RuntimeError("no such luck")

    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), Part()).train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weight = net[2].fc.weight
    with pytest.raises(UsageError, match=r"\[1, 3\] in 2: RuntimeError: no such luck") as caught:
        trace(net, torch.empty(1, 3))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert net[2].fc.weight is weight
    assert not hasattr(net[2], "cache")
    assert net[2].seen == []
    assert [part.training for part in net] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
    net[0](torch.zeros(1, 3))  # no hook is left


# Published figures.

PRESENT = sorted(MODELS)


@pytest.mark.parametrize("name", PRESENT)
def test_parameters_and_macs_are_the_published_ones(name, shared):
    facts = json.loads((shared / "oracle" / "facts.json").read_text())["torchvision_models"]
    if name not in facts or "IMAGENET1K_V1" not in facts[name]["weights"]:
        pytest.skip("torchvision publishes none")
    published = facts[name]["weights"]["IMAGENET1K_V1"]
    anatomy = trace(name)
    assert anatomy.params == published["num_params_meta"]
    assert anatomy.total_params == facts[name]["params_total"]
    assert anatomy.params + sum(anatomy.unused.values()) == anatomy.total_params
    # Published to three decimals of 1e9, some of them truncated instead of rounded.
    assert abs(anatomy.macs / 1e9 - published["gflops_meta"]) < 0.001
    assert not anatomy.uncounted
    assert not anatomy.untracked


@pytest.mark.parametrize("name", PRESENT)
def test_receptive_fields_are_those_of_the_oracle(name, shared):
    oracle = json.loads((shared / "oracle" / "receptive_fields.json").read_text())
    if name not in oracle:
        pytest.skip("the oracle has no such network")
    layers = trace(name).layers
    calls = {}  # the oracle names the k-th call of a module name_k
    for layer in layers:
        calls.setdefault(layer.name, []).append(layer)
    merges = {kind: [layer for layer in layers if layer.type == kind] for kind in ("add", "cat")}
    compared = 0
    for want in oracle[name]["layers"]:
        if want["module"] is None:
            layer = merges[want["type"]].pop(0)
        elif want["module"] in calls and want["type"] not in ("ReLU", "Hardswish"):
            layer = calls[want["module"]][0]
        else:  # a module with several steps, or a functional activation: its last step
            path = want["module"]
            inside = [layer for layer in layers if layer.name.startswith(f"{path}.")]
            block = path.rpartition(".")[0]
            layer = (inside or [layer for layer in layers if layer.name.startswith(f"{block}.")])[-1]
        compared += 1
        assert list(layer.output[1:]) == want["shape"], want["node"]
        assert layer.whole_image == want["whole_image_through_se"], want["node"]
        for axis in (0, 1):
            got = layer.rf[axis], layer.jump[axis], layer.start[axis], layer.sees((0, 0))[axis]
            assert got == (want["rf"], want["jump"], want["start"], (want["lo"], want["hi"])), want["node"]
    assert compared == len(oracle[name]["layers"]) > 7


# Other things that modules do.


def test_the_users_tensors_are_neither_read_nor_written():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = nn.Buffer(torch.zeros(()))
            self.scale = torch.full((1, 3, 1, 1), 2.0)  # neither parameter nor buffer

        def forward(self, x):
            self.calls += 1
            steps = torch.arange(3)
            for _ in range(int(steps[-1])):
                x = x * self.scale
            return x

    net = Net()
    anatomy = trace(net, size=4)
    assert [layer.type for layer in anatomy.layers] == ["mul", "mul"]
    assert net.calls == 0


def test_a_network_that_reads_values_is_an_error():
    class Net(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match="reads values"):
        trace(Net(), size=4)


def test_an_unknown_operator_is_reported():
    class Net(nn.Module):
        def forward(self, x):
            return torch.cholesky_inverse(x[:, 0]) + 1

    anatomy = trace(Net(), size=4)
    assert anatomy.uncounted == {"cholesky_inverse": 1}
    assert anatomy.untracked == {"cholesky_inverse": 1}
    assert anatomy.layers[-1].rf == (None, None)


def test_lazy_layers_are_an_error():
    with pytest.raises(UsageError, match="lazy"):
        trace(nn.LazyLinear(4), torch.empty(2, 3))


def test_unused_parameters_are_listed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Conv2d(3, 4, 1)
            self.aux = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Linear(4, 2))

        def forward(self, x):
            return self.used(x)

    anatomy = trace(Net(), size=4)
    assert anatomy.unused == {"aux": 4 * 4 + 4 + 4 * 2 + 2}
    assert (anatomy.params, anatomy.total_params) == (16, 46)


def test_recurrent_layers_and_products_count():
    (layer,) = trace(nn.LSTM(5, 7), torch.empty(4, 2, 5)).layers
    assert layer.macs == 4 * 2 * 4 * 7 * (5 + 7)

    class Net(nn.Module):
        def forward(self, a, b):
            return torch.einsum("bij,bjk->bik", a @ b, b.transpose(1, 2)), torch.baddbmm(a @ b, a, b)

    anatomy = trace(Net(), (torch.empty(3, 4, 5), torch.empty(3, 5, 6)))
    assert anatomy.macs == 3 * 4 * 5 * 6 * 4


def test_activation_memory_is_what_is_written():
    anatomy = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten()), size=10, batch=2)
    assert anatomy.activation == 2 * (2 * 8 * 100 * 4)
    inplace = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True)), size=10, batch=2)
    assert inplace.activation == 2 * 8 * 100 * 4
