"""The command that compares runs: on runs whose pictures are written here."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.calibration import Decision
from src.compare import main, parser
from src.errors import UserError
from src.paired import Pairs
from src.results import write_scores
from src.run import write_json
from src.scored import CHECKSUM, read_scored, write_scored
from src.table import Table
from src.verdicts import Outcome, verdict
from tests.helpers import ROOT

CLASSES = ("ant", "bug")


def write_run(
    folder: Path,
    right: Sequence[int],
    *,
    names: Sequence[str] = (),
    classes: Sequence[str] = CLASSES,
    fingerprint: str = "f" * 64,
    command: str = "test",
) -> Path:
    """Write what a test leaves: pictures of both classes by turns, named rightly where 1 stands."""
    folder.mkdir(parents=True)
    target = np.arange(len(right)) % 2
    named = np.where(np.array(right, bool), target, 1 - target)
    logits = np.log(np.where(np.eye(2)[named] > 0, 0.75, 0.25))
    table = Table.from_rows(np.arange(len(right)), target, logits)
    paths = names or [f"{CLASSES[i % 2]}/{i}.png" for i in range(len(right))]
    digest = write_scored(folder / f"{command}.csv", paths, table, classes, Decision())
    more = {"checkpoint": "best.ckpt", "data_fingerprint": fingerprint, CHECKSUM: digest}
    write_json(folder / f"{command}.json", {"classes": list(classes), **more})
    return folder


def row_of(flags: str) -> list[int]:
    """Turn "40x1 3x0" into forty ones and three zeros."""
    parts = [part.split("x") for part in flags.split()]
    return [int(flag) for count, flag in parts for _ in range(int(count))]


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two runs on 100 pictures: 80 both right, 2 the first alone, 14 the second, 4 neither."""
    first, second = row_of("80x1 2x1 14x0 4x0"), row_of("80x1 2x0 14x1 4x0")
    return [write_run(tmp_path / "a", first), write_run(tmp_path / "b", second)]


def output(capsys: pytest.CaptureFixture[str], words: Sequence[object], code: int = 0) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return err if code else out


class TestFiles:
    def test_rows_and_numbers_come_back(self, tmp_path: Path) -> None:
        logits = np.array([[0.1, -0.3], [2.5, 2.7], [1.0, 9.0]])
        names = ["x/é,1.png", "/elsewhere/a\rb.png", "x/\udcff.png"]
        decision = Decision(temperature=1.7, threshold=0.9)
        table = Table.from_rows([0, 1, 2], [0, 1, -1], logits)
        more = {"checkpoint": "best.ckpt", "data_fingerprint": "f"}
        write_scores(tmp_path / "test.json", names, table, CLASSES, decision, more)
        text = (tmp_path / "test.csv").read_bytes().decode("utf-8", "surrogateescape")
        assert text.startswith('path,label,predicted_class,prob_ant,prob_bug\n"x/é,1.png",ant,ant,')
        assert "\nx/\udcff.png,,bug,0.00" in text  # no label
        found = read_scored(tmp_path, "test")
        assert found.paths == tuple(names[:2])
        assert (found.labels, found.predicted) == (("ant", "bug"), ("ant", "ant"))
        assert found.right.tolist() == [True, False]
        assert np.array_equal(found.probabilities, decision.probabilities(table.logits)[:2])

    def test_nothing_half_written_is_left(self, two: list[Path]) -> None:
        assert sorted(path.name for path in two[0].iterdir()) == ["test.csv", "test.json"]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("test.csv", None, r"a has no test\.csv\. Score the run: .* test --run_dir \S*a$"),
            ("test.json", None, r"a has no test\.json\."),
            ("test.csv", "path\n", r"test\.csv is not the file that test\.json was made with"),
            ("test.json", "{", r"test\.json is damaged \(JSONDecodeError"),
            ("test.json", "[]", r"test\.json is damaged \(AttributeError"),
            ("test.json", "{}", r"test\.csv is not the file that test\.json was made with"),
        ],
    )
    def test_tampered(self, name: str, text: str | None, message: str, two: list[Path]) -> None:
        path = two[0] / name
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_scored(two[0], "test")

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("classes", ["ant", "wasp"], r"columns \['path', 'label', .* labelled rows"),
            ("classes", ["ant"], r"columns"),
            ("classes", None, r"TypeError"),
            ("checkpoint", ..., r"KeyError: 'checkpoint'"),
            ("csv_sha256", ..., r"test\.csv is not the file"),
        ],
    )
    def test_a_changed_key(self, key: str, value: Any, message: str, two: list[Path]) -> None:
        path = two[0] / "test.json"
        found = json.loads(path.read_text())
        found = {k: v for k, v in found.items() if k != key}
        path.write_text(json.dumps(found if value is ... else {**found, key: value}))
        with pytest.raises(UserError, match=message):
            read_scored(two[0], "test")

    def test_an_older_run_is_scored_again(self, two: list[Path]) -> None:
        (two[0] / "test.csv").unlink()
        with pytest.raises(UserError, match=r"python -m src\.train validate --run_dir"):
            read_scored(two[0], "val")


class TestReport:
    def test_two_runs(self, two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
        lines = output(capsys, two).splitlines()
        assert lines[0] == "100 pictures of 2 classes"
        # Wilson's interval of 82 and 94 of 100.
        assert lines[1] == f"A  accuracy 0.8200 (0.7333 to 0.8830)  {two[0]}, best.ckpt"
        assert lines[2] == f"B  accuracy 0.9400 (0.8752 to 0.9722)  {two[1]}, best.ckpt"
        # 2 (1 + 16 + 120) / 2^16 = 0.0042; the interval is looked at in tests/test_paired.py.
        assert lines[4] == "B is better than A by 12.0 points (4.8 to 20.5), p 0.0042"
        assert lines[5] == "  both right 80, A alone 2, B alone 14, both wrong 4"
        assert lines[6] == "  ant/80.png  is ant: A ant 0.750, B bug 0.750"
        assert lines[8] == "  ant/82.png  is ant: A bug 0.750, B ant 0.750"
        assert len([line for line in lines if ".png" in line]) == 16
        assert "Holm" not in lines[-1]

    def test_the_order_turns_the_words_round(
        self, two: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "A is better than B by 12.0 points (4.8 to 20.5), p 0.0042" in output(
            capsys, two[::-1]
        )

    def test_no_difference(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = [
            write_run(tmp_path / "a", row_of("90x1 4x1 3x0 3x0")),
            write_run(tmp_path / "b", row_of("90x1 4x0 3x1 3x0")),
        ]
        found = output(capsys, runs)
        # 2 (1 + 7 + 21 + 35) / 2^7 = 1
        assert "no difference can be seen between A and B: B less A is -1.0 points (-" in found
        assert ", p 1\n" in found

    def test_the_same_answers(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = [write_run(tmp_path / name, row_of("46x1 4x0")) for name in "ab"]
        # 50 pictures: z^2 / (50 + z^2) = 7.1 points.
        assert "B less A is 0.0 points (-7.1 to 7.1), p 1" in output(capsys, runs)

    def test_at_most_twenty_pictures_are_shown(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = [
            write_run(tmp_path / "a", row_of("25x0 25x1")),
            write_run(tmp_path / "b", row_of("25x1 25x1")),
        ]
        found = output(capsys, [*runs, "--json", tmp_path / "all.json"])
        assert found.count(".png") == 20
        assert "  and 5 more (--json FILE has them)" in found
        assert "p below 0.0001" in found
        kept = json.loads((tmp_path / "all.json").read_text())["comparisons"][0]
        assert len(kept["flipped"]) == 25

    def test_several_runs_are_corrected(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = ("84x1 16x0", "84x1 6x1 10x0", "84x1 5x1 11x0", "84x1 16x0")
        runs = [write_run(tmp_path / str(n), row_of(row)) for n, row in enumerate(rows)]
        found = output(capsys, [*runs, "--json", tmp_path / "all.json"])
        # 2 / 2^6 is 0.031 and three times that 0.094; 2 / 2^5 is 0.0625, twice that 0.125.
        assert "between A and B: B less A is 6.0 points" in found
        assert "p 0.031 (0.094)" in found
        assert "p 0.062 (0.12)" in found
        assert "3 comparisons: the p in brackets is Holm's correction" in found
        assert "better" not in found
        kept = json.loads((tmp_path / "all.json").read_text())
        assert [c["second"] for c in kept["comparisons"]] == ["B", "C", "D"]
        assert [c["p_holm"] for c in kept["comparisons"]] == pytest.approx([3 / 32, 4 / 32, 1])
        assert "better than A by 6.0" in output(capsys, runs[:2])

    def test_all_pairs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = [write_run(tmp_path / name, row_of("5x1 5x0")) for name in "abc"]
        found = output(capsys, [*runs, "--all_pairs"])
        assert re.findall("between (.) and (.):", found) == [("A", "B"), ("A", "C"), ("B", "C")]

    def test_json(self, two: list[Path], tmp_path: Path, capsys: Any) -> None:
        output(capsys, [*two, "--json", tmp_path / "found.json"])
        found = json.loads((tmp_path / "found.json").read_text())
        assert (found["split"], found["n"], found["classes"]) == ("test", 100, ["ant", "bug"])
        assert found["runs"][1]["accuracy"] == 0.94
        (pair,) = found["comparisons"]
        assert (pair["both_right"], pair["both_wrong"]) == (80, 4)
        assert (pair["only_first_right"], pair["only_second_right"]) == (2, 14)
        assert pair["difference"] == 0.12
        assert pair["p"] == pair["p_holm"] == pytest.approx(2 * 137 / 2**16)
        assert pair["mid_p"] == pytest.approx((2 * 137 - 120) / 2**16)
        assert pair["flipped"][0] == {
            "path": "ant/80.png",
            "label": "ant",
            "first": {"class": "ant", "probability": pytest.approx(0.75)},
            "second": {"class": "bug", "probability": pytest.approx(0.75)},
        }

    def test_validation(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = [write_run(tmp_path / n, row_of("5x1 5x0"), command="validate") for n in "ab"]
        assert "10 pictures" in output(capsys, [*runs, "--split", "val"])
        assert "has no test.json and no test.csv" in output(capsys, runs, code=2)

    def test_names_that_the_terminal_lacks(self, tmp_path: Path, capsys: Any) -> None:
        names = ["x/\udcff.png", "x/1.png"]
        runs = [
            write_run(tmp_path / "a", [0, 1], names=names),
            write_run(tmp_path / "b", [1, 1], names=names),
        ]
        assert r"x/\udcff.png  is ant" in output(capsys, [*runs, "--json", tmp_path / "all.json"])
        kept = json.loads((tmp_path / "all.json").read_text())
        assert kept["comparisons"][0]["flipped"][0]["path"] == names[0]

    def test_a_small_difference_of_many_pictures_keeps_its_digits(self) -> None:
        pairs = Pairs(both_right=19_990, only_first=0, only_second=10, both_wrong=0)
        assert verdict(Outcome(0, 1, pairs, tuple(range(10)), pairs.p)) == (
            "B is better than A by 0.05 points (0.03 to 0.09), p 0.002"
        )


class TestRefuses:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"classes": ("ant", "wasp")}, r"their classes are ant, bug and ant, wasp"),
            ({"right": [1, 0, 1]}, r"there are 4 and 3"),
            (
                {"names": ["ant/0.png", "bug/9.png", "ant/2.png", "bug/3.png"]},
                r"where one has bug/1\.png \(bug\), the other has bug/9\.png \(bug\)",
            ),
            (
                {"fingerprint": "0123456789abcdef"},
                r"the same names and not the same content \(fingerprints f{12} and 0123456789ab\)",
            ),
        ],
    )
    def test_other_data(
        self, other: dict[str, Any], message: str, tmp_path: Path, capsys: Any
    ) -> None:
        one = write_run(tmp_path / "a", [1, 0, 1, 1])
        twin = write_run(tmp_path / "b", **{"right": [1, 1, 1, 0], **other})
        err = output(capsys, [one, twin], code=2)
        assert "were not scored on the same pictures: " in err
        assert re.search(message, err)
        assert "src.train test --run_dir RUN --data.root DATA" in err

    def test_another_label(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        names = [f"{i}.png" for i in range(4)]
        one = write_run(tmp_path / "a", [1, 1, 1, 1], names=names)
        twin = write_run(tmp_path / "b", [1, 1, 1, 1], names=[*names[1::-1], *names[2:]])
        assert "one has 0.png (ant), the other has 1.png (ant)" in output(
            capsys, [one, twin], code=2
        )

    def test_not_what_lies_outside_the_root_on_another_machine(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = write_run(tmp_path / "a", [1, 1], names=["/here/0.png", "in/1.png"])
        twin = write_run(tmp_path / "b", [1, 1], names=["D:/there/0.png", "in/1.png"])
        assert "no difference" in output(capsys, [one, twin])

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("a", r"1 run\(s\) given; allowed are 2 to 26"),
            ("a b a/../a", r"a and a/\.\./a are the same run"),
            ("a nowhere", r"nowhere: there is no such folder"),
            ("a b --split train", r"invalid choice: 'train'.*See --help"),
            ("a b --all", r"unrecognized arguments: --all"),
            ("", r"required: RUN"),
            ("a b --json nowhere/x.json", r"No such file or directory \(nowhere"),
        ],
    )
    def test_mistakes(
        self, words: str, message: str, two: list[Path], monkeypatch: Any, capsys: Any
    ) -> None:
        monkeypatch.chdir(two[0].parent)
        assert re.search(message, output(capsys, words.split(), code=2))

    def test_the_same_run_by_a_link(self, two: list[Path], capsys: Any) -> None:
        link = two[0].parent / "link"
        try:
            link.symlink_to(two[0], target_is_directory=True)
        except OSError:
            pytest.skip("not on this system: links")
        assert "are the same run" in output(capsys, [two[0], link], code=2)


def test_the_docs_name_options_that_exist() -> None:
    page = (ROOT / "docs/compare.md").read_text("utf-8")
    lines = re.findall(r"^\$ python -m src\.compare (.*)$", page, re.MULTILINE)
    assert lines
    for line in lines:
        parser().parse_args(shlex.split(line))
