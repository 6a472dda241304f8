"""A tiny marketplace around the shop, in memory: a recommender that reacts to clicks, a collector, features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from adapters.decision_log import pack_features
from adapters.errors import Unavailable
from adapters.http_guard import uuid7
from feature_repo.events import ItemListed
from models.ranking_features import FEATURES, FEATURES_SHA
from services.shop.main import Neighbours, build
from services.shop.shoppers import Suggestion
from settings import Settings

CATEGORIES = (
    "Coffee & Tea",
    "Kitchen",
    "Books",
    "Headphones",
    "Running",
    "Camping",
    "Garden",
    "Skin Care",
    "Shoes",
    "Toys",
    "Cycling",
    "Home Decor",
    "Bedding",
    "Clothing",
    "Computers",
    "Pet Supplies",
)
NOUNS = ("Kettle", "Table Lamp", "Detective Novel", "Studio Headphones", "Running Shoes", "Tent", "Planter", "Serum")
SOURCES = ("two_tower", "cooccurrence", "trending", "new_items")
START_MS = 1_760_000_000_000


class FakeCatalogue:
    ready = True

    def __init__(self, n: int = 120) -> None:
        self.items = {
            f"i{k:04d}": ItemListed(
                event_id=f"e{k}",
                event_time=START_MS,
                item_id=f"i{k:04d}",
                title=f"Norvik Vintage {NOUNS[k % 8]} {k}",
                category=CATEGORIES[k % len(CATEGORIES)],
                price_cents=199 + k * 137,
                seller_id=f"s{k % 7}",
                listed_at=START_MS,
                stock=0 if k == 7 else 10,
            )
            for k in range(n)
        }

    def start(self) -> None: ...
    def close(self) -> None: ...

    def get(self, item_id: str) -> ItemListed | None:
        return self.items.get(item_id)

    def learn(self, states: Sequence[ItemListed]) -> None:
        self.items |= {state.item_id: state for state in states}

    def snapshot(self) -> tuple[ItemListed, ...]:
        return tuple(self.items.values())


class FakeFeatures:
    """Counts the clicks that the fake collector took in."""

    def __init__(self) -> None:
        self.clicks: dict[str, list[str]] = {}
        self.away = False

    async def windows(self, user_id: str) -> dict[str, Any]:
        if self.away:
            raise Unavailable("away")
        clicks = self.clicks.get(user_id, [])
        counts = {f"user_clicks_count_{w}": len(clicks) for w in ("5m", "1h", "24h", "7d")}
        return {**counts, "user_recent_items": list(dict.fromkeys(reversed(clicks)))}

    async def close(self) -> None: ...


class FakeSuggestions:
    def start(self) -> None: ...
    def close(self) -> None: ...

    def all(self) -> Sequence[Suggestion]:
        return tuple(
            Suggestion(f"u{k:05d}", (CATEGORIES[k], CATEGORIES[k + 3]), (f"i{k:04d}", f"i{k + 16:04d}"), 20 + k)
            for k in range(8)
        )


class World:
    """The fakes together, and the shop between them. Set `broken` to the names of neighbours that are away."""

    def __init__(self) -> None:
        self.catalogue, self.features = FakeCatalogue(), FakeFeatures()
        self.events: list[dict[str, Any]] = []
        self.broken: set[str] = set()
        self.degraded: list[str] = []
        self.decisions: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, Any]] = []

    def app(self) -> FastAPI:
        neighbours = Neighbours(
            catalogue=self.catalogue,
            recommender=self._client(self._recommender),  # type: ignore[arg-type]
            collector=self._client(self._collector),
            features=self.features,  # type: ignore[arg-type]
            suggestions=FakeSuggestions(),
        )
        return build(Settings(), neighbours)

    def _client(self, handle: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://neighbour")

    def _recommender(self, request: httpx.Request) -> httpx.Response:
        if "recommender" in self.broken:
            raise httpx.ConnectError("refused")
        if request.method == "GET":
            found = self.decisions.get(request.url.path.rsplit("/", 1)[1])
            return httpx.Response(200, json=found) if found else httpx.Response(404, json={"title": "Not found"})
        body = json.loads(request.content)
        self.asked.append(body)
        return httpx.Response(200, json=self._recommend(body["user_id"], body["k"]))

    def _recommend(self, user_id: str, k: int) -> dict[str, Any]:
        clicks, request_id = self.features.clicks.get(user_id, []), uuid7()
        offset = 5 * len(clicks)
        ids = [i for i in list(self.catalogue.items)[offset:] if i not in clicks]
        items = [
            {"item_id": i, "score": 1 - n / 50, "sources": [SOURCES[n % 4]], "position": n + 1, "new": n % 9 == 3}
            for n, i in enumerate(ids[:k])
        ]
        versions = {"two-tower": "3", "index": "3", "preranker": "2", "ranker": "5", "features": "a1b2c3d4e5f6"}
        timings = {"retrieve": 8.2, "features": 3.1, "prerank": 6.4, "rank": 9.7, "rerank": 1.2, "total": 29.4}
        self.decisions[request_id] = {
            "request_id": request_id,
            "user_id": user_id,
            "model_versions": versions,
            "items": items,
            "candidates": {
                "item_ids": ids,
                "sources": [1 << (n % 4) for n in range(len(ids))],
                "source_names": SOURCES,
            },
            "prerank": {"item_ids": ids, "scores": [1 - n / 99 for n in range(len(ids))]},
            "rank": {
                "item_ids": ids[:40],
                "scores": [2 - n / 20 for n in range(len(ids[:40]))],
                "feature_names_sha": FEATURES_SHA,
                "features_base64": pack_features(_rows(len(ids[:40]))),
            },
            "rerank": [{**i, "moved_by": ["mmr"] if i["position"] % 3 == 0 else []} for i in items],
        }
        return {
            "request_id": request_id,
            "items": items,
            "model_versions": versions,
            "timings_ms": timings,
            "degraded": self.degraded,
            "cold_start": None if clicks or not user_id.startswith("visitor") else "new_visitor",
        }

    def _collector(self, request: httpx.Request) -> httpx.Response:
        if "collector" in self.broken:
            raise httpx.ConnectError("refused")
        events = json.loads(request.content)
        self.events += events
        for event in events:
            if event["type"] == "product_clicked":
                self.features.clicks.setdefault(event["user_id"], []).append(event["item_id"])
        return httpx.Response(202, json={"accepted": len(events), "refused": []})


def _rows(n: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(1).gamma(2.0, 2.0, (n, len(FEATURES))).astype(np.float32)
    rows[:, :3] = np.round(rows[:, :3])
    return rows
