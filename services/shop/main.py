"""Wires the shop: catalogue, recommender, collector, live features, pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import anyio.to_thread
import httpx
import structlog
from fastapi import FastAPI

from adapters import pages as shared
from adapters.catalogue import Catalogue
from adapters.pages.errors import friendly_errors
from adapters.pages.security import OwnPages
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from services.shop import api, pages
from services.shop.live import StoredFeatures, Watch
from services.shop.neighbours import Collector, Recommender
from services.shop.shop import Shop
from services.shop.shoppers import Suggestion, Suggestions
from settings import Settings, load_settings

NAME: Final = "shop"
ACCEPTS: Final = ("application/x-www-form-urlencoded",)
BODY_LIMIT: Final = 16 << 10


class Suggesting(Protocol):
    def start(self) -> None: ...
    def close(self) -> None: ...
    def all(self) -> Sequence[Suggestion]: ...


@dataclass(frozen=True)
class Neighbours:
    """Everything outside the process; tests bring fakes."""

    catalogue: Catalogue
    recommender: httpx.AsyncClient
    collector: httpx.AsyncClient
    features: StoredFeatures
    suggestions: Suggesting

    @classmethod
    def real(cls, settings: Settings) -> Neighbours:
        def client(part: str) -> httpx.AsyncClient:
            limits = httpx.Limits(max_connections=64, keepalive_expiry=20)
            return httpx.AsyncClient(base_url=settings.url(part), trust_env=False, limits=limits)

        return cls(
            catalogue=Catalogue(settings),
            recommender=client("recommender"),
            collector=client("collector"),
            features=StoredFeatures(settings.redis, settings.features / "plan.json"),
            suggestions=Suggestions(settings.lake),
        )


def build(settings: Settings, neighbours: Neighbours | None = None) -> FastAPI:
    """The shop's app. It is ready once it knows the catalogue; it stays up whatever else is away."""
    around = neighbours or Neighbours.real(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(around.catalogue.start)
        around.suggestions.start()
        structlog.get_logger().info("started", port=settings.port(NAME))
        yield
        await shop.finish()
        around.suggestions.close()
        around.catalogue.close()
        for client in (around.recommender, around.collector):
            await client.aclose()
        await around.features.close()

    def ready() -> dict[str, str]:
        return {} if around.catalogue.ready else {"catalogue": "no items read yet"}

    app = create_app(
        NAME, title="Minimart shop", lifespan=lifespan, ready=ready, accepts=ACCEPTS, body_limit=BODY_LIMIT
    )
    shop = Shop(
        around.catalogue,
        Recommender(around.recommender),
        Collector(around.collector),
        Watch(around.features),
        around.suggestions,
        pages.environment(),
    )
    app.state.shop = shop
    app.add_middleware(OwnPages)
    app.include_router(api.router)
    shared.mount(app, pages.HERE / "static")
    friendly_errors(app, api.draw)
    return app


def main() -> None:
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    serve(build(settings), settings.host, settings.port(NAME), NAME)
