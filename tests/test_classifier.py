"""The LightningModule: gradients, counts, schedules, scores, checkpoints; used from Python."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.errors import UserError
from src.models import SeedCNN, SmallResNet
from src.preprocess import Preprocessing
from src.schedules import OneCycle
from src.train import main
from tests.cli.conftest import SIZE, TINY, make_pictures

RECORD = Preprocessing(image_size=SIZE, resize="stretch", classes=("ant", "bug"))


def small(num_classes: int) -> SmallResNet:
    return SmallResNet(num_classes, stem_width=4, widths=[4, 8], blocks=[1, 1])


class Reads(nn.Module):
    """Two logits that are the red and the green of the first pixel, as whole numbers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 0, 0, : len(self.scale)].float() * self.scale


class Constant(nn.Module):
    """Probabilities of 3/4 and 1/4 for every picture."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([math.log(3), 0.0]))

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.expand(len(image), 2)


class Rates(Callback):
    """Notes the rate that every batch is trained with."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.used.append(trainer.optimizers[0].param_groups[0]["lr"])


def make_trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, enable_model_summary=False,
        use_distributed_sampler=False, **{**quiet, "max_epochs": 1, **options},
    )  # fmt: skip


def make_data(root: Path, **options: Any) -> DataModule:
    return DataModule(root=str(root), **{"image_size": SIZE, "batch_size": 4, **options})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training pictures, and 14 for validation, no multiple of the block of 4."""
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 4, "val": 7})


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ants and a bug to train on, two ants and a bug to validate on."""
    root = make_pictures(tmp_path_factory.mktemp("uneven"), {"train": 3, "val": 2})
    for name in ("train/bug/1.png", "train/bug/2.png", "val/bug/1.png"):
        (root / name).unlink()
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that the program made."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["fit", f"--data.root={root}", f"--run_dir={folder}", *TINY, "--trainer.max_epochs=1"]
    assert main(words) == 0
    return folder


def noise(count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    rows = torch.arange(count)
    return {"image": image, "target": rows % 2, "index": rows}


def alone(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """Return the model in a state in which a step needs no Trainer."""
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
    return model.train()


def steps(model: Classifier, batch: dict[str, Tensor], optimizer: Any) -> Iterator[float]:
    while True:
        optimizer.zero_grad()
        loss = model.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        yield loss.item()


class TestTraining:
    def test_a_gradient_reaches_every_parameter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        model = alone(Classifier(2, net=small), monkeypatch)
        next(steps(model, noise(8), SGD(model.parameters(), lr=0.1)))  # blocks start as identities
        model.zero_grad()
        model.training_step(noise(8), 0).backward()
        without = [
            name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()
        ]
        assert without == []

    def test_one_batch_is_overfitted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        model = alone(Classifier(2, net=small), monkeypatch)
        training = steps(model, noise(8), SGD(model.parameters(), lr=0.1, momentum=0.9))
        losses = [next(training) for _ in range(40)]
        assert losses[0] > 0.5
        assert losses[-1] < 0.05

    def test_train_scores_count_over_uneven_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = alone(Classifier(2, net=Reads), monkeypatch)
        logits = [(3, 1), (1, 3), (2, 0), (0, 5)]
        image = torch.zeros((4, SIZE, SIZE, 3), dtype=torch.uint8)
        image[:, 0, 0, :2] = torch.tensor(logits, dtype=torch.uint8)
        target = torch.tensor([0, 1, 1, 0])
        assert model.train_scores() == {}
        for rows in (slice(0, 3), slice(3, 4)):
            model.training_step({"image": image[rows], "target": target[rows]}, 0)
        # two right with a margin of 2, one wrong by 2, one by 5; the mean is over pictures
        total = 2 * math.log1p(math.exp(-2)) + math.log1p(math.exp(2)) + math.log1p(math.exp(5))
        assert model.train_scores() == {
            "train/loss": pytest.approx(total / 4, rel=1e-6),
            "train/accuracy": 0.5,
        }
        model.on_train_epoch_start()
        model.training_step({"image": image[:1], "target": target[:1]}, 0)
        assert model.train_scores() == {
            "train/loss": pytest.approx(math.log1p(math.exp(-2)), rel=1e-6),
            "train/accuracy": 1.0,
        }

    def test_smoothing_is_for_training_alone(self, uneven: Path, tmp_path: Path) -> None:
        model = Classifier(2, net=Constant, optimizer=partial(SGD, lr=0.0), label_smoothing=0.2)
        make_trainer(tmp_path).fit(model, datamodule=make_data(uneven))
        ant, bug = math.log(3 / 4), math.log(1 / 4)  # smoothed targets: 0.9 and 0.1
        smoothed = -(3 * (0.9 * ant + 0.1 * bug) + (0.1 * ant + 0.9 * bug)) / 4
        assert model.scores["train/loss"] == pytest.approx(smoothed, rel=1e-6)
        assert model.scores["val/loss"] == pytest.approx(-(2 * ant + bug) / 3, rel=1e-6)
        assert model.scores["train/accuracy"] == 3 / 4
        assert model.scores["val/accuracy"] == 2 / 3

    def test_a_loss_of_ones_own(self, uneven: Path, tmp_path: Path) -> None:
        model = Classifier(
            2, net=Constant, optimizer=partial(SGD, lr=0.0), loss=nn.MultiMarginLoss()
        )
        make_trainer(tmp_path).fit(model, datamodule=make_data(uneven))
        # an ant is right by ln 3, more than the margin of 1; the bug is wrong by ln 3: (1 + ln 3)/2
        assert model.scores["train/loss"] == pytest.approx((1 + math.log(3)) / 8, rel=1e-6)
        assert model.scores["val/loss"] == pytest.approx(
            -(2 * math.log(3 / 4) + math.log(1 / 4)) / 3, rel=1e-6
        )


def cosine(start: float, end: float, share: float) -> float:
    return start + (end - start) * (1 - math.cos(math.pi * share)) / 2


class TestSchedules:
    """Two epochs of two batches, peak rate 0.1."""

    def rates(self, root: Path, folder: Path, scheduler: Any, **options: Any) -> list[float]:
        torch.manual_seed(0)
        model = Classifier(2, net=Reads, optimizer=partial(SGD, lr=0.1), scheduler=scheduler)
        rates = Rates()
        trainer = make_trainer(folder, **{"max_epochs": 2, **options}, callbacks=[rates])
        trainer.fit(model, datamodule=make_data(root))
        return rates.used

    def test_ours_learns_the_number_of_steps(self, root: Path, tmp_path: Path) -> None:
        used = self.rates(root, tmp_path, partial(OneCycle, peak_fraction=0.5))
        # the middles of four steps are 1/8, 3/8, 5/8 and 7/8 of the run
        shares = [
            cosine(1 / 25, 1, 0.25), cosine(1 / 25, 1, 0.75),
            cosine(1, 1e-4, 0.25), cosine(1, 1e-4, 0.75),
        ]  # fmt: skip
        assert used == pytest.approx([0.1 * share for share in shares])

    def test_it_counts_optimizer_steps_and_not_batches(self, root: Path, tmp_path: Path) -> None:
        used = self.rates(
            root, tmp_path, partial(OneCycle, peak_fraction=0.5), accumulate_grad_batches=2
        )
        # two steps with their middles at 1/4 and 3/4 of the run
        first, second = 0.1 * cosine(1 / 25, 1, 0.5), 0.1 * cosine(1, 1e-4, 0.5)
        assert used == pytest.approx([first, first, second, second])

    def test_torchs_own_learns_it_too(self, root: Path, tmp_path: Path) -> None:
        used = self.rates(root, tmp_path, partial(OneCycleLR, max_lr=0.1))
        # it starts at max_lr / 25 and ends at that / 10,000; the peak lies at 0.3 * 4 - 1 steps
        end = 0.1 / 25 / 1e4
        shares = [(step - 0.2) / 2.8 for step in (1, 2, 3)]
        assert used == pytest.approx([0.1 / 25, *(cosine(0.1, end, s) for s in shares)])

    def test_step_lr_moves_every_epoch(self, root: Path, tmp_path: Path) -> None:
        used = self.rates(root, tmp_path, partial(StepLR, step_size=1, gamma=0.5))
        assert used == pytest.approx([0.1, 0.1, 0.05, 0.05])

    def test_plateau_watches_its_monitor(self, root: Path, tmp_path: Path) -> None:
        # a threshold of 9 below the first loss is never reached: every later epoch is a plateau
        plateau = partial(
            ReduceLROnPlateau, monitor="val/loss", patience=0, factor=0.1, threshold=9,
            threshold_mode="abs",
        )  # fmt: skip
        used = self.rates(root, tmp_path, plateau, max_epochs=3)
        assert used == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01])

    def test_without_one_the_rate_stays(self, root: Path, tmp_path: Path) -> None:
        assert self.rates(root, tmp_path, None) == [0.1] * 4

    def test_a_run_without_an_end(self, root: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"has no end.*--trainer\.max_epochs"):
            self.rates(root, tmp_path, OneCycle, max_epochs=-1)

    @pytest.mark.parametrize(
        ("scheduler", "match"),
        [
            (partial(StepLR, step_size=1, gama=2), r"model\.optimizer or model\.scheduler: .*gama"),
            (StepLR, r"model\.optimizer or model\.scheduler: .*step_size"),
            (partial(OneCycle, peak_fraction=2.0), "peak_fraction is 2.0"),
        ],
    )
    def test_what_a_schedule_refuses(
        self, root: Path, tmp_path: Path, scheduler: Any, match: str
    ) -> None:
        with pytest.raises(UserError, match=match):
            self.rates(root, tmp_path, scheduler)

    def test_what_an_optimizer_refuses(self) -> None:
        model = Classifier(2, net=Reads, optimizer=partial(SGD, lr=-1.0))
        with pytest.raises(UserError, match=r"model\.optimizer .*Invalid learning rate: -1\.0"):
            model.configure_optimizers()


def plain_scores(net: nn.Module, root: Path) -> dict[str, float]:
    """Score the validation pictures one after the other, without any of our code but the net."""
    paths = sorted((root / "val").rglob("*.png"))
    targets = torch.tensor([("ant", "bug").index(path.parent.name) for path in paths])
    with torch.inference_mode():
        logits = torch.cat([net(torch.from_numpy(np.array(Image.open(p)))[None]) for p in paths])
    return {
        "val/loss": F.cross_entropy(logits.double(), targets).item(),
        "val/accuracy": (logits.argmax(1) == targets).double().mean().item(),
    }


class TestEvaluation:
    @pytest.mark.parametrize("block", [1, 4, 14, 32])
    def test_equals_the_plain_computation(self, root: Path, tmp_path: Path, block: int) -> None:
        torch.manual_seed(1)
        model = Classifier(2, net=small)
        data = make_data(root, eval_batch_size=block)
        make_trainer(tmp_path).validate(model, datamodule=data, verbose=False)
        expected = plain_scores(model.net.eval(), root)
        assert 0 < expected["val/accuracy"] < 1
        assert model.table is not None
        assert model.table.index.tolist() == list(range(14))
        assert model.scores["val/accuracy"] == expected["val/accuracy"]
        assert model.scores["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)

    def test_scores_of_a_fit_stand_beside_those_of_its_training(
        self, root: Path, tmp_path: Path
    ) -> None:
        torch.manual_seed(1)
        model = Classifier(2, net=small)
        make_trainer(tmp_path).fit(model, datamodule=make_data(root))
        assert list(model.scores) == [
            "train/loss", "train/accuracy", "val/loss", "val/loss_calibrated", "val/accuracy",
            "val/accuracy_argmax", "val/f1", "val/auroc",
        ]  # fmt: skip
        expected = plain_scores(model.net.eval(), root)
        assert model.scores["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)

    def test_test_and_predict_make_the_table_too(self, root: Path, tmp_path: Path) -> None:
        torch.manual_seed(1)
        model = Classifier(2, net=small)
        trainer = make_trainer(tmp_path)
        trainer.predict(model, datamodule=make_data(root, batch_size=5), return_predictions=False)
        assert model.table is not None
        assert model.table.target.tolist() == [-1] * 22
        data = make_data(root / "val", batch_size=5)
        trainer.test(model, datamodule=data, verbose=False)
        assert model.table.target.tolist() == [0] * 7 + [1] * 7


class TestErrors:
    @pytest.mark.parametrize("num_classes", [1, 0, -2])
    def test_fewer_than_two_classes(self, num_classes: int) -> None:
        with pytest.raises(UserError, match=f"num_classes is {num_classes}; .* at least 2"):
            Classifier(num_classes, net=Constant)

    @pytest.mark.parametrize("smoothing", [-0.1, 1.5])
    def test_smoothing_out_of_range(self, smoothing: float) -> None:
        with pytest.raises(UserError, match=f"label_smoothing is {smoothing}; allowed is 0 to 1"):
            Classifier(2, net=Constant, label_smoothing=smoothing)

    def test_smoothing_beside_a_loss_of_ones_own(self) -> None:
        with pytest.raises(UserError, match=r"and 0 beside a model\.loss of your own"):
            Classifier(2, net=Constant, loss=nn.CrossEntropyLoss(), label_smoothing=0.1)

    @pytest.mark.parametrize(
        ("net", "found"),
        [
            (lambda n: small(n + 1), "4, 3"),
            (lambda _: nn.Flatten(), f"4, {3 * SIZE * SIZE}"),
            (lambda _: nn.Flatten(0), f"{12 * SIZE * SIZE}"),
        ],
    )
    def test_logits_of_another_shape(self, net: Callable[[int], nn.Module], found: str) -> None:
        match = rf"gave logits of shape \[{found}\]; expected is \[4, 2\], a column for each class"
        with pytest.raises(UserError, match=match):
            Classifier(2, net=net)(noise(4)["image"])

    def test_pictures_of_another_size_than_the_net_takes(self) -> None:
        model = Classifier(2, net=partial(SeedCNN, image_size=40))
        with pytest.raises(UserError, match=r"40 pixels and data\.image_size is 32"):
            model.take_preprocessing(RECORD)


def strangers(value: Any, place: str = "") -> list[str]:
    """Return where in a checkpoint anything but plain types and tensors lies."""
    if type(value) in (dict, OrderedDict):
        parts: Any = [*((f"{place}.key", key) for key in value)]
        parts += [(f"{place}.{key}", child) for key, child in value.items()]
    elif type(value) in (list, tuple, set):
        parts = [(f"{place}[]", child) for child in value]
    else:
        return [] if type(value) in (int, float, str, bool, type(None), Tensor) else [place]
    return [found for where, child in parts for found in strangers(child, where)]


class TestCheckpoints:
    def test_one_made_from_python_is_plain_and_loads(self, root: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = Classifier(
            2, net=small, optimizer=partial(SGD, lr=0.1), scheduler=OneCycle, label_smoothing=0.1
        )
        trainer = make_trainer(tmp_path, enable_checkpointing=True)
        trainer.fit(model, datamodule=make_data(root))
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        stored = torch.load(tmp_path / "a.ckpt", weights_only=True)
        assert strangers(stored) == []
        plain = {
            "num_classes": 2, "label_smoothing": 0.1, "class_weights": None, "layer_decay": 1.0,
            "calibrate": True, "compile": False,
        }  # fmt: skip
        assert stored["hyper_parameters"] == plain
        record = Preprocessing.from_dict(stored["preprocessing"])
        assert (record.classes, record.image_size) == (("ant", "bug"), SIZE)
        again = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", net=small)
        for name, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name

    def test_one_made_by_the_program_is_plain_and_names_its_net(
        self, run: Path, root: Path
    ) -> None:
        path = run / "checkpoints" / "best.ckpt"
        assert strangers(torch.load(path, weights_only=True)) == []
        model = Classifier.load_from_checkpoint(path)
        assert isinstance(model.net, SmallResNet)
        line = dict(
            zip(*[row.split(",") for row in (run / "metrics.csv").read_text().split()], strict=True)
        )
        found = plain_scores(model.net.eval(), root)
        assert found["val/loss"] == pytest.approx(float(line["val/loss"]), rel=1e-5)
        assert found["val/accuracy"] == float(line["val/accuracy_argmax"])

    def test_the_nets_constants_complete_the_record(self) -> None:
        model = Classifier(2, net=small)
        model.take_preprocessing(RECORD)
        model.all_gather = lambda tensor: tensor  # type: ignore[method-assign]
        stored: dict[str, Any] = {}
        model.on_save_checkpoint(stored)
        record = Preprocessing.from_dict(stored["preprocessing"])
        assert isinstance(model.net, SmallResNet)
        assert (record.mean, record.std) == (tuple(model.net.mean), tuple(model.net.std))
        assert record.mean != RECORD.mean
