"""Figures as SVG: their ids, their colours, what is said in their stead."""

import re
import warnings
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from src import plots
from src.errors import UserError
from tests.helpers import require_module

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</svg><script>alert("x")</script>&amp; $x_1$ id="a"'
DRAWN: dict[str, Callable[[], str]] = {
    "curves": lambda: plots.curves(
        "loss", "loss", {"training": ([1, 2], [2.0, 1.0]), "validation": ([1, 2], [NAN, 1.5])}, 2
    ),
    "reliability": lambda: plots.reliability(
        np.array([0.6, 0.9, 0.8]), np.array([0.7, 0.99, 0.9]), np.array([True, True, False])
    ),
    "histogram": lambda: plots.histogram(
        {"bee": np.array([0.1]), "wasp": np.array([0.9, 0.8])}, "probability of wasp", 0.4
    ),
    "intervals": lambda: plots.intervals("cut", [("grey", 0.5, (0.4, 0.6))], "accuracy", 0.5),
}


@pytest.fixture(autouse=True)
def _matplotlib() -> None:
    require_module("matplotlib")


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', svg)


@pytest.mark.parametrize("name", list(DRAWN))
def test_a_figure(name: str) -> None:
    svg = DRAWN[name]()
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert "width" not in root.attrib  # the page gives it
    assert "var(--line)" in svg
    assert not re.search(r"#0102[0-9a-f]{2}", svg)
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', svg):
        assert reference in ids(svg)
    assert svg == DRAWN[name]()  # nothing in it depends on the moment


def test_no_two_curves_look_alike() -> None:
    lines = {str(i): ([1.0, 2.0], [float(i), float(i)]) for i in range(26)}
    svg = plots.curves("a", "loss", lines, None)
    drawn = re.findall(r'style="(fill: none; stroke[^"]*var[^"]*)"', svg)
    looks = {style for style in drawn if "stroke-width: 1.8" in style}
    assert len(looks) == 26


def test_a_class_may_have_any_name() -> None:
    svg = plots.histogram({"a": np.array([0.5])}, r"probability of bee\genus \1", None)
    assert r"bee\genus \1" in svg


def test_no_id_is_in_two_figures() -> None:
    every = [name for draw in DRAWN.values() for name in ids(draw())]
    assert len(every) == len(set(every)) > 20


def test_no_dot_is_cut_at_an_end() -> None:
    rows = [("all", 1.0, (0.7, 1.0)), ("none", 0.0, (0.0, 0.3))]
    root = ElementTree.fromstring(plots.intervals("ends", rows, "accuracy"))
    right = float(root.attrib["viewBox"].split()[2])
    drawn = [
        (group, use)
        for group in root.iter(f"{SVG}g")
        for use in group.findall(f"{SVG}use")
        if "accent" in use.get("style", "")
    ]
    assert [group.get("clip-path") for group, _ in drawn] == [None, None]
    places = [float(use.attrib["x"]) for _, use in drawn]
    assert 3 < places[1] < places[0] < right - 3  # a dot is 6 wide


def test_what_the_curves_say() -> None:
    label = ElementTree.fromstring(DRAWN["curves"]()).attrib["aria-label"]
    assert label == "loss over the epochs: training ends at 1.000, validation ends at 1.500"


@pytest.mark.parametrize(
    "values", [[1.0], [NAN], [NAN, NAN], [float("inf"), 1.0]], ids=["one", "none", "nones", "inf"]
)
def test_curves_of_hardly_anything(values: list[float]) -> None:
    epochs = [float(i + 1) for i in range(len(values))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = plots.curves("a", "loss", {"validation": (epochs, values)}, None)
    ElementTree.fromstring(svg)


@pytest.mark.parametrize("name", [HOSTILE, "_hidden", "a$b$", "蜂", "x" * 300])
def test_names_of_classes_are_text(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = plots.histogram(
            {name: np.array([0.1]), "b": np.array([0.9])}, f"probability of {name}", None
        )
    root = ElementTree.fromstring(svg)
    texts = [text for element in root.iter() if (text := (element.text or "").strip("\u200b \n"))]
    assert any(text.startswith(name[:20]) for text in texts)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert name in root.attrib["aria-label"]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs matplotlib.*pip install -e"):
        plots.require()
