"""What one request costs at least: the kernels that the funnel calls, each measured alone, in CPU milliseconds.

The search of the index, the three ONNX models, and the read of a shopper's packed tiles with their unpacking. What the
recommender uses beyond their sum is its own overhead: HTTP, JSON, putting rows together, the record of the decision.
Each is measured by itself, where it finds all that it needs in the caches from the call before, and all of them one
after the other, as a request needs them. Beside them the whole decision in one process and its record, and what it
costs to keep the shelf as new as the catalogue, once a second in every process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.catalogue import newest_states
from adapters.decision_log import packed
from adapters.model_server import InProcess, open_session
from adapters.online_store import ItemSnapshot, OnlineStore
from adapters.pointers import load_current
from bench.funnel_world import CATEGORIES, World, ranking_rows
from feature_repo.events import ItemListed
from models.ann_index import AnnIndex
from models.ranking_features import ITEM
from models.rerank import RULES
from models.retrieval import SIZES
from services.recommender.lineup import load_lineup
from services.recommender.recommend import Recommender
from services.recommender.record import to_record
from services.recommender.roles import Choice
from services.recommender.shelf import Activity, Table, activity_of, amended, build_table, stock_shelf
from services.recommender.shoppers import Shoppers
from services.recommender.sources import SOURCES
from services.recommender.terms import STAGES, Ask, Decision

RUNS: Final = 200
WARM: Final = 20
POOL, RANKED, RECENT = 1000, 200, 20


def floors(world: World, redis_url: str, *, runs: int = RUNS) -> tuple[dict[str, float], float]:
    """Kernel -> mean CPU milliseconds of one call, on one thread; and of all of them one after the other."""
    return asyncio.run(_floors(world, redis_url, runs))


async def _floors(world: World, redis_url: str, runs: int) -> tuple[dict[str, float], float]:
    bundles, rng, now_ms = load_current(world.home / "published"), np.random.default_rng(1), _now_ms()
    rows = ranking_rows(world.plan, world.scale, 20, POOL, seed=1)
    users = rng.integers(1, world.scale.users + 1, runs)
    recent = rng.integers(1, world.scale.items + 1, (runs, RECENT))
    encoder = open_session(bundles["two-tower"].path("user_encoder.onnx"))
    prerank = open_session(bundles["preranker"].path("model.onnx"))
    rank = open_session(bundles["ranker"].path("model.onnx"))
    index = AnnIndex.load(bundles["index"].path("items.faiss"), threads=1)
    store = OnlineStore(redis_url, world.plan, timeout_ms=10_000)
    shoppers, categories = Shoppers(store, world.plan), [f"c{c}" for c in range(CATEGORIES)]

    def encoded(i: int) -> NDArray[np.float32]:
        found: NDArray[np.float32] = encoder.run(
            ["embedding"], {"user_index": users[i : i + 1], "recent_items": recent[i : i + 1]}
        )[0]
        return found

    queries = np.concatenate([encoded(i) for i in range(runs)])

    async def encode(i: int) -> None:
        encoded(i)

    async def search(i: int) -> None:
        index.search(queries[i : i + 1], SIZES["two_tower"])

    async def prerank_all(i: int) -> None:
        prerank.run(["score"], {"features": rows[i % len(rows)]})

    async def rank_best(i: int) -> None:
        rank.run(["score"], {"features": rows[i % len(rows), :RANKED]})

    async def read(i: int) -> None:
        await shoppers.who(f"u{i * 31 % world.scale.users}", categories, now_ms)

    kernels = {
        "user encoder (ONNX)": encode,
        f"search, {SIZES['two_tower']} of {world.scale.items:,} (FAISS)": search,
        f"pre-ranker, {POOL} rows (ONNX)": prerank_all,
        f"ranker, {RANKED} rows (ONNX)": rank_best,
        "packed tiles (Redis, unpacked)": read,
    }

    async def in_a_row(i: int) -> None:
        for kernel in kernels.values():
            await kernel(i)

    found = {name: round(await _mean_ms_async(kernel, runs), 3) for name, kernel in kernels.items()}
    row = round(await _mean_ms_async(in_a_row, runs), 3)
    await store.close()
    return found, row


def recall(world: World, k: int, queries: int = 200) -> float:
    """Recall of the published index at `k` against exact search, for shoppers' own embeddings."""
    bundles = load_current(world.home / "published")
    encoder = open_session(bundles["two-tower"].path("user_encoder.onnx"))
    rng = np.random.default_rng(2)
    asked = {
        "user_index": rng.integers(1, world.scale.users + 1, queries),
        "recent_items": rng.integers(1, world.scale.items + 1, (queries, RECENT)),
    }
    vectors = encoder.run(["embedding"], asked)[0]
    k = min(k, world.scale.items)
    found = AnnIndex.load(bundles["index"].path("items.faiss"), threads=2).search(vectors, k)[1]
    shares = []
    for part, rows in zip(np.array_split(vectors, 10), np.array_split(found, 10), strict=True):
        exact = np.argpartition(-(part @ world.embeddings.T), k - 1, axis=1)[:, :k]
        shares += [len(np.intersect1d(a, b)) / k for a, b in zip(exact, rows, strict=True)]
    return float(np.mean(shares))


@dataclass(frozen=True)
class Prepared:
    """A shelf as a recommender of its own process has it, without windows, and what it was made of."""

    in_process: InProcess
    items: list[ItemListed]
    table: Table


def prepared(world: World) -> Prepared:
    """Load the published models and the catalogue; a quarter of a minute at a million items."""
    in_process, items = InProcess(), newest_states(world.home / "lake")
    lineup = load_lineup(load_current(world.home / "published"), in_process)
    return Prepared(in_process, items, build_table(lineup, items, 1))


def own_steps(world: World, redis_url: str, ready: Prepared, *, runs: int = RUNS) -> dict[str, float]:
    """Step -> mean CPU milliseconds of one request alone in a process: the whole decision, kernels included, and its
    record as it goes to Kafka."""
    return asyncio.run(_own_steps(world, redis_url, ready, runs))


async def _own_steps(world: World, redis_url: str, ready: Prepared, runs: int) -> dict[str, float]:
    now_ms = _now_ms()
    snapshot, store = ItemSnapshot(redis_url, world.plan), OnlineStore(redis_url, world.plan, timeout_ms=10_000)
    snapshot.refresh(now_ms)
    windows = snapshot.columns(now_ms), snapshot.items, snapshot.row_of
    shelf = stock_shelf(ready.table, activity_of(ready.table, *windows, Activity()), now_ms)
    stock = {item.item_id: item.stock > 0 for item in ready.items}
    recommender = Recommender(
        choose=lambda _: Choice(shelf), shoppers=Shoppers(store, world.plan), models=ready.in_process, sources=SOURCES,
        rules=RULES, in_stock=stock.__getitem__, log_stalled=lambda: False, budgets_ms=dict.fromkeys(STAGES, 10_000.0),
        feature_version=world.plan.version,
    )  # fmt: skip
    rng = np.random.default_rng(11)
    users = [f"u{user}" for user in rng.integers(0, world.scale.users, runs).tolist()]
    decisions: list[Decision] = []

    async def decide(i: int) -> None:
        decisions.append(await recommender.recommend(Ask(f"r{i}", users[i], now_ms)))

    found = {
        "decision, kernels included": await _mean_ms_async(decide, runs),
        "record": _mean_ms(lambda i: packed(to_record(decisions[i])), runs),
    }
    await store.close()
    snapshot.close()
    return {name: round(value, 3) for name, value in found.items()}


def renewals(world: World, ready: Prepared, *, runs: int = 10) -> dict[str, float]:
    """What happens to a shelf -> mean CPU milliseconds of its renewal: whole, and by what has changed."""
    table, items, now_ms, rng = ready.table, ready.items, _now_ms(), np.random.default_rng(3)
    touched = [item.item_id for item in items[: world.scale.touched]]

    def windows() -> dict[str, Any]:
        return {name: rng.integers(0, 9, len(touched)).astype(np.float64) for name in ITEM}

    def sold(i: int) -> Table | None:
        item = items[i]
        return amended(table, {item.item_id: msgspec.structs.replace(item, stock=0 if item.stock else 1)}, 2)

    def listed(i: int) -> Table | None:
        item = msgspec.structs.replace(items[i], item_id=f"new-{i}")
        return amended(table, {item.item_id: item}, 2)

    first = activity_of(table, windows(), touched, lambda _: -1, Activity())
    shelf, many = stock_shelf(table, first, now_ms), [windows() for _ in range(runs + WARM)]

    def renewed(i: int) -> None:
        stock_shelf(table, activity_of(table, many[i], touched, lambda _: -1, first), now_ms, shelf)

    found = {
        "new models": _mean_ms(lambda _: build_table(table.lineup, items, 1), 1, warm=0),
        "one product sold out": _mean_ms(sold, runs),
        "one product listed": _mean_ms(listed, runs),
        f"windows of {len(touched):,} products": _mean_ms(renewed, runs),
        "nothing": _mean_ms(lambda _: stock_shelf(table, first, now_ms, shelf), runs),
    }
    return {name: round(value, 3) for name, value in found.items()}


def _mean_ms(call: Callable[[int], Any], runs: int, warm: int = WARM) -> float:
    for i in range(min(warm, runs)):
        call(i)
    begun = time.process_time()
    for i in range(runs):
        call(i)
    return 1000 * (time.process_time() - begun) / runs


async def _mean_ms_async(call: Callable[[int], Awaitable[None]], runs: int) -> float:
    for i in range(min(WARM, runs)):
        await call(i)
    begun = time.process_time()
    for i in range(runs):
        await call(i)
    return 1000 * (time.process_time() - begun) / runs


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
