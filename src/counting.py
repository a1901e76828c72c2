"""What scores count: pairs of samples in the right order, and samples by target and prediction."""

# N samples, C classes

import math

import numpy as np
from numpy.typing import ArrayLike

from src.intervals import Statistic
from src.table import Int64s


def auroc(score: ArrayLike, positive: ArrayLike) -> float | None:
    """Return the area under the receiver operating characteristic, exact with ties.

    It is the share of (positive, negative) pairs in the right order, a tie counting half, from the
    midranks (Mann and Whitney 1947).

    Args:
        score: floats [N], higher for a positive.
        positive: bools [N].

    Returns:
        A number of 0 to 1; None without both positives and negatives.
    """
    area = float(area_statistic(score, positive)(np.ones(np.size(score), np.int64)))
    return None if math.isnan(area) else area


def area_statistic(score: ArrayLike, positive: ArrayLike) -> Statistic:
    """Return the area as a statistic of how often each sample is there; see `auroc`."""
    is_positive = np.asarray(positive, dtype=bool)
    values, group = np.unique(np.asarray(score), return_inverse=True)

    def area(counts: Int64s) -> float:
        # Whole numbers, which float64 holds exactly, in the order of the scores.
        ups, downs = (
            np.bincount(group, counts * side, values.size) for side in (is_positive, ~is_positive)
        )
        pairs = ups.sum() * downs.sum()
        below = np.cumsum(downs) - downs
        return float(ups @ (2 * below + downs) / (2 * pairs)) if pairs else math.nan

    return area


def confusion_counts(
    target: Int64s, predicted: Int64s, num_classes: int, counts: Int64s | None = None
) -> Int64s:
    """Return the confusion counts, int64 [C, C], rows the targets, columns the predictions.

    Args:
        target: int64 [N], 0 to C - 1.
        predicted: int64 [N], 0 to C - 1.
        num_classes: C.
        counts: int64 [N], how often each sample is there; None means once.
    """
    cells = np.bincount(target * num_classes + predicted, counts, num_classes * num_classes)
    return cells.astype(np.int64).reshape(num_classes, num_classes)
