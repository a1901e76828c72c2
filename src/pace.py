"""How fast a network and its data are on this machine, measured in moments.

From that follows how many worker processes a training is worth, and in which precision.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
Step = Callable[[Batch], Tensor]

SECONDS = 1.0  # for the batches, and again for the steps
# Share of a step's time that the data must take to be worth a process of its own. Beside a step
# that computes on all cores, workers take as much from it as they give.
WORTH_IT, WORTH_IT_BESIDE = 0.03, 0.5
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_TRUE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


@dataclass(frozen=True)
class Pace:
    """Seconds of one batch.

    Attributes:
        data: Reading and augmenting, as it is done without workers.
        step: Forward, backward and the optimizer's step, once the batch is there.
        beside: Whether the step computes on the cores that make the data.
        worker: Reading and augmenting by one worker process.
    """

    data: float
    step: float
    beside: bool
    worker: float

    def seconds(self, workers: int, cores: int) -> float:
        """Return the seconds of a training step with its batch."""
        if not workers:
            return self.data + self.step
        if self.beside:  # what makes the data is taken from the step
            return self.step + self.worker / max(cores, 1)
        return max(self.step, self.worker / workers)

    def workers(self, cores: int) -> int:
        """Return the smallest number of processes that keep up with the steps, 0 to cores."""
        if self.data <= (WORTH_IT_BESIDE if self.beside else WORTH_IT) * self.step:
            return 0
        return min(max(cores, 1), math.ceil(self.worker / self.step))


def measure(
    net: nn.Module,
    loss: nn.Module,
    batches: Iterator[Batch],
    device: torch.device,
    precision: str,
    worker_batches: Iterator[Batch] | None = None,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    seconds: float = 0.0,
) -> Pace:
    """Return the pace of a training; the network and the random numbers stay as they are.

    Args:
        net: It takes uint8 [B, H, W, 3].
        loss: Of logits and targets.
        batches: To train on, as they are made without workers; as many are taken as there is time
            for, the first of which the step is timed on.
        device: Where the training will run.
        precision: As for `trainer.precision`.
        worker_batches: The same as one worker makes them; None means alike.
        make_optimizer: Called with a copy of the network; None leaves its step out.
        seconds: For the steps, if that is more than SECONDS.
    """
    first = next(batches)
    ways = [batches] if worker_batches is None else [batches, worker_batches]
    making = [seconds_of(partial(next, way), SECONDS / len(ways)) for way in ways]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        copied = copy.deepcopy(net)
        step = make_step(copied, loss, device, precision)
        optimizer = make_optimizer(copied) if make_optimizer else None
        batch = {name: tensor.to(device) for name, tensor in first.items()}

        def once() -> None:
            step(batch)
            if optimizer is not None:
                optimizer.step(lambda: 0.0)  # a closure, for those that ask for one

        of_step = seconds_of(once, max(SECONDS, seconds), device)
    return Pace(making[0], of_step, device.type == "cpu", making[-1])


def make_step(net: nn.Module, loss: nn.Module, device: torch.device, precision: str) -> Step:
    """Return forward and backward of a network, which is moved to the device.

    The result of a step is its logits, float [B, C].
    """
    net.to(device, _TRUE.get(precision)).train()
    loss = copy.deepcopy(loss).to(device, _TRUE.get(precision))

    def step(batch: Batch) -> Tensor:
        net.zero_grad()
        with autocast(device, precision):
            logits: Tensor = net(batch["image"])
            value = loss(logits, batch["target"])
        value.backward()
        return logits.detach().float()

    return step


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context that a mixed precision computes in; an empty one for the others."""
    dtype = _MIXED.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was told to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(once: Callable[[], Any], budget: float, device: torch.device | None = None) -> float:
    """Return the median time of one call, after a first that does not count.

    Args:
        once: What is timed; called twice at least.
        budget: Seconds after which no further call begins.
        device: What is waited for after each call; None waits for nothing.
    """
    end = time.perf_counter() + budget
    times: list[float] = []
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        once()
        if device is not None:
            wait_for(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
