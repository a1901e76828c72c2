"""The average of the weights: its numbers, and what the module and the checkpoints hold when."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from callbacks import EMA
from callbacks.ema import warm_decay
from src.checkpoint import read_checkpoint
from src.errors import RunFailureError, UserError
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.loop.crash import CrashCheckpoint
from src.loop.fsdp import FSDP
from src.loop.nonfinite import NonFiniteGuard

State = dict[str, Tensor]


class One(LightningModule):
    """A module with one weight, called `x`."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([value]))


class Normed(LightningModule):
    """BatchNorm, and a mask of infinite numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)


def stub(step: int = 0, fn: str = "fit", strategy: Any = None) -> Any:
    return SimpleNamespace(
        global_step=step, state=SimpleNamespace(fn=fn), strategy=strategy, callbacks=[]
    )


def started(module: LightningModule, **options: Any) -> EMA:
    """Return the callback at the start of a fit."""
    ema = EMA(**options)
    ema.setup(stub(), module, "fit")
    ema.on_fit_start(stub(), module)
    return ema


def train(ema: EMA, module: One, values: list[float], first: int = 1) -> None:
    """Take optimizer steps that end in these weights."""
    for step, value in enumerate(values, first):
        module.x.data.fill_(value)
        ema.on_train_batch_end(stub(step), module, None, None, 0)


def saved(ema: EMA, module: LightningModule) -> dict[str, Any]:
    """Return what a checkpoint of this moment holds, apart from the module's memory."""
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    ema.on_save_checkpoint(stub(), module, content)
    content["callbacks"] = ema.state_dict()
    return {
        part: {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
        for part, state in content.items()
    }


def validate(ema: EMA, module: LightningModule, inside: Any = lambda: None) -> None:
    ema.on_validation_epoch_start(stub(), module)
    inside()
    ema.on_validation_epoch_end(stub(), module)


class TestNumbers:
    def test_four_updates_by_hand(self) -> None:
        module = One()
        ema = started(module)
        found = []
        for step in range(1, 5):
            train(ema, module, [float(step)], step)
            found.append(saved(ema, module)["state_dict"]["x"].item())
        # decays of 1/10, 2/11, 3/12 and 4/13
        assert found == pytest.approx([0.9, (2 * 0.9 + 9 * 2) / 11, 0.25 * 1.8 + 0.75 * 3, 3.6])

    def test_the_decay_of_the_config_is_the_most(self) -> None:
        module = One()
        ema = started(module, decay=0.2)
        train(ema, module, [1.0, 2.0, 3.0, 4.0])
        # 1/10, 2/11, then 0.2: 0.2 * 1.8 + 0.8 * 3 = 2.76
        assert saved(ema, module)["state_dict"]["x"].item() == pytest.approx(0.2 * 2.76 + 0.8 * 4)

    def test_every_other_step(self) -> None:
        module = One()
        ema = started(module, every_n_steps=2)
        train(ema, module, [7.0, 2.0, 7.0, 4.0, 7.0])
        # 0.9 of 2, then 2/11 of that and 9/11 of 4
        assert saved(ema, module)["state_dict"]["x"].item() == pytest.approx((2 * 1.8 + 9 * 4) / 11)
        assert ema.state_dict() == {
            "latest_update_step": 4, "latest_update_epoch": -1, "updates": 2,
        }  # fmt: skip

    def test_a_batch_without_a_step_is_none(self) -> None:
        module = One()
        ema = started(module)
        train(ema, module, [1.0])
        train(ema, module, [50.0], first=1)  # gradients are accumulated
        assert saved(ema, module)["state_dict"]["x"].item() == pytest.approx(0.9)

    def test_without_decay_it_is_the_weights_to_the_bit(self) -> None:
        module = One(0.1)
        ema = started(module, decay=0.0)
        train(ema, module, [0.3, 1e-30, 1 / 3])
        assert torch.equal(saved(ema, module)["state_dict"]["x"], module.x.detach())

    def test_buffers(self) -> None:
        module = Normed()
        ema = started(module)
        module.norm.running_mean.fill_(5.0)
        module.norm.num_batches_tracked.fill_(9)
        ema.on_train_batch_end(stub(1), module, None, None, 0)
        content = saved(ema, module)
        found = content["state_dict"]
        assert found["norm.running_mean"].item() == pytest.approx(4.5)
        assert found["norm.running_var"].item() == 1.0
        assert (found["norm.num_batches_tracked"].dtype, found["norm.num_batches_tracked"]) == (
            torch.int64, 9,
        )  # fmt: skip
        assert found["mask"].tolist() == [-torch.inf, 0.0]  # a mean of two infinities is no number
        assert list(found) == list(module.state_dict()) == list(content["current_model_state"])
        assert content["averaging_state"] == {"n_averaged": 1}

    def test_half_precision_does_not_swallow_small_updates(self) -> None:
        module = One(1.0).bfloat16()
        ema = started(module, decay=0.998)
        ema.updates = 10**6
        train(ema, module, [1.0078125] * 3)  # the next number after 1
        found = saved(ema, module)["state_dict"]["x"]
        assert found.item() == pytest.approx(1 + 0.0078125 * (1 - 0.998**3), abs=1e-7)
        validate(ema, module)
        assert module.x.item() == 1.0078125

    def test_nothing_waits_for_the_device(self) -> None:
        module = One().to("meta")  # which has no numbers that could be read
        ema = started(module)
        ema.on_train_batch_end(stub(1), module, None, None, 0)
        assert ema.updates == 1

    @given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
    def test_the_decay_rises_to_its_end(self, updates: int, decay: float) -> None:
        now, later = (warm_decay(updates + more, decay) for more in (0, 1))
        assert 0 <= now <= later <= decay
        assert warm_decay(10**12, decay) == pytest.approx(decay)


class TestSwaps:
    def test_a_validation_works_with_the_average_and_leaves_no_trace(self) -> None:
        module = One()
        ema = started(module)
        train(ema, module, [1 / 3, 2 / 3])
        before = saved(ema, module)
        seen: list[float] = []

        def inside() -> None:
            seen.append(module.x.item())
            module.x.data.fill_(99.0)  # as DDP sends buffers round

        validate(ema, module, inside)
        assert seen == [before["state_dict"]["x"].item()]
        assert same(saved(ema, module), before)
        assert torch.equal(module.x.detach(), torch.tensor([2 / 3]))

    def test_a_file_written_in_a_validation_is_the_one_written_before_it(self) -> None:
        module = One()
        ema = started(module)
        train(ema, module, [1 / 3, 2 / 3])
        before, inside = saved(ema, module), []
        validate(ema, module, lambda: inside.append(saved(ema, module)))
        assert same(inside[0], before)
        assert not torch.equal(before["state_dict"]["x"], before["current_model_state"]["x"])
        assert same(saved(ema, module), before)

    def test_after_the_training_the_module_holds_the_average(self) -> None:
        module = One()
        ema = started(module)
        train(ema, module, [1 / 3, 2 / 3])
        before = saved(ema, module)
        ema.on_train_end(stub(), module)
        assert torch.equal(module.x.detach(), before["state_dict"]["x"])
        assert same(saved(ema, module), before)
        ema.on_validation_epoch_start(stub(fn="validate"), module)
        ema.on_validation_epoch_end(stub(fn="validate"), module)
        assert torch.equal(module.x.detach(), before["state_dict"]["x"])

    def test_crash_ckpt_holds_both(self, tmp_path: Path) -> None:
        module = One()
        ema = started(module)
        train(ema, module, [1 / 3, 2 / 3])
        before = saved(ema, module)
        trainer = stub(2, strategy=SimpleNamespace(checkpoint_io=AtomicCheckpointIO()))
        trainer.callbacks, trainer.optimizers = [Callback(), ema], []
        trainer.current_epoch, trainer.is_global_zero = 0, True
        crash = CrashCheckpoint(tmp_path)
        crash.on_train_batch_end()
        validate(ema, module, lambda: crash.on_exception(trainer, module, ValueError("no wings")))
        found = read_checkpoint(tmp_path / "crash.ckpt")
        parts = ("state_dict", "current_model_state", "averaging_state")
        assert same({part: found[part] for part in parts}, {part: before[part] for part in parts})


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two contents are equal to the bit."""
    return one.keys() == other.keys() and all(
        one[part].keys() == other[part].keys()
        and all(torch.equal(torch.as_tensor(v), torch.as_tensor(other[part][k]))
                for k, v in one[part].items())
        for part in one
    )  # fmt: skip


class TestResume:
    @pytest.mark.parametrize("stop", [1, 2, 3])
    @pytest.mark.parametrize("in_validation", [False, True])
    def test_a_resumed_average_is_the_whole_one(self, stop: int, in_validation: bool) -> None:
        values = [0.3, 0.7, 0.1, 0.9]
        module = One(0.2)
        whole = started(module, every_n_steps=2)
        train(whole, module, values)
        expected = saved(whole, module)

        module = One(0.2)
        first = started(module, every_n_steps=2)
        train(first, module, values[:stop])
        files: list[dict[str, Any]] = []
        if in_validation:
            validate(first, module, lambda: files.append(saved(first, module)))
        else:
            files.append(saved(first, module))

        module, second = One(5.0), EMA(every_n_steps=2)
        second.setup(stub(), module, "fit")
        module.load_state_dict(files[0]["state_dict"])  # as Lightning does before it asks us
        second.on_load_checkpoint(stub(), module, files[0])
        second.load_state_dict(files[0]["callbacks"])
        second.on_fit_start(stub(), module)
        assert same(saved(second, module), files[0])
        train(second, module, values[stop:], first=stop + 1)
        assert same(saved(second, module), expected)

    def test_a_file_without_an_average_starts_one(self) -> None:
        module, ema = One(3.0), EMA()
        ema.setup(stub(), module, "fit")
        ema.on_load_checkpoint(stub(), module, {"state_dict": module.state_dict()})
        ema.on_fit_start(stub(), module)
        assert saved(ema, module)["state_dict"]["x"].item() == 3.0

    def test_outside_of_a_fit_it_does_nothing(self, recwarn: pytest.WarningsRecorder) -> None:
        module, ema = One(3.0), EMA()
        ema.setup(stub(fn="test"), module, "test")
        content = {"state_dict": {}, "current_model_state": {"x": torch.ones(1)}}
        ema.on_load_checkpoint(stub(fn="test"), module, content)
        ema.on_validation_epoch_start(stub(fn="validate"), module)
        ema.on_validation_epoch_end(stub(fn="validate"), module)
        ema.on_save_checkpoint(stub(fn="test"), module, content)
        assert module.x.item() == 3.0
        assert set(content) == {"state_dict", "current_model_state"}
        assert not recwarn.list

    def test_the_next_fit_starts_anew(self) -> None:
        module = One()
        ema = started(module)
        train(ema, module, [1.0])
        ema.on_validation_epoch_start(stub(), module)  # broken off in a validation
        other = One(4.0)
        ema.setup(stub(), other, "fit")
        ema.on_fit_start(stub(), other)
        assert same(saved(ema, other), saved(started(other), other))


class TestErrors:
    @pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
    def test_decay(self, decay: float) -> None:
        with pytest.raises(UserError, match=rf"decay of callbacks\.EMA is {decay}; allowed is 0"):
            EMA(decay)

    def test_distance(self) -> None:
        with pytest.raises(UserError, match=r"every_n_steps of callbacks\.EMA is 0"):
            EMA(every_n_steps=0)

    def test_shares_are_refused_before_the_training(self) -> None:
        with pytest.raises(UserError, match=r"EMA needs the whole weights .*strategy is FSDP"):
            EMA().setup(stub(strategy=FSDP()), One(), "fit")
        EMA().setup(stub(strategy=FSDP()), One(), "test")

    def test_weights_beside_the_average_that_are_no_numbers(self) -> None:
        module = One()
        ema = started(module, every_n_steps=5)
        train(ema, module, [torch.nan])
        trainer = stub(1)
        trainer.current_epoch = 0
        trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda bad, all: bad)
        with pytest.raises(RunFailureError, match="weights are no numbers"):
            NonFiniteGuard().on_save_checkpoint(trainer, module, saved(ema, module))


def test_it_is_lightnings() -> None:
    assert isinstance(EMA(), EMAWeightAveraging)
    assert EMA().state_key == "EMA"
