"""Read the arrays of an `.npz` file; none may be larger than its header and the file allow.

Format: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays", versions 1.0 and 2.0.
"""

from __future__ import annotations

import math
import os
import sys
import tokenize
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from striate import memory
from striate.reading import DEFLATE_RATIO, check_ratio, damage_errors, open_file

_CHUNK = 1 << 24  # bytes that are decompressed at once
_LONGEST_AXIS = 1 << 40


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an `.npz` file.

    Args:
        path: of the file, as `numpy.savez` and `numpy.savez_compressed` write it.

    Returns:
        The arrays by name.

    Raises:
        DataError: the file is damaged or encrypted, or holds Python objects.
        ResourceError: its arrays do not fit into memory.
    """
    what = f"cannot read {str(path)!r}"
    with damage_errors(what, "Write it with numpy.savez"), open_file(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        with zipfile.ZipFile(raw) as file:
            infos = [info for info in file.infolist() if info.filename.endswith(".npy")]
            for info in infos:
                _check_member(info)
            total = sum(info.file_size for info in infos)
            check_ratio(total, size)
            memory.require(total, f"the arrays of {str(path)!r}", "Use fewer images, or a folder of files")
            found = {}
            for info in infos:
                with file.open(info) as member:
                    name = info.filename.removesuffix(".npy")
                    found[name] = _read_array(member, name, info.file_size)
    return found


def _check_member(info: zipfile.ZipInfo) -> None:
    """Refuse a member that NumPy does not write, or whose stated size is impossible; raises ValueError."""
    if info.flag_bits & 1:
        raise ValueError("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename!r} is compressed by method {info.compress_type}, not by DEFLATE")
    ratio = DEFLATE_RATIO if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.file_size > ratio * info.compress_size:
        stated = f"{info.file_size:,} bytes from {info.compress_size:,}"
        raise ValueError(f"{info.filename!r} cannot contain {stated}")


def _read_array(member: IO[bytes], name: str, size: int) -> npt.NDArray[Any]:
    """Read an array from a file of so many bytes; raises ValueError if its header states another size."""
    version = np.lib.format.read_magic(member)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(
            f"array {name!r} has version {version[0]}.{version[1]} of the format, not 1.0 or 2.0"
        )
    try:
        shape, is_fortran, dtype = readers[version](member)
    except tokenize.TokenError as error:  # NumPy lets Python parse the header
        raise ValueError(f"array {name!r} has a damaged header") from error
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds Python objects (allow_pickle), which could run code")
    if any(not 0 <= axis <= _LONGEST_AXIS for axis in shape):
        raise ValueError(f"array {name!r} has the shape {shape}")
    needed = math.prod(shape) * dtype.itemsize
    has = size - member.tell()
    if needed != has:
        raise ValueError(f"array {name!r} has {has:,} bytes, but its header states {needed:,}")
    if not needed:
        return np.empty(shape, dtype)
    buffer = memoryview(bytearray(needed))
    at = 0
    while at < needed and (part := member.read(min(_CHUNK, needed - at))):
        buffer[at : at + len(part)] = part
        at += len(part)
    if at < needed:
        raise EOFError(f"array {name!r} is truncated")
    array = np.frombuffer(buffer, dtype).reshape(shape, order="F" if is_fortran else "C")
    if dtype.kind == "U" and (np.frombuffer(buffer, dtype.byteorder + "u4") > sys.maxunicode).any():
        raise ValueError(f"array {name!r} has text that is not valid Unicode")
    return array
