"""Record every operator of a forward pass with its actual arguments.

The pass runs under a `TorchDispatchMode`, which intercepts each operator below autograd and below torch's own
composite functions, however the module's code is written. Tensors are on the meta device, so nothing is
computed and no memory is allocated for them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from striate.anatomy import propagation
from striate.anatomy.operators import NOT_STEPS, Args, Kwargs, Operator, Overload, geometry_of, tensors_in
from striate.anatomy.propagation import Fields
from striate.anatomy.rules.call import Call
from striate.anatomy.shape_inference import ShapeInference

SAME: dict[str, Any] = {"kind": "same"}


class Origin(NamedTuple):
    """A tensor's receptive fields, and the indices of the steps that it was computed from (-1: the input)."""

    fields: Fields | None
    sources: frozenset[int]


UNTRACKED = Origin(None, frozenset())


@dataclass(slots=True)
class Step:
    """One operator that counts as a step of the network; `striate.anatomy.layers` groups steps by module."""

    call: ModuleCall
    op: str
    output: tuple[int, ...]
    fields: Fields | None
    sources: frozenset[int]
    macs: int
    activation: int
    geometry: dict[str, Any]
    params: list[Tensor]
    tensor: Tensor | None = None


@dataclass(slots=True)
class ModuleCall:
    """One call of a module, running or finished.

    Attributes:
        first, last: its steps are `steps[first:last]`.
        children: number of module calls inside it.
        params: parameters that it has used since its last step.
        activation: bytes written by operators that are not steps.
        output, origin, tensor: of its first result.
    """

    name: str
    module: nn.Module
    first: int
    children: int = 0
    params: list[Tensor] = field(default_factory=list)
    activation: int = 0
    output: tuple[int, ...] = ()
    origin: Origin = UNTRACKED
    last: int = 0
    tensor: Tensor | None = None


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base class has no types
    """Records the operators that run inside it.

    Args:
        image_size: one number for each image axis; empty if the input is not an image.
        parameters: of the network, by id.
        compute: run the operators on real tensors instead of meta tensors, and keep the result of each step.
    """

    operators: dict[Overload, Operator] = {}  # noqa: RUF012  (shared on purpose: facts about torch)

    def __init__(
        self, image_size: tuple[int, ...], parameters: dict[int, Tensor] | None = None, compute: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.image_size = image_size
        self.compute = compute
        self.parameters = parameters if parameters is not None else {}
        self.shapes = ShapeInference(self.parameters)
        self.own_error: Exception | None = None  # raised by this class, not by the user's module
        self.failed: str | None = None  # the innermost module that raised
        self.steps: list[Step] = []
        self.last_steps: dict[int, Step] = {}  # by id of the module call
        self.running: list[ModuleCall] = []
        self.finished: list[ModuleCall] = []
        self.uncounted: Counter[str] = Counter()
        self.untracked: Counter[str] = Counter()
        self.origins: dict[int, Origin] = {}
        self.keep_alive: list[Tensor] = []  # so that Python does not reuse their ids
        self.bases: dict[int, Tensor] = {}  # the tensor that a view belongs to

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: otherwise torch imports its compiler (1 s, 70 MB) only to exclude this class from it."""
        return False

    def fields_of(self, tensor: Any) -> Fields | None:
        """The receptive fields of a tensor; None if it does not depend on the image."""
        return self.origins.get(id(tensor), UNTRACKED).fields

    def set_origin(self, tensor: Tensor, origin: Origin) -> None:
        """Store the origin of a tensor, and keep the tensor alive."""
        if id(tensor) not in self.origins:
            self.keep_alive.append(tensor)
        self.origins[id(tensor)] = origin

    def release_tensors(self) -> None:
        """Free the tensors once the pass is over; steps and module calls stay."""
        self.origins.clear()
        self.keep_alive.clear()
        self.bases.clear()

    def __torch_dispatch__(
        self, func: Overload, types: Any, args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        """Run one operator, or infer its shapes, and record it."""
        kwargs = kwargs or {}
        operator = self.operators.get(func)
        if operator is None:
            operator = self.operators[func] = Operator.of(func)
        tensors = operator.tensors(args, kwargs)
        if self.compute:
            result = func(*args, **kwargs)
        else:
            result = self.shapes.run(func, operator, tensors, args, kwargs)
        outputs = [result] if isinstance(result, Tensor) else list(tensors_in((result,)))
        if tensors:
            try:
                self.running[-1].params += [
                    p for t in tensors if (p := self.parameters.get(id(t))) is not None
                ]
                if outputs:
                    self._record(operator, tensors, args, kwargs, outputs)
            except Exception as error:
                self.own_error = error
                raise
        return result

    def _record(
        self, operator: Operator, tensors: list[Tensor], args: Args, kwargs: Kwargs, outputs: list[Tensor]
    ) -> None:
        """Record the step and the origin of its results."""
        if operator.mutates and len(outputs) == 1:
            outputs = self._overwritten(tensors[0])
        before = self.fields_of(outputs[0])
        origins = [origin for t in tensors if (origin := self.origins.get(id(t))) is not None]
        if origins or operator.cost is not None:
            fields, sources = self._step(operator, tensors, origins, args, kwargs, outputs[0])
            if sources or origins:
                for index, tensor in enumerate(outputs):
                    each = fields[index] if len(fields) == len(outputs) else fields[0]
                    self.set_origin(tensor, Origin(each, sources))
        if operator.view:
            base = self.bases.get(id(tensors[0]), tensors[0])
            for tensor in outputs:
                self.bases[id(tensor)] = base
                self.keep_alive.append(tensor)
        elif operator.mutates and id(outputs[0]) in self.bases:
            self._write_through(operator.name, outputs[0], before)

    def _step(
        self,
        operator: Operator,
        tensors: list[Tensor],
        origins: list[Origin],
        args: Args,
        kwargs: Kwargs,
        result: Tensor,
    ) -> tuple[list[Fields | None], frozenset[int]]:
        """Add a step if the operator counts as one.

        Returns:
            The receptive fields of the results, one for each or one for all, and the sources of the results.
        """
        out = tuple(result.shape)
        sources = origins[0].sources if origins else UNTRACKED.sources
        for origin in origins[1:]:
            sources = sources | origin.sources
        if operator.pointwise and len(tensors) == 1:  # the usual activation: nothing depends on its arguments
            bound, fields = {}, [origins[0].fields]
        else:
            bound = operator.bind(args, kwargs)
            fields = self._propagate(operator, origins, bound, out)
        macs = operator.cost(bound, out) if operator.cost is not None else 0
        if operator.cost is None and operator.rule is None and sources:
            self.uncounted[operator.name] += 1
        written = 0 if operator.view or operator.mutates else result.numel() * result.element_size()
        call = self.running[-1]
        if macs or (sources and self._is_step(operator, fields[0], tensors[0], out)):
            geometry = SAME if operator.same_size else geometry_of(operator, bound, out)
            tensor = result if self.compute else None
            step = Step(
                call, operator.name, out, fields[0], sources, macs, written, geometry, call.params, tensor
            )
            call.params = []
            self.last_steps[id(call)] = step
            sources = frozenset((len(self.steps),))
            self.steps.append(step)
        elif sources:
            call.activation += written
        return fields, sources

    def _overwritten(self, tensor: Tensor) -> list[Tensor]:
        """The result of an in-place operator, which is the user's own tensor."""
        self.shapes.constants.pop(id(tensor), None)
        for step in self.steps if self.compute else ():
            if step.tensor is tensor:  # it no longer holds the result of that step
                step.tensor = None
        return [tensor]

    def _propagate(
        self, operator: Operator, origins: list[Origin], bound: dict[str, Any], out: tuple[int, ...]
    ) -> list[Fields | None]:
        """The receptive fields of the results: one for each, or one for all."""
        inputs = [origin.fields for origin in origins if origin.fields is not None]
        if not inputs:
            return [None]
        known = all(propagation.is_known(fields) for fields in inputs)
        results: list[Fields | None] = [propagation.unknown(inputs[0])]
        if operator.rule is not None and known:
            answer = operator.rule(Call(bound, self.fields_of, out, self.image_size))
            results = answer if isinstance(answer, list) else [answer]
        if known and not all(propagation.is_known(fields) for fields in results):
            self.untracked[operator.name] += 1
        return results

    def _is_step(self, operator: Operator, fields: Fields | None, x: Tensor, out: tuple[int, ...]) -> bool:
        """Whether an operator is a row of the table; a slice is one only if it removes pixels."""
        if operator.name != "slice":
            return operator.name not in NOT_STEPS
        before = self.fields_of(x) or ()
        crops = any(x.shape[dim] != out[dim] for axis in before for dim in axis.dims)
        return crops or (fields is not None and fields != before)

    def _write_through(self, name: str, view: Tensor, view_before: Fields | None) -> None:
        """Update the origin of a tensor after a write into one of its views.

        Args:
            name: of the operator that wrote.
            view: with its new origin.
            view_before: its receptive fields before.
        """
        base, origin = self.bases[id(view)], self.origins.get(id(view), UNTRACKED)
        before = self.origins.get(id(base), UNTRACKED)
        fields = before.fields if origin.fields is None else origin.fields
        part = origin.fields
        if before.fields and view_before and part and propagation.same_units(view_before, part, view.shape):
            fields = propagation.with_global_paths(before.fields, part)
        elif origin.fields is not None and not _covers_axes(origin.fields, view, base):
            fields = propagation.unknown(origin.fields)
            self.untracked[name] += 1
        elif before.fields is not None and origin.fields is not None:
            operands = [(before.fields, base.shape), (origin.fields, base.shape)]
            fields = propagation.broadcast(operands, self.image_size)
        self.set_origin(base, Origin(fields, before.sources | origin.sources))

    def enter_module(self, name: str, module: nn.Module) -> None:
        """Note that a module's forward begins."""
        if self.running:
            self.running[-1].children += 1
        self.running.append(ModuleCall(name, module, len(self.steps)))

    def leave_module(self, output: Any) -> None:
        """Note that the innermost module's forward has ended."""
        if output is None and self.failed is None:  # a module that raises has no output
            self.failed = self.running[-1].name
        call = self.running.pop()
        call.last = len(self.steps)
        tensors = list(tensors_in((output,)))
        if tensors:
            call.output = tuple(tensors[0].shape)
            call.origin = self.origins.get(id(tensors[0]), UNTRACKED)
            call.tensor = tensors[0] if self.compute else None
        self.finished.append(call)


def _covers_axes(fields: Fields, view: Tensor, base: Tensor) -> bool:
    """Whether a view has the full size of its base along every image axis."""
    if view.ndim != base.ndim:
        return False
    return all(view.shape[dim] == base.shape[dim] for axis in fields for dim in axis.dims)
