"""Our HTTP apps with fakes for neighbours, for tests of the HTTP edge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from adapters.decision_log import DecisionLog
from adapters.kafka import MemoryPublisher
from adapters.web import create_app
from services.collector.api import add_routes
from services.recommender.admission import Admission, AdmissionConfig
from services.recommender.answers import Answers
from services.recommender.api import add_routes as add_recommender_routes
from services.recommender.main import now_ms
from tests.unit.feature_server_world import FeatureWorld
from tests.unit.recommender_world import catalogue_of, lineup_of, recommender_of, shelf_of
from tests.unit.shop_fakes import FakeCatalogue, World


class QuietSink:
    """Takes every decision and keeps none."""

    outstanding = 0

    def publish(self, topic: str, key: str, value: bytes, *, timestamp_ms: int | None = None) -> None: ...

    def stalled_s(self) -> float:
        return 0.0


def collector() -> FastAPI:
    app = create_app("collector", title="Minimart collector", ready=lambda: {})
    add_routes(app, FakeCatalogue(), MemoryPublisher())  # type: ignore[arg-type]
    return app


def shop() -> FastAPI:
    return World().app()


def recommender() -> FastAPI:
    app = create_app("recommender", title="Minimart recommender", ready=lambda: {})
    shelf = shelf_of(lineup_of(300), catalogue_of(300, out_of_stock=10, new=5))
    log = DecisionLog(QuietSink(), Path("no-lake-here"))
    add_recommender_routes(app, Answers(recommender_of(shelf), Admission(AdmissionConfig(most=64)), now_ms), log)
    return app


def feature_server() -> FastAPI:
    return FeatureWorld().app()


APPS: dict[str, Callable[[], FastAPI]] = {
    "recommender": recommender, "collector": collector, "shop": shop, "feature_server": feature_server,
}
