"""A stranger's run folder or checkpoint runs no code; an honest one beside it is taken.

Every case would run the payload's code but for one check. The canary is a file that the payload
writes: as a module when it is imported, as a pickled object when it is loaded.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import yaml

from src.classifier import Classifier
from src.errors import UserError
from src.models import SmallResNet
from tests.cli.conftest import TINY, Cli, make_pictures
from tests.helpers import ROOT

MODULE = """
from pathlib import Path
Path({canary!r}).touch()
import albumentations, torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from src.data.sources import SyntheticInsects
from src.models import SmallResNet
class Net(SmallResNet): pass
class Optimizer(torch.optim.SGD): pass
class Schedule(torch.optim.lr_scheduler.ConstantLR): pass
class Loss(torch.nn.CrossEntropyLoss): pass
class Insects(SyntheticInsects): pass
class Flip(albumentations.HorizontalFlip): pass
class Watch(Callback): pass
class Log(CSVLogger): pass
class Plugin(MixedPrecision): pass
class Profiler(SimpleProfiler): pass
class Strategy(SingleDeviceStrategy): pass
def hook(*args): pass
"""
NAMES = ("evil_code", "callbacks_evil", "runs.shared.evil_run")


class Stranger:
    """A copy of an honest run, and modules beside it that write a file when they are imported.

    Attributes:
        run: the run folder.
        canary: the file.
    """

    def __init__(self, trained: Path, folder: Path) -> None:
        self.folder = folder
        self.run = Path(shutil.copytree(trained, folder / "runs" / "shared"))
        self.config = self.run / "config.yaml"
        self.best = self.run / "checkpoints" / "best.ckpt"
        self.canary = folder / "canary"
        self.honest = {path: path.read_bytes() for path in (self.config, self.best)}
        for name in NAMES:
            path = folder / (name.replace(".", "/") + ".py")
            path.write_text(MODULE.format(canary=str(self.canary)))

    def write(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the stored config."""
        stored = yaml.safe_load(self.config.read_text())
        change(stored)
        text = yaml.safe_dump(stored, sort_keys=False)
        self.config.write_text(text.replace("HERE", str(self.folder)))

    def restore(self) -> None:
        """Make it an honest run again."""
        for path, content in self.honest.items():
            path.write_bytes(content)

    def forget(self) -> None:
        """Undo what an import did."""
        for name in list(sys.modules):
            if name.split(".")[0] in ("evil_code", "callbacks_evil", "runs"):
                del sys.modules[name]
        self.canary.unlink(missing_ok=True)

    def save(self, payload: object, **how: Any) -> None:
        """Put one more thing into the best checkpoint."""
        content = torch.load(self.best, weights_only=True)
        torch.save({**content, "payload": payload}, self.best, **how)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def stranger(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    made = Stranger(trained, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does with the current folder
    yield made
    made.forget()


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a dotted key of the stored config."""

    def change(config: dict[str, Any]) -> None:
        *parts, last = key.split(".")
        for part in parts:
            config = config[part]
        config[last] = value

    return change


def spec(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": init_args}


LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
LAMBDA_LR = "torch.optim.lr_scheduler.LambdaLR"
EVIL = ["evil_code.Watch"]
FOREIGN = r"names {}.*because that name comes from the run folder.*--trust_code {}\."

# group -> {name: (what is changed, what the message says)}; HERE: where the stranger's files lie.
Case = tuple[Callable[[dict[str, Any]], None], str]
SCORED: dict[str, dict[str, Case]] = {
    "the net": {
        "in full": (
            put("model.net", spec("evil_code.Net")),
            FOREIGN.format("evil_code.Net", "evil_code"),
        ),
        "in short": (put("model.net", "evil_code.Net"), r"model\.net names evil_code\.Net"),
        "by a dotted key": (put("model", {"net.class_path": "evil_code.Net"}), r"evil_code\.Net"),
        "in the run folder": (
            put("model.net", spec("runs.shared.evil_run.Net")),
            FOREIGN.format("runs.shared.evil_run.Net", "runs"),
        ),
        "of a module that begins as a trusted one": (
            put("model.net", spec("callbacks_evil.Net")),
            FOREIGN.format("callbacks_evil.Net", "callbacks_evil"),
        ),
    },
    "the net, read from elsewhere": {
        "YAML in a text": (
            put("model.net", "{class_path: evil_code.Net, init_args: {blocks: [2020-99-99]}}"),
            r"model\.net names evil_code\.Net",
        ),
        "a file": (put("model.net", "HERE/net.yaml"), r"model\.net is .*net\.yaml, a file"),
        "a file without a name for it": (
            put("model.net", "HERE/net"),
            r"model\.net is .*net, a fi",
        ),
        "memory": (put("model.net", "memory://net.yaml"), r"net\.yaml, a file or an address"),
    },
    "the rest of the model": {
        "optimizer": (
            put("model.optimizer", spec("evil_code.Optimizer")),
            r"model\.optimizer name",
        ),
        "scheduler": (
            put("model.scheduler", spec("evil_code.Schedule")),
            r"model\.scheduler names",
        ),
        "a function for the scheduler": (
            put("model.scheduler", spec(LAMBDA_LR, lr_lambda="evil_code.hook")),
            r"model\.scheduler\.init_args\.lr_lambda names evil_code\.hook",
        ),
        "a function of another module, through a trusted one": (
            put(
                "model.scheduler",
                spec(LAMBDA_LR, lr_lambda="torch.nn.modules.module.warnings.warn"),
            ),
            r"lr_lambda names .*, where torch\.nn\.modules\.module\.warnings is warnings\.",
        ),
        "loss": (put("model.loss", spec("evil_code.Loss")), r"model\.loss names"),
    },
    "the data": {
        "source": (put("data.source", spec("evil_code.Insects")), r"data\.source names"),
        "an augmentation in a group": (
            put(
                "data.augment", [spec("albumentations.OneOf", transforms=[spec("evil_code.Flip")])]
            ),
            r"data\.augment\.init_args\.transforms names evil_code\.Flip",
        ),
        "augmentations as a text": (
            put("data.augment", "[{class_path: evil_code.Flip}]"),
            r"data\.augment names evil_code\.Flip",
        ),
    },
}

# The same, gone on with by `fit --ckpt_path last`
WENT_ON: dict[str, dict[str, Case]] = {
    "callbacks": {
        "in full": (
            put("trainer.callbacks", [spec("evil_code.Watch")]),
            r"trainer\.callbacks name",
        ),
        "in short": (put("trainer.callbacks", ["evil_code.Watch"]), r"trainer\.callbacks names"),
        "alone": (put("trainer.callbacks", "evil_code.Watch"), r"trainer\.callbacks names"),
        "appended": (
            put("trainer.callbacks+", [spec("evil_code.Watch")]),
            r"trainer\.callbacks na",
        ),
        "in a set": (put("trainer.callbacks", "!!set {evil_code.Watch}"), r"evil_code\.Watch"),
        "in a file": (put("trainer.callbacks", ["HERE/watch.yaml"]), r"watch\.yaml, a file"),
        "a function for one": (
            put("trainer.callbacks", [spec(LAMBDA, on_fit_start="evil_code.hook")]),
            r"trainer\.callbacks\.init_args\.on_fit_start names evil_code\.hook",
        ),
    },
    "the rest of the trainer": {
        "logger": (
            put("trainer.logger", spec("evil_code.Log", save_dir="x")),
            r"trainer\.logger na",
        ),
        "strategy": (
            put("trainer.strategy", spec("evil_code.Strategy")),
            r"trainer\.strategy name",
        ),
        "plugin": (
            put(
                "trainer.plugins", [spec("evil_code.Plugin", precision="bf16-mixed", device="cpu")]
            ),
            r"trainer\.plugins names",
        ),
        "profiler": (
            put("trainer.profiler", spec("evil_code.Profiler")),
            r"trainer\.profiler names",
        ),
    },
    "options that are never stored": {
        "config": (put("config", "HERE/more.yaml"), r"sets config, which .* never stores"),
        "trust_code": (
            lambda config: config.update(trust_code="evil_code", trainer={"callbacks": EVIL}),
            r"sets trust_code, which .* never stores",
        ),
    },
}


def files(folder: Path) -> None:
    """Write the files that the cases read more config from."""
    net, watch = spec("evil_code.Net"), spec("evil_code.Watch")
    for name in ("net", "net.yaml"):
        (folder / name).write_text(yaml.safe_dump(net))
    fsspec.filesystem("memory").pipe("/net.yaml", yaml.safe_dump(net).encode())
    (folder / "watch.yaml").write_text(yaml.safe_dump(watch))
    (folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [watch]}}))


def refuse_all(cases: dict[str, Case], cli: Cli, stranger: Stranger, *words: object) -> None:
    """Each case ends in its message and imports nothing; the honest run is taken at the end."""
    files(stranger.folder)
    for name, (change, match) in cases.items():
        stranger.write(change)
        ended = cli(*words)
        assert not stranger.canary.exists(), (name, ended.err)
        assert ended.code == 2, (name, ended.err)
        assert re.search(match, ended.err), (name, ended.err)
        stranger.restore()
    ended = cli(*words)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("group", SCORED)
def test_a_config_that_is_scored(group: str, cli: Cli, stranger: Stranger) -> None:
    refuse_all(SCORED[group], cli, stranger, "test", "--run_dir", stranger.run)


@pytest.mark.parametrize("group", WENT_ON)
def test_a_config_that_is_gone_on_with(group: str, cli: Cli, stranger: Stranger) -> None:
    words = ("fit", "--run_dir", stranger.run, "--ckpt_path=last", "--trainer.max_epochs=2")
    refuse_all(WENT_ON[group], cli, stranger, *words)


def test_tags_of_python_in_the_config(cli: Cli, stranger: Stranger) -> None:
    payload = f"!!python/object/apply:os.mkdir [{stranger.canary}]"
    stranger.config.write_text(f"{stranger.config.read_text()}payload: {payload}\n")
    ended = cli("test", "--run_dir", stranger.run)
    assert not stranger.canary.exists()
    assert ended.code == 2
    assert re.search(r"config\.yaml.*this is no YAML: could not determine a constructor", ended.err)
    stranger.restore()
    assert cli("test", "--run_dir", stranger.run).code == 0


def test_what_the_user_vouches_for_is_taken(cli: Cli, stranger: Stranger) -> None:
    """The user's own net, outside the trusted packages: fit takes it, test asks, then takes it."""
    words = [word for word in TINY if not word.startswith("--model.net=")]
    net = ["--model.net=evil_code.Net", "--trainer.max_epochs=1", "--run_dir=own"]
    make_pictures(Path("data"), {"train": 4, "test": 2})
    began = cli("fit", "--data.root=data", *net, *words)
    assert began.code == 0, began.err
    assert "trust" not in began.out + began.err
    stranger.forget()
    asked = cli("test", "--run_dir=own")
    assert not stranger.canary.exists()
    assert asked.code == 2
    assert re.search(FOREIGN.format("evil_code.Net", "evil_code"), asked.err), asked.err
    assert cli("test", "--run_dir=own", "--trust_code=other").code == 2
    taken = cli("test", "--run_dir=own", "--trust_code", "other", "--trust_code", "evil_code")
    assert taken.code == 0, taken.err
    assert cli("fit", "--run_dir=own", "--ckpt_path=last").code == 2
    own_config = Path("own/config.yaml").read_text()
    Path("mine.yaml").write_text(own_config)
    assert cli("fit", "--config=mine.yaml", "--run_dir=own", "--ckpt_path=last").code == 0


def test_a_stored_config_beside_the_users_own(cli: Cli, stranger: Stranger) -> None:
    """With --config the stored one is not gone on with; nothing of it is imported all the same."""
    stored = yaml.safe_load(stranger.config.read_text())
    stored["trainer"]["max_epochs"] = 7
    Path("mine.yaml").write_text(yaml.safe_dump(stored))
    stranger.write(put("model.scheduler", spec("evil_code.Schedule")))
    cli("fit", "--config=mine.yaml", "--run_dir", stranger.run, "--ckpt_path=last")
    assert not stranger.canary.exists()


# Checkpoints


def spoil_with_object(stranger: Stranger) -> None:
    stranger.save(Payload(stranger.canary))


def spoil_with_old_format(stranger: Stranger) -> None:
    stranger.save(Payload(stranger.canary), _use_new_zipfile_serialization=False)


def spoil_with_script(stranger: Stranger) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(stranger.best)


SPOILT = {
    "an object": (spoil_with_object, r"more than plain tensors"),
    "an object in the old format": (spoil_with_old_format, r"not a whole zip|no whole|zip"),
    "a script": (spoil_with_script, r"more than plain tensors"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like a TorchScript")
@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_with_more_than_data(
    name: str, cli: Cli, stranger: Stranger, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, match = SPOILT[name]
    spoil(stranger)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    scored = ("test", "--run_dir", stranger.run, "--ckpt_path", stranger.best)
    began = ("fit", "--data.root", pictures, *TINY, "--trainer.max_epochs=1", "--run_dir=new")
    for words in (scored, (*began, "--init_from", stranger.best)):
        ended = cli(*words)
        assert not stranger.canary.exists(), ended.err
        assert ended.code == 2, ended.err
        assert re.search(match, ended.err), ended.err
    with pytest.raises(UserError, match=match):
        Classifier.load_from_checkpoint(stranger.best)
    assert not stranger.canary.exists()
    stranger.restore()
    assert cli(*scored).code == 0


def test_the_environment_cannot_open_the_door(stranger: Stranger) -> None:
    """In a process of its own, whose environment says from the start that objects are welcome."""
    spoil_with_object(stranger)
    program = (
        "import sys, src, torch; from src.checkpoint import read_checkpoint; from pathlib import "
        "Path\ntry: torch.load(sys.argv[1], weights_only=False)\nexcept Exception: pass\n"
        "read_checkpoint(Path(sys.argv[1]))"
    )
    env = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    env.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
    command = [sys.executable, "-c", program, str(stranger.best)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120
        )

    ended = run()
    assert not stranger.canary.exists()
    assert ended.returncode != 0
    assert "more than plain tensors" in ended.stderr
    stranger.restore()
    assert run().returncode == 0


def test_an_address_is_never_asked(cli: Cli, stranger: Stranger) -> None:
    spoil_with_object(stranger)
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(stranger.best.read_bytes())

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in (
            f"http://127.0.0.1:{server.server_port}/best.ckpt",
            f"file://{stranger.best}",
        ):
            ended = cli("test", "--run_dir", stranger.run, "--ckpt_path", address)
            assert ended.code == 2
            assert re.search("is an address; allowed are files", ended.err), ended.err
            assert cli("fit", *TINY, "--data.root=x", "--ckpt_path", address).code == 2
            assert cli("fit", *TINY, "--data.root=x", "--init_from", address).code == 2
            with pytest.raises(UserError, match="allowed are files on this machine"):
                Classifier.load_from_checkpoint(address)
        server.shutdown()
    assert asked == []
    assert not stranger.canary.exists()
    stranger.restore()
    assert cli("test", "--run_dir", stranger.run, "--ckpt_path", stranger.best).code == 0


HYPER: dict[str, tuple[dict[str, Any], str]] = {
    "net": ({"hyper_parameters": {"net": spec("evil_code.Net")}}, r"net names evil_code\.Net"),
    "net in short": ({"hyper_parameters": {"net": "evil_code.Net"}}, r"net names evil_code\.Net"),
    "the key of old releases": ({"module_arguments": {"net": "evil_code.Net"}}, r"evil_code\.Net"),
    "the older key": ({"hparams": {"net": "evil_code.Net"}}, r"evil_code\.Net"),
    "who builds it": (
        {"hyper_parameters": {"_instantiator": "evil_code.hook"}},
        r"_instantiator n",
    ),
    "what is built": ({"hyper_parameters": {"_class_path": "evil_code.Net"}}, r"_class_path names"),
}


@pytest.mark.parametrize("name", HYPER)
def test_what_a_checkpoint_says_it_is_built_from(name: str, cli: Cli, stranger: Stranger) -> None:
    change, match = HYPER[name]
    content = torch.load(stranger.best, weights_only=True)
    for key, value in change.items():
        content[key] = {**content["hyper_parameters"], **value}
    torch.save(content, stranger.best)
    with pytest.raises(UserError, match=rf'{match}.*from the checkpoint.*trust_code=\["evil_code'):
        Classifier.load_from_checkpoint(stranger.best)
    assert not stranger.canary.exists()
    stranger.restore()
    assert isinstance(Classifier.load_from_checkpoint(stranger.best).net, SmallResNet)


def test_commands_need_nothing_that_a_checkpoint_names(cli: Cli, stranger: Stranger) -> None:
    content = torch.load(stranger.best, weights_only=True)
    evil = {"net": spec("evil_code.Net"), "_instantiator": "evil_code.hook"}
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        content[key] = evil
    torch.save(content, stranger.best)
    for command in ("validate", "test", "predict"):
        ended = cli(command, "--run_dir", stranger.run, "--ckpt_path", stranger.best)
        assert ended.code == 0, ended.err
    shutil.copy(stranger.best, stranger.best.with_name("last.ckpt"))
    went_on = cli("fit", "--run_dir", stranger.run, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert went_on.code == 0, went_on.err
    assert not stranger.canary.exists()


def test_what_a_caller_vouches_for_or_gives_himself(stranger: Stranger) -> None:
    content = torch.load(stranger.best, weights_only=True)
    content["hyper_parameters"]["net"]["class_path"] = "evil_code.Net"
    torch.save(content, stranger.best)
    with pytest.raises(UserError, match=r"net names evil_code\.Net"):
        Classifier.load_from_checkpoint(stranger.best, trust_code=["evil"])
    mine = spec("src.models.SmallResNet", stem_width=4, widths=[4, 8], blocks=[1, 1])
    assert isinstance(Classifier.load_from_checkpoint(stranger.best, net=mine).net, SmallResNet)
    assert not stranger.canary.exists()
    model = Classifier.load_from_checkpoint(stranger.best, trust_code=["evil_code"])
    assert type(model.net).__name__ == "Net"


@pytest.mark.parametrize("fast", [True, False])
def test_checkpoints_of_slurm_are_not_taken_unasked(
    fast: bool, cli: Cli, stranger: Stranger, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (Path("run"), Path(), Path("run/lightning")):
        place.mkdir(exist_ok=True)
        (place / "hpc_ckpt_7.ckpt").write_bytes(b"this is no checkpoint: reading it would fail")
    for name, value in {"NTASKS": "1", "JOB_ID": "1", "JOB_NAME": "x", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    words = ["fit", "--data.root", pictures, *TINY, "--run_dir=run", "--trainer.max_epochs=1"]
    ended = cli(
        *words,
        f"--trainer.fast_dev_run={str(fast).lower()}",
        "--trainer.callbacks+=callbacks.SampleImages",
    )
    assert ended.code == 0, ended.err
    assert "hpc_ckpt" not in ended.out + ended.err
