"""The command that audits data: the real one, on pictures that are drawn here."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from src import audit
from src.audit import main, parser
from src.calibration import Decision
from src.data.findings import Note
from src.data.home import cache_home
from src.data.index import Index, Listing, list_data
from src.data.insects import draw
from src.data.inspection import Inspected, inspect, warn_of_copies
from src.data.scans import scan
from src.doubt import doubted
from src.results import write_scores
from src.run import write_json
from src.scored import Scored
from src.table import Table
from tests.helpers import ROOT

SIZE = 96
SECTIONS = ["conflicts", "leaks", "duplicates", "damaged", "classes", "notes"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing wrong: two splits, two classes, 4 and 3 pictures of each."""
    root = tmp_path_factory.mktemp("drawn") / "insects"
    for split, count in (("train", 4), ("test", 3)):
        for name in ("bee", "wasp"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels, _ = draw(9, split, name, number + 1, SIZE)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def root(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the drawn folder, beside which the command is run."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(drawn, tmp_path / "insects"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "audit.json").read_text("utf-8"))
    return found


class Page(HTMLParser):
    """What a page shows and asks for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.pictures: list[tuple[str, str]] = []
        self.sizes: list[tuple[int, int]] = []
        self.addresses: list[str] = []
        self.text = ""
        self.html = (folder / "audit.html").read_text("utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "section":
            self.sections.append(found["id"])
        if tag == "img":
            self.pictures.append((found["alt"], found["src"]))
            self.sizes.append((int(found["width"]), int(found["height"])))
        self.addresses += [found[name] for name in ("src", "href", "action") if name in found]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        self.text += data


def save(picture: Image.Image, path: Path, **options: Any) -> None:
    picture.save(path, **options)


def picture(root: Path, name: str) -> Image.Image:
    return Image.open(root / name).convert("RGB")


def plant(root: Path) -> None:
    """Plant one fault of each kind."""
    shutil.copy(root / "train/bee/0.png", root / "train/bee/again.png")
    mirrored = ImageOps.mirror(picture(root, "train/bee/1.png"))
    save(mirrored, root / "test/bee/mirrored.jpg", quality=85)
    save(picture(root, "train/wasp/0.png"), root / "train/bee/wrong.jpg", quality=60)
    (root / "train/bee/empty.png").touch()
    (root / "train/bee/text.jpg").write_text("no picture")
    whole = (root / "train/wasp/3.png").read_bytes()
    (root / "train/wasp/3.png").write_bytes(whole[: len(whole) // 2])
    extra = [Image.fromarray(draw(10, "train", "wasp", i, SIZE)[0]) for i in range(1, 8)]
    exif = Image.Exif()
    exif[0x0112] = 6
    save(extra[0], root / "train/wasp/turned.jpg", exif=exif)
    save(extra[1].convert("CMYK"), root / "train/wasp/cmyk.jpg")
    extra[2].putalpha(200)
    save(extra[2], root / "train/wasp/alpha.png")
    grey = np.asarray(extra[3].convert("L"), np.uint16) * 257
    save(Image.fromarray(grey), root / "train/wasp/deep.png")
    save(extra[4].resize((20, 20)), root / "train/wasp/tiny.png")
    save(extra[5].resize((300, 60)), root / "train/wasp/wide.png")
    save(extra[6], root / "train/wasp/suffix.jpg", format="PNG")


class TestClean:
    def test_nothing_falsifies_a_score(self, root: Path, run: Any) -> None:
        code, out, err = run("--data.root", root)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[:5] == [
            "14 files looked at",
            "label conflicts: 0",
            "leaks between splits: 0",
            "duplicates: 0",
            "damaged files: 0",
        ]
        assert lines[-2] == "Nothing was found that would falsify a score."
        folder = Path(lines[-1]).parent
        assert re.fullmatch(r"runs/audit/insects-[0-9a-f]{12}", folder.as_posix())
        assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
        found = read(folder)
        assert list(found) == [
            *("n", "damaged", "conflicts", "leaks", "duplicates", "notes", "classes")
        ]
        assert found["classes"]["bee"] == {
            "count": 7,
            "share": 0.5,
            "splits": {"test": 3, "train": 4},
            "weight": 1.0,
        }

    def test_nothing_in_the_data_is_touched(self, root: Path, run: Any) -> None:
        def state() -> dict[Path, tuple[int, int]]:
            found = ((path, path.stat()) for path in root.rglob("*"))
            return {path: (status.st_mtime_ns, status.st_size) for path, status in found}

        plant(root)
        before = state()
        run("--data.root", root, "--fix", "left.csv")
        assert state() == before

    @pytest.mark.parametrize(
        ("given", "inside", "name"),
        [
            ("insects/", ".", "insects"),
            (".", "insects", "insects"),
            ("..", "insects/train", "insects"),
        ],
    )
    def test_the_default_folder_has_the_name_of_the_data(
        self, given: str, inside: str, name: str, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.chdir(root.parent / inside)
        out = root.parent / "out"
        monkeypatch.setattr(audit, "_OUT", out)
        assert run("--data.root", given)[0] == 0
        (folder,) = out.iterdir()
        assert folder.name.startswith(f"{name}-")
        assert f"<h1>{name}</h1>" in Page(folder).html

    def test_a_second_look_decodes_nothing(self, root: Path, run: Any, monkeypatch: Any) -> None:
        plant(root)
        run("--data.root", root, "--out", "one")

        def fail(*_: object) -> None:
            raise AssertionError("a file is decoded, or pictures are compared")

        monkeypatch.setattr("src.data.scans.scan_file", fail)
        monkeypatch.setattr("src.data.inspection.near_pairs", fail)
        run("--data.root", root, "--out", "other")
        assert read(Path("one")) == read(Path("other"))


class TestFaults:
    @pytest.fixture
    def planted(self, root: Path) -> Path:
        plant(root)
        return root

    def test_each_is_named(self, planted: Path, run: Any) -> None:
        code, out, _ = run("--data.root", planted, "--out", "out")
        found = read(Path("out"))
        assert code == 1
        assert found["n"] == 26
        assert {file["path"]: file["reason"] for file in found["damaged"]} == {
            "train/bee/empty.png": "empty file",
            "train/bee/text.jpg": "not a picture",
            "train/wasp/3.png": "truncated: pixels are missing at the end",
        }
        assert found["duplicates"] == [
            {"paths": ["train/bee/0.png", "train/bee/again.png"], "kind": "exact"}
        ]
        assert found["leaks"] == [
            {
                "paths": ["test/bee/mirrored.jpg", "train/bee/1.png"],
                "splits": ["test", "train"],
                "kind": "near",
            }
        ]
        assert found["conflicts"] == [
            {
                "paths": ["train/bee/wrong.jpg", "train/wasp/0.png"],
                "labels": ["bee", "wasp"],
                "kind": "near",
            }
        ]
        notes = {note["note"]: note["paths"] for note in found["notes"]}
        assert notes == {
            "EXIF-rotated": ["train/wasp/turned.jpg"],
            "CMYK": ["train/wasp/cmyk.jpg"],
            "alpha": ["train/wasp/alpha.png"],
            "16-bit": ["train/wasp/deep.png"],
            "suffix says JPEG, content is PNG": ["train/wasp/suffix.jpg"],
            "tiny: a side below 32 pixels": ["train/wasp/tiny.png"],
            "extreme aspect: one side over 4 times the other": ["train/wasp/wide.png"],
        }
        assert out.splitlines()[1:3] == [
            "label conflicts: 1 (0 exact, 1 near)",
            "  train/bee/wrong.jpg  train/wasp/0.png",
        ]
        assert "1 label conflict, 1 leak and 3 damaged files would falsify a score." in out

    @pytest.mark.parametrize(
        ("source", "target", "code"),
        [
            ("train/bee/0.png", "train/bee/again.png", 0),
            ("train/bee/0.png", "train/wasp/again.png", 1),
            ("train/bee/0.png", "test/bee/again.png", 1),
        ],
    )
    def test_exit_codes(self, source: str, target: str, code: int, root: Path, run: Any) -> None:
        shutil.copy(root / source, root / target)
        assert run("--data.root", root)[0] == code

    def test_the_page(self, planted: Path, run: Any) -> None:
        run("--data.root", planted, "--out", "out")
        page = Page(Path("out"))
        assert page.sections == SECTIONS
        assert [a for a in page.addresses if not a.startswith(("#", "data:"))] == []
        assert re.findall(r"https?://|url\(|@import", page.html) == []
        shown = [alt for alt, _ in page.pictures]
        assert shown[:2] == ["train/bee/wrong.jpg", "train/wasp/0.png"]
        assert len(shown) == 2 + 2 + 2 + 7
        for (_, uri), size in zip(page.pictures, page.sizes, strict=True):
            kind, _, data = uri.partition(",")
            assert kind == "data:image/jpeg;base64"
            shown_size = Image.open(io.BytesIO(base64.b64decode(data))).size
            assert max(shown_size) <= 200
            assert size[0] * shown_size[1] == pytest.approx(size[1] * shown_size[0], rel=0.03)
        assert "--fix OUT.csv writes a CSV" in page.text
        assert "python -m src.audit --data.root" in page.text

    def test_the_csv_that_is_left(self, planted: Path, run: Any) -> None:
        code, out, _ = run("--data.root", planted, "--out", "out", "--fix", "left.csv")
        assert code == 1
        # Of 23 sound ones the pair of the conflict goes, and one of each other pair.
        assert "19 of 23 pictures are left in left.csv" in out
        listing = list_data("left.csv")
        assert "insects/test/bee/mirrored.jpg" in listing.paths
        gone = {
            "insects/train/bee/1.png",
            "insects/train/bee/wrong.jpg",
            "insects/train/wasp/0.png",
        }
        assert not gone & {*listing.paths}
        code, out, _ = run("--data.root", "left.csv")
        assert (code, out.splitlines()[0]) == (0, "19 files looked at")
        assert re.search(r"^runs/audit/left-[0-9a-f]{12}/audit\.html$", out, re.MULTILINE)

    def test_a_class_that_the_csv_lacks_is_named(self, root: Path, run: Any) -> None:
        for path in (root / "train/bee").iterdir():
            shutil.copy(path, root / "train/wasp" / f"bee-{path.name}")
        shutil.rmtree(root / "test")
        for path in (root / "train/wasp").glob("?.png"):
            path.unlink()
        out = run("--data.root", root, "--fix", "left.csv")[1]
        assert "0 of 8 pictures are left" in out
        assert "WARNING: of bee, wasp none is left" in out

    def test_a_damaged_cache_is_made_anew(self, planted: Path, run: Any) -> None:
        run("--data.root", planted, "--out", "one")
        arrays = cache_home() / "pixels" / "arrays"
        newest = sorted(arrays.glob("*.array"), key=os.path.getmtime)[-2:]
        for file in newest:
            file.write_bytes(file.read_bytes()[:-30])
        _, _, err = run("--data.root", planted, "--out", "other")
        assert err.count("is damaged; it is computed anew") == 2
        assert read(Path("one")) == read(Path("other"))


class TestLarge:
    def test_the_page_and_the_terminal_name_some_of_many(self, root: Path, run: Any) -> None:
        for number in range(12):
            shutil.copy(root / "train/bee/0.png", root / f"train/bee/again-{number}.png")
        found = inspect(list_data(root))
        notes = tuple(Note(f"note {i}") for i in range(70))
        found = replace(found, findings=replace(found.findings, notes=notes))
        lines = audit.summary(found.findings)
        assert any(line.endswith("/again-11.png  and 8 more") for line in lines)
        assert "note: note 19" in lines and "and 50 more notes" in lines
        assert "note: note 20" not in lines
        audit.write_findings(Path("out"), "many", found, ["audit"])
        page = Page(Path("out"))
        assert "note 59" in page.text and "note 60" not in page.text
        assert "And 10 more; audit.json has them all." in page.text
        assert len(read(Path("out"))["notes"]) == 70

    def test_no_bar_where_none_is_wanted(self, root: Path, monkeypatch: Any) -> None:
        listing = list_data(root)
        scan(listing.root, listing.paths)  # so that the looks alone are missing

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr("sys.stderr", Terminal())
        inspect(listing, show_progress=False)
        assert sys.stderr.getvalue() == ""


class TestOddData:
    def test_nothing_but_damage(self, root: Path, run: Any) -> None:
        for path in root.rglob("*.png"):
            path.write_bytes(b"gone")
        code, out, _ = run("--data.root", root, "--out", "out")
        assert code == 1
        assert "damaged files: 14" in out and "  and 9 more" in out
        assert len(read(Path("out"))["damaged"]) == 14
        assert Page(Path("out")).sections == SECTIONS

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda r: shutil.rmtree(r / "train/bee"), "train has no picture of bee"),
            (lambda r: shutil.rmtree(r / "train"), r"fit refuses these data: .* split 'train'"),
            (lambda r: (r / "test/wasp").rename(r / "test/moth"), "test has no picture of wasp"),
            (
                lambda r: [shutil.rmtree(r / s / "bee") for s in ("train", "test")],
                r"fit refuses these data: .* one class only, 'wasp'",
            ),
            (
                lambda r: (r / "train/moth").mkdir(),
                r"fit refuses these data: The class folder .*moth is empty",
            ),
        ],
    )
    def test_what_fit_refuses_is_looked_at_all_the_same(
        self, spoil: Callable[[Path], object], said: str, root: Path, run: Any
    ) -> None:
        spoil(root)
        code, out, _ = run("--data.root", root, "--out", "out")
        assert code == 0
        assert re.search(f"^note: {said}", out, re.MULTILINE)
        assert "note: fit refuses these data: " in out
        assert Page(Path("out")).sections == SECTIONS

    def test_without_splits(self, root: Path, run: Any) -> None:
        shutil.copy(root / "train/bee/0.png", root / "train/wasp/again.png")
        code, _, _ = run("--data.root", root / "train", "--out", "out")
        assert code == 1
        assert read(Path("out"))["classes"]["bee"]["splits"] == {"all": 4}

    def test_a_csv(self, root: Path, run: Any) -> None:
        rows = [f"insects/train/bee/{i}.png,bee,train,g{i}" for i in range(3)]
        rows += ["insects/train/bee/3.png,wasp,test,", "insects/test/bee/0.png,wasp,train,"]
        shutil.copy(root / "train/bee/0.png", root / "train/bee/3.png")
        Path("my data.csv").write_text("path,label,split,group\n" + "\n".join(rows))
        code, out, _ = run("--data.root", "my data.csv", "--out", "out", "--fix", "new/left.csv")
        assert code == 1
        found = read(Path("out"))
        assert found["conflicts"][0]["labels"] == ["bee", "wasp"]
        assert found["leaks"][0]["splits"] == ["train", "test"]
        assert "3 of 5 pictures are left" in out
        text = Path("new/left.csv").read_text("utf-8").splitlines()
        assert text[0] == "path,label,split,group"
        assert text[2] == f"{root}/train/bee/1.png,bee,train,g1"

    def test_names_of_all_kinds(self, root: Path, run: Any) -> None:
        names = ["line\nbreak.png", "<b>&amp;.png", os.fsdecode(b"caf\xe9.png"), " a  b .png"]
        for name in names:
            shutil.copy(root / "train/bee/0.png", root / "train/bee" / name)
        code, out, _ = run("--data.root", root, "--out", "out")
        assert code == 0
        found = read(Path("out"))
        assert {f"train/bee/{name}" for name in names} < {*found["duplicates"][0]["paths"]}
        assert r"line\nbreak.png" in out
        page = Page(Path("out"))
        assert {"train/bee/<b>&amp;.png", r"train/bee/caf\udce9.png"} < {
            a for a, _ in page.pictures
        }

    def test_a_name_that_no_csv_can_hold(self, root: Path, run: Any) -> None:
        (root / "train/bee/0.png").rename(root / "train/bee" / os.fsdecode(b"caf\xe9.png"))
        code, _, err = run("--data.root", root, "--out", "out", "--fix", "left.csv")
        assert code == 2
        assert "1 of the files have names that are no UTF-8" in err
        assert Path("out/audit.html").exists() and not Path("left.csv").exists()

    def test_a_terminal_gets_no_commands_from_names(self, root: Path, run: Any) -> None:
        for name in ("\x1b[31mred.png", "r\u202egnp.png", "tab\t.png"):
            shutil.copy(root / "train/bee/0.png", root / "train/bee" / name)
        (root / "train/bee/\x1b.png").touch()
        for split in ("train", "test"):
            (root / split / "bee").rename(root / split / "b\nee")
        shutil.rmtree(root / "test/b\nee")
        _, out, _ = run("--data.root", root, "--out", "out")
        assert all(line.isprintable() for line in out.splitlines())
        assert r"train/b\nee/\x1b[31mred.png" in out and r"r\u202egnp.png" in out
        assert r"note: test has no picture of b\nee" in out

    def test_nor_from_the_warning_of_fit(self, root: Path, capsys: Any) -> None:
        paths = ("\x1b[31mred.png", "r\u202egnp.png", os.fsdecode(b"caf\xe9.png"))
        listing = Listing(root, paths, ("bee", "wasp", "bee"), ("", "", ""), ("", "", ""))
        warn_of_copies(Index.of(listing, CLASSES, ["00"] * 3), root, refuse=False)
        err = capsys.readouterr().err
        assert r"\x1b[31mred.png, r\u202egnp.png, caf\udce9.png." in err
        assert all(line.isprintable() for line in err.splitlines())

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
    def test_pipes_are_passed_over(self, root: Path, run: Any) -> None:
        os.mkfifo(root.parent / "pipe")
        os.mkfifo(root / "train/bee/pipe.png")
        (root / "train/bee/linked.png").symlink_to(root.parent / "pipe")
        (root / "train/bee/gone.png").symlink_to("nowhere")
        run("--data.root", root, "--out", "out")
        found = read(Path("out"))
        assert found["n"] == 15
        assert [file["path"] for file in found["damaged"]] == ["train/bee/gone.png"]

    def test_a_picture_too_large_to_decode(self, root: Path, run: Any) -> None:
        save(Image.new("L", (4, 4)), root / "train/bee/bomb.png")
        content = bytearray((root / "train/bee/bomb.png").read_bytes())
        content[16:24] = struct.pack(">II", 60_000, 60_000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (root / "train/bee/bomb.png").write_bytes(content)
        assert run("--data.root", root, "--out", "out")[0] == 1
        (file,) = read(Path("out"))["damaged"]
        assert file["reason"].startswith("too many pixels (at most 178,956,970")

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_pictures(self, count: int, root: Path, run: Any) -> None:
        for path in sorted(root.rglob("*.png"))[count:]:
            path.unlink()
        assert run("--data.root", root, "--out", "out")[0] == 0
        assert read(Path("out"))["n"] == count

    def test_blank_pages_are_exact_copies_and_nothing_near(self, root: Path, run: Any) -> None:
        for i, path in enumerate(sorted(root.rglob("*.png"))):
            Image.new("RGB", (50 + i % 2, 50), "white").save(path)
        assert run("--data.root", root, "--out", "out")[0] == 1
        found = read(Path("out"))
        assert {group["kind"] for group in found["leaks"]} == {"exact"}
        assert [len(group["paths"]) for group in found["leaks"]] == [7, 7]


def data_with(*words: str) -> list[str]:
    return ["--data.root", "insects", *words]


class TestRefuses:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], r"there are no data: give --data\.root a folder or a CSV, or --run_dir"),
            (["--data.root", ""], r"--data\.root is empty"),
            (["--data.root", "insect"], r"no folder or file .*insect\. did you mean 'insects'"),
            (
                ["--data.root", "insects/train/bee"],
                r"bee holds no class folders \(found: 4 files, 0\.png among them\)\. Expected is a "
                r"folder for each class: .*bee/<class>/<picture>, or "
                r".*bee/train/<class>/<picture>\. Sort .* or give another folder: --data\.root DIR",
            ),
            (["--data.root", "void"], r"void holds no class folders \(found: nothing\)\. Expected"),
            (
                ["--data.root", "hollow"],
                r"The 3 class folders of .*hollow are empty: ant, bee, wasp\. Put pictures in",
            ),
            (["--data.root", "bare"], r"bare/train holds no class folders \(found: nothing\)\."),
            (
                ["--data.root", "unsorted"],
                r"unsorted/test holds no class folders \(found: 1 file, 0\.png\)\. Expected",
            ),
            (
                ["--data.root", "pipe"],
                r"/pipe is neither a folder nor a file\. --data\.root takes a",
            ),
            (["--data.root", "circle"], r"up is the folder .*circle/bee again, .* Remove the link"),
            (
                ["--data.root", "itself"],
                r"circle: .*itself/bee/0\.png leads back to itself\. Remove the link",
            ),
            (data_with("--run_dir", "nowhere"), r"--run_dir nowhere: there is no such folder"),
            (data_with("--out", "insects/out"), r"--out insects/out lies inside --data\.root"),
            (data_with("--out", "insects"), r"--out insects lies inside --data\.root insects"),
            (data_with("--out", "file.csv"), r"--out file\.csv: .*file\.csv is a file"),
            (data_with("--out", "file.csv/x"), r"--out file\.csv/x: .*file\.csv is a file"),
            (data_with("--fix", "left.txt"), r"--fix left\.txt: give the name .* ends in \.csv"),
            (data_with("--fix", "folder.csv"), r"--fix folder\.csv: give the name of a file"),
            (data_with("--fix", "insects/train/l.csv"), r"--fix .*l\.csv lies inside --data\.root"),
            (data_with("--fix", "file.csv/l.csv"), r"--fix .*: .*file\.csv is a file"),
            (["--data.root", "file.csv", "--fix", "./file.csv"], r"is the data itself"),
            (data_with("--data.rot", "x"), r"unrecognized arguments: --data\.rot"),
        ],
    )
    def test_with_a_message_before_it_looks(
        self, words: Sequence[str], message: str, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(audit, "inspect", None)
        Path("file.csv").write_text("path,label\ninsects/train/bee/0.png,bee\n")
        for name in ("folder.csv", "void", "hollow/bee", "hollow/ant", "hollow/wasp", "bare/train"):
            Path(name).mkdir(parents=True)
        os.mkfifo("pipe")
        for name, above in (("circle/bee/up", "."), ("itself/bee/0.png", "0.png")):
            Path(name).parent.mkdir(parents=True)
            Path(name).symlink_to(above)
        for name in ("test", "train"):
            Path("unsorted", name).mkdir(parents=True)
            shutil.copy("insects/train/bee/0.png", f"unsorted/{name}")
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert re.search(message, err)

    def test_the_default_folder_inside_the_data(
        self, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.chdir(root)
        code, _, err = run("--data.root", ".")
        assert code == 2
        assert "--out runs/audit lies inside --data.root .:" in err
        assert not Path("runs").exists()

    def test_a_cache_inside_the_data(self, root: Path, run: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        code, _, err = run("--data.root", root)
        assert code == 2
        assert re.search(r"cache folder .* lies inside --data\.root", err)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--out", "shut/out"], r"--out shut/out: nothing can be written into .*shut \("),
            (["--fix", "shut/left.csv"], r"--fix shut/left\.csv: nothing can be written into "),
            (["--fix", "shut/new/left.csv"], r"--fix shut/new/left\.csv: nothing can be written"),
        ],
    )
    def test_a_place_that_cant_be_written(
        self, words: Sequence[str], said: str, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        """A folder that is shut to everybody, the administrator of the machine too."""
        Path("shut").mkdir()
        touch = Path.touch

        def shut(path: Path, *args: Any, **options: Any) -> None:
            if path.parent.name == "shut":
                raise PermissionError(13, "Permission denied", str(path))
            touch(path, *args, **options)

        monkeypatch.setattr(Path, "touch", shut)
        monkeypatch.setattr(audit, "inspect", None)
        code, out, err = run("--data.root", root, *words)
        assert (code, out) == (2, "")
        assert re.search(said, err) and "Permission denied" in err and ".tmp" not in err
        assert err.rstrip().endswith("Give another place, or make it writable.")
        assert list(Path("shut").iterdir()) == []

    @pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
    @pytest.mark.parametrize(("option", "name"), [("--out", "out"), ("--fix", "left.csv")])
    def test_a_file_system_that_takes_no_files(
        self, option: str, name: str, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(audit, "inspect", None)
        code, _, err = run("--data.root", root, option, f"/proc/{name}")
        assert code == 2
        assert f"error: {option} /proc/{name}: nothing can be written into /proc (" in err

    def test_a_name_that_is_too_long(self, root: Path, run: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(audit, "inspect", None)
        code, _, err = run("--data.root", root, "--fix", f"{'x' * 250}.csv")
        assert code == 2
        assert "x.csv: " in err and "File name too long" in err

    def test_the_look_before_leaves_nothing(self, root: Path, run: Any) -> None:
        Path("left.csv").touch()
        assert run("--data.root", root, "--out", "new/out", "--fix", "left.csv")[0] == 0
        assert sorted(path.name for path in Path().iterdir()) == ["insects", "left.csv", "new"]
        assert Path("left.csv").read_text("utf-8").startswith("path,label")

    @pytest.mark.parametrize(
        ("words", "name"),
        [
            (["--fix", "mine.csv"], "mine.csv"),
            (["--out", "mine"], "mine/audit.html"),
            (["--out", "mine"], "mine/audit.json"),
        ],
    )
    def test_nothing_of_others_is_replaced(
        self, words: Sequence[str], name: str, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        Path("mine").mkdir()
        Path(name).write_text("path,label\n")
        monkeypatch.setattr(audit, "inspect", None)
        code, _, err = run("--data.root", root, *words)
        assert code == 2
        assert re.search(
            rf"{Path(name).name} is there( already\.|, and is of no audit\.) Give", err
        )
        assert Path(name).read_text() == "path,label\n"

    def test_an_earlier_audit_is_replaced(self, root: Path, run: Any) -> None:
        run("--data.root", root, "--out", "out")
        page, findings = Path("out/audit.html"), Path("out/audit.json")
        old = findings.read_text()
        page.unlink()  # as if it had ended before the second
        findings.write_text(old.replace('"n": ', '"n": 1'))
        assert run("--data.root", root, "--out", "out")[0] == 0
        assert (page.is_file(), findings.read_text()) == (True, old)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--out", "out"], r"error: --out out can't be written: Is a directory"),
            (["--out", "fine", "--fix", "left.csv"], r"error: --fix left\.csv can't be written: "),
        ],
    )
    def test_what_gets_in_the_way_meanwhile(
        self, words: Sequence[str], said: str, root: Path, run: Any, monkeypatch: Any
    ) -> None:
        def slowly(listing: Listing) -> Inspected:
            Path("out/audit.html").mkdir(parents=True)
            Path("left.csv").mkdir()
            return inspect(listing)

        monkeypatch.setattr(audit, "inspect", slowly)
        code, _, err = run("--data.root", root, *words)
        assert code == 2
        assert re.search(said, err)
        assert "Traceback" not in err and ".tmp" not in err

    def test_a_full_disk(self, root: Path, run: Any, monkeypatch: Any) -> None:
        def full(path: Path, *_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", f"{path}.tmp")

        monkeypatch.setattr(audit, "write_text", full)
        code, _, err = run("--data.root", root, "--out", "out")
        assert code == 1
        assert err == (
            "error: --out out can't be written: No space left on device. Free some space; a second "
            "look at the same files is quick.\n"
        )

    def test_ctrl_c(self, root: Path, run: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(audit, "inspect", lambda _: os.kill(os.getpid(), signal.SIGINT))
        code, _, err = run("--data.root", root, "--out", "out")
        assert (code, err) == (130, "stopped by Ctrl-C\n")
        assert not Path("out").exists()


CLASSES = ("bee", "wasp")


def write_run(folder: Path, root: Path) -> list[str]:
    """Write a run that was tested on the drawn pictures, and return the paths of these.

    Three bees and three wasps. It is sure of bees at 0.9, 0.9 and 0.1, which is 0.63 on average;
    of wasps at 0.8, 0.4 and 0.2, so 0.47. The third bee is a wasp at 0.9, above 0.47. The second
    wasp is a bee at 0.6, below 0.63, and the third at 0.8, above it.
    """
    folder.mkdir()
    listing = list_data(root)
    hashes = [found.hash for found in scan(listing.root, listing.paths)]
    index = Index.of(listing, CLASSES, hashes)
    index.to_csv(folder / "samples.csv")
    (folder / "config.yaml").write_text("{}\n")
    write_json(folder / "run.json", {"data": {"root": str(root), "classes": list(CLASSES)}})
    tested = index.subset("test")
    bee = np.array([0.9, 0.9, 0.1, 1 - 0.8, 1 - 0.4, 1 - 0.2])
    logits = np.log(np.stack([bee, 1 - bee], 1))
    table = Table.from_rows(np.arange(6), tested.labels, logits)
    more = {"checkpoint": "best.ckpt", "data_fingerprint": "f" * 64}
    write_scores(folder / "test.json", tested.paths, table, CLASSES, Decision(), more)
    return list(tested.paths)


class TestRun:
    def test_labels_that_it_contradicts(self, root: Path, run: Any) -> None:
        paths = write_run(Path("run"), root)
        code, _, _ = run("--run_dir", "run", "--out", "out")
        assert code == 0
        notes = {note["note"]: note["paths"] for note in read(Path("out"))["notes"]}
        assert notes == {
            "labelled bee, and the run is sure of wasp": [paths[2]],
            "labelled wasp, and the run is sure of bee": [paths[5]],
        }

    def test_a_picture_that_is_damaged_by_now(self, root: Path, run: Any) -> None:
        paths = write_run(Path("run"), root)
        (root / paths[2]).write_bytes(b"")
        assert run("--run_dir", "run", "--out", "out")[0] == 1
        assert [note["paths"] for note in read(Path("out"))["notes"]] == [[paths[5]]]

    def test_the_splits_are_the_runs(self, root: Path, run: Any) -> None:
        shutil.copy(root / "train/bee/0.png", root / "train/bee/again.png")
        write_run(Path("run"), root)
        text = Path("run/samples.csv").read_text()
        Path("run/samples.csv").write_text(text.replace("again.png,bee,train", "again.png,bee,val"))
        assert run("--run_dir", "run", "--out", "out")[0] == 1
        assert read(Path("out"))["leaks"][0]["splits"] == ["train", "val"]

    def test_the_groups_are_those_of_the_csv(self, root: Path, run: Any) -> None:
        names = [path.relative_to(root.parent).as_posix() for path in root.rglob("*.png")]
        rows = [f"{name},{name.split('/')[2]},{name.split('/')[1]},of {name}" for name in names]
        Path("data.csv").write_text("path,label,split,group\n" + "\n".join(rows))
        write_run(Path("run"), Path("data.csv"))
        assert run("--run_dir", "run", "--out", "out", "--fix", "left.csv")[0] == 0
        left = list_data("left.csv")
        assert left.groups == tuple(f"of {path}" for path in left.paths)

    @pytest.mark.parametrize("about", [[], "data", None, {"root": "insects", "classes": 3}])
    def test_a_record_of_the_run_that_is_none(self, about: object, root: Path, run: Any) -> None:
        write_run(Path("run"), root)
        write_json(Path("run/run.json"), {"data": about})
        code, _, err = run("--run_dir", "run")
        assert code == 2
        assert re.search(r"run/run\.json: data has to have root and classes, and is ", err)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
    def test_a_pipe_that_the_run_names_is_not_opened(self, root: Path, run: Any) -> None:
        paths = write_run(Path("run"), root)
        (root / paths[0]).unlink()
        os.mkfifo(root / paths[0])
        code, _, err = run("--run_dir", "run")
        assert code == 2
        assert re.search(rf"{paths[0]}, which run/samples\.csv names, is no file", err)

    def test_data_that_have_moved(self, root: Path, run: Any) -> None:
        write_run(Path("run"), root)
        root.rename("elsewhere")
        code, _, err = run("--run_dir", "run")
        assert code == 2
        assert re.search(
            r"pictures of run are not in .*insects any more.*--data\.root DIR too", err
        )
        assert run("--run_dir", "run", "--data.root", "elsewhere")[0] == 0

    def test_a_run_that_was_not_scored(self, root: Path, run: Any) -> None:
        write_run(Path("run"), root)
        Path("run/test.json").unlink()
        code, _, err = run("--run_dir", "run")
        assert code == 2
        assert "run was not scored" in err and "src.train validate --run_dir run" in err

    def test_a_class_that_nothing_bears_is_never_sure(self) -> None:
        scored = Scored(
            Path(), "best.ckpt", CLASSES, "f", ("a", "b"), ("bee", "bee"), ("wasp", "bee"),
            np.array([[0.1, 0.9], [0.9, 0.1]]),
        )  # fmt: skip
        assert doubted(scored) == []

    def test_a_picture_without_a_label_contradicts_none(self) -> None:
        scored = Scored(
            Path(), "best.ckpt", CLASSES, "f", ("a", "b"), ("", "wasp"), ("wasp", "wasp"),
            np.array([[0.1, 0.9], [0.2, 0.8]]),
        )  # fmt: skip
        assert doubted(scored) == []


@pytest.mark.cli
def test_as_a_program(root: Path) -> None:
    """Its own process, and a terminal that knows ASCII alone."""
    shutil.copy(root / "train/bee/0.png", root / "test/bee/é.png")
    done = subprocess.run(
        [sys.executable, "-m", "src.audit", "--data.root", "insects", "--out", "out"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "leaks between splits: 1 (1 exact, 0 near)" in done.stdout
    assert r"test/bee/\xe9.png" in done.stdout
    assert done.stderr == ""
    assert read(Path("out"))["leaks"][0]["paths"] == ["test/bee/é.png", "train/bee/0.png"]


def test_the_docs_name_options_that_exist() -> None:
    page = (ROOT / "docs/audit.md").read_text("utf-8")
    lines = re.findall(r"^(?:\$ )?python -m src\.audit (.*)$", page, re.MULTILINE)
    assert lines
    for line in lines:
        with contextlib.suppress(SystemExit):
            parser().parse_args(line.split())
