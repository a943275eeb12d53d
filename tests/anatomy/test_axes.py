"""Views keep track of the pixel that each value comes from, however they split and merge dimensions."""

import itertools
import random

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from striate.anatomy import axes, trace
from striate.anatomy.propagation import input_fields
from striate.anatomy.receptive_fields import ReceptiveField
from striate.anatomy.recorder import Origin, Recorder

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def fields_after(view, shape):
    """The receptive fields after `view` of an image of this shape."""
    recorder = Recorder(shape[2:])
    x = torch.empty(shape, device="meta")
    recorder.set_origin(x, Origin(input_fields(4), frozenset((-1,))))
    recorder.enter_module("", nn.Identity())
    with recorder:
        y = view(x)
    return recorder.fields_of(y)


def check_view(view, shape, known=True):
    """Compare the pixel of each value by its receptive field with the same view of the pixels' numbers."""
    fields = fields_after(view, shape)
    for image_axis, axis in enumerate(fields):
        numbers = torch.arange(shape[2 + image_axis]).view([-1, 1] if image_axis == 0 else [1, -1])
        pixels = view(numbers.expand(shape))
        if not known and axis.reported is None:
            continue
        assert axis.reported is not None
        for index in itertools.product(*map(range, pixels.shape)):
            digits = axes.digits_of(axis, pixels.shape)
            unit = sum(index[d.dim] // d.inner % d.size * d.stride for d in digits)
            assert axis.reported.at(unit) == (int(pixels[index]),) * 2


@st.composite
def views(draw):
    """Random permutations, joined and divided dimensions, of a small batch of images."""
    shape = (draw(st.integers(1, 2)), 2, draw(st.sampled_from([3, 4, 6])), draw(st.sampled_from([2, 4, 5])))
    kinds = st.sampled_from(["permute", "divide", "join"])
    steps = draw(st.lists(st.tuples(kinds, st.integers(0, 99)), max_size=7))

    def view(x):
        for kind, seed in steps:
            choice = random.Random(seed)
            if kind == "permute":
                x = x.permute(choice.sample(range(x.ndim), x.ndim))
            elif kind == "join" and x.ndim > 1:
                dim = choice.randrange(x.ndim - 1)
                x = x.reshape(*x.shape[:dim], x.shape[dim] * x.shape[dim + 1], *x.shape[dim + 2 :])
            elif kind == "divide":
                dim = choice.randrange(x.ndim)
                size = choice.choice([n for n in range(1, x.shape[dim] + 1) if x.shape[dim] % n == 0])
                x = x.reshape(*x.shape[:dim], size, x.shape[dim] // size, *x.shape[dim + 1 :])
        return x

    return view, shape


@quick
@given(views())
def test_each_value_of_a_view_comes_from_the_pixel_that_its_field_names(case):
    check_view(*case, known=False)


SHAPE = (2, 3, 6, 8)
VIEWS = {
    "windows": lambda x: x.view(2, 3, 2, 3, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(16, 6, 3),
    "grid": lambda x: x.view(2, 3, 3, 2, 2, 4).permute(0, 3, 5, 2, 4, 1).reshape(16, 6, 3),
    "windows and back": lambda x: (
        x.view(2, 3, 2, 3, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(16, 6, 3)
        .view(2, 2, 4, 3, 2, 3).permute(0, 5, 1, 3, 2, 4).reshape(SHAPE)
    ),
    "space to depth": lambda x: x.view(2, 3, 3, 2, 4, 2).permute(0, 3, 5, 1, 2, 4).reshape(2, 12, 3, 4),
    "rolled windows": lambda x: (
        torch.roll(x, (-2, 3), (2, 3)).view(2, 3, 2, 3, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(16, 6, 3)
    ),
    "rolled and back": lambda x: torch.roll(torch.roll(x, (-2, 3), (2, 3)), (2, 5), (2, 3)),
    "rolled tokens": lambda x: torch.roll(x.flatten(2), 5, 2),
    "flipped": lambda x: x.flip(3).flatten(2).flip(2),
    "tokens after a class token": lambda x: torch.cat([x.flatten(2)[:, :, :1], x.flatten(2)], 2)[:, :, 1:]
    .reshape(SHAPE),
    "halves swapped": lambda x: torch.cat([x[:, :, 4:], x[:, :, :4]], 2),
    "third window": lambda x: x.view(2, 3, 2, 3, 8).permute(0, 2, 1, 3, 4)[:, 1],
    "strided": lambda x: x.mean(1, keepdim=True).as_strided((2, 1, 6, 8), (48, 1, 8, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_windows_and_tokens(name):
    check_view(lambda x: VIEWS[name](x.float() if name == "strided" else x), SHAPE)


def test_a_reshape_that_cuts_rows_unevenly_is_unknown():
    rows, columns = fields_after(lambda x: x.reshape(1, 10, 7), (1, 1, 7, 10))
    assert (rows.reported, columns.reported) == (None, None)


def test_irregular_units_continue_at_the_average_distance():
    # Beyond the last unit is padding: its receptive field must not come from the other end of the map.
    field = ReceptiveField.from_intervals([(0, 3), (4, 8), (9, 14)])
    assert field.at(3) == (14, 17)
    assert field.at(-1) == (-5, 0)


def test_a_long_sequence_is_traced_in_a_moment():
    class Net(nn.Module):
        def forward(self, x):
            tokens = torch.cat([torch.zeros(1, 1, 3), x.flatten(2).transpose(1, 2)], 1)
            return tokens[:, 1:].transpose(1, 2).reshape(1, 3, 128, 128) * 2

    anatomy = trace(Net(), size=128)
    assert anatomy.layers[-1].sees((5, 127)) == ((5, 5), (127, 127))
    assert not anatomy.untracked
