"""Images of lines of text: one height, variable width."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from striate.data.images.base import Indices, left_out
from striate.data.images.decoded import MAX_BYTES_IN_MEMORY, DecodedImages, unpad
from striate.data.images.samples import Samples
from striate.progress import AUTO, Progress
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess


class TextLineImages:
    """Decoded images of variable width, from the cache of decoded images; up to 2 GiB of them in memory.

    Attributes:
        paths: of the image files.
        preprocess: how an image becomes the network's input.
        widths: int64 `[n]`, in pixels; 0 for unreadable images.
        problems: unreadable images.
    """

    def __init__(
        self,
        paths: Sequence[str],
        preprocess: Preprocess,
        *,
        workers: int = 2,
        cache: bool = True,
        root: str = "",
        progress: Progress = AUTO,
    ) -> None:
        """Decode all images, or read them from the cache.

        Args:
            paths: of the image files.
            preprocess: how to decode and resize.
            workers: number of threads.
            cache: keep decoded images in the user's cache folder.
            root: dataset that the images belong to in the cache.
            progress: receives one update per 100 images.
        """
        self.paths, self.preprocess, self._workers = tuple(paths), preprocess, max(1, workers)
        samples = Samples(self.paths, np.zeros(len(paths), np.int64))
        # No padded images in memory: `self._images` has them without padding.
        self._padded = DecodedImages(
            samples, preprocess, cache=cache, memory=0, variable_width=True, root=root, progress=progress
        )
        self._images: list[Uint8Array | None] = []
        widths, held = [], 0
        progress.begin("decoding", len(paths))
        with self._padded.reading(), ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
            for i, image in enumerate(pool.map(self._read, range(len(paths)))):
                widths.append(0 if image is None else image.shape[1])
                held += 0 if image is None else image.nbytes
                self._images.append(image if held <= MAX_BYTES_IN_MEMORY else None)
                if i % 100 == 99:
                    progress.advance(100)
        progress.end()
        self.widths = np.array(widths, np.int64)
        self.problems = self._padded.problems

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def left_out(self) -> str:
        """The note about unreadable images."""
        return left_out(self.problems)

    def read(self, which: Indices) -> list[Uint8Array]:
        """Return uint8 `[height, width, channels]` of each of these images, all of which must be readable."""
        images = [self._images[i] for i in which]
        if missing := [int(i) for i, image in zip(which, images, strict=True) if image is None]:
            with ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
                again = iter(list(pool.map(self._read, missing)))
            images = [next(again) if image is None else image for image in images]
        return [image for image in images if image is not None]

    def rewritten(self) -> list[str]:
        """Return the paths of files that have changed while they were read; see `DecodedImages.rewritten`."""
        return self._padded.rewritten()

    def _read(self, i: int) -> Uint8Array | None:
        """Read one image without its padding; None if it is unreadable."""
        out = np.empty((1, *self._padded.shape), np.uint8)
        if not self._padded.read(np.array([i]), out)[0]:
            return None
        return unpad(out[0], self.preprocess.size[0])


def pad_images(images: Sequence[Uint8Array], preprocess: Preprocess) -> Uint8Array:
    """Pad images on the right to one array; arguments as for `collate_images`."""
    most = max(image.shape[1] for image in images)
    pixels = np.zeros((len(images), images[0].shape[0], most, preprocess.channels), np.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[:, : image.shape[1]] = image
    return pixels


def collate_images(
    images: Sequence[Uint8Array], preprocess: Preprocess, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pad images on the right and normalize them to one batch.

    Args:
        images: uint8 `[height, width, channels]`, as `preprocess` reads them.
        preprocess: of the images.
        device: of the batch.

    Returns:
        float32 `[batch, channels, height, width]`; and the int64 widths before padding, None if `preprocess`
        resizes all images to the same width.
    """
    widths = [image.shape[1] for image in images]
    batch = preprocess.normalize(torch.from_numpy(pad_images(images, preprocess)).to(device))
    return batch, None if preprocess.resize != "line" else torch.tensor(widths, device=device)
