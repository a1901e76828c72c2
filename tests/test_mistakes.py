"""The wrong answers of an evaluation, worked out by hand."""

import numpy as np
import pytest

from src.calibration import Decision
from src.mistakes import mistakes
from src.table import Table


def test_the_highest_loss_comes_first_and_right_answers_not_at_all() -> None:
    """Probabilities of the own class 0.2, 0.9, 0.1 and 0.2 again: rows 2, 0, 3."""
    shares = np.array([[0.2, 0.8], [0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])
    table = Table.from_rows(range(4), [0, 1, 1, 0], np.log(shares))
    rows, losses = mistakes(table, Decision())
    assert rows.tolist() == [2, 0, 3]
    assert losses == pytest.approx([-np.log(0.1), -np.log(0.2), -np.log(0.2)], rel=1e-6)


def test_the_threshold_says_what_is_wrong_and_the_temperature_how_much() -> None:
    """Odds of 9 to 1 for the first class: at a temperature of 2, of 3 to 1."""
    table = Table.from_rows([0, 1], [0, 1], np.log([[0.9, 0.1], [0.9, 0.1]]))
    rows, losses = mistakes(table, Decision(2.0, threshold=0.2))
    assert rows.tolist() == [0]  # 0.25 is above the threshold: both are named the second class
    assert losses == pytest.approx([-np.log(0.75)], rel=1e-6)
