"""From the table of an evaluation to its scores: pure functions on numpy arrays.

Every sum is a float64 sum in the order of the sample index (exactly rounded where the terms are no
integers), so a table gives the same bytes however it was gathered.
"""

# N rows of the table, L of them labelled, C classes

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from src.calibration import Decision, brier_scores, calibration_error, calibration_statistic
from src.errors import RunFailureError
from src.intervals import (
    Statistic,
    bootstrap,
    percentile_interval,
    reflected_interval,
    wilson_interval,
)
from src.table import Float64s, Int64s, Table, log_softmax

QUICK = ("loss", "accuracy", "accuracy_argmax", "f1", "auroc")


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
    area = float(_area(score, positive)(np.ones(np.size(score), np.int64)))
    return None if math.isnan(area) else area


def _area(score: ArrayLike, positive: ArrayLike) -> Statistic:
    """Return the area as a statistic of how often each sample is there."""
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


def scores(
    table: Table, classes: Sequence[str], decision: Decision | None = None
) -> dict[str, Any]:
    """Score the labelled rows of a table.

    `f1` is the mean over the classes that occur as target or prediction. `auroc` is the mean, one
    class against the rest, over the classes that have both; with two classes that is the
    binary one. Classes are ranked by the logarithm of their probability. `loss` is the mean cross
    entropy of the logits in nats. What is predicted follows the decision; `accuracy_argmax` goes by
    the highest logit. `baseline_accuracy` is what naming the most frequent class would get.

    Intervals are 95 %: Wilson's for proportions, else 1,000 bootstrap samples' middle.

    Args:
        table: the evaluation.
        classes: the C class names, in the order of the logits, no name twice.
        decision: how logits become probabilities and a class; None means as they are.

    Returns:
        Plain Python values, ready for JSON: accuracy, accuracy_argmax, baseline_accuracy, f1,
        auroc, loss, each of them with NAME_interval [low, high]; n, classes, per_class {name:
        {precision, recall, f1, with their intervals, support, true_positives, false_positives,
        false_negatives}}, confusion (rows the targets), and calibration {temperature, threshold,
        before, after}, the last two {loss, brier, ece, with their intervals}. None where a number
        is not defined.

    Raises:
        ValueError: no row is labelled, or the names don't fit the logits.
        RunFailureError: a logit is not finite.
    """
    if len(classes) != table.logits.shape[1] or len(set(classes)) != len(classes):
        raise ValueError(
            f"{len(classes)} class names for logits of {table.logits.shape[1]} classes; give each "
            f"class one name of its own. The names: {', '.join(classes)}."
        )
    rows, decision = _scorable(table), decision or Decision()
    predicted = decision.predicted(rows.logits)
    counts = confusion_counts(rows.target, predicted, len(classes))
    drawn = _drawn(rows, predicted)
    quick = quick_scores(rows, decision)
    before = _calibration(rows, Decision())
    per_class = {name: _class_scores(counts, c) for c, name in enumerate(classes)}
    for c, row in enumerate(per_class.values()):
        row["f1_interval"] = _ends(percentile_interval(drawn["f1s"][:, c]))
    return {
        **_proportions(counts, int((rows.predicted == rows.target).sum())),
        **_with_interval("f1", quick["f1"], _means(drawn["f1s"])),
        **_with_interval("auroc", quick["auroc"], _means(drawn["areas"])),
        **_with_interval("loss", quick["loss"], drawn["loss"]),
        "n": len(rows.target),
        "classes": list(classes),
        "per_class": per_class,
        "confusion": counts.tolist(),
        "calibration": {
            **decision.to_dict(),
            "before": before,
            "after": before if decision.temperature == 1 else _calibration(rows, decision),
        },
    }


def _proportions(counts: Int64s, right_by_argmax: int) -> dict[str, Any]:
    """Return the accuracies with Wilson's intervals, of [C, C] confusion counts."""
    n = int(counts.sum())
    found: dict[str, Any] = {}
    for name, right in (
        ("accuracy", int(np.trace(counts))),
        ("accuracy_argmax", right_by_argmax),
        ("baseline_accuracy", int(counts.sum(axis=1).max())),
    ):
        found |= {name: right / n, f"{name}_interval": list(wilson_interval(right, n))}
    return found


def _drawn(rows: Table, predicted: Int64s) -> dict[str, Float64s]:
    """Return bootstrap samples of f1s [R, C], areas [R, C] and loss [R]."""
    log_probabilities, num_classes = log_softmax(rows.logits), rows.logits.shape[1]
    areas = [_area(column, rows.target == c) for c, column in enumerate(log_probabilities.T)]
    losses = -log_probabilities[np.arange(rows.target.size), rows.target]

    def f1s(counts: Int64s) -> Float64s:
        cells = confusion_counts(rows.target, predicted, num_classes, counts)
        there = cells.sum(axis=0) + cells.sum(axis=1)
        return np.where(there > 0, 2 * np.diag(cells) / np.maximum(there, 1), math.nan)

    statistics: dict[str, Statistic] = {
        "f1s": f1s,
        "areas": lambda counts: [area(counts) for area in areas],
        "loss": _weighted_mean(losses),
    }
    return bootstrap(statistics, rows.target.size)


def _weighted_mean(values: Float64s) -> Statistic:
    return lambda counts: float(counts @ values) / values.size


def _means(drawn: Float64s) -> Float64s:
    """Return the mean of each row's defined values, float64 [R] of [R, C]; NaN where none is."""
    defined = ~np.isnan(drawn)
    sums, sizes = np.where(defined, drawn, 0.0).sum(axis=1), defined.sum(axis=1)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), math.nan)


def _with_interval(name: str, value: float, drawn: Float64s) -> dict[str, Any]:
    """Return a score and its interval, None where it is not defined."""
    if math.isnan(value):
        return {name: None, f"{name}_interval": None}
    return {name: value, f"{name}_interval": _ends(percentile_interval(drawn))}


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _calibration(rows: Table, decision: Decision) -> dict[str, Any]:
    """Return loss, Brier score and expected calibration error of a decision's probabilities."""
    probabilities = decision.probabilities(rows.logits)
    logs = log_softmax(rows.logits.astype(np.float64) / decision.temperature)
    confidence, right = probabilities.max(axis=1), rows.predicted == rows.target
    briers = brier_scores(probabilities, rows.target)
    losses = -logs[np.arange(rows.target.size), rows.target]
    drawn = bootstrap(
        {
            "loss": _weighted_mean(losses),
            "brier": _weighted_mean(briers),
            "ece": calibration_statistic(confidence, right),
        },
        rows.target.size,
    )
    error = calibration_error(confidence, right)
    return {
        **_with_interval("loss", _mean_loss(logs, rows.target), drawn["loss"]),
        **_with_interval("brier", math.fsum(briers.tolist()) / briers.size, drawn["brier"]),
        "ece": error,
        "ece_interval": _ends(reflected_interval(drawn["ece"], error)),
    }


def quick_scores(table: Table, decision: Decision | None = None) -> dict[str, float]:
    """Score the labelled rows of a table for the training loop.

    Args:
        table: the evaluation.
        decision: how logits become a class; None means by the highest one.

    Returns:
        loss, accuracy, accuracy_argmax, f1 and auroc as in `scores`; NaN where a number is not
        defined, and NaN all of them if a logit is not finite (whether that ends the run is the
        guard's decision).

    Raises:
        ValueError: no row is labelled.
    """
    if not np.isfinite(table.labelled().logits).all():
        return dict.fromkeys(QUICK, math.nan)
    rows = _scorable(table)
    predicted = (decision or Decision()).predicted(rows.logits)
    counts = confusion_counts(rows.target, predicted, rows.logits.shape[1])
    log_probabilities = log_softmax(rows.logits)
    area, n = _macro_auroc(log_probabilities, rows.target), len(rows.target)
    return {
        "loss": _mean_loss(log_probabilities, rows.target),
        "accuracy": int(np.trace(counts)) / n,
        "accuracy_argmax": int((rows.predicted == rows.target).sum()) / n,
        "f1": _macro_f1(counts),
        "auroc": math.nan if area is None else area,
    }


def _scorable(table: Table) -> Table:
    """Return the labelled rows, or refuse a table that has no score."""
    rows = table.labelled()
    if not rows.target.size:
        raise ValueError(
            f"nothing to score: none of the {table.index.size} rows of the table has a label."
        )
    broken = rows.index[~np.isfinite(rows.logits).all(axis=1)]
    if broken.size:
        raise RunFailureError(
            f"the network's output is not finite for {broken.size} of {rows.index.size} pictures "
            f"(the first is sample {broken[0]}), so it has no score. The weights have diverged, "
            "or the precision is too low: lower the learning rate or use --trainer.precision 32."
        )
    return rows


def _mean_loss(log_probabilities: Float64s, target: Int64s) -> float:
    """Return the mean cross entropy in nats of [L, C] log-probabilities."""
    picked = log_probabilities[np.arange(target.size), target]
    # The leading 0.0 keeps a perfect loss from being -0.0.
    return 0.0 - math.fsum(picked.tolist()) / target.size


def _macro_auroc(log_probabilities: Float64s, target: Int64s) -> float | None:
    """Return the mean area, one class against the rest; None where no class has one."""
    columns = enumerate(log_probabilities.T)
    areas = [auroc(column, target == c) for c, column in columns]
    return _mean_of_defined(areas)


def _macro_f1(counts: Int64s) -> float:
    """Return the mean F1 over the classes that occur in [C, C] confusion counts."""
    mean = _mean_of_defined([_class_scores(counts, c)["f1"] for c in range(len(counts))])
    assert mean is not None  # some class is the target of a labelled row
    return mean


def _mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None where none is left."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _class_scores(counts: Int64s, c: int) -> dict[str, Any]:
    """Return the scores of class c of [C, C] confusion counts."""
    hits = int(counts[c, c])
    support, chosen = int(counts[c].sum()), int(counts[:, c].sum())
    return {
        "precision": _share(hits, chosen),
        "precision_interval": list(wilson_interval(hits, chosen)) if chosen else None,
        "recall": _share(hits, support),
        "recall_interval": list(wilson_interval(hits, support)) if support else None,
        "f1": _share(2 * hits, support + chosen),
        "support": support,
        "true_positives": hits,
        "false_positives": chosen - hits,
        "false_negatives": support - hits,
    }


def _share(part: int, whole: int) -> float | None:
    """Return part / whole; None for nothing of nothing."""
    return part / whole if whole else None
