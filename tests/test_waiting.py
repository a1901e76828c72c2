"""A training step never waits for its device, and copies its pictures once."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils._python_dispatch import TorchDispatchMode

from src.cases import Case
from src.loop import nonfinite
from src.measure import Bench
from src.models import SmallResNet
from tests.cli.conftest import make_pictures

# Operators whose result decides what the program does next, so that it waits for the device.
WAITING = {"aten._local_scalar_dense", "aten.nonzero", "aten._unique2", "aten.masked_select"}
FIRST, LAST = 2, 11


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func).rpartition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    """Counts from the start of batch FIRST to the end of batch LAST."""

    def __init__(self) -> None:
        self.operators = Operators()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == FIRST:
            self.operators.__enter__()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == LAST + 1:
            self.operators.__exit__(None, None, None)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count the operators of ten steps of `trainer.fit`, inside one epoch."""

    def run(waits: bool) -> Counter[str]:
        monkeypatch.setattr(nonfinite, "_waits", lambda loss: waits)
        root = make_pictures(tmp_path / "pictures", {"train": 26, "val": 2})
        bench = Bench(Case("SmallResNet", 32, 4, SmallResNet), root, steps=12)
        watch = Watch()
        trainer = bench.trainer(tmp_path, watch, max_steps=12, max_epochs=-1)
        trainer.loggers = [CSVLogger(tmp_path / "log")]
        trainer.fit(bench.classifier(), datamodule=bench.data)
        return watch.operators.counts

    return run


@pytest.mark.filterwarnings("ignore:The 'train_dataloader':UserWarning")
def test_no_step_waits_for_a_device_that_is_waited_for(counted: Any) -> None:
    counts = counted(waits=True)
    assert counts["aten.convolution"] > 0
    assert not {name: n for name, n in counts.items() if name in WAITING}
    assert counts["aten._to_copy"] == 10  # uint8 to float, once a batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_step_waits_for_the_gpu(tmp_path: Path) -> None:
    """torch raises an error for every call that would."""

    class Forbid(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == FIRST:
                torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == LAST:
                torch.cuda.set_sync_debug_mode("default")

    root = make_pictures(tmp_path / "pictures", {"train": 26, "val": 2})
    bench = Bench(Case("SmallResNet", 32, 4, SmallResNet), root, steps=12)
    trainer = bench.trainer(tmp_path, Forbid(), max_steps=12, max_epochs=-1)
    try:
        trainer.fit(bench.classifier(), datamodule=bench.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.global_step == 12


def test_the_count_sees_a_look(counted: Any) -> None:
    """Without waiting, on the CPU, every loss is looked at: the count above can fail."""
    assert counted(waits=False)["aten._local_scalar_dense"] == 10
