import numpy as np
import pytest
import torch

from striate.transforms import native
from striate.transforms.normalization import normalize
from striate.transforms.preprocess import Preprocess

MEAN, STD = (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 1 / 255)


@pytest.fixture(params=[True, False], ids=["native", "numpy"], autouse=True)
def kernel(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(native, "_native", None)
    elif native._native is None:
        pytest.skip("the native module was not built here")


def formula(batch, mean, std):
    """torchvision's ToTensor and Normalize."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std


def batches(channels):
    generator = np.random.default_rng(channels)
    whole = torch.from_numpy(generator.integers(0, 256, (3, 16, 21, channels), np.uint8))
    whole[0, :, :16] = torch.arange(256, dtype=torch.uint8).view(16, 16, 1)
    yield whole
    yield whole[:, 2:13, 5:17]  # a crop
    yield whole[::2, ::3]
    yield whole[:, :, ::2]
    yield whole.flip(2)
    yield whole.permute(0, 2, 1, 3)
    yield whole.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # channels first in memory
    yield whole[:, :1, :1]
    yield whole[:0]
    yield whole.float() + 0.25


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_values_are_those_of_the_formula_to_the_bit(channels):
    mean, std = MEAN[:channels], STD[:channels]
    for batch in batches(channels):
        before = batch.clone()
        found = normalize(batch, mean, std)
        assert torch.equal(found, formula(batch, mean, std))
        assert (found.dtype, found.is_contiguous()) == (torch.float32, True)
        assert torch.equal(batch, before)


def test_the_kernel_reads_usual_batches(request):
    """Whole batches and crops, with the channels last in memory."""
    expected = "native" in request.node.name
    tables = np.zeros((3, 256), np.float32)
    for batch, _ in zip(batches(3), range(3), strict=False):
        assert (native.normalize(batch.numpy(), tables) is not None) == (expected and batch.stride(2) == 3)
    assert native.normalize(next(batches(3)).float().numpy(), tables) is None


def test_sixteen_channels():
    batch = torch.randint(0, 256, (2, 5, 4, 16), dtype=torch.uint8)
    preprocess = Preprocess.for_size(4, 16)
    assert torch.equal(preprocess.normalize(batch), formula(batch, (0.5,) * 16, (0.5,) * 16))
