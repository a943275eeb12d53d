"""Fast implementations of layers and networks, kept out of the model files.

`prepare` installs them, in place and once. It gives a module of `striate.models` the class of its fast
counterpart (`module.__class__ = ...`). The counterpart subclasses the plain one and adds no state, so
parameters, state-dict keys, hooks, copies and `isinstance` stay valid; only the methods change. The plain
classes define the result: a prepared network returns the same numbers up to rounding.

| module          | makes fast                                                                             |
|-----------------|----------------------------------------------------------------------------------------|
| `linear`        | linear layers of a Transformer: by oneDNN on processors where MKL is slow               |
| `dropout`       | dropout of a Transformer on a CPU: 16 random bits per element                           |
| `attention`     | projections by `linear`; attention for few queries; packed and cached keys and values   |
| `sequence`      | text-to-text and image-to-text networks: no work on padding                             |
| `cross_entropy` | loss over a large vocabulary: never holds the scores of all tokens                      |
| `decoding`      | writing text token by token, with cached keys and values                                |
| `folding`       | `fold`: convolution, norm, sum and activation in one step, for inference                |
| `layout`        | channels-last memory layout of convolutions, for training                               |
| `prepacking`    | `prepack`: weights in the layout of oneDNN, for inference                               |
| `allocator`     | keeps freed memory in the process                                                       |
| `preload`       | loads the libraries of torch in a thread                                                |

Importing this package does not load torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from striate.kernels import allocator

if TYPE_CHECKING:
    import torch
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")


def prepare(network: Network, device: torch.device, *, training: bool) -> Network:
    """Move a network to a device and install the fast kernels.

    Calling it again changes nothing. On a CPU, the process keeps freed memory from then on.

    Args:
        network: changed in place; parameters that an optimizer holds remain its parameters.
        device: where the network will run.
        training: whether it will be trained; then wide convolutions get the channels-last layout. (For
            inference, `folding.fold` and `prepacking.prepack` arrange the weights.)

    Returns:
        The network.
    """
    from striate.kernels import layout

    if device.type == "cpu":
        allocator.keep()
    is_sequence = False
    if "striate.models.transformer" in sys.modules:  # without it, the network has none of these layers
        from striate.kernels import installation
        from striate.models.seq2seq import SequenceToSequence

        installation.install(network)
        is_sequence = isinstance(network, SequenceToSequence)
    network = network.to(device)
    if training and not is_sequence:  # its few convolutions keep the default layout
        layout.use_channels_last(network, device)
    return network
