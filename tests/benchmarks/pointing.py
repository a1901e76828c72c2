"""Do heat maps point at the insect? `python -m tests.benchmarks.pointing RUN`.

RUN is a run folder of the built-in pictures, whose generator knows where the insect is. The
pointing game (Zhang et al. 2018, International Journal of Computer Vision 126:1084-1102) asks how
often the hottest point lies in its box; the share of the heat that does stands beside the share of
the area that the box has. Of the rightly named pictures of the split that a report shows.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.heat import Heat
from src.intervals import wilson_interval
from src.judged import Judged
from src.opened import open_run

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of the side, half-open


@dataclass(frozen=True)
class Pointing:
    """What came out of the pointing game.

    Attributes:
        n: Number of maps.
        hits: Maps whose hottest point lies in the box.
        heat: Mean share of the heat in the box, 0 to 1.
        area: Mean share of the area that the box has.
        centres: Boxes that hold the centre of the picture: what pointing there would hit.
    """

    n: int
    hits: int
    heat: float
    area: float
    centres: int


def play(maps: Sequence[Heat], boxes: Sequence[Box]) -> Pointing:
    """Compare heat maps [H, W] with the boxes of what they should point at."""
    hits, heat, area, centres = 0, [], [], 0
    for found, box in zip(maps, boxes, strict=True):
        inside = _inside(found.shape, box)
        hits += bool(inside[np.unravel_index(found.argmax(), found.shape)])
        heat.append(float(found[inside].sum() / max(found.sum(), 1e-12)))
        area.append(float(inside.mean()))
        centres += bool(inside[found.shape[0] // 2, found.shape[1] // 2])
    return Pointing(len(maps), hits, float(np.mean(heat)), float(np.mean(area)), centres)


def _inside(shape: tuple[int, ...], box: Box) -> np.ndarray:
    """Return which pixels have their middle in the box, bool [H, W]."""
    rows, columns = ((np.arange(side) + 0.5) / side for side in shape)
    across = (columns >= box[0]) & (columns < box[2])
    down = (rows >= box[1]) & (rows < box[3])
    return np.asarray(down[:, None] & across[None, :])


def read_boxes(path: Path, side: int) -> dict[str, Box]:
    """Return the boxes of a boxes.csv by path, of pictures of so many pixels a side."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["path"]: (
            float(row["x0"]) / side,
            float(row["y0"]) / side,
            float(row["x1"]) / side,
            float(row["y1"]) / side,
        )
        for row in rows
    }


def of_run(folder: Path) -> Pointing:
    """Play with the rightly named pictures of a run."""
    run = open_run(folder)
    assert run.split is not None, run.missing.lines
    assert run.root is not None
    judged = Judged.of(run, run.split)
    rows = np.flatnonzero(judged.right).tolist()
    maps = list(judged.heat_of(rows, judged.table.target[rows].tolist()))
    paths = [judged.pictures.index.paths[int(judged.table.index[row])] for row in rows]
    source = run.config["data"]["source"].get("init_args") or {}
    boxes = read_boxes(run.root / "boxes.csv", source.get("picture_size", 96))
    return play(maps, [boxes[path] for path in paths])


def main(args: Sequence[str] | None = None) -> int:
    """Print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    found = of_run(parser.parse_args(args).run)
    low, high = wilson_interval(found.hits, found.n)
    print(f"hits {found.hits / found.n:.3f} ({low:.3f} to {high:.3f}) of {found.n:,} maps")
    print(f"heat in the box {found.heat:.3f}, area of the box {found.area:.3f}")
    print(f"the centre of the picture lies in the box in {found.centres / found.n:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
