"""The page of `python -m src.serve` in a real browser, over bundles worked out by hand."""

import base64
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bundles import (
    BLUE,
    RED,
    SIDE,
    STRENGTH,
    picture,
    redness,
    write_bundle,
)
from tests.helpers import require_module, require_program
from tests.server import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TWO = [
    (0, (0.9, 0.1), BLUE), (0, (0.8, 0.2), BLUE), (0, (0.4, 0.6), BLUE),
    (1, (0.7, 0.3), RED), (1, (0.3, 0.7), RED), (1, (0.1, 0.9), RED),
]  # fmt: skip
THREE = [
    (0, (0.8, 0.1, 0.1), RED), (0, (0.4, 0.5, 0.1), RED), (1, (0.08, 0.9, 0.02), (0, 255, 0)),
    (2, (0.5, 0.2, 0.3), BLUE), (2, (0.1, 0.1, 0.8), BLUE),
]  # fmt: skip
LONG = [f"{kind} of an insect with a name that is long" for kind in ("a", "b", "c", "d", "e")]
MARKED = 8 * 8  # pixels of the middle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of two, three, five and fourteen classes, and one that nobody has compared."""
    for name in ("onnx", "onnxruntime", "onnxscript", "fastapi", "uvicorn", "playwright"):
        require_module(name)
    folder = tmp_path_factory.mktemp("bundles")
    two = [[0.0, 0.0, 0.0], [STRENGTH, 0.0, -STRENGTH]]
    write_bundle(folder / "two", ["blue", "red"], two, TWO, threshold=0.5)
    write_bundle(folder / "bare", ["<i>pale, blue</i>", "red"], two, compared=False)
    three = [[STRENGTH if k == c else 0.0 for c in range(3)] for k in range(3)]
    write_bundle(folder / "three", ["red", "green", "blue"], three, THREE)
    five = [(k, tuple(0.6 if k == c else 0.1 for c in range(5)), RED) for k in range(5)]
    reds = [[float(k), 0.0, 0.0] for k in range(14)]
    write_bundle(folder / "five", LONG, reds[:5], five, split="train")
    names = [f"class {k}" for k in range(14)]
    row = (0, tuple([0.02] * 12 + [0.7, 0.06]), RED)
    write_bundle(folder / "many", names, reds, [row, row])
    return folder


@pytest.fixture(scope="module")
def server(bundles: Path) -> Iterator[Server]:
    with serving(bundles / "two") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's own Chromium; it reaches this machine alone, and its camera is made up."""
    require_module("playwright")
    program = require_program("chromium")
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]  # fmt: skip
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=arguments)
        yield opened
        opened.close()


@dataclass
class Tab:
    """A page, with what a test does to it and reads from it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __getitem__(self, selector: str) -> Any:
        return self.page.locator(selector)

    def shows(self, selector: str, text: str) -> None:
        """Wait until an element holds a text."""
        from playwright.sync_api import expect

        expect(self[selector]).to_contain_text(text, timeout=20_000)

    def open(self, server: Server) -> "Tab":
        self.page.goto(server.url)
        self.page.wait_for_selector("#validation:not([hidden])")
        return self

    def choose(self, *files: tuple[str, bytes]) -> "Tab":
        self["#files"].set_input_files(
            [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
        )
        return self

    def explained(self) -> "Tab":
        self.page.wait_for_selector("#why:not([hidden])")
        return self

    def carrying(self, *files: tuple[str, bytes]) -> Any:
        """Return a DataTransfer that holds files."""
        script = """files => {
            const made = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                made.items.add(new File([bytes], name, { type: "image/png" }));
            }
            return made;
        }"""
        return self.page.evaluate_handle(
            script, [[name, base64.b64encode(data).decode()] for name, data in files]
        )

    def bars(self) -> list[str]:
        return [" ".join(text.split()) for text in self["#bars li"].all_inner_texts()]

    def confusion(self) -> list[list[int]]:
        rows = self["#confusion tbody tr"].all()
        cells = [row.locator("td").all_inner_texts() for row in rows]
        return [[int(text.split()[0]) for text in row] for row in cells]

    def counts(self) -> list[str]:
        return [" ".join(text.split()) for text in self["#counts > div"].all_inner_texts()]

    def drag(self, *points: tuple[float, float]) -> None:
        """Draw over the picture, in pixels of what the network sees."""
        self["#stage"].scroll_into_view_if_needed()
        box = self["#stage"].bounding_box()
        at = [(box["x"] + x / SIDE * box["width"], box["y"] + y / SIDE * box["height"])
              for x, y in points]  # fmt: skip
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for place in at[1:]:
            self.page.mouse.move(*place, steps=6)
        self.page.mouse.up()


def opened(browser: Any, width: int = 1280, **settings: Any) -> Tab:
    context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
    page = context.new_page()
    page.set_default_timeout(20_000)
    tab = Tab(page)
    page.on("console", lambda message: tab.complaints.append(message.text))
    page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    page.on("request", lambda request: tab.asked.append(request.url))
    return tab


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """A wide page; its complaints and the hosts it asked are looked at in the end."""
    made = opened(browser)
    yield made
    made.page.context.close()
    assert made.complaints == []
    assert hosts(made) <= {"http://127.0.0.1", "blob", "data"}


def hosts(tab: Tab) -> set[str]:
    return {re.sub(r"^(blob|data):.*|^(https?://[^/:]+).*", r"\1\2", url) for url in tab.asked}


def hidden(pixels: int) -> str:
    """Return what stands for red where so many pixels of a red middle lie under its mean."""
    red = (MARKED - pixels + pixels * 64 / 255) / MARKED  # 255 * 64 / 256 is 64 by rounding
    return f"{100 * redness(red):.1f} %"


class TestPictures:
    def test_a_dropped_picture(self, tab: Tab, server: Server) -> None:
        tab.open(server)
        tab.shows("#name", "<b>by hand</b>")  # as text
        tab.shows("#scores", "75.0 %50.0 to 87.5 %, 6 pictures50.0 % by always")
        carried = tab.carrying(("red.png", picture()))
        tab.page.dispatch_event("body", "dragover", {"dataTransfer": carried})
        assert tab["#drop"].is_visible()
        tab.page.dispatch_event("body", "drop", {"dataTransfer": carried})
        assert not tab["#drop"].is_visible()
        tab.shows("#decision", "red 98.2 %")
        assert tab.bars() == ["blue 1.8 %", "red 98.2 %"]
        assert redness(1) == pytest.approx(0.982, abs=5e-4)
        tab.shows("#told", "red.png: red 98.2 %")  # for who can't see it
        tab.explained()
        # A square of 4 x 4 pixels, all of it in the middle, leaves 96.3 %.
        tab.shows("#lowest", f"from 98.2 % to {hidden(16)}")
        captions = tab["#neighbours figcaption"].all_inner_texts()
        assert [" ".join(text.split()) for text in captions][:3] == [
            "red named blue", "red", "red"
        ]  # fmt: skip
        assert tab["#unproved"].is_hidden()

    def test_a_pasted_picture(self, tab: Tab, server: Server) -> None:
        """What is said of it stays, also when an explanation comes after it."""
        held: list[Any] = []
        tab.page.route("**/explain*", lambda one: held.append(one))
        tab.open(server)
        script = """data => document.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData: data, bubbles: true }))"""
        tab.page.evaluate(script, tab.carrying(("blue.png", picture(BLUE))))
        tab.shows("#decision", "blue 98.2 %")
        tab.page.evaluate(script, tab.carrying())
        tab.shows("#problem", "There is no picture in what was pasted.")
        held[0].continue_()
        tab.explained()
        assert tab["#problem"].is_visible()

    def test_the_camera(self, tab: Tab, server: Server) -> None:
        tab.open(server)
        tab["#camera"].click()
        tab["#shoot"].click()  # once the camera gives a picture
        tab.page.wait_for_selector("#camera-box", state="hidden")
        tab.shows("#file-name", "camera.png")
        tab.explained()
        tab["#camera"].click()
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector("#camera-box", state="hidden")

    def test_a_validation_picture_to_begin_with(self, tab: Tab, server: Server) -> None:
        tab.open(server)
        assert tab["#try-row button"].count() == 6
        tab["#try-row button"].nth(1).click()  # classes take turns
        tab.shows("#file-name", "red, validation picture 4")
        tab.shows("#decision", "red 98")

    def test_several(self, tab: Tab, bundles: Path) -> None:
        """Five files where a request takes two: each gets its own answer."""
        with serving(bundles / "two", "--max_files", "2", "--max_mb", "0.1") as found:
            tab.open(found)
            tab.choose(
                ("1.png", picture()), ("2.png", picture(BLUE)), ("3.png", b"no picture"),
                ("4.png", picture() + b"\0" * 99_000), ("5.png", picture((0, 0, 0))),
            )  # fmt: skip
            thumbs = tab["#strip button"]
            for row, text in enumerate(["red", "blue", "refused", "refused", "red"]):
                tab.shows(f"#strip li:nth-child({row + 1})", text)
            tab.explained()
            thumbs.nth(1).click()
            tab.shows("#decision", "blue 98.2 %")
            thumbs.nth(2).focus()
            tab.page.keyboard.press("Enter")
            tab.shows("#failure", "3.png: not a picture.")
            assert tab["#stage"].is_hidden()
            thumbs.nth(3).click()
            tab.shows("#failure", "4.png has 0.1 MB; 0.1 MB are allowed.")
            thumbs.nth(4).click()
            tab.shows("#decision", "red 50.0 %")
            tab["#clear"].click()
            assert tab["#look"].is_hidden()
            assert tab["#try-row"].is_visible()

    def test_what_the_browser_cannot_show(self, tab: Tab, server: Server) -> None:
        """A TIFF: its suffix, then what the network sees; a refused file keeps another mark."""
        held: list[Any] = []
        tab.page.route("**/explain*", lambda one: held.append(one))
        file = io.BytesIO()
        Image.open(io.BytesIO(picture())).save(file, "TIFF")
        files = [("a.b.tiff", file.getvalue()), ("broken.png", b"none"), ("c.png", picture(BLUE))]
        tab.open(server).choose(*files)
        tab.shows("#strip li:nth-child(1)", "red")
        tab.shows("#strip li:nth-child(2)", "refused")
        first, second, _ = tab["#strip img"].all()
        first.wait_for(state="hidden")
        second.wait_for(state="hidden")
        assert marks(tab)[:2] == ["TIFF", "?"]
        held[0].continue_()
        first.wait_for(state="visible")
        assert first.evaluate("one => one.decode().then(() => one.naturalWidth)") == SIDE
        assert second.is_hidden()

    def test_back_and_forth_asks_once(self, tab: Tab, server: Server) -> None:
        """A picture that is selected again while its explanation is awaited asks for no other."""
        held: list[Any] = []
        tab.page.route("**/explain*", lambda one: held.append(one))
        tab.open(server).choose(("1.png", picture()), ("2.png", picture(BLUE)))
        tab.shows("#strip li:nth-child(2)", "blue")
        tab.shows("#tally", "2 pictures: 1 red, 1 blue")
        for k in (1, 0, 1, 0):
            tab["#strip button"].nth(k).click()
        tab.page.wait_for_timeout(200)
        assert len(held) == 2
        for one in held:
            one.continue_()
        tab.explained()

    def test_the_hottest_part_is_the_one_that_is_told(self, tab: Tab, server: Server) -> None:
        tab.open(server).choose(("red.png", picture())).explained()
        lowest = tab["#lowest"].inner_text().rsplit(" to ", 1)[1].rstrip(".")
        tab["#hottest"].click()
        tab.shows("#bars .named .share", lowest)


class TestSquare:
    def test_dragged(self, tab: Tab, server: Server) -> None:
        tab.open(server).choose(("red.png", picture())).explained()
        tab.drag((4, 4), (12, 12))
        tab.shows("#moved", f"red falls from 98.2 % to {hidden(MARKED)}")
        tab.shows("#bars .named .share", hidden(MARKED))
        ghost = tab["#bars .named .ghost"]
        assert ghost.is_visible()
        left = ghost.evaluate("one => parseFloat(one.style.left)")
        assert left == pytest.approx(100 * redness(1), abs=0.1)
        tab.drag((8, 8), (5, 8))  # three pixels to the left: 5 x 8 of the middle stay hidden
        tab.shows("#bars .named .share", hidden(40))
        tab["#uncover"].click()
        tab.shows("#bars .named .share", "98.2 %")
        assert ghost.is_hidden()

    def test_outside_of_what_matters(self, tab: Tab, server: Server) -> None:
        tab.open(server).choose(("red.png", picture())).explained()
        tab.drag((1, 1), (4, 15))
        tab.shows("#moved", "red stays at 98.2 %")

    def test_by_keys_alone_from_the_start(self, tab: Tab, server: Server, tmp_path: Path) -> None:
        (tmp_path / "red.png").write_bytes(picture())
        # Before the page is there: Chromium takes a moment to hand its dialog over.
        tab.page.on("filechooser", lambda dialog: dialog.set_files(tmp_path / "red.png"))
        tab.open(server)
        press = tab.page.keyboard.press
        press("Tab")
        assert focused(tab) == "files"
        press("Enter")
        tab.explained()
        for _ in range(12):
            press("Tab")
            if focused(tab) == "stage":
                break
        assert focused(tab) == "stage"
        press("ArrowDown")  # on the hottest part: 4 x 4 pixels in the middle
        tab.shows("#bars .named .share", hidden(16))
        press("+")  # 5 x 5
        tab.shows("#bars .named .share", hidden(25))
        for _ in range(3):
            press("ArrowRight")  # from column 6 to 9: 3 x 5 lie in the middle
        tab.shows("#bars .named .share", hidden(15))
        tab.shows("#told", f"red falls from 98.2 % to {hidden(15)}")
        press("Escape")
        tab.shows("#bars .named .share", "98.2 %")

    def test_the_heat(self, tab: Tab, server: Server) -> None:
        """Hot in the middle, clear at the edge; off."""
        tab.open(server).choose(("red.png", picture(RED, BLUE))).explained()
        read = """one => {
            const { data } = one.getContext("2d").getImageData(0, 0, 128, 128);
            return [64, 2].map((at) => data[4 * (128 * at + at) + 3]);
        }"""
        heat = tab["#heat"]
        assert heat.evaluate(read) == [255, 0]
        tab["#heat-on"].uncheck()
        assert heat.evaluate("one => one.style.opacity") == "0"

    def test_no_heat_where_nothing_matters(self, tab: Tab, server: Server) -> None:
        tab.open(server).choose(("even.png", picture(RED, RED))).explained()
        tab.shows("#lowest", "No part matters alone")
        alphas = """one => Math.max(...one.getContext("2d").getImageData(0, 0, 128, 128).data
            .filter((_, k) => k % 4 === 3))"""
        assert tab["#heat"].evaluate(alphas) == 0


class TestThreshold:
    @pytest.mark.parametrize(
        ("value", "counts", "accuracy"),
        [
            ("0.25", [[2, 1], [0, 3]], "Accuracy 83.3 % 5 of 6"),
            ("0.65", [[3, 0], [1, 2]], "Accuracy 83.3 % 5 of 6"),
            ("1", [[3, 0], [3, 0]], "Accuracy 50.0 % 3 of 6"),
            ("0", [[0, 3], [0, 3]], "Accuracy 50.0 % 3 of 6"),
        ],
    )
    def test_two_classes(
        self, tab: Tab, server: Server, value: str, counts: list[list[int]], accuracy: str
    ) -> None:
        tab.open(server)
        assert tab.confusion() == [[2, 1], [1, 2]]
        tab["#threshold"].fill(value)
        assert tab.confusion() == counts
        assert tab.counts()[0] == accuracy
        tab["#threshold-back"].click()
        assert tab.confusion() == [[2, 1], [1, 2]]
        assert tab.counts()[1:] == ["Found of blue 66.7 % 2 of 3", "Found of red 66.7 % 2 of 3"]

    def test_the_picture_follows(self, tab: Tab, server: Server) -> None:
        tab.open(server).choose(("red.png", picture())).explained()
        tab["#threshold"].fill("0.99")
        tab.shows("#decision", "blue 1.8 %")
        tab.shows("#reason", "red is named from 0.990 on")
        tab["#threshold"].focus()
        tab.page.keyboard.press("ArrowLeft")
        tab.page.keyboard.press("ArrowLeft")
        tab.shows("#decision", "red 98.2 %")

    def test_three_classes(self, tab: Tab, bundles: Path) -> None:
        with serving(bundles / "three") as found:
            tab.open(found).choose(("red.png", picture((102, 0, 0))))
            assert tab.confusion() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
            assert tab.counts() == ["Accuracy of the named 60.0 % 3 of 5", "Named 100.0 % 5 of 5"]
            share = math.exp(1.6) / (math.exp(1.6) + 2)  # red by 0.4 times 4
            tab.shows("#decision", f"red {100 * share:.1f} %")
            tab["#threshold"].fill("0.75")
            assert tab.confusion() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]]
            assert tab.counts() == ["Accuracy of the named 100.0 % 3 of 3", "Named 60.0 % 3 of 5"]
            tab.shows("#decision", f"unsure perhaps red, {100 * share:.1f} %")

    def test_what_drove_it_follows(self, tab: Tab, server: Server) -> None:
        """Of the class that is named by now, and so do the words below the neighbours."""
        tab.open(server).choose(("red.png", picture())).explained()
        tab.shows("#lowest", "takes red from 98.2 % to ")
        tab["#threshold"].fill("0.99")
        tab.shows("#decision", "blue 1.8 %")
        tab.shows("#lowest", "whichever is hidden, blue stays at 1.8 % or more.")
        assert tab["#hottest"].is_hidden()
        names = tab["#neighbours figcaption"].all_inner_texts()
        assert [" ".join(name.split()) for name in names[:3]] == ["red named blue"] * 3
        tab["#threshold-back"].click()
        tab.shows("#lowest", "takes red from 98.2 % to ")

    def test_nothing_of_another_class_stays_where_there_is_no_answer(
        self, tab: Tab, server: Server
    ) -> None:
        tab.open(server).choose(("red.png", picture())).explained()
        busy = {"status": 503, "json": {"detail": "Too many pictures wait. Try again later."}}
        tab.page.route("**/explain*", lambda one: one.fulfill(**busy))
        tab["#threshold"].fill("0.99")
        tab.shows("#problem", "Too many pictures wait")
        assert tab["#why"].is_hidden()
        assert tab["#heat"].is_hidden()
        tab.page.unroute("**/explain*")
        tab["#threshold"].fill("0.5")
        tab.explained().shows("#lowest", "takes red from 98.2 % to ")
        assert tab["#problem"].is_hidden()
        assert tab["#heat"].is_visible()
        tab.complaints.clear()  # of the answer that was made up

    def test_many_classes(self, tab: Tab, bundles: Path) -> None:
        """Eight bars, the rest as a number; the worst confusions as a list."""
        with serving(bundles / "many") as found:
            tab.open(found).choose(("red.png", picture())).explained()
            tab.shows("#decision", "class 13 63.2 %")  # 1 - exp(-1)
            assert tab["#bars li"].count() == 8
            tab.shows("#more", "and 6 more")
            tab.shows(".worst", "class 0 named class 12: 2 of 2")

    def test_long_names_and_pictures_it_learned_from(self, browser: Any, bundles: Path) -> None:
        """The matrix is as wide as the page and may be moved in it; the page says "training"."""
        for width in (1280, 390):
            tab = opened(browser, width)
            with serving(bundles / "five") as found:
                tab.open(found).choose(("red.png", picture())).explained()
                assert tab.confusion() == [[int(k == c) for c in range(5)] for k in range(5)]
                assert tab["#confusion thead th"].first.get_attribute("title") == LONG[0]
                assert tab["#confusion tbody th"].first.bounding_box()["width"] <= 260
                tab.shows("#validation-about", "5 training pictures. It has learned from them")
                tab.shows("#scores", "Training accuracy")
                tab.shows("#alike", "Nearest training pictures")
            page = tab.page.evaluate("document.documentElement.scrollWidth")
            assert page <= width
            tab.page.context.close()


class TestTrouble:
    def test_a_damaged_file(self, browser: Any, server: Server) -> None:
        tab = opened(browser).open(server)
        tab.choose(("broken.png", picture()[:60]))
        tab.shows("#failure-text", "broken.png: ")
        assert tab["#again"].is_hidden()
        tab.choose(("red.png", picture()))
        tab.shows("#decision", "red 98.2 %")
        assert [text for text in tab.complaints if "422" not in text] == []
        tab.page.context.close()

    def test_nobody_answers(self, browser: Any, bundles: Path) -> None:
        tab = opened(browser)
        with serving(bundles / "two") as found:
            tab.open(found).choose(("red.png", picture())).explained()
            found.process.terminate()
            found.process.wait(30)
            tab.drag((4, 4), (12, 12))
            tab.shows("#problem", "The server does not answer.")
            tab.choose(("blue.png", picture(BLUE)))
            tab.shows("#failure-text", "The server does not answer.")
            assert tab["#again"].is_visible()
        tab.page.context.close()

    def test_no_validation_pictures_and_not_compared(self, tab: Tab, bundles: Path) -> None:
        with serving(bundles / "bare") as found:
            tab.open(found)
            tab.shows("#about", 'tells "<i>pale, blue</i>" and red apart')
            tab.shows("#unproved", "not compared with the trained network")
            tab.shows("#validation-about", "holds no labelled pictures")
            assert tab["#threshold"].is_hidden()
            tab.choose(("red.png", picture(BLUE))).explained()
            tab.shows("#decision", "<i>pale, blue</i> 98.2 %")
            assert tab["#alike"].is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, server: Server, scheme: str) -> None:
    tab = opened(browser, 390, color_scheme=scheme, has_touch=True, is_mobile=True).open(server)
    wide = "document.documentElement.scrollWidth"
    assert tab.page.evaluate(wide) <= 390
    name = "a-picture-with-a-name-that-is-far-too-long-for-any-phone" * 2
    tab.choose(*[(f"{name}{k}.png", picture()) for k in range(8)]).explained()
    assert tab.page.evaluate(wide) <= 390
    stage = tab["#stage"].bounding_box()
    assert stage["width"] > 340
    tab["#stage"].tap(position={"x": stage["width"] / 2, "y": stage["height"] / 2})
    tab.shows("#bars .named .share", hidden(16))
    # Both can be seen at once while a finger moves the square; where a tap scrolls to is its own.
    tab["#bars"].evaluate("one => one.scrollIntoView({ behavior: 'instant' })")
    bars, stage = tab["#bars"].bounding_box(), tab["#stage"].bounding_box()
    assert -1 < bars["y"] < stage["y"]
    assert stage["y"] + stage["height"] < 900
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == (scheme == "light")
    assert tab.complaints == []
    tab.page.context.close()


def marks(tab: Tab) -> list[str]:
    """Return what stands in place of the small pictures."""
    script = "all => all.map((one) => getComputedStyle(one, '::before').content)"
    return [text.strip('"') for text in tab["#strip b"].evaluate_all(script)]


def focused(tab: Tab) -> str:
    return str(tab.page.evaluate("document.activeElement.id"))
