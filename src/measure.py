"""What the benchmark times: the loader alone, a step alone, a bare loop, and `trainer.fit`.

Each measurement is a function that does its work once and returns images a second; the benchmark
calls them in turn, so that a neighbour's load falls on all of them alike.
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from src.busy import BusyGpu
from src.cases import AUGMENT, Case
from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.data.dataset import Batch, Pictures
from src.loop import loop_callbacks
from src.pace import make_step, wait_for
from src.run import RunFolder
from src.settling import settle_workers

_OPTIONS = SimpleNamespace(
    seed_everything=0,
    stop_on_nonfinite=True,
    progress="off",
    monitor="val/accuracy",
    monitor_mode=None,
    checkpoint_every_steps=None,
    checkpoint_every_minutes=None,
    trainer=SimpleNamespace(enable_checkpointing=True, enable_progress_bar=False),
)
_BATCHES = 10  # of an epoch, at least: its end is a rare thing in a training too


class Plenty(DataModule):
    """Shows each picture as often as it takes for whole batches alone, and enough of them."""

    def pictures(self, *words: Any) -> Pictures:
        """Return the pictures of a command, over and over."""
        found, size = super().pictures(*words), self.batch_size
        count = size * max(_BATCHES, len(found) // size)
        positions = np.arange(count) % len(found)
        stored = found.stored.take(positions) if found.stored is not None else None
        index = found.index.take(positions)
        form = found.image_size, found.resize, found.interpolation
        return Pictures(index, *form, found.augmentation, stored)


class Bench:
    """The parts of a training on some pictures, ready to be timed one by one.

    Args:
        case: The network, its size and batch.
        root: Folder of pictures, as for `data.root`.
        augmented: Whether with the seed's augmentation.
        workers: Processes of the loader; "auto" as for `data.num_workers`.
        precision: As for `trainer.precision`.
        steps: Of one measurement, from 1, after those that the workers have made ahead.
        threads: That make the batches of loader and bare loop where there are no workers; None
            means as many as in a training.
    """

    def __init__(
        self,
        case: Case,
        root: Path,
        augmented: bool = False,
        workers: int | Literal["auto"] = 0,
        precision: str = "32-true",
        steps: int = 30,
        threads: int | None = None,
    ) -> None:
        self.case, self.precision, self.steps, self.threads = case, precision, steps, threads
        self.data = Plenty(
            root=str(root),
            image_size=case.image_size,
            batch_size=case.batch_size,
            num_workers=workers,
            augment=AUGMENT if augmented else None,
        )
        self.device: torch.device = self._trainer().strategy.root_device
        self.waiting: list[float] = []  # share of the time, of each `fit`
        self.busy: list[float] = []  # share of the time that the GPU computed, where it says so
        self._loader: Any = None
        if workers == "auto":
            settle_workers(self._trainer(), self.classifier(), self.data)
            workers = self.data.settled_workers or 0
        self.workers = workers
        # One to begin with, and all that lie ready when it has been: their time is not seen.
        self.left_out = 1 + 2 * workers

    def _batches(self) -> Iterator[Batch]:
        """Yield batches for ever, epoch after epoch, from workers that stay."""
        if self._loader is None:
            self.data.trainer = self._trainer()
            self._loader = self.data.train_dataloader()
            if self.threads is not None:
                self._loader.dataset.threads = self.threads
            self._epoch = -1
            self._loader.position = lambda: (self._epoch, 0)
        while True:
            self._epoch += 1
            yield from self._loader

    def loader(self) -> float:
        """Return images a second of the loader alone; its workers compute for nobody else then."""
        batches = self._batches()
        found = self._timed(lambda: len(next(batches)["image"]))
        self.close()
        return found

    def ceiling(self) -> float:
        """Return images a second of forward, backward and step on one batch that stays there."""
        step, batch = self._step(), next(self._batches())
        placed = {name: tensor.to(self.device) for name, tensor in batch.items()}
        return self._timed(lambda: step(placed))

    def bare_loop(self) -> float:
        """Return images a second of a loop over the loader with nothing but the step."""
        step, batches = self._step(), self._batches()

        def once() -> int:
            batch = next(batches)
            return step({n: t.to(self.device, non_blocking=True) for n, t in batch.items()})

        return self._timed(once)

    def fit(self) -> float:
        """Return images a second of `trainer.fit` as a run has it.

        Left out are the validation, the logger and the line of progress.
        """
        clock = _Clock(self.left_out, self.device)
        with tempfile.TemporaryDirectory() as folder, quiet():
            steps = self.left_out + self.steps
            trainer = self.trainer(Path(folder), clock, max_steps=steps, max_epochs=-1)
            trainer.fit(self.classifier(), datamodule=self.data)
        self.data.trainer = self._trainer()
        self.waiting.append(clock.waiting / clock.seconds)
        self.busy += clock.busy
        return clock.images / clock.seconds

    def close(self) -> None:
        """End the loader's workers."""
        self._loader = None

    def classifier(self) -> Classifier:
        """Return the module that `fit` trains."""

        def optimizer(weights: Any, **more: Any) -> torch.optim.Optimizer:
            return torch.optim.SGD(weights, lr=0.002, momentum=0.8, **more)

        return Classifier(len(self.data.classes), net=self.case.make_net, optimizer=optimizer)

    def trainer(self, folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
        """Return a Trainer with the callbacks that every run has; they write into the folder."""
        return self._trainer(*loop_callbacks(_OPTIONS, RunFolder(folder)), *callbacks, **options)

    def _trainer(self, *callbacks: Callback, **options: Any) -> Trainer:
        with quiet():
            return Trainer(
                accelerator="auto",
                devices=1,
                precision=self.precision,  # type: ignore[arg-type]
                logger=False,
                enable_checkpointing=bool(callbacks),
                enable_progress_bar=False,
                enable_model_summary=False,
                limit_val_batches=0,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                callbacks=list(callbacks),
                **options,
            )

    def _step(self) -> Callable[[Batch], int]:
        net = self.case.make_net(len(self.data.classes))
        work = make_step(net, nn.CrossEntropyLoss(), self.device, self.precision)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.8)

        def step(batch: Batch) -> int:
            work(batch)
            optimizer.step()
            return len(batch["image"])

        return step

    def _timed(self, once: Callable[[], int]) -> float:
        """Return images a second; `once` returns how many it had."""
        for _ in range(self.left_out):
            once()
        wait_for(self.device)
        start = time.perf_counter()
        images = sum(once() for _ in range(self.steps))
        wait_for(self.device)
        return images / (time.perf_counter() - start)


class _Clock(Callback):
    """Times all steps but the first ones, and the waiting for data between them.

    Args:
        first: How many are not timed, from 1.
        device: Where it is computed.
    """

    def __init__(self, first: int, device: torch.device) -> None:
        self.first, self._gpu = first, BusyGpu(device) if device.type == "cuda" else None
        self.images, self.waiting, self.busy = 0, 0.0, list[float]()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step >= self.first:
            self.waiting += time.perf_counter() - self._end

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Batch, number: int
    ) -> None:
        step, begins = trainer.global_step, trainer.global_step == self.first
        ends = step == trainer.max_steps
        if begins or ends:
            wait_for(trainer.strategy.root_device)
        self._end = time.perf_counter()
        if begins:
            self._start = self._end
        elif step > self.first:
            self.images += len(batch["image"])
            self.seconds = self._end - self._start
        if self._gpu is not None and begins:
            self._gpu.start()
        if self._gpu is not None and ends and (share := self._gpu.stop()) is not None:
            self.busy.append(share)

    def on_exception(self, *_: Any) -> None:
        if self._gpu is not None:
            self._gpu.stop()


def device_here() -> torch.device:
    """Return what a fit without further options computes on."""
    with quiet():
        trainer = Trainer(devices=1, logger=False, enable_checkpointing=False)
    device: torch.device = trainer.strategy.root_device
    return device


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
