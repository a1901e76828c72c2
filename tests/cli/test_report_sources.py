"""What a report goes by: which weights, which scores, which pictures, and where it writes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.data.decoded import Decoded
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
