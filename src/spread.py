"""Mean and spread of a few numbers, such as the scores of runs that differ in their seed alone."""

import math
from collections.abc import Sequence
from typing import Any

from src.roots import root


def spread(values: Sequence[float], high: float = math.inf) -> dict[str, Any]:
    """Return what there is to say of some numbers.

    Args:
        values: One or more, from 0, none of them NaN.
        high: The most that one can be.

    Returns:
        mean, sd (of a sample: n - 1), min, max, and interval: the 95 % of Student's t for the mean
        of ever more numbers of the kind, from 0 to high. sd and interval are None for a single
        number.
    """
    mean = math.fsum(values) / len(values)
    found: dict[str, Any] = {"mean": mean, "sd": None, "min": min(values), "max": max(values)}
    if len(values) < 2:
        return {**found, "interval": None}
    squares = math.fsum((value - mean) ** 2 for value in values)
    sd = math.sqrt(squares / (len(values) - 1))
    half = t_quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return {**found, "sd": sd, "interval": [max(mean - half, 0.0), min(mean + half, high)]}


def t_quantile(freedom: int, level: float = 0.95) -> float:
    """Return the number that Student's t stays within with a probability.

    Args:
        freedom: degrees of freedom, 1 or more.
        level: the probability, above 0 and below 1.
    """
    angle = root(lambda angle: _within(angle, freedom) - level, 0.0, math.pi / 2)
    return math.sqrt(freedom) * math.tan(angle)


def _within(angle: float, freedom: int) -> float:
    """Return the probability that |t| is at most sqrt(freedom) * tan(angle).

    The finite sums 26.7.3 and 26.7.4 of Abramowitz and Stegun, Handbook of Mathematical Functions.
    """
    odd = freedom % 2
    term, terms = (math.cos(angle) if odd else 1.0), [0.0]
    for k in range(1, (freedom - odd) // 2 + 1):
        terms.append(term)
        term *= math.cos(angle) ** 2 * (2 * k - 1 + odd) / (2 * k + odd)
    total = math.sin(angle) * math.fsum(terms)
    return 2 / math.pi * (angle + total) if odd else total
