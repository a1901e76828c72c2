"""The page that follows a run, in a real browser."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import require_module, require_program
from tests.watched_run import draw, mistakes, row, serving, write_metrics, write_run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require_module("playwright")
    program = require_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.slow
class TestBrowser:
    @pytest.fixture
    def page(self, browser: Any) -> Iterator[Any]:
        """A phone that notes complaints and requests; both are looked at in the end."""
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page = context.new_page()
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(20_000)
        yield page
        hosts = {re.sub(r"(https?://[^/:]+).*", r"\1", address) for address in asked}
        assert (complaints, hosts) == ([], {"http://127.0.0.1"})
        context.close()

    def test_follows_a_run_that_grows(self, page: Any, tmp_path: Path) -> None:
        import time

        folder = tmp_path / "bees"
        shows = expects(page)
        with serving(folder) as server:
            page.goto(server.address)
            shows("#status", "Waiting")
            shows("#message", "There is no such folder yet")
            now = time.time()
            write_run(folder, at=now)
            shows("#status", "Running")
            shows("#message", "The first epoch has no scores yet.")
            write_metrics(folder, row(0, 20, 10, val_accuracy=0.9), at=now)
            shows("#epochs", "Epoch 1 of 10")
            shows("#accuracy", "90.00 %")
            shows("#mistakes-about", "Name callbacks.WorstMistakes")
            shows("#time", "left")
            draw(folder, "worst-epoch-2.png", at=now)
            draw(folder, "confusion-epoch-2.png", at=now)
            mistakes(folder, path="val/<b>bee</b>/1.png")
            write_metrics(folder, row(0, 20, 10), row(1, 40, 20, val_accuracy=0.9625), at=now)
            shows("#accuracy", "96.25 %")
            shows("#mistakes-about", "Epoch 2: 1 of 40 validation pictures named wrongly.")
            shows("#worst-rows", "val/<b>bee</b>/1.png")  # as text, not as words of the page
            for name in ("worst", "confusion"):
                image = page.locator(f"#{name}")
                image.evaluate("one => one.decode()")  # waits until it is there
                assert image.evaluate("one => one.naturalWidth") == 40
            assert page.locator("#worst").get_attribute("alt")
            mistakes(folder, epoch=3, sheet=None)  # no picture could be read
            shows("#mistakes-about", "Epoch 3: 1 of 40")
            assert page.locator("#worst-rows").is_visible()
            assert not page.locator("#worst").is_visible()
            labels = page.locator("svg[role=img]").evaluate_all(
                "all => all.map(one => one.getAttribute('aria-label'))"
            )
            assert len(labels) == 3
            assert labels[1].endswith("validation from 87.50 % to 96.25 %")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390
            (folder / "summary.json").write_text(json.dumps({"final": {"step": 40}}))
            shows("#status", "Finished")

    def test_says_when_nobody_answers(self, browser: Any, tmp_path: Path) -> None:
        context = browser.new_context()
        page = context.new_page()
        with serving(write_run(tmp_path / "bees", row(0, 20, 10)).path) as server:
            page.goto(server.address)
            expects(page)("#epochs", "Epoch 1 of 10")
        expects(page)("#status", "Not connected")
        expects(page)("#asked", "python -m src.watch does not answer")
        context.close()


def expects(page: Any) -> Callable[..., None]:
    """Return a function that waits until an element holds a text.

    Not by `wait_for_function`, which needs the `eval` that the page's policy forbids.
    """
    from playwright.sync_api import expect

    def shows(selector: str, text: str) -> None:
        expect(page.locator(selector)).to_contain_text(text, timeout=20_000)

    return shows
