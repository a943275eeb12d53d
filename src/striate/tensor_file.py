"""Safetensors files with checksums: the one reader and writer of bundles, checkpoints and averaged epochs.

A file is 8 bytes with the length of the header, the header in JSON, and the values of the tensors. The header
is checked before anything is allocated: every tensor lies in the file, and together they fill it. The
metadata (`crc32`) has a CRC32 of each tensor with its name, type and shape; other programs ignore it.

Reading a header needs no torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from striate import strict_json
from striate.errors import BundleError, access_error
from striate.files import probe, why_missing
from striate.reading import damage_errors, open_file

if TYPE_CHECKING:
    import torch

CHECKSUMS = "crc32"  # our entry of the metadata: name of a tensor, or "" for the other metadata -> CRC32
DAMAGED = "Copy or train it again"
_METADATA = "__metadata__"
_MAX_HEADER = 32 << 20  # bytes; its objects in Python take many times as much memory
_MAX_AXES = 64  # as in torch
_PIECE = 1 << 18  # bytes that stay in the processor's cache while they are checked
# Types of the format: bytes of a value, and the name in torch.
_TYPES = {
    "F64": (8, "float64"), "I64": (8, "int64"), "U64": (8, "uint64"), "F32": (4, "float32"),
    "I32": (4, "int32"), "U32": (4, "uint32"), "F16": (2, "float16"), "BF16": (2, "bfloat16"),
    "I16": (2, "int16"), "U16": (2, "uint16"), "U8": (1, "uint8"), "I8": (1, "int8"), "BOOL": (1, "bool"),
    "F8_E4M3": (1, "float8_e4m3fn"), "F8_E5M2": (1, "float8_e5m2"),
}  # fmt: skip
# For each floating-point type the unsigned integer of its size, and the bits of its exponent: all of them are
# set in NaN and infinity. NumPy has no bfloat16.
_EXPONENTS = {
    "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        dtype: in safetensors' notation.
        shape: of the tensor.
        first: of its bytes, counted from the first byte after the header.
        last: after the last of its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True)
class Header:
    """The header of a file, checked against its length.

    Attributes:
        metadata: texts by name.
        tensors: by name, in the order of their bytes.
        start: of the values in the file, in bytes.
        size: of the file, in bytes.
        checksums: by name of the tensor; None for a file without them.
    """

    metadata: dict[str, str]
    tensors: dict[str, Entry] = field(repr=False)
    start: int
    size: int
    checksums: dict[str, int] | None = field(repr=False, default=None)

    @property
    def table(self) -> dict[str, Any]:
        """The tensors as the header has them in JSON."""
        return {
            name: {"dtype": e.dtype, "shape": list(e.shape), "data_offsets": [e.first, e.last]}
            for name, e in self.tensors.items()
        }


def layout(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """The table of some tensors for a header, and their bytes, in the order in which a file has them."""
    names = {f"torch.{theirs}": ours for ours, (_, theirs) in _TYPES.items()}
    table, arrays, at = {}, {}, 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):  # aligned
        tensor = tensors[name]
        arrays[name] = _bytes(tensor)
        entry = {"dtype": names[str(tensor.dtype)], "shape": list(tensor.shape)}
        table[name] = {**entry, "data_offsets": [at, at + len(arrays[name])]}
        at += len(arrays[name])
    return table, arrays


def torch_type(entry: Entry) -> torch.dtype:
    """The type of a tensor in torch."""
    import torch

    dtype: torch.dtype = getattr(torch, _TYPES[entry.dtype][1])
    return dtype


def header_bytes(table: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file before the values of its tensors."""
    text = strict_json.dumps({_METADATA: dict(metadata), **table}).encode()
    text += b" " * (-len(text) % 8)  # the format requires the data to start at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def encode(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The content of a file with checksums, in pieces for `files.write_atomic`; large tensors are not copied.

    Args:
        tensors: by name, on any device; they may share memory.
        metadata: texts by name.
    """
    table, arrays = layout(tensors)
    sums = {
        name: zlib.crc32(arrays[name], _seed(name, entry["dtype"], entry["shape"]))
        for name, entry in table.items()
    }
    return [header_bytes(table, with_checksums(metadata, sums)), *arrays.values()]


def with_checksums(metadata: Mapping[str, str], sums: Mapping[str, int]) -> dict[str, str]:
    """Metadata with the checksums of the tensors and of the metadata itself."""
    plain = {name: text for name, text in metadata.items() if name != CHECKSUMS}
    found = {**sums, "": _crc_of(plain)}
    return {**plain, CHECKSUMS: strict_json.dumps({name: f"{crc:08x}" for name, crc in found.items()})}


def read_header(path: Path, fix: str) -> Header:
    """Read and check the header of a file.

    Args:
        path: of the file.
        fix: what to do about a file of another kind.

    Raises:
        BundleError: there is no such file, or it is damaged or of another kind.
    """
    if probe(path) is None:
        raise BundleError(f"cannot open {str(path)!r}", *why_missing(path, fix))
    with open_file(path, BundleError) as file, damage_errors(f"cannot read {str(path)!r}", fix, BundleError):
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise BundleError(f"{str(path)!r} is no bundle", "it has no safetensors header", fix)
        text = file.read(length)
    try:
        metadata, tensors = _parsed(text)
    except ValueError as error:
        why = f"its header is damaged ({' '.join(str(error).split())[:200]})"
        raise BundleError(f"{str(path)!r} is no bundle", why, DAMAGED) from error
    expected = 8 + length + max((entry.last for entry in tensors.values()), default=0)
    if expected != size:
        why = f"it has {size:,} bytes, but its header says {expected:,}"
        raise BundleError(f"{str(path)!r} is damaged", why, DAMAGED)
    try:
        checksums = _checksums(metadata, tensors)
    except ValueError as error:
        raise BundleError(f"{str(path)!r} is damaged", str(error), DAMAGED) from error
    return Header(metadata, tensors, 8 + length, size, checksums)


def read_tensors(path: Path, header: Header) -> dict[str, torch.Tensor]:
    """Read all tensors of a file into memory, and compare them with their checksums.

    The memory is that of this process, so the file may change later. No thread of OpenMP is started, after
    which a forked process could not compute.

    Raises:
        BundleError: the file is damaged, or has become shorter.
    """
    import torch

    tensors = {}
    with open_file(path, BundleError) as file:
        file.seek(header.start)
        for name, entry in header.tensors.items():
            tensor = torch.empty(entry.shape, dtype=torch_type(entry), device="cpu")
            crc = _seed(name, entry.dtype, entry.shape)
            if tensor.numel():
                into = tensor.reshape(-1).view(torch.uint8).numpy().data
                for at in range(0, len(into), _PIECE):
                    piece = into[at : at + _PIECE]
                    _fill(file, piece, path)
                    if header.checksums is not None:
                        crc = zlib.crc32(piece, crc)
            _require_equal(path, header, name, crc)
            tensors[name] = tensor
    return tensors


def examine(path: Path, header: Header) -> tuple[str, int]:
    """Read the values of a file without keeping them; needs no torch.

    Returns:
        SHA-256 over names, types, shapes and values in the order of names; and the number of values that are
        NaN or infinite.

    Raises:
        BundleError: the file is damaged, or has become shorter.
    """
    digest, nonfinite = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_PIECE))
    with open_file(path, BundleError) as file:
        for name in sorted(header.tensors):
            entry = header.tensors[name]
            digest.update(f"{name} {entry.dtype} {list(entry.shape)}\n".encode())
            crc = _seed(name, entry.dtype, entry.shape)
            file.seek(header.start + entry.first)
            for at in range(entry.first, entry.last, _PIECE):
                piece = buffer[: min(_PIECE, entry.last - at)]
                _fill(file, piece, path)
                digest.update(piece)
                crc = zlib.crc32(piece, crc)
                if entry.dtype in _EXPONENTS:
                    kind, mask = _EXPONENTS[entry.dtype]
                    bits = np.frombuffer(piece, kind)
                    nonfinite += int(np.count_nonzero((bits & np.array(mask, kind)) == mask))
            _require_equal(path, header, name, crc)
    return digest.hexdigest(), nonfinite


def with_metadata(path: Path, header: Header, changed: Mapping[str, str]) -> Iterator[bytes]:
    """The content of a file with other metadata; the bytes of its tensors and their checksums stay."""
    metadata = {**header.metadata, **changed}
    if header.checksums is not None:
        metadata = with_checksums(metadata, header.checksums)
    yield header_bytes(header.table, metadata)
    with open_file(path, BundleError) as file:
        file.seek(header.start)
        while piece := file.read(1 << 20):
            yield piece


def _parsed(text: bytes) -> tuple[dict[str, str], dict[str, Entry]]:
    """Metadata and tensors of a header; raises ValueError if it is damaged."""
    values = strict_json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    metadata = values.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise ValueError(f"{_METADATA} must be an object of texts")
    tensors = {name: _entry(name, value) for name, value in values.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].first, item[1].last)))
    end = 0
    for name, entry in ordered.items():
        if entry.first != end:
            raise ValueError(f"the bytes of {name!r} do not follow those of the tensor before it")
        end = entry.last
    return metadata, ordered


def _entry(name: str, value: Any) -> Entry:
    """A row of the table of tensors; raises ValueError if it is damaged."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(f"{name!r} has an unknown dtype, {str(dtype)[:40]!r}")
    if not all(isinstance(sizes, list) for sizes in (shape, offsets)) or len(offsets) != 2:
        raise ValueError(f"{name!r} needs a list of sizes and two offsets")
    if not all(type(size) is int and 0 <= size < 2**63 for size in (*shape, *offsets)):
        raise ValueError(f"{name!r} has a size or an offset that is no whole number")
    if len(shape) > _MAX_AXES or math.prod(shape) * _TYPES[dtype][0] != offsets[1] - offsets[0]:
        raise ValueError(f"{name!r} has {offsets[1] - offsets[0]:,} bytes for a {dtype} of {shape[:8]}")
    return Entry(dtype, tuple(shape), *offsets)


def _checksums(metadata: Mapping[str, str], tensors: Mapping[str, Entry]) -> dict[str, int] | None:
    """The checksums in the metadata, after comparing that of the metadata; raises ValueError."""
    if CHECKSUMS not in metadata:
        return None
    damaged = ValueError("its checksums are damaged")
    try:
        found = {name: int(crc, 16) for name, crc in strict_json.loads(metadata[CHECKSUMS]).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged from error
    if found.keys() != {"", *tensors}:
        raise damaged
    if found.pop("") != _crc_of({name: text for name, text in metadata.items() if name != CHECKSUMS}):
        raise ValueError("the checksum of its description does not match")
    return found


def _crc_of(metadata: Mapping[str, str]) -> int:
    return zlib.crc32(strict_json.dumps(sorted(metadata.items())).encode())


def _seed(name: str, dtype: str, shape: Any) -> int:
    """The checksum of what the header says about a tensor, with which that of its values begins."""
    return zlib.crc32(f"{name} {dtype} {list(shape)}\n".encode("utf-8", "surrogatepass"))


def _require_equal(path: Path, header: Header, name: str, crc: int) -> None:
    if header.checksums is not None and header.checksums[name] != crc:
        raise BundleError(
            f"{str(path)!r} is damaged", f"the checksum of {name} does not match its values", DAMAGED
        )


def _fill(file: BinaryIO, piece: memoryview, path: Path) -> None:
    """Read until a piece is full."""
    while len(piece):
        try:
            count = file.readinto(piece)  # type: ignore[attr-defined]  # a BufferedReader
        except OSError as error:
            raise access_error(error, f"cannot read {str(path)!r}", kind=BundleError) from error
        if not count:
            raise BundleError(f"{str(path)!r} is damaged", "it became shorter while it was read", DAMAGED)
        piece = piece[count:]


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
