"""Memory is given again, and never to two at once."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate import memory


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    kept = []
    monkeypatch.setattr(memory, "_blocks", kept)
    return kept


def address(array):
    return array.__array_interface__["data"][0]


HOLDERS = {
    "the array": lambda array: array,
    "a view": lambda array: array[3:, ::2],
    "another type": lambda array: array.view(np.uint8),
    "a tensor": torch.from_numpy,
    "a tensor's view": lambda array: torch.from_numpy(array).t()[1:],
    "what autograd saved": lambda array: torch.from_numpy(array) * torch.ones(1, requires_grad=True),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_somebody_holds_is_not_given_again(hold):
    first = memory.empty((1024, 512), np.float32)
    place, held = address(first), hold(first)
    del first
    assert address(memory.empty((1024, 512), np.float32)) != place
    del held


@pytest.mark.parametrize("shape", [(1024, 512), (512, 2, 512)])
def test_what_was_let_go_is_given_again_in_any_shape_and_type(shape):
    place = address(memory.empty((2, 1024, 1024), np.uint8))
    again = memory.empty(shape, np.float32)
    assert (address(again), again.shape, again.dtype) == (place, shape, np.float32)


def test_small_arrays_are_numpys_own(blocks):
    memory.empty((100,), np.float32)
    assert not blocks


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), max_size=30))
def test_no_two_arrays_overlap_and_no_more_is_kept_than_may_be(wanted):
    memory._blocks.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "KEPT", 6 << 20)
        held = []
        for number, (mebibytes, dropped) in enumerate(wanted):
            del held[:dropped]
            array = memory.empty((mebibytes, 1 << 20), np.uint8)
            array[:] = number
            held.append((number, array))
            assert all((array == number).all() for number, array in held)
            assert sum(block.nbytes for block in memory._blocks) <= memory.KEPT


def test_threads_do_not_get_the_same():
    wrong = []

    def work(number):
        for _ in range(50):
            array = memory.empty((1 << 20,), np.uint8)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
