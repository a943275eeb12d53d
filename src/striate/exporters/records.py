"""What an export is asked for, and what comes out. This module does not load torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from striate.transforms.decode import Uint8Array

if TYPE_CHECKING:
    from striate.exporters.inputs import Inputs
    from striate.exporters.text_verification import TextEngine

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """What the caller of an export says about its comparison with the original.

    Attributes:
        samples: inputs: texts or image files.
        data: labeled images, as for `striate.evaluate`; None for what the run of the bundle held out.
        max_loss: points of accuracy that an export of fewer bits may lose.
    """

    samples: tuple[str, ...] = ()
    data: Any = None
    max_loss: float = 1.0


@dataclass(frozen=True)
class Parity:
    """Comparison of an exported model with the original.

    Attributes:
        n: number of outputs that were compared: of images, texts decoded greedily by both, or tensors.
        equal: how many of them are equal: the most probable class, or the text token for token.
        max_difference: largest difference of a score, as a share of the largest score; or of a token's
            log-probability in nats, when both score the texts of the original (rounding alone causes up to
            about 1e-4).
        outputs: what the outputs are, for messages.
        unit: of the largest difference, for messages.
        inputs: what was compared, for messages.
        accuracy: top-1 accuracy of the original and of the export on these images; None without labels.
        milliseconds: median time for one image or text by itself, of the original and of the export.
        notes: further results, one sentence each.
    """

    n: int
    equal: int
    max_difference: float
    outputs: str = "texts"
    unit: str = "nats (log-probability of a token)"
    inputs: str = ""
    accuracy: tuple[float, float] | None = None
    milliseconds: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """A written file or folder, opened by the tool that runs it: what the function of a format returns.

    Attributes:
        scores: of an image classifier: uint8 `[n, height, width, channels]` -> float32 `[n, classes]`.
        texts: of a sequence model.
        store: puts the comparison, as JSON, into the metadata of the file; None if the format has none.
        missing: why it cannot run here and what makes it possible, if it has neither `scores` nor `texts`.
        max_loss: points of top-1 accuracy that it may lose; None if its scores must be equal up to rounding.
        inputs: the images to compare on; None for those of the request.
        notes: for the comparison.
    """

    scores: Callable[[Uint8Array], Scores] | None = None
    texts: TextEngine | None = None
    store: Callable[[str], None] | None = None
    missing: str = ""
    max_loss: float | None = None
    inputs: Inputs | None = None
    notes: tuple[str, ...] = ()
