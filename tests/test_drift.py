"""What may change when a run goes on, each option by itself."""

import copy
from typing import Any

import pytest

from src.drift import Change, changes, made_with

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "monitor": "val/accuracy",
    "monitor_mode": None,
    "progress": "auto",
    "stop_on_nonfinite": True,
    "checkpoint_every_steps": None,
    "model": {
        "net": {"class_path": "src.models.SmallResNet", "init_args": {"widths": [4, 8]}},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
        "scheduler": None,
        "num_classes": 2,
        "label_smoothing": 0.0,
        "class_weights": None,
        "layer_decay": 1.0,
    },
    "data": {
        "root": "pictures", "source": None, "num_workers": 2, "on_bad_image": "error",
        "on_leak": "warn",
        "batch_size": 8, "augment": [{"class_path": "albumentations.HorizontalFlip"}],
        "sampling": "shuffled", "image_size": 32,
    },
    "trainer": {
        "max_epochs": 3, "max_steps": -1, "precision": None, "accumulate_grad_batches": 1,
        "gradient_clip_val": None, "val_check_interval": None, "callbacks": None,
        "logger": {"class_path": "a.Logger"}, "devices": 1, "accelerator": "cpu",
        "enable_progress_bar": None, "limit_train_batches": None, "overfit_batches": 0.0,
    },
}  # fmt: skip
FACTS = {"processes": 1, "device": "cpu", "strategy": None, "data": "a" * 64}
STEP_LR = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
ONE_CYCLE = {"class_path": "src.schedules.OneCycle"}
OPEN = {"class_path": "src.schedules.OneCycle", "init_args": {"total_steps": None}}
FIXED = {"class_path": "src.schedules.OneCycle", "init_args": {"total_steps": 99}}


def with_(**values: Any) -> dict[str, Any]:
    """Return the config with values at places such as `data__batch_size`."""
    found = copy.deepcopy(CONFIG)
    for name, value in values.items():
        *path, last = name.split("__")
        part = found
        for key in path:
            part = part[key]
        part[last] = value
    return found


def found(
    stored: dict[str, Any] = CONFIG, config: dict[str, Any] = CONFIG, **now: Any
) -> list[Change]:
    old, new = made_with(stored, FACTS), made_with(config, {**FACTS, **now})
    return changes(old, new, config["model"]["scheduler"])


def test_nothing_has_changed() -> None:
    assert found() == []
    assert found(config=copy.deepcopy(CONFIG)) == []


# name of the change, what it is now, its text, and (impossible, moves_batches, sets_rates)
NONE, BOUND, MOVES, RATES = (
    (False, False, False),
    (True, False, False),
    (False, True, False),
    (False, False, True),
)
SGD = "model.optimizer.init_args"
KINDS: dict[str, tuple[dict[str, Any], str, str, tuple[bool, bool, bool]]] = {
    "batch size": (
        {"data__batch_size": 4}, "data.batch_size", "is 4 and was 8", MOVES,
    ),
    "sampling": (
        {"data__sampling": "balanced"}, "data.sampling", "is 'balanced' and was 'shuffled'", MOVES,
    ),
    "overfitting": (
        {"trainer__overfit_batches": 2}, "trainer.overfit_batches", "is 2 and was 0.0", MOVES,
    ),
    "seed": ({"seed_everything": 7}, "seed_everything", "is 7 and was 0", NONE),
    "monitor": (
        {"monitor": "val/loss"}, "monitor", "is 'val/loss' and was 'val/accuracy'", NONE,
    ),
    "augmentation": (
        {"data__augment": []}, "data.augment",
        "is [] and was [{'class_path': 'albumentations.HorizontalFlip'}]", NONE,
    ),
    "picture size": ({"data__image_size": 48}, "data.image_size", "is 48 and was 32", NONE),
    "smoothing": (
        {"model__label_smoothing": 0.1}, "model.label_smoothing", "is 0.1 and was 0.0", NONE,
    ),
    "rate": ({"model__optimizer__init_args__lr": 0.5}, f"{SGD}.lr", "is 0.5 and was 0.1", RATES),
    "momentum": (
        {"model__optimizer__init_args__momentum": 0.0}, f"{SGD}.momentum", "is 0.0 and was 0.9",
        RATES,
    ),
    "accumulation": (
        {"trainer__accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches",
        "is 2 and was 1", NONE,
    ),
    "clipping": (
        {"trainer__gradient_clip_val": 1.0}, "trainer.gradient_clip_val", "is 1.0 and was None",
        NONE,
    ),
    "precision": (
        {"trainer__precision": "bf16-mixed"}, "trainer.precision",
        "is 'bf16-mixed' and was '32-true'", NONE,
    ),
    "callbacks": (
        {"trainer__callbacks": ["x"]}, "trainer.callbacks", "is ['x'] and was None", NONE,
    ),
    "interval of validation": (
        {"trainer__val_check_interval": 2}, "trainer.val_check_interval", "is 2 and was None", NONE,
    ),
    "limit": (
        {"trainer__limit_train_batches": 2}, "trainer.limit_train_batches", "is 2 and was None",
        NONE,
    ),
    "network": (
        {"model__net__class_path": "src.models.SeedCNN"}, "model.net.class_path",
        "is 'src.models.SeedCNN' and was 'src.models.SmallResNet'", BOUND,
    ),
    "width of the network": (
        {"model__net__init_args__widths": [4, 16]}, "model.net.init_args.widths",
        "is [4, 16] and was [4, 8]", BOUND,
    ),
    "layer rates": (
        {"model__layer_decay": 0.5}, "model.layer_decay", "is 0.5 and was 1.0", BOUND,
    ),
    "class weights": (
        {"model__class_weights": [1.0, 2.0]}, "model.class_weights",
        "is [1.0, 2.0] and was None", NONE,
    ),
    "classes": ({"model__num_classes": 3}, "model.num_classes", "is 3 and was 2", BOUND),
    "optimizer": (
        {"model__optimizer__class_path": "torch.optim.AdamW"}, "model.optimizer.class_path",
        "is 'torch.optim.AdamW' and was 'torch.optim.SGD'", (True, False, True),
    ),
    "plugins": ({"trainer__plugins": ["x"]}, "trainer.plugins", "is ['x'] and was None", NONE),
    "exact algorithms": (
        {"trainer__deterministic": True}, "trainer.deterministic", "is True and was None", NONE,
    ),
    "timed algorithms": (
        {"trainer__benchmark": True}, "trainer.benchmark", "is True and was None", NONE,
    ),
    "a schedule": (
        {"model__scheduler": STEP_LR}, "model.scheduler.class_path",
        "is 'torch.optim.lr_scheduler.StepLR' and was None", BOUND,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_change(kind: str) -> None:
    values, name, text, what = KINDS[kind]
    (change,) = found(config=with_(**values))
    assert (change.name, change.text) == (name, f"{name} {text}")
    assert (change.impossible, change.moves_batches, change.sets_rates) == what


def test_the_changes_are_listed_one_by_one() -> None:
    config = with_(seed_everything=1, data__batch_size=4, model__num_classes=3)
    names = [change.name for change in found(config=config, device="cuda")]
    assert names == ["seed_everything", "model.num_classes", "data.batch_size", "device"]


@pytest.mark.parametrize(
    ("argument", "value", "told"),
    [
        ("widths", [64, 128, 256], []),  # what it had where it was not named
        ("dropout", 0.0, []),
        ("dropout", 0.5, ["model.net.init_args.dropout is 0.5 and was None"]),
        ("widths", [64, 128], ["model.net.init_args.widths is [64, 128] and was None"]),
    ],
)
def test_an_argument_that_was_not_named(argument: str, value: Any, told: list[str]) -> None:
    stored = with_(model__net__init_args={"stem_width": 8})
    config = with_(model__net__init_args={"stem_width": 8, argument: value})
    assert [change.text for change in found(stored, config)] == told


@pytest.mark.parametrize(
    "values",
    [
        {"data__num_workers": 0},
        {"data__root": "elsewhere"},
        {"data__source": {"class_path": "src.data.sources.Download"}},
        {"data__on_bad_image": "skip"},
        {"data__on_leak": "error"},
        {"trainer__logger": False},
        {"trainer__devices": 4},
        {"trainer__accelerator": "auto"},
        {"trainer__enable_progress_bar": False},
        {"trainer__max_epochs": 9},
        {"progress": "off"},
        {"stop_on_nonfinite": False},
        {"checkpoint_every_steps": 5},
        {"trainer__precision": "32-true"},
        {"trainer__precision": 32},
    ],
    ids=str,
)
def test_what_is_free(values: dict[str, Any]) -> None:
    assert found(config=with_(**values)) == []
    assert found(with_(**values), CONFIG) == []


class TestLength:
    @pytest.mark.parametrize("schedule", [None, STEP_LR, FIXED], ids=["none", "StepLR", "fixed"])
    @pytest.mark.parametrize("length", [{"trainer__max_epochs": 9}, {"trainer__max_steps": 9}])
    def test_is_free_where_no_schedule_depends_on_it(
        self, schedule: Any, length: dict[str, Any]
    ) -> None:
        stored = with_(model__scheduler=schedule)
        assert found(stored, with_(model__scheduler=schedule, **length)) == []

    @pytest.mark.parametrize(
        ("name", "new", "old"), [("max_epochs", 9, 3), ("max_epochs", 2, 3), ("max_steps", 70, -1)]
    )
    def test_is_a_change_where_one_does(self, name: str, new: int, old: int) -> None:
        stored = with_(model__scheduler=ONE_CYCLE)
        (change,) = found(stored, with_(model__scheduler=ONE_CYCLE, **{f"trainer__{name}": new}))
        assert change.name == f"trainer.{name}"
        assert change.text == (
            f"trainer.{name} is {new} and was {old}, and src.schedules.OneCycle depends on the "
            "number of steps"
        )
        assert not (change.impossible or change.moves_batches or change.sets_rates)

    def test_is_a_change_where_a_callback_spans_it(self) -> None:
        growing = [{"class_path": "callbacks.ProgressiveSize", "init_args": {"start": 96}}]
        stored = with_(model__scheduler=None, trainer__callbacks=growing)
        config = with_(model__scheduler=None, trainer__callbacks=growing, trainer__max_epochs=9)
        (change,) = found(stored, config)
        assert change.text.endswith("and callbacks.ProgressiveSize depends on the number of steps")

    def test_a_number_of_steps_that_is_left_open_depends_on_it(self) -> None:
        """The parser stores an argument that was not given as None."""
        stored = with_(model__scheduler=OPEN)
        config = with_(model__scheduler=OPEN, trainer__max_epochs=9)
        assert [change.name for change in found(stored, config)] == ["trainer.max_epochs"]

    def test_is_none_where_it_stays(self) -> None:
        config = with_(model__scheduler=ONE_CYCLE)
        assert found(config, copy.deepcopy(config)) == []


class TestFacts:
    def test_the_number_of_processes(self) -> None:
        (change,) = found(processes=3)
        assert (change.name, change.text) == ("processes", "processes is 3 and was 1")
        assert change.moves_batches

    def test_the_device(self) -> None:
        (change,) = found(device="cuda")
        assert (change.name, change.text) == ("device", "device is 'cuda' and was 'cpu'")
        assert not change.moves_batches

    def test_shares_in_the_place_of_copies(self) -> None:
        (change,) = found(strategy="FSDP")
        assert change.text == "strategy is 'FSDP' and was None"
        assert not (change.impossible or change.moves_batches)

    def test_the_pictures(self) -> None:
        (change,) = found(data="b" * 64)
        assert (change.name, change.moves_batches) == ("data", True)
        assert change.text == (
            "the data have changed (fingerprint bbbbbbbbbbbb, then aaaaaaaaaaaa)"
        )

    def test_a_checkpoint_that_does_not_say_is_no_change(self) -> None:
        now = {**FACTS, "processes": 3, "device": "cuda", "data": "b" * 64}
        assert changes({}, made_with(CONFIG, now), None) == []


def test_a_change_of_class_is_told_once() -> None:
    """Its arguments follow from it."""
    config = with_(model__optimizer={"class_path": "x.Adam", "init_args": {"lr": 1, "eps": 2}})
    assert [change.name for change in found(config=config)] == ["model.optimizer.class_path"]
    without = with_(model__scheduler=STEP_LR)
    assert [change.name for change in found(without)] == ["model.scheduler.class_path"]


class TestAnOptionThatDidNotExist:
    """The run began under an older version."""

    @pytest.mark.parametrize(
        "name",
        ["data.batch_size", "model.label_smoothing", "trainer.gradient_clip_val", "monitor",
         "seed_everything"],
    )  # fmt: skip
    def test_is_no_change(self, name: str) -> None:
        old = made_with(CONFIG, FACTS)
        del old[name]
        assert changes(old, made_with(CONFIG, FACTS), None) == []

    def test_a_part_of_it_is_none_either(self) -> None:
        """`model.scheduler.class_path` belongs to `model.scheduler`, which was not there."""
        old = made_with(CONFIG, FACTS)
        del old["model.scheduler"]
        new = made_with(with_(model__scheduler=STEP_LR), FACTS)
        assert changes(old, new, STEP_LR) == []

    def test_one_that_exists_no_more_is_a_change(self) -> None:
        stored = with_(data__flips=3)
        (change,) = found(stored)
        assert change.text == "data.flips is None and was 3"

    def test_an_argument_of_a_class_is_one(self) -> None:
        """`model.net.init_args` was there; that a class has got another argument is a change."""
        config = with_(model__net__init_args__widths=[4, 8])
        config["model"]["net"]["init_args"]["dropout"] = 0.5
        (change,) = found(config=config)
        assert (change.name, change.impossible) == ("model.net.init_args.dropout", True)
