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


class LossOn:
    """A loss on another device."""

    def __init__(self, value: float, device: str) -> None:
        self.value, self.device = value, torch.device(device)

    def detach(self) -> "LossOn":
        return self

    def __float__(self) -> float:
        return self.value


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
        guard, loss = NonFiniteGuard(every_n_steps=4), LossOn(NAN, "cuda")
        for batch_idx in (0, 1, 0):  # the second epoch begins
            self.look(guard, loss, batch_idx)
        with pytest.raises(RunFailureError, match="the loss is nan at step 17"):
            self.look(guard, loss, 1)
        self.look(guard, loss, 2)
