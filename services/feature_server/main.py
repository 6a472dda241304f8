"""Builds and runs the feature server: the compiled plan, Redis, the HTTP and the gRPC edge."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI

from adapters.errors import Misconfigured
from adapters.online_rows import OnlineRows
from adapters.telemetry import setup_logging
from adapters.web import DRAIN_SECONDS, create_app, require_port, serve
from feature_repo.plan import FeaturePlan
from feature_repo.service_versions import FILE, FeatureServices
from services.feature_server import metrics
from services.feature_server.answer import Answers
from services.feature_server.api import add_routes
from services.feature_server.asks import Asks
from services.feature_server.last_known import LastKnown
from services.feature_server.listing import Listed, listing, pins, unanswerable
from services.feature_server.metrics import NAME
from services.feature_server.rpc import FeatureRpc, start
from settings import Settings, load_settings

REDIS_TIMEOUT_MS: Final = 25.0
PROBE_S: Final = 0.5  # how often an unused store is asked whether it is there
PINS_S: Final = 10.0


def build(settings: Settings) -> FastAPI:
    """Wire the process; nothing connects before the app's lifespan begins."""
    plan, services = _declared(settings)
    rows = OnlineRows(settings.redis, plan, partitions=settings.kafka_partitions, timeout_ms=REDIS_TIMEOUT_MS)
    last_known = LastKnown(settings.feature_server_cache_mib << 20)
    answers, asks = Answers(plan, rows, last_known, clock=now_ms), Asks(plan, services)
    pinned: dict[str, list[str]] = {}
    metrics.LAST_KNOWN_ROWS.set_function(lambda: len(last_known))
    metrics.LAST_KNOWN_BYTES.set_function(lambda: last_known.bytes)
    metrics.STORE_AWAY.set_function(lambda: answers.away)

    def ready() -> dict[str, str]:
        return {} if answers.reached else {"redis": "the online store was not reached yet, and nothing is known"}

    def notes() -> dict[str, str]:
        found = {"models": "; ".join(lost)} if (lost := unanswerable(services, pinned)) else {}
        if answers.away:
            return found | {"redis": f"away; {len(last_known)} last known rows, then declared defaults"}
        return found if answers.whole else found | {"redis": f"does not hold feature set {plan.version} whole"}

    def listed() -> list[Listed]:
        return listing(services, asks, pins(settings.published))

    rpc = FeatureRpc(asks, answers, clock=now_ms, services=listed, feature_set=plan.version)

    async def look() -> None:
        """Notice that the store went or came back, and what models are pinned to."""
        last = 0.0
        while True:
            await answers.probe()
            if time.monotonic() - last > PINS_S:
                last = time.monotonic()
                found = await asyncio.to_thread(pins, settings.published)
                pinned.clear()
                pinned.update(found)
            await asyncio.sleep(PROBE_S)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = await start(rpc, f"{settings.host}:{settings.port('feature_server_grpc')}")
        await answers.probe()
        looking = asyncio.create_task(look())

        async def drain() -> None:
            """gRPC stops taking requests as soon as HTTP does, and finishes what is in progress."""
            await app.state.draining.wait()
            await server.stop(DRAIN_SECONDS)

        draining = asyncio.create_task(drain())
        structlog.get_logger().info("started", port=settings.port(NAME), grpc=settings.port("feature_server_grpc"),
                                    features=plan.version)
        yield
        app.state.draining.set()
        await draining
        looking.cancel()
        await rows.close()

    app = create_app(NAME, title="Minimart feature server", ready=ready, notes=notes, lifespan=lifespan)
    add_routes(app, asks, answers, clock=now_ms, services=listed)
    return app


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _declared(settings: Settings) -> tuple[FeaturePlan, FeatureServices]:
    folder = settings.features
    try:
        plan = FeaturePlan.load(folder / "plan.json")
        services = FeatureServices.load(folder / FILE)
    except (OSError, ValueError) as error:
        fix = "`make demo` or `python -m pipelines.apply_features` writes it"
        raise Misconfigured(f"{folder}: no feature plan or no feature services ({error}); {fix}") from None
    if services.feature_set != plan.sha256:
        raise Misconfigured(f"{folder / FILE} is of feature set {services.feature_set[:12]} and plan.json of "
                            f"{plan.version}; run `python -m pipelines.apply_features`")
    return plan, services


def main() -> None:
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    try:
        require_port(settings.host, settings.port("feature_server_grpc"), "feature_server_grpc")
        app = build(settings)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr, flush=True)
        sys.exit(2)
    serve(app, settings.host, settings.port(NAME), NAME)
