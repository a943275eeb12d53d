"""Anatomy of a network: output size, receptive field, parameters and MACs of each layer."""

from striate.anatomy.arithmetic import conv_output_size, explain, receptive_field, reduction, stack
from striate.anatomy.gradient import check, effective_field
from striate.anatomy.records import Anatomy, Layer
from striate.anatomy.tracing import trace

__all__ = [
    "Anatomy", "Layer", "check", "conv_output_size", "effective_field", "explain", "receptive_field",
    "reduction", "stack", "trace",
]  # fmt: skip
