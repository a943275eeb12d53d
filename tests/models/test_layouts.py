"""A tensor in the wrong layout is refused with what to do."""

import pytest
import torch

from striate import models
from striate.errors import LayoutError


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((2, 32, 32, 3), "permute"),
        ((3, 32, 32), "unsqueeze"),
        ((2, 1, 32, 32), "in_channels"),
        ((2, 3, 28, 28), r"input_size=\[28, 28\]"),
        ((32, 32), r"\[batch, channel, height, width\]"),
    ],
)
def test_wrong_layouts_are_refused(shape, advice):
    with pytest.raises(LayoutError, match=advice) as caught:
        models.build("lenet")(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_networks_of_any_size_take_any_size(name):
    network = models.build(name, num_classes=4).eval()
    for size in (32, 47, 64):
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 4)
    with pytest.raises(LayoutError):
        network(torch.zeros(1, 32, 32, 3))


def test_unknown_names_and_arguments():
    with pytest.raises(models.UsageError, match="resnet18"):
        models.build("resnet81")
    with pytest.raises(models.UsageError, match="It takes num_classes, in_channels"):
        models.build("resnet18", classes=3)
