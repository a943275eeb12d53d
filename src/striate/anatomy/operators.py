"""What is known of torch's operators besides what they do to sight: which are steps, what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from striate.anatomy import rules, shapes
from striate.anatomy.costs import COSTS

Overload = torch._ops.OpOverload

# These return numbers to Python, which a tensor without data has not.
READS_VALUES = {
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique2",
    "_unique2",
}
# Small results of these are computed for real, as code may go by their values: range(torch.arange(3)[-1]).
FACTORIES = {"arange", "zeros", "ones", "full", "linspace", "eye", "scalar_tensor", "lift_fresh"}
SMALL = 4096
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
    rule: rules.Rule | None
    cost: Callable[[dict[str, Any], Sequence[int]], int] | None
    formula: Callable[[Sequence[Any]], list[shapes.Shape] | None] | None
    names: tuple[str, ...]
    defaults: dict[str, Any]
    mutates: bool
    view: bool
    pointwise: bool

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
            {a.name: a.default_value for a in schema.arguments if a.has_default_value()},
            mutates,
            func.is_view,
            rule is rules.elementwise,
        )

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by their names, defaults included."""
        given = dict(zip(self.names, args, strict=False))
        return {
            name: given.get(name, kwargs.get(name, self.defaults.get(name)))
            for name in self.names
            if name in given or name in kwargs or name in self.defaults
        }


def geometry_of(operator: Operator, bound: dict[str, Any], out: tuple[int, ...]) -> dict[str, Any]:
    """Kernel, stride, padding and the like, for the operators that have them."""
    if operator.rule is rules.window:
        kernel = list(bound["weight"].shape[2:]) if "weight" in bound else bound["kernel_size"]
        count = len(kernel)
        names = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
        geometry: dict[str, Any] = {"kernel": tuple(kernel)}
        for name, default in names.items():
            value = bound.get(name) or (kernel if name == "stride" else None)
            geometry[name] = tuple(rules.per_axis(value, count, default))
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
    if operator.rule is rules.elementwise or operator.rule in SAME_SIZE:
        return {"kind": "same"}
    if operator.rule is rules.reduce and "keepdim" in bound:
        return {"kind": "fixed", "size": out[2:]} if len(out) > 2 else {"kind": "flat"}
    return {"kind": "product" if operator.cost else "other"}


SAME_SIZE = {
    rules.batch_norm,
    rules.group_norm,
    rules.layer_norm,
    rules.same,
    rules.cat,
    rules.mix,
    rules.glu,
}
