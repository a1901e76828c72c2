"""The learning rate range test: what it does to the network, and what it proposes."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from src.find_lr import (
    HIGHEST,
    LOWEST,
    RangeTest,
    as_csv,
    as_svg,
    proposal,
    range_test,
    smoothed,
)


class Slope(nn.Module):
    """One number w; its logit is what the loss takes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0]))

    def forward(self, image: Tensor) -> Tensor:
        return self.w + 0 * torch.rand(())  # draws, as dropout does


class Square(nn.Module):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits**2).sum()


def batches() -> Iterator[dict[str, Tensor]]:
    while True:
        yield {"image": torch.zeros(1, 1, 1, 3, dtype=torch.uint8), "target": torch.zeros(1)}


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=123.0)


def test_by_hand() -> None:
    """On w squared a step of rate r multiplies w by 1 - 2 r; from r = 1 on it grows."""
    net = Slope()
    found = range_test(net, Square(), sgd, batches(), torch.device("cpu"), steps=50)
    w, losses = 3.0, []
    for rate in found.rates:
        losses.append(w * w)
        w *= 1 - 2 * rate
    assert found.losses == pytest.approx(smoothed(losses), rel=1e-4)
    assert found.rates[:2] == pytest.approx([LOWEST, LOWEST * (HIGHEST / LOWEST) ** (1 / 49)])
    assert len(found.rates) == 50  # the loss has not yet grown fourfold in the mean
    assert found.proposed is not None and 0.001 < found.proposed < 1


def test_it_ends_when_the_loss_has_grown() -> None:
    found = range_test(Slope(), Square(), sgd, batches(), torch.device("cpu"), steps=400)
    assert 300 < len(found.rates) < 400
    assert found.losses[-1] > 4 * min(found.losses) >= found.losses[-2] / 1.0000001


def test_it_leaves_no_trace() -> None:
    net, state = Slope(), torch.get_rng_state()
    range_test(net, Square(), sgd, batches(), torch.device("cpu"), steps=5)
    assert net.w.item() == 3.0 and net.w.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_groups_keep_the_ratio_of_their_rates() -> None:
    nets = [Slope(), Slope()]
    seen: list[list[float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            seen.append([group["lr"] for group in self.param_groups])

    def two(net: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": [net.w], "lr": 0.5}, {"params": [nets[1].w], "lr": 0.125}]
        return Watched(groups, lr=1.0)

    range_test(nets[0], Square(), two, batches(), torch.device("cpu"), steps=3)
    assert [high / low for high, low in seen] == pytest.approx([4.0] * 3)
    assert [high for high, _ in seen] == pytest.approx([LOWEST, (LOWEST * HIGHEST) ** 0.5, HIGHEST])


def test_smoothed_by_hand() -> None:
    assert smoothed([1.0, 2.0, 4.0]) == pytest.approx(
        [1.0, (0.9 * 0.1 + 0.1 * 2) / 0.19, (0.81 * 0.1 + 0.09 * 2 + 0.1 * 4) / 0.271]
    )
    assert smoothed([5.0] * 4) == pytest.approx([5.0] * 4)


RATES = [10.0**power for power in range(-6, 2)]


@pytest.mark.parametrize(
    ("losses", "proposed"),
    [
        ([5, 4, 5, 4, 3, 2, 1, 9], 1e-1),  # from 5 to 1; two thirds are done at 2.33 or less
        ([5, 4, 4.1, 3, 3.2, 1, 1.1, 9], 1e-1),  # small rises on the way don't end it
        ([5, 5.2, 5, 5.1, 5, 9, 9, 9], 1e-4),  # a small fall is one too
        ([5, 4, 3, 2, 6, 12, 8, 9], 1e-4),  # from 5 to 2, and not from 12 to 8
        ([1, 2, 3, 4, 5, 6, 7, 8], None),
        ([4, 4, 4, 4, 4, 4, 4, 4], None),
        ([7, 6, 5, 4, math.nan, 1, 1, 1], 1e-4),  # it ends the test: at 5, 2 of 3 are done
        ([math.inf], None),
        ([2.0], None),
        ([], None),
    ],
)
def test_proposal_by_hand(losses: list[float], proposed: float | None) -> None:
    found = proposal(RATES, losses)
    assert found is None if proposed is None else found == pytest.approx(proposed)


def test_a_loss_that_is_no_number_at_once() -> None:
    class Broken(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return logits.sum() * math.nan

    found = range_test(Slope(), Broken(), sgd, batches(), torch.device("cpu"), steps=5)
    assert (len(found.rates), found.proposed) == (1, None)
    assert "<svg" in as_svg(found)


def test_files() -> None:
    test = RangeTest([1e-6, 1e-2, 10.0], [3.0, 1.0, 2.0], 1e-2)
    assert as_csv(test) == "lr,loss\n1e-06,3.0\n0.01,1.0\n10.0,2.0\n"
    picture = as_svg(test)
    assert 'points="64.0,64.0 ' in picture  # the highest loss at the lowest rate, on the left
    assert " 576.0," in picture and ">proposed: 0.01</text>" in picture
    assert ">learning rate</text>" in picture and ">loss, smoothed</text>" in picture


def test_a_loss_that_diverges_does_not_flatten_the_rest() -> None:
    picture = as_svg(RangeTest([1e-6, 1e-3, 1e-2, 10.0], [0.7, 0.65, 0.6, 2.4], 1e-3))
    # shown is 0.6 to 0.7 + 0.1: 0.7 lies in the middle of 232 pixels, 2.4 is cut off at the top
    assert 'points="64.0,180.0 ' in picture
    assert picture.split('points="')[1].split('"')[0].endswith(" 576.0,64.0")
