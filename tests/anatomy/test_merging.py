"""Receptive fields of windows, shifted windows, pooled and class attention agree with measured ones."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate.anatomy import check, trace

SIDE = 48


def measure(net, layer, size=SIDE):
    """The first and last row that changes each row of units of a map: every row of the image is changed once.

    Args:
        net: returns a map.
        layer: that of the map in the trace, which says which dimension has the rows.
    """
    torch.manual_seed(0)
    net = net.double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(3, size, size, dtype=torch.float64)
    images = image.repeat(size + 1, 1, 1, 1)
    for row in range(size):
        images[row, :, row] += 1 + torch.rand(3, size, dtype=torch.float64)
    with torch.no_grad():
        y = net(images)
    ((rows,), _) = layer.dims
    changed = (y[:-1] != y[-1:]).movedim(rows, 1).flatten(2).any(2)  # [changed row, unit]
    places = [changed[:, unit].nonzero().flatten().tolist() for unit in range(changed.shape[1])]
    return [(seen[0], seen[-1]) for seen in places]


def expected(layer, size=SIDE):
    """The same by the closed form."""
    spans = [layer.fields[0].at(unit) for unit in range(layer.map_size[0])]
    return [(max(first, 0), min(last, size - 1)) for first, last in spans]


def assert_measured(net, **options):
    """Trace the network, compare its last layer with the measurement, and return that layer."""
    anatomy = trace(net, torch.empty(1, 3, SIDE, SIDE), **options)
    assert not anatomy.untracked
    assert not anatomy.uncounted
    last = anatomy.layers[-1]
    assert not last.whole_image
    assert expected(last) == measure(net, last)
    return last


class Attention(nn.Module):
    """Self-attention of `[windows, tokens, channels]`; its mask is `[windows per image, tokens, tokens]`."""

    def __init__(self, width, fused):
        super().__init__()
        self.qkv, self.out, self.fused = nn.Linear(width, 3 * width), nn.Linear(width, width), fused

    def forward(self, x, mask=None):
        windows, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(windows, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            bias = None if mask is None else mask.repeat(windows // len(mask), 1, 1).unsqueeze(1)
            return self.out(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(x.shape))
        scores = q @ k.transpose(-2, -1)
        if mask is not None:
            each = scores.view(-1, len(mask), 2, tokens, tokens) + mask[None, :, None]
            scores = each.view(-1, 2, tokens, tokens)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, tokens, width))


def partition(x, window):
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def reverse(x, window, height, width):
    x = x.view(-1, height // window, width // window, window, window, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])


class Swin(nn.Module):
    """Patches of 4 pixels, then attention in windows of 3 patches, plain and shifted by `shift` patches."""

    def __init__(self, shift=1, fused=False, masked=True):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, stride=4)
        self.norm = nn.LayerNorm(4)
        self.plain, self.shifted = Attention(4, fused), Attention(4, fused)
        self.shift = shift
        regions = torch.zeros(1, 12, 12, 1)
        for i, rows in enumerate((slice(0, -3), slice(-3, -shift), slice(-shift, None))):
            for j, columns in enumerate((slice(0, -3), slice(-3, -shift), slice(-shift, None))):
                regions[:, rows, columns] = 3 * i + j
        regions = partition(regions, 3).squeeze(2)
        mask = (regions[:, :, None] != regions[:, None]) * -100.0
        self.register_buffer("mask", mask if masked else None)

    def forward(self, x):
        x = self.norm(self.patches(x).permute(0, 2, 3, 1))
        x = x + reverse(self.plain(partition(x, 3)), 3, 12, 12)
        rolled = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        rolled = reverse(self.shifted(partition(rolled, 3), self.mask), 3, 12, 12)
        return x + torch.roll(rolled, (self.shift, self.shift), (1, 2))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shift", [1, 2])
def test_shifted_windows_with_a_mask_do_not_wrap_around(shift, fused):
    last = assert_measured(Swin(shift, fused))
    # A shifted window of three patches touches two windows of the first block: 6 patches of 4 pixels.
    assert (last.rf, last.jump) == ((24, 24), (4, 4))


@pytest.mark.parametrize("fused", [False, True])
def test_shifted_windows_without_a_mask_wrap_around(fused):
    last = assert_measured(Swin(fused=fused, masked=False))
    assert last.rf == (48, 48)  # units next to both edges share a window


def test_windows_inside_a_shifted_map_are_exact():
    anatomy = trace(Swin(), torch.empty(1, 3, SIDE, SIDE))
    (scores,) = [layer for layer in anatomy.layers if layer.name == "shifted.softmax"]
    # Shifted windows begin at rows 1, 4, 7, 10 of the patches: the last one would be rows 10 to 12. Row 12 is
    # row 0, which the mask keeps apart: its window is rows -2 to 0, those before 0 being padding.
    assert scores.fields[0].at(0) == (0, 23)
    assert scores.fields[0].at(11) == (-12, 11)


class Grid(nn.Module):
    """Attention over a dilated grid (MaxViT): each patch sees every third one along both axes."""

    def __init__(self, merge=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, stride=4)
        self.attention = Attention(4, fused=False)
        self.after = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        grid = x.view(-1, 4, 3, 4, 3, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 16, 4)
        grid = self.attention(grid).view(-1, 3, 3, 4, 4, 4).permute(0, 3, 1, 4, 2, 5)
        return self.after(grid.reshape(x.shape).permute(0, 3, 1, 2))


def test_grid_attention_reaches_from_the_first_to_the_last_patch_of_its_grid():
    last = assert_measured(Grid())
    assert last.sees((5, 5))[0] == (4 * 0, 4 * 11 + 3)  # its neighbors see the grids from 0 and up to 11


class Merging(nn.Module):
    """Four neighboring patches become one with four times the channels, by a reshape or by slices (Swin)."""

    def __init__(self, slices):
        super().__init__()
        self.patches, self.slices = nn.Conv2d(3, 4, 5, stride=4, padding=2), slices
        self.norm, self.reduction = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        if self.slices:
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        else:
            x = x.reshape(-1, 6, 2, 6, 2, 4).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


@pytest.mark.parametrize("slices", [False, True])
def test_patch_merging(slices):
    last = assert_measured(Merging(slices))
    assert (last.rf, last.jump, last.start) == ((9, 9), (8, 8), (2.5, 2.5))
    # 12 x 12 patches from 5 x 5 x 3 pixels, then 6 x 6 products of 16 by 3
    assert trace(Merging(slices), size=SIDE).macs == 144 * 75 * 4 + 36 * 16 * 3


class ChannelsLast(nn.Module):
    """A ConvNeXt block: the norm and the linear layer need the channels last, so the pool gets such a map."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm, self.mlp = nn.LayerNorm(4), nn.Linear(4, 4)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.depthwise(self.stem(x))
        x = self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x, self.head(self.pool(x).flatten(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_of_channels_last_maps(layout):
    net, x = ChannelsLast().to(memory_format=layout), torch.empty(2, 3, SIDE, SIDE)
    anatomy = trace(net, x.contiguous(memory_format=layout))
    layers = {layer.name: layer for layer in anatomy.layers}
    assert not anatomy.uncounted
    assert not anatomy.untracked
    assert (layers["pool"].output, layers["head"].spatial) == ((2, 4, 1, 1), (False, False))
    assert layers["head"].whole_image
    # A kernel of 7 patches at a distance of 4 pixels, and the patch itself.
    assert layers["mlp"].rf == (6 * 4 + 4,) * 2
    assert layers["mlp"].map_size == (12, 12)
    # stem 144 x 48 x 4, depthwise 144 x 49 x 4, mlp 144 x 4 x 4 and head 4 x 2, each for two images
    assert anatomy.macs == 2 * (144 * 4 * (48 + 49 + 4) + 8)


def test_gradients_check_channels_last_maps():
    found = check(ChannelsLast(), size=(SIDE, 64))
    assert all(item.agrees for item in found)
    assert {item.layer for item in found} == {"stem", "depthwise"}  # later maps have the same fields
    assert all(item.agrees for item in check(Merging(slices=True), size=SIDE))


class Pooled(nn.Module):
    """Attention with pooled queries, keys and values, a class token and positions of the scores (MViT)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.pools = nn.ModuleList(nn.Conv2d(4, 4, 3, s, 1, groups=4) for s in (2, 4, 4))
        self.skip = nn.MaxPool2d(3, 2, 1)
        self.positions = nn.Parameter(torch.zeros(12, 6, 4))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        parts = []
        for pool, part in zip(self.pools, self.qkv(x).chunk(3, -1), strict=True):
            grid = pool(part[:, 1:].transpose(1, 2).reshape(-1, 4, 24, 24))
            parts.append(torch.cat([part[:, :1], grid.flatten(2).transpose(1, 2)], 1))
        q, k, v = parts
        scores = q @ k.transpose(1, 2)
        rows = torch.einsum("byxc,ykc->byxk", q[:, 1:].view(-1, 12, 12, 4), self.positions)
        scores[:, 1:, 1:] += (
            scores[:, 1:, 1:].view(-1, 12, 12, 6, 6) + rows[..., None]
        ).view(-1, 144, 36)  # fmt: skip
        grid = self.skip(x[:, 1:].transpose(1, 2).reshape(-1, 4, 24, 24)).flatten(2).transpose(1, 2)
        x = torch.cat([x[:, :1], grid], 1) + self.out(scores.softmax(-1) @ v)
        return x[:, 1:].transpose(1, 2).reshape(-1, 4, 12, 12)


def test_pooled_attention_keeps_the_pooled_patch():
    anatomy = trace(Pooled(), size=SIDE)
    last = anatomy.layers[-1]
    assert not anatomy.untracked
    # A 3x3 of stride 2 over another one sees 3 + 2 x 2 pixels; attention adds the whole image.
    assert (last.rf, last.whole_image) == ((7, 7), True)
    grid = [layer for layer in anatomy.layers if layer.name.startswith("pools.0")][-1]
    assert (grid.rf, grid.jump, grid.sees((3, 0))) == ((7, 7), (4, 4), ((9, 15), (-3, 3)))


class Cait(nn.Module):
    """Talking heads, which mix the scores of all heads, then attention of a class token (CaiT)."""

    def __init__(self, side):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8)
        self.qkv, self.heads = nn.Linear(8, 24), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def attend(self, token, x):
        u = self.norm(torch.cat([token, x], 1))
        q, k, v = self.q(u[:, 0]).unsqueeze(1), self.k(u), self.v(u)
        return token + F.scaled_dot_product_attention(q, k, v)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for _ in range(8):
            q, k, v = self.qkv(self.norm(x)).reshape(*x.shape[:2], 3, 4, 2).permute(2, 0, 3, 1, 4)
            scores = self.heads[0]((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1))
            scores = self.heads[1](scores.softmax(-2)).permute(0, 3, 1, 2)
            x = x + (scores @ v).transpose(1, 2).reshape(x.shape)
        token = self.token.expand(len(x), -1, -1)
        for _ in range(2):
            token = self.attend(token, x)
        return torch.cat([token, x], 1), token[:, 0]


@pytest.mark.parametrize("batch", [1, 2])
def test_talking_heads_and_class_attention_are_known_and_quick(batch):
    net, x = Cait(32), torch.empty(batch, 3, 128, 128)
    start = time.process_time()
    anatomy = trace(net, x)
    assert time.process_time() - start < 2  # it was 20 s when tables of all tokens stood for the fields
    assert not anatomy.untracked
    patches = [layer for layer in anatomy.layers if layer.name == "qkv"][-1]
    assert (patches.rf, patches.whole_image) == ((4, 4), True)
    joined = anatomy.layers[-1]
    assert (joined.rf, joined.rf_strict) == ((4, 4), (128, 128))
    assert anatomy.outputs == ((batch, 1025, 8), (batch, 8))


def test_writes_into_a_part_of_the_map_keep_known_fields():
    class Net(nn.Module):
        def forward(self, x):
            x = F.avg_pool2d(x, 3, 1, 1)
            x[:, :, 1:, 1:] += 2
            return x * 2

    assert assert_measured(Net()).rf == (3, 3)
