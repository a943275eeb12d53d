"""Arrays as JSON values: their type, and their bytes in base64."""

from __future__ import annotations

import base64

from striate.charts import Array


def encoded(values: Array) -> dict[str, str]:
    """An array as its type, `f32` or such as `u16`, and its little-endian bytes in base64.

    Args:
        values: unsigned integers, or float32.
    """
    kind = values.dtype.newbyteorder("<")
    return {
        "type": f"{kind.kind}{8 * kind.itemsize}",
        "data": base64.b64encode(values.astype(kind).tobytes()).decode(),
    }
