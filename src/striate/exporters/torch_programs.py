"""An image classifier as a program of torch: by torch.export, or as TorchScript. Both run without Striate."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from striate.exporters.records import Exported, Request, Scores
from striate.exporters.torch_archive import write_archive
from striate.exporters.translators import export_programs
from striate.inference.classifier import Classifier
from striate.inference.translator import Translator
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess

COMPARISON = "comparison.json"  # the file in the archive that holds the comparison with the original


class PixelNetwork(nn.Module):
    """A network that takes pixels, as `Preprocess.read` returns them.

    Args:
        network: in evaluation mode.
        preprocess: its normalization.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 `[batch, height, width, channels]` -> logits `[batch, classes]`."""
        scaled = images.permute(0, 3, 1, 2).float() / 255
        scores: Tensor = self.network((scaled - self.mean) / self.std)
        return scores


def pixel_network(classifier: Classifier) -> tuple[PixelNetwork, Tensor]:
    """A copy of the network that takes pixels, and two images as an example."""
    network = copy.deepcopy(classifier.network).requires_grad_(False)
    height, width = classifier.preprocess.size
    images = torch.zeros(2, height, width, classifier.preprocess.channels, dtype=torch.uint8)
    return PixelNetwork(network, classifier.preprocess).eval(), images


def export_program(classifier: Classifier | Translator, path: Path, request: Request) -> Exported:
    """Write a program of torch.export (.pt2), or a folder of them; as `striate.exporters.Format.target`."""
    if not isinstance(classifier, Classifier):
        return export_programs(classifier, path, request)
    network, images = pixel_network(classifier)
    shapes = ({0: Dim("batch", min=1)},)
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    _save(program, path)
    with path.open("rb") as file:
        read = torch.export.load(file)

    def store(comparison: str) -> None:
        _save(read, path, {COMPARISON: comparison})

    return Exported(scores=_runner(read.module()), store=store)


def _save(program: torch.export.ExportedProgram, path: Path, more: dict[str, str] | None = None) -> None:
    write_archive(path, lambda file: torch.export.save(program, file, extra_files=more))


def export_torchscript(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write TorchScript, by tracing; arguments as `striate.exporters.Format.target`."""
    network, images = pixel_network(classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing reports harmless branches
        traced = torch.jit.trace(network, images, check_trace=False)  # type: ignore[no-untyped-call]
        write_archive(path, lambda file: torch.jit.save(traced, file))
        read = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def store(comparison: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_archive(path, lambda file: torch.jit.save(read, file, {COMPARISON: comparison}))

    return Exported(scores=_runner(read), store=store)


def _runner(module: nn.Module) -> Callable[[Uint8Array], Scores]:
    def scores(images: Uint8Array) -> Scores:
        with torch.no_grad():
            found: Scores = module(torch.from_numpy(images)).numpy()
        return found

    return scores
