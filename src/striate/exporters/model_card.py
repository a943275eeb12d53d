"""Model cards: what a model is, how good it is and how to use it, next to each exported file.

The head of the file is metadata in YAML that Hugging Face's hub reads
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from striate.bundle import Description
from striate.errors import DataError
from striate.exporters import comparison
from striate.exporters.records import Parity
from striate.files import probe, write_atomic
from striate.printable import escaped, first_few
from striate.reading import MAX_LIST_BYTES, read_bytes

NAME = "MODEL_CARD.md"
_OURS = "library_name: striate"  # the first line of the metadata
_CLASSES = 20  # in the text
_METRICS = {
    "top1": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "map": "mAP",
    "micro_f1": "micro F1",
    "bleu": "BLEU",
    "chrf": "chrF",
}

_ONNX = """```python
import json
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession({file!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
_, height, width, _ = session.get_inputs()[0].shape
image = np.asarray(Image.open("photo.jpg").convert({mode!r}).resize((width, height)))
scores = session.run(None, {{"images": image.reshape(1, height, width, -1)}})[0][0]
{answer}
```"""
_ONE_CLASS = "print(classes[scores.argmax()])"
_SEVERAL_CLASSES = """known = json.loads(session.get_modelmeta().custom_metadata_map["striate"])
thresholds = known["thresholds"]
print([name for name, score, at in zip(classes, scores, thresholds) if 1 / (1 + np.exp(-score)) >= at])"""


def write(description: Description, out: Path, format: str, parity: Parity) -> Path | None:
    """Write the model card of an exported file or folder next to it.

    The first file of a folder has `MODEL_CARD.md`; others have `<name>.MODEL_CARD.md`.

    Args:
        description: of the model.
        out: what was exported.
        format: a key of `striate.exporters.FORMATS`.
        parity: the comparison with the original.

    Returns:
        The path; None if both names belong to files that Striate did not write, or to folders.

    Raises:
        WriteError: it cannot be written.
    """
    content = card(description, out.name, format, parity).encode("utf-8", "replace")
    title = _title(out.name).encode("utf-8", "replace")
    for path in (out.parent / NAME, out.parent / f"{out.name}.{NAME}"):
        try:
            if probe(path) is not None and not _is_of(read_bytes(path, MAX_LIST_BYTES), title):
                continue
        except DataError:  # a folder, or a file that may not be read
            continue
        write_atomic(path, content)
        return path
    return None


def _is_of(content: bytes, title: bytes) -> bool:
    """Whether a file is the model card that Striate wrote of an export."""
    return _OURS.encode() in content[:200] and b"\n" + title in content


def _title(file: str) -> str:
    return f"# {escaped(file)}\n"


def card(description: Description, file: str, format: str, parity: Parity) -> str:
    """The text of a model card; arguments as for `write`, `file` is a name without folder."""
    parts = [f"---\n{_OURS}\n{_metadata(description, format)}---\n", _title(file)]
    parts += [f"{paragraph}\n" for paragraph in _paragraphs(description, file, format, parity)]
    return "\n".join(parts)


def _metadata(description: Description, format: str) -> str:
    data = description.provenance.get("data")
    values: dict[str, Any] = {
        "pipeline_tag": _pipeline(description),
        "tags": ["striate", description.architecture, *(["onnx"] if format.startswith("onnx") else [])],
    }
    if data and (metrics := list(_measured(description))):
        task = {"type": values["pipeline_tag"]}
        results = [{"type": name, "name": label, "value": value} for name, label, value in metrics]
        kind = "imagefolder" if description.preprocess else "text"
        dataset = {"name": str(data), "type": kind, "split": "validation"}
        result = {"task": task, "dataset": dataset, "metrics": results}
        values["model-index"] = [{"name": description.architecture, "results": [result]}]
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text


def _pipeline(description: Description) -> str:
    """The task as the hub names it."""
    if description.task == "classification":
        return "image-classification"
    return "image-to-text" if description.preprocess else "translation"


def _measured(description: Description) -> Iterator[tuple[str, str, float]]:
    """Kind, label and value of what was measured on validation data."""
    for name, value in (description.metrics.get("val") or {}).items():
        if name in _METRICS and isinstance(value, float):
            yield "accuracy" if name == "top1" else name, _METRICS[name], round(value, 5)


def _paragraphs(description: Description, file: str, format: str, parity: Parity) -> Iterator[str]:
    provenance = description.provenance
    data, weights = provenance.get("data"), provenance.get("weights") or provenance.get("imported_from")
    trained = f", trained by Striate {provenance.get('striate', '')} on {escaped(str(data))}" if data else ""
    start = f", {'starting ' if data else ''}from the weights `{escaped(str(weights))}`"
    yield f"`{description.architecture}`{trained}{start if weights and weights != 'none' else ''}."
    if description.classes:
        names = first_few([f"`{escaped(name)}`" for name in description.classes], _CLASSES)
        yield f"Its {len(description.classes):,} classes: {names}."
    for _, label, value in _measured(description):
        yield f"- {label} on validation data: {value:.4f}"
    is_pixels = description.preprocess is not None and description.preprocess.channels in (1, 3)
    if format == "onnx" and is_pixels:
        reduces = ", and decodes large JPEG files at a fraction of their size"
        crops = f"also crops{reduces if description.image_preprocess.reducing_gap else ''}"
        yield f"## Use\n\nWithout Striate (Striate itself {crops}, as in training):"
        mode = "L" if description.image_preprocess.channels == 1 else "RGB"
        answer = _SEVERAL_CLASSES if description.is_multi_label else _ONE_CLASS
        yield _ONNX.format(file=file, mode=mode, answer=answer)
    elif format == "state-dict":
        yield f"## Use\n\n`torch.load({file!r}, weights_only=True)` returns the state dict."
    yield "## Comparison with the original"
    if parity.n:
        text = ". ".join(f"{line[0].upper()}{line[1:]}".rstrip(".") for line in comparison.lines(parity))
        yield f"{escaped(text)}."
    else:
        yield "It was not compared with the original."
