"""Arguments of transforms: types of sizes and ranges, and their checks."""

from __future__ import annotations

from striate.errors import UsageError

Size = int | tuple[int, int]  # one number for a square, or height and width
Sides = tuple[int, int]  # height and width, in pixels
Range = float | tuple[float, float]  # one number, or (min, max)


def check_size(size: Size | list[int], name: str) -> Sides:
    """Return height and width of a size; one number is a square. Raises UsageError."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise UsageError(f"{name}(size={size!r})", "it must be one or two positive integers")
    return pair[0], pair[1]


def check_range(name: str, value: float | tuple[float, ...], low: float, high: float) -> tuple[float, float]:
    """Return a range within [low, high]; one number is both ends. Raises UsageError."""
    pair = (value, value) if isinstance(value, (int, float)) else tuple(value)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise UsageError(f"{name} = {value!r}", f"it must be an increasing pair within {low:g} to {high:g}")
    return float(pair[0]), float(pair[1])


def range_around(
    name: str, value: float | tuple[float, ...], center: float, low: float, high: float
) -> tuple[float, float]:
    """Return a range within [low, high]; one number v is `center - v` to `center + v`. Raises UsageError."""
    if not isinstance(value, (int, float)):
        return check_range(name, value, low, high)
    if value < 0:
        why = f"one number v means a range of {center:g} - v to {center:g} + v, so it must be at least 0"
        raise UsageError(f"{name} = {value!r}", why)
    return check_range(name, (max(low, center - value), center + value), low, high)
