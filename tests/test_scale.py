"""The benchmark of many pictures: that it measures what it says, on few; never how fast."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.benchmarks import scale, scale_page

TIMES = dict.fromkeys(scale_page.PARTS, 0.002)


def measured(first: list[float]) -> dict[str, object]:
    times = {**TIMES, "all": 0.01, "peak_bytes": 5e8}
    return {"cold": times, "warm": times, "first_step_seconds": first, "fit_peak_gb": 0.7}


def test_every_picture_is_whole_and_different(tmp_path: Path) -> None:
    scale.make_pictures(tmp_path / "pictures", 25)
    paths = sorted((tmp_path / "pictures").rglob("*.png"))
    assert [path.parent.name for path in paths[:3]] == ["class0"] * 3  # 0, 10, 20
    pixels = {Image.open(path).convert("RGB").tobytes() for path in paths}
    assert (len(paths), len(pixels)) == (25, 25)


def test_the_table_is_by_the_picture() -> None:
    found = {"1000": measured([2.0, 3.0, 2.5]), "2000": measured([4.0, 4.0, 4.0])}
    lines = scale_page.table(found).splitlines()
    assert lines[2].startswith("| 1,000 | cold | 2.0 | 2.0 |")
    assert lines[4].startswith("| 2,000 | cold | 1.0 | 1.0 |")
    assert lines[3].endswith("| 0.50 | 2.50 (2.25 to 2.75) | 0.70 |")
    assert scale_page.later(found).endswith("2,000: 1.50 s")  # the turns differ by 2, 1 and 1.5


@pytest.mark.cli
@pytest.mark.campaign
def test_a_small_size_from_start_to_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Head\n\n<!-- scale:begin -->\nold\n<!-- scale:end -->\ntail\n")
    words = ["--sizes", "60", "--out", str(tmp_path / "out"), "--repeats", "1"]
    assert scale.main([*words, "--page", str(page)]) == 0
    found = json.loads((tmp_path / "out/scale.json").read_text())["sizes"]["60"]
    assert set(scale_page.PARTS) < set(found["cold"]) == set(found["warm"])
    assert len(found["first_step_seconds"]) == 1
    text = page.read_text()
    assert re.search(r"# Head\n.*\| 60 \| warm \|.*<!-- scale:end -->\ntail", text, re.S)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--sizes", "a"], "allowed are numbers from 1"),
        (["--sizes", "10,0"], "allowed are numbers from 1"),
        (["--repeats=-1"], "and a number from 0"),
        (["--page", "README.md"], "the page has no part between"),
    ],
)
def test_mistakes_are_found_first(
    words: list[str], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(scale, "measure", lambda *_: pytest.fail("it was measured"))
    assert scale.main([*words, "--out", str(tmp_path)]) == 2
    assert match in capsys.readouterr().err
