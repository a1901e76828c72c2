"""The wrong answers of an evaluation, the worst first."""

import numpy as np

from src.calibration import Decision
from src.table import Float64s, Int64s, Table, log_softmax


def sound(table: Table) -> Table:
    """Return the labelled rows of which every logit is a finite number."""
    rows = table.labelled()
    fine = np.isfinite(rows.logits).all(axis=1)
    return Table(rows.index[fine], rows.target[fine], rows.logits[fine])


def mistakes(table: Table, decision: Decision) -> tuple[Int64s, Float64s]:
    """Return the wrong answers, those with the highest loss first; of equals the first.

    Args:
        table: Labelled rows with finite logits.
        decision: How logits become probabilities and a class.

    Returns:
        Their rows, int64 [M], and the loss of each: the negative logarithm of the probability of
        its class, in nats, float64 [M].
    """
    logs = log_softmax(table.logits.astype(np.float64) / decision.temperature)  # [N, C]
    losses = -logs[np.arange(len(table.target)), table.target]
    wrong = np.flatnonzero(decision.predicted(table.logits) != table.target)
    order = wrong[np.argsort(-losses[wrong], kind="stable")]
    return order, losses[order]
