"""One forward pass on tensors without data, which records every operator with its true arguments.

The pass runs under a `TorchDispatchMode`: whatever the code of a module looks like, its operators come by
here, below autograd and below torch's own compositions. Tensors are on the `meta` device, so that nothing
is computed or allocated; parameters, buffers and other tensors of the user's module are replaced by
stand-ins the moment an operator is given one, and the module itself is put back as it was, also after an
exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from striate.anatomy import rules, shapes, sight
from striate.anatomy.operators import (
    FACTORIES,
    READS_VALUES,
    SILENT,
    SMALL,
    SPATIAL,
    Operator,
    Overload,
    geometry_of,
)
from striate.anatomy.sight import Sight
from striate.errors import UsageError


class Trail(NamedTuple):
    """What the tracer keeps with each tensor: what it sees, and the operators that it comes from."""

    sight: Sight | None
    sources: frozenset[int]


NOWHERE = Trail(None, frozenset())


@dataclass(slots=True)
class Step:
    """One operator that is a row, before rows are gathered by module."""

    frame: Frame
    op: str
    output: tuple[int, ...]
    sight: Sight | None
    sources: frozenset[int]
    macs: int
    activation: int
    geometry: dict[str, Any]
    params: list[Tensor]
    tensor: Tensor | None = None


@dataclass(slots=True)
class Frame:
    """One call of a module that is running or has run."""

    name: str
    module: nn.Module
    first: int
    calls: int = 0
    params: list[Tensor] = field(default_factory=list)
    activation: int = 0
    output: tuple[int, ...] = ()
    trail: Trail = NOWHERE
    last: int = 0
    tensor: Tensor | None = None


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base has no types
    """Records the operators that run inside it.

    Args:
        size: of the image, one number for each axis; empty where there is none.
        compute: run the operators on their true tensors instead of on shapes, and keep each step's result.
    """

    operators: dict[Overload, Operator] = {}  # noqa: RUF012  (what torch has does not change)

    def __init__(self, size: tuple[int, ...], compute: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = size
        self.compute = compute
        self.bug: Exception | None = None  # what failed was this file, not the module
        self.failed: str | None = None  # the first module that came to no result
        self.steps: list[Step] = []
        self.last_steps: dict[int, Step] = {}  # of each frame
        self.frames: list[Frame] = []
        self.finished: list[Frame] = []
        self.uncounted: dict[str, int] = {}
        self.untracked: dict[str, int] = {}
        self.trails: dict[int, Trail] = {}
        self.alive: list[Tensor] = []
        self.stand_ins: dict[int, Tensor] = {}
        self.constants: dict[int, Tensor] = {}  # values of tensors that follow from the code alone
        self.bases: dict[int, Tensor] = {}
        self.parameters: dict[int, Tensor] = {}
        self.memory: dict[Any, list[tuple[Any, Any, torch.dtype]]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, a second and 70 MB, to keep it off an operator."""
        return False

    def trail(self, tensor: Any) -> Trail:
        """What is known of a tensor; nothing for one that was not made here."""
        return self.trails.get(id(tensor), NOWHERE)

    def see(self, tensor: Any) -> Sight | None:
        """What a tensor sees."""
        return self.trail(tensor).sight

    def stand_in(self, tensor: Tensor) -> Tensor:
        """A tensor without data that takes the place of one of the user's; always the same for the same."""
        if tensor.is_meta:
            return tensor
        stand_in = self.stand_ins.get(id(tensor))
        if stand_in is None:
            stand_in = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta", layout=torch.strided
            )
            if isinstance(tensor, nn.Parameter):
                stand_in = nn.Parameter(stand_in, requires_grad=tensor.requires_grad)
            self.stand_ins[id(tensor)] = stand_in
            self.alive += [tensor, stand_in]
            if id(tensor) in self.parameters:
                self.parameters[id(stand_in)] = tensor
        return stand_in

    def mark(self, tensor: Tensor, trail: Trail) -> None:
        """Keep what is known of a tensor, and the tensor, whose id must not be given to another."""
        if id(tensor) not in self.trails:
            self.alive.append(tensor)
        self.trails[id(tensor)] = trail

    def __torch_dispatch__(
        self, func: Overload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run or imitate one operator, and record it."""
        kwargs = kwargs or {}
        operator = self.operators.get(func)
        if operator is None:
            operator = self.operators[func] = Operator.of(func)
        tensors = list(tensors_in(args)) + (list(tensors_in(kwargs.values())) if kwargs else [])
        result = self._run(func, operator, tensors, args, kwargs)
        try:
            self._record(operator, tensors, args, kwargs, result)
        except Exception as error:
            self.bug = error
            raise
        return result

    # What comes out: the operator on stand-ins, with its shapes from a formula or from memory.

    def _run(
        self,
        func: Overload,
        operator: Operator,
        tensors: list[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self.compute:
            return func(*args, **kwargs)
        if operator.name == "lift_fresh" or all(id(tensor) in self.constants for tensor in tensors):
            constant = self._constant(func, operator, tensors, args, kwargs)
            if isinstance(constant, Tensor):
                result = torch.empty_strided(
                    constant.shape, constant.stride(), dtype=constant.dtype, device="meta"
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
            kwargs = {**kwargs, "device": torch.device("meta")}
        if operator.mutates:
            return self._in_place(func, operator, args, kwargs)
        shaped = self._formula(operator, tensors, args, kwargs)
        if shaped is not None:
            dtype = tensors[0].dtype
            out = [torch.empty(shape, dtype=dtype, device="meta") for shape in shaped]
            if operator.name == "max_pool2d_with_indices":
                out[1] = torch.empty(shaped[1], dtype=torch.int64, device="meta")
            return out[0] if len(out) == 1 else tuple(out)
        return self._remembered(func, args, kwargs)

    def _in_place(self, func: Overload, operator: Operator, args: tuple[Any, ...], kwargs: Any) -> Any:
        """An operator that writes into an argument and returns that."""
        if operator.pointwise and args and "out" not in kwargs:
            return args[0]
        return func(*args, **kwargs)

    @staticmethod
    def _formula(
        operator: Operator, tensors: list[Tensor], args: tuple[Any, ...], kwargs: Any
    ) -> list[shapes.Shape] | None:
        if operator.formula is None or kwargs:
            return None
        if not tensors[0].is_floating_point():
            return None
        if operator.formula not in shapes.ANY_LAYOUT and not all(t.is_contiguous() for t in tensors):
            return None
        return operator.formula(args)

    def _remembered(self, func: Overload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operator, from memory where it ran on such shapes before."""
        key = (func, _key(args), _key(tuple(kwargs.items())))
        try:
            known = self.memory.get(key)
        except TypeError:  # an argument that cannot be a key, such as a list inside an unknown object
            return func(*args, **kwargs)
        if known is not None:
            made = [
                torch.empty_strided(size, stride, dtype=dtype, device="meta") for size, stride, dtype in known
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
            shape = func(*args, **{**kwargs, "device": "meta"})
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
            if value.is_meta:
                return value
            return self.stand_in(value)
        if isinstance(value, (list, tuple)):
            return type(value)([self._replaced(item) for item in value])
        return value

    # What is written down.

    def _record(
        self,
        operator: Operator,
        tensors: list[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        frame = self.frames[-1]
        sources: frozenset[int] = frozenset()
        seen = False
        for tensor in tensors:
            if id(tensor) in self.parameters:
                frame.params.append(self.parameters[id(tensor)])
            trail = self.trail(tensor)
            seen = seen or trail.sight is not None
            if trail.sources:
                sources = sources | trail.sources if sources else trail.sources
        outputs = [result] if isinstance(result, Tensor) else list(tensors_in((result,)))
        if not outputs:
            return
        if operator.mutates and tensors and len(outputs) == 1:
            outputs = tensors[:1]  # the user's own tensor, not its stand-in
            self.constants.pop(id(tensors[0]), None)
            for step in self.steps if self.compute else ():
                if step.tensor is tensors[0]:  # it no longer holds what that step wrote
                    step.tensor = None
        first = outputs[0]
        out = tuple(first.shape)
        written = 0 if operator.view or operator.mutates else first.numel() * first.element_size()
        bound: dict[str, Any] | None = None
        sights: list[Sight | None] = [None]
        if seen:
            if operator.pointwise and len(tensors) == 1:
                sights = [self.trail(first if operator.mutates else tensors[0]).sight]
            else:
                bound = operator.bind(args, kwargs)
                sights = self._sights(operator, tensors, bound, out)
        macs = 0
        if operator.cost is not None:
            bound = bound or operator.bind(args, kwargs)
            macs = operator.cost(bound, out)
        elif operator.rule is None and sources:
            self.uncounted[operator.name] = self.uncounted.get(operator.name, 0) + 1
        if (sources or macs) and self._is_step(operator, sights[0], tensors[0], macs, out):
            geometry = geometry_of(operator, bound if bound is not None else operator.bind(args, kwargs), out)
            kept = first if self.compute else None
            step = Step(
                frame, operator.name, out, sights[0], sources, macs, written, geometry, frame.params, kept
            )
            frame.params = []
            self.last_steps[id(frame)] = step
            sources = frozenset((len(self.steps),))
            self.steps.append(step)
        else:
            frame.activation += written if sources else 0
        if sources or seen:
            for index, tensor in enumerate(outputs):
                each = sights[index] if len(sights) == len(outputs) else sights[0]
                self.mark(tensor, Trail(each, sources))
        if operator.view and tensors:
            base = self.bases.get(id(tensors[0]), tensors[0])
            for tensor in outputs:
                self.bases[id(tensor)] = base
                self.alive.append(tensor)
        elif operator.mutates and id(first) in self.bases:
            self._write_through(operator.name, first)

    def _sights(
        self, operator: Operator, tensors: list[Tensor], bound: dict[str, Any], out: tuple[int, ...]
    ) -> list[Sight | None]:
        known = next(s for tensor in tensors if (s := self.see(tensor)) is not None)
        sights: list[Sight | None] | None = None
        if operator.rule is not None and all(sight.is_known(self.see(tensor)) for tensor in tensors):
            answer = operator.rule(rules.Call(bound, self.see, out, self.size))
            sights = answer if isinstance(answer, list) else [answer]
        if sights is None or not all(sight.is_known(each) for each in sights):
            if sights is None:
                sights = [sight.unknown(known)]
            if all(sight.is_known(self.see(tensor)) for tensor in tensors):
                self.untracked[operator.name] = self.untracked.get(operator.name, 0) + 1
        return sights

    def _is_step(
        self, operator: Operator, seen: Sight | None, source: Tensor, macs: int, out: tuple[int, ...]
    ) -> bool:
        if macs:
            return True
        if operator.name in SPATIAL:
            before = self.see(source) or ()
            crops = any(axis.dim is not None and source.shape[axis.dim] != out[axis.dim] for axis in before)
            return crops or (seen is not None and seen != before)
        return operator.name not in SILENT

    def _write_through(self, name: str, view: Tensor) -> None:
        """A view was written to: what it was cut from now holds that, too."""
        base, trail = self.bases[id(view)], self.trail(view)
        before = self.trail(base)
        combined = before.sight if trail.sight is None else trail.sight
        if trail.sight is not None and not self._aligned(trail.sight, view, base):
            combined = sight.unknown(trail.sight)
            self.untracked[name] = self.untracked.get(name, 0) + 1
        elif before.sight is not None and trail.sight is not None:
            combined = sight.combined([(before.sight, base.shape), (trail.sight, base.shape)], self.size)
        self.mark(base, Trail(combined, before.sources | trail.sources))

    @staticmethod
    def _aligned(seen: Sight, view: Tensor, base: Tensor) -> bool:
        """Whether a view covers what it was cut from along all axes of the image."""
        if view.ndim != base.ndim:
            return False
        return all(axis.dim is None or view.shape[axis.dim] == base.shape[axis.dim] for axis in seen)

    # Which module runs.

    def enter(self, name: str, module: nn.Module) -> None:
        """A module begins."""
        if self.frames:
            self.frames[-1].calls += 1
        self.frames.append(Frame(name, module, len(self.steps)))

    def leave(self, output: Any) -> None:
        """The module that began last ends."""
        if output is None and self.failed is None:  # a module that raises has no output
            self.failed = self.frames[-1].name
        frame = self.frames.pop()
        frame.last = len(self.steps)
        tensors = list(tensors_in((output,)))
        if tensors:
            frame.output, frame.trail = tuple(tensors[0].shape), self.trail(tensors[0])
            frame.tensor = tensors[0] if self.compute else None
        self.finished.append(frame)


def tensors_in(values: Any) -> Iterator[Tensor]:
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
