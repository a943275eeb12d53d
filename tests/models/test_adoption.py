import pytest
import torch
from torch import nn

from striate import models
from striate.errors import UsageError
from striate.models.adoption import adopt
from striate.models.foreign import adapted_kernel, stage_containers
from striate.models.references import Permission, Reference


class Small(nn.Module):
    """Two convolutions and a classifier that is not the last child."""

    def __init__(self, num_classes=10, in_channels=3):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3)
        self.classifier = nn.Linear(8, num_classes, bias=False)
        self.body = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.classifier(torch.relu(self.body(torch.relu(self.stem(x)))).mean((2, 3)))


class Convolutional(nn.Sequential):
    """Its classifier is a convolution, as in SqueezeNet."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def given(network, classes=4, channels=3, size=(16, 16), **more):
    return adopt("object:Net", Reference(classes, channels, size, **more), Permission(network))


@pytest.mark.parametrize(
    ("network", "classifier", "first"),
    [(Small(), "classifier", "stem"), (Convolutional(), "2", "0"), (Small, "classifier", "stem"),
     (lambda n: Small(n), "classifier", "stem"), (lambda: Small(3), "classifier", "stem")],
)  # fmt: skip
def test_the_classifier_and_the_first_convolution_are_found(network, classifier, first):
    found = given(network)
    assert (found.reference.classifier, found.reference.first_conv) == (classifier, first)
    assert found.network(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    again = models.build("object:Net", permission=Permission(network), **found.reference.to_json())
    shapes = lambda module: {name: value.shape for name, value in module.state_dict().items()}
    assert shapes(again) == shapes(found.network)


def test_the_callers_module_does_not_change():
    network = Small().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = given(network, channels=5)
    assert not network.training
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(found.network.body.weight, before["body.weight"])
    assert found.network.body.weight is not network.body.weight


def test_what_is_replaced_is_said_and_keeps_its_kind():
    found = given(Small(), channels=5)
    assert found.notes == (
        "stem, for 3 channels, is adapted to 5: the mean over its input channels, scaled",
        "classifier, for 10 classes, is replaced by one for 4",
    )
    assert found.network.classifier.bias is None
    assert given(Small(4)).notes == ()


@pytest.mark.parametrize("channels", [1, 2, 4, 8, 16])
def test_equal_channels_give_the_same_activations(channels):
    torch.manual_seed(0)
    weight, gray = torch.randn(6, 3, 5, 5).double(), torch.randn(2, 1, 9, 9).double()
    rgb = nn.functional.conv2d(gray.expand(2, 3, 9, 9), weight)
    other = nn.functional.conv2d(gray.expand(2, channels, 9, 9), adapted_kernel(weight, channels))
    torch.testing.assert_close(other, rgb)


def test_options_reach_the_factory_and_arguments_go_by_name():
    asked = {}

    def make(num_classes, in_chans=3, img_size=224, width=1):
        asked.update(num_classes=num_classes, in_chans=in_chans, img_size=img_size)
        return Small(num_classes, in_chans)

    found = given(make, classes=6, channels=2, size=(20, 16))
    assert asked == {"num_classes": 6, "in_chans": 2, "img_size": (20, 16)}
    assert found.notes == ()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_other_types_become_float32(kind):
    network = Small().to(kind)
    found = given(network)
    assert {p.dtype for p in found.network.parameters()} == {torch.float32}
    assert network.body.weight.dtype == kind


class _Tuple(Small):
    def forward(self, x):
        return super().forward(x), x


class _Functional(Small):
    def forward(self, x):
        return super().forward(x) @ torch.ones(10, 9)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (_Tuple(), "returns a tuple: a classifier returns scores"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"returns a tensor of shape \[1, 4, 14, 14\]"),
        (_Functional(), "has 9 scores for 4 classes: its last layer was not found"),
        (nn.Sequential(nn.Conv2d(3, 4, 32)), "cannot read images of 3x16x16: RuntimeError"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "has lazy layers"),
        (lambda n: 3, "returned a int: a network is a torch.nn.Module"),
        (lambda n: 1 / 0, "the factory of object:Net failed: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit(network, message):
    with pytest.raises(UsageError, match=message):
        given(network)


@pytest.mark.parametrize(
    ("classifier", "message"),
    [("nothing", "unknown layer of this Small 'nothing'"), ("clasifier", "did you mean classifier"),
     ("stem", "it has 8 outputs; the network has 10 scores")],
)  # fmt: skip
def test_a_wrong_classifier(classifier, message):
    with pytest.raises(UsageError, match=message):
        given(Small(), classifier=classifier)


def test_large_children_are_divided_into_stages():
    blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    vit = nn.ModuleDict(
        {"embed": nn.Linear(4, 4), "blocks": blocks, "norm": nn.LayerNorm(4), "head": nn.Linear(4, 2)}
    )
    assert stage_containers(vit, "head") == ("blocks",)
    assert stage_containers(Small(), "classifier") == ()
    assert stage_containers(nn.Sequential(vit), "0.head") == ("0", "0.blocks")
