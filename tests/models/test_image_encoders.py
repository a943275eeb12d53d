"""Images as sequences: any width in one batch, and every network of the zoo without its classifier."""

import pytest
import torch
from torch import nn

from striate import models
from striate.errors import UsageError
from striate.models.image_encoders import Network, cut
from striate.models.seq2seq import ImageToText
from striate.training import transfer

SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 32}


def image_to_text(encoder="columns", seed=0, **arguments):
    torch.manual_seed(seed)
    network = ImageToText(11, encoder, **{**SMALL, **arguments})
    for module in network.modules():  # norms as after training, not the identity
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(("encoder", "unit"), [("columns", 4), ("patches", 8)])
def test_padding_of_an_image_changes_nothing(encoder, unit):
    """Whatever stands right of an image, and however wide it is padded."""
    network = image_to_text(encoder)
    widths = [45, 8, 17]
    images = torch.randn(3, 1, 32, 70, generator=torch.Generator().manual_seed(0))
    memory, mask = network.encode(images, widths=torch.tensor(widths))
    target = torch.tensor([[1, 4, 5]])
    logits = network(images, target.expand(3, -1), widths=torch.tensor(widths))
    for row, width in enumerate(widths):
        alone, alone_mask = network.encode(images[row : row + 1, :, :, :width])
        assert alone_mask.all()
        torch.testing.assert_close(memory[row, mask[row]], alone[0], atol=1e-5, rtol=0)
        rows = 1 if encoder == "columns" else 4
        assert mask[row].sum() == rows * -(-width // unit)
        written = network(images[row : row + 1, :, :, :width], target)
        torch.testing.assert_close(logits[row], written[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ["columns", "patches"])
def test_an_image_is_read_from_left_to_right(encoder):
    """Two halves in the other order are another image; row and column are told apart."""
    network = image_to_text(encoder)
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    memory = network.encode(image)[0]
    assert not torch.allclose(network.encode(image.roll(16, dims=3))[0], memory)
    blank = network.encode(torch.zeros(1, 1, 32, 32))[0][0]
    assert len({tuple(token.tolist()) for token in blank.round(decimals=3)}) == len(blank)


@pytest.mark.parametrize(
    "name", ["lenet", "lenet5", "resnet20", "resnet18", "mobilenet_v3_small", "googlenet", "vit_ti_16"]
)
def test_a_network_of_the_zoo_gives_its_last_maps(name):
    """What its pool or classifier reads, as a hook on the network itself sees it."""
    architecture = models.describe(name)
    size = 32 if architecture.input_size == 32 else 64
    torch.manual_seed(0)
    extra = {"input_size": [size, size]} if architecture.sizes == "argument" else {}
    whole = models.build(name, in_channels=architecture.channels, num_classes=10, **extra).eval()
    part = Network(name, architecture.channels, (size, size)).eval()
    transfer.load(part.network, whole.state_dict(), name)
    places = {"lenet": "fc1", "lenet5": "c5", "resnet20": "linear", "vit_ti_16": "encoder"}
    layer, seen = whole.get_submodule(places.get(name, "avgpool")), []
    layer.register_forward_hook(lambda _, given, answer: seen.extend([given[0], answer]))
    images = torch.randn(2, architecture.channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole(images)
        maps, mask = part(images)
    assert mask.all()
    if name == "vit_ti_16":
        expected = seen[1][:, 1:].unflatten(1, (4, 4))
    elif name == "resnet20":  # the linear layer reads the mean over all places
        maps, expected = maps.mean(dim=(1, 2)), seen[0]
    elif name == "lenet":
        maps, expected = maps.permute(0, 3, 1, 2).flatten(1), seen[0]
    else:
        expected = seen[0].permute(0, 2, 3, 1)
    torch.testing.assert_close(maps, expected)


class Convolutional(nn.Module):
    """A network whose classifier is a 1x1 convolution, as in SqueezeNet."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.classifier = nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        """Scores `[batch, 5]`."""
        return self.classifier(self.features(x)).flatten(1)


def test_the_scores_of_a_convolutional_classifier_are_no_feature_maps():
    network, images = Convolutional(), torch.rand(2, 3, 16, 16)
    maps = cut(network, images[:1], "classifier.0")
    assert torch.equal(maps(images), network.features(images))
    assert not [name for name in maps.state_dict() if name.startswith("classifier")]


def test_a_trained_classifier_becomes_the_encoder():
    """All tensors of the part that is left are the classifier's, by name, and they train."""
    classifier = models.build("resnet20", num_classes=7)
    network = ImageToText(11, "resnet20", in_channels=3, input_size=(32, 32), **SMALL)
    loading = transfer.load(network.front.network, classifier.state_dict(), "resnet20")
    assert loading.fresh == ()
    for name, tensor in network.front.network.state_dict().items():
        assert torch.equal(tensor, classifier.state_dict()[name])
    target, expected = torch.tensor([[1, 4]]), torch.tensor([[4, 2]])
    network.loss(torch.randn(1, 3, 32, 32), target, expected).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.front.network.parameters())


def test_what_cannot_be_read():
    with pytest.raises(UsageError, match="did you mean columns"):
        image_to_text("colums")
    with pytest.raises(UsageError, match="images of height 30"):
        image_to_text(input_size=(30, None))
    with pytest.raises(UsageError, match="resnet20 for images of any width"):
        image_to_text("resnet20", in_channels=3)
    with pytest.raises(UsageError, match="unexpected keyword argument 'stride'"):
        image_to_text(encoder_arguments={"stride": 2})
    network = image_to_text("resnet20", in_channels=3, input_size=(32, 32))
    with pytest.raises(UsageError, match="this network does not mask the padding"):
        network.encode(torch.zeros(1, 3, 32, 32), widths=torch.tensor([20]))
