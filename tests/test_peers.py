"""The benchmark against the peers: its arithmetic, its page and its ends; never how fast."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.errors import RunFailureError, UserError
from tests.benchmarks.page import page_with
from tests.benchmarks.peers import contest, environments, programs, table
from tests.benchmarks.peers.__main__ import main
from tests.benchmarks.peers.contest import NAMES, Records, hold
from tests.benchmarks.peers.environments import PeerMissingError
from tests.benchmarks.peers.programs import Contest, ProgramFailedError
from tests.benchmarks.peers.torch_pil import (
    PilPictures,
    TorchPil,
    affine,
    random_affine,
    random_flip,
    to_tensor,
)
from tests.benchmarks.peers.watch import watch
from tests.cli.conftest import make_pictures
from tests.helpers import ROOT

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
PAGE = f"# Title\n\nBefore.\n\n{BEGIN}\n\nOld.\n\n{END}\n\n## After\n"


def run(seconds: float, *accuracy: float, **more: Any) -> dict[str, Any]:
    scores = {"val_accuracy": list(accuracy), "process_gib": 1.0, "tree_gib": 1.5}
    return {"seconds": seconds, **scores, **more}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", {"train": 4, "test": 2})


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    return Image.fromarray(pixels)


class TestTables:
    def test_a_ratio_is_of_the_same_turn(self) -> None:
        """Turn by turn 0.5, 0.1 and 4; the medians of the times alone would give 0.4."""
        ours = {0: run(50.0), 1: run(40.0), 2: run(40.0)}
        keras = {0: run(100.0), 1: run(400.0), 2: run(10.0)}
        assert table.ratios(ours, keras) == [0.5, 0.1, 4.0]
        scored = {seed: run(one["seconds"], 0.5) for seed, one in ours.items()}
        assert table.seed_cells(scored, keras, epochs=1)[1] == "0.500"

    def test_a_turn_that_one_of_them_lacks_does_not_count(self) -> None:
        assert table.ratios({0: run(1.0), 2: run(3.0)}, {1: run(1.0), 2: run(4.0)}) == [0.75]

    def test_the_row_of_a_program(self) -> None:
        """Two epochs of each half; the best ones are the third, and the first of two equals."""
        runs = {
            0: run(10.0, 0.5, 0.6, 0.8, 0.7, tree_gib=3.0),
            1: run(30.0, 0.7, 0.4, 0.6, 0.7, tree_gib=1.0),
        }
        assert table.seed_cells(runs, {0: run(20.0), 1: run(40.0)}, epochs=2) == [
            "20 (10 to 30)",
            "0.625",
            "0.500",
            "0.700",
            "0.750 (3, 1)",
            "2.00",
            "1.00",
        ]

    def test_an_unavailable_peer_is_a_row_with_its_reason(self) -> None:
        text = table.seed_table(Contest(Path(), 1), {"keras": {}}, {"fastai": "not|\nthere"})
        assert re.findall(r"^\| fastai .*", text, re.MULTILINE) == [
            "| fastai | not/ there | | | | | | |"
        ]

    def test_time_to_the_threshold(self) -> None:
        fast = {0: run(10.0, 0.8, reached=True), 1: run(30.0, 0.7, 0.8, reached=True)}
        found = {"fast": fast, "keras": {0: run(100.0), 1: run(100.0)}}
        row = table.fast_table(Contest(Path()), found).splitlines()[-1]
        assert row == (
            "| Waggle, `configs/bee_wasp_fast.yaml` | 20 (10 to 30) | 1, 2 | 0.200 | 0.20 at most |"
        )
        elsewhere = Contest(Path(), fast_config=Path("some/folder/my.yaml").absolute())
        assert "| Waggle, my.yaml | 20 " in table.fast_table(elsewhere, found)

    def test_a_threshold_that_was_missed_once_gives_no_ratio(self) -> None:
        fast = {0: run(10.0, 0.8, reached=True), 1: run(30.0, 0.7, reached=False)}
        found = {"fast": fast, "keras": {0: run(100.0), 1: run(100.0)}}
        row = table.fast_table(Contest(Path()), found).splitlines()[-1]
        assert "| 10 (10 to 10); not reached with seed 1 | 1 | - |" in row

    def test_loaders(self) -> None:
        found = {
            "loader, ours": [30.0, 40.0, 90.0],
            "loader, torch + PIL": [10.0, 20.0, 10.0],
            "training, ours": [2.0],
            "training, torch + PIL": [4.0],
        }
        text = table.loader_table(found)
        assert "| 40 (30 to 90) | 10 (10 to 20) | 3.000 | 3 at least |" in text
        assert "| 2 (2 to 2) | 4 (4 to 4) | 0.500 |  |" in text

    def test_the_whole_report(self) -> None:
        loaders = {
            f"{a}, {b}": [1.0] for a in ("loader", "training") for b in ("ours", "torch + PIL")
        }
        machine = {
            "date": "2030-01-02",
            "processor": "some processor",
            "cores": 2,
            "system": "a system",
            "versions": {"torch": "1.2"},
        }
        found = {"keras": {3: run(8.0, 0.5, 0.6, versions={"keras": "9.8"})}}
        text = table.report(
            Contest(Path(), 1),
            {"train": 1000, "test": 9},
            found,
            {"fastai": "why"},
            {"images_per_second": loaders, "machine": machine},
        )
        for words in (
            "2030-01-02: some processor, 2 cores, a system; 1,000 pictures to train on and 9 held",
            "seeds 3; 1 + 1 epochs",
            "- Keras: keras 9.8",
            "- Waggle: torch 1.2",
            "| fastai | why |",
            "| Keras, the seed's program | 8 (8 to 8) | 1.000 | 0.500 | 0.600 | 0.600 (2) |",
        ):
            assert words in text


class TestPage:
    def test_the_rest_stays(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(PAGE)
        table.write_page(page, "\nNew.\n\n")
        assert page.read_text() == PAGE.replace("Old.", "New.")
        table.write_page(page, "New.")
        assert page.read_text() == PAGE.replace("Old.", "New.")

    @pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}", PAGE + PAGE, PAGE + END])
    def test_a_page_without_its_part_is_refused(self, page: str) -> None:
        with pytest.raises(UserError, match="has no part between one"):
            page_with(page, "New.", "peers")

    def test_ours_has_the_part(self) -> None:
        page = (ROOT / "docs/benchmarks.md").read_text("utf-8")
        assert page_with(page, "New.", "peers") != page


class TestEnvironments:
    def test_pins_that_are_not_met(self, tmp_path: Path) -> None:
        pins = tmp_path / "some.txt"
        pins.write_text("# why\nA.b_c==1.0\nd==2  # more\ne==3\nf==4\n")
        there = {"a-b-c": "1.0", "d": "2+cpu", "e": "3.1"}
        assert environments.missing(environments.read_pins(pins), there) == ["e==3", "f==4"]

    @pytest.mark.parametrize("name", ["keras", "fastai"])
    def test_every_package_is_pinned(self, name: str) -> None:
        pins = environments.read_pins(environments.HERE / f"{name}.txt")
        assert len(pins) > 20 and all(re.match(r"\d[\w.]*$", pin) for pin in pins.values())
        assert {"keras": "tensorflow-cpu", "fastai": "fastai"}[name] in pins

    def test_an_environment_that_cannot_be_made_gives_its_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "odd.txt").write_text("no-such-package==1\n")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(PeerMissingError, match=r"not installed: .*python: No such file"):
            environments.prepare("odd", tmp_path / "venvs", tmp_path)

    def test_what_pip_complains_of(self) -> None:
        said = "Looking\nERROR: none at https://some.where/x for it\nsee above\n"
        assert environments.complaint(said) == "ERROR: none at ... for it"
        assert environments.complaint("one\ntwo\n\n") == "two"
        assert environments.complaint("") == "it said nothing"

    def test_the_others_run_without_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def prepare(name: str, home: Path) -> Path:
            if name == "fastai":
                raise PeerMissingError("not installed: for once")
            return home / name

        monkeypatch.setattr(environments, "prepare", prepare)
        monkeypatch.setattr(contest, "slow_precision", lambda *_: "")
        entered, reasons = contest.enter(NAMES, tmp_path)
        assert sorted(entered) == ["fast", "keras", "ours-bf16", "ours-fp32"]
        assert reasons == {"fastai": "not installed: for once"}

    def test_bf16_is_left_out_where_it_is_emulated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.hardware.has_avx512", lambda: False)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        entered, reasons = contest.enter(["ours-fp32", "ours-bf16"], tmp_path)
        assert list(entered) == ["ours-fp32"]
        assert "AVX-512" in reasons["ours-bf16"]


class TestTurns:
    def test_a_stopped_contest_goes_on(self, tmp_path: Path) -> None:
        calls: list[tuple[str, int]] = []

        def program(name: str) -> contest.Program:
            def once(_: Contest, seed: int, log: Path) -> dict[str, Any]:
                calls.append((name, seed))
                if len(calls) == 3:
                    raise KeyboardInterrupt
                return run(float(len(calls)), 0.5)

            return once

        entered = {name: program(name) for name in ("a", "b")}
        with pytest.raises(KeyboardInterrupt):
            hold(Contest(tmp_path), entered, [5, 6], Records(tmp_path / "out", {}), {})
        found = hold(Contest(tmp_path), entered, [5, 6], Records(tmp_path / "out", {}), {})
        assert calls == [("a", 5), ("b", 5), ("b", 6), ("b", 6), ("a", 6)]
        assert {n: {s: r["seconds"] for s, r in runs.items()} for n, runs in found.items()} == {
            "a": {5: 1.0, 6: 5.0},
            "b": {5: 2.0, 6: 4.0},
        }

    def test_a_peer_that_fails_drops_out_and_ours_ends_it(self, tmp_path: Path) -> None:
        calls: list[int] = []

        def fails(_: Contest, seed: int, log: Path) -> dict[str, Any]:
            calls.append(seed)
            raise ProgramFailedError("ended with code 1: no more memory")

        reasons: dict[str, str] = {}
        records = Records(tmp_path, {})
        assert hold(Contest(tmp_path), {"keras": fails}, [0, 1], records, reasons) == {"keras": {}}
        assert (calls, reasons) == ([0], {"keras": "seed 0 ended with code 1: no more memory"})
        with pytest.raises(RunFailureError, match="ours-fp32, seed 0, ended with code 1: no more"):
            hold(Contest(tmp_path), {"ours-fp32": fails}, [0], records, {})

    def test_results_of_other_settings_are_refused(self, tmp_path: Path) -> None:
        Records(tmp_path, {"epochs": 1, "test": 9})
        Records(tmp_path, {"epochs": 1, "test": 9})
        with pytest.raises(UserError, match=r"other settings: epochs 1, now 10\. Give another"):
            Records(tmp_path, {"epochs": 10, "test": 9})


class TestWatch:
    def test_time_and_code(self, tmp_path: Path) -> None:
        code = "import time; print('said'); time.sleep(0.4); raise SystemExit(3)"
        done = watch([sys.executable, "-c", code], tmp_path / "log", tmp_path)
        assert (done.code, done.reached) == (3, False)
        assert 0.4 < done.seconds < 30
        assert (tmp_path / "log").read_text() == "said\n"

    @pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="not on this system")
    def test_memory_is_that_of_all_processes(self, tmp_path: Path) -> None:
        """Two processes hold 200 MiB each; the time between two looks goes by when both do."""
        code = (
            "import os, time; ends = os.pipe(); pid = os.fork(); "
            "held = bytearray(os.urandom(1)) * (200 << 20); "
            "os.read(ends[0], 1) if pid else os.write(ends[1], b'1'); "
            "time.sleep(2.5); pid and os.waitpid(pid, 0)"
        )
        done = watch([sys.executable, "-c", code], tmp_path / "log", tmp_path)
        assert done.process_gib is not None and done.tree_gib is not None
        # Linux counts what the starting process held too, until the new program takes its place.
        assert done.process_gib > 0.19
        assert 0.38 < done.tree_gib < 0.6

    def test_it_is_ended_when_it_is_there(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        code = f"import time; time.sleep(0.3); open({str(mark)!r}, 'w'); time.sleep(60)"
        start = time.perf_counter()
        done = watch([sys.executable, "-c", code], tmp_path / "log", tmp_path, until=mark.exists)
        assert done.reached and done.seconds > 0.3
        assert time.perf_counter() - start < 30

    @pytest.mark.skipif(os.name == "nt", reason="not on this system: process groups")
    def test_ctrl_c_ends_what_runs_and_its_children(self, tmp_path: Path) -> None:
        """The grandchild ignores SIGTERM; its heart beats into a file."""
        beat = tmp_path / "beat"
        inner = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            f"while True: open({str(beat)!r}, 'a').write('x'); time.sleep(0.05)"
        )
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
        driver = (
            "import sys; from pathlib import Path; from src.failures import end_with_message\n"
            "from tests.benchmarks.peers.watch import watch\n"
            "with end_with_message() as outcome:\n"
            f"    watch([sys.executable, '-c', {child!r}], Path('log'), Path('.'))\n"
            "sys.exit(outcome.code)"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", driver], cwd=tmp_path, env=env)
        try:
            wait_for(beat.exists)
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 130
        finally:
            process.kill()
        size = beat.stat().st_size
        time.sleep(0.3)
        assert beat.stat().st_size == size


def wait_for(true: Any, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class TestPrograms:
    def test_our_commands_are_those_of_the_seed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two halves over one empty cache; the second begins where the first one ended."""
        seen: list[tuple[list[str], str]] = []

        def pretend(command: list[str], log: Path, folder: Path, env: dict[str, str]) -> Any:
            seen.append((command, env["XDG_CACHE_HOME"]))
            assert not Path(env["XDG_CACHE_HOME"]).exists()
            there = Path(command[command.index("--run_dir") + 1])
            there.mkdir()
            (there / "metrics.csv").write_text(f"epoch,val/accuracy\n0,0.{len(seen)}\n1,0.")
            (there / "run.json").write_text('{"versions": {"a": "b"}}')
            return programs.Watched(0, 10.0 * len(seen), False, 3.0 - len(seen), None)

        monkeypatch.setattr(programs, "watch", pretend)
        done = programs.run_ours("bf16-mixed", Contest(tmp_path, 7), 5, tmp_path / "log")
        assert done["val_accuracy"] == [0.1, 0.2]  # without the rows that are not whole
        assert (done["seconds"], done["process_gib"], done["tree_gib"]) == (30.0, 2.0, None)
        first, second = (" ".join(command) for command, _ in seen)
        assert seen[0][1] == seen[1][1]
        for words in (first, second):
            assert f"--data.root {tmp_path} " in words and "--seed_everything 5" in words
            assert "--trainer.max_epochs=7 --trainer.precision=bf16-mixed" in words
        assert "--config configs/seed.yaml" in first and "init" not in first
        assert "--config configs/seed_augmented.yaml" in second
        run_dir = first.partition("--run_dir ")[2].split()[0]
        assert f"--init_from={run_dir}/checkpoints/last.ckpt --init_optimizer=true" in second

    def test_the_fast_one_is_stopped_at_the_threshold(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[bool] = []

        def pretend(command: list[str], log: Path, folder: Path, env: Any, until: Any) -> Any:
            run_dir = Path(command[command.index("--run_dir") + 1])
            run_dir.mkdir()
            (run_dir / "run.json").write_text("{}")
            for row in ("epoch,val/accuracy\n", "0,0.78\n", "1,0.79", "\n"):
                with (run_dir / "metrics.csv").open("a") as file:
                    file.write(row)
                looks.append(until())
            return programs.Watched(0, 5.0, looks[-1], None, None)

        monkeypatch.setattr(programs, "watch", pretend)
        done = programs.run_fast(Contest(tmp_path), 0, tmp_path / "log")
        assert looks == [False, False, False, True]
        assert done["reached"] and done["val_accuracy"] == [0.78, 0.79]

    def test_a_rehearsal_alone_shortens_the_fast_one(self) -> None:
        assert Contest(Path(), 10).fast_options == []
        assert Contest(Path(), 2).fast_options == ["--trainer.max_epochs=2"]

    def test_a_bad_end_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(programs, "HERE", tmp_path)
        (tmp_path / "peer.py").write_text("raise ValueError('no such layer')")
        with pytest.raises(ProgramFailedError, match="ended with code 1: ValueError: no such la"):
            programs.run_peer(
                Path(sys.executable), "peer.py", Contest(tmp_path), 0, tmp_path / "log"
            )

    def test_a_peer_gets_its_words_and_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(programs, "HERE", tmp_path)
        (tmp_path / "peer.py").write_text(
            "import json, sys; out = sys.argv[2].partition('=')[2]\n"
            "json.dump({'val_accuracy': [0.5], 'words': sys.argv[1:]}, open(out, 'w'))"
        )
        python = Path(sys.executable)
        done = programs.run_peer(python, "peer.py", Contest(tmp_path, 4), 2, tmp_path / "log")
        assert done["val_accuracy"] == [0.5] and done["seconds"] > 0
        assert done["words"][0] == f"--root={tmp_path}"
        assert done["words"][2:] == ["--seed=2", "--epochs=4"]


class TestTorchPil:
    def test_nothing_to_do_leaves_the_picture_alone(self, picture: Image.Image) -> None:
        assert affine(picture, 0, (0, 0), 1).tobytes() == picture.tobytes()

    def test_a_shift_goes_right_and_down_and_leaves_black(self, picture: Image.Image) -> None:
        before = np.asarray(picture)
        after = np.asarray(affine(picture, 0, (3, 5), 1))
        assert (after[5:, 3:] == before[:-5, :-3]).all()
        assert not after[:5].any() and not after[:, :3].any()

    def test_a_quarter_turn_is_clockwise(self, picture: Image.Image) -> None:
        after = np.asarray(affine(picture, 90, (0, 0), 1)).astype(int)[1:-1, 1:-1]
        turned = np.rot90(np.asarray(picture), -1)[1:-1, 1:-1]  # roundings may blacken the edge
        assert np.abs(after - turned).max() <= 1

    def test_a_scale_above_one_grows_from_the_middle(self) -> None:
        pixels = np.zeros((40, 40, 3), np.uint8)
        pixels[16:24, 16:24] = 255
        after = np.asarray(affine(Image.fromarray(pixels), 0, (0, 0), 2)) > 127
        assert after[12:28, 12:28].all() and after.sum() == 16 * 16 * 3

    def test_mirror(self, picture: Image.Image) -> None:
        mirrored = np.asarray(random_flip(picture, 1.0))
        assert (mirrored == np.asarray(picture)[:, ::-1]).all()
        assert random_flip(picture, 0.0) is picture

    def test_draws_stay_within_the_seeds_bounds(
        self, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[tuple[float, float, float, float]] = []

        def note(_: Any, angle: float, shift: tuple[float, float], scale: float) -> Image.Image:
            drawn.append((angle, *shift, scale))
            return picture

        monkeypatch.setattr("tests.benchmarks.peers.torch_pil.affine", note)
        torch.manual_seed(0)
        for _ in range(400):
            random_affine(picture)
        low, high = np.min(drawn, 0), np.max(drawn, 0)
        assert low == pytest.approx([-50, -4, -4, 0.9], abs=0.6)
        assert high == pytest.approx([50, 4, 4, 1.1], abs=0.6)
        assert low[3] == pytest.approx(0.9, abs=0.005) and high[3] == pytest.approx(1.1, abs=0.005)

    def test_pixels_become_floats(self) -> None:
        tensor = to_tensor(Image.new("RGB", (4, 2), (255, 51, 0)))
        assert tensor.shape == (3, 2, 4) and tensor.dtype == torch.float32
        assert tensor[:, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])

    def test_it_goes_on_over_the_end_of_an_epoch(self, root: Path) -> None:
        """8 pictures are four batches, and six are asked for."""
        peer = TorchPil(root / "train", batch_size=2, steps=6)
        assert peer.loader() > 0 and peer.train() > 0
        pictures = PilPictures(root / "train")
        assert [label for _, label in pictures.samples] == [0] * 4 + [1] * 4
        assert pictures[0][0].shape == (3, 150, 150)


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "match"),
        [
            (["--epochs", "0"], r"--epochs is 0; allowed is 1 or more"),
            (["--repeats", "0"], r"--repeats is 0; allowed is 1 or more"),
            (["--steps", "1"], r"--steps is 1; allowed is 2 or more"),
            (["--seeds", "1", "1"], r"--seeds is \[1, 1\]; allowed are different numbers"),
            (["--seeds", "-1"], r"--seeds is \[-1\]"),
            (["--threshold", "79"], r"--threshold is 79.0; allowed is above 0, to 1"),
            (["--fast_config", "no.yaml"], r"--fast_config .*no.yaml: there is no such file"),
            (["--page", "no.md"], r"--page no.md: there is no such file"),
            (["--page", "README.md"], r"--page: the page has no part between"),
            (["--root", "nowhere"], r"--root nowhere has no folder train"),
            (["--skip", "torch"], r"invalid choice: 'torch'"),
            (["--epoch", "2"], r"unrecognized arguments: --epoch 2"),
        ],
    )
    def test_mistakes(
        self,
        words: list[str],
        match: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(ROOT)
        assert main(words) == 2
        assert re.search(match, capsys.readouterr().err)

    def test_from_start_to_page(
        self,
        root: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """With the trainings and the loaders left out; a second time nothing is run."""
        page, out = tmp_path / "page.md", tmp_path / "out"
        page.write_text(PAGE)
        kinds = [f"{a}, {b}" for a in ("loader", "training") for b in ("ours", "torch + PIL")]
        about = {"date": "today", "processor": "p", "cores": 1, "system": "s"}
        Path.mkdir(out)
        (out / "loaders.json").write_text(
            json.dumps({"images_per_second": {kind: [1.0] for kind in kinds}, "machine": about})
        )
        calls: list[str] = []

        def pretend(precision: str, *_: Any) -> dict[str, Any]:
            calls.append(precision)
            return run(3.0, 0.5, 0.75)

        monkeypatch.setattr(programs, "run_ours", pretend)
        monkeypatch.setattr(contest, "slow_precision", lambda *_: "")
        words = [f"--root={root}", f"--out={out}", f"--page={page}", "--epochs=1", "--seeds", "4"]
        words += ["--skip", "keras", "fastai", "fast"]
        assert main(words) == 0
        assert main(words) == 0
        assert calls == ["32-true", "bf16-mixed"]
        printed, written = capsys.readouterr().out, page.read_text()
        assert "ours-fp32 seed 4 ...\nours-fp32 seed 4: 3.0 s, accuracy 0.750\n" in printed
        assert "ours-bf16 seed 4: 3.0 s, accuracy 0.750 (done before)" in printed
        assert "8 pictures to train on and 4 held out; seeds 4; 1 + 1 epochs" in written
        assert "| Waggle, fp32 | 3 (3 to 3) | - | 0.500 | 0.750 | 0.750 (2) |" in written
        assert written.startswith("# Title") and written.endswith("## After\n")
        assert main([*words, "--epochs=2"]) == 2
        assert "holds runs with other settings: epochs 1, now 2" in capsys.readouterr().err
