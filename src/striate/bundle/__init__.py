"""A bundle: one `.safetensors` file that is the whole model.

The weights are ordinary safetensors. The file's JSON header (`__metadata__` in that format) also holds the
architecture and its arguments, the class names, the preprocessing, the metrics and the provenance. A bundle
opens on any device and executes no code. `describe` and `inspect` need no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate import strict_json, tensor_file
from striate.bundle.calibration import Calibration
from striate.bundle.description import DESCRIPTION, FORMAT, Description
from striate.bundle.unknown import UnknownInputs, decode_unknown
from striate.errors import (
    BundleError,
    DataError,
    StriateWarning,
    TrustError,
    UsageError,
    environment_error,
)
from striate.files import expanded, is_folder, probe, write_atomic
from striate.models import is_foreign
from striate.printable import first_few
from striate.tensor_file import DAMAGED, Header
from striate.validation import require

if TYPE_CHECKING:
    import torch
    from torch import nn

_WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DDP and torch.compile add to every key
_PIECE = 1 << 14  # values, half of what torch would divide between threads
_noted = False  # whether missing checksums have been noted
_IMPORT = (
    "Give a .safetensors file that `striate train` wrote, or import a .pth with `striate weights import`"
)
_EXPORTED = "Of the commands only predict reads ONNX: give the bundle that it was exported from"

__all__ = [
    "DESCRIPTION", "FORMAT", "Calibration", "Description", "Inspection", "UnknownInputs", "add_metrics",
    "damaged", "decode_unknown", "describe", "identity", "inspect", "is_bundle",
    "is_onnx", "load", "must_fit", "path_of", "read", "set_thresholds", "warn_if_not_finite", "with_tensors",
    "write",
]  # fmt: skip


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
    weights = network if isinstance(network, Mapping) else network.state_dict()
    state = {_unwrapped(name): tensor for name, tensor in weights.items()}
    content = tensor_file.encode(state, {"format": "pt", **description.metadata()})
    write_atomic(Path(path), content)


def read(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[Description, dict[str, torch.Tensor]]:
    """Read a bundle's header and its tensors, onto any device, and compare them with their checksums.

    Warns:
        StriateWarning: a weight is NaN or infinite; once, a bundle of an earlier version has no checksums.

    Raises:
        BundleError: the file is missing, damaged or not a bundle.
    """
    path = Path(path)
    header = _header(path)
    return _description(path, header), _tensors(path, header, device)


def load(
    path: str | os.PathLike[str], device: str | torch.device, make: Callable[[Description], nn.Module]
) -> tuple[Description, nn.Module]:
    """Build the network of a bundle; nothing is allocated before the header has been compared with it.

    Args:
        path: the bundle.
        device: where the network will be.
        make: creates the network, as for `with_tensors`.

    Warns:
        StriateWarning: as `read`.

    Raises:
        BundleError: the file is missing, damaged, not a bundle, or does not fit its network.
    """
    from striate.models.filling import fill, rebuilt, require_fit, without_memory

    path = Path(path)
    header = _header(path)
    description = _description(path, header)
    own = not is_foreign(description.architecture)
    with must_fit(repr(str(path)), description.architecture):
        network = without_memory(lambda: make(description), len(header.tensors), own=own)
        require_fit(network, {n: (tensor_file.torch_type(e), e.shape) for n, e in header.tensors.items()})
    tensors = _tensors(path, header, device)
    return description, fill(network, tensors) if own else rebuilt(lambda: make(description), tensors)


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
    message = (
        f"{sum(counts.values()):,} of {total:,} values of {source!r} are NaN or infinite "
        f"({first_few(names)}), so its answers will be wrong: train or download it again"
    )
    warnings.warn(message, StriateWarning, stacklevel=3)
    return message


def describe(path: str | os.PathLike[str]) -> Description:
    """Read a bundle's header only: no torch, no weights, a few milliseconds for any size.

    Raises:
        BundleError: the file is missing, truncated or not a bundle.
    """
    path = Path(path)
    return _description(path, _header(path))


def identity(path: str | os.PathLike[str]) -> tuple[Description, str]:
    """Read a bundle's header, and make a digest of what decides the scores of its network; needs no torch.

    The digest covers the network, its input and the checksums of the tensors; or, in a bundle of an
    earlier version without them, their values. Metrics and calibration do not change it.

    Raises:
        BundleError: the file is missing, truncated or not a bundle.
    """
    path = Path(path)
    header = _header(path)
    description = _description(path, header)
    about = description.to_json()
    sums = header.checksums
    parts = [
        *(about[name] for name in ("task", "architecture", "arguments", "classes", "preprocess")),
        header.table,
        tensor_file.examine(path, header)[0] if sums is None else sorted(sums.items()),
    ]
    return description, hashlib.sha256(strict_json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Read a bundle's header, list its tensors and hash its weights; needs no torch.

    Hashing reads the whole file. Use `describe` if the header is enough.

    Raises:
        BundleError: the file is missing, truncated or not a bundle.
    """
    path = Path(path)
    header = _header(path)
    description = _description(path, header)
    digest, nonfinite = tensor_file.examine(path, header)
    return Inspection(
        description=description,
        tensors={name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()},
        bytes=header.size,
        weights_sha256=digest,
        nonfinite=nonfinite,
    )


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a complete safetensors file with Striate's header, of any format version."""
    try:
        return DESCRIPTION in _header(Path(path)).metadata
    except BundleError:
        return False


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named as an ONNX file: an exported model instead of a bundle."""
    return os.fspath(path).lower().endswith(".onnx")


def path_of(place: str | os.PathLike[str]) -> Path:
    """The bundle at a path: the file itself, or `best.safetensors` of a run folder.

    Raises:
        BundleError: a folder of several runs.
    """
    path = expanded(place)
    if not is_folder(path):
        return path
    best = path / "best.safetensors"
    if probe(best) is None and (inner := sorted(path.glob("*/best.safetensors"))):
        fix = f"Give one of them, such as {str(inner[0].parent)!r}"
        raise BundleError(f"{str(path)!r} is not a run", "it contains several runs", fix)
    return best


def damaged(path: str, why: str) -> BundleError:
    """The error for a bundle whose header contradicts itself."""
    return BundleError(f"{path!r} is damaged", why, DAMAGED)


@contextlib.contextmanager
def must_fit(weights: str, architecture: str) -> Iterator[None]:
    """Around building a network and loading its weights: raises BundleError if the two do not fit."""
    try:
        yield
    except (DataError, TrustError):
        raise
    except Exception as error:  # the arguments come from a file, and a network may do anything with them
        what, why = f"{weights} does not fit {architecture}", " ".join(str(error).split())
        raise environment_error(error) or BundleError(what, why, "Another version wrote it") from error


def with_tensors(make: Callable[[], nn.Module], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build a network with these tensors: without initializing weights first, and without copies.

    Args:
        make: creates the network. Its modules with buffers that are not saved have a method `constants`,
            which computes them by name.
        state: its tensors by name, which become the network's own.

    Raises:
        UsageError: they do not fit.
    """
    from striate.models.filling import fill, require_fit, without_memory

    network = without_memory(make, len(state))
    require_fit(network, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()})
    return fill(network, state)


def add_metrics(
    path: str | os.PathLike[str],
    metrics: dict[str, Any],
    calibration: Calibration | None = None,
    unknown: str = "",
) -> None:
    """Add metrics to a bundle's header; a calibration and features, if given, replace those that it has.

    The bytes of the weights and their checksums do not change.

    Raises:
        BundleError: the file is missing, damaged or not a bundle.
        DataError: it cannot be written.
    """

    def with_metrics(known: Description) -> Description:
        return dataclasses.replace(
            known,
            metrics={**known.metrics, **metrics},
            calibration=calibration or known.calibration,
            unknown=unknown or known.unknown,
        )

    _describe_anew(path, with_metrics)


def set_thresholds(path: str | os.PathLike[str], thresholds: tuple[float, ...]) -> None:
    """Set the thresholds of a bundle of images with several classes; the rest and errors as `add_metrics`."""
    _describe_anew(path, lambda known: dataclasses.replace(known, thresholds=thresholds))


def _describe_anew(path: str | os.PathLike[str], change: Callable[[Description], Description]) -> None:
    path = Path(path)
    header = _header(path)
    description = change(_description(path, header))
    write_atomic(path, tensor_file.with_metadata(path, header, description.metadata()))


def _sum_is_finite(tensor: torch.Tensor) -> bool:
    """Whether the sum of a tensor's values is finite; computed without starting the threads of OpenMP."""
    values = tensor.reshape(-1)
    piece = _PIECE if values.device.type == "cpu" else max(1, len(values))
    return all(bool(values[at : at + piece].sum().isfinite()) for at in range(0, len(values), piece))


def _header(path: Path) -> Header:
    return tensor_file.read_header(path, _EXPORTED if is_onnx(path) else _IMPORT)


def _tensors(path: Path, header: Header, device: str | torch.device) -> dict[str, torch.Tensor]:
    if header.checksums is None:
        _note_missing_checksums(str(path))
    state = {name: t.to(device) for name, t in tensor_file.read_tensors(path, header).items()}
    warn_if_not_finite(state, str(path))
    return state


def _note_missing_checksums(path: str) -> None:
    """Warn once of a bundle without checksums."""
    global _noted
    if not _noted:
        _noted = True
        message = f"{path!r} has no checksums (an earlier version wrote it): damage would go unnoticed"
        warnings.warn(message, StriateWarning, stacklevel=5)


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _description(path: Path, header: Header) -> Description:
    text = header.metadata.get(DESCRIPTION)
    if text is None:
        raise BundleError(
            f"{str(path)!r} is no bundle", "it is a safetensors file without Striate's description", _IMPORT
        )
    try:
        values = strict_json.loads(text)
        require(values, dict, "it")
        version = values.get("format")
        require(version, int, "format")
        if version > FORMAT:
            raise BundleError(
                f"{str(path)!r} has bundle format {version}",
                f"this version of Striate reads formats up to {FORMAT}",
                "Upgrade Striate",
            )
        return Description.from_metadata(header.metadata)
    except (ValueError, UsageError) as error:
        why = f"its description is damaged ({' '.join(str(error).split())})"
        raise BundleError(f"{str(path)!r} is no bundle", why, DAMAGED) from error
