"""The scores, against numbers worked out by hand, against torchmetrics, and by their invariants."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from src.calibration import Decision
from src.counting import area_statistic, auroc, confusion_counts
from src.errors import RunFailureError
from src.intervals import wilson_interval
from src.metrics import QUICK, quick_scores, scores
from src.results import format_scores
from src.table import Table, log_softmax


def table_of(target: list[int], logits: list[list[float]]) -> Table:
    return Table.from_rows(np.arange(len(target)), target, logits)


def table_of_predictions(target: list[int], predicted: list[int], num_classes: int) -> Table:
    return table_of(target, (5.0 * np.eye(num_classes)[predicted]).tolist())


def table_of_probabilities(target: list[int], probabilities: list[list[float]]) -> Table:
    return table_of(target, np.log(probabilities).tolist())


def random_table(seed: int, num_rows: int, num_classes: int) -> Table:
    generator = np.random.default_rng(seed)
    target = np.r_[np.arange(num_classes), generator.integers(0, num_classes, num_rows)]
    logits = 2 * generator.standard_normal((len(target), num_classes))
    logits[np.arange(len(target)), target] += 1
    return Table.from_rows(np.arange(len(target)), target, logits)


def as_json(table: Table, classes: list[str]) -> str:
    return json.dumps(scores(table, classes), allow_nan=False)


# The table


def test_rows_are_sorted_and_padding_is_dropped() -> None:
    table = Table.from_rows(
        index=torch.tensor([7, -1, 2, -1, 5]),
        target=torch.tensor([1, 0, 0, 0, -1]),
        logits=torch.tensor([[7.0, 0.0], [9.0, 9.0], [2.0, 0.0], [9.0, 9.0], [5.0, 0.0]]),
    )
    assert table.index.tolist() == [2, 5, 7]
    assert table.target.tolist() == [0, -1, 1]
    assert table.logits.tolist() == [[2.0, 0.0], [5.0, 0.0], [7.0, 0.0]]
    assert (table.index.dtype, table.target.dtype, table.logits.dtype) == ("i8", "i8", "f4")


def test_a_sample_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sample 4 is in the table more than once \(2 rows too"):
        Table.from_rows([4, 3, 4, 4], [0, 0, 0, 0], np.zeros((4, 2)))


def test_columns_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"index \(3,\), target \(2,\), logits \(3, 2\)"):
        Table.from_rows([0, 1, 2], [0, 0], np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"logits \(3,\); they must be"):
        Table.from_rows([0, 1, 2], [0, 0, 0], np.zeros(3))


@pytest.mark.parametrize("wrong", [2, -2])
def test_a_target_that_is_no_class_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"holds target {wrong}; with 2 classes a target is 0"):
        Table.from_rows([0, 1], [0, wrong], np.zeros((2, 2)))


def test_probabilities_and_predictions_by_hand() -> None:
    table = table_of_probabilities([0, 1], [[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]])
    assert Decision().probabilities(table.logits).dtype == np.float64
    np.testing.assert_allclose(
        Decision().probabilities(table.logits), [[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], rtol=1e-6
    )
    assert table.predicted.tolist() == [1, 0]
    assert table_of([0], [[3.0, 3.0]]).predicted.tolist() == [0]  # the first of equals


# Scores by hand


def test_scores_of_a_confusion_by_hand() -> None:
    table = table_of_predictions([0, 0, 0, 1, 2], [0, 0, 1, 1, 0], num_classes=4)
    result = scores(table, ["ant", "bee", "cow", "dog"])
    assert result["n"] == 5
    assert result["classes"] == ["ant", "bee", "cow", "dog"]
    assert result["confusion"] == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert result["accuracy"] == 3 / 5
    expected = {
        # precision, recall, f1, support, true positives, false positives, false negatives
        "ant": (2 / 3, 2 / 3, 2 / 3, 3, 2, 1, 1),
        "bee": (1 / 2, 1.0, 2 / 3, 1, 1, 1, 0),
        "cow": (None, 0.0, 0.0, 1, 0, 0, 1),
        "dog": (None, None, None, 0, 0, 0, 0),
    }
    found = {
        name: tuple(value for key, value in row.items() if not key.endswith("_interval"))
        for name, row in result["per_class"].items()
    }
    assert found == expected
    assert list(result["per_class"]["ant"]) == [
        "precision",
        "precision_interval",
        "recall",
        "recall_interval",
        "f1",
        "support",
        "true_positives",
        "false_positives",
        "false_negatives",
        "f1_interval",
    ]
    # dog occurs neither as target nor as prediction: the mean is over three classes.
    assert result["f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3, rel=1e-15)


def test_wilson_by_hand() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    # With z = 1 and 1 of 2: centre 1/2 + 1/4, half sqrt(1/8 + 1/16), both over 1 + 1/2.
    low, high = wilson_interval(1, 2, z=1.0)
    assert (low, high) == pytest.approx((0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6), rel=1e-14)
    # None of 10: the upper end is z^2 / (n + z^2).
    z = 1.959963984540054
    assert wilson_interval(0, 10) == (0.0, pytest.approx(z * z / (10 + z * z), rel=1e-14))
    assert wilson_interval(10, 10) == (pytest.approx(10 / (10 + z * z), rel=1e-14), 1.0)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=rf"no proportion: {successes} successes of {n}"):
        wilson_interval(successes, n)


def test_the_interval_belongs_to_the_accuracy() -> None:
    table = table_of_predictions([0] * 5 + [1] * 5, [0] * 4 + [1] * 5 + [0], num_classes=2)
    result = scores(table, ["bee", "wasp"])
    assert result["accuracy"] == 0.8
    assert result["accuracy_interval"] == pytest.approx([0.4902, 0.9433], abs=5e-5)


def test_loss_by_hand() -> None:
    table = table_of_probabilities([0, 1], [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    assert scores(table, ["a", "b", "c"])["loss"] == pytest.approx(1.5 * math.log(2), rel=1e-7)


def test_loss_is_exact_where_a_plain_softmax_saturates() -> None:
    sure = table_of([1, 1], [[0.0, 50.0], [0.0, 60.0]])
    expected = (math.log1p(math.exp(-50)) + math.log1p(math.exp(-60))) / 2
    assert quick_scores(sure)["loss"] == pytest.approx(expected, rel=1e-13)
    wrong = table_of([0, 0], [[-3e38, 3e38], [-1e4, 1e4]])
    assert quick_scores(wrong)["loss"] == pytest.approx(3e38, rel=1e-6)


def test_auroc_with_ties_by_hand() -> None:
    # Positives 3, 1, 1 against negatives 1, 0: the six pairs give 1 + 1 + 1/2 + 1 + 1/2 + 1.
    assert auroc([3, 1, 1, 1, 0], [True, True, True, False, False]) == 5 / 6
    logits = [[0.0, 3.0], [0.0, 1.0], [2.0, 3.0], [5.0, 6.0], [4.0, 4.0]]
    assert scores(table_of([1, 1, 1, 0, 0], logits), ["bee", "wasp"])["auroc"] == 5 / 6


def test_auroc_of_more_classes_by_hand() -> None:
    table = table_of_probabilities(
        [0, 0, 1, 1], [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.1, 0.6, 0.3]]
    )
    # First class: 0.6 and 0.2 against 0.3 and 0.1: 3 of 4. Second: 0.4 and 0.6 against 0.3 and
    # 0.7: 2 of 4. The third has no positive and is left out.
    assert scores(table, ["a", "b", "c"])["auroc"] == (3 / 4 + 2 / 4) / 2


def test_auroc_keeps_the_order_of_sure_predictions() -> None:
    assert quick_scores(table_of([0, 1], [[0.0, 40.0], [0.0, 41.0]]))["auroc"] == 1.0
    assert quick_scores(table_of([1, 0], [[0.0, 40.0], [0.0, 41.0]]))["auroc"] == 0.0


def test_auroc_is_none_with_one_class_alone() -> None:
    table = table_of_predictions([1, 1], [1, 0], num_classes=2)
    assert scores(table, ["bee", "wasp"])["auroc"] is None
    assert math.isnan(quick_scores(table)["auroc"])
    assert auroc([1.0, 2.0], [True, True]) is None
    assert auroc([1.0, 2.0], [False, False]) is None


def test_unlabelled_rows_are_not_scored() -> None:
    labelled = table_of([0, 1, 1], [[2.0, 1.0], [0.0, 1.0], [4.0, 1.0]])
    mixed = table_of(
        [0, -1, 1, 1, -1], [[2.0, 1.0], [9.0, 1.0], [0.0, 1.0], [4.0, 1.0], [0.0, 9.0]]
    )
    assert as_json(mixed, ["bee", "wasp"]) == as_json(labelled, ["bee", "wasp"])
    assert quick_scores(mixed) == quick_scores(labelled)


@pytest.mark.parametrize("decision", [Decision(), Decision(temperature=2.0)])
def test_quick_scores_are_the_scores(decision: Decision) -> None:
    table = random_table(seed=3, num_rows=50, num_classes=4)
    full = scores(table, list("abcd"), decision)
    found = quick_scores(table, decision)
    assert found.pop("loss_calibrated") == full["calibration"]["after"]["loss"]
    assert found == {key: full[key] for key in QUICK if key in full}


@pytest.mark.parametrize("target", [[], [-1, -1]])
def test_a_table_without_labels_has_no_score(target: list[int]) -> None:
    table = Table.from_rows(range(len(target)), target, np.zeros((len(target), 2)))
    message = rf"nothing to score: none of the {len(target)} rows"
    with pytest.raises(ValueError, match=message):
        scores(table, ["bee", "wasp"])
    with pytest.raises(ValueError, match=message):
        quick_scores(table)


@pytest.mark.parametrize("classes", [["a"], ["a", "b", "c"], ["a", "a"]])
def test_names_that_do_not_fit_are_refused(classes: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"{len(classes)} class names for logits of 2 classes"):
        scores(table_of([0], [[0.0, 1.0]]), classes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_have_no_score(value: float) -> None:
    table = Table.from_rows([3, 8], [0, 1], [[0.0, 1.0], [0.0, value]])
    with pytest.raises(RunFailureError, match=r"for 1 of 2 pictures \(the first is sample 8\)"):
        scores(table, ["bee", "wasp"])
    with pytest.raises(RunFailureError, match=r"--trainer\.precision 32"):
        scores(table, ["bee", "wasp"])
    # The training loop goes on with no score; whether to stop is the guard's decision.
    assert all(math.isnan(value) for value in quick_scores(table).values())


# Against torchmetrics


@pytest.mark.parametrize(("seed", "num_classes"), [(0, 2), (1, 3), (2, 7), (3, 40)])
def test_scores_agree_with_torchmetrics(seed: int, num_classes: int) -> None:
    table = random_table(seed, num_rows=300, num_classes=num_classes)
    target = torch.from_numpy(table.target)
    probabilities = torch.from_numpy(Decision().probabilities(table.logits))
    result = quick_scores(table)
    options = {"num_classes": num_classes, "average": "macro"}
    expected = {
        "loss": torch.nn.functional.nll_loss(probabilities.log(), target),
        "accuracy": reference.multiclass_accuracy(probabilities, target, num_classes, "micro"),
        "f1": reference.multiclass_f1_score(probabilities, target, **options),
        "auroc": reference.multiclass_auroc(probabilities, target, **options),
    }
    expected["accuracy_argmax"] = expected["accuracy"]
    expected["loss_calibrated"] = expected["loss"]  # at a temperature of 1
    assert result == pytest.approx({key: float(value) for key, value in expected.items()}, 1e-6)
    confusion = reference.multiclass_confusion_matrix(probabilities, target, num_classes)
    assert scores(table, list(map(str, range(num_classes))))["confusion"] == confusion.tolist()


# Invariants


@settings(max_examples=15, deadline=None)
@given(data=st.data(), num_rows=st.integers(1, 40), num_classes=st.integers(2, 5))
def test_the_order_of_the_rows_and_the_padding_change_no_byte(
    data: st.DataObject, num_rows: int, num_classes: int
) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    index = generator.choice(1000, num_rows, replace=False)
    target = generator.integers(0, num_classes, num_rows)
    logits = generator.standard_normal((num_rows, num_classes)).astype(np.float32)
    padding = data.draw(st.integers(0, 5))
    order = generator.permutation(num_rows + padding)
    padded = (
        np.r_[index, np.full(padding, -1)][order],
        np.r_[target, generator.integers(0, num_classes, padding)][order],
        np.r_[logits, np.full((padding, num_classes), np.nan, np.float32)][order],
    )
    one, other = Table.from_rows(index, target, logits), Table.from_rows(*padded)
    for field in ("index", "target", "logits"):
        assert getattr(one, field).tobytes() == getattr(other, field).tobytes()
    names = list("abcde")[:num_classes]
    assert as_json(one, names) == as_json(other, names)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=25))
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    positives = [score for score, positive in rows if positive]
    negatives = [score for score, positive in rows if not positive]
    pairs = list(itertools.product(positives, negatives))
    value = auroc([score for score, _ in rows], [positive for _, positive in rows])
    if not pairs:
        assert value is None
    else:
        points = sum(Fraction((p > n) + (p >= n), 2) for p, n in pairs)
        assert value == float(points / len(pairs))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30, width=32), st.booleans()), min_size=2, max_size=25))
def test_with_two_classes_the_mean_auroc_is_the_binary_one(rows: list[tuple[float, bool]]) -> None:
    # Multiples of 1/8 are exact, so ties are ties on both sides.
    margins = [round(8 * margin) / 8 for margin, _ in rows]
    labels = [positive for _, positive in rows]
    table = table_of([int(label) for label in labels], [[0.0, margin] for margin in margins])
    binary = auroc(margins, labels)
    mean = quick_scores(table)["auroc"]
    assert math.isnan(mean) if binary is None else mean == pytest.approx(binary, rel=1e-15)


@given(n=st.integers(1, 10_000), data=st.data())
def test_the_interval_holds_the_share_and_stays_within_zero_and_one(
    n: int, data: st.DataObject
) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    mirrored = wilson_interval(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(2, 6))
def test_the_confusion_counts_every_row_once(seed: int, num_rows: int, num_classes: int) -> None:
    generator = np.random.default_rng(seed)
    target, predicted = generator.integers(0, num_classes, (2, num_rows))
    counts = confusion_counts(target, predicted, num_classes)
    assert counts.sum() == num_rows
    assert counts.sum(axis=1).tolist() == np.bincount(target, minlength=num_classes).tolist()
    assert counts.sum(axis=0).tolist() == np.bincount(predicted, minlength=num_classes).tolist()


def test_log_softmax_is_shift_free_and_sums_to_one() -> None:
    logits = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    logs = log_softmax(logits)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(log_softmax(logits.astype(np.float64) + 100), logs, rtol=1e-12)
    assert (log_softmax([[0.0, 0.0]]) == -math.log(2)).all()


# The text


def test_the_text_of_scores() -> None:
    table = table_of_predictions([0, 0, 0, 1], [0, 0, 1, 1], num_classes=2)
    text = format_scores(scores(table, ["honey bee", "wasp"]))
    lines = text.splitlines()
    assert lines[0] == "pictures  4  (in brackets: 95 % intervals)"
    assert lines[1] == "accuracy  0.7500  (0.3006 to 0.9544)"
    assert lines[3] == "baseline  0.7500  (0.3006 to 0.9544)  (the most frequent class)"
    assert "calibration (temperature 1.000; the highest logit decides)" in lines
    columns = "  precision                   recall                      f1"
    assert f"class    {columns}                          support" in lines
    bee = "honey bee  1.0000  (0.3424 to 1.0000)  0.6667  (0.2077 to 0.9385)  0.8000  (0."
    assert [line[-7:] for line in lines if line.startswith(bee)] == ["      3"]
    assert lines[-2:] == ["0 honey bee  2  1", "1 wasp       0  1"]


def test_the_text_marks_what_is_not_defined() -> None:
    text = format_scores(scores(table_of([1], [[0.0, 1.0]]), ["bee", "wasp"]))
    assert "auroc     -  (macro, one against the rest)" in text
    bee = next(line for line in text.splitlines() if line.startswith("bee"))
    assert bee.split() == ["bee", "-", "-", "-", "0"]


def test_the_text_leaves_out_a_large_confusion() -> None:
    for num_classes, shown in ((20, True), (21, False)):
        result = scores(random_table(0, 5, num_classes), list(map(str, range(num_classes))))
        assert ("confusion" in format_scores(result)) is shown


# Beyond the accuracy


def test_the_threshold_decides_and_argmax_stands_beside() -> None:
    """Probabilities of the second class 0.2, 0.4, 0.4, 0.9 by hand, targets 0, 1, 0, 1."""
    second = np.array([0.2, 0.4, 0.4, 0.9])
    table = table_of_probabilities([0, 1, 0, 1], np.stack([1 - second, second], axis=1).tolist())
    low, half = (scores(table, ["bee", "wasp"], Decision(1.0, t)) for t in (0.3, 0.5))
    assert low["confusion"] == [[1, 1], [0, 2]]
    assert half["confusion"] == [[2, 0], [1, 1]]
    assert low["accuracy"] == half["accuracy"] == low["accuracy_argmax"] == 3 / 4
    assert low["per_class"]["wasp"]["recall"] == 1.0
    assert low["per_class"]["wasp"]["recall_interval"] == list(wilson_interval(2, 2))
    assert low["loss"] == half["loss"]


def test_the_calibrated_loss_is_that_at_the_temperature() -> None:
    """Odds of 9 to 1, at a temperature of 2 of 3 to 1: right once, wrong once."""
    table = table_of_probabilities([0, 1], [[0.9, 0.1], [0.9, 0.1]])
    found = quick_scores(table, Decision(temperature=2.0))
    assert found["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.1)) / 2)
    assert found["loss_calibrated"] == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_the_baseline_is_the_most_frequent_class() -> None:
    result = scores(table_of_predictions([2, 2, 2, 0, 1], [0, 0, 0, 0, 0], 3), list("abc"))
    assert result["baseline_accuracy"] == 3 / 5
    assert result["baseline_accuracy_interval"] == list(wilson_interval(3, 5))
    assert result["accuracy"] == 1 / 5


def test_calibration_before_and_after() -> None:
    """Four times 0.9 for the wrong or right class, two of each: a temperature makes it a half."""
    logits = [[0.0, math.log(9)]] * 4
    table = table_of([1, 1, 0, 0], logits)
    found = scores(table, ["bee", "wasp"], Decision(temperature=1e9))["calibration"]
    assert found["temperature"] == 1e9
    assert found["before"]["brier"] == pytest.approx((2 * 0.1**2 + 2 * 0.9**2) * 2 / 4)
    assert found["after"]["brier"] == pytest.approx(0.5)
    assert found["after"]["loss"] == pytest.approx(math.log(2))
    assert found["after"]["ece"] == pytest.approx(
        0.0, abs=1e-8
    )  # all are half sure, half are right


def test_every_score_lies_in_its_interval() -> None:
    result = scores(random_table(seed=5, num_rows=300, num_classes=3), list("abc"))
    for name in ("accuracy", "accuracy_argmax", "baseline_accuracy", "f1", "auroc", "loss"):
        low, high = result[f"{name}_interval"]
        assert low < result[name] < high, name
    for row in result["per_class"].values():
        for name in ("precision", "recall", "f1"):
            assert row[f"{name}_interval"][0] < row[name] < row[f"{name}_interval"][1]


def test_a_score_that_is_not_defined_has_no_interval() -> None:
    result = scores(table_of([1], [[0.0, 1.0]]), ["bee", "wasp"])
    assert result["auroc"] is result["auroc_interval"] is None
    assert result["per_class"]["bee"]["f1_interval"] is None


def test_the_area_of_resampled_rows_is_that_of_the_repeated_ones() -> None:
    draw = np.random.default_rng(2)
    score, positive, counts = (
        draw.integers(0, 5, 30),
        draw.random(30) < 0.4,
        draw.integers(0, 4, 30),
    )
    rows = np.repeat(np.arange(30), counts)
    assert area_statistic(score, positive)(counts) == auroc(score[rows], positive[rows])
