"""95 % intervals: how far a score may lie from what as many other pictures would have given."""

# N samples, R resamples

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
RESAMPLES = 1000
_SEED = 0  # of the resamples: a table gives the same interval each time

Float64s = NDArray[np.float64]
Counts = NDArray[np.int64]  # how often a resample holds each sample, [N]
Statistic = Callable[[Counts], Any]  # a float or floats [K]; NaN where one is not defined


def wilson_interval(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927).

    Args:
        successes: how many of the n trials succeeded, 0 to n.
        n: trials, 1 or more.
        z: standard normal quantile; the default gives 95 %.

    Returns:
        The lower and the upper end, within 0 to 1.

    Raises:
        ValueError: n is below 1 or successes lies outside 0 to n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"no proportion: {successes} successes of {n} trials.")
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exactly 0 and 1 at the extremes; rounding alone would miss them.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def bootstrap(
    statistics: Mapping[str, Statistic], n: int, resamples: int = RESAMPLES
) -> dict[str, Float64s]:
    """Return statistics of samples drawn with replacement (Efron 1979), float64 [R] or [R, K].

    The same resamples serve all statistics, and the same ones are drawn each time.

    Args:
        statistics: Of how often each sample is there, int64 [N]; NaN where one is not defined.
        n: N, 1 or more.
        resamples: R, 1 or more.
    """
    draw = np.random.Generator(np.random.Philox(_SEED))
    drawn: dict[str, list[Any]] = {name: [] for name in statistics}
    for _ in range(resamples):
        counts = np.bincount(draw.integers(n, size=n), minlength=n)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(counts))
    return {name: np.array(values, np.float64) for name, values in drawn.items()}


def percentile_interval(drawn: Float64s) -> tuple[float, float] | None:
    """Return the middle 95 % of a bootstrap; None if the statistic is nowhere defined."""
    values = drawn[~np.isnan(drawn)]
    if not values.size:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def reflected_interval(drawn: Float64s, found: float) -> tuple[float, float] | None:
    """Return the basic bootstrap interval (Davison and Hinkley 1997): the middle 95 %, reflected.

    A statistic that noise can only raise, as an expected calibration error, is raised by the
    resampling once more; reflected at the one found, its interval reaches down by as much.

    Returns:
        The lower and the upper end, at least 0, with the one found between them; None if the
        statistic is nowhere defined.
    """
    middle = percentile_interval(drawn)
    if middle is None:
        return None
    return max(min(2 * found - middle[1], found), 0.0), max(2 * found - middle[0], found)
