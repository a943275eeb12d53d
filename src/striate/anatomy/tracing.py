"""Run one forward pass under the recorder: prepare the module and its input, run, restore the module."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from striate import memory
from striate.anatomy import propagation
from striate.anatomy.layers import distinct_tensors, to_anatomy
from striate.anatomy.operators import tensors_in
from striate.anatomy.propagation import Fields
from striate.anatomy.recorder import Origin, Recorder
from striate.anatomy.records import Anatomy
from striate.anatomy.shape_inference import ShapeInference, replace_tensors
from striate.device import on_meta, require_weights, standard_settings
from striate.errors import StriateError, UsageError
from striate.models import build, describe, is_foreign


def trace(
    model: str | nn.Module, example: Any = None, *, size: int | Sequence[int] | None = None, batch: int = 1
) -> Anatomy:
    """List the layers of a network: arguments, output size, receptive field, parameters and MACs.

    The network runs once in inference mode (`eval`), on shapes without data, and is left unchanged.

    Args:
        model: a name of `striate.models.MODELS`, `timm:NAME`, `torchvision:NAME`, or any module.
        example: the module's input: a tensor, or a tuple of arguments, on any device; only shapes and types
            matter. By default an image that suits the network.
        size: height and width of that image, or one number for both.
        batch: images in the batch; MACs are those of the whole batch.

    Raises:
        UsageError: the name is unknown, or the module fails on such an input or depends on its values.
    """
    with standard_settings(_float_type(model)):
        module, name, arguments = prepare(model, example, size, batch)
        to_meta = lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        recorder, outputs = record(module, name, replace_tensors(arguments, to_meta), compute=False)
        return to_anatomy(module, name, arguments, outputs, recorder)


def require_memory(module: nn.Module, arguments: tuple[Any, ...], copies: float = 1.0) -> None:
    """Refuse a gradient for which memory cannot suffice: all results of layers are kept for it.

    Args:
        module: any module.
        arguments: of its call; only shapes and types matter.
        copies: how often the results for these arguments are kept.

    Raises:
        ResourceError: they cannot fit; the message has the estimate.
    """
    shape = "x".join(map(str, arguments[0].shape[2:]))
    what = f"gradients for an image of {shape} pixels"
    memory.require(copies * trace(module, arguments).activation, what, "Use a smaller --imgsz")


def prepare(
    model: str | nn.Module, example: Any, size: int | Sequence[int] | None, batch: int, device: str = "meta"
) -> tuple[nn.Module, str, tuple[Any, ...]]:
    """The module, its name and its arguments; a network given by name is built on `device`."""
    height = width = 224
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
    if isinstance(model, str):
        entry = describe(model)
        channels: int = entry.channels
        options: dict[str, Any] = {}
        if size is None:
            height = width = entry.input_size
        elif entry.sizes == "argument" and (height, width) != (entry.input_size,) * 2:
            options["input_size"] = height if height == width else (height, width)
        if is_foreign(model):
            options = {"num_classes": 1000, "in_channels": channels, "input_size": [height, width]}
        elif device != "meta":
            require_weights(lambda: build(model, **options), "Use a smaller --imgsz", training=False)
        with on_meta() if device == "meta" else torch.device(device):
            module = build(model, **options)
        name = model
    else:
        module, name = model, type(model).__name__
        convs = (part for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd))
        channels = next((conv.in_channels for conv in convs), 3)
    if example is None:
        example = torch.empty(batch, channels, height, width, dtype=_float_type(module), device="meta")
    return module, name, example if isinstance(example, tuple) else (example,)


def _float_type(model: str | nn.Module) -> torch.dtype:
    """The type of a module's weights, which its input and the tensors that it creates have, too."""
    weights = () if isinstance(model, str) else model.parameters()
    return next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32)


def record(module: nn.Module, name: str, arguments: Sequence[Any], compute: bool) -> tuple[Recorder, Any]:
    """Run the module under a `Recorder`, in inference mode, and restore it.

    Args:
        module: in any mode.
        name: for error messages.
        arguments: of its call.
        compute: run the operators on real tensors, with gradients.

    Returns:
        The recorder and the module's outputs.
    """
    parts = dict(module.named_modules())  # slow for a large network, so only once
    parameters = distinct_tensors(part._parameters for part in parts.values())
    buffers = distinct_tensors(part._buffers for part in parts.values())
    on_meta = all(tensor.is_meta for tensor in (*parameters.values(), *buffers.values()))
    if any(map(nn.parameter.is_lazy, parameters.values())):
        raise UsageError(
            f"{name} has lazy layers",
            "their shapes are unknown until they have run",
            "Call the module once with real data, then trace it",
        )
    tensors = list(tensors_in(arguments))
    fields = _image_fields(tensors, parts.values())
    recorder = Recorder(tuple(tensors[0].shape[2:]) if fields else (), dict(parameters), compute)
    for index, tensor in enumerate(tensors):
        recorder.set_origin(tensor, Origin(fields if index == 0 else None, frozenset((-1,))))
    paths = {id(part): path for path, part in parts.items()}

    def enter(part: nn.Module, _: Any) -> None:
        recorder.enter_module(paths.get(id(part), type(part).__name__), part)

    def leave(part: nn.Module, _: Any, output: Any) -> None:
        recorder.leave_module(output)

    with restored(parts.values()), contextlib.ExitStack() as stack:
        _to_inference(parts.values(), None if compute or on_meta else recorder.shapes)
        stack.callback(hooks.register_module_forward_pre_hook(enter).remove)
        stack.callback(hooks.register_module_forward_hook(leave, always_call=True).remove)
        stack.enter_context(torch.set_grad_enabled(compute))
        stack.enter_context(_no_fused_attention())
        try:
            with recorder:
                outputs = module(*arguments)
        except StriateError:
            raise
        except Exception as error:
            if error is recorder.own_error:
                raise
            raise _failure(error, name, tensors, recorder.failed) from error
    recorder.release_tensors()
    return recorder, outputs


def _image_fields(tensors: Sequence[Tensor], parts: Iterable[nn.Module]) -> Fields | None:
    """Receptive fields of the first input tensor; None if it is not an image, a volume or a signal."""
    if not tensors or not tensors[0].is_floating_point():
        return None
    if tensors[0].ndim == 3 and not any(isinstance(part, nn.Conv1d) for part in parts):
        return None  # a sequence of vectors; a network with Conv1d reads a signal
    return propagation.input_fields(tensors[0].ndim)


def _failure(error: Exception, name: str, tensors: Sequence[Tensor], where: str | None) -> UsageError:
    """The error for a module that raises in its forward pass."""
    shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
    return UsageError(
        f"{name} cannot run on an input of shape {shapes}{f' in {where}' if where else ''}",
        f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        "Give it a suitable input, as `example` or with --imgsz",
    )


def _to_inference(parts: Iterable[nn.Module], shapes: ShapeInference | None) -> None:
    """Set inference mode, and replace the modules' tensors by meta tensors if `shapes` is given."""
    for part in parts:
        if part.training:
            part.training = False
        if shapes is not None:
            _use_meta_tensors(part, shapes)


def _use_meta_tensors(part: nn.Module, shapes: ShapeInference) -> None:
    """Replace a module's tensors by meta tensors, for code that compares devices or has lists of tensors."""
    attributes = vars(part)
    for name, value in attributes.items():
        if isinstance(value, Tensor):
            attributes[name] = shapes.meta_copy(value)
        elif isinstance(value, dict) and name in ("_parameters", "_buffers"):
            for key, tensor in value.items():
                if tensor is not None and not tensor.is_meta:
                    value[key] = shapes.meta_copy(tensor)
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            value[:] = [replace_tensors(item, shapes.meta_copy) for item in value]


@contextlib.contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Make nn.MultiheadAttention use separate operators, which can be recorded, in inference too."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


CONTAINERS = {dict, list, set, collections.OrderedDict}


@contextlib.contextmanager
def restored(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Restore the attributes of modules, and the containers among them, on exit."""
    before: list[tuple[Any, Any]] = []
    for part in parts:
        attributes = vars(part)
        before.append((attributes, attributes.copy()))
        before += [(item, item.copy()) for item in attributes.values() if type(item) in CONTAINERS]
    try:
        yield
    finally:
        for container, content in before:
            if (container or content) and not _same_items(container, content):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


def _same_items(a: Any, b: Any) -> bool:
    """Whether two containers of one type hold the same objects in the same order."""
    if len(a) != len(b) or not all(map(is_, a, b)):
        return False
    return not isinstance(a, dict) or all(map(is_, a.values(), b.values()))
