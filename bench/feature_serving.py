"""How fast features are served, beside Feast's SDK on the same Redis: `python -m bench.feature_serving`.

One request is 1 shopper with 100 features and 200 items with 20 each, and, apart, the 200 items alone. Measured in one
run, in turns: ours in process and over gRPC; Feast's SDK on the same tiles; Feast's SDK on the same values as plain
columns, without and with `precompute_online` (these are frozen at the moment of writing: they do not decay). Before
anything is timed all of them must give equal values. Feast is asked in its cheapest way, one call per entity. The floor
is what cannot be saved: the same rows read from Redis in one pipeline, and nothing done with them.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from feast import FeatureStore

from adapters.feature_client import FeatureClient
from adapters.feature_state import FeatureState
from adapters.online_rows import OnlineRows
from bench import feature_world as world
from bench.samples import percentiles
from feature_repo import tiles
from feature_repo.declare import over, stream_view
from feature_repo.service_versions import compile_services
from pipelines.stack.launch import free_ports
from services.feature_server.answer import Answers
from services.feature_server.asks import Asks
from services.feature_server.last_known import LastKnown
from services.feature_server.rpc import FeatureRpc, start

NAME: Final = "feature_serving"
SERVICES: Final = {"serving": ("bench_user", "bench_item"), "items": ("bench_item",), "users": ("bench_user",)}
Columns = Mapping[str, Any]  # name -> a sequence of values


def item_view() -> Any:
    """20 features of an item, as the shop declares them."""
    return stream_view(
        "bench_item", [world.item], "item", description="", tags={},
        columns={"clicks": "shop.clicks", "price": "shop.clicks:price_cents", "clickers": "shop.clicks:user_id"},
        features=[over("clicks", "count", "5m 1h 24h 7d"), over("price", "sum", "5m 1h 24h 7d"),
                  over("price", "mean", "1h 24h 7d"), over("price", "min", "24h 7d"), over("price", "max", "24h 7d"),
                  over("clickers", "distinct", "1h 24h 7d"), over("price", "std", "24h 7d")])


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Fill a Redis, check that all give the same, time them in turns."""
    items, calls, slow = (20, 5, 2) if asked.quick else (200, asked.calls, asked.feast_calls)
    user = world.group("bench_user", world.shopper, "user")
    declared = world.declare([(user, world.shopper), (item_view(), world.item)], SERVICES, plain=True)
    now = int(time.time() * 1000)
    with world.redis_of_its_own(folder) as url:
        state, say = FeatureState(url, declared.plan), world.progress()
        size = {v.name: world.fill(state, v, world.histories(v, n, 40, now, asked.seed), now, say) / n
                for v, n in zip(declared.plan.declared_views, (20, items), strict=True)}
        freeze(state, declared, now, items)
        world.mark_whole(state)
        store = world.feast_store(folder / "feast", url, declared)
        for service in ("bench_user_precomputed", "bench_item_precomputed"):
            store.precompute_feature_service(service)
        samples = asyncio.run(compare(url, declared, store, now, items, calls, slow))
    return {"items": items, "packed_bytes": size, "samples": samples, **figures(samples)}


def freeze(state: FeatureState, declared: world.Declared, now: int, items: int) -> None:
    """The values at `now` once more as plain Feast columns."""
    for view, keys in zip(declared.plan.declared_views, (20, items), strict=True):
        names = [(f"k{i}",) for i in range(keys)]
        packed = state.states([(view.name, key) for key in names])
        columns = tiles.columns(view, packed, now)
        kinds = {f.name: int if f.aggregation.dtype == "int64" else float for f in view.declared}
        state.put_attributes(f"{view.name}_plain", view.join_keys, (
            (key, now, {n: kinds[n](c[i]) for n, c in columns.items()}) for i, key in enumerate(names)))


async def compare(url: str, declared: world.Declared, store: FeatureStore, now: int, items: int, calls: int, slow: int
                  ) -> dict[str, list[float]]:
    """Milliseconds of every call by what was asked and who answered."""
    rows = OnlineRows(url, declared.plan, partitions=world.PARTITIONS, timeout_ms=5_000)
    answers = Answers(declared.plan, rows, LastKnown(64 << 20), clock=lambda: now)
    asks = Asks(declared.plan, compile_services(declared.plan))
    (port,) = free_ports(1)
    rpc = FeatureRpc(asks, answers, clock=lambda: now, services=list, feature_set=declared.plan.version)
    server, client = await start(rpc, f"{world.HOST}:{port}"), FeatureClient(f"{world.HOST}:{port}", timeout_s=10)
    users, names = ["k3"], [f"k{i}" for i in range(items)]
    entities = {"serving": {"user_id": users, "item_id": names}, "items": {"item_id": names}}

    wanted = {"serving": [("bench_user", [("k3",)]), ("bench_item", [(n,) for n in names])],
              "items": [("bench_item", [(n,) for n in names])]}  # fmt: skip

    async def redis_alone(what: str) -> Any:
        return await rows.read(wanted[what])

    async def in_process(what: str) -> Columns:
        found = await answers.answer(asks.ask(what, [], entities[what], now, now))
        return {c.name: c.values for v in found.views for c in v.columns}

    async def over_grpc(what: str) -> Columns:
        return (await client.features(what, entities[what], at_ms=now)).columns

    def of_feast(kind: str) -> Callable[[str], Columns]:
        services = {part: store.get_feature_service(name(part, kind)) for part in ("users", "items")}

        def ask(what: str) -> Columns:
            found: dict[str, Any] = {}
            for part, key, keys in (("users", "user_id", users), ("items", "item_id", names)):
                if part == "items" or what == "serving":
                    rows = [{key: k} | ({"now_ms": now} if kind == "tiles" else {}) for k in keys]
                    # Vectors are kept under full names, and are found under full names only.
                    answer = store.get_online_features(services[part], rows, full_feature_names=kind == "precomputed")
                    found |= {column.rpartition("__")[2]: values for column, values in answer.to_dict().items()}
            return found

        return ask

    rivals = {f"feast {kind}": of_feast(kind) for kind in ("tiles", "plain", "precomputed")}
    samples: dict[str, list[float]] = {}
    try:
        for what in ("serving", "items"):
            truth = await in_process(what)
            same(truth, await over_grpc(what), f"gRPC, {what}")
            for rival, ask in rivals.items():
                same(truth, ask(what), f"{rival}, {what}")
            for ours, ask_ours in (("floor, Redis alone", redis_alone), ("ours, in process", in_process),
                                   ("ours, gRPC", over_grpc)):  # fmt: skip
                samples[f"{what}: {ours}"] = await timed(ask_ours, what, calls)
            for rival, ask in rivals.items():
                print(f"  {what}: {rival}", flush=True)
                samples[f"{what}: {rival}"] = world.timed(partial(ask, what), slow, before=1)
    finally:
        await client.close()
        await server.stop(None)
        await rows.close()
    return samples


def name(part: str, kind: str) -> str:
    """What the feature service of a rival is called."""
    return part if kind == "tiles" else f"bench_{part.removesuffix('s')}_{kind}"


async def timed(ask: Callable[[str], Any], what: str, calls: int) -> list[float]:
    out = []
    for i in range(calls + 20):
        began = time.perf_counter()
        await ask(what)
        if i >= 20:
            out.append(round((time.perf_counter() - began) * 1e3, 4))
    return out


def same(ours: Columns, other: Columns, who: str) -> None:
    """Raise unless every value is equal; Feast says None or NaN for a value that is missing."""
    for name, column in ours.items():
        theirs = other[name]
        assert len(theirs) == len(column), f"{who}: {name} has {len(theirs)} rows"
        for a, b in zip(np.asarray(column).tolist(), list(theirs), strict=True):
            a = math.nan if a is None else a
            b = math.nan if b is None else float(b)
            assert math.isclose(a, b, rel_tol=1e-9) or (math.isnan(a) and math.isnan(b)), f"{who}: {name}: {a} {b}"


def figures(samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """P50, P95, P99 of each, and how many times as long each rival took for the items alone (by medians)."""
    ours = float(np.median(samples["items: ours, in process"]))
    rivals = [key for key in samples if key.startswith("items: feast")]
    return {
        "latency_ms": {key: percentiles(np.array(values)) for key, values in samples.items()},
        "times_ours_at_items": {key.removeprefix("items: "): round(float(np.median(samples[key])) / ours, 1)
                                for key in rivals},
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=int, default=2_000, help="of ours, of each kind")
    parser.add_argument("--feast-calls", type=int, default=100, help="of each rival, of each kind")


if __name__ == "__main__":
    world.run(__doc__ or "", NAME, measure, arguments)
