"""The program itself: help, abbreviations, use from Python, what it must not import."""

import subprocess
import sys

import pytest
import yaml

from src.train import main
from tests.cli.conftest import Cli
from tests.helpers import ROOT

COMMANDS = ("fit", "validate", "test", "predict")


def test_help_names_the_commands_and_leaves_the_interpreter_alone(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.code == 0
    assert all(command in ended.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_ours_is_explained(command: str, cli: Cli) -> None:
    ended = cli(command, "--help")
    assert ended.code == 0
    entries = ended.out.split("\n  --")[1:]
    ours = [e for e in entries if not e.startswith(("trainer", "config", "print_config"))]
    names = {e.split()[0].split("[")[0] for e in ours}
    assert {"run_dir", "ckpt_path", "data.root", "data.batch_size", "seed_everything"} <= names
    for entry in ours:
        if entry.split()[0].endswith(".help") or " CONFIG " in entry:
            continue
        assert len(" ".join(entry.split("(type:")[0].split()).split()) > 4, entry
        text = " ".join(entry.split())
        assert "default: " in text or "required" in text or "help CLASS_PATH" in text, entry


def test_ckpt_path_is_ours(cli: Cli) -> None:
    text = " ".join(cli("fit", "--help").out.split())
    assert "`last` goes on with the run in run_dir" in text
    assert "--weights_only" not in text


def test_print_config_is_a_config(cli: Cli, tmp_path: object) -> None:
    printed = cli("fit", "--data.batch_size=7", "--print_config")
    assert printed.code == 0
    assert yaml.safe_load(printed.out)["data"]["batch_size"] == 7


def test_dotted_overrides_win_over_configs_in_order(cli: Cli) -> None:
    from pathlib import Path

    Path("a.yaml").write_text("data: {batch_size: 2, image_size: 40}\n")
    Path("b.yaml").write_text("data: {batch_size: 3}\n")
    ended = cli(
        "fit", "--config=a.yaml", "--config=b.yaml", "--data.split_seed=9", "--print_config"
    )
    data = yaml.safe_load(ended.out)["data"]
    assert (data["batch_size"], data["image_size"], data["split_seed"]) == (3, 40, 9)


def test_main_takes_its_words_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "nonsense"])
    assert main() == 2


def test_help_imports_neither_wandb_nor_albumentations() -> None:
    """Start-up time: what a command does not need is imported late."""
    program = (
        "import sys; from src.train import main; main(['fit', '--help']); "
        "print(sorted({'wandb', 'albumentations', 'requests'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"
