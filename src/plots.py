"""Figures of a report as SVG text that takes its colours from the page, light or dark."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.intervals import wilson_interval

Floats = npt.NDArray[np.float64]

# Stand-ins that no figure has by chance -> names in src/pages/style.css.
_INK, _SOFT, _LINE, _ACCENT, _SECOND, _THIRD, _GOOD, _BAD = (
    "#010203", "#010204", "#010205", "#010206", "#010207", "#010208", "#010209", "#01020a",
)  # fmt: skip
_NAMES = {
    _INK: "ink", _SOFT: "soft", _LINE: "line", _ACCENT: "accent", _SECOND: "second",
    _THIRD: "third", _GOOD: "good", _BAD: "bad",
}  # fmt: skip
SERIES = (_ACCENT, _SECOND, _THIRD, _GOOD, _BAD)
# Of the lines beyond the colours, which begin anew: 30 that differ, for 26 letters.
_DASHES: tuple[Any, ...] = (
    "-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (9, 2)), (0, (5, 2, 1, 2, 1, 2)),
)  # fmt: skip
_FONT = 11.0  # points on a figure of 5.2 inches, which a page shows at about its own width
_SIZE = (5.2, 3.3)
_LONGEST = 28  # characters of a label


def require() -> None:
    """Raise UserError if figures can't be drawn here."""
    if find_spec("matplotlib") is None:
        raise UserError(
            'the report needs matplotlib, which is not installed: pip install -e ".[report]"'
        )


def _figure(size: tuple[float, float] = _SIZE) -> tuple[Any, Any]:
    """Return a figure and its axes, plain: two axes, a faint grid, no box."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": _FONT}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
    figure.patch.set_alpha(0)
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_LINE)
    axes.tick_params(colors=_SOFT, labelsize=_FONT - 1, length=3)
    axes.grid(True, axis="y", color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, name: str, alt: str) -> str:
    """Return the figure as an SVG element; its ids begin with its name: a page holds several."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The page has fonts of its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{name}-", text)
    for stand_in, colour in _NAMES.items():
        text = text.replace(stand_in, f"var(--{colour})")
    text = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1system-ui, sans-serif", text)
    head = f'<svg role="img" aria-label="{_escaped(alt)}"'
    text = head + text.removeprefix("<svg")  # no template: names of classes may hold anything
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)


def _label_of(text: str) -> str:
    """Return a name as a label: no formula, not hidden for a leading underscore, not too long."""
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"
    return ("\u200b" if short.startswith("_") else "") + short.replace("$", r"\$")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def curves(
    name: str,
    what: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    best: int | None,
) -> str:
    """Draw a score over the epochs.

    Args:
        name: Of the figure, for its ids.
        what: The score.
        lines: Label -> epochs from 1 and values; NaN where there is none.
        best: The epoch that best.ckpt is of, or None.
    """
    figure, axes = _figure()
    for number, (label, (epochs, values)) in enumerate(lines.items()):
        many = len(epochs) > 40
        axes.plot(
            epochs,
            values,
            color=SERIES[number % len(SERIES)],
            linestyle=_DASHES[number // len(SERIES) % len(_DASHES)],
            label=_label_of(label),
            linewidth=1.8,
            marker=None if many else "o",
            markersize=3,
        )
    if best is not None:
        axes.axvline(best, color=_SOFT, linewidth=1, linestyle=(0, (3, 3)), label="best epoch")
    _label(axes, "epoch", what)
    if axes.get_ylim()[1] > 1 >= max(map(_highest, lines.values()), default=0.0):
        axes.set_ylim(top=1.005)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)
    ends = ", ".join(f"{label} ends at {_last(v)}" for label, (_, v) in lines.items())
    return _svg(figure, name, f"{what} over the epochs: {ends}")


def _highest(line: tuple[Sequence[float], Sequence[float]]) -> float:
    return max((value for value in line[1] if not np.isnan(value)), default=0.0)


def _last(values: Sequence[float]) -> str:
    known = [value for value in values if not np.isnan(value)]
    return f"{known[-1]:.3f}" if known else "nothing"


def _cycle(number: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(number)]


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(_label_of(x), color=_SOFT, fontsize=_FONT)
    axes.set_ylabel(_label_of(y), color=_SOFT, fontsize=_FONT)


def _legend(axes: Any) -> None:
    axes.legend(
        frameon=False,
        labelcolor=_INK,
        fontsize=_FONT - 1,
        handlelength=1.4,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def reliability(confidence: Floats, before: Floats, right: npt.NDArray[np.bool_]) -> str:
    """Draw how often answers of some confidence are right, over bins of equally many pictures.

    Args:
        confidence: Of the likeliest class after the temperature, float64 [N].
        before: The same before it.
        right: Whether that is the target, bool [N].
    """
    figure, axes = _figure((4.6, 3.6))
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=(0, (3, 3)))
    for values, colour, label in ((before, _SECOND, "before"), (confidence, _ACCENT, "after")):
        means, shares, low, high = _bins(values, right)
        if label == "after":
            axes.vlines(means, low, high, color=colour, linewidth=1.2, alpha=0.55)
        axes.plot(means, shares, "o-", color=colour, label=f"{label} the temperature", markersize=4)
    least = max(0.0, min(confidence.min(), before.min()) - 0.03)
    axes.set_xlim(least, 1.01)
    axes.set_ylim(0, 1.03)
    _label(axes, "confidence", "share of right answers")
    _legend(axes)
    return _svg(figure, "reliability", "share of right answers over confidence; equal is ideal")


def _bins(
    confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 10
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return mean confidence, share of right answers and its 95 % interval of each bin."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, confidence.size))
    means = [float(confidence[part].mean()) for part in parts]
    shares = [float(right[part].mean()) for part in parts]
    ends = [wilson_interval(int(right[part].sum()), part.size) for part in parts]
    return means, shares, [low for low, _ in ends], [high for _, high in ends]


def histogram(groups: Mapping[str, Floats], what: str, threshold: float | None) -> str:
    """Draw how often probabilities were said, a colour for each group, stacked in 20 bins.

    Args:
        groups: Label -> probabilities, float64 [n].
        what: The probability.
        threshold: A line there, or None.
    """
    figure, axes = _figure((4.6, 3.6))
    axes.hist(
        list(groups.values()),
        bins=np.linspace(0, 1, 21).tolist(),
        label=[_label_of(name) for name in groups],
        color=_cycle(len(groups)),
        stacked=True,
        rwidth=0.9,
    )
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1.3)
        axes.annotate(
            f"threshold {threshold:.2f}",
            (threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -9),
            textcoords="offset points",
            color=_INK,
            fontsize=_FONT - 1,
        )
    _label(axes, what, "pictures")
    axes.set_xlim(0, 1)
    _legend(axes)
    return _svg(figure, "histogram", f"how many pictures got which {what}")


def intervals(
    name: str,
    rows: Sequence[tuple[str, float, tuple[float, float]]],
    what: str,
    line: float | None = None,
) -> str:
    """Draw shares with their intervals, one below the other.

    Args:
        name: Of the figure.
        rows: Label, share and 95 % interval.
        what: The share.
        line: A vertical line there, such as a baseline; None for none.
    """
    figure, axes = _figure((5.2, 0.7 + 0.34 * len(rows)))
    places = np.arange(len(rows))[::-1]
    axes.grid(False)
    axes.grid(True, axis="x", color=_LINE, linewidth=0.7)
    if line is not None:
        axes.axvline(line, color=_SOFT, linewidth=1, linestyle=(0, (3, 3)))
    for place, (_, share, (low, high)) in zip(places.tolist(), rows, strict=True):
        axes.plot([low, high], [place, place], color=_ACCENT, linewidth=2, alpha=0.5)
        axes.plot([share], [place], "o", color=_ACCENT, markersize=6, clip_on=False)
    axes.set_yticks(places.tolist(), [_label_of(label) for label, _, _ in rows], color=_INK)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    least = min(low for _, _, (low, _) in rows)
    axes.set_xlim(max(0.0, min(least, 1.0 if line is None else line) - 0.04), 1.005)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(what, color=_SOFT, fontsize=_FONT)
    said = "; ".join(f"{label} {share:.3f}" for label, share, _ in rows)
    return _svg(figure, name, f"{what}: {said}")
