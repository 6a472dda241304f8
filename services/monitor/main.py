"""Wires the monitor: the incident files, Prometheus for the vital signs, the metrics of programs that end."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from prometheus_client import REGISTRY, Gauge

from adapters.incidents import Incidents
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from services.monitor.api import add_routes
from services.monitor.textfiles import TextFiles
from services.monitor.vitals import Vitals
from settings import Settings, load_settings

NAME: Final = "monitor"
OPEN: Final = Gauge("minimart_incidents_open", "Incidents that have not ended")


def build(settings: Settings) -> FastAPI:
    """The monitor's app. It is ready while it can write incidents; Prometheus may be away."""
    settings.incidents.mkdir(parents=True, exist_ok=True)
    settings.metrics.mkdir(parents=True, exist_ok=True)
    incidents, files = Incidents(settings.incidents), TextFiles(settings.metrics)
    vitals = Vitals(settings.url("prometheus"))

    def ready() -> dict[str, str]:
        writable = os.access(settings.incidents, os.W_OK)
        return {} if writable else {"incidents": f"{settings.incidents} cannot be written"}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        OPEN.set_function(lambda: len(incidents.all("open")))
        REGISTRY.register(files)
        yield
        REGISTRY.unregister(files)
        vitals.close()

    app = create_app(NAME, title="Minimart monitor", ready=ready, lifespan=lifespan)
    add_routes(app, incidents, clock=lambda: time.time_ns() // 1_000_000, vitals=vitals)
    return app


def main() -> None:
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    serve(build(settings), settings.host, settings.port(NAME), NAME)
