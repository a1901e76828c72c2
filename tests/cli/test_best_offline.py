"""The name that stands for the best network that is installed."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.models import BestOffline, EfficientNetLite0, SmallResNet, weights
from tests.cli.conftest import Cli
from tests.test_docs import ROOT

FOLDER = f"--config={ROOT / 'configs/folder.yaml'}"
QUICK = ["--trainer.max_epochs=1", "--trainer.logger=false", "--data.image_size=32"]
CROP = "[{class_path: albumentations.HorizontalFlip}]"


def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LITE0_PACKAGE", "a-package-that-nobody-has")


def net_of(run: str) -> Any:
    return yaml.safe_load(Path(run, "config.yaml").read_text())["model"]["net"]


def test_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(BestOffline(3), EfficientNetLite0)
    without_weights(monkeypatch)
    made: Any = BestOffline(3)
    assert isinstance(made, SmallResNet) and made.head.out_features == 3


@pytest.mark.cli
class TestProgram:
    def words(self, pictures: Path, run: str) -> list[str]:
        crops = [f"--data.augment={CROP}", "--data.cache_size=null"]
        return ["fit", FOLDER, f"--data.root={pictures}", f"--run_dir={run}", *QUICK, *crops]

    def test_with_the_extra(self, cli: Cli, pictures: Path) -> None:
        """One run, begun, refused another rate, gone on with and scored: each is slow."""
        ended = cli(*self.words(pictures, "run"))
        assert ended.code == 0, ended.err
        assert net_of("run")["class_path"] == "src.models.EfficientNetLite0"
        assert "from the pretrained weights of EfficientNetLite0" in ended.out
        refused = cli(*self.words(pictures, "run"), "--ckpt_path=auto", "--model.optimizer.lr=0.3")
        assert refused.code == 2
        assert re.search(r"model\.optimizer\.init_args\.lr is 0\.3 and was 0\.0005", refused.err)
        again = cli("fit", "--run_dir=run", "--ckpt_path=last", "--trainer.max_epochs=2",
                    "--allow_drift=true")  # fmt: skip
        assert again.code == 0, again.err
        (drift,) = yaml.safe_load(Path("run/run.json").read_text())["drift"]
        assert [text.split(" ")[0] for text in drift] == ["trainer.max_epochs"]
        assert cli("test", "--run_dir=run").code == 0

    def test_without_it(self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            without_weights(patch)
            ended = cli(*self.words(pictures, "run"))
        assert ended.code == 0, ended.err
        assert "from scratch, by Muon at a rate of 0.008 for all layers and not by" in ended.err
        assert "parameters are trained" not in ended.out  # none is frozen
        assert "pip install -c constraints.txt -e '.[lite0]'" in ended.err
        assert net_of("run")["class_path"] == "src.models.SmallResNet"
        model = yaml.safe_load(Path("run/config.yaml").read_text())["model"]
        assert model["layer_decay"] == 1
        stored = model["optimizer"]
        assert (stored["class_path"], stored["init_args"]["lr"]) == ("src.muon.Muon", 0.008)
        again = cli(*self.words(pictures, "run"), "--ckpt_path=auto", "--trainer.max_epochs=2",
                    "--allow_drift=true")  # fmt: skip
        assert again.code == 0, again.err  # it is what it was, whatever is installed by now
        assert "src.models.SmallResNet and Muon at one rate for all layers, as settled" in again.out
        newest = yaml.safe_load(Path("run/config.resume-1.yaml").read_text())
        assert newest["model"]["net"]["class_path"] == "src.models.SmallResNet"
        assert cli("test", "--run_dir=run").code == 0
