"""Which files a command line means."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from src.errors import UserError
from src.inputs import listed, require_regular


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b/2.jpg",
        "b/1.jpg",
        "b/.hidden",
        "b/Thumbs.db",
        "b/.git/x",
        "a.png",
        "c/x y.png",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"")


def native(*names: str) -> list[str]:
    return [name.replace("/", os.sep) for name in names]


def test_files_and_folders_in_the_order_given() -> None:
    assert listed(["c", "b", "a.png"]) == native("c/x y.png", "b/1.jpg", "b/2.jpg", "a.png")


def test_a_pattern() -> None:
    assert listed(["b/*.jpg"]) == native("b/1.jpg", "b/2.jpg")
    assert listed(["**/*.png"]) == native("a.png", "c/x y.png")


def test_a_file_whose_name_looks_like_a_pattern() -> None:
    Path("b/[1].jpg").write_bytes(b"")
    assert listed(["b/[1].jpg"]) == ["b/[1].jpg"]


def test_a_table_is_relative_to_its_folder() -> None:
    rows = "label, Path \nbee,1.jpg\nbee,..\\a.png\nbee,no.png\n,\n"
    Path("b/list.csv").write_text(rows, "utf-8-sig")
    assert listed(["b/list.csv"]) == [*native("b/1.jpg", "a.png", "b/no.png"), ""]


def test_standard_input_keeps_spaces() -> None:
    assert listed(["-", "a.png"], io.StringIO("c/x y.png\r\n\n b \n")) == [
        "c/x y.png",
        " b ",
        "a.png",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_that_leads_nowhere_is_a_file_that_can_not_be_read() -> None:
    Path("gone.jpg").symlink_to("nowhere")
    assert listed(["gone.jpg", "a.png"]) == ["gone.jpg", "a.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_a_circle_end() -> None:
    Path("b/round").symlink_to(Path.cwd() / "b")
    assert listed(["b"]) == ["b/1.jpg", "b/2.jpg"]


def test_a_folder_that_can_not_be_listed_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(place: str) -> Any:
        if os.path.basename(place) == "b":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr("os.scandir", closed)
    assert listed(["."]) == [os.path.join(".", name) for name in native("a.png", "c/x y.png", "b")]
    with pytest.raises(PermissionError, match="Permission denied"):
        require_regular(os.path.join(".", "b"))


def test_what_the_program_writes_is_no_picture() -> None:
    Path("c/a.png").write_bytes(b"")
    written = [Path("a.png"), Path("b/1.jpg")]
    found = listed([".", str(Path("b").resolve())], written=written)
    assert sorted(Path(path).name for path in found) == ["2.jpg", "2.jpg", "a.png", "x y.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.jpg"], r"no\.jpg: there is no such file or folder"),
        (["*.gif"], r"\*\.gif: nothing matches this pattern"),
        (["empty"], r"there is no picture to predict"),
        (["-"], r"there is no picture to predict"),
        (
            ["bad.csv"],
            r"bad\.csv has no column 'path'\. Its first line names .* 'file', 'label'",
        ),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    Path("empty").mkdir()
    Path("bad.csv").write_text("file,label\n")
    with pytest.raises(UserError, match=message):
        listed(words, io.StringIO(""))
