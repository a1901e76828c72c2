"""What the benchmark found, as lines for a terminal."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from src.cases import Case
from src.cores import usable_cores
from src.errors import RunFailureError
from src.probe import Way

STEP, LOADER = "step on a resident batch", "loader, one thread"
ALLOWED = "what the cores allow"
AGAINST = (
    ("trainer.fit", "bare loop"),
    ("trainer.fit", STEP),
    ("trainer.fit, augmented", "bare loop, augmented"),
    ("trainer.fit, augmented", ALLOWED),
)
Rates = dict[str, list[float]]


def probe_table(case: Case, ways: Sequence[Way]) -> list[str]:
    """Return the lines of a network's probe, the last of which names the fastest way."""
    done = [way for way in ways if way.seconds]
    if not done:
        raise RunFailureError(f"{case.name} can't be trained here: {ways[0].reason}")
    lines = [f"{about(case)}: milliseconds of forward and backward, against {done[0].name}"]
    for way in ways:
        if way.reason:
            lines.append(f"  {way.name:22} not here: {way.reason}")
            continue
        low, high = (1000 * end for end in spread(way.seconds))
        lines.append(
            f"  {way.name:22} {1000 * statistics.median(way.seconds):7.1f}  "
            f"({low:.1f} to {high:.1f})  {ratio(done[0].seconds, way.seconds):.2f} times as fast, "
            f"a probability differs by at most {way.difference:.1g}"
        )
    best = min(done, key=lambda w: statistics.median(w.seconds))
    return [*lines, f"  fastest: {best.name}{f' ({best.options})' if best.options else ''}"]


def ratios(rates: Rates, on_cpu: bool) -> Rates:
    """Return how many times as fast one measurement was as another, for each turn."""
    allowed = allowed_by_cores(rates[STEP], rates[LOADER], on_cpu)
    against = rates | {ALLOWED: allowed}
    return {
        f"{one} / {other}": [a / b for a, b in zip(rates[one], against[other], strict=True)]
        for one, other in AGAINST
    }


def table(case: Case, found: Mapping[str, Any]) -> list[str]:
    """Return the lines of a network's table: images a second, shares of the time, ratios."""
    lines = [f"{about(case)}: images a second"]
    for name, values in found["rates"].items():
        low, high = spread(values)
        workers = f"  {found['workers']} workers" if name.endswith(", augmented") else ""
        lines.append(
            f"  {name:26} {statistics.median(values):8.0f}  ({low:.0f} to {high:.0f}){workers}"
        )
    lines += [f"  {name}: {_share(values)}" for name, values in found["shares"].items()]
    return [*lines, *(f"  {n}: {statistics.median(v):.3f}" for n, v in found["ratios"].items())]


def _share(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1%}" if values else "not known: there is no nvidia-smi"


def about(case: Case) -> str:
    """Return what was measured, in words."""
    return f"{case.name}, {case.image_size} pixels, batches of {case.batch_size}"


def allowed_by_cores(steps: Sequence[float], loader: Sequence[float], on_cpu: bool) -> list[float]:
    """Return the images a second that no training can pass which makes its data on these cores.

    Args:
        steps: Images a second of the step alone; a number for each turn.
        loader: Of the loader alone, on one core.
        on_cpu: Whether the steps compute on the same cores, all of them; a GPU computes beside.
    """
    cores = usable_cores()
    pairs = list(zip(steps, loader, strict=True))
    if on_cpu:
        return [1 / (1 / step + 1 / (cores * load)) for step, load in pairs]
    return [min(step, cores * load) for step, load in pairs]


def starts_table(starts: Sequence[Mapping[str, Any]], workers: int) -> list[str]:
    """Return the lines on what a whole `fit` takes."""
    lines = [f"  from the start of fit to the end of its first step, {workers} workers, seconds"]
    for turn in ("cold", "warm"):
        seconds = [start[turn] for start in starts]
        low, high = spread(seconds)
        lines.append(
            f"    {turn + ' cache':24} {statistics.median(seconds):8.2f}  ({low:.2f} to {high:.2f})"
        )
    latest = starts[-1]
    if latest["peak_gib"] is not None:
        lines.append(f"  peak memory of its main process: {latest['peak_gib']:.2f} GiB")
    if latest["gpu_gib"] is not None:
        lines.append(f"  peak memory on the GPU: {latest['gpu_gib']:.2f} GiB")
    private = ", ".join(f"{mib:.0f}" for mib in latest["workers_mib"])
    return [*lines, f"  private memory of its workers: {private} MiB"] if private else lines


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios within each turn."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the middle half."""
    if len(values) < 2:
        return values[0], values[0]
    quarters = statistics.quantiles(values, n=4, method="inclusive")
    return quarters[0], quarters[2]
