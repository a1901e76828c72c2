"""Every mistake ends in one message and an exit code, and leaves nothing half made."""

import re
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import TINY, Cli, make_pictures, tree
from tests.helpers import ROOT

Build = Callable[[Path], list[str]]


def fit(*words: str) -> Build:
    """A fit on good data with some more words."""

    def build(folder: Path) -> list[str]:
        make_pictures(folder / "data", {"train": 4, "test": 2})
        return ["fit", "--data.root=data", *TINY, *words]

    return build


def data(change: Callable[[Path], object], *words: str) -> Build:
    """A fit on data that `change` has spoiled."""

    def build(folder: Path) -> list[str]:
        root = make_pictures(folder / "data", {"train": 4, "test": 2})
        change(root)
        return ["fit", "--data.root=data", *TINY, *words]

    return build


def table(text: bytes) -> Build:
    """A fit on a CSV."""

    def build(folder: Path) -> list[str]:
        make_pictures(folder, {"data": 2})
        (folder / "data.csv").write_bytes(text)
        return ["fit", "--data.root=data.csv", *TINY]

    return build


def config(text: str) -> Build:
    """A fit with a config file of this text."""

    def build(folder: Path) -> list[str]:
        make_pictures(folder / "data", {"train": 4})
        (folder / "my.yaml").write_text(text)
        return ["fit", "--config=my.yaml", "--data.root=data", "--trainer.logger=false"]

    return build


def empty_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "ant")
    (root / "train" / "ant").mkdir()


def one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "ant")
    shutil.rmtree(root / "test" / "ant")


def damage(root: Path) -> None:
    (root / "train/ant/0.png").write_bytes(b"")
    (root / "train/ant/1.png").write_bytes(b"no picture at all")
    whole = (root / "train/bug/0.png").read_bytes()
    (root / "train/bug/0.png").write_bytes(whole[:-900])


def loop(root: Path) -> None:
    (root / "train/ant/again").symlink_to(root / "train", target_is_directory=True)


CASES: dict[str, tuple[Build, str]] = {
    "no data": (lambda _: ["fit", *TINY], r"there are no data: give --data\.root"),
    "no such folder": (fit("--data.root=dtaa"), r"dtaa"),
    "an empty class": (data(empty_class), r"ant"),
    "one class only": (data(one_class), r"(?i)(one|single) class|at least (2|two)"),
    "a class in test that train lacks": (
        data(lambda root: (root / "test/bug").rename(root / "test/wasp")),
        r"test.*wasp",
    ),
    "damaged files": (data(damage), r"(?s)3 .*data\.on_bad_image skip"),
    "a loop of links": (data(loop), r"circle"),
    "a CSV without the columns": (
        table(b"file,class\na.png,b\n"),
        r"no column 'path'.*'file', 'class'",
    ),
    "a CSV of noise": (table(bytes(range(256)) * 9), r"data\.csv"),
    "a CSV with no files behind it": (table(b"path,label\nx.png,a\ny.png,b\n"), r"(?s)2 .*x\.png"),
    "a mistyped option": (
        fit("--data.batchsize=3"),
        r"no option 'data\.batchsize'.*data\.batch_size",
    ),
    "an abbreviated option": (fit("--trainer.max_e=3"), r"no option 'trainer\.max_e'"),
    "a mistyped network": (fit("--model.net=src.models.SmalResNet"), r"did you mean 'SmallResNet'"),
    "a mistyped argument": (
        fit("--model.net=src.models.SmallResNet", "--model.net.droput=0.1"),
        r"no argument 'droput'; did you mean 'dropout'",
    ),
    "a wrong type": (
        fit("--data.batch_size=many"),
        r"--data\.batch_size is 'many'; expected is a whole number$",
    ),
    "a mistyped key in YAML": (
        config("trainer: {max_epoch: 3}\n"),
        r"no option 'trainer\.max_epoch'; did you mean 'trainer\.max_epochs'",
    ),
    "a mistyped class in YAML": (
        config("trainer:\n  callbacks:\n  - class_path: callbacks.Thruput\n"),
        r"my\.yaml: trainer\.callbacks\[0\]: callbacks has no class 'Thruput'; did you mean 'Thro",
    ),
    "a mistyped argument in YAML": (
        config("model: {net: {class_path: src.models.SeedCNN, init_args: {image_sise: 9}}}\n"),
        r"SeedCNN has no argument 'image_sise'; did you mean 'image_size'",
    ),
    "a mistyped module in YAML": (
        config("model: {net: {class_path: scr.models.SeedCNN}}\n"),
        r"no module 'scr'.*did you mean 'src'",
    ),
    "a mistyped augmentation": (
        config("data: {augment: [{class_path: albumentations.HorizontalFlop}]}\n"),
        r"did you mean 'HorizontalFlip'",
    ),
    "a mistyped augmentation argument": (
        config("data: {augment: [{class_path: albumentations.Affine, init_args: {rotat: 3}}]}\n"),
        r"Affine has no argument 'rotat'; did you mean 'rotate'",
    ),
    "an augmentation that normalises": (
        fit("--data.augment=[{class_path: albumentations.Normalize}]"),
        r"Remove Normalize",
    ),
    "broken YAML": (config("data:\n  root: [1,\nmodel: x: y\n"), r"my\.yaml, line 3"),
    "a config that is a list": (config("- 1\n- 2\n"), r"holds a list"),
    "no such config": (fit("--config=nope.yaml"), r"nope\.yaml: there is no such file"),
    "a batch of zero": (
        fit("--data.batch_size=0"),
        r"--data\.batch_size is 0; allowed is 1 or more",
    ),
    "a negative fraction": (fit("--data.val_fraction=-0.1"), r"val_fraction.*-0\.1"),
    "a fraction beside a val folder": (
        data(lambda root: shutil.copytree(root / "test", root / "val"), "--data.val_fraction=0.2"),
        r"val_fraction",
    ),
    "a negative seed": (fit("--seed_everything=-1"), r"--seed_everything is -1"),
    "a smoothing above one": (fit("--model.label_smoothing=1.5"), r"label_smoothing is 1\.5"),
    "a negative learning rate": (
        fit("--model.optimizer.lr=-1"),
        r"model\.optimizer or model\.scheduler: .*learning rate: -1",
    ),
    "a schedule's value out of range": (
        fit("--model.scheduler=src.schedules.OneCycle", "--model.scheduler.peak_fraction=2"),
        r"peak_fraction.*2",
    ),
    "a value that Lightning refuses": (
        fit("--trainer.accelerator=tpuu"),
        r"a value in the config is refused: .*accelerator",
    ),
    "a root folder of Lightning's": (fit("--trainer.default_root_dir=x"), r"Give --run_dir DIR"),
    "Lightning's sampler": (fit("--trainer.use_distributed_sampler=true"), r"Drop it"),
    "a picture size that does not fit": (
        fit("--model.net=src.models.SeedCNN", "--model.net.image_size=40"),
        r"(?s)40 pixels and data\.image_size is 32",
    ),
    "a monitor that is no score": (fit("--monitor=val/acuracy"), r"did you mean 'val/accuracy'"),
    "a GPU where there is none": (
        fit("--trainer.accelerator=gpu"),
        r"no GPU that torch can use.*cpu",
    ),
    "more devices than there are": (
        fit("--trainer.devices=4000"),
        r"--trainer\.devices 4000: .* core\(s\)\. Allowed: 1 to \d+",
    ),
    "a precision the CPU lacks": (
        fit("--trainer.precision=16-mixed"),
        r"--trainer\.precision 16-mixed: a CPU can't.*bf16-mixed",
    ),
    "last where there is none": (
        fit("--ckpt_path=last", "--run_dir=none"),
        r"none.*no such folder",
    ),
    "an address as checkpoint": (fit("--ckpt_path=http://127.0.0.1/x.ckpt"), r"is an address"),
    "no such checkpoint": (fit("--ckpt_path=x.ckpt"), r"there is no x\.ckpt"),
    "optimizer state from nowhere": (fit("--init_optimizer=true"), r"needs --init_from"),
    "test without a run": (lambda _: ["test"], r"needs a run: give --run_dir"),
    "test of no run": (lambda _: ["test", "--run_dir=."], r"is no run folder"),
    "an empty root": (fit("--data.root="), r"--data\.root is empty"),
    "a run folder inside the data": (fit("--run_dir=data/run"), r"lies inside --data\.root data"),
    "a run folder that is the data": (fit("--run_dir=data"), r"lies inside --data\.root data"),
    "weights from nowhere": (fit("--init_from=nope"), r"--init_from nope: there is no such"),
    "a loss of another kind": (
        fit("--model.loss=torch.nn.MSELoss"),
        r"SmallResNet or the loss fails on 2 training picture",
    ),
    "one picture under BatchNorm": (
        fit("--data.batch_size=1", "--data.image_size=8"),
        r"fails on 1 training picture\(s\) of 8 x 8.*more than 1 value",
    ),
    "validation every zero steps": (
        fit("--trainer.val_check_interval=0"),
        r"--trainer\.val_check_interval is 0; it must be above 0",
    ),
    "validation after more batches than there are": (
        fit("--trainer.val_check_interval=100"),
        r"the Trainer refuses: .*val_check_interval",
    ),
    "nodes that nobody starts": (fit("--trainer.num_nodes=2"), r"start it with torchrun or SLURM"),
    "several devices from Python": (fit("--trainer.devices=2"), r"not main\(\[\.\.\.\]\)"),
    "a section that is no mapping": (config("data: hello\n"), r"data is 'hello'; expected are opt"),
    "a folder as config": (fit("--config=data"), r"--config data is a folder"),
    "a rate that is no number": (
        fit("--model.optimizer.lr=fast"),
        r"--model\.optimizer: 'fast' is none of: a number",
    ),
    "a fraction that is no number": (
        fit("--data.val_fraction=x"),
        r"--data\.val_fraction: 'x' is none of: a number, null",
    ),
    "a word that is none of the allowed ones": (
        fit("--find_lr=maybe"),
        r"--find_lr: 'maybe' is none of: 'stop', 'go_on', null$",
    ),
    "a word where a word or numbers are allowed": (
        fit("--model.class_weights=balance"),
        r"--model\.class_weights: 'balance' is none of: 'balanced', list\[a number\], null$",
    ),
    "an argument of a callback out of range": (
        fit("--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=1.5"),
        r"^error: decay of callbacks\.EMA is 1\.5; allowed is 0 up to but not 1\.$",
    ),
    "an argument that a callback has not": (
        fit("--trainer.callbacks+=callbacks.Mix", "--trainer.callbacks.alpha=1"),
        r"--trainer\.callbacks: Mix has no argument 'alpha'; allowed are mixup, cutmix$",
    ),
    "an argument of a callback that is no number": (
        fit("--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=much"),
        r"--trainer\.callbacks: decay of callbacks\.EMA is 'much'; expected is a number$",
    ),
    "an argument of a callback that is of none of its kinds": (
        fit("--trainer.callbacks+=callbacks.FreezeSchedule", "--trainer.callbacks.epochs=x"),
        r"epochs of callbacks\.FreezeSchedule: 'x' is none of: a whole number, list\[a whole",
    ),
    "an argument of the network that is none of the allowed words": (
        fit("--model.net=src.models.SmallResNet", "--model.net.pooling=max"),
        r"--model\.net: one of its arguments is 'max'; expected is 'mean', 'mean_max'$",
    ),
    "a checkpoint every zero steps": (
        fit("--checkpoint_every_steps=0"),
        r"--checkpoint_every_steps is 0; allowed is 1 or more, or null",
    ),
    "a checkpoint every no minutes": (
        fit("--checkpoint_every_minutes=nan"),
        r"--checkpoint_every_minutes: 'nan' is none of: a number, null",
    ),
    "a checkpoint every zero minutes": (
        fit("--checkpoint_every_minutes=0"),
        r"--checkpoint_every_minutes is 0\.0; allowed is above 0, or null",
    ),
    "on with a run in no folder": (
        fit("--ckpt_path=last"),
        r"--ckpt_path last goes on with a run: give its folder, --run_dir RUN",
    ),
    "on with the best": (fit("--ckpt_path=best"), r"--ckpt_path 'best': fit goes on with `last`"),
    "on with nothing": (fit("--ckpt_path="), r"--ckpt_path '': fit goes on with `last`"),
    "on with a folder": (fit("--ckpt_path=."), r"--ckpt_path \.: \. is a folder\. Give a \.ckpt"),
    "an unknown command": (lambda _: ["tran"], r"tran.*fit"),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes_of_the_user(name: str, cli: Cli, tmp_path: Path) -> None:
    build, match = CASES[name]
    words = build(tmp_path)
    before = tree(tmp_path)
    ended = cli(*words)
    assert ended.code == 2, ended.err
    assert re.search(match, ended.err), ended.err
    assert "Traceback" not in ended.err
    assert not [p for p in tree(tmp_path) - before if p.startswith("runs")], "a half-made run"


def test_a_logger_whose_extra_is_missing(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from src import config_check

    monkeypatch.setattr(config_check.importlib.util, "find_spec", lambda name: None)
    overlay = ROOT / "configs/logger/tensorboard.yaml"
    ended = cli("fit", "--config", overlay, "--data.root", pictures, "--run_dir=run")
    assert ended.code == 2
    assert re.search(r"'tensorboard', which is not installed.*\[tensorboard\]", ended.err)
    assert not Path("run").exists()


def test_a_folder_that_holds_a_run(cli: Cli, trained: Path, pictures: Path) -> None:
    before = {name: (trained / name).stat().st_mtime_ns for name in tree(trained)}
    ended = cli("fit", "--data.root", pictures, "--run_dir", trained, *TINY)
    assert ended.code == 2
    assert re.search(r"already holds a run.*--ckpt_path last", ended.err)
    assert {name: (trained / name).stat().st_mtime_ns for name in tree(trained)} == before


def test_a_checkpoint_of_another_network(cli: Cli, trained: Path) -> None:
    ended = cli("test", "--run_dir", trained, "--model.net.widths=[4,16]")
    assert ended.code == 2
    assert re.search(r"of another network: net\..* is \[8.*expected \[16", ended.err), ended.err


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda path: path.write_bytes(b""), r"\(0 bytes\) can't be used: it is empty\. Take"),
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), r"not a whole zip"),
        (lambda path: flip(path), r"its bytes are not those that were written \(checksum\)"),
        (lambda path: (unseal(path), flip(path)), r"the checksum of best/.* does not match"),
        (lambda path: torch.save({"weights": 1}, path), r"has no state_dict"),
        (lambda path: torch.save({"state_dict": Path("x")}, path), r"more than plain tensors"),
    ],
    ids=["empty", "truncated", "flipped", "flipped plain", "no checkpoint", "objects"],
)
def test_damaged_checkpoints(
    spoil: Callable[[Path], object], match: str, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    spoil(run / "checkpoints" / "best.ckpt")
    ended = cli("test", "--run_dir", run)
    assert ended.code == 2
    assert re.search(match, ended.err), ended.err
    assert not (run / "test.json").exists()


def unseal(path: Path) -> None:
    """Write a checkpoint as torch does by itself."""
    torch.save(torch.load(path, weights_only=True), path)


def flip(path: Path) -> None:
    """Flip one bit in the middle of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    lengths = content[largest.header_offset + 26 : largest.header_offset + 30]
    start = largest.header_offset + 30 + sum(struct.unpack("<HH", lengths))
    content[start + largest.file_size // 2] ^= 1
    path.write_bytes(content)


def test_skip_leaves_damaged_files_out_and_records_them(cli: Cli, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "data", {"train": 8})
    damage(root)
    words = ("fit", "--data.root", root, "--run_dir=run", *TINY, "--trainer.max_epochs=1")
    ended = cli(*words, "--data.on_bad_image=skip")
    assert ended.code == 0, ended.err
    assert "3 damaged left out" in ended.out
    samples = Path("run/samples.csv").read_text().splitlines()
    assert sum(line.endswith(",skipped,") for line in samples) == 3
    assert len(samples) == 1 + 16


def test_changed_data_stop_a_resume(cli: Cli, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "data", {"train": 5})
    words = ("fit", "--data.root", root, "--run_dir=run", *TINY)
    assert cli(*words, "--trainer.max_epochs=1").code == 0
    (root / "train/ant/4.png").unlink()
    ended = cli(*words, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert ended.code == 2
    assert "the data have changed (fingerprint " in ended.err


def test_a_loss_that_is_no_number_stops_the_run(cli: Cli, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data", {"train": 6})
    ended = cli(
        "fit", "--data.root=data", "--run_dir=run", *TINY, "--trainer.max_epochs=9",
        "--model.optimizer.lr=1e30",
    )  # fmt: skip
    assert ended.code == 1
    assert re.search(
        r"the loss is (nan|inf) at step \d+ \(epoch \d+, batch \d+\), learning", ended.err
    )
    assert re.search(r"train/(ant|bug)/\d\.png", ended.err)
    assert not Path("run/summary.json").exists()


def test_stop_on_nonfinite_can_be_switched_off(cli: Cli, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data", {"train": 6})
    ended = cli(
        "fit", "--data.root=data", "--run_dir=run", *TINY, "--trainer.max_epochs=2",
        "--model.optimizer.lr=1e30", "--stop_on_nonfinite=false",
    )  # fmt: skip
    assert ended.code == 0, ended.err


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: resource limits")
def test_a_full_disk(pictures: Path, tmp_path: Path) -> None:
    """A limit on the size of files acts as a disk that is full in the middle of a checkpoint."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    words = ["fit", f"--data.root={pictures}", f"--run_dir={tmp_path / 'run'}", *TINY]
    words += ["--model.net.widths=[16,32]"]
    ended = subprocess.run(
        [sys.executable, "-m", "src.train", *words],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, check=False, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert re.search(r"error: .*disk", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert not [name for name in tree(tmp_path / "run") if name.endswith((".tmp", ".ckpt"))]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--model.optimizer.lr=0.5"], r"model\.optimizer\.init_args\.lr is 0\.5 and was 0\.05"),
        (["--data.batch_size=4"], r"data\.batch_size is 4 and was 8.*--init_from"),
        (["--seed_everything=3"], r"seed_everything is 3 and was 0"),
    ],
)
def test_a_run_goes_on_with_its_own_config(
    words: list[str], match: str, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = tree(run)
    ended = cli("fit", "--run_dir", run, "--ckpt_path=last", "--trainer.max_epochs=3", *words)
    assert ended.code == 2
    assert re.search(match, ended.err), ended.err
    assert tree(run) == before


@pytest.mark.parametrize("name", ["samples.csv", "metrics.csv", "wandb/old/precious"])
def test_files_of_the_user_are_never_taken_for_a_runs(name: str, cli: Cli, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data", {"train": 4})
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for how in ([], ["--ckpt_path=auto"]):
        ended = cli("fit", "--data.root=data", "--run_dir=mine", *TINY, *how)
        assert ended.code == 2
        assert re.search("already holds a run, which has no checkpoint yet", ended.err)
    assert tree(tmp_path / "mine") == {name}
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "name", "content", "match"),
    [
        ("test", "best", {}, r"best\.ckpt .* can't be used: another run wrote it"),
        ("test", "last", {"run_id": None}, r"it was written as best\.ckpt"),
        ("fit", "crash", {"run_id": None, "written_as": "crash"}, r"holds no state.*--init_from"),
        ("fit", "weights", {"loops": None}, r"holds no state that a run could go on from"),
    ],
    ids=["another run's", "under another name", "written at an error", "weights alone"],
)
def test_checkpoints_that_are_whole_and_not_the_right_ones(
    command: str, name: str, content: dict[str, object], match: str, cli: Cli, trained: Path,
    pictures: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """The changes of best.ckpt; None takes an entry out, an empty change is another run's id."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    found = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    for key, value in (content or {"run_id": "another"}).items():
        found[key] = value
        if value is None:
            del found[key]
    path = run / "checkpoints" / f"{name}.ckpt"
    torch.save(found, path)
    if command == "test":
        ended = cli("test", "--run_dir", run, "--ckpt_path", name)
    else:
        ended = cli("fit", "--data.root", pictures, *TINY, "--run_dir=new", "--ckpt_path", path)
    assert ended.code == 2, ended.err
    assert re.search(match, ended.err), ended.err
    assert not (run / "test.json").exists()
    assert not Path("new").exists()


def test_other_classes_than_the_checkpoints(cli: Cli, trained: Path) -> None:
    ended = cli("test", "--run_dir", trained, "--data.classes=[bug, ant]")
    assert ended.code == 2
    assert re.search(r"was trained on \['ant', 'bug'\]", ended.err)
    assert not (trained / "test.json").exists()


def test_another_picture_size_than_the_checkpoints_is_told(
    cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    ended = cli("test", "--run_dir", run, "--data.image_size=40")
    assert ended.code == 0
    assert "WARNING: data.image_size is 40, and the run was trained with 32" in ended.err


def test_a_truncated_list_of_samples(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    lines = (run / "samples.csv").read_text().splitlines(keepends=True)
    (run / "samples.csv").write_text("".join(lines[:20]))
    ended = cli("test", "--run_dir", run)
    assert ended.code == 2
    assert re.search(r"samples\.csv is damaged: it lists 19 .* began with 54", ended.err)


def test_a_damaged_record(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "run.json").write_text("{")
    ended = cli("test", "--run_dir", run)
    assert ended.code == 2
    assert re.search(r"run\.json is damaged", ended.err)


def test_changed_test_pictures_are_told(cli: Cli, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "data", {"train": 4, "test": 2})
    words = ("fit", "--data.root", root, "--run_dir=run", *TINY, "--trainer.max_epochs=1")
    assert cli(*words).code == 0
    shutil.copy(root / "train/ant/0.png", root / "test/ant/0.png")
    ended = cli("test", "--run_dir=run")
    assert ended.code == 0
    assert "notes: 1 changed since the run began" in ended.out


def test_a_validation_loss_that_is_no_number_ends_the_run(cli: Cli, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data", {"train": 2, "val": 2})
    ended = cli(
        "fit", "--data.root=data", "--run_dir=run", *TINY, "--trainer.max_epochs=1",
        "--model.optimizer.lr=1e30",
    )  # fmt: skip
    assert ended.code == 1
    assert re.search(r"the validation loss is nan after step 1 .*diverged", ended.err)
    assert not Path("run/checkpoints/best.ckpt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: SIGTERM")
def test_sigterm_is_no_success(pictures: Path, tmp_path: Path) -> None:
    words = ["fit", f"--data.root={pictures}", f"--run_dir={tmp_path / 'run'}", *TINY]
    program = [sys.executable, "-m", "src.train", *words, "--trainer.max_epochs=1000"]
    with subprocess.Popen(
        program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 2/") for line in process.stdout)
        process.terminate()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "stopped by SIGTERM" in err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_run_that_never_began_takes_nothing_of_the_users(cli: Cli, tmp_path: Path) -> None:
    make_pictures(tmp_path / "data", {"train": 4})
    (tmp_path / "mine").mkdir()
    for name in ("notes.txt", "notes.tmp", ".draft.tmp"):
        (tmp_path / "mine" / name).write_text("mine")
    ended = cli("fit", "--data.root=data", "--run_dir=mine", *TINY, "--model.optimizer.lr=-1")
    assert ended.code == 2
    assert tree(tmp_path / "mine") == {"notes.txt", "notes.tmp", ".draft.tmp"}
