"""Record the operators that a network applies to images of any number, as steps for an ONNX graph.

The network runs twice on shapes without data, with two sizes of the batch. A size that differs between the
two runs is one that depends on the batch. What does not depend on the images is computed: it is a constant.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from striate.anatomy.operators import Operator
from striate.anatomy.shape_inference import ShapeInference, replace_tensors
from striate.errors import UsageError

BATCH = -1  # a size that depends on the number of images
_SIZES = (2, 3)  # of the batch in the two runs
_VARIES = object()  # an argument that depends on the number of images; no rule can read it

# Operators that change nothing in evaluation mode, in place or not.
NO_OPS = ("alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout")
_FACTORIES = {f"{kind}{name}" for kind in ("new_", "") for name in ("zeros", "ones", "full", "empty")}
_FACTORIES |= {f"{name}_like" for name in _FACTORIES}

Shape = tuple[int, ...]


class UnsupportedError(UsageError):
    """The network cannot be written operator by operator."""

    def __init__(self, why: str) -> None:
        super().__init__("cannot write the network as ONNX", why)


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the images: its number, and its shape, with `BATCH` for sizes that do."""

    number: int
    shape: Shape


IMAGES = Value(0, ())  # whatever its shape


@dataclass(frozen=True)
class Repeated:
    """A constant that is repeated for each image along an axis, where its own size is 1."""

    constant: Tensor
    axis: int


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        name: of torch's operator, without the underscore of its in-place form.
        arguments: by name, defaults included; tensors are `Value`s, or torch tensors or `Repeated` if they
            are constant.
        results: one or more.
    """

    name: str
    arguments: Mapping[str, Any]
    results: tuple[Value, ...]


def record(network: nn.Module, shape: Shape, known: Container[str] | None = None) -> tuple[list[Step], Value]:
    """The steps of a network in inference mode, and its result; the images are `IMAGES`.

    Args:
        network: in evaluation mode, on the CPU.
        shape: channels, height and width of an image.
        known: names of operators that the caller can write; others are recorded as the operators that they
            are made of, if torch defines them so. None for all of them.

    Raises:
        UnsupportedError: it is not a function of the images alone, or its steps depend on the batch.
    """
    first, second = (_Recorder(network, (size, *shape), known) for size in _SIZES)
    names = [[step.name for step in recorder.steps] for recorder in (first, second)]
    if names[0] != names[1]:
        raise UnsupportedError("its steps depend on the number of images")
    try:
        merged = [
            Step(
                step.name,
                tree_map(_merged, dict(step.arguments), dict(other.arguments)),
                tree_map(_merged, step.results, other.results),
            )
            for step, other in zip(first.steps, second.steps, strict=True)
        ]
    except ValueError as error:  # one has more tensors or axes than the other
        raise UnsupportedError("its steps depend on the number of images") from error
    return merged, _merged(first.result, second.result)


def _merged(one: Any, other: Any) -> Any:
    """What an argument or a result of a step is for any number of images."""
    if isinstance(one, Value):
        shape = tuple(a if a == b else BATCH for a, b in zip(one.shape, other.shape, strict=True))
        return Value(one.number, shape)
    if isinstance(one, Tensor) and one is not other:
        axes = [axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b]
        if len(axes) == 1 and one.numel():
            image = one.narrow(axes[0], 0, 1)
            if all(torch.equal(image.expand_as(whole), whole) for whole in (one, other)):
                return Repeated(image, axes[0])
        if axes or not torch.equal(one, other):
            raise UnsupportedError("a constant depends on the number of images")
    elif one is not other and one != other:
        return _VARIES
    return one


_operator = functools.cache(Operator.of)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of its class method
    """Runs a network on meta images. Constants stay on the CPU, so the device tells the two apart."""

    def __init__(self, network: nn.Module, shape: Shape, known: Container[str] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._known = known
        self._shapes = ShapeInference({})
        self._values: dict[int, Value] = {}  # of tensors by identity
        self._views: dict[int, list[Tensor]] = {}  # the tensors that share their memory, each by identity
        self._alive: list[Tensor] = []  # so that no identity is used twice
        with torch.inference_mode():
            images = torch.empty(shape, device="meta")
            self._values[id(images)] = Value(IMAGES.number, shape)
            with self:
                result = network(images)
        if not isinstance(result, Tensor) or id(result) not in self._values:
            raise UnsupportedError("its result is not one tensor that depends on the images")
        self.result = self._values[id(result)]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: otherwise torch imports its compiler only to exclude this class from it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute a constant, or record a step and infer its shape."""
        kwargs, operator = kwargs or {}, _operator(func)
        inputs = operator.tensors(args, kwargs)
        if not any(tensor.is_meta for tensor in inputs):
            if str(kwargs.get("device")) == "meta":  # a constant on the device of the images
                kwargs = {**kwargs, "device": "cpu"}
            return func(*args, **kwargs)
        if operator.name in _FACTORIES and operator.name != "empty":  # only the shape of a tensor is used
            args = (torch.empty(inputs[0].shape, dtype=inputs[0].dtype), *args[1:])
            return func(*args, **{**kwargs, **({"device": "cpu"} if "device" in kwargs else {})})
        if operator.name in NO_OPS and operator.mutates and not args[2]:
            return inputs[0]
        if self._known is not None and operator.name not in self._known and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        arguments = replace_tensors(operator.bind(args, kwargs), self._value)
        if operator.mutates and len(self._views.get(id(inputs[0]), ())) > 1:
            raise UnsupportedError(f"{operator.name} changes a tensor that has another view")
        result = self._shapes.run(func, operator, inputs, args, kwargs)
        outputs = [result] if isinstance(result, Tensor) else list(result)
        if operator.view:
            views = self._views.setdefault(id(inputs[0]), [inputs[0]])
            views += outputs
            self._views |= dict.fromkeys(map(id, outputs), views)
        self.steps.append(Step(operator.name, arguments, tuple(map(self._new_value, outputs))))
        return result

    def _value(self, tensor: Tensor) -> Value | Tensor:
        if not tensor.is_meta:
            return tensor
        if id(tensor) not in self._values:
            raise UnsupportedError("a step creates a tensor in a way that cannot be recorded")
        return self._values[id(tensor)]

    def _new_value(self, tensor: Tensor) -> Value:
        """Number a result, which can be a tensor that has just been changed in place."""
        self._alive.append(tensor)
        value = self._values[id(tensor)] = Value(len(self._alive), tuple(tensor.shape))
        return value
