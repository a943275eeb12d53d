"""Export trained models to the formats of other tools; each export is compared with the original."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate import strict_json
from striate.device import standard_settings
from striate.errors import StriateWarning, UsageError, unknown_name
from striate.exporters.records import Exported, Parity, Request
from striate.files import new_path, probe

if TYPE_CHECKING:
    from striate.exporters.inputs import Inputs

__all__ = [
    "FORMATS",
    "OLD_NAMES",
    "Format",
    "Parity",
    "default_name",
    "export",
    "formats_for",
    "write_compared",
]


@dataclass(frozen=True)
class Format:
    """A row of `FORMATS`.

    Attributes:
        target: `module:function` that takes a `Classifier` or a `Translator` on the CPU, the path to write,
            and a `Request`. It writes the file or folder and returns an `Exported`, which runs it.
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


# To add a format, write a file and add a row.
_TRANSLATORS, _ONNX = "striate.exporters.translators", "striate.exporters.onnx"
_PROGRAMS, _CONVERTERS = "striate.exporters.torch_programs", "striate.exporters.converters"
_IMAGES = ("classification",)
FORMATS: dict[str, Format] = {
    "onnx": Format(f"{_ONNX}.translator:export", (), "ONNX, from pixels to scores, or for texts", ".onnx"),
    "onnx-float": Format(f"{_ONNX}:export_float", _IMAGES, "ONNX for normalized images", ".onnx"),
    "onnx-int8": Format(f"{_ONNX}.quantization:export_int8", _IMAGES, "ONNX in int8", ".onnx"),
    "onnx-int8-weights": Format(
        f"{_ONNX}.quantization:export_int8_weights", _IMAGES, "ONNX with int8 weights", ".onnx"
    ),
    "torch-export": Format(f"{_PROGRAMS}:export_program", (), "torch.export programs (.pt2)"),
    "ctranslate2": Format(f"{_TRANSLATORS}:export_ctranslate2", ("seq2seq",), "CTranslate2 folder"),
    "state-dict": Format("striate.exporters.state_dict:export", (), "state dict for torch.load", ".pth"),
    "torchscript": Format(f"{_PROGRAMS}:export_torchscript", _IMAGES, "TorchScript", ".torchscript"),
    "openvino": Format(f"{_CONVERTERS}:export_openvino", _IMAGES, "OpenVINO folder"),
    "tflite": Format(f"{_CONVERTERS}:export_tflite", _IMAGES, "LiteRT (TensorFlow Lite)", ".tflite"),
    "coreml": Format(f"{_CONVERTERS}:export_coreml", _IMAGES, "Core ML", ".mlpackage"),
    "ncnn": Format(f"{_CONVERTERS}:export_ncnn", _IMAGES, "ncnn folder"),
    "tensorrt": Format(f"{_CONVERTERS}:export_tensorrt", _IMAGES, "TensorRT engine", ".engine"),
}


_DEFAULTS = {"seq2seq": "torch-export"}  # for texts and images; of other tasks the first one

# Earlier names, which still work until the next release.
OLD_NAMES = {"programs": "torch-export", "pth": "state-dict"}

# Suffixes that another format than the given one has -> its name, and what to do.
_CONVERT = "Convert an .onnx file with the tools of that format"
_OTHER_SUFFIXES = {
    ".onnx": ("ONNX", "For an image classifier: --to onnx"),
    ".safetensors": ("safetensors", "A bundle is a .safetensors file already: copy it"),
    **{
        suffix: (kind, f"For an image classifier: --to {name}" if name else _CONVERT)
        for kind, name, *suffixes in (
            ("TorchScript", "torchscript", ".torchscript", ".ptl"), ("LiteRT", "tflite", ".tflite", ".tfl"),
            ("Core ML", "coreml", ".mlmodel", ".mlpackage"), ("OpenVINO", "openvino", ".xml"),
            ("TensorRT", "tensorrt", ".engine", ".plan", ".trt"), ("ncnn", "ncnn", ".param"),
            ("TensorFlow", "", ".pb"), ("Keras", "", ".h5", ".hdf5", ".keras"), ("GGUF", "", ".gguf"),
            ("NumPy", "", ".npz", ".npy"), ("JSON", "", ".json"),
            ("an archive", "", ".zip", ".tar", ".gz", ".tgz"),
        )
        for suffix in suffixes
    },
}  # fmt: skip


def formats_for(task: str) -> list[str]:
    """The formats that can hold a model of a task; the first one is the default."""
    names = [name for name, row in FORMATS.items() if not row.tasks or task in row.tasks]
    return sorted(names, key=lambda name: name != _DEFAULTS.get(task))


def default_name(format: str) -> str:
    """What to call an export, if the user does not say: each format has a name of its own."""
    format = OLD_NAMES.get(format, format)
    if format not in FORMATS:  # which is refused
        return "exported"
    suffix = FORMATS[format].suffix
    alike = [name for name, row in FORMATS.items() if row.suffix == suffix]
    kind = "" if format == alike[0] else f"-{format.removeprefix(f'{alike[0]}-')}"
    return f"exported{kind}{suffix}"


@standard_settings()
def export(
    model: Any,
    out: Path,
    format: str,
    samples: Sequence[str] = (),
    *,
    data: Any = None,
    max_loss: float = 1.0,
) -> Parity:
    """Write a model in another format, run the result next to the original, and describe it.

    The comparison is written to `EXPORT.md`, next to a model card.

    Args:
        model: a `Classifier` or a `Translator`, on the CPU.
        out: the file or folder to write.
        format: a key of `FORMATS`.
        samples: inputs for the comparison: texts or image files.
        data: labeled images for the comparison, as for `striate.evaluate`. Without them and samples, images
            are those that the run of the model held out, else installed photographs; texts are random.
        max_loss: points of accuracy that a format with fewer bits may lose.

    Raises:
        UsageError: an unknown format, one that cannot hold the model, or a package that is not installed.
        WriteError: `out` exists or cannot be written, or it is not equal to the original; then it is removed.
    """
    format = _current(format)
    task = model.description.task
    _require_suitable(format, task, out)
    if data is not None and task != "classification":
        raise UsageError(f"data= with a {task} model", "its samples are texts", "Give samples")
    from striate.exporters import comparison, model_card

    parity = write_compared(model, out, format, Request(tuple(samples), data, max_loss))
    comparison.write(out, format, parity)
    model_card.write(model.description, out, format, parity)
    return parity


def write_compared(
    model: Any, out: Path, format: str, request: Request | None = None, *, inputs: Inputs | None = None
) -> Parity:
    """Write a model in another format and run it next to the original, without files that describe it.

    Args:
        model: as for `export`.
        out: as for `export`.
        format: one that can hold the model.
        request: what the caller says about the comparison.
        inputs: the images to compare on; None for those of the request.

    Raises:
        UsageError, WriteError: as `export`.
    """
    module, name = FORMATS[format].target.split(":")
    write, request = getattr(importlib.import_module(module), name), request or Request()
    with new_path(out) as path:
        exported = write(model, path, request)
        exported = exported if inputs is None else replace(exported, inputs=inputs)
        return _compared(model, exported, request, out)


def _current(format: str) -> str:
    """The current name of a format."""
    if (current := OLD_NAMES.get(format)) is None:
        return format
    note = f"the format {format} is now {current}; the old name will be removed in the next release"
    warnings.warn(note, StriateWarning, stacklevel=5)
    return current


def _require_suitable(format: str, task: str, out: Path) -> None:
    """Raises UsageError for an unknown format, one for other models, and a suffix of another format."""
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


def _compared(model: Any, exported: Exported, request: Request, out: Path) -> Parity:
    """Compare an export with the original and store the result in it; raises WriteError if they differ."""
    if exported.scores is not None:
        from striate.exporters.inputs import images_for
        from striate.exporters.verification import compare_images

        parity = compare_images(model, exported, exported.inputs or images_for(model, request), out)
    elif exported.texts is not None:
        from striate.exporters.text_verification import compare_texts
        from striate.exporters.translators import sources_for

        parity = compare_texts(model.network, exported, sources_for(model, request), out)
    else:
        warnings.warn(
            f"{str(out)!r} was not compared with the original: {exported.missing}",
            StriateWarning,
            stacklevel=6,
        )
        return Parity(0, 0, 0.0, "outputs", "", notes=exported.notes)
    if exported.store is not None:
        exported.store(strict_json.dumps(asdict(parity)))
    return parity
