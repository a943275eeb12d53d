"""What an operator would give, without computing it: tensors of the right shape and type on the meta device.

Where no formula has the shape (`striate.anatomy.shapes`), torch is asked, once for each combination of
argument shapes. Small tensors that follow from the code alone, such as `torch.arange(3)`, are computed for
real beside their stand-ins, as code may go by their values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from striate.anatomy import shapes
from striate.anatomy.operators import Operator, Overload, tensors_in
from striate.errors import UsageError

META = torch.device("meta")
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
FACTORIES = {"arange", "zeros", "ones", "full", "linspace", "eye", "scalar_tensor", "lift_fresh"}
SMALL = 4096  # elements of a tensor that is computed for real


class Imitation:
    """Answers for operators, on stand-ins for the tensors of the user's module.

    Args:
        parameters: tensors that are parameters, by their ids; a stand-in for one is entered, too.
    """

    def __init__(self, parameters: dict[int, Tensor]) -> None:
        self.parameters = parameters
        self.stand_ins: dict[int, Tensor] = {}
        self.constants: dict[int, Tensor] = {}  # values of tensors that follow from the code alone
        self.alive: list[Tensor] = []  # whose ids must not be given to others
        self.memory: dict[Any, list[tuple[Any, Any, torch.dtype]]] = {}
        self.none = torch.empty(0, device=META)  # for results that nobody looks at

    def stand_in(self, tensor: Tensor) -> Tensor:
        """A tensor without data that takes the place of one of the user's; always the same for the same."""
        if tensor.is_meta:
            return tensor
        stand_in = self.stand_ins.get(id(tensor))
        if stand_in is None:
            stand_in = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META, layout=torch.strided
            )
            if isinstance(tensor, nn.Parameter):
                stand_in = nn.Parameter(stand_in, requires_grad=tensor.requires_grad)
            self.stand_ins[id(tensor)] = stand_in
            self.alive += [tensor, stand_in]
            if id(tensor) in self.parameters:
                self.parameters[id(stand_in)] = tensor
        return stand_in

    def run(
        self,
        func: Overload,
        operator: Operator,
        tensors: list[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """What the operator gives.

        Args:
            func: the operator.
            operator: what is known of it.
            tensors: all tensors among the arguments.
            args: the arguments.
            kwargs: those by name.

        Raises:
            UsageError: it reads values.
        """
        follows = not tensors or (bool(self.constants) and all(id(t) in self.constants for t in tensors))
        if operator.formula is not None and not follows and not kwargs:
            result = self._formula(operator, tensors, args)
            if result is not None:
                return result
        if follows or operator.name == "lift_fresh":
            constant = self._constant(func, operator, tensors, args, kwargs)
            if isinstance(constant, Tensor):
                result = torch.empty_strided(
                    constant.shape, constant.stride(), dtype=constant.dtype, device=META
                )
                self.constants[id(result)] = constant
                self.alive.append(result)
                return result
            if constant is not None and not list(tensors_in((constant,))):
                return constant
        if operator.name in READS_VALUES:
            raise UsageError(
                f"the network reads values of its tensors ({operator.name})",
                "the anatomy is taken from shapes alone, and which way it would go is not known",
                "Give it a module whose forward does not depend on values",
            )
        if any(not tensor.is_meta for tensor in tensors):
            args, kwargs = self._replaced(args), {key: self._replaced(value) for key, value in kwargs.items()}
        if "device" in kwargs or (operator.name in FACTORIES and "device" in operator.names):
            kwargs = {**kwargs, "device": META}
        if operator.mutates:
            if operator.pointwise and args and "out" not in kwargs:
                return args[0]
            return func(*args, **kwargs)
        return self._remembered(func, args, kwargs) if tensors else func(*args, **kwargs)

    def _formula(self, operator: Operator, tensors: list[Tensor], args: tuple[Any, ...]) -> Any:
        """Results with shapes from a formula; None where there is none for such arguments."""
        if not tensors[0].is_floating_point():
            return None
        formula = operator.formula
        if formula not in shapes.ANY_LAYOUT and not all(tensor.is_contiguous() for tensor in tensors):
            return None
        found = formula(args) if formula is not None else None
        if found is None:
            return None
        dtype = tensors[0].dtype
        first = torch.empty(found[0], dtype=dtype, device=META)
        if len(found) == 1:
            return first
        if operator.name == "max_pool2d_with_indices":
            return first, torch.empty(found[1], dtype=torch.int64, device=META)
        return first, *[self.none] * (len(found) - 1)  # statistics, which inference does not fill

    def _remembered(self, func: Overload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What torch gives, from memory where the operator ran on such shapes before."""
        key = (func, _key(args), _key(tuple(kwargs.items())))
        try:
            known = self.memory.get(key)
        except TypeError:  # an argument that cannot be a key, such as a list inside an unknown object
            return func(*args, **kwargs)
        if known is not None:
            made = [
                torch.empty_strided(size, stride, dtype=dtype, device=META) for size, stride, dtype in known
            ]
            return made[0] if len(made) == 1 else tuple(made)
        result = func(*args, **kwargs)
        out = [result] if isinstance(result, Tensor) else result
        if isinstance(result, (Tensor, tuple)) and all(isinstance(item, Tensor) for item in out):
            self.memory[key] = [(tuple(item.shape), item.stride(), item.dtype) for item in out]
        return result

    def _constant(
        self,
        func: Overload,
        operator: Operator,
        tensors: list[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The value of small arithmetic that begins with a factory; None where it is none."""
        if operator.mutates or not (tensors or operator.name in FACTORIES):
            return None
        values = {id(tensor): self.constants.get(id(tensor), tensor) for tensor in tensors}
        args, kwargs = _with(values, args), {key: _with(values, value) for key, value in kwargs.items()}
        if operator.name in FACTORIES and not tensors:
            shape = func(*args, **{**kwargs, "device": META})
        else:
            shape = tensors[0]
        if shape.numel() > SMALL:
            return None
        if "device" in operator.names:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return func(*args, **kwargs)

    def _replaced(self, value: Any) -> Any:
        """The argument with every tensor that has data replaced by one that has not."""
        if isinstance(value, Tensor):
            return self.stand_in(value)
        if isinstance(value, (list, tuple)):
            return type(value)([self._replaced(item) for item in value])
        return value


def _with(values: dict[int, Tensor], argument: Any) -> Any:
    """The argument with its tensors replaced by those that `values` has for their ids."""
    if isinstance(argument, Tensor):
        return values[id(argument)]
    if isinstance(argument, (list, tuple)):
        return type(argument)([_with(values, item) for item in argument])
    return argument


def _key(value: Any) -> Any:
    """Something hashable that is equal where an argument leads to the same shapes."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(map(_key, value))
    return (type(value), value)  # 1, 1.0 and True are equal, but not the same argument
