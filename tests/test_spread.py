"""Mean, spread and Student's t, against tables and by hand."""

import math

import pytest

from src.spread import spread, t_quantile


@pytest.mark.parametrize(
    ("freedom", "expected"),
    # Any table of the t distribution, two-sided 5 %.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)],
)
def test_quantiles_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 63.657), (4, 4.604), (10, 3.169)])
def test_another_level(freedom: int, expected: float) -> None:
    assert t_quantile(freedom, 0.99) == pytest.approx(expected, abs=5e-4)


def test_quantiles_in_closed_form() -> None:
    # One degree of freedom is Cauchy's law, two have p = t / sqrt(2 + t^2).
    assert t_quantile(1, 0.5) == pytest.approx(1.0, rel=1e-12)
    assert t_quantile(2, 0.5) == pytest.approx(math.sqrt(2 / 3), rel=1e-12)


def test_many_degrees_are_the_normal_law() -> None:
    assert t_quantile(100_000) == pytest.approx(1.95998, abs=2e-5)


def test_by_hand() -> None:
    # Deviations -2, 0, 2: the variance is 8 / 2, the half width 4.3027 * 2 / sqrt(3).
    found = spread([1.0, 3.0, 5.0])
    assert (found["mean"], found["sd"], found["min"], found["max"]) == (3.0, 2.0, 1.0, 5.0)
    assert found["interval"] == pytest.approx([0.0, 3 + 4.96828], abs=1e-4)  # and not below 0
    assert spread([1.0, 3.0, 5.0], high=6.0)["interval"] == [0.0, 6.0]


def test_a_single_number_has_no_spread() -> None:
    assert spread([0.5]) == {"mean": 0.5, "sd": None, "min": 0.5, "max": 0.5, "interval": None}


def test_equal_numbers() -> None:
    found = spread([0.25, 0.25])
    assert (found["sd"], found["interval"]) == (0.0, [0.25, 0.25])
