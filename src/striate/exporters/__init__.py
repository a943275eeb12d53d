"""Export trained models to the formats of other tools; each export is compared with the original."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.device import standard_settings
from striate.errors import StriateWarning, UsageError, unknown_name
from striate.exporters import model_card
from striate.files import probe


@dataclass(frozen=True)
class Parity:
    """Comparison of an exported model with the original.

    Attributes:
        n: number of outputs that were compared: texts decoded greedily by both, or tensors.
        equal: how many of them are equal, token for token or bit for bit.
        max_difference: largest difference: of a token's log-probability in nats, when both score the texts of
            the original (rounding alone causes up to about 1e-4); or of a tensor's values.
        outputs: what the outputs are, for messages.
        unit: of the largest difference, for messages.
    """

    n: int
    equal: int
    max_difference: float
    outputs: str = "texts"
    unit: str = "nats (log-probability of a token)"


@dataclass(frozen=True)
class Format:
    """A row of `FORMATS`.

    Attributes:
        target: `module:function` that takes the model, the path to write and the samples.
        tasks: whose models it can hold; empty for every task.
        summary: what it is, in a few words.
        suffix: of the file; empty for a folder.
    """

    target: str
    tasks: tuple[str, ...]
    summary: str
    suffix: str = ""

    @property
    def models(self) -> str:
        """The models that it can hold, in words."""
        return f"for {' and '.join(self.tasks)}" if self.tasks else "for any model"


# To add a format, write a file and add a row. The first format that can hold a model is its default.
_TRANSLATORS, _ONNX = "striate.exporters.translators", "striate.exporters.onnx"
FORMATS: dict[str, Format] = {
    "torch-export": Format(f"{_TRANSLATORS}:export_programs", ("seq2seq",), "torch.export programs (.pt2)"),
    "ctranslate2": Format(f"{_TRANSLATORS}:export_ctranslate2", ("seq2seq",), "CTranslate2 folder"),
    "onnx": Format(f"{_ONNX}:export", ("classification",), "ONNX, from pixels to scores", ".onnx"),
    "onnx-float": Format(f"{_ONNX}:export_float", ("classification",), "ONNX for normalized images", ".onnx"),
    "state-dict": Format("striate.exporters.state_dict:export", (), "state dict for torch.load", ".pth"),
}


# Earlier names, which still work until the next release.
OLD_NAMES = {"programs": "torch-export", "pth": "state-dict"}

# Suffixes of formats that are not in the table -> the format, and what to do.
_CONVERT = "Convert an .onnx file with the tools of that format"
_OTHER_SUFFIXES = {
    ".onnx": ("ONNX", "For an image classifier: --to onnx"),
    ".safetensors": ("safetensors", "A bundle is a .safetensors file already: copy it"),
    **{
        suffix: (kind, _CONVERT)
        for kind, suffixes in {
            "TorchScript": (".torchscript", ".ptl"), "TensorFlow": (".pb", ".tflite", ".tfl"),
            "Keras": (".h5", ".hdf5", ".keras"), "Core ML": (".mlmodel", ".mlpackage"), "GGUF": (".gguf",),
            "TensorRT": (".engine", ".plan", ".trt"), "OpenVINO": (".xml",), "NumPy": (".npz", ".npy"),
            "JSON": (".json",), "an archive": (".zip", ".tar", ".gz", ".tgz"),
        }.items()
        for suffix in suffixes
    },
}  # fmt: skip


def formats_for(task: str) -> list[str]:
    """The formats that can hold a model of a task; the first one is the default."""
    return [name for name, row in FORMATS.items() if not row.tasks or task in row.tasks]


@standard_settings()
def export(model: Any, out: Path, format: str, samples: Sequence[str] = ()) -> Parity:
    """Write a model in another format and a model card, and compare the result with the original.

    Args:
        model: a `Classifier` or a `Translator`, on the CPU.
        out: the file or folder to write.
        format: a key of `FORMATS`.
        samples: inputs for the comparison: texts or image files; random ones if empty.

    Raises:
        UsageError: an unknown format, one that cannot hold the model, or a package that is not installed.
        WriteError: `out` exists or cannot be written.
    """
    if (current := OLD_NAMES.get(format)) is not None:
        note = f"the format {format} is now {current}; the old name will be removed in the next release"
        warnings.warn(note, StriateWarning, stacklevel=3)
        format = current
    task = model.description.task
    formats = formats_for(task)
    if format not in FORMATS:
        raise unknown_name("format", format, formats)
    if format not in formats:
        raise UsageError(
            f"a {task} model as {format}", "the format cannot hold it", f"Use {', '.join(formats)}"
        )
    suffix = out.suffix.lower()
    if suffix in _OTHER_SUFFIXES and suffix != FORMATS[format].suffix and probe(out) is None:
        kind, fix = _OTHER_SUFFIXES[suffix]
        raise UsageError(f"cannot write {str(out)!r}", f"{format} is not {kind}", fix)
    module, name = FORMATS[format].target.split(":")
    parity: Parity = getattr(importlib.import_module(module), name)(model, out, samples)
    model_card.write(model.description, out, format, parity)
    return parity
