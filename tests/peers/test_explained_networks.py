"""Explanations of networks of timm, torchvision and users, all of whose parameters are frozen."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm", reason="timm is not installed: make test-peers")
pytest.importorskip("torchvision", reason="torchvision is not installed: make test-peers")

sys.path.insert(0, str(Path(__file__).parent))

import hand_written
import timm
import torchvision
from unchanged_network import require_unchanged, state_of

from striate.explain import METHODS, Explainer, compute
from striate.explain.perturbation import occlusion

pytestmark = pytest.mark.slow

TRANSFORMERS = {"vit_tiny_patch16_224", "vit_b_32", "deit_tiny_patch16_224"}
CASES = {
    **{
        f"timm:{name}": (lambda n=name: timm.create_model(n, num_classes=3), size)
        for name, size in {
            "resnet10t": 64, "convnext_atto": 64, "mobilenetv3_small_050": 64, "efficientnet_lite0": 64,
            "vit_tiny_patch16_224": 224, "deit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 224,
            "regnetx_002": 64, "mobilevit_xxs": 64, "edgenext_xx_small": 64, "densenet121": 64,
        }.items()
    },
    **{
        f"torchvision:{name}": (lambda n=name: torchvision.models.get_model(n, num_classes=3), size)
        for name, size in {
            "resnet18": 64, "squeezenet1_1": 64, "shufflenet_v2_x0_5": 64, "densenet121": 64, "vit_b_32": 224,
        }.items()
    },
    "a module": (lambda: hand_written.Residual(3), 64),
    "attention": (lambda: hand_written.Attention(3), 64),
    "a local class": (lambda: hand_written.recurrent(3), 64),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_method(case):
    torch.manual_seed(0)
    make, size = CASES[case]
    network = make().train().requires_grad_(False)
    before, image = state_of(network), torch.randn(1, 3, size, size)
    explainer = Explainer(network, (3, size, size))
    is_transformer = case.split(":")[-1] in TRANSFORMERS
    for name, method in METHODS.items():
        if method.networks == "attention" and not is_transformer:
            continue
        if name == "occlusion":
            values = occlusion(explainer, image, 1, window=size // 2, stride=size // 2)
        else:
            values = compute(explainer, image, 1, name, samples=method.samples and 2)
        assert values.isfinite().all()
        assert values.ndim == 2
        if method.networks == "attention":
            assert values.shape == explainer.location.grid
    require_unchanged(network, before)
    folded = compute(Explainer(network, (3, size, size), folded=True), image, 1)
    expected = compute(explainer, image, 1)
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-12)
