"""What every layer of a network does to size, sight and cost."""

from striate.anatomy.records import Anatomy, Layer
from striate.anatomy.tracing import trace

__all__ = ["Anatomy", "Layer", "trace"]
