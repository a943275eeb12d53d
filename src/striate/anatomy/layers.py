"""Group the steps of a recorded forward pass into layers: one for each small module or separate operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from striate.anatomy.operators import tensors_in
from striate.anatomy.recorder import ModuleCall, Recorder, Step
from striate.anatomy.records import Anatomy, Layer

# Operators whose names in torch's ATen library differ from those that people write.
TYPES = {
    "max_pool2d_with_indices": "max_pool2d", "max_pool3d_with_indices": "max_pool3d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d", "_softmax": "softmax", "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax", "native_batch_norm": "batch_norm", "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm", "constant_pad_nd": "pad", "addmm": "linear", "mm": "matmul",
    "bmm": "matmul",
}  # fmt: skip


def distinct_tensors(holders: Iterable[Mapping[str, Tensor | None]]) -> dict[int, Tensor]:
    """Tensors by id, each once, even if several modules hold it."""
    return {id(tensor): tensor for holder in holders for tensor in holder.values() if tensor is not None}


def to_anatomy(
    module: nn.Module, name: str, arguments: Sequence[Any], outputs: Any, recorder: Recorder
) -> Anatomy:
    """The `Anatomy` of a recorded forward pass."""
    layers, counted = _Layers(recorder).build()
    parts = dict(module.named_modules())
    parameters = distinct_tensors(part._parameters for part in parts.values())
    buffers = distinct_tensors(part._buffers for part in parts.values())
    return Anatomy(
        model=name,
        input=tuple(tuple(tensor.shape) for tensor in tensors_in(arguments)),
        layers=tuple(layers),
        total_params=sum(p.numel() for p in parameters.values()),
        trainable=sum(p.numel() for p in parameters.values() if p.requires_grad),
        unused={} if counted >= parameters.keys() else _unused(module, counted),
        buffers=sum(buffer.numel() for buffer in buffers.values()),
        modules={path: type(part).__name__ for path, part in parts.items()},
        outputs=tuple(tuple(tensor.shape) for tensor in tensors_in((outputs,))),
        uncounted=dict(recorder.uncounted), untracked=dict(recorder.untracked),
    )  # fmt: skip


def result_of(recorder: Recorder, index: int) -> Tensor | None:
    """The output tensor of a layer of a computed pass; None if it was overwritten."""
    call, steps = _rows(recorder)[index]
    return call.tensor if call is not None else recorder.steps[steps[-1]].tensor


def _rows(recorder: Recorder) -> list[tuple[ModuleCall | None, range]]:
    """The steps of each layer; with the module call if the layer is a whole module."""
    rows: list[tuple[ModuleCall | None, range]] = []
    owned: set[int] = set()
    for call in recorder.finished:
        steps = range(call.first, call.last)
        if call.children == 0 and _is_layer(call, recorder.steps[call.first : call.last]):
            owned.update(steps)
            rows.append((call, steps))
    rows += [(None, range(i, i + 1)) for i in range(len(recorder.steps)) if i not in owned]
    # A module without steps, such as Identity, comes before the layer that starts at the same step.
    return sorted(rows, key=lambda row: (row[1].start, len(row[1]) > 0))


def _is_layer(call: ModuleCall, steps: Sequence[Step]) -> bool:
    """Whether a module without submodules is one layer; a user's module with several convolutions is not."""
    if type(call.module).__module__.startswith("torch.nn."):
        return True
    heavy = sum(1 for step in steps if step.macs or step.geometry["kind"] == "window")
    return call.name != "" and heavy <= 1


class _Layers:
    """Builds the layers in order, and remembers which parameters, modules and names have occurred."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.rows = _rows(recorder)
        self.layer_of_step = {step: index for index, (_, steps) in enumerate(self.rows) for step in steps}
        self.counted: set[int] = set()
        self.called: set[int] = set()
        self.names: dict[str, int] = {}

    def build(self) -> tuple[list[Layer], set[int]]:
        """The layers, and the ids of all parameters that they use."""
        for call in self.recorder.finished:  # parameters used after a module's last step belong to that step
            last = self.recorder.last_steps.get(id(call))
            if call.children and call.params and last is not None:
                last.params, call.params = last.params + call.params, []
        return [self._layer(index) for index in range(len(self.rows))], self.counted

    def _layer(self, index: int) -> Layer:
        call, row = self.rows[index]
        steps = [self.recorder.steps[i] for i in row]
        used = [parameter for step in steps for parameter in step.params]
        sources = frozenset().union(*(step.sources for step in steps))
        activation = sum(step.activation for step in steps)
        if call is None:
            (step,) = steps
            fields, output, again = step.fields, step.output, False
            name, kind = self._operator_name(step)
        else:
            used += call.params
            activation += call.activation
            fields, output = call.origin.fields, call.output
            name, kind = call.name, type(call.module).__name__
            if not steps:
                sources = call.origin.sources
            elif not output:
                fields, output = steps[-1].fields, steps[-1].output
            again = id(call.module) in self.called
            self.called.add(id(call.module))
        new = {id(p): p for p in used if id(p) not in self.counted}
        self.counted.update(new)
        window = next((s.geometry for s in reversed(steps) if s.geometry["kind"] == "window"), {})
        return Layer(
            name=name, type=kind, output=output,
            **{key: window.get(key) for key in ("kernel", "stride", "padding", "dilation", "groups")},
            fields=tuple(axis.reported for axis in fields or ()),
            dims=tuple(axis.dims for axis in fields or ()),
            whole_image=any(axis.whole_image for axis in fields or ()),
            params=sum(p.numel() for p in new.values()),
            macs=sum(step.macs for step in steps), activation=activation,
            inputs=tuple(sorted({self.layer_of_step.get(source, -1) for source in sources} - {index})),
            geometry=tuple(step.geometry for step in steps),
            shared=again or bool(used and not new), image=self.recorder.image_size,
        )  # fmt: skip

    def _operator_name(self, step: Step) -> tuple[str, str]:
        """Name and type of a layer that is one operator: `block.add`, the next one `block.add_1`."""
        kind = TYPES.get(step.op, step.op)
        if step.op == "convolution":
            kind = f"conv{'_transpose' * step.geometry['transposed']}{len(step.geometry['kernel'])}d"
        name = f"{step.call.name}.{kind}".lstrip(".")
        count = self.names[name] = self.names.get(name, 0) + 1
        return (name if count == 1 else f"{name}_{count - 1}"), kind


def _unused(module: nn.Module, counted: set[int]) -> dict[str, int]:
    """Number of parameters that no operator used, by the largest module that holds only such parameters."""
    out: dict[str, int] = {}

    def inside(path: str) -> bool:
        return any(path.startswith(f"{above}.") or above == "" for above in out)

    for path, part in module.named_modules():
        parameters = list(part.parameters())
        count = sum(p.numel() for p in parameters)
        if count and not inside(path) and not any(id(p) in counted for p in parameters):
            out[path] = count
    for path, parameter in module.named_parameters():
        if id(parameter) not in counted and not inside(path):
            out[path] = parameter.numel()
    return out
