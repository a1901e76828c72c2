"""The page and the HTTP API of an exported model: which address answers what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse

from src import __version__
from src.answers import Explanation, Predictions, Problem, Validation
from src.bundle import Bundle
from src.limits import Limits
from src.preprocess import BadImageError
from src.served_model import ServedModel, Settings
from src.uploads import BODY, read_uploads

_PAGES = Path(__file__).parent / "pages"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TOLD = ("run", "network", "parameters", "scores", "parity", "models", "threshold", "temperature")

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 413, 415, 422, 503)
}


def make_app(bundle: Bundle, settings: Settings) -> Any:
    """Return the ASGI application.

    Args:
        bundle: The model.
        settings: What a request may ask for.
    """
    model = ServedModel(bundle, settings)

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
    _add_pages(app)
    return Limits(app, settings.max_bytes, settings.max_seconds, settings.hosts)


def _add_answers(app: FastAPI, model: ServedModel) -> None:
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


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGES / "serve.html", media_type="text/html")

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> FileResponse:
        if name not in _assets():
            raise HTTPException(404, "There is no such file.")
        return FileResponse(_PAGES / name, media_type=_KINDS[Path(name).suffix])


@cache
def _assets() -> frozenset[str]:
    """Return the names of files that the page is made of."""
    mine = {path.name for path in _PAGES.glob("serve*.*") if path.suffix in _KINDS}
    return frozenset({*mine, "style.css", "watch.svg"})
