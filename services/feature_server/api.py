"""The HTTP edge: decode, ask, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from adapters.web import request_id
from services.feature_server.answer import Answers
from services.feature_server.asks import LONGEST_KEY, MOST_FEATURES, MOST_ROWS, Asks
from services.feature_server.listing import Listed
from services.feature_server.terms import NEVER, STATES, Answer, Column, ViewAnswer

Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
WORDS = {int(state): word for state, word in STATES.items()}


class Question(BaseModel):
    """What is asked for: a feature service, or a list of features."""

    model_config = ConfigDict(extra="forbid", strict=True)
    feature_service: Name | None = Field(None, description="name (its newest version) or name@version")
    features: list[Name] = Field([], max_length=MOST_FEATURES, description="instead: view or view:feature")
    entities: dict[Name, Annotated[list[Key], Field(min_length=1, max_length=MOST_ROWS)]] = Field(
        description="join key -> its values, one per row and in your order, repeats allowed; or one for all rows")
    at_ms: int | None = Field(None, ge=0, le=2**53, description="the moment at which windows are read; left out: now")


class View(BaseModel):
    name: str
    states: list[str] = Field(description=f"per row one of {', '.join(STATES.values())}")
    ages_ms: list[int | None] = Field(description="from the newest event in the value to at_ms; null: no value")
    reads_ms_ago: list[int | None] = Field(description="since the row was read from the store; null: never")
    values: dict[str, list[Any]] = Field(description="feature -> a value per row; null: no value")


class Reply(BaseModel):
    request_id: str
    feature_set: str
    feature_service: str | None
    at_ms: int
    rows: int
    stale: bool = Field(description="whether any row is stale or a default")
    degraded: list[str]
    views: list[View]


def add_routes(app: FastAPI, asks: Asks, answers: Answers, *, clock: Callable[[], int],
               services: Callable[[], list[Listed]]) -> None:
    """Put the routes on the app. `services()` reads files: it runs in a thread."""

    @app.post("/v1/features", response_model=Reply, summary="Feature values by entity keys, with the age of each")
    async def features(question: Question, request: Request) -> Response:
        ask = asks.ask(question.feature_service or "", question.features, question.entities, question.at_ms, clock())
        answer = await answers.answer(ask)
        return Response(encode(answer, request_id(request)), media_type="application/json")

    @app.get("/v1/feature-services", summary="Feature services by version, and the models pinned to each")
    async def feature_services() -> list[Listed]:
        return await asyncio.to_thread(services)


def encode(answer: Answer, asked_as: str) -> bytes:
    """The reply as JSON."""
    ask = answer.ask
    return orjson.dumps({
        "request_id": asked_as, "feature_set": answer.feature_set, "feature_service": ask.ref or None,
        "at_ms": ask.at_ms, "rows": ask.rows, "stale": answer.stale, "degraded": answer.degraded,
        "views": [_view(v) for v in answer.views],
    }, option=orjson.OPT_SERIALIZE_NUMPY)  # fmt: skip


def _view(view: ViewAnswer) -> dict[str, Any]:
    return {
        "name": view.name,
        "states": [WORDS[s] for s in view.states.tolist()],
        "ages_ms": _times(view.ages_ms),
        "reads_ms_ago": _times(view.reads_ms_ago),
        "values": {c.name: _values(c) for c in view.columns},
    }


def _times(ms: np.ndarray) -> list[int | None]:
    return [None if t == NEVER else t for t in ms.tolist()]


def _values(column: Column) -> Any:
    """Numbers as the array they are (NaN is null there), the rest as a list."""
    return column.values.tolist() if column.values.dtype == object else np.ascontiguousarray(column.values)


