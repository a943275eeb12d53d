"""How a classifier and its predictions look in notebooks: HTML, and one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from striate import markup

if TYPE_CHECKING:
    from striate.inference.classifier import Classifier
    from striate.inference.prediction import Prediction

_TOP = 5
_CLASSES = 10


def prediction_text(prediction: Prediction) -> str:
    """The most probable classes in one line."""
    if prediction.error:
        return f"Prediction({prediction.path!r}: {prediction.error})"
    scores = ", ".join(f"{score.name} {score.probability:.1%}" for score in prediction.top(3))
    unlike = ", unlike the training images" if prediction.unknown else ""
    return f"Prediction({prediction.path!r}: {scores}{unlike})"


def prediction_html(prediction: Prediction) -> str:
    """The five most probable classes with bars."""
    heading = markup.title(prediction.path)
    if prediction.error:
        return markup.panel(heading, markup.note(f"no answer: {prediction.error}"))
    chosen = {score.name for score in prediction.labels}
    rows = [
        (markup.Markup(f"<b>{markup.text(s.name)}</b>") if s.name in chosen else s.name,
         f"{s.probability:.1%}", markup.bar(s.probability)) for s in prediction.top(_TOP)
    ]  # fmt: skip
    unlike = markup.note("unlike the training images, so no answer is worth much")
    return markup.panel(heading, markup.table((), rows), unlike if prediction.unknown else "")


def model_text(model: Classifier) -> str:
    """The network, its classes and its input in one line."""
    description = model.description
    size = " x ".join(map(str, (model.preprocess.channels, *model.preprocess.size)))
    where = f", {model.path!r}" if model.path else ""
    classes = f"{len(model.classes)} classes"
    return f"Classifier({description.architecture}, {classes}, input {size}, {model.device}{where})"


def model_html(model: Classifier) -> str:
    """The network, its classes, its input, and what it reached."""
    description, preprocess = model.description, model.preprocess
    names = ", ".join(model.classes[:_CLASSES])
    more = f" and {len(model.classes) - _CLASSES:,} more" if len(model.classes) > _CLASSES else ""
    facts: dict[str, object] = {
        "network": description.architecture,
        f"{len(model.classes):,} classes": names + more,
        "input": " x ".join(map(str, (preprocess.channels, *preprocess.size))),
        "device": model.device,
    }
    if model.path:
        facts["file"] = model.path
    if description.calibration is not None and description.calibration.is_needed:
        facts["calibrated"] = f"temperature {description.calibration.temperature:.2f}"
    for split, figures in description.metrics.items():
        if isinstance(figures, dict) and isinstance(figures.get("top1"), float):
            facts[f"{split} top-1 accuracy"] = f"{figures['top1']:.2%} of {figures['n']:,} images"
    return markup.panel(markup.title("Classifier"), markup.facts(facts))
