"""What the benchmark times: the loader alone, a step alone, a bare loop, and `trainer.fit`.

Each measurement is a function that does its work once and returns images a second; the benchmark
calls them in turn, so that a neighbour's load falls on all of them alike.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from src.classifier import Classifier
from src.config_check import check_classes, read_config, resolve
from src.data.datamodule import DataModule
from src.data.dataset import Batch
from src.data.workers import usable_cores
from src.errors import UserError
from src.loop import loop_callbacks
from src.models import SeedCNN, SmallResNet
from src.pace import make_step, measure, wait_for

# Nothing is kept, so those that act at the end of an epoch are left out.
_OPTIONS = SimpleNamespace(
    seed_everything=0,
    stop_on_nonfinite=True,
    progress="off",
    trainer=SimpleNamespace(enable_checkpointing=False, enable_progress_bar=False),
)
_SIZES = ("image_size", "resize", "cache_size", "augment", "batch_size")
AUGMENT: list[dict[str, Any]] = [  # the seed's
    {
        "class_path": "albumentations.Affine",
        "init_args": {
            "rotate": [-50, 50],
            "translate_percent": {"x": [-0.1, 0.1], "y": [-0.1, 0.1]},
            "scale": {"x": [0.9, 1.1], "y": [0.9, 1.1]},
            "border_mode": 1,
            "p": 1.0,
        },
    },
    {"class_path": "albumentations.HorizontalFlip"},
]


@dataclass(frozen=True)
class Case:
    """One network at one size.

    Attributes:
        name: Of the network.
        image_size: Side of a picture, in pixels.
        batch_size: Pictures of a step.
        net: Called with the number of classes.
    """

    name: str
    image_size: int
    batch_size: int
    net: Callable[[int], nn.Module]

    def make_net(self, num_classes: int) -> nn.Module:
        """Return the network, with the same weights each time."""
        torch.manual_seed(0)
        return self.net(num_classes)


CASES = (Case("SeedCNN", 150, 20, SeedCNN), Case("SmallResNet", 128, 64, SmallResNet))


def case_of(config: Path) -> Case:
    """Return the network of a config, at the size and the batch that it trains with.

    Raises:
        UserError: if the file or what it names is wrong.
    """
    content = read_config(config)
    check_classes(content, str(config))
    given = content.get("data", {})
    data = DataModule(**{k: given[k] for k in _SIZES if k in given})
    spec = content.get("model", {}).get("net") or {"class_path": "src.models.SeedCNN"}
    net = resolve(spec["class_path"], f"{config}: model.net")
    if net is None:
        raise UserError(
            f"{config}: model.net.class_path is {spec['class_path']!r}; write it whole."
        )
    made = partial(net, **spec.get("init_args") or {})
    return Case(net.__name__, data.training_shape[0], data.batch_size, made)


class Bench:
    """The parts of a training on some pictures, ready to be timed one by one.

    Args:
        case: The network, its size and batch.
        root: Folder of pictures, as for `data.root`.
        augmented: Whether with the seed's augmentation.
        workers: Processes of the loader; "auto" as for `data.num_workers`.
        precision: As for `trainer.precision`.
        steps: Of one measurement, from 2; the first one is not timed.
    """

    def __init__(
        self,
        case: Case,
        root: Path,
        augmented: bool = False,
        workers: int | Literal["auto"] = 0,
        precision: str = "32-true",
        steps: int = 30,
    ) -> None:
        self.case, self.precision, self.steps = case, precision, steps
        self.data = DataModule(
            root=str(root),
            image_size=case.image_size,
            batch_size=case.batch_size,
            num_workers=workers,
            augment=AUGMENT if augmented else None,
        )
        self._check_enough()
        self._device: torch.device = self._trainer().strategy.root_device
        self.waiting: list[float] = []  # share of the time, of each `fit`
        self.busy: list[float] = []  # share of the time that the GPU computed, where it says so
        self._loader: Any = None
        if workers == "auto":
            net, batches = case.make_net(len(self.data.classes)), self.data.batches_to_try()
            pace = measure(net, nn.CrossEntropyLoss(), batches, self._device, precision)
            self.data.settled_workers = pace.workers(usable_cores())

    def _check_enough(self) -> None:
        count = int((self.data.index("fit").splits == "train").sum())
        if count < self.case.batch_size:
            raise UserError(
                f"{self.data.root} has {count} training pictures, and {self.case.name} is measured "
                f"with batches of {self.case.batch_size}. Give --root more, or leave it out."
            )

    def _batches(self) -> Iterator[Batch]:
        """Yield batches for ever, epoch after epoch, from workers that stay."""
        if self._loader is None:
            self.data.trainer = self._trainer()
            self._loader = self.data.train_dataloader()
            self._epoch = -1
            self._loader.position = lambda: (self._epoch, 0)
        while True:
            self._epoch += 1
            yield from self._loader

    def loader(self) -> float:
        """Return images a second of the loader alone."""
        batches = self._batches()
        return self._timed(lambda: len(next(batches)["image"]))

    def ceiling(self) -> float:
        """Return images a second of forward, backward and step on one batch that stays there."""
        step, batch = self._step(), next(self._batches())
        placed = {name: tensor.to(self._device) for name, tensor in batch.items()}
        return self._timed(lambda: step(placed))

    def bare_loop(self) -> float:
        """Return images a second of a loop over the loader with nothing but the step."""
        step, batches = self._step(), self._batches()

        def once() -> int:
            batch = next(batches)
            return step({n: t.to(self._device, non_blocking=True) for n, t in batch.items()})

        return self._timed(once)

    def fit(self) -> float:
        """Return images a second of `trainer.fit`, with the callbacks that act on every step."""
        clock = _Clock()
        trainer = self._trainer(clock, max_steps=self.steps, max_epochs=-1)
        with quiet():
            trainer.fit(self._classifier(), datamodule=self.data)
        self.data.trainer = self._trainer()
        self.waiting.append(clock.waiting / clock.seconds)
        self.busy += clock.busy
        return clock.images / clock.seconds

    def close(self) -> None:
        """End the loader's workers."""
        self._loader = None

    def _classifier(self) -> Classifier:
        def optimizer(weights: Any, **more: Any) -> torch.optim.Optimizer:
            return torch.optim.SGD(weights, lr=0.002, momentum=0.8, **more)

        return Classifier(len(self.data.classes), net=self.case.make_net, optimizer=optimizer)

    def _trainer(self, *callbacks: Callback, **options: Any) -> Trainer:
        with quiet():
            return Trainer(
                accelerator="auto",
                devices=1,
                precision=self.precision,  # type: ignore[arg-type]
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                limit_val_batches=0,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                callbacks=[*loop_callbacks(_OPTIONS, None), *callbacks],
                **options,
            )

    def _step(self) -> Callable[[Batch], int]:
        net = self.case.make_net(len(self.data.classes))
        work = make_step(net, nn.CrossEntropyLoss(), self._device, self.precision)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.8)

        def step(batch: Batch) -> int:
            work(batch)
            optimizer.step()
            return len(batch["image"])

        return step

    def _timed(self, once: Callable[[], int]) -> float:
        """Return images a second; `once` returns how many it had."""
        once()
        wait_for(self._device)
        start = time.perf_counter()
        images = sum(once() for _ in range(self.steps - 1))
        wait_for(self._device)
        return images / (time.perf_counter() - start)


class _Clock(Callback):
    """Times all steps but the first, and the waiting for data between them."""

    def __init__(self) -> None:
        self.images, self.waiting, self.busy = 0, 0.0, list[float]()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step > 0:
            self.waiting += time.perf_counter() - self._end

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Batch, number: int
    ) -> None:
        device = trainer.strategy.root_device
        if trainer.global_step in (1, trainer.max_steps):
            wait_for(device)
        self._end = time.perf_counter()
        if trainer.global_step == 1:
            self._start = self._end
        else:
            self.images += len(batch["image"])
        self.seconds = self._end - self._start
        if device.type == "cuda" and trainer.global_step == trainer.max_steps:
            with suppress(Exception):  # NVML's Python package is not there, or its driver
                self.busy = [torch.cuda.utilization() / 100]


@contextmanager
def quiet() -> Iterator[None]:
    """Let Lightning say nothing."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
