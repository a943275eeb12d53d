"""Image files byte by byte, of kinds that Pillow does not write: TIFF 6.0 and PNG, third edition."""

import struct
import zlib

import numpy as np

FLOATS = {16: "f2", 32: "f4", 64: "f8"}


def tiff(values, bits, *, photometric=1, sample_format=1, order="<", planar=1, extra=(), fill=1):
    """An uncompressed TIFF.

    `values` `[h, w]` or `[h, w, channels]`; `sample_format` 1 for unsigned, 2 for signed integers, 3 for
    floats; `order` "<" or ">"; `planar` 2 for separate planes; `extra` for ExtraSamples; `fill` 2 for bits
    from the right.
    """
    values = values if values.ndim == 3 else values[:, :, None]
    height, width, channels = values.shape
    planes = np.moveaxis(values, 2, 0) if planar == 2 else [values.reshape(height, -1)]
    strips = [_packed(plane, bits, sample_format, order) for plane in planes]
    if fill == 2:
        strips = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip) for strip in strips]
    offsets = (8 + np.cumsum([0, *map(len, strips[:-1])])).tolist()
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [1]),
        262: (3, [photometric]), 266: (3, [fill]), 273: (4, offsets), 277: (3, [channels]),
        278: (4, [height]), 279: (4, [len(strip) for strip in strips]), 284: (3, [planar]),
        **({338: (3, list(extra))} if extra else {}), 339: (3, [sample_format] * channels),
    }  # fmt: skip
    data = b"".join(strips)
    data += b"\0" * (len(data) % 2)
    place = 8 + len(data)
    entries, rest = struct.pack(order + "H", len(tags)), b""
    for tag, (kind, numbers) in tags.items():
        field = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], number) for number in numbers)
        if len(field) > 4:
            where = place + 2 + 12 * len(tags) + 4 + len(rest)
            rest, field = rest + field + b"\0" * (len(field) % 2), struct.pack(order + "I", where)
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + field.ljust(4, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, place)
    return header + data + entries + b"\0\0\0\0" + rest


def png(values, bits, *, color=0, key=None, palette=None, alphas=None):
    """A PNG. `values` `[h, w]` or `[h, w, channels]`; `color` is the color type; `key` is tRNS's."""
    values = values if values.ndim == 3 else values[:, :, None]
    height, width, _ = values.shape
    rows = b"".join(b"\0" + _packed(row.reshape(1, -1), bits, 1, ">") for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))]
    chunks += [(b"PLTE", np.asarray(palette, np.uint8).tobytes())] if palette is not None else []
    chunks += [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key is not None else []
    chunks += [(b"tRNS", bytes(alphas))] if alphas is not None else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _packed(plane, bits, sample_format, order):
    """Samples in rows that start at a byte, most significant bit first."""
    if sample_format == 3:
        return plane.astype(order + FLOATS[bits]).tobytes()
    if bits in (8, 16, 32):
        return plane.astype(f"{order}{'ui'[sample_format - 1]}{bits // 8}").tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    digits = (plane[:, :, None].astype(np.int64) >> shifts & 1).reshape(len(plane), -1)
    return np.packbits(digits.astype(np.uint8), axis=1).tobytes()
