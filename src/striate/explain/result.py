"""The explanation of one prediction as a record. This module does not load torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.explain import drawing
from striate.transforms.decode import Uint8Array

if TYPE_CHECKING:
    from striate.explain.faithfulness import Faithfulness
    from striate.explain.randomization import Randomization


@dataclass(frozen=True)
class Explanation:
    """The explanation of a class for one image.

    Attributes:
        path: of the image, as in `Prediction.path`.
        method: a key of `METHODS`.
        target: name of the explained class.
        probability: of that class, 0 to 1.
        predicted: name of the most probable class.
        layer: the layer whose maps are shown; None if the method reads none, or where the name is not known.
        map: float32 `[rows, columns]` of feature maps, patches or pixels; higher where more important.
        pixels: uint8 `[height, width, channels]`, the image as the network reads it.
        faithfulness: the result of the deletion and insertion test; None if it was not wanted.
        randomization: the result of the model randomization test; None if it was not wanted.
    """

    path: str
    method: str
    target: str
    probability: float
    predicted: str
    layer: str | None
    map: npt.NDArray[np.float32] = field(repr=False)
    pixels: Uint8Array = field(repr=False)
    faithfulness: Faithfulness | None = None
    randomization: Randomization | None = None

    def __repr__(self) -> str:
        """The image, the method, and the explained class with its probability."""
        what = f"{self.method} of {self.target!r}, {100 * self.probability:.2f} %"
        return f"Explanation({self.path!r}, {what}, map {' x '.join(map(str, self.map.shape))})"

    @property
    def heat(self) -> npt.NDArray[np.float32]:
        """The map enlarged to the image, `[height, width]`, from 0 (or less) as 0 to its maximum as 1."""
        heat = drawing.enlarged(self.map, (self.pixels.shape[0], self.pixels.shape[1])).clip(min=0)
        return (heat / max(float(heat.max()), float(np.finfo(np.float32).tiny))).astype(np.float32)

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the pixel with the highest value."""
        row, column = divmod(int(self.heat.argmax()), self.pixels.shape[1])
        return row, column

    def figure(self) -> Image.Image:
        """The image next to a copy under the map, as RGB."""
        is_coarse = self.map.shape != self.pixels.shape[:2]
        return drawing.overlay(self.pixels, self.heat if is_coarse else drawing.smoothed(self.heat))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the prediction, a summary of the map, and the results of the tests."""
        rows, columns = self.map.shape
        summary = {
            "rows": rows, "columns": columns, "min": float(self.map.min()), "max": float(self.map.max()),
            "mean": float(self.map.mean()), "peak": list(self.peak),
        }  # fmt: skip
        return {
            "path": self.path, "error": None, "method": self.method, "layer": self.layer,
            "class": self.target, "probability": self.probability, "predicted": self.predicted,
            "map": summary, "faithfulness": self.faithfulness and self.faithfulness.to_json(),
            "randomization": self.randomization and self.randomization.to_json(),
        }  # fmt: skip
