"""What the callbacks of configs/callbacks/pictures.yaml cost a run of the demo.

`python -m tests.benchmarks.picture_cost [--trainer.max_epochs 3 ...]` trains the demo and prints,
for each of them, the seconds spent in its hooks as a share of the run's. Weights & Biases is off.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import callbacks
from src.train import main

SHOWING = ("PredictionTable", "ConfusionMatrix", "WorstMistakes", "SampleImages")
HOOKS = ("on_train_batch_end", "on_train_epoch_end", "on_validation_end", "on_train_end")
WORDS = (
    *("fit", "--config", "configs/demo.yaml", "--config", "configs/callbacks/pictures.yaml"),
    *("--trainer.logger", "false"),
)


def timed(hook: Callable[..., Any], add: Callable[[float], None]) -> Callable[..., Any]:
    """Return a hook that says how long it took, in wall seconds."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return hook(*args, **kwargs)
        finally:
            add(time.perf_counter() - start)

    return call


def measure(words: Sequence[str]) -> tuple[dict[str, float], float]:
    """Return the seconds in each callback, and those of the whole training."""
    spent: dict[str, float] = defaultdict(float)
    whole = 0.0

    def add_to(name: str) -> Callable[[float], None]:
        def add(seconds: float) -> None:
            spent[name] += seconds

        return add

    for name in SHOWING:
        kind = getattr(callbacks, name)
        for hook in HOOKS:
            setattr(kind, hook, timed(getattr(kind, hook), add_to(name)))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        code = main([*WORDS, "--run_dir", f"{folder}/run", *words])
        whole = time.perf_counter() - start
    if code:
        sys.exit(code)
    return spent, whole


if __name__ == "__main__":
    found, seconds = measure(sys.argv[1:])
    print(f"\nthe run: {seconds:.1f} s")
    for name in SHOWING:
        print(f"{name:<16} {found[name]:7.3f} s  {100 * found[name] / seconds:.2f} %")
