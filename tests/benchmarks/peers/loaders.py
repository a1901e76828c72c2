"""Our loader, its cache warm, against torch + PIL: `python -m tests.benchmarks.peers.loaders`.

No worker processes on either side. The loaders are timed with one thread of torch's and one that
makes the batches, so that a number is images a second of one core; the trainings with as many as
the machine has cores. The measurements take turns, and a turn before the first one is not counted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from src.bench import machine
from src.cases import Case
from src.measure import Bench
from src.memory import keep_freed_memory
from src.models import SeedCNN
from src.run import write_json
from tests.benchmarks.peers.torch_pil import SIDE, TorchPil

BATCH_SIZE = 20


def main(args: Sequence[str] | None = None) -> int:
    """Measure and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args(args)
    keep_freed_memory()
    found = measure(options.root, options.repeats, options.steps)
    content = {"images_per_second": found, "machine": machine()}
    write_json(options.out, json.loads(json.dumps(content, default=str)))
    return 0


def measure(root: Path, repeats: int, steps: int) -> dict[str, list[float]]:
    """Return images a second of every measurement, a number for each turn."""
    case = Case("SeedCNN", SIDE, BATCH_SIZE, SeedCNN)
    alone = Bench(case, root, augmented=True, workers=0, steps=steps, threads=1)
    ours = Bench(case, root, augmented=True, workers=0, steps=steps)
    peer = TorchPil(root / "train", BATCH_SIZE, steps)
    threads = torch.get_num_threads()  # as many as a training takes by itself
    todo: dict[str, tuple[int, Callable[[], float]]] = {
        "loader, ours": (1, alone.loader),
        "loader, torch + PIL": (1, peer.loader),
        "training, ours": (threads, ours.fit),
        "training, torch + PIL": (threads, peer.train),
    }
    found: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(repeats + 1):
        for name, (number, once) in todo.items():
            torch.set_num_threads(number)
            found[name].append(once())
    ours.close()
    alone.close()
    return {name: values[1:] for name, values in found.items()}


if __name__ == "__main__":
    sys.exit(main())
