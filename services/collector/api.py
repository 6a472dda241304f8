"""The collector's thin edge: `POST /v1/events` reads, decides, publishes, answers."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import Any, Final, Protocol

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.openapi.utils import get_openapi
from prometheus_client import Gauge
from pydantic import BaseModel, Field

from adapters.catalogue import Catalogue
from adapters.errors import BadInput, Overloaded, Unavailable
from adapters.kafka import Position, dead_letter
from adapters.telemetry import EVENTS
from adapters.web import uuid7
from feature_repo.events import ItemListed
from services.collector import openapi
from services.collector.collect import Accepted, Refused, decide, read

SERVICE: Final = "collector"
ACK_SECONDS: Final = 5.0
SPOOLED: Final = Gauge("minimart_collector_spooled_events", "Events accepted that Kafka has not acknowledged yet")


class Spool(Protocol):
    """A publisher with acknowledgements: adapters.kafka.KafkaPublisher or its fake."""

    @property
    def outstanding(self) -> int: ...

    def publish_acked(self, topic: str, key: str, value: bytes) -> Future[Position]:
        """Queue one record; the future resolves to (partition, offset). Raises Overloaded when the spool is full."""


class RefusedEvent(BaseModel):
    index: int = Field(description="place in the batch, from 0")
    reason: str = Field(description="`code: detail` with the value and what is allowed")
    field: str | None = None


class PositionInLog(BaseModel):
    topic: str
    partition: int
    offset: int


class Verdict(BaseModel):
    accepted: int
    refused: list[RefusedEvent]
    positions: list[PositionInLog | None] | None = Field(
        None, description="with ?ack=true: where each event lies in Kafka; null: refused, or not acknowledged in time"
    )


def add_routes(app: FastAPI, catalogue: Catalogue, spool: Spool) -> None:
    router = APIRouter()

    @router.post(
        "/v1/events", status_code=202, summary="Take in one event or a batch", response_model_exclude_none=True,
        openapi_extra={"requestBody": openapi.body()},
    )
    async def events(request: Request, ack: bool = Query(False, description="wait for Kafka")) -> Verdict:
        found = read(await request.body())
        if not catalogue.ready:
            raise Unavailable("the catalogue is not loaded yet: neither the lake nor Kafka has items; try again soon")
        verdicts = list(decide(found, catalogue, int(time.time() * 1000), uuid7))
        sent = _publish(verdicts, catalogue, spool)
        refused = [v for v in verdicts if isinstance(v, Refused)]
        if len(found) == 1 and refused:
            raise BadInput(refused[0].reason, field=refused[0].field or "event")
        return Verdict(
            accepted=len(verdicts) - len(refused),
            refused=[RefusedEvent(index=r.index, reason=r.reason, field=r.field) for r in refused],
            positions=await _positions(verdicts, sent) if ack else None,
        )

    app.include_router(router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]


def _publish(
    verdicts: list[Accepted | Refused], catalogue: Catalogue, spool: Spool
) -> dict[int, Future[Position]]:
    """Queue what was accepted, and the quarantined into their dead letters. Raises Unavailable when nothing fits."""
    sent: dict[int, Future[Position]] = {}
    for verdict in verdicts:
        try:
            if isinstance(verdict, Accepted):
                event = verdict.event
                sent[verdict.index] = spool.publish_acked(event.topic, event.key(), verdict.payload)
                if isinstance(event, ItemListed):
                    catalogue.learn((event,))
                EVENTS.labels(SERVICE, event.topic, "accepted").inc()
                continue
            if verdict.topic:
                topic, letter = dead_letter(verdict.topic, verdict.payload, verdict.reason, source=SERVICE,
                                            time_ms=int(time.time() * 1000))
                spool.publish_acked(topic, verdict.key, letter)
            outcome = "dead_letter" if verdict.topic else verdict.code
            EVENTS.labels(SERVICE, verdict.topic or "none", outcome).inc()
        except Overloaded as error:
            raise Unavailable(
                f"Kafka does not answer and the spool is full ({spool.outstanding} events); {len(sent)} of "
                f"{len(verdicts)} events were taken. Send all of them again: an event_id counts once"
            ) from error
    return sent


async def _positions(
    verdicts: list[Accepted | Refused], sent: dict[int, Future[Position]]
) -> list[PositionInLog | None]:
    waiting = [asyncio.wrap_future(f) for f in sent.values()]
    if waiting:
        await asyncio.wait(waiting, timeout=ACK_SECONDS)

    def position(verdict: Accepted | Refused) -> PositionInLog | None:
        future = sent.get(verdict.index)
        if not isinstance(verdict, Accepted) or future is None or not future.done() or future.exception() is not None:
            return None
        partition, offset = future.result()
        return PositionInLog(topic=verdict.event.topic, partition=partition, offset=offset)

    return [position(v) for v in verdicts]


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        document.setdefault("components", {}).setdefault("schemas", {}).update(openapi.schemas())
        app.openapi_schema = document
    return app.openapi_schema
