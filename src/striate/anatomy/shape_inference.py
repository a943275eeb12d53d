"""Shape inference: run an operator on meta tensors, which have a shape and a type but no data.

Torch's meta kernels give the shapes. Many of them are slow (batch norm 0.9 ms, hardswish 1.5 ms, convolution
0.07 ms), and the first one imports sympy or torch's compiler (0.4 to 1.3 s). So results are cached by the
shapes, strides and types of the arguments, and the usual operators of our networks skip their kernel.

Alternatives, in CPU seconds for resnet152 (`benchmarks/bench_anatomy.py`, results of 2026-11-27): a trace
takes 0.041, torchinfo 0.212. A bare forward pass takes 0.166 with meta kernels alone and 0.083 under
FakeTensorMode, which also caches shapes, so a trace based on either would exceed the benchmark's limit of 0.2
of torchinfo's time.

Small tensors that do not depend on the input, such as `torch.arange(3)`, are also computed for real, because
the network's code may read their values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from striate.anatomy.operators import Args, Kwargs, Operator, Overload, tensors_in
from striate.anatomy.shapes import SHAPES, broadcast, pool
from striate.errors import UsageError

META = torch.device("meta")
# These return values of a tensor to Python.
READS_VALUES = {
    "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique2", "_unique2",
}  # fmt: skip
FACTORIES = {"arange", "zeros", "ones", "full", "linspace", "eye", "scalar_tensor", "lift_fresh"}
UNARY = {
    "relu", "hardswish", "gelu", "silu", "sigmoid", "hardsigmoid", "tanh", "hardtanh", "leaky_relu", "elu",
}  # fmt: skip
MAX_CACHE = 10_000  # results
MAX_CONSTANT = 4096  # elements of a tensor that is also computed for real


class ShapeInference:
    """Runs operators on meta tensors, which stand in for the tensors of the user's module.

    Args:
        parameters: the network's parameters by id; a meta copy of a parameter is added under its own id.
    """

    # Shape, strides and type of each result. Shared by all traces: networks repeat each other's shapes.
    cache: dict[Any, list[tuple[Any, Any, torch.dtype]]] = {}  # noqa: RUF012  (shared on purpose)

    def __init__(self, parameters: dict[int, Tensor]) -> None:
        self.parameters = parameters
        self.meta_copies: dict[int, Tensor] = {}
        self.constants: dict[int, Tensor] = {}  # values of tensors that do not depend on the input
        self.keep_alive: list[Tensor] = []  # so that Python does not reuse their ids
        self.empty = torch.empty(0, device=META)

    def meta_copy(self, tensor: Tensor) -> Tensor:
        """A meta tensor with the layout and type of this one; the same one for each call."""
        if tensor.is_meta:
            return tensor
        copy = self.meta_copies.get(id(tensor))
        if copy is None:
            copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            self.meta_copies[id(tensor)] = copy
            self.keep_alive += [tensor, copy]
            if id(tensor) in self.parameters:
                self.parameters[id(copy)] = tensor
        return copy

    def run(
        self, func: Overload, operator: Operator, tensors: list[Tensor], args: Args, kwargs: Kwargs
    ) -> Any:
        """The result of an operator, as meta tensors.

        Args:
            func: the operator.
            operator: the facts about it.
            tensors: all tensors among the arguments.
            args: positional arguments.
            kwargs: keyword arguments.

        Raises:
            UsageError: the operator reads the values of a tensor that depends on the input.
        """
        is_constant = not tensors or (bool(self.constants) and all(id(t) in self.constants for t in tensors))
        if is_constant or operator.name == "lift_fresh":
            value = self._constant(func, operator, tensors, args, kwargs)
            if isinstance(value, Tensor):
                result = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
                self.constants[id(result)] = value
                self.keep_alive.append(result)
                return result
            if value is not None and not list(tensors_in((value,))):
                return value
        if operator.name in READS_VALUES:
            raise UsageError(
                f"the network reads values of its tensors ({operator.name})",
                "the anatomy runs on shapes without data, so a branch on a value cannot be decided",
                "Trace a module whose forward pass does not depend on values",
            )
        if any(not tensor.is_meta for tensor in tensors):
            args, kwargs = replace_tensors((args, kwargs), self.meta_copy)
        if "device" in kwargs or (operator.name in FACTORIES and "device" in operator.arg_names):
            kwargs = {**kwargs, "device": META}
        if operator.mutates and operator.pointwise and args and "out" not in kwargs:
            return args[0]
        if operator.mutates or not tensors:
            return func(*args, **kwargs)
        result = self._without_kernel(operator, tensors, args, kwargs)
        return self._cached(func, args, kwargs) if result is None else result

    def _without_kernel(self, operator: Operator, tensors: list[Tensor], args: Args, kwargs: Kwargs) -> Any:
        """The result of an operator with a shape that is easily computed; None if the kernel has to run.

        The kernels of those in `SHAPES` first import torch's compiler or sympy: up to 3 s.
        """
        x = tensors[0]
        if SHAPES.get(operator.name) is broadcast and len(tensors) == 1 and x.dtype == torch.float32:
            strides = _elementwise_strides(x)  # with a number
            return None if strides is None else torch.empty_strided(x.shape, strides, device=META)
        if (shape_of := SHAPES.get(operator.name)) is not None:
            is_usual = all(t.dtype == torch.float32 and _leads_to_contiguous(operator, t) for t in tensors)
            shape = shape_of(operator.bind(args, kwargs)) if is_usual else None
            if shape == x.shape and operator.name == "scaled_dot_product_attention":
                return torch.empty_like(x)  # in the layout of the queries
            return None if shape is None else torch.empty(shape, device=META)
        same = operator.name in UNARY or (operator.name == "_safe_softmax" and len(args) == 2 and not kwargs)
        if same and x.is_floating_point() and x.is_contiguous():
            return torch.empty(x.shape, dtype=x.dtype, device=META)
        if operator.name == "roll":  # its kernel first imports torch's compiler: 4 s
            return torch.empty(x.shape, dtype=x.dtype, device=META)
        if operator.name == "native_batch_norm" and not args[5] and args[3] is not None:
            channels = x.shape[1:2]
            if x.is_floating_point() and x.is_contiguous() and all(t.shape == channels for t in tensors[1:]):
                return torch.empty(x.shape, dtype=x.dtype, device=META), self.empty, self.empty
        if operator.name == "max_pool2d_with_indices" and x.dtype == torch.float32 and x.is_contiguous():
            shape = pool(operator.bind(args, kwargs))
            types = (torch.float32, torch.int64)
            return None if shape is None else tuple(torch.empty(shape, dtype=t, device=META) for t in types)
        if operator.name == "native_layer_norm" and x.dtype == torch.float32 and x.is_contiguous():
            axes = tuple(args[1])
            if tuple(x.shape[-len(axes) :]) == axes and all(tuple(t.shape) == axes for t in tensors[1:]):
                moments = (*x.shape[: -len(axes)], *(1 for _ in axes))
                return tuple(torch.empty(shape, device=META) for shape in (x.shape, moments, moments))
        return None

    def _cached(self, func: Overload, args: Args, kwargs: Kwargs) -> Any:
        """The result of the meta kernel, from the cache if it has run on such arguments before."""
        key = (func, torch.get_default_dtype(), _key(args), _key(tuple(kwargs.items())) if kwargs else None)
        try:
            known = self.cache.get(key)
        except TypeError:  # an unhashable argument
            return func(*args, **kwargs)
        if known is not None:
            made = [torch.empty_strided(*layout, dtype=dtype, device=META) for *layout, dtype in known]
            return made[0] if len(made) == 1 else tuple(made)
        result = func(*args, **kwargs)
        outputs = [result] if isinstance(result, Tensor) else result
        if isinstance(result, (Tensor, tuple)) and all(isinstance(item, Tensor) for item in outputs):
            if len(self.cache) >= MAX_CACHE:
                self.cache.clear()
            self.cache[key] = [(item.shape, item.stride(), item.dtype) for item in outputs]
        return result

    def _constant(
        self, func: Overload, operator: Operator, tensors: list[Tensor], args: Args, kwargs: Kwargs
    ) -> Any:
        """The value of a small result computed from factory functions; None for other operators."""
        if operator.mutates or not (tensors or operator.name in FACTORIES):
            return None
        args, kwargs = replace_tensors((args, kwargs), lambda x: self.constants.get(id(x), x))
        sized = tensors[0] if tensors else func(*args, **{**kwargs, "device": META})
        if sized.numel() > MAX_CONSTANT:
            return None
        if "device" in operator.arg_names:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return func(*args, **kwargs)


def _elementwise_strides(tensor: Tensor) -> list[int] | None:
    """The strides of an elementwise result: dense, the axes in the same order; None if values are shared."""
    axes = sorted((step, axis) for axis, step in enumerate(tensor.stride()) if tensor.shape[axis] != 1)
    strides, size = [1] * tensor.ndim, 1
    for step, axis in axes:
        if step == 0:
            return None
        strides[axis] = size
        size *= tensor.shape[axis]
    return strides


def _leads_to_contiguous(operator: Operator, tensor: Tensor) -> bool:
    """Whether this argument does not give the result another layout than the usual one."""
    if operator.name in ("addmm", "bmm", "linear", "scaled_dot_product_attention"):
        return True
    is_copied = operator.name == "cat" and tensor.ndim < 4  # there is no channels-last layout
    return is_copied or tensor.ndim == 0 or tensor.is_contiguous()


def replace_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Apply a function to each tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)([replace_tensors(item, function) for item in value])
    if isinstance(value, dict):
        return {key: replace_tensors(item, function) for key, item in value.items()}
    return value


def _key(value: Any) -> Any:
    """A hashable value that is equal for arguments that lead to the same shapes."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(value) if value and type(value[0]) is int else tuple(map(_key, value))
    return (type(value), value)  # 1, 1.0 and True are equal but lead to different types
