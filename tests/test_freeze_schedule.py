"""What is frozen in which epoch: weights, momentum, statistics; a resume included."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from callbacks import EMA, FreezeSchedule
from src.classifier import Classifier
from src.errors import UserError
from src.loop.fsdp import FSDP
from src.models import EfficientNetLite0
from tests.cli.conftest import make_pictures
from tests.loop.helpers import make_data, make_trainer

State = dict[str, Tensor]


class Stack(nn.Module):
    """A stem with a BatchNorm, a body, a head; and a BatchNorm without weights."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.body = nn.Linear(4, 4)
        self.bare = nn.BatchNorm1d(4, affine=False)
        self.head = nn.Linear(4, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image.float().mean((1, 2)) / 255))
        return self.head(self.bare(self.body(x)))


class Layered(Stack):
    """The same, which names its layers."""

    def layers(self) -> list[Any]:
        return [[self.stem, self.norm], self.body, self.head]


class Watch(Callback):
    """Notes the network at the start of every epoch, and at the end."""

    def __init__(self) -> None:
        self.seen: list[State] = []

    def note(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    on_train_epoch_start = on_train_end = note

    def moved(self) -> list[set[str]]:
        """Return the parts of the network that moved in each epoch."""
        return [
            {name.split(".")[1] for name, value in one.items() if not torch.equal(value, two[name])}
            for one, two in pairwise(self.seen)
        ]


def fit(
    root: Path, folder: Path, epochs: Any, *callbacks: Callback, net: Any = Stack, **options: Any
) -> tuple[Watch, Classifier]:
    """Train with momentum and weight decay, and watch what moves."""
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1))
    model, watch = Classifier(2, net=net, optimizer=optimizer), Watch()
    trainer = make_trainer(folder, FreezeSchedule(epochs), watch, *callbacks, **options)
    trainer.fit(model, datamodule=make_data(root, batch_size=4))
    return watch, model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 6, "val": 2})


EVERYTHING = {"stem", "norm", "body", "bare", "head"}


class TestEpochs:
    @pytest.mark.parametrize("make", [partial(SGD, momentum=0.9), AdamW])
    def test_the_head_first_then_all(self, make: Any, root: Path, tmp_path: Path) -> None:
        optimizer = partial(make, lr=0.1, weight_decay=0.1)
        watch, _ = fit(root, tmp_path, 2, optimizer=optimizer, max_epochs=4)
        assert watch.moved() == [{"head"}, {"head"}, EVERYTHING, EVERYTHING]

    def test_layer_by_layer_from_the_top(self, root: Path, tmp_path: Path) -> None:
        watch, _ = fit(root, tmp_path, [1, 3], net=Layered, max_epochs=4)
        # the norm without weights waits for all others
        assert watch.moved() == [{"head"}, {"body", "head"}, {"body", "head"}, EVERYTHING]

    def test_one_number_takes_the_last_layer_for_the_head(self, root: Path, tmp_path: Path) -> None:
        class Short(Layered):
            def layers(self) -> list[Any]:
                return [[self.stem, self.norm], [self.body, self.head]]

        watch, _ = fit(root, tmp_path, [1], net=Short, max_epochs=2)
        assert watch.moved() == [{"body", "head"}, EVERYTHING]

    @pytest.mark.parametrize("epochs", [2, 3])
    def test_a_run_that_ends_before_more_joins(
        self, epochs: int, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fit(root, tmp_path, 2, max_epochs=epochs)
        warned = "for 2 epoch(s), and the run has 2: nothing below" in capsys.readouterr().err
        assert warned == (epochs == 2)

    def test_it_says_how_much_is_trained(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fit(root, tmp_path, [1, 2], net=Layered, max_epochs=4)
        lines = [line for line in capsys.readouterr().out.splitlines() if "are trained" in line]
        # head 4 * 2 + 2, body 4 * 4 + 4, stem 3 * 4 + 4, norm 4 + 4
        assert lines == [
            "epoch 1: 10 of 54 parameters are trained",
            "epoch 2: 30 of 54 parameters are trained",
            "epoch 3: 54 of 54 parameters are trained",
        ]

    def test_what_the_network_froze_itself_stays_frozen(self, root: Path, tmp_path: Path) -> None:
        def without_body(num_classes: int) -> nn.Module:
            net = Stack(num_classes)
            net.body.requires_grad_(False)
            return net

        watch, model = fit(root, tmp_path, 1, net=without_body, max_epochs=2)
        assert watch.moved() == [{"head"}, EVERYTHING - {"body"}]
        assert not model.net.body.weight.requires_grad

    def test_the_network_is_left_as_it_came(self, root: Path, tmp_path: Path) -> None:
        _, model = fit(root, tmp_path, 5, max_epochs=1)
        assert all(weight.requires_grad for weight in model.net.parameters())
        assert model.net.norm.training == model.net.head.training


def test_layers_that_the_network_keeps_frozen_do_not_move(root: Path, tmp_path: Path) -> None:
    net = partial(EfficientNetLite0, pretrained=False, frozen_layers=2)
    watch, model = fit(root, tmp_path, 1, EMA(decay=0.9), net=net, max_epochs=3)
    first, last = watch.seen[0], watch.seen[-1]
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert {name.split(".")[2] for name in moved if ".stages." in name} == set("123456")
    assert not [name for name in moved if ".stem." in name]  # statistics of its norm too
    assert not any(part.training for layer in model.net.layers()[:2] for part in layer.modules())


class Note(Callback):
    """Notes at every step which weights want a gradient and which norms are in evaluation mode."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.modes: list[tuple[bool, bool]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        net = pl_module.net
        self.wanted.append(sum(weight.requires_grad for weight in net.parameters()))
        self.modes.append((net.norm.training, net.bare.training))


def test_no_gradient_is_computed_for_what_is_frozen(root: Path, tmp_path: Path) -> None:
    note = Note()
    fit(root, tmp_path, 1, note, max_epochs=2, val_check_interval=1)
    assert note.wanted == [2, 2, 2, 8, 8, 8]  # three steps an epoch
    assert note.modes == [(False, False)] * 3 + [(True, True)] * 3  # validations in between


def test_several_processes_drop_the_gradients(root: Path) -> None:
    """DDP waits for the gradients that it saw when it was set up."""
    net = Stack()
    module: Any = SimpleNamespace(net=net)
    current = SimpleNamespace(processed=0)
    trainer: Any = SimpleNamespace(
        is_global_zero=False, strategy=DDPStrategy(),
        fit_loop=SimpleNamespace(epoch_progress=SimpleNamespace(current=current)),
    )  # fmt: skip
    schedule = FreezeSchedule(1)
    schedule.setup(trainer, module, "fit")
    for epoch, kept in ((0, {"head.weight", "head.bias"}), (1, set(dict(net.named_parameters())))):
        current.processed = epoch
        schedule.on_train_start(trainer, module)
        for weight in net.parameters():
            assert weight.requires_grad
            weight.grad = torch.ones_like(weight)
        schedule.on_before_optimizer_step(trainer, module, None)  # type: ignore[arg-type]
        assert {n for n, weight in net.named_parameters() if weight.grad is not None} == kept
        assert net.norm.training == bool(epoch)


class TestErrors:
    @pytest.mark.parametrize("epochs", [0, -1, [], [2, 2], [3, 1], [0, 1]])
    def test_epochs_out_of_order(self, epochs: Any) -> None:
        with pytest.raises(UserError, match="whole numbers from 1, each above the one before"):
            FreezeSchedule(epochs)

    def begin(self, net: nn.Module, epochs: Any, strategy: Any = None) -> None:
        trainer: Any = SimpleNamespace(strategy=strategy)
        module: Any = SimpleNamespace(net=net)
        FreezeSchedule(epochs).setup(trainer, module, "fit")

    def test_no_head_and_no_layers(self) -> None:
        with pytest.raises(UserError, match=r"FreezeSchedule needs .* and Linear has no method"):
            self.begin(nn.Linear(1, 1), 1)

    def test_several_numbers_need_layers(self) -> None:
        with pytest.raises(UserError, match="Stack has no method `layers`"):
            self.begin(Stack(), [1, 2])

    def test_more_numbers_than_layers(self) -> None:
        match = r"epochs of .* has 3 numbers and Layered has 3 layers.* Give at most 2\."
        with pytest.raises(UserError, match=match):
            self.begin(Layered(), [1, 2, 3])

    def test_shares(self) -> None:
        with pytest.raises(UserError, match=r"FreezeSchedule needs the whole weights"):
            self.begin(Stack(), 1, FSDP())
