"""The report of real runs: every section, whatever is missing, several runs, a browser."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src import fitting
from src import report as command
from src.calibration import Decision
from src.child import REPORT
from src.errors import StoppedRun, UserError, command_text
from src.opened import open_run
from src.report import main
from src.report_run import seconds_of_steps
from src.run import RunFolder
from src.scored import CHECKSUM, read_scored, write_scored
from src.table import Table
from tests.cli.conftest import TINY, Cli, make_pictures
from tests.helpers import require_module, require_program

SECTIONS = [
    "scores", "curves", "classes", "calibration", "mistakes", "looks", "shortcuts", "slices",
    "data", "time", "reproduce",
]  # fmt: skip
OF_SCORES = {"scores", "classes", "calibration", "mistakes", "looks", "shortcuts", "slices"}


@pytest.fixture(autouse=True)
def _matplotlib() -> None:
    require_module("matplotlib")


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def sections(self) -> list[str]:
        return [str(a["id"]) for tag, a in self.tags if tag == "section"]

    @property
    def ids(self) -> list[str]:
        return [str(a["id"]) for _, a in self.tags if "id" in a]

    @property
    def requests(self) -> list[str]:
        """What a browser would fetch."""
        named = [str(a[k]) for _, a in self.tags for k in ("src", "href", "xlink:href") if k in a]
        return [name for name in named if not name.startswith(("#", "data:"))]

    def tiles(self) -> str:
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.text.split("<nav")[0]))


class Written:
    """How `src.report` ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: object) -> None:
        capsys.readouterr()
        self.code = main([str(word) for word in words])
        self.out, self.err = capsys.readouterr()

    @property
    def page(self) -> Page:
        assert self.code == 0, self.err
        return Page(Path(self.out.splitlines()[-1]))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, in a folder with a space."""
    return Path(shutil.copytree(trained, tmp_path / "a run"))


@pytest.fixture(scope="module")
def scored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after `test`, with its page."""
    from src.train import main as train

    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "run"))
    assert train(["test", f"--run_dir={folder}"]) == 0
    assert main([str(folder)]) == 0
    return folder


class TestOneRun:
    def test_every_section(self, scored: Path) -> None:
        page = Page(scored / "report.html")
        assert page.sections == SECTIONS
        assert "Missing" not in page.text
        assert len(page.ids) == len(set(page.ids))
        links = {str(a["href"]) for tag, a in page.tags if tag == "a"}
        assert links == {f"#{name}" for name in SECTIONS}

    def test_it_is_one_small_file(self, scored: Path) -> None:
        page = Page(scored / "report.html")
        assert page.requests == []
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
        assert "url(http" not in page.text
        assert "@import" not in page.text
        assert len(page.text) < 10e6

    def test_everything_seen_is_said(self, scored: Path) -> None:
        page = Page(scored / "report.html")
        pictures = [a for tag, a in page.tags if tag == "img"]
        assert len(pictures) > 40
        assert all("alt" in a for a in pictures)
        assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg")

    def test_its_scores_are_those_of_test(self, scored: Path) -> None:
        found = json.loads((scored / "test.json").read_text())
        text = Page(scored / "report.html").tiles()
        assert f"{100 * found['accuracy']:.1f} %" in text
        assert "accuracy on 14 test pictures" in text

    def test_without_a_test_the_validation_pictures_are_shown(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A report never looks at test pictures of its own accord."""
        page = Written(capsys, run).page
        assert "accuracy on 6 validation pictures" in page.tiles()
        assert "The epoch and the temperature were chosen on these" in page.text

    def test_names_are_text(
        self, cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        evil = '<img src=x onerror="alert(1)">'.replace("/", "")
        root = make_pictures(tmp_path / "evil", {"": 8}, (evil, "$a_$"))
        words = ["--trainer.max_epochs=1", "--data.val_fraction=0.25", *TINY]
        assert cli("fit", "--data.root", root, "--run_dir", "run", *words).code == 0
        page = Written(capsys, "run").page
        assert page.sections == SECTIONS
        assert [a for tag, a in page.tags if tag == "img" and "onerror" in a] == []
        assert page.requests == []
        assert "Missing" not in page.text

    def test_a_name_that_holds_a_comma(
        self, cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is told from two names, in the line of fit as in the title."""
        root = make_pictures(tmp_path / "data", {"": 8}, ("green, red", "blue"))
        words = ["--trainer.max_epochs=1", "--data.val_fraction=0.25", *TINY]
        fitted = cli("fit", "--data.root", root, "--run_dir", "run", *words)
        assert ' | blue, "green, red" | 32 pixels, ' in fitted.out
        assert "<h1>A run: blue, &#34;green, red&#34;</h1>" in Written(capsys, "run").page.text


def without(run: Path, *names: str) -> None:
    for name in names:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def scored_on_others(run: Path) -> None:
    """Let test.json say that it is of other data."""
    path = run / "test.json"
    path.write_text(path.read_text().replace('"data_fingerprint": "', '"data_fingerprint": "0'))


class TestMissingParts:
    @pytest.mark.parametrize(
        ("names", "gone", "message"),
        [
            (["samples.csv"], OF_SCORES, r"missing: the pictures: there is no samples\.csv"),
            (["metrics.csv"], {"curves", "time"}, r"missing: the curves: metrics\.csv is not"),
            (["summary.json"], set(), ""),
            (["run.json"], OF_SCORES, r"missing: the record of the run: there is no run\.json"),
            (["checkpoints"], OF_SCORES, r"missing: the network: there is no checkpoint in"),
            (
                ["checkpoints/best.ckpt"],
                set(),
                r"best\.ckpt is not there\. Taken instead: last\.ckpt",
            ),
        ],
        ids=lambda value: str(value) if isinstance(value, list) else "",
    )
    def test_a_file(
        self,
        names: list[str],
        gone: set[str],
        message: str,
        run: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        without(run, *names)
        written = Written(capsys, run)
        assert written.page.sections == [name for name in SECTIONS if name not in gone]
        assert re.search(message, written.err)
        assert bool(written.err) == bool(message)
        assert ("Missing:" in written.page.text) == bool(message)
        assert ("has not ended" in written.page.text) == (names == ["summary.json"])

    @pytest.mark.parametrize(
        ("name", "text", "gone", "message"),
        [
            ("run.json", "{", OF_SCORES, r"the record of the run: .*run\.json is damaged"),
            ("metrics.csv", "epoch\n1\n", {"curves", "time"}, r"the curves: .* is damaged"),
            ("summary.json", "[", set(), ""),
            ("samples.csv", "x\n", OF_SCORES, r"the pictures: "),
            ("checkpoints/best.ckpt", "x", set(), r"best\.ckpt: .*Taken instead: last\.ckpt"),
        ],
    )
    def test_a_damaged_file(
        self,
        name: str,
        text: str,
        gone: set[str],
        message: str,
        run: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (run / name).write_text(text)
        written = Written(capsys, run)
        assert written.page.sections == [s for s in SECTIONS if s not in gone]
        assert re.search(message, written.err)

    def test_a_torn_last_row(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with (run / "metrics.csv").open("a") as file:
            file.write("2,9,0.1")
        assert Written(capsys, run).page.sections == SECTIONS

    def test_pictures_that_have_moved(
        self, run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = json.loads((run / "run.json").read_text())
        record["data"]["root"] = str(tmp_path / "nowhere")
        (run / "run.json").write_text(json.dumps(record))
        written = Written(capsys, run)
        assert not OF_SCORES & set(written.page.sections)
        assert re.search(r"nowhere is not there; give --data\.root DIR", written.err)
        again = Written(capsys, run, "--data.root", pictures)
        assert again.page.sections == SECTIONS
        assert again.err == ""

    def test_pictures_that_were_deleted(
        self, run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = shutil.copytree(pictures, tmp_path / "fewer")
        (root / "train/ant/3.png").unlink()
        written = Written(capsys, run, "--data.root", root)
        assert written.page.sections == SECTIONS
        assert re.search(r"1 of the 54 pictures, train/ant/3\.png for one", written.err)

    def test_weights_that_have_diverged(
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*words: Any) -> Table:
            return Table.from_rows([0, 1], [0, 1], np.full((2, 2), np.nan))

        monkeypatch.setattr("src.judged.evaluate", broken)
        written = Written(capsys, run)
        assert not OF_SCORES & set(written.page.sections)
        assert "missing: the scores: the network's output is not finite" in written.err

    def test_no_validation(
        self, cli: Cli, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--data.val_fraction=0", "--trainer.max_epochs=1", *TINY]
        assert cli("fit", "--data.root", pictures, "--run_dir", "run", *words).code == 0
        written = Written(capsys, "run")
        assert written.page.sections == ["data", "reproduce"]
        assert "the curves: metrics.csv holds no validation" in written.err
        assert "the scores: there are no validation pictures. After `python" in written.err
        assert cli("test", "--run_dir", "run").code == 0
        assert set(Written(capsys, "run").page.sections) >= OF_SCORES

    def test_chosen_on_test(
        self, cli: Cli, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The seed's recipe: its network, one logit, no validation pictures."""
        words = [word for word in TINY if "model.net" not in word]
        words += ["--model.net=src.models.SeedCNN", "--model.net.single_logit=true"]
        words += ["--model.net.image_size=32", "--data.validate_on_test=true"]
        words += ["--model.calibrate=false", "--trainer.max_epochs=1"]
        assert cli("fit", "--data.root", pictures, "--run_dir", "run", *words).code == 0
        page = Written(capsys, "run").page
        assert "accuracy on 14 test pictures" in page.tiles()
        assert "so the scores are too good" in re.sub(r"\s+", " ", page.text)
        assert "First filters" in page.text

    def test_scores_of_other_pictures_open_no_test_pictures(
        self, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`test --data.root OTHER` has not looked at the run's own."""
        run = Path(shutil.copytree(scored, tmp_path / "run"))
        scored_on_others(run)
        written = Written(capsys, run)
        assert "accuracy on 6 validation pictures" in written.page.tiles()
        assert "test.json: it is of other pictures than the run's own" in written.err

    def test_a_fault_of_ours_is_told_and_leaves_the_rest(
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.report.slices", lambda values, right: right.no_such_thing)
        written = Written(capsys, run)
        assert written.code == 1
        assert "Traceback" in written.err
        assert "missing: the slices: AttributeError: " in written.err
        assert "This is a fault in Waggle" in written.err
        page = Page(run / "report.html")
        assert page.sections == [name for name in SECTIONS if name != "slices"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"the summary: summary\.json is damaged"),
            ("[]", r"the summary: summary\.json is damaged: it holds no scores"),
            ('{"best": 3}', r"the summary: summary\.json is damaged"),
        ],
    )
    def test_a_damaged_summary(
        self, text: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (run / "summary.json").write_text(text)
        written = Written(capsys, run)
        assert re.search(message, written.err)
        assert "has not ended" not in written.page.text

    @pytest.mark.parametrize(
        ("kept", "message"),
        [
            (0.5, r"the pictures: .*samples\.csv is damaged: it lists \d+ pictures and the run"),
            (-3, r"the pictures: .*samples\.csv is damaged: a hash in it was cut"),
        ],
    )
    def test_a_cut_list_of_pictures(
        self, kept: float, message: str, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = (run / "samples.csv").read_bytes()
        (run / "samples.csv").write_bytes(data[: int(len(data) * kept) if kept > 0 else int(kept)])
        written = Written(capsys, run)
        assert re.search(message, written.err)
        assert not OF_SCORES & set(written.page.sections)

    def test_a_good_page_is_not_replaced_by_a_poor_one(
        self, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = Path(shutil.copytree(scored, tmp_path / "run"))
        before = (run / "report.html").read_bytes()
        written = Written(capsys, run, "--data.root", tmp_path / "away")
        assert written.code == 2
        assert re.search(
            r"report\.html is kept, since .*away is not there.*--out FILE", written.err
        )
        assert (run / "report.html").read_bytes() == before
        elsewhere = Written(
            capsys, run, "--data.root", tmp_path / "away", "--out", tmp_path / "a.html"
        )
        assert OF_SCORES & set(elsewhere.page.sections) == {"scores", "classes", "calibration"}

    @pytest.mark.parametrize("lost", ["checkpoints", "the pictures"])
    def test_scores_that_are_there_are_shown(
        self, lost: str, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Of the network and the pictures of the run, as they were; no others."""
        run, out = Path(shutil.copytree(scored, tmp_path / "run")), tmp_path / "a.html"
        words: list[Any] = [run, "--out", out]
        if lost == "checkpoints":
            without(run, lost)
        else:
            words += ["--data.root", tmp_path / "away"]
            shutil.copyfile(run / "checkpoints/best.ckpt", run / "checkpoints/last.ckpt")
        page = Written(capsys, *words).page
        assert OF_SCORES & set(page.sections) == {"scores", "classes", "calibration"}
        assert "They were stored when best.ckpt was scored" in page.text
        accuracy = json.loads((run / "test.json").read_text())["accuracy"]
        assert f"{100 * accuracy:.1f} %" in page.text
        stored = json.loads((run / "test.json").read_text())
        (run / "test.json").write_text(json.dumps({**stored, "checkpoint": "last.ckpt"}))
        shown = OF_SCORES & set(Written(capsys, *words).page.sections)
        assert bool(shown) == (lost == "checkpoints")  # of the network that is there, or of none
        (run / "test.json").write_text(json.dumps(stored))
        scored_on_others(run)
        assert not OF_SCORES & set(Written(capsys, *words).page.sections)


class TestMistakesOfTheUser:
    @pytest.mark.parametrize("mark", ["", '<meta name="generator" content="Waggle audit">'])
    def test_a_page_of_others(
        self, mark: str, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        notes = run / "notes.html"
        notes.write_text(f"{mark}<p>mine</p>")
        written = Written(capsys, run, "--out", notes)
        assert written.code == 2
        assert "notes.html is there, and is no page of this command. Give" in written.err
        assert notes.read_text() == f"{mark}<p>mine</p>"
        notes.write_text('<meta name="generator" content="Waggle report">')
        assert Written(capsys, run, "--out", notes).code == 0

    def test_a_config_of_something_else(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (run / "config.yaml").write_text("data: {image_size: 32}")
        written = Written(capsys, run)
        assert written.code == 2
        assert re.search(r"is no config of a run: it has no data\.resize", written.err)

    def test_what_is_never_stored(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with (run / "config.yaml").open("a") as file:
            file.write("trust_code: os\n")
        written = Written(capsys, run)
        assert written.code == 2
        assert "sets trust_code, which the run folder never stores" in written.err

    def test_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        written = Written(capsys, tmp_path)
        assert written.code == 2
        assert f"error: {tmp_path} is no run folder: it has no config.yaml" in written.err

    def test_one_run_twice(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        written = Written(capsys, run, run / "." / ".." / run.name)
        assert written.code == 2
        assert "are the same run" in written.err

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (".", r"is a folder\. Give a file in it"),
            ("no/a.html", r"there is no folder no\."),
            ("run.json", r"--out run\.json: give the name of a page, which ends in \.html"),
        ],
    )
    def test_a_place_that_is_none(self, out: str, message: str, run: Path) -> None:
        with pytest.raises(UserError, match=message):
            command._require_place(Path(out))

    def test_a_folder_that_is_read_only(
        self, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("src.report.os.access", lambda path, mode: Path(path) != run)
        written = Written(capsys, run)
        assert written.code == 2
        assert "nothing can be written into" in written.err
        assert "Give a file elsewhere: --out FILE" in written.err
        elsewhere = run.parent / "page.html"
        assert Written(capsys, run, "--out", elsewhere).page.sections == SECTIONS
        assert not (run / "report.html").exists()

    def test_code_that_nobody_vouched_for(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("src.models.SmallResNet", "os.system"))
        written = Written(capsys, run)
        assert written.code == 2
        assert "--trust_code" in written.err


class TestSeveralRuns:
    @pytest.fixture
    def two(self, scored: Path, tmp_path: Path) -> list[Path]:
        """A run, and another that names five pictures otherwise."""
        folders = [Path(shutil.copytree(scored, tmp_path / name)) for name in ("one", "other")]
        found = read_scored(folders[1], "test")
        logits = np.log(found.probabilities)
        logits[:5] = logits[:5, ::-1]
        target = [found.classes.index(label) for label in found.labels]
        table = Table.from_rows(range(len(target)), target, logits)
        path = folders[1] / "test.json"
        csv = path.with_suffix(".csv")
        digest = write_scored(csv, found.paths, table, found.classes, Decision())
        path.write_text(json.dumps({**json.loads(path.read_text()), CHECKSUM: digest}))
        return folders

    def test_side_by_side(self, two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
        page = Written(capsys, *two).page
        assert page.sections == ["side", "curves", "differ", "flipped"]
        assert page.requests == []
        assert "Missing" not in page.text
        assert str(two[0].parent) not in page.text  # the page lies in a folder that may be moved
        a, b = (read_scored(folder, "test").right for folder in two)
        flips = int((a != b).sum())
        assert f"A and B: {flips} picture" in page.text
        sure = [float(share) for share in re.findall(r"A \w+ ([\d.]+) %, B", page.text)]
        assert len(sure) == flips
        assert sure == sorted(sure, key=lambda share: -abs(share - 50))
        assert len([tag for tag, _ in page.tags if tag == "img"]) == flips > 0
        assert re.search(r'class="verdict">(no difference|[AB] is better)', page.text)
        assert (two[0] / "comparison.html").is_file()

    def test_not_scored(self, two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
        without(two[1], "test.json")
        written = Written(capsys, *two)
        assert written.page.sections == ["side", "curves"]
        assert "the comparison: not all runs were scored" in written.err

    def test_scored_on_other_pictures(
        self, two: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        scored_on_others(two[1])
        written = Written(capsys, *two)
        assert "the test pictures that they were scored on differ: they have" in written.err
        assert ", on other pictures" in written.page.text

    def test_both_scored_on_other_pictures(
        self, two: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They are compared, and no picture of this data is shown for one of that name."""
        for folder in two:
            path = folder / "test.json"
            path.write_text(
                path.read_text().replace('"data_fingerprint": "', '"data_fingerprint": "0')
            )
        written = Written(capsys, *two)
        assert written.page.sections == ["side", "curves", "differ", "flipped"]
        assert not [tag for tag, _ in written.page.tags if tag == "img"]
        assert "A: test.json: it is of other pictures than the run's own" in written.err


class TestFit:
    def test_at_its_end(self, cli: Cli, pictures: Path, tmp_path: Path) -> None:
        """In a process of its own; the last line stays the run folder."""
        words = ["--data.root", pictures, "--run_dir", tmp_path / "a run", "--report=true"]
        ended = cli("fit", *words, "--trainer.max_epochs=1", *TINY)
        assert ended.code == 0
        assert ended.last_line == str(tmp_path / "a run")
        assert Page(tmp_path / "a run/report.html").sections == SECTIONS

    @pytest.mark.parametrize("word", ["--report=false", "--trainer.fast_dev_run=true"])
    def test_none(
        self,
        word: str,
        cli: Cli,
        pictures: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(REPORT, "true")
        words = ["--data.root", pictures, "--run_dir", "run", "--trainer.max_epochs=1", *TINY]
        assert cli("fit", *words, word).code == 0
        assert not list(tmp_path.rglob("report.html"))

    @pytest.mark.parametrize(
        ("wanted", "variable", "means"),
        [
            (None, None, True),
            (None, "false", False),
            (None, "0", False),
            (None, "true", True),
            (True, "false", True),
            (False, "true", False),
        ],
    )
    def test_the_variable(
        self,
        wanted: bool | None,
        variable: str | None,
        means: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv(REPORT, raising=False)
        if variable is not None:
            monkeypatch.setenv(REPORT, variable)
        assert fitting.wants_report(wanted) is means

    def test_a_failure_and_ctrl_c_spoil_nothing(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = RunFolder(run)
        for code, what in ((2, "could not be made"), (1, "lacks a part, see above")):
            failed = subprocess.CompletedProcess([], code)
            monkeypatch.setattr("src.fitting.subprocess.run", lambda *_, done=failed, **__: done)
            fitting.write_report(folder, True, None)
            told = f"WARNING: the report {what}. Again: python -m src.report"
            assert told in capsys.readouterr().err

        def stopped(*words: Any, **more: Any) -> None:
            raise StoppedRun("SIGINT")

        monkeypatch.setattr("src.fitting.subprocess.run", stopped)
        fitting.write_report(folder, True, "mine")
        message = capsys.readouterr().err
        assert "stopped by Ctrl-C: no report, and the run is whole" in message
        assert command_text([str(run), "--trust_code", "mine"]) in message


@pytest.mark.parametrize(
    ("trainer", "rows", "seconds"),
    [
        ({}, [(0, 2, 10.0), (1, 4, 20.0)], 2.0 + 1.0),  # 20 pictures an epoch, the last batch of 4
        ({"limit_train_batches": 1}, [(0, 1, 16.0), (1, 2, 16.0)], 1.0 + 1.0),
        ({"max_steps": 3}, [(0, 2, 10.0), (1, 3, 16.0)], 2.0 + 1.0),
        ({"val_check_interval": 0.5}, [(0, 1, 16.0), (0, 2, 16.0)], 1.0 + 1.0),
        ({"accumulate_grad_batches": 2}, [(0, 1, 10.0)], 2.0),
        ({"check_val_every_n_epoch": 2}, [(1, 4, 10.0)], 4.0),
        ({}, [(0, 2, float("nan"))], 0.0),
    ],
)
def test_seconds_of_steps(
    trainer: dict[str, Any], rows: list[tuple[int, int, float]], seconds: float
) -> None:
    """Worked out by hand, for 20 training pictures in batches of 16."""
    run = SimpleNamespace(
        config={"data": {"batch_size": 16}, "trainer": trainer},
        record={"data": {"counts": {"train": {"ant": 12, "bug": 8}}}},
        rows=[{"epoch": str(e), "step": str(s), "images_per_second": str(r)} for e, s, r in rows],
    )
    assert seconds_of_steps(run) == pytest.approx(seconds)  # type: ignore[arg-type]


def test_an_opened_run(trained: Path) -> None:
    found = open_run(trained)
    assert found.classes == ("ant", "bug")
    assert found.index is not None
    assert len(found.index) == 54
    assert found.split == "val"
    assert len(found.pictures("val", 10)) == 6
    assert found.pictures("val", 3).index.paths == found.pictures("val", 10).index.paths[::2]
    assert found.missing.lines == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's own Chromium."""
    require_module("playwright")
    path = require_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(width: int, scheme: Any, browser: Any, scored: Path) -> None:
    """With the network off: every section is seen, nothing is asked for, nothing sticks out."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    address = (scored / "report.html").as_uri()
    page.goto(address)
    for name in SECTIONS:
        assert page.locator(f"#{name} h2").is_visible()
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == (scheme == "light")
    context.close()


@pytest.mark.browser
def test_a_long_name_pushes_no_number_out_of_sight(
    browser: Any, scored: Path, tmp_path: Path
) -> None:
    name = "Great_golden_digger_wasp_Sphex_ichneumoneus"
    path, text = tmp_path / "long.html", (scored / "report.html").read_text("utf-8")
    path.write_text(text.replace(">ant<", f">{name}<"), "utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(path.as_uri())
    first = page.locator("#classes table:not(.confusion) td").first
    assert first.inner_text() == name
    assert first.bounding_box()["width"] > 60  # not a letter a line
    hidden = "all => all.map((one) => one.scrollWidth - one.clientWidth)"
    assert page.locator("#classes .scroll").evaluate_all(hidden) == [0, 0]
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shadows_say_where_a_table_goes_on(scheme: Any, browser: Any, scored: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto((scored / "report.html").as_uri())
    box = page.locator("#classes .scroll").last
    assert shaded(box) == [False, False]
    box.evaluate("one => { one.firstElementChild.style.width = '900px'; }")
    for at, ends in ((0, [False, True]), (200, [True, True]), (900, [True, False])):
        box.evaluate("(one, at) => { one.scrollLeft = at; }", at)
        assert shaded(box) == ends
    page.close()


def shaded(box: Any) -> list[bool]:
    """Return whether there is a shadow at the left and the right end, above the table's head."""
    with Image.open(io.BytesIO(box.screenshot())) as picture:
        width, pixels = picture.width, picture.convert("L")
        plain, *ends = (pixels.getpixel((x, 17)) for x in (width // 2, 2, width - 3))
    return [abs(end - plain) > 10 for end in ends]
