"""Where a function crosses zero."""

from collections.abc import Callable

_STEPS = 100  # halvings: more than float64 has digits


def root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function crosses zero between two ends, or the end that is nearer."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
