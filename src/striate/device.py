"""Where a network runs and in which precision."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from typing import TYPE_CHECKING

import numpy as np

from striate.errors import UsageError
from striate.kernels import allocator as memory

if TYPE_CHECKING:
    import torch
    from torch import nn

_WIDE = 32  # channels from which on kernels that take 16 of them at once are the quicker ones


def choose(name: str = "auto") -> torch.device:
    """The device that `name` asks for.

    What is freed on a CPU is kept for the next tensors from then on, as torch keeps a GPU's memory itself.

    Args:
        name: `auto` (a GPU where there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        UsageError: the name is not a device, or this machine has no such device.
    """
    import torch

    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device {name!r}", "torch knows no device of that name", "Use auto, cpu, cuda or mps"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} is not available",
            f"torch sees {torch.cuda.device_count()} CUDA devices here",
            "Use --device auto or cpu",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not available", "this is no Apple GPU", "Use --device auto or cpu")
    if device.type == "cpu":
        memory.keep()
    return device


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, for initial weights and dropout."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_step(device: torch.device, seed: int, step: int) -> None:
    """Make what torch draws next, such as dropout, a function of the seed and the step alone.

    A run that is resumed draws as one that was never stopped, whatever was drawn before.
    """
    import torch

    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    value = int.from_bytes(digest, "little")
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


def mixed_precision(device: torch.device, wanted: bool | None) -> torch.dtype | None:
    """The type for mixed precision, or None for plain float32.

    Args:
        device: where the network runs.
        wanted: True or False as the user said, None to use it where it helps (CUDA).
    """
    import torch

    if device.type != "cuda" or wanted is False:
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """Run what is inside in `dtype` where that is safe; a no-op for None."""
    import torch

    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, its convolutions laid out as that device's kernels read them.

    With the channels of a pixel side by side oneDNN and cuDNN need not rearrange what passes through; a
    training step of resnet18 takes four fifths of the time on a CPU. So narrow a network as LeNet is slower
    that way.
    """
    import torch

    network = network.to(device)
    widths = [layer.out_channels for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    if device.type in ("cpu", "cuda") and max(widths, default=0) >= _WIDE:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def cpu_count() -> int:
    """The processors this process may use, which in a container are fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
