"""On the page, the insect of a built-in picture is hidden, and its probability falls."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.export import main as export
from src.opened import open_run
from src.train import main as train
from tests.benchmarks.pointing import Box, read_boxes
from tests.helpers import ROOT
from tests.server import Server, serving
from tests.test_serve_page import Tab, browser, opened  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.campaign]
PICTURES = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, trained."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    config = str(ROOT / "configs/demo.yaml")
    words = ["fit", "--config", config, f"--run_dir={folder}", "--trainer.logger=false"]
    assert train(words) == 0
    assert export([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    with serving(run / "bundle") as found:
        yield found


def insects(run: Path) -> list[tuple[Path, Box]]:
    """Return validation pictures, of both classes in turn, and where their insect is."""
    opened = open_run(run)
    assert opened.index is not None and opened.root is not None
    known = opened.index.subset("val")
    boxes = read_boxes(opened.root / "boxes.csv", 96)
    places = [i for c in (0, 1) for i in range(len(known)) if known.labels[i] == c]
    chosen = places[:: max(1, len(places) // PICTURES)][:PICTURES]
    return [(known.path(i), boxes[known.paths[i]]) for i in chosen]


@pytest.fixture
def wide(browser: Any) -> Tab:  # noqa: F811
    return opened(browser)


def share(tab: Tab, name: str) -> float:
    """Return the probability of a class that the bars show, in percent."""
    found = next(text for text in tab.bars() if text.startswith(f"{name} "))
    return float(found.split()[-2])  # "bee > 99.9 %" too


def hide(tab: Tab, box: Box) -> None:
    """Draw a square over a part of the picture, given in shares of its side."""
    tab["#stage"].scroll_into_view_if_needed()
    stage = tab["#stage"].bounding_box()
    ends = [
        (stage["x"] + x * stage["width"], stage["y"] + y * stage["height"])
        for x, y in (box[:2], box[2:])
    ]
    tab.page.mouse.move(*ends[0])
    tab.page.mouse.down()
    tab.page.mouse.move(*ends[1], steps=6)
    tab.page.mouse.up()
    tab.shows("#moved", " ")


def test_without_its_insect_a_picture_is_named_with_less_certainty(
    wide: Tab,
    server: Server,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tab = wide.open(server)
    falls = []
    for path, box in insects(run):
        tab.page.reload()
        tab.page.wait_for_selector("#validation:not([hidden])")
        tab.choose((path.name, path.read_bytes())).explained()
        before = share(tab, path.parent.name)
        hide(tab, tuple(min(0.99, max(0.01, end)) for end in box))  # type: ignore[arg-type]
        tab.page.wait_for_timeout(300)  # the answer to the last move
        falls.append(before - share(tab, path.parent.name))
    with capsys.disabled():
        print(f"\nfall of the true class, in points: {json.dumps([round(x, 1) for x in falls])}")
    assert sum(fall > 0 for fall in falls) >= 0.9 * len(falls)
