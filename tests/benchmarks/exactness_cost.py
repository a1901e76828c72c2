"""What exactness costs: `python -m tests.benchmarks.exactness_cost [--json FILE]`.

Our loader (order from the seed, keys, generators set anew for each picture, seeded steps) against
what one would write without it: torch's DataLoader with `shuffle=True` and an Albumentations
Compose that draws from its own generators. A step also looks whether a signal came and whether it
is time to save. Pictures lie in memory, and no worker is started. The
two take turns, so that a neighbour's load falls on both alike, and each turn gives one difference.
Nothing is asserted: a time belongs to the machine it was taken on.
"""

import argparse
import json
import logging
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from src.data.dataset import Batch, Pictures
from src.data.index import Index
from src.data.loader import make_loader
from src.data.sampler import TrainBatches
from src.data.segments import ROW, Stored
from src.data.transforms import Augmentation, Pixels, build
from src.loop.checkpoints import Checkpoints
from src.loop.step_seed import StepSeed

SIDE, CROP = 64, 56  # pixels
NUM_PICTURES, BATCH_SIZE = 4096, 64
NUM_STEPS = NUM_PICTURES // BATCH_SIZE
# Cheap ones, so that their own time hides little of what is measured.
TRANSFORMS = [
    {"class_path": "albumentations.RandomCrop", "init_args": {"height": CROP, "width": CROP}},
    {"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 0.5}},
    {"class_path": "albumentations.VerticalFlip", "init_args": {"p": 0.5}},
]


@dataclass(frozen=True)
class Cost:
    """Microseconds of one picture or step, without and with exactness.

    `adds_us` is the median of the turns' differences; a quarter of them lies below `low_us` and a
    quarter above `high_us`.
    """

    name: str
    plain_us: float
    exact_us: float
    adds_us: float
    low_us: float
    high_us: float
    target_us: float | None


class InMemory(Stored):
    """Pictures that need no cache.

    Args:
        images: uint8 [N, H, W, 3].
    """

    def __init__(self, images: Pixels) -> None:
        super().__init__([], np.zeros(len(images), np.int32), np.zeros(len(images), ROW))
        self.images = images

    def pixels(self, index: int) -> Pixels:
        """Return one picture, uint8 [H, W, 3]."""
        return self.images[index]


class PlainPictures(Dataset[Any]):
    """The same batches without keys.

    Args:
        images: uint8 [N, H, W, 3].
        labels: int64 [N].
    """

    def __init__(self, images: Pixels, labels: np.ndarray[Any, Any]) -> None:
        self.images, self.labels = images, labels
        self.compose: Any = albumentations.Compose([build(spec) for spec in TRANSFORMS])

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return the batch of these rows."""
        images = np.zeros((len(rows), CROP, CROP, 3), np.uint8)
        for place, row in enumerate(rows):
            images[place] = self.compose(image=self.images[row])["image"]
        return {
            "image": torch.from_numpy(images),
            "target": torch.from_numpy(self.labels[rows]),
            "index": torch.tensor(rows),
        }


class Nothing(Dataset[Any]):
    """Batches of nothing, which leave the loader's own time alone."""

    def __len__(self) -> int:
        return NUM_PICTURES

    def __getitems__(self, rows: list[Any]) -> None:
        """Return nothing."""


def as_it_is(batch: Any) -> Any:
    """Take the batch for what it is."""
    return batch


def plain_epoch(dataset: Dataset[Any]) -> Callable[[], None]:
    """Return what goes through an epoch of torch's own loader."""
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, collate_fn=as_it_is)
    return lambda: exhaust(loader)


def exact_epoch(dataset: Dataset[Any]) -> Callable[[], None]:
    """Return what goes through an epoch of our loader, another one at each call."""
    order = TrainBatches(NUM_PICTURES, BATCH_SIZE, seed=0)
    loader = make_loader(dataset, order, 0, torch.device("cpu"))
    loader.position = lambda: (order.epoch + 1, 0)
    return lambda: exhaust(loader)


def exhaust(loader: Any) -> None:
    """Take every batch."""
    for _ in loader:
        pass


def seeded_steps() -> Callable[[], None]:
    """Return what a run's own callbacks do at each step: seed it, look whether to save it."""
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    seed, kept, module = StepSeed(seed=0), Checkpoints(Path("unused")), LightningModule()

    def steps() -> None:
        for step in range(NUM_STEPS):
            seed.on_train_batch_start(trainer, module, None, step)
            kept.signals.on_train_batch_end(trainer)
            kept.on_train_batch_end(trainer, module, None, None, step)

    return steps


def nothing() -> None:
    """Stand for what the plain way leaves out."""


def measure(repeats: int, warmup: int) -> list[Cost]:
    """Time the plain and the exact way in turn, after some turns that don't count.

    Args:
        repeats: turns that count, 1 or more.
        warmup: turns before the clock counts, 0 or more.
    """
    images = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(NUM_PICTURES) % 2
    augmentation, stored = Augmentation(TRANSFORMS, seed=0), InMemory(images)
    exact = Pictures(_index(labels), SIDE, "stretch", "bilinear", augmentation, stored)
    ways = [
        (plain_epoch(PlainPictures(images, labels)), exact_epoch(exact)),
        (plain_epoch(Nothing()), exact_epoch(Nothing())),
        (nothing, seeded_steps()),
    ]
    turns = [[(timed(a), timed(b)) for a, b in ways] for _ in range(warmup + repeats)][warmup:]
    pictures, loading, seeding = zip(*turns, strict=True)
    both = [(a + c, b + d) for (a, b), (c, d) in zip(loading, seeding, strict=True)]
    return [
        cost("a picture, all in all", list(pictures), NUM_PICTURES, target_us=15),
        cost("a step: order and loader", list(loading), NUM_STEPS),
        cost("a step: callbacks", list(seeding), NUM_STEPS),
        cost("a step, both", both, NUM_STEPS, target_us=50),
    ]


def _index(labels: np.ndarray[Any, Any]) -> Index:
    size = len(labels)
    splits = np.full(size, "train")
    return Index(Path(), ("ant", "bug"), ("",) * size, labels, splits, ("",) * size)


def timed(work: Callable[[], None]) -> float:
    """Return the microseconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def cost(
    name: str, turns: list[tuple[float, float]], count: int, target_us: float | None = None
) -> Cost:
    """Sum up the turns' times, plain and exact, of `count` pictures or steps each."""
    plain, exact = ([time_us / count for time_us in way] for way in zip(*turns, strict=True))
    adds = [b - a for a, b in zip(plain, exact, strict=True)]
    low, high = np.quantile(adds, [0.25, 0.75]).tolist()
    return Cost(
        name=name,
        plain_us=statistics.median(plain),
        exact_us=statistics.median(exact),
        adds_us=statistics.median(adds),
        low_us=low,
        high_us=high,
        target_us=target_us,
    )


def main(args: list[str] | None = None) -> None:
    """Measure, print a table and write the numbers where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=25, help="turns that count (25)")
    parser.add_argument("--warmup", type=int, default=3, help="turns before the clock counts (3)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(args)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the table alone
    costs = measure(options.repeats, options.warmup)
    print(format_costs(costs))
    if options.json:
        options.json.write_text(json.dumps(_record(costs), indent=2) + "\n", encoding="utf-8")


def format_costs(costs: list[Cost]) -> str:
    """Lay the costs out as a plain-text table."""
    lines = [f"{'microseconds of':<25}  plain  exact  {'adds (middle half)':>24}  at most"]
    for c in costs:
        spread = f"{c.adds_us:.1f} ({c.low_us:.1f} to {c.high_us:.1f})"
        target = "" if c.target_us is None else f"{c.target_us:.0f}"
        lines.append(
            f"{c.name:<25}  {c.plain_us:>5.1f}  {c.exact_us:>5.1f}  {spread:>24}  {target:>7}"
        )
    return "\n".join(line.rstrip() for line in lines)


def _record(costs: list[Cost]) -> dict[str, object]:
    """Return the costs with the machine they belong to, ready for JSON."""
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "albumentations": albumentations.__version__,
        "machine": platform.processor() or platform.machine(),
        "pictures": NUM_PICTURES,
        "batch_size": BATCH_SIZE,
        "costs": [asdict(cost) for cost in costs],
    }


if __name__ == "__main__":
    main()
