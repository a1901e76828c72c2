"""The benchmark of what exactness costs runs; its numbers belong to the machine."""

from pathlib import Path

import pytest

from tests.benchmarks import exactness_cost


def test_one_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exactness_cost, "NUM_PICTURES", 128)
    monkeypatch.setattr(exactness_cost, "NUM_STEPS", 2)
    exactness_cost.main(["--repeats", "1", "--warmup", "0", "--json", str(tmp_path / "a.json")])
    assert "a picture, all in all" in capsys.readouterr().out
    assert (tmp_path / "a.json").stat().st_size > 100
