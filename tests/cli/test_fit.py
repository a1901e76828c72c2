"""fit on the real program: what it leaves, how it goes on, what it never depends on."""

import csv
import json
import shutil
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Timer

from src import preprocess
from src.data import scans
from src.errors import UserError
from src.intervals import wilson_interval
from src.run import RunFolder
from tests.cli.conftest import TINY, Cli, make_pictures, tree

COLUMNS = (
    "epoch,step,train/loss,train/accuracy,val/loss,val/loss_calibrated,val/accuracy,"
    "val/accuracy_argmax,val/f1,val/auroc,lr,seconds,images_per_second"
)
AUGMENT = (
    "--data.augment=[{class_path: albumentations.HorizontalFlip},"
    "{class_path: albumentations.Affine, init_args: {rotate: [-30, 30]}}]"
)
RECIPE = [
    *TINY,
    AUGMENT,
    "--model.net.dropout=0.3",
    "--model.optimizer.momentum=0.9",
    "--model.scheduler=torch.optim.lr_scheduler.StepLR",
    "--model.scheduler.step_size=1",
    "--model.scheduler.gamma=0.5",
]


def rows(folder: Path) -> list[dict[str, str]]:
    """Return metrics.csv without what a clock says."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        del row["seconds"], row["images_per_second"]
    return found


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = last(one), last(other)
    assert a["global_step"] == b["global_step"]
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    assert rows(one) == rows(other)


def assert_same_run(one: Path, other: Path) -> None:
    assert_same_weights(one, other)
    a, b = last(one), last(other)
    for number, state in a["optimizer_states"][0]["state"].items():
        other_state = b["optimizer_states"][0]["state"][number]
        assert torch.equal(state["momentum_buffer"], other_state["momentum_buffer"])


def test_commands_look_first_whether_they_can_write(
    cli: Cli, trained: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: RunFolder, mend: str) -> None:
        raise UserError(f"no: {mend}")

    monkeypatch.setattr(RunFolder, "require_writable", refuse)
    ended = cli("fit", "--data.root", pictures, "--run_dir=new", *TINY)
    assert (ended.code, ended.err) == (2, "error: no: give another folder: --run_dir DIR\n")
    before = tree(trained)
    ended = cli("test", "--run_dir", trained)
    assert (ended.code, tree(trained)) == (2, before)
    assert "no: copy the run folder to where you can write" in ended.err


class TestRunFolder:
    def test_holds_what_the_design_lists(self, trained: Path) -> None:
        assert tree(trained) >= {
            "config.yaml", "samples.csv", "metrics.csv", "run.json", "summary.json",
            "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        }  # fmt: skip
        assert not [name for name in tree(trained) if "tmp" in name]

    def test_no_file_holds_its_own_path(self, trained: Path) -> None:
        for name in tree(trained):
            assert str(trained).encode() not in (trained / name).read_bytes(), name

    def test_metrics_has_a_row_per_validation(self, trained: Path) -> None:
        lines = (trained / "metrics.csv").read_text().splitlines()
        assert lines[0] == COLUMNS
        assert len(lines) == 3
        # 40 training pictures less 6 for validation are 34: 4 batches of 8 and a rest of 2
        assert [row["step"] for row in rows(trained)] == ["5", "10"]
        assert all(value for row in rows(trained) for value in row.values())

    def test_summary(self, trained: Path) -> None:
        summary = json.loads((trained / "summary.json").read_text())
        record = json.loads((trained / "run.json").read_text())
        assert summary["final"]["step"] == 10
        assert summary["best"]["val/accuracy"] == max(
            float(r["val/accuracy"]) for r in rows(trained)
        )
        assert summary["parameters"] == summary["trainable_parameters"] > 0
        assert summary["data_fingerprint"] == record["data"]["fingerprint"]
        assert summary["versions"]["torch"] == torch.__version__
        assert summary["wall_seconds"] > 0
        assert summary["peak_memory"]["process_gib"] > 0

    def test_config_is_resolved_and_names_the_classes(self, trained: Path) -> None:
        config = yaml.safe_load((trained / "config.yaml").read_text())
        assert config["data"]["classes"] == ["ant", "bug"]
        assert config["data"]["batch_size"] == 8
        assert not {"run_dir", "ckpt_path", "init_from", "config"} & set(config)

    def test_samples_cover_every_picture_once(self, trained: Path) -> None:
        with (trained / "samples.csv").open(newline="") as file:
            samples = list(csv.DictReader(file))
        splits = [row["split"] for row in samples]
        assert len({row["path"] for row in samples}) == len(samples) == 54
        assert [splits.count(name) for name in ("train", "val", "test")] == [34, 6, 14]

    def test_checkpoint_is_plain(self, trained: Path) -> None:
        content = last(trained)
        assert {"state_dict", "optimizer_states", "global_step", "preprocessing"} <= set(content)
        assert content["preprocessing"]["classes"] == ["ant", "bug"]

    def test_folder_is_printed_last(self, cli: Cli, pictures: Path) -> None:
        ended = cli("fit", "--data.root", pictures, *TINY, "--trainer.max_epochs=1")
        assert ended.code == 0
        assert Path(ended.last_line).parent == Path("runs/run")
        assert (Path(ended.last_line) / "summary.json").exists()


class TestExactness:
    @pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # on two cores
    def test_workers_do_not_change_a_byte(self, cli: Cli, pictures: Path) -> None:
        for workers in (0, 1, 2, 4):
            words = ("fit", "--data.root", pictures, "--run_dir", f"w{workers}", *RECIPE)
            ended = cli(*words, "--trainer.max_epochs=2", f"--data.num_workers={workers}")
            assert ended.code == 0
            assert_same_run(Path("w0"), Path(f"w{workers}"))

    def test_the_cache_does_not_change_a_byte(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded = []
        real = preprocess.decode
        for module in (preprocess, scans):
            monkeypatch.setattr(module, "decode", lambda *of: decoded.append(of[0]) or real(*of))
        monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
        words = ["fit", f"--data.root={pictures}", *RECIPE, "--trainer.max_epochs=2"]
        numbers = []
        for run, cache in (("cold", "true"), ("warm", "true"), ("none", "false"), ("own", "here")):
            assert cli(*words, f"--run_dir={run}", f"--data.cache={cache}").code == 0
            numbers.append(len(decoded))
            assert_same_run(Path("cold"), Path(run))
        # 54 files, each looked at. Without a cache 40 of them in each epoch, and the 6 for
        # validation once more before the training.
        assert [b - a for a, b in pairwise([0, *numbers])] == [54, 0, 2 * 40 + 6, 54]
        assert len(list(Path("here").rglob("*.pixels"))) == 1

    def test_looking_on_does_not_change_a_byte(self, cli: Cli, pictures: Path) -> None:
        """Validation, the look before the training, logging and pictures draw from no stream."""
        words = ["fit", "--data.root", pictures, *RECIPE, "--trainer.max_epochs=2"]
        blind = ["--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0"]
        seen = ["--trainer.num_sanity_val_steps=2", "--trainer.val_check_interval=2"]
        seen += ["--trainer.log_every_n_steps=1", "--trainer.callbacks+=callbacks.SampleImages"]
        seen += ["--trainer.logger=lightning.pytorch.loggers.CSVLogger"]
        seen += ["--trainer.logger.save_dir=log"]
        assert cli(*words, "--run_dir=blind", *blind).code == 0
        ended = cli(*words, "--run_dir=seen", *seen)
        assert ended.code == 0, ended.err
        a, b = (last(Path(name)) for name in ("blind", "seen"))
        assert all(torch.equal(t, b["state_dict"][n]) for n, t in a["state_dict"].items())

    @pytest.mark.campaign  # compiling takes a minute
    @pytest.mark.skipif(shutil.which("g++") is None, reason="not on this system: a C++ compiler")
    def test_a_compiled_network_goes_on_to_the_same_bytes(self, cli: Cli, pictures: Path) -> None:
        """The sitting that goes on meets the last, smaller batch of an epoch first."""
        words = ["fit", f"--data.root={pictures}", *RECIPE, "--model.compile=true"]
        words += ["--checkpoint_every_steps=4", "--trainer.max_epochs=2"]
        assert cli(*words, "--run_dir=whole").code == 0
        keys = last(Path("whole"))["state_dict"]
        assert not [name for name in keys if "_orig_mod" in name]
        shutil.copytree("whole", "parts")
        Path("parts/checkpoints/previous.ckpt").rename("parts/checkpoints/last.ckpt")
        assert last(Path("parts"))["global_step"] == 9  # of 10
        Path("parts/summary.json").unlink()
        assert cli(*words, "--run_dir=parts", "--ckpt_path=last").code == 0
        assert_same_run(Path("whole"), Path("parts"))
        assert cli("test", "--run_dir=whole").code == 0

    def test_a_resumed_run_is_the_whole_run(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, *RECIPE)
        assert cli(*words, "--run_dir", "whole", "--trainer.max_epochs=4").code == 0
        assert cli(*words, "--run_dir", "parts", "--trainer.max_epochs=2").code == 0
        before = Path("parts/config.yaml").read_bytes()
        resumed = cli("fit", "--run_dir", "parts", "--ckpt_path=last", "--trainer.max_epochs=4")
        assert resumed.code == 0
        assert_same_run(Path("whole"), Path("parts"))
        assert Path("parts/config.yaml").read_bytes() == before
        assert (
            yaml.safe_load(Path("parts/config.resume-1.yaml").read_text())["trainer"]["max_epochs"]
            == 4
        )

    def test_a_plateau_schedule_resumes_with_its_step(self, cli: Cli, pictures: Path) -> None:
        words = ["fit", "--data.root", pictures, *TINY]
        words += ["--model.scheduler=lightning.pytorch.cli.ReduceLROnPlateau"]
        words += ["--model.scheduler.monitor=val/loss", "--model.scheduler.patience=0"]
        words += ["--model.scheduler.threshold=10.0"]  # nothing is good enough: every step cuts
        assert cli(*words, "--run_dir=whole", "--trainer.max_epochs=3").code == 0
        assert cli(*words, "--run_dir=parts", "--trainer.max_epochs=2").code == 0
        assert (
            cli(*words, "--run_dir=parts", "--trainer.max_epochs=3", "--ckpt_path=last").code == 0
        )
        rates = [float(row["lr"]) for row in rows(Path("whole"))]
        assert rates == pytest.approx([0.05, 0.005, 0.0005])
        assert_same_weights(Path("whole"), Path("parts"))

    def test_another_seed_is_another_run(self, cli: Cli, pictures: Path, trained: Path) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir", "other", *TINY)
        assert cli(*words, "--trainer.max_epochs=2", "--seed_everything=1").code == 0
        assert rows(Path("other")) != rows(trained)
        assert Path("other/samples.csv").read_bytes() == (trained / "samples.csv").read_bytes()


class TestGoingOn:
    def test_auto_starts_and_then_goes_on(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir", "run", "--ckpt_path=auto", *TINY)
        assert cli(*words, "--trainer.max_epochs=1").code == 0
        assert cli(*words, "--trainer.max_epochs=2").code == 0
        assert [row["epoch"] for row in rows(Path("run"))] == ["0", "1"]

    def test_a_finished_run_stays_as_it_was(self, cli: Cli, trained: Path, tmp_path: Path) -> None:
        run = Path(shutil.copytree(trained, tmp_path / "run"))
        before = json.loads((run / "summary.json").read_text())
        ended = cli("fit", "--run_dir", run, "--ckpt_path=last")
        assert ended.code == 0, ended.err
        after = json.loads((run / "summary.json").read_text())
        assert (after["final"], after["best"]) == (before["final"], before["best"])
        assert 0 < after["wall_seconds"] <= before["wall_seconds"]
        assert rows(run) == rows(trained)

    def test_wandb_id_stays(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir", "run", *TINY)
        words = (*words, "--trainer.logger=src.loop.wandb_logger.WandbLogger")
        assert cli(*words, "--trainer.max_epochs=1").code == 0
        assert cli(*words, "--trainer.max_epochs=2", "--ckpt_path=last").code == 0
        found = list(Path("run/wandb").glob("offline-run-*"))
        identifier = json.loads(Path("run/run.json").read_text())["wandb_id"]
        assert len(found) == 2
        assert all(f"-{identifier}" in folder.name for folder in found)

    def test_best_is_the_highest_accuracy(self, trained: Path) -> None:
        best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
        ranked = [
            (float(r["val/accuracy"]), -float(r["val/loss"]), -int(r["step"]))
            for r in rows(trained)
        ]
        assert best["global_step"] == -max(ranked)[2]


class TestInitFrom:
    def test_weights_are_taken(self, cli: Cli, pictures: Path, trained: Path) -> None:
        ended = cli(
            "fit", "--data.root", pictures, "--run_dir=second", *TINY, "--model.optimizer.lr=0.0",
            "--trainer.max_epochs=1", f"--init_from={trained / 'checkpoints' / 'last.ckpt'}",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        old, new = last(trained)["state_dict"], last(Path("second"))["state_dict"]
        for name in ("net.head.weight", "net.head.bias"):
            assert torch.equal(old[name], new[name])

    def test_other_classes_get_a_new_head(self, cli: Cli, trained: Path, tmp_path: Path) -> None:
        root = make_pictures(tmp_path / "three", {"train": 6}, ("ant", "bug", "cicada"))
        ended = cli(
            "fit", "--data.root", root, "--run_dir", "third", *TINY, "--model.optimizer.lr=0.0",
            "--trainer.max_epochs=1", f"--init_from={trained}",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        assert "new head (head.bias, head.weight)" in ended.out
        assert last(Path("third"))["state_dict"]["net.head.weight"].shape[0] == 3

    def test_optimizer_state_is_taken_but_not_its_rate(
        self, cli: Cli, pictures: Path, trained: Path
    ) -> None:
        words = ("fit", "--data.root", pictures, *TINY, "--model.optimizer.momentum=0.9")
        assert cli(*words, "--run_dir=a", "--trainer.max_epochs=1").code == 0
        ended = cli(
            *words, "--run_dir=b", "--trainer.max_epochs=1", "--init_from=a/checkpoints/last.ckpt",
            "--init_optimizer=true", "--model.optimizer.lr=0.0",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        a, b = (last(Path(name))["optimizer_states"][0] for name in "ab")
        assert b["param_groups"][0]["lr"] == 0.0
        # five more steps with momentum 0.9 forget at most 1 - 0.9 ** 5 of the old buffer
        fresh = cli(
            *words, "--run_dir=c", "--trainer.max_epochs=1", "--init_from=a/checkpoints/last.ckpt",
            "--model.optimizer.lr=0.0",
        )  # fmt: skip
        assert fresh.code == 0, fresh.err
        c = last(Path("c"))["optimizer_states"][0]
        difference = b["state"][0]["momentum_buffer"] - c["state"][0]["momentum_buffer"]
        assert torch.allclose(difference, 0.9**5 * a["state"][0]["momentum_buffer"], atol=1e-5)


def test_fast_dev_run_keeps_nothing(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    ended = cli("fit", "--data.root", pictures, *TINY, "--trainer.fast_dev_run=true")
    assert ended.code == 0
    assert tree(tmp_path) == set()
    assert "nothing was kept" in ended.last_line


def test_two_pictures_a_class_train(cli: Cli, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "few", {"": 2})
    ended = cli(
        "fit", "--data.root", root, "--run_dir=run", *TINY, "--trainer.max_epochs=1",
        "--model.scheduler=src.schedules.OneCycle",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert [row["step"] for row in rows(Path("run"))] == ["1"]


def test_validate_on_test_says_so_loudly(cli: Cli, pictures: Path) -> None:
    ended = cli(
        "fit", "--data.root", pictures, "--run_dir=run", *TINY, "--trainer.max_epochs=1",
        "--data.validate_on_test=true",
    )  # fmt: skip
    assert ended.code == 0
    assert "WARNING: data.validate_on_test" in ended.err
    assert rows(Path("run"))[0]["step"] == "5"  # all 40 train pictures


def test_validate_of_other_data_is_never_their_test(cli: Cli, pictures: Path) -> None:
    words = ("fit", "--data.root", pictures, "--run_dir=run", *TINY, "--trainer.max_epochs=1")
    assert cli(*words, "--data.validate_on_test=true").code == 0
    assert cli("validate", "--run_dir=run").code == 0
    assert json.loads(Path("run/validate.json").read_text())["n"] == 14  # its own test pictures
    other = make_pictures(Path("other"), {"val": 3, "test": 5})
    assert cli("validate", "--run_dir=run", "--data.root", other).code == 0
    assert json.loads(Path("run/validate.json").read_text())["n"] == 6


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_logger_overlays_write_into_the_run_folder(cli: Cli, pictures: Path, logger: str) -> None:
    from tests.helpers import ROOT

    words = [word for word in TINY if "logger" not in word]
    ended = cli(
        "fit", "--config", ROOT / f"configs/logger/{logger}.yaml", "--data.root", pictures,
        "--run_dir=run", *words, "--trainer.max_epochs=1",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert any(name.startswith(logger + "/") for name in tree(Path("run")))


class TestHowRunsEnd:
    def test_max_steps_alone_ends_a_run(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir=run", *TINY, "--trainer.max_steps=60")
        assert cli(*words).code == 0  # 5 steps an epoch: more than the default of ten epochs
        assert rows(Path("run"))[-1]["step"] == "60"

    def test_a_run_cut_by_steps_goes_on_with_more(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, *RECIPE)
        assert cli(*words, "--run_dir=whole", "--trainer.max_steps=12").code == 0
        assert cli(*words, "--run_dir=parts", "--trainer.max_steps=7").code == 0
        assert last(Path("parts"))["global_step"] == 7
        ended = cli(*words, "--run_dir=parts", "--trainer.max_steps=12", "--ckpt_path=last")
        assert ended.code == 0, ended.err
        assert_same_run(Path("whole"), Path("parts"))

    def test_a_run_cut_by_time_goes_on_with_more(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ("fit", "--data.root", pictures, *RECIPE, "--trainer.max_epochs=2")
        assert cli(*words, "--run_dir=whole").code == 0
        with monkeypatch.context() as patch:
            clock = count(step=60)  # each look at it takes a minute
            patch.setattr(Timer, "time_elapsed", lambda *_: next(clock))
            assert cli(*words, "--run_dir=parts", "--trainer.max_time=00:00:08:00").code == 0
        step = last(Path("parts"))["global_step"]
        assert 1 <= step < 10 and step != 5  # inside an epoch
        assert len(rows(Path("parts"))) == step // 5 + 1  # it was scored where it was cut
        ended = cli(*words, "--run_dir=parts", "--trainer.max_time=01:00:00:00", "--ckpt_path=last")
        assert ended.code == 0, ended.err
        assert_same_run(Path("whole"), Path("parts"))

    def test_a_run_that_stopped_early_stays_stopped(self, cli: Cli, pictures: Path) -> None:
        words = ["fit", "--data.root", pictures, "--run_dir=run", *TINY, "--trainer.max_epochs=9"]
        words += ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"]
        words += ["--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=1"]
        words += ["--trainer.callbacks.min_delta=1e9"]  # nothing is an improvement but the first
        assert cli(*words).code == 0
        before = rows(Path("run"))
        assert len(before) == 2
        assert cli("fit", "--run_dir=run", "--ckpt_path=last").code == 0
        assert rows(Path("run")) == before

    def test_monitoring_a_loss_keeps_the_lowest(self, cli: Cli, pictures: Path) -> None:
        words = (
            "fit",
            "--data.root",
            pictures,
            "--run_dir=my run",
            *TINY,
            "--trainer.max_epochs=4",
        )
        ended = cli(*words, "--monitor=val/loss")
        losses = [float(row["val/loss"]) for row in rows(Path("my run"))]
        best = json.loads(Path("my run/summary.json").read_text())["best"]
        assert best["val/loss"] == min(losses) < max(losses)
        right = round(best["val/accuracy"] * 6)
        low, high = wilson_interval(right, 6)
        assert (
            f"best val/loss {min(losses):.4f}, val/accuracy {right / 6:.4f} ({low:.4f} to "
            f"{high:.4f} on the 6 pictures it was chosen on) in epoch {best['epoch'] + 1}\n"
        ) in ended.out
        assert 'src.train test --run_dir "my run"\n' in ended.out

    def test_a_checkpoint_file_goes_on_in_a_new_folder_with_a_best_of_its_own(
        self, cli: Cli, pictures: Path, trained: Path
    ) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir=new", *TINY, "--trainer.max_epochs=3")
        ended = cli(*words, "--ckpt_path", trained / "checkpoints" / "last.ckpt")
        assert ended.code == 0, ended.err
        assert json.loads(Path("new/summary.json").read_text())["best"]["epoch"] == 2
        assert Path("new/checkpoints/best.ckpt").is_file()

    def test_resumes_are_numbered(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir=run", *TINY)
        for epochs in (1, 2, 3):
            ended = cli(*words, f"--trainer.max_epochs={epochs}", "--ckpt_path=auto")
            assert ended.code == 0
        lengths = [
            yaml.safe_load(Path(f"run/{name}.yaml").read_text())["trainer"]["max_epochs"]
            for name in ("config", "config.resume-1", "config.resume-2")
        ]
        assert lengths == [1, 2, 3]
        # Wilson's interval of 6 right among 6
        best = "best val/accuracy 1.0000 (0.6097 to 1.0000 on the 6 pictures it was chosen on) in"
        assert best in ended.out
        again = cli(*words, "--trainer.max_epochs=3", "--ckpt_path=auto")  # it is over: no table
        assert "best val/accuracy 1.0000 in epoch" in again.out

    def test_an_epoch_without_validation_has_its_line(self, cli: Cli, pictures: Path) -> None:
        words = ("fit", "--data.root", pictures, "--run_dir=run", *TINY, "--trainer.max_epochs=2")
        ended = cli(*words, "--data.val_fraction=0")
        assert ended.code == 0, ended.err
        assert [line[:9] for line in ended.out.splitlines() if "| step" in line] == [
            "epoch 1/2",
            "epoch 2/2",
        ]
        assert "there is no best.ckpt" in ended.err


def test_equally_many_other_classes_get_a_new_head(cli: Cli, trained: Path, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "others", {"train": 6}, ("moth", "newt"))
    ended = cli(
        "fit", "--data.root", root, "--run_dir=run", *TINY, "--model.optimizer.lr=0.0",
        "--trainer.max_epochs=1", f"--init_from={trained}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "a new head" in ended.out
    old = torch.load(trained / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(
        old["net.head.weight"], last(Path("run"))["state_dict"]["net.head.weight"]
    )


@pytest.mark.parametrize(
    ("parts", "told"), [({"train": 8, "test": 2}, True), ({"train": 8, "val": 2}, False)]
)
def test_the_advice_to_test_is_given_where_there_is_something_to_test(
    parts: dict[str, int], told: bool, cli: Cli, tmp_path: Path
) -> None:
    root = make_pictures(tmp_path / "some", parts)
    words = ["--data.root", root, "--run_dir", "run", "--trainer.max_epochs=1", *TINY]
    ended = cli("fit", *words)
    assert ended.code == 0, ended.err
    assert ("score it: python -m src.train test" in ended.out) == told
