"""What a report goes by: which weights, which scores, which pictures, and where it writes."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from src import comparison
from src import report as command
from src.data.decoded import Decoded
from src.errors import command_text, visible
from src.opened import open_run
from tests.cli.test_report import SECTIONS, Written, run, scored

__all__ = ["run", "scored"]  # fixtures


@pytest.fixture
def tested(scored: Path, tmp_path: Path) -> Path:
    """A copy of a run after `test`."""
    return Path(shutil.copytree(scored, tmp_path / "tested"))


class TestWeights:
    def test_those_that_were_never_tested_open_no_test_pictures(
        self, tested: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tested / "checkpoints/best.ckpt").unlink()
        written = Written(capsys, tested)
        assert "accuracy on 6 validation pictures" in written.page.tiles()
        assert "best.ckpt is not there. Taken instead: last.ckpt" in written.err
        assert "test.json: it is of best.ckpt, not last.ckpt" in written.err

    def test_nor_do_those_taken_for_a_damaged_checkpoint(
        self, tested: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tested / "checkpoints/best.ckpt").write_text("x")
        assert "accuracy on 6 validation pictures" in Written(capsys, tested).page.tiles()


def change_config(folder: Path, **data: Any) -> None:
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "data": {**config["data"], **data}}))


class TestCache:
    def test_a_config_can_t_say_where_it_is_written(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        change_config(run, cache=str(tmp_path / "elsewhere"))
        assert Written(capsys, run).page.sections == SECTIONS
        assert not (tmp_path / "elsewhere").exists()

    def test_it_gets_none_but_the_pictures_that_are_judged(
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filled: list[str] = []
        inner = Decoded.fill
        monkeypatch.setattr(
            Decoded, "fill", lambda self, index: (filled.extend(index.paths), inner(self, index))[1]
        )
        monkeypatch.setattr("src.judged.MOST", 4)
        page = Written(capsys, run).page
        assert page.sections == SECTIONS
        assert "Looked at are 4 of 6 pictures" in page.text
        index = open_run(run).index
        assert index is not None
        shown = index.subset("val").paths
        assert filled == [shown[at] for at in (0, 1, 3, 4)]  # evenly spread


class TestEarlierSitting:
    def test_its_summary_is_not_believed(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A run that has ended, and goes on: summary.json is that of the first end."""
        header, *rows = (run / "metrics.csv").read_text().splitlines()
        epoch, step, *others = rows[-1].split(",")
        later = ",".join([str(int(epoch) + 1), str(int(step) + 5), *others])
        (run / "metrics.csv").write_text("\n".join([header, *rows, later, ""]))
        page = Written(capsys, run).page
        assert "3 epochs; the training has not ended" in page.text
        assert "best epoch" not in page.text
        assert page.sections == SECTIONS


class TestStoredScores:
    def test_those_of_the_same_pictures_are_taken(
        self, tested: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.report_scores.scores", None)
        page = Written(capsys, tested).page
        assert page.sections == SECTIONS
        accuracy = json.loads((tested / "test.json").read_text())["accuracy"]
        assert f"{100 * accuracy:.1f} %" in page.tiles()

    def test_of_some_of_the_pictures_they_are_made_anew(
        self, tested: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.judged.MOST", 10)
        assert "accuracy on 10 test pictures" in Written(capsys, tested).page.tiles()

    def test_those_that_lack_a_number_are_made_anew(
        self, tested: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = json.loads((tested / "test.json").read_text())
        del found["auroc_interval"]
        (tested / "test.json").write_text(json.dumps(found))
        assert Written(capsys, tested).page.sections == SECTIONS


class TestPlaces:
    def test_a_page_has_the_name_of_its_run_and_the_terminal_the_place(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.rmtree(run / "checkpoints")
        written = Written(capsys, run)
        assert f"there is no checkpoint in {run}/checkpoints" in written.err
        assert "there is no checkpoint in a run/checkpoints" in written.page.text
        assert str(run) not in written.page.text

    def test_relative_ones_stay(self) -> None:
        assert command._without_places("a.b: c.d", [Path(".")]) == "a.b: c.d"


class TestTerminal:
    def test_names_do_not_command_it(
        self, run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        samples = (run / "samples.csv").read_text()
        (run / "samples.csv").write_text(samples.replace("train/ant/3.png", "train/\x1b[2J.png"))
        written = Written(capsys, run)
        assert "\x1b" not in written.err
        assert r"train/\x1b[2J.png for one" in written.err

    def test_a_path_that_is_no_text(
        self, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command._say("caf\udce9/report.html")
        assert capsysbinary.readouterr().out == b"caf\\udce9/report.html\n"

    def test_visible(self) -> None:
        assert visible("a\x1b[0m\u202eb\n\u8702") == "a\\x1b[0m\\u202eb\\n\u8702"


@pytest.mark.parametrize(("pairs", "each"), [(1, 24), (5, 24), (6, 20), (25, 4)])
def test_pictures_of_all_comparisons_have_one_budget(pairs: int, each: int) -> None:
    assert comparison._shown_of_each(pairs) == each


def test_a_full_disk_sends_no_report_to_a_training(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "report.html.tmp")

    monkeypatch.setattr(command, "write_text", full)
    monkeypatch.setattr(command, "one_run", lambda run: {"missing": run.missing})
    monkeypatch.setattr(command, "page", lambda *_: "")
    written = Written(capsys, run)
    assert written.code == 1
    assert "the disk is full" in written.err and "try again" in written.err
    assert "(a training: with --ckpt_path auto)" in written.err


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: a POSIX shell")
def test_a_command_is_quoted_for_the_shell() -> None:
    words = ["--model.net.widths=[4,8]", "a b", "it's", "plain"]
    quoted = """'--model.net.widths=[4,8]' 'a b' 'it'"'"'s' plain"""
    assert command_text(words) == quoted
