"""Wires the collector: the catalogue, the publisher with its bounded spool, the HTTP edge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi import FastAPI

from adapters.catalogue import Catalogue
from adapters.kafka import KafkaPublisher
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from services.collector.api import SERVICE, SPOOLED, add_routes
from settings import Settings, load_settings

SPOOL_EVENTS: Final = 20_000
STALLED_SECONDS: Final = 3.0


def build(settings: Settings) -> FastAPI:
    catalogue = Catalogue(settings)
    publisher = KafkaPublisher(settings.kafka, client_id=SERVICE, max_buffer=SPOOL_EVENTS)

    def ready() -> dict[str, str]:
        SPOOLED.set(publisher.outstanding)
        waiting = {} if catalogue.ready else {"catalogue": "no item is known yet"}
        if not catalogue.caught_up:
            waiting["kafka"] = f"{settings.kafka} was not reached yet; events are spooled in memory"
        elif (stalled := publisher.stalled_s()) > STALLED_SECONDS:
            waiting["kafka"] = (
                f"{settings.kafka} has not answered for {stalled:.0f} s; {publisher.outstanding} of {SPOOL_EVENTS} "
                "places of the spool are taken"
            )
        return waiting

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(catalogue.start)
        yield
        await anyio.to_thread.run_sync(publisher.close)
        await anyio.to_thread.run_sync(catalogue.close)

    app = create_app(SERVICE, title="Minimart collector", ready=ready, lifespan=lifespan)
    add_routes(app, catalogue, publisher)
    return app


def main() -> None:
    settings = load_settings()
    setup_logging(SERVICE, settings.log_level)
    serve(build(settings), settings.host, settings.port("collector"), SERVICE)
