"""An exported model behind a server: decodes beside it, batches, explains.

S side of the square that the model takes, C classes.
"""

import asyncio
import base64
import io
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from fastapi import HTTPException
from PIL import Image

from src.answers import Explanation, Neighbour, Part, Prediction, Validation
from src.batcher import Batcher, BusyError, Room
from src.bundle import Bundle
from src.cores import usable_cores
from src.occlusion import Occlusion, occlusion
from src.preprocess import FORMATS, BadImageError, Pixels
from src.uploads import Upload

_NEAREST = 6
_DECODES, _EXPLANATIONS = 1024, 64  # that may wait
_SCANS, _SEGMENTS = 100, 10_000  # of a JPEG; encoders make about ten, and some hundreds at most
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # of a segment with a length
_SMALL, _SMALLEST = 1 / 64, 1 / 256  # of the pixels that are decoded at once


@dataclass(frozen=True)
class Settings:
    """What a request may ask for.

    Attributes:
        max_bytes: Of a body.
        max_pixels: Of a picture that is decoded.
        max_files: Pictures of a request.
        max_seconds: Of a request.
        hosts: Names of this server; empty for all.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_files: int = 32
    max_seconds: float = 30.0
    hosts: frozenset[str] = frozenset()


class ServedModel:
    """A bundle behind a queue; decodes pictures beside it.

    Args:
        bundle: Opened.
        settings: What a request may ask for.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle, self.settings = bundle, settings
        self._batcher = Batcher(bundle)
        self._cores = usable_cores()  # decode large pictures; a thread more is for small ones
        self._pool = ThreadPoolExecutor(self._cores + 1, thread_name_prefix="decode")
        self._pixels = Room(settings.max_pixels, _DECODES)
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._explanations = Room(1, _EXPLANATIONS)

    def close(self) -> None:
        """End what waits, and the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._explainer.shutdown(cancel_futures=True)
        self._batcher.close()

    async def aside(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do what takes time in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def pixels(self, upload: Upload) -> Pixels:
        """Decode a picture; raises BadImageError."""
        need = self._room_for(await self.aside(_pixels_of, upload))
        found: Pixels = await _within(self._pixels, need, self._pool, self._decode, upload)
        return found

    def _room_for(self, pixels: int) -> int:
        most = self.settings.max_pixels
        small = pixels <= _SMALL * most
        return min(most, int(most * _SMALLEST) if small else max(pixels, most // self._cores))

    def _decode(self, upload: Upload) -> Pixels:
        return self.bundle.pixels(
            io.BytesIO(upload.data), upload.name or "picture", self.settings.max_pixels
        )

    async def predict(self, upload: Upload) -> Prediction:
        """Return what the model says of a picture, or why it can't be read."""
        try:
            pixels = await self.pixels(upload)
        except BadImageError as error:
            return Prediction(
                name=upload.name, predicted_class=None, probabilities=None, error=error.reason
            )
        return self._told(upload.name, await self.shares(pixels))

    async def shares(self, pixels: Pixels) -> np.ndarray:
        """Return float32 [C] of uint8 [S, S, 3]."""
        try:
            return await asyncio.wrap_future(self._batcher.predict(pixels))
        except BusyError:
            raise _busy() from None

    def _told(self, name: str, shares: np.ndarray) -> Prediction:
        classes = self.bundle.classes
        return Prediction(
            name=name,
            predicted_class=classes[int(self.bundle.predicted(shares[None])[0])],
            probabilities=dict(zip(classes, shares.tolist(), strict=True)),
            error=None,
        )

    async def explain(self, upload: Upload, of: str | None = None) -> Explanation:
        """Return what drives the decision for a class, the predicted one by None.

        Raises:
            BadImageError: it is no picture.
        """
        pixels = await self.pixels(upload)
        shares = await self.shares(pixels)
        told = self._told(upload.name, shares)
        explained = str(told.predicted_class) if of is None else of
        target = self.bundle.classes.index(explained)
        seen = await self._seen(pixels, target, float(shares[target]))
        return Explanation(
            prediction=told,
            picture=await self.aside(_png, pixels),
            explained_class=explained,
            falls=seen.falls.round(4).tolist(),
            lowest=seen.lowest,
            part=Part(**seen.part._asdict()),
            neighbours=await self.aside(self._neighbours, pixels),
        )

    async def _seen(self, pixels: Pixels, target: int, share: float) -> Occlusion:
        gone = threading.Event()
        words = (occlusion, pixels, self.bundle.probabilities, target, share, gone.is_set)
        try:
            found: Occlusion = await _within(self._explanations, 1, self._explainer, *words)
        finally:
            gone.set()
        return found

    def _neighbours(self, pixels: Pixels) -> list[Neighbour]:
        known = self.bundle.validation
        if "features" not in known or not self.bundle.has_features:
            return []
        alike = known["features"].astype(np.float32) @ self.bundle.features(pixels[None])[0]
        named = self.bundle.predicted(known["probabilities"])
        best = np.argsort(-alike, kind="stable")[:_NEAREST]
        return [
            Neighbour(
                id=int(k),
                label=self.bundle.classes[int(known["labels"][known["shown"][k]])],
                predicted_class=self.bundle.classes[int(named[known["shown"][k]])],
                similarity=float(alike[k]),
            )
            for k in best
        ]

    @cached_property
    def validation(self) -> bytes:
        """The answer to GET /validation, as JSON."""
        known, two = self.bundle.validation, len(self.bundle.classes) == 2
        shares = known.get("probabilities", np.empty((0, len(self.bundle.classes)), np.float32))
        told = Validation(
            classes=list(self.bundle.classes),
            threshold=self.bundle.record.threshold,
            labels=known["labels"].tolist() if known else [],
            tops=shares.argmax(axis=1).tolist(),
            probabilities=(shares[:, 1] if two else shares.max(axis=1)).tolist(),
            shown=known["shown"].tolist() if "shown" in known else [],
        )
        return told.model_dump_json().encode()

    def small(self, number: int) -> bytes | None:
        """Return a validation picture as a small JPEG, None if there is no such."""
        known = self.bundle.validation
        ends = known.get("ends", np.empty(0, np.int64))
        if not 0 <= number < len(ends):
            return None
        start = int(ends[number - 1]) if number else 0
        return known["jpeg"][start : int(ends[number])].tobytes()


def _png(pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _pixels_of(upload: Upload) -> int:
    """Return how many pixels a file says that it holds, 0 if it can't be read.

    Raises:
        BadImageError: it would take far more time than its pixels say.
    """
    if _has_many_scans(upload.data):
        raise BadImageError(
            upload.name or "picture", "its JPEG data has too many scans or segments"
        )
    with suppress(Exception), Image.open(io.BytesIO(upload.data), formats=FORMATS) as image:
        return image.width * image.height
    return 0


def _has_many_scans(data: bytes) -> bool:
    """Return whether the JPEG of these bytes would be decoded over and over (ITU T.81, annex B).

    Each scan of a progressive one goes over all pixels again, and may take a few bytes of the file.
    Of a TIFF, which may hold many, whatever looks like the begin of a scan counts, ten for one.
    """
    if data[:2] in (b"II", b"MM"):
        return data.count(b"\xff\xda") > 10 * _SCANS
    if data[:2] != b"\xff\xd8":
        return False
    found, at = 0, 2
    for _ in range(_SEGMENTS):
        mark = _MARKER.search(data, at)
        if mark is None or data[mark.start() + 1] == _END:
            return False
        found += data[mark.start() + 1] == _SCAN
        if found > _SCANS:
            return True
        at = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2], "big")
    return True


async def _within(
    room: Room, need: int, pool: ThreadPoolExecutor, work: Callable[..., Any], *args: Any
) -> Any:
    """Do work in a thread once there is room, which is given back when the thread is done."""
    loop = asyncio.get_running_loop()
    try:
        await room.take(need)
    except BusyError:
        raise _busy() from None

    def done(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(room.give, need)

    task = pool.submit(work, *args)
    task.add_done_callback(done)
    return await asyncio.wrap_future(task)


def _busy() -> HTTPException:
    return HTTPException(503, "Too many pictures wait. Try again later.")
