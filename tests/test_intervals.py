"""Bootstrap intervals: by hand where that can be done, else by what they are there for."""

import math

import numpy as np
import pytest

from src.intervals import bootstrap, percentile_interval, reflected_interval


def mean_of(values: np.ndarray):
    return lambda counts: float(counts @ values) / counts.sum()


def test_a_resample_holds_as_many_samples() -> None:
    drawn = bootstrap({"sum": lambda counts: counts.sum(), "all": lambda counts: counts}, 7, 50)
    assert drawn["sum"].tolist() == [7.0] * 50
    assert drawn["all"].shape == (50, 7)
    assert len({tuple(row) for row in drawn["all"]}) > 40  # not the same one again


def test_the_same_resamples_each_time_and_for_each_statistic() -> None:
    values = np.arange(20.0)
    first = bootstrap({"a": mean_of(values), "b": mean_of(values)}, 20, 30)
    assert (first["a"] == first["b"]).all()
    assert (bootstrap({"a": mean_of(values)}, 20, 30)["a"] == first["a"]).all()


def test_the_middle_95_percent() -> None:
    assert percentile_interval(np.arange(1001.0)) == (25.0, 975.0)
    assert percentile_interval(np.array([math.nan, 2.0, math.nan])) == (2.0, 2.0)
    assert percentile_interval(np.array([math.nan])) is None


def test_reflected_by_hand() -> None:
    drawn = np.arange(1001.0) / 1000
    assert reflected_interval(drawn, 0.6) == pytest.approx((0.225, 1.175))
    assert reflected_interval(drawn, 0.1) == (0.0, pytest.approx(0.175))
    assert reflected_interval(drawn + 1, 0.1) == (0.0, 0.1)  # the one found stays between them
    assert reflected_interval(np.array([math.nan]), 0.1) is None


def test_a_mean_is_as_far_off_as_theory_says() -> None:
    """The interval of a mean is 2 * 1.96 standard errors wide."""
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = percentile_interval(bootstrap({"mean": mean_of(values)}, 400, 2000)["mean"]) or (
        0,
        0,
    )
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.1)
