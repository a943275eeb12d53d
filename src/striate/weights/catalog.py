"""The weights that torchvision publishes for our networks: one table, every entry with what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from striate.errors import UsageError, unknown_name
from striate.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

_ADDRESS = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Weights:
    """One official file.

    Attributes:
        name: the architecture, a dot, and which of its files.
        file: its name on the server; what follows the last dash are the first digits of its SHA-256.
        crop: side of the images it was measured on, in pixels.
        resize: the shorter side before the crop.
        top1: published accuracy on ImageNet's validation set, in percent.
        top5: the same for the five best classes.
        mib: size of the file in MiB.
        interpolation: when resizing.
        default: whether it is the architecture's usual one.
        mean: subtracted from each channel of images scaled to 0-1.
        std: divides each channel after that.
        url: where it is.
    """

    name: str
    file: str
    crop: int
    resize: int
    top1: float
    top5: float
    mib: float
    interpolation: str = "bilinear"
    default: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    url: str = ""

    def __post_init__(self) -> None:
        """Fill in the address of the server that has them all."""
        if not self.url:
            object.__setattr__(self, "url", _ADDRESS + self.file)

    @property
    def architecture(self) -> str:
        """Its name in `striate.models.MODELS`."""
        return self.name.split(".")[0]

    @property
    def sha256_prefix(self) -> str:
        """The first eight hexadecimal digits of the file's SHA-256."""
        return self.file.rsplit("-", 1)[1].split(".")[0]

    @property
    def preprocess(self) -> Preprocess:
        """How images were prepared for it."""
        return Preprocess(
            size=(self.crop, self.crop),
            shorter_side=self.resize,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; accuracies as fractions of one."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "default": self.default,
            "url": self.url,
            "sha256_prefix": self.sha256_prefix,
            "mib": self.mib,
            "top1": round(self.top1 / 100, 5),
            "top5": round(self.top5 / 100, 5),
            "preprocess": self.preprocess.to_json(),
        }


# As torchvision's weight enums say. vgg16's features-only file is left out: it has no classifier.
# GoogLeNet's was trained by others on images of -1 to 1: torchvision converts inside its network. The
# auxiliary heads in its file are untrained.
CATALOG: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights("alexnet.v1", "alexnet-owt-7be5be79.pth", 224, 256, 56.522, 79.066, 233.087),
        Weights("vgg11.v1", "vgg11-8a719046.pth", 224, 256, 69.02, 88.628, 506.84),
        Weights("vgg13.v1", "vgg13-19584684.pth", 224, 256, 69.928, 89.246, 507.545),
        Weights("vgg16.v1", "vgg16-397923af.pth", 224, 256, 71.592, 90.382, 527.796),
        Weights("vgg19.v1", "vgg19-dcbb9e9d.pth", 224, 256, 72.376, 90.876, 548.051),
        Weights("vgg11_bn.v1", "vgg11_bn-6002323d.pth", 224, 256, 70.37, 89.81, 506.881),
        Weights("vgg13_bn.v1", "vgg13_bn-abd245e5.pth", 224, 256, 71.586, 90.374, 507.59),
        Weights("vgg16_bn.v1", "vgg16_bn-6c64b313.pth", 224, 256, 73.36, 91.516, 527.866),
        Weights("vgg19_bn.v1", "vgg19_bn-c79401a0.pth", 224, 256, 74.218, 91.842, 548.143),
        Weights(
            "googlenet.v1", "googlenet-1378be20.pth", 224, 256, 69.778, 89.53, 49.731,
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ),
        Weights("resnet18.v1", "resnet18-f37072fd.pth", 224, 256, 69.758, 89.078, 44.661),
        Weights("resnet34.v1", "resnet34-b627a593.pth", 224, 256, 73.314, 91.42, 83.275),
        Weights("resnet50.v1", "resnet50-0676ba61.pth", 224, 256, 76.13, 92.862, 97.781, default=False),
        Weights("resnet50.v2", "resnet50-11ad3fa6.pth", 224, 232, 80.858, 95.434, 97.79),
        Weights("resnet101.v1", "resnet101-63fe2227.pth", 224, 256, 77.374, 93.546, 170.511, default=False),
        Weights("resnet101.v2", "resnet101-cd907fc2.pth", 224, 232, 81.886, 95.78, 170.53),
        Weights("resnet152.v1", "resnet152-394f9c45.pth", 224, 256, 78.312, 94.046, 230.434, default=False),
        Weights("resnet152.v2", "resnet152-f82ba261.pth", 224, 232, 82.284, 96.002, 230.474),
        Weights("mobilenet_v3_small.v1", "mobilenet_v3_small-047dcff4.pth", 224, 256, 67.668, 87.402, 9.829),
        Weights(
            "mobilenet_v3_large.v1", "mobilenet_v3_large-8738ca79.pth", 224, 256, 74.042, 91.34, 21.114,
            default=False,
        ),
        Weights("mobilenet_v3_large.v2", "mobilenet_v3_large-5c1a4163.pth", 224, 232, 75.274, 92.566, 21.107),
        Weights("vit_b_16.v1", "vit_b_16-c867db91.pth", 224, 256, 81.072, 95.318, 330.285),
        Weights(
            "vit_b_16.swag_e2e", "vit_b_16_swag-9ac1b537.pth", 384, 384, 85.304, 97.65, 331.398,
            interpolation="bicubic", default=False,
        ),
        Weights(
            "vit_b_16.swag_linear", "vit_b_16_lc_swag-4e70ced5.pth", 224, 224, 81.886, 96.18, 330.285,
            interpolation="bicubic", default=False,
        ),
        Weights("vit_b_32.v1", "vit_b_32-d86f8d99.pth", 224, 256, 75.912, 92.466, 336.604),
        Weights("vit_l_16.v1", "vit_l_16-852ce7e3.pth", 224, 242, 79.662, 94.638, 1161.023),
        Weights(
            "vit_l_16.swag_e2e", "vit_l_16_swag-4f3808c9.pth", 512, 512, 88.064, 98.512, 1164.258,
            interpolation="bicubic", default=False,
        ),
        Weights(
            "vit_l_16.swag_linear", "vit_l_16_lc_swag-4d563306.pth", 224, 224, 85.146, 97.422, 1161.023,
            interpolation="bicubic", default=False,
        ),
    )
}  # fmt: skip


def find(name: str) -> Weights:
    """The entry of a name such as `resnet50.v1`, or an architecture's usual one for `resnet50`.

    Raises:
        UsageError: there is none; the message has the near matches.
    """
    if name in CATALOG:
        return CATALOG[name]
    usual = {weights.architecture: weights for weights in CATALOG.values() if weights.default}
    if name in usual:
        return usual[name]
    raise unknown_name("weights", name, [*CATALOG, *usual], "`striate weights list` shows them")


def default(architecture: str) -> Weights:
    """An architecture's usual ImageNet weights.

    Raises:
        UsageError: torchvision publishes none for it.
    """
    for weights in CATALOG.values():
        if weights.default and weights.architecture == architecture:
            return weights
    raise UsageError(
        f"no ImageNet weights for {architecture}",
        "torchvision publishes none",
        "Give a file, or use --weights none; `striate weights list` shows what there is",
    )


def official(sha256: str) -> Weights | None:
    """The entry whose file has this SHA-256, whatever the file is called; None if it is none of them."""
    return next((w for w in CATALOG.values() if sha256.startswith(w.sha256_prefix)), None)


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1000 classes in the order of the scores; each name is there once.

    From the table of ILSVRC 2012; the two cranes and the two maillots have what tells them apart beside them.
    """
    text = (resources.files("striate.weights") / "imagenet_classes.txt").read_text("utf-8")
    return tuple(line.split(" ", 1)[1] for line in text.splitlines())
