"""From the table of an evaluation to its scores: pure functions on numpy arrays.

Every sum is a float64 sum in the order of the sample index (exactly rounded where the terms are no
integers), so a table gives the same bytes however it was gathered.
"""

# N rows of the table, L of them labelled, C classes

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.errors import RunFailureError

UNLABELLED = -1
Z_95 = 1.959963984540054

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """One evaluation: a row for every sample, sorted by sample index.

    Attributes:
        index: int64 [N], the sample's place in the index of the data; rising.
        target: int64 [N], its class, 0 to C - 1; -1 where it has no label.
        logits: float32 [N, C], what the network said.
    """

    index: Int64s
    target: Int64s
    logits: NDArray[np.float32]

    @classmethod
    def from_rows(cls, index: ArrayLike, target: ArrayLike, logits: ArrayLike) -> "Table":
        """Make a table of rows in any order; rows with an index below 0 are padding.

        Args:
            index: integers [M], a sample's index or a number below 0 for padding.
            target: integers [M], the class or -1.
            logits: floats [M, C]; kept as float32. Tensors must lie in main memory.

        Returns:
            The table of the M rows less the padding.

        Raises:
            ValueError: the lengths don't match, an index comes twice, or a target is no class.
        """
        rows = np.asarray(index, dtype=np.int64)
        targets = np.asarray(target, dtype=np.int64)
        values = np.asarray(logits, dtype=np.float32)
        if rows.ndim != 1 or targets.shape != rows.shape or values.shape[:-1] != rows.shape:
            raise ValueError(
                f"the columns of the table don't match: index {rows.shape}, target "
                f"{targets.shape}, logits {values.shape}; they must be [N], [N] and [N, C]."
            )
        order = np.argsort(rows, kind="stable")
        order = order[np.searchsorted(rows[order], 0) :]  # padding sorts first
        table = cls(rows[order], targets[order], values[order])
        table._check()
        return table

    @property
    def probabilities(self) -> Float64s:
        """Softmax of the logits, float64 [N, C]."""
        return np.exp(log_softmax(self.logits))

    @property
    def predicted(self) -> Int64s:
        """The class with the highest logit, int64 [N]; the first of equals."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    def labelled(self) -> "Table":
        """Return the rows that have a label."""
        keep = self.target != UNLABELLED
        return Table(self.index[keep], self.target[keep], self.logits[keep])

    def _check(self) -> None:
        """Refuse repeated samples and targets that are no class."""
        repeated = self.index[1:][np.diff(self.index) == 0]
        if repeated.size:
            raise ValueError(
                f"sample {repeated[0]} is in the table more than once ({repeated.size} rows too "
                "many); every sample must be scored exactly once."
            )
        classes = self.logits.shape[1]
        wrong = self.target[(self.target < UNLABELLED) | (self.target >= classes)]
        if wrong.size:
            raise ValueError(
                f"the table holds target {wrong[0]}; with {classes} classes a target is 0 to "
                f"{classes - 1}, or -1 for no label."
            )


def log_softmax(logits: ArrayLike) -> Float64s:
    """Return the logarithms of the softmax of finite logits.

    The highest logit is left out of the sum, so that the logarithm of a probability next to one
    stays apart from zero: a loss of 1e-20 is 1e-20, and sure predictions keep their order.

    Args:
        logits: floats [N, C].

    Returns:
        float64 [N, C], all at most 0.
    """
    values = np.asarray(logits, dtype=np.float64)
    top = values.argmax(axis=1)[:, None]  # [N, 1]
    shifted = values - np.take_along_axis(values, top, axis=1)  # [N, C]
    others = np.exp(shifted)
    np.put_along_axis(others, top, 0.0, axis=1)
    rest: Float64s = others.sum(axis=1, keepdims=True)  # [N, 1]
    return np.asarray(shifted - np.log1p(rest), dtype=np.float64)


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
    is_positive = np.asarray(positive, dtype=bool)
    num_positive = int(is_positive.sum())
    num_negative = is_positive.size - num_positive
    if not num_positive or not num_negative:
        return None
    _, group, size = np.unique(np.asarray(score), return_inverse=True, return_counts=True)
    # Twice the midrank of a group of ties is a whole number, so the sum below is exact.
    twice_midrank = 2 * np.cumsum(size) - size + 1
    twice_rank_sum = int(twice_midrank[group][is_positive].sum())
    twice_pairs = twice_rank_sum - num_positive * (num_positive + 1)
    return twice_pairs / (2 * num_positive * num_negative)


def confusion_counts(target: Int64s, predicted: Int64s, num_classes: int) -> Int64s:
    """Return the confusion counts, int64 [C, C], rows the targets, columns the predictions.

    Args:
        target: int64 [N], 0 to C - 1.
        predicted: int64 [N], 0 to C - 1.
        num_classes: C.
    """
    cells = np.bincount(target * num_classes + predicted, minlength=num_classes * num_classes)
    return cells.astype(np.int64).reshape(num_classes, num_classes)


def scores(table: Table, classes: Sequence[str]) -> dict[str, Any]:
    """Score the labelled rows of a table.

    `f1` is the mean over the classes that occur as target or prediction. `auroc` is the mean, one
    class against the rest, over the classes that have both; with two classes that is the
    binary one. Classes are ranked by the logarithm of their probability. `loss` is the mean cross
    entropy in nats. `accuracy_interval` is Wilson's, 95 %.

    Args:
        table: the evaluation.
        classes: the C class names, in the order of the logits, no name twice.

    Returns:
        Plain Python values, ready for JSON: accuracy, accuracy_interval [low, high], f1, auroc,
        loss, n, classes, per_class {name: {precision, recall, f1, support, true_positives,
        false_positives, false_negatives}}, confusion (rows the targets). None where a number is
        not defined.

    Raises:
        ValueError: no row is labelled, or the names don't fit the logits.
        RunFailureError: a logit is not finite.
    """
    if len(classes) != table.logits.shape[1] or len(set(classes)) != len(classes):
        raise ValueError(
            f"{len(classes)} class names for logits of {table.logits.shape[1]} classes; give each "
            f"class one name of its own. The names: {', '.join(classes)}."
        )
    rows = _scorable(table)
    counts = confusion_counts(rows.target, rows.predicted, len(classes))
    right, n = int(np.trace(counts)), len(rows.target)
    log_probabilities = log_softmax(rows.logits)
    return {
        "accuracy": right / n,
        "accuracy_interval": list(wilson_interval(right, n)),
        "f1": _macro_f1(counts),
        "auroc": _macro_auroc(log_probabilities, rows.target),
        "loss": _mean_loss(log_probabilities, rows.target),
        "n": n,
        "classes": list(classes),
        "per_class": {name: _class_scores(counts, c) for c, name in enumerate(classes)},
        "confusion": counts.tolist(),
    }


def quick_scores(table: Table) -> dict[str, float]:
    """Score the labelled rows of a table for the training loop.

    Args:
        table: the evaluation.

    Returns:
        loss, accuracy, f1 and auroc as in `scores`; NaN where a number is not defined, and NaN all
        four if a logit is not finite (whether that ends the run is the guard's decision).

    Raises:
        ValueError: no row is labelled.
    """
    if not np.isfinite(table.labelled().logits).all():
        return dict.fromkeys(("loss", "accuracy", "f1", "auroc"), math.nan)
    rows = _scorable(table)
    counts = confusion_counts(rows.target, rows.predicted, rows.logits.shape[1])
    log_probabilities = log_softmax(rows.logits)
    area = _macro_auroc(log_probabilities, rows.target)
    return {
        "loss": _mean_loss(log_probabilities, rows.target),
        "accuracy": int(np.trace(counts)) / len(rows.target),
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


def _class_scores(counts: Int64s, c: int) -> dict[str, float | int | None]:
    """Return the scores of class c of [C, C] confusion counts."""
    hits = int(counts[c, c])
    support, chosen = int(counts[c].sum()), int(counts[:, c].sum())
    return {
        "precision": _share(hits, chosen),
        "recall": _share(hits, support),
        "f1": _share(2 * hits, support + chosen),
        "support": support,
        "true_positives": hits,
        "false_positives": chosen - hits,
        "false_negatives": support - hits,
    }


def _share(part: int, whole: int) -> float | None:
    """Return part / whole; None for nothing of nothing."""
    return part / whole if whole else None
