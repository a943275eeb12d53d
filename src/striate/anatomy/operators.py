"""Facts about torch's operators: receptive-field rule, MACs, and whether they are rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from striate.anatomy import costs, rules
from striate.anatomy.rules import layout, values, windows
from striate.anatomy.rules.call import Rule

Overload = torch._ops.OpOverload
Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Cost = Callable[[dict[str, Any], Sequence[int]], int]

# Views, copies and factories, which are not rows of the table.
NOT_STEPS = {
    "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "as_strided", "clone", "contiguous", "copy",
    "detach", "empty", "empty_like", "expand", "fill", "full_like", "lift_fresh", "new_empty",
    "new_ones", "new_zeros", "ones_like", "permute", "reshape", "select", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unsafe_split", "unsafe_split_with_sizes", "unsqueeze",
    "view", "zero", "zeros_like",
}  # fmt: skip
CONVOLUTIONS = {"convolution", "convolution_overrideable"}
COSTS: dict[Rule | None, Cost] = {values.matmul: costs.matrix_product, values.attention: costs.attention}
# Operators that keep the size of the feature map, in addition to elementwise ones.
SAME_SIZE = {
    values.batch_norm, values.group_norm, values.layer_norm, values.unchanged, values.mix, values.glu,
    layout.cat,
}  # fmt: skip


class Operator(NamedTuple):
    """The facts about one operator overload, looked up once.

    Attributes:
        name: without the overload and without the underscore of the in-place form.
        rule: how it changes receptive fields; None if unknown.
        cost: its MACs, from the bound arguments and the shape of the result; None if it has none.
        arg_names: names of the arguments, in order.
        tensor_positions: positions of the arguments that are tensors or lists of tensors.
        defaults: default values by argument name.
        mutates: whether it writes into its first argument or into `out`.
        view: whether the result shares memory with the argument.
        pointwise: whether it is elementwise.
        same_size: whether it keeps the size of the feature map.
    """

    name: str
    rule: Rule | None
    cost: Cost | None
    arg_names: tuple[str, ...]
    tensor_positions: tuple[int, ...]
    defaults: dict[str, Any]
    mutates: bool
    view: bool
    pointwise: bool
    same_size: bool

    @classmethod
    def of(cls, func: Overload) -> Operator:
        """Collect the facts about an overload."""
        packet = func.overloadpacket.__name__
        schema = func._schema
        mutates = (packet.endswith("_") and schema.is_mutable) or func._overloadname.endswith("out")
        name = packet.removesuffix("_") if mutates else packet
        rule = rules.find(func)
        return cls(
            name, rule, costs.convolution if name in CONVOLUTIONS else COSTS.get(rule),
            tuple(argument.name for argument in schema.arguments),
            tuple(i for i, argument in enumerate(schema.arguments) if "Tensor" in str(argument.type)),
            {a.name: a.default_value for a in schema.arguments if a.has_default_value()},
            mutates, func.is_view, rule is values.elementwise,
            rule is values.elementwise or rule in SAME_SIZE,
        )  # fmt: skip

    def bind(self, args: Args, kwargs: Kwargs) -> dict[str, Any]:
        """The arguments by name, defaults included."""
        bound = dict(zip(self.arg_names, args, strict=False))
        for name in self.arg_names[len(args) :]:
            if name in kwargs:
                bound[name] = kwargs[name]
            elif name in self.defaults:
                bound[name] = self.defaults[name]
        return bound

    def tensors(self, args: Args, kwargs: Kwargs) -> list[Tensor]:
        """All tensors among the arguments, including those in lists."""
        found: list[Tensor] = []
        count = len(args)
        for position in self.tensor_positions:
            if position < count:
                value = args[position]
                if isinstance(value, Tensor):
                    found.append(value)
                elif isinstance(value, (list, tuple)):
                    found += [item for item in value if isinstance(item, Tensor)]
        if kwargs:
            found += tensors_in(kwargs.values())
        return found


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples, dicts and dataclasses."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())
        elif value is not None and hasattr(value, "__dataclass_fields__"):
            yield from tensors_in(vars(value).values())


def geometry_of(operator: Operator, bound: dict[str, Any], out: tuple[int, ...]) -> dict[str, Any]:
    """How the size of the result follows from that of the input, as in `Layer.geometry`.

    Args:
        operator: an operator that does not keep the size.
        bound: its arguments by name.
        out: shape of its result.
    """
    name = operator.name
    if operator.rule is windows.window:
        flags = {"transposed": bool(bound.get("transposed")), "ceil": bool(bound.get("ceil_mode"))}
        return {
            "kind": "window",
            **windows.parameters(bound, len(out)),
            "groups": bound.get("groups"),
            **flags,
        }
    if "adaptive" in name:
        return {"kind": "fixed", "size": tuple(bound["output_size"])}
    if "upsample" in name:
        return {"kind": "scale", "before": tuple(bound["self"].shape[2:]), "after": out[2:]}
    if name == "slice":
        part = {key: bound[key] for key in ("start", "end", "step")}
        return {"kind": "slice", "axis": bound["dim"] % len(out) - 2, **part}
    if operator.rule is windows.pad:
        axes = len(out) - 2
        amounts = [*(bound["pad"] if "pad" in bound else bound["padding"]), *[0] * (2 * axes)][: 2 * axes]
        return {"kind": "pad", "before": tuple(amounts[-2::-2]), "after": tuple(amounts[::-2])}
    if operator.rule is values.reduce and "keepdim" in bound:
        return {"kind": "fixed", "size": out[2:]} if len(out) > 2 else {"kind": "flat"}
    return {"kind": "product" if operator.cost else "other"}
