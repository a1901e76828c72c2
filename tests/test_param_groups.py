"""Parameter groups: who is decayed, who learns how fast, and that nobody is forgotten."""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from src.checkpoint import check_groups
from src.classifier import Classifier
from src.errors import UserError
from src.loop.warm_start import OptimizerStart
from src.models import SeedCNN, SmallResNet
from src.param_groups import build_optimizer, check_rates, layers_of, param_groups
from src.schedules import OneCycle

NETS: dict[str, Any] = {
    "SeedCNN": partial(SeedCNN, image_size=32),
    "SmallResNet": partial(SmallResNet, stem_width=4, widths=[4, 8], blocks=[1, 1]),
}


class Three(nn.Module):
    """Three layers, of which the middle one is given as a list."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.body = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, num_classes)

    def layers(self) -> list[Any]:
        return [self.stem, [self.norm, self.body.weight], self.head]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(self.norm(self.stem(image.float().mean((1, 2))))))


class Tied(nn.Module):
    """A weight by two names, one of them a norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.norm = nn.LayerNorm((3, 3))
        self.norm.weight = self.first.weight


def names(net: nn.Module, group: dict[str, Any]) -> list[str]:
    found = {id(parameter): name for name, parameter in net.named_parameters()}
    return [found[id(parameter)] for parameter in group["params"]]


def owners(net: nn.Module, found: list[str]) -> set[type]:
    """Return the classes of the modules that these parameters are of."""
    return {type(net.get_submodule(name.rpartition(".")[0])) for name in found}


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


class TestDecay:
    @pytest.mark.parametrize("name", [*NETS, "Three", "Tied"])
    @pytest.mark.parametrize("frozen", [False, True])
    def test_every_parameter_is_in_one_group(self, name: str, frozen: bool) -> None:
        net = {**NETS, "Three": Three, "Tied": Tied}[name]().requires_grad_(not frozen)
        grouped = Counter(id(p) for group in param_groups(net) for p in group["params"])
        assert set(grouped) == {id(parameter) for parameter in net.parameters()}
        assert set(grouped.values()) == {1}

    @pytest.mark.parametrize("name", NETS)
    def test_convolutions_and_matrices_alone_are_decayed(self, name: str) -> None:
        net = NETS[name]()
        decayed, undecayed = param_groups(net)
        assert "weight_decay" not in decayed and undecayed["weight_decay"] == 0.0
        assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
        assert owners(net, names(net, decayed)) == {nn.Conv2d, nn.Linear}
        weights = [n for n in names(net, undecayed) if not n.endswith(".bias")]
        assert owners(net, weights) <= {nn.BatchNorm2d}

    def test_by_hand(self) -> None:
        net = Three()
        decayed, undecayed = param_groups(net)
        assert names(net, decayed) == ["stem.weight", "body.weight", "head.weight"]
        assert names(net, undecayed) == ["stem.bias", "norm.weight", "norm.bias", "head.bias"]

    def test_a_norm_of_two_dimensions_is_not_decayed_by_any_of_its_names(self) -> None:
        net = Tied()
        (group,) = param_groups(net)
        assert group["weight_decay"] == 0.0
        assert names(net, group) == ["first.weight", "first.bias", "second.bias", "norm.bias"]

    @pytest.mark.parametrize("make", [SGD, AdamW])
    def test_a_step_without_gradients_shrinks_the_decayed_alone(self, make: Any) -> None:
        net = Three()
        for parameter in net.parameters():
            parameter.data.fill_(2.0)
            parameter.grad = torch.zeros_like(parameter)
        build_optimizer(partial(make, lr=0.1, weight_decay=0.5), net, net, 1.0).step()
        for name, parameter in net.named_parameters():
            decayed = name in ("stem.weight", "body.weight", "head.weight")
            expected = torch.full_like(parameter, 2.0 * (1 - 0.1 * 0.5) if decayed else 2.0)
            torch.testing.assert_close(parameter.detach(), expected, msg=name)


class TestLayers:
    def test_the_rates_by_hand(self) -> None:
        net = Three()
        optimizer = build_optimizer(partial(SGD, lr=0.8, weight_decay=0.1), net, net, 0.5)
        found = [(names(net, g), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
        assert found == [
            (["stem.weight"], 0.2, 0.1),
            (["stem.bias"], 0.2, 0.0),
            (["body.weight"], 0.4, 0.1),
            (["norm.weight", "norm.bias"], 0.4, 0.0),
            (["head.weight"], 0.8, 0.1),
            (["head.bias"], 0.8, 0.0),
        ]

    def test_what_is_in_no_layer_learns_as_the_head(self) -> None:
        both = nn.ModuleDict({"net": Three(), "loss": nn.Bilinear(2, 2, 1)})
        net = both["net"]
        groups = param_groups(both, layers_of(net, "x"), 0.5)
        assert [(group["lr_share"], len(group["params"])) for group in groups] == [
            (0.25, 1), (0.25, 1), (0.5, 1), (0.5, 2), (1.0, 2), (1.0, 2),
        ]  # fmt: skip

    def test_a_tensor_in_two_layers_is_of_the_first(self) -> None:
        net = Three()
        layers = [[net.stem.weight], [net.stem.weight, net.stem.bias]]
        first, *_ = param_groups(net, layers, 0.5)
        assert (names(net, first), first["lr_share"]) == (["stem.weight"], 0.5)

    def test_a_schedule_keeps_their_ratio(self) -> None:
        net = Three()
        optimizer = build_optimizer(partial(SGD, lr=1.0), net, net, 0.5)
        before = rates(optimizer)
        schedule = OneCycle(optimizer, total_steps=4)
        check_rates(optimizer, before, "OneCycle")
        for _ in range(4):
            found = rates(optimizer)
            assert [found[-1] / rate for rate in found] == pytest.approx([4, 4, 2, 2, 1, 1])
            optimizer.step()
            schedule.step()

    @pytest.mark.parametrize(
        ("net", "match"),
        [
            (nn.Linear(2, 2), r"layer_decay 0\.5 needs .* and Linear has no method `layers`"),
            (nn.Module(), "no method `layers`"),
        ],
    )
    def test_a_net_without_layers(self, net: nn.Module, match: str) -> None:
        net.layers = nn.Sequential(nn.Linear(1, 1))  # a part by that name is no method
        with pytest.raises(UserError, match=match):
            build_optimizer(partial(SGD, lr=0.1), net, net, 0.5)

    def test_layers_that_leave_parameters_out(self) -> None:
        net = Three()
        net.extra = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
        left = re.escape("extra.0.weight, extra.0.bias, extra.1.weight, extra.1.bias and 2 more")
        match = rf"Three\.layers\(\) leaves out {left}; every .* for x"
        with pytest.raises(UserError, match=match):
            layers_of(net, "x")


class TestOptimizersWithoutGroups:
    def test_lbfgs_gets_all_parameters(self) -> None:
        net = Three()
        optimizer = build_optimizer(LBFGS, net, net, 1.0)
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
            id(p) for p in net.parameters()
        ]

    def test_lbfgs_has_no_rate_for_a_layer(self) -> None:
        with pytest.raises(UserError, match=r"layer_decay is 0\.5 and the optimizer takes one"):
            build_optimizer(LBFGS, Three(), Three(), 0.5)

    def test_another_refusal_stays_as_it_is(self) -> None:
        with pytest.raises(ValueError, match="Invalid learning rate"):
            build_optimizer(partial(SGD, lr=-1), Three(), Three(), 1.0)


class TestClassifier:
    def make(self, **options: Any) -> Classifier:
        torch.manual_seed(0)
        return Classifier(2, **{"net": Three, "optimizer": partial(SGD, lr=0.4), **options})

    @pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, float("nan")])
    def test_a_layer_decay_out_of_range(self, decay: float) -> None:
        with pytest.raises(UserError, match=f"layer_decay is {decay}; allowed is above 0"):
            self.make(layer_decay=decay)

    def test_a_net_without_layers_is_refused_at_once(self) -> None:
        with pytest.raises(UserError, match="Linear has no method `layers`"):
            self.make(net=partial(nn.Linear, 3), layer_decay=0.9)

    def test_one_schedule_for_all_rates(self) -> None:
        model = self.make(layer_decay=0.5, scheduler=partial(StepLR, step_size=1))
        plan = model.configure_optimizers()
        assert rates(plan["optimizer"])[::2] == [0.1, 0.2, 0.4]

    def test_a_schedule_that_overwrites_them(self) -> None:
        schedule = partial(OneCycleLR, max_lr=0.4, total_steps=4)
        with pytest.raises(UserError, match="OneCycleLR overwrites them"):
            self.make(layer_decay=0.5, scheduler=schedule).configure_optimizers()
        self.make(scheduler=schedule).configure_optimizers()


class TestSavedState:
    def test_of_the_same_groups(self) -> None:
        model = Classifier(2, net=Three)
        optimizer = model.build_optimizer()
        check_groups(Path("a"), {"optimizer_states": [optimizer.state_dict()]}, optimizer)

    def test_of_one_group_as_older_versions_wrote_it(self) -> None:
        model = Classifier(2, net=Three)
        old = SGD(model.parameters(), lr=0.1).state_dict()
        match = r"a\.ckpt holds .* groups of \[7\] parameters, and here .* \[3, 4\]: .*--init_f"
        with pytest.raises(UserError, match=match):
            check_groups(Path("a.ckpt"), {"optimizer_states": [old]}, model.build_optimizer())

    def start(self, saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        trainer: Any = SimpleNamespace(optimizers=[optimizer])
        module: Any = None
        OptimizerStart({"optimizer_states": [saved]}).on_fit_start(trainer, module)

    def test_other_numbers_are_fitted_by_their_place(self) -> None:
        model = Classifier(2, net=Three)
        optimizer = model.build_optimizer()
        saved = optimizer.state_dict()
        # numbered in the order of the module, as a sharded run of an older version did
        for group, numbers in zip(saved["param_groups"], ([0, 4, 5], [1, 2, 3, 6]), strict=True):
            group["params"] = numbers
        saved["state"] = {5: {"momentum_buffer": torch.full((2, 4), 7.0)}}
        self.start(saved, optimizer)
        found = optimizer.state[model.net.head.weight]
        assert torch.equal(found["momentum_buffer"], torch.full((2, 4), 7.0))
        assert len(optimizer.state) == 1

    def test_other_groups_are_refused(self) -> None:
        model = Classifier(2, net=Three)
        old = SGD(model.parameters(), lr=0.1).state_dict()
        with pytest.raises(UserError, match=r"of other parameter groups \(\[7\] for \[3, 4\] par"):
            self.start(old, model.build_optimizer())
