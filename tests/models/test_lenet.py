"""LeNet and LeNet-5: the layers by the paper's formulas. The counts of parameters are in test_facts.py."""

import numpy as np
import pytest
import torch

from striate.errors import LayoutError, UsageError
from striate.models import build
from striate.models.lenet5 import C3_TABLE, RadialBasis, Subsampling, TableConv2d, squash


def test_squash_is_the_papers():
    """f(1) = 1 and f(-1) = -1 (appendix A); A = 1.7159, S = 2/3 (equation 6)."""
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(squash(x).numpy(), 1.7159 * np.tanh(2 / 3 * x.numpy()), rtol=1e-12)
    assert abs(squash(x[3]) - 1) < 1e-4


def test_subsampling_adds_four_neighbours():
    torch.manual_seed(0)
    layer = Subsampling(2).double()
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64)
    sums = x[..., 0::2, 0::2] + x[..., 0::2, 1::2] + x[..., 1::2, 0::2] + x[..., 1::2, 1::2]
    expected = sums * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)


def test_table_1_links_60_of_96_pairs_as_the_paper_describes():
    """Six maps see 3 contiguous ones, six 4 contiguous ones, three 4 others, one all (section II.B)."""
    sees = [{inp for inp, row in enumerate(C3_TABLE) if out in row} for out in range(16)]
    assert [len(maps) for maps in sees] == [3] * 6 + [4] * 9 + [6]
    contiguous = [{(start + i) % 6 for i in range(n)} for n in (3, 4) for start in range(6)]
    assert sees[:12] == contiguous
    assert not any(maps in contiguous for maps in sees[12:])


def test_a_map_of_c3_sees_only_its_links():
    torch.manual_seed(0)
    layer = TableConv2d(C3_TABLE, 16)
    torch.nn.init.ones_(layer.weight)
    for inp, row in enumerate(C3_TABLE):
        x = torch.zeros(1, 6, 5, 5)
        x[:, inp] = 1.0
        assert [out for out in range(16) if layer(x)[0, out].any()] == list(row)


def test_output_is_the_distance_to_the_codes():
    """y = sum of (x - w)^2 (equation 7), here with the sign of a score."""
    torch.manual_seed(0)
    layer = RadialBasis(10)
    assert layer.codes.shape == (10, 84)
    assert layer.codes.abs().eq(1).all()
    assert len({tuple(code.tolist()) for code in layer.codes}) == 10
    x = torch.randn(3, 84)
    expected = -((x[:, None].numpy() - layer.codes.numpy()[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5)
    assert torch.equal(layer(layer.codes).argmax(1), torch.arange(10)), "a code is nearest to itself"


def test_lenet5_refuses_what_its_codes_do_not_cover():
    with pytest.raises(UsageError, match="lenet"):
        build("lenet5", num_classes=11)
    with pytest.raises(LayoutError, match="32"):
        build("lenet5")(torch.zeros(1, 1, 28, 28))


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        # 25 * 6 * in + 6, 25 * 6 * 16 + 16, 16 * side * side * 120 + 120, 120 * 84 + 84, 84 * out + out
        ({"input_size": 28, "in_channels": 1}, 156 + 2416 + 16 * 4 * 4 * 120 + 120 + 10164 + 850),
        ({"input_size": (32, 48)}, 456 + 2416 + 16 * 5 * 9 * 120 + 120 + 10164 + 850),
        ({"widths": (16, 32)}, 1216 + 12832 + 32 * 25 * 120 + 120 + 10164 + 850),
        ({"num_classes": 2}, 456 + 2416 + 16 * 25 * 120 + 120 + 10164 + 170),
    ],
)
def test_lenet_of_other_sizes_and_widths(arguments, parameters):
    network = build("lenet", **arguments)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network(torch.zeros(2, network.in_channels, *network.input_size)).shape[0] == 2


def test_lenet_refuses_images_of_which_nothing_would_be_left():
    assert build("lenet", input_size=16)(torch.zeros(1, 3, 16, 16)).shape == (1, 10)
    with pytest.raises(UsageError, match="16 or more"):
        build("lenet", input_size=15)
