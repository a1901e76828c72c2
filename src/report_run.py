"""The sections of a report on the run itself: data and network, curves, time, how to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src import plots
from src.data.index import SPLIT_NAMES
from src.errors import command_text
from src.report_parts import Section, count, duration, percent, section, table
from src.trained import Trained

_CAPTIONS = {
    "loss": "Cross entropy in nats; lower is better. A validation loss that rises while the "
    "training loss falls: the network learns its pictures by heart.",
    "accuracy": "Share of pictures named rightly.",
}


def data_card(run: Trained) -> Section:
    """What was trained on what."""
    about, data = run.record.get("data", {}), run.config["data"]
    model = run.config.get("model") or {}
    counts: Mapping[str, Mapping[str, int]] = about.get("counts") or (
        run.index.counts() if run.index is not None else {}
    )
    size, stored = data["image_size"], data.get("cache_size")
    facts = [
        ("Network", _class_of(model.get("net"))),
        ("Parameters", _parameters(run)),
        (
            "Pictures",
            f"{size} x {size} pixels, {data['resize']}"
            + (f"; cropped from {stored} in training" if stored else ""),
        ),
        ("Augmentation", "; ".join(_class_of(s) for s in data.get("augment") or ()) or "none"),
        ("Optimizer", _class_of(model.get("optimizer"))),
        ("Schedule", _class_of(model["scheduler"]) if model.get("scheduler") else "none"),
        ("Pictures come from", str(about.get("root") or "unknown")),
        ("Left out as damaged", str(about.get("skipped", "unknown"))),
        ("Fingerprint of the data", str(about.get("fingerprint", "unknown"))[:16]),
    ]
    head = ["class", *(SPLIT_NAMES.get(split, split) for split in counts)]
    rows = [[name, *(f"{row.get(name, 0):,}" for row in counts.values())] for name in run.classes]
    return section(
        "Data and network", (), [{"kind": "facts", "rows": facts}, table(head, rows)], "data"
    )


def parameters(run: Trained) -> str:
    """Return the number of parameters, of the network itself if the run has not ended."""
    total = run.summary.get("parameters")
    if total is None and run.model is not None:
        total = sum(p.numel() for p in run.model.net.parameters())
    return "unknown" if total is None else f"{total:,}"


def _parameters(run: Trained) -> str:
    trained = run.summary.get("trainable_parameters")
    return parameters(run) + ("" if trained is None else f", {trained:,} of them trained")


def _class_of(spec: Any) -> str:
    """Return a class with its arguments, as a config names them, in short."""
    if isinstance(spec, str):
        return spec.split(".")[-1]
    if not isinstance(spec, Mapping):
        return "unknown"
    arguments = spec.get("init_args") or {}
    told = ", ".join(
        f"{k} {v}"
        for k, v in arguments.items()
        if isinstance(v, int | float | str) and v is not False
    )
    name = str(spec.get("class_path", "")).split(".")[-1]
    return f"{name} ({told})" if told else name


def learning_curves(run: Trained) -> Section:
    """Loss and accuracy over the epochs."""
    best = run.summary.get("best", {}).get("epoch")
    judge = "test" if run.chosen_on_test else "validation"
    made = []
    for score in ("loss", "accuracy"):
        lines = {
            name: column(run.rows, f"{part}/{score}")
            for part, name in (("train", "training"), ("val", judge))
        }
        svg = plots.curves(f"curve-{score}", score, lines, None if best is None else best + 1)
        made.append({"svg": svg, "caption": _CAPTIONS[score]})
    about = (
        f"Training numbers are of pictures as they were shown while the weights moved; {judge} "
        "numbers, of plain pictures afterwards."
    )
    return section("Learning curves", [about], [{"kind": "plots", "plots": made}], "curves")


def column(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Return the epochs, from 1, and the values of a column of metrics.csv."""
    epochs = [float(row["epoch"]) + 1 for row in rows]
    return epochs, [float(row.get(name) or "nan") for row in rows]


def time_spent(run: Trained) -> Section:
    """Where the time went."""
    total = float(run.rows[-1]["seconds"])
    steps = min(total, seconds_of_steps(run))
    rates = column(run.rows, "images_per_second")[1]
    rest = total - steps
    rows = [
        ("Training steps", f"{duration(steps)}, {_of(steps, total)}"),
        ("Validation, checkpoints, all else", f"{duration(rest)}, {_of(rest, total)}"),
        ("Together, over all sittings", duration(total)),
        ("Pictures a second in training", f"{np.nanmedian(rates):,.0f}"),
        ("Machine", _machine(run.record)),
    ]
    about = "From the first step on; what is decoded and measured before it comes on top."
    bar = {
        "kind": "bar",
        "parts": [
            {"name": "training steps", "share": steps / total if total else 0.0},
            {"name": "all else", "share": rest / total if total else 0.0},
        ],
    }
    return section("Time", [about], [bar, {"kind": "facts", "rows": rows}])


def seconds_of_steps(run: Trained) -> float:
    """Return how long the training steps took, by the speed that each row tells.

    The pictures between two rows are those of their steps; the last step of an epoch may be
    smaller, so they are never more than the epochs hold.
    """
    data, trainer = run.config["data"], run.config.get("trainer") or {}
    size = data["batch_size"] * (trainer.get("accumulate_grad_batches") or 1)
    size *= int(run.record.get("processes") or 1)
    counts = run.record.get("data", {}).get("counts", {}).get("train", {})
    steps = np.diff([float(row["step"]) for row in run.rows], prepend=0.0)
    epochs = np.maximum(1.0, np.diff([float(row["epoch"]) for row in run.rows], prepend=-1.0))
    pictures = np.minimum(steps * size, epochs * (sum(counts.values()) or np.inf))
    rates = np.array(column(run.rows, "images_per_second")[1])
    known = rates > 0
    return float((pictures[known] / rates[known]).sum())


def _of(seconds: float, total: float) -> str:
    return percent(seconds / total if total else None, 0)


def _machine(record: Mapping[str, Any]) -> str:
    processes = count(int(record.get("processes") or 1), "process")
    threads = record.get("threads")
    told = f", {count(int(threads), 'thread')} each" if threads else ""
    return f"{record.get('device', 'unknown')}, {processes}{told}"


def reproduce(run: Trained) -> Section:
    """The command that makes the run again, and what it depends on."""
    record = run.record
    words = [str(word) for word in record.get("command") or ()]
    versions = record.get("versions") or {}
    commit = str(record.get("git_commit", "unknown") or "outside git")
    rows = [
        ("Seed", str(record.get("seed", "unknown"))),
        ("Started", str(record.get("started", "unknown"))),
        (
            "Code",
            commit.replace("-dirty", ", with changes that were not committed"),
        ),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("Settings", f"all of them stand in {run.folder.newest_config.name}"),
    ]
    facts = {"kind": "facts", "rows": rows}
    if not words:
        return section("Reproduce", (), [facts])
    code = {"kind": "code", "text": command_text(words)}
    return section("Reproduce", (), [code, facts])
