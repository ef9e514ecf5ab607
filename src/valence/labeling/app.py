"""The pages and addresses of a labeling session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

import valence
from valence.errors import DataError, RunError, ValenceError
from valence.labeling.session import Item, LabelingSession
from valence.labeling.store import Decision
from valence.serving.guard import Guard
from valence.serving.metrics import Metrics
from valence.serving.settings import ServeSettings

MOST_ITEMS = 10
FILES = {
    "/": ("valence.labeling", "page.html", "text/html; charset=utf-8"),
    "/label.css": ("valence.labeling", "label.css", "text/css; charset=utf-8"),
    "/label.js": ("valence.labeling", "label.js", "text/javascript; charset=utf-8"),
    "/page.css": ("valence.serving", "page.css", "text/css; charset=utf-8"),
    "/theme.js": ("valence.serving", "theme.js", "text/javascript; charset=utf-8"),
    "/page.svg": ("valence.serving", "page.svg", "image/svg+xml"),
}
"""Path → package, file and media type."""
Name = Annotated[str, Field(min_length=1, max_length=80)]
Token = Annotated[str, Field(min_length=8, max_length=64)]


class LabelingBody(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    person: Name


class NextBody(LabelingBody):
    """Rows that somebody has in hand, and how many more are requested."""

    have: Annotated[list[int], Field(max_length=100)] = []
    count: Annotated[int, Field(ge=1, le=MOST_ITEMS)] = 1


class DecisionBody(LabelingBody):
    """A decision on a row."""

    token: Token
    row: int
    action: str
    label: str | None = None
    seconds: Annotated[float | None, Field(ge=0)] = None
    suggestion: str | None = None
    was_shown: bool = False
    note: Annotated[str, Field(max_length=2000)] = ""
    chosen_by: Annotated[str, Field(max_length=40)] = ""


class UndoBody(LabelingBody):
    """The last decision is taken back."""

    token: Token


class TakeBody(LabelingBody):
    """A row that was looked up."""

    row: int


def make_app(session: LabelingSession, settings: ServeSettings) -> Guard:
    """The ASGI application of a session.

    Args:
        session: Not yet started.
        settings: Address and bounds.
    """
    app = FastAPI(title="Valence", version=valence.__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(ValenceError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_files(app)
    _add_reads(app, session)
    _add_writes(app, session)
    return Guard(
        app, keys=settings.keys, limits=settings.limits, metrics=Metrics(), hosts=settings.hosts
    )


def _add_files(app: FastAPI) -> None:
    for path, (package, name, kind) in FILES.items():
        content = (files(package) / name).read_bytes()
        app.add_api_route(path, _constant(content, kind), methods=["GET"])


def _constant(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


def _add_reads(app: FastAPI, session: LabelingSession) -> None:
    @app.get("/state")
    def state(person: Annotated[str, Query(max_length=80)] = "") -> JSONResponse:
        return JSONResponse(session.state(person))

    @app.get("/search")
    def search(q: Annotated[str, Query(max_length=200)]) -> JSONResponse:
        return JSONResponse(session.search(q))


def _add_writes(app: FastAPI, session: LabelingSession) -> None:
    @app.post("/next")
    def next_items(body: NextBody) -> JSONResponse:
        items = session.next_items(body.person, body.count, body.have)
        return JSONResponse([asdict(item) for item in items])

    @app.post("/decide")
    def decide(body: DecisionBody) -> JSONResponse:
        if body.action == "undo":
            raise DataError("Take a decision back with /undo")
        return JSONResponse({"id": session.decide(Decision(**body.model_dump()))})

    @app.post("/undo")
    def undo(body: UndoBody) -> JSONResponse:
        return JSONResponse(_plain(session.undo(body.person, body.token)))

    @app.post("/take")
    def take(body: TakeBody) -> JSONResponse:
        return JSONResponse(_plain(session.take(body.person, body.row)))


def _plain(item: Item | None) -> dict[str, Any] | None:
    return None if item is None else asdict(item)


async def _failed(_: Request, error: Exception) -> Response:
    status = 507 if isinstance(error, RunError) else 422
    return JSONResponse({"error": str(error)}, status)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)
