"""What was measured, as Markdown, and its place in docs/benchmarks.md."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.page import page_with
from tests.benchmarks.peers.programs import Contest, Result

NAME = "peers"
TITLES = {
    "keras": "Keras, the seed's program",
    "ours-fp32": "Waggle, fp32",
    "ours-bf16": "Waggle, bf16-mixed",
    "fastai": "fastai",
}
Results = dict[str, dict[int, Result]]


def write_page(path: Path, part: str) -> None:
    """Write the part of a page that is ours."""
    path.write_text(page_with(path.read_text("utf-8"), part, NAME), "utf-8")


def ratios(one: dict[int, Result], other: dict[int, Result]) -> list[float]:
    """Return how many times the seconds of the other program one took, for each turn of both."""
    both = sorted(one.keys() & other.keys())
    return [one[seed]["seconds"] / other[seed]["seconds"] for seed in both]


def report(
    contest: Contest,
    counts: dict[str, int],
    found: Results,
    reasons: dict[str, str],
    loaders: Result,
) -> str:
    """Return everything as Markdown."""
    parts = [
        about(contest, counts, loaders["machine"], found),
        seed_table(contest, found, reasons),
        fast_table(contest, found),
        loader_table(loaders["images_per_second"]),
    ]
    return "\n\n".join(part for part in parts if part)


def about(contest: Contest, counts: dict[str, int], machine: Result, found: Results) -> str:
    """Return what the numbers belong to."""
    seeds = sorted({seed for runs in found.values() for seed in runs})
    lines = [
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}; {counts['train']:,} pictures to train on and {counts['test']:,} "
        f"held out; seeds {', '.join(map(str, seeds))}; {contest.epochs} + {contest.epochs} "
        "epochs.",
        "",
    ]
    for name, runs in {"ours-fp32": {0: machine}, **found}.items():
        versions = next(iter(runs.values()), {}).get("versions") or {}
        if name in ("keras", "fastai") or (name == "ours-fp32" and versions):
            told = ", ".join(f"{package} {version}" for package, version in versions.items())
            lines.append(f"- {TITLES[name].partition(',')[0]}: {told}")
    return "\n".join(lines)


def seed_table(contest: Contest, found: Results, reasons: dict[str, str]) -> str:
    """Return the table of the seed's experiment."""
    lines = [
        "| program | wall time, s | of Keras's | accuracy after the plain half | at the end | "
        "best (epoch) | memory of all processes, GiB | of the largest, GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        if name in reasons:
            lines.append(f"| {title} | {_cell(reasons[name])} | | | | | | |")
        elif found.get(name):
            cells = seed_cells(found[name], found.get("keras", {}), contest.epochs)
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seed_cells(runs: dict[int, Result], keras: dict[int, Result], epochs: int) -> list[str]:
    """Return a program's row: medians of times and memory, means of accuracies."""
    scores = [run["val_accuracy"] for run in runs.values()]
    best = [max(one) for one in scores]
    epoch = ", ".join(str(one.index(max(one)) + 1) for one in scores)
    return [
        spread([run["seconds"] for run in runs.values()], 0),
        _ratio(ratios(runs, keras)),
        f"{statistics.mean(one[epochs - 1] for one in scores):.3f}",
        f"{statistics.mean(one[-1] for one in scores):.3f}",
        f"{statistics.mean(best):.3f} ({epoch})",
        _memory([run["tree_gib"] for run in runs.values()]),
        _memory([run["process_gib"] for run in runs.values()]),
    ]


def fast_table(contest: Contest, found: Results) -> str:
    """Return the table of the time to the threshold; nothing if it was not measured."""
    runs = found.get("fast")
    if not runs:
        return ""
    failed = [str(seed) for seed, run in sorted(runs.items()) if not run["reached"]]
    reached = {seed: run for seed, run in runs.items() if run["reached"]}
    seconds = spread([run["seconds"] for run in reached.values()], 0) if reached else "-"
    epochs = ", ".join(str(len(run["val_accuracy"])) for run in reached.values()) or "-"
    share = _ratio([] if failed else ratios(reached, found.get("keras", {})))
    note = f"; not reached with seed {', '.join(failed)}" if failed else ""
    config = contest.fast_config  # a path of this machine's has no place on the page
    recipe = config.name if config.is_absolute() else f"`{config.as_posix()}`"
    return "\n".join(
        [
            f"| to {contest.threshold:.0%} of the held-out pictures, cache cold | seconds | "
            "after epochs | of Keras's whole time | aim |",
            "|---|---|---|---|---|",
            f"| Waggle, {recipe} | {seconds}{note} | {epochs} | {share} | 0.20 at most |",
        ]
    )


def loader_table(found: dict[str, list[float]]) -> str:
    """Return the table of images a second."""
    lines = [
        "| images a second, no worker processes | Waggle | torch + PIL | ratio | aim |",
        "|---|---|---|---|---|",
    ]
    kinds = {"loader": ("one core, augmented", "3 at least"), "training": ("`SeedCNN`", "")}
    for kind, (title, aim) in kinds.items():
        ours, peer = found[f"{kind}, ours"], found[f"{kind}, torch + PIL"]
        ratio = _ratio([a / b for a, b in zip(ours, peer, strict=True)])
        row = [f"{kind}, {title}", spread(ours, 0), spread(peer, 0), ratio, aim]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median, with the lowest and the highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _ratio(values: Sequence[float]) -> str:
    """Return the median of the turns' ratios."""
    return f"{statistics.median(values):.3f}" if values else "-"


def _memory(values: Sequence[float | None]) -> str:
    known = [value for value in values if value]
    return f"{statistics.median(known):.2f}" if known else "-"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
