"""What each ingredient of a recipe buys: `python -m tests.benchmarks.ablation --root DATA`.

Each row changes one thing in `bee_wasp`, made a third as long, and is trained by `python -m
src.repeat` with the same seeds; `python -m src.compare` says how far it is from the recipe on the
same validation pictures, seed by seed. The test pictures are not looked at. Type the same line
again to go on after a stop.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

from src.config_check import read_config
from src.intervals import wilson_interval

CONFIG = Path("configs/bee_wasp.yaml")
RECIPE = "the recipe"
# More pictures to validate on than the recipe has: a difference of two points is to be seen.
_SHORT = ["--data.val_fraction", "0.3", "--trainer.check_val_every_n_epoch", "12"]
_SHORT += ["--trainer.max_epochs", "12"]
_SGD = {
    "class_path": "torch.optim.SGD",
    "init_args": {"lr": 0.15, "momentum": 0.9, "nesterov": True, "weight_decay": 0.001},
}
_HOLES = {
    "class_path": "albumentations.CoarseDropout",
    "init_args": {
        "num_holes_range": [1, 1],
        "hole_height_range": [0.2, 0.4],
        "hole_width_range": [0.2, 0.4],
        "p": 0.5,
    },
}


def rows() -> dict[str, list[str]]:
    """Return the options of fit of each row, by its name."""
    augment = read_config(CONFIG)["data"]["augment"]
    return {
        RECIPE: [],
        "SGD and not Muon": ["--model.optimizer", json.dumps(_SGD)],
        "mean pooled alone": ["--model.net.init_args.pooling", "mean"],
        "stretched to a square": ["--data.resize", "stretch"],
        "crops of 96 scored at 128": _sized(augment, 96, 128, 160),
        "scored at 128": ["--data.image_size", "128"],
        "a fifth of the weight decay": ["--model.optimizer.init_args.weight_decay", "0.1"],
        "no label smoothing": ["--model.label_smoothing", "0"],
        "no averaged weights": ["--trainer.callbacks", "null"],
        "no rotations": _augmented([t for t in augment if "Rotate" not in t["class_path"]]),
        "with holes": _augmented([*augment, _HOLES]),
        "with MixUp and CutMix": ["--trainer.callbacks+", "callbacks.Mix"],
    }


def _sized(augment: list[dict[str, Any]], crop: int, image: int, cache: int) -> list[str]:
    side = {"size": [crop, crop]}
    resized = [
        {**t, "init_args": t["init_args"] | side} if "Crop" in t["class_path"] else t
        for t in augment
    ]
    return [*_augmented(resized), "--data.image_size", str(image), "--data.cache_size", str(cache)]


def _augmented(transforms: list[dict[str, Any]]) -> list[str]:
    return ["--data.augment", json.dumps(transforms)]


def run(out: Path, name: str, fit: Sequence[str], seeds: str, env: dict[str, str]) -> None:
    """Train and score a row; what is over is not done again."""
    words = ["--config", str(CONFIG), "--seeds", seeds, "--out", str(folder_of(out, name))]
    command = [sys.executable, "-m", "src.repeat", *words, "--trainer.logger", "false", *fit]
    print(f"{name} ...", flush=True)
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


def folder_of(out: Path, name: str) -> Path:
    """Return where the runs of a row lie."""
    return out / name.replace(" ", "-")


def table(out: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the rows that are over."""
    yield "| | validation accuracy | loss | less or more than the recipe, in points, seed by seed |"
    yield "|---|---|---|---|"
    for name in names:
        path = folder_of(out, name) / "repeat.json"
        if not path.is_file():
            continue
        runs = json.loads(path.read_text("utf-8"))["runs"]
        scores = [run["val"] for run in runs]
        share, n = mean(score["accuracy"] for score in scores), scores[0]["n"]
        low, high = wilson_interval(round(share * n), n)
        cells = [f"{share:.3f} ({low:.3f} to {high:.3f})", f"{mean(s['loss'] for s in scores):.3f}"]
        apart = "" if name == RECIPE else "; ".join(_differences(out, name, runs))
        yield f"| {name} | {' | '.join(cells)} | {apart} |"


def _differences(out: Path, name: str, runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the difference of each seed from the recipe, with its 95 % interval."""
    for one in runs:
        folders = [str(folder_of(out, row) / one["run_dir"]) for row in (RECIPE, name)]
        target = folder_of(out, name) / f"{one['run_dir']}-compared.json"
        words = [*folders, "--split", "val", "--json", str(target)]
        subprocess.run(
            [sys.executable, "-m", "src.compare", *words], check=True, stdout=subprocess.DEVNULL
        )
        found = json.loads(target.read_text("utf-8"))["comparisons"][0]
        low, high = (100 * end for end in found["difference_interval"])
        yield f"{100 * found['difference']:+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    """Run the rows, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", required=True, help="folder of the photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, one thread each if >1")
    options = parser.parse_args()
    env, found = dict(os.environ), rows()
    common = ["--data.root", str(Path(options.root).absolute()), *_SHORT]
    if options.jobs > 1:
        env |= {"OMP_NUM_THREADS": "1"}
        common += ["--data.num_workers", "0"]
    with ThreadPoolExecutor(options.jobs) as pool:
        asked = [
            pool.submit(run, options.out, name, [*common, *fit], options.seeds, env)
            for name, fit in found.items()
        ]
    for row in asked:
        row.result()
    print("\n".join(table(options.out, list(found))))


if __name__ == "__main__":
    main()
