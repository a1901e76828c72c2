"""The page and the HTTP API of an exported model: which address answers what."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from src import __version__
from src.answers import Explanation, Prediction, Predictions, Problem, Validation
from src.bundle import Bundle
from src.limits import Limits
from src.preprocess import BadImageError
from src.served_model import ServedModel, Settings
from src.uploads import BODY, Upload, read_uploads

_PAGES = Path(__file__).parent / "pages"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TOLD = ("run", "network", "parameters", "scores", "parity", "models", "threshold", "temperature")

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 403, 408, 413, 415, 422, 503)
}
_SENTENCES = {404: "There is nothing at this address.", 405: "This address takes another method."}
_PLAIN = {"Not Found", "Method Not Allowed"}

Found = TypeVar("Found")


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
    _add_facts(app, model)
    _add_validation(app, model)
    _add_pages(app)
    _add_problems(app)
    return Limits(app, settings.max_bytes, settings.max_seconds, settings.hosts)


def _add_answers(app: FastAPI, model: ServedModel) -> None:
    most = model.settings.max_files
    body = {"requestBody": BODY}

    @app.post("/predict", responses=_REFUSALS, openapi_extra=body)
    async def predict(request: Request) -> Predictions:
        """Name pictures; one that can't be read gets its error. 422 if none can be read."""
        uploads = await read_uploads(request, most)
        found = await _while_there(request, _each(model, uploads))
        if all(each.error for each in found):
            raise HTTPException(422, _sentence(found[0].name, str(found[0].error)))
        return Predictions(predictions=list(found))

    @app.post("/explain", responses=_REFUSALS, openapi_extra=body)
    async def explain(request: Request, of: str | None = None) -> Explanation:
        """Tell what drives the decision on the first picture: how it falls with parts hidden.

        `of` names a class; without it, the predicted one is explained. 422 for a class that the
        model does not know.
        """
        if of is not None and of not in model.bundle.classes:
            raise HTTPException(422, "The model knows no class of that name.")
        uploads = await read_uploads(request, most)
        try:
            return await _while_there(request, model.explain(uploads[0], of))
        except BadImageError as error:
            raise HTTPException(422, _sentence(uploads[0].name, error.reason)) from None


def _add_facts(app: FastAPI, model: ServedModel) -> None:
    bundle, settings = model.bundle, model.settings

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
                "bytes": settings.max_bytes,
                "pixels": settings.max_pixels,
                "files": settings.max_files,
                "seconds": settings.max_seconds,
            },
        }


def _add_validation(app: FastAPI, model: ServedModel) -> None:
    @app.get("/validation", response_model=Validation)
    async def validation() -> Response:
        """Return classes and probabilities of the validation pictures; none if there are none."""
        told = await model.aside(lambda: model.validation)
        return Response(told, media_type="application/json")

    @app.get(
        "/validation/{number}",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}},
            404: {"model": Problem},
            422: {"model": Problem},
        },
    )
    async def validation_picture(number: Annotated[int, InPath(ge=0, le=10**9)]) -> Response:
        """Return a small validation picture."""
        found = model.small(number)
        if found is None:
            raise HTTPException(404, "There is no such picture.")
        return Response(found, media_type="image/jpeg")


async def _each(model: ServedModel, uploads: list[Upload]) -> list[Prediction]:
    return await asyncio.gather(*map(model.predict, uploads))


async def _while_there(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """Do work whose answer the client waits for; end it when the client has left."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise HTTPException(400, "The connection ended before the answer.")
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


def _add_problems(app: FastAPI) -> None:
    """Tell every refusal as a sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}."}, 422)

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> Response:
        plain = error.detail in _PLAIN
        detail = _SENTENCES.get(error.status_code, error.detail) if plain else error.detail
        return JSONResponse({"detail": detail}, error.status_code, error.headers)


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
