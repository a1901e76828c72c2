"""What the commands leave in the run folder at their end: scores, predictions, the summary."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.calibration import Decision
from src.metrics import scores
from src.run import write_json, write_text
from src.scored import CHECKSUM, csv_text, write_scored
from src.table import Table

MAX_CONFUSION_CLASSES = 20


def write_scores(
    path: Path,
    paths: Sequence[str],
    table: Table,
    classes: Sequence[str],
    decision: Decision,
    more: Mapping[str, Any],
) -> None:
    """Write the scores of a table as JSON and its rows as CSV, and print the scores.

    Args:
        path: test.json or validate.json; the CSV has the same stem.
        paths: Of the pictures, by sample index.
        table: The evaluation.
        classes: Names in the order of the logits.
        decision: How logits become probabilities and a class.
        more: What was scored with what: checkpoint, data fingerprint.
    """
    found = scores(table, classes, decision)
    rows = write_scored(path.with_suffix(".csv"), paths, table, classes, decision)
    write_json(path, {**found, **more, CHECKSUM: rows})
    print(format_scores(found))


def format_scores(scores: dict[str, Any]) -> str:
    """Lay out what `scores` returned as plain text for a terminal.

    Args:
        scores: the result of the function `scores`.

    Returns:
        Lines without a newline at the end. The confusion counts are left out above 20 classes.
    """
    calibration = scores["calibration"]
    lines = [
        f"pictures  {scores['n']}  (in brackets: 95 % intervals)",
        f"accuracy  {_with_ends(scores, 'accuracy')}",
        f"  argmax  {_with_ends(scores, 'accuracy_argmax')}",
        f"baseline  {_with_ends(scores, 'baseline_accuracy')}  (the most frequent class)",
        f"f1        {_with_ends(scores, 'f1')}  (macro)",
        f"auroc     {_with_ends(scores, 'auroc')}  (macro, one against the rest)",
        f"loss      {_with_ends(scores, 'loss')}  (cross entropy, nats)",
        "",
        *_calibration_lines(calibration),
        "",
        *_class_lines(scores),
    ]
    if len(scores["classes"]) <= MAX_CONFUSION_CLASSES:
        lines += ["", *_confusion_lines(scores)]
    return "\n".join(lines)


def _with_ends(scores: Mapping[str, Any], name: str) -> str:
    """Write a score and its 95 % interval."""
    ends = scores[f"{name}_interval"]
    if ends is None:
        return _number(scores[name])
    return f"{scores[name]:.4f}  ({ends[0]:.4f} to {ends[1]:.4f})"


def _calibration_lines(calibration: Mapping[str, Any]) -> list[str]:
    """Lay out how far probabilities are from shares, before and after the temperature."""
    threshold = calibration["threshold"]
    decides = "the highest logit" if threshold is None else f"the threshold {threshold:.3f}"
    lines = [f"calibration (temperature {calibration['temperature']:.3f}; {decides} decides)"]
    for name, meaning in (("ece", "calibration error"), ("brier", "brier score"), ("loss", "loss")):
        before, after = (_with_ends(calibration[when], name) for when in ("before", "after"))
        lines.append(f"  {meaning:<17}  {before}  ->  {after}")
    return lines


def _number(value: float | None) -> str:
    """Write a score with four decimals; a dash where it is not defined."""
    return "-" if value is None else f"{value:.4f}"


def _class_lines(scores: dict[str, Any]) -> list[str]:
    """Lay out precision, recall and F1 with their intervals, and support; a line per class."""
    width = max(len("class"), *(len(name) for name in scores["classes"]))
    columns = ("precision", "recall", "f1")
    heads = "".join(f"  {name:<26}" for name in columns)
    lines = [f"{'class':<{width}}{heads}  support"]
    for name, row in scores["per_class"].items():
        cells = "".join(f"  {_with_ends(row, column):<26}" for column in columns)
        lines.append(f"{name:<{width}}{cells}  {row['support']:>7}")
    return lines


def _confusion_lines(scores: dict[str, Any]) -> list[str]:
    """Lay out the confusion counts, rows the targets, columns numbered like the rows."""
    names = [f"{c} {name}" for c, name in enumerate(scores["classes"])]
    cells = [str(count) for row in scores["confusion"] for count in row]
    left, right = max(map(len, names)), max(map(len, [*cells, str(len(names))]))
    header = " " * left + "".join(f"  {c:>{right}}" for c in range(len(names)))
    lines = ["confusion (rows: true class, columns: predicted class)", header]
    for name, row in zip(names, scores["confusion"], strict=True):
        lines.append(f"{name:<{left}}" + "".join(f"  {count:>{right}}" for count in row))
    return lines


def write_predictions(
    path: Path,
    listed: Sequence[str],
    errors: Mapping[str, str],
    predicted: Sequence[str],
    table: Table,
    classes: Sequence[str],
    decision: Decision,
) -> None:
    """Write predictions.csv: path, predicted_class, prob_<class>..., error; in input order.

    Args:
        path: The file; an old one is replaced.
        listed: Every path, in input order.
        errors: Why a path could not be decoded.
        predicted: The decodable paths, in the order of the table.
        table: Logits of the decodable ones.
        classes: Names in the order of the logits.
        decision: How logits become probabilities and a class.
    """
    winners, shares = decision.predicted(table.logits), decision.probabilities(table.logits)
    rows = dict(zip(predicted, zip(winners, shares, strict=True), strict=True))
    lines = [["path", "predicted_class", *(f"prob_{name}" for name in classes), "error"]]
    for name in listed:
        if name in rows:
            winner, row = rows[name]
            lines.append([name, classes[winner], *(f"{p:.6f}" for p in row), ""])
        else:
            lines.append([name, "", *("" for _ in classes), errors[name]])
    write_text(path, csv_text(lines), errors="surrogateescape")


def parameter_counts(module: Any) -> dict[str, int]:
    """Return the number of parameters of a module, and how many of them are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trainable_parameters": sum(size for size, trained in sizes if trained),
    }


def peak_memory() -> dict[str, float | None]:
    """Return the peak memory so far: of this process and of the GPU, in GiB; None if unknown."""
    import torch

    gpu = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    if sys.platform == "win32":
        return {"process_gib": None, "gpu_gib": gpu}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    return {"process_gib": round(process, 3), "gpu_gib": gpu}
