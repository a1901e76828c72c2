"""An exported model behind a server: decodes beside it, batches, explains.

S side of the square that the model takes, C classes.
"""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import HTTPException
from PIL import Image

from src.answers import Explanation, Neighbour, Prediction
from src.batcher import Batcher, BusyError
from src.bundle import Bundle, available_cores
from src.occlusion import occlusion
from src.preprocess import BadImageError, Pixels
from src.uploads import Upload

_NEAREST = 6


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
        self._pool = ThreadPoolExecutor(available_cores(), thread_name_prefix="decode")

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._pool.shutdown()
        self._batcher.close()

    async def aside(self, work: Any, *args: Any) -> Any:
        """Do what takes time in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args))

    async def pixels(self, upload: Upload) -> Pixels:
        """Decode a picture; raises BadImageError."""
        found: Pixels = await self.aside(self._decode, upload)
        return found

    def _decode(self, upload: Upload) -> Pixels:
        most = self.settings.max_pixels
        return self.bundle.pixels(io.BytesIO(upload.data), upload.name or "picture", most)

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
            raise HTTPException(503, "Too many pictures wait. Try again later.") from None

    def _told(self, name: str, shares: np.ndarray) -> Prediction:
        classes = self.bundle.classes
        return Prediction(
            name=name,
            predicted_class=classes[int(self.bundle.predicted(shares[None])[0])],
            probabilities=dict(zip(classes, shares.tolist(), strict=True)),
            error=None,
        )

    async def explain(self, upload: Upload) -> Explanation:
        """Return what drives the decision; raises BadImageError."""
        pixels = await self.pixels(upload)
        shares = await self.shares(pixels)
        told = self._told(upload.name, shares)
        target = self.bundle.classes.index(str(told.predicted_class))
        seen = await self.aside(
            occlusion, pixels, self.bundle.probabilities, target, float(shares[target])
        )
        return Explanation(
            prediction=told,
            picture=await self.aside(_png, pixels),
            falls=seen.falls.round(4).tolist(),
            lowest=seen.lowest,
            neighbours=await self.aside(self._neighbours, pixels),
        )

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
