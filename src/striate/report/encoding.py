"""Arrays as JSON values: their type, and their bytes in base64."""

from __future__ import annotations

import base64

from striate.charts import Array


def encoded(values: Array) -> dict[str, str]:
    """An array of unsigned integers as its type, such as `u16`, and its little-endian bytes in base64."""
    kind = values.dtype.newbyteorder("<")
    return {"type": f"u{8 * kind.itemsize}", "data": base64.b64encode(values.astype(kind).tobytes()).decode()}
