"""Datasets: images with labels (`images`), text pairs (`text`), detections, and data checks (`check`)."""

from striate.data.images import absolute_source, open_data
from striate.data.images.base import Images, InMemoryImages, Problem, first_problems, left_out
from striate.data.images.decoded import DecodedImages
from striate.data.images.samples import DataSet, Samples
from striate.data.images.split import SplitPlan, split

__all__ = [
    "DataSet", "DecodedImages", "Images", "InMemoryImages", "Problem", "Samples", "SplitPlan",
    "absolute_source", "first_problems", "left_out", "open_data", "split",
]  # fmt: skip
