"""Intervals of the scores that are no proportions: one bootstrap over the samples serves all."""

# L labelled rows of a table, C classes, R resamples

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.calibration import Decision, brier_scores, calibration_error, calibration_statistic
from src.counting import area_statistic, confusion_counts
from src.intervals import Statistic, bootstrap, percentile_interval, reflected_interval
from src.table import Float64s, Int64s, Table, log_softmax


@dataclass(frozen=True)
class Resampled:
    """What the resamples of a table give.

    Attributes:
        f1s: float64 [R, C], NaN for a class that does not occur.
        areas: float64 [R, C], of the receiver operating characteristic; NaN where not defined.
        calibrations: of each decision: loss, brier and ece, with their intervals.
    """

    f1s: Float64s
    areas: Float64s
    calibrations: list[dict[str, Any]]


def resample(rows: Table, predicted: Int64s, decisions: list[Decision]) -> Resampled:
    """Draw the resamples of the labelled rows.

    Args:
        rows: L labelled rows.
        predicted: int64 [L], their predicted classes.
        decisions: whose probabilities are looked at.

    Returns:
        What 1,000 resamples give, the same ones for all scores.
    """
    statistics = _statistics(rows, predicted)
    looks = [_Probabilities.of(rows, decision) for decision in decisions]
    for number, look in enumerate(looks):
        statistics |= {f"{number} {name}": s for name, s in look.statistics().items()}
    drawn = bootstrap(statistics, rows.target.size)
    found = [
        look.with_intervals({name: drawn[f"{number} {name}"] for name in ("loss", "brier", "ece")})
        for number, look in enumerate(looks)
    ]
    return Resampled(drawn["f1s"], drawn["areas"], found)


def _statistics(rows: Table, predicted: Int64s) -> dict[str, Statistic]:
    log_probabilities, num_classes = log_softmax(rows.logits), rows.logits.shape[1]
    areas = [area_statistic(col, rows.target == c) for c, col in enumerate(log_probabilities.T)]

    def f1s(counts: Int64s) -> Float64s:
        cells = confusion_counts(rows.target, predicted, num_classes, counts)
        there = cells.sum(axis=0) + cells.sum(axis=1)
        return np.where(there > 0, 2 * np.diag(cells) / np.maximum(there, 1), math.nan)

    return {
        "f1s": f1s,
        "areas": lambda counts: [area(counts) for area in areas],
    }


@dataclass(frozen=True)
class _Probabilities:
    """What a decision's probabilities are worth, sample by sample, [L] each."""

    losses: Float64s
    briers: Float64s
    confidence: Float64s
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Table, decision: Decision) -> "_Probabilities":
        probabilities = decision.probabilities(rows.logits)
        logs = log_softmax(rows.logits.astype(np.float64) / decision.temperature)
        return cls(
            -logs[np.arange(rows.target.size), rows.target],
            brier_scores(probabilities, rows.target),
            probabilities.max(axis=1),
            rows.predicted == rows.target,
        )

    def statistics(self) -> dict[str, Statistic]:
        return {
            "loss": _weighted_mean(self.losses),
            "brier": _weighted_mean(self.briers),
            "ece": calibration_statistic(self.confidence, self.right),
        }

    def with_intervals(self, drawn: Mapping[str, Float64s]) -> dict[str, Any]:
        error = calibration_error(self.confidence, self.right)
        return {
            **with_interval("loss", _mean(self.losses), drawn["loss"]),
            **with_interval("brier", _mean(self.briers), drawn["brier"]),
            "ece": error,
            "ece_interval": ends(reflected_interval(drawn["ece"], error)),
        }


def means_of_defined(drawn: Float64s) -> Float64s:
    """Return the mean of each row's defined values, float64 [R] of [R, C]; NaN where none is."""
    defined = ~np.isnan(drawn)
    sums, sizes = np.where(defined, drawn, 0.0).sum(axis=1), defined.sum(axis=1)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), math.nan)


def with_interval(name: str, value: float, drawn: Float64s) -> dict[str, Any]:
    """Return a score and its interval, None where it is not defined."""
    if math.isnan(value):
        return {name: None, f"{name}_interval": None}
    return {name: value, f"{name}_interval": ends(percentile_interval(drawn))}


def ends(interval: tuple[float, float] | None) -> list[float] | None:
    """Return an interval as JSON has it."""
    return None if interval is None else list(interval)


def _weighted_mean(values: Float64s) -> Statistic:
    return lambda counts: float(counts @ values) / values.size


def _mean(values: Float64s) -> float:
    return 0.0 + math.fsum(values.tolist()) / values.size  # 0.0, lest a perfect loss be -0.0
