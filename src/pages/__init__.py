"""Pages that are one file each: no request leaves them, so they work offline and can be mailed."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

_HERE = Path(__file__).parent


def page(template: str, content: Mapping[str, Any]) -> str:
    """Return a page as HTML; what is filled in is escaped.

    Args:
        template: Name of a file beside this one.
        content: What it names.
    """
    style = (_HERE / "style.css").read_text("utf-8")
    return _environment().get_template(template).render(style=style, **content)


def is_page(path: Path, kind: str) -> bool:
    """Return whether a file is a page of a kind, or empty: such a one may be replaced.

    Args:
        path: The file.
        kind: audit or report, which the head of the page names.
    """
    with path.open("rb") as file:
        start = file.read(500)
    return not start or f'name="generator" content="Waggle {kind}"'.encode() in start


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = lambda value: f"{value:,}"
    made.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    return made


def picture_uri(picture: Image.Image, side: int, quality: int = 80) -> str:
    """Return a picture inside a page, as a JPEG in a data URI.

    Args:
        picture: Upright RGB.
        side: The longer side that it gets at most, in pixels.
        quality: Of the JPEG, 1 to 95.
    """
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def exact_uri(picture: Image.Image) -> str:
    """Return a small picture inside a page pixel by pixel, as a PNG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of a gallery.

    Attributes:
        uri: What is shown; "" where there is no picture.
        alt: The same in words, for who can't see it.
        head: The first line below it.
        text: What follows.
        second: Another picture beside it; "" for none.
        second_alt: That in words.
    """

    uri: str
    alt: str
    head: str = ""
    text: str = ""
    second: str = ""
    second_alt: str = ""
