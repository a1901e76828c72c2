"""What a file from elsewhere may name, by hand-made names; nothing of it is imported."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.errors import UserError
from src.options import FitOptions, RunOptions
from src.trust import (
    NEVER_STORED,
    Origin,
    check_hyper_parameters,
    check_names,
    check_stored_config,
    is_under,
    root_for_lightning,
)

HERE = Origin("RUN/config.yaml")


def spec(name: Any, **init_args: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": init_args}


def test_a_prefix_ends_at_a_dot() -> None:
    assert is_under("torch.optim", ["torch.optim"])
    assert is_under("torch.optim.SGD", ["torch.nn", "torch.optim"])
    assert not is_under("torch.optimizer_evil.SGD", ["torch.optim"])
    assert not is_under("torch", ["torch.optim"])
    assert not is_under("evil", [""])
    assert not is_under("", ["torch"])


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"net": spec("src.models.SmallResNet", widths=[4, 8])}},
        {"model": {"net": "src.models.SmallResNet", "loss": spec("torch.nn.MSELoss")}},
        {"model": {"optimizer": spec("torch.optim.SGD", lr=0.1, fused=None)}},
        {"model": {"scheduler": spec("torch.optim.lr_scheduler.StepLR")}},
        {"model": {"scheduler": spec("lightning.pytorch.cli.ReduceLROnPlateau", monitor="x")}},
        {"model": {"scheduler": spec("src.schedules.OneCycle")}},
        {"data": {"source": spec("src.data.sources.SyntheticInsects"), "augment": []}},
        {"data": {"source": spec("src.data.sources.Archive", url="https://a.org/b.zip")}},
        {"data": {"augment": [spec("OneOf", transforms=[spec("albumentations.ColorJitter")])]}},
        {"data": {"root": "src.tar", "classes": ["os.path", "src/__init__.py", "a::b"]}},
        {"trainer": {"logger": spec("src.loop.wandb_logger.WandbLogger", project="os.path")}},
        {"trainer": {"logger": [spec("lightning.pytorch.loggers.CSVLogger", save_dir="os.x")]}},
        {"trainer": {"callbacks": [spec("lightning.pytorch.callbacks.EarlyStopping")]}},
        {"trainer": {"callbacks": spec("callbacks.Throughput"), "max_time": "00:01:00:00"}},
        {"trainer": {"strategy": spec("lightning.pytorch.strategies.DDPStrategy")}},
        {"trainer": {"plugins": [spec("lightning.pytorch.plugins.MixedPrecision")]}},
        {"monitor": "val/accuracy", "seed": 0, "x": True, "y": ["1.5", "v1.2", ".", "a..b"]},
        {"x": {0: 1, 4: 2}, "z": "no_such_module.Thing", "text": "one: two: three", "empty": ""},
    ],
)  # fmt: skip
def test_what_an_honest_run_stores_is_taken(config: dict[str, Any]) -> None:
    check_names(config, HERE)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (spec("this.d"), r"key names this\.d\. .*from the run folder.*--trust_code this\."),
        ("this.d", r"key names this\.d"),
        (["fine", ("this.d",)], r"key names this\.d"),
        ({"a": {"b": [{"c": "this.d"}]}}, r"key\.a\.b\.c names this\.d"),
        ({"a+": ["this.d"]}, r"key\.a names this\.d"),
        (spec("no_such_module.Net"), r"key names no_such_module\.Net"),
        (spec("Net"), r"key names the class 'Net'; the run folder stores full dotted names"),
        (spec("runs/shared/evil.Net"), r"names the class 'runs/shared/evil\.Net'"),
        (spec(" this.d"), r"names the class ' this\.d'"),
        (spec(["this.d"]), r"key\.class_path is \['this\.d'\]; expected is a dotted name"),
        (spec(spec("this.d")), r"key\.class_path is \{.*expected is a dotted name"),
        # text that is YAML
        ("{class_path: this.d}", r"key names this\.d"),
        ("- this.d", r"key names this\.d"),
        ('{"net": {"class_path": "this.d", "n": 1}}', r"key\.net names this\.d"),
        ("a: '{b: [this.d]}'", r"key\.a\.b names this\.d"),
        ("{class_path: this.d, day: 2020-99-99}", r"key names this\.d"),
        ("!!set {this.d}", r"key names this\.d"),
        ("!!omap [this.d: 1]", r"key names this\.d"),
        # through a trusted module to something else
        ("torch.nn.modules.module.functools.partial", r"where \S+ is functools\..*code functools"),
        ("lightning.pytorch.callbacks.timer.re.compile", r"where \S+\.re is re\."),
        ("src.data.datamodule.Path", r"datamodule\.Path, which is pathlib\.Path"),
        ("src.data.datamodule.sys", r"datamodule\.sys, which is sys"),
        ("src.data.sources.hashlib.md5", r"where src\.data\.sources\.hashlib is hashlib\."),
        ("torch.nn.os.system", r"there is no torch\.nn\.os"),
        ("src.models.NoSuchNet", r"there is no src\.models\.NoSuchNet"),
        # trusted, but no class; or no room that a run takes parts from
        ("torch.nn.functional.relu", r"relu, which is no class"),
        ("torch.nn.functional", r"functional, which is no class"),
        ("lightning.pytorch.cli.LightningCLI", r"names lightning\.pytorch\.cli\.LightningCLI"),
        ("lightning.pytorch.trainer.connectors.signal_connector.call", r"signal_connector\.call"),
        ("torch.hub.load", r"key names torch\.hub\.load.*--trust_code torch\.hub\."),
        ("src.train.main", r"key names src\.train\.main"),
        ("builtins.exec", r"key names builtins\.exec"),
        # more config elsewhere
        ("http://127.0.0.1/a", r"key is http://127\.0\.0\.1/a, a file or an address"),
        ("simplecache::a.yaml", r"a file or an address"),
        # what no config holds
        ({"a": {1, 2}}, r"key\.a is a set; a config holds"),
        ({"a": b"this.d"}, r"key\.a is a bytes"),
        ({"a": print}, r"key\.a is a builtin_function_or_method"),
    ],
)  # fmt: skip
def test_what_is_refused(value: Any, match: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UserError, match=rf"^RUN/config\.yaml: (?s:.*){match}"):
        check_names({"key": value}, HERE)
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    assert "this" not in new


def test_exempt_are_plain_values_alone() -> None:
    check_names({"data": {"root": "this.d"}}, HERE)
    for root in (spec("this.d"), "{class_path: this.d}", "[this.d]", {"x": "this.d"}):
        with pytest.raises(UserError, match=r"this\.d"):
            check_names({"data": {"root": root}}, HERE)
    with pytest.raises(UserError, match=r"model\.data\.root names this\.d"):
        check_names({"model": {"data": {"root": "this.d"}}}, HERE)


def test_files_of_text_are_refused_and_weights_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net").write_text("class_path: this.d")
    Path("weights").write_bytes(b"\xff\xfe\x00\x80")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    (tmp_path / "folder/beside").write_text("x")
    check_names(
        {"x": ["weights", str(tmp_path / "weights"), "folder", "absent", "\0", "y" * 999]}, HERE
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("net", "./net", str(tmp_path / "net"), "~/net", "pipe"):
        with pytest.raises(UserError, match=r"x is .*a file.*take that line out of config\.yaml"):
            check_names({"x": name}, HERE)
    check_names({"x": "beside"}, HERE)
    with pytest.raises(UserError, match=r"x is beside, a file"):
        check_names({"x": "beside"}, Origin("RUN/config.yaml", folder=tmp_path / "folder"))


def test_a_package_is_never_more_than_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is a folder without any Python file at its top."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strange_runs/one").mkdir(parents=True)
    (tmp_path / "strange_runs/one/code.py").write_text("raise SystemExit('imported')")
    with pytest.raises(UserError, match=r"--trust_code strange_runs\."):
        check_names({"x": "strange_runs.one.code.Net"}, HERE)
    assert not any(name.startswith("strange_runs") for name in sys.modules)


def test_vouching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vouched_nets.py").write_text(
        "import os, functools\nclass Net: pass\ndef make(): pass\nready = functools.partial(make)\n"
    )
    mine = Origin("RUN/config.yaml", prefixes=("vouched_nets",))
    for name in ("Net", "make", "ready"):
        check_names({"x": spec(f"vouched_nets.{name}")}, mine)
    with pytest.raises(UserError, match=r"where vouched_nets\.os is os"):
        check_names({"x": "vouched_nets.os.system"}, mine)
    with pytest.raises(UserError, match=r"names vouched_nets\.Net"):
        check_names({"x": "vouched_nets.Net"}, Origin("RUN/config.yaml", prefixes=("vouched",)))
    check_names({"x": "torch.nn.functional.relu"}, Origin("a", prefixes=("torch.nn.functional",)))
    del sys.modules["vouched_nets"]


@pytest.mark.parametrize("prefix", ["", "my_nets.", "my-nets", "./my_nets", "*"])
def test_a_prefix_that_is_none(prefix: str) -> None:
    with pytest.raises(UserError, match=r"--trust_code is .*; give the first part of a class path"):
        Origin("RUN/config.yaml", prefixes=(prefix,))


def test_circles_and_bombs_end() -> None:
    with pytest.raises(UserError, match=r"nested too deeply"):
        check_names(yaml.safe_load("a: &a [*a]"), HERE)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(UserError, match=r"more than 100,000 values"):
        check_names(yaml.safe_load("\n".join(lines)), HERE)


@pytest.mark.parametrize("key", [*NEVER_STORED, "config+", "trust_code.x"])
def test_options_that_a_run_never_stores(key: str) -> None:
    with pytest.raises(UserError, match=r"RUN/config\.yaml sets .*the run folder never stores"):
        check_stored_config({"model": {}, key: "x"}, HERE)
    check_stored_config({"model": {key: "x"}, "progress": "bar"}, HERE)


def test_the_list_of_these_options_is_whole() -> None:
    from src import cli

    assert set(cli._NOT_STORED) <= set(NEVER_STORED)
    options = {*RunOptions.__dataclass_fields__, *FitOptions.__dataclass_fields__}
    assert set(NEVER_STORED) & options == set(cli._NOT_STORED) & options


def test_hyper_parameters() -> None:
    path = Path("best.ckpt")
    honest = {
        "net": spec("src.models.SmallResNet"),
        "scheduler": None,
        "num_classes": 2,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "_class_path": "src.classifier.Classifier",
    }
    check_hyper_parameters({"hyper_parameters": honest, "state_dict": {}}, path, (), ())
    check_hyper_parameters({}, path, (), ())
    for place in ("hyper_parameters", "hparams", "module_arguments"):
        evil = {place: {**honest, "net": spec("this.d")}}
        with pytest.raises(
            UserError, match=r'best\.ckpt: net names this\.d\..*trust_code=\["this"\]'
        ):
            check_hyper_parameters(evil, path, (), ())
        check_hyper_parameters(evil, path, ("net",), ())
        with pytest.raises(UserError, match=rf"{place} is \[.*expected is a mapping"):
            check_hyper_parameters({place: [["net", "this.d"]]}, path, (), ())
    for name in ("_instantiator", "_class_path"):
        with pytest.raises(UserError, match=rf"{name} names this\.d"):
            check_hyper_parameters({"hyper_parameters": {name: "this.d"}}, path, (), ())


def test_lightning_gets_a_folder_without_checkpoints_of_slurm(tmp_path: Path) -> None:
    assert root_for_lightning(tmp_path / "absent") == tmp_path / "absent"
    assert not (tmp_path / "absent").exists()
    (tmp_path / "best.ckpt").touch()
    assert root_for_lightning(tmp_path) == tmp_path
    (tmp_path / "hpc_ckpt_3.ckpt").touch()
    assert root_for_lightning(tmp_path) == tmp_path / "lightning"
    (tmp_path / "lightning" / "x_hpc_ckpt_4.ckpt").touch()
    assert root_for_lightning(tmp_path) == tmp_path / "lightning" / "lightning"
    assert root_for_lightning(tmp_path).is_dir()
