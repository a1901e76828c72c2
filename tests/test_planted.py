"""The measurement of planted faults: each kind is planted as it says, and found."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.insects import draw
from tests.benchmarks.planted import KINDS, Planted, clean_line, is_found, main


def test_all_kinds_in_drawn_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        for name in ("bee", "wasp"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(1, 5):
                pixels, _ = draw(3, split, name, number, 96)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    assert main(["--root", str(tmp_path), "--faults", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 pictures of 16 were left, 12 faults, seed 0"
    assert [line for line in lines if line.startswith("| ")][1:] == [
        *(f"| {kind} | 1 | 1 | 100.0 % |" for kind in KINDS),
        "| all | 12 | 12 | 100.0 % |",
    ]
    assert "clean pictures accused: 0 of 4, 0.0 %" in lines


def test_a_fault_counts_as_what_it_is_alone() -> None:
    found = {
        "conflicts": [],
        "leaks": [],
        "duplicates": [{"paths": ["a", "b", "c"], "kind": "near"}],
        "damaged": [{"path": "d", "reason": "empty file"}],
        "notes": [{"note": "suffix says PNG, content is JPEG", "paths": ["e"]}],
    }
    assert is_found(Planted("mirrored", "a", "b"), found)
    assert not is_found(Planted("mirrored", "a", "d"), found)
    assert not is_found(Planted("encoded anew, in the other split", "a", "b"), found)
    assert is_found(Planted("empty", "d", "d"), found)
    assert not is_found(Planted("empty", "a", "a"), found)
    assert is_found(Planted("wrong suffix", "x", "e"), found)
    line = clean_line([Planted("mirrored", "a", "b")], list("acdxyz"), found)
    assert line == "clean pictures accused: 2 of 5, 40.0 %: c, d"


def test_pictures_without_a_test_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bee", "wasp"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name / "0.png")
    assert main(["--root", str(tmp_path)]) == 2
    assert "needs the folders train and test" in capsys.readouterr().err
