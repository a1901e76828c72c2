"""The logger of Weights & Biases, without an account."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.proto import wandb_internal_pb2

from src.loop.wandb_logger import WandbLogger, has_key
from src.rows import read_rows
from src.train import main
from tests.cli.conftest import TINY

KEY = "0123456789abcdef" * 2 + "01234567"  # has the form of one and belongs to nobody


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a home without a key, and leave the mode to the logger."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_account")
class TestHasKey:
    def test_none(self) -> None:
        assert not has_key()

    @pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
    def test_in_the_environment(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "")
        assert not has_key()
        monkeypatch.setenv(name, KEY)
        assert has_key()

    @pytest.mark.parametrize("place", [".netrc", "_netrc", "elsewhere"])
    def test_where_a_login_puts_it(
        self, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "home" / place
        file.write_text(f"machine example.org login me password {KEY}\n")
        if place == "elsewhere":
            monkeypatch.setenv("NETRC", str(file))
        assert not has_key()  # another machine's
        file.write_text(f"machine api.wandb.ai login user password {KEY}\n")
        assert has_key()

    def test_of_a_server_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "home" / ".netrc"
        file.write_text(f"machine wandb.example.org:8080 login user password {KEY}\n")
        assert not has_key()
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
        assert has_key()

    @pytest.mark.parametrize("noise", [b"machine\n", b"\xff\xfe\x00noise", b""])
    def test_a_file_that_is_none_holds_none(self, noise: bytes, tmp_path: Path) -> None:
        (tmp_path / "home" / ".netrc").write_bytes(noise)
        assert not has_key()


class FakeWandb:
    """Stands in for wandb.init and notes what it was given."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fails = fails

    def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        if self.fails and arguments["mode"] == "online":
            raise wandb.errors.CommError("the server did not answer")
        return wandb.sdk.wandb_run.Run.__new__(wandb.sdk.wandb_run.Run)


@pytest.mark.usefixtures("no_account")
class TestWandbLogger:
    def begin(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, fails: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """Begin a run with a stand-in for wandb; return the arguments of each attempt."""
        fake = FakeWandb(fails)
        monkeypatch.setattr(wandb, "init", fake)
        monkeypatch.setattr(wandb, "run", None)
        monkeypatch.setattr(wandb.sdk.wandb_run.Run, "define_metric", lambda *args, **kwargs: None)
        logger = WandbLogger(save_dir=str(folder), id="abc", **options)
        assert logger.experiment is logger.experiment  # begun once
        return fake.calls

    @pytest.mark.parametrize(
        ("key", "mode", "expected"),
        [
            ("", None, "offline"),
            (KEY, None, "online"),
            (KEY, "offline", "offline"),
            ("", "disabled", "disabled"),
        ],
    )
    def test_mode(
        self, key: str, mode: str | None, expected: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setenv("WANDB_API_KEY", key)
        if mode:
            monkeypatch.setenv("WANDB_MODE", mode)
        (call,) = self.begin(monkeypatch, tmp_path)
        assert call["mode"] == expected

    def test_what_wandb_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (call,) = self.begin(
            monkeypatch, tmp_path, project="bees", entity="us", name="first", group="g",
            tags=["a"], init_timeout_seconds=7.0,
        )  # fmt: skip
        told = {name: call[name] for name in ("project", "entity", "name", "group", "tags", "id")}
        assert told == {
            "project": "bees", "entity": "us", "name": "first", "group": "g", "tags": ["a"],
            "id": "abc",
        }  # fmt: skip
        assert "anonymous" not in call
        assert call["settings"].init_timeout == 7.0
        assert (call["settings"].disable_git, call["settings"].disable_code) == (True, True)

    def test_a_server_that_does_not_answer_means_offline(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        calls = self.begin(monkeypatch, tmp_path, fails=True)
        assert [call["mode"] for call in calls] == ["online", "offline"]
        assert "going on offline: the server did not answer" in capsys.readouterr().err

    def test_an_error_offline_is_no_ones_to_hide(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes = []

        def fail(mode: str, **arguments: Any) -> None:
            modes.append(mode)
            raise wandb.errors.UsageError("no good")

        monkeypatch.setattr(wandb, "init", fail)
        monkeypatch.setattr(wandb, "run", None)
        with pytest.raises(wandb.errors.UsageError, match="no good"):
            WandbLogger(save_dir=str(tmp_path)).experiment  # noqa: B018 - begins the run
        assert modes == ["offline"]

    def test_a_server_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The real client: it gives up in time, says so, and keeps the key to itself."""
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("WANDB_X_DISABLE_VIEWER", "true")  # asks twice whose key it is, 5 s each
        run = tmp_path / "run"
        run.mkdir()
        logger = WandbLogger(save_dir=str(run), id="abc", init_timeout_seconds=1.0)
        logger.log_metrics({"val/loss": 0.5}, step=1)
        assert logger.experiment.offline
        logger.finalize("success")
        out, err = capfd.readouterr()
        assert "going on offline" in err
        assert "anonymous" not in out + err
        assert KEY not in out + err
        files = [path for path in run.rglob("*") if path.is_file()]
        assert any(path.suffix == ".wandb" for path in files)
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def records(path: Path) -> Iterator[Any]:
    """Read a .wandb file: LevelDB's framing in blocks of 32 KiB, a record of protobuf in each."""
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        room = 32768 - place % 32768
        if room < 7:  # no frame begins in the last bytes of a block
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        place += 7
        if not kind or place + length > len(content):
            return
        parts += content[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last of its parts
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_a_run_is_mirrored_to_wandb_without_an_account(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [word for word in TINY if "logger" not in word]
    code = main(
        ["fit", f"--data.root={root}", f"--run_dir={run}", *words, "--trainer.max_epochs=1",
         "--trainer.logger=src.loop.wandb_logger.WandbLogger"]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "anonymous" not in out + err
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    found = list(records(file))
    config, history, exits = {}, [], []
    for record in found:
        for update in [*record.run.config.update, *record.config.update]:
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            history.append(
                {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in items
                }
            )
        if record.WhichOneof("record_type") == "exit":
            exits.append(record.exit.exit_code)
    stored = yaml.safe_load((run / "config.yaml").read_text())
    shown = {key.replace("/", "."): value for key, value in config.items()}
    assert stored["data"]["classes"] == ["ant", "bug"]
    for section, options in (("model", ("net", "optimizer")), ("data", ("batch_size", "classes"))):
        for option in options:
            assert find(shown, section, option) == stored[section][option]
    (row,) = read_rows(run / "metrics.csv")
    logged = [values["val/loss"] for values in history if "val/loss" in values]
    assert logged == [pytest.approx(float(row["val/loss"]), rel=1e-6)]  # Lightning logs float32
    assert exits == [0]


def find(config: dict[str, Any], section: str, option: str) -> Any:
    """Return an option of wandb's config, whether sections are nested or written with a dot."""
    if section in config:
        return config[section][option]
    return config[f"{section}.{option}"]
