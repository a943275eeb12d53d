"""Explain the prediction for one image, and test the explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from striate.device import standard_settings
from striate.errors import DataError, unknown_name
from striate.explain import drawing, faithfulness, methods, randomization
from striate.explain.explainer import Explainer
from striate.explain.faithfulness import Faithfulness
from striate.explain.randomization import Randomization
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array


@dataclass(frozen=True)
class Explanation:
    """The explanation of a class for one image.

    Attributes:
        path: of the image, as in `Prediction.path`.
        method: a key of `METHODS`.
        target: name of the explained class.
        probability: of that class, 0 to 1.
        predicted: name of the most probable class.
        layer: the layer whose maps are shown; None if the method reads none.
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

    @property
    def heat(self) -> npt.NDArray[np.float32]:
        """The map enlarged to the image, `[height, width]`, from 0 (or less) as 0 to its maximum as 1."""
        size = (self.pixels.shape[0], self.pixels.shape[1])
        heat = faithfulness.resized(torch.from_numpy(self.map), size).relu()
        return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).numpy()

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


@standard_settings()
def explain(
    explainer: Explainer,
    image: Tensor,
    pixels: Uint8Array,
    classes: Sequence[str],
    *,
    path: str = "array",
    method: str = methods.DEFAULT,
    target: str | None = None,
    versus: Sequence[str] = (),
    samples: int | None = None,
    test: bool = True,
    check: bool = False,
    progress: Progress = SILENT,
) -> Explanation:
    """Explain why a network gives a class to an image.

    Args:
        explainer: of the network.
        image: `[1, channels, height, width]`, as the network reads it.
        pixels: the same as uint8 `[height, width, channels]`.
        classes: their names, in the order of the scores.
        path: of the image.
        method: a key of `METHODS`.
        target: the class to explain; the most probable one by default.
        versus: classes to compare with, for `finer-cam`; by default those with the nearest scores.
        samples: passes of a method that has this choice.
        test: test the map with deletion and insertion curves, in `faithfulness.PASSES` passes.
        check: also run the model randomization test, which computes the map of a second network.
        progress: receives a stage of a slow method.

    Raises:
        UsageError: an unknown method or class, or a network that the method cannot explain.
        DataError: the scores are not finite.
    """
    row = methods.describe(method)
    wanted = None if target is None else _number_of(target, classes)
    others = [_number_of(name, classes) for name in versus]
    forward = explainer.forward(image, fine=row.fine) if row.networks == "maps" else None
    scores = explainer.scores(image) if forward is None else forward.scores  # one pass for both
    probabilities = scores[0].float().softmax(dim=0)
    if not bool(probabilities.isfinite().all()):
        why = "its scores are not finite (NaN or infinite)"
        raise DataError(f"cannot explain {path!r}", why, "Use another model: this one is damaged")
    predicted = int(probabilities.argmax())
    chosen = predicted if wanted is None else wanted
    options: dict[str, Any] = {"samples": samples, "versus": others, "progress": progress}
    values = methods.compute(explainer, image, chosen, method, **options, forward=forward)
    faithful = _test(explainer, image, values, chosen) if test else None
    random = None
    if check:
        network = randomization.randomized(explainer.network, image)
        other = methods.compute(Explainer(network, explainer.shape), image, chosen, method, **options)
        random = Randomization(randomization.rank_correlation(values, other))
    layer = explainer.location_of(fine=row.fine).layer if row.networks == "maps" else None
    return Explanation(
        path, method, classes[chosen], float(probabilities[chosen]), classes[predicted], layer,
        values.cpu().numpy(), pixels, faithful, random,
    )  # fmt: skip


def _test(explainer: Explainer, image: Tensor, values: Tensor, target: int) -> Faithfulness:
    return faithfulness.measure(lambda batch: explainer.probabilities(batch)[:, target], image, values)


def _number_of(name: str, classes: Sequence[str]) -> int:
    """The position of a class; raises UsageError with near matches."""
    if name not in classes:
        where = "" if len(classes) <= 20 else f"The model has {len(classes):,} classes"
        raise unknown_name("class", name, classes, where)
    return list(classes).index(name)
