"""Feature sets, stores and rivals for the benchmarks of features: declared with Feast, filled with made-up history.

Everything lies in one Redis of its own on a free port. The rivals read the same Redis: Feast's SDK the very same tiles,
and the same values once more as plain columns (`<view>_plain`), which is all that `precompute_online` can serve.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

from adapters import provenance
from adapters.feature_state import Batch, FeatureState
from adapters.online_store import Key
from feature_repo import bulk
from feature_repo.about import Service
from feature_repo.declare import over, plan_of, stream_view, windows_view
from feature_repo.layout import Layout, layout_of
from feature_repo.plan import FeaturePlan, ViewPlan
from pipelines.apply_features import STORE
from pipelines.stack import redis_server
from pipelines.stack.launch import free_ports, running

HOST: Final = "127.0.0.1"
PARTITIONS: Final = 1
PROJECT: Final = "bench"
DAY_MS: Final = 86_400_000
shopper = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)


@dataclass(frozen=True)
class Declared:
    """A feature set: the compiled plan, and Feast's objects of it."""

    plan: FeaturePlan
    objects: list[Any]


def group(name: str, entity: Entity, prefix: str) -> Any:
    """A view of 100 features: five columns, five functions, four windows."""
    columns = {f"price{i}": "shop.clicks:price_cents" for i in range(5)}
    features = [over(c, f, "5m 1h 24h 7d") for c in columns for f in ("count", "sum", "mean", "min", "max")]
    return stream_view(name, [entity], prefix, description="", tags={}, columns=columns, features=features)


def declare(views: Sequence[tuple[Any, Entity]], services: Mapping[str, Sequence[str]], *, plain: bool = False
            ) -> Declared:
    """Compile views and services; with `plain` each view also as plain columns, with and without precomputation."""
    plans = tuple(plan_of(view, [entity]) for view, entity in views)
    windows = {view.name: windows_view(view, p) for (view, _), p in zip(views, plans, strict=True)}
    objects: list[Any] = [e for _, e in views] + [v for v, _ in views] + list(windows.values())
    objects += [FeatureService(name=n, features=[windows[v] for v in of]) for n, of in services.items()]
    for (view, entity), compiled in zip(views, plans, strict=True) if plain else ():
        table = _plain(compiled, entity)
        objects += [table, FeatureService(name=f"{view.name}_plain", features=[table]),
                    FeatureService(name=f"{view.name}_precomputed", features=[table], precompute_online=True)]
    plan = FeaturePlan(project=PROJECT, declared_views=plans,
                       services=tuple(Service(name=n, views=tuple(of)) for n, of in services.items()))
    return Declared(plan, list({id(o): o for o in objects}.values()))


def _plain(view: ViewPlan, entity: Entity) -> FeatureView:
    kinds = {"int64": Int64, "float64": Float64}
    return FeatureView(
        name=f"{view.name}_plain", entities=[entity], ttl=timedelta(0), online=True,
        schema=[Field(name=f.name, dtype=kinds[f.aggregation.dtype]) for f in view.declared],
        source=FileSource(name=f"{view.name}_plain_source", path="none.parquet", timestamp_field="event_timestamp"))


@contextmanager
def redis_of_its_own(folder: Path, memory_mb: int = 512) -> Iterator[str]:
    """A Redis on a free port that may take so much memory; gives its URL."""
    (port,) = free_ports(1)
    launch = redis_server.launch(folder / "redis", host=HOST, port=port, memory_mb=memory_mb)
    with running(launch, log=folder / "redis.log", ready=lambda: redis_server.ready(HOST, port)):
        yield f"redis://{HOST}:{port}/0"


def feast_store(folder: Path, redis_url: str, declared: Declared, project: str = PROJECT) -> FeatureStore:
    """Feast's SDK over this Redis, with everything registered."""
    folder.mkdir(parents=True, exist_ok=True)
    where = redis_url.removeprefix("redis://").partition("/")
    text = STORE.format(project=project, folder=folder, redis=f"{where[0]},db={where[2]}")
    (folder / "feature_store.yaml").write_text(text)
    store = FeatureStore(repo_path=str(folder))
    store.apply(declared.objects)
    return store


def histories(view: ViewPlan, keys: int, events: int, now_ms: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """(number, packed tiles) of keys with about `events` clicks each in the last 7 days, half of them today."""
    layout: Layout = layout_of(view)
    rng = np.random.default_rng(seed)
    n = keys * events
    behind = np.where(rng.random(n) < 0.5, rng.integers(0, DAY_MS, n), rng.integers(0, 7 * DAY_MS, n))
    when = now_ms - 1000 - behind
    codes = rng.permutation(np.repeat(np.arange(keys), events))
    values = tuple(rng.integers(1, 10_000, n).astype(np.float64) if fields == ("price_cents",) else
                   np.array([f"v{i}" for i in rng.integers(0, 40, n)], dtype=object) for fields in
                   (layout.feeds[0].values if layout.feeds else ()))
    empty = np.empty(0, np.int64)
    feeds = [bulk.Facts(codes, when, when, values), *(
        bulk.Facts(empty, empty, empty, tuple(np.empty(0) for _ in f.values)) for f in layout.feeds[1:])]
    return bulk.build(layout, feeds, keys)


def fill(state: FeatureState, view: ViewPlan, rows: Iterator[tuple[int, bytes]], now_ms: int,
         say: Callable[[str], None], chunk: int = 500) -> int:
    """Write packed tiles under keys k0, k1, ...; gives how many bytes they have."""
    held: dict[tuple[str, Key], bytes] = {}
    written = total = 0
    for number, packed in rows:
        held[view.name, (f"k{number}",)] = packed
        total += len(packed)
        if len(held) == chunk:
            state.put(held, now_ms)
            written += len(held)
            held = {}
            say(f"{view.name}: {written} keys")
    state.put(held, now_ms)
    return total


def mark_whole(state: FeatureState) -> None:
    """Say, as the end of a rebuild does, that the store holds the feature set."""
    for partition in range(PARTITIONS):
        state.restart_from(Batch(partition=partition, token=""))


def timed(what: Callable[[], Any], times: int, *, before: int = 5) -> list[float]:
    """Milliseconds of each call, after some that do not count."""
    for _ in range(before):
        what()
    out = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        out.append(round((time.perf_counter() - began) * 1e3, 4))
    return out


def progress() -> Callable[[str], None]:
    """Prints at most one line a second, with the seconds since the start."""
    began = last = time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= 1.0:
            last = time.monotonic()
            print(f"  {last - began:5.1f} s  {text}", flush=True)

    return say


def run(doc: str, result: str, measure: Callable[[Path, argparse.Namespace], dict[str, Any]],
        arguments: Callable[[argparse.ArgumentParser], None]) -> None:
    """The command line of these benchmarks: --quick, --seed, --save; prints what was measured."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works; no figures to publish")
    parser.add_argument("--save", type=Path, help=f"where to write the result, e.g. bench/results/{result}.json")
    arguments(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked)
    found |= {"command": f"python -m bench.{result}", "seed": asked.seed, "quick": asked.quick}
    found |= provenance.stamp()
    print(json.dumps({k: v for k, v in found.items() if k != "samples"}, indent=1))
    if asked.save:
        asked.save.parent.mkdir(parents=True, exist_ok=True)
        asked.save.write_text(json.dumps(found, indent=1) + "\n")
