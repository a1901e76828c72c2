"""Whether two classifiers differ, from the pictures that both were asked: pure functions."""

# N pictures, M tests

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.intervals import Z_95
from src.roots import root

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """How often two classifiers were right on the same pictures.

    Attributes:
        both_right: Pictures that both named rightly.
        only_first: Pictures that the first alone did.
        only_second: Pictures that the second alone did.
        both_wrong: Pictures that neither did.
    """

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int

    @classmethod
    def of(cls, first: Bools, second: Bools) -> "Pairs":
        """Count them, from bool [N] each: whether a picture was named rightly."""
        return cls(
            int((first & second).sum()),
            int((first & ~second).sum()),
            int((~first & second).sum()),
            int((~first & ~second).sum()),
        )

    @property
    def n(self) -> int:
        """All pictures."""
        return self.both_right + self.only_first + self.only_second + self.both_wrong

    @property
    def difference(self) -> float:
        """The second's accuracy less the first's, -1 to 1."""
        return (self.only_second - self.only_first) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference; see `tango_interval`."""
        return tango_interval(self.only_first, self.only_second, self.n)

    @property
    def p(self) -> float:
        """The p-value of no difference; see `mcnemar_exact`."""
        return mcnemar_exact(self.only_first, self.only_second)

    @property
    def mid_p(self) -> float:
        """The less cautious p-value; see `mcnemar_mid_p`."""
        return mcnemar_mid_p(self.only_first, self.only_second)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's test (1947), exact by the binomial distribution.

    Were the two equally good, each picture that only one of them named rightly would be the one's
    or the other's like a coin's sides.

    Args:
        only_first: Pictures that the first alone named rightly, 0 or more.
        only_second: Pictures that the second alone did, 0 or more.

    Returns:
        A number of 0 to 1; 1 where they never differ.
    """
    return min(1.0, 2 * math.fsum(_coin(only_first, only_second)))


def mcnemar_mid_p(only_first: int, only_second: int) -> float:
    """Return the mid-p-value of McNemar's test: what was found counts half.

    The exact test is cautious, the more so the fewer pictures differ; this one is close to the
    level that it states and was never found above it (Fagerland, Lydersen and Laake 2013, BMC
    Medical Research Methodology 13:91).

    Args:
        only_first: Pictures that the first alone named rightly, 0 or more.
        only_second: Pictures that the second alone did, 0 or more.
    """
    terms = _coin(only_first, only_second)
    return min(1.0, 2 * math.fsum(terms) - terms[-1])


def _coin(one: int, other: int) -> list[float]:
    """Return the probabilities of 0, 1, ... up to the smaller of two counts of a coin's sides."""
    n = one + other
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        for k in range(min(one, other) + 1)
    )
    return [math.exp(log - n * math.log(2)) for log in logs]


def tango_interval(
    only_first: int, only_second: int, n: int, z: float = Z_95
) -> tuple[float, float]:
    """Return the score interval of the second's accuracy less the first's, on the same pictures.

    Tango (1998, Statistics in Medicine 17:891-908): the differences that a score test does not
    reject, which for a difference of 0 is McNemar's. It holds its level at small numbers and near
    the ends (Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850-2875).

    Args:
        only_first: Pictures that the first alone named rightly, 0 or more.
        only_second: Pictures that the second alone did, 0 or more.
        n: All pictures, at least these two together, and 1.
        z: standard normal quantile; the default gives 95 %.

    Returns:
        The lower and the upper end, within -1 to 1.

    Raises:
        ValueError: for counts that can't be.
    """
    if n < 1 or min(only_first, only_second) < 0 or only_first + only_second > n:
        raise ValueError(f"no pairs: {only_first} and {only_second} of {n} pictures.")
    upper = _upper_end(only_first, only_second, n, z)
    return -_upper_end(only_second, only_first, n, z), upper


def _upper_end(only_first: int, only_second: int, n: int, z: float) -> float:
    """Return the highest difference that the score test does not reject, by bisection."""
    found = (only_second - only_first) / n
    return root(lambda d: 1.0 if _rejects(d, only_first, only_second, n, z) else -1.0, found, 1.0)


def _rejects(difference: float, only_first: int, only_second: int, n: int, z: float) -> bool:
    """Return whether the score test rejects a difference.

    Its variance is that of the likeliest shares with that difference: the share that the first
    alone has is the positive root of a quadratic equation.
    """
    excess = only_second - only_first - n * difference
    slope = (2 * n - only_second + only_first) * difference - only_first - only_second
    constant = -only_first * difference * (1 - difference)
    root = math.sqrt(max(slope * slope - 8 * n * constant, 0.0))
    share = (root - slope) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    return excess * excess > z * z * variance


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several (Holm 1979), in the order given.

    Of M tests without any difference, one or more falls below 0.05 in at most 5 % of the cases.

    Args:
        p_values: M numbers of 0 to 1.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[at]))
        corrected[at] = highest
    return corrected
