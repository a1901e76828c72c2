"""The guard against losses that are no numbers."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from src.classifier import Classifier
from src.errors import RunFailureError
from src.loop.nonfinite import NonFiniteGuard
from tests.loop.helpers import StubTrainer, make_data, make_trainer, module, small

NAN = math.nan


class FailsAt(nn.Module):
    """A cross entropy that is no number at one of its calls."""

    def __init__(self, call: int, value: float) -> None:
        super().__init__()
        self.calls, self.call, self.value = 0, call, value

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        loss = F.cross_entropy(logits, target)
        return loss * self.value if self.calls == self.call else loss


class OnCuda(torch.Tensor):
    """A loss that says it lies on a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


def on_cuda(value: float) -> torch.Tensor:
    return torch.tensor(value).as_subclass(OnCuda)


def stub_for_guard(count: int = 3, **options: Any) -> StubTrainer:
    index = SimpleNamespace(paths=[f"train/{i}.png" for i in range(20)])
    loader = SimpleNamespace(dataset=SimpleNamespace(index=index))
    return StubTrainer(epoch=2, step=17, train_dataloader=loader, **options)


class TestNonFiniteGuard:
    @pytest.mark.parametrize("value", [NAN, math.inf])
    @pytest.mark.parametrize(("accumulate", "steps"), [(1, 3), (2, 1)])
    def test_names_step_files_and_rate(
        self, root: Path, tmp_path: Path, value: float, accumulate: int, steps: int
    ) -> None:
        torch.manual_seed(0)
        model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.125), loss=FailsAt(3, value))
        data = make_data(root)
        trainer = make_trainer(
            tmp_path, NonFiniteGuard(), max_epochs=1, accumulate_grad_batches=accumulate
        )
        with pytest.raises(RunFailureError) as raised:
            trainer.fit(model, datamodule=data)
        loader = data.train_dataloader()
        loader.position = lambda: (0, 2)
        paths = data.index("fit").subset("train").paths
        files = [paths[i] for i in next(iter(loader))["index"].tolist()]
        assert str(raised.value).startswith(
            f"the loss is {value} at step {steps} (epoch 0, batch 2), learning rate 0.125. "
            f"The batch held: {', '.join(files)}. Lower the learning rate"
        )

    def look(self, guard: NonFiniteGuard, loss: Any, batch_idx: int, rows: int = 3) -> None:
        trainer: Any = stub_for_guard()
        guard.on_before_backward(trainer, module(), loss)
        batch = {"index": torch.arange(rows)}
        guard.on_train_batch_end(trainer, module(), None, batch, batch_idx)

    def test_lets_numbers_pass(self) -> None:
        for batch_idx in range(3):
            self.look(NonFiniteGuard(every_n_steps=1), torch.tensor(1e30), batch_idx)

    def test_names_eight_files_and_counts_the_rest(self) -> None:
        named = ", ".join(f"train/{i}\\.png" for i in range(8))
        with pytest.raises(RunFailureError, match=f"held: {named} and 4 more\\. Lower"):
            self.look(NonFiniteGuard(), torch.tensor(NAN), 0, rows=12)
        with pytest.raises(RunFailureError, match=f"held: {named}\\. Lower"):
            self.look(NonFiniteGuard(), torch.tensor(NAN), 0, rows=8)

    def test_looks_at_another_device_every_n_steps_over_the_epochs(self) -> None:
        guard = NonFiniteGuard(every_n_steps=4)
        for batch_idx in (0, 1, 0):  # the second epoch begins
            self.look(guard, on_cuda(NAN), batch_idx)
        with pytest.raises(
            RunFailureError,
            match=r"one of the 4 latest losses was .* seen at step 17 .*The latest batch held",
        ):
            self.look(guard, on_cuda(NAN), 1)
        self.look(guard, on_cuda(1.0), 2)

    def test_a_loss_between_two_looks_is_not_missed(self) -> None:
        guard = NonFiniteGuard(every_n_steps=3)
        for batch_idx, value in enumerate((1.0, math.inf)):
            self.look(guard, on_cuda(value), batch_idx)
        match = "one of the 3 latest losses was infinite or no number, seen at step 17"
        with pytest.raises(RunFailureError, match=match):
            self.look(guard, on_cuda(1.0), 2)


class TestSaving:
    def save(self, weight: float, others: bool = False, buffer: float = 0.0) -> None:
        layer: Any = nn.BatchNorm1d(1)
        with torch.no_grad():
            layer.weight.fill_(weight)
            layer.running_mean.fill_(buffer)
        trainer: Any = stub_for_guard()
        trainer.strategy.reduce_boolean_decision = lambda bad, all: bad or others
        content = {"state_dict": layer.state_dict()}
        NonFiniteGuard().on_save_checkpoint(trainer, layer, content)

    def test_whole_weights_are_saved(self) -> None:
        self.save(1e30)
        self.save(1.0, buffer=math.inf)  # such as a mask

    @pytest.mark.parametrize("weight", [NAN, -math.inf])
    def test_no_file_is_written_from_weights_that_are_no_numbers(self, weight: float) -> None:
        with pytest.raises(RunFailureError, match=r"after step 17 \(epoch 2\) weights are no n"):
            self.save(weight)

    def test_nor_from_those_of_another_process(self) -> None:
        with pytest.raises(RunFailureError, match="no checkpoint was written"):
            self.save(1.0, others=True)
