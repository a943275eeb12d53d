"""The argument and result types of a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from striate.anatomy.propagation import Fields


@dataclass(slots=True)
class Call:
    """One call of an operator with at least one argument that depends on the image.

    Attributes:
        args: the arguments by their names in the operator's schema, defaults included.
        fields_of: receptive fields of a tensor; None if it does not depend on the image.
        out_shape: shape of the (first) result.
        image_size: one number for each image axis.
    """

    args: dict[str, Any]
    fields_of: Callable[[Any], Fields | None]
    out_shape: Sequence[int]
    image_size: Sequence[int]

    def first(self) -> tuple[Fields, Tensor]:
        """The first tensor argument and its receptive fields; most operators have only this one."""
        tensor = next(value for value in self.args.values() if isinstance(value, Tensor))
        return self.fields_of(tensor) or (), tensor

    def dim(self) -> int:
        """The argument `dim`, counted from the front."""
        value: int = self.args["dim"]
        return value % max(1, self.first()[1].ndim)

    def dims(self) -> list[int]:
        """The argument `dim` as a list, counted from the front; all dimensions if it is empty."""
        ndim = self.first()[1].ndim
        value = self.args.get("dim")
        if value is None or value == []:
            return list(range(ndim))
        return [d % max(1, ndim) for d in (value if isinstance(value, (list, tuple)) else [value])]


Rule = Callable[[Call], "Fields | list[Fields | None] | None"]


def per_axis(value: Any, count: int, default: int) -> list[int]:
    """Expand an argument that has one number for each spatial axis, one for all, or none."""
    values = [default] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        values = [default]
    return values * count if len(values) == 1 else values
