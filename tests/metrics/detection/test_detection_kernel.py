"""Which kernel is used, and that both look up ids alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.metrics.detection import kernel, reference

IDS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 9), max_size=30)


def test_a_missing_native_kernel_is_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(kernel, "_native", None)
    kernel._warn_once.cache_clear()
    assert kernel.functions() is reference
    assert kernel.functions() is reference
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "install a C++17 compiler" in caplog.text


@pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built here")
@settings(deadline=None)
@given(IDS, IDS)
def test_places(ids, known):
    expected = [max((i for i, k in enumerate(known) if k == id_), default=-1) for id_ in ids]
    for functions in (kernel._native, reference):
        out = np.full(len(ids), 7, np.int32)
        functions.places(np.array(ids, np.int64), np.array(known, np.int64), out)
        assert out.tolist() == expected


@pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built here")
def test_columns_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="out: 3 items"):
        kernel._native.places(np.zeros(2, np.int64), np.zeros(1, np.int64), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="ids: 2 items of 4 bytes"):
        kernel._native.places(np.zeros(2, np.int32), np.zeros(1, np.int64), np.zeros(2, np.int32))


@pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built here")
@pytest.mark.parametrize(
    ("first", "size", "message"),
    [
        (2, 1, "settings.first: 2"),
        (-1, 1, "settings.first: -1"),
        (0, 2, "precision: 2 items"),
        (1, 1, "precision: 1"),
    ],
)
def test_curves_that_do_not_fit_the_limits_are_refused(first, size, message):
    none, one = np.zeros(0), np.ones(1)
    places, flags, boxes = np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros((0, 4))
    truths = places, places, boxes, none, flags, flags, flags
    given = one, one, np.ones((1, 2)), np.ones(1, np.int64), first
    curves = np.empty(size), None, np.empty(1)
    with pytest.raises(ValueError, match=message):
        kernel._native.evaluate(
            1, 1, truths, (places, places, boxes, none, None, None, None), None, given, curves, (None,) * 4, 1
        )
