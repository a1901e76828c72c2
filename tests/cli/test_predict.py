"""Predictions of an exported model: the same table as training's, without training's libraries."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.bundle import Bundle, digest
from src.bundle_record import Record
from src.errors import UserError
from src.predict import main, predictions
from tests.cli.conftest import Cli, Ended, draw
from tests.helpers import ROOT

HEAD = "path,predicted_class,prob_ant,prob_bug,error\n"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle."""
    return Path(shutil.copytree(exported, tmp_path / "a bundle"))


def predict(capsys: pytest.CaptureFixture[str], *words: object) -> Ended:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Ended(code, *capsys.readouterr())


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


class TestTable:
    def test_it_is_that_of_train_predict(
        self, exported: Path, trained: Path, pictures: Path, cli: Cli, tmp_path: Path
    ) -> None:
        """The columns, the classes and the digits; the paths are as they were given."""
        run = shutil.copytree(trained, tmp_path / "run")
        assert cli("predict", "--run_dir", run, "--data.root", pictures / "test").code == 0
        wanted = (run / "predictions.csv").read_text()
        ended = subprocess.run(
            [sys.executable, "-m", "src.predict", exported, pictures / "test"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        prefix = str(pictures / "test") + "/"
        assert ended.stdout.replace(prefix, "") == wanted

    def test_json_lines(
        self, exported: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = str(pictures / "test/ant/0.png")
        ended = predict(capsys, exported, path, "--format", "jsonl")
        found = json.loads(ended.out)
        shares = Bundle(exported).probabilities(Bundle(exported).pixels(path)[None])[0]
        assert found == {
            "path": path,
            "predicted_class": ["ant", "bug"][int(shares.argmax())],
            "probabilities": {"ant": float(shares[0]), "bug": float(shares[1])},
            "error": None,
        }

    @pytest.mark.parametrize("variant", ["fp16", "int8"])
    def test_other_models(
        self, variant: str, exported: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = (exported, pictures / "test")
        exact = rows_of(predict(capsys, *words).out)
        other = rows_of(predict(capsys, *words, "--variant", variant).out)
        near = [
            abs(float(a["prob_ant"]) - float(b["prob_ant"]))
            for a, b in zip(exact, other, strict=True)
        ]
        assert 0 < max(near) < {"fp16": 0.01, "int8": 0.2}[variant]

    @pytest.mark.parametrize("batch_size", [1, 3, 100])
    def test_order_and_rows_do_not_depend_on_batches(
        self, batch_size: int, exported: Path, pictures: Path
    ) -> None:
        paths = [str(path) for path in sorted((pictures / "train").rglob("*.png"))]
        bundle = Bundle(exported, threads=1)
        found = list(predictions(bundle, paths, batch_size, 3))
        assert [row[0] for row in found] == paths
        alone = bundle.probabilities(np.stack([bundle.pixels(path) for path in paths]))
        assert np.array([row[2] for row in found]) == pytest.approx(alone, abs=1e-6)

    def test_names_of_all_kinds(
        self, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = ["a,b.png", 'say "x".png', "ü 蜂.png", "a\rb.png", "a\nb.png"]
        if sys.platform == "win32":
            names = names[:1] + names[2:3]
        for name in names:
            draw(tmp_path / "d" / name, 0, 1)
        found = rows_of(predict(capsys, exported, tmp_path / "d").out)
        assert sorted(Path(row["path"]).name for row in found) == sorted(names)


class TestBadFiles:
    @pytest.fixture
    def mixed(self, tmp_path: Path) -> Path:
        folder = tmp_path / "mixed"
        draw(folder / "a.png", 0, 1)
        (folder / "b.jpg").write_bytes(b"")
        (folder / "c.txt").write_text("no picture")
        (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:200])
        draw(folder / "e.png", 1, 2)
        return folder

    def test_they_stop_nothing_and_are_told(
        self, mixed: Path, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = mixed.parent / "p.csv"
        ended = predict(capsys, exported, mixed, mixed / "a.png", "--out", out)
        assert ended.code == 1
        assert "3 of 6 files could not be read; the column error says why." in ended.err
        rows = rows_of(out.read_text())
        assert [Path(row["path"]).name[0] for row in rows] == list("abcdea")
        errors = [row["error"].partition(":")[0] for row in rows]
        assert errors == ["", "empty file", "not a picture", "truncated", "", ""]
        assert rows[1]["predicted_class"] == rows[1]["prob_ant"] == ""
        assert rows[0]["predicted_class"]

    def test_a_list_may_name_what_is_not_there(
        self, mixed: Path, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = mixed / "list.csv"
        table.write_text("path\na.png\ngone.png\n.\n")
        rows = rows_of(predict(capsys, exported, table).out)
        assert [row["error"] for row in rows] == ["", "No such file or directory", "Is a directory"]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
    def test_a_pipe_is_not_opened(self, mixed: Path, exported: Path) -> None:
        """Whoever opens it waits for a writer, for ever."""
        os.mkfifo(mixed / "f.png")
        words = [sys.executable, "-m", "src.predict", exported, mixed]
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert rows_of(ended.stdout)[-1]["error"] == "not a regular file"

    def test_a_name_that_can_not_be_one(
        self, exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As `find -print0` writes them."""
        monkeypatch.setattr("sys.stdin", io.StringIO("a.png\0b.png\0"))
        ended = predict(capsys, exported, "-", "--format", "jsonl")
        assert ended.code == 1
        assert "null byte" in json.loads(ended.out)["error"]

    @pytest.mark.parametrize(
        ("place", "raised", "error"),
        [
            ("src.preprocess.open_rgb", MemoryError(), "there is not enough memory for it"),
            ("src.preprocess.resize", RuntimeError("odd"), "broken: odd"),
        ],
    )
    def test_one_picture_alone_fails(
        self,
        place: str,
        raised: Exception,
        error: str,
        mixed: Path,
        exported: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fails(*words: object) -> object:
            raise raised

        monkeypatch.setattr(place, fails)
        ended = predict(capsys, exported, mixed / "a.png")
        assert ended.code == 1
        assert rows_of(ended.out)[0]["error"] == error

    def test_a_row_without_a_path_keeps_its_place(
        self, mixed: Path, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = mixed / "list.csv"
        table.write_text("path,label\n,ant\na.png,bug\n")
        rows = rows_of(predict(capsys, exported, table).out)
        assert [row["error"] for row in rows] == ["the row names no file", ""]

    def test_tables_among_the_pictures_are_left_out(
        self, pictures: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = shutil.copytree(pictures / "test", tmp_path / "d")
        for name in ("p.csv", "p.csv", "q.jsonl", "r.csv"):
            assert predict(capsys, exported, folder, "--out", folder / name).code == 0

    def test_json_lines_of_them(
        self, mixed: Path, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ended = predict(capsys, exported, mixed / "b.jpg", "--format", "jsonl")
        assert ended.code == 1
        assert json.loads(ended.out) == {
            "path": str(mixed / "b.jpg"),
            "predicted_class": None,
            "probabilities": None,
            "error": "empty file",
        }


class TestProgram:
    def test_it_loads_nothing_of_training(self, exported: Path, pictures: Path) -> None:
        code = (
            "import sys; from src.predict import main; main(sys.argv[1:]); "
            "print({m.split('.')[0] for m in sys.modules} "
            "& {'torch', 'lightning', 'albumentations', 'cv2', 'scipy', 'wandb', 'onnx'})"
        )
        words = [sys.executable, "-c", code, exported, pictures / "test/ant/0.png"]
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert ended.stdout.splitlines()[-1] == "set()", ended.stderr

    @pytest.mark.skipif(sys.platform == "win32", reason="a pipe closed early is a POSIX matter")
    def test_whoever_reads_may_stop(self, exported: Path, pictures: Path) -> None:
        words = [sys.executable, "-m", "src.predict", exported, *[pictures] * 30]
        with subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program:
            assert program.stdout is not None and program.stderr is not None
            assert program.stdout.readline().startswith(b"path,")
            program.stdout.close()
            assert program.stderr.read() == b""
            assert program.wait(60) == 0

    @pytest.mark.skipif(sys.platform == "win32", reason="links and devices of POSIX")
    def test_a_link_or_a_device_stays_one(
        self, exported: Path, pictures: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "real.csv").write_text(HEAD)
        (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
        (tmp_path / "null").symlink_to("/dev/null")
        for name in ("link.csv", "null"):
            words = [str(exported), str(pictures / "test/ant/0.png"), "--out", str(tmp_path / name)]
            assert main(words) == 0
            assert (tmp_path / name).is_symlink()
        assert (tmp_path / "real.csv").read_text().startswith("path,")
        assert Path("/dev/null").is_char_device()

    def test_an_interrupted_table_has_another_name(
        self, exported: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "p.csv"
        out.write_text(HEAD)

        def broken(*words: object) -> object:
            yield ("a.png", "ant", [1.0, 0.0], "")
            raise KeyboardInterrupt

        monkeypatch.setattr("src.predict.predictions", broken)
        with pytest.raises(KeyboardInterrupt):
            main([str(exported), str(pictures), "--out", str(out)])
        assert out.read_text() == HEAD
        assert "a.png,ant,1.000000" in (tmp_path / "p.csv.part").read_text()


class TestMistakes:
    @pytest.mark.parametrize(
        "name", ["a.jpg", "list.csv", "bundle.json", "p.csv.part", "list.jsonl"]
    )
    def test_out_replaces_no_other_file(
        self, name: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        draw(tmp_path / "a.png", 0, 5)
        own = '{"path": "a.png", "label": "bee"}\n' if name == "list.jsonl" else "path,label\n"
        (tmp_path / name).write_text(own)
        out = tmp_path / name.removesuffix(".part")
        ended = predict(capsys, exported, tmp_path / "a.png", "--out", out)
        assert ended.code == 2
        assert f"{name} is there, and is no table of this command. Give another" in ended.err
        assert (tmp_path / name).read_text() == own

    def test_a_folder_where_the_unfinished_table_goes(
        self, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        draw(tmp_path / "a.png", 0, 5)
        (tmp_path / "p.csv.part").mkdir()
        ended = predict(capsys, exported, tmp_path / "a.png", "--out", tmp_path / "p.csv")
        assert ended.code == 2
        assert re.search(r"is first written into .*p\.csv\.part, which is a folder", ended.err)

    @pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ("a.png >&-", 2, "standard output is closed. Give a file: --out p.csv"),
            ("- --out p.csv <&-", 2, "standard input is closed, and - stands for it."),
            ("a.png --out p.csv 2>&-", 0, ""),
        ],
    )
    def test_closed_streams(
        self, words: str, code: int, message: str, exported: Path, tmp_path: Path
    ) -> None:
        draw(tmp_path / "a.png", 0, 5)
        command = f"'{sys.executable}' -m src.predict '{exported}' {words}"
        ended = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
        assert message in ended.stderr
        assert (tmp_path / "p.csv").is_file() == (code == 0)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["nowhere", "."], r"nowhere: there is no such folder\. Give a bundle"),
            (["empty", "."], r"empty is no bundle: it has no bundle\.json\. Give a folder that"),
            (["{bundle}", "no.jpg"], r"no\.jpg: there is no such file or folder"),
            (["{bundle}", ".", "--out", "empty"], r"--out empty is a folder\. Give a file in it"),
            (["{bundle}", ".", "--out", "no/p.csv"], r"there is no folder no\. Make it"),
            (["{bundle}", ".", "--variant", "int4"], r"invalid choice: 'int4'"),
            (["{bundle}", ".", "--batch_size", "0"], r"'0' is no number from 1 on"),
            (["{bundle}", ".", "--threads", "9999"], r"9999 are too many; allowed is 1 to 256"),
            (["{bundle}", ""], r"an empty name was given"),
            (["{bundle}"], r"required: INPUT"),
        ],
    )
    def test_words(
        self,
        words: list[str],
        message: str,
        exported: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("empty").mkdir()
        ended = predict(capsys, *(word.format(bundle=exported) for word in words))
        assert ended.code == 2
        assert re.search(message, ended.err), ended.err

    def test_a_run_folder(self, trained: Path) -> None:
        with pytest.raises(UserError, match=r"It is a run folder: python -m src\.export .* makes"):
            Record.read(trained)

    @pytest.mark.parametrize("name", ["model.onnx", "validation.npz"])
    def test_a_file_that_was_changed(self, name: str, bundle: Path) -> None:
        with (bundle / name).open("r+b") as file:
            file.seek(100)
            file.write(b"\xff\x00\xff")
        with pytest.raises(UserError, match=rf"{name} is not the file that bundle\.json was"):
            assert Bundle(bundle).validation

    def test_without_its_validation_pictures(self, bundle: Path) -> None:
        (bundle / "validation.npz").unlink()
        assert Bundle(bundle).validation == {}

    def test_a_file_that_is_missing(self, bundle: Path) -> None:
        (bundle / "model.onnx").unlink()
        with pytest.raises(UserError, match=r"model\.onnx is missing\. Copy the whole bundle"):
            Bundle(bundle)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda model: b"no model", r"model\.onnx can't be opened: "),
            (lambda model: model.replace(b"\x06pixels", b"\x06pictus"),
             r"model\.onnx has no pixels; it has pictus, probabilities, features\. Export"),
            (lambda model: model.replace(b"\x0dprobabilities", b"\x0dprobabilitiez"),
             r"model\.onnx has no probabilities; it has pixels, "),
        ],
    )  # fmt: skip
    def test_a_model_of_another_kind(
        self, change: Callable[[bytes], bytes], message: str, bundle: Path
    ) -> None:
        path = bundle / "model.onnx"
        path.write_bytes(change(path.read_bytes()))
        about = json.loads((bundle / "bundle.json").read_text())
        about["files"]["model.onnx"]["sha256"] = digest(path)
        (bundle / "bundle.json").write_text(json.dumps(about))
        with pytest.raises(UserError, match=message):
            Bundle(bundle)

    def test_a_record_that_is_too_large(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.bundle_record._MOST_BYTES", 10)
        with pytest.raises(UserError, match=r"can't be read: it has more than 10 bytes"):
            Record.read(bundle)

    def test_a_model_that_was_not_exported(self, bundle: Path) -> None:
        about = json.loads((bundle / "bundle.json").read_text())
        del about["files"]["model.int8.onnx"]
        (bundle / "bundle.json").write_text(json.dumps(about))
        with pytest.raises(
            UserError, match=r"no model of the variant 'int8': it has fp32, fp16\. Export"
        ):
            Bundle(bundle, "int8")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": 2}, r"is of format 2; this version reads 1"),
            ({"preprocessing": {}}, r"bundle\.json is damaged \(ValueError: a preprocessing"),
            ({"threshold": "x"}, r"bundle\.json is damaged \(ValueError"),
            ({"threshold": "0.5"}, r"damaged \(ValueError: a threshold of '0\.5', and 2 class"),
            ({"threshold": 10**400}, r"damaged \(OverflowError"),
            ({"threshold": True}, r"damaged \(ValueError: a threshold of True, and 2 classes"),
            (
                {"run": json.loads("[" * 30 + "]" * 30)},
                r"damaged \(ValueError: nested in more than 20 levels",
            ),
            ({"threshold": float("nan")}, r"damaged \(ValueError: a threshold of nan, and 2 class"),
            ({"files": {"../../etc/passwd": {"sha256": "0"}}}, r"bundle\.json is damaged"),
            ({"files": []}, r"bundle\.json is damaged \(AttributeError"),
            ({"run": "\ud800"}, r"bundle\.json is damaged \(UnicodeEncodeError"),
            ({"scores": {"val": 5}}, r"damaged \(ValueError: scores that are no mappings"),
            (None, r"bundle\.json is damaged"),
        ],
    )
    def test_a_damaged_record(
        self, change: dict[str, object] | None, message: str, bundle: Path
    ) -> None:
        path = bundle / "bundle.json"
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, **change} if change is not None else []))
        with pytest.raises(UserError, match=message):
            Record.read(bundle)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"classes": ["a"]}, r"two or more, no two alike: \('a',\)"),
            ({"classes": ["a", "a"]}, r"two or more, no two alike: \('a', 'a'\)"),
            ({"classes": ["a", 2]}, r"a class that is no name: \('a', 2\)"),
            ({"classes": ["a", ""]}, r"a class that is no name: \('a', ''\)"),
            ({"classes": "ab"}, r"a class that is no name: ab"),
            ({"mean": [float("nan"), 0, 0]}, r"a mean or a std that is no number"),
            ({"mean": ["0", 0, 0]}, r"a mean or a std that is no number"),
            ({"image_size": 64.0}, r"image_size is 64\.0, not a whole number up to 4096"),
            ({"image_size": 10**9}, r"image_size is 1000000000, not a whole number up to 4096"),
        ],
    )
    def test_a_record_of_no_model(
        self, change: dict[str, object], message: str, bundle: Path
    ) -> None:
        path = bundle / "bundle.json"
        about = json.loads(path.read_text())
        about["preprocessing"].update(change)
        path.write_text(json.dumps(about))
        with pytest.raises(UserError, match=rf"bundle\.json is damaged \(ValueError: .*{message}"):
            Record.read(bundle)

    @pytest.mark.parametrize("data", [b"\xff{", b"[" * 100_000], ids=["no text", "too deep"])
    def test_a_record_that_is_no_json(self, data: bytes, bundle: Path) -> None:
        (bundle / "bundle.json").write_bytes(data)
        with pytest.raises(UserError, match=r"bundle\.json can't be read: "):
            Record.read(bundle)

    def test_without_onnxruntime(self, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(UserError, match=r"needs onnxruntime, .*pip install -e"):
            Bundle(exported)


def test_a_threshold_decides_as_in_training(exported: Path) -> None:
    """By Decision of training, on probabilities around the threshold."""
    from src.calibration import Decision

    bundle = Bundle(exported)
    threshold = bundle.record.threshold
    assert threshold is not None
    second = np.array([0.0, threshold - 1e-3, threshold, threshold + 1e-3, 1.0])
    shares = np.stack([1 - second, second], axis=1)
    with np.errstate(divide="ignore"):
        logits = np.log(shares)
    wanted = Decision(1.0, threshold).predicted(np.maximum(logits, -50))
    assert bundle.predicted(shares).tolist() == [0, 0, 1, 1, 1] == wanted.tolist()


def test_a_threshold_is_compared_in_full_precision(exported: Path) -> None:
    """NumPy would round it to the probabilities' 32 bits, where both are equal."""
    bundle = Bundle(exported)
    share = np.float32(0.3)
    record = dataclasses.replace(bundle.record, threshold=float(share) + 1e-9)
    bundle.record = record
    assert bundle.predicted(np.array([[1 - share, share]], np.float32)).tolist() == [0]
