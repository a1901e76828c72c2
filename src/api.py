"""The page and the HTTP API of an exported model.

S side of the square that the model takes, C classes.
"""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from PIL import Image
from pydantic import BaseModel

from src import __version__
from src.batcher import Batcher, BusyError
from src.bundle import Bundle, available_cores
from src.limits import Limits
from src.occlusion import occlusion
from src.preprocess import BadImageError, Pixels
from src.uploads import BODY, Upload, read_uploads

_PAGES = Path(__file__).parent / "pages"
_STYLES = ("style.css", "serve.css")
_SCRIPTS = (
    "serve.js",
    "serve-about.js",
    "serve-ask.js",
    "serve-camera.js",
    "serve-decide.js",
    "serve-page.js",
    "serve-result.js",
    "serve-stage.js",
    "serve-threshold.js",
    "serve-ways.js",
)
_ASSETS = {
    **dict.fromkeys(_STYLES, "text/css"),
    **dict.fromkeys(_SCRIPTS, "text/javascript"),
    "watch.svg": "image/svg+xml",
}
_NEAREST = 6
_TOLD = ("run", "network", "parameters", "scores", "parity", "models", "threshold", "temperature")


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


class Prediction(BaseModel):
    """What the model says of a picture."""

    name: str
    predicted_class: str | None
    probabilities: dict[str, float] | None
    error: str | None


class Predictions(BaseModel):
    """An answer for each picture, in their order."""

    predictions: list[Prediction]


class Neighbour(BaseModel):
    """A validation picture that the model sees as alike."""

    id: int
    label: str
    predicted_class: str
    similarity: float


class Explanation(BaseModel):
    """What drives the decision on a picture."""

    prediction: Prediction
    picture: str
    falls: list[list[float]]
    lowest: float
    neighbours: list[Neighbour]


class Validation(BaseModel):
    """The validation pictures' classes and probabilities.

    `shown` names the rows of which there are small pictures: /validation/0 is the first of them.
    """

    classes: list[str]
    threshold: float | None
    labels: list[int]
    probabilities: list[list[float]]
    shown: list[int]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 413, 415, 422, 503)
}


class Model:
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


def make_app(bundle: Bundle, settings: Settings) -> Any:
    """Return the ASGI application.

    Args:
        bundle: The model.
        settings: What a request may ask for.
    """
    model = Model(bundle, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        model.close()

    app = FastAPI(
        title="Waggle",
        version=__version__,
        description="Names pictures by an exported model.",
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
    )
    _add_answers(app, model)
    _add_pages(app, model)
    return Limits(app, settings.max_bytes, settings.max_seconds, settings.hosts)


def _add_answers(app: FastAPI, model: Model) -> None:
    bundle, most = model.bundle, model.settings.max_files
    body = {"requestBody": BODY}

    @app.post("/predict", responses=_REFUSALS, openapi_extra=body)
    async def predict(request: Request) -> Predictions:
        """Name pictures; one that can't be read gets its error. 422 if none can be read."""
        uploads = await read_uploads(request, most)
        found = await asyncio.gather(*map(model.predict, uploads))
        if all(each.error for each in found):
            raise HTTPException(422, _sentence(found[0].name, str(found[0].error)))
        return Predictions(predictions=list(found))

    @app.post("/explain", responses=_REFUSALS, openapi_extra=body)
    async def explain(request: Request) -> Explanation:
        """Tell what drives the decision on the first picture: how it falls with parts hidden."""
        uploads = await read_uploads(request, most)
        try:
            return await model.explain(uploads[0])
        except BadImageError as error:
            raise HTTPException(422, _sentence(uploads[0].name, error.reason)) from None

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    @app.get("/metadata")
    async def metadata() -> dict[str, Any]:
        """Tell what the model is, and how good."""
        about = bundle.record.about
        told = {key: about[key] for key in _TOLD if key in about}
        return {
            **told,
            "version": __version__,
            "variant": bundle.variant,
            "preprocessing": bundle.record.preprocessing.to_dict(),
            "limits": {
                "bytes": model.settings.max_bytes,
                "pixels": model.settings.max_pixels,
                "files": most,
                "seconds": model.settings.max_seconds,
            },
        }

    @app.get("/validation")
    async def validation() -> Validation:
        """Return classes and probabilities of the validation pictures; none if there are none."""
        known = bundle.validation
        return Validation(
            classes=list(bundle.classes),
            threshold=bundle.record.threshold,
            labels=known["labels"].tolist() if known else [],
            probabilities=known["probabilities"].round(5).tolist() if known else [],
            shown=known["shown"].tolist() if "shown" in known else [],
        )

    @app.get(
        "/validation/{number}",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": Problem}},
    )
    async def validation_picture(number: Annotated[int, InPath(ge=0, le=10**9)]) -> Response:
        """Return a small validation picture."""
        found = model.small(number)
        if found is None:
            raise HTTPException(404, "There is no such picture.")
        return Response(found, media_type="image/jpeg")


def _sentence(name: str, reason: str) -> str:
    """Say what is wrong with a picture."""
    text = f"{name}: {reason}" if name else reason
    return f"{text[:1].upper() if not name else text[:1]}{text[1:]}."


def _add_pages(app: FastAPI, model: Model) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGES / "serve.html", media_type="text/html")

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise HTTPException(404, "There is no such file.")
        return FileResponse(_PAGES / name, media_type=_ASSETS[name])
