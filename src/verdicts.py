"""What the scored pictures of several runs say about which of them is better.

N pictures, the same for all runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from src.intervals import wilson_interval
from src.paired import Pairs, holm
from src.scored import Scored

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LEVEL = 0.05
_SHOWN = 20  # pictures that flipped
_RULES = (
    "p: McNemar's exact test. Intervals: 95 %, Wilson's for an accuracy, Tango's for a difference "
    "(each for itself)."
)


@dataclass(frozen=True)
class Outcome:
    """What two runs have to do with each other.

    Attributes:
        first: The place of the first run in the list of all.
        second: That of the second one.
        pairs: How often they were right.
        flipped: Places of the pictures that one of them alone named rightly.
        p: McNemar's exact p-value, corrected for the number of comparisons.
    """

    first: int
    second: int
    pairs: Pairs
    flipped: tuple[int, ...]
    p: float


def compare(runs: Sequence[Scored], all_pairs: bool = False) -> list[Outcome]:
    """Compare the first run with each other one, or each with each.

    Args:
        runs: Two or more, of the same N pictures.
        all_pairs: Whether each with each.
    """
    places = list(combinations(range(len(runs)), 2))
    places = places if all_pairs else [pair for pair in places if pair[0] == 0]
    right = [run.right for run in runs]
    pairs = [Pairs.of(right[a], right[b]) for a, b in places]
    corrected = holm([pair.p for pair in pairs])
    return [
        Outcome(a, b, pair, tuple(np.flatnonzero(right[a] != right[b]).tolist()), p)
        for (a, b), pair, p in zip(places, pairs, corrected, strict=True)
    ]


def report(runs: Sequence[Scored], found: Sequence[Outcome]) -> list[str]:
    """Return the lines for a terminal."""
    lines = [f"{len(runs[0].paths):,} pictures of {len(runs[0].classes)} classes"]
    for letter, run in zip(LETTERS, runs, strict=False):
        right, n = int(run.right.sum()), len(run.right)
        low, high = wilson_interval(right, n)
        lines.append(
            f"{letter}  accuracy {right / n:.4f} ({low:.4f} to {high:.4f})  {run.folder}, "
            f"{run.checkpoint}"
        )
    for outcome in found:
        lines += ["", verdict(outcome, len(found)), _counts(outcome), *_flips(runs, outcome)]
    return [*lines, "", _RULES, *_correction(len(found))]


def _correction(number: int) -> list[str]:
    if number < 2:
        return []
    return [f"{number} comparisons: the p in brackets is Holm's correction, which the words go by."]


def verdict(outcome: Outcome, number: int = 1) -> str:
    """Return what came out, in a sentence.

    Args:
        outcome: Of two runs.
        number: How many comparisons were made.
    """
    pairs, one, other = outcome.pairs, LETTERS[outcome.first], LETTERS[outcome.second]
    by, (low, high) = pairs.difference, pairs.interval
    p = f"p {_p(pairs.p)}" + (f" ({_p(outcome.p)})" if number > 1 else "")
    if outcome.p < _LEVEL:
        if by < 0:
            one, other, by, low, high = other, one, -by, -high, -low
        return f"{other} is better than {one} by {_points(by, low, high, pairs.n)}, {p}"
    size = _points(by, low, high, pairs.n)
    return f"no difference can be seen between {one} and {other}: {other} less {one} is {size}, {p}"


def _points(by: float, low: float, high: float, n: int) -> str:
    """Return a difference and its ends in percentage points, with the digits that n gives it."""
    digits = max(1, len(str(n)) - 3)
    texts = [f"{100 * round(share, digits + 2) + 0.0:.{digits}f}" for share in (by, low, high)]
    return f"{texts[0]} points ({texts[1]} to {texts[2]})"


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def _counts(outcome: Outcome) -> str:
    pairs, one, other = outcome.pairs, LETTERS[outcome.first], LETTERS[outcome.second]
    return (
        f"  both right {pairs.both_right:,}, {one} alone {pairs.only_first:,}, {other} alone "
        f"{pairs.only_second:,}, both wrong {pairs.both_wrong:,}"
    )


def _flips(runs: Sequence[Scored], outcome: Outcome) -> list[str]:
    """Return a line for each of the first pictures that flipped."""
    lines = []
    for at in outcome.flipped[:_SHOWN]:
        said = (
            f"{LETTERS[place]} {run.predicted[at]} {_confidence(run, at):.3f}"
            for place, run in ((place, runs[place]) for place in (outcome.first, outcome.second))
        )
        lines.append(f"  {runs[0].paths[at]}  is {runs[0].labels[at]}: {', '.join(said)}")
    more = len(outcome.flipped) - _SHOWN
    return [*lines, f"  and {more:,} more (--json FILE has them)"] if more > 0 else lines


def _confidence(run: Scored, at: int) -> float:
    """Return the probability of the class that a run named."""
    return float(run.probabilities[at, run.classes.index(run.predicted[at])])


def as_json(runs: Sequence[Scored], found: Sequence[Outcome], split: str) -> dict[str, Any]:
    """Return all of it as plain data."""
    return {
        "split": split,
        "n": len(runs[0].paths),
        "classes": list(runs[0].classes),
        "data_fingerprint": runs[0].fingerprint,
        "runs": [_run_json(*pair) for pair in zip(LETTERS, runs, strict=False)],
        "comparisons": [_outcome_json(runs, outcome, len(found)) for outcome in found],
    }


def _run_json(letter: str, run: Scored) -> dict[str, Any]:
    right, n = int(run.right.sum()), len(run.right)
    return {
        "name": letter,
        "run_dir": str(run.folder),
        "checkpoint": run.checkpoint,
        "accuracy": right / n,
        "accuracy_interval": list(wilson_interval(right, n)),
    }


def _outcome_json(runs: Sequence[Scored], outcome: Outcome, number: int) -> dict[str, Any]:
    pairs, one, other = outcome.pairs, runs[outcome.first], runs[outcome.second]
    return {
        "first": LETTERS[outcome.first],
        "second": LETTERS[outcome.second],
        "both_right": pairs.both_right,
        "only_first_right": pairs.only_first,
        "only_second_right": pairs.only_second,
        "both_wrong": pairs.both_wrong,
        "difference": pairs.difference,
        "difference_interval": list(pairs.interval),
        "p": pairs.p,
        "p_holm": outcome.p,
        "mid_p": pairs.mid_p,
        "verdict": verdict(outcome, number),
        "flipped": [
            {
                "path": one.paths[at],
                "label": one.labels[at],
                "first": {"class": one.predicted[at], "probability": _confidence(one, at)},
                "second": {"class": other.predicted[at], "probability": _confidence(other, at)},
            }
            for at in outcome.flipped
        ],
    }
