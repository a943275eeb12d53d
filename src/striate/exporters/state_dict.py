"""A plain state dict that `torch.load` and torchvision read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from striate.errors import WriteError
from striate.exporters.records import Exported, Request, Scores
from striate.exporters.text_verification import TorchEngine
from striate.exporters.torch_archive import write_archive
from striate.models.seq2seq import SequenceToSequence
from striate.transforms.decode import Uint8Array


def export(model: Any, path: Path, request: Request) -> Exported:
    """Write the weights under the network's own keys; arguments as `striate.exporters.Format.target`.

    Raises:
        WriteError: the file cannot be written, or what is read back is not what was written.
    """
    # Tensors can share one block of memory, which torch.save would write whole for each of them.
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.network.state_dict().items()}
    write_archive(path, lambda file: torch.save(weights, file))
    read = torch.load(path, map_location="cpu", weights_only=True)
    finite = {name: tensor for name, tensor in weights.items() if tensor.isfinite().all()}
    if not all(torch.equal(read[name], tensor) for name, tensor in finite.items()):
        raise WriteError(f"cannot write {str(path)!r}", "what is read back is different", "Check the disk")
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # so that the comparison can only use what was written
    network.load_state_dict(read)
    notes = (f"All {len(weights)} tensors are equal bit for bit.",)
    if isinstance(network, SequenceToSequence):
        return Exported(texts=TorchEngine(network), notes=notes)

    def scores(images: Uint8Array) -> Scores:
        found: Scores = network(model.preprocess.normalize(torch.from_numpy(images))).float().numpy()
        return found

    return Exported(scores=scores, notes=notes)
