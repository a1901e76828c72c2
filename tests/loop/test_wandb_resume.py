"""A run that goes on in wandb: the step axis never goes back, no row of metrics.csv is missing."""

from pathlib import Path
from typing import Any

import pytest
import wandb

from src.loop.wandb_logger import WandbLogger
from src.rows import COLUMNS

AXIS = "trainer/global_step"


class Server:
    """Stands in for wandb.init, and keeps what the server would have: rows in their order."""

    def __init__(self, online: bool) -> None:
        self.online, self.rows = online, list[dict[str, Any]]()

    def __call__(self, **_: Any) -> "Server":
        self.resumed = self.online and bool(self.rows)
        return self

    @property
    def summary(self) -> dict[str, Any]:
        return {name: value for row in self.rows for name, value in row.items()}

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self, **_: Any) -> None:
        pass

    @property
    def steps(self) -> list[int]:
        return [row[AXIS] for row in self.rows]


@pytest.fixture(params=[True, False], ids=["online", "offline"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(request.param)
    monkeypatch.setattr(wandb, "init", server)
    monkeypatch.setattr(wandb, "run", None)
    return server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wandb").mkdir()
    return tmp_path


def sitting(folder: Path, steps: range, loss: float = 1.0) -> None:
    logger = WandbLogger(save_dir=str(folder), id="abc")
    for step in steps:
        logger.log_metrics({"val/loss": loss}, step)
    logger.finalize("success")


def write_rows(folder: Path, losses: dict[int, float]) -> None:
    rows = [{"epoch": 0, "step": step, "val/loss": loss} for step, loss in losses.items()]
    lines = [",".join(COLUMNS)] + [
        ",".join(str(row.get(name, "")) for name in COLUMNS) for row in rows
    ]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_what_was_logged_after_the_checkpoint_is_not_logged_again(
    server: Server, folder: Path
) -> None:
    sitting(folder, range(0, 8))
    sitting(folder, range(5, 10))  # the checkpoint was written after step 5
    assert server.steps == list(range(10))


def test_two_rows_of_one_step_are_both_logged(server: Server, folder: Path) -> None:
    logger = WandbLogger(save_dir=str(folder), id="abc")
    logger.log_metrics({"train/loss_step": 1.0}, 4)
    logger.log_metrics({"val/loss": 2.0}, 4)
    assert server.steps == [4, 4]


@pytest.mark.parametrize("server", [True], indirect=True)
class TestRowsThatTheServerNeverGot:
    def test_are_sent(self, server: Server, folder: Path) -> None:
        sitting(folder, range(4, 5), loss=0.5)  # the row of step 5; Lightning counts from 0
        write_rows(folder, {5: 0.5, 10: 0.25, 15: 0.125})
        sitting(folder, range(19, 20), loss=0.0625)
        assert server.steps == [4, 9, 14, 19]
        assert [row["val/loss"] for row in server.rows] == [0.5, 0.25, 0.125, 0.0625]
        assert server.rows[1]["epoch"] == 0

    def test_and_not_a_second_time_by_the_training(self, server: Server, folder: Path) -> None:
        sitting(folder, range(4, 5), loss=0.5)
        write_rows(folder, {5: 0.5, 10: 0.25})
        sitting(folder, range(7, 12))  # the checkpoint was written before the row of step 10
        assert server.steps == [4, 9, 10, 11]

    def test_one_at_the_very_step_that_it_has(self, server: Server, folder: Path) -> None:
        logger = WandbLogger(save_dir=str(folder), id="abc")
        logger.log_metrics({"train/loss_step": 9.0}, 4)  # the kill came before the scores
        write_rows(folder, {5: 0.5})
        sitting(folder, range(9, 10))
        assert server.steps == [4, 4, 9]
        assert server.rows[1]["val/loss"] == 0.5


@pytest.mark.parametrize("server", [False], indirect=True)
def test_offline_nothing_is_invented(server: Server, folder: Path) -> None:
    """An offline sitting can't know what reached its file; metrics.csv has all rows."""
    sitting(folder, range(0, 3))
    write_rows(folder, {5: 0.5})
    sitting(folder, range(5, 6))
    assert server.steps == [0, 1, 2, 5]


def test_a_disabled_run_leaves_no_folder(tmp_path: Path, server: Server) -> None:
    sitting(tmp_path, range(2))
    assert list(tmp_path.iterdir()) == []
