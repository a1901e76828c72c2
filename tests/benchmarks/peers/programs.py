"""The programs of the contest: what is started, and where their scores are read."""

import csv
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.environments import HERE, complaint
from tests.benchmarks.peers.watch import Watched, watch

ROOT = Path(__file__).resolve().parents[3]
Result = dict[str, Any]


class ProgramFailedError(Exception):
    """A program ended badly; the message says how."""


@dataclass(frozen=True)
class Contest:
    """What all programs have in common.

    Attributes:
        root: The pictures, in train and test.
        epochs: Of each half of the seed's experiment.
        fast_config: The recipe that is timed until it reaches `threshold`.
        threshold: Accuracy on the test folder.
    """

    root: Path
    epochs: int = 10
    fast_config: Path = Path("configs/bee_wasp_fast.yaml")
    threshold: float = 0.79

    @property
    def fast_options(self) -> list[str]:
        """What shortens the fast recipe in a rehearsal; nothing in earnest."""
        return [f"--trainer.max_epochs={self.epochs}"] if self.epochs < 10 else []


def run_peer(python: Path, script: str, contest: Contest, seed: int, log: Path) -> Result:
    """Run a peer's program once."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        words = [f"--root={contest.root}", f"--out={out}"]
        words += [f"--seed={seed}", f"--epochs={contest.epochs}"]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = watch([str(python), str(HERE / script), *words], log, Path(folder), env)
        _require_good_end(done, log)
        return {**result(done), **json.loads(out.read_text("utf-8"))}


def run_ours(precision: str, contest: Contest, seed: int, log: Path) -> Result:
    """Run both halves of the seed's experiment with a cold cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, second = folder / "first", folder / "second"
        common = [f"--trainer.max_epochs={contest.epochs}", f"--trainer.precision={precision}"]
        weights = [f"--init_from={first / 'checkpoints/last.ckpt'}", "--init_optimizer=true"]
        halves = [
            ours("configs/seed.yaml", first, contest, seed, common),
            ours("configs/seed_augmented.yaml", second, contest, seed, [*common, *weights]),
        ]
        ends = []
        for words in halves:
            ends.append(watch(words, log, ROOT, _cold(folder)))
            _require_good_end(ends[-1], log)
        found = accuracies(first / "metrics.csv") + accuracies(second / "metrics.csv")
        return {**result(*ends), "val_accuracy": found, **_about(second)}


def run_fast(contest: Contest, seed: int, log: Path) -> Result:
    """Run the fast recipe with a cold cache until it scores the threshold on the test folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = folder / "run"
        options = ["--data.validate_on_test=true", *contest.fast_options]
        words = ours(str(contest.fast_config), run, contest, seed, options)

        def good() -> bool:
            return max(accuracies(run / "metrics.csv"), default=0.0) >= contest.threshold

        done = watch(words, log, ROOT, _cold(folder), until=good)
        if not done.reached:
            _require_good_end(done, log)
        found = accuracies(run / "metrics.csv")
        return {**result(done), "val_accuracy": found, "reached": done.reached, **_about(run)}


def ours(config: str, run: Path, contest: Contest, seed: int, more: list[str]) -> list[str]:
    """Return the command of a training of ours, on the CPU as the peers are."""
    return [
        *[sys.executable, "-m", "src.train", "fit", "--config", config],
        *["--data.root", str(contest.root), "--run_dir", str(run), "--seed_everything", str(seed)],
        *["--trainer.accelerator=cpu", "--trainer.logger=false", *more],
    ]


def result(*ends: Watched) -> Result:
    """Return the time of processes one after another, and the most memory of any moment."""

    def most(values: list[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    return {
        "seconds": sum(end.seconds for end in ends),
        "process_gib": most([end.process_gib for end in ends]),
        "tree_gib": most([end.tree_gib for end in ends]),
    }


def accuracies(path: Path) -> list[float]:
    """Return the validation accuracy of every epoch in a metrics.csv; none if there is no file.

    The file may be looked at while it is written: a row without its end does not count.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(whole.splitlines())
    return [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]


def _cold(folder: Path) -> dict[str, str]:
    """Return our variables with a cache of the run's own, empty at first."""
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "WANDB_MODE": "offline"}


def _about(run: Path) -> Result:
    """Return what a run says of itself."""
    found = json.loads((run / "run.json").read_text("utf-8"))
    return {name: found.get(name) for name in ("versions", "git_commit")}


def _require_good_end(done: Watched, log: Path) -> None:
    if done.code:
        said = complaint(log.read_text("utf-8", errors="replace"))
        raise ProgramFailedError(f"ended with code {done.code}: {said}")
