"""Images of text, each as wide as it is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from striate.data.images.base import Indices, Problem
from striate.data.images.decoded import MAX_BYTES_IN_MEMORY
from striate.errors import DecodeError
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess


class TextLineImages:
    """Image files brought to one height; decoded once, and kept as far as 2 GiB go.

    Attributes:
        paths: of the files.
        contract: how an image becomes the network's input.
        widths: int64 `[n]`, in pixels; 0 for those that cannot be read.
        problems: which those are.
    """

    def __init__(
        self, paths: Sequence[str], contract: Preprocess, *, workers: int = 2, progress: Progress = SILENT
    ) -> None:
        """Decode all of them.

        Args:
            paths: of the files.
            contract: how.
            workers: threads.
            progress: is told of each hundred.
        """
        self.paths, self.contract, self._workers = tuple(paths), contract, workers
        self._kept: list[Uint8Array | None] = []
        widths, problems, held = [], [], 0
        progress.begin("decoding", len(paths))
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:
            for i, image in enumerate(pool.map(self._decode, paths)):
                if isinstance(image, DecodeError):
                    problems.append(Problem(paths[i], image.why))
                    widths.append(0)
                    self._kept.append(None)
                    continue
                widths.append(image.shape[1])
                held += image.nbytes
                self._kept.append(image if held <= MAX_BYTES_IN_MEMORY else None)
                if i % 100 == 99:
                    progress.advance(100)
        progress.end()
        self.widths = np.array(widths, np.int64)
        self.problems = tuple(problems)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, which: Indices) -> list[Uint8Array]:
        """uint8 `[height, width, channels]` of each of these, which can all be read."""
        images = [self._kept[i] for i in which]
        if missing := [i for i, image in zip(which, images, strict=True) if image is None]:
            with ThreadPoolExecutor(max(1, self._workers), thread_name_prefix="decode") as pool:
                again = iter(list(pool.map(self.contract.read, [self.paths[i] for i in missing])))
            images = [next(again) if image is None else image for image in images]
        return [image for image in images if image is not None]

    def _decode(self, path: str) -> Uint8Array | DecodeError:
        try:
            return self.contract.read(path)
        except DecodeError as error:
            return error


def collate_images(
    images: Sequence[Uint8Array], contract: Preprocess, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Images as one batch of the network's input.

    Args:
        images: uint8 `[height, width, channels]`, as the contract gives them.
        contract: whose they are.
        device: where the batch is to be.

    Returns:
        float32 `[batch, channel, height, width]`, zero on the right of narrower images; and their widths,
        None where the contract gives all images one width.
    """
    widths = [image.shape[1] for image in images]
    page = np.zeros((len(images), images[0].shape[0], max(widths), contract.channels), np.uint8)
    for row, image in zip(page, images, strict=True):
        row[:, : image.shape[1]] = image
    pixels = contract.normalize(torch.from_numpy(page).to(device))
    if contract.resize != "line":
        return pixels, None
    return pixels, torch.tensor(widths, device=device)
