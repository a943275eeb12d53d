"""What is known of torch's operators besides what they do to sight: which are steps, what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from striate.anatomy import rules, shapes
from striate.anatomy.costs import COSTS
from striate.anatomy.rules import layout, values, windows
from striate.anatomy.rules.call import Rule, per_axis

Overload = torch._ops.OpOverload

# These neither compute nor move anything that a reader of a table would call a step.
SILENT = {
    "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "copy", "detach", "empty",
    "empty_like", "expand", "fill", "full_like", "lift_fresh", "new_empty", "new_ones", "new_zeros",
    "ones_like", "permute", "reshape", "select", "split", "split_with_sizes", "squeeze", "t", "transpose",
    "unbind", "unsafe_split", "unsafe_split_with_sizes", "unsqueeze", "view", "zero", "zeros_like",
}  # fmt: skip
SPATIAL = {"slice"}  # a step only where it takes pixels away


class Operator(NamedTuple):
    """What is known of an operator, looked up once."""

    name: str
    rule: Rule | None
    cost: Callable[[dict[str, Any], Sequence[int]], int] | None
    formula: Callable[[Sequence[Any]], list[shapes.Shape] | None] | None
    names: tuple[str, ...]
    places: tuple[int, ...]
    defaults: dict[str, Any]
    mutates: bool
    view: bool
    pointwise: bool
    same_size: bool

    @classmethod
    def of(cls, func: Overload) -> Operator:
        """Look it up."""
        packet = func.overloadpacket.__name__
        schema = func._schema
        mutates = (packet.endswith("_") and schema.is_mutable) or func._overloadname.endswith("out")
        name = packet.removesuffix("_") if mutates else packet
        rule = rules.find(func)
        return cls(
            name,
            rule,
            COSTS.get(name),
            shapes.FORMULAS.get(f"{packet}.{func._overloadname}"),
            tuple(argument.name for argument in schema.arguments),
            tuple(place for place, a in enumerate(schema.arguments) if "Tensor" in str(a.type)),
            {a.name: a.default_value for a in schema.arguments if a.has_default_value()},
            mutates,
            func.is_view,
            rule is values.elementwise,
            rule is values.elementwise or rule in SAME_SIZE,
        )

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by their names, defaults included."""
        bound = dict(zip(self.names, args, strict=False))
        for name in self.names[len(args) :]:
            if name in kwargs:
                bound[name] = kwargs[name]
            elif name in self.defaults:
                bound[name] = self.defaults[name]
        return bound

    def tensors(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
        """All tensors among the arguments, those in lists, too."""
        found: list[Tensor] = []
        count = len(args)
        for place in self.places:
            if place < count:
                value = args[place]
                if isinstance(value, Tensor):
                    found.append(value)
                elif isinstance(value, (list, tuple)):
                    found += [item for item in value if isinstance(item, Tensor)]
        if kwargs:
            found += tensors_in(kwargs.values())
        return found


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in a structure of lists, tuples, dicts and dataclass-like objects."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())
        elif value is not None and hasattr(value, "__dataclass_fields__"):
            yield from tensors_in(vars(value).values())


UNCHANGED: dict[str, Any] = {"kind": "same"}


def geometry_of(operator: Operator, bound: dict[str, Any], out: tuple[int, ...]) -> dict[str, Any]:
    """Kernel, stride, padding and the like, for the operators that have them; `UNCHANGED` for `same_size`."""
    if operator.rule is windows.window:
        kernel = list(bound["weight"].shape[2:]) if "weight" in bound else bound["kernel_size"]
        count = len(kernel)
        names = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
        geometry: dict[str, Any] = {"kernel": tuple(kernel)}
        for name, default in names.items():
            value = bound.get(name) or (kernel if name == "stride" else None)
            geometry[name] = tuple(per_axis(value, count, default))
        geometry["groups"] = bound.get("groups")
        geometry["transposed"] = bool(bound.get("transposed"))
        geometry["ceil"] = bool(bound.get("ceil_mode"))
        return {"kind": "window", **geometry}
    name = operator.name
    if "adaptive" in name:
        return {"kind": "fixed", "size": tuple(bound["output_size"])}
    if "upsample" in name:
        return {"kind": "scale", "before": tuple(bound["self"].shape[2:]), "after": out[2:]}
    if name == "slice":
        geometry = {key: bound[key] for key in ("start", "end", "step")}
        return {"kind": "slice", "axis": bound["dim"] % len(out) - 2, **geometry}
    if name.endswith(("_pad_nd", "_pad1d", "_pad2d", "_pad3d")):
        amounts = list(bound["pad"] if "pad" in bound else bound["padding"])
        amounts += [0] * (2 * len(out) - 4 - len(amounts))
        before, after = amounts[0 : 2 * len(out) - 4 : 2][::-1], amounts[1 : 2 * len(out) - 4 : 2][::-1]
        return {"kind": "pad", "before": tuple(before), "after": tuple(after)}
    if operator.rule is values.reduce and "keepdim" in bound:
        return {"kind": "fixed", "size": out[2:]} if len(out) > 2 else {"kind": "flat"}
    return {"kind": "product" if operator.cost else "other"}


SAME_SIZE = {
    values.batch_norm,
    values.group_norm,
    values.layer_norm,
    values.same,
    layout.cat,
    values.mix,
    values.glu,
}
