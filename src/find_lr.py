"""The learning rate range test: how the loss answers to a rate that grows with every step.

Smith 2017 (Cyclical Learning Rates, arXiv 1506.01186). It works on copies and leaves no trace in
the training: neither weights nor random numbers change.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.pace import autocast

Batch = dict[str, Tensor]
LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 120
_SMOOTH = 0.9  # how much of the mean of the losses before each keeps
_DIVERGED = 4.0  # times the lowest loss: no higher rate is tried


@dataclass(frozen=True)
class RangeTest:
    """What the test has seen.

    Attributes:
        rates: Learning rate of each step, rising.
        losses: Loss of each step, smoothed; as many.
        proposed: A rate to train at; None where no rate made the loss fall.
    """

    rates: list[float]
    losses: list[float]
    proposed: float | None


def range_test(
    net: nn.Module,
    loss: nn.Module,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    batches: Iterator[Batch],
    device: torch.device,
    precision: str = "32-true",
    steps: int = STEPS,
) -> RangeTest:
    """Train a copy for some steps, each at a higher rate than the one before.

    Args:
        net: It takes uint8 [B, H, W, 3].
        loss: Of logits [B, C] and targets [B].
        make_optimizer: Called with the copy; groups keep the ratio of their rates.
        batches: To train on.
        device: Where it is computed.
        precision: As for `trainer.precision`; only mixed ones make a difference.
        steps: At most, 2 or more.

    Raises:
        UserError: for an optimizer that tries several losses a step, such as LBFGS.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        net, loss = copy.deepcopy(net).to(device).train(), copy.deepcopy(loss).to(device)
        optimizer = make_optimizer(net)
        if isinstance(optimizer, torch.optim.LBFGS):
            raise UserError("--find_lr: LBFGS searches for its own step. Choose its lr by hand.")
        found = _losses(net, loss, optimizer, islice(batches, steps), device, precision, steps)
    rates = [_rate(number, steps) for number in range(len(found))]
    smooth = smoothed(found)
    return RangeTest(rates, smooth, proposal(rates, smooth))


def _rate(number: int, steps: int) -> float:
    rate: float = LOWEST * (HIGHEST / LOWEST) ** (number / (steps - 1))
    return rate


def _losses(
    net: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    device: torch.device,
    precision: str,
    steps: int,
) -> list[float]:
    """Return the loss of each step, up to the one at which it has diverged."""
    top = max(group["lr"] for group in optimizer.param_groups) or 1.0
    shares = [group["lr"] / top for group in optimizer.param_groups]
    found: list[float] = []
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
    for number, batch in enumerate(batches):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = share * _rate(number, steps)
        with autocast(device, precision) or nullcontext():
            value = loss(net(batch["image"].to(device)), batch["target"].to(device))
        found.append(float(value.detach()))
        if not math.isfinite(found[-1]) or smoothed(found)[-1] > _DIVERGED * min(smoothed(found)):
            break
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
    return found


def smoothed(losses: list[float]) -> list[float]:
    """Return the exponential moving means, without the pull of the start (Kingma 2015)."""
    mean, found = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        found.append(mean / (1 - _SMOOTH**number))
    return found


def proposal(rates: list[float], losses: list[float]) -> float | None:
    """Return the rate at which two thirds of the fall to the lowest smoothed loss are done.

    At its end the loss is about to rise, at its beginning nothing is learned yet. Small rises on
    the way, which chance makes, do not end it; what falls back while the loss diverges is no part.

    Args:
        rates: Rising.
        losses: Smoothed; as many. What is no number ends the test.

    Returns:
        One of the rates; None if the loss never falls.
    """
    known = next((n for n, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    first, last = _fall(losses[:known])
    if first == last:
        return None
    wanted = losses[first] - (losses[first] - losses[last]) * 2 / 3
    return next(rates[n] for n in range(first, last + 1) if losses[n] <= wanted)


def _fall(losses: list[float]) -> tuple[int, int]:
    """Return where the loss is highest before its lowest, and where it is lowest."""
    if not losses:
        return 0, 0
    last = min(range(len(losses)), key=lambda n: (losses[n], -n))
    return max(range(last + 1), key=lambda n: (losses[n], n)), last


def as_csv(test: RangeTest) -> str:
    """Return the curve as rate,loss rows."""
    rows = [f"{rate!r},{loss!r}" for rate, loss in zip(test.rates, test.losses, strict=True)]
    return "\n".join(["lr,loss", *rows]) + "\n"


_WIDTH, _HEIGHT, _EDGE = 640, 360, 64  # of the picture, in pixels


def as_svg(test: RangeTest) -> str:
    """Return the curve as a picture for a browser: loss over the logarithm of the rate.

    It ends where the loss has risen above those of the lower rates by more than they lie apart.
    """
    shown = [loss for loss in test.losses if math.isfinite(loss)]
    low, high = _range(shown)

    def place(rate: float, loss: float) -> tuple[float, float]:
        share = math.log10(rate / LOWEST) / math.log10(HIGHEST / LOWEST)
        height = (min(loss, high) - low) / (high - low)
        down = (_HEIGHT - 2 * _EDGE) * height
        return _EDGE + (_WIDTH - 2 * _EDGE) * share, _HEIGHT - _EDGE - down

    end = next((n for n, loss in enumerate(shown, 1) if loss > high), len(shown))
    curve = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, test.rates, shown[:end]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>Loss over the learning rate</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        *_axes(place, low, high),
        f'<polyline points="{curve}" fill="none" stroke="#2563eb" stroke-width="2"/>',
        *(_mark(*place(test.proposed, low), test.proposed) if test.proposed else []),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _range(losses: list[float]) -> tuple[float, float]:
    """Return the lowest loss, and the highest one to show: not all of a diverging end."""
    if not losses:
        return 0.0, 1.0
    first, last = _fall(losses)
    top, bottom = losses[first], losses[last]
    low, high = min(losses), max(losses)
    if top > bottom:
        high = min(high, top + (top - bottom))
    return low, high if high > low else low + 1.0


def _mark(x: float, bottom: float, rate: float) -> list[str]:
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_EDGE}" y2="{bottom:.1f}" stroke="#b91c1c" '
        'stroke-dasharray="4 4"/>',
        f'<text x="{x:.1f}" y="{_EDGE - 8}" text-anchor="middle" fill="#b91c1c">'
        f"proposed: {rate:.2g}</text>",
    ]


def _axes(
    place: Callable[[float, float], tuple[float, float]], low: float, high: float
) -> list[str]:
    found = []
    for power in range(round(math.log10(LOWEST)), round(math.log10(HIGHEST)) + 1):
        x, y = place(10.0**power, low)
        found.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_EDGE}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        )
        found.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">1e{power}</text>')
    for loss in (low, (low + high) / 2, high):
        _, y = place(LOWEST, loss)
        found.append(f'<text x="{_EDGE - 8}" y="{y + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    middle = f'x="{_WIDTH / 2}" text-anchor="middle"'
    found.append(f'<text {middle} y="{_HEIGHT - 16}">learning rate</text>')
    turned = f"rotate(-90 16 {_HEIGHT / 2})"
    found.append(
        f'<text x="16" y="{_HEIGHT / 2}" text-anchor="middle" transform="{turned}">'
        "loss, smoothed</text>"
    )
    return found
