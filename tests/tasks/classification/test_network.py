"""The optimizer's groups in transfer learning: pretrained layers at a lower rate than the new classifier."""

import pytest
import torch

from striate import models
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.network import parameter_groups


def test_learning_rates_of_backbone_and_head():
    network = models.build("resnet20", num_classes=2)
    groups = parameter_groups(ClassificationConfig("x", lr=0.5, backbone_lr=0.02), network, "linear")
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert scale[id(parameter)] == pytest.approx(1.0 if name.startswith("linear") else 0.04)
    assert ClassificationConfig("x", lr=0.5).backbone_peak_lr == pytest.approx(0.05)


def test_without_pretrained_weights_all_layers_have_the_full_rate():
    network = models.build("resnet20", num_classes=2)
    groups = parameter_groups(ClassificationConfig("x", lr=0.5), network, None)
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_the_backbones_rate_is_combined_with_layer_decay():
    with torch.device("meta"):
        network = models.build("resnet18")
    config = ClassificationConfig("x", lr=1.0, layer_decay=0.5, backbone_lr=0.1)
    scales = {group["lr_scale"] for group in parameter_groups(config, network, "fc")}
    assert sorted(scales, reverse=True) == pytest.approx([1.0, *(0.1 * 0.5**k for k in range(1, 6))])
