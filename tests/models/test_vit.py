"""The Vision Transformer: patches, positions for other image sizes, initial weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.errors import LayoutError, UsageError
from striate.models import build
from striate.models.vit import VisionTransformer, interpolate_positions


def cubic(distance, a=-0.75):
    """The kernel of cubic convolution (Keys 1981), with the slope that images are resized with."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def resized(row, length):
    """A row of numbers at `length` places, the first and the last where they were; edges repeat."""
    places = [index * (len(row) - 1) / (length - 1) if length > 1 else 0.0 for index in range(length)]
    out = []
    for place in places:
        near = range(int(np.floor(place)) - 1, int(np.floor(place)) + 3)
        out.append(sum(row[min(max(i, 0), len(row) - 1)] * cubic(place - i) for i in near))
    return np.array(out)


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    new=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
)
def test_positions_are_resized_as_a_picture(old, new, seed):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randn(1, 1 + old[0] * old[1], 2, dtype=torch.float64, generator=generator)
    ours = interpolate_positions(positions, new, old)
    assert torch.equal(ours[:, 0], positions[:, 0]), "the class token has no place"
    picture = positions[0, 1:].reshape(*old, 2).numpy()
    picture = np.apply_along_axis(resized, 0, picture, new[0])
    picture = np.apply_along_axis(resized, 1, picture, new[1])
    np.testing.assert_allclose(ours[0, 1:].reshape(*new, 2).numpy(), picture, rtol=1e-9, atol=1e-9)


def test_positions_of_the_same_size_stay():
    positions = torch.randn(1, 1 + 14 * 14, 8)
    assert torch.equal(interpolate_positions(positions, (14, 14)), positions)


def test_positions_keep_their_dtype():
    positions = torch.randn(1, 1 + 4, 8).half()
    assert interpolate_positions(positions, (3, 5)).dtype == torch.float16


@pytest.mark.parametrize(("shape", "grid"), [((1, 11, 8), None), ((1, 13, 8), (3, 5)), ((17, 8), None)])
def test_positions_that_fill_no_grid_are_refused(shape, grid):
    with pytest.raises(LayoutError, match="old_grid"):
        interpolate_positions(torch.zeros(shape), (4, 4), grid)


def test_weights_for_one_size_serve_another():
    """Four times the picture: with the positions interpolated, all weights fit."""
    torch.manual_seed(0)
    small = VisionTransformer(4, 1, 8, 2, num_classes=3, input_size=16)
    large = VisionTransformer(4, 1, 8, 2, num_classes=3, input_size=(24, 32))
    state = small.state_dict()
    state["encoder.pos_embedding"] = interpolate_positions(state["encoder.pos_embedding"], large.grid)
    large.load_state_dict(state, strict=True)
    assert large(torch.rand(2, 3, 24, 32)).shape == (2, 3)


def test_patches_are_read_row_by_row():
    """Token 1 + r * columns + c is the patch in row r and column c, times the projection (equation 1)."""
    torch.manual_seed(0)
    network = VisionTransformer(2, 1, 8, 2, num_classes=3, input_size=(4, 6)).double().eval()
    seen = []
    network.dropout.register_forward_hook(lambda _module, _input, out: seen.append(out))
    image = torch.rand(1, 3, 4, 6, dtype=torch.float64)
    network(image)
    weight = network.conv_proj.weight.detach().flatten(1)
    positions = network.encoder.pos_embedding.detach()
    assert seen[0].shape == (1, 7, 8)
    torch.testing.assert_close(seen[0][0, 0], network.class_token.detach()[0, 0] + positions[0, 0])
    for index in range(6):
        r, c = divmod(index, 3)
        patch = image[0, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten()
        torch.testing.assert_close(seen[0][0, 1 + index], weight @ patch + positions[0, 1 + index])


@pytest.mark.parametrize("size", [0, 8, 100, (224, 230), (230, 224)])
def test_images_that_patches_do_not_tile_are_refused(size):
    with pytest.raises(UsageError, match="from 1 to" if size == 0 else "multiples of 16"):
        build("vit_ti_16", input_size=size)


def test_images_of_another_size_are_refused():
    network = build("vit_ti_16", input_size=32)
    with pytest.raises(LayoutError, match="input_size"):
        network(torch.zeros(1, 3, 48, 48))


def test_a_new_network_scores_zero_and_its_positions_are_small():
    """As in the first implementation, the classifier starts at zero, which leaves no class preferred."""
    torch.manual_seed(0)
    network = build("vit_ti_16", num_classes=10).eval()
    assert not network(torch.rand(1, 3, 224, 224)).any()
    positions = network.encoder.pos_embedding
    assert abs(positions.std() / 0.02 - 1) < 0.05
    assert abs(network.conv_proj.weight.std() * (3 * 16 * 16) ** 0.5 - 1) < 0.05
