"""From a module to its `Anatomy`: prepare the pass, run it, put the module back, gather steps by module."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from striate.anatomy import sight
from striate.anatomy.imitation import Imitation
from striate.anatomy.operators import tensors_in
from striate.anatomy.records import Anatomy, Layer
from striate.anatomy.tracer import Frame, Step, Tracer, Trail
from striate.errors import StriateError, UsageError
from striate.models import build, describe


def trace(
    model: str | nn.Module, example: Any = None, *, size: int | Sequence[int] | None = None, batch: int = 1
) -> Anatomy:
    """Every layer of a network: its arguments, size, receptive field and cost, from one pass without data.

    The network is taken as it is in inference (`eval`), and is left as it was found.

    Args:
        model: a name of `striate.models.MODELS`, or any module.
        example: what to call the module with: a tensor, or a tuple of arguments, on any device; only shapes
            and types are looked at. By default an image that suits the network.
        size: height and width of that image, or one number for both.
        batch: images in the batch; costs are those of the batch.

    Raises:
        UsageError: an unknown name, or a module that fails on such an input or depends on its values.
    """
    module, name, arguments = prepare(model, example, size, batch)
    tracer, outputs = observe(module, name, [_without_data(item) for item in arguments], compute=False)
    return gather(module, name, arguments, outputs, tracer)


def prepare(
    model: str | nn.Module, example: Any, size: int | Sequence[int] | None, batch: int, device: str = "meta"
) -> tuple[nn.Module, str, tuple[Any, ...]]:
    """The module, its name and what to call it with; a named network is built on `device`."""
    height, width = 224, 224
    channels = 3
    if isinstance(model, str):
        entry = describe(model)
        height = width = entry.input_size
        channels = entry.channels
        arguments: dict[str, Any] = {}
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
            if entry.sizes == "argument" and (height, width) != (entry.input_size,) * 2:
                arguments["input_size"] = height if height == width else (height, width)
        with torch.device(device):
            module = build(model, **arguments)
        name = model
    else:
        module, name = model, type(model).__name__
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
        first = next((m for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)), None)
        channels = first.in_channels if first is not None else 3
    if example is None:
        example = torch.empty(batch, channels, height, width, device="meta")
    return module, name, example if isinstance(example, tuple) else (example,)


def _without_data(value: Any) -> Any:
    """The argument with tensors of the same shapes and types on the meta device."""
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)([_without_data(item) for item in value])
    if isinstance(value, dict):
        return {key: _without_data(item) for key, item in value.items()}
    return value


def observe(module: nn.Module, name: str, arguments: Sequence[Any], compute: bool) -> tuple[Tracer, Any]:
    """Run the module on the arguments under a `Tracer`.

    Args:
        module: in any mode; it runs in that of inference and is put back as it was.
        name: for messages.
        arguments: of its call.
        compute: whether the operators run on true tensors, with gradients.
    """
    parts = dict(module.named_modules())  # walking a large network takes a while; once is enough
    parameters = _distinct(part._parameters for part in parts.values())
    buffers = _distinct(part._buffers for part in parts.values())
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in parameters.values()):
        raise UsageError(
            f"{name} has layers without a shape",
            "they are lazy and have not run",
            "Call it once with real data",
        )
    given = list(tensors_in(arguments))
    image = sight.image(given[0].ndim) if given and given[0].is_floating_point() else None
    if given and given[0].ndim == 3 and not any(isinstance(part, nn.Conv1d) for part in module.modules()):
        image = None  # a sequence of vectors; with convolutions along it, it is a signal
    size = tuple(given[0].shape[2:]) if image is not None else ()
    tracer = Tracer(size, dict(parameters), compute)
    for index, tensor in enumerate(given):
        tracer.mark(tensor, Trail(image if index == 0 else None, frozenset((-1,))))
    paths = {id(part): path for path, part in parts.items()}

    def enter(part: nn.Module, _: Any) -> None:
        tracer.enter(paths.get(id(part), type(part).__name__), part)

    def leave(part: nn.Module, _: Any, output: Any) -> None:
        tracer.leave(output)

    with kept_as_it_is(parts.values()), contextlib.ExitStack() as stack:
        on_meta = all(tensor.is_meta for tensor in itertools.chain(parameters.values(), buffers.values()))
        for part in parts.values():
            if part.training:
                part.training = False
            if not compute and not on_meta:
                _without_weights(part, tracer.imitation)
        stack.callback(hooks.register_module_forward_pre_hook(enter).remove)
        stack.callback(hooks.register_module_forward_hook(leave, always_call=True).remove)
        stack.enter_context(torch.enable_grad() if compute else torch.no_grad())
        stack.enter_context(_without_fused_attention())
        try:
            with tracer:
                outputs = module(*arguments)
            tracer.forget()
        except StriateError:
            raise
        except Exception as error:
            if error is tracer.bug:
                raise
            shapes = ", ".join(str(list(tensor.shape)) for tensor in given)
            where = f" in {tracer.failed}" if tracer.failed else ""
            raise UsageError(
                f"{name} cannot run on an input of shape {shapes}{where}",
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                "Give it an input that it reads, as `example` or with --imgsz",
            ) from error
    return tracer, outputs


def _distinct(holders: Iterable[Mapping[str, Tensor | None]]) -> dict[int, Tensor]:
    """Tensors by their ids, each once however many modules hold it."""
    return {id(tensor): tensor for holder in holders for tensor in holder.values() if tensor is not None}


def _without_weights(part: nn.Module, imitation: Imitation) -> None:
    """Put stand-ins where a module keeps tensors, for code that compares devices or looks into lists."""
    attributes = vars(part)
    for name, value in attributes.items():
        if isinstance(value, Tensor):
            attributes[name] = imitation.stand_in(value)
        elif isinstance(value, dict) and name in ("_parameters", "_buffers"):
            for key, tensor in value.items():
                if tensor is not None and not tensor.is_meta:
                    value[key] = imitation.stand_in(tensor)
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            value[:] = [imitation.stand_in(item) if isinstance(item, Tensor) else item for item in value]


@contextlib.contextmanager
def _without_fused_attention() -> Iterator[None]:
    """Have nn.MultiheadAttention take the path whose operators can be seen, also in inference."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


CONTAINERS = {dict, list, set, collections.OrderedDict}


@contextlib.contextmanager
def kept_as_it_is(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Undo whatever happens to the attributes of modules, and to the containers in them."""
    before: list[tuple[Any, Any]] = []
    for part in parts:
        attributes = vars(part)
        before.append((attributes, attributes.copy()))
        inside = [item for item in attributes.values() if type(item) in CONTAINERS]
        before += [(item, item.copy() if item else ()) for item in inside]
    try:
        yield
    finally:
        for container, content in before:
            if _differs(container, content):  # a dict that is written to grows, even if by what it had
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


def _differs(container: Any, content: Any) -> bool:
    """Whether a container holds others than the very same items in the same order."""
    if len(container) != len(content):
        return True
    if content and isinstance(container, dict):
        pairs = zip(container.values(), content.values(), strict=True)
        if any(now is not then for now, then in pairs):
            return True
    return any(now is not then for now, then in zip(container, content, strict=True))


def gather(module: nn.Module, name: str, arguments: Sequence[Any], outputs: Any, tracer: Tracer) -> Anatomy:
    """The record of a pass: one layer for each small module, and for each operator outside of them."""
    rows = _rows(tracer)
    for frame in tracer.finished:  # parameters that were used after a module's last step belong to that step
        last = tracer.last_steps.get(id(frame))
        if frame.calls and frame.params and last is not None:
            last.params, frame.params = last.params + frame.params, []
    place: dict[int, int] = {}  # of a step among the layers
    for index, (_, steps) in enumerate(rows):
        place.update(dict.fromkeys(steps, index))
    counted: set[int] = set()
    ran: set[int] = set()
    names: dict[str, int] = {}
    layers = []
    for index, (whole, steps) in enumerate(rows):
        layers.append(
            _layer(whole, [tracer.steps[i] for i in steps], tracer, place, index, counted, ran, names)
        )
    parts = dict(module.named_modules())
    parameters = _distinct(part._parameters for part in parts.values())
    buffers = _distinct(part._buffers for part in parts.values())
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
        uncounted=dict(tracer.uncounted),
        untracked=dict(tracer.untracked),
    )


def _rows(tracer: Tracer) -> list[tuple[Frame | None, list[int]]]:
    """Which steps make a row together; a frame where the row stands for a whole module."""
    owner: dict[int, Frame] = {}
    placed: list[tuple[tuple[int, int], Frame | None, list[int]]] = []
    for frame in tracer.finished:
        if frame.calls == 0 and _is_one(frame, tracer.steps[frame.first : frame.last]):
            steps = list(range(frame.first, frame.last))
            owner.update(dict.fromkeys(steps, frame))
            placed.append(((frame.first, 1 if steps else 0), frame, steps))
    for index in range(len(tracer.steps)):
        if index not in owner:
            placed.append(((index, 1), None, [index]))
    placed.sort(key=lambda item: item[0])
    return [(frame, steps) for _, frame, steps in placed]


def result_of(tracer: Tracer, index: int) -> Tensor | None:
    """The tensor that a layer of a computed pass gave; None where it was overwritten."""
    frame, steps = _rows(tracer)[index]
    return frame.tensor if frame is not None else tracer.steps[steps[-1]].tensor


def _is_one(frame: Frame, steps: Sequence[Step]) -> bool:
    """Whether a module that calls no other is a layer of its own, rather than a page of functional calls."""
    if type(frame.module).__module__.startswith("torch.nn."):
        return True
    heavy = sum(1 for step in steps if step.macs or step.geometry["kind"] == "window")
    return frame.name != "" and heavy <= 1


def _layer(
    frame: Frame | None,
    steps: Sequence[Step],
    tracer: Tracer,
    place: dict[int, int],
    index: int,
    counted: set[int],
    ran: set[int],
    names: dict[str, int],
) -> Layer:
    """One row of the table."""
    used = [parameter for step in steps for parameter in step.params]
    if frame is not None:
        used += frame.params
        seen, output, kind, name = frame.trail.sight, frame.output, type(frame.module).__name__, frame.name
        sources = frozenset().union(*(step.sources for step in steps)) if steps else frame.trail.sources
        if not frame.output and steps:
            seen, output = steps[-1].sight, steps[-1].output
        again = id(frame.module) in ran
        ran.add(id(frame.module))
    else:
        (step,) = steps
        kind = LABELS.get(step.op, step.op)
        if step.op == "convolution":
            kind = f"conv{'_transpose' * step.geometry['transposed']}{len(step.geometry['kernel'])}d"
        seen, output, sources, again = step.sight, step.output, step.sources, False
        plain = f"{step.frame.name}.{kind}".lstrip(".")
        names[plain] = names.get(plain, 0) + 1
        name = plain if names[plain] == 1 else f"{plain}_{names[plain] - 1}"
    fresh = {id(p): p for p in used if id(p) not in counted}
    shared = again or bool(used and not fresh)
    counted.update(fresh)
    window = next((s.geometry for s in reversed(steps) if s.geometry["kind"] == "window"), {})
    known = seen or ()
    return Layer(
        name=name,
        type=kind,
        output=output,
        kernel=window.get("kernel"),
        stride=window.get("stride"),
        padding=window.get("padding"),
        dilation=window.get("dilation"),
        groups=window.get("groups"),
        reach=tuple(axis.reach for axis in known),
        moves=tuple(axis.dim is not None for axis in known),
        whole=any(axis.whole for axis in known),
        params=sum(p.numel() for p in fresh.values()),
        macs=sum(step.macs for step in steps),
        activation=sum(step.activation for step in steps) + (frame.activation if frame is not None else 0),
        inputs=tuple(sorted({place.get(source, -1) for source in sources} - {index})),
        rule=tuple(step.geometry for step in steps),
        shared=shared,
        image=tracer.size,
    )


LABELS = {
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "native_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "constant_pad_nd": "pad",
    "addmm": "linear",
    "mm": "matmul",
    "bmm": "matmul",
}


def _unused(module: nn.Module, counted: set[int]) -> dict[str, int]:
    """Parameters that no operator was given, by the largest module of which none was."""
    idle = {
        path: sum(p.numel() for p in part.parameters())
        for path, part in module.named_modules()
        if not any(id(p) in counted for p in part.parameters())
    }
    out: dict[str, int] = {}
    for path, count in idle.items():
        if count and not any(path.startswith(f"{above}.") or above == "" for above in out):
            out[path] = count
    single = {
        path: p.numel()
        for path, p in module.named_parameters()
        if id(p) not in counted and not any(path.startswith(f"{above}.") or above == "" for above in out)
    }
    return {**out, **single}
