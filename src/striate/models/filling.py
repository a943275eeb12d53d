"""Give a network the tensors of a file: its shapes are compared with theirs before anything is allocated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from striate.device import on_meta
from striate.errors import UsageError
from striate.printable import first_few

_MAX_CONSTANTS = 1 << 28  # bytes of a network's buffers that are not saved, such as sinusoids
_MARGIN = 64  # parameters beyond twice the tensors of a file: some are replaced while a network is built


def without_memory(make: Callable[[], nn.Module], tensors: int, *, own: bool = True) -> nn.Module:
    """Create a network on the meta device: it has shapes and needs no memory for values.

    Args:
        make: creates it.
        tensors: how many a file has for it.
        own: whether Striate defines it. Others may read values while they are built, which fails there; they
            are then built as usual.

    Raises:
        UsageError: it has many more parameters; their modules alone could fill memory.
    """
    most, count, thread = 2 * tensors + _MARGIN, 0, threading.get_ident()

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise UsageError(
                "its tensors are of another network", f"it has {tensors:,}, too few for this one"
            )

    hook = register_module_parameter_registration_hook(counted)
    try:
        try:
            with on_meta():
                return make()
        except Exception:
            if own or count > most:
                raise
        count = 0
        with torch.random.fork_rng(devices=[]):
            return make()
    finally:
        hook.remove()


def require_fit(network: nn.Module, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    """Compare a network on the meta device with the types and shapes of tensors by name.

    Floating-point types are converted to each other, others are not.

    Raises:
        UsageError: they do not fit, or the network's constants are too large.
    """
    own = network.state_dict()
    differences = [f"it lacks {name}" for name in own if name not in tensors]
    differences += [f"{name} is not of this network" for name in tensors if name not in own]
    for name, wanted in own.items():
        dtype, shape = tensors.get(name, (wanted.dtype, tuple(wanted.shape)))
        if shape != tuple(wanted.shape):
            differences.append(f"{name} is {list(shape)}, not {list(wanted.shape)}")
        elif dtype != wanted.dtype and not (dtype.is_floating_point and wanted.dtype.is_floating_point):
            differences.append(f"{name} is {dtype}, not {wanted.dtype}")
    if differences:
        raise UsageError("its tensors are of another network", first_few(differences, separator="; "))
    constants = sum(
        buffer.nbytes
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    )
    if constants > _MAX_CONSTANTS:
        why = f"its constants take {constants / 1e9:,.1f} GB"
        raise UsageError("the arguments of the network are too large", why)


def rebuilt(make: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
    """Build a network that Striate does not define, and load its tensors, which fit.

    What such a network computes for itself besides them is only right if it is built with memory.
    """
    with torch.random.fork_rng(devices=[]):
        network = make()
    device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
    network.to(device).load_state_dict(state)
    return network


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give a network on the meta device its tensors, which become its own, and compute its constants."""
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: t.to(types[name]) for name, t in state.items()}, assign=True)
    for module in network.modules():
        constants: dict[str, Tensor] = getattr(module, "constants", dict)()
        for name in module._non_persistent_buffers_set & constants.keys():
            module._buffers[name] = constants[name]
    return network
