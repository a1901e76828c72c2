"""Arrays that are kept: found again, whole or not at all, and bounded."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from src.cache import main
from src.data.kept import array_key, keep
from src.data.room import ARRAYS, make_room

GIB = 2**30
ARRAY = np.arange(12, dtype=np.float32).reshape(4, 3)


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return ARRAY + self.calls


def files(place: Path) -> list[Path]:
    return sorted((place / ARRAYS).glob("*.array"))


def test_an_array_is_made_once(tmp_path: Path) -> None:
    make = Maker()
    first = keep(tmp_path, array_key("a"), make)
    second = keep(tmp_path, array_key("a"), make)
    assert make.calls == 1
    assert second.dtype == np.float32
    np.testing.assert_array_equal(first, ARRAY + 1)
    np.testing.assert_array_equal(second, first)
    keep(tmp_path, array_key("b"), make)
    assert make.calls == len(files(tmp_path)) == 2


def test_parts_of_a_key_do_not_run_together() -> None:
    assert array_key("ab", "c") != array_key("a", "bc")
    assert array_key("a", "b") == array_key("a", "b")


@pytest.mark.parametrize("what", ["computing features", "looking for copies"])
def test_who_waits_is_told_for_what(
    what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begun, go_on = Event(), Event()

    def make() -> np.ndarray:
        begun.set()
        assert go_on.wait(10)
        return ARRAY

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(keep, tmp_path, array_key("a"), make, what)
        assert begun.wait(10)
        second = pool.submit(keep, tmp_path, array_key("a"), Maker(), what)
        other = keep(tmp_path, array_key("b"), Maker(), "something else")  # waits for nobody
        said, deadline = "", time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
            said = capfd.readouterr().err
        go_on.set()
        np.testing.assert_array_equal(second.result(), first.result())
    assert said == f"waiting for another process that is {what}\n"
    np.testing.assert_array_equal(other, ARRAY + 1)


def test_without_a_cache_nothing_is_kept() -> None:
    make = Maker()
    keep(None, array_key("a"), make)
    keep(None, array_key("a"), make)
    assert make.calls == 2


@pytest.mark.parametrize("change", [lambda b: b[:-20], lambda b: b"\0" + b[1:], lambda b: b""])
def test_a_damaged_file_is_made_anew(
    change: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = Maker()
    keep(tmp_path, array_key("a"), make)
    (file,) = files(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    np.testing.assert_array_equal(keep(tmp_path, array_key("a"), make), ARRAY + 2)
    assert "is damaged; it is computed anew" in capsys.readouterr().err
    np.testing.assert_array_equal(keep(tmp_path, array_key("a"), make), ARRAY + 2)


def test_a_place_that_cant_be_written_to_costs_the_time_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    place.write_text("no folder")
    np.testing.assert_array_equal(keep(place, array_key("a"), Maker()), ARRAY + 1)
    assert "can't be kept" in capsys.readouterr().err


def test_an_array_larger_than_the_cache_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAGGLE_CACHE_GIB", str(100 / GIB))
    np.testing.assert_array_equal(keep(tmp_path, array_key("a"), Maker()), ARRAY + 1)
    assert files(tmp_path) == []


def test_what_was_used_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker()
    for name in "abc":
        keep(tmp_path, array_key(name), make)
    (tmp_path / ARRAYS / "new.array.tmp").write_bytes(b"of a killed process")
    for age, name in enumerate("bac"):  # b was used last
        os.utime(tmp_path / ARRAYS / f"{array_key(name)}.array", (1e9 - age, 1e9 - age))
    one = files(tmp_path)[0].stat().st_size
    monkeypatch.setenv("WAGGLE_CACHE_GIB", str((one + 1) / GIB))
    make_room(tmp_path)
    assert [file.stem for file in files(tmp_path)] == [array_key("b")]
    assert not list((tmp_path / ARRAYS).glob("*.tmp"))


def test_the_command_lists_and_clears_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, array_key("a"), Maker())
    assert main(["--place", str(tmp_path)]) == 0
    assert "arrays" in capsys.readouterr().out
    assert main(["--place", str(tmp_path), "--clear"]) == 0
    assert "removed 1 files" in capsys.readouterr().out
    assert files(tmp_path) == []
