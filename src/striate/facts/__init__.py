"""Every published number about the networks, with its source and how certain it is.

A `Count` follows from the architecture, so anyone can count it again; a test does so for each of them. Some
printed counts are wrong for the network as described: `differs` has the true number. A `Result` was measured
by training or timing and can only be quoted.

A multiply-add counts once ("MACs"; torchvision calls them GFLOPS), in convolutions, fully connected layers
and attention. Biases, normalization, activations and pooling are not counted.
"""

from __future__ import annotations

from striate.facts import packages, papers, torchvision
from striate.facts.records import Count, Result, WeightsFile
from striate.facts.timm import RTX_3090_IMAGES_PER_SECOND
from striate.facts.torchvision import TORCHVISION, V1, V2

__all__ = [
    "COUNTS", "RESULTS", "RTX_3090_IMAGES_PER_SECOND", "TORCHVISION", "V1", "V2", "WEIGHTS", "Count",
    "Result", "WeightsFile",
]  # fmt: skip

WEIGHTS: tuple[WeightsFile, ...] = packages.WEIGHTS + torchvision.WEIGHTS
COUNTS: tuple[Count, ...] = torchvision.COUNTS + papers.COUNTS
RESULTS: tuple[Result, ...] = torchvision.RESULTS + papers.RESULTS
