"""The prediction API: an image in, probabilities and the operating point out; nothing is kept."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import api_answers as answers
from app.api_model import CHECK_SECONDS, Choose, ModelKeeper, Served, pixels_of, prediction
from app.api_upload import decoded, received
from app.export import model_card
from ssl_core.claims.promotion import find_in_use
from ssl_core.errors import ReadloopError, WorkspaceError
from ssl_core.workspace import Workspace

MAX_MB = 32.0
DECODERS = 2  # pictures that are decoded at once: one may need a gigabyte
MAX_WAITING = 16  # predictions under way at once, each with its upload in memory

DESCRIPTION = """
Probabilities for the findings of one image, by the newest measured student of a Readloop
workspace. An upload is decoded and fitted as the training images were, scored, and forgotten: it
is not written to disk, not logged and not repeated. One image is scored at a time. Not a medical
device.
"""
IMAGE = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "required": True,
        "description": "One image, as the one file of a form or as the body itself. What it is "
        "is told from its content: PNG, JPEG, TIFF, WebP, BMP, or a single-frame DICOM file.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
            **dict.fromkeys(
                ("image/png", "image/jpeg", "application/dicom", "application/octet-stream"), IMAGE
            ),
        },
    }
}
REFUSALS = {
    400: "The form cannot be used.",
    401: "The token is missing or wrong.",
    404: "There is no such thing.",
    408: "The upload was too slow.",
    413: "The upload is too large.",
    415: "The upload is not an image that can be read.",
    422: "The image is empty, damaged, too large or several; or the finding is unknown.",
    503: "There is no trained model yet, or the server is busy.",
}

log = logging.getLogger("readloop.api")

Serving = Callable[[], Awaitable[Served]]
"""Gives the model in use, or a refusal while there is none."""


def _may(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {c: {"model": answers.Refusal, "description": REFUSALS[c]} for c in codes}


def create_app(
    ws: Workspace,
    *,
    max_bytes: int = int(MAX_MB * 2**20),
    token: str | None = None,
    choose: Choose = find_in_use,
    check_seconds: float = CHECK_SECONDS,
) -> FastAPI:
    """The API of a workspace.

    Args:
        ws: an open workspace; nothing in it is changed.
        max_bytes: the largest upload, as it is sent.
        token: a bearer token that everything but `/health` and the description asks for.
        choose: which model is in use.
        check_seconds: how often, at most, the ledger is asked for a newer model.
    """
    keeper = ModelKeeper(ws, choose, check_seconds)

    async def served() -> Served:
        try:
            return await to_thread.run_sync(keeper.current)
        except WorkspaceError as error:
            raise HTTPException(503, str(error)) from None

    one_at_a_time = ThreadPoolExecutor(1, thread_name_prefix="predict")
    app = _bare_app(one_at_a_time)
    _add_health(app, served)
    _add_predict(app, ws, served, one_at_a_time, max_bytes, token)
    _add_card(app, ws, token)
    return app


def _bare_app(one_at_a_time: ThreadPoolExecutor) -> FastAPI:
    """Without a route: its description, and what it makes of faults."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        one_at_a_time.shutdown(cancel_futures=True)

    app = FastAPI(
        title="Readloop prediction",
        version="1",
        description=DESCRIPTION,
        lifespan=life,
        docs_url=None,  # both pages fetch their scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(_NoTraceback)
    app.exception_handler(RequestValidationError)(_one_sentence)
    return app


def _add_health(app: FastAPI, served: Serving) -> None:
    @app.get("/health", responses=_may(503), summary="Whether the server can predict")
    async def health() -> answers.Health:
        """The model in use; 503 with a sentence while there is none."""
        return answers.Health(model=(await served()).described)


def _add_predict(
    app: FastAPI,
    ws: Workspace,
    served: Serving,
    one_at_a_time: ThreadPoolExecutor,
    max_bytes: int,
    token: str | None,
) -> None:
    decoders, places = CapacityLimiter(DECODERS), _Places(MAX_WAITING)

    @app.post(
        "/predict",
        dependencies=[Depends(_guard(token))],
        responses=_may(400, 401, 408, 413, 415, 422, 503),
        openapi_extra=BODY,
        summary="Score one image",
    )
    async def predict(
        request: Request,
        map: Annotated[
            str | None,
            Query(description="A finding whose class-activation map is wanted as well."),
        ] = None,
    ) -> answers.Prediction:
        """Probability of each finding, and whether it is present at the operating point."""
        if map is not None and map not in ws.ledger.task.findings:
            known = ", ".join(ws.ledger.task.findings)
            raise HTTPException(422, f"`map` is not a finding of this model: use one of {known}.")
        if map is not None and ws.ledger.task.kind == "segmentation":
            raise HTTPException(
                422, "`map` is for models that draw no masks: this answer has them."
            )
        with places.one():
            model = await served()
            data = await received(request, max_bytes)
            upload = await to_thread.run_sync(decoded, data, limiter=decoders)
            pixels = await to_thread.run_sync(pixels_of, ws, upload, limiter=decoders)
            return await asyncio.get_running_loop().run_in_executor(
                one_at_a_time, prediction, ws, model, upload, pixels, map
            )


def _add_card(app: FastAPI, ws: Workspace, token: str | None) -> None:
    @app.get(
        "/models/{id}/card",
        dependencies=[Depends(_guard(token))],
        responses=_may(401, 404, 422, 503),
        summary="A model's card",
    )
    def card(id: str) -> answers.Card:
        """What a measured model is, what it learned from, and what it reached on the vault."""
        try:
            return _card(ws, id)
        except ReadloopError as error:
            log.warning("%s", error)
            raise HTTPException(
                503, "The ledger cannot be read: the server's log says why."
            ) from None


class _Places:
    """So many requests may be under way at once; of one event loop, so no lock."""

    def __init__(self, most: int) -> None:
        self._left = most

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place until the block ends; 503 where none is left."""
        if not self._left:
            busy = "The server is busy: try again in a second."
            raise HTTPException(503, busy, headers={"Retry-After": "1"})
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1


def _card(ws: Workspace, model_id: str) -> answers.Card:
    measured = {number for number, m in ws.ledger.measurements() if m.model_id == model_id}
    for number, model in reversed(ws.ledger.models()):
        if model.id == model_id and number in measured and ws.ledger.finished(number):
            return answers.Card.model_validate(model_card(ws, number, model))
    raise HTTPException(404, "No measured model has this id: /health names the one in use.")


def _guard(token: str | None) -> Callable[..., None]:
    """A dependency that asks for the bearer token, if there is one."""
    if not token:
        return lambda: None
    expected = token.encode()

    def check(
        given: Annotated[
            HTTPAuthorizationCredentials | None,
            Depends(HTTPBearer(auto_error=False, description="READLOOP_API_TOKEN of the server.")),
        ],
    ) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), expected):
            raise HTTPException(
                401,
                "The token is missing or wrong: send `Authorization: Bearer TOKEN`.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


async def _one_sentence(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's own answer would repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
    sentence = f"The request cannot be used ({fields}): /openapi.json says what it must hold."
    return JSONResponse({"detail": sentence}, 422)


class _NoTraceback:
    """Turns a fault of ours into one sentence and one line of log without the request's data."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        forward: Callable[[Scope, Receive, Send], Awaitable[None]] = self.app
        try:
            await forward(scope, receive, watched)
        except Exception as error:  # its message may hold values of the upload
            if scope["type"] != "http":
                raise
            log.error("a request failed (%s)", type(error).__name__)
            if not started:
                answer = JSONResponse({"detail": "The server failed: its log says where."}, 500)
                await answer(scope, receive, send)
