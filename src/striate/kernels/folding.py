"""Fold a trained network for inference: the same function of the image in fewer steps.

In evaluation mode BatchNorm multiplies each channel and adds to it. Both go into the weights and biases of
the preceding convolution (Jacob et al. 2018, arXiv:1712.05877, section 3.2). The convolution also adds the
shortcut and applies the activation as it writes its result. On a CPU the weights are prepacked in the layout
of oneDNN's kernel, which otherwise rearranges them in each call.
"""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from striate.kernels.linear import has_onednn
from striate.models.foreign import NORMS
from striate.models.layers import SamePadding, check_images
from striate.models.transformer import MultiHeadAttention

Layer = TypeVar("Layer", bound=nn.Module)

TOLERANCE = 1e-4  # of the largest score; rounding changes scores by about 1e-6 of it

# An activation after a convolution: its name and its parameters in oneDNN, and the function in place.
_Activation = tuple[str, list[float], Callable[[Tensor], Tensor]]
_NONE: _Activation = ("none", [], lambda x: x)
_RELU: _Activation = ("relu", [], F.relu_)
_ACTIVATIONS: dict[Any, _Activation] = {
    nn.ReLU: _RELU,
    F.relu: _RELU,
    nn.ReLU6: ("hardtanh", [0.0, 6.0], lambda x: F.relu6(x, inplace=True)),
    F.hardswish: ("hardswish", [], lambda x: F.hardswish(x, inplace=True)),
    F.hardsigmoid: ("hardsigmoid", [], lambda x: F.hardsigmoid(x, inplace=True)),
    F.silu: ("swish", [], lambda x: F.silu(x, inplace=True)),
}


def fold(network: nn.Module, shape: tuple[int, int, int], tolerance: float = TOLERANCE) -> nn.Module:
    """Fold convolutions with their norms, sums and activations, for inference only.

    The folded network is compared with the original on one image of noise. If the scores differ by more than
    rounding, or the network cannot be traced (its steps depend on its input), the original is returned.

    Args:
        network: in evaluation mode; it does not change. The folded one shares its other layers, so later
            changes of the weights may or may not have an effect on it.
        shape: channels, height and width of the typical image; other sizes are correct, but slower.
        tolerance: the largest difference of scores, as a fraction of the largest score.

    Returns:
        A module with the same inputs and outputs, on the same device.
    """
    base = copy.copy(network)  # the tracer adds constants to it
    try:
        graph = Tracer().trace_images(base)
    except Exception:  # a forward may do anything with its input, and a proxy supports little of it
        return network
    weight = next(network.parameters())
    noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        expected, sizes = _run(network, noise)
        try:
            folded = _rewrite(fx.GraphModule(base, graph), sizes)
            scores = folded(noise)
        except Exception:  # a sum of two shapes, a processor that oneDNN does not support, foreign steps
            return network
        same = (scores - expected).abs().max() <= tolerance * expected.abs().max()  # False for NaN
    return folded if same else network


class Tracer(fx.Tracer):
    """Traces a network symbolically; the check of the images' shape stays one step, and so do fast layers."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(check_images,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one step."""
        # Subclasses of torch's layers look at the size of their input: the fast ones of
        # `striate.kernels.prepare`, BatchNorm with an activation and others of timm.
        kinds = (nn.Linear, nn.Dropout, MultiHeadAttention, nn.Conv2d, SamePadding, *NORMS)
        is_layer = isinstance(m, kinds)
        return is_layer or super().is_leaf_module(m, module_qualified_name)

    def trace_images(self, network: nn.Module) -> fx.Graph:
        """Trace a network as a function of images; its other arguments keep their defaults."""
        _, *others = inspect.signature(network.forward).parameters.values()
        defaults = {p.name: p.default for p in others if p.default is not p.empty}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of defaults that the graph does not check
            graph = self.trace(network, concrete_args=defaults or None)
        _, *unused = [node for node in graph.nodes if node.op == "placeholder"]
        checks = set(unused)  # an argument, and what compares it with its default
        for node in graph.nodes:
            if node.all_input_nodes and checks.issuperset(node.all_input_nodes):
                checks.add(node)
        for node in reversed(graph.nodes):
            if node in checks:
                graph.erase_node(node)
        return graph


def is_plain(layer: Any, kind: type[Layer]) -> TypeGuard[Layer]:
    """Whether a layer computes what its torch class does: a subclass may pad, or apply an activation."""
    own = type(layer)
    methods = ("forward", "_conv_forward")
    return isinstance(layer, kind) and all(
        getattr(own, name, None) is getattr(kind, name, None) for name in methods
    )  # fmt: skip


class _Convolution(nn.Module):
    """A convolution with its norm folded in, then a sum and an activation.

    Args:
        convolution: gives geometry and weights.
        chain: the steps after it.
        size: of its input, for which the weights are prepacked.
        in_place: whether the sum may overwrite the shortcut.
    """

    def __init__(self, convolution: nn.Conv2d, chain: _Chain, size: torch.Size, in_place: bool) -> None:
        super().__init__()
        self.geometry: dict[str, Any] = {
            "stride": convolution.stride,
            "padding": convolution.padding,
            "dilation": convolution.dilation,
            "groups": convolution.groups,
        }
        self.weight, self.bias = fold_norm(convolution, chain.norm)
        self.name, self.scalars, self.activate = _ACTIVATIONS.get(chain.activation, _NONE)
        self.in_place = in_place
        self.prepacked = has_onednn(self.weight)
        if self.prepacked:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = reorder(self.weight, **self.geometry, input_size=size)
        else:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """`[batch, in_channels, h, w]` -> `[batch, out_channels, h', w']`, the shape of `shortcut`."""
        if not self.prepacked:
            x = F.conv2d(x, self.weight, self.bias, **self.geometry)
            return self.activate(x if shortcut is None else x.add_(shortcut))
        if shortcut is None:
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x,
                self.weight,
                self.bias,
                **self.geometry,
                attr=self.name,
                scalars=self.scalars,
                algorithm=None,
            )
        else:
            in_place = self.in_place
            if not in_place and shortcut.shape[2:].numel() == 1:  # torch 2.8: "could not create a memory"
                shortcut, in_place = shortcut.clone(), True
            # The operator whose name ends in _ overwrites the shortcut.
            name = "_convolution_pointwise_" if in_place else "_convolution_pointwise"
            y = getattr(torch.ops.mkldnn, name).binary(
                X=x, other=shortcut, W=self.weight, B=self.bias, **self.geometry,
                binary_attr="add", alpha=1.0,
                unary_attr=None if self.name == "none" else self.name, unary_scalars=[], unary_algorithm=None,
            )  # fmt: skip
        return y


class _SameConvolution(nn.Module):
    """A convolution with TensorFlow's padding, which for the typical size does not copy its input.

    oneDNN's kernels pad symmetrically. So the filter gets zeros on the left and on the top, as many as the
    padding has more pixels on the right and at the bottom.

    Args:
        padding: before the convolution.
        convolution: without padding of its own.
        chain: the steps after it.
        size: of the input before the padding.
        in_place: as for `_Convolution`.
    """

    def __init__(
        self, padding: SamePadding, convolution: nn.Conv2d, chain: _Chain, size: torch.Size, in_place: bool
    ) -> None:
        super().__init__()
        self.padding = padding
        padded = torch.Size([*size[:2], *(side + sum(padding.around(side)) for side in size[2:])])
        self.general = _Convolution(convolution, chain, padded, in_place)
        (top, bottom), (left, right) = (padding.around(side) for side in size[2:])
        wider = nn.Conv2d(
            convolution.in_channels, convolution.out_channels, 1, padding.stride, (bottom, right),
            groups=convolution.groups, bias=False,
        )  # fmt: skip
        wider.weight = nn.Parameter(F.pad(convolution.weight.detach(), (right - left, 0, bottom - top, 0)))
        wider.bias = convolution.bias
        self.typical = _Convolution(wider, chain, size, in_place)
        self.remainders = tuple(side % padding.stride for side in size[2:])

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """`[batch, in_channels, h, w]` -> `[batch, out_channels, h', w']`, the shape of `shortcut`."""
        if tuple(side % self.padding.stride for side in x.shape[2:]) == self.remainders:
            return self.typical(x, shortcut)
        return self.general(self.padding(x), shortcut)


def fold_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of convolution and norm together; computed in float64, rounded once."""
    weight, bias = convolution.weight.detach(), convolution.bias
    bias = None if bias is None else bias.detach()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight.double()
    mean = norm.running_mean.double() if bias is None else norm.running_mean.double() - bias.double()
    offset = -mean * factor
    offset = offset if norm.bias is None else offset + norm.bias.double()
    return (weight.double() * factor[:, None, None, None]).to(weight.dtype), offset.to(weight.dtype)


def _run(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, torch.Size]]:
    """A network's scores, and the input shape of each convolution and padding."""
    sizes: dict[str, torch.Size] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda _, inputs: sizes.update({name: inputs[0].shape})

    hooks = [
        layer.register_forward_pre_hook(record(name))
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, SamePadding))
    ]
    try:
        scores: Tensor = network(images)
        return scores, sizes
    finally:
        for hook in hooks:
            hook.remove()


def _rewrite(module: fx.GraphModule, sizes: dict[str, torch.Size]) -> fx.GraphModule:
    """Replace each convolution and the steps after it by one step."""
    graph, layers = module.graph, dict(module.named_modules())
    for number, node in enumerate(list(graph.nodes)):
        if node.op == "placeholder":
            with graph.inserting_after(node):
                images = graph.call_method("contiguous", (node,), {"memory_format": torch.channels_last})
            node.replace_all_uses_with(images, delete_user_cb=lambda user, images=images: user is not images)
        layer = layers.get(node.target) if node.op == "call_module" else None
        if is_plain(layer, nn.Conv2d) and layer.padding_mode == "zeros" and layer.padding != "same":
            chain = _Chain(node, layers)
            name = f"step{number}"
            in_place = _can_overwrite(module, chain)
            before = node.args[0]
            padding = layers.get(before.target)
            step: nn.Module
            if isinstance(padding, SamePadding) and has_onednn(layer.weight):
                step = _SameConvolution(padding, layer, chain, sizes[before.target], in_place)
                (images,) = before.args
            else:
                step, images = _Convolution(layer, chain, sizes[node.target], in_place), before
            module.add_submodule(name, step)
            with graph.inserting_after(chain.nodes[-1]):
                result = graph.call_module(name, (images, *chain.shortcut))
            chain.nodes[-1].replace_all_uses_with(result)
            for replaced in reversed(chain.nodes):
                graph.erase_node(replaced)
            if not before.users:  # the padding, which is a part of the step now
                graph.erase_node(before)
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval()


def _can_overwrite(module: fx.GraphModule, chain: _Chain) -> bool:
    """Whether the shortcut owns its memory, and no step reads it after the sum."""
    convolution = chain.nodes[0]
    return all(
        shortcut.op == "call_module"
        and isinstance(
            module.get_submodule(str(shortcut.target)), (_Convolution, _SameConvolution, nn.MaxPool2d)
        )
        and all(user in chain.nodes[1:] or user < convolution for user in shortcut.users)
        for shortcut in chain.shortcut
    )


class _Chain:
    """A convolution and the steps after it that one kernel can compute.

    Attributes:
        nodes: the convolution, then optionally a norm, a sum and an activation.
        norm: the layer of the norm, if any.
        shortcut: the other term of the sum, if any.
        activation: a key of `_ACTIVATIONS`, if any.
    """

    def __init__(self, convolution: fx.Node, layers: dict[str, nn.Module]) -> None:
        self.nodes = [convolution]
        self.norm: nn.BatchNorm2d | None = None
        self.shortcut: tuple[fx.Node, ...] = ()
        self.activation: Any = None
        while self.activation is None and len(self.nodes[-1].users) == 1:
            last, (node,) = self.nodes[-1], self.nodes[-1].users
            step = layers.get(str(node.target)) if node.op == "call_module" else node.target
            others = tuple(n for n in node.all_input_nodes if n is not last)
            if is_plain(step, nn.BatchNorm2d) and len(self.nodes) == 1 and step.running_mean is not None:
                self.norm = step
            elif step is operator.add and not self.shortcut and len(others) == 1:
                self.shortcut = others
            elif (kind := type(step) if isinstance(step, nn.Module) else step) in _ACTIVATIONS:
                if self.shortcut and _ACTIVATIONS[kind] is not _RELU:  # oneDNN supports no other after a sum
                    return
                self.activation = kind
            else:
                return
            self.nodes.append(node)
