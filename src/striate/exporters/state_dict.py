"""A plain state dict that `torch.load` and torchvision read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from striate.errors import WriteError
from striate.exporters import Parity
from striate.files import probe, write_atomic


def export(model: Any, out: Path, samples: Sequence[str] = ()) -> Parity:
    """Write the weights under the network's own keys, and read them back.

    Raises:
        WriteError: `out` exists or cannot be written.
    """
    if probe(out) is not None:
        raise WriteError(f"cannot write {str(out)!r}", "it exists", "Remove it or choose another path")
    # Tensors can share one block of memory, which torch.save would write whole for each of them.
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.network.state_dict().items()}
    content = io.BytesIO()
    torch.save(weights, content)
    write_atomic(out, content.getvalue())
    read = torch.load(out, map_location="cpu", weights_only=True)
    equal = sum(torch.equal(read[name], tensor) for name, tensor in weights.items())
    difference = max(
        float((read[n].double() - t.double()).abs().max()) for n, t in weights.items() if t.numel()
    )
    return Parity(len(weights), equal, difference, outputs="tensors", unit="")
