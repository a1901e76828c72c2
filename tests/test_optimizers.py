"""The fused form: where it is taken, and that it takes the same steps."""

from typing import Any

import pytest
import torch
from torch import nn

from src.optimizers import fused

MADE: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "Adam": (torch.optim.Adam, {"lr": 0.1, "betas": (0.8, 0.9), "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.01}),
}


def stepped(name: str, change: Any) -> list[torch.Tensor]:
    """Return the weights after three steps of an optimizer."""
    torch.manual_seed(0)
    net, (kind, options) = nn.Linear(5, 3), MADE[name]
    optimizer = change(kind(net.parameters(), **options))
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
    return [weight.detach() for weight in net.parameters()]


@pytest.mark.parametrize("name", MADE)
def test_takes_the_same_steps(name: str) -> None:
    kind, options = MADE[name]
    found = fused(kind([nn.Parameter(torch.zeros(1))], **options))
    assert (type(found), found.defaults["fused"]) == (kind, True)
    assert {key: found.defaults[key] for key in options} == options
    for one, other in zip(stepped(name, fused), stepped(name, lambda same: same), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("options", "scales"),
    [({"fused": False}, False), ({"foreach": True}, False), ({}, True)],
    ids=["refused", "foreach", "float16"],
)
def test_a_choice_stays(options: dict[str, Any], scales: bool) -> None:
    given = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, **options)
    assert fused(given, scales) is given


def test_groups_and_other_numbers_stay() -> None:
    one, two = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    grouped = torch.optim.SGD([{"params": [one]}, {"params": [two], "lr": 1.0}], lr=0.1)
    assert fused(grouped) is grouped
    lbfgs = torch.optim.LBFGS([one])  # has no such form
    assert fused(lbfgs) is lbfgs
    complex_numbers = torch.optim.SGD([nn.Parameter(torch.zeros(1, dtype=torch.complex64))], lr=0.1)
    assert fused(complex_numbers) is complex_numbers
