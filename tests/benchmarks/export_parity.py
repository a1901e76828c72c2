"""Whether exports say of files what training says of them, over several runs.

    python -m tests.benchmarks.export_parity --root DATA RUN ...

Each run predicts, by `src.train predict` and by `src.predict` over its export, photographs of
DATA's test split and odd files made of them. Needs runs of the classes of DATA.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from src.errors import typed
from src.forward import evenly
from tests.odd_pictures import write_odd_pictures

PLAIN, MADE_OF = 100, 8  # photographs as they are; those that odd files are made of


def main() -> None:
    """Print a row of the table for each run."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--root", type=Path, required=True)
    made.add_argument("runs", nargs="+", type=Path)
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pictures"
        gather(options.root, folder)
        for run in options.runs:
            print(row_of(run, folder, Path(scratch)), flush=True)


def gather(root: Path, folder: Path) -> None:
    """Copy photographs of the test split, and write odd files made of some of them."""
    paths = sorted(path for path in (root / "test").rglob("*") if path.is_file())
    folder.mkdir()
    for number in evenly(len(paths), PLAIN):
        shutil.copy(paths[number], folder / f"plain-{number}{paths[number].suffix}")
    for number in evenly(len(paths), MADE_OF):
        with Image.open(paths[number]) as image:
            image.load()
            write_odd_pictures(folder / f"odd-{number}", picture=image.convert("RGB"))
    with Image.open(paths[0]) as image:
        large = image.convert("RGB").resize((5478, 3652), Image.Resampling.BICUBIC)
        large.save(folder / "20_megapixels.jpg", quality=90)


def row_of(run: Path, pictures: Path, scratch: Path) -> str:
    """Return network, pictures, other classes and the largest difference of a probability."""
    copy, bundle, table = scratch / run.name, scratch / f"{run.name}-bundle", scratch / "p.csv"
    shutil.copytree(run, copy)
    call("src.export", copy, "--out", bundle)
    call("src.train", "predict", "--run_dir", copy, "--data.root", pictures)
    call("src.predict", bundle, pictures, "--out", table)
    wanted, found = rows_of(copy / "predictions.csv"), rows_of(table)
    apart, others = 0.0, 0
    for path, row in found.items():
        other = wanted[Path(path).relative_to(pictures).as_posix()]
        others += row["predicted_class"] != other["predicted_class"]
        names = [name for name in row if name.startswith("prob_")]
        apart = max(apart, *(abs(float(row[name]) - float(other[name])) for name in names))
    assert len(found) == len(wanted)
    shutil.rmtree(copy)
    return f"| {run} | {len(found)} | {others} | {apart:.0e} |"


def call(module: str, *words: object) -> None:
    """Run a command of ours; it must end well."""
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{typed(Path(module))}: {done.stderr}"


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a table by path."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
