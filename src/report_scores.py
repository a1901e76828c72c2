"""The sections of a report that are scores: plain data for the page's template."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src import plots
from src.calibration import Decision
from src.data.index import SPLIT_NAMES
from src.judged import Judged
from src.metrics import scores
from src.report_parts import (
    Part,
    Ranged,
    Section,
    percent,
    plain_with_ends,
    section,
    table,
    with_ends,
)
from src.shortcut import Look
from src.slices import LEAST, Slice

MAX_CLASSES = 20  # in the confusion matrix, and in a table in the order of the classes
_BESIDE = 4  # classes of a matrix that has room beside a table
_CHOSEN = {
    "val": "The epoch and the temperature were chosen on these pictures, so the scores are a "
    "little too good; those of test pictures say what is left of them.",
    "test": "No step and no choice of the training saw these pictures.",
}
_CHOSEN_ON_TEST = (
    "The recipe let these test pictures choose the best epoch (data.validate_on_test), so the "
    "scores are too good."
)
_SCORES = {
    "accuracy": "accuracy",
    "accuracy_argmax": "accuracy by the highest logit",
    "baseline_accuracy": "baseline: always the most frequent class",
    "f1": "F1, mean over the classes",
    "auroc": "area under the ROC curve",
    "loss": "loss (cross entropy, nats)",
}
NEEDED = {
    *_SCORES, *(f"{name}_interval" for name in _SCORES), "per_class", "confusion", "calibration",
}  # fmt: skip
_RELIABILITY = (
    "On the dashed line, pictures named with 80 % confidence are right in 80 % of the cases. Bars: "
    "95 % intervals."
)


def all_scores(judged: Judged, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what test.json would say of the table.

    Args:
        judged: What the network says now.
        known: What it said, of test.json or validate.json; taken where it is of the same pictures,
            since intervals of many classes take minutes.
    """
    same = known.get("n") == len(judged.table.target) and known.keys() >= NEEDED
    if same and known.get("classes") == list(judged.classes):
        return dict(known)
    return scores(judged.table, judged.classes, judged.decision)


def score_tiles(found: Mapping[str, Any], split: str) -> list[dict[str, str]]:
    """Return the few numbers at the top."""
    low, high = found["accuracy_interval"]
    wrong = found["n"] - sum(row[c] for c, row in enumerate(found["confusion"]))
    return [
        {
            "value": percent(found["accuracy"]),
            "name": f"accuracy on {found['n']:,} {SPLIT_NAMES[split]} pictures",
        },
        {
            "value": f"{100 * low:.1f} to {100 * high:.1f}",
            "name": "its 95 % interval, in percent",
        },
        {
            "value": percent(found["baseline_accuracy"]),
            "name": "baseline: always the most frequent class",
        },
        {"value": f"{wrong:,}", "name": f"picture{'' if wrong == 1 else 's'} named wrongly"},
    ]


def looked_at(judged: Judged, found: Mapping[str, Any]) -> list[str]:
    """Return which pictures the scores are of, where they are not all."""
    n, unlabelled = len(judged.pictures), len(judged.pictures) - found["n"]
    part = f"Looked at are {n:,} of {judged.of_all:,} pictures, evenly spread."
    return [
        part if n < judged.of_all else "",
        f"{unlabelled:,} without a label are left out." if unlabelled else "",
    ]


def as_stored(found: Mapping[str, Any]) -> list[str]:
    """Return what is said of scores that were not made for this page."""
    name = found["checkpoint"]
    return [f"They were stored when {name} was scored: today it can't be scored again."]


def score_section(
    found: Mapping[str, Any], split: str, chosen_on_test: bool, looked: Sequence[str]
) -> Section:
    """Scores with intervals and baselines."""
    rows: list[list[str | Ranged]] = [
        [text, (plain_with_ends if k == "loss" else with_ends)(found[k], found[f"{k}_interval"])]
        for k, text in _SCORES.items()
    ]
    about = [
        f"On {found['n']:,} {SPLIT_NAMES[split]} pictures, with 95 % intervals. "
        + (_CHOSEN_ON_TEST if chosen_on_test else _CHOSEN[split]),
        *looked,
    ]
    return section("Scores", about, [table(["score", "value"], rows)])


def confusion_section(found: Mapping[str, Any]) -> Section:
    """Confusion matrix and the table of classes."""
    names, counts = found["classes"], found["confusion"]
    per_class = _class_table(found["per_class"])
    parts: list[Part]
    if len(names) > MAX_CLASSES:
        parts = [_most_confused(names, counts), per_class]
    else:
        rows = [
            (name, [_cell(number, sum(row), a == b) for b, number in enumerate(row)])
            for a, (name, row) in enumerate(zip(names, counts, strict=True))
        ]
        matrix = {"kind": "confusion", "names": names, "rows": rows}
        beside = len(names) <= _BESIDE
        parts = (
            [{"kind": "beside", "parts": [matrix, per_class]}] if beside else [matrix, per_class]
        )
    about = (
        "Precision: of what was named so, how much is so. Recall: of what is so, how much was "
        "named so."
    )
    return section("Classes", [about], parts)


def _class_table(per_class: Mapping[str, Mapping[str, Any]]) -> Part:
    """Return the classes in their order; of many, the lowest F1 first."""
    named = list(per_class.items())
    if len(named) > MAX_CLASSES:
        named.sort(key=lambda pair: -1.0 if pair[1]["f1"] is None else pair[1]["f1"])
    rows = [
        [
            name,
            f"{row['support']:,}",
            *(with_ends(row[k], row[f"{k}_interval"]) for k in ("precision", "recall", "f1")),
        ]
        for name, row in named
    ]
    return table(["class", "pictures", "precision", "recall", "F1"], rows)


def _cell(number: int, total: int, hit: bool) -> dict[str, Any]:
    return {"count": number, "share": number / total if total else 0.0, "hit": hit}


def _most_confused(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Part:
    """Return the commonest mistakes, where a matrix would be too large to read."""
    pairs = [
        (number, names[a], names[b])
        for a, row in enumerate(counts)
        for b, number in enumerate(row)
        if a != b and number
    ]
    first = sorted(pairs, key=lambda pair: -pair[0])[:MAX_CLASSES]
    rows = [[true, named, f"{number:,}"] for number, true, named in first]
    return table(["commonest mistakes: is", "was named", "pictures"], rows, [1])


def calibration_section(found: Mapping[str, Any], judged: Judged | None) -> Section:
    """How far probabilities can be trusted, and where the decision falls."""
    calibration = found["calibration"]
    names = {"ece": "expected calibration error", "brier": "Brier score", "loss": "log loss"}
    rows = [
        [text, *(plain_with_ends(calibration[when][k], calibration[when][f"{k}_interval"])
                 for when in ("before", "after"))]
        for k, text in names.items()
    ]  # fmt: skip
    drawn = [{"kind": "plots", "plots": _calibration_plots(judged)}] if judged else []
    about = (
        f"Logits are divided by a temperature of {calibration['temperature']:.3f}, fitted on the "
        "validation pictures."
        if calibration["temperature"] != 1
        else "No temperature was fitted: before and after are the same."
    )
    return section(
        "Calibration",
        [about],
        [*drawn, table(["", "before", "after"], rows)],
    )


def _calibration_plots(judged: Judged) -> list[dict[str, str]]:
    right = np.asarray(judged.table.predicted == judged.table.target)
    svg = plots.reliability(judged.confidence(), judged.confidence(Decision()), right)
    return [{"svg": svg, "caption": _RELIABILITY}, _histogram(judged)]


def _histogram(judged: Judged) -> dict[str, str]:
    if len(judged.classes) == 2:
        first, second = judged.classes
        groups = {
            name: judged.probabilities[judged.table.target == c, 1]
            for c, name in enumerate(judged.classes)
        }
        threshold = 0.5 if judged.decision.threshold is None else judged.decision.threshold
        svg = plots.histogram(groups, f"probability of {second}", threshold)
        caption = f"Colours: what the pictures are. Left of the line they are named {first}."
        return {"svg": svg, "caption": caption}
    sure = judged.confidence()
    groups = {"named rightly": sure[judged.right], "wrongly": sure[~judged.right]}
    return {
        "svg": plots.histogram(groups, "confidence", None),
        "caption": "How sure the network was of what it named rightly and wrongly.",
    }


def shortcut_section(looks: Sequence[Look], baseline: float) -> Section:
    """Scores on altered pictures."""
    rows = [(look.name, look.accuracy, look.interval) for look in looks]
    svg = plots.intervals("shortcuts", rows, "accuracy", baseline)
    cells = [[k.name, with_ends(k.accuracy, k.interval), k.meaning] for k in looks]
    about = (
        f"The same network on {looks[0].n:,} of the pictures with parts of them taken away. The "
        "dashed line is the baseline. A network that is good on the border alone has learned "
        "backgrounds."
    )
    plot = {"kind": "plot", "svg": svg, "caption": "Accuracy with 95 % intervals."}
    beside = [plot, table(["pictures", "accuracy", "what it would say"], cells, [2])]
    return section("Shortcuts", [about], [{"kind": "beside", "parts": beside}])


def slice_section(found: Sequence[Slice], alike: Sequence[str]) -> Section:
    """Scores on thirds of the pictures.

    Args:
        found: What the pictures were cut into.
        alike: Measures that do not part the pictures.
    """
    if not found:
        text = f"The pictures are too few, or too alike, for thirds of {LEAST} and more."
        return section("Slices", (), [{"kind": "text", "text": text}])
    units = {"brightness": "{:.0f}", "sharpness": "{:,.0f}", "size": "{:,.0f}"}
    cells = [
        [
            f"{s.name}, by {s.measure}",
            f"{units[s.measure].format(s.low)} to {units[s.measure].format(s.high)}",
            f"{s.n:,}",
            with_ends(s.accuracy, s.interval),
        ]
        for s in found
    ]
    rows = [(f"{s.name} ({s.measure})", s.accuracy, s.interval) for s in found]
    svg = plots.intervals("slices", rows, "accuracy")
    plot = {"kind": "plot", "svg": svg, "caption": "Accuracy with 95 % intervals."}
    about = [
        "Thirds of the pictures: brightness is the mean grey value (0 to 255), sharpness the "
        "variance of the Laplacian, both as the network gets them; size is in pixels of the file. "
        "Where intervals lie apart, the network is weaker, or has seen less.",
        f"Left out: {' and '.join(alike)}, of which a third has fewer than {LEAST}."
        if alike
        else "",
    ]
    beside = [plot, table(["third", "from, to", "pictures", "accuracy"], cells)]
    return section("Slices", about, [{"kind": "beside", "parts": beside}])
