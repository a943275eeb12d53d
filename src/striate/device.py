"""Devices, seeds and mixed precision."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from typing import TYPE_CHECKING

from striate.errors import UsageError

if TYPE_CHECKING:
    import torch


MAX_SEED = 2**64 - 1  # of torch's generators


def choose(name: str = "auto") -> torch.device:
    """Select a device by name.

    Args:
        name: `auto` (a GPU if there is one, otherwise the CPU), `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        UsageError: unknown name, or the device is not available.
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
    return device


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch; raises UsageError for an invalid seed."""
    import numpy as np
    import torch

    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed}", f"it must be from 0 to {MAX_SEED}", "Use a number such as 0")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_step(device: torch.device, seed: int, step: int) -> None:
    """Seed torch's generators for one training step, from the run's seed and the number of the step.

    So dropout in a resumed run equals that of a run without interruption.
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
    """Select the dtype of mixed precision; None for plain float32.

    Args:
        device: where the network runs.
        wanted: the user's choice; None for the default, which is to use it on CUDA.
    """
    import torch

    if device.type != "cuda" or wanted is False:
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """A context in which operations run in `dtype` if that is safe; does nothing for None."""
    import torch

    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def cpu_count() -> int:
    """Number of processors that this process may use; in a container fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
