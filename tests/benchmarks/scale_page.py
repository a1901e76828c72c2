"""What `tests.benchmarks.scale` has measured, as a table, a picture and the text of a page."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.bench_report import spread

GB = 1e9
PARTS = ("listing", "checking", "splitting", "cache", "record")
_ABOUT = """\
Microseconds a picture of {side} x {side} pixels, cold (nothing is known yet: every file is decoded
and put into the cache) and warm (the second start), and the peak memory of the process, of which
about 0.4 GB are the libraries; the last column is that of a whole fit. Checking is the decoding of
every file, cold, and the look whether it has changed, warm; record is `samples.csv` and the
fingerprint. The first step is what a user waits for: the time from the start of a warm `fit` to the
end of its first step, as the median of {repeats} turns and the middle half of them.
"""


def table(found: dict[str, Any]) -> str:
    """Lay the measurements out as a Markdown table."""
    head = ["pictures", "start", *PARTS, "all, us a picture", "peak memory, GB", "first step, s"]
    head.append("peak memory of fit, GB")
    rows = [head, ["---:", "---", *["---:"] * (len(head) - 2)]]
    for size, measured in found.items():
        for state in ("cold", "warm"):
            times = measured[state]
            each = [f"{times[part] / int(size) * 1e6:.1f}" for part in (*PARTS, "all")]
            peak = f"{times['peak_bytes'] / GB:.2f}"
            step = _step(measured["first_step_seconds"]) if state == "warm" else ""
            fit = f"{measured['fit_peak_gb']:.2f}" if step else ""
            rows.append([f"{int(size):,}", state, *each, peak, step, fit])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _step(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    low, high = spread(seconds)
    return f"{statistics.median(seconds):.2f} ({low:.2f} to {high:.2f})"


def later(found: dict[str, Any]) -> str:
    """Say how much later than the smallest size each other one takes its first step."""
    first, *others = found
    base = found[first]["first_step_seconds"]
    if not base or not others:
        return ""
    parts = []
    for size in others:
        turns = zip(found[size]["first_step_seconds"], base, strict=True)
        parts.append(f"{int(size):,}: {statistics.median(a - b for a, b in turns):.2f} s")
    return f"Later than {int(first):,} pictures, median of the turns' differences: " + ", ".join(
        parts
    )


def draw(found: dict[str, Any], path: Path) -> bool:
    """Draw time a picture and memory over the number of pictures; return whether it could be."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [int(size) for size in found]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    for state, colour in (("cold", "#1f5fa8"), ("warm", "#c8720a")):
        times = [found[str(size)][state]["all"] / size * 1e6 for size in sizes]
        peaks = [found[str(size)][state]["peak_bytes"] / GB for size in sizes]
        for axes, values in ((left, times), (right, peaks)):
            axes.loglog(sizes, values, "o-", color=colour, lw=2, label=state)
        left.axhline(times[-1], color=colour, ls=":", lw=1.2)
    right.axhline(1.5, color="#a02c2c", ls="--", lw=1.2)
    right.annotate("limit: 1.5 GB", (sizes[0], 1.5), (0, 4), textcoords="offset points")
    left.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    left.set_ylim(1, 10_000)
    right.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    titles = ("µs to prepare a picture (dotted: flat)", "peak memory of the process, GB")
    for axes, title in zip((left, right), titles, strict=True):
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel("pictures")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(True, color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return True


def section(record: dict[str, Any], side: int, drawn: bool) -> str:
    """Return the page's text on these measurements of pictures of `side` pixels."""
    about, found = record["machine"], record["sizes"]
    parts = [
        _ABOUT.format(repeats=record["repeats"], side=side).strip(),
        table(found),
        later(found),
        f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['date']}. "
        "`python -m tests.benchmarks.scale` measures it again.",
    ]
    if drawn:
        parts.insert(
            1, "![Time to prepare a picture and peak memory, over pictures](pictures/scale.png)"
        )
    return "\n\n".join(part for part in parts if part)
