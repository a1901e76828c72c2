"""From logits to probabilities that mean what they say, and from those to a class.

N samples, C classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.errors import UserError
from src.roots import root
from src.table import Float64s, Int64s, Table, log_softmax

BINS = 15
_MOST = 20.0  # a temperature lies between this and its inverse


@dataclass(frozen=True)
class Decision:
    """How logits become probabilities and a class; fitted on validation, used everywhere.

    Attributes:
        temperature: Logits are divided by it (Guo et al. 2017, arXiv 1706.04599), above 0.
        threshold: With two classes, the probability from which on a sample belongs to the second
            one, 0 to 1; None takes the class with the highest logit, the first of equals.
    """

    temperature: float = 1.0
    threshold: float | None = None

    def probabilities(self, logits: ArrayLike) -> Float64s:
        """Return float64 [N, C] for logits [N, C]."""
        return np.exp(log_softmax(np.asarray(logits, np.float64) / self.temperature))

    def predicted(self, logits: ArrayLike) -> Int64s:
        """Return the class of each sample, int64 [N], for logits [N, C]."""
        if self.threshold is None:
            return np.asarray(np.argmax(np.asarray(logits), axis=1), np.int64)
        return (self.probabilities(logits)[:, 1] >= self.threshold).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Decision":
        """Return what `to_dict` gave.

        Raises:
            ValueError: a value lies outside its range.
        """
        temperature, threshold = float(data["temperature"]), data["threshold"]
        sound = threshold is None or 0 <= float(threshold) <= 1
        if not (0 < temperature < math.inf and sound):
            raise ValueError(f"no decision: temperature {temperature}, threshold {threshold}.")
        return cls(temperature, None if threshold is None else float(threshold))


def read_decision(data: Any) -> Decision:
    """Return the decision that a checkpoint holds.

    Raises:
        UserError: if it is damaged.
    """
    try:
        return Decision.from_dict(data)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the checkpoint's decision is damaged ({type(error).__name__}: {error}): found is "
            f"{data!r}, expected are temperature and threshold. Score it with --model.calibrate "
            "false, or take another checkpoint."
        ) from error


def fit_decision(table: Table, with_threshold: bool = True) -> Decision:
    """Return the decision that the labelled samples of a validation ask for.

    The temperature minimises their cross entropy. The threshold is where a shift of the logits'
    difference that makes the mean probability the share of the second class crosses one half: one
    number from all samples, unlike the threshold of the highest accuracy, which follows the few
    samples near it. Both take the targets a little apart from 0 and 1, as Platt (1999) does, so
    that samples without a mistake do not ask for endless certainty.

    Args:
        table: The validation.
        with_threshold: Whether two classes get one; not where small classes are to count for more
            than their share, since the threshold goes by the shares.

    Returns:
        A temperature of 1 and no threshold where a logit is not finite, or the samples are not of
        two classes at least.
    """
    rows = table.labelled()
    values = rows.logits.astype(np.float64)
    if np.unique(rows.target).size < 2 or not np.isfinite(values).all():
        return Decision()
    soft = soft_targets(rows.target, values.shape[1])
    temperature = _fit_temperature(values, soft)
    if values.shape[1] != 2 or not with_threshold:
        return Decision(temperature)
    return Decision(temperature, _fit_threshold(values / temperature, soft[:, 1]))


def soft_targets(target: Int64s, num_classes: int) -> Float64s:
    """Return float64 [N, C]: 1 for the target, less what a class would have by one sample more."""
    soft = np.full((target.size, num_classes), 1 / (target.size + num_classes))
    soft[np.arange(target.size), target] += target.size / (target.size + num_classes)
    return soft


def _fit_temperature(logits: Float64s, soft: Float64s) -> float:
    """Return the temperature of the lowest cross entropy, which is convex in its inverse."""
    wanted = float((soft * logits).sum(axis=1).mean())

    def slope(log_inverse: float) -> float:
        inverse = math.exp(log_inverse)
        shares = np.exp(log_softmax(inverse * logits))
        return float((shares * logits).sum(axis=1).mean()) - wanted

    return math.exp(-root(slope, -math.log(_MOST), math.log(_MOST)))


def _fit_threshold(logits: Float64s, second: Float64s) -> float:
    """Return the probability of the second class where the shifted one is a half.

    Args:
        logits: float64 [N, 2], divided by the temperature.
        second: float64 [N], the soft targets of the second class.
    """
    difference, wanted = logits[:, 1] - logits[:, 0], float(second.mean())

    def excess(shift: float) -> float:
        return float(_sigmoid(difference + shift).mean()) - wanted

    ends = np.abs(difference).max() + 20.0
    return float(_sigmoid(np.array(-root(excess, -ends, ends))))


def _sigmoid(x: Float64s) -> Float64s:
    return np.exp(-np.logaddexp(0.0, -x))


def brier_scores(probabilities: Float64s, target: Int64s) -> Float64s:
    """Return each sample's squared distance from certainty of its class, float64 [N], 0 to 2.

    Their mean is the score of Brier (1950), over all classes: twice the one of a single class.
    """
    certain = np.eye(probabilities.shape[1])[target]
    return np.asarray(((probabilities - certain) ** 2).sum(axis=1), np.float64)


def calibration_error(
    confidence: Float64s,
    right: NDArray[np.bool_],
    counts: Int64s | None = None,
    bins: int = BINS,
) -> float:
    """Return the expected calibration error over bins of equally many samples.

    It is the mean distance, over the samples, of a bin's accuracy from its mean confidence (Naeini
    et al. 2015; equal mass as by Nixon et al. 2019, arXiv 1904.01685).

    Args:
        confidence: float64 [N], the probability of the likeliest class.
        right: bool [N], whether that is the target.
        counts: int64 [N], how often each sample counts; None means once.
        bins: As many at most, 1 or more.

    Returns:
        A number of 0 to 1.
    """
    return calibration_statistic(confidence, right, bins)(
        np.ones(confidence.size, np.int64) if counts is None else counts
    )


def calibration_statistic(
    confidence: Float64s, right: NDArray[np.bool_], bins: int = BINS
) -> Callable[[Int64s], float]:
    """Return the error as a function of how often each sample counts; see `calibration_error`."""
    values, group = np.unique(confidence, return_inverse=True)
    excess = confidence - right

    def error(counts: Int64s) -> float:
        # Samples of one confidence share their mean, so no order of theirs matters.
        sizes = np.bincount(group, counts, values.size).astype(np.int64)
        means = np.bincount(group, counts * excess, values.size) / np.maximum(sizes, 1)
        ordered = np.repeat(means, sizes)
        most = min(bins, ordered.size)
        starts = np.arange(most) * ordered.size // most
        return float(np.abs(np.add.reduceat(ordered, starts)).sum() / ordered.size)

    return error
