"""Datasets: images with labels (`images`), text pairs (`text`), detections, and data checks (`check`)."""

from striate.data.images import (
    DataSet,
    DecodedImages,
    Images,
    InMemoryImages,
    Problem,
    Samples,
    SplitPlan,
    absolute_source,
    open_data,
    split,
)

__all__ = [
    "DataSet", "DecodedImages", "Images", "InMemoryImages", "Problem", "Samples", "SplitPlan",
    "absolute_source", "open_data", "split",
]  # fmt: skip
