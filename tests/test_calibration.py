"""Temperature, threshold and calibration error, against numbers worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.calibration import (
    Decision,
    brier_scores,
    calibration_error,
    fit_decision,
    read_decision,
    soft_targets,
)
from src.errors import UserError
from src.table import Table


def table_of(difference: np.ndarray, target: np.ndarray) -> Table:
    """Return a table of two classes from the differences of their logits."""
    logits = np.stack([np.zeros(difference.size), difference], axis=1)
    return Table.from_rows(np.arange(target.size), target, logits)


def drawn(n: int, scale: float, shift: float) -> tuple[Table, Table]:
    """Return tables of pictures whose logits are too large by a factor and moved, and a test."""
    draw = np.random.default_rng(4)
    found = []
    for _ in range(2):
        true = draw.normal(0, 2, n)
        target = (draw.random(n) < 1 / (1 + np.exp(-true))).astype(int)
        found.append(table_of(scale * true + shift, target))
    return found[0], found[1]


class TestDecision:
    def test_by_hand(self) -> None:
        logits = [[0.0, math.log(3)], [0.0, -math.log(3)]]
        assert Decision().probabilities(logits)[:, 1] == pytest.approx([0.75, 0.25])
        halved = Decision(temperature=0.5)  # odds of 3 become odds of 9
        assert halved.probabilities(logits)[:, 1] == pytest.approx([0.9, 0.1])
        assert Decision().predicted(logits).tolist() == [1, 0]
        assert Decision(1.0, 0.2).predicted(logits).tolist() == [1, 1]
        assert Decision(0.5, 0.2).predicted(logits).tolist() == [1, 0]
        assert Decision().predicted([[3.0, 3.0]]).tolist() == [0]  # the first of equals

    def test_a_probability_of_the_threshold_is_of_the_second_class(self) -> None:
        assert Decision(1.0, 0.5).predicted([[0.0, 0.0]]).tolist() == [1]

    @pytest.mark.parametrize("decision", [Decision(), Decision(1.5), Decision(0.3, 0.42)])
    def test_there_and_back(self, decision: Decision) -> None:
        assert Decision.from_dict(decision.to_dict()) == decision

    @pytest.mark.parametrize(
        ("temperature", "threshold"),
        [(0, None), (-1, None), (math.nan, None), (math.inf, None), (1, 1.1), (1, math.nan)],
    )
    def test_out_of_range(self, temperature: float, threshold: float | None) -> None:
        with pytest.raises(ValueError, match="no decision: temperature"):
            Decision.from_dict({"temperature": temperature, "threshold": threshold})


class TestFit:
    def test_what_was_drawn_is_found_again(self) -> None:
        table, _ = drawn(20_000, scale=1.5, shift=0.3)
        found = fit_decision(table)
        assert found.temperature == pytest.approx(1.5, abs=0.05)
        # Where the true probability is a half, the logit is 0.3: 0.2 after the temperature.
        assert found.threshold == pytest.approx(1 / (1 + math.exp(-0.2)), abs=0.01)

    def test_it_helps_on_other_pictures(self) -> None:
        table, test = drawn(5_000, scale=3.0, shift=6.0)
        found = fit_decision(table)
        right = [(d.predicted(test.logits) == test.target).mean() for d in (Decision(), found)]
        assert right[1] > right[0] + 0.03
        briers = [
            brier_scores(d.probabilities(test.logits), test.target).mean()
            for d in (Decision(), found)
        ]
        assert briers[1] < briers[0]

    def test_the_temperature_has_the_lowest_loss(self) -> None:
        table, _ = drawn(200, scale=2.0, shift=0.0)
        soft = soft_targets(table.target, 2)

        def loss(temperature: float) -> float:
            shares = Decision(temperature).probabilities(table.logits)
            return float(-(soft * np.log(shares)).sum())

        best = fit_decision(table).temperature
        assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))

    def test_without_a_mistake_certainty_stays_finite(self) -> None:
        """Two pictures, both right: shares as if there were one more of each class."""
        table = table_of(np.array([-1.0, 1.0]), np.array([0, 1]))
        found = fit_decision(table)
        assert found.probabilities(table.logits)[:, 1] == pytest.approx([1 / 4, 3 / 4])
        assert found.threshold == pytest.approx(0.5)

    def test_more_classes_have_no_threshold(self) -> None:
        table = Table.from_rows([0, 1, 2], [0, 1, 2], np.eye(3))
        assert fit_decision(table).threshold is None

    @pytest.mark.parametrize("target", [[0, 0, 0], [-1, -1, -1], [1, -1, 1]])
    def test_one_class_alone_decides_nothing(self, target: list[int]) -> None:
        table = table_of(np.array([1.0, 2.0, 3.0]), np.array(target))
        assert fit_decision(table) == Decision()

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_logits_that_are_no_numbers(self, value: float) -> None:
        assert fit_decision(table_of(np.array([1.0, value]), np.array([0, 1]))) == Decision()

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 2**32), size=st.integers(2, 40), scale=st.floats(1e-6, 1e6))
    def test_any_table_gives_a_sound_decision(self, seed: int, size: int, scale: float) -> None:
        draw = np.random.default_rng(seed)
        found = fit_decision(table_of(scale * draw.normal(size=size), draw.integers(0, 2, size)))
        assert Decision.from_dict(found.to_dict()) == found


def test_soft_targets_by_hand() -> None:
    """Two samples of three classes: as if there were one more of each."""
    expected = [[3 / 5, 1 / 5, 1 / 5], [1 / 5, 1 / 5, 3 / 5]]
    assert soft_targets(np.array([0, 2]), 3) == pytest.approx(np.array(expected))


def test_brier_by_hand() -> None:
    shares = np.array([[0.2, 0.8], [1.0, 0.0]])
    assert brier_scores(shares, np.array([1, 1])) == pytest.approx([0.08, 2.0])


class TestCalibrationError:
    def test_two_bins_by_hand(self) -> None:
        """Bins {0.5, 0.6} with one right and {0.8, 0.9} with both right: |0.05| and |0.15|."""
        confidence = np.array([0.9, 0.5, 0.8, 0.6])
        right = np.array([True, True, True, False])
        assert calibration_error(confidence, right, bins=2) == pytest.approx((0.05 + 0.15) / 2)

    def test_bins_of_unequal_size(self) -> None:
        """Three samples in two bins: {0.6} wrong, {0.7, 0.9} right."""
        found = calibration_error(np.array([0.6, 0.7, 0.9]), np.array([False, True, True]), bins=2)
        assert found == pytest.approx((0.6 + 0.3 + 0.1) / 3)

    def test_fewer_samples_than_bins(self) -> None:
        assert calibration_error(np.array([0.75]), np.array([True])) == pytest.approx(0.25)

    def test_counts_are_repetitions(self) -> None:
        draw = np.random.default_rng(0)
        confidence, right = draw.random(40), draw.random(40) < 0.5
        counts = draw.integers(0, 4, 40)
        rows = np.repeat(np.arange(40), counts)
        repeated = calibration_error(confidence[rows], right[rows])
        assert calibration_error(confidence, right, counts) == pytest.approx(repeated)

    def test_ties_have_no_order(self) -> None:
        """Half of the equal confidences are right, whichever half comes first."""
        confidence, right = np.full(8, 0.75), np.array([True] * 4 + [False] * 4)
        for order in (np.arange(8), np.arange(8)[::-1], np.arange(8).reshape(2, 4).T.ravel()):
            assert calibration_error(confidence, right[order], bins=2) == pytest.approx(0.25)


class TestOfACheckpoint:
    @pytest.mark.parametrize("data", [{}, None, [], {"temperature": "x", "threshold": None}, 3])
    def test_damaged(self, data: Any) -> None:
        with pytest.raises(UserError, match="the checkpoint's decision is damaged"):
            read_decision(data)

    def test_no_number(self) -> None:
        with pytest.raises(UserError, match="temperature nan"):
            read_decision({"temperature": math.nan, "threshold": None})


def test_without_a_threshold() -> None:
    table, _ = drawn(400, 3.0, 1.0)
    with_one, without = fit_decision(table), fit_decision(table, with_threshold=False)
    assert with_one.threshold is not None and without.threshold is None
    assert without.temperature == with_one.temperature
