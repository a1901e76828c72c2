"""The page that follows a run: what it reads, what it gives away, what it looks like alive."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from src import watch
from src.errors import UserError
from src.followed import progress_of, read_scores, steps_per_epoch
from src.rows import COLUMNS
from src.run import RunFolder
from src.watch import Server, check_folder, main, open_server, parser
from src.watched import pictures_of, shown_path, state_of
from tests.helpers import ROOT, require_module, require_program

NOW = 1_000_000.0  # what the clock of the files says
CONFIG: dict[str, Any] = {
    "monitor": "val/accuracy",
    "monitor_mode": "max",
    "model": {"net": {"class_path": "src.models.SmallResNet"}},
    "data": {"root": "/home/someone/secret", "classes": ["bee", "wasp"]},
    "trainer": {"max_epochs": 10, "max_steps": -1},
}


def row(epoch: int, step: int, seconds: float, **scores: Any) -> str:
    """Return a line of metrics.csv."""
    found: dict[str, Any] = {
        "epoch": epoch, "step": step, "seconds": seconds, "train/loss": 0.5, "val/loss": 0.25,
        "train/accuracy": 0.75, "val/accuracy": 0.875, "lr": 0.1, "images_per_second": 800.0,
    }  # fmt: skip
    found |= {name.replace("_", "/", 1): value for name, value in scores.items()}
    return ",".join(str(found.get(name, "")) for name in COLUMNS)


def write_metrics(folder: Path, *rows: str, at: float = NOW, end: str = "\n") -> None:
    path = folder / "metrics.csv"
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + end)
    os.utime(path, (at, at))


def write_run(folder: Path, *rows: str, at: float = NOW, **config: Any) -> RunFolder:
    """Write what a run leaves while it trains."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **config}))
    os.utime(path, (at, at))
    write_metrics(folder, *rows, at=at)
    return RunFolder(folder)


def draw(folder: Path, name: str, at: float = NOW) -> None:
    path = folder / "pictures" / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 20), "orange").save(path)
    os.utime(path, (at, at))


def mistakes(folder: Path, path: str = "val/bee/1.png", **more: Any) -> None:
    one = {"path": path, "label": "bee", "predicted": "wasp", "probability": 0.984, "loss": 4.1}
    found = {
        "epoch": 2, "pictures": 40, "mistakes": 1, "sheet": "worst-epoch-2.png", "worst": [one],
    }  # fmt: skip
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables/worst.json").write_text(json.dumps({**found, **more}))


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

    def test_several_validations_an_epoch(self, tmp_path: Path) -> None:
        rows = self.rows(tmp_path, row(0, 10, 10), row(0, 20, 20), row(1, 30, 30))
        found = progress_of(rows, CONFIG["trainer"], since=0.0)
        assert (found["left_seconds"], found["share"]) == (170 * 1.0, 30 / 200)

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


# The server


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[Server]:
    """Run the real server on a free port."""
    with open_server(folder, host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


Answer = tuple[int, dict[str, str], bytes]


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a picture and a list of mistakes, and what must not be seen."""
    folder = tmp_path / "run"
    write_run(folder, row(0, 20, 10))
    draw(folder, "worst-epoch-1.png")
    (folder / "pictures/notes.txt").write_text("a secret")
    (folder / "run.json").write_text('{"wandb_id": "a secret"}')
    mistakes(folder, path=str(tmp_path / "elsewhere/1.png"), sheet="worst-epoch-1.png")
    return folder


class TestServer:
    def test_what_it_serves(self, run: Path) -> None:
        with serving(run) as server:
            for path, kind in (
                ("/", "text/html; charset=utf-8"),
                ("/watch.css", "text/css; charset=utf-8"),
                ("/watch.js", "text/javascript; charset=utf-8"),
                ("/watch.svg", "image/svg+xml"),
                ("/state.json", "application/json"),
                ("/pictures/worst-epoch-1.png?12.5", "image/png"),
            ):
                code, headers, content = ask(server, path)
                assert (code, headers["Content-Type"]) == (200, kind)
                assert len(content) == int(headers["Content-Length"]) > 0
                assert headers["Content-Security-Policy"].startswith("default-src 'self';")
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Server"].strip() == "waggle"
            assert json.loads(ask(server, "/state.json")[2])["name"] == "run"
            content = ask(server, "/pictures/worst-epoch-1.png")[2]
            assert content == (run / "pictures/worst-epoch-1.png").read_bytes()

    @pytest.mark.parametrize(
        "path",
        [
            "/config.yaml",
            "/run.json",
            "/pictures",
            "/pictures/",
            "/pictures/notes.txt",
            "/pictures/../config.yaml",
            "/pictures/..%2Fconfig.yaml",
            "/pictures/%2e%2e/run.json",
            "/pictures//worst-epoch-1.png",
            "/pictures/./worst-epoch-1.png",
            "/pictures/x/../worst-epoch-1.png",
            "/pictures/worst-epoch-1.png/",
            "/pictures/worst-epoch-1.png%00",
            "//etc/passwd",
            "/../../../../etc/passwd",
            "/..\\..\\config.yaml",
            "http://127.0.0.1/state.json",
            "/watch.py",
            "*",
        ],
    )
    def test_tricks_with_paths_lead_nowhere(self, path: str, run: Path) -> None:
        with serving(run) as server:
            code, headers, content = ask(server, path)
        assert (code, content) == (404, b"not found\n")
        assert "Content-Security-Policy" in headers

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
    def test_other_methods_are_refused(self, method: str, run: Path) -> None:
        with serving(run) as server:
            code, headers, content = ask(server, "/state.json", method)
        assert (code, headers["Allow"], content) == (405, "GET, HEAD", b"Method Not Allowed\n")

    def test_head_has_no_content(self, run: Path) -> None:
        request = b"HEAD /pictures/worst-epoch-1.png HTTP/1.0\r\nHost: localhost\r\n\r\n"
        with serving(run) as server, socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(request)
            answer = line.makefile("rb").read()
        size = (run / "pictures/worst-epoch-1.png").stat().st_size
        assert b" 200 OK" in answer and f"Content-Length: {size}\r\n".encode() in answer
        assert answer.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8001", "", "127.0.0.1.evil.com"]
    )
    def test_a_name_that_is_not_this_machines_is_refused(self, host: str, run: Path) -> None:
        with serving(run) as server:
            for path in ("/", "/state.json", "/pictures/worst-epoch-1.png"):
                assert ask(server, path, Host=host)[::2] == (403, b"unknown host\n")

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:8001"])
    def test_names_of_this_machine(self, host: str, run: Path) -> None:
        with serving(run) as server:
            assert ask(server, "/state.json", Host=host)[0] == 200

    def test_bound_elsewhere_any_name_will_do(self, run: Path) -> None:
        with serving(run, "0.0.0.0") as server:
            assert not server.on_loopback
            assert ask(server, "/state.json", Host="gpu-box.example")[0] == 200

    def test_no_answer_holds_a_path_of_the_machine(self, run: Path) -> None:
        with serving(run) as server:
            answers = [
                ask(server, p) for p in ("/", "/state.json", "/watch.js", "/x", "/pictures/")
            ]
        told = b"".join(repr(headers).encode() + content for _, headers, content in answers)
        for secret in (str(run.parent), "/home/someone", "a secret"):
            assert secret.encode() not in told
        assert b"1.png" in told

    def test_noise_is_answered_in_a_few_words(self, run: Path) -> None:
        with serving(run) as server:
            with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
                connection.sendall(b"\x16\x03\x01 noise\r\n\r\n")
                answer = connection.makefile("rb").read()
            assert answer == b"Bad Request\n"
            assert ask(server, "/state.json")[0] == 200

    def test_a_browser_that_has_gone_says_nothing(
        self, run: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with serving(run) as server:
            try:
                raise ConnectionResetError
            except ConnectionResetError:
                server.handle_error(None, None)
            ask(server, "/state.json")
        assert capfd.readouterr().err == ""

    def test_the_page_names_nothing_elsewhere(self) -> None:
        for name in ("watch.html", "watch.css", "watch.js", "watch.svg"):
            text = (ROOT / "src/pages" / name).read_text("utf-8")
            addresses = set(re.findall(r"https?://[^\s\"']+", text))
            assert addresses <= {"http://www.w3.org/2000/svg"}  # a name that nothing asks for
            assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", text)


class TestCommand:
    def test_a_folder_that_is_no_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "photo.jpg").write_text("x")
        assert main([str(tmp_path), "--port=0"]) == 2
        error = capsys.readouterr().err
        assert "is no run folder: it has no config.yaml (found: photo.jpg)" in error

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "photo.jpg").write_text("x")
        with pytest.raises(UserError, match=r"photo\.jpg is a file\. Give a run folder"):
            check_folder(tmp_path / "photo.jpg")

    def test_folders_that_may_become_runs(self, tmp_path: Path) -> None:
        check_folder(tmp_path / "later")
        check_folder(tmp_path)
        # What a run writes before its config, since it settles its learning rate first.
        for name in ("config.yaml.tmp", "find_lr.csv", "find_lr.svg"):
            (tmp_path / name).write_text("half of it")
        check_folder(tmp_path)

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_a_port_out_of_range(self, port: int, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=rf"--port is {port}; allowed is 0 to 65535"):
            open_server(tmp_path, "127.0.0.1", port)

    def test_a_port_in_use(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with serving(run) as server:
            assert main([str(run), f"--port={server.port}"]) == 2
        error = capsys.readouterr().err
        assert f"--port {server.port}" in error and "Give another --port (0 takes" in error

    def test_a_host_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nothing can listen at --host 192\.0\.2\.1 --port"):
            open_server(tmp_path, "192.0.2.1", 0)  # reserved for documentation (RFC 5737)

    def test_a_host_beyond_this_machine_gets_a_warning(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(Server, "serve_forever", lambda self: None)
        assert main([str(run), "--host=0.0.0.0", "--port=0"]) == 0
        assert "WARNING: --host 0.0.0.0: whoever reaches" in capsys.readouterr().err
        assert main([str(run), "--port=0"]) == 0
        assert capsys.readouterr().err == ""

    def test_defaults(self) -> None:
        options = parser().parse_args(["RUN"])
        assert (options.host, options.port) == ("127.0.0.1", 8001)

    @pytest.mark.parametrize(
        ("number", "code", "word"),
        [(signal.SIGINT, 130, "stopped by Ctrl-C"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
    )
    def test_a_signal_ends_it(self, number: int, code: int, word: str, run: Path) -> None:
        command = [sys.executable, "-m", "src.watch", str(run), "--port=0"]
        started = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            assert re.fullmatch(
                rf"watching {run}: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", line
            )
            started.send_signal(number)
            out, err = started.communicate(timeout=20)
        finally:
            started.kill()
        assert (started.returncode, out, err) == (code, "", f"{word}\n")

    def test_starts_without_torch(self) -> None:
        """A page beside a training takes none of its memory."""
        code = "import sys, src.watch; print(*sorted({'torch', 'lightning'} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout == "\n"

    def test_the_page_is_packed(self) -> None:
        import tomllib

        table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
        patterns = table["package-data"]["src"]
        packed = {path.name for pattern in patterns for path in (ROOT / "src").glob(pattern)}
        assert {name for name, _ in watch._FILES.values()} <= packed


# A real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_module("playwright")
    program = require_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.slow
class TestBrowser:
    @pytest.fixture
    def page(self, browser: Any) -> Iterator[Any]:
        """A phone that notes complaints and requests; both are looked at in the end."""
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page = context.new_page()
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(20_000)
        yield page
        hosts = {re.sub(r"(https?://[^/:]+).*", r"\1", address) for address in asked}
        assert (complaints, hosts) == ([], {"http://127.0.0.1"})
        context.close()

    def test_follows_a_run_that_grows(self, page: Any, tmp_path: Path) -> None:
        import time

        folder = tmp_path / "bees"
        shows = expects(page)
        with serving(folder) as server:
            page.goto(server.address)
            shows("#status", "Waiting")
            shows("#message", "There is no such folder yet")
            now = time.time()
            write_run(folder, at=now)
            shows("#status", "Running")
            shows("#message", "The first epoch has no scores yet.")
            write_metrics(folder, row(0, 20, 10, val_accuracy=0.9), at=now)
            shows("#epochs", "Epoch 1 of 10")
            shows("#accuracy", "90.00 %")
            shows("#mistakes-about", "Name callbacks.WorstMistakes")
            shows("#time", "left")
            draw(folder, "worst-epoch-2.png", at=now)
            draw(folder, "confusion-epoch-2.png", at=now)
            mistakes(folder, path="val/<b>bee</b>/1.png")
            write_metrics(folder, row(0, 20, 10), row(1, 40, 20, val_accuracy=0.9625), at=now)
            shows("#accuracy", "96.25 %")
            shows("#mistakes-about", "Epoch 2: 1 of 40 validation pictures named wrongly.")
            shows("#worst-rows", "val/<b>bee</b>/1.png")  # as text, not as words of the page
            for name in ("worst", "confusion"):
                image = page.locator(f"#{name}")
                image.evaluate("one => one.decode()")  # waits until it is there
                assert image.evaluate("one => one.naturalWidth") == 40
            assert page.locator("#worst").get_attribute("alt")
            mistakes(folder, epoch=3, sheet=None)  # no picture could be read
            shows("#mistakes-about", "Epoch 3: 1 of 40")
            assert page.locator("#worst-rows").is_visible()
            assert not page.locator("#worst").is_visible()
            labels = page.locator("svg[role=img]").evaluate_all(
                "all => all.map(one => one.getAttribute('aria-label'))"
            )
            assert len(labels) == 3
            assert labels[1].endswith("validation from 87.50 % to 96.25 %")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390
            (folder / "summary.json").write_text(json.dumps({"final": {"step": 40}}))
            shows("#status", "Finished")

    def test_says_when_nobody_answers(self, browser: Any, tmp_path: Path) -> None:
        context = browser.new_context()
        page = context.new_page()
        with serving(write_run(tmp_path / "bees", row(0, 20, 10)).path) as server:
            page.goto(server.address)
            expects(page)("#epochs", "Epoch 1 of 10")
        expects(page)("#status", "Not connected")
        expects(page)("#asked", "python -m src.watch does not answer")
        context.close()


def expects(page: Any) -> Callable[..., None]:
    """Return a function that waits until an element holds a text.

    Not by `wait_for_function`, which needs the `eval` that the page's policy forbids.
    """
    from playwright.sync_api import expect

    def shows(selector: str, text: str) -> None:
        expect(page.locator(selector)).to_contain_text(text, timeout=20_000)

    return shows
