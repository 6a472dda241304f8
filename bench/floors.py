"""What one request costs at least: the kernels that the funnel calls, each measured alone, in CPU milliseconds.

The search of the index, the three ONNX models, and the read of a shopper's packed tiles with their unpacking. What the
recommender uses beyond their sum is its own overhead: HTTP, JSON, putting rows together, the record of the decision.
Each is measured on an idle machine, and again while another process does the same: two threads of one core, or two
cores with one memory, are not twice as quick as one. Beside them what it costs to keep the shelf as new as the
catalogue, once a second in every process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np

from adapters.catalogue import newest_states
from adapters.model_server import InProcess, open_session
from adapters.online_store import OnlineStore
from adapters.pointers import load_current
from bench.funnel_world import CATEGORIES, World, ranking_rows
from models.ann_index import AnnIndex
from models.ranking_features import ITEM
from models.retrieval import SIZES
from services.recommender.lineup import load_lineup
from services.recommender.shelf import Activity, Table, activity_of, amended, build_table, stock_shelf
from services.recommender.shoppers import Shoppers

RUNS: Final = 200
WARM: Final = 20
POOL, RANKED, RECENT = 1000, 200, 20


def floors(world: World, redis_url: str, *, runs: int = RUNS) -> dict[str, float]:
    """Kernel -> mean CPU milliseconds of one call, on one thread."""
    bundles = load_current(world.home / "published")
    rng = np.random.default_rng(1)
    rows = ranking_rows(world.plan, world.scale, 20, POOL, seed=1)
    users = rng.integers(1, world.scale.users + 1, runs)
    recent = rng.integers(1, world.scale.items + 1, (runs, RECENT))
    encoder = open_session(bundles["two-tower"].path("user_encoder.onnx"))
    prerank = open_session(bundles["preranker"].path("model.onnx"))
    rank = open_session(bundles["ranker"].path("model.onnx"))
    index = AnnIndex.load(bundles["index"].path("items.faiss"), threads=1)

    def encode(i: int) -> Any:
        return encoder.run(["embedding"], {"user_index": users[i : i + 1], "recent_items": recent[i : i + 1]})[0]

    queries = np.concatenate([encode(i) for i in range(runs)])
    found = {
        "user encoder (ONNX)": _mean_ms(encode, runs),
        f"search, {SIZES['two_tower']} of {world.scale.items:,} (FAISS)": _mean_ms(
            lambda i: index.search(queries[i : i + 1], SIZES["two_tower"]), runs
        ),
        f"pre-ranker, {POOL} rows (ONNX)": _mean_ms(
            lambda i: prerank.run(["score"], {"features": rows[i % len(rows)]}), runs
        ),
        f"ranker, {RANKED} rows (ONNX)": _mean_ms(
            lambda i: rank.run(["score"], {"features": rows[i % len(rows), :RANKED]}), runs
        ),
        "packed tiles (Redis, unpacked)": asyncio.run(_reads(world, redis_url, runs)),
    }
    return {name: round(value, 3) for name, value in found.items()}


def crowded(world: World, redis_url: str, *, runs: int = RUNS) -> dict[str, float]:
    """The same while a process for every other core does the same."""
    n = max(2, os.cpu_count() or 1)
    light = replace(world, embeddings=world.embeddings[:0])
    with ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn")) as pool:
        all_of_them = list(pool.map(_one_of_many, [light] * n, [redis_url] * n, [runs] * n))
    return {name: round(float(np.mean([one[name] for one in all_of_them])), 3) for name in all_of_them[0]}


def _one_of_many(world: World, redis_url: str, runs: int) -> dict[str, float]:
    return floors(world, redis_url, runs=runs)


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


def renewals(world: World, *, runs: int = 10) -> dict[str, float]:
    """What happens to a shelf -> mean CPU milliseconds of its renewal: whole, and by what has changed."""
    lineup = load_lineup(load_current(world.home / "published"), InProcess())
    items, now_ms, rng = newest_states(world.home / "lake"), time.time_ns() // 1_000_000, np.random.default_rng(3)
    table, touched = build_table(lineup, items, 1), [item.item_id for item in items[: world.scale.touched]]

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
        "new models": _mean_ms(lambda _: build_table(lineup, items, 1), 1, warm=0),
        "one product sold out": _mean_ms(sold, runs),
        "one product listed": _mean_ms(listed, runs),
        f"windows of {len(touched):,} products": _mean_ms(renewed, runs),
        "nothing": _mean_ms(lambda _: stock_shelf(table, first, now_ms, shelf), runs),
    }
    return {name: round(value, 3) for name, value in found.items()}


async def _reads(world: World, redis_url: str, runs: int) -> float:
    store, now_ms = OnlineStore(redis_url, world.plan, timeout_ms=10_000), time.time_ns() // 1_000_000
    shoppers, categories = Shoppers(store, world.plan), [f"c{c}" for c in range(CATEGORIES)]

    async def read(i: int) -> None:
        await shoppers.who(f"u{i * 31 % world.scale.users}", categories, now_ms)

    value = await _mean_ms_async(read, runs)
    await store.close()
    return value


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
