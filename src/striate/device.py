"""Devices, seeds, mixed precision, and estimates of memory."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate import memory
from striate.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn


# Estimates of memory: Linux grants any size, and ends a process that uses more than there is.
_COPIES = 3  # weights, gradients and at least one moment of an optimizer
_KEPT = 0.4  # share of all results of layers that training keeps, at least; some are computed in place
USUAL_PIXELS = 1 << 24  # of a batch: 64 images of 224x224 pixels have a fifth; not worth an estimate

# The drivers of GPUs: of NVIDIA, of AMD, and of NVIDIA in WSL.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/usr/lib/wsl/lib/libcuda.so.1")

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


def may_have_gpu() -> bool:
    """Whether `choose` may select a GPU, as far as can be known without loading torch."""
    is_apple_chip = sys.platform == "darwin" and platform.machine() == "arm64"
    return is_apple_chip or any(Path(driver).exists() for driver in _DRIVERS)


@contextlib.contextmanager
def standard_settings(dtype: torch.dtype | None = None) -> Iterator[None]:
    """A context in which torch's settings are those that it starts with, whatever the caller has set.

    New tensors are float32 and on the CPU, gradients are recorded, and there is no inference mode and no
    autocast. On exit the caller's settings are back. Also a decorator; not for generators, whose caller
    would have these settings while it uses an item.

    Args:
        dtype: the default type of new tensors instead of float32.
    """
    import torch

    with contextlib.ExitStack() as stack:
        stack.enter_context(_default_dtype.set_to(dtype or torch.float32))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


class _DefaultDtype:
    """torch's default type, which all threads share: restored when no thread needs another any longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needed: list[torch.dtype] = []

    @contextlib.contextmanager
    def set_to(self, dtype: torch.dtype) -> Iterator[None]:
        import torch

        with self._lock:
            if not self._needed:
                self._original = torch.get_default_dtype()
            self._needed.append(dtype)
            torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            with self._lock:
                del self._needed[len(self._needed) - 1 - self._needed[::-1].index(dtype)]
                torch.set_default_dtype(self._needed[-1] if self._needed else self._original)


_default_dtype = _DefaultDtype()


@functools.cache
def allow_forks() -> None:
    """Let processes that are forked from now on compute with one thread, as torch's DataLoader does.

    To be called before computing: OpenMP waits forever in a forked process for threads that only its parent
    has.
    """
    import torch

    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@contextlib.contextmanager
def fork_rng(device: torch.device) -> Iterator[None]:
    """A context that leaves the random generators of Python, NumPy, torch and `device` as they were."""
    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None
    devices = [_cuda_index(device)] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)


def seed_everything(seed: int, device: torch.device | None = None) -> None:
    """Seed the random generators of Python, NumPy, torch on the CPU, and of a device.

    Raises:
        UsageError: an invalid seed.
    """
    import numpy as np

    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed}", f"it must be from 0 to {MAX_SEED}", "Use a number such as 0")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    _seed_torch(device, seed)


def seed_step(device: torch.device, seed: int, step: int) -> None:
    """Seed torch's generators for one training step, from the run's seed and the number of the step.

    So dropout in a resumed run equals that of a run without interruption.
    """
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    _seed_torch(device, int.from_bytes(digest, "little"))


def _seed_torch(device: torch.device | None, seed: int) -> None:
    """Seed the generators of the CPU and of a device; not those of other devices, as `manual_seed` does."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device is None:
        return
    if device.type == "cuda":
        torch.cuda.default_generators[_cuda_index(device)].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _cuda_index(device: torch.device) -> int:
    import torch

    return torch.cuda.current_device() if device.index is None else device.index


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


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Create tensors on the meta device, which have shapes and no values.

    With `torch.device("meta")` alone, normal random weights take a second longer: torch loads its compiler.
    """
    import torch

    with torch.device("meta"), _without_normal_values():
        yield


def _without_normal_values() -> contextlib.AbstractContextManager[object]:
    """A mode that leaves out `normal_` of tensors without values."""
    import torch
    from torch.overrides import TorchFunctionMode

    normal = (torch.Tensor.normal_, torch.nn.init.normal_)

    class WithoutNormalValues(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            named = kwargs or {}
            if function in normal:
                tensor = args[0] if args else named["tensor"]
                if tensor.is_meta:
                    return tensor
            return function(*args, **named)

    return WithoutNormalValues()


def require_weights(build: Callable[[], nn.Module], fix: str, *, training: bool = True) -> None:
    """Refuse a network that cannot fit into memory.

    Args:
        build: creates the network; it is called on the meta device.
        fix: what to do.
        training: count the gradients and the optimizer's state, too.

    Raises:
        ResourceError: it cannot fit; the message has the estimate.
    """
    with on_meta():
        network = build()
    weights, constants = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        for tensors in (network.parameters(), network.buffers())
    )
    what = "the network and its training" if training else "the network"
    memory.require((_COPIES if training else 1) * weights + constants, what, fix)


def require_activations(size: float, what: str, fix: str) -> None:
    """Refuse a batch whose activations cannot fit into memory in training.

    Args:
        size: bytes of the results of all layers.
        what: the batch, in words.
        fix: what to do.

    Raises:
        ResourceError: they cannot fit; the message has the estimate.
    """
    memory.require(_KEPT * size, what, fix)
