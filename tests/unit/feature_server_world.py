"""A feature server between fakes: the declared plan, rows in memory, a clock that stands still."""

from __future__ import annotations

import random
from pathlib import Path

import httpx
from fastapi import FastAPI

from adapters.breaker import Breaker
from adapters.online_rows import Attributes, MemoryRows
from adapters.web import create_app
from feature_repo.plan import FeaturePlan
from feature_repo.service_versions import FeatureServices, compile_services
from services.feature_server.answer import Answers
from services.feature_server.api import add_routes
from services.feature_server.asks import Asks
from services.feature_server.last_known import LastKnown
from services.feature_server.listing import listing
from services.feature_server.rpc import FeatureRpc
from tests.unit.tile_worlds import packed_key

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
NOW = 1_790_000_000_000


class FeatureWorld:
    """`rows` is the store; `now` moves the clock; the breaker rests for a second."""

    def __init__(self, *, cache_bytes: int = 1 << 20) -> None:
        rng = random.Random(5)
        self.now = NOW
        self.services: FeatureServices = compile_services(PLAN)
        self.rows = MemoryRows()
        self.rows.stored = {
            "user_activity": {(f"u{i}",): packed_key(PLAN.view("user_activity"), rng, NOW, 20) for i in range(3)},
            "item_activity": {(f"i{i}",): packed_key(PLAN.view("item_activity"), rng, NOW, 20) for i in range(6)},
            "item_attributes": {(f"i{i}",): Attributes(NOW - 1000 * i, (f"c{i}", 100 + i, "s", NOW - 5, False))
                                for i in range(6)},
        }
        self.last_known = LastKnown(cache_bytes)
        self.breaker = Breaker(threshold=2, rest_s=1.0, clock=lambda: self.now / 1000)
        self.answers = Answers(PLAN, self.rows, self.last_known, clock=lambda: self.now, breaker=self.breaker)
        self.asks = Asks(PLAN, self.services)

    def app(self) -> FastAPI:
        app = create_app("feature_server", title="Minimart feature server", ready=dict)
        add_routes(app, self.asks, self.answers, clock=lambda: self.now,
                   services=lambda: listing(self.services, self.asks, {}))
        return app

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app()), base_url="http://features")

    def rpc(self) -> FeatureRpc:
        return FeatureRpc(self.asks, self.answers, clock=lambda: self.now,
                          services=lambda: listing(self.services, self.asks, {}), feature_set=PLAN.version)
