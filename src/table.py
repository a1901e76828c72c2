"""The table of an evaluation: what the network said of every sample, and nothing else."""

# N rows of the table, C classes

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNLABELLED = -1

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
