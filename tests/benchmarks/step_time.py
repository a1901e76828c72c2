"""Times a training step of each network: `python -m tests.benchmarks.step_time [--json FILE]`.

A step is forward, backward and optimizer, on a uint8 batch that already lies in memory. The
networks take turns, so that a neighbour's load falls on all of them alike. Nothing is asserted:
a time belongs to the machine it was taken on.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from src.models import SeedCNN, SmallResNet


@dataclass(frozen=True)
class Case:
    """One network at one size: its constructor, the side in pixels, the batch in pictures."""

    name: str
    make_net: Callable[[], nn.Module]
    image_size: int
    batch_size: int


@dataclass(frozen=True)
class Timing:
    """What was measured: milliseconds of a step, over the repeats, and what follows from them."""

    name: str
    image_size: int
    batch_size: int
    parameters: int
    step_ms: float
    fastest_ms: float
    slowest_ms: float
    ms_per_image: float
    images_per_second: float


CASES = (
    Case("SeedCNN", SeedCNN, image_size=150, batch_size=20),
    Case("SmallResNet", SmallResNet, image_size=128, batch_size=64),
)


class TrainingStep:
    """One case ready to run: the network, its optimizer and a batch in memory."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.net = case.make_net().train()
        self.num_parameters = sum(p.numel() for p in self.net.parameters())
        self._optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, fused=True)
        shape = (case.batch_size, case.image_size, case.image_size, 3)
        self._pixels = torch.randint(0, 256, shape, dtype=torch.uint8)  # [B, H, W, 3]
        self._target = torch.randint(0, 2, (case.batch_size,))  # [B]

    def __call__(self) -> None:
        """Make one step: forward, backward, optimizer."""
        self._optimizer.zero_grad()
        F.cross_entropy(self.net(self._pixels), self._target).backward()
        self._optimizer.step()


def measure(cases: tuple[Case, ...], repeats: int, warmup: int) -> list[Timing]:
    """Time the cases in turn, after some steps of each that don't count.

    Args:
        cases: what to time.
        repeats: timed steps of each, 1 or more.
        warmup: steps of each before the clock counts, 0 or more.

    Returns:
        A timing for each case, the median with the fastest and the slowest step.
    """
    steps = [TrainingStep(case) for case in cases]
    times_ms: list[list[float]] = [[] for _ in cases]
    for turn in range(warmup + repeats):
        for step, taken_ms in zip(steps, times_ms, strict=True):
            start = time.perf_counter()
            step()
            if turn >= warmup:
                taken_ms.append((time.perf_counter() - start) * 1000)
    return [_timing(*row) for row in zip(cases, steps, times_ms, strict=True)]


def _timing(case: Case, step: TrainingStep, taken_ms: list[float]) -> Timing:
    """Sum up the times of one case."""
    middle = statistics.median(taken_ms)
    return Timing(
        name=case.name,
        image_size=case.image_size,
        batch_size=case.batch_size,
        parameters=step.num_parameters,
        step_ms=middle,
        fastest_ms=min(taken_ms),
        slowest_ms=max(taken_ms),
        ms_per_image=middle / case.batch_size,
        images_per_second=1000 * case.batch_size / middle,
    )


def main(args: list[str] | None = None) -> None:
    """Measure, print a table and write the numbers where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each (15)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the clock counts (3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    timings = measure(CASES, options.repeats, options.warmup)
    print(format_timings(timings))
    if options.json:
        options.json.write_text(json.dumps(_record(timings), indent=2) + "\n", encoding="utf-8")


def format_timings(timings: list[Timing]) -> str:
    """Lay the timings out as a plain-text table."""
    head = f"{'network':<12} {'px':>3}  batch  parameters  {'step ms (fastest to slowest)':>28}"
    lines = [f"{head}  ms/image  images/s"]
    for t in timings:
        spread = f"{t.step_ms:.1f} ({t.fastest_ms:.1f} to {t.slowest_ms:.1f})"
        lines.append(
            f"{t.name:<12} {t.image_size:>3}  {t.batch_size:>5}  {t.parameters:>10,}  "
            f"{spread:>28}  {t.ms_per_image:>8.2f}  {t.images_per_second:>8.0f}"
        )
    return "\n".join(lines)


def _record(timings: list[Timing]) -> dict[str, object]:
    """Return the timings with the machine they belong to, ready for JSON."""
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "timings": [asdict(timing) for timing in timings],
    }


if __name__ == "__main__":
    main()
