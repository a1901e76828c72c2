"""The table of a scored run, written block by block, and files that several processes write."""

import os
import tracemalloc
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from src.calibration import Decision
from src.run import write_blocks, write_text
from src.scored import write_scored
from src.table import Table


def write(path: Path, num: int, num_classes: int) -> str:
    """Write a table with paths that need quotes, and a row without a label."""
    draw = np.random.default_rng(0)
    paths = [f"a,{i}.png" if i % 3 else f"b\r{i}.png" for i in range(num)]
    target = [-1, *draw.integers(0, num_classes, num - 1).tolist()]
    table = Table.from_rows(range(num), target, draw.normal(size=(num, num_classes)))
    return write_scored(path, paths, table, [f"c{c}" for c in range(num_classes)], Decision(1.7))


def test_blocks_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(tmp_path / "whole.csv", 50, 9)
    monkeypatch.setattr("src.scored._AT_ONCE", 64)  # 7 rows, and 1 in the last block
    assert write(tmp_path / "parts.csv", 50, 9) == whole
    content = (tmp_path / "parts.csv").read_bytes()
    assert content == (tmp_path / "whole.csv").read_bytes()
    assert sha256(content).hexdigest() == whole
    assert not list(tmp_path.glob("*.tmp"))


def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.scored._AT_ONCE", 10_000, raising=False)
    peaks = []
    for num in (100, 400):
        tracemalloc.start()
        write(tmp_path / "a.csv", num, 500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    logits = 300 * 500 * 8
    assert peaks[1] - peaks[0] < 3 * logits  # the table itself, drawn and copied; no text


def test_files_that_many_write_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"

    def blocks() -> Iterator[bytes]:
        yield b"one"
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 7)
            write_text(page, "two", by_many=True)
        assert page.read_text() == "two"

    write_blocks(page, blocks(), by_many=True)
    assert page.read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
