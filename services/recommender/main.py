"""Builds and runs the recommender: everything that is wired to anything is wired here."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
from fastapi import FastAPI
from prometheus_client import generate_latest

from adapters.catalogue import Catalogue
from adapters.decision_log import DecisionLog
from adapters.errors import Misconfigured
from adapters.kafka import KafkaPublisher
from adapters.model_server import FallingBack, InProcess, ModelServer, TritonServer
from adapters.online_store import ItemSnapshot, OnlineStore
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from adapters.why import Explainer
from adapters.workers import merged_metrics, serve_workers
from feature_repo.plan import FeaturePlan
from models.rerank import RULES
from services.recommender.admission import Admission, AdmissionConfig
from services.recommender.answers import Answers
from services.recommender.api import add_routes
from services.recommender.keeper import Keeper
from services.recommender.recommend import Recommender
from services.recommender.shadow import Shadow
from services.recommender.shoppers import Shoppers
from services.recommender.sources import SOURCES
from services.recommender.terms import STAGES, Stage
from settings import Settings, load_settings

NAME = "recommender"
REDIS_TIMEOUT_MS = 25.0
TRITON_SHARE = 0.7  # of the smallest model budget; the rest is for the same model in process
KEEP_WARM_S = 2.0
DECISIONS_SPOOLED = 2000  # records that may wait for Kafka, about 30 kB each


def build(settings: Settings, shared: Path | None = None) -> FastAPI:
    """Wire the process; nothing connects before the app's lifespan begins. `shared`: a folder of several workers."""
    plan = _plan(settings)
    catalogue = Catalogue(settings)
    store = OnlineStore(settings.redis, plan, timeout_ms=REDIS_TIMEOUT_MS)
    windows = ItemSnapshot(settings.redis, plan)
    publisher = KafkaPublisher(settings.kafka, client_id=NAME, linger_ms=20, max_buffer=DECISIONS_SPOOLED)
    log = DecisionLog(publisher, settings.lake, shared=shared)
    in_process = InProcess(threads=settings.threads if shared is None else 1)  # several workers are threads enough
    budgets = _budgets(settings)
    smallest = min(budgets["retrieve"], budgets["prerank"], budgets["rank"])
    triton = TritonServer(settings.triton, timeout_s=TRITON_SHARE * smallest / 1000)
    models: ModelServer = FallingBack(triton, in_process) if settings.recommender_models == "triton" else in_process
    keeper = Keeper(
        settings.published, catalogue, windows, in_process, clock=now_ms, threads=settings.threads,
        bypass=settings.gate_bypass_allowed,
    )  # fmt: skip
    recommender = Recommender(
        choose=keeper.choose, shoppers=Shoppers(store, plan), models=models, sources=SOURCES, rules=RULES,
        in_stock=keeper.in_stock, log_stalled=lambda: log.stalled, budgets_ms=budgets, feature_version=plan.version,
    )
    shadow = Shadow(recommender, lambda: keeper.roles, publisher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        catalogue.start()
        windows.start()
        await asyncio.to_thread(keeper.tick)
        await recommender.warm_up(times=3)
        gc.collect()
        gc.freeze()  # catalogue and models live on: walking their millions of objects again would stop every answer
        keeper.start()
        shadow.start()
        warm = asyncio.create_task(_keep_warm(recommender))
        structlog.get_logger().info("started", port=settings.port(NAME), features=plan.version)
        yield
        warm.cancel()
        await shadow.close()
        keeper.close()
        windows.close()
        catalogue.close()
        await models.close()
        await store.close()
        log.close()
        publisher.close()

    app = create_app(
        NAME, title="Minimart recommender", ready=keeper.missing, notes=keeper.notes, lifespan=lifespan,
        metrics=generate_latest if shared is None else partial(merged_metrics, shared),
    )  # fmt: skip
    explainer = Explainer(settings.published)
    door = AdmissionConfig(
        at_once=settings.recommender_at_once, most=settings.recommender_in_flight,
        target_ms=settings.recommender_queue_ms,
    )  # fmt: skip
    answers = Answers(
        recommender, Admission(door), now_ms, keep_ms=settings.recommender_cache_ms,
        coalesce=settings.recommender_coalesce,
    )  # fmt: skip
    add_routes(
        app, answers, log,
        explain=lambda record: explainer.explain(record, catalogue.title), shadow=shadow, lineups=keeper.describe,
    )  # fmt: skip
    return app


async def _keep_warm(recommender: Recommender) -> None:
    """A dry request now and then: a lone shopper finds connections open, and breakers close without costing anyone."""
    while True:
        await asyncio.sleep(KEEP_WARM_S)
        await recommender.warm_up(times=1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _budgets(settings: Settings) -> Mapping[Stage, float]:
    return {stage: float(getattr(settings, f"budget_{stage}_ms")) for stage in STAGES}


def _plan(settings: Settings) -> FeaturePlan:
    path = settings.features / "plan.json"
    try:
        return FeaturePlan.load(path)
    except (OSError, ValueError) as error:
        fix = "`make demo` or `python -m pipelines.apply_features` writes it"
        raise Misconfigured(f"{path}: no feature plan ({error}); {fix}") from None


def worker(shared: Path) -> FastAPI:
    """The app of one of several workers, in its own process."""
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    return build(settings, shared)


def main() -> None:
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    if settings.recommender_workers > 1:
        port, workers = settings.port(NAME), settings.recommender_workers
        sys.exit(serve_workers(worker, settings.host, port, NAME, workers, pin=settings.recommender_pin))
    try:
        app = build(settings)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr, flush=True)
        sys.exit(2)
    serve(app, settings.host, settings.port(NAME), NAME)
