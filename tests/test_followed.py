"""How far a run is and how long it will take, read off its metrics.csv."""

from pathlib import Path
from typing import Any

import pytest

from src.followed import progress_of, read_scores, steps_per_epoch
from tests.watched_run import CONFIG, row, write_metrics


class TestTimeLeft:
    """Ten epochs of 20 steps are 200 steps."""

    def rows(self, tmp_path: Path, *rows: str) -> Any:
        write_metrics(tmp_path, *rows)
        return read_scores(tmp_path / "metrics.csv")

    def test_by_hand(self, tmp_path: Path) -> None:
        # 20 s for the first epoch with all its beginnings, then 5 s each: 0.25 s a step
        rows = self.rows(tmp_path, row(0, 20, 20), row(1, 40, 25), row(2, 60, 30))
        found = progress_of(rows, CONFIG["trainer"], since=3.0)
        assert found == {
            "epoch": 3, "epochs": 10, "share": 60 / 200, "elapsed_seconds": 33.0,
            "left_seconds": 140 * 0.25 - 3,
        }  # fmt: skip

    def test_goes_by_the_latest_epochs(self, tmp_path: Path) -> None:
        # Two epochs of 500 s, then six of 20 s, a second a step: their rows alone count.
        seconds = [500, 1000, *(1000 + 20 * n for n in range(1, 7))]
        rows = self.rows(tmp_path, *(row(n, 20 * n + 20, s) for n, s in enumerate(seconds)))
        found = progress_of(rows, CONFIG["trainer"], since=0.0)
        assert found["left_seconds"] == (200 - 160) * 1.0

    def test_one_epoch_is_all_there_is(self, tmp_path: Path) -> None:
        found = progress_of(self.rows(tmp_path, row(0, 20, 10)), CONFIG["trainer"], since=0.0)
        assert found["left_seconds"] == 180 * 0.5

    def test_validations_within_the_first_epoch(self, tmp_path: Path) -> None:
        trainer = {**CONFIG["trainer"], "val_check_interval": 0.25}
        found = progress_of(self.rows(tmp_path, row(0, 5, 10)), trainer, since=0.0)
        assert (found["share"], found["left_seconds"]) == (5 / 200, 195 * 2.0)
        # After a number of batches, nothing tells how long the epoch is before the next begins.
        trainer["val_check_interval"] = 5
        rows = self.rows(tmp_path, row(0, 5, 10), row(0, 10, 20))
        found = progress_of(rows, {**trainer, "max_steps": 300}, since=0.0)
        assert (found["share"], found["left_seconds"]) == (None, None)
        found = progress_of(rows, {**trainer, "max_epochs": None, "max_steps": 300}, since=0.0)
        assert (found["share"], found["left_seconds"]) == (10 / 300, 290 * 2.0)

    @pytest.mark.parametrize(
        ("interval", "ends", "steps"),
        [
            (None, [], None),
            (None, [(0, 20)], 20),
            (1.0, [(0, 7), (0, 20), (1, 40)], 20),  # a stop of the first epoch, gone on with
            (None, [(1, 40), (3, 80)], 20),  # check_val_every_n_epoch 2
            (0.5, [(0, 10), (0, 20), (1, 30)], 20),
            (0.4, [(0, 4)], 10),
            (0.4, [(0, 4), (0, 8), (1, 14)], 10),
            (0.25, [(0, 2), (0, 4), (0, 6), (0, 8), (0, 10)], 10),  # every second of ten batches
            (0.1, [(0, 1), (0, 2), (0, 3), (1, 4)], 3),  # three batches, and one is the least
            (0.25, [(0, 0)], None),  # no step yet, since gradients are accumulated
            (60, [(0, 60)], None),
            (60, [(0, 60), (1, 160)], 100),
            (1, [(0, 1), (0, 2), (1, 3)], 2),
            ("00:10:00:00", [(0, 7)], None),
            ("00:10:00:00", [(0, 7), (1, 30)], 15),  # 15 to 29
            ({"minutes": 10}, [(1, 30), (1, 37)], 18.5),
        ],
    )
    def test_steps_of_an_epoch(
        self, interval: Any, ends: list[tuple[int, int]], steps: float | None, tmp_path: Path
    ) -> None:
        rows = self.rows(tmp_path, *(row(epoch, step, step) for epoch, step in ends))
        assert steps_per_epoch(rows, interval) == steps

    def test_a_limit_of_steps(self, tmp_path: Path) -> None:
        rows = self.rows(tmp_path, row(0, 20, 10), row(1, 40, 20))
        found = progress_of(rows, {"max_epochs": 10, "max_steps": 50}, since=0.0)
        assert (found["left_seconds"], found["share"]) == (10 * 0.5, 40 / 50)
        found = progress_of(rows, {"max_epochs": -1, "max_steps": 50}, since=0.0)
        assert (found["left_seconds"], found["epochs"]) == (10 * 0.5, None)

    def test_later_than_expected_is_not_less_than_nothing(self, tmp_path: Path) -> None:
        rows = self.rows(tmp_path, row(0, 20, 10))
        assert progress_of(rows, CONFIG["trainer"], since=1e6)["left_seconds"] == 0

    @pytest.mark.parametrize("trainer", [{}, {"max_epochs": None}, {"max_epochs": -1}])
    def test_no_end_is_known(self, trainer: dict[str, Any], tmp_path: Path) -> None:
        found = progress_of(self.rows(tmp_path, row(0, 20, 10)), trainer, since=0.0)
        assert (found["share"], found["left_seconds"], found["epoch"]) == (None, None, 1)
