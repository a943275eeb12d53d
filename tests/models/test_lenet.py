"""LeNet's parameters by the arithmetic of its layers."""

import pytest
import torch

from striate import models
from striate.errors import UsageError


@pytest.mark.parametrize(
    ("size", "channels", "widths"), [(32, 3, (6, 16)), (28, 1, (6, 16)), ((32, 48), 3, (16, 32))]
)
def test_parameters(size, channels, widths):
    height, width = (size, size) if isinstance(size, int) else size
    network = models.build("lenet", num_classes=7, in_channels=channels, input_size=size, widths=widths)
    features = widths[1] * ((height - 12) // 4) * ((width - 12) // 4)
    expected = (
        widths[0] * (25 * channels + 1)
        + widths[1] * (25 * widths[0] + 1)
        + 120 * (features + 1)
        + 84 * 121
        + 7 * 85
    )
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network(torch.zeros(2, channels, height, width)).shape == (2, 7)
    assert [name for name, _ in network.named_children()] == ["conv1", "conv2", "fc1", "fc2", "fc3"]


def test_too_small_images_are_refused():
    with pytest.raises(UsageError, match="--imgsz"):
        models.build("lenet", input_size=12)
