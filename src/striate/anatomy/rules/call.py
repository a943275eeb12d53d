"""What a rule is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from striate.anatomy.sight import Sight


@dataclass(slots=True)
class Call:
    """One call of an operator that sees the image.

    Attributes:
        args: the arguments by their names in the operator's schema, defaults included.
        see: what a tensor sees; None for one that does not depend on the image.
        out: shape of the (first) result.
        size: of the image, one number for each axis.
    """

    args: dict[str, Any]
    see: Callable[[Any], Sight | None]
    out: Sequence[int]
    size: Sequence[int]

    def main(self) -> tuple[Sight, Tensor]:
        """The first tensor argument, of which most operators have one, and what it sees."""
        tensor = next(value for value in self.args.values() if isinstance(value, Tensor))
        return self.see(tensor) or (), tensor

    def dim(self, name: str = "dim") -> int:
        """A dimension argument, counted from the front."""
        value: int = self.args[name]
        return value % max(1, self.main()[1].ndim)

    def dims(self) -> list[int]:
        """The argument `dim` as a list, counted from the front; all dimensions where it is empty."""
        ndim = self.main()[1].ndim
        value = self.args.get("dim")
        if value is None or value == []:
            return list(range(ndim))
        return [d % max(1, ndim) for d in (value if isinstance(value, (list, tuple)) else [value])]


Rule = Callable[[Call], "Sight | list[Sight | None] | None"]


def per_axis(value: Any, count: int, default: int) -> list[int]:
    """An argument that has one number for each spatial axis, one for all, or none."""
    values = [default] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        values = [default]
    return values * count if len(values) == 1 else values
