"""crash.ckpt: written at an error, never at a signal, and never instead of last.ckpt."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD

from src import checkpoint
from src.classifier import Classifier
from src.errors import RunFailureError, StoppedRun, UserError
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.loop.checkpoints import Checkpoints
from src.loop.crash import CrashCheckpoint
from tests.loop.helpers import KilledError, StubTrainer, make_data, make_trainer, small


class Fails(Callback):
    """Raises an error before a batch of the second epoch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 2):
            raise self.error


@pytest.fixture
def crashed(root: Path, tmp_path: Path) -> tuple[Path, Classifier]:
    """A run of four steps an epoch that failed after its sixth."""
    torch.manual_seed(0)
    model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.01, momentum=0.9))
    trainer = make_trainer(
        tmp_path, Fails(ZeroDivisionError("no wings")), CrashCheckpoint(tmp_path, "abc"),
        Checkpoints(tmp_path, run_id="abc"), max_epochs=3, enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, datamodule=make_data(root))
    return tmp_path, model


def test_holds_weights_momentum_and_the_error(crashed: tuple[Path, Classifier]) -> None:
    folder, model = crashed
    found = checkpoint.read_checkpoint(folder / "crash.ckpt")
    assert found["error"] == "ZeroDivisionError: no wings"
    assert (found["global_step"], found["epoch"]) == (6, 1)
    assert (found["run_id"], found["written_as"]) == ("abc", "crash")
    assert found["preprocessing"]["classes"] == ["ant", "bug"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(found["state_dict"][name], tensor), name
    states = found["optimizer_states"][0]["state"].values()
    assert all(state["momentum_buffer"].abs().sum() > 0 for state in states)


def test_leaves_last_as_it_was(crashed: tuple[Path, Classifier]) -> None:
    folder, _ = crashed
    last = checkpoint.read_checkpoint(folder / "last.ckpt")
    assert (last["global_step"], last["written_as"]) == (4, "last")
    assert not (folder / "previous.ckpt").exists()
    assert sorted(p.name for p in folder.glob("*ckpt*")) == ["best.ckpt", "crash.ckpt", "last.ckpt"]


def test_no_run_goes_on_from_it(crashed: tuple[Path, Classifier]) -> None:
    path = crashed[0] / "crash.ckpt"
    found = checkpoint.read_checkpoint(path)
    with pytest.raises(UserError, match=r"crash\.ckpt holds no state .*--init_from .*crash\.ckpt"):
        checkpoint.check_goes_on(path, found)


class TestWhen:
    def written(
        self, folder: Path, error: BaseException, trained: bool = True, **options: Any
    ) -> bool:
        """Return whether a run that ends with an error leaves a crash.ckpt."""
        trainer = StubTrainer(**options)
        if "strategy" not in options:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()  # type: ignore[attr-defined]
        module: Any = SimpleNamespace(state_dict=dict)
        callback = CrashCheckpoint(folder)
        if trained:
            callback.on_train_batch_end(trainer, module, None, None, 0)
        callback.on_exception(trainer, module, error)  # type: ignore[arg-type]
        assert {path.name for path in folder.iterdir()} <= {"crash.ckpt"}
        return (folder / "crash.ckpt").exists()

    @pytest.mark.parametrize(
        "error", [RunFailureError("nan"), MemoryError(), RuntimeError("x"), OSError(5, "x")]
    )
    def test_at_an_error(
        self, error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.written(tmp_path, error)
        path = tmp_path / "crash.ckpt"
        assert checkpoint.read_checkpoint(path)["error"] == f"{type(error).__name__}: {error}"
        assert capsys.readouterr().err == f"the weights at the error are in {path}\n"

    @pytest.mark.parametrize(
        "end", [KeyboardInterrupt(), StoppedRun(143, "x"), SystemExit(1), KilledError()]
    )
    def test_at_no_signal(self, end: BaseException, tmp_path: Path) -> None:
        assert not self.written(tmp_path, end)

    def test_not_before_the_first_batch(self, tmp_path: Path) -> None:
        assert not self.written(tmp_path, RuntimeError("x"), trained=False)

    def test_by_one_process(self, tmp_path: Path) -> None:
        assert not self.written(tmp_path, RuntimeError("x"), is_global_zero=False)

    def test_not_of_sharded_weights(self, tmp_path: Path) -> None:
        sharded = type("FSDPStrategy", (), {"checkpoint_io": AtomicCheckpointIO()})()
        assert not self.written(tmp_path, RuntimeError("x"), strategy=sharded)

    def test_a_full_disk_hides_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(content: Any, file: Any) -> None:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0")

        monkeypatch.setattr(torch, "save", fail)
        assert not self.written(tmp_path, RuntimeError("x"))
        assert capsys.readouterr().err == ""
