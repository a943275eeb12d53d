"""A trained network made ready for prediction: the same function of the image, in fewer steps.

In evaluation BatchNorm is a multiplication and an addition for each channel, which go into the weights and
biases of the convolution before it (Jacob et al. 2018, arXiv:1712.05877, section 3.2). A sum with a shortcut
and an activation after that are done where the convolution writes its result, and on a CPU the weights lie
the way that oneDNN's kernel reads them, which it otherwise arranges anew in each call.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from striate.models.layers import check_images
from striate.models.linear import Linear, linear, onednn
from striate.models.transformer import Dropout, MultiHeadAttention

Network = TypeVar("Network", bound=nn.Module)

ROWS = 32  # that a decoder's step multiplies with a matrix; other numbers are right, but slower
TOLERANCE = 1e-4  # of the largest score: folding rounds anew, which changes scores by about 1e-6 of it

# What may follow a convolution: its name in oneDNN, and the same in place.
_Activation = tuple[str, Callable[[Tensor], Tensor]]
_NONE: _Activation = ("none", lambda x: x)
_RELU: _Activation = ("relu", F.relu_)
_ACTIVATIONS: dict[Any, _Activation] = {
    nn.ReLU: _RELU,
    F.relu: _RELU,
    F.hardswish: ("hardswish", lambda x: F.hardswish(x, inplace=True)),
    F.hardsigmoid: ("hardsigmoid", lambda x: F.hardsigmoid(x, inplace=True)),
    F.silu: ("swish", lambda x: F.silu(x, inplace=True)),
}

# The feed-forward layers of a Transformer for text.
_FEED_FORWARD = [Linear, nn.ReLU, Dropout, Linear, Dropout]


def fold(network: nn.Module, shape: tuple[int, int, int], tolerance: float = TOLERANCE) -> nn.Module:
    """The network with its convolutions, norms, sums and activations folded together, for inference only.

    Both answer one image of noise. Where the answers differ by more than rounding explains, or the network
    cannot be followed (its steps depend on what it reads), it is given back itself.

    Args:
        network: in evaluation mode; it is left as it is, and layers that do not change are shared, so
            that later changes of its weights may or may not show.
        shape: channels, height and width of the images it will mostly see; others are right, but slower.
        tolerance: of the largest score, by which the answers may differ.

    Returns:
        A module that reads and answers what the network does, on the same device.
    """
    base = copy.copy(network)  # the tracer leaves constants behind
    try:
        graph = Tracer().trace(base)
    except Exception:  # a forward may do anything to what it reads, and the stand-in bears little of it
        return network
    weight = next(network.parameters())
    noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        expected, sizes = _run(network, noise)
        try:
            folded = _rewritten(fx.GraphModule(base, graph), sizes)
            answer = folded(noise)
        except RuntimeError:  # a sum that is not of two maps of one shape; a processor that oneDNN lacks
            return network
        same = (answer - expected).abs().max() <= tolerance * expected.abs().max()  # False for NaN
    return folded if same else network


class Tracer(fx.Tracer):
    """Follows a network's forward with a stand-in for the images; the check of their shape stays a step."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(check_images, linear))


class _Convolution(nn.Module):
    """A convolution with its norm folded in, and what comes after it.

    Args:
        convolution: gives geometry and weights.
        chain: what comes after it.
        size: of its input, for which the weights are arranged.
        spent: whether the sum may be written over the shortcut.
    """

    def __init__(self, convolution: nn.Conv2d, chain: _Chain, size: torch.Size, spent: bool) -> None:
        super().__init__()
        self.geometry: dict[str, Any] = {
            "stride": convolution.stride,
            "padding": convolution.padding,
            "dilation": convolution.dilation,
            "groups": convolution.groups,
        }
        self.weight, self.bias = _without_norm(convolution, chain.norm)
        self.name, self.activate = _ACTIVATIONS.get(chain.activation, _NONE)
        self.spent = spent
        self.packed = _onednn(self.weight)
        if self.packed:
            arrange = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = arrange(self.weight, **self.geometry, input_size=size)
        else:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """`[batch, in_channels, h, w]` to what the convolution gives, `shortcut` of that shape added."""
        if not self.packed:
            x = F.conv2d(x, self.weight, self.bias, **self.geometry)
            return self.activate(x if shortcut is None else x.add_(shortcut))
        if shortcut is None:
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, **self.geometry, attr=self.name, scalars=[], algorithm=None
            )
        else:
            # The one whose name ends in _ writes the sum over the shortcut.
            name = "_convolution_pointwise_" if self.spent else "_convolution_pointwise"
            y = getattr(torch.ops.mkldnn, name).binary(
                X=x, other=shortcut, W=self.weight, B=self.bias, **self.geometry,
                binary_attr="add", alpha=1.0,
                unary_attr=None if self.name == "none" else self.name, unary_scalars=[], unary_algorithm=None,
            )  # fmt: skip
        return y


def _without_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that do what convolution and norm did; worked out in float64, rounded once."""
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


def _onednn(weight: Tensor) -> bool:
    """Whether oneDNN's convolutions are at hand for a weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's omission
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _run(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, torch.Size]]:
    """A network's answer, and the shape that each convolution read on the way."""
    sizes: dict[str, torch.Size] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda _, inputs: sizes.update({name: inputs[0].shape})

    hooks = [
        layer.register_forward_pre_hook(noting(name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        answer: Tensor = network(images)
        return answer, sizes
    finally:
        for hook in hooks:
            hook.remove()


def _rewritten(module: fx.GraphModule, sizes: dict[str, torch.Size]) -> fx.GraphModule:
    """Put a step in place of each convolution and what follows it."""
    graph, layers = module.graph, dict(module.named_modules())
    for number, node in enumerate(list(graph.nodes)):
        if node.op == "placeholder":
            with graph.inserting_after(node):
                images = graph.call_method("contiguous", (node,), {"memory_format": torch.channels_last})
            node.replace_all_uses_with(images, delete_user_cb=lambda user, images=images: user is not images)
        layer = layers.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and layer.padding != "same":
            chain = _Chain(node, layers)
            name = f"step{number}"
            module.add_submodule(name, _Convolution(layer, chain, sizes[node.target], _spent(module, chain)))
            with graph.inserting_after(chain.nodes[-1]):
                step = graph.call_module(name, (*node.args, *chain.shortcut))
            chain.nodes[-1].replace_all_uses_with(step)
            for done in reversed(chain.nodes):
                graph.erase_node(done)
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval()


def _spent(module: fx.GraphModule, chain: _Chain) -> bool:
    """Whether the shortcut's memory is its own, and nobody reads it again once the sum is made."""
    convolution = chain.nodes[0]
    return all(
        shortcut.op == "call_module"
        and isinstance(module.get_submodule(str(shortcut.target)), (_Convolution, nn.MaxPool2d))
        and all(user in chain.nodes[1:] or user < convolution for user in shortcut.users)
        for shortcut in chain.shortcut
    )


class _Chain:
    """A convolution and those after it that read nothing else, as far as one step can do them.

    Attributes:
        nodes: the convolution, then maybe a norm, then maybe a sum, then maybe an activation.
        norm: the norm's layer, if there is one.
        shortcut: what the sum adds, if there is one.
        activation: a key of `_ACTIVATIONS`, if there is one.
    """

    def __init__(self, convolution: fx.Node, layers: dict[str, nn.Module]) -> None:
        self.nodes = [convolution]
        self.norm: nn.BatchNorm2d | None = None
        self.shortcut: tuple[fx.Node, ...] = ()
        self.activation: Any = None
        while self.activation is None and len(self.nodes[-1].users) == 1:
            last, (node,) = self.nodes[-1], self.nodes[-1].users
            what = layers.get(str(node.target)) if node.op == "call_module" else node.target
            others = tuple(n for n in node.all_input_nodes if n is not last)
            if isinstance(what, nn.BatchNorm2d) and len(self.nodes) == 1 and what.running_mean is not None:
                self.norm = what
            elif what is operator.add and not self.shortcut and len(others) == 1:
                self.shortcut = others
            elif (kind := type(what) if isinstance(what, nn.Module) else what) in _ACTIVATIONS:
                if self.shortcut and _ACTIVATIONS[kind] is not _RELU:  # oneDNN has no other after a sum
                    return
                self.activation = kind
            else:
                return
            self.nodes.append(node)


def arrange(network: Network) -> Network:
    """A network whose linear layers and attentions have their weights arranged, for inference only.

    Args:
        network: in evaluation mode, on any device; it is left as it is, and what does not change is shared.

    Returns:
        A module that does what the network does; the network itself where oneDNN is not at hand: off the CPU,
        or in other types than float32.
    """
    return cast(Network, _arranged(network)) if _onednn(next(network.parameters())) else network


def _arranged(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Linear):
        return _ArrangedLinear(module.weight, module.bias)
    if isinstance(module, nn.Sequential) and [type(layer) for layer in module] == _FEED_FORWARD:
        first = module[0]
        first = _ArrangedLinear(first.get_parameter("weight"), first.get_parameter("bias"), "relu")
        return nn.Sequential(first, _arranged(module[3]))
    module = copy.copy(module)
    module._modules = {
        name: None if child is None else _arranged(child) for name, child in module._modules.items()
    }
    if isinstance(module, MultiHeadAttention):
        module.__class__ = _ArrangedAttention
    return module


class _ArrangedLinear(nn.Module):
    """A linear layer.

    Args:
        weight: `[out, in]`.
        bias: `[out]` or None.
        activation: the name in oneDNN of what comes after it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return onednn(x, self.weight, self.bias, self.activation)


class _ArrangedAttention(MultiHeadAttention):
    """Attention with those projections arranged that it is asked for."""

    def _project(self, x: Tensor, first: int, last: int) -> Tensor:
        name = f"_projection_{first}_{last}"
        if name not in self._modules:
            rows = slice(first * x.shape[-1], last * x.shape[-1])
            self._modules[name] = _ArrangedLinear(self.in_proj_weight[rows], self.in_proj_bias[rows])
        y: Tensor = self.get_submodule(name)(x)
        return y
