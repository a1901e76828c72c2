"""Which precision, and whether compiled, a network trains fastest here; and what that changes."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.pace import Batch, make_step, seconds_of

BASE = "32-true"


@dataclass
class Way:
    """One way to compute a step.

    Attributes:
        name: Precision, with "compiled" behind it if so.
        options: What to give to `fit` for it.
        seconds: Of forward and backward, one number for each turn; none if it can't be done here.
        difference: Largest one of a probability against BASE, for the same weights and batch.
        reason: Why it can't be done here.
    """

    name: str
    options: str
    seconds: list[float]
    difference: float = 0.0
    reason: str = ""


def probe(
    net: nn.Module, batch: Batch, device: torch.device, repeats: int, compiled: bool = True
) -> list[Way]:
    """Time a step in every way, in turn with the others; BASE comes first.

    Args:
        net: It takes uint8 [B, H, W, 3]; left as it is.
        batch: image uint8 [B, H, W, 3] and target int64 [B], on the device.
        device: Where to compute.
        repeats: Turns.
        compiled: Whether to try compiling too, which takes a minute.
    """
    ways, steps = [], []
    reference: Tensor | None = None
    for with_compiler in (False, True) if compiled else (False,):
        for precision in (BASE, "bf16-mixed"):
            way = _way(precision, with_compiler)
            ways.append(way)
            try:
                step, probabilities = _prepare(net, batch, device, precision, with_compiler)
            except Exception as error:  # whatever a compiler or a network raises: it is told
                way.reason = (str(error) or type(error).__name__).strip().splitlines()[0]
                continue
            reference = probabilities if reference is None else reference
            way.difference = float((probabilities - reference).abs().max())
            steps.append((way, step))
    for _ in range(repeats):
        for way, step in steps:
            way.seconds.append(seconds_of(lambda step=step: step(batch), 0.3, device))  # type: ignore[misc]
    return ways


def _way(precision: str, compiled: bool) -> Way:
    options = [f"--trainer.precision {precision}"] if precision != BASE else []
    options += ["--model.compile true"] if compiled else []
    return Way(f"{precision}{', compiled' if compiled else ''}", " ".join(options), [])


def _prepare(
    net: nn.Module, batch: Batch, device: torch.device, precision: str, compiled: bool
) -> tuple[Any, Tensor]:
    own = copy.deepcopy(net)
    if compiled:
        own.compile(dynamic=False)
    torch.manual_seed(0)  # the same dropout in every way
    step = make_step(own, nn.CrossEntropyLoss(), device, precision)
    return step, step(batch).softmax(1)
