"""The routes, and how a request is checked, answered or refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import valence
from valence.serving.batching import Batcher
from valence.serving.explaining import explain_texts
from valence.serving.guard import DOCS_FILES, PAGE_FILES, Guard
from valence.serving.metrics import Metrics
from valence.serving.refusals import Refusal, broken, stopping
from valence.serving.reload import LiveModel
from valence.serving.schemas import (
    Bounds,
    Explained,
    ExplainRequest,
    Failure,
    Info,
    Parameters,
    PredictRequest,
    Score,
    State,
)
from valence.serving.scoring import Answer, BatchScorer, score_texts
from valence.serving.settings import Limits, ServeSettings

T = TypeVar("T")
EXPLANATION_WEIGHT = 32  # texts: the gradient steps of one explanation cost about as much
DECIMALS = 7
HALF_PAIR = re.compile("[\ud800-\udfff]")  # JSON can say it, no tokenizer can read it
REASONS = {
    400: "The body is not complete JSON in UTF-8",
    401: "The key is missing or unknown",
    408: "The body was sent too slowly",
    413: "The body is too large, or has too many texts",
    415: "The Content-Type is not JSON",
    422: "A field is missing, unknown, of a wrong type, empty or too long",
    429: "The queue is full; try again after the time in Retry-After",
    500: "The model failed",
    503: "No answer in time, or the server is stopping",
}


@dataclass
class Service:
    """What the routes work with.

    Attributes:
        settings: Of the server.
        live: The model.
        metrics: Counts and times.
        batcher: The queue before the model.
        guard: The middleware around the routes; set once these are made.
    """

    settings: ServeSettings
    live: LiveModel
    metrics: Metrics
    batcher: Batcher
    guard: Guard | None = None

    @property
    def draining(self) -> bool:
        """Whether the server is stopping."""
        return self.guard is not None and self.guard.draining


def make_app(settings: ServeSettings) -> Guard:
    """The ASGI application of one process; loads the model.

    Args:
        settings: What it serves and how.

    Raises:
        ModelError: if the folder holds no model that can be loaded.
    """
    metrics = Metrics()
    live = LiveModel(
        settings.folder,
        lambda outcome: metrics.reloads.labels(outcome).inc(),
        hardware=settings.hardware,
    )
    service = Service(
        settings,
        live,
        metrics,
        Batcher(
            live.current,
            settings.limits,
            metrics,
            batch_tokens=settings.hardware.batch_tokens,
        ),
    )
    app = FastAPI(
        title="Valence", version=valence.__version__, docs_url=None, redoc_url=None,
        redirect_slashes=False, lifespan=_lifespan(service),
        summary="Predict labels and probabilities, or numbers.",
    )  # fmt: skip
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    _add_inference_routes(app, service)
    _add_status_routes(app, service)
    _add_page(app, PAGE_FILES if settings.keys else PAGE_FILES | DOCS_FILES)
    service.guard = Guard(
        app, keys=settings.keys, limits=settings.limits, metrics=metrics, hosts=settings.hosts
    )
    return service.guard


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seconds = service.settings.reload_seconds
        watching = asyncio.create_task(service.live.watch(seconds)) if seconds else None
        yield
        if watching is not None:
            watching.cancel()
        await asyncio.to_thread(service.batcher.close)

    return lifespan


def _failures(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Failure, "description": REASONS[code]} for code in codes}


def _add_inference_routes(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits
    usual = _failures(*REASONS)

    @app.post("/predict", response_model=list[list[Score]], responses=usual)
    async def predict(body: PredictRequest, request: Request) -> Response:
        """Labels of each text with their probabilities, the most probable first.

        A model of intensities gives one label, ``intensity``, with the number as its score.
        """
        texts = checked_texts(one_each(body.inputs), limits, limits.texts)
        work: Awaitable[Answer]
        if body.truncate is False:
            work = service.batcher.run(partial(score_whole, texts=texts), weight=len(texts))
        else:
            work = service.batcher.predict(texts)
        answer = await _while_connected(request, work)
        return JSONResponse(ranked(answer, body.parameters, raw=body.raw_scores))

    @app.post(
        "/explain",
        response_model=list[Explained],
        responses={**usual, 501: {"model": Failure, "description": "This model cannot explain"}},
    )
    async def explain(body: ExplainRequest, request: Request) -> Response:
        """How much each word adds to a label, and similar training examples."""
        texts = checked_texts(body.inputs, limits, limits.explained)
        explanations = service.batcher.run(
            lambda predictor: explain_texts(predictor, texts, body.target),
            weight=min(EXPLANATION_WEIGHT * len(texts), limits.queue_texts),
        )
        return JSONResponse(await _while_connected(request, explanations))


def _add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=State, responses=_failures(503))
    async def health() -> State:
        """Whether the process works."""
        if not service.batcher.is_alive:
            raise Refusal(503, "unhealthy", "The model's thread has ended; restart the server")
        return State(status="ok")

    @app.get("/ready", response_model=State, responses=_failures(503))
    async def ready() -> State:
        """Whether new requests should come here."""
        if service.draining:
            raise stopping()
        return State(status="ready")

    @app.get("/info", response_model=Info, responses=_failures(401))
    async def info() -> Info:
        """Which model answers, and what it may be sent."""
        return describe(service)

    @app.get("/metrics", response_class=Response, responses=_failures(401))
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI, pages: Mapping[str, tuple[str, str]]) -> None:
    folder = files("valence.serving")
    for path, (name, kind) in pages.items():
        content = (folder / name).read_bytes()

        async def page(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_api_route(path, page, include_in_schema=False, methods=["GET"])


def one_each(inputs: str | list[str] | list[list[str]]) -> str | list[str]:
    """Texts that stand in lists of one each, as text-embeddings-inference takes them.

    Raises:
        Refusal: 422 for lists of none or of several.
    """
    if isinstance(inputs, str):
        return inputs
    texts = []
    for i, entry in enumerate(inputs):
        if isinstance(entry, str):
            texts.append(entry)
        elif len(entry) == 1:
            texts.append(entry[0])
        else:
            raise Refusal(
                422, "validation", f"inputs[{i}] holds {len(entry)} texts; this model reads one "
                "at a time, so put each in its own list",
            )  # fmt: skip
    return texts


def score_whole(model: BatchScorer, texts: list[str]) -> Answer:
    """The answer to texts none of which may be truncated.

    Raises:
        Refusal: 413 where one is too long.
    """
    answer = score_texts(model, texts)
    if model.truncated:
        raise Refusal(
            413, "validation", f"inputs has {model.truncated} texts above the model's token "
            "limit; shorten them, or remove truncate",
        )  # fmt: skip
    return answer


def describe(service: Service) -> Info:
    """Which model answers, and what it may be sent."""
    limits, predictor = service.settings.limits, service.live.current()
    return Info(
        model=service.settings.folder.resolve().name,
        method=predictor.config.method,
        target=predictor.target,
        classes=list(predictor.classes),
        max_tokens=predictor.model.max_tokens,
        reloads=service.live.reloads,
        version=valence.__version__,
        limits=Bounds(
            body_bytes=limits.body_bytes, text_chars=limits.text_chars, texts=limits.texts,
            explained=limits.explained,
        ),
    )  # fmt: skip


def checked_texts(inputs: str | list[str], limits: Limits, most: int) -> list[str]:
    """The texts of a request.

    Raises:
        Refusal: 413 for too many, 422 for none, an empty one or one too long.
    """
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not texts:
        raise Refusal(422, "validation", "inputs is empty; send at least one text")
    if len(texts) > most:
        raise Refusal(
            413, "validation", f"inputs holds {len(texts)} texts; send at most {most} per request"
        )
    for i, text in enumerate(texts):
        if not text.strip():
            raise Refusal(422, "validation", f"inputs[{i}] is empty; remove it")
        if len(text) > limits.text_chars:
            raise Refusal(
                422, "validation",
                f"inputs[{i}] has {len(text)} characters; at most {limits.text_chars} are read",
            )  # fmt: skip
        if HALF_PAIR.search(text):
            raise Refusal(422, "validation", f"inputs[{i}] has an unpaired surrogate; fix it")
    return texts


def ranked(
    answer: Answer, parameters: Parameters | None, *, raw: bool = False
) -> list[list[dict[str, Any]]]:
    """Labels and scores of each text, the highest first; equal ones in the model's order.

    ``raw`` gives logarithms in place of probabilities; a number is given as it is.

    Where the model may abstain, ``chosen`` says which label it gives; none where it abstains.
    """
    order = np.argsort(-answer.probabilities, axis=1, kind="stable")
    if parameters is not None and parameters.top_k is not None:
        order = order[:, : parameters.top_k]
    probs = answer.probabilities.astype(float)
    if raw and answer.are_probabilities:
        probs = np.log(np.maximum(probs, np.finfo(float).tiny))
    probs = probs.round(DECIMALS)
    ranking: list[list[dict[str, Any]]] = [
        [{"label": answer.classes[i], "score": row[i]} for i in best]
        for best, row in zip(order.tolist(), probs.tolist(), strict=True)
    ]
    if answer.chosen is not None:
        for scores, best, chosen in zip(ranking, order, answer.chosen, strict=True):
            for score, is_chosen in zip(scores, chosen[best].tolist(), strict=True):
                score["chosen"] = is_chosen
    return ranking


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is canceled when the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(499, "gone", "The client disconnected")
        return await task
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _plain(refusal: Refusal) -> Response:
    return Response(
        refusal.body, refusal.status, headers=refusal.headers, media_type="application/json"
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _plain(error)


async def _invalid(_: Request, error: Exception) -> Response:
    """The first fault of a body, without the body: it may be long, or not writable."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _plain(Refusal(400, "validation", f"The body is not JSON: {first['ctx']['error']}"))
    where = first["loc"][1:]
    if first["type"] in ("string_type", "list_type") and where[:1] == ("inputs",):
        return _plain(Refusal(422, "validation", "inputs: send a text or a list of texts"))
    name = ".".join(str(part) for part in where) or "body"
    return _plain(Refusal(422, "validation", f"{name}: {first['msg']}"))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {
        400: "The body cannot be read as JSON in UTF-8; check it",
        404: "Unknown address; see /openapi.json",
        405: "This address does not support this method; see /openapi.json",
    }
    answer = _plain(Refusal(error.status_code, "validation",
                            reasons.get(error.status_code, str(error.detail))))  # fmt: skip
    answer.headers.update(error.headers or {})
    return answer


async def _unexpected(_: Request, error: Exception) -> Response:
    return _plain(broken(error))
