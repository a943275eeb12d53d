"""Datasets: images with labels (`images`), text pairs (`text`), detections, and data checks (`check`)."""

from striate.data.images import (
    DataSet,
    Decoded,
    Loaded,
    Problem,
    Samples,
    Source,
    SplitPlan,
    located,
    open_data,
    split,
)

__all__ = [
    "DataSet", "Decoded", "Loaded", "Problem", "Samples", "Source", "SplitPlan", "located", "open_data",
    "split",
]  # fmt: skip
