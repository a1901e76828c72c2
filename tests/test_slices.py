"""Thirds of the pictures by a measure."""

import numpy as np
import pytest

from src.slices import LEAST, slices


def test_thirds_and_their_scores() -> None:
    values = np.arange(90.0)[::-1]  # the order of the pictures does not matter
    right = values < 60  # what is bright is named wrongly
    dark, medium, bright = slices({"brightness": values}, right)
    assert [s.name for s in (dark, medium, bright)] == ["dark", "medium", "bright"]
    assert [s.n for s in (dark, medium, bright)] == [30, 30, 30]
    assert [s.accuracy for s in (dark, medium, bright)] == [1, 1, 0]
    assert (dark.low, dark.high, bright.low, bright.high) == (0, 29, 60, 89)
    assert dark.interval == pytest.approx((0.8865, 1.0), abs=1e-4)  # Wilson: 30 / (30 + 3.8415)


def test_equal_values_stay_together() -> None:
    values = np.repeat([1.0, 2.0, 3.0], [32, 28, 30])
    found = slices({"size": values}, np.ones(90, bool))
    assert [(s.low, s.high, s.n) for s in found] == [(1, 1, 32), (2, 2, 28), (3, 3, 30)]


def test_nothing_where_nothing_parts_them() -> None:
    assert slices({"size": np.full(90, 7.0)}, np.ones(90, bool)) == []
    few = np.arange(float(3 * LEAST - 1))  # the middle third would have one less
    assert slices({"sharpness": few}, np.ones(few.size, bool)) == []
    tied = np.repeat([1.0, 2.0, 3.0], [50, LEAST - 1, 30])
    assert slices({"size": tied}, np.ones(tied.size, bool)) == []
    assert slices({}, np.ones(3, bool)) == []
