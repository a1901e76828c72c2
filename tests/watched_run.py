"""A run folder as a training leaves it, written by hand, and the server that shows it."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from src.rows import COLUMNS
from src.run import RunFolder
from src.watch import Server, open_server

NOW = 1_000_000.0  # what the clock of the files says
CONFIG: dict[str, Any] = {
    "monitor": "val/accuracy",
    "monitor_mode": "max",
    "model": {"net": {"class_path": "src.models.SmallResNet"}},
    "data": {"root": "/home/someone/secret", "classes": ["bee", "wasp"]},
    "trainer": {"max_epochs": 10, "max_steps": -1},
}


def row(epoch: int, step: int, seconds: float, **scores: Any) -> str:
    """Return a line of metrics.csv."""
    found: dict[str, Any] = {
        "epoch": epoch, "step": step, "seconds": seconds, "train/loss": 0.5, "val/loss": 0.25,
        "train/accuracy": 0.75, "val/accuracy": 0.875, "lr": 0.1, "images_per_second": 800.0,
    }  # fmt: skip
    found |= {name.replace("_", "/", 1): value for name, value in scores.items()}
    return ",".join(str(found.get(name, "")) for name in COLUMNS)


def write_metrics(folder: Path, *rows: str, at: float = NOW, end: str = "\n") -> None:
    path = folder / "metrics.csv"
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + end)
    os.utime(path, (at, at))


def write_run(folder: Path, *rows: str, at: float = NOW, **config: Any) -> RunFolder:
    """Write what a run leaves while it trains."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **config}))
    os.utime(path, (at, at))
    write_metrics(folder, *rows, at=at)
    return RunFolder(folder)


def draw(folder: Path, name: str, at: float = NOW) -> None:
    path = folder / "pictures" / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 20), "orange").save(path)
    os.utime(path, (at, at))


def mistakes(folder: Path, path: str = "val/bee/1.png", **more: Any) -> None:
    one = {"path": path, "label": "bee", "predicted": "wasp", "probability": 0.984, "loss": 4.1}
    found = {
        "epoch": 2, "pictures": 40, "mistakes": 1, "sheet": "worst-epoch-2.png", "worst": [one],
    }  # fmt: skip
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables/worst.json").write_text(json.dumps({**found, **more}))


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[Server]:
    """Run the real server on a free port."""
    with open_server(folder, host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
