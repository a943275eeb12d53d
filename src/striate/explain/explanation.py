"""Explain the prediction for one image, and test the explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from striate.device import standard_settings
from striate.errors import DataError, unknown_name
from striate.explain import faithfulness, methods, randomization
from striate.explain.explainer import Explainer
from striate.explain.faithfulness import Faithfulness
from striate.explain.randomization import Randomization
from striate.explain.result import Explanation
from striate.progress import AUTO, Progress
from striate.transforms.decode import Uint8Array


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
    progress: Progress = AUTO,
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
    probabilities = explainer.to_probabilities(scores)[0]
    if not bool(scores.isfinite().all()):
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
