"""A bundle: one `.safetensors` file that is the whole model.

The weights are ordinary safetensors. The file's JSON header (`__metadata__` in that format) also holds the
architecture and its arguments, the class names, the preprocessing, the metrics and the provenance. A bundle
opens on any device and executes no code. `describe` and `inspect` need no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate import strict_json
from striate.errors import BundleError, StriateWarning, UsageError, access_error
from striate.files import expanded, is_folder, why_missing, write_atomic
from striate.transforms.preprocess import Preprocess

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT = 1
_KEY = "striate"  # our entry of __metadata__
_WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DDP and torch.compile add to every key
_PIECE = 1 << 14  # values, half of what torch would divide between threads
_MAX_HEADER = 100_000_000  # bytes; the safetensors format has the same limit
_NAMED = 3  # tensors in a message
# For each floating-point type the unsigned integer of its size, and the bits of its exponent: all of them are
# set in NaN and infinity. NumPy has no bfloat16.
_EXPONENTS = {
    "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
}  # fmt: skip
_AGAIN = "Copy or train it again"
_IMPORT = (
    "Give a .safetensors file that `striate train` wrote, or import a .pth with `striate weights import`"
)


@dataclass(frozen=True)
class Description:
    """The header of a bundle.

    Attributes:
        task: `classification` or `seq2seq`.
        architecture: a key of `striate.models.MODELS`, or for `seq2seq` of
            `striate.models.seq2seq.SEQUENCE_MODELS`.
        arguments: the arguments that the network was built with.
        classes: a name for each score, in the order of the scores; empty for `seq2seq`.
        preprocess: how an image becomes the network's input; None if the model reads text.
        metrics: measured on held-out data.
        provenance: versions, data, seed, date.
        text: for `seq2seq`, the tokenizers and settings that `striate.inference.translator` needs; else None.
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
    def image_preprocess(self) -> Preprocess:
        """The preprocessing of a model that reads images.

        Raises:
            BundleError: the model reads text.
        """
        if self.preprocess is None:
            raise BundleError(f"a {self.architecture} reads no images", "it was trained on text")
        return self.preprocess

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"classes": list(self.classes)}
        values |= {"preprocess": self.preprocess.to_json() if self.preprocess else None}
        if self.text is None:  # image bundles keep the keys they had before seq2seq existed
            del values["text"]
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Description:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError, UsageError: the values are not a description.
        """
        values = {key: value for key, value in values.items() if key != "format"}
        preprocess = values["preprocess"]
        values["preprocess"] = None if preprocess is None else Preprocess.from_json(preprocess)
        return cls(**{**values, "classes": tuple(values["classes"])})


@dataclass(frozen=True)
class Inspection:
    """A bundle's header, the list of its tensors, and a digest of the weights.

    Attributes:
        description: the header.
        tensors: name -> (dtype in safetensors' notation, shape).
        bytes: size of the file.
        weights_sha256: SHA-256 over names, dtypes, shapes and values: equal weights have equal digests,
            whatever the header contains.
        nonfinite: number of weights that are NaN or infinite.
    """

    description: Description
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    bytes: int
    weights_sha256: str
    nonfinite: int = 0

    @property
    def values(self) -> int:
        """Number of values in all tensors, buffers included."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())


def write(
    path: str | os.PathLike[str], network: nn.Module | Mapping[str, torch.Tensor], description: Description
) -> None:
    """Write a bundle to a temporary file and rename it, so that readers never see half a bundle.

    Args:
        path: the file to write.
        network: a network, or its weights by name.
        description: the header.

    Raises:
        DataError: the file cannot be written (disk full, no permission).
    """
    from safetensors.torch import save

    # safetensors refuses tensors that share memory, so each one is cloned.
    weights = network if isinstance(network, Mapping) else network.state_dict()
    state = {_unwrapped(name): tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_atomic(Path(path), save(state, metadata={"format": "pt", _KEY: _text(description)}))


def read(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[Description, dict[str, torch.Tensor]]:
    """Read a bundle's header and its tensors, onto any device.

    Warns:
        StriateWarning: a weight is NaN or infinite.

    Raises:
        BundleError: the file is missing, damaged or not a bundle.
    """
    from safetensors.torch import load_file

    from striate.device import standard_settings

    description = describe(path)
    try:
        with standard_settings():
            mapped = load_file(path, device=str(device))
            state = {name: _in_memory(tensor) for name, tensor in mapped.items()}
    except Exception as error:  # safetensors has its own classes of errors
        raise BundleError(f"cannot read {str(path)!r}", " ".join(str(error).split()), _AGAIN) from error
    warn_if_not_finite(state, str(path))
    return description, state


def warn_if_not_finite(state: Mapping[str, torch.Tensor], source: str) -> str:
    """Warn of weights that are NaN or infinite: no answer of their network is right.

    Args:
        state: tensors by name.
        source: where they come from, for the message.

    Returns:
        The message; empty if every value is finite.
    """
    # A sum is not finite if a term is not; it may also overflow, so a second look counts the values.
    suspects = {n: t for n, t in state.items() if t.is_floating_point() and not _sum_is_finite(t)}
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in suspects.items()}
    names = [name for name, count in counts.items() if count]
    if not names:
        return ""
    total = sum(tensor.numel() for tensor in state.values())
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    message = (
        f"{sum(counts.values()):,} of {total:,} values of {source!r} are NaN or infinite "
        f"({', '.join(names[:_NAMED])}{more}), so its answers will be wrong: train or download it again"
    )
    warnings.warn(message, StriateWarning, stacklevel=3)
    return message


def describe(path: str | os.PathLike[str]) -> Description:
    """Read a bundle's header only: no torch, no weights, a few milliseconds for any size.

    Raises:
        BundleError: the file is missing, truncated or not a bundle.
    """
    header, _ = _read_header(Path(path))
    return _description(Path(path), header)


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Read a bundle's header, list its tensors and hash its weights; needs no torch.

    Hashing reads the whole file. Use `describe` if the header is enough.

    Raises:
        BundleError: the file is missing, truncated or not a bundle.
    """
    path = Path(path)
    header, start = _read_header(path)
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    digest, nonfinite = _read_through(path, tensors, start)
    return Inspection(
        description=_description(path, header),
        tensors={name: (entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()},
        bytes=path.stat().st_size,
        weights_sha256=digest,
        nonfinite=nonfinite,
    )


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a complete safetensors file with Striate's header, of any format version."""
    try:
        return _KEY in (_read_header(Path(path))[0].get("__metadata__") or {})
    except BundleError:
        return False


def path_of(place: str | os.PathLike[str]) -> Path:
    """The bundle at a path: the file itself, or `best.safetensors` of a run folder."""
    path = expanded(place)
    return path / "best.safetensors" if is_folder(path) else path


@contextlib.contextmanager
def must_fit(weights: str, architecture: str) -> Iterator[None]:
    """Around building a network and loading its weights: raises BundleError if the two do not fit."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, UsageError) as error:
        what, why = f"{weights} does not fit {architecture}", " ".join(str(error).split())
        raise BundleError(what, why, "Another version wrote it") from error


def with_tensors(make: Callable[[], nn.Module], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build a network with these tensors: without initializing weights first, and without copies.

    Args:
        make: creates the network. Its modules with buffers that are not saved have a method `constants`,
            which computes them by name.
        state: its tensors by name, which become the network's own.

    Raises:
        RuntimeError: they do not fit.
    """
    import torch

    with torch.device("meta"):
        network = make()
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    own = {name: tensor.to(types.get(name, tensor.dtype)) for name, tensor in state.items()}
    network.load_state_dict(own, assign=True)
    for module in network.modules():
        constants: dict[str, torch.Tensor] = getattr(module, "constants", dict)()
        for name in module._non_persistent_buffers_set & constants.keys():
            module._buffers[name] = constants[name]
    return network


def add_metrics(path: str | os.PathLike[str], metrics: dict[str, Any]) -> None:
    """Add metrics to a bundle's header; the bytes of the weights do not change.

    Raises:
        BundleError: the file is missing, damaged or not a bundle.
        DataError: it cannot be written.
    """
    path = Path(path)
    header, start = _read_header(path)
    description = _description(path, header)
    description = dataclasses.replace(description, metrics={**description.metrics, **metrics})
    header["__metadata__"][_KEY] = _text(description)
    text = strict_json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format requires the data to start at a multiple of 8
    write_atomic(path, len(text).to_bytes(8, "little") + text + path.read_bytes()[start:])


def _sum_is_finite(tensor: torch.Tensor) -> bool:
    """Whether the sum of a tensor's values is finite; computed without starting the threads of OpenMP."""
    values = tensor.reshape(-1)
    piece = _PIECE if values.device.type == "cpu" else max(1, len(values))
    return all(bool(values[at : at + piece].sum().isfinite()) for at in range(0, len(values), piece))


def _in_memory(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the memory of this process of a tensor that is mapped from a file, which may change later.

    NumPy copies it: torch would start the threads of OpenMP, after which a forked process cannot compute.
    """
    import torch

    if tensor.device.type != "cpu" or not tensor.numel():
        return tensor
    copied = torch.empty(tensor.shape, dtype=tensor.dtype)
    copied.reshape(-1).view(torch.uint8).numpy()[:] = tensor.reshape(-1).view(torch.uint8).numpy()
    return copied


def _text(description: Description) -> str:
    return strict_json.dumps(description.to_json())


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The safetensors header and the offset of the data, after checking that the file is complete."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise BundleError(f"{str(path)!r} is no bundle", "it has no safetensors header", _IMPORT)
            header: dict[str, Any] = json.loads(file.read(length))
            spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError as error:
        raise BundleError(f"cannot open {str(path)!r}", *why_missing(path, _IMPORT)) from error
    except OSError as error:
        raise access_error(error, f"cannot open {str(path)!r}", _IMPORT, BundleError) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"{str(path)!r} is no bundle", "its header is damaged", _AGAIN) from error
    expected = 8 + length + max((last for _, last in spans), default=0)
    if expected != size:
        raise BundleError(
            f"{str(path)!r} is damaged", f"it has {size:,} bytes, but its header says {expected:,}", _AGAIN
        )
    return header, 8 + length


def _description(path: Path, header: Mapping[str, Any]) -> Description:
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
                f"{str(path)!r} has bundle format {version}",
                f"this version of Striate reads formats up to {FORMAT}",
                "Upgrade Striate",
            )
        return Description.from_json(values)
    except (ValueError, TypeError, KeyError, UsageError) as error:
        raise BundleError(
            f"{str(path)!r} is no bundle", f"its description is damaged ({error})", _AGAIN
        ) from error


def _read_through(path: Path, tensors: Mapping[str, Any], start: int) -> tuple[str, int]:
    """The SHA-256 of the weights, and how many of them are NaN or infinite."""
    digest, nonfinite = hashlib.sha256(), 0
    with path.open("rb") as file:
        for name in sorted(tensors):
            dtype, shape = tensors[name]["dtype"], tensors[name]["shape"]
            first, last = tensors[name]["data_offsets"]
            digest.update(f"{name} {dtype} {shape}\n".encode())
            file.seek(start + first)
            content = file.read(last - first)
            digest.update(content)
            if dtype in _EXPONENTS:
                kind, mask = _EXPONENTS[dtype]
                bits = np.frombuffer(content, kind)
                nonfinite += int(np.count_nonzero((bits & np.array(mask, kind)) == mask))
    return digest.hexdigest(), nonfinite
