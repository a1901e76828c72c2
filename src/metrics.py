"""From the table of an evaluation to its scores: pure functions on numpy arrays.

Every sum is a float64 sum in the order of the sample index (exactly rounded where the terms are no
integers), so a table gives the same bytes however it was gathered.
"""

# N rows of the table, L of them labelled, C classes

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from src.calibration import Decision
from src.counting import auroc, confusion_counts
from src.errors import RunFailureError
from src.intervals import percentile_interval, wilson_interval
from src.score_intervals import ends, means_of_defined, resample, with_interval
from src.table import Float64s, Int64s, Table, log_softmax

QUICK = ("loss", "loss_calibrated", "accuracy", "accuracy_argmax", "f1", "auroc")


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
    drawn = resample(rows, predicted, [Decision(), decision])
    quick = quick_scores(rows, decision)
    per_class = {name: _class_scores(counts, c) for c, name in enumerate(classes)}
    for c, row in enumerate(per_class.values()):
        row["f1_interval"] = ends(percentile_interval(drawn.f1s[:, c]))
    before, after = drawn.calibrations
    return {
        **_proportions(counts, int((rows.predicted == rows.target).sum())),
        **with_interval("f1", quick["f1"], means_of_defined(drawn.f1s)),
        **with_interval("auroc", quick["auroc"], means_of_defined(drawn.areas)),
        "loss": quick["loss"],
        "loss_interval": before["loss_interval"],
        "n": len(rows.target),
        "classes": list(classes),
        "per_class": per_class,
        "confusion": counts.tolist(),
        "calibration": {**decision.to_dict(), "before": before, "after": after},
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


def quick_scores(table: Table, decision: Decision | None = None) -> dict[str, float]:
    """Score the labelled rows of a table for the training loop.

    Args:
        table: the evaluation.
        decision: how logits become probabilities and a class; None means as they are.

    Returns:
        loss, accuracy, accuracy_argmax, f1 and auroc as in `scores`, and loss_calibrated, the loss
        at the decision's temperature; NaN where a number is not defined, and NaN all of them if a
        logit is not finite (whether that ends the run is the guard's decision).

    Raises:
        ValueError: no row is labelled.
    """
    if not np.isfinite(table.labelled().logits).all():
        return dict.fromkeys(QUICK, math.nan)
    rows, decision = _scorable(table), decision or Decision()
    counts = confusion_counts(rows.target, decision.predicted(rows.logits), rows.logits.shape[1])
    log_probabilities = log_softmax(rows.logits)
    calibrated = log_softmax(rows.logits.astype(np.float64) / decision.temperature)
    area, n = _macro_auroc(log_probabilities, rows.target), len(rows.target)
    return {
        "loss": _mean_loss(log_probabilities, rows.target),
        "loss_calibrated": _mean_loss(calibrated, rows.target),
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
