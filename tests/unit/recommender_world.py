"""A shop of a few hundred products with hand-made models, and fakes that can be told to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adapters.errors import Unavailable
from adapters.model_server import SERVED, Inference, checked
from feature_repo.events import ItemListed
from models.ann_index import AnnIndex
from models.cooccurrence import Cooccurrence
from models.ranking_features import ITEM
from models.rerank import RULES
from services.recommender.lineup import Lineup
from services.recommender.recommend import Recommender
from services.recommender.roles import Choice
from services.recommender.shelf import Activity, Shelf, build_table, stock_shelf
from services.recommender.sources import SOURCES
from services.recommender.terms import Ask, Shopper

NOW = 1_750_000_000_000
HOUR = 3_600_000
BUDGETS = {"retrieve": 60.0, "features": 40.0, "prerank": 60.0, "rank": 80.0, "rerank": 200.0}
VERSIONS = dict.fromkeys(("two-tower", "index", "cooccurrence", "popularity", "preranker", "ranker"), "1")


def listed(item_id: str, *, stock: int = 10, age_hours: float = 1000.0, category: str = "Tea", promoted: bool = False,
           price_cents: int = 1500, adult: bool = False) -> ItemListed:
    at = NOW - int(age_hours * HOUR)
    return ItemListed(event_id=f"e-{item_id}", event_time=at, item_id=item_id, title=item_id, category=category,
                      price_cents=price_cents, seller_id="s1", listed_at=at, stock=stock, promoted=promoted,
                      adult=adult)


def catalogue_of(n: int, *, out_of_stock: int = 0, new: int = 0) -> list[ItemListed]:
    """n known items i0.., of which the first are out of stock, and `new` more that the models do not know."""
    old = [listed(f"i{j}", stock=0 if j < out_of_stock else 5, category=f"c{j % 5}") for j in range(n)]
    return old + [listed(f"n{j}", age_hours=j + 0.5, category=f"c{j % 5}") for j in range(new)]


def lineup_of(n: int, *, d: int = 64, seed: int = 0) -> Lineup:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    neighbours = np.array([rng.permutation(n)[:20] for _ in range(n)] if n >= 20 else [[-1] * 20] * n, np.int32)
    items = tuple(f"i{j}" for j in range(n))
    scores = np.tile(np.linspace(1, 0.1, 20, dtype=np.float32), (n, 1))
    return Lineup(
        versions=VERSIONS, items=items, row_of={item: row for row, item in enumerate(items)}, users={"u1": 1},
        categories={f"c{j}": j + 1 for j in range(5)}, tower_rows=np.arange(1, n + 1), index=AnnIndex.build(vectors),
        cooccurrence=Cooccurrence(neighbours.reshape(n, 20), scores),
        popularity=rng.random(n),
    )


def shelf_of(lineup: Lineup, items: list[ItemListed]) -> Shelf:
    table = build_table(lineup, items, 1)
    rng = np.random.default_rng(1)
    columns = {name: rng.integers(0, 9, len(table.ids)).astype(np.float64) for name in ITEM}
    rows = np.arange(len(table.ids))
    return stock_shelf(table, Activity(columns, rows, rows, len(rows)), NOW)


@dataclass
class FakeModels:
    """Scores by the first feature's place; `broken` model -> "away" | "hangs" | "nan" | "shape" | "raises"."""

    broken: dict[str, str] = field(default_factory=dict)
    fell_back: bool = False

    async def infer(self, model: str, version: str, inputs: Mapping[str, Any]) -> Inference:
        rows = len(next(iter(inputs.values())))
        match self.broken.get(model):
            case "away":
                raise Unavailable(f"{model} is away")
            case "hangs":
                await asyncio.sleep(30)
            case "raises":
                raise RuntimeError("a bug")
            case "nan":
                return Inference(checked(model, rows, np.full((rows, SERVED[model].width), np.nan), "fake"))
            case "shape":
                return Inference(checked(model, rows, np.zeros((rows, 3)), "fake"))
        values = np.random.default_rng(rows).normal(size=(rows, SERVED[model].width)).astype(np.float32)
        if model == "two_tower_user":
            values /= np.linalg.norm(values, axis=1, keepdims=True)
        return Inference(values, self.fell_back)

    async def close(self) -> None:
        """Nothing to release."""


@dataclass
class FakeShoppers:
    """One known shopper, u1; `broken`: "" | "away" | "hangs" | "raises"."""

    broken: str = ""

    async def who(self, user_id: str, categories: Sequence[str], now_ms: int) -> Shopper:
        await self._maybe_fail()
        if user_id != "u1":
            return Shopper(user_id)
        return Shopper(user_id, {"user_clicks_count_1h": 3.0}, ("i7", "i9", "gone"), seen_before=True)

    async def tastes(self, user_id: str, categories: list[str], now_ms: int) -> dict[str, Any]:
        await self._maybe_fail()
        return {"uc_clicks_count_1h": np.arange(len(categories), dtype=np.float64)}

    async def _maybe_fail(self) -> None:
        match self.broken:
            case "away":
                raise Unavailable("redis is away")
            case "hangs":
                await asyncio.sleep(30)
            case "raises":
                raise RuntimeError("a bug")


def recommender_of(shelf: Shelf, *, models: Any = None, shoppers: Any = None, stalled: bool = False,
                   **changes: Any) -> Recommender:
    stock = {shelf.table.ids[row]: bool(shelf.table.sellable[row]) for row in range(len(shelf.table.ids))}
    wiring: dict[str, Any] = {
        "choose": lambda _: Choice(shelf), "shoppers": shoppers or FakeShoppers(), "models": models or FakeModels(),
        "sources": SOURCES, "rules": RULES, "in_stock": lambda item: stock.get(item, False),
        "log_stalled": lambda: stalled, "budgets_ms": BUDGETS, "feature_version": "f" * 12,
    }
    return Recommender(**(wiring | changes))


def ask(user_id: str = "u1", k: int = 20) -> Ask:
    return Ask("r-1", user_id, NOW, k)


def valid(decision: Any, shelf: Shelf, k: int) -> None:
    """The promise: min(k, what there is) distinct products that can be bought, numbered, with finite scores."""
    ids = [p.item_id for p in decision.placed]
    sellable = {shelf.table.ids[row] for row in np.flatnonzero(shelf.table.sellable)}
    assert len(ids) == len(set(ids)) == min(k, len(sellable))
    assert set(ids) <= sellable
    assert [p.position for p in decision.placed] == list(range(1, len(ids) + 1))
    assert all(np.isfinite(p.score) for p in decision.placed)
    assert all(p.sources for p in decision.placed)
