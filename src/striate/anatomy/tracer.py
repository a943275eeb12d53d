"""One forward pass on tensors without data, which records every operator with its true arguments.

The pass runs under a `TorchDispatchMode`: whatever the code of a module looks like, its operators come by
here, below autograd and below torch's own compositions. Tensors are on the `meta` device, so that nothing
is computed or allocated; parameters, buffers and other tensors of the user's module are replaced by
stand-ins the moment an operator is given one, and the module itself is put back as it was, also after an
exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from striate.anatomy import sight
from striate.anatomy.imitation import Imitation
from striate.anatomy.operators import SILENT, SPATIAL, UNCHANGED, Operator, Overload, geometry_of, tensors_in
from striate.anatomy.rules.call import Call
from striate.anatomy.sight import Sight


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
        parameters: of the network, by their ids.
        compute: run the operators on their true tensors instead of on shapes, and keep each step's result.
    """

    operators: dict[Overload, Operator] = {}  # noqa: RUF012  (what torch has does not change)

    def __init__(
        self, size: tuple[int, ...], parameters: dict[int, Tensor] | None = None, compute: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = size
        self.compute = compute
        self.parameters = parameters if parameters is not None else {}
        self.imitation = Imitation(self.parameters)
        self.bug: Exception | None = None  # what failed was this file, not the module
        self.failed: str | None = None  # the first module that came to no result
        self.steps: list[Step] = []
        self.last_steps: dict[int, Step] = {}  # of each frame
        self.frames: list[Frame] = []
        self.finished: list[Frame] = []
        self.uncounted: dict[str, int] = {}
        self.untracked: dict[str, int] = {}
        self.trails: dict[int, Trail] = {}
        self.alive: list[Tensor] = []  # whose ids must not be given to others
        self.bases: dict[int, Tensor] = {}  # what a view was cut from

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, a second and 70 MB, to keep it off an operator."""
        return False

    def trail(self, tensor: Any) -> Trail:
        """What is known of a tensor; nothing for one that was not made here."""
        return self.trails.get(id(tensor), NOWHERE)

    def see(self, tensor: Any) -> Sight | None:
        """What a tensor sees."""
        return self.trails.get(id(tensor), NOWHERE).sight

    def mark(self, tensor: Tensor, trail: Trail) -> None:
        """Keep what is known of a tensor, and the tensor, whose id must not be given to another."""
        if id(tensor) not in self.trails:
            self.alive.append(tensor)
        self.trails[id(tensor)] = trail

    def forget(self) -> None:
        """Let go of the tensors, once the pass is over; steps and frames stay."""
        self.trails.clear()
        self.alive.clear()
        self.bases.clear()

    def __torch_dispatch__(
        self, func: Overload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run or imitate one operator, and record it."""
        kwargs = kwargs or {}
        operator = self.operators.get(func)
        if operator is None:
            operator = self.operators[func] = Operator.of(func)
        tensors = operator.tensors(args, kwargs)
        if self.compute:
            result = func(*args, **kwargs)
        else:
            result = self.imitation.run(func, operator, tensors, args, kwargs)
        if tensors:
            try:
                self._record(operator, tensors, args, kwargs, result)
            except Exception as error:
                self.bug = error
                raise
        return result

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
        parameters = [p for t in tensors if (p := self.parameters.get(id(t))) is not None]
        frame.params += parameters
        trails = [trail for t in tensors if (trail := self.trails.get(id(t))) is not None]
        outputs = [result] if isinstance(result, Tensor) else list(tensors_in((result,)))
        if not outputs:
            return
        if operator.mutates and len(outputs) == 1:
            outputs = self._overwritten(tensors[0])
        first = outputs[0]
        out = tuple(first.shape)
        written = 0 if operator.view or operator.mutates else first.numel() * first.element_size()
        sources = trails[0].sources if trails else NOWHERE.sources
        for trail in trails[1:]:
            sources = sources | trail.sources
        bound = None
        sights: list[Sight | None] = [None]
        if any(trail.sight is not None for trail in trails):
            if operator.pointwise and len(tensors) == 1:
                sights = [trails[0].sight]
            else:
                bound = operator.bind(args, kwargs)
                sights = self._sights(operator, trails, bound, out)
        macs = 0
        if operator.cost is not None:
            bound = bound or operator.bind(args, kwargs)
            macs = operator.cost(bound, out)
        elif operator.rule is None and sources:
            self.uncounted[operator.name] = self.uncounted.get(operator.name, 0) + 1
        if (sources or macs) and self._is_step(operator, sights[0], tensors[0], macs, out):
            if operator.same_size:
                geometry = UNCHANGED
            else:
                geometry = geometry_of(operator, bound or operator.bind(args, kwargs), out)
            kept = first if self.compute else None
            step = Step(
                frame, operator.name, out, sights[0], sources, macs, written, geometry, frame.params, kept
            )
            frame.params = []
            self.last_steps[id(frame)] = step
            sources = frozenset((len(self.steps),))
            self.steps.append(step)
        elif sources:
            frame.activation += written
        if sources or trails:
            for index, tensor in enumerate(outputs):
                each = sights[index] if len(sights) == len(outputs) else sights[0]
                self.mark(tensor, Trail(each, sources))
        if operator.view:
            base = self.bases.get(id(tensors[0]), tensors[0])
            for tensor in outputs:
                self.bases[id(tensor)] = base
                self.alive.append(tensor)
        elif operator.mutates and id(first) in self.bases:
            self._write_through(operator.name, first)

    def _overwritten(self, tensor: Tensor) -> list[Tensor]:
        """The result of an operator that writes into its first argument: the user's own tensor."""
        self.imitation.constants.pop(id(tensor), None)
        for step in self.steps if self.compute else ():
            if step.tensor is tensor:  # it no longer holds what that step wrote
                step.tensor = None
        return [tensor]

    def _sights(
        self, operator: Operator, trails: list[Trail], bound: dict[str, Any], out: tuple[int, ...]
    ) -> list[Sight | None]:
        seeing = [trail.sight for trail in trails if trail.sight is not None]
        known = all(sight.is_known(each) for each in seeing)
        sights: list[Sight | None] | None = None
        if operator.rule is not None and known:
            answer = operator.rule(Call(bound, self.see, out, self.size))
            sights = answer if isinstance(answer, list) else [answer]
        if sights is None or not all(sight.is_known(each) for each in sights):
            if sights is None:
                sights = [sight.unknown(seeing[0])]
            if known:
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
