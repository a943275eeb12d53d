"""How fast a GPU could at best be with a network: what its arithmetic and its memory allow, layer by layer.

The roofline of Williams, Waterman, Patterson 2009 (CACM 52(4)): a layer takes as long as its multiply-adds
or its bytes take, whichever is longer. Half precision throughout. In prediction a result is written once and
read once; in training that happens again with its gradient, and it is read a third time for the gradients of
the weights, which cost as many multiply-adds as the forward pass, as do those of the inputs. A step of the
optimizer reads weight, gradient and momentum and writes two of them, in single precision, once for a batch.

Fused kernels may do with fewer bytes; launching, waiting and small layers make it slower than that.
`EFFICIENCY` is what is reached of it in practice, by the figures of `PUBLISHED`.
"""

from __future__ import annotations

from dataclasses import dataclass

from striate.anatomy.records import Anatomy
from striate.anatomy.tracing import trace


@dataclass(frozen=True)
class Gpu:
    """What its maker promises.

    Attributes:
        name: as it is sold.
        flops: operations a second of its tensor cores in half precision, dense, summed in single.
        bandwidth: bytes a second of its memory.
    """

    name: str
    flops: float
    bandwidth: float


# NVIDIA's data sheets: A100 80GB SXM; the GA102 white paper, table 9; H100 SXM; T4.
A100 = Gpu("A100 80 GB", 312e12, 2.039e12)
RTX_3090 = Gpu("RTX 3090", 71e12, 0.936e12)
H100 = Gpu("H100 SXM", 989e12, 3.35e12)
T4 = Gpu("T4", 65e12, 0.32e12)

# Images a second in training and in prediction on one RTX 3090: timm's benchmarks, files
# results/benchmark-{train,infer}-amp-nhwc-pt112-cu113-rtx3090.csv. Mixed precision, channels last, eager.
PUBLISHED: dict[str, tuple[float, float]] = {
    "mobilenet_v3_small": (8035.08, 34913.55),
    "mobilenet_v3_large": (2732.43, 12955.77),
    "resnet18": (3481.78, 11023.60),
    "resnet34": (2036.51, 6404.45),
    "resnet50": (1218.01, 3676.35),
    "resnet101": (747.89, 2246.09),
    "vgg11": (954.03, 3048.59),
    "vgg11_bn": (832.74, 2701.91),
    "vit_ti_16": (2299.56, 6844.80),
    "vit_s_16": (1057.92, 3005.65),
    "vit_b_32": (1708.63, 4923.14),
}
EFFICIENCY = 0.7

_STEP_BYTES = 5 * 4  # of the optimizer, for each parameter


def seconds(anatomy: Anatomy, gpu: Gpu, *, training: bool, batch: int = 256) -> float:
    """The least time for one image.

    Args:
        anatomy: of one image, in single precision.
        gpu: which.
        training: forward, backward and step; else forward alone.
        batch: images in a step.
    """
    products, traffic = (3, 5) if training else (1, 2)
    total = 0.0
    for layer in anatomy.layers:
        arithmetic = 2 * products * layer.macs / gpu.flops
        memory = traffic * layer.activation / 2 / gpu.bandwidth
        total += max(arithmetic, memory)
    if training:
        total += _STEP_BYTES * anatomy.params / batch / gpu.bandwidth
    return total


def images_per_hour(anatomy: Anatomy, gpu: Gpu, *, training: bool) -> float:
    """An estimate of how many images a GPU takes in an hour; see `EFFICIENCY` for how good it is."""
    return 3600 * EFFICIENCY / seconds(anatomy, gpu, training=training)


def training_cost(model: str, passes: int, gpu: Gpu) -> tuple[float, float]:
    """What training costs: multiply-adds, and an estimate of the hours on one GPU.

    Args:
        model: key of `striate.models.MODELS`, at its own size of images.
        passes: how many times an image goes through the network, forward and backward.
        gpu: which.
    """
    anatomy = trace(model)
    return 3.0 * anatomy.macs * passes, passes / images_per_hour(anatomy, gpu, training=True)
