"""An upper bound on a GPU's speed for a network, from its arithmetic and memory traffic, layer by layer.

The roofline model of Williams, Waterman, Patterson 2009 (CACM 52(4)): a layer takes as long as its
multiply-adds or its memory traffic, whichever is longer. Everything is in half precision. Inference writes
and reads each activation once. Training does the same for the gradients and reads each activation a third
time for the gradients of the weights; these cost as many multiply-adds as the forward pass, and so do the
gradients of the inputs. An optimizer step reads weight, gradient and momentum and writes two of them, in
single precision, once per batch.

Fused kernels can need fewer bytes. Kernel launches, synchronization and small layers make real runs slower:
`EFFICIENCY` is the share of the bound that they reach, by the speeds that timm publishes
(`facts.RTX_3090_IMAGES_PER_SECOND`).
"""

from __future__ import annotations

from dataclasses import dataclass

from striate.anatomy.records import Anatomy
from striate.anatomy.tracing import trace


@dataclass(frozen=True)
class Gpu:
    """A GPU according to its data sheet.

    Attributes:
        name: product name.
        flops: operations per second of its tensor cores in half precision, dense, accumulated in single.
        bandwidth: bytes per second of its memory.
    """

    name: str
    flops: float
    bandwidth: float


# NVIDIA's data sheets: A100 80GB SXM; the GA102 white paper, table 9; T4.
A100 = Gpu("A100 80 GB", 312e12, 2.039e12)
RTX_3090 = Gpu("RTX 3090", 71e12, 0.936e12)
T4 = Gpu("T4", 65e12, 0.32e12)

EFFICIENCY = 0.7

_STEP_BYTES = 5 * 4  # traffic of an optimizer step for each parameter


def seconds(anatomy: Anatomy, gpu: Gpu, *, training: bool, batch: int = 256) -> float:
    """The shortest possible time for one image.

    Args:
        anatomy: for one image, in single precision.
        gpu: the GPU.
        training: count forward, backward and step; otherwise forward only.
        batch: images per step.
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
    """An estimate of the images that a GPU processes in an hour; see `EFFICIENCY` for its accuracy."""
    return 3600 * EFFICIENCY / seconds(anatomy, gpu, training=training)


def training_cost(model: str, passes: int, gpu: Gpu) -> tuple[float, float]:
    """The cost of training: multiply-adds, and an estimate of the hours on one GPU.

    Args:
        model: key of `striate.models.MODELS`, at its own input size.
        passes: how many times an image passes through the network, forward and backward.
        gpu: the GPU.
    """
    anatomy = trace(model)
    return 3.0 * anatomy.macs * passes, passes / images_per_hour(anatomy, gpu, training=True)
