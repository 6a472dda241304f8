"""The HTTP edge: decode, decide, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import FastAPI, Path
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from adapters.decision_log import DecisionLog
from adapters.errors import NotFound
from adapters.telemetry import DEGRADED, SECONDS_BUCKETS, STAGE_SECONDS
from adapters.web import uuid7
from feature_repo.events import ID_PATTERN
from models.rollout.shares import ARMS, Arm
from services.recommender.answers import Answers
from services.recommender.record import placed, to_record
from services.recommender.shadow import Shadow
from services.recommender.terms import Ask, Decision

NO_CONTROLS = r"^[^\x00-\x1f\x7f]+$"
Explain = Callable[[dict[str, Any]], dict[str, Any]]

ARM_ANSWERS: Final = Counter("minimart_arm_answers_total", "Answers by arm of the rollout", ["arm"])
ARM_DEGRADED: Final = Counter("minimart_arm_degraded_total", "Answers that lack one of their parts, by arm", ["arm"])
ARM_SECONDS: Final = Histogram(
    "minimart_arm_seconds", "Seconds that the funnel took, by arm", ["arm"], buckets=SECONDS_BUCKETS
)
for _arm in ARMS:
    ARM_ANSWERS.labels(_arm), ARM_DEGRADED.labels(_arm)


class Context(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    device: Literal["desktop", "phone", "tablet", "other"] | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    of_age: Annotated[bool, Field(description="unless true, products for adults are not shown")] | None = None


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    user_id: Annotated[str, Field(pattern=ID_PATTERN, max_length=64)]
    surface: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_CONTROLS)] = "home"
    k: Annotated[int, Field(ge=1, le=100)] = 20
    context: Context | None = None


class Item(BaseModel):
    item_id: str
    score: float
    sources: list[str]
    position: int
    new: bool


class Answer(BaseModel):
    request_id: str
    items: list[Item]
    model_versions: dict[str, str]
    timings_ms: dict[str, float]
    degraded: list[str]
    cold_start: Literal["new_visitor"] | None
    arm: Arm
    rollout: str | None
    cached_ms: float


def add_routes(
    app: FastAPI, answers: Answers, log: DecisionLog, *,
    explain: Explain | None = None, shadow: Shadow | None = None, lineups: Callable[[], dict[str, Any]] = dict,
) -> None:  # fmt: skip
    """Put the routes on the app.

    `lineups()` says which models are loaded and who answers whom; `shadow` may score a decision again.
    """
    if shadow is not None:
        shadow.watch(lambda: answers.admission.busy)

    @app.post("/v1/recommendations", response_model=Answer, summary="Products for this shopper now")
    async def recommendations(body: Request) -> Response:
        decision = await answers.answer(_ask(body, answers.clock()))
        log.write(lambda: to_record(decision))
        if shadow is not None and decision.made_for is None:
            shadow.offer(decision)
        _count(decision)
        return _json(orjson.dumps(_answer(decision)))

    @app.get("/v1/lineups", summary="Which models are loaded, and who answers whom", response_model=dict[str, object])
    async def lineups_now() -> Response:
        return _json(orjson.dumps(lineups()))

    @app.get(
        "/v1/decisions/{request_id}", response_model=dict[str, object],
        summary="The record of one answer, and `why`: what of it can be made again, and each product's way in words",
    )  # fmt: skip
    async def decision(request_id: Annotated[str, Path(pattern=ID_PATTERN, max_length=64)]) -> Response:
        found = await asyncio.to_thread(log.find, request_id)
        if found is None:
            raise NotFound(f"no decision {request_id!r} in memory or in the event log", field="request_id")
        if explain is None:
            return _json(found)
        record = orjson.loads(found)
        return _json(orjson.dumps(record | {"why": await asyncio.to_thread(explain, record)}))


def _ask(body: Request, now_ms: int) -> Ask:
    context = body.context or Context()
    of_age = bool(context.of_age)
    return Ask(uuid7(), body.user_id, now_ms, body.k, body.surface, context.device, context.country, of_age)


def _answer(decision: Decision) -> dict[str, object]:
    return {
        "request_id": decision.ask.request_id,
        "items": [placed(item) for item in decision.placed],
        "model_versions": dict(decision.model_versions),
        "timings_ms": dict(decision.timings_ms),
        "degraded": list(decision.degraded),
        "cold_start": decision.cold_start,
        "arm": decision.arm,
        "rollout": decision.rollout,
        "cached_ms": decision.cached_ms,
    }


def _count(decision: Decision) -> None:
    if decision.made_for is None:
        for stage, spent in decision.timings_ms.items():
            STAGE_SECONDS.labels(stage).observe(spent / 1000)
    for reason in decision.degraded:
        DEGRADED.labels(reason).inc()
    ARM_ANSWERS.labels(decision.arm).inc()
    ARM_SECONDS.labels(decision.arm).observe(decision.timings_ms["total"] / 1000)
    if decision.degraded:
        ARM_DEGRADED.labels(decision.arm).inc()


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
