"""Work on a batch of images in parts: blocks that fit a processor's cache, or one Pillow image at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from striate.transforms.transform import is_numpy_friendly

# Values of a block: with float32 copies of them, about a megabyte. Larger ones take up to ten times as long,
# because each operation then reads and writes main memory.
_BLOCK = 1 << 18


def blocks(images: Tensor, which: Tensor | None = None) -> Iterator[tuple[slice | Tensor, slice]]:
    """Yield the rows of a batch in blocks; on other devices than the CPU all at once.

    Args:
        images: `[batch, channels, height, width]`.
        which: int64, the rows; None for all.

    Yields:
        The rows, and their positions in `which`.
    """
    count = len(images) if which is None else len(which)
    size = max(1, _BLOCK // max(1, images[0].numel())) if images.device.type == "cpu" and count else count
    for start in range(0, count, size or 1):
        part = slice(start, start + size)
        if which is None:
            yield part, part
        elif size == 1:  # a slice is copied ten times as fast as an index
            yield slice(int(which[start]), int(which[start]) + 1), part
        else:
            yield which[part], part


def in_blocks(change: Callable[..., Tensor], images: Tensor, *numbers: Tensor) -> Tensor:
    """Compute `change(images, *numbers)` in blocks.

    Args:
        change: returns images of the same shape and type; each sample depends on no other one.
        images: `[batch, channels, height, width]`.
        numbers: tensors `[batch, ...]` that belong to the samples.
    """
    found = list(blocks(images))
    if len(found) <= 1 or images.requires_grad:
        return change(images, *numbers)
    out = torch.empty_like(images)
    for rows, _ in found:
        out[rows] = change(images[rows], *(number[rows] for number in numbers))
    return out


def is_pillow_friendly(images: Tensor) -> bool:
    """Return whether Pillow can process the images: 8-bit gray or RGB on a CPU."""
    return is_numpy_friendly(images) and images.dtype == torch.uint8 and images.shape[1] in (1, 3)


def with_pillow(images: Tensor, change: Callable[[Image.Image, int], Image.Image]) -> Tensor:
    """Apply a change to each sample as a Pillow image of mode `L` or `RGB`.

    Args:
        images: uint8 `[batch, 1 or 3, height, width]` on a CPU.
        change: gets the image and its number in the batch, returns one of the same size.
    """
    source = images.permute(0, 2, 3, 1).numpy()
    out = np.empty(source.shape, np.uint8)
    for i, pixels in enumerate(source):
        changed = change(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), i)
        out[i] = np.asarray(changed).reshape(pixels.shape)
    return torch.from_numpy(out).permute(0, 3, 1, 2)
