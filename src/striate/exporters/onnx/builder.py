"""Collects the nodes and constants of an ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from striate.exporters.onnx.file import Array, Node
from striate.exporters.onnx.recorder import BATCH, IMAGES, Repeated, Shape, Step, UnsupportedError, Value

Arguments = Mapping[str, Any]


class Builder:
    """Collects nodes and constants.

    Args:
        steps: all of the network.
        names: of its parameters and buffers.

    Attributes:
        nodes: so far.
        constants: by name.
    """

    def __init__(self, steps: Sequence[Step], names: Mapping[str, Tensor]) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self._value_names: dict[int, str] = {}
        self._tensor_names = {id(tensor): name for name, tensor in names.items()}
        self._count = 0  # of constants so far
        self._batch = ""  # the name of the number of images, once it is needed
        self._uses = Counter(map(_key, (item for step in steps for item in _flat(step.arguments.values()))))
        self._shared = {name for name, tensor in names.items() if self._uses[id(tensor)] > 1}

    def name(self, item: Value | Repeated | Tensor | float) -> str:
        """The name of a value, or of a constant, which is added if it is new."""
        if isinstance(item, Value):
            return self._value_names[item.number]
        if isinstance(item, Repeated):
            return self._repeated(item)
        if isinstance(item, Tensor):
            array = item.detach().cpu().float().numpy()  # ONNX, unlike torch, mixes no types
            return self.constant(array, self._tensor_names.get(id(item), ""))
        return self.constant(np.array(item, np.float32))

    def constant(self, array: Array, name: str = "") -> str:
        """Add a constant; returns its name."""
        self._count += 1
        name = name or f"constant_{self._count}"
        self.constants[name] = array
        return name

    def add(self, op: str, *inputs: Value | Tensor | float | str, **attributes: Any) -> str:
        """Append a node with one result; returns the result's name."""
        names = tuple(item if isinstance(item, str) else self.name(item) for item in inputs)
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(Node(op, names, (name,), attributes))
        return name

    def batch(self) -> str:
        """The name of the number of images, int64 `[1]`."""
        if not self._batch:
            self._batch = self.add("Shape", IMAGES, start=0, end=1)
        return self._batch

    def _repeated(self, item: Repeated) -> str:
        ones = [self.constant(np.ones(1, np.int64)), self.batch()]
        sizes = [ones[axis == item.axis] for axis in range(item.constant.ndim)]
        return self.add("Expand", item.constant, self.add("Concat", *sizes, axis=0))

    def set(self, value: Value, name: str) -> None:
        """Say which name a result of a step has."""
        self._value_names[value.number] = name

    def finish(self, result: Value | str, name: str) -> None:
        """Give a result of the network its name."""
        before = result if isinstance(result, str) else self.name(result)
        self.nodes.append(Node("Identity", (before,), (name,)))

    def reshape(self, x: Value | str, shape: Shape) -> str:
        """Append a Reshape; at most one size may depend on the batch."""
        if shape.count(BATCH) > 1:
            raise UnsupportedError("two sizes of a reshape depend on the number of images")
        return self.add("Reshape", x, self.constant(np.array(shape, np.int64)))

    def take_padding(self, x: Value) -> tuple[str, list[int]]:
        """Take back the zeros around `x`, if nothing else reads it, for a convolution that adds them itself.

        Returns:
            The name of what the convolution reads, and the zeros to add before and after it: first those
            before each axis of the image, then those after.
        """
        node = self.nodes[-1] if self.nodes else None
        name = self.name(x)
        none = [0] * (2 * len(x.shape) - 4)
        if node is None or node.op != "Pad" or name != node.outputs[0] or self._uses[_key(x)] > 1:
            return name, none
        amounts, value = (self.constants[constant] for constant in node.inputs[1:])
        before, after = np.split(amounts, 2)
        if value != 0 or amounts.min() < 0 or before[:2].any() or after[:2].any():
            return name, none
        self.nodes.pop()
        for constant in node.inputs[1:]:
            del self.constants[constant]
        return node.inputs[0], [*before[2:].tolist(), *after[2:].tolist()]

    def fold_into_convolution(self, x: Value, scale: Array, shift: Array) -> bool:
        """Let the convolution that computes `x`, and nothing else, scale and shift each channel.

        BatchNorm in evaluation mode is such a step (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
        """
        node = self.nodes[-1] if self.nodes else None
        if node is None or node.op != "Conv" or self.name(x) != node.outputs[0]:
            return False
        if self._uses[_key(x)] > 1 or not self._shared.isdisjoint(node.inputs):
            return False
        weight = self.constants.pop(node.inputs[1]).astype(np.float64)
        bias = self.constants.pop(node.inputs[2]).astype(np.float64) if len(node.inputs) > 2 else 0.0
        weight *= scale.reshape(-1, *[1] * (weight.ndim - 1))
        self.constants[node.inputs[1]] = weight.astype(np.float32)
        folded = self.constant((bias * scale + shift).astype(np.float32), f"{node.outputs[0]}_bias")
        self.nodes[-1] = Node(node.op, (*node.inputs[:2], folded), node.outputs, node.attributes)
        return True


# Appends the nodes of one step; the arguments of torch's operator are by name.
Rule = Callable[[Builder, Step, Arguments], None]


def ints(value: Any, count: int) -> list[int]:
    """One number per axis; torch repeats a single one."""
    numbers = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return numbers * count if len(numbers) == 1 else numbers


def _key(item: Any) -> Any:
    """What tells arguments apart: the number of a value, the identity of a tensor."""
    return item.number if isinstance(item, Value) else id(item)


def _flat(values: Any) -> list[Any]:
    return [x for value in values for x in (_flat(value) if isinstance(value, (list, tuple)) else [value])]
