"""Recognize files that are no checkpoints of torch, and say what to do with them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from striate.errors import BundleError
from striate.reading import DAMAGE

_WEIGHTS = "Give weights of torch (.pth or .safetensors); `striate weights list` has those of torchvision"
_EXPORT = "Save the weights in the program that made it: torch.save(model.state_dict(), 'weights.pth')"
_ONNX = (
    "If torch exported it, its weights may have torch's names: `import onnx, torch; from onnx.numpy_helper "
    "import to_array; torch.save({{t.name: torch.tensor(to_array(t)) for t in "
    "onnx.load({name!r}).graph.initializer}}, 'weights.pth')`"
)
_NPZ = (
    "If the arrays have torch's names and layouts: `import numpy, torch; torch.save({{k: torch.tensor(v) "
    "for k, v in numpy.load({name!r}).items()}}, 'weights.pth')`"
)

# First bytes -> what the file is, and what to do.
_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "a Keras model or another HDF5 file", _WEIGHTS),
    (b"GGUF", "a GGUF file of a language model", _WEIGHTS),
    (b"\x93NUMPY", "one NumPy array", _WEIGHTS),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS in place of the file",
        "Run `git lfs pull` in its folder",
    ),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: gunzip or tar -xzf"),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it: unxz or tar -xJf"),
    (b"BZh", "compressed with bzip2", "Unpack it: bunzip2 or tar -xjf"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it"),
    (b"Rar!", "a RAR archive", "Unpack it"),
)
_SUFFIXES = {
    ".onnx": ("an ONNX model", _ONNX),
    ".tflite": ("a TensorFlow Lite model", _WEIGHTS),
    ".pb": ("a TensorFlow graph", _WEIGHTS),
    ".index": ("a part of a TensorFlow checkpoint", _WEIGHTS),
    ".meta": ("a part of a TensorFlow checkpoint", _WEIGHTS),
    ".msgpack": ("a Flax checkpoint", _WEIGHTS),
    ".pdparams": ("a PaddlePaddle checkpoint", _WEIGHTS),
    ".caffemodel": ("a Caffe model", _WEIGHTS),
    ".params": ("an MXNet checkpoint", _WEIGHTS),
    ".mlmodel": ("a Core ML model", _WEIGHTS),
    ".engine": ("a TensorRT engine", _EXPORT),
    ".pt2": ("a program of torch.export", _EXPORT),
}
_INDEX = "Give the .safetensors or .bin files that it names, one at a time"


def refuse(path: Path, start: bytes) -> BundleError | None:
    """The error for a file of another program.

    Args:
        path: of the file.
        start: its first 512 bytes, or all of them.

    Returns:
        The error; None if it may be a checkpoint of torch or a safetensors file.
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    text = start[:64].lstrip().lower()
    kind: tuple[str, str] | None = None
    if found := next((row for row in _STARTS if start.startswith(row[0])), None):
        kind = found[1:]
    elif text.startswith((b"<!doctype html", b"<html")):
        kind = "a web page, such as a login or an error", "Download the file itself, with `curl -L`"
    elif start[4:8] == b"TFL3":
        kind = _SUFFIXES[".tflite"]
    elif start[257:262] == b"ustar":
        kind = "a tar archive", "Unpack it: tar -xf"
    elif ".data-0000" in name or (suffix in _SUFFIXES and not start.startswith((b"PK", b"\x80"))):
        kind = _SUFFIXES.get(suffix, _SUFFIXES[".index"])
    elif start[:1] == b"\x08" and start[2:3] == b"\x12":  # the version of the format, then the producer
        kind = _SUFFIXES[".onnx"]
    elif text.startswith(b"{") and name.endswith(".json"):
        kind = "an index of weights or a configuration in JSON", _INDEX
    elif start.startswith(b"PK\x03\x04"):
        kind = _zip_kind(path)
    if kind is None:
        return None
    return BundleError(
        f"{str(path)!r} is no checkpoint of torch", f"it is {kind[0]}", kind[1].format(name=path.name)
    )


def _zip_kind(path: Path) -> tuple[str, str] | None:
    """The kind of a zip archive that is not a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGE:  # reported where it is read
        return None
    last = {name.rpartition("/")[2] for name in names}
    if "model.weights.h5" in last:
        return "a Keras model", _WEIGHTS
    if last & {"data.pkl", "constants.pkl"}:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "an .npz file of NumPy", _NPZ
    if "archive_format" in last or path.suffix == ".pt2":
        return _SUFFIXES[".pt2"]
    return "a zip archive without a checkpoint", "Unpack it"


def refuse_folder(path: Path) -> BundleError:
    """The error for a folder in place of a file."""
    names = sorted(child.name for child in path.iterdir())
    files = [name for name in names if name.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt"))]
    if "saved_model.pb" in names:
        return BundleError(
            f"{str(path)!r} is no checkpoint of torch", "it is a TensorFlow SavedModel", _WEIGHTS
        )
    fix = f"Give a file in it: {str(path / files[0])!r}" if files else "Give a .pth or .safetensors file"
    return BundleError(f"cannot open {str(path)!r}", "it is a folder", fix)
