"""What the commands leave in the run folder at their end: scores, predictions, the summary."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.metrics import Table, format_scores, scores
from src.run import write_json


def write_scores(path: Path, table: Table, classes: Sequence[str], more: Mapping[str, Any]) -> None:
    """Write the scores of a table as JSON, and print them.

    Args:
        path: test.json or validate.json.
        table: The evaluation.
        classes: Names in the order of the logits.
        more: What was scored with what: checkpoint, data fingerprint.
    """
    found = scores(table, classes)
    write_json(path, {**found, **more})
    print(format_scores(found))


def write_predictions(
    path: Path,
    listed: Sequence[str],
    errors: Mapping[str, str],
    predicted: Sequence[str],
    table: Table,
    classes: Sequence[str],
) -> None:
    """Write predictions.csv: path, predicted_class, prob_<class>..., error; in input order.

    Args:
        path: The file; an old one is replaced.
        listed: Every path, in input order.
        errors: Why a path could not be decoded.
        predicted: The decodable paths, in the order of the table.
        table: Logits of the decodable ones.
        classes: Names in the order of the logits.
    """
    rows = dict(zip(predicted, zip(table.predicted, table.probabilities, strict=True), strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "predicted_class", *(f"prob_{name}" for name in classes), "error"])
    for name in listed:
        if name in rows:
            winner, shares = rows[name]
            writer.writerow([name, classes[winner], *(f"{p:.6f}" for p in shares), ""])
        else:
            writer.writerow([name, "", *("" for _ in classes), errors[name]])
    part = path.with_name(path.name + ".tmp")
    part.write_text(text.getvalue(), "utf-8", newline="", errors="surrogateescape")
    part.replace(path)


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
