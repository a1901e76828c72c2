"""What a run folder says while its run trains, whole or not."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from src.run import RunFolder, shown_path
from src.watched import pictures_of, state_of
from tests.watched_run import CONFIG, NOW, draw, mistakes, row, write_metrics, write_run


class TestState:
    def test_of_a_run_under_way(self, tmp_path: Path) -> None:
        folder = write_run(
            tmp_path / "bees",
            row(0, 20, 10, val_accuracy=0.9, val_loss=0.4),
            row(1, 40, 20, val_accuracy=0.95, val_loss=0.3, lr=0.2),
            row(2, 60, 30, val_accuracy=0.95, val_loss=0.31),
        )
        state = state_of(folder, NOW + 4)
        assert (state["name"], state["about"]) == ("bees", "SmallResNet, 2 classes")
        assert (state["status"], state["message"]) == ("running", "The run is training.")
        assert (state["elapsed_seconds"], state["left_seconds"]) == (34, 140 * 0.5 - 4)
        assert state["best"] == {"name": "val/accuracy", "value": 0.95, "epoch": 2}  # lower loss
        assert state["latest"]["val/loss"] == 0.31
        assert state["curves"]["epoch"] == [1, 2, 3]
        assert state["curves"]["val/accuracy"] == [0.9, 0.95, 0.95]
        assert state["curves"]["lr"] == [0.1, 0.2, 0.1]
        assert (state["mistakes"], state["pictures"]) == (None, {})
        json.dumps(state, allow_nan=False)

    def test_the_best_is_what_the_run_monitors(self, tmp_path: Path) -> None:
        rows = [row(0, 20, 10, val_loss=0.3), row(1, 40, 20, val_loss=0.2), row(2, 60, 30)]
        folder = write_run(tmp_path, *rows, monitor="val/loss", monitor_mode=None)
        assert state_of(folder, NOW)["best"] == {"name": "val/loss", "value": 0.2, "epoch": 2}
        folder = write_run(tmp_path, *rows, monitor="train/loss_step", at=NOW + 1)
        assert state_of(folder, NOW)["best"] is None

    def test_a_torn_line_is_left_out(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10))
        for length in range(len(row(1, 40, 20)) + 1):
            write_metrics(tmp_path, row(0, 20, 10), row(1, 40, 20)[:length], end="")
            assert state_of(folder, NOW)["curves"]["epoch"] == [1]

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xfe\x00", b"epoch,step\n1,2\n", b"\n\n\n", b'"\n', b"\x00" * 99]
    )
    def test_what_is_no_table_breaks_nothing(self, content: bytes, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10))
        folder.metrics.write_bytes(content)
        os.utime(folder.metrics, (NOW, NOW))
        state = state_of(folder, NOW)
        assert (state["status"], state["latest"], state["epoch"]) == ("running", None, 0)

    def test_scores_that_are_no_numbers(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10, val_loss="nan", val_accuracy="inf", lr=""))
        state = state_of(folder, NOW)
        assert state["curves"]["val/loss"] == state["curves"]["lr"] == [None]
        assert (state["best"], state["latest"]["val/accuracy"]) == (None, None)
        json.dumps(state, allow_nan=False)
        write_metrics(tmp_path, row(-1, 20, 10), row(0, 20, "x"), row(0, 1e308, 9), row(1, 40, 20))
        assert state_of(folder, NOW)["curves"]["epoch"] == [2]
        write_metrics(tmp_path, row(0, 1e308, 10))
        json.dumps(state_of(folder, NOW), allow_nan=False)

    def test_very_long_curves_are_thinned_out(self, tmp_path: Path) -> None:
        rows = [row(n, n + 1, n, lr=n) for n in range(1001)]
        curves = state_of(write_run(tmp_path, *rows), NOW)["curves"]
        assert curves["epoch"] == [*range(2, 1002, 3)]  # every third, and the latest
        assert (len(curves["lr"]), curves["lr"][-1]) == (334, 1000)

    def test_curves_over_a_first_epoch_of_unknown_length(self, tmp_path: Path) -> None:
        trainer = {**CONFIG["trainer"], "val_check_interval": 5}
        folder = write_run(tmp_path, row(0, 5, 5), row(0, 10, 10), trainer=trainer)
        assert state_of(folder, NOW)["curves"]["epoch"] == [0.5, 1]
        trainer["val_check_interval"] = 0.25
        folder = write_run(tmp_path, row(0, 5, 5), row(0, 10, 10), trainer=trainer, at=NOW + 1)
        assert state_of(folder, NOW)["curves"]["epoch"] == [0.25, 0.5]

    def test_before_there_is_a_run(self, tmp_path: Path) -> None:
        state = state_of(RunFolder(tmp_path / "later"), NOW)
        assert (state["status"], state["name"], state["left_seconds"]) == ("waiting", "later", None)
        assert state["message"].startswith("There is no such folder yet")
        assert state_of(RunFolder(tmp_path), NOW)["message"].startswith("The folder holds no run")

    def test_a_folder_that_goes_while_it_is_watched(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path / "run", row(0, 20, 10))
        draw(folder.path, "worst-epoch-1.png")
        mistakes(folder.path)
        assert state_of(folder, NOW)["status"] == "running"
        shutil.rmtree(folder.path)
        state = state_of(folder, NOW)
        assert (state["status"], state["latest"], state["pictures"]) == ("waiting", None, {})
        folder.path.write_text("a file in its place")
        assert state_of(folder, NOW) == state

    def test_before_the_first_validation(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path)
        state = state_of(folder, NOW + 60)
        assert (state["status"], state["elapsed_seconds"]) == ("running", 60)
        assert state["message"] == "The first epoch has no scores yet."
        folder.metrics.unlink()
        assert state_of(folder, NOW + 60)["elapsed_seconds"] == 0
        assert state_of(folder, NOW + 1000)["status"] == "quiet"

    def test_no_news(self, tmp_path: Path) -> None:
        # A validation each 100 s; four times as long is too long.
        folder = write_run(tmp_path, row(0, 20, 900), row(1, 40, 1000), row(2, 60, 1100))
        assert state_of(folder, NOW + 400)["status"] == "running"
        state = state_of(folder, NOW + 401)
        assert (state["status"], state["elapsed_seconds"]) == ("quiet", 1100)
        assert state["message"].startswith("No news for 7 min: it has ended early")
        folder.checkpoints.mkdir()
        folder.last.write_text("a checkpoint inside the epoch")
        os.utime(folder.last, (NOW + 300, NOW + 300))
        assert state_of(folder, NOW + 401)["status"] == "running"

    def test_fast_epochs_have_two_minutes(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 1), row(1, 40, 2))
        assert state_of(folder, NOW + 119)["status"] == "running"
        assert state_of(folder, NOW + 121)["status"] == "quiet"

    def test_a_finished_run_and_one_that_goes_on(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10), row(1, 40, 20))
        folder.summary.write_text(json.dumps({"final": {"step": 40}}))
        os.utime(folder.summary, (NOW + 1, NOW + 1))
        for later in (2, 1e6):
            state = state_of(folder, NOW + later)
            assert (state["status"], state["elapsed_seconds"]) == ("finished", 20)
        # It goes on: the table is written anew before the first step of that sitting.
        write_metrics(tmp_path, row(0, 20, 10), row(1, 40, 20), at=NOW + 50)
        assert state_of(folder, NOW + 51)["status"] == "running"
        write_metrics(tmp_path, row(0, 20, 10), row(1, 40, 20), row(2, 60, 30), at=NOW + 60)
        assert state_of(folder, NOW + 61)["status"] == "running"
        assert state_of(folder, NOW + 1e6)["status"] == "quiet"

    @pytest.mark.parametrize("content", ["", "[]", '{"final": 3}', "{"])
    def test_a_summary_that_is_none(self, content: str, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10))
        folder.summary.write_text(content)
        assert state_of(folder, NOW)["status"] == "running"

    @pytest.mark.parametrize("content", ["", "- a", "trainer: 3\nmodel: []", "a: [", "\x00"])
    def test_a_config_that_is_none(self, content: str, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10))
        folder.config.write_text(content)
        state = state_of(folder, NOW)
        assert (state["about"], state["epochs"], state["left_seconds"]) == ("", None, None)

    def test_the_config_of_the_latest_sitting(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path, row(0, 20, 10))
        more = {**CONFIG, "trainer": {"max_epochs": 15}}
        folder.next_config.write_text(yaml.safe_dump(more))
        assert state_of(folder, NOW)["epochs"] == 15


class TestPictures:
    def test_the_newest_of_each_kind(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path)
        draw(tmp_path, "confusion-epoch-9.png")  # before the run was cut back to epoch 2
        draw(tmp_path, "confusion-epoch-2.png", at=NOW + 5)
        draw(tmp_path, "train-epoch-1.png")
        found = state_of(folder, NOW)["pictures"]
        assert {kind: one["name"] for kind, one in found.items()} == {
            "confusion": "confusion-epoch-2.png", "train": "train-epoch-1.png",
        }  # fmt: skip
        version = found["confusion"]["version"]
        draw(tmp_path, "confusion-epoch-2.png", at=NOW + 6)
        assert state_of(folder, NOW)["pictures"]["confusion"]["version"] != version

    def test_files_of_other_names_and_links_are_none(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path)
        draw(tmp_path, "train-epoch-1.png")
        for name in ("secret.png", "train-epoch-1.png.tmp", "train-epoch-x.png", ".png"):
            (folder.pictures / name).write_text("x")
        (tmp_path / "outside.png").write_text("x")
        (folder.pictures / "train-epoch-2.png").symlink_to(tmp_path / "outside.png")
        assert list(pictures_of(folder)) == ["train-epoch-1.png"]

    def test_mistakes(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path)
        mistakes(tmp_path)
        assert state_of(folder, NOW)["mistakes"] == {
            "epoch": 2, "pictures": 40, "mistakes": 1, "sheet": "worst-epoch-2.png",
            "worst": [
                {"path": "val/bee/1.png", "label": "bee", "predicted": "wasp", "probability": 0.984}
            ],
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("path", "shown"),
        [
            ("val/bee/1.png", "val/bee/1.png"),
            ("/home/someone/bees/1.png", "1.png"),
            ("C:/Users/someone/1.png", "1.png"),
            ("C:\\Users\\someone\\1.png", "1.png"),
        ],
    )
    def test_no_path_of_the_machine_is_shown(self, path: str, shown: str) -> None:
        assert shown_path(path) == shown

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"worst": 3}', "{", '{"epoch": Infinity}', '"text"']
    )
    def test_a_list_that_is_none(self, content: str, tmp_path: Path) -> None:
        folder = write_run(tmp_path)
        folder.tables.mkdir()
        (folder.tables / "worst.json").write_text(content)
        assert state_of(folder, NOW)["mistakes"] is None
