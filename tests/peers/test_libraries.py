"""Preprocessing and published weights of timm and torchvision, compared with their own functions."""

import numpy as np
import pytest
import torch
from PIL import Image

import striate
from striate import anatomy, bundle
from striate.weights.libraries import preprocess_of

timm = pytest.importorskip("timm", reason="timm is not installed: make test-peers")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed: make test-peers")

pytestmark = pytest.mark.slow

STAGES = {"resnet18": 6, "convnext_atto": 6, "vit_tiny_patch16_224": 14, "efficientnet_lite0": 10}

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 431, 3)).astype(np.uint8))


def normalized(preprocess):
    pixels = preprocess.fit(np.asarray(PHOTO))
    return preprocess.normalize(torch.from_numpy(pixels[None].copy()))[0]


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "vit_tiny_patch16_224", "resnet50", "convnext_tiny.fb_in1k"]
)
def test_preprocessing_of_timm(name):
    model = timm.create_model(name, pretrained=False)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    torch.testing.assert_close(normalized(preprocess_of(f"timm:{name}")), theirs(PHOTO), atol=1e-5, rtol=0)
    assert preprocess_of("object:X", model) == preprocess_of(f"timm:{name}")


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "efficientnet_b0", "inception_v3"])
def test_preprocessing_of_torchvision(name):
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    torch.testing.assert_close(
        normalized(preprocess_of(f"torchvision:{name}")), theirs(PHOTO), atol=1e-5, rtol=0
    )


def test_published_weights_are_adapted_to_the_channels(tmp_path, monkeypatch):
    """The download is a file in torch's cache, as after an earlier one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.resnet18().state_dict()
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(published, tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    labels = np.arange(16) % 2
    images = np.random.default_rng(0).integers(0, 256, (16, 48, 48, 5)).astype(np.uint8)
    run = striate.train(
        (images, labels), model="torchvision:resnet18", weights="imagenet", transfer="last", epochs=1,
        batch=4, imgsz=32, out=str(tmp_path / "runs"),
    )  # fmt: skip
    description, state = bundle.read(run.training.last)
    expected = published["conv1.weight"].mean(dim=1, keepdim=True).expand(-1, 5, -1, -1) * 3 / 5
    torch.testing.assert_close(state["conv1.weight"], expected)
    mean = np.mean([0.485, 0.456, 0.406])
    assert description.preprocess.mean == pytest.approx((mean,) * 5)
    trained = ("layer4.", "fc.")  # the last two stages
    for name, tensor in published.items():
        if name != "conv1.weight" and not name.startswith(trained):
            assert torch.equal(state[name], tensor), name
    assert not torch.equal(state["layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])
    assert state["fc.weight"].shape == (2, 512)


def test_anatomy_by_name():
    found = anatomy.trace("torchvision:resnet18", size=224)
    assert (found.params, found.macs) == (11_689_512, 1_814_073_344)  # torchvision's page, and fvcore
    assert anatomy.trace("timm:resnet18", size=224).params == 11_689_512


def test_stages_of_transfer_learning():
    from striate.models.foreign import stage_containers
    from striate.training.transfer import stages

    for name, count in STAGES.items():
        network = timm.create_model(name)
        network.stage_containers = stage_containers(network, "")
        assert len(stages(network)) == count, (name, stages(network))
