"""Speeds that timm publishes."""

from __future__ import annotations

# Images per second in training and in inference on one RTX 3090: timm's benchmarks, files
# results/benchmark-{train,infer}-amp-nhwc-pt112-cu113-rtx3090.csv. Mixed precision, channels last, eager.
RTX_3090_IMAGES_PER_SECOND: dict[str, tuple[float, float]] = {
    "mobilenet_v3_small": (8035.08, 34913.55),
    "mobilenet_v3_large": (2732.43, 12955.77),
    "resnet18": (3481.78, 11023.60),
    "resnet34": (2036.51, 6404.45),
    "resnet50": (1218.01, 3676.35),
    "resnet101": (747.89, 2246.09),
    "vgg11": (954.03, 3048.59),
    "vgg11_bn": (832.74, 2701.91),
    "vit_ti_16": (2299.56, 6844.80),
    "vit_s_16": (1057.92, 3005.65),
    "vit_b_32": (1708.63, 4923.14),
}
