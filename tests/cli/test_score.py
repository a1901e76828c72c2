"""validate, test and predict: from the run folder alone, wherever it lies now."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.calibration import Decision
from src.checkpoint import read_checkpoint
from src.models import SmallResNet
from tests.cli.conftest import TINY, Cli, make_pictures


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, at another place than it was made."""
    return Path(shutil.copytree(trained, tmp_path / "moved" / "run"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def best_net(run: Path) -> torch.nn.Module:
    net = SmallResNet(2, stem_width=4, widths=[4, 8], blocks=[1, 1])
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    net.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("net.")})
    return net.eval()


def probabilities(net: torch.nn.Module, paths: list[Path]) -> np.ndarray:
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    with torch.inference_mode():
        return net(torch.from_numpy(pixels)).double().softmax(1).numpy()


class TestTest:
    def test_scores_are_those_of_the_network(self, cli: Cli, run: Path, pictures: Path) -> None:
        ended = cli("test", "--run_dir", run)
        assert ended.code == 0, ended.err
        found = json.loads((run / "test.json").read_text())
        paths = sorted((pictures / "test").rglob("*.png"))
        targets = np.array([("ant", "bug").index(path.parent.name) for path in paths])
        expected = probabilities(best_net(run), paths)
        assert found["n"] == 14
        assert found["accuracy"] == pytest.approx((expected.argmax(1) == targets).mean())
        losses = -np.log(expected[np.arange(14), targets])
        assert found["loss"] == pytest.approx(losses.mean(), abs=1e-5)
        assert sum(map(sum, found["confusion"])) == 14
        assert found["per_class"]["ant"]["support"] == 7
        low, high = found["accuracy_interval"]
        assert low < found["accuracy"] < high or found["accuracy"] in (0, 1)
        assert "95 % interval" in ended.out

    def test_equals_the_same_checkpoint_by_name(self, cli: Cli, run: Path) -> None:
        cli("test", "--run_dir", run)
        best = (run / "test.json").read_bytes()
        assert cli("test", "--run_dir", run, "--ckpt_path=best").code == 0
        assert (run / "test.json").read_bytes() == best
        assert cli("test", "--ckpt_path", run / "checkpoints" / "best.ckpt").code == 0
        assert (run / "test.json").read_bytes() == best

    def test_own_root_after_the_run_moved_scores_the_stored_split(
        self, cli: Cli, run: Path
    ) -> None:
        assert cli("validate", "--run_dir", run).code == 0
        found = json.loads((run / "validate.json").read_text())
        stored = [row for row in read(run / "samples.csv") if row["split"] == "val"]
        assert found["n"] == len(stored) == 6
        rows = read(run / "metrics.csv")
        best = max(rows, key=lambda row: (float(row["val/accuracy"]), -float(row["val/loss"])))
        assert found["loss"] == pytest.approx(float(best["val/loss"]), rel=1e-12)

    def test_data_that_have_moved_are_asked_for(self, cli: Cli, tmp_path: Path) -> None:
        root = make_pictures(tmp_path / "data", {"train": 4, "test": 2})
        words = ("fit", "--data.root", root, "--run_dir=run", *TINY, "--trainer.max_epochs=1")
        assert cli(*words).code == 0
        root.rename(tmp_path / "moved")
        (tmp_path / "data").mkdir()
        ended = cli("test", "--run_dir=run")
        assert ended.code == 2
        assert "4 of 4 test pictures of the run are not in" in ended.err
        assert "give --data.root DIR" in ended.err
        assert cli("test", "--run_dir=run", "--data.root=moved").code == 0

    def test_another_root_with_a_test_folder(self, cli: Cli, run: Path, tmp_path: Path) -> None:
        root = make_pictures(tmp_path / "other", {"train": 3, "test": 2})
        assert cli("test", "--run_dir", run, "--data.root", root).code == 0
        assert json.loads((run / "test.json").read_text())["n"] == 4

    def test_another_root_without_one_is_scored_whole(
        self, cli: Cli, run: Path, tmp_path: Path
    ) -> None:
        root = make_pictures(tmp_path / "other", {"": 3})
        assert cli("test", "--run_dir", run, "--data.root", root).code == 0
        assert json.loads((run / "test.json").read_text())["n"] == 6

    def test_nothing_to_score_says_where_it_looked(
        self, cli: Cli, pictures: Path, tmp_path: Path
    ) -> None:
        root = make_pictures(tmp_path / "data", {"train": 5})
        words = ("fit", "--data.root", root, "--run_dir=run", *TINY, "--trainer.max_epochs=1")
        assert cli(*words).code == 0
        ended = cli("test", "--run_dir=run")
        assert ended.code == 2
        assert "nothing to score" in ended.err
        assert "samples.csv" in ended.err
        assert "`validate`" in ended.err

    def test_a_foreign_class_is_named(self, cli: Cli, run: Path, tmp_path: Path) -> None:
        root = make_pictures(tmp_path / "other", {"test": 2}, ("ant", "bgu"))
        ended = cli("test", "--run_dir", run, "--data.root", root)
        assert ended.code == 2
        assert "bgu" in ended.err
        assert "did you mean 'bug'" in ended.err


class TestPredict:
    def test_columns_order_and_numbers(self, cli: Cli, run: Path, pictures: Path) -> None:
        ended = cli("predict", "--run_dir", run, "--data.root", pictures / "test")
        assert ended.code == 0, ended.err
        found = read(run / "predictions.csv")
        assert list(found[0]) == ["path", "predicted_class", "prob_ant", "prob_bug", "error"]
        paths = sorted(p.relative_to(pictures / "test") for p in (pictures / "test").rglob("*.png"))
        assert sorted(row["path"] for row in found) == [path.as_posix() for path in sorted(paths)]
        decision = Decision.from_dict(read_checkpoint(run / "checkpoints/best.ckpt")["decision"])
        named = [pictures / "test" / row["path"] for row in found]
        shares = probabilities(best_net(run), named)
        expected = decision.probabilities(np.log(shares))  # softmax takes logarithms as logits
        predicted = decision.predicted(np.log(shares))
        assert decision.temperature != 1
        for row, row_shares, winner in zip(found, expected, predicted, strict=True):
            assert float(row["prob_ant"]) == pytest.approx(row_shares[0], abs=2e-5)
            assert row["predicted_class"] == ("ant", "bug")[winner]
            assert len(row["prob_ant"].partition(".")[2]) == 6

    def test_a_csv_keeps_its_order_and_needs_no_labels(
        self, cli: Cli, run: Path, pictures: Path, tmp_path: Path
    ) -> None:
        names = [f"{pictures}/test/bug/{i}.png" for i in (3, 0, 2)]
        (tmp_path / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
        assert cli("predict", "--run_dir", run, "--data.root", "list.csv").code == 0
        assert [row["path"] for row in read(run / "predictions.csv")] == names

    def test_one_file(self, cli: Cli, run: Path, pictures: Path) -> None:
        assert (
            cli("predict", "--run_dir", run, "--data.root", pictures / "test/bug/0.png").code == 0
        )
        assert [row["path"] for row in read(run / "predictions.csv")] == ["0.png"]

    def test_a_damaged_file_gets_its_error_and_stops_nothing(
        self, cli: Cli, run: Path, tmp_path: Path
    ) -> None:
        root = make_pictures(tmp_path / "some", {"": 2})
        whole = (root / "ant" / "0.png").read_bytes()
        (root / "ant" / "0.png").write_bytes(whole[: len(whole) // 2])
        ended = cli("predict", "--run_dir", run, "--data.root", root)
        assert ended.code == 2
        assert "1 of 4 files can't be decoded" in ended.err
        found = {row["path"]: row for row in read(run / "predictions.csv")}
        assert "truncated" in found["ant/0.png"]["error"]
        assert found["ant/0.png"]["predicted_class"] == found["ant/0.png"]["prob_ant"] == ""
        assert found["ant/1.png"]["predicted_class"]
        taken = cli("predict", "--run_dir", run, "--data.root", root, "--data.on_bad_image=skip")
        assert taken.code == 0

    def test_replaces_the_old_file(self, cli: Cli, run: Path, pictures: Path) -> None:
        (run / "predictions.csv").write_text("old\n" * 100)
        assert (
            cli("predict", "--run_dir", run, "--data.root", pictures / "test/bug/0.png").code == 0
        )
        assert len(read(run / "predictions.csv")) == 1


class TestFlips:
    def test_the_mean_of_both_sides_by_hand(self, cli: Cli, run: Path, pictures: Path) -> None:
        assert cli("test", "--run_dir", run).code == 0
        plain = (run / "test.json").read_bytes()
        ended = cli("test", "--run_dir", run, "--flips", "true")
        assert ended.code == 0, ended.err
        assert (run / "test.json").read_bytes() == plain
        found, net = read(run / "test_flips.csv"), best_net(run)
        pixels = np.stack([np.asarray(Image.open(pictures / row["path"])) for row in found])
        with torch.inference_mode():
            sides = [net(torch.from_numpy(p.copy())) for p in (pixels, pixels[:, :, ::-1])]
        logits = ((sides[0] + sides[1]) / 2).numpy()
        decision = Decision.from_dict(read_checkpoint(run / "checkpoints/best.ckpt")["decision"])
        expected = decision.probabilities(logits)
        assert not np.allclose(sides[0], sides[1], atol=1e-4)
        for row, shares in zip(found, expected, strict=True):
            assert float(row["prob_ant"]) == pytest.approx(shares[0], abs=1e-5)
        scores = json.loads((run / "test_flips.json").read_text())
        assert scores["n"] == 14

    def test_is_an_option_of_test_alone(self, cli: Cli, run: Path) -> None:
        ended = cli("validate", "--run_dir", run, "--flips", "true")
        assert ended.code == 2 and "flips" in ended.err
