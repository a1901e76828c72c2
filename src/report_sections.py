"""The sections of a report that are numbers and curves: plain data for the page's template."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src import plots
from src.calibration import Decision
from src.data.workers import own_cores
from src.judged import Judged
from src.metrics import scores
from src.shortcut import Look
from src.slices import Slice
from src.trained import Trained

Part = dict[str, Any]
Section = dict[str, Any]
MAX_CLASSES = 20  # in the confusion matrix, and in a table of probabilities
SPLIT_NAMES = {"test": "test", "val": "validation", "train": "training"}


def section(title: str, about: Sequence[str], parts: Sequence[Part], name: str = "") -> Section:
    """Return a section; its id is the title's first word unless it has a name."""
    return {
        "id": name or title.lower().split()[0],
        "title": title,
        "about": [text for text in about if text],
        "parts": list(parts),
    }


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as text; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def with_ends(share: float | None, ends: Sequence[float] | None) -> str:
    """Return a share with its 95 % interval."""
    if share is None or ends is None:
        return percent(share)
    return f"{percent(share)} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


# What the run was


def data_card(run: Trained) -> Section:
    """What was trained on what."""
    about, data = run.record.get("data", {}), run.config["data"]
    counts: Mapping[str, Mapping[str, int]] = about.get("counts", {})
    size = data["image_size"]
    facts = [
        ("Network", _class_of(run.config.get("model", {}).get("net"))),
        ("Parameters", _parameters(run)),
        (
            "Pictures",
            f"{size} x {size} pixels, {data['resize']}; cache {data.get('cache_size') or size}",
        ),
        (
            "Augmentation",
            ", ".join(_class_of(spec) for spec in data.get("augment") or ()) or "none",
        ),
        ("Optimizer", _class_of(run.config.get("model", {}).get("optimizer"))),
        ("Left out as damaged", str(about.get("skipped", 0))),
        ("Fingerprint of the data", str(about.get("fingerprint", "unknown"))[:16]),
    ]
    table = {
        "kind": "table",
        "head": ["class", *(SPLIT_NAMES.get(split, split) for split in counts)],
        "rows": [
            [name, *(f"{row.get(name, 0):,}" for row in counts.values())] for name in run.classes
        ],
    }
    return section("Data and network", (), [{"kind": "facts", "rows": facts}, table])


def _parameters(run: Trained) -> str:
    total, trained = (run.summary.get(k) for k in ("parameters", "trainable_parameters"))
    return f"{total:,}, {trained:,} of them trained" if total and trained else "unknown"


def _class_of(spec: Any) -> str:
    """Return a class with its arguments, as a config names them, in short."""
    if isinstance(spec, str):
        return spec.split(".")[-1]
    if not isinstance(spec, Mapping):
        return "unknown"
    arguments = spec.get("init_args") or {}
    said = ", ".join(f"{k} {v}" for k, v in arguments.items() if isinstance(v, int | float | str))
    name = str(spec.get("class_path", "")).split(".")[-1]
    return f"{name} ({said})" if said else name


def learning_curves(run: Trained) -> Section:
    """Loss and accuracy over the epochs."""
    best = run.summary.get("best", {}).get("epoch")
    made = []
    for score, what in (("loss", "loss"), ("accuracy", "accuracy")):
        lines = {
            name: column(run.rows, f"{part}/{score}")
            for part, name in (("train", "training"), ("val", "validation"))
        }
        svg = plots.curves(f"curve-{score}", what, lines, None if best is None else best + 1)
        made.append({"svg": svg, "caption": _CAPTIONS[score]})
    about = (
        "Training numbers are of augmented pictures while the weights moved; validation, of plain "
        "pictures afterwards."
    )
    return section("Learning curves", [about], [{"kind": "plots", "plots": made}], "curves")


_CAPTIONS = {
    "loss": "Cross entropy in nats; lower is better. A validation loss that rises while the "
    "training loss falls: the network learns its pictures by heart.",
    "accuracy": "Share of pictures named rightly.",
}


def column(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Return the epochs, from 1, and the values of a column of metrics.csv."""
    epochs = [float(row["epoch"]) + 1 for row in rows]
    return epochs, [float(row.get(name) or "nan") for row in rows]


def time_spent(run: Trained) -> Section:
    """Where the time went."""
    seconds = [float(row["seconds"]) for row in run.rows]
    trained = run.record.get("data", {}).get("counts", {}).get("train", {})
    images = sum(trained.values())
    rates = [float(row.get("images_per_second") or "nan") for row in run.rows]
    steps = sum(images / rate for rate in rates if rate and not math.isnan(rate))
    total = seconds[-1] if seconds else 0.0
    rest = max(0.0, total - steps)
    rows = [
        ("Training steps", f"{duration(steps)} ({percent(steps / total, 0) if total else '-'})"),
        (
            "Validation, checkpoints and all else",
            f"{duration(rest)} ({percent(rest / total, 0) if total else '-'})",
        ),
        ("Together, over all sittings", duration(total)),
        ("Pictures a second while training", f"{np.nanmedian(rates):.0f}" if rates else "-"),
        (
            "Machine",
            _machine(run.record),
        ),
    ]
    about = "Measured from the first step on; what is decoded and measured before it comes on top."
    return section("Time", [about], [{"kind": "facts", "rows": rows}])


def _machine(record: Mapping[str, Any]) -> str:
    processes, threads = record.get("processes", 1), record.get("threads", own_cores(1))
    return f"{record.get('device', 'unknown')}, {processes} process(es), {threads} thread(s)"


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def reproduce(run: Trained) -> Section:
    """The command that makes the run again, and what it depends on."""
    record = run.record
    versions = record.get("versions", {})
    rows = [
        ("Seed", str(record.get("seed", "unknown"))),
        ("Started", str(record.get("started", "unknown"))),
        ("Code", str(record.get("git_commit") or "outside git")),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
    ]
    code = {"kind": "code", "text": shlex.join(map(str, record.get("command", [])))}
    return section("Reproduce", (), [code, {"kind": "facts", "rows": rows}])


# What it scores


def score_tiles(judged: Judged, found: Mapping[str, Any], split: str) -> list[dict[str, str]]:
    """Return the few numbers at the top."""
    low, high = found["accuracy_interval"]
    return [
        {
            "value": percent(found["accuracy"]),
            "name": f"accuracy on {found['n']:,} {SPLIT_NAMES[split]} pictures",
        },
        {
            "value": f"{100 * low:.1f} to {100 * high:.1f}",
            "name": "95 % interval of it, in percent",
        },
        {
            "value": percent(found["baseline_accuracy"]),
            "name": "baseline: always the most frequent class",
        },
        {"value": str(int((~judged.right).sum())), "name": "pictures named wrongly"},
    ]


def all_scores(judged: Judged) -> dict[str, Any]:
    """Return what test.json would say of the table."""
    return scores(judged.table, judged.classes, judged.decision)


def score_section(found: Mapping[str, Any], split: str) -> Section:
    """Scores with intervals and baselines."""
    names = {
        "accuracy": "accuracy",
        "accuracy_argmax": "accuracy by the highest logit",
        "baseline_accuracy": "baseline: always the most frequent class",
        "f1": "F1, mean over the classes",
        "auroc": "area under the ROC curve",
    }
    rows = [[text, with_ends(found[k], found[f"{k}_interval"])] for k, text in names.items()]
    low, high = found["loss_interval"]
    rows.append(["loss (cross entropy, nats)", f"{found['loss']:.4f} ({low:.4f} to {high:.4f})"])
    chosen = (
        "These pictures chose the epoch and the threshold, so the scores are a little too good; "
        "test says what is left of them."
        if split == "val"
        else "The network has never seen these pictures."
    )
    about = f"On {found['n']:,} {SPLIT_NAMES[split]} pictures, with 95 % intervals. {chosen}"
    return section("Scores", [about], [{"kind": "table", "head": ["score", "value"], "rows": rows}])


def confusion_section(found: Mapping[str, Any]) -> Section:
    """Confusion matrix and the table of classes."""
    names, counts = found["classes"], found["confusion"]
    parts: list[Part] = []
    if len(names) <= MAX_CLASSES:
        rows = [
            (name, [_cell(count, sum(row), a == b) for b, count in enumerate(row)])
            for a, (name, row) in enumerate(zip(names, counts, strict=True))
        ]
        parts.append({"kind": "confusion", "names": names, "rows": rows})
    else:
        parts.append(_most_confused(names, counts))
    head = ["class", "pictures", "precision", "recall", "F1"]
    table = [
        [
            name,
            f"{row['support']:,}",
            *(with_ends(row[k], row[f"{k}_interval"]) for k in ("precision", "recall", "f1")),
        ]
        for name, row in found["per_class"].items()
    ]
    parts.append({"kind": "table", "head": head, "rows": table})
    about = (
        "Precision: of what was named so, how much is so. Recall: of what is so, how much was "
        "named so."
    )
    return section("Classes", [about], parts)


def _cell(count: int, total: int, hit: bool) -> dict[str, Any]:
    return {"count": count, "share": count / total if total else 0.0, "hit": hit}


def _most_confused(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Part:
    """Return the commonest mistakes, where a matrix would be too large to read."""
    pairs = [
        (count, names[a], names[b])
        for a, row in enumerate(counts)
        for b, count in enumerate(row)
        if a != b and count
    ]
    rows = [[true, said, str(n)] for n, true, said in sorted(pairs, reverse=True)[:MAX_CLASSES]]
    return {"kind": "table", "head": ["is", "was named", "pictures"], "rows": rows}


def calibration_section(judged: Judged, found: Mapping[str, Any]) -> Section:
    """How far probabilities can be trusted, and where the decision falls."""
    before, after = (found["calibration"][when] for when in ("before", "after"))
    rows = [
        [
            text,
            *(
                f"{when[k]:.4f} ({when[k + '_interval'][0]:.4f} to {when[k + '_interval'][1]:.4f})"
                for when in (before, after)
            ),
        ]
        for k, text in (
            ("ece", "expected calibration error"),
            ("brier", "Brier score"),
            ("loss", "log loss"),
        )
    ]
    right = np.asarray(judged.table.predicted == judged.table.target)
    svg = plots.reliability(judged.confidence(), judged.confidence(Decision()), right)
    parts: list[Part] = [
        {
            "kind": "plots",
            "plots": [
                {
                    "svg": svg,
                    "caption": _RELIABILITY,
                },
                _histogram(judged),
            ],
        },
        {"kind": "table", "head": ["", "before", "after"], "rows": rows},
    ]
    temperature = found["calibration"]["temperature"]
    about = f"Logits are divided by {temperature:.3f}, fitted on the validation pictures."
    return section("Calibration", [about], parts)


_RELIABILITY = (
    "On the dashed line, pictures named with 80 % confidence are right in 80 % of the cases. Bars: "
    "95 % intervals."
)


def _histogram(judged: Judged) -> dict[str, str]:
    if len(judged.classes) == 2:
        groups = {
            name: judged.probabilities[judged.table.target == c, 1]
            for c, name in enumerate(judged.classes)
        }
        what = f"probability of {judged.classes[1]}"
        caption = (
            "By what the pictures are. From the line on, a picture is named by the second class."
        )
        return {"svg": plots.histogram(groups, what, judged.decision.threshold), "caption": caption}
    sure = judged.confidence()
    groups = {"right": sure[judged.right], "wrong": sure[~judged.right]}
    return {
        "svg": plots.histogram(groups, "confidence", None),
        "caption": "How sure the network was of what it named rightly and wrongly.",
    }


def shortcut_section(looks: Sequence[Look], baseline: float) -> Section:
    """Scores on altered pictures."""
    rows = [(look.name, look.accuracy, look.interval) for look in looks]
    svg = plots.intervals("shortcuts", rows, "accuracy", baseline)
    table = [[k.name, with_ends(k.accuracy, k.interval), k.meaning] for k in looks]
    about = (
        f"The same network on {looks[0].n:,} of the pictures with parts of them taken away. The "
        "dashed line is the baseline. A network that is good on the border alone has learned "
        "backgrounds."
    )
    return section(
        "Shortcuts",
        [about],
        [
            {"kind": "plots", "plots": [{"svg": svg, "caption": "Accuracy with 95 % intervals."}]},
            {
                "kind": "table",
                "head": ["pictures", "accuracy", "what it would say"],
                "rows": table,
                "words": [2],
            },
        ],
    )


def slice_section(found: Sequence[Slice]) -> Section:
    """Scores on thirds of the pictures."""
    units = {"brightness": "{:.0f}", "sharpness": "{:.0f}", "size": "{:,.0f} pixels"}
    rows = [
        [
            f"{s.measure}: {s.name}",
            f"{units[s.measure].format(s.low)} to {units[s.measure].format(s.high)}",
            f"{s.n:,}",
            with_ends(s.accuracy, s.interval),
        ]
        for s in found
    ]
    about = (
        "Thirds of the pictures by a measure. Where intervals lie apart, the network is weaker, or "
        "has seen less."
    )
    head = ["pictures", "measure", "number", "accuracy"]
    return section("Slices", [about], [{"kind": "table", "head": head, "rows": rows}])
