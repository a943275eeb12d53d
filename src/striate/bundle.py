"""A bundle: one `.safetensors` file that is the whole model.

Beside the weights, the file's JSON header (the `__metadata__` of the safetensors format) holds what is
needed to use them: the architecture and its arguments, the class names, the preprocessing, the measured
figures and where they came from. The file opens on any device and executes no code; `inspect` reads the
header without torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.errors import BundleError, UsageError
from striate.files import write_atomic
from striate.transforms.preprocess import Preprocess

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT = 1
_KEY = "striate"  # the entry of __metadata__ that is ours
_WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DDP and torch.compile put before every key
_MAX_HEADER = 100_000_000  # bytes, as in the safetensors format itself


@dataclass(frozen=True)
class Description:
    """What a bundle says of itself.

    Attributes:
        task: what the model does: `classification`, or `seq2seq`.
        architecture: its name in `striate.models.MODELS`, or of `seq2seq` in
            `striate.models.seq2seq.SEQUENCE_MODELS`.
        arguments: what it was built with.
        classes: a name for each score, in the order of the scores; none for `seq2seq`.
        preprocess: how an image becomes the network's input; None where it reads text.
        metrics: figures measured on held-out data.
        provenance: where it came from: versions, data, seed, date.
        text: of `seq2seq`, the tokenizers and what else `striate.inference.translator` needs; else None.
    """

    task: str
    architecture: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess | None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] | None = None

    @property
    def contract(self) -> Preprocess:
        """How an image becomes the network's input; raises BundleError where it reads text."""
        if self.preprocess is None:
            raise BundleError(f"a {self.architecture} reads no images", "it was trained on text")
        return self.preprocess

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"classes": list(self.classes)}
        values |= {"preprocess": self.preprocess.to_json() if self.preprocess else None}
        if self.text is None:  # bundles of images are as they were before there was text
            del values["text"]
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Description:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError, UsageError: for other values.
        """
        values = {key: value for key, value in values.items() if key != "format"}
        contract = values["preprocess"]
        values["preprocess"] = None if contract is None else Preprocess.from_json(contract)
        return cls(**{**values, "classes": tuple(values["classes"])})


@dataclass(frozen=True)
class Inspection:
    """A bundle's header, and what its tensors are.

    Attributes:
        description: what the bundle says of itself.
        tensors: name -> (dtype as safetensors writes it, shape).
        bytes: size of the file.
        weights_sha256: SHA-256 of names, types, shapes and values; equal weights, equal digest, whatever
            the header says.
    """

    description: Description
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    bytes: int
    weights_sha256: str

    @property
    def values(self) -> int:
        """How many numbers all tensors hold together, buffers included."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())


def write(
    path: str | os.PathLike[str], network: nn.Module | Mapping[str, torch.Tensor], description: Description
) -> None:
    """Write a bundle: aside, then renamed, so that no reader ever sees half of one.

    Args:
        path: of the file.
        network: the network, or its weights by name.
        description: what it says of itself.

    Raises:
        DataError: the file cannot be written (no room, no permission).
    """
    from safetensors.torch import save

    # One owner for each tensor (safetensors refuses views of one another), on the CPU, no wrapper's prefix.
    weights = network if isinstance(network, Mapping) else network.state_dict()
    state = {_unwrapped(name): tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_atomic(Path(path), save(state, metadata={"format": "pt", _KEY: _text(description)}))


def read(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[Description, dict[str, torch.Tensor]]:
    """Read a bundle's description and its tensors, onto any device.

    Raises:
        BundleError: missing, damaged, or not a bundle.
    """
    from safetensors.torch import load_file

    description = _described(Path(path), _header(Path(path))[0])
    try:
        return description, load_file(path, device=str(device))
    except Exception as error:  # safetensors raises its own error for damage of any kind
        raise BundleError(f"cannot read {str(path)!r}", " ".join(str(error).split()), _AGAIN) from error


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Read what a bundle holds, without torch and without loading the weights.

    Raises:
        BundleError: missing, damaged, or not a bundle.
    """
    path = Path(path)
    header, start = _header(path)
    digest = hashlib.sha256()
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    with path.open("rb") as file:
        for name in sorted(tensors):
            dtype, shape = tensors[name]["dtype"], tensors[name]["shape"]
            first, last = tensors[name]["data_offsets"]
            digest.update(f"{name} {dtype} {shape}\n".encode())
            file.seek(start + first)
            digest.update(file.read(last - first))
    return Inspection(
        description=_described(path, header),
        tensors={name: (entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()},
        bytes=path.stat().st_size,
        weights_sha256=digest.hexdigest(),
    )


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether this is a whole safetensors file with a description of ours, however old or new."""
    try:
        return _KEY in (_header(Path(path))[0].get("__metadata__") or {})
    except BundleError:
        return False


def path_of(place: str | os.PathLike[str]) -> Path:
    """The bundle at a path: the file itself, or the best one of a run's folder."""
    path = Path(place)
    return path / "best.safetensors" if path.is_dir() else path


def add_metrics(path: str | os.PathLike[str], metrics: dict[str, Any]) -> None:
    """Add figures to a bundle's header; the weights stay as they are, byte for byte.

    Raises:
        BundleError: missing, damaged, or not a bundle.
        DataError: it cannot be written.
    """
    path = Path(path)
    header, start = _header(path)
    description = _described(path, header)
    description = dataclasses.replace(description, metrics={**description.metrics, **metrics})
    header["__metadata__"][_KEY] = _text(description)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data to begin at a multiple of 8
    write_atomic(path, len(text).to_bytes(8, "little") + text + path.read_bytes()[start:])


_AGAIN = "Copy or train it again"
_IMPORT = (
    "Give a .safetensors file that `striate train` wrote, or import a .pth with `striate weights import`"
)


def _text(description: Description) -> str:
    return json.dumps(description.to_json(), ensure_ascii=False)


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The safetensors header, and where the data begin, after checks that the file is whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise BundleError(f"{str(path)!r} is no bundle", "it has no safetensors header", _IMPORT)
            header: dict[str, Any] = json.loads(file.read(length))
            spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError as error:
        raise BundleError(f"cannot open {str(path)!r}", "no such file", _IMPORT) from error
    except OSError as error:
        raise BundleError(f"cannot open {str(path)!r}", error.strerror or str(error), _IMPORT) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"{str(path)!r} is no bundle", "its header is damaged", _AGAIN) from error
    promised = 8 + length + max((last for _, last in spans), default=0)
    if promised != size:
        raise BundleError(
            f"{str(path)!r} is damaged", f"it has {size:,} bytes where its header says {promised:,}", _AGAIN
        )
    return header, 8 + length


def _described(path: Path, header: Mapping[str, Any]) -> Description:
    text = (header.get("__metadata__") or {}).get(_KEY)
    if text is None:
        raise BundleError(
            f"{str(path)!r} is no bundle", "it is a safetensors file without Striate's description", _IMPORT
        )
    try:
        values = json.loads(text)
        version = values.pop("format")
        if version > FORMAT:
            raise BundleError(
                f"{str(path)!r} is of bundle format {version}",
                f"this Striate reads up to format {FORMAT}",
                "Upgrade Striate",
            )
        return Description.from_json(values)
    except (ValueError, TypeError, KeyError, UsageError) as error:
        raise BundleError(
            f"{str(path)!r} is no bundle", f"its description is damaged ({error})", _AGAIN
        ) from error
