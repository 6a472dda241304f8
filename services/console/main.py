"""Wires the console: whom it asks, what it may draw, under which names it answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from fastapi import FastAPI

from adapters import pages
from adapters.analytics import open_store
from adapters.errors import MinimartError
from adapters.feature_ages import FeatureAges
from adapters.pages.errors import friendly_errors
from adapters.pages.security import OwnPages
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from feature_repo import words as feature_words
from feature_repo.contracts.files import contracts
from services.console import api, words
from services.console.board import PORTS, Board
from services.console.neighbours import Neighbours
from services.console.registry import Ages, Registry
from settings import Settings, load_settings

NAME: Final = "console"
Newest = Callable[[], list[dict[str, Any]]]
HERE: Final = Path(__file__).parent
ACCEPTS: Final = ("application/x-www-form-urlencoded",)
BODY_LIMIT: Final = 16 << 10
LINKS: Final = (
    ("Shop", "shop", "/"), ("MLflow", "mlflow", "/"), ("Prometheus", "prometheus", "/alerts"),
    ("Alertmanager", "alertmanager", "/"), ("Grafana (composed)", "grafana", "/"),
    ("Controller", "controller", "/docs"), ("Monitor", "monitor", "/docs"),
)  # fmt: skip
NEWEST: Final = (
    "SELECT request_id, user_id, arm, ranker_version, round(total_ms, 1) AS ms, event_ms FROM decisions FINAL "
    "WHERE event_time > now() - INTERVAL 1 HOUR ORDER BY event_ms DESC LIMIT 12"
)


def build(
    settings: Settings, client: httpx.AsyncClient | None = None, newest: Newest | None = None,
    ages: Ages | None = None,
) -> FastAPI:  # fmt: skip
    """The console's app. It is always ready: what is away is said on its panel."""
    limits = httpx.Limits(max_connections=64, keepalive_expiry=20)
    neighbours = Neighbours(url_of(settings), client or httpx.AsyncClient(trust_env=False, limits=limits))
    ports = {part: _address(getattr(settings, part), settings.port(part)) for part in PORTS}

    registry = Registry(settings.home, ages or FeatureAges(settings.redis, settings.lake), neighbours)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        structlog.get_logger().info("started", port=settings.port(NAME))
        yield
        await neighbours.close()
        registry.close()

    app = create_app(
        NAME, title="Minimart console", lifespan=lifespan, ready=dict, accepts=ACCEPTS, body_limit=BODY_LIMIT
    )
    templates = pages.environment(HERE / "templates", word=words, feature_word=feature_words)
    app.state.console = api.Console(
        Board(neighbours, ports, settings.home / "drift", clock=_now_ms), neighbours, templates,
        lambda host: links_of(settings, host), newest or (lambda: newest_decisions(settings)),
        registry, contracts(), _now_ms,
    )  # fmt: skip
    hosts = {"localhost", "127.0.0.1", "::1", NAME, settings.host, *settings.console_hosts.split(",")} - {"", "0.0.0.0"}
    app.add_middleware(OwnPages, hosts=hosts)
    app.include_router(api.router)
    pages.mount(app, HERE / "static")
    friendly_errors(app, api.draw)
    return app


def url_of(settings: Settings) -> Callable[[str], str]:
    """Where a part is, as seen from here, without a slash at the end."""

    own = f"{settings.host}:{settings.port('triton_http')}"

    def url(part: str) -> str:
        if part == "mlflow":
            return settings.mlflow.rstrip("/")
        if part == "triton":
            return f"http://{settings.triton_http or own}"
        return settings.url(part)

    return url


def links_of(settings: Settings, host: str) -> list[tuple[str, str]]:
    """Other pages of the platform, as a browser reaches them that came here by `host`."""
    shown = f"[{host}]" if ":" in host else host
    return [(name, f"http://{shown}:{settings.port(part)}{path}") for name, part, path in LINKS
            if hasattr(settings, f"{part}_port")]  # fmt: skip


def newest_decisions(settings: Settings) -> list[dict[str, Any]]:
    """The newest answers that the analytical store knows; none where it is away."""
    store = open_store(settings, timeout_s=2.0)
    try:
        return store.query(NEWEST)
    except MinimartError:
        return []
    finally:
        store.close()


def _address(text: str, port: int) -> tuple[str, int]:
    """Host and port of `host:port[,...]` or of a URL."""
    first = text.split(",")[0]
    parts = urlsplit(first if "//" in first else f"//{first}")
    return parts.hostname or "127.0.0.1", parts.port or port


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    serve(build(settings), settings.host, settings.port(NAME), NAME)
