"""Writes TIFF files of any number of bands, for tests."""

import struct

import numpy as np


def write_tiff(values, order="<", planar=1, tile=None, rows=None, big=False, sample_format=1):
    """A TIFF file without compression, as the specification says (TIFF 6.0, sections 2, 8 and 15)."""
    height, width, bands = values.shape
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = [stored] if planar == 1 else [stored[..., band : band + 1] for band in range(bands)]
    step_y, step_x = tile or (rows or height, width)
    chunks = []
    for plane in planes:
        for top in range(0, height, step_y):
            for left in range(0, width, step_x):
                part = plane[top : top + step_y, left : left + step_x]
                if tile:
                    part = np.pad(part, [(0, step_y - part.shape[0]), (0, step_x - part.shape[1]), (0, 0)])
                chunks.append(part.tobytes())
    bits = (8 * values.dtype.itemsize,) * bands
    head = 16 if big else 8
    starts = tuple(head + sum(map(len, chunks[:i])) for i in range(len(chunks)))
    tags = {
        256: (3, (width,)), 257: (3, (height,)), 258: (3, bits), 259: (3, (1,)), 262: (3, (1,)),
        277: (3, (bands,)), 284: (3, (planar,)), 339: (3, (sample_format,) * bands),
    }  # fmt: skip
    places, lengths = (4, starts), (4, tuple(map(len, chunks)))
    tags |= (
        {322: (3, (step_x,)), 323: (3, (step_y,)), 324: places, 325: lengths}
        if tile
        else {273: places, 278: (3, (step_y,)), 279: lengths}
    )
    body = b"".join(chunks)
    directory = head + len(body)
    number, entry, inline = ("Q", 20, 8) if big else ("I", 12, 4)
    after = directory + (8 if big else 2) + entry * len(tags) + inline
    out, extra = struct.pack(order + ("Q" if big else "H"), len(tags)), b""
    for tag, (kind, content) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(content)}{'H' if kind == 3 else 'I'}", *content)
        if len(packed) > inline:
            place = struct.pack(order + number, after + len(extra))
            extra += packed
        else:
            place = packed.ljust(inline, b"\0")
        out += struct.pack(order + "HH" + number, tag, kind, len(content)) + place
    mark = b"II" if order == "<" else b"MM"
    magic = (
        struct.pack(order + "HHHQ", 43, 8, 0, directory) if big else struct.pack(order + "HI", 42, directory)
    )
    return mark + magic + body + out + b"\0" * inline + extra
