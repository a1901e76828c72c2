"""Tests for pairs, against numbers in print and worked out by hand."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.intervals import Z_95
from src.paired import Pairs, holm, mcnemar_exact, mcnemar_mid_p, tango_interval

COUNTS = st.integers(0, 40)


class TestMcNemar:
    @pytest.mark.parametrize(
        ("one", "other", "exact", "mid"),
        [
            # Fagerland, Lydersen and Laake 2013: 21 children before and after a transplantation.
            (1, 7, 0.0703, 0.0391),
            # And 161 patients before and after a consolidation therapy.
            (6, 16, 0.0525, 0.0347),
        ],
    )
    def test_numbers_in_print(self, one: int, other: int, exact: float, mid: float) -> None:
        assert mcnemar_exact(one, other) == pytest.approx(exact, abs=5e-5)
        assert mcnemar_mid_p(one, other) == pytest.approx(mid, abs=5e-5)

    def test_by_hand(self) -> None:
        # Five coins show at most one head in 1 + 5 of 32 ways, and exactly one in 5.
        assert mcnemar_exact(4, 1) == pytest.approx(12 / 32, rel=1e-12)
        assert mcnemar_mid_p(4, 1) == pytest.approx(7 / 32, rel=1e-12)
        assert mcnemar_exact(0, 6) == pytest.approx(2 / 64, rel=1e-12)

    @pytest.mark.parametrize("count", [0, 1, 3, 50])
    def test_equal_counts_say_nothing(self, count: int) -> None:
        assert mcnemar_exact(count, count) == 1.0
        assert mcnemar_mid_p(count, count) == pytest.approx(1.0, rel=1e-12)

    @given(COUNTS, COUNTS)
    def test_is_the_binomial_sum(self, one: int, other: int) -> None:
        n, least = one + other, min(one, other)
        exact = min(Fraction(1), Fraction(2 * sum(comb(n, k) for k in range(least + 1)), 2**n))
        assert mcnemar_exact(one, other) == pytest.approx(float(exact), rel=1e-11)
        assert mcnemar_exact(one, other) == mcnemar_exact(other, one)
        assert mcnemar_mid_p(one, other) <= mcnemar_exact(one, other)

    def test_many_pictures(self) -> None:
        # A million coins have a standard deviation of 500; 999.5 too few are 1.999 of them, and
        # the normal law has 2.2804 % below.
        assert mcnemar_exact(499_000, 501_000) == pytest.approx(2 * 0.022804, abs=2e-6)
        assert mcnemar_exact(0, 10_000) == 0.0


class TestTango:
    @pytest.mark.parametrize(
        ("one", "other", "n", "low", "high"),
        [
            # The same two studies, as Fagerland, Lydersen and Laake 2014 and their R package
            # contingencytables have them; with the sign of the second less the first.
            (7, 1, 21, -0.517, -0.026),
            (16, 6, 161, -0.1240, -0.0054),
        ],
    )
    def test_numbers_in_print(self, one: int, other: int, n: int, low: float, high: float) -> None:
        digits = 5e-4 if n == 21 else 5e-5
        assert tango_interval(one, other, n) == (
            pytest.approx(low, abs=digits),
            pytest.approx(high, abs=digits),
        )

    def test_another_level(self) -> None:
        # PropCIs::scoreci.mp(25, 28, 618, 0.90) in R.
        low, high = tango_interval(25, 28, 618, z=1.6448536269514722)
        assert (round(low, 4), round(high, 4)) == (-0.0148, 0.0247)

    def test_where_nothing_differs(self) -> None:
        # The variance at d is n d (1 - d), so d = z^2 / (n + z^2) is the end.
        end = Z_95**2 / (50 + Z_95**2)
        assert tango_interval(0, 0, 50) == (pytest.approx(-end), pytest.approx(end))

    def test_where_everything_differs(self) -> None:
        # The share of the first alone is (1 - d) / 2, the variance n (1 - d) (1 + d).
        low, high = tango_interval(0, 50, 50)
        assert low == pytest.approx((50 - Z_95**2) / (50 + Z_95**2))
        assert high == 1.0
        assert tango_interval(50, 0, 50) == (-high, -low)

    @given(COUNTS, COUNTS, st.integers(0, 400))
    def test_agrees_with_the_test_without_correction(self, one: int, other: int, more: int) -> None:
        """Zero is inside exactly where McNemar's z is below its quantile."""
        n = one + other + more
        if n == 0:
            return
        low, high = tango_interval(one, other, n)
        assert -1 <= low <= (other - one) / n <= high <= 1
        if one + other:
            z = (other - one) / (one + other) ** 0.5
            assert (low <= 0 <= high) == (abs(z) <= Z_95)

    @given(COUNTS, COUNTS, st.integers(1, 400))
    def test_turns_round_with_the_order(self, one: int, other: int, more: int) -> None:
        n = one + other + more
        low, high = tango_interval(one, other, n)
        assert tango_interval(other, one, n) == (-high, -low)

    @pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 0, 3), (2, 2, 3)])
    def test_counts_that_can_not_be(self, counts: tuple[int, int, int]) -> None:
        with pytest.raises(ValueError, match=r"^no pairs: -?\d and \d of \d pictures"):
            tango_interval(*counts)


class TestPairs:
    def test_are_counted(self) -> None:
        first = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
        second = np.array([1, 0, 1, 1, 0, 0, 1, 1], bool)
        found = Pairs.of(first, second)
        assert found == Pairs(both_right=3, only_first=1, only_second=2, both_wrong=2)
        assert found.n == 8
        assert found.difference == 1 / 8
        assert found.p == 1.0

    def test_the_sign_is_of_the_second(self) -> None:
        found = Pairs(both_right=80, only_first=2, only_second=14, both_wrong=4)
        low, high = found.interval
        assert found.difference == 0.12
        assert 0 < low < 0.12 < high


class TestHolm:
    def test_by_hand(self) -> None:
        # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, none below the one before it.
        assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])

    def test_at_most_one(self) -> None:
        assert holm([0.6, 0.9]) == [1.0, 1.0]

    def test_one_and_none(self) -> None:
        assert holm([0.3]) == [0.3]
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_keeps_the_order_and_begins_with_bonferroni(self, ps: list[float]) -> None:
        found = holm(ps)
        assert all(p <= corrected <= 1 for p, corrected in zip(ps, found, strict=True))
        assert min(found) == min(1, len(ps) * min(ps))
        ranked = [corrected for _, corrected in sorted(zip(ps, found, strict=True))]
        assert ranked == sorted(ranked)
