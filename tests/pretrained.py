"""Networks with seeded weights, and bundles of them, for tests of transfer learning."""

import torch
from torch import nn

from striate import bundle, models
from striate.bundle import Description
from striate.transforms.preprocess import Preprocess

# Image sizes at which a step is quick; for all other networks that is 32 px.
SIZES = {"alexnet": 64, "alexnet_2012": 64, "googlenet_2014": 80}


def build(name, size, **arguments):
    """A network with seeded weights, and BatchNorm statistics other than the initial ones."""
    torch.manual_seed(0)
    if models.MODELS[name].sizes == "argument":
        arguments["input_size"] = [size, size]
    network = models.build(name, **arguments)
    # Statistics of some images: random ones would let the signal of a thousand frozen layers overflow.
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(torch.randn(4, arguments.get("in_channels", 3), size, size))
    for norm in norms:
        norm.momentum = 0.1
    return network, arguments


def pretrained(folder, name, size=32, classes=7):
    """A bundle of such a network."""
    network, arguments = build(name, size, num_classes=classes, in_channels=3)
    names = tuple(f"c{i}" for i in range(classes))
    description = Description("classification", name, arguments, names, Preprocess.for_size(size))
    bundle.write(folder / f"{name}.safetensors", network, description)
    return str(folder / f"{name}.safetensors")
