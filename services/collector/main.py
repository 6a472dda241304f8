"""Wires the collector: the catalogue, the publisher with its bounded spool, the HTTP edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

from adapters.catalogue import Catalogue
from adapters.kafka import KafkaPublisher
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from services.collector.api import SERVICE, SPOOLED, add_routes
from settings import Settings, load_settings

SPOOL_EVENTS: Final = 20_000
STALLED_SECONDS: Final = 3.0
NEARLY_FULL: Final = 0.9  # of the spool: from here on others should take the events


def build(settings: Settings) -> FastAPI:
    catalogue = Catalogue(settings)
    publisher = KafkaPublisher(settings.kafka, client_id=SERVICE, max_buffer=SPOOL_EVENTS)

    SPOOLED.set_function(lambda: publisher.outstanding)

    def ready() -> dict[str, str]:
        waiting = {} if catalogue.ready else {"catalogue": "no item is known yet"}
        if publisher.outstanding >= SPOOL_EVENTS * NEARLY_FULL:
            waiting["spool"] = f"{publisher.outstanding} of {SPOOL_EVENTS} places are taken; Kafka does not answer"
        return waiting

    def notes() -> dict[str, str]:
        spooled = f"{publisher.outstanding} of {SPOOL_EVENTS} events wait in memory"
        if (stalled := publisher.stalled_s()) > STALLED_SECONDS:
            return {"kafka": f"{settings.kafka} has not answered for {stalled:.0f} s; {spooled}"}
        return {} if catalogue.caught_up else {"kafka": f"{settings.kafka} was not reached yet; {spooled}"}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(catalogue.start)
        yield
        await asyncio.gather(asyncio.to_thread(publisher.close), asyncio.to_thread(catalogue.close))

    app = create_app(SERVICE, title="Minimart collector", ready=ready, notes=notes, lifespan=lifespan)
    add_routes(app, catalogue, publisher)
    return app


def main() -> None:
    settings = load_settings()
    setup_logging(SERVICE, settings.log_level)
    serve(build(settings), settings.host, settings.port("collector"), SERVICE)
